/* What the sqlite driver writes to the log: one write a commit, and whatever SQLite does
 * with the log, it holds what SQLite believes it to hold. Below the driver's VFS stands
 * one of this file, which counts the writes to logs and makes them fail. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "cession/store.h"
#include "drivers/sqlite_log.h"
#include "harness.h"
#include "scratch.h"

#define HOUR INT64_C(3600000)

/* ---- a VFS that counts ------------------------------------------------------------- */

static sqlite3_vfs *stock, counting;
static sqlite3_io_methods counting_methods;
static const sqlite3_io_methods *stock_methods;
static int log_writes, fail_at; /* fail_at: the write that fails, counted down to 0 */

static int counted_write(sqlite3_file *file, const void *data, int amount, sqlite3_int64 offset)
{
    log_writes++;
    if (fail_at > 0 && --fail_at == 0) {
        return SQLITE_IOERR_WRITE;
    }
    return stock_methods->xWrite(file, data, amount, offset);
}

static int counted_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                        int *ret_flags)
{
    (void)vfs;
    int rc = stock->xOpen(stock, name, file, flags, ret_flags);
    if (rc == SQLITE_OK && (flags & SQLITE_OPEN_WAL)) {
        stock_methods = file->pMethods;
        counting_methods = *file->pMethods;
        counting_methods.xWrite = counted_write;
        file->pMethods = &counting_methods;
    }
    return rc;
}

/* SQLite's default from now on, until end_counting. */
static void begin_counting(void)
{
    stock = sqlite3_vfs_find(NULL);
    REQUIRE(stock != NULL);
    counting = *stock;
    counting.zName = "counting";
    counting.pNext = NULL;
    counting.xOpen = counted_open;
    log_writes = fail_at = 0;
    CHECK_INT(sqlite3_vfs_register(&counting, 1), SQLITE_OK);
}

static void end_counting(void)
{
    CHECK_INT(sqlite3_vfs_unregister(&counting), SQLITE_OK);
    CHECK_INT(sqlite3_vfs_register(stock, 1), SQLITE_OK);
}

/* ---- the driver --------------------------------------------------------------------- */

static cession_deadline soon(void)
{
    return cession_deadline_in(30000);
}

static cession_store *open_at(const char *path, const char *synchronous)
{
    cession_option options[] = {{.name = "path", .value = path},
                                {.name = "synchronous", .value = synchronous}};
    cession_store *store = NULL;
    REQUIRE_OK(cession_store_open("sqlite", options, 2, &store, NULL));
    return store;
}

static int put(cession_store *store, int number, cession_span value)
{
    char key[16];
    snprintf(key, sizeof key, "%d", number);
    return cession_store_create(store, cession_span_str(key), value, HOUR, soon(), NULL);
}

static bool has(cession_store *store, int number, cession_span value)
{
    char key[16];
    cession_stored stored;
    snprintf(key, sizeof key, "%d", number);
    cession_stored_init(&stored);
    int rc = cession_store_load(store, cession_span_str(key), soon(), &stored, NULL);
    bool same = rc == CESSION_OK && cession_span_eq(cession_buf_span(&stored.value), value);
    cession_stored_release(&stored);
    return same;
}

static uint8_t content[300];

static void test_a_commit_is_one_write(void)
{
    cession_span value = cession_span_of(content, sizeof content);
    begin_counting();
    cession_store *store = open_at(scratch_path("one.db"), "normal");
    CHECK_OK(put(store, 0, value));
    CHECK(log_writes > 0);
    for (int i = 1; i < 400; i++) { /* many of them divide pages */
        int before = log_writes;
        CHECK_OK(put(store, i, value));
        CHECK_INT(log_writes - before, 1);
    }
    cession_store_close(store);
    end_counting();
}

