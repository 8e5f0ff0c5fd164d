/* Decorator: gives a store that keeps failing a rest, so that requests fail at
 * once instead of each waiting for its deadline.
 *
 * Two atomics and no lock: nothing can be left locked by a fork, and the closed
 * circuit costs one load and, after a success, at most one store. A trial is
 * claimed by moving next_trial_ns past the time it can last, so that a thread
 * that never comes back (a fork, a cancelled thread) delays the next trial and
 * cannot prevent it. */
#include "cession/store.h"

#include <stdatomic.h>

#include "base/alloc.h"
#include "base/os.h"
#include "base/banned.h"

#define FAILURES_DEFAULT 5u
#define RETRY_MS_DEFAULT 1000
#define RETRY_MS_MAX (INT64_C(24) * 3600 * 1000)
#define NS_PER_MS INT64_C(1000000)

typedef struct breaker_store {
    cession_store base;
    cession_store *inner;
    unsigned limit;
    int64_t retry_ns;
    atomic_uint failures; /* in a row; at limit and above the circuit is open */
    _Atomic int64_t next_trial_ns;
} breaker_store;

static const cession_store_ops breaker_ops;

static breaker_store *self_of(cession_store *store)
{
    return (breaker_store *)store;
}

static bool is_open(const breaker_store *self)
{
    return atomic_load_explicit(&self->failures, memory_order_acquire) >= self->limit;
}

static int enter(breaker_store *self, cession_deadline deadline, bool *ret_trial,
                 cession_error *err)
{
    *ret_trial = false;
    if (!is_open(self)) {
        return CESSION_OK;
    }
    int64_t now = ces_mono_ns();
    int64_t next = atomic_load(&self->next_trial_ns);
    if (now >= next) {
        int64_t claim = now + self->retry_ns;
        if (deadline > claim && deadline < now + RETRY_MS_MAX * NS_PER_MS) {
            claim = deadline;
        }
        if (atomic_compare_exchange_strong(&self->next_trial_ns, &next, claim)) {
            *ret_trial = true;
            return CESSION_OK;
        }
    }
    return cession_fail(err, CESSION_E_CIRCUIT, NULL);
}

static bool is_failure(int status)
{
    switch (status) {
    case CESSION_E_UNAVAILABLE:
    case CESSION_E_TIMEOUT:
    case CESSION_E_IO:
    case CESSION_E_PERMISSION:
    case CESSION_E_CALLBACK:
        return true;
    default:
        return false;
    }
}

static int leave(breaker_store *self, bool trial, int status)
{
    if (status >= 0) {
        if (atomic_load_explicit(&self->failures, memory_order_relaxed) != 0) {
            atomic_store(&self->failures, 0);
        }
    } else if (is_failure(status)) {
        int64_t next = ces_mono_ns() + self->retry_ns;
        if (trial) {
            atomic_store(&self->next_trial_ns, next);
        }
        unsigned before = atomic_load(&self->failures);
        while (before < self->limit) { /* stops counting at the limit */
            if (before + 1 == self->limit) {
                /* Before the circuit is seen to be open, else the next
                 * operation would find an old time and take itself for a trial. */
                atomic_store(&self->next_trial_ns, next);
            }
            if (atomic_compare_exchange_weak(&self->failures, &before, before + 1)) {
                break;
            }
        }
    } else if (trial) {
        /* Busy, or an argument that was refused: nothing was learned about the
         * store, so the trial is given back. */
        atomic_store(&self->next_trial_ns, ces_mono_ns());
    }
    return status;
}

static void breaker_close(cession_store *store)
{
    breaker_store *self = self_of(store);
    cession_store_close(self->inner);
    ces_free(self);
}

