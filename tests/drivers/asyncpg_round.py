"""A round of everyday work in asyncpg, as a transcript. For use and promises see psycopg_round.py.

    asyncpg_round.py URL PREFIX

asyncpg sends and receives every value in binary form and prepares every statement that has parameters.
"""

import asyncio
import io
import json
import sys
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import asyncpg


async def main():
    url, prefix = sys.argv[1:]
    table = f"{prefix}_t"
    conn = await asyncpg.connect(url)
    await drop(conn, table)
    try:
        for step in STEPS:
            say(step=step.__name__)
            await step(conn, url, table)
            say(after=step.__name__, in_transaction=conn.is_in_transaction())
    finally:
        await drop(conn, table)
        await conn.close()
    say(closed=conn.is_closed())


async def connect(conn, url, table):
    settings = conn.get_settings()
    say(settings={name: getattr(settings, name) for name in ("client_encoding", "DateStyle", "integer_datetimes")})
    other = await asyncpg.connect(url, server_settings={"application_name": "a round", "work_mem": "5MB"})
    say(row=await other.fetchrow("SELECT current_setting('application_name'), current_setting('work_mem')"))
    await other.close()
    for wrong in ({"database": "no_such_database_here"}, {"server_settings": {"no_such_setting": "1"}}):
        try:
            await (await asyncpg.connect(url, **wrong)).close()
            say(connected=wrong)
        except asyncpg.PostgresError as error:
            tell(error)


async def types(conn, url, table):
    at = datetime(2024, 2, 29, 12, 34, 56, 789000, tzinfo=timezone.utc)
    for name, value in [
        ("int2", 7), ("int4", -2147483648), ("int8", 2**62), ("float8", 0.1), ("bool", True),
        ("numeric", Decimal("12345678901234567890.0987654321")), ("text", "zwölf 🐘 'quoted' \\"), ("text", ""),
        ("bytea", bytes(range(256))), ("jsonb", '{"a": [1, null, {"b": "ü"}]}'), ("date", date(1999, 12, 31)),
        ("timestamptz", at), ("interval", timedelta(days=3, seconds=4, microseconds=5)),
        ("uuid", uuid.UUID(int=0x12345678123456781234567812345678)), ("int4[]", [1, None, 3]),
        ("text[]", ['a"b', "", "c,d", None]), ("int4[]", [[1, 2], [3, 4]]), ("int4range", asyncpg.Range(1, 10)),
        ("tstzrange", asyncpg.Range(at, None, lower_inc=False)), ("int4range", asyncpg.Range(empty=True)),
        ("int4", None), ("inet", "10.0.0.1/8"), ("point", asyncpg.Point(1.5, -2)),
    ]:
        back = await conn.fetchval(f"SELECT $1::{name}", value)
        say(type=name, value=back)
    # An own type makes the driver read the catalog first.
    await conn.execute(f"CREATE TYPE {table}_mood AS ENUM ('sad', 'fine'); CREATE TYPE {table}_pair AS (a int, b text)")
    say(enum=await conn.fetchval(f"SELECT $1::{table}_mood", "fine"))
    say(pair=await conn.fetchval(f"SELECT $1::{table}_pair", (1, "x")))
    say(pairs=await conn.fetchval(f"SELECT $1::{table}_pair[]", [(1, "x"), (2, None)]))
    await conn.execute(f"DROP TYPE {table}_mood; DROP TYPE {table}_pair")


async def prepared(conn, url, table):
    await conn.execute(f"CREATE TABLE {table} (n int PRIMARY KEY, t text)")
    insert = await conn.prepare(f"INSERT INTO {table} VALUES ($1, $2)")
    for n in range(5):
        await insert.fetch(n, f"row {n}")
        say(message=insert.get_statusmsg())
    select = await conn.prepare(f"SELECT n, t FROM {table} WHERE n = $1")
    say(parameters=[p.name for p in select.get_parameters()], columns=[[a.name, a.type.name] for a in select.get_attributes()])
    for n in range(7):
        say(row=await select.fetchrow(n))
    await conn.execute(f"ALTER TABLE {table} ALTER t TYPE varchar(50)")
    for _ in range(2):
        await attempt(select.fetchrow(1))
        await attempt(conn.fetch(f"SELECT t FROM {table} WHERE n = $1", 1))
    await conn.executemany(f"INSERT INTO {table} VALUES ($1, $2)", [(n, None) for n in range(100, 130)])
    say(count=await conn.fetchval(f"SELECT count(*) FROM {table}"))
    say(sums=[await conn.fetchval(f"SELECT $1::int + {n}", 1) for n in range(150)][-3:])
    # Without the driver's cache every statement goes by the unnamed one.
    other = await asyncpg.connect(url, statement_cache_size=0)
    say(sums=[await other.fetchval("SELECT $1::int + 1", n) for n in range(4)])
    await other.close()


async def transactions(conn, url, table):
    count = f"SELECT count(*) FROM {table}"
    async with conn.transaction():
        await conn.execute(f"DELETE FROM {table} WHERE n >= 100")
        try:
            async with conn.transaction():
                await conn.execute(f"DELETE FROM {table}")
                say(inside=await conn.fetchval(count))
                await conn.fetchval("SELECT 1/$1::int", 0)
        except asyncpg.PostgresError as error:
            tell(error)
        say(kept=await conn.fetchval(count))
    transaction = conn.transaction(isolation="serializable", readonly=True, deferrable=True)
    await transaction.start()
    say(level=await conn.fetchval("SHOW transaction_isolation"))
    await attempt(conn.execute(f"DELETE FROM {table}"))
    await attempt(conn.fetch("SELECT 1"))
    await transaction.rollback()
    await attempt(conn.execute(f"DELETE FROM {table} WHERE n = 0; SELECT 1/0"))
    say(count=await conn.fetchval(count))


