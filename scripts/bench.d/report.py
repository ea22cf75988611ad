"""The text of docs/benchmarks.md, or of one part of it."""

import os
import platform
import re
from datetime import date
from pathlib import Path

from cluster import SCALE
from figures import beside, plain, spread, table
from idle import BUSY
from judgement import judgement
from needs import pgweir_version, revision
from plan import BOUNCER, OPTIMIZED, PARTS, PLAIN, RELAY, ROOT
from scale import CLIENTS
from targets import POOL
from transactions import SETTLE, TAIL

COMMAND = "make bench"
BUILDS = {OPTIMIZED.resolve(): "as `make release` builds it", PLAIN.resolve(): "as `cargo build --release` builds it"}


def whole(site, options, plan, measured, shares):
    share = " and ".join(f"{share:.0%}" for share in shares)
    parts = [HEAD.format(share=share, **facts(site, options, plan)), TARGETS + judgement(measured)]
    parts += [part(site, plan, measured, name) for name in PARTS]
    return "\n".join(parts) + failures(site)


def part(site, plan, measured, name):
    return SECTIONS[name](site, plan, getattr(measured, name))


def failures(site):
    if not site.failures:
        return ""
    return "\n## Failures\n\n" + "".join(f"- {failure}\n" for failure in site.failures)


# ── sections ────────────────────────────────────────────────────────────────────────────────────────────────────────


def transactions(site, plan, cells):
    rows = []
    for (script, protocol, clients, target), rounds in cells.items():
        bases = (cells.get((script, protocol, clients, base)) for base in (RELAY, BOUNCER))
        rows.append(
            (
                *(script, protocol, str(clients), target, spread(rounds, "cpu", ".1f")),
                *(plain(beside(rounds, base, "cpu")) for base in bases),
                *(spread(rounds, name, ".0f") for name in ("tps", "p50", "p95", "p99")),
            )
        )
    heads = ("script", "protocol", "clients", "target", "CPU µs", "× relay", "× PgBouncer")
    heads += ("tps", "p50 µs", "p95 µs", "p99 µs")
    text = TRANSACTIONS.format(seconds=plan.seconds, rounds=plan.rounds, settle=SETTLE, tail=TAIL)
    if site.has(BOUNCER) and not site.prepares(BOUNCER):
        text += OLD_BOUNCER.format(site.versions["pgbouncer"])
    return text + table(heads, rows)


def syscalls(site, plan, traced):
    rows = []
    for (script, protocol, clients, target), found in traced.items():
        figures = (f"{found[name]:.2f}" for name in ("receives", "sends", "others"))
        rows.append((script, protocol, str(clients), target, *figures, found["most"]))
    heads = ("script", "protocol", "clients", "target", "receives", "sends", "others", "which")
    return SYSCALLS + table(heads, rows)


def bulk(site, plan, kinds):
    rows = []
    for (kind, target), rounds in kinds.items():
        against = plain(beside(rounds, kinds.get((kind, RELAY)), "cpu"))
        figures = (spread(rounds, "cpu", ".2f"), against, spread(rounds, "rate", ".0f"))
        rows.append((kind, target, *figures))
    return BULK.format(megabytes=plan.megabytes) + table(("what", "target", "CPU ms/MB", "× relay", "MB/s"), rows)


def connects(site, plan, methods):
    rows = []
    for (method, target), rounds in methods.items():
        figures = (spread(rounds, name, ".0f") for name in ("login", "cpu", "rate"))
        rows.append((method, target, *figures))
    heads = ("method", "target", "CPU µs of a login", "CPU µs of connect, query, disconnect", "of these a second")
    return CONNECTS.format(connects=plan.connects, logins=plan.connects // 4) + table(heads, rows)


def memory(site, plan, targets):
    rows = []
    for target, sizes in targets.items():
        figures = [f"{(sizes[n] - sizes[0]) / n / 1024:.2f}" if n in sizes else "–" for n in plan.idle if n]
        rows.append((target, f"{sizes[0] / 2**20:.1f}", *figures))
    heads = ("target", "MiB without clients", *(f"KiB of each of {count}" for count in plan.idle if count))
    return MEMORY + table(heads, rows)


def crowd(site, plan, targets):
    rows = []
    for target, found in targets.items():
        busy = [spread(found[name], "cpu", ".1f") for name in ("alone", "among")]
        grown = plain(beside(found["among"], found["alone"], "cpu"))
        rows.append((target, f"{found['still']:.1f}", f"{found['idle']:.1f}", *busy, grown))
    heads = ("target", "ms a second alone", "ms a second with them", f"µs, {BUSY} busy alone", "µs, among them", "×")
    return CROWD.format(idle=plan.idle[-1]) + table(heads, rows)


def scale(site, plan, pairs):
    rows = []
    for pair, rounds in pairs.items():
        spreads = (spread(rounds[name], "cpu", ".1f") for name in ("small", "large"))
        rates = (spread(rounds[name], "tps", ".0f") for name in ("small", "large"))
        clients = ", ".join(str(number) for number in sorted(set(CLIENTS[pair])))
        rows.append((pair, clients, *spreads, plain(beside(rounds["large"], rounds["small"], "cpu")), *rates))
    heads = ("what", "clients", "µs, small", "µs, large", "×", "tps, small", "tps, large")
    return SCALE_TEXT + table(heads, rows)


SECTIONS = {
    "transactions": transactions,
    "syscalls": syscalls,
    "bulk": bulk,
    "connects": connects,
    "memory": memory,
    "crowd": crowd,
    "scale": scale,
}


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def facts(site, options, plan):
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.+)", info)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = {"pgbouncer": "PgBouncer", "haproxy": "HAProxy", "pgpool": "Pgpool-II"}
    words = [] if options.size == "default" else [f"--{options.size}"]
    words += [f"--seconds {plan.seconds}", f"--rounds {plan.rounds}"]
    # Of a program that was given nothing is known.
    told = site.pgweir in BUILDS and revision(ROOT)
    return {
        "date": date.today().isoformat(),
        "model": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory": f"{memory:.0f}",
        "kernel": platform.release(),
        "load": f"{os.getloadavg()[2]:.1f}",
        "pgweir": pgweir_version(site.pgweir) + (f" ({told})" if told else ""),
        "build": BUILDS.get(site.pgweir, "a program that was given"),
        "peers": "; ".join(f"{names[name]} {number}" for name, number in site.versions.items()) or "no peers",
        "postgres": site.cluster.command("postgres", "--version").split()[2],
        "scale": SCALE,
        "pool": POOL,
        "rounds": plan.rounds,
        "command": f'{COMMAND} ARGS="{" ".join(words)}"',
    }


