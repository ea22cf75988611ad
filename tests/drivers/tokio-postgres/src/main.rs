//! A round of everyday work in tokio-postgres, as a transcript. For use and promises see `psycopg_round.py`.
//!
//!     tokio-postgres-round URL PREFIX
//!
//! The driver prepares what has parameters under a name, asks for unknown types by statements of its own, closes names
//! as their values are dropped, and sends at once whatever is awaited side by side.

use std::error::Error;
use std::fmt::{Debug, Write as _};
use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::{join, join_all, try_join_all};
use futures_util::{SinkExt as _, Stream, StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, Kind, ToSql, Type};
use tokio_postgres::{
    AsyncMessage, CancelToken, Client, Config, IsolationLevel, NoTls, Row, SimpleQueryMessage,
    Statement,
};

type Done = Result<(), Box<dyn Error>>;

/// How long anything may take. Whatever is late ends the round.
const LIMIT: Duration = Duration::from_secs(60);

/// More than a step hears before it asks.
const HEARD: usize = 100;

struct Round {
    config: Config,
    table: String,
    client: Client,
    /// Notices and notifications, as the connection hears them.
    heard: Receiver<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(prefix)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tokio-postgres-round URL PREFIX".into());
    };
    let config: Config = url.parse()?;
    let (client, heard) = connect(&config).await?;
    let mut round = Round {
        config,
        table: format!("{prefix}_t"),
        client,
        heard,
    };
    round.drop_table().await?;
    let walked = round.walk().await;
    round.drop_table().await?;
    walked?;
    say("closed", &round.client.is_closed());
    Ok(())
}

/// A client, with its connection on a task that says what it hears.
async fn connect(config: &Config) -> Result<(Client, Receiver<String>), tokio_postgres::Error> {
    let (client, mut connection) = config.connect(NoTls).await?;
    let (sender, heard) = channel(HEARD);
    tokio::spawn(async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            let text = match message {
                Ok(AsyncMessage::Notice(notice)) => {
                    format!("{} {}", notice.severity(), notice.message())
                }
                Ok(AsyncMessage::Notification(note)) => {
                    format!("{}: {}", note.channel(), note.payload())
                }
                Ok(_) => continue,
                Err(error) => format!("the connection ends: {}", shown(&error)),
            };
            // Nobody listens when the round is over.
            let _ = sender.send(text).await;
        }
    });
    Ok((client, heard))
}

impl Round {
    async fn walk(&mut self) -> Done {
        step("login");
        self.login().await?;
        step("types");
        self.types().await?;
        step("prepared");
        self.prepared().await?;
        step("pipelined");
        self.pipelined().await?;
        step("transactions");
        self.transactions().await?;
        step("portals");
        self.portals().await?;
        step("copy");
        self.copy().await?;
        step("simple");
        self.simple().await?;
        step("errors");
        self.errors().await?;
        step("cancel");
        self.cancel().await?;
        step("notifications");
        self.notifications().await?;
        step("types of one's own");
        self.own_types().await
    }

    async fn login(&self) -> Done {
        let mut named = self.config.clone();
        named
            .application_name("a round")
            .options("-c work_mem=5MB")
            .connect_timeout(LIMIT);
        let (other, _) = connect(&named).await?;
        attempt(
            &other,
            "SELECT current_setting('application_name'), current_setting('work_mem')",
        )
        .await;
        let mut elsewhere = self.config.clone();
        elsewhere.dbname("no_such_database_here");
        let mut wrong = self.config.clone();
        wrong.options("-c no_such_setting=1");
        for config in [elsewhere, wrong] {
            match connect(&config).await {
                Ok(_) => say("connected", &config.get_dbname()),
                Err(error) => tell(&error),
            }
        }
        let mut primary = self.config.clone();
        primary.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
        let (other, _) = connect(&primary).await?;
        attempt(&other, "SHOW transaction_read_only").await;
        Ok(())
    }

