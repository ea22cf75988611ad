//! What is wrong with a configuration, each fault with its place.

use std::cell::RefCell;
use std::fmt;

/// One fault and where it is. The operator's mistake. No field ever holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file: proxy.toml, or the users file that it names.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key as a path, such as `cluster.main.nodes[1].address`; empty where there is none, as
    /// for a syntax error.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Every fault of a configuration, at least one: those of proxy.toml from its top to its end, then
/// those of the users file. Prints one a line, without a final newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Collects the faults of one file. Shared by all who read it, hence the cell.
pub(super) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    faults: RefCell<Vec<Fault>>,
}

impl<'t> Report<'t> {
    /// An empty report on a file, given its name and text.
    pub(super) fn new(file: &'t str, text: &'t str) -> Report<'t> {
        Report {
            file,
            text,
            faults: RefCell::default(),
        }
    }

    /// Notes a fault at a byte of the text.
    pub(super) fn fault(&self, at: usize, key: &str, message: impl Into<String>) {
        let (line, column) = place(self.text, at);
        let (file, key) = (self.file.to_owned(), key.to_owned());
        self.faults.borrow_mut().push(Fault {
            file,
            line,
            column,
            key,
            message: message.into(),
        });
    }

    /// The faults from the top of the file to its end; those at one place in the order noted.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| (fault.line, fault.column));
        faults
    }
}

/// Line and column, from 1, of a byte of a text.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let check = |text: &str, at: usize, expected: (usize, usize)| {
            assert_eq!(place(text, at), expected, "{text:?} at {at}");
        };
        check("", 0, (1, 1));
        check("ab\ncd", 1, (1, 2));
        check("ab\ncd", 3, (2, 1));
        check("ab\r\ncd", 5, (2, 2));
        check("é = 1", 3, (1, 3));
        // Past the end: the end.
        check("ab\n", 9, (2, 1));
    }
}
