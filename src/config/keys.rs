//! Every key of proxy.toml: its shape with default and bounds, and what it does.
//!
//! This table is the only place for them. [`check`](super::check) reads the file by it, unknown
//! keys are told by it, and the reference is written from it.

use std::time::Duration;

use super::shape::{
    Bound, Choice, Count, Maybe, Names, PeerNumber, Place, Shape, Size, Text, TextOr, Time,
};
use super::{
    AuthMethod, Consistency, CurrvalPolicy, Hints, ListenPolicy, LogFormat, LogLevel, PoolMode,
    Route,
};

/// One key of the file.
pub(super) struct Key<S> {
    /// Where it stands. `<name>` is a name that the operator chooses, `[]` an element of an array.
    pub(super) path: &'static str,
    /// What it takes.
    pub(super) shape: S,
    /// Whether the file is refused without it.
    pub(super) needed: Needed,
    /// What it does and what its extremes do, for the reference.
    pub(super) does: &'static str,
}

/// Whether a key must be present.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    /// Always.
    Yes,
    /// Never; without a default its absence means what the text says.
    No,
}

impl<S> Key<S> {
    /// The last part of the path: what is typed before the equals sign.
    pub(super) fn name(&self) -> &'static str {
        self.path
            .rsplit_once('.')
            .map_or(self.path, |(_, name)| name)
    }
}

/// A key as the reference sees it, whatever its values are.
pub(super) trait Described: Sync {
    /// See [`Key::path`].
    fn path(&self) -> &'static str;
    /// See [`Key::does`].
    fn does(&self) -> &'static str;
    /// See [`Key::needed`].
    fn needed(&self) -> Needed;
    /// See [`Shape::kind`].
    fn kind(&self) -> &'static str;
    /// See [`Shape::default_text`].
    fn default_text(&self) -> Option<String>;
    /// See [`Shape::range_text`].
    fn range_text(&self) -> Option<String>;
}

impl<S: Shape + Sync> Described for Key<S> {
    fn path(&self) -> &'static str {
        self.path
    }

    fn does(&self) -> &'static str {
        self.does
    }

    fn needed(&self) -> Needed {
        self.needed
    }

    fn kind(&self) -> &'static str {
        self.shape.kind()
    }

    fn default_text(&self) -> Option<String> {
        self.shape.default_text()
    }

    fn range_text(&self) -> Option<String> {
        self.shape.range_text()
    }
}

/// All keys, in the order of the reference.
pub(super) static KEYS: &[&dyn Described] = &[
    &WORKERS,
    &LISTENER_ADDRESS,
    &LISTENER_ROUTE,
    &NODE_ADDRESS,
    &NODE_NAME,
    &NODE_MAX_CONNECTIONS,
    &MONITOR_USER,
    &MONITOR_PASSWORD,
    &MONITOR_PASSWORD_FILE,
    &MONITOR_PASSWORD_ENV,
    &MONITOR_DATABASE,
    &MONITOR_INTERVAL,
    &MONITOR_TIMEOUT,
    &CONSISTENCY,
    &MAX_LAG,
    &CATALOG_TTL,
    &TRUST_DECLARED_VOLATILITY,
    &STANDBY_FUNCTIONS,
    &STANDBY_PROCEDURES,
    &CATALOG_READS,
    &DATABASE_CLUSTER,
    &DATABASE_DBNAME,
    &DATABASE_MAX_CONNECTIONS,
    &DATABASE_MAX_CLIENTS,
    &DATABASE_ROUTE,
    &DATABASE_HINTS,
    &DATABASE_CONSISTENCY,
    &DATABASE_MAX_LAG,
    &POOL_MODE,
    &POOL_SIZE,
    &POOL_MIN,
    &POOL_RESERVE,
    &POOL_RESERVE_AFTER,
    &POOL_WAIT_TIMEOUT,
    &POOL_MAX_PREPARED,
    &POOL_CONNECT_QUERY,
    &POOL_RESET_QUERY,
    &POOL_LISTEN,
    &POOL_DEFERRED_BEGIN,
    &POOL_OPTIMISTIC,
    &POOL_CURRVAL,
    &USER_MAX_CONNECTIONS,
    &USER_MAX_CLIENTS,
    &USER_ROUTE,
    &USER_HINTS,
    &USER_CONSISTENCY,
    &USER_MAX_LAG,
    &USER_POOL_MODE,
    &USER_POOL_SIZE,
    &USER_POOL_MIN,
    &USER_POOL_RESERVE,
    &USER_POOL_CURRVAL,
    &USER_CLIENT_IDLE,
    &USER_IDLE_IN_TRANSACTION,
    &USER_TRANSACTION,
    &USER_QUERY,
    &AUTH_METHOD,
    &AUTH_USERS_FILE,
    &ADMIN_USERS,
    &ADMIN_HTTP,
    &ADMIN_QUERIES,
    &MAX_CLIENTS,
    &PIPELINE_BUFFER,
    &MAX_MESSAGE,
    &TIMEOUT_LOGIN,
    &TIMEOUT_CONNECT,
    &TIMEOUT_CANCEL,
    &TIMEOUT_SHUTDOWN,
    &TIMEOUT_SERVER_IDLE,
    &TIMEOUT_SERVER_LIFETIME,
    &TIMEOUT_SERVER_CHECK,
    &TIMEOUT_CLIENT_IDLE,
    &TIMEOUT_IDLE_IN_TRANSACTION,
    &TIMEOUT_TRANSACTION,
    &TIMEOUT_QUERY,
    &TIMEOUT_CLIENT_WRITE,
    &TIMEOUT_TCP_KEEPALIVE,
    &TIMEOUT_TCP_USER,
    &PEERING_ID,
    &PEERING_PEER_ID,
    &PEERING_PEER_ADDRESS,
    &LOG_LEVEL,
    &LOG_FORMAT,
];

