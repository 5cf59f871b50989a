//! What one user, or one address, may take of the bus.
//!
//! A user counts by name, over all connections and transports; who has none counts by address. Of IPv6, the first 64 bits are an
//! address. The process itself, and byte links, which have neither, are not bounded.

use core::net::{IpAddr, Ipv6Addr};
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::access::Principal;
use crate::holdings::Holder;
use crate::wake::lock;

/// The bounds. None: there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Connections of one user.
    pub user_connections: Option<usize>,
    /// Connections from one address, whoever has them.
    pub address_connections: Option<usize>,
    /// Subscriptions of one user, over all sessions, those of clients that are away among them.
    pub user_subscriptions: Option<usize>,
    /// Messages that one user may publish in a second, and at once after a rest.
    pub publishes_per_second: Option<NonZeroU64>,
    /// Bytes of topics and payloads of them. A larger message passes after a rest.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Topics that retain what one user has published last, also over a restart.
    pub user_retained_topics: Option<usize>,
    /// Bytes of the payloads that are retained of one user.
    pub user_retained_bytes: Option<usize>,
}

impl Quotas {
    /// Whether nothing is bounded.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    fn limits_rate(&self) -> bool {
        self.publishes_per_second.is_some() || self.bytes_per_second.is_some()
    }
}

/// Who has come too often, or is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) limit: usize,
    pub(crate) setting: &'static str,
}

/// How long a bucket takes to be full again: so much may come at once.
const BURST_MICROS: u64 = 1_000_000;

/// Those whose use is known. One that has nothing open and has rested is forgotten whenever the table has doubled.
#[derive(Debug)]
pub(crate) struct Table {
    quotas: Quotas,
    users: Mutex<HashMap<Holder, Arc<Allowance>>>,
}

/// What one user or address has taken.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    connections: AtomicUsize,
    subscriptions: AtomicUsize,
    rate: Mutex<Rate>,
}

/// Buckets, as the times when they are full again, in microseconds.
#[derive(Debug, Default, Clone, Copy)]
struct Rate {
    publishes: u64,
    bytes: u64,
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    of: Vec<Arc<Allowance>>,
    count: fn(&Allowance) -> &AtomicUsize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        for allowance in &self.of {
            (self.count)(allowance).fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Seat {
    const fn new(count: fn(&Allowance) -> &AtomicUsize) -> Self {
        Self {
            of: Vec::new(),
            count,
        }
    }

    /// Takes one more place; false at the limit.
    fn take(&mut self, allowance: Arc<Allowance>, limit: usize) -> bool {
        let taken =
            (self.count)(&allowance).fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken < limit).then(|| taken + 1)
            });
        let is_taken = taken.is_ok();
        if is_taken {
            self.of.push(allowance);
        }
        is_taken
    }
}

impl Table {
    /// None where nothing is bounded that is counted here: what is retained is counted in the hub.
    pub(crate) fn new(quotas: Quotas) -> Option<Self> {
        let quotas = Quotas {
            user_retained_topics: None,
            user_retained_bytes: None,
            ..quotas
        };
        (!quotas.is_unlimited()).then(|| Self {
            quotas,
            users: Mutex::default(),
        })
    }

    /// Takes the place of a connection. One that `replaces` another may be one too many for its user, and for its address.
    pub(crate) fn connect(
        &self,
        principal: &Principal,
        now_ms: u64,
        replaces: bool,
    ) -> Result<Seat, TooMany> {
        let mut seat = Seat::new(|allowance| &allowance.connections);
        let user = principal
            .identity
            .name()
            .map(|name| Holder::User(name.to_owned()));
        let address = principal
            .address
            .map(|address| Holder::Address(subscriber(address.ip())));
        let bounds = [
            (
                user,
                self.quotas.user_connections,
                "limits.user_connections",
            ),
            (
                address,
                self.quotas.address_connections,
                "limits.address_connections",
            ),
        ];
        for (key, limit, setting) in bounds {
            let (Some(key), Some(limit)) = (key, limit) else {
                continue;
            };
            let most = limit.saturating_add(usize::from(replaces));
            if !seat.take(self.of(key, now_ms), most) {
                return Err(TooMany { limit, setting });
            }
        }
        Ok(seat)
    }

    /// Takes the place of a subscription.
    pub(crate) fn subscribe(
        &self,
        principal: &Principal,
        now_ms: u64,
    ) -> Result<Option<Seat>, TooMany> {
        let Some((key, limit)) = Holder::of(principal).zip(self.quotas.user_subscriptions) else {
            return Ok(None);
        };
        let mut seat = Seat::new(|allowance| &allowance.subscriptions);
        let setting = "limits.user_subscriptions";
        match seat.take(self.of(key, now_ms), limit) {
            true => Ok(Some(seat)),
            false => Err(TooMany { limit, setting }),
        }
    }

