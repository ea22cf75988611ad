// A round of everyday work in postgres.js, as a transcript. For use and promises see psycopg_round.py.
//
//     node postgres_round.js URL PREFIX

"use strict";

const { pipeline: stream } = require("node:stream/promises");
const { Readable } = require("node:stream");
const postgres = require("postgres");

const [url, prefix] = process.argv.slice(2);

async function main() {
  // One connection: it reads what it has written, which through a proxy that reads standbys no other is promised.
  const sql = postgres(url, { max: 1, onnotice: (notice) => say({ notice: notice.message }) });
  const table = sql(`${prefix}_t`);
  await sql`SET client_min_messages = warning`;
  await sql`DROP TABLE IF EXISTS ${table}`;
  try {
    for (const step of STEPS) {
      say({ step: step.name });
      await step(sql, table);
    }
  } finally {
    await sql`DROP TABLE IF EXISTS ${table}`;
    await sql.end();
  }
  say({ closed: true });
}

async function types(sql) {
  await attempt(() => sql`SELECT ${1}::int AS i, ${"it's"}::text AS t, ${true}::bool AS b, ${null}::text AS n, ${[1, 2]}::int[] AS a`);
  await attempt(() => sql`SELECT ${sql.json({ a: [1, "x"] })} AS j, ${new Date(0)}::timestamptz AS d, ${"12345678901234567890.5"}::numeric AS m`);
  await attempt(() => sql`SELECT ${Buffer.from([0, 255])}::bytea AS b`);
  await attempt(() => sql`SELECT 1/0`);
  await attempt(() => sql`SELECT nosuch`);
  await attempt(() => sql.unsafe("SELECT 1 AS a; SELECT 2 AS b"));
}

async function prepared(sql, table) {
  await attempt(() => sql`CREATE TABLE ${table} (n int PRIMARY KEY, t text)`);
  for (let n = 0; n < 6; n++) await attempt(() => sql`INSERT INTO ${table} VALUES (${n}, ${"row " + n})`);
  for (let n = 0; n < 8; n++) await attempt(() => sql`SELECT t FROM ${table} WHERE n = ${n}`);
  const many = Array.from({ length: 50 }, (_, n) => ({ n: n + 100, t: `many ${n}` }));
  await attempt(() => sql`INSERT INTO ${table} ${sql(many)}`);
  // All at once, over four connections and in pipelines.
  const sums = await Promise.all(Array.from({ length: 100 }, (_, n) => sql`SELECT ${n}::int * 2 AS d`));
  say({ sums: sums.map((rows) => rows[0].d).reduce((a, b) => a + b) });
  await attempt(() => sql`SELECT count(*)::int FROM ${table}`);
  // The simple protocol has no parameters: the server says so. postgres.js then sends a Sync too many, and takes what
  // answers that for the answer of its next query: so this has a connection of its own.
  const alone = postgres(url, { max: 1 });
  await attempt(() => alone`SELECT t FROM ${table} WHERE n = ${3}`.simple());
  await alone.end();
}

async function transactions(sql, table) {
  await attempt(() => sql.begin(async (tx) => {
    await tx`DELETE FROM ${table} WHERE n = 0`;
    await tx.savepoint(async (inner) => {
      await inner`DELETE FROM ${table}`;
      throw new Error("undone");
    }).catch((error) => say({ caught: error.message }));
    return tx`SELECT count(*)::int FROM ${table}`;
  }));
  await attempt(() => sql.begin(async (tx) => {
    await tx`DELETE FROM ${table}`;
    await tx`SELECT 1/0`;
  }));
  await attempt(() => sql.begin("isolation level repeatable read read only", (tx) => tx`SHOW transaction_isolation`));
  await attempt(() => sql.begin("read only", (tx) => tx`DELETE FROM ${table}`));
  await attempt(() => sql.begin((tx) => [tx`SELECT 1 AS a`, tx`SELECT 2 AS b`]));
  await attempt(() => sql`SELECT count(*)::int FROM ${table}`);
}

async function cursors(sql, table) {
  const seen = [];
  await sql`SELECT n FROM ${table} ORDER BY n`.cursor(10, (rows) => { seen.push(rows.length); });
  say({ seen });
  let first = 0;
  await sql`SELECT n FROM ${table} ORDER BY n`.cursor(5, () => { first += 1; return first === 2 ? sql.CLOSE : undefined; });
  say({ first });
  let rows = 0;
  await sql`SELECT n FROM ${table}`.forEach(() => { rows += 1; });
  say({ rows });
  await attempt(() => sql`SELECT ${1}::int AS a`.describe().then((d) => d.columns.map((c) => c.name)));
}

async function copying(sql, table) {
  const lines = Readable.from(Array.from({ length: 500 }, (_, n) => `${n + 1000}\tcopied\n`));
  await stream(lines, await sql`COPY ${table} FROM STDIN`.writable());
  await attempt(() => sql`SELECT count(*)::int FROM ${table}`);
  let out = "";
  for await (const chunk of await sql`COPY (SELECT n FROM ${table} WHERE n < 5 ORDER BY n) TO STDOUT`.readable()) out += chunk;
  say({ out });
}

async function notifications(sql) {
  const heard = new Promise((resolve) => { sql.listen("a_channel", resolve, () => sql.notify("a_channel", "hello")); });
  say({ heard: await heard });
}

async function cancelled(sql) {
  // On the primary, where the other query looks for it.
  const query = sql`SELECT pg_sleep(30), txid_current()`;
  const ended = query.catch((error) => say({ code: error.code }));
  const watcher = postgres(url, { max: 1 });
  const running = () => watcher`SELECT count(*)::int AS n FROM pg_stat_activity WHERE state = ${"active"} AND query LIKE ${"SELECT pg_sleep(30), txid%"}`;
  while ((await running())[0].n === 0);
  query.cancel();
  await ended;
  await watcher.end();
  await attempt(() => sql`SELECT 1 AS a`);
}

const STEPS = [types, prepared, transactions, cursors, copying, notifications, cancelled];

async function attempt(run) {
  try {
    const rows = await run();
    say({ command: rows?.command, count: rows?.count, rows });
  } catch (error) {
    say({ error: error.message, code: error.code, position: error.position });
  }
}

function say(values) {
  console.log(JSON.stringify(values));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
