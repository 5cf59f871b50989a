//! What one user, or one address, may take.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and their helpers are a part of them"
)]

mod support;

use core::num::NonZeroU64;

use latchbus_bus::{
    Authenticator, BoxFuture, Bus, Client, Clock, Credentials, Event, Identity, PublishRefused,
    Quotas, Request, Session, SignIn, SignInRefused, SignedIn, SubscribeRefused,
};
use latchbus_core::hub::Mode;
use latchbus_core::wire::ErrorCode;
use support::{event, recv, run, within};
use tokio_util::sync::CancellationToken;

/// Takes everyone for whom they say they are.
struct Trusting;

impl Authenticator for Trusting {
    fn authenticate(&self, sign_in: SignIn) -> BoxFuture<'_, Result<SignedIn, SignInRefused>> {
        let identity = match sign_in.credentials.user {
            Some(user) => Identity::User(user),
            None => Identity::Anonymous,
        };
        Box::pin(async move { Ok(SignedIn::new(identity)) })
    }
}

fn open(quotas: Quotas, clock: &Clock) -> Bus {
    let bus = Bus::builder().authenticator(Trusting).quotas(quotas);
    bus.clock(clock.clone()).open().unwrap()
}

async fn sign_in(
    bus: &Bus,
    transport: &'static str,
    (user, client_id, address): (&str, &str, &str),
) -> Result<Client, SignInRefused> {
    let address: core::net::IpAddr = address.parse().unwrap();
    let mut sign_in = SignIn::new(transport)
        .with_client_id(client_id)
        .with_address(Some((address, 1).into()));
    if !user.is_empty() {
        sign_in = sign_in.with_credentials(Credentials::password(user, "x"));
    }
    bus.sign_in(sign_in).await
}

#[tokio::test]
async fn connections_of_a_user_and_from_an_address_are_bounded() {
    let quotas = Quotas {
        user_connections: Some(2),
        address_connections: Some(3),
        ..Quotas::default()
    };
    let bus = open(quotas, &Clock::manual(1_000));
    let anna = |id: &'static str| sign_in(&bus, "mqtt", ("anna", id, "192.0.2.1"));
    let first = Session::new(anna("a").await.unwrap());
    let stop = CancellationToken::new();
    let (mut peer, link) = run(first, 16, stop.clone());
    peer.requests.send(Request::Ping { id: 1 }).await.unwrap();
    recv(&mut peer).await;
    let _second = anna("b").await.unwrap();
    let refused = anna("c").await.unwrap_err();
    assert!(
        matches!(refused, SignInRefused::TooManyConnections { limit: 2, .. }),
        "{refused}"
    );
    assert_eq!(bus.metrics().connections_over_quota.get(), 1);
    // It takes over from the first; a request over HTTP is no connection.
    let third = anna("a").await.unwrap();
    for _ in 0..5 {
        sign_in(&bus, "http", ("anna", "", "192.0.2.1"))
            .await
            .unwrap();
    }
    assert!(sign_in(&bus, "ws", ("bea", "", "192.0.2.1")).await.is_err());
    sign_in(&bus, "ws", ("bea", "", "192.0.2.2")).await.unwrap();
    drop(third);
    // The session of a client that has left takes no place.
    stop.cancel();
    let (_away, _) = within(link).await.unwrap();
    let fourth = anna("c").await.unwrap();
    assert!(anna("d").await.is_err());
    drop(fourth);
    anna("d").await.unwrap();
}

#[tokio::test]
async fn publishes_of_a_user_are_bounded_over_all_connections() {
    let clock = Clock::manual(1_000);
    let quotas = Quotas {
        publishes_per_second: NonZeroU64::new(4),
        ..Quotas::default()
    };
    let bus = open(quotas, &clock);
    let first = sign_in(&bus, "ws", ("anna", "", "192.0.2.1"))
        .await
        .unwrap();
    let second = sign_in(&bus, "http", ("anna", "", "192.0.2.2"))
        .await
        .unwrap();
    for n in 0..4 {
        let client = [&first, &second][n % 2];
        client.publish(event("a", "x")).await.unwrap();
    }
    for client in [&first, &second] {
        let refused = client.publish(event("a", "x")).await.unwrap_err();
        assert!(
            matches!(refused, PublishRefused::RateLimited { .. }),
            "{refused}"
        );
        assert_eq!(refused.code(), ErrorCode::RateLimited);
    }
    assert_eq!(bus.metrics().publishes_rate_limited.get(), 2);
    // A will passes; the program itself, and others, are not held up.
    first.enqueue_will(event("will", "x")).await.await.unwrap();
    bus.publish(event("a", "x")).await.unwrap();
    let bea = sign_in(&bus, "ws", ("bea", "", "192.0.2.1")).await.unwrap();
    bea.publish(event("a", "x")).await.unwrap();
    clock.set(1_500);
    first.publish(event("a", "x")).await.unwrap();
    first.publish(event("a", "x")).await.unwrap_err();
}

#[tokio::test]
async fn subscriptions_of_a_user_are_bounded_over_all_sessions() {
    let quotas = Quotas {
        user_subscriptions: Some(2),
        ..Quotas::default()
    };
    let bus = open(quotas, &Clock::manual(1_000));
    let mut peers = Vec::new();
    for _ in 0..2 {
        let anna = sign_in(&bus, "ws", ("anna", "", "192.0.2.1"))
            .await
            .unwrap();
        peers.push(run(Session::new(anna), 16, CancellationToken::new()));
    }
    let subscribed = async |peer: usize, id: u64, peers: &mut Vec<_>| {
        let (peer, _): &mut (latchbus_bus::memory::MemoryPeer, _) = &mut peers[peer];
        let subscribe = support::subscribe(id, "a", Mode::Every);
        peer.requests.send(subscribe).await.unwrap();
        loop {
            if let Event::Subscribed { results, .. } = recv(peer).await {
                break results.into_iter().next().unwrap().1;
            }
        }
    };
    subscribed(0, 1, &mut peers).await.unwrap();
    subscribed(1, 1, &mut peers).await.unwrap();
    // The same again takes no place of its own.
    subscribed(0, 1, &mut peers).await.unwrap();
    let refused = subscribed(0, 2, &mut peers).await.unwrap_err();
    assert_eq!(refused, SubscribeRefused::UserFull { limit: 2 });
    assert_eq!(bus.metrics().subscriptions_over_quota.get(), 1);
    let (gone, ends) = peers.pop().unwrap();
    drop(gone);
    let (session, _) = within(ends).await.unwrap();
    assert!(subscribed(0, 2, &mut peers).await.is_err());
    drop(session);
    subscribed(0, 2, &mut peers).await.unwrap();
}