    /// Takes what a publish costs, or says when to try again, and which setting it was too fast for.
    pub(crate) fn publish(
        &self,
        principal: &Principal,
        now_ms: u64,
        bytes: usize,
    ) -> Result<(), (Duration, &'static str)> {
        let Some(allowance) = self.rated(principal, now_ms) else {
            return Ok(());
        };
        let mut rate = lock(&allowance.rate);
        let (after, early, heavy) = self.price(*rate, micros(now_ms), bytes);
        if !early.max(heavy).is_zero() {
            return Err(match early >= heavy {
                true => (early, "limits.publishes_per_second"),
                false => (heavy, "limits.bytes_per_second"),
            });
        }
        *rate = after;
        Ok(())
    }

    /// Takes what a publish costs in any case, and says how long to wait before it: for who cannot be told to try again.
    pub(crate) fn owe(&self, principal: &Principal, now_ms: u64, bytes: usize) -> Duration {
        let Some(allowance) = self.rated(principal, now_ms) else {
            return Duration::ZERO;
        };
        let mut rate = lock(&allowance.rate);
        let (after, early, heavy) = self.price(*rate, micros(now_ms), bytes);
        *rate = after;
        early.max(heavy)
    }

    fn rated(&self, principal: &Principal, now_ms: u64) -> Option<Arc<Allowance>> {
        let key = self.quotas.limits_rate().then(|| Holder::of(principal))??;
        Some(self.of(key, now_ms))
    }

    /// The buckets after a message of so many bytes, and how much too early it comes for the one and for the other.
    fn price(&self, rate: Rate, now: u64, bytes: usize) -> (Rate, Duration, Duration) {
        let charge = |full_at: u64, limit: Option<NonZeroU64>, units: u64| {
            let Some(limit) = limit else {
                return (full_at, 0);
            };
            let cost = units.saturating_mul(BURST_MICROS) / limit;
            let backlog = full_at.saturating_sub(now);
            // Whatever it costs, after a rest it passes.
            let excess = match backlog {
                0 => 0,
                backlog => backlog.saturating_add(cost).saturating_sub(BURST_MICROS),
            };
            (full_at.max(now).saturating_add(cost), excess)
        };
        let Quotas {
            publishes_per_second,
            bytes_per_second,
            ..
        } = self.quotas;
        let (publishes, early) = charge(rate.publishes, publishes_per_second, 1);
        let (bytes, heavy) = charge(rate.bytes, bytes_per_second, bytes as u64);
        let after = Rate { publishes, bytes };
        let (early, heavy) = (Duration::from_micros(early), Duration::from_micros(heavy));
        (after, early, heavy)
    }

    fn of(&self, key: Holder, now_ms: u64) -> Arc<Allowance> {
        let mut users = lock(&self.users);
        if users.len() == users.capacity() {
            let now = micros(now_ms);
            users.retain(|_, allowance| !allowance.is_idle(now));
        }
        Arc::clone(users.entry(key).or_default())
    }
}

impl Allowance {
    fn is_idle(self: &Arc<Self>, now: u64) -> bool {
        let rate = *lock(&self.rate);
        Arc::strong_count(self) == 1 && rate.publishes <= now && rate.bytes <= now
    }
}

fn micros(ms: u64) -> u64 {
    ms.saturating_mul(1_000)
}

