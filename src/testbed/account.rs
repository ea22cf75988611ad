//! Under which user the servers run.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::Error;

/// The user and group that the servers run as, where that is not simply us.
///
/// `postgres` and `initdb` refuse to run as root, so root runs them as the user `postgres`, without any
/// supplementary group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// The account for a process whose effective user is `our_uid`; `None` when that is a plain user.
    pub(super) fn for_user(our_uid: u32) -> Result<Option<Self>, Error> {
        if our_uid != ROOT {
            return Ok(None);
        }
        let path = Path::new("/etc/passwd");
        let passwd = fs::read_to_string(path).map_err(Error::file("read", path))?;
        Self::find(&passwd, SERVER_USER)
            .map(Some)
            .ok_or(Error::NoAccount(SERVER_USER))
    }

    /// Finds a user in the text of `/etc/passwd`; a line is `name:password:uid:gid:…`.
    fn find(passwd: &str, user: &str) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == user).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Self { uid, gid })
        })
    }

    /// Has the command run under this account.
    pub(super) fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives a file or directory to this account.
    pub(super) fn give(self, path: &Path) -> Result<(), Error> {
        chown(path, Some(self.uid), Some(self.gid))
            .map_err(Error::file("change the owner of", path))
    }
}

const ROOT: u32 = 0;
const SERVER_USER: &str = "postgres";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_found_by_its_whole_name() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\npostgresql:x:7:8:::\npostgres:x:101:104:P,,,:/:/bin/sh\n";
        for (user, found) in [
            ("postgres", Some(Account { uid: 101, gid: 104 })),
            ("postgre", None),
            ("nobody", None),
        ] {
            assert_eq!(Account::find(passwd, user), found, "{user}");
        }
        assert_eq!(Account::find("postgres:x:many:1:", "postgres"), None);
    }

    #[test]
    fn a_plain_user_runs_the_servers_itself() {
        assert_eq!(Account::for_user(1000).unwrap(), None);
    }
}
