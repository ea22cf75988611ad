//! The databases that clients may ask for, and the pools made for them, under settings that a reload may change.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use hashbrown::Equivalent;

use super::build::{self, Database};
use super::catalogs::Catalogs;
use crate::client::Authenticator;
use crate::config::{self, Config};
use crate::pool::{Owner, Told};
use crate::relay::{Cluster, PoolSet, SessionTimeouts, Template};
use crate::server::Credentials;

/// What a reload may change.
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) authenticator: Authenticator,
    named: HashMap<String, Database>,
    any: Option<Database>,
    users: HashMap<String, config::User>,
}

impl Settings {
    pub(super) fn new(
        config: Config,
        authenticator: Authenticator,
        databases: Vec<(String, Database)>,
    ) -> Settings {
        let mut named: HashMap<_, _> = databases.into_iter().collect();
        let users = config.users.iter();
        Settings {
            any: named.remove("*"),
            named,
            users: users
                .map(|user| (user.name.clone(), user.clone()))
                .collect(),
            authenticator,
            config,
        }
    }

    /// A database by the name that clients know.
    fn database(&self, name: &str) -> Option<&Database> {
        self.named.get(name).or(self.any.as_ref())
    }

    fn databases(&self) -> impl Iterator<Item = &Database> {
        self.named.values().chain(self.any.as_ref())
    }

    /// How the pools of a database and user are made, and the database's name on its cluster.
    fn template<'s>(&'s self, database: &'s str, user: &str) -> Option<(Template, &'s str)> {
        let known = self.database(database)?;
        let template = build::for_user(known, database, self.users.get(user));
        Some((template, known.dbname.as_deref().unwrap_or(database)))
    }

    /// The bounds on sessions of every database and user.
    fn all_timeouts(&self) -> Vec<SessionTimeouts> {
        let of_databases: Vec<_> = self
            .databases()
            .map(|known| *known.template.timeouts)
            .collect();
        let users = self.users.values();
        let of_users = users.flat_map(|user| {
            let bounds = of_databases.iter();
            bounds.map(move |all| build::timeouts_for(all, user))
        });
        of_databases.iter().copied().chain(of_users).collect()
    }
}

/// The databases that clients may ask for, and the pools made for them so far.
pub(super) struct Databases {
    settings: ArcSwap<Settings>,
    /// How many clients there are.
    all: Arc<AtomicUsize>,
    counts: Mutex<ByName<Counted<String>, Arc<AtomicUsize>>>,
    catalogs: Catalogs,
    pools: Mutex<Pools>,
    /// What the times of all sessions are counted from.
    pub(super) epoch: Instant,
}

/// What is looked up by names that belong to others: each login does. Clients choose the names, so that they must not be
/// able to have them collide.
type ByName<K, V> = hashbrown::HashMap<K, V, RandomState>;

/// Pools by database and user.
#[derive(Default)]
struct Pools {
    sets: ByName<(String, String), Made>,
    /// Those that clients do not get any more, for as long as anybody has them.
    retired: Vec<Arc<PoolSet>>,
}

/// Pools, and what they were made from.
struct Made {
    set: Arc<PoolSet>,
    template: Template,
}

/// Whose clients are counted.
#[derive(PartialEq, Eq, Hash)]
enum Counted<Name> {
    Database(Name),
    User(Name),
}

impl Equivalent<Counted<String>> for Counted<&str> {
    fn equivalent(&self, key: &Counted<String>) -> bool {
        match (self, key) {
            (Counted::Database(name), Counted::Database(key)) => name == key,
            (Counted::User(name), Counted::User(key)) => name == key,
            _ => false,
        }
    }
}

impl Counted<&str> {
    fn to_key(&self) -> Counted<String> {
        match *self {
            Counted::Database(name) => Counted::Database(name.to_owned()),
            Counted::User(name) => Counted::User(name.to_owned()),
        }
    }
}

/// The names of pools, of those who ask for them.
#[derive(Hash)]
struct Names<'a>(&'a str, &'a str);

impl Equivalent<(String, String)> for Names<'_> {
    fn equivalent(&self, (database, user): &(String, String)) -> bool {
        self.0 == database && self.1 == user
    }
}

/// How many more clients there may be than clients are allowed, if those want to talk to the console. Strangers count among
/// them until their login is over, one way or the other.
const CONSOLE_PLACES: usize = 16;

