/* A round of everyday work in libpq, as a transcript. For use and promises see psycopg_round.py.
 *
 *     libpq_round URL PREFIX
 *
 * What the other drivers do not reach is here: pipeline mode with every call of its own, results by single rows and in
 * binary, portals described, the FunctionCall message (PQfn, and the large objects of lo_*), notices and notifications.
 */

#include <libpq-fe.h>
#include <libpq/libpq-fs.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TEXT_OID 25
#define INT4_OID 23

/* How long anything may take. Whatever is late ends the round, and with it the test. */
#define LIMIT_SECONDS 60

static const char *url;
static char table[64];

/* ---- saying ---- */

static void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

static void die(const char *what, PGconn *conn)
{
    fprintf(stderr, "%s: %s\n", what, conn ? PQerrorMessage(conn) : strerror(errno));
    exit(1);
}

/* A value in one line: what is not printable ASCII by its number. */
static void print_value(const char *bytes, int length)
{
    for (int i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (byte >= 0x20 && byte < 0x7f && byte != '\\')
            putchar(byte);
        else
            printf("\\x%02x", byte);
    }
}

static void print_fields(const PGresult *result)
{
    static const struct { int field; const char *name; } fields[] = {
        {PG_DIAG_SEVERITY, "severity"}, {PG_DIAG_SQLSTATE, "sqlstate"}, {PG_DIAG_MESSAGE_PRIMARY, "message"},
        {PG_DIAG_MESSAGE_DETAIL, "detail"}, {PG_DIAG_MESSAGE_HINT, "hint"}, {PG_DIAG_STATEMENT_POSITION, "position"},
        {PG_DIAG_CONTEXT, "context"}, {PG_DIAG_TABLE_NAME, "table"}, {PG_DIAG_COLUMN_NAME, "column"},
        {PG_DIAG_CONSTRAINT_NAME, "constraint"}, {PG_DIAG_SOURCE_FUNCTION, "function"},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const char *text = PQresultErrorField(result, fields[i].field);
        if (text) {
            printf(" %s=", fields[i].name);
            print_value(text, (int)strlen(text));
        }
    }
}

/* One result in one line, with at most `rows` of its rows. Frees it. */
static ExecStatusType tell_rows(PGresult *result, int rows)
{
    ExecStatusType status = PQresultStatus(result);
    printf("  %s", PQresStatus(status));
    if (status == PGRES_FATAL_ERROR || status == PGRES_NONFATAL_ERROR)
        print_fields(result);
    if (*PQcmdStatus(result))
        printf(" tag=%s", PQcmdStatus(result));
    if (PQnparams(result)) {
        printf(" parameters=");
        for (int i = 0; i < PQnparams(result); i++)
            printf("%s%u", i ? "," : "", PQparamtype(result, i));
    }
    for (int column = 0; column < PQnfields(result); column++)
        printf(" %s:%u/%d/%d/%d", PQfname(result, column), PQftype(result, column), PQfformat(result, column),
               PQfsize(result, column), PQfmod(result, column));
    printf(" rows=%d", PQntuples(result));
    for (int row = 0; row < PQntuples(result) && row < rows; row++) {
        printf(" (");
        for (int column = 0; column < PQnfields(result); column++) {
            printf("%s", column ? ", " : "");
            if (PQgetisnull(result, row, column))
                printf("NULL");
            else
                print_value(PQgetvalue(result, row, column), PQgetlength(result, row, column));
        }
        printf(")");
    }
    say("");
    PQclear(result);
    return status;
}

static ExecStatusType tell(PGresult *result)
{
    return tell_rows(result, 8);
}

static void say_status(PGconn *conn)
{
    static const char *names[] = {"idle", "active", "in transaction", "in error", "unknown"};
    say("  status %s", names[PQtransactionStatus(conn)]);
}

/* ---- doing ---- */

static void print_notice(void *argument, const PGresult *result)
{
    (void)argument;
    printf("  notice");
    print_fields(result);
    say("");
}

static PGconn *connect_to_url(void)
{
    PGconn *conn = PQconnectdb(url);
    if (PQstatus(conn) != CONNECTION_OK)
        die("connect", conn);
    PQsetNoticeReceiver(conn, print_notice, NULL);
    return conn;
}

static void attempt(PGconn *conn, const char *sql)
{
    say("  > %s", sql);
    tell(PQexec(conn, sql));
}

/* Formats a statement; %s stands for the table's name. */
static const char *with_table(const char *format)
{
    static char texts[4][512];
    static int next;
    char *text = texts[next++ % 4];
    snprintf(text, sizeof texts[0], format, table, table);
    return text;
}

static void attempt_with_table(PGconn *conn, const char *format)
{
    attempt(conn, with_table(format));
}

static PGresult *expect(PGconn *conn, PGresult *result, ExecStatusType status)
{
    if (PQresultStatus(result) != status)
        die("a statement that the round needs", conn);
    return result;
}

static void execute(PGconn *conn, const char *sql)
{
    PQclear(expect(conn, PQexec(conn, sql), PGRES_COMMAND_OK));
}

/* Waits for the socket; ends the round when nothing comes. Returns whether it became ready in the time. */
static int wait_socket(PGconn *conn, short events, int milliseconds)
{
    struct pollfd socket = {.fd = PQsocket(conn), .events = events};
    int ready = poll(&socket, 1, milliseconds);
    if (ready < 0)
        die("poll", NULL);
    return ready > 0;
}

