/* A store whose operations are methods of a Python object: every adapter over a
 * Python client. The methods are worded in python/flask_session/contract.py.
 *
 * An exception of the client stays set and the operation answers E_CALLBACK;
 * whoever leaves the C code (cx_raise) makes it the cause of a SessionStoreError.
 * An operation may be asked while such an exception is pending (the flow cleans
 * up after a failure): it is put aside for the call and restored after it.
 *
 * What a method returns is judged here and nowhere else: a value of another shape
 * is a TypeError that names adapter and method.
 */
#include "core.h"

typedef struct py_store {
    cession_store base;
    cx_state *state;
    PyObject *adapter;
} py_store;

static py_store *py_of(cession_store *store)
{
    return (py_store *)store;
}

/* The adapter itself refuses and says why: that is no failure of its store. */
static int refused(cession_error *err)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *text = PyObject_Str(value);
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
    int status = cession_fail(err, CESSION_E_LIMIT, "%s", utf8 ? utf8 : "refused");
    PyErr_Clear();
    Py_XDECREF(text);
    PyErr_Restore(type, value, traceback);
    return status;
}

static int callback_failed(py_store *self, const char *method, cession_error *err)
{
    PyObject *type = PyErr_Occurred();
    if (type && PyErr_GivenExceptionMatches(type, self->state->store_error)) {
        return refused(err);
    }
    /* Of the exception only the type: its text is the client's and may hold anything. */
    const char *what = type && PyType_Check(type) ? ((PyTypeObject *)type)->tp_name : "no answer";
    return cession_fail(err, CESSION_E_CALLBACK, "%s.%s failed: %s",
                        Py_TYPE(self->adapter)->tp_name, method, what);
}

static int bad_answer(py_store *self, const char *method, PyObject *answer, const char *accepted,
                      cession_error *err)
{
    PyErr_Format(PyExc_TypeError, "%s.%s() must return %s, not %s", Py_TYPE(self->adapter)->tp_name,
                 method, accepted, Py_TYPE(answer)->tp_name);
    return callback_failed(self, method, err);
}

/* An exception that was pending before the call, put back when nothing newer is set. */
typedef struct pending {
    PyObject *type, *value, *traceback;
} pending;

static pending pending_save(void)
{
    pending p;
    PyErr_Fetch(&p.type, &p.value, &p.traceback);
    return p;
}

static void pending_restore(pending p)
{
    if (!p.type) {
        return;
    }
    PyErr_Restore(p.type, p.value, p.traceback); /* the first failure is the one to tell */
}

static PyObject *key_object(cession_span key)
{
    return PyUnicode_DecodeUTF8((const char *)key.data, (Py_ssize_t)key.len, "strict");
}

static PyObject *bytes_object(cession_span bytes)
{
    return PyBytes_FromStringAndSize((const char *)bytes.data, (Py_ssize_t)bytes.len);
}

static PyObject *timeout_object(cession_deadline deadline)
{
    return PyFloat_FromDouble((double)cession_deadline_left_ms(deadline) / 1000.0);
}

/* Call adapter.name(args...); steals the references in args, NULL among them means
 * that making one failed. */
static PyObject *call(py_store *self, PyObject *name, PyObject **args, size_t count)
{
    PyObject *stack[8];
    PyObject *answer = NULL;
    bool ok = true;
    stack[0] = self->adapter;
    for (size_t i = 0; i < count; i++) {
        stack[i + 1] = args[i];
        ok = ok && args[i];
    }
    if (ok) {
        answer = PyObject_VectorcallMethod(name, stack, count + 1, NULL);
    }
    for (size_t i = 0; i < count; i++) {
        Py_XDECREF(args[i]);
    }
    return answer;
}

