"""Whether pgweir costs what it is to cost: each line is a target, with what was measured of it.

It is "pgweir, three nodes" that is judged, splitting and reading its own writes, unless a line says otherwise.
"""

from dataclasses import dataclass, field

from figures import above, beside, middle, table
from plan import BOUNCER, DIRECT, HALF, MANY, ONE, PAIR, PGPOOL, PIPELINE, PIPELINED, PROTOCOLS, RELAY, SELECT, SPLIT, THREE
from scale import CLIENTS_PAIR, NODES_PAIR, POOLS_PAIR, WORKERS, WORKERS_PAIR

CROWDED = (16, 64, 256)
AS_MANY = "… with as many server connections as PgBouncer"
IDLE = 10000


@dataclass
class Measured:
    """What the parts have found; empty where one was not run."""

    transactions: dict = field(default_factory=dict)
    syscalls: dict = field(default_factory=dict)
    bulk: dict = field(default_factory=dict)
    connects: dict = field(default_factory=dict)
    memory: dict = field(default_factory=dict)
    crowd: dict = field(default_factory=dict)
    scale: dict = field(default_factory=dict)

    def of(self, script, protocol, clients, target, name="cpu"):
        return middle(self.transactions.get((script, protocol, clients, target)), name)

    def rounds(self, script, protocol, clients, *targets):
        """Those of each target of one cell."""
        return [self.transactions.get((script, protocol, clients, target)) for target in targets]

    def against(self, base, script, protocol, clients, name="cpu", target=THREE):
        return beside(*self.rounds(script, protocol, clients, target, base), name)


def judgement(measured):
    return table(("figure", "measured", "target", ""), [line for part in PARTS for line in part(measured)])


def divide(value, base):
    return value / base if value is not None and base else None


def at_most(what, values, bound, form=".2f"):
    """A line of the table. `values` are by label; one that was not measured is none, and counts for nothing."""
    return line(what, values, f"≤ {bound:g}", lambda value: value <= bound, form)


def line(what, values, target, holds, form=".2f"):
    there = {label: value for label, value in values.items() if value is not None}
    if not there:
        return (what, "not measured", target, "–")
    said = ", ".join(f"{value:{form}}" + (f" ({label})" if label else "") for label, value in there.items())
    return (what, said, target, "met" if all(map(holds, there.values())) else "**not met**")


# ── transactions ────────────────────────────────────────────────────────────────────────────────────────────────────


def floor(m):
    yield from against(m, RELAY, "relay", 1.12)


def against(m, base, name, bound):
    for protocol in ("simple", "extended"):
        values = {clients: m.against(base, SELECT, protocol, clients) for clients in CROWDED}
        yield at_most(f"CPU ÷ {name}, select-only, {protocol} (clients)", values, bound)
        values = {clients: m.against(base, SELECT, protocol, clients, target=HALF) for clients in CROWDED}
        yield at_most(f"{AS_MANY}, {protocol} (clients)", values, bound)


def pgbouncer(m):
    for protocol in ("simple", "extended"):
        for crowd, bound in (((16,), 1.0), ((64, 256), 0.9)):
            values = {clients: m.against(BOUNCER, SELECT, protocol, clients) for clients in crowd}
            yield at_most(f"CPU ÷ PgBouncer, select-only, {protocol} (clients)", values, bound)
        values = {clients: m.against(BOUNCER, SELECT, protocol, clients, target=HALF) for clients in (64, 256)}
        yield at_most(f"{AS_MANY}, {protocol} (clients)", values, 0.9)


def splitting(m):
    for target, what in (THREE, "CPU of splitting over own pooling, select-only, 16 clients, µs"), (HALF, AS_MANY):
        values = {protocol: above(*m.rounds(SELECT, protocol, 16, target, ONE), "cpu") for protocol in PROTOCOLS}
        yield at_most(what, values, 1.0, "+.1f")


def prepared(m):
    def ratio(clients):
        ours, extended = (m.rounds(SELECT, protocol, clients, THREE)[0] for protocol in ("prepared", "extended"))
        return beside(ours, extended, "cpu")

    values = {clients: ratio(clients) for clients in CROWDED}
    yield at_most("CPU of prepared ÷ own extended, select-only (clients)", values, 1.05)
    values = {clients: m.against(BOUNCER, SELECT, "prepared", clients) for clients in CROWDED}
    yield at_most("CPU ÷ PgBouncer, select-only, prepared (clients); PgBouncer from 1.21", values, 0.85)


def pair(m):
    yield from against(m, PAIR, "HAProxy before PgBouncer", 0.45)


def pgpool(m):
    values = {protocol: m.against(PGPOOL, SPLIT, protocol, 16) for protocol in PROTOCOLS}
    yield at_most("CPU ÷ Pgpool-II, 90/10, 16 clients", values, 0.4)