/// Bounds on what clients do; there is none unless it is set.
const BOUND: Bound = Bound {
    sample: Duration::from_secs(600),
    least: Duration::from_millis(100),
    most: Duration::from_secs(7 * 86_400),
};

/// Most nodes of one cluster. Each costs a connection and a probe an interval.
pub(super) const MAX_NODES: usize = 64;

/// Longest name in bytes. PostgreSQL cuts longer ones (manual, "Identifiers and Key Words",
/// sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS: NAMEDATALEN is 64).
pub(super) const MAX_NAME: usize = 63;

pub(super) static WORKERS: Key<Count> = Key {
    path: "process.workers",
    shape: Count {
        default: 1,
        least: 1,
        most: 256,
    },
    needed: Needed::No,
    does: "Threads that carry traffic. One serves many thousand clients; add more when it uses a \
           whole core. More threads than cores only cost time.",
};

pub(super) static LISTENER_ADDRESS: Key<Place> = Key {
    path: "listener[].address",
    shape: Place::Listener,
    needed: Needed::Yes,
    does: "Where clients connect. `0.0.0.0` and `[::]` stand for every interface. Port `0` leaves \
           the choice to the system, which is of use in tests only.",
};

const ROUTES: Choice<Route> = Choice {
    default: Route::Split,
    names: &Route::NAMES,
};

pub(super) static LISTENER_ROUTE: Key<Choice<Route>> = Key {
    path: "listener[].route",
    shape: ROUTES,
    needed: Needed::No,
    does: "Where statements go. `split`: reads to standbys, everything else to the primary. `primary`: \
           everything to the primary. `standby`: everything to standbys, as on a plain read-only port: they \
           refuse what writes (`25006`), clients are told `in_hot_standby = on`, and while no standby is within \
           the bound on lag statements fail with `57P03`; nothing goes to the primary. `observe`: everything to \
           the primary, and `pgweir_would_have_moved_total` counts what `split` would have moved. All but \
           `split` hold for every client of the listener, whatever its database, its user, its settings \
           or its hints say.",
};

pub(super) static NODE_ADDRESS: Key<Place> = Key {
    path: "cluster.<name>.nodes[].address",
    shape: Place::Node,
    needed: Needed::Yes,
    does: "Where the node is. A host name is looked up at every connect. A Unix socket is named \
           by its file, as in `unix:/run/postgresql/.s.PGSQL.5432`. No two nodes of a cluster may \
           share an address.",
};

pub(super) static NODE_NAME: Key<Text> = Key {
    path: "cluster.<name>.nodes[].name",
    shape: Text,
    needed: Needed::No,
    does: "What logs and metrics call the node; its address as typed if absent. Unique in its \
           cluster. Roles are measured, never configured: the order of nodes means nothing.",
};

pub(super) static NODE_MAX_CONNECTIONS: Key<Maybe<Count>> = Key {
    path: "cluster.<name>.nodes[].max_connections",
    shape: Maybe(CONNECTIONS),
    needed: Needed::No,
    does: "Most server connections to the node, of all databases and users together; no bound if absent. When it \
           is reached, the connection of another pool that has been idle for longest makes room; if none is \
           idle, clients wait. The monitor's connection and replication connections are not counted. \
           Keep it below the node's own `max_connections`.",
};

pub(super) static MONITOR_USER: Key<TextOr> = Key {
    path: "cluster.<name>.monitor.user",
    shape: TextOr("pgweir"),
    needed: Needed::No,
    does: "The user that asks each node for its role and its position. A member of `pg_monitor` \
           sees which timeline a standby receives; any other user learns of it late after a \
           failover, and until then the standby gets no reads. No other right is needed.",
};

pub(super) static MONITOR_PASSWORD: Key<Text> = Key {
    path: "cluster.<name>.monitor.password",
    shape: Text,
    needed: Needed::No,
    does: "Its password, typed into the file. At most one of `password`, `password_file` and \
           `password_env` may be given; with none of them the nodes must let the user in without \
           a password.",
};

pub(super) static MONITOR_PASSWORD_FILE: Key<Text> = Key {
    path: "cluster.<name>.monitor.password_file",
    shape: Text,
    needed: Needed::No,
    does: "A file that holds the password; one line end after it is dropped. A relative path \
           starts at the directory of proxy.toml.",
};

pub(super) static MONITOR_PASSWORD_ENV: Key<Text> = Key {
    path: "cluster.<name>.monitor.password_env",
    shape: Text,
    needed: Needed::No,
    does: "An environment variable that holds the password.",
};

pub(super) static MONITOR_DATABASE: Key<TextOr> = Key {
    path: "cluster.<name>.monitor.database",
    shape: TextOr("postgres"),
    needed: Needed::No,
    does: "The database that the monitor connects to, on every node.",
};