/* (value, version, expires_at_ms or None) -> stored. 0, or -1 when the shape is wrong. */
static int stored_from(PyObject *answer, cession_stored *ret_stored)
{
    if (!PyTuple_Check(answer) || PyTuple_GET_SIZE(answer) != 3) {
        return -1;
    }
    PyObject *value = PyTuple_GET_ITEM(answer, 0);
    PyObject *version = PyTuple_GET_ITEM(answer, 1);
    PyObject *expires = PyTuple_GET_ITEM(answer, 2);
    int64_t expires_at_ms = CESSION_EXPIRES_UNKNOWN;
    if (!PyBytes_Check(value) || !PyBytes_Check(version) ||
        PyBytes_GET_SIZE(version) > (Py_ssize_t)CESSION_VERSION_MAX) {
        return -1;
    }
    if (expires != Py_None) {
        if (!PyLong_Check(expires)) {
            return -1;
        }
        expires_at_ms = PyLong_AsLongLong(expires);
        if (expires_at_ms == -1 && PyErr_Occurred()) {
            return -1;
        }
    }
    /* What is larger than any session is none: as good as the empty value. */
    size_t len = (size_t)PyBytes_GET_SIZE(value);
    len = len > CESSION_VALUE_MAX ? 0 : len;
    if (cession_buf_set(&ret_stored->value, PyBytes_AS_STRING(value), len) != CESSION_OK) {
        PyErr_NoMemory();
        return -1;
    }
    ret_stored->version_len = (size_t)PyBytes_GET_SIZE(version);
    if (ret_stored->version_len) {
        memcpy(ret_stored->version, PyBytes_AS_STRING(version), ret_stored->version_len);
    }
    ret_stored->expires_at_ms = expires_at_ms;
    return 0;
}

/* A status constant of the module (OK, GONE, ...): its value, or -1 for anything else. */
static long status_from(PyObject *answer)
{
    if (!PyLong_CheckExact(answer)) {
        return -1;
    }
    long status = PyLong_AsLong(answer);
    if (status == -1) {
        PyErr_Clear();
    }
    return status;
}

static int judge_load(py_store *self, PyObject *answer, cession_stored *ret_stored,
                      cession_error *err)
{
    if (!answer) {
        return callback_failed(self, "load", err);
    }
    if (answer == Py_None) {
        return CESSION_NOT_FOUND;
    }
    if (stored_from(answer, ret_stored) < 0) {
        if (PyErr_Occurred()) {
            return callback_failed(self, "load", err);
        }
        return bad_answer(self, "load", answer,
                          "None or (value: bytes, version: bytes, expires_at_ms: int | None)", err);
    }
    return CESSION_OK;
}

static int py_load(cession_store *store, cession_span key, cession_deadline deadline,
                   cession_stored *ret_stored, cession_error *err)
{
    py_store *self = py_of(store);
    pending before = pending_save();
    PyObject *args[] = {key_object(key), timeout_object(deadline)};
    PyObject *answer = call(self, self->state->s.load, args, 2);
    int status = judge_load(self, answer, ret_stored, err);
    Py_XDECREF(answer);
    pending_restore(before);
    return status;
}

static int py_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                     cession_deadline deadline, cession_error *err)
{
    py_store *self = py_of(store);
    pending before = pending_save();
    PyObject *args[] = {key_object(key), bytes_object(value), PyLong_FromLongLong(ttl_ms),
                        timeout_object(deadline)};
    PyObject *answer = call(self, self->state->s.create, args, 4);
    int status;
    if (!answer) {
        status = callback_failed(self, "create", err);
    } else if (!PyBool_Check(answer)) {
        status = bad_answer(self, "create", answer, "True (created) or False (the key is taken)",
                            err);
    } else {
        status = answer == Py_True ? CESSION_OK : CESSION_EXISTS;
    }
    Py_XDECREF(answer);
    pending_restore(before);
    return status;
}

static int judge_replace(py_store *self, PyObject *answer, cession_stored *ret_current,
                         cession_error *err)
{
    if (!answer) {
        return callback_failed(self, "replace", err);
    }
    long status = status_from(answer);
    if (status == CESSION_OK || status == CESSION_GONE) {
        return (int)status;
    }
    if (stored_from(answer, ret_current) < 0) {
        if (PyErr_Occurred()) {
            return callback_failed(self, "replace", err);
        }
        return bad_answer(self, "replace", answer,
                          "OK, GONE or, on a conflict, (value, version, expires_at_ms)", err);
    }
    return CESSION_CONFLICT;
}

