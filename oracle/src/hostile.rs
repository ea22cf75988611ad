//! Statements that are made to hurt: what the costliest of them takes.

use std::time::Duration;

use crate::sql::catalog::TABLES;
use crate::sql::{Classifier, Lexing};

use crate::compare::line;
use crate::figure::Figure;
use crate::generate::Random;
use crate::memory::{self, Cost};

/// Processor time for one statement.
const MOST_TIME: Duration = Duration::from_millis(5);
/// Memory for one statement: what is allocated, and for the table also what the stack has touched.
const MOST_MEMORY: usize = 32 << 20;
/// Length of the longest text of the table. A session gives no more to the classifier than it holds.
const LONGEST: usize = 16 << 20;
/// A costly statement is tried again so many times: something else may have had the processor's caches.
const AGAIN: usize = 24;
/// Costliest statements that are printed.
const SHOWN: usize = 24;

/// The costliest statements.
#[derive(Debug, Default)]
pub struct Hostile {
    texts: u64,
    slowest: Vec<(Duration, String)>,
    largest: Vec<(usize, String)>,
}

impl Hostile {
    /// Classifies with a cold cache, and remembers what it took.
    pub fn add(&mut self, text: &[u8]) {
        self.texts += 1;
        let mut cost = classify(text);
        for _ in 0..AGAIN {
            if cost.time <= MOST_TIME / 2 {
                break;
            }
            cost.time = cost.time.min(classify(text).time);
        }
        self.note(text, cost);
    }

    /// The same, with all memory that the process touches for it.
    fn add_resident(&mut self, text: &[u8]) {
        memory::forget_peak();
        let before = memory::resident_peak();
        self.add(text);
        if let (Some(before), Some(after)) = (before, memory::resident_peak()) {
            let cost = Cost {
                heap: after.saturating_sub(before),
                ..Cost::default()
            };
            self.note(text, cost);
        }
    }

    fn note(&mut self, text: &[u8], cost: Cost) {
        keep(&mut self.slowest, cost.time, text);
        keep(&mut self.largest, cost.heap, text);
    }

    /// Whether all kept within the bounds.
    pub fn figures(&self) -> [Figure; 2] {
        let time = self
            .slowest
            .first()
            .map(|(time, _)| *time)
            .unwrap_or_default();
        let bytes = self
            .largest
            .first()
            .map(|(bytes, _)| *bytes)
            .unwrap_or_default();
        let texts = self.texts;
        [
            Figure::new(
                format!("processor time of the costliest of {texts} texts"),
                format!("{:.2} ms", time.as_secs_f64() * 1e3),
                format!("at most {} ms", MOST_TIME.as_millis()),
                time <= MOST_TIME,
            ),
            Figure::new(
                format!("memory of the largest of {texts} texts"),
                format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20)),
                format!("at most {} MiB", MOST_MEMORY >> 20),
                bytes <= MOST_MEMORY,
            ),
        ]
    }

    /// The table: each thing that nests or goes on, in many lengths.
    pub fn table(&mut self) {
        for (front, piece, middle, back, end) in TABLE {
            let one = piece.len() + back.len();
            for length in [
                1_000, 4_000, 8_000, 12_000, 16_000, 16_384, 60_000, 1_000_000, LONGEST,
            ] {
                let times = (length - front.len() - middle.len() - end.len()) / one;
                let text = format!(
                    "{front}{}{middle}{}{end}",
                    piece.repeat(times),
                    back.repeat(times)
                );
                self.add_resident(text.as_bytes());
                // Left open: an error is built beside what there is.
                let text = format!("{front}{}", piece.repeat(length / piece.len()));
                self.add_resident(text.as_bytes());
            }
        }
    }

    /// What others have found, too.
    pub fn join(&mut self, other: Hostile) {
        self.texts += other.texts;
        self.slowest.extend(other.slowest);
        self.slowest
            .sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        self.slowest.truncate(SHOWN);
        self.largest.extend(other.largest);
        self.largest
            .sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        self.largest.truncate(SHOWN);
    }

    /// Pieces of the table, put together by chance.
    pub fn pieces(&mut self, random: &mut Random, count: u64) {
        for _ in 0..count {
            let text = pieces(random);
            self.add(text.as_bytes());
        }
    }
}

