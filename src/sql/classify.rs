//! Text to class, by way of a cache.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::catalog::{Catalog, Look};
use super::class::{Access, Class, PinReason, Reason, SequenceCalls, SessionEffect, TxEffect};
use super::execute::{Call, call};
use super::explain::{Basis, Explanation};
use super::hint::{self, Hint};
use super::keyword::{self, Verdict};
use super::learned::Learned;
use super::lexer::{Bail, Flags, Lexed, continues_word};
use super::memo::{self, Kept, Memo};
use super::pins::mentions;
use super::rewrite::rewrite;
use super::setting::set_config;
use super::shapes::{ShapeId, Shapes};
use super::walk::{self, Finding};

/// Longest text that is parsed. The parser builds trees that are as deep as their text is long, and takes them down by
/// recursion: this bound, with [`MAX_TOKENS`], keeps that within a thread's stack. It also bounds the time that one
/// client can take from the others.
const MAX_PARSED: usize = 16 * 1024;

/// Most tokens that are parsed. A chain such as `1+1+1…` makes the deepest tree for its length. Up to 1.6 µs for each, on a
/// busy machine, keep a text below 5 ms.
const MAX_TOKENS: usize = 3072;

/// Most sub-queries and joins that are parsed. The parser takes some 12 KiB and 5 to 15 µs for each.
const MAX_PARTS: usize = 150;

/// Most tokens times what is around each other of that which the parser may read again and again, up to 0.9 µs each time.
const MAX_NESTED: usize = 4096;

/// Stack for one parse. A debug build takes some 10 KiB for each level of the deepest text that is parsed.
const PARSER_STACK: usize = 64 * 1024 * 1024;

/// Stack that a text of so many tokens may take, whatever they are. Mapping one costs more than to parse a short text: the
/// statements of an application fit into what a thread has.
pub(super) fn stack_for(tokens: usize) -> usize {
    (STACK_AT_LEAST + tokens * STACK_PER_TOKEN).min(PARSER_STACK / 2)
}

/// What the parser takes for the shortest text, and for each token of the deepest; in debug builds, by the test with all
/// the deep shapes.
const STACK_AT_LEAST: usize = 512 * 1024;
const STACK_PER_TOKEN: usize = 64 * 1024;

/// Longest text that is lexed for what it leaves behind in its session. It takes up to 10 ns for each byte.
const MAX_LEXED: usize = 256 * 1024;

/// How the server lexes a session's statements, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lexing {
    /// `standard_conforming_strings`: a backslash in a plain string is a backslash.
    pub standard_conforming_strings: bool,
    /// `client_encoding` is one in which bytes below 128 are ASCII and nothing else.
    pub safe_encoding: bool,
    /// `client_encoding` is UTF8: what is not ASCII can be told from the catalog's names.
    pub utf8: bool,
}

impl Lexing {
    /// Whether the server splits this text as we do. Backslashes matter only without standard-conforming strings, and
    /// bytes above 127 only in encodings where a part of a character may look like ASCII.
    pub fn is_alike(self, text: &[u8]) -> bool {
        (self.standard_conforming_strings || !text.contains(&b'\\'))
            && (self.safe_encoding || text.is_ascii())
    }
}

impl Default for Lexing {
    fn default() -> Lexing {
        Lexing {
            standard_conforming_strings: true,
            safe_encoding: true,
            utf8: true,
        }
    }
}

/// Classifies statements. Shared by all sessions.
#[derive(Debug)]
pub struct Classifier {
    /// Tells it from others of the process, with which it shares what threads keep.
    number: u64,
    cache: Cache<Box<[u8]>, Class, ByBytes, foldhash::fast::RandomState>,
    learned: Learned,
    hits: AtomicU64,
    misses: AtomicU64,
    shapes: Shapes,
}

/// Weighs an entry by its key and about what the entry itself takes.
#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Box<[u8]>, Class> for ByBytes {
    fn weight(&self, key: &Box<[u8]>, _: &Class) -> u64 {
        key.len() as u64 + 96
    }
}

