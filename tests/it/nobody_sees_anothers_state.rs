//! Whatever state a session has on a server is its own: its owner keeps it or is told that it cannot be had, and nobody
//! else ever sees it, though all of them share one server connection.
//!
//! PostgreSQL itself is the oracle. For each row the state is made straight on a server, where the same look must find
//! it, and a look from a second connection must not: so a row can fail. Then the same through the proxy.

use std::collections::BTreeMap;
use std::time::Duration;

use pgweir::config::PoolMode;
use pgweir::testbed::{Error, Message, RawClient, request};

use crate::support::{LIMIT, Rig};

/// How long one listens for what is not to be heard.
const SHORT: Duration = Duration::from_millis(150);

/// How a state is made, or looked for.
#[derive(Clone, Copy)]
enum Step {
    Sql(&'static str),
    /// Messages up to their Sync.
    Messages(fn() -> Vec<Vec<u8>>),
    /// Somebody else notifies the channel; does the client hear of it?
    Hears(&'static str),
}

use Step::{Hears, Messages, Sql};

/// What becomes of the state, beside that nobody else sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It follows its owner, who shares the connection.
    Follows,
    /// Its owner keeps it, and the connection if need be.
    Kept,
    /// It ends with its statement, and nobody is told: what a function does cannot be seen from outside.
    Ends,
}

use Fate::{Ends, Follows, Kept};

struct Row {
    make: &'static [Step],
    look: Step,
    fate: Fate,
}

const fn row(make: &'static [Step], look: &'static str, fate: Fate) -> Row {
    Row {
        make,
        look: Sql(look),
        fate,
    }
}

/// Functions by what they do to their session, each with its body.
const FUNCTIONS: [(&str, &str); 8] = [
    (
        "sets",
        "BEGIN PERFORM set_config('work_mem', '9MB', false); END",
    ),
    (
        "speaks_german",
        "BEGIN -- from now on\n SET DateStyle = 'German'; END",
    ),
    ("is_another", "SET ROLE helper"),
    ("makes", "BEGIN CREATE TEMP TABLE mine (n int); END"),
    ("locks", "BEGIN PERFORM pg_advisory_lock(7); END"),
    ("prepares", "BEGIN EXECUTE 'PREPARE p AS SELECT 7'; END"),
    (
        "declares",
        "BEGIN EXECUTE 'DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 7'; END",
    ),
    ("listens", "BEGIN LISTEN news; END"),
];

/// A table whose trigger changes a setting of whoever writes to it.
const WATCHED: &str = "CREATE TABLE watched (note text); \
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS \
        $$BEGIN PERFORM set_config('work_mem', '9MB', false); RETURN NEW; END$$; \
    CREATE TRIGGER watch BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION watch()";

const WORK_MEM: &str = "SHOW work_mem";
const MINE: &str = "SELECT to_regclass('mine') IS NOT NULL";
const LOCKS: &str =
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";

fn named_statement() -> Vec<Vec<u8>> {
    vec![request::parse("s", "SELECT 'mine'", &[])]
}

fn unnamed_statement() -> Vec<Vec<u8>> {
    vec![request::parse("", "SELECT 'mine'", &[])]
}

fn run_named() -> Vec<Vec<u8>> {
    vec![request::bind("", "s", &[]), request::execute("", 0)]
}

fn run_unnamed() -> Vec<Vec<u8>> {
    vec![request::bind("", "", &[]), request::execute("", 0)]
}

fn portal() -> Vec<Vec<u8>> {
    vec![
        request::parse("", "SELECT generate_series(1, 1000)", &[]),
        request::bind("p", "", &[]),
        request::execute("p", 1),
    ]
}

/// Always the same row: a portal that is looked at twice has moved on.
fn portal_columns() -> Vec<Vec<u8>> {
    vec![request::describe_portal("p")]
}

const ROWS: &[Row] = &[
    // ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────
    row(&[Sql("SET work_mem = '9MB'")], WORK_MEM, Follows),
    row(&[Sql("SET SESSION work_mem TO '9MB'")], WORK_MEM, Follows),
    row(
        &[Sql("SET my.own = 'x'")],
        "SELECT coalesce(current_setting('my.own', true), '')",
        Follows,
    ),
    row(
        &[Sql("SET search_path = elsewhere, public")],
        "SHOW search_path",
        Follows,
    ),
    row(
        &[Sql("SET TIME ZONE 'Asia/Tokyo'")],
        "SHOW TimeZone",
        Follows,
    ),
    row(
        &[Sql("SET TimeZone = 'Asia/Tokyo'")],
        "SELECT timestamptz '2024-01-01 00:00:00+00' ",
        Follows,
    ),
    row(
        &[Sql("SET DateStyle = 'German'")],
        "SELECT date '2024-02-01'",
        Follows,
    ),
    row(
        &[Sql("SET client_encoding = 'LATIN1'")],
        "SHOW client_encoding",
        Follows,
    ),
    row(
        &[Sql("SET NAMES 'LATIN1'")],
        "SHOW client_encoding",
        Follows,
    ),
    row(
        &[Sql("SET application_name = 'mine'")],
        "SHOW application_name",
        Follows,
    ),
    row(
        &[Sql("SET default_transaction_isolation = 'repeatable read'")],
        "SHOW transaction_isolation",
        Follows,
    ),
    row(
        &[Sql(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        )],
        "SHOW transaction_isolation",
        Follows,
    ),
    row(
        &[Sql("SET default_transaction_read_only = on")],
        "SHOW transaction_read_only",
        Follows,
    ),
    row(
        &[Sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")],
        "SHOW transaction_read_only",
        Follows,
    ),
    row(
        &[Sql("SET plan_cache_mode = force_generic_plan")],
        "SHOW plan_cache_mode",
        Follows,
    ),
    row(
        &[Sql("SET statement_timeout = '61s'")],
        "SHOW statement_timeout",
        Follows,
    ),
    row(
        &[Sql("SET lock_timeout = '61s'"), Sql("SET work_mem = '9MB'")],
        "SHOW lock_timeout",
        Follows,
    ),
    row(
        &[Sql("SET session_replication_role = replica")],
        "SHOW session_replication_role",
        Follows,
    ),
    row(&[Sql("SET ROLE helper")], "SELECT current_user", Follows),
    row(
        &[Sql("SET SESSION AUTHORIZATION helper")],
        "SELECT session_user",
        Follows,
    ),
    // ── the same by a function ───────────────────────────────────────────────────────────────────────────────────
    row(
        &[Sql("SELECT set_config('work_mem', '9MB', false)")],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql("SELECT set_config('role', 'helper', false)")],
        "SELECT current_user",
        Kept,
    ),
    row(
        &[Sql(
            "SELECT 1, 'x' || pg_catalog.set_config('work_mem', '9MB', false), 2",
        )],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql("SELECT \"set_config\"('work_mem', '9MB', 1 > 2)")],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql(
            "SELECT U&\"set\\005fconfig\"('work_mem', '9MB', false)",
        )],
        WORK_MEM,
        Ends,
    ),
    row(
        &[Sql(
            "SELECT 1 WHERE set_config('work_mem', '9MB', false) IS NOT NULL",
        )],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql(
            "WITH s AS MATERIALIZED (SELECT set_config('work_mem', '9MB', false)) SELECT * FROM s",
        )],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql(
            "SELECT * FROM (SELECT set_config('work_mem', '9MB', false)) AS s",
        )],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql("SELECT * FROM set_config('work_mem', '9MB', false)")],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql("VALUES (set_config('work_mem', '9MB', false))")],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql(
            "INSERT INTO notes SELECT set_config('work_mem', '9MB', false)",
        )],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql(
            "INSERT INTO notes VALUES ('a') RETURNING set_config('work_mem', '9MB', false)",
        )],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql(
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT set_config('work_mem', '9MB', false)",
        )],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql(
            "COPY (SELECT set_config('work_mem', '9MB', false)) TO STDOUT",
        )],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql(
            "SELECT set_config(name, '9MB', false) FROM pg_settings WHERE name = 'work_mem'",
        )],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql(
            "UPDATE pg_settings SET setting = '9MB' WHERE name = 'work_mem'",
        )],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql(
            "DO $$ BEGIN PERFORM set_config('work_mem', '9MB', false); END $$",
        )],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql("DO $$ BEGIN SET work_mem = '9MB'; END $$")],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql(
            "DO LANGUAGE plpgsql 'BEGIN EXECUTE ''SET work_mem = 9216''; END'",
        )],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql("DO $$ BEGIN SET ROLE helper; END $$")],
        "SELECT current_user",
        Kept,
    ),
    row(&[Sql("CALL procedure_that_sets()")], WORK_MEM, Ends),
    // ── by functions and triggers, which nobody has looked into ──────────────────────────────────────────────────
    row(&[Sql("SELECT function_that_sets()")], WORK_MEM, Ends),
    row(&[Sql("INSERT INTO watched VALUES ('a')")], WORK_MEM, Ends),
    row(
        &[Sql("COPY (SELECT function_that_sets()) TO STDOUT")],
        WORK_MEM,
        Ends,
    ),
    row(
        &[Sql(
            "WITH n AS (INSERT INTO watched VALUES ('a') RETURNING note) SELECT * FROM n",
        )],
        WORK_MEM,
        Ends,
    ),
    row(
        &[
            Sql("SET lock_timeout = '61s'"),
            Sql("SELECT function_that_sets()"),
        ],
        WORK_MEM,
        Ends,
    ),
    row(
        &[Sql("SELECT function_that_speaks_german()")],
        "SELECT date '2024-02-01'",
        Ends,
    ),
    row(
        &[Sql("SELECT function_that_is_another()")],
        "SELECT current_user",
        Ends,
    ),
    row(&[Sql("SELECT function_that_makes()")], MINE, Ends),
    row(&[Sql("SELECT function_that_locks()")], LOCKS, Ends),
    row(&[Sql("SELECT function_that_prepares()")], "EXECUTE p", Ends),
    row(
        &[Sql("SELECT function_that_declares()")],
        "FETCH FIRST FROM c",
        Ends,
    ),
    Row {
        make: &[Sql("SELECT function_that_listens()")],
        look: Hears("news"),
        fate: Ends,
    },
    // ── temporary objects ────────────────────────────────────────────────────────────────────────────────────────
    row(&[Sql("CREATE TEMP TABLE mine (n int)")], MINE, Kept),
    row(
        &[Sql(
            "CREATE TEMPORARY TABLE IF NOT EXISTS mine AS SELECT 1 AS n",
        )],
        MINE,
        Kept,
    ),
    row(&[Sql("CREATE LOCAL TEMP TABLE mine (n int)")], MINE, Kept),
    row(&[Sql("CREATE TABLE pg_temp.mine (n int)")], MINE, Kept),
    row(
        &[Sql("CREATE TABLE \"pg_temp\" . mine (n int)")],
        MINE,
        Kept,
    ),
    row(&[Sql("SELECT 1 AS n INTO TEMP mine")], MINE, Kept),
    row(&[Sql("SELECT 1 AS n INTO pg_temp.mine")], MINE, Kept),
    row(&[Sql("CREATE TEMP SEQUENCE mine")], MINE, Kept),
    row(&[Sql("CREATE TEMP VIEW mine AS SELECT 1 AS n")], MINE, Kept),
    row(
        &[Sql("CREATE OR REPLACE TEMP VIEW mine AS SELECT 1 AS n")],
        MINE,
        Kept,
    ),
    row(
        &[Sql("CREATE TEMP RECURSIVE VIEW mine (n) AS SELECT 1")],
        MINE,
        Kept,
    ),
    row(
        &[
            Sql("SET search_path = pg_temp"),
            Sql("CREATE TABLE mine (n int)"),
        ],
        "SELECT to_regclass('pg_temp.mine') IS NOT NULL",
        Kept,
    ),
    row(
        &[
            Sql("SET search_path TO 'pg_temp', public"),
            Sql("CREATE VIEW mine AS SELECT 1"),
        ],
        "SELECT to_regclass('pg_temp.mine') IS NOT NULL",
        Kept,
    ),
    row(
        &[Sql(
            "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        )],
        "SELECT to_regproc('pg_temp.mine') IS NOT NULL",
        Kept,
    ),
    row(
        &[Sql("CREATE TYPE pg_temp.mine AS (n int)")],
        "SELECT to_regtype('pg_temp.mine') IS NOT NULL",
        Kept,
    ),
    row(
        &[Sql("DO $$ BEGIN CREATE TEMP TABLE mine (n int); END $$")],
        MINE,
        Kept,
    ),
    // ── cursors ──────────────────────────────────────────────────────────────────────────────────────────────────
    row(
        &[Sql("DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 7")],
        "FETCH FIRST FROM c",
        Kept,
    ),
    row(
        &[Sql("DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 7")],
        "SELECT count(*) FROM pg_cursors",
        Kept,
    ),
    row(
        &[Sql("BEGIN"), Sql("DECLARE c SCROLL CURSOR FOR SELECT 7")],
        "FETCH FIRST FROM c",
        Kept,
    ),
    // ── advisory locks ───────────────────────────────────────────────────────────────────────────────────────────
    row(&[Sql("SELECT pg_advisory_lock(7)")], LOCKS, Kept),
    row(&[Sql("SELECT pg_advisory_lock(7, 8)")], LOCKS, Kept),
    row(&[Sql("SELECT pg_advisory_lock_shared(7)")], LOCKS, Kept),
    row(&[Sql("SELECT pg_try_advisory_lock(7)")], LOCKS, Kept),
    row(&[Sql("SELECT pg_try_advisory_lock_shared(7)")], LOCKS, Kept),
    row(
        &[Sql("SELECT 1 WHERE pg_try_advisory_lock(7)")],
        LOCKS,
        Kept,
    ),
    row(
        &[
            Sql("SELECT pg_advisory_lock(7)"),
            Sql("SELECT pg_advisory_lock(7)"),
            Sql("SELECT pg_advisory_unlock(7)"),
        ],
        LOCKS,
        Kept,
    ),
    row(
        &[Sql("DO $$ BEGIN PERFORM pg_advisory_lock(7); END $$")],
        LOCKS,
        Kept,
    ),
    row(
        &[Sql("BEGIN"), Sql("SELECT pg_advisory_xact_lock(7)")],
        LOCKS,
        Kept,
    ),
    // ── statements and portals ───────────────────────────────────────────────────────────────────────────────────
    row(&[Sql("PREPARE p AS SELECT 7")], "EXECUTE p", Kept),
    row(
        &[
            Sql("PREPARE p AS SELECT set_config('work_mem', '9MB', false)"),
            Sql("EXECUTE p"),
        ],
        WORK_MEM,
        Kept,
    ),
    Row {
        make: &[Messages(named_statement)],
        look: Messages(run_named),
        fate: Follows,
    },
    // Where a server knows it, SQL may see it by its own name.
    Row {
        make: &[Messages(unnamed_statement)],
        look: Messages(run_unnamed),
        fate: Follows,
    },
    Row {
        make: &[Sql("BEGIN"), Messages(portal)],
        look: Messages(portal_columns),
        fate: Kept,
    },
    // ── transactions ─────────────────────────────────────────────────────────────────────────────────────────────
    row(
        &[Sql("BEGIN"), Sql("SET LOCAL work_mem = '9MB'")],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql("BEGIN"), Sql("SET LOCAL ROLE helper")],
        "SELECT current_user",
        Kept,
    ),
    row(
        &[
            Sql("BEGIN"),
            Sql("SELECT set_config('work_mem', '9MB', true)"),
        ],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY")],
        "SHOW transaction_isolation",
        Kept,
    ),
    row(
        &[
            Sql("BEGIN"),
            Sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
        ],
        "SHOW transaction_isolation",
        Kept,
    ),
    row(
        &[
            Sql("BEGIN"),
            Sql("CREATE TEMP TABLE mine (n int) ON COMMIT DROP"),
        ],
        MINE,
        Kept,
    ),
    // ── notifications ────────────────────────────────────────────────────────────────────────────────────────────
    Row {
        make: &[Sql("LISTEN news")],
        look: Hears("news"),
        fate: Kept,
    },
    Row {
        make: &[Sql("DO $$ BEGIN LISTEN news; END $$")],
        look: Hears("news"),
        fate: Kept,
    },
    // ── taken away again ─────────────────────────────────────────────────────────────────────────────────────────
    row(
        &[
            Sql("SET work_mem = '9MB'"),
            Sql("SET search_path = elsewhere"),
            Sql("RESET work_mem"),
        ],
        "SHOW search_path",
        Follows,
    ),
    row(
        &[
            Sql("SET work_mem = '8MB'"),
            Sql("RESET ALL"),
            Sql("SET work_mem = '9MB'"),
        ],
        WORK_MEM,
        Follows,
    ),
    row(
        &[
            Sql("CREATE TEMP TABLE other (n int)"),
            Sql("DISCARD TEMP"),
            Sql("SET work_mem = '9MB'"),
        ],
        WORK_MEM,
        Kept,
    ),
    row(
        &[Sql("SET work_mem = '9MB'"), Sql("DISCARD PLANS")],
        WORK_MEM,
        Follows,
    ),
    row(
        &[Sql("SET work_mem = '9MB'"), Sql("DISCARD SEQUENCES")],
        WORK_MEM,
        Follows,
    ),
    // ── sequences, last: once somebody has asked, all writes keep their connections for a while ─────────────────────
    row(
        &[Sql("SELECT nextval('counter') > 0")],
        "SELECT lastval() > 0",
        Kept,
    ),
    row(
        &[Sql("SELECT \"nextval\" /* so */ ('counter') > 0")],
        "SELECT pg_catalog.currval('counter') > 0",
        Kept,
    ),
];

