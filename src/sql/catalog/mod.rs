//! What a database's own objects may do: functions, types, operators and relations that users and extensions have made.
//!
//! PostgreSQL does not record what a view does, so [`QUERY`] reads it out of the stored rule trees: which functions,
//! relations and types each names. From there everything is one graph, and what reaches something that must not run on
//! a standby must not either (routing.md §2.5). Names are looked up in all schemas at once: whatever the search path
//! is, one bad object makes its name bad.

mod change;
mod graph;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

pub use change::{Change, change};
use graph::{Graph, Node};

use super::class::{Access, PinReason, Reason};
use super::pins::Pins;
use super::{function, lexer, system};

/// The rows that [`Catalog::build`] is made of. Any user may ask; the search path must be `pg_catalog`.
pub const QUERY: &str = include_str!("load.sql");

/// Counts what has been done to what [`QUERY`] reads, up to about a second ago: one row and column, NULL where the server
/// does not count. PostgreSQL manual, 28.2.2 (track_counts) and monitoring-stats.html.
pub const FINGERPRINT: &str = "SELECT CASE WHEN current_setting('track_counts') = 'on' THEN \
    string_agg(concat(pg_stat_get_tuples_inserted(oid), ' ', pg_stat_get_tuples_updated(oid), ' ', \
    pg_stat_get_tuples_deleted(oid)), ',' ORDER BY oid) END FROM pg_class WHERE oid = ANY (\
    '{pg_class,pg_proc,pg_rewrite,pg_type,pg_operator,pg_cast,pg_policy,pg_constraint,pg_inherits,pg_aggregate,\
    pg_attrdef,pg_range,pg_amop,pg_amproc,pg_opfamily,pg_namespace,pg_event_trigger}'::regclass[])";

/// What an administrator says of functions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Trust {
    /// What users' functions are declared as is believed: immutable and stable ones may run on standbys.
    pub declared: bool,
    /// Functions that may run on standbys whatever they are declared as: `name` or `schema.name`.
    pub functions: Vec<String>,
    /// Procedures that only read.
    pub procedures: Vec<String>,
    /// System catalogs may be read on standbys.
    pub catalogs: bool,
}

/// Whether a list of names, as `name` or `schema.name`, has this one. The empty schema is not known.
fn lists(names: &[String], schema: &str, name: &str) -> bool {
    names.iter().any(|listed| {
        listed == name
            || listed
                .split_once('.')
                .is_some_and(|parts| parts == (schema, name))
    })
}

impl Default for Trust {
    fn default() -> Trust {
        Trust {
            declared: true,
            functions: Vec::new(),
            procedures: Vec::new(),
            catalogs: false,
        }
    }
}

/// One row of [`QUERY`].
pub type Row = [Option<String>];

/// Rows that [`QUERY`] cannot have returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed row of the catalog")]
pub struct Malformed;

/// A database's objects by name, as statements may use them.
#[derive(Debug)]
pub struct Catalog {
    /// Which database's, among all: whatever it becomes.
    database: u64,
    epoch: u64,
    contents: u64,
    known: Known,
}

/// For statements without a database: relations are taken for ordinary tables, and what is not built in for unknown.
pub static TABLES: Catalog = Catalog {
    database: 0,
    epoch: 1,
    contents: 0,
    known: Known::Tables,
};

#[derive(Debug)]
enum Known {
    /// It has not been loaded, or is out of date: nothing that has a user's name is a read.
    Nothing(Option<Pins>),
    /// There is no database to ask: every relation is an ordinary table, and there is nothing else.
    Tables,
    Names(Box<Names>),
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Whatever bears it may be used on a standby.
    Good,
    /// Nothing bears it.
    Missing,
    /// The catalog is not known.
    NotLoaded,
    /// Something that bears it needs the primary.
    Tainted(Taint),
}

impl Taint {
    /// Whether it is a function that was looked at, and not what uses one.
    pub(super) fn is_of_a_function(&self) -> bool {
        self.node.is_function()
    }
}

/// Why something needs the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taint {
    /// [`Access::Primary`] or [`Access::Write`].
    pub(super) access: Access,
    /// Why.
    pub(super) reason: Reason,
    node: Node,
}

