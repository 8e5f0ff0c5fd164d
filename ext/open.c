/* Opening: from the request's cookie to a session, without I/O where that is safe. */
#include "core.h"

/* ---- the signer, cached per key ------------------------------------------------------- */

static int key_span(PyObject *key, cession_span *ret_span)
{
    if (PyBytes_Check(key)) {
        *ret_span = cession_span_of(PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key));
        return 0;
    }
    if (PyUnicode_Check(key)) {
        Py_ssize_t len;
        const char *text = PyUnicode_AsUTF8AndSize(key, &len);
        *ret_span = cession_span_of(text, (size_t)(text ? len : 0));
        return text ? 0 : -1;
    }
    PyErr_Format(PyExc_TypeError,
                 "SECRET_KEY and SECRET_KEY_FALLBACKS must be str or bytes, not %s",
                 Py_TYPE(key)->tp_name);
    return -1;
}

#define CX_FALLBACKS_MAX 63

static int signer_make(cx_interface *self, PyObject *secret, PyObject *fallbacks)
{
    cession_span keys[CX_FALLBACKS_MAX + 1];
    cession_error err = CESSION_ERROR_INIT;
    cession_signer *signer;
    PyObject *list = NULL;
    Py_ssize_t count = 0;
    if (fallbacks != Py_None) {
        list = PySequence_Fast(fallbacks, "SECRET_KEY_FALLBACKS must be a list of keys");
        if (!list) {
            return -1;
        }
        count = PySequence_Fast_GET_SIZE(list);
    }
    int result = -1;
    if (count > CX_FALLBACKS_MAX) {
        PyErr_Format(PyExc_ValueError, "SECRET_KEY_FALLBACKS holds more than %d keys",
                     CX_FALLBACKS_MAX);
    } else if (key_span(secret, &keys[0]) == 0) {
        result = 0;
        for (Py_ssize_t i = 0; i < count && result == 0; i++) {
            result = key_span(PySequence_Fast_GET_ITEM(list, i), &keys[i + 1]);
        }
    }
    if (result == 0) {
        int status = cession_signer_new(keys, (size_t)count + 1, &signer, &err);
        if (status < 0) {
            cx_raise(self->state, status, &err);
            result = -1;
        } else {
            cession_signer_free(self->signer);
            self->signer = signer;
            Py_XSETREF(self->signer_secret, Py_NewRef(secret));
            /* a copy: a list that the application changes later must not look the same */
            PyObject *copy = fallbacks == Py_None ? Py_NewRef(Py_None) : PySequence_Tuple(list);
            Py_XSETREF(self->signer_fallbacks, copy);
            result = copy ? 0 : -1;
        }
    }
    Py_XDECREF(list);
    return result;
}

static int same_fallbacks(cx_interface *self, PyObject *fallbacks)
{
    if (fallbacks == Py_None || self->signer_fallbacks == Py_None) {
        return fallbacks == self->signer_fallbacks;
    }
    PyObject *now = PySequence_Tuple(fallbacks);
    if (!now) {
        return -1;
    }
    int same = PyObject_RichCompareBool(now, self->signer_fallbacks, Py_EQ);
    Py_DECREF(now);
    return same;
}

int cx_interface_signer(cx_interface *self, PyObject *app, const cession_signer **ret_signer)
{
    cx_state *state = self->state;
    *ret_signer = NULL;
    PyObject *secret = PyObject_GetAttr(app, state->s.secret_key);
    if (!secret) {
        return -1;
    }
    int truth = PyObject_IsTrue(secret);
    PyObject *config = truth == 1 ? PyObject_GetAttr(app, state->s.config) : NULL;
    if (!config) {
        Py_DECREF(secret);
        return truth == 0 ? 0 : -1;
    }
    PyObject *fallbacks = PyMapping_GetItemString(config, "SECRET_KEY_FALLBACKS");
    Py_DECREF(config);
    if (!fallbacks) { /* Flask before 3.1 has no such key */
        if (!PyErr_ExceptionMatches(PyExc_KeyError)) {
            Py_DECREF(secret);
            return -1;
        }
        PyErr_Clear();
        fallbacks = Py_NewRef(Py_None);
    }
    int result = 0;
    int same = self->signer && self->signer_secret && self->signer_fallbacks
                   ? PyObject_RichCompareBool(secret, self->signer_secret, Py_EQ)
                   : 0;
    if (same == 1) {
        same = same_fallbacks(self, fallbacks);
    }
    if (same < 0 || (same == 0 && signer_make(self, secret, fallbacks) < 0)) {
        result = -1;
    } else {
        *ret_signer = self->signer;
    }
    Py_DECREF(secret);
    Py_DECREF(fallbacks);
    return result;
}

/* ---- the cookie --------------------------------------------------------------------------- */