/* Whether the result of what was sent last is there within the time. */
static int result_comes(PGconn *conn, int milliseconds)
{
    if (!PQisBusy(conn))
        return 1;
    if (!wait_socket(conn, POLLIN, milliseconds))
        return 0;
    if (!PQconsumeInput(conn))
        die("consume", conn);
    return !PQisBusy(conn);
}

/* ---- the steps ---- */

static void connect_step(PGconn *conn)
{
    static const char *parameters[] = {"server_version", "server_encoding", "client_encoding", "DateStyle",
        "TimeZone", "IntervalStyle", "integer_datetimes", "standard_conforming_strings", "is_superuser",
        "session_authorization", "in_hot_standby", "default_transaction_read_only", "application_name", "no_such"};
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++) {
        const char *value = PQparameterStatus(conn, parameters[i]);
        say("  %s=%s", parameters[i], value ? value : "(none)");
    }
    say("  protocol %d server %d ssl %d user %s password used %d", PQprotocolVersion(conn), PQserverVersion(conn),
        PQsslInUse(conn), PQuser(conn), PQconnectionUsedPassword(conn));
    say("  ping %d", PQping(url));

    const char *names[] = {"dbname", "application_name", "options", "target_session_attrs", NULL};
    for (int i = 0; i < 4; i++) {
        static const char *options[] = {"-c work_mem=5MB -c DateStyle=German", "-c no_such_setting=1", "", ""};
        static const char *targets[] = {"any", "any", "read-write", "primary"};
        const char *values[] = {url, "a round", options[i], targets[i], NULL};
        PGconn *other = PQconnectdbParams(names, values, 1);
        if (PQstatus(other) == CONNECTION_OK) {
            say("  connected %s %s", PQparameterStatus(other, "application_name"), PQparameterStatus(other, "DateStyle"));
            attempt(other, "SHOW work_mem");
            PQreset(other);
            say("  again %s", PQparameterStatus(other, "application_name"));
            attempt(other, "SHOW work_mem");
        } else {
            /* What stands before it, and behind its line, names the address. */
            const char *fatal = strstr(PQerrorMessage(other), "FATAL:");
            if (!fatal)
                fatal = PQerrorMessage(other);
            say("  refused %.*s", (int)strcspn(fatal, "\n"), fatal);
        }
        PQfinish(other);
    }
}

static void parameters_follow_set(PGconn *conn)
{
    static const char *statements[] = {"SET application_name = 'set'", "SET DateStyle = 'SQL, DMY'",
        "BEGIN; SET TimeZone = 'Asia/Tokyo'", "SELECT '2024-02-29 12:00Z'::timestamptz", "ROLLBACK",
        "SET client_encoding = latin1", "SELECT U&'\\00e4' AS umlaut", "SET IntervalStyle = iso_8601", "RESET ALL"};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        attempt(conn, statements[i]);
        say("  %s | %s | %s | %s | %s | encoding %d", PQparameterStatus(conn, "application_name"),
            PQparameterStatus(conn, "DateStyle"), PQparameterStatus(conn, "TimeZone"),
            PQparameterStatus(conn, "client_encoding"), PQparameterStatus(conn, "IntervalStyle"),
            PQclientEncoding(conn));
    }
    say("  set encoding %d", PQsetClientEncoding(conn, "UTF8"));
}

static void statements(PGconn *conn)
{
    attempt_with_table(conn, "CREATE TABLE %s (n int PRIMARY KEY, t text NOT NULL)");
    attempt_with_table(conn, "INSERT INTO %s SELECT n, 'row ' || n FROM generate_series(1, 20) n");
    attempt(conn, "");
    attempt(conn, ";;");
    static const char *errors[] = {"SELEC 1", "SELECT * FROM no_such_table_here", "SELECT 1/0",
        "INSERT INTO %s VALUES (1, 'again')", "INSERT INTO %s VALUES (99, NULL)",
        "DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'PW001', HINT = 'a hint', DETAIL = 'more'; END $$",
        "SELECT n FROM %s WHERE n = 3"};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        attempt_with_table(conn, errors[i]);

    /* Several statements in one Query: a result each, and an error undoes those before it. */
    static const char *several[] = {"SELECT 1 AS a; UPDATE %s SET t = t WHERE n < 3; SELECT 'x' AS b; SELECT 2 WHERE false",
        "DELETE FROM %s; SELECT 1/0; SELECT 'never'", "BEGIN; DELETE FROM %s; COMMIT; SELECT 1/0",
        "INSERT INTO %s VALUES (1, 'back'); BEGIN; INSERT INTO %s VALUES (2, 'back'); SELECT 1/0"};
    for (size_t i = 0; i < sizeof several / sizeof *several; i++) {
        const char *sql = with_table(several[i]);
        say("  > %s", sql);
        if (!PQsendQuery(conn, sql))
            die("send", conn);
        for (PGresult *result; (result = PQgetResult(conn));)
            tell(result);
        say_status(conn);
        attempt(conn, "ROLLBACK");
        attempt_with_table(conn, "SELECT count(*) FROM %s");
    }
    attempt_with_table(conn, "INSERT INTO %s SELECT n, 'row ' || n FROM generate_series(1, 20) n");
}

