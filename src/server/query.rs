//! Small questions on a connection of the proxy's own.

use std::time::Duration;

use tokio::time::timeout;

use super::{Messages, Reported, Server, ServerError};
use crate::wire::backend::{columns, parameter};
use crate::wire::frontend::put_query;

/// Rows of text values.
pub type Rows = Vec<Vec<Option<String>>>;

/// Runs one simple Query and collects its rows. After an error the connection must not be used again.
///
/// # Errors
/// [`ServerError`]; [`ServerError::Timeout`] after `deadline`.
pub async fn query(
    server: &mut Server,
    sql: &str,
    deadline: Duration,
) -> Result<Rows, ServerError> {
    match timeout(deadline, run(server, sql.as_bytes())).await {
        Ok(result) => result.map(|(rows, _)| rows),
        Err(_) => Err(ServerError::Timeout),
    }
}

/// Runs statements for their effect on the session and tells which settings the server reports as changed.
///
/// # Errors
/// As [`query`].
pub async fn apply(
    server: &mut Server,
    sql: &[u8],
    deadline: Duration,
) -> Result<Reported, ServerError> {
    match timeout(deadline, run(server, sql)).await {
        Ok(result) => result.map(|(_, reported)| reported),
        Err(_) => Err(ServerError::Timeout),
    }
}

async fn run(server: &mut Server, sql: &[u8]) -> Result<(Rows, Reported), ServerError> {
    let mut out = Vec::new();
    let mut reported = Reported::default();
    put_query(sql, &mut out);
    // Whoever stops waiting leaves an answer behind that nobody else must read.
    let doubtful = std::mem::replace(&mut server.link.doubtful, true);
    server.stream.write_all(&out).await?;
    let mut messages = Messages::default();
    let mut rows = Vec::new();
    loop {
        let message = messages.next(&mut server.stream).await?;
        match message.tag {
            b'D' => {
                let row =
                    columns(&message.body).ok_or(ServerError::Protocol("a malformed DataRow"))?;
                rows.push(
                    row.into_iter()
                        .map(|v| v.map(|v| String::from_utf8_lossy(v).into_owned()))
                        .collect(),
                );
            }
            b'Z' => {
                server.link.doubtful = doubtful;
                return Ok((rows, reported));
            }
            b'S' => {
                if let Some((name, value)) = parameter(&message.body) {
                    reported.set(
                        &String::from_utf8_lossy(name),
                        &String::from_utf8_lossy(value),
                    );
                }
            }
            b'T' | b'C' | b'N' | b'I' => {}
            _ => {
                return Err(ServerError::Protocol(
                    "an unexpected message in a query's answer",
                ));
            }
        }
    }
}