pub(super) static MONITOR_INTERVAL: Key<Time> = Key {
    path: "cluster.<name>.monitor.interval",
    shape: Time {
        default: Duration::from_millis(50),
        least: Duration::from_millis(1),
        most: Duration::from_secs(10),
    },
    needed: Needed::No,
    does: "Time between two questions to a node. A promotion is noticed, and a lag known, about \
           this late. `\"1ms\"` asks each node a thousand times a second; `\"10s\"` leaves \
           standbys that fell behind in use for that long. While no client of the cluster has sent anything \
           for a second, and all nodes are well, they are asked a fifth as often, but at least four times in \
           the time after which a silent node gets nothing, and in the shortest `max_lag` of the cluster, a \
           database or a user; the first client that sends something ends that at once.",
};

pub(super) static MONITOR_TIMEOUT: Key<Time> = Key {
    path: "cluster.<name>.monitor.timeout",
    shape: Time {
        default: Duration::from_secs(1),
        least: Duration::from_millis(10),
        most: Duration::from_secs(60),
    },
    needed: Needed::No,
    does: "How long one answer may take before the connection is given up. Very short values \
           declare a busy node silent; long ones notice a dead one late.",
};

const CONSISTENCIES: Choice<Consistency> = Choice {
    default: Consistency::Session,
    names: &Consistency::NAMES,
};

pub(super) static CONSISTENCY: Key<Choice<Consistency>> = Key {
    path: "cluster.<name>.reads.consistency",
    shape: CONSISTENCIES,
    needed: Needed::No,
    does: "What a read shows. `session`: all that its own session has written; until a standby has it, the \
           session's reads go to the primary. `eventual`: no more than `max_lag` says. A database, a user and a session \
           (`SET pgweir.consistency`) may have it otherwise.",
};

const LAG: Time = Time {
    default: Duration::from_secs(10),
    least: Duration::ZERO,
    most: Duration::from_secs(86_400),
};

pub(super) static MAX_LAG: Key<Time> = Key {
    path: "cluster.<name>.reads.max_lag",
    shape: LAG,
    needed: Needed::No,
    does: "The most that a standby may be behind the primary and still be read. Beyond it, reads \
           go to the other standbys, or to the primary. `\"0s\"` reads only standbys that were seen \
           to have replayed everything, which on a busy primary is none; `\"1d\"` reads any standby \
           that answers, however old its data.",
};

pub(super) static CATALOG_TTL: Key<Time> = Key {
    path: "cluster.<name>.reads.catalog_ttl",
    shape: Time {
        default: Duration::from_secs(60),
        least: Duration::from_millis(100),
        most: Duration::from_secs(86_400),
    },
    needed: Needed::No,
    does: "How late a change to functions, views, types or operators is noticed that was made past the proxy. What is done \
           through it, and by the event trigger of `deploy/pgweir_ddl.sql` what is done elsewhere, is noticed at once. Each \
           database with clients is asked this often, some 10 to 100 ms of the primary's time.",
};

pub(super) static TRUST_DECLARED_VOLATILITY: Key<Choice<bool>> = Key {
    path: "cluster.<name>.reads.trust_declared_volatility",
    shape: Choice {
        default: true,
        names: &[("on", true), ("off", false)],
    },
    needed: Needed::No,
    does: "Whether functions of users and extensions that are declared `IMMUTABLE` or `STABLE` may run on standbys. One that \
           writes all the same is refused there; one with an effect outside of PostgreSQL is not. With `\"off\"` statements \
           that call any of them go to the primary.",
};

pub(super) static CATALOG_READS: Key<Choice<bool>> = Key {
    path: "cluster.<name>.reads.catalog_reads",
    shape: Choice {
        default: false,
        names: &[("primary", false), ("standby", true)],
    },
    needed: Needed::No,
    does: "Where system catalogs are read, `pg_class` and `information_schema` among them. `\"standby\"` takes what drivers, \
           ORMs and psql ask of them off the primary; what a session has created itself it finds all the same, as with other \
           reads. What tells of the node or of its sessions is asked of the primary in either case, and so is what names \
           catalogs beside views of users over them.",
};

pub(super) static STANDBY_PROCEDURES: Key<Names> = Key {
    path: "cluster.<name>.reads.standby_procedures",
    shape: Names,
    needed: Needed::No,
    does: "Procedures that only read, as `\"name\"` or `\"schema.name\"`: all overloads of that name. A `CALL` of one may run on \
           a standby if its values are plain reads. One that writes all the same is refused there, and runs on the primary.",
};

pub(super) static STANDBY_FUNCTIONS: Key<Names> = Key {
    path: "cluster.<name>.reads.standby_functions",
    shape: Names,
    needed: Needed::No,
    does: "Functions of users and extensions that may run on standbys whatever they are declared as, as `\"name\"` or \
           `\"schema.name\"`: all overloads of that name. For functions that are `VOLATILE` and only read. Built-in functions and \
           dblink's are what they are.",
};

pub(super) static DATABASE_CLUSTER: Key<Text> = Key {
    path: "database.<name>.cluster",
    shape: Text,
    needed: Needed::No,
    does: "The cluster that the database is on. May be left out if the file has one cluster only.",
};

pub(super) static DATABASE_DBNAME: Key<Text> = Key {
    path: "database.<name>.dbname",
    shape: Text,
    needed: Needed::No,
    does: "Its name on the nodes, if clients know it by another. Not for `\"*\"`, where each name \
           stands for itself.",
};

pub(super) static DATABASE_MAX_CONNECTIONS: Key<Maybe<Count>> = Key {
    path: "database.<name>.max_connections",
    shape: Maybe(CONNECTIONS),
    needed: Needed::No,
    does: "Most server connections to the database on each node, of all users together; no bound if absent. In \
           `\"*\"` it holds for each name by itself. How room is made is told at \
           `cluster.<name>.nodes[].max_connections`.",
};

