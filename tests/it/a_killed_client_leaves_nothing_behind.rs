//! Clients are killed in every state of the protocol, while others work: their locks are free at once, their transactions
//! are undone, the pool has its size, and whoever comes later is served. A COMMIT alone is left to its server.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pgweir::testbed::{Cluster, ProtocolVersion, RawClient, request};

use crate::support::{LIMIT, Rig, program, report, run, value};

/// The pool's size; the load has as many clients.
const SIZE: usize = 4;

/// What others may notice of a death. On a quiet machine it is a few milliseconds, which the test prints; this is the
/// bound for a busy one.
const FREE: Duration = Duration::from_secs(2);

/// Startup packet of those who will be killed.
const VICTIM: [(&str, &str); 3] = [
    ("user", "postgres"),
    ("database", "postgres"),
    ("application_name", "victim"),
];

/// What the victim keeps others from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Nothing,
    Row,
    AdvisoryLock,
}

impl Holds {
    /// What one waits for who wants the same.
    fn wanted(self) -> Option<&'static str> {
        match self {
            Holds::Nothing => None,
            Holds::Row => Some("UPDATE seat SET taken = taken"),
            Holds::AdvisoryLock => Some("SELECT pg_advisory_lock(7), pg_advisory_unlock(7)"),
        }
    }
}

/// A state of the protocol: how a client that has logged in comes to it.
struct State {
    name: &'static str,
    holds: Holds,
    enter: fn(&mut RawClient),
}

const fn state(name: &'static str, holds: Holds, enter: fn(&mut RawClient)) -> State {
    State { name, holds, enter }
}

