//! A parsed statement to its class: everything in the tree must be on a list, and what is not is a write.
//!
//! The walk relies on sqlparser's visitor for reaching every expression, relation and sub-query; what it does there is
//! decided here, by lists of what is known, never by lists of what is not wanted (routing.md §2.4). What users have made is
//! looked up in the catalog of their database.

use std::ops::ControlFlow;

use sqlparser::ast::ArrayElemTypeDef as Elem;
use sqlparser::ast::{
    AccessExpr, BinaryOperator, CopySource, CopyTarget, DataType, Expr, Function,
    FunctionArgumentClause, FunctionArguments, Ident, JsonTableColumn, ObjectName, ObjectNamePart,
    Query, Select, SetExpr, Spanned, Statement, TableFactor, TableSample, TableSampleKind,
    TableSampleMethod, UnaryOperator, UtilityOption, Visit, Visitor, XmlTableColumn,
    XmlTableColumnOption,
};
use sqlparser::tokenizer::Span;

use super::catalog::{Catalog, Look, Taint};
use super::class::{Access, Reason};
use super::types;

/// Why a statement is not a read, and what shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) access: Access,
    pub(super) reason: Reason,
    /// The name or construct, for people.
    pub(super) what: String,
    /// It makes a temporary table.
    pub(super) temporary: bool,
    /// There is nothing but what is not known, or is of the catalog.
    pub(super) uncertain: bool,
    /// Where it stands, as far as the parser tells; what it tells nothing of has an empty span.
    pub(super) span: Option<Span>,
    /// How what it names comes to be what it is, from the name in the text to what decides.
    pub(super) chain: Vec<String>,
}

impl Finding {
    fn new(access: Access, reason: Reason, what: impl Into<String>) -> Finding {
        Finding {
            access,
            reason,
            what: what.into(),
            temporary: false,
            uncertain: false,
            span: None,
            chain: Vec::new(),
        }
    }
}

/// Judges parsed statements together; `None` if all of them are reads.
pub(super) fn judge(statements: &[Statement], catalog: &Catalog) -> Option<Finding> {
    let mut walk = Walk::new(catalog);
    if let Some(taint) = catalog.everything()
        && walk.tainted(&taint, "any statement").is_break()
    {
        return walk.found;
    }
    for statement in statements {
        let (inner, explained) = explained(statement);
        let before = walk.found.take();
        if walk.statement(inner, statements.len() == 1).is_break() && explained {
            // EXPLAIN without ANALYZE runs nothing, but what it plans belongs on the primary.
            if let Some(found) = &mut walk.found
                && found.reason != Reason::UnknownConstruct
            {
                found.access = Access::Primary;
            }
        }
        walk.found = worse(before, walk.found.take());
    }
    if let Some(found) = &mut walk.found {
        found.uncertain = found.reason.is_uncertain() && is_uncertain(statements, catalog);
    }
    walk.found
}

/// What an EXPLAIN is about, and whether it only plans it; any other statement as it is.
fn explained(statement: &Statement) -> (&Statement, bool) {
    match statement {
        Statement::Explain {
            statement,
            analyze,
            options,
            query_plan: false,
            estimate: false,
            ..
        } => (
            statement,
            !*analyze && !options.as_deref().is_some_and(analyzes),
        ),
        statement => (statement, false),
    }
}

/// Whether statements are queries in which nothing is known to be wrong on a standby: a second walk, which goes on behind
/// what is not known.
fn is_uncertain(statements: &[Statement], catalog: &Catalog) -> bool {
    let mut walk = Walk {
        goes_on: true,
        ..Walk::new(catalog)
    };
    let alone = statements.len() == 1;
    statements.iter().all(|statement| {
        let (inner, _) = explained(statement);
        let asks = match inner {
            Statement::Query(_) => true,
            Statement::Copy { to, target, .. } => alone && *to && *target == CopyTarget::Stdout,
            _ => false,
        };
        asks && walk.statement(inner, alone).is_continue()
    })
}

fn worse(a: Option<Finding>, b: Option<Finding>) -> Option<Finding> {
    // What is for the primary because of catalogs alone may be answered by a standby where a transaction has to stay.
    let weight = |finding: &Finding| match (finding.access, finding.reason) {
        (Access::Write, _) => 2,
        (_, Reason::Catalog) => 0,
        _ => 1,
    };
    match (a, b) {
        (Some(a), Some(b)) if weight(&b) > weight(&a) => Some(b),
        (a, b) => a.or(b),
    }
}