static void parameters(PGconn *conn)
{
    /* Text and binary parameters, results in binary. */
    uint32_t number = htonl(258);
    const Oid types[] = {INT4_OID, TEXT_OID, 0};
    const char *values[] = {(const char *)&number, "zw\xc3\xb6lf", NULL};
    const int lengths[] = {sizeof number, 0, 0}, formats[] = {1, 0, 0};
    for (int format = 0; format < 2; format++)
        tell(PQexecParams(conn, "SELECT $1 + 1 AS n, $2 || '!' AS t, $3::bytea AS b, 1.5::float8 AS f, '2024-02-29'::date AS d",
                          3, types, values, lengths, formats, format));
    const char *zero[] = {"0"};
    tell(PQexecParams(conn, "SELECT 1/$1::int", 1, NULL, zero, NULL, NULL, 1));
    const char *word[] = {"word"};
    tell(PQexecParams(conn, "SELECT $1::int", 1, NULL, word, NULL, NULL, 0));
    tell(PQexecParams(conn, "SELECT 1; SELECT 2", 0, NULL, NULL, NULL, NULL, 0));
    tell(PQexecParams(conn, "SELECT $1::int + $2::int", 1, NULL, zero, NULL, NULL, 0));
    tell(PQexecParams(conn, "", 0, NULL, NULL, NULL, NULL, 0));

    tell(PQprepare(conn, "by_n", with_table("SELECT t, n FROM %s WHERE n = $1"), 1, NULL));
    tell(PQdescribePrepared(conn, "by_n"));
    for (int n = 1; n < 8; n++) {
        char text[16];
        snprintf(text, sizeof text, "%d", n);
        const char *value[] = {text};
        tell(PQexecPrepared(conn, "by_n", 1, value, NULL, NULL, n % 2));
    }
    tell(PQprepare(conn, "by_n", "SELECT 1", 0, NULL));
    tell(PQprepare(conn, "wrong", "SELECT no_such_column", 0, NULL));
    tell(PQdescribePrepared(conn, "wrong"));
    tell(PQexecPrepared(conn, "wrong", 0, NULL, NULL, NULL, 0));
    tell(PQprepare(conn, "write", with_table("UPDATE %s SET t = $2 WHERE n = $1 RETURNING *"), 0, NULL));
    tell(PQdescribePrepared(conn, "write"));
    const char *change[] = {"4", "changed"};
    tell(PQexecPrepared(conn, "write", 2, change, NULL, NULL, 0));
    const char *four[] = {"4"};
    tell(PQexecPrepared(conn, "by_n", 1, four, NULL, NULL, 0));
    attempt(conn, "DEALLOCATE by_n");
    tell(PQexecPrepared(conn, "by_n", 1, four, NULL, NULL, 0));
    tell(PQdescribePrepared(conn, "write"));
    attempt(conn, "DEALLOCATE ALL");
    tell(PQdescribePrepared(conn, "write"));

    /* A portal by the name of a cursor. */
    tell(PQdescribePortal(conn, "c"));
    attempt(conn, "BEGIN");
    attempt_with_table(conn, "DECLARE c CURSOR FOR SELECT n, t FROM %s ORDER BY n");
    tell(PQdescribePortal(conn, "c"));
    attempt(conn, "FETCH 2 FROM c");
    attempt(conn, "CLOSE c");
    tell(PQdescribePortal(conn, "c"));
    say_status(conn);
    attempt(conn, "COMMIT");
    say_status(conn);
}

static void single_rows(PGconn *conn)
{
    static const struct { const char *sql; int row_limit; } queries[] = {
        {"SELECT n, repeat('x', n % 7) AS t FROM generate_series(1, 2000) n", 3},
        {"SELECT 10 / (4 - n) AS q FROM generate_series(1, 9) n", 9},
        {"SELECT 1 WHERE false", 1}};
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        say("  > %s", queries[i].sql);
        if (!PQsendQueryParams(conn, queries[i].sql, 0, NULL, NULL, NULL, NULL, 0) || !PQsetSingleRowMode(conn))
            die("single rows", conn);
        int rows = 0;
        for (PGresult *result; (result = PQgetResult(conn));) {
            if (PQresultStatus(result) == PGRES_SINGLE_TUPLE && ++rows > queries[i].row_limit)
                PQclear(result);
            else
                tell(result);
        }
        say("  %d single rows", rows);
    }
    /* The mode ends with its statement; libpq forgets it only when the next one is sent outside a pipeline. */
    attempt(conn, "SELECT n FROM generate_series(1, 2) n");
}

/* ---- pipelines ---- */

static void must(PGconn *conn, int sent)
{
    if (!sent)
        die("pipeline", conn);
}

static void send_one(PGconn *conn, const char *sql, const char *value)
{
    must(conn, PQsendQueryParams(conn, sql, value ? 1 : 0, NULL, &value, NULL, NULL, 0));
}

/* The results of the next statement in the pipeline, up to the NULL that ends them. */
static ExecStatusType tell_next(PGconn *conn)
{
    ExecStatusType last = PGRES_BAD_RESPONSE;
    PGresult *result = PQgetResult(conn);
    if (!result)
        say("  (nothing)");
    for (; result; result = PQgetResult(conn)) {
        last = tell(result);
        /* No NULL comes after this one. */
        if (last == PGRES_PIPELINE_SYNC)
            break;
    }
    return last;
}