fn pieces(random: &mut Random) -> String {
    let mut text = String::new();
    let most = [40, 400, 4_000, 16_384][random.below(4)];
    while text.len() < most {
        let (front, piece, middle, back, end) = TABLE[random.below(TABLE.len())];
        let times = 1 + random.below(1 + (most - text.len()) / piece.len().max(1));
        let times = [times, times.min(60), times.min(8)][random.below(3)];
        if random.once_in(3) || text.is_empty() {
            text.push_str(front);
        }
        text.push_str(&piece.repeat(times));
        if random.once_in(2) {
            text.push_str(middle);
        }
        if random.once_in(2) {
            text.push_str(&back.repeat(times));
        }
        if random.once_in(4) {
            text.push_str(end);
        }
        if random.once_in(12) {
            return text;
        }
    }
    text
}

fn classify(text: &[u8]) -> Cost {
    let classifier = Classifier::new(1 << 12);
    memory::measure(|| classifier.classify(text, Lexing::default(), &TABLES)).1
}

/// Keeps the costliest of each kind: of the texts that begin alike.
fn keep<T: Copy + Ord>(kept: &mut Vec<(T, String)>, value: T, text: &[u8]) {
    if kept.len() == SHOWN && kept.last().is_some_and(|(least, _)| *least >= value) {
        return;
    }
    let start = line(&text[..text.len().min(400)], 60);
    let alike = |(_, other): &(T, String)| {
        other
            .split_once("bytes  ")
            .is_some_and(|(_, other)| other == start)
    };
    if let Some(same) = kept.iter().position(alike) {
        if kept[same].0 >= value {
            return;
        }
        kept.remove(same);
    }
    let at = kept.partition_point(|(more, _)| *more >= value);
    kept.insert(at, (value, format!("{:>8} bytes  {start}", text.len())));
    kept.truncate(SHOWN);
}

impl std::fmt::Display for Hostile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "Hostile statements")?;
        writeln!(f, "  texts                        {:>9}", self.texts)?;
        writeln!(f, "  processor time, at most {} ms", MOST_TIME.as_millis())?;
        for (time, text) in &self.slowest {
            writeln!(f, "    {:>8.3} ms  {text}", time.as_secs_f64() * 1e3)?;
        }
        writeln!(f, "  memory, at most {} MiB", MOST_MEMORY >> 20)?;
        for (bytes, text) in &self.largest {
            writeln!(
                f,
                "    {:>8.3} MiB  {text}",
                *bytes as f64 / f64::from(1 << 20)
            )?;
        }
        Ok(())
    }
}

