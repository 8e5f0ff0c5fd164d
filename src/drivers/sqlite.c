/* The embedded driver: one SQLite file in WAL mode, shared by threads and
 * processes of one machine.
 *
 * Options: path (required), synchronous=normal|full, max_handles, keys=text|hashed
 * (hashed: keys are 16 bytes, as a scan gives them; for copying from file to file).
 *
 * Caveats:
 * - There must be one copy of the SQLite library in the process. POSIX file
 *   locks belong to the process, so two copies would each think to hold the
 *   write lock. For the same reason nothing here opens the database file but
 *   SQLite: closing any descriptor of it would drop the locks of all others.
 * - Not for network file systems: WAL needs shared memory.
 * - synchronous=normal: an acknowledged write survives the death of processes
 *   at any moment; the last ones may be missing after a power cut. full: each
 *   commit waits for the disk, so the store is then not CESSION_CAP_FAST.
 * - Opening a connection reads, and may create, files. That counts as waiting:
 *   with deadline 0 an operation that finds no open connection is E_BUSY.
 * - Commits never checkpoint. Poll cession_store_maintenance_due and call
 *   cession_store_maintain away from requests; where nobody does, a write does it
 *   once the log exceeds WAL_LAST_RESORT_PAGES (with deadline 0 it is E_BUSY then).
 * - When the file is deleted or replaced under a running process, that is seen
 *   within a second (MOVED_CHECK_NS) and the file at the path is used, created
 *   anew if need be. What was written in that second is lost.
 * - SQLite must not be open across a fork (its locks are not inherited, its
 *   belief in them is): the pool closes every connection before a fork.
 *
 * Format of the file (application_id APPLICATION_ID, user_version SCHEMA_VERSION):
 *   id      bytes 0 to 7 of SHA-256(key), big-endian, as a signed integer
 *   tag     bytes 8 to 15; both together identify the key, which is not stored
 *   expires Unix ms; at or before now: the record counts as missing
 *   sweep   Unix ms, <= expires; when a purge looks at the record next
 *   created Unix ms
 *   value   the bytes
 *
 * Why id and tag: an integer key makes a lookup one descent of a table b-tree
 * with fan-out in the hundreds. Two live keys with equal id cannot both be
 * stored: creating the second is EXISTS (chance below 10^-7 among a million,
 * and a new session simply gets another id), every other operation compares
 * the tag as well.
 * Why sweep: were `expires` indexed, each touch and each write would move an
 * index entry, two more pages per commit (measured: twice the time). `sweep`
 * stays put while the expiry slides forward; the purge, which finds a record
 * by its sweep, moves it then. When the expiry moves before sweep, sweep goes
 * along, so a purge never misses an expired record.
 */
#include "drivers/drivers.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <sqlite3.h>

#include "base/alloc.h"
#include "base/os.h"
#include "drivers/sqlite_log.h"
#include "store/pool.h"
#include "base/banned.h"

#define APPLICATION_ID 0x43657373 /* "Cess" */
#define SCHEMA_VERSION 1
#define SQLITE_OLDEST 3024000 /* INSERT ... ON CONFLICT DO UPDATE */

#define HANDLES_DEFAULT 8u
#define HANDLES_MAX 64u
#define PATH_BYTES_MAX (PATH_MAX - 8) /* with "-wal" and terminator */

#define NS_PER_MS INT64_C(1000000)
#define MOVED_CHECK_NS (1000 * NS_PER_MS)
#define WAIT_FIRST_NS (NS_PER_MS / 10)
#define WAIT_LONGEST_NS (5 * NS_PER_MS)

#define WAL_DUE_PAGES 1000u          /* 4 MiB: a checkpoint is worth its sync */
#define WAL_LARGE_PAGES 4096u        /* 16 MiB: readers overlap, so ask for a pause */
#define WAL_LAST_RESORT_PAGES 16384u /* 64 MiB */
#define WAL_TOO_LARGE_PAGES 65536u   /* 256 MiB */
#define TRUNCATE_WAIT_NS (20 * NS_PER_MS)
#define MAINTAIN_QUIET_NS (1000 * NS_PER_MS)
#define PURGE_CHANCE 1024u /* one in so many writes makes a purge due; a power of two */
#define PURGE_BATCH 250u
#define PURGE_PAUSE_NS (6 * NS_PER_MS) /* above WAIT_LONGEST_NS: whoever waits gets in */

#define TABLE "cession_sessions"
#define SCAN_KEY_BYTES 16u /* of the hash: id and tag */

enum {
    SQL_LOAD,
    SQL_CREATE,
    SQL_REPLACE,
    SQL_REPLACE_SWEEP,
    SQL_TOUCH,
    SQL_TOUCH_SWEEP,
    SQL_REMOVE,
    SQL_SCAN,
    SQL_DUE,
    SQL_DROP,
    SQL_DEFER,
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_COUNT
};

/* The parameters have one meaning everywhere. */
enum { P_ID = 1, P_TAG, P_NOW, P_EXPIRES, P_VALUE, P_EXPECTED };
/* ... but for the statements of the purge. */
enum { P_LIMIT = 2 };

#define LIVE "id = ?1 AND tag = ?2 AND expires > ?3"
static const char *const sql[SQL_COUNT] = {
    [SQL_LOAD] = "SELECT value, expires FROM " TABLE " WHERE " LIVE,
    [SQL_CREATE] = "INSERT INTO " TABLE " (id, tag, created, expires, sweep, value)"
                   " VALUES (?1, ?2, ?3, ?4, ?4, ?5)"
                   " ON CONFLICT (id) DO UPDATE SET tag = ?2, created = ?3, expires = ?4,"
                   " sweep = ?4, value = ?5 WHERE " TABLE ".expires <= ?3",
    [SQL_REPLACE] = "UPDATE " TABLE " SET value = ?5, expires = ?4 WHERE " LIVE
                    " AND sweep <= ?4 AND value = ?6",
    [SQL_REPLACE_SWEEP] = "UPDATE " TABLE " SET value = ?5, expires = ?4, sweep = ?4 WHERE " LIVE
                          " AND value = ?6",
    [SQL_TOUCH] = "UPDATE " TABLE " SET expires = ?4 WHERE " LIVE " AND sweep <= ?4 AND value = ?6",
    [SQL_TOUCH_SWEEP] = "UPDATE " TABLE " SET expires = ?4, sweep = ?4 WHERE " LIVE
                        " AND value = ?6",
    [SQL_REMOVE] = "DELETE FROM " TABLE " WHERE id = ?1 AND tag = ?2",
    [SQL_SCAN] = "SELECT id, tag, value, expires FROM " TABLE " WHERE id >= ?1 ORDER BY id LIMIT 1",
    [SQL_DUE] = "SELECT id, expires FROM " TABLE " WHERE sweep <= ?1 ORDER BY sweep LIMIT ?2",
    [SQL_DROP] = "DELETE FROM " TABLE " WHERE id = ?1",
    [SQL_DEFER] = "UPDATE " TABLE " SET sweep = expires WHERE id = ?1",
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
};

