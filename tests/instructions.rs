//! What `make check` makes of a count of instructions: more than 3 % above what is recorded fails.

#[path = "../benches/instructions/gate.rs"]
mod gate;

use gate::{Record, Tools, Verdict};

const RECORDED: u64 = 20_000;

fn record() -> Record {
    Record {
        made_with: Tools {
            rustc: "rustc 1.95.0".to_owned(),
            libc: "2.36".to_owned(),
            valgrind: "valgrind-3.19.0".to_owned(),
            arch: "x86_64".to_owned(),
        },
        instructions: [("simple".to_owned(), RECORDED)].into(),
    }
}

#[track_caller]
fn check(count: u64, fails: bool, says: &str) {
    let verdict = record().judge("simple", count);
    assert_eq!((verdict.fails(), &*verdict.to_string()), (fails, says));
}

#[test]
fn more_than_three_percent_fails() {
    check(20_000, false, "+0.00 %");
    check(20_400, false, "+2.00 %");
    check(20_600, false, "+3.00 %");
    check(20_602, true, "+3.01 %, WORSE");
    check(20_800, true, "+4.00 %, WORSE");
    check(40_000, true, "+100.00 %, WORSE");
}

#[test]
fn what_is_better_is_told() {
    check(19_600, false, "-2.00 %");
    check(19_200, false, "-4.00 %, better");
    assert!(record().judge("simple", 19_200).is_better());
    assert!(!record().judge("simple", 19_600).is_better());
}

#[test]
fn what_was_never_recorded_fails() {
    let verdict = record().judge("extended", RECORDED);
    assert_eq!(verdict, Verdict::New);
    assert!(verdict.fails());
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let text = toml::to_string(&record()).expect("a table");
    assert_eq!(toml::from_str(&text), Ok(record()));
    let kept: Record = toml::from_str(include_str!("../benches/instructions.toml"))
        .expect("what is recorded can be read");
    assert!(kept.instructions.values().all(|count| *count > 0));
    assert!(kept.instructions.contains_key("simple split"));
}
