//! The rules as the bus asks them.

use core::hash::{BuildHasher as _, Hash, Hasher as _};
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::sync::{Arc, PoisonError, RwLock};

use latchbus_bus::{
    Authorizer, Claims, Grant, Identity, Principal, PublishRequest, ReadRules, Reader,
};
use latchbus_core::topic::{TopicFilter, TopicName};
use tokio::sync::watch;
use tracing::warn;

use crate::rules::{ClaimedFilters, Rights, Rules, Subject, Who};

/// Principals whose rights are remembered. When there are more it begins anew.
const MAX_REMEMBERED: usize = 16_384;

/// [`Rules`] that can be replaced while they are asked: an [`Authorizer`] for the bus. Without rules everyone may do
/// everything but who has a token with filters of its own, which hold in each case. The program that holds the bus may do so whatever they say.
#[derive(Debug)]
pub struct RulesAuthorizer {
    state: RwLock<State>,
    hasher: RandomState,
    /// Whether there are no rules.
    is_open: AtomicBool,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    rules: Option<Arc<Rules>>,
    /// By a hash of the principal.
    known: HashMap<u64, Known>,
    /// One reader for all who have a tree, where their names do not matter.
    readers: HashMap<usize, Reader>,
}

#[derive(Debug, Clone)]
struct Known {
    identity: Identity,
    client_id: String,
    claims: Option<Arc<Claims>>,
    rights: Arc<Rights>,
    reader: Reader,
}

impl Known {
    fn is(&self, principal: &Principal) -> bool {
        self.identity == principal.identity
            && self.client_id == principal.client_id
            && match (&self.claims, &principal.claims) {
                (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs) || ours == theirs,
                (None, None) => true,
                _ => false,
            }
    }
}

impl State {
    fn new(rules: Option<Arc<Rules>>) -> Self {
        Self {
            rules,
            known: HashMap::new(),
            readers: HashMap::new(),
        }
    }
}

impl RulesAuthorizer {
    /// With these rules.
    pub fn new(rules: Option<Arc<Rules>>) -> Self {
        Self {
            is_open: AtomicBool::new(rules.is_none()),
            state: RwLock::new(State::new(rules)),
            hasher: RandomState::new(),
            changes: watch::Sender::new(0),
        }
    }

    /// Replaces the rules. All that is open is checked again.
    pub fn replace(&self, rules: Option<Arc<Rules>>) {
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            self.is_open.store(rules.is_none(), Ordering::Release);
            *state = State::new(rules);
        }
        self.changes
            .send_modify(|generation| *generation = generation.wrapping_add(1));
    }

    /// Whether there are no rules.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// What this principal may do; none for who may do all.
    fn known<T>(&self, principal: &Principal, take: impl Fn(&Known) -> T) -> Option<T> {
        if principal.identity == Identity::Process || (self.is_open() && !is_limited(principal)) {
            return None;
        }
        let key = self.key(principal);
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let known = state.known.get(&key);
            if let Some(known) = known.filter(|known| known.is(principal)) {
                return Some(take(known));
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let known = state.learn(principal);
        let taken = take(&known);
        if state.known.len() >= MAX_REMEMBERED {
            state.known.clear();
        }
        state.known.insert(key, known);
        Some(taken)
    }

    fn key(&self, principal: &Principal) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        core::mem::discriminant(&principal.identity).hash(&mut hasher);
        principal.identity.name().hash(&mut hasher);
        principal.client_id.hash(&mut hasher);
        principal.claims.is_some().hash(&mut hasher);
        hasher.finish()
    }
}

impl State {
    fn learn(&mut self, principal: &Principal) -> Known {
        let none = Rules::default();
        let rights = Arc::new(rights(self.rules.as_deref().unwrap_or(&none), principal));
        for name in rights.unusable_names() {
            let (client, user) = (&principal.client_id, principal.identity.name());
            warn!(
                target: "access", ?client, ?user,
                "rules with {name} allow nothing here: this name can be no level of a topic"
            );
        }
        let common = rights.shared_tree().map(|tree| {
            let reader = self.readers.entry(tree);
            let new = || Reader::new(RightsReader::new(&rights, None));
            reader.or_insert_with(new).clone()
        });
        let all = TopicFilter::parse("#").is_ok_and(|all| rights.names_matter(all));
        let reader = match common {
            Some(common) if !all => common,
            common => Reader::new(RightsReader::new(&rights, common)),
        };
        Known {
            identity: principal.identity.clone(),
            client_id: principal.client_id.clone(),
            claims: principal.claims.clone(),
            rights,
            reader,
        }
    }
}