def rate(m):
    values = {}
    for script, protocol, clients, target in m.transactions:
        if target == THREE and clients in (64, 256):
            values[f"{script}, {protocol}, {clients}"] = m.against(BOUNCER, script, protocol, clients, "tps")
    yield line("transactions/s ÷ PgBouncer, 64 and 256 clients", values, "≥ 1", lambda value: value >= 1)
    values = {
        f"{script}, {protocol}, {clients}": m.against(BOUNCER, script, protocol, clients, "tps", HALF)
        for script, protocol, clients, target in m.transactions
        if target == HALF and clients in (64, 256)
    }
    yield line(AS_MANY, values, "≥ 1", lambda value: value >= 1)
    values = {"": m.against(BOUNCER, SELECT, "simple", MANY, "p99")}
    yield at_most(f"p99 ÷ PgBouncer, select-only, simple, {MANY} clients", values, 1.0)
    values = {"": m.against(BOUNCER, SELECT, "simple", MANY, "p99", HALF)}
    yield at_most(AS_MANY, values, 1.0)


def latency(m):
    three, bouncer = (above(*m.rounds(SELECT, "simple", 1, target, DIRECT), "p50") for target in (THREE, BOUNCER))
    what = "p50 added at one client, select-only, simple, µs"
    if three is not None and bouncer is not None:
        yield at_most(what, {"": three}, bouncer, ".0f")
    else:
        yield line(what, {}, "≤ PgBouncer's", bool)


def syscalls(m):
    bounds = {"receives": 2.0, "sends": 2.0, "others": 0.3}
    for name, bound in bounds.items():
        values = {
            protocol: found[name]
            for (script, protocol, clients, target), found in m.syscalls.items()
            if (script, clients, target) == (SELECT, 64, THREE)
        }
        what = f"{name} of a transaction, select-only, 64 clients"
        # To one digit: what is counted begins and ends within transactions.
        yield line(what, values, f"≤ {bound:.1f}", lambda value, bound=bound: round(value, 1) <= bound)


def pipelines(m):
    values = {
        protocol: found["sends"]
        for (script, protocol, _, target), found in m.syscalls.items()
        if (script, target) == (PIPELINE, THREE)
    }
    yield line("sends of a pipeline of 10, both ways together", values, "≤ 4", lambda value: round(value, 1) <= 4)
    values = {
        protocol: divide(m.of(PIPELINE, protocol, 16, THREE), m.of(SELECT, protocol, 16, THREE))
        for protocol in PIPELINED
    }
    yield at_most("CPU of a pipeline of 10 ÷ one statement's, 16 clients", values, 2.0)


# ── all else ────────────────────────────────────────────────────────────────────────────────────────────────────────


def bulk(m):
    values = {
        kind: beside(rounds, m.bulk.get((kind, RELAY)), "cpu")
        for (kind, target), rounds in m.bulk.items()
        if target == THREE
    }
    yield at_most("CPU of a megabyte ÷ relay", values, 1.25)


def crowd(m):
    found = m.crowd.get(THREE, {})
    here = found.get("clients") == IDLE
    yield at_most(f"CPU of {IDLE} idle clients, ms a second", {"": found["idle"] if here else None}, 5.0)
    value = beside(found["among"], found["alone"], "cpu") if here else None
    yield at_most(f"CPU of 16 busy clients among {IDLE} idle ones ÷ alone", {"": value}, 1.05)


def logins(m):
    def against(method, name):
        ours, theirs = (m.connects.get((method, target)) for target in (THREE, BOUNCER))
        return beside(ours, theirs, name)

    values = {method: against(method, "login") for method in ("trust", "scram-sha-256")}
    yield at_most("CPU of a login ÷ PgBouncer", values, 1.0)
    values = {method: against(method, "rate") for method in ("trust", "scram-sha-256")}
    yield line("connect–query–disconnect, rate ÷ PgBouncer", values, "≥ 1", lambda value: value >= 1)


def memory(m):
    sizes = m.memory.get(THREE, {})
    value = (sizes[IDLE] - sizes[0]) / IDLE / 1024 if IDLE in sizes else None
    yield at_most(f"KiB of an idle client, {IDLE} of them", {"": value}, 1.5)


def scale(m):
    def grown(pair):
        rounds = m.scale.get(pair, {})
        return beside(rounds.get("large"), rounds.get("small"), "cpu")

    for pair in (CLIENTS_PAIR, NODES_PAIR, POOLS_PAIR):
        yield at_most(f"CPU of a transaction, {pair}", {"": grown(pair)}, 1.15)
    # So many cores do so much more, as long as nothing else is short.
    more = divide(WORKERS, grown(WORKERS_PAIR))
    what = f"what {WORKERS} workers can serve ÷ 1, by CPU of a transaction"
    yield line(what, {"": more}, "≥ 1.6", lambda value: value >= 1.6)


def elsewhere(_):
    yield ("allocations of a warm transaction", "`cargo test --test allocations`", "0", "–")
    yield ("idle client and connecting by TLS", "pgweir does not offer TLS yet", "≤ 8 KiB; ≥ 1 × PgBouncer", "–")


PARTS = (
    floor,
    pgbouncer,
    splitting,
    prepared,
    pair,
    pgpool,
    rate,
    latency,
    syscalls,
    bulk,
    crowd,
    logins,
    pipelines,
    memory,
    scale,
    elsewhere,
)
