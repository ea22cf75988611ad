//! Read your writes, without a word from the application: one standby shows nothing new, the other shows it late.

use std::time::Duration;

use crate::support::{Rig, value};

/// Sessions that write a row and read it back at once.
const SESSIONS: usize = 2000;
/// Of those, this many at a time.
const THREADS: usize = 8;

#[test]
fn every_read_sees_the_row_that_its_session_wrote() {
    let rig = Rig::start(2, |_| ());
    rig.client("postgres")
        .query("CREATE TABLE t (n int PRIMARY KEY)")
        .expect("DDL");
    rig.cluster.wait_caught_up().expect("standbys");
    rig.learn("postgres");
    let standbys = rig.cluster.standbys();
    standbys[0].pause_replay().expect("pause");
    standbys[1]
        .set_apply_delay(Duration::from_millis(150))
        .expect("delay");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let rig = &rig;
            scope.spawn(move || {
                for n in (thread..SESSIONS).step_by(THREADS) {
                    let mut client = rig.client("postgres");
                    client
                        .query(&format!("INSERT INTO t VALUES ({n})"))
                        .expect("insert");
                    let seen = value(
                        &mut client,
                        &format!("SELECT count(*) FROM t WHERE n = {n}"),
                    );
                    assert_eq!(seen, "1", "session {n}");
                }
            });
        }
    });
    // A session that has written nothing is not held to anything: the standbys were there to be read all the time.
    let reads = rig.metric(
        "pgweir_routed_statements_total",
        &[("reason", "read_your_writes")],
    );
    assert!(
        reads > 0.0,
        "no read was kept from a standby: nothing was tested"
    );
    standbys[0].resume_replay().expect("resume");
    standbys[1]
        .set_apply_delay(Duration::ZERO)
        .expect("no delay");
}

#[test]
fn a_session_goes_back_to_the_standbys_once_they_show_its_write() {
    let rig = Rig::start(2, |_| ());
    let mut client = rig.client("postgres");
    client.query("CREATE TABLE t (n int)").expect("DDL");
    client.query("INSERT INTO t VALUES (1)").expect("insert");
    let standby_reads = || rig.metric("pgweir_node_statements_total", &[("role", "standby")]);
    let before = standby_reads();
    let client = std::cell::RefCell::new(client);
    rig.wait("the session to be served by a standby again", || {
        assert_eq!(
            value(&mut client.borrow_mut(), "SELECT count(*) FROM t"),
            "1"
        );
        standby_reads() > before
    });
}
