/* The session: a dict whose content arrives from the store when it is first
 * needed, and which knows its id.
 *
 * Applications hand it to json, orjson, jinja's tojson and isinstance(..., dict),
 * which read a dict's storage directly; so the storage is filled before anybody
 * gets hold of the session. Flask (3.1.3 and later) sets `accessed` right before
 * it hands the session out: that setter loads. Every slot and method checks as
 * well, for those who reach the object another way, and marks the session as
 * accessed for the Flasks that do not.
 *
 * Threads: fields change under the GIL only; the C session (`core`) is owned by
 * one thread at a time, because a store operation may give the GIL away.
 */
#include "core.h"

#include <stddef.h>
#include <structmember.h>

/* ---- ownership of the C session ------------------------------------------------ */

/* Who runs: the thread, or under gevent the greenlet (threading.get_ident is patched
 * then). 0 on error. */
static uintptr_t current_owner(cx_session *self)
{
    if (!self->interface || !self->interface->store || !self->interface->store->in.adapter) {
        /* Drivers in C never switch greenlets: the thread is enough. */
        return (uintptr_t)PyThread_get_thread_ident();
    }
    PyObject *ident = PyObject_CallMethodNoArgs(self->state->threading, self->state->s.get_ident);
    if (!ident) {
        return 0;
    }
    uintptr_t owner = (uintptr_t)PyLong_AsUnsignedLongMask(ident);
    Py_DECREF(ident);
    return owner ? owner : 1;
}

static int wait_for_owner(cx_session *self)
{
    cx_state *state = self->state;
    PyObject *answer;
    if (!self->waiters) {
        /* Looked up now: under monkey-patching this is the hub's lock. */
        PyObject *lock = PyObject_CallMethodNoArgs(state->threading, state->s.Lock);
        if (!lock) {
            return -1;
        }
        answer = PyObject_CallMethodNoArgs(lock, state->s.acquire);
        Py_XDECREF(answer);
        if (!answer || self->waiters) { /* another thread may have come first */
            Py_DECREF(lock);
            if (!answer) {
                return -1;
            }
        } else {
            self->waiters = lock;
        }
    }
    if (!self->owner) {
        return 0; /* given back while the lock was made */
    }
    PyObject *lock = Py_NewRef(self->waiters);
    answer = PyObject_CallMethodNoArgs(lock, state->s.acquire);
    if (answer) { /* pass the baton: the next waiter looks for itself */
        Py_DECREF(answer);
        answer = PyObject_CallMethodNoArgs(lock, state->s.release);
    }
    Py_XDECREF(answer);
    Py_DECREF(lock);
    return answer ? 0 : -1;
}

int cx_core_enter(cx_session *self)
{
    uintptr_t me = current_owner(self);
    if (!me) {
        return -1;
    }
    while (self->owner) {
        if (self->owner == me) {
            PyErr_SetString(PyExc_RuntimeError,
                            "the session is used by the very code that is loading or saving it");
            return -1;
        }
        if (wait_for_owner(self) < 0) {
            return -1;
        }
    }
    self->owner = me;
    return 0;
}

void cx_core_leave(cx_session *self)
{
    PyObject *type, *value, *traceback;
    self->owner = 0;
    if (self->waiters) {
        PyObject *lock = self->waiters;
        self->waiters = NULL;
        PyErr_Fetch(&type, &value, &traceback);
        PyObject *answer = PyObject_CallMethodNoArgs(lock, self->state->s.release);
        if (!answer) {
            PyErr_WriteUnraisable(lock);
        }
        Py_XDECREF(answer);
        Py_DECREF(lock);
        PyErr_Restore(type, value, traceback);
    }
}

/* ---- loading --------------------------------------------------------------------- */

/* While a session has no content, one item that no serializer takes stands in its
 * storage: code that reads a dict's storage past every slot and method then fails, or
 * turns to the methods after all (json does), instead of seeing an empty session. */
int cx_session_mark(cx_session *self)
{
    PyObject *mark = self->state->not_loaded;
    return PyDict_GET_SIZE((PyObject *)self) == 0 ? PyDict_SetItem((PyObject *)self, mark, mark)
                                                  : 0;
}

static int unmark(cx_session *self)
{
    PyObject *mark = self->state->not_loaded;
    int marked = PyDict_Contains((PyObject *)self, mark);
    if (marked > 0) {
        if (PyDict_GET_SIZE((PyObject *)self) == 1) {
            PyDict_Clear((PyObject *)self);
            return 0;
        }
        return PyDict_DelItem((PyObject *)self, mark);
    }
    return marked;
}

