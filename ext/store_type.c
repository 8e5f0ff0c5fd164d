/* flask_session._core.Store: the handle that Python code has on a C store.
 *
 * A store is put together as prefix(trace(gil(breaker(driver)))) for a driver,
 * prefix(trace(breaker(py))) for a Python adapter, and as
 * prefix(trace(switch(gil(breaker(driver)), breaker(py)))) for both; one that moves records is
 * migrate(own, other) over two of these. Requests go through the C session; the methods here serve
 * tests, tools and the CLI.
 */
#include "core.h"

#define CX_STORE_TIMEOUT_MS 2000
#define CX_BREAKER_FAILURES 5
#define CX_BREAKER_RETRY_MS 1000
#define CX_OPTIONS_MAX 32

static cx_state *state_of(PyObject *self)
{
    return cx_state_of_type(Py_TYPE(self));
}

/* breaker(driver), and gil around it where the driver is no Python; *io_store is closed on
 * failure. ret_bare: what may be called without the GIL, or NULL. */
static int store_shield(cession_store **io_store, bool python, cession_store **ret_bare,
                        cession_error *err)
{
    cession_store *chain = *io_store, *next;
    int status = cession_store_breaker(chain, CX_BREAKER_FAILURES, CX_BREAKER_RETRY_MS, &next, err);
    if (status == CESSION_OK) {
        chain = next;
        *ret_bare = python ? NULL : chain;
        if (!python) {
            status = cx_store_gil_new(chain, &next, err);
            chain = status == CESSION_OK ? next : chain;
        }
    }
    if (status != CESSION_OK) {
        cession_store_close(chain);
        return status;
    }
    *io_store = chain;
    return CESSION_OK;
}

/* trace around chain, which is closed on failure. */
static cx_store *store_make(PyTypeObject *type, cx_state *state, cession_store *chain)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_store *next;
    cx_store *self = NULL;
    int status = cession_store_trace(chain, &next, &err);
    if (status == CESSION_OK) {
        chain = next;
        self = (cx_store *)type->tp_alloc(type, 0);
    }
    if (!self) {
        cession_store_close(chain);
        return PyErr_Occurred() ? NULL : (cx_store *)cx_raise(state, status, &err);
    }
    self->store = self->in.trace = chain;
    return self;
}

/* Wrap `driver` in breaker, (gil,) trace; on failure everything is closed. */
static PyObject *store_finish(PyTypeObject *type, cx_state *state, cession_store *driver,
                              PyObject *adapter)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_store *chain = driver, *bare = NULL;
    const char *name = driver->ops->name;
    int status = store_shield(&chain, adapter != NULL, &bare, &err);
    if (status != CESSION_OK) {
        return cx_raise(state, status, &err);
    }
    cx_store *self = store_make(type, state, chain);
    if (self) {
        self->in.bare = bare;
        self->in.name = name;
        self->in.adapter = adapter;
    }
    return (PyObject *)self;
}

static int parse_options(PyObject *options, cession_option *table, size_t *ret_count)
{
    PyObject *name, *value;
    Py_ssize_t at = 0;
    size_t count = 0;
    while (PyDict_Next(options, &at, &name, &value)) {
        if (count == CX_OPTIONS_MAX) {
            PyErr_SetString(PyExc_ValueError, "too many options");
            return -1;
        }
        if (!PyUnicode_Check(name) || !PyUnicode_Check(value)) {
            PyErr_SetString(PyExc_TypeError, "options must be a dict of str to str");
            return -1;
        }
        table[count].name = PyUnicode_AsUTF8(name);
        table[count].value = PyUnicode_AsUTF8(value);
        if (!table[count].name || !table[count].value) {
            return -1;
        }
        if (strlen(table[count].value) != (size_t)PyUnicode_GET_LENGTH(value) &&
            PyUnicode_IS_ASCII(value)) {
            PyErr_SetString(PyExc_ValueError, "an option holds a NUL character");
            return -1;
        }
        count++;
    }
    *ret_count = count;
    return 0;
}

