//! What rules mean, for tests: a reference that knows no tree. It puts names into filters as text and looks at each rule.

use core::fmt::Write as _;

use latchbus_core::topic::{TopicFilter, TopicName};

/// A role as the reference sees it.
#[derive(Debug, Clone)]
pub(crate) struct Role {
    pub(crate) publish: Vec<String>,
    pub(crate) subscribe: Vec<String>,
    pub(crate) deny_publish: Vec<String>,
    pub(crate) deny_subscribe: Vec<String>,
    pub(crate) deny: Vec<String>,
    pub(crate) retain: bool,
    pub(crate) max_qos: u8,
}

impl Role {
    /// As it stands in a file.
    pub(crate) fn write(&self, name: &str, text: &mut String) {
        let Self {
            publish,
            subscribe,
            deny_publish,
            deny_subscribe,
            deny,
            retain,
            max_qos,
        } = self;
        writeln!(
            text,
            "[roles.{name}]\npublish = {publish:?}\nsubscribe = {subscribe:?}\ndeny_publish = {deny_publish:?}\n\
             deny_subscribe = {deny_subscribe:?}\ndeny = {deny:?}\nretain = {retain}\nmax_qos = {max_qos}"
        )
        .unwrap();
    }
}

/// Whether these roles let someone read a topic. `covers` says whether a filter is of it, given whether the filter denies.
pub(crate) fn may_read<'a>(
    roles: impl Iterator<Item = &'a Role> + Clone,
    qos: u8,
    covers: impl Fn(&str, bool) -> bool,
) -> bool {
    let any = |filters: &[String], deny| filters.iter().any(|filter| covers(filter, deny));
    let allows = |role: &Role| role.max_qos >= qos && any(&role.subscribe, false);
    let denies = |role: &Role| any(&role.deny_subscribe, true) || any(&role.deny, true);
    roles.clone().any(allows) && !roles.clone().any(denies)
}

/// Whether they let someone publish to it.
pub(crate) fn may_publish<'a>(
    roles: impl Iterator<Item = &'a Role> + Clone,
    qos: u8,
    retain: bool,
    covers: impl Fn(&str, bool) -> bool,
) -> bool {
    let any = |filters: &[String], deny| filters.iter().any(|filter| covers(filter, deny));
    let allows =
        |role: &Role| role.max_qos >= qos && (role.retain || !retain) && any(&role.publish, false);
    let denies = |role: &Role| any(&role.deny_publish, true) || any(&role.deny, true);
    roles.clone().any(allows) && !roles.clone().any(denies)
}

/// Whether a filter of a rule covers a topic, with these names in the place of what stands for them. A name that can be no level of
/// a topic allows nothing, and denies everything from its level on; a name that is empty does neither.
pub(crate) fn covers(filter: &str, names: &[(&str, &str)], topic: &str, deny: bool) -> bool {
    let mut levels = Vec::new();
    for level in filter.split('/') {
        let named = || {
            names
                .iter()
                .filter(|(placeholder, _)| level.contains(placeholder))
        };
        if named().any(|(_, name)| name.contains(['/', '+', '#']) || name.starts_with('$')) {
            levels.push("#".to_owned());
            let hidden = levels.len() == 1 && topic.starts_with('$');
            return deny && (hidden || matches(&levels.join("/"), topic));
        }
        if named().any(|(_, name)| name.is_empty()) {
            return false;
        }
        levels.push(
            named().fold(level.to_owned(), |level, (placeholder, name)| {
                level.replace(placeholder, name)
            }),
        );
    }
    matches(&levels.join("/"), topic)
}

pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let filter = TopicFilter::parse(filter).unwrap();
    filter.matches(&TopicName::parse(topic).unwrap())
}
