//! The file as typed: tables and values with their places, unknown keys refused.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::fault::Report;
use super::keys::{KEYS, Key, Needed};
use super::shape::{Filled, Shape, with_article};

/// A table of the file, or the absence of one, which reads as an empty table.
pub(super) struct Table<'t> {
    report: &'t Report<'t>,
    /// Its path in the file, such as `cluster.main.nodes[0]`; empty for the whole file.
    path: String,
    /// Its path in [`KEYS`], such as `cluster.<name>.nodes[]`.
    pattern: String,
    /// Where it starts, for faults of what it lacks.
    at: usize,
    entries: Option<&'t DeTable<'t>>,
    /// Whether something else stands in its place, or in that of a table around it. This has been
    /// noted, so that what the table lacks is no further fault.
    mistyped: bool,
}

/// A table under a name that the operator chose.
pub(super) struct Named<'t> {
    pub(super) name: String,
    /// Where the name is.
    pub(super) at: usize,
    pub(super) table: Table<'t>,
}

/// A value that was typed, and where.
pub(super) struct Typed<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

impl<'t> Table<'t> {
    /// The whole file.
    pub(super) fn root(report: &'t Report<'t>, entries: &'t DeTable<'t>) -> Table<'t> {
        let (path, pattern) = (String::new(), String::new());
        Table {
            report,
            path,
            pattern,
            at: 0,
            entries: Some(entries),
            mistyped: false,
        }
        .checked()
    }

    /// A table in this one. Absent, it is empty.
    pub(super) fn table(&self, name: &str) -> Table<'t> {
        let (path, pattern) = (join(&self.path, name), join(&self.pattern, name));
        let Some(value) = self.value(name) else {
            return Table {
                path,
                pattern,
                entries: None,
                ..*self
            };
        };
        self.open(value, path, pattern)
    }

    /// The tables in a table whose names are the operator's, in the order of the file.
    pub(super) fn named(&self, name: &str) -> Vec<Named<'t>> {
        let path = join(&self.path, name);
        let Some(value) = self.value(name) else {
            return Vec::new();
        };
        let Some(entries) = value.get_ref().as_table() else {
            self.not_a_table(value, &path);
            return Vec::new();
        };
        // The map of toml is sorted by name; the order of the file is that of the places.
        let mut children: Vec<_> = entries.iter().collect();
        children.sort_by_key(|(key, _)| key.span().start);
        let pattern = format!("{}.<name>", join(&self.pattern, name));
        let open = |(key, value): (&Spanned<DeString<'_>>, &'t Spanned<DeValue<'t>>)| {
            let table = self.open(value, join(&path, &quoted(key.get_ref())), pattern.clone());
            Named {
                name: key.get_ref().to_string(),
                at: key.span().start,
                table,
            }
        };
        children.into_iter().map(open).collect()
    }

    /// The tables of an array. Absent, there is none.
    pub(super) fn array(&self, name: &str) -> Vec<Table<'t>> {
        let path = join(&self.path, name);
        let Some(value) = self.value(name) else {
            return Vec::new();
        };
        let Some(elements) = value.get_ref().as_array() else {
            let message = format!("expected an array of tables, not {}", with_article(value));
            self.report.fault(value.span().start, &path, message);
            return Vec::new();
        };
        let pattern = format!("{}[]", join(&self.pattern, name));
        let open = |(index, element): (usize, &'t Spanned<DeValue<'t>>)| {
            self.open(element, format!("{path}[{index}]"), pattern.clone())
        };
        elements.iter().enumerate().map(open).collect()
    }

    /// The value of a key; its default if it is absent. After a fault also the default, so that
    /// the rest can be read.
    pub(super) fn get<S: Filled>(&self, key: &Key<S>) -> S::Value {
        self.find(key)
            .map_or_else(|| key.shape.filled(), |typed| typed.value)
    }

    /// The value of a key if it was typed. Its absence is a fault if the key is needed.
    pub(super) fn find<S: Shape>(&self, key: &Key<S>) -> Option<Typed<S::Value>> {
        let name = key.name();
        debug_assert_eq!(
            key.path,
            join(&self.pattern, name),
            "the key belongs to the table"
        );
        let Some(value) = self.value(name) else {
            if key.needed == Needed::Yes {
                self.missing(name, "is missing");
            }
            return None;
        };
        let at = value.span().start;
        match key.shape.read(value) {
            Ok(value) => Some(Typed { value, at }),
            Err(message) => {
                self.report.fault(at, &join(&self.path, name), message);
                None
            }
        }
    }

    /// Whether something was typed for a key, be it right or wrong.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Notes a fault of a key at its place.
    pub(super) fn fault(&self, at: usize, name: &str, message: impl Into<String>) {
        self.report.fault(at, &join(&self.path, name), message);
    }

    /// Notes a fault of a key that is absent, at the place of this table.
    pub(super) fn missing(&self, name: &str, message: impl Into<String>) {
        if !self.mistyped {
            self.fault(self.at, name, message);
        }
    }

    /// The text of a key as it was typed, if it is one.
    pub(super) fn text(&self, name: &str) -> Option<&'t str> {
        self.value(name)?.get_ref().as_str()
    }

    /// Notes a fault of this table as a whole.
    pub(super) fn fault_here(&self, message: impl Into<String>) {
        self.report.fault(self.at, &self.path, message);
    }

    /// Whether a key is there but holds no table, which has been noted.
    pub(super) fn mistyped_table(&self, name: &str) -> bool {
        self.value(name)
            .is_some_and(|value| !value.get_ref().is_table())
    }

    /// Whether a key is there but holds no array, which has been noted.
    pub(super) fn mistyped_array(&self, name: &str) -> bool {
        self.value(name)
            .is_some_and(|value| !value.get_ref().is_array())
    }

    fn value(&self, name: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.entries?.get(name)
    }

    fn open(&self, value: &'t Spanned<DeValue<'t>>, path: String, pattern: String) -> Table<'t> {
        let entries = value.get_ref().as_table();
        if entries.is_none() {
            self.not_a_table(value, &path);
        }
        Table {
            report: self.report,
            path,
            pattern,
            at: value.span().start,
            entries,
            mistyped: entries.is_none(),
        }
        .checked()
    }

    fn not_a_table(&self, value: &Spanned<DeValue<'_>>, path: &str) {
        let message = format!("expected a table, not {}", with_article(value));
        self.report.fault(value.span().start, path, message);
    }

    /// Notes the keys that no table of this pattern has.
    fn checked(self) -> Table<'t> {
        let known = children(&self.pattern);
        for key in self.entries.into_iter().flat_map(DeTable::keys) {
            let name = key.get_ref();
            if !known.contains(&name.as_ref()) {
                self.fault(
                    key.span().start,
                    &quoted(name),
                    unknown(name, &self.pattern, &known),
                );
            }
        }
        self
    }
}

