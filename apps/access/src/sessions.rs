//! Sessions of browsers: who has signed in on a page and comes back with a cookie.

use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use latchbus_bus::{
    Authenticator, BoxFuture, Claims, Identity, Principal, SignIn, SignInRefused, SignedIn,
    SignedOut,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::watch;

use crate::SignIns;

/// The bounds of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time. One more ends the one that was not used for the longest time. Default 10,000.
    pub sessions: usize,
    /// Of one user. One more ends the one of theirs that was not used for the longest time. Default 50.
    pub user_sessions: usize,
    /// A session ends when no request has come with it for so long. Default 12 h.
    pub idle: Duration,
    /// A session ends so long after its sign-in, however much it is used. Default 7 days.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 10_000,
            user_sessions: 50,
            idle: Duration::from_secs(12 * 60 * 60),
            age: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

/// How often sessions that have ended are looked for, so that the connections that were opened with them end too.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Bytes of an id: nobody guesses one of 256 bits.
const ID_BYTES: usize = 32;

type Id = [u8; ID_BYTES];

/// [`SignIns`], and the sessions of browsers that have signed in. They are in memory alone: a restart ends them. Clones are handles
/// to one.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sign_ins: SignIns,
    table: Mutex<Table>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    limits: Limits,
    sessions: HashMap<Id, Session>,
    numbers: HashSet<u64>,
    next: u64,
}

#[derive(Debug)]
struct Session {
    number: u64,
    identity: Identity,
    claims: Option<Arc<Claims>>,
    version: u64,
    begun: Instant,
    used: Instant,
    /// By the clock, for the connections that it opens.
    expires_at: SystemTime,
}

impl Session {
    fn is_alive(&self, now: Instant, limits: &Limits) -> bool {
        now.saturating_duration_since(self.used) < limits.idle
            && now.saturating_duration_since(self.begun) < limits.age
    }
}

impl Table {
    /// Whether others have ended to make room.
    fn begin(&mut self, id: Id, principal: &Principal, now: Instant, time: SystemTime) -> bool {
        let has_ended = self.make_room(&principal.identity, now);
        self.next += 1;
        let latest = time + self.limits.age;
        let session = Session {
            number: self.next,
            identity: principal.identity.clone(),
            claims: principal.claims.clone(),
            version: principal.version,
            begun: now,
            used: now,
            expires_at: principal.expires_at.map_or(latest, |at| at.min(latest)),
        };
        self.sessions.insert(id, session);
        self.numbers.insert(self.next);
        has_ended
    }

    fn make_room(&mut self, identity: &Identity, now: Instant) -> bool {
        let swept = self.sweep(now);
        let sessions = self.sessions.iter();
        let own = sessions.filter(|(_, session)| session.identity == *identity);
        let own: Vec<_> = own.map(|(id, session)| (session.used, *id)).collect();
        let oldest = if own.len() >= self.limits.user_sessions {
            own.into_iter().min()
        } else if self.sessions.len() >= self.limits.sessions {
            let all = self.sessions.iter();
            all.map(|(id, session)| (session.used, *id)).min()
        } else {
            None
        };
        oldest.is_some_and(|(_, id)| self.remove(&id).is_some()) || swept
    }

    fn remove(&mut self, id: &Id) -> Option<Identity> {
        let session = self.sessions.remove(id)?;
        self.numbers.remove(&session.number);
        Some(session.identity)
    }

    /// Whether any has ended.
    fn sweep(&mut self, now: Instant) -> bool {
        let before = self.sessions.len();
        let (numbers, limits) = (&mut self.numbers, &self.limits);
        self.sessions.retain(|_, session| {
            let is_alive = session.is_alive(now, limits);
            if !is_alive {
                numbers.remove(&session.number);
            }
            is_alive
        });
        self.sessions.len() < before
    }

    fn find(&mut self, id: &Id, now: Instant) -> Option<SignedIn> {
        let session = self.sessions.get_mut(id)?;
        if !session.is_alive(now, &self.limits) {
            return None;
        }
        session.used = now;
        Some(
            SignedIn::new(session.identity.clone())
                .with_claims(session.claims.clone())
                .with_version(session.version)
                .until(session.expires_at)
                .with_session(session.number),
        )
    }

    fn contains(&self, number: u64) -> bool {
        self.numbers.contains(&number)
    }
}

impl Sessions {
    /// No sessions yet, of those whom these let in.
    pub fn new(sign_ins: SignIns, limits: Limits) -> Self {
        let table = Table {
            limits,
            ..Table::default()
        };
        Self(Arc::new(Inner {
            sign_ins,
            table: Mutex::new(table),
            changes: watch::Sender::new(0),
        }))
    }

