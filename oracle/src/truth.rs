//! What PostgreSQL's own parser says of a statement.
//!
//! The tree is turned into JSON and all of it is walked, so that nothing hides where a hand-written visitor forgets to
//! look. Every kind of node must be on the list: what PostgreSQL's next version adds is told as unknown, not waved through.

use pg_query::ParserOptions;
use serde_json::{Map, Value};

use crate::function::{PRIMARY, STANDBY};
use crate::types;

/// What a statement may be for pgweir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// A SELECT without side effect that calls only what is good: it should be a read.
    Plain,
    /// It would be harmless as a read (EXPLAIN, COPY TO, DECLARE), and need not be one.
    Harmless,
    /// It says nothing about data: transactions, settings, cursors.
    Session,
    /// It must not be a read, and why.
    Never(String),
}

/// A statement as PostgreSQL sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// PostgreSQL's name of the node.
    pub kind: String,
    /// What pgweir may make of it.
    pub truth: Truth,
}

/// Parses a text as PostgreSQL does by default; `None` if it is not valid SQL.
pub fn statements(text: &str) -> Option<Vec<Statement>> {
    parse(text, ParserOptions::DEFAULT)
}

/// The same with `standard_conforming_strings = off`.
pub fn statements_with_escapes(text: &str) -> Option<Vec<Statement>> {
    parse(text, ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS)
}

fn parse(text: &str, options: ParserOptions) -> Option<Vec<Statement>> {
    let parsed = pg_query::parse(text, options).ok()?;
    let tree = serde_json::to_value(&parsed.protobuf).ok()?;
    tree.get("stmts")?
        .as_array()?
        .iter()
        .map(|raw| statement(raw.get("stmt")?))
        .collect()
}

fn statement(node: &Value) -> Option<Statement> {
    let (kind, body) = variant(node)?;
    Some(Statement {
        kind: kind.to_owned(),
        truth: truth(kind, body),
    })
}

/// The name and content of a tagged node.
fn variant(node: &Value) -> Option<(&str, &Value)> {
    let (kind, body) = node.get("node")?.as_object()?.iter().next()?;
    Some((kind, body))
}

fn truth(kind: &str, body: &Value) -> Truth {
    let never = |why: &str| Truth::Never(why.to_owned());
    let if_clean = |inner: &Value| match variant(inner) {
        Some(("SelectStmt", select)) => clean(select).map_or(Truth::Harmless, Truth::Never),
        _ => Truth::Never(format!("{kind} of what is not a query")),
    };
    match kind {
        "SelectStmt" => clean(body).map_or(Truth::Plain, Truth::Never),
        "ExplainStmt" => if_clean(&body["query"]),
        "DeclareCursorStmt"
            if body["options"]
                .as_i64()
                .is_some_and(|o| o & CURSOR_OPT_HOLD == 0) =>
        {
            if_clean(&body["query"])
        }
        "CopyStmt" if is_true(body, "is_from") || is_true(body, "is_program") => never("CopyStmt"),
        "CopyStmt" if body["filename"].as_str() != Some("") => never("CopyStmt to a file"),
        "CopyStmt" if body["query"].is_null() => {
            clean(&body["relation"]).map_or(Truth::Harmless, Truth::Never)
        }
        "CopyStmt" => if_clean(&body["query"]),
        "TransactionStmt" => match body["kind"].as_i64() {
            // PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED
            Some(8..=10) => never("TransactionStmt of two-phase commit"),
            _ => Truth::Session,
        },
        "VariableSetStmt" | "DiscardStmt" | "DeallocateStmt" | "FetchStmt" | "ClosePortalStmt"
        | "UnlistenStmt" | "PrepareStmt" | "ConstraintsSetStmt" => Truth::Session,
        _ => never(kind),
    }
}

/// From PostgreSQL's parsenodes.h.
const CURSOR_OPT_HOLD: i64 = 0x20;

fn is_true(object: &Value, key: &str) -> bool {
    object[key].as_bool() == Some(true)
}

/// What makes a tree more than a read, if anything does.
fn clean(tree: &Value) -> Option<String> {
    match tree {
        Value::Array(values) => values.iter().find_map(clean),
        Value::Object(fields) => object(fields)
            .or_else(|| fields.iter().find_map(|(key, value)| field(key, value)))
            .or_else(|| fields.values().find_map(clean)),
        _ => None,
    }
}

