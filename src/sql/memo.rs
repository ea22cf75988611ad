//! Verdicts on texts that differ from one seen before in plain literals only: found without lexing the text.
//!
//! A program sends few shapes of statements, each with other numbers and strings in it. A shape is kept with the places of
//! those literals. A text that is equal everywhere else, and has literals of the same kinds there, lexes to the same key,
//! and texts with the same key have the same class. What is not found is lexed, and no worse than before.

use super::class::Class;
use super::lexer::Lexed;

/// Longest text that is kept, and longest that is looked for.
pub(super) const MAX_TEXT: usize = 1024;

/// Most literals of a text that is kept.
const MAX_LITERALS: usize = 32;

/// Shapes of texts that begin alike share a set. All of them take less than 1 MiB.
const SETS: usize = 1 << SET_BITS;
const SET_BITS: u32 = 7;
const WAYS: usize = 4;

/// Of the shapes that find their set full one in so many takes another's place: a program with more of them than there is
/// room for must not pay twice for each.
const PATIENCE: u8 = 8;

/// Bytes of a text by which its set is chosen, or fewer if there is a literal among them.
const HEAD: usize = 96;

/// What a verdict rests on: whoever judged, by which catalog, and how often something had been learned by then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Basis {
    pub(super) classifier: u64,
    pub(super) epoch: u64,
    pub(super) learned: u64,
}

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) class: Class,
    /// It was the parser's, or in the cache of the parser's verdicts.
    pub(super) parsed: bool,
}

/// The shapes that a thread has met. Takes no memory before the first is kept.
#[derive(Debug, Default)]
pub(super) struct Memo {
    sets: Vec<Set>,
}

#[derive(Debug, Default)]
struct Set {
    shapes: [Option<Shape>; WAYS],
    /// Shapes that have found no room.
    refused: u8,
}

#[derive(Debug)]
struct Shape {
    head: u64,
    basis: Basis,
    kept: Kept,
    /// The text that was met first.
    text: Box<[u8]>,
    /// Where its plain literals begin and end.
    literals: Box<[(u32, u32)]>,
}

impl Memo {
    /// The verdict on a text like this, if there is one on this basis.
    #[inline]
    pub(super) fn find(&self, text: &[u8], basis: Basis) -> Option<Kept> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let head = head(text);
        let set = self.sets.get(place(head))?;
        let is_it =
            |shape: &&Shape| shape.head == head && shape.basis == basis && shape.is_alike(text);
        set.shapes
            .iter()
            .flatten()
            .find(is_it)
            .map(|shape| shape.kept)
    }

    /// Keeps the verdict on a text that has been lexed.
    pub(super) fn keep(&mut self, text: &[u8], lexed: &Lexed, basis: Basis, kept: Kept) {
        if text.len() > MAX_TEXT {
            return;
        }
        if self.sets.is_empty() {
            self.sets.resize_with(SETS, Set::default);
        }
        let head = head(text);
        let Some(way) = self.sets[place(head)].room(head, text) else {
            return;
        };
        let literals: Box<[(u32, u32)]> = lexed
            .literals
            .iter()
            .copied()
            .filter(|(start, end)| is_plain(&text[*start as usize..*end as usize]))
            .collect();
        if literals.len() > MAX_LITERALS {
            return;
        }
        *way = Some(Shape {
            head,
            basis,
            kept,
            text: text.into(),
            literals,
        });
    }
}

impl Set {
    /// Where a shape is put: in the place of what has been kept of it on another basis, else where there is room, else
    /// sometimes in another's place.
    fn room(&mut self, head: u64, text: &[u8]) -> Option<&mut Option<Shape>> {
        let is_same = |way: &Option<Shape>| match way {
            Some(shape) => shape.head == head && shape.is_alike(text),
            None => false,
        };
        let at = match self.shapes.iter().position(is_same) {
            Some(at) => at,
            None => match self.shapes.iter().position(Option::is_none) {
                Some(at) => at,
                None => {
                    self.refused = self.refused.wrapping_add(1);
                    if !self.refused.is_multiple_of(PATIENCE) {
                        return None;
                    }
                    usize::from(self.refused / PATIENCE) % WAYS
                }
            },
        };
        self.shapes.get_mut(at)
    }
}

impl Shape {
    /// Whether a text differs from this one in its plain literals only. Each ends where that of the other text ends: what
    /// follows it is equal, and is nothing that it could go on with.
    #[inline]
    fn is_alike(&self, text: &[u8]) -> bool {
        let mut rest = text;
        let mut from = 0;
        for (start, end) in &self.literals {
            let (start, end) = (*start as usize, *end as usize);
            let Some(behind) = rest.strip_prefix(&self.text[from..start]) else {
                return false;
            };
            let length = match self.text[start] {
                b'\'' => plain_string(behind),
                _ => digits(behind),
            };
            let Some(behind) = length.and_then(|length| behind.get(length..)) else {
                return false;
            };
            rest = behind;
            from = end;
        }
        rest == &self.text[from..]
    }
}

