use std::fs;

use tokio::runtime::Runtime;

use super::*;
use crate::users::{MEMORY_KIB, read, update};

/// `correct horse`, of htpasswd -B.
const BCRYPT: &str = "$2y$05$MFSMmI2PqSL9QjgAtX0dJ.ZlE7EIzily2QeWpbwG6P9LKZmHYwEDW";

struct Fixture {
    directory: tempfile::TempDir,
    users: Users,
    runtime: Runtime,
}

impl Fixture {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        fs::write(&path, text).unwrap();
        let users = Users::open(path).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            directory,
            users,
            runtime,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("users")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
        self.users.reload();
    }

    fn sign_in(&self, name: &str, password: &str) -> Result<u64, Refused> {
        self.sign_in_from(1, name, password)
    }

    fn sign_in_from(&self, last: u8, name: &str, password: &str) -> Result<u64, Refused> {
        let address = Some(IpAddr::from([192, 0, 2, last]));
        let sign_in = self.users.sign_in(name, password.as_bytes(), address);
        self.runtime.block_on(sign_in)
    }
}

#[test]
fn right_wrong_and_unknown() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\n"));
    assert_eq!(fixture.sign_in("anna", "wrong"), Err(Refused::Wrong));
    assert_eq!(fixture.sign_in("ben", "correct horse"), Err(Refused::Wrong));
    assert_eq!(fixture.sign_in("anna", ""), Err(Refused::Wrong));
    let version = fixture.sign_in("anna", "correct horse").unwrap();
    assert_eq!(fixture.users.version("anna"), Some(version));
    assert_eq!(Fixture::new("").sign_in("anna", "x"), Err(Refused::Wrong));
}

#[test]
fn a_hash_of_another_program_is_replaced_and_nobody_has_to_sign_in_again() {
    let fixture = Fixture::new(&format!("# the lab\nanna:{BCRYPT}\n"));
    let mut changes = fixture.users.changes();
    let version = fixture.sign_in("anna", "correct horse").unwrap();
    let file = read(&fixture.path()).unwrap();
    let hash = file.hash("anna").unwrap();
    assert!(!hash.is_outdated() && hash.verify(b"correct horse"));
    assert!(file.to_string().starts_with("# the lab\nanna:$argon2id$"));
    assert!(file.to_string().contains(&format!("m={MEMORY_KIB},")));
    fixture.users.reload();
    assert_eq!(fixture.users.version("anna"), Some(version));
    assert!(!changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(fixture.sign_in("anna", "correct horse"), Ok(version));
}

#[cfg(unix)]
#[test]
fn where_the_file_cannot_be_replaced_the_sign_in_counts_all_the_same() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\n"));
    // A directory where the new file is to be written.
    fs::create_dir(fixture.directory.path().join("users.new")).unwrap();
    assert!(fixture.sign_in("anna", "correct horse").is_ok());
    assert!(
        read(&fixture.path())
            .unwrap()
            .hash("anna")
            .unwrap()
            .is_outdated()
    );
}

#[test]
fn a_change_of_the_file_revokes() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\nben:{BCRYPT}\n"));
    let changes = fixture.users.changes();
    let before = fixture.sign_in("anna", "correct horse").unwrap();
    let other = PasswordHash::new(b"battery staple").unwrap();
    fixture.write(&format!("anna:{other}\nzoe:{BCRYPT}\n"));
    assert!(changes.has_changed().unwrap());
    assert_ne!(fixture.users.version("anna"), Some(before));
    assert_eq!(fixture.users.version("ben"), None);
    assert_eq!(
        fixture.sign_in("anna", "correct horse"),
        Err(Refused::Wrong),
        "what was verified before does not count any more"
    );
    assert!(fixture.sign_in("anna", "battery staple").is_ok());
    assert!(fixture.sign_in("zoe", "correct horse").is_ok());
}

#[test]
fn a_new_user_is_no_change_for_the_others() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\n"));
    let (changes, version) = (fixture.users.changes(), fixture.users.version("anna"));
    fixture.write(&format!("ben:{BCRYPT}\nanna:{BCRYPT}\n"));
    assert_eq!(
        (fixture.users.len(), fixture.users.version("anna")),
        (2, version)
    );
    assert!(!changes.has_changed().unwrap());
}

#[test]
fn a_broken_or_missing_file_changes_nothing() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\n"));
    fixture.write("anna\n");
    assert!(fixture.sign_in("anna", "correct horse").is_ok());
    fs::remove_file(fixture.path()).unwrap();
    fixture.users.reload();
    fixture.users.look();
    assert!(fixture.sign_in("anna", "correct horse").is_ok());
    fixture.write("");
    assert!(fixture.users.is_empty());
}

