/* The reference driver: sessions in this process's memory, gone when it ends.
 *
 * Read it as the contract of cession/store.h in its plainest form. What every
 * driver has to do is marked with "Contract:".
 *
 * Structure: records lie in SHARDS hash tables, each with a mutex of its own,
 * and in each shard in a heap ordered by expiry, so that a purge costs what it
 * deletes and not what is stored. Chains are ordered by the bits of the hash
 * that choose them (the top ones), so that the order of a scan survives the
 * growth of a table.
 *
 * Caveats:
 * - Processes share nothing. After a fork the child goes on with a copy of its
 *   own, consistent as of the fork, and neither sees the other's changes.
 * - Expired records stay in memory until a purge, until their key is created
 *   again, or until a table would grow: a program that never purges holds at
 *   most about twice as many records as ever lived at one time.
 * - Mutexes are held for a few instructions and a copy of one value, or for the
 *   growth of one table. That does not count as waiting: deadlines are not
 *   looked at.
 */
#include "drivers/drivers.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "base/os.h"
#include "base/banned.h"

#define SHARD_BITS 4u
#define SHARDS (1u << SHARD_BITS)
#define TABLE_BITS_MIN 4u
#define TABLE_BITS_MAX 28u
#define PURGE_EACH_WRITES 1024u /* a power of two */

typedef struct record {
    struct record *next; /* of its chain */
    uint64_t hash;
    int64_t expires_at_ms;
    size_t heap_at; /* place in the heap of its shard */
    uint8_t *value; /* NULL when empty */
    size_t value_len;
    size_t key_len;
    uint8_t key[];
} record;

typedef struct shard {
    pthread_mutex_t mutex;
    record **table; /* 1 << bits chains; NULL until the first record */
    unsigned bits;
    record **heap; /* count records, the one that expires first on top */
    size_t count;
    size_t heap_cap;
} shard;

typedef struct memory_store {
    cession_store base;
    uint64_t seed[2];
    atomic_uint writes; /* only to say when a purge is due */
    ces_fork_hook hook;
    shard shards[SHARDS];
} memory_store;

static memory_store *self_of(cession_store *store)
{
    return (memory_store *)store;
}

/* ---- hashing -------------------------------------------------------------- */