thread_local! {
    // The lexer's buffers stay warm with the thread: a statement is classified between two polls, never across one.
    static LEXED: RefCell<Lexed> = RefCell::default();
    static MEMO: RefCell<Memo> = RefCell::default();
    static PARSED: Cell<u64> = const { Cell::new(0) };
}

/// How many texts this thread has parsed, as there was no verdict on them.
pub fn parsed_here() -> u64 {
    PARSED.get()
}

/// The number of the next classifier.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Classifier {
    /// A classifier that remembers verdicts in at most `bytes` bytes.
    pub fn new(bytes: u64) -> Classifier {
        let items = usize::try_from(bytes / 256).unwrap_or(usize::MAX).max(16);
        let hasher = foldhash::fast::RandomState::default();
        Classifier {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            cache: Cache::with(items, bytes, ByBytes, hasher, Default::default()),
            learned: Learned::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            shapes: Shapes::new(0),
        }
    }

    /// The same, and it tells this many shapes of statements apart to count them.
    #[must_use]
    pub fn with_shapes(self, most: usize) -> Classifier {
        Classifier {
            shapes: Shapes::new(most),
            ..self
        }
    }

    /// The counters of statements.
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// The class of a text, which may hold several statements. `text` has no terminator; it may be the beginning of a
    /// longer one if it is longer than what is parsed.
    pub fn classify(&self, text: &[u8], lexing: Lexing, catalog: &Catalog) -> Class {
        // Others may lex it in another way.
        if lexing != Lexing::default() || text.len() > memo::MAX_TEXT {
            return LEXED.with_borrow_mut(|lexed| self.judge_all(text, lexing, catalog, lexed));
        }
        let basis = self.basis(catalog);
        if let Some(kept) = MEMO.with_borrow(|memo| memo.find(text, basis))
            && self.shapes.has(kept.class)
        {
            if kept.parsed {
                self.hits.fetch_add(1, Ordering::Relaxed);
            }
            return kept.class;
        }
        LEXED.with_borrow_mut(|lexed| {
            let class = self.judge_all(text, lexing, catalog, lexed);
            if rests_on_key(class, lexed) {
                let parsed = lexed.parsed;
                let kept = Kept { class, parsed };
                MEMO.with_borrow_mut(|memo| memo.keep(text, lexed, basis, kept));
            }
            class
        })
    }

    /// What its verdicts rest on: those of one basis may be put together.
    pub fn basis(&self, catalog: &Catalog) -> memo::Basis {
        memo::Basis {
            classifier: self.number,
            epoch: catalog.epoch(),
            learned: self.learned.times(),
        }
    }

    /// The class with the hint before it.
    fn judge_all(
        &self,
        text: &[u8],
        lexing: Lexing,
        catalog: &Catalog,
        lexed: &mut Lexed,
    ) -> Class {
        let class = self.judge(text, lexing, catalog, lexed, None);
        Class {
            hint: hint::leading(text),
            ..class
        }
    }

    /// The class, and what it rests on. Never answered from the cache.
    pub fn explain(&self, text: &[u8], lexing: Lexing, catalog: &Catalog) -> Explanation {
        let (mut lexed, mut basis) = (Lexed::default(), Basis::default());
        let class = self.judge(text, lexing, catalog, &mut lexed, Some(&mut basis));
        let mut explanation = Explanation::new(class, basis, text, &lexed);
        explanation.class.hint = hint::leading(text);
        explanation.class = explanation.class.hinted();
        explanation
    }

    /// A standby has refused this text as a write: all texts of its shape go to the primary from now on, in this database. A text that was
    /// not taken for a read has nothing to be learned.
    pub fn learn(&self, text: &[u8], lexing: Lexing, catalog: &Catalog) {
        if self.classify(text, lexing, catalog).access != Access::Read {
            return;
        }
        LEXED.with_borrow_mut(|lexed| {
            if lexed.lex(text).is_ok() {
                self.learned.insert(&lexed.key, catalog.database());
                let mut class = refused(lexed);
                class.shape = self.shapes.of(&lexed.key, class);
                // By this catalog; under others it is looked for among what has been learned.
                lexed.key.extend_from_slice(&catalog.epoch().to_le_bytes());
                self.cache.insert(lexed.key.as_slice().into(), class);
                self.learned.note();
            }
        });
    }

    /// How many shapes have been learned to be no reads.
    pub fn learned(&self) -> usize {
        self.learned.len()
    }

    /// Verdicts found in the cache.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Verdicts that took the parser.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    fn judge(
        &self,
        text: &[u8],
        lexing: Lexing,
        catalog: &Catalog,
        lexed: &mut Lexed,
        basis: Option<&mut Basis>,
    ) -> Class {
        let explains = basis.is_some();
        if !lexing.is_alike(text) {
            let class = Class::plain(Access::Write, Reason::UnsafeText).with(unread(text));
            return self.unlexed(class, text);
        }
        if text.len() > MAX_LEXED {
            let class = Class::plain(Access::Write, Reason::TooLong);
            return self.unlexed(class.with(SessionEffect::Unknown), text);
        }
        if let Err(bail) = lexed.lex(text) {
            return self.unlexed(bailed(bail, text.len()), text);
        }
        let class = match lexed.starts.len() {
            0 => {
                return Class {
                    statements: 0,
                    ..Class::plain(Access::Empty, Reason::Empty)
                };
            }
            1 => match keyword::judge(&lexed.key[lexed.starts[0] as usize..]) {
                Verdict::Class(class) if class.reason == Reason::Function => {
                    self.called(text, lexing, catalog).unwrap_or(class)
                }
                Verdict::Class(class) => class,
                Verdict::Parse => self.read(text, lexing, lexed, catalog, basis),
            },
            _ => self.several(text, lexing, lexed, catalog, basis),
        };
        let class = hidden(flagged(class, text, lexed), lexed, text);
        if explains {
            return class;
        }
        Class {
            shape: self.shapes.of(&lexed.key, class),
            ..class
        }
    }

    /// A CALL of a procedure that only reads, as an administrator says, with values that only read.
    fn called(&self, text: &[u8], lexing: Lexing, catalog: &Catalog) -> Option<Class> {
        let Call {
            schema,
            name,
            values,
        } = call(text)?;
        if !catalog.trusts_procedure(&schema, &name) || catalog.casts().is_some() {
            return None;
        }
        let mut own = Lexed::default();
        let values = match values {
            b"" => b"SELECT 1".to_vec(),
            values => [b"SELECT coalesce(", values, b")"].concat(),
        };
        own.lex(&values).ok()?;
        let class = self.read(&values, lexing, &mut own, catalog, None);
        (own.starts.len() == 1 && own.flags == Flags::default() && class.access == Access::Read)
            .then_some(Class::plain(Access::Read, Reason::Read))
    }

    fn unlexed(&self, class: Class, text: &[u8]) -> Class {
        // To look through megabytes would take its time from others.
        let text = &text[..text.len().min(MAX_LEXED)];
        Class {
            shape: self.shapes.of_unlexed(),
            // Wherever the words stand.
            sequences: SequenceCalls {
                values: mentions(text, b"currval") || mentions(text, b"lastval"),
                next: mentions(text, b"nextval"),
            },
            ..class
        }
    }

    /// A text that starts like a read.
    fn read(
        &self,
        text: &[u8],
        lexing: Lexing,
        lexed: &mut Lexed,
        catalog: &Catalog,
        basis: Option<&mut Basis>,
    ) -> Class {
        let statements = u8::try_from(lexed.starts.len()).unwrap_or(u8::MAX);
        if text.len() > MAX_PARSED || lexed.tokens > MAX_TOKENS {
            return Class {
                statements,
                ..Class::plain(Access::Write, Reason::TooLong)
            };
        }
        // Before the cache: its key has no literals, so one text that is not UTF-8 must not decide for all that differ
        // from it in a literal only.
        let is_utf8 = || lexing.utf8 && std::str::from_utf8(text).is_ok();
        if !text.is_ascii() && !is_utf8() {
            if let Some(basis) = basis {
                *basis = Basis::said("not UTF-8");
            }
            return Class {
                statements,
                ..Class::plain(Access::Write, Reason::UnsafeText)
            };
        }
        if lexed.flags.long_name {
            if let Some(basis) = basis {
                *basis = Basis::said("a name of more than 63 bytes");
            }
            return Class {
                statements,
                ..Class::plain(Access::Write, Reason::UnsafeText)
            };
        }
        lexed.parsed = true;
        // A verdict holds for what one catalog says.
        let length = lexed.key.len();
        let epoch = catalog.epoch().to_le_bytes();
        lexed.key.extend_from_slice(&epoch);
        let known = match basis {
            None => self.cache.get(lexed.key.as_slice()),
            Some(_) => None,
        };
        let class = if let Some(class) = known {
            self.hits.fetch_add(1, Ordering::Relaxed);
            class
        } else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            PARSED.set(PARSED.get() + 1);
            // Its words are looked at.
            lexed.key.truncate(length);
            let explains = basis.is_some();
            let class = if self.learned.contains(&lexed.key, catalog.database()) {
                refused(lexed)
            } else {
                Classifier::parsed(text, lexed, catalog, basis)
            };
            let mut class = Class {
                statements,
                ..class
            };
            if !explains {
                // Remembered with its number, it need not be looked up again.
                class.shape = self.shapes.of(&lexed.key, class);
            }
            lexed.key.extend_from_slice(&epoch);
            self.cache.insert(lexed.key.as_slice().into(), class);
            class
        };
        lexed.key.truncate(length);
        class
    }

    /// The class that the parser and the catalog give.
    fn parsed(text: &[u8], lexed: &Lexed, catalog: &Catalog, basis: Option<&mut Basis>) -> Class {
        let is_good = |look| look == Look::Good;
        match plain_operators(text, lexed, catalog, is_good) {
            Ok(text) => parse(&text, lexed, catalog, basis),
            Err(operator) => {
                if let Some(basis) = basis {
                    *basis = Basis::operator(text, operator);
                }
                Class {
                    uncertain: is_uncertain_but_for_operators(text, lexed, catalog),
                    ..Class::plain(Access::Write, Reason::Operator)
                }
            }
        }
    }

    /// Several statements in one text are one implicit transaction: they go to one place (routing.md §2.1, M).
    fn several(
        &self,
        text: &[u8],
        lexing: Lexing,
        lexed: &mut Lexed,
        catalog: &Catalog,
        basis: Option<&mut Basis>,
    ) -> Class {
        let statements = u8::try_from(lexed.starts.len()).unwrap_or(u8::MAX);
        let mut merged: Option<Class> = None;
        let mut reads = Vec::new();
        let mut settings = Settings::default();
        for (start, span) in lexed.starts.iter().zip(&lexed.spans) {
            let statement = &lexed.key[*start as usize..];
            match keyword::judge(statement) {
                Verdict::Parse => reads.push(*span),
                Verdict::Class(class) => {
                    let class = match class.session {
                        // Which of them takes effect is not followed.
                        SessionEffect::Prepare => {
                            class.with(SessionEffect::Pin(PinReason::Prepare))
                        }
                        _ => class,
                    };
                    settings.note(class);
                    merged = Some(merged.map_or(class, |before| together(before, class)));
                }
            }
        }
        let Some(merged) = merged else {
            return self.read(text, lexing, lexed, catalog, basis);
        };
        // They run beside something that does not belong on a standby. Whether they may write is looked at one by one.
        let may_write = |(start, end): &(u32, u32)| {
            let statement = text.get(*start as usize..*end as usize).unwrap_or_default();
            let mut own = Lexed::default();
            own.lex(statement).is_err()
                || self.read(statement, lexing, &mut own, catalog, None).access == Access::Write
        };
        let is_long = text.len() > MAX_PARSED || lexed.tokens > MAX_TOKENS;
        let reason = if merged.access == Access::Write {
            merged.reason
        } else {
            Reason::SeveralStatements
        };
        let writes = merged.access == Access::Write
            || (is_long && !reads.is_empty())
            || reads.iter().any(may_write);
        let access = if writes {
            Access::Write
        } else {
            Access::Primary
        };
        let tx = if merged.tx == TxEffect::None {
            TxEffect::None
        } else {
            TxEffect::Mixed
        };
        let session = match merged.session {
            // The setting stays when what else pins has ended.
            SessionEffect::Pin(_) if settings.changed || settings.hidden => {
                SessionEffect::Pin(PinReason::Settings)
            }
            SessionEffect::None | SessionEffect::Pin(_) | SessionEffect::Execute => merged.session,
            _ if settings.changed => settings.effect(),
            _ => SessionEffect::Unknown,
        };
        Class {
            access,
            tx,
            session,
            reason,
            statements,
            uncertain: false,
            hint: Hint::NONE,
            shape: ShapeId::NONE,
            sequences: SequenceCalls::NONE,
        }
    }
}

