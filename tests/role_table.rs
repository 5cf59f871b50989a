//! Roles that everybody has, in some rooms, as a file of rules and as the [reference](super::roles) understands them: for who has this
//! name and this client identifier.

use core::fmt::Write as _;

use latchbus_access::rules::{Subject, Who};

use super::roles::{self, Role};

#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) roles: Vec<Role>,
    pub(crate) user: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) rooms: Vec<String>,
}

impl Table {
    pub(crate) fn toml(&self) -> String {
        let mut text = String::new();
        let names: Vec<_> = (0..self.roles.len()).map(|i| format!("r{i}")).collect();
        let rooms = &self.rooms;
        writeln!(
            text,
            "everyone = {{ roles = {names:?}, rooms = {rooms:?} }}"
        )
        .unwrap();
        for (name, role) in names.iter().zip(&self.roles) {
            role.write(name, &mut text);
        }
        text
    }

    pub(crate) fn subject(&self) -> Subject<'_> {
        let who = self.user.as_deref().map_or(Who::Anonymous, Who::User);
        let subject = Subject::new(who);
        match &self.client {
            Some(client) => subject.with_client_id(client),
            None => subject,
        }
    }

    fn covers(&self, filter: &str, topic: &str, deny: bool) -> bool {
        if filter.contains("{room}") && !self.rooms.is_empty() {
            let mut rooms = self.rooms.iter().map(|room| filter.replace("{room}", room));
            return rooms.any(|filter| self.covers(&filter, topic, deny));
        }
        let names = [
            ("{user}", self.user.as_deref().unwrap_or_default()),
            ("{client}", self.client.as_deref().unwrap_or_default()),
            ("{room}", ""),
        ];
        roles::covers(filter, &names, topic, deny)
    }

    pub(crate) fn may_read(&self, topic: &str, qos: u8) -> bool {
        let covers = |filter: &str, deny| self.covers(filter, topic, deny);
        roles::may_read(self.roles.iter(), qos, covers)
    }

    pub(crate) fn may_publish(&self, topic: &str, qos: u8, retain: bool) -> bool {
        let covers = |filter: &str, deny| self.covers(filter, topic, deny);
        roles::may_publish(self.roles.iter(), qos, retain, covers)
    }
}
