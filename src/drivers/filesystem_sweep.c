/* What is not on a request's path: deleting what has expired, and listing. */
#include "drivers/filesystem.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/banned.h"

/* Files that nobody can be writing any more. */
#define LEFTOVER_MS (INT64_C(3600) * 1000)
/* A sweep looks at this many files for each session made since the last one, so
 * that expired files never outnumber the live ones for long, and that a new
 * session costs the same whatever is stored. */
#define FILES_PER_CREATE 8u
#define SWEEP_LEAST 256u
#define SWEEP_MOST 4096u
#define DUE_CREATES 64u
#define DUE_ALWAYS 1024u /* look again how many there are: other processes make some too */
/* The shards, and <path> with what is left of cachelib's files. */
#define PLACES (CES_FILES_SHARDS + 1u)
#define SCAN_MOST 256u

static bool is_tmp(const char *name)
{
    uint8_t bytes[16];
    size_t prefix = sizeof CES_FILES_TMP_PREFIX - 1;
    return strncmp(name, CES_FILES_TMP_PREFIX, prefix) == 0 &&
           ces_files_unhex(name + prefix, bytes, sizeof bytes);
}

static int64_t mtime_ms(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000;
}

/* ---- one sweep -------------------------------------------------------------------- */

typedef struct sweep {
    ces_files *self;
    ces_files_root *root;
    ces_files_lock lock;
    unsigned legacy;
    int64_t now_ms;
    cession_deadline deadline; /* 0: none */
    size_t limit;              /* files to delete */
    size_t budget;             /* files to look at */
    size_t deleted;
    size_t kept;
    int failed; /* what went wrong first with a single file; the others are swept */
    /* of the directory under way */
    unsigned shard;
    int dir_fd;
} sweep;

static int sweep_begin(ces_files *self, sweep *s, cession_error *err)
{
    int rc = CESSION_GONE;
    for (int tries = 0; rc == CESSION_GONE && tries < 2; tries++) {
        rc = ces_files_root_take(self, false, &s->root, err);
        if (rc != CESSION_OK) {
            return rc;
        }
        rc = ces_files_root_check(self, s->root, &s->legacy, err);
        if (rc == CESSION_OK) {
            rc = ces_files_lock_open(self, s->root, &s->lock, err);
        }
        if (rc != CESSION_OK) {
            ces_files_root_drop(self, s->root);
        }
    }
    s->self = self;
    s->now_ms = ces_now_ms();
    /* Deleted again already: then nothing is there to sweep. */
    return rc == CESSION_GONE ? CESSION_NOT_FOUND : rc;
}

static void sweep_end(sweep *s)
{
    ces_files_lock_close(s->self, &s->lock);
    ces_files_root_drop(s->self, s->root);
}

/* Is the open file one to be deleted? A damaged one is no session; it is left for
 * a while, for whoever wants to know what happened, and for good where its key
 * would have to be known to delete cachelib's file too. */
static int judge(const sweep *s, int fd, const struct stat *st, bool *ret_dead,
                 ces_file_head *ret_head, cession_error *err)
{
    uint8_t data[CES_FILE_HEAD_LEN];
    ces_file_head head = {.expiry_ok = false};
    int rc = ces_files_pread(fd, data, sizeof data, 0, err);
    if (rc == CESSION_OK) {
        rc = ces_file_head_parse(data, sizeof data, (uint64_t)st->st_size, &head);
    }
    if (rc == CESSION_OK && head.expiry_ok) {
        *ret_dead = head.expires_at_ms <= s->now_ms;
    } else if (rc == CESSION_OK || rc == CESSION_E_FORMAT) {
        *ret_dead = s->legacy == 0 && mtime_ms(st) < s->now_ms - LEFTOVER_MS;
    } else if (rc == CESSION_E_NEWER) {
        *ret_dead = false;
    } else {
        return rc;
    }
    *ret_head = head;
    return CESSION_OK;
}

/* Delete cachelib's file of the key that is in the open file. */
static int delete_legacy(const sweep *s, int fd, const ces_file_head *head,
                         const ces_files_name *name, cession_error *err)
{
    uint8_t key[CESSION_KEY_MAX] = {0}; /* for compilers that see it handed on before it is read */
    ces_files_name of_key;
    cession_span span = cession_span_of(key, head->key_len);
    int rc = ces_files_pread(fd, key, span.len, CES_FILE_HEAD_LEN, err);
    if (rc == CESSION_OK) {
        rc = ces_files_name_of(s->self, span, &of_key, err);
    }
    if (rc == CESSION_OK && memcmp(of_key.hash, name->hash, CES_FILES_HASH_LEN) != 0) {
        rc = CESSION_E_FORMAT;
    }
    return rc == CESSION_OK ? ces_files_legacy_unlink(s->self, s->root, name, span, err) : rc;
}

