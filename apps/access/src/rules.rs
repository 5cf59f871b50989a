//! Which topics a principal may publish to and read: roles, and who has which.
//!
//! What no rule allows is refused; a rule that denies beats all that allow; their order means nothing. A filter is one of
//! MQTT, in which `{user}`, `{client}` and `{room}` stand for names of who asks ([`RuleFilter`]).
//!
//! ```
//! use latchbus_access::rules::{Rules, Subject, Who};
//! use latchbus_core::topic::{TopicFilter, TopicName};
//!
//! let text = r#"
//!     everyone = ["guest"]
//!     [roles.guest]
//!     subscribe = ["clicks/#", "lab/+"]
//!     deny_subscribe = ["lab/secret"]
//!     [roles.sensor]
//!     publish = ["lab/{client}"]
//!     [users]
//!     anna = ["sensor"]
//! "#;
//! let rules = Rules::parse(text, "access.toml")?;
//! let rights = rules.rights(&Subject::new(Who::User("anna")).with_client_id("kiosk-1"));
//! let topic = |text| TopicName::parse(text).unwrap();
//! assert!(rights.may_publish(topic("lab/kiosk-1"), 1, true));
//! assert!(!rights.may_publish(topic("lab/kiosk-2"), 1, true));
//! assert!(rights.may_read(topic("lab/kiosk-2")) && !rights.may_read(topic("lab/secret")));
//! // What may be read of it is delivered, and nothing else.
//! assert_eq!(rights.subscribe(TopicFilter::parse("#").unwrap()), Some(2));
//! # Ok::<(), latchbus_access::rules::RulesError>(())
//! ```
//!
//! - `filter`: the filters.
//! - `parse`: the file.
//! - `tree`, `marks`: the compiled form. A set of roles is compiled once, for all who have it.

mod filter;
mod marks;
mod parse;
mod tree;

use core::fmt;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use latchbus_core::topic::{TopicFilter, TopicName};

pub use filter::{FilterError, MAX_LEVELS, Names, RuleFilter};
use marks::{MAX_QOS, Marks};
pub use parse::{Declared, RulesError};
use tree::Tree;

/// The roles, and who has which: what a file of rules says.
/// By default it says nothing, so that nothing is allowed.
#[derive(Debug, Default)]
pub struct Rules {
    file: Arc<str>,
    roles: Vec<Role>,
    anonymous: Assigned,
    everyone: Assigned,
    signed_in: Assigned,
    users: BTreeMap<Box<str>, Assigned>,
    tokens: BTreeMap<Box<str>, Assigned>,
    certificates: BTreeMap<Box<str>, Assigned>,
    /// By set of roles. There are no more than assignments in the file.
    compiled: Mutex<HashMap<Vec<usize>, Arc<Tree>>>,
}

/// A role: what those may do who have it.
#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) name: Box<str>,
    rules: Vec<Rule>,
    pub(crate) retain: bool,
    pub(crate) max_qos: u8,
    admin: bool,
}

/// One filter of a role.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) action: Action,
    pub(crate) filter: RuleFilter,
    pub(crate) line: usize,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Publish,
    Subscribe,
    DenyPublish,
    DenySubscribe,
    /// Both of these.
    Deny,
}

/// What is assigned to someone.
#[derive(Debug, Default)]
struct Assigned {
    /// Numbers of roles.
    roles: Vec<usize>,
    rooms: Vec<Box<str>>,
}

/// Who a principal is, for rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who<'a> {
    /// Nobody has asked.
    Anonymous,
    /// A user of this name.
    User(&'a str),
    /// A token's subject.
    Token(&'a str),
    /// A certificate's subject.
    Certificate(&'a str),
}

/// What a principal brings to the rules.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    who: Who<'a>,
    client_id: Option<&'a str>,
    claims: Option<ClaimedFilters<'a>>,
}

/// The filters of a token: what it allows, in the place of what its subject's roles allow. What these deny stays denied.
#[derive(Debug, Clone, Copy)]
pub struct ClaimedFilters<'a> {
    /// What may be published to.
    pub publish: &'a [TopicFilter<String>],
    /// What may be read.
    pub subscribe: &'a [TopicFilter<String>],
    /// Whether it is an administrator's.
    pub admin: bool,
}

/// What a principal may do, compiled. It stays as it is when the rules are read again.
#[derive(Debug, Clone)]
pub struct Rights {
    tree: Arc<Tree>,
    names: Names,
    admin: bool,
    /// Whether the tree is of roles alone, and so lives as long as the rules.
    is_shared: bool,
}

