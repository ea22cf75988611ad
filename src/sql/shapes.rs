//! Statements by their shape, counted: texts that differ in literals, comments and white space only have one shape.
//!
//! A shape is told by its normalised text, which the lexer writes anyway. It gets a slot in a table of fixed size, and the
//! slot's number travels inside of the statement's [`Class`]: through the cache of verdicts, through prepared statements,
//! to whoever carries the statement out. So counting is an index into an array and some relaxed additions. When all slots
//! are taken, the shapes that were called least since that happened last give theirs up, and what they had is added to
//! [`ShapeId::OTHERS`]. A number that outlives its shape counts there, too.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache;

use super::class::{Access, Class, Reason};
use super::lexer::{Lexed, NUMBER, STRING};

/// The number of a shape, as long as it has a slot: the slot plus one in the lower half, and which of the slot's tenants it
/// is in the upper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShapeId(u32);

impl ShapeId {
    /// Of a statement that is not counted.
    pub const NONE: ShapeId = ShapeId(0);
    /// Of all that are not told apart: those that could not be lexed, and those that have lost their slot.
    pub const OTHERS: ShapeId = ShapeId(1);

    fn new(slot: usize, tenant: u16) -> ShapeId {
        ShapeId(u32::from(tenant) << 16 | (slot as u32 + 1))
    }

    fn slot(self) -> usize {
        (self.0 & 0xffff) as usize - 1
    }

    fn tenant(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// What a statement has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// A standby ran it.
    pub standby: bool,
    /// From its being sent to the end of its answer.
    pub nanoseconds: u64,
    /// What its client was sent.
    pub bytes: u64,
}

/// The counters of one shape. A cache line of its own, so that threads that count different shapes are in nobody's way.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot {
    tenant: AtomicU16,
    /// Access and reason of its tenant, as judged last: the catalog may change them.
    class: AtomicU16,
    primary: AtomicU64,
    standby: AtomicU64,
    nanoseconds: AtomicU64,
    bytes: AtomicU64,
    bounces: AtomicU64,
}

/// All shapes.
#[derive(Debug)]
pub struct Shapes {
    slots: Box<[Slot]>,
    /// Fingerprint to number.
    known: Cache<u64, ShapeId>,
    hasher: foldhash::fast::RandomState,
    register: Mutex<Register>,
}

/// Who has which slot, by fingerprint. Looked at when a shape is new, and when somebody asks.
#[derive(Debug, Default)]
struct Register {
    tenants: HashMap<u64, Tenant>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Tenant {
    slot: usize,
    text: Box<str>,
    /// Its calls when the table was full last.
    calls: u64,
}

/// One shape as it is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeReport {
    /// A number that is the same for all statements of the shape, in this process.
    pub fingerprint: u64,
    /// The statement without its literals, cut to [`MAX_SHOWN`] bytes. Empty for those that are not told apart.
    pub text: Box<str>,
    /// Where it may run; nothing is known of those that are not told apart.
    pub class: Option<(Access, Reason)>,
    /// Times that it was sent to the primary.
    pub primary: u64,
    /// Times that it was sent to a standby.
    pub standby: u64,
    /// Time from its being sent to the end of its answer, in all.
    pub nanoseconds: u64,
    /// Bytes that clients were sent in answer.
    pub bytes: u64,
    /// Times that a standby refused it.
    pub bounces: u64,
}

impl ShapeReport {
    /// Times that it was sent.
    pub fn calls(&self) -> u64 {
        self.primary + self.standby
    }
}

/// Most shapes that can be told apart: a slot has 16 bits.
pub const MAX_SHAPES: usize = 60_000;

/// Bytes of a shape's text that are kept to be shown.
pub const MAX_SHOWN: usize = 1024;

/// Part of the slots that are vacated when none is free.
const VACATED: usize = 20;

impl Shapes {
    /// Room for this many shapes, at most [`MAX_SHAPES`]; with none, nothing is counted.
    pub fn new(most: usize) -> Shapes {
        let most = most.min(MAX_SHAPES);
        // And one for the others.
        let slots = if most == 0 { 0 } else { most + 1 };
        Shapes {
            slots: (0..slots).map(|_| Slot::default()).collect(),
            // A fingerprint leaves it with its slot. Should it leave before, it is in the register.
            known: Cache::new(2 * most.max(8)),
            hasher: foldhash::fast::RandomState::default(),
            register: Mutex::new(Register {
                tenants: HashMap::new(),
                free: (1..slots).rev().collect(),
            }),
        }
    }