/// Whether a class follows from the text's key alone: all texts with the same have it. What is left behind in a session is
/// looked for in literals, too.
fn rests_on_key(class: Class, lexed: &Lexed) -> bool {
    lexed.starts.len() == 1
        && lexed.flags == Flags::default()
        && class.session == SessionEffect::None
        // A procedure that an administrator trusts is one of its catalog, whatever that one's number.
        && (lexed.parsed || class.access != Access::Read)
        && !matches!(
            class.reason,
            Reason::UnsafeText | Reason::Unparsable | Reason::TooLong
        )
}

/// The class of a text that starts like a read and is none.
fn refused(lexed: &Lexed) -> Class {
    Class {
        statements: u8::try_from(lexed.starts.len()).unwrap_or(u8::MAX),
        ..Class::plain(Access::Write, Reason::Refused)
    }
}

/// What several statements do to settings.
#[derive(Default)]
struct Settings {
    changed: bool,
    /// Something beside them cannot be told.
    unclear: bool,
    /// What is not looked into may change some.
    hidden: bool,
}

impl Settings {
    fn note(&mut self, class: Class) {
        self.changed |= matches!(
            class.session,
            SessionEffect::Set | SessionEffect::Deallocate
        );
        self.hidden |= class.session == SessionEffect::Unknown;
        self.unclear |= !matches!(
            class.session,
            SessionEffect::None
                | SessionEffect::Set
                | SessionEffect::Savepoint
                | SessionEffect::Deallocate
        );
    }

