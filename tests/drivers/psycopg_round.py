"""A round of everyday work in psycopg 3, as a transcript.

    psycopg_round.py URL PREFIX

Prints one JSON value a line: what was done and what came of it, without process numbers, times or
addresses, so that the transcript straight to PostgreSQL and the one through a proxy can be compared
byte for byte. Every table begins with PREFIX; all are dropped at the end. Exits with 0 when the round
was walked to its end; errors that the round provokes are part of the transcript.
"""

import contextlib
import json
import sys
import threading
import time
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb
from psycopg.types.range import Range


def main():
    url, prefix = sys.argv[1:]
    table = sql.Identifier(f"{prefix}_t")
    with psycopg.connect(url, autocommit=True) as conn:
        drop(conn, table)
        try:
            for step in STEPS:
                say(step=step.__name__)
                step(conn, url, table)
                say(after=step.__name__, status=TransactionStatus(conn.info.transaction_status).name)
        finally:
            if not conn.closed:
                drop(conn, table)
    say(closed=conn.closed)


def connect(conn, url, table):
    info = conn.info
    say(user=info.user, database=info.dbname, encoding=info.encoding)
    say(
        parameters={
            name: info.parameter_status(name)
            for name in ("client_encoding", "DateStyle", "integer_datetimes", "server_encoding",
                         "standard_conforming_strings")
        }
    )
    with psycopg.connect(url, application_name="a round", options="-c work_mem=5MB") as other:
        say(row=other.execute("SHOW application_name").fetchone())
        say(row=other.execute("SHOW work_mem").fetchone())
    for wrong in ({"dbname": "no_such_database_here"}, {"options": "-c no_such_setting=1"}):
        try:
            psycopg.connect(url, **wrong).close()
            say(connected=wrong)
        except psycopg.OperationalError as error:
            # The text names the address; what follows the severity is the server's.
            say(refused=str(error).rpartition("FATAL:")[2].strip())


def types(conn, url, table):
    at = datetime(2024, 2, 29, 12, 34, 56, 789000, tzinfo=timezone.utc)
    values = [
        ("int2", 7), ("int4", -2147483648), ("int8", 2**62), ("float8", 0.1), ("bool", True),
        ("numeric", Decimal("12345678901234567890.0987654321")), ("numeric", Decimal("NaN")),
        ("text", "zwölf 🐘 'quoted' \\"), ("text", ""), ("bytea", bytes(range(256))),
        ("jsonb", Jsonb({"a": [1, None, {"b": "ü"}]})), ("date", date(1999, 12, 31)),
        ("timestamptz", at), ("interval", timedelta(days=3, seconds=4, microseconds=5)),
        ("uuid", uuid.UUID(int=0x12345678123456781234567812345678)),
        ("int4[]", [1, None, 3]), ("text[]", ['a"b', "", "c,d", None]), ("int4[]", [[1, 2], [3, 4]]),
        ("int4range", Range(1, 10)), ("tstzrange", Range(at, None, "(]")), ("int4range", Range(empty=True)),
        ("int4", None),
    ]
    conn.execute("SET timezone = 'UTC'")
    for binary in (False, True):
        with conn.cursor(binary=binary) as cur:
            for name, value in values:
                for mark in ("%s", "%b"):
                    cur.execute(f"SELECT {mark}::{name}", (value,))
                    back = cur.fetchone()[0]
                    same = back == value or str(back) == str(value) or isinstance(value, Jsonb)
                    say(type=name, binary=binary, mark=mark, value=back, same=same)
    cur = conn.execute("SELECT 1 AS a, 'x'::varchar(9) AS b, 1.50::numeric(8,2) AS c")
    say(columns=[[c.name, c.type_code, c.display_size, c.precision, c.scale] for c in cur.description])
    conn.execute("RESET timezone")


def prepared(conn, url, table):
    conn.execute(sql.SQL("CREATE TABLE {} (n int PRIMARY KEY, t text)").format(table))
    old = conn.prepare_threshold
    conn.prepare_threshold = 1
    insert = sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(table)
    select = sql.SQL("SELECT t FROM {} WHERE n = %s").format(table)
    for n in range(5):
        say(rows=conn.execute(insert, (n, f"row {n}")).rowcount)
    for n in range(7):
        say(row=conn.execute(select, (n,)).fetchone())
    count = "SELECT count(*) > 0 FROM pg_prepared_statements"
    say(has_prepared=conn.execute(count, prepare=False).fetchone())
    # The plan of a prepared statement must follow a change of the table: PostgreSQL refuses it, pgweir plans it anew.
    conn.execute(sql.SQL("ALTER TABLE {} ALTER t TYPE varchar(50)").format(table))
    with contextlib.suppress(psycopg.errors.FeatureNotSupported):
        conn.execute(select, (0,))
    conn.execute("DEALLOCATE ALL")
    for n in range(2):
        attempt(conn, select, (n,))
    # More statements than the driver keeps, so that it closes some.
    conn.prepared_max = 3
    for turn in range(2):
        say(sums=[conn.execute(f"SELECT %s + {n}", (turn,), prepare=True).fetchone()[0] for n in range(8)])
    conn.prepare_threshold = old
    with conn.cursor() as cur:
        cur.executemany(insert, [(n, None) for n in range(100, 130)])
        say(many=cur.rowcount)
        cur.executemany("SELECT %s * 2", [(n,) for n in range(3)], returning=True)
        say(results=[result.fetchall() for result in cur.results()])


