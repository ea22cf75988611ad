//! PostgreSQL's lexical rules in one pass, without allocation once its buffer is warm.
//!
//! PostgreSQL manual, "Lexical Structure", sql-syntax-lexical.html. The pass writes a *key*: comments gone, white space
//! collapsed, unquoted words in lower case, numbers and strings each replaced by one byte that no text contains.
//! Statements with the same key have the same class: no verdict depends on the value of a literal.

/// Stands for a number in keys.
pub(super) const NUMBER: u8 = 1;
/// Stands for a string in keys.
pub(super) const STRING: u8 = 2;

/// Most statements that are told apart.
pub(super) const MAX_STATEMENTS: usize = 64;

/// Most tokens and comments that are lexed. Each takes some 30 to 100 ns, whatever its length.
pub(super) const MAX_PIECES: usize = 32 * 1024;

/// What one pass finds.
#[derive(Debug, Default)]
pub(super) struct Lexed {
    /// The normalised text.
    pub(super) key: Vec<u8>,
    /// Where each statement that is not empty begins in `key`.
    pub(super) starts: Vec<u32>,
    /// Where each of them begins and ends in the text, without its semicolon.
    pub(super) spans: Vec<(u32, u32)>,
    /// Operators that the parser may read in another way than PostgreSQL: where each begins and ends in the text.
    pub(super) operators: Vec<(u32, u32)>,
    /// Comments that directly follow an operator, or another of these: where each begins and ends in the text.
    pub(super) comments: Vec<(u32, u32)>,
    /// Numbers, and strings in plain quotes: where each begins and ends in the text.
    pub(super) literals: Vec<(u32, u32)>,
    /// Tokens in all.
    pub(super) tokens: usize,
    /// Calls or names that matter to the session.
    pub(super) flags: Flags,
    /// Its verdict is the parser's, or in the cache of the parser's verdicts.
    pub(super) parsed: bool,
}

/// Words that leave something behind wherever they stand, as identifiers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// `set_config` or `setseed`.
    pub(super) setting: bool,
    /// A session-level advisory lock function.
    pub(super) advisory_lock: bool,
    /// A function that leaves something else on its connection, which nobody can list.
    pub(super) lasting: bool,
    /// The schema of temporary objects.
    pub(super) temporary: bool,
    /// EXECUTE, which may stand inside EXPLAIN and CREATE TABLE AS.
    pub(super) execute: bool,
    /// The view `pg_settings`, by which an UPDATE changes settings. PostgreSQL manual, view-pg-settings.html.
    pub(super) settings_view: bool,
    /// A name that the server cuts off: it may be another's then.
    pub(super) long_name: bool,
    /// `currval`, `lastval` or `nextval`.
    pub(super) sequence: bool,
}

/// Longest name in bytes: NAMEDATALEN less one.
const MAX_NAME: usize = 63;

/// Text that is not lexed to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bail {
    /// A string, comment or quoted name without its end, or a byte that no statement has.
    Malformed,
    /// `U&`: names and strings with escapes that the parser does not decode.
    UnicodeEscape,
    /// More than [`MAX_STATEMENTS`].
    TooManyStatements,
    /// More than [`MAX_PIECES`].
    TooManyPieces,
}

impl Lexed {
    /// Lexes `text`.
    ///
    /// # Errors
    /// [`Bail`]; what has been found up to then stays.
    pub(super) fn lex(&mut self, text: &[u8]) -> Result<(), Bail> {
        self.starts.clear();
        self.spans.clear();
        self.operators.clear();
        self.comments.clear();
        self.literals.clear();
        self.tokens = 0;
        self.flags = Flags::default();
        self.parsed = false;
        // A key is never longer than its text: bytes are put where there is room, which costs less than to append them.
        let mut room = std::mem::take(&mut self.key);
        room.clear();
        room.resize(text.len(), 0);
        let mut key = Key {
            room: &mut room,
            len: 0,
        };
        let result = self.lex_into(text, &mut key);
        let len = key.len;
        room.truncate(len);
        self.key = room;
        result
    }