static int remember_failure(cx_session *self)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) {
        PyException_SetTraceback(value, traceback);
    }
    Py_XSETREF(self->failure, Py_NewRef(value));
    self->load_state = CX_FAILED;
    if (cx_session_mark(self) < 0) {
        PyErr_Clear(); /* no memory for the mark; the error that counts is kept */
    }
    PyErr_Restore(type, value, traceback);
    return -1;
}

/* The store failed: what SESSION_ON_STORE_ERROR says. 0: go on with an empty
 * session that is never saved; -1: exception. */
static int load_failed(cx_session *self)
{
    cx_interface *interface = self->interface;
    PyObject *type, *value, *traceback;
    if (!PyErr_ExceptionMatches(self->state->store_error)) {
        /* MemoryError, KeyboardInterrupt, GreenletExit: not the store's answer */
        return remember_failure(self);
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) {
        PyException_SetTraceback(value, traceback);
    }
    if (cx_emit(interface, self->app, CX_EV_store_error, NULL, 0, value) < 0) {
        PyErr_WriteUnraisable((PyObject *)interface);
    }
    if (interface->on_store_error == 'e') {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        self->degraded = true;
        return unmark(self) < 0 ? remember_failure(self) : 0;
    }
    cx_raise_failure(interface, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return remember_failure(self);
}

/* The dict := the loaded value. 0, or -1 with an exception. */
static int take_value(cx_session *self)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_span value = cession_session_value(self->core);
    bool canonical = false;
    if (value.len == 0) {
        return 0;
    }
    int decoded = cx_flow_decode(&self->flow->codec, value, (PyObject *)self, &canonical);
    if (decoded < 0) {
        return -1;
    }
    int status = CESSION_OK;
    if (decoded == 0) {
        status = cession_session_reject(self->core, &err);
    } else if (canonical) {
        status = cession_session_set_base(self->core, value, &err);
    }
    if (status < 0) {
        cx_raise(self->state, status, &err);
        return -1;
    }
    return 0;
}

static int load_now(cx_session *self)
{
    cx_interface *interface = self->interface;
    cession_error err = CESSION_ERROR_INIT;
    int status = cession_session_load(self->core, cession_deadline_in(interface->timeout_ms), &err);
    if (status < 0) {
        cx_raise(self->state, status, &err);
        return load_failed(self);
    }
    if (unmark(self) < 0 || take_value(self) < 0) {
        PyDict_Clear((PyObject *)self);
        return remember_failure(self);
    }
    Py_CLEAR(self->sid); /* an unknown sid was replaced */
    if (interface->permanent && cession_session_is_new(self->core) &&
        PyDict_SetItem((PyObject *)self, self->state->s._permanent, Py_True) < 0) {
        PyDict_Clear((PyObject *)self);
        return remember_failure(self);
    }
    int permanent = cx_session_permanent(self);
    if (permanent < 0) {
        return remember_failure(self);
    }
    self->was_permanent = permanent == 1;
    return 0;
}

static int announce_load(cx_session *self)
{
    size_t len;
    const char *sid = cession_session_sid(self->core, &len);
    cx_event event = cession_session_was_rejected(self->core) ? CX_EV_rejected : CX_EV_loaded;
    if (self->degraded || (event == CX_EV_loaded && cession_session_is_new(self->core))) {
        return 0;
    }
    return cx_emit(self->interface, self->app, event, sid, len, Py_None);
}

int cx_session_load_slow(cx_session *self)
{
    if (self->load_state == CX_UNLOADED) {
        if (cx_core_enter(self) < 0) {
            return -1;
        }
        if (self->load_state == CX_UNLOADED) { /* nobody else did it while we waited */
            int result = load_now(self);
            if (result == 0) {
                self->load_state = CX_LOADED;
            }
            cx_core_leave(self);
            return result == 0 ? announce_load(self) : -1;
        }
        cx_core_leave(self);
    }
    if (self->load_state == CX_FAILED) {
        /* without the frames of the uses before, which would be shown as callers */
        PyException_SetTraceback(self->failure, Py_None);
        PyErr_SetObject((PyObject *)Py_TYPE(self->failure), self->failure);
        return -1;
    }
    return 0;
}

