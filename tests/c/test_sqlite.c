/* The sqlite driver beyond the contract: processes, forks, kills, the file and
 * its permissions, foreign and damaged files, the log and its maintenance. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/os.h"
#include "cession/store.h"
#include "harness.h"
#include "scratch.h"

#define HOUR INT64_C(3600000)
#define MS INT64_C(1000000)

static cession_deadline soon(void)
{
    return cession_deadline_in(30000);
}

static cession_store *open_at(const char *path)
{
    cession_option option = {.name = "path", .value = path};
    cession_store *store = NULL;
    CHECK_OK(cession_store_open("sqlite", &option, 1, &store, NULL));
    return store;
}

static int put(cession_store *store, const char *key, const char *value)
{
    return cession_store_create(store, cession_span_str(key), cession_span_str(value), HOUR, soon(),
                                NULL);
}

static int get(cession_store *store, const char *key)
{
    cession_stored stored;
    cession_stored_init(&stored);
    int rc = cession_store_load(store, cession_span_str(key), soon(), &stored, NULL);
    cession_stored_release(&stored);
    return rc;
}

/* The file through SQLite itself: the same copy of the library. */
static int64_t ask(const char *path, const char *query)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    int64_t answer = INT64_MIN;
    if (CHECK_INT(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK)) {
        sqlite3_busy_timeout(db, 30000);
        if (CHECK_MSG(sqlite3_prepare_v2(db, query, -1, &stmt, NULL) == SQLITE_OK, "%s",
                      sqlite3_errmsg(db))) {
            int rc = sqlite3_step(stmt);
            CHECK_MSG(rc == SQLITE_ROW || rc == SQLITE_DONE, "%s", sqlite3_errmsg(db));
            if (rc == SQLITE_ROW) {
                const char *text = (const char *)sqlite3_column_text(stmt, 0);
                answer = text != NULL && strcmp(text, "ok") == 0 ? 1
                                                                 : sqlite3_column_int64(stmt, 0);
            }
        }
    }
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return answer;
}

static void check_intact(const char *path)
{
    CHECK_INT(ask(path, "PRAGMA integrity_check"), 1);
    CHECK_INT(ask(path, "SELECT count(*) FROM cession_sessions WHERE sweep > expires"), 0);
}

static void make_file(const char *path, const char *statements)
{
    sqlite3 *db = NULL;
    REQUIRE(sqlite3_open(path, &db) == SQLITE_OK);
    CHECK_INT(sqlite3_exec(db, statements, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static unsigned mode_of(const char *path)
{
    struct stat st;
    return CHECK_MSG(stat(path, &st) == 0, "%s", path) ? st.st_mode & 07777u : 0;
}

static const char *with(const char *path, const char *suffix)
{
    static char room[4][PATH_MAX];
    static unsigned turn;
    char *out = room[turn++ % 4];
    int len = snprintf(out, sizeof room[0], "%s%s", path, suffix);
    CHECK(len > 0 && (size_t)len < sizeof room[0]);
    return out;
}

static off_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? st.st_size : -1;
}

/* ---- the file ------------------------------------------------------------------ */

static void test_creates_privately(void)
{
    char path[PATH_MAX];
    struct stat st;
    mode_t old = umask(0);
    mkdir(scratch_path("perm"), 0755);
    snprintf(path, sizeof path, "%s", scratch_path("perm/one/two/app.sqlite3"));
    cession_store *store = open_at(path);
    CHECK(stat(scratch_path("perm/one"), &st) != 0); /* nothing before it is used */
    CHECK_STATUS(get(store, "k"), CESSION_NOT_FOUND);
    CHECK_OK(put(store, "k", "v"));
    CHECK_INT(mode_of(path), 0600);
    CHECK_INT(mode_of(with(path, "-wal")), 0600);
    CHECK_INT(mode_of(with(path, "-shm")), 0600);
    CHECK_INT(mode_of(scratch_path("perm/one/two")), 0700);
    CHECK_INT(mode_of(scratch_path("perm/one")), 0700);
    CHECK_INT(mode_of(scratch_path("perm")), 0755); /* was there before */
    cession_store_close(store);
    CHECK(stat(with(path, "-wal"), &st) != 0); /* the last one tidies up */

    /* What somebody has set stays. */
    chmod(path, 0640);
    store = open_at(path);
    CHECK_OK(get(store, "k"));
    CHECK_INT(mode_of(path), 0640);
    cession_store_close(store);
    umask(old);
    CHECK_INT(ask(path, "PRAGMA application_id"), 0x43657373);
    CHECK_INT(ask(path, "PRAGMA user_version"), 1);
}

static void test_relative_path(void)
{
    char before[PATH_MAX];
    struct stat st;
    REQUIRE(getcwd(before, sizeof before) != NULL);
    mkdir(scratch_path("relative"), 0700);
    REQUIRE(chdir(scratch_path("relative")) == 0);
    cession_store *store = open_at("sub/app.sqlite3");
    REQUIRE(chdir(before) == 0); /* the path was meant where the store was opened */
    CHECK_OK(put(store, "k", "v"));
    CHECK(stat(scratch_path("relative/sub/app.sqlite3"), &st) == 0);
    cession_store_close(store);
}

typedef struct refusal {
    const char *path;
    int expected;
    const char *in_text;
} refusal;

static bool is_refused(const refusal *r)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_stored stored;
    cession_stored_init(&stored);
    cession_store *store = open_at(r->path);
    bool fine = true;
    for (int i = 0; i < 2; i++) { /* the second time alike */
        int rc = cession_store_create(store, SPAN("secret-key"), SPAN("secret-value"), HOUR, soon(),
                                      &err);
        fine &= CHECK_STATUS(rc, r->expected);
        fine &= CHECK_MSG(strstr(err.text, r->in_text) != NULL, "%s", err.text);
        fine &= CHECK(strstr(err.text, "secret") == NULL);
        rc = cession_store_load(store, SPAN("secret-key"), soon(), &stored, NULL);
        fine &= CHECK_STATUS(rc, r->expected);
    }
    cession_store_close(store);
    cession_stored_release(&stored);
    return fine;
}

static uint64_t checksum(const char *path)
{
    uint64_t sum = 0;
    FILE *f = fopen(path, "rb");
    if (CHECK(f != NULL)) {
        for (int c; (c = fgetc(f)) != EOF;) {
            sum = sum * 1099511628211u + (uint64_t)(unsigned)c + 1;
        }
        fclose(f);
    }
    return sum;
}

static void test_foreign_files_are_left_alone(void)
{
    static const struct {
        const char *name, *statements;
        int expected;
        const char *in_text;
    } rows[] = {
        {"app-id.db", "CREATE TABLE t(x); PRAGMA application_id = 1234", CESSION_E_FOREIGN,
         "another program"},
        {"plain.db", "CREATE TABLE sessions(x); INSERT INTO sessions VALUES (1)", CESSION_E_FOREIGN,
         "another program"},
        {"id-only.db", "PRAGMA application_id = 99", CESSION_E_FOREIGN, "another program"},
        {"version-only.db", "PRAGMA user_version = 7", CESSION_E_FOREIGN, "another program"},
        {"newer.db",
         "CREATE TABLE cession_sessions(x); PRAGMA application_id = 0x43657373;"
         "PRAGMA user_version = 2",
         CESSION_E_NEWER, "format 2"},
        {"no-version.db", "CREATE TABLE t(x); PRAGMA application_id = 0x43657373",
         CESSION_E_FOREIGN, "another program"},
    };
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(path, sizeof path, "%s", scratch_path(rows[i].name));
        make_file(path, rows[i].statements);
        uint64_t before = checksum(path);
        is_refused(&(refusal){path, rows[i].expected, rows[i].in_text});
        CHECK(checksum(path) == before);
    }
    /* Ours by its marks, but not by its tables. */
    snprintf(path, sizeof path, "%s", scratch_path("shape.db"));
    make_file(path, "CREATE TABLE cession_sessions(id INTEGER PRIMARY KEY);"
                    "PRAGMA application_id = 0x43657373; PRAGMA user_version = 1");
    is_refused(&(refusal){path, CESSION_E_FOREIGN, "another shape"});

    snprintf(path, sizeof path, "%s", scratch_path("text.db"));
    FILE *f = fopen(path, "wb");
    REQUIRE(f != NULL);
    for (int i = 0; i < 2000; i++) {
        fputs("this is no database\n", f);
    }
    fclose(f);
    uint64_t before = checksum(path);
    is_refused(&(refusal){path, CESSION_E_FOREIGN, "no SQLite database"});
    CHECK(checksum(path) == before);

    snprintf(path, sizeof path, "%s", scratch_path("directory.db"));
    mkdir(path, 0700);
    is_refused(&(refusal){path, CESSION_E_FOREIGN, "no regular file"});
    snprintf(path, sizeof path, "%s", scratch_path("fifo.db"));
    CHECK_INT(mkfifo(path, 0600), 0);
    is_refused(&(refusal){path, CESSION_E_FOREIGN, "no regular file"});
    /* A link to nowhere makes no file there. */
    snprintf(path, sizeof path, "%s", scratch_path("dangling.db"));
    CHECK_INT(symlink(scratch_path("nowhere.db"), path), 0);
    is_refused(&(refusal){path, CESSION_E_UNAVAILABLE, "cannot be opened"});
    CHECK_INT(size_of(scratch_path("nowhere.db")), -1);
    /* A file where a directory should be. */
    snprintf(path, sizeof path, "%s", scratch_path("text.db/app.sqlite3"));
    is_refused(&(refusal){path, CESSION_E_UNAVAILABLE, "database"});
}

