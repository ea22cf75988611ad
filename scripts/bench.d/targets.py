"""What clients can be pointed at: PostgreSQL itself, the floor, the peers, and pgweir."""

import os
import subprocess

from client import PASSWORD, verifier
from cluster import DATABASE, USER
from needs import SPARE_FILES, file_limit, version
from plan import BOUNCER, DIRECT, HALF, HAPROXY, MANY, ONE, OURS, PAIR, PGPOOL, RELAY, THREE
from processes import Usage, as_postgres, free_port, say, start, wait_until

POOL = 20
PREPARED_SINCE = (1, 21)  # the first PgBouncer with prepared statements in transaction pooling
# The options of the programs that a target needs.
NEEDS = {BOUNCER: ["pgbouncer"], HAPROXY: ["haproxy"], PAIR: ["haproxy", "pgbouncer"], PGPOOL: ["pgpool"]}


class Target:
    """Something that a client can connect to. The primary itself has no processes."""

    def __init__(self, name, port, processes=(), logs=()):
        self.name, self.port, self.processes, self.logs = name, port, processes, logs
        self.usage = Usage(processes)
        self.connecting = {}  # number of clients → seconds that they need to connect, if that is much

    def condition(self):
        """What there is to say of it when something has failed."""
        said = [self.name]
        for process, log in zip(self.processes, self.logs):
            code = process.poll()
            said.append("is still running" if code is None else f"ended with {code}")
            said.append(f"log: {log.read_text(errors='replace')[-2000:]}")
        return "\n".join(said)


