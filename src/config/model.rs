//! The configuration as the program uses it: every value present, checked and in its own type.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

/// The whole of proxy.toml.
#[derive(Clone, Debug)]
pub struct Config {
    /// Worker threads.
    pub workers: usize,
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// The clusters; at least one.
    pub clusters: Vec<Cluster>,
    /// The databases; at least one.
    pub databases: Vec<Database>,
    /// What is special about users.
    pub users: Vec<User>,
    /// Who may log in.
    pub auth: Auth,
    /// Administration.
    pub admin: Admin,
    /// Bounds.
    pub limits: Limits,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Other processes behind the same address; `None` if this one is alone.
    pub peering: Option<Peering>,
    /// The log.
    pub log: Log,
}

/// Where a node, or a listener, is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Host name or IP address, and port.
    Tcp(String, u16),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One place where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it is.
    pub address: Address,
    /// Where statements of its clients go. Whatever is not `Split` holds for all of them, whatever they ask for.
    pub route: Route,
}

/// One that splits.
impl From<Address> for Listener {
    fn from(address: Address) -> Listener {
        Listener {
            address,
            route: Route::Split,
        }
    }
}

/// Where statements go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Route {
    /// Reads to standbys, everything else to the primary.
    #[default]
    Split,
    /// Everything to the primary.
    Primary,
    /// Everything to standbys, which refuse what writes.
    Standby,
    /// Everything to the primary, and what `Split` would have moved is counted.
    Observe,
}

impl Route {
    /// Every value with its word.
    pub const NAMES: [(&'static str, Route); 4] = [
        ("split", Route::Split),
        ("primary", Route::Primary),
        ("standby", Route::Standby),
        ("observe", Route::Observe),
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        Route::NAMES[self as usize].0
    }
}

/// What a read must show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// No more than the bound on lag says.
    Eventual,
    /// What its session has written.
    #[default]
    Session,
}

impl Consistency {
    /// Every value with its word.
    pub const NAMES: [(&'static str, Consistency); 2] = [
        ("eventual", Consistency::Eventual),
        ("session", Consistency::Session),
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        Consistency::NAMES[self as usize].0
    }
}

/// What sessions of a database, or of a user, have instead of what holds otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// Where statements go.
    pub route: Option<Route>,
    /// What a read must show.
    pub consistency: Option<Consistency>,
    /// The most that a standby may lag.
    pub max_lag: Option<Duration>,
    /// What becomes of hints in comments and of the settings `pgweir.…`.
    pub hints: Option<Hints>,
}

impl Routing {
    /// This where it says something, the other where it does not.
    #[must_use]
    pub fn or(self, other: Routing) -> Routing {
        Routing {
            route: self.route.or(other.route),
            consistency: self.consistency.or(other.consistency),
            max_lag: self.max_lag.or(other.max_lag),
            hints: self.hints.or(other.hints),
        }
    }
}

/// What becomes of hints in comments and of the settings `pgweir.…`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hints {
    /// They are followed.
    #[default]
    Allow,
    /// Hints are comments like others, and the settings are refused.
    Ignore,
}

/// One cluster: a primary and its standbys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Its nodes; at least one.
    pub nodes: Vec<Node>,
    /// How they are watched.
    pub monitor: Monitor,
    /// Which standbys are read.
    pub reads: Reads,
    /// Users' functions that may run on standbys whatever they are declared as.
    pub standby_functions: Vec<String>,
    /// Procedures that may run on standbys.
    pub standby_procedures: Vec<String>,
}

/// One PostgreSQL instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name; the address as typed if none was given.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// Most server connections, of all pools.
    pub max_connections: Option<usize>,
}

/// How nodes are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// The user that asks.
    pub user: String,
    /// Its password, if it has one.
    pub password: Option<Secret>,
    /// The database that it connects to.
    pub database: String,
    /// How often each node is asked.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Which standbys are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// What a read must show.
    pub consistency: Consistency,
    /// The most that a standby may lag.
    pub max_lag: Duration,
    /// How late a change of the catalog is noticed that the proxy did not see.
    pub catalog_ttl: Duration,
    /// Users' functions may run on standbys if they are declared immutable or stable.
    pub trust_declared_volatility: bool,
    /// System catalogs are read on standbys, too.
    pub catalogs: bool,
}

/// One database as clients know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its name; `*` stands for all that are not named.
    pub name: String,
    /// The cluster that it is on.
    pub cluster: String,
    /// Its name there, if that is another.
    pub dbname: Option<String>,
    /// Most server connections on a node, of all users.
    pub max_connections: Option<usize>,
    /// Most clients.
    pub max_clients: Option<usize>,
    /// How its statements are routed, if otherwise than in its cluster.
    pub routing: Routing,
    /// Its pools.
    pub pool: Pool,
}

/// What is special about a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// Most server connections on a node, to all databases.
    pub max_connections: Option<usize>,
    /// Most clients.
    pub max_clients: Option<usize>,
    /// How its statements are routed, if otherwise than in the database.
    pub routing: Routing,
    /// When a server connection goes back, if otherwise than the database has it; so the next four.
    pub mode: Option<PoolMode>,
    /// Most server connections of one pool.
    pub size: Option<usize>,
    /// Server connections that a pool keeps.
    pub min: Option<usize>,
    /// Server connections beyond the size.
    pub reserve: Option<usize>,
    /// What becomes of currval and lastval.
    pub currval: Option<CurrvalPolicy>,
    /// Bounds on phases, in place of those of all; so the next three.
    pub client_idle: Option<Duration>,
    /// A client that sends nothing inside a transaction.
    pub idle_in_transaction: Option<Duration>,
    /// A transaction.
    pub transaction: Option<Duration>,
    /// A statement.
    pub query: Option<Duration>,
}

