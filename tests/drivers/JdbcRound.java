// A round of everyday work in pgjdbc, as a transcript. For use and promises see psycopg_round.py.
//
//     java -cp postgresql.jar JdbcRound.java URL PREFIX

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.CallableStatement;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.ParameterMetaData;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.TimeZone;
import java.util.UUID;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.PGStatement;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyManager;
import org.postgresql.copy.PGCopyInputStream;
import org.postgresql.copy.PGCopyOutputStream;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

public class JdbcRound {
    static URI url;
    static String table;

    interface Step {
        void walk(Connection conn) throws Exception;
    }

    interface Work {
        Object run() throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        // What the driver tells the server at login.
        TimeZone.setDefault(TimeZone.getTimeZone("UTC"));
        url = new URI(arguments[0]);
        table = arguments[1] + "_t";
        Connection conn = connect();
        drop(conn);
        try {
            step("login", JdbcRound::login, conn);
            step("types", JdbcRound::types, conn);
            step("prepared", JdbcRound::prepared, conn);
            step("batches", JdbcRound::batches, conn);
            step("transactions", JdbcRound::transactions, conn);
            step("autosave", JdbcRound::autosave, conn);
            step("errors", JdbcRound::errors, conn);
            step("keys", JdbcRound::keys, conn);
            step("cursors", JdbcRound::cursors, conn);
            step("copy", JdbcRound::copy, conn);
            step("largeObjects", JdbcRound::largeObjects, conn);
            step("cancel", JdbcRound::cancel, conn);
            step("session", JdbcRound::session, conn);
            step("notifications", JdbcRound::notifications, conn);
            step("metadata", JdbcRound::metadata, conn);
            step("modes", JdbcRound::modes, conn);
        } finally {
            if (!conn.isClosed()) {
                if (!conn.getAutoCommit()) {
                    conn.rollback();
                    conn.setAutoCommit(true);
                }
                drop(conn);
                conn.close();
            }
        }
        say("closed", conn.isClosed());
    }

    static void step(String name, Step step, Connection conn) throws Exception {
        say("step", name);
        step.walk(conn);
        say("after", name, "autocommit", conn.getAutoCommit(), "transaction",
            conn.unwrap(org.postgresql.core.BaseConnection.class).getTransactionState());
    }

    // ---- the steps ----

    static void login(Connection conn) throws Exception {
        PGConnection pg = conn.unwrap(PGConnection.class);
        for (String name : new String[] {"server_encoding", "client_encoding", "DateStyle", "TimeZone",
            "integer_datetimes", "standard_conforming_strings", "application_name", "in_hot_standby"}) {
            say(name, pg.getParameterStatus(name));
        }
        try (Connection other = connect("ApplicationName", "a round", "options", "-c work_mem=5MB")) {
            attempt(other, "SELECT current_setting('application_name'), current_setting('work_mem')");
        }
        for (String target : new String[] {"primary", "any", "preferSecondary"}) {
            try (Connection other = connect("targetServerType", target, "assumeMinServerVersion", "14")) {
                attempt(other, "SELECT '" + target + "'");
            }
        }
        for (String[] wrong : new String[][] {
            {"PGDBNAME", "no_such_database_here"}, {"options", "-c no_such_setting=1"}}) {
            tryTo("connect", () -> {
                connect(wrong).close();
                return "connected";
            });
        }
    }

