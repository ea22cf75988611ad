//! The questions, and what the answers say.

use std::time::Duration;

use crate::cluster::{Answer, Lsn, Silence, Timeline, timeline_of_wal_file};
use crate::server::{self, Credentials, Endpoint, Login, Rows, Server, ServerError};

/// What does not change while a server process lives. Any user may ask.
const IDENTITY: &str = "SELECT system_identifier, \
    (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8 \
    FROM pg_catalog.pg_control_system()";

/// One text for both roles: each function is only called where it is allowed. The timeline of a standby is the newest
/// that it is known to have followed: what it receives, if the user may see that (`pg_monitor`), or what its control
/// file says, which comes late but is never ahead.
///
/// Prepared once: to parse and plan it takes the node longer than to run it.
const PREPARE: &str = "PREPARE pgweir_state AS SELECT r.standby, \
    CASE WHEN NOT r.standby THEN pg_catalog.pg_current_wal_insert_lsn() END, \
    CASE WHEN NOT r.standby THEN pg_catalog.pg_current_wal_flush_lsn() END, \
    CASE WHEN NOT r.standby THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END, \
    CASE WHEN r.standby THEN pg_catalog.pg_last_wal_replay_lsn() END, \
    CASE WHEN r.standby THEN pg_catalog.pg_last_wal_receive_lsn() END, \
    CASE WHEN r.standby THEN pg_catalog.pg_get_wal_replay_pause_state() <> 'not paused' END, \
    CASE WHEN r.standby THEN greatest(\
        (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver), \
        (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()), \
        (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery())) END \
    FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby) r";

/// Asks what [`PREPARE`] has prepared.
const STATE: &str = "EXECUTE pgweir_state";

/// How a node is asked.
#[derive(Debug)]
pub struct Probe {
    /// Where the node is.
    pub endpoint: Endpoint,
    /// The monitor user.
    pub user: String,
    /// The database to connect to.
    pub database: String,
    /// What proves the user.
    pub credentials: Credentials,
    /// Bound for one answer.
    pub timeout: Duration,
}

/// A connection to a node, for questions.
#[derive(Debug)]
pub(super) struct Session {
    server: Server,
    system_id: u64,
    started: i64,
}

impl Probe {
    /// Connects, and learns who the node is.
    pub(super) async fn connect(&self) -> Result<Session, ServerError> {
        let login = Login {
            user: &self.user,
            database: &self.database,
            credentials: &self.credentials,
            parameters: &[("application_name", "pgweir monitor")],
        };
        let mut server = server::open(&self.endpoint, &login).await?;
        let rows = server::query(&mut server, IDENTITY, self.timeout).await?;
        let (system_id, started) =
            identity(&rows).ok_or(ServerError::Protocol("a malformed identity"))?;
        server::query(&mut server, PREPARE, self.timeout).await?;
        Ok(Session {
            server,
            system_id,
            started,
        })
    }

    /// Asks once.
    pub(super) async fn ask(&self, session: &mut Session) -> Result<Answer, ServerError> {
        let rows = server::query(&mut session.server, STATE, self.timeout).await?;
        answer(&rows, session.system_id, session.started)
            .ok_or(ServerError::Protocol("a malformed answer"))
    }
}

/// What a failure says of the node.
pub(super) fn silence(error: &ServerError) -> Silence {
    match error {
        ServerError::Timeout => Silence::TimedOut,
        ServerError::Refused(refusal) if refusal.code == "57P03" => Silence::Starting,
        // 57P01 and 57P02: the server process ends. 53300: it lives, but has no room for anybody.
        ServerError::Refused(refusal) if refusal.code.starts_with("57P") => Silence::Gone,
        ServerError::Connect(_) | ServerError::Io(_) | ServerError::Closed => Silence::Gone,
        error => Silence::Rejected(error.to_string()),
    }
}

fn identity(rows: &Rows) -> Option<(u64, i64)> {
    let [Some(system_id), Some(started)] = rows.first()?.as_slice() else {
        return None;
    };
    // PostgreSQL prints the identifier as a signed number.
    let system_id = system_id.parse::<i64>().ok()?.cast_unsigned();
    Some((system_id, started.parse().ok()?))
}

fn answer(rows: &Rows, system_id: u64, started: i64) -> Option<Answer> {
    let [
        standby,
        insert,
        flush,
        wal_file,
        replay,
        receive,
        paused,
        timeline,
    ] = rows.first()?.as_slice()
    else {
        return None;
    };
    let in_recovery = standby.as_deref()? == "t";
    let lsn = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Lsn>().ok());
    let timeline = match in_recovery {
        true => timeline
            .as_deref()
            .and_then(|text| text.parse().ok())
            .map(Timeline),
        false => wal_file.as_deref().and_then(timeline_of_wal_file),
    };
    Some(Answer {
        in_recovery,
        system_id,
        started,
        timeline,
        insert: lsn(insert).map(Lsn::normalised),
        flush: lsn(flush),
        replay: lsn(replay),
        receive: lsn(receive),
        paused: paused.as_deref() == Some("t"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[&str]) -> Rows {
        vec![
            values
                .iter()
                .map(|value| (!value.is_empty()).then(|| (*value).to_owned()))
                .collect(),
        ]
    }

    #[test]
    fn answers_of_both_roles() {
        let primary = row(&[
            "f",
            "0/4248018",
            "0/4248000",
            "0000000200000000000000A3",
            "",
            "",
            "",
            "",
        ]);
        let got = answer(&primary, 7, 9).expect("an answer");
        assert_eq!((got.in_recovery, got.timeline), (false, Some(Timeline(2))));
        assert_eq!(got.insert, Some(Lsn(0x424_8000)), "normalised");
        let standby = row(&["t", "", "", "", "0/4248000", "0/4248000", "t", "1"]);
        let got = answer(&standby, 7, 9).expect("an answer");
        assert_eq!(
            (got.in_recovery, got.timeline, got.paused),
            (true, Some(Timeline(1)), true)
        );
        assert_eq!((got.replay, got.insert), (Some(Lsn(0x424_8000)), None));
        assert_eq!(answer(&row(&["t"]), 7, 9), None);
        assert_eq!(answer(&Vec::new(), 7, 9), None);
    }

    #[test]
    fn identities() {
        assert_eq!(identity(&row(&["-1", "5"])), Some((u64::MAX, 5)));
        assert_eq!(identity(&row(&["x", "5"])), None);
    }
}