impl Taint {
    const fn of_built_in(access: Access) -> Look {
        Look::Tainted(Taint {
            access,
            reason: match access {
                Access::Primary => Reason::Catalog,
                _ => Reason::Function,
            },
            node: Node::built_in(),
        })
    }
}

/// What the lists of built-in functions say of a name.
fn built_in(schema: &str, name: &str) -> Option<Look> {
    if !matches!(schema, "" | "pg_catalog") {
        None
    } else if function::STANDBY.binary_search(&name).is_ok() {
        Some(Look::Good)
    } else if function::PRIMARY.binary_search(&name).is_ok() {
        Some(Taint::of_built_in(Access::Primary))
    } else {
        None
    }
}

#[derive(Debug, Default)]
struct Names {
    graph: Graph,
    functions: Placed,
    /// Names of built-in functions that are volatile, or that a user's function has, too.
    built_in: HashSet<Box<str>>,
    /// Functions that `table.name` may call.
    attributes: Placed,
    types: Placed,
    relations: Placed,
    operators: HashMap<Box<str>, Vec<Node>>,
    built_in_operators: HashSet<Box<str>>,
    /// What every statement may run without naming it.
    everything: Option<Taint>,
    /// What any cast may run.
    casts: Option<Taint>,
    /// What users' functions may leave in their session.
    leaves: Pins,
    /// A user's operator is tainted, and bears the name of a built-in one that has no node in the parser's tree.
    operators_tainted: bool,
    /// Procedures that only read, as an administrator says.
    procedures: Vec<String>,
    /// System catalogs may be read on standbys.
    catalogs: bool,
}

/// Objects of one kind by name, with their schemas.
type Placed = HashMap<Box<str>, Vec<(Box<str>, Node)>>;

/// Epochs of all databases count together: a verdict that one catalog gave is never taken for another's.
static NEXT_EPOCH: AtomicU64 = AtomicU64::new(2);

impl Catalog {
    /// Nothing is known.
    pub const fn unknown() -> Catalog {
        Catalog {
            database: 0,
            epoch: 0,
            contents: 0,
            known: Known::Nothing(None),
        }
    }

    /// A database's own.
    ///
    /// # Errors
    /// [`Malformed`]
    pub fn build<R: AsRef<Row>>(rows: &[R], trust: &Trust) -> Result<Catalog, Malformed> {
        let mut names = Names {
            procedures: trust.procedures.clone(),
            catalogs: trust.catalogs,
            ..Names::default()
        };
        let mut contents = 0u64;
        // The rows have no order of their own.
        let hasher = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default();
        for row in rows {
            contents = contents.wrapping_add(hasher.hash_one(row.as_ref()));
            names.add(row.as_ref(), trust).ok_or(Malformed)?;
        }
        names.settle();
        Ok(Catalog {
            database: 0,
            epoch: NEXT_EPOCH.fetch_add(1, Ordering::Relaxed),
            contents: hasher.hash_one((contents, trust)),
            known: Known::Names(Box::new(names)),
        })
    }

    /// The same for the database of this number.
    #[must_use]
    pub fn of(self, database: u64) -> Catalog {
        Catalog { database, ..self }
    }

    /// The number of its database, which it has whatever the catalog becomes.
    pub(super) fn database(&self) -> u64 {
        self.database
    }

    /// Its number, which no other catalog of the process has. 0 stands for all that are unknown.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether it has been loaded.
    pub fn is_known(&self) -> bool {
        !matches!(self.known, Known::Nothing(_))
    }

    /// The same, and what its functions left behind by this catalog they may still leave.
    #[must_use]
    pub fn behind(mut self, before: &Catalog) -> Catalog {
        if let Known::Nothing(leaves) = &mut self.known {
            *leaves = Some(before.leaves());
        }
        self
    }

    /// The same once it has turned out that it cannot be loaded; `None` if something else is known.
    #[must_use]
    pub fn unreadable(&self) -> Option<Catalog> {
        let is_new = matches!(self.known, Known::Nothing(None));
        is_new.then(|| Catalog {
            known: Known::Nothing(Some(Pins::NONE)),
            ..Catalog::unknown().of(self.database)
        })
    }

