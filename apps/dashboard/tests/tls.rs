//! TLS with programs that others wrote: curl, openssl and mosquitto's clients. Tests that need one are named for it.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tempfile::TempDir;

use self::support::{DEADLINE, Server, latchbus, refused, run, until};

/// Certificates as `latchbus cert` makes them.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        this.make(&["localhost", "127.0.0.1"]);
        this
    }

    fn make(&self, arguments: &[&str]) -> String {
        let mut command = latchbus(["cert"]);
        command.arg(self.0.path()).args(arguments);
        let (status, out, err) = run(command);
        assert_eq!((status, err.as_str()), (Some(0), ""));
        out
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn serve(&self, more: &[&str]) -> Server {
        let (cert, key) = (self.text("server.pem"), self.text("server.key"));
        let tls = ["--http-tls", "127.0.0.1:0", "--mqtt-tls", "127.0.0.1:0"];
        let files = ["--tls-cert", &cert, "--tls-key", &key, "--ephemeral"];
        Server::on_free_ports(tls.iter().chain(&files).chain(more))
    }
}

fn http_tls(server: &Server) -> SocketAddr {
    server.address("http-tls=")
}

fn mqtt_tls(server: &Server) -> SocketAddr {
    server.address("mqtt-tls=")
}

fn curl(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("curl");
    let limit = DEADLINE.as_secs().to_string();
    command.args([
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        &limit,
    ]);
    command.args(arguments);
    let (status, out, err) = run(command);
    (status, out + &err)
}

/// What openssl says of a handshake; it sends nothing.
fn s_client(to: SocketAddr, arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &to.to_string()]);
    command.args(arguments).stdin(Stdio::null());
    let (_, out, err) = run(command);
    out + &err
}

#[test]
fn curl_speaks_https_with_the_private_authority() {
    let certificates = Certificates::new();
    let server = certificates.serve(&[]);
    let ca = certificates.text("ca.pem");
    let url = format!("https://{}/healthz", http_tls(&server));
    assert_eq!(curl(&["--cacert", &ca, &url]), (Some(0), "ok\n".to_owned()));
    for version in ["--tls-max", "--tlsv1.3"] {
        let arguments = match version {
            "--tls-max" => vec!["--tls-max", "1.2"],
            other => vec![other],
        };
        let arguments = [&arguments[..], &["--cacert", &ca, &url]].concat();
        assert_eq!(curl(&arguments).1, "ok\n", "{version}");
    }
    // 60: the certificate cannot be verified.
    assert_eq!(curl(&[&url]).0, Some(60));
    let other = Certificates::new();
    assert_eq!(curl(&["--cacert", &other.text("ca.pem"), &url]).0, Some(60));
    // A page of another scheme is of another origin.
    let port = http_tls(&server).port();
    let topic = format!("https://{}/api/v1/topics/a/b", http_tls(&server));
    for (origin, status) in [
        (format!("https://127.0.0.1:{port}"), '2'),
        (format!("http://127.0.0.1:{port}"), '4'),
    ] {
        let origin = format!("Origin: {origin}");
        let (_, said) = curl(&[
            "--cacert",
            &ca,
            "-X",
            "PUT",
            "-d",
            "1",
            "-H",
            &origin,
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &topic,
        ]);
        assert!(said.starts_with(status), "{origin}: {said}");
    }
    let (status, _, log) = stopped(server);
    assert_eq!(status, Some(0));
    assert!(
        log.contains("does not accept the server's certificate"),
        "{log}"
    );
}

fn stopped(server: Server) -> (Option<i32>, Vec<String>, String) {
    server.signal(Signal::TERM);
    let (status, lines, log) = server.wait();
    (status.code(), lines, log)
}