const STATES: &[State] = &[
    state("after the login", Holds::Nothing, |_| ()),
    state("idle", Holds::Nothing, |client| {
        answered(client, "SELECT 1")
    }),
    state("in a statement", Holds::Row, |client| {
        send(client, &[request::query(SLEEPER)]);
    }),
    state("in a statement among others", Holds::Row, |client| {
        let sql = format!("{TAKE}; SELECT pg_sleep(60)");
        send(client, &[request::query(sql)]);
    }),
    state(
        "in a transaction begun among others",
        Holds::Row,
        |client| {
            let sql = format!("BEGIN; {TAKE}; SELECT pg_sleep(60)");
            send(client, &[request::query(sql)]);
        },
    ),
    state("in a statement of a transaction", Holds::Row, |client| {
        take(client);
        send(client, &[request::query("SELECT pg_sleep(60)")]);
    }),
    state("in a group", Holds::Row, |client| {
        send(client, &[group(SLEEPER), request::sync()]);
    }),
    state("in a pipeline", Holds::Row, |client| {
        let sleeper = [group(SLEEPER), request::sync()].concat();
        send(
            client,
            &[group("SELECT 1"), request::sync(), sleeper.repeat(20)],
        );
    }),
    state("in the middle of a large Bind", Holds::Row, |client| {
        take(client);
        let large = "x".repeat(4 << 20);
        let bind = request::bind("", "", &[Some(&large)]);
        let parse = request::parse("", "SELECT length($1::text)", &[]);
        send(client, &[parse, bind[..1 << 20].to_vec()]);
    }),
    state("in the middle of a header", Holds::Row, |client| {
        take(client);
        send(client, &[b"Q\0\0".to_vec()]);
    }),
    state("between Parse and Sync", Holds::Row, |client| {
        take(client);
        send(
            client,
            &[request::parse("", "SELECT 1", &[]), request::flush()],
        );
        client.expect(b'1').unwrap();
    }),
    state("between Execute and Sync", Holds::Row, |client| {
        send(client, &[group(TAKE), request::flush()]);
        for tag in [b'1', b'2', b'C'] {
            client.expect(tag).unwrap();
        }
    }),
    state("in a failed group", Holds::Nothing, |client| {
        send(client, &[group("SELECT 1/0"), request::flush()]);
        while client.recv().unwrap().tag != b'E' {}
    }),
    state("in COPY FROM", Holds::Row, |client| {
        take(client);
        send(client, &[request::query("COPY seat FROM STDIN")]);
        client.expect(b'G').unwrap();
        send(client, &[request::copy_data("2\t2\n")]);
    }),
    state("in the middle of CopyData", Holds::Row, |client| {
        take(client);
        send(client, &[request::query("COPY seat FROM STDIN")]);
        client.expect(b'G').unwrap();
        let data = request::copy_data("3\t3\n".repeat(1 << 20));
        send(client, &[data[..1 << 20].to_vec()]);
    }),
    state("in COPY TO, unread", Holds::Row, |client| {
        take(client);
        let sql = "COPY (SELECT repeat('x', 10000) FROM generate_series(1, 20000)) TO STDOUT";
        send(client, &[request::query(sql)]);
        client.expect(b'H').unwrap();
    }),
    state("in a large result, unread", Holds::Row, |client| {
        take(client);
        let sql = "SELECT repeat('x', 10000) FROM generate_series(1, 20000)";
        send(client, &[request::query(sql)]);
        client.expect(b'T').unwrap();
    }),
    state("idle in a transaction", Holds::Row, take),
    state("in a failed transaction", Holds::Nothing, |client| {
        take(client);
        client.query("SELECT 1/0").unwrap_err();
    }),
    state("with a portal open", Holds::Row, |client| {
        take(client);
        let portal = [
            request::parse("", "SELECT generate_series(1, 1000)", &[]),
            request::bind("p", "", &[]),
            request::execute("p", 1),
            request::sync(),
        ];
        send(client, &portal);
        client.recv_until_ready().unwrap();
    }),
    state("pinned by LISTEN", Holds::Nothing, |client| {
        answered(client, "LISTEN news");
    }),
    state("pinned by a temporary table", Holds::Nothing, |client| {
        answered(client, "CREATE TEMP TABLE mine (n int)");
    }),
    state("pinned by a cursor", Holds::Nothing, |client| {
        answered(client, "DECLARE c CURSOR WITH HOLD FOR SELECT 1");
    }),
    state(
        "pinned by an advisory lock",
        Holds::AdvisoryLock,
        |client| {
            answered(client, "SELECT pg_advisory_lock(7)");
        },
    ),
    state("pinned, in a statement", Holds::AdvisoryLock, |client| {
        answered(client, "SELECT pg_advisory_lock(7)");
        send(client, &[request::query("SELECT pg_sleep(60)")]);
    }),
];

const TAKE: &str = "UPDATE seat SET taken = taken + 1";

/// Holds the row while it sleeps.
const SLEEPER: &str =
    "WITH taken AS (UPDATE seat SET taken = taken + 1 RETURNING id) SELECT pg_sleep(60) FROM taken";

fn group(sql: &str) -> Vec<u8> {
    [
        request::parse("", sql, &[]),
        request::bind("", "", &[]),
        request::execute("", 0),
    ]
    .concat()
}

fn send(client: &mut RawClient, messages: &[Vec<u8>]) {
    client.send(&messages.concat()).unwrap();
}

fn answered(client: &mut RawClient, sql: &str) {
    client
        .query(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn take(client: &mut RawClient) {
    answered(client, "BEGIN");
    answered(client, TAKE);
}

/// How a client ends.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// The kernel closes its socket.
    Closed,
    /// The kernel resets it.
    Reset,
}

impl Death {
    fn of(self, client: RawClient) {
        match self {
            Death::Closed => drop(client),
            Death::Reset => client.reset().unwrap(),
        }
    }
}

fn rig(change: impl FnOnce(&mut pgweir::config::Config)) -> Rig {
    let rig = Rig::start(0, |config| {
        config.databases[0].pool.size = SIZE;
        change(config);
    });
    let sql = "CREATE TABLE seat (id int PRIMARY KEY, taken int); INSERT INTO seat VALUES (1, 0); \
        CREATE TABLE accounts AS SELECT n AS id, 0 AS balance FROM generate_series(1, 8) AS n; \
        CREATE TABLE ghosts (n int)";
    rig.cluster.primary().execute(sql).unwrap();
    rig
}

/// Others work while `work` is done. None of them may notice anything.
fn under_load(rig: &Rig, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let loads: Vec<_> = (0..SIZE)
            .map(|number| {
                let done = &done;
                scope.spawn(move || load(rig, number, done))
            })
            .collect();
        // However the work ends, the load has to.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let rounds: Vec<usize> = loads.into_iter().map(|load| load.join().unwrap()).collect();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        assert!(rounds.iter().all(|rounds| *rounds > 0), "{rounds:?}");
    });
    let sum = rig
        .cluster
        .primary()
        .value("SELECT sum(balance) FROM accounts");
    assert_eq!(sum.unwrap(), "0");
}

