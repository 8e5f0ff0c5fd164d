#include "drivers/filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/banned.h"

#define NS_PER_MS INT64_C(1000000)
/* A directory's mtime may stand still for a tick of the file system's clock: an
 * answer is trusted only when the mtime was older than this at the time. */
#define SETTLE_S 2
#define LEGACY_AGAIN_NS (INT64_C(60) * 1000 * NS_PER_MS)

#define WAIT_FIRST_NS INT64_C(20000)
#define WAIT_MOST_NS INT64_C(2000000)

#define LOCK_NAME "lock"

int ces_files_fail(cession_error *err, int number, const char *what)
{
    switch (number) {
    case ENOMEM:
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    case EACCES:
    case EPERM:
    case EROFS:
        return cession_fail(err, CESSION_E_PERMISSION, "%s: no permission (errno %d)", what,
                            number);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return cession_fail(err, CESSION_E_IO,
                            "%s: the disk, the quota or a size limit is "
                            "exhausted (errno %d)",
                            what, number);
    case EMFILE:
    case ENFILE:
        return cession_fail(err, CESSION_E_IO, "%s: too many open files (errno %d)", what, number);
    case ENOLCK:
    case EOPNOTSUPP:
        return cession_fail(err, CESSION_E_UNSUPPORTED,
                            "%s: the file system of the session directory does not support this "
                            "(errno %d)",
                            what, number);
    default:
        return cession_fail(err, CESSION_E_IO, "%s: input/output error (errno %d)", what, number);
    }
}

/* ---- directories ---------------------------------------------------------------- */

