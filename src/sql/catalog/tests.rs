use super::*;
use crate::sql::{Classifier, Lexing};

/// Rows as [`QUERY`] returns them, one a line: kind, detail, id, name, schema.
fn catalog(rows: &str, trust: &Trust) -> Catalog {
    let row = |line: &str| -> Vec<Option<String>> {
        let mut fields: Vec<_> = line
            .split_whitespace()
            .map(|f| Some(f.to_owned()))
            .collect();
        for field in &mut fields {
            if field.as_deref() == Some("-") {
                *field = Some(String::new());
            }
        }
        fields.resize(5, None);
        fields
    };
    let rows: Vec<_> = rows
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(row)
        .collect();
    Catalog::build(&rows, trust).expect("rows of the catalog")
}

/// Access, reason and what decided.
fn verdict(catalog: &Catalog, text: &str) -> (Access, Reason, String) {
    let explanation = Classifier::new(1 << 20).explain(text.as_bytes(), Lexing::default(), catalog);
    let (class, chain) = (explanation.class, explanation.chain.join(" → "));
    let detail = if chain.is_empty() {
        explanation.detail
    } else {
        chain
    };
    (class.access, class.reason, detail)
}

const ROWS: &str = "
    r rp 20001 t public
    r vp 20002 v public
    r vp 20003 outer app
    r vp 20004 activity public
    r ru 20005 u public
    r fp 20006 far public
    r Sp 20007 sq public
    r rp 20008 twin a
    r ru 20009 twin b
    e rf 20002 1574
    e rr 20003 20002
    e rr 20004 12222
    f vuf- 1574 nextval pg_catalog
    f suf- 21001 stable public
    f vuf- 21002 wild public
    f vufa 21003 field public
    f suf- 21004 lower app
    f sup- 21005 proc public
    f suf- 21006 pg_notify app
    f suf- 21007 dblink_x public
    f iua- 21008 total public
    f vuf- 21009 step public
    e ff 21008 21009
    F - 0 lower pg_catalog
    F - 0 pg_notify pg_catalog
    t e 22001 mood public
    t d 22002 checked public
    e tf 22002 21002
    o - 23001 <+> -
    o - 23002 <*> -
    e of 23001 21002
    e of 23002 21001
    O - 0 <-> -
";

#[test]
fn names_are_what_they_reach() {
    let catalog = catalog(ROWS, &Trust::default());
    let read = |text: &str| assert_eq!(verdict(&catalog, text).0, Access::Read, "{text}");
    for text in [
        "select * from t",
        "select stable(a) from public.t",
        "select lower(b) from t",
        "select 'x'::mood, 1::int4[]",
        "select mood('x')",
        "select 1 <*> 2, 1 <-> 2, <*> 3",
        "select 1 <*> any (array[1]), a[1]<*>-1",
        "with w as (select 1) select * from w",
        "select * from a.twin",
        "select t.a, (t).b from t",
    ] {
        read(text);
    }
    let not = |access, reason, text: &str, why: &str| {
        assert_eq!(
            verdict(&catalog, text),
            (access, reason, why.to_owned()),
            "{text}"
        );
    };
    use Access::{Primary, Write};
    not(
        Write,
        Reason::Relation,
        "select * from v",
        "view v → function nextval",
    );
    not(
        Write,
        Reason::Relation,
        "select * from app.outer",
        "view app.outer → view v → function nextval",
    );
    not(
        Primary,
        Reason::Catalog,
        "select * from activity",
        "view activity → system catalog",
    );
    not(
        Primary,
        Reason::Relation,
        "select * from u",
        "table u (unlogged)",
    );
    not(
        Write,
        Reason::Relation,
        "select * from far",
        "foreign table far",
    );
    not(
        Primary,
        Reason::Relation,
        "select last_value from sq",
        "sequence sq",
    );
    not(
        Primary,
        Reason::Relation,
        "select * from twin",
        "table b.twin (unlogged)",
    );
    not(
        Write,
        Reason::Function,
        "select wild()",
        "function wild (volatile)",
    );
    not(
        Write,
        Reason::Function,
        "select t.field from t",
        "function field (volatile)",
    );
    not(
        Write,
        Reason::Function,
        "select (x.t).field from x",
        "function field (volatile)",
    );
    not(
        Write,
        Reason::Function,
        "select proc()",
        "function proc (a procedure)",
    );
    not(
        Write,
        Reason::Function,
        "select pg_notify('a', 'b')",
        "function pg_notify",
    );
    not(
        Write,
        Reason::Function,
        "select dblink_x()",
        "function dblink_x (runs statements elsewhere)",
    );
    not(
        Write,
        Reason::Function,
        "select total(a) from t",
        "function total → function step (volatile)",
    );
    not(
        Write,
        Reason::Type,
        "select 1::checked",
        "type checked → function wild (volatile)",
    );
    not(Write, Reason::Operator, "select 1 <+> 2", "operator <+>");
    not(
        Write,
        Reason::UnknownName,
        "select * from nobody",
        "relation nobody",
    );
    not(
        Write,
        Reason::UnknownName,
        "select * from c.twin",
        "relation c.twin",
    );
    not(
        Write,
        Reason::UnknownName,
        "select nothing()",
        "function nothing",
    );
    // A name of WITH hides nothing that the database has.
    not(
        Write,
        Reason::Relation,
        "with v as (select * from v) select * from v",
        "view v → function nextval",
    );
    not(
        Primary,
        Reason::Relation,
        "copy u to stdout",
        "table u (unlogged)",
    );
}