/// Whether EXPLAIN's options in parentheses ask for execution. Unless the value is known to mean no, they do. A number says
/// nothing: verdicts are remembered without numbers.
fn analyzes(options: &[UtilityOption]) -> bool {
    let means_no = |value: &Expr| {
        matches!(
            value.to_string().to_ascii_lowercase().as_str(),
            "false" | "off"
        )
    };
    options
        .iter()
        .filter(|option| option.name.value.eq_ignore_ascii_case("analyze"))
        .any(|option| !option.arg.as_ref().is_some_and(means_no))
}

struct Walk<'a> {
    catalog: &'a Catalog,
    /// What WITH defines, for each query that is open.
    with: Vec<Scope>,
    /// The name of the function in FROM that was looked at last: it is visited as a relation's, too.
    called: Option<*const ObjectName>,
    found: Option<Finding>,
    /// What is not known does not end it.
    goes_on: bool,
}

/// The names of one WITH, each with its query.
#[derive(Default)]
struct Scope {
    names: Vec<(String, *const Query)>,
    /// How many of them may be meant. Without RECURSIVE a name is known behind its own query only (PostgreSQL manual, SELECT,
    /// "WITH Clause").
    known: usize,
}

impl Scope {
    fn new(query: &Query) -> Scope {
        let Some(with) = &query.with else {
            return Scope::default();
        };
        let names = with.cte_tables.iter();
        Scope {
            names: names
                .map(|table| (folded(&table.alias.name), std::ptr::from_ref(&*table.query)))
                .collect(),
            known: if with.recursive {
                with.cte_tables.len()
            } else {
                0
            },
        }
    }

    /// A query has been walked, which may be that of the next name.
    fn walked(&mut self, query: &Query) {
        let next = self.names.get(self.known);
        if next.is_some_and(|(_, next)| std::ptr::eq(*next, query)) {
            self.known += 1;
        }
    }
}

type Step = ControlFlow<()>;

