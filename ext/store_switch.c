/* Two stores over the same records: a native one, and the Python adapter that
 * does the same through a client library. The native one serves while `check`, a
 * Python function, says that it may: not once somebody has patched the client
 * that it stands for, or the sockets of this process (gevent, eventlet), after
 * the application was set up. From then on the adapter serves, for good.
 *
 * Must be called with the GIL held: the native store under it releases it.
 */
#include "core.h"

typedef struct switch_store {
    cession_store base;
    cession_store *native, *other;
    PyObject *check;
    bool aside;
    cession_store_ops ops; /* under the name of the native store */
} switch_store;

static switch_store *switch_of(cession_store *store)
{
    return (switch_store *)store;
}

static cession_store *chosen(cession_store *store)
{
    switch_store *self = switch_of(store);
    if (!self->aside) {
        PyObject *type, *value, *traceback; /* a session may be saved with one under way */
        PyErr_Fetch(&type, &value, &traceback);
        PyObject *answer = PyObject_CallNoArgs(self->check);
        if (!answer) {
            PyErr_WriteUnraisable(self->check);
        }
        self->aside = answer != Py_True;
        Py_XDECREF(answer);
        PyErr_Restore(type, value, traceback);
    }
    return self->aside ? self->other : self->native;
}

static void switch_close(cession_store *store)
{
    if (store) {
        switch_store *self = switch_of(store);
        cession_store_close(self->native);
        cession_store_close(self->other);
        Py_XDECREF(self->check);
        PyMem_Free(self);
    }
}

static int switch_load(cession_store *store, cession_span key, cession_deadline deadline,
                       cession_stored *ret_stored, cession_error *err)
{
    return cession_store_load(chosen(store), key, deadline, ret_stored, err);
}

static int switch_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                         cession_deadline deadline, cession_error *err)
{
    return cession_store_create(chosen(store), key, value, ttl_ms, deadline, err);
}

static int switch_replace(cession_store *store, cession_span key, const cession_expected *expected,
                          cession_span value, int64_t ttl_ms, cession_deadline deadline,
                          cession_stored *ret_current, cession_error *err)
{
    return cession_store_replace(chosen(store), key, expected, value, ttl_ms, deadline, ret_current,
                                 err);
}

static int switch_touch(cession_store *store, cession_span key, const cession_expected *expected,
                        int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    return cession_store_touch(chosen(store), key, expected, ttl_ms, deadline, err);
}

static int switch_remove(cession_store *store, cession_span key, cession_deadline deadline,
                         cession_error *err)
{
    return cession_store_remove(chosen(store), key, deadline, err);
}

/* A cursor of the one is none of the other's: that scan ends with an error. */
static int switch_scan(cession_store *store, cession_buf *cursor, size_t batch,
                       cession_deadline deadline, cession_scan_fn *visit, void *context,
                       cession_error *err)
{
    return cession_store_scan(chosen(store), cursor, batch, deadline, visit, context, err);
}

static const cession_store_ops switch_ops = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "switch",
    .close = switch_close,
    .load = switch_load,
    .create = switch_create,
    .replace = switch_replace,
    .touch = switch_touch,
    .remove = switch_remove,
    .scan = switch_scan,
};

int cx_store_switch_new(const char *name, cession_store *native, cession_store *other,
                        PyObject *check, cession_store **ret_store, cession_error *err)
{
    switch_store *self = PyMem_Calloc(1, sizeof *self);
    if (!self) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->ops = switch_ops;
    self->ops.name = name;
    self->base.ops = &self->ops;
    self->base.caps = native->caps & other->caps;
    self->native = native;
    self->other = other;
    self->check = Py_NewRef(check);
    *ret_store = &self->base;
    return CESSION_OK;
}

bool cx_store_switch_aside(const cession_store *store)
{
    return ((const switch_store *)store)->aside;
}
