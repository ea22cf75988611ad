//! The house's walls: which room may import which, and what a pure room may not touch.
//!
//! It reads the source text of `src/`, as `cargo` would refuse wrong imports between crates. It
//! sees paths (`crate::room`, `use crate::{a, b}`, `super::super::room`, `pgweir::room`) outside
//! comments and literals; a path that a macro puts together is beyond it.

#[path = "layers/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::path::Path;

use source::{Named, Token, paths, tokens, without_tests};

/// Each room and the rooms that it may use. A room without a row is a fault.
const MAY_IMPORT: &[(&str, &str)] = &[
    ("wire", ""),
    ("sql", ""),
    ("config", ""),
    ("metrics", ""),
    ("testbed", ""),
    ("auth", "wire config"),
    ("net", "wire config"),
    ("cluster", "config"),
    ("link", "wire sql"),
    ("server", "net auth link wire config metrics"),
    ("client", "server net auth wire config metrics"),
    ("route", "cluster sql config"),
    ("session", "link route cluster sql wire config"),
    ("pool", "server link wire config metrics net"),
    ("monitor", "server cluster config metrics net wire"),
    ("catalog", "server net sql metrics"),
    (
        "relay",
        "session link route cluster monitor sql wire pool server client catalog net config metrics",
    ),
    ("console", "sql wire"),
    ("http", "cluster metrics"),
    ("proxy", EVERY_ROOM),
    ("demo", "proxy testbed config"),
    ("main", "proxy config demo sql"),
];

const EVERY_ROOM: &str = "*";

/// Rooms of bytes, values and a passed-in `now`.
const PURE: &[&str] = &[
    "config", "wire", "auth", "sql", "cluster", "route", "session", "link", "console",
];

/// What the code of a pure room may not name; its tests may. Each path is looked for anywhere in
/// a longer one.
const IMPURE: &[(&str, &str)] = &[
    ("std::net", "a socket"),
    ("socket2", "a socket"),
    ("hyper", "a socket"),
    ("tokio", "the runtime"),
    ("Instant::now", "a clock: `now` is passed in"),
    ("SystemTime", "a clock: `now` is passed in"),
    (
        ".elapsed",
        "a clock: subtract from the `now` that is passed in",
    ),
    ("std::fs", "files: their text is passed in"),
    ("std::env", "the environment: it is passed in"),
    ("std::thread", "a thread"),
    ("Mutex", "a lock"),
    ("RwLock", "a lock"),
    ("thread_local", "a global"),
];

/// What a file of a pure room may name all the same, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "sql/classify.rs",
        "thread_local",
        "scratch for the normalised text: no allocation once warm",
    ),
    (
        "sql/shapes.rs",
        "Mutex",
        "who has which slot: taken when a shape is new, never for one that is known",
    ),
    (
        "config/address.rs",
        "std::net",
        "a value: how an address is written",
    ),
];

/// pgwire decodes bytes that nobody has checked and panics on some, so few may meet it.
const MAY_NAME_PGWIRE: &[&str] = &["wire", "auth", "client"];

#[test]
fn the_house_keeps_its_walls() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let faults: Vec<String> = sources(&src)
        .iter()
        .flat_map(|s| faults(&s.path, &s.text))
        .collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// No pair of rooms imports each other, nor any longer ring: taking away rooms that use only rooms
/// already taken away leaves none.
#[test]
fn the_table_has_no_ring() {
    let mut left: BTreeSet<&str> = MAY_IMPORT.iter().map(|(room, _)| *room).collect();
    while !left.is_empty() {
        let free = |room: &&str| imports(room).iter().all(|r| r == room || !left.contains(r));
        let free: Vec<&str> = left.iter().copied().filter(free).collect();
        assert!(!free.is_empty(), "these use each other: {left:?}");
        left.retain(|room| !free.contains(room));
    }
}

#[test]
fn the_table_names_rooms_that_have_a_row() {
    for (room, imports) in MAY_IMPORT {
        for import in imports.split_whitespace().filter(|i| *i != EVERY_ROOM) {
            assert!(
                is_room(import),
                "{room} may import {import}, which has no row"
            );
        }
    }
    let lists = [PURE, MAY_NAME_PGWIRE];
    assert!(
        lists
            .iter()
            .all(|list| list.iter().all(|room| is_room(room)))
    );
}

