//! What the nodes of a cluster share: a directory, the programs, the account, the lifeline.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, PipeWriter};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Error;
use super::account::Account;
use super::guardian::{Guarded, Janitor};
use super::install::Install;
use super::wait::wait_for;

/// The ground a cluster stands on. Dropping it removes the directory.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) dir: PathBuf,
    pub(super) install: Install,
    account: Option<Account>,
    /// `Some` until dropped, as is the janitor.
    lifeline: Option<PipeWriter>,
    janitor: Option<Janitor>,
    /// How many promotions there were; the node promoted last is the primary.
    pub(super) promotions: AtomicU32,
}

impl Site {
    pub(super) fn open() -> Result<Self, Error> {
        let install = Install::find()?;
        let dir = make_directory()?;
        let (janitor, lifeline) = Janitor::start(&dir).inspect_err(|_| remove(&dir))?;
        let site = Self {
            dir,
            install,
            account: None,
            lifeline: Some(lifeline),
            janitor: Some(janitor),
            promotions: AtomicU32::new(0),
        };
        site.settle()
    }

    /// Finds the account, and gives it the directory. From here on `Drop` cleans up.
    fn settle(mut self) -> Result<Self, Error> {
        // Whose a file is that we just made tells who we are, on every Unix.
        let metadata = fs::metadata(&self.dir).map_err(Error::file("inspect", &self.dir))?;
        self.account = Account::for_user(metadata.uid())?;
        self.give(&self.dir)?;
        Ok(self)
    }

    /// Makes a directory inside ours, for the servers' account.
    pub(super) fn make(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.dir.join(name);
        fs::create_dir(&path).map_err(Error::file("make", &path))?;
        self.give(&path)?;
        Ok(path)
    }

    /// Writes a file that the servers read.
    pub(super) fn write(&self, path: &Path, text: &str) -> Result<(), Error> {
        fs::write(path, text).map_err(Error::file("write", path))?;
        self.give(path)
    }

    fn give(&self, path: &Path) -> Result<(), Error> {
        self.account.map_or(Ok(()), |account| account.give(path))
    }

    /// Runs one of PostgreSQL's programs to its end; what it says goes to `NAME.log` in `dir`.
    pub(super) fn run(&self, program: &str, dir: &Path, arguments: &[&str]) -> Result<(), Error> {
        let log = dir.join(format!("{program}.log"));
        let mut child = self
            .command(&self.program(program), &log)?
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .map_err(Error::process(format!("run {program}")))?;
        let mut status: Option<ExitStatus> = None;
        let ended = || {
            status = child
                .try_wait()
                .map_err(Error::process(format!("wait for {program}")))?;
            Ok(status.is_some())
        };
        let waited = wait_for(ended, PROGRAM_LIMIT, program);
        if waited.is_err() {
            // The error reported is that it took too long, whatever becomes of the rest of it.
            let _ = child.kill();
            let _ = child.wait();
        }
        waited?;
        match status {
            Some(status) if !status.success() => Err(Error::Program {
                program: program.to_owned(),
                status,
                output: tail(&log),
            }),
            _ => Ok(()),
        }
    }

    /// Starts a server under a guardian; its log is appended to.
    pub(super) fn guard(&self, arguments: &[String], log: &Path) -> Result<Guarded, Error> {
        let sh = self.command(Path::new("sh"), log)?;
        Guarded::start(sh, &self.program("postgres"), arguments)
    }

    /// The directory as settings and connection strings of the servers spell it.
    pub(super) fn dir_text(&self) -> &str {
        self.dir
            .to_str()
            .expect("check_directory refuses what is not text")
    }

    fn program(&self, name: &str) -> PathBuf {
        self.install.bin.join(name)
    }

