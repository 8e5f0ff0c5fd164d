/* The file store: its format, what it refuses, what it survives, maintenance. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "contract.h"
#include "drivers/filesystem.h"
#include "failing_alloc.h"
#include "files_world.h"
#include "guard.h"
#include "harness.h"
#include "scratch.h"

#define NOBODY 65534u

static void sleep_ms(int64_t ms)
{
    ces_sleep_ns(ms * 1000000);
}

/* ---- the contract -------------------------------------------------------------------- */

/* On a disk, if the scratch directory is. */
static cession_store *make_store(void *context)
{
    static unsigned number;
    return files_open(scratch_path(files_text("contract-%u", number++)), context, NULL);
}

static void test_contract(void)
{
    contract_run(&(contract_subject){.make = make_store, .tick_ms = 1});
}

static void test_contract_sync(void)
{
    static char sync[] = "sync=data";
    contract_run(
        &(contract_subject){.make = make_store, .context = sync, .tick_ms = 1, .changes = 10});
}

static void check_says(const cession_error *err, const char *says)
{
    if (strstr(err->text, says) == NULL) {
        CHECK_STR(err->text, says);
    }
}

/* ---- opening ---------------------------------------------------------------------------- */

static void check_refused(const cession_option *options, size_t count, const char *says)
{
    cession_store *store = NULL;
    cession_error err = CESSION_ERROR_INIT;
    CHECK_STATUS(cession_store_open("filesystem", options, count, &store, &err), CESSION_E_INVALID);
    check_says(&err, says);
    CHECK(store == NULL);
}

static void test_options(void)
{
    static const struct {
        const char *name, *value, *says;
    } bad[] = {
        {"threshold", "", "threshold"},
        {"threshold", "-1", "threshold"},
        {"threshold", "1e3", "threshold"},
        {"threshold", "99999999999", "threshold"},
        {"threshold", " 5", "threshold"},
        {"mode", "0400", "0600"},
        {"mode", "600x", "0600"},
        {"mode", "01600", "0600"},
        {"mode", "-0600", "0600"},
        {"mode", "", "0600"},
        {"sync", "full", "none"},
        {"sync", "", "none"},
        {"fsync", "data", "path, threshold, mode, sync"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cession_option options[] = {{"path", "/nonexistent"}, {bad[i].name, bad[i].value}};
        check_refused(options, 2, bad[i].says);
    }
    check_refused(NULL, 0, "path");
    check_refused(&(cession_option){"path", ""}, 1, "path");

    char *longest = malloc(5000);
    memset(longest, 'x', 4999);
    longest[4999] = '\0';
    cession_store *store = NULL;
    CHECK_STATUS(
        cession_store_open("filesystem", &(cession_option){"path", longest}, 1, &store, NULL),
        CESSION_E_LIMIT);
    free(longest);

    /* By URL; opening touches no disk. */
    const char *dir = files_fresh();
    CHECK_OK(cession_store_open_url(
        files_text("filesystem://%s/?threshold=7&mode=0640&sync=data", dir), &store, NULL));
    CHECK(!files_exists(dir));
    CHECK_INT(store->caps, CESSION_CAP_GIVES_EXPIRY | CESSION_CAP_ATOMIC | CESSION_CAP_LISTABLE |
                               CESSION_CAP_MAINTAIN);
    CHECK_OK(files_create(store, "k", "v"));
    CHECK(files_exists(files_path_of(dir, SPAN("k"))));
    cession_store_close(store);
}

static void test_relative_path(void)
{
    char here[PATH_MAX];
    const char *dir = files_fresh();
    REQUIRE(getcwd(here, sizeof here) != NULL);
    REQUIRE(mkdir(dir, 0700) == 0 && chdir(dir) == 0);
    cession_store *store = files_open("a/b/", NULL);
    REQUIRE(chdir(here) == 0);
    CHECK_OK(files_create(store, "k", "v"));
    CHECK(files_exists(files_path_of(files_text("%s/a/b", dir), SPAN("k"))));
    cession_store_close(store);
}

/* ---- the format --------------------------------------------------------------------------- */

/* Made by another implementation of XXH64 (python-xxhash). */
static const uint8_t golden[] =
    "\x43\x45\x53\x53\x49\x4f\x4e\x1a\x01\x00\x00\x00\x0e\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00"
    "\x00\x1e\x27\xa6\x71\xa0\xfe\x10\x57\x00\xd8\xc3\x2c\xbb\x03\x00\x00\x01\x5f\x0f\x63\xc1\x95"
    "\xe2\x19\x73\x65\x73\x73\x69\x6f\x6e\x3a\x67\x6f\x6c\x64\x65\x6e\x81\xa5\x63\x6f\x75\x6e\x74"
    "\x03";
#define GOLDEN_LEN (sizeof golden - 1)
#define GOLDEN_KEY SPAN("session:golden")
#define GOLDEN_VALUE SPAN("\x81\xa5\x63\x6f\x75\x6e\x74\x03")
#define GOLDEN_EXPIRES INT64_C(4102444800000)
#define GOLDEN_NAME "8218e4462084a7a64a8c72a8cac882dc343336b31a566dca549662878580a986"

static void test_xxh64(void)
{
    static const struct {
        size_t len;
        uint64_t seed, hash;
    } vectors[] = {
        {0, 0, 0xef46db3751d8e999},  {1, 0, 0x8a4127811b21e730},
        {3, 0, 0xb6e6c910c2fd373a},  {4, 1, 0xe5adca577536f94f},
        {8, 2, 0xa5a86675c62a9da2},  {14, 0, 0xff34ee32a5c9ecfe},
        {31, 5, 0x769ab71c82a35c0d}, {32, 0, 0x5a0756fbe9ecd3d1},
        {33, 7, 0x26431342e7665c22}, {100, 2654435761, 0xbccf07579af475cd},
    };
    uint8_t data[100];
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 7 + 1);
    }
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        CHECK_MSG(ces_file_xxh64(cession_span_of(data, vectors[i].len), vectors[i].seed) ==
                      vectors[i].hash,
                  "%zu bytes", vectors[i].len);
    }
}

static void test_golden_record(void)
{
    uint8_t head[CES_FILE_HEAD_LEN];
    ces_file_head_write(head, GOLDEN_KEY, GOLDEN_VALUE, GOLDEN_EXPIRES);
    CHECK_SPAN(cession_span_of(head, sizeof head), cession_span_of(golden, sizeof head));

    const char *dir = files_fresh();
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "session:golden", "replaced below"));
    const char *path = files_path_of(dir, GOLDEN_KEY);
    CHECK(strcmp(strrchr(path, '/') + 1, GOLDEN_NAME) == 0);
    files_write(path, golden, GOLDEN_LEN);
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_OK(cession_store_load(store, GOLDEN_KEY, 0, &stored, NULL));
    CHECK_SPAN(cession_buf_span(&stored.value), GOLDEN_VALUE);
    CHECK(stored.expires_at_ms == GOLDEN_EXPIRES);
    CHECK_INT(stored.version_len, 0);
    cession_stored_release(&stored);
    cession_store_close(store);
}

static void check_prefix(const uint8_t *data, size_t len, size_t full, void *context)
{
    (void)context;
    ces_file_head parsed = {.key_len = 77};
    int rc = ces_file_head_parse(data, len, full, &parsed);
    CHECK_STATUS(rc, len >= CES_FILE_HEAD_LEN ? CESSION_OK : CESSION_E_FORMAT);
    CHECK_INT(parsed.key_len, rc == CESSION_OK ? 14 : 77);
    /* A file of another length than its head says. */
    CHECK_STATUS(ces_file_head_parse(data, len, full + 1, &parsed), CESSION_E_FORMAT);
    CHECK_STATUS(ces_file_head_parse(data, len, full - 1, &parsed), CESSION_E_FORMAT);
}

static void test_head_against_guard_page(void)
{
    guard_truncations(golden, GOLDEN_LEN, check_prefix, NULL);
    uint8_t newer[CES_FILE_HEAD_LEN];
    ces_file_head parsed;
    memcpy(newer, golden, sizeof newer);
    newer[8] = 2;
    CHECK_STATUS(ces_file_head_parse(newer, sizeof newer, GOLDEN_LEN, &parsed), CESSION_E_NEWER);
    newer[8] = 0;
    CHECK_STATUS(ces_file_head_parse(newer, sizeof newer, GOLDEN_LEN, &parsed), CESSION_E_FORMAT);
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    return CHECK(lstat(path, &st) == 0) ? st.st_mode & 07777 : 0;
}