    async fn types(&self) -> Done {
        let client = &self.client;
        back(client, "int2", 7_i16).await?;
        back(client, "int4", i32::MIN).await?;
        back(client, "int8", 1_i64 << 62).await?;
        back(client, "float8", 0.1_f64).await?;
        back(client, "bool", true).await?;
        back(client, "text", "zwölf 🐘 'quoted' \\".to_owned()).await?;
        back(client, "text", String::new()).await?;
        back(client, "bytea", (0..=255).collect::<Vec<u8>>()).await?;
        back(
            client,
            "timestamptz",
            SystemTime::UNIX_EPOCH + Duration::from_micros(1_709_210_096_789_000),
        )
        .await?;
        back(client, "int4[]", vec![Some(1), None, Some(3)]).await?;
        back(
            client,
            "text[]",
            vec![Some("a\"b".to_owned()), Some(String::new()), None],
        )
        .await?;
        back(client, "inet", "10.0.0.1".parse::<std::net::IpAddr>()?).await?;
        back(client, "int4", None::<i32>).await?;
        for (name, text) in [
            ("numeric", "12345678901234567890.0987654321"),
            ("jsonb", r#"{"a": [1, null]}"#),
            ("int4range", "[1,10)"),
            ("interval", "3 days 4.000005 seconds"),
            ("uuid", "12345678-1234-5678-1234-567812345678"),
        ] {
            let row = client
                .query_one(&format!("SELECT $1::text::{name}"), &[&text])
                .await?;
            say(name, &row.try_get::<_, Raw>(0)?);
        }
        let statement = client
            .prepare("SELECT $1::int + $2, $3::text AS t, now() AS at, 1.50::numeric(8,2)")
            .await?;
        describe(&statement);
        let typed = client
            .prepare_typed("SELECT $1 || '!' AS a, $2 AS b", &[Type::TEXT, Type::INT8])
            .await?;
        describe(&typed);
        tell_rows(&client.query(&typed, &[&"typed", &7_i64]).await?);
        tell_rows(
            &client
                .query_typed("SELECT $1 + 1", &[(&41_i32, Type::INT4)])
                .await?,
        );
        match client
            .query_typed("SELECT $1 + 'x'", &[(&1_i32, Type::INT4)])
            .await
        {
            Ok(rows) => tell_rows(&rows),
            Err(error) => tell(&error),
        }
        Ok(())
    }

    async fn prepared(&self) -> Done {
        let (client, table) = (&self.client, &self.table);
        client
            .batch_execute(&format!("CREATE TABLE {table} (n int PRIMARY KEY, t text)"))
            .await?;
        let insert = client
            .prepare(&format!("INSERT INTO {table} VALUES ($1, $2)"))
            .await?;
        let select = client
            .prepare(&format!("SELECT t FROM {table} WHERE n = $1"))
            .await?;
        for n in 0..5 {
            say(
                "inserted",
                &client.execute(&insert, &[&n, &format!("row {n}")]).await?,
            );
        }
        for n in 0..7 {
            say(
                "row",
                &client
                    .query_opt(&select, &[&n])
                    .await?
                    .map(|row| row.get::<_, String>(0)),
            );
        }
        match client.query_one(&select, &[&77]).await {
            Ok(row) => tell_rows(&[row]),
            Err(error) => tell(&error),
        }
        // Another client's statement of the same text is not shared with ours as far as either can see.
        let (other, _) = connect(&self.config).await?;
        let ours = client.prepare("SELECT $1::int * 3").await?;
        let same = other.prepare("SELECT $1::int * 3").await?;
        for n in 0..3 {
            let both = join(one(client, &ours, &n), one(&other, &same, &(n + 1))).await;
            say(
                "both",
                &(both.0?.get::<_, i32>(0), both.1?.get::<_, i32>(0)),
            );
        }
        drop(same);
        // Names are closed as their statements are dropped; many more than a server connection keeps.
        for turn in 0..2 {
            let mut sums = Vec::new();
            for n in 0..150 {
                let statement = client.prepare(&format!("SELECT $1::int + {n}")).await?;
                sums.push(
                    client
                        .query_one(&statement, &[&turn])
                        .await?
                        .get::<_, i32>(0),
                );
            }
            say("sum", &sums.iter().sum::<i32>());
        }
        let kept = (0..150)
            .map(|n| client.prepare(Box::leak(format!("SELECT {n} * $1::int").into_boxed_str())));
        let kept = try_join_all(kept).await?;
        let answers = try_join_all(
            kept.iter()
                .map(|statement| client.query_one(statement, &[&2])),
        )
        .await?;
        say(
            "products",
            &answers.iter().map(|row| row.get::<_, i32>(0)).sum::<i32>(),
        );
        client.batch_execute("DEALLOCATE ALL").await?;
        match client.query(&select, &[&1]).await {
            Ok(rows) => tell_rows(&rows),
            Err(error) => tell(&error),
        }
        attempt(client, "SELECT 'alive'").await;
        Ok(())
    }

    /// What is awaited side by side is sent without waiting, each with a Sync of its own.
    async fn pipelined(&self) -> Done {
        let (client, table) = (&self.client, &self.table);
        let double = client.prepare("SELECT $1::int * 2").await?;
        let numbers: Vec<i32> = (0..500).collect();
        let rows = try_join_all(numbers.iter().map(|n| one(client, &double, n))).await?;
        let right = rows
            .iter()
            .zip(&numbers)
            .all(|(row, n)| row.get::<_, i32>(0) == n * 2);
        say("doubled", &(rows.len(), right));

        let insert = client
            .prepare(&format!("INSERT INTO {table} VALUES ($1, 'piped')"))
            .await?;
        let count = client
            .prepare(&format!("SELECT count(*) FROM {table} WHERE t = 'piped'"))
            .await?;
        let divide = client.prepare("SELECT 10 / $1::int").await?;
        // Reads, writes and errors by turns: each is answered for itself, and a read sees the writes before it.
        let numbers: Vec<i32> = (100..160).collect();
        let answers = join_all(numbers.iter().map(|&n| {
            let (insert, count, divide) = (&insert, &count, &divide);
            async move {
                match n % 4 {
                    0 => client
                        .execute(insert, &[&n])
                        .await
                        .map(|count| format!("inserted {count}")),
                    1 => client
                        .query_one(count, &[])
                        .await
                        .map(|row| format!("{}", row.get::<_, i64>(0))),
                    2 => client
                        .query_one(divide, &[&(n % 8 - 2)])
                        .await
                        .map(|row| format!("{}", row.get::<_, i32>(0))),
                    _ => client
                        .execute(insert, &[&(n - 3)])
                        .await
                        .map(|count| format!("inserted {count}")),
                }
            }
        }))
        .await;
        for answer in answers {
            match answer {
                Ok(text) => say("answer", &text),
                Err(error) => tell(&error),
            }
        }
        // Prepares of the same and of different texts at once, two of them wrong.
        let prepared = join_all(
            [
                "SELECT 1",
                "SELECT 1",
                "SELEC 1",
                "SELECT $1::text",
                "SELECT * FROM no_such_table_here",
                "SELECT 2",
            ]
            .map(|text| client.prepare(text)),
        )
        .await;
        for statement in &prepared {
            match statement {
                Ok(statement) => describe(statement),
                Err(error) => tell(error),
            }
        }
        // Large parameters and large results, all at once: more than any buffer on the way.
        let large = client
            .prepare("SELECT $1::text || repeat('r', 50000)")
            .await?;
        let value = "v".repeat(50_000);
        let rows = try_join_all((0..200).map(|_| one(client, &large, &value))).await?;
        say(
            "large",
            &rows
                .iter()
                .map(|row| row.get::<_, &str>(0).len())
                .sum::<usize>(),
        );
        // Clients side by side, each with its own statements.
        let clients = try_join_all((0..6).map(|_| connect(&self.config))).await?;
        let sums = try_join_all(clients.iter().enumerate().map(
            |(number, (other, _))| async move {
                let add = other.prepare("SELECT $1::int + $2::int").await?;
                let number = i32::try_from(number).unwrap_or_default();
                let mut sum = 0;
                for n in 0..50 {
                    sum += other
                        .query_one(&add, &[&number, &n])
                        .await?
                        .get::<_, i32>(0);
                }
                Ok::<_, tokio_postgres::Error>(sum)
            },
        ))
        .await?;
        say("sums", &sums);
        Ok(())
    }

    async fn transactions(&mut self) -> Done {
        let table = self.table.clone();
        let count = format!("SELECT count(*) FROM {table}");
        self.client
            .batch_execute(&format!(
                "TRUNCATE {table}; INSERT INTO {table} SELECT n FROM generate_series(1, 10) n"
            ))
            .await?;
        let mut outer = self.client.transaction().await?;
        say(
            "deleted",
            &outer
                .execute(&format!("DELETE FROM {table} WHERE n > 8"), &[])
                .await?,
        );
        {
            let mut inner = outer.savepoint("a_point").await?;
            say(
                "deleted",
                &inner.execute(&format!("DELETE FROM {table}"), &[]).await?,
            );
            let innermost = inner.transaction().await?;
            for text in ["SELECT 1/0", "SELECT 'refused'"] {
                match innermost.query(text, &[]).await {
                    Ok(rows) => tell_rows(&rows),
                    Err(error) => tell(&error),
                }
            }
            innermost.rollback().await?;
            tell_rows(&inner.query(&count, &[]).await?);
            // Dropped without a word: the driver sends ROLLBACK TO, and waits for nothing.
        }
        tell_rows(&outer.query(&count, &[]).await?);
        outer.commit().await?;
        attempt(&self.client, &count).await;

        {
            let dropped = self.client.transaction().await?;
            dropped
                .execute(&format!("DELETE FROM {table}"), &[])
                .await?;
        }
        attempt(&self.client, &count).await;

        let strict = self
            .client
            .build_transaction()
            .isolation_level(IsolationLevel::Serializable)
            .read_only(true)
            .deferrable(true)
            .start()
            .await?;
        for text in [
            "SHOW transaction_isolation",
            "SHOW transaction_read_only",
            "SHOW transaction_deferrable",
        ] {
            tell_rows(&strict.query(text, &[]).await?);
        }
        match strict.execute(&format!("DELETE FROM {table}"), &[]).await {
            Ok(count) => say("deleted", &count),
            Err(error) => say(
                "read only",
                &(error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)),
            ),
        }
        strict.rollback().await?;

        // Side by side inside a transaction, with an error among them: what follows it is refused.
        let together = self.client.transaction().await?;
        let texts = ["SELECT 1", "SELECT 1/0", "SELECT 2", "SELECT 3"];
        for answer in join_all(texts.map(|text| together.query(text, &[]))).await {
            match answer {
                Ok(rows) => tell_rows(&rows),
                Err(error) => tell(&error),
            }
        }
        // A COMMIT that rolls back is no error.
        together.commit().await?;
        attempt(&self.client, &count).await;

        // A serialisation failure, with another client.
        let (mut other, _) = connect(&self.config).await?;
        let ours = self
            .client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .start()
            .await?;
        tell_rows(&ours.query(&count, &[]).await?);
        let theirs = other.transaction().await?;
        theirs
            .execute(&format!("UPDATE {table} SET t = 'theirs' WHERE n = 1"), &[])
            .await?;
        theirs.commit().await?;
        match ours
            .execute(&format!("UPDATE {table} SET t = 'ours' WHERE n = 1"), &[])
            .await
        {
            Ok(count) => say("updated", &count),
            Err(error) => {
                say(
                    "serialisation",
                    &(error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)),
                );
                tell(&error);
            }
        }
        ours.rollback().await?;
        Ok(())
    }

    /// Portals by Bind, with so many rows for each Execute.
    async fn portals(&mut self) -> Done {
        let transaction = self.client.transaction().await?;
        let numbers = transaction
            .prepare("SELECT n FROM generate_series(1, $1::int) n")
            .await?;
        let one = transaction.bind(&numbers, &[&10]).await?;
        let two = transaction.bind(&numbers, &[&5]).await?;
        // By turns, past the end of one of them.
        for _ in 0..4 {
            say("one", &ints(&transaction.query_portal(&one, 3).await?));
            say("two", &ints(&transaction.query_portal(&two, 2).await?));
        }
        let three = transaction.bind(&numbers, &[&7]).await?;
        let both = join(
            transaction.query_portal(&three, 2),
            transaction.query_portal(&three, 0),
        )
        .await;
        say("both", &(ints(&both.0?), ints(&both.1?)));
        let mut streamed = pin!(
            transaction
                .query_portal_raw(&transaction.bind(&numbers, &[&1000]).await?, 400)
                .await?
        );
        let mut sum = 0;
        while let Some(row) = streamed.try_next().await? {
            sum += row.get::<_, i32>(0);
        }
        say("streamed", &(sum, streamed.rows_affected()));
        let wrong = transaction
            .bind("SELECT 10 / (5 - n) FROM generate_series(1, 9) n", &[])
            .await?;
        say(
            "before the error",
            &ints(&transaction.query_portal(&wrong, 3).await?),
        );
        match transaction.query_portal(&wrong, 3).await {
            Ok(rows) => say("rows", &ints(&rows)),
            Err(error) => tell(&error),
        }
        match transaction.query_portal(&one, 1).await {
            Ok(rows) => say("rows", &ints(&rows)),
            Err(error) => tell(&error),
        }
        drop((one, two, three, wrong));
        transaction.rollback().await?;
        attempt(&self.client, "SELECT 'alive'").await;
        Ok(())
    }

    async fn copy(&self) -> Done {
        let (client, table) = (&self.client, &self.table);
        client.batch_execute(&format!("TRUNCATE {table}")).await?;
        let into = format!("COPY {table} FROM STDIN");
        let mut sink = pin!(client.copy_in::<_, Bytes>(&into).await?);
        for n in 0..5000 {
            sink.feed(Bytes::from(format!("{n}\trow {n}\n"))).await?;
        }
        say("copied", &sink.finish().await?);
        for text in ["1\tduplicate\n", "not a number\tx\n", "1\n"] {
            let mut sink = pin!(client.copy_in::<_, Bytes>(&into).await?);
            // The server may have refused it by the time that it is all sent.
            let sent = sink.send(Bytes::from(text)).await;
            match (sent, sink.finish().await) {
                (Ok(()), Ok(count)) => say("copied", &count),
                (_, Err(error)) | (Err(error), _) => tell(&error),
            }
        }
        {
            // Given up: the driver sends CopyFail.
            let mut sink = pin!(client.copy_in::<_, Bytes>(&into).await?);
            sink.send(Bytes::from_static(b"9000\tnever\n")).await?;
        }
        attempt(client, &format!("SELECT count(*) FROM {table}")).await;

        let out = client
            .copy_out(&format!(
                "COPY (SELECT * FROM {table} ORDER BY n) TO STDOUT"
            ))
            .await?;
        let blocks: Vec<Bytes> = out.try_collect().await?;
        let bytes = blocks.concat();
        say(
            "out",
            &(
                blocks.len(),
                bytes.len(),
                String::from_utf8_lossy(bytes.get(..30).unwrap_or_default()),
            ),
        );
        match client
            .copy_out("COPY (SELECT 10 / (5 - n) FROM generate_series(1, 9) n) TO STDOUT")
            .await
        {
            Ok(out) => {
                let mut out = pin!(out);
                loop {
                    match out.try_next().await {
                        Ok(Some(block)) => say("block", &block),
                        Ok(None) => break,
                        Err(error) => {
                            tell(&error);
                            break;
                        }
                    }
                }
            }
            Err(error) => tell(&error),
        }
        // Left half read: the driver reads the rest for itself.
        drop(
            client
                .copy_out("COPY (SELECT generate_series(1, 50000)) TO STDOUT")
                .await?,
        );
        attempt(client, "SELECT 'alive'").await;

        let sink = client.copy_in(&format!("{into} (FORMAT binary)")).await?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]));
        for n in 10_000..10_100 {
            writer.as_mut().write(&[&n, &None::<&str>]).await?;
        }
        say("copied", &writer.finish().await?);
        let out = client
            .copy_out(&format!(
                "COPY (SELECT * FROM {table} ORDER BY n) TO STDOUT (FORMAT binary)"
            ))
            .await?;
        let rows = binary_rows(BinaryCopyOutStream::new(out, &[Type::INT4, Type::TEXT])).await?;
        say("rows", &rows);
        attempt(client, "SELECT 'alive'").await;
        Ok(())
    }

    async fn simple(&self) -> Done {
        let (client, table) = (&self.client, &self.table);
        let texts = [
            format!(
                "SELECT 1 AS a, NULL AS b; UPDATE {table} SET t = t WHERE n < 3; SELECT 'x' AS c; SELECT 1 WHERE false"
            ),
            String::new(),
            format!("BEGIN; DELETE FROM {table}; SELECT 1/0; COMMIT"),
            format!("SELECT count(*) FROM {table}"),
            "ROLLBACK".to_owned(),
            format!("DELETE FROM {table} WHERE n = 0; SELECT 1/0"),
            format!("SELECT count(*) FROM {table}"),
            "SET application_name = 'set'; SHOW application_name".to_owned(),
            "RESET application_name".to_owned(),
        ];
        for text in &texts {
            attempt(client, text).await;
        }
        // Side by side, with the extended protocol between them.
        let (first, second, third) = (
            client.simple_query("SELECT 'first'"),
            client.query("SELECT 'second'", &[]),
            client.simple_query("SELECT 1/0"),
        );
        let ((first, second), third) = join(join(first, second), third).await;
        tell_messages(first);
        tell_rows(&second?);
        tell_messages(third);
        Ok(())
    }

    async fn errors(&mut self) -> Done {
        let (client, table) = (&self.client, &self.table);
        for text in [
            "SELEC 1",
            "SELECT * FROM no_such_table_here",
            "SELECT 1/0",
            "INSERT INTO {t} VALUES (1, 'again')",
            "INSERT INTO {t} VALUES (NULL)",
            "DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'PW001', HINT = 'a hint', DETAIL = 'more'; END $$",
            "SELECT 'fine'",
        ] {
            let text = text.replace("{t}", table);
            match client.query(&text, &[]).await {
                Ok(rows) => tell_rows(&rows),
                Err(error) => tell(&error),
            }
        }
        for (text, state) in [
            ("SELECT 1/0", SqlState::DIVISION_BY_ZERO),
            (
                "SELECT * FROM no_such_table_here",
                SqlState::UNDEFINED_TABLE,
            ),
            ("SELECT 'x'::int", SqlState::INVALID_TEXT_REPRESENTATION),
            (
                "SELECT no_such_function_here()",
                SqlState::UNDEFINED_FUNCTION,
            ),
        ] {
            let error = client.query(text, &[]).await.err();
            say(
                text,
                &error.is_some_and(|error| error.code() == Some(&state)),
            );
        }
        // The driver sees these itself, before anything is sent.
        for error in [
            client.query("SELECT $1::int", &[]).await.err(),
            client.query("SELECT $1::int", &[&"a text"]).await.err(),
        ] {
            say("driver", &error.map(|error| error.to_string()));
        }
        client
            .batch_execute("DO $$ BEGIN RAISE NOTICE 'a notice'; RAISE WARNING 'a warning'; END $$")
            .await?;
        self.hear(2).await
    }

    /// Returns when the server has dealt with the request, which it tells by closing the connection: one that is on its way
    /// would hit what comes next.
    async fn request_cancel(&self, token: &CancelToken) -> Done {
        let Some(Host::Tcp(host)) = self.config.get_hosts().first() else {
            return Err("a TCP address is expected".into());
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let mut stream = TcpStream::connect((host.as_str(), port)).await?;
        token.cancel_query_raw(&mut stream, NoTls).await?;
        stream.read_to_end(&mut Vec::new()).await?;
        Ok(())
    }

    async fn cancel(&self) -> Done {
        let (client, table) = (&self.client, &self.table);
        let sleep = format!("DELETE FROM {table} WHERE n = 1 AND pg_sleep(60) IS NULL");
        for text in ["SELECT pg_sleep(60)", &sleep] {
            let token = client.cancel_token();
            let mut query = pin!(client.query(text, &[]));
            // Again and again: the first may come before the statement has begun, and then does nothing.
            let mut wait = Duration::from_millis(100);
            let answer = loop {
                match tokio::time::timeout(wait, query.as_mut()).await {
                    Ok(answer) => break answer,
                    Err(_) => self.request_cancel(&token).await?,
                }
                wait = Duration::from_secs(1);
            };
            match answer {
                Ok(rows) => tell_rows(&rows),
                Err(error) => {
                    say(
                        "cancelled",
                        &(error.code() == Some(&SqlState::QUERY_CANCELED)),
                    );
                    tell(&error);
                }
            }
            attempt(client, "SELECT 'alive'").await;
        }
        client
            .batch_execute("SET statement_timeout = '100ms'")
            .await?;
        attempt(client, "SELECT pg_sleep(60)").await;
        client.batch_execute("RESET statement_timeout").await?;
        // A query that nobody waits for any more is answered all the same, and the next one is not taken for it.
        let unheard = tokio::time::timeout(
            Duration::ZERO,
            client.query("SELECT pg_sleep(0.2), 'unheard'", &[]),
        )
        .await;
        say("unheard", &unheard.is_ok());
        attempt(client, "SELECT 'heard'").await;
        Ok(())
    }

    async fn notifications(&mut self) -> Done {
        let table = self.table.clone();
        self.client
            .batch_execute(&format!("LISTEN {table}"))
            .await?;
        let (other, _) = connect(&self.config).await?;
        other
            .batch_execute(&format!("NOTIFY {table}, 'from another'"))
            .await?;
        self.hear(1).await?;
        let transaction = self.client.transaction().await?;
        transaction
            .execute("SELECT pg_notify($1, $2)", &[&table, &"mine"])
            .await?;
        transaction.query("SELECT 1", &[]).await?;
        say("early", &self.heard.try_recv().ok());
        transaction.commit().await?;
        self.hear(1).await?;
        for n in 0..20 {
            other
                .query("SELECT pg_notify($1, $2)", &[&table, &n.to_string()])
                .await?;
        }
        self.hear(20).await?;
        self.client
            .batch_execute(&format!("UNLISTEN {table}"))
            .await?;
        other
            .batch_execute(&format!("NOTIFY {table}, 'nobody hears'"))
            .await?;
        self.client.batch_execute("SELECT 1").await?;
        say("more", &self.heard.try_recv().ok());
        Ok(())
    }

    /// Types that the driver has to ask the server about, by statements that it prepares for itself.
    async fn own_types(&self) -> Done {
        let (client, table) = (&self.client, &self.table);
        client
            .batch_execute(&format!(
                "CREATE TYPE {table}_mood AS ENUM ('sad', 'happy'); CREATE TYPE {table}_pair AS (a int, b text); \
                 CREATE DOMAIN {table}_small AS int CHECK (VALUE < 100)"
            ))
            .await?;
        for text in [
            format!("SELECT 'happy'::{table}_mood"),
            format!("SELECT ROW(1, 'x')::{table}_pair"),
            format!("SELECT ARRAY['sad']::{table}_mood[]"),
            format!("SELECT 7::{table}_small"),
            format!("SELECT $1::{table}_small, $2::{table}_mood"),
        ] {
            describe(&client.prepare(&text).await?);
        }
        let small = client
            .query(&format!("SELECT 700::{table}_small"), &[])
            .await;
        match small {
            Ok(rows) => tell_rows(&rows),
            Err(error) => tell(&error),
        }
        client
            .batch_execute(&format!(
                "DROP TYPE {table}_mood, {table}_pair; DROP DOMAIN {table}_small"
            ))
            .await?;
        Ok(())
    }

    /// Says what the connection hears next, in the order that it came.
    async fn hear(&mut self, count: usize) -> Done {
        for _ in 0..count {
            say(
                "heard",
                &tokio::time::timeout(LIMIT, self.heard.recv()).await?,
            );
        }
        Ok(())
    }

    async fn drop_table(&self) -> Done {
        let table = &self.table;
        self.client
            .batch_execute(&format!(
                "SET client_min_messages = error; DROP TABLE IF EXISTS {table}; \
                 DROP TYPE IF EXISTS {table}_mood, {table}_pair; DROP DOMAIN IF EXISTS {table}_small; \
                 RESET client_min_messages"
            ))
            .await?;
        Ok(())
    }
}