bool cx_session_empty(cx_session *self)
{
    Py_ssize_t len = PyDict_GET_SIZE((PyObject *)self);
    if (len != 1) {
        return len == 0;
    }
    return PyDict_GetItemWithError((PyObject *)self, self->state->s._permanent) != NULL;
}

int cx_session_permanent(cx_session *self)
{
    PyObject *value = PyDict_GetItemWithError((PyObject *)self, self->state->s._permanent);
    if (!value) {
        return PyErr_Occurred() ? -1 : 0;
    }
    if (value == Py_True || value == Py_False) {
        return value == Py_True;
    }
    Py_INCREF(value); /* its own __bool__ may take it out of the session */
    int truth = PyObject_IsTrue(value);
    Py_DECREF(value);
    return truth;
}

/* ---- dict slots -------------------------------------------------------------------- */

#define SESSION(self) ((cx_session *)(self))
/* Loaded and marked as accessed, or return `failed`. */
#define CX_USE(self, failed)                        \
    do {                                            \
        if (cx_session_ensure(SESSION(self)) < 0) { \
            return failed;                          \
        }                                           \
        SESSION(self)->accessed = true;             \
    } while (0)

static PyObject *session_subscript(PyObject *self, PyObject *key)
{
    CX_USE(self, NULL);
    return PyDict_Type.tp_as_mapping->mp_subscript(self, key);
}

static int session_ass_subscript(PyObject *self, PyObject *key, PyObject *value)
{
    CX_USE(self, -1);
    int result = PyDict_Type.tp_as_mapping->mp_ass_subscript(self, key, value);
    if (result == 0) {
        SESSION(self)->modified = true;
    }
    return result;
}

static Py_ssize_t session_length(PyObject *self)
{
    CX_USE(self, -1);
    return PyDict_GET_SIZE(self);
}

static int session_contains(PyObject *self, PyObject *key)
{
    CX_USE(self, -1);
    return PyDict_Contains(self, key);
}

static PyObject *session_iter(PyObject *self)
{
    CX_USE(self, NULL);
    return PyDict_Type.tp_iter(self);
}

static int session_bool(PyObject *self)
{
    CX_USE(self, -1);
    return !cx_session_empty(SESSION(self));
}

static int use_if_session(PyObject *obj, PyTypeObject *session_type)
{
    if (PyObject_TypeCheck(obj, session_type)) {
        CX_USE(obj, -1);
    }
    return 0;
}

/* The C type that `self` or `other` is an instance of: its slots got us here. */
static PyTypeObject *session_type_of(PyObject *self, PyObject *other)
{
    cx_state *state = cx_state_of_type(Py_TYPE(self));
    if (!state) {
        PyErr_Clear();
        state = cx_state_of_type(Py_TYPE(other));
    }
    return state ? state->session_type : NULL;
}

static PyObject *session_richcompare(PyObject *self, PyObject *other, int op)
{
    PyTypeObject *type = session_type_of(self, other);
    if (!type || use_if_session(self, type) < 0 || use_if_session(other, type) < 0) {
        return NULL;
    }
    return PyDict_Type.tp_richcompare(self, other, op);
}

static PyObject *session_or(PyObject *self, PyObject *other)
{
    PyTypeObject *type = session_type_of(self, other);
    if (!type || use_if_session(self, type) < 0 || use_if_session(other, type) < 0) {
        return NULL;
    }
    return PyDict_Type.tp_as_number->nb_or(self, other);
}

static PyObject *session_inplace_or(PyObject *self, PyObject *other)
{
    PyTypeObject *type = session_type_of(self, other);
    if (!type || use_if_session(self, type) < 0 || use_if_session(other, type) < 0) {
        return NULL;
    }
    SESSION(self)->modified = true;
    return PyDict_Type.tp_as_number->nb_inplace_or(self, other);
}

/* Number of keys, never content: a repr ends in logs and error pages. */
static PyObject *session_repr(PyObject *self)
{
    cx_session *session = SESSION(self);
    if (session->load_state == CX_UNLOADED) {
        return PyUnicode_FromFormat("<%s, not loaded>", Py_TYPE(self)->tp_name);
    }
    if (session->load_state == CX_FAILED) {
        return PyUnicode_FromFormat("<%s, not available>", Py_TYPE(self)->tp_name);
    }
    return PyUnicode_FromFormat("<%s with %zd keys>", Py_TYPE(self)->tp_name,
                                PyDict_GET_SIZE(self));
}

