/* What the parts of the file store share. Layout of a store at <path>:
 *
 *     <path>/                  the application's; session files of cachelib lie here
 *     <path>/cession/          ours, 0700
 *     <path>/cession/lock      byte range locks, one byte a key
 *     <path>/cession/ab/       256 shards, by the first byte of the key's SHA-256
 *     <path>/cession/ab/<64 hex digits>    one session
 *     <path>/cession/ab/tmp-<32 hex digits>    being written
 *
 * Rules that everything rests on:
 * - A session file is only ever replaced by rename, but for the 16 bytes of its
 *   expiry. So whoever opened one reads a whole record, without a lock.
 * - Every change of a key is made under the key's lock.
 * - While a file of ours is there for a key, live or not, cachelib's file of that
 *   key counts for nothing; whoever deletes ours deletes cachelib's first. So
 *   no crash brings an old session back.
 * - Nothing is trusted that is not a plain file with one name, owned by our
 *   effective user; symbolic links are not followed below <path>.
 */
#ifndef CES_DRIVERS_FILESYSTEM_H
#define CES_DRIVERS_FILESYSTEM_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>

#include <openssl/evp.h>

#include "base/os.h"
#include "cession/store.h"
#include "drivers/filesystem_record.h"

#define CES_FILES_SHARDS 256u
#define CES_FILES_HASH_LEN 32u
#define CES_FILES_NAME_SIZE 65u /* hex digits and NUL */
#define CES_FILES_SHARD_SIZE 3u /* the same for a shard */
#define CES_FILES_MD5_LEN 16u
#define CES_FILES_TMP_PREFIX "tmp-"
#define CES_FILES_TMP_SIZE 37u

/* What <path> holds of cachelib. Files of a kind that is there but not _MD5 or
 * _SHA256 (cachelib itself did not read them any more) are deleted, never read. */
enum {
    CES_FILES_LEGACY_SOME = 1u << 0,  /* perhaps something */
    CES_FILES_LEGACY_MD5 = 1u << 1,   /* files of cachelib up to 0.15 count */
    CES_FILES_LEGACY_SHA256 = 1u << 2 /* files of cachelib from 0.16 on count */
};

/* The open directory <path>/cession. Shared by reference count; replaced when
 * the directory was deleted or moved under us. */
typedef struct ces_files_root {
    int fd;
    unsigned refs; /* under the store's mutex, as all below that changes */
    dev_t dev;     /* of fd: it may be closed and reused behind our back (daemons) */
    ino_t ino;
    dev_t top_dev; /* of <path> */
    ino_t top_ino;
    unsigned legacy; /* CES_FILES_LEGACY_... */
    bool settled;    /* no file of cachelib, as long as <path> has this mtime */
    struct timespec top_mtime;
    int64_t legacy_until_ns; /* monotonic: look again after that */
} ces_files_root;

/* An open lock file: its own open file description, so that threads exclude
 * each other as processes do. Linked into the store, so that a forked child can
 * close its copy: a lock lives until the last copy is closed. */
typedef struct ces_files_lock ces_files_lock;
struct ces_files_lock {
    int fd;
    bool held;
    off_t at;
    ces_files_lock *next, *prev;
};

/* Where a sweep goes on: a shard, or CES_FILES_SHARDS for <path> itself, and a
 * place in that directory as getdents gives it. */
typedef struct ces_files_place {
    unsigned shard;
    int64_t at;
} ces_files_place;

typedef struct ces_files {
    cession_store base;
    char *path;     /* <path>, absolute, no slash at the end */
    char *sub_path; /* <path>/cession */
    mode_t mode;
    bool sync;
    unsigned threshold; /* 0: never sweep on its own */
    EVP_MD *sha256;
    EVP_MD *md5; /* NULL where the system forbids it: such names cannot exist then */

    pthread_mutex_t mutex; /* a leaf; never held over I/O */
    ces_files_root *root;  /* NULL: not opened yet */
    ces_files_lock *locks;
    unsigned forks;
    ces_files_place place;
    ces_fork_hook hook;

    atomic_bool no_openat2;
    atomic_uint creates;        /* since the last sweep */
    atomic_uint_least64_t seen; /* estimated number of files plus 1; 0: unknown */
} ces_files;

static inline ces_files *ces_files_of(cession_store *store)
{
    return (ces_files *)store;
}

/* The name of a key. */
typedef struct ces_files_name {
    uint8_t hash[CES_FILES_HASH_LEN];
    char shard[CES_FILES_SHARD_SIZE];
    char file[CES_FILES_NAME_SIZE];
} ces_files_name;

int ces_files_name_of(const ces_files *self, cession_span key, ces_files_name *ret_name,
                      cession_error *err);
void ces_files_name_of_hash(const uint8_t hash[CES_FILES_HASH_LEN], ces_files_name *ret_name);
void ces_files_shard_name(unsigned shard, char ret_shard[CES_FILES_SHARD_SIZE]);
void ces_files_hex(const uint8_t *bytes, size_t len, char *ret_hex); /* and NUL */
/* False: not exactly len bytes in lower case digits. */
bool ces_files_unhex(const char *hex, uint8_t *ret_bytes, size_t len);

/* A text for errno of a failed call; what says what was being done. */
int ces_files_fail(cession_error *err, int number, const char *what);

/* ---- filesystem_dir.c: directories and locks -------------------------------- */