static uint64_t rotl(uint64_t x, unsigned by)
{
    return (x << by) | (x >> (64 - by));
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

/* SipHash-2-4 under a random seed: nobody can choose keys that share a chain.
 * Algorithm: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012. */
static uint64_t hash_of(const memory_store *self, cession_span key)
{
    uint64_t v[4] = {
        self->seed[0] ^ UINT64_C(0x736f6d6570736575), self->seed[1] ^ UINT64_C(0x646f72616e646f6d),
        self->seed[0] ^ UINT64_C(0x6c7967656e657261), self->seed[1] ^ UINT64_C(0x7465646279746573)};
    const uint8_t *at = key.data;
    size_t left = key.len;
    uint64_t word;
    for (; left >= 8; at += 8, left -= 8) {
        memcpy(&word, at, 8);
        v[3] ^= word;
        sip_round(v);
        sip_round(v);
        v[0] ^= word;
    }
    word = (uint64_t)key.len << 56;
    for (size_t i = 0; i < left; i++) {
        word |= (uint64_t)at[i] << (8 * i);
    }
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++) {
        sip_round(v);
    }
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static shard *shard_of(memory_store *self, uint64_t hash)
{
    return &self->shards[hash >> (64 - SHARD_BITS)];
}

/* The bits below those that chose the shard. */
static size_t chain_of(const shard *s, uint64_t hash)
{
    return (size_t)((hash << SHARD_BITS) >> (64 - s->bits));
}

/* ---- the heap: children of i are 2i+1 and 2i+2 ---------------------------- */

static void heap_put(shard *s, size_t at, record *r)
{
    s->heap[at] = r;
    r->heap_at = at;
}

/* Move the record to where its expiry belongs. */
static void heap_fix(shard *s, record *r)
{
    size_t at = r->heap_at;
    while (at > 0) {
        record *parent = s->heap[(at - 1) / 2];
        if (parent->expires_at_ms <= r->expires_at_ms) {
            break;
        }
        heap_put(s, at, parent);
        at = (at - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= s->count) {
            break;
        }
        if (child + 1 < s->count &&
            s->heap[child + 1]->expires_at_ms < s->heap[child]->expires_at_ms) {
            child++;
        }
        if (s->heap[child]->expires_at_ms >= r->expires_at_ms) {
            break;
        }
        heap_put(s, at, s->heap[child]);
        at = child;
    }
    heap_put(s, at, r);
}

static void heap_take(shard *s, record *r)
{
    record *last = s->heap[--s->count];
    if (last != r) {
        last->heap_at = r->heap_at;
        heap_put(s, r->heap_at, last);
        heap_fix(s, last);
    }
}

/* ---- records; the shard's mutex is held ------------------------------------ */

static void record_free(record *r)
{
    if (r != NULL) {
        ces_free(r->value);
        ces_free(r);
    }
}

static record *find(const shard *s, uint64_t hash, cession_span key)
{
    if (s->table == NULL) {
        return NULL;
    }
    record *r = s->table[chain_of(s, hash)];
    while (r != NULL &&
           !(r->hash == hash && cession_span_eq(cession_span_of(r->key, r->key_len), key))) {
        r = r->next;
    }
    return r;
}

/* Contract: an expired record counts as missing, swept or not. */
static record *find_live(const shard *s, uint64_t hash, cession_span key, int64_t now_ms)
{
    record *r = find(s, hash, key);
    return r != NULL && r->expires_at_ms > now_ms ? r : NULL;
}

/* Take the record out of table and heap; the caller frees it. */
static void detach(shard *s, record *r)
{
    record **link = &s->table[chain_of(s, r->hash)];
    while (*link != r) {
        link = &(*link)->next;
    }
    *link = r->next;
    heap_take(s, r);
}

static size_t purge_shard(shard *s, size_t limit, int64_t now_ms)
{
    size_t count = 0;
    while (count < limit && s->count > 0 && s->heap[0]->expires_at_ms <= now_ms) {
        record *r = s->heap[0];
        detach(s, r);
        record_free(r);
        count++;
    }
    return count;
}

static int grow_table(shard *s, unsigned bits)
{
    record **table = ces_alloc_zero(((size_t)1 << bits) * sizeof *table);
    if (table == NULL) {
        return CESSION_E_NOMEM;
    }
    ces_free(s->table);
    s->table = table;
    s->bits = bits;
    for (size_t i = 0; i < s->count; i++) {
        record **chain = &table[chain_of(s, s->heap[i]->hash)];
        s->heap[i]->next = *chain;
        *chain = s->heap[i];
    }
    return CESSION_OK;
}

/* Room for one more record. */
static int make_room(shard *s, int64_t now_ms)
{
    if (s->table == NULL) {
        int rc = grow_table(s, TABLE_BITS_MIN);
        if (rc != CESSION_OK) {
            return rc;
        }
    }
    if (s->count >= (size_t)1 << s->bits && s->bits < TABLE_BITS_MAX) {
        /* Growing visits every record, so dropping the dead ones first adds no
         * order of magnitude, and often makes growing needless. */
        purge_shard(s, s->count, now_ms);
        if (s->count >= ((size_t)1 << s->bits) / 2) {
            int rc = grow_table(s, s->bits + 1);
            if (rc != CESSION_OK) {
                return rc;
            }
        }
    }
    if (s->count == s->heap_cap) {
        size_t cap = s->heap_cap != 0 ? 2 * s->heap_cap : (size_t)1 << TABLE_BITS_MIN;
        record **heap = ces_resize(s->heap, cap * sizeof *heap);
        if (heap == NULL) {
            return CESSION_E_NOMEM;
        }
        s->heap = heap;
        s->heap_cap = cap;
    }
    return CESSION_OK;
}

/* After make_room. */
static void insert(shard *s, record *r)
{
    record **chain = &s->table[chain_of(s, r->hash)];
    r->next = *chain;
    *chain = r;
    r->heap_at = s->count++;
    heap_put(s, r->heap_at, r);
    heap_fix(s, r);
}

static int copy_bytes(cession_span bytes, uint8_t **ret_copy, cession_error *err)
{
    uint8_t *copy = NULL;
    if (bytes.len != 0) {
        copy = ces_alloc(bytes.len);
        if (copy == NULL) {
            return cession_fail(err, CESSION_E_NOMEM, NULL);
        }
        memcpy(copy, bytes.data, bytes.len);
    }
    *ret_copy = copy;
    return CESSION_OK;
}

static record *record_new(uint64_t hash, cession_span key, cession_span value,
                          int64_t expires_at_ms, cession_error *err)
{
    record *r = ces_alloc(sizeof *r + key.len);
    if (r == NULL) {
        cession_fail(err, CESSION_E_NOMEM, NULL);
        return NULL;
    }
    if (copy_bytes(value, &r->value, err) != CESSION_OK) {
        ces_free(r);
        return NULL;
    }
    r->next = NULL;
    r->hash = hash;
    r->expires_at_ms = expires_at_ms;
    r->heap_at = 0;
    r->value_len = value.len;
    r->key_len = key.len;
    memcpy(r->key, key.data, key.len);
    return r;
}

/* Contract: the outputs are set together or not at all. The version stays
 * empty, which tells the caller that this store compares values. */
static int give(const record *r, cession_stored *ret_stored, cession_error *err)
{
    int rc = cession_buf_set(&ret_stored->value, r->value, r->value_len);
    if (rc != CESSION_OK) {
        return cession_fail(err, rc, NULL);
    }
    ret_stored->version_len = 0;
    ret_stored->expires_at_ms = r->expires_at_ms;
    return CESSION_OK;
}

static bool holds(const record *r, const cession_expected *expected)
{
    return cession_span_eq(cession_span_of(r->value, r->value_len), expected->value);
}

static void wrote(memory_store *self)
{
    atomic_fetch_add_explicit(&self->writes, 1, memory_order_relaxed);
}

/* ---- operations ------------------------------------------------------------ */

static int memory_load(cession_store *store, cession_span key, cession_deadline deadline,
                       cession_stored *ret_stored, cession_error *err)
{
    (void)deadline;
    memory_store *self = self_of(store);
    uint64_t hash = hash_of(self, key);
    shard *s = shard_of(self, hash);
    pthread_mutex_lock(&s->mutex);
    const record *r = find_live(s, hash, key, ces_now_ms());
    int rc = r != NULL ? give(r, ret_stored, err) : CESSION_NOT_FOUND;
    pthread_mutex_unlock(&s->mutex);
    return rc;
}

/* Contract: insert only, but over an expired record. */
static int memory_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                         cession_deadline deadline, cession_error *err)
{
    (void)deadline;
    memory_store *self = self_of(store);
    uint64_t hash = hash_of(self, key);
    shard *s = shard_of(self, hash);
    int64_t now = ces_now_ms();
    record *fresh = record_new(hash, key, value, now + ttl_ms, err);
    if (fresh == NULL) {
        return CESSION_E_NOMEM;
    }
    record *unwanted = fresh; /* freed outside the mutex */
    int rc;
    pthread_mutex_lock(&s->mutex);
    record *old = find(s, hash, key);
    if (old != NULL && old->expires_at_ms > now) {
        rc = CESSION_EXISTS;
    } else {
        /* The room is made first: on failure the expired record is still there.
         * Making room may purge it, so it is looked up again. */
        rc = make_room(s, now);
        if (rc == CESSION_OK) {
            old = find(s, hash, key);
            if (old != NULL) {
                detach(s, old);
            }
            insert(s, fresh);
            unwanted = old;
        }
    }
    pthread_mutex_unlock(&s->mutex);
    record_free(unwanted);
    wrote(self);
    return rc < 0 ? cession_fail(err, rc, NULL) : rc;
}