/// Transfers, as pgbench makes them.
fn load(rig: &Rig, number: usize, done: &AtomicBool) -> usize {
    let mut client = rig.client("postgres");
    let mut rounds = 0;
    while !done.load(Ordering::Relaxed) {
        let [from, to] = [number, number + SIZE].map(|id| id % 8 + 1);
        for sql in [
            "BEGIN".to_owned(),
            format!("UPDATE accounts SET balance = balance - 1 WHERE id = {from}"),
            format!("UPDATE accounts SET balance = balance + 1 WHERE id = {to}"),
            "COMMIT".to_owned(),
        ] {
            answered(&mut client, &sql);
        }
        let name = value(&mut client, "SHOW application_name");
        assert_eq!(name, "", "a victim's");
        rounds += 1;
    }
    rounds
}

/// Whoever wants what the victim holds waits for it, then has it.
struct Waiter {
    client: RawClient,
    since: Instant,
}

impl Waiter {
    fn queue(rig: &Rig, holds: Holds) -> Option<Waiter> {
        let wanted = holds.wanted()?;
        let primary = rig.cluster.primary();
        let mut client = primary.connect("postgres").unwrap();
        let process = client.backend_key().unwrap().process_id;
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {process} AND wait_event_type = 'Lock'"
        );
        // The victim may not have got as far: then this one goes first, and tries again.
        rig.wait("the victim to hold what another wants", || {
            client.send(&request::query(wanted)).unwrap();
            let mut is_waiting = false;
            while !is_waiting {
                let Ok(None) = client.recv_within(Duration::from_millis(1)) else {
                    client.recv_until_ready().unwrap();
                    return false;
                };
                is_waiting = primary.value(&waiting).unwrap() == "1";
            }
            true
        });
        Some(Waiter {
            client,
            since: Instant::now(),
        })
    }

    /// How long it took from now on.
    fn dies(&mut self) {
        self.since = Instant::now();
    }

    #[track_caller]
    fn served(mut self, what: &str) -> Duration {
        self.client.set_timeout(LIMIT);
        let answer = self.client.recv_until_ready();
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        let took = self.since.elapsed();
        assert!(
            answer.iter().all(|message| message.tag != b'E'),
            "{answer:?}"
        );
        took
    }
}

/// Nothing of a victim is left.
fn nothing_is_left(rig: &Rig, what: &str) {
    let primary = rig.cluster.primary();
    // A connection that is idle may bear the name of whoever had it last.
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'victim' AND state <> 'idle'";
    rig.wait(&format!("no victim on the server: {what}"), || {
        primary.value(busy).unwrap() == "0"
    });
    for (sql, expected) in [
        ("SELECT taken FROM seat", "0"),
        ("SELECT count(*) FROM seat", "1"),
        ("SELECT count(*) FROM ghosts", "0"),
        ("SELECT count(*) FROM pg_class WHERE relname = 'mine'", "0"),
        (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
            "0",
        ),
    ] {
        rig.wait(&format!("{what}: {sql}"), || {
            primary.value(sql).unwrap() == expected
        });
    }
    let mut next = rig.client("postgres");
    answered(&mut next, "UPDATE seat SET taken = taken");
}

