//! Proxies in front of a listener: which are trusted, and the client that one names by the PROXY protocol.
//!
//! <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>, versions 1 and 2. The header is read from trusted
//! peers alone, and need not be there: its first bytes are those of no HTTP request and of no MQTT packet that
//! begins a connection, so that a proxy with and one without it can use the same port.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;
use core::time::Duration;
use core::{fmt, str};
use std::io;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

/// How long a trusted proxy may take to send the header of the PROXY protocol.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at a header of which only a part has come, which is rare: a proxy sends it at once.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

const V1_START: &[u8] = b"PROXY ";
/// With its end of line (§2.1).
const V1_MAX_BYTES: usize = 107;
const V2_START: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD_BYTES: usize = 16;
/// Addresses take up to 216 bytes; the rest is type-length-value fields, which are skipped.
const V2_MAX_BYTES: usize = 4 << 10;

/// Addresses that have their first bits in common: `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is one of these. An IPv4 address in its IPv6 form is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differ = ours.to_bits() ^ theirs.to_bits();
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differ = ours.to_bits() ^ theirs.to_bits();
                differ.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = || {
            format!(
                "`{text}` is not an IP address or a network: expected one as in `10.0.0.7` or `10.0.0.0/8`"
            )
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().map_err(|_| expected())?;
        let address = address.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().map_err(|_| expected())?
            }
            Some(_) => return Err(expected()),
        };
        if bits > most {
            return Err(expected());
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Several networks. None contains no address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether one of them contains the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

/// The address of the client on a connection that was just accepted: `peer`, or what a trusted peer says in a
/// header of the PROXY protocol, which is then read. A proxy that connects for itself (a health check) is its own
/// client.
///
/// # Errors
/// When the header cannot be read, does not come within 5 s, or the connection fails.
pub async fn client(
    stream: &mut TcpStream,
    peer: SocketAddr,
    trusted: &Networks,
) -> io::Result<SocketAddr> {
    if !trusted.contains(peer.ip()) {
        return Ok(peer);
    }
    let deadline = Instant::now() + HEADER_TIMEOUT;
    let named = timeout_at(deadline, read_header(stream)).await;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the PROXY header is not complete");
    Ok(named.map_err(late)??.unwrap_or(peer))
}

/// Whether what a connection begins with is such a header, and not what the protocol behind it begins with: said of a
/// peer that is not trusted, its user learns which setting is missing.
pub fn is_header(first: &[u8]) -> bool {
    first.starts_with(V1_START) || first.starts_with(&V2_START)
}

/// Reads the header, if there is one: the client, if it names one.
async fn read_header(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; V2_HEAD_BYTES];
    loop {
        let n = stream.peek(&mut start).await?;
        let came = start.get(..n).unwrap_or_default();
        let begins = |wanted: &[u8]| came.iter().zip(wanted).all(|(a, b)| a == b);
        if came.is_empty() {
            return Ok(None);
        } else if begins(&V2_START) {
            if n == V2_HEAD_BYTES {
                return read_v2(stream).await;
            }
        } else if begins(V1_START) {
            if n >= V1_START.len() {
                return read_v1(stream).await;
            }
        } else {
            return Ok(None);
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn read_v1(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut line = Vec::with_capacity(V1_MAX_BYTES);
    while !line.ends_with(b"\r\n") {
        if line.len() == V1_MAX_BYTES {
            return Err(malformed());
        }
        line.push(stream.read_u8().await?);
    }
    parse_v1(&line).ok_or_else(malformed)
}

async fn read_v2(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut head = [0; V2_HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let [.., command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_MAX_BYTES {
        return Err(malformed());
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    parse_v2(command, family, &rest).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the PROXY header cannot be read",
    )
}

/// §2.1, with its end of line. The outer option is none where it cannot be read, the inner where it names nobody.
fn parse_v1(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = str::from_utf8(line).ok()?;
    let line = line.strip_prefix("PROXY ")?.strip_suffix("\r\n")?;
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, _destination) = (words.next()?, words.next()?);
    let (port, _port) = (words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let address: IpAddr = match family {
        "TCP4" => source.parse::<Ipv4Addr>().ok()?.into(),
        "TCP6" => source.parse::<Ipv6Addr>().ok()?.into(),
        _ => return None,
    };
    Some(Some(SocketAddr::new(address, port.parse().ok()?)))
}

/// §2.2: what stands behind the signature.
fn parse_v2(command: u8, family: u8, rest: &[u8]) -> Option<Option<SocketAddr>> {
    match command {
        // LOCAL: the proxy speaks for itself.
        0x20 => return Some(None),
        0x21 => {}
        _ => return None,
    }
    let address = match family {
        0x11 => {
            let source: [u8; 4] = rest.get(..4)?.try_into().ok()?;
            let port = u16::from_be_bytes(rest.get(8..10)?.try_into().ok()?);
            rest.get(..12)?;
            SocketAddr::new(Ipv4Addr::from(source).into(), port)
        }
        0x21 => {
            let source: [u8; 16] = rest.get(..16)?.try_into().ok()?;
            let port = u16::from_be_bytes(rest.get(32..34)?.try_into().ok()?);
            rest.get(..36)?;
            SocketAddr::new(Ipv6Addr::from(source).into(), port)
        }
        // Not given, datagrams, sockets of the file system: there is no address to show.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => return Some(None),
        _ => return None,
    };
    Some(Some(address))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_contain_their_addresses() {
        for (net, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1", "::ffff:127.0.0.1", "::1"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("172.16.0.0/12", "172.31.255.255", "172.32.0.0"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::2"),
        ] {
            assert!(network(net).contains(inside.parse().unwrap()), "{net}");
            assert!(!network(net).contains(outside.parse().unwrap()), "{net}");
        }
        for wrong in [
            "",
            "localhost",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0",
            "10.0.0.0/8/8",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        assert!(!Networks::default().contains(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn lines_of_version_1() {
        let at = |text: &str| Some(Some(text.parse().unwrap()));
        for (line, expected) in [
            (
                "PROXY TCP4 192.0.2.1 10.0.0.1 5678 80\r\n",
                at("192.0.2.1:5678"),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::1 5678 80\r\n",
                at("[2001:db8::1]:5678"),
            ),
            ("PROXY UNKNOWN\r\n", Some(None)),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Some(None)),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", None),
            ("PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n", None),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n", None),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 65536 1\r\n", None),
            ("PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n", None),
            ("PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n", None),
        ] {
            assert_eq!(parse_v1(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn bodies_of_version_2() {
        let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x16, 0x2e, 0, 80, 9, 9];
        let named = Some(Some("192.0.2.1:5678".parse().unwrap()));
        assert_eq!(parse_v2(0x21, 0x11, &four), named);
        assert_eq!(parse_v2(0x21, 0x11, &four[..11]), None);
        let mut six = [0; 36];
        six[15] = 1;
        six[33] = 7;
        let named = Some(Some("[::1]:7".parse().unwrap()));
        assert_eq!(parse_v2(0x21, 0x21, &six), named);
        assert_eq!(parse_v2(0x20, 0x00, &[]), Some(None));
        assert_eq!(parse_v2(0x21, 0x00, &[]), Some(None));
        assert_eq!(parse_v2(0x31, 0x11, &four), None);
        assert_eq!(parse_v2(0x22, 0x11, &four), None);
        assert_eq!(parse_v2(0x21, 0x55, &four), None);
    }

    /// Sends pieces; gives what the listener makes of them, and what it reads behind.
    async fn accepted(pieces: &[&[u8]], trusted: &str) -> (io::Result<SocketAddr>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect = TcpStream::connect(listener.local_addr().unwrap());
        let (near, accepted) = tokio::join!(connect, listener.accept());
        let (mut near, (mut far, peer)) = (near.unwrap(), accepted.unwrap());
        let trusted = [network(trusted)].into_iter().collect();
        let send = async {
            for piece in pieces {
                near.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            near.shutdown().await.unwrap();
        };
        let (address, ()) = tokio::join!(client(&mut far, peer, &trusted), send);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        let address = address.map(|address| {
            if address == peer {
                "0.0.0.0:0".parse().unwrap()
            } else {
                address
            }
        });
        (address, rest)
    }

    #[tokio::test]
    async fn a_trusted_proxy_names_the_client() {
        let v2 = [
            &V2_START[..],
            &[0x21, 0x11, 0, 12, 192, 0, 2, 1, 10, 0, 0, 1, 0, 9, 0, 80],
            b"GET /",
        ]
        .concat();
        let (address, rest) = accepted(&[&v2], "127.0.0.0/8").await;
        assert_eq!(address.unwrap(), "192.0.2.1:9".parse().unwrap());
        assert_eq!(rest, b"GET /");
        let pieces: &[&[u8]] = &[b"PR", b"OXY TCP4 192.0.2.1 10.0.0.1 9 ", b"80\r\n\x10\x0e"];
        let (address, rest) = accepted(pieces, "127.0.0.0/8").await;
        assert_eq!(address.unwrap(), "192.0.2.1:9".parse().unwrap());
        assert_eq!(rest, b"\x10\x0e");
        let (address, _) = accepted(&[b"PROXY nonsense\r\n"], "127.0.0.0/8").await;
        assert_eq!(address.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn others_are_read_as_they_are() {
        let own: SocketAddr = "0.0.0.0:0".parse().unwrap();
        for bytes in [&b"PUT / HTTP/1.1"[..], b"PROPFIND /", b"\x10\x0e", b""] {
            let (address, rest) = accepted(&[bytes], "127.0.0.0/8").await;
            assert_eq!((address.unwrap(), rest.as_slice()), (own, bytes));
        }
        let header = b"PROXY TCP4 192.0.2.1 10.0.0.1 9 80\r\n";
        assert!(is_header(header) && is_header(&V2_START) && !is_header(b"PROPFIND / "));
        let (address, rest) = accepted(&[header], "10.0.0.0/8").await;
        assert_eq!((address.unwrap(), rest.as_slice()), (own, &header[..]));
    }
}
