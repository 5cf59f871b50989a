//! `latchbus cert`: a private authority, and certificates of it for a server and its clients.

mod files;

use core::fmt::Write as _;
use core::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use self::files::Files;

/// How long the authority is valid: it has to be made known to each client.
const AUTHORITY_DAYS: i64 = 3_650;
/// How long the other certificates are. The systems of Apple accept no more than 825 days.
const CERTIFICATE_DAYS: i64 = 820;
/// Clocks of clients may be behind.
const BEFORE: Duration = Duration::days(1);
/// The longest common name (RFC 5280, appendix A.1).
const MAX_NAME_CHARS: usize = 64;

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Where the files are, and where the authority is kept.
    pub directory: PathBuf,
    /// For whom.
    pub holder: Holder,
    /// Whether a certificate of the same name is replaced, with its key. The authority is not.
    pub force: bool,
}

/// Whose certificate it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A server of these host names and addresses.
    Server(Vec<String>),
    /// A client of this name.
    Client(String),
}

/// Makes the files, and says what they are for.
///
/// # Errors
/// When a name cannot stand in a certificate, a key is there already, or a file cannot be written. No key is then changed.
pub fn run(order: &Order) -> anyhow::Result<String> {
    let Order {
        directory,
        holder,
        force,
    } = order;
    check(holder)?;
    let stem = match holder {
        Holder::Server(_) => "server".to_owned(),
        Holder::Client(name) => format!("client-{}", as_file_name(name)),
    };
    let ours = Files::new(directory, &stem);
    if !force {
        ours.must_not_be_there()?;
    }
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let authority = Files::new(directory, "ca");
    let (issuer, is_new) = issuer(&authority)?;
    let (params, ends) = params(holder)?;
    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = params
        .signed_by(&key, &issuer)
        .context("cannot sign the certificate")?;
    ours.write(&certificate.pem(), &key.serialize_pem())?;
    Ok(explain(holder, (&ours, &authority), is_new, ends))
}

fn check(holder: &Holder) -> anyhow::Result<()> {
    match holder {
        Holder::Server(names) => {
            ensure!(!names.is_empty(), "no host name or address is given");
            for name in names {
                let label = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
                let text = name.strip_prefix("*.").unwrap_or(name);
                let is_host = text
                    .split('.')
                    .all(|part| !part.is_empty() && part.len() < 64 && part.bytes().all(label));
                ensure!(
                    name.parse::<IpAddr>().is_ok() || (is_host && name.len() <= 253),
                    "`{name}` is no host name and no address, as `bus.example.com`, `*.lan` or `192.168.1.7` are"
                );
            }
        }
        Holder::Client(name) => {
            let count = name.chars().count();
            ensure!(
                (1..=MAX_NAME_CHARS).contains(&count) && !name.chars().any(char::is_control),
                "a client's name has 1 to {MAX_NAME_CHARS} printable characters"
            );
        }
    }
    Ok(())
}

fn as_file_name(name: &str) -> String {
    let plain = |c: char| match c.is_alphanumeric() || matches!(c, '-' | '_' | '@' | '.') {
        true => c,
        false => '_',
    };
    name.chars().map(plain).collect()
}

/// The authority of the directory, which is made if there is none: whether it was.
fn issuer(files: &Files) -> anyhow::Result<(Issuer<'static, KeyPair>, bool)> {
    if let Some((certificate, key)) = files.read()? {
        let key = KeyPair::from_pem(&key)
            .with_context(|| format!("cannot use {}", files.key().display()))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .with_context(|| format!("cannot use {}", files.certificate().display()))?;
        return Ok((issuer, false));
    }
    let key = KeyPair::generate().context("cannot make a key")?;
    let mut params = CertificateParams::default();
    // Two authorities of one name are taken for one another.
    let mut name = "Latchbus private authority ".to_owned();
    for byte in key.public_key_raw().iter().rev().take(4) {
        // A string takes everything.
        let _always = write!(name, "{byte:02x}");
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, AUTHORITY_DAYS);
    let certificate = params
        .self_signed(&key)
        .context("cannot sign the authority")?;
    files.write(&certificate.pem(), &key.serialize_pem())?;
    Ok((Issuer::new(params, key), true))
}