static void test_empty_file_is_taken(void)
{
    const char *path = scratch_path("empty.db");
    FILE *f = fopen(path, "wb");
    REQUIRE(f != NULL);
    fclose(f);
    cession_store *store = open_at(path);
    CHECK_OK(put(store, "k", "v"));
    CHECK_OK(get(store, "k"));
    cession_store_close(store);
}

/* Somebody has turned the log off: it is turned on again. */
static void test_journal_mode_is_restored(void)
{
    const char *path = scratch_path("journal.db");
    cession_store *store = open_at(path);
    CHECK_OK(put(store, "k", "v"));
    cession_store_close(store);
    make_file(path, "PRAGMA journal_mode = DELETE");
    store = open_at(path);
    CHECK_OK(get(store, "k"));
    CHECK(size_of(with(path, "-wal")) >= 0);
    cession_store_close(store);
}

static void test_damaged_files(void)
{
    char path[PATH_MAX], copy[PATH_MAX], key[32];
    static char value[3000];
    memset(value, 'v', sizeof value - 1);
    snprintf(path, sizeof path, "%s", scratch_path("whole.db"));
    cession_store *store = open_at(path);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%d", i);
        CHECK_OK(put(store, key, value));
    }
    cession_store_close(store);
    FILE *f = fopen(path, "rb");
    REQUIRE(f != NULL);
    static uint8_t whole[1024 * 1024], bytes[sizeof whole];
    size_t size = fread(whole, 1, sizeof whole, f);
    fclose(f);
    REQUIRE(size > 300000 && size < sizeof whole);

    harness_rng rng = {.state = 5};
    unsigned errors = 0;
    for (int round = 0; round < 60; round++) {
        memcpy(bytes, whole, size);
        size_t len = size;
        if (round % 3 == 0) {
            len = harness_below(&rng, size);
        } else {
            size_t from = round % 3 == 1 ? 100 : harness_below(&rng, size - 20000);
            for (size_t i = from; i < from + 20000; i++) {
                bytes[i] = (uint8_t)harness_random(&rng);
            }
        }
        snprintf(copy, sizeof copy, "%s", scratch_path("damaged.db"));
        unlink(copy);
        unlink(with(copy, "-wal"));
        unlink(with(copy, "-shm"));
        f = fopen(copy, "wb");
        REQUIRE(f != NULL);
        fwrite(bytes, 1, len, f);
        fclose(f);
        store = open_at(copy);
        cession_error err = CESSION_ERROR_INIT;
        cession_stored stored;
        cession_stored_init(&stored);
        cession_expected e = {.value = cession_span_str(value)};
        for (int i = 0; i < 100; i++) {
            snprintf(key, sizeof key, "%d", i);
            cession_span k = cession_span_str(key);
            int rc[] = {cession_store_load(store, k, soon(), &stored, &err),
                        cession_store_touch(store, k, &e, HOUR, soon(), &err),
                        cession_store_replace(store, k, &e, e.value, HOUR, soon(), &stored, &err)};
            for (int n = 0; n < 3; n++) {
                errors += rc[n] < 0;
                CHECK_MSG(rc[n] >= 0 || rc[n] == CESSION_E_IO || rc[n] == CESSION_E_FOREIGN ||
                              rc[n] == CESSION_E_NEWER || rc[n] == CESSION_E_FORMAT,
                          "%s %s", cession_status_name(rc[n]), err.text);
            }
        }
        cession_stored_release(&stored);
        cession_store_close(store);
    }
    CHECK(errors > 1000); /* the damage was real */
}

