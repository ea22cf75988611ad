"""What one run measures: the options, and the cells of transactions.

The default is made for about forty minutes, --quick for about four, --full is every combination and takes hours.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from needs import SPARE_FILES, file_limit

ROOT = Path(__file__).resolve().parent.parent.parent
OPTIMIZED = ROOT / "target/optimized/pgweir"  # what scripts/optimize builds
PLAIN = ROOT / "target/release/pgweir"
PARTS = ("transactions", "syscalls", "bulk", "connects", "memory", "crowd", "scale")

DIRECT, RELAY = "direct", "relay"
BOUNCER, HAPROXY, PAIR, PGPOOL = "PgBouncer", "HAProxy", "HAProxy, PgBouncer", "Pgpool-II"
ONE, THREE = "pgweir, one node", "pgweir, three nodes"
# As many server connections as PgBouncer has, over the two nodes that are read from.
HALF = "pgweir, pools of 10"
EVERY = (DIRECT, RELAY, HAPROXY, BOUNCER, PAIR, PGPOOL, ONE, THREE)
OURS = (ONE, THREE, HALF)
# Each of the others takes a server connection, or a process, for each client.
POOLERS = (BOUNCER, PAIR, ONE, THREE)

SELECT, SPLIT, TPCB, PIPELINE = "select-only", "90/10", "TPC-B", "pipeline of 10"
PROTOCOLS = ("simple", "extended", "prepared")
# There are no pipelines of simple queries.
PIPELINED = ("extended", "prepared")
FEW = (1, 16, 64, 256)
# More clients than this are for POOLERS alone.
MANY = 2000


@dataclass(frozen=True)
class Cell:
    """One row of runs: each target once in a round."""

    script: str
    protocol: str
    clients: int
    targets: tuple

    def __str__(self):
        return f"{self.script}, {self.protocol}, {self.clients} clients"


def cells(script, protocols, clients, targets):
    return [Cell(script, protocol, count, targets) for count in clients for protocol in protocols]


def without(*names):
    return tuple(name for name in EVERY if name not in names)


QUICK = [
    *cells(SELECT, PROTOCOLS, [16], without(PGPOOL)),
    *cells(SPLIT, ["simple"], [16], without(HAPROXY, PAIR)),
    *cells(TPCB, ["simple"], [16], (DIRECT, BOUNCER, THREE)),
    *cells(PIPELINE, ["prepared"], [16], (DIRECT, RELAY, ONE, THREE)),
]

# What the targets of the report ask for, and little else.
DEFAULT = [
    *cells(SELECT, ["simple"], [1], without(PGPOOL)),
    *cells(SELECT, PROTOCOLS, [16], (*without(PGPOOL), HALF)),
    *cells(SELECT, PROTOCOLS, [64, 256], (*without(PGPOOL, HAPROXY), HALF)),
    *cells(SELECT, ["simple"], [MANY], (*POOLERS, HALF)),
    *cells(SPLIT, PROTOCOLS, [16], without(HAPROXY, PAIR)),
    *cells(TPCB, PROTOCOLS, [16], (DIRECT, RELAY, BOUNCER, ONE, THREE)),
    *cells(PIPELINE, PIPELINED, [16], (DIRECT, RELAY, BOUNCER, ONE, THREE)),
]

FULL = [
    *(cell for script in (SELECT, SPLIT, TPCB) for cell in cells(script, PROTOCOLS, FEW, (*EVERY, HALF))),
    *(cell for script in (SELECT, SPLIT, TPCB) for cell in cells(script, PROTOCOLS, [MANY], (*POOLERS, HALF))),
    *cells(PIPELINE, PIPELINED, FEW, EVERY),
]

# Where system calls are counted: the steady state of many clients, and what one pipeline costs.
TRACED = [
    *cells(SELECT, PROTOCOLS, [64], without(DIRECT, PGPOOL)),
    *cells(PIPELINE, PIPELINED, [1], (RELAY, BOUNCER, ONE, THREE)),
]


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    cells: list
    traced: list
    seconds: int  # of one run of pgbench
    rounds: int
    idle: list  # numbers of idle clients, rising from 0
    megabytes: int  # of one result, or of one COPY
    connects: int  # of one measurement


SIZES = {
    "quick": Plan(QUICK, TRACED[:1], 2, 1, [0, 500], 10, 400),
    "default": Plan(DEFAULT, TRACED, 2, 5, [0, 1000, 5000, 10000], 100, 4000),
    "full": Plan(FULL, TRACED, 2, 5, [0, 1000, 5000, 10000], 100, 4000),
}


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick", help="four minutes; writes no file")
    size.add_argument("--full", dest="size", action="store_const", const="full", help="every combination; hours")
    add("--seconds", type=positive, help="length of one run of pgbench (default 2)")
    add("--rounds", type=positive, help="measurements of each cell (default 5; 1 with --quick)")
    add("--clients", type=numbers, help="only the cells with these numbers of clients, as in 16,64; writes no file")
    add("--only", choices=PARTS, help="measure one part and print it; writes no file")
    add("--pgweir", type=Path, help="the program to measure; default: of those in target/optimized and target/release the one that was built last")
    add("--relay", type=Path, default=ROOT / "target/relay/release/relay", help="the floor, of benches/relay")
    for peer in ("pgbouncer", "haproxy", "pgpool"):
        add(f"--{peer}", type=Path, help="default: the one in PATH, or the distribution's")
    add("--output", type=Path, help="default: docs/benchmarks.md, or no file with --quick, --clients or --only")
    parser.set_defaults(size="default")
    options = parser.parse_args()
    size = SIZES[options.size]
    given = {cell.clients for cell in (*size.cells, *size.traced)}
    if options.clients and not given.intersection(options.clients):
        parser.error(f"no cell has so many clients; there are {', '.join(map(str, sorted(given)))}")
    if options.output and not options.output.parent.is_dir():
        parser.error(f"there is no directory {options.output.parent}")
    options.pgweir = options.pgweir or built_last()
    if not options.output and options.size != "quick" and not options.clients and not options.only:
        options.output = ROOT / "docs/benchmarks.md"
    return options


def built_last():
    """An old one of the other kind must not be taken for what was just built."""
    there = [program for program in (OPTIMIZED, PLAIN) if program.exists()]
    return max(there, key=lambda program: program.stat().st_mtime, default=PLAIN)


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("numbers start at 1")
    return number


def numbers(text):
    return [positive(word) for word in text.split(",")]


def plan(options):
    """The size that was asked for, as the other options and the machine's limits change it."""
    size = SIZES[options.size]

    def wanted(cells):
        return [cell for cell in cells if not options.clients or cell.clients in options.clients]

    return Plan(
        wanted(size.cells),
        wanted(size.traced),
        options.seconds or size.seconds,
        options.rounds or size.rounds,
        [count for count in size.idle if count <= file_limit() - SPARE_FILES],
        size.megabytes,
        size.connects,
    )