/* ---- dict methods ------------------------------------------------------------------ */

/* Call dict's own method on self. */
static PyObject *call_dict(PyObject *method, PyObject *self, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *small[4];
    PyObject **stack = small;
    Py_ssize_t total = nargs + 1 + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0);
    if (total > 4) {
        stack = PyMem_New(PyObject *, (size_t)total);
        if (!stack) {
            return PyErr_NoMemory();
        }
    }
    stack[0] = self;
    for (Py_ssize_t i = 1; i < total; i++) {
        stack[i] = args[i - 1];
    }
    PyObject *result = PyObject_Vectorcall(method, stack, (size_t)nargs + 1, kwnames);
    if (stack != small) {
        PyMem_Free(stack);
    }
    return result;
}

static PyObject *session_get(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 2) {
        PyErr_Format(PyExc_TypeError, "get expected 1 or 2 arguments, got %zd", nargs);
        return NULL;
    }
    CX_USE(self, NULL);
    PyObject *value = PyDict_GetItemWithError(self, args[0]);
    if (!value && PyErr_Occurred()) {
        return NULL;
    }
    return Py_NewRef(value ? value : nargs == 2 ? args[1] : Py_None);
}

static PyObject *session_setdefault(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    CX_USE(self, NULL);
    Py_ssize_t before = PyDict_GET_SIZE(self);
    PyObject *result = call_dict(SESSION(self)->state->dict_setdefault, self, args, nargs, NULL);
    if (PyDict_GET_SIZE(self) != before) {
        SESSION(self)->modified = true;
    }
    return result;
}

static PyObject *session_pop(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    CX_USE(self, NULL);
    Py_ssize_t before = PyDict_GET_SIZE(self);
    PyObject *result = call_dict(SESSION(self)->state->dict_pop, self, args, nargs, NULL);
    if (PyDict_GET_SIZE(self) != before) {
        SESSION(self)->modified = true;
    }
    return result;
}

static PyObject *session_popitem(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    CX_USE(self, NULL);
    PyObject *result = call_dict(SESSION(self)->state->dict_popitem, self, NULL, 0, NULL);
    if (result) {
        SESSION(self)->modified = true;
    }
    return result;
}

static PyObject *session_update(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    CX_USE(self, NULL);
    if (nargs == 1 && use_if_session(args[0], SESSION(self)->state->session_type) < 0) {
        return NULL;
    }
    SESSION(self)->modified = true; /* also when it fails half-way */
    return call_dict(SESSION(self)->state->dict_update, self, args, nargs, kwnames);
}

/* Empty, but for _permanent: it is the session's kind, not its content. */
static PyObject *session_clear_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    CX_USE(self, NULL);
    cx_session *session = SESSION(self);
    PyObject *permanent = Py_XNewRef(PyDict_GetItemWithError(self, session->state->s._permanent));
    if (!permanent && PyErr_Occurred()) {
        return NULL;
    }
    PyDict_Clear(self);
    session->modified = true;
    int result = permanent ? PyDict_SetItem(self, session->state->s._permanent, permanent) : 0;
    Py_XDECREF(permanent);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *session_keys(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    CX_USE(self, NULL);
    return call_dict(SESSION(self)->state->dict_keys, self, NULL, 0, NULL);
}

static PyObject *session_values(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    CX_USE(self, NULL);
    return call_dict(SESSION(self)->state->dict_values, self, NULL, 0, NULL);
}

static PyObject *session_items(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    CX_USE(self, NULL);
    return call_dict(SESSION(self)->state->dict_items, self, NULL, 0, NULL);
}

static PyObject *session_reversed(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    CX_USE(self, NULL);
    return call_dict(SESSION(self)->state->dict_reversed, self, NULL, 0, NULL);
}

static PyObject *session_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    CX_USE(self, NULL);
    return PyDict_Copy(self);
}

/* Pickle and copy: a session made by hand with the same content and no id. */
static PyObject *session_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    CX_USE(self, NULL);
    PyObject *content = PyDict_Copy(self);
    return content ? Py_BuildValue("(O(N))", Py_TYPE(self), content) : NULL;
}

/* ---- the session's own methods ------------------------------------------------------ */

static int attached(cx_session *self)
{
    if (!self->core) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this session was made by hand and belongs to no store");
        return -1;
    }
    return 0;
}

