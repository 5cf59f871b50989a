//! Rules compiled to one tree of filter levels, for a set of roles.

use std::collections::{BTreeSet, HashSet};

use latchbus_core::topic::{TopicFilter, TopicName};

use super::filter::{Level, Match, Named, Names, RuleFilter};
use super::marks::Marks;

/// Ways into the tree that are looked at before a subscription is accepted without an end to the search. Messages are
/// checked one by one at delivery whatever is accepted.
const MAX_SEARCH: usize = 4_096;

/// Rules as a tree. A look-up visits each node at most once, and is no deeper than the deepest filter.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// The greatest QoS at which any rule allows to read.
    read_qos: Option<u8>,
}

#[derive(Debug, Default)]
struct Node {
    /// By name.
    children: Vec<(Box<str>, usize)>,
    plus: Option<usize>,
    named: Vec<(Named, usize)>,
    /// Of filters that end here.
    end: Marks,
    /// Of filters that go on with `#`.
    hash: Marks,
    /// What rules deny at this node and below.
    denies: Marks,
    by_name: ByName,
}

/// Where the rules for reading with names in them are.
#[derive(Debug, Clone, Copy, Default)]
struct ByName {
    /// One ends here.
    end: bool,
    /// One goes on with `#` from here, or denies all that goes on from here if its name cannot be used.
    hash: bool,
    /// One goes on below.
    below: bool,
}

const ROOT: usize = 0;

