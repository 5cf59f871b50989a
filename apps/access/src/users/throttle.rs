//! Delays after failed sign-ins, for an address and for a user.
//!
//! - An address may fail [a few times](Delays::free_failures); after each further failure it has to wait, twice as long each time.
//! - A user who has signed in from an address before is counted there alone: what others do at that address does not
//!   delay them, and what is tried elsewhere with their name does not either.
//! - What a user has tried wrongly at an address where they are known delays them there, and nobody else.
//! - A user whose password is tried from more than [`FREE_ADDRESSES`] addresses is delayed at those that are new.

use core::hash::{BuildHasher as _, Hash};
use core::net::IpAddr;
use core::time::Duration;
use std::collections::HashMap;
use std::hash::RandomState;
use std::time::Instant;

use latchbus_bus::subscriber;

/// The delays of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// Failures of an address that cost no delay. Default 5.
    pub free_failures: u32,
    /// The delay after the first failure beyond them. It doubles with each. Default 1 s.
    pub first: Duration,
    /// The longest delay; that of a user at new addresses is [`MAX_USER_DELAY`] at most. Default 60 s.
    pub longest: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            free_failures: 5,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        }
    }
}

impl Delays {
    /// After so many failures.
    fn of_address(&self, failures: u32) -> Duration {
        self.after(failures.saturating_sub(self.free_failures), self.longest)
    }

    /// Of a user, after failures at so many addresses.
    fn of_user(&self, addresses: u32) -> Duration {
        let longest = self.longest.min(MAX_USER_DELAY);
        self.after(addresses.saturating_sub(FREE_ADDRESSES), longest)
    }

    fn after(&self, beyond: u32, longest: Duration) -> Duration {
        match beyond.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => self
                .first
                .saturating_mul(1 << doublings.min(31))
                .min(longest),
        }
    }
}

/// Different addresses from which a user's password may be tried without a delay for new addresses.
pub const FREE_ADDRESSES: u32 = 10;

/// The longest delay of a user, at new addresses.
pub const MAX_USER_DELAY: Duration = Duration::from_secs(8);

/// Failures are forgotten when nothing was tried for so long.
pub const FORGET_FAILURES: Duration = Duration::from_secs(15 * 60);

/// For so long after a sign-in a user is known at an address.
pub const FORGET_SUCCESS: Duration = Duration::from_secs(30 * 24 * 3600);

/// Entries of each table. Beyond them, the one that was not used for the longest time is forgotten.
pub const MAX_ENTRIES: usize = 10_000;

/// The last addresses of a user's failures, each of which counts once.
const REMEMBERED_ADDRESSES: usize = 8;

/// Who has failed when. Names are stored as a hash with a random key.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    delays: Delays,
    keys: RandomState,
    addresses: Table<Address, Failures>,
    users: Table<u64, UserFailures>,
    known: Table<(Address, u64), Failures>,
    /// Attempts whose verification has not ended. Bounded by those that may wait for one.
    pending: HashMap<Attempt, usize>,
}

/// An address and a user.
pub(super) type Attempt = (Address, u64);

/// An address as far as one subscriber of a network has it to themselves. None: inside the machine, as over a Unix socket.
pub(super) type Address = Option<IpAddr>;

#[derive(Debug, Default)]
struct Failures(u32);

#[derive(Debug, Default)]
struct UserFailures {
    addresses: u32,
    last: [Option<Address>; REMEMBERED_ADDRESSES],
}

impl Throttle {
    pub(super) fn new(delays: Delays) -> Self {
        Self {
            delays,
            ..Self::default()
        }
    }

    /// Who tries, and where.
    pub(super) fn attempt(&self, address: Option<IpAddr>, name: &str) -> Attempt {
        (address.map(subscriber), self.keys.hash_one(name))
    }

    /// Whether an attempt may be made now.
    ///
    /// # Errors
    /// After what time it may.
    pub(super) fn admit(&self, now: Instant, attempt: Attempt) -> Result<(), Duration> {
        let (address, name) = attempt;
        if let Some((failures, last)) = self.known.get(&attempt, now, FORGET_SUCCESS) {
            return over(now, last, self.delays.of_address(failures.0));
        }
        if let Some((failures, last)) = self.addresses.get(&address, now, FORGET_FAILURES) {
            over(now, last, self.delays.of_address(failures.0))?;
        }
        if let Some((failures, last)) = self.users.get(&name, now, FORGET_FAILURES) {
            over(now, last, self.delays.of_user(failures.addresses))?;
        }
        Ok(())
    }

    /// Whether an attempt may be answered from memory at once: the user is known at the address, and nothing is being verified for
    /// them there that may prove to be a guess. Without that, all guesses that are made at the same time would be looked up
    /// before the first of them has failed.
    pub(super) fn is_quiet(&self, now: Instant, attempt: Attempt) -> bool {
        let known = self.known.get(&attempt, now, FORGET_SUCCESS);
        known.is_some() && !self.pending.contains_key(&attempt)
    }

    /// Its verification is about to begin.
    pub(super) fn begin(&mut self, attempt: Attempt) {
        *self.pending.entry(attempt).or_default() += 1;
    }

