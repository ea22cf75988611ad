//! One server of a cluster, and everything that can happen to it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, thread};

use super::guardian::Guarded;
use super::process::{self, Pid, Signal};
use super::site::{self, Site};
use super::wait::wait_for;
use super::wire::{Address, RawClient, Rows};
use super::{Error, lsn};

/// How a server is stopped. PostgreSQL manual, "Shutting Down the Server", server-shutdown.html.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Waits for the clients to leave.
    Smart,
    /// Ends the sessions, then shuts down in order.
    Fast,
    /// Ends everything at once; the next start recovers from the WAL.
    Immediate,
}

/// One server. All methods take `&self`, so that threads of a test can share it.
///
/// ```text
///              start              freeze
///   stopped ──────────► running ──────────► frozen
///      ▲                 │   ▲                │
///      └─────────────────┘   └────────────────┘
///        stop, kill9              thaw            (stop and kill9 also end a frozen one)
/// ```
#[derive(Debug)]
pub struct Node {
    name: String,
    dir: PathBuf,
    site: Arc<Site>,
    port: AtomicU16,
    /// Whether it has run, and its port may be known to others.
    has_run: AtomicBool,
    /// Which promotion of the cluster made this a primary; 0 for a standby.
    pub(super) promotion: AtomicU32,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    guarded: Guarded,
    postmaster: Pid,
    /// What [`Node::freeze`] stopped; empty when not frozen.
    frozen: Vec<Pid>,
}

impl Node {
    pub(super) fn new(site: &Arc<Site>, name: &str) -> Result<Self, Error> {
        Ok(Self {
            name: name.to_owned(),
            dir: site.make(name)?,
            site: Arc::clone(site),
            port: AtomicU16::new(0),
            has_run: AtomicBool::new(false),
            promotion: AtomicU32::new(0),
            running: Mutex::new(None),
        })
    }

