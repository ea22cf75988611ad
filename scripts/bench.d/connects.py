"""Logins: CPU of one that stays, and CPU and rate of connect, query, disconnect."""

import contextlib
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

from client import log_in, log_out, query
from plan import BOUNCER, DIRECT, EVERY, ONE, PAIR, POOLERS, THREE
from processes import Failed, say

PROCESSES = 4  # that connect; more than CPUs, so that a proxy has always something to do
# Those that make a server connection, or have a process, for each client need so much longer: they get fewer.
SLOWER = 8
METHODS = {
    "trust": EVERY,
    # Those that let clients prove themselves to them: HAProxy and the relay let everything pass, and Pgpool-II wants
    # plain passwords in a file of its own.
    "scram-sha-256": (BOUNCER, PAIR, ONE, THREE),
}


def measure_connects(site, plan, wanted=EVERY):
    """(method, target) → the figures of each round."""
    measured = {}
    for method, names in METHODS.items():
        say(f"{plan.connects} times connect, query, disconnect by {method}")
        with contextlib.ExitStack() as stack:
            targets = [site.start(stack, name, method) for name in names if name in wanted and site.has(name)]
            for _ in range(plan.rounds):
                for target in list(targets):
                    try:
                        figures = measure(target, plan.connects)
                    except (Failed, OSError) as failure:
                        site.failed(target, f"connecting by {method}", failure)
                        targets.remove(target)
                        continue
                    measured.setdefault((method, target.name), []).append(figures)
    return measured


def measure(target, connects):
    # What is made once only: server connections, and the keys of this process, which its children inherit.
    connect(target.port)
    figures = {"login": log_in_many(target, connects // 4) if target.name in POOLERS else None}
    if target.name not in POOLERS:
        connects //= SLOWER
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("fork")) as crowd:
        # They are made when there is work.
        list(crowd.map(connect, [target.port] * PROCESSES))
        used, began = target.usage.cpu(), time.perf_counter()
        list(crowd.map(connect, [target.port] * connects, chunksize=connects // PROCESSES))
        seconds = time.perf_counter() - began
        figures["cpu"] = None if target.name == DIRECT else (target.usage.cpu() - used) / connects
        figures["rate"] = connects / seconds
    return figures


def connect(port):
    client = log_in(port)
    query(client, "SELECT 1")
    log_out(client)


def log_in_many(target, count):
    """CPU of one of them, in µs; all stay until the last one is in."""
    with contextlib.ExitStack() as stack:
        used = target.usage.cpu()
        for _ in range(count):
            stack.callback(log_out, log_in(target.port))
        return (target.usage.cpu() - used) / count
