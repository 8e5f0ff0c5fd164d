/* What cachelib's FileSystemCache left in the directory is read, taken over, and
 * gone for good after a logout. The files were written by cachelib itself:
 * tests/data/filesystem/make.py. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/filesystem.h"
#include "failing_alloc.h"
#include "files_world.h"
#include "harness.h"
#include "scratch.h"

#define LIVE_UNTIL INT64_C(4102444800000)
#define UUID_KEY "session:8e2d4c1a-5b7f-4d7a-9c55-2f1f0a6b3c4d"

static const struct {
    const char *name, *digest;
} versions[] = {
    {"cachelib-0.9.0", "MD5"},
    {"cachelib-0.13.0", "MD5"},
    {"cachelib-0.17.0", "SHA256"},
};
enum { VERSIONS = sizeof versions / sizeof versions[0] };

static const char *data_of(size_t version)
{
    return files_text("%s/filesystem/%s", TEST_DATA, versions[version].name);
}

/* A directory as cachelib left it. */
static const char *left_by(size_t version)
{
    const char *dir = files_fresh();
    files_copy_all(data_of(version), dir);
    return dir;
}

static const char *old_path(const char *dir, size_t version, const char *key)
{
    return files_legacy_path(dir, versions[version].digest, cession_span_str(key));
}

/* A file as cachelib writes it; seconds 0: never. */
static void write_old(const char *path, uint32_t seconds, const char *pickle)
{
    char data[200];
    size_t len = strlen(pickle);
    memcpy(data, &seconds, 4);
    memcpy(data + 4, pickle, len);
    files_write(path, data, 4 + len);
}

#define PICKLE "\x80\x04}."
#define OTHER_PICKLE "\x80\x04}\x94."

static int load(cession_store *store, const char *key, cession_stored *ret_stored)
{
    return cession_store_load(store, cession_span_str(key), 0, ret_stored, NULL);
}

static void test_reads_every_version(void)
{
    static const char *const keys[] = {"session:live", "session:never", UUID_KEY};
    cession_stored stored;
    cession_stored_init(&stored);
    for (size_t v = 0; v < VERSIONS; v++) {
        const char *dir = left_by(v);
        cession_store *store = files_open(dir, NULL);
        for (size_t k = 0; k < 3; k++) {
            uint8_t data[200];
            ssize_t len = files_read(old_path(dir, v, keys[k]), data, sizeof data);
            if (!CHECK(len > 4)) {
                continue;
            }
            CHECK_OK(load(store, keys[k], &stored));
            CHECK_SPAN(cession_buf_span(&stored.value), cession_span_of(data + 4, (size_t)len - 4));
            CHECK(stored.value.len > 0 && stored.value.data[0] == 0x80);
            CHECK_INT(stored.version_len, 0);
            CHECK(stored.expires_at_ms == (k == 1 ? CESSION_EXPIRES_NEVER : LIVE_UNTIL));
            CHECK_STATUS(
                cession_store_create(store, cession_span_str(keys[k]), SPAN("x"), HOUR, 0, NULL),
                CESSION_EXISTS);
        }
        CHECK_STR(files_load(store, "session:expired"), "-");
        CHECK_STR(files_load(store, "session:unknown"), "-");
        /* Its counter is no session. */
        CHECK_STR(files_load(store, "__wz_cache_count"), "-");
        CHECK_OK(files_remove(store, "__wz_cache_count"));
        /* Reading takes nothing away. */
        CHECK_INT(files_count(dir, ""), 5 + 1);
        cession_store_close(store);
    }
    cession_stored_release(&stored);
}