/// One row of a statement with one parameter.
async fn one(
    client: &Client,
    statement: &Statement,
    value: &(dyn ToSql + Sync),
) -> Result<Row, tokio_postgres::Error> {
    client.query_one(statement, &[value]).await
}

/// Sends a value of this type there and back.
async fn back<T>(client: &Client, name: &str, value: T) -> Done
where
    T: ToSql + Sync + Debug + PartialEq + for<'a> FromSql<'a>,
{
    let row = client
        .query_one(&format!("SELECT $1::{name}"), &[&value])
        .await?;
    let answer: T = row.try_get(0)?;
    say(
        name,
        &(answer == value, row.columns()[0].type_().oid(), answer),
    );
    Ok(())
}

async fn binary_rows(
    rows: BinaryCopyOutStream,
) -> Result<(usize, i64, usize), tokio_postgres::Error> {
    let mut rows = pin!(rows);
    let (mut count, mut sum, mut nulls) = (0, 0, 0);
    while let Some(row) = next(&mut rows).await? {
        count += 1;
        sum += i64::from(row.get::<i32>(0));
        nulls += usize::from(row.get::<Option<&str>>(1).is_none());
    }
    Ok((count, sum, nulls))
}

async fn next<S, T>(stream: &mut S) -> Result<Option<T>, tokio_postgres::Error>
where
    S: Stream<Item = Result<T, tokio_postgres::Error>> + Unpin,
{
    stream.next().await.transpose()
}

