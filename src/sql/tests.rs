//! Verdicts by statement. A row that reads `X` is a line of routing.md §2.2 or §2.4.

use proptest::prelude::*;

use super::catalog::TABLES;
use super::classify::stack_for;
use super::lexer::Lexed;
use super::*;

fn classify(text: &str) -> Class {
    Classifier::new(1 << 20).classify(text.as_bytes(), Lexing::default(), &TABLES)
}

fn access(expected: Access, statements: &[&str]) {
    for text in statements {
        let class = classify(text);
        assert_eq!(class.access, expected, "{text}: {class:?}");
    }
}

#[test]
fn reads() {
    access(
        Access::Read,
        &[
            "select 1",
            "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
            "select * from t where a = $1 and b in ($2, $3) order by c desc nulls last limit 10 offset $4",
            "values (1, 'a'), (2, 'b')",
            "copy t to stdout",
            "COPY (SELECT a FROM t) TO STDOUT WITH (FORMAT csv)",
            "(select 1) union all (select 2) except select 3",
            "with x as (select 1 as a) select a from x",
            "with recursive t(n) as (values (1) union all select n + 1 from t where n < 100) select sum(n) from t",
            "select count(*), max(a), string_agg(b, ',') from t group by grouping sets ((a), (b)) having count(*) > 1",
            "select a, row_number() over (partition by b order by c) from t",
            "select t.*, u.a from t left join u using (id) cross join lateral (select 1) v",
            "select coalesce(a, b), nullif(a, 1), greatest(a, b), case when a then 1 else 2 end from t",
            "select extract(year from now()), current_date, current_timestamp, localtime",
            "select a::text, cast(b as numeric(10, 2)), '1'::int[], date '2020-01-01', interval '1 day' from t",
            "select lower(a) || upper(b), substring(a from 1 for 2), trim(a), position('a' in b) from t",
            "select a -> 'x' ->> 'y', a @> '{}', a ? 'x', b && c from t",
            "select * from generate_series(1, 10) g",
            "select * from unnest(array[1, 2, 3]) with ordinality",
            "select exists (select 1 from t where t.a = any ($1))",
            "select distinct on (a) a from t",
            "select * from t tablesample bernoulli (10)",
            "select random(), gen_random_uuid(), clock_timestamp(), pg_sleep(0.1)",
            "select pg_catalog.lower('A')",
            "select current_user, session_user",
            "select 'set_config', 'nextval(''s'')', $$select nextval('s')$$",
            "select 1; select 2",
            "select a from t -- for update",
            "select a</**/b, a #>>/* x */'{}', a +-- y\n b, a ||/*1*//*2*/ b, 2 </* \n */-1 from t",
            "select a is json, b is not json object with unique keys from t",
            "/* comment */ select 1",
            "explain select * from t",
            "explain (analyze, buffers) select * from t",
            "explain analyze select 1",
            "table t",
            "select array(select a from t), ARRAY(VALUES (1)), row(1, 2), ROW(a, b) from t",
            "select * from json_to_record('{}') as t (a int, b text[])",
            "select * from only t, only (u) v join only w on true",
            "select * from t*, u* as v where a * b > 1",
        ],
    );
}

#[test]
fn writes() {
    access(
        Access::Write,
        &[
            "insert into t values (1)",
            "INSERT INTO t SELECT * FROM u RETURNING *",
            "update t set a = 1",
            "delete from t",
            "merge into t using u on t.a = u.a when matched then do nothing",
            "with x as (insert into t values (1) returning *) select * from x",
            "with x as (select 1), y as (delete from t returning a) select * from x, y",
            "select * from (with x as (update t set a = 1 returning a) select a from x) s",
            "select * from t for update",
            "select * from t for no key update",
            "select * from t for share",
            "select * from t for key share skip locked",
            "select * from (select * from t for update) s",
            "select * from t where a in (select a from u for share)",
            "with x as (select * from t for update) select * from x",
            "select a into u from t",
            "select into u from t",
            "select * into temp u from t",
            "create table t (a int)",
            "alter table t add b int",
            "drop table t",
            "truncate t",
            "vacuum",
            "analyze t",
            "lock table t",
            "notify c",
            "listen c",
            "call p()",
            "do $$ begin end $$",
            "copy t from stdin",
            "copy t to '/tmp/t'",
            "copy t to program 'cat'",
            "copy t to stdout; copy t to stdout",
            "copy (insert into t values (1) returning a) to stdout",
            "copy (select nextval('s')) to stdout",
            "copy (with x as (insert into t values (1) returning a) select a from x) to stdout",
            "refresh materialized view v",
            "commit prepared 'x'",
            "prepare transaction 'x'",
            "execute p(nextval('s'))",
            "declare c cursor for select 1 for update",
            "select 1; declare c cursor for select 1",
            "frobnicate the database",
            "explain analyze insert into t values (1)",
            "explain (analyze) delete from t",
            "select 1; insert into t values (1)",
            "select a </*x*/ f()",
            "select a <<<>>>/*x*/ b",
            "select f() is json",
            "select 1; set x = 1; select nextval('s')",
            "begin; select a from t for update; commit",
            "set x = 1; execute p",
            "selec 1",
            "select",
            "select ((",
        ],
    );
}