pub(super) static DATABASE_MAX_CLIENTS: Key<Maybe<Count>> = Key {
    path: "database.<name>.max_clients",
    shape: Maybe(CLIENTS),
    needed: Needed::No,
    does: "Most clients of the database at once; the next one is refused with SQLSTATE 53300. Only \
           `limits.max_clients` counts if absent. In `\"*\"` it holds for each name by itself.",
};

const HINTS: Choice<Hints> = Choice {
    default: Hints::Allow,
    names: &[("allow", Hints::Allow), ("ignore", Hints::Ignore)],
};

pub(super) static DATABASE_ROUTE: Key<Maybe<Choice<Route>>> = Key {
    path: "database.<name>.route",
    shape: Maybe(ROUTES),
    needed: Needed::No,
    does: "Where statements go, as at `listener[].route`, for clients of a listener that splits; `split` if \
           absent. A second name for a database with `route = \"standby\"` and `dbname` is one for readers. A session \
           may choose otherwise with `SET pgweir.route`, unless `hints` forbids that, or this is `observe`, which \
           holds.",
};

pub(super) static DATABASE_HINTS: Key<Choice<Hints>> = Key {
    path: "database.<name>.hints",
    shape: HINTS,
    needed: Needed::No,
    does: "`ignore`: hints in comments are comments like others, and the settings `pgweir.route`, \
           `pgweir.consistency` and `pgweir.max_lag` are refused (`42501`), for users whose SQL is not \
           trusted. `standby` in a hint may send a function there that pgweir does not know.",
};

pub(super) static DATABASE_CONSISTENCY: Key<Maybe<Choice<Consistency>>> = Key {
    path: "database.<name>.reads.consistency",
    shape: Maybe(CONSISTENCIES),
    needed: Needed::No,
    does: "As `cluster.<name>.reads.consistency`, for this database; that of its cluster if absent.",
};

pub(super) static DATABASE_MAX_LAG: Key<Maybe<Time>> = Key {
    path: "database.<name>.reads.max_lag",
    shape: Maybe(LAG),
    needed: Needed::No,
    does: "As `cluster.<name>.reads.max_lag`, for this database; that of its cluster if absent. It may be less or more \
           than that, and is held to the newest measurement, without the two answers and three answers by which \
           a cluster's bound is kept from flapping.",
};

const CURRVAL: Choice<CurrvalPolicy> = Choice {
    default: CurrvalPolicy::Pin,
    names: &[
        ("pin", CurrvalPolicy::Pin),
        ("reject", CurrvalPolicy::Reject),
        ("allow", CurrvalPolicy::Allow),
    ],
};

const MODES: Choice<PoolMode> = Choice {
    default: PoolMode::Transaction,
    names: &[
        ("transaction", PoolMode::Transaction),
        ("session", PoolMode::Session),
        ("statement", PoolMode::Statement),
    ],
};

pub(super) static POOL_MODE: Key<Choice<PoolMode>> = Key {
    path: "database.<name>.pool.mode",
    shape: MODES,
    needed: Needed::No,
    does: "When a server connection goes back to its pool: after each transaction, when the \
           client leaves, or after each statement. In session pooling a client keeps one server connection of the primary; \
           reads that may go to a standby use one there for as long as they run. In statement \
           pooling transaction blocks are refused with `0A000`, and one that is left open among other statements of a Query ends its \
           session, so that no client can hold a connection of the pool by leaving one open.",
};

const SIZE: Count = Count {
    default: 20,
    least: 1,
    most: 10_000,
};

/// Connections besides the size; none unless it is set.
const FEW: Count = Count {
    default: 0,
    least: 0,
    most: 10_000,
};

const CONNECTIONS: Count = Count {
    default: 100,
    least: 1,
    most: 100_000,
};

const CLIENTS: Count = Count {
    default: 10_000,
    least: 1,
    most: 1_000_000,
};

pub(super) static POOL_SIZE: Key<Count> = Key {
    path: "database.<name>.pool.size",
    shape: SIZE,
    needed: Needed::No,
    does: "Most server connections of one pool. Each node has a pool for each database and user, \
           so a node sees up to this many times the users. `1` runs one transaction at a time; \
           more than the nodes' `max_connections` turns waiting into failed connects.",
};

pub(super) static POOL_MIN: Key<Count> = Key {
    path: "database.<name>.pool.min",
    shape: FEW,
    needed: Needed::No,
    does: "Server connections of one pool that are kept open while it has clients, so that none of them waits for a \
           connect after a quiet hour. At most `pool.size`. `0` opens connections when they are needed only.",
};

pub(super) static POOL_RESERVE: Key<Count> = Key {
    path: "database.<name>.pool.reserve",
    shape: FEW,
    needed: Needed::No,
    does: "Server connections beyond `pool.size` that a pool may open for clients which have waited for \
           `pool.reserve_after`. They are closed again when nobody waits. `0` is no reserve.",
};

pub(super) static POOL_RESERVE_AFTER: Key<Time> = Key {
    path: "database.<name>.pool.reserve_after",
    shape: Time {
        default: Duration::from_secs(5),
        least: Duration::from_millis(1),
        most: Duration::from_secs(3_600),
    },
    needed: Needed::No,
    does: "How long a client waits before the reserve is opened for it. Short values use the reserve at every peak; \
           one beyond `pool.wait_timeout` never does.",
};