static PyObject *store_open(PyTypeObject *type, PyObject *args)
{
    const char *name;
    PyObject *options = NULL;
    cession_option table[CX_OPTIONS_MAX];
    size_t count = 0;
    cession_error err = CESSION_ERROR_INIT;
    cession_store *driver;
    cx_state *state = cx_state_of_type(type);
    if (!state || !PyArg_ParseTuple(args, "s|O!:open", &name, &PyDict_Type, &options) ||
        (options && parse_options(options, table, &count) < 0)) {
        return NULL;
    }
    int status = cession_store_open(name, table, count, &driver, &err);
    return status == CESSION_OK ? store_finish(type, state, driver, NULL)
                                : cx_raise(state, status, &err);
}

static PyObject *store_open_either(PyTypeObject *type, PyObject *args)
{
    const char *name;
    PyObject *options, *adapter, *check;
    cession_option table[CX_OPTIONS_MAX];
    size_t count = 0;
    cession_error err = CESSION_ERROR_INIT;
    cession_store *native, *other, *bare, *choice;
    cx_state *state = cx_state_of_type(type);
    if (!state || !PyArg_ParseTuple(args, "sOOO:open_either", &name, &options, &adapter, &check)) {
        return NULL;
    }
    if (options != Py_None && !PyDict_Check(options)) {
        PyErr_SetString(PyExc_TypeError, "options must be a dict, or None beside a URL");
        return NULL;
    }
    if (options != Py_None && parse_options(options, table, &count) < 0) {
        return NULL;
    }
    int status = options == Py_None ? cession_store_open_url(name, &native, &err)
                                    : cession_store_open(name, table, count, &native, &err);
    if (status != CESSION_OK) {
        return cx_raise(state, status, &err);
    }
    const char *driver = native->ops->name;
    if (cx_store_py_new(state, adapter, &other) < 0) {
        cession_store_close(native);
        return NULL;
    }
    status = store_shield(&native, false, &bare, &err);
    if (status != CESSION_OK) {
        cession_store_close(other);
        return cx_raise(state, status, &err);
    }
    status = store_shield(&other, true, &bare, &err);
    if (status != CESSION_OK) {
        cession_store_close(native);
        return cx_raise(state, status, &err);
    }
    status = cx_store_switch_new(driver, native, other, check, &choice, &err);
    if (status != CESSION_OK) {
        cession_store_close(native);
        cession_store_close(other);
        return cx_raise(state, status, &err);
    }
    cx_store *self = store_make(type, state, choice);
    if (self) {
        self->in.name = driver;
        self->in.adapter = adapter;
        self->in.choice = choice;
        self->in.check = check;
    }
    return (PyObject *)self;
}

static PyObject *store_open_url(PyTypeObject *type, PyObject *arg)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_store *driver;
    cx_state *state = cx_state_of_type(type);
    const char *url = PyUnicode_AsUTF8(arg);
    if (!state || !url) {
        return NULL;
    }
    int status = cession_store_open_url(url, &driver, &err);
    return status == CESSION_OK ? store_finish(type, state, driver, NULL)
                                : cx_raise(state, status, &err);
}

static PyObject *store_wrap(PyTypeObject *type, PyObject *adapter)
{
    cession_store *driver;
    cx_state *state = cx_state_of_type(type);
    if (!state || cx_store_py_new(state, adapter, &driver) < 0) {
        return NULL;
    }
    return store_finish(type, state, driver, adapter);
}

static int store_usable(cx_store *self)
{
    if (!self->store) {
        PyErr_SetString(PyExc_ValueError, "this store is closed, or was taken over by prefixed()");
        return -1;
    }
    return 0;
}

/* What flows and operations under way point to must stay where it is. */
static int store_unused(cx_store *self)
{
    if (self->users > 0) {
        PyErr_SetString(PyExc_RuntimeError, "a session interface or an operation uses this store");
        return -1;
    }
    return 0;
}

/* What `from` has becomes that of `to`, under another outermost store. */
static void store_take_over(cx_store *to, cx_store *from, cession_store *chain)
{
    to->store = chain;
    to->in = from->in;
    from->store = NULL;
    from->in = (cx_parts){0};
}

/* self is closed from now on; its outermost store, which the caller owns. */
static cession_store *store_let_go(cx_store *self)
{
    cession_store *chain = self->store;
    struct cx_maintainer *maintainer = self->in.maintainer;
    self->store = NULL;
    self->in = (cx_parts){0};
    cx_maintainer_free(maintainer);
    return chain;
}

