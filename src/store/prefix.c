/* Decorator: every key gets a prefix, so that several applications can share a
 * store.
 *
 * A scan shows only keys that have the prefix, without it. Where the store
 * hashes its keys (CESSION_CAP_HASHED_KEYS) the prefix cannot be seen in them,
 * and a scan visits all records of the store. */
#include "cession/store.h"

#include "base/alloc.h"
#include "base/banned.h"

typedef struct prefix_store {
    cession_store base;
    cession_store *inner;
    size_t len;
    uint8_t prefix[];
} prefix_store;

static const cession_store_ops prefix_ops;

static prefix_store *self_of(cession_store *store)
{
    return (prefix_store *)store;
}

typedef struct full_key {
    uint8_t bytes[CESSION_KEY_MAX];
} full_key;

static int join(const prefix_store *self, cession_span key, full_key *room, cession_span *ret_key,
                cession_error *err)
{
    if (key.len > sizeof room->bytes - self->len) {
        return cession_fail(err, CESSION_E_LIMIT,
                            "the key has %zu bytes with its prefix, %u are the limit",
                            key.len + self->len, CESSION_KEY_MAX);
    }
    if (self->len != 0) {
        memcpy(room->bytes, self->prefix, self->len);
    }
    memcpy(room->bytes + self->len, key.data, key.len);
    *ret_key = cession_span_of(room->bytes, self->len + key.len);
    return CESSION_OK;
}

static void prefix_close(cession_store *store)
{
    prefix_store *self = self_of(store);
    cession_store_close(self->inner);
    ces_free(self);
}

static int prefix_load(cession_store *store, cession_span key, cession_deadline deadline,
                       cession_stored *ret_stored, cession_error *err)
{
    prefix_store *self = self_of(store);
    full_key room;
    cession_span full;
    int rc = join(self, key, &room, &full, err);
    return rc != CESSION_OK ? rc : cession_store_load(self->inner, full, deadline, ret_stored, err);
}

static int prefix_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                         cession_deadline deadline, cession_error *err)
{
    prefix_store *self = self_of(store);
    full_key room;
    cession_span full;
    int rc = join(self, key, &room, &full, err);
    return rc != CESSION_OK ? rc
                            : cession_store_create(self->inner, full, value, ttl_ms, deadline, err);
}

static int prefix_replace(cession_store *store, cession_span key, const cession_expected *expected,
                          cession_span value, int64_t ttl_ms, cession_deadline deadline,
                          cession_stored *ret_current, cession_error *err)
{
    prefix_store *self = self_of(store);
    full_key room;
    cession_span full;
    int rc = join(self, key, &room, &full, err);
    return rc != CESSION_OK ? rc
                            : cession_store_replace(self->inner, full, expected, value, ttl_ms,
                                                    deadline, ret_current, err);
}

static int prefix_touch(cession_store *store, cession_span key, const cession_expected *expected,
                        int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    prefix_store *self = self_of(store);
    full_key room;
    cession_span full;
    int rc = join(self, key, &room, &full, err);
    return rc != CESSION_OK
               ? rc
               : cession_store_touch(self->inner, full, expected, ttl_ms, deadline, err);
}

static int prefix_remove(cession_store *store, cession_span key, cession_deadline deadline,
                         cession_error *err)
{
    prefix_store *self = self_of(store);
    full_key room;
    cession_span full;
    int rc = join(self, key, &room, &full, err);
    return rc != CESSION_OK ? rc : cession_store_remove(self->inner, full, deadline, err);
}

static int prefix_purge(cession_store *store, size_t limit, cession_deadline deadline,
                        size_t *ret_count, cession_error *err)
{
    return cession_store_purge(self_of(store)->inner, limit, deadline, ret_count, err);
}

typedef struct prefix_visit {
    const prefix_store *self;
    cession_scan_fn *visit;
    void *context;
} prefix_visit;

static int visit_prefixed(void *context, cession_span key, cession_span value,
                          int64_t expires_at_ms)
{
    const prefix_visit *v = context;
    size_t len = v->self->len;
    if ((v->self->base.caps & CESSION_CAP_HASHED_KEYS) == 0) {
        if (key.len < len || (len != 0 && memcmp(key.data, v->self->prefix, len) != 0)) {
            return CESSION_OK;
        }
        key = cession_span_of(key.data + len, key.len - len);
    }
    return v->visit(v->context, key, value, expires_at_ms);
}

static int prefix_scan(cession_store *store, cession_buf *cursor, size_t batch,
                       cession_deadline deadline, cession_scan_fn *visit, void *context,
                       cession_error *err)
{
    prefix_visit v = {.self = self_of(store), .visit = visit, .context = context};
    return cession_store_scan(v.self->inner, cursor, batch, deadline, visit_prefixed, &v, err);
}

static int prefix_maintain(cession_store *store, cession_deadline deadline, cession_error *err)
{
    return cession_store_maintain(self_of(store)->inner, deadline, err);
}

static bool prefix_maintenance_due(const cession_store *store)
{
    return cession_store_maintenance_due(((const prefix_store *)store)->inner);
}

static const cession_store_ops prefix_ops = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "prefix",
    .close = prefix_close,
    .load = prefix_load,
    .create = prefix_create,
    .replace = prefix_replace,
    .touch = prefix_touch,
    .remove = prefix_remove,
    .purge = prefix_purge,
    .scan = prefix_scan,
    .maintain = prefix_maintain,
    .maintenance_due = prefix_maintenance_due,
};

int cession_store_prefix(cession_store *inner, cession_span prefix, cession_store **ret_store,
                         cession_error *err)
{
    if (inner == NULL || ret_store == NULL || (prefix.data == NULL && prefix.len != 0)) {
        return cession_fail(err, CESSION_E_INVALID, NULL);
    }
    /* One byte at least is left for the key. */
    if (prefix.len >= CESSION_KEY_MAX) {
        return cession_fail(err, CESSION_E_LIMIT, "the prefix has %zu bytes, %u are the limit",
                            prefix.len, CESSION_KEY_MAX - 1);
    }
    prefix_store *self = ces_alloc(sizeof *self + prefix.len);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->base = (cession_store){.ops = &prefix_ops, .caps = inner->caps};
    self->inner = inner;
    self->len = prefix.len;
    if (prefix.len != 0) {
        memcpy(self->prefix, prefix.data, prefix.len);
    }
    *ret_store = &self->base;
    return CESSION_OK;
}
