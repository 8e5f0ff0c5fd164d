/* The one place that turns a status into an exception. */
#include "core.h"

static PyObject *add_exception(PyObject *module, const char *name, const char *doc, PyObject *base)
{
    char full[64];
    PyOS_snprintf(full, sizeof full, "flask_session.%s", name);
    PyObject *type = PyErr_NewExceptionWithDoc(full, doc, base, NULL);
    if (type && PyModule_AddObjectRef(module, name, type) < 0) {
        Py_CLEAR(type);
    }
    return type;
}

int cx_errors_add(PyObject *module, cx_state *state)
{
    /* Exception directly: from RuntimeError a LocalProxy would make "no session", from
     * AttributeError hasattr() would. */
    state->store_error = add_exception(
        module, "SessionStoreError",
        "The session store did not do what it was asked: it is down, slow, full or refused.\n\n"
        "The message says which; it never contains a session id or data. The exception of a\n"
        "client library, where there was one, is the __cause__.",
        PyExc_Exception);
    if (!state->store_error) {
        return -1;
    }
    state->conflict_error = add_exception(
        module, "SessionConflict",
        "Two requests changed the same key of one session, and SESSION_CONFLICT is "
        "\"raise\".\n\nNothing of this request's changes was stored.",
        state->store_error);
    if (!state->conflict_error) {
        return -1;
    }
    state->config_error = add_exception(module, "SessionConfigError",
                                        "A configuration key has a value that cannot work; the "
                                        "message says what is accepted.",
                                        PyExc_ValueError);
    return state->config_error ? 0 : -1;
}

static PyObject *type_for(cx_state *state, int status)
{
    switch (status) {
    case CESSION_E_CONFLICT:
        return state->conflict_error;
    case CESSION_E_INVALID:
    case CESSION_E_UNSUPPORTED:
        return PyExc_ValueError;
    case CESSION_E_STATE:
        return PyExc_RuntimeError;
    default:
        return state->store_error;
    }
}

PyObject *cx_raise(cx_state *state, int status, const cession_error *err)
{
    PyObject *type = NULL, *cause = NULL, *traceback = NULL;
    PyErr_Fetch(&type, &cause, &traceback);
    if (type && !PyErr_GivenExceptionMatches(type, PyExc_Exception)) {
        PyErr_Restore(type, cause, traceback);
        return NULL;
    }
    if (type) {
        PyErr_NormalizeException(&type, &cause, &traceback);
        if (traceback) {
            PyException_SetTraceback(cause, traceback);
        }
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    if (status == CESSION_E_NOMEM) {
        Py_XDECREF(cause);
        return PyErr_NoMemory();
    }
    const char *text = err && err->code == status && err->text[0] ? err->text
                                                                  : cession_status_message(status);
    PyErr_SetString(type_for(state, status), text);
    if (cause) {
        PyObject *value;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        PyException_SetContext(value, Py_NewRef(cause));
        PyException_SetCause(value, cause); /* steals */
        PyErr_Restore(type, value, traceback);
    }
    return NULL;
}

void cx_raise_failure(cx_interface *self, PyObject *error)
{
    if (self->on_store_error != '5') {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        return;
    }
    PyObject *answer = PyObject_CallMethodObjArgs((PyObject *)self, self->state->s._unavailable,
                                                  error, NULL);
    if (answer) {
        PyErr_SetObject((PyObject *)Py_TYPE(answer), answer);
        Py_DECREF(answer);
    }
}