static PyObject *store_prefixed(cx_store *self, PyObject *arg)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_store *chain;
    Py_ssize_t len;
    cx_state *state = state_of((PyObject *)self);
    const char *prefix = PyUnicode_AsUTF8AndSize(arg, &len);
    if (!state || !prefix || store_usable(self) < 0 || store_unused(self) < 0) {
        return NULL;
    }
    PyTypeObject *type = Py_TYPE(self);
    cx_store *made = (cx_store *)type->tp_alloc(type, 0);
    if (!made) {
        return NULL;
    }
    int status = cession_store_prefix(self->store, cession_span_of(prefix, (size_t)len), &chain,
                                      &err);
    if (status != CESSION_OK) {
        Py_DECREF(made);
        return cx_raise(state, status, &err);
    }
    store_take_over(made, self, chain);
    return (PyObject *)made;
}

static PyObject *store_migrating(cx_store *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"other", "lifetime_ms", "follow", "only", "tombstone_ms", NULL};
    cession_error err = CESSION_ERROR_INIT;
    cession_store *chain;
    cx_store *other;
    const char *only = "";
    Py_ssize_t only_len = 0;
    long long lifetime_ms, tombstone_ms = 0;
    int follow = 0;
    cx_state *state = state_of((PyObject *)self);
    if (!state || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!L|ps#L:migrating", names,
                                               state->store_type, &other, &lifetime_ms, &follow,
                                               &only, &only_len, &tombstone_ms)) {
        return NULL;
    }
    if (store_usable(self) < 0 || store_unused(self) < 0 || store_usable(other) < 0 ||
        store_unused(other) < 0) {
        return NULL;
    }
    if (self->in.migrate || other->in.migrate) {
        PyErr_SetString(PyExc_ValueError, "one of the stores moves records already");
        return NULL;
    }
    PyTypeObject *type = Py_TYPE(self);
    cx_store *made = (cx_store *)type->tp_alloc(type, 0);
    if (!made) {
        return NULL;
    }
    cession_migrate_config config = {
        .lifetime_ms = lifetime_ms,
        .tombstone_ms = tombstone_ms,
        .only = cession_span_of(only, (size_t)only_len),
        .follow = follow,
    };
    int status = cession_store_migrate(follow ? other->store : self->store,
                                       follow ? self->store : other->store, &config, &chain, &err);
    if (status != CESSION_OK) {
        Py_DECREF(made);
        return cx_raise(state, status, &err);
    }
    store_take_over(made, self, chain);
    made->in.migrate = chain;
    made->in.other_trace = other->in.trace;
    made->in.other_name = other->in.name;
    made->in.other_adapter = other->in.adapter;
    (void)store_let_go(other); /* its outermost store is the decorator's now */
    return (PyObject *)made;
}

static void store_shut(cx_store *self)
{
    cession_store_close(store_let_go(self));
}

static PyObject *store_close(cx_store *self, PyObject *Py_UNUSED(ignored))
{
    if (store_unused(self) < 0) {
        return NULL;
    }
    store_shut(self);
    Py_RETURN_NONE;
}

/* ---- operations ------------------------------------------------------------------ */

static int timeout_deadline(PyObject *timeout, cession_deadline *ret_deadline)
{
    int64_t ms = CX_STORE_TIMEOUT_MS;
    if (timeout && timeout != Py_None && cx_seconds_to_ms(timeout, &ms) < 0) {
        return -1;
    }
    *ret_deadline = cession_deadline_in(ms);
    return 0;
}

static PyObject *stored_tuple(const cession_stored *stored)
{
    PyObject *expires = stored->expires_at_ms == CESSION_EXPIRES_UNKNOWN
                            ? Py_NewRef(Py_None)
                            : PyLong_FromLongLong(stored->expires_at_ms);
    return expires ? Py_BuildValue("(y#y#N)", stored->value.data ? (char *)stored->value.data : "",
                                   (Py_ssize_t)stored->value.len, (const char *)stored->version,
                                   (Py_ssize_t)stored->version_len, expires)
                   : NULL;
}

