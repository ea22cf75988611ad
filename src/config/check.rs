//! The file as typed to a [`Config`]: defaults, bounds, and what must agree with what.

use std::collections::HashMap;

use super::keys::Key;
use super::raw::{Named, Table, nearest};
use super::shape::Shape;
use super::users;
use super::{
    Address, Admin, Auth, AuthMethod, Cluster, Config, Database, Fault, Limits, Listener, Log,
    Monitor, Node, Peer, PeerId, Peering, Pool, Reads, Routing, Secret, Sources, Timeouts, User,
    Users, keys,
};

/// Reads the whole file. The value counts only if nothing was reported, and the faults of the users
/// file, which has places of its own, are given back beside it.
pub(super) fn config(root: &Table<'_>, sources: &dyn Sources) -> (Config, Vec<Fault>) {
    let clusters = clusters(root);
    let databases = databases(root, &clusters);
    let (auth, faults) = auth(&root.table("auth"), sources);
    let config = Config {
        workers: root.table("process").get(&keys::WORKERS),
        listeners: listeners(root),
        clusters: clusters
            .into_iter()
            .map(|named| cluster(&named, sources))
            .collect(),
        databases,
        users: special_users(root),
        auth,
        admin: admin(&root.table("admin")),
        limits: limits(&root.table("limits")),
        timeouts: timeouts(&root.table("timeouts")),
        peering: peering(&root.table("peering")),
        log: log(&root.table("log")),
    };
    (config, faults)
}

fn listeners(root: &Table<'_>) -> Vec<Listener> {
    let tables = root.array("listener");
    if tables.is_empty() && !root.mistyped_array("listener") {
        root.missing(
            "listener",
            "at least one is needed: [[listener]] with an address",
        );
    }
    let mut first = HashMap::new();
    let mut listeners = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let Some(address) = table.find(&keys::LISTENER_ADDRESS) else {
            continue;
        };
        // Port 0 is another port each time.
        let chosen = !matches!(address.value, Address::Tcp(_, 0));
        match first.get(&address.value).filter(|_| chosen) {
            Some(other) => {
                let message = format!("listener[{other}] has the same address");
                table.fault(address.at, "address", message);
            }
            None => _ = first.insert(address.value.clone(), index),
        }
        listeners.push(Listener {
            address: address.value,
            route: table.get(&keys::LISTENER_ROUTE),
        });
    }
    listeners
}

fn clusters<'t>(root: &Table<'t>) -> Vec<Named<'t>> {
    let clusters = root.named("cluster");
    if clusters.is_empty() && !root.mistyped_table("cluster") {
        root.missing(
            "cluster",
            "at least one is needed: [cluster.main] with nodes",
        );
    }
    for cluster in &clusters {
        check_name(root, "cluster", cluster);
    }
    clusters
}

fn cluster(named: &Named<'_>, sources: &dyn Sources) -> Cluster {
    let table = &named.table;
    let reading = table.table("reads");
    Cluster {
        name: named.name.clone(),
        nodes: nodes(table),
        monitor: monitor(&table.table("monitor"), sources),
        reads: reads(&reading),
        standby_functions: reading.get(&keys::STANDBY_FUNCTIONS),
        standby_procedures: reading.get(&keys::STANDBY_PROCEDURES),
    }
}

fn reads(table: &Table<'_>) -> Reads {
    Reads {
        consistency: table.get(&keys::CONSISTENCY),
        max_lag: table.get(&keys::MAX_LAG),
        catalog_ttl: table.get(&keys::CATALOG_TTL),
        trust_declared_volatility: table.get(&keys::TRUST_DECLARED_VOLATILITY),
        catalogs: table.get(&keys::CATALOG_READS),
    }
}

fn nodes(cluster: &Table<'_>) -> Vec<Node> {
    let tables = cluster.array("nodes");
    if tables.is_empty() && !cluster.mistyped_array("nodes") {
        cluster.missing(
            "nodes",
            "at least one is needed: nodes = [ { address = \"host:5432\" } ]",
        );
    }
    if let Some(excess) = tables.get(keys::MAX_NODES) {
        let (most, number) = (keys::MAX_NODES, tables.len());
        excess.fault_here(format!(
            "a cluster may have {most} nodes; this one has {number}"
        ));
    }
    let mut addresses = HashMap::new();
    let mut names = HashMap::new();
    let mut nodes = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let typed = table.find(&keys::NODE_NAME);
        let Some(address) = table.find(&keys::NODE_ADDRESS) else {
            continue;
        };
        let text = table.text("address").unwrap_or_default();
        let (name, at) = match typed {
            Some(name) => (name.value, name.at),
            None => (text.to_owned(), address.at),
        };
        if let Some(other) = addresses.insert(address.value.clone(), index) {
            table.fault(
                address.at,
                "address",
                format!("nodes[{other}] has the same address"),
            );
        } else if let Some(other) = names.insert(name.clone(), index) {
            table.fault(at, "name", format!("nodes[{other}] has the same name"));
        }
        nodes.push(Node {
            name,
            address: address.value,
            max_connections: maybe(table, &keys::NODE_MAX_CONNECTIONS),
        });
    }
    nodes
}