static void test_layout(void)
{
    const char *dir = files_text("%s/deep/er", files_fresh());
    mode_t umask_before = umask(0);
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "v"));
    CHECK_OK(files_replace(store, "k", "v", "w"));
    umask(umask_before);
    const char *path = files_path_of(dir, SPAN("k"));
    CHECK_INT(mode_of(path), 0600);
    CHECK_INT(mode_of(dir), 0700);
    CHECK_INT(mode_of(files_text("%s/..", dir)), 0700);
    CHECK_INT(mode_of(files_text("%s/cession", dir)), 0700);
    CHECK_INT(mode_of(files_text("%s/cession/lock", dir)), 0600);
    char shard[PATH_MAX];
    snprintf(shard, sizeof shard, "%.*s", (int)(strrchr(path, '/') - path), path);
    CHECK_INT(mode_of(shard), 0700);
    /* The session, the lock file, and nothing else. */
    CHECK_INT(files_count(dir, ""), 2);
    uint8_t data[100];
    CHECK_INT(files_read(path, data, sizeof data), CES_FILE_HEAD_LEN + 2);
    cession_store_close(store);

    /* The mode asked for, whatever the umask. */
    umask_before = umask(0077);
    store = files_open(dir, "mode=0640", NULL);
    CHECK_OK(files_replace(store, "k", "w", "x"));
    CHECK_INT(mode_of(files_path_of(dir, SPAN("k"))), 0640);
    umask(umask_before);
    cession_store_close(store);
}

/* ---- damage --------------------------------------------------------------------------------- */

/* No session, to every operation; a new one can be made. */
static void check_no_session(cession_store *store, const char *key, const char *value,
                             const char *what, size_t number)
{
    CHECK_MSG(strcmp(files_load(store, key), "-") == 0, "%s %zu: load", what, number);
    CHECK_MSG(files_replace(store, key, value, "new") == CESSION_GONE, "%s %zu", what, number);
    CHECK_MSG(files_touch(store, key, value, HOUR) == CESSION_GONE, "%s %zu", what, number);
}

static int count_record(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    (void)key;
    (void)value;
    (void)expires_at_ms;
    ++*(unsigned *)context;
    return CESSION_OK;
}

static unsigned scanned(cession_store *store)
{
    unsigned count = 0;
    cession_buf cursor;
    cession_buf_init(&cursor, 100);
    do {
        CHECK_OK(cession_store_scan(store, &cursor, 100, cession_deadline_in(20000), count_record,
                                    &count, NULL));
    } while (cursor.len != 0);
    cession_buf_release(&cursor);
    return count;
}

static void test_damaged_files(void)
{
    const char *dir = files_dir("damaged");
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "the value"));
    const char *path = files_path_of(dir, SPAN("k"));
    uint8_t whole[200], data[200];
    ssize_t len = files_read(path, whole, sizeof whole);
    REQUIRE(len == CES_FILE_HEAD_LEN + 1 + 9);
    for (size_t bit = 0; bit < 8 * (size_t)len; bit++) {
        memcpy(data, whole, sizeof data);
        data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        files_write(path, data, (size_t)len);
        check_no_session(store, "k", "the value", "bit", bit);
        CHECK_INT(scanned(store), 0);
    }
    for (size_t cut = 0; cut < (size_t)len; cut++) {
        files_write(path, whole, cut);
        check_no_session(store, "k", "the value", "cut at", cut);
    }
    memcpy(data, whole, sizeof data);
    data[len] = 0;
    files_write(path, data, (size_t)len + 1);
    check_no_session(store, "k", "the value", "longer", 0);
    memset(data, 0, sizeof data);
    files_write(path, data, (size_t)len);
    check_no_session(store, "k", "the value", "zeros", 0);

    /* A damaged file is in nobody's way. */
    CHECK_OK(files_create(store, "k", "anew"));
    CHECK_STR(files_load(store, "k"), "anew");
    files_write(path, whole, (size_t)len - 1);
    CHECK_OK(files_remove(store, "k"));
    CHECK(!files_exists(path));

    /* The file of another key, under this key's name; and one touched elsewhere. */
    CHECK_OK(files_create(store, "other", "x"));
    files_copy(files_path_of(dir, SPAN("other")), path);
    check_no_session(store, "k", "x", "other key", 0);
    CHECK_INT(scanned(store), 1);
    cession_store_close(store);
}

static void test_expiry_slot_belongs_to_its_file(void)
{
    const char *dir = files_fresh();
    cession_store *store = files_open(dir, NULL);
    uint8_t a[100], b[100];
    CHECK_OK(files_create(store, "k", "a"));
    const char *path = files_path_of(dir, SPAN("k"));
    ssize_t len = files_read(path, a, sizeof a);
    CHECK_OK(files_replace(store, "k", "a", "b"));
    CHECK_INT(files_read(path, b, sizeof b), len);
    memcpy(b + CES_FILE_EXPIRY_AT, a + CES_FILE_EXPIRY_AT, CES_FILE_EXPIRY_LEN);
    files_write(path, b, (size_t)len);
    check_no_session(store, "k", "b", "slot of the last value", 0);

    /* Alone, a touch changes the slot and nothing else. */
    files_write(path, a, (size_t)len);
    CHECK_OK(files_touch(store, "k", "a", 9 * HOUR));
    CHECK_INT(files_read(path, b, sizeof b), len);
    CHECK(memcmp(a, b, CES_FILE_EXPIRY_AT) == 0);
    CHECK(memcmp(a + CES_FILE_EXPIRY_AT, b + CES_FILE_EXPIRY_AT, CES_FILE_EXPIRY_LEN) != 0);
    CHECK(memcmp(a + CES_FILE_HEAD_LEN, b + CES_FILE_HEAD_LEN, (size_t)len - CES_FILE_HEAD_LEN) ==
          0);
    cession_store_close(store);
}

/* ---- a hostile directory ----------------------------------------------------------------------
 */

typedef struct trap {
    const char *dir, *path, *outside;
    cession_store *store;
} trap;

static uint8_t outside_data[100];
static ssize_t outside_len;

/* A session, and a valid file of it outside of the store. */
static void set_trap(trap *t, const char *name)
{
    t->dir = files_dir(name);
    t->outside = files_dir(files_text("%s-outside", name));
    t->store = files_open(t->dir, NULL);
    CHECK_OK(files_create(t->store, "k", "v"));
    t->path = files_path_of(t->dir, SPAN("k"));
    files_copy(t->path, t->outside);
    outside_len = files_read(t->outside, outside_data, sizeof outside_data);
    CHECK(outside_len > 0);
    CHECK(unlink(t->path) == 0);
}