pub(super) static POOL_WAIT_TIMEOUT: Key<Time> = Key {
    path: "database.<name>.pool.wait_timeout",
    shape: Time {
        default: Duration::from_secs(30),
        least: Duration::from_millis(1),
        most: Duration::from_secs(3_600),
    },
    needed: Needed::No,
    does: "How long a client waits for a server connection before its statement fails with \
           SQLSTATE 53000. `\"1ms\"` fails as soon as all are in use; `\"1h\"` outlasts most clients' \
           own patience.",
};

pub(super) static POOL_MAX_PREPARED: Key<Count> = Key {
    path: "database.<name>.pool.max_prepared",
    shape: Count {
        default: 200,
        least: 1,
        most: 10_000,
    },
    needed: Needed::No,
    does: "Most named prepared statements that one server connection holds; the one unused longest \
           makes room and is prepared again when needed. `1` prepares at almost every change of \
           statement; large values cost memory on the nodes, a plan for each.",
};

pub(super) static POOL_CONNECT_QUERY: Key<Text> = Key {
    path: "database.<name>.pool.connect_query",
    shape: Text,
    needed: Needed::No,
    does: "SQL that is run on each new server connection before its first client has it, and again whenever the \
           connection has been cleaned with DISCARD ALL, or settings of one client have been taken from it for the next: \
           it may run often. A client's own RESET goes back to before it, until its transaction has ended. A connection on \
           which it fails is not used, so a mistake in it keeps all clients out.",
};

pub(super) static POOL_RESET_QUERY: Key<Text> = Key {
    path: "database.<name>.pool.reset_query",
    shape: Text,
    needed: Needed::No,
    does: "SQL that is run before DISCARD ALL whenever a connection is cleaned: after each session in session \
           pooling, else where a client may have left something that pgweir cannot follow. DISCARD ALL is run in \
           any case. A connection on which it fails is closed.",
};

pub(super) static USER_MAX_CONNECTIONS: Key<Maybe<Count>> = Key {
    path: "user.<name>.max_connections",
    shape: Maybe(CONNECTIONS),
    needed: Needed::No,
    does: "Most server connections of the user on each node, to all databases together; no bound if absent. How room \
           is made is told at `cluster.<name>.nodes[].max_connections`.",
};

pub(super) static USER_MAX_CLIENTS: Key<Maybe<Count>> = Key {
    path: "user.<name>.max_clients",
    shape: Maybe(CLIENTS),
    needed: Needed::No,
    does: "Most clients of the user at once, of all databases together; the next one is refused with SQLSTATE 53300. \
           Only the other bounds count if absent.",
};

pub(super) static USER_ROUTE: Key<Maybe<Choice<Route>>> = Key {
    path: "user.<name>.route",
    shape: Maybe(ROUTES),
    needed: Needed::No,
    does: "Where statements of the user go, whatever the database says; as `database.<name>.route`.",
};

pub(super) static USER_HINTS: Key<Maybe<Choice<Hints>>> = Key {
    path: "user.<name>.hints",
    shape: Maybe(HINTS),
    needed: Needed::No,
    does: "Whether hints and the settings `pgweir.…` are for the user, whatever the database says.",
};

pub(super) static USER_CONSISTENCY: Key<Maybe<Choice<Consistency>>> = Key {
    path: "user.<name>.reads.consistency",
    shape: Maybe(CONSISTENCIES),
    needed: Needed::No,
    does: "What reads of the user show, whatever the database says.",
};

pub(super) static USER_MAX_LAG: Key<Maybe<Time>> = Key {
    path: "user.<name>.reads.max_lag",
    shape: Maybe(LAG),
    needed: Needed::No,
    does: "The bound on lag for the user, whatever the database says.",
};

pub(super) static USER_POOL_MODE: Key<Maybe<Choice<PoolMode>>> = Key {
    path: "user.<name>.pool.mode",
    shape: Maybe(MODES),
    needed: Needed::No,
    does: "The pooling mode of this user's pools, in place of the database's.",
};

pub(super) static USER_POOL_SIZE: Key<Maybe<Count>> = Key {
    path: "user.<name>.pool.size",
    shape: Maybe(SIZE),
    needed: Needed::No,
    does: "The size of this user's pools, in place of the database's.",
};

pub(super) static USER_POOL_MIN: Key<Maybe<Count>> = Key {
    path: "user.<name>.pool.min",
    shape: Maybe(FEW),
    needed: Needed::No,
    does: "The minimum of this user's pools, in place of the database's.",
};

pub(super) static USER_POOL_RESERVE: Key<Maybe<Count>> = Key {
    path: "user.<name>.pool.reserve",
    shape: Maybe(FEW),
    needed: Needed::No,
    does: "The reserve of this user's pools, in place of the database's.",
};

pub(super) static USER_POOL_CURRVAL: Key<Maybe<Choice<CurrvalPolicy>>> = Key {
    path: "user.<name>.pool.currval",
    shape: Maybe(CURRVAL),
    needed: Needed::No,
    does: "What becomes of `currval` and `lastval` for this user, in place of what the database has.",
};

pub(super) static USER_CLIENT_IDLE: Key<Bound> = Key {
    path: "user.<name>.timeouts.client_idle",
    shape: BOUND,
    needed: Needed::No,
    does: "`timeouts.client_idle` for this user's sessions.",
};

pub(super) static USER_IDLE_IN_TRANSACTION: Key<Bound> = Key {
    path: "user.<name>.timeouts.idle_in_transaction",
    shape: BOUND,
    needed: Needed::No,
    does: "`timeouts.idle_in_transaction` for this user's sessions.",
};