static int py_replace(cession_store *store, cession_span key, const cession_expected *expected,
                      cession_span value, int64_t ttl_ms, cession_deadline deadline,
                      cession_stored *ret_current, cession_error *err)
{
    py_store *self = py_of(store);
    pending before = pending_save();
    PyObject *args[] = {
        key_object(key),     bytes_object(expected->value), bytes_object(expected->version),
        bytes_object(value), PyLong_FromLongLong(ttl_ms),   timeout_object(deadline)};
    PyObject *answer = call(self, self->state->s.replace, args, 6);
    int status = judge_replace(self, answer, ret_current, err);
    Py_XDECREF(answer);
    pending_restore(before);
    return status;
}

static int py_touch(cession_store *store, cession_span key, const cession_expected *expected,
                    int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    py_store *self = py_of(store);
    pending before = pending_save();
    PyObject *args[] = {key_object(key), bytes_object(expected->value),
                        bytes_object(expected->version), PyLong_FromLongLong(ttl_ms),
                        timeout_object(deadline)};
    PyObject *answer = call(self, self->state->s.touch, args, 5);
    int status;
    if (!answer) {
        status = callback_failed(self, "touch", err);
    } else {
        long code = status_from(answer);
        status = code == CESSION_OK || code == CESSION_CHANGED || code == CESSION_GONE
                     ? (int)code
                     : bad_answer(self, "touch", answer, "OK, CHANGED or GONE", err);
    }
    Py_XDECREF(answer);
    pending_restore(before);
    return status;
}

static int py_remove(cession_store *store, cession_span key, cession_deadline deadline,
                     cession_error *err)
{
    py_store *self = py_of(store);
    pending before = pending_save();
    PyObject *args[] = {key_object(key), timeout_object(deadline)};
    PyObject *answer = call(self, self->state->s.remove, args, 2);
    int status = answer ? CESSION_OK : callback_failed(self, "remove", err);
    Py_XDECREF(answer);
    pending_restore(before);
    return status;
}

static int py_purge(cession_store *store, size_t limit, cession_deadline deadline,
                    size_t *ret_count, cession_error *err)
{
    py_store *self = py_of(store);
    int has = cx_has_attr(self->adapter, self->state->s.purge);
    if (has < 0) {
        return callback_failed(self, "purge", err);
    }
    if (!has) {
        return cession_fail(err, CESSION_E_UNSUPPORTED, "%s removes expired sessions by itself",
                            Py_TYPE(self->adapter)->tp_name);
    }
    PyObject *args[] = {PyLong_FromSize_t(limit), timeout_object(deadline)};
    PyObject *answer = call(self, self->state->s.purge, args, 2);
    if (!answer) {
        return callback_failed(self, "purge", err);
    }
    size_t count = PyLong_Check(answer) ? PyLong_AsSize_t(answer) : (size_t)-1;
    int status = CESSION_OK;
    if (count == (size_t)-1) {
        PyErr_Clear();
        status = bad_answer(self, "purge", answer, "the number of removed sessions", err);
    } else {
        *ret_count = count;
    }
    Py_DECREF(answer);
    return status;
}

/* (next_cursor, [(key, value, expires_at_ms), ...]) */
static int judge_scan(py_store *self, PyObject *answer, cession_buf *cursor, cession_scan_fn *visit,
                      void *context, cession_error *err)
{
    static const char accepted[] =
        "(next_cursor: bytes, [(key: str, value: bytes, expires_at_ms: int or None), ...])";
    if (!PyTuple_Check(answer) || PyTuple_GET_SIZE(answer) != 2 ||
        !PyBytes_Check(PyTuple_GET_ITEM(answer, 0)) || !PyList_Check(PyTuple_GET_ITEM(answer, 1))) {
        return bad_answer(self, "scan", answer, accepted, err);
    }
    PyObject *rows = PyTuple_GET_ITEM(answer, 1);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(rows); i++) {
        PyObject *row = PyList_GET_ITEM(rows, i);
        if (!PyTuple_Check(row) || PyTuple_GET_SIZE(row) != 3 ||
            !PyUnicode_Check(PyTuple_GET_ITEM(row, 0)) ||
            !PyBytes_Check(PyTuple_GET_ITEM(row, 1)) ||
            (PyTuple_GET_ITEM(row, 2) != Py_None && !PyLong_Check(PyTuple_GET_ITEM(row, 2)))) {
            return bad_answer(self, "scan", row, accepted, err);
        }
        Py_ssize_t key_len;
        const char *key = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(row, 0), &key_len);
        PyObject *until = PyTuple_GET_ITEM(row, 2);
        long long expires = until == Py_None ? CESSION_EXPIRES_UNKNOWN : PyLong_AsLongLong(until);
        if (!key || (expires == -1 && PyErr_Occurred())) {
            return callback_failed(self, "scan", err);
        }
        PyObject *value = PyTuple_GET_ITEM(row, 1);
        int status = visit(
            context, cession_span_of(key, (size_t)key_len),
            cession_span_of(PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)), expires);
        if (status != CESSION_OK) {
            return status;
        }
    }
    PyObject *next = PyTuple_GET_ITEM(answer, 0);
    int status = cession_buf_set(cursor, PyBytes_AS_STRING(next), (size_t)PyBytes_GET_SIZE(next));
    if (status == CESSION_E_NOMEM) {
        return cession_fail(err, status, NULL);
    }
    return status == CESSION_OK ? status : bad_answer(self, "scan", next, "a shorter cursor", err);
}