    fn lex_into(&mut self, text: &[u8], key: &mut Key<'_>) -> Result<(), Bail> {
        let mut at = 0;
        let mut space = false;
        let mut in_statement = false;
        let mut pieces = 0;
        while let Some(&byte) = text.get(at) {
            let kind = KINDS[usize::from(byte)];
            if kind == SPACE {
                at += 1;
                space = true;
                continue;
            }
            pieces += 1;
            if pieces > MAX_PIECES {
                return Err(Bail::TooManyPieces);
            }
            if matches!(byte, b'-' | b'/')
                && let Some(end) = comment(text, at)?
            {
                if at > 0 && is_operator(text[at - 1]) {
                    self.comments.push(place(at, end)?);
                }
                at = end;
                space = true;
                continue;
            }
            if byte == b';' {
                self.end_statement(&mut in_statement, at);
                at += 1;
                space = false;
                key.put(b';');
                continue;
            }
            if !in_statement {
                if self.starts.len() == MAX_STATEMENTS {
                    return Err(Bail::TooManyStatements);
                }
                in_statement = true;
                self.starts
                    .push(u32::try_from(key.len).map_err(|_| Bail::Malformed)?);
                let start = u32::try_from(at).map_err(|_| Bail::Malformed)?;
                self.spans.push((start, start));
            } else if space {
                key.put(b' ');
            }
            space = false;
            self.tokens += 1;
            at = if kind == WORD {
                self.word(text, at, key)?
            } else {
                self.token(text, at, byte, key)?
            };
        }
        self.end_statement(&mut in_statement, text.len());
        Ok(())
    }

    fn end_statement(&mut self, in_statement: &mut bool, at: usize) {
        if std::mem::take(in_statement)
            && let Some((_, end)) = self.spans.last_mut()
        {
            *end = u32::try_from(at).unwrap_or(u32::MAX);
        }
    }

    fn token(
        &mut self,
        text: &[u8],
        at: usize,
        byte: u8,
        key: &mut Key<'_>,
    ) -> Result<usize, Bail> {
        match byte {
            b'0'..=b'9' => {
                key.put(NUMBER);
                let end = number(text, at);
                self.literals.push(place(at, end)?);
                Ok(end)
            }
            b'\'' => {
                key.put(STRING);
                let end = quoted(text, at + 1, b'\'')?;
                self.literals.push(place(at, end)?);
                Ok(end)
            }
            b'"' => {
                let end = quoted(text, at + 1, b'"')?;
                key.put_all(&text[at..end]);
                self.flags.note(&text[at + 1..end - 1]);
                self.flags.long_name |= end - 1 - (at + 1) > MAX_NAME;
                Ok(end)
            }
            b'$' => dollar(text, at, key),
            b'(' | b')' | b'[' | b']' | b',' | b':' | b'.' => {
                key.put(byte);
                Ok(at + 1)
            }
            byte if is_operator(byte) => {
                if !text.get(at + 1).is_some_and(|next| is_operator(*next)) {
                    // One character, as nearly always.
                    key.put(byte);
                    return Ok(at + 1);
                }
                let end = operator(text, at);
                let operator = &text[at..end];
                key.put_all(operator);
                if operator.len() > 1 && OPERATORS.binary_search(&operator).is_err() {
                    self.operators.push(place(at, end)?);
                }
                Ok(end)
            }
            _ => Err(Bail::Malformed),
        }
    }