fn monitor(table: &Table<'_>, sources: &dyn Sources) -> Monitor {
    Monitor {
        user: table.get(&keys::MONITOR_USER),
        password: password(table, sources),
        database: table.get(&keys::MONITOR_DATABASE),
        interval: table.get(&keys::MONITOR_INTERVAL),
        timeout: table.get(&keys::MONITOR_TIMEOUT),
    }
}

/// The password of the monitor user from the one place that the file names.
fn password(table: &Table<'_>, sources: &dyn Sources) -> Option<Secret> {
    let typed = table.find(&keys::MONITOR_PASSWORD);
    let file = table.find(&keys::MONITOR_PASSWORD_FILE);
    let env = table.find(&keys::MONITOR_PASSWORD_ENV);
    let mut given = [
        typed.as_ref().map(|typed| (typed.at, "password")),
        file.as_ref().map(|file| (file.at, "password_file")),
        env.as_ref().map(|env| (env.at, "password_env")),
    ]
    .into_iter()
    .flatten();
    if let (Some((_, one)), Some((at, other))) = (given.next(), given.next()) {
        table.fault(
            at,
            other,
            format!("{one} is given as well; only one of them may be"),
        );
        return None;
    }
    if let Some(file) = file {
        return match sources.read(&file.value).map(Secret::new) {
            Ok(content) => from_file(table, file.at, &content),
            Err(error) => {
                let message = format!("cannot read {:?}: {error}", file.value);
                table.fault(file.at, "password_file", message);
                None
            }
        };
    }
    if let Some(env) = env {
        let password = sources
            .env(&env.value)
            .filter(|password| !password.is_empty());
        if password.is_none() {
            let message = format!(
                "the environment variable {:?} is not set, or empty",
                env.value
            );
            table.fault(env.at, "password_env", message);
        }
        return password.map(Secret::new);
    }
    typed.map(|typed| Secret::new(typed.value))
}

/// The password that a file holds, less the line end that editors put after it.
fn from_file(table: &Table<'_>, at: usize, content: &Secret) -> Option<Secret> {
    let content = content.expose();
    let line = content.strip_suffix('\n').unwrap_or(content);
    let password = line.strip_suffix('\r').unwrap_or(line);
    if password.is_empty() {
        table.fault(at, "password_file", "the file is empty");
        return None;
    }
    Some(Secret::new(password.to_owned()))
}

fn databases(root: &Table<'_>, clusters: &[Named<'_>]) -> Vec<Database> {
    let databases = root.named("database");
    if databases.is_empty() && !root.mistyped_table("database") {
        root.missing(
            "database",
            "at least one is needed: [database.\"*\"] serves any name",
        );
    }
    for database in &databases {
        check_name(root, "database", database);
        if keys::CONSOLE.contains(&database.name.as_str()) {
            let message = "is the name of the console; give the database another name, with dbname";
            root.fault(database.at, "database", message);
        }
    }
    databases
        .iter()
        .map(|named| database(named, clusters))
        .collect()
}

fn database(named: &Named<'_>, clusters: &[Named<'_>]) -> Database {
    let table = &named.table;
    let dbname = table.find(&keys::DATABASE_DBNAME);
    if let Some(dbname) = dbname.as_ref().filter(|_| named.name == ANY) {
        let message = "is not for \"*\", where each name stands for itself; name the database";
        table.fault(dbname.at, "dbname", message);
    }
    Database {
        name: named.name.clone(),
        cluster: cluster_of(table, clusters),
        dbname: dbname.map(|dbname| dbname.value),
        max_connections: maybe(table, &keys::DATABASE_MAX_CONNECTIONS),
        max_clients: maybe(table, &keys::DATABASE_MAX_CLIENTS),
        routing: Routing {
            route: maybe(table, &keys::DATABASE_ROUTE),
            consistency: maybe(&table.table("reads"), &keys::DATABASE_CONSISTENCY),
            max_lag: maybe(&table.table("reads"), &keys::DATABASE_MAX_LAG),
            hints: Some(table.get(&keys::DATABASE_HINTS)),
        },
        pool: pool(&table.table("pool")),
    }
}

