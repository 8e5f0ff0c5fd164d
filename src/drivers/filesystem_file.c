#include "drivers/filesystem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(SYS_openat2) && __has_include(<linux/openat2.h>)
#include <linux/openat2.h>
#define HAVE_OPENAT2 1
#endif

#include "base/banned.h"

#define ENTRIES_SIZE 16384u
/* Reads of an expiry that a touch is writing. A write of 16 aligned bytes is torn,
 * if at all, for nanoseconds. */
#define EXPIRY_TRIES 16

/* ---- reading ---------------------------------------------------------------------- */

static bool trusted(const struct stat *st)
{
    /* No name left: replaced or removed since it was opened, which is as good as
     * having read it before. */
    return S_ISREG(st->st_mode) && st->st_uid == geteuid() && st->st_nlink <= 1;
}

/* The system refused to open the file. Refusals that a hostile or damaged file
 * explains are about this session; all others are about the store. */
static int judge_refusal(int dir_fd, const char *name, cession_error *err)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? CESSION_NOT_FOUND
                               : ces_files_fail(err, errno, "opening a session file");
    }
    if (!trusted(&st) || (st.st_mode & S_IRUSR) == 0) {
        return CESSION_E_FORMAT;
    }
    return ces_files_fail(err, EACCES, "opening a session file");
}

/* A pipe in its place must not make us wait for its other end. */
#define OPEN_FLAGS (O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* What became of an open: fd, or -1 and errno. */
static int judge_open(int fd, int dir_fd, const char *name, int *ret_fd, struct stat *ret_stat,
                      cession_error *err)
{
    if (fd < 0) {
        switch (errno) {
        case ENOENT:
            return CESSION_NOT_FOUND;
        case ELOOP:
        case EISDIR:
        case ENXIO:
        case ENODEV:
            return CESSION_E_FORMAT;
        case ENOTDIR:
            return cession_fail(err, CESSION_E_FOREIGN,
                                "something that is not a directory lies in the session directory");
        case EACCES:
            return judge_refusal(dir_fd, name, err);
        default:
            return ces_files_fail(err, errno, "opening a session file");
        }
    }
    if (fstat(fd, ret_stat) != 0) {
        int rc = ces_files_fail(err, errno, "opening a session file");
        close(fd);
        return rc;
    }
    if (!trusted(ret_stat)) {
        close(fd);
        return CESSION_E_FORMAT;
    }
    *ret_fd = fd;
    return CESSION_OK;
}

int ces_files_open(int dir_fd, const char *name, bool writable, int *ret_fd, struct stat *ret_stat,
                   cession_error *err)
{
    int fd = openat(dir_fd, name, (writable ? O_RDWR : O_RDONLY) | OPEN_FLAGS);
    return judge_open(fd, dir_fd, name, ret_fd, ret_stat, err);
}

int ces_files_pread(int fd, void *buf, size_t len, off_t offset, cession_error *err)
{
    uint8_t *at = buf;
    while (len > 0) {
        ssize_t got = pread(fd, at, len, offset);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            return ces_files_fail(err, errno, "reading a session file");
        }
        if (got == 0) {
            return CESSION_E_FORMAT;
        }
        at += got;
        len -= (size_t)got;
        offset += got;
    }
    return CESSION_OK;
}

static int read_both(int fd, uint8_t *head, size_t head_len, uint8_t *value, size_t value_len,
                     cession_error *err)
{
    struct iovec parts[2] = {{.iov_base = head, .iov_len = head_len},
                             {.iov_base = value, .iov_len = value_len}};
    ssize_t got = preadv(fd, parts, value_len != 0 ? 2 : 1, 0);
    if (got >= 0 && (size_t)got == head_len + value_len) {
        return CESSION_OK;
    }
    int rc = ces_files_pread(fd, head, head_len, 0, err);
    return rc == CESSION_OK ? ces_files_pread(fd, value, value_len, (off_t)head_len, err) : rc;
}