    static void types(Connection conn) throws Exception {
        OffsetDateTime at = OffsetDateTime.of(2024, 2, 29, 12, 34, 56, 789000000, ZoneOffset.UTC);
        Object[][] values = {
            {"int2", 7}, {"int4", -2147483648}, {"int8", 1L << 62}, {"float8", 0.1}, {"bool", true},
            {"numeric", new BigDecimal("12345678901234567890.0987654321")}, {"text", "zwölf 🐘 'quoted' \\"},
            {"text", ""}, {"date", LocalDate.of(1999, 12, 31)}, {"timestamptz", at},
            {"uuid", UUID.fromString("12345678-1234-5678-1234-567812345678")}, {"bytea", allBytes()},
            {"jsonb", object("jsonb", "{\"a\": [1, null, {\"b\": \"ü\"}]}")}, {"int4range", object("int4range", "[1,10)")},
            {"interval", object("interval", "3 days 4.000005 seconds")}, {"int4", null},
            {"int4[]", conn.createArrayOf("int4", new Object[] {1, null, 3})},
            {"text[]", conn.createArrayOf("text", new Object[] {"a\"b", "", "c,d", null})},
            {"int4[]", conn.createArrayOf("int4", new Object[][] {{1, 2}, {3, 4}})},
        };
        // Often enough for a named statement, and then for results in binary.
        for (Object[] value : values) {
            try (PreparedStatement statement = conn.prepareStatement("SELECT ?::" + value[0])) {
                List<Object> back = new ArrayList<>();
                for (int turn = 0; turn < 7; turn++) {
                    statement.setObject(1, value[1]);
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        String text = plain(rows.getObject(1));
                        if (!back.contains(text)) {
                            back.add(text);
                        }
                    }
                }
                say("type", value[0], "value", back);
            }
        }
        try (PreparedStatement statement = conn.prepareStatement("SELECT 1 AS a, 'x'::varchar(9) AS b, 1.50::numeric(8,2) AS c")) {
            describe(statement.getMetaData());
        }
        try (PreparedStatement statement = conn.prepareStatement("SELECT ?::int + ?, ?::text, ?::timestamptz")) {
            ParameterMetaData parameters = statement.getParameterMetaData();
            List<String> names = new ArrayList<>();
            for (int i = 1; i <= parameters.getParameterCount(); i++) {
                names.add(parameters.getParameterTypeName(i));
            }
            say("parameters", names);
        }
    }

    static void prepared(Connection conn) throws Exception {
        attempt(conn, "CREATE TABLE " + table + " (n int PRIMARY KEY, t text)");
        String read = "SELECT t FROM " + table + " WHERE n = ?";
        try (PreparedStatement insert = conn.prepareStatement("INSERT INTO " + table + " VALUES (?, ?)");
            PreparedStatement select = conn.prepareStatement(read)) {
            for (int n = 0; n < 8; n++) {
                attempt(insert, n, "row " + n);
            }
            for (int n = 0; n < 9; n++) {
                say("named", select.unwrap(PGStatement.class).isUseServerPrepare());
                attempt(select, n);
            }
            attempt(conn, "SELECT count(*) > 0 FROM pg_prepared_statements");
            // The driver asks for the statement anew when the server says that its result has changed; not in a
            // transaction, where it cannot.
            attempt(conn, "ALTER TABLE " + table + " ALTER t TYPE varchar(50)");
            attempt(select, 1);
            attempt(select, 2);
            attempt(conn, "DEALLOCATE ALL");
            attempt(select, 3);
            attempt(conn, "DISCARD ALL");
            attempt(select, 4);
            attempt(conn, "ALTER TABLE " + table + " ALTER t TYPE text");
            attempt(select, 5);
            attempt(insert, 1, "again");
            attempt(insert, null, null);
            attempt(select, 6);
        }
        // More statements than the driver keeps, so that it closes some.
        try (Connection other = connect("preparedStatementCacheQueries", "3", "prepareThreshold", "1")) {
            for (int turn = 0; turn < 2; turn++) {
                for (int n = 0; n < 8; n++) {
                    try (PreparedStatement statement = other.prepareStatement("SELECT ?::int + " + n)) {
                        attempt(statement, turn);
                    }
                }
            }
        }
        for (String threshold : new String[] {"0", "1", "-1"}) {
            try (Connection other = connect("prepareThreshold", threshold);
                PreparedStatement select = other.prepareStatement(read)) {
                seeAll(other);
                for (int n = 0; n < 3; n++) {
                    attempt(select, n);
                }
                // A change of the parameter's type is another statement.
                tryTo("a text for an int", () -> {
                    select.setString(1, "2");
                    return select.executeQuery().next();
                });
                attempt(select, 2);
            }
        }
        // Several statements in one text, each with its parameters.
        try (PreparedStatement several = conn.prepareStatement(
            "SELECT ?::int; UPDATE " + table + " SET t = ? WHERE n < ?; SELECT count(*) FROM " + table)) {
            for (int turn = 0; turn < 6; turn++) {
                several.setInt(1, turn);
                several.setString(2, "several");
                several.setInt(3, 2);
                boolean rows = several.execute();
                tellResults(several, rows);
            }
        }
    }

    static void batches(Connection conn) throws Exception {
        attempt(conn, "TRUNCATE " + table);
        String text = "INSERT INTO " + table + " VALUES (?, ?)";
        for (String rewrite : new String[] {"false", "true"}) {
            try (Connection other = connect("reWriteBatchedInserts", rewrite)) {
                say("rewrite", rewrite);
                try (PreparedStatement insert = other.prepareStatement(text)) {
                    for (int n = 0; n < 1000; n++) {
                        insert.setInt(1, n);
                        insert.setString(2, "batch " + n);
                        insert.addBatch();
                    }
                    say("counts", sum(insert.executeBatch()));
                    // The 600th is there already: autocommit undoes the driver's whole flight up to its Sync.
                    for (int n = 2000; n < 3000; n++) {
                        insert.setInt(1, n == 2600 ? 5 : n);
                        insert.setString(2, "batch " + n);
                        insert.addBatch();
                    }
                    batch(insert);
                    attempt(other, "SELECT count(*), max(n) FROM " + table);
                    other.setAutoCommit(false);
                    for (int n = 4000; n < 4100; n++) {
                        insert.setInt(1, n);
                        insert.setString(2, null);
                        insert.addBatch();
                    }
                    batch(insert);
                    insert.setInt(1, 4000);
                    insert.setString(2, "again");
                    insert.addBatch();
                    batch(insert);
                    attempt(other, "SELECT 'refused'");
                    other.rollback();
                    other.setAutoCommit(true);
                    attempt(other, "SELECT count(*), max(n) FROM " + table);
                }
            }
            attempt(conn, "TRUNCATE " + table);
        }
        try (Statement mixed = conn.createStatement()) {
            mixed.addBatch("INSERT INTO " + table + " VALUES (1, 'one')");
            mixed.addBatch("UPDATE " + table + " SET t = 'uno'");
            mixed.addBatch("CREATE TEMP TABLE " + table + "_batch (n int)");
            mixed.addBatch("DELETE FROM " + table);
            mixed.addBatch("DROP TABLE " + table + "_batch");
            batch(mixed);
            mixed.addBatch("INSERT INTO " + table + " VALUES (1, 'one')");
            mixed.addBatch("SELECT 1/0");
            mixed.addBatch("INSERT INTO " + table + " VALUES (2, 'two')");
            batch(mixed);
            mixed.addBatch("SELECT 'a result'");
            batch(mixed);
        }
        // Large parameters and many answers in one flight.
        try (PreparedStatement large = conn.prepareStatement(
            text + " ON CONFLICT (n) DO UPDATE SET t = EXCLUDED.t RETURNING n, t", Statement.RETURN_GENERATED_KEYS)) {
            for (int n = 0; n < 300; n++) {
                large.setInt(1, n);
                large.setString(2, "x".repeat(20000));
                large.addBatch();
            }
            say("counts", sum(large.executeBatch()));
            int rows = 0;
            long length = 0;
            for (ResultSet keys = large.getGeneratedKeys(); keys.next(); rows++) {
                length += keys.getString(2).length();
            }
            say("keys", rows, "characters", length);
        }
        attempt(conn, "SELECT count(*), sum(length(t)) FROM " + table);
    }

    static void transactions(Connection conn) throws Exception {
        attempt(conn, "TRUNCATE " + table);
        attempt(conn, "INSERT INTO " + table + " SELECT n, 'row ' || n FROM generate_series(1, 10) n");
        String count = "SELECT count(*) FROM " + table;
        conn.setAutoCommit(false);
        attempt(conn, "DELETE FROM " + table + " WHERE n > 8");
        Savepoint named = conn.setSavepoint("a point");
        attempt(conn, "DELETE FROM " + table);
        Savepoint unnamed = conn.setSavepoint();
        attempt(conn, "SELECT 1/0");
        attempt(conn, "SELECT 'refused'");
        conn.rollback(unnamed);
        attempt(conn, count);
        conn.rollback(named);
        attempt(conn, count);
        conn.releaseSavepoint(named);
        tryTo("released", () -> {
            conn.rollback(named);
            return "rolled back";
        });
        conn.commit();
        attempt(conn, count);
        attempt(conn, "SELECT 1/0");
        tryTo("commit after an error", () -> {
            conn.commit();
            return "committed";
        });
        attempt(conn, count);
        conn.rollback();
        for (int level : new int[] {Connection.TRANSACTION_SERIALIZABLE, Connection.TRANSACTION_REPEATABLE_READ,
            Connection.TRANSACTION_READ_COMMITTED}) {
            conn.setTransactionIsolation(level);
            say("level", conn.getTransactionIsolation());
            attempt(conn, "SHOW transaction_isolation");
            conn.commit();
        }
        conn.setReadOnly(true);
        attempt(conn, "SHOW transaction_read_only");
        attempt(conn, "DELETE FROM " + table);
        conn.rollback();
        attempt(conn, count);
        tryTo("read only inside", () -> {
            conn.setReadOnly(false);
            return "changed";
        });
        conn.commit();
        conn.setReadOnly(false);
        attempt(conn, "DELETE FROM " + table + " WHERE n = 1");
        conn.commit();
        conn.setAutoCommit(true);
        // Outside a transaction the driver makes the session read only, where it is told to, or none.
        for (String mode : new String[] {"ignore", "transaction", "always"}) {
            try (Connection other = connect("readOnlyMode", mode)) {
                other.setReadOnly(true);
                attempt(other, "SHOW transaction_read_only");
                attempt(other, "UPDATE " + table + " SET t = t WHERE n = 2");
                other.setReadOnly(false);
                attempt(other, "UPDATE " + table + " SET t = t WHERE n = 2");
            }
        }
        attempt(conn, count);
    }

    static void autosave(Connection conn) throws Exception {
        for (String mode : new String[] {"never", "always", "conservative"}) {
            say("autosave", mode);
            try (Connection other = connect("autosave", mode, "prepareThreshold", "2", "cleanupSavepoints", "true");
                PreparedStatement select = other.prepareStatement("SELECT * FROM " + table + " WHERE n = ?")) {
                seeAll(other);
                for (int n = 2; n < 5; n++) {
                    attempt(select, n);
                }
                other.setAutoCommit(false);
                attempt(other, "INSERT INTO " + table + " VALUES (100, 'saved')");
                attempt(other, "SELECT 1/0");
                attempt(other, "SELECT count(*) FROM " + table);
                other.rollback();
                // A plan that is no longer right is made anew behind a savepoint, if there is one.
                attempt(select, 2);
                attempt(other, "ALTER TABLE " + table + " ADD COLUMN more int DEFAULT 5");
                attempt(select, 3);
                attempt(other, "SELECT 'goes on?'");
                other.rollback();
                attempt(select, 4);
                attempt(other, "DEALLOCATE ALL");
                attempt(select, 5);
                attempt(select, 6);
                other.rollback();
                other.setAutoCommit(true);
                attempt(select, 7);
            }
        }
    }

    static void errors(Connection conn) throws Exception {
        for (String text : new String[] {"SELEC 1", "SELECT * FROM no_such_table_here", "SELECT 1/0",
            "INSERT INTO " + table + " VALUES (2, 'again')", "SELECT 'x'::int",
            "DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'PW001', HINT = 'a hint', DETAIL = 'more'; END $$",
            "", ";", "SELECT 'fine'", "SELECT 1; SELECT 1/0; SELECT 2"}) {
            attempt(conn, text);
        }
        try (Statement statement = conn.createStatement()) {
            statement.execute("DO $$ BEGIN RAISE NOTICE 'a notice'; RAISE WARNING 'a warning'; END $$");
            for (SQLWarning warning = statement.getWarnings(); warning != null; warning = warning.getNextWarning()) {
                say("warning", warning.getMessage(), "sqlstate", warning.getSQLState());
            }
        }
        try (PreparedStatement divide = conn.prepareStatement("SELECT 10 / ?::int")) {
            for (int n = 0; n < 8; n++) {
                attempt(divide, n % 2);
            }
            tryTo("a parameter is missing", () -> {
                divide.clearParameters();
                return divide.executeQuery();
            });
        }
        try (PreparedStatement many = conn.prepareStatement("SELECT 1" + " + ?::int".repeat(3000))) {
            for (int n = 1; n <= 3000; n++) {
                many.setInt(n, n);
            }
            try (ResultSet rows = many.executeQuery()) {
                rows.next();
                say("sum", rows.getLong(1));
            }
        }
    }

    static void keys(Connection conn) throws Exception {
        String keyed = table + "_keyed";
        attempt(conn, "CREATE TABLE " + keyed + " (id int GENERATED ALWAYS AS IDENTITY, at text DEFAULT 'now', n int)");
        try (PreparedStatement insert = conn.prepareStatement(
            "INSERT INTO " + keyed + " (n) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
            for (int n = 0; n < 7; n++) {
                insert.setInt(1, n);
                insert.executeUpdate();
                tellRows(insert.getGeneratedKeys());
            }
        }
        try (PreparedStatement insert = conn.prepareStatement(
            "INSERT INTO " + keyed + " (n) SELECT generate_series(1, ?)", new String[] {"id", "n"})) {
            insert.setInt(1, 3);
            say("inserted", insert.executeUpdate());
            tellRows(insert.getGeneratedKeys());
        }
        // A row changed through the result set.
        try (Statement statement = conn.createStatement(ResultSet.TYPE_SCROLL_SENSITIVE, ResultSet.CONCUR_UPDATABLE);
            ResultSet rows = statement.executeQuery("SELECT n, t FROM " + table + " ORDER BY n")) {
            rows.next();
            rows.updateString("t", "updated");
            rows.updateRow();
            rows.moveToInsertRow();
            rows.updateInt("n", 500);
            rows.updateString("t", "inserted");
            rows.insertRow();
            rows.last();
            rows.refreshRow();
            say("last", rows.getInt(1), "text", rows.getString(2));
        }
        attempt(conn, "SELECT * FROM " + table + " WHERE n IN (2, 500) ORDER BY n");
        attempt(conn, "DROP TABLE " + keyed);
        attempt(conn, "CREATE FUNCTION " + table + "_f(a int, OUT b int, OUT c text) LANGUAGE sql AS $$ SELECT a * 2, 'c' $$");
        attempt(conn, "CREATE PROCEDURE " + table + "_p(INOUT a int) LANGUAGE plpgsql AS $$ BEGIN a := a + 1; COMMIT; END $$");
        try (CallableStatement call = conn.prepareCall("{call " + table + "_f(?, ?, ?)}")) {
            call.setInt(1, 21);
            call.registerOutParameter(2, Types.INTEGER);
            call.registerOutParameter(3, Types.VARCHAR);
            call.execute();
            say("b", call.getInt(2), "c", call.getString(3));
        }
        attempt(conn, "CALL " + table + "_p(41)");
        attempt(conn, "DROP PROCEDURE " + table + "_p");
        attempt(conn, "DROP FUNCTION " + table + "_f");
    }

    static void cursors(Connection conn) throws Exception {
        String text = "SELECT n, repeat('x', 100) FROM generate_series(1, ?) n";
        for (boolean autoCommit : new boolean[] {true, false}) {
            conn.setAutoCommit(autoCommit);
            try (PreparedStatement select = conn.prepareStatement(text)) {
                select.setFetchSize(50);
                for (int turn = 0; turn < 7; turn++) {
                    select.setInt(1, 1000);
                    long sum = 0;
                    try (ResultSet rows = select.executeQuery()) {
                        while (rows.next()) {
                            sum += rows.getInt(1);
                            if (rows.getInt(1) == 300) {
                                // Another statement between two portions.
                                try (Statement other = conn.createStatement();
                                    ResultSet between = other.executeQuery("SELECT count(*) FROM " + table)) {
                                    between.next();
                                    sum += between.getInt(1);
                                }
                            }
                        }
                    }
                    say("autocommit", autoCommit, "sum", sum);
                }
            }
        }
        // Two open at once, one left unfinished, one that fails on its way.
        try (PreparedStatement one = conn.prepareStatement(text); PreparedStatement two = conn.prepareStatement(text)) {
            one.setFetchSize(3);
            two.setFetchSize(4);
            one.setInt(1, 20);
            two.setInt(1, 20);
            List<Integer> numbers = new ArrayList<>();
            try (ResultSet ones = one.executeQuery(); ResultSet twos = two.executeQuery()) {
                for (int i = 0; i < 10; i++) {
                    ones.next();
                    twos.next();
                    numbers.add(ones.getInt(1));
                    numbers.add(-twos.getInt(1));
                }
            }
            say("numbers", numbers);
        }
        conn.commit();
        tryTo("an error in the third portion", () -> {
            try (Statement statement = conn.createStatement()) {
                statement.setFetchSize(3);
                List<Integer> numbers = new ArrayList<>();
                try (ResultSet rows = statement.executeQuery("SELECT 10 / (8 - n) FROM generate_series(1, 20) n")) {
                    while (rows.next()) {
                        numbers.add(rows.getInt(1));
                    }
                } finally {
                    say("numbers", numbers);
                }
                return "no error";
            }
        });
        attempt(conn, "SELECT 'refused'");
        conn.rollback();
        tryTo("a cursor does not outlive its transaction", () -> {
            try (Statement statement = conn.createStatement()) {
                statement.setFetchSize(2);
                ResultSet rows = statement.executeQuery("SELECT n FROM generate_series(1, 10) n");
                rows.next();
                conn.commit();
                int count = 1;
                while (rows.next()) {
                    count++;
                }
                return count;
            }
        });
        conn.rollback();
        attempt(conn, "DECLARE r CURSOR FOR SELECT n FROM generate_series(1, 5) n");
        attempt(conn, "FETCH 2 FROM r");
        attempt(conn, "MOVE 1 FROM r");
        attempt(conn, "FETCH ALL FROM r");
        conn.commit();
        conn.setAutoCommit(true);
        // Held over the end of the transaction: the driver fetches all.
        try (Statement statement = conn.createStatement(
            ResultSet.TYPE_FORWARD_ONLY, ResultSet.CONCUR_READ_ONLY, ResultSet.HOLD_CURSORS_OVER_COMMIT)) {
            statement.setFetchSize(2);
            statement.setMaxRows(5);
            tellRows(statement.executeQuery("SELECT n FROM generate_series(1, 10) n"));
        }
    }

    static void copy(Connection conn) throws Exception {
        CopyManager manager = conn.unwrap(PGConnection.class).getCopyAPI();
        attempt(conn, "TRUNCATE " + table);
        String into = "COPY " + table + " FROM STDIN", out = "COPY (SELECT * FROM " + table + " ORDER BY n) TO STDOUT";
        StringBuilder lines = new StringBuilder();
        for (int n = 1000; n < 21000; n++) {
            lines.append(n).append('\t').append(n % 2 == 0 ? "\\N" : "row " + n).append('\n');
        }
        say("copied", manager.copyIn(into, new StringReader(lines.toString())));
        ByteArrayOutputStream data = new ByteArrayOutputStream();
        say("copied", manager.copyOut(out, data), "same", data.toString(StandardCharsets.UTF_8).equals(lines.toString()));
        for (String wrong : new String[] {"1\tone\n1000\tduplicate\n", "not a number\tx\n", "1\n"}) {
            tryTo(wrong, () -> manager.copyIn(into, new ByteArrayInputStream(wrong.getBytes(StandardCharsets.UTF_8))));
        }
        tryTo("no table", () -> manager.copyIn("COPY no_such_table_here FROM STDIN", new StringReader("")));
        tryTo("no copy", () -> manager.copyIn("SELECT 1", new StringReader("")));
        tryTo("given up", () -> {
            CopyIn copy = manager.copyIn(into);
            byte[] row = "2\tnever\n".getBytes(StandardCharsets.UTF_8);
            copy.writeToCopy(row, 0, row.length);
            copy.cancelCopy();
            return copy.isActive();
        });
        attempt(conn, "SELECT count(*) FROM " + table);
        try (OutputStream stream = new PGCopyOutputStream(conn.unwrap(PGConnection.class), into + " (FORMAT csv)")) {
            stream.write("1,one\n2,\"two, or so\"\n".getBytes(StandardCharsets.UTF_8));
        }
        try (InputStream stream = new PGCopyInputStream(
            conn.unwrap(PGConnection.class), "COPY (SELECT * FROM " + table + " WHERE n < 10 ORDER BY n) TO STDOUT (FORMAT csv)")) {
            say("read", new String(stream.readAllBytes(), StandardCharsets.UTF_8));
        }
        conn.setAutoCommit(false);
        tryTo("in a transaction", () -> manager.copyIn(into, new StringReader("3\tthree\n")));
        conn.rollback();
        conn.setAutoCommit(true);
        attempt(conn, "SELECT count(*) FROM " + table);
    }

    @SuppressWarnings("deprecation") // FunctionCall itself has no other name in the driver
    static void largeObjects(Connection conn) throws Exception {
        conn.setAutoCommit(false);
        // The driver calls the functions by the FunctionCall message.
        LargeObjectManager manager = conn.unwrap(PGConnection.class).getLargeObjectAPI();
        long oid = manager.createLO();
        byte[] block = new byte[100_000];
        for (int i = 0; i < block.length; i++) {
            block[i] = (byte) (i % 251);
        }
        try (LargeObject written = manager.open(oid, LargeObjectManager.READWRITE)) {
            written.write(block);
            written.write(block);
            say("position", written.tell64(), "size", written.size64());
            written.seek64(99_990, LargeObject.SEEK_SET);
            say("read", written.read(20));
            written.truncate64(150_000);
            say("size", written.size64());
        }
        conn.commit();
        // Not closed: the rollback does that, after the error.
        LargeObject object = manager.open(oid, LargeObjectManager.READ);
        byte[] all = object.read(200_000);
        say("bytes", all.length, "hash", Arrays.hashCode(all));
        tryTo("not for writing", () -> {
            object.write(block);
            return "written";
        });
        tryTo("close after an error", () -> {
            object.close();
            return "closed";
        });
        conn.rollback();
        manager.unlink(oid);
        conn.commit();
        tryTo("no such object", () -> manager.open(4294967294L, LargeObjectManager.READ));
        conn.rollback();
        tryTo("no such function", () -> conn.unwrap(PGConnection.class).getFastpathAPI().getInteger(
            "lo_tell", new org.postgresql.fastpath.FastpathArg[] {new org.postgresql.fastpath.FastpathArg(77)}));
        attempt(conn, "SELECT 'refused'");
        conn.rollback();
        conn.setAutoCommit(true);
        attempt(conn, "SELECT 'alive'");
    }

    static void cancel(Connection conn) throws Exception {
        for (String sleep : new String[] {"SELECT pg_sleep(60)", "DELETE FROM " + table + " WHERE n = 1 AND pg_sleep(60) IS NULL"}) {
            try (Statement statement = conn.createStatement()) {
                statement.setQueryTimeout(1);
                tryTo(sleep, () -> statement.execute(sleep));
            }
            attempt(conn, "SELECT 'alive'");
            try (PreparedStatement statement = conn.prepareStatement(sleep)) {
                // Again and again: the first may come before the statement has begun, and then does nothing.
                Thread thread = new Thread(() -> {
                    try {
                        for (Thread.sleep(200);; Thread.sleep(1000)) {
                            statement.cancel();
                        }
                    } catch (InterruptedException over) {
                        return;
                    } catch (SQLException error) {
                        tell("cancel", error);
                    }
                });
                thread.start();
                tryTo(sleep, statement::execute);
                thread.interrupt();
                thread.join();
            }
            attempt(conn, "SELECT 'alive'");
        }
        try (Statement statement = conn.createStatement()) {
            statement.cancel();
            statement.setQueryTimeout(30);
            tellRows(statement.executeQuery("SELECT 'in time'"));
        }
        attempt(conn, "SET statement_timeout = '100ms'");
        attempt(conn, "SELECT pg_sleep(60)");
        attempt(conn, "RESET statement_timeout");
    }

    static void session(Connection conn) throws Exception {
        String schema = table + "_schema";
        attempt(conn, "CREATE SCHEMA " + schema);
        attempt(conn, "CREATE TABLE " + schema + ".inside (n int)");
        conn.setSchema(schema);
        say("schema", conn.getSchema());
        attempt(conn, "SELECT count(*) FROM inside");
        // The same text, another table.
        try (PreparedStatement select = conn.prepareStatement("SELECT count(*) FROM inside")) {
            for (int turn = 0; turn < 7; turn++) {
                attempt(select);
            }
            conn.setSchema("public");
            attempt(select);
            attempt(conn, "CREATE TABLE public.inside AS SELECT 1 AS n");
            attempt(select);
            attempt(conn, "DROP TABLE public.inside");
        }
        attempt(conn, "RESET search_path");
        say("schema", conn.getSchema());
        attempt(conn, "DROP SCHEMA " + schema + " CASCADE");
        conn.setClientInfo("ApplicationName", "renamed");
        attempt(conn, "SHOW application_name");
        say("name", conn.getClientInfo("ApplicationName"));
        conn.setNetworkTimeout(Runnable::run, 30_000);
        say("valid", conn.isValid(5));
        attempt(conn, "CREATE TEMP TABLE " + table + "_temp AS SELECT 1 AS n");
        attempt(conn, "SELECT * FROM " + table + "_temp");
        attempt(conn, "DROP TABLE " + table + "_temp");
        attempt(conn, "SET TimeZone = 'Asia/Tokyo'");
        attempt(conn, "SELECT '2024-02-29 12:00Z'::timestamptz::text");
        say("zone", conn.unwrap(PGConnection.class).getParameterStatus("TimeZone"));
        attempt(conn, "RESET TimeZone");
        attempt(conn, "SELECT pg_advisory_lock(7), pg_advisory_unlock(7)");
    }

    static void notifications(Connection conn) throws Exception {
        PGConnection pg = conn.unwrap(PGConnection.class);
        attempt(conn, "LISTEN " + table);
        try (Connection other = connect()) {
            attempt(other, "NOTIFY " + table + ", 'from another'");
        }
        say("heard", heard(pg));
        conn.setAutoCommit(false);
        attempt(conn, "SELECT pg_notify('" + table + "', 'mine')");
        say("early", pg.getNotifications() == null);
        conn.commit();
        conn.setAutoCommit(true);
        say("heard", heard(pg));
        attempt(conn, "UNLISTEN " + table);
        attempt(conn, "NOTIFY " + table + ", 'nobody hears'");
        say("nothing", pg.getNotifications() == null);
    }

    static void metadata(Connection conn) throws Exception {
        DatabaseMetaData data = conn.getMetaData();
        say("product", data.getDatabaseProductName(), "version", data.getDatabaseProductVersion(), "user", data.getUserName(),
            "isolation", data.getDefaultTransactionIsolation(), "keywords", data.getSQLKeywords().length());
        attempt(conn, "CREATE TABLE " + table + "_child (id serial PRIMARY KEY, n int REFERENCES " + table
            + ", price numeric(8,2) NOT NULL DEFAULT 1.5, tags text[])");
        attempt(conn, "CREATE VIEW " + table + "_view AS SELECT id, price FROM " + table + "_child");
        attempt(conn, "COMMENT ON TABLE " + table + "_child IS 'a comment'");
        tellRows(data.getTables(null, "public", table + "%", null));
        tellRows(data.getColumns(null, "public", table + "_child", null));
        tellRows(data.getPrimaryKeys(null, "public", table + "_child"));
        tellRows(data.getImportedKeys(null, "public", table + "_child"));
        tellRows(data.getExportedKeys(null, "public", table));
        tellRows(data.getIndexInfo(null, "public", table + "_child", false, false));
        tellRows(data.getTablePrivileges(null, "public", table + "_view"));
        tellRows(data.getFunctions(null, "pg_catalog", "int4pl"));
        tellRows(data.getSchemas(null, "public"));
        try (PreparedStatement select = conn.prepareStatement("SELECT * FROM " + table + "_child")) {
            describe(select.getMetaData());
            try (ResultSet rows = select.executeQuery()) {
                describe(rows.getMetaData());
            }
        }
        attempt(conn, "DROP VIEW " + table + "_view");
        attempt(conn, "DROP TABLE " + table + "_child");
    }

    /** The ways of the driver to send a statement. */
    static void modes(Connection conn) throws Exception {
        attempt(conn, "TRUNCATE " + table);
        for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
            say("mode", mode);
            try (Connection other = connect("preferQueryMode", mode, "binaryTransfer", "false");
                PreparedStatement select = other.prepareStatement("SELECT ?::int * 2, t FROM " + table + " WHERE n = ?")) {
                attempt(other, "INSERT INTO " + table + " VALUES (1, '" + mode + "')");
                for (int turn = 0; turn < 6; turn++) {
                    attempt(select, turn, 1);
                }
                attempt(other, "SELECT 1; DELETE FROM " + table + "; SELECT 1/0");
                attempt(other, "SELECT count(*) FROM " + table);
                other.setAutoCommit(false);
                attempt(other, "SELECT 1/0");
                attempt(other, "SELECT 'refused'");
                other.rollback();
                attempt(other, "DELETE FROM " + table);
                other.commit();
            }
        }
    }

    // ---- doing ----

    /** A connection to the round's URL, with further properties of the driver by name and value. */
    static Connection connect(String... settings) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", url.getUserInfo());
        // Seconds; whatever takes longer ends the round.
        properties.setProperty("socketTimeout", "60");
        String database = url.getPath().substring(1);
        for (int i = 0; i < settings.length; i += 2) {
            if (settings[i].equals("PGDBNAME")) {
                database = settings[i + 1];
            } else {
                properties.setProperty(settings[i], settings[i + 1]);
            }
        }
        return DriverManager.getConnection(
            "jdbc:postgresql://" + url.getHost() + ":" + url.getPort() + "/" + database, properties);
    }

    /** A proxy may read where another session's writes are not yet. It may not after a write of the session's own. */
    static void seeAll(Connection other) {
        attempt(other, "UPDATE " + table + " SET t = t WHERE n = 2");
    }

    static void attempt(Connection conn, String text) {
        try (Statement statement = conn.createStatement()) {
            say("sql", text);
            tellResults(statement, statement.execute(text));
        } catch (SQLException error) {
            tell("error", error);
        }
    }

    static void attempt(PreparedStatement statement, Object... values) {
        try {
            for (int i = 0; i < values.length; i++) {
                statement.setObject(i + 1, values[i], values[i] instanceof String ? Types.VARCHAR : Types.INTEGER);
            }
            tellResults(statement, statement.execute());
        } catch (SQLException error) {
            tell("error", error);
        }
    }

    static void batch(Statement statement) {
        try {
            say("counts", sum(statement.executeBatch()));
        } catch (BatchUpdateException error) {
            say("counts", sum(error.getUpdateCounts()));
            tell("error", error);
            tell("because", error.getNextException());
        } catch (SQLException error) {
            tell("error", error);
        }
    }

    static void tryTo(String what, Work work) throws Exception {
        try {
            say("try", what, "answer", plain(work.run()));
        } catch (SQLException error) {
            tell(what, error);
        }
    }

    static List<String> heard(PGConnection pg) throws SQLException {
        List<String> heard = new ArrayList<>();
        PGNotification[] notifications = pg.getNotifications(30_000);
        if (notifications != null) {
            for (PGNotification notification : notifications) {
                heard.add(notification.getName() + ": " + notification.getParameter());
            }
        }
        return heard;
    }

    static void drop(Connection conn) throws SQLException {
        try (Statement statement = conn.createStatement()) {
            statement.execute("SET client_min_messages = error");
            statement.execute("DROP SCHEMA IF EXISTS " + table + "_schema CASCADE");
            statement.execute("DROP TABLE IF EXISTS " + table + ", " + table + "_keyed, " + table + "_child CASCADE");
            statement.execute("DROP FUNCTION IF EXISTS " + table + "_f");
            statement.execute("DROP PROCEDURE IF EXISTS " + table + "_p");
            statement.execute("RESET client_min_messages");
        }
    }

    // ---- saying ----

    static void tellResults(Statement statement, boolean rows) throws SQLException {
        for (;; rows = statement.getMoreResults()) {
            if (rows) {
                tellRows(statement.getResultSet());
            } else if (statement.getUpdateCount() >= 0) {
                say("count", statement.getUpdateCount());
            } else {
                return;
            }
        }
    }

    static void tellRows(ResultSet rows) throws SQLException {
        try (rows) {
            int columns = rows.getMetaData().getColumnCount();
            int count = 0;
            for (; rows.next(); count++) {
                if (count < 60) {
                    List<String> row = new ArrayList<>();
                    for (int i = 1; i <= columns; i++) {
                        row.add(plain(rows.getObject(i)));
                    }
                    say("row", row);
                }
            }
            say("rows", count);
        }
    }

    static void describe(ResultSetMetaData data) throws SQLException {
        for (int i = 1; data != null && i <= data.getColumnCount(); i++) {
            say("column", data.getColumnName(i), "type", data.getColumnTypeName(i), "table", data.getTableName(i),
                "precision", data.getPrecision(i), "scale", data.getScale(i), "nullable", data.isNullable(i),
                "serial", data.isAutoIncrement(i));
        }
    }

    /** The error with what the server said of it. */
    static void tell(String what, SQLException error) {
        ServerErrorMessage server = error instanceof PSQLException from ? from.getServerErrorMessage() : null;
        if (server == null) {
            // A batch's has the whole of its statement.
            String message = String.valueOf(error.getMessage());
            say(what, error.getClass().getSimpleName(), "sqlstate", error.getSQLState(), "message",
                message.substring(0, Math.min(message.length(), 100)));
            return;
        }
        say(what, error.getClass().getSimpleName(), "sqlstate", server.getSQLState(), "severity", server.getSeverity(),
            "message", message(server), "detail", server.getDetail(), "hint", server.getHint(),
            "position", server.getPosition(), "where", server.getWhere(), "table", server.getTable(),
            "column", server.getColumn(), "constraint", server.getConstraint(), "routine", server.getRoutine());
    }

    /**
     * What the server says. The driver numbers its statements and portals as it makes them, and makes a statement anew
     * when the server tells it that the plan is not right any more. A proxy may have done that already.
     */
    static String message(ServerErrorMessage server) {
        return String.valueOf(server.getMessage()).replaceAll("\"([CS])_[0-9]+\"", "\"$1_n\"");
    }

    /** Names and values by turns, in one line of ASCII. */
    static synchronized void say(Object... words) {
        StringBuilder line = new StringBuilder();
        for (int i = 0; i < words.length; i += 2) {
            line.append(i == 0 ? "" : " ").append(words[i]).append('=').append(plain(words[i + 1]));
        }
        StringBuilder ascii = new StringBuilder();
        line.chars().forEach(c -> ascii.append(c >= ' ' && c < 127 ? String.valueOf((char) c) : String.format("\\u%04x", c)));
        System.out.println(ascii);
        System.out.flush();
    }

    static String plain(Object value) {
        if (value instanceof byte[] bytes) {
            StringBuilder hex = new StringBuilder();
            for (byte b : bytes) {
                hex.append(String.format("%02x", b));
            }
            return hex.toString();
        }
        return value instanceof Array array ? "array " + array : String.valueOf(value);
    }

    /** How many there were, and what each said, without repetitions. */
    static String sum(int[] counts) {
        return counts.length + " of " + Arrays.toString(Arrays.stream(counts).distinct().toArray());
    }

    static byte[] allBytes() {
        byte[] bytes = new byte[256];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) i;
        }
        return bytes;
    }

    static PGobject object(String type, String value) throws SQLException {
        PGobject object = new PGobject();
        object.setType(type);
        object.setValue(value);
        return object;
    }
}
