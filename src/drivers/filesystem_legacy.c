/* Sessions of the predecessors: files of cachelib's FileSystemCache in <path>.
 *
 * Read from the installed versions 0.7.0 to 0.17.0, and tried with files that
 * 0.9.0, 0.13.0 and 0.17.0 wrote:
 * - name: the digest of the key in lower case hex; MD5 up to 0.15.x, SHA-256 from
 *   0.16.0 on;
 * - content: the expiry as a C unsigned int in native byte order (Unix seconds,
 *   0: never), then a pickle in the highest protocol of the Python that wrote it;
 * - beside them "__wz_cache_count", a number under the same naming, and
 *   "tmp????????.__wz_cache", left by writers that were killed.
 * (0.6 and older pickled the expiry as well; such files are not read.)
 *
 * The value given is the pickle as it stands: whoever decodes it must not run it. */
#include "drivers/filesystem.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/banned.h"

#define EXPIRY_LEN 4u
#define COUNT_KEY "__wz_cache_count"
#define MD5_NAME_LEN (2 * CES_FILES_MD5_LEN)
#define PICKLE_PROTO 0x80 /* first byte of every pickle from protocol 2 on */
/* A sweep leaves younger ones alone: an old worker may be about to renew them. */
#define SWEEP_AFTER_MS (INT64_C(3600) * 1000)
/* Entries of <path> looked at to find files of cachelib; with more, assume some. */
#define LOOK_MAX 4096u

/* The two names that a key may have. */
typedef struct names {
    char md5[MD5_NAME_LEN + 1]; /* empty where the system has no MD5 */
    const char *sha256;
} names;

static int names_of(const ces_files *self, const ces_files_name *name, cession_span key,
                    names *ret_names, cession_error *err)
{
    ret_names->sha256 = name->file; /* the same digest as ours */
    ret_names->md5[0] = '\0';
    if (self->md5 != NULL) {
        uint8_t digest[CES_FILES_MD5_LEN];
        if (EVP_Digest(key.data, key.len, digest, NULL, self->md5, NULL) != 1) {
            return cession_fail(err, CESSION_E_CRYPTO, "MD5 failed");
        }
        ces_files_hex(digest, sizeof digest, ret_names->md5);
    }
    return CESSION_OK;
}

/* cachelib's own counter is no session, whatever id a client sends. */
static bool is_count(cession_span key)
{
    return cession_span_eq(key, cession_span_str(COUNT_KEY));
}

/* Could a file of this name be a session of cachelib's? */
static bool is_session_name(const ces_files *self, const char *name)
{
    uint8_t bytes[CES_FILES_HASH_LEN];
    uint8_t count[EVP_MAX_MD_SIZE];
    size_t len = strlen(name) / 2;
    const EVP_MD *md = len == CES_FILES_MD5_LEN ? self->md5 : self->sha256;
    if ((len != CES_FILES_MD5_LEN && len != CES_FILES_HASH_LEN) || md == NULL ||
        !ces_files_unhex(name, bytes, len)) {
        return false;
    }
    return EVP_Digest(COUNT_KEY, sizeof COUNT_KEY - 1, count, NULL, md, NULL) != 1 ||
           memcmp(count, bytes, len) != 0;
}

/* ---- finding -------------------------------------------------------------------- */

typedef struct look {
    const ces_files *self;
    size_t left;
    bool found;
} look;

/* Ends the walk by E_STATE, which is no error here. */
static int look_at(void *context, const char *name)
{
    look *l = context;
    l->found = is_session_name(l->self, name) || l->left == 0;
    l->left--;
    return l->found ? CESSION_E_STATE : CESSION_OK;
}

/* The counter under one kind of names, which every start of cachelib writes. */
static bool count_time(int top_fd, const EVP_MD *md, struct timespec *ret_time)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    char name[2 * EVP_MAX_MD_SIZE + 1];
    unsigned len = 0;
    struct stat st;
    if (md == NULL || EVP_Digest(COUNT_KEY, sizeof COUNT_KEY - 1, digest, &len, md, NULL) != 1) {
        return false;
    }
    ces_files_hex(digest, len, name);
    if (fstatat(top_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return false;
    }
    *ret_time = st.st_mtim;
    return true;
}

int ces_files_legacy_find(const ces_files *self, int top_fd, unsigned *ret_legacy,
                          cession_error *err)
{
    look l = {.self = self, .left = LOOK_MAX};
    int64_t place = 0;
    int rc = ces_files_walk(top_fd, &place, look_at, &l, err);
    if (rc != CESSION_OK && !l.found) {
        return rc;
    }
    unsigned legacy = 0;
    if (l.found) {
        legacy = CES_FILES_LEGACY_SOME | CES_FILES_LEGACY_MD5 | CES_FILES_LEGACY_SHA256;
        struct timespec md5, sha256;
        /* Both names were in use, one after the other. cachelib saw only those of
         * the last one: a session that was logged out then may still lie there
         * under its other name. */
        if (count_time(top_fd, self->md5, &md5) && count_time(top_fd, self->sha256, &sha256)) {
            bool older = md5.tv_sec < sha256.tv_sec ||
                         (md5.tv_sec == sha256.tv_sec && md5.tv_nsec < sha256.tv_nsec);
            legacy = CES_FILES_LEGACY_SOME |
                     (older ? CES_FILES_LEGACY_SHA256 : CES_FILES_LEGACY_MD5);
        }
    }
    *ret_legacy = legacy;
    return CESSION_OK;
}