#[test]
fn openssl_agrees_on_versions_and_protocols() {
    let certificates = Certificates::new();
    let server = certificates.serve(&[]);
    for to in [http_tls(&server), mqtt_tls(&server)] {
        for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let said = s_client(to, &[flag]);
            assert!(
                said.contains(version) && said.contains("Cipher is TLS_")
                    || said.contains("Cipher is ECDHE"),
                "{said}"
            );
        }
        for flag in ["-tls1_1", "-tls1"] {
            let said = s_client(to, &[flag, "-cipher", "DEFAULT@SECLEVEL=0"]);
            assert!(said.contains("Cipher is (NONE)"), "{said}");
        }
    }
    for (to, offered, agreed) in [
        (http_tls(&server), "h2,http/1.1", Some("http/1.1")),
        (mqtt_tls(&server), "mqtt", Some("mqtt")),
        (mqtt_tls(&server), "h2", None),
        (http_tls(&server), "mqtt", None),
    ] {
        let said = s_client(to, &["-alpn", offered]);
        match agreed {
            Some(agreed) => assert!(said.contains(&format!("ALPN protocol: {agreed}")), "{said}"),
            None => assert!(said.contains("no application protocol"), "{said}"),
        }
    }
    let (_, _, log) = stopped(server);
    for said in [
        "neither TLS 1.2 nor TLS 1.3",
        "does not offer the protocol mqtt (ALPN)",
    ] {
        assert!(log.contains(said), "{log}");
    }
}

/// What is answered to bytes, until the server closes.
fn answer(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ended = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn curl_mosquitto_and_openssl_at_the_wrong_port_are_closed_and_named() {
    let certificates = Certificates::new();
    let server = certificates.serve(&[]);
    let ca = certificates.text("ca.pem");
    let (plain_http, plain_mqtt) = (server.http(), server.mqtt());

    // curl gets an answer from the TLS port that says what to do; from the plain one, no TLS.
    let (status, said) = curl(&[&format!("http://{}/", http_tls(&server))]);
    assert_eq!(status, Some(0));
    assert!(said.contains("https://"), "{said}");
    let (status, _) = curl(&["--cacert", &ca, &format!("https://{plain_http}/")]);
    assert_eq!(status, Some(35));

    let connect = b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02ab";
    // A TLS alert, so that a client can tell what is spoken here.
    assert_eq!(answer(mqtt_tls(&server), connect)[..1], [21]);
    let said = s_client(plain_mqtt, &[]);
    assert!(said.contains("Cipher is (NONE)"), "{said}");
    assert_eq!(answer(plain_mqtt, b"GET / HTTP/1.1\r\n\r\n"), b"");
    // A client of MQTT at the ports of HTTP.
    for (to, tls) in [
        (plain_http, &[][..]),
        (http_tls(&server), &["--cafile", &ca]),
    ] {
        let publish = [tls, &["-t", "a", "-m", "x"]].concat();
        let status = mosquitto("mosquitto_pub", to, &publish).status().unwrap();
        assert!(!status.success());
    }

    let (_, _, log) = stopped(server);
    for said in [
        "plain HTTP on the TLS listener",
        "TLS on the plain HTTP listener",
        "plain MQTT on the TLS listener",
        "TLS on the plain MQTT listener",
        "HTTP on the MQTT listener",
        "MQTT on an HTTP listener",
    ] {
        let mut lines = log.lines();
        assert!(
            lines.any(|line| line.contains(said) && line.contains("WARN")),
            "{said}:\n{log}"
        );
    }
    assert_eq!(log.matches("MQTT on an HTTP listener").count(), 2, "{log}");
}

fn mosquitto(program: &str, to: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    command.args(["-h", &host, "-p", &port, "-t", "tls/a"]);
    command.args(arguments);
    command
}

#[test]
fn mosquitto_publishes_and_subscribes() {
    let certificates = Certificates::new();
    let server = certificates.serve(&[]);
    let ca = certificates.text("ca.pem");
    for version in ["tlsv1.2", "tlsv1.3"] {
        let trust = ["--cafile", &ca, "--tls-version", version, "-q", "1"];
        let publish = [&trust[..], &["-r", "-m", version]].concat();
        let (status, _, err) = run(mosquitto("mosquitto_pub", mqtt_tls(&server), &publish));
        assert_eq!(status, Some(0), "{err}");
        let subscribe = [&trust[..], &["-C", "1"]].concat();
        let (status, out, err) = run(mosquitto("mosquitto_sub", mqtt_tls(&server), &subscribe));
        assert_eq!((status, out.trim()), (Some(0), version), "{err}");
    }
    let other = Certificates::new();
    let wrong = other.text("ca.pem");
    let publish = ["--cafile", &wrong, "-m", "1"];
    let (status, _, _) = run(mosquitto("mosquitto_pub", mqtt_tls(&server), &publish));
    assert_ne!(status, Some(0));
}

#[test]
fn mosquitto_and_curl_show_certificates() {
    let certificates = Certificates::new();
    certificates.make(&["--client", "anna"]);
    let ca = certificates.text("ca.pem");
    let (cert, key) = (
        certificates.text("client-anna.pem"),
        certificates.text("client-anna.key"),
    );
    let stranger = Certificates::new();
    stranger.make(&["--client", "anna"]);
    let foreign = (
        stranger.text("client-anna.pem"),
        stranger.text("client-anna.key"),
    );
    let server = certificates.serve(&["--tls-client-ca", &ca]);
    let url = format!("https://{}/healthz", http_tls(&server));
    for (shown, passes) in [
        (Some((&cert, &key)), true),
        (None, false),
        (Some((&foreign.0, &foreign.1)), false),
    ] {
        let shown = shown.map(|(cert, key)| ["--cert", cert, "--key", key]);
        let shown = shown.as_ref().map_or(&[][..], |shown| &shown[..]);
        let publish = [&["--cafile", &ca, "-q", "1", "-m", "1"], shown].concat();
        let (status, _, err) = run(mosquitto("mosquitto_pub", mqtt_tls(&server), &publish));
        assert_eq!(status == Some(0), passes, "{err}");
        let (status, said) = curl(&[&["--cacert", &ca, &url], shown].concat());
        assert_eq!(status == Some(0), passes, "{said}");
    }
    let (_, _, log) = stopped(server);
    assert!(
        log.contains("shows no certificate, and one is required"),
        "{log}"
    );
    assert!(
        log.contains("the client's certificate is not valid"),
        "{log}"
    );
}

/// A line of the documentation, as somebody types it in this directory.
fn typed(line: &str, directory: &Path) -> Command {
    let programs = Path::new(env!("CARGO_BIN_EXE_latchbus")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(directory);
    command.env("PATH", path).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LATCHBUS_") {
            command.env_remove(name);
        }
    }
    command
}

