/* Events: counted always, told to Python only when it matters. The frequent ones
 * (loaded, saved, touched, ...) cost a dict look-up while nobody listens; the rare
 * ones (conflict, lost, rejected, store_error, made_private) always reach
 * events.emit, which also writes the log. The sid itself never leaves C: receivers
 * get a salted hash that is the same within one process. */
#include "core.h"

#include <openssl/hmac.h>

#define CX_HASH_BYTES 8

static bool always_told(cx_event event)
{
    return event == CX_EV_conflict || event == CX_EV_lost || event == CX_EV_rejected ||
           event == CX_EV_store_error || event == CX_EV_made_private;
}

/* 1: somebody is connected to the signal; 0: nobody; -1: exception. */
static int wanted(cx_interface *self, cx_event event)
{
    if (!self->signals) {
        return 0;
    }
    PyObject *signal = PyDict_GetItemWithError(self->signals, self->state->event_names[event]);
    if (!signal) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *receivers = PyObject_GetAttr(signal, self->state->s.receivers);
    if (!receivers) {
        return -1;
    }
    int result = PyObject_IsTrue(receivers);
    Py_DECREF(receivers);
    return result;
}

static PyObject *sid_hash(cx_state *state, const char *sid, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int digest_len = 0;
    char text[CX_HASH_BYTES * 2];
    if (!sid || !HMAC(EVP_sha256(), state->hash_salt, (int)sizeof state->hash_salt,
                      (const unsigned char *)sid, len, digest, &digest_len)) {
        return PyUnicode_FromString("");
    }
    for (size_t i = 0; i < CX_HASH_BYTES; i++) {
        text[2 * i] = hex[digest[i] >> 4];
        text[2 * i + 1] = hex[digest[i] & 15];
    }
    return PyUnicode_FromStringAndSize(text, (Py_ssize_t)sizeof text);
}

int cx_emit(cx_interface *self, PyObject *app, cx_event event, const char *sid, size_t sid_len,
            PyObject *info)
{
    self->counts[event]++;
    if (!self->events) {
        return 0;
    }
    if (!always_told(event)) {
        int listening = wanted(self, event);
        if (listening <= 0) {
            return listening;
        }
    }
    PyObject *hash = sid_hash(self->state, sid, sid_len);
    if (!hash) {
        return -1;
    }
    PyObject *args[] = {self->events, self->state->event_names[event], app ? app : Py_None, hash,
                        info ? info : Py_None};
    PyObject *answer = PyObject_VectorcallMethod(self->state->s.emit, args, 5, NULL);
    Py_DECREF(hash);
    Py_XDECREF(answer);
    return answer ? 0 : -1;
}
