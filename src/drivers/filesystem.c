/* The file store: one file a session, as described in filesystem.h and for
 * people in docs/backends/filesystem.md.
 *
 * Caveats:
 * - A local file system, or one with OFD locks and atomic rename that all workers
 *   see alike.
 * - sync=none (the default) leaves it to the system when data reaches the disk: a
 *   power cut may lose the latest writes. What it leaves half-written has a wrong
 *   check and is no session. A killed process loses nothing.
 * - Expired files lie until a purge or a sweep.
 * - Not FAST: on a disk a rename can wait for the journal. */
#include "drivers/drivers.h"
#include "drivers/filesystem.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/err.h>

#include "base/alloc.h"
#include "base/banned.h"

#define SUB_NAME "/cession"
#define PATH_LEN_MAX 3900u /* below PATH_MAX with all that is put behind it */
#define THRESHOLD_DEFAULT 500u
#define THRESHOLD_MAX 1000000000ul
#define MODE_DEFAULT 0600u
/* How often the directory may vanish under one operation before it gives up. */
#define TRIES 8

/* ---- names ---------------------------------------------------------------------- */

void ces_files_hex(const uint8_t *bytes, size_t len, char *ret_hex)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        *ret_hex++ = digits[bytes[i] >> 4];
        *ret_hex++ = digits[bytes[i] & 15];
    }
    *ret_hex = '\0';
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool ces_files_unhex(const char *hex, uint8_t *ret_bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        int high = digit_value(hex[2 * i]);
        int low = high < 0 ? -1 : digit_value(hex[2 * i + 1]);
        if (low < 0) {
            return false;
        }
        ret_bytes[i] = (uint8_t)(high * 16 + low);
    }
    return hex[2 * len] == '\0';
}

void ces_files_shard_name(unsigned shard, char ret_shard[CES_FILES_SHARD_SIZE])
{
    uint8_t byte = (uint8_t)shard;
    ces_files_hex(&byte, 1, ret_shard);
}

void ces_files_name_of_hash(const uint8_t hash[CES_FILES_HASH_LEN], ces_files_name *ret_name)
{
    memcpy(ret_name->hash, hash, CES_FILES_HASH_LEN);
    ces_files_shard_name(hash[0], ret_name->shard);
    ces_files_hex(hash, CES_FILES_HASH_LEN, ret_name->file);
}

int ces_files_name_of(const ces_files *self, cession_span key, ces_files_name *ret_name,
                      cession_error *err)
{
    uint8_t hash[CES_FILES_HASH_LEN];
    if (EVP_Digest(key.data, key.len, hash, NULL, self->sha256, NULL) != 1) {
        return cession_fail(err, CESSION_E_CRYPTO, "SHA-256 failed");
    }
    ces_files_name_of_hash(hash, ret_name);
    return CESSION_OK;
}

/* ---- what a key has --------------------------------------------------------------- */

typedef enum state {
    NOTHING, /* no file of ours, no live one of cachelib's */
    DEAD,    /* a file of ours, expired or no record: cachelib's counts for nothing */
    LIVE,
    LEGACY /* a live record of cachelib's */
} state;

/* What a look at our file gave, and if there is none, a look at cachelib's. */
static int conclude(const ces_files *self, const ces_files_root *root, unsigned legacy,
                    const ces_files_name *name, cession_span key, int rc, const ces_file_head *head,
                    cession_stored *stored, state *ret_state, cession_error *err)
{
    if (rc == CESSION_OK) {
        stored->expires_at_ms = head->expires_at_ms;
        *ret_state = head->expires_at_ms > ces_now_ms() ? LIVE : DEAD;
        return CESSION_OK;
    }
    if (rc == CESSION_E_FORMAT) {
        *ret_state = DEAD;
        return CESSION_OK;
    }
    if (rc == CESSION_NOT_FOUND && legacy != 0) {
        rc = ces_files_legacy_read(self, root, legacy, name, key, &stored->value,
                                   &stored->expires_at_ms, err);
        if (rc == CESSION_OK) {
            *ret_state = LEGACY;
            return CESSION_OK;
        }
    }
    if (rc == CESSION_NOT_FOUND) {
        *ret_state = NOTHING;
        return CESSION_OK;
    }
    return rc;
}