def transactions(conn, url, table):
    count = sql.SQL("SELECT count(*) FROM {}").format(table)
    say(row=conn.execute(count).fetchone())
    with conn.transaction():
        conn.execute(sql.SQL("DELETE FROM {} WHERE n >= 100").format(table))
        say(inside=conn.execute(count).fetchone(), status=conn.info.transaction_status.name)
        try:
            with conn.transaction("inner"):
                conn.execute(sql.SQL("DELETE FROM {}").format(table))
                say(inside=conn.execute(count).fetchone())
                conn.execute("SELECT 1/0")
        except psycopg.DataError as error:
            tell(error)
        say(kept=conn.execute(count).fetchone())
    with conn.transaction(force_rollback=True):
        conn.execute(sql.SQL("DELETE FROM {}").format(table))
    say(row=conn.execute(count).fetchone())
    for level in (psycopg.IsolationLevel.SERIALIZABLE, psycopg.IsolationLevel.REPEATABLE_READ):
        with psycopg.connect(url) as other:
            other.isolation_level = level
            say(level=other.execute("SHOW transaction_isolation").fetchone())
    with psycopg.connect(url) as other:
        other.read_only = True
        attempt(other, sql.SQL("DELETE FROM {}").format(table))
        say(status=other.info.transaction_status.name)
        attempt(other, "SELECT 1")
        other.rollback()
        attempt(other, "SELECT 1")
    # Several statements in one Query are one transaction, and the second one's error undoes the first.
    both = sql.SQL("DELETE FROM {} WHERE n = 0; SELECT 1/0").format(table)
    attempt(conn, both)
    cur = conn.execute(sql.SQL("SELECT 1; UPDATE {} SET t = t WHERE n < 2; SELECT 'x'").format(table))
    messages = [cur.statusmessage]
    while cur.nextset():
        messages.append(cur.statusmessage)
    say(messages=messages)
    say(row=conn.execute(count).fetchone())


def errors(conn, url, table):
    conn.execute(sql.SQL("INSERT INTO {} VALUES (1, 'twice') ON CONFLICT DO NOTHING").format(table))
    for statement, arguments in [
        ("SELEC 1", None), ("SELECT * FROM no_such_table_here", None), ("SELECT %s::int", ("x",)),
        ("SELECT 1/%s", (0,)), (sql.SQL("INSERT INTO {} VALUES (%s, 'again')").format(table), (1,)),
        (sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(table), (None, None)),
        ("DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'PW001', HINT = 'a hint', DETAIL = 'more'; END $$", None),
        ("", None), ("SELECT 'fine'", None),
    ]:
        attempt(conn, statement, arguments)
    notices = []
    conn.add_notice_handler(lambda notice: notices.append([notice.severity, notice.sqlstate, notice.message_primary]))
    conn.execute("DO $$ BEGIN RAISE NOTICE 'a notice'; RAISE WARNING 'a warning'; END $$")
    say(notices=notices)


def pipeline(conn, url, table):
    with conn.pipeline() as pipe, conn.cursor() as cur:
        cursors = [conn.execute("SELECT %s::int", (n,)) for n in range(6)]
        pipe.sync()
        say(rows=[c.fetchone() for c in cursors])
    # An error skips what follows it up to the next Sync, and no further.
    with psycopg.connect(url, autocommit=True) as other:
        # The error may be raised by any call after it: the cursors must be there by then.
        before, wrong, skipped = (other.cursor() for _ in range(3))
        try:
            with other.pipeline() as pipe:
                before.execute("SELECT 'before'")
                wrong.execute("SELECT 1/%s", (0,))
                skipped.execute("SELECT 'skipped'")
                pipe.sync()
        except psycopg.Error as error:
            tell(error)
        say(before=before.fetchall(), after=other.execute("SELECT 'after'").fetchone())
        for cursor in (wrong, skipped):
            try:
                say(rows=cursor.fetchall())
            except psycopg.Error as error:
                say(no_rows=type(error).__name__)
        say(status=other.info.transaction_status.name)
    with conn.pipeline(), conn.transaction():
        for n in range(200, 210):
            conn.execute(sql.SQL("INSERT INTO {} VALUES (%s, 'piped')").format(table), (n,))
    say(row=conn.execute(sql.SQL("SELECT count(*) FROM {} WHERE t = 'piped'").format(table)).fetchone())