static void test_a_write_that_fails(void)
{
    static const char *const modes[] = {"normal", "full"};
    cession_span value = cession_span_of(content, sizeof content);
    for (size_t mode = 0; mode < 2; mode++) {
        begin_counting();
        cession_store *store = open_at(scratch_path(modes[mode]), modes[mode]);
        bool there[300];
        int failed = 0;
        for (int i = 0; i < 300; i++) {
            fail_at = i % 3 == 0 ? 0 : i % 3;
            int rc = put(store, i, value);
            there[i] = rc == CESSION_OK;
            failed += rc == CESSION_E_IO;
            CHECK(rc == CESSION_OK || rc == CESSION_E_IO);
            fail_at = 0;
            /* Of what failed nothing is seen, and it can be written again at once. */
            CHECK(has(store, i, value) == there[i]);
        }
        CHECK(failed >= 100);
        for (int i = 0; i < 300; i++) {
            CHECK(has(store, i, value) == there[i]);
            CHECK_STATUS(put(store, i, value), there[i] ? CESSION_EXISTS : CESSION_OK);
        }
        cession_store_close(store);
        end_counting();
    }
}

static void test_values_longer_than_what_is_held(void)
{
    static const size_t sizes[] = {20000, 28000, 32000, 40000, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *bytes = malloc(sizes[i]);
        REQUIRE(bytes != NULL);
        for (size_t at = 0; at < sizes[i]; at++) {
            bytes[at] = (uint8_t)(at * 7 + i);
        }
        cession_store *store = open_at(scratch_path("long.db"), "normal");
        cession_store *other = open_at(scratch_path("long.db"), "normal");
        CHECK_OK(put(store, (int)i, cession_span_of(bytes, sizes[i])));
        CHECK(has(other, (int)i, cession_span_of(bytes, sizes[i])));
        cession_store_close(other);
        cession_store_close(store);
        free(bytes);
    }
}

/* ---- SQLite on its own ------------------------------------------------------------------
 * What the driver never does, but a log can be asked for: pages that go out before the end
 * of a commit, are written again in it, or are taken back. */

static void run(sqlite3 *db, const char *statements)
{
    char *text = NULL;
    CHECK_MSG(sqlite3_exec(db, statements, NULL, NULL, &text) == SQLITE_OK, "%s: %s", statements,
              text ? text : "");
    sqlite3_free(text);
}

static int64_t answer(sqlite3 *db, const char *query)
{
    sqlite3_stmt *stmt = NULL;
    int64_t number = INT64_MIN;
    if (CHECK_INT(sqlite3_prepare_v2(db, query, -1, &stmt, NULL), SQLITE_OK) &&
        CHECK_MSG(sqlite3_step(stmt) == SQLITE_ROW, "%s: %s", query, sqlite3_errmsg(db))) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);
        number = text && strcmp(text, "ok") == 0 ? 1 : sqlite3_column_int64(stmt, 0);
    }
    sqlite3_finalize(stmt);
    return number;
}

static void copy_file(const char *from, const char *to)
{
    char room[65536];
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(in >= 0 && out >= 0);
    for (ssize_t got = 1; in >= 0 && out >= 0 && got > 0;) {
        got = read(in, room, sizeof room);
        CHECK(got >= 0 && write(out, room, (size_t)got) == got);
    }
    close(in);
    close(out);
}

/* What another connection sees, and what is found after a power cut: the file and the log
 * without the index. copy-... may be open, for no lock of the original is on it. */
static void check_others_see(const char *path, int64_t sum)
{
    static const char query[] = "SELECT total(n) + total(length(b)) FROM t";
    static const char whole[] = "PRAGMA integrity_check";
    char copy[PATH_MAX], log[PATH_MAX + 8], copied_log[PATH_MAX + 8];
    sqlite3 *db = NULL;
    REQUIRE(sqlite3_open(path, &db) == SQLITE_OK);
    CHECK_INT(answer(db, query), sum);
    CHECK_INT(answer(db, whole), 1);
    snprintf(copy, sizeof copy, "%s", scratch_path("copy.db"));
    snprintf(log, sizeof log, "%s-wal", path);
    snprintf(copied_log, sizeof copied_log, "%s-wal", copy);
    /* A child, as closing a descriptor of the database drops this process's locks. */
    sqlite3_close(db);
    pid_t pid = fork();
    if (pid == 0) {
        copy_file(path, copy);
        copy_file(log, copied_log);
        child_end(0);
    }
    CHECK_INT(child_wait(pid), 0);
    REQUIRE(sqlite3_open(copy, &db) == SQLITE_OK);
    CHECK_INT(answer(db, query), sum);
    CHECK_INT(answer(db, whole), 1);
    sqlite3_close(db);
}

