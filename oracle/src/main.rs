//! pgweir's classifier beside PostgreSQL's own parser.
//!
//! `oracle DIRECTORY`, with PostgreSQL's sources below DIRECTORY; `scripts/oracle` fetches them. What PostgreSQL's parser
//! says to be more than a read must never be a read for pgweir, and 95 % of what is a plain read must be one. Ends with 1
//! if that is not so. `ORACLE_COUNT` (default 100,000) statements are generated, as many are cut from the others, and ten
//! times as many are made to be costly; `ORACLE_SEED` chooses others.
//!
//! Here pgweir knows no database: names are good if they are built in, and every relation is.

mod compare;
mod corpus;
#[path = "../../src/sql/function.rs"]
mod function;
mod generate;
mod hostile;
mod lexing;
mod memory;
mod mutate;
#[allow(dead_code, unused_imports)]
#[path = "../../src/sql/mod.rs"]
mod sql;
mod truth;
#[path = "../../src/sql/types.rs"]
mod types;

use std::path::Path;
use std::process::ExitCode;

use compare::Tally;
use generate::{Generator, Random};
use hostile::Hostile;
use lexing::Lexings;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Trees are walked and taken down by recursion; PostgreSQL's parser bounds their depth by its own stack.
const STACK: usize = 1 << 30;

/// Statements that are generated, unless told.
const COUNT: u64 = 100_000;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("oracle: say where PostgreSQL's sources are; scripts/oracle does");
        return ExitCode::from(2);
    };
    let run = move || run(Path::new(&directory));
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(run);
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(true))) => ExitCode::SUCCESS,
        Ok(Ok(Err(error))) => {
            eprintln!("oracle: {error}");
            ExitCode::from(2)
        }
        _ => ExitCode::FAILURE,
    }
}

/// Does some work with as much stack as a thread of the proxy's has.
fn on_a_workers_stack<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(work)?
        .join()
        .map_err(|_| std::io::Error::other("the classifier panics"))
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

fn run(directory: &Path) -> std::io::Result<bool> {
    let (count, seed) = (number("ORACLE_COUNT", COUNT), number("ORACLE_SEED", 1));
    println!("seed {seed}, {count} statements generated\n");
    let mut good = true;
    let mut lexings = Lexings::default();
    let mut hostile = Hostile::default();

    let texts = corpus::read(directory)?;
    let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
    if texts.len() < 10_000 {
        return Err(std::io::Error::other(
            "these are not PostgreSQL's regression tests",
        ));
    }
    let mut regression = Tally::new("PostgreSQL's regression tests");
    for text in &texts {
        regression.add(text);
        lexings.add(text);
        hostile.add(text);
    }
    println!("{regression}");
    good &= regression.is_good();

    let mut generated = Tally::new("Generated statements");
    let mut generator = Generator::new(seed);
    for _ in 0..count {
        let text = generator.statement();
        generated.add(text.as_bytes());
        lexings.add(text.as_bytes());
        hostile.add(text.as_bytes());
    }
    println!("{generated}");
    good &= generated.is_good();

    let mut cut = Tally::new("Statements cut and put together from these; for safety alone");
    let mut random = Random::new(seed);
    for _ in 0..count {
        let text = mutate::text(&mut random, &texts, &mut generator);
        cut.add(&text);
        lexings.add(&text);
        hostile.add(&text);
    }
    println!("{cut}");
    good &= cut.is_safe();

    for _ in 0..count {
        lexings.add(&mutate::lexical(&mut random));
    }
    println!("{lexings}");
    good &= lexings.is_good();

    let hostile = on_a_workers_stack(move || {
        hostile.table();
        hostile.pieces(&mut random, count * 10);
        hostile
    })?;
    println!("{hostile}");
    good &= hostile.is_good();

    println!(
        "{}",
        if good {
            "all is well"
        } else {
            "NOT GOOD: see above"
        }
    );
    Ok(good)
}