#define TEXT_OF(number) TEXT_OF_(number)
#define TEXT_OF_(number) #number
static const char schema[] =
    "CREATE TABLE " TABLE " (id INTEGER PRIMARY KEY, tag INTEGER NOT NULL,"
    " expires INTEGER NOT NULL, sweep INTEGER NOT NULL, created INTEGER NOT NULL,"
    " value BLOB NOT NULL);"
    "CREATE INDEX " TABLE "_sweep ON " TABLE " (sweep);"
    "PRAGMA application_id = " TEXT_OF(APPLICATION_ID) ";"
                                                       "PRAGMA user_version = " TEXT_OF(
                                                           SCHEMA_VERSION) ";";

typedef struct sqlite_store {
    cession_store base;
    ces_pool *pool;
    const char *vfs; /* see sqlite_log.h */
    bool full_sync, hashed_keys;
    bool closing;          /* the last connection may checkpoint and tidy up */
    atomic_uint file;      /* counts how often the file was seen to have moved */
    atomic_uint wal_pages; /* length of the log after the last commit seen */
    atomic_uint wal_due;   /* from which length on a checkpoint is due */
    atomic_bool purge_due;
    _Atomic int64_t quiet_until_ns; /* no maintenance before */
    size_t dir_len;                 /* of path, up to and without the last slash */
    char path[];                    /* absolute */
} sqlite_store;

/* One connection; belongs to the operation that took it from the pool. */
typedef struct handle {
    sqlite_store *store;
    sqlite3 *db;
    EVP_MD_CTX *hash;
    cession_deadline deadline; /* of the operation under way */
    int64_t moved_checked_ns;
    unsigned file; /* store->file when it was opened */
    bool broken;   /* close it instead of keeping it */
    sqlite3_stmt *stmt[SQL_COUNT];
} handle;

static sqlite_store *self_of(cession_store *store)
{
    return (sqlite_store *)store;
}

/* ---- errors ---------------------------------------------------------------- */

static const char *errno_text(int code, char *room, size_t size)
{
#ifdef __GLIBC__
    return strerror_r(code, room, size);
#else
    return strerror_r(code, room, size) == 0 ? room : "unknown error";
#endif
}

static int fail_errno(const sqlite_store *self, int code, const char *what, cession_error *err)
{
    char room[96];
    int status = CESSION_E_UNAVAILABLE;
    if (code == EACCES || code == EPERM || code == EROFS) {
        status = CESSION_E_PERMISSION;
    } else if (code == ENOMEM) {
        status = CESSION_E_NOMEM;
    }
    return cession_fail(err, status, "%s: %s (%s)", what, errno_text(code, room, sizeof room),
                        self->path);
}

static bool is_busy(int rc)
{
    int primary = rc & 0xff;
    return primary == SQLITE_BUSY || primary == SQLITE_LOCKED || primary == SQLITE_PROTOCOL;
}

/* The status and text of a result code. Where the connection may be at fault it
 * is not used again: the next one looks at the file afresh. */
static int fail(handle *h, int rc, cession_error *err)
{
    char room[96];
    const char *path = h->store->path;
    if (is_busy(rc)) {
        if (h->deadline <= 0) {
            return cession_fail(err, CESSION_E_BUSY, "the database is locked (%s)", path);
        }
        return cession_fail(err, CESSION_E_TIMEOUT,
                            "the database stayed locked until the deadline (%s)", path);
    }
    int code = h->db != NULL ? sqlite3_system_errno(h->db) : 0;
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    case SQLITE_TOOBIG:
        return cession_fail(err, CESSION_E_LIMIT, "the value is too long for SQLite");
    case SQLITE_IOERR:
        if (rc == SQLITE_IOERR_NOMEM) {
            return cession_fail(err, CESSION_E_NOMEM, NULL);
        }
        break;
    default:
        break;
    }
    h->broken = true;
    switch (rc & 0xff) {
    case SQLITE_CANTOPEN:
        return fail_errno(h->store, code != 0 ? code : ENOENT, "the database cannot be opened",
                          err);
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
        return cession_fail(err, CESSION_E_PERMISSION, "the database cannot be written: %s (%s)",
                            sqlite3_errstr(rc), path);
    case SQLITE_FULL:
        return cession_fail(err, CESSION_E_IO, "the disk is full (%s)", path);
    case SQLITE_IOERR:
        return cession_fail(err, CESSION_E_IO, "reading or writing failed: %s, code %d (%s)",
                            code != 0 ? errno_text(code, room, sizeof room) : "unknown cause", rc,
                            path);
    case SQLITE_CORRUPT:
        return cession_fail(err, CESSION_E_IO, "the database is damaged (%s)", path);
    case SQLITE_NOTADB:
        return cession_fail(err, CESSION_E_FOREIGN, "the file is no SQLite database (%s)", path);
    default:
        return cession_fail(err, CESSION_E_INTERNAL, "SQLite: %s, code %d (%s)", sqlite3_errstr(rc),
                            rc, path);
    }
}

/* ---- waiting for locks ------------------------------------------------------ */

/* Sleep a little, longer with each try, never past the deadline. False: the time
 * is over. The jitter keeps many waiters from coming back at once. */
static bool wait_a_little(const handle *h, int tries)
{
    if (h->deadline <= 0) {
        return false;
    }
    int64_t left = h->deadline - ces_mono_ns();
    if (left <= 0) {
        return false;
    }
    int64_t wait = WAIT_FIRST_NS << (tries < 6 ? tries : 6);
    if (wait > WAIT_LONGEST_NS) {
        wait = WAIT_LONGEST_NS;
    }
    wait = wait / 2 + (int64_t)(ces_chance() % (uint64_t)(wait / 2));
    ces_sleep_ns(wait < left ? wait : left);
    return true;
}

static int on_busy(void *context, int tries)
{
    return wait_a_little(context, tries);
}

static int on_commit(void *context, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    sqlite_store *self = context;
    unsigned length = (unsigned)pages;
    unsigned before = atomic_exchange_explicit(&self->wal_pages, length, memory_order_relaxed);
    if (length < before) { /* somebody's checkpoint was complete: it starts anew */
        atomic_store_explicit(&self->wal_due, WAL_DUE_PAGES, memory_order_relaxed);
    }
    return SQLITE_OK;
}