/* The trap lies at the session's name. */
static void check_trap(trap *t, const char *what)
{
    struct stat before, after;
    CHECK(stat(t->outside, &before) == 0);
    check_no_session(t->store, "k", "v", what, 0);
    CHECK_INT(scanned(t->store), 0);
    size_t purged;
    CHECK_OK(cession_store_purge(t->store, 10, 0, &purged, NULL));
    CHECK_INT(purged, 0);
    CHECK(files_exists(t->path));
    CHECK_OK(files_create(t->store, "k", "new"));
    CHECK_STR(files_load(t->store, "k"), "new");
    CHECK_OK(files_remove(t->store, "k"));
    CHECK(!files_exists(t->path));

    uint8_t data[100];
    CHECK(stat(t->outside, &after) == 0);
    CHECK_INT(files_read(t->outside, data, sizeof data), outside_len);
    CHECK(memcmp(data, outside_data, (size_t)outside_len) == 0);
    CHECK(before.st_mode == after.st_mode && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
    cession_store_close(t->store);
}

static void test_symbolic_link(void)
{
    trap t;
    set_trap(&t, "symlink");
    CHECK(symlink(t.outside, t.path) == 0);
    check_trap(&t, "symbolic link");
    set_trap(&t, "dangling");
    CHECK(symlink("/nonexistent/at/all", t.path) == 0);
    check_trap(&t, "dangling link");
}

static void test_hard_link(void)
{
    trap t;
    set_trap(&t, "hardlink");
    CHECK(link(t.outside, t.path) == 0);
    check_trap(&t, "hard link");
}

static void test_pipe(void)
{
    trap t;
    set_trap(&t, "pipe");
    CHECK(mkfifo(t.path, 0600) == 0);
    alarm(60); /* waiting for the other end would be for ever */
    check_trap(&t, "pipe");
    alarm(0);
}

static void test_socket(void)
{
    trap t;
    set_trap(&t, "socket");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    /* Bound under a short name: the path may be longer than an address. */
    char here[PATH_MAX], shard[PATH_MAX];
    snprintf(shard, sizeof shard, "%.*s", (int)(strrchr(t.path, '/') - t.path), t.path);
    REQUIRE(getcwd(here, sizeof here) != NULL && chdir(shard) == 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", strrchr(t.path, '/') + 1);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    REQUIRE(chdir(here) == 0);
    check_trap(&t, "socket");
    close(fd);
}

static void test_unreadable_file(void)
{
    if (geteuid() == 0) {
        return; /* root reads everything: this runs in the unprivileged child */
    }
    trap t;
    set_trap(&t, "unreadable");
    files_copy(t.outside, t.path);
    CHECK(chmod(t.path, 0000) == 0);
    check_trap(&t, "unreadable file");
}

static void test_directory_at_the_name(void)
{
    trap t;
    set_trap(&t, "directory");
    CHECK(mkdir(t.path, 0700) == 0);
    check_no_session(t.store, "k", "v", "directory", 0);
    cession_error err = CESSION_ERROR_INIT;
    CHECK_STATUS(cession_store_create(t.store, SPAN("k"), SPAN("v"), HOUR, 0, &err),
                 CESSION_E_FOREIGN);
    check_says(&err, "remove it");
    CHECK_STATUS(files_remove(t.store, "k"), CESSION_E_FOREIGN);
    CHECK_INT(files_count(t.dir, "tmp-"), 0);
    CHECK(rmdir(t.path) == 0);
    CHECK_OK(files_create(t.store, "k", "v"));
    cession_store_close(t.store);
}

/* Something else where a directory of ours should be: reading finds no session,
 * writing says what is wrong and writes nowhere. */
static void check_foreign_part(const char *name, const char *part, bool make_link)
{
    trap t;
    set_trap(&t, name);
    const char *elsewhere = files_dir(files_text("%s-elsewhere", name));
    char at[PATH_MAX];
    CHECK(mkdir(elsewhere, 0700) == 0);
    files_copy(t.outside, files_text("%s/%s", elsewhere, strrchr(t.path, '/') + 1));
    snprintf(at, sizeof at, "%s", t.path);
    *strrchr(at, '/') = '\0'; /* the shard */
    if (strcmp(part, "cession") == 0) {
        *strrchr(at, '/') = '\0';
    }
    files_remove_tree(at);
    if (make_link) {
        CHECK(symlink(elsewhere, at) == 0);
    } else {
        files_write(at, "x", 1);
    }
    cession_error err = CESSION_ERROR_INIT;
    CHECK_STATUS(cession_store_create(t.store, SPAN("k"), SPAN("new"), HOUR, 0, &err),
                 CESSION_E_FOREIGN);
    check_says(&err, "remove it");
    CHECK_STR(files_load(t.store, "k"), strcmp(part, "cession") == 0 ? "!CESSION_E_FOREIGN" : "-");
    CHECK_INT(files_count(elsewhere, ""), 1);
    uint8_t data[100];
    CHECK_INT(
        files_read(files_text("%s/%s", elsewhere, strrchr(t.path, '/') + 1), data, sizeof data),
        outside_len);
    CHECK(memcmp(data, outside_data, (size_t)outside_len) == 0);
    CHECK(unlink(at) == 0);
    CHECK_OK(files_create(t.store, "k", "new"));
    CHECK_STR(files_load(t.store, "k"), "new");
    cession_store_close(t.store);
}

static void test_foreign_parts(void)
{
    check_foreign_part("linked-shard", "shard", true);
    check_foreign_part("file-shard", "shard", false);
    check_foreign_part("linked-part", "cession", true);
    check_foreign_part("file-part", "cession", false);
}

static void test_foreign_lock_file(void)
{
    const char *dir = files_dir("locked");
    const char *outside = files_dir("locked-outside");
    const char *lock = files_text("%s/cession/lock", dir);
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "v"));
    files_write(outside, "", 0);
    CHECK(unlink(lock) == 0 && link(outside, lock) == 0);
    cession_error err = CESSION_ERROR_INIT;
    cession_expected e = {.value = SPAN("v")};
    CHECK_STATUS(cession_store_touch(store, SPAN("k"), &e, HOUR, 0, &err), CESSION_E_FOREIGN);
    check_says(&err, "remove it");
    CHECK(unlink(lock) == 0 && symlink(outside, lock) == 0);
    CHECK(files_touch(store, "k", "v", HOUR) < 0);
    CHECK(unlink(lock) == 0 && mkfifo(lock, 0600) == 0);
    CHECK(files_touch(store, "k", "v", HOUR) < 0);
    CHECK_STR(files_load(store, "k"), "v"); /* reading needs no lock */
    CHECK(unlink(lock) == 0);
    CHECK_OK(files_touch(store, "k", "v", HOUR));
    cession_store_close(store);
}

static void check_directory_refused(cession_store *store, int code, const char *says)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_STATUS(cession_store_create(store, SPAN("new"), SPAN("v"), HOUR, 0, &err), code);
    check_says(&err, says);
    err = (cession_error)CESSION_ERROR_INIT;
    CHECK_STATUS(cession_store_load(store, SPAN("new"), 0, &stored, &err), code);
    check_says(&err, says);
    cession_stored_release(&stored);
}

static void test_unsafe_directory(void)
{
    const char *dir = files_dir("unsafe");
    CHECK(mkdir(dir, 0755) == 0);
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "v")); /* readable by others: as cachelib made it */
    static const mode_t bad[] = {0775, 0757, 0777, 01777};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(chmod(dir, bad[i]) == 0);
        check_directory_refused(store, CESSION_E_PERMISSION, "chmod go-w");
        cession_store *late = files_open(dir, NULL);
        check_directory_refused(late, CESSION_E_PERMISSION, "chmod go-w");
        cession_store_close(late);
    }
    CHECK(chmod(dir, 0700) == 0);
    CHECK(chmod(files_text("%s/cession", dir), 0770) == 0);
    cession_store *late = files_open(dir, NULL);
    check_directory_refused(late, CESSION_E_PERMISSION, "chmod go-w");
    CHECK(chmod(files_text("%s/cession", dir), 0700) == 0);
    CHECK_STR(files_load(late, "k"), "v");
    cession_store_close(late);
    cession_store_close(store);

    const char *file = files_dir("unsafe-file");
    files_write(file, "x", 1);
    store = files_open(file, NULL);
    check_directory_refused(store, CESSION_E_FOREIGN, "not a directory");
    cession_store_close(store);

    /* A link of our own is an administrator's choice. */
    const char *link_path = files_dir("unsafe-link");
    CHECK(symlink(dir, link_path) == 0);
    store = files_open(link_path, NULL);
    CHECK_STR(files_load(store, "k"), "v");
    CHECK_OK(files_replace(store, "k", "v", "w"));
    cession_store_close(store);
}

static void test_unreadable_directory(void)
{
    if (geteuid() == 0) {
        return; /* as above */
    }
    const char *dir = files_dir("unreadable-dir");
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "v"));
    char shard[PATH_MAX];
    const char *path = files_path_of(dir, SPAN("k"));
    snprintf(shard, sizeof shard, "%.*s", (int)(strrchr(path, '/') - path), path);
    CHECK(chmod(shard, 0000) == 0);
    CHECK_STR(files_load(store, "k"), "!CESSION_E_PERMISSION");
    CHECK_STATUS(files_replace(store, "k", "v", "w"), CESSION_E_PERMISSION);
    CHECK(chmod(shard, 0500) == 0);
    CHECK_STR(files_load(store, "k"), "v");
    CHECK_STATUS(files_replace(store, "k", "v", "w"), CESSION_E_PERMISSION);
    CHECK_STATUS(files_remove(store, "k"), CESSION_E_PERMISSION);
    CHECK_STR(files_load(store, "k"), "v");
    CHECK(chmod(shard, 0700) == 0);
    CHECK(chmod(dir, 0000) == 0);
    /* It is open already; or that is looked at again. */
    int rc = files_replace(store, "k", "v", "w");
    CHECK(rc == CESSION_OK || rc == CESSION_E_PERMISSION);
    cession_store *late = files_open(dir, NULL);
    CHECK_STR(files_load(late, "k"), "!CESSION_E_PERMISSION");
    CHECK_STATUS(files_create(late, "k2", "v"), CESSION_E_PERMISSION);
    cession_store_close(late);
    CHECK(chmod(dir, 0700) == 0);
    CHECK_OK(files_replace(store, "k", rc == CESSION_OK ? "w" : "v", "x"));
    /* Nowhere to make it. */
    late = files_open("/proc/nowhere/sessions", NULL);
    CHECK(files_create(late, "k", "v") < 0);
    CHECK_STR(files_load(late, "k"), "-");
    cession_store_close(late);
    cession_store_close(store);
}

/* The same once more as a user whom the system does not let do everything. */
static const harness_test hostile_tests[] = {
    HARNESS_TEST(layout),
    HARNESS_TEST(symbolic_link),
    HARNESS_TEST(hard_link),
    HARNESS_TEST(pipe),
    HARNESS_TEST(socket),
    HARNESS_TEST(unreadable_file),
    HARNESS_TEST(directory_at_the_name),
    HARNESS_TEST(foreign_parts),
    HARNESS_TEST(foreign_lock_file),
    HARNESS_TEST(unsafe_directory),
    HARNESS_TEST(unreadable_directory),
};

static int as_nobody(void *context)
{
    static char name[] = "hostile", *argv[] = {name, NULL};
    (void)context;
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setgid(NOBODY) != 0 || setuid(NOBODY) != 0)) {
        return 9;
    }
    return harness_main(1, argv, hostile_tests, sizeof hostile_tests / sizeof hostile_tests[0]);
}