/// What stands for all addresses that one subscriber of a network has: of IPv6 the first 64 bits, of IPv4 the address. One of IPv4
/// that is written as one of IPv6 is that of IPv4.
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Identity;

    fn from(address: &str) -> Principal {
        let address: IpAddr = address.parse().unwrap();
        Principal::anonymous("test").with_address(Some((address, 1).into()))
    }

    fn user(name: &str, address: &str) -> Principal {
        Principal {
            identity: Identity::User(name.into()),
            ..from(address)
        }
    }

    fn table(quotas: Quotas) -> Table {
        Table::new(quotas).unwrap()
    }

    #[test]
    fn so_many_publishes_pass_at_once_and_then_in_their_time() {
        let table = table(Quotas {
            publishes_per_second: NonZeroU64::new(10),
            ..Quotas::default()
        });
        let anna = user("anna", "192.0.2.1");
        let elsewhere = user("anna", "192.0.2.2");
        for n in 0..10 {
            assert_eq!(table.publish([&anna, &elsewhere][n % 2], 5_000, 9), Ok(()));
        }
        let setting = "limits.publishes_per_second";
        let wait = Duration::from_millis(100);
        assert_eq!(table.publish(&elsewhere, 5_000, 9), Err((wait, setting)));
        assert_eq!(
            table.publish(&anna, 5_099, 9),
            Err((Duration::from_millis(1), setting))
        );
        assert_eq!(table.publish(&anna, 5_100, 9), Ok(()));
        assert!(table.publish(&anna, 5_100, 9).is_err());
        // Others are not delayed.
        assert_eq!(table.publish(&user("bea", "192.0.2.1"), 5_100, 9), Ok(()));
        assert_eq!(table.publish(&from("192.0.2.1"), 5_100, 9), Ok(()));
        assert_eq!(table.publish(&Principal::process(), 5_100, 9), Ok(()));
        let passed = (0..100).filter(|n| table.publish(&anna, 9_000 + n * 10, 9).is_ok());
        // 10 at once, and 9 in the second that passes.
        assert_eq!(passed.count(), 19);
    }

    #[test]
    fn bytes_count_and_a_large_message_passes_after_a_rest() {
        let table = table(Quotas {
            bytes_per_second: NonZeroU64::new(1_000),
            ..Quotas::default()
        });
        let anna = user("anna", "192.0.2.1");
        assert_eq!(table.publish(&anna, 1_000, 5_000), Ok(()));
        let setting = "limits.bytes_per_second";
        let wait = Duration::from_secs(4);
        assert_eq!(table.publish(&anna, 1_000, 0), Err((wait, setting)));
        assert_eq!(table.publish(&anna, 5_500, 500), Ok(()));
        assert!(table.publish(&anna, 5_500, 1).is_err());
        // Who cannot be refused waits, and what it has published counts.
        assert_eq!(table.owe(&anna, 5_500, 1_000), Duration::from_secs(1));
        assert_eq!(table.owe(&anna, 6_500, 500), Duration::from_millis(500));
    }

    #[test]
    fn connections_count_for_the_user_and_the_address_until_they_end() {
        let table = table(Quotas {
            user_connections: Some(2),
            address_connections: Some(3),
            ..Quotas::default()
        });
        let connect = |principal: &Principal| table.connect(principal, 0, false);
        let anna = user("anna", "2001:db8::1");
        let first = connect(&anna).unwrap();
        let _second = connect(&user("anna", "192.0.2.1")).unwrap();
        let refused = connect(&user("anna", "192.0.2.9")).unwrap_err();
        assert_eq!(
            (refused.limit, refused.setting),
            (2, "limits.user_connections")
        );
        // One that takes over from another may come before that has gone.
        drop(table.connect(&anna, 0, true).unwrap());
        let _others: Vec<_> = (1..=2)
            .map(|n| connect(&from(&format!("2001:db8::{n}"))).unwrap())
            .collect();
        let refused = connect(&user("bea", "2001:db8:0:0:ffff::")).unwrap_err();
        assert_eq!(refused.setting, "limits.address_connections");
        // What was refused has taken nothing.
        drop(first);
        connect(&user("bea", "2001:db8::7")).unwrap();
        connect(&user("anna", "192.0.2.9")).unwrap();
    }

    #[test]
    fn subscriptions_count_until_they_end() {
        let table = table(Quotas {
            user_subscriptions: Some(1),
            ..Quotas::default()
        });
        let anna = user("anna", "192.0.2.1");
        let first = table.subscribe(&anna, 0).unwrap();
        assert!(first.is_some());
        assert!(table.subscribe(&anna, 0).is_err());
        drop(first);
        assert!(table.subscribe(&anna, 0).is_ok());
        assert!(table.subscribe(&Principal::process(), 0).unwrap().is_none());
    }

    #[test]
    fn who_has_rested_is_forgotten() {
        let table = table(Quotas {
            publishes_per_second: NonZeroU64::new(1),
            ..Quotas::default()
        });
        for n in 0..10_000_u32 {
            let address = core::net::Ipv4Addr::from(n).to_string();
            // A hundred in a second.
            assert_eq!(table.publish(&from(&address), u64::from(n) * 10, 1), Ok(()));
        }
        let known = lock(&table.users).len();
        assert!(known < 1_000, "{known}");
    }

    /// Else one who has many names would wait for nothing.
    #[test]
    fn who_has_not_rested_is_not_forgotten() {
        let table = table(Quotas {
            publishes_per_second: NonZeroU64::new(1),
            bytes_per_second: NonZeroU64::new(100),
            ..Quotas::default()
        });
        let (often, much) = (user("often", "192.0.2.1"), user("much", "192.0.2.1"));
        assert_eq!(table.publish(&often, 1_000, 1), Ok(()));
        assert_eq!(table.publish(&much, 1_000, 1_000), Ok(()));
        for n in 0..1_000_u32 {
            let other = from(&core::net::Ipv4Addr::from(n).to_string());
            assert_eq!(table.publish(&other, 1_000, 1), Ok(()));
        }
        assert!(table.publish(&often, 1_999, 1).is_err());
        for n in 1_000..2_000_u32 {
            let other = from(&core::net::Ipv4Addr::from(n).to_string());
            assert_eq!(table.publish(&other, 3_000, 1), Ok(()));
        }
        assert!(table.publish(&much, 3_000, 1).is_err());
    }

    #[test]
    fn nothing_is_bounded_unless_it_is_asked_for() {
        assert!(Table::new(Quotas::default()).is_none());
        // What is retained is counted in the hub.
        let retained = Quotas {
            user_retained_topics: Some(1),
            user_retained_bytes: Some(1),
            ..Quotas::default()
        };
        assert!(Table::new(retained).is_none());
    }
}