#[test]
fn functions_that_are_not_known_are_writes_wherever_they_stand() {
    for call in [
        "nextval('s')",
        "myfunc(1)",
        "public.lower('x')",
        "\"Lower\"('x')",
        "set_config('a', 'b', false)",
        "dblink('x', 'y')",
    ] {
        for template in [
            "select {}",
            "select 1 where {} is null",
            "select * from t where a = {}",
            "select a from t order by {}",
            "select a from t group by {}",
            "select a from t group by a having {} > 1",
            "select count(*) filter (where {} > 0) from t",
            "select sum(a) over (order by {}) from t",
            "select sum(a) over w from t window w as (partition by {})",
            "select case when {} > 1 then 1 end",
            "select case {} when 1 then 1 end",
            "select array[{}]",
            "select row({}, 1)",
            "select ({})::text",
            "select cast({} as text)",
            "select coalesce(1, {})",
            "select lower({}::text)",
            "select * from t join u on {} = 1",
            "select * from lateral (select {}) x",
            "select * from t limit {}",
            "select * from t offset {}",
            "select * from t fetch first {} rows only",
            "select 1 union select {}",
            "select 1 in ({})",
            "select 1 in (select {})",
            "select exists (select {})",
            "select 1 between 0 and {}",
            "select a[{}] from t",
            "select {} at time zone 'utc'",
            "select 'a' like {}",
            "select extract(year from {})",
            "select substring('a' from {})",
            "values ({})",
            "with x as (select {}) select * from x",
            "with recursive x as (select 1 union select {} from x) select * from x",
            "select * from {}",
            "select * from t, {} f",
            "select * from rows from ({})",
            "select distinct on ({}) 1",
            "select string_agg(a, ',' order by {}) from t",
            "select percentile_cont({}) within group (order by a) from t",
            "select * from t tablesample bernoulli ({})",
            "select 1; select {}",
            "explain analyze select {}",
            "select not {}",
            "select - {}",
            "select {} is not distinct from 1",
            "select a = any (array[{}]) from t",
            "select a = all (select {}) from t",
            "select * from unnest(array[{}])",
            "select * from generate_series(1, {})",
            "select /* x */ {}",
        ] {
            let text = template.replace("{}", call);
            let class = classify(&text);
            assert_eq!(class.access, Access::Write, "{text}: {class:?}");
        }
    }
}

#[test]
fn types_and_operators_that_are_not_known_are_writes() {
    access(
        Access::Write,
        &[
            "select 'x'::mytype",
            "select cast('x' as public.mytype)",
            "select mytype 'x'",
            "select 'x'::uint8",
            "select '{}'::mytype[]",
            "select 1 operator(public.+) 2",
            "select a <<<>>> b from t",
            "select a from t order by a using <<<>>>",
            "select a from t order by a using operator(public.<)",
            "select sum(a order by b using operator(public.<)) from t",
            "select \"array\"(select 1)",
            "select \"row\"(1)",
            "select * from json_to_record('{}') as t (a int, b mytype)",
            "select * from (json_to_record('{}') as t (a mydomain) cross join u)",
            "select U&\"nextv\\0061l\"('s')",
            "select * from pg_temp.t",
            "select * from t tablesample mymethod (1)",
        ],
    );
}