    /// It has ended.
    pub(super) fn end(&mut self, attempt: Attempt) {
        if let Some(pending) = self.pending.get_mut(&attempt) {
            *pending -= 1;
            if *pending == 0 {
                self.pending.remove(&attempt);
            }
        }
    }

    /// The password is one that was verified lately, perhaps from elsewhere: from now on the user is known here. Their failures
    /// stay, which a client that asks often would otherwise clear for who guesses beside it.
    pub(super) fn remember(&mut self, now: Instant, attempt: Attempt) {
        if self.known.get(&attempt, now, FORGET_SUCCESS).is_none() {
            self.known.touch(attempt, now, FORGET_SUCCESS).0 = 0;
        }
    }

    /// The password was wrong, or there is no such user.
    pub(super) fn fail(&mut self, now: Instant, attempt: Attempt) {
        let (address, name) = attempt;
        if self.known.get(&attempt, now, FORGET_SUCCESS).is_some() {
            let failures = self.known.touch(attempt, now, FORGET_SUCCESS);
            failures.0 = failures.0.saturating_add(1);
            return;
        }
        let failures = self.addresses.touch(address, now, FORGET_FAILURES);
        failures.0 = failures.0.saturating_add(1);
        let is_new = self
            .users
            .get(&name, now, FORGET_FAILURES)
            .is_none_or(|(user, _)| !user.last.contains(&Some(address)));
        if is_new {
            let user = self.users.touch(name, now, FORGET_FAILURES);
            user.last.rotate_right(1);
            if let Some(newest) = user.last.first_mut() {
                *newest = Some(address);
            }
            user.addresses = user.addresses.saturating_add(1);
        }
    }

    /// The password was right.
    pub(super) fn succeed(&mut self, now: Instant, attempt: Attempt) {
        // What failed at this address with other names stays: one account must not open the way to the others.
        self.known.touch(attempt, now, FORGET_SUCCESS).0 = 0;
    }
}

fn over(now: Instant, last: Instant, delay: Duration) -> Result<(), Duration> {
    let rest = (last + delay).saturating_duration_since(now);
    match rest.is_zero() {
        true => Ok(()),
        false => Err(rest),
    }
}

