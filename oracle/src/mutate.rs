//! Texts made of others, and of what the lexer has rules for.

use crate::generate::{Generator, Random};

/// One or several statements of `texts` or the generator's, cut and put together.
pub fn text(random: &mut Random, texts: &[&[u8]], generator: &mut Generator) -> Vec<u8> {
    let mut one = |random: &mut Random| {
        if random.once_in(3) {
            generator.statement().into_bytes()
        } else {
            texts[random.below(texts.len())].to_vec()
        }
    };
    let first = one(random);
    match random.below(6) {
        0 => {
            let mut text = first;
            for _ in 0..=random.below(3) {
                let between: &[u8] =
                    [b";".as_slice(), b"; ", b" ;; ", b"; -- x\n", b";/* ; */"][random.below(5)];
                text.extend_from_slice(between);
                text.extend_from_slice(&one(random));
            }
            text
        }
        // A part of one in the place of a part of another: mostly words for words.
        1 | 2 => {
            let second = one(random);
            let (a, b) = (words(random, &first), words(random, &second));
            [&first[..a.start], b" ", &second[b], b" ", &first[a.end..]].concat()
        }
        3 => {
            let part = words(random, &first);
            [&first[..part.start], &first[part.end..]].concat()
        }
        4 => {
            let part = words(random, &first);
            [&first[..part.end], b" ", &first[part.start..]].concat()
        }
        _ => {
            let mut text = first;
            for _ in 0..=random.below(3) {
                let at = random.below(text.len() + 1);
                let piece = PIECES[random.below(PIECES.len())];
                text.splice(at..at, piece.bytes());
            }
            text
        }
    }
}

/// A run of words.
fn words(random: &mut Random, text: &[u8]) -> std::ops::Range<usize> {
    let mut edges: Vec<usize> = (1..text.len())
        .filter(|at| text[at - 1].is_ascii_alphanumeric() != text[*at].is_ascii_alphanumeric())
        .collect();
    edges.insert(0, 0);
    edges.push(text.len());
    let first = random.below(edges.len());
    let last = (first + random.below(8)).min(edges.len() - 1);
    edges[first]..edges[last]
}

/// Pieces that quotes, comments and numbers are made of.
pub fn lexical(random: &mut Random) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..1 + random.below(16) {
        if random.once_in(40) {
            text.push((random.next() & 0xff) as u8);
        }
        text.extend_from_slice(PIECES[random.below(PIECES.len())].as_bytes());
    }
    text
}

const PIECES: &[&str] = &[
    "select ",
    "SELECT 1",
    "a",
    "'",
    "''",
    "'x'",
    "\"",
    "\"x\"",
    "\"\"",
    "$$",
    "$a$",
    "$1",
    "$",
    "$a",
    "E'",
    "e'\\'",
    "\\",
    "\\'",
    "\\\\",
    "--",
    "\n",
    "\r",
    "/*",
    "*/",
    "/",
    "*",
    ";",
    " ; ",
    "(",
    ")",
    "[",
    "]",
    ",",
    ".",
    "..",
    ":",
    "::",
    ":=",
    "=>",
    "=",
    "<",
    ">",
    "<>",
    "!=",
    "-",
    "+",
    "@",
    "#",
    "~",
    "!",
    "|",
    "||",
    "&",
    "^",
    "%",
    "?",
    "`",
    "1",
    "1.5",
    "1e5",
    "1e",
    "1.",
    ".5",
    "0x1F",
    "0b11",
    "1_000",
    "1a",
    "U&'",
    "U&\"",
    "u&'d\\0061'",
    "u & 1",
    "N'x'",
    "n'",
    "B'01'",
    "x'1f'",
    "X'",
    "b",
    "ä",
    "é1",
    " uescape '!'",
    " ",
    "\t",
    "\u{b}",
    "\u{c}",
    "\u{a0}",
    "\u{1}",
    "/**/",
    "/*/*",
    "*/*/",
    "-- ;\n",
    "/* ; */",
    "';'",
    "\";\"",
    "$$;$$",
    "'\n'",
    "' '",
    "'a' 'b'",
    "'a'\n'b'",
    "'a' -- x\n 'b'",
    "E'a'\n'\\''",
    "select",
    "insert into t values (1)",
    "for update",
    "nextval('s')",
    "with x as (",
    "into t ",
    "from t ",
    "pg_class",
    "::mytype",
    "mytype 'x'",
    "operator(public.+)",
    "1 <<<>>> 2",
    "not ",
    "case when ",
    " end",
    "union ",
    "values (1)",
    "table t",
];