/// Whether a literal is one of those that [`plain_string`] and [`digits`] find the end of.
fn is_plain(literal: &[u8]) -> bool {
    let length = match literal.first() {
        Some(b'\'') => plain_string(literal),
        _ => digits(literal),
    };
    length == Some(literal.len())
}

/// The length of the digits that a text begins with; `None` if it begins with something else.
#[inline]
fn digits(text: &[u8]) -> Option<usize> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (length > 0).then_some(length)
}

/// The length of the string that a text begins with, up to the next quote. `None` if it begins with something else, and for
/// strings that are not ASCII, or have a zero byte, at which the server would end the text.
#[inline]
fn plain_string(text: &[u8]) -> Option<usize> {
    let inner = text.strip_prefix(b"'")?;
    let length = inner.iter().position(|byte| *byte == b'\'')?;
    let inner = &inner[..length];
    (inner.is_ascii() && !inner.contains(&0)).then_some(length + 2)
}

/// The set of a text, by its [`head`].
#[inline]
fn place(head: u64) -> usize {
    (head >> (u64::BITS - SET_BITS)) as usize
}

/// A number for what a text begins with, up to the first byte that could begin a literal: the same for all texts that
/// differ in literals only.
#[inline]
fn head(text: &[u8]) -> u64 {
    // Of the golden ratio: its products spread over the upper bits, which choose the set.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut head: u64 = 0;
    for chunk in text[..text.len().min(HEAD)].chunks(8) {
        let bytes = match chunk.first_chunk() {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => (chunk.iter().rev()).fold(0, |bytes, byte| bytes << 8 | u64::from(*byte)),
        };
        let literals = digits_and_quotes(bytes);
        if literals != 0 {
            // The bytes before the first of them: all bits below that of its byte.
            let first = (literals & literals.wrapping_neg()) >> 7;
            return (head.rotate_left(5) ^ (bytes & (first - 1))).wrapping_mul(SPREAD);
        }
        head = (head.rotate_left(5) ^ bytes).wrapping_mul(SPREAD);
    }
    head
}