/// Judges what a field or a tagged node is, without its content.
fn field(key: &str, value: &Value) -> Option<String> {
    if key.starts_with(|first: char| first.is_ascii_uppercase()) {
        return match key {
            "LockingClause" => Some("a locking clause".to_owned()),
            "FuncCall" => function(&strings(&value["funcname"])),
            "RangeTableSample" => match strings(&value["method"]).as_slice() {
                [name] | [_, name] if matches!(name.as_str(), "bernoulli" | "system") => None,
                name => Some(format!("TABLESAMPLE {}", name.join("."))),
            },
            "AExpr" => operator(&value["name"]),
            "SubLink" => operator(&value["oper_name"]),
            "SortBy" => operator(&value["use_op"]),
            _ if NODES.binary_search(&key).is_ok() => None,
            _ if key.ends_with("Stmt") => Some(format!("{key} inside")),
            _ => Some(format!("unknown node {key}")),
        };
    }
    match key {
        "into_clause" | "into" if !value.is_null() => Some("SELECT INTO".to_owned()),
        "locking_clause" if value.as_array().is_some_and(|locks| !locks.is_empty()) => {
            Some("a locking clause".to_owned())
        }
        _ => None,
    }
}

/// Judges nodes that stand in fields without a tag, by their fields.
fn object(fields: &Map<String, Value>) -> Option<String> {
    if fields.contains_key("pct_type") {
        let names = strings(&fields["names"]);
        let good = match names.as_slice() {
            [name] => types::is_built_in(name),
            [schema, name] => schema == "pg_catalog" && types::is_built_in(name),
            _ => false,
        };
        return (!good || fields["pct_type"].as_bool() != Some(false))
            .then(|| format!("type {}", names.join(".")));
    }
    if let (Some(schema), Some(name)) = (fields.get("schemaname"), fields.get("relname")) {
        let (schema, name) = (schema.as_str()?, name.as_str()?);
        let catalog = match schema {
            "" => name.starts_with("pg_"),
            _ => schema.starts_with("pg_") || schema == "information_schema",
        };
        return catalog.then(|| "a catalog".to_owned());
    }
    None
}

fn function(name: &[String]) -> Option<String> {
    let plain = match name {
        [name] => name,
        // The first of three is this database, or the server refuses it (namespace.c, DeconstructQualifiedName).
        [schema, name] | [_, schema, name] if schema == "pg_catalog" => name,
        _ => return Some(format!("function {}", name.join("."))),
    };
    if STANDBY.binary_search(&plain.as_str()).is_ok() {
        return None;
    }
    let what = if PRIMARY.binary_search(&plain.as_str()).is_ok() {
        "function of a node"
    } else {
        "function"
    };
    Some(format!("{what} {plain}"))
}

fn operator(name: &Value) -> Option<String> {
    let name = strings(name);
    let good = match name.as_slice() {
        [] => true,
        [name] => OPERATORS.contains(&name.as_str()),
        [schema, name] => schema == "pg_catalog" && OPERATORS.contains(&name.as_str()),
        _ => false,
    };
    (!good).then(|| format!("operator {}", name.join(".")))
}

/// A list of String nodes.
fn strings(list: &Value) -> Vec<String> {
    let text = |node: &Value| {
        let (_, body) = variant(node)?;
        Some(body["sval"].as_str()?.to_owned())
    };
    list.as_array()
        .map(|list| {
            list.iter()
                .map(|node| text(node).unwrap_or_else(|| "?".to_owned()))
                .collect()
        })
        .unwrap_or_default()
}