impl<'a> Walk<'a> {
    fn new(catalog: &'a Catalog) -> Walk<'a> {
        Walk {
            catalog,
            with: Vec::new(),
            called: None,
            found: None,
            goes_on: false,
        }
    }

    fn statement(&mut self, statement: &Statement, alone: bool) -> Step {
        match statement {
            Statement::Copy {
                source,
                to: true,
                target: CopyTarget::Stdout,
                ..
            } if alone => match source {
                CopySource::Query(query) => query.visit(self),
                CopySource::Table { table_name, .. } => self.pre_visit_relation(table_name),
            },
            statement => statement.visit(self),
        }
    }

    /// A write ends the walk; something for the primary only is remembered, because a write may follow.
    fn find(&mut self, access: Access, reason: Reason, what: impl Into<String>) -> Step {
        self.note(Finding::new(access, reason, what))
    }

    fn note(&mut self, finding: Finding) -> Step {
        let (access, reason) = (finding.access, finding.reason);
        self.found = worse(self.found.take(), Some(finding));
        if access == Access::Write && !(self.goes_on && reason.is_uncertain()) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn write(&mut self, reason: Reason, what: impl Into<String>) -> Step {
        self.find(Access::Write, reason, what)
    }

    /// What has just been found stands here. Spans are put together from all of a node's children, so they are asked for
    /// only then.
    fn locate(&mut self, span: impl FnOnce() -> Span) {
        if let Some(found) = self.found.as_mut().filter(|found| found.span.is_none()) {
            found.span = Some(span());
        }
    }

    fn function(&mut self, name: &ObjectName) -> Step {
        let parts = names(name);
        let look = match parts.as_deref() {
            Some([name]) => self.catalog.function("", name),
            Some([schema, name] | [_, schema, name]) => self.catalog.function(schema, name),
            _ => Look::Missing,
        };
        self.look(look, Reason::Function, || format!("function {name}"))
    }

    /// Clauses among a function's arguments. The visitor sees their expressions, and not their types.
    fn clauses(&mut self, function: &Function) -> Step {
        for arguments in [&function.args, &function.parameters] {
            let FunctionArguments::List(list) = arguments else {
                continue;
            };
            for clause in &list.clauses {
                match clause {
                    FunctionArgumentClause::OrderBy(_)
                    | FunctionArgumentClause::JsonNullClause(_) => {}
                    FunctionArgumentClause::JsonReturningClause(returning) => {
                        self.data_type(&returning.data_type)?;
                    }
                    _ => return self.write(Reason::UnknownConstruct, "a clause of a function"),
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn plain_function(&mut self, name: &str) -> Step {
        let look = self.catalog.function("", name);
        self.look(look, Reason::Function, || format!("function {name}"))
    }

    /// What the catalog says of a name.
    fn look(&mut self, look: Look, reason: Reason, what: impl FnOnce() -> String) -> Step {
        match look {
            Look::Good => ControlFlow::Continue(()),
            Look::Tainted(taint) => self.tainted(&taint, &what()),
            Look::NotLoaded => self.write(Reason::NotLoaded, what()),
            Look::Missing if self.catalog.has_names() => self.write(Reason::UnknownName, what()),
            Look::Missing => self.write(reason, what()),
        }
    }

    fn tainted(&mut self, taint: &Taint, what: &str) -> Step {
        if self.goes_on {
            // What a function is declared as says little. What a view, a domain or a policy reaches is known.
            let declared = taint.is_of_a_function() && self.catalog.chain(taint).len() <= 1;
            return match taint.reason == Reason::Catalog || declared {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            };
        }
        let (access, reason) = (taint.access, taint.reason);
        let finding = Finding {
            chain: self.catalog.chain(taint),
            ..Finding::new(access, reason, what)
        };
        self.note(finding)
    }

    fn data_type(&mut self, data_type: &DataType) -> Step {
        if let Some(taint) = self.catalog.casts() {
            self.tainted(&taint, "a cast")?;
        }
        if is_built_in(data_type) {
            return ControlFlow::Continue(());
        }
        let look = match data_type {
            DataType::Array(
                Elem::SquareBracket(inner, _)
                | Elem::Parenthesis(inner)
                | Elem::AngleBracket(inner),
            ) => return self.data_type(inner),
            DataType::Custom(name, _) => match names(name).as_deref() {
                Some([name]) => self.catalog.data_type("", name),
                Some([schema, name]) => self.catalog.data_type(schema, name),
                _ => Look::Missing,
            },
            _ => Look::Missing,
        };
        self.look(look, Reason::Type, || format!("type {data_type}"))
    }

    /// An attribute of a row, which may be a function of it (PostgreSQL manual, 38.5.2: functional notation).
    fn attribute(&mut self, name: &Ident) -> Step {
        match self.catalog.attribute(&folded(name)) {
            Some(taint) => self.tainted(&taint, &name.value),
            None => ControlFlow::Continue(()),
        }
    }

    /// An operator that PostgreSQL has, unless the user's by the same name is another.
    fn known_operator(&mut self, operator: &dyn std::fmt::Display) -> Step {
        if self.catalog.has_tainted_operators()
            && let Look::Tainted(taint) = self.catalog.operator(&operator.to_string())
        {
            return self.tainted(&taint, "an operator");
        }
        ControlFlow::Continue(())
    }

    fn operator(&mut self, operator: &BinaryOperator) -> Step {
        use BinaryOperator as Op;
        let custom = match operator {
            Op::Custom(name) => Some(name.as_str()),
            Op::PGCustomBinaryOperator(parts) => parts.last().map(String::as_str),
            _ => None,
        };
        if let Some(name) = custom {
            let look = self.catalog.operator(name);
            return self.look(look, Reason::Operator, || format!("operator {operator}"));
        }
        let known = !matches!(
            operator,
            Op::DuckIntegerDivide
                | Op::MyIntegerDivide
                | Op::Match
                | Op::Regexp
                | Op::Glob
                | Op::Spaceship
                | Op::Xor
                | Op::Assignment
        );
        if known {
            self.known_operator(operator)
        } else {
            self.write(Reason::Operator, format!("operator {operator}"))
        }
    }

    /// The body of a query, which knows all names of its WITH.
    fn body(&mut self, query: &Query) -> Step {
        let known = |scope: &mut Scope, known| std::mem::replace(&mut scope.known, known);
        let all = query.with.as_ref().map_or(0, |with| with.cte_tables.len());
        let before = self.with.last_mut().map(|scope| known(scope, all));
        let step = self.set_expression(&query.body);
        if let (Some(scope), Some(before)) = (self.with.last_mut(), before) {
            scope.known = before;
        }
        step
    }

    fn set_expression(&mut self, body: &SetExpr) -> Step {
        // Arms of set operations lean to the left, thousands deep if a client likes.
        let mut pending = vec![body];
        while let Some(body) = pending.pop() {
            match body {
                // Visited on their own.
                SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => {}
                SetExpr::SetOperation { left, right, .. } => pending.extend([&**left, &**right]),
                SetExpr::Table(table) => {
                    let schema = table
                        .schema_name
                        .as_deref()
                        .unwrap_or_default()
                        .to_ascii_lowercase();
                    let name = table
                        .table_name
                        .as_deref()
                        .unwrap_or_default()
                        .to_ascii_lowercase();
                    self.relation(&schema, &name)?;
                }
                SetExpr::Insert(_)
                | SetExpr::Update(_)
                | SetExpr::Delete(_)
                | SetExpr::Merge(_) => {
                    return self.write(
                        Reason::DataModifying,
                        "a data-modifying statement inside the query",
                    );
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn relation(&mut self, schema: &str, name: &str) -> Step {
        if schema.starts_with("pg_temp") {
            return self.write(Reason::Session, format!("relation {schema}.{name}"));
        }
        let catalog = match schema {
            "" => name.starts_with("pg_"),
            schema => schema == "information_schema" || schema.starts_with("pg_"),
        };
        let look = self.catalog.relation(schema, name);
        if catalog && look == Look::Missing && self.catalog.is_replicated(schema, name) {
            return ControlFlow::Continue(());
        }
        if catalog && !matches!(look, Look::Tainted(_)) {
            return self.find(Access::Primary, Reason::Catalog, format!("relation {name}"));
        }
        // A name of WITH that a relation bears, too, is looked at as that.
        let mut with = (self.with.iter()).flat_map(|scope| &scope.names[..scope.known]);
        if look == Look::Missing && schema.is_empty() && with.any(|(known, _)| known == name) {
            return ControlFlow::Continue(());
        }
        self.look(look, Reason::Relation, || match schema {
            "" => format!("relation {name}"),
            schema => format!("relation {schema}.{name}"),
        })
    }

    /// The types of columns behind a FROM item: `f() AS t (a int, b mytype)` makes values of them.
    fn columns(&mut self, factor: &TableFactor) -> Step {
        let alias = match factor {
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::XmlTable { alias, .. }
            | TableFactor::JsonTable { alias, .. }
            | TableFactor::NestedJoin { alias, .. } => alias,
            // Not one of PostgreSQL's, or not known: judged as a whole.
            _ => return ControlFlow::Continue(()),
        };
        let columns = alias.iter().flat_map(|alias| &alias.columns);
        for data_type in columns.filter_map(|column| column.data_type.as_ref()) {
            self.data_type(data_type)?;
        }
        ControlFlow::Continue(())
    }

    /// XMLTABLE makes values of the types of its columns.
    fn values_of_columns(&mut self, columns: &[XmlTableColumn]) -> Step {
        for column in columns {
            if let XmlTableColumnOption::NamedInfo { r#type, .. } = &column.option {
                self.data_type(r#type)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// So does JSON_TABLE, at any depth.
    fn values_of_json(&mut self, columns: &[JsonTableColumn]) -> Step {
        let mut pending: Vec<&JsonTableColumn> = columns.iter().collect();
        while let Some(column) = pending.pop() {
            match column {
                JsonTableColumn::Named(column) => self.data_type(&column.r#type)?,
                JsonTableColumn::Nested(nested) => pending.extend(&nested.columns),
                JsonTableColumn::ForOrdinality(_) => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn sample(&mut self, sample: Option<&TableSampleKind>) -> Step {
        let sample: &TableSample = match sample {
            None => return ControlFlow::Continue(()),
            Some(
                TableSampleKind::BeforeTableAlias(sample)
                | TableSampleKind::AfterTableAlias(sample),
            ) => sample,
        };
        match sample.name {
            Some(TableSampleMethod::Bernoulli | TableSampleMethod::System) => {
                ControlFlow::Continue(())
            }
            _ => self.write(Reason::UnknownConstruct, "TABLESAMPLE"),
        }
    }
}

impl Visitor for Walk<'_> {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> Step {
        let step = match statement {
            Statement::Query(_) => ControlFlow::Continue(()),
            Statement::Insert(_)
            | Statement::Update { .. }
            | Statement::Delete(_)
            | Statement::Merge { .. } => {
                self.write(Reason::DataModifying, "a data-modifying statement")
            }
            _ => self.write(Reason::UnknownConstruct, "a statement that is not a query"),
        };
        self.locate(|| statement.span());
        step
    }

    fn pre_visit_query(&mut self, query: &Query) -> Step {
        self.with.push(Scope::new(query));
        if let Some(lock) = query.locks.first() {
            let step = self.write(Reason::Locking, lock.to_string());
            self.locate(|| query.span());
            return step;
        }
        let foreign = query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty();
        if foreign {
            return self.write(
                Reason::UnknownConstruct,
                "a clause that PostgreSQL does not have",
            );
        }
        let step = self.body(query);
        self.locate(|| query.body.span());
        step
    }

    fn post_visit_query(&mut self, query: &Query) -> Step {
        self.with.pop();
        if let Some(outer) = self.with.last_mut() {
            outer.walked(query);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> Step {
        if let Some(into) = &select.into {
            let step = self.write(Reason::SelectInto, "SELECT INTO");
            if let Some(found) = &mut self.found {
                found.temporary = into.temporary;
            }
            self.locate(|| into.span());
            return step;
        }
        let foreign = select.top.is_some()
            || !select.lateral_views.is_empty()
            || !select.connect_by.is_empty()
            || select.prewhere.is_some()
            || select.qualify.is_some()
            || select.value_table_mode.is_some();
        if foreign {
            return self.write(
                Reason::UnknownConstruct,
                "a clause that PostgreSQL does not have",
            );
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_ident(&mut self, ident: &Ident) -> Step {
        // The parser takes `SELECT mytype 'x'` for a column with a string as its alias. PostgreSQL has no such aliases:
        // it is a constant of a type, which may be a user's.
        match ident.quote_style {
            // `SELECT INTO t` without columns is a column and its alias for the parser. The word is reserved.
            None if ident.value.eq_ignore_ascii_case("into") => {
                self.write(Reason::SelectInto, "SELECT INTO")
            }
            // Commands of a transaction are not counted in what standbys replay.
            None | Some('"') if matches!(folded(ident).as_str(), "cmin" | "cmax") => {
                let what = format!("column {ident}");
                self.find(Access::Primary, Reason::Relation, what)
            }
            None | Some('"') => ControlFlow::Continue(()),
            Some(_) => {
                let step = self.write(Reason::Type, format!("constant of a type before {ident}"));
                self.locate(|| ident.span);
                step
            }
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> Step {
        if self.called == Some(std::ptr::from_ref(relation)) {
            return ControlFlow::Continue(());
        }
        let step = match names(relation).as_deref() {
            Some([name]) => self.relation("", name),
            Some([schema, name] | [_, schema, name]) => self.relation(schema, name),
            _ => self.write(Reason::UnknownConstruct, format!("relation {relation}")),
        };
        self.locate(|| relation.span());
        step
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Step {
        self.columns(factor)?;
        let step = match factor {
            TableFactor::Table {
                name,
                args: Some(_),
                ..
            } => {
                self.called = Some(std::ptr::from_ref(name));
                self.function(name)
            }
            TableFactor::Table {
                args: None,
                with_hints,
                version: None,
                partitions,
                json_path: None,
                sample,
                index_hints,
                ..
            } if with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() => {
                self.sample(sample.as_ref())
            }
            TableFactor::Derived { sample, .. } => self.sample(sample.as_ref()),
            TableFactor::Function { name, .. } => self.function(name),
            TableFactor::UNNEST { .. } => self.plain_function("unnest"),
            TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
            TableFactor::XmlTable { columns, .. } => self.values_of_columns(columns),
            TableFactor::JsonTable { columns, .. } => self.values_of_json(columns),
            _ => self.write(Reason::UnknownConstruct, "a FROM item that is not known"),
        };
        self.locate(|| factor.span());
        step
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Step {
        let step = match expr {
            Expr::Function(function) if is_constructor(function) => ControlFlow::Continue(()),
            Expr::Function(function) => {
                self.clauses(function)?;
                self.function(&function.name)
            }
            Expr::Cast {
                data_type,
                format: None,
                ..
            } => self.data_type(data_type),
            Expr::TypedString(typed) => self.data_type(&typed.data_type),
            Expr::BinaryOp { op, .. } => self.operator(op),
            Expr::AnyOp { compare_op, .. } | Expr::AllOp { compare_op, .. } => {
                self.operator(compare_op)
            }
            Expr::UnaryOp {
                op: UnaryOperator::BangNot | UnaryOperator::PGPostfixFactorial,
                ..
            } => self.write(Reason::Operator, "an operator that is not built in"),
            Expr::UnaryOp { op, .. } => self.known_operator(op),
            // Unlike the grammar's other functions these are looked up as any name is, at least with commas between their
            // arguments (gram.y, func_expr_common_subexpr).
            Expr::Ceil { .. } => self.plain_function("ceil"),
            Expr::Floor { .. } => self.plain_function("floor"),
            Expr::Substring { .. } => self.plain_function("substring"),
            Expr::Overlay { .. } => self.plain_function("overlay"),
            Expr::CompoundIdentifier(parts) => match parts.last() {
                Some(name) => self.attribute(name),
                None => ControlFlow::Continue(()),
            },
            Expr::CompoundFieldAccess { access_chain, .. } => {
                for access in access_chain {
                    if let AccessExpr::Dot(Expr::Identifier(name)) = access {
                        self.attribute(name)?;
                    }
                }
                ControlFlow::Continue(())
            }
            // MATERIALIZED literals such as _utf8'x' are MySQL's.
            Expr::Prefixed { .. } => self.write(Reason::UnknownConstruct, "a prefixed literal"),
            Expr::Identifier(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::IsNormalized { .. }
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::SimilarTo { .. }
            | Expr::AtTimeZone { .. }
            | Expr::Extract { .. }
            | Expr::Position { .. }
            | Expr::Trim { .. }
            | Expr::Collate { .. }
            | Expr::Nested(_)
            | Expr::Value(_)
            | Expr::Case { .. }
            | Expr::Exists { .. }
            | Expr::Subquery(_)
            | Expr::GroupingSets(_)
            | Expr::Cube(_)
            | Expr::Rollup(_)
            | Expr::Tuple(_)
            | Expr::Array(_)
            | Expr::Interval(_)
            | Expr::IsJson { .. }
            // xmlforest(a AS b)
            | Expr::Named { .. }
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..) => ControlFlow::Continue(()),
            // Nobody reads it, and one may stand in another thousands of times.
            _ if self.goes_on => self.write(Reason::UnknownConstruct, "an expression"),
            other => self.write(Reason::UnknownConstruct, format!("expression {other}")),
        };
        self.locate(|| expr.span());
        step
    }
}

/// `ARRAY(SELECT …)` and `ROW(…)`, which the parser takes for calls. No function is called so without quotes.
fn is_constructor(function: &Function) -> bool {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else {
        return false;
    };
    let is = |word: &str| name.quote_style.is_none() && name.value.eq_ignore_ascii_case(word);
    is("row") || is("array") && matches!(function.args, FunctionArguments::Subquery(_))
}

/// The parts of a name, folded as the server folds them; `None` for a name that is computed.
fn names(name: &ObjectName) -> Option<Vec<String>> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Some(folded(ident)),
            ObjectNamePart::Function(_) => None,
        })
        .collect()
}

fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_ascii_lowercase()
    }
}

/// Types by the names that PostgreSQL has for them. sqlparser has types of its own for other dialects' names, which a
/// user's type may bear in PostgreSQL: they are on no list.
fn is_built_in(data_type: &DataType) -> bool {
    match data_type {
        DataType::Character(_)
        | DataType::Char(_)
        | DataType::CharacterVarying(_)
        | DataType::CharVarying(_)
        | DataType::Varchar(_)
        | DataType::Uuid
        | DataType::Numeric(_)
        | DataType::Decimal(_)
        | DataType::Dec(_)
        | DataType::Int2(_)
        | DataType::SmallInt(_)
        | DataType::Int(_)
        | DataType::Int4(_)
        | DataType::Int8(_)
        | DataType::Integer(_)
        | DataType::BigInt(_)
        | DataType::Float(_)
        | DataType::Float4
        | DataType::Float8
        | DataType::Real
        | DataType::DoublePrecision
        | DataType::Bool
        | DataType::Boolean
        | DataType::Date
        | DataType::Time(..)
        | DataType::Timestamp(..)
        | DataType::Interval { .. }
        | DataType::JSON
        | DataType::JSONB
        | DataType::Regclass
        | DataType::Text
        | DataType::Bytea
        | DataType::Bit(_)
        | DataType::BitVarying(_)
        | DataType::VarBit(_)
        | DataType::TsVector
        | DataType::TsQuery
        | DataType::GeometricType(_) => true,
        DataType::Array(
            Elem::SquareBracket(inner, _) | Elem::Parenthesis(inner) | Elem::AngleBracket(inner),
        ) => is_built_in(inner),
        DataType::Custom(name, _) => match names(name).as_deref() {
            Some([name]) => types::is_built_in(name),
            Some([schema, name]) => schema == "pg_catalog" && types::is_built_in(name),
            _ => false,
        },
        _ => false,
    }
}