/// The rooms that `room` may use, itself excluded.
fn imports(room: &str) -> BTreeSet<&'static str> {
    let row = MAY_IMPORT
        .iter()
        .find(|(name, _)| *name == room)
        .map_or("", |(_, row)| *row);
    let every = MAY_IMPORT.iter().map(|(name, _)| *name);
    match row {
        // What starts the proxy stands above it.
        EVERY_ROOM => every
            .filter(|r| ![room, "demo", "main"].contains(r))
            .collect(),
        row => row.split_whitespace().collect(),
    }
}

fn is_room(name: &str) -> bool {
    MAY_IMPORT.iter().any(|(room, _)| *room == name)
}

/// A file of `src/`: its path from there, with `/` between, and its text.
struct Source {
    path: String,
    text: String,
}

fn sources(src: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![src.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("src/ and its folders can be listed");
        for entry in entries {
            let path = entry.expect("src/ and its folders can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(source(src, &path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn source(src: &Path, path: &Path) -> Source {
    let parts = path
        .strip_prefix(src)
        .expect("the file was found below src/")
        .components();
    let parts: Vec<_> = parts
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    Source {
        path: parts.join("/"),
        text: std::fs::read_to_string(path).expect("it is UTF-8"),
    }
}

/// Every broken rule of one file.
fn faults(path: &str, text: &str) -> Vec<String> {
    let room = path
        .split('/')
        .next()
        .unwrap_or(path)
        .trim_end_matches(".rs");
    // The map of the house declares every room and re-exports from them.
    if room == "lib" {
        return Vec::new();
    }
    if !is_room(room) {
        return vec![format!(
            "src/{path}: room `{room}` has no row in tests/layers.rs"
        )];
    }
    let all = tokens(text);
    let mut faults = import_faults(path, room, &all);
    if !is_test_file(path) {
        faults.extend(purity_faults(path, room, &without_tests(all)));
    }
    faults
}

fn import_faults(path: &str, room: &str, tokens: &[Token]) -> Vec<String> {
    let mut faults = Vec::new();
    for Named { line, inner, names } in paths(tokens) {
        let fault = |why: String| format!("src/{path}:{line}: `{}`: {why}", names.join("::"));
        if names[0] == "pgwire" && !MAY_NAME_PGWIRE.contains(&room) {
            faults.push(fault(format!(
                "only {} may name pgwire",
                MAY_NAME_PGWIRE.join(", ")
            )));
        }
        let Some(target) = from_root(&names, depth(path) + inner) else {
            continue;
        };
        if !is_room(target) {
            faults.push(fault(format!(
                "`{target}` is not a room; name the room that it is from"
            )));
        } else if target != room && !imports(room).contains(target) {
            faults.push(fault(format!("{room} may not import {target}")));
        }
    }
    faults
}

fn purity_faults(path: &str, room: &str, tokens: &[Token]) -> Vec<String> {
    if !PURE.contains(&room) {
        return Vec::new();
    }
    let excepted = |ban: &str| EXCEPTIONS.iter().any(|(p, b, _)| *p == path && *b == ban);
    let mut faults = Vec::new();
    for Named { line, names, .. } in paths(tokens) {
        for (ban, what) in IMPURE.iter().filter(|(ban, _)| !excepted(ban)) {
            let ban: Vec<&str> = ban.split("::").collect();
            if names.windows(ban.len()).any(|part| part == ban) {
                let name = names.join("::");
                faults.push(format!(
                    "src/{path}:{line}: `{name}`: {room} is pure, this is {what}"
                ));
            }
        }
    }
    faults
}

/// A module that only tests see bears one of these names, or is inside `#[cfg(test)]`.
fn is_test_file(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "tests" || part == "tests.rs")
}

/// How many `super` lead from the module of a file to the root of the crate.
fn depth(path: &str) -> usize {
    let parts = path.split('/').count();
    if path.ends_with("/mod.rs") {
        parts - 1
    } else {
        parts
    }
}

/// The name right below the crate's root in a path that goes there; nothing if it does not, or
/// stops there. `depth` is how many `super` lead there from where the path stands.
fn from_root<'a>(names: &[&'a str], depth: usize) -> Option<&'a str> {
    let names = names.strip_prefix(&["self"]).unwrap_or(names);
    let supers = names.iter().take_while(|name| **name == "super").count();
    match names.first() {
        Some(&("crate" | "pgweir")) => names.get(1).copied().filter(|name| *name != "self"),
        Some(&"super") if supers == depth => names.get(supers).copied(),
        _ => None,
    }
}