/// A simple Query, and all that came of it.
async fn attempt(client: &Client, text: &str) {
    say("simple", &text);
    tell_messages(client.simple_query(text).await);
}

/// The bytes of a value of any type.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw, Box<dyn Error + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Debug for Raw {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

fn ints(rows: &[Row]) -> Vec<i32> {
    rows.iter().map(|row| row.get(0)).collect()
}

// ---- saying ----

fn step(name: &str) {
    println!("step {name}");
}

fn say(what: &str, value: &dyn Debug) {
    println!("  {what}: {value:?}");
}

fn describe(statement: &Statement) {
    let columns: Vec<String> = statement
        .columns()
        .iter()
        .map(|column| format!("{} {}", column.name(), type_text(column.type_())))
        .collect();
    let parameters: Vec<String> = statement.params().iter().map(type_text).collect();
    say("statement", &(parameters, columns));
}

/// A type with what the driver has asked the server of it, without the numbers of those that are created anew.
fn type_text(type_: &Type) -> String {
    let kind = match type_.kind() {
        Kind::Enum(labels) => labels.join(" | "),
        Kind::Array(of) | Kind::Range(of) | Kind::Multirange(of) | Kind::Domain(of) => {
            type_text(of)
        }
        Kind::Composite(fields) => {
            let fields = fields
                .iter()
                .map(|field| format!("{} {}", field.name(), type_text(field.type_())));
            fields.collect::<Vec<_>>().join(", ")
        }
        _ => return type_.to_string(),
    };
    format!("{type_} ({kind})")
}

