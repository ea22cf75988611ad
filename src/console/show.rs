//! Results: their columns, and how facts become rows.

use std::time::Duration;

use super::facts::{Destination, NodeFact, PoolFact, RouteFact};
use crate::sql::ShapeReport;
use crate::wire::rows::Type::{Bool, Float8, Int4, Int8, Text};
use crate::wire::rows::{Column, Type, Value};

/// Statements that SHOW QUERIES shows.
pub(super) const TOP: usize = 100;

const fn column(name: &'static str, kind: Type) -> Column {
    Column { name, kind }
}

pub(super) static VERSION: &[Column] = &[column("version", Text)];

/// One column, with three numbers in it: tools for PgBouncer look for that.
pub(super) fn version(version: &str) -> Vec<Vec<Value>> {
    vec![vec![text(format!("pgweir {version}"))]]
}

pub(super) static NODES: &[Column] = &[
    column("cluster", Text),
    column("node", Text),
    column("address", Text),
    column("role", Text),
    column("reads", Bool),
    column("timeline", Int8),
    column("lsn", Text),
    column("lag_bytes", Int8),
    column("lag_ms", Float8),
    column("paused", Bool),
    column("seen_ms", Float8),
    column("clients", Int4),
    column("as_primary", Int8),
    column("as_standby", Int8),
];

pub(super) fn nodes(nodes: &[NodeFact]) -> Vec<Vec<Value>> {
    let row = |node: &NodeFact| {
        vec![
            text(&node.cluster),
            text(&node.node),
            text(&node.address),
            text(node.role),
            Value::Bool(node.reads),
            maybe(node.timeline.map(|timeline| Value::Int8(timeline.into()))),
            maybe(node.lsn.as_ref().map(text)),
            maybe(node.lag_bytes.map(count)),
            maybe(node.lag.map(milliseconds)),
            Value::Bool(node.paused),
            maybe(node.seen.map(milliseconds)),
            small(node.clients as usize),
            count(node.statements[0]),
            count(node.statements[1]),
        ]
    };
    nodes.iter().map(row).collect()
}

pub(super) static ROUTES: &[Column] = &[
    column("target", Text),
    column("reason", Text),
    column("statements", Int8),
];

pub(super) fn routes(routes: &[RouteFact]) -> Vec<Vec<Value>> {
    let row = |route: &RouteFact| {
        vec![
            text(route.target),
            text(route.reason),
            count(route.statements),
        ]
    };
    routes.iter().map(row).collect()
}

pub(super) static QUERIES: &[Column] = &[
    column("fingerprint", Text),
    column("query", Text),
    column("calls", Int8),
    column("total_ms", Float8),
    column("mean_ms", Float8),
    column("bytes", Int8),
    column("on_primary", Int8),
    column("on_standby", Int8),
    column("class", Text),
    column("reason", Text),
    column("bounces", Int8),
];

pub(super) fn queries(shapes: &[ShapeReport]) -> Vec<Vec<Value>> {
    let row = |shape: &ShapeReport| {
        let total = shape.nanoseconds as f64 / 1e6;
        let told_apart = |value: Value| shape.class.map_or(Value::Null, |_| value);
        vec![
            told_apart(text(format!("{:016x}", shape.fingerprint))),
            told_apart(text(&*shape.text)),
            count(shape.calls()),
            Value::Float8(rounded(total)),
            Value::Float8(rounded(total / shape.calls().max(1) as f64)),
            count(shape.bytes),
            count(shape.primary),
            count(shape.standby),
            maybe(shape.class.map(|(access, _)| text(access.as_str()))),
            maybe(shape.class.map(|(_, reason)| text(reason.as_str()))),
            count(shape.bounces),
        ]
    };
    shapes.iter().map(row).collect()
}

/// PgBouncer 1.25's columns, in its order. Some tools go by their number.
pub(super) static POOLS: &[Column] = &[
    column("database", Text),
    column("user", Text),
    column("cl_active", Int4),
    column("cl_waiting", Int4),
    column("cl_active_cancel_req", Int4),
    column("cl_waiting_cancel_req", Int4),
    column("sv_active", Int4),
    column("sv_active_cancel", Int4),
    column("sv_being_canceled", Int4),
    column("sv_idle", Int4),
    column("sv_used", Int4),
    column("sv_tested", Int4),
    column("sv_login", Int4),
    column("maxwait", Int4),
    column("maxwait_us", Int4),
    column("pool_mode", Text),
    column("load_balance_hosts", Text),
];

pub(super) fn pools(pools: &[PoolFact]) -> Vec<Vec<Value>> {
    // States of PgBouncer's that a connection here is never in: cancel requests do not queue, and a connection that has to
    // be asked before it is used is asked in use.
    let never = || small(0);
    let row = |pool: &PoolFact| {
        let wait = pool.longest_wait;
        vec![
            text(&pool.database),
            text(&pool.user),
            small(pool.clients),
            small(pool.waiting),
            never(),
            never(),
            small(pool.active),
            never(),
            never(),
            small(pool.idle),
            never(),
            never(),
            never(),
            small(usize::try_from(wait.as_secs()).unwrap_or(usize::MAX)),
            small(wait.subsec_micros() as usize),
            text(pool.mode),
            Value::Null,
        ]
    };
    pools.iter().map(row).collect()
}

pub(super) static EXPLAIN: &[Column] = &[
    column("cluster", Text),
    column("database", Text),
    column("target", Text),
    column("node", Text),
    column("route", Text),
    column("class", Text),
    column("reason", Text),
    column("detail", Text),
    column("line", Int4),
    column("column", Int4),
    column("excerpt", Text),
    column("chain", Text),
];

pub(super) fn explain(sql: &str, destinations: &[Destination]) -> Vec<Vec<Value>> {
    let some = |words: &str| match words {
        "" => Value::Null,
        words => text(words),
    };
    let row = |to: &Destination| {
        let explanation = &to.explanation;
        let place = explanation.place;
        vec![
            text(&to.cluster),
            maybe(to.database.as_ref().map(text)),
            maybe(to.role.map(text)),
            maybe(to.node.as_ref().map(text)),
            text(to.route),
            text(explanation.class.access.as_str()),
            text(explanation.class.reason.as_str()),
            some(&explanation.detail),
            maybe(place.map(|place| small(place.line))),
            maybe(place.map(|place| small(place.column))),
            maybe(place.map(|place| text(place.excerpt(sql)))),
            some(&explanation.chain_text()),
        ]
    };
    destinations.iter().map(row).collect()
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn maybe(value: Option<Value>) -> Value {
    value.unwrap_or(Value::Null)
}

fn count(number: u64) -> Value {
    Value::Int8(i64::try_from(number).unwrap_or(i64::MAX))
}

fn small(number: usize) -> Value {
    Value::Int4(i32::try_from(number).unwrap_or(i32::MAX))
}

fn milliseconds(time: Duration) -> Value {
    Value::Float8(rounded(time.as_secs_f64() * 1e3))
}

/// To microseconds: what is beyond is noise.
fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 1e3).round() / 1e3
}