static PyObject *store_load(cx_store *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "timeout", NULL};
    const char *key;
    Py_ssize_t key_len;
    PyObject *timeout = NULL, *result = NULL;
    cession_deadline deadline;
    cession_error err = CESSION_ERROR_INIT;
    cession_stored stored;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s#|O:load", names, &key, &key_len, &timeout) ||
        timeout_deadline(timeout, &deadline) < 0 || store_usable(self) < 0) {
        return NULL;
    }
    cession_stored_init(&stored);
    self->users++;
    int status = cession_store_load(self->store, cession_span_of(key, (size_t)key_len), deadline,
                                    &stored, &err);
    self->users--;
    if (status == CESSION_OK) {
        result = stored_tuple(&stored);
    } else if (status == CESSION_NOT_FOUND) {
        result = Py_NewRef(Py_None);
    } else {
        cx_raise(state_of((PyObject *)self), status, &err);
    }
    cession_stored_release(&stored);
    return result;
}

static PyObject *store_create(cx_store *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "value", "ttl_ms", "timeout", NULL};
    const char *key, *value;
    Py_ssize_t key_len, value_len;
    long long ttl_ms;
    PyObject *timeout = NULL;
    cession_deadline deadline;
    cession_error err = CESSION_ERROR_INIT;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s#y#L|O:create", names, &key, &key_len, &value,
                                     &value_len, &ttl_ms, &timeout) ||
        timeout_deadline(timeout, &deadline) < 0 || store_usable(self) < 0) {
        return NULL;
    }
    self->users++;
    int status = cession_store_create(self->store, cession_span_of(key, (size_t)key_len),
                                      cession_span_of(value, (size_t)value_len), ttl_ms, deadline,
                                      &err);
    self->users--;
    if (status < 0) {
        return cx_raise(state_of((PyObject *)self), status, &err);
    }
    cx_store_maintain_soon(self);
    return PyBool_FromLong(status == CESSION_OK);
}

static PyObject *store_replace(cx_store *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "expected", "version", "value", "ttl_ms", "timeout", NULL};
    const char *key, *old, *version, *value;
    Py_ssize_t key_len, old_len, version_len, value_len;
    long long ttl_ms;
    PyObject *timeout = NULL, *result = NULL;
    cession_deadline deadline;
    cession_error err = CESSION_ERROR_INIT;
    cession_stored current;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s#y#y#y#L|O:replace", names, &key, &key_len,
                                     &old, &old_len, &version, &version_len, &value, &value_len,
                                     &ttl_ms, &timeout) ||
        timeout_deadline(timeout, &deadline) < 0 || store_usable(self) < 0) {
        return NULL;
    }
    cession_expected expected = {cession_span_of(old, (size_t)old_len),
                                 cession_span_of(version, (size_t)version_len)};
    cession_stored_init(&current);
    self->users++;
    int status = cession_store_replace(self->store, cession_span_of(key, (size_t)key_len),
                                       &expected, cession_span_of(value, (size_t)value_len), ttl_ms,
                                       deadline, &current, &err);
    self->users--;
    if (status == CESSION_CONFLICT) {
        result = stored_tuple(&current);
    } else if (status < 0) {
        cx_raise(state_of((PyObject *)self), status, &err);
    } else {
        cx_store_maintain_soon(self);
        result = PyLong_FromLong(status);
    }
    cession_stored_release(&current);
    return result;
}

static PyObject *store_touch(cx_store *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "expected", "version", "ttl_ms", "timeout", NULL};
    const char *key, *old, *version;
    Py_ssize_t key_len, old_len, version_len;
    long long ttl_ms;
    PyObject *timeout = NULL;
    cession_deadline deadline;
    cession_error err = CESSION_ERROR_INIT;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s#y#y#L|O:touch", names, &key, &key_len, &old,
                                     &old_len, &version, &version_len, &ttl_ms, &timeout) ||
        timeout_deadline(timeout, &deadline) < 0 || store_usable(self) < 0) {
        return NULL;
    }
    cession_expected expected = {cession_span_of(old, (size_t)old_len),
                                 cession_span_of(version, (size_t)version_len)};
    self->users++;
    int status = cession_store_touch(self->store, cession_span_of(key, (size_t)key_len), &expected,
                                     ttl_ms, deadline, &err);
    self->users--;
    if (status < 0) {
        return cx_raise(state_of((PyObject *)self), status, &err);
    }
    cx_store_maintain_soon(self);
    return PyLong_FromLong(status);
}