#[test]
fn trust_is_given_by_name() {
    let trust = Trust {
        declared: false,
        functions: vec![
            "wild".to_owned(),
            "app.pg_notify".to_owned(),
            "dblink_x".to_owned(),
        ],
        ..Trust::default()
    };
    let catalog = catalog(ROWS, &trust);
    let access = |text| verdict(&catalog, text).0;
    assert_eq!(access("select wild()"), Access::Read);
    assert_eq!(access("select 1::checked"), Access::Read);
    assert_eq!(
        access("select app.pg_notify('a', 'b')"),
        Access::Read,
        "not the built-in one"
    );
    assert_eq!(access("select pg_notify('a', 'b')"), Access::Write);
    assert_eq!(access("select stable(1)"), Access::Write);
    assert_eq!(
        access("select dblink_x()"),
        Access::Write,
        "whatever anybody says"
    );
}

#[test]
fn procedures_that_only_read_are_called_on_standbys() {
    let trust = Trust {
        procedures: vec!["reads".to_owned(), "app.reports".to_owned()],
        ..Trust::default()
    };
    let catalog = catalog(ROWS, &trust);
    let access = |text| verdict(&catalog, text).0;
    for text in [
        "call reads()",
        "CALL public.Reads (1, 'a)b', a => lower('X'));",
        "call \"reads\"((select 1))",
        "call app.reports($1)",
    ] {
        assert_eq!(access(text), Access::Read, "{text}");
    }
    for text in [
        "call reports()",
        "call other.reports()",
        "call \"Reads\"()",
        "call reads(wild())",
        "call reads(1), (wild())",
        "call reads(nextval('s'))",
        "call reads(1) into x",
        "call reads(set_config('a.b', 'c', false))",
        "call reads(pg_advisory_lock(1))",
        "call reads(); call reads()",
        "do $$ begin call reads(); end $$",
        "call reads",
    ] {
        assert_eq!(access(text), Access::Write, "{text}");
    }
    let unknown = Catalog::unknown();
    assert_eq!(verdict(&unknown, "call reads()").0, Access::Write);
}

#[test]
fn catalogs_are_read_on_standbys_where_they_may_be() {
    let trust = Trust {
        catalogs: true,
        ..Trust::default()
    };
    let free = catalog(ROWS, &trust);
    let bound = catalog(ROWS, &Trust::default());
    for text in [
        "select oid from pg_class",
        "select n.nspname from pg_catalog.pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where pg_catalog.pg_table_is_visible(c.oid)",
        "select table_name from information_schema.tables",
        "select pg_get_expr(adbin, adrelid) from pg_attrdef",
        "table pg_type",
    ] {
        assert_eq!(verdict(&free, text).0, Access::Read, "{text}");
        assert_eq!(verdict(&bound, text).0, Access::Primary, "{text}");
    }
    for text in [
        "select * from pg_stat_activity",
        "select * from pg_class, pg_locks",
        "select * from pg_settings",
        "select pg_is_in_recovery() from pg_class",
        "select current_setting('x') from pg_class",
        "select * from pg_toast.pg_toast_1255",
        "select * from pg_class where relname = version()",
    ] {
        assert_eq!(verdict(&free, text).0, Access::Primary, "{text}");
    }
    assert_eq!(
        verdict(&free, "select * from pg_class for update").0,
        Access::Write
    );
    let unknown = Catalog::unknown();
    assert_eq!(
        verdict(&unknown, "select oid from pg_class").0,
        Access::Primary
    );
}

/// What a statement may run without naming it makes every statement a write.
#[test]
fn what_every_statement_may_run() {
    for (row, text) in [
        ("o - 23003 = -\n e of 23003 21002", "select 1 in (1)"),
        ("e xf 0 21002", "select 1"),
        ("e cf 0 21002", "select 1::int"),
        (
            "t d 22003 date public\n e tf 22003 21002",
            "select '2020-01-01'::date",
        ),
    ] {
        let tainted = catalog(&format!("{ROWS}{row}"), &Trust::default());
        assert_eq!(verdict(&tainted, text).0, Access::Write, "{row}");
        let sound = catalog(ROWS, &Trust::default());
        assert_eq!(verdict(&sound, text).0, Access::Read, "{text}");
    }
}

