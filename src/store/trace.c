/* Decorator: counts operations and their outcomes. Relaxed atomics: each number
 * is exact, a snapshot across numbers is not one moment. */
#include "cession/store.h"

#include <stdatomic.h>

#include "base/alloc.h"
#include "base/banned.h"

typedef _Atomic uint64_t counter;

typedef struct trace_store {
    cession_store base;
    cession_store *inner;
    counter load, create, replace, touch, remove, purge, scan, maintain;
    counter conflict, gone, changed, exists, not_found, failed, busy;
} trace_store;

static const cession_store_ops trace_ops;

static trace_store *self_of(cession_store *store)
{
    return (trace_store *)store;
}

static void count(counter *c)
{
    atomic_fetch_add_explicit(c, 1, memory_order_relaxed);
}

static int outcome(trace_store *self, int status)
{
    switch (status) {
    case CESSION_OK:
        break;
    case CESSION_NOT_FOUND:
        count(&self->not_found);
        break;
    case CESSION_EXISTS:
        count(&self->exists);
        break;
    case CESSION_CONFLICT:
        count(&self->conflict);
        break;
    case CESSION_GONE:
        count(&self->gone);
        break;
    case CESSION_CHANGED:
        count(&self->changed);
        break;
    case CESSION_E_BUSY:
        count(&self->busy);
        break;
    default:
        if (status < 0) {
            count(&self->failed);
        }
        break;
    }
    return status;
}

static void trace_close(cession_store *store)
{
    trace_store *self = self_of(store);
    cession_store_close(self->inner);
    ces_free(self);
}

static int trace_load(cession_store *store, cession_span key, cession_deadline deadline,
                      cession_stored *ret_stored, cession_error *err)
{
    trace_store *self = self_of(store);
    count(&self->load);
    return outcome(self, cession_store_load(self->inner, key, deadline, ret_stored, err));
}

static int trace_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                        cession_deadline deadline, cession_error *err)
{
    trace_store *self = self_of(store);
    count(&self->create);
    return outcome(self, cession_store_create(self->inner, key, value, ttl_ms, deadline, err));
}

static int trace_replace(cession_store *store, cession_span key, const cession_expected *expected,
                         cession_span value, int64_t ttl_ms, cession_deadline deadline,
                         cession_stored *ret_current, cession_error *err)
{
    trace_store *self = self_of(store);
    count(&self->replace);
    return outcome(self, cession_store_replace(self->inner, key, expected, value, ttl_ms, deadline,
                                               ret_current, err));
}

static int trace_touch(cession_store *store, cession_span key, const cession_expected *expected,
                       int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    trace_store *self = self_of(store);
    count(&self->touch);
    return outcome(self, cession_store_touch(self->inner, key, expected, ttl_ms, deadline, err));
}

static int trace_remove(cession_store *store, cession_span key, cession_deadline deadline,
                        cession_error *err)
{
    trace_store *self = self_of(store);
    count(&self->remove);
    return outcome(self, cession_store_remove(self->inner, key, deadline, err));
}

static int trace_purge(cession_store *store, size_t limit, cession_deadline deadline,
                       size_t *ret_count, cession_error *err)
{
    trace_store *self = self_of(store);
    count(&self->purge);
    return outcome(self, cession_store_purge(self->inner, limit, deadline, ret_count, err));
}

static int trace_scan(cession_store *store, cession_buf *cursor, size_t batch,
                      cession_deadline deadline, cession_scan_fn *visit, void *context,
                      cession_error *err)
{
    trace_store *self = self_of(store);
    count(&self->scan);
    return outcome(self,
                   cession_store_scan(self->inner, cursor, batch, deadline, visit, context, err));
}

static int trace_maintain(cession_store *store, cession_deadline deadline, cession_error *err)
{
    trace_store *self = self_of(store);
    count(&self->maintain);
    return outcome(self, cession_store_maintain(self->inner, deadline, err));
}

static bool trace_maintenance_due(const cession_store *store)
{
    return cession_store_maintenance_due(((const trace_store *)store)->inner);
}

static const cession_store_ops trace_ops = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "trace",
    .close = trace_close,
    .load = trace_load,
    .create = trace_create,
    .replace = trace_replace,
    .touch = trace_touch,
    .remove = trace_remove,
    .purge = trace_purge,
    .scan = trace_scan,
    .maintain = trace_maintain,
    .maintenance_due = trace_maintenance_due,
};

int cession_store_trace(cession_store *inner, cession_store **ret_store, cession_error *err)
{
    if (inner == NULL || ret_store == NULL) {
        return cession_fail(err, CESSION_E_INVALID, NULL);
    }
    trace_store *self = ces_alloc_zero(sizeof *self);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->base = (cession_store){.ops = &trace_ops, .caps = inner->caps};
    self->inner = inner;
    *ret_store = &self->base;
    return CESSION_OK;
}

static uint64_t value_of(const counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

int cession_store_trace_counts(const cession_store *store, cession_store_counts *ret_counts,
                               cession_error *err)
{
    if (store == NULL || store->ops != &trace_ops || ret_counts == NULL) {
        return cession_fail(err, CESSION_E_INVALID, "the store does not count its operations");
    }
    const trace_store *self = (const trace_store *)store;
    *ret_counts = (cession_store_counts){
        .load = value_of(&self->load),
        .create = value_of(&self->create),
        .replace = value_of(&self->replace),
        .touch = value_of(&self->touch),
        .remove = value_of(&self->remove),
        .purge = value_of(&self->purge),
        .scan = value_of(&self->scan),
        .maintain = value_of(&self->maintain),
        .conflict = value_of(&self->conflict),
        .gone = value_of(&self->gone),
        .changed = value_of(&self->changed),
        .exists = value_of(&self->exists),
        .not_found = value_of(&self->not_found),
        .failed = value_of(&self->failed),
        .busy = value_of(&self->busy),
    };
    return CESSION_OK;
}
