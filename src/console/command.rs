//! The commands, one row each, and the texts that mean them.

use super::facts::Facts;
use super::show;
use crate::wire::rows::{Column, Type, Value};
use crate::wire::{Notice, SqlState};

/// A row of the table.
#[derive(Debug)]
pub struct Entry {
    /// Its words, in upper case.
    words: &'static [&'static str],
    /// What may follow, for SHOW HELP; nothing may if it is empty.
    argument: &'static str,
    /// The columns of its result; none if it has no result.
    columns: &'static [Column],
    /// The tag with which it completes.
    tag: &'static str,
    run: fn(&dyn Facts, &str) -> Result<Outcome, Notice>,
}

/// What a command leads to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Rows of the entry's columns.
    Rows(Vec<Vec<Value>>),
    /// A remark, and no rows.
    Said(Notice),
    /// It has been done.
    Done,
}

/// Everything that the console can do. What is longer comes before what it begins with.
pub static COMMANDS: &[Entry] = &[
    Entry {
        words: &["SHOW", "HELP"],
        argument: "",
        columns: &[],
        tag: "SHOW",
        run: |_, _| Ok(Outcome::Said(help())),
    },
    Entry {
        words: &["SHOW", "NODES"],
        argument: "",
        columns: show::NODES,
        tag: "SHOW",
        run: |facts, _| Ok(Outcome::Rows(show::nodes(&facts.nodes()))),
    },
    Entry {
        words: &["SHOW", "POOLS"],
        argument: "",
        columns: show::POOLS,
        tag: "SHOW",
        run: |facts, _| Ok(Outcome::Rows(show::pools(&facts.pools()))),
    },
    Entry {
        words: &["SHOW", "QUERIES"],
        argument: "",
        columns: show::QUERIES,
        tag: "SHOW",
        run: |facts, _| Ok(Outcome::Rows(show::queries(&facts.queries(show::TOP)))),
    },
    Entry {
        words: &["SHOW", "ROUTES"],
        argument: "",
        columns: show::ROUTES,
        tag: "SHOW",
        run: |facts, _| Ok(Outcome::Rows(show::routes(&facts.routes()))),
    },
    Entry {
        words: &["SHOW", "VERSION"],
        argument: "",
        columns: show::VERSION,
        tag: "SHOW",
        run: |facts, _| Ok(Outcome::Rows(show::version(facts.version()))),
    },
    Entry {
        words: &["EXPLAIN", "ROUTE"],
        argument: "<sql>",
        columns: show::EXPLAIN,
        tag: "EXPLAIN",
        run: |facts, sql| {
            let destinations = facts.explain(sql.as_bytes());
            Ok(Outcome::Rows(show::explain(sql, &destinations)))
        },
    },
    Entry {
        words: &["RELOAD"],
        argument: "",
        columns: &[],
        tag: "RELOAD",
        run: |facts, _| facts.reload().map(|pending| reloaded(&pending)),
    },
];

/// What there is to say of a reload.
fn reloaded(pending: &[String]) -> Outcome {
    if pending.is_empty() {
        return Outcome::Done;
    }
    let text = format!("counts from the next start: {}", pending.join(", "));
    Outcome::Said(Notice::remark(SqlState::SuccessfulCompletion, text))
}

/// A text that has been understood.
#[derive(Clone, Debug)]
pub enum Command {
    /// Nothing at all.
    Empty,
    /// A row of the table, with what follows its words.
    Entry(&'static Entry, Box<str>),
    /// SHOW of something that drivers ask of any server.
    Setting(&'static Setting),
    /// SET of something that drivers set on any server. It has no effect, and says so.
    Ignored,
}

/// A setting as drivers know it from PostgreSQL.
#[derive(Debug)]
pub struct Setting {
    /// Its name, as words in lower case.
    words: &'static [&'static str],
    column: [Column; 1],
    value: &'static str,
}

macro_rules! setting {
    ([$($word:literal),*], $name:literal, $value:literal) => {
        Setting {
            words: &[$($word),*],
            column: [Column { name: $name, kind: Type::Text }],
            value: $value,
        }
    };
}

/// Settings that the console has for drivers that ask when they connect.
static SETTINGS: &[Setting] = &[
    setting!(["client_encoding"], "client_encoding", "UTF8"),
    setting!(["datestyle"], "DateStyle", "ISO"),
    setting!(["timezone"], "TimeZone", "GMT"),
    setting!(
        ["standard_conforming_strings"],
        "standard_conforming_strings",
        "on"
    ),
    setting!(
        ["default_transaction_isolation"],
        "default_transaction_isolation",
        "read committed"
    ),
    setting!(
        ["transaction", "isolation", "level"],
        "transaction_isolation",
        "read committed"
    ),
    setting!(["transaction_read_only"], "transaction_read_only", "off"),
    setting!(["extra_float_digits"], "extra_float_digits", "1"),
    setting!(["application_name"], "application_name", ""),
];

impl Command {
    /// Understands a text.
    ///
    /// # Errors
    /// The console has no such command; the text is in the words that PgBouncer has for it.
    pub fn parse(text: &str) -> Result<Command, Notice> {
        let text = bare(text);
        if text.is_empty() {
            return Ok(Command::Empty);
        }
        for entry in COMMANDS {
            let Some(rest) = entry.after_words(text) else {
                continue;
            };
            if rest.is_empty() == entry.argument.is_empty() {
                return Ok(Command::Entry(entry, rest.into()));
            }
        }
        let mut words = text.split(|c: char| c.is_ascii_whitespace() || c == '=');
        let first = words.next().unwrap_or_default().to_ascii_lowercase();
        let rest: Vec<String> = words
            .filter(|word| !word.is_empty())
            .map(|word| word.trim_matches('"').to_ascii_lowercase())
            .collect();
        match first.as_str() {
            "show" | "select" => {
                let found = SETTINGS.iter().find(|setting| setting.words == rest);
                found.map(Command::Setting).ok_or_else(|| invalid(text))
            }
            "set" => {
                let is_known = |setting: &Setting| rest.starts_with(&own(setting.words));
                let session = own(&["session", "characteristics"]);
                let known = SETTINGS.iter().any(is_known) || rest.starts_with(&session);
                if known && rest.len() > 1 {
                    Ok(Command::Ignored)
                } else {
                    Err(Notice::error(SqlState::ProtocolViolation, "SET failed"))
                }
            }
            _ => Err(invalid(text)),
        }
    }