/* SQLite asks its busy handler where that can help. Elsewhere (a snapshot that
 * is stale, a recovery under way) starting over helps. */
static int step(handle *h, sqlite3_stmt *stmt)
{
    for (int tries = 0;; tries++) {
        int rc = sqlite3_step(stmt);
        if (!is_busy(rc)) {
            return rc;
        }
        sqlite3_reset(stmt);
        if (!wait_a_little(h, tries)) {
            return rc;
        }
    }
}

/* Run a statement that gives no rows. SQLITE_OK and how many rows it changed. */
static int run(handle *h, int which, int *ret_changes)
{
    sqlite3_stmt *stmt = h->stmt[which];
    int rc = step(h, stmt);
    if (rc == SQLITE_DONE) {
        if (ret_changes != NULL) {
            *ret_changes = sqlite3_changes(h->db);
        }
        rc = SQLITE_OK;
    }
    sqlite3_reset(stmt);
    return rc;
}

static int exec(handle *h, const char *text)
{
    for (int tries = 0;; tries++) {
        int rc = sqlite3_exec(h->db, text, NULL, NULL, NULL);
        if (!is_busy(rc) || !wait_a_little(h, tries)) {
            return rc;
        }
    }
}

/* ---- opening ----------------------------------------------------------------- */

static int make_directories(sqlite_store *self, cession_error *err)
{
    char dir[PATH_BYTES_MAX];
    memcpy(dir, self->path, self->dir_len);
    dir[self->dir_len] = '\0';
    for (size_t i = 1; i <= self->dir_len; i++) {
        if (i < self->dir_len && dir[i] != '/') {
            continue;
        }
        char kept = dir[i];
        dir[i] = '\0';
        /* Only what is missing is made, and that is nobody else's. */
        if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
            int code = errno;
            struct stat st;
            if (stat(dir, &st) != 0) {
                return fail_errno(self, code, "the directory of the database cannot be made", err);
            }
        }
        dir[i] = kept;
    }
    return CESSION_OK;
}

/* SQLite would create the file with the umask's mode, so it is made here: by
 * mknod, which gives no descriptor whose closing would drop locks.
 *
 * The log and the shared memory of a database that was deleted alone must go
 * first: processes that still work on the deleted file use them, and would
 * mix their pages into the new one. The lock on the directory keeps two
 * processes from deleting what the other has just made. */
static int create_file(const sqlite_store *self, cession_deadline deadline, cession_error *err)
{
    char name[PATH_MAX];
    struct stat st;
    memcpy(name, self->path, self->dir_len);
    memcpy(name + self->dir_len, "/", 2);
    int dir = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        return fail_errno(self, errno, "the directory of the database cannot be opened", err);
    }
    while (flock(dir, LOCK_EX | LOCK_NB) != 0 && (errno == EWOULDBLOCK || errno == EINTR)) {
        if (ces_mono_ns() >= deadline) {
            close(dir);
            return cession_fail(err, CESSION_E_TIMEOUT,
                                "the directory of the database stayed locked (%s)", self->path);
        }
        ces_sleep_ns(NS_PER_MS);
    }
    int rc = CESSION_OK;
    if (lstat(self->path, &st) != 0 && errno == ENOENT) {
        static const char *const leftovers[] = {"-wal", "-shm"};
        for (size_t i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "%s%s", self->path, leftovers[i]);
            (void)unlink(name);
        }
        if (mknod(self->path, S_IFREG | 0600, 0) != 0 && errno != EEXIST) {
            rc = fail_errno(self, errno, "the database cannot be created", err);
        }
    }
    close(dir);
    return rc;
}

static int ensure_file(sqlite_store *self, cession_deadline deadline, cession_error *err)
{
    struct stat st;
    if (stat(self->path, &st) == 0) {
        return S_ISREG(st.st_mode) ? CESSION_OK
                                   : cession_fail(err, CESSION_E_FOREIGN,
                                                  "the path is no regular file (%s)", self->path);
    }
    if (errno != ENOENT) {
        return fail_errno(self, errno, "the database cannot be found", err);
    }
    int rc = make_directories(self, err);
    return rc == CESSION_OK ? create_file(self, deadline, err) : rc;
}

static int query_int(handle *h, const char *text, int64_t *ret_value)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(h->db, text, -1, &stmt, NULL);
    if (rc == SQLITE_OK) {
        rc = step(h, stmt);
        if (rc == SQLITE_ROW) {
            *ret_value = sqlite3_column_int64(stmt, 0);
            rc = SQLITE_OK;
        }
    }
    sqlite3_finalize(stmt);
    return rc;
}

/* Whose file is it? Inside a transaction, so that the answers belong together. */
static int identify(handle *h, bool *ret_fresh, cession_error *err)
{
    int64_t application = 0, version = 0, objects = 0;
    int rc;
    if ((rc = query_int(h, "PRAGMA application_id", &application)) != SQLITE_OK ||
        (rc = query_int(h, "PRAGMA user_version", &version)) != SQLITE_OK ||
        (rc = query_int(h, "SELECT count(*) FROM sqlite_master", &objects)) != SQLITE_OK) {
        return fail(h, rc, err);
    }
    if (application == 0 && version == 0 && objects == 0) {
        *ret_fresh = true;
        return CESSION_OK;
    }
    *ret_fresh = false;
    if (application != APPLICATION_ID || version < 1) {
        return cession_fail(err, CESSION_E_FOREIGN, "the database belongs to another program (%s)",
                            h->store->path);
    }
    if (version > SCHEMA_VERSION) {
        return cession_fail(
            err, CESSION_E_NEWER,
            "the database was made by a newer version: format %lld, this is %d (%s)",
            (long long)version, SCHEMA_VERSION, h->store->path);
    }
    return CESSION_OK;
}

static int identify_within(handle *h, const char *begin, bool *ret_fresh, cession_error *err)
{
    int rc = exec(h, begin);
    return rc == SQLITE_OK ? identify(h, ret_fresh, err) : fail(h, rc, err);
}

static void roll_back(handle *h)
{
    if (!sqlite3_get_autocommit(h->db) &&
        sqlite3_exec(h->db, "ROLLBACK", NULL, NULL, NULL) != SQLITE_OK) {
        h->broken = true;
    }
}

/* Needs the file for itself for a moment. SQLite does not call the busy handler
 * for that, step() starts over. */