static PyObject *session_regenerate(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    cx_session *session = SESSION(self);
    cession_error err = CESSION_ERROR_INIT;
    if (attached(session) < 0) {
        return NULL;
    }
    CX_USE(self, NULL);
    if (session->degraded) {
        Py_RETURN_NONE; /* it is never saved: nothing to protect */
    }
    if (cx_core_enter(session) < 0) {
        return NULL;
    }
    PyObject *before = NULL;
    int status = CESSION_E_NOMEM;
    if (!session->stored_sid && !cession_session_is_new(session->core)) {
        size_t len;
        const char *sid = cession_session_sid(session->core, &len);
        before = PyUnicode_FromStringAndSize(sid, (Py_ssize_t)len);
    }
    if (!PyErr_Occurred()) {
        status = cession_session_regenerate(session->core, &err);
    }
    if (status == CESSION_OK && before) {
        Py_XSETREF(session->stored_sid, before);
    } else {
        Py_XDECREF(before);
    }
    cx_core_leave(session);
    if (status < 0) {
        return cx_raise(session->state, status, &err);
    }
    Py_CLEAR(session->sid);
    session->modified = true;
    Py_RETURN_NONE;
}

static PyObject *session_save(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (attached(SESSION(self)) < 0) {
        return NULL;
    }
    CX_USE(self, NULL);
    if (cx_session_commit_now(SESSION(self)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *session_destroy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (attached(SESSION(self)) < 0) {
        return NULL;
    }
    CX_USE(self, NULL);
    PyDict_Clear(self);
    SESSION(self)->modified = true;
    if (cx_session_commit_now(SESSION(self)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *session_reload(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    cx_session *session = SESSION(self);
    if (attached(session) < 0 || cx_session_ensure(session) < 0 || cx_session_reopen(session) < 0) {
        return NULL;
    }
    CX_USE(self, NULL);
    Py_RETURN_NONE;
}

/* ---- attributes ------------------------------------------------------------------------ */

static PyObject *get_accessed(cx_session *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->accessed);
}

static int set_accessed(cx_session *self, PyObject *value, void *Py_UNUSED(closure))
{
    int truth = value ? PyObject_IsTrue(value) : 0;
    if (truth < 0 || (truth && cx_session_ensure(self) < 0)) {
        return -1;
    }
    self->accessed = truth == 1;
    return 0;
}

static PyObject *get_modified(cx_session *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->modified);
}

static int set_modified(cx_session *self, PyObject *value, void *Py_UNUSED(closure))
{
    int truth = value ? PyObject_IsTrue(value) : 0;
    if (truth < 0 || cx_session_ensure(self) < 0) {
        return -1;
    }
    self->modified = truth == 1;
    if (truth) {
        self->accessed = true;
    }
    return 0;
}

static PyObject *get_permanent(cx_session *self, void *Py_UNUSED(closure))
{
    CX_USE(self, NULL);
    int permanent = cx_session_permanent(self);
    return permanent < 0 ? NULL : PyBool_FromLong(permanent);
}

/* Setting what is there already is no change: applications do it in every request. */
static int set_permanent(cx_session *self, PyObject *value, void *Py_UNUSED(closure))
{
    CX_USE(self, -1);
    int truth = value ? PyObject_IsTrue(value) : 0;
    PyObject *now = truth < 0
                        ? NULL
                        : PyDict_GetItemWithError((PyObject *)self, self->state->s._permanent);
    if (truth < 0 || (!now && PyErr_Occurred())) {
        return -1;
    }
    PyObject *wanted = truth ? Py_True : Py_False;
    if (now == wanted) {
        return 0;
    }
    if (PyDict_SetItem((PyObject *)self, self->state->s._permanent, wanted) < 0) {
        return -1;
    }
    self->modified = true;
    return 0;
}

static PyObject *get_new(cx_session *self, void *Py_UNUSED(closure))
{
    if (cx_session_ensure(self) < 0) {
        return NULL;
    }
    return PyBool_FromLong(!self->core || cession_session_is_new(self->core));
}

static PyObject *get_available(cx_session *self, void *Py_UNUSED(closure))
{
    if (self->load_state == CX_UNLOADED && cx_session_load_slow(self) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            return NULL;
        }
        PyErr_Clear();
    }
    return PyBool_FromLong(self->load_state == CX_LOADED && !self->degraded);
}

static PyObject *get_sid(cx_session *self, void *Py_UNUSED(closure))
{
    if (cx_session_ensure(self) < 0) {
        return NULL;
    }
    if (!self->sid) {
        size_t len = 0;
        const char *sid = self->core ? cession_session_sid(self->core, &len) : NULL;
        self->sid = sid ? PyUnicode_FromStringAndSize(sid, (Py_ssize_t)len) : Py_NewRef(Py_None);
    }
    return Py_XNewRef(self->sid);
}

static int set_sid(cx_session *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (self->core) {
        PyErr_SetString(PyExc_AttributeError,
                        "the id of a stored session cannot be set; regenerate() gives a new one");
        return -1;
    }
    Py_XSETREF(self->sid, Py_NewRef(value ? value : Py_None));
    return 0;
}

/* ---- life -------------------------------------------------------------------------------- */

static PyObject *session_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    cx_state *state = cx_state_of_type(type);
    if (!state) {
        return NULL;
    }
    cx_session *self = (cx_session *)PyDict_Type.tp_new(type, args, kwargs);
    if (self) {
        self->state = state;
    }
    return (PyObject *)self;
}

static int session_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"initial", "sid", "permanent", NULL};
    PyObject *initial = Py_None, *sid = Py_None, *permanent = Py_None;
    cx_session *session = SESSION(self);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOO:Session", names, &initial, &sid,
                                     &permanent)) {
        return -1;
    }
    if (initial != Py_None) {
        PyObject *none = call_dict(session->state->dict_update, self, &initial, 1, NULL);
        if (!none) {
            return -1;
        }
        Py_DECREF(none);
    }
    int truth = PyObject_IsTrue(permanent);
    if (truth < 0 || (truth && PyDict_SetItem(self, session->state->s._permanent, Py_True) < 0)) {
        return -1;
    }
    if (!session->core) {
        Py_XSETREF(session->sid, Py_NewRef(sid));
    }
    session->modified = session->accessed = false;
    return 0;
}

