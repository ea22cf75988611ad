"""Transactions of pgbench: CPU, rate and latency of every cell, and the system calls of some."""

import contextlib
import itertools
import math
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from cluster import DATABASE, SCALE, USER
from plan import DIRECT, PIPELINE, SELECT, SPLIT, TPCB
from processes import Failed, end, say

# What is left out of a run at its ends, in seconds: connections to servers that are made, and clients that end.
SETTLE, TAIL = 0.5, 0.1
# The part of a run that must be left when all clients are connected, and how often that is tried.
LEAST, TRIES = 0.7, 3
EVERY = 0.05  # seconds from one look at the CPU time to the next
TRACE = 3  # seconds
BY_AID = f"\\set aid random(1, {100_000 * SCALE})\n"
ONE_SELECT = BY_AID + "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
ONE_UPDATE = BY_AID + "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n"
STATEMENTS = 10  # of a pipeline
# Of sockets; what is traced uses read and write for logs, and to wake its own threads.
RECEIVES = {"recvfrom", "recvmsg", "readv"}
SENDS = {"sendto", "sendmsg", "writev"}


def measure_transactions(site, plan):
    """(cell's script, protocol, clients; target) → the figures of each round."""
    measured = {}
    # A round has all protocols, as they are compared with each other, too.
    for _, group in itertools.groupby(plan.cells, key=lambda cell: (cell.script, cell.clients)):
        cells = list(group)
        say(f"{'; '.join(map(str, cells))}: {plan.rounds} rounds")
        targets = {cell: site.targets(cell.targets, cell.protocol) for cell in cells}
        for _, cell in itertools.product(range(plan.rounds), cells):
            # One that has failed would fail again.
            for target in list(targets[cell]):
                try:
                    figures = measure(site, target, cell, plan.seconds)
                except Failed as failure:
                    site.failed(target, str(cell), failure)
                    targets[cell].remove(target)
                    continue
                measured.setdefault((cell.script, cell.protocol, cell.clients, target.name), []).append(figures)
    return measured


def measure(site, target, cell, seconds):
    """The figures of one run, which is a longer one where connecting takes long, as pgbench counts that, too."""
    for _ in range(TRIES):
        run = Run(site, target, cell, seconds + math.ceil(target.connecting.get(cell.clients, 0)))
        samples = []
        while not run.over():
            samples.append((time.time(), target.usage.cpu()))
            time.sleep(EVERY)
        transactions = run.transactions()
        first, last = transactions[0][0], transactions[-1][0]
        inside = [sample for sample in samples if first + SETTLE <= sample[0] <= last - TAIL]
        if last - first >= seconds * LEAST and len(inside) > 1:
            return figures(target, transactions, inside[0], inside[-1])
        target.connecting[cell.clients] = first - samples[0][0]
    raise Failed(f"clients need {first - samples[0][0]:.1f} s to connect")