    /// What a statement that writes, or whose effects are not known, may leave in its session by way of functions and
    /// triggers that nobody has looked into. What is not known may leave anything; but after the first moments, which end
    /// when the catalog has been loaded or could not be, no prepared statements of which there was nothing to be seen:
    /// clients' own would be lost with them every time.
    pub fn leaves(&self) -> Pins {
        match &self.known {
            Known::Nothing(None) => Pins::MAY_END.with(PinReason::Settings),
            Known::Nothing(Some(before)) => Pins::MAY_END
                .with(PinReason::Settings)
                .without(Pins::NONE.with(PinReason::Prepare))
                .and(*before),
            Known::Tables => Pins::NONE,
            Known::Names(names) => names.leaves,
        }
    }

    /// Whether both say the same.
    pub fn says_the_same(&self, other: &Catalog) -> bool {
        self.is_known() == other.is_known() && self.contents == other.contents
    }

    /// Relations that need the primary, and all that there are.
    pub fn relations(&self) -> (usize, usize) {
        let Known::Names(names) = &self.known else {
            return (0, 0);
        };
        let all = names.relations.values().flatten();
        let tainted = all
            .clone()
            .filter(|(_, node)| names.graph.taint(*node).is_some());
        (tainted.count(), all.count())
    }

    /// Whether there is a database behind it, and it is known.
    pub(super) fn has_names(&self) -> bool {
        matches!(self.known, Known::Names(_))
    }

    /// A function by its name; the empty schema stands for all of them.
    pub(super) fn function(&self, schema: &str, name: &str) -> Look {
        let Known::Names(names) = &self.known else {
            return built_in(schema, name).unwrap_or(self.absent());
        };
        // In all schemas, whichever is named: overloads of one name are not told apart.
        match names.worst(&names.functions, "", name) {
            Look::Missing => match built_in(schema, name) {
                Some(_) if names.catalogs && system::is_replicated_function(name) => Look::Good,
                Some(look) => look,
                None if names.has_built_in(schema, name) => Taint::of_built_in(Access::Write),
                // `geometry(x)` is a cast.
                None => match (names.worst(&names.types, schema, name), names.casts) {
                    (Look::Good, Some(taint)) => Look::Tainted(taint),
                    (look, _) => look,
                },
            },
            Look::Good if names.has_built_in(schema, name) => {
                built_in(schema, name).unwrap_or(Taint::of_built_in(Access::Write))
            }
            look => look,
        }
    }

    /// Whether a procedure only reads, as an administrator says. It has to be there.
    pub(super) fn trusts_procedure(&self, schema: &str, name: &str) -> bool {
        self.names()
            .is_some_and(|names| lists(&names.procedures, schema, name))
    }

    /// Whether a relation, which is none of the users', may be read on a standby.
    pub(super) fn is_replicated(&self, schema: &str, name: &str) -> bool {
        self.names().is_some_and(|names| names.catalogs)
            && system::is_replicated_relation(schema, name)
    }

    /// A relation; the empty schema stands for all of them.
    pub(super) fn relation(&self, schema: &str, name: &str) -> Look {
        match &self.known {
            Known::Nothing(_) => Look::NotLoaded,
            Known::Tables => Look::Good,
            Known::Names(names) => names.worst(&names.relations, schema, name),
        }
    }

    /// A type that is not built in.
    pub(super) fn data_type(&self, schema: &str, name: &str) -> Look {
        match &self.known {
            Known::Names(names) => names.worst(&names.types, schema, name),
            _ => self.absent(),
        }
    }

    /// Whether values of a type, given by its OID, may be taken from a client on a standby.
    pub fn takes_parameter(&self, id: u32) -> bool {
        let node = Node::new("t", id);
        match (self.names(), node) {
            (_, Some(node)) if node.is_built_in() => true,
            (Some(names), Some(node)) => names.graph.taint(node).is_none(),
            _ => matches!(self.known, Known::Tables),
        }
    }

