/* See sqlite_log.h. The format of the log: https://www.sqlite.org/walformat.html
 *
 * Why it is safe to hold back a page that SQLite believes written: other connections look
 * at pages of the log only once the index (the -shm file) names them, which SQLite does
 * after it has written the last page of the commit. That write is where everything goes
 * out, and its result is SQLite's; so an error is met before anybody is told of the
 * commit. Every other use of the file (reading, syncing, truncating...) writes first what
 * is held.
 *
 * Only frames at the end of what this connection has written are held, as SQLite may go
 * back and write 24 bytes alone (new checksums, when a page was written twice in one
 * commit) after the last page.
 */
#include "drivers/sqlite_log.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <sqlite3.h>

#include "base/alloc.h"
#include "base/os.h"
#include "base/banned.h"

#define LOG_HEADER_BYTES 32
#define FRAME_HEADER_BYTES 24
#define FRAME_COMMIT_AT 4 /* of the frame's header: not zero in the last frame of a commit */
/* The pages that one session changes at most: those beside its own in the table and in the index
 * when they are divided, and the first page of the file. More is written in several parts. */
#define HELD_MAX ((size_t)12 * (FRAME_HEADER_BYTES + 4096))

typedef struct log_file {
    sqlite3_file base;
    sqlite3_file *real; /* of SQLite's own VFS; in the same block, behind this */
    uint8_t *held;      /* HELD_MAX bytes, or NULL: none needed yet */
    size_t held_len;
    sqlite3_int64 held_at;
    sqlite3_int64 header_end; /* where the page of the last frame header has to stand; -1: none */
    sqlite3_int64 frames_end; /* where the last whole frame of this connection ends */
    bool commit;              /* the frame under way is the last of its commit */
} log_file;

static log_file *self_of(sqlite3_file *file)
{
    return (log_file *)file;
}

/* Write what is held. It is let go of in any case: after an error SQLite rolls back. */
static int flush(log_file *self)
{
    size_t len = self->held_len;
    if (len == 0) {
        return SQLITE_OK;
    }
    self->held_len = 0;
    return self->real->pMethods->xWrite(self->real, self->held, (int)len, self->held_at);
}

/* The real file, with nothing held back. */
static int settled(sqlite3_file *file, sqlite3_file **ret_real)
{
    log_file *self = self_of(file);
    *ret_real = self->real;
    self->header_end = -1;
    return flush(self);
}

static int hold(log_file *self, const void *data, size_t amount, sqlite3_int64 offset)
{
    if (!self->held) {
        self->held = ces_alloc(HELD_MAX);
        if (!self->held) {
            return SQLITE_IOERR_NOMEM;
        }
    }
    if (self->held_len == 0) {
        self->held_at = offset;
    }
    memcpy(self->held + self->held_len, data, amount);
    self->held_len += amount;
    return SQLITE_OK;
}

static int log_write(sqlite3_file *file, const void *data, int amount, sqlite3_int64 offset)
{
    static const uint8_t no_commit[4];
    log_file *self = self_of(file);
    bool page = self->header_end >= 0 && offset == self->header_end;
    bool header = !page && amount == FRAME_HEADER_BYTES && offset >= LOG_HEADER_BYTES;
    self->header_end = header ? offset + FRAME_HEADER_BYTES : -1;
    if (header) {
        self->commit = memcmp((const uint8_t *)data + FRAME_COMMIT_AT, no_commit, 4) != 0;
    }
    bool follows = self->held_len > 0 && offset == self->held_at + (sqlite3_int64)self->held_len;
    bool fits = self->held_len + (size_t)amount <= HELD_MAX;
    if (!(page || header) || !follows || !fits) {
        int status = flush(self);
        if (status != SQLITE_OK) {
            return status;
        }
    }
    bool begins = header && offset >= self->frames_end;
    if (page) {
        self->frames_end = offset + amount;
    }
    if (self->held_len == 0 && !begins) {
        return self->real->pMethods->xWrite(self->real, data, amount, offset);
    }
    int status = hold(self, data, (size_t)amount, offset);
    return status == SQLITE_OK && page && self->commit ? flush(self) : status;
}

static int log_close(sqlite3_file *file)
{
    log_file *self = self_of(file);
    /* What is held now belongs to no commit. */
    ces_free(self->held);
    self->held = NULL;
    self->held_len = 0;
    return self->real->pMethods->xClose(self->real);
}

static int log_read(sqlite3_file *file, void *room, int amount, sqlite3_int64 offset)
{
    sqlite3_file *real;
    int status = settled(file, &real);
    return status == SQLITE_OK ? real->pMethods->xRead(real, room, amount, offset) : status;
}

static int log_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    sqlite3_file *real;
    int status = settled(file, &real);
    return status == SQLITE_OK ? real->pMethods->xTruncate(real, size) : status;
}

static int log_sync(sqlite3_file *file, int flags)
{
    sqlite3_file *real;
    int status = settled(file, &real);
    return status == SQLITE_OK ? real->pMethods->xSync(real, flags) : status;
}

static int log_size(sqlite3_file *file, sqlite3_int64 *ret_size)
{
    sqlite3_file *real;
    int status = settled(file, &real);
    return status == SQLITE_OK ? real->pMethods->xFileSize(real, ret_size) : status;
}

static int log_control(sqlite3_file *file, int code, void *value)
{
    sqlite3_file *real;
    int status = settled(file, &real);
    return status == SQLITE_OK ? real->pMethods->xFileControl(real, code, value) : status;
}