def server_cursors(conn, url, table):
    with conn.transaction():
        with conn.cursor("ours", scrollable=True) as cur:
            cur.execute("SELECT n FROM generate_series(1, %s) n", (1000,))
            say(one=cur.fetchone(), many=cur.fetchmany(3))
            cur.scroll(500)
            say(one=cur.fetchone(), rest=len(cur.fetchall()))
            cur.scroll(0, mode="absolute")
            say(again=cur.fetchmany(2))
    with conn.cursor("held", withhold=True) as cur:
        cur.execute("SELECT n FROM generate_series(1, 10) n")
        say(one=cur.fetchone())
        conn.execute("SELECT 1")
        say(rest=[row[0] for row in cur])
    streamed = conn.cursor().stream("SELECT n FROM generate_series(1, %s) n", (300,))
    say(streamed=sum(row[0] for row in streamed))


def copy(conn, url, table):
    with conn.cursor() as cur:
        with cur.copy(sql.SQL("COPY {} FROM STDIN").format(table)) as into:
            for n in range(1000, 3000):
                into.write_row((n, f"tab\there, newline\nthere {n}" if n % 2 else None))
        say(copied=cur.rowcount, message=cur.statusmessage)
        for form in ("text", "binary"):
            out = sql.SQL("COPY (SELECT n, t FROM {} WHERE n >= 1000 ORDER BY n) TO STDOUT (FORMAT {})")
            with cur.copy(out.format(table, sql.SQL(form))) as data:
                blocks = b"".join(bytes(block) for block in data)
            say(format=form, bytes=len(blocks), start=blocks[:60].hex())
        with cur.copy(sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(table)) as into:
            into.set_types(["int4", "text"])
            into.write_row((5000, "binary"))
        say(copied=cur.rowcount)
        for lines in ("1\tduplicate\n", "not a number\tx\n", "1\n"):
            try:
                with cur.copy(sql.SQL("COPY {} FROM STDIN").format(table)) as into:
                    into.write(lines)
            except psycopg.Error as error:
                tell(error)
        try:
            with cur.copy(sql.SQL("COPY {} FROM STDIN").format(table)) as into:
                into.write("9000\tnever\n")
                raise ValueError("the client gives up")
        except ValueError as error:
            say(given_up=str(error))
        say(row=conn.execute(sql.SQL("SELECT count(*) FROM {} WHERE n >= 1000").format(table)).fetchone())


def cancel(conn, url, table):
    for safe in (False, True):
        # Sent again and again: the first may come before the statement does, and then does nothing.
        done = threading.Event()
        method = conn.cancel_safe if safe else conn.cancel
        thread = threading.Thread(target=repeat, args=(method, done))
        thread.start()
        try:
            conn.execute("SELECT pg_sleep(60)")
            say(cancelled=False)
        except psycopg.errors.QueryCanceled as error:
            tell(error)
        done.set()
        thread.join()
        settle(conn)
        attempt(conn, "SELECT 'alive'")
    conn.execute("SET statement_timeout = '100ms'")
    attempt(conn, "SELECT pg_sleep(60)")
    conn.execute("RESET statement_timeout")


def session(conn, url, table):
    temporary = sql.Identifier(table.as_string().strip('"') + "_temp")
    conn.execute(sql.SQL("CREATE TEMP TABLE {} (n int)").format(temporary))
    attempt(conn, sql.SQL("SELECT count(*) FROM {}").format(temporary))
    conn.execute("SET search_path = pg_catalog")
    attempt(conn, "SHOW search_path")
    conn.execute("RESET ALL")
    attempt(conn, "SHOW search_path")
    conn.execute(sql.SQL("LISTEN {}").format(table))
    conn.execute(sql.SQL("NOTIFY {}, 'hello'").format(table))
    say(heard=[[n.channel, n.payload] for n in conn.notifies(timeout=10, stop_after=1)])
    conn.execute("DISCARD ALL")
    attempt(conn, sql.SQL("SELECT count(*) FROM {}").format(temporary))


STEPS = [connect, types, prepared, transactions, errors, pipeline, server_cursors, copy, cancel, session]


def attempt(conn, statement, arguments=None):
    try:
        cur = conn.execute(statement, arguments)
        say(message=cur.statusmessage, rows=cur.fetchall() if cur.description else None)
    except psycopg.Error as error:
        tell(error)


def tell(error):
    d = error.diag
    say(
        error=type(error).__name__, sqlstate=error.sqlstate, severity=d.severity, message=d.message_primary,
        detail=d.message_detail, hint=d.message_hint, position=d.statement_position, context=d.context,
        constraint=d.constraint_name, table=d.table_name, column=d.column_name,
    )


def repeat(cancel, done):
    while not done.wait(0.2):
        cancel()


def settle(conn):
    """Takes the cancellation that may still be on its way when the statement is already over."""
    for _ in range(3):
        try:
            conn.execute("SELECT pg_sleep(0.1)")
        except psycopg.errors.QueryCanceled:
            time.sleep(0.1)


def drop(conn, table):
    conn.execute("SET client_min_messages = error")
    conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
    conn.execute("RESET client_min_messages")


def say(**values):
    print(json.dumps(values, default=plain, ensure_ascii=True, sort_keys=True), flush=True)


def plain(value):
    return value.hex() if isinstance(value, (bytes, memoryview)) else str(value)


if __name__ == "__main__":
    main()