/* ---- reading -------------------------------------------------------------------- */

static int64_t expiry_of(const uint8_t bytes[EXPIRY_LEN])
{
    uint32_t seconds;
    memcpy(&seconds, bytes, EXPIRY_LEN);
    return seconds == 0 ? CESSION_EXPIRES_NEVER : (int64_t)seconds * 1000;
}

/* OK; NOT_FOUND: no such file; E_FORMAT: no live record. */
static int read_one(int dir_fd, const char *name, cession_buf *value, int64_t *ret_expires_at_ms,
                    cession_error *err)
{
    int fd;
    struct stat st;
    int rc = ces_files_open(dir_fd, name, false, &fd, &st, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    uint8_t head[EXPIRY_LEN];
    int64_t expires = 0;
    if (st.st_size <= (off_t)EXPIRY_LEN ||
        st.st_size > (off_t)(EXPIRY_LEN + (size_t)CESSION_VALUE_MAX)) {
        rc = CESSION_E_FORMAT;
    } else {
        rc = ces_files_pread(fd, head, sizeof head, 0, err);
    }
    if (rc == CESSION_OK) {
        expires = expiry_of(head);
        if (expires != CESSION_EXPIRES_NEVER && expires <= ces_now_ms()) {
            rc = CESSION_E_FORMAT;
        }
    }
    if (rc == CESSION_OK) {
        size_t len = (size_t)st.st_size - EXPIRY_LEN;
        cession_buf_clear(value);
        rc = cession_buf_reserve(value, len);
        if (rc != CESSION_OK) {
            cession_fail(err, rc, NULL);
        } else {
            rc = ces_files_pread(fd, value->data, len, EXPIRY_LEN, err);
            value->len = rc == CESSION_OK ? len : 0;
        }
    }
    close(fd);
    if (rc == CESSION_OK) {
        *ret_expires_at_ms = expires;
    }
    return rc;
}

int ces_files_legacy_read(const ces_files *self, const ces_files_root *root, unsigned legacy,
                          const ces_files_name *name, cession_span key, cession_buf *value,
                          int64_t *ret_expires_at_ms, cession_error *err)
{
    names of;
    if (is_count(key)) {
        return CESSION_NOT_FOUND;
    }
    int rc = names_of(self, name, key, &of, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    int top_fd;
    rc = ces_files_top_open(root, &top_fd, err);
    if (rc != CESSION_OK) {
        return rc == CESSION_GONE ? CESSION_NOT_FOUND : rc;
    }
    rc = CESSION_NOT_FOUND;
    if ((legacy & CES_FILES_LEGACY_SHA256) != 0) {
        rc = read_one(top_fd, of.sha256, value, ret_expires_at_ms, err);
    }
    /* What is there under the newer name, dead or alive, is what counts. */
    if (rc == CESSION_NOT_FOUND && (legacy & CES_FILES_LEGACY_MD5) != 0 && of.md5[0] != '\0') {
        rc = read_one(top_fd, of.md5, value, ret_expires_at_ms, err);
    }
    close(top_fd);
    return rc == CESSION_E_FORMAT ? CESSION_NOT_FOUND : rc;
}

/* The older name first: with the newer one gone it would be the one that counts. */
int ces_files_legacy_unlink(const ces_files *self, const ces_files_root *root,
                            const ces_files_name *name, cession_span key, cession_error *err)
{
    names of;
    if (is_count(key)) {
        return CESSION_OK;
    }
    int rc = names_of(self, name, key, &of, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    int top_fd;
    rc = ces_files_top_open(root, &top_fd, err);
    if (rc != CESSION_OK) {
        return rc == CESSION_GONE
                   ? cession_fail(err, CESSION_E_UNAVAILABLE, "the session directory was moved")
                   : rc;
    }
    if (of.md5[0] != '\0') {
        rc = ces_files_unlink(top_fd, of.md5, err);
    }
    if (rc == CESSION_OK) {
        rc = ces_files_unlink(top_fd, of.sha256, err);
    }
    if (rc == CESSION_OK) {
        rc = ces_files_sync_dir(self, top_fd, err);
    }
    close(top_fd);
    return rc;
}

/* ---- sweeping ------------------------------------------------------------------- */

int ces_files_legacy_sweep(const ces_files *self, int top_fd, const char *name, int64_t now_ms,
                           bool *ret_deleted, cession_error *err)
{
    bool deleted = false;
    if (is_session_name(self, name)) {
        int fd;
        struct stat st;
        uint8_t head[EXPIRY_LEN + 1];
        int rc = ces_files_open(top_fd, name, false, &fd, &st, err);
        if (rc == CESSION_OK) {
            rc = ces_files_pread(fd, head, sizeof head, 0, err);
            close(fd);
        }
        if (rc < 0 && rc != CESSION_E_FORMAT) {
            return rc;
        }
        if (rc == CESSION_OK && head[EXPIRY_LEN] == PICKLE_PROTO) {
            int64_t expires = expiry_of(head);
            if (expires != CESSION_EXPIRES_NEVER && expires < now_ms - SWEEP_AFTER_MS) {
                rc = ces_files_unlink(top_fd, name, err);
                if (rc != CESSION_OK) {
                    return rc;
                }
                deleted = true;
            }
        }
    }
    *ret_deleted = deleted;
    return CESSION_OK;
}