static void tell_to_sync(PGconn *conn)
{
    while (tell_next(conn) != PGRES_PIPELINE_SYNC)
        ;
    say_status(conn);
}

static void pipeline(PGconn *conn)
{
    const char *insert = strdup(with_table("INSERT INTO %s VALUES ($1, 'piped')"));
    const char *count = strdup(with_table("SELECT count(*) FROM %s WHERE t = 'piped'"));
    const char *read = strdup(with_table("SELECT t FROM %s WHERE n = $1"));
    if (!insert || !count || !read)
        die("memory", NULL);
    must(conn, PQenterPipelineMode(conn));
    say("  mode %d, exec %d", PQpipelineStatus(conn), PQresultStatus(PQexec(conn, "SELECT 1")));

    say(" reads, then writes, each before a Sync");
    send_one(conn, read, "1");
    send_one(conn, read, "2");
    must(conn, PQpipelineSync(conn));
    send_one(conn, insert, "100");
    send_one(conn, count, NULL);
    must(conn, PQpipelineSync(conn));
    send_one(conn, count, NULL);
    must(conn, PQpipelineSync(conn));
    for (int i = 0; i < 3; i++)
        tell_to_sync(conn);

    say(" an error in each position of a group of four, and the groups beside it");
    for (int wrong = 0; wrong < 4; wrong++) {
        char key[16];
        send_one(conn, "SELECT 'before'", NULL);
        must(conn, PQpipelineSync(conn));
        for (int i = 0; i < 4; i++) {
            snprintf(key, sizeof key, "%d", 200 + 10 * wrong + i);
            if (i == wrong)
                send_one(conn, "SELECT 1/$1::int", "0");
            else if (i % 2)
                send_one(conn, "SELECT $1::int", key);
            else
                send_one(conn, insert, key);
        }
        must(conn, PQpipelineSync(conn));
        send_one(conn, "SELECT 'after'", NULL);
        must(conn, PQpipelineSync(conn));
        tell_to_sync(conn);
        for (ExecStatusType status = PGRES_COMMAND_OK; status != PGRES_PIPELINE_SYNC;) {
            status = tell_next(conn);
            say("  pipeline %d", PQpipelineStatus(conn));
        }
        tell_to_sync(conn);
    }
    /* What stood before the error, in the same group, is undone. */
    send_one(conn, count, NULL);
    must(conn, PQpipelineSync(conn));
    tell_to_sync(conn);

    say(" prepare, describe and execute in one group; faults of each");
    const Oid int4[] = {INT4_OID};
    const char *five[] = {"5"};
    must(conn, PQsendPrepare(conn, "piped", read, 1, int4));
    must(conn, PQsendDescribePrepared(conn, "piped"));
    must(conn, PQsendQueryPrepared(conn, "piped", 1, five, NULL, NULL, 1));
    must(conn, PQsendQueryPrepared(conn, "piped", 1, five, NULL, NULL, 0));
    must(conn, PQpipelineSync(conn));
    must(conn, PQsendQueryPrepared(conn, "piped", 1, five, NULL, NULL, 0));
    must(conn, PQsendPrepare(conn, "piped", "SELECT 'twice'", 0, NULL));
    must(conn, PQsendQueryPrepared(conn, "piped", 1, five, NULL, NULL, 0));
    must(conn, PQpipelineSync(conn));
    must(conn, PQsendQueryPrepared(conn, "nobody", 0, NULL, NULL, NULL, 0));
    must(conn, PQsendDescribePrepared(conn, "piped"));
    must(conn, PQpipelineSync(conn));
    must(conn, PQsendPrepare(conn, "late", "SELEC", 0, NULL));
    must(conn, PQsendQueryPrepared(conn, "late", 0, NULL, NULL, NULL, 0));
    must(conn, PQpipelineSync(conn));
    must(conn, PQsendDescribePortal(conn, "no_portal"));
    must(conn, PQpipelineSync(conn));
    must(conn, PQsendQueryPrepared(conn, "piped", 1, five, NULL, NULL, 0));
    must(conn, PQpipelineSync(conn));
    for (int i = 0; i < 6; i++)
        tell_to_sync(conn);

    say(" a Flush gives results before the Sync");
    for (int round = 0; round < 3; round++) {
        send_one(conn, insert, round == 0 ? "300" : round == 1 ? "301" : "300");
        must(conn, PQsendFlushRequest(conn));
        must(conn, PQflush(conn) == 0);
        tell_next(conn);
        say_status(conn);
        send_one(conn, count, NULL);
        must(conn, PQsendFlushRequest(conn));
        must(conn, PQflush(conn) == 0);
        tell_next(conn);
        must(conn, PQpipelineSync(conn));
        tell_to_sync(conn);
    }

    say(" transactions across Syncs");
    send_one(conn, "BEGIN", NULL);
    send_one(conn, insert, "400");
    must(conn, PQpipelineSync(conn));
    send_one(conn, insert, "400");
    send_one(conn, insert, "401");
    must(conn, PQpipelineSync(conn));
    send_one(conn, count, NULL);
    must(conn, PQpipelineSync(conn));
    send_one(conn, "COMMIT", NULL);
    must(conn, PQpipelineSync(conn));
    send_one(conn, "BEGIN", NULL);
    send_one(conn, insert, "402");
    send_one(conn, "SAVEPOINT s", NULL);
    must(conn, PQpipelineSync(conn));
    send_one(conn, "SELECT 1/$1::int", "0");
    must(conn, PQpipelineSync(conn));
    send_one(conn, "ROLLBACK TO s", NULL);
    send_one(conn, "COMMIT", NULL);
    send_one(conn, count, NULL);
    must(conn, PQpipelineSync(conn));
    for (int i = 0; i < 7; i++)
        tell_to_sync(conn);

    say(" single rows for one statement of three; Syncs with nothing between them");
    send_one(conn, "SELECT 'whole' FROM generate_series(1, 3)", NULL);
    send_one(conn, "SELECT n FROM generate_series(1, 3) n", NULL);
    send_one(conn, "SELECT 'whole' FROM generate_series(1, 3)", NULL);
    must(conn, PQpipelineSync(conn));
    must(conn, PQpipelineSync(conn));
    must(conn, PQpipelineSync(conn));
    tell_next(conn);
    must(conn, PQsetSingleRowMode(conn));
    for (int i = 0; i < 3; i++)
        tell_to_sync(conn);

    send_one(conn, "SELECT 'left'", NULL);
    say("  exit while busy %d", PQexitPipelineMode(conn));
    must(conn, PQpipelineSync(conn));
    tell_to_sync(conn);
    must(conn, PQexitPipelineMode(conn));
    attempt(conn, "SELECT 'out of the pipeline'");
    attempt(conn, "DEALLOCATE ALL");
    free((void *)insert);
    free((void *)count);
    free((void *)read);
}

