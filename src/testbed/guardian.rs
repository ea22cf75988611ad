//! Two small shell scripts that outlive us and leave nothing behind, however we end.
//!
//! ```text
//!   this process ──── stdin pipe ────► node guardian (sh), one a server
//!        │                                  └─ postmaster ─ its children
//!        │
//!        └── write end ──► lifeline pipe ──► janitor (sh), one a cluster
//!                              ▲
//!                              └── write ends: node guardians, every server process
//! ```
//!
//! - The **node guardian** is the postmaster's parent. When its standard input ends, because we closed it
//!   or because the kernel did at our death, it has the server shut down immediately, and kills it if
//!   that takes too long. It ends when the postmaster ends, with the same code.
//! - The **janitor** waits for the end of the lifeline pipe. Every process of the cluster holds a write
//!   end as its standard output, so the end comes exactly when we and all of them are gone. Only then
//!   does it remove the directory: no server can write a file behind its back.
//!
//! No process number is looked up and none can be mistaken. Both run in process groups of their own: the
//! signals of a terminal's Ctrl-C, and those of a test runner that kills the test's group, miss them.
//! They hold neither our standard output nor our error output, which a runner may wait for.

use std::io::{self, PipeWriter};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use super::wait::wait_for;
use super::{Error, process};
use process::{Pid, Signal};

/// Removes the cluster's directory when the lifeline ends.
#[derive(Debug)]
pub(super) struct Janitor {
    child: Child,
}

impl Janitor {
    /// Starts the janitor of `dir`; the lifeline goes to everything that lives in there.
    pub(super) fn start(dir: &Path) -> Result<(Self, PipeWriter), Error> {
        let (reader, writer) = io::pipe().map_err(Error::process("make a pipe"))?;
        let child = Command::new("sh")
            .args(["-c", JANITOR])
            .arg(dir)
            .current_dir("/")
            .process_group(0)
            .stdin(reader)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::process("start the janitor"))?;
        Ok((Self { child }, writer))
    }

    /// Waits until the directory is removed; the caller has let go of the lifeline. A process that some
    /// query started on the server's machine can hold on to it, so the wait is bounded and the janitor
    /// then told to go without it.
    pub(super) fn finish(mut self) {
        let ended = || Ok(matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)));
        if wait_for(ended, JANITOR_LIMIT, "the janitor").is_err() {
            // Already gone is as good as killed.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// One running server under its guardian.
#[derive(Debug)]
pub(super) struct Guarded {
    guardian: Child,
    /// Held open for as long as the server may live.
    stdin: Option<ChildStdin>,
}

impl Guarded {
    /// Makes `sh` the guardian of a server: `sh` is the shell, prepared by the caller with user,
    /// directory and outputs; the rest is the server's command line.
    pub(super) fn start(mut sh: Command, server: &Path, args: &[String]) -> Result<Self, Error> {
        let mut guardian = sh
            .args(["-c", NODE_GUARDIAN, "guardian"])
            .arg(server)
            .args(args)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(Error::process("start a server"))?;
        let stdin = guardian.stdin.take();
        Ok(Self { guardian, stdin })
    }

    /// Whether the postmaster has ended and been waited for.
    pub(super) fn has_ended(&mut self) -> Result<bool, Error> {
        let status = self
            .guardian
            .try_wait()
            .map_err(Error::process("wait for a server"))?;
        Ok(status.is_some())
    }

    /// Waits for the postmaster's end.
    pub(super) fn wait_ended(&mut self, limit: Duration, what: &str) -> Result<(), Error> {
        wait_for(|| self.has_ended(), limit, what)
    }

    /// Ends the server at once and waits for it; never fails, for the sake of `Drop`.
    pub(super) fn end(mut self) {
        let pid = Pid(self.guardian.id());
        drop(self.stdin.take());
        if self.wait_ended(END_LIMIT, "a server's end").is_err() {
            // The guardian kills the postmaster well before; so it is the guardian that is stuck.
            let _ = process::signal(Signal::Kill, &[pid]);
            let _ = self.guardian.wait();
        }
    }
}

/// `$0` is the directory. `cat` ends when the last write end of the lifeline is closed.
const JANITOR: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
rm -rf -- "$0"
"#;

/// `$@` is the server's command line.
///
/// - The server starts before the signals are ignored: it would inherit that.
/// - An asynchronous list gets /dev/null for its standard input, hence descriptor 3.
/// - SIGCONT goes to a frozen server and its frozen children, which would otherwise never see SIGQUIT.
///   Where there is no such file, the postmaster kills children that do not react within five seconds.
const NODE_GUARDIAN: &str = r#"
exec 3<&0
"$@" 3<&- &
server=$!
trap '' HUP INT TERM
{
    while read -r _ <&3; do :; done
    kill -QUIT "$server"
    kill -CONT "$server" $(cat "/proc/$server/task/$server/children" 2>/dev/null)
    tries=0
    while kill -0 "$server" 2>/dev/null && [ "$tries" -lt 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -KILL "$server"
} 2>/dev/null &
watch=$!
wait "$server"
code=$?
kill -KILL "$watch" 2>/dev/null
exit "$code"
"#;

/// Above the ten seconds that the node guardian gives a server.
const END_LIMIT: Duration = Duration::from_secs(15);
const JANITOR_LIMIT: Duration = Duration::from_secs(10);