/* Each change makes the session ours and deletes cachelib's file. */
static void test_first_change_takes_over(void)
{
    for (size_t v = 0; v < VERSIONS; v++) {
        const char *dir = left_by(v);
        cession_store *store = files_open(dir, NULL);
        cession_stored stored, current;
        cession_stored_init(&stored);
        cession_stored_init(&current);
        int64_t before = cession_now_ms();

        CHECK_OK(load(store, "session:live", &stored));
        cession_expected e = {.value = cession_buf_span(&stored.value)};
        CHECK_OK(cession_store_touch(store, SPAN("session:live"), &e, HOUR, 0, NULL));
        CHECK(!files_exists(old_path(dir, v, "session:live")));
        CHECK(files_exists(files_path_of(dir, SPAN("session:live"))));
        CHECK_OK(load(store, "session:live", &current));
        CHECK_SPAN(cession_buf_span(&current.value), cession_buf_span(&stored.value));
        CHECK(current.expires_at_ms >= before + HOUR &&
              current.expires_at_ms <= cession_now_ms() + HOUR);

        CHECK_OK(load(store, "session:never", &stored));
        e.value = cession_buf_span(&stored.value);
        CHECK_OK(cession_store_replace(store, SPAN("session:never"), &e, SPAN("new"), HOUR, 0,
                                       &current, NULL));
        CHECK(!files_exists(old_path(dir, v, "session:never")));
        CHECK_STR(files_load(store, "session:never"), "new");

        CHECK_OK(files_remove(store, UUID_KEY));
        CHECK(!files_exists(old_path(dir, v, UUID_KEY)));
        CHECK_STR(files_load(store, UUID_KEY), "-");

        /* Over an expired one. */
        CHECK_OK(files_create(store, "session:expired", "fresh"));
        CHECK(!files_exists(old_path(dir, v, "session:expired")));
        CHECK_STR(files_load(store, "session:expired"), "fresh");

        CHECK(files_exists(old_path(dir, v, "__wz_cache_count")));
        CHECK_OK(files_remove(store, "session:live"));
        CHECK_OK(files_remove(store, "session:never"));
        cession_store_close(store);
        store = files_open(dir, NULL);
        CHECK_STR(files_load(store, "session:live"), "-");
        CHECK_STR(files_load(store, "session:never"), "-");
        CHECK_STR(files_load(store, UUID_KEY), "-");
        cession_store_close(store);
        cession_stored_release(&stored);
        cession_stored_release(&current);
    }
}

static void test_compare_and_set(void)
{
    for (size_t v = 0; v < VERSIONS; v++) {
        const char *dir = left_by(v);
        cession_store *store = files_open(dir, NULL);
        cession_stored stored, current;
        cession_stored_init(&stored);
        cession_stored_init(&current);
        CHECK_OK(load(store, "session:live", &stored));
        cession_expected stale = {.value = SPAN("something else")};
        CHECK_STATUS(cession_store_replace(store, SPAN("session:live"), &stale, SPAN("x"), HOUR, 0,
                                           &current, NULL),
                     CESSION_CONFLICT);
        CHECK_SPAN(cession_buf_span(&current.value), cession_buf_span(&stored.value));
        CHECK(current.expires_at_ms == LIVE_UNTIL);
        CHECK_STATUS(cession_store_touch(store, SPAN("session:live"), &stale, HOUR, 0, NULL),
                     CESSION_CHANGED);
        CHECK(files_exists(old_path(dir, v, "session:live")));
        CHECK(!files_exists(files_path_of(dir, SPAN("session:live"))));
        CHECK_STATUS(files_touch(store, "session:expired", "x", HOUR), CESSION_GONE);
        CHECK_STATUS(files_replace(store, "session:expired", "x", "y"), CESSION_GONE);
        cession_store_close(store);
        cession_stored_release(&stored);
        cession_stored_release(&current);
    }
}

static void expire(const char *path, cession_span key, cession_span value)
{
    uint8_t file[200];
    ces_file_head_write(file, key, value, cession_now_ms() - 1);
    memcpy(file + CES_FILE_HEAD_LEN, key.data, key.len);
    memcpy(file + CES_FILE_HEAD_LEN + key.len, value.data, value.len);
    files_write(path, file, CES_FILE_HEAD_LEN + key.len + value.len);
}