static const char *make_base(void)
{
    static char base[PATH_MAX];
    const char *tmp = getenv("TMPDIR");
    snprintf(base, sizeof base, "%s/cession-nobody-XXXXXX", tmp != NULL ? tmp : "/tmp");
    REQUIRE(mkdtemp(base) != NULL);
    if (geteuid() == 0) {
        REQUIRE(chown(base, NOBODY, NOBODY) == 0);
    }
    return base;
}

static int with_base(void *base)
{
    files_set_base(base);
    return as_nobody(NULL);
}

static void test_hostile_unprivileged(void)
{
    static char base[PATH_MAX];
    snprintf(base, sizeof base, "%s", make_base());
    CHECK_INT(child_run(with_base, base), 0);
    files_remove_tree(base);
}

/* ---- owners: the tests say who we are -------------------------------------------------------- */

static uid_t pretended = (uid_t)-1; /* -1: no pretence */
uid_t __real_geteuid(void);
uid_t __wrap_geteuid(void);
uid_t __wrap_geteuid(void)
{
    return pretended != (uid_t)-1 ? pretended : __real_geteuid();
}

static void test_foreign_owner(void)
{
    uid_t me = geteuid();
    const char *dir = files_dir("owned");
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "v"));
    CHECK_STR(files_load(store, "k"), "v");

    /* All of it belongs to somebody else. */
    pretended = me + 1;
    CHECK_STR(files_load(store, "k"), "-");
    check_directory_refused(store, CESSION_E_PERMISSION, "chown");
    cession_store *late = files_open(dir, NULL);
    check_directory_refused(late, CESSION_E_PERMISSION, "run as its owner");
    cession_store_close(late);
    pretended = me;
    const char *link_path = files_dir("owned-link");
    CHECK(symlink(dir, link_path) == 0);
    pretended = me + 1;
    late = files_open(link_path, NULL);
    cession_error err = CESSION_ERROR_INIT;
    CHECK_STATUS(cession_store_create(late, SPAN("k"), SPAN("v"), HOUR, 0, &err),
                 CESSION_E_PERMISSION);
    CHECK(me == 0 || strstr(err.text, "symbolic link of another user") != NULL);
    cession_store_close(late);
    pretended = (uid_t)-1;

    /* As root, really: single files of somebody else. */
    if (me == 0) {
        const char *path = files_path_of(dir, SPAN("k"));
        CHECK(chown(path, NOBODY, NOBODY) == 0);
        check_no_session(store, "k", "v", "foreign owner", 0);
        CHECK_OK(files_create(store, "k", "ours"));
        CHECK_STR(files_load(store, "k"), "ours");
        CHECK(lchown(link_path, NOBODY, NOBODY) == 0);
        late = files_open(link_path, NULL);
        check_directory_refused(late, CESSION_E_PERMISSION, "symbolic link of another user");
        cession_store_close(late);
        CHECK(chown(files_text("%s/cession/lock", dir), NOBODY, NOBODY) == 0);
        CHECK_STATUS(files_replace(store, "k", "ours", "x"), CESSION_E_FOREIGN);
    }
    cession_store_close(store);
}

/* ---- a directory that goes away -----------------------------------------------------------------
 */

static void test_deleted_directory(void)
{
    const char *dir = files_dir("deleted");
    cession_store *store = files_open(dir, NULL);
    cession_store *other = files_open(dir, NULL);
    CHECK_STR(files_load(store, "k"), "-");
    CHECK_OK(files_remove(store, "k"));
    CHECK(!files_exists(dir)); /* neither makes it */
    CHECK_OK(files_create(store, "k", "v"));
    CHECK_STR(files_load(other, "k"), "v");
    files_remove_tree(dir);
    CHECK_STR(files_load(store, "k"), "-");
    CHECK_STATUS(files_replace(store, "k", "v", "w"), CESSION_GONE);
    CHECK_STATUS(files_touch(store, "k", "v", HOUR), CESSION_GONE);
    CHECK_OK(files_remove(store, "k"));
    size_t count;
    CHECK_OK(cession_store_purge(store, 10, 0, &count, NULL));
    CHECK_INT(count, 0);
    CHECK_OK(cession_store_maintain(store, cession_deadline_in(1000), NULL));
    CHECK_INT(scanned(store), 0);
    CHECK(!files_exists(dir));
    CHECK_OK(files_create(store, "k", "again"));
    /* The other one still has the directory that is gone. */
    CHECK_STR(files_load(other, "k"), "again");
    files_remove_tree(dir);
    CHECK_OK(files_create(other, "k", "third"));
    CHECK_OK(files_replace(store, "k", "third", "fourth"));
    CHECK_STR(files_load(other, "k"), "fourth");

    /* Moved away, and parts of it. */
    CHECK(rename(dir, files_text("%s-moved", dir)) == 0);
    CHECK_STATUS(files_replace(store, "k", "fourth", "x"), CESSION_GONE);
    CHECK_OK(files_create(other, "k", "new"));
    CHECK_STR(files_load(store, "k"), "new");
    CHECK(rename(files_text("%s/cession", dir), files_text("%s/cession-moved", dir)) == 0);
    CHECK_OK(files_create(other, "k", "newer"));
    CHECK_OK(files_replace(store, "k", "newer", "newest"));
    CHECK_STR(files_load(other, "k"), "newest");
    CHECK(unlink(files_text("%s/cession/lock", dir)) == 0);
    CHECK_OK(files_replace(store, "k", "newest", "x"));
    CHECK_OK(files_replace(other, "k", "x", "y"));
    files_remove_tree(files_text("%s/cession", dir));
    CHECK_STR(files_load(store, "k"), "-");
    CHECK_OK(files_create(store, "k", "v"));
    CHECK_STR(files_load(other, "k"), "v");
    cession_store_close(store);
    cession_store_close(other);
}

static void set_time(const char *path)
{
    const struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
}

/* Another directory under the same name, and not even its time tells. */
static void test_exchanged_directory(void)
{
    const char *dir = files_dir("exchanged");
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "v"));
    set_time(dir);
    CHECK_STR(files_load(store, "missing"), "-");
    CHECK(rename(dir, files_text("%s-old", dir)) == 0);
    cession_store *other = files_open(dir, NULL);
    CHECK_OK(files_create(other, "missing", "x"));
    set_time(dir);
    CHECK_STR(files_load(store, "missing"), "x");
    CHECK_OK(files_replace(store, "missing", "x", "y"));
    CHECK_STATUS(files_touch(store, "k", "v", HOUR), CESSION_GONE);
    cession_store_close(store);
    cession_store_close(other);
}

/* Programs that become daemons close every descriptor; the number may then mean
 * another directory. */
static int after_close_all(void *context)
{
    cession_store *store = context;
    for (int fd = 3; fd < 64; fd++) {
        close(fd);
    }
    const char *elsewhere = files_dir("descriptors-elsewhere");
    mkdir(elsewhere, 0700);
    for (int i = 0; i < 20; i++) {
        if (open(elsewhere, O_RDONLY | O_DIRECTORY) < 0) {
            return 2;
        }
    }
    bool ok = files_create(store, "new", "v") == CESSION_OK &&
              strcmp(files_load(store, "new"), "v") == 0 &&
              strcmp(files_load(store, "k"), "v") == 0 && files_count(elsewhere, "") == 0;
    cession_store_close(store);
    return ok && rmdir(elsewhere) == 0 ? 0 : 1;
}

static void test_descriptor_closed_behind_our_back(void)
{
    cession_store *store = files_open(files_dir("descriptors"), NULL);
    CHECK_OK(files_create(store, "k", "v"));
    CHECK_INT(child_run(after_close_all, store), 0);
    CHECK_STR(files_load(store, "new"), "v");
    cession_store_close(store);
}

/* ---- system calls that fail
 * ------------------------------------------------------------------------ */

/* Every call that the store makes while armed is counted; call number fail_at
 * fails with fail_with (0: writes less than asked for). */
static bool armed;
static unsigned calls, fail_at = UINT_MAX;
static int fail_with;
static const char *fail_only; /* NULL: any call */
static bool failed_call;

/* Called once, just before the next call of that name: what another process does
 * in between. */
static void (*meanwhile)(void);
static const char *meanwhile_at;

static bool must_fail(const char *name)
{
    size_t len = meanwhile != NULL ? strlen(meanwhile_at) : 0;
    if (meanwhile != NULL && strncmp(meanwhile_at, name, len) == 0 &&
        (name[len] == '\0' || strcmp(name + len, "64") == 0)) {
        void (*act)(void) = meanwhile;
        meanwhile = NULL;
        act();
    }
    /* "pread" means pread64, too. */
    if (!armed || (fail_only != NULL && strncmp(fail_only, name, strlen(fail_only)) != 0)) {
        return false;
    }
    if (calls++ != fail_at) {
        return false;
    }
    failed_call = true;
    errno = fail_with;
    return true;
}