HEAD = """\
# Benchmarks

Written by `make bench`; this run was `{command}`, {date}.
By default it has the cells that the targets need; `ARGS="--full"` has every combination.

- Machine: {model}, {cores} CPUs, {memory} GiB, Linux {kernel}; the load average over
  the 15 minutes before the end was {load}. pgbench, the proxies and all of PostgreSQL share it, over loopback TCP,
  without TLS, which pgweir does not offer yet.
- pgweir {pgweir}, {build}, `[process] workers = 1`; {peers}.
- PostgreSQL {postgres}: one primary, two standbys, fsync off.
- "relay" is `benches/relay`: one thread that copies bytes between a client and a server connection of its own. It knows
  nothing and pools nothing, so it is the least that a proxy can cost. HAProxy, in TCP mode, has a server connection for
  each client too, and Pgpool-II a process.
- PgBouncer and pgweir: transaction pooling, {pool} server connections (of each node; in "pools of 10" the two
  standbys have as many together as PgBouncer has of its one server), no log of connections. "One
  node" knows the primary alone, which is pooling and nothing else. "Three nodes" classifies every statement, sends
  reads to the standbys, and lets each session read what it has written; the standbys ran {share} of a run of
  reads. Metrics are on, logs at info. Pgpool-II splits, too; all else has only the primary.
- Every round runs each target once, in turn, and of a script and a number of clients each protocol, so that a
  disturbance of the machine meets all of them. Figures are medians over {rounds} rounds, with [least–most]; what is
  compared within a round, as a ratio or a difference, is the median of the rounds' ratios or differences.
- CPU is the time of all processes of a target, user and system. It is the figure that holds on a machine that is not
  quiet: with everything on the same CPUs, rates and latencies are mostly those of PostgreSQL and pgbench.
"""

TARGETS = """\
## Targets

What pgweir is to cost, from the runs below; it is "three nodes" that is judged.

"""

TRANSACTIONS = f"""\
## Transactions

`pgbench -n -M PROTOCOL -c CLIENTS -j 1 -T {{seconds}} --log`, scale {SCALE}; {{rounds}} rounds. The logins, {{settle}} s
after them and the last {{tail}} s are left out, and the run is longer where logging in takes long. "90/10" is nine
SELECTs to one UPDATE by primary key, each a transaction; "pipeline of 10" is ten SELECTs in one pipeline, and counts as
one.

"""

OLD_BOUNCER = "PgBouncer {} has no prepared statements in transaction pooling; 1.21 has.\n\n"

SYSCALLS = """\
## System calls

Of one transaction, by `strace -f -c` while pgbench runs; of a run of its own, as it slows everything down.

"""

BULK = """\
## Large results and COPY

{megabytes} MB in one result, or in one COPY, by one client; a megabyte is 10⁶ bytes of the protocol.

"""

CONNECTS = """\
## Connecting

{connects} times connect, `SELECT 1`, disconnect, by four processes of Python at once, whose time is in the rate; a
login is one of {logins}, one after the other, who all stay. Through the relay and HAProxy each makes a server
connection as well; these, PostgreSQL and Pgpool-II get an eighth of the clients. The proxies have a SCRAM verifier,
and the clients derive their key once. TLS is not measured, as pgweir does not offer it yet.

"""

MEMORY = """\
## Memory

Resident memory of a fresh process, and by how much it has grown for each client who is logged in, has asked something
once, and is idle. HAProxy needs two descriptors for each, so that the limit on open files may end its row early.

"""

CROWD = """\
## Idle clients

{idle} idle clients: what the process uses while nobody speaks, and CPU of a transaction (select-only, simple) of busy
clients among them, beside a process without them. pgweir asks each of three nodes 20 times a second, and
four times while nobody speaks.

"""

SCALE_TEXT = """\
## More of everything

CPU of a transaction (select-only, simple) of "three nodes", and of the same with more clients, with more nodes (the two
standbys by 31 addresses, each of which is asked, pooled and chosen as a node of its own), with more pools (each of a user
of its own, who stays and has used a server connection), and with more workers. The cores are shared with pgbench and PostgreSQL, so
that rates show little of what workers can serve: CPU of a transaction shows what they cost each other.

"""