static void check_connection(const char *vfs, int page_bytes, const char *synchronous)
{
    char path[PATH_MAX], text[300];
    sqlite3 *db = NULL;
    snprintf(path, sizeof path, "%s", scratch_path("raw.db"));
    unlink(path);
    REQUIRE(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs) ==
            SQLITE_OK);
    snprintf(text, sizeof text,
             "PRAGMA page_size = %d; PRAGMA journal_mode = WAL; PRAGMA synchronous = %s;"
             "PRAGMA cache_size = 3; PRAGMA wal_autocheckpoint = 0;"
             "CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)",
             page_bytes, synchronous);
    run(db, text);
    for (int round = 0; round < 6; round++) {
        snprintf(text, sizeof text,
                 "BEGIN; WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 400)"
                 " REPLACE INTO t SELECT n * 7 %% 400, zeroblob(50 + (n * %d) %% 300) FROM c",
                 13 + round);
        run(db, text);
        /* pages that have gone out already, again */
        run(db, "UPDATE t SET b = zeroblob(length(b) + 1) WHERE n % 3 = 0");
        run(db, "SAVEPOINT s; DELETE FROM t WHERE n % 2 = 0;"
                "REPLACE INTO t SELECT n + 1000, zeroblob(900) FROM t WHERE n < 1000");
        run(db, round % 2 ? "ROLLBACK TO s" : "RELEASE s");
        run(db, "UPDATE t SET b = zeroblob(length(b) + 1) WHERE n % 5 = 0");
        int64_t sum = answer(db, "SELECT total(n) + total(length(b)) FROM t");
        run(db, "COMMIT");
        check_others_see(path, sum);
        run(db, "BEGIN; UPDATE t SET b = zeroblob(length(b) + 7); ROLLBACK");
        check_others_see(path, sum);
        if (round == 3) {
            run(db, "PRAGMA wal_checkpoint(RESTART)"); /* the log begins anew */
        }
    }
    sqlite3_close(db);
}

static void test_whatever_sqlite_does(void)
{
    static const int pages[] = {512, 4096, 16384, 65536};
    const char *vfs = NULL;
    REQUIRE_OK(ces_sqlite_log_acquire(&vfs, NULL));
    REQUIRE(vfs != NULL);
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        check_connection(vfs, pages[i], "NORMAL");
        check_connection(vfs, pages[i], "FULL");
    }
    ces_sqlite_log_release();
}

static void test_gone_with_the_last_store(void)
{
    const char *vfs = NULL, *again = NULL;
    char name[64];
    REQUIRE_OK(ces_sqlite_log_acquire(&vfs, NULL));
    REQUIRE(vfs != NULL);
    snprintf(name, sizeof name, "%s", vfs);
    REQUIRE_OK(ces_sqlite_log_acquire(&again, NULL));
    CHECK_STR(again, name);
    CHECK(sqlite3_vfs_find(NULL) != sqlite3_vfs_find(name));
    ces_sqlite_log_release();
    CHECK(sqlite3_vfs_find(name) != NULL);
    ces_sqlite_log_release();
    CHECK(sqlite3_vfs_find(name) == NULL);
    cession_store *store = open_at(scratch_path("after.db"), "normal");
    CHECK_OK(put(store, 1, cession_span_of(content, sizeof content)));
    cession_store_close(store);
    CHECK(sqlite3_vfs_find(name) == NULL);
}

static const harness_test tests[] = {
    HARNESS_TEST(a_commit_is_one_write),           HARNESS_TEST(a_write_that_fails),
    HARNESS_TEST(values_longer_than_what_is_held), HARNESS_TEST(whatever_sqlite_does),
    HARNESS_TEST(gone_with_the_last_store),
};
HARNESS_MAIN(tests)