static void arm(const char *only, unsigned at, int error)
{
    fail_only = only;
    fail_at = at;
    fail_with = error;
    calls = 0;
    failed_call = false;
    armed = true;
}

/* Where off_t is given 64 bits by the compiler's options, the C library's names
 * end in 64. Both are wrapped; one of them is used. */
#define WRAP(type, name, parameters, arguments) \
    type __real_##name parameters;              \
    type __wrap_##name parameters;              \
    type __wrap_##name parameters               \
    {                                           \
        if (must_fail(#name)) {                 \
            return -1;                          \
        }                                       \
        return __real_##name arguments;         \
    }
#define WRAP_64(type, name, parameters, arguments) \
    WRAP(type, name, parameters, arguments)        \
    WRAP(type, name##64, parameters, arguments)

WRAP(int, renameat, (int from_fd, const char *from, int to_fd, const char *to),
     (from_fd, from, to_fd, to))
WRAP(int, unlinkat, (int fd, const char *name, int flags), (fd, name, flags))
WRAP(int, mkdirat, (int fd, const char *name, mode_t mode), (fd, name, mode))
WRAP(int, mkdir, (const char *name, mode_t mode), (name, mode))
WRAP(int, fdatasync, (int fd), (fd))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(ssize_t, getdents64, (int fd, void *data, size_t len), (fd, data, len))
WRAP_64(int, fstat, (int fd, struct stat *st), (fd, st))
WRAP_64(int, stat, (const char *path, struct stat *st), (path, st))
WRAP_64(int, lstat, (const char *path, struct stat *st), (path, st))
WRAP_64(int, fstatat, (int fd, const char *name, struct stat *st, int flags), (fd, name, st, flags))
WRAP_64(ssize_t, pread, (int fd, void *data, size_t len, off_t at), (fd, data, len, at))
WRAP_64(off_t, lseek, (int fd, off_t at, int from), (fd, at, from))
WRAP_64(int, openat, (int fd, const char *name, int flags, mode_t mode), (fd, name, flags, mode))
WRAP_64(int, open, (const char *name, int flags, mode_t mode), (name, flags, mode))

struct iovec;
/* With fail_with 0 a short transfer, of the first part or of the first 5 bytes. */
#define WRAP_PARTIAL(name, parameters, arguments, amount, less) \
    ssize_t __real_##name parameters;                           \
    ssize_t __wrap_##name parameters;                           \
    ssize_t __wrap_##name parameters                            \
    {                                                           \
        if (must_fail(#name)) {                                 \
            if (fail_with != 0) {                               \
                return -1;                                      \
            }                                                   \
            amount = less;                                      \
        }                                                       \
        return __real_##name arguments;                         \
    }

WRAP_PARTIAL(writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), count, 1)
WRAP_PARTIAL(preadv, (int fd, const struct iovec *parts, int count, off_t at),
             (fd, parts, count, at), count, 1)
WRAP_PARTIAL(preadv64, (int fd, const struct iovec *parts, int count, off_t at),
             (fd, parts, count, at), count, 1)
WRAP_PARTIAL(pwrite, (int fd, const void *data, size_t len, off_t at), (fd, data, len, at), len, 5)
WRAP_PARTIAL(pwrite64, (int fd, const void *data, size_t len, off_t at), (fd, data, len, at), len,
             5)

/* Unlocking does not fail; close would do it anyway. */
#define WRAP_FCNTL(name)                                                                \
    int __real_##name(int fd, int command, void *argument);                             \
    int __wrap_##name(int fd, int command, void *argument);                             \
    int __wrap_##name(int fd, int command, void *argument)                              \
    {                                                                                   \
        bool unlock = command == F_OFD_SETLK &&                                         \
                      ((const struct flock *)argument)->l_type == F_UNLCK;              \
        return !unlock && must_fail(#name) ? -1 : __real_##name(fd, command, argument); \
    }
WRAP_FCNTL(fcntl)
WRAP_FCNTL(fcntl64)

static bool no_openat2;
long __real_syscall(long number, long a, long b, long c, long d);
long __wrap_syscall(long number, long a, long b, long c, long d);
long __wrap_syscall(long number, long a, long b, long c, long d)
{
    if (no_openat2) {
        errno = ENOSYS;
        return -1;
    }
    return must_fail("syscall") ? -1 : __real_syscall(number, a, b, c, d);
}

typedef enum operation { LOAD, CREATE, REPLACE, TOUCH, REMOVE, PURGE, SCAN, OPERATIONS } operation;

static int operate(cession_store *store, operation op)
{
    cession_stored stored;
    cession_stored_init(&stored);
    cession_deadline d = cession_deadline_in(20000);
    cession_expected e = {.value = SPAN("old")};
    cession_error err = CESSION_ERROR_INIT;
    size_t count;
    unsigned seen = 0;
    cession_buf cursor;
    cession_buf_init(&cursor, 100);
    int rc = CESSION_OK;
    switch (op) {
    case LOAD:
        rc = cession_store_load(store, SPAN("k"), d, &stored, &err);
        break;
    case CREATE:
        rc = cession_store_create(store, SPAN("new"), SPAN("new"), HOUR, d, &err);
        break;
    case REPLACE:
        rc = cession_store_replace(store, SPAN("k"), &e, SPAN("new"), HOUR, d, &stored, &err);
        break;
    case TOUCH:
        rc = cession_store_touch(store, SPAN("k"), &e, 2 * HOUR, d, &err);
        break;
    case REMOVE:
        rc = cession_store_remove(store, SPAN("k"), d, &err);
        break;
    case PURGE:
        rc = cession_store_purge(store, 10, d, &count, &err);
        break;
    default:
        rc = cession_store_scan(store, &cursor, 10, d, count_record, &seen, &err);
    }
    if (rc < 0) {
        CHECK_INT(err.code, rc);
        CHECK(err.text[0] != '\0');
    }
    cession_stored_release(&stored);
    cession_buf_release(&cursor);
    return rc;
}

/* After an operation that answered rc: nothing half done, no descriptor and no
 * temporary file left, no lock kept. */
static void check_after(const char *dir, cession_store *store, operation op, int rc, int error,
                        unsigned fds)
{
    const char *what = files_text("operation %d, call %u, errno %d, answer %d", op, fail_at, error,
                                  rc);
    char k[100], new_key[100];
    snprintf(k, sizeof k, "%s", files_load(store, "k"));
    snprintf(new_key, sizeof new_key, "%s", files_load(store, "new"));
    bool ok = rc == CESSION_OK;
    CHECK_MSG(rc <= 0, "%s", what);
    switch (op) {
    case CREATE:
        CHECK_MSG(strcmp(new_key, "new") == 0 || (!ok && strcmp(new_key, "-") == 0), "%s: %s", what,
                  new_key);
        CHECK_STR(k, "old");
        break;
    case REPLACE:
        CHECK_MSG(strcmp(k, "new") == 0 || (!ok && strcmp(k, "old") == 0), "%s: %s", what, k);
        break;
    case REMOVE:
        CHECK_MSG(strcmp(k, "-") == 0 || (!ok && strcmp(k, "old") == 0), "%s: %s", what, k);
        break;
    default:
        CHECK_MSG(strcmp(k, "old") == 0, "%s: %s", what, k);
    }
    CHECK_MSG(files_count(dir, "tmp-") == 0, "%s", what);
    CHECK_MSG(files_open_fds() <= fds, "%s", what);
    /* The locks are free: deadline 0 waits for nobody. */
    CHECK_MSG(cession_store_remove(store, SPAN("k"), 0, NULL) == CESSION_OK, "%s", what);
    CHECK_MSG(cession_store_remove(store, SPAN("new"), 0, NULL) == CESSION_OK, "%s", what);
}

/* The calls of an unhindered operation that are seen here, at least. */
static const unsigned calls_least[OPERATIONS] = {
    [LOAD] = 3,   [CREATE] = 11, [REPLACE] = 14, [TOUCH] = 11,
    [REMOVE] = 8, [PURGE] = 250, [SCAN] = 250,
};

static void fail_each_call(const char *dir, const char *option, operation op, int error, bool fresh)
{
    /* A purge and a scan do the same thing in each shard: not every one of them. */
    unsigned step = op == PURGE || op == SCAN ? 7 : 1;
    for (unsigned at = 0; at < 1000; at += step) {
        if (fresh && files_exists(dir)) {
            files_remove_tree(dir);
        }
        cession_store *store = files_open(dir, option, NULL);
        if (!fresh || op != CREATE) {
            CHECK_OK(files_create(store, "k", "old"));
        }
        if (fresh) {
            /* As the first operation of a process. */
            cession_store_close(store);
            store = files_open(dir, option, NULL);
        }
        unsigned fds = files_open_fds() + 1; /* the root may stay open */
        arm(NULL, at, error);
        int rc = operate(store, op);
        armed = false;
        if (fresh && op == CREATE) {
            int made = files_create(store, "k", "old");
            CHECK(made == CESSION_OK);
        }
        check_after(dir, store, op, rc, error, fds);
        cession_store_close(store);
        if (!failed_call) {
            CHECK_MSG(calls >= calls_least[op], "operation %d: %u calls", op, calls);
            return;
        }
    }
    CHECK_MSG(false, "no end of the calls");
}

static void test_failing_calls(void)
{
    static const int errors[] = {EIO, ESTALE, EMFILE, ENOSPC, EACCES, ENOMEM};
    const char *dir = files_dir("failing");
    for (int op = 0; op < OPERATIONS; op++) {
        for (size_t i = 0; i < (op < PURGE ? sizeof errors / sizeof errors[0] : 1); i++) {
            fail_each_call(dir, NULL, (operation)op, errors[i], false);
        }
        fail_each_call(dir, "sync=data", (operation)op, EIO, false);
        fail_each_call(dir, "mode=0640", (operation)op, EIO, true);
    }
}

/* The same over a session that cachelib left: whatever fails, a logout that was
 * acknowledged is one, and nothing is lost before. */
static void test_failing_calls_over_old_files(void)
{
    static const operation operations[] = {LOAD, REPLACE, TOUCH, REMOVE};
    const char *dir = files_dir("failing-old");
    for (size_t o = 0; o < 4; o++) {
        operation op = operations[o];
        for (unsigned at = 0;; at++) {
            if (files_exists(dir)) {
                files_remove_tree(dir);
            }
            CHECK(mkdir(dir, 0700) == 0);
            const char *old = files_legacy_path(dir, o % 2 ? "MD5" : "SHA256", SPAN("k"));
            files_write(old, "\0\0\0\0old", 7);
            cession_store *store = files_open(dir, NULL);
            unsigned fds = files_open_fds() + 1;
            arm(NULL, at, EIO);
            int rc = operate(store, op);
            armed = false;
            const char *is = files_load(store, "k");
            if (rc == CESSION_OK) {
                const char *wanted = op == REPLACE ? "new" : op == REMOVE ? "-" : "old";
                CHECK_MSG(strcmp(is, wanted) == 0, "operation %d, call %u: %s", op, at, is);
            } else {
                CHECK_STATUS(rc, CESSION_E_IO);
                CHECK_MSG(strcmp(is, "old") == 0 || (op == REPLACE && strcmp(is, "new") == 0) ||
                              (op == REMOVE && strcmp(is, "-") == 0),
                          "operation %d, call %u: %s", op, at, is);
            }
            CHECK(files_open_fds() <= fds);
            CHECK_OK(files_remove(store, "k"));
            CHECK_STR(files_load(store, "k"), "-");
            CHECK(!files_exists(old));
            CHECK_INT(files_count(dir, "tmp-"), 0);
            cession_store_close(store);
            if (!failed_call) {
                CHECK(at > 10);
                break;
            }
        }
    }
}

/* A file that cannot be read is told of, and keeps no other from being swept. */
static void test_sweep_past_a_bad_file(void)
{
    const char *dir = files_dir("bad-file");
    cession_store *store = files_open(dir, NULL);
    for (int i = 0; i < 20; i++) {
        CHECK_OK(cession_store_create(store, cession_span_str(files_text("k %d", i)), SPAN("v"), 1,
                                      0, NULL));
    }
    sleep_ms(5);
    cession_error err = CESSION_ERROR_INIT;
    size_t count = 77;
    arm("pread", 5, EIO);
    CHECK_STATUS(cession_store_purge(store, 100, 0, &count, &err), CESSION_E_IO);
    CHECK(failed_call);
    armed = false;
    check_says(&err, "reading");
    CHECK_INT(count, 77);
    /* All but that one; or all, if its shard was walked twice. */
    CHECK(files_count(dir, "") - 1 <= 1);
    CHECK_OK(cession_store_purge(store, 100, 0, &count, &err));
    CHECK_INT(files_count(dir, ""), 1);
    cession_store_close(store);
}

static void test_rename_fails_as_on_nfs(void)
{
    const char *dir = files_dir("nfs");
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "old"));
    static const int errors[] = {ESTALE, EIO, EBUSY, EXDEV};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        arm("renameat", 0, errors[i]);
        cession_error err = CESSION_ERROR_INIT;
        cession_stored current;
        cession_stored_init(&current);
        cession_expected e = {.value = SPAN("old")};
        CHECK_STATUS(
            cession_store_replace(store, SPAN("k"), &e, SPAN("new"), HOUR, 0, &current, &err),
            CESSION_E_IO);
        armed = false;
        check_says(&err, "renaming");
        CHECK_STR(files_load(store, "k"), "old");
        CHECK_INT(files_count(dir, "tmp-"), 0);
        cession_stored_release(&current);
    }
    cession_store_close(store);
}