/* What the request brought. */
typedef struct incoming {
    PyObject *text;            /* str of the cookie's value, or NULL */
    cession_cookie_sid cookie; /* lies in `text` */
} incoming;

/* The cookie's value, a new reference; None or a str. */
static PyObject *cookie_value(cx_interface *self, PyObject *app, PyObject *request)
{
    cx_state *state = self->state;
    PyObject *found = NULL;
    PyObject *config = PyObject_GetAttr(app, state->s.config);
    int fast = config ? cx_fast_cookie(self, config, request, &found) : -1;
    Py_XDECREF(config);
    if (fast != 0) {
        return fast < 0 ? NULL : found ? found : Py_NewRef(Py_None);
    }
    PyObject *name = PyObject_CallMethodOneArg((PyObject *)self, state->s.get_cookie_name, app);
    PyObject *cookies = name ? PyObject_GetAttr(request, state->s.cookies) : NULL;
    PyObject *value = cookies ? PyObject_CallMethodOneArg(cookies, state->s.get, name) : NULL;
    Py_XDECREF(cookies);
    Py_XDECREF(name);
    return value;
}

/* Judge the cookie: signature first, then syntax. 0, or -1 with an exception; in->text is the
 * caller's to release either way. */
static int read_incoming(cx_interface *self, PyObject *app, PyObject *request, incoming *in)
{
    cession_error err = CESSION_ERROR_INIT;
    Py_ssize_t len;
    memset(in, 0, sizeof *in);
    PyObject *value = cookie_value(self, app, request);
    if (!value) {
        return -1;
    }
    if (!PyUnicode_Check(value) || PyUnicode_GET_LENGTH(value) == 0) {
        Py_DECREF(value);
        return 0;
    }
    in->text = value;
    if (!PyUnicode_IS_ASCII(value)) { /* no sid or signature has other characters */
        in->cookie.refused = true;
        return 0;
    }
    const char *text = PyUnicode_AsUTF8AndSize(value, &len);
    if (!text) {
        return -1;
    }
    /* A signature is looked at where it is asked for, and otherwise where a dot says that
     * there may be one. */
    const cession_signer *signer = NULL;
    if (self->use_signer || memchr(text, '.', (size_t)len)) {
        if (cx_interface_signer(self, app, &signer) < 0) {
            return -1;
        }
        if (!signer && self->use_signer) {
            PyErr_SetString(PyExc_KeyError,
                            "SECRET_KEY must be set when SESSION_USE_SIGNER is True");
            return -1;
        }
    }
    int status = cession_cookie_read(cession_span_of(text, (size_t)len), signer, self->use_signer,
                                     self->overrides.generate_sid, &in->cookie, &err);
    if (status != CESSION_OK) {
        cx_raise(self->state, status, &err);
        return -1;
    }
    return 0;
}

/* A cookie that holds no id may be a session of another kind: the interface says under which id
 * that is to be found. An application's own ids may look like one. */