/// What begins, what goes on, what is in the middle, what closes each, and what ends all.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    // What nests.
    ("select ", "(", "1", ")", ""),
    ("select ", "((select ", "1", "))", ""),
    ("select ", "(select ", "1", ")", " from t"),
    ("", "(", "select 1", ")", ""),
    ("", "(values (", "1", "))", ""),
    ("select ", "case when ", "a", " then 1 end", ""),
    ("select ", "case a when 1 then ", "a", " end", ""),
    ("select ", "f(", "1", ")", ""),
    ("select ", "convert(", "1", ")", ""),
    ("select ", "array[array[array[array[1+1+", "1", "]]]]", ""),
    ("select ", "a.b.f(", "1", ")", ""),
    ("select ", "cast(", "1", " as int)", ""),
    ("select ", "coalesce(1, ", "1", ")", ""),
    ("select ", "array[", "1", "]", ""),
    ("select ", "row(", "1", ")", ""),
    ("select ", "exists (select ", "1", ")", ""),
    ("select ", "array(select ", "1", ")", ""),
    ("select ", "not ", "a", "", ""),
    ("select ", "- ", "1", "", ""),
    ("select ", "-", "1", "", ""),
    ("select ", "~ ", "1", "", ""),
    ("select ", "+ - ~ ", "1", "", ""),
    ("select ", "a in (", "1", ")", ""),
    ("select ", "1 = any (", "a", ")", ""),
    ("select ", "a between ", "1", " and 2", ""),
    ("select ", "extract(year from ", "a", ")", ""),
    ("select ", "substring(", "a", " from 1)", ""),
    ("select ", "trim(both ", "a", ")", ""),
    ("select ", "interval ", "'1'", "", ""),
    ("select ", "date '1' + (", "1", ")", ""),
    ("select ", "sum(a) over (order by ", "a", ")", ""),
    ("select ", "sum(a) filter (where ", "a", ")", ""),
    ("select a", "[", "1", "]", ""),
    ("select ", "a[", "1", "]", ""),
    ("select ", "{", "", "}", ""),
    ("select ", "[", "", "]", ""),
    ("select 1::", "a(", "1", ")", ""),
    ("select 1::", "array<", "int", ">", ""),
    ("select 1::", "struct<a ", "int", ">", ""),
    ("select ", "(a, (b, ", "c", "))", ""),
    ("select * from ", "(select * from ", "t", ") s", ""),
    ("select * from ", "(", "t", ")", ""),
    ("select * from ", "((a join b on true) join ", "t", " on true)", ""),
    ("select * from ", "(select 1 from (", "t", ") x) y", ""),
    ("select * from a ", "join (b ", "join c on true", ") on true", ""),
    ("select * from a ", "join b ", "on true", " on true", ""),
    ("select * from ", "lateral (select ", "1", ") l", ""),
    ("", "with a as (", "select 1", ") select 1", ""),
    ("", "with a as (select 1) ", "select 1", "", ""),
    ("select 1 ", "union (select 1 ", "", ")", ""),
    ("", "(select 1 union ", "select 1", ")", ""),
    ("", "explain ", "select 1", "", ""),
    ("", "explain (analyze) ", "select 1", "", ""),
    ("select * from t group by ", "rollup (", "a", ")", ""),
    ("select * from t group by ", "grouping sets ((", "a", "))", ""),
    ("select * from t order by ", "(", "a", ") desc", ""),
    ("select * from t limit ", "(", "1", ")", ""),
    ("values ", "((", "1", "))", ""),
    ("select ", "if(", "1", ",2,3)", ""),
    ("select ", "x -> ", "1", "", ""),
    ("select ", "lambda x : ", "1", "", ""),
    // What goes on to the left.
    ("select 1", "+1", "", "", ""),
    ("select a", "||a", "", "", ""),
    ("select 'a'", "||'a'", "", "", ""),
    ("select a", " and a", "", "", ""),
    ("select a", " or a", "", "", ""),
    ("select a", " or a = 1 and not b", "", "", ""),
    ("select 1", "=1", "", "", ""),
    ("select 1", "<1", "", "", ""),
    ("select 1", "::int", "", "", ""),
    ("select 1::int", "[]", "", "", ""),
    ("select a", "[1]", "", "", ""),
    ("select a", "[1:2]", "", "", ""),
    ("select a", "->'a'", "", "", ""),
    ("select a", " is null", "", "", ""),
    ("select a", " is not true", "", "", ""),
    ("select a", " notnull", "", "", ""),
    ("select a", " at time zone 'x'", "", "", ""),
    ("select a", " collate \"C\"", "", "", ""),
    ("select a", " like 'x'", "", "", ""),
    ("select a", " between 1 and 2", "", "", ""),
    ("select a", " in (1)", "", "", ""),
    ("select a", " is distinct from a", "", "", ""),
    ("select a", " operator(+) a", "", "", ""),
    ("select a", ".a", "", "", ""),
    ("select (a)", ".a", "", "", ""),
    ("select f()", "()", "", "", ""),
    ("select a", "!", "", "", ""),
    ("select 1", " union all select 1", "", "", ""),
    ("select 1", " union select 1 intersect select 2", "", "", ""),
    ("values (1)", " except values (1)", "", "", ""),
    ("select * from t", " join t on true", "", "", ""),
    ("select * from t", " natural join t", "", "", ""),
    ("select * from t", " cross join t", "", "", ""),
    ("select * from t", ", t", "", "", ""),
    ("select * from t", " left join lateral (select 1) x on true", "", "", ""),
    // What is long.
    ("select 1", ",1", "", "", ""),
    ("select 1", ",a", "", "", ""),
    ("select 1", ",f()", "", "", ""),
    ("select 1", ",'a'", "", "", ""),
    ("select 1", ",a.b", "", "", ""),
    ("select 1", " ,*", "", "", ""),
    ("values (1)", ",(1)", "", "", ""),
    ("values (1)", ",()", "", "", ""),
    ("select a in (1", ",1", "", "", ")"),
    ("select f(1", ",1", "", "", ")"),
    ("select array[1", ",1", "", "", "]"),
    ("select case", " when a then b", "", "", " end"),
    ("with a as (select 1)", ", b as (select 1)", "", "", " select 1"),
    ("select 1 from t order by a", ",a", "", "", ""),
    ("select 1 from t group by a", ",(a)", "", "", ""),
    ("select 1 from t window w as ()", ",w as ()", "", "", ""),
    ("select 1 from t", " for update", "", "", ""),
    ("select '", "a", "", "", "'"),
    ("select '", "''", "", "", "'"),
    ("select '", "\\", "", "", "'"),
    ("select E'", "\\'", "", "", "'"),
    ("select \"", "a", "", "", "\""),
    ("select \"", "\"\"", "", "", "\""),
    ("select ", "a", "", "", ""),
    ("select ", "1", "", "", ""),
    ("select ", "1 ", "", "", ""),
    ("select ", "1.", "", "", ""),
    ("select ", "1e", "", "", ""),
    ("select ", "a ", "", "", ""),
    ("select ", "ä", "", "", ""),
    ("select ", "$1 ", "", "", ""),
    ("select ", "$1", "", "", ""),
    ("select ", "$a$", "", "", ""),
    ("select ", "$", "", "", ""),
    ("select ", "$$ ", "", "", ""),
    ("select ", "$a", "", "", ""),
    ("select 'a'", "\n'a'", "", "", ""),
    ("select ", "@", "", "", ""),
    ("select ", "<<>>", "", "", ""),
    ("select ", "!=-", "", "", ""),
    ("select ", "*", "", "", ""),
    ("select ", "/", "", "", ""),
    ("select ", ":", "", "", ""),
    ("select ", "?", "", "", ""),
    ("select ", "`", "", "", ""),
    ("select ", ".", "", "", ""),
    ("select ", ",", "", "", ""),
    ("select 1 ", "/*", "", "*/", ""),
    ("select 1 ", "/* */", "", "", ""),
    ("select 1 ", "/*/", "", "", ""),
    ("select 1 /*", "*", "", "", "*/"),
    ("select 1 ", "--\n", "", "", ""),
    ("select 1 ", " ", "", "", ""),
    ("select 1", ";", "", "", ""),
    ("", "select 1;", "", "", ""),
    ("", "select;", "", "", ""),
    ("", "values(1);", "", "", ""),
    ("", "begin;", "", "", ""),
    ("", "set a=1;", "", "", ""),
    ("", "set a to pg_temp;", "", "", ""),
    ("", "do 'set';", "", "", ""),
    ("set x = 'pg_", "pg_", "", "", "'"),
    ("do 'pg_", "se", "", "", "'"),
    ("set x = a", ",a", "", "", ""),
    ("select set_config('a', 'b", "b", "", "", "', false)"),
    ("select ", "set_config('a', ", "'b'", ", false)", ""),
    ("", "prepare p as select 1;", "", "", ""),
    ("", "deallocate a;", "", "", ""),
    ("insert into t values (1)", ",(1)", "", "", ""),
    ("update t set a = 1", "+1", "", "", ""),
    ("declare c cursor", " with", "", "", " hold"),
    ("create", " or replace", "", "", " temp table t ()"),
    ("explain (analyze", ", analyze", "", "", ") select 1"),
    ("select U&'", "\\0061", "", "", "'"),
    ("select b'", "1", "", "", "'"),
    ("select ", "table ", "t", "", ""),
    ("", "table t union ", "table t", "", ""),
    ("select * from ", "rows from (", "f()", ")", ""),
    ("select ", "(f()).", "a", "", ""),
    ("select ", "a -> b : ", "c", "", ""),
    ("select x", " is json", "", "", ""),
    ("select ", "json_object(", "1", ")", ""),
    ("select ", "try_cast(", "1", " as int)", ""),
    ("select ", "convert(", "1", ", int)", ""),
    ("select ", "match (a) against (", "1", ")", ""),
    ("select ", "position(1 in ", "1", ")", ""),
    ("select ", "overlay(a placing ", "1", " from 1)", ""),
    ("select ", "(a", "", ") overlaps (b)", ""),
    ("select ", "prior ", "a", "", ""),
    ("select ", "connect_by_root ", "a", "", ""),
    ("select * from t ", "tablesample bernoulli (", "1", ")", ""),
    ("select * from t ", "pivot (sum(a) for b in (", "1", "))", ""),
    ("select * from ", "unnest(", "a", ")", ""),
    ("select * from ", "table(", "a", ")", ""),
    ("select * from ", "xmltable('a' passing ", "a", " columns b int)", ""),
    ("select * from ", "json_table(", "a", ", '$' columns (b int))", ""),
    ("select * from ", "json_table(a, '$' columns (nested path '$' columns (", "b int", ")))", ""),
];