    /// `primary`, `standby1`, `standby2`, …: the role it was made for, whatever it is now.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The TCP port on 127.0.0.1. It stays the same through every stop and start.
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// Where it listens on TCP.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()))
    }

    /// Where its Unix socket is. There the user `postgres` is trusted, whatever the `hba` lines say.
    pub fn socket(&self) -> Address {
        Address::Unix(self.site.dir.join(format!(".s.PGSQL.{}", self.port())))
    }

    /// A connection URL over TCP for the user `postgres`.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@{}/{database}", self.address())
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Everything the server has logged, from its first start.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn log(&self) -> Result<String, Error> {
        let path = self.log_path();
        let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The postmaster's process number, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.lock().as_ref().map(|running| running.postmaster.0)
    }

    /// Whether the server runs, frozen or not.
    ///
    /// # Errors
    /// [`Error::Process`].
    pub fn is_running(&self) -> Result<bool, Error> {
        match &mut *self.lock() {
            Some(running) => Ok(!running.guarded.has_ended()?),
            None => Ok(false),
        }
    }

    /// A session of the user `postgres` over TCP, subject to the `hba` lines.
    ///
    /// # Errors
    /// As for [`RawClient::connect`].
    pub fn connect(&self, database: &str) -> Result<RawClient, Error> {
        let parameters = [("user", SUPERUSER), ("database", database)];
        RawClient::connect(&Address::Tcp(self.address()), &parameters)
    }

    /// Runs statements in database `postgres`, as superuser, in a session of their own over the Unix
    /// socket, and returns their rows.
    ///
    /// # Errors
    /// [`Error::Server`] for the first error reported; others as for [`RawClient::connect`].
    pub fn sql(&self, sql: &str) -> Result<Rows, Error> {
        let parameters = [
            ("user", SUPERUSER),
            ("database", "postgres"),
            ("application_name", "testbed"),
        ];
        RawClient::connect(&self.socket(), &parameters)?.query(sql)
    }

    /// Like [`sql`](Self::sql), for statements without rows.
    ///
    /// # Errors
    /// As for [`sql`](Self::sql).
    pub fn execute(&self, sql: &str) -> Result<(), Error> {
        self.sql(sql).map(drop)
    }

    /// Like [`sql`](Self::sql), for a statement with one value; NULL becomes the empty text.
    ///
    /// # Errors
    /// [`Error::Unexpected`] when there is no row; others as for [`sql`](Self::sql).
    pub fn value(&self, sql: &str) -> Result<String, Error> {
        let first = self.sql(sql)?.into_iter().flatten().next();
        let none = || Error::Unexpected {
            wanted: "a row".to_owned(),
            received: "none".to_owned(),
        };
        first.ok_or_else(none).map(Option::unwrap_or_default)
    }

    /// Waits until `condition` holds of this node; `what` names it in the error.
    ///
    /// # Errors
    /// As for [`wait_for`].
    pub fn wait_for(
        &self,
        condition: impl Fn(&Self) -> Result<bool, Error>,
        limit: Duration,
        what: &str,
    ) -> Result<(), Error> {
        wait_for(
            || condition(self),
            limit,
            &format!("{what} ({})", self.name),
        )
    }

    /// Starts the server and waits until it accepts connections. Does nothing if it runs.
    ///
    /// # Errors
    /// [`Error::Start`] with the end of its log; [`Error::Timeout`].
    pub fn start(&self) -> Result<(), Error> {
        let mut running = self.lock();
        if let Some(current) = &mut *running
            && !current.guarded.has_ended()?
        {
            return Ok(());
        }
        *running = None;
        *running = Some(self.launch_past_conflicts()?);
        self.has_run.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Stops the server and waits for its end. Does nothing if it does not run; thaws it if it is frozen.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it does not end, as with [`Mode::Smart`] and a client that stays.
    pub fn stop(&self, mode: Mode) -> Result<(), Error> {
        let mut guard = self.lock();
        let Some(running) = &mut *guard else {
            return Ok(());
        };
        running.thaw()?;
        if !running.guarded.has_ended()? {
            let signal = match mode {
                Mode::Smart => Signal::Term,
                Mode::Fast => Signal::Int,
                Mode::Immediate => Signal::Quit,
            };
            process::signal(signal, &[running.postmaster])?;
            running
                .guarded
                .wait_ended(STOP_LIMIT, &format!("the end of {}", self.name))?;
        }
        *guard = None;
        Ok(())
    }

    /// Stops and starts the server.
    ///
    /// # Errors
    /// As for [`stop`](Self::stop) and [`start`](Self::start).
    pub fn restart(&self, mode: Mode) -> Result<(), Error> {
        self.stop(mode)?;
        self.start()
    }

    /// Kills the postmaster and every other process of the server, as a crash of the machine would, and
    /// waits until they are gone. Does nothing if it does not run.
    ///
    /// # Errors
    /// [`Error::Process`], [`Error::Timeout`].
    pub fn kill9(&self) -> Result<(), Error> {
        let mut guard = self.lock();
        let Some(running) = &mut *guard else {
            return Ok(());
        };
        if !running.guarded.has_ended()? {
            // Stopped first, so that it forks no more while we read the list.
            let everyone = running.freeze()?;
            process::signal(Signal::Kill, &everyone)?;
            running
                .guarded
                .wait_ended(STOP_LIMIT, &format!("the death of {}", self.name))?;
            let gone = || Ok(process::living(&everyone)?.is_empty());
            wait_for(
                gone,
                STOP_LIMIT,
                &format!("the death of the children of {}", self.name),
            )?;
            self.free_shared_memory();
        }
        *guard = None;
        Ok(())
    }

    /// Makes a standby the primary, and waits until it is.
    ///
    /// # Errors
    /// [`Error::Program`] with what `pg_ctl promote` said.
    pub fn promote(&self) -> Result<(), Error> {
        let data = self.data_text();
        self.site.run(
            "pg_ctl",
            &self.dir,
            &["promote", "-w", "-t", "60", "-D", &data],
        )?;
        self.note_promotion();
        Ok(())
    }

    /// Stops replay on a standby; WAL is still received.
    ///
    /// # Errors
    /// [`Error::Server`] on a primary.
    pub fn pause_replay(&self) -> Result<(), Error> {
        self.execute("SELECT pg_wal_replay_pause()")?;
        let question = match self.site.install.major {
            ..14 => "SELECT pg_is_wal_replay_paused()",
            // The older function is true from the request on; this one tells when it is carried out.
            _ => "SELECT pg_get_wal_replay_pause_state() = 'paused'",
        };
        self.wait_for(
            |node| Ok(node.value(question)? == "t"),
            STOP_LIMIT,
            "replay to pause",
        )
    }

    /// Lets replay go on.
    ///
    /// # Errors
    /// [`Error::Server`] on a primary.
    pub fn resume_replay(&self) -> Result<(), Error> {
        match self.execute("SELECT pg_wal_replay_resume()") {
            // Replay goes on, and what it takes away is what this statement's own snapshot could see.
            Err(error) if error.sqlstate() == Some("40001") => Ok(()),
            result => result,
        }
    }

    /// Has a standby replay each commit `delay` after the primary made it; zero for at once. Whole
    /// milliseconds. It outlasts restarts.
    ///
    /// # Errors
    /// As for [`sql`](Self::sql).
    pub fn set_apply_delay(&self, delay: Duration) -> Result<(), Error> {
        self.set(
            "recovery_min_apply_delay",
            &format!("{}ms", delay.as_millis()),
        )
    }

    /// Changes a setting by ALTER SYSTEM and a reload, and waits until new sessions have it. Settings that
    /// need a restart are written, and wait for one.
    ///
    /// # Errors
    /// As for [`sql`](Self::sql).
    pub fn set(&self, name: &str, value: &str) -> Result<(), Error> {
        // Two sessions: ALTER SYSTEM cannot share a transaction, and so not a Query.
        self.execute(&format!("ALTER SYSTEM SET {name} = {}", quote(value)))?;
        self.reload()
    }

    /// Reloads the configuration, and waits until new sessions have it.
    ///
    /// # Errors
    /// As for [`sql`](Self::sql).
    pub fn reload(&self) -> Result<(), Error> {
        let before = self.value(LOAD_TIME)?;
        self.execute("SELECT pg_reload_conf()")?;
        self.wait_for(
            |node| Ok(node.value(LOAD_TIME)? != before),
            STOP_LIMIT,
            "a reload",
        )
    }

    /// Freezes every process of the server: connections stay open and nothing is answered, as from a
    /// machine that hangs. New connections are accepted by the kernel and get no answer either.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn freeze(&self) -> Result<(), Error> {
        match &mut *self.lock() {
            Some(running) => running.freeze().map(drop),
            None => Err(Error::NotRunning(self.name.clone())),
        }
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn thaw(&self) -> Result<(), Error> {
        match &mut *self.lock() {
            Some(running) => running.thaw(),
            None => Err(Error::NotRunning(self.name.clone())),
        }
    }

    /// Makes this a standby of `upstream`: a running standby is re-pointed without a restart, a stopped
    /// server starts as a standby. It must not have WAL that `upstream` lacks; see [`rewind`](Self::rewind).
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a running primary; others as for [`sql`](Self::sql) on either node.
    pub fn follow(&self, upstream: &Self) -> Result<(), Error> {
        let runs = self.is_running()?;
        if runs && self.value("SELECT pg_is_in_recovery()")? == "f" {
            let text = format!(
                "{} is a running primary; stop it before it follows another",
                self.name
            );
            return Err(Error::BadRequest(text));
        }
        self.point_at(upstream)?;
        match runs {
            true => self.reload(),
            false => self.start(),
        }
    }

    /// Brings a former primary back as a standby of `upstream`: stops it, takes back with `pg_rewind` what
    /// `upstream` has not got, and starts it.
    ///
    /// # Errors
    /// [`Error::Program`] with what `pg_rewind` said; others as for [`follow`](Self::follow).
    pub fn rewind(&self, upstream: &Self) -> Result<(), Error> {
        self.stop(Mode::Fast)?;
        // pg_rewind reads the timeline from the control file, where a promotion shows only after the
        // next checkpoint.
        upstream.execute("CHECKPOINT")?;
        let source = format!("--source-server={} dbname=postgres", upstream.conninfo());
        let data = self.data_text();
        self.site
            .run("pg_rewind", &self.dir, &["-D", &data, "--no-sync", &source])?;
        self.follow(upstream)
    }

    /// Writes the settings of a standby of `upstream`, and has `upstream` keep the WAL it needs.
    pub(super) fn point_at(&self, upstream: &Self) -> Result<(), Error> {
        upstream.execute(&format!(
            "SELECT pg_create_physical_replication_slot({0}, true) \
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {0})",
            quote(&self.name)
        ))?;
        let conninfo = format!("{} application_name={}", upstream.conninfo(), self.name);
        let (conninfo, slot) = (quote(&conninfo), quote(&self.name));
        let settings = format!("primary_conninfo = {conninfo}\nprimary_slot_name = {slot}\n");
        self.site
            .write(&self.data_dir().join(STANDBY_SETTINGS), &settings)?;
        self.promotion.store(0, Ordering::Relaxed);
        self.site.write(&self.data_dir().join("standby.signal"), "")
    }

    /// How standbys and tools reach this node: the Unix socket, which no `hba` line of a test can close.
    pub(super) fn conninfo(&self) -> String {
        format!(
            "host={} port={} user={SUPERUSER}",
            self.site.dir_text(),
            self.port()
        )
    }

    pub(super) fn data_text(&self) -> String {
        format!("{}/{}/data", self.site.dir_text(), self.name)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn note_promotion(&self) {
        let number = self.site.promotions.fetch_add(1, Ordering::Relaxed) + 1;
        self.promotion.store(number, Ordering::Relaxed);
    }

    /// Whether everything up to this LSN is replayed here.
    pub(super) fn has_replayed(&self, target: u64) -> Result<bool, Error> {
        let replayed = self.value("SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')")?;
        Ok(lsn::parse(&replayed)? >= target)
    }

    /// Ends the server at once and gives up whatever is left of it; never fails, for the sake of `Drop`.
    pub(super) fn end(&self) {
        if let Some(running) = self.lock().take() {
            running.guarded.end();
        }
    }

    /// Chooses a port that is free now; the caller keeps the listener until all nodes have theirs.
    pub(super) fn choose_port(&self) -> Result<TcpListener, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        self.port
            .store(listener.local_addr()?.port(), Ordering::Relaxed);
        Ok(listener)
    }

    fn launch_past_conflicts(&self) -> Result<Running, Error> {
        for _ in 1..START_ATTEMPTS {
            match self.launch() {
                Err(Error::Start { log, .. }) if log.contains(PORT_TAKEN) => {
                    self.avoid_conflict()?
                }
                outcome => return outcome,
            }
        }
        self.launch()
    }

    /// The port was free a moment ago, and somebody's outgoing connection may have it now. A node that
    /// has never run takes another, as nobody has been told of this one; any other waits.
    #[expect(
        clippy::disallowed_methods,
        reason = "the port's other user rings no bell"
    )]
    fn avoid_conflict(&self) -> Result<(), Error> {
        match self.has_run.load(Ordering::Relaxed) {
            true => thread::sleep(CONFLICT_PAUSE),
            false => drop(self.choose_port()?),
        }
        Ok(())
    }

    fn launch(&self) -> Result<Running, Error> {
        let mut guarded = self.site.guard(&self.command_line(), &self.log_path())?;
        let ready = || match guarded.has_ended()? {
            true => Err(Error::Start {
                node: self.name.clone(),
                log: site::tail(&self.log_path()),
            }),
            // The socket is in a directory of ours alone: nobody else's server can answer there.
            false => Ok(self.sql("SELECT 1").is_ok()),
        };
        wait_for(
            ready,
            START_LIMIT,
            &format!("{} to accept connections", self.name),
        )?;
        let postmaster = self.postmaster()?;
        Ok(Running {
            guarded,
            postmaster,
            frozen: Vec::new(),
        })
    }

    /// What differs between the nodes of a cluster is here and not in the configuration file, which
    /// pg_basebackup and pg_rewind copy from one to another.
    fn command_line(&self) -> Vec<String> {
        let sockets = format!("unix_socket_directories={}", self.site.dir_text());
        let (port, name) = (
            format!("port={}", self.port()),
            format!("cluster_name={}", self.name),
        );
        let data = self.data_text();
        ["-D", &data, "-c", &port, "-c", &sockets, "-c", &name]
            .map(str::to_owned)
            .into()
    }

    /// The process number, from the first line of the file that a running server keeps.
    fn postmaster(&self) -> Result<Pid, Error> {
        let first = self
            .postmaster_file()?
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok());
        first.map(Pid).ok_or(Error::Malformed(
            "a postmaster.pid without a process number",
        ))
    }

    fn postmaster_file(&self) -> Result<String, Error> {
        let path = self.data_dir().join("postmaster.pid");
        fs::read_to_string(&path).map_err(Error::file("read", &path))
    }

    /// A killed server leaves a small System V segment, named in line 7 of its file (key and number).
    /// Its next start would remove it, but there may be none; nothing depends on our success.
    fn free_shared_memory(&self) {
        let Ok(file) = self.postmaster_file() else {
            return;
        };
        if let Some(number) = file
            .lines()
            .nth(6)
            .and_then(|line| line.split_whitespace().nth(1))
        {
            let _ = Command::new("ipcrm")
                .args(["-m", number])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        // A test that panicked inside must still be able to clean up.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// Stops every process of the server, and returns them all.
    fn freeze(&mut self) -> Result<Vec<Pid>, Error> {
        if !self.frozen.is_empty() {
            return Ok(self.frozen.clone());
        }
        process::signal(Signal::Stop, &[self.postmaster])?;
        self.frozen.push(self.postmaster);
        // The postmaster may fork once more between our signal and its effect.
        for _ in 0..FREEZE_ROUNDS {
            let mut children = process::children(self.postmaster)?;
            children.retain(|child| !self.frozen.contains(child));
            process::signal(Signal::Stop, &children)?;
            self.frozen.extend(children);
        }
        Ok(self.frozen.clone())
    }

    fn thaw(&mut self) -> Result<(), Error> {
        // Children first: a postmaster that goes on may start at once to wait for one of them.
        self.frozen.reverse();
        process::signal(Signal::Cont, &std::mem::take(&mut self.frozen))
    }
}

/// A text as an SQL literal, and as a value in a configuration file if it has no backslash.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Included at the end of the configuration file of every node.
pub(super) const STANDBY_SETTINGS: &str = "standby.conf";
pub(super) const SUPERUSER: &str = "postgres";

const LOAD_TIME: &str = "SELECT pg_conf_load_time()";
const PORT_TAKEN: &str = "could not create any TCP/IP sockets";
const START_ATTEMPTS: usize = 10;
const CONFLICT_PAUSE: Duration = Duration::from_millis(500);
const FREEZE_ROUNDS: usize = 2;

/// A start replays what the last stop left; the bound is for a machine with other things to do.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