impl Tree {
    pub(super) fn new<'a>(rules: impl IntoIterator<Item = (&'a RuleFilter, Marks)>) -> Self {
        let mut tree = Self {
            nodes: Vec::from([Node::default()]),
            read_qos: None,
        };
        for (filter, marks) in rules {
            tree.insert(filter, marks);
        }
        tree
    }

    fn insert(&mut self, filter: &RuleFilter, marks: Marks) {
        self.read_qos = self.read_qos.max(marks.read_qos());
        let is_named = |level: &Level| matches!(level, Level::Named(_));
        let by_name = marks.concerns_reading() && filter.levels.iter().any(is_named);
        let mut at = ROOT;
        self.denies(at, marks);
        for level in &filter.levels {
            if let Some(node) = self.nodes.get_mut(at).filter(|_| by_name) {
                node.by_name.below = true;
                node.by_name.hash |= is_named(level) && marks.denies_read();
            }
            at = self.child(at, level);
            self.denies(at, marks);
        }
        if let Some(node) = self.nodes.get_mut(at) {
            let (place, here) = match filter.hash {
                true => (&mut node.hash, &mut node.by_name.hash),
                false => (&mut node.end, &mut node.by_name.end),
            };
            *place |= marks;
            *here |= by_name;
        }
    }

    fn denies(&mut self, at: usize, marks: Marks) {
        if let Some(node) = self.nodes.get_mut(at) {
            node.denies |= marks.denies();
        }
    }

    /// The child for `level`, which is made when there is none.
    fn child(&mut self, at: usize, level: &Level) -> usize {
        let new = self.nodes.len();
        let Some(node) = self.nodes.get_mut(at) else {
            return at;
        };
        let child = match level {
            Level::Plus => *node.plus.get_or_insert(new),
            Level::Is(text) => match node.find(text) {
                Ok((_, child)) => child,
                Err(place) => {
                    node.children.insert(place, (text.clone(), new));
                    new
                }
            },
            Level::Named(named) => match node.named.iter().find(|(known, _)| known == named) {
                Some((_, child)) => *child,
                None => {
                    node.named.push((named.clone(), new));
                    new
                }
            },
        };
        if child == new {
            self.nodes.push(Node::default());
        }
        child
    }

    /// The marks of every rule that matches.
    pub(super) fn marks(&self, topic: TopicName<&str>, names: &Names) -> Marks {
        let text = topic.as_str();
        let is_hidden = text.starts_with('$');
        self.walk(ROOT, Some(text), names, is_hidden)
    }

    /// What matches from this node on, `rest` being the levels that are left. `hidden`: no wildcard matches the first.
    fn walk(&self, at: usize, rest: Option<&str>, names: &Names, hidden: bool) -> Marks {
        let Some(node) = self.nodes.get(at) else {
            return Marks::NONE;
        };
        let mut marks = if hidden { Marks::NONE } else { node.hash };
        let Some(rest) = rest else {
            return marks | node.end | self.fail_closed(node, names);
        };
        if node.is_leaf() {
            return marks;
        }
        let (level, behind) = match rest.split_once('/') {
            Some((level, behind)) => (level, Some(behind)),
            None => (rest, None),
        };
        if let Ok((_, child)) = node.find(level) {
            marks |= self.walk(child, behind, names, false);
        }
        if let Some(child) = node.plus
            && !hidden
        {
            marks |= self.walk(child, behind, names, false);
        }
        for (named, child) in &node.named {
            marks |= match named.matches(level, names) {
                Match::Yes => self.walk(*child, behind, names, false),
                Match::No => Marks::NONE,
                Match::Unusable => self.denies_below(*child),
            };
        }
        marks
    }

    /// What denies by a name that cannot be used denies all that is there.
    fn fail_closed(&self, node: &Node, names: &Names) -> Marks {
        let unusable = node
            .named
            .iter()
            .filter(|(named, _)| named.matches("", names) == Match::Unusable);
        unusable.fold(Marks::NONE, |marks, (_, child)| {
            marks | self.denies_below(*child)
        })
    }

    fn denies_below(&self, at: usize) -> Marks {
        self.nodes.get(at).map_or(Marks::NONE, |node| node.denies)
    }

    /// Whether a rule has a name in it.
    pub(super) fn has_names(&self) -> bool {
        self.nodes.iter().any(|node| !node.named.is_empty())
    }

    /// Whether the names say something of a topic that `filter` matches, as far as reading is concerned. When in doubt: true.
    pub(super) fn names_matter(&self, filter: TopicFilter<&str>) -> bool {
        self.names_matter_below(ROOT, Some(filter.into_inner()))
    }

    /// The same from this node on, `rest` being the levels of the filter that are left.
    fn names_matter_below(&self, at: usize, rest: Option<&str>) -> bool {
        let Some(node) = self.nodes.get(at) else {
            return false;
        };
        let ByName { end, hash, below } = node.by_name;
        match rest {
            _ if hash => true,
            None => end,
            Some("#") => end || below,
            Some(_) if !below => false,
            Some(rest) => {
                let (level, behind) = match rest.split_once('/') {
                    Some((level, behind)) => (level, Some(behind)),
                    None => (rest, None),
                };
                let is_other = |name: &str| level != "+" && level != name;
                let children = node.children.iter().filter(|(name, _)| !is_other(name));
                let children = children.map(|(_, child)| *child);
                let named = node.named.iter().map(|(_, child)| *child);
                let mut on = children.chain(named).chain(node.plus);
                on.any(|child| self.names_matter_below(child, behind))
            }
        }
    }

    /// Whether a rule allows to publish.
    pub(super) fn publishes(&self) -> bool {
        let mut nodes = self.nodes.iter();
        nodes.any(|node| node.end.allows_publish() || node.hash.allows_publish())
    }

    /// The greatest QoS at which some topic can be read that `filter` matches; none when there is no such topic.
    pub(super) fn readable(&self, filter: TopicFilter<&str>, names: &Names) -> Option<u8> {
        let most = self.read_qos?;
        if let Some(topic) = filter.exact() {
            return self.marks(topic, names).read_qos();
        }
        Search::new(self, filter, names, most).greatest_qos()
    }

    /// Whether every topic can be read that `filter` matches. When in doubt: false.
    pub(super) fn all_readable(&self, filter: TopicFilter<&str>, names: &Names) -> bool {
        match filter.exact() {
            Some(topic) => self.marks(topic, names).reads(),
            None => Search::new(self, filter, names, 0).is_all_readable(),
        }
    }
}

impl Node {
    fn find(&self, level: &str) -> Result<(usize, usize), usize> {
        let place = self
            .children
            .binary_search_by(|(name, _)| (**name).cmp(level))?;
        self.children
            .get(place)
            .map_or(Err(place), |(_, child)| Ok((place, *child)))
    }

    fn is_leaf(&self) -> bool {
        self.children.is_empty() && self.plus.is_none() && self.named.is_empty()
    }
}

/// A search for a topic that a filter matches and that may be read: level by level through all topics, of which those
/// are one that differ in no rule.
struct Search<'a> {
    tree: &'a Tree,
    names: &'a Names,
    levels: Vec<&'a str>,
    hash: bool,
    /// No topic is readable at a greater QoS.
    most: u8,
}

/// Topics that begin alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Beginning {
    /// How many levels of the filter they match, all of them and more counting as all.
    depth: usize,
    /// The nodes that match them.
    nodes: Vec<usize>,
    /// What holds for all that goes on so.
    marks: Marks,
    /// One empty level, which is no topic before there is another.
    is_empty: bool,
}

impl<'a> Search<'a> {
    fn new(tree: &'a Tree, filter: TopicFilter<&'a str>, names: &'a Names, most: u8) -> Self {
        let text = filter.into_inner();
        let (path, hash) = match text.strip_suffix('#') {
            Some("") => (None, true),
            Some(parent) => (parent.strip_suffix('/'), true),
            None => (Some(text), false),
        };
        let levels = path.into_iter().flat_map(|path| path.split('/')).collect();
        Self {
            tree,
            names,
            levels,
            hash,
            most,
        }
    }