    /// Settings must not be lost without a word: what cannot be followed keeps its connection.
    fn effect(&self) -> SessionEffect {
        if self.unclear {
            SessionEffect::Pin(PinReason::Settings)
        } else {
            SessionEffect::SetSeveral
        }
    }
}

/// The statements of a text that has been classified, each without its semicolon.
pub fn statements(text: &[u8]) -> Vec<&[u8]> {
    let mut lexed = Lexed::default();
    if lexed.lex(text).is_err() {
        return Vec::new();
    }
    lexed
        .spans
        .iter()
        .filter_map(|(start, end)| text.get(*start as usize..*end as usize))
        .collect()
}

/// What a text that is not looked into may leave behind. Settings must not be lost without a word.
fn unread(text: &[u8]) -> SessionEffect {
    let may_set = text
        .windows(3)
        .any(|word| word.eq_ignore_ascii_case(b"set"));
    if may_set {
        SessionEffect::Pin(PinReason::Settings)
    } else {
        SessionEffect::Unknown
    }
}

fn bailed(bail: Bail, length: usize) -> Class {
    let reason = match bail {
        _ if length > MAX_PARSED => Reason::TooLong,
        Bail::Malformed => Reason::Unparsable,
        Bail::UnicodeEscape => Reason::UnsafeText,
        Bail::TooManyStatements => Reason::TooManyStatements,
        Bail::TooManyPieces => Reason::TooLong,
    };
    Class::plain(Access::Write, reason).with(SessionEffect::Unknown)
}