static int session_traverse(PyObject *self, visitproc visit, void *arg)
{
    cx_session *session = SESSION(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(session->interface);
    Py_VISIT(session->app);
    Py_VISIT(session->failure);
    Py_VISIT(session->waiters);
    return PyDict_Type.tp_traverse(self, visit, arg);
}

static int session_tp_clear(PyObject *self)
{
    cx_session *session = SESSION(self);
    /* Without its interface it is a session made by hand, and stays usable as that. */
    cession_session_free(session->core);
    session->core = NULL;
    cx_flow *flow = session->flow;
    session->flow = NULL;
    cx_flow_unref(flow);
    Py_CLEAR(session->interface);
    Py_CLEAR(session->app);
    Py_CLEAR(session->failure);
    Py_CLEAR(session->waiters);
    session->load_state = CX_LOADED;
    return PyDict_Type.tp_clear(self);
}

static void session_dealloc(PyObject *self)
{
    cx_session *session = SESSION(self);
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (session->weakrefs) {
        PyObject_ClearWeakRefs(self);
    }
    cession_session_free(session->core);
    session->core = NULL;
    cx_flow *flow = session->flow;
    session->flow = NULL;
    cx_flow_unref(flow);
    Py_CLEAR(session->interface);
    Py_CLEAR(session->app);
    Py_CLEAR(session->failure);
    Py_CLEAR(session->waiters);
    Py_CLEAR(session->sid);
    Py_CLEAR(session->stored_sid);
    PyDict_Type.tp_dealloc(self);
    Py_DECREF(type); /* dict's dealloc frees the memory and knows nothing of heap types */
}

#define FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef session_methods[] = {
    {"get", FASTCALL(session_get), METH_FASTCALL, "get(key, default=None)"},
    {"setdefault", FASTCALL(session_setdefault), METH_FASTCALL, "setdefault(key, default=None)"},
    {"pop", FASTCALL(session_pop), METH_FASTCALL, "pop(key[, default])"},
    {"popitem", session_popitem, METH_NOARGS, "popitem()"},
    {"update", FASTCALL(session_update), METH_FASTCALL | METH_KEYWORDS, "update([other], **kw)"},
    {"clear", session_clear_method, METH_NOARGS,
     "clear()\n\nRemove everything but the `permanent` mark. An emptied session is removed from "
     "the store, and its cookie from the browser, at the end of the request."},
    {"keys", session_keys, METH_NOARGS, "keys()"},
    {"values", session_values, METH_NOARGS, "values()"},
    {"items", session_items, METH_NOARGS, "items()"},
    {"copy", session_copy, METH_NOARGS, "copy() -> dict\n\nA plain shallow copy."},
    {"__reversed__", session_reversed, METH_NOARGS, "keys in reverse order"},
    {"__reduce__", session_reduce, METH_NOARGS, "pickle and copy as a detached session"},
    {"regenerate", session_regenerate, METH_NOARGS,
     "regenerate()\n\nGive the session a new id, at once; call it when the visitor logs in or "
     "gains rights. With the end of the request the new record is created first and the old id "
     "is then refused for good. What other requests added meanwhile is kept."},
    {"save", session_save, METH_NOARGS,
     "save()\n\nStore changes now instead of at the end of the request. The cookie, if one is "
     "due, is set by this request's response."},
    {"destroy", session_destroy, METH_NOARGS,
     "destroy()\n\nEmpty the session and remove it from the store now."},
    {"reload", session_reload, METH_NOARGS,
     "reload()\n\nDrop unsaved changes and read the session again."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef session_getset[] = {
    {"accessed", (getter)get_accessed, (setter)set_accessed,
     "Whether this request looked at the session; setting it to True loads the session.", NULL},
    {"modified", (getter)get_modified, (setter)set_modified,
     "Whether the top level was written to. Nested changes are found without it.", NULL},
    {"permanent", (getter)get_permanent, (setter)set_permanent,
     "Whether the cookie outlives the browser session; kept under the key `_permanent`.", NULL},
    {"new", (getter)get_new, NULL, "Whether the store holds no record of this session.", NULL},
    {"available", (getter)get_available, NULL,
     "False when the store could not be read; never raises SessionStoreError.", NULL},
    {"sid", (getter)get_sid, (setter)set_sid,
     "The session id. A secret: whoever knows it has the session.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef session_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(cx_session, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot session_slots[] = {
    {Py_tp_doc, "Session(initial=None, sid=None, permanent=None)\n\n"
                "A dict that is kept in a session store. flask.session is one of these."},
    {Py_tp_new, session_new},
    {Py_tp_init, session_init},
    {Py_tp_dealloc, session_dealloc},
    {Py_tp_traverse, session_traverse},
    {Py_tp_clear, session_tp_clear},
    {Py_tp_repr, session_repr},
    {Py_tp_iter, session_iter},
    {Py_tp_richcompare, session_richcompare},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_methods, session_methods},
    {Py_tp_getset, session_getset},
    {Py_tp_members, session_members},
    {Py_mp_subscript, session_subscript},
    {Py_mp_ass_subscript, session_ass_subscript},
    {Py_mp_length, session_length},
    {Py_sq_contains, session_contains},
    {Py_nb_bool, session_bool},
    {Py_nb_or, session_or},
    {Py_nb_inplace_or, session_inplace_or},
    {0, NULL},
};

static PyType_Spec session_spec = {
    .name = "flask_session._core.Session",
    .basicsize = sizeof(cx_session),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = session_slots,
};

int cx_session_add(PyObject *module, cx_state *state)
{
    PyObject *bases = PyTuple_Pack(1, (PyObject *)&PyDict_Type);
    if (!bases) {
        return -1;
    }
    state->session_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &session_spec, bases);
    Py_DECREF(bases);
    state->not_loaded = PyCapsule_New(&session_spec, "a session that is not loaded", NULL);
    if (!state->session_type || !state->not_loaded ||
        PyModule_AddType(module, state->session_type) < 0) {
        return -1;
    }
    struct {
        PyObject **slot;
        const char *name;
    } methods[] = {
        {&state->dict_update, "update"},         {&state->dict_pop, "pop"},
        {&state->dict_popitem, "popitem"},       {&state->dict_setdefault, "setdefault"},
        {&state->dict_clear, "clear"},           {&state->dict_keys, "keys"},
        {&state->dict_values, "values"},         {&state->dict_items, "items"},
        {&state->dict_reversed, "__reversed__"}, {&state->dict_getitem, "__getitem__"},
    };
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        *methods[i].slot = PyObject_GetAttrString((PyObject *)&PyDict_Type, methods[i].name);
        if (!*methods[i].slot) {
            return -1;
        }
    }
    return cx_codec_set_session_type(&state->codec, state->session_type);
}
