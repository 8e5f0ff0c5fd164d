/* The one place that gives the interpreter's lock away: a decorator around a
 * store that knows nothing of Python.
 *
 * A store that answers in microseconds (CESSION_CAP_FAST) is first asked with the
 * lock held and deadline 0: giving the lock away for a 2.5 us read costs a wait
 * of 50 to 200 us beside busy Python threads. Only when it answers BUSY, or when
 * the store is not of that kind, the lock is released for the call.
 *
 * While it is released the inputs must not move: keys and values come from the C
 * session (owned through cx_core_enter) or from bytes objects that the caller
 * holds. A handle goes back to its pool inside the call, so before the lock is
 * taken again: a fork that waits for handles with the lock held cannot deadlock.
 *
 * Must be called with the GIL held.
 */
#include "core.h"

typedef struct gil_store {
    cession_store base;
    cession_store *inner;
    bool fast;
} gil_store;

static const cession_store_ops gil_ops;

/* call uses `deadline_`; status_ gets the result. */
#define CX_WITHOUT_GIL(self, status_, deadline_, call)         \
    do {                                                       \
        cession_deadline wanted_ = (deadline_);                \
        if ((self)->fast) {                                    \
            cession_deadline at = 0;                           \
            (status_) = (call);                                \
            if ((status_) != CESSION_E_BUSY || wanted_ == 0) { \
                break;                                         \
            }                                                  \
            cession_error_clear(err);                          \
        }                                                      \
        PyThreadState *thread_ = PyEval_SaveThread();          \
        {                                                      \
            cession_deadline at = wanted_;                     \
            (status_) = (call);                                \
        }                                                      \
        PyEval_RestoreThread(thread_);                         \
    } while (0)

static gil_store *gil_of(cession_store *store)
{
    return (gil_store *)store;
}

static void gil_close(cession_store *store)
{
    if (store) {
        gil_store *self = gil_of(store);
        PyThreadState *thread = PyEval_SaveThread();
        cession_store_close(self->inner);
        PyEval_RestoreThread(thread);
        PyMem_Free(self);
    }
}

static int gil_load(cession_store *store, cession_span key, cession_deadline deadline,
                    cession_stored *ret_stored, cession_error *err)
{
    gil_store *self = gil_of(store);
    int status;
    CX_WITHOUT_GIL(self, status, deadline,
                   cession_store_load(self->inner, key, at, ret_stored, err));
    return status;
}

static int gil_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                      cession_deadline deadline, cession_error *err)
{
    gil_store *self = gil_of(store);
    int status;
    CX_WITHOUT_GIL(self, status, deadline,
                   cession_store_create(self->inner, key, value, ttl_ms, at, err));
    return status;
}

static int gil_replace(cession_store *store, cession_span key, const cession_expected *expected,
                       cession_span value, int64_t ttl_ms, cession_deadline deadline,
                       cession_stored *ret_current, cession_error *err)
{
    gil_store *self = gil_of(store);
    int status;
    CX_WITHOUT_GIL(
        self, status, deadline,
        cession_store_replace(self->inner, key, expected, value, ttl_ms, at, ret_current, err));
    return status;
}

static int gil_touch(cession_store *store, cession_span key, const cession_expected *expected,
                     int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    gil_store *self = gil_of(store);
    int status;
    CX_WITHOUT_GIL(self, status, deadline,
                   cession_store_touch(self->inner, key, expected, ttl_ms, at, err));
    return status;
}

static int gil_remove(cession_store *store, cession_span key, cession_deadline deadline,
                      cession_error *err)
{
    gil_store *self = gil_of(store);
    int status;
    CX_WITHOUT_GIL(self, status, deadline, cession_store_remove(self->inner, key, at, err));
    return status;
}

/* The rest is never quick: always without the lock. */
static int gil_purge(cession_store *store, size_t limit, cession_deadline deadline,
                     size_t *ret_count, cession_error *err)
{
    PyThreadState *thread = PyEval_SaveThread();
    int status = cession_store_purge(gil_of(store)->inner, limit, deadline, ret_count, err);
    PyEval_RestoreThread(thread);
    return status;
}

static int gil_maintain(cession_store *store, cession_deadline deadline, cession_error *err)
{
    PyThreadState *thread = PyEval_SaveThread();
    int status = cession_store_maintain(gil_of(store)->inner, deadline, err);
    PyEval_RestoreThread(thread);
    return status;
}

/* A scan calls back into Python for every record, so each record takes the lock
 * again; whoever scans is not on a request's path. */
typedef struct gil_scan {
    cession_scan_fn *visit;
    void *context;
    PyThreadState *thread;
} gil_scan;

static int gil_visit(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    gil_scan *scan = context;
    PyEval_RestoreThread(scan->thread);
    int status = scan->visit(scan->context, key, value, expires_at_ms);
    scan->thread = PyEval_SaveThread();
    return status;
}

static int gil_scan_op(cession_store *store, cession_buf *cursor, size_t batch,
                       cession_deadline deadline, cession_scan_fn *visit, void *context,
                       cession_error *err)
{
    gil_scan scan = {.visit = visit, .context = context, .thread = PyEval_SaveThread()};
    int status = cession_store_scan(gil_of(store)->inner, cursor, batch, deadline, gil_visit, &scan,
                                    err);
    PyEval_RestoreThread(scan.thread);
    return status;
}

static bool gil_maintenance_due(const cession_store *store)
{
    return cession_store_maintenance_due(((const gil_store *)store)->inner);
}

static const cession_store_ops gil_ops = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "gil",
    .close = gil_close,
    .load = gil_load,
    .create = gil_create,
    .replace = gil_replace,
    .touch = gil_touch,
    .remove = gil_remove,
    .purge = gil_purge,
    .scan = gil_scan_op,
    .maintain = gil_maintain,
    .maintenance_due = gil_maintenance_due,
};

int cx_store_gil_new(cession_store *inner, cession_store **ret_store, cession_error *err)
{
    gil_store *self = PyMem_Calloc(1, sizeof *self);
    if (!self) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->base.ops = &gil_ops;
    self->base.caps = inner->caps;
    self->inner = inner;
    self->fast = (inner->caps & CESSION_CAP_FAST) != 0;
    *ret_store = &self->base;
    return CESSION_OK;
}