/* Contract: one atomic step from "still holds what is expected" to "holds the
 * new value"; never creates. */
static int memory_replace(cession_store *store, cession_span key, const cession_expected *expected,
                          cession_span value, int64_t ttl_ms, cession_deadline deadline,
                          cession_stored *ret_current, cession_error *err)
{
    (void)deadline;
    memory_store *self = self_of(store);
    uint64_t hash = hash_of(self, key);
    shard *s = shard_of(self, hash);
    uint8_t *copy = NULL; /* the new value going in, the old one coming out */
    int rc = copy_bytes(value, &copy, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    int64_t now = ces_now_ms();
    pthread_mutex_lock(&s->mutex);
    record *r = find_live(s, hash, key, now);
    if (r == NULL) {
        rc = CESSION_GONE;
    } else if (!holds(r, expected)) {
        rc = give(r, ret_current, err);
        if (rc == CESSION_OK) {
            rc = CESSION_CONFLICT;
        }
    } else {
        uint8_t *old = r->value;
        r->value = copy;
        r->value_len = value.len;
        r->expires_at_ms = now + ttl_ms;
        heap_fix(s, r);
        copy = old;
    }
    pthread_mutex_unlock(&s->mutex);
    ces_free(copy);
    wrote(self);
    return rc;
}

/* Contract: the expiry moves only while the expected value is there: a late
 * touch must not keep alive what somebody else has put in its place. */
static int memory_touch(cession_store *store, cession_span key, const cession_expected *expected,
                        int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    (void)deadline;
    (void)err;
    memory_store *self = self_of(store);
    uint64_t hash = hash_of(self, key);
    shard *s = shard_of(self, hash);
    int64_t now = ces_now_ms();
    int rc = CESSION_OK;
    pthread_mutex_lock(&s->mutex);
    record *r = find_live(s, hash, key, now);
    if (r == NULL) {
        rc = CESSION_GONE;
    } else if (!holds(r, expected)) {
        rc = CESSION_CHANGED;
    } else {
        r->expires_at_ms = now + ttl_ms;
        heap_fix(s, r);
    }
    pthread_mutex_unlock(&s->mutex);
    wrote(self);
    return rc;
}

/* Contract: OK also when there was nothing. */
static int memory_remove(cession_store *store, cession_span key, cession_deadline deadline,
                         cession_error *err)
{
    (void)deadline;
    (void)err;
    memory_store *self = self_of(store);
    uint64_t hash = hash_of(self, key);
    shard *s = shard_of(self, hash);
    pthread_mutex_lock(&s->mutex);
    record *r = find(s, hash, key);
    if (r != NULL) {
        detach(s, r);
    }
    pthread_mutex_unlock(&s->mutex);
    record_free(r);
    return CESSION_OK;
}

/* Contract: at most limit; fewer means that there are no more. */
static int memory_purge(cession_store *store, size_t limit, cession_deadline deadline,
                        size_t *ret_count, cession_error *err)
{
    (void)deadline;
    (void)err;
    memory_store *self = self_of(store);
    int64_t now = ces_now_ms();
    size_t count = 0;
    for (size_t i = 0; i < SHARDS && count < limit; i++) {
        shard *s = &self->shards[i];
        pthread_mutex_lock(&s->mutex);
        count += purge_shard(s, limit - count, now);
        pthread_mutex_unlock(&s->mutex);
    }
    *ret_count = count;
    return CESSION_OK;
}

/* ---- scan ------------------------------------------------------------------ */

/* The order of a scan: by hash, then by key. A cursor is the place of the last
 * record that was seen: its hash (8 bytes, big-endian) and its key. */
static int order(uint64_t hash, cession_span key, const record *r)
{
    if (hash != r->hash) {
        return hash < r->hash ? -1 : 1;
    }
    size_t least = key.len < r->key_len ? key.len : r->key_len;
    int c = least != 0 ? memcmp(key.data, r->key, least) : 0;
    return c != 0 ? c : (key.len > r->key_len) - (key.len < r->key_len);
}

/* The first live record after the place (from, after) in the shard. */
static const record *next_record(const shard *s, uint64_t from, cession_span after, int64_t now_ms)
{
    if (s->table == NULL) {
        return NULL;
    }
    for (size_t chain = chain_of(s, from); chain < (size_t)1 << s->bits; chain++) {
        const record *best = NULL;
        for (const record *r = s->table[chain]; r != NULL; r = r->next) {
            if (r->expires_at_ms > now_ms && order(from, after, r) < 0 &&
                (best == NULL || order(r->hash, cession_span_of(r->key, r->key_len), best) < 0)) {
                best = r;
            }
        }
        if (best != NULL) {
            return best;
        }
    }
    return NULL;
}

static uint64_t get_be64(const uint8_t *from)
{
    uint64_t n = 0;
    for (int i = 0; i < 8; i++) {
        n = n << 8 | from[i];
    }
    return n;
}

static void put_be64(uint8_t *to, uint64_t n)
{
    for (int i = 7; i >= 0; i--, n >>= 8) {
        to[i] = (uint8_t)n;
    }
}

/* Copy the next record; its place becomes the new cursor. NOT_FOUND at the end. */
static int step(memory_store *self, cession_buf *place, cession_buf *value, int64_t *ret_expires,
                cession_error *err)
{
    uint64_t from = place->len != 0 ? get_be64(place->data) : 0;
    cession_span after = place->len != 0 ? cession_span_of(place->data + 8, place->len - 8)
                                         : cession_span_of(NULL, 0);
    int64_t now = ces_now_ms();
    for (size_t i = (size_t)(from >> (64 - SHARD_BITS)); i < SHARDS; i++) {
        shard *s = &self->shards[i];
        pthread_mutex_lock(&s->mutex);
        const record *r = next_record(s, from, after, now);
        if (r != NULL) {
            uint8_t head[8];
            cession_buf next;
            cession_buf_init(&next, place->max);
            put_be64(head, r->hash);
            int rc = cession_buf_append(&next, head, sizeof head);
            if (rc == CESSION_OK) {
                rc = cession_buf_append(&next, r->key, r->key_len);
            }
            if (rc == CESSION_OK) {
                rc = cession_buf_set(value, r->value, r->value_len);
            }
            if (rc == CESSION_OK) {
                cession_buf_swap(place, &next);
                *ret_expires = r->expires_at_ms;
            }
            pthread_mutex_unlock(&s->mutex);
            cession_buf_release(&next);
            return rc == CESSION_OK ? rc : cession_fail(err, rc, NULL);
        }
        pthread_mutex_unlock(&s->mutex);
        from = (uint64_t)(i + 1) << (64 - SHARD_BITS); /* wraps only after the last one */
        after = cession_span_of(NULL, 0);
    }
    return CESSION_NOT_FOUND;
}

/* Contract: the visitor runs without any lock of the store, on copies, and may
 * call the store. */
static int memory_scan(cession_store *store, cession_buf *cursor, size_t batch,
                       cession_deadline deadline, cession_scan_fn *visit, void *context,
                       cession_error *err)
{
    (void)deadline;
    memory_store *self = self_of(store);
    if (cursor->len != 0 && cursor->len < 8) {
        return cession_fail(err, CESSION_E_INVALID, "the cursor comes from another store");
    }
    cession_buf value;
    cession_buf_init(&value, CESSION_VALUE_MAX);
    int rc = CESSION_OK;
    for (size_t i = 0; i < batch && rc == CESSION_OK; i++) {
        int64_t expires = 0;
        rc = step(self, cursor, &value, &expires, err);
        if (rc == CESSION_OK) {
            rc = visit(context, cession_span_of(cursor->data + 8, cursor->len - 8),
                       cession_buf_span(&value), expires);
        } else if (rc == CESSION_NOT_FOUND) {
            cession_buf_clear(cursor);
            rc = CESSION_OK;
            break;
        }
    }
    cession_buf_release(&value);
    return rc;
}

/* ---- maintenance ------------------------------------------------------------ */

/* Contract: a hint without I/O or lock. */
static bool memory_maintenance_due(const cession_store *store)
{
    const memory_store *self = (const memory_store *)store;
    unsigned writes = atomic_load_explicit(&self->writes, memory_order_relaxed);
    return writes >= PURGE_EACH_WRITES;
}

static int memory_maintain(cession_store *store, cession_deadline deadline, cession_error *err)
{
    memory_store *self = self_of(store);
    size_t count;
    atomic_store_explicit(&self->writes, 0, memory_order_relaxed);
    return memory_purge(store, 2 * PURGE_EACH_WRITES, deadline, &count, err);
}

/* ---- life -------------------------------------------------------------------- */

static void lock_all(void *context)
{
    memory_store *self = context;
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&self->shards[i].mutex);
    }
}