/* As a user who is not root: the child gives up its rights. */
static int unprivileged(void *context)
{
    const refusal *r = context;
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) {
        return 9;
    }
    return is_refused(r) ? 0 : 1;
}

static void test_permissions(void)
{
    char path[PATH_MAX];
    /* The way there must be open to the other user. */
    char *dir = strdup(scratch_path("."));
    CHECK_INT(chmod(dir, 0755), 0);
    free(dir);
    mkdir(scratch_path("closed"), 0700);
    mkdir(scratch_path("closed/in"), 0700);
    chmod(scratch_path("closed"), 0);
    snprintf(path, sizeof path, "%s", scratch_path("closed/in/app.sqlite3"));
    CHECK_INT(child_run(unprivileged, &(refusal){path, CESSION_E_PERMISSION, "ermission"}), 0);
    mkdir(scratch_path("readonly"), 0755);
    chmod(scratch_path("readonly"), 0555);
    snprintf(path, sizeof path, "%s", scratch_path("readonly/app.sqlite3"));
    CHECK_INT(child_run(unprivileged, &(refusal){path, CESSION_E_PERMISSION, "ermission"}), 0);
    snprintf(path, sizeof path, "%s", scratch_path("readonly/new/app.sqlite3"));
    CHECK_INT(child_run(unprivileged, &(refusal){path, CESSION_E_PERMISSION, "ermission"}), 0);

    mkdir(scratch_path("files"), 0777);
    chmod(scratch_path("files"), 0777);
    snprintf(path, sizeof path, "%s", scratch_path("files/app.sqlite3"));
    cession_store *store = open_at(path);
    CHECK_OK(put(store, "k", "v"));
    cession_store_close(store);
    chmod(path, 0444);
    CHECK_INT(child_run(unprivileged, &(refusal){path, CESSION_E_PERMISSION, "not write"}), 0);
    chmod(path, 0);
    CHECK_INT(child_run(unprivileged, &(refusal){path, CESSION_E_PERMISSION, "ermission"}), 0);
    chmod(scratch_path("closed"), 0700);
}

/* A full disk, by the limit on file sizes. */
static int fill_disk(void *context)
{
    const char *path = context;
    cession_store *store = open_at(path);
    cession_error err = CESSION_ERROR_INIT;
    char key[32];
    static char value[2000];
    memset(value, 'v', sizeof value - 1);
    if (put(store, "first", value) != CESSION_OK || !child_limit_files(400000)) {
        return 1;
    }
    int rc = CESSION_OK, done = 0;
    while (rc == CESSION_OK && done < 10000) {
        snprintf(key, sizeof key, "%d", done);
        rc = cession_store_create(store, cession_span_str(key), cession_span_str(value), HOUR,
                                  soon(), &err);
        done += rc == CESSION_OK;
    }
    if (rc != CESSION_E_IO || done < 5) {
        fprintf(stderr, "%d done, then %s: %s\n", done, cession_status_name(rc), err.text);
        return 2;
    }
    for (int i = 0; i < done; i++) { /* what was acknowledged is there */
        snprintf(key, sizeof key, "%d", i);
        if (get(store, key) != CESSION_OK) {
            return 3;
        }
    }
    return get(store, "first") == CESSION_OK ? 0 : 4;
}

static void test_full_disk(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", scratch_path("full.db"));
    CHECK_INT(child_run(fill_disk, path), 0);
    check_intact(path);
    cession_store *store = open_at(path); /* and there is room again */
    CHECK_OK(put(store, "later", "v"));
    CHECK_OK(get(store, "0"));
    cession_store_close(store);
}

/* ---- locks and deadlines ------------------------------------------------------------ */