#[test]
fn the_file_is_read_when_two_looks_find_the_same_change() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\n"));
    let hash = PasswordHash::parse(BCRYPT).unwrap();
    update(&fixture.path(), |file| file.set("ben", hash))
        .unwrap()
        .unwrap();
    fixture.users.look();
    assert_eq!(fixture.users.len(), 1);
    fixture.users.look();
    assert_eq!(fixture.users.len(), 2);
}

#[test]
fn a_flood_is_refused_without_a_hash_and_delays_nobody_else() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\n"));
    assert!(fixture.sign_in_from(2, "anna", "correct horse").is_ok());
    let flood = async {
        let mut attempts = tokio::task::JoinSet::new();
        for number in 0..1_000 {
            let users = fixture.users.clone();
            attempts.spawn(async move {
                let address = Some(IpAddr::from([192, 0, 2, 1]));
                users
                    .sign_in("anna", format!("{number}").as_bytes(), address)
                    .await
            });
        }
        attempts.join_all().await
    };
    let answers = fixture.runtime.block_on(flood);
    let verified = answers
        .iter()
        .filter(|answer| **answer == Err(Refused::Wrong));
    let verified = verified.count();
    // As many as the address may fail, and those that were being verified then.
    assert!((6..6 + MAX_VERIFICATIONS).contains(&verified), "{verified}");
    assert!(answers.iter().all(|answer| answer.is_err()));
    assert!(matches!(
        fixture.sign_in_from(1, "anna", "correct horse"),
        Ok(_) | Err(Refused::Throttled(_))
    ));
    assert!(fixture.sign_in_from(2, "anna", "correct horse").is_ok());
    fixture
        .users
        .0
        .cache
        .lock()
        .map(|mut cache| *cache = Cache::new())
        .unwrap();
    assert!(fixture.sign_in_from(2, "anna", "correct horse").is_ok());
    assert!(fixture.sign_in_from(3, "anna", "correct horse").is_ok());
    assert!(matches!(
        fixture.sign_in_from(1, "anna", "wrong"),
        Err(Refused::Throttled(_))
    ));
}

#[test]
fn who_hangs_up_is_counted() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\n"));
    for number in 0..20 {
        let password = format!("{number}");
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        let attempt = fixture.users.sign_in("anna", password.as_bytes(), address);
        fixture.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = attempt => {}
                () = tokio::task::yield_now() => {}
            }
            // Until it has ended.
            let all = u32::try_from(threads::count()).unwrap();
            let _all = fixture.users.0.verifications.acquire_many(all).await;
        });
    }
    assert!(matches!(
        fixture.sign_in("anna", "wrong"),
        Err(Refused::Throttled(_))
    ));
}

#[test]
fn a_name_that_is_none_is_compared_with_the_hash_of_a_user() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\nben:{BCRYPT}\n"));
    let table = fixture.users.table();
    let version = |user: Option<&User>| user.unwrap().version;
    for key in 0..10 {
        assert_eq!(
            version(table.compared("nobody", key)),
            version(table.stand_in(key))
        );
        assert_eq!(
            Some(version(table.compared("ben", key))),
            fixture.users.version("ben")
        );
    }
    assert!(Table::default().stand_in(3).is_none());
}

/// Else who guesses could fill the queue, and everybody else would be turned away as from a busy server.
#[test]
fn who_has_to_wait_takes_no_place_in_the_queue() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\n"));
    let address = Some(IpAddr::from([192, 0, 2, 1]));
    for _ in 0..=Delays::default().free_failures {
        lock(&fixture.users.0.throttle).failed(Instant::now(), address, "anna");
    }
    let busy = &fixture.users.0.verifications;
    let _all = busy
        .try_acquire_many(threads::count().try_into().unwrap())
        .unwrap();
    let sign_in = fixture.users.sign_in("anna", b"x", address);
    let mut sign_in = core::pin::pin!(sign_in);
    let mut context = core::task::Context::from_waker(core::task::Waker::noop());
    let answer = sign_in.as_mut().poll(&mut context);
    assert!(
        matches!(answer, core::task::Poll::Ready(Err(Refused::Throttled(_)))),
        "{answer:?}"
    );
}

/// While an address waits, what was verified lately elsewhere counts no more than a wrong guess.
#[test]
fn a_remembered_password_is_not_looked_at_while_an_address_waits() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\nben:{BCRYPT}\n"));
    assert!(fixture.sign_in_from(1, "anna", "correct horse").is_ok());
    for name in ["anna", "ben", "nobody"] {
        for number in 0..7 {
            let _ = fixture.sign_in_from(2, name, &number.to_string());
        }
    }
    for password in ["correct horse", "wrong"] {
        assert!(matches!(
            fixture.sign_in_from(2, "anna", password),
            Err(Refused::Throttled(_))
        ));
    }
    assert!(fixture.sign_in_from(1, "anna", "correct horse").is_ok());
    // Nor at an address where the user is known, when it is their own password that was tried there.
    for number in 0..7 {
        let _ = fixture.sign_in_from(1, "anna", &number.to_string());
    }
    for password in ["correct horse", "wrong"] {
        assert!(matches!(
            fixture.sign_in_from(1, "anna", password),
            Err(Refused::Throttled(_))
        ));
    }
}