static int import_incoming(cx_interface *self, PyObject *app, incoming *in)
{
    if (!self->imports_cookies || !in->text ||
        !(in->cookie.refused || self->overrides.generate_sid)) {
        return 0;
    }
    PyObject *sid = PyObject_CallMethodObjArgs((PyObject *)self, self->state->s._import_cookie, app,
                                               in->text, NULL);
    Py_ssize_t len = 0;
    const char *text = sid && sid != Py_None ? PyUnicode_AsUTF8AndSize(sid, &len) : NULL;
    if (!text) {
        Py_XDECREF(sid);
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_SETREF(in->text, sid);
    in->cookie = (cession_cookie_sid){
        .sid = cession_span_of(text, (size_t)len),
        .old_signature = true, /* the id is to be sent in the cookie's place */
    };
    return 0;
}

/* ---- lazy or not ------------------------------------------------------------------------------
 */

/* May the load wait until Flask sets `accessed`? Only when Flask is certain to do so
 * before anybody gets the session: our own methods in the application's own interface,
 * and the current context is this request's and has no session yet. Anything else, and
 * anything that goes wrong here, means: no. */
static bool may_be_lazy(cx_interface *self, PyObject *app, PyObject *request)
{
    cx_state *state = self->state;
    PyObject *context = NULL;
    bool lazy = false;
    if (!self->lazy || self->overrides.lazy_unsafe) {
        return false;
    }
    PyObject *interface = PyObject_GetAttr(app, state->s.session_interface);
    bool own = interface == (PyObject *)self;
    Py_XDECREF(interface);
    if (own && PyContextVar_Get(state->context_var, NULL, &context) == 0 && context) {
        PyObject *its_request = PyObject_GetAttr(context, state->s.request);
        PyObject *its_session = its_request ? PyObject_GetAttr(context, state->s._session) : NULL;
        lazy = its_request == request && its_session == Py_None;
        Py_XDECREF(its_request);
        Py_XDECREF(its_session);
        Py_DECREF(context);
    }
    PyErr_Clear();
    return lazy;
}

/* ---- open ---------------------------------------------------------------------------------------
 */

static cx_session *make_object(cx_interface *self)
{
    PyTypeObject *type = (PyTypeObject *)self->session_class;
    if (!self->plain_session_class) {
        PyObject *made = PyObject_CallNoArgs(self->session_class);
        if (made && !cx_session_check(self->state, made)) {
            PyErr_SetString(PyExc_TypeError, "session_class() did not give a session");
            Py_CLEAR(made);
        } else if (made && ((cx_session *)made)->core) {
            /* Another request's, perhaps another visitor's. */
            PyErr_SetString(PyExc_TypeError, "session_class() gave a session that is in use");
            Py_CLEAR(made);
        }
        return (cx_session *)made;
    }
    cx_session *session = (cx_session *)type->tp_new(type, self->no_args, NULL);
    return session;
}

PyObject *cx_open_session(cx_interface *self, PyObject *app, PyObject *request)
{
    cession_error err = CESSION_ERROR_INIT;
    incoming in = {0};
    cx_session *session = NULL;
    cession_session *core;
    if (cx_interface_overrides(self) < 0 || read_incoming(self, app, request, &in) < 0 ||
        import_incoming(self, app, &in) < 0) {
        Py_XDECREF(in.text);
        return NULL;
    }
    /* _generate_sid and the session class may put another flow into the interface. */
    cx_flow *flow = cx_flow_ref(self->flow);
    int status = cession_session_open(flow->flow, in.cookie.sid, &core, &err);
    if (status < 0) {
        cx_raise(self->state, status, &err);
        cx_flow_unref(flow);
        Py_XDECREF(in.text);
        return NULL;
    }
    session = make_object(self);
    if (!session) {
        cession_session_free(core);
        cx_flow_unref(flow);
        Py_XDECREF(in.text);
        return NULL;
    }
    session->core = core;
    session->flow = flow;
    session->load_state = CX_UNLOADED;
    session->old_signature = in.cookie.old_signature;
    Py_CLEAR(session->sid);
    Py_XSETREF(session->interface, (cx_interface *)Py_NewRef((PyObject *)self));
    Py_XSETREF(session->app, Py_NewRef(app));
    if (in.cookie.refused) {
        Py_ssize_t len = 0;
        const char *text = PyUnicode_IS_ASCII(in.text) ? PyUnicode_AsUTF8AndSize(in.text, &len)
                                                       : NULL;
        if (cx_emit(self, app, CX_EV_rejected, text, (size_t)len, Py_None) < 0) {
            Py_CLEAR(session);
        }
    }
    Py_XDECREF(in.text);
    if (session && may_be_lazy(self, app, request)) {
        if (cx_session_mark(session) < 0) {
            Py_CLEAR(session);
        }
    } else if (session && cx_session_load_slow(session) < 0) {
        if (session->load_state == CX_FAILED && PyErr_ExceptionMatches(PyExc_Exception)) {
            /* The session remembers it and raises it where it is used: a route that does
             * not need the session answers, and an error handler can. */
            PyErr_Clear();
        } else {
            Py_CLEAR(session);
        }
    }
    return (PyObject *)session;
}

int cx_session_reopen(cx_session *self)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_session *core;
    if (cx_core_enter(self) < 0) {
        return -1;
    }
    size_t len;
    const char *sid = cession_session_sid(self->core, &len);
    if (self->stored_sid) { /* a new id that is not saved goes like any unsaved change */
        sid = PyUnicode_DATA(self->stored_sid);
        len = (size_t)PyUnicode_GET_LENGTH(self->stored_sid);
    }
    cx_flow *flow = cx_flow_ref(self->interface->flow ? self->interface->flow : self->flow);
    int status = cession_session_open(flow->flow, cession_span_of(sid, len), &core, &err);
    if (status == CESSION_OK) {
        cession_session_free(self->core);
        self->core = core;
        cx_flow *before = self->flow;
        self->flow = flow;
        flow = before;
        Py_CLEAR(self->stored_sid);
        Py_CLEAR(self->sid);
        self->lost = false;
        self->load_state = CX_UNLOADED;
        self->modified = false;
        self->degraded = false;
        self->save_failed = false;
        PyDict_Clear((PyObject *)self);
        if (cx_session_mark(self) < 0) {
            PyErr_Clear(); /* it is loaded next, before anything else can look */
        }
    } else {
        cx_raise(self->state, status, &err);
    }
    cx_core_leave(self);
    cx_flow_unref(flow);
    return status == CESSION_OK ? 0 : -1;
}
