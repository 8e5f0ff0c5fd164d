/* What a response gets: Vary, Set-Cookie, and no shared caching beside it. */
#include "core.h"

int cx_response_vary(cx_state *state, PyObject *response)
{
    int fast = cx_fast_vary(state, response);
    if (fast != 0) {
        return fast < 0 ? -1 : 0;
    }
    PyObject *vary = PyObject_GetAttr(response, state->s.vary);
    PyObject *answer = vary ? PyObject_CallMethodOneArg(vary, state->s.add, state->cookie_key)
                            : NULL;
    Py_XDECREF(vary);
    Py_XDECREF(answer);
    return answer ? 0 : -1;
}

/* A response that carries a session cookie must not be kept by shared caches: `public`
 * and `s-maxage` are replaced by `private`. 1: it was changed; 0: nothing to do. */
static int make_private(cx_state *state, PyObject *response)
{
    PyObject *headers = PyObject_GetAttr(response, state->s.headers);
    if (!headers) {
        return -1;
    }
    PyObject *present = PyObject_CallMethod((PyObject *)headers, "get", "s", "Cache-Control");
    Py_DECREF(headers);
    if (!present || present == Py_None) {
        Py_XDECREF(present);
        return present ? 0 : -1;
    }
    Py_DECREF(present);
    PyObject *control = PyObject_GetAttr(response, state->s.cache_control);
    if (!control) {
        return -1;
    }
    int result = -1;
    PyObject *is_public = PyObject_GetAttrString(control, "public");
    PyObject *shared_age = PyObject_GetAttr(control, state->s.s_maxage);
    if (is_public && shared_age) {
        int truth = PyObject_IsTrue(is_public);
        result = truth < 0 ? -1 : truth || shared_age != Py_None;
        if (result == 1 && (PyObject_SetAttrString(control, "public", Py_False) < 0 ||
                            PyObject_SetAttr(control, state->s.s_maxage, Py_None) < 0 ||
                            PyObject_SetAttr(control, state->s.private, Py_True) < 0)) {
            result = -1;
        }
    }
    Py_XDECREF(is_public);
    Py_XDECREF(shared_age);
    Py_DECREF(control);
    return result;
}

/* Add kwargs[key] = self.getter(app); 0 or -1. */
static int add_from_getter(cx_interface *self, PyObject *app, PyObject *kwargs, PyObject *method,
                           PyObject *key)
{
    PyObject *value = PyObject_CallMethodOneArg((PyObject *)self, method, app);
    int result = value ? PyDict_SetItem(kwargs, key, value) : -1;
    Py_XDECREF(value);
    return result;
}

/* The attributes that set and delete share: a cookie is only deleted by the very
 * attributes that it was set with. */
static PyObject *cookie_attributes(cx_interface *self, PyObject *app)
{
    cx_state *state = self->state;
    /* Flask before 3.1 knows no partitioned cookies */
    int partitioned = cx_has_attr((PyObject *)self, state->s.get_cookie_partitioned);
    PyObject *kwargs = partitioned < 0 ? NULL : PyDict_New();
    if (!kwargs ||
        add_from_getter(self, app, kwargs, state->s.get_cookie_domain, state->s.domain) < 0 ||
        add_from_getter(self, app, kwargs, state->s.get_cookie_path, state->s.path) < 0 ||
        add_from_getter(self, app, kwargs, state->s.get_cookie_secure, state->s.secure) < 0 ||
        add_from_getter(self, app, kwargs, state->s.get_cookie_samesite, state->s.samesite) < 0 ||
        add_from_getter(self, app, kwargs, state->s.get_cookie_httponly, state->s.httponly) < 0 ||
        (partitioned && add_from_getter(self, app, kwargs, state->s.get_cookie_partitioned,
                                        state->s.partitioned) < 0)) {
        Py_CLEAR(kwargs);
    }
    return kwargs;
}

/* response.method(name[, value], **kwargs), then Vary and Cache-Control. */
static int send(cx_interface *self, PyObject *app, PyObject *response, PyObject *method,
                PyObject *value, PyObject *kwargs)
{
    cx_state *state = self->state;
    int result = -1;
    PyObject *name = PyObject_CallMethodOneArg((PyObject *)self, state->s.get_cookie_name, app);
    PyObject *bound = name ? PyObject_GetAttr(response, method) : NULL;
    PyObject *args = !bound ? NULL : value ? PyTuple_Pack(2, name, value) : PyTuple_Pack(1, name);
    PyObject *answer = args ? PyObject_Call(bound, args, kwargs) : NULL;
    if (answer) {
        result = cx_response_vary(state, response);
        int changed = result == 0 ? make_private(state, response) : 0;
        if (changed == 1) {
            changed = cx_emit(self, app, CX_EV_made_private, NULL, 0, Py_None);
        }
        if (changed < 0) {
            result = -1;
        }
    }
    Py_XDECREF(answer);
    Py_XDECREF(args);
    Py_XDECREF(bound);
    Py_XDECREF(name);
    return result;
}

