"""A round of everyday work in psycopg2, as a transcript. For use and promises see psycopg_round.py."""

import io
import json
import select
import sys
import uuid
from datetime import date, datetime, timezone
from decimal import Decimal

import psycopg2
import psycopg2.extensions
import psycopg2.extras


def main():
    url, prefix = sys.argv[1:]
    table = f"{prefix}_t"
    conn = psycopg2.connect(url)
    conn.autocommit = True
    drop(conn, table)
    try:
        for step in STEPS:
            say(step=step.__name__)
            step(conn, url, table)
            say(after=step.__name__, status=conn.get_transaction_status())
    finally:
        if not conn.closed:
            conn.rollback()
            conn.autocommit = True
            drop(conn, table)
            conn.close()
    say(closed=conn.closed)


def connect(conn, url, table):
    say(encoding=conn.encoding, protocol=conn.protocol_version)
    say(parameters={name: conn.get_parameter_status(name) for name in ("client_encoding", "DateStyle", "server_encoding")})
    other = psycopg2.connect(url, application_name="a round", options="-c work_mem=5MB")
    attempt(other, "SELECT current_setting('application_name'), current_setting('work_mem')")
    other.close()
    latin = psycopg2.connect(url, client_encoding="latin1")
    attempt(latin, "SELECT 'äöü', length('äöü')")
    latin.set_client_encoding("UTF8")
    attempt(latin, "SELECT 'äöü', length('äöü')")
    latin.close()


def types(conn, url, table):
    psycopg2.extras.register_uuid()
    values = [
        1, -2**40, 1.5, Decimal("3.14"), "it's \\ ä", True, None, date(2001, 2, 3),
        datetime(2001, 2, 3, 4, 5, tzinfo=timezone.utc), uuid.UUID(int=7), [1, 2, None], psycopg2.extras.Json({"a": [1]}),
        psycopg2.Binary(b"\x00\xff"),
    ]
    for value in values:
        attempt(conn, "SELECT %s", (value,))
    attempt(conn, "SELECT 1::int2, 2::int8, 1.5::float4, '10.0.0.1'::inet, '{1,2}'::int[], '[1,5)'::int4range")


def transactions(conn, url, table):
    conn.autocommit = False
    attempt(conn, f"CREATE TABLE {table} (n int PRIMARY KEY, t text)")
    conn.commit()
    with conn:
        attempt(conn, f"INSERT INTO {table} SELECT n, 'row ' || n FROM generate_series(1, 10) n")
    attempt(conn, f"SELECT count(*) FROM {table}")
    attempt(conn, "SELECT 1/0")
    attempt(conn, "SELECT 'refused'")
    conn.rollback()
    attempt(conn, f"INSERT INTO {table} VALUES (1, 'again')")
    conn.rollback()
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        conn.set_session(isolation_level=level, readonly=level == "REPEATABLE READ")
        attempt(conn, "SHOW transaction_isolation")
        attempt(conn, f"UPDATE {table} SET t = 'x' WHERE n = 1")
        conn.rollback()
    conn.set_session(isolation_level="DEFAULT", readonly=False, autocommit=True)
    attempt(conn, f"UPDATE {table} SET t = 'y' WHERE n = 1")
    attempt(conn, f"SELECT t FROM {table} WHERE n = 1")


def cursors(conn, url, table):
    conn.autocommit = False
    with conn.cursor("named") as cur:
        cur.itersize = 3
        cur.execute(f"SELECT n FROM {table} ORDER BY n")
        say(first=cur.fetchone(), some=cur.fetchmany(4), rest=list(cur))
    conn.commit()
    with conn.cursor("held", withhold=True) as cur:
        cur.execute(f"SELECT n FROM {table} ORDER BY n")
        say(first=cur.fetchone())
        conn.commit()
        say(after=cur.fetchmany(2))
    conn.commit()
    conn.autocommit = True
    with conn.cursor() as cur:
        psycopg2.extras.execute_values(cur, f"INSERT INTO {table} VALUES %s", [(n, str(n)) for n in range(20, 40)], page_size=7)
        psycopg2.extras.execute_batch(cur, f"UPDATE {table} SET t = %s WHERE n = %s", [(str(n * 2), n) for n in range(20, 40)])
        cur.execute(f"SELECT sum(n), count(*) FROM {table}")
        say(row=cur.fetchone())


def copying(conn, url, table):
    with conn.cursor() as cur:
        cur.copy_expert(f"COPY {table} FROM STDIN", io.StringIO("".join(f"{n}\tcopied\n" for n in range(100, 2000))))
        say(copied=cur.rowcount)
        out = io.StringIO()
        cur.copy_expert(f"COPY (SELECT n FROM {table} WHERE n < 5 ORDER BY n) TO STDOUT", out)
        say(out=out.getvalue())
        try:
            cur.copy_expert(f"COPY {table} FROM STDIN", io.StringIO("1\tx\nnot a number\ty\n"))
        except psycopg2.Error as error:
            tell(error)
    attempt(conn, f"SELECT count(*) FROM {table}")


def notifications(conn, url, table):
    attempt(conn, "LISTEN a_channel")
    other = psycopg2.connect(url)
    other.autocommit = True
    attempt(other, "NOTIFY a_channel, 'hello'")
    other.close()
    select.select([conn], [], [], 10)
    conn.poll()
    say(heard=[(n.channel, n.payload) for n in conn.notifies])
    attempt(conn, "UNLISTEN *")
    attempt(conn, "DO $$ BEGIN RAISE NOTICE 'noted'; END $$")
    say(notices=conn.notices[-1:])


def settings(conn, url, table):
    attempt(conn, "SET work_mem = '7MB'")
    attempt(conn, "SHOW work_mem")
    conn.autocommit = False
    attempt(conn, "SET work_mem = '8MB'")
    conn.rollback()
    attempt(conn, "SHOW work_mem")
    conn.rollback()
    conn.autocommit = True
    attempt(conn, "SET ROLE pg_read_all_data")
    attempt(conn, "SELECT current_user")
    # RESET ALL and SET SESSION AUTHORIZATION DEFAULT, as pools do between users.
    conn.reset()
    conn.autocommit = True
    attempt(conn, "SELECT current_setting('work_mem'), current_user")


STEPS = [connect, types, transactions, cursors, copying, notifications, settings]


def attempt(conn, statement, arguments=None):
    try:
        with conn.cursor() as cur:
            cur.execute(statement, arguments)
            say(message=cur.statusmessage, rows=cur.fetchall() if cur.description else None)
    except psycopg2.Error as error:
        tell(error)


def tell(error):
    diag = error.diag
    say(error=type(error).__name__, sqlstate=error.pgcode, message=diag.message_primary, position=diag.statement_position)


def drop(conn, table):
    with conn.cursor() as cur:
        cur.execute(f"SET client_min_messages = warning; DROP TABLE IF EXISTS {table}; RESET client_min_messages")


def say(**values):
    print(json.dumps(values, default=plain, ensure_ascii=True, sort_keys=True), flush=True)


def plain(value):
    return value.tobytes().hex() if isinstance(value, memoryview) else str(value)


main()