/* Contract: outputs are set together or not at all. */
static void give(cession_stored *stored, cession_stored *ret_stored)
{
    cession_buf_swap(&stored->value, &ret_stored->value);
    ret_stored->version_len = 0;
    ret_stored->expires_at_ms = stored->expires_at_ms;
}

static void stored_start(cession_stored *stored, size_t max)
{
    cession_stored_init(stored);
    stored->value.max = max;
}

/* ---- load ---------------------------------------------------------------------------- */

static int look_in(ces_files *self, const ces_files_root *root, unsigned legacy,
                   const ces_files_name *name, cession_span key, cession_stored *stored,
                   state *ret_state, cession_error *err)
{
    ces_file_head head = {0};
    int rc = ces_files_find(self, root, name, key, &stored->value, &head, err);
    return conclude(self, root, legacy, name, key, rc, &head, stored, ret_state, err);
}

/* OK, NOT_FOUND, or GONE: the directory was exchanged, load again. A hit needs no
 * look at the directory; a miss or an error is believed only in the right one. */
static int load_once(ces_files *self, ces_files_root *root, const ces_files_name *name,
                     cession_span key, cession_stored *stored, cession_error *err)
{
    state found = NOTHING;
    int rc = look_in(self, root, 0, name, key, stored, &found, err);
    if (rc != CESSION_OK || found == NOTHING) {
        unsigned legacy = 0;
        int check = ces_files_root_check(self, root, &legacy, err);
        if (check != CESSION_OK) {
            return check;
        }
        if (rc == CESSION_OK && legacy != 0) {
            rc = look_in(self, root, legacy, name, key, stored, &found, err);
            if (rc == CESSION_OK && found == NOTHING) {
                /* Somebody may have turned cachelib's file into ours between the
                 * looks at the one and the other. */
                rc = look_in(self, root, 0, name, key, stored, &found, err);
            }
        }
    }
    if (rc == CESSION_E_FOREIGN) {
        return CESSION_NOT_FOUND;
    }
    if (rc != CESSION_OK) {
        return rc;
    }
    return found == LIVE || found == LEGACY ? CESSION_OK : CESSION_NOT_FOUND;
}

static int restless(cession_error *err)
{
    return cession_fail(err, CESSION_E_UNAVAILABLE,
                        "the session directory is deleted or exchanged again and again");
}