/* Ours, and nobody else may put files into it. */
static int check_directory(const struct stat *st, const char *path, cession_error *err)
{
    if (!S_ISDIR(st->st_mode)) {
        return cession_fail(err, CESSION_E_FOREIGN, "%.120s is not a directory", path);
    }
    uid_t user = geteuid();
    if (st->st_uid != user) {
        return cession_fail(err, CESSION_E_PERMISSION,
                            "the session directory %.100s belongs to user %lu, this process runs "
                            "as %lu: chown it, or run as its owner",
                            path, (unsigned long)st->st_uid, (unsigned long)user);
    }
    if ((st->st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return cession_fail(err, CESSION_E_PERMISSION,
                            "other users may write to the session directory %.100s: "
                            "chmod go-w it, or name another",
                            path);
    }
    return CESSION_OK;
}

/* mkdir -p, everything that is missing with mode 0700. */
static int make_path(const char *path, cession_error *err)
{
    if (mkdir(path, 0700) == 0 || errno == EEXIST) {
        return CESSION_OK;
    }
    if (errno != ENOENT) {
        return ces_files_fail(err, errno, "making the session directory");
    }
    size_t len = strlen(path);
    char *copy = ces_strndup(path, len);
    if (copy == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    int rc = CESSION_OK;
    for (size_t i = 1; i <= len && rc == CESSION_OK; i++) {
        if (copy[i] == '/' || copy[i] == '\0') {
            copy[i] = '\0';
            /* EROFS, EACCES: also said of parents that exist; the last one tells. */
            if (mkdir(copy, 0700) != 0 && errno != EEXIST && i == len) {
                rc = ces_files_fail(err, errno, "making the session directory");
            }
            copy[i] = path[i];
        }
    }
    ces_free(copy);
    return rc;
}

/* Open <path>. A symbolic link in its place is followed only where it is ours or
 * root's: anybody may put one into /tmp. */
static int open_top(const ces_files *self, bool make, int *ret_fd, struct stat *ret_stat,
                    cession_error *err)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    int fd = open(self->path, flags | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT && make) {
        int rc = make_path(self->path, err);
        if (rc != CESSION_OK) {
            return rc;
        }
        fd = open(self->path, flags | O_NOFOLLOW);
    }
    if (fd < 0 && (errno == ELOOP || errno == ENOTDIR)) {
        struct stat link;
        if (lstat(self->path, &link) == 0 && S_ISLNK(link.st_mode)) {
            if (link.st_uid != 0 && link.st_uid != geteuid()) {
                return cession_fail(err, CESSION_E_PERMISSION,
                                    "the session directory %.120s is a symbolic link of another "
                                    "user: remove it",
                                    self->path);
            }
            fd = open(self->path, flags);
        } else {
            return cession_fail(err, CESSION_E_FOREIGN, "%.120s is not a directory", self->path);
        }
    }
    if (fd < 0) {
        return errno == ENOENT && !make
                   ? CESSION_NOT_FOUND
                   : ces_files_fail(err, errno, "opening the session directory");
    }
    struct stat st;
    int rc = fstat(fd, &st) != 0 ? ces_files_fail(err, errno, "opening the session directory")
                                 : check_directory(&st, self->path, err);
    if (rc != CESSION_OK) {
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    *ret_stat = st;
    return CESSION_OK;
}

/* Open a directory that we make ourselves. */
static int open_own(int dir_fd, const char *name, const char *shown, bool make, int *ret_fd,
                    struct stat *ret_stat, cession_error *err)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(dir_fd, name, flags);
    if (fd < 0 && errno == ENOENT && make) {
        if (mkdirat(dir_fd, name, 0700) != 0 && errno != EEXIST) {
            return errno == ENOENT
                       ? CESSION_NOT_FOUND
                       : ces_files_fail(err, errno, "making a part of the session directory");
        }
        fd = openat(dir_fd, name, flags);
    }
    if (fd < 0) {
        if (errno == ENOENT) {
            return CESSION_NOT_FOUND;
        }
        if (errno == ELOOP || errno == ENOTDIR) {
            return cession_fail(err, CESSION_E_FOREIGN,
                                "something that is not a directory lies in %.120s where the "
                                "session store keeps its own: remove it",
                                shown);
        }
        return ces_files_fail(err, errno, "opening a part of the session directory");
    }
    struct stat st;
    int rc = fstat(fd, &st) != 0
                 ? ces_files_fail(err, errno, "opening a part of the session directory")
                 : check_directory(&st, shown, err);
    if (rc != CESSION_OK) {
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    *ret_stat = st;
    return CESSION_OK;
}

int ces_files_shard_open(const ces_files *self, const ces_files_root *root, const char *shard,
                         bool make, int *ret_fd, cession_error *err)
{
    struct stat st;
    int rc = open_own(root->fd, shard, self->sub_path, false, ret_fd, &st, err);
    if (rc == CESSION_NOT_FOUND && make) {
        rc = open_own(root->fd, shard, self->sub_path, true, ret_fd, &st, err);
        if (rc == CESSION_OK) {
            rc = ces_files_sync_dir(self, root->fd, err);
            if (rc != CESSION_OK) {
                close(*ret_fd);
                *ret_fd = -1;
            }
        }
    }
    return rc;
}

/* ---- the root ----------------------------------------------------------------------- */

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* What the look at <path> gave; st was taken before it. */
static void note_legacy(ces_files_root *root, const struct stat *st, unsigned legacy)
{
    root->legacy = legacy;
    root->legacy_until_ns = ces_mono_ns() + LEGACY_AGAIN_NS;
    root->top_mtime = st->st_mtim;
    root->settled = legacy == 0 && ces_now_ms() / 1000 - st->st_mtim.tv_sec > SETTLE_S;
}

static int open_root(const ces_files *self, bool make, ces_files_root **ret_root,
                     cession_error *err)
{
    int top_fd;
    struct stat top, own;
    int rc = open_top(self, make, &top_fd, &top, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    unsigned legacy = 0;
    rc = ces_files_legacy_find(self, top_fd, &legacy, err);
    int fd = -1;
    if (rc == CESSION_OK) {
        /* A read makes our part only where there is something to read. */
        rc = open_own(top_fd, "cession", self->path, make || legacy != 0, &fd, &own, err);
    }
    close(top_fd);
    if (rc != CESSION_OK) {
        return rc;
    }
    ces_files_root *root = ces_alloc_zero(sizeof *root);
    if (root == NULL) {
        close(fd);
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    root->fd = fd;
    root->dev = own.st_dev;
    root->ino = own.st_ino;
    root->top_dev = top.st_dev;
    root->top_ino = top.st_ino;
    note_legacy(root, &top, legacy);
    *ret_root = root;
    return CESSION_OK;
}

/* Does the descriptor still mean our directory? Programs that become daemons
 * close what they do not know, and the number is given to something else. */
static bool root_holds(const ces_files_root *root, nlink_t *ret_links)
{
    struct stat st;
    if (fstat(root->fd, &st) != 0 || st.st_dev != root->dev || st.st_ino != root->ino) {
        return false;
    }
    *ret_links = st.st_nlink;
    return true;
}

static void root_free(ces_files_root *root)
{
    nlink_t links;
    if (root_holds(root, &links)) {
        close(root->fd);
    }
    ces_free(root);
}

int ces_files_root_take(ces_files *self, bool make, ces_files_root **ret_root, cession_error *err)
{
    pthread_mutex_lock(&self->mutex);
    ces_files_root *root = self->root;
    if (root != NULL) {
        root->refs++;
    }
    pthread_mutex_unlock(&self->mutex);
    if (root != NULL) {
        *ret_root = root;
        return CESSION_OK;
    }

    ces_files_root *fresh = NULL;
    int rc = open_root(self, make, &fresh, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    pthread_mutex_lock(&self->mutex);
    if (self->root == NULL) {
        self->root = fresh;
        fresh->refs = 1; /* the store's own */
        fresh = NULL;
    }
    root = self->root;
    root->refs++;
    pthread_mutex_unlock(&self->mutex);
    if (fresh != NULL) {
        root_free(fresh);
    }
    *ret_root = root;
    return CESSION_OK;
}

void ces_files_root_drop(ces_files *self, ces_files_root *root)
{
    pthread_mutex_lock(&self->mutex);
    bool last = --root->refs == 0;
    pthread_mutex_unlock(&self->mutex);
    if (last) {
        root_free(root);
    }
}

static int forget_root(ces_files *self, ces_files_root *root)
{
    pthread_mutex_lock(&self->mutex);
    if (self->root == root) {
        self->root = NULL;
        root->refs--; /* never the last one: the caller has one */
    }
    pthread_mutex_unlock(&self->mutex);
    return CESSION_GONE;
}

int ces_files_root_check(ces_files *self, ces_files_root *root, unsigned *ret_legacy,
                         cession_error *err)
{
    nlink_t links = 0;
    struct stat top, own;
    if (!root_holds(root, &links) || links == 0) {
        return forget_root(self, root);
    }
    if (stat(self->path, &top) != 0) {
        return errno == ENOENT || errno == ENOTDIR
                   ? forget_root(self, root)
                   : ces_files_fail(err, errno, "reaching the session directory");
    }
    if (top.st_dev != root->top_dev || top.st_ino != root->top_ino) {
        return forget_root(self, root);
    }
    int rc = check_directory(&top, self->path, err);
    if (rc != CESSION_OK) {
        return rc;
    }

    pthread_mutex_lock(&self->mutex);
    unsigned legacy = root->legacy;
    bool unchanged = root->settled && same_time(&root->top_mtime, &top.st_mtim);
    bool look_now = !unchanged && (legacy == 0 || ces_mono_ns() > root->legacy_until_ns);
    pthread_mutex_unlock(&self->mutex);
    if (unchanged) {
        *ret_legacy = 0;
        return CESSION_OK;
    }
    /* <path> changed: perhaps our part of it was moved away. */
    if (lstat(self->sub_path, &own) != 0) {
        return errno == ENOENT || errno == ENOTDIR
                   ? forget_root(self, root)
                   : ces_files_fail(err, errno, "reaching the session directory");
    }
    if (own.st_dev != root->dev || own.st_ino != root->ino) {
        return forget_root(self, root);
    }
    if (look_now) {
        int top_fd;
        rc = open_top(self, false, &top_fd, &top, err);
        if (rc == CESSION_OK) {
            rc = ces_files_legacy_find(self, top_fd, &legacy, err);
            close(top_fd);
        }
        if (rc != CESSION_OK) {
            return rc == CESSION_NOT_FOUND ? forget_root(self, root) : rc;
        }
        pthread_mutex_lock(&self->mutex);
        note_legacy(root, &top, legacy);
        pthread_mutex_unlock(&self->mutex);
    }
    *ret_legacy = legacy;
    return CESSION_OK;
}

int ces_files_top_open(const ces_files_root *root, int *ret_fd, cession_error *err)
{
    struct stat st;
    int fd = openat(root->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? CESSION_GONE
                               : ces_files_fail(err, errno, "opening the session directory");
    }
    int rc = CESSION_OK;
    if (fstat(fd, &st) != 0) {
        rc = ces_files_fail(err, errno, "opening the session directory");
    } else if (st.st_dev != root->top_dev || st.st_ino != root->top_ino) {
        rc = CESSION_GONE;
    }
    if (rc != CESSION_OK) {
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    return CESSION_OK;
}

/* ---- locks ----------------------------------------------------------------------------- */

static int open_lock_file(const ces_files_root *root, int *ret_fd, cession_error *err)
{
    int fd = openat(root->fd, LOCK_NAME,
                    O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
    if (fd < 0) {
        return errno == ENOENT ? CESSION_GONE : ces_files_fail(err, errno, "opening the lock file");
    }
    *ret_fd = fd;
    return CESSION_OK;
}

int ces_files_lock_open(ces_files *self, ces_files_root *root, ces_files_lock *ret_lock,
                        cession_error *err)
{
    *ret_lock = (ces_files_lock){.fd = -1};
    for (;;) {
        pthread_mutex_lock(&self->mutex);
        unsigned forks = self->forks;
        pthread_mutex_unlock(&self->mutex);
        int rc = open_lock_file(root, &ret_lock->fd, err);
        if (rc != CESSION_OK) {
            /* Not every file system tells by st_nlink that a directory is gone. */
            return rc == CESSION_GONE ? forget_root(self, root) : rc;
        }
        pthread_mutex_lock(&self->mutex);
        bool shared = self->forks != forks;
        if (!shared) {
            ret_lock->next = self->locks;
            if (self->locks != NULL) {
                self->locks->prev = ret_lock;
            }
            self->locks = ret_lock;
        }
        pthread_mutex_unlock(&self->mutex);
        if (!shared) {
            return CESSION_OK;
        }
        /* A child was forked in between and has a copy that it does not know of:
         * a lock taken here would last as long as the child. */
        close(ret_lock->fd);
    }
}

void ces_files_lock_close(ces_files *self, ces_files_lock *lock)
{
    ces_files_lock_drop(lock);
    pthread_mutex_lock(&self->mutex);
    if (lock->prev != NULL) {
        lock->prev->next = lock->next;
    } else {
        self->locks = lock->next;
    }
    if (lock->next != NULL) {
        lock->next->prev = lock->prev;
    }
    pthread_mutex_unlock(&self->mutex);
    close(lock->fd);
}

static struct flock range(const ces_files_lock *lock, short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = lock->at, .l_len = 1};
}

static int wait_for(const ces_files_lock *lock, cession_deadline deadline, cession_error *err)
{
    int64_t pause = WAIT_FIRST_NS;
    for (;;) {
        struct flock fl = range(lock, F_WRLCK);
        if (fcntl(lock->fd, F_OFD_SETLK, &fl) == 0) {
            return CESSION_OK;
        }
        if (errno == EINTR) {
            continue;
        }
        if (errno != EAGAIN && errno != EACCES) {
            return ces_files_fail(err, errno, "locking a session");
        }
        if (deadline <= 0) {
            return cession_fail(err, CESSION_E_BUSY, "another writer has the session");
        }
        int64_t left = deadline - ces_mono_ns();
        if (left <= 0) {
            return cession_fail(err, CESSION_E_TIMEOUT,
                                "another writer had the session until the deadline");
        }
        int64_t nap = pause / 2 + (int64_t)(ces_chance() % (uint64_t)pause);
        ces_sleep_ns(nap < left ? nap : left);
        if (pause < WAIT_MOST_NS) {
            pause *= 2;
        }
    }
}

int ces_files_lock_take(ces_files_lock *lock, const uint8_t hash[CES_FILES_HASH_LEN],
                        cession_deadline deadline, cession_error *err)
{
    /* 31 bits: what every lock manager can take. Two keys on one byte only wait
     * for each other. */
    lock->at = (off_t)(hash[1] & 0x7f) << 24 | (off_t)hash[2] << 16 | (off_t)hash[3] << 8 | hash[4];
    int rc = wait_for(lock, deadline, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    lock->held = true;
    struct stat st;
    if (fstat(lock->fd, &st) != 0) {
        rc = ces_files_fail(err, errno, "locking a session");
    } else if (st.st_nlink == 0) {
        rc = CESSION_GONE; /* the next one makes and locks another file */
    } else if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1) {
        rc = cession_fail(err, CESSION_E_FOREIGN,
                          "the lock file of the session directory is not ours: remove it");
    }
    if (rc != CESSION_OK) {
        ces_files_lock_drop(lock);
    }
    return rc;
}

/* Said aloud, not left to close(): a forked child may hold a copy for a moment. */
void ces_files_lock_drop(ces_files_lock *lock)
{
    if (!lock->held) {
        return;
    }
    struct flock fl = range(lock, F_UNLCK);
    (void)fcntl(lock->fd, F_OFD_SETLK, &fl);
    lock->held = false;
}

/* ---- fork -------------------------------------------------------------------------------- */

void ces_files_fork_prepare(void *context)
{
    ces_files *self = context;
    pthread_mutex_lock(&self->mutex);
    self->forks++;
}

void ces_files_fork_parent(void *context)
{
    ces_files *self = context;
    pthread_mutex_unlock(&self->mutex);
}

/* The threads of these locks are not here, and their locks must not last as long
 * as this process does. */
void ces_files_fork_child(void *context)
{
    ces_files *self = context;
    for (ces_files_lock *lock = self->locks; lock != NULL; lock = lock->next) {
        close(lock->fd);
    }
    self->locks = NULL;
    pthread_mutex_unlock(&self->mutex);
}
