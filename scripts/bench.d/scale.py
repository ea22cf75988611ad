"""What a transaction costs when there is more of something: clients, nodes, pools, workers.

Each pair is two fresh processes, the usual one and a larger one, whose runs take turns.
"""

import contextlib

from client import log_in, query
from plan import MANY, SELECT, THREE, Cell
from processes import Failed, say
from transactions import measure

NODES, POOLS, WORKERS = 32, 1000, 2
CLIENTS_PAIR = f"{MANY} clients, beside 16"
NODES_PAIR = f"{NODES} nodes, beside 3"
POOLS_PAIR = f"{POOLS} pools, beside 1"
WORKERS_PAIR = f"{WORKERS} workers, beside 1"
# Clients of the small and of the large one, as many as it is to be seen with: workers share nothing as long as one of
# them has all the clients.
CLIENTS = {CLIENTS_PAIR: (16, MANY), NODES_PAIR: (16, 16), POOLS_PAIR: (16, 16), WORKERS_PAIR: (64, 64)}


def measure_scale(site, plan):
    """pair → the rounds of "small" and of "large"."""
    measured = {}
    for pair, (few, more) in CLIENTS.items():
        say(f"{pair}: {plan.rounds} rounds")
        with contextlib.ExitStack() as stack:
            small, large = site.start(stack, THREE), LARGE[pair](site, stack)
            runs = {"small": (small, cell(few)), "large": (large, cell(more))}
            rounds = {name: [] for name in runs}
            try:
                for _ in range(plan.rounds):
                    for name, (target, what) in runs.items():
                        rounds[name].append(measure(site, target, what, plan.seconds))
            except Failed as failure:
                site.failed(large, pair, failure)
                continue
            measured[pair] = rounds
    return measured


def cell(clients):
    return Cell(SELECT, "simple", clients, (THREE,))


def many_clients(site, stack):
    return site.start(stack, THREE)


def many_nodes(site, stack):
    """The same three servers by more addresses: more of them would take the CPUs, and their caches, from each other."""
    return site.start_pgweir(stack, NODES)


def many_pools(site, stack):
    """A pool for each user, with a server connection that was used once, and its client."""
    users = [f"user{number}" for number in range(POOLS - 1)]
    site.cluster.sql(0, "".join(f"CREATE ROLE {user} LOGIN;" for user in users))
    site.cluster.catch_up()
    target = site.start_pgweir(stack, 3, users=users)
    for user in users:
        query(stack.enter_context(log_in(target.port, user)), "SELECT 1")
    return target


def many_workers(site, stack):
    return site.start_pgweir(stack, 3, workers=WORKERS)


LARGE = {CLIENTS_PAIR: many_clients, NODES_PAIR: many_nodes, POOLS_PAIR: many_pools, WORKERS_PAIR: many_workers}