impl<'a> Subject<'a> {
    /// Someone without a client id and claims.
    pub const fn new(who: Who<'a>) -> Self {
        Self {
            who,
            client_id: None,
            claims: None,
        }
    }

    /// The same with what the client calls itself; empty is as none.
    #[must_use]
    pub const fn with_client_id(self, client_id: &'a str) -> Self {
        Self {
            client_id: Some(client_id),
            ..self
        }
    }

    /// The same with what its token claims.
    #[must_use]
    pub const fn with_claims(self, claims: ClaimedFilters<'a>) -> Self {
        Self {
            claims: Some(claims),
            ..self
        }
    }
}

impl<'a> Subject<'a> {
    pub(crate) const fn who(&self) -> Who<'a> {
        self.who
    }

    pub(crate) const fn claims(&self) -> Option<&ClaimedFilters<'a>> {
        self.claims.as_ref()
    }
}

impl<'a> Who<'a> {
    /// The name for `{user}`.
    pub const fn name(self) -> Option<&'a str> {
        match self {
            Self::Anonymous => None,
            Self::User(name) | Self::Token(name) | Self::Certificate(name) => Some(name),
        }
    }
}

impl Rules {
    /// What this subject may do.
    pub fn rights(&self, subject: &Subject<'_>) -> Rights {
        let roles = self.roles_of(subject.who);
        let names = self.names(subject);
        let is_admin = |role: &usize| self.roles.get(*role).is_some_and(|role| role.admin);
        match &subject.claims {
            None => Rights {
                admin: roles.iter().any(is_admin),
                tree: self.compiled(roles),
                names,
                is_shared: true,
            },
            Some(claims) => Rights {
                admin: claims.admin,
                tree: Arc::new(self.compile_claims(&roles, claims)),
                names,
                is_shared: false,
            },
        }
    }

    /// Where they were read: for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    fn assigned(&self, who: Who<'_>) -> Vec<&Assigned> {
        let (table, name) = match who {
            Who::Anonymous => return vec![&self.everyone, &self.anonymous],
            Who::User(name) => (&self.users, name),
            Who::Token(name) => (&self.tokens, name),
            Who::Certificate(name) => (&self.certificates, name),
        };
        let own = table.get(name);
        [&self.everyone, &self.signed_in]
            .into_iter()
            .chain(own)
            .collect()
    }

    pub(crate) fn names(&self, subject: &Subject<'_>) -> Names {
        let assigned = self.assigned(subject.who);
        let rooms: Vec<_> = assigned
            .iter()
            .flat_map(|one| one.rooms.iter().cloned())
            .collect();
        Names::new(subject.who.name(), subject.client_id, &rooms)
    }

    fn compiled(&self, roles: Vec<usize>) -> Arc<Tree> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let tree = compiled.entry(roles).or_insert_with_key(|roles| {
            let roles = roles.iter().filter_map(|role| self.roles.get(*role));
            Arc::new(Tree::new(roles.flat_map(Role::marked)))
        });
        Arc::clone(tree)
    }

    /// What the token allows, and what the roles of its subject deny.
    fn compile_claims(&self, roles: &[usize], claims: &ClaimedFilters<'_>) -> Tree {
        let allowed = |filters: &[TopicFilter<String>], marks| -> Vec<_> {
            let filters = filters.iter().map(TopicFilter::borrowed);
            // Deeper than a rule may be: no topic of it is allowed.
            let filters = filters.filter_map(|filter| RuleFilter::literal(filter).ok());
            filters.map(|filter| (filter, marks)).collect()
        };
        let mut claimed = allowed(claims.publish, Marks::publish(MAX_QOS, true));
        claimed.extend(allowed(claims.subscribe, Marks::read(MAX_QOS)));
        let claimed = claimed.iter().map(|(filter, marks)| (filter, *marks));
        let roles = roles.iter().filter_map(|role| self.roles.get(*role));
        let denied = roles.flat_map(Role::marked);
        let denied = denied.filter(|(_, marks)| *marks == marks.denies());
        Tree::new(claimed.chain(denied))
    }

    /// The rules of who this is, each with its role, in the order of the file.
    pub(crate) fn rules_of(&self, who: Who<'_>) -> impl Iterator<Item = (&Role, &Rule)> {
        let roles = self.roles_of(who).into_iter();
        let roles = roles.filter_map(|role| self.roles.get(role));
        roles.flat_map(|role| role.rules.iter().map(move |rule| (role, rule)))
    }

    fn roles_of(&self, who: Who<'_>) -> Vec<usize> {
        let assigned = self.assigned(who);
        let mut roles: Vec<_> = assigned
            .iter()
            .flat_map(|one| &one.roles)
            .copied()
            .collect();
        roles.sort_unstable();
        roles.dedup();
        roles
    }

    /// The names of the roles that this is.
    pub(crate) fn role_names(&self, who: Who<'_>) -> Vec<&str> {
        let roles = self.roles_of(who).into_iter();
        let roles = roles.filter_map(|role| self.roles.get(role));
        roles.map(|role| &*role.name).collect()
    }
}