/* Killed between writing ours and deleting cachelib's: both are there. */
static void test_crash_does_not_bring_it_back(void)
{
    static const char key[] = "session:live";
    for (size_t v = 0; v < VERSIONS; v++) {
        const char *dir = left_by(v);
        const char *old = files_dir(files_text("crash-%zu", v));
        cession_store *store = files_open(dir, NULL);
        files_copy(old_path(dir, v, key), old);
        CHECK_OK(files_remove(store, key));
        CHECK_OK(files_create(store, key, "ours"));

        /* Ours counts, and a logout takes both. */
        files_copy(old, old_path(dir, v, key));
        CHECK_STR(files_load(store, key), "ours");
        CHECK_OK(files_remove(store, key));
        CHECK(!files_exists(old_path(dir, v, key)));
        CHECK_STR(files_load(store, key), "-");

        /* So does a change. */
        CHECK_OK(files_create(store, key, "ours"));
        files_copy(old, old_path(dir, v, key));
        CHECK_OK(files_replace(store, key, "ours", "newer"));
        CHECK(!files_exists(old_path(dir, v, key)));
        files_copy(old, old_path(dir, v, key));
        CHECK_OK(files_touch(store, key, "newer", HOUR));
        CHECK(!files_exists(old_path(dir, v, key)));

        /* Ours expires (a tombstone does after 30 s): cachelib's stays hidden, also
         * when ours is swept, and is not made anything of by a new session. */
        files_copy(old, old_path(dir, v, key));
        expire(files_path_of(dir, cession_span_str(key)), cession_span_str(key), SPAN("newer"));
        CHECK_STR(files_load(store, key), "-");
        CHECK_STATUS(files_replace(store, key, "newer", "x"), CESSION_GONE);
        CHECK_STATUS(files_touch(store, key, "newer", HOUR), CESSION_GONE);
        size_t count;
        CHECK_OK(cession_store_purge(store, 100, 0, &count, NULL));
        CHECK(!files_exists(files_path_of(dir, cession_span_str(key))));
        CHECK(!files_exists(old_path(dir, v, key)));
        CHECK_STR(files_load(store, key), "-");

        /* Damaged: the same, but it is not known whose it was, so it stays. */
        CHECK_OK(files_create(store, key, "ours"));
        files_copy(old, old_path(dir, v, key));
        files_write(files_path_of(dir, cession_span_str(key)), "damaged", 7);
        files_age(files_path_of(dir, cession_span_str(key)), 99999);
        CHECK_STR(files_load(store, key), "-");
        CHECK_OK(cession_store_purge(store, 100, 0, &count, NULL));
        CHECK(files_exists(files_path_of(dir, cession_span_str(key))));
        CHECK_STR(files_load(store, key), "-");
        CHECK_OK(files_create(store, key, "again"));
        CHECK(!files_exists(old_path(dir, v, key)));
        cession_store_close(store);
    }
}

/* Two kinds of names: cachelib itself saw only those of its last version. */
static void test_upgraded_cachelib(void)
{
    for (int newest = 0; newest < 2; newest++) {
        const char *dir = files_fresh();
        files_copy_all(data_of(1), dir);
        files_copy_all(data_of(2), dir);
        write_old(files_legacy_path(dir, "MD5", SPAN("session:md5 only")), 0, PICKLE);
        write_old(files_legacy_path(dir, "SHA256", SPAN("session:sha256 only")), 0, PICKLE);
        write_old(files_legacy_path(dir, "MD5", SPAN("session:live")), 0, OTHER_PICKLE);
        files_age(files_legacy_path(dir, "SHA256", SPAN("__wz_cache_count")), 100);
        files_age(files_legacy_path(dir, "MD5", SPAN("__wz_cache_count")), newest == 0 ? 50 : 200);
        cession_store *store = files_open(dir, NULL);
        bool md5 = newest == 0;
        CHECK_STR(files_load(store, "session:md5 only"), md5 ? PICKLE : "-");
        CHECK_STR(files_load(store, "session:sha256 only"), md5 ? "-" : PICKLE);
        CHECK((strcmp(files_load(store, "session:live"), OTHER_PICKLE) == 0) == md5);
        /* A logout deletes both. */
        CHECK_OK(files_remove(store, "session:live"));
        CHECK(!files_exists(files_legacy_path(dir, "MD5", SPAN("session:live"))));
        CHECK(!files_exists(files_legacy_path(dir, "SHA256", SPAN("session:live"))));
        cession_store_close(store);
    }
    /* Without the counters (threshold 0) both count, the newer name first, also
     * when what it holds has expired. */
    const char *dir = files_fresh();
    CHECK(mkdir(dir, 0755) == 0);
    write_old(files_legacy_path(dir, "MD5", SPAN("a")), 0, PICKLE);
    write_old(files_legacy_path(dir, "SHA256", SPAN("b")), 0, PICKLE);
    write_old(files_legacy_path(dir, "MD5", SPAN("c")), 0, PICKLE);
    write_old(files_legacy_path(dir, "SHA256", SPAN("c")), 1000, PICKLE);
    cession_store *store = files_open(dir, NULL);
    CHECK_STR(files_load(store, "a"), PICKLE);
    CHECK_STR(files_load(store, "b"), PICKLE);
    CHECK_STR(files_load(store, "c"), "-");
    cession_store_close(store);
}