static void test_deadlines(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", scratch_path("locked.db"));
    cession_store *store = open_at(path);
    cession_error err = CESSION_ERROR_INIT;
    /* Opening is waiting. */
    CHECK_STATUS(cession_store_create(store, SPAN("k"), SPAN("v"), HOUR, 0, &err), CESSION_E_BUSY);
    CHECK_INT(size_of(path), -1);
    CHECK_OK(put(store, "k", "v"));
    CHECK_OK(cession_store_remove(store, SPAN("k"), 0, &err));
    CHECK_OK(put(store, "k", "v"));

    sqlite3 *db = NULL;
    REQUIRE(sqlite3_open(path, &db) == SQLITE_OK);
    REQUIRE(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
    cession_expected v = {.value = SPAN("v")};
    cession_stored stored;
    cession_stored_init(&stored);
    size_t count = 99;
    for (int i = 0; i < 2; i++) {
        cession_deadline d = i == 0 ? 0 : cession_deadline_in(20);
        int late = i == 0 ? CESSION_E_BUSY : CESSION_E_TIMEOUT;
        CHECK_STATUS(cession_store_create(store, SPAN("n"), SPAN("v"), HOUR, d, &err), late);
        CHECK_STATUS(cession_store_replace(store, SPAN("k"), &v, SPAN("w"), HOUR, d, &stored, &err),
                     late);
        CHECK_STATUS(cession_store_touch(store, SPAN("k"), &v, HOUR, d, &err), late);
        CHECK_STATUS(cession_store_remove(store, SPAN("k"), d, &err), late);
        CHECK_STATUS(cession_store_purge(store, 5, d, &count, &err), late);
        CHECK_INT(count, 99);
        CHECK_OK(cession_store_load(store, SPAN("k"), d, &stored, &err)); /* readers go on */
    }
    sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    sqlite3_close(db);
    CHECK_OK(cession_store_replace(store, SPAN("k"), &v, SPAN("w"), HOUR, 0, &stored, &err));
    cession_stored_release(&stored);
    cession_store_close(store);
}

/* ---- the key ------------------------------------------------------------------------- */

/* Two keys whose first 8 bytes of the hash are equal, by turning one's tag. */
static void test_equal_ids(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", scratch_path("ids.db"));
    cession_store *store = open_at(path);
    cession_stored stored;
    cession_stored_init(&stored);
    cession_expected v = {.value = SPAN("v")};
    CHECK_OK(put(store, "k", "v"));
    ask(path, "UPDATE cession_sessions SET tag = tag + 1");
    CHECK_STATUS(get(store, "k"), CESSION_NOT_FOUND);
    CHECK_STATUS(put(store, "k", "w"), CESSION_EXISTS);
    CHECK_STATUS(
        cession_store_replace(store, SPAN("k"), &v, SPAN("w"), HOUR, soon(), &stored, NULL),
        CESSION_GONE);
    CHECK_STATUS(cession_store_touch(store, SPAN("k"), &v, HOUR, soon(), NULL), CESSION_GONE);
    CHECK_OK(cession_store_remove(store, SPAN("k"), soon(), NULL));
    CHECK_INT(ask(path, "SELECT count(*) FROM cession_sessions"), 1); /* the other's */
    ask(path, "UPDATE cession_sessions SET expires = 1, sweep = 1");
    CHECK_OK(put(store, "k", "w"));
    CHECK_OK(get(store, "k"));
    cession_stored_release(&stored);
    cession_store_close(store);
    /* The key itself is nowhere in the file. */
    store = open_at(path);
    CHECK_OK(put(store, "findable-key-text", "findable-value-text"));
    cession_store_close(store);
    char *bytes = calloc(1, 1 << 20);
    FILE *f = fopen(path, "rb");
    REQUIRE(f != NULL);
    size_t size = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    CHECK(memmem(bytes, size, "findable-value-text", 19) != NULL);
    CHECK(memmem(bytes, size, "findable-key-text", 17) == NULL);
    free(bytes);
}

/* ---- processes ------------------------------------------------------------------------ */

typedef struct job {
    const char *path;
    unsigned number, count;
    int pipe[2];
} job;

static int open_and_write(void *context)
{
    job *j = context;
    char key[64], go;
    close(j->pipe[1]);
    cession_store *store = open_at(j->path);
    if (read(j->pipe[0], &go, 1) != 0) { /* all start when the parent closes it */
        return 1;
    }
    for (unsigned i = 0; i < j->count; i++) {
        cession_error err = CESSION_ERROR_INIT;
        snprintf(key, sizeof key, "%u %u", j->number, i);
        int rc = cession_store_create(store, cession_span_str(key), SPAN("v"), HOUR, soon(), &err);
        if (rc != CESSION_OK) {
            fprintf(stderr, "%s: %s\n", cession_status_name(rc), err.text);
            return 2;
        }
    }
    cession_store_close(store);
    return 0;
}

static void test_eight_open_a_new_file(void)
{
    enum { PROCESSES = 8, ROUNDS = 15 };
    char path[PATH_MAX], key[64], name[32];
    for (int round = 0; round < ROUNDS; round++) {
        snprintf(name, sizeof name, "race-%d/app.sqlite3", round);
        snprintf(path, sizeof path, "%s", scratch_path(name));
        job j = {.path = path, .count = 3};
        pid_t pids[PROCESSES];
        REQUIRE(pipe(j.pipe) == 0);
        for (unsigned i = 0; i < PROCESSES; i++) {
            j.number = i;
            pids[i] = child_start(open_and_write, &j);
        }
        close(j.pipe[1]);
        close(j.pipe[0]);
        for (int i = 0; i < PROCESSES; i++) {
            CHECK_INT(child_wait(pids[i]), 0);
        }
        cession_store *store = open_at(path);
        for (unsigned i = 0; i < PROCESSES; i++) {
            for (unsigned k = 0; k < j.count; k++) {
                snprintf(key, sizeof key, "%u %u", i, k);
                CHECK_OK(get(store, key));
            }
        }
        cession_store_close(store);
        CHECK_INT(mode_of(path), 0600);
        check_intact(path);
    }
}

/* The counter goes up by one, whatever others do. 0 when it worked. */
static int increment(cession_store *store)
{
    cession_stored held, current;
    cession_stored_init(&held);
    cession_stored_init(&current);
    cession_error err = CESSION_ERROR_INIT;
    int rc = cession_store_load(store, SPAN("counter"), soon(), &held, &err);
    while (rc == CESSION_OK || rc == CESSION_CONFLICT) {
        char text[16] = "";
        memcpy(text, held.value.data, held.value.len < 15 ? held.value.len : 15);
        int len = snprintf(text, sizeof text, "%d", atoi(text) + 1);
        cession_expected e = {.value = cession_buf_span(&held.value)};
        rc = cession_store_replace(store, SPAN("counter"), &e, cession_span_of(text, (size_t)len),
                                   HOUR, soon(), &current, &err);
        if (rc == CESSION_OK) {
            break;
        }
        cession_stored swap = held;
        held = current;
        current = swap;
    }
    if (rc != CESSION_OK) {
        fprintf(stderr, "%s: %s\n", cession_status_name(rc), err.text);
    }
    cession_stored_release(&held);
    cession_stored_release(&current);
    return rc;
}

typedef struct counting {
    cession_store *store;
    unsigned count;
    atomic_int failed;
} counting;

static void *count_in_thread(void *context)
{
    counting *c = context;
    for (unsigned i = 0; i < c->count; i++) {
        if (increment(c->store) != CESSION_OK) {
            atomic_store(&c->failed, 1);
        }
    }
    return NULL;
}

static int count_in_process(void *context)
{
    job *j = context;
    pthread_t threads[3];
    counting c = {.store = open_at(j->path), .count = j->count};
    for (int i = 0; i < 3; i++) {
        if (pthread_create(&threads[i], NULL, count_in_thread, &c) != 0) {
            return 2;
        }
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    cession_store_close(c.store);
    return atomic_load(&c.failed);
}

static void test_processes_lose_no_change(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", scratch_path("count.db"));
    cession_store *store = open_at(path);
    CHECK_OK(put(store, "counter", "0"));
    job j = {.path = path, .count = 100};
    pid_t pids[4];
    for (int i = 0; i < 4; i++) {
        pids[i] = child_start(count_in_process, &j);
    }
    counting mine = {.store = store, .count = 100};
    count_in_thread(&mine); /* the store was open before the forks */
    CHECK_INT(mine.failed, 0);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(child_wait(pids[i]), 0);
    }
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_OK(cession_store_load(store, SPAN("counter"), soon(), &stored, NULL));
    CHECK_SPAN(cession_buf_span(&stored.value), SPAN("1300"));
    cession_stored_release(&stored);
    cession_store_close(store);
    check_intact(path);
}

/* ---- forks --------------------------------------------------------------------------------- */

enum { FORK_THREADS = 3 };

typedef struct forking {
    const char *path;
    cession_store *store;
    atomic_bool stop;
    atomic_uint next;
    unsigned written[FORK_THREADS];
    int failed[FORK_THREADS];
} forking;

static void *write_on(void *context)
{
    forking *f = context;
    unsigned me = atomic_fetch_add(&f->next, 1);
    char key[64];
    while (!atomic_load(&f->stop)) {
        snprintf(key, sizeof key, "thread %u %u", me, f->written[me]);
        int rc = put(f->store, key, "v");
        if (rc != CESSION_OK) {
            f->failed[me] = rc;
            break;
        }
        f->written[me]++;
    }
    return NULL;
}

static int use_inherited(void *context)
{
    forking *f = context;
    char key[64];
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "child %d %d", (int)getpid(), i);
        int rc = put(f->store, key, "v");
        if (rc != CESSION_OK) {
            fprintf(stderr, "%s\n", cession_status_name(rc));
            return 1;
        }
    }
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "child %d %d", (int)getpid(), i);
        if (get(f->store, key) != CESSION_OK) {
            return 2;
        }
    }
    if (getpid() % 2 == 0) {
        cession_store_close(f->store); /* some tidy up, some do not */
    }
    return 0;
}

