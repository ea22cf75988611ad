//! The corpus of `tests/corpus`: what each statement is judged to be, and where it arrives, in each way to send it.

use std::collections::HashSet;

use pgweir::sql::catalog::{Catalog, Change, QUERY, TABLES, Trust, change};
use pgweir::sql::{
    Access, Class, Classifier, Lexing, Reason, SessionEffect, TxEffect, executed, prepare_target,
    prepared,
};
use pgweir::testbed::{Cluster, Error, Node, RawClient, request};

use crate::corpus::{Column, DATABASES, Group, OBJECTS, groups};
use crate::support::{LIMIT, Rig, execute, logged, logged_errors, report};

/// Whether read-only transactions run on standbys (routing.md §2.3).
const READ_ONLY_ON_STANDBYS: bool = true;

/// Judges statements by one catalog.
struct Judge<'a> {
    classifier: Classifier,
    catalog: &'a Catalog,
}

impl Judge<'_> {
    fn over(catalog: &Catalog) -> Judge<'_> {
        Judge {
            classifier: Classifier::new(1 << 20),
            catalog,
        }
    }

    fn class(&self, text: &str) -> Class {
        self.classifier
            .classify(text.as_bytes(), Lexing::default(), self.catalog)
    }

    /// The same for a session that has prepared what its group prepares.
    fn class_in(&self, group: &Group, text: &str) -> Class {
        let own = self.class(text);
        let run = executed(text.as_bytes()).filter(|_| own.session == SessionEffect::Execute);
        let known = run.and_then(|run| {
            let named = |before: &&&str| {
                prepare_target(before.as_bytes()).as_deref() == Some(run.name.as_slice())
            };
            let statement = group.before.iter().find(named)?;
            Some((run, prepared(statement.as_bytes())?))
        });
        known.map_or(own, |(run, prepared)| {
            let lexing = Lexing::default();
            run.class(own, prepared, &self.classifier, lexing, self.catalog)
        })
    }

    /// The letter of a statement in a column.
    fn letter(&self, group: &Group, statement: &str, column: Column) -> char {
        let class = match column {
            Column::Several => self.class(&format!("SELECT 1; {statement}")),
            _ => self.class_in(group, statement),
        };
        match (column, class.access) {
            (Column::Alone | Column::Extended, _) => own_letter(class),
            (Column::Several, Access::Read) => 'S',
            (Column::ReadOnly, Access::Read) => 'S',
            (Column::ReadOnly, Access::Neutral | Access::Empty) => 'N',
            (Column::ReadOnly, _) => 'P',
            (_, Access::Write) => 'W',
            (_, _) => 'P',
        }
    }

    /// What is not as the group says.
    fn faults(&self, group: &Group) -> Vec<String> {
        let mut faults = Vec::new();
        for (line, statement) in &group.statements {
            for column in Column::ALL {
                let (expected, found) =
                    (group.verdict(column), self.letter(group, statement, column));
                if expected != '-' && expected != found {
                    let column = column.letter();
                    faults.push(format!(
                        "{line}: {statement}: {column}:{found}, not {expected}"
                    ));
                }
            }
            let reason = self.class_in(group, statement).reason.as_str();
            // A loaded catalog lacks the built-in functions that are bad: it says that it does not know them.
            let unknown = !group.objects && reason == Reason::UnknownName.as_str();
            if reason != group.reason && !unknown {
                faults.push(format!(
                    "{line}: {statement}: {reason}, not {}",
                    group.reason
                ));
            }
        }
        faults
    }
}

fn own_letter(class: Class) -> char {
    match (class.access, class.session) {
        (Access::Read, SessionEffect::Pin(_)) => '?',
        (_, SessionEffect::Pin(_)) => 'K',
        (Access::Read, _) => 'S',
        (Access::Write, _) => 'W',
        (Access::Primary, SessionEffect::Prepare) => 'L',
        (Access::Primary, _) if class.tx == TxEffect::Begin => 'L',
        (Access::Primary, _) => 'P',
        (Access::Neutral, SessionEffect::None | SessionEffect::Savepoint) => 'N',
        (Access::Neutral | Access::Empty, _) => 'L',
    }
}