/// How the statements of a row are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// One Query each.
    Alone,
    /// By the extended protocol.
    Extended,
    /// All in one Query, between others.
    Together,
    /// In a transaction that is rolled back, one Query each.
    RolledBack,
    /// In a transaction that is rolled back, by the extended protocol.
    RolledBackExtended,
    /// In a transaction that is rolled back, all in one Query.
    RolledBackTogether,
    /// In a transaction that fails.
    Failed,
}

const WAYS: [Way; 7] = [
    Way::Alone,
    Way::Extended,
    Way::Together,
    Way::RolledBack,
    Way::RolledBackExtended,
    Way::RolledBackTogether,
    Way::Failed,
];

impl Row {
    /// It ends inside a transaction.
    fn is_open(&self) -> bool {
        matches!(self.make[0], Sql(sql) if sql.starts_with("BEGIN"))
    }

    /// The flights that make the state in this way; nothing if it cannot be.
    fn flights(&self, way: Way) -> Vec<Vec<u8>> {
        let sql: Option<Vec<&str>> = self
            .make
            .iter()
            .map(|step| match step {
                Sql(sql) => Some(*sql),
                _ => None,
            })
            .collect();
        let simple = |step: &Step| match step {
            Sql(sql) => request::query(sql),
            Messages(messages) => [messages(), vec![request::sync()]].concat().concat(),
            Hears(_) => unreachable!("nothing is made by hearing"),
        };
        let extended = |step: &Step| match step {
            Sql(sql) => [
                request::parse("", sql, &[]),
                request::bind("", "", &[]),
                request::execute("", 0),
                request::sync(),
            ]
            .concat(),
            _ => simple(step),
        };
        let steps = |one: &dyn Fn(&Step) -> Vec<u8>| self.make.iter().map(one).collect::<Vec<_>>();
        let around = |before: &str, inner: Vec<Vec<u8>>, after: &str| {
            [
                vec![request::query(before)],
                inner,
                vec![request::query(after)],
            ]
            .concat()
        };
        match way {
            Way::Alone => steps(&simple),
            Way::Extended if sql.is_some() => steps(&extended),
            _ if self.is_open() => Vec::new(),
            Way::RolledBack => around("BEGIN", steps(&simple), "ROLLBACK"),
            Way::RolledBackExtended => around("BEGIN", steps(&extended), "ROLLBACK"),
            Way::Failed => {
                let failing = [steps(&simple), vec![request::query("SELECT 1/0")]].concat();
                around("BEGIN", failing, "COMMIT")
            }
            Way::Together => sql.map_or(Vec::new(), |sql| {
                vec![request::query(format!(
                    "SELECT 1; {}; SELECT 2",
                    sql.join("; ")
                ))]
            }),
            Way::RolledBackTogether => sql.map_or(Vec::new(), |sql| {
                vec![request::query(format!(
                    "BEGIN; {}; ROLLBACK",
                    sql.join("; ")
                ))]
            }),
            Way::Extended => Vec::new(),
        }
    }