async def errors(conn, url, table):
    for statement, arguments in [
        ("SELEC 1", ()), ("SELECT * FROM no_such_table_here", ()), ("SELECT 1/$1::int", (0,)),
        (f"INSERT INTO {table} VALUES ($1, 'again')", (1,)), (f"INSERT INTO {table} VALUES ($1)", (None,)),
        ("SELECT $1::text::int", ("x",)), ("SELECT 'fine'", ()),
    ]:
        await attempt(conn.fetch(statement, *arguments))
    raised = "DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'PW001', HINT = 'a hint', DETAIL = 'more'; END $$"
    await attempt(conn.execute(raised))
    notices = []
    conn.add_log_listener(lambda _, notice: notices.append([notice.severity, notice.message]))
    await conn.execute("DO $$ BEGIN RAISE NOTICE 'a notice'; RAISE WARNING 'a warning'; END $$")
    await asyncio.sleep(0)
    say(notices=notices)
    conn._log_listeners.clear()


async def cursors(conn, url, table):
    async with conn.transaction():
        rows = [row[0] async for row in conn.cursor("SELECT n FROM generate_series(1, $1::int) n", 500, prefetch=70)]
        say(rows=len(rows), sum=sum(rows))
        cursor = await conn.cursor("SELECT n FROM generate_series(1, 100) n")
        say(one=await cursor.fetchrow(), many=await cursor.fetch(3), skipped=await cursor.forward(50))
        say(one=await cursor.fetchrow())


async def copy(conn, url, table):
    records = [(n, f"tab\there {n}" if n % 2 else None) for n in range(1000, 3000)]
    say(message=await conn.copy_records_to_table(table, records=records))
    out = io.BytesIO()
    say(message=await conn.copy_from_query(f"SELECT n, t FROM {table} WHERE n >= $1 ORDER BY n", 1000, output=out))
    say(bytes=len(out.getvalue()), start=out.getvalue()[:60].hex())
    say(message=await conn.copy_to_table(table, source=io.BytesIO(b"5000,csv\n"), format="csv"))
    for lines in (b"1\tduplicate\n", b"not a number\tx\n"):
        await attempt(conn.copy_to_table(table, source=io.BytesIO(lines)))
    await attempt(conn.copy_to_table(table, source=give_up()))
    say(count=await conn.fetchval(f"SELECT count(*) FROM {table} WHERE n >= 1000"))


async def give_up():
    yield b"9000\tnever\n"
    raise ValueError("the client gives up")


async def cancel(conn, url, table):
    # The driver sends a CancelRequest when the time is up, and when the task is cancelled.
    await attempt(conn.fetch("SELECT pg_sleep(60)", timeout=0.3))
    await attempt(conn.fetch("SELECT 'alive'"))
    task = asyncio.create_task(conn.fetch("SELECT pg_sleep(60)"))
    await asyncio.sleep(0.3)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        say(cancelled=True)
    await attempt(conn.fetch("SELECT 'alive'"))
    await conn.execute("SET statement_timeout = '100ms'")
    await attempt(conn.fetch("SELECT pg_sleep(60)"))
    await conn.execute("RESET statement_timeout")


async def session(conn, url, table):
    await conn.execute(f"CREATE TEMP TABLE {table}_temp (n int)")
    say(count=await conn.fetchval(f"SELECT count(*) FROM {table}_temp"))
    heard = asyncio.get_running_loop().create_future()

    def listener(_conn, _pid, channel, payload):
        heard.done() or heard.set_result([channel, payload])

    await conn.add_listener(table, listener)
    await conn.execute(f"NOTIFY {table}, 'hello'")
    say(heard=await asyncio.wait_for(heard, 10))
    await conn.remove_listener(table, listener)
    # What a pool of asyncpg does between two users.
    await conn.reset()
    say(count=await conn.fetchval(f"SELECT count(*) FROM {table}_temp"))
    await conn.execute(f"DROP TABLE {table}_temp")


async def pool(conn, url, table):
    async with asyncpg.create_pool(url, min_size=2, max_size=4) as shared:
        values = await asyncio.gather(*(shared.fetchval("SELECT $1::int * 2", n) for n in range(40)))
    say(pool=values)


STEPS = [connect, types, prepared, transactions, errors, cursors, copy, cancel, session, pool]


async def attempt(awaitable):
    try:
        say(result=await awaitable)
    except asyncpg.PostgresError as error:
        tell(error)
    except (TimeoutError, asyncio.TimeoutError, ValueError, asyncpg.InterfaceError) as error:
        say(error=type(error).__name__)


def tell(error):
    fields = ("sqlstate", "severity", "message", "detail", "hint", "position", "context", "constraint_name",
              "table_name", "column_name")
    say(error=type(error).__name__, **{name: getattr(error, name, None) for name in fields})


async def drop(conn, table):
    await conn.execute("SET client_min_messages = error")
    await conn.execute(f"DROP TABLE IF EXISTS {table}")
    await conn.execute(f"DROP TYPE IF EXISTS {table}_mood; DROP TYPE IF EXISTS {table}_pair")
    await conn.execute("RESET client_min_messages")


def say(**values):
    print(json.dumps(values, default=plain, ensure_ascii=True, sort_keys=True), flush=True)


def plain(value):
    if isinstance(value, asyncpg.Record):
        return list(value.values())
    return value.hex() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    asyncio.run(main())