/// Each planted fault is found, and what only looks like one is not.
mod the_guard_itself {
    use super::*;

    #[test]
    fn finds_wrong_imports() {
        let cases = [
            (
                "wire/frame.rs",
                "use crate::sql::Class;",
                "wire may not import sql",
            ),
            (
                "route/decide.rs",
                "use crate::{cluster::View, wire};",
                "route may not import wire",
            ),
            (
                "route/decide.rs",
                "use crate::{\n  cluster::{self, View},\n  net::Stream,\n};",
                ":3: ",
            ),
            (
                "session/state.rs",
                "fn f(p: &mut crate::pool::Pool) {}",
                "may not import pool",
            ),
            (
                "sql/class.rs",
                "use super::super::wire;",
                "sql may not import wire",
            ),
            (
                "sql/mod.rs",
                "use super::wire::Frame;",
                "sql may not import wire",
            ),
            (
                "sql/deep/er.rs",
                "use super::super::super::wire;",
                "sql may not import wire",
            ),
            (
                "route.rs",
                "use super::{config, wire};",
                "route may not import wire",
            ),
            (
                "sql/class.rs",
                "mod tests { use super::super::super::wire; }",
                "may not import wire",
            ),
            (
                "cluster/lsn.rs",
                "#[cfg(test)] mod tests { use crate::testbed::X; }",
                "testbed",
            ),
            (
                "main.rs",
                "use pgweir::relay::run;",
                "main may not import relay",
            ),
            ("wire/frame.rs", "use crate::*;", "`*` is not a room"),
            (
                "wire/frame.rs",
                "use crate::Config;",
                "`Config` is not a room",
            ),
            (
                "wire/frame.rs",
                "macro_rules! m { () => { $crate::sql::f() } }",
                "may not import sql",
            ),
            (
                "relay/run.rs",
                "use pgwire::messages::Message;",
                "may name pgwire",
            ),
            (
                "session/mod.rs",
                "use self::super::net::X;",
                "session may not import net",
            ),
            ("cellar/mod.rs", "", "has no row"),
        ];
        for (path, text, expected) in cases {
            check(path, text, Some(expected));
        }
    }

    #[test]
    fn finds_impurity() {
        let cases = [
            ("wire/frame.rs", "use std::net::IpAddr;", "a socket"),
            ("wire/frame.rs", "use std::{fmt, net::IpAddr};", "a socket"),
            (
                "session/state.rs",
                "async fn f() { tokio::time::sleep(d).await }",
                "the runtime",
            ),
            (
                "cluster/judge.rs",
                "fn f() { let now = Instant::now(); }",
                "a clock",
            ),
            (
                "cluster/judge.rs",
                "fn f() { let now = std::time::Instant::now(); }",
                "a clock",
            ),
            (
                "cluster/judge.rs",
                "fn f(start: Instant) { start.elapsed() > LONG }",
                "a clock",
            ),
            (
                "cluster/judge.rs",
                "use std::time::{Duration, SystemTime};",
                "a clock",
            ),
            ("config/check.rs", "fn f() { std::fs::read(p) }", "files"),
            ("config/check.rs", "use std::{env, fmt};", "the environment"),
            ("route/balance.rs", "use std::thread;", "a thread"),
            ("sql/cache.rs", "struct C(std::sync::Mutex<u8>);", "a lock"),
            ("sql/cache.rs", "struct C(Vec<RwLock<u8>>);", "a lock"),
            (
                "sql/cache.rs",
                "thread_local! { static S: u8 = 0; }",
                "a global",
            ),
            (
                "sql/cache.rs",
                "#[cfg(test)] use a::b; fn f() { Instant::now() }",
                "a clock",
            ),
            (
                "sql/cache.rs",
                "#[cfg(test)] mod t { fn f() {} } fn g(m: Mutex<u8>) {}",
                "a lock",
            ),
            (
                "sql/cache.rs",
                "struct S { #[cfg(test)] a: X<u8, u8>, b: Mutex<u8> }",
                "a lock",
            ),
            (
                "sql/cache.rs",
                "struct S { #[cfg(test)] a: u8 } struct T(Mutex<u8>);",
                "a lock",
            ),
            (
                "sql/cache.rs",
                "const Q: char = '\"'; fn f() { Instant::now() }",
                "a clock",
            ),
            (
                "sql/cache.rs",
                "fn f<'a>(x: &'a u8) { Instant::now() } // '",
                "a clock",
            ),
            (
                "sql/cache.rs",
                "const R: &str = r#\"a\"b\"#; use std::fs;",
                "files",
            ),
            ("sql/cache.rs", "/* /* */ */ use std::fs;", "files"),
        ];
        for (path, text, expected) in cases {
            check(path, text, Some(expected));
        }
    }