    fn start() -> Vec<Beginning> {
        Vec::from([Beginning {
            depth: 0,
            nodes: Vec::from([ROOT]),
            marks: Marks::NONE,
            is_empty: false,
        }])
    }

    fn is_all_readable(&self) -> bool {
        let (mut seen, mut open) = (HashSet::new(), Self::start());
        while let Some(beginning) = open.pop() {
            for next in self.next(&beginning) {
                if next.nodes.is_empty() && next.marks.reads() {
                    continue;
                }
                if next.is_empty && next.depth == self.levels.len() && !self.hash {
                    // It is no topic, and nothing follows.
                    continue;
                }
                let ends = next.depth == self.levels.len() && !next.is_empty;
                // What is denied ends somewhere.
                if next.nodes.is_empty() || (ends && self.ends(&next).is_none()) {
                    return false;
                }
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
            if seen.len() > MAX_SEARCH {
                return false;
            }
        }
        true
    }

    fn greatest_qos(&self) -> Option<u8> {
        let mut best = None;
        let (mut seen, mut open) = (HashSet::new(), Self::start());
        while let Some(beginning) = open.pop() {
            for next in self.next(&beginning) {
                if next.marks.denies_read() || (next.nodes.is_empty() && !next.marks.reads()) {
                    continue;
                }
                best = best.max(self.ends(&next));
                if best == Some(self.most) {
                    return best;
                }
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
            if seen.len() > MAX_SEARCH {
                return Some(self.most);
            }
        }
        best
    }

    /// The QoS at which such a topic can be read that ends here, or that goes on beyond all rules.
    fn ends(&self, beginning: &Beginning) -> Option<u8> {
        if beginning.is_empty {
            return None;
        }
        if beginning.nodes.is_empty() {
            return beginning.marks.read_qos();
        }
        if beginning.depth < self.levels.len() {
            return None;
        }
        let nodes = beginning
            .nodes
            .iter()
            .filter_map(|at| self.tree.nodes.get(*at));
        let marks = nodes.fold(beginning.marks, |marks, node| {
            marks | node.end | self.tree.fail_closed(node, self.names)
        });
        marks.read_qos()
    }

    /// Each way on by one level.
    fn next(&self, from: &Beginning) -> Vec<Beginning> {
        let is_first = from.nodes.first() == Some(&ROOT);
        let level = self.levels.get(from.depth).copied();
        let depth = (from.depth + 1).min(self.levels.len());
        match level {
            Some("+") => {}
            Some(level) => return vec![self.step(from, Some(level), depth)],
            None if self.hash => {}
            None => return Vec::new(),
        }
        // Any level that a rule names, and one that none does.
        let mut names = BTreeSet::new();
        for node in from.nodes.iter().filter_map(|at| self.tree.nodes.get(*at)) {
            names.extend(node.children.iter().map(|(name, _)| name.to_string()));
            let named = node.named.iter();
            names.extend(named.flat_map(|(named, _)| named.levels(self.names)));
        }
        if is_first {
            names.retain(|name| !name.starts_with('$'));
        }
        let mut on: Vec<_> = names
            .iter()
            .map(|name| self.step(from, Some(name), depth))
            .collect();
        on.push(self.step(from, None, depth));
        on
    }

    /// A level more: this one, or one that no rule names.
    fn step(&self, from: &Beginning, level: Option<&str>, depth: usize) -> Beginning {
        let is_first = from.nodes.first() == Some(&ROOT);
        let is_hidden = is_first && level.is_some_and(|level| level.starts_with('$'));
        let (mut marks, mut nodes) = (from.marks, BTreeSet::new());
        for node in from.nodes.iter().filter_map(|at| self.tree.nodes.get(*at)) {
            if !is_hidden {
                marks |= node.hash;
                nodes.extend(node.plus);
            }
            if let Some(level) = level {
                nodes.extend(node.find(level).ok().map(|(_, child)| child));
            }
            for (named, child) in &node.named {
                match named.matches(level.unwrap_or_default(), self.names) {
                    Match::Unusable => marks |= self.tree.denies_below(*child),
                    Match::Yes if level.is_some() => drop(nodes.insert(*child)),
                    _ => {}
                }
            }
        }
        for node in nodes.iter().filter_map(|at| self.tree.nodes.get(*at)) {
            marks |= node.hash;
        }
        Beginning {
            depth,
            nodes: nodes.into_iter().collect(),
            marks,
            is_empty: is_first && level == Some(""),
        }
    }
}
