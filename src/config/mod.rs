//! The text of proxy.toml to a [`Config`].
//!
//! Knows nothing of files, sockets and clocks: what the text refers to (a password file, the users
//! file, an environment variable) is asked of [`Sources`], which `main` implements.
//!
//! The file is walked by hand as toml's tree of tables, in which every key and value has its place.
//! serde's derived structs stop at the first fault and lose the place of an unknown key, while an
//! operator wants all faults at once, each with line, column and the key that was meant. serde
//! reads the leaves where TOML's text differs from the value, which is integers.
//!
//! Every key, with its default, its bounds and its text, stands in one table, `keys`. Reading, the
//! suggestions for unknown keys and [`reference()`] all follow that table.

mod address;
mod check;
mod defaults;
mod fault;
mod keys;
mod model;
mod raw;
mod reference;
mod reload;
mod shape;
mod unit;
mod users;

use toml::de::DeTable;

pub use address::AddressError;
pub use fault::{Fault, Faults};
pub use model::{
    Address, Admin, Auth, AuthMethod, Cluster, Config, Consistency, CurrvalPolicy, Database, Hints,
    Limits, ListenPolicy, Listener, Log, LogFormat, LogLevel, Monitor, Node, Peer, PeerId, Peering,
    Pool, PoolMode, Reads, Route, Routing, ScramVerifier, Secret, Timeouts, User, UserSecret,
    Users,
};
pub use reference::reference;
pub use unit::{duration_text, parse_duration};

use fault::Report;
use raw::Table;

/// Where the configuration finds what its text only refers to.
pub trait Sources {
    /// The content of a file. The path is as typed; a relative one starts at the directory of
    /// proxy.toml.
    ///
    /// # Errors
    ///
    /// Why it cannot be read, in the words of the system, without the path.
    fn read(&self, path: &str) -> Result<String, String>;

    /// The value of an environment variable; `None` if it is not set, or is not UTF-8.
    fn env(&self, name: &str) -> Option<String>;
}

impl Config {
    /// Reads the text of a configuration file; `file` is the name that faults bear.
    ///
    /// # Errors
    ///
    /// Every fault of the file and of the users file at once. TOML that does not parse is one
    /// fault, the first, since what follows it cannot be trusted.
    pub fn parse(text: &str, file: &str, sources: &dyn Sources) -> Result<Config, Faults> {
        let report = Report::new(file, text);
        let entries = match DeTable::parse(text) {
            Ok(entries) => entries,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                report.fault(at, "", syntax_message(error.message()));
                return Err(Faults(report.into_faults()));
            }
        };
        let (config, in_users) = check::config(&Table::root(&report, entries.get_ref()), sources);
        let mut faults = report.into_faults();
        faults.extend(in_users);
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(Faults(faults))
        }
    }

    /// The database for a name that a client asks for: the one of that name, else `*`, else none.
    ///
    /// `*` itself names no database that a client could ask for.
    pub fn database(&self, name: &str) -> Option<&Database> {
        let named = |wanted: &str| {
            self.databases
                .iter()
                .find(|database| database.name == wanted)
        };
        named(name).or_else(|| named(check::ANY))
    }
}

/// The message of the TOML parser on one line.
fn syntax_message(message: &str) -> String {
    format!(
        "not TOML: {}",
        message.split_whitespace().collect::<Vec<_>>().join(" ")
    )
}

#[cfg(test)]
mod tests;