class Site:
    """All of them before one cluster, started when they are asked for."""

    def __init__(self, stack, cluster, options, peers, plan, directory):
        self.stack, self.cluster, self.directory = stack, cluster, directory
        self.pgweir, self.relay, self.peers = options.pgweir.resolve(), options.relay.resolve(), peers
        self.versions = {name: version(name, program) for name, program in peers.items()}
        self.max_clients = max(*plan.idle, MANY) + 100
        self.pgpool_children = max((c.clients for c in plan.cells if PGPOOL in c.targets), default=16) + 4
        self.started = {}
        self.failures = []

    def has(self, name):
        return all(need in self.peers for need in NEEDS.get(name, ()))

    def prepares(self, name):
        """Whether it knows prepared statements in transaction pooling."""
        if name not in (BOUNCER, PAIR):
            return True
        numbers = tuple(int(part) for part in self.versions["pgbouncer"].split(".")[:2])
        return numbers >= PREPARED_SINCE

    def targets(self, names, protocol=None):
        """Those of the names that are there and know the protocol, running."""
        fit = [name for name in names if self.has(name) and (protocol != "prepared" or self.prepares(name))]
        return [self.target(name) for name in fit]

    def target(self, name):
        if name not in self.started:
            self.started[name] = self.start(self.stack, name)
        return self.started[name]

    def failed(self, target, what, failure):
        """A peer that fails is said to; the report of one that is ours would be worth nothing."""
        if target.name in OURS:
            raise failure
        say(f"{target.name} failed: {what}")
        lines = str(failure).strip().splitlines()
        self.failures.append(f"{target.name}, {what}: {next((line for line in lines if 'error' in line), lines[-1])}")

    def start(self, stack, name, auth="trust"):
        """A fresh one, which lives as long as the stack."""
        start_it = {
            DIRECT: lambda: Target(DIRECT, self.cluster.ports[0]),
            RELAY: lambda: self.start_relay(stack),
            HAPROXY: lambda: self.start_haproxy(stack, self.cluster.ports[0]),
            BOUNCER: lambda: self.start_pgbouncer(stack, auth),
            PAIR: lambda: self.start_pair(stack, auth),
            PGPOOL: lambda: self.start_pgpool(stack),
            ONE: lambda: self.start_pgweir(stack, 1, auth=auth),
            THREE: lambda: self.start_pgweir(stack, 3, auth=auth),
            HALF: lambda: self.start_pgweir(stack, 3, auth=auth, name=HALF, pool=POOL // 2),
        }
        return start_it[name]()

    def run(self, stack, name, command, port, log, account=None):
        process = start(stack, command, log, **(as_postgres() if account is None else account))
        target = Target(name, port, [process], [log])
        wait_until(lambda: self.answers(port), name, process, log)
        return target

    def answers(self, port):
        where = ["-h", "127.0.0.1", "-p", str(port), "-U", USER, "-d", DATABASE]
        command = [self.cluster.bin / "psql", *where, "-XAtqc", "SELECT 1"]
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        return subprocess.run(command, capture_output=True, env=environment).returncode == 0

    def start_relay(self, stack):
        port = free_port()
        command = [self.relay, port, self.cluster.ports[0]]
        return self.run(stack, RELAY, command, port, self.directory / f"relay-{port}.log", account={})

    def start_haproxy(self, stack, server_port):
        port = free_port()
        file = self.directory / f"haproxy-{port}.cfg"
        file.write_text(HAPROXY_FILE.format(port=port, server_port=server_port, clients=self.haproxy_clients()))
        command = [self.peers["haproxy"], "-db", "-f", file]
        return self.run(stack, HAPROXY, command, port, file.with_suffix(".log"))

    def haproxy_clients(self):
        """It refuses to start with a bound that the limit on open files, two for each client, does not allow for."""
        return min(self.max_clients, (file_limit() - SPARE_FILES) // 2)

    def room(self, name):
        """How many clients it can hold."""
        return self.haproxy_clients() if name == PAIR else self.max_clients

    def start_pair(self, stack, auth):
        bouncer = self.start_pgbouncer(stack, auth)
        front = self.start_haproxy(stack, bouncer.port)
        return Target(PAIR, front.port, front.processes + bouncer.processes, front.logs + bouncer.logs)

    def start_pgbouncer(self, stack, auth):
        port = free_port()
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": auth,
            "auth_file": self.users_file(),
            "pool_mode": "transaction",
            "default_pool_size": POOL,
            "max_client_conn": self.max_clients,
            "log_connections": 0,
            "log_disconnections": 0,
            "log_stats": 0,
        }
        if self.prepares(BOUNCER):
            settings["max_prepared_statements"] = 200
        lines = [f"{name} = {value}" for name, value in settings.items()]
        server = f"* = host=127.0.0.1 port={self.cluster.ports[0]}"
        file = self.directory / f"pgbouncer-{port}.ini"
        file.write_text("\n".join(["[databases]", server, "[pgbouncer]", *lines, ""]))
        return self.run(stack, BOUNCER, [self.peers["pgbouncer"], file], port, file.with_suffix(".log"))

    def users_file(self, users=(), name="userlist.txt"):
        file = self.directory / name
        file.write_text("".join(f'"{user}" "{verifier()}"\n' for user in (USER, *users)))
        return file

    def start_pgpool(self, stack):
        port, pcp_port = free_port(), free_port()
        settings = {
            "backend_clustering_mode": "'streaming_replication'",
            "listen_addresses": "'127.0.0.1'",
            "port": port,
            "pcp_listen_addresses": "'127.0.0.1'",
            "pcp_port": pcp_port,
            "unix_socket_directories": f"'{self.directory}'",
            "pcp_socket_dir": f"'{self.directory}'",
            "pid_file_name": f"'{self.directory}/pgpool-{port}.pid'",
            "logdir": f"'{self.directory}'",
            "num_init_children": self.pgpool_children,
            "max_pool": 1,
            "load_balance_mode": "on",
            "sr_check_user": f"'{USER}'",
            "sr_check_database": "'postgres'",
        }
        for node, server_port in enumerate(self.cluster.ports):
            settings[f"backend_hostname{node}"] = "'127.0.0.1'"
            settings[f"backend_port{node}"] = server_port
            settings[f"backend_weight{node}"] = 1
            settings[f"backend_flag{node}"] = "'DISALLOW_TO_FAILOVER'"
        file = self.directory / f"pgpool-{port}.conf"
        file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        for name in ("pcp.conf", "pool_hba.conf"):
            (self.directory / name).touch()
        files = ["-f", file, "-F", self.directory / "pcp.conf", "-a", self.directory / "pool_hba.conf"]
        return self.run(stack, PGPOOL, [self.peers["pgpool"], "-n", *files], port, file.with_suffix(".log"))

    def start_pgweir(self, stack, nodes, auth="trust", workers=1, users=(), name=None, pool=POOL):
        port, http_port = free_port(), free_port()
        listed = ", ".join(f'{{ address = "{address}" }}' for address in self.cluster.nodes(nodes))
        file = self.directory / f"pgweir-{port}.toml"
        users_file = self.users_file(users, f"pgweir-{port}.txt").name
        values = {"port": port, "http_port": http_port, "nodes": listed, "user": USER, "pool": pool}
        values |= {"workers": workers, "users_file": users_file}
        file.write_text(PGWEIR_FILE.format(**values, auth=auth, clients=self.max_clients))
        # By SIGTERM: one that counts for scripts/optimize writes its counts when it ends.
        command, log = [self.pgweir, "run", file], file.with_suffix(".log")
        return self.run(stack, name or (ONE if nodes == 1 else THREE), command, port, log, account={})


HAPROXY_FILE = """\
global
  maxconn {clients}
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen postgresql
  bind 127.0.0.1:{port}
  server primary 127.0.0.1:{server_port}
"""

# All that is on by default stays on: read-your-writes, logs at info; and there are metrics.
PGWEIR_FILE = """\
[process]
workers = {workers}
[[listener]]
address = "127.0.0.1:{port}"
[cluster.main]
nodes = [{nodes}]
monitor = {{ user = "{user}" }}
[database."*"]
pool = {{ mode = "transaction", size = {pool} }}
[auth]
method = "{auth}"
users_file = "{users_file}"
[admin]
http = "127.0.0.1:{http_port}"
[limits]
max_clients = {clients}
"""
