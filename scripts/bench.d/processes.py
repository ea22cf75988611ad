"""Programs that are started, awaited, watched and ended."""

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Failed(Exception):
    """Something that the person who runs this must see to."""


def say(text):
    print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr, flush=True)


def as_postgres():
    """PostgreSQL, PgBouncer and Pgpool-II refuse to run as root."""
    if os.geteuid() != 0:
        return {}
    try:
        account = pwd.getpwnam("postgres")
    except KeyError:
        raise Failed("there is no account postgres to run the servers as") from None
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def scratch_directory(stack):
    directory = Path(tempfile.mkdtemp(prefix="pgweir-bench-"))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    account = as_postgres()
    if account:
        os.chown(directory, account["user"], account["group"])
    return directory


def start(stack, command, log, stop=signal.SIGTERM, **account):
    """Starts a program in a session of its own, so that Ctrl-C reaches it through us, and stops it at the end."""
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=log.parent,
            **account,
        )
    stack.callback(end, process, stop)
    return process


def end(process, stop):
    process.send_signal(stop)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def call(command, cwd, **account):
    try:
        done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, **account)
    except FileNotFoundError:
        raise Failed(f"there is no program {command[0]}") from None
    except PermissionError:
        raise Failed(f"{command[0]} is no program") from None
    if done.returncode:
        raise Failed(f"{Path(command[0]).name} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(true, what, process, log):
    deadline = time.monotonic() + 30
    while not true():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"{what} did not come up:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


class Usage:
    """What some processes and their children have used: of the peers Pgpool-II alone has children."""

    def __init__(self, processes):
        self.parents = [process.pid for process in processes]
        self.used = {}

    def cpu(self):
        """CPU time so far, in µs, of all their threads; what a child had used when it was last seen is kept."""
        for pid in self.pids():
            # Gone between the list and the question.
            with contextlib.suppress(OSError):
                self.used[pid] = time.clock_gettime(cpu_clock(pid)) * 1e6
        return sum(self.used.values())

    def resident(self):
        """VmRSS, in bytes."""
        return sum(resident(pid) for pid in self.pids())

    def pids(self):
        found = list(self.parents)
        for pid in self.parents:
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found


def cpu_clock(pid):
    """The clock of a process, as clock_getcpuclockid(3) makes it on Linux: utime and stime of proc(5), to the
    nanosecond instead of to the hundredth of a second."""
    return (~pid << 3) | 2


def resident(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.M).group(1)) * 1024