    fn name(&self, way: Way) -> String {
        let words = |step: &Step| match step {
            Sql(sql) => (*sql).to_owned(),
            Messages(messages) => format!("{} messages", messages().len()),
            Hears(channel) => format!("NOTIFY {channel}"),
        };
        let make: Vec<String> = self.make.iter().map(words).collect();
        format!("{way:?}: {}; look: {}", make.join("; "), words(&self.look))
    }
}

/// What the answer to one flight says: its first value, or its error.
fn gist(answer: &[Message]) -> String {
    if let Some(error) = answer.iter().find(|message| message.tag == b'E') {
        return format!("error {}", error.error().unwrap().code());
    }
    match answer
        .iter()
        .find(|message| matches!(message.tag, b'D' | b'T'))
    {
        Some(row) if row.tag == b'D' => format!("{:?}", row.text_row().unwrap()),
        Some(row) => row_or_columns(row, answer),
        None => "nothing".to_owned(),
    }
}

fn row_or_columns(columns: &Message, answer: &[Message]) -> String {
    let row = answer.iter().find(|message| message.tag == b'D');
    row.map_or_else(
        || format!("{:?}", columns.column_names().unwrap()),
        |row| format!("{:?}", row.text_row().unwrap()),
    )
}

/// One flight and its answer.
fn exchange(client: &mut RawClient, flight: &[u8]) -> Result<Vec<Message>, Error> {
    client.send(flight)?;
    let mut answer: Vec<Message> = Vec::new();
    loop {
        let message = client.recv()?;
        if let b'E' = message.tag
            && message.error()?.severity() == "FATAL"
        {
            return Err(Error::Server(Box::new(message.error()?)));
        }
        answer.push(message);
        if answer.last().is_some_and(|last| last.tag == b'Z') {
            return Ok(answer);
        }
    }
}