static void test_short_reads_and_writes(void)
{
    const char *dir = files_dir("short");
    cession_store *store = files_open(dir, NULL);
    arm("writev", 0, 0);
    CHECK_OK(files_create(store, "k", "old"));
    CHECK(failed_call);
    arm("preadv", 0, 0);
    CHECK_STR(files_load(store, "k"), "old");
    CHECK(failed_call);
    arm("pwrite", 0, 0);
    int64_t before = cession_now_ms();
    CHECK_OK(files_touch(store, "k", "old", 5 * HOUR));
    CHECK(failed_call);
    armed = false;
    CHECK_STR(files_load(store, "k"), "old");
    CHECK(files_expiry(store, "k") >= before + 5 * HOUR);
    cession_store_close(store);
}

/* ---- what happens in between ------------------------------------------------------- */

static const char *shared_path; /* of the file that is changed behind the store's back */
static uint8_t good_file[200];
static size_t good_len;

static void put_good_file(void)
{
    const char *aside = files_text("%s-aside", shared_path);
    files_write(aside, good_file, good_len);
    CHECK(rename(aside, shared_path) == 0);
}

static void mend_expiry(void)
{
    int fd = open(shared_path, O_WRONLY);
    CHECK(pwrite(fd, good_file + CES_FILE_EXPIRY_AT, CES_FILE_EXPIRY_LEN, CES_FILE_EXPIRY_AT) ==
          CES_FILE_EXPIRY_LEN);
    close(fd);
}

static void remember_good_file(const char *dir)
{
    shared_path = files_path_of(dir, SPAN("k"));
    ssize_t len = files_read(shared_path, good_file, sizeof good_file);
    CHECK(len > 0);
    good_len = (size_t)len;
}

/* A sweep found the session expired; it is made anew before the sweep has its lock. */
static void test_renewed_before_it_is_swept(void)
{
    const char *dir = files_dir("renewed");
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "live"));
    remember_good_file(dir);
    CHECK_OK(files_remove(store, "k"));
    CHECK_OK(cession_store_create(store, SPAN("k"), SPAN("short"), 1, 0, NULL));
    sleep_ms(5);
    size_t count;
    meanwhile_at = "fcntl";
    meanwhile = put_good_file;
    CHECK_OK(cession_store_purge(store, 10, 0, &count, NULL));
    CHECK(meanwhile == NULL);
    CHECK_INT(count, 0);
    CHECK_STR(files_load(store, "k"), "live");
    cession_store_close(store);
}

/* A touch is under way: expiry and check do not fit, and a moment later do. */
static void test_reading_while_it_is_touched(void)
{
    const char *dir = files_dir("touched");
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "v"));
    remember_good_file(dir);
    uint8_t torn[200];
    memcpy(torn, good_file, sizeof torn);
    torn[CES_FILE_EXPIRY_AT] ^= 1;
    files_write(shared_path, torn, good_len);
    CHECK_STR(files_load(store, "k"), "-");
    meanwhile_at = "pread";
    meanwhile = mend_expiry;
    CHECK_STR(files_load(store, "k"), "v");
    CHECK(meanwhile == NULL);
    cession_store_close(store);
}

/* The lock file is deleted between opening and locking it: a lock on it would
 * exclude nobody who comes later. */
static void test_lock_file_deleted_meanwhile(void)
{
    const char *dir = files_dir("lock-deleted");
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "v"));
    ces_files *self = ces_files_of(store);
    ces_files_root *root;
    ces_files_lock lock;
    ces_files_name name;
    CHECK_OK(ces_files_name_of(self, SPAN("k"), &name, NULL));
    REQUIRE_OK(ces_files_root_take(self, false, &root, NULL));
    REQUIRE_OK(ces_files_lock_open(self, root, &lock, NULL));
    CHECK(unlink(files_text("%s/cession/lock", dir)) == 0);
    CHECK_STATUS(ces_files_lock_take(&lock, name.hash, 0, NULL), CESSION_GONE);
    CHECK(!lock.held);
    ces_files_lock_close(self, &lock);
    ces_files_root_drop(self, root);
    CHECK_OK(files_touch(store, "k", "v", HOUR));
    cession_store_close(store);
}