fn rights(rules: &Rules, principal: &Principal) -> Rights {
    let who = match &principal.identity {
        Identity::User(name) => Who::User(name),
        Identity::Token { subject } => Who::Token(subject),
        Identity::Certificate { subject } => Who::Certificate(subject),
        // What is not known yet may do what anyone may.
        _ => Who::Anonymous,
    };
    let subject = Subject::new(who).with_client_id(&principal.client_id);
    match principal.claims.as_deref() {
        // A token that says something of topics says all: what it leaves out, it does not allow.
        Some(Claims {
            publish,
            subscribe,
            admin,
            ..
        }) if is_limited(principal) => {
            let claims = ClaimedFilters {
                publish: publish.as_deref().unwrap_or_default(),
                subscribe: subscribe.as_deref().unwrap_or_default(),
                admin: *admin,
            };
            rules.rights(&subject.with_claims(claims))
        }
        claims => {
            let admin = claims.is_some_and(|claims| claims.admin);
            rules.rights(&subject).with_admin(admin)
        }
    }
}

/// Whether it has a token with filters of its own.
fn is_limited(principal: &Principal) -> bool {
    let claims = principal.claims.as_deref();
    claims.is_some_and(|claims| claims.publish.is_some() || claims.subscribe.is_some())
}

/// Whether its transport is MQTT, over TCP or WebSocket.
fn has_qos(principal: &Principal) -> bool {
    principal.transport == "mqtt"
}

impl Authorizer for RulesAuthorizer {
    fn authorize_publish(&self, principal: &Principal, publish: &PublishRequest<'_>) -> bool {
        let PublishRequest {
            topic, qos, retain, ..
        } = *publish;
        // `max_qos` bounds MQTT; other transports have no QoS that a client could lower.
        let qos = if has_qos(principal) { qos } else { 0 };
        let allowed = self.known(principal, |known| {
            known.rights.may_publish(topic, qos, retain)
        });
        allowed.unwrap_or(true)
    }

    fn authorize_subscribe(
        &self,
        principal: &Principal,
        filter: TopicFilter<&str>,
    ) -> Option<Grant> {
        match self.known(principal, |known| known.rights.subscribe(filter)) {
            Some(granted) => granted.map(Grant::up_to),
            None => Some(Grant::default()),
        }
    }

    fn reader(&self, principal: &Principal) -> Option<Reader> {
        self.known(principal, |known| known.reader.clone())
    }

    fn is_admin(&self, principal: &Principal) -> bool {
        let is_admin = self.known(principal, |known| known.rights.is_admin());
        is_admin.unwrap_or(true)
    }

    fn may_publish_anything(&self, principal: &Principal) -> bool {
        let may = self.known(principal, |known| known.rights.may_publish_anything());
        may.unwrap_or(true)
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.subscribe())
    }
}

struct RightsReader {
    rights: Arc<Rights>,
    /// Where the names do not matter: that of all who have the same tree.
    common: Option<Reader>,
}

impl RightsReader {
    fn new(rights: &Arc<Rights>, common: Option<Reader>) -> Self {
        Self {
            rights: Arc::clone(rights),
            common,
        }
    }
}

impl ReadRules for RightsReader {
    fn may_read(&self, topic: TopicName<&str>) -> bool {
        self.rights.may_read(topic)
    }

    fn may_read_all(&self, filter: TopicFilter<&str>) -> bool {
        self.rights.may_read_all(filter)
    }

    fn common(&self, filter: TopicFilter<&str>) -> Option<Reader> {
        let common = self.common.as_ref()?;
        (!self.rights.names_matter(filter)).then(|| common.clone())
    }
}