pub(super) static USER_TRANSACTION: Key<Bound> = Key {
    path: "user.<name>.timeouts.transaction",
    shape: BOUND,
    needed: Needed::No,
    does: "`timeouts.transaction` for this user's sessions.",
};

pub(super) static USER_QUERY: Key<Bound> = Key {
    path: "user.<name>.timeouts.query",
    shape: BOUND,
    needed: Needed::No,
    does: "`timeouts.query` for this user's sessions.",
};

pub(super) static POOL_LISTEN: Key<Choice<ListenPolicy>> = Key {
    path: "database.<name>.pool.listen",
    shape: Choice {
        default: ListenPolicy::Shared,
        names: &[("shared", ListenPolicy::Shared), ("pin", ListenPolicy::Pin)],
    },
    needed: Needed::No,
    does: "What `LISTEN` does in transaction and statement pooling. `\"shared\"`: a session that listens keeps no \
           server connection; one connection to the primary for each database and user, beside its pool, hears for \
           all of them, and follows the primary. That is for a `LISTEN` that stands alone, outside of a transaction \
           block, of a channel whose name is ASCII, by clients whose encoding is UTF8; any other pins, as with \
           `\"pin\"`: the session keeps its server connection until `UNLISTEN`.",
};

pub(super) static POOL_DEFERRED_BEGIN: Key<Choice<bool>> = Key {
    path: "database.<name>.pool.deferred_begin",
    shape: Choice {
        default: true,
        names: &[("on", true), ("off", false)],
    },
    needed: Needed::No,
    does: "Whether `BEGIN` waits for what follows it. `\"on\"`: the proxy answers it, and sends it in one flight with \
           the first statement, which saves a round trip, lets a `READ ONLY` transaction that begins with a read run \
           on a standby, and takes no server connection for a transaction without a statement. `now()` is then the \
           time of the first statement. `\"off\"`: it goes to the primary at once, and the transaction with it. \
           Sessions that set `idle_in_transaction_session_timeout` or `transaction_timeout` themselves begin at once \
           anyway; a value from `ALTER ROLE`, `ALTER DATABASE` or postgresql.conf counts from the first statement, \
           and `timeouts.idle_in_transaction` from `BEGIN`. In statement pooling there are no transaction blocks.",
};

pub(super) static POOL_OPTIMISTIC: Key<Choice<bool>> = Key {
    path: "database.<name>.pool.optimistic",
    shape: Choice {
        default: false,
        names: &[("on", true), ("off", false)],
    },
    needed: Needed::No,
    does: "Whether a transaction that may write reads from a standby until it does something else. `\"on\"` is for `READ \
           COMMITTED` and for `BEGIN`s that are deferred, see `pool.deferred_begin`. What such a transaction reads is no older \
           than its `BEGIN`, but older than what the primary has: a program that reads, decides and writes without a \
           lock may decide by a row that has changed since. It moves to the primary with its first statement that is no plain \
           read: also for `SAVEPOINT`, `SET`, a cursor, or a row limit. A standby can be read only if the primary has been \
           asked for its position since the `BEGIN`, every `monitor.interval`, and the standby is known to have replayed it: \
           transactions whose first statement follows at once run on the primary.",
};

pub(super) static POOL_CURRVAL: Key<Choice<CurrvalPolicy>> = Key {
    path: "database.<name>.pool.currval",
    shape: CURRVAL,
    needed: Needed::No,
    does: "What becomes of `currval()` and `lastval()` in transaction and statement pooling: a server answers them from what \
           `nextval()` gave last on the same connection. `\"pin\"`: behind a statement with `nextval` in its text a session \
           keeps its connection, and behind any write once a client of this database and user has asked for such a value, \
           so that it finds its own: up to its next statement that does not ask, outside of a transaction block, and for a \
           second at most. Where it has no such connection, it is told `55000`, as in a session that has not called \
           `nextval`: never another's value. So may be the first that asks after the start of the proxy; up to then at most half of a pool is kept. `\"reject\"`: outside of \
           a transaction block they are refused with `0A000`. `\"allow\"`: they run on any connection, and may tell of another \
           client's values; nothing is kept. A program that calls `nextval` and never `currval` holds fewer connections with `\"allow\"` or \
           `\"reject\"`. What functions ask inside of them is not seen, nor what stands behind the first 256 KiB of a text, nor whether a \
           transaction block that writes, and asks before anybody else has, has called `nextval` at all.",
};

pub(super) static AUTH_METHOD: Key<Choice<AuthMethod>> = Key {
    path: "auth.method",
    shape: Choice {
        default: AuthMethod::ScramSha256,
        names: &[
            ("scram-sha-256", AuthMethod::ScramSha256),
            ("trust", AuthMethod::Trust),
        ],
    },
    needed: Needed::No,
    does: "How clients prove who they are. `\"trust\"` believes them: any user name is let in, or \
           with a `users_file` any that it lists.",
};

pub(super) static AUTH_USERS_FILE: Key<Text> = Key {
    path: "auth.users_file",
    shape: Text,
    needed: Needed::No,
    does: "Users and their secrets in the format of PgBouncer's `userlist.txt`; needed for \
           `\"scram-sha-256\"`. A line is `\"user\" \"secret\"`, where `\"\"` inside quotes is a quote \
           and `;` starts a comment line. The secret is a password or a SCRAM-SHA-256 verifier \
           as in `pg_authid`; no password fits an empty one. Of a user listed twice the last \
           secret counts, as in PgBouncer. MD5 secrets are refused. A relative path starts at \
           the directory of proxy.toml.",
};