/* Linux before 5.6, or a filter of system calls. */
static void test_without_openat2(void)
{
    no_openat2 = true;
    contract_run(&(contract_subject){.make = make_store, .tick_ms = 1, .changes = 20});
    test_symbolic_link();
    check_foreign_part("old-linked-shard", "shard", true);
    no_openat2 = false;
}

static int on_full_disk(void *context)
{
    cession_store *store = context;
    char big[3000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    if (!child_limit_files(2000)) {
        return 2;
    }
    cession_error err = CESSION_ERROR_INIT;
    int rc = cession_store_create(store, SPAN("big"), cession_span_str(big), HOUR, 0, &err);
    bool ok = rc == CESSION_E_IO && strstr(err.text, "limit") != NULL &&
              files_replace(store, "k", "old", big) == CESSION_E_IO &&
              strcmp(files_load(store, "k"), "old") == 0 &&
              strcmp(files_load(store, "big"), "-") == 0 &&
              files_replace(store, "k", "old", "small") == CESSION_OK;
    return ok ? 0 : 1;
}

static void test_full_disk(void)
{
    const char *dir = files_dir("full");
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "old"));
    CHECK_INT(child_run(on_full_disk, store), 0);
    CHECK_INT(files_count(dir, "tmp-"), 0);
    CHECK_STR(files_load(store, "k"), "small");
    cession_store_close(store);
}

/* A file system of 128 kB of our own. */
static int on_small_file_system(void *context)
{
    const char *dir = context;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mkdir(dir, 0700) != 0 || mount("none", dir, "tmpfs", 0, "size=128k,mode=0700") != 0) {
        return 77;
    }
    cession_store *store = files_open(dir, NULL);
    char big[2000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    cession_error err = CESSION_ERROR_INIT;
    int made = 0, rc = CESSION_OK;
    while (made < 1000) {
        rc = cession_store_create(store, cession_span_str(files_text("k %d", made)),
                                  cession_span_str(big), HOUR, 0, &err);
        if (rc != CESSION_OK) {
            break;
        }
        made++;
    }
    CHECK_STATUS(rc, CESSION_E_IO);
    check_says(&err, "disk");
    CHECK(made > 10);
    CHECK_INT(files_count(dir, "tmp-"), 0);
    CHECK_STATUS(files_replace(store, "k 0", big, "small"), CESSION_E_IO);
    for (int i = 0; i < made; i++) {
        CHECK_STR(files_load(store, files_text("k %d", i)), big);
    }
    /* What needs no room goes on working, and makes some. */
    CHECK_OK(files_touch(store, "k 0", big, HOUR));
    CHECK_OK(files_remove(store, "k 1"));
    CHECK_OK(files_replace(store, "k 0", big, "small"));
    CHECK_INT(files_count(dir, ""), (unsigned)made);
    cession_store_close(store);
    return 0;
}

static const char *small_dir;

static void test_small_file_system(void)
{
    static char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s", small_dir);
    CHECK_INT(on_small_file_system(dir), 0);
}

static int run_on_small_file_system(void *context)
{
    static const harness_test inner[] = {HARNESS_TEST(small_file_system)};
    static char name[] = "full", *argv[] = {name, NULL};
    small_dir = context;
    return harness_main(1, argv, inner, 1);
}

/* Not in a chroot: its root is no mount, so that ours could not be kept from others. */
static int may_mount(void *context)
{
    (void)context;
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 ? 0
                                                                                               : 1;
}

static void test_full_file_system(void)
{
    if (child_run(may_mount, NULL) != 0) {
        /* test_full_disk and test_failing_calls stand in for it. */
        printf("NOT RUN: a file system of our own needs the right to mount, outside of a chroot\n");
        return;
    }
    static char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s", files_dir("small"));
    CHECK_INT(child_run(run_on_small_file_system, dir), 0);
}

static int without_descriptors(void *context)
{
    cession_store *store = context;
    struct rlimit limit = {.rlim_cur = 3, .rlim_max = 3};
    for (unsigned fd = 3; fd < 1000; fd++) {
        struct stat st;
        if (fstat((int)fd, &st) != 0) {
            limit.rlim_cur = fd;
            break;
        }
    }
    limit.rlim_max = 4096;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 2;
    }
    bool ok = strcmp(files_load(store, "k"), "!CESSION_E_IO") == 0 &&
              files_replace(store, "k", "old", "new") == CESSION_E_IO;
    limit.rlim_cur = 1024;
    setrlimit(RLIMIT_NOFILE, &limit);
    return ok && strcmp(files_load(store, "k"), "old") == 0 ? 0 : 1;
}

static void test_too_many_open_files(void)
{
    cession_store *store = files_open(files_dir("emfile"), NULL);
    CHECK_OK(files_create(store, "k", "old"));
    CHECK_INT(child_run(without_descriptors, store), 0);
    cession_store_close(store);
}

/* ---- memory that runs out
 * ----------------------------------------------------------------------------- */