#[test]
fn the_corpus_is_whole() {
    let groups = groups();
    let statements: usize = groups.iter().map(|group| group.statements.len()).sum();
    assert!(statements >= 600, "{statements}");
    for group in &groups {
        let section = group.heading.split(' ').next();
        assert!(
            matches!(section, Some("2.1" | "2.2" | "2.4" | "2.5")),
            "{}",
            group.heading
        );
        assert!(!group.statements.is_empty(), "{}", group.heading);
        let different: HashSet<_> = group.statements.iter().map(|(_, text)| text).collect();
        assert_eq!(different.len(), group.statements.len(), "{}", group.heading);
        // Whatever else a verdict says: what is no read alone is none behind another, nor first in a transaction.
        if group.verdict(Column::Alone) != 'S' {
            let reads = [Column::Extended, Column::ReadOnly];
            assert!(
                reads.iter().all(|column| group.verdict(*column) != 'S'),
                "{}",
                group.heading
            );
        }
        assert_ne!(group.verdict(Column::Transaction), 'S', "{}", group.heading);
    }
}

#[test]
fn verdicts_that_need_no_database() {
    let judge = Judge::over(&TABLES);
    let groups = groups();
    let own = groups.iter().filter(|group| !group.objects);
    let faults: Vec<String> = own.flat_map(|group| judge.faults(group)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A database's catalog, as the proxy loads it.
fn catalog(node: &Node, database: &str) -> Catalog {
    let mut client = node.connect(database).expect("a connection");
    client.set_timeout(LIMIT);
    execute(&mut client, "SET search_path = pg_catalog; SET jit = off");
    let rows = client.query(QUERY).expect("the catalog");
    Catalog::build(&rows, &Trust::default()).expect("the catalog's rows")
}

/// A cluster with all objects, and a proxy that knows them.
fn rig() -> Rig {
    let cluster = Cluster::builder()
        .standbys(1)
        .setting("log_statement", "all")
        .setting("statement_timeout", "10s");
    let rig = Rig::with(cluster, |_| ());
    let primary = rig.cluster.primary();
    primary.execute(OBJECTS).expect("the objects");
    for (database, objects) in DATABASES {
        let sql = format!("CREATE DATABASE {database}");
        primary.execute(&sql).expect(&sql);
        let mut client = primary.connect(database).expect("a connection");
        execute(&mut client, objects);
    }
    rig.cluster.wait_caught_up().expect("the standby");
    rig.learn("postgres");
    rig
}

/// Waits until each database's catalog is known; the clients keep it so.
fn known(rig: &Rig) -> Vec<RawClient> {
    let standby = rig.cluster.standbys()[0];
    // What only a loaded catalog makes of a statement.
    let known = [
        ("postgres", "SELECT x FROM v_good", true),
        ("casts", "SELECT count(a) FROM t", true),
        ("operators", "SELECT 'operators'", false),
        ("plain", "SELECT 'plain', a FROM t", true),
    ];
    let clients = known.map(|(database, text, read)| {
        let mut client = rig.client(database);
        rig.wait("the catalog to be known", || {
            let before = logged(standby, text);
            execute(&mut client, text);
            (logged(standby, text) > before) == read
        });
        client
    });
    clients.into()
}

/// What the log has as the mark of a statement that was sent in a column.
fn mark(line: usize, column: Column) -> String {
    format!("corpus-{line}-{}", column.letter())
}

/// Every mark in a node's log.
fn marks(node: &Node) -> HashSet<String> {
    let log = node.log().expect("a node has a log");
    let marked = log.split("/* corpus-").skip(1);
    marked
        .filter_map(|rest| rest.split_once(" */"))
        .map(|(mark, _)| format!("corpus-{mark}"))
        .collect()
}

/// A client of a group's database.
fn session(rig: &Rig, group: &Group) -> RawClient {
    let mut client = rig.client(group.database.unwrap_or("postgres"));
    client.set_timeout(LIMIT);
    client
}

/// Sends a statement in one of the ways. Returns the SQLSTATEs of its errors.
fn send(
    client: &mut RawClient,
    group: &Group,
    line: usize,
    statement: &str,
    column: Column,
) -> Vec<String> {
    // Behind the statement: a hint would stand before it. On a line of its own, because the statement may end in a comment.
    let text = format!("{statement}\n/* {} */", mark(line, column));
    let (prepares, others): (Vec<&str>, Vec<&str>) = (group.before.iter().copied())
        .partition(|before| prepare_target(before.as_bytes()).is_some());
    for before in prepares {
        execute(client, before);
    }
    match column {
        Column::Transaction => execute(client, "BEGIN"),
        Column::ReadOnly => execute(client, "BEGIN READ ONLY"),
        _ => {}
    }
    for before in others {
        // BEGIN in a transaction is a warning; what else fails there fails the statement, too.
        let _ = client.query(before);
    }
    let extended = column == Column::Extended;
    let bytes = match column {
        Column::Extended => {
            let values = vec![None; parameters(statement)];
            [
                request::parse("", &text, &[]),
                request::bind("", "", &values),
                request::execute("", 0),
                request::sync(),
            ]
            .concat()
        }
        Column::Several => request::query(format!("SELECT 1; {text}")),
        _ => request::query(&text),
    };
    client.send(&bytes).expect("an open connection");
    let mut errors = Vec::new();
    loop {
        let message = match client.recv() {
            Ok(message) => message,
            Err(Error::Closed) => return errors,
            Err(error) => panic!("{line}: {statement}: {column:?}: {error}"),
        };
        match message.tag {
            b'E' => errors.push(message.error().expect("fields").code().to_owned()),
            b'G' => {
                let mut bytes = request::copy_fail("nothing to copy");
                if extended {
                    // The server has passed over the first one, as it copied.
                    bytes.extend(request::sync());
                }
                client.send(&bytes).expect("an open connection");
            }
            b'Z' => return errors,
            _ => {}
        }
    }
}

/// How many parameters a statement has.
fn parameters(statement: &str) -> usize {
    (1..=9)
        .rev()
        .find(|n| statement.contains(&format!("${n}")))
        .unwrap_or(0)
}

/// What was sent, and what answers were not as they should be.
#[derive(Default)]
struct Sent {
    statements: usize,
    faults: Vec<String>,
}

impl Sent {
    /// Sends all statements that fit, in all columns.
    fn send(&mut self, rig: &Rig, groups: &[Group], fits: impl Fn(&Group, &str) -> bool) {
        for group in groups {
            // Reads leave nothing behind. All else has sessions of its own: what has written reads what it wrote.
            let only_reads = is_read(group) && group.verdict(Column::Several) == 'S';
            let mut shared = None;
            for (line, statement) in &group.statements {
                if !fits(group, statement) {
                    continue;
                }
                for column in Column::ALL {
                    if group.verdict(column) == '-' {
                        continue;
                    }
                    let free = shared.take().filter(|_| only_reads);
                    let mut client = free.unwrap_or_else(|| session(rig, group));
                    self.send_one(&mut client, group, *line, statement, column);
                    shared = Some(client);
                }
            }
        }
    }

    fn send_one(
        &mut self,
        client: &mut RawClient,
        group: &Group,
        line: usize,
        statement: &str,
        column: Column,
    ) {
        let errors = send(client, group, line, statement, column);
        self.statements += 1;
        if is_read(group) && in_transaction(column) {
            execute(client, "ROLLBACK");
        }
        // In a read-only transaction the primary refuses writes in the same words.
        let refused = column != Column::ReadOnly && errors.iter().any(|code| code == "25006");
        let has_values = column == Column::Extended || parameters(statement) == 0;
        let never_works = group.fails && !in_transaction(column);
        let works = group.verdict(column) == 'S' && has_values && !group.later && !never_works;
        let fails = group.fails && column == Column::Alone;
        if refused || (works && !errors.is_empty()) || (fails && errors.is_empty()) {
            let column = column.letter();
            self.faults
                .push(format!("{line}: {statement}: {column}: {errors:?}"));
        }
    }
}

fn is_read(group: &Group) -> bool {
    group.verdict(Column::Alone) == 'S'
}

fn in_transaction(column: Column) -> bool {
    matches!(column, Column::Transaction | Column::ReadOnly)
}

/// Whether the proxy may carry out what a group asks for by itself.
fn keeps(group: &Group) -> bool {
    matches!(group.reason, "session" | "transaction" | "empty")
}

/// Where statements arrived that were not to.
fn astray(rig: &Rig, groups: &[Group]) -> Vec<String> {
    let on_standby = marks(rig.cluster.standbys()[0]);
    let on_primary = marks(rig.cluster.primary());
    let mut astray = Vec::new();
    for group in groups {
        for (line, statement) in &group.statements {
            for column in Column::ALL {
                let mark = mark(*line, column);
                let standby = on_standby.contains(&mark);
                let primary = on_primary.contains(&mark);
                let right = match group.verdict(column) {
                    '-' => !standby && !primary,
                    'S' if column != Column::ReadOnly || READ_ONLY_ON_STANDBYS => {
                        // What the standby does not know is asked of the primary, too.
                        standby && (!primary || group.later)
                    }
                    // Settings and savepoints are wherever their transaction is.
                    'N' if column == Column::ReadOnly => true,
                    // The proxy may keep to itself what is the session's business, or about transactions, and LISTEN.
                    'N' | 'L' | 'K' => !standby,
                    'P' if keeps(group) && in_transaction(column) => !standby,
                    _ => primary && !standby,
                };
                if !right {
                    astray.push(format!(
                        "{line}: {statement}: {column:?}: standby {standby}, primary {primary}"
                    ));
                }
            }
        }
    }
    astray
}

#[test]
fn every_statement_arrives_where_it_belongs() {
    let rig = rig();
    let groups = groups();
    let primary = rig.cluster.primary();
    // What is judged.
    let databases: Vec<(&str, Catalog)> = ["postgres"]
        .into_iter()
        .chain(DATABASES.iter().map(|(database, _)| *database))
        .map(|database| (database, catalog(primary, database)))
        .collect();
    let judge = |group: &Group| {
        let database = group.database.unwrap_or("postgres");
        let mut all = databases.iter();
        let (_, catalog) = all.find(|(name, _)| *name == database).expect(database);
        Judge::over(catalog)
    };
    let faults: Vec<String> = groups
        .iter()
        .flat_map(|group| judge(group).faults(group))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
    // What is sent: reads first, then all else that changes no catalog, so that the traps are told by what they are.
    let changes = |group: &Group, statement: &str| {
        let judge = judge(group);
        let change = |text: &str| change(judge.class(text), text.as_bytes());
        change(statement).max(change(&format!("SELECT 1; {statement}"))) != Change::None
    };
    let begun = std::time::Instant::now();
    let clients = known(&rig);
    let mut sent = Sent::default();
    sent.send(&rig, &groups, |group, _| is_read(group));
    let (mut reader, mut probes) = (rig.client("postgres"), 0);
    for group in &groups {
        sent.send(&rig, std::slice::from_ref(group), |group, text| {
            !is_read(group) && !changes(group, text)
        });
        execute(&mut reader, "SELECT x FROM v_good /* probe */");
        probes += 1;
    }
    // Had the catalog been lost, everything would have gone to the primary, and the traps would have shown nothing.
    let on_standby = logged(rig.cluster.standbys()[0], "/* probe */");
    assert_eq!(on_standby, probes, "the catalog was known throughout");
    drop(clients);
    sent.send(&rig, &groups, |group, text| {
        !is_read(group) && changes(group, text)
    });
    let Sent { statements, faults } = sent;
    report(&format!("{statements} statements in {:?}", begun.elapsed()));
    let astray = astray(&rig, &groups);
    assert!(
        faults.is_empty() && astray.is_empty(),
        "{faults:#?} {astray:#?}"
    );
    assert_eq!(logged_errors(rig.cluster.standbys()[0], "25006"), 0);
    assert_eq!(rig.metric("pgweir_standby_refusals_total", &[]), 0.0);
}
