"""The programs that are measured, and the machine's limits. Peers that are missing are installed, if the script may."""

import contextlib
import os
import re
import resource
import shutil
import subprocess
from pathlib import Path

from processes import Failed, as_postgres, call, say

# By option: the distribution's package, and how the program tells its version.
PEERS = {
    "pgbouncer": ("pgbouncer", "--version"),
    "haproxy": ("haproxy", "-v"),
    "pgpool": ("pgpool2", "--version"),
}
SPARE_FILES = 200  # descriptors that a program needs beside those of clients
POLICY = Path("/usr/sbin/policy-rc.d")


def file_limit():
    """Raises the limit on open files, which everything started here inherits; how many there may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def find_postgres():
    given = os.environ.get("PGWEIR_PG_BIN")
    in_path = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    # As scripts/install-postgresql looks for them.
    others = [*sorted(Path("/usr").glob("pgsql-*/bin"), reverse=True), Path("/usr/local/pgsql/bin")]
    places = [Path(given)] if given else [*([Path(in_path).parent] if in_path else []), *debian, *others]
    for place in places:
        if all((place / name).exists() for name in ("initdb", "postgres", "pg_basebackup", "pgbench", "psql")):
            return place
    raise Failed("no PostgreSQL server programs: install postgresql, or set PGWEIR_PG_BIN to their directory")


def find_peers(options):
    """Option → program, of those that are there."""
    given = {name: getattr(options, name) for name in PEERS}
    for name, program in given.items():
        if program and not program.is_file():
            raise Failed(f"--{name}: there is no program at {program}")
    missing = [package for name, (package, _) in PEERS.items() if not given[name] and not in_path(name)]
    if missing:
        install(missing)
    found = {name: given[name].resolve() if given[name] else in_path(name) for name in PEERS}
    for name, program in found.items():
        if not program:
            say(f"no {name}: left out; install it, or --{name} PATH")
    return {name: program for name, program in found.items() if program}


def in_path(name):
    # Debian puts them where only root looks.
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return Path(found) if found else None


def install(packages):
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    say(f"installing {', '.join(packages)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    with no_services():
        subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False)
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def no_services():
    """Packages start their services when they are installed, unless the machine's policy forbids it."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def version(name, program):
    """Numbers only: Pgpool-II tells it on stderr."""
    try:
        told = subprocess.run([program, PEERS[name][1]], capture_output=True, text=True, cwd="/", **as_postgres())
    except OSError as error:
        raise Failed(f"{program}: {error.strerror}") from None
    found = re.search(r"\d+(\.\d+)+", told.stdout + told.stderr)
    if not found:
        raise Failed(f"{program} does not tell its version:\n{told.stdout}{told.stderr}")
    return found.group()


def revision(root):
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--tags"]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip()


def pgweir_version(program):
    return call([program, "--version"], "/").split()[-1]
