//! pgweir's classifier beside PostgreSQL's own parser.
//!
//! `oracle DIRECTORY`, with PostgreSQL's sources below DIRECTORY; `scripts/oracle` fetches them. What PostgreSQL's parser
//! says to be more than a read must never be a read for pgweir, and 95 % of what is a plain read must be one; no statement
//! may take more than its share of time and memory. A table at the end has each figure beside what is wanted; ends with 1
//! if one is missed. `ORACLE_COUNT` (default 100,000) statements are generated, as many are cut from the others, and ten
//! times as many are made to be costly; `ORACLE_SEED` chooses others.
//!
//! Here pgweir knows no database: names are good if they are built in, and every relation is.

mod compare;
mod corpus;
mod figure;
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
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use compare::Tally;
use figure::Figure;
use generate::{Generator, Random};
use hostile::Hostile;
use lexing::Lexings;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Trees are walked and taken down by recursion; PostgreSQL's parser bounds their depth by its own stack.
const STACK: usize = 1 << 30;

/// Statements that are generated, unless told.
const COUNT: u64 = 100_000;

/// Threads that measure hostile statements.
const THREADS: u64 = 2;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("oracle: say where PostgreSQL's sources are; scripts/oracle does");
        return ExitCode::from(2);
    };
    let run = move || run(Path::new(&directory));
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(run);
    match thread.map(JoinHandle::join) {
        Ok(Ok(Ok(true))) => ExitCode::SUCCESS,
        Ok(Ok(Err(error))) => {
            eprintln!("oracle: {error}");
            ExitCode::from(2)
        }
        _ => ExitCode::FAILURE,
    }
}

/// Measures with as much stack as a thread of the proxy's has.
fn on_a_workers_stack(
    measure: impl FnOnce(&mut Hostile) + Send + 'static,
) -> std::io::Result<JoinHandle<Hostile>> {
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || {
            let mut hostile = Hostile::default();
            measure(&mut hostile);
            hostile
        })
}

fn join(thread: JoinHandle<Hostile>) -> std::io::Result<Hostile> {
    let panicked = |_| std::io::Error::other("the classifier panics");
    thread.join().map_err(panicked)
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
    let panics = panics_are_counted();
    let mut figures = Vec::new();
    let mut lexings = Lexings::default();

    let texts = corpus::read(directory)?;
    let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
    if texts.len() < 10_000 {
        return Err(std::io::Error::other(
            "these are not PostgreSQL's regression tests",
        ));
    }
    // First, because what it measures is the whole process's memory.
    begun("hostile statements");
    let table = on_a_workers_stack(Hostile::table)?;
    let mut hostile = join(table)?;
    // Meanwhile what follows goes on; processor time is that of each thread.
    let fuzzed = (0..THREADS)
        .map(|thread| {
            let mut random = Random::new(seed.wrapping_add(1 + thread));
            on_a_workers_stack(move |hostile| hostile.pieces(&mut random, count * 10 / THREADS))
        })
        .collect::<std::io::Result<Vec<_>>>()?;

    begun("PostgreSQL's regression tests");
    let mut regression = Tally::new("PostgreSQL's regression tests");
    for text in &texts {
        regression.add(text);
        lexings.add(text);
        hostile.add(text);
    }
    println!("{regression}");
    figures.push(regression.unsafe_ones());
    figures.push(regression.reads());

    begun("generated statements");
    let mut generated = Tally::new("Generated statements");
    let mut generator = Generator::new(seed);
    for _ in 0..count {
        let text = generator.statement();
        generated.add(text.as_bytes());
        lexings.add(text.as_bytes());
        hostile.add(text.as_bytes());
    }
    println!("{generated}");
    figures.push(generated.unsafe_ones());
    figures.push(generated.reads());

    begun("statements cut and put together");
    let mut cut = Tally::new("Statements cut and put together from these; for safety alone");
    let mut random = Random::new(seed);
    for _ in 0..count {
        let text = mutate::text(&mut random, &texts, &mut generator);
        cut.add(&text);
        lexings.add(&text);
        hostile.add(&text);
    }
    println!("{cut}");
    figures.push(cut.unsafe_ones());

    begun("lexing");
    for _ in 0..count {
        lexings.add(&mutate::lexical(&mut random));
    }
    println!("{lexings}");
    figures.push(lexings.disagreements());

    begun("the rest of the hostile statements");
    for thread in fuzzed {
        hostile.join(join(thread)?);
    }
    println!("{hostile}");
    figures.extend(hostile.figures());
    let panics = panics.load(Ordering::Relaxed);
    figures.push(Figure::new("panics", panics, "0", panics == 0));

    for figure in &figures {
        println!("{figure}");
    }
    Ok(figures.iter().all(Figure::is_good))
}

/// The classifier survives a panic in the parser, so they would pass unseen.
fn panics_are_counted() -> &'static AtomicU64 {
    static PANICS: AtomicU64 = AtomicU64::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(panic);
    }));
    &PANICS
}

/// For whoever waits.
fn begun(part: &str) {
    eprintln!("oracle: {part} …");
}