#[test]
fn before_it_is_known_only_built_in_names_are_reads() {
    let unknown = Catalog::unknown();
    assert_eq!(verdict(&unknown, "select 1 + length('a')").0, Access::Read);
    for text in [
        "select * from t",
        "with t as (select * from t) select * from t",
        "select f()",
        "select 'a'::m",
    ] {
        let (access, reason, _) = verdict(&unknown, text);
        assert_eq!(
            (access, reason),
            (Access::Write, Reason::NotLoaded),
            "{text}"
        );
    }
}

/// A verdict that rests on one catalog is not taken for another's.
#[test]
fn verdicts_are_remembered_by_catalog() {
    let classifier = Classifier::new(1 << 20);
    let access = |catalog: &Catalog| {
        let text = b"select stable(1) from t";
        classifier.classify(text, Lexing::default(), catalog).access
    };
    let good = catalog(ROWS, &Trust::default());
    let bad = catalog(&ROWS.replace("suf- 21001", "vuf- 21001"), &Trust::default());
    for _ in 0..2 {
        assert_eq!(access(&good), Access::Read);
        assert_eq!(access(&bad), Access::Write);
        assert_eq!(access(&Catalog::unknown()), Access::Write);
    }
    assert_eq!(classifier.misses(), 3);
    assert!(good.says_the_same(&catalog(ROWS, &Trust::default())));
    assert!(!good.says_the_same(&bad));
}

#[test]
fn rows_that_cannot_be_are_refused() {
    for row in [
        "z - 1 a b",
        "f - 1 a b",
        "r r 20001 t public",
        "e r 1 2",
        "e zz 1 2",
        "e rr x 2",
        "f vuf- x a b",
    ] {
        let fields: Vec<_> = row.split(' ').map(|f| Some(f.to_owned())).collect();
        assert!(
            Catalog::build(&[fields], &Trust::default()).is_err(),
            "{row}"
        );
    }
    assert!(Catalog::build(&[vec![None; 5]], &Trust::default()).is_err());
    assert!(Catalog::build(&[Vec::new()], &Trust::default()).is_err());
}

/// What a type's input runs is run for the arguments of a function, for rows of a table, and for parameters.
#[test]
fn types_taint_what_takes_their_values() {
    let rows = format!(
        "{ROWS}
        e ft 21001 22002
        e rt 20001 22002
        e tt 22009 22002"
    );
    let catalog = catalog(&rows, &Trust::default());
    assert_eq!(verdict(&catalog, "select stable(1)").0, Access::Write);
    assert_eq!(verdict(&catalog, "select 1 from t").0, Access::Write);
    assert_eq!(verdict(&catalog, "select checked(1)").1, Reason::Type);
    let takes = [23, 22001, 22002, 22009].map(|id| catalog.takes_parameter(id));
    assert_eq!(takes, [true, true, false, false]);
    assert!(!Catalog::unknown().takes_parameter(22001));
    assert!(Catalog::unknown().takes_parameter(23));
}

/// A view may lock rows of what it shows.
#[test]
fn what_locks_rows_is_a_write() {
    let rows = format!(
        "{ROWS}
        r vp 20010 locking public
        r vp 20011 over public
        e rr 20010 20001
        e rr 20011 20010
        l - 20010 -"
    );
    let catalog = catalog(&rows, &Trust::default());
    let verdict = |text: &str| verdict(&catalog, text);
    let locking = "view locking (locks rows)";
    assert_eq!(
        verdict("select * from locking"),
        (Access::Write, Reason::Locking, locking.to_owned())
    );
    assert_eq!(
        verdict("select * from over"),
        (
            Access::Write,
            Reason::Relation,
            format!("view over \u{2192} {locking}")
        )
    );
    assert_eq!(verdict("select * from t").0, Access::Read);
}

#[test]
fn what_functions_may_leave_in_their_session() {
    let leaves = |rows| catalog(rows, &Trust::default()).leaves();
    assert!(leaves("f vup- 16400 f public").is_empty());
    let two = leaves("L settings 0 - -\nL advisory_lock 0 - -");
    assert_eq!(
        two.iter().collect::<Vec<_>>(),
        [PinReason::AdvisoryLock, PinReason::Settings]
    );
    assert!(TABLES.leaves().is_empty());
    let preparing = catalog("L prepare 0 - -", &Trust::default());
    let behind = Catalog::unknown().behind(&preparing).leaves();
    assert!(behind.has(PinReason::Prepare) && behind.has(PinReason::Settings));
    // Before anything has been seen, and where nothing can be.
    let unknown = Catalog::unknown();
    assert!(unknown.leaves().has(PinReason::Settings) && unknown.leaves().has(PinReason::Prepare));
    let unreadable = unknown.unreadable().expect("nothing is known");
    assert!(unreadable.leaves().has(PinReason::Settings));
    assert!(!unreadable.leaves().has(PinReason::Prepare));
    assert!(unreadable.unreadable().is_none() && preparing.unreadable().is_none());
}
