//! Statements: random bytes, and random sequences of what statements are made of.

use std::cell::RefCell;

use bolero::TypeGenerator;
use pgweir::sql::catalog::TABLES;
use pgweir::sql::{Access, Classifier, Lexing, setting};

/// A piece of a statement: mostly something that the lexer has a rule for.
#[derive(Clone, Debug, TypeGenerator)]
enum Piece {
    Known(u8),
    Byte(u8),
    Bytes(Vec<u8>),
}

const KNOWN: &[&[u8]] = &[
    b"select ",
    b"SELECT 1",
    b"from t ",
    b"where ",
    b"a = ",
    b"'",
    b"''",
    b"\"",
    b"$$",
    b"$1",
    b"$a$",
    b"E'",
    b"\\'",
    b"--",
    b"\n",
    b"/*",
    b"*/",
    b";",
    b"(",
    b")",
    b"[",
    b",",
    b"with x as (",
    b"insert into t ",
    b"update t set a = 1 ",
    b"delete from t ",
    b"for update",
    b"set ",
    b"local ",
    b"session ",
    b"reset all",
    b"time zone ",
    b"to ",
    b"begin ",
    b"read only",
    b"commit",
    b"rollback",
    b"prepare p as ",
    b"execute p",
    b"deallocate ",
    b"all",
    b"listen c",
    b"discard all",
    b"explain analyze ",
    b"copy t from stdin",
    b"copy t to stdout",
    b"nextval('s')",
    b"now()",
    b"pg_advisory_lock(1)",
    b"1.5e10",
    b"::int",
    b"U&'",
    b"declare c cursor for ",
    b"fetch 1 from c",
    b"values (1)",
    b"union all ",
    b"/*pgweir:",
    b"case when ",
    b" end",
    b"not ",
    b"-",
    b"1+",
    b"cast(",
    b"array[",
    b"interval '1'",
];

fn text(pieces: &[Piece]) -> Vec<u8> {
    let mut text = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Known(n) => text.extend_from_slice(KNOWN[usize::from(*n) % KNOWN.len()]),
            Piece::Byte(byte) => text.push(*byte),
            Piece::Bytes(bytes) => text.extend_from_slice(bytes),
        }
    }
    text
}

thread_local! {
    // Shared by all inputs, so that verdicts come from the cache, too.
    static CLASSIFIER: RefCell<Classifier> = RefCell::new(Classifier::new(1 << 16));
}

/// Classifies without a panic, and the same with a cold cache, a warm one, and when asked to explain.
#[test]
fn classify() {
    bolero::check!()
        .with_type::<(Vec<Piece>, bool, bool)>()
        .for_each(|(pieces, standard_conforming_strings, safe_encoding)| {
            let text = text(pieces);
            let lexing = Lexing {
                standard_conforming_strings: *standard_conforming_strings,
                safe_encoding: *safe_encoding,
            };
            CLASSIFIER.with_borrow(|shared| {
                let first = shared.classify(&text, lexing, &TABLES);
                assert_eq!(first, shared.classify(&text, lexing, &TABLES), "a warm cache");
                let explained = shared.explain(&text, lexing, &TABLES);
                assert_eq!(
                    first,
                    explained.class,
                    "no cache: {:?} ({})",
                    text.escape_ascii().to_string(),
                    explained.detail
                );
            });
        });
}

/// A statement that writes stays a write, whatever a client puts behind it.
#[test]
fn write_stays_a_write() {
    bolero::check!()
        .with_type::<Vec<Piece>>()
        .for_each(|pieces| {
            let text = [b"update t set a = 1; ".to_vec(), text(pieces)].concat();
            let class = Classifier::new(1 << 12).classify(&text, Lexing::default(), &TABLES);
            assert_eq!(class.access, Access::Write, "{class:?}");
        });
}

#[test]
fn settings() {
    bolero::check!()
        .with_type::<(bool, Vec<Piece>)>()
        .for_each(|(set, pieces)| {
            let front: &[u8] = if *set { b"set " } else { b"reset " };
            for text in [[front.to_vec(), text(pieces)].concat(), text(pieces)] {
                if let setting::Parsed::Setting(setting) = setting::parse(&text) {
                    assert_eq!(setting.name, setting.name.to_ascii_lowercase());
                }
                let _ = setting::deallocate_target(&text);
            }
        });
}
