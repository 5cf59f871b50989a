//! Mosquitto's files mean here what they mean there: one ACL, the same clients, and a running mosquitto beside the rules.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use core::time::Duration;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use latchbus_access::mosquitto;
use latchbus_access::rules::{Rules, Subject, Who};
use latchbus_core::topic::{TopicFilter, TopicName};

const ACL: &str = "\
topic read open/#
topic write drop/+
user watcher
topic readwrite #
user anna
topic lab/#
topic deny lab/secret
topic write out/+/x
user bert
topic read lab/+
pattern readwrite home/%u/#
pattern write dev/%c
pattern deny home/%u/locked
";

const TOPICS: [&str; 17] = [
    "open",
    "open/a/b",
    "drop/a",
    "drop",
    "lab",
    "lab/a",
    "lab/a/b",
    "lab/secret",
    "out/1/x",
    "out/1/y",
    "home/anna/a",
    "home/anna/locked",
    "home/bert",
    "home/bert/locked",
    "dev/c-anna",
    "dev/c-bert",
    "else",
];

const DEADLINE: Duration = Duration::from_secs(30);

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

struct Mosquitto {
    port: String,
    _running: Running,
}

impl Mosquitto {
    fn start(acl: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let directory = tempfile::tempdir().unwrap().keep();
        let (config, file) = (directory.join("mosquitto.conf"), directory.join("acl"));
        fs::write(&file, acl).unwrap();
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nacl_file {}\nuser root\n",
            file.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("mosquitto");
        command
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let running = Running(command.spawn().unwrap());
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < DEADLINE, "mosquitto does not listen");
            thread::yield_now();
        }
        fs::remove_dir_all(directory).unwrap();
        Self {
            port: port.to_string(),
            _running: running,
        }
    }

    fn command(&self, program: &str, user: Option<&str>, client: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &self.port, "-i", client, "-q", "1"]);
        if let Some(user) = user {
            command.args(["-u", user, "-P", "any"]);
        }
        command
    }

    fn publish(&self, user: Option<&str>, client: &str, topic: &str) {
        let mut command = self.command("mosquitto_pub", user, client);
        let status = command.args(["-t", topic, "-m", "x"]).status().unwrap();
        assert!(status.success());
    }

    /// The topics that come.
    fn subscribe(&self, user: Option<&str>, client: &str) -> (Running, Receiver<String>) {
        // A line at a time: into a pipe it would write what fills a buffer.
        let program = self.command("mosquitto_sub", user, client);
        let mut command = Command::new("stdbuf");
        command
            .arg("-oL")
            .arg(program.get_program())
            .args(program.get_args());
        command
            .args(["-t", "#", "-F", "%t", "-d"])
            .stdout(Stdio::piped());
        let mut running = Running(command.spawn().unwrap());
        let lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
        let (sender, topics) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        until(&topics, |line| line.starts_with("Subscribed"));
        (running, topics)
    }
}

fn until(lines: &Receiver<String>, is_last: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    loop {
        let line = lines.recv_timeout(DEADLINE).unwrap();
        if is_last(&line) {
            return seen;
        }
        seen.insert(line);
    }
}

#[test]
fn an_acl_means_what_it_means_to_mosquitto() {
    let imported = mosquitto::acl(ACL, "acl").unwrap();
    let rules = Rules::parse(&imported.text, "access.toml").unwrap();
    let broker = Mosquitto::start(ACL);
    let topics = |wanted: &dyn Fn(TopicName<&str>) -> bool| -> BTreeSet<String> {
        let topics = TOPICS
            .iter()
            .filter(|topic| wanted(TopicName::parse(**topic).unwrap()));
        topics.map(|topic| (*topic).to_owned()).collect()
    };
    let clients = [
        (None, "c-nobody"),
        (Some("anna"), "c-anna"),
        (Some("bert"), "c-bert"),
        (Some("carol"), "c-carol"),
    ];
    let (_watching, watched) = broker.subscribe(Some("watcher"), "w");
    let is_ours = |seen: BTreeSet<String>| -> BTreeSet<String> {
        seen.into_iter()
            .filter(|line| TOPICS.contains(&line.as_str()))
            .collect()
    };
    for (user, client) in clients {
        let who = user.map_or(Who::Anonymous, Who::User);
        let rights = rules.rights(&Subject::new(who).with_client_id(client));
        for topic in TOPICS {
            broker.publish(user, client, topic);
        }
        broker.publish(Some("watcher"), "p", "end");
        let arrived = is_ours(until(&watched, |line| line == "end"));
        assert_eq!(
            topics(&|topic| rights.may_publish(topic, 1, false)),
            arrived,
            "{user:?} publishes"
        );
    }
    // Who reads something reads the end, too: it is published to each of these.
    for (user, client, end) in [
        (None, "c-nobody", "open/end"),
        (Some("anna"), "c-anna", "lab/end"),
        (Some("bert"), "c-bert", "lab/end"),
        (Some("carol"), "c-carol", "home/carol/end"),
    ] {
        let who = user.map_or(Who::Anonymous, Who::User);
        let rights = rules.rights(&Subject::new(who).with_client_id(client));
        assert!(rights.subscribe(TopicFilter::parse("#").unwrap()).is_some());
        let (_reading, read) = broker.subscribe(user, client);
        for topic in TOPICS.iter().chain([&end]) {
            broker.publish(Some("watcher"), "p", topic);
        }
        let arrived = is_ours(until(&read, |line| line == end));
        assert_eq!(
            topics(&|topic| rights.may_read(topic)),
            arrived,
            "{user:?} reads"
        );
    }
}