static void unlock_all(void *context)
{
    memory_store *self = context;
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_unlock(&self->shards[i].mutex);
    }
}

static void memory_close(cession_store *store)
{
    memory_store *self = self_of(store);
    ces_fork_unregister(&self->hook);
    for (size_t i = 0; i < SHARDS; i++) {
        shard *s = &self->shards[i];
        for (size_t k = 0; k < s->count; k++) {
            record_free(s->heap[k]);
        }
        ces_free(s->heap);
        ces_free(s->table);
        pthread_mutex_destroy(&s->mutex);
    }
    ces_free(self);
}

static int memory_open(const cession_option *options, size_t count, cession_store **ret_store,
                       cession_error *err)
{
    (void)options;
    if (count != 0) {
        return cession_fail(err, CESSION_E_INVALID, "a memory store takes no options");
    }
    memory_store *self = ces_alloc_zero(sizeof *self);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->base = (cession_store){
        .ops = &ces_driver_memory,
        .caps = CESSION_CAP_GIVES_EXPIRY | CESSION_CAP_ATOMIC | CESSION_CAP_LISTABLE |
                CESSION_CAP_FAST | CESSION_CAP_MAINTAIN,
    };
    int rc = ces_random(self->seed, sizeof self->seed, err);
    if (rc != CESSION_OK) {
        ces_free(self);
        return rc;
    }
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&self->shards[i].mutex, NULL);
    }
    self->hook = (ces_fork_hook){
        .prepare = lock_all, .parent = unlock_all, .child = unlock_all, .context = self};
    rc = ces_fork_register(&self->hook, err);
    if (rc != CESSION_OK) {
        for (size_t i = 0; i < SHARDS; i++) {
            pthread_mutex_destroy(&self->shards[i].mutex);
        }
        ces_free(self);
        return rc;
    }
    *ret_store = &self->base;
    return CESSION_OK;
}

const cession_store_ops ces_driver_memory = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "memory",
    .open = memory_open,
    .close = memory_close,
    .load = memory_load,
    .create = memory_create,
    .replace = memory_replace,
    .touch = memory_touch,
    .remove = memory_remove,
    .purge = memory_purge,
    .scan = memory_scan,
    .maintain = memory_maintain,
    .maintenance_due = memory_maintenance_due,
};