/// Guesses that are made at once are as many as those that are made one after the other: the right one among them is not found by
/// being remembered from elsewhere.
#[test]
fn guesses_at_the_same_time_find_nothing_that_is_remembered() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\n"));
    assert!(fixture.sign_in_from(1, "anna", "correct horse").is_ok());
    for last in [1, 2] {
        let guesses = async {
            let mut attempts = tokio::task::JoinSet::new();
            for number in 0..200 {
                let users = fixture.users.clone();
                let guess = match number {
                    150 => "correct horse".to_owned(),
                    other => other.to_string(),
                };
                attempts.spawn(async move {
                    let address = Some(IpAddr::from([192, 0, 2, last]));
                    users.sign_in("anna", guess.as_bytes(), address).await
                });
            }
            attempts.join_all().await
        };
        let answers = fixture.runtime.block_on(guesses);
        assert!(answers.iter().all(Result::is_err), "at {last}");
    }
}

/// Whoever was remembered from elsewhere has signed in here too, and is delayed by nobody else.
#[test]
fn a_remembered_password_makes_its_user_known() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\n"));
    for last in [1, 2] {
        assert!(fixture.sign_in_from(last, "anna", "correct horse").is_ok());
    }
    for number in 0..10 {
        let _ = fixture.sign_in_from(2, "ben", &number.to_string());
    }
    assert!(matches!(
        fixture.sign_in_from(2, "ben", "x"),
        Err(Refused::Throttled(_))
    ));
    assert!(fixture.sign_in_from(2, "anna", "correct horse").is_ok());
    // What somebody guesses beside a client that asks often adds up.
    for number in 0..6 {
        let _ = fixture.sign_in_from(2, "anna", &number.to_string());
        let _ = fixture.sign_in_from(2, "anna", "correct horse");
    }
    assert!(matches!(
        fixture.sign_in_from(2, "anna", "wrong"),
        Err(Refused::Throttled(_))
    ));
}

#[test]
fn a_removal_alone_is_a_change() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\nben:{BCRYPT}\n"));
    let mut changes = fixture.users.changes();
    for (text, has_changed) in [
        (format!("anna:{BCRYPT}\n"), true),
        (format!("# nothing else\nanna:{BCRYPT}\n"), false),
        (
            format!("anna:{}\n", PasswordHash::new(b"battery").unwrap()),
            true,
        ),
    ] {
        fixture.write(&text);
        assert_eq!(changes.has_changed().unwrap(), has_changed, "{text}");
        changes.mark_unchanged();
    }
}

#[test]
fn a_sign_in_is_remembered_and_makes_its_address_known() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\nben:{BCRYPT}\n"));
    assert_eq!(fixture.users.cached("anna", b"correct horse"), None);
    let version = fixture.sign_in("anna", "correct horse").unwrap();
    assert_eq!(
        fixture.users.cached("anna", b"correct horse"),
        Some(version)
    );
    assert_eq!(fixture.users.cached("anna", b"another"), None);
    assert_eq!(fixture.users.cached("ben", b"correct horse"), None);
    let address = Some(IpAddr::from([192, 0, 2, 1]));
    for _ in 0..100 {
        lock(&fixture.users.0.throttle).failed(Instant::now(), address, "ben");
    }
    assert!(matches!(
        fixture.sign_in("ben", "wrong"),
        Err(Refused::Throttled(_))
    ));
    // Theirs are counted apart.
    assert_eq!(fixture.sign_in("anna", "wrong"), Err(Refused::Wrong));
}

/// An administrator has set another password while this one was compared.
#[test]
fn a_hash_that_has_changed_meanwhile_is_not_replaced() {
    let fixture = Fixture::new(&format!("anna:{BCRYPT}\n"));
    let old = fixture.users.table().users["anna"].clone();
    let new = format!("anna:{}\n", PasswordHash::new(b"battery").unwrap());
    fs::write(fixture.path(), &new).unwrap();
    fixture.users.rewrite("anna", &old, b"correct horse");
    assert_eq!(fs::read_to_string(fixture.path()).unwrap(), new);
    fixture.users.reload();
    assert_eq!(
        fixture.sign_in("anna", "correct horse"),
        Err(Refused::Wrong)
    );
}