/// The value of a key that has no default.
fn maybe<S: Shape>(table: &Table<'_>, key: &Key<S>) -> Option<S::Value> {
    table.find(key).map(|found| found.value)
}

fn special_users(root: &Table<'_>) -> Vec<User> {
    let user = |named: &Named<'_>| {
        check_name(root, "user", named);
        let (table, pool) = (&named.table, named.table.table("pool"));
        let timeouts = table.table("timeouts");
        let user = User {
            name: named.name.clone(),
            max_connections: maybe(table, &keys::USER_MAX_CONNECTIONS),
            max_clients: maybe(table, &keys::USER_MAX_CLIENTS),
            routing: Routing {
                route: maybe(table, &keys::USER_ROUTE),
                consistency: maybe(&table.table("reads"), &keys::USER_CONSISTENCY),
                max_lag: maybe(&table.table("reads"), &keys::USER_MAX_LAG),
                hints: maybe(table, &keys::USER_HINTS),
            },
            mode: maybe(&pool, &keys::USER_POOL_MODE),
            size: maybe(&pool, &keys::USER_POOL_SIZE),
            min: maybe(&pool, &keys::USER_POOL_MIN),
            reserve: maybe(&pool, &keys::USER_POOL_RESERVE),
            currval: maybe(&pool, &keys::USER_POOL_CURRVAL),
            client_idle: maybe(&timeouts, &keys::USER_CLIENT_IDLE),
            idle_in_transaction: maybe(&timeouts, &keys::USER_IDLE_IN_TRANSACTION),
            transaction: maybe(&timeouts, &keys::USER_TRANSACTION),
            query: maybe(&timeouts, &keys::USER_QUERY),
        };
        check_min(
            &pool,
            user.min.unwrap_or(0),
            user.size.unwrap_or(usize::MAX),
        );
        user
    };
    root.named("user").iter().map(user).collect()
}

/// A pool cannot keep more connections than it may have.
fn check_min(pool: &Table<'_>, min: usize, size: usize) {
    if min > size
        && let Some(typed) = pool.find(&keys::POOL_MIN)
    {
        let message = format!("must not be more than size, which is {size}");
        pool.fault(typed.at, "min", message);
    }
}

/// The cluster that a database names, or the only one there is.
fn cluster_of(table: &Table<'_>, clusters: &[Named<'_>]) -> String {
    let names: Vec<&str> = clusters
        .iter()
        .map(|cluster| cluster.name.as_str())
        .collect();
    let Some(typed) = table.find(&keys::DATABASE_CLUSTER) else {
        match names[..] {
            [only] => return only.to_owned(),
            // Reported already: there is no cluster, or the key is there and is no text.
            [] => {}
            _ if table.has("cluster") => {}
            _ => table.missing("cluster", format!("is needed; one of {}", names.join(", "))),
        }
        return String::new();
    };
    if !names.is_empty() && !names.contains(&typed.value.as_str()) {
        let hint = match nearest(&typed.value, &names) {
            Some(nearest) => format!("did you mean {nearest:?}?"),
            None => format!("there are: {}", names.join(", ")),
        };
        table.fault(
            typed.at,
            "cluster",
            format!("no cluster {:?}; {hint}", typed.value),
        );
    }
    typed.value
}

fn pool(table: &Table<'_>) -> Pool {
    let pool = Pool {
        mode: table.get(&keys::POOL_MODE),
        size: table.get(&keys::POOL_SIZE),
        min: table.get(&keys::POOL_MIN),
        reserve: table.get(&keys::POOL_RESERVE),
        reserve_after: table.get(&keys::POOL_RESERVE_AFTER),
        wait_timeout: table.get(&keys::POOL_WAIT_TIMEOUT),
        max_prepared: table.get(&keys::POOL_MAX_PREPARED),
        connect_query: maybe(table, &keys::POOL_CONNECT_QUERY),
        reset_query: maybe(table, &keys::POOL_RESET_QUERY),
        listen: table.get(&keys::POOL_LISTEN),
        deferred_begin: table.get(&keys::POOL_DEFERRED_BEGIN),
        optimistic: table.get(&keys::POOL_OPTIMISTIC),
        currval: table.get(&keys::POOL_CURRVAL),
    };
    check_min(table, pool.min, pool.size);
    pool
}

fn auth(table: &Table<'_>, sources: &dyn Sources) -> (Auth, Vec<Fault>) {
    let method = table.get(&keys::AUTH_METHOD);
    if method == AuthMethod::ScramSha256 && !table.has("users_file") {
        let message = "is needed for method \"scram-sha-256\"";
        table.missing("users_file", message);
    }
    let (users, faults) = users_of(table, sources);
    (Auth { method, users }, faults)
}

