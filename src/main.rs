//! The program: arguments, logging, the runtime, exit codes.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use pgweir::config::{Config, Faults, LogFormat, LogLevel, Sources};
use pgweir::demo;
use pgweir::proxy::Proxy;
use pgweir::sql::catalog::TABLES;
use pgweir::sql::{Classifier, Explanation, Lexing};

/// A proxy between applications and a PostgreSQL cluster: pools server connections, sends writes to the
/// primary, spreads reads over the standbys by measured lag, and lets every session read its own writes.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration; the same as `pgweir run FILE`.
    #[arg(required = true)]
    file: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy in the foreground. Logs go to stderr; SIGTERM and SIGINT finish transactions and stop it, SIGHUP reads
    /// the configuration again.
    Run {
        /// The configuration.
        #[arg(default_value = "proxy.toml")]
        file: PathBuf,
    },
    /// Report every fault of the configuration, with line, column and key.
    Check {
        /// The configuration.
        #[arg(default_value = "proxy.toml")]
        file: PathBuf,
    },
    /// Say where each statement would go, and why: the place, then in brackets its class, its reason, and what decided.
    Explain(Explain),
    /// Start a throw-away primary with two standbys and the proxy before them, with a little traffic.
    ///
    /// PostgreSQL is taken from $PGWEIR_PG_BIN, from PATH, or from the usual places. Everything is removed again at
    /// the end, at Ctrl-C, and if the program is killed.
    Demo {
        /// Stop by itself after this time, as in 20s or 2min.
        #[arg(long = "for", value_name = "TIME", value_parser = pgweir::config::parse_duration)]
        time: Option<Duration>,
    },
}

#[derive(Args)]
struct Explain {
    /// Read statements from this file, one text a line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The statements. Several in one text are judged as one, as the server runs them. `-` reads standard input, one text a
    /// line.
    #[arg(required_unless_present = "file", value_name = "SQL")]
    sql: Vec<String>,
}

/// Exit codes: 0 done, 1 run-time failure, 2 bad arguments or configuration (which is also clap's).
const FAILED: u8 = 1;
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match (cli.command, cli.file) {
        (Some(Command::Run { file }), _) => run(&file),
        (None, Some(file)) if !file.exists() => Err(Failure::Input(format!(
            "{}: neither a command nor a file; `pgweir --help` shows the commands",
            file.display()
        ))),
        (None, Some(file)) => run(&file),
        (Some(Command::Check { file }), _) => check(&file),
        (Some(Command::Explain(explain)), _) => self::explain(&explain),
        (Some(Command::Demo { time }), _) => run_demo(time),
        (None, None) => Err(Failure::Input("no configuration given".to_owned())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Input(text)) => report(&text, BAD_INPUT),
        Err(Failure::Run(text)) => report(&text, FAILED),
    }
}

enum Failure {
    Input(String),
    Run(String),
}

impl Failure {
    fn into_text(self) -> String {
        match self {
            Failure::Input(text) | Failure::Run(text) => text,
        }
    }
}

fn report(text: &str, code: u8) -> ExitCode {
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
    ExitCode::from(code)
}

/// Files and environment, for the configuration.
struct System {
    /// Where relative paths start: the directory of proxy.toml.
    directory: PathBuf,
}

impl Sources for System {
    fn read(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(self.directory.join(path)).map_err(|error| error.to_string())
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

fn load(file: &Path) -> Result<Config, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Input(format!("{name}: {error}")))?;
    let directory = file.parent().map(Path::to_owned).unwrap_or_default();
    Config::parse(&text, &name, &System { directory })
        .map_err(|faults: Faults| Failure::Input(faults.to_string()))
}