def figures(target, transactions, begin, end):
    """Of the time between two samples of CPU time."""
    (since, used), (until, used_then) = begin, end
    latencies = sorted(latency for stamp, latency in transactions if since < stamp <= until)
    if not latencies:
        raise Failed(f"nothing was done in {until - since:.2f} s")
    return {
        "cpu": None if target.name == DIRECT else (used_then - used) / len(latencies),
        "tps": len(latencies) / (until - since),
        **{f"p{part}": latencies[len(latencies) * part // 100] for part in (50, 95, 99)},
    }


class Run:
    """pgbench at work. With one thread, so that the generator is the same for every number of clients."""

    def __init__(self, site, target, cell, seconds):
        self.site, self.target, self.cell = site, target, cell
        for old in site.directory.glob("latency.*"):
            old.unlink()
        where = ["-h", "127.0.0.1", "-p", target.port, "-U", USER]
        how = ["-n", "-M", cell.protocol, "-c", cell.clients, "-j", 1, "-T", seconds, *script(site, cell.script)]
        log = ["--log", f"--log-prefix={site.directory / 'latency'}"]
        command = [str(word) for word in (site.cluster.bin / "pgbench", *where, *how, *log, DATABASE)]
        self.said = site.directory / "pgbench.log"
        with open(self.said, "wb") as output:
            self.process = subprocess.Popen(command, cwd=site.directory, stdout=output, stderr=output)

    def over(self):
        return self.process.poll() is not None

    def began(self):
        """Whether transactions are done, not only clients connected: the log has some."""
        return any(file.stat().st_size for file in self.site.directory.glob("latency.*"))

    def transactions(self):
        """(end, in seconds since 1970; latency, in µs) of each one, by their end."""
        if self.process.wait():
            raise Failed(f"{self.said.read_text(errors='replace')[-2000:]}\n{self.target.condition()}")
        found = []
        for file in self.site.directory.glob("latency.*"):
            with open(file) as lines:
                # Client, number, µs, script, seconds, µs of the second.
                words = (line.split() for line in lines)
                found += [(int(line[4]) + int(line[5]) / 1e6, int(line[2])) for line in words]
        if not found:
            raise Failed(f"pgbench did nothing:\n{self.said.read_text(errors='replace')}")
        return sorted(found)


def script(site, name):
    """The words that make pgbench run it."""
    if name in (SELECT, TPCB):
        return ["-b", "select-only" if name == SELECT else "tpcb-like"]
    if name == SPLIT:
        return ["-f", f"{file(site, 'select', ONE_SELECT)}@9", "-f", f"{file(site, 'update', ONE_UPDATE)}@1"]
    return ["-f", file(site, "pipeline", f"\\startpipeline\n{ONE_SELECT * STATEMENTS}\\endpipeline\n")]


def file(site, name, text):
    path = site.directory / f"{name}.sql"
    path.write_text(text)
    return path


# ── system calls ────────────────────────────────────────────────────────────────────────────────────────────────────


def measure_syscalls(site, plan):
    """(cell's script, protocol, clients; target) → receives, sends and others of a transaction; {} without strace."""
    measured = {}
    if not shutil.which("strace"):
        say("no strace: no system calls")
        return measured
    for cell in plan.traced:
        say(f"system calls, {cell}")
        for target in site.targets(cell.targets, cell.protocol):
            try:
                calls = trace(site, target, cell)
            except Failed as failure:
                site.failed(target, f"system calls, {cell}", failure)
                continue
            measured[cell.script, cell.protocol, cell.clients, target.name] = calls
    return measured


def trace(site, target, cell):
    """Of the steady state: strace comes when pgbench runs, and goes before it ends."""
    run = Run(site, target, cell, TRACE + 3)
    output = site.directory / "strace.txt"
    wait_for(lambda: run.began() or run.over(), "pgbench")
    pids = [word for pid in target.usage.pids() for word in ("-p", str(pid))]
    tracer = subprocess.Popen(["strace", "-f", "-c", "-q", "-o", output, *pids], stderr=subprocess.PIPE)
    try:
        wait_for(lambda: traced(target) or tracer.poll() is not None, "strace")
        since = time.time()
        time.sleep(TRACE)
        until = time.time()
    finally:
        end(tracer, signal.SIGINT)
    count = sum(since < stamp <= until for stamp, _ in run.transactions())
    if not count:
        raise Failed(f"strace saw no transaction: {tracer.stderr.read().decode(errors='replace')}")
    calls = dict(counted(output))
    return {
        "receives": sum(calls.get(name, 0) for name in RECEIVES) / count,
        "sends": sum(calls.get(name, 0) for name in SENDS) / count,
        "others": sum(number for name, number in calls.items() if name not in RECEIVES | SENDS) / count,
        "most": most(calls, count),
    }


def wait_for(true, what):
    deadline = time.monotonic() + 30
    while not true():
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not begin")
        time.sleep(0.01)


def traced(target):
    """Whether a tracer has every thread."""
    tasks = itertools.chain.from_iterable(Path(f"/proc/{pid}/task").iterdir() for pid in target.usage.pids())
    with contextlib.suppress(OSError):
        return not any("\nTracerPid:\t0\n" in (task / "status").read_text() for task in tasks)
    return False


def counted(summary):
    """(name, calls) of strace's table: % time, seconds, µs of a call, calls, errors if there are any, name."""
    for line in summary.read_text().splitlines():
        found = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
        if found and found.group(2) != "total":
            yield found.group(2), int(found.group(1))


def most(calls, count):
    """The calls that a transaction makes at least one hundredth of."""
    rows = sorted(((number / count, name) for name, number in calls.items()), reverse=True)
    return ", ".join(f"{name} {number:.2f}" for number, name in rows if number >= 0.01)