/// The pool has its size: so many clients are served at the same time, and the server has no more connections.
fn the_pool_has_its_size(rig: &Rig) {
    rig.wait("all clients to be gone", || {
        rig.metric("pgweir_clients", &[]) == 0.0
    });
    rig.wait("all connections to be idle", || {
        let active = [("database", "postgres"), ("state", "active")];
        rig.metric("pgweir_pool_connections", &active) == 0.0
            && rig.metric("pgweir_pool_waiting", &[]) == 0.0
    });
    let mut clients: Vec<RawClient> = (0..SIZE).map(|_| rig.client("postgres")).collect();
    for client in &mut clients {
        answered(client, "BEGIN");
        answered(client, "SELECT count(*) FROM accounts");
    }
    // The proxy's own connection watches, and this question is asked on one more.
    let count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
    let expected = (SIZE + 2).to_string();
    rig.wait("no connection too many on the server", || {
        rig.cluster.primary().value(count).unwrap() == expected
    });
}

#[test]
fn in_every_state() {
    let rig = rig(|_| ());
    let mut slowest = (Duration::ZERO, "");
    under_load(&rig, || {
        for state in STATES {
            for death in [Death::Closed, Death::Reset] {
                let what = format!("{}, {death:?}", state.name);
                let mut victim = rig.client_with(&VICTIM);
                (state.enter)(&mut victim);
                let mut waiter = Waiter::queue(&rig, state.holds);
                waiter.iter_mut().for_each(Waiter::dies);
                death.of(victim);
                if let Some(waiter) = waiter {
                    let took = waiter.served(&what);
                    assert!(took < FREE, "{what}: {took:?}");
                    slowest = slowest.max((took, state.name));
                }
                nothing_is_left(&rig, &what);
            }
        }
    });
    let (took, state) = slowest;
    report(&format!("the slowest to be free, after {took:?}: {state}"));
    the_pool_has_its_size(&rig);
}

/// A server process ignores a cancel that comes before it has begun with what it has been sent: it gets another.
#[test]
fn before_the_server_has_begun() {
    let rig = rig(|_| ());
    let cancels = || rig.metric("pgweir_cancel_requests_total", &[("result", "sent")]);
    for sql in [
        "SELECT pg_sleep(60)",
        "INSERT INTO ghosts SELECT 1 FROM pg_sleep(60)",
    ] {
        let mut victim = rig.client_with(&VICTIM);
        answered(&mut victim, "SELECT pg_advisory_lock(7)");
        let process = value(&mut victim, "SELECT pg_backend_pid()");
        let mut waiter = Waiter::queue(&rig, Holds::AdvisoryLock).unwrap();
        let before = cancels();
        run(Command::new("kill").args(["-STOP", &process]));
        send(&mut victim, &[request::query(sql)]);
        waiter.dies();
        Death::Closed.of(victim);
        rig.wait("the first cancel", || cancels() > before);
        run(Command::new("kill").args(["-CONT", &process]));
        let took = waiter.served(sql);
        report(&format!("{sql}: free after {took:?}"));
        nothing_is_left(&rig, sql);
    }
    // Behind what runs there is more: nothing is heard of its end, and so it gets two more in any case.
    let mut victim = rig.client_with(&VICTIM);
    answered(&mut victim, "BEGIN");
    let before = cancels();
    let sleeper = [group("SELECT pg_sleep(60)"), request::sync()].concat();
    send(&mut victim, &[sleeper.repeat(2)]);
    Death::Closed.of(victim);
    rig.wait("three cancels", || cancels() == before + 3.0);
    nothing_is_left(&rig, "in a pipeline");
    the_pool_has_its_size(&rig);
}

