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
    within(deadline, run(server, sql.as_bytes()))
        .await
        .map(|(rows, _)| rows)
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
    within(deadline, run(server, sql))
        .await
        .map(|(_, reported)| reported)
}

/// Parts that a deadline is counted in.
const PARTS: u32 = 10;

/// A deadline for the server, not for this process: while this one stands still, or the machine below both, only one part
/// of it goes by. A server that had no time to answer either is not taken for silent.
async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, ServerError>>,
) -> Result<T, ServerError> {
    let mut work = std::pin::pin!(work);
    for _ in 0..PARTS {
        if let Ok(result) = timeout(deadline / PARTS, work.as_mut()).await {
            return result;
        }
    }
    Err(ServerError::Timeout)
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

#[cfg(test)]
mod tests {
    use super::*;

    use tokio::sync::oneshot;
    use tokio::time::{Instant, advance};

    #[tokio::test(start_paused = true)]
    async fn a_deadline_passes_once_for_a_silent_server() {
        let start = Instant::now();
        let result = within(
            Duration::from_secs(1),
            std::future::pending::<Result<(), _>>(),
        )
        .await;
        assert!(matches!(result, Err(ServerError::Timeout)));
        let took = start.elapsed();
        // Timers count whole milliseconds.
        assert!((1000..=1020).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_standstill_costs_the_server_one_part() {
        let (answer, answered) = oneshot::channel();
        let work = async { answered.await.map_err(|_| ServerError::Closed) };
        let asked = tokio::spawn(within(Duration::from_secs(1), work));
        tokio::task::yield_now().await;
        advance(Duration::from_secs(30)).await;
        // The server stood still as well, and answers as soon as it runs again. The clock is the test's: nobody waits.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!asked.is_finished());
        answer.send(7).expect("somebody who waits");
        assert_eq!(asked.await.expect("no panic").expect("an answer"), 7);
    }
}
