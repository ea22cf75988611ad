//! Databases that must have no connections while a statement runs.

use super::setting::Scanner;

/// The database that nobody may be connected to when this statement runs: the one that is dropped, renamed or moved to
/// another tablespace, or copied as a template. PostgreSQL manual, sql-dropdatabase.html, sql-alterdatabase.html and
/// manage-ag-templatedbs.html.
pub fn vacated(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, at: 0 };
    let command = scanner.word()?;
    if scanner.word()? != "database" {
        return None;
    }
    let mut name = identifier(&mut scanner)?;
    match command.as_str() {
        "drop" => {
            if name == "if" && scanner.word().as_deref() == Some("exists") {
                name = identifier(&mut scanner)?;
            }
            Some(name)
        }
        "alter" => match scanner.word()?.as_str() {
            "rename" => Some(name),
            "set" => (scanner.word()? == "tablespace").then_some(name),
            _ => None,
        },
        "create" => Some(template(&mut scanner)),
        _ => None,
    }
}

fn identifier(scanner: &mut Scanner<'_>) -> Option<String> {
    String::from_utf8(scanner.identifier()?).ok()
}

/// What the options of a CREATE DATABASE name as its template.
fn template(scanner: &mut Scanner<'_>) -> String {
    while !scanner.rest().is_empty() {
        match scanner.word() {
            Some(word) if word == "template" => {
                if scanner.rest().first() == Some(&b'=') {
                    scanner.at += 1;
                }
                let named = identifier(scanner).filter(|name| name != "default");
                return named.unwrap_or_else(|| USUAL_TEMPLATE.to_owned());
            }
            Some(_) => {}
            None => scanner.at += 1,
        }
    }
    USUAL_TEMPLATE.to_owned()
}

/// What CREATE DATABASE copies unless it is told.
const USUAL_TEMPLATE: &str = "template1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_empty() {
        for (text, expected) in [
            ("drop database a", Some("a")),
            ("DROP DATABASE IF EXISTS \"A b\" (FORCE);", Some("A b")),
            ("/* x */ alter database A rename to b", Some("a")),
            ("alter database a set tablespace t", Some("a")),
            ("alter database a set work_mem = '1MB'", None),
            ("create database a", Some("template1")),
            (
                "create database a owner = 'x' encoding 'UTF8' template=b",
                Some("b"),
            ),
            ("create database a template default", Some("template1")),
            ("create database a with template \"B\" owner c", Some("B")),
            ("create table database (a int)", None),
            ("drop table database", None),
            ("database", None),
            ("", None),
        ] {
            assert_eq!(vacated(text.as_bytes()).as_deref(), expected, "{text}");
        }
    }
}
