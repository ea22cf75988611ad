//! What a file that says nothing means.

use super::shape::{Filled, Shape};
use super::{Pool, Timeouts, keys};

fn default<S: Filled>(key: &keys::Key<S>) -> <S as Shape>::Value {
    key.shape.filled()
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            mode: default(&keys::POOL_MODE),
            size: default(&keys::POOL_SIZE),
            min: default(&keys::POOL_MIN),
            reserve: default(&keys::POOL_RESERVE),
            reserve_after: default(&keys::POOL_RESERVE_AFTER),
            wait_timeout: default(&keys::POOL_WAIT_TIMEOUT),
            max_prepared: default(&keys::POOL_MAX_PREPARED),
            connect_query: None,
            reset_query: None,
            listen: default(&keys::POOL_LISTEN),
            deferred_begin: default(&keys::POOL_DEFERRED_BEGIN),
            optimistic: default(&keys::POOL_OPTIMISTIC),
            currval: default(&keys::POOL_CURRVAL),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            login: default(&keys::TIMEOUT_LOGIN),
            connect: default(&keys::TIMEOUT_CONNECT),
            cancel: default(&keys::TIMEOUT_CANCEL),
            shutdown: default(&keys::TIMEOUT_SHUTDOWN),
            server_idle: default(&keys::TIMEOUT_SERVER_IDLE),
            server_lifetime: default(&keys::TIMEOUT_SERVER_LIFETIME),
            server_check: default(&keys::TIMEOUT_SERVER_CHECK),
            client_idle: None,
            idle_in_transaction: None,
            transaction: None,
            query: None,
            client_write: None,
            tcp_keepalive: default(&keys::TIMEOUT_TCP_KEEPALIVE),
            tcp_user: None,
        }
    }
}
