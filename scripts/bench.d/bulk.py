"""Large results, and COPY both ways: CPU of a megabyte, and megabytes of a second."""

import time

from client import copy_in, log_in, log_out, message, query
from plan import DIRECT, EVERY
from processes import Failed, say

WIDTHS = (100, 1024)  # of a row, in bytes
CHUNK = 64 * 1024  # of CopyData messages that are sent at once


def measure_bulk(site, plan, names=EVERY):
    """(kind, target) → the figures of each round."""
    prepare(site.cluster, plan.megabytes)
    measured = {}
    for kind, (carry, *of) in kinds(plan.megabytes).items():
        say(f"{kind}, {plan.megabytes} MB")
        targets = site.targets(names)
        for _ in range(plan.rounds):
            for target in list(targets):
                try:
                    figures = measure(target, carry, of)
                except (Failed, OSError) as failure:
                    site.failed(target, kind, failure)
                    targets.remove(target)
                    continue
                measured.setdefault((kind, target.name), []).append(figures)
        site.cluster.sql(0, "TRUNCATE bulk_sink")
    return measured


def prepare(cluster, megabytes):
    for width in WIDTHS:
        count = megabytes * 1_000_000 // width
        cluster.sql(0, f"DROP TABLE IF EXISTS bulk_{width}")
        cluster.sql(
            0, f"CREATE TABLE bulk_{width} AS SELECT repeat('x', {width}) AS line FROM generate_series(1, {count})"
        )
        cluster.sql(0, f"VACUUM ANALYZE bulk_{width}")
    cluster.sql(0, "DROP TABLE IF EXISTS bulk_sink")
    cluster.sql(0, "CREATE UNLOGGED TABLE bulk_sink (line text)")
    cluster.catch_up()


def kinds(megabytes):
    """Name → what carries it, and its arguments after the client."""
    line = message(b"d", b"x" * WIDTHS[0] + b"\n")
    data = line * (CHUNK // len(line))
    return {
        "rows of 100 bytes": (query, "SELECT line FROM bulk_100"),
        "rows of 1 KiB": (query, "SELECT line FROM bulk_1024"),
        "COPY out, 100 bytes": (query, "COPY bulk_100 TO STDOUT"),
        "COPY in, 100 bytes": (copy_in, "COPY bulk_sink FROM STDIN", data, megabytes * 1_000_000 // len(data)),
    }


def measure(target, carry, of):
    client = log_in(target.port)
    # The server connection is made before anything counts.
    query(client, "SELECT 1")
    used, began = target.usage.cpu(), time.perf_counter()
    megabytes = carry(client, *of) / 1e6
    seconds = time.perf_counter() - began
    used = target.usage.cpu() - used
    log_out(client)
    return {"cpu": None if target.name == DIRECT else used / 1000 / megabytes, "rate": megabytes / seconds}