    /// An unquoted word, or a string with a prefix.
    fn word(&mut self, text: &[u8], at: usize, key: &mut Key<'_>) -> Result<usize, Bail> {
        let start = key.len;
        let length = key.put_word(&text[at..]);
        let end = at + length;
        let next = text.get(end).copied();
        if length == 1 && matches!(next, Some(b'\'' | b'&')) {
            match (key.room[start], next) {
                (b'e', Some(b'\'')) => {
                    key.room[start] = STRING;
                    return escaped(text, end + 1);
                }
                (b'b' | b'x' | b'n', Some(b'\'')) => {
                    key.room[start] = STRING;
                    return quoted(text, end + 1, b'\'');
                }
                (b'u', Some(b'&')) if matches!(text.get(end + 1), Some(b'\'' | b'"')) => {
                    return Err(Bail::UnicodeEscape);
                }
                _ => {}
            }
        }
        self.flags.long_name |= length > MAX_NAME;
        self.flags.note(&key.room[start..key.len]);
        Ok(end)
    }
}

/// A key that is being written, into room for all of it.
struct Key<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl Key<'_> {
    #[inline]
    fn put(&mut self, byte: u8) {
        self.room[self.len] = byte;
        self.len += 1;
    }

    fn put_all(&mut self, bytes: &[u8]) {
        self.room[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Puts the word that `text` begins with, in lower case; returns its length.
    #[inline]
    fn put_word(&mut self, text: &[u8]) -> usize {
        let mut length = 0;
        for (room, byte) in self.room[self.len..].iter_mut().zip(text) {
            let lower = LOWER[usize::from(*byte)];
            if lower == 0 {
                break;
            }
            *room = lower;
            length += 1;
        }
        self.len += length;
        length
    }
}

/// A parameter, or a dollar-quoted string.
fn dollar(text: &[u8], at: usize, key: &mut Key<'_>) -> Result<usize, Bail> {
    let digits = text[at + 1..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if digits > 0 {
        let end = at + 1 + digits;
        key.put_all(&text[at..end]);
        return Ok(end);
    }
    let tag_end = text[at + 1..]
        .iter()
        .position(|byte| *byte == b'$' || !continues_word(*byte))
        .map(|length| at + 1 + length)
        .filter(|end| text[*end] == b'$')
        .ok_or(Bail::Malformed)?;
    let tag = &text[at..=tag_end];
    let body = &text[tag_end + 1..];
    let close = memchr::memmem::find(body, tag).ok_or(Bail::Malformed)?;
    key.put(STRING);
    Ok(tag_end + 1 + close + tag.len())
}

impl Flags {
    #[inline]
    fn note(&mut self, word: &[u8]) {
        if word.len() < 7
            || !matches!(word[0], b's' | b'p' | b'e' | b'd' | b'c' | b'l' | b'n')
            || !matches!(word[1], b'e' | b'g' | b'x' | b'b' | b'u' | b'a')
        {
            return;
        }
        match word {
            b"execute" => self.execute = true,
            b"currval" | b"lastval" | b"nextval" => self.sequence = true,
            b"set_config" | b"setseed" => self.setting = true,
            b"pg_replication_origin_session_setup" => self.lasting = true,
            _ if word.starts_with(b"dblink_connect") => self.lasting = true,
            b"pg_temp" => self.temporary = true,
            b"pg_settings" => self.settings_view = true,
            _ if word.starts_with(b"pg_temp_") => self.temporary = true,
            _ if word.starts_with(b"pg_advisory_lock")
                || word.starts_with(b"pg_try_advisory_lock") =>
            {
                self.advisory_lock = true;
            }
            _ => {}
        }
    }
}

fn place(start: usize, end: usize) -> Result<(u32, u32), Bail> {
    let at = |at: usize| u32::try_from(at).map_err(|_| Bail::Malformed);
    Ok((at(start)?, at(end)?))
}

fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'+' | b'-'
            | b'*'
            | b'/'
            | b'<'
            | b'>'
            | b'='
            | b'~'
            | b'!'
            | b'@'
            | b'#'
            | b'%'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
    )
}