    /// The last part of `a.b`, which may be a function of a row.
    pub(super) fn attribute(&self, name: &str) -> Option<Taint> {
        let names = self.names()?;
        let worst = |placed| match names.worst(placed, "", name) {
            Look::Tainted(taint) => Some(taint),
            _ => None,
        };
        // The row is cast to a domain over its type.
        worst(&names.attributes).or_else(|| worst(&names.types))
    }

    /// An operator by its name.
    pub(super) fn operator(&self, name: &str) -> Look {
        let Some(names) = self.names() else {
            return match self.known {
                Known::Tables if lexer::is_built_in_operator(name) => Look::Good,
                _ => self.absent(),
            };
        };
        let own = names.operators.get(name).map(Vec::as_slice);
        let taint = own.and_then(|nodes| names.graph.worst(nodes.iter().copied()));
        match (taint, own) {
            (Some(taint), _) => Look::Tainted(taint),
            (None, Some(_)) => Look::Good,
            (None, None) if names.built_in_operators.contains(name) => Look::Good,
            (None, None) => Look::Missing,
        }
    }

    /// Whether operators that the parser knows by themselves need to be looked up by name.
    pub(super) fn has_tainted_operators(&self) -> bool {
        self.names().is_some_and(|names| names.operators_tainted)
    }

    /// What every statement may run, whatever it names.
    pub(super) fn everything(&self) -> Option<Taint> {
        self.names()?.everything
    }

    /// What a cast may run, whatever its type.
    pub(super) fn casts(&self) -> Option<Taint> {
        self.names()?.casts
    }

    /// From a tainted object to what taints it, each by its kind and name.
    pub(super) fn chain(&self, taint: &Taint) -> Vec<String> {
        self.names()
            .map(|names| names.graph.chain(taint.node))
            .unwrap_or_default()
    }

    fn names(&self) -> Option<&Names> {
        match &self.known {
            Known::Names(names) => Some(names),
            _ => None,
        }
    }

    fn absent(&self) -> Look {
        match self.known {
            Known::Nothing(_) => Look::NotLoaded,
            _ => Look::Missing,
        }
    }
}

/// Functions of extensions, by how their names begin, that run SQL text whatever they are declared as.
const RUN_TEXT: [&str; 3] = ["crosstab", "connectby", "xpath_table"];

/// Operators that a statement may use without naming them, or that the parser's tree has no operator for: IN, BETWEEN, LIKE,
/// GROUP BY, UNION, JOIN USING and their like.
const IMPLICIT: [&str; 14] = [
    "=", "<>", "<", "<=", ">", ">=", "~~", "!~~", "~~*", "!~~*", "~", "!~", "~*", "!~*",
];

impl Names {
    fn add(&mut self, row: &Row, trust: &Trust) -> Option<()> {
        let [kind, detail, id, name, schema] = row else {
            return None;
        };
        let (kind, detail, id) = (kind.as_deref()?, detail.as_deref()?, id.as_deref()?);
        let name = name.as_deref()?;
        if kind == "e" {
            let (owner, target) = detail.split_at_checked(1)?;
            let owner = Node::new(owner, id.parse().ok()?)?;
            self.graph
                .edge(owner, Node::new(target, name.parse().ok()?)?);
            return Some(());
        }
        let id: u32 = id.parse().ok()?;
        let schema = schema.as_deref().unwrap_or_default();
        match kind {
            "f" => self.add_function(id, detail, schema, name, trust)?,
            "F" => drop(self.built_in.insert(name.into())),
            "r" => {
                let node = Node::new("r", id)?;
                place(&mut self.relations, schema, name, node);
                self.graph.relation(node, detail, schema, name)?;
            }
            "t" => {
                let node = Node::new("t", id)?;
                place(&mut self.types, schema, name, node);
                self.graph.name(node, "type", schema, name);
            }
            "o" => {
                let node = Node::new("o", id)?;
                self.operators.entry(name.into()).or_default().push(node);
                self.graph.name(node, "operator", schema, name);
            }
            "L" => {
                let reason = PinReason::ALL
                    .iter()
                    .find(|known| known.as_str() == detail)?;
                self.leaves = self.leaves.with(*reason);
            }
            "O" => drop(self.built_in_operators.insert(name.into())),
            "l" => {
                let node = Node::new("r", id)?;
                let (access, reason) = (Access::Write, Reason::Locking);
                self.graph.seed(node, access, reason, "locks rows");
            }
            _ => return None,
        }
        Some(())
    }

