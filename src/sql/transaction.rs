//! BEGIN, COMMIT, ROLLBACK and SET TRANSACTION in the forms that every server accepts, so that the proxy may answer them.
//!
//! PostgreSQL manual, "BEGIN", sql-begin.html; "COMMIT", sql-commit.html; "SET TRANSACTION", sql-set-transaction.html.
//! What is not known here goes to the server as it is: it words the error.

use super::lexer::{comment, continues_word, is_space};

/// How much of what others do a transaction sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// The same as READ COMMITTED, by another name.
    ReadUncommitted,
    /// A snapshot for each statement.
    ReadCommitted,
    /// One snapshot.
    RepeatableRead,
    /// As if one transaction ran after the other. No standby has it.
    Serializable,
}

impl Isolation {
    /// Every level.
    pub const ALL: [Isolation; 4] = [
        Isolation::ReadUncommitted,
        Isolation::ReadCommitted,
        Isolation::RepeatableRead,
        Isolation::Serializable,
    ];

    /// The value of `transaction_isolation`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Isolation::ReadUncommitted => "read uncommitted",
            Isolation::ReadCommitted => "read committed",
            Isolation::RepeatableRead => "repeatable read",
            Isolation::Serializable => "serializable",
        }
    }

    /// The level of this name, as SHOW says it or as it is typed.
    pub fn named(name: &str) -> Option<Isolation> {
        Isolation::ALL
            .into_iter()
            .find(|level| level.as_str().eq_ignore_ascii_case(name))
    }
}

/// What a transaction is said to be. What is left out is the session's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Modes {
    /// ISOLATION LEVEL.
    pub isolation: Option<Isolation>,
    /// READ ONLY or READ WRITE.
    pub read_only: Option<bool>,
    /// DEFERRABLE or NOT DEFERRABLE.
    pub deferrable: Option<bool>,
}

impl Modes {
    /// The same after a SET TRANSACTION.
    #[must_use]
    pub fn changed(self, by: Modes) -> Modes {
        Modes {
            isolation: by.isolation.or(self.isolation),
            read_only: by.read_only.or(self.read_only),
            deferrable: by.deferrable.or(self.deferrable),
        }
    }

    /// Appends the BEGIN that asks for them.
    pub fn put_begin(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"BEGIN");
        if let Some(level) = self.isolation {
            out.extend_from_slice(b" ISOLATION LEVEL ");
            out.extend_from_slice(level.as_str().to_ascii_uppercase().as_bytes());
        }
        if let Some(read_only) = self.read_only {
            out.extend_from_slice(if read_only {
                b" READ ONLY"
            } else {
                b" READ WRITE"
            });
        }
        match self.deferrable {
            Some(true) => out.extend_from_slice(b" DEFERRABLE"),
            Some(false) => out.extend_from_slice(b" NOT DEFERRABLE"),
            None => {}
        }
    }
}

/// A statement about the transaction that every server accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// BEGIN; `start` if it is spelled START TRANSACTION, as its command tag is then.
    Begin {
        /// START TRANSACTION.
        start: bool,
        /// Its modes.
        modes: Modes,
    },
    /// COMMIT, END, ROLLBACK or ABORT.
    End {
        /// COMMIT or END.
        commit: bool,
        /// AND CHAIN: another one like it follows.
        chain: bool,
    },
    /// SET TRANSACTION.
    Set(Modes),
}

/// Opens a text that is one such statement, and nothing else. Allocates nothing.
pub fn control(text: &[u8]) -> Option<Control> {
    let mut words = Words { text, at: 0 };
    let control = match words.next()? {
        word if is(word, "begin") => {
            words.skip_work();
            Control::Begin {
                start: false,
                modes: modes(&mut words)?,
            }
        }
        word if is(word, "start") => {
            words.expect("transaction")?;
            Control::Begin {
                start: true,
                modes: modes(&mut words)?,
            }
        }
        word if is(word, "commit") || is(word, "end") => end(&mut words, true)?,
        word if is(word, "rollback") || is(word, "abort") => end(&mut words, false)?,
        word if is(word, "set") => {
            words.expect("transaction")?;
            let modes = modes(&mut words)?;
            if modes == Modes::default() {
                return None;
            }
            Control::Set(modes)
        }
        _ => return None,
    };
    words.is_at_end().then_some(control)
}

/// `[WORK | TRANSACTION] [AND [NO] CHAIN]`
fn end(words: &mut Words<'_>, commit: bool) -> Option<Control> {
    words.skip_work();
    let mut chain = false;
    if words.take("and") {
        chain = !words.take("no");
        words.expect("chain")?;
    }
    Some(Control::End { commit, chain })
}