static int files_load(cession_store *store, cession_span key, cession_deadline deadline,
                      cession_stored *ret_stored, cession_error *err)
{
    (void)deadline; /* reads wait for nobody */
    ces_files *self = ces_files_of(store);
    ces_files_name name;
    int rc = ces_files_name_of(self, key, &name, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    cession_stored stored;
    stored_start(&stored, ret_stored->value.max);
    rc = CESSION_GONE;
    for (int tries = 0; rc == CESSION_GONE && tries < TRIES; tries++) {
        ces_files_root *root;
        rc = ces_files_root_take(self, false, &root, err);
        if (rc == CESSION_OK) {
            rc = load_once(self, root, &name, key, &stored, err);
            ces_files_root_drop(self, root);
        }
    }
    if (rc == CESSION_OK) {
        give(&stored, ret_stored);
    }
    cession_stored_release(&stored);
    return rc == CESSION_GONE ? restless(err) : rc;
}

/* ---- changes ---------------------------------------------------------------------------- */

/* A key's lock, and all that a change needs. */
typedef struct hold {
    ces_files_root *root;
    ces_files_lock lock;
    int shard_fd; /* -1: there is no such shard yet */
    unsigned legacy;
    ces_files_name name;
} hold;

static void hold_drop(ces_files *self, hold *h)
{
    if (h->shard_fd >= 0) {
        close(h->shard_fd);
    }
    ces_files_lock_close(self, &h->lock);
    ces_files_root_drop(self, h->root);
}

/* OK; GONE: the directory was exchanged; NOT_FOUND: there is none (make false). */
static int hold_once(ces_files *self, bool make, cession_deadline deadline, hold *h,
                     cession_error *err)
{
    int rc = ces_files_root_take(self, make, &h->root, err);
    if (rc != CESSION_OK) {
        return make && rc == CESSION_NOT_FOUND ? CESSION_GONE : rc;
    }
    rc = ces_files_root_check(self, h->root, &h->legacy, err);
    if (rc == CESSION_OK) {
        rc = ces_files_lock_open(self, h->root, &h->lock, err);
    }
    if (rc != CESSION_OK) {
        ces_files_root_drop(self, h->root);
        return rc;
    }
    rc = ces_files_lock_take(&h->lock, h->name.hash, deadline, err);
    h->shard_fd = -1;
    if (rc == CESSION_OK) {
        rc = ces_files_shard_open(self, h->root, h->name.shard, make, &h->shard_fd, err);
        if (rc == CESSION_NOT_FOUND) {
            rc = make ? CESSION_GONE : CESSION_OK;
        }
    }
    if (rc != CESSION_OK) {
        hold_drop(self, h);
    }
    return rc;
}

static int hold_take(ces_files *self, cession_span key, bool make, cession_deadline deadline,
                     hold *ret_hold, cession_error *err)
{
    int rc = ces_files_name_of(self, key, &ret_hold->name, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    rc = CESSION_GONE;
    for (int tries = 0; rc == CESSION_GONE && tries < TRIES; tries++) {
        rc = hold_once(self, make, deadline, ret_hold, err);
    }
    return rc == CESSION_GONE ? restless(err) : rc;
}

/* What the key has, under its lock. With ret_fd, a LIVE file stays open there, to
 * be written to. */
static int look(const ces_files *self, const hold *h, cession_span key, cession_stored *stored,
                ces_file_head *ret_head, int *ret_fd, state *ret_state, cession_error *err)
{
    int rc = CESSION_NOT_FOUND;
    if (h->shard_fd >= 0) {
        rc = ces_files_read(h->shard_fd, &h->name, key, &stored->value, ret_head, ret_fd, err);
    }
    bool opened = rc == CESSION_OK && ret_fd != NULL;
    rc = conclude(self, h->root, h->legacy, &h->name, key, rc, ret_head, stored, ret_state, err);
    if (opened && *ret_state != LIVE) {
        close(*ret_fd);
    }
    return rc;
}

/* Write ours, then delete cachelib's. When the deletion fails, ours hides it, and
 * it is tried again by whatever changes or deletes ours. */
static int put(ces_files *self, hold *h, cession_span key, cession_span value, int64_t ttl_ms,
               cession_error *err)
{
    int rc = CESSION_OK;
    if (h->shard_fd < 0) {
        rc = ces_files_shard_open(self, h->root, h->name.shard, true, &h->shard_fd, err);
        if (rc == CESSION_NOT_FOUND) {
            return restless(err);
        }
    }
    if (rc == CESSION_OK) {
        rc = ces_files_write(self, h->shard_fd, &h->name, key, value, ces_now_ms() + ttl_ms, err);
    }
    if (rc == CESSION_OK && h->legacy != 0) {
        (void)ces_files_legacy_unlink(self, h->root, &h->name, key, NULL);
    }
    return rc;
}

static int files_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                        cession_deadline deadline, cession_error *err)
{
    ces_files *self = ces_files_of(store);
    hold h;
    int rc = hold_take(self, key, true, deadline, &h, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    cession_stored stored;
    ces_file_head head = {0};
    state found = NOTHING;
    stored_start(&stored, CESSION_VALUE_MAX);
    rc = look(self, &h, key, &stored, &head, NULL, &found, err);
    cession_stored_release(&stored);
    if (rc == CESSION_OK && (found == LIVE || found == LEGACY)) {
        rc = CESSION_EXISTS;
    }
    if (rc == CESSION_OK) {
        rc = put(self, &h, key, value, ttl_ms, err);
        atomic_fetch_add_explicit(&self->creates, 1, memory_order_relaxed);
    }
    hold_drop(self, &h);
    return rc;
}

static int files_replace(cession_store *store, cession_span key, const cession_expected *expected,
                         cession_span value, int64_t ttl_ms, cession_deadline deadline,
                         cession_stored *ret_current, cession_error *err)
{
    ces_files *self = ces_files_of(store);
    hold h;
    int rc = hold_take(self, key, false, deadline, &h, err);
    if (rc != CESSION_OK) {
        return rc == CESSION_NOT_FOUND ? CESSION_GONE : rc;
    }
    cession_stored stored;
    ces_file_head head = {0};
    state found = NOTHING;
    stored_start(&stored, ret_current->value.max);
    rc = look(self, &h, key, &stored, &head, NULL, &found, err);
    if (rc == CESSION_OK) {
        if (found != LIVE && found != LEGACY) {
            rc = CESSION_GONE;
        } else if (!cession_span_eq(cession_buf_span(&stored.value), expected->value)) {
            rc = CESSION_CONFLICT;
        } else {
            rc = put(self, &h, key, value, ttl_ms, err);
        }
    }
    hold_drop(self, &h);
    if (rc == CESSION_CONFLICT) {
        give(&stored, ret_current);
    }
    cession_stored_release(&stored);
    return rc;
}

/* In place: a whole new file would cost five times as much for 16 bytes. A reader
 * sees the old expiry or the new one, or a pair that does not fit and looks again;
 * both lie in one sector, so a power cut does not part them either. */
static int write_expiry(const ces_files *self, int fd, uint64_t check, int64_t expires_at_ms,
                        bool *ret_whole, cession_error *err)
{
    uint8_t slot[CES_FILE_EXPIRY_LEN];
    ces_file_expiry_write(slot, check, expires_at_ms);
    ssize_t put_len;
    do {
        put_len = pwrite(fd, slot, sizeof slot, CES_FILE_EXPIRY_AT);
    } while (put_len < 0 && errno == EINTR);
    *ret_whole = put_len == (ssize_t)sizeof slot;
    if (put_len < 0) {
        return ces_files_fail(err, errno, "writing a session file");
    }
    if (self->sync && fdatasync(fd) != 0) {
        return ces_files_fail(err, errno, "writing a session file");
    }
    return CESSION_OK;
}

static int files_touch(cession_store *store, cession_span key, const cession_expected *expected,
                       int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    ces_files *self = ces_files_of(store);
    hold h;
    int rc = hold_take(self, key, false, deadline, &h, err);
    if (rc != CESSION_OK) {
        return rc == CESSION_NOT_FOUND ? CESSION_GONE : rc;
    }
    cession_stored stored;
    ces_file_head head = {0};
    state found = NOTHING;
    int fd = -1;
    bool whole = false;
    stored_start(&stored, CESSION_VALUE_MAX);
    rc = look(self, &h, key, &stored, &head, &fd, &found, err);
    if (rc == CESSION_OK) {
        if (found != LIVE && found != LEGACY) {
            rc = CESSION_GONE;
        } else if (!cession_span_eq(cession_buf_span(&stored.value), expected->value)) {
            rc = CESSION_CHANGED;
        } else if (found == LIVE) {
            rc = write_expiry(self, fd, head.check, ces_now_ms() + ttl_ms, &whole, err);
            if (rc == CESSION_OK && h.legacy != 0) {
                (void)ces_files_legacy_unlink(self, h.root, &h.name, key, NULL);
            }
        }
        if (rc == CESSION_OK && !whole) {
            /* cachelib's, or cut off in the middle: a whole file instead. */
            rc = put(self, &h, key, expected->value, ttl_ms, err);
        }
        if (found == LIVE) {
            close(fd);
        }
    }
    hold_drop(self, &h);
    cession_stored_release(&stored);
    return rc;
}

static int files_remove(cession_store *store, cession_span key, cession_deadline deadline,
                        cession_error *err)
{
    ces_files *self = ces_files_of(store);
    hold h;
    int rc = hold_take(self, key, false, deadline, &h, err);
    if (rc != CESSION_OK) {
        return rc == CESSION_NOT_FOUND ? CESSION_OK : rc;
    }
    /* cachelib's first: killed in between, ours still hides it. */
    if (h.legacy != 0) {
        rc = ces_files_legacy_unlink(self, h.root, &h.name, key, err);
    }
    if (rc == CESSION_OK && h.shard_fd >= 0) {
        rc = ces_files_unlink(h.shard_fd, h.name.file, err);
        if (rc == CESSION_OK) {
            rc = ces_files_sync_dir(self, h.shard_fd, err);
        }
    }
    hold_drop(self, &h);
    return rc;
}

/* ---- life ----------------------------------------------------------------------------------- */

/* Absolute, so that a later chdir does not move the sessions; no slash at the end. */
static int absolute(const char *path, char **ret_path, cession_error *err)
{
    char here[PATH_LEN_MAX + 1];
    size_t here_len = 0;
    size_t len = strnlen(path, PATH_LEN_MAX + 1);
    if (len == 0) {
        return cession_fail(err, CESSION_E_INVALID, "the path of the session directory is empty");
    }
    if (path[0] != '/') {
        if (getcwd(here, sizeof here) == NULL) {
            return ces_files_fail(err, errno, "finding the current directory");
        }
        here_len = strlen(here);
    }
    while (len > 1 && path[len - 1] == '/') {
        len--;
    }
    if (here_len + 1 + len > PATH_LEN_MAX) {
        return cession_fail(err, CESSION_E_LIMIT,
                            "the path of the session directory has more than %u bytes",
                            PATH_LEN_MAX);
    }
    char *whole = ces_alloc(here_len + 1 + len + 1);
    if (whole == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    char *at = whole;
    if (here_len != 0) {
        memcpy(at, here, here_len);
        at += here_len;
        *at++ = '/';
    }
    memcpy(at, path, len);
    at[len] = '\0';
    *ret_path = whole;
    return CESSION_OK;
}

static bool parse_number(const char *text, int base, unsigned long max, unsigned long *ret_number)
{
    if (*text < '0' || *text > '9') {
        return false;
    }
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, base);
    if (*end != '\0' || errno != 0 || number > max) {
        return false;
    }
    *ret_number = number;
    return true;
}

static int set_option(ces_files *self, const cession_option *option, const char **path,
                      cession_error *err)
{
    unsigned long number;
    if (strcmp(option->name, "path") == 0) {
        *path = option->value;
    } else if (strcmp(option->name, "threshold") == 0) {
        if (!parse_number(option->value, 10, THRESHOLD_MAX, &number)) {
            return cession_fail(err, CESSION_E_INVALID,
                                "threshold must be a number of files, 0 to %lu", THRESHOLD_MAX);
        }
        self->threshold = (unsigned)number;
    } else if (strcmp(option->name, "mode") == 0) {
        if (!parse_number(option->value, 8, 0777, &number) || (number & 0600) != 0600) {
            return cession_fail(err, CESSION_E_INVALID,
                                "mode must be the octal mode of a file that its owner can read "
                                "and write, such as 0600");
        }
        self->mode = (mode_t)number;
    } else if (strcmp(option->name, "sync") == 0) {
        if (strcmp(option->value, "data") != 0 && strcmp(option->value, "none") != 0) {
            return cession_fail(err, CESSION_E_INVALID, "sync must be \"none\" or \"data\"");
        }
        self->sync = strcmp(option->value, "data") == 0;
    } else {
        return cession_fail(err, CESSION_E_INVALID,
                            "unknown option; a filesystem store takes path, threshold, mode, sync");
    }
    return CESSION_OK;
}

static int set_options(ces_files *self, const cession_option *options, size_t count,
                       cession_error *err)
{
    const char *path = NULL;
    for (size_t i = 0; i < count; i++) {
        int rc = set_option(self, &options[i], &path, err);
        if (rc != CESSION_OK) {
            return rc;
        }
    }
    if (path == NULL) {
        return cession_fail(err, CESSION_E_INVALID,
                            "a filesystem store needs the option path, a directory");
    }
    int rc = absolute(path, &self->path, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    size_t len = strlen(self->path);
    self->sub_path = ces_alloc(len + sizeof SUB_NAME);
    if (self->sub_path == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    memcpy(self->sub_path, self->path, len);
    memcpy(self->sub_path + len, SUB_NAME, sizeof SUB_NAME);
    return CESSION_OK;
}

static int set_digests(ces_files *self, cession_error *err)
{
    /* The errors of a system without MD5 are nobody's business. */
    ERR_set_mark();
    self->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    self->md5 = EVP_MD_fetch(NULL, "MD5", NULL);
    ERR_pop_to_mark();
    return self->sha256 != NULL ? CESSION_OK
                                : cession_fail(err, CESSION_E_CRYPTO, "OpenSSL has no SHA-256");
}

static void files_free(ces_files *self)
{
    EVP_MD_free(self->sha256);
    EVP_MD_free(self->md5);
    ces_free(self->sub_path);
    ces_free(self->path);
    pthread_mutex_destroy(&self->mutex);
    ces_free(self);
}

static void files_close(cession_store *store)
{
    ces_files *self = ces_files_of(store);
    ces_fork_unregister(&self->hook);
    if (self->root != NULL) {
        ces_files_root_drop(self, self->root);
    }
    files_free(self);
}

static int files_open(const cession_option *options, size_t count, cession_store **ret_store,
                      cession_error *err)
{
    ces_files *self = ces_alloc_zero(sizeof *self);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->base = (cession_store){
        .ops = &ces_driver_filesystem,
        .caps = CESSION_CAP_GIVES_EXPIRY | CESSION_CAP_ATOMIC | CESSION_CAP_LISTABLE |
                CESSION_CAP_MAINTAIN,
    };
    self->threshold = THRESHOLD_DEFAULT;
    self->mode = MODE_DEFAULT;
    pthread_mutex_init(&self->mutex, NULL);
    int rc = set_options(self, options, count, err);
    if (rc == CESSION_OK) {
        rc = set_digests(self, err);
    }
    if (rc == CESSION_OK) {
        ces_files_sweep_start(self);
        self->hook = (ces_fork_hook){.prepare = ces_files_fork_prepare,
                                     .parent = ces_files_fork_parent,
                                     .child = ces_files_fork_child,
                                     .context = self};
        rc = ces_fork_register(&self->hook, err);
    }
    if (rc != CESSION_OK) {
        files_free(self);
        return rc;
    }
    *ret_store = &self->base;
    return CESSION_OK;
}

const cession_store_ops ces_driver_filesystem = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "filesystem",
    .open = files_open,
    .close = files_close,
    .load = files_load,
    .create = files_create,
    .replace = files_replace,
    .touch = files_touch,
    .remove = files_remove,
    .purge = ces_files_purge,
    .scan = ces_files_scan,
    .maintain = ces_files_maintain,
    .maintenance_due = ces_files_maintenance_due,
};