/// Names whose clients are counted, beyond which those without clients are forgotten. Any name may be a database's.
const MANY_COUNTS: usize = 1024;

/// A place in a bounded number of clients, for as long as this lives; by default, one that nobody counts.
#[derive(Debug, Default)]
pub(super) struct Place(Option<Arc<AtomicUsize>>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Takes a place among those who are counted, where there may be so many; `name` is what the bound is called.
fn take(
    count: Arc<AtomicUsize>,
    most: Option<usize>,
    name: &'static str,
) -> Result<Place, &'static str> {
    let taken = count.fetch_add(1, Ordering::Relaxed);
    // Given back if it is one too many.
    let place = Place(Some(count));
    match most.is_some_and(|most| taken >= most) {
        true => Err(name),
        false => Ok(place),
    }
}

impl Databases {
    pub(super) fn new(settings: Settings, catalogs: Catalogs, epoch: Instant) -> Databases {
        Databases {
            settings: ArcSwap::from_pointee(settings),
            all: Arc::default(),
            counts: Mutex::default(),
            catalogs,
            pools: Mutex::default(),
            epoch,
        }
    }

    /// What holds now.
    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pools for a database and user, made at the first login. `None` for a database that is not configured.
    pub(super) fn pools(&self, database: &str, user: &str) -> Option<Arc<PoolSet>> {
        let mut pools = self.lock();
        if let Some(known) = pools.sets.get(&Names(database, user)) {
            return Some(known.set.clone());
        }
        let key = (database.to_owned(), user.to_owned());
        // Those of now: a reload also locks the pools.
        let settings = self.settings();
        let (template, dbname) = settings.template(database, user)?;
        let credentials = settings.authenticator.credentials(user);
        let set = self.make(&template, &key, dbname, credentials, Arc::default());
        let made = Made {
            set: set.clone(),
            template,
        };
        pools.sets.insert(key, made);
        Some(set)
    }

    fn make(
        &self,
        template: &Template,
        (database, user): &(String, String),
        dbname: &str,
        credentials: Arc<Credentials>,
        told: Arc<Told>,
    ) -> Arc<PoolSet> {
        let owner = Owner {
            name: database,
            database: dbname,
            user,
            credentials,
            told,
        };
        let catalog = self.catalogs.watch(&template.cluster, dbname);
        Arc::new(PoolSet::new(template, owner, catalog))
    }

    /// Has other settings hold from now on. Pools that are configured otherwise than before are replaced: where their
    /// sessions would not notice, those go on with the new ones at their next quiet moment; elsewhere they keep the old
    /// ones, and new clients get the new ones. Returns whether there are sessions that go on with others.
    pub(super) fn renew(&self, settings: Settings) -> bool {
        let mut pools = self.lock();
        let before = self.settings();
        let mut moved = false;
        let keys: Vec<_> = pools.sets.keys().cloned().collect();
        for key in keys {
            let Some(old) = pools.sets.get(&key) else {
                continue;
            };
            let (database, user) = &key;
            let Some((template, dbname)) = settings.template(database, user) else {
                pools.retire(&key);
                continue;
            };
            let credentials = settings.authenticator.listed(user);
            // What was known of a user who is not listed any more is for those who are there.
            if credentials.is_none() && before.authenticator.listed(user).is_some() {
                pools.retire(&key);
                continue;
            }
            let same_credentials = credentials
                .as_ref()
                .is_none_or(|new| Arc::ptr_eq(new, &old.set.credentials));
            if same_credentials && template == old.template && dbname == old.set.database {
                continue;
            }
            let fits = template.fits(&old.template) && dbname == old.set.database;
            let told = if fits { old.set.told() } else { Arc::default() };
            let credentials = credentials.unwrap_or_else(|| old.set.credentials.clone());
            let set = self.make(&template, &key, dbname, credentials, told);
            if fits {
                old.set.succeed(set.clone());
                moved = true;
            }
            pools.retire(&key);
            pools.sets.insert(key, Made { set, template });
        }
        self.settings.store(Arc::new(settings));
        moved
    }