static PyObject *store_remove(cx_store *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "timeout", NULL};
    const char *key;
    Py_ssize_t key_len;
    PyObject *timeout = NULL;
    cession_deadline deadline;
    cession_error err = CESSION_ERROR_INIT;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s#|O:remove", names, &key, &key_len,
                                     &timeout) ||
        timeout_deadline(timeout, &deadline) < 0 || store_usable(self) < 0) {
        return NULL;
    }
    self->users++;
    int status = cession_store_remove(self->store, cession_span_of(key, (size_t)key_len), deadline,
                                      &err);
    self->users--;
    if (status < 0) {
        return cx_raise(state_of((PyObject *)self), status, &err);
    }
    cx_store_maintain_soon(self);
    Py_RETURN_NONE;
}

static PyObject *store_purge(cx_store *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"limit", "timeout", NULL};
    Py_ssize_t limit = 1000;
    PyObject *timeout = NULL;
    cession_deadline deadline;
    cession_error err = CESSION_ERROR_INIT;
    size_t count = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|nO:purge", names, &limit, &timeout) ||
        timeout_deadline(timeout, &deadline) < 0 || store_usable(self) < 0) {
        return NULL;
    }
    if (limit <= 0) {
        PyErr_SetString(PyExc_ValueError, "limit must be above zero");
        return NULL;
    }
    self->users++;
    int status = cession_store_purge(self->store, (size_t)limit, deadline, &count, &err);
    self->users--;
    return status < 0 ? cx_raise(state_of((PyObject *)self), status, &err)
                      : PyLong_FromSize_t(count);
}

static PyObject *store_maintain(cx_store *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    cession_deadline deadline;
    cession_error err = CESSION_ERROR_INIT;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:maintain", names, &timeout) ||
        timeout_deadline(timeout, &deadline) < 0 || store_usable(self) < 0) {
        return NULL;
    }
    self->users++;
    int status = cession_store_maintain(self->store, deadline, &err);
    self->users--;
    if (status < 0) {
        return cx_raise(state_of((PyObject *)self), status, &err);
    }
    Py_RETURN_NONE;
}

static int append_row(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    PyObject *row = Py_BuildValue("(y#y#L)", (const char *)key.data, (Py_ssize_t)key.len,
                                  value.data ? (const char *)value.data : "", (Py_ssize_t)value.len,
                                  (long long)expires_at_ms);
    int status = row && PyList_Append(context, row) == 0 ? CESSION_OK : CESSION_E_CALLBACK;
    Py_XDECREF(row);
    return status;
}

static PyObject *store_scan(cx_store *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"cursor", "batch", "timeout", NULL};
    const char *cursor = "";
    Py_ssize_t cursor_len = 0, batch = 100;
    PyObject *timeout = NULL, *result = NULL;
    cession_deadline deadline;
    cession_error err = CESSION_ERROR_INIT;
    cession_buf at;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|y#nO:scan", names, &cursor, &cursor_len,
                                     &batch, &timeout) ||
        timeout_deadline(timeout, &deadline) < 0 || store_usable(self) < 0) {
        return NULL;
    }
    if (batch <= 0) {
        PyErr_SetString(PyExc_ValueError, "batch must be above zero");
        return NULL;
    }
    PyObject *rows = PyList_New(0);
    if (!rows) {
        return NULL;
    }
    cession_buf_init(&at, CESSION_KEY_MAX * 2);
    int status = cession_buf_set(&at, cursor, (size_t)cursor_len);
    if (status == CESSION_OK) {
        self->users++;
        status = cession_store_scan(self->store, &at, (size_t)batch, deadline, append_row, rows,
                                    &err);
        self->users--;
    }
    if (status == CESSION_OK) {
        result = Py_BuildValue("(y#O)", at.data ? (const char *)at.data : "", (Py_ssize_t)at.len,
                               rows);
    } else {
        cx_raise(state_of((PyObject *)self), status, &err);
    }
    cession_buf_release(&at);
    Py_DECREF(rows);
    return result;
}

