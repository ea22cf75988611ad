//! One client of the console: the protocol around its commands.
//!
//! PostgreSQL manual, "Message Flow", protocol-flow.html. There are no transactions here, so every ReadyForQuery says
//! idle, and portals end with their group.

use std::collections::{HashMap, VecDeque};

use super::command::{Command, Outcome};
use super::facts::Facts;
use crate::sql;
use crate::wire::frame::{self, HEADER};
use crate::wire::frontend::{self, Target};
use crate::wire::rows::{self, Formats, Value};
use crate::wire::{Notice, SqlState, reply};

/// Largest message that the console takes, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;

/// Most prepared statements of one client, and most portals.
const MAX_NAMES: usize = 256;

/// One client.
#[derive(Debug, Default)]
pub struct Console {
    statements: HashMap<Box<[u8]>, Prepared>,
    portals: HashMap<Box<[u8]>, Portal>,
    /// After an error in a group: what follows is dropped up to the Sync.
    discards: bool,
}

/// What becomes of the front of a client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing until more has come.
    More,
    /// So many bytes have been dealt with.
    Done(usize),
    /// The client has said goodbye, or was told why it has to go.
    End,
}

#[derive(Debug)]
struct Prepared {
    command: Command,
    parameters: Vec<u32>,
}

#[derive(Debug)]
struct Portal {
    command: Command,
    formats: Formats,
    /// Rows that have not been fetched, once it has been executed.
    rows: Option<VecDeque<Vec<Value>>>,
}

impl Console {
    /// Deals with one message at the front of `input`.
    pub fn turn(&mut self, input: &[u8], facts: &dyn Facts, out: &mut Vec<u8>) -> Turn {
        let header = match frame::header(input, MAX_MESSAGE) {
            Ok(Some(header)) => header,
            Ok(None) => return Turn::More,
            Err(error) => return end(error.to_string(), out),
        };
        let Some(body) = input.get(HEADER..header.total()) else {
            return Turn::More;
        };
        match header.tag {
            b'X' => return Turn::End,
            b'Q' => {
                self.discards = false;
                self.query(body, facts, out);
                reply::ready_idle(out);
            }
            b'S' => {
                self.discards = false;
                self.portals.clear();
                reply::ready_idle(out);
            }
            b'F' => {
                let text = "the console has no functions";
                Notice::error(SqlState::FeatureNotSupported, text).put(out);
                reply::ready_idle(out);
            }
            // Flush: nothing is held back. What belongs to a COPY is ignored, as by a server that runs none.
            b'H' | b'd' | b'c' | b'f' => {}
            b'P' | b'B' | b'D' | b'E' | b'C' if self.discards => {}
            tag @ (b'P' | b'B' | b'D' | b'E' | b'C') => {
                if let Err(notice) = self.extended(tag, body, facts, out) {
                    notice.put(out);
                    self.discards = true;
                }
            }
            tag => return end(format!("invalid frontend message type {tag}"), out),
        }
        Turn::Done(header.total())
    }

    /// The commands of one Query, each with its result, up to the first that fails.
    fn query(&mut self, body: &[u8], facts: &dyn Facts, out: &mut Vec<u8>) {
        self.portals.clear();
        self.statements.remove(&b""[..]);
        let Some(text) = frontend::query(body) else {
            malformed().put(out);
            return;
        };
        match said(text).and_then(|text| run_all(text, facts, out)) {
            Ok(()) => {}
            Err(notice) => notice.put(out),
        }
    }

    fn extended(
        &mut self,
        tag: u8,
        body: &[u8],
        facts: &dyn Facts,
        out: &mut Vec<u8>,
    ) -> Result<(), Notice> {
        match tag {
            b'P' => self.parse(body, out),
            b'B' => self.bind(body, out),
            b'D' => self.describe(body, out),
            b'E' => self.execute(body, facts, out),
            _ => self.close(body, out),
        }
    }

