//! Prepared statements by their content, shared by all clients.
//!
//! Two clients that prepare the same text with the same parameter types share one [`Statement`], and so does every
//! server connection that has it: its name there is made of the statement's number. The map is bounded in bytes; a
//! statement that leaves it lives on for as long as a client uses it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use crate::sql::{Access, Class, Reason, TxEffect};
use crate::wire::frame::split_cstr;

/// Number of a statement, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(u64);

impl StatementId {
    /// No statement has it.
    pub const NONE: StatementId = StatementId(0);
}

/// A prepared statement as clients sent it.
#[derive(Debug)]
pub struct Statement {
    /// Its number.
    pub id: StatementId,
    /// What it does. Where it may run was true of the catalog that it was first seen under: see
    /// [`Statement::class_under`].
    pub class: Class,
    /// It was prepared by SQL's PREPARE, which is its text: servers have it by the client's own name.
    pub by_sql: bool,
    content: Box<[u8]>,
    /// How much of that is its text.
    text: usize,
    /// Before which change of the catalog it was prepared.
    epoch: u64,
    /// Other sessions may have it, too.
    shared: bool,
    accepted: AtomicBool,
    retired: AtomicBool,
    refused: AtomicBool,
    /// The access of its class, whether it is uncertain, and the reason, and the epoch of the catalog that they rest on.
    judged: AtomicU64,
}

/// Beside an access in [`Statement::judged`].
const UNCERTAIN: u8 = 0x80;

/// No catalog's epoch in [`Statement::judged`].
const UNJUDGED: u64 = u64::MAX;

impl Statement {
    /// What it does by a catalog of this epoch. `judge` is asked when it was last looked at under another.
    pub fn class_under(&self, epoch: u64, judge: impl FnOnce() -> Class) -> Class {
        if self.refused.load(Ordering::Relaxed) {
            return self.class.refused();
        }
        let judged = self.judged.load(Ordering::Relaxed);
        let [.., access, reason] = judged.to_be_bytes();
        if judged >> 16 == epoch
            && let Some(known) = Access::ALL.get(usize::from(access & !UNCERTAIN))
            && let Some(reason) = Reason::ALL.get(usize::from(reason))
        {
            return Class {
                access: *known,
                reason: *reason,
                uncertain: access & UNCERTAIN != 0,
                ..self.class
            };
        }
        let class = judge();
        let uncertain = if class.uncertain { UNCERTAIN.into() } else { 0 };
        let access = class.access.index() as u64 | uncertain;
        let reason = class.reason.index() as u64;
        self.judged
            .store(epoch << 16 | access << 8 | reason, Ordering::Relaxed);
        class
    }