#[test]
fn curl_and_mosquitto_do_what_the_command_for_certificates_prints() {
    let directory = tempfile::tempdir().unwrap();
    let typed = |line: &str| typed(line, directory.path());
    let (status, out, _) = run(typed("latchbus cert tls localhost bus.lan"));
    assert_eq!(status, Some(0));
    let printed = |begin: &str| {
        let mut lines = out.lines();
        let found = lines.find_map(|line| line.find(begin).map(|at| &line[at..]));
        found.unwrap_or_else(|| panic!("no `{begin}` in {out}"))
    };

    let add = printed("latchbus user add");
    let (status, _, err) = run(typed(&format!("echo secret | {add} --password-stdin")));
    assert_eq!(status, Some(0), "{err}");
    // Ports of the system's choice.
    let start = printed("latchbus --http-tls");
    let start = start.replace(":3443", ":0").replace(":8883", ":0");
    let plain = "--http 127.0.0.1:0 --mqtt 127.0.0.1:0";
    let server = Server::start(typed(&format!("exec {start} {plain}")));

    let curl = printed("curl --cacert").replace(":3443", &format!(":{}", http_tls(&server).port()));
    let (status, out, err) = run(typed(&format!("{curl} --silent --noproxy '*'")));
    assert_eq!((status, out.as_str()), (Some(0), "ok\n"), "{err}");
    let port = format!("-p {}", mqtt_tls(&server).port());
    let subscribe = printed("mosquitto_sub").replace("-p 8883", &port);
    // `-E`: until it has subscribed.
    let subscribe = |password| typed(&format!("{} -E", subscribe.replace("PASSWORD", password)));
    let (status, _, err) = run(subscribe("secret"));
    assert_eq!(status, Some(0), "{err}");
    assert_ne!(run(subscribe("guess")).0, Some(0));
}

