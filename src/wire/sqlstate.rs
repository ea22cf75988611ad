//! The SQLSTATE codes that the proxy may raise, each with its condition name.
//!
//! PostgreSQL manual, "PostgreSQL Error Codes", errcodes-appendix.html.

macro_rules! sqlstates {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $condition:literal;)*) => {
        /// A condition that the proxy itself reports.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum SqlState { $($(#[$doc])* $name,)* }

        impl SqlState {
            /// Every code, in the order of declaration.
            pub const ALL: &[SqlState] = &[$(SqlState::$name,)*];

            /// The five characters that clients see.
            pub fn code(self) -> &'static str {
                match self { $(SqlState::$name => $code,)* }
            }

            /// The condition name of the manual's table.
            pub fn condition(self) -> &'static str {
                match self { $(SqlState::$name => $condition,)* }
            }
        }
    };
}

sqlstates! {
    /// No error at all.
    SuccessfulCompletion = "00000", "successful_completion";
    /// A node was lost while a statement was in flight that changes nothing.
    ConnectionFailure = "08006", "connection_failure";
    /// A node was lost after a write was sent: whether it was done is unknown.
    TransactionResolutionUnknown = "08007", "transaction_resolution_unknown";
    /// The client, or a node, broke the protocol.
    ProtocolViolation = "08P01", "protocol_violation";
    /// What was asked for is not offered.
    FeatureNotSupported = "0A000", "feature_not_supported";
    /// A setting that the session has made is refused where it is to be carried over.
    InvalidParameterValue = "22023", "invalid_parameter_value";
    /// A transaction that reads from a standby is given something that needs the primary.
    ReadOnlySqlTransaction = "25006", "read_only_sql_transaction";
    /// A transaction has failed, and its end is all that it may be given.
    InFailedSqlTransaction = "25P02", "in_failed_sql_transaction";
    /// A client sent nothing for too long, inside a transaction.
    IdleInTransactionSessionTimeout = "25P03", "idle_in_transaction_session_timeout";
    /// A transaction took too long.
    TransactionTimeout = "25P04", "transaction_timeout";
    /// A prepared statement that does not exist.
    InvalidSqlStatementName = "26000", "invalid_sql_statement_name";
    /// The client may not log in, for another reason than a wrong password.
    InvalidAuthorizationSpecification = "28000", "invalid_authorization_specification";
    /// Wrong password, or a user that does not exist.
    InvalidPassword = "28P01", "invalid_password";
    /// A portal that does not exist.
    InvalidCursorName = "34000", "invalid_cursor_name";
    /// The database is not configured.
    InvalidCatalogName = "3D000", "invalid_catalog_name";
    /// A setting of the proxy's own is not for this user.
    InsufficientPrivilege = "42501", "insufficient_privilege";
    /// A setting that the proxy does not have.
    UndefinedObject = "42704", "undefined_object";
    /// A prepared statement that exists already.
    DuplicatePreparedStatement = "42P05", "duplicate_prepared_statement";
    /// No server connection became free in time.
    InsufficientResources = "53000", "insufficient_resources";
    /// A limit on clients is reached.
    TooManyConnections = "53300", "too_many_connections";
    /// The statement was cancelled while it waited for a server connection.
    QueryCanceled = "57014", "query_canceled";
    /// The proxy shuts down.
    AdminShutdown = "57P01", "admin_shutdown";
    /// A client sent nothing for too long.
    IdleSessionTimeout = "57P05", "idle_session_timeout";
    /// No node can take this now.
    CannotConnectNow = "57P03", "cannot_connect_now";
    /// The configuration cannot be used.
    ConfigFileError = "F0000", "config_file_error";
    /// A broken promise inside the proxy.
    InternalError = "XX000", "internal_error";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_well_formed() {
        for (i, state) in SqlState::ALL.iter().enumerate() {
            assert_eq!(state.code().len(), 5, "{state:?}");
            assert!(
                SqlState::ALL[..i]
                    .iter()
                    .all(|other| other.code() != state.code()),
                "{state:?}"
            );
        }
    }
}