/* Old workers still run, and write files into a directory that had none. */
static void test_files_that_appear_later(void)
{
    for (int settle = 0; settle < 2; settle++) {
        const char *dir = files_fresh();
        cession_store *store = files_open(dir, NULL);
        CHECK_OK(files_create(store, "k", "v"));
        CHECK_STR(files_load(store, "late"), "-");
        if (settle) {
            files_age(dir, 100); /* as if nothing had happened for a while */
            CHECK_STR(files_load(store, "late"), "-");
        }
        write_old(files_legacy_path(dir, "MD5", SPAN("late")), 0, PICKLE);
        CHECK_STR(files_load(store, "late"), PICKLE);
        CHECK_OK(files_remove(store, "late"));
        CHECK(!files_exists(files_legacy_path(dir, "MD5", SPAN("late"))));
        cession_store_close(store);
    }
}

static void test_other_files_are_left_alone(void)
{
    static const char *const names[] = {
        "notes.txt",
        "tmpabcdefgh.__wz_cache",
        "2ca7869687f2c4d9e2b34f21a9c3b0d",
        "2CA7869687F2C4D9E2B34F21A9C3B0DE",
        "0123456789abcdef0123456789abcdeg",
        ".hidden",
    };
    enum { NAMES = sizeof names / sizeof names[0] };
    const char *dir = files_fresh();
    CHECK(mkdir(dir, 0755) == 0);
    for (size_t i = 0; i < NAMES; i++) {
        write_old(files_text("%s/%s", dir, names[i]), 1000, PICKLE);
    }
    CHECK(mkdir(files_text("%s/00112233445566778899aabbccddeeff", dir), 0700) == 0);
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "v"));
    size_t count;
    CHECK_OK(cession_store_purge(store, 100, 0, &count, NULL));
    CHECK_INT(count, 0);
    for (size_t i = 0; i < NAMES; i++) {
        CHECK(files_exists(files_text("%s/%s", dir, names[i])));
    }
    cession_store_close(store);
}

static void test_sweep_of_old_files(void)
{
    const char *dir = left_by(1);
    cession_store *store = files_open(dir, NULL);
    uint32_t now = (uint32_t)(cession_now_ms() / 1000);
    write_old(files_legacy_path(dir, "MD5", SPAN("just expired")), now - 60, PICKLE);
    write_old(files_legacy_path(dir, "MD5", SPAN("long expired")), now - 4000, PICKLE);
    write_old(files_legacy_path(dir, "SHA256", SPAN("long expired")), now - 4000, PICKLE);
    write_old(files_legacy_path(dir, "MD5", SPAN("no pickle")), now - 4000, "text");
    write_old(files_legacy_path(dir, "MD5", SPAN("empty")), now - 4000, "");
    size_t count;
    CHECK_OK(cession_store_purge(store, 100, 0, &count, NULL));
    CHECK_INT(count, 3); /* session:expired, too */
    CHECK(files_exists(files_legacy_path(dir, "MD5", SPAN("just expired"))));
    CHECK(!files_exists(files_legacy_path(dir, "MD5", SPAN("long expired"))));
    CHECK(!files_exists(files_legacy_path(dir, "SHA256", SPAN("long expired"))));
    CHECK(files_exists(files_legacy_path(dir, "MD5", SPAN("no pickle"))));
    CHECK(files_exists(files_legacy_path(dir, "MD5", SPAN("empty"))));
    CHECK(files_exists(old_path(dir, 1, "session:live")));
    CHECK(files_exists(old_path(dir, 1, "session:never")));
    CHECK(files_exists(old_path(dir, 1, "__wz_cache_count")));
    CHECK_STR(files_load(store, "just expired"), "-");
    CHECK_STR(files_load(store, "empty"), "-");
    cession_store_close(store);
}