/// The common name of a certificate is who somebody is, for the rules.
#[test]
fn mosquitto_and_curl_are_who_their_certificate_says() {
    let certificates = Certificates::new();
    for name in ["anna", "bert"] {
        certificates.make(&["--client", name]);
    }
    let ca = certificates.text("ca.pem");
    let rules = certificates.text("access.toml");
    fs::write(
        &rules,
        "[roles.own]\npublish = [\"own/{user}\"]\nsubscribe = [\"own/{user}\"]\n[certificates]\nanna = [\"own\"]\nbert = [\"own\"]\n",
    )
    .unwrap();
    let server = certificates.serve(&["--tls-client-ca", &ca, "--access", &rules]);
    for (name, other) in [("anna", "bert"), ("bert", "anna")] {
        let (cert, key) = (
            certificates.text(&format!("client-{name}.pem")),
            certificates.text(&format!("client-{name}.key")),
        );
        let shown = ["--cert", &cert, "--key", &key];
        for (topic, passes) in [(name, true), (other, false)] {
            let url = format!("https://{}/api/v1/topics/own/{topic}", http_tls(&server));
            let put = ["--cacert", &ca, "-X", "PUT", "-d", "1"];
            let (_, said) = curl(&[&put[..], &shown, &["-w", "%{http_code}", &url]].concat());
            let status = if passes { "200" } else { "403" };
            assert!(said.ends_with(status), "{name}: {said}");
            // MQTT 3.1.1 has no answer to a publish that is refused.
            let topic = format!("own/{topic}");
            let publish = [
                "-V", "5", "--cafile", &ca, "-q", "1", "-t", &topic, "-m", name,
            ];
            let to = mqtt_tls(&server);
            let mut command = Command::new("mosquitto_pub");
            let (host, port) = (to.ip().to_string(), to.port().to_string());
            command.args(["-h", &host, "-p", &port]);
            command.args([&publish[..], &shown].concat());
            let (_, out, err) = run(command);
            let said = out + &err;
            assert_eq!(!said.contains("Not authorized"), passes, "{name}: {said}");
        }
    }
}