/// Modes, with or without commas between them. Each kind once: which of two counts is the server's to say.
fn modes(words: &mut Words<'_>) -> Option<Modes> {
    let mut modes = Modes::default();
    let mut after_comma = false;
    loop {
        if words.take("isolation") {
            words.expect("level")?;
            let level = match words.next()? {
                word if is(word, "serializable") => Isolation::Serializable,
                word if is(word, "repeatable") => {
                    words.expect("read")?;
                    Isolation::RepeatableRead
                }
                word if is(word, "read") => match words.next()? {
                    word if is(word, "committed") => Isolation::ReadCommitted,
                    word if is(word, "uncommitted") => Isolation::ReadUncommitted,
                    _ => return None,
                },
                _ => return None,
            };
            once(&mut modes.isolation, level)?;
        } else if words.take("read") {
            let read_only = match words.next()? {
                word if is(word, "only") => true,
                word if is(word, "write") => false,
                _ => return None,
            };
            once(&mut modes.read_only, read_only)?;
        } else if words.take("deferrable") {
            once(&mut modes.deferrable, true)?;
        } else if words.take("not") {
            words.expect("deferrable")?;
            once(&mut modes.deferrable, false)?;
        } else {
            // What else there is makes the caller refuse it.
            return (!after_comma).then_some(modes);
        }
        after_comma = words.take(",");
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

fn is(word: &[u8], wanted: &str) -> bool {
    word.eq_ignore_ascii_case(wanted.as_bytes())
}

/// Words and single other characters of a text, between white space and comments.
struct Words<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Words<'a> {
    /// Skips to the next word; false at the end of the text, or where a comment does not end.
    fn skip(&mut self) -> bool {
        while let Some(byte) = self.text.get(self.at) {
            if is_space(*byte) {
                self.at += 1;
                continue;
            }
            match comment(self.text, self.at) {
                Ok(Some(end)) => self.at = end,
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    }

    fn peek(&mut self) -> Option<&'a [u8]> {
        if !self.skip() {
            return None;
        }
        let rest = &self.text[self.at..];
        let word = rest.iter().take_while(|byte| continues_word(**byte));
        Some(&rest[..word.count().max(1)])
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let word = self.peek()?;
        self.at += word.len();
        Some(word)
    }

    /// Takes this word, if it is the next.
    fn take(&mut self, wanted: &str) -> bool {
        let found = self.peek().filter(|word| is(word, wanted));
        self.at += found.map_or(0, <[u8]>::len);
        found.is_some()
    }

    fn expect(&mut self, wanted: &str) -> Option<()> {
        self.take(wanted).then_some(())
    }

    fn skip_work(&mut self) {
        let _ = self.take("work") || self.take("transaction");
    }

    /// Whether nothing but semicolons is left.
    fn is_at_end(&mut self) -> bool {
        while self.take(";") {}
        !self.skip() && self.at == self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(modes: Modes) -> Option<Control> {
        Some(Control::Begin {
            start: false,
            modes,
        })
    }

    const PLAIN: Modes = Modes {
        isolation: None,
        read_only: None,
        deferrable: None,
    };

    #[test]
    fn what_every_server_accepts() {
        let check = |text: &str, expected| assert_eq!(control(text.as_bytes()), expected, "{text}");
        check("BEGIN", begin(PLAIN));
        check("begin work;", begin(PLAIN));
        check(
            "/* a /* nested */ one */ begin transaction -- so\n ; ;",
            begin(PLAIN),
        );
        check(
            "start transaction",
            Some(Control::Begin {
                start: true,
                modes: PLAIN,
            }),
        );
        let read_only = Modes {
            read_only: Some(true),
            ..PLAIN
        };
        check("BEGIN READ ONLY", begin(read_only));
        let all = Modes {
            isolation: Some(Isolation::Serializable),
            read_only: Some(true),
            deferrable: Some(true),
        };
        check(
            "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
            begin(all),
        );
        check(
            "begin read only isolation level serializable deferrable",
            begin(all),
        );
        for (text, level) in [
            ("read uncommitted", Isolation::ReadUncommitted),
            ("READ COMMITTED", Isolation::ReadCommitted),
            ("repeatable read", Isolation::RepeatableRead),
        ] {
            let modes = Modes {
                isolation: Some(level),
                read_only: Some(false),
                deferrable: Some(false),
            };
            check(
                &format!("begin isolation level {text}, read write, not deferrable"),
                begin(modes),
            );
            assert_eq!(Isolation::named(text), Some(level));
        }
        let ended = |commit, chain| Some(Control::End { commit, chain });
        check("commit", ended(true, false));
        check("END WORK", ended(true, false));
        check("rollback transaction and no chain", ended(false, false));
        check("abort and chain;", ended(false, true));
        check("set transaction read only", Some(Control::Set(read_only)));
    }

    #[test]
    fn what_the_server_is_to_judge() {
        for text in [
            "",
            ";",
            "beginning",
            "begin atomic",
            "begin ,read only",
            "begin read only,",
            "begin read only, ,deferrable",
            "begin read only read write",
            "begin isolation level snapshot",
            "begin isolation level read only",
            "begin not read only",
            "begin work transaction",
            "begin; select 1",
            "begin 'x'",
            "begin /* never ends",
            "start",
            "start work",
            "commit prepared 'x'",
            "commit and",
            "rollback to a",
            "rollback work to savepoint a",
            "set transaction",
            "set transaction snapshot '1'",
            "set session transaction read only",
            "set local transaction read only",
            "prepare transaction 'x'",
            "select 1",
        ] {
            assert_eq!(control(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_sent_means_the_same() {
        let mut all = vec![PLAIN];
        for level in Isolation::ALL {
            for read_only in [None, Some(true), Some(false)] {
                for deferrable in [None, Some(true), Some(false)] {
                    all.push(Modes {
                        isolation: Some(level),
                        read_only,
                        deferrable,
                    });
                }
            }
        }
        for modes in all {
            let mut out = Vec::new();
            modes.put_begin(&mut out);
            assert_eq!(
                control(&out),
                begin(modes),
                "{}",
                String::from_utf8_lossy(&out)
            );
        }
    }

    #[test]
    fn later_modes_win() {
        let read_only = Modes {
            read_only: Some(true),
            ..PLAIN
        };
        let read_write = Modes {
            read_only: Some(false),
            ..PLAIN
        };
        assert_eq!(read_only.changed(read_write), read_write);
        assert_eq!(read_only.changed(PLAIN), read_only);
    }
}
