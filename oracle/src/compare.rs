//! One statement, two verdicts.

use std::collections::BTreeMap;
use std::fmt;

use crate::sql::catalog::TABLES;
use crate::sql::{Access, Classifier, Explanation, Lexing};

use crate::figure::Figure;
use crate::truth::{self, Truth};

/// What is a read for PostgreSQL's parser must be one for pgweir in so many of a hundred cases.
const WANTED: f64 = 95.0;

/// Most disagreements that are printed in full.
const SHOWN: usize = 20;

/// What came of the statements of one source.
#[derive(Debug)]
pub struct Tally {
    source: String,
    texts: u64,
    invalid: u64,
    plain: u64,
    reads: u64,
    harmless: u64,
    harmless_reads: u64,
    never: u64,
    session: u64,
    several: u64,
    wrong: Vec<String>,
    misses: BTreeMap<String, (u64, String)>,
}

impl Tally {
    /// An empty one.
    pub fn new(source: &str) -> Tally {
        Tally {
            source: source.to_owned(),
            texts: 0,
            invalid: 0,
            plain: 0,
            reads: 0,
            harmless: 0,
            harmless_reads: 0,
            never: 0,
            session: 0,
            several: 0,
            wrong: Vec::new(),
            misses: BTreeMap::new(),
        }
    }

    /// Asks both of a text.
    pub fn add(&mut self, text: &[u8]) {
        self.texts += 1;
        let said = pgweir(text);
        let Some(statements) = std::str::from_utf8(text).ok().and_then(truth::statements) else {
            // PostgreSQL refuses it, whoever gets it; but bytes of another encoding are nobody's read.
            if std::str::from_utf8(text).is_err() && said.class.access == Access::Read {
                self.wrong(text, &said, "not UTF-8");
            }
            self.invalid += 1;
            return;
        };
        let read = said.class.access == Access::Read;
        match said.class.access {
            Access::Read => {
                for statement in &statements {
                    match &statement.truth {
                        Truth::Never(why) => return self.wrong(text, &said, why),
                        Truth::Session => return self.wrong(text, &said, &statement.kind),
                        Truth::Plain | Truth::Harmless => {}
                    }
                }
            }
            Access::Neutral if statements.iter().any(|s| s.truth != Truth::Session) => {
                return self.wrong(text, &said, "it has a place of its own");
            }
            Access::Empty if !statements.is_empty() => {
                return self.wrong(text, &said, "there is a statement");
            }
            _ => {}
        }
        let [statement] = statements.as_slice() else {
            self.several += 1;
            return;
        };
        match &statement.truth {
            Truth::Plain => {
                self.plain += 1;
                if read {
                    self.reads += 1;
                } else {
                    self.miss(text, &said);
                }
            }
            Truth::Harmless => {
                self.harmless += 1;
                self.harmless_reads += u64::from(read);
            }
            Truth::Session => self.session += 1,
            Truth::Never(_) => self.never += 1,
        }
    }

    fn wrong(&mut self, text: &[u8], said: &Explanation, why: &str) {
        self.wrong.push(format!(
            "{} for pgweir ({}), for PostgreSQL: {why}\n    {}",
            said.class.access.as_str(),
            said.class.reason.as_str(),
            line(text, 1000),
        ));
    }

    fn miss(&mut self, text: &[u8], said: &Explanation) {
        let cause = format!(
            "{}: {}",
            said.class.reason.as_str(),
            without_place(&said.detail)
        );
        let entry = self
            .misses
            .entry(cause)
            .or_insert_with(|| (0, around(text, said)));
        entry.0 += 1;
    }

    /// Reads among what should be read, in per cent.
    fn rate(&self) -> f64 {
        if self.plain == 0 {
            return 0.0;
        }
        self.reads as f64 * 100.0 / self.plain as f64
    }

    /// Whether pgweir is safe here.
    pub fn unsafe_ones(&self) -> Figure {
        let count = self.wrong.len();
        let what = format!("{}: unsafe disagreements", self.source);
        Figure::new(what, count, "0", count == 0)
    }

    /// Whether pgweir is good enough here.
    pub fn reads(&self) -> Figure {
        let (what, rate) = (
            format!("{}: reads that are reads", self.source),
            self.rate(),
        );
        let wanted = format!("at least {WANTED} %");
        Figure::new(what, format!("{rate:.2} %"), wanted, rate >= WANTED)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.source)?;
        writeln!(f, "  texts                        {:>9}", self.texts)?;
        writeln!(f, "  not valid for PostgreSQL     {:>9}", self.invalid)?;
        writeln!(f, "  several statements           {:>9}", self.several)?;
        writeln!(
            f,
            "  must not be a read           {:>9}",
            self.never + self.session
        )?;
        writeln!(
            f,
            "  may be a read                {:>9}, {} are",
            self.harmless, self.harmless_reads
        )?;
        writeln!(
            f,
            "  should be a read             {:>9}, {} are: {:.2} %",
            self.plain,
            self.reads,
            self.rate()
        )?;
        writeln!(f, "  unsafe disagreements         {:>9}", self.wrong.len())?;
        let mut misses: Vec<_> = self.misses.iter().collect();
        misses.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        for (cause, (count, example)) in misses.iter().take(SHOWN * 2) {
            writeln!(f, "    {count:>6}  {cause}\n            {example}")?;
        }
        if misses.len() > SHOWN * 2 {
            writeln!(
                f,
                "            and {} causes more",
                misses.len() - SHOWN * 2
            )?;
        }
        for wrong in self.wrong.iter().take(SHOWN) {
            writeln!(f, "  UNSAFE: {wrong}")?;
        }
        Ok(())
    }
}

/// What pgweir says, without a cache. It knows no database here: every relation counts as known.
pub fn pgweir(text: &[u8]) -> Explanation {
    thread_local! {
        static CLASSIFIER: Classifier = Classifier::new(1 << 12);
    }
    CLASSIFIER.with(|classifier| classifier.explain(text, Lexing::default(), &TABLES))
}

/// A text on one line, cut.
pub fn line(text: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let text: Vec<&str> = text.split_whitespace().collect();
    let text = text.join(" ");
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

/// The text about the place that decides.
fn around(text: &[u8], said: &Explanation) -> String {
    let Some(place) = said.place else {
        return line(text, 120);
    };
    let text = String::from_utf8_lossy(text);
    let before = text.split_inclusive('\n').take(place.line - 1);
    let at = before.map(|line| line.chars().count()).sum::<usize>() + place.column - 1;
    let part = text.chars().skip(at.saturating_sub(60)).take(120);
    line(part.collect::<String>().as_bytes(), 120)
}

/// What the parser says, without where it says it and what exactly it found there.
fn without_place(detail: &str) -> String {
    let end = detail.find(" at Line").unwrap_or(detail.len());
    detail[..end].chars().take(90).collect()
}