#[test]
fn the_primary_answers_for_itself() {
    access(
        Access::Primary,
        &[
            "select 1; set x = 1",
            "begin; select a from t; table t; commit",
            "show x; explain select 1; select 1 from pg_class",
            "select * from pg_class",
            "select * from pg_catalog.pg_class",
            "select * from information_schema.tables",
            "select * from pg_stat_activity",
            "select pg_is_in_recovery()",
            "select pg_backend_pid()",
            "select version()",
            "select a, current_setting('x') from t",
            "show transaction_read_only",
            "show all",
            "begin",
            "start transaction read only",
            "begin; commit",
            "set transaction isolation level serializable",
            "set session characteristics as transaction read only",
            "set default_transaction_isolation = 'serializable'",
            "explain insert into t values (1)",
            "load 'x'",
            "prepare p as select 1",
        ],
    );
}

#[test]
fn no_place_of_their_own() {
    access(
        Access::Neutral,
        &[
            "commit",
            "COMMIT AND CHAIN",
            "end",
            "rollback",
            "abort",
            "rollback to s",
            "savepoint s",
            "release s",
            "fetch 1 from c",
            "close c",
            "set x = 1",
            "set local x = 1",
            "reset x",
            "reset all",
            "discard all",
            "deallocate x",
            "unlisten *",
        ],
    );
    access(
        Access::Empty,
        &["", "  ", ";", "-- nothing", "/* nothing */ ;"],
    );
}

#[test]
fn what_stays_behind() {
    use SessionEffect::*;
    for (text, session) in [
        ("select 1", None),
        ("set x = 1", Set),
        ("set session x to 1", Set),
        ("reset x", Set),
        ("discard all", DiscardAll),
        ("discard temp", None),
        ("deallocate x", Deallocate),
        ("deallocate prepare all", DeallocateAll),
        ("listen c", Pin(PinReason::Listen)),
        (
            "create temp table t (a int)",
            Pin(PinReason::TemporaryObject),
        ),
        (
            "CREATE OR REPLACE TEMPORARY VIEW v AS SELECT 1",
            Pin(PinReason::TemporaryObject),
        ),
        (
            "create table pg_temp.t (a int)",
            Pin(PinReason::TemporaryObject),
        ),
        (
            "select * into temp u from t",
            Pin(PinReason::TemporaryObject),
        ),
        ("create table t (temp int)", None),
        (
            "declare c cursor with hold for select 1",
            Pin(PinReason::HoldCursor),
        ),
        ("declare c cursor without hold for select 1", None),
        ("select pg_advisory_lock(1)", Pin(PinReason::AdvisoryLock)),
        ("select dblink_connect('c', 'x')", Pin(PinReason::Function)),
        (
            "do $$ begin perform pg_replication_origin_session_setup('x'); end $$",
            Pin(PinReason::Function),
        ),
        (
            "update t set a = 1 where pg_try_advisory_lock(a)",
            Pin(PinReason::AdvisoryLock),
        ),
        ("select pg_advisory_xact_lock(1)", None),
        ("load 'x'", Pin(PinReason::Load)),
        ("prepare p as select 1", Prepare),
        ("execute p", Execute),
        ("explain analyze execute p", Execute),
        ("create table t as execute p", Execute),
        ("execute p; execute q", Execute),
        ("select 1; execute p", Execute),
        ("prepare p as select 1; execute p", Pin(PinReason::Prepare)),
        ("do $$ begin end $$", Unknown),
        ("select set_config('a', 'b', false)", SetConfig),
        ("do$$ begin set x = 1; end $$", Unknown),
        ("DO $$ begin SET x = 1; end $$", Pin(PinReason::Settings)),
        (
            "do 'begin create temp table t (a int); end'",
            Pin(PinReason::TemporaryObject),
        ),
        (
            "do $$ begin perform pg_advisory_lock(1); end $$; select 1",
            Pin(PinReason::AdvisoryLock),
        ),
        ("call reset_all()", Unknown),
        (
            "set search_path = pg_temp, public",
            Pin(PinReason::Settings),
        ),
        (
            "select 1; set search_path to 'pg_temp'",
            Pin(PinReason::Settings),
        ),
        (
            "update pg_settings set setting = '9MB'",
            Pin(PinReason::Settings),
        ),
        ("select setting from pg_settings", None),
        (
            "create temp table t (a int); set work_mem = '9MB'",
            Pin(PinReason::Settings),
        ),
        (
            "create temp table t (a int); do $$ begin end $$",
            Pin(PinReason::Settings),
        ),
        (
            "create temp table t as select set_config('a', 'b', false)",
            Pin(PinReason::Settings),
        ),
        (
            "create temp table t (a int); insert into t values (1)",
            Pin(PinReason::TemporaryObject),
        ),
        (
            "select set_config('a', $1, false)",
            Pin(PinReason::Settings),
        ),
        (
            "select 1; select set_config('a', 'b', false)",
            Pin(PinReason::Settings),
        ),
        ("select set_config('a', $1, true)", Unknown),
        (
            "insert into t select set_config('a', 'b', false)",
            Pin(PinReason::Settings),
        ),
        ("deallocate p; select 1", SetSeveral),
        ("select 1; set x = 1", SetSeveral),
        ("set x = 1; set y = 2", SetSeveral),
        ("begin; set x = 1; commit", SetSeveral),
        ("begin; set x = 1; rollback", SetSeveral),
        ("set x = 1; discard all", Pin(PinReason::Settings)),
        (
            "begin; create temp table t (a int); commit",
            Pin(PinReason::TemporaryObject),
        ),
        ("select 'unterminated", Unknown),
    ] {
        assert_eq!(classify(text).session, session, "{text}");
    }
}

