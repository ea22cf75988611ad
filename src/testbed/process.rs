//! Signals to processes and questions about them, by way of `sh`, `/proc` and `ps`: the standard
//! library has neither, and they spare the room a dependency and `unsafe`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Error;

/// The number of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pid(pub(super) u32);

/// The signals the room sends, as `kill -s` spells them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    Term,
    Int,
    Quit,
    Kill,
    Stop,
    Cont,
}

/// Sends a signal to all of these processes. Those that have ended meanwhile are passed over.
pub(super) fn signal(signal: Signal, targets: &[Pid]) -> Result<(), Error> {
    let name = format!("{signal:?}").to_uppercase();
    // The shell's own `kill`: the program of that name is missing on slim images.
    Command::new("sh")
        .args(["-c", r#"for pid; do kill -s "$0" "$pid"; done"#, &name])
        .args(targets.iter().map(|pid| pid.0.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map(drop)
        .map_err(Error::process(format!("send {name}")))
}

/// The living children of a process.
pub(super) fn children(parent: Pid) -> Result<Vec<Pid>, Error> {
    let all = table()?;
    Ok(all
        .into_iter()
        .filter(|p| p.parent == parent && p.lives)
        .map(|p| p.pid)
        .collect())
}

/// Those of these processes that live. A zombie does not: it holds nothing any more.
pub(super) fn living(pids: &[Pid]) -> Result<Vec<Pid>, Error> {
    let all = table()?;
    Ok(all
        .into_iter()
        .filter(|p| p.lives && pids.contains(&p.pid))
        .map(|p| p.pid)
        .collect())
}

#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: Pid,
    parent: Pid,
    lives: bool,
}

fn table() -> Result<Vec<Process>, Error> {
    match Path::new("/proc/self/stat").exists() {
        true => table_of_proc(),
        false => table_of_ps(),
    }
}

fn table_of_proc() -> Result<Vec<Process>, Error> {
    let proc = Path::new("/proc");
    let entries = fs::read_dir(proc).map_err(Error::file("list", proc))?;
    // A process that ends while we read simply has no `stat` any more.
    let stats = entries.filter_map(|entry| fs::read(entry.ok()?.path().join("stat")).ok());
    Ok(stats
        .filter_map(|stat| from_stat(&String::from_utf8_lossy(&stat)))
        .collect())
}

/// Reads `pid (name) state parent …` of `/proc/PID/stat`; the name may hold spaces and parentheses.
fn from_stat(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    let mut after_name = rest.rsplit_once(')')?.1.split_whitespace();
    let state = after_name.next()?;
    process(pid, after_name.next()?, state)
}

fn table_of_ps() -> Result<Vec<Process>, Error> {
    let output = Command::new("ps")
        .args(["-A", "-o", "pid=,ppid=,stat="])
        .stdin(Stdio::null())
        .output()
        .map_err(Error::process("run ps"))?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(from_ps)
        .collect())
}

fn from_ps(line: &str) -> Option<Process> {
    let mut words = line.split_whitespace();
    process(words.next()?, words.next()?, words.next()?)
}

fn process(pid: &str, parent: &str, state: &str) -> Option<Process> {
    let number = |text: &str| text.parse().ok().map(Pid);
    let lives = !state.starts_with(['Z', 'X']);
    Some(Process {
        pid: number(pid)?,
        parent: number(parent)?,
        lives,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: Option<Process>, expected: Option<(u32, u32, bool)>) {
        let expected = expected.map(|(pid, parent, lives)| Process {
            pid: Pid(pid),
            parent: Pid(parent),
            lives,
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        check(from_stat("12 (postgres) S 3 12 12 0"), Some((12, 3, true)));
        check(from_stat("12 (a) b (c) Z 3 12"), Some((12, 3, false)));
        check(from_stat("12 (postgres"), None);
        check(from_ps("  12     3 Ss+"), Some((12, 3, true)));
        check(from_ps("12 3 Z"), Some((12, 3, false)));
        check(from_ps(""), None);
    }

    #[test]
    fn a_child_is_seen_until_it_ends() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid(child.id());
        assert!(children(Pid(std::process::id())).unwrap().contains(&pid));
        signal(Signal::Kill, &[pid]).unwrap();
        child.wait().unwrap();
        assert_eq!(living(&[pid]).unwrap(), []);
    }

    #[test]
    fn both_tables_agree_on_ourselves() {
        let us = Pid(std::process::id());
        let of = |table: Vec<Process>| table.into_iter().find(|p| p.pid == us);
        if let (Ok(proc), Ok(ps)) = (table_of_proc(), table_of_ps()) {
            assert_eq!(of(proc), of(ps));
        }
    }
}