static int open_and_close(void *context)
{
    forking *f = context;
    cession_store *store = open_at(f->path);
    int rc = get(store, "nothing");
    cession_store_close(store); /* the last connection of a process checkpoints */
    return rc == CESSION_NOT_FOUND ? 0 : 1;
}

/* The processes that fork have the store in use, by other threads and by
 * themselves; meanwhile others open and close the file. Every acknowledged
 * write is there in the end. */
static void test_fork_while_used(void)
{
    char path[PATH_MAX], key[64];
    snprintf(path, sizeof path, "%s", scratch_path("fork.db"));
    forking f = {.path = path, .store = open_at(path)};
    pthread_t threads[FORK_THREADS];
    pid_t children[12];
    CHECK_OK(put(f.store, "master", "v"));
    for (int i = 0; i < FORK_THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, write_on, &f) == 0);
    }
    for (int i = 0; i < 12; i++) {
        children[i] = child_start(i % 3 == 2 ? open_and_close : use_inherited, &f);
        snprintf(key, sizeof key, "after fork %d", i);
        CHECK_OK(put(f.store, key, "v"));
        if (i % 4 == 3) {
            CHECK_INT(child_run(open_and_close, &f), 0);
        }
    }
    for (int i = 0; i < 12; i++) {
        CHECK_INT(child_wait(children[i]), 0);
    }
    atomic_store(&f.stop, true);
    for (int i = 0; i < FORK_THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_OK(f.failed[i]);
        CHECK(f.written[i] > 0);
    }
    cession_store_close(f.store);

    cession_store *store = open_at(path);
    unsigned lost = 0;
    lost += get(store, "master") != CESSION_OK;
    for (int i = 0; i < 12; i++) {
        snprintf(key, sizeof key, "after fork %d", i);
        lost += get(store, key) != CESSION_OK;
        for (int k = 0; k < 20 && i % 3 != 2; k++) {
            snprintf(key, sizeof key, "child %d %d", (int)children[i], k);
            lost += get(store, key) != CESSION_OK;
        }
    }
    for (unsigned i = 0; i < FORK_THREADS; i++) {
        for (unsigned k = 0; k < f.written[i]; k++) {
            snprintf(key, sizeof key, "thread %u %u", i, k);
            lost += get(store, key) != CESSION_OK;
        }
    }
    CHECK_INT(lost, 0);
    cession_store_close(store);
    check_intact(path);
}

/* A server that uses the store, forks its workers and exits at once; another
 * process opens and closes the file while the workers write. */
static int worker(void *context)
{
    job *j = context;
    char key[64];
    cession_store *store = *(cession_store **)(void *)j->path; /* inherited */
    for (unsigned i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "worker %u %u", j->number, i);
        if (put(store, key, "v") != CESSION_OK) {
            return 1;
        }
        char byte = (char)j->number;
        if (write(j->pipe[1], &byte, 1) != 1) { /* acknowledged */
            return 2;
        }
    }
    return 0;
}

static int master(void *context)
{
    job *j = context;
    cession_store *store = open_at(j->path);
    if (put(store, "from the master", "v") != CESSION_OK) {
        return 1;
    }
    for (unsigned i = 0; i < 3; i++) {
        job w = *j;
        w.path = (const char *)&store;
        w.number = i;
        child_start(worker, &w);
    }
    return put(store, "from the master again", "v") == CESSION_OK ? 0 : 1;
}

static void test_master_forks_and_exits(void)
{
    char path[PATH_MAX], key[64];
    snprintf(path, sizeof path, "%s", scratch_path("master.db"));
    job j = {.path = path};
    forking f = {.path = path};
    REQUIRE(pipe(j.pipe) == 0);
    CHECK_INT(child_run(master, &j), 0);
    close(j.pipe[1]);
    unsigned acknowledged[3] = {0};
    char byte;
    /* The pipe ends when the last worker, nobody's child now, is gone. */
    for (unsigned n = 0; read(j.pipe[0], &byte, 1) == 1; n++) {
        acknowledged[(unsigned)byte]++;
        if (n % 100 == 0) {
            CHECK_INT(child_run(open_and_close, &f), 0);
        }
    }
    close(j.pipe[0]);
    cession_store *store = open_at(path);
    CHECK_OK(get(store, "from the master"));
    CHECK_OK(get(store, "from the master again"));
    for (unsigned i = 0; i < 3; i++) {
        CHECK_INT(acknowledged[i], 300);
        for (unsigned k = 0; k < acknowledged[i]; k++) {
            snprintf(key, sizeof key, "worker %u %u", i, k);
            CHECK_OK(get(store, key));
        }
    }
    cession_store_close(store);
    check_intact(path);
}

/* ---- kill -9 ----------------------------------------------------------------------------------
 */

static int write_until_killed(void *context)
{
    job *j = context;
    char key[64];
    cession_store *store = open_at(j->path);
    for (unsigned i = 0;; i++) {
        snprintf(key, sizeof key, "round %u %u", j->number, i);
        if (put(store, key, "some value") != CESSION_OK) {
            return 1;
        }
        if (write(j->pipe[1], &i, sizeof i) != sizeof i) {
            return 2;
        }
        if (i % 50 == 49 && cession_store_maintain(store, soon(), NULL) != CESSION_OK) {
            return 3; /* killed within a checkpoint, too */
        }
    }
}