    fn add_function(
        &mut self,
        id: u32,
        detail: &str,
        schema: &str,
        name: &str,
        trust: &Trust,
    ) -> Option<()> {
        let node = Node::new("f", id)?;
        let [volatility, _, kind, row] = *detail.as_bytes() else {
            return None;
        };
        self.graph.name(node, "function", schema, name);
        if node.is_built_in() {
            // In a policy or a view it tells a setting that the session has on standbys, too, if it is followed; what is
            // not followed keeps its connection.
            if name == "current_setting" {
                return Some(());
            }
            if function::PRIMARY.binary_search(&name).is_ok() {
                self.graph.seed(node, Access::Primary, Reason::Catalog, "");
            } else if function::STANDBY.binary_search(&name).is_err() {
                self.graph.seed(node, Access::Write, Reason::Function, "");
            }
            return Some(());
        }
        let trusted = lists(&trust.functions, schema, name);
        let why = match (volatility, kind) {
            (_, b'p') => Some("a procedure"),
            // These run statements on other servers, whatever they are declared as.
            _ if name.starts_with("dblink") => Some("runs statements elsewhere"),
            // tablefunc and xml2 run the text that they are given.
            _ if RUN_TEXT.iter().any(|family| name.starts_with(family)) => Some("runs statements"),
            _ if trusted => None,
            (b'i' | b's', _) if trust.declared => None,
            (b'i' | b's', _) => Some("not trusted"),
            _ => Some("volatile"),
        };
        if let Some(why) = why {
            self.graph.seed(node, Access::Write, Reason::Function, why);
        }
        place(&mut self.functions, schema, name, node);
        if row == b'a' {
            place(&mut self.attributes, schema, name, node);
        }
        Some(())
    }

    /// Whether a built-in function may be meant, which is on no list.
    fn has_built_in(&self, schema: &str, name: &str) -> bool {
        matches!(schema, "" | "pg_catalog") && self.built_in.contains(name)
    }

    /// Everything has been added.
    fn settle(&mut self) {
        self.graph.spread();
        let graph = &self.graph;
        let tainted = |nodes: &Vec<Node>| graph.worst(nodes.iter().copied());
        let implicit = IMPLICIT.iter().filter_map(|name| self.operators.get(*name));
        self.everything = graph
            .taint(Node::EVERYTHING)
            .or_else(|| implicit.filter_map(tainted).next());
        let shadows = self.types.iter().filter_map(|(name, nodes)| {
            let nodes = nodes.iter().map(|(_, node)| *node);
            graph
                .worst(nodes)
                .filter(|_| super::types::is_built_in(name))
        });
        self.casts = graph
            .taint(Node::CASTS)
            .or_else(|| shadows.into_iter().next());
        self.operators_tainted = self
            .operators
            .values()
            .any(|nodes| tainted(nodes).is_some());
        self.attributes
            .retain(|_, nodes| graph.worst(nodes.iter().map(|(_, node)| *node)).is_some());
        self.graph.forget_the_good();
    }

    fn worst(&self, placed: &Placed, schema: &str, name: &str) -> Look {
        let in_schema = |of: &str| schema.is_empty() || schema == of;
        let Some(all) = placed.get(name) else {
            return Look::Missing;
        };
        let mut found = all
            .iter()
            .filter(|(schema, _)| in_schema(schema))
            .peekable();
        if found.peek().is_none() {
            return Look::Missing;
        }
        match self.graph.worst(found.map(|(_, node)| *node)) {
            Some(taint) => Look::Tainted(taint),
            None => Look::Good,
        }
    }
}

fn place(placed: &mut Placed, schema: &str, name: &str, node: Node) {
    let nodes = placed.entry(name.into()).or_default();
    nodes.push((schema.into(), node));
}