static int log_lock(sqlite3_file *file, int level)
{
    return self_of(file)->real->pMethods->xLock(self_of(file)->real, level);
}

static int log_unlock(sqlite3_file *file, int level)
{
    return self_of(file)->real->pMethods->xUnlock(self_of(file)->real, level);
}

static int log_check_lock(sqlite3_file *file, int *ret_reserved)
{
    sqlite3_file *real = self_of(file)->real;
    return real->pMethods->xCheckReservedLock(real, ret_reserved);
}

static int log_sector_size(sqlite3_file *file)
{
    return self_of(file)->real->pMethods->xSectorSize(self_of(file)->real);
}

static int log_device(sqlite3_file *file)
{
    return self_of(file)->real->pMethods->xDeviceCharacteristics(self_of(file)->real);
}

/* Version 1: shared memory and mapped pages belong to the database file. */
static const sqlite3_io_methods log_methods = {
    .iVersion = 1,
    .xClose = log_close,
    .xRead = log_read,
    .xWrite = log_write,
    .xTruncate = log_truncate,
    .xSync = log_sync,
    .xFileSize = log_size,
    .xLock = log_lock,
    .xUnlock = log_unlock,
    .xCheckReservedLock = log_check_lock,
    .xFileControl = log_control,
    .xSectorSize = log_sector_size,
    .xDeviceCharacteristics = log_device,
};

/* ---- the VFS ---------------------------------------------------------------------- */

static sqlite3_vfs *real_of(sqlite3_vfs *vfs)
{
    return vfs->pAppData;
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                    int *ret_flags)
{
    sqlite3_vfs *real = real_of(vfs);
    if (!(flags & SQLITE_OPEN_WAL)) {
        return real->xOpen(real, name, file, flags, ret_flags);
    }
    log_file *self = self_of(file);
    *self = (log_file){.real = (sqlite3_file *)(self + 1), .header_end = -1};
    int status = real->xOpen(real, name, self->real, flags, ret_flags);
    /* With methods SQLite closes it, after an error, too. */
    self->base.pMethods = self->real->pMethods ? &log_methods : NULL;
    return status;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    return real_of(vfs)->xDelete(real_of(vfs), name, sync);
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret_answer)
{
    return real_of(vfs)->xAccess(real_of(vfs), name, flags, ret_answer);
}

static int vfs_full_path(sqlite3_vfs *vfs, const char *name, int size, char *ret_path)
{
    return real_of(vfs)->xFullPathname(real_of(vfs), name, size, ret_path);
}

static int vfs_random(sqlite3_vfs *vfs, int size, char *ret_bytes)
{
    return real_of(vfs)->xRandomness(real_of(vfs), size, ret_bytes);
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    return real_of(vfs)->xSleep(real_of(vfs), microseconds);
}

static int vfs_time(sqlite3_vfs *vfs, double *ret_days)
{
    return real_of(vfs)->xCurrentTime(real_of(vfs), ret_days);
}

static int vfs_last_error(sqlite3_vfs *vfs, int size, char *ret_text)
{
    return real_of(vfs)->xGetLastError(real_of(vfs), size, ret_text);
}

static int vfs_time_ms(sqlite3_vfs *vfs, sqlite3_int64 *ret_ms)
{
    return real_of(vfs)->xCurrentTimeInt64(real_of(vfs), ret_ms);
}

/* Held across a fork, so that the child never finds it taken by a thread it does not have. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned users;
static bool registered;
static sqlite3_vfs shared_vfs;
static char vfs_name[40];

static bool install(void)
{
    sqlite3_vfs *real = sqlite3_vfs_find(NULL);
    if (!real) {
        return false;
    }
    /* A program may hold this code twice (the extension and the C library): the address
     * keeps them apart. */
    (void)snprintf(vfs_name, sizeof vfs_name, "cession-%p", (void *)&shared_vfs);
    /* Without xDlOpen and its like: these connections load no extensions. */
    shared_vfs = (sqlite3_vfs){
        .iVersion = real->iVersion >= 2 ? 2 : 1,
        .szOsFile = (int)sizeof(log_file) + real->szOsFile,
        .mxPathname = real->mxPathname,
        .zName = vfs_name,
        .pAppData = real,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_path,
        .xRandomness = vfs_random,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_time,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = real->iVersion >= 2 ? vfs_time_ms : NULL,
    };
    return sqlite3_vfs_register(&shared_vfs, 0) == SQLITE_OK;
}

static void take_lock(void *context)
{
    (void)context;
    pthread_mutex_lock(&lock);
}

static void drop_lock(void *context)
{
    (void)context;
    pthread_mutex_unlock(&lock);
}

int ces_sqlite_log_acquire(const char **ret_name, cession_error *err)
{
    static ces_fork_hook hook = {.prepare = take_lock, .parent = drop_lock, .child = drop_lock};
    int rc = ces_fork_register(&hook, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    pthread_mutex_lock(&lock);
    if (users++ == 0) {
        registered = install();
    }
    *ret_name = registered ? vfs_name : NULL;
    pthread_mutex_unlock(&lock);
    return CESSION_OK;
}

void ces_sqlite_log_release(void)
{
    pthread_mutex_lock(&lock);
    if (--users == 0 && registered) {
        sqlite3_vfs_unregister(&shared_vfs);
        registered = false;
    }
    pthread_mutex_unlock(&lock);
}
