//! Which filters match a topic: a tree of filter levels.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::mem;

use super::view::ViewId;
use crate::topic::{TopicFilter, TopicName};

/// Distinct filters, each with its view. A look-up visits each node at most once, so it is bounded by
/// the tree's size and, without `+`, by the topic's levels.
#[derive(Debug)]
pub(super) struct FilterTree {
    nodes: Vec<Node>,
    free: Vec<usize>,
    /// Nodes reached at the current level and at the next: kept to save allocations.
    frontier: Vec<usize>,
    next: Vec<usize>,
}

#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<Box<str>, usize>,
    plus: Option<usize>,
    /// The filter that ends here.
    view: Option<ViewId>,
    /// The filter that goes on with `#` and ends.
    hash: Option<ViewId>,
}

const ROOT: usize = 0;

impl FilterTree {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::from([Node::default()]),
            free: Vec::new(),
            frontier: Vec::new(),
            next: Vec::new(),
        }
    }

    pub(super) fn find(&self, filter: TopicFilter<&str>) -> Option<ViewId> {
        let (path, hash) = split(filter);
        let mut node = self.nodes.get(ROOT)?;
        for level in path {
            node = self.nodes.get(node.child(level)?)?;
        }
        if hash { node.hash } else { node.view }
    }

    pub(super) fn insert(&mut self, filter: TopicFilter<&str>, view: ViewId) {
        let (path, hash) = split(filter);
        let mut at = ROOT;
        for level in path {
            at = match self.nodes.get(at).and_then(|node| node.child(level)) {
                Some(child) => child,
                None => self.add_child(at, level),
            };
        }
        if let Some(node) = self.nodes.get_mut(at) {
            *(if hash { &mut node.hash } else { &mut node.view }) = Some(view);
        }
    }

    pub(super) fn remove(&mut self, filter: TopicFilter<&str>) {
        let (path, hash) = split(filter);
        let mut trail = Vec::new();
        let mut at = ROOT;
        for level in path {
            let Some(child) = self.nodes.get(at).and_then(|node| node.child(level)) else {
                return;
            };
            trail.push((at, level));
            at = child;
        }
        if let Some(node) = self.nodes.get_mut(at) {
            *(if hash { &mut node.hash } else { &mut node.view }) = None;
        }
        while let Some((parent, level)) = trail.pop() {
            if !self.nodes.get(at).is_some_and(Node::is_unused) {
                return;
            }
            self.free.push(at);
            if let Some(node) = self.nodes.get_mut(parent) {
                match level {
                    "+" => node.plus = None,
                    level => drop(node.children.remove(level)),
                }
            }
            at = parent;
        }
    }

    /// Calls `found` with the view of every filter that matches.
    pub(super) fn matching(&mut self, topic: TopicName<&str>, mut found: impl FnMut(ViewId)) {
        let (mut frontier, mut next) = (mem::take(&mut self.frontier), mem::take(&mut self.next));
        frontier.clear();
        frontier.push(ROOT);
        // MQTT 3.1.1 §4.7.2: a leading wildcard does not match a topic that begins with `$`.
        let mut wildcards = !topic.as_str().starts_with('$');
        for level in topic.as_str().split('/') {
            next.clear();
            for node in frontier.iter().filter_map(|at| self.nodes.get(*at)) {
                if wildcards {
                    node.hash.into_iter().for_each(&mut found);
                    next.extend(node.plus);
                }
                next.extend(node.children.get(level));
            }
            mem::swap(&mut frontier, &mut next);
            wildcards = true;
            if frontier.is_empty() {
                break;
            }
        }
        for node in frontier.iter().filter_map(|at| self.nodes.get(*at)) {
            node.view.into_iter().for_each(&mut found);
            // `sport/#` matches `sport` too (§4.7.1.2).
            node.hash.into_iter().for_each(&mut found);
        }
        (self.frontier, self.next) = (frontier, next);
    }

    fn add_child(&mut self, parent: usize, level: &str) -> usize {
        let child = match self.free.pop() {
            Some(free) => free,
            None => {
                self.nodes.push(Node::default());
                self.nodes.len() - 1
            }
        };
        if let Some(node) = self.nodes.get_mut(parent) {
            match level {
                "+" => node.plus = Some(child),
                level => drop(node.children.insert(level.into(), child)),
            }
        }
        child
    }
}

impl Node {
    fn child(&self, level: &str) -> Option<usize> {
        match level {
            "+" => self.plus,
            level => self.children.get(level).copied(),
        }
    }

    fn is_unused(&self) -> bool {
        self.children.is_empty()
            && self.plus.is_none()
            && self.view.is_none()
            && self.hash.is_none()
    }
}

/// The levels before a last `#`, and whether there is one.
fn split(filter: TopicFilter<&str>) -> (impl Iterator<Item = &str>, bool) {
    let text = filter.into_inner();
    let (path, hash) = match text.strip_suffix('#') {
        Some("") => (None, true),
        Some(parent) => (parent.strip_suffix('/'), true),
        None => (Some(text), false),
    };
    (path.into_iter().flat_map(|path| path.split('/')), hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeSet, string::String};

    proptest! {
        #[test]
        fn finds_what_matches(
            filters in proptest::collection::btree_set("([+ab$]?/){0,3}[+#ab]?", 0..12),
            removed in proptest::collection::vec(any::<bool>(), 12),
            topics in proptest::collection::vec("([ab$]?/){0,3}[ab]?", 1..8),
        ) {
            let mut tree = FilterTree::new();
            let filters: Vec<String> = filters.into_iter().filter(|f| TopicFilter::parse(f.as_str()).is_ok()).collect();
            let parsed = |i: usize| TopicFilter::parse(filters[i].as_str()).unwrap();
            for i in 0..filters.len() {
                prop_assert_eq!(tree.find(parsed(i)), None);
                tree.insert(parsed(i), ViewId(i as u32));
            }
            for i in (0..filters.len()).filter(|i| removed[*i]) {
                tree.remove(parsed(i));
            }
            for topic in topics.iter().filter_map(|t| TopicName::parse(t.as_str()).ok()) {
                let mut found = BTreeSet::new();
                tree.matching(topic, |view| assert!(found.insert(view.0 as usize), "found twice"));
                let expected: BTreeSet<usize> = (0..filters.len())
                    .filter(|i| !removed[*i] && parsed(*i).matches(&topic))
                    .collect();
                prop_assert_eq!(found, expected);
            }
            for (i, removed) in removed.iter().enumerate().take(filters.len()) {
                let kept = (!removed).then_some(ViewId(i as u32));
                prop_assert_eq!(tree.find(parsed(i)), kept);
                tree.remove(parsed(i));
            }
            prop_assert_eq!(tree.free.len() + 1, tree.nodes.len());
        }
    }
}