    /// Whether anything is counted at all.
    #[inline]
    pub fn counts(&self) -> bool {
        !self.slots.is_empty()
    }

    /// The number of the statement with this normalised text. Without effect on anything that is not a statement of the
    /// application's: transaction control, settings.
    #[inline]
    pub(super) fn of(&self, key: &[u8], class: Class) -> ShapeId {
        if !self.counts() || !is_counted(class) {
            return ShapeId::NONE;
        }
        if class.shape != ShapeId::NONE && self.has_slot(class.shape) {
            return class.shape;
        }
        let fingerprint = self.hasher.hash_one(key);
        let id = match self.known.get(&fingerprint) {
            Some(known) => known,
            None => self.enter(fingerprint, key),
        };
        if let Some(slot) = self.slots.get(id.slot()) {
            slot.note_class(class);
        }
        id
    }

    /// The number of a text that has no normalised one.
    pub(super) fn of_unlexed(&self) -> ShapeId {
        if self.counts() {
            ShapeId::OTHERS
        } else {
            ShapeId::NONE
        }
    }

    /// Whether a statement is still counted as what its class says.
    #[inline]
    pub(super) fn has(&self, class: Class) -> bool {
        !self.counts()
            || !is_counted(class)
            || (class.shape != ShapeId::NONE && self.has_slot(class.shape))
    }

