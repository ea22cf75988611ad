"""What a transaction costs when there is more of something: nodes, pools, workers.

Each pair is two fresh processes, the usual one and a larger one, whose runs take turns.
"""

import contextlib

from client import log_in, query
from plan import SELECT, THREE, Cell
from processes import Failed, say
from transactions import measure

NODES, POOLS, WORKERS = 32, 1000, 2
NODES_PAIR = f"{NODES} nodes, beside 3"
POOLS_PAIR = f"{POOLS} pools, beside 1"
WORKERS_PAIR = f"{WORKERS} workers, beside 1"
# Each with as many clients as it is to be seen with: workers share nothing as long as one of them has all the clients.
CLIENTS = {NODES_PAIR: 16, POOLS_PAIR: 16, WORKERS_PAIR: 64}


def measure_scale(site, plan):
    """pair → the rounds of "small" and of "large"."""
    measured = {}
    for pair, clients in CLIENTS.items():
        say(f"{pair}: {plan.rounds} rounds")
        with contextlib.ExitStack() as stack:
            targets = {"small": site.start(stack, THREE), "large": LARGE[pair](site, stack)}
            cell = Cell(SELECT, "simple", clients, (THREE,))
            rounds = {name: [] for name in targets}
            try:
                for _ in range(plan.rounds):
                    for name, target in targets.items():
                        rounds[name].append(measure(site, target, cell, plan.seconds))
            except Failed as failure:
                site.failed(targets["large"], pair, failure)
                continue
            measured[pair] = rounds
    return measured


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


LARGE = {NODES_PAIR: many_nodes, POOLS_PAIR: many_pools, WORKERS_PAIR: many_workers}