/// The text with `~`, which may stand before and between, in place of operators that the parser does not read as PostgreSQL
/// does, and without comments that it would take for a part of one. That changes no verdict: they are harmless.
///
/// # Errors
/// The first that is not `good`.
fn plain_operators<'a>(
    text: &'a [u8],
    lexed: &Lexed,
    catalog: &Catalog,
    good: impl Fn(Look) -> bool,
) -> Result<Cow<'a, [u8]>, &'a [u8]> {
    let mut plain = Cow::Borrowed(text);
    for (start, end) in &lexed.comments {
        let comment = &mut plain.to_mut()[*start as usize..*end as usize];
        // What follows stays where it is, in its line and column.
        for byte in comment.iter_mut().filter(|byte| **byte != b'\n') {
            *byte = b' ';
        }
    }
    for (start, end) in &lexed.operators {
        let place = *start as usize..*end as usize;
        let operator = &text[place.clone()];
        let name = std::str::from_utf8(operator).unwrap_or_default();
        if !good(catalog.operator(name)) {
            return Err(operator);
        }
        let written = &mut plain.to_mut()[place];
        written.fill(b' ');
        written[0] = b'~';
    }
    Ok(plain)
}

/// Whether a hint may make a read of a text whose operators are not all known: none of them is known to be wrong, and
/// nothing else is.
fn is_uncertain_but_for_operators(text: &[u8], lexed: &Lexed, catalog: &Catalog) -> bool {
    let may_be_good = |look| !matches!(look, Look::Tainted(_));
    let Ok(text) = plain_operators(text, lexed, catalog, may_be_good) else {
        return false;
    };
    let rest = parse(&text, lexed, catalog, None);
    rest.uncertain || (rest.access == Access::Read && !hint::names_what_stays(&lexed.key))
}