/* So many statements, with large parameters and large results, that no buffer between here and there can hold them:
 * whoever writes all before it reads would hang. A Sync after every so many. */
#define LONG_PIPELINE 4000
#define LONG_GROUP 100
#define LONG_VALUE 4096

static void long_pipeline(PGconn *conn)
{
    char *value = malloc(LONG_VALUE + 1);
    if (!value)
        die("memory", NULL);
    memset(value, 'v', LONG_VALUE);
    value[LONG_VALUE] = 0;
    must(conn, PQsetnonblocking(conn, 1) == 0);
    must(conn, PQenterPipelineMode(conn));
    int sent = 0, received = 0, syncs = 0;
    while (syncs < LONG_PIPELINE / LONG_GROUP) {
        /* As much as goes out without waiting. */
        int pending = PQflush(conn);
        while (sent < LONG_PIPELINE && pending == 0) {
            int number = snprintf(value, LONG_VALUE, "%06d", sent);
            value[number] = 'v';
            send_one(conn, "SELECT $1::text || repeat('r', 1000)", value);
            if (++sent % LONG_GROUP == 0)
                must(conn, PQpipelineSync(conn));
            pending = PQflush(conn);
        }
        if (pending < 0)
            die("flush", conn);
        if (!wait_socket(conn, (short)(POLLIN | (pending ? POLLOUT : 0)), LIMIT_SECONDS * 1000)) {
            errno = ETIMEDOUT;
            die("a long pipeline", NULL);
        }
        if (!PQconsumeInput(conn))
            die("consume", conn);
        /* One NULL ends a statement's results; after two there is nothing more for now. */
        int nulls = 0;
        while (syncs < LONG_PIPELINE / LONG_GROUP && nulls < 2 && !PQisBusy(conn)) {
            PGresult *result = PQgetResult(conn);
            nulls = result ? 0 : nulls + 1;
            if (!result)
                continue;
            if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
                syncs++;
            } else {
                expect(conn, result, PGRES_TUPLES_OK);
                if (atoi(PQgetvalue(result, 0, 0)) != received || PQgetlength(result, 0, 0) != LONG_VALUE + 1000) {
                    say("  out of order: %.6s for %d", PQgetvalue(result, 0, 0), received);
                    exit(1);
                }
                received++;
            }
            PQclear(result);
        }
    }
    must(conn, PQexitPipelineMode(conn));
    must(conn, PQsetnonblocking(conn, 0) == 0);
    say("  %d sent, %d received in order, %d syncs", sent, received, syncs);
    free(value);
}

/* ---- COPY ---- */

static void end_copy(PGconn *conn)
{
    for (PGresult *result; (result = PQgetResult(conn));)
        tell(result);
    say_status(conn);
}

static void copy_in(PGconn *conn, const char *sql, const char *const *lines, const char *error)
{
    say("  > %s", sql);
    if (tell(PQexec(conn, sql)) != PGRES_COPY_IN)
        return;
    for (; *lines; lines++)
        if (PQputCopyData(conn, *lines, (int)strlen(*lines)) != 1)
            die("copy data", conn);
    if (PQputCopyEnd(conn, error) != 1)
        die("copy end", conn);
    end_copy(conn);
}

static void copy_out(PGconn *conn, const char *sql)
{
    say("  > %s", sql);
    if (tell(PQexec(conn, sql)) != PGRES_COPY_OUT)
        return;
    int rows = 0, length;
    long bytes = 0;
    for (char *data; (length = PQgetCopyData(conn, &data, 0)) > 0; PQfreemem(data)) {
        if (rows++ < 3) {
            printf("  data ");
            print_value(data, length);
            say("");
        }
        bytes += length;
    }
    say("  %d rows, %ld bytes, end %d", rows, bytes, length);
    end_copy(conn);
}