#[cfg(test)]
mod tests {
    use latchbus_bus::Publish;

    use super::*;

    const TEXT: &str = r#"
        everyone = ["all"]
        signed_in = ["own"]
        [roles.all]
        subscribe = ["lab/#"]
        deny = ["lab/secret"]
        [roles.own]
        publish = ["own/{user}"]
        subscribe = ["own/{user}"]
    "#;

    fn rules(text: &str) -> Arc<Rules> {
        Arc::new(Rules::parse(text, "access.toml").unwrap())
    }

    fn authorizer(text: &str) -> RulesAuthorizer {
        RulesAuthorizer::new(Some(rules(text)))
    }

    fn topic(text: &str) -> TopicName<&str> {
        TopicName::parse(text).unwrap()
    }

    fn user(name: &str) -> Principal {
        Principal::user(name.to_owned(), "mqtt")
    }

    #[test]
    fn a_greatest_qos_is_one_of_mqtt_alone() {
        let rules = authorizer(
            "everyone = [\"low\"]\n[roles.low]\npublish = [\"a\"]\nmax_qos = 0\n[roles.middle]\npublish = [\"b\"]\nmax_qos = 1\n[users]\nanna = [\"middle\"]",
        );
        let may = |transport: &'static str, name: &str, qos| {
            let publish = PublishRequest::new(topic(name), true, qos);
            rules.authorize_publish(&Principal::user("anna".to_owned(), transport), &publish)
        };
        for (name, greatest) in [("a", 0), ("b", 1)] {
            for qos in 0..=2 {
                assert_eq!(may("mqtt", name, qos), qos <= greatest, "{name} {qos}");
            }
            for transport in ["http", "ws", "socketio", "serial"] {
                assert!(
                    may(transport, name, Publish::STATE_QOS),
                    "{transport} {name}"
                );
                assert!(!may(transport, "c", 0), "{transport}");
            }
        }
    }

    #[test]
    fn readers_are_shared_where_no_rule_names_anyone() {
        let rules = authorizer(TEXT);
        let id = |principal: &Principal| rules.reader(principal).map(|reader| reader.id());
        let nobody = |client: &str| Principal::anonymous("mqtt").with_client_id(client);
        assert_eq!(id(&nobody("a")), id(&nobody("b")));
        assert_ne!(id(&user("anna")), id(&user("bert")));
        assert_eq!(id(&user("anna")), id(&user("anna")));
        assert_eq!(id(&Principal::process()), None);
    }

    #[test]
    fn readers_are_common_where_the_names_do_not_matter() {
        let common = |text: &str, filter: &str| {
            let rules = authorizer(&format!("everyone = [\"all\"]\n[roles.all]\n{text}"));
            let filter = TopicFilter::parse(filter).unwrap();
            let reader = |name: &str| rules.reader(&user(name).with_client_id(name)).unwrap();
            let [anna, bert] = ["anna", "bert"].map(reader);
            let [a, b] = [&anna, &bert].map(|reader| reader.common(filter));
            let (a, b) = (a.unwrap_or(anna), b.unwrap_or(bert));
            a.id() == b.id()
        };
        // Who may publish what is no matter of reading.
        let chat = r#"publish = ["chat/{user}"]
            deny_publish = ["{client}/x"]
            subscribe = ["chat/#"]
            deny = ["chat/x"]"#;
        assert!(common(chat, "#") && common(chat, "chat/+"));
        let own = r#"subscribe = ["lab/#", "own/{user}/#", "a/+/{client}"]"#;
        for (filter, expected) in [
            ("lab/#", true),
            ("lab/+/own", true),
            ("own", true),
            ("a/b", true),
            ("a/b/c/d", true),
            ("+/x/y/z", false),
            ("own/anna", false),
            ("own/+/x", false),
            ("own/#", false),
            ("a/#", false),
            ("a/b/c", false),
            ("#", false),
            ("$share/group/lab/#", true),
            ("$share/group/own/#", false),
        ] {
            assert_eq!(common(own, filter), expected, "{filter}");
        }
        // A name that cannot be used denies all that is there.
        let denied = r#"subscribe = ["lab/#", "own/#"]
            deny = ["own/x/{user}/a"]"#;
        for (filter, expected) in [
            ("lab/#", true),
            ("own/y/#", true),
            ("own/x", false),
            ("own/x/b/c", false),
        ] {
            assert_eq!(common(denied, filter), expected, "{filter}");
        }
    }

    #[test]
    fn the_process_may_do_all_and_others_what_is_allowed() {
        let rules = authorizer("");
        let publish = PublishRequest::new(topic("a"), true, 1);
        let filter = TopicFilter::parse("#").unwrap();
        let process = Principal::process();
        assert!(rules.authorize_publish(&process, &publish) && rules.is_admin(&process));
        assert!(rules.authorize_subscribe(&process, filter).is_some());
        for other in [Principal::anonymous("http"), user("anna")] {
            assert!(!rules.authorize_publish(&other, &publish) && !rules.is_admin(&other));
            assert!(rules.authorize_subscribe(&other, filter).is_none());
            assert!(!rules.reader(&other).unwrap().may_read(topic("a")));
        }
    }

    #[test]
    fn a_reload_is_told_and_counts_for_who_is_known() {
        let authorizer = authorizer("");
        let mut changes = authorizer.changes().unwrap();
        let before = authorizer.reader(&user("anna")).unwrap();
        assert!(!before.may_read(topic("lab/a")));
        authorizer.replace(Some(rules(TEXT)));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        let after = authorizer.reader(&user("anna")).unwrap();
        assert!(after.may_read(topic("lab/a")) && after.may_read(topic("own/anna")));
        assert!(!after.may_read(topic("own/bert")) && !after.may_read(topic("lab/secret")));
        assert_ne!(before.id(), after.id());
        authorizer.replace(None);
        assert!(authorizer.reader(&user("anna")).is_none() && authorizer.is_open());
        assert!(changes.has_changed().unwrap());
    }

    #[test]
    fn a_token_that_says_something_says_all() {
        let text =
            "[roles.all]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n[tokens]\nkiosk = [\"all\"]";
        let rules = authorizer(text);
        let mut token = Principal::anonymous("mqtt");
        token.identity = Identity::Token {
            subject: "kiosk".to_owned(),
        };
        let publish = PublishRequest::new(topic("a"), true, 1);
        let may = |token: &Principal| {
            let reads = rules.reader(token).unwrap().may_read(topic("a"));
            (rules.authorize_publish(token, &publish), reads)
        };
        assert_eq!(may(&token), (true, true));
        let mut claims = Claims::default();
        token.claims = Some(Arc::new(claims.clone()));
        assert_eq!(may(&token), (true, true));
        claims.subscribe = Some(vec![TopicFilter::parse("a".to_owned()).unwrap()]);
        token.claims = Some(Arc::new(claims));
        assert_eq!(may(&token), (false, true));
        assert!(!rules.is_admin(&token));
        // It holds without rules, too.
        rules.replace(None);
        assert_eq!(may(&token), (false, true));
        assert!(!rules.is_admin(&token));
    }

    #[test]
    fn a_token_may_be_an_administrators() {
        let rules = authorizer("");
        let mut token = user("anna");
        for filters in [None, Some(vec![])] {
            for admin in [false, true] {
                let mut claims = Claims::default();
                (claims.admin, claims.publish) = (admin, filters.clone());
                token.claims = Some(Arc::new(claims));
                assert_eq!(rules.is_admin(&token), admin);
            }
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let rules = authorizer(TEXT);
        for n in 0..MAX_REMEMBERED + 10 {
            let client = Principal::anonymous("mqtt").with_client_id(n.to_string());
            assert!(rules.reader(&client).is_some());
        }
        {
            let state = rules.state.read().unwrap();
            assert!(state.known.len() <= MAX_REMEMBERED && state.readers.len() == 1);
        }
        // The tree of a token that says something itself is of that token alone.
        for n in 0..10 {
            let token = claiming(token("kiosk"), &format!("own/{n}"));
            assert!(rules.reader(&token).is_some());
        }
        assert_eq!(rules.state.read().unwrap().readers.len(), 1);
    }

    fn token(subject: &str) -> Principal {
        let mut token = Principal::anonymous("mqtt");
        token.identity = Identity::Token {
            subject: subject.to_owned(),
        };
        token
    }

    fn certificate(subject: &str) -> Principal {
        let mut certificate = Principal::anonymous("mqtt");
        certificate.identity = Identity::Certificate {
            subject: subject.to_owned(),
        };
        certificate
    }

    /// The same with a token that lets it read this alone.
    fn claiming(mut principal: Principal, filter: &str) -> Principal {
        let mut claims = Claims::default();
        claims.subscribe = Some(vec![TopicFilter::parse(filter.to_owned()).unwrap()]);
        principal.claims = Some(Arc::new(claims));
        principal
    }

    /// Principals that differ, each in something else.
    fn different() -> Vec<Principal> {
        vec![
            Principal::anonymous("mqtt"),
            Principal::anonymous("mqtt").with_client_id("a"),
            user("a"),
            user("b"),
            user("a").with_client_id("a"),
            token("a"),
            certificate("a"),
            claiming(token("a"), "lab/#"),
            claiming(token("a"), "own/#"),
            claiming(user("a"), "lab/#"),
        ]
    }

    #[test]
    fn what_is_remembered_is_of_one_principal() {
        let rules = authorizer(TEXT);
        let different = different();
        for one in &different {
            assert!(rules.reader(one).is_some());
            let state = rules.state.read().unwrap();
            let known = state.known.get(&rules.key(one)).unwrap();
            for other in &different {
                assert_eq!(known.is(other), core::ptr::eq(one, other), "{other:?}");
            }
        }
        // All but those of the same name whose tokens say different things are remembered beside each other.
        assert_eq!(rules.state.read().unwrap().known.len(), different.len() - 1);
        // The same token, read again, is no other.
        let again = claiming(user("a"), "lab/#");
        let before = rules.reader(&different[9]).unwrap();
        assert_eq!(rules.reader(&again).unwrap().id(), before.id());
        assert_eq!(rules.state.read().unwrap().known.len(), different.len() - 1);
    }

    #[test]
    fn each_kind_of_principal_has_what_is_assigned_to_it() {
        let roles = ["users", "tokens", "certificates"].map(|kind| {
            format!("[{kind}]\nanna = [\"{kind}\"]\n[roles.{kind}]\nsubscribe = [\"{kind}\"]\n")
        });
        let rules = authorizer(&roles.concat());
        let reads = |principal: &Principal| {
            let reader = rules.reader(principal).unwrap();
            ["users", "tokens", "certificates"].map(|name| reader.may_read(topic(name)))
        };
        assert_eq!(reads(&user("anna")), [true, false, false]);
        assert_eq!(reads(&token("anna")), [false, true, false]);
        assert_eq!(reads(&certificate("anna")), [false, false, true]);
        assert_eq!(reads(&Principal::anonymous("mqtt")), [false; 3]);
    }

    #[test]
    fn a_token_that_says_something_is_no_administrators_by_its_roles() {
        let rules = authorizer("signed_in = [\"all\"]\n[roles.all]\nadmin = true");
        for principal in [user("anna"), token("anna")] {
            assert!(rules.is_admin(&principal));
            assert!(!rules.is_admin(&claiming(principal, "#")));
        }
    }

    #[test]
    fn who_may_publish_somewhere_may_publish_anything() {
        for (text, expected) in [
            ("", false),
            ("subscribe = [\"#\"]", false),
            ("deny_publish = [\"#\"]", false),
            ("publish = [\"a\"]", true),
            ("publish = [\"a/#\"]", true),
            ("publish = [\"#\"]", true),
        ] {
            let rules = authorizer(&format!("everyone = [\"all\"]\n[roles.all]\n{text}"));
            let may = rules.may_publish_anything(&Principal::anonymous("mqtt"));
            assert_eq!(may, expected, "{text}");
        }
    }
}