static int use_wal(handle *h, cession_error *err)
{
    sqlite3_stmt *stmt = NULL;
    bool is_wal = false;
    int rc = sqlite3_prepare_v2(h->db, "PRAGMA journal_mode = WAL", -1, &stmt, NULL);
    if (rc == SQLITE_OK) {
        rc = step(h, stmt);
        if (rc == SQLITE_ROW) {
            const char *mode = (const char *)sqlite3_column_text(stmt, 0);
            is_wal = mode != NULL && strcasecmp(mode, "wal") == 0;
            rc = SQLITE_OK;
        }
    }
    sqlite3_finalize(stmt);
    if (rc != SQLITE_OK) {
        return fail(h, rc, err);
    }
    return is_wal ? CESSION_OK
                  : cession_fail(err, CESSION_E_UNSUPPORTED,
                                 "the file system does not support write-ahead logging (%s)",
                                 h->store->path);
}

/* Many processes may do this at once with one empty file; the second look,
 * under the write lock, lets one of them make the tables. A foreign file is
 * left as it is. */
static int ensure_schema(handle *h, cession_error *err)
{
    bool fresh = false;
    int rc = identify_within(h, "BEGIN", &fresh, err);
    roll_back(h);
    if (rc == CESSION_OK) {
        rc = use_wal(h, err);
    }
    if (rc != CESSION_OK || !fresh) {
        return rc;
    }
    rc = identify_within(h, "BEGIN IMMEDIATE", &fresh, err);
    if (rc == CESSION_OK && fresh) {
        int answer = sqlite3_exec(h->db, schema, NULL, NULL, NULL);
        if (answer == SQLITE_OK) {
            answer = exec(h, "COMMIT");
        }
        rc = answer == SQLITE_OK ? CESSION_OK : fail(h, answer, err);
    }
    roll_back(h);
    return rc;
}

static int prepare_all(handle *h, cession_error *err)
{
    for (int i = 0; i < SQL_COUNT; i++) {
        int rc = sqlite3_prepare_v3(h->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &h->stmt[i],
                                    NULL);
        if (rc == SQLITE_ERROR) {
            return cession_fail(err, CESSION_E_FOREIGN,
                                "the table " TABLE " is missing or has another shape (%s)",
                                h->store->path);
        }
        if (rc != SQLITE_OK) {
            return fail(h, rc, err);
        }
    }
    return CESSION_OK;
}