/// Names that no database can have, because they are the console's.
pub(super) const CONSOLE: [&str; 2] = ["pgweir", "pgbouncer"];

pub(super) static ADMIN_USERS: Key<Names> = Key {
    path: "admin.users",
    shape: Names,
    needed: Needed::No,
    does: "Who may use the console: the database `pgweir`, or `pgbouncer`, of pgweir itself. They log in \
           as to any database. Others are refused with SQLSTATE 28000, which is everybody if the list \
           is empty.",
};

pub(super) static ADMIN_QUERIES: Key<Count> = Key {
    path: "admin.queries",
    shape: Count {
        default: 1000,
        least: 0,
        most: 60_000,
    },
    needed: Needed::No,
    does: "How many statements `SHOW QUERIES` tells apart, by their text without literals. Each takes \
           about 1 KiB. Beyond that those that were called least of late are counted together. `0` counts \
           none, and saves a look-up and readings of the clock for each statement.",
};

pub(super) static ADMIN_HTTP: Key<Place> = Key {
    path: "admin.http",
    shape: Place::Http,
    needed: Needed::No,
    does: "Where metrics and the state of the cluster are served over HTTP; nowhere if absent. \
           There is no login, so keep it off public interfaces.",
};

pub(super) static MAX_CLIENTS: Key<Count> = Key {
    path: "limits.max_clients",
    shape: CLIENTS,
    needed: Needed::No,
    does: "Most clients at once, those that still log in included. The next one is refused with \
           SQLSTATE 53300; 16 more may log in to the console. The limit on open files of the process must allow for it.",
};

pub(super) static PIPELINE_BUFFER: Key<Size> = Key {
    path: "limits.pipeline_buffer",
    shape: Size {
        default: 1 << 20,
        least: 16 << 10,
        most: 1 << 30,
    },
    needed: Needed::No,
    does: "How much of a pipelined group is held until its end is seen and its place is chosen. A \
           larger group goes to the primary without being held further. Small values send long \
           batches of reads to the primary; large ones may be held once for each client.",
};

pub(super) static MAX_MESSAGE: Key<Size> = Key {
    path: "limits.max_message",
    shape: Size {
        default: 1 << 30,
        least: 16 << 10,
        most: 1 << 30,
    },
    needed: Needed::No,
    does: "Largest message that a client may send; a larger one ends its connection with SQLSTATE \
           08P01. PostgreSQL's own bound is one gigabyte. Small values refuse large parameters.",
};

pub(super) static TIMEOUT_LOGIN: Key<Time> = Key {
    path: "timeouts.login",
    shape: Time {
        default: Duration::from_secs(60),
        least: Duration::from_secs(1),
        most: Duration::from_secs(600),
    },
    needed: Needed::No,
    does: "From accept to the end of the login, as PostgreSQL's `authentication_timeout`. Short \
           values turn slow networks away; long ones let silent strangers hold places among \
           `max_clients`.",
};

pub(super) static TIMEOUT_CONNECT: Key<Time> = Key {
    path: "timeouts.connect",
    shape: Time {
        default: Duration::from_secs(5),
        least: Duration::from_millis(10),
        most: Duration::from_secs(300),
    },
    needed: Needed::No,
    does: "TCP connect and login to a node together. Short values fail on a busy node; long ones \
           keep clients waiting for a dead one.",
};

pub(super) static TIMEOUT_CANCEL: Key<Time> = Key {
    path: "timeouts.cancel",
    shape: Time {
        default: Duration::from_secs(10),
        least: Duration::from_millis(10),
        most: Duration::from_secs(300),
    },
    needed: Needed::No,
    does: "How long the delivery of a cancel request may take, to a node or to a peer. Until then \
           the server connection is kept for the client whose statement it is; one whose cancel \
           request was not delivered is closed, since that may still arrive. Short values give \
           busy nodes up; long ones hold connections for dead ones.",
};

pub(super) static TIMEOUT_SHUTDOWN: Key<Time> = Key {
    path: "timeouts.shutdown",
    shape: Time {
        default: Duration::from_secs(30),
        least: Duration::ZERO,
        most: Duration::from_secs(3_600),
    },
    needed: Needed::No,
    does: "How long running transactions may go on after SIGTERM. `\"0s\"` ends all of them at once; \
           a value beyond the patience of the service manager is cut short by its SIGKILL.",
};

pub(super) static TIMEOUT_SERVER_IDLE: Key<Time> = Key {
    path: "timeouts.server_idle",
    shape: Time {
        default: Duration::from_secs(600),
        least: Duration::from_secs(1),
        most: Duration::from_secs(86_400),
    },
    needed: Needed::No,
    does: "A server connection that nobody has used for so long is closed. Short values connect \
           again and again; long ones hold the places of a peak for long after it.",
};

pub(super) static TIMEOUT_SERVER_LIFETIME: Key<Time> = Key {
    path: "timeouts.server_lifetime",
    shape: Time {
        default: Duration::from_secs(3_600),
        least: Duration::from_secs(1),
        most: Duration::from_secs(30 * 86_400),
    },
    needed: Needed::No,
    does: "A server connection of this age is closed once it is idle, which frees the memory of \
           its caches on the node. Short values cost reconnects; long ones let that memory grow. Each \
           connection's own limit is up to a tenth shorter, so that they do not all end together; the same \
           holds for `server_idle`.",
};