fn parse(text: &[u8], lexed: &Lexed, catalog: &Catalog, basis: Option<&mut Basis>) -> Class {
    let (class, why) = match parse_apart(text, lexed, catalog) {
        Ok(None) => (Class::plain(Access::Read, Reason::Read), Basis::default()),
        Ok(Some(finding)) => {
            let class = Class {
                uncertain: finding.uncertain && !hint::names_what_stays(&lexed.key),
                ..found(&finding)
            };
            (class, Basis::found(finding))
        }
        Err((reason, what)) => (Class::plain(Access::Write, reason), Basis::said(&what)),
    };
    if let Some(basis) = basis {
        *basis = why;
    }
    class
}

/// Parses on a stack of its own, unless the thread's is large enough for a text of so few tokens: the parser's recursion is
/// counted for expressions, and not for everything else. A panic in it would be a fault of the parser's, and is not to
/// end the sessions of a thread.
fn parse_apart(
    text: &[u8],
    lexed: &Lexed,
    catalog: &Catalog,
) -> Result<Option<Finding>, (Reason, String)> {
    let parse = || {
        stacker::maybe_grow(stack_for(lexed.tokens), PARSER_STACK, || {
            parse_text(text, lexed, catalog)
        })
    };
    match std::panic::catch_unwind(parse) {
        Ok(result) => result,
        Err(_) => Err((Reason::Unparsable, "the parser failed".to_owned())),
    }
}

fn parse_text(
    text: &[u8],
    lexed: &Lexed,
    catalog: &Catalog,
) -> Result<Option<Finding>, (Reason, String)> {
    let statements = lexed.starts.len();
    let text =
        std::str::from_utf8(text).map_err(|_| (Reason::UnsafeText, "not UTF-8".to_owned()))?;
    let unparsable = |error: ParserError| (Reason::Unparsable, error.to_string());
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text)
        .tokenize_with_location()
        .map_err(|error| unparsable(error.into()))?;
    let mut tokens = rewrite(tokens, statements == 1);
    tokens.iter_mut().for_each(unspecial);
    let too_much = |what: String| Err((Reason::TooLong, what));
    if tokens
        .iter()
        .filter(|token| begins_part(&token.token))
        .count()
        > MAX_PARTS
    {
        return too_much(format!("more than {MAX_PARTS} sub-queries and joins"));
    }
    if nested(&tokens) * lexed.tokens > MAX_NESTED {
        return too_much("arrays or joins nested too deep for their length".to_owned());
    }
    let parsed = Parser::new(&PostgreSqlDialect {})
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(unparsable)?;
    if parsed.len() != statements {
        return Err((
            Reason::Unparsable,
            "the parser sees another number of statements".to_owned(),
        ));
    }
    Ok(walk::judge(&parsed, catalog))
}