    /// The columns of its result; none if it has no result.
    pub fn columns(&self) -> &'static [Column] {
        match self {
            Command::Empty | Command::Ignored => &[],
            Command::Entry(entry, _) => entry.columns,
            Command::Setting(setting) => &setting.column,
        }
    }

    /// How many parameters its text has, by the highest number among `$1`, `$2` and so on.
    pub fn parameters(&self) -> usize {
        let Command::Entry(_, argument) = self else {
            return 0;
        };
        let numbers = argument.split('$').skip(1).filter_map(|rest| {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            rest[..digits].parse::<usize>().ok()
        });
        // More than a Bind can have is no parameter.
        numbers
            .filter(|number| *number <= usize::from(u16::MAX))
            .max()
            .unwrap_or_default()
    }

    /// The tag with which it completes.
    pub(super) fn tag(&self) -> &'static str {
        match self {
            Command::Entry(entry, _) => entry.tag,
            Command::Ignored => "SET",
            Command::Setting(_) | Command::Empty => "SHOW",
        }
    }

    /// Carries it out.
    pub(super) fn run(&self, facts: &dyn Facts) -> Result<Outcome, Notice> {
        match self {
            Command::Empty => Ok(Outcome::Done),
            Command::Entry(entry, argument) => (entry.run)(facts, argument),
            Command::Setting(setting) => {
                let value = Value::Text(setting.value.to_owned());
                Ok(Outcome::Rows(vec![vec![value]]))
            }
            Command::Ignored => {
                let notice = Notice::remark(SqlState::SuccessfulCompletion, "SET ignored");
                Ok(Outcome::Said(notice))
            }
        }
    }
}

impl Entry {
    /// What follows the entry's words in a text that begins with them. `SELECT` may stand for `SHOW`, as in PgBouncer.
    fn after_words<'a>(&self, text: &'a str) -> Option<&'a str> {
        let mut rest = text;
        for word in self.words {
            let end = rest
                .find(|c: char| c.is_ascii_whitespace())
                .unwrap_or(rest.len());
            let (typed, after) = rest.split_at(end);
            let same = typed.eq_ignore_ascii_case(word)
                || (*word == "SHOW" && typed.eq_ignore_ascii_case("SELECT"));
            if !same {
                return None;
            }
            rest = after.trim_start();
        }
        Some(rest)
    }
}

/// A text without comments and spaces around it, and without its last semicolon.
fn bare(text: &str) -> &str {
    let mut text = text;
    loop {
        text = text.trim_start();
        let comment = if text.starts_with("--") {
            text.find('\n')
        } else if text.starts_with("/*") {
            text.find("*/").map(|end| end + 2)
        } else {
            break;
        };
        let Some(end) = comment else { return "" };
        text = &text[end..];
    }
    text.trim_end_matches(|c: char| c.is_ascii_whitespace() || c == ';')
}

fn own(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Longest part of a text that is said again in an error.
const MAX_QUOTED: usize = 100;

fn invalid(text: &str) -> Notice {
    let shown: String = text.chars().take(MAX_QUOTED).collect();
    Notice::error(
        SqlState::ProtocolViolation,
        format!("invalid command '{shown}', use SHOW HELP;"),
    )
}

fn help() -> Notice {
    let lines = COMMANDS.iter().map(|entry| {
        let words = entry.words.join(" ");
        format!("\n\t{}", format!("{words} {}", entry.argument).trim_end())
    });
    let text: String = std::iter::once("Console usage".to_owned())
        .chain(lines)
        .collect();
    Notice::remark(SqlState::SuccessfulCompletion, text)
}
