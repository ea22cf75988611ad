// A round of everyday work in node-postgres, as a transcript. For use and promises see psycopg_round.py.
//
//     node pg_round.js URL PREFIX

"use strict";

const { once } = require("node:events");
const { pipeline: stream } = require("node:stream/promises");
const { Readable } = require("node:stream");
const pg = require("pg");
const Cursor = require("pg-cursor");
const { from: copyFrom, to: copyTo } = require("pg-copy-streams");

const [url, prefix] = process.argv.slice(2);
const table = `${prefix}_t`;

async function main() {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await drop(client);
  try {
    for (const step of STEPS) {
      say({ step: step.name });
      await step(client);
    }
  } finally {
    await drop(client);
    await client.end();
  }
  say({ closed: true });
}

async function connect() {
  const other = new pg.Client({ connectionString: url, application_name: "a round", options: "-c work_mem=5MB" });
  await other.connect();
  await attempt(other, "SELECT current_setting('application_name') a, current_setting('work_mem') w");
  await other.end();
  // Replaced in the URL, which counts for more than a setting beside it.
  const elsewhere = new URL(url);
  elsewhere.pathname = "/no_such_database_here";
  for (const settings of [
    { connectionString: elsewhere.href },
    { connectionString: url, options: "-c no_such_setting=1" },
  ]) {
    const refused = new pg.Client(settings);
    await refused.connect().then(() => say({ connected: true }), tell);
    await refused.end().catch(() => {});
  }
}

async function types(client) {
  await client.query("SET timezone = 'UTC'");
  for (const [type, value] of [
    ["int2", 7], ["int4", -2147483648], ["int8", "4611686018427387904"], ["float8", 0.1], ["bool", true],
    ["numeric", "12345678901234567890.0987654321"], ["text", "zwölf 🐘 'quoted' \\"], ["text", ""],
    ["bytea", Buffer.from([...Array(256).keys()])], ["jsonb", { a: [1, null, { b: "ü" }] }],
    ["timestamptz", new Date("2024-02-29T12:34:56.789Z")], ["uuid", "12345678-1234-5678-1234-567812345678"],
    ["int4[]", [1, null, 3]], ["text[]", ['a"b', "", "c,d", null]], ["int4[]", [[1, 2], [3, 4]]],
    ["int4range", "[1,10)"], ["interval", "3 days 4.000005 seconds"], ["int4", null],
  ]) {
    const result = await client.query(`SELECT $1::${type} AS value`, [value]);
    say({ type, value: plain(result.rows[0].value), oid: result.fields[0].dataTypeID });
  }
  const arrays = await client.query({ text: "SELECT 1 AS a, 'x' AS a, $1::text AS b", values: ["y"], rowMode: "array" });
  say({ fields: arrays.fields.map((field) => field.name), rows: arrays.rows });
  const binary = await client.query({ text: "SELECT $1::int AS n", values: [258], binary: true });
  say({ binary: binary.rows });
  await client.query("RESET timezone");
}

async function prepared(client) {
  await client.query(`CREATE TABLE ${table} (n int PRIMARY KEY, t text)`);
  const insert = { name: "insert", text: `INSERT INTO ${table} VALUES ($1, $2)` };
  const select = { name: "select", text: `SELECT t FROM ${table} WHERE n = $1` };
  for (let n = 0; n < 5; n++) await attempt(client, { ...insert, values: [n, `row ${n}`] });
  for (let n = 0; n < 7; n++) await attempt(client, { ...select, values: [n] });
  await attempt(client, "SELECT name, statement FROM pg_prepared_statements WHERE false");
  await attempt(client, `ALTER TABLE ${table} ALTER t TYPE varchar(50)`);
  // PostgreSQL refuses the old plan, pgweir plans it anew.
  await client.query({ ...select, values: [0] }).catch(() => {});
  // Queued without waiting; the driver sends each when the one before is answered.
  const queued = Array.from({ length: 20 }, (_, n) => client.query("SELECT $1::int * 2 AS d", [n]));
  say({ queued: (await Promise.all(queued)).map((result) => result.rows[0].d) });
}

async function transactions(client) {
  for (const text of [
    "BEGIN", `DELETE FROM ${table} WHERE n = 0`, "SAVEPOINT inner_one", `DELETE FROM ${table}`, "SELECT 1/0",
    "SELECT 'refused'", "ROLLBACK TO inner_one", `SELECT count(*) FROM ${table}`, "COMMIT",
    "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "SHOW transaction_isolation", `DELETE FROM ${table}`, "COMMIT",
    `SELECT count(*) FROM ${table}`, `DELETE FROM ${table} WHERE n = 1; SELECT 1/0`,
    `SELECT count(*) FROM ${table}`, "ROLLBACK",
  ]) {
    await attempt(client, text);
  }
  const results = await client.query(`SELECT 1 AS a; UPDATE ${table} SET t = t WHERE n < 3; SELECT 'x' AS b`);
  say({ results: results.map((result) => [result.command, result.rowCount, result.rows]) });
}