impl Role {
    fn marked(&self) -> impl Iterator<Item = (&RuleFilter, Marks)> {
        let rules = self.rules.iter();
        rules.map(|rule| (&rule.filter, rule.action.marks(self)))
    }
}

impl Action {
    fn marks(self, role: &Role) -> Marks {
        match self {
            Self::Publish => Marks::publish(role.max_qos, role.retain),
            Self::Subscribe => Marks::read(role.max_qos),
            Self::DenyPublish => Marks::DENY_PUBLISH,
            Self::DenySubscribe => Marks::DENY_READ,
            Self::Deny => Marks::DENY_PUBLISH | Marks::DENY_READ,
        }
    }

    pub(crate) const fn denies(self) -> bool {
        matches!(self, Self::Deny | Self::DenyPublish | Self::DenySubscribe)
    }

    pub(crate) const fn is_of_publish(self) -> bool {
        matches!(self, Self::Deny | Self::DenyPublish | Self::Publish)
    }

    pub(crate) const fn is_of_read(self) -> bool {
        matches!(self, Self::Deny | Self::DenySubscribe | Self::Subscribe)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::DenyPublish => "deny_publish",
            Self::DenySubscribe => "deny_subscribe",
            Self::Deny => "deny",
        })
    }
}

impl Rights {
    /// Whether it may publish to this topic at this QoS, as retained state or as an event.
    pub fn may_publish(&self, topic: TopicName<&str>, qos: u8, retain: bool) -> bool {
        self.tree.marks(topic, &self.names).publishes(qos, retain)
    }

    /// Whether a rule allows it to publish at all: what denies may leave nothing of it.
    pub fn may_publish_anything(&self) -> bool {
        self.tree.publishes()
    }

    /// Whether it may be told what is published to this topic.
    pub fn may_read(&self, topic: TopicName<&str>) -> bool {
        self.tree.marks(topic, &self.names).reads()
    }

    /// The greatest QoS that a subscription with this filter may be granted; none when nothing that it matches could
    /// ever be read. A shared subscription is judged by the filter behind its group.
    ///
    /// Where the search for such a topic would take too long, it is accepted: each message is checked at delivery.
    pub fn subscribe(&self, filter: TopicFilter<&str>) -> Option<u8> {
        self.tree.readable(unshared(filter), &self.names)
    }

    /// Whether all that `filter` matches may be read. When in doubt: false.
    pub fn may_read_all(&self, filter: TopicFilter<&str>) -> bool {
        self.tree.all_readable(unshared(filter), &self.names)
    }

    /// The same of an administrator, if it is one by its token.
    pub(crate) fn with_admin(self, admin: bool) -> Self {
        Self {
            admin: self.admin || admin,
            ..self
        }
    }

    /// Which tree it is, when others have it too.
    pub(crate) fn shared_tree(&self) -> Option<usize> {
        self.is_shared.then(|| Arc::as_ptr(&self.tree).addr())
    }

    /// Whether those who have the same tree may read different topics of those that `filter` matches, for their names differ.
    /// When in doubt: true.
    pub(crate) fn names_matter(&self, filter: TopicFilter<&str>) -> bool {
        self.tree.names_matter(unshared(filter))
    }

    /// Whether it is an administrator.
    pub const fn is_admin(&self) -> bool {
        self.admin
    }

    /// Which of the names can be in no topic, so that a rule with them allows nothing.
    pub fn unusable_names(&self) -> impl Iterator<Item = &'static str> {
        self.names.unusable().filter(|_| self.tree.has_names())
    }
}

/// What a shared subscription is judged by.
pub(crate) fn unshared(filter: TopicFilter<&str>) -> TopicFilter<&str> {
    let shared = filter.into_inner().strip_prefix("$share/");
    let inner = shared.and_then(|shared| shared.split_once('/'));
    let inner = inner.and_then(|(_, filter)| TopicFilter::parse(filter).ok());
    inner.unwrap_or(filter)
}