static void test_failing_allocations(void)
{
    const char *dir = files_dir("memory");
    cession_store *setup = files_open(dir, NULL);
    for (int op = 0; op < OPERATIONS; op++) {
        CHECK_OK(files_create(setup, "k", "old"));
        FAILING_ALLOC_LOOP(n)
        {
            cession_store *store = NULL;
            cession_option options[] = {{"path", dir}};
            int rc = cession_store_open("filesystem", options, 1, &store, NULL);
            if (rc == CESSION_OK) {
                rc = operate(store, (operation)op);
                cession_store_close(store);
            }
            CHECK_STATUS(rc, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
        }
        CHECK_OK(files_remove(setup, "k"));
        CHECK_OK(files_remove(setup, "new"));
    }
    cession_store_close(setup);
    files_remove_tree(dir);
    /* Making the directories. */
    FAILING_ALLOC_LOOP(n)
    {
        cession_store *store = NULL;
        cession_option options[] = {{"path", dir}};
        int rc = cession_store_open("filesystem", options, 1, &store, NULL);
        if (rc == CESSION_OK) {
            rc = operate(store, CREATE);
            cession_store_close(store);
        }
        CHECK_STATUS(rc, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
    }
}

/* ---- maintenance
 * ------------------------------------------------------------------------------------------ */

static int create_for(cession_store *store, const char *key, int64_t ttl_ms)
{
    return cession_store_create(store, cession_span_str(key), SPAN("v"), ttl_ms, 0, NULL);
}

static void maintain(cession_store *store)
{
    CHECK_OK(cession_store_maintain(store, cession_deadline_in(20000), NULL));
}

static void test_threshold_is_no_reason_to_drop_a_live_session(void)
{
    const char *dir = files_dir("threshold");
    cession_store *store = files_open(dir, "threshold=10", NULL);
    CHECK(!cession_store_maintenance_due(store));
    unsigned due = 0;
    for (int i = 0; i < 1000; i++) {
        CHECK_OK(create_for(store, files_text("live %d", i), HOUR));
        if (cession_store_maintenance_due(store)) {
            due++;
            maintain(store);
        }
    }
    /* Now and then, not each time. */
    CHECK_MSG(due >= 10 && due <= 17, "%u", due);
    for (int i = 0; i < 1000; i++) {
        CHECK_STR(files_load(store, files_text("live %d", i)), "v");
    }
    cession_store_close(store);
}

static void test_sweep_keeps_up(void)
{
    const char *dir = files_dir("keeps-up");
    cession_store *store = files_open(dir, "threshold=10", NULL);
    for (int i = 0; i < 50; i++) {
        CHECK_OK(create_for(store, files_text("live %d", i), HOUR));
    }
    /* Short sessions come and go: they do not pile up. */
    for (int i = 0; i < 3000; i++) {
        CHECK_OK(create_for(store, files_text("short %d", i), 1));
        if (cession_store_maintenance_due(store)) {
            maintain(store);
        }
    }
    unsigned left = files_count(dir, "") - 1;
    CHECK_MSG(left < 500, "%u", left);
    for (int i = 0; i < 50; i++) {
        CHECK_STR(files_load(store, files_text("live %d", i)), "v");
    }
    cession_store_close(store);

    /* 0: never by itself; below the threshold: not yet. */
    store = files_open(dir, "threshold=0", NULL);
    cession_store *large = files_open(dir, "threshold=100000", NULL);
    for (int i = 0; i < 200; i++) {
        CHECK_OK(create_for(store, files_text("a %d", i), HOUR));
        CHECK(!cession_store_maintenance_due(store));
        CHECK_OK(create_for(large, files_text("b %d", i), HOUR));
        if (cession_store_maintenance_due(large)) {
            CHECK(i < 100); /* once, to see how many there are */
            maintain(large);
        }
    }
    cession_store_close(store);
    cession_store_close(large);
}

static void test_leftovers(void)
{
    const char *dir = files_dir("leftovers");
    cession_store *store = files_open(dir, NULL);
    CHECK_OK(files_create(store, "k", "v"));
    char shard[PATH_MAX];
    const char *path = files_path_of(dir, SPAN("k"));
    snprintf(shard, sizeof shard, "%.*s", (int)(strrchr(path, '/') - path), path);
    const char *old = files_text("%s/tmp-00112233445566778899aabbccddeeff", shard);
    const char *young = files_text("%s/tmp-ff112233445566778899aabbccddeeff", shard);
    const char *foreign = files_text("%s/notes.txt", shard);
    const char *similar = files_text("%s/tmp-00112233445566778899AABBCCDDEEFF", shard);
    const char *other_shard = files_text(
        "%s/%s", shard, "0000000000000000000000000000000000000000000000000000000000000000");
    files_write(old, "x", 1);
    files_write(young, "x", 1);
    files_write(foreign, "x", 1);
    files_write(similar, "x", 1);
    files_write(other_shard, "x", 1);
    files_age(old, 3700);
    files_age(foreign, 99999);
    files_age(similar, 99999);
    files_age(other_shard, 99999);
    size_t count;
    CHECK_OK(cession_store_purge(store, 10, 0, &count, NULL));
    CHECK_INT(count, 0);
    CHECK(!files_exists(old));
    CHECK(files_exists(young));
    CHECK(files_exists(foreign));
    CHECK(files_exists(similar));
    CHECK(files_exists(other_shard));
    files_age(young, 3700);
    maintain(store);
    CHECK(!files_exists(young));

    /* A damaged session file: after a while, too. One of a newer layout: never. */
    uint8_t data[100];
    ssize_t len = files_read(path, data, sizeof data);
    data[len - 1] ^= 1;
    files_write(path, data, (size_t)len); /* its head is whole: it goes when it expires */
    files_age(path, 99999);
    CHECK_OK(cession_store_purge(store, 10, 0, &count, NULL));
    CHECK_INT(count, 0);
    data[CES_FILE_EXPIRY_AT] ^= 1;
    files_write(path, data, (size_t)len);
    CHECK_OK(cession_store_purge(store, 10, 0, &count, NULL));
    CHECK_INT(count, 0);
    files_age(path, 3700);
    CHECK_OK(cession_store_purge(store, 10, 0, &count, NULL));
    CHECK_INT(count, 1);
    CHECK(!files_exists(path));
    data[8] = 2;
    files_write(path, data, (size_t)len);
    files_age(path, 99999);
    CHECK_OK(cession_store_purge(store, 10, 0, &count, NULL));
    CHECK_INT(count, 0);
    CHECK(files_exists(path));
    cession_store_close(store);
}

static void test_purge_goes_on_where_it_ended(void)
{
    const char *dir = files_dir("purge");
    cession_store *store = files_open(dir, NULL);
    for (int i = 0; i < 300; i++) {
        CHECK_OK(create_for(store, files_text("k %d", i), i % 3 == 0 ? HOUR : 1));
    }
    sleep_ms(5);
    size_t count = 77;
    CHECK_STATUS(cession_store_purge(store, 300, 1, &count, NULL), CESSION_E_TIMEOUT);
    CHECK_INT(count, 77);
    CHECK_OK(cession_store_maintain(store, 1, NULL)); /* it does what it can */
    size_t total = 0;
    do {
        CHECK_OK(cession_store_purge(store, 7, cession_deadline_in(20000), &count, NULL));
        total += count;
    } while (count == 7);
    CHECK_INT(total, 200);
    CHECK_INT(files_count(dir, ""), 101);

    /* What somebody has under lock is left to him. */
    CHECK_OK(create_for(store, "busy", 1));
    sleep_ms(5);
    ces_files *self = ces_files_of(store);
    ces_files_root *root;
    ces_files_lock lock;
    ces_files_name name;
    CHECK_OK(ces_files_name_of(self, SPAN("busy"), &name, NULL));
    REQUIRE_OK(ces_files_root_take(self, false, &root, NULL));
    REQUIRE_OK(ces_files_lock_open(self, root, &lock, NULL));
    CHECK_OK(ces_files_lock_take(&lock, name.hash, 0, NULL));
    CHECK_OK(cession_store_purge(store, 10, 0, &count, NULL));
    CHECK_INT(count, 0);
    ces_files_lock_close(self, &lock);
    ces_files_root_drop(self, root);
    CHECK_OK(cession_store_purge(store, 10, 0, &count, NULL));
    CHECK_INT(count, 1);
    cession_store_close(store);
}

typedef struct names_seen {
    cession_store *store;
    unsigned times[700];
    bool remove;
} names_seen;

static int note_name(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    names_seen *s = context;
    char text[32];
    (void)value;
    CHECK(expires_at_ms > cession_now_ms());
    snprintf(text, sizeof text, "%.*s", (int)key.len, (const char *)key.data);
    unsigned number = (unsigned)strtoul(text + 2, NULL, 10);
    if (CHECK(number < 700)) {
        s->times[number]++;
    }
    if (s->remove) {
        CHECK_OK(files_remove(s->store, text));
    }
    return CESSION_OK;
}

/* Every record that stays is seen, whatever the batch, by whichever process, while
 * others come and go. */
static void test_scan_is_complete(void)
{
    static const size_t batches[] = {3, 300, 1000};
    const char *dir = files_dir("scan");
    cession_store *stores[2] = {files_open(dir, NULL), files_open(dir, NULL)};
    for (int i = 0; i < 600; i++) {
        CHECK_OK(create_for(stores[0], files_text("k %d", i), HOUR));
    }
    static names_seen s;
    for (size_t b = 0; b < 3; b++) {
        memset(&s, 0, sizeof s);
        cession_buf cursor;
        cession_buf_init(&cursor, 100);
        unsigned round = 0;
        do {
            CHECK_OK(cession_store_scan(stores[round % 2], &cursor, batches[b],
                                        cession_deadline_in(20000), note_name, &s, NULL));
            const char *passing = files_text("k %u", 600 + round % 100);
            CHECK_OK(create_for(stores[0], passing, HOUR));
            CHECK_OK(files_remove(stores[1], passing));
            round++;
        } while (cursor.len != 0 && CHECK(round < 1000));
        for (int i = 0; i < 600; i++) {
            CHECK_INT(s.times[i], 1);
        }
        cession_buf_release(&cursor);
    }
    /* The visitor may remove what it is shown. */
    memset(&s, 0, sizeof s);
    s.store = stores[0];
    s.remove = true;
    cession_buf cursor;
    cession_buf_init(&cursor, 100);
    do {
        CHECK_OK(cession_store_scan(stores[0], &cursor, 50, 0, note_name, &s, NULL));
    } while (cursor.len != 0);
    CHECK_INT(files_count(dir, ""), 1);
    cession_buf_release(&cursor);
    cession_store_close(stores[0]);
    cession_store_close(stores[1]);
}

static const harness_test tests[] = {
    HARNESS_TEST(contract),
    HARNESS_TEST(contract_sync),
    HARNESS_TEST(options),
    HARNESS_TEST(relative_path),
    HARNESS_TEST(xxh64),
    HARNESS_TEST(golden_record),
    HARNESS_TEST(head_against_guard_page),
    HARNESS_TEST(layout),
    HARNESS_TEST(damaged_files),
    HARNESS_TEST(expiry_slot_belongs_to_its_file),
    HARNESS_TEST(symbolic_link),
    HARNESS_TEST(hard_link),
    HARNESS_TEST(pipe),
    HARNESS_TEST(socket),
    HARNESS_TEST(directory_at_the_name),
    HARNESS_TEST(foreign_parts),
    HARNESS_TEST(foreign_lock_file),
    HARNESS_TEST(unsafe_directory),
    HARNESS_TEST(hostile_unprivileged),
    HARNESS_TEST(foreign_owner),
    HARNESS_TEST(deleted_directory),
    HARNESS_TEST(exchanged_directory),
    HARNESS_TEST(descriptor_closed_behind_our_back),
    HARNESS_TEST(failing_calls),
    HARNESS_TEST(failing_calls_over_old_files),
    HARNESS_TEST(sweep_past_a_bad_file),
    HARNESS_TEST(rename_fails_as_on_nfs),
    HARNESS_TEST(short_reads_and_writes),
    HARNESS_TEST(renewed_before_it_is_swept),
    HARNESS_TEST(reading_while_it_is_touched),
    HARNESS_TEST(lock_file_deleted_meanwhile),
    HARNESS_TEST(without_openat2),
    HARNESS_TEST(full_disk),
    HARNESS_TEST(full_file_system),
    HARNESS_TEST(too_many_open_files),
    HARNESS_TEST(failing_allocations),
    HARNESS_TEST(threshold_is_no_reason_to_drop_a_live_session),
    HARNESS_TEST(sweep_keeps_up),
    HARNESS_TEST(leftovers),
    HARNESS_TEST(purge_goes_on_where_it_ended),
    HARNESS_TEST(scan_is_complete),
};
HARNESS_MAIN(tests)
