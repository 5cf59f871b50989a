//! Who is connected, as an administrator sees it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use core::time::Duration;

use latchbus_bus::memory::MemoryPeer;
use latchbus_bus::{
    AdminError, Authorizer, Bus, Client, Close, Ended, Event, Identity, Principal, Request,
    Session, SignedOut,
};
use latchbus_core::hub::Mode;
use support::{event, recv, run, within};
use tokio_util::sync::CancellationToken;

/// `root` is the administrator.
struct Root;

impl Authorizer for Root {
    fn is_admin(&self, principal: &Principal) -> bool {
        principal.identity.name() == Some("root")
    }
}

fn user(bus: &Bus, name: &str) -> Client {
    let address = "192.0.2.7:1234".parse().unwrap();
    let principal = Principal::user(name.into(), "test")
        .with_client_id(format!("{name}-1"))
        .with_address(Some(address));
    bus.client(principal).unwrap()
}

fn is_connected(admin: &Client, id: u64) -> bool {
    let clients = admin.clients(0, 100).unwrap();
    clients.iter().any(|client| client.id == id)
}

async fn subscribe(peer: &mut MemoryPeer, id: u64, filter: &str, group: Option<&str>) {
    let mut request = support::subscribe(id, filter, Mode::Every);
    if let Request::Subscribe { subscriptions, .. } = &mut request {
        subscriptions[0].group = group.map(str::to_owned);
    }
    peer.requests.send(request).await.unwrap();
    while !matches!(recv(peer).await, Event::Subscribed { .. }) {}
}

#[tokio::test]
async fn clients_are_listed_with_what_waits_for_them() {
    let bus = Bus::builder().authorizer(Root).open().unwrap();
    let admin = user(&bus, "root");
    assert_eq!(admin.clients(0, 100).unwrap(), []);
    let (session, away) = (
        Session::new(user(&bus, "anna")),
        Session::new(user(&bus, "bea")),
    );
    let (traffic, id) = (session.traffic(), session.client().id());
    traffic.set_keep_alive(Some(Duration::from_secs(60)));
    traffic.set_in_flight(3);
    let (mut peer, _run) = run(session, 1, CancellationToken::new());
    subscribe(&mut peer, 1, "a/#", None).await;
    subscribe(&mut peer, 2, "b/+", Some("g")).await;
    // The link holds few of them.
    for n in 0..100 {
        bus.publish(event(&format!("a/{n}"), "x")).await.unwrap();
    }
    let listed = admin.clients(0, 100).unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    let anna = &listed[0];
    assert_eq!(anna.id, id);
    assert_eq!(anna.principal.identity, Identity::User("anna".into()));
    assert_eq!(anna.principal.client_id, "anna-1");
    assert_eq!(anna.address, "192.0.2.7:1234".parse().ok());
    assert!(anna.since > 0);
    assert_eq!(anna.keep_alive, Some(Duration::from_secs(60)));
    assert_eq!((anna.subscriptions, anna.in_flight), (2, 3));
    assert!((1..=100).contains(&anna.pending), "{}", anna.pending);

    let subscriptions = admin.subscriptions_of(id, 0, 100).unwrap();
    let shown = subscriptions
        .iter()
        .map(|it| (it.id, it.filter.as_str(), it.group.as_deref()));
    let expected = [(1, "a/#", None), (2, "b/+", Some("g"))];
    assert!(shown.eq(expected), "{subscriptions:?}");
    assert_eq!(subscriptions[0].pending, anna.pending);
    // Page by page; what waits for a client goes as it takes it.
    assert_eq!(admin.subscriptions_of(id, 2, 100).unwrap().len(), 1);
    assert_eq!(admin.subscriptions_of(id, 0, 1).unwrap().len(), 1);
    for _ in 0..100 {
        while !matches!(recv(&mut peer).await, Event::Message { .. }) {}
    }
    assert_eq!(admin.clients(0, 100).unwrap()[0].pending, 0);

    // A session without a connection is no client, and has subscriptions all the same.
    assert!(!is_connected(&admin, away.client().id()));
    assert_eq!(admin.subscriptions_of(away.client().id(), 0, 9), Ok(vec![]));
    drop(peer);
    while is_connected(&admin, id) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_page_begins_behind_a_number() {
    let bus = Bus::builder().authorizer(Root).open().unwrap();
    let admin = user(&bus, "root");
    let links: Vec<_> = (0..5)
        .map(|n| {
            let session = Session::new(user(&bus, &format!("u{n}")));
            (
                session.client().id(),
                run(session, 1, CancellationToken::new()),
            )
        })
        .collect();
    while admin.clients(0, 100).unwrap().len() < links.len() {
        tokio::task::yield_now().await;
    }
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = admin.clients(after, 2).unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = last.id;
        seen.extend(page.iter().map(|client| client.id));
    }
    assert!(links.iter().map(|(id, _)| *id).eq(seen));
}

#[tokio::test]
async fn a_client_is_disconnected_and_may_come_back() {
    let bus = Bus::builder().authorizer(Root).open().unwrap();
    let (admin, session) = (user(&bus, "root"), Session::new(user(&bus, "anna")));
    let id = session.client().id();
    assert_eq!(admin.disconnect(id), Err(AdminError::UnknownClient));
    let (mut peer, ends) = run(session, 16, CancellationToken::new());
    subscribe(&mut peer, 1, "#", None).await;
    admin.disconnect(id).unwrap();
    let (session, ended) = within(ends).await.unwrap();
    assert!(
        matches!(ended, Ended::SignedOut(SignedOut::Dismissed)),
        "{ended:?}"
    );
    let closed = loop {
        match within(peer.events.recv()).await {
            Ok(_) => {}
            Err(closed) => break closed,
        }
    };
    assert_eq!(closed.0, Some(Close::SignedOut(SignedOut::Dismissed)));
    assert_eq!(admin.disconnect(id), Err(AdminError::UnknownClient));
    let (mut peer, again) = run(session, 16, CancellationToken::new());
    subscribe(&mut peer, 2, "b", None).await;
    assert!(!again.is_finished());
    assert!(is_connected(&admin, id));
}

#[tokio::test]
async fn only_administrators_see_and_end() {
    let bus = Bus::builder().authorizer(Root).open().unwrap();
    let (anna, session) = (user(&bus, "anna"), Session::new(user(&bus, "bea")));
    let id = session.client().id();
    let (mut peer, ends) = run(session, 16, CancellationToken::new());
    subscribe(&mut peer, 1, "#", None).await;
    assert_eq!(anna.clients(0, 100), Err(AdminError::NotAllowed));
    assert_eq!(anna.subscriptions_of(id, 0, 9), Err(AdminError::NotAllowed));
    assert_eq!(anna.disconnect(id), Err(AdminError::NotAllowed));
    subscribe(&mut peer, 2, "b", None).await;
    assert!(!ends.is_finished());
}