static void test_kill_loses_nothing(void)
{
    const char *wanted = getenv("CESSION_KILLS");
    int kills = wanted != NULL ? atoi(wanted) : 10;
    REQUIRE(kills > 0);
    char path[PATH_MAX], key[64];
    snprintf(path, sizeof path, "%s", scratch_path("kill.db"));
    unsigned total = 0;
    harness_rng rng = {.state = (uint64_t)ces_mono_ns()};
    for (int round = 0; round < kills; round++) {
        job j = {.path = path, .number = (unsigned)round};
        REQUIRE(pipe(j.pipe) == 0);
        pid_t pid = child_start(write_until_killed, &j);
        close(j.pipe[1]);
        unsigned next = 0, acknowledged = 0;
        unsigned least = 1 + (unsigned)harness_below(&rng, 200);
        while (acknowledged < least && read(j.pipe[0], &next, sizeof next) == sizeof next) {
            acknowledged = next + 1;
        }
        ces_sleep_ns((int64_t)harness_below(&rng, 500) * 1000);
        kill(pid, SIGKILL);
        while (read(j.pipe[0], &next, sizeof next) == sizeof next) {
            acknowledged = next + 1;
        }
        close(j.pipe[0]);
        CHECK_INT(child_wait(pid), 256 + SIGKILL);
        cession_store *store = open_at(path);
        for (unsigned i = 0; i < acknowledged; i++) {
            snprintf(key, sizeof key, "round %d %u", round, i);
            CHECK_OK(get(store, key));
        }
        total += acknowledged;
        cession_store_close(store);
        check_intact(path);
    }
    CHECK(total >= (unsigned)kills);
    CHECK(ask(path, "SELECT count(*) FROM cession_sessions") >= (int64_t)total);
}

/* ---- a file that goes away
 * ------------------------------------------------------------------------ */

static int write_through_deletion(void *context)
{
    job *j = context;
    char key[64];
    cession_store *store = open_at(j->path);
    if (put(store, "open", "v") < 0) {
        return 1;
    }
    char byte = 'r';
    if (write(j->pipe[1], &byte, 1) != 1) {
        return 2;
    }
    /* Three seconds of writing; the file is deleted somewhere in between. */
    int64_t until = ces_mono_ns() + 3000 * MS;
    unsigned i = 0;
    while (ces_mono_ns() < until) {
        cession_error err = CESSION_ERROR_INIT;
        snprintf(key, sizeof key, "process %u %u", j->number, i++);
        int rc = cession_store_create(store, cession_span_str(key), SPAN("v"), HOUR, soon(), &err);
        if (rc != CESSION_OK) {
            fprintf(stderr, "%s: %s\n", cession_status_name(rc), err.text);
            return 3;
        }
        ces_sleep_ns(MS);
    }
    snprintf(key, sizeof key, "last of %u", j->number);
    int rc = put(store, key, "v");
    cession_store_close(store);
    return rc == CESSION_OK ? 0 : 4;
}

/* The main file alone, its log and shared memory stay behind: the processes
 * find out, and go on in a new file, without mixing the two. */
static void test_deleted_under_workers(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", scratch_path("deleted.db"));
    job j = {.path = path};
    pid_t pids[3];
    REQUIRE(pipe(j.pipe) == 0);
    for (unsigned i = 0; i < 3; i++) {
        j.number = i;
        pids[i] = child_start(write_through_deletion, &j);
    }
    char ready[3];
    for (int i = 0; i < 3; i++) {
        REQUIRE(read(j.pipe[0], &ready[i], 1) == 1);
    }
    ces_sleep_ns(100 * MS);
    CHECK_INT(unlink(path), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(child_wait(pids[i]), 0);
    }
    close(j.pipe[0]);
    close(j.pipe[1]);
    cession_store *store = open_at(path);
    CHECK_OK(get(store, "last of 0"));
    CHECK_OK(get(store, "last of 1"));
    CHECK_OK(get(store, "last of 2"));
    CHECK_STATUS(get(store, "open"), CESSION_NOT_FOUND);
    cession_store_close(store);
    CHECK_INT(mode_of(path), 0600);
    check_intact(path);
}

static ino_t inode_of(const char *path)
{
    struct stat st;
    return CHECK_MSG(stat(path, &st) == 0, "%s", path) ? st.st_ino : 0;
}

/* What a deleted file leaves behind is still in use by whoever has it open, so a
 * new file must not share it. */
static void test_leftovers_are_not_reused(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", scratch_path("leftovers.db"));
    cession_store *old = open_at(path);
    CHECK_OK(put(old, "old", "v"));
    ino_t wal = inode_of(with(path, "-wal")), shm = inode_of(with(path, "-shm"));
    CHECK_INT(unlink(path), 0);
    cession_store *fresh = open_at(path);
    CHECK_OK(put(fresh, "fresh", "v"));
    CHECK(inode_of(with(path, "-wal")) != wal);
    CHECK(inode_of(with(path, "-shm")) != shm);
    CHECK_OK(put(old, "into the old or the new", "v"));
    CHECK_OK(get(fresh, "fresh"));
    CHECK_STATUS(get(fresh, "old"), CESSION_NOT_FOUND);
    ces_sleep_ns(1010 * MS);
    CHECK_OK(get(old, "fresh"));
    cession_store_close(old);
    CHECK_OK(get(fresh, "fresh"));
    cession_store_close(fresh);
    check_intact(path);
}

/* A worker that was idle all the while shuts down: the log it would delete has
 * become another file's. */
static void test_closing_a_deleted_file(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", scratch_path("idle.db"));
    cession_store *idle = open_at(path);
    CHECK_OK(put(idle, "old", "v"));
    CHECK_INT(unlink(path), 0);
    cession_store *fresh = open_at(path);
    CHECK_OK(put(fresh, "fresh", "v"));
    ino_t wal = inode_of(with(path, "-wal"));
    cession_store_close(idle);
    CHECK(inode_of(with(path, "-wal")) == wal);
    cession_store *another = open_at(path);
    CHECK_OK(get(another, "fresh"));
    cession_store_close(another);
    cession_store_close(fresh);
    another = open_at(path);
    CHECK_OK(get(another, "fresh"));
    cession_store_close(another);
    check_intact(path);
}

