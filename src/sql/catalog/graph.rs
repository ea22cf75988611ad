//! Which object uses which, and what that makes of it.

use std::collections::{HashMap, VecDeque};

use super::super::class::{Access, Reason};
use super::Taint;

/// An object: its kind, and its OID in the catalog of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node(u8, u32);

/// OIDs below are PostgreSQL's own: FirstNormalObjectId.
const FIRST_OWN: u32 = 16384;

impl Node {
    /// Stands for every statement.
    pub(super) const EVERYTHING: Node = Node(b'x', 0);
    /// Stands for every cast.
    pub(super) const CASTS: Node = Node(b'c', 0);

    /// A node by the letter that its kind has in the rows.
    pub(super) fn new(kind: &str, id: u32) -> Option<Node> {
        match kind.as_bytes() {
            [kind @ (b'f' | b'r' | b't' | b'o' | b'c' | b'x')] => Some(Node(*kind, id)),
            _ => None,
        }
    }

    /// Something of PostgreSQL's own that has no row.
    pub(super) const fn built_in() -> Node {
        Node(b'f', 0)
    }

    pub(super) fn is_function(self) -> bool {
        self.0 == b'f'
    }

    pub(super) fn is_built_in(self) -> bool {
        self.1 < FIRST_OWN
    }
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    names: HashMap<Node, Name>,
    /// From what is used to its users.
    users: HashMap<Node, Vec<Node>>,
    seeds: Vec<(Node, Taint)>,
    taints: HashMap<Node, (Taint, Option<Node>)>,
}

#[derive(Debug)]
struct Name {
    kind: &'static str,
    name: Box<str>,
    /// Why it is tainted by itself.
    why: &'static str,
}

impl Graph {
    pub(super) fn edge(&mut self, owner: Node, target: Node) {
        self.users.entry(target).or_default().push(owner);
        if target.0 == b'r' && target.is_built_in() {
            self.seed(target, Access::Primary, Reason::Catalog, "");
            self.name(target, "system catalog", "", "");
        }
    }

    pub(super) fn name(&mut self, node: Node, kind: &'static str, schema: &str, name: &str) {
        let full = match schema {
            "" | "pg_catalog" | "public" => name.into(),
            schema => format!("{schema}.{name}").into(),
        };
        let why = self.names.get(&node).map_or("", |known| known.why);
        self.names.insert(
            node,
            Name {
                kind,
                name: full,
                why,
            },
        );
    }

    /// A relation by its kind and persistence.
    pub(super) fn relation(
        &mut self,
        node: Node,
        detail: &str,
        schema: &str,
        name: &str,
    ) -> Option<()> {
        let [kind, persistence] = *detail.as_bytes() else {
            return None;
        };
        let (label, seed) = match kind {
            b'v' => ("view", None),
            b'm' => ("materialized view", None),
            b'f' => ("foreign table", Some((Access::Write, Reason::Relation))),
            // What a standby shows of a sequence is ahead of it.
            b'S' => ("sequence", Some((Access::Primary, Reason::Relation))),
            _ => ("table", None),
        };
        self.name(node, label, schema, name);
        match (seed, persistence) {
            (Some((access, reason)), _) => self.seed(node, access, reason, ""),
            (None, b'u') => self.seed(node, Access::Primary, Reason::Relation, "unlogged"),
            (None, _) => {}
        }
        Some(())
    }

    /// Tainted by itself.
    pub(super) fn seed(&mut self, node: Node, access: Access, reason: Reason, why: &'static str) {
        self.seeds.push((
            node,
            Taint {
                access,
                reason,
                node,
            },
        ));
        if let Some(name) = self.names.get_mut(&node) {
            name.why = why;
        }
    }

    /// From what is tainted by itself to all that uses it; what may write first, so that nothing less hides it.
    pub(super) fn spread(&mut self) {
        let seeds = std::mem::take(&mut self.seeds);
        for access in [Access::Write, Access::Primary] {
            let mut queue = VecDeque::new();
            for (node, taint) in seeds.iter().filter(|(_, taint)| taint.access == access) {
                if !self.taints.contains_key(node) {
                    self.taints.insert(*node, (*taint, None));
                    queue.push_back((*node, *taint));
                }
            }
            while let Some((node, taint)) = queue.pop_front() {
                let users = self.users.get(&node).map(Vec::as_slice).unwrap_or_default();
                for user in users {
                    if !self.taints.contains_key(user) {
                        let taint = Taint {
                            access,
                            reason: reason_of(*user, taint.reason),
                            node: *user,
                        };
                        self.taints.insert(*user, (taint, Some(node)));
                        queue.push_back((*user, taint));
                    }
                }
            }
        }
    }

    /// Frees what only [`Graph::spread`] needs, and the names of what is not tainted.
    pub(super) fn forget_the_good(&mut self) {
        self.users = HashMap::new();
        let taints = &self.taints;
        self.names.retain(|node, _| taints.contains_key(node));
        self.names.shrink_to_fit();
    }

    pub(super) fn taint(&self, node: Node) -> Option<Taint> {
        self.taints.get(&node).map(|(taint, _)| *taint)
    }

    /// The worst taint among nodes.
    pub(super) fn worst(&self, nodes: impl Iterator<Item = Node>) -> Option<Taint> {
        nodes
            .filter_map(|node| self.taint(node))
            .max_by_key(|taint| taint.access == Access::Write)
    }

    /// From a node to the seed of its taint.
    pub(super) fn chain(&self, node: Node) -> Vec<String> {
        std::iter::successors(Some(node), |node| {
            self.taints.get(node).and_then(|(_, via)| *via)
        })
        .filter_map(|node| {
            let name = self.names.get(&node)?;
            let mut text = name.kind.to_owned();
            if !name.name.is_empty() {
                text.push(' ');
                text.push_str(&name.name);
            }
            if !name.why.is_empty() {
                text.push_str(&format!(" ({})", name.why));
            }
            Some(text)
        })
        .collect()
    }
}

/// Why a statement that uses the object needs the primary: by what it names.
fn reason_of(user: Node, reason: Reason) -> Reason {
    match (user.0, reason) {
        // A view over system catalogs is about them.
        (_, Reason::Catalog) => Reason::Catalog,
        (b'r', _) => Reason::Relation,
        (b't', _) => Reason::Type,
        (b'o', _) => Reason::Operator,
        (_, reason) => reason,
    }
}
