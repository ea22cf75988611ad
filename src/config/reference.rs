//! The reference of all keys, docs/configuration.md, written from the table of keys.

use std::fmt::Write;

use super::keys::{Described, KEYS, Needed};
use super::reload::counts_from_the_next_start;

/// docs/configuration.md: every key with its type, default, range and what it does.
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    for section in SECTIONS {
        let _ = write!(
            page,
            "\n## `{}`\n\n{}\n",
            section.header,
            wrapped(section.about)
        );
        for key in KEYS
            .iter()
            .filter(|key| belongs(key.path(), section.prefix))
        {
            page.push_str(&entry(*key));
        }
    }
    page
}

/// One part of the page: the keys whose paths start with the prefix and a dot.
struct Section {
    prefix: &'static str,
    header: &'static str,
    about: &'static str,
}

fn belongs(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.starts_with('.'))
}

fn entry(key: &dyn Described) -> String {
    let default = match (key.needed(), key.default_text()) {
        (Needed::Yes, _) => "needed".to_owned(),
        (Needed::No, Some(default)) => format!("default `{default}`"),
        (Needed::No, None) => "no default".to_owned(),
    };
    let start =
        counts_from_the_next_start(key.path()).then(|| "counts from the next start".to_owned());
    let facts: Vec<String> = [
        Some(key.kind().to_owned()),
        Some(default),
        key.range_text(),
        start,
    ]
    .into_iter()
    .flatten()
    .collect();
    format!(
        "\n### `{}`\n\n*{}*\n\n{}\n",
        key.path(),
        facts.join("; "),
        wrapped(key.does())
    )
}

/// The text in lines of at most [`WIDTH`] characters.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            lines.push('\n');
            width = 0;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += length;
    }
    lines
}

const WIDTH: usize = 100;

const INTRODUCTION: &str = "\
<!-- Written from src/config/keys.rs. To write it again: PGWEIR_REGENERATE=1 cargo test config -->

# Configuration

pgweir reads one TOML file, by custom `proxy.toml`. The smallest one that serves:

```toml
[[listener]]
address = \"127.0.0.1:6432\"

[cluster.main]
nodes = [ { address = \"10.0.0.1:5432\" }, { address = \"10.0.0.2:5432\" } ]

[database.\"*\"]

[auth]
users_file = \"userlist.txt\"
```

- All faults of the file are reported at once, each with line, column and key. An unknown key is a
  fault, and the nearest known one is suggested.
- A **duration** is a string of a whole number and a unit: `ms`, `s`, `min`, `h` or `d`, as in
  `\"250ms\"`.
- A **size** is a string of a whole number and a unit: `B`, `KiB`, `MiB` or `GiB`, as in `\"16MiB\"`.
  Units of 1000, and PostgreSQL's `kB`, are refused, since the same letters mean both.
- An **address** is `host:port`, `[ipv6]:port` or `unix:/path/of/socket`.
- `<name>` in a key is a name of your choice with at most 63 bytes, `[]` an element of an array.
- Both ends of a range are allowed.
- A file that has changed is read again at SIGHUP and at `RELOAD` in the console, as a whole or not at
  all. What needs sockets, threads or nodes counts from the next start, and says so here.
";

const SECTIONS: &[Section] = &[
    Section {
        prefix: "process",
        header: "[process]",
        about: "The process itself.",
    },
    Section {
        prefix: "listener[]",
        header: "[[listener]]",
        about: "Where clients connect; at least one, each with an address of its own.",
    },
    Section {
        prefix: "cluster.<name>",
        header: "[cluster.<name>]",
        about: "A primary and its standbys; at least one cluster. `nodes` is an array of 1 to 64 \
                tables.",
    },
    Section {
        prefix: "database.<name>",
        header: "[database.<name>]",
        about: "A database as clients know it; at least one. `[database.\"*\"]` stands for every \
                name that has no table of its own, and each such name for itself on the nodes.",
    },
    Section {
        prefix: "user.<name>",
        header: "[user.<name>]",
        about: "What is special about a user, whatever the database. It goes before what the database says. \
                Who may log in is told by `[auth]`, not here.",
    },
    Section {
        prefix: "auth",
        header: "[auth]",
        about: "Who may log in.",
    },
    Section {
        prefix: "admin",
        header: "[admin]",
        about: "Administration.",
    },
    Section {
        prefix: "limits",
        header: "[limits]",
        about: "Bounds.",
    },
    Section {
        prefix: "timeouts",
        header: "[timeouts]",
        about: "Deadlines.",
    },
    Section {
        prefix: "peering",
        header: "[peering]",
        about: "Several processes behind one address, each with its own file. A cancel request comes \
                on a connection of its own, which may reach any of them; with this table it finds \
                its session. Without the table the process is alone, and requests for sessions of \
                others are dropped. `peers` is an array of tables, one for each other process.",
    },
    Section {
        prefix: "log",
        header: "[log]",
        about: "The log.",
    },
];
