//! Which prepared statements a server connection has: bounded, the least recently used one goes first.

use hashbrown::HashMap;

use super::StatementId;

/// The statements of one server connection.
#[derive(Debug, Default)]
pub struct Held {
    used: HashMap<StatementId, u64, foldhash::fast::RandomState>,
    tick: u64,
    max: usize,
}

impl Held {
    /// At most `max` statements; at least one.
    pub fn new(max: usize) -> Held {
        Held {
            max: max.max(1),
            // A moment is never 0.
            tick: 1,
            ..Held::default()
        }
    }

    /// Whether the server has the statement; it counts as used now.
    #[inline]
    pub fn touch(&mut self, id: StatementId) -> bool {
        self.tick += 1;
        match self.used.get_mut(&id) {
            Some(used) => {
                *used = self.tick;
                true
            }
            None => false,
        }
    }

    /// The same for a statement that must have been prepared or used after a moment.
    pub fn touch_after(&mut self, id: StatementId, moment: u64) -> bool {
        self.used.get(&id).is_some_and(|used| *used > moment) && self.touch(id)
    }

    /// Notes a statement that is being prepared. Returns the one that must be closed for it, if the bound is reached.
    pub fn insert(&mut self, id: StatementId) -> Option<StatementId> {
        // The bound is a few hundred and a miss costs a parse on the server: looking at every entry is cheap.
        let evicted = if self.used.len() >= self.max && !self.used.contains_key(&id) {
            self.used
                .iter()
                .min_by_key(|(_, used)| **used)
                .map(|(id, _)| *id)
        } else {
            None
        };
        if let Some(evicted) = evicted {
            self.used.remove(&evicted);
        }
        self.tick += 1;
        self.used.insert(id, self.tick);
        evicted
    }

    /// The server does not have the statement after all. Whether it had.
    pub fn remove(&mut self, id: StatementId) -> bool {
        self.used.remove(&id).is_some()
    }

    /// Whether the server has a statement; it does not count as used.
    pub fn contains(&self, id: StatementId) -> bool {
        self.used.contains_key(&id)
    }

    /// The server has none.
    pub fn clear(&mut self) {
        self.used.clear();
    }

    /// A moment, to be compared with.
    pub fn now(&self) -> u64 {
        self.tick
    }

    /// The server has none but those that were prepared after a moment.
    pub fn clear_before(&mut self, moment: u64) {
        self.used.retain(|_, used| *used > moment);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

/// Prepared statements by the names that clients gave them in SQL. They are those of one session: another's are taken
/// away before it has the connection, and a session has few.
#[derive(Debug, Default)]
pub struct OwnNames(Vec<OwnName>);

#[derive(Debug)]
struct OwnName {
    name: Box<[u8]>,
    id: StatementId,
    /// What takes all names away has been sent since.
    aged: bool,
}

impl OwnNames {
    /// What the server has by this name.
    pub fn get(&self, name: &[u8]) -> Option<StatementId> {
        let found = self.0.iter().find(|own| *own.name == *name);
        found.map(|own| own.id)
    }

    /// The server has a statement by this name.
    pub fn insert(&mut self, name: &[u8], id: StatementId) {
        self.put(name, id, false);
    }

    /// The same for one that stands before what takes all of them away.
    pub fn insert_aged(&mut self, name: &[u8], id: StatementId) {
        self.put(name, id, true);
    }

    fn put(&mut self, name: &[u8], id: StatementId, aged: bool) {
        self.remove(name);
        self.0.push(OwnName {
            name: name.into(),
            id,
            aged,
        });
    }

    /// The server has no statement by this name any more. Whether it had.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let before = self.0.len();
        self.0.retain(|own| *own.name != *name);
        self.0.len() < before
    }

    /// The server has none.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What takes all of them away has been sent: those that come from now on stay.
    pub fn age(&mut self) {
        self.0.iter_mut().for_each(|own| own.aged = true);
    }

    /// It has been done.
    pub fn clear_aged(&mut self) {
        self.0.retain(|own| !own.aged);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out what does not stay, and returns the names.
    pub fn extract(&mut self, mut stays: impl FnMut(&[u8], StatementId) -> bool) -> Vec<Box<[u8]>> {
        let gone = self.0.extract_if(.., |own| !stays(&own.name, own.id));
        gone.map(|own| own.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Statements;

    #[test]
    fn the_least_recently_used_goes() {
        let statements = Statements::new(1 << 20);
        let classifier = crate::sql::Classifier::new(1 << 20);
        let ids: Vec<_> = (0..3)
            .map(|i| {
                let content = format!("select {i}\0\0\0");
                statements
                    .intern(content.as_bytes(), || {
                        classifier.classify(
                            b"select 1",
                            Default::default(),
                            &crate::sql::catalog::TABLES,
                        )
                    })
                    .id
            })
            .collect();
        let mut held = Held::new(2);
        assert_eq!(held.insert(ids[0]), None);
        assert_eq!(held.insert(ids[1]), None);
        assert!(held.touch(ids[0]));
        assert_eq!(held.insert(ids[2]), Some(ids[1]));
        assert!(!held.touch(ids[1]));
        assert_eq!(held.len(), 2);
        assert_eq!(held.insert(ids[2]), None, "it is there already");
        let moment = held.now();
        held.insert(ids[1]);
        assert!(held.touch_after(ids[1], moment) && !held.touch_after(ids[2], moment));
        held.clear_before(moment);
        assert!(held.touch(ids[1]));
        assert_eq!(held.len(), 1);
    }
}