static PyObject *counts_of(cx_store *self, cession_store *trace)
{
    cession_store_counts c;
    cession_error err = CESSION_ERROR_INIT;
    int status = cession_store_trace_counts(trace, &c, &err);
    if (status < 0) {
        return cx_raise(state_of((PyObject *)self), status, &err);
    }
    typedef unsigned long long count;
    return Py_BuildValue("{sKsKsKsKsKsKsKsKsKsKsKsKsKsKsK}", "load", (count)c.load, "create",
                         (count)c.create, "replace", (count)c.replace, "touch", (count)c.touch,
                         "remove", (count)c.remove, "purge", (count)c.purge, "scan", (count)c.scan,
                         "maintain", (count)c.maintain, "conflict", (count)c.conflict, "gone",
                         (count)c.gone, "changed", (count)c.changed, "exists", (count)c.exists,
                         "not_found", (count)c.not_found, "failed", (count)c.failed, "busy",
                         (count)c.busy);
}

static PyObject *store_counts(cx_store *self, PyObject *Py_UNUSED(ignored))
{
    return store_usable(self) < 0 ? NULL : counts_of(self, self->in.trace);
}

static PyObject *name_of(const char *name, PyObject *adapter)
{
    return adapter ? PyObject_GetAttrString(adapter, "name") : PyUnicode_FromString(name);
}

static PyObject *store_moves(cx_store *self, PyObject *Py_UNUSED(ignored))
{
    cession_migrate_counts c;
    cession_error err = CESSION_ERROR_INIT;
    if (store_usable(self) < 0) {
        return NULL;
    }
    if (!self->in.migrate) {
        Py_RETURN_NONE;
    }
    int status = cession_store_migrate_counts(self->in.migrate, &c, &err);
    if (status < 0) {
        return cx_raise(state_of((PyObject *)self), status, &err);
    }
    PyObject *name = name_of(self->in.other_name, self->in.other_adapter);
    PyObject *counts = name ? counts_of(self, self->in.other_trace) : NULL;
    typedef unsigned long long count;
    PyObject *made = counts
                         ? Py_BuildValue("{sOsKsKsKsKsO}", "store", name, "moved", (count)c.moved,
                                         "missed", (count)c.missed, "refused", (count)c.refused,
                                         "carried", (count)c.carried, "operations", counts)
                         : NULL;
    Py_XDECREF(name);
    Py_XDECREF(counts);
    return made;
}

static PyObject *store_get_capabilities(cx_store *self, void *Py_UNUSED(closure))
{
    return store_usable(self) < 0 ? NULL : PyLong_FromUnsignedLong(self->store->caps);
}

static PyObject *store_get_name(cx_store *self, void *Py_UNUSED(closure))
{
    if (store_usable(self) < 0) {
        return NULL;
    }
    return name_of(self->in.name, self->in.adapter);
}

static PyObject *store_get_adapter(cx_store *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->in.adapter ? self->in.adapter : Py_None);
}

static PyObject *store_get_native(cx_store *self, void *Py_UNUSED(closure))
{
    if (store_usable(self) < 0) {
        return NULL;
    }
    return PyBool_FromLong(self->in.choice ? !cx_store_switch_aside(self->in.choice)
                                           : !self->in.adapter);
}

static int store_traverse(cx_store *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->in.adapter);
    Py_VISIT(self->in.other_adapter);
    Py_VISIT(self->in.check);
    return 0;
}

/* No tp_clear: the adapter must live while operations can come; a cycle through it
 * is broken where the interface lets go of its store. */