#[test]
fn transactions() {
    for (text, tx) in [
        ("select 1", TxEffect::None),
        ("begin", TxEffect::Begin),
        ("commit", TxEffect::End),
        ("rollback to savepoint s", TxEffect::None),
        ("rollback work to s", TxEffect::None),
        ("prepare transaction 'x'", TxEffect::End),
        ("begin; select 1", TxEffect::Mixed),
    ] {
        assert_eq!(classify(text).tx, tx, "{text}");
    }
}

#[test]
fn text_that_the_server_lexes_in_another_way_is_a_write() {
    let classifier = Classifier::new(1 << 20);
    let old_strings = Lexing {
        standard_conforming_strings: false,
        ..Lexing::default()
    };
    let text = br"select '\', nextval('s'), '";
    assert_eq!(
        classifier.classify(text, old_strings, &TABLES).reason,
        Reason::UnsafeText
    );
    assert_eq!(
        classifier
            .classify(b"select 'a'", old_strings, &TABLES)
            .access,
        Access::Read
    );
    let sjis = Lexing {
        safe_encoding: false,
        ..Lexing::default()
    };
    assert_eq!(
        classifier
            .classify(b"select '\x83\\'", sjis, &TABLES)
            .reason,
        Reason::UnsafeText
    );
    assert_eq!(
        classifier.classify(b"select 'a'", sjis, &TABLES).access,
        Access::Read
    );
    let fresh = Classifier::new(1 << 20);
    assert_eq!(
        fresh
            .classify(b"select '\xff'", Lexing::default(), &TABLES)
            .access,
        Access::Write
    );
}

/// Texts that make deep trees: what is repeated in them, and how often at most.
const DEEP: &[(&str, &str, usize)] = &[
    ("select 1{}", "+1", 1_510),
    ("select 1{}", "::int", 960),
    ("select a{}", " and a", 1_490),
    ("select a{} from t", "[1]", 960),
    ("select a{}", " is null", 1_190),
    ("select a{}", " is json", 1_190),
    ("select {}", "a[", 520),
    ("select 1{}", " union all select 1", 143),
    ("select a{}", "||b", 960),
    ("select a{}", "->'x'", 960),
    ("select a{}", " at time zone 'x'", 670),
    ("select 1::int{}", "[]", 1_410),
    ("select {}", "f(", 1_410),
    ("select {} 1", "case when ", 960),
    ("select {} 1", "not ", 1_490),
    ("select {} 1", "- ", 1_490),
    ("select * from a{}", " join b on true", 143),
    ("select * from a{}", " natural join b", 143),
    ("select * from a{}", ", b", 1_490),
    ("{}1", "(select a.* from ", 143),
    ("select * from {}a", "(", 60),
    ("with x as ({}", "with x as (", 670),
    ("select {}", "(select ", 143),
    ("select * from {} t", "(select * from ", 143),
];