/// CONVERT is any function's name to PostgreSQL. The parser knows other systems' forms of it, and tries one after the other
/// at each level of a nest.
fn unspecial(token: &mut TokenWithSpan) {
    if let Token::Word(word) = &mut token.token
        && word.keyword == Keyword::CONVERT
    {
        word.keyword = Keyword::NoKeyword;
    }
}

/// How deep ARRAY[…] are nested, and parentheses around each other where a table may stand. The parser goes through what such
/// a one holds once more for each that it stands in, if there is a mistake in it.
fn nested(tokens: &[TokenWithSpan]) -> usize {
    let (mut open, mut depth, mut most) = (Vec::new(), 0, 0);
    // Behind ARRAY, where a table may stand, and in a list of tables.
    let (mut is_array, mut is_table, mut in_from) = (false, false, false);
    let mut is_around = false;
    for TokenWithSpan { token, .. } in tokens {
        let mut begins_table = false;
        let mut keyword = Keyword::NoKeyword;
        match token {
            Token::Whitespace(_) => continue,
            Token::LBracket | Token::LParen => {
                begins_table = is_table && *token == Token::LParen;
                let counts = match token {
                    Token::LParen => is_around,
                    _ => is_array,
                };
                open.push((counts, in_from));
                depth += usize::from(counts);
                most = most.max(depth);
                in_from = false;
            }
            Token::RBracket | Token::RParen => {
                let (counted, was_in_from) = open.pop().unwrap_or_default();
                depth -= usize::from(counted);
                in_from = was_in_from;
            }
            Token::Word(word) if word.quote_style.is_none() => keyword = word.keyword,
            _ => {}
        }
        match keyword {
            Keyword::FROM => in_from = true,
            Keyword::SELECT | Keyword::WHERE | Keyword::GROUP | Keyword::ORDER => in_from = false,
            _ => {}
        }
        is_array = keyword == Keyword::ARRAY;
        is_around = begins_table;
        is_table = begins_table
            || matches!(keyword, Keyword::FROM | Keyword::JOIN | Keyword::LATERAL)
            || (in_from && *token == Token::Comma);
    }
    most
}

fn begins_part(token: &Token) -> bool {
    let Token::Word(word) = token else {
        return false;
    };
    let keyword = matches!(
        word.keyword,
        Keyword::SELECT | Keyword::VALUES | Keyword::JOIN | Keyword::TABLE
    );
    keyword && word.quote_style.is_none()
}

fn found(finding: &Finding) -> Class {
    let class = Class::plain(finding.access, finding.reason);
    if finding.temporary {
        class.with(SessionEffect::Pin(PinReason::TemporaryObject))
    } else {
        class
    }
}

/// The stronger of two classes, with what either leaves behind.
fn together(a: Class, b: Class) -> Class {
    let rank = |access| match access {
        Access::Empty | Access::Neutral => 0,
        Access::Read => 1,
        Access::Primary => 2,
        Access::Write => 3,
    };
    let session = match (a.session, b.session) {
        (pin @ SessionEffect::Pin(_), _) | (_, pin @ SessionEffect::Pin(_)) => pin,
        (SessionEffect::None, other) | (other, SessionEffect::None) => other,
        (SessionEffect::Execute, SessionEffect::Execute) => SessionEffect::Execute,
        _ => SessionEffect::Unknown,
    };
    let tx = if a.tx == TxEffect::None {
        b.tx
    } else {
        TxEffect::Mixed
    };
    let stronger = if rank(b.access) > rank(a.access) {
        b
    } else {
        a
    };
    Class {
        tx,
        session,
        ..stronger
    }
}

