//! Promises kept against real PostgreSQL: each file is named for one, and holds the tests that prove it.
//!
//! Every test makes its own cluster on free ports, with a proxy before it, and leaves nothing behind. A machine
//! without PostgreSQL's server programs fails them, with advice; nothing is skipped.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../corpus/mod.rs"]
mod corpus;
mod support;

mod a_killed_client_leaves_nothing_behind;
mod a_pin_ends_with_its_reason;
mod a_session_reads_its_own_writes;
mod an_idle_session_ends_by_its_own_setting;
mod bad_input_costs_nobody_else;
mod cancel_hits_its_own_query;
mod cancels_find_their_process;
mod cancels_never_hit_a_bystander;
mod currval_is_a_sessions_own;
mod drivers_see_no_difference;
mod dumps_and_restores_pass_through;
mod every_statement_goes_where_the_table_says;
mod lag_bound_is_kept;
mod listeners_share_one_connection;
mod logins_to_servers;
mod long_pipelines_do_not_block;
mod nobody_sees_anothers_state;
mod pgbench_runs_and_reads_go_to_the_standbys;
mod pools_keep_their_bounds;
mod prepared_statements_are_shared;
mod promotion_moves_writes;
mod protocol_versions;
mod psql_works_as_against_the_server;
mod reads_of_an_orm_go_to_the_standbys;
mod reloads_apply_what_they_can;
mod replication_passes_through;
mod sessions_keep_their_settings;
mod statements_go_where_they_are_asked_to;
mod the_console_answers_admins;
mod the_program_speaks_for_itself;
mod the_proxy_speaks_as_the_server;
mod timeouts_end_what_takes_too_long;
mod transactions_begin_with_their_first_statement;
mod traps_never_run_on_a_standby;
mod two_clients_alternate_on_one_connection;
mod what_a_standby_refuses_is_answered_by_the_primary;