/// The stack that is set aside for so many tokens is enough for the deepest of them.
#[test]
fn short_and_deep_text_is_parsed_on_the_stack_that_is_there() {
    for tokens in [8, 16, 32, 64, 128, 256, 512] {
        let probe = move || {
            for (text, unit, _) in DEEP {
                let of = |times: usize| text.replace("{}", &unit.repeat(times));
                let times = (1..tokens).take_while(|times| count_tokens(&of(*times)) <= tokens);
                // Those that end well, and those that end in the middle of everything.
                for times in times.last().into_iter().chain([tokens / 2]) {
                    classify(&of(times.max(1)));
                }
            }
        };
        // What the test itself takes on it.
        let own = 64 * 1024;
        let thread = std::thread::Builder::new().stack_size(stack_for(tokens) + own);
        let thread = thread.spawn(probe).expect("a thread");
        thread.join().expect("no statement overflows the stack");
    }
}

fn count_tokens(text: &str) -> usize {
    let mut lexed = Lexed::default();
    lexed.lex(text.as_bytes()).expect("plain text");
    lexed.tokens
}

#[test]
fn long_and_deep_text_is_a_write_and_does_no_harm() {
    // In a thread with the stack of a runtime's worker.
    let probe = || {
        for (text, reason) in [
            (format!("select 1{}", "+1".repeat(100_000)), Reason::TooLong),
            (format!("select 1{}", "+1".repeat(5_000)), Reason::TooLong),
            (
                format!("select {}1{}", "(".repeat(8_000), ")".repeat(8_000)),
                Reason::TooLong,
            ),
            (
                format!("select {}1{}", "(".repeat(1_400), ")".repeat(1_400)),
                Reason::Unparsable,
            ),
            ("select 1;".repeat(100), Reason::TooManyStatements),
            // Each of these takes the parser long.
            (
                format!("select 1{}", " union all select 1".repeat(800)),
                Reason::TooLong,
            ),
            (
                format!("table t{}", " union table t".repeat(800)),
                Reason::TooLong,
            ),
            (
                format!("select * from a{}", " join b".repeat(1_000)),
                Reason::TooLong,
            ),
            (
                format!("select {}", "(select ".repeat(1_500)),
                Reason::TooLong,
            ),
            (
                format!("select {}1{}", "array[".repeat(32), "+1".repeat(800)),
                Reason::TooLong,
            ),
            (
                format!(
                    "select {}1{}{}",
                    "array[".repeat(9),
                    ",1".repeat(200),
                    "]".repeat(9)
                ),
                Reason::Read,
            ),
            (
                format!("select array[1{}]", ", array[1, 2][1]".repeat(400)),
                Reason::TooLong,
            ),
            (
                format!("select array[1{}]", ", array[1, 2][1]".repeat(150)),
                Reason::Read,
            ),
            (
                format!(
                    "select * from {}select 1{}",
                    "(".repeat(32),
                    "+1".repeat(800)
                ),
                Reason::TooLong,
            ),
            (
                format!("select {}select 1{}", "(".repeat(32), "+1".repeat(800)),
                Reason::Unparsable,
            ),
            (
                format!(
                    "select * from {}t{}",
                    "(".repeat(12),
                    " join t on a = b)".repeat(12)
                ),
                Reason::Read,
            ),
            (
                format!(
                    "select {}'1'{}",
                    "convert(".repeat(32),
                    ", 'a', 'b')".repeat(32)
                ),
                Reason::Read,
            ),
            // Many tokens for its length; and few.
            (
                format!("insert into t values (1{}", ",1".repeat(40_000)),
                Reason::TooLong,
            ),
            (
                format!("insert into t values ('{}')", "a".repeat(200_000)),
                Reason::DataModifying,
            ),
        ] {
            assert_eq!(classify(&text).reason, reason, "{} bytes", text.len());
        }
        for (text, unit, most) in DEEP {
            let text = text.replace("{}", &unit.repeat(*most));
            assert_ne!(
                classify(&text).reason,
                Reason::TooLong,
                "{} bytes",
                text.len()
            );
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(probe);
    thread
        .expect("a thread")
        .join()
        .expect("no statement overflows the stack");
}

/// A transaction that has to stay on its standby is answered there what catalogs alone keep from it.
#[test]
fn catalogs_are_the_least_of_reasons() {
    for text in [
        "select version(), cmin from t",
        "select cmin, version() from t",
    ] {
        let class = classify(text);
        assert_eq!(
            (class.access, class.reason),
            (Access::Primary, Reason::Relation),
            "{text}"
        );
    }
    assert_eq!(classify("select version() from t").reason, Reason::Catalog);
}

#[test]
fn the_cache_knows_statements_by_their_shape() {
    let classifier = Classifier::new(1 << 20);
    for aid in 0..100 {
        let text = format!("SELECT abalance FROM accounts WHERE aid = {aid} AND name = 'n{aid}';");
        assert_eq!(
            classifier
                .classify(text.as_bytes(), Lexing::default(), &TABLES)
                .access,
            Access::Read
        );
    }
    assert_eq!((classifier.misses(), classifier.hits()), (1, 99));
}

#[test]
fn a_literal_that_is_not_utf8_decides_for_its_own_text_only() {
    let classifier = Classifier::new(1 << 20);
    let check = |text: &[u8], expected| {
        let class = classifier.classify(text, Lexing::default(), &TABLES);
        assert_eq!(class.access, expected, "{}", text.escape_ascii());
    };
    check(b"select a from t where b = '\xff'", Access::Write);
    check(b"select a from t where b = 'x'", Access::Read);
    check(b"select a from t where b = '\xff'", Access::Write);
}

#[test]
fn explanations_name_what_decided() {
    let explain = |text: &str| {
        Classifier::new(1 << 20)
            .explain(text.as_bytes(), Lexing::default(), &TABLES)
            .detail
    };
    assert_eq!(explain("select nextval('s')"), "function nextval");
    assert_eq!(explain("select 'x'::mytype"), "type mytype");
    assert_eq!(explain("select 1"), "");
    assert!(!explain("select ((").is_empty());
}

proptest! {
    #[test]
    fn any_bytes_are_survived(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        Classifier::new(1 << 20).classify(&text, Lexing::default(), &TABLES);
    }

    /// Words in an order that makes the parser work.
    #[test]
    fn any_words_are_survived(words in proptest::collection::vec(
        proptest::sample::select(vec!["select", "from", "t", "(", ")", ",", "nextval", "'s'", "1", "where", "=", "with", "as",
            "union", "for", "update", "insert", "into", "values", ";", "::", "[", "]", "case", "when", "end", "explain"]), 0..40)) {
        let text = words.join(" ");
        let class = Classifier::new(1 << 20).classify(text.as_bytes(), Lexing::default(), &TABLES);
        // Whatever the parser makes of it: a call of nextval is never a read.
        if text.contains("nextval (") {
            prop_assert_ne!(class.access, Access::Read, "{}", text);
        }
    }

    /// White space and comments change no verdict.
    #[test]
    fn space_changes_nothing(gap in proptest::sample::select(vec![" ", "\n", "\t\r\n", " -- x\n", "/* ; ' */", "  "])) {
        for text in ["select a from t where b = 1", "insert into t values (1)", "begin", "set x = 1", "select f ( 1 )"] {
            let spaced = text.replace(' ', gap);
            prop_assert_eq!(classify(text), classify(&spaced), "{}", spaced);
        }
    }
}

#[test]
fn statements_are_told_apart() {
    let split = |text: &str| -> Vec<String> {
        let parts = statements(text.as_bytes()).into_iter();
        parts
            .map(|part| String::from_utf8_lossy(part).into_owned())
            .collect()
    };
    assert_eq!(
        split(" set a = 1; /* ; */ set b = ';' ;"),
        ["set a = 1", "set b = ';' "]
    );
    assert_eq!(split(""), Vec::<String>::new());
    assert_eq!(split("select 'x"), Vec::<String>::new());
}

/// The class of a statement behind a hint that is followed.
fn hinted(hint: &str, text: &str) -> Class {
    classify(&format!("/* pgweir: {hint} */ {text}")).hinted()
}

#[test]
fn a_hint_for_the_primary_is_always_followed() {
    for text in ["select 1", "set x = 1", "commit", ""] {
        let class = hinted("primary", text);
        assert_eq!(class.access, Access::Primary, "{text}");
        assert_eq!(class.reason, Reason::Hint, "{text}");
    }
    let class = hinted("primary", "insert into t values (1)");
    assert_eq!(
        (class.access, class.reason),
        (Access::Write, Reason::DataModifying)
    );
}

#[test]
fn a_hint_for_a_standby_is_followed_where_nothing_is_known_to_be_wrong() {
    for text in [
        "select my_function(a) from t",
        "select 'x'::mytype",
        "select a operator(public.+) b from t",
        "select a <%#> b, my_function(a) from t",
        "select * from pg_class",
        "select inet_server_port()",
        "select * from t tablesample mine (10)",
        "explain analyze select my_function(1)",
        "with x as (select my_function(1)) select * from x, information_schema.tables",
        "select my_function(1); select 2",
        "copy (select my_function(1)) to stdout",
    ] {
        assert_ne!(classify(text).access, Access::Read, "{text}");
        let class = hinted("standby", text);
        assert_eq!(
            (class.access, class.reason),
            (Access::Read, Reason::Hint),
            "{text}"
        );
        assert_eq!(class.hint.result, HintResult::Followed, "{text}");
    }
    let class = hinted("standby", "select 1");
    assert_eq!((class.access, class.reason), (Access::Read, Reason::Read));
}

#[test]
fn a_hint_for_a_standby_takes_no_write_there() {
    for text in [
        "insert into t values (1)",
        "select nextval('s')",
        "select my_function(nextval('s'))",
        "select my_function(1) for update",
        "select a <%#> b from t for update",
        "select a <%#> nextval('s') from t",
        "select * from t where my_function(a) for share",
        "with x as (select my_function(1)), y as (delete from t returning *) select * from x, y",
        "with y as (delete from t returning *) select my_function(1) from y",
        "select my_function(1) into u",
        "select pg_advisory_lock(1)",
        "select pg_try_advisory_xact_lock(1)",
        "select lo_create(0), my_function(1)",
        "select set_config('a', 'b', my_function(1))",
        "select set_config('a', 'b', false)",
        "select pg_is_in_recovery()",
        "select * from pg_temp.t",
        "select my_function(1) from pg_temp.t",
        "select my_function(1); insert into t values (1)",
        "explain analyze create table u as select my_function(1)",
        "explain analyze delete from t where my_function(a)",
        "copy t to program 'x'",
        "copy (select my_function(1)) to program 'x'",
        "copy (insert into t values (1) returning my_function(1)) to stdout",
        "copy t from stdin",
        "call p()",
        "do $$ begin end $$",
        "lock t",
        "listen x",
        "create table u (a int)",
        "declare c cursor with hold for select 1",
        "show x",
        "begin",
        "select ((",
    ] {
        let (plain, class) = (classify(text), hinted("standby", text));
        assert_ne!(class.access, Access::Read, "{text}");
        assert_eq!(class.access, plain.access, "{text}");
        assert_eq!(class.hint.result, HintResult::InVain, "{text}");
    }
}

#[test]
fn a_hint_does_not_rub_off() {
    let classifier = Classifier::new(1 << 20);
    let class = |text: &str| classifier.classify(text.as_bytes(), Lexing::default(), &TABLES);
    let hinted = class("/* pgweir: standby, stale=5s */ select f(1)");
    assert_eq!(hinted.hint.stale, Some(5_000));
    let plain = class("select f(2)");
    assert_eq!(classifier.hits(), 1, "one entry for both");
    assert_eq!(plain.hint, Hint::NONE);
    assert_eq!(plain.hinted().access, Access::Write);
    assert_eq!(
        class("/* pgweir: standby */ select f(3)").hinted().access,
        Access::Read
    );
}
/// An operator that the parser would take apart is looked at as the server reads it.
#[test]
fn operators_are_told_apart_as_the_server_does() {
    for text in [
        "select 1 <*> 2",
        "select a <*>2 from t",
        "select 1 <=> 2",
        "select 1 @@@ 2",
        "select a *= b from t",
        "select 1 !=-1",
        "select 1 %- 2",
    ] {
        let class = classify(text);
        assert_eq!(
            (class.access, class.reason),
            (Access::Write, Reason::Operator),
            "{text}"
        );
    }
    let signs = format!("select 1{}1", "+".repeat(20));
    for text in [
        "select 1*-1, 1<-1, 1=-1, a->'b'#>>'{c}', - -1",
        "select count(*), t.*, 2*/* two */3 from t where a=+1--comment",
        "select 1+--2\n3",
        &signs,
    ] {
        assert_eq!(classify(text).access, Access::Read, "{text}");
    }
}

/// Not where its own query, or one before it, names a relation by the same name.
#[test]
fn a_name_of_with_is_known_behind_its_query() {
    let rows: [Vec<Option<String>>; 0] = [];
    let nothing = catalog::Catalog::build(&rows, &catalog::Trust::default()).expect("no rows");
    let access = |text: &str| {
        let classifier = Classifier::new(1 << 20);
        (classifier.classify(text.as_bytes(), Lexing::default(), &nothing)).access
    };
    for text in [
        "with x as (select 1) select * from x",
        "with x as (select 1), y as (select * from x) select * from y, x",
        "with x as (select 1) select (with y as (select * from x) select * from y)",
        "with x as (with y as (select 1) select * from y) select * from x",
        "with x as (select 1) table x",
        "with x as (select 1) select 1 union table x",
        "with recursive x as (select 1 union all select * from x) select * from x",
        "with recursive x as (select * from y), y as (select 1) select * from x",
        "with x as (select (select 1)), y as (select 2) select * from x, y",
    ] {
        assert_eq!(access(text), Access::Read, "{text}");
    }
    for text in [
        "with x as (select * from x) select * from x",
        "with x as (table x) select 1",
        "with x as (select * from y), y as (select 1) select * from x",
        "with x as (with y as (select 1) select * from y) select * from y",
        "select * from (with x as (select 1) select * from x) s, x",
        "with x as (select (select 1 from x)) select 1",
    ] {
        assert_eq!(access(text), Access::Write, "{text}");
    }
}

/// The server cuts longer names off, and may find something by what is left.
#[test]
fn names_that_the_server_cuts_off() {
    let name = "a".repeat(64);
    for text in [
        format!("select {name} from t"),
        format!("select t.\"{name}\" from t"),
        format!("with {name} as (select 1) select * from {name}"),
    ] {
        let class = classify(&text);
        assert_eq!(
            (class.access, class.reason),
            (Access::Write, Reason::UnsafeText),
            "{text}"
        );
    }
    assert_eq!(
        classify(&format!("select {} from t", &name[1..])).access,
        Access::Read
    );
    assert_eq!(
        classify(&format!("select '{name}' from t")).access,
        Access::Read
    );
}

/// Verdicts are remembered by texts without their literals: what a literal decides must not be among them.
#[test]
fn explain_by_number_is_taken_for_execution() {
    let classifier = Classifier::new(1 << 20);
    for text in [
        "explain (analyze 0) insert into t values (1)",
        "explain (analyze 1) insert into t values (1)",
    ] {
        let class = classifier.classify(text.as_bytes(), Lexing::default(), &TABLES);
        assert_eq!(class.access, Access::Write, "{text}");
    }
}

#[test]
fn types_among_arguments() {
    for (kind, access) in [("int", Access::Read), ("mytype", Access::Write)] {
        let text = format!("select json_object('a': 1 returning {kind})");
        assert_eq!(classify(&text).access, access, "{text}");
    }
}

#[test]
fn sequences_are_asked_by_calls() {
    let check = |text: &str, uses: bool, next: bool| {
        let class =
            Classifier::new(1 << 16).classify(text.as_bytes(), Lexing::default(), &catalog::TABLES);
        let found = (class.uses_sequence(), class.calls_nextval());
        assert_eq!(found, (uses, next), "{text}");
    };
    check("select lastval()", true, false);
    check("SELECT CurrVal('s')", true, false);
    check("select \"lastval\" /* so */ ()", true, false);
    check("select pg_catalog . currval ('s')", true, false);
    check("insert into t values (currval('s'))", true, false);
    check("insert into t values (1); select lastval()", true, false);
    check("select nextval('s')", false, true);
    check("select nextval('s'), currval('s')", true, true);
    check("insert into t values (nextval('s'))", false, true);
    // Not what has the name of one, nor what only prepares.
    check("select lastval, currval from t", false, false);
    check("select max(lastval) from t", false, false);
    check(
        "select my_lastval(), lastval_of(1), xnextval(1) from t",
        false,
        false,
    );
    check(
        "select 'lastval()', $$currval('s')$$ -- nextval('s')",
        false,
        false,
    );
    check("prepare p as select lastval()", false, false);
    check("create table t (n int default nextval('s'))", false, false);
    // What is not lexed is looked through.
    check("select lastval(), 'open", true, false);
}