    /// A standby has refused it as a write: it runs on the primary from now on, whoever has prepared it.
    pub fn learn(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// A server has accepted its Parse.
    pub fn accept(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    /// Whether its Parse would be accepted by any server, outside of a failed transaction: one has accepted it, and it
    /// is transaction control, which is not looked up in any catalog.
    pub fn is_always_accepted(&self) -> bool {
        self.class.tx != TxEffect::None && self.accepted.load(Ordering::Relaxed)
    }

    /// What it returns has changed under it, as by ALTER TABLE: whoever prepares the same text again gets another
    /// statement, which is planned anew on every server connection. Those who have it keep it, and go on to be refused:
    /// they read results as they were described.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether another has to take its place.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// The content of its Parse message: text, number of parameter types, their OIDs.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// OIDs of the parameter types that the client has given; 0 leaves one to the server.
    pub fn parameter_types(&self) -> impl Iterator<Item = u32> {
        let rest = self.content.get(self.text + 1..).unwrap_or_default();
        let (types, _) = rest.get(2..).unwrap_or_default().as_chunks::<4>();
        types.iter().map(|id| u32::from_be_bytes(*id))
    }

    /// Its text.
    pub fn text(&self) -> &[u8] {
        &self.content[..self.text]
    }
}

/// Appends the name that the statement has on servers: `pgw_` and its number. By hand, as each Bind takes one, and the
/// formatting of the standard library is dear.
pub fn put_name(id: StatementId, out: &mut Vec<u8>) {
    let mut digits = [0; u64::MAX.ilog10() as usize + 1];
    let mut at = digits.len();
    let mut rest = id.0;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(b"pgw_");
    out.extend_from_slice(&digits[at..]);
}

/// Statements longer than this are not shared: they would push hundreds of others out.
const MAX_SHARED: usize = 64 * 1024;

/// The shared map.
#[derive(Debug)]
pub struct Statements {
    cache: Cache<Content, Arc<Statement>, ByBytes, foldhash::fast::RandomState>,
    next: AtomicU64,
    epoch: AtomicU64,
}

impl Statements {
    /// A map of at most `bytes` bytes of statement content.
    pub fn new(bytes: u64) -> Statements {
        let items = usize::try_from(bytes / 256).unwrap_or(usize::MAX).max(16);
        Statements {
            cache: Cache::with(
                items,
                bytes,
                ByBytes,
                foldhash::fast::RandomState::default(),
                Default::default(),
            ),
            next: AtomicU64::new(1),
            epoch: AtomicU64::new(0),
        }
    }

    /// The statement with this content; `classify` is asked only for content that is not in the map, or was prepared before
    /// the catalog changed: whoever prepares now must not get an old plan.
    pub fn intern(&self, content: &[u8], classify: impl FnOnce() -> Class) -> Arc<Statement> {
        let is_current = |known: &Arc<Statement>| self.is_current(known);
        if let Some(statement) = self.cache.get(content).filter(is_current) {
            return statement;
        }
        let statement = Arc::new(Statement {
            shared: true,
            ..self.make(content, classify(), false)
        });
        if content.len() <= MAX_SHARED {
            self.cache
                .insert(Content(statement.clone()), statement.clone());
        }
        statement
    }

    /// Whether a statement may be what [`Statements::intern`] gives for its content.
    pub fn is_current(&self, statement: &Statement) -> bool {
        statement.shared
            && !statement.is_retired()
            && statement.epoch == self.epoch.load(Ordering::Relaxed)
    }

    /// A statement that no other session may share.
    pub fn unshared(&self, content: &[u8], class: Class) -> Arc<Statement> {
        Arc::new(self.make(content, class, false))
    }

    /// What this PREPARE prepares.
    pub fn by_sql(&self, prepare: &[u8], class: Class) -> Arc<Statement> {
        Arc::new(self.make(&[prepare, b"\0\0\0"].concat(), class, true))
    }

    fn make(&self, content: &[u8], class: Class, by_sql: bool) -> Statement {
        Statement {
            id: StatementId(self.next.fetch_add(1, Ordering::Relaxed)),
            class,
            by_sql,
            content: content.into(),
            text: split_cstr(content).map_or(0, |(text, _)| text.len()),
            epoch: self.epoch.load(Ordering::Relaxed),
            shared: false,
            accepted: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            judged: AtomicU64::new(UNJUDGED),
        }
    }

    /// Tables, views or functions have changed: what is prepared from now on is prepared anew.
    pub fn catalog_changed(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Statements in the map.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether the map is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A key that is the statement's content without a second copy of it.
#[derive(Clone, Debug)]
struct Content(Arc<Statement>);

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.content.hash(state);
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.0.content == other.0.content
    }
}

impl Eq for Content {}

impl Equivalent<Content> for [u8] {
    fn equivalent(&self, key: &Content) -> bool {
        *self == *key.0.content
    }
}

/// Weighs an entry by its content and about what the entry itself takes.
#[derive(Clone, Debug)]
struct ByBytes;

const ENTRY: u64 = 160;

impl Weighter<Content, Arc<Statement>> for ByBytes {
    fn weight(&self, _: &Content, statement: &Arc<Statement>) -> u64 {
        statement.content.len() as u64 + ENTRY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Classifier;

    fn class(text: &[u8]) -> Class {
        Classifier::new(1 << 20).classify(text, Default::default(), &crate::sql::catalog::TABLES)
    }

    #[test]
    fn names_on_servers() {
        for number in [0, 1, 9, 10, 4711, u64::MAX] {
            let mut out = b"before".to_vec();
            put_name(StatementId(number), &mut out);
            assert_eq!(out, format!("beforepgw_{number}").as_bytes());
        }
    }

    #[test]
    fn same_content_is_the_same_statement() {
        let statements = Statements::new(1 << 20);
        let a = statements.intern(b"select 1\0\0\0", || class(b"select 1"));
        let b = statements.intern(b"select 1\0\0\0", || panic!("the statement is in the map"));
        let c = statements.intern(b"select 1\0\0\x01\0\0\0\x17", || class(b"select 1"));
        assert_eq!(a.id, b.id);
        assert_ne!(a.id, c.id);
        assert_eq!(a.text(), b"select 1");
    }

    #[test]
    fn a_retired_statement_is_replaced() {
        let statements = Statements::new(1 << 20);
        let intern = || statements.intern(b"select 1\0\0\0", || class(b"select 1"));
        let old = intern();
        assert!(statements.is_current(&old));
        old.retire();
        let new = intern();
        assert_ne!(old.id, new.id);
        assert_eq!(intern().id, new.id);
        assert_eq!(statements.len(), 1);
        assert!(!statements.is_current(&old) && statements.is_current(&new));
    }

    #[test]
    fn what_is_prepared_after_a_change_of_the_catalog_is_prepared_anew() {
        let statements = Statements::new(1 << 20);
        let intern = || statements.intern(b"select 1\0\0\0", || class(b"select 1"));
        let old = intern();
        statements.catalog_changed();
        assert!(!statements.is_current(&old));
        let new = intern();
        assert_ne!(old.id, new.id);
        assert_eq!(intern().id, new.id);
        // Nor is one that is a session's own.
        let own = statements.unshared(b"select 1\0\0\0", class(b"select 1"));
        assert!(!statements.is_current(&own));
    }

    #[test]
    fn the_map_is_bounded() {
        let statements = Statements::new(64 * 1024);
        for i in 0..10_000 {
            let content = format!("select {i}\0\0\0");
            statements.intern(content.as_bytes(), || class(b"select 1"));
        }
        assert!(
            statements.len() <= 64 * 1024 / ENTRY as usize,
            "{}",
            statements.len()
        );
        assert!(statements.len() > 10, "{}", statements.len());
    }
}