/* Under the key's lock. E_FORMAT: better left alone. */
static int delete_locked(const sweep *s, const ces_files_name *name, bool *ret_deleted,
                         cession_error *err)
{
    int fd;
    struct stat st;
    int rc = ces_files_open(s->dir_fd, name->file, false, &fd, &st, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    bool dead = false;
    ces_file_head head;
    rc = judge(s, fd, &st, &dead, &head, err);
    if (rc == CESSION_OK && dead && s->legacy != 0) {
        rc = delete_legacy(s, fd, &head, name, err);
    }
    close(fd);
    if (rc == CESSION_OK && dead) {
        rc = ces_files_unlink(s->dir_fd, name->file, err);
        *ret_deleted = rc == CESSION_OK;
    }
    return rc;
}

static int sweep_file(sweep *s, const ces_files_name *name, cession_error *err)
{
    int fd;
    struct stat st;
    int rc = ces_files_open(s->dir_fd, name->file, false, &fd, &st, err);
    if (rc == CESSION_NOT_FOUND || rc == CESSION_E_FORMAT) {
        return CESSION_OK;
    }
    if (rc != CESSION_OK) {
        return rc;
    }
    bool dead = false;
    ces_file_head head;
    rc = judge(s, fd, &st, &dead, &head, err);
    close(fd);
    if (rc != CESSION_OK) {
        return rc;
    }
    bool deleted = false;
    if (dead) {
        /* Whoever has the lock is about to renew or to delete it. */
        rc = ces_files_lock_take(&s->lock, name->hash, 0, err);
        if (rc == CESSION_OK) {
            rc = delete_locked(s, name, &deleted, err);
            ces_files_lock_drop(&s->lock);
        }
        if (rc == CESSION_E_BUSY || rc == CESSION_E_FORMAT || rc == CESSION_NOT_FOUND) {
            rc = CESSION_OK;
        }
    }
    s->deleted += deleted;
    s->kept += !deleted;
    return rc;
}

typedef struct visit {
    sweep *s;
    cession_error *err;
} visit;

static int sweep_any(sweep *s, const char *name, cession_error *err)
{
    if (s->shard == CES_FILES_SHARDS) {
        s->budget--;
        bool deleted = false;
        int rc = ces_files_legacy_sweep(s->self, s->dir_fd, name, s->now_ms, &deleted, err);
        s->deleted += deleted;
        return rc;
    }
    if (is_tmp(name)) {
        struct stat st;
        if (fstatat(s->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            mtime_ms(&st) < s->now_ms - LEFTOVER_MS) {
            return ces_files_unlink(s->dir_fd, name, err);
        }
        return CESSION_OK;
    }
    uint8_t hash[CES_FILES_HASH_LEN];
    if (!ces_files_unhex(name, hash, sizeof hash) || hash[0] != s->shard) {
        return CESSION_OK; /* not ours */
    }
    s->budget--;
    ces_files_name full;
    ces_files_name_of_hash(hash, &full);
    return sweep_file(s, &full, err);
}

static int sweep_entry(void *context, const char *name)
{
    const visit *v = context;
    sweep *s = v->s;
    if (s->deleted == s->limit || s->budget == 0) {
        return CESSION_E_LIMIT;
    }
    if (s->deadline != 0 && ces_mono_ns() > s->deadline) {
        return cession_fail(v->err, CESSION_E_TIMEOUT, NULL);
    }
    cession_error what = CESSION_ERROR_INIT;
    int rc = sweep_any(s, name, &what);
    if (rc >= 0) {
        return rc;
    }
    /* One bad file must not keep the others from being swept for ever. */
    if (s->failed == CESSION_OK) {
        s->failed = cession_fail(v->err, rc, "%s", what.text);
    }
    return CESSION_OK;
}

/* Sweep the directory of the place from there on. */
static int sweep_place(sweep *s, ces_files_place *place, cession_error *err)
{
    s->shard = place->shard;
    if (place->shard == CES_FILES_SHARDS) {
        if (s->legacy == 0) {
            return CESSION_OK;
        }
        int rc = ces_files_top_open(s->root, &s->dir_fd, err);
        if (rc != CESSION_OK) {
            return rc;
        }
    } else {
        char shard[CES_FILES_SHARD_SIZE];
        ces_files_shard_name(place->shard, shard);
        int rc = ces_files_shard_open(s->self, s->root, shard, false, &s->dir_fd, err);
        if (rc != CESSION_OK) {
            return rc == CESSION_NOT_FOUND || rc == CESSION_E_FOREIGN ? CESSION_OK : rc;
        }
    }
    visit v = {.s = s, .err = err};
    int rc = ces_files_walk(s->dir_fd, &place->at, sweep_entry, &v, err);
    close(s->dir_fd);
    return rc;
}

/* Go round from where the last sweep ended, at most over `places` directories.
 * OK: all of them; E_LIMIT: the limit or the budget is reached; GONE: deleted
 * under us. */
static int sweep_round(sweep *s, unsigned places, size_t *ret_done, cession_error *err)
{
    pthread_mutex_lock(&s->self->mutex);
    ces_files_place place = s->self->place;
    pthread_mutex_unlock(&s->self->mutex);
    int rc = CESSION_OK;
    size_t done = 0;
    while (done < places) {
        rc = sweep_place(s, &place, err);
        if (rc != CESSION_OK) {
            break;
        }
        done++;
        place = (ces_files_place){.shard = (place.shard + 1) % PLACES};
    }
    pthread_mutex_lock(&s->self->mutex);
    s->self->place = place;
    pthread_mutex_unlock(&s->self->mutex);
    *ret_done = done;
    return rc;
}

/* ---- operations ------------------------------------------------------------------------ */

void ces_files_sweep_start(ces_files *self)
{
    self->place = (ces_files_place){.shard = (unsigned)(ces_chance() % PLACES)};
    /* Processes that live for a few requests sweep as often, taken together. */
    atomic_init(&self->creates, (unsigned)(ces_chance() % DUE_CREATES));
    atomic_init(&self->seen, 0);
}

int ces_files_purge(cession_store *store, size_t limit, cession_deadline deadline,
                    size_t *ret_count, cession_error *err)
{
    ces_files *self = ces_files_of(store);
    sweep s = {.limit = limit, .budget = SIZE_MAX, .deadline = deadline};
    int rc = sweep_begin(self, &s, err);
    if (rc == CESSION_OK) {
        size_t done;
        /* The first one twice: the round may have begun in its middle. */
        rc = sweep_round(&s, PLACES + 1, &done, err);
        sweep_end(&s);
    }
    if (rc == CESSION_OK) {
        rc = s.failed;
    }
    if (rc < 0 && rc != CESSION_E_LIMIT) {
        return rc;
    }
    *ret_count = s.deleted;
    return CESSION_OK;
}

int ces_files_maintain(cession_store *store, cession_deadline deadline, cession_error *err)
{
    ces_files *self = ces_files_of(store);
    size_t creates = atomic_exchange_explicit(&self->creates, 0, memory_order_relaxed);
    size_t budget = creates < SWEEP_MOST ? creates * FILES_PER_CREATE : SWEEP_MOST;
    budget = budget < SWEEP_LEAST ? SWEEP_LEAST : budget > SWEEP_MOST ? SWEEP_MOST : budget;
    sweep s = {.limit = SIZE_MAX, .budget = budget, .deadline = deadline};
    int rc = sweep_begin(self, &s, err);
    if (rc != CESSION_OK) {
        return rc == CESSION_NOT_FOUND ? CESSION_OK : rc;
    }
    size_t done = 0;
    rc = sweep_round(&s, PLACES, &done, err);
    sweep_end(&s);

    size_t places = rc == CESSION_OK ? done : done + 1;
    atomic_store_explicit(&self->seen, (uint64_t)s.kept * PLACES / places + 1,
                          memory_order_relaxed);
    if (s.deleted > budget / 4) {
        /* Much has expired: go on soon. */
        atomic_fetch_add_explicit(&self->creates, DUE_CREATES, memory_order_relaxed);
    }
    if (rc == CESSION_OK || rc == CESSION_E_LIMIT || rc == CESSION_E_TIMEOUT ||
        rc == CESSION_GONE) {
        return s.failed;
    }
    return rc;
}

bool ces_files_maintenance_due(const cession_store *store)
{
    const ces_files *self = (const ces_files *)store;
    unsigned creates = atomic_load_explicit(&self->creates, memory_order_relaxed);
    if (self->threshold == 0 || creates < DUE_CREATES) {
        return false;
    }
    uint64_t seen = atomic_load_explicit(&self->seen, memory_order_relaxed);
    return seen == 0 || creates >= DUE_ALWAYS || seen - 1 + creates > self->threshold;
}

/* ---- scan ---------------------------------------------------------------------------------- */

/* The order of a scan is the order of the hashes, and the cursor the last hash
 * that was passed: it means the same to every process, whatever comes and goes. */
typedef struct page {
    unsigned shard;
    uint8_t after[CES_FILES_HASH_LEN];
    size_t most;
    size_t count;
    uint8_t hashes[SCAN_MOST][CES_FILES_HASH_LEN]; /* the first ones after, sorted */
} page;

static int page_entry(void *context, const char *name)
{
    page *p = context;
    uint8_t hash[CES_FILES_HASH_LEN];
    if (!ces_files_unhex(name, hash, sizeof hash) || hash[0] != p->shard ||
        memcmp(hash, p->after, sizeof hash) <= 0) {
        return CESSION_OK;
    }
    size_t at = p->count;
    while (at > 0 && memcmp(p->hashes[at - 1], hash, sizeof hash) > 0) {
        at--;
    }
    if (at == p->most || (at > 0 && memcmp(p->hashes[at - 1], hash, sizeof hash) == 0)) {
        return CESSION_OK;
    }
    if (p->count < p->most) {
        p->count++;
    }
    memmove(p->hashes + at + 1, p->hashes + at, (p->count - at - 1) * sizeof hash);
    memcpy(p->hashes[at], hash, sizeof hash);
    return CESSION_OK;
}

/* The live record in a file: OK, or NOT_FOUND. */
static int read_any(const ces_files *self, int dir_fd, const uint8_t *hash,
                    uint8_t key[CESSION_KEY_MAX], size_t *ret_key_len, cession_buf *value,
                    int64_t *ret_expires_at_ms, cession_error *err)
{
    ces_files_name name, of_key;
    ces_files_name_of_hash(hash, &name);
    int fd;
    struct stat st;
    int rc = ces_files_open(dir_fd, name.file, false, &fd, &st, err);
    if (rc != CESSION_OK) {
        return rc == CESSION_E_FORMAT ? CESSION_NOT_FOUND : rc;
    }
    uint8_t data[CES_FILE_HEAD_LEN];
    ces_file_head head;
    rc = ces_files_pread(fd, data, sizeof data, 0, err);
    if (rc == CESSION_OK) {
        rc = ces_file_head_parse(data, sizeof data, (uint64_t)st.st_size, &head);
    }
    if (rc == CESSION_OK) {
        rc = ces_files_pread(fd, key, head.key_len, CES_FILE_HEAD_LEN, err);
    }
    if (rc == CESSION_OK) {
        rc = ces_files_name_of(self, cession_span_of(key, head.key_len), &of_key, err);
    }
    if (rc == CESSION_OK && memcmp(of_key.hash, hash, CES_FILES_HASH_LEN) != 0) {
        rc = CESSION_E_FORMAT; /* a copy of another key's file */
    }
    if (rc == CESSION_OK) {
        rc = ces_files_read_open(fd, &st, cession_span_of(key, head.key_len), value, &head, err);
    }
    close(fd);
    if (rc == CESSION_OK && head.expires_at_ms > ces_now_ms()) {
        *ret_key_len = head.key_len;
        *ret_expires_at_ms = head.expires_at_ms;
        return CESSION_OK;
    }
    return rc == CESSION_OK || rc == CESSION_E_FORMAT || rc == CESSION_E_NEWER ? CESSION_NOT_FOUND
                                                                               : rc;
}

static void put_cursor(cession_buf *cursor, const uint8_t *hash)
{
    memcpy(cursor->data, hash, CES_FILES_HASH_LEN);
    cursor->len = CES_FILES_HASH_LEN;
}

typedef struct listing {
    const ces_files *self;
    cession_buf *cursor;
    size_t left; /* records to visit */
    cession_deadline deadline;
    cession_scan_fn *visit;
    void *context;
    cession_buf value;
    page page;
} listing;

/* Visit what the page holds; the cursor goes along. */
static int list_page(listing *l, int dir_fd, cession_error *err)
{
    for (size_t i = 0; i < l->page.count && l->left > 0; i++) {
        uint8_t key[CESSION_KEY_MAX];
        size_t key_len = 0;
        int64_t expires = 0;
        if (l->deadline != 0 && ces_mono_ns() > l->deadline) {
            return cession_fail(err, CESSION_E_TIMEOUT, NULL);
        }
        int rc = read_any(l->self, dir_fd, l->page.hashes[i], key, &key_len, &l->value, &expires,
                          err);
        if (rc < 0) {
            return rc;
        }
        put_cursor(l->cursor, l->page.hashes[i]);
        if (rc == CESSION_OK) {
            l->left--;
            rc = l->visit(l->context, cession_span_of(key, key_len), cession_buf_span(&l->value),
                          expires);
            if (rc != CESSION_OK) {
                return rc;
            }
        }
    }
    return CESSION_OK;
}

/* Visit a shard from the cursor on, as far as the batch goes. */
static int list_shard(listing *l, const ces_files_root *root, unsigned shard, cession_error *err)
{
    char name[CES_FILES_SHARD_SIZE];
    int dir_fd;
    ces_files_shard_name(shard, name);
    int rc = ces_files_shard_open(l->self, root, name, false, &dir_fd, err);
    if (rc != CESSION_OK) {
        return rc == CESSION_NOT_FOUND || rc == CESSION_E_FOREIGN ? CESSION_OK : rc;
    }
    bool more = true;
    while (rc == CESSION_OK && more && l->left > 0) {
        int64_t place = 0;
        l->page.shard = shard;
        l->page.count = 0;
        l->page.most = l->left < SCAN_MOST ? l->left : SCAN_MOST;
        memset(l->page.after, 0, sizeof l->page.after);
        if (l->cursor->len != 0 && l->cursor->data[0] == shard) {
            memcpy(l->page.after, l->cursor->data, sizeof l->page.after);
        }
        rc = ces_files_walk(dir_fd, &place, page_entry, &l->page, err);
        more = l->page.count == l->page.most;
        if (rc == CESSION_OK) {
            rc = list_page(l, dir_fd, err);
        }
    }
    close(dir_fd);
    return rc;
}

int ces_files_scan(cession_store *store, cession_buf *cursor, size_t batch,
                   cession_deadline deadline, cession_scan_fn *visit_fn, void *context,
                   cession_error *err)
{
    ces_files *self = ces_files_of(store);
    if (cursor->len != 0 && cursor->len != CES_FILES_HASH_LEN) {
        return cession_fail(err, CESSION_E_INVALID, "the cursor comes from another store");
    }
    int rc = cession_buf_reserve(cursor, CES_FILES_HASH_LEN - cursor->len);
    if (rc != CESSION_OK) {
        return cession_fail(err, rc, NULL);
    }
    ces_files_root *root;
    rc = CESSION_GONE;
    for (int tries = 0; rc == CESSION_GONE && tries < 2; tries++) {
        unsigned legacy;
        rc = ces_files_root_take(self, false, &root, err);
        if (rc == CESSION_OK) {
            rc = ces_files_root_check(self, root, &legacy, err);
            if (rc != CESSION_OK) {
                ces_files_root_drop(self, root);
            }
        }
    }
    if (rc != CESSION_OK) {
        if (rc > 0) {
            cession_buf_clear(cursor);
        }
        return rc > 0 ? CESSION_OK : rc;
    }
    listing *l = ces_alloc(sizeof *l);
    if (l == NULL) {
        ces_files_root_drop(self, root);
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    *l = (listing){.self = self,
                   .cursor = cursor,
                   .left = batch,
                   .deadline = deadline,
                   .visit = visit_fn,
                   .context = context};
    cession_buf_init(&l->value, CESSION_VALUE_MAX);
    unsigned shard = cursor->len != 0 ? cursor->data[0] : 0;
    rc = CESSION_OK;
    while (rc == CESSION_OK && l->left > 0 && shard < CES_FILES_SHARDS) {
        rc = list_shard(l, root, shard, err);
        if (rc == CESSION_OK && l->left > 0) {
            shard++;
        }
    }
    if (rc == CESSION_OK && shard == CES_FILES_SHARDS) {
        cession_buf_clear(cursor);
    }
    cession_buf_release(&l->value);
    ces_free(l);
    ces_files_root_drop(self, root);
    return rc;
}