/// The pools of a database: one for each node and user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// When a server connection goes back.
    pub mode: PoolMode,
    /// Most server connections of one pool.
    pub size: usize,
    /// Server connections that a pool keeps while it has clients.
    pub min: usize,
    /// Server connections beyond the size, for clients that wait for long.
    pub reserve: usize,
    /// How long that is.
    pub reserve_after: Duration,
    /// How long a client waits for one.
    pub wait_timeout: Duration,
    /// Most prepared statements that a server connection holds.
    pub max_prepared: usize,
    /// SQL for new server connections.
    pub connect_query: Option<String>,
    /// SQL for those that are cleaned, before DISCARD ALL.
    pub reset_query: Option<String>,
    /// What LISTEN does to its session.
    pub listen: ListenPolicy,
    /// BEGIN waits for the first statement.
    pub deferred_begin: bool,
    /// Transactions that may write read from standbys until they do something else.
    pub optimistic: bool,
    /// What becomes of currval and lastval.
    pub currval: CurrvalPolicy,
}

/// What becomes of `currval` and `lastval` outside of transaction blocks, where sessions share server connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CurrvalPolicy {
    /// A session keeps its connection for them.
    Pin,
    /// They are refused.
    Reject,
    /// They tell of whatever connection they come to.
    Allow,
}

/// What LISTEN does to its session, where that does not keep a server connection anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenPolicy {
    /// Nothing: one connection hears for all.
    Shared,
    /// It keeps its server connection.
    Pin,
}

/// When a server connection goes back to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// After each transaction.
    Transaction,
    /// When the client leaves.
    Session,
    /// After each statement: transaction blocks are refused.
    Statement,
}

/// Who may log in.
#[derive(Clone, Debug)]
pub struct Auth {
    /// How clients prove who they are.
    pub method: AuthMethod,
    /// The users file, if there is one.
    pub users: Option<Users>,
}

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// They are believed.
    Trust,
    /// SCRAM-SHA-256.
    ScramSha256,
}

/// Users and their secrets, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Users(pub Vec<(String, UserSecret)>);

impl Users {
    /// Names and secrets.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &UserSecret)> {
        self.0.iter().map(|(name, secret)| (name.as_str(), secret))
    }
}

/// What a users file has for a user.
#[derive(Clone, Debug)]
pub enum UserSecret {
    /// The password; empty means that none fits.
    Plain(Secret),
    /// A SCRAM verifier.
    Scram(ScramVerifier),
}

/// A SCRAM-SHA-256 verifier as PostgreSQL stores it in `pg_authid`.
#[derive(Clone)]
pub struct ScramVerifier {
    /// PBKDF2 rounds.
    pub iterations: NonZeroU32,
    /// The salt.
    pub salt: Vec<u8>,
    /// SHA-256 of the client key.
    pub stored_key: [u8; 32],
    /// The server key.
    pub server_key: [u8; 32],
}

impl std::fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramVerifier(…)")
    }
}

/// A secret: wiped when it is dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret over.
    pub fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Administration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Who may use the console.
    pub users: Vec<String>,
    /// Where HTTP is answered; nowhere if absent.
    pub http: Option<Address>,
    /// Statements that are told apart to be counted; none are counted if 0.
    pub queries: usize,
}

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most clients.
    pub max_clients: usize,
    /// Bytes of a pipelined group that are held before its place is chosen.
    pub pipeline_buffer: usize,
    /// Largest message of a client, in bytes.
    pub max_message: usize,
}

/// Deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the login.
    pub login: Duration,
    /// Connect and login to a node.
    pub connect: Duration,
    /// Delivery of a cancel request.
    pub cancel: Duration,
    /// From SIGTERM to the end.
    pub shutdown: Duration,
    /// A server connection that nobody uses is closed.
    pub server_idle: Duration,
    /// A server connection is closed at this age.
    pub server_lifetime: Duration,
    /// A server connection that nobody has used for so long is asked before it is used.
    pub server_check: Duration,
    /// A client that sends nothing is told goodbye.
    pub client_idle: Option<Duration>,
    /// The same inside a transaction.
    pub idle_in_transaction: Option<Duration>,
    /// A transaction that takes longer is undone.
    pub transaction: Option<Duration>,
    /// A statement that takes longer is cancelled.
    pub query: Option<Duration>,
    /// A client that takes nothing of what there is for it is disconnected.
    pub client_write: Option<Duration>,
    /// Silence on a TCP connection until the kernel asks whether the other side is there.
    pub tcp_keepalive: Duration,
    /// How long bytes on a TCP connection may stay unacknowledged; `None` is the kernel's choice.
    pub tcp_user: Option<Duration>,
}

/// One process among several behind one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peering {
    /// Its number.
    pub id: PeerId,
    /// The others.
    pub peers: Vec<Peer>,
}

/// Another process behind the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub id: PeerId,
    /// Where it alone takes cancel requests.
    pub address: Address,
}

/// The number of a process among its peers, from 1 to [`PeerId::MOST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerId(pub u16);

impl PeerId {
    /// The largest, as in PgBouncer: 14 bits of a cancel key hold it.
    pub const MOST: u16 = 16_383;
}

/// The log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