    /// The bounds.
    pub fn limits(&self) -> Limits {
        self.table().limits
    }

    /// Whether there is anything to sign in with: users or tokens.
    pub fn has_users(&self) -> bool {
        self.0.sign_ins.has_users()
    }

    /// Whether who has not signed in is let in.
    pub fn allows_anonymous(&self) -> bool {
        self.0.sign_ins.allows_anonymous()
    }

    /// Begins a session of someone who has proved who they are: what the browser is to bring back. None where the system has no
    /// random numbers.
    pub fn begin(&self, principal: &Principal) -> Option<String> {
        let mut id = [0; ID_BYTES];
        SystemRandom::new().fill(&mut id).ok()?;
        let (now, time) = (Instant::now(), SystemTime::now());
        let has_ended = self.table().begin(id, principal, now, time);
        if has_ended {
            self.changed();
        }
        Some(BASE64.encode(id))
    }

    /// Ends a session, and the connections that were opened with it: whose it was.
    pub fn end(&self, id: &str) -> Option<Identity> {
        let id = read(id)?;
        let identity = self.table().remove(&id)?;
        self.changed();
        Some(identity)
    }

    /// Ends what has not been used for too long, until it is dropped.
    pub async fn watch(self) {
        let mut sweeps = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            sweeps.tick().await;
            let has_ended = self.table().sweep(Instant::now());
            if has_ended {
                self.changed();
            }
        }
    }

    fn changed(&self) {
        let changes = &self.0.changes;
        changes.send_modify(|generation| *generation = generation.wrapping_add(1));
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resume(&self, id: &str) -> Option<SignedIn> {
        let id = read(id)?;
        let signed_in = self.table().find(&id, Instant::now())?;
        let mut principal = Principal::anonymous("session");
        principal.identity = signed_in.identity.clone();
        principal.version = signed_in.version;
        let is_valid = self.0.sign_ins.still_valid(&principal)
            && (signed_in.expires_at).is_none_or(|at| SystemTime::now() < at);
        if !is_valid {
            self.table().remove(&id);
        }
        is_valid.then_some(signed_in)
    }
}

fn read(id: &str) -> Option<Id> {
    BASE64.decode(id).ok()?.try_into().ok()
}