static void copy(PGconn *conn)
{
    attempt_with_table(conn, "TRUNCATE %s");
    static const char *const good[] = {"1\tone\n2\tt", "wo\n3\tthr\\tee\n", NULL};
    static const char *const duplicate[] = {"4\tfour\n1\tagain\n5\tfive\n", NULL};
    static const char *const wrong[] = {"x\tno number\n", NULL}, *const none[] = {NULL};
    const char *into = strdup(with_table("COPY %s FROM STDIN")), *from = strdup(with_table("COPY %s TO STDOUT"));
    copy_in(conn, into, good, NULL);
    copy_in(conn, into, duplicate, NULL);
    copy_in(conn, into, wrong, NULL);
    copy_in(conn, into, good, "the client gives up");
    copy_in(conn, into, none, NULL);
    copy_in(conn, "COPY no_such_table_here FROM STDIN", good, NULL);
    attempt(conn, "BEGIN");
    copy_in(conn, into, duplicate, NULL);
    attempt(conn, "COMMIT");

    /* More than the buffers on the way, by one message a row; the same again by a few large ones. */
    for (int size = 1; size <= 5000; size *= 5000) {
        int rows = 20000;
        char *block = malloc(32 * (size_t)size), *end = block;
        if (!block)
            die("memory", NULL);
        PQclear(expect(conn, PQexec(conn, into), PGRES_COPY_IN));
        for (int n = 0; n < rows; n++) {
            end += sprintf(end, "%d\trow number %d\n", (size == 1 ? 10000 : 50000) + n, n);
            if ((n + 1) % size == 0) {
                if (PQputCopyData(conn, block, (int)(end - block)) != 1)
                    die("copy data", conn);
                end = block;
            }
        }
        if (PQputCopyEnd(conn, NULL) != 1)
            die("copy end", conn);
        end_copy(conn);
        free(block);
    }
    copy_out(conn, from);
    copy_out(conn, with_table("COPY (SELECT * FROM %s ORDER BY n LIMIT 5) TO STDOUT (FORMAT binary)"));
    copy_out(conn, "COPY (SELECT 10 / (4 - n) FROM generate_series(1, 9) n) TO STDOUT");
    copy_out(conn, "COPY (SELECT 1 WHERE false) TO STDOUT (FORMAT csv, HEADER)");

    /* COPY among other statements of one Query. */
    const char *sql = with_table("SELECT 'before'; COPY (SELECT 7) TO STDOUT; SELECT count(*) FROM %s; COPY %s FROM STDIN; SELECT 'after'");
    say("  > %s", sql);
    must(conn, PQsendQuery(conn, sql));
    for (PGresult *result; (result = PQgetResult(conn));) {
        ExecStatusType status = tell(result);
        char *data;
        if (status == PGRES_COPY_OUT)
            while (PQgetCopyData(conn, &data, 0) > 0) {
                say("  data %.*s", (int)strcspn(data, "\n"), data);
                PQfreemem(data);
            }
        if (status == PGRES_COPY_IN) {
            must(conn, PQputCopyData(conn, "99\tninety-nine\n", 15) == 1);
            must(conn, PQputCopyEnd(conn, NULL) == 1);
        }
    }
    say_status(conn);
    attempt_with_table(conn, "SELECT * FROM %s WHERE n = 99");
    free((void *)into);
    free((void *)from);
}

/* ---- cancel ---- */

/* Sends cancel requests until the statement that runs is over: the first may come before it has begun, and a request
 * that finds nothing to cancel does nothing. */
static void cancel_until_over(PGconn *conn)
{
    PGcancel *cancel = PQgetCancel(conn);
    char text[256];
    time_t end = time(NULL) + LIMIT_SECONDS;
    if (!cancel)
        die("cancel key", conn);
    for (int wait = 100; !result_comes(conn, wait); wait = 1000) {
        if (time(NULL) > end) {
            errno = ETIMEDOUT;
            die("a cancelled statement", NULL);
        }
        if (!PQcancel(cancel, text, sizeof text))
            die(text, conn);
    }
    PQfreeCancel(cancel);
}