/// Which of eight bytes are digits or single quotes: each by its highest bit.
#[inline]
fn digits_and_quotes(bytes: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    // Without their highest bits no sum of two bytes carries into the next; it has that bit if it is 128 or more.
    let ascii = bytes & !HIGH;
    let at_least = |bytes: u64, least: u64| bytes + ONES * (0x80 - least);
    let digits = at_least(ascii, 0x30) & !at_least(ascii, 0x3a);
    let quotes = !at_least(ascii ^ (ONES * 0x27), 1);
    (digits | quotes) & !bytes & HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::class::{Access, Reason};
    use super::*;

    fn lexed(text: &[u8]) -> Option<Lexed> {
        let mut lexed = Lexed::default();
        lexed.lex(text).ok().map(|()| lexed)
    }

    fn shape(text: &[u8]) -> Option<Shape> {
        let lexed = lexed(text)?;
        let plain = |(start, end): &(u32, u32)| is_plain(&text[*start as usize..*end as usize]);
        Some(Shape {
            head: head(text),
            basis: Basis::default(),
            kept: kept(1),
            text: text.into(),
            literals: lexed.literals.iter().copied().filter(plain).collect(),
        })
    }

    fn kept(statements: u8) -> Kept {
        let class = Class::plain(Access::Read, Reason::Read);
        Kept {
            class: Class {
                statements,
                ..class
            },
            parsed: true,
        }
    }

    #[test]
    fn what_is_alike() {
        // One that cannot be lexed is never kept.
        let alike = |a: &str, b: &str| {
            shape(a.as_bytes()).is_some_and(|shape| shape.is_alike(b.as_bytes()))
        };
        let all = |text: &str, others: &[&str], expected: bool| {
            for other in others {
                assert_eq!(alike(text, other), expected, "{text} and {other}");
                assert_eq!(alike(other, text), expected, "{other} and {text}");
            }
        };
        all(
            "select a from t1 where b = 1 and c = 'x'",
            &[
                "select a from t1 where b = 4711 and c = ''",
                "select a from t1 where b = 0 and c = '; drop table t1 --'",
            ],
            true,
        );
        all(
            "select a from t1 where b = 1 and c = 'x'",
            &[
                "select a from t2 where b = 1 and c = 'x'",
                "select A from t1 where b = 1 and c = 'x'",
                "select a from t1 where b =  1 and c = 'x'",
                "select a from t1 where b = 1.5 and c = 'x'",
                "select a from t1 where b = 1e5 and c = 'x'",
                "select a from t1 where b = -1 and c = 'x'",
                "select a from t1 where b = 1 and c = 'it''s'",
                "select a from t1 where b = 1 and c = 'x' or true",
                "select a from t1 where b = 1 and c = E'x'",
                "select a from t1 where b = 1 and c = 'ä'",
                "select a from t1 where b = 1 and c = 'x",
                "select a from t1 where b = 'x' and c = 1",
                "select a from t1 where b =  and c = 'x'",
            ],
            false,
        );
        all("select E'a', 1", &["select E'b', 1"], false);
        all(
            "select $$1$$, $1",
            &["select $$2$$, $1", "select $$1$$, $2"],
            false,
        );
        all("select 0x1F", &["select 00x1F"], true);
        all("select 1", &["select 12", "select 007"], true);
        all("select '1'", &["select 1"], false);
        all("select 1 -- 2", &["select 1 -- 3"], false);
    }

    #[test]
    fn it_holds_on_its_basis_only() {
        let mut memo = Memo::default();
        let basis = |n| Basis {
            classifier: 1,
            epoch: 2,
            learned: n,
        };
        let text = b"select a from t where b = 1";
        let lexed = lexed(text).expect("it can be lexed");
        assert_eq!(memo.find(text, basis(0)), None);
        memo.keep(text, &lexed, basis(0), kept(1));
        let other = b"select a from t where b = 2";
        assert_eq!(memo.find(other, basis(0)), Some(kept(1)));
        assert_eq!(memo.find(other, basis(1)), None);
        // What is known on another basis gives way to it.
        memo.keep(text, &lexed, basis(1), kept(2));
        assert_eq!(memo.find(other, basis(1)), Some(kept(2)));
        assert_eq!(memo.find(other, basis(0)), None);
    }

    #[test]
    fn a_full_set_gives_way_slowly() {
        let mut memo = Memo::default();
        let text = |n: usize| format!("select 1 from {}", "a".repeat(n + 1));
        let mut keep = |n| {
            let text = text(n);
            let lexed = lexed(text.as_bytes()).expect("it can be lexed");
            memo.keep(text.as_bytes(), &lexed, Basis::default(), kept(1));
            let known = |n| memo.find(text_of(n).as_bytes(), Basis::default()).is_some();
            (0..100).filter(|n| known(*n)).collect::<Vec<usize>>()
        };
        fn text_of(n: usize) -> String {
            format!("select 2 from {}", "a".repeat(n + 1))
        }
        for n in 0..WAYS {
            keep(n);
        }
        for n in WAYS..WAYS + usize::from(PATIENCE) - 1 {
            assert_eq!(keep(n), [0, 1, 2, 3]);
        }
        assert_eq!(keep(50), [0, 2, 3, 50]);
        let long = format!("select 1 from {}", "a".repeat(MAX_TEXT));
        let lexed = lexed(long.as_bytes()).expect("it can be lexed");
        memo.keep(long.as_bytes(), &lexed, Basis::default(), kept(1));
        assert_eq!(memo.find(long.as_bytes(), Basis::default()), None);
    }

    /// Pieces of SQL of which any order is tried.
    const PIECES: [&str; 30] = [
        "select",
        " ",
        "a",
        "1",
        "42",
        "'x'",
        "'",
        "''",
        "\\",
        "E'",
        "e",
        ".",
        "-",
        "--",
        "\n",
        "/*",
        "*/",
        "$1",
        "$$",
        "$",
        "\"",
        "x'1'",
        "0x1",
        ";",
        "(",
        ",",
        "+",
        "_",
        "U&'",
        "set_config",
    ];

    proptest! {
        /// What is alike is the same to the lexer, and so to all that see its key only.
        #[test]
        fn alike_is_the_same_key(
            pieces in proptest::collection::vec(0..PIECES.len(), 1..12),
            edits in proptest::collection::vec((0..12_usize, 0..PIECES.len()), 0..3),
        ) {
            let join = |pieces: &[usize]| pieces.iter().map(|n| PIECES[*n]).collect::<String>();
            let text = join(&pieces);
            let mut other = pieces.clone();
            for (at, piece) in edits {
                let at = at % other.len();
                other[at] = piece;
            }
            let other = join(&other);
            if let Some(shape) = shape(text.as_bytes())
                && shape.is_alike(other.as_bytes())
            {
                prop_assert_eq!(shape.head, head(other.as_bytes()));
                let (one, two) = (lexed(text.as_bytes()), lexed(other.as_bytes()));
                let (Some(one), Some(two)) = (one, two) else {
                    return Err(TestCaseError::fail(format!("{other:?} cannot be lexed, {text:?} can")));
                };
                prop_assert_eq!(&one.key, &two.key, "{} and {}", text, other);
                prop_assert_eq!(one.starts, two.starts);
                prop_assert_eq!(one.flags, two.flags);
                prop_assert_eq!(one.tokens, two.tokens);
            }
        }
    }
}