/// Nodes that a harmless query may have, sorted. What some of them name is judged above.
const NODES: &[&str] = &[
    "AArrayExpr",
    "AConst",
    "AIndices",
    "AIndirection",
    "AStar",
    "Alias",
    "BitString",
    "BoolExpr",
    "Boolean",
    "BooleanTest",
    "Boolval",
    "Bsval",
    "CaseExpr",
    "CaseWhen",
    "CoalesceExpr",
    "CollateClause",
    "ColumnDef",
    "ColumnRef",
    "CommonTableExpr",
    "Float",
    "Fval",
    "GroupingFunc",
    "GroupingSet",
    "Integer",
    "Ival",
    "JoinExpr",
    "JsonAggConstructor",
    "JsonArgument",
    "JsonArrayAgg",
    "JsonArrayConstructor",
    "JsonArrayQueryConstructor",
    "JsonBehavior",
    "JsonFormat",
    "JsonFuncExpr",
    "JsonIsPredicate",
    "JsonKeyValue",
    "JsonObjectAgg",
    "JsonObjectConstructor",
    "JsonOutput",
    "JsonParseExpr",
    "JsonReturning",
    "JsonScalarExpr",
    "JsonSerializeExpr",
    "JsonTable",
    "JsonTableColumn",
    "JsonTablePathSpec",
    "JsonValueExpr",
    "List",
    "MinMaxExpr",
    "NamedArgExpr",
    "NullTest",
    "ParamRef",
    "RangeFunction",
    "RangeSubselect",
    "RangeTableFunc",
    "RangeTableFuncCol",
    "RangeVar",
    "ResTarget",
    "RowExpr",
    "SelectStmt",
    "SetToDefault",
    "SqlvalueFunction",
    "String",
    "Sval",
    "TypeCast",
    "TypeName",
    "WindowDef",
    "WithClause",
    "XmlExpr",
    "XmlSerialize",
];

/// Names of `pg_operator` in PostgreSQL 15, and what the parser calls the constructs that stand for several operators.
const OPERATORS: &[&str] = &[
    "!!",
    "!~",
    "!~*",
    "!~~",
    "!~~*",
    "#",
    "##",
    "#-",
    "#>",
    "#>>",
    "%",
    "&",
    "&&",
    "&<",
    "&<|",
    "&>",
    "*",
    "*<",
    "*<=",
    "*<>",
    "*=",
    "*>",
    "*>=",
    "+",
    "-",
    "->",
    "->>",
    "-|-",
    "/",
    "<",
    "<->",
    "<<",
    "<<=",
    "<<|",
    "<=",
    "<>",
    "<@",
    "<^",
    "=",
    ">",
    ">=",
    ">>",
    ">>=",
    ">^",
    "?",
    "?#",
    "?&",
    "?-",
    "?-|",
    "?|",
    "?||",
    "@",
    "@-@",
    "@>",
    "@?",
    "@@",
    "@@@",
    "^",
    "^@",
    "|",
    "|&>",
    "|/",
    "|>>",
    "||",
    "||/",
    "~",
    "~*",
    "~<=~",
    "~<~",
    "~=",
    "~>=~",
    "~>~",
    "~~",
    "~~*",
    "BETWEEN",
    "NOT BETWEEN",
    "BETWEEN SYMMETRIC",
    "NOT BETWEEN SYMMETRIC",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted() {
        assert!(NODES.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn what_postgresql_says() {
        let plain = |text: &str| {
            let statements = statements(text).expect(text);
            assert_eq!(statements.len(), 1, "{text}");
            assert_eq!(statements[0].truth, Truth::Plain, "{text}");
        };
        plain("select a, lower(b) from t where c like 'x%' order by 1 limit 1");
        plain("table t");
        plain("values (1, 'a'::text)");
        plain(
            "with recursive x as (select 1 union all select 2) search depth first by a set o select * from x",
        );
        let never = |text: &str, why: &str| {
            let statements = statements(text).expect(text);
            assert_eq!(statements[0].truth, Truth::Never(why.to_owned()), "{text}");
        };
        never("select nextval('s')", "function nextval");
        never("select 1 where exists (select f(1))", "function f");
        never(
            "select * from (select * from t for update) x",
            "a locking clause",
        );
        never(
            "with x as (insert into t values (1) returning *) select * from x",
            "InsertStmt inside",
        );
        never("select 1 into t", "SELECT INTO");
        never("select '1'::public.mytype", "type public.mytype");
        never("select 1 <<<>>> 2", "operator <<<>>>");
        never("select 1 operator(public.+) 2", "operator public.+");
        never(
            "select 1 = operator(public.=) any (select 2)"
                .replace("= operator", "operator")
                .as_str(),
            "operator public.=",
        );
        never("select a from t order by a using <<<", "operator <<<");
        never("select * from t tablesample mine (1)", "TABLESAMPLE mine");
        never("select * from pg_class", "a catalog");
        never(
            "explain insert into t values (1)",
            "ExplainStmt of what is not a query",
        );
        never("copy t from stdin", "CopyStmt");
        never("commit prepared 'x'", "TransactionStmt of two-phase commit");
        never("select xmlserialize(content a as mytype)", "type mytype");
    }
}