impl Authenticator for Sessions {
    fn authenticate(&self, sign_in: SignIn) -> BoxFuture<'_, Result<SignedIn, SignInRefused>> {
        let credentials = &sign_in.credentials;
        let proves = credentials.user.is_some()
            || credentials.password.is_some()
            || credentials.token.is_some();
        let sessions = match proves {
            true => [].iter(),
            false => credentials.sessions.iter(),
        };
        match sessions.filter_map(|session| self.resume(session)).next() {
            Some(signed_in) => Box::pin(core::future::ready(Ok(signed_in))),
            None => self.0.sign_ins.authenticate(sign_in),
        }
    }

    fn still_valid(&self, principal: &Principal) -> bool {
        let session = principal.session;
        session.is_none_or(|number| self.table().contains(number))
            && self.0.sign_ins.still_valid(principal)
    }

    fn why_invalid(&self, principal: &Principal) -> SignedOut {
        match self.0.sign_ins.still_valid(principal) {
            true => SignedOut::SessionEnded,
            false => self.0.sign_ins.why_invalid(principal),
        }
    }

    fn is_known(&self, principal: &Principal) -> bool {
        self.0.sign_ins.is_known(principal)
    }

    /// Passes on what changes the users, from within a runtime.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        let receiver = self.0.changes.subscribe();
        if let Some(mut users) = self.0.sign_ins.changes() {
            let changes = self.0.changes.clone();
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        () = changes.closed() => return,
                        changed = users.changed() => match changed {
                            Ok(()) => changes.send_modify(|generation| *generation = generation.wrapping_add(1)),
                            Err(_) => return,
                        },
                    }
                }
            });
        }
        Some(receiver)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use latchbus_bus::Credentials;

    use super::*;
    use crate::users::{PasswordHash, Users};

    const LIMITS: Limits = Limits {
        sessions: 1_000,
        user_sessions: 50,
        idle: Duration::from_secs(60 * 60),
        age: Duration::from_secs(10 * 60 * 60),
    };

    fn table() -> Table {
        Table {
            limits: LIMITS,
            ..Table::default()
        }
    }

    fn principal(name: &str) -> Principal {
        Principal::user(name.to_owned(), "http")
    }

    fn id(number: usize) -> Id {
        let mut id = [0; ID_BYTES];
        for (to, from) in id.iter_mut().zip(number.to_le_bytes()) {
            *to = from;
        }
        id
    }

    #[test]
    fn a_session_ends_when_it_is_not_used_and_when_it_is_old() {
        let (start, time) = (Instant::now(), SystemTime::now());
        let mut table = table();
        table.begin(id(1), &principal("anna"), start, time);
        let signed_in = table.find(&id(1), start).unwrap();
        assert_eq!(signed_in.identity, Identity::User("anna".to_owned()));
        assert_eq!(signed_in.expires_at, Some(time + LIMITS.age));
        assert_eq!(table.find(&id(2), start), None);

        let second = Duration::from_secs(1);
        let mut now = start;
        // Used again and again, it lasts its time and no longer.
        while now + LIMITS.idle - second < start + LIMITS.age {
            now += LIMITS.idle - second;
            assert!(table.find(&id(1), now).is_some());
        }
        assert!(table.find(&id(1), start + LIMITS.age - second).is_some());
        assert_eq!(table.find(&id(1), start + LIMITS.age), None);

        table.begin(id(2), &principal("anna"), start, time);
        assert_eq!(table.find(&id(2), start + LIMITS.idle), None);
        assert!(table.sweep(start + LIMITS.idle));
        assert!(!table.contains(2));
    }

    #[test]
    fn a_token_ends_its_session() {
        let mut table = table();
        let (now, time) = (Instant::now(), SystemTime::now());
        let mut token = principal("anna");
        token.expires_at = Some(time + Duration::from_secs(5));
        table.begin(id(1), &token, now, time);
        let signed_in = table.find(&id(1), now).unwrap();
        assert_eq!(signed_in.expires_at, token.expires_at);
    }

    #[test]
    fn one_more_ends_the_one_that_was_not_used_for_the_longest_time() {
        let (start, time) = (Instant::now(), SystemTime::now());
        let mut table = table();
        let at = |number: usize| start + Duration::from_millis(number as u64);
        table.begin(id(0), &principal("berta"), start, time);
        for number in 1..=LIMITS.user_sessions {
            table.begin(id(number), &principal("anna"), at(number), time);
        }
        let now = at(LIMITS.user_sessions + 1);
        assert!(table.find(&id(1), now).is_some());
        table.begin(id(9_999_999), &principal("anna"), now, time);
        assert_eq!(table.find(&id(2), now), None);
        // One user's do not end another's.
        assert!(table.find(&id(0), now).is_some());

        for number in LIMITS.user_sessions + 1..=LIMITS.sessions + 5 {
            let name = format!("user {}", number / 10);
            table.begin(id(number), &principal(&name), at(number), time);
        }
        assert_eq!(table.sessions.len(), LIMITS.sessions);
        assert!(
            table
                .find(&id(LIMITS.sessions + 5), at(LIMITS.sessions + 5))
                .is_some()
        );
    }

    /// `correct horse`, of htpasswd -B.
    const ANNA: &str = "anna:$2y$05$MFSMmI2PqSL9QjgAtX0dJ.ZlE7EIzily2QeWpbwG6P9LKZmHYwEDW\n";

    struct Fixture {
        _directory: tempfile::TempDir,
        users: Users,
        sessions: Sessions,
    }

    impl Fixture {
        fn new(limits: Limits) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("users");
            fs::write(&path, ANNA).unwrap();
            let users = Users::open(path).unwrap();
            let sign_ins = SignIns::builder().users(users.clone()).build();
            Self {
                _directory: directory,
                users,
                sessions: Sessions::new(sign_ins, limits),
            }
        }

        fn write(&self, text: &str) {
            fs::write(self.users.path(), text).unwrap();
            self.users.reload();
        }

        /// A session of anna, as if she had just signed in; perhaps by a token.
        fn begin(&self, expires_at: Option<SystemTime>) -> String {
            let mut principal = principal("anna");
            principal.version = self.users.version("anna").unwrap();
            principal.expires_at = expires_at;
            self.sessions.begin(&principal).unwrap()
        }

        async fn ask(&self, credentials: Credentials) -> Result<Principal, SignInRefused> {
            let sign_in = SignIn::new("test").with_credentials(credentials);
            let signed_in = self.sessions.authenticate(sign_in).await?;
            let mut principal = Principal::anonymous("test");
            principal.identity = signed_in.identity;
            (principal.version, principal.session) = (signed_in.version, signed_in.session);
            Ok(principal)
        }

        async fn resume(&self, id: &str) -> Result<Principal, SignInRefused> {
            self.ask(cookie(id)).await
        }
    }

    fn cookie(id: &str) -> Credentials {
        Credentials::default().with_sessions(vec![id.to_owned()])
    }

    #[tokio::test]
    async fn the_connections_of_a_session_end_with_it_and_are_told() {
        let fixture = Fixture::new(LIMITS);
        let mut changes = fixture.sessions.changes().unwrap();
        let mut connected = Vec::new();
        for _ in 0..2 {
            let id = fixture.begin(None);
            let principal = fixture.resume(&id).await.unwrap();
            assert_eq!(principal.identity, Identity::User("anna".to_owned()));
            assert!(fixture.sessions.still_valid(&principal));
            connected.push((id, principal));
        }
        assert!(!changes.has_changed().unwrap());
        let [(ended, before), (_, other)] = &connected[..] else {
            unreachable!()
        };
        let was = fixture.sessions.end(ended);
        assert_eq!(was, Some(Identity::User("anna".to_owned())));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert!(!fixture.sessions.still_valid(before));
        assert!(fixture.sessions.still_valid(other));
        let refused = fixture.resume(ended).await.unwrap_err();
        assert_eq!(refused, SignInRefused::CredentialsRequired);
        // What is none any more, or never was one, ends nothing.
        for none in [ended, "", "AAAA"] {
            assert_eq!(fixture.sessions.end(none), None);
        }
        assert!(!changes.has_changed().unwrap());
    }

    #[tokio::test]
    async fn a_session_that_makes_room_ends_its_connections() {
        let fixture = Fixture::new(Limits {
            user_sessions: 1,
            ..LIMITS
        });
        let changes = fixture.sessions.changes().unwrap();
        let before = fixture.resume(&fixture.begin(None)).await.unwrap();
        assert!(!changes.has_changed().unwrap());
        let after = fixture.resume(&fixture.begin(None)).await.unwrap();
        assert!(changes.has_changed().unwrap());
        assert!(!fixture.sessions.still_valid(&before));
        assert!(fixture.sessions.still_valid(&after));
    }

    #[tokio::test]
    async fn a_session_ends_with_its_user_and_with_their_password() {
        let other = format!("anna:{}\n", PasswordHash::new(b"other").unwrap());
        for text in ["", &other] {
            let fixture = Fixture::new(LIMITS);
            let mut changes = fixture.sessions.changes().unwrap();
            let id = fixture.begin(None);
            let connected = fixture.resume(&id).await.unwrap();
            fixture.write(text);
            // It is the watching task that passes it on.
            let told = tokio::time::timeout(Duration::from_secs(60), changes.changed());
            told.await.unwrap().unwrap();
            assert!(!fixture.sessions.still_valid(&connected));
            assert!(fixture.resume(&id).await.is_err());
            // It does not come back with a user of this name.
            fixture.write(ANNA);
            assert!(fixture.resume(&id).await.is_err());
            assert!(!fixture.sessions.still_valid(&connected));
        }
    }

    #[tokio::test]
    async fn a_session_of_a_token_that_has_ended_is_none() {
        let fixture = Fixture::new(LIMITS);
        let now = SystemTime::now();
        let second = Duration::from_secs(1);
        let ended = fixture.begin(Some(now - second));
        let refused = fixture.resume(&ended).await.unwrap_err();
        assert_eq!(refused, SignInRefused::CredentialsRequired);
        assert_eq!(fixture.sessions.end(&ended), None);
        let lasting = fixture.begin(Some(now + 1_000 * second));
        assert!(fixture.resume(&lasting).await.is_ok());
    }

    #[tokio::test]
    async fn credentials_count_before_a_session() {
        let fixture = Fixture::new(LIMITS);
        fixture.write(&format!("{ANNA}{}", ANNA.replace("anna", "bea")));
        let id = fixture.begin(None);
        let beside = |credentials: Credentials| credentials.with_sessions(vec![id.clone()]);
        let mut name_alone = Credentials::default();
        name_alone.user = Some("anna".to_owned());
        let mut password_alone = Credentials::default();
        password_alone.password = Some("correct horse".into());
        for refused in [
            Credentials::password("bea", "wrong"),
            Credentials::token("x"),
            name_alone,
            password_alone,
        ] {
            assert!(fixture.ask(beside(refused)).await.is_err());
        }
        let bea = Credentials::password("bea", "correct horse");
        let bea = fixture.ask(beside(bea)).await.unwrap();
        assert_eq!(bea.identity, Identity::User("bea".to_owned()));
        assert_eq!(bea.session, None);
        // Of several cookies the one that is good counts.
        let several = vec![String::new(), "AAAA".to_owned(), id.clone()];
        let several = Credentials::default().with_sessions(several);
        let anna = fixture.ask(several).await.unwrap();
        assert_eq!(anna.identity, Identity::User("anna".to_owned()));
    }
}