/// Before a session has begun.
#[test]
fn during_the_login() {
    let rig = rig(|_| ());
    let startup = request::startup(ProtocolVersion::V3_0, &VICTIM);
    let flights = [
        Vec::new(),
        b"\0".to_vec(),
        request::ssl_request(),
        startup[..startup.len() / 2].to_vec(),
        startup.clone(),
        [&startup[..], &request::query(SLEEPER)].concat(),
    ];
    under_load(&rig, || {
        for flight in &flights {
            for death in [Death::Closed, Death::Reset] {
                let mut victim = RawClient::open(&rig.raw_address()).unwrap();
                victim.send(flight).unwrap();
                death.of(victim);
            }
        }
        rig.wait("only the load to be left", || {
            rig.metric("pgweir_clients", &[]) == SIZE as f64
        });
        nothing_is_left(&rig, "during the login");
    });
    the_pool_has_its_size(&rig);
}

/// A client that waits for a server connection leaves the queue when it dies, and what it asked for is not done.
#[test]
fn in_the_queue() {
    let rig = rig(|config| config.databases[0].pool.wait_timeout = LIMIT * 20);
    let mut victims: Vec<RawClient> = (0..4).map(|_| rig.client_with(&VICTIM)).collect();
    let mut holders: Vec<RawClient> = (0..SIZE).map(|_| rig.client("postgres")).collect();
    for holder in &mut holders {
        answered(holder, "BEGIN; SELECT 1");
    }
    let waiting = |count: f64| {
        rig.wait(&format!("{count} clients to wait"), || {
            rig.metric("pgweir_pool_waiting", &[]) == count
        });
    };
    for death in [Death::Closed, Death::Reset] {
        for flight in [
            request::query("INSERT INTO ghosts VALUES (1)"),
            [group("INSERT INTO ghosts VALUES (1)"), request::sync()].concat(),
        ] {
            let mut victim = victims.pop().unwrap();
            victim.send(&flight).unwrap();
            waiting(1.0);
            death.of(victim);
            waiting(0.0);
        }
    }
    for mut holder in holders {
        answered(&mut holder, "COMMIT");
    }
    nothing_is_left(&rig, "in the queue");
    the_pool_has_its_size(&rig);
}

/// Processes, killed by the signal itself.
#[test]
fn processes_killed_by_signal_9() {
    let rig = rig(|_| ());
    under_load(&rig, || {
        for (script, wanted) in [
            (&["BEGIN", TAKE, "SELECT pg_sleep(60)"][..], Holds::Row),
            (&[SLEEPER], Holds::Row),
            (&["BEGIN", TAKE, "COPY seat FROM STDIN"], Holds::Row),
            (
                &[
                    "BEGIN",
                    TAKE,
                    "COPY (SELECT repeat('x', 10000) FROM generate_series(1, 20000)) TO STDOUT",
                ],
                Holds::Row,
            ),
            (
                &["SELECT pg_advisory_lock(7)", "SELECT pg_sleep(60)"],
                Holds::AdvisoryLock,
            ),
        ] {
            let mut victim = psql(&rig, script);
            let mut waiter = Waiter::queue(&rig, wanted);
            waiter.iter_mut().for_each(Waiter::dies);
            victim.kill().unwrap();
            victim.wait().unwrap();
            let took = waiter.unwrap().served(&format!("{script:?}"));
            report(&format!("{script:?}: free after {took:?}"));
            assert!(took < FREE, "{script:?}: {took:?}");
            nothing_is_left(&rig, script.last().unwrap());
        }
    });
    the_pool_has_its_size(&rig);
}

/// A psql whose input stays open and whose output is not read.
fn psql(rig: &Rig, script: &[&str]) -> Child {
    let mut psql = program(&rig.cluster, "psql");
    psql.args(["-X", "-q", &rig.url("postgres")]);
    psql.env("PGAPPNAME", "victim");
    for sql in script {
        psql.args(["-c", sql]);
    }
    psql.stdin(Stdio::piped()).stdout(Stdio::piped());
    psql.spawn().expect("psql runs")
}