    fn parse(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Notice> {
        let parse = frontend::parse(body).ok_or_else(malformed)?;
        let known = self.statements.contains_key(parse.name);
        if known && !parse.name.is_empty() {
            let name = String::from_utf8_lossy(parse.name);
            let text = format!("prepared statement \"{name}\" already exists");
            return Err(Notice::error(SqlState::DuplicatePreparedStatement, text));
        }
        if !known && self.statements.len() >= MAX_NAMES {
            return Err(too_many("prepared statements"));
        }
        let command = Command::parse(said(parse.text)?)?;
        let types = parse
            .content
            .get(parse.text.len() + 3..)
            .unwrap_or_default();
        let (oids, _) = types.as_chunks::<4>();
        let mut parameters: Vec<u32> = oids.iter().map(|oid| u32::from_be_bytes(*oid)).collect();
        parameters.resize(parameters.len().max(command.parameters()), rows::TEXT);
        for unspecified in parameters.iter_mut().filter(|oid| **oid == 0) {
            *unspecified = rows::TEXT;
        }
        let prepared = Prepared {
            command,
            parameters,
        };
        self.statements.insert(parse.name.into(), prepared);
        rows::parse_complete(out);
        Ok(())
    }

    fn bind(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Notice> {
        let binding = frontend::binding(body).ok_or_else(malformed)?;
        let prepared = self.statement(binding.names.statement)?;
        let (given, needed) = (binding.parameters, prepared.parameters.len());
        if given != needed {
            let text = format!(
                "bind message supplies {given} parameters, but the statement requires {needed}"
            );
            return Err(Notice::error(SqlState::ProtocolViolation, text));
        }
        let command = prepared.command.clone();
        let columns = command.columns().len();
        let formats = Formats::new(binding.results, columns).ok_or_else(|| {
            let text = format!("the formats asked for do not fit a result of {columns} columns");
            Notice::error(SqlState::ProtocolViolation, text)
        })?;
        if self.portals.len() >= MAX_NAMES {
            return Err(too_many("portals"));
        }
        let portal = Portal {
            command,
            formats,
            rows: None,
        };
        self.portals.insert(binding.names.portal.into(), portal);
        rows::bind_complete(out);
        Ok(())
    }

    fn describe(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Notice> {
        let all_text = Formats::default();
        let (command, formats) = match frontend::target(body).ok_or_else(malformed)? {
            Target::Statement(name) => {
                let prepared = self.statement(name)?;
                rows::parameter_description(prepared.parameters.clone(), out);
                (&prepared.command, &all_text)
            }
            Target::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (&portal.command, &portal.formats)
            }
        };
        match command.columns() {
            [] => rows::no_data(out),
            columns => rows::row_description(columns, formats, out),
        }
        Ok(())
    }

    fn execute(&mut self, body: &[u8], facts: &dyn Facts, out: &mut Vec<u8>) -> Result<(), Notice> {
        let (name, most) = frontend::execute(body).ok_or_else(malformed)?;
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        if let Command::Empty = portal.command {
            rows::empty_query(out);
            return Ok(());
        }
        let waiting = match &mut portal.rows {
            Some(rows) => rows,
            None => {
                let rows = match portal.command.run(facts)? {
                    Outcome::Rows(rows) => rows,
                    Outcome::Said(notice) => {
                        notice.put(out);
                        Vec::new()
                    }
                    Outcome::Done => Vec::new(),
                };
                portal.rows.insert(rows.into())
            }
        };
        let all = most == 0 || most > waiting.len();
        let count = if all { waiting.len() } else { most };
        for row in waiting.drain(..count) {
            rows::data_row(&row, &portal.formats, out);
        }
        if all {
            rows::command_complete(portal.command.tag(), out);
        } else {
            rows::portal_suspended(out);
        }
        Ok(())
    }

    fn close(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Notice> {
        // What does not exist can be closed, too.
        match frontend::target(body).ok_or_else(malformed)? {
            Target::Statement(name) => _ = self.statements.remove(name),
            Target::Portal(name) => _ = self.portals.remove(name),
        }
        rows::close_complete(out);
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<&Prepared, Notice> {
        self.statements.get(name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            let text = format!("prepared statement \"{name}\" does not exist");
            Notice::error(SqlState::InvalidSqlStatementName, text)
        })
    }
}

/// Runs every command of a text.
fn run_all(text: &str, facts: &dyn Facts, out: &mut Vec<u8>) -> Result<(), Notice> {
    // The statement that EXPLAIN ROUTE is about may be several.
    let whole = match Command::parse(text) {
        Ok(Command::Empty) => {
            rows::empty_query(out);
            return Ok(());
        }
        Ok(command) => return run(&command, facts, out),
        Err(notice) => notice,
    };
    let parts = sql::statements(text.as_bytes());
    if parts.len() < 2 {
        return Err(whole);
    }
    for part in parts {
        run(&Command::parse(said(part)?)?, facts, out)?;
    }
    Ok(())
}

fn run(command: &Command, facts: &dyn Facts, out: &mut Vec<u8>) -> Result<(), Notice> {
    let formats = Formats::default();
    match command.run(facts)? {
        Outcome::Rows(all) => {
            rows::row_description(command.columns(), &formats, out);
            for row in all {
                rows::data_row(&row, &formats, out);
            }
        }
        Outcome::Said(notice) => notice.put(out),
        Outcome::Done => {}
    }
    rows::command_complete(command.tag(), out);
    Ok(())
}

fn said(text: &[u8]) -> Result<&str, Notice> {
    std::str::from_utf8(text).map_err(|_| {
        let text = "the console takes UTF-8 only";
        Notice::error(SqlState::ProtocolViolation, text)
    })
}

fn malformed() -> Notice {
    Notice::error(SqlState::ProtocolViolation, "malformed message")
}

fn too_many(what: &str) -> Notice {
    let text = format!("too many {what}");
    Notice::error(SqlState::InsufficientResources, text)
}

fn no_portal(name: &[u8]) -> Notice {
    let name = String::from_utf8_lossy(name);
    let text = format!("portal \"{name}\" does not exist");
    Notice::error(SqlState::InvalidCursorName, text)
}

fn end(text: String, out: &mut Vec<u8>) -> Turn {
    Notice::fatal(SqlState::ProtocolViolation, text).put(out);
    Turn::End
}
