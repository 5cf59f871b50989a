use proptest::prelude::*;

use super::*;

fn check(host: &str, origin: &str) -> Result<(), Refusal> {
    OriginPolicy::default().check(Some(host), Some(origin))
}

fn is_host(judged: Result<(), Refusal>) -> bool {
    matches!(judged, Err(Refusal::Host { .. }))
}

fn is_origin(judged: Result<(), Refusal>) -> bool {
    matches!(judged, Err(Refusal::Origin { .. }))
}

/// A request as a proxy or a browser brings it to the listener on port 3000, from an address that is trusted only where
/// the policy says so.
fn judge(policy: &OriginPolicy, asked: &Asked<'_>) -> Result<(), Refusal> {
    let asked = Asked {
        local_port: Some(3000),
        ..asked.clone()
    };
    Rules::new(policy).judge(&asked)
}

fn websocket(host: &'static str, origin: &'static str) -> Asked<'static> {
    Asked {
        host: Ok(Some(host)),
        origin: Ok(Some(origin)),
        ..Asked::default()
    }
}

fn read(host: &'static str) -> Asked<'static> {
    Asked {
        host: Ok(Some(host)),
        reads: true,
        ..Asked::default()
    }
}

#[test]
fn over_tls_a_page_of_the_same_name_without_it_is_another() {
    let policy = OriginPolicy::default();
    let over_tls = |origin| Asked {
        is_secure: true,
        ..websocket("127.0.0.1:3000", origin)
    };
    assert_eq!(judge(&policy, &over_tls("https://127.0.0.1:3000")), Ok(()));
    assert!(is_origin(judge(
        &policy,
        &over_tls("http://127.0.0.1:3000")
    )));
    // What a trusted proxy says of its own client counts, whatever it speaks to here.
    let proxied = |https| Asked {
        forwarded: Some(Forwarded {
            https: Some(https),
            ..Forwarded::default()
        }),
        ..over_tls("http://127.0.0.1:3000")
    };
    assert_eq!(judge(&policy, &proxied(false)), Ok(()));
    assert!(is_origin(judge(&policy, &proxied(true))));
}

#[test]
fn own_pages_pass() {
    for (host, origin) in [
        ("127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("localhost:3000", "http://localhost:3000"),
        ("LOCALHOST:3000", "http://localhost:3000"),
        ("[::1]:3000", "http://[::1]:3000"),
        ("[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000"),
        ("192.168.1.7", "http://192.168.1.7"),
        ("192.168.1.7", "http://192.168.1.7:80"),
        ("192.168.1.7:80", "http://192.168.1.7"),
        ("192.168.1.7", "https://192.168.1.7"),
        ("192.168.1.7:443", "https://192.168.1.7"),
    ] {
        assert_eq!(check(host, origin), Ok(()), "{host} {origin}");
    }
}

#[test]
fn other_pages_do_not() {
    for (host, origin) in [
        ("127.0.0.1:3000", "http://evil.example"),
        ("127.0.0.1:3000", "http://127.0.0.1:3001"),
        ("127.0.0.1:3000", "http://127.0.0.1"),
        ("127.0.0.1:3000", "http://localhost:3000"),
        ("127.0.0.1:3000", "http://127.0.0.1:3000.evil.example"),
        ("127.0.0.1:3000", "http://127.0.0.1:3000@evil.example"),
        ("127.0.0.1:3000", "http://127.0.0.1:3000/"),
        ("127.0.0.1:3000", "http://127.0.0.1:+3000"),
        ("127.0.0.1:443", "http://127.0.0.1"),
        ("127.0.0.1:3000", "ftp://127.0.0.1:3000"),
        ("127.0.0.1:3000", "capacitor://127.0.0.1:3000"),
        ("127.0.0.1:3000", "null"),
        ("127.0.0.1:3000", "file://"),
        ("127.0.0.1:3000", ""),
    ] {
        assert!(is_origin(check(host, origin)), "{host} {origin}");
    }
}

#[test]
fn programs_send_no_origin() {
    let policy = OriginPolicy::default();
    assert_eq!(policy.check(Some("127.0.0.1:3000"), None), Ok(()));
    assert!(is_host(policy.check(Some("bus.local"), None)));
}

#[test]
fn names_of_the_server_are_listed() {
    // What a rebinding attack looks like: origin and host agree.
    assert!(is_host(check(
        "evil.example:3000",
        "http://evil.example:3000"
    )));
    assert!(is_host(check(
        "localhost.evil.example",
        "http://localhost.evil.example"
    )));
    let policy = OriginPolicy {
        allow_hosts: ["Bus.Example.com", "lab.local:8080", "*.lan"]
            .map(str::to_owned)
            .into(),
        ..OriginPolicy::default()
    };
    let check = |host, origin| policy.check(Some(host), Some(origin));
    assert_eq!(check("bus.example.com", "https://bus.example.com"), Ok(()));
    assert_eq!(
        check("bus.example.com:81", "http://bus.example.com:81"),
        Ok(())
    );
    assert_eq!(check("lab.local:8080", "http://lab.local:8080"), Ok(()));
    assert!(is_host(check("lab.local", "http://lab.local")));
    assert_eq!(check("pi.lan:3000", "http://pi.lan:3000"), Ok(()));
}

#[test]
fn other_origins_are_listed() {
    let policy = OriginPolicy {
        allow_origins: ["https://Dash.example.com:443", "capacitor://localhost"]
            .map(str::to_owned)
            .into(),
        ..OriginPolicy::default()
    };
    let check = |origin| policy.check(Some("10.0.0.1:3000"), Some(origin));
    assert_eq!(check("https://dash.example.com"), Ok(()));
    assert_eq!(check("capacitor://localhost"), Ok(()));
    assert!(is_origin(check("http://dash.example.com")));
    assert!(is_origin(check("https://dash.example.com:8443")));
    assert!(is_origin(check("null")));
    // A listed page still has to call this server by its name.
    assert!(is_host(
        policy.check(Some("evil.example"), Some("https://dash.example.com"))
    ));
    let policy = OriginPolicy {
        allow_origins: vec!["null".to_owned()],
        ..OriginPolicy::default()
    };
    assert_eq!(policy.check(Some("10.0.0.1"), Some("null")), Ok(()));
}

#[test]
fn hosts_that_cannot_be_read() {
    let policy = OriginPolicy::default();
    assert_eq!(policy.check(None, None), Err(Refusal::NoHost));
    for host in [
        "",
        ":80",
        "[::1",
        "[::1]80",
        "a b",
        "127.0.0.1:",
        "::1",
        "a@b",
    ] {
        let refused = policy.check(Some(host), None);
        // A port without digits names none: the empty string of digits does not parse.
        assert_eq!(refused, Err(Refusal::NoHost), "{host}");
    }
}

/// What a page can make a browser send to `127.0.0.1:3000`, with the browser's own verdict and without it.
#[test]
fn what_the_browser_says_counts() {
    let policy = OriginPolicy {
        allow_origins: vec!["https://dash.example.com".to_owned()],
        ..OriginPolicy::default()
    };
    let site = |site, asked: Asked<'static>| {
        let asked = Asked {
            site: Ok(site),
            ..asked
        };
        judge(&policy, &asked)
    };
    let (host, own) = ("127.0.0.1:3000", "http://127.0.0.1:3000");
    let foreign = "http://evil.example";
    for verdict in [None, Some("none"), Some("same-origin")] {
        assert_eq!(site(verdict, websocket(host, own)), Ok(()), "{verdict:?}");
        assert_eq!(site(verdict, read(host)), Ok(()), "{verdict:?}");
    }
    for verdict in [
        None,
        Some("none"),
        Some("same-site"),
        Some("cross-site"),
        Some("x"),
    ] {
        for origin in [
            foreign,
            "null",
            "http://127.0.0.1:8080",
            "http://localhost:3000",
        ] {
            let judged = site(verdict, websocket(host, origin));
            assert!(is_origin(judged), "{verdict:?} {origin}");
        }
        let listed = websocket(host, "https://dash.example.com");
        assert_eq!(site(verdict, listed), Ok(()), "{verdict:?}");
    }
    for verdict in [Some("same-site"), Some("cross-site"), Some("x")] {
        // A page on another port of a host whose port a proxy has left out.
        let other = websocket("127.0.0.1", "http://127.0.0.1");
        assert!(is_origin(site(verdict, other)), "{verdict:?}");
        // A simple request without an origin: an image, a form of an old browser.
        let write = Asked {
            reads: false,
            ..read(host)
        };
        assert_eq!(site(verdict, read(host)), Err(Refusal::CrossSite));
        assert_eq!(site(verdict, write.clone()), Err(Refusal::CrossSite));
        // The user has followed a link; a form is no link.
        let link = Asked {
            navigates: true,
            ..read(host)
        };
        assert_eq!(site(verdict, link), Ok(()));
        let form = Asked {
            navigates: true,
            ..write
        };
        assert_eq!(site(verdict, form), Err(Refusal::CrossSite));
    }
}

/// Rebinding: the browser takes the page for one of this server, and its name is the attacker's.
#[test]
fn rebound_names_are_refused_whatever_the_browser_says() {
    let policy = OriginPolicy::default();
    for site in [None, Some("same-origin"), Some("none")] {
        for (host, origin) in [
            ("attacker.example:3000", "http://attacker.example:3000"),
            ("attacker.example", "http://attacker.example"),
            // Without a dot, but with the port that whoever connects by himself names.
            ("attacker:3000", "http://attacker:3000"),
        ] {
            for asked in [websocket(host, origin), read(host)] {
                let asked = Asked {
                    site: Ok(site),
                    ticket: true,
                    ..asked
                };
                assert!(is_host(judge(&policy, &asked)), "{site:?} {host}");
            }
        }
    }
}

/// nginx's example passes no `Host`: the name of its upstream comes.
#[test]
fn a_host_that_a_proxy_has_replaced() {
    let policy = OriginPolicy::default();
    let judge = |asked: &Asked<'_>| judge(&policy, asked);
    let with = |site, ticket, origin| Asked {
        site: Ok(site),
        ticket,
        ..websocket("backend", origin)
    };
    // Firefox says so itself; Chromium's pages fetch a ticket.
    for origin in [
        "http://127.0.0.1:8080",
        "http://localhost",
        "https://bus.example.com",
    ] {
        assert_eq!(judge(&with(Some("same-origin"), false, origin)), Ok(()));
        assert_eq!(judge(&with(None, true, origin)), Ok(()));
        assert!(is_origin(judge(&with(None, false, origin))), "{origin}");
        assert!(is_origin(judge(&with(Some("cross-site"), true, origin))));
    }
    // A name that may have been rebound to the proxy.
    for site in [None, Some("same-origin")] {
        assert!(is_origin(judge(&with(
            site,
            true,
            "http://attacker.example"
        ))));
    }
    let programs = Asked {
        host: Ok(Some("backend")),
        ..Asked::default()
    };
    assert_eq!(
        judge(&programs),
        Ok(()),
        "no browser writes without an origin"
    );
    assert!(matches!(
        judge(&read("backend")),
        Err(Refusal::Replaced { .. })
    ));
    let known = Asked {
        site: Ok(Some("same-origin")),
        ..read("backend")
    };
    assert_eq!(judge(&known), Ok(()));
    // On port 80 it may be a name that somebody has typed.
    let asked = Asked {
        local_port: Some(80),
        ..read("backend")
    };
    assert!(is_host(Rules::new(&policy).judge(&asked)));
    assert!(
        is_host(policy.check(Some("backend"), None)),
        "the port is not known"
    );
}

/// `proxy_set_header Host $host` leaves the port out.
#[test]
fn a_port_that_a_proxy_has_left_out() {
    let policy = OriginPolicy {
        allow_hosts: vec!["bus.example.com".to_owned()],
        ..OriginPolicy::default()
    };
    for (host, origin, passes) in [
        ("127.0.0.1", "http://127.0.0.1:8080", true),
        ("bus.example.com", "https://bus.example.com:8443", true),
        ("127.0.0.1", "http://localhost:8080", false),
        ("127.0.0.1:3000", "http://127.0.0.1:8080", false),
    ] {
        let judged = judge(&policy, &websocket(host, origin));
        assert_eq!(judged.is_ok(), passes, "{host} {origin}");
    }
    // This listener's port is the scheme's own: nothing was left out.
    let asked = Asked {
        local_port: Some(80),
        ..websocket("127.0.0.1", "http://127.0.0.1:8080")
    };
    assert!(is_origin(Rules::new(&policy).judge(&asked)));
}

#[test]
fn trusted_proxies_say_by_which_name_a_request_came() {
    let trusted = OriginPolicy {
        trusted_proxies: ["127.0.0.1", "10.0.0.0/8"]
            .map(|net| net.parse().unwrap())
            .into_iter()
            .collect(),
        ..OriginPolicy::default()
    };
    let listed = OriginPolicy {
        allow_hosts: vec!["bus.example.com".to_owned()],
        ..trusted.clone()
    };
    let through = |policy: &OriginPolicy, host, named: &str, https, origin| {
        let asked = Asked {
            forwarded: Some(Forwarded {
                host: (!named.is_empty()).then(|| (named.to_owned(), Authority::parse(named))),
                https,
                ..Forwarded::default()
            }),
            ..websocket(host, origin)
        };
        judge(policy, &asked)
    };
    let (bus, page) = ("bus.example.com", "https://bus.example.com");
    for policy in [&trusted, &listed] {
        assert_eq!(through(policy, "backend", bus, Some(true), page), Ok(()));
        assert_eq!(through(policy, bus, "", None, page), Ok(()));
        let judged = through(policy, bus, "", Some(false), page);
        assert!(is_origin(judged), "the page came over http");
        let judged = through(policy, bus, bus, Some(true), "https://evil.example");
        assert!(is_origin(judged));
        assert_eq!(
            through(policy, "backend", "a b", None, page),
            Err(Refusal::NoHost)
        );
    }
    // The list says which names are meant, whoever brings them.
    let evil = ("evil.example", "http://evil.example");
    assert_eq!(through(&trusted, "backend", evil.0, None, evil.1), Ok(()));
    assert!(is_host(through(&listed, "backend", evil.0, None, evil.1)));

    // A name that was rebound to a proxy which passes on what a page has added.
    assert!(is_host(through(&listed, evil.0, bus, None, evil.1)));

    // A browser on the proxy's machine, with a rebound name, adds headers of its own.
    let rules = Rules::new(&trusted);
    let is_proxied = |peer: &str, host| {
        rules.is_proxied(Some(peer.parse().unwrap()), Some(3000), Ok(Some(host)))
    };
    assert!(!is_proxied("127.0.0.1", "attacker.example:3000"));
    assert!(!is_proxied("127.0.0.1", "attacker:3000"));
    assert!(!is_proxied("192.0.2.1", "bus.example.com"));
    assert!(is_proxied("127.0.0.1", "bus.example.com"));
    assert!(is_proxied("127.0.0.1", "127.0.0.1:3000"));
    assert!(is_proxied("::ffff:10.0.0.7", "latchbus:3000"));
}

#[test]
fn refusals_name_what_to_set() {
    let refused = check("bus.local:3000", "http://bus.local:3000").unwrap_err();
    assert_eq!(refused.setting(), Some(("allow_hosts", "bus.local:3000")));
    assert!(refused.to_string().contains("--allow-hosts bus.local:3000"));
    let refused = check("10.0.0.1", "https://dash.example.com").unwrap_err();
    let origin = "https://dash.example.com";
    assert_eq!(refused.setting(), Some(("allow_origins", origin)));
    assert!(
        refused
            .to_string()
            .contains(&format!("--allow-origins {origin}"))
    );
}

proptest! {
    #[test]
    fn no_header_panics(host in any::<String>(), origin in any::<String>()) {
        let _ = OriginPolicy::default().check(Some(&host), Some(&origin));
    }

    #[test]
    fn only_the_same_host_and_port_pass(a in 0_u8..3, b in 0_u8..3, p in 1_u16..4, q in 1_u16..4) {
        let passed = check(&format!("10.0.0.{a}:{p}"), &format!("http://10.0.0.{b}:{q}")).is_ok();
        prop_assert_eq!(passed, a == b && p == q);
    }
}