/// What to say of a key that is not known: the one that was meant, where it belongs, or what is
/// known here.
fn unknown(name: &str, pattern: &str, known: &[&str]) -> String {
    if let Some(nearest) = nearest(name, known) {
        return format!("unknown key; did you mean \"{nearest}\"?");
    }
    let elsewhere = KEYS.iter().filter_map(|key| key.path().rsplit_once('.'));
    let homes: Vec<&str> = elsewhere
        .filter(|(_, key)| *key == name)
        .map(|(home, _)| home)
        .collect();
    if let [home] = homes[..] {
        return format!("unknown key; \"{name}\" belongs to {home}");
    }
    let place = if pattern.is_empty() {
        "at the top of the file"
    } else {
        "here"
    };
    format!("unknown key; known {place}: {}", known.join(", "))
}

/// The names that a table of a pattern may hold, in the order of [`KEYS`].
fn children(pattern: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in KEYS {
        let Some(rest) = key.path().strip_prefix(pattern) else {
            continue;
        };
        let rest = match pattern {
            "" => rest,
            _ => match rest.strip_prefix('.') {
                Some(rest) => rest,
                None => continue,
            },
        };
        let name = rest.split(['.', '[']).next().unwrap_or(rest);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The name that was meant by a mistyped one: a change of up to a third of it, at least of one
/// letter.
pub(super) fn nearest<'n>(typed: &str, names: &[&'n str]) -> Option<&'n str> {
    let close = typed.chars().count().div_ceil(3).max(1);
    names
        .iter()
        .map(|name| (strsim::osa_distance(&typed.to_lowercase(), name), *name))
        .filter(|(distance, _)| *distance <= close)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// A key as TOML would have it: bare if it may be (TOML 1.0, "Keys"), else in quotes.
fn quoted(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !name.is_empty() && name.bytes().all(bare) {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_of_tables() {
        let check = |pattern: &str, expected: &str| {
            assert_eq!(children(pattern).join(" "), expected, "{pattern}");
        };
        check(
            "",
            "process listener cluster database user auth admin limits timeouts peering log",
        );
        check("listener[]", "address route");
        check("cluster.<name>", "nodes monitor reads");
        check("cluster.<name>.nodes[]", "address name max_connections");
        check(
            "database.<name>.pool",
            "mode size min reserve reserve_after wait_timeout max_prepared connect_query reset_query listen deferred_begin optimistic currval",
        );
        check("peering", "id peers");
        check("log", "level format");
    }

    #[test]
    fn nearest_names() {
        let known = ["max_clients", "max_message", "mode", "size"];
        let check = |typed: &str, expected: Option<&str>| {
            assert_eq!(nearest(typed, &known), expected, "{typed}");
        };
        check("max_client", Some("max_clients"));
        check("Max_Clients", Some("max_clients"));
        check("max_mesage", Some("max_message"));
        check("mdoe", Some("mode"));
        check("sise", Some("size"));
        check("port", None);
        check("", None);
    }
}