fn params(holder: &Holder) -> anyhow::Result<(CertificateParams, OffsetDateTime)> {
    let (names, common, purpose) = match holder {
        Holder::Server(names) => {
            let common = names.iter().find(|name| name.len() <= MAX_NAME_CHARS);
            let purpose = ExtendedKeyUsagePurpose::ServerAuth;
            (names.clone(), common.cloned(), purpose)
        }
        Holder::Client(name) => {
            let purpose = ExtendedKeyUsagePurpose::ClientAuth;
            (Vec::new(), Some(name.clone()), purpose)
        }
    };
    let Ok(mut params) = CertificateParams::new(names) else {
        bail!("a name cannot stand in a certificate");
    };
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(common) = common {
        params.distinguished_name.push(DnType::CommonName, common);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, CERTIFICATE_DAYS);
    let ends = params.not_after;
    Ok((params, ends))
}

fn valid_for(params: &mut CertificateParams, days: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now.saturating_sub(BEFORE);
    params.not_after = now.saturating_add(Duration::days(days));
}

fn explain(
    holder: &Holder,
    (ours, authority): (&Files, &Files),
    is_new: bool,
    ends: OffsetDateTime,
) -> String {
    let (certificate, key) = (ours.certificate().display(), ours.key().display());
    let ca = authority.certificate().display();
    let until = ends.date();
    let mut out = String::new();
    let made = match is_new {
        true => "made now",
        false => "as it was",
    };
    // A string takes everything.
    let _always = match holder {
        Holder::Client(name) => write!(
            out,
            "{certificate}: the certificate of `{name}`, until {until}\n{key}: its key\n\n\
             The server: --tls-client-ca {ca}\n\
             Its rules, where certificates have a table of their own:\n  \
               [access.certificates]\n  \
               {quoted} = [\"ROLE\"]\n\
             mosquitto:  mosquitto_pub --cafile {ca} --cert {certificate} --key {key} -p 8883 …\n\
             curl:       curl --cacert {ca} --cert {certificate} --key {key} https://…\n\
             device:     latchbus-device --ca {ca} --cert {certificate} --key {key} --url mqtts://… --id kiosk-1\n\
             browser:    openssl pkcs12 -export -in {certificate} -inkey {key} -out client.p12, and import that\n",
            quoted = serde_json::Value::from(name.as_str()),
        ),
        Holder::Server(names) => {
            let hosts: Vec<_> = names
                .iter()
                .filter(|name| name.parse::<IpAddr>().is_err() && *name != "localhost")
                .cloned()
                .collect();
            let hosts = match hosts.is_empty() {
                true => String::new(),
                false => format!(" --allow-hosts '{}'", hosts.join(",")),
            };
            let named = names.iter().find(|name| !name.starts_with("*."));
            let host = named.map_or("NAME", String::as_str);
            // In a URL.
            let name = match host.parse::<core::net::Ipv6Addr>() {
                Ok(_) => format!("[{host}]"),
                Err(_) => host.to_owned(),
            };
            let ca_key = authority.key().display();
            write!(
                out,
                "{ca}: the authority, {made}; clients trust it, and anyone may have it\n\
                 {ca_key}: its key; whoever has it can pass for this server\n\
                 {certificate}: the certificate of {all}, until {until}\n\
                 {key}: its key\n\n\
                 Start the server, which asks who comes in (`--anonymous`: everybody who reaches it):\n  \
                   latchbus user add anna\n  \
                   latchbus --http-tls 0.0.0.0:3443 --mqtt-tls 0.0.0.0:8883 --tls-cert {certificate} --tls-key {key}{hosts}\n\n\
                 Trust the authority:\n  \
                   curl             curl --cacert {ca} https://{name}:3443/healthz\n  \
                   mosquitto        mosquitto_sub --cafile {ca} -h {host} -p 8883 -u anna -P PASSWORD -t '#'\n  \
                   latchbus-device  latchbus-device --ca {ca} --url mqtts://{name}:8883 --id kiosk-1 --user anna --password-file FILE\n  \
                   Python           ssl.create_default_context(cafile=\"{ca}\"); paho: client.tls_set(\"{ca}\")\n  \
                   Node             NODE_EXTRA_CA_CERTS={ca}\n  \
                   Debian, Ubuntu   cp {ca} /usr/local/share/ca-certificates/latchbus.crt && update-ca-certificates\n  \
                   Firefox          Settings, View Certificates, Authorities, Import\n  \
                   Chromium, Linux  certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n latchbus -i {ca}\n  \
                   Windows          certutil -addstore -user Root {ca}\n  \
                   macOS            security add-trusted-cert -k ~/Library/Keychains/login.keychain-db {ca}\n",
                all = names.join(", "),
            )
        }
    };
    out
}

/// Below a directory.
fn below(directory: &Path, stem: &str, kind: &str) -> PathBuf {
    directory.join(format!("{stem}.{kind}"))
}