static void cancel(PGconn *conn)
{
    /* A read that a standby may take, one in a transaction, a write, and one by the extended protocol. */
    static const char *begin[] = {NULL, "BEGIN", NULL, NULL};
    for (int i = 0; i < 4; i++) {
        if (begin[i])
            attempt(conn, begin[i]);
        const char *sql = i == 2 ? with_table("DELETE FROM %s WHERE n = 1 AND pg_sleep(60) IS NULL") : "SELECT pg_sleep(60)";
        say("  > %s", sql);
        must(conn, i == 3 ? PQsendQueryParams(conn, sql, 0, NULL, NULL, NULL, NULL, 0) : PQsendQuery(conn, sql));
        cancel_until_over(conn);
        for (PGresult *result; (result = PQgetResult(conn));)
            tell(result);
        say_status(conn);
        if (begin[i])
            attempt(conn, "ROLLBACK");
        attempt(conn, "SELECT 'alive'");
    }

    /* In a pipeline: what comes behind it is skipped, up to the Sync. */
    must(conn, PQenterPipelineMode(conn));
    send_one(conn, "SELECT 'done'", NULL);
    send_one(conn, "SELECT pg_sleep(60)", NULL);
    send_one(conn, "SELECT 'skipped'", NULL);
    must(conn, PQpipelineSync(conn));
    cancel_until_over(conn);
    /* Not before: a server that is late with a cancel request ends what it finds then. */
    send_one(conn, "SELECT 'alive'", NULL);
    must(conn, PQpipelineSync(conn));
    tell_to_sync(conn);
    tell_to_sync(conn);
    must(conn, PQexitPipelineMode(conn));

    /* A COPY that waits for its client. */
    const char *sql = with_table("COPY %s FROM STDIN");
    PQclear(expect(conn, PQexec(conn, sql), PGRES_COPY_IN));
    PGcancel *key = PQgetCancel(conn);
    char text[256];
    say("  cancel of a COPY %d", key && PQcancel(key, text, sizeof text));
    PQfreeCancel(key);
    /* The server looks for a cancel whenever a row has come. How many it reads until then is a matter of time, and so
     * is the line number in the error's context. */
    for (int n = 200000; n < 300000 && !wait_socket(conn, POLLIN, 0); n++) {
        int length = snprintf(text, sizeof text, "%d\tnever\n", n);
        must(conn, PQputCopyData(conn, text, length) == 1 && PQflush(conn) == 0);
    }
    must(conn, PQputCopyEnd(conn, NULL) == 1);
    PGresult *result = PQgetResult(conn);
    say("  %s %s", PQresStatus(PQresultStatus(result)), PQresultErrorField(result, PG_DIAG_SQLSTATE));
    PQclear(result);
    end_copy(conn);
    attempt_with_table(conn, "SELECT count(*) FROM %s WHERE n >= 200000");

    attempt(conn, "SET statement_timeout = '100ms'");
    attempt(conn, "SELECT pg_sleep(60)");
    attempt(conn, "RESET statement_timeout");
}

/* ---- function calls and large objects ---- */

static void function_calls(PGconn *conn)
{
    /* int4pl (177), int4div (154), textcat (1258): numbers that never change. */
    PQArgBlock two[2] = {{.len = 4, .isint = 1, .u.integer = 40}, {.len = 4, .isint = 1, .u.integer = 2}};
    PQArgBlock none[2] = {{.len = 4, .isint = 1, .u.integer = 40}, {.len = 4, .isint = 1, .u.integer = 0}};
    char first[] = "to", second[] = "gether";
    PQArgBlock texts[2] = {{.len = 2, .isint = 0, .u.ptr = (int *)(void *)first},
                           {.len = 6, .isint = 0, .u.ptr = (int *)(void *)second}};
    static const char *around[] = {NULL, "BEGIN"};
    for (int turn = 0; turn < 2; turn++) {
        int number = 0, length = 0, text[64];
        if (around[turn])
            attempt(conn, around[turn]);
        tell(PQfn(conn, 177, &number, &length, 1, two, 2));
        say("  %d, %d bytes", number, length);
        tell(PQfn(conn, 1258, text, &length, 0, texts, 2));
        say("  %.*s", length, (const char *)(void *)text);
        tell(PQfn(conn, 154, &number, &length, 1, none, 2));
        say_status(conn);
        tell(PQfn(conn, 177, &number, &length, 1, two, 2));
        tell(PQfn(conn, 177, &number, &length, 1, two, 1));
        tell(PQfn(conn, 4294967294u, &number, &length, 1, two, 2));
        say_status(conn);
        if (around[turn])
            attempt(conn, "ROLLBACK");
        attempt(conn, "SELECT 'alive'");
    }
}

static void tell_call(PGconn *conn, const char *what, int answer)
{
    const char *message = answer < 0 ? PQerrorMessage(conn) : "";
    say("  %s %d %.*s", what, answer, (int)strcspn(message, "\n"), message);
}