    /// The cluster of a database, and the database's name there. Physical replication is not about any database: where
    /// the name is not configured, and there is one cluster only, it is that one.
    pub(super) fn for_replication(
        &self,
        database: &str,
        physical: bool,
    ) -> Option<(Arc<Cluster>, String)> {
        let settings = self.settings();
        let mut databases = settings.databases();
        let only = databases.next().filter(|first| {
            let cluster = &first.template.cluster;
            databases.all(|other| Arc::ptr_eq(&other.template.cluster, cluster))
        });
        let known = settings.database(database).or(only.filter(|_| physical))?;
        let name = known.dbname.as_deref().unwrap_or(database);
        Some((known.template.cluster.clone(), name.to_owned()))
    }

    /// A client's place among all. Some more are for the console, so that a full house can be looked at, and its bound be
    /// raised.
    ///
    /// # Errors
    /// The name of the bound that is reached.
    pub(super) fn admit_any(&self, to_console: bool) -> Result<Place, &'static str> {
        let most = self.settings.load().config.limits.max_clients;
        let more = if to_console { CONSOLE_PLACES } else { 0 };
        take(self.all.clone(), Some(most + more), "max_clients")
    }

    /// A client's places among those of its database and its user, where they are bounded.
    ///
    /// # Errors
    /// The name of the bound that is reached.
    pub(super) fn admit(&self, database: &str, user: &str) -> Result<[Place; 2], &'static str> {
        let settings = self.settings.load();
        let of_database = settings.database(database);
        let of_database = of_database.and_then(|known| known.max_clients);
        let of_user = settings.users.get(user).and_then(|user| user.max_clients);
        // Counted also where there is no bound: a reload may bring one.
        let [database, user] = self.counts_of([Counted::Database(database), Counted::User(user)]);
        Ok([
            take(database, of_database, "max_db_client_connections")?,
            take(user, of_user, "max_user_client_connections")?,
        ])
    }

    fn counts_of(&self, counted: [Counted<&str>; 2]) -> [Arc<AtomicUsize>; 2] {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MANY_COUNTS {
            counts.retain(|_, count| Arc::strong_count(count) > 1);
        }
        counted.map(|counted| match counts.get(&counted) {
            Some(count) => count.clone(),
            None => counts.entry(counted.to_key()).or_default().clone(),
        })
    }

    /// The bounds on sessions of every database and user.
    pub(super) fn all_timeouts(&self) -> Vec<SessionTimeouts> {
        self.settings.load().all_timeouts()
    }

    /// The pools that new clients get.
    pub(super) fn all(&self) -> Vec<Arc<PoolSet>> {
        let pools = self.lock();
        pools.sets.values().map(|made| made.set.clone()).collect()
    }

    /// Those, and those that their old clients have kept.
    pub(super) fn everywhere(&self) -> Vec<Arc<PoolSet>> {
        let pools = self.lock();
        let of_now = pools.sets.values().map(|made| made.set.clone());
        of_now.chain(pools.retired.iter().cloned()).collect()
    }

    /// Closes server connections that have been idle, or alive, for too long, and forgets pools that nobody uses.
    pub(super) fn tidy(&self) {
        for set in self.all() {
            // The map has one, and this is another.
            let has_clients = Arc::strong_count(&set) > 2;
            for pool in &set.pools {
                pool.tidy(has_clients);
                if has_clients && pool.is_below_minimum() {
                    let pool = pool.clone();
                    tokio::spawn(async move { pool.warm().await });
                }
            }
            self.forget_unused(&set);
        }
        let mut pools = self.lock();
        pools.retired.retain(|set| {
            let is_used = Arc::strong_count(set) > 1;
            for pool in &set.pools {
                if is_used && set.successor().is_none() {
                    pool.tidy(true);
                } else {
                    pool.close_idle();
                }
            }
            is_used || !is_empty(set)
        });
    }

    /// Takes pools out that nobody uses and that have no connection.
    fn forget_unused(&self, set: &Arc<PoolSet>) {
        let mut pools = self.lock();
        // Ours, and the map's: nobody else uses it, and it has no connection.
        if Arc::strong_count(set) == 2 && is_empty(set) {
            pools.sets.remove(&(set.name.clone(), set.user.clone()));
        }
    }
}

impl Pools {
    fn retire(&mut self, key: &(String, String)) {
        let made = self.sets.remove(key);
        self.retired.extend(made.map(|made| made.set));
    }
}

/// Whether no pool of a set has a connection.
fn is_empty(set: &PoolSet) -> bool {
    set.pools.iter().all(|pool| pool.status().size == 0)
}