fn run(file: &Path) -> Result<(), Failure> {
    let config = load(file)?;
    start_log(config.log.level, config.log.format);
    let runtime =
        runtime(config.workers).map_err(|error| Failure::Run(format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let failed = |error: std::io::Error| Failure::Run(error.to_string());
        let mut reloads = pgweir::proxy::reload_signals().map_err(failed)?;
        let path = file.to_owned();
        let reread = move || load(&path).map_err(Failure::into_text);
        let proxy = Proxy::start(config, Some(Box::new(reread)))
            .await
            .map_err(|error| Failure::Run(error.to_string()))?;
        let mut stop = std::pin::pin!(pgweir::proxy::stop_signal());
        let signal = loop {
            tokio::select! {
                signal = stop.as_mut() => break signal.map_err(failed)?,
                // It logs what becomes of it.
                _ = reloads.recv() => drop(proxy.reload()),
            }
        };
        tracing::info!(signal, "shutting down");
        let left = proxy.shutdown().await;
        if left > 0 {
            tracing::warn!(
                sessions = left,
                "the shutdown deadline has passed, sessions cut off"
            );
        }
        tracing::info!("stopped");
        Ok(())
    })
}

/// One worker stays on its thread, which is cheaper for each transaction; several share the sessions.
fn runtime(workers: usize) -> std::io::Result<tokio::runtime::Runtime> {
    match workers {
        1 => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build(),
        workers => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build(),
    }
}

fn start_log(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false);
    // Not by `init`, which also takes what libraries write by the crate `log`: at debug level the SQL parser writes each
    // statement there, with its literals.
    let set = match format {
        LogFormat::Text => tracing::subscriber::set_global_default(
            log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .finish(),
        ),
        LogFormat::Json => tracing::subscriber::set_global_default(log.json().finish()),
    };
    set.expect("the log is started once, by the command that runs");
}

fn check(file: &Path) -> Result<(), Failure> {
    let config = load(file)?;
    let nodes: usize = config
        .clusters
        .iter()
        .map(|cluster| cluster.nodes.len())
        .sum();
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    say(&format!(
        "{}: good ({}, {}, {}, {})\n",
        file.display(),
        counted(config.listeners.len(), "listener"),
        counted(config.clusters.len(), "cluster"),
        counted(nodes, "node"),
        counted(config.databases.len(), "database")
    ))
}

fn explain(explain: &Explain) -> Result<(), Failure> {
    let mut texts = explain.sql.clone();
    let dash = texts == ["-"];
    let file = explain.file.clone().or(dash.then(|| PathBuf::from("-")));
    if let Some(file) = &file {
        texts.retain(|text| text != "-");
        let text = read_statements(file)
            .map_err(|error| Failure::Input(format!("{}: {error}", file.display())))?;
        texts.extend(
            text.lines()
                .filter(|line| !line.trim().is_empty())
                .map(str::to_owned),
        );
    }
    let classifier = Classifier::new(1 << 20);
    for text in texts {
        let explanation = classifier.explain(text.as_bytes(), Lexing::default(), &TABLES);
        say(&format!(
            "{explanation}  {text}\n{}",
            rests_on(&explanation, &text)
        ))?;
    }
    Ok(())
}

/// The place in the text that decided, and by way of what.
fn rests_on(explanation: &Explanation, text: &str) -> String {
    let mut lines = String::new();
    if let Some(place) = explanation.place {
        let at = format!("    {}:{}: ", place.line, place.column);
        let indent = " ".repeat(at.len());
        for (n, line) in place.excerpt(text).lines().enumerate() {
            lines.push_str(if n == 0 { &at } else { &indent });
            lines.push_str(line);
            lines.push('\n');
        }
    }
    if !explanation.chain.is_empty() {
        lines.push_str(&format!("    by way of: {}\n", explanation.chain_text()));
    }
    lines
}

fn read_statements(file: &Path) -> std::io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

fn run_demo(time: Option<Duration>) -> Result<(), Failure> {
    start_log(LogLevel::Info, LogFormat::Text);
    demo::run(time, &mut |text| {
        say(text).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    })
    .map_err(|error| Failure::Run(error.to_string()))
}

/// A closed pipe at the other end is no fault of ours, but there is no use in going on.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::Run(format!("cannot write: {error}")))
}
