//! The life of the server: from settings to the ready line, and from a signal to the end.

use core::time::Duration;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io, process};

use anyhow::Context as _;
use latchbus_access::{RulesAuthorizer, Sessions, SignIns};
use latchbus_bus::{Bus, OpenError, StoreError, StoreKind};
use latchbus_tls::server::Protocol;
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};

use crate::http::{self, Http};
use crate::listener::{Addressed, Bound};
use crate::log;
use crate::reload::Reload;
pub use crate::reload::Source;
use crate::settings::Settings;
use crate::sign_ins;
use crate::signals::Signals;

/// How long connections may take to end and the store to write after a signal. Users are promised five
/// seconds in all.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// How much of it is left to the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the server until a signal ends it. On SIGHUP, what can be changed while it runs is taken from the settings that
/// `source` reads again. When every listener accepts, the standard output gets the line
/// `ready http=ADDRESS mqtt=ADDRESS`, and behind it ` http-tls=ADDRESS mqtt-tls=ADDRESS` for those that there are: of
/// each all addresses, divided by commas, or `off`.
///
/// # Errors
/// When it could not be started, which has then changed nothing but an empty store, or when it could not
/// go on.
pub fn run(mut settings: Settings, source: Source) -> anyhow::Result<()> {
    let has_rules = settings.access.is_some();
    let rules = Arc::new(RulesAuthorizer::new(settings.access.take()));
    settings.bus.authorizer = Arc::clone(&rules) as _;
    let reload = Reload::new(
        source,
        log::start(&settings.log, settings.log_format),
        rules,
    );
    raise_open_files();
    let runtime = start_runtime(settings.threads).context("cannot start the runtime")?;
    let result = runtime.block_on(serve(settings, reload, has_rules));
    // Whatever still runs has had its time.
    runtime.shutdown_background();
    result
}

fn start_runtime(threads: usize) -> io::Result<Runtime> {
    if threads > 1 {
        let mut builder = runtime::Builder::new_multi_thread();
        return builder.worker_threads(threads).enable_all().build();
    }
    // No tasks to be stolen, and no sleeping thread to be woken.
    runtime::Builder::new_current_thread().enable_all().build()
}

/// Saves what can be saved of a damaged store: what was done, in lines.
///
/// # Errors
/// When it is beyond repair, or cannot be reached. It is then as it was.
pub fn repair(settings: &Settings) -> anyhow::Result<String> {
    let StoreKind::Directory(directory) = &settings.bus.store else {
        anyhow::bail!("nothing is stored, so there is nothing to repair");
    };
    let repaired = latchbus_bus::repair(directory)
        .with_context(|| format!("cannot repair the store in {}", directory.display()))?;
    Ok(match repaired {
        Some(repaired) => format!("{repaired}\n"),
        None => format!("{}: nothing is wrong\n", directory.display()),
    })
}

/// What can be done about a store that is damaged.
fn with_advice(error: OpenError) -> anyhow::Error {
    let is_damaged = matches!(
        &error,
        OpenError::Store {
            source: StoreError::Corrupted { .. } | StoreError::Damaged { .. },
            ..
        }
    );
    let error = anyhow::Error::new(error);
    match is_damaged {
        true => error
            .context("nothing was changed; try `latchbus --repair`, which keeps the damaged file"),
        false => error,
    }
}

/// What the files that the settings name hold.
struct Files {
    pages: Option<http::Pages>,
    socketio_client: Option<http::SocketioClient>,
    sign_ins: SignIns,
    tls: Option<latchbus_tls::server::Server>,
}

impl Files {
    fn open(settings: &Settings) -> anyhow::Result<Self> {
        let pages = settings.pages.as_deref().map(http::Pages::open);
        let client = settings.socketio_client.as_deref();
        Ok(Self {
            pages: pages.transpose().context("no pages to serve")?,
            socketio_client: client.map(http::SocketioClient::open).transpose()?,
            sign_ins: sign_ins::open(settings)?,
            tls: open_tls(settings)?,
        })
    }
}

/// Whether the files that the settings name can be used, and nobody would come in whom nobody has let in. Ports and the
/// store are not touched.
///
/// # Errors
/// Those with which [`run`] ends at its start.
pub fn check(settings: &Settings) -> anyhow::Result<()> {
    Files::open(settings).map(drop)
}