fn tell_rows(rows: &[Row]) {
    for row in rows {
        let mut line = String::new();
        for (index, column) in row.columns().iter().enumerate() {
            let value = row.try_get::<_, Option<Raw>>(index);
            // Writing to a String does not fail.
            let _ = write!(
                line,
                " {} {}={:?}",
                column.name(),
                column.type_(),
                value.ok().flatten()
            );
        }
        println!("  row{line}");
    }
    say("rows", &rows.len());
}

fn tell_messages(answer: Result<Vec<SimpleQueryMessage>, tokio_postgres::Error>) {
    match answer {
        Ok(messages) => {
            for message in messages {
                match message {
                    SimpleQueryMessage::Row(row) => {
                        let values: Vec<_> = (0..row.len()).map(|index| row.get(index)).collect();
                        say("row", &values);
                    }
                    SimpleQueryMessage::CommandComplete(count) => say("done", &count),
                    SimpleQueryMessage::RowDescription(columns) => {
                        say(
                            "columns",
                            &columns
                                .iter()
                                .map(|column| column.name())
                                .collect::<Vec<_>>(),
                        );
                    }
                    _ => say("another message", &()),
                }
            }
        }
        Err(error) => tell(&error),
    }
}

fn tell(error: &tokio_postgres::Error) {
    println!("  error: {}", shown(error));
}

fn shown(error: &tokio_postgres::Error) -> String {
    let Some(database) = error.as_db_error() else {
        return error.to_string();
    };
    format!(
        "{} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        database.severity(),
        database.code().code(),
        database.message(),
        database.detail(),
        database.hint(),
        database.position(),
        database.where_(),
        database.table(),
        database.constraint(),
        database.routine(),
    )
}