static int configure(handle *h, cession_error *err)
{
    /* Schema and triggers of a file that somebody else could write are data,
     * not our program. */
    static const struct {
        int option, value;
    } options[] = {{SQLITE_DBCONFIG_DEFENSIVE, 1},
                   {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0},
#ifdef SQLITE_DBCONFIG_ENABLE_VIEW
                   {SQLITE_DBCONFIG_ENABLE_VIEW, 0},
#endif
#ifdef SQLITE_DBCONFIG_TRUSTED_SCHEMA
                   {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
#endif
                   {SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1}};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        sqlite3_db_config(h->db, options[i].option, options[i].value, NULL);
    }
    sqlite3_busy_handler(h->db, on_busy, h);
    int rc = ensure_schema(h, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    /* secure_delete: what was logged out is overwritten where that costs no
     * further page. journal_size_limit: a log that grew once does not stay. */
    rc = exec(h, h->store->full_sync ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL");
    if (rc == SQLITE_OK) {
        rc = exec(h, "PRAGMA secure_delete = FAST; PRAGMA journal_size_limit = 16777216;");
    }
    if (rc != SQLITE_OK) {
        return fail(h, rc, err);
    }
    rc = prepare_all(h, err);
    if (rc == CESSION_OK) {
        /* Takes the place of SQLite's own checkpoint on commit. */
        sqlite3_wal_hook(h->db, on_commit, h->store);
    }
    return rc;
}

static void handle_close(void *context, void *opened)
{
    sqlite_store *self = context;
    handle *h = opened;
    for (int i = 0; i < SQL_COUNT; i++) {
        sqlite3_finalize(h->stmt[i]);
    }
    if (h->db != NULL) {
        if (self->closing) {
            /* SQLite deletes the log by its name, but not when the file has moved
             * and the name is another file's by now. */
            sqlite3_db_config(h->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
        }
        sqlite3_close(h->db);
    }
    EVP_MD_CTX_free(h->hash);
    ces_free(h);
}

static int handle_open(void *context, cession_deadline deadline, void **ret_handle,
                       cession_error *err)
{
    sqlite_store *self = context;
    if (deadline <= 0) {
        return cession_fail(err, CESSION_E_BUSY, "a connection has to be opened first");
    }
    unsigned file = atomic_load(&self->file);
    int rc = ensure_file(self, deadline, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    handle *h = ces_alloc_zero(sizeof *h);
    if (h == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    h->store = self;
    h->deadline = deadline;
    h->file = file;
    h->moved_checked_ns = ces_mono_ns();
    h->hash = EVP_MD_CTX_new();
    if (h->hash == NULL || EVP_DigestInit_ex(h->hash, EVP_sha256(), NULL) != 1) {
        rc = cession_fail(err, CESSION_E_CRYPTO, "SHA-256 is not available");
    } else {
        /* Not SQLITE_OPEN_CREATE: a dangling link must not make a file. */
        int answer = sqlite3_open_v2(
            self->path, &h->db,
            SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE, self->vfs);
        if (h->db != NULL) {
            sqlite3_extended_result_codes(h->db, 1);
        }
        if (answer != SQLITE_OK) {
            rc = fail(h, answer, err);
        } else if (sqlite3_db_readonly(h->db, "main") == 1) {
            rc = cession_fail(err, CESSION_E_PERMISSION,
                              "this process may not write the database (%s)", self->path);
        } else {
            rc = configure(h, err);
        }
    }
    if (rc != CESSION_OK) {
        handle_close(self, h);
        return rc;
    }
    *ret_handle = h;
    return CESSION_OK;
}

/* ---- taking a connection ------------------------------------------------------ */

static bool has_moved(handle *h)
{
    int64_t now = ces_mono_ns();
    if (now - h->moved_checked_ns < MOVED_CHECK_NS) {
        return false;
    }
    h->moved_checked_ns = now;
    int moved = 0;
    return sqlite3_file_control(h->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK &&
           moved != 0;
}

static int take(sqlite_store *self, cession_deadline deadline, handle **ret_handle,
                cession_error *err)
{
    for (;;) {
        void *taken = NULL;
        int rc = ces_pool_take(self->pool, deadline, &taken, err);
        if (rc != CESSION_OK) {
            return rc;
        }
        handle *h = taken;
        h->deadline = deadline;
        unsigned file = atomic_load_explicit(&self->file, memory_order_relaxed);
        if (h->file == file && has_moved(h)) {
            /* One finds out, all others are dropped when they are next taken. */
            atomic_compare_exchange_strong(&self->file, &file, file + 1);
            file = h->file + 1;
        }
        if (h->file == file) {
            *ret_handle = h;
            return CESSION_OK;
        }
        ces_pool_give(self->pool, h, false);
    }
}

static void give_back(handle *h)
{
    ces_pool_give(h->store->pool, h, !h->broken);
}

static int64_t get_be64(const uint8_t *from)
{
    uint64_t n = 0;
    for (int i = 0; i < 8; i++) {
        n = n << 8 | from[i];
    }
    return (int64_t)n;
}

static void put_be64(uint8_t *to, int64_t number)
{
    uint64_t n = (uint64_t)number;
    for (int i = 7; i >= 0; i--, n >>= 8) {
        to[i] = (uint8_t)n;
    }
}

typedef struct hashed_key {
    int64_t id, tag;
} hashed_key;

/* A connection and the hash of the key, made with the connection's context:
 * preparing one for each call takes three times as long. */
static int take_for(cession_store *store, cession_span key, cession_deadline deadline,
                    handle **ret_handle, hashed_key *ret_key, cession_error *err)
{
    handle *h = NULL;
    int rc = take(self_of(store), deadline, &h, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    uint8_t digest[EVP_MAX_MD_SIZE];
    if (self_of(store)->hashed_keys) {
        if (key.len != SCAN_KEY_BYTES) {
            give_back(h);
            return cession_fail(err, CESSION_E_INVALID, "a hashed key has %u bytes",
                                SCAN_KEY_BYTES);
        }
        memcpy(digest, key.data, SCAN_KEY_BYTES);
    } else if (EVP_DigestInit_ex(h->hash, NULL, NULL) != 1 ||
               EVP_DigestUpdate(h->hash, key.data, key.len) != 1 ||
               EVP_DigestFinal_ex(h->hash, digest, NULL) != 1) {
        h->broken = true;
        give_back(h);
        return cession_fail(err, CESSION_E_CRYPTO, "SHA-256 failed");
    }
    ret_key->id = get_be64(digest);
    ret_key->tag = get_be64(digest + 8);
    *ret_handle = h;
    return CESSION_OK;
}

/* ---- binding ------------------------------------------------------------------ */

/* Binding a number fails only for a wrong index. Spans are bound without a copy:
 * they outlive the operation. A NULL pointer would be an SQL NULL, which an
 * empty value is not. */
static void bind_span(sqlite3_stmt *stmt, int at, cession_span bytes)
{
    sqlite3_bind_blob64(stmt, at, bytes.len != 0 ? (const void *)bytes.data : "", bytes.len,
                        SQLITE_STATIC);
}

static sqlite3_stmt *bind_key(handle *h, int which, hashed_key key)
{
    sqlite3_stmt *stmt = h->stmt[which];
    sqlite3_bind_int64(stmt, P_ID, key.id);
    sqlite3_bind_int64(stmt, P_TAG, key.tag);
    return stmt;
}

/* ---- maintenance -------------------------------------------------------------- */

static bool wal_is_due(const sqlite_store *self, unsigned least)
{
    unsigned pages = atomic_load_explicit(&self->wal_pages, memory_order_relaxed);
    return pages >= least && pages >= atomic_load_explicit(&self->wal_due, memory_order_relaxed);
}

static bool is_quiet(const sqlite_store *self)
{
    return ces_mono_ns() < atomic_load_explicit(&self->quiet_until_ns, memory_order_relaxed);
}

static void be_quiet(sqlite_store *self)
{
    atomic_store_explicit(&self->quiet_until_ns, ces_mono_ns() + MAINTAIN_QUIET_NS,
                          memory_order_relaxed);
}

static bool sqlite_maintenance_due(const cession_store *store)
{
    const sqlite_store *self = (const sqlite_store *)store;
    return (wal_is_due(self, WAL_DUE_PAGES) ||
            atomic_load_explicit(&self->purge_due, memory_order_relaxed)) &&
           !is_quiet(self);
}

static int checkpoint(handle *h, int mode)
{
    int length = 0, done = 0;
    int rc = sqlite3_wal_checkpoint_v2(h->db, "main", mode, &length, &done);
    if (rc == SQLITE_OK && length >= 0 && done >= 0) {
        atomic_store_explicit(&h->store->wal_pages, (unsigned)length, memory_order_relaxed);
        atomic_store_explicit(&h->store->wal_due, (unsigned)done + WAL_DUE_PAGES,
                              memory_order_relaxed);
    }
    return is_busy(rc) ? SQLITE_OK : rc; /* another process is at it, or readers are */
}

/* Copies the log into the file without hindering anybody. Once all is copied the
 * next writer begins the log anew, unless a reader stands in it at that moment or
 * more was written meanwhile; on a busy site it may never happen, so a large log is
 * worth a short pause of the writers. They wait for a copy and a sync of what came
 * in since the last pass: how long that is, a second pass tells. Where the disk is
 * slow, the log may grow rather than a request pass its deadline. */
static int checkpoint_wal(handle *h)
{
    int rc = checkpoint(h, SQLITE_CHECKPOINT_PASSIVE);
    unsigned left = atomic_load_explicit(&h->store->wal_pages, memory_order_relaxed);
    if (rc == SQLITE_OK && left >= WAL_LARGE_PAGES) {
        int64_t begin = ces_mono_ns();
        rc = checkpoint(h, SQLITE_CHECKPOINT_PASSIVE);
        if (rc != SQLITE_OK ||
            (ces_mono_ns() - begin > TRUNCATE_WAIT_NS && left < WAL_TOO_LARGE_PAGES)) {
            return rc;
        }
        cession_deadline kept = h->deadline;
        int64_t until = ces_mono_ns() + TRUNCATE_WAIT_NS;
        h->deadline = until < kept ? until : kept;
        rc = checkpoint(h, SQLITE_CHECKPOINT_TRUNCATE);
        h->deadline = kept;
    }
    return rc;
}

static bool last_resort_is_due(const sqlite_store *self)
{
    return wal_is_due(self, WAL_LAST_RESORT_PAGES) && !is_quiet(self);
}

/* As take_for, for a write. Without time it has to be asked again with some where the log has grown
 * that much: somebody must copy it. */
static int take_to_write(cession_store *store, cession_span key, cession_deadline deadline,
                         handle **ret_handle, hashed_key *ret_key, cession_error *err)
{
    return deadline <= 0 && last_resort_is_due(self_of(store))
               ? cession_fail(err, CESSION_E_BUSY, "the log has to be copied first")
               : take_for(store, key, deadline, ret_handle, ret_key, err);
}

/* After each acknowledged write; must not turn it into a failure. */
static void after_write(handle *h)
{
    sqlite_store *self = h->store;
    if ((ces_chance() & (PURGE_CHANCE - 1)) == 0) {
        atomic_store_explicit(&self->purge_due, true, memory_order_relaxed);
    }
    if (h->deadline > 0 && last_resort_is_due(self)) {
        (void)checkpoint(h, SQLITE_CHECKPOINT_PASSIVE);
        if (wal_is_due(self, WAL_LAST_RESORT_PAGES)) {
            be_quiet(self); /* a reader or another checkpoint was in the way */
        }
    }
}

/* One short transaction that looks at up to `limit` records whose sweep is over.
 * *ret_seen < limit: there are no more. */
static int purge_batch(handle *h, size_t limit, size_t *ret_seen, size_t *ret_gone,
                       cession_error *err)
{
    struct {
        int64_t id;
        bool expired;
    } due[PURGE_BATCH];
    size_t seen = 0, gone = 0;
    int64_t now = ces_now_ms();
    int rc = run(h, SQL_BEGIN, NULL);
    if (rc != SQLITE_OK) {
        return fail(h, rc, err);
    }
    sqlite3_stmt *find = h->stmt[SQL_DUE];
    sqlite3_bind_int64(find, 1, now);
    sqlite3_bind_int64(find, P_LIMIT, (int64_t)limit);
    while (seen < limit && (rc = sqlite3_step(find)) == SQLITE_ROW) {
        due[seen].id = sqlite3_column_int64(find, 0);
        due[seen].expired = sqlite3_column_int64(find, 1) <= now;
        seen++;
    }
    sqlite3_reset(find);
    rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
    for (size_t i = 0; i < seen && rc == SQLITE_OK; i++) {
        int which = due[i].expired ? SQL_DROP : SQL_DEFER;
        sqlite3_bind_int64(h->stmt[which], P_ID, due[i].id);
        rc = run(h, which, NULL);
        gone += due[i].expired;
    }
    if (rc == SQLITE_OK) {
        rc = run(h, SQL_COMMIT, NULL);
    }
    if (rc != SQLITE_OK) {
        int status = fail(h, rc, err);
        roll_back(h);
        return status;
    }
    *ret_seen = seen;
    *ret_gone = gone;
    return CESSION_OK;
}

static int purge_with(handle *h, size_t limit, size_t *ret_count, cession_error *err)
{
    size_t count = 0;
    for (;;) {
        size_t batch = limit - count < PURGE_BATCH ? limit - count : PURGE_BATCH;
        size_t seen = 0, gone = 0;
        int rc = purge_batch(h, batch, &seen, &gone, err);
        if (rc != CESSION_OK) {
            return rc;
        }
        count += gone;
        if (count == limit || seen < batch) {
            *ret_count = count;
            return CESSION_OK;
        }
        if (h->deadline > 0) {
            if (ces_mono_ns() + PURGE_PAUSE_NS >= h->deadline) {
                return cession_fail(err, CESSION_E_TIMEOUT,
                                    "%zu records went until the deadline, more are left", count);
            }
            ces_sleep_ns(PURGE_PAUSE_NS);
            /* Not faster than the disk takes it. */
            if (wal_is_due(h->store, WAL_LAST_RESORT_PAGES)) {
                (void)checkpoint_wal(h);
            } else if (wal_is_due(h->store, WAL_LARGE_PAGES)) {
                (void)checkpoint(h, SQLITE_CHECKPOINT_PASSIVE);
            }
        }
    }
}

static int sqlite_purge(cession_store *store, size_t limit, cession_deadline deadline,
                        size_t *ret_count, cession_error *err)
{
    handle *h = NULL;
    int rc = take(self_of(store), deadline, &h, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    rc = purge_with(h, limit, ret_count, err);
    give_back(h);
    return rc;
}

static int sqlite_maintain(cession_store *store, cession_deadline deadline, cession_error *err)
{
    sqlite_store *self = self_of(store);
    if (deadline <= 0) {
        return cession_fail(err, CESSION_E_BUSY, "maintenance needs time");
    }
    handle *h = NULL;
    int rc = take(self, deadline, &h, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    if (atomic_exchange(&self->purge_due, false)) {
        size_t count;
        rc = purge_with(h, SIZE_MAX, &count, err);
        if (rc == CESSION_E_TIMEOUT || rc == CESSION_E_BUSY) {
            atomic_store(&self->purge_due, true); /* the rest next time */
            rc = CESSION_OK;
        }
    }
    if (rc == CESSION_OK) {
        int answer = checkpoint_wal(h);
        rc = answer == SQLITE_OK ? CESSION_OK : fail(h, answer, err);
    }
    be_quiet(self);
    give_back(h);
    return rc;
}

/* ---- operations ---------------------------------------------------------------- */

/* Read the live record of the key into *ret_stored. OK, NOT_FOUND or an error. */
static int read_record(handle *h, hashed_key key, cession_stored *ret_stored, cession_error *err)
{
    sqlite3_stmt *stmt = bind_key(h, SQL_LOAD, key);
    sqlite3_bind_int64(stmt, P_NOW, ces_now_ms());
    int status;
    int rc = step(h, stmt);
    if (rc == SQLITE_ROW) {
        const void *value = sqlite3_column_blob(stmt, 0);
        size_t len = (size_t)sqlite3_column_bytes(stmt, 0);
        if (value == NULL && sqlite3_errcode(h->db) == SQLITE_NOMEM) {
            status = cession_fail(err, CESSION_E_NOMEM, NULL);
        } else {
            status = cession_buf_set(&ret_stored->value, value, len);
            if (status == CESSION_OK) {
                ret_stored->version_len = 0;
                ret_stored->expires_at_ms = sqlite3_column_int64(stmt, 1);
            } else {
                cession_fail(err, status, NULL);
            }
        }
    } else {
        status = rc == SQLITE_DONE ? CESSION_NOT_FOUND : fail(h, rc, err);
    }
    sqlite3_reset(stmt);
    return status;
}

static int sqlite_load(cession_store *store, cession_span key, cession_deadline deadline,
                       cession_stored *ret_stored, cession_error *err)
{
    handle *h = NULL;
    hashed_key hashed;
    int rc = take_for(store, key, deadline, &h, &hashed, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    rc = read_record(h, hashed, ret_stored, err);
    give_back(h);
    return rc;
}

static int sqlite_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                         cession_deadline deadline, cession_error *err)
{
    handle *h = NULL;
    hashed_key hashed;
    int rc = take_to_write(store, key, deadline, &h, &hashed, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    int64_t now = ces_now_ms();
    int changes = 0;
    sqlite3_stmt *stmt = bind_key(h, SQL_CREATE, hashed);
    sqlite3_bind_int64(stmt, P_NOW, now);
    sqlite3_bind_int64(stmt, P_EXPIRES, now + ttl_ms);
    bind_span(stmt, P_VALUE, value);
    int answer = run(h, SQL_CREATE, &changes);
    if (answer != SQLITE_OK) {
        rc = fail(h, answer, err);
    } else {
        rc = changes != 0 ? CESSION_OK : CESSION_EXISTS;
        after_write(h);
    }
    give_back(h);
    return rc;
}

/* What replace and touch share: run the plain statement, and where it changed
 * nothing find out why. */
typedef struct change {
    int plain, with_sweep;     /* statements */
    const cession_span *value; /* NULL: a touch */
    const cession_expected *expected;
    int64_t ttl_ms;
} change;

static int try_change(handle *h, hashed_key key, const change *what, int which, int *ret_changes)
{
    int64_t now = ces_now_ms();
    sqlite3_stmt *stmt = bind_key(h, which, key);
    sqlite3_bind_int64(stmt, P_NOW, now);
    sqlite3_bind_int64(stmt, P_EXPIRES, now + what->ttl_ms);
    if (what->value != NULL) {
        bind_span(stmt, P_VALUE, *what->value);
    }
    bind_span(stmt, P_EXPECTED, what->expected->value);
    return run(h, which, ret_changes);
}

/* OK, GONE, or CONFLICT with *ret_current. */
static int apply(handle *h, hashed_key key, const change *what, cession_stored *ret_current,
                 cession_error *err)
{
    for (int tries = 0;; tries++) {
        int changes = 0;
        int rc = try_change(h, key, what, what->plain, &changes);
        if (rc != SQLITE_OK) {
            return fail(h, rc, err);
        }
        if (changes != 0) {
            return CESSION_OK;
        }
        int status = read_record(h, key, ret_current, err);
        if (status != CESSION_OK) {
            return status == CESSION_NOT_FOUND ? CESSION_GONE : status;
        }
        if (!cession_span_eq(cession_buf_span(&ret_current->value), what->expected->value)) {
            return CESSION_CONFLICT;
        }
        /* The value is the expected one: either the expiry moves before sweep,
         * or it was another value a moment ago. */
        rc = try_change(h, key, what, what->with_sweep, &changes);
        if (rc != SQLITE_OK) {
            return fail(h, rc, err);
        }
        if (changes != 0) {
            return CESSION_OK;
        }
        if (!wait_a_little(h, tries)) {
            return fail(h, SQLITE_BUSY, err);
        }
    }
}

static int sqlite_replace(cession_store *store, cession_span key, const cession_expected *expected,
                          cession_span value, int64_t ttl_ms, cession_deadline deadline,
                          cession_stored *ret_current, cession_error *err)
{
    handle *h = NULL;
    hashed_key hashed;
    int rc = take_to_write(store, key, deadline, &h, &hashed, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    change what = {.plain = SQL_REPLACE,
                   .with_sweep = SQL_REPLACE_SWEEP,
                   .value = &value,
                   .expected = expected,
                   .ttl_ms = ttl_ms};
    cession_stored current;
    cession_stored_init(&current);
    rc = apply(h, hashed, &what, &current, err);
    if (rc == CESSION_OK) {
        after_write(h);
    }
    give_back(h);
    if (rc == CESSION_CONFLICT) {
        cession_buf_swap(&ret_current->value, &current.value);
        ret_current->version_len = 0;
        ret_current->expires_at_ms = current.expires_at_ms;
    }
    cession_stored_release(&current);
    return rc;
}

static int sqlite_touch(cession_store *store, cession_span key, const cession_expected *expected,
                        int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    handle *h = NULL;
    hashed_key hashed;
    int rc = take_to_write(store, key, deadline, &h, &hashed, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    change what = {
        .plain = SQL_TOUCH, .with_sweep = SQL_TOUCH_SWEEP, .expected = expected, .ttl_ms = ttl_ms};
    cession_stored current;
    cession_stored_init(&current);
    rc = apply(h, hashed, &what, &current, err);
    if (rc == CESSION_OK) {
        after_write(h);
    } else if (rc == CESSION_CONFLICT) {
        rc = CESSION_CHANGED;
    }
    give_back(h);
    cession_stored_release(&current);
    return rc;
}

static int sqlite_remove(cession_store *store, cession_span key, cession_deadline deadline,
                         cession_error *err)
{
    handle *h = NULL;
    hashed_key hashed;
    int rc = take_to_write(store, key, deadline, &h, &hashed, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    bind_key(h, SQL_REMOVE, hashed);
    int answer = run(h, SQL_REMOVE, NULL);
    if (answer != SQLITE_OK) {
        rc = fail(h, answer, err);
    } else {
        after_write(h);
    }
    give_back(h);
    return rc;
}

/* ---- scan ------------------------------------------------------------------------ */

typedef struct scanned {
    uint8_t key[SCAN_KEY_BYTES]; /* the hash: id and tag */
    cession_buf value;
    int64_t id, expires_at_ms;
} scanned;

/* The first record from `from` on. OK, NOT_FOUND or an error. */
static int read_next(handle *h, int64_t from, scanned *ret_record, cession_error *err)
{
    sqlite3_stmt *stmt = h->stmt[SQL_SCAN];
    sqlite3_bind_int64(stmt, P_ID, from);
    int status;
    int rc = step(h, stmt);
    if (rc == SQLITE_ROW) {
        const void *value = sqlite3_column_blob(stmt, 2);
        status = cession_buf_set(&ret_record->value, value, (size_t)sqlite3_column_bytes(stmt, 2));
        if (status == CESSION_OK) {
            ret_record->id = sqlite3_column_int64(stmt, 0);
            ret_record->expires_at_ms = sqlite3_column_int64(stmt, 3);
            put_be64(ret_record->key, ret_record->id);
            put_be64(ret_record->key + 8, sqlite3_column_int64(stmt, 1));
        } else {
            cession_fail(err, status, NULL);
        }
    } else {
        status = rc == SQLITE_DONE ? CESSION_NOT_FOUND : fail(h, rc, err);
    }
    sqlite3_reset(stmt);
    return status;
}

/* The cursor is the id to go on with, 8 bytes. No connection is held while the
 * visitor runs: it may call the store, and takes as long as it likes. */
static int sqlite_scan(cession_store *store, cession_buf *cursor, size_t batch,
                       cession_deadline deadline, cession_scan_fn *visit, void *context,
                       cession_error *err)
{
    int64_t from = INT64_MIN;
    if (cursor->len != 0) {
        if (cursor->len != 8) {
            return cession_fail(err, CESSION_E_INVALID, "the cursor comes from another store");
        }
        from = get_be64(cursor->data);
    }
    scanned record;
    cession_buf_init(&record.value, CESSION_VALUE_MAX);
    int rc = CESSION_OK;
    for (size_t i = 0; i < batch && rc == CESSION_OK; i++) {
        handle *h = NULL;
        rc = take(self_of(store), deadline, &h, err);
        if (rc != CESSION_OK) {
            break;
        }
        rc = read_next(h, from, &record, err);
        give_back(h);
        bool last = rc == CESSION_NOT_FOUND;
        if (rc == CESSION_OK) {
            last = record.id == INT64_MAX;
            uint8_t next[8];
            from = last ? record.id : record.id + 1;
            put_be64(next, from);
            rc = cession_buf_set(cursor, next, sizeof next);
            if (rc != CESSION_OK) {
                cession_fail(err, rc, NULL);
            } else if (record.expires_at_ms > ces_now_ms()) {
                rc = visit(context, cession_span_of(record.key, sizeof record.key),
                           cession_buf_span(&record.value), record.expires_at_ms);
            }
        } else if (last) {
            rc = CESSION_OK;
        }
        if (last) {
            cession_buf_clear(cursor);
            break;
        }
    }
    cession_buf_release(&record.value);
    return rc;
}

/* ---- life ------------------------------------------------------------------------ */

static void sqlite_close(cession_store *store)
{
    sqlite_store *self = self_of(store);
    self->closing = true;
    ces_pool_free(self->pool);
    ces_sqlite_log_release();
    ces_free(self);
}

typedef struct settings {
    const char *path;
    bool full_sync, hashed_keys;
    size_t max_handles;
} settings;

static int read_options(const cession_option *options, size_t count, settings *ret_settings,
                        cession_error *err)
{
    settings s = {.max_handles = HANDLES_DEFAULT};
    for (size_t i = 0; i < count; i++) {
        const char *value = options[i].value;
        if (strcmp(options[i].name, "path") == 0) {
            s.path = value;
        } else if (strcmp(options[i].name, "synchronous") == 0) {
            s.full_sync = strcasecmp(value, "full") == 0;
            if (!s.full_sync && strcasecmp(value, "normal") != 0) {
                return cession_fail(err, CESSION_E_INVALID,
                                    "synchronous of a sqlite store must be normal or full");
            }
        } else if (strcmp(options[i].name, "keys") == 0) {
            s.hashed_keys = strcmp(value, "hashed") == 0;
            if (!s.hashed_keys && strcmp(value, "text") != 0) {
                return cession_fail(err, CESSION_E_INVALID,
                                    "keys of a sqlite store must be text or hashed");
            }
        } else if (strcmp(options[i].name, "max_handles") == 0) {
            char *end;
            unsigned long number = strtoul(value, &end, 10);
            if (value[0] < '0' || value[0] > '9' || *end != '\0' || number < 1 ||
                number > HANDLES_MAX) {
                return cession_fail(err, CESSION_E_INVALID,
                                    "max_handles of a sqlite store must be 1 to %u", HANDLES_MAX);
            }
            s.max_handles = number;
        } else {
            return cession_fail(
                err, CESSION_E_INVALID,
                "unknown option; a sqlite store takes path, synchronous, max_handles and keys");
        }
    }
    if (s.path == NULL || s.path[0] == '\0' || s.path[0] == ':' ||
        s.path[strlen(s.path) - 1] == '/') {
        return cession_fail(err, CESSION_E_INVALID,
                            "a sqlite store needs a path to a file; for sessions in memory "
                            "take a memory store");
    }
    *ret_settings = s;
    return CESSION_OK;
}

/* Absolute from the start: the process may change its directory before the first
 * operation opens the file. A path that does not start with a slash could also
 * be taken for a URI by SQLite. */
static int absolute(const char *path, char ret_path[PATH_BYTES_MAX], cession_error *err)
{
    int len;
    if (path[0] == '/') {
        while (path[1] == '/') {
            path++;
        }
        len = snprintf(ret_path, PATH_BYTES_MAX, "%s", path);
    } else {
        char cwd[PATH_MAX];
        if (getcwd(cwd, sizeof cwd) == NULL) {
            return cession_fail(err, CESSION_E_UNAVAILABLE,
                                "the path is relative and the current directory is unknown");
        }
        len = snprintf(ret_path, PATH_BYTES_MAX, "%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, path);
    }
    if (len < 0 || len >= PATH_BYTES_MAX) {
        return cession_fail(err, CESSION_E_LIMIT, "the path of the database is too long");
    }
    return CESSION_OK;
}

static int sqlite_open(const cession_option *options, size_t count, cession_store **ret_store,
                       cession_error *err)
{
    if (sqlite3_threadsafe() == 0 || sqlite3_libversion_number() < SQLITE_OLDEST) {
        return cession_fail(err, CESSION_E_UNSUPPORTED,
                            "SQLite 3.24 or newer is needed, built with threads; this is %s",
                            sqlite3_libversion());
    }
    settings s = {0};
    int rc = read_options(options, count, &s, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    char path[PATH_BYTES_MAX];
    rc = absolute(s.path, path, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    size_t len = strlen(path);
    sqlite_store *self = ces_alloc_zero(sizeof *self + len + 1);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->base = (cession_store){
        .ops = &ces_driver_sqlite,
        .caps = CESSION_CAP_GIVES_EXPIRY | CESSION_CAP_ATOMIC | CESSION_CAP_LISTABLE |
                CESSION_CAP_HASHED_KEYS | CESSION_CAP_MAINTAIN |
                (s.full_sync ? 0 : (unsigned)CESSION_CAP_FAST),
    };
    self->full_sync = s.full_sync;
    self->hashed_keys = s.hashed_keys;
    atomic_init(&self->wal_due, WAL_DUE_PAGES);
    memcpy(self->path, path, len + 1);
    self->dir_len = (size_t)(strrchr(self->path, '/') - self->path);
    ces_pool_config config = {.max = s.max_handles,
                              .open = handle_open,
                              .close = handle_close,
                              .close_before_fork = true,
                              .context = self};
    rc = ces_sqlite_log_acquire(&self->vfs, err);
    if (rc != CESSION_OK) {
        ces_free(self);
        return rc;
    }
    rc = ces_pool_new(&config, &self->pool, err);
    if (rc != CESSION_OK) {
        ces_sqlite_log_release();
        ces_free(self);
        return rc;
    }
    *ret_store = &self->base;
    return CESSION_OK;
}

const cession_store_ops ces_driver_sqlite = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "sqlite",
    .open = sqlite_open,
    .close = sqlite_close,
    .load = sqlite_load,
    .create = sqlite_create,
    .replace = sqlite_replace,
    .touch = sqlite_touch,
    .remove = sqlite_remove,
    .purge = sqlite_purge,
    .scan = sqlite_scan,
    .maintain = sqlite_maintain,
    .maintenance_due = sqlite_maintenance_due,
};