int ces_files_read_open(int fd, const struct stat *st, cession_span key, cession_buf *value,
                        ces_file_head *ret_head, cession_error *err)
{
    uint8_t data[CES_FILE_HEAD_LEN + CESSION_KEY_MAX];
    size_t head_len = CES_FILE_HEAD_LEN + key.len;
    if (st->st_size < (off_t)head_len ||
        st->st_size > (off_t)(head_len + (size_t)CESSION_VALUE_MAX)) {
        return CESSION_E_FORMAT;
    }
    size_t value_len = (size_t)st->st_size - head_len;
    cession_buf_clear(value);
    int rc = cession_buf_reserve(value, value_len);
    if (rc != CESSION_OK) {
        return cession_fail(err, rc, NULL);
    }
    rc = read_both(fd, data, head_len, value->data, value_len, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    value->len = value_len;
    ces_file_head head;
    if (ces_file_head_parse(data, head_len, (uint64_t)st->st_size, &head) != CESSION_OK ||
        !cession_span_eq(cession_span_of(data + CES_FILE_HEAD_LEN, key.len), key) ||
        !ces_file_body_ok(data, &head, key, cession_buf_span(value))) {
        return CESSION_E_FORMAT;
    }
    for (int tries = 0; !head.expiry_ok; tries++) {
        uint8_t slot[CES_FILE_EXPIRY_LEN];
        if (tries == EXPIRY_TRIES) {
            return CESSION_E_FORMAT;
        }
        rc = ces_files_pread(fd, slot, sizeof slot, CES_FILE_EXPIRY_AT, err);
        if (rc != CESSION_OK) {
            return rc;
        }
        head.expiry_ok = ces_file_expiry_read(slot, head.check, &head.expires_at_ms);
    }
    *ret_head = head;
    return CESSION_OK;
}

int ces_files_read(int shard_fd, const ces_files_name *name, cession_span key, cession_buf *value,
                   ces_file_head *ret_head, int *ret_fd, cession_error *err)
{
    int fd = -1;
    struct stat st;
    int rc = ces_files_open(shard_fd, name->file, ret_fd != NULL, &fd, &st, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    rc = ces_files_read_open(fd, &st, key, value, ret_head, err);
    if (rc == CESSION_OK && ret_fd != NULL) {
        *ret_fd = fd;
    } else {
        close(fd);
    }
    return rc;
}

/* Open without following a link at the shard either, in one call.
 * E_UNSUPPORTED: the system cannot. */
static int open_below(ces_files *self, const ces_files_root *root, const ces_files_name *name,
                      int *ret_fd, struct stat *ret_stat, cession_error *err)
{
#ifdef HAVE_OPENAT2
    if (!atomic_load_explicit(&self->no_openat2, memory_order_relaxed)) {
        struct open_how how = {.flags = O_RDONLY | OPEN_FLAGS, .resolve = RESOLVE_NO_SYMLINKS};
        char path[CES_FILES_SHARD_SIZE + CES_FILES_NAME_SIZE];
        memcpy(path, name->shard, CES_FILES_SHARD_SIZE - 1);
        path[CES_FILES_SHARD_SIZE - 1] = '/';
        memcpy(path + CES_FILES_SHARD_SIZE, name->file, CES_FILES_NAME_SIZE);
        int fd = (int)syscall(SYS_openat2, root->fd, path, &how, sizeof how);
        /* Linux before 5.6, or a filter of system calls that does not know it. */
        if (fd >= 0 || (errno != ENOSYS && errno != EPERM && errno != EINVAL)) {
            return judge_open(fd, root->fd, path, ret_fd, ret_stat, err);
        }
        atomic_store_explicit(&self->no_openat2, true, memory_order_relaxed);
    }
#endif
    (void)self;
    (void)root;
    (void)name;
    (void)ret_fd;
    (void)ret_stat;
    (void)err;
    return CESSION_E_UNSUPPORTED;
}

int ces_files_find(ces_files *self, const ces_files_root *root, const ces_files_name *name,
                   cession_span key, cession_buf *value, ces_file_head *ret_head,
                   cession_error *err)
{
    int fd;
    struct stat st;
    int rc = open_below(self, root, name, &fd, &st, err);
    if (rc == CESSION_E_UNSUPPORTED) {
        int shard_fd;
        rc = ces_files_shard_open(self, root, name->shard, false, &shard_fd, err);
        if (rc == CESSION_OK) {
            rc = ces_files_open(shard_fd, name->file, false, &fd, &st, err);
            close(shard_fd);
        }
    }
    if (rc == CESSION_OK) {
        rc = ces_files_read_open(fd, &st, key, value, ret_head, err);
        close(fd);
    }
    return rc;
}

/* ---- writing ------------------------------------------------------------------------ */

static int write_parts(int fd, struct iovec *parts, int count, cession_error *err)
{
    while (count > 0) {
        ssize_t put = writev(fd, parts, count);
        if (put < 0) {
            if (errno == EINTR) {
                continue;
            }
            return ces_files_fail(err, errno, "writing a session file");
        }
        size_t left = (size_t)put;
        while (count > 0 && left >= parts->iov_len) {
            left -= parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (uint8_t *)parts->iov_base + left;
            parts->iov_len -= left;
        }
    }
    return CESSION_OK;
}

static int make_tmp(int shard_fd, char ret_name[CES_FILES_TMP_SIZE], int *ret_fd,
                    cession_error *err)
{
    for (int tries = 0;; tries++) {
        uint8_t random[16];
        int rc = ces_random(random, sizeof random, err);
        if (rc != CESSION_OK) {
            return rc;
        }
        memcpy(ret_name, CES_FILES_TMP_PREFIX, sizeof CES_FILES_TMP_PREFIX - 1);
        ces_files_hex(random, sizeof random, ret_name + sizeof CES_FILES_TMP_PREFIX - 1);
        int fd = openat(shard_fd, ret_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                        0600);
        if (fd >= 0) {
            *ret_fd = fd;
            return CESSION_OK;
        }
        /* Never by accident: 128 random bits. */
        if (errno != EEXIST || tries == 2) {
            return ces_files_fail(err, errno, "making a session file");
        }
    }
}

static int fill_tmp(const ces_files *self, int fd, cession_span key, cession_span value,
                    int64_t expires_at_ms, cession_error *err)
{
    uint8_t head[CES_FILE_HEAD_LEN];
    ces_file_head_write(head, key, value, expires_at_ms);
    /* writev does not write to what it is given. */
    struct iovec parts[3] = {
        {.iov_base = head, .iov_len = sizeof head},
        {.iov_base = (void *)(uintptr_t)key.data, .iov_len = key.len},
        {.iov_base = (void *)(uintptr_t)value.data, .iov_len = value.len},
    };
    int rc = write_parts(fd, parts, value.len != 0 ? 3 : 2, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    /* Set, not asked for: the umask takes bits from what is asked for. */
    if (self->mode != 0600 && fchmod(fd, self->mode) != 0) {
        return ces_files_fail(err, errno, "setting the mode of a session file");
    }
    if (self->sync && fdatasync(fd) != 0) {
        return ces_files_fail(err, errno, "writing a session file");
    }
    return CESSION_OK;
}

int ces_files_write(const ces_files *self, int shard_fd, const ces_files_name *name,
                    cession_span key, cession_span value, int64_t expires_at_ms, cession_error *err)
{
    char tmp[CES_FILES_TMP_SIZE];
    int fd = -1;
    int rc = make_tmp(shard_fd, tmp, &fd, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    rc = fill_tmp(self, fd, key, value, expires_at_ms, err);
    /* Network file systems tell of a failed write here. */
    if (close(fd) != 0 && rc == CESSION_OK && errno != EINTR) {
        rc = ces_files_fail(err, errno, "writing a session file");
    }
    if (rc == CESSION_OK && renameat(shard_fd, tmp, shard_fd, name->file) != 0) {
        rc = errno == EISDIR ? cession_fail(err, CESSION_E_FOREIGN,
                                            "a directory lies where a session file belongs: "
                                            "remove it")
                             : ces_files_fail(err, errno, "renaming a session file");
    }
    if (rc != CESSION_OK) {
        (void)unlinkat(shard_fd, tmp, 0);
        return rc;
    }
    return ces_files_sync_dir(self, shard_fd, err);
}

int ces_files_unlink(int dir_fd, const char *name, cession_error *err)
{
    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT) {
        return CESSION_OK;
    }
    return errno == EISDIR ? cession_fail(err, CESSION_E_FOREIGN,
                                          "a directory lies where a session file belongs: "
                                          "remove it")
                           : ces_files_fail(err, errno, "removing a session file");
}

int ces_files_sync_dir(const ces_files *self, int dir_fd, cession_error *err)
{
    if (self->sync && fsync(dir_fd) != 0) {
        return ces_files_fail(err, errno, "writing the session directory");
    }
    return CESSION_OK;
}

/* ---- walking -------------------------------------------------------------------------- */

/* getdents, not readdir: no memory from outside our allocator, and a place that
 * is good for another descriptor of the directory too (as far as the file system
 * keeps its promise, which sweeps do not depend on). */
int ces_files_walk(int dir_fd, int64_t *place, ces_files_entry_fn *visit, void *context,
                   cession_error *err)
{
    _Alignas(struct dirent64) char entries[ENTRIES_SIZE];
    if (lseek(dir_fd, (off_t)*place, SEEK_SET) < 0) {
        return ces_files_fail(err, errno, "listing the session directory");
    }
    for (;;) {
        ssize_t got = getdents64(dir_fd, entries, sizeof entries);
        if (got < 0) {
            /* ENOENT: removed while we look. */
            return errno == ENOENT ? CESSION_OK
                                   : ces_files_fail(err, errno, "listing the session directory");
        }
        if (got == 0) {
            return CESSION_OK;
        }
        for (ssize_t at = 0; at < got;) {
            const struct dirent64 *entry = (const struct dirent64 *)(const void *)(entries + at);
            const char *name = entry->d_name;
            bool dots = name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
            if (!dots) {
                int rc = visit(context, name);
                if (rc != CESSION_OK) {
                    return rc;
                }
            }
            *place = entry->d_off;
            at += entry->d_reclen;
        }
    }
}