static void large_objects(PGconn *conn)
{
    enum { block = 8192, blocks = 40 };
    char *data = malloc(block), *back = malloc(block);
    if (!data || !back)
        die("memory", NULL);
    execute(conn, "BEGIN");
    Oid oid = lo_creat(conn, INV_READ | INV_WRITE);
    say("  created %d", oid != InvalidOid);
    int object = lo_open(conn, oid, INV_READ | INV_WRITE);
    say("  open %d", object);
    for (int i = 0; i < blocks; i++) {
        memset(data, 'a' + i % 26, block);
        if (lo_write(conn, object, data, block) != block)
            die("lo_write", conn);
    }
    say("  tell %d", lo_tell(conn, object));
    say("  tell64 %lld", (long long)lo_tell64(conn, object));
    say("  seek %d", lo_lseek(conn, object, 3 * block, SEEK_SET));
    say("  seek64 %lld", (long long)lo_lseek64(conn, object, block, SEEK_CUR));
    int length = lo_read(conn, object, back, block);
    say("  read %d %c%c", length, back[0], back[block - 1]);
    say("  truncate %d", lo_truncate(conn, object, 5 * block + 1));
    say("  truncate64 %d", lo_truncate64(conn, object, 5 * block));
    say("  end %d", lo_lseek(conn, object, 0, SEEK_END));
    say("  read there %d", lo_read(conn, object, back, block));
    say("  close %d", lo_close(conn, object));
    execute(conn, "COMMIT");

    /* A descriptor ends with its transaction; the object does not. */
    execute(conn, "BEGIN");
    object = lo_open(conn, oid, INV_READ);
    say("  open again %d", object);
    tell_call(conn, "write", lo_write(conn, object, data, 1));
    say_status(conn);
    execute(conn, "ROLLBACK");
    tell_call(conn, "read without a transaction", lo_read(conn, object, back, block));

    char path[] = "/tmp/libpq_round.XXXXXX";
    int file = mkstemp(path);
    FILE *stream = file < 0 ? NULL : fdopen(file, "w+");
    if (!stream)
        die(path, NULL);
    execute(conn, "BEGIN");
    say("  export %d", lo_export(conn, oid, path));
    fseek(stream, 0, SEEK_END);
    say("  exported %ld bytes", ftell(stream));
    Oid other = lo_import(conn, path);
    say("  import %d", other != InvalidOid);
    execute(conn, "COMMIT");
    fclose(stream);
    remove(path);
    char sql[256];
    snprintf(sql, sizeof sql, "SELECT length(lo_get(%u)), lo_get(%u) = lo_get(%u)", other, oid, other);
    tell(PQexec(conn, sql));
    /* Each in a transaction of its own, by FunctionCall. */
    tell_call(conn, "unlink", lo_unlink(conn, oid));
    tell_call(conn, "unlink", lo_unlink(conn, other));
    tell_call(conn, "unlink nothing", lo_unlink(conn, 4294967294u));
    say_status(conn);
    attempt(conn, "SELECT 'alive'");
    free(data);
    free(back);
}

/* ---- notices and notifications ---- */

/* Waits for a notification and tells it. */
static void tell_notification(PGconn *conn, int listener)
{
    PGnotify *notification;
    while (!(notification = PQnotifies(conn))) {
        if (!wait_socket(conn, POLLIN, LIMIT_SECONDS * 1000)) {
            errno = ETIMEDOUT;
            die("a notification", NULL);
        }
        if (!PQconsumeInput(conn))
            die("consume", conn);
    }
    /* Its own notifications say so by the process that PQbackendPID is told; a pooled session has several. */
    say("  listener %d heard %s: %s", listener, notification->relname, notification->extra);
    PQfreemem(notification);
}

static void notices(PGconn *conn)
{
    attempt(conn, "DO $$ BEGIN RAISE NOTICE 'a notice'; RAISE WARNING 'a warning' USING HINT = 'a hint'; END $$");
    attempt(conn, "DROP TABLE IF EXISTS no_such_table_here");
    attempt(conn, "COMMIT");
    attempt(conn, "SET client_min_messages = debug1");
    attempt(conn, "DO $$ BEGIN RAISE DEBUG 'whispered'; END $$");
    attempt(conn, "RESET client_min_messages");

    PGconn *other = connect_to_url();
    attempt_with_table(conn, "LISTEN %s");
    attempt_with_table(other, "LISTEN %s");
    attempt_with_table(other, "NOTIFY %s, 'hello'");
    tell_notification(conn, 1);
    tell_notification(other, 2);
    attempt(conn, "BEGIN");
    attempt_with_table(conn, "NOTIFY %s, 'after the end'");
    attempt(conn, "SELECT 1");
    attempt(conn, "COMMIT");
    tell_notification(conn, 1);
    tell_notification(other, 2);
    attempt_with_table(other, "UNLISTEN %s");
    attempt_with_table(conn, "SELECT pg_notify('%s', 'again')");
    tell_notification(conn, 1);
    attempt(other, "SELECT 'done'");
    say("  the other heard %s", PQnotifies(other) ? "more" : "no more");
    PQfinish(other);
    attempt(conn, "UNLISTEN *");
}

static void passwords(PGconn *conn)
{
    /* Asks the server for password_encryption. */
    char *verifier = PQencryptPasswordConn(conn, "secret", "somebody", NULL);
    say("  %.14s", verifier ? verifier : PQerrorMessage(conn));
    PQfreemem(verifier);
}

static void drop(PGconn *conn)
{
    execute(conn, "SET client_min_messages = error");
    execute(conn, with_table("DROP TABLE IF EXISTS %s"));
    execute(conn, "RESET client_min_messages");
}

int main(int count, char **arguments)
{
    static const struct { const char *name; void (*walk)(PGconn *); } steps[] = {
        {"connect", connect_step}, {"parameters follow set", parameters_follow_set}, {"statements", statements},
        {"parameters", parameters}, {"single rows", single_rows}, {"pipeline", pipeline},
        {"long pipeline", long_pipeline}, {"copy", copy}, {"cancel", cancel}, {"function calls", function_calls},
        {"large objects", large_objects}, {"notices", notices}, {"passwords", passwords}};
    if (count != 3) {
        fprintf(stderr, "usage: %s URL PREFIX\n", arguments[0]);
        return 2;
    }
    url = arguments[1];
    snprintf(table, sizeof table, "%s_t", arguments[2]);
    PGconn *conn = connect_to_url();
    drop(conn);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        say("step %s", steps[i].name);
        steps[i].walk(conn);
        say_status(conn);
    }
    drop(conn);
    PQfinish(conn);
    say("closed");
    return 0;
}