static void test_replaced_under_a_worker(void)
{
    char path[PATH_MAX], other[PATH_MAX];
    snprintf(path, sizeof path, "%s", scratch_path("replaced.db"));
    snprintf(other, sizeof other, "%s", scratch_path("other.db"));
    cession_store *store = open_at(other);
    CHECK_OK(put(store, "in the other", "v"));
    cession_store_close(store);
    store = open_at(path);
    CHECK_OK(put(store, "in the first", "v"));
    CHECK_INT(unlink(with(path, "-wal")), 0);
    CHECK_INT(unlink(with(path, "-shm")), 0);
    CHECK_INT(rename(other, path), 0);
    ces_sleep_ns(1010 * MS);
    CHECK_OK(get(store, "in the other"));
    CHECK_STATUS(get(store, "in the first"), CESSION_NOT_FOUND);
    CHECK_OK(put(store, "more", "v"));
    cession_store_close(store);
    check_intact(path);
}

/* ---- maintenance
 * --------------------------------------------------------------------------------------- */

/* Change the record k `times` times; SQLite writes no page that stays equal, so
 * every byte changes. */
static void rewrite(cession_store *store, char *value, size_t len, unsigned times,
                    cession_deadline deadline)
{
    cession_stored current;
    cession_stored_init(&current);
    char *next = malloc(len);
    for (unsigned i = 0; i < times; i++) {
        memset(next, value[0] + 1, len);
        cession_expected e = {.value = cession_span_of(value, len)};
        if (!CHECK_OK(cession_store_replace(store, SPAN("k"), &e, cession_span_of(next, len), HOUR,
                                            deadline, &current, NULL))) {
            break;
        }
        memcpy(value, next, len);
    }
    free(next);
    cession_stored_release(&current);
}

static void test_maintenance(void)
{
    char path[PATH_MAX];
    static char value[100000];
    memset(value, 'v', sizeof value);
    snprintf(path, sizeof path, "%s", scratch_path("maintain.db"));
    cession_store *store = open_at(path);
    CHECK(!cession_store_maintenance_due(store));
    CHECK_STATUS(cession_store_maintain(store, 0, NULL), CESSION_E_BUSY);
    CHECK_OK(cession_store_create(store, SPAN("k"), cession_span_of(value, sizeof value), HOUR,
                                  soon(), NULL));
    rewrite(store, value, sizeof value, 100, 0);
    off_t grown = size_of(with(path, "-wal"));
    CHECK(grown > 4 * 1024 * 1024); /* no commit has checkpointed */
    CHECK(cession_store_maintenance_due(store));
    off_t before = size_of(path);
    CHECK_OK(cession_store_maintain(store, soon(), NULL));
    CHECK(size_of(path) > before); /* the log went into the file */
    CHECK(!cession_store_maintenance_due(store));
    rewrite(store, value, sizeof value, 80, 0); /* and is begun anew */
    CHECK_INT(size_of(with(path, "-wal")), grown);

    /* A log that has become large is cut. */
    ces_sleep_ns(1010 * MS);
    rewrite(store, value, sizeof value, 400, 0);
    CHECK(size_of(with(path, "-wal")) > 16 * 1024 * 1024);
    CHECK(cession_store_maintenance_due(store));
    CHECK_OK(cession_store_maintain(store, soon(), NULL));
    CHECK_INT(size_of(with(path, "-wal")), 0);
    cession_store_close(store);
    check_intact(path);
}

/* Takes the place of the C library's in SQLite, too. */
static void (*on_sync)(void);

__attribute__((visibility("default"))) int fdatasync(int fd);
int fdatasync(int fd)
{
    if (on_sync) {
        on_sync();
    }
    return (int)syscall(SYS_fdatasync, fd);
}

static cession_store *busy_store;
static char busy_value[100000];

/* A disk that takes long, and a site that goes on writing meanwhile. */
static void slow_and_busy(void)
{
    void (*kept)(void) = on_sync;
    on_sync = NULL;
    ces_sleep_ns(60 * MS);
    rewrite(busy_store, busy_value, sizeof busy_value, 1, soon());
    on_sync = kept;
}

/* Writers would wait for a sync while the log is cut: not where that takes long. */
static void test_a_slow_disk_delays_the_cut(void)
{
    char path[PATH_MAX];
    memset(busy_value, 'v', sizeof busy_value);
    snprintf(path, sizeof path, "%s", scratch_path("slow.db"));
    cession_store *store = busy_store = open_at(path);
    CHECK_OK(cession_store_create(store, SPAN("k"), cession_span_of(busy_value, sizeof busy_value),
                                  HOUR, soon(), NULL));
    rewrite(store, busy_value, sizeof busy_value, 400, 0);
    off_t grown = size_of(with(path, "-wal"));
    CHECK(grown > 16 * 1024 * 1024);
    on_sync = slow_and_busy;
    CHECK_OK(cession_store_maintain(store, soon(), NULL));
    on_sync = NULL;
    CHECK(size_of(with(path, "-wal")) >= grown);
    CHECK_OK(get(store, "k"));
    ces_sleep_ns(1010 * MS); /* the disk is itself again */
    rewrite(store, busy_value, sizeof busy_value, 100, 0);
    CHECK_OK(cession_store_maintain(store, soon(), NULL));
    CHECK(size_of(with(path, "-wal")) < grown);
    cession_store_close(store);
    check_intact(path);
}

/* Nobody calls maintain: the log stays bounded all the same, by the writes that
 * have a deadline. */
static void test_last_resort(void)
{
    char path[PATH_MAX];
    enum { SIZE = 1000000 };
    char *value = malloc(SIZE);
    memset(value, 'v', SIZE);
    snprintf(path, sizeof path, "%s", scratch_path("resort.db"));
    cession_store *store = open_at(path);
    CHECK_OK(
        cession_store_create(store, SPAN("k"), cession_span_of(value, SIZE), HOUR, soon(), NULL));
    off_t largest = 0;
    for (int i = 0; i < 160; i++) {
        rewrite(store, value, SIZE, 1, soon());
        off_t now = size_of(with(path, "-wal"));
        largest = now > largest ? now : largest;
    }
    CHECK_MSG(largest > 60 * 1024 * 1024 && largest < 80 * 1024 * 1024, "%lld", (long long)largest);
    cession_store_close(store);
    free(value);
}