/* Take the root. OK; NOT_FOUND: there is no such directory (make false). make
 * creates what is missing. Every root taken is given back by _drop. */
int ces_files_root_take(ces_files *self, bool make, ces_files_root **ret_root, cession_error *err);
void ces_files_root_drop(ces_files *self, ces_files_root *root);
/* Is it still the directory that <path> names, and still ours alone?
 * OK: *ret_legacy says which files of cachelib have to be looked for (0: none).
 * GONE: no longer; the store has forgotten it, drop it and take it again. */
int ces_files_root_check(ces_files *self, ces_files_root *root, unsigned *ret_legacy,
                         cession_error *err);
/* Open <path> from its part. GONE: that was moved elsewhere. */
int ces_files_top_open(const ces_files_root *root, int *ret_fd, cession_error *err);
/* OK; NOT_FOUND: there is none (make false); E_FOREIGN: something else is there. */
int ces_files_shard_open(const ces_files *self, const ces_files_root *root, const char *shard,
                         bool make, int *ret_fd, cession_error *err);

/* Open the lock file (GONE: the directory was deleted, and is forgotten), then take and drop one
 * key's lock after the other. take: OK, GONE as above, E_BUSY at once when the
 * deadline is 0, E_TIMEOUT. */
int ces_files_lock_open(ces_files *self, ces_files_root *root, ces_files_lock *ret_lock,
                        cession_error *err);
int ces_files_lock_take(ces_files_lock *lock, const uint8_t hash[CES_FILES_HASH_LEN],
                        cession_deadline deadline, cession_error *err);
void ces_files_lock_drop(ces_files_lock *lock);
void ces_files_lock_close(ces_files *self, ces_files_lock *lock);

/* Fork hooks; context is the store. */
void ces_files_fork_prepare(void *context);
void ces_files_fork_parent(void *context);
void ces_files_fork_child(void *context);

/* ---- filesystem_file.c: single files ----------------------------------------- */

/* Open a file for reading (and writing, for a touch).
 * OK; NOT_FOUND: nothing has this name; E_FORMAT: what has this name is not to
 * be trusted (a link, a pipe, another owner's, a second name elsewhere). */
int ces_files_open(int dir_fd, const char *name, bool writable, int *ret_fd, struct stat *ret_stat,
                   cession_error *err);
/* Read a whole session file of this key. OK; NOT_FOUND: nothing there; E_FORMAT:
 * no valid record of this key. *ret_fd: open and writable when ret_fd is given. */
int ces_files_read(int shard_fd, const ces_files_name *name, cession_span key, cession_buf *value,
                   ces_file_head *ret_head, int *ret_fd, cession_error *err);
/* The same from the root, without a lock: what a load does. */
int ces_files_find(ces_files *self, const ces_files_root *root, const ces_files_name *name,
                   cession_span key, cession_buf *value, ces_file_head *ret_head,
                   cession_error *err);
/* The same from an open file: OK or E_FORMAT. */
int ces_files_read_open(int fd, const struct stat *st, cession_span key, cession_buf *value,
                        ces_file_head *ret_head, cession_error *err);
/* Fill buf from fd at offset; CESSION_E_FORMAT when the file is shorter. */
int ces_files_pread(int fd, void *buf, size_t len, off_t offset, cession_error *err);
/* Put a record in place of whatever has the name. */
int ces_files_write(const ces_files *self, int shard_fd, const ces_files_name *name,
                    cession_span key, cession_span value, int64_t expires_at_ms,
                    cession_error *err);
/* OK also when it was not there. */
int ces_files_unlink(int dir_fd, const char *name, cession_error *err);
int ces_files_sync_dir(const ces_files *self, int dir_fd, cession_error *err);

/* Calls visit for every entry of the directory but "." and "..", from *place on
 * (0: the start); *place moves on. A visit that is not OK ends the walk with its
 * answer; the entry is seen again by the next walk. */
typedef int ces_files_entry_fn(void *context, const char *name);
int ces_files_walk(int dir_fd, int64_t *place, ces_files_entry_fn *visit, void *context,
                   cession_error *err);

/* ---- filesystem_legacy.c: what cachelib left in <path> ------------------------ */

/* Look through <path>: CES_FILES_LEGACY_... */
int ces_files_legacy_find(const ces_files *self, int top_fd, unsigned *ret_legacy,
                          cession_error *err);
/* Read cachelib's live record of key: OK, or NOT_FOUND. */
int ces_files_legacy_read(const ces_files *self, const ces_files_root *root, unsigned legacy,
                          const ces_files_name *name, cession_span key, cession_buf *value,
                          int64_t *ret_expires_at_ms, cession_error *err);
/* Delete whatever cachelib's files of key are there. */
int ces_files_legacy_unlink(const ces_files *self, const ces_files_root *root,
                            const ces_files_name *name, cession_span key, cession_error *err);
/* Delete the file <path>/name if it is cachelib's and expired long ago. */
int ces_files_legacy_sweep(const ces_files *self, int top_fd, const char *name, int64_t now_ms,
                           bool *ret_deleted, cession_error *err);

/* ---- filesystem_sweep.c -------------------------------------------------------- */

/* Start the counters: every process somewhere else. */
void ces_files_sweep_start(ces_files *self);
cession_store_purge_fn ces_files_purge;
cession_store_maintain_fn ces_files_maintain;
cession_store_maintenance_due_fn ces_files_maintenance_due;
cession_store_scan_fn ces_files_scan;

#endif