static void test_hostile_old_files(void)
{
    const char *dir = left_by(1);
    const char *outside = files_fresh();
    const char *path = old_path(dir, 1, "session:live");
    cession_store *store = files_open(dir, NULL);
    files_copy(path, outside);
    CHECK(unlink(path) == 0 && symlink(outside, path) == 0);
    CHECK_STR(files_load(store, "session:live"), "-");
    CHECK(unlink(path) == 0 && link(outside, path) == 0);
    CHECK_STR(files_load(store, "session:live"), "-");
    CHECK(unlink(path) == 0 && mkfifo(path, 0600) == 0);
    alarm(60);
    CHECK_STR(files_load(store, "session:live"), "-");
    alarm(0);
    CHECK_STATUS(files_touch(store, "session:live", "x", HOUR), CESSION_GONE);
    CHECK_OK(files_create(store, "session:live", "new"));
    CHECK(!files_exists(path));
    CHECK(symlink(outside, path) == 0);
    CHECK_OK(files_remove(store, "session:live"));
    CHECK(!files_exists(path));
    CHECK(files_exists(outside));
    if (geteuid() == 0) {
        files_copy(outside, path);
        CHECK_INT(files_load(store, "session:live")[0], '\x80');
        CHECK(chown(path, 65534, 65534) == 0);
        CHECK_STR(files_load(store, "session:live"), "-");
    }
    /* Cut off at every length. */
    uint8_t data[200];
    ssize_t len = files_read(outside, data, sizeof data);
    for (ssize_t cut = 0; cut <= 5; cut++) {
        files_write(path, data, (size_t)cut);
        CHECK((strcmp(files_load(store, "session:live"), "-") == 0) == (cut < 5));
    }
    CHECK(len > 5);
    cession_store_close(store);
}

/* ---- at the same time -------------------------------------------------------------- */

enum { THREADS = 8 };

typedef struct contest {
    const char *dir;
    cession_store *stores[THREADS];
    pthread_barrier_t start;
    atomic_uint next, wins, others, missed;
    cession_stored first;
    bool remover;
} contest;

static void *take_over(void *context)
{
    contest *c = context;
    unsigned me = atomic_fetch_add(&c->next, 1);
    cession_store *store = c->stores[me];
    cession_stored current;
    cession_stored_init(&current);
    cession_expected e = {.value = cession_buf_span(&c->first.value)};
    pthread_barrier_wait(&c->start);
    if (c->remover && me == 0) {
        CHECK_OK(files_remove(store, "session:live"));
    } else if (me < THREADS / 2) {
        char mine[16];
        snprintf(mine, sizeof mine, "writer %u", me);
        int rc = cession_store_replace(store, SPAN("session:live"), &e, cession_span_str(mine),
                                       HOUR, cession_deadline_in(20000), &current, NULL);
        if (rc == CESSION_OK) {
            atomic_fetch_add(&c->wins, 1);
        } else if (rc == CESSION_CONFLICT || (c->remover && rc == CESSION_GONE)) {
            atomic_fetch_add(&c->others, 1);
        } else {
            CHECK_OK(rc);
        }
    } else {
        /* The session is there all the time, under one name or the other. */
        for (int i = 0; i < 50; i++) {
            int rc = cession_store_load(store, SPAN("session:live"), 0, &current, NULL);
            atomic_fetch_add(&c->missed, rc == CESSION_NOT_FOUND);
            CHECK(rc == CESSION_OK || rc == CESSION_NOT_FOUND);
        }
    }
    cession_stored_release(&current);
    return NULL;
}

