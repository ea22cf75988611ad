"""Clients that are logged in and say nothing: their memory, and what they cost a proxy and those who do speak."""

import contextlib
import time

from client import log_in, query
from plan import BOUNCER, POOLERS, SELECT, THREE, Cell
from processes import Failed, say
from transactions import measure

WATCHED = 5  # seconds
BUSY = 16


def measure_memory(site, plan):
    """target → {number of idle clients: bytes of resident memory}, of a fresh process."""
    measured = {}
    for name in filter(site.has, POOLERS):
        say(f"memory of {name}")
        with contextlib.ExitStack() as stack:
            target = site.start(stack, name)
            clients, sizes = [], measured.setdefault(name, {})
            for count in plan.idle:
                if count > site.room(name):
                    break
                clients += crowd(stack, target, count - len(clients))
                time.sleep(1)
                sizes[count] = target.usage.resident()
    return measured


def crowd(stack, target, count):
    """That many clients, each of whom has asked something."""
    clients = []
    for _ in range(count):
        client = stack.enter_context(log_in(target.port))
        query(client, "SELECT 1")
        clients.append(client)
    return clients


def measure_crowd(site, plan):
    """target → CPU ms of a second without clients and with the idle ones, and the rounds of busy ones alone and among
    them, with a process for each."""
    measured = {}
    for name in filter(site.has, (BOUNCER, THREE)):
        say(f"{name}, {plan.idle[-1]} idle clients, and {BUSY} busy ones")
        with contextlib.ExitStack() as stack:
            alone, among = site.start(stack, name), site.start(stack, name)
            crowd(stack, among, plan.idle[-1])
            figures = {"clients": plan.idle[-1], "still": watch(alone), "idle": watch(among), "alone": [], "among": []}
            busy = Cell(SELECT, "simple", BUSY, (name,))
            try:
                for _ in range(plan.rounds):
                    figures["alone"].append(measure(site, alone, busy, plan.seconds))
                    figures["among"].append(measure(site, among, busy, plan.seconds))
            except Failed as failure:
                site.failed(among, f"{BUSY} busy clients", failure)
                continue
            measured[name] = figures
    return measured


def watch(target):
    """CPU ms of a second while nobody says anything."""
    used, began = target.usage.cpu(), time.monotonic()
    time.sleep(WATCHED)
    return (target.usage.cpu() - used) / 1000 / (time.monotonic() - began)