async fn serve(settings: Settings, reload: Reload, has_rules: bool) -> anyhow::Result<()> {
    let Files {
        pages,
        socketio_client,
        sign_ins,
        tls,
    } = Files::open(&settings)?;
    let (bound, addresses) = bind(&settings, tls.as_ref())?;
    let store = settings.bus.store.clone();
    let unused_users = settings
        .users_file()
        .ok()
        .filter(|_| !sign_ins.reads_users());
    let rules = settings.bus.authorizer.clone();
    let builder = latchbus_bus::Builder::from(settings.bus.clone());
    let builder = builder.authorizer(sign_ins::SignedInOnly::new(&sign_ins, rules));
    let sessions = Sessions::new(sign_ins.clone(), settings.sign_in.sessions);
    let bus = builder.authenticator(sessions.clone()).open();
    let bus = bus.map_err(with_advice)?;
    let reload = reload.with_sign_ins(sign_ins.clone());
    let mut signals = Signals::listen().context("cannot wait for signals")?;
    let [bound_http, bound_mqtt] = bound;
    let http_listener = bound_http.listen("HTTP")?;
    let mqtt_listener = bound_mqtt.listen("MQTT")?;

    match store {
        StoreKind::Memory => info!(target: "server", "nothing is kept over a restart"),
        StoreKind::Directory(path) => {
            let metrics = bus.metrics();
            info!(
                target: "server", directory = %path.display(),
                loaded = metrics.loaded.get(),
                millis = metrics.load_micros.get() / 1_000,
                bytes = metrics.store_bytes.get(),
                "store opened"
            );
            if has_rules || sign_ins.has_users() {
                warn_if_open(&path);
            }
        }
    }
    let mqtt = mqtt_server(&bus, &settings);
    let mut tasks = JoinSet::new();
    if let Some(listener) = http_listener {
        let config = http::Config {
            origin: settings.origin,
            allow_frames: settings.allow_frames,
            base_path: settings.base_path,
            pages,
            pages_csp: settings.pages_csp,
            socketio_client,
            max_connections: settings.connections,
            stall_timeout: http::stall_timeout(settings.socketio.as_ref()),
            socketio: settings.socketio,
            sessions: Some(sessions.clone()),
            ..http::Config::default()
        };
        let http = Http::new(bus.clone(), mqtt.clone(), config);
        tasks.spawn(async move { http.serve(listener).await });
    }
    if let Some(listener) = mqtt_listener {
        tasks.spawn(async move { mqtt.serve(listener).await });
    }
    for address in settings.serial {
        tasks.spawn(latchbus_serial::serve(bus.clone(), address));
    }
    // Ends with this function.
    let mut watching = JoinSet::new();
    if let Some(tls) = tls.clone() {
        watching.spawn(tls.watch());
    }
    if let Some(path) = unused_users {
        watching.spawn(sign_ins::warn_of_new_users(path));
    }
    watching.spawn(sign_ins.watch());
    watching.spawn(sessions.watch());
    let reload = reload.with_tls(tls);
    ready(&addresses);

    let ended_early = tokio::select! {
        (name, _) = signals.stop(&reload) => {
            info!(target: "server", "stopping: {name}");
            None
        }
        // Both run until the bus closes.
        Some(ended) = tasks.join_next() => Some(ended),
    };
    tokio::spawn(async move {
        let (name, number) = signals.stop(&reload).await;
        warn!(target: "server", "stopping at once: {name}");
        process::exit(128 + i32::from(number));
    });
    stop(&bus, tasks).await;
    match ended_early {
        None => Ok(()),
        Some(ended) => {
            ended.context("a listener has failed")?;
            anyhow::bail!("a listener has ended")
        }
    }
}

/// Says that what is stored can be read without asking the server.
#[cfg(unix)]
fn warn_if_open(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    const OTHERS_READ: u32 = 0o004;
    const OTHERS_ENTER: u32 = 0o001;
    let has = |metadata: io::Result<fs::Metadata>, bit| {
        metadata.is_ok_and(|found| found.permissions().mode() & bit != 0)
    };
    let is_readable = |entry: fs::DirEntry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(b"latchbus.") && has(entry.metadata(), OTHERS_READ)
    };
    let Ok(mut entries) = fs::read_dir(directory) else {
        return;
    };
    if has(fs::metadata(directory), OTHERS_ENTER)
        && entries.any(|entry| entry.is_ok_and(is_readable))
    {
        warn!(
            target: "server", directory = %directory.display(),
            "everybody on this machine may read what is stored, whatever the rules say: chmod -R o= it"
        );
    }
}