/// Makes the state; what each flight answers.
fn make(client: &mut RawClient, flights: &[Vec<u8>]) -> Vec<String> {
    flights
        .iter()
        .map(|flight| match exchange(client, flight) {
            Ok(answer) => gist(&answer),
            Err(error) => panic!("{error}"),
        })
        .collect()
}

/// What a client sees of the state.
fn look(rig: &Rig, client: &mut RawClient, step: Step) -> String {
    look_for(rig, client, step, SHORT)
}

/// The same; a notification may take `patience`.
fn look_for(rig: &Rig, client: &mut RawClient, step: Step, patience: Duration) -> String {
    if let Hears(channel) = step {
        return hears(rig, client, channel, patience);
    }
    ask(client, step);
    told(client, step)
}

/// Asks for the state, and does not wait for the answer.
fn ask(client: &mut RawClient, step: Step) {
    let flight = match step {
        Sql(sql) => request::query(sql),
        Messages(messages) => [messages().concat(), request::sync()].concat(),
        Hears(_) => request::query("SELECT 1"),
    };
    client.send(&flight).unwrap();
}

fn told(client: &mut RawClient, step: Step) -> String {
    let answer = client.recv_until_ready().unwrap();
    match step {
        Hears(_) => format!(
            "heard: {}",
            answer.iter().any(|message| message.tag == b'A')
        ),
        _ => gist(&answer),
    }
}