    /// A command that runs as the servers' account, out of reach of the terminal, and holds the lifeline.
    fn command(&self, program: &Path, log: &Path) -> Result<Command, Error> {
        let lifeline = self.lifeline.as_ref().expect("it is taken in drop only");
        let lifeline = lifeline
            .try_clone()
            .map_err(Error::process("copy a pipe"))?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            // PGHOST, PGPORT, PGDATA, PGOPTIONS, …: meant for somebody else's server.
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(&self.dir)
            .env("HOME", &self.dir)
            .env("LC_ALL", "C")
            .process_group(0)
            .stdout(lifeline)
            .stderr(append(log)?);
        if let Some(account) = self.account {
            account.apply(&mut command);
        }
        Ok(command)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.lifeline = None;
        if let Some(janitor) = self.janitor.take() {
            janitor.finish();
        }
        remove(&self.dir);
    }
}

/// The last lines of a log, or why there are none.
pub(super) fn tail(log: &Path) -> String {
    let text = match fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("(no log: {error})"),
    };
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn append(log: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(Error::file("open", log))
}

/// Makes a directory of ours alone. One that exists is never taken over: somebody may have put it there
/// for us to write into.
fn make_directory() -> Result<PathBuf, Error> {
    let parent = std::env::temp_dir();
    let parent = parent
        .canonicalize()
        .map_err(Error::file("find", &parent))?;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("pgweir-testbed-{}-{number}", std::process::id()));
        check_directory(&dir)?;
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < MAX_NUMBER => {}
            Err(error) => return Err(Error::file("make", &dir)(error)),
        }
    }
}

/// The servers' sockets are in the directory: its path is in their settings, where some characters mean
/// something, and the kernel bounds its length.
fn check_directory(dir: &Path) -> Result<(), Error> {
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    let longest = dir.as_os_str().len() + "/.s.PGSQL.65535".len();
    match dir.to_str().is_some_and(|text| text.chars().all(plain)) && longest <= MAX_SOCKET_PATH {
        true => Ok(()),
        false => Err(Error::BadRequest(format!(
            "{} cannot hold the servers' sockets: set TMPDIR to a directory whose path is short (a \
             socket's may have {MAX_SOCKET_PATH} bytes) and of letters, digits and . _ - + alone",
            dir.display()
        ))),
    }
}

/// Removes the directory if it is still there; there is nobody to tell if that fails.
fn remove(dir: &Path) {
    let _ = fs::remove_dir_all(dir);
}

/// Numbers the clusters of this process.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// So many directories of earlier processes with our number would be a fault of their own.
const MAX_NUMBER: u32 = 10_000;

/// 108 bytes with the final zero on Linux, 104 on macOS and the BSDs.
const MAX_SOCKET_PATH: usize = 103;

/// initdb and pg_basebackup take a second or two; a busy machine may need ten times that.
const PROGRAM_LIMIT: Duration = Duration::from_secs(120);
const TAIL_LINES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_hold_sockets_is_refused_with_advice() {
        for (dir, will_do) in [
            ("/tmp/pgweir-testbed-4194304-10000".to_owned(), true),
            (format!("/tmp/{}", "x".repeat(83)), true),
            (format!("/tmp/{}", "x".repeat(84)), false),
            ("/tmp/with space".to_owned(), false),
            ("/tmp/it's".to_owned(), false),
        ] {
            let checked = check_directory(Path::new(&dir));
            assert_eq!(checked.is_ok(), will_do, "{dir}");
            let advice =
                checked.map_or_else(|error| error.to_string(), |()| "set TMPDIR".to_owned());
            assert!(advice.contains("set TMPDIR"), "{advice}");
        }
    }

    #[test]
    fn a_log_is_shown_from_its_end() {
        let log = std::env::temp_dir().join(format!("pgweir-tail-{}", std::process::id()));
        fs::write(&log, (1..=30).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
        let shown = tail(&log);
        fs::remove_file(&log).unwrap();
        assert!(
            shown.starts_with("11\n") && shown.ends_with("\n30"),
            "{shown}"
        );
        assert!(tail(&log).starts_with("(no log"), "{}", tail(&log));
    }
}
