//! What one warmed transaction takes of the proxy, in instructions: sessions, relay, pools, metrics and the runtime below
//! them, as they serve clients. valgrind counts them, so the figure hardly depends on the machine's load.
//!
//! `scripts/instructions` compares with `benches/instructions.toml`, and fails if a count is more than 3 % above it; with
//! `--record` it writes that file. `make check` runs it.
//!
//! A case runs in a process of its own: the whole proxy on the main thread, a client and the nodes, which only ever say the
//! same, on others. What is counted is the main thread, from the client's first counted request to its last answer: neither
//! the peers nor the kernel.

mod gate;
mod node;
mod rig;
#[path = "../transactions.rs"]
#[expect(
    dead_code,
    reason = "its sessions without a proxy are for other benches"
)]
mod transactions;

use std::hint::black_box;
use std::io::{ErrorKind, Write};
use std::process::{Command, ExitCode};
use std::thread;

use gate::{Record, Tools};
use rig::Rig;
use transactions::Transaction;

/// Transactions that are counted: enough that the timers of the proxy's housekeeping are lost among them.
const COUNTED: usize = 1000;

/// Standbys of the cases whose reads are split from writes.
const STANDBYS: usize = 2;

/// By protocol: what is run once before, and what is counted.
type Protocol = fn() -> (Option<Transaction>, Transaction);

const PROTOCOLS: [(&str, Protocol); 4] = [
    ("simple", || (None, Transaction::simple())),
    ("extended", || (None, Transaction::extended())),
    ("prepared", || {
        (Some(Transaction::prepare()), Transaction::prepared())
    }),
    // BEGIN, UPDATE, SELECT, COMMIT: on the primary, whatever else there is.
    ("block", || (None, Transaction::block())),
];

/// Where counts are recorded.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.toml");

const HEAD: &str = "\
# Instructions of one warmed transaction, by protocol; \"split\" is with two standbys. `make check` fails if one is more than
# 3 % above this. Written by: scripts/instructions --record
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["--run", case] => {
            run(case);
            return ExitCode::SUCCESS;
        }
        // cargo bench says --bench.
        [] | ["--bench"] => compare(),
        ["--record"] | ["--record", "--bench"] => record(),
        _ => Err("usage: scripts/instructions [--record]".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

fn cases() -> Vec<String> {
    let alone = PROTOCOLS.map(|(name, _)| name.to_owned());
    let split = PROTOCOLS.map(|(name, _)| format!("{name} split"));
    alone.into_iter().chain(split).collect()
}

/// What valgrind looks at.
fn run(case: &str) {
    let (protocol, standbys) = match case.strip_suffix(" split") {
        Some(protocol) => (protocol, STANDBYS),
        None => (case, 0),
    };
    let found = PROTOCOLS.iter().find(|(name, _)| *name == protocol);
    let (before, transaction) = found.expect("a case").1();
    let rig = Rig::warm(standbys, before, transaction);
    count_these(&rig);
}

/// valgrind counts what is done from its call to its return. Nothing else bears its name, closures included.
#[inline(never)]
fn count_these(rig: &Rig) {
    rig.run(COUNTED);
    // A call at the very end would be a jump, and not return here.
    black_box(());
}

/// Instructions of one transaction of a case.
fn count(case: &str) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=*count_these*"])
        .arg(program)
        .args(["--run", case]);
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse::<u64>().ok())
        .filter(|count| *count > 0 && output.status.success());
    match collected {
        Some(count) => Ok(count / COUNTED as u64),
        None => Err(format!("{case} could not be counted:\n{text}")),
    }
}

/// The same of every case, as many side by side as there are processors.
fn count_all() -> Result<Vec<(String, u64)>, String> {
    let lanes = thread::available_parallelism().map_or(1, usize::from);
    let mut counts = Vec::new();
    for cases in cases().chunks(lanes) {
        let results: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = cases
                .iter()
                .map(|case| scope.spawn(|| count(case)))
                .collect();
            running
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        for (case, result) in cases.iter().zip(results) {
            let count = result.map_err(|_| format!("{case}: a thread panicked"))??;
            counts.push((case.clone(), count));
        }
    }
    Ok(counts)
}

fn compare() -> Result<(), String> {
    let Some(tools) = tools()? else {
        say(
            "valgrind is missing: instructions are not counted. On Debian: apt-get install valgrind",
        );
        return Ok(());
    };
    let text = std::fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
    let record: Record = toml::from_str(&text).map_err(|error| format!("{FILE}: {error}"))?;
    let counts = count_all()?;
    if record.made_with != tools {
        counts
            .iter()
            .for_each(|(case, count)| show(case, *count, ""));
        say(&format!(
            "Not compared: {FILE} was made with\n  {}, and here is\n  {tools}",
            record.made_with
        ));
        return Ok(());
    }
    let (mut failed, mut better) = (false, false);
    for (case, mut count) in counts {
        if record.judge(&case, count).fails() {
            // A single run may be off, but not twice.
            count = count.min(self::count(&case)?);
        }
        let verdict = record.judge(&case, count);
        show(&case, count, &verdict.to_string());
        failed |= verdict.fails();
        better |= verdict.is_better();
    }
    if failed {
        return Err(format!(
            "More instructions than recorded, by over {} %. If that has to be, say why in the commit, with:\n  {RECORD}",
            gate::TOLERANCE
        ));
    }
    if better {
        say(&format!(
            "Fewer instructions than recorded. To keep it so:\n  {RECORD}"
        ));
    }
    Ok(())
}

const RECORD: &str = "scripts/instructions --record";

fn record() -> Result<(), String> {
    let made_with = tools()?.ok_or("valgrind is missing")?;
    let counts = count_all()?;
    counts
        .iter()
        .for_each(|(case, count)| show(case, *count, ""));
    let record = Record {
        made_with,
        instructions: counts.into_iter().collect(),
    };
    let text = toml::to_string(&record).map_err(|error| error.to_string())?;
    std::fs::write(FILE, format!("{HEAD}{text}")).map_err(|error| format!("{FILE}: {error}"))
}

fn show(case: &str, count: u64, beside: &str) {
    say(format!("{case:>16} {count:>8}  {beside}").trim_end());
}

/// What counts here; none without valgrind.
fn tools() -> Result<Option<Tools>, String> {
    let Some(valgrind) = version("valgrind")? else {
        return Ok(None);
    };
    let rustc = version("rustc")?.ok_or("rustc is missing")?;
    // "ldd (Debian GLIBC 2.36-9+deb12u13) 2.36". Other C libraries are told apart by their whole line.
    let libc = version("ldd")?.unwrap_or_default();
    let libc = libc
        .rsplit_once(") ")
        .map_or(&*libc, |(_, version)| version);
    Ok(Some(Tools {
        rustc,
        libc: libc.to_owned(),
        valgrind,
        arch: std::env::consts::ARCH.to_owned(),
    }))
}

/// The first line of what a program says of its version; none if it is missing.
fn version(program: &str) -> Result<Option<String>, String> {
    match Command::new(program).arg("--version").output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text.lines().next().map(str::to_owned))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

fn say(text: &str) {
    // Where it is closed there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{text}");
}