static void run_contest(bool remover)
{
    for (int round = 0; round < 60; round++) {
        size_t v = (size_t)round % VERSIONS;
        contest c = {.dir = left_by(v), .remover = remover};
        pthread_t threads[THREADS];
        pthread_barrier_init(&c.start, NULL, THREADS);
        cession_stored_init(&c.first);
        for (int i = 0; i < THREADS; i++) {
            c.stores[i] = files_open(c.dir, NULL);
            CHECK_OK(load(c.stores[i], "session:live", &c.first));
        }
        for (int i = 0; i < THREADS; i++) {
            REQUIRE(pthread_create(&threads[i], NULL, take_over, &c) == 0);
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        CHECK(!files_exists(old_path(c.dir, v, "session:live")));
        if (remover) {
            CHECK(c.wins <= 1);
            CHECK_STR(files_load(c.stores[1], "session:live"), "-");
        } else {
            CHECK_INT(c.wins, 1);
            CHECK_INT(c.others, THREADS / 2 - 1);
            CHECK_INT(c.missed, 0);
        }
        for (int i = 0; i < THREADS; i++) {
            cession_store_close(c.stores[i]);
        }
        pthread_barrier_destroy(&c.start);
        cession_stored_release(&c.first);
    }
}

static void test_one_takes_it_over(void)
{
    run_contest(false);
}

static void test_logout_while_it_is_taken_over(void)
{
    run_contest(true);
}

static void test_failing_allocations(void)
{
    const char *dir = left_by(1);
    const char *old = files_fresh();
    files_copy(old_path(dir, 1, "session:live"), old);
    cession_stored want;
    cession_stored_init(&want);
    cession_store *reader = files_open(dir, NULL);
    CHECK_OK(load(reader, "session:live", &want));
    for (int op = 0; op < 4; op++) {
        FAILING_ALLOC_LOOP(n)
        {
            cession_store *store = NULL;
            cession_option options[] = {{"path", dir}};
            cession_stored stored;
            cession_stored_init(&stored);
            cession_expected e = {.value = cession_buf_span(&want.value)};
            int rc = cession_store_open("filesystem", options, 1, &store, NULL);
            if (rc == CESSION_OK) {
                cession_span key = SPAN("session:live");
                rc = op == 0   ? cession_store_load(store, key, 0, &stored, NULL)
                     : op == 1 ? cession_store_touch(store, key, &e, HOUR, 0, NULL)
                     : op == 2 ? cession_store_replace(store, key, &e, SPAN("new"), HOUR, 0,
                                                       &stored, NULL)
                               : cession_store_remove(store, key, 0, NULL);
                cession_store_close(store);
            }
            CHECK_STATUS(rc, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
            if (rc != CESSION_OK) {
                CHECK(files_exists(old_path(dir, 1, "session:live")));
            }
            cession_stored_release(&stored);
        }
        CHECK_OK(files_remove(reader, "session:live"));
        files_copy(old, old_path(dir, 1, "session:live"));
    }
    cession_store_close(reader);
    cession_stored_release(&want);
}

static const harness_test tests[] = {
    HARNESS_TEST(reads_every_version),
    HARNESS_TEST(first_change_takes_over),
    HARNESS_TEST(compare_and_set),
    HARNESS_TEST(crash_does_not_bring_it_back),
    HARNESS_TEST(upgraded_cachelib),
    HARNESS_TEST(files_that_appear_later),
    HARNESS_TEST(other_files_are_left_alone),
    HARNESS_TEST(sweep_of_old_files),
    HARNESS_TEST(hostile_old_files),
    HARNESS_TEST(one_takes_it_over),
    HARNESS_TEST(logout_while_it_is_taken_over),
    HARNESS_TEST(failing_allocations),
};
HARNESS_MAIN(tests)