static int breaker_load(cession_store *store, cession_span key, cession_deadline deadline,
                        cession_stored *ret_stored, cession_error *err)
{
    breaker_store *self = self_of(store);
    bool trial;
    int rc = enter(self, deadline, &trial, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    rc = cession_store_load(self->inner, key, deadline, ret_stored, err);
    return leave(self, trial, rc);
}

static int breaker_create(cession_store *store, cession_span key, cession_span value,
                          int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    breaker_store *self = self_of(store);
    bool trial;
    int rc = enter(self, deadline, &trial, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    rc = cession_store_create(self->inner, key, value, ttl_ms, deadline, err);
    return leave(self, trial, rc);
}

static int breaker_replace(cession_store *store, cession_span key, const cession_expected *expected,
                           cession_span value, int64_t ttl_ms, cession_deadline deadline,
                           cession_stored *ret_current, cession_error *err)
{
    breaker_store *self = self_of(store);
    bool trial;
    int rc = enter(self, deadline, &trial, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    rc = cession_store_replace(self->inner, key, expected, value, ttl_ms, deadline, ret_current,
                               err);
    return leave(self, trial, rc);
}

static int breaker_touch(cession_store *store, cession_span key, const cession_expected *expected,
                         int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    breaker_store *self = self_of(store);
    bool trial;
    int rc = enter(self, deadline, &trial, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    rc = cession_store_touch(self->inner, key, expected, ttl_ms, deadline, err);
    return leave(self, trial, rc);
}

static int breaker_remove(cession_store *store, cession_span key, cession_deadline deadline,
                          cession_error *err)
{
    breaker_store *self = self_of(store);
    bool trial;
    int rc = enter(self, deadline, &trial, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    rc = cession_store_remove(self->inner, key, deadline, err);
    return leave(self, trial, rc);
}

static int breaker_purge(cession_store *store, size_t limit, cession_deadline deadline,
                         size_t *ret_count, cession_error *err)
{
    breaker_store *self = self_of(store);
    bool trial;
    int rc = enter(self, deadline, &trial, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    rc = cession_store_purge(self->inner, limit, deadline, ret_count, err);
    return leave(self, trial, rc);
}

/* The visitor's own values must not count for or against the store. */
typedef struct breaker_visit {
    cession_scan_fn *visit;
    void *context;
    int ended; /* what the visitor ended the scan with */
} breaker_visit;

static int visit_noted(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    breaker_visit *v = context;
    v->ended = v->visit(v->context, key, value, expires_at_ms);
    return v->ended;
}

static int breaker_scan(cession_store *store, cession_buf *cursor, size_t batch,
                        cession_deadline deadline, cession_scan_fn *visit, void *context,
                        cession_error *err)
{
    breaker_store *self = self_of(store);
    bool trial;
    int rc = enter(self, deadline, &trial, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    breaker_visit v = {.visit = visit, .context = context, .ended = CESSION_OK};
    rc = cession_store_scan(self->inner, cursor, batch, deadline, visit_noted, &v, err);
    leave(self, trial, v.ended != CESSION_OK ? CESSION_OK : rc);
    return rc;
}

static int breaker_maintain(cession_store *store, cession_deadline deadline, cession_error *err)
{
    breaker_store *self = self_of(store);
    bool trial;
    int rc = enter(self, deadline, &trial, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    rc = cession_store_maintain(self->inner, deadline, err);
    return leave(self, trial, rc);
}

static bool breaker_maintenance_due(const cession_store *store)
{
    const breaker_store *self = (const breaker_store *)store;
    return !is_open(self) && cession_store_maintenance_due(self->inner);
}

static const cession_store_ops breaker_ops = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "breaker",
    .close = breaker_close,
    .load = breaker_load,
    .create = breaker_create,
    .replace = breaker_replace,
    .touch = breaker_touch,
    .remove = breaker_remove,
    .purge = breaker_purge,
    .scan = breaker_scan,
    .maintain = breaker_maintain,
    .maintenance_due = breaker_maintenance_due,
};

int cession_store_breaker(cession_store *inner, unsigned failures, int64_t retry_ms,
                          cession_store **ret_store, cession_error *err)
{
    if (inner == NULL || ret_store == NULL) {
        return cession_fail(err, CESSION_E_INVALID, NULL);
    }
    if (retry_ms < 0 || retry_ms > RETRY_MS_MAX) {
        return cession_fail(err, CESSION_E_INVALID, "the rest of a store is at most a day");
    }
    breaker_store *self = ces_alloc(sizeof *self);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->base = (cession_store){.ops = &breaker_ops, .caps = inner->caps};
    self->inner = inner;
    self->limit = failures != 0 ? failures : FAILURES_DEFAULT;
    self->retry_ns = (retry_ms != 0 ? retry_ms : RETRY_MS_DEFAULT) * NS_PER_MS;
    atomic_init(&self->failures, 0);
    atomic_init(&self->next_trial_ns, 0);
    *ret_store = &self->base;
    return CESSION_OK;
}
