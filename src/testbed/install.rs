//! Where PostgreSQL's server programs are on this machine.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;

/// A directory that holds every program the room runs, and the version of its servers.
#[derive(Clone, Debug)]
pub(super) struct Install {
    pub(super) bin: PathBuf,
    pub(super) major: u32,
}

impl Install {
    /// Looks at `PGWEIR_PG_BIN`, then along `PATH`, then in the usual places, newest version first.
    ///
    /// A `PGWEIR_PG_BIN` that does not hold the programs is an error: whoever set it meant that
    /// version and no other.
    pub(super) fn find() -> Result<Self, Error> {
        let bin = match std::env::var_os(BIN_VARIABLE) {
            Some(dir) => {
                complete(Path::new(&dir)).ok_or_else(|| missing(format!("{BIN_VARIABLE}={dir:?}")))
            }
            None => along_path().or_else(in_usual_places).ok_or_else(|| {
                missing(format!(
                    "{BIN_VARIABLE} (not set), PATH, {}",
                    USUAL_PLACES.join(", ")
                ))
            }),
        }?;
        let major = major_version(&bin)?;
        match major < OLDEST_MAJOR {
            true => Err(Error::TooOld {
                bin,
                major,
                oldest: OLDEST_MAJOR,
            }),
            false => Ok(Self { bin, major }),
        }
    }
}

fn missing(searched: String) -> Error {
    Error::NotInstalled {
        searched,
        advice: ADVICE,
    }
}

fn along_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find_map(|dir| complete(&dir))
}

fn in_usual_places() -> Option<PathBuf> {
    USUAL_PLACES
        .iter()
        .flat_map(|pattern| expand(pattern))
        .find_map(|dir| complete(&dir))
}

/// The directory with all programs: `dir`, or the one that its `postgres` is a link into. Some machines
/// link a few of the programs into a directory of `PATH` and leave the others out.
fn complete(dir: &Path) -> Option<PathBuf> {
    let holds_all = |dir: &Path| PROGRAMS.iter().all(|program| dir.join(program).is_file());
    if holds_all(dir) {
        return Some(dir.to_owned());
    }
    let real = fs::canonicalize(dir.join("postgres")).ok()?;
    real.parent()
        .filter(|dir| holds_all(dir))
        .map(Path::to_owned)
}

/// The directories a pattern with one `*` stands for, the highest version first.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or((".", before));
    let matching = |name: &OsStr| Some(name.to_str()?.strip_prefix(prefix)?.to_owned());
    let mut found: Vec<(u32, String)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| matching(&entry.ok()?.file_name()))
        .map(|rest| (first_number(&rest).unwrap_or(0), rest))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found
        .into_iter()
        .map(|(_, rest)| PathBuf::from(format!("{before}{rest}{after}")))
        .collect()
}

fn major_version(bin: &Path) -> Result<u32, Error> {
    let output = Command::new(bin.join("postgres"))
        .arg("--version")
        .output()
        .map_err(Error::process("run postgres --version"))?;
    first_number(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| missing(format!("{} (its postgres tells no version)", bin.display())))
}

/// The first run of digits: 15 in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn first_number(text: &str) -> Option<u32> {
    text.split(|c: char| !c.is_ascii_digit())
        .find(|digits| !digits.is_empty())?
        .parse()
        .ok()
}

const BIN_VARIABLE: &str = "PGWEIR_PG_BIN";
const PROGRAMS: [&str; 5] = ["postgres", "initdb", "pg_basebackup", "pg_ctl", "pg_rewind"];

/// Since 13 a standby takes a new `primary_conninfo` without a restart, and `pg_rewind` recovers a
/// crashed target by itself. Both are what `Node::follow` and `Node::rewind` stand on.
const OLDEST_MAJOR: u32 = 13;

const USUAL_PLACES: [&str; 5] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
];

const ADVICE: &str = "\
Install the server package, or point PGWEIR_PG_BIN at the directory that holds postgres and initdb:
  Debian, Ubuntu   apt-get install postgresql
  Fedora, RHEL     dnf install postgresql-server
  macOS            brew install postgresql@17";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_first_number() {
        for (text, major) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
                Some(15),
            ),
            ("postgres (PostgreSQL) 19beta1", Some(19)),
            ("postgresql@17", Some(17)),
            ("postgres", None),
        ] {
            assert_eq!(first_number(text), major, "{text}");
        }
    }

    #[test]
    fn versions_sort_as_numbers_and_the_newest_comes_first() {
        let root = std::env::temp_dir().join(format!("pgweir-install-{}", std::process::id()));
        for version in ["9.6", "10", "15"] {
            fs::create_dir_all(root.join(version).join("bin")).unwrap();
        }
        let found = expand(&format!("{}/*/bin", root.display()));
        fs::remove_dir_all(&root).unwrap();
        let expected: Vec<_> = ["15", "10", "9.6"].map(|v| root.join(v).join("bin")).into();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_directory_without_the_programs_does_not_do() {
        assert_eq!(complete(Path::new("/nonexistent")), None);
    }

    #[test]
    fn a_missing_postgresql_comes_with_advice() {
        let text = missing("PATH".to_owned()).to_string();
        assert!(
            text.starts_with("no PostgreSQL server programs in PATH\n"),
            "{text}"
        );
        assert!(text.contains("apt-get install postgresql"), "{text}");
    }
}