/* The cookie's value: the sid, signed where that is configured. */
static PyObject *cookie_text(cx_interface *self, PyObject *app, cx_session *session)
{
    cession_error err = CESSION_ERROR_INIT;
    const cession_signer *signer = NULL;
    /* First what runs Python code, which may give the session another C session. */
    if (self->use_signer && cx_interface_signer(self, app, &signer) < 0) {
        return NULL;
    }
    size_t len;
    const char *sid = cession_session_sid(session->core, &len);
    if (!self->use_signer) {
        return PyUnicode_FromStringAndSize(sid, (Py_ssize_t)len);
    }
    if (!signer) {
        PyErr_SetString(PyExc_KeyError, "SECRET_KEY must be set when SESSION_USE_SIGNER is True");
        return NULL;
    }
    cession_buf out;
    cession_buf_init(&out, CESSION_SIGNED_MAX);
    int status = cession_signer_sign(signer, cession_span_of(sid, len), &out, &err);
    PyObject *text = status == CESSION_OK
                         ? PyUnicode_FromStringAndSize((char *)out.data, (Py_ssize_t)out.len)
                         : cx_raise(self->state, status, &err);
    cession_buf_release(&out);
    return text;
}

/* The shortcut, where nothing is overridden: 1, 0, -1 as in headers.c. */
static int set_cookie_fast(cx_interface *self, PyObject *app, cx_session *session,
                           PyObject *response, PyObject *text)
{
    int64_t expires_in_us = -1;
    if (self->overrides.getters || self->overrides.expiration) {
        return 0;
    }
    int permanent = cx_session_permanent(session);
    if (permanent < 0 || (permanent && cx_lifetime_us(self->state, app, &expires_in_us) < 0)) {
        return -1;
    }
    PyObject *config = PyObject_GetAttr(app, self->state->s.config);
    int result = config ? cx_fast_set_cookie(self, config, response, text, expires_in_us) : -1;
    Py_XDECREF(config);
    return result == 1 && cx_response_vary(self->state, response) < 0 ? -1 : result;
}

int cx_response_set_cookie(cx_interface *self, PyObject *app, cx_session *session,
                           PyObject *response)
{
    cx_state *state = self->state;
    int result = -1;
    PyObject *text = cookie_text(self, app, session);
    int fast = text ? set_cookie_fast(self, app, session, response, text) : -1;
    if (fast != 0) {
        Py_XDECREF(text);
        return fast < 0 ? -1 : 0;
    }
    PyObject *kwargs = text ? cookie_attributes(self, app) : NULL;
    PyObject *expires = kwargs ? PyObject_CallMethodObjArgs((PyObject *)self,
                                                            state->s.get_expiration_time, app,
                                                            (PyObject *)session, NULL)
                               : NULL;
    if (expires && PyDict_SetItem(kwargs, state->s.expires, expires) == 0) {
        result = send(self, app, response, state->s.set_cookie, text, kwargs);
    }
    Py_XDECREF(expires);
    Py_XDECREF(kwargs);
    Py_XDECREF(text);
    return result;
}

static int delete_cookie_fast(cx_interface *self, PyObject *app, PyObject *response)
{
    PyObject *config = PyObject_GetAttr(app, self->state->s.config);
    int result = config ? cx_fast_delete_cookie(self, config, response) : -1;
    Py_XDECREF(config);
    return result == 1 && cx_response_vary(self->state, response) < 0 ? -1 : result;
}

int cx_response_delete_cookie(cx_interface *self, PyObject *app, PyObject *response)
{
    int fast = delete_cookie_fast(self, app, response);
    if (fast != 0) {
        return fast < 0 ? -1 : 0;
    }
    PyObject *kwargs = cookie_attributes(self, app);
    if (!kwargs) {
        return -1;
    }
    int result = send(self, app, response, self->state->s.delete_cookie, NULL, kwargs);
    Py_DECREF(kwargs);
    return result;
}
