"""The PostgreSQL servers behind everything: a primary with pgbench's tables, and two standbys."""

import signal
import subprocess
import time

from processes import Failed, as_postgres, call, free_port, say, start, wait_until

SCALE = 5  # pgbench's: 500,000 rows, small enough to stay in memory
USER = "postgres"
DATABASE = "bench"
CONNECTIONS = 1200  # for the targets that take one for each client, and for a thousand pools
ADDRESSES = 16  # of each server, on loopback, for those who want many nodes


class Cluster:
    def __init__(self, stack, postgres_bin, directory):
        self.stack, self.bin, self.directory = stack, postgres_bin, directory
        self.account = as_postgres()
        self.ports = []
        say("making a primary and two standbys")
        self.command("initdb", "-D", directory / "node0", "-U", USER, "-A", "trust", "-N", "--no-instructions")
        self.start_node(0)
        self.command("psql", *self.at(0), "-d", "postgres", "-qc", f"CREATE DATABASE {DATABASE}")
        self.command("pgbench", *self.at(0), "-i", "-q", "-s", SCALE, DATABASE)
        self.sql(0, "VACUUM ANALYZE")
        for node in (1, 2):
            self.command("pg_basebackup", *self.at(0), "-D", directory / f"node{node}", "-R", "-N", "-c", "fast")
            self.start_node(node)

    def command(self, name, *words):
        return call([self.bin / name, *words], self.directory, **self.account)

    def at(self, node):
        return ("-h", "127.0.0.1", "-p", self.ports[node], "-U", USER)

    def sql(self, node, text):
        return self.command("psql", *self.at(node), "-d", DATABASE, "-XAtqc", text).strip()

    def nodes(self, count):
        """Addresses of the primary, and of the standbys by turns: to a proxy each address is a node of its own."""
        primary, *standbys = self.ports
        turns = [f"127.0.0.{1 + turn}:{port}" for turn in range(ADDRESSES) for port in standbys]
        return [f"127.0.0.1:{primary}", *turns][:count]

    def start_node(self, node):
        port = free_port()
        self.ports.append(port)
        settings = {
            "port": port,
            "listen_addresses": ",".join(f"127.0.0.{1 + turn}" for turn in range(ADDRESSES)),
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "512MB",
            "max_wal_size": "4GB",
            "max_connections": CONNECTIONS,
            "log_min_messages": "fatal",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        log = self.directory / f"node{node}.log"
        command = [self.bin / "postgres", "-D", self.directory / f"node{node}", *words]
        # Nothing in it is needed again: an immediate shutdown, which also ends its children.
        process = start(self.stack, command, log, signal.SIGQUIT, **self.account)
        ready = [self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        wait_until(lambda: subprocess.run(ready).returncode == 0, f"node {node}", process, log)

    def catch_up(self):
        """Waits until the standbys have what the primary has."""
        position = self.sql(0, "SELECT pg_current_wal_lsn()")
        deadline = time.monotonic() + 60
        for node in (1, 2):
            while self.sql(node, f"SELECT pg_last_wal_replay_lsn() >= '{position}'") != "t":
                if time.monotonic() > deadline:
                    raise Failed(f"standby {node} does not catch up")
                time.sleep(0.1)