fn users_of(table: &Table<'_>, sources: &dyn Sources) -> (Option<Users>, Vec<Fault>) {
    let Some(file) = table.find(&keys::AUTH_USERS_FILE) else {
        return (None, Vec::new());
    };
    match sources.read(&file.value).map(Secret::new) {
        Ok(text) => match users::parse(text.expose(), &file.value) {
            Ok(users) => (Some(users), Vec::new()),
            Err(faults) => (None, faults.0),
        },
        Err(error) => {
            let message = format!("cannot read {:?}: {error}", file.value);
            table.fault(file.at, "users_file", message);
            (None, Vec::new())
        }
    }
}

fn admin(table: &Table<'_>) -> Admin {
    Admin {
        users: table.get(&keys::ADMIN_USERS),
        http: maybe(table, &keys::ADMIN_HTTP),
        queries: table.get(&keys::ADMIN_QUERIES),
    }
}

fn limits(table: &Table<'_>) -> Limits {
    Limits {
        max_clients: table.get(&keys::MAX_CLIENTS),
        pipeline_buffer: table.get(&keys::PIPELINE_BUFFER),
        max_message: table.get(&keys::MAX_MESSAGE),
    }
}

fn timeouts(table: &Table<'_>) -> Timeouts {
    let bound = |key| maybe(table, key);
    Timeouts {
        login: table.get(&keys::TIMEOUT_LOGIN),
        connect: table.get(&keys::TIMEOUT_CONNECT),
        cancel: table.get(&keys::TIMEOUT_CANCEL),
        shutdown: table.get(&keys::TIMEOUT_SHUTDOWN),
        server_idle: table.get(&keys::TIMEOUT_SERVER_IDLE),
        server_lifetime: table.get(&keys::TIMEOUT_SERVER_LIFETIME),
        server_check: table.get(&keys::TIMEOUT_SERVER_CHECK),
        client_idle: bound(&keys::TIMEOUT_CLIENT_IDLE),
        idle_in_transaction: bound(&keys::TIMEOUT_IDLE_IN_TRANSACTION),
        transaction: bound(&keys::TIMEOUT_TRANSACTION),
        query: bound(&keys::TIMEOUT_QUERY),
        client_write: bound(&keys::TIMEOUT_CLIENT_WRITE),
        tcp_keepalive: table.get(&keys::TIMEOUT_TCP_KEEPALIVE),
        tcp_user: bound(&keys::TIMEOUT_TCP_USER),
    }
}

fn peering(table: &Table<'_>) -> Option<Peering> {
    let id = table.find(&keys::PEERING_ID).map(|id| id.value);
    let peers = peers(table, id);
    if table.has("peers") && !table.has("id") {
        table.missing("id", "is needed with peers");
    }
    id.map(|id| Peering { id, peers })
}

fn peers(peering: &Table<'_>, own: Option<PeerId>) -> Vec<Peer> {
    let mut ids = HashMap::new();
    let mut addresses = HashMap::new();
    let mut peers = Vec::new();
    for (index, table) in peering.array("peers").iter().enumerate() {
        let (id, address) = (
            table.find(&keys::PEERING_PEER_ID),
            table.find(&keys::PEERING_PEER_ADDRESS),
        );
        let (Some(id), Some(address)) = (id, address) else {
            continue;
        };
        if Some(id.value) == own {
            table.fault(id.at, "id", "is this process's own; list the others only");
        } else if let Some(other) = ids.insert(id.value, index) {
            table.fault(id.at, "id", format!("peers[{other}] has the same id"));
        } else if let Some(other) = addresses.insert(address.value.clone(), index) {
            let message = format!("peers[{other}] has the same address");
            table.fault(address.at, "address", message);
        }
        peers.push(Peer {
            id: id.value,
            address: address.value,
        });
    }
    peers
}

fn log(table: &Table<'_>) -> Log {
    Log {
        level: table.get(&keys::LOG_LEVEL),
        format: table.get(&keys::LOG_FORMAT),
    }
}

/// A name that the operator chose: not empty, and not longer than PostgreSQL lets a name be.
fn check_name(root: &Table<'_>, kind: &str, named: &Named<'_>) {
    let length = named.name.len();
    if length == 0 {
        root.fault(named.at, kind, "a name must not be empty");
    } else if length > keys::MAX_NAME {
        let most = keys::MAX_NAME;
        root.fault(
            named.at,
            kind,
            format!("a name may have {most} bytes; this one has {length}"),
        );
    }
}

/// The name of the database that stands for all others.
pub(super) const ANY: &str = "*";
