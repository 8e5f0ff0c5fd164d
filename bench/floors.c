/* What the embedded stores cost in C, without Python, beside a bare read of the same
 * store. Started by floors.py: KIND FOLDER COUNT. Prints a line for each operation:
 * its name and the median in nanoseconds. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "cession/cession.h"
#include "timing.h"

#define VALUE_BYTES 300
#define HOUR INT64_C(3600000)
#define MAINTAIN_EVERY 300

static long long *times;
static int count;

static void tell(const char *name)
{
    printf("%s %lld\n", name, median(times, (size_t)count));
}

static cession_deadline soon(void)
{
    return cession_deadline_in(20000);
}

static cession_span key_of(int number)
{
    static char key[64];
    snprintf(key, sizeof key, "session:%043d", number);
    return cession_span_str(key);
}

static void check(int status, cession_error *err)
{
    if (status != CESSION_OK) {
        fail(err->text);
    }
}

/* The row of one session through SQLite alone, prepared once. */
static void bare_sqlite(const char *path)
{
    sqlite3 *db;
    sqlite3_stmt *stmt;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) ||
        sqlite3_prepare_v2(db, "SELECT id FROM cession_sessions", -1, &stmt, NULL)) {
        fail("the file cannot be opened");
    }
    sqlite3_int64 *ids = calloc((size_t)count, sizeof *ids);
    int rows = 0;
    while (ids && rows < count && sqlite3_step(stmt) == SQLITE_ROW) {
        ids[rows++] = sqlite3_column_int64(stmt, 0);
    }
    sqlite3_finalize(stmt);
    if (rows == 0 ||
        sqlite3_prepare_v2(db, "SELECT value, expires FROM cession_sessions WHERE id = ?", -1,
                           &stmt, NULL)) {
        fail("the file cannot be read");
    }
    for (int i = 0; i < count; i++) {
        char value[VALUE_BYTES];
        long long begin = now_ns();
        sqlite3_bind_int64(stmt, 1, ids[i % rows]);
        if (sqlite3_step(stmt) != SQLITE_ROW || sqlite3_column_bytes(stmt, 0) != VALUE_BYTES) {
            fail("no row");
        }
        memcpy(value, sqlite3_column_blob(stmt, 0), sizeof value);
        sqlite3_reset(stmt);
        times[i] = now_ns() - begin;
    }
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    free(ids);
    tell("bare");
}

/* One file opened, read and closed. */
static void bare_file(const char *folder)
{
    char path[PATH_MAX], room[4096];
    snprintf(path, sizeof path, "%s/one-file", folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    memset(room, 'x', sizeof room);
    if (fd < 0 || write(fd, room, VALUE_BYTES) != VALUE_BYTES || close(fd) != 0) {
        fail("the file cannot be written");
    }
    for (int i = 0; i < count; i++) {
        long long begin = now_ns();
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (read(fd, room, sizeof room) != VALUE_BYTES || close(fd) != 0) {
            fail("the file cannot be read");
        }
        times[i] = now_ns() - begin;
    }
    unlink(path);
    tell("bare");
}

static void maintain(cession_store *store, int turn)
{
    cession_error err = CESSION_ERROR_INIT;
    if (turn % MAINTAIN_EVERY == 0) {
        int status = cession_store_maintain(store, soon(), &err);
        if (status != CESSION_E_UNSUPPORTED) {
            check(status, &err);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fail("KIND FOLDER COUNT");
    }
    bool files = strcmp(argv[1], "filesystem") == 0;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", argv[2], files ? "files" : "bench.sqlite3");
    count = atoi(argv[3]);
    times = calloc((size_t)count, sizeof *times);
    cession_option option = {.name = "path", .value = path};
    cession_error err = CESSION_ERROR_INIT;
    cession_store *store;
    if (count <= 0 || !times) {
        fail("COUNT");
    }
    check(cession_store_open(argv[1], &option, 1, &store, &err), &err);
    uint8_t value[VALUE_BYTES];
    memset(value, 'x', sizeof value);
    cession_span span = cession_span_of(value, sizeof value);

    for (int i = 0; i < count; i++) {
        cession_span key = key_of(i);
        long long begin = now_ns();
        check(cession_store_create(store, key, span, HOUR, soon(), &err), &err);
        times[i] = now_ns() - begin;
        maintain(store, i);
    }
    tell("create");
    cession_stored stored, current;
    cession_stored_init(&stored);
    cession_stored_init(&current);
    for (int i = 0; i < count; i++) {
        cession_span key = key_of(i);
        long long begin = now_ns();
        check(cession_store_load(store, key, soon(), &stored, &err), &err);
        times[i] = now_ns() - begin;
    }
    tell("load");
    for (int i = 0; i < count; i++) {
        cession_span key = key_of(i);
        check(cession_store_load(store, key, soon(), &stored, &err), &err);
        cession_expected expected = {
            .value = cession_buf_span(&stored.value),
            .version = cession_span_of(stored.version, stored.version_len),
        };
        value[0] = (uint8_t)('a' + i % 16);
        long long begin = now_ns();
        check(cession_store_replace(store, key, &expected, span, HOUR, soon(), &current, &err),
              &err);
        times[i] = now_ns() - begin;
        maintain(store, i);
    }
    tell("replace");
    if (files) {
        bare_file(argv[2]);
    } else {
        bare_sqlite(path);
    }
    for (int i = 0; i < count; i++) {
        cession_span key = key_of(i);
        long long begin = now_ns();
        check(cession_store_remove(store, key, soon(), &err), &err);
        times[i] = now_ns() - begin;
        maintain(store, i);
    }
    tell("remove");
    cession_stored_release(&stored);
    cession_stored_release(&current);
    cession_store_close(store);
    free(times);
    return 0;
}
