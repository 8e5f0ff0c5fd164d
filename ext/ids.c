/* Module functions over ids and signatures, and conversions of durations. */
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

#define CX_KEYS_MAX 64

static cession_signer *signer_from(PyObject *module, PyObject *keys)
{
    cession_span spans[CX_KEYS_MAX];
    cession_error err = CESSION_ERROR_INIT;
    cession_signer *signer = NULL;
    PyObject *list = PySequence_Fast(keys, "keys must be a sequence of bytes");
    if (!list) {
        return NULL;
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(list);
    if (count < 1 || count > CX_KEYS_MAX) {
        PyErr_Format(PyExc_ValueError, "1 to %d keys are needed", CX_KEYS_MAX);
        Py_DECREF(list);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *key = PySequence_Fast_GET_ITEM(list, i);
        if (!PyBytes_Check(key)) {
            PyErr_SetString(PyExc_TypeError, "keys must be a sequence of bytes");
            Py_DECREF(list);
            return NULL;
        }
        spans[i] = cession_span_of(PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key));
    }
    int status = cession_signer_new(spans, (size_t)count, &signer, &err);
    Py_DECREF(list);
    if (status != CESSION_OK) {
        cx_raise(cx_state_of(module), status, &err);
        return NULL;
    }
    return signer;
}

static PyObject *sign(PyObject *module, PyObject *args)
{
    const char *value;
    Py_ssize_t len;
    PyObject *keys, *result = NULL;
    cession_error err = CESSION_ERROR_INIT;
    cession_buf out;
    if (!PyArg_ParseTuple(args, "s#O:sign", &value, &len, &keys)) {
        return NULL;
    }
    cession_signer *signer = signer_from(module, keys);
    if (!signer) {
        return NULL;
    }
    cession_buf_init(&out, CESSION_SIGNED_MAX);
    int status = cession_signer_sign(signer, cession_span_of(value, (size_t)len), &out, &err);
    if (status == CESSION_OK) {
        result = PyUnicode_DecodeUTF8((char *)out.data, (Py_ssize_t)out.len, "strict");
    } else {
        cx_raise(cx_state_of(module), status, &err);
    }
    cession_buf_release(&out);
    cession_signer_free(signer);
    return result;
}

static PyObject *unsign(PyObject *module, PyObject *args)
{
    const char *value;
    Py_ssize_t len;
    PyObject *keys, *result = NULL;
    cession_error err = CESSION_ERROR_INIT;
    cession_span plain;
    size_t key;
    if (!PyArg_ParseTuple(args, "s#O:unsign", &value, &len, &keys)) {
        return NULL;
    }
    cession_signer *signer = signer_from(module, keys);
    if (!signer) {
        return NULL;
    }
    int status = cession_signer_verify(signer, cession_span_of(value, (size_t)len), &plain, &key,
                                       &err);
    if (status == CESSION_OK) {
        result = Py_BuildValue("(s#n)", (const char *)plain.data, (Py_ssize_t)plain.len,
                               (Py_ssize_t)key);
    } else if (status < 0 && status != CESSION_E_LIMIT) {
        cx_raise(cx_state_of(module), status, &err);
    } else {
        result = Py_NewRef(Py_None);
    }
    cession_signer_free(signer);
    return result;
}

static PyObject *fork_quiesce(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    Py_BEGIN_ALLOW_THREADS ces_fork_quiesce();
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

PyMethodDef cx_ids_methods[] = {
    {"generate_sid", generate_sid, METH_O,
     "generate_sid(entropy_bytes) -> str\n\nUnpadded base64url of 16 to 192 random bytes."},
    {"sign", sign, METH_VARARGS,
     "sign(value, keys) -> str\n\nAs itsdangerous.Signer(keys[0], salt=\"flask-session\", "
     "key_derivation=\"hmac\")."},
    {"unsign", unsign, METH_VARARGS,
     "unsign(value, keys) -> (str, key_index) | None\n\nNone when no key fits."},
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
