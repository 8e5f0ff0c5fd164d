/* Module functions over ids and forks, and conversions of durations. */
#include "core.h"

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
    /* The attributes, not datetime's C API: its import costs, and this is 0.1 us. */
    static const char *const names[] = {"days", "seconds", "microseconds"};
    long long parts[3];
    for (size_t i = 0; i < 3; i++) {
        PyObject *part = PyObject_GetAttrString(delta, names[i]);
        if (!part) {
            return -1;
        }
        parts[i] = PyLong_AsLongLong(part);
        Py_DECREF(part);
        if (parts[i] == -1 && PyErr_Occurred()) {
            return -1;
        }
    }
    /* seconds and microseconds: a subclass may say anything */
    if (parts[1] < 0 || parts[1] >= 86400 || parts[2] < 0 || parts[2] >= 1000000) {
        PyErr_SetString(PyExc_ValueError, "this timedelta is not normalized");
        return -1;
    }
    parts[0] = parts[0] > CX_DAYS_MAX    ? CX_DAYS_MAX
               : parts[0] < -CX_DAYS_MAX ? -CX_DAYS_MAX
                                         : parts[0];
    *ret_us = (parts[0] * 86400 + parts[1]) * 1000000 + parts[2];
    return 0;
}

int cx_lifetime_us(cx_state *state, PyObject *app, int64_t *ret_us)
{
    PyObject *delta = PyObject_GetAttr(app, state->s.permanent_session_lifetime);
    int result = delta ? cx_timedelta_to_us(state, delta, ret_us) : -1;
    Py_XDECREF(delta);
    if (result == 0 && *ret_us <= 0) {
        PyErr_SetString(PyExc_ValueError, "PERMANENT_SESSION_LIFETIME must be above zero");
        result = -1;
    }
    return result;
}