/// The end of an operator (PostgreSQL manual, 4.1.3): as long as it can be, up to a comment; with a sign at its end only if
/// it has one of the characters that no operator of the standard has.
fn operator(text: &[u8], at: usize) -> usize {
    let is_part = |(place, byte): &(usize, &u8)| {
        let starts_comment = matches!(
            (byte, text.get(place + 1)),
            (b'-', Some(b'-')) | (b'/', Some(b'*'))
        );
        is_operator(**byte) && !(starts_comment && *place > at)
    };
    // Longer ones are refused by the server: NAMEDATALEN.
    let rest = text.iter().enumerate().skip(at).take(64);
    let mut length = rest.take_while(is_part).count();
    let may_end_in_sign = text[at..at + length].iter().any(|byte| {
        matches!(
            byte,
            b'~' | b'!' | b'@' | b'#' | b'%' | b'^' | b'&' | b'|' | b'`' | b'?'
        )
    });
    while length > 1 && !may_end_in_sign && matches!(text[at + length - 1], b'+' | b'-') {
        length -= 1;
    }
    at + length
}

/// Built-in operators of more than one character that the parser reads as PostgreSQL does, and two signs of the grammar.
/// What the parser makes of others is not to be relied on: it takes `<*>` for a comparison with everything.
static OPERATORS: [&[u8]; 54] = [
    b"!!", b"!=", b"!~", b"!~*", b"!~~", b"!~~*", b"##", b"#-", b"#>", b"#>>", b"&&", b"&<",
    b"&<|", b"&>", b"->", b"->>", b"-|-", b"<->", b"<<", b"<<=", b"<<|", b"<=", b"<>", b"<@",
    b"<^", b"=>", b">=", b">>", b">>=", b">^", b"?#", b"?&", b"?-", b"?-|", b"?|", b"?||", b"@-@",
    b"@>", b"@?", b"@@", b"^@", b"|&>", b"|/", b"|>>", b"||", b"||/", b"~*", b"~<=~", b"~<~",
    b"~=", b"~>=~", b"~>~", b"~~", b"~~*",
];

/// Whether an operator of more than one character is one of PostgreSQL's own.
pub(super) fn is_built_in_operator(name: &str) -> bool {
    OPERATORS.binary_search(&name.as_bytes()).is_ok()
}

pub(super) fn is_space(byte: u8) -> bool {
    KINDS[usize::from(byte)] == SPACE
}

#[inline]
pub(super) fn continues_word(byte: u8) -> bool {
    KINDS[usize::from(byte)] & IN_WORD != 0
}

/// White space.
const SPACE: u8 = 1;
/// May stand inside of a word.
const IN_WORD: u8 = 2;
/// Begins a word, and may stand inside of one.
const WORD: u8 = 4 | IN_WORD;

/// What each byte is.
static KINDS: [u8; 256] = kinds();

const fn kinds() -> [u8; 256] {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'A'..=b'Z' | b'a'..=b'z' | b'_' | 0x80.. => WORD,
            b'0'..=b'9' | b'$' => IN_WORD,
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' => SPACE,
            _ => 0,
        };
        byte += 1;
    }
    kinds
}

/// Bytes of words in lower case; 0 for all others.
static LOWER: [u8; 256] = lower();