static void store_dealloc(cx_store *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    store_shut(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

#define WITH_KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef store_methods[] = {
    {"open", (PyCFunction)store_open, METH_VARARGS | METH_CLASS,
     "open(type, options={}) -> Store\n\nA driver of the C library by name. No I/O happens here."},
    {"open_url", (PyCFunction)store_open_url, METH_O | METH_CLASS,
     "open_url(url) -> Store\n\nThe same from a URL such as sqlite:///path."},
    {"open_either", (PyCFunction)store_open_either, METH_VARARGS | METH_CLASS,
     "open_either(type, options, adapter, check) -> Store\nopen_either(url, None, adapter, check) "
     "-> Store\n\nA driver of the C library, while "
     "check() is True; from the first operation on at which it is not, the adapter."},
    {"wrap", (PyCFunction)store_wrap, METH_O | METH_CLASS,
     "wrap(adapter) -> Store\n\nA store whose operations are methods of adapter; see "
     "flask_session.contract."},
    {"prefixed", (PyCFunction)store_prefixed, METH_O,
     "prefixed(prefix) -> Store\n\nThe same store with prefix before every key; takes this one "
     "over, which is closed from then on."},
    {"migrating", WITH_KEYWORDS(store_migrating), METH_VARARGS | METH_KEYWORDS,
     "migrating(other, lifetime_ms, follow=False, only='', tombstone_ms=60000) -> Store\n\nThis "
     "store, and what it does not have is moved here from the other; with follow what others have "
     "moved there is used there. Takes both over. See cession_store_migrate."},
    {"moves", (PyCFunction)store_moves, METH_NOARGS,
     "moves() -> dict | None\n\nWhat a store made by migrating() has moved."},
    {"close", (PyCFunction)store_close, METH_NOARGS,
     "close()\n\nFree everything; idempotent. "
     "RuntimeError while a session interface or an operation uses the store."},
    {"load", WITH_KEYWORDS(store_load), METH_VARARGS | METH_KEYWORDS,
     "load(key, timeout=2.0) -> (value, version, expires_at_ms | None) | None"},
    {"create", WITH_KEYWORDS(store_create), METH_VARARGS | METH_KEYWORDS,
     "create(key, value, ttl_ms, timeout=2.0) -> bool\n\nInsert only; False: the key is taken."},
    {"replace", WITH_KEYWORDS(store_replace), METH_VARARGS | METH_KEYWORDS,
     "replace(key, expected, version, value, ttl_ms, timeout=2.0) -> OK | GONE | (value, version, "
     "expires_at_ms)\n\nThe tuple means a conflict: what the store holds instead."},
    {"touch", WITH_KEYWORDS(store_touch), METH_VARARGS | METH_KEYWORDS,
     "touch(key, expected, version, ttl_ms, timeout=2.0) -> OK | CHANGED | GONE"},
    {"remove", WITH_KEYWORDS(store_remove), METH_VARARGS | METH_KEYWORDS,
     "remove(key, timeout=2.0)"},
    {"purge", WITH_KEYWORDS(store_purge), METH_VARARGS | METH_KEYWORDS,
     "purge(limit=1000, timeout=2.0) -> int\n\nDelete at most limit expired records."},
    {"scan", WITH_KEYWORDS(store_scan), METH_VARARGS | METH_KEYWORDS,
     "scan(cursor=b'', batch=100, timeout=2.0) -> (next_cursor, [(key, value, expires_at_ms)])"
     "\n\nkey is bytes; an empty next_cursor ends the scan."},
    {"maintain", WITH_KEYWORDS(store_maintain), METH_VARARGS | METH_KEYWORDS,
     "maintain(timeout=2.0)\n\nCheckpoints and the like."},
    {"counts", (PyCFunction)store_counts, METH_NOARGS,
     "counts() -> dict\n\nOperations and answers since the start of this process."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef store_getset[] = {
    {"capabilities", (getter)store_get_capabilities, NULL, "CAP_... flags", NULL},
    {"name", (getter)store_get_name, NULL, "name of the driver or adapter", NULL},
    {"native", (getter)store_get_native, NULL, "whether a driver of the C library serves", NULL},
    {"adapter", (getter)store_get_adapter, NULL, "the wrapped Python adapter, or None", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot store_slots[] = {
    {Py_tp_doc, "A session store. Make one with open, open_url or wrap."},
    {Py_tp_methods, store_methods},
    {Py_tp_getset, store_getset},
    {Py_tp_traverse, store_traverse},
    {Py_tp_dealloc, store_dealloc},
    {0, NULL},
};

static PyType_Spec store_spec = {
    .name = "flask_session._core.Store",
    .basicsize = sizeof(cx_store),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = store_slots,
};

int cx_store_add(PyObject *module, cx_state *state)
{
    state->store_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &store_spec, NULL);
    return state->store_type ? PyModule_AddType(module, state->store_type) : -1;
}
