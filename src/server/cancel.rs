//! Cancel requests to servers.

use std::time::Duration;

use tokio::time::timeout;

use super::ServerError;
use crate::net::{self, Address, TcpOptions};
use crate::wire::startup::put_cancel;

/// Asks a node to cancel what one of its processes runs, and waits until the node has closed the connection: by then
/// the signal has been sent, so that whoever holds the server connection knows that no cancel is on its way to it any
/// more. PostgreSQL manual, "Canceling Requests in Progress", protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS.
///
/// # Errors
/// [`ServerError`] if the node could not be reached, or did not close within `deadline`. Then a cancel may still be on
/// its way, and the server connection must not be used for anybody else.
pub async fn cancel(
    address: &Address,
    tcp: TcpOptions,
    process: i32,
    key: &[u8],
    deadline: Duration,
) -> Result<(), ServerError> {
    let exchange = async {
        let mut stream = net::connect(address, tcp)
            .await
            .map_err(ServerError::Connect)?;
        let mut request = Vec::new();
        put_cancel(process, key, &mut request);
        stream.write_all(&request).await?;
        let mut buffer = [0; 64];
        // A reset instead of an orderly end is as good: the server process is gone.
        while matches!(stream.read(&mut buffer).await, Ok(n) if n > 0) {}
        Ok(())
    };
    match timeout(deadline, exchange).await {
        Ok(result) => result,
        Err(_) => Err(ServerError::Timeout),
    }
}