/// Whether a client is told of a notification. On the connection of a listener it comes at latest with the answer to the
/// second of its statements, and by a shared one when it comes.
fn hears(rig: &Rig, client: &mut RawClient, channel: &str, patience: Duration) -> String {
    let notify = format!("NOTIFY {channel}");
    rig.cluster.primary().execute(&notify).unwrap();
    let mut heard = false;
    for _ in 0..3 {
        let answer = exchange(client, &request::query("SELECT 1")).unwrap();
        heard |= answer.iter().any(|message| message.tag == b'A');
    }
    heard = heard || client.recv_within(patience).unwrap().is_some();
    format!("heard: {heard}")
}

/// What PostgreSQL says.
struct Oracle {
    /// To each flight.
    answers: Vec<String>,
    /// Where the state is.
    seen: String,
    /// What the owner has been told of its settings.
    reported: Reported,
    /// What is seen after the transaction has ended.
    afterwards: Option<String>,
}

impl Oracle {
    fn ask(rig: &Rig, row: &Row, flights: &[Vec<u8>]) -> Oracle {
        let mut owner = rig.cluster.primary().connect("postgres").unwrap();
        let answers = make(&mut owner, flights);
        let seen = look(rig, &mut owner, row.look);
        let reported = owner.parameters().clone();
        let afterwards = row.is_open().then(|| {
            owner.query("COMMIT").unwrap();
            look(rig, &mut owner, row.look)
        });
        Oracle {
            answers,
            seen,
            reported,
            afterwards,
        }
    }
}