const fn lower() -> [u8; 256] {
    let (mut lower, kinds) = ([0; 256], kinds());
    let mut byte = 0;
    while byte < 256 {
        if kinds[byte] & IN_WORD != 0 {
            lower[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    lower
}

/// The end of the comment that begins here, if one does.
pub(super) fn comment(text: &[u8], at: usize) -> Result<Option<usize>, Bail> {
    match (text[at], text.get(at + 1)) {
        (b'-', Some(b'-')) => {
            let rest = &text[at..];
            Ok(Some(
                at + memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len()),
            ))
        }
        (b'/', Some(b'*')) => block_comment(text, at + 2).map(Some),
        _ => Ok(None),
    }
}

/// Block comments nest.
fn block_comment(text: &[u8], mut at: usize) -> Result<usize, Bail> {
    let mut depth = 1;
    while depth > 0 {
        at += memchr::memchr2(b'*', b'/', text.get(at..).ok_or(Bail::Malformed)?)
            .ok_or(Bail::Malformed)?;
        match (text[at], text.get(at + 1)) {
            (b'*', Some(b'/')) => depth -= 1,
            (b'/', Some(b'*')) => depth += 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    Ok(at)
}

/// The end of a string or quoted name whose quote is written as two. A zero byte never gets here from a client, but the
/// server would end the text at it.
fn quoted(text: &[u8], mut at: usize, quote: u8) -> Result<usize, Bail> {
    loop {
        at += memchr::memchr2(quote, 0, text.get(at..).ok_or(Bail::Malformed)?)
            .ok_or(Bail::Malformed)?;
        match (text[at], text.get(at + 1)) {
            (0, _) => return Err(Bail::Malformed),
            (_, Some(next)) if *next == quote => at += 2,
            _ => return Ok(at + 1),
        }
    }
}

/// The end of a string with backslash escapes.
fn escaped(text: &[u8], mut at: usize) -> Result<usize, Bail> {
    loop {
        at += memchr::memchr3(b'\'', b'\\', 0, text.get(at..).ok_or(Bail::Malformed)?)
            .ok_or(Bail::Malformed)?;
        match (text[at], text.get(at + 1)) {
            (b'\\', Some(_)) | (b'\'', Some(b'\'')) => at += 2,
            // The server goes on with escapes, where everybody else sees a string without them.
            (b'\'', _) if is_continued(text, at + 1) => return Err(Bail::Malformed),
            (b'\'', _) => return Ok(at + 1),
            _ => return Err(Bail::Malformed),
        }
    }
}

/// Whether a string that ends here goes on behind space and comments with a line's end among them
/// ([sql-syntax-strings](https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-STRINGS)).
fn is_continued(text: &[u8], mut at: usize) -> bool {
    let mut has_line_end = false;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\n' | b'\r' => has_line_end = true,
            b' ' | b'\t' | b'\x0b' | b'\x0c' => {}
            b'-' if text.get(at + 1) == Some(&b'-') => {
                let rest = &text[at..];
                at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                continue;
            }
            byte => return has_line_end && *byte == b'\'',
        }
        at += 1;
    }
    false
}

/// The end of a number. What follows without a space is lexed as a word of its own, which is not always what the server
/// does, but never hides one.
fn number(text: &[u8], mut at: usize) -> usize {
    let digits = |mut at: usize| {
        while text.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    at = digits(at);
    if text.get(at) == Some(&b'.') && text.get(at + 1) != Some(&b'.') {
        at = digits(at + 1);
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        if text.get(at + 1 + sign).is_some_and(u8::is_ascii_digit) {
            at = digits(at + 1 + sign);
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lex(text: &str) -> Result<(String, Vec<u32>), Bail> {
        let mut lexed = Lexed::default();
        lexed.lex(text.as_bytes())?;
        let key = String::from_utf8_lossy(&lexed.key)
            .replace('\u{1}', "«n»")
            .replace('\u{2}', "«s»");
        Ok((key, lexed.starts))
    }

    #[test]
    fn keys() {
        let check = |text: &str, key: &str| {
            assert_eq!(lex(text).map(|(key, _)| key), Ok(key.to_owned()), "{text}")
        };
        check("SELECT  A, \"B\" FROM\n\tt", "select a, \"B\" from t");
        check(
            "select 1, 1.5, 1e10, .5, 1.e-3",
            "select «n», «n», «n», .«n», «n»",
        );
        check(
            "select 'it''s', E'a\\'b', $$x'y$$, $a$ $$ $a$, b'1'",
            "select «s», «s», «s», «s», «s»",
        );
        check("select $1, $22", "select $1, $22");
        check("select 1 -- x\n+ /* a /* b */ c */ 2", "select «n» + «n»");
        check("select a$x$ from t", "select a$x$ from t");
        check("select '\\' , 'x'", "select «s» , «s»");
        check("select \"a\"\"b\"", "select \"a\"\"b\"");
        check("select 1::int[]", "select «n»::int[]");
        check("select a-1, a- -1", "select a-«n», a- -«n»");
        check("SELECT ÄÖ", "select ÄÖ");
        check("select 0x1F", "select «n»x1f");
    }

    #[test]
    fn statements_are_counted() {
        let check = |text: &str, count: usize| {
            assert_eq!(
                lex(text).map(|(_, starts)| starts.len()),
                Ok(count),
                "{text}"
            )
        };
        check("", 0);
        check(" -- only this", 0);
        check(";;", 0);
        check("select 1;", 1);
        check("select 1; select ';' ; /* ; */ select $$;$$", 3);
    }

    #[test]
    fn what_is_not_lexed() {
        for (text, bail) in [
            ("select 'abc", Bail::Malformed),
            ("select \"abc", Bail::Malformed),
            ("select /* /* */", Bail::Malformed),
            ("select $a$ x $b$", Bail::Malformed),
            ("select E'abc\\'", Bail::Malformed),
            ("select E'a'\n'\\'', f(), ''", Bail::Malformed),
            ("select e'a' -- b'\r\n -- c\n\t'\\''", Bail::Malformed),
            ("select \\ 1", Bail::Malformed),
            ("select a\u{1}b", Bail::Malformed),
            ("select U&\"d\\0061t\"", Bail::UnicodeEscape),
            ("select u&'x'", Bail::UnicodeEscape),
        ] {
            assert_eq!(lex(text).err(), Some(bail), "{text}");
        }
        assert_eq!(
            lex(&"select 1;".repeat(65)).err(),
            Some(Bail::TooManyStatements)
        );
        for piece in ["+1", ",a", "/**/", ";"] {
            let text = format!("select 1{}", piece.repeat(MAX_PIECES));
            assert_eq!(lex(&text).err(), Some(Bail::TooManyPieces), "{piece}");
        }
        assert!(lex("select u & 1").is_ok());
        // Neither on one line, which is a mistake, nor without escapes, which ends where it seems to.
        assert!(lex("select E'a' '\\', 'b'").is_ok());
        assert!(lex("select 'a'\n'\\', 'b' -- E'a'").is_ok());
        assert!(lex("select E'a' --\n").is_ok());
    }

    #[test]
    fn words_that_matter_are_found() {
        let flags = |text: &str| {
            let mut lexed = Lexed::default();
            lexed.lex(text.as_bytes()).expect("lexable");
            lexed.flags
        };
        assert!(flags("insert into t select SET_CONFIG('a','b',false)").setting);
        assert!(flags("select \"set_config\"('a','b',false)").setting);
        assert!(flags("select pg_advisory_lock(1)").advisory_lock);
        assert!(flags("select pg_try_advisory_lock_shared(1)").advisory_lock);
        assert!(!flags("select pg_advisory_xact_lock(1)").advisory_lock);
        assert!(!flags("select pg_advisory_unlock_all()").advisory_lock);
        assert!(flags("select dblink_connect_u('c', 'x')").lasting);
        assert!(flags("select * from \"dblink_connect\"('x')").lasting);
        assert!(!flags("select dblink_exec('c', 'x')").lasting);
        assert!(flags("select pg_replication_origin_session_setup('x')").lasting);
        assert!(flags("create table pg_temp.x (i int)").temporary);
        assert!(flags("explain EXECUTE p").execute);
        assert!(flags("update PG_SETTINGS set setting = '1'").settings_view);
        assert_eq!(
            flags("select 'set_config', setting from s"),
            Flags::default()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut lexed = Lexed::default();
            let _ = lexed.lex(&text);
            prop_assert!(lexed.key.len() <= text.len() * 2 + 1);
        }
    }
}