/// Adds what words in the text leave behind, whatever statement they stand in.
fn flagged(class: Class, text: &[u8], lexed: &Lexed) -> Class {
    let flags = lexed.flags;
    if flags == Flags::default() {
        return class;
    }
    let sets = (flags.settings_view && class.access == Access::Write)
        || (flags.setting && set_config(text).is_none() && !only_local(&lexed.key));
    let session = if sets {
        // Before all that may end before the session does.
        SessionEffect::Pin(PinReason::Settings)
    } else if matches!(class.session, SessionEffect::Pin(_)) {
        class.session
    } else if flags.lasting {
        SessionEffect::Pin(PinReason::Function)
    } else if flags.advisory_lock {
        SessionEffect::Pin(PinReason::AdvisoryLock)
    } else if flags.temporary
        && matches!(
            class.reason,
            Reason::Ddl | Reason::SelectInto | Reason::UnknownConstruct
        )
    {
        SessionEffect::Pin(PinReason::TemporaryObject)
    } else if flags.setting && set_config(text).is_some() {
        SessionEffect::SetConfig
    } else if flags.setting {
        SessionEffect::Unknown
    } else if flags.execute && class.session == SessionEffect::None {
        SessionEffect::Execute
    } else {
        class.session
    };
    // A session that keeps its connection keeps it for its writes, too.
    let access = match (session, class.access) {
        (SessionEffect::Pin(_), Access::Read) => Access::Primary,
        (_, access) => access,
    };
    Class {
        session,
        access,
        sequences: sequence_calls(lexed),
        ..class
    }
}

/// Which functions over sequences a text calls: a column may have such a name, too.
fn sequence_calls(lexed: &Lexed) -> SequenceCalls {
    if !lexed.flags.sequence {
        return SequenceCalls::NONE;
    }
    let key = lexed.key.as_slice();
    let calls = |name: &[u8]| {
        memchr::memmem::find_iter(key, name).any(|at| {
            let rest = &key[at + name.len()..];
            let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
            let rest = rest.strip_prefix(b" ").unwrap_or(rest);
            let is_begun = at > 0 && continues_word(key[at - 1]);
            !is_begun && rest.first() == Some(&b'(')
        })
    };
    SequenceCalls {
        values: calls(b"currval") || calls(b"lastval"),
        next: calls(b"nextval"),
    }
}

/// Adds what stands inside of strings, where the lexer does not look: the body of a DO, and a search path by which plain
/// names are those of temporary objects. Both must not be lost without a word, nor be another's.
fn hidden(class: Class, lexed: &Lexed, text: &[u8]) -> Class {
    let does = |start: &u32| {
        let statement = &lexed.key[*start as usize..];
        statement.starts_with(b"do") && !statement.get(2).is_some_and(|byte| continues_word(*byte))
    };
    let pin = match class.session {
        SessionEffect::Set | SessionEffect::SetSeveral if mentions(text, b"pg_temp") => {
            // The setting is what stays, whether or not there is any such object.
            PinReason::Settings
        }
        // Without quotes its word tells.
        SessionEffect::Set | SessionEffect::SetSeveral if mentions(text, b"\"seed\"") => {
            PinReason::Settings
        }
        SessionEffect::Unknown if lexed.starts.iter().any(does) => {
            // A setting stays when the others have ended.
            let reasons: [(PinReason, &[u8]); 8] = [
                (PinReason::Function, b"dblink_connect"),
                (PinReason::Function, b"origin_session_setup"),
                (PinReason::Settings, b"set"),
                (PinReason::TemporaryObject, b"temp"),
                (PinReason::AdvisoryLock, b"advisory_lock"),
                (PinReason::Listen, b"listen"),
                (PinReason::Prepare, b"prepare"),
                (PinReason::HoldCursor, b"hold"),
            ];
            match reasons.iter().find(|(_, word)| mentions(text, word)) {
                Some((reason, _)) => *reason,
                None => return class,
            }
        }
        _ => return class,
    };
    class.with(SessionEffect::Pin(pin))
}

/// Whether a text that calls set_config does so for its transaction only, as far as its words tell. For the session, the
/// setting must not be lost: it keeps its connection.
fn only_local(key: &[u8]) -> bool {
    let has = |word: &[u8]| memchr::memmem::find(key, word).is_some();
    has(b"true") && !has(b"false")
}