async function errors(client) {
  const notices = [];
  const listener = (notice) => notices.push([notice.severity, notice.code, notice.message]);
  client.on("notice", listener);
  for (const [text, values] of [
    ["SELEC 1"], ["SELECT * FROM no_such_table_here"], ["SELECT 1/$1::int", [0]], ["SELECT $1::int", ["x"]],
    [`INSERT INTO ${table} VALUES ($1, 'again')`, [1]], [`INSERT INTO ${table} VALUES ($1)`, [null]],
    ["DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'PW001', HINT = 'a hint', DETAIL = 'more'; END $$"],
    ["SELECT $1::int + $2::int", [1]], [""], ["SELECT 'fine' AS f"],
    ["DO $$ BEGIN RAISE NOTICE 'a notice'; RAISE WARNING 'a warning'; END $$"],
  ]) {
    await attempt(client, { text, values });
  }
  client.off("notice", listener);
  say({ notices });
}

async function cursors(client) {
  const cursor = client.query(new Cursor("SELECT n FROM generate_series(1, $1::int) n", [100]));
  say({ rows: await cursor.read(3) });
  say({ rows: (await cursor.read(50)).length });
  await cursor.close();
  const wrong = client.query(new Cursor("SELECT 10 / (5 - n) AS q FROM generate_series(1, $1::int) n", [10]));
  say({ rows: await wrong.read(3) });
  await wrong.read(10).then((rows) => say({ rows }), tell);
  await wrong.close().catch(tell);
  await attempt(client, "SELECT 'alive' AS a");
}

async function copy(client) {
  const into = client.query(copyFrom(`COPY ${table} FROM STDIN`));
  const lines = Array.from({ length: 2000 }, (_, n) => `${n + 1000}\t${n % 2 ? `row ${n}` : "\\N"}\n`);
  await stream(Readable.from(lines), into);
  say({ copied: into.rowCount });
  const out = client.query(copyTo(`COPY (SELECT n, t FROM ${table} WHERE n >= 1000 ORDER BY n) TO STDOUT`));
  const chunks = [];
  out.on("data", (chunk) => chunks.push(chunk));
  await once(out, "end");
  const data = Buffer.concat(chunks);
  say({ bytes: data.length, start: data.subarray(0, 60).toString(), rows: out.rowCount });
  for (const text of ["2\tduplicate\n", "not a number\tx\n"]) {
    await stream(Readable.from([text]), client.query(copyFrom(`COPY ${table} FROM STDIN`))).then(
      () => say({ copied: true }),
      tell,
    );
  }
  await attempt(client, `SELECT count(*) FROM ${table} WHERE n >= 1000`);
}

async function cancel(client) {
  const sleeping = client.query("SELECT pg_sleep(60)").then(() => say({ cancelled: false }), tell);
  // Time for the statement to begin: a CancelRequest before it does nothing.
  await new Promise((resolve) => setTimeout(resolve, 500));
  const connection = new pg.Connection({});
  const { host, port } = client;
  connection.once("connect", () => connection.cancel(client.processID, client.secretKey));
  host.startsWith("/") ? connection.connect(`${host}/.s.PGSQL.${port}`) : connection.connect(port, host);
  await Promise.all([sleeping, once(connection, "end")]);
  await attempt(client, "SELECT 'alive' AS a");
  await client.query("SET statement_timeout = '100ms'");
  await attempt(client, "SELECT pg_sleep(60)");
  await client.query("RESET statement_timeout");
}

async function session(client) {
  await attempt(client, `CREATE TEMP TABLE ${table}_temp (n int)`);
  await attempt(client, `SELECT count(*) FROM ${table}_temp`);
  await attempt(client, `DROP TABLE ${table}_temp`);
  const heard = once(client, "notification");
  await client.query(`LISTEN ${table}`);
  await client.query(`NOTIFY ${table}, 'hello'`);
  const [{ channel, payload }] = await heard;
  say({ heard: [channel, payload] });
  await client.query(`UNLISTEN ${table}`);
}

async function pool() {
  const shared = new pg.Pool({ connectionString: url, max: 4 });
  const answers = Array.from({ length: 40 }, (_, n) => shared.query("SELECT $1::int * 2 AS d", [n]));
  say({ pool: (await Promise.all(answers)).map((result) => result.rows[0].d) });
  await shared.end();
}

const STEPS = [connect, types, prepared, transactions, errors, cursors, copy, cancel, session, pool];

async function attempt(client, query) {
  try {
    const result = await client.query(query);
    say({ command: result.command, count: result.rowCount, rows: result.rows });
  } catch (error) {
    tell(error);
  }
}

function tell(error) {
  const { code, severity, message, detail, hint, position, where, constraint, table, column } = error;
  say({ error: { code, severity, message, detail, hint, position, where, constraint, table, column } });
}

async function drop(client) {
  await client.query("SET client_min_messages = error");
  await client.query(`DROP TABLE IF EXISTS ${table}`);
  await client.query("RESET client_min_messages");
}

function plain(value) {
  return Buffer.isBuffer(value) ? value.toString("hex") : value;
}

function say(values) {
  console.log(JSON.stringify(values));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