/// The latest of each ParameterStatus.
type Reported = BTreeMap<String, String>;

/// What is seen, and reported, where the state is not.
struct Unseen(String, Reported);

impl Unseen {
    fn ask(rig: &Rig, row: &Row) -> Unseen {
        let mut other = rig.cluster.primary().connect("postgres").unwrap();
        Unseen(look(rig, &mut other, row.look), other.parameters().clone())
    }

    /// A client sees nothing now.
    fn is_all(
        &self,
        rig: &Rig,
        client: &mut RawClient,
        step: Step,
        who: &str,
    ) -> Result<(), String> {
        is(
            look(rig, client, step),
            self.0.clone(),
            &format!("{who} sees"),
        )?;
        is(
            client.parameters(),
            &self.1,
            &format!("{who} has been told"),
        )
    }
}

/// One row in one way.
fn check(rig: &Rig, mode: PoolMode, row: &Row, way: Way, unseen: &Unseen) -> Result<(), String> {
    let mut flights = row.flights(way);
    if flights.is_empty() {
        return Ok(());
    }
    free_locks(rig, row);
    let oracle = Oracle::ask(rig, row, &flights);
    if way == Way::Alone && oracle.seen == unseen.0 {
        return Err(format!("proves nothing: always {}", oracle.seen));
    }
    free_locks(rig, row);
    let (mut owner, mut other) = (rig.client("postgres"), rig.client("postgres"));
    let opens_block =
        row.is_open() || matches!(way, Way::RolledBack | Way::RolledBackExtended | Way::Failed);
    if mode == PoolMode::Statement && opens_block {
        flights.truncate(1);
        let answers = make(&mut owner, &flights);
        is(answers, vec!["error 0A000".to_owned()], "the owner is told")?;
        unseen.is_all(rig, &mut other, row.look, "another")?;
        return unseen.is_all(rig, &mut owner, row.look, "the owner");
    }
    is(
        make(&mut owner, &flights),
        oracle.answers,
        "the owner is told",
    )?;
    // Before the owner goes on, the other has what the owner left behind; or waits in the queue for it.
    let waits = row.fate == Kept && mode != PoolMode::Session;
    if waits {
        ask(&mut other, row.look);
    } else {
        unseen.is_all(rig, &mut other, row.look, "another")?;
    }
    if row.fate == Ends && mode != PoolMode::Session {
        if matches!(row.look, Hears(_)) {
            // Until its connection was given back it listened: the notification meant for the other may have come yet.
            owner.query("SELECT 1").unwrap();
        }
        unseen.is_all(rig, &mut owner, row.look, "the owner")?;
    } else {
        let patience = if oracle.seen == unseen.0 {
            SHORT
        } else {
            LIMIT
        };
        is(
            look_for(rig, &mut owner, row.look, patience),
            oracle.seen,
            "the owner sees",
        )?;
        is(
            owner.parameters(),
            &oracle.reported,
            "the owner has been told",
        )?;
    }
    if let Some(afterwards) = oracle.afterwards {
        owner.query("COMMIT").unwrap();
        is(
            look(rig, &mut owner, row.look),
            afterwards,
            "the owner sees afterwards",
        )?;
    }
    if matches!(way, Way::Alone | Way::Together) {
        owner.send(&request::terminate()).unwrap();
    }
    drop(owner);
    if waits {
        is(
            told(&mut other, row.look),
            unseen.0.clone(),
            "another sees in the end",
        )?;
    }
    unseen.is_all(rig, &mut other, row.look, "another afterwards")?;
    unseen.is_all(rig, &mut rig.client("postgres"), row.look, "the next one")
}