/// In each way in which a transaction is committed: cancelled while it waits for a standby, it would be done and not
/// replicated.
#[test]
fn a_commit_is_left_to_its_server() {
    let cluster = Cluster::builder().standbys(1).synchronous(true);
    let rig = Rig::with(cluster, |config| config.databases[0].pool.size = 20);
    let (primary, standby) = (rig.cluster.primary(), rig.cluster.standbys()[0]);
    primary.execute("CREATE TABLE done (n int)").unwrap();
    rig.cluster.wait_caught_up().unwrap();
    let insert = |n: usize| format!("INSERT INTO done VALUES ({n})");
    let commits: Vec<Vec<Vec<u8>>> = vec![
        vec![request::query("COMMIT")],
        vec![request::query("END")],
        vec![request::query("COMMIT AND CHAIN")],
        vec![group("COMMIT"), request::sync()],
        vec![request::query("SELECT 1; COMMIT")],
        vec![group("SELECT 1"), group("COMMIT"), request::sync()],
        vec![request::query("COMMIT"), request::query("SELECT 1")],
    ];
    let mut victims = Vec::new();
    for (n, _) in commits.iter().enumerate() {
        let mut victim = rig.client_with(&VICTIM);
        answered(&mut victim, "BEGIN");
        answered(&mut victim, &insert(n));
        victims.push(victim);
    }
    let last = commits.len();
    let mut all = rig.client_with(&VICTIM);
    answered(&mut all, "SELECT 1");
    standby.freeze().unwrap();
    for (victim, commit) in victims.iter_mut().zip(&commits) {
        send(victim, commit);
    }
    let sql = format!("BEGIN; {}; COMMIT", insert(last));
    send(&mut all, &[request::query(sql)]);
    victims.push(all);
    // Nobody says COMMIT here.
    let by_itself = [
        vec![request::query(insert(last + 1))],
        vec![group(&insert(last + 2)), request::sync()],
        vec![request::query(format!("SELECT 1; {}", insert(last + 3)))],
    ];
    for messages in &by_itself {
        let mut victim = rig.client_with(&VICTIM);
        send(&mut victim, messages);
        victims.push(victim);
    }
    let count = victims.len().to_string();
    let waiting = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        primary.value(sql).unwrap()
    };
    rig.wait("all to wait for the standby", || waiting() == count);
    for (number, victim) in victims.into_iter().enumerate() {
        [Death::Closed, Death::Reset][number % 2].of(victim);
    }
    rig.wait("the proxy to know that they are dead", || {
        rig.metric("pgweir_clients", &[]) == 0.0
    });
    let cancelled = "canceling wait for synchronous";
    rig.wait("the server to be asked about those", || {
        rig.metric("pgweir_cancel_requests_total", &[("result", "sent")]) >= by_itself.len() as f64
    });
    assert_eq!(waiting(), count);
    standby.thaw().unwrap();
    rig.wait("all to be done", || {
        primary.value("SELECT count(*) FROM done").unwrap() == count
    });
    assert!(!primary.log().unwrap().contains(cancelled));
    rig.wait("no victim on the server", || waiting() == "0");
    assert_eq!(value(&mut rig.client("postgres"), "SELECT 1"), "1");
}

/// What it has sent ahead waits for what it runs, and its death is noticed all the same.
#[test]
fn with_the_next_statement_sent_ahead() {
    let rig = Rig::start(1, |_| ());
    let standby = rig.cluster.standbys()[0];
    let running = |wanted: &str| {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' \
                   AND state = 'active' AND pid <> pg_backend_pid()";
        standby.value(sql).expect("a count") == wanted
    };
    let mut client = rig.client("postgres");
    let ahead = [
        request::query("SELECT pg_sleep(600)"),
        request::query("CREATE TABLE never (a int)"),
    ];
    client.send(&ahead.concat()).expect("an open connection");
    rig.wait("the read to run on the standby", || running("1"));
    drop(client);
    rig.wait("the read to be cancelled", || running("0"));
    let never = "SELECT count(*) FROM pg_class WHERE relname = 'never'";
    assert_eq!(rig.cluster.primary().value(never).expect("a count"), "0");
}