/// A subscriber that has a connection.
struct Subscriber {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Subscriber {
    fn new(server: &Server, ca: &str) -> Self {
        let mut command = mosquitto("mosquitto_sub", mqtt_tls(server), &["--cafile", ca]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn mosquitto_stays_connected_while_openssl_sees_the_certificate_replaced() {
    let certificates = Certificates::new();
    let server = certificates.serve(&[]);
    let ca = certificates.text("ca.pem");
    server.send("PUT", "/api/v1/topics/tls/a", "first");
    let mut subscriber = Subscriber::new(&server, &ca);
    assert_eq!(subscriber.next(), "first");

    let serial = || {
        let said = s_client(mqtt_tls(&server), &[]);
        let begin = said.find("-----BEGIN CERTIFICATE-----").unwrap();
        let end = said.find("-----END CERTIFICATE-----").unwrap();
        said[begin..end].to_owned()
    };
    let old = serial();
    // By a look at the files.
    certificates.make(&["localhost", "127.0.0.1", "--force"]);
    until("the new certificate is shown", || serial() != old);
    // A broken pair changes nothing, and is said; with SIGHUP at once.
    let new = serial();
    fs::write(certificates.path("server.key"), "nothing").unwrap();
    server.signal(Signal::HUP);
    server.send("PUT", "/api/v1/topics/tls/a", "second");
    assert_eq!(subscriber.next(), "second");
    assert_eq!(serial(), new);
    drop(subscriber);
    let (_, _, log) = stopped(server);
    assert!(log.contains("the TLS certificate is reloaded"), "{log}");
    assert!(log.contains("the TLS certificate stays as it is"), "{log}");
}

#[test]
fn what_is_wrong_with_the_files_is_said_at_the_start() {
    let certificates = Certificates::new();
    let (cert, key) = (
        certificates.text("server.pem"),
        certificates.text("server.key"),
    );
    let ca_key = certificates.text("ca.key");
    let missing = certificates.text("missing");
    for (arguments, said) in [
        (vec!["--mqtt-tls", "0"], "latchbus cert"),
        (vec!["--mqtt-tls", "0", "--tls-cert", &cert], "--tls-key"),
        (
            vec!["--mqtt-tls", "0", "--tls-cert", &missing, "--tls-key", &key],
            "missing",
        ),
        (
            vec!["--mqtt-tls", "0", "--tls-cert", &key, "--tls-key", &key],
            "no certificate",
        ),
        (
            vec!["--mqtt-tls", "0", "--tls-cert", &cert, "--tls-key", &ca_key],
            "is not that of",
        ),
        (
            vec![
                "--mqtt-tls",
                "unix:/a",
                "--tls-cert",
                &cert,
                "--tls-key",
                &key,
            ],
            "Unix",
        ),
    ] {
        let mut command = latchbus(["--ephemeral", "--http", "0", "--mqtt", "0"]);
        command.args(&arguments);
        let line = refused(command);
        assert!(line.contains(said), "{arguments:?}: {line}");
    }
}

#[test]
fn a_key_is_never_replaced_by_accident() {
    let certificates = Certificates::new();
    let read = |name: &str| fs::read_to_string(certificates.path(name)).unwrap();
    let mode = |name: &str| {
        let permissions = fs::metadata(certificates.path(name)).unwrap().permissions();
        permissions.mode() & 0o777
    };
    assert_eq!((mode("ca.key"), mode("server.key")), (0o600, 0o600));
    let before = ["ca.pem", "ca.key", "server.pem", "server.key"].map(read);
    let again = |arguments: &[&str]| {
        let mut command = latchbus(["cert"]);
        command.arg(certificates.0.path()).args(arguments);
        command
    };
    assert!(refused(again(&["localhost"])).contains("--force"));
    assert_eq!(
        ["ca.pem", "ca.key", "server.pem", "server.key"].map(read),
        before
    );
    certificates.make(&["bus.example.com", "::1", "--force"]);
    let after = ["ca.pem", "ca.key", "server.pem", "server.key"].map(read);
    assert_eq!(after[..2], before[..2]);
    assert!(after[2] != before[2] && after[3] != before[3]);
    for wrong in ["http://a", "a b", "a:3000", "", "*", "a..b"] {
        assert!(
            refused(again(&[wrong, "--force"])).contains("no host name"),
            "{wrong}"
        );
    }
    assert!(refused(again(&["--client", ""])).contains("name"));
    certificates.make(&["--client", "../anna"]);
    assert!(certificates.path("client-.._anna.key").exists());
    fs::remove_file(certificates.path("ca.key")).unwrap();
    assert!(refused(again(&["localhost", "--force"])).contains("ca.key"));
}

#[test]
fn openssl_finds_nothing_wrong_with_the_certificates() {
    let certificates = Certificates::new();
    certificates.make(&["--client", "anna"]);
    for (file, purpose) in [
        ("server.pem", "sslserver"),
        ("client-anna.pem", "sslclient"),
    ] {
        let mut command = Command::new("openssl");
        command.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]);
        command.args([certificates.path("ca.pem"), certificates.path(file)]);
        let (status, out, err) = run(command);
        assert_eq!(status, Some(0), "{out}{err}");
    }
}

#[test]
fn curl_reaches_several_addresses_names_and_unix_sockets() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let socket = |name: &str| format!("unix:{}", path(name).display());
    let several = format!("127.0.0.1:0,localhost:0,{}", socket("http.sock"));
    let mqtt = socket("mqtt.sock");
    let mut command = latchbus(["--ephemeral", "--http", &several, "--mqtt", &mqtt]);
    command.args(["--unix-mode", "0600"]);
    let server = Server::start(command);
    assert_eq!(server.get("/healthz").text(), "ok\n");
    assert!(
        server.ready.ends_with(&format!("mqtt={mqtt}")),
        "{}",
        server.ready
    );
    let mode = fs::metadata(path("http.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let http = path("http.sock");
    let (status, said) = curl(&[
        "--unix-socket",
        http.to_str().unwrap(),
        "http://localhost/healthz",
    ]);
    assert_eq!((status, said.as_str()), (Some(0), "ok\n"));
    let connack = connect(&path("mqtt.sock"));
    assert_eq!(connack, [0x20, 2, 0, 0]);

    // Taken, and said so.
    let mut second = latchbus(["--ephemeral", "--mqtt", &mqtt, "--http", "off"]);
    second.env("LATCHBUS_LOG", "off");
    assert!(refused(second).contains("mqtt.sock"));
    let (status, _, _) = stopped(server);
    assert_eq!(status, Some(0));
    assert!(!path("http.sock").exists() && !path("mqtt.sock").exists());
}

fn connect(path: &Path) -> [u8; 4] {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .write_all(b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02ab")
        .unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    answer
}

/// Clients that begin a handshake and never end it, more of them than there may be handshakes at a time. Whoever is cut
/// comes back at once.
struct Crowd {
    stop: Option<Sender<()>>,
    cut: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    const CLIENTS: usize = 1_200;

    fn at(to: SocketAddr) -> Self {
        // More than many systems let a program have unless it asks.
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let current = maximum;
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        let mut clients: Vec<_> = (0..Self::CLIENTS)
            .map(|number| Stalled::new(to, number))
            .collect();
        let (stop, stopped) = channel();
        let cut = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&cut);
        let keep_stalling = move || {
            while stopped.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout)
            {
                for (number, client) in clients.iter_mut().enumerate() {
                    if !client.stalls() {
                        counted.fetch_add(1, Ordering::Relaxed);
                        *client = Stalled::new(to, number);
                    }
                }
            }
        };
        Self {
            stop: Some(stop),
            cut,
            thread: Some(thread::spawn(keep_stalling)),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.take();
        let _ended = self.thread.take().unwrap().join();
    }
}

/// One of them: silent, with the first byte, with half a ClientHello, or with a byte of it now and then.
struct Stalled {
    stream: TcpStream,
    slow: bool,
}

impl Stalled {
    /// A record of 512 bytes with a ClientHello of 508.
    const HELLO: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc];

    fn new(to: SocketAddr, number: usize) -> Self {
        let mut stream = TcpStream::connect(to).unwrap();
        let sent = match number % 4 {
            0 => 0,
            1 => 1,
            _ => Self::HELLO.len(),
        };
        // It may be cut already.
        let _sent = stream.write_all(&Self::HELLO[..sent]);
        stream.set_nonblocking(true).unwrap();
        let slow = number % 4 == 3;
        Self { stream, slow }
    }

    /// Whether it is still connected.
    fn stalls(&mut self) -> bool {
        let is_open = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
        let silent = self.stream.read(&mut [0; 64]).is_err_and(|e| is_open(&e));
        silent && (!self.slow || self.stream.write(&[3]).is_ok())
    }
}

#[test]
fn mosquitto_and_curl_are_served_beside_handshakes_that_never_end() {
    let certificates = Certificates::new();
    let server = certificates.serve(&[]);
    let ca = certificates.text("ca.pem");
    server.send("PUT", "/api/v1/topics/tls/a", "before");
    let mut subscriber = Subscriber::new(&server, &ca);
    assert_eq!(subscriber.next(), "before");

    let crowds = [Crowd::at(mqtt_tls(&server)), Crowd::at(http_tls(&server))];
    let publish = ["--cafile", &ca, "-q", "1", "-r", "-m", "beside"];
    let (status, _, err) = run(mosquitto("mosquitto_pub", mqtt_tls(&server), &publish));
    assert_eq!(status, Some(0), "{err}");
    assert_eq!(subscriber.next(), "beside");
    let url = format!("https://{}/api/v1/topics/tls/a", http_tls(&server));
    assert_eq!(
        curl(&["--cacert", &ca, &url]),
        (Some(0), "beside".to_owned())
    );
    // They had to make room.
    for crowd in &crowds {
        assert!(crowd.cut.load(Ordering::Relaxed) > 0);
    }
}

#[test]
fn openssl_finds_no_weak_cipher_suite() {
    let certificates = Certificates::new();
    let server = certificates.serve(&[]);
    let weak = "ALL:!ECDHE+AESGCM:!ECDHE+CHACHA20:@SECLEVEL=0";
    for to in [http_tls(&server), mqtt_tls(&server)] {
        let said = s_client(to, &["-tls1_2", "-cipher", weak]);
        assert!(said.contains("Cipher is (NONE)"), "{said}");
        let said = s_client(to, &["-tls1_2", "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(said.contains("Cipher is ECDHE-"), "{said}");
        assert!(said.contains("Compression: NONE"), "{said}");
        assert!(said.contains("Extended master secret: yes"), "{said}");
    }
}