/* Writes without time ask for some when the log is that long; so it stays bounded for a
 * host that gives none at first. */
static void test_last_resort_of_writes_without_time(void)
{
    char path[PATH_MAX];
    static char value[30000];
    memset(value, 'v', sizeof value);
    snprintf(path, sizeof path, "%s", scratch_path("hurried.db"));
    cession_store *store = open_at(path);
    CHECK_OK(put(store, "k", "v")); /* a connection is open */
    int refused = 0;
    off_t largest = 0;
    for (int i = 0; i < 4000; i++) {
        char key[32];
        snprintf(key, sizeof key, "k%d", i);
        cession_span name = cession_span_str(key), bytes = cession_span_of(value, sizeof value);
        int rc = cession_store_create(store, name, bytes, HOUR, 0, NULL);
        if (rc == CESSION_E_BUSY) {
            refused++;
            rc = cession_store_create(store, name, bytes, HOUR, soon(), NULL);
        }
        CHECK_OK(rc);
        off_t now = size_of(with(path, "-wal"));
        largest = now > largest ? now : largest;
    }
    CHECK(refused > 0);
    CHECK_MSG(largest > 60 * 1024 * 1024 && largest < 80 * 1024 * 1024, "%lld", (long long)largest);
    cession_store_close(store);
    check_intact(path);
}

static void test_purge_comes_due(void)
{
    char path[PATH_MAX], key[32];
    snprintf(path, sizeof path, "%s", scratch_path("purge.db"));
    cession_store *store = open_at(path);
    for (int i = 0; i < 1200; i++) {
        snprintf(key, sizeof key, "%d", i);
        CHECK_OK(cession_store_create(store, cession_span_str(key), SPAN("v"), 1, soon(), NULL));
    }
    ces_sleep_ns(2 * MS);
    CHECK_OK(put(store, "live", "v"));
    cession_expected v = {.value = SPAN("v")};
    /* One write in 1024 makes it due; that none of 40,000 does has a chance of
     * e^-39. The log, which these also fill, must not be what is due. */
    for (int i = 0; i < 40000 && ask(path, "SELECT count(*) FROM cession_sessions") > 1; i += 200) {
        for (int k = 0; k < 200; k++) {
            CHECK_OK(cession_store_touch(store, SPAN("live"), &v, HOUR, soon(), NULL));
        }
        if (cession_store_maintenance_due(store)) {
            CHECK_OK(cession_store_maintain(store, soon(), NULL));
            if (ask(path, "SELECT count(*) FROM cession_sessions") > 1) {
                ces_sleep_ns(1010 * MS);
            }
        }
    }
    CHECK_INT(ask(path, "SELECT count(*) FROM cession_sessions"), 1);
    CHECK_OK(get(store, "live"));
    cession_store_close(store);
}

/* Records whose expiry moved since their last sweep are looked at and left. */
static void test_purge_leaves_the_touched(void)
{
    char path[PATH_MAX], key[32];
    snprintf(path, sizeof path, "%s", scratch_path("sweep.db"));
    cession_store *store = open_at(path);
    cession_expected v = {.value = SPAN("v")};
    for (int i = 0; i < 900; i++) {
        snprintf(key, sizeof key, "%d", i);
        CHECK_OK(put(store, key, "v"));
    }
    /* As if the hour were over for those, and a third of them touched since. */
    ask(path, "UPDATE cession_sessions SET expires = 1000, sweep = 1000");
    CHECK_INT(ask(path, "SELECT count(*) FROM cession_sessions WHERE sweep = 1000"), 900);
    sqlite3 *db = NULL;
    REQUIRE(sqlite3_open(path, &db) == SQLITE_OK);
    CHECK_INT(sqlite3_exec(db,
                           "UPDATE cession_sessions SET expires = 99999999999999"
                           " WHERE id IN (SELECT id FROM cession_sessions LIMIT 300)",
                           NULL, NULL, NULL),
              SQLITE_OK);
    sqlite3_close(db);
    size_t count = 0;
    CHECK_OK(cession_store_purge(store, 100, soon(), &count, NULL));
    CHECK_INT(count, 100);
    CHECK_OK(cession_store_purge(store, 10000, soon(), &count, NULL));
    CHECK_INT(count, 500);
    CHECK_INT(ask(path, "SELECT count(*) FROM cession_sessions"), 300);
    CHECK_INT(ask(path, "SELECT count(*) FROM cession_sessions WHERE sweep = expires"), 300);

    /* A write that slides the expiry on leaves the index alone. */
    CHECK_OK(put(store, "sliding", "v"));
    ask(path, "UPDATE cession_sessions SET sweep = expires - 5 WHERE expires < 99999999999999");
    int64_t sweep = ask(path, "SELECT min(sweep) FROM cession_sessions");
    CHECK_OK(cession_store_touch(store, SPAN("sliding"), &v, 2 * HOUR, soon(), NULL));
    CHECK_INT(ask(path, "SELECT min(sweep) FROM cession_sessions"), sweep);
    cession_store_close(store);
    check_intact(path);
}

static const harness_test tests[] = {
    HARNESS_TEST(creates_privately),
    HARNESS_TEST(relative_path),
    HARNESS_TEST(foreign_files_are_left_alone),
    HARNESS_TEST(empty_file_is_taken),
    HARNESS_TEST(journal_mode_is_restored),
    HARNESS_TEST(damaged_files),
    HARNESS_TEST(permissions),
    HARNESS_TEST(full_disk),
    HARNESS_TEST(deadlines),
    HARNESS_TEST(equal_ids),
    HARNESS_TEST(eight_open_a_new_file),
    HARNESS_TEST(processes_lose_no_change),
    HARNESS_TEST(fork_while_used),
    HARNESS_TEST(master_forks_and_exits),
    HARNESS_TEST(kill_loses_nothing),
    HARNESS_TEST(deleted_under_workers),
    HARNESS_TEST(leftovers_are_not_reused),
    HARNESS_TEST(closing_a_deleted_file),
    HARNESS_TEST(replaced_under_a_worker),
    HARNESS_TEST(maintenance),
    HARNESS_TEST(a_slow_disk_delays_the_cut),
    HARNESS_TEST(last_resort),
    HARNESS_TEST(last_resort_of_writes_without_time),
    HARNESS_TEST(purge_comes_due),
    HARNESS_TEST(purge_leaves_the_touched),
};
HARNESS_MAIN(tests)