    fn has_slot(&self, id: ShapeId) -> bool {
        let slot = self.slots.get(id.slot());
        slot.is_some_and(|slot| slot.tenant.load(Ordering::Relaxed) == id.tenant())
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn enter(&self, fingerprint: u64, key: &[u8]) -> ShapeId {
        let mut register = self.register();
        if let Some(known) = register.tenants.get(&fingerprint) {
            let id = self.id(known.slot);
            self.known.insert(fingerprint, id);
            return id;
        }
        if register.free.is_empty() {
            self.vacate(&mut register);
        }
        let Some(slot) = register.free.pop() else {
            return ShapeId::OTHERS;
        };
        let tenant = Tenant {
            slot,
            text: shown(key),
            calls: 0,
        };
        register.tenants.insert(fingerprint, tenant);
        let id = self.id(slot);
        self.known.insert(fingerprint, id);
        id
    }

    /// The number of a slot's present tenant.
    fn id(&self, slot: usize) -> ShapeId {
        ShapeId::new(slot, self.slots[slot].tenant.load(Ordering::Relaxed))
    }

    /// Takes their slots from the shapes that were called least of late.
    fn vacate(&self, register: &mut Register) {
        let mut recent: Vec<(u64, usize, u64)> = Vec::with_capacity(register.tenants.len());
        for (fingerprint, tenant) in &mut register.tenants {
            let calls = self.slots[tenant.slot].calls();
            recent.push((
                calls.saturating_sub(tenant.calls),
                tenant.slot,
                *fingerprint,
            ));
            tenant.calls = calls;
        }
        recent.sort_unstable();
        let leave = recent.len().div_ceil(VACATED);
        for (_, slot, fingerprint) in recent.into_iter().take(leave) {
            register.tenants.remove(&fingerprint);
            self.known.remove(&fingerprint);
            self.slots[slot].move_to(&self.slots[ShapeId::OTHERS.slot()]);
            register.free.push(slot);
        }
    }

    /// Counts a statement that has been answered.
    #[inline]
    pub fn count(&self, id: ShapeId, call: Call) {
        let Some(slot) = self.slot(id) else { return };
        let calls = if call.standby {
            &slot.standby
        } else {
            &slot.primary
        };
        calls.fetch_add(1, Ordering::Relaxed);
        slot.nanoseconds
            .fetch_add(call.nanoseconds, Ordering::Relaxed);
        slot.bytes.fetch_add(call.bytes, Ordering::Relaxed);
    }

    /// Counts a refusal by a standby.
    pub fn count_bounce(&self, id: ShapeId) {
        if let Some(slot) = self.slot(id) {
            slot.bounces.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Where a number counts.
    #[inline]
    fn slot(&self, id: ShapeId) -> Option<&Slot> {
        if id == ShapeId::NONE {
            return None;
        }
        let slot = self.slots.get(id.slot())?;
        if slot.tenant.load(Ordering::Relaxed) == id.tenant() {
            return Some(slot);
        }
        self.slots.get(ShapeId::OTHERS.slot())
    }

    /// The shapes that have taken most time, `most` of them, those first that have taken more.
    pub fn top(&self, most: usize) -> Vec<ShapeReport> {
        let register = self.register();
        let told_apart = register.tenants.iter().map(|(fingerprint, tenant)| {
            let slot = &self.slots[tenant.slot];
            ShapeReport {
                fingerprint: *fingerprint,
                text: tenant.text.clone(),
                class: slot.class(),
                ..slot.report()
            }
        });
        let others = self.slots.first().map(Slot::report);
        let mut all: Vec<ShapeReport> = told_apart
            .chain(others)
            .filter(|shape| shape.calls() > 0)
            .collect();
        drop(register);
        all.sort_by(|a, b| {
            let weight = |shape: &ShapeReport| (shape.nanoseconds, shape.calls());
            weight(b).cmp(&weight(a)).then_with(|| a.text.cmp(&b.text))
        });
        all.truncate(most);
        all
    }
}

impl Slot {
    fn calls(&self) -> u64 {
        self.primary.load(Ordering::Relaxed) + self.standby.load(Ordering::Relaxed)
    }

    #[inline]
    fn note_class(&self, class: Class) {
        let noted = (class.access.index() << 8 | class.reason.index()) as u16;
        if self.class.load(Ordering::Relaxed) != noted {
            self.class.store(noted, Ordering::Relaxed);
        }
    }

    fn class(&self) -> Option<(Access, Reason)> {
        let noted = usize::from(self.class.load(Ordering::Relaxed));
        let (access, reason) = (noted >> 8, noted & 0xff);
        Some((*Access::ALL.get(access)?, *Reason::ALL.get(reason)?))
    }

    fn report(&self) -> ShapeReport {
        ShapeReport {
            fingerprint: 0,
            text: Box::default(),
            class: None,
            primary: self.primary.load(Ordering::Relaxed),
            standby: self.standby.load(Ordering::Relaxed),
            nanoseconds: self.nanoseconds.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            bounces: self.bounces.load(Ordering::Relaxed),
        }
    }

    /// The tenant leaves. What is counted for it at this very moment may be lost, or be the next one's: these are figures
    /// for people.
    fn move_to(&self, others: &Slot) {
        self.tenant.fetch_add(1, Ordering::Relaxed);
        for (from, to) in [
            (&self.primary, &others.primary),
            (&self.standby, &others.standby),
            (&self.nanoseconds, &others.nanoseconds),
            (&self.bytes, &others.bytes),
            (&self.bounces, &others.bounces),
        ] {
            to.fetch_add(from.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Statements about transactions and sessions say nothing of an application's queries.
fn is_counted(class: Class) -> bool {
    !matches!(class.access, Access::Neutral | Access::Empty) && class.reason != Reason::Transaction
}

/// A text without its literals, comments and spare white space, cut to [`MAX_SHOWN`] bytes; empty if it cannot be lexed.
pub fn without_literals(text: &[u8]) -> String {
    let mut lexed = Lexed::default();
    match lexed.lex(text) {
        Ok(()) => shown(&lexed.key).into(),
        Err(_) => String::new(),
    }
}

/// A normalised text as people read it.
fn shown(key: &[u8]) -> Box<str> {
    let cut = key.get(..MAX_SHOWN);
    let text: Vec<u8> = cut
        .unwrap_or(key)
        .iter()
        .map(|byte| match *byte {
            NUMBER | STRING => b'?',
            byte => byte,
        })
        .collect();
    // A character that was cut in two, or a text in another encoding.
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end_matches('\u{fffd}');
    match cut {
        Some(_) if key.len() > MAX_SHOWN => format!("{text}…").into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::catalog::TABLES;
    use crate::sql::{Classifier, Lexing};

    const READ: Class = Class::plain(Access::Read, Reason::Read);
    const CALL: Call = Call {
        standby: true,
        nanoseconds: 10,
        bytes: 3,
    };

    fn calls(shapes: &Shapes, text: &str) -> Option<u64> {
        let all = shapes.top(usize::MAX);
        let found = all.iter().find(|shape| *shape.text == *text);
        found.map(ShapeReport::calls)
    }

    #[test]
    fn statements_of_one_shape_count_together() {
        let classifier = Classifier::new(1 << 20).with_shapes(10);
        let shapes = classifier.shapes();
        let shape = |text: &str| {
            classifier
                .classify(text.as_bytes(), Lexing::default(), &TABLES)
                .shape
        };
        for text in [
            "select a from t where b = 1",
            "SELECT a\nFROM t /* c */ WHERE b=22",
            "select a from t where b = 333 -- d",
        ] {
            shapes.count(shape(text), CALL);
        }
        let write = Call {
            standby: false,
            ..CALL
        };
        shapes.count(shape("insert into t values (1, 'x')"), write);
        shapes.count(shape("insert into t values (2, 'yy')"), write);
        // As when the catalog has changed: what is judged anew is of the same shape.
        let key = b"select a from t where b = \x01";
        shapes.of(key, Class::plain(Access::Write, Reason::Function));
        let judged = |text: &str| shapes.top(9).into_iter().find(|shape| *shape.text == *text);
        let judged = judged("select a from t where b = ?").and_then(|shape| shape.class);
        assert_eq!(judged, Some((Access::Write, Reason::Function)));
        shapes.of(key, READ);
        for text in ["begin", "commit", "set work_mem = 1", "", "-- c"] {
            assert_eq!(shape(text), ShapeId::NONE, "{text}");
        }
        assert_eq!(shape("select 'x"), ShapeId::OTHERS);
        let top = shapes.top(10);
        let told: Vec<_> = top
            .iter()
            .map(|shape| (&*shape.text, shape.primary, shape.standby, shape.bytes))
            .collect();
        assert_eq!(
            told,
            [
                ("insert into t values (?, ?)", 2, 0, 6),
                ("select a from t where b = ?", 0, 2, 6),
                ("select a from t where b=?", 0, 1, 3),
            ]
        );
        assert_eq!(top[0].class, Some((Access::Write, Reason::DataModifying)));
        assert_eq!(top[1].class, Some((Access::Read, Reason::Read)));
        assert_eq!(top[0].nanoseconds, 20);
    }

    #[test]
    fn nothing_is_counted_when_it_is_off() {
        let classifier = Classifier::new(1 << 20);
        let class = classifier.classify(b"select 1", Lexing::default(), &TABLES);
        assert_eq!(class.shape, ShapeId::NONE);
        classifier.shapes().count(class.shape, CALL);
        assert_eq!(classifier.shapes().top(9), []);
    }

    #[test]
    fn who_is_called_least_gives_way() {
        let shapes = Shapes::new(20);
        let enter = |n: usize| shapes.of(format!("select {n}").as_bytes(), READ);
        let ids: Vec<ShapeId> = (0..20).map(enter).collect();
        for (n, id) in ids.iter().enumerate().rev() {
            for _ in 0..=n {
                shapes.count(*id, CALL);
            }
        }
        // No room: the first one goes, which was called once.
        let late = enter(20);
        shapes.count(late, CALL);
        assert_eq!(calls(&shapes, "select 0"), None);
        assert_eq!(calls(&shapes, "select 20"), Some(1));
        assert_eq!(calls(&shapes, ""), Some(1), "what it had is not lost");
        // Whoever knows it by its number still counts somewhere.
        shapes.count(ids[0], CALL);
        shapes.count_bounce(ids[0]);
        assert_eq!(calls(&shapes, ""), Some(2));
        assert_eq!(
            calls(&shapes, "select 20"),
            Some(1),
            "not for the new tenant"
        );
        // Of late the last one was called and the others were not: it stays, whatever they had.
        for n in 21..39 {
            shapes.count(late, CALL);
            enter(n);
        }
        assert_eq!(calls(&shapes, "select 20"), Some(19));
        let all: u64 = shapes.top(usize::MAX).iter().map(ShapeReport::calls).sum();
        assert_eq!(all, 210 + 1 + 1 + 18);
        // It comes back as somebody new, also for those who knew it.
        let stale = Class {
            shape: ids[0],
            ..READ
        };
        let again = shapes.of(b"select 0", stale);
        assert_ne!(again, ids[0]);
        shapes.count(again, CALL);
        assert_eq!(calls(&shapes, "select 0"), Some(1));
    }

    #[test]
    fn long_texts_are_cut() {
        let text = format!("select {}", "ä".repeat(MAX_SHOWN));
        let cut = shown(text.as_bytes());
        assert!(cut.len() <= MAX_SHOWN + 3 && cut.ends_with("ä…"), "{cut}");
        assert_eq!(&*shown(b"select \x01, \x02"), "select ?, ?");
    }
}