fn is_of_sequences(row: &Row) -> bool {
    matches!(row.look, Sql(look) if look.contains("val("))
}

/// Waits until those who had locks have left: a lock is given back some time after its owner's connection is closed.
fn free_locks(rig: &Rig, row: &Row) {
    if !matches!(row.look, Sql(LOCKS)) {
        return;
    }
    let primary = rig.cluster.primary();
    rig.wait("the locks to be given back", || {
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        primary.value(locks).unwrap() == "0"
    });
}

fn is<T: PartialEq + std::fmt::Debug>(got: T, expected: T, what: &str) -> Result<(), String> {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what} {got:?}, not {expected:?}"))
}

fn matrix(mode: PoolMode, size: usize) {
    let rig = Rig::start(0, |config| {
        let pool = &mut config.databases[0].pool;
        (pool.mode, pool.size) = (mode, size);
    });
    rig.cluster
        .primary()
        .execute(
            "CREATE ROLE helper; CREATE SCHEMA elsewhere; CREATE TABLE notes (note text); CREATE SEQUENCE counter; \
             CREATE PROCEDURE procedure_that_sets() LANGUAGE plpgsql AS $$BEGIN PERFORM set_config('work_mem', '9MB', false); END$$",
        )
        .unwrap();
    // As an application makes them: what comes behind is judged by them.
    let mut maker = rig.client("postgres");
    for (name, body) in FUNCTIONS {
        let language = if body.starts_with("BEGIN") {
            "plpgsql"
        } else {
            "sql"
        };
        maker
            .query(&format!(
                "CREATE FUNCTION function_that_{name}() RETURNS void LANGUAGE {language} AS $f${body}$f$"
            ))
            .unwrap();
    }
    maker.query(WATCHED).unwrap();
    drop(maker);
    let mut wrong = Vec::new();
    for row in ROWS {
        if is_of_sequences(row) {
            // What its values are kept for is that somebody asks for them.
            ask(&mut rig.client("postgres"), row.look);
        }
        let unseen = Unseen::ask(&rig, row);
        for way in WAYS {
            if let Err(what) = check(&rig, mode, row, way, &unseen) {
                wrong.push(format!("{}: {what}", row.name(way)));
            }
        }
    }
    assert!(wrong.is_empty(), "{mode:?} pooling:\n{}", wrong.join("\n"));
}

