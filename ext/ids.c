/* Module functions over ids and forks, and conversions of durations. */
#include "core.h"

#include <datetime.h>
#include <math.h>

#include "base/os.h"

static PyObject *generate_sid(PyObject *module, PyObject *arg)
{
    char sid[CESSION_SID_MAX + 1];
    size_t len;
    cession_error err = CESSION_ERROR_INIT;
    Py_ssize_t bytes = PyLong_AsSsize_t(arg);
    if (bytes == -1 && PyErr_Occurred()) {
        return NULL;
    }
    int status = cession_sid_generate(bytes < 0 ? 0 : (size_t)bytes, sid, &len, &err);
    return status == CESSION_OK ? PyUnicode_FromStringAndSize(sid, (Py_ssize_t)len)
                                : cx_raise(cx_state_of(module), status, &err);
}

static PyObject *fork_quiesce(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    Py_BEGIN_ALLOW_THREADS ces_fork_quiesce();
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

PyMethodDef cx_ids_methods[] = {
    {"generate_sid", generate_sid, METH_O,
     "generate_sid(entropy_bytes) -> str\n\nUnpadded base64url of 16 to 192 random bytes."},
    {"fork_quiesce", fork_quiesce, METH_NOARGS,
     "fork_quiesce()\n\nClose what must not be open across a fork; waits, with the GIL released, "
     "for operations under way. Registered with os.register_at_fork."},
    {NULL, NULL, 0, NULL},
};

int cx_seconds_to_ms(PyObject *seconds, int64_t *ret_ms)
{
    double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (!(value >= 0.0 && value <= 1e9)) {
        PyErr_SetString(PyExc_ValueError, "a number of seconds from 0 to 1e9 is needed");
        return -1;
    }
    *ret_ms = (int64_t)ceil(value * 1000.0);
    return 0;
}

/* A timedelta reaches further than 64 bits of microseconds: what is longer than this many
 * days (10,000 years) counts as this many; the store then says what it takes. */
#define CX_DAYS_MAX 3652500

int cx_timedelta_to_us(cx_state *state, PyObject *delta, int64_t *ret_us)
{
    if (!PyObject_TypeCheck(delta, (PyTypeObject *)state->timedelta_type)) {
        PyErr_Format(PyExc_TypeError, "a timedelta is needed, not %s", Py_TYPE(delta)->tp_name);
        return -1;
    }
    /* The object's own fields, which need no import of datetime's C API and are normalized. */
    int64_t days = PyDateTime_DELTA_GET_DAYS(delta);
    days = days > CX_DAYS_MAX ? CX_DAYS_MAX : days < -CX_DAYS_MAX ? -CX_DAYS_MAX : days;
    *ret_us = (days * 86400 + PyDateTime_DELTA_GET_SECONDS(delta)) * 1000000 +
              PyDateTime_DELTA_GET_MICROSECONDS(delta);
    return 0;
}

bool cx_plain_config(const cx_state *state, PyObject *config)
{
    /* The slot cannot tell: a subclass has its own even where it overrides nothing. */
    return PyDict_Check(config) &&
           _PyType_Lookup(Py_TYPE(config), state->codec.n_getitem) == state->dict_getitem;
}

/* The timedelta in app.config, which Flask's attribute forwards to by two calls of Python. NULL
 * without exception: ask the attribute (it is another one, or what it forwards to is no
 * timedelta). */
static PyObject *configured_lifetime(cx_state *state, PyObject *app)
{
    if (!state->lifetime_attr ||
        _PyType_Lookup(Py_TYPE(app), state->s.permanent_session_lifetime) != state->lifetime_attr) {
        return NULL;
    }
    PyObject *config = PyObject_GetAttr(app, state->s.config);
    PyObject *value = config && cx_plain_config(state, config)
                          ? PyDict_GetItemWithError(config, state->s.PERMANENT_SESSION_LIFETIME)
                          : NULL;
    if (value) {
        value = PyObject_TypeCheck(value, (PyTypeObject *)state->timedelta_type) ? Py_NewRef(value)
                                                                                 : NULL;
    }
    Py_XDECREF(config);
    return value;
}

int cx_lifetime_us(cx_state *state, PyObject *app, int64_t *ret_us)
{
    PyObject *delta = configured_lifetime(state, app);
    if (!delta && !PyErr_Occurred()) {
        delta = PyObject_GetAttr(app, state->s.permanent_session_lifetime);
    }
    int result = delta ? cx_timedelta_to_us(state, delta, ret_us) : -1;
    Py_XDECREF(delta);
    if (result == 0 && *ret_us <= 0) {
        PyErr_SetString(PyExc_ValueError, "PERMANENT_SESSION_LIFETIME must be above zero");
        result = -1;
    }
    return result;
}
