"""Whether "three nodes" splits at all: what part of its reads each standby has run, as PostgreSQL counts it.

The reads are of a table that nothing else reads on a standby.
"""

import time

from cluster import DATABASE, USER
from plan import PROTOCOLS, THREE
from processes import Failed, say

CLIENTS, EACH = 16, 500
READ = "SELECT tbalance FROM pgbench_tellers WHERE tid = 1;\n"
READS = "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 'pgbench_tellers'"


def measure_shares(site):
    say("which standbys run the reads")
    target = site.target(THREE)
    script = site.directory / "shares.sql"
    script.write_text(READ)
    where = ["-h", "127.0.0.1", "-p", target.port, "-U", USER]
    for protocol in PROTOCOLS:
        site.cluster.command("pgbench", *where, "-n", "-M", protocol, "-c", CLIENTS, "-t", EACH, "-f", script, DATABASE)
    total = CLIENTS * EACH * len(PROTOCOLS)
    counts = counted(site.cluster, total)
    if sum(counts) < total / 2:
        raise Failed(f"the standbys ran {sum(counts)} of {total} reads: these would be no figures of splitting")
    return [count / total for count in counts]


def counted(cluster, total):
    """A server process reports what it did once it has been idle for ten seconds."""
    deadline = time.monotonic() + 30
    while True:
        counts = [int(cluster.sql(node, READS)) for node in (1, 2)]
        if sum(counts) >= total or time.monotonic() > deadline:
            return counts
        time.sleep(1)