/// At most [`MAX_ENTRIES`], each with the time of its last use.
#[derive(Debug)]
struct Table<K, V>(HashMap<K, (V, Instant)>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Copy, V: Default> Table<K, V> {
    fn get(&self, key: &K, now: Instant, forget: Duration) -> Option<(&V, Instant)> {
        let (value, last) = self.0.get(key)?;
        (now.saturating_duration_since(*last) < forget).then_some((value, *last))
    }

    /// The entry, which is used now.
    fn touch(&mut self, key: K, now: Instant, forget: Duration) -> &mut V {
        let is_current = |last: Instant| now.saturating_duration_since(last) < forget;
        if self.0.len() >= MAX_ENTRIES && !self.0.contains_key(&key) {
            self.0.retain(|_, (_, last)| is_current(*last));
        }
        if self.0.len() >= MAX_ENTRIES && !self.0.contains_key(&key) {
            let oldest = self.0.iter().min_by_key(|(_, (_, last))| *last);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.0.remove(&oldest);
            }
        }
        let (value, last) = self.0.entry(key).or_insert_with(|| (V::default(), now));
        if !is_current(*last) {
            *value = V::default();
        }
        *last = now;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Throttle {
        fn check(&self, now: Instant, address: Option<IpAddr>, name: &str) -> Result<(), Duration> {
            self.admit(now, self.attempt(address, name))
        }

        pub(in crate::users) fn failed(
            &mut self,
            now: Instant,
            address: Option<IpAddr>,
            name: &str,
        ) {
            self.fail(now, self.attempt(address, name));
        }

        fn succeeded(&mut self, now: Instant, address: Option<IpAddr>, name: &str) {
            self.succeed(now, self.attempt(address, name));
        }
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    fn fail(
        throttle: &mut Throttle,
        now: Instant,
        address: Option<IpAddr>,
        name: &str,
        times: u32,
    ) {
        for _ in 0..times {
            throttle.failed(now, address, name);
        }
    }

    #[test]
    fn the_delay_of_an_address_doubles() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..Delays::default().free_failures {
            assert_eq!(throttle.check(now, address(1), "anna"), Ok(()));
            throttle.failed(now, address(1), &format!("user {number}"));
        }
        for secs in [1, 2, 4, 8, 16, 32, 60, 60] {
            throttle.failed(now, address(1), "other");
            assert_eq!(
                throttle.check(now, address(1), "anna"),
                Err(Duration::from_secs(secs))
            );
            assert_eq!(throttle.check(now, address(2), "anna"), Ok(()));
        }
        assert_eq!(
            throttle.check(now + Duration::from_secs(60), address(1), "anna"),
            Ok(())
        );
        let later = now + FORGET_FAILURES;
        throttle.failed(later, address(1), "anna");
        assert_eq!(
            throttle.check(later, address(1), "anna"),
            Ok(()),
            "forgotten"
        );
    }

    #[test]
    fn the_delays_are_those_that_are_set() {
        let delays = Delays {
            free_failures: 0,
            first: Duration::from_millis(300),
            longest: Duration::from_secs(1),
        };
        let (mut throttle, now) = (Throttle::new(delays), Instant::now());
        assert_eq!(throttle.check(now, address(1), "anna"), Ok(()));
        for ms in [300, 600, 1_000, 1_000] {
            throttle.failed(now, address(1), "anna");
            let wait = Err(Duration::from_millis(ms));
            assert_eq!(throttle.check(now, address(1), "anna"), wait);
        }
        fail(&mut throttle, now, address(1), "anna", 100);
        for last in 2..100 {
            throttle.failed(now, address(last), "anna");
        }
        // New addresses of a user wait no longer than any.
        assert_eq!(
            throttle.check(now, address(201), "anna"),
            Err(Duration::from_secs(1))
        );
        let none = Delays {
            first: Duration::ZERO,
            ..delays
        };
        let mut throttle = Throttle::new(none);
        fail(&mut throttle, now, address(1), "anna", 100);
        assert_eq!(throttle.check(now, address(1), "anna"), Ok(()));
    }

    #[test]
    fn a_flood_at_one_address_delays_nobody_who_is_known() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        throttle.succeeded(now, address(1), "anna");
        throttle.succeeded(now, address(2), "ben");
        fail(&mut throttle, now, address(1), "ben", 1_000);
        assert_eq!(
            throttle.check(now, address(1), "anna"),
            Ok(()),
            "known there"
        );
        assert_eq!(
            throttle.check(now, address(2), "ben"),
            Ok(()),
            "known elsewhere"
        );
        assert_eq!(
            throttle.check(now, address(3), "ben"),
            Ok(()),
            "new elsewhere"
        );
        assert!(throttle.check(now, address(1), "ben").is_err());
        fail(&mut throttle, now, address(1), "anna", 6);
        assert!(
            throttle.check(now, address(1), "anna").is_err(),
            "their own failures"
        );
    }

    #[test]
    fn one_account_does_not_open_the_way_to_others() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..100 {
            throttle.failed(now, address(1), "ben");
            throttle.succeeded(now, address(1), "anna");
        }
        assert!(throttle.check(now, address(1), "ben").is_err());
    }

    #[test]
    fn a_sign_in_forgives_the_failures_of_its_user_and_is_forgotten_itself() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let free = Delays::default().free_failures;
        for _ in 0..3 {
            throttle.succeeded(now, address(1), "anna");
            fail(&mut throttle, now, address(1), "anna", free);
            assert_eq!(throttle.check(now, address(1), "anna"), Ok(()));
        }
        // Who was not there for a month is not known any more, and waits as all do at this address.
        throttle.succeeded(now, address(1), "anna");
        for (later, known) in [
            (FORGET_SUCCESS - Duration::from_secs(1), true),
            (FORGET_SUCCESS, false),
        ] {
            let later = now + later;
            fail(&mut throttle, later, address(1), "ben", free + 1);
            let checked = throttle.check(later, address(1), "anna");
            assert_eq!(checked.is_ok(), known, "{checked:?}");
        }
    }

    #[test]
    fn many_addresses_delay_a_user_at_new_ones_alone() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        throttle.succeeded(now, address(200), "anna");
        for last in 0..100 {
            throttle.failed(now, address(last), "anna");
        }
        assert_eq!(
            throttle.check(now, address(201), "anna"),
            Err(MAX_USER_DELAY)
        );
        assert_eq!(throttle.check(now, address(201), "ben"), Ok(()));
        assert_eq!(throttle.check(now, address(200), "anna"), Ok(()));
    }

    #[test]
    fn a_subscriber_has_64_bits_of_ipv6() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let ip = |text: &str| Some(text.parse().unwrap());
        fail(&mut throttle, now, ip("2001:db8::1"), "anna", 20);
        assert!(throttle.check(now, ip("2001:db8::ffff:2"), "ben").is_err());
        assert_eq!(throttle.check(now, ip("2001:db8:0:1::1"), "ben"), Ok(()));
        fail(&mut throttle, now, ip("::ffff:192.0.2.7"), "anna", 20);
        assert!(throttle.check(now, address(7), "ben").is_err());
        assert_eq!(throttle.check(now, address(8), "ben"), Ok(()));
    }

    #[test]
    fn tables_are_bounded() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..MAX_ENTRIES + 50 {
            let at = now + Duration::from_micros(number as u64);
            let ip = IpAddr::from((number as u32).to_be_bytes());
            throttle.failed(at, Some(ip), &number.to_string());
            throttle.succeeded(at, Some(ip), &number.to_string());
        }
        assert_eq!(throttle.addresses.0.len(), MAX_ENTRIES);
        assert_eq!(throttle.users.0.len(), MAX_ENTRIES);
        assert_eq!(throttle.known.0.len(), MAX_ENTRIES);
        assert!(
            !throttle
                .addresses
                .0
                .contains_key(&Some(IpAddr::from([0, 0, 0, 0])))
        );
    }
}
