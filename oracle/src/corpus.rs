//! Scripts for psql, cut into statements as psql cuts them.

use std::path::{Path, PathBuf};

/// All statements of the scripts below `root`: files called `sql/NAME.sql`, in the order of their names.
///
/// # Errors
/// A directory or file that cannot be read.
pub fn read(root: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    find(root, &mut files)?;
    files.sort();
    let mut statements = Vec::new();
    for file in files {
        statements.extend(cut(&std::fs::read(file)?));
    }
    Ok(statements)
}

fn find(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|ext| ext == "sql")
            && path
                .parent()
                .and_then(Path::file_name)
                .is_some_and(|name| name == "sql")
        {
            files.push(path);
        }
    }
    Ok(())
}

/// Cuts a script. Commands of psql's own are left out, as is the data behind COPY FROM STDIN; `\;` puts two statements
/// into one text.
pub fn cut(script: &[u8]) -> Vec<Vec<u8>> {
    let mut cutter = Cutter::default();
    let mut at = 0;
    while at < script.len() {
        at = cutter.step(script, at);
    }
    cutter.end();
    cutter.statements
}

#[derive(Default)]
struct Cutter {
    statements: Vec<Vec<u8>>,
    text: Vec<u8>,
    parentheses: usize,
    /// Depth of BEGIN … END in the body of a function.
    blocks: usize,
    /// The last two words.
    words: (Vec<u8>, Vec<u8>),
}

impl Cutter {
    fn step(&mut self, script: &[u8], at: usize) -> usize {
        let rest = &script[at..];
        let length = match rest {
            [b'-', b'-', ..] => line(rest),
            [b'/', b'*', ..] => block_comment(rest),
            [b'\'', ..] => {
                let escapes = self.words.1.eq_ignore_ascii_case(b"e")
                    && self
                        .text
                        .last()
                        .is_some_and(|last| last.eq_ignore_ascii_case(&b'e'));
                quoted(rest, b'\'', escapes)
            }
            [b'"', ..] => quoted(rest, b'"', false),
            [b'$', ..] => dollar(rest),
            [b'\\', b';', ..] => {
                self.text.push(b';');
                return at + 2;
            }
            [b'\\', ..] => return at + self.command(rest),
            [b';', ..] if self.parentheses == 0 && self.blocks == 0 => {
                let data = self.copies_in();
                self.end();
                let after = at + 1;
                return if data {
                    after + copied(&script[after..])
                } else {
                    after
                };
            }
            [b'(', ..] => {
                self.parentheses += 1;
                1
            }
            [b')', ..] => {
                self.parentheses = self.parentheses.saturating_sub(1);
                1
            }
            [first, ..] if is_word(*first) => {
                let length = rest.iter().position(|b| !is_word(*b)).unwrap_or(rest.len());
                self.word(&rest[..length]);
                length
            }
            _ => 1,
        };
        self.text.extend_from_slice(&rest[..length]);
        at + length
    }

    fn word(&mut self, word: &[u8]) {
        let word = word.to_ascii_lowercase();
        match word.as_slice() {
            b"atomic" if self.words.1 == b"begin" => self.blocks = 1,
            b"begin" | b"case" if self.blocks > 0 => self.blocks += 1,
            b"end" => self.blocks = self.blocks.saturating_sub(1),
            _ => {}
        }
        self.words.0 = std::mem::replace(&mut self.words.1, word);
    }

    /// A command of psql's, to the end of its line. Those that send what has been read end a statement.
    fn command(&mut self, rest: &[u8]) -> usize {
        let name: Vec<u8> = rest[1..]
            .iter()
            .copied()
            .take_while(u8::is_ascii_alphabetic)
            .collect();
        match name.as_slice() {
            b"g" | b"gx" | b"gset" | b"gexec" | b"gdesc" | b"crosstabview" | b"watch" | b"bind"
            | b"parse" => {
                self.end();
            }
            b"r" | b"reset" => self.text.clear(),
            _ => {}
        }
        line(rest)
    }

    fn copies_in(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        let text = String::from_utf8_lossy(&text);
        let mut words = text.split_ascii_whitespace();
        words.any(|word| word == "copy")
            && words.any(|word| word == "from")
            && words.any(|word| word.starts_with("stdin"))
    }

    fn end(&mut self) {
        let text = std::mem::take(&mut self.text);
        let text = text.trim_ascii();
        if !text.is_empty() {
            self.statements.push(text.to_vec());
        }
        *self = Cutter {
            statements: std::mem::take(&mut self.statements),
            ..Cutter::default()
        };
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// To the end of the line, without it.
fn line(rest: &[u8]) -> usize {
    rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted(rest: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' if escapes => at += 2,
            byte if byte == quote && rest.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn dollar(rest: &[u8]) -> usize {
    let tag = rest[1..]
        .iter()
        .position(|b| *b == b'$' || !is_word(*b))
        .map(|length| length + 1);
    let Some(end) = tag.filter(|end| rest[*end] == b'$' && !rest[1].is_ascii_digit()) else {
        return 1;
    };
    let tag = &rest[..=end];
    rest[tag.len()..]
        .windows(tag.len())
        .position(|window| window == tag)
        .map_or(rest.len(), |at| at + 2 * tag.len())
}

/// The length of the data behind COPY FROM STDIN.
fn copied(rest: &[u8]) -> usize {
    let mut at = line(rest);
    while at < rest.len() {
        at += 1;
        let length = line(&rest[at..]);
        let row = &rest[at..at + length];
        at += length;
        if row.trim_ascii_end() == b"\\." {
            return at;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_cut() {
        let check = |script: &str, expected: &[&str]| {
            let cut = cut(script.as_bytes());
            let cut: Vec<_> = cut
                .iter()
                .map(|text| String::from_utf8_lossy(text))
                .collect();
            assert_eq!(cut, expected, "{script}");
        };
        check(
            "select 1;\nselect ';' ; -- ;\n",
            &["select 1", "select ';'", "-- ;"],
        );
        check(
            "select $a$ ; $$ $a$; select E'\\';'; x",
            &["select $a$ ; $$ $a$", "select E'\\';'", "x"],
        );
        check("select 1 \\; select 2;", &["select 1 ; select 2"]);
        check(
            "\\d x;\nselect 1 \\gset\nselect 2",
            &["select 1", "select 2"],
        );
        check(
            "copy t from stdin;\n1\t;2\n\\.\nselect 1;",
            &["copy t from stdin", "select 1"],
        );
        check(
            "create rule r as do (select 1; select 2);x",
            &["create rule r as do (select 1; select 2)", "x"],
        );
        check(
            "create function f() begin atomic select case when a then 1 end; end; select 1",
            &[
                "create function f() begin atomic select case when a then 1 end; end",
                "select 1",
            ],
        );
        check("select /* ; /* */ ; */ 1;", &["select /* ; /* */ ; */ 1"]);
    }
}