    #[test]
    fn lets_the_rest_pass() {
        let cases = [
            (
                "route/decide.rs",
                "use crate::cluster::{View, judge::X}; use crate::sql::Class;",
            ),
            (
                "route/decide.rs",
                "use crate::route::balance; use super::super::cluster;",
            ),
            (
                "route/decide.rs",
                "use super::balance::choose; pub(crate) fn f() {}",
            ),
            (
                "route/decide.rs",
                "pub(super) use self::balance::choose; pub(in crate::route) fn f() {}",
            ),
            (
                "route/decide.rs",
                "mod tests { use super::super::balance; }",
            ),
            (
                "wire/frame.rs",
                "// use crate::sql;\n/// [`crate::sql`], tokio, Mutex\nfn f() {}",
            ),
            (
                "wire/frame.rs",
                "const A: &str = \"use crate::sql; \\\" std::net\";",
            ),
            (
                "wire/frame.rs",
                "const A: &[u8] = br#\"crate::sql \" std::net\"#;",
            ),
            (
                "wire/frame.rs",
                "const A: u8 = b'\\''; const B: char = '\\\\'; fn f<'a>(x: &'a str) {}",
            ),
            ("wire/frame.rs", "use pgwire::messages::Message;"),
            (
                "client/auth.rs",
                "use pgwire::api::auth::AuthMechanism; use tokio::net::TcpStream;",
            ),
            ("sql/classify.rs", "thread_local! { static S: u8 = 0; }"),
            (
                "cluster/judge.rs",
                "use std::time::Instant; fn f(now: Instant) -> Instant { now }",
            ),
            (
                "cluster/judge.rs",
                "#[cfg(test)] mod tests { fn f() { Instant::now(); tokio::x() } }",
            ),
            (
                "cluster/judge.rs",
                "#[cfg(test)] #[allow(x)] fn f(a: [u8; 3]) { Instant::now() }",
            ),
            ("cluster/tests.rs", "fn f() { Instant::now(); }"),
            (
                "cluster/judge.rs",
                "struct S { elapsed: u8 } fn f(hyperbola: u8) {}",
            ),
            (
                "config/raw.rs",
                "const V: &str = env!(\"CARGO_PKG_VERSION\");",
            ),
            (
                "relay/run.rs",
                "use crate::{net::Stream, session}; use std::sync::Mutex;",
            ),
            ("proxy.rs", "use crate::{client, http, relay, testbed};"),
            ("main.rs", "use pgweir::{config::Config, proxy};"),
            ("lib.rs", "pub mod wire; pub use crate::wire::Frame;"),
        ];
        for (path, text) in cases {
            check(path, text, None);
        }
    }

    /// Exactly one fault that says `expected`, or none.
    fn check(path: &str, text: &str, expected: Option<&str>) {
        let faults = faults(path, text);
        match expected {
            Some(part) => {
                let found = faults.len() == 1 && faults[0].contains(part);
                assert!(found, "{path}: {text}\nexpected `{part}`, found {faults:?}");
            }
            None => assert!(faults.is_empty(), "{path}: {text}\nfound {faults:?}"),
        }
    }
}