pub(super) static TIMEOUT_SERVER_CHECK: Key<Time> = Key {
    path: "timeouts.server_check",
    shape: Time {
        default: Duration::from_secs(30),
        least: Duration::ZERO,
        most: Duration::from_secs(86_400),
    },
    needed: Needed::No,
    does: "A server connection that has been idle for so long is asked with an empty query before it is used again, \
           so that no statement is sent into a connection that a firewall has forgotten. `\"0s\"` asks every time, \
           which costs each transaction a round trip; `\"1d\"` asks hardly ever.",
};

pub(super) static TIMEOUT_CLIENT_IDLE: Key<Bound> = Key {
    path: "timeouts.client_idle",
    shape: BOUND,
    needed: Needed::No,
    does: "A client that sends nothing for so long, outside of a transaction, is told goodbye \
           (`57P05`). Pools of applications keep idle connections on purpose, so this is for \
           programs that forget theirs.",
};

pub(super) static TIMEOUT_IDLE_IN_TRANSACTION: Key<Bound> = Key {
    path: "timeouts.idle_in_transaction",
    shape: BOUND,
    needed: Needed::No,
    does: "A client that sends nothing for so long inside a transaction is told goodbye \
           (`25P03`), and the transaction is undone: it holds locks, and a server connection that \
           others wait for.",
};

pub(super) static TIMEOUT_TRANSACTION: Key<Bound> = Key {
    path: "timeouts.transaction",
    shape: BOUND,
    needed: Needed::No,
    does: "A transaction that takes longer, from its first statement to its end, is undone and \
           its client is told goodbye (`25P04`). A single statement is a transaction, too.",
};

pub(super) static TIMEOUT_QUERY: Key<Bound> = Key {
    path: "timeouts.query",
    shape: BOUND,
    needed: Needed::No,
    does: "A statement that takes longer is cancelled (`57014`, \"canceling statement due to \
           statement timeout\", with a hint at this key); the time spent waiting for a server connection does not count. If it goes on \
           for as long again, its client is told goodbye. A COMMIT is never cancelled.",
};

pub(super) static TIMEOUT_CLIENT_WRITE: Key<Bound> = Key {
    path: "timeouts.client_write",
    shape: BOUND,
    needed: Needed::No,
    does: "A client that takes nothing for so long, while there is something for it to read, is \
           disconnected without a word, and what it was running is cancelled: its result holds a \
           server connection that others wait for. Programs that work on one row after the other \
           while they read may pause for long, so this has no default; `\"5min\"` ends those that \
           are stuck. Replication connections are left to the node's `wal_sender_timeout`.",
};

pub(super) static TIMEOUT_TCP_KEEPALIVE: Key<Time> = Key {
    path: "timeouts.tcp_keepalive",
    shape: Time {
        default: Duration::from_secs(30),
        least: Duration::from_secs(1),
        most: Duration::from_secs(7_200),
    },
    needed: Needed::No,
    does: "After so much silence on a TCP connection, to a client or to a node, the kernel asks \
           whether the other side is still there; three questions without an answer, a third of \
           this apart, end the connection. So a machine that has vanished is noticed after about \
           twice this time. Short values wake idle connections for nothing; long ones lose those \
           that a firewall forgets.",
};

pub(super) static TIMEOUT_TCP_USER: Key<Bound> = Key {
    path: "timeouts.tcp_user",
    shape: BOUND,
    needed: Needed::No,
    does: "How long bytes for the other side of a TCP connection may stay unacknowledged, or unsent \
           because it takes none, before the connection is ended (`TCP_USER_TIMEOUT`; Linux only). \
           Without it the kernel tries for a quarter of an hour to reach a machine that has \
           vanished, and waits for ever for one that takes nothing. A value below `tcp_keepalive` \
           also ends the wait for answers to its questions early.",
};

pub(super) static PEERING_ID: Key<PeerNumber> = Key {
    path: "peering.id",
    shape: PeerNumber,
    needed: Needed::No,
    does: "The number of this process, another for each process behind the address. Cancel keys that \
           it gives out begin with it, which leaves 18 random bits of a key in protocol 3.0 and 242 \
           in 3.2; without it all 32 and 256 are random. After 1024 requests with a wrong key a \
           session takes no cancel request any more.",
};

pub(super) static PEERING_PEER_ID: Key<PeerNumber> = Key {
    path: "peering.peers[].id",
    shape: PeerNumber,
    needed: Needed::Yes,
    does: "The number of another process, as its own file has it. A cancel request that begins with \
           it is forwarded there, once: a request that a peer has forwarded goes no further.",
};

pub(super) static PEERING_PEER_ADDRESS: Key<Place> = Key {
    path: "peering.peers[].address",
    shape: Place::Node,
    needed: Needed::Yes,
    does: "Where that process listens alone, not the address that they share. Any of its listeners \
           will do.",
};

pub(super) static LOG_LEVEL: Key<Choice<LogLevel>> = Key {
    path: "log.level",
    shape: Choice {
        default: LogLevel::Info,
        names: &[
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ],
    },
    needed: Needed::No,
    does: "What is logged: this and all that is graver. `\"error\"` is silent about promotions; \
           `\"trace\"` is for looking for a bug in pgweir itself.",
};

pub(super) static LOG_FORMAT: Key<Choice<LogFormat>> = Key {
    path: "log.format",
    shape: Choice {
        default: LogFormat::Text,
        names: &[("text", LogFormat::Text), ("json", LogFormat::Json)],
    },
    needed: Needed::No,
    does: "How a line looks: for people, or one JSON object. Lines go to standard error.",
};