#[test]
fn in_transaction_pooling() {
    matrix(PoolMode::Transaction, 1);
}

#[test]
fn in_statement_pooling() {
    matrix(PoolMode::Statement, 1);
}

#[test]
fn in_session_pooling() {
    matrix(PoolMode::Session, 2);
}

/// What one session takes away is its own, too.
#[test]
fn nobody_takes_anothers_state_away() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    let primary = rig.cluster.primary();
    primary.execute("CREATE ROLE helper").unwrap();
    let (mut owner, mut other) = (rig.client("postgres"), rig.client("postgres"));
    for sql in [
        "SET work_mem = '9MB'",
        "SET search_path = mine",
        "SET ROLE helper",
    ] {
        owner.query(sql).unwrap();
    }
    make(
        &mut owner,
        &[[named_statement().concat(), request::sync()].concat()],
    );
    for sql in [
        "DISCARD ALL",
        "DISCARD PLANS",
        "DISCARD SEQUENCES",
        "DISCARD TEMP",
        "DISCARD TEMPORARY",
        "RESET ALL",
        "RESET work_mem",
        "RESET ROLE",
        "RESET SESSION AUTHORIZATION",
        "SET SESSION AUTHORIZATION DEFAULT",
        "DEALLOCATE ALL",
        "DEALLOCATE PREPARE ALL",
        "CLOSE ALL",
        "UNLISTEN *",
        "SELECT pg_advisory_unlock_all()",
        "SET work_mem TO DEFAULT; RESET search_path",
    ] {
        for flight in [
            request::query(sql),
            [
                request::parse("", sql.split(';').next().unwrap(), &[]),
                request::bind("", "", &[]),
                request::execute("", 0),
                request::sync(),
            ]
            .concat(),
        ] {
            let answer = make(&mut other, &[flight]);
            assert!(!answer[0].starts_with("error"), "{sql}: {answer:?}");
            for (step, expected) in [
                (Sql(WORK_MEM), "9MB"),
                (Sql("SHOW search_path"), "mine"),
                (Sql("SELECT current_user"), "helper"),
                (Messages(run_named), "mine"),
            ] {
                let seen = look(&rig, &mut owner, step);
                assert_eq!(seen, format!("[Some({expected:?})]"), "after {sql}");
            }
        }
    }
}