static int py_scan(cession_store *store, cession_buf *cursor, size_t batch,
                   cession_deadline deadline, cession_scan_fn *visit, void *context,
                   cession_error *err)
{
    py_store *self = py_of(store);
    if (!(store->caps & CESSION_CAP_LISTABLE)) {
        return cession_fail(err, CESSION_E_UNSUPPORTED, "%s cannot list its records",
                            Py_TYPE(self->adapter)->tp_name);
    }
    PyObject *args[] = {bytes_object(cession_buf_span(cursor)), PyLong_FromSize_t(batch),
                        timeout_object(deadline)};
    PyObject *answer = call(self, self->state->s.scan, args, 3);
    if (!answer) {
        return callback_failed(self, "scan", err);
    }
    int status = judge_scan(self, answer, cursor, visit, context, err);
    Py_DECREF(answer);
    return status;
}

static void py_close(cession_store *store)
{
    if (!store) {
        return;
    }
    py_store *self = py_of(store);
    pending before = pending_save();
    /* By text, not by the name in the module state: at the end of the interpreter the
     * collector may have cleared the module before the last store goes. */
    PyObject *method = PyObject_GetAttrString(self->adapter, "close");
    PyObject *answer = method ? PyObject_CallNoArgs(method) : NULL;
    if (method && !answer) {
        PyErr_WriteUnraisable(self->adapter);
    }
    PyErr_Clear(); /* no such method */
    Py_XDECREF(answer);
    Py_XDECREF(method);
    Py_DECREF(self->adapter);
    PyMem_Free(self);
    pending_restore(before);
}

static const cession_store_ops py_ops = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "python",
    .close = py_close,
    .load = py_load,
    .create = py_create,
    .replace = py_replace,
    .touch = py_touch,
    .remove = py_remove,
    .purge = py_purge,
    .scan = py_scan,
};

int cx_store_py_new(cx_state *state, PyObject *adapter, cession_store **ret_store)
{
    static const char *const required[] = {"load", "create", "replace", "touch", "remove"};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        PyObject *method;
        if (cx_get_optional_string(adapter, required[i], &method) < 0) {
            return -1;
        }
        bool callable = method && PyCallable_Check(method);
        Py_XDECREF(method);
        if (!callable) {
            PyErr_Format(PyExc_TypeError, "a store needs the method %s(); %s has none", required[i],
                         Py_TYPE(adapter)->tp_name);
            return -1;
        }
    }
    PyObject *capabilities = PyObject_GetAttr(adapter, state->s.capabilities);
    if (!capabilities) {
        return -1;
    }
    unsigned long caps = PyLong_AsUnsignedLong(capabilities);
    Py_DECREF(capabilities);
    if (caps == (unsigned long)-1 && PyErr_Occurred()) {
        return -1;
    }
    py_store *self = PyMem_Calloc(1, sizeof *self);
    if (!self) {
        PyErr_NoMemory();
        return -1;
    }
    self->base.ops = &py_ops;
    /* FAST would promise that the GIL need not be released; a Python method does that itself. */
    self->base.caps = (uint32_t)caps & ~(uint32_t)CESSION_CAP_FAST;
    self->state = state;
    self->adapter = Py_NewRef(adapter);
    *ret_store = &self->base;
    return 0;
}