#[cfg(not(unix))]
fn warn_if_open(_: &Path) {}

fn mqtt_server(bus: &Bus, settings: &Settings) -> latchbus_mqtt::server::Server {
    use latchbus_mqtt::server::{Config, Server};

    let mut config = Config {
        max_connections: settings.connections,
        max_sessions_away: settings.sessions_away,
        trusted_proxies: settings.origin.trusted_proxies.clone(),
        ..Config::default()
    };
    config.bounds.max_packet_bytes = settings.max_packet_bytes();
    config.bounds.keep_alive = settings.mqtt_keep_alive;
    config.bounds.disconnect_on_denied = settings.mqtt_disconnect_on_denied;
    config.bounds.queue_qos0 = settings.mqtt_queue_qos0;
    Server::new(bus.clone(), config)
}

/// The certificate, where something listens with TLS.
fn open_tls(settings: &Settings) -> anyhow::Result<Option<latchbus_tls::server::Server>> {
    let options = settings.tls.options()?;
    let listens = !settings.http_tls.is_off() || !settings.mqtt_tls.is_off();
    let limits = settings.tls_limits;
    let options = options.map(|options| latchbus_tls::server::Options { limits, ..options });
    let tls = options
        .filter(|_| listens)
        .map(latchbus_tls::server::Server::open);
    tls.transpose().context("TLS")
}

/// Where the server listens.
#[derive(Debug)]
struct Places {
    http: Addressed,
    mqtt: Addressed,
    http_tls: Addressed,
    mqtt_tls: Addressed,
}

/// Takes the ports of HTTP and of MQTT.
fn bind(
    settings: &Settings,
    tls: Option<&latchbus_tls::server::Server>,
) -> anyhow::Result<([Bound; 2], Places)> {
    let mode = settings.unix_mode;
    let over = |protocol| tls.map(|tls| (tls.clone(), protocol));
    let (http_over, mqtt_over) = (over(Protocol::Http), over(Protocol::Mqtt));
    let (mut http, mut mqtt) = (Bound::default(), Bound::default());
    let places = Places {
        http: http.bind(&settings.http, "HTTP", mode, None)?,
        mqtt: mqtt.bind(&settings.mqtt, "MQTT", mode, None)?,
        http_tls: http.bind(&settings.http_tls, "HTTPS", mode, http_over.as_ref())?,
        mqtt_tls: mqtt.bind(
            &settings.mqtt_tls,
            "MQTT over TLS",
            mode,
            mqtt_over.as_ref(),
        )?,
    };
    Ok(([http, mqtt], places))
}

fn ready(places: &Places) {
    let Places {
        http,
        mqtt,
        http_tls,
        mqtt_tls,
    } = places;
    let mut line = format!("ready http={http} mqtt={mqtt}");
    for (name, addressed) in [("http-tls", http_tls), ("mqtt-tls", mqtt_tls)] {
        if !addressed.is_off() {
            line.push_str(&format!(" {name}={addressed}"));
        }
    }
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    if let Err(error) = written {
        warn!(target: "server", %error, "the ready line could not be written");
    }
    info!(target: "server", "http on {http}, mqtt on {mqtt}");
    if !(http_tls.is_off() && mqtt_tls.is_off()) {
        info!(target: "server", "with TLS: http on {http_tls}, mqtt on {mqtt_tls}");
    }
}

/// Ends the connections, whose last messages (wills) still go through, and then the bus.
async fn stop(bus: &Bus, mut tasks: JoinSet<()>) {
    let deadline = Instant::now() + STOP_TIMEOUT;
    bus.begin_close();
    let ended = async { while tasks.join_next().await.is_some() {} };
    if timeout_at(deadline - STORE_TIMEOUT, ended).await.is_err() {
        warn!(target: "server", "connections did not end in time");
    }
    if timeout_at(deadline, bus.close()).await.is_err() {
        error!(target: "server", "the store could not be written in time; what was acknowledged is in it");
    }
    info!(target: "server", "stopped");
}

/// Every connection is an open file, and the usual allowance of a process is 1,024.
#[cfg(unix)]
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        warn!(target: "server", %error, "the number of open files stays at {current:?}");
    }
}

#[cfg(not(unix))]
fn raise_open_files() {}
