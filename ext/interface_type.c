/* flask_session._core.Interface: the C base of every session interface. Flask calls
 * open_session and save_session on it; its Python subclasses add names, the getters
 * of flask.sessions.SessionInterface and configuration.
 */
#include "core.h"

#include <stddef.h>
#include <structmember.h>

/* ---- what a subclass overrides ----------------------------------------------------- */

/* The attribute as the class sees it, without binding. Borrowed, NULL: none. */
static PyObject *class_attr(PyTypeObject *type, PyObject *name)
{
    PyObject *mro = type->tp_mro;
    for (Py_ssize_t i = 0; mro && i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        /* tp_dict of a static builtin type is NULL from 3.12 on; none of those matter here */
        PyObject *found = base->tp_dict ? PyDict_GetItemWithError(base->tp_dict, name) : NULL;
        if (found) {
            return found;
        }
    }
    return NULL;
}

/* Is `name` on this instance something else than on the C type (for our methods), or
 * than what the package's own base class has? */
static bool differs(cx_interface *self, PyObject *name, PyObject *ours)
{
    PyObject **dict = _PyObject_GetDictPtr((PyObject *)self);
    if (dict && *dict && PyDict_GetItemWithError(*dict, name)) {
        return true;
    }
    return class_attr(Py_TYPE(self), name) != ours;
}

static PyObject *own_attr(cx_interface *self, PyObject *name)
{
    return class_attr(self->state->interface_type, name);
}

/* Defined by the class that marks itself as the package's (attribute
 * `_cession_defaults`: a dict of name -> function, see base.py). Borrowed. */
static PyObject *default_attr(cx_interface *self, PyObject *name)
{
    return self->defaults ? PyDict_GetItemWithError(self->defaults, name) : NULL;
}

int cx_interface_overrides(cx_interface *self)
{
    cx_overrides *o = &self->overrides;
    unsigned version = Py_TYPE(self)->tp_version_tag;
    if (o->type_version != 0 && o->type_version == version) {
        return 0;
    }
    cx_state *state = self->state;
    o->should_set_cookie = differs(self, state->s.should_set_cookie,
                                   default_attr(self, state->s.should_set_cookie));
    o->should_set_storage = differs(self, state->s.should_set_storage,
                                    default_attr(self, state->s.should_set_storage));
    o->generate_sid = differs(self, state->s._generate_sid,
                              default_attr(self, state->s._generate_sid));
    o->lazy_unsafe = o->should_set_cookie || o->should_set_storage ||
                     differs(self, state->s.open_session, own_attr(self, state->s.open_session)) ||
                     differs(self, state->s.save_session, own_attr(self, state->s.save_session)) ||
                     differs(self, state->s.is_null_session,
                             own_attr(self, state->s.is_null_session));
    PyObject *const getters[] = {
        state->s.get_cookie_name,        state->s.get_cookie_domain,   state->s.get_cookie_path,
        state->s.get_cookie_secure,      state->s.get_cookie_httponly, state->s.get_cookie_samesite,
        state->s.get_cookie_partitioned,
    };
    o->getters = false;
    for (size_t i = 0; i < sizeof getters / sizeof *getters; i++) {
        o->getters = o->getters || differs(self, getters[i], default_attr(self, getters[i]));
    }
    o->expiration = differs(self, state->s.get_expiration_time,
                            default_attr(self, state->s.get_expiration_time));
    o->type_version = version;
    return PyErr_Occurred() ? -1 : 0;
}

/* ---- configuration --------------------------------------------------------------------- */

static int generate_sid(void *context, char ret_sid[CESSION_SID_MAX + 1], size_t *ret_len,
                        cession_error *err)
{
    cx_interface *self = context;
    if (cx_interface_overrides(self) < 0) {
        return cession_fail(err, CESSION_E_CALLBACK, "_generate_sid failed");
    }
    if (!self->overrides.generate_sid) {
        return cession_sid_generate((size_t)self->sid_length, ret_sid, ret_len, err);
    }
    PyObject *length = PyLong_FromSsize_t(self->sid_length);
    PyObject *sid = length ? PyObject_CallMethodOneArg((PyObject *)self,
                                                       self->state->s._generate_sid, length)
                           : NULL;
    Py_XDECREF(length);
    Py_ssize_t len = 0;
    const char *text = sid ? PyUnicode_AsUTF8AndSize(sid, &len) : NULL;
    int status = CESSION_OK;
    if (!text) {
        status = cession_fail(err, CESSION_E_CALLBACK, "_generate_sid failed");
    } else if (!cession_sid_valid(cession_span_of(text, (size_t)len), true)) {
        PyErr_SetString(PyExc_ValueError, "_generate_sid must return 1 to 256 characters of "
                                          "printable ASCII that need no quoting in a cookie");
        status = cession_fail(err, CESSION_E_CALLBACK, "_generate_sid failed");
    } else {
        memcpy(ret_sid, text, (size_t)len + 1);
        *ret_len = (size_t)len;
    }
    Py_XDECREF(sid);
    return status;
}

static int parse_seconds(PyObject *value, const char *what, int64_t *ret_ms)
{
    if (cx_seconds_to_ms(value, ret_ms) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
            PyErr_Format(PyExc_ValueError, "%s must be a number of seconds", what);
        }
        return -1;
    }
    return 0;
}

cx_flow *cx_flow_ref(cx_flow *flow)
{
    flow->refs++;
    return flow;
}

void cx_flow_unref(cx_flow *flow)
{
    if (flow && --flow->refs == 0) {
        cession_flow_free(flow->flow);
        cx_flow_codec_release(&flow->codec);
        flow->store->users--;
        Py_DECREF(flow->store);
        PyMem_Free(flow);
    }
}

/* A flow over this codec, which becomes its own also when this fails. */
static int make_flow(cx_interface *self, const cx_flow_codec *codec)
{
    cession_error err = CESSION_ERROR_INIT;
    cx_flow *made = PyMem_Calloc(1, sizeof *made);
    if (!made) {
        cx_flow_codec_release((cx_flow_codec[]){*codec});
        PyErr_NoMemory();
        return -1;
    }
    made->refs = 1;
    made->codec = *codec;
    made->store = (cx_store *)Py_NewRef((PyObject *)self->store);
    made->store->users++;
    cession_flow_config config = {
        .store = self->store->store,
        .codec = &made->codec.base,
        .sid_bytes = (size_t)self->sid_length,
        .generate_sid = generate_sid,
        .generate_context = self,
        .any_printable_sid = self->overrides.generate_sid,
        .touch_interval_ms = self->touch_interval_ms,
        .raise_on_conflict = self->raise_on_conflict,
        .caller_validates = true,
    };
    int status = cession_flow_new(&config, &made->flow, &err);
    if (status < 0) {
        cx_raise(self->state, status, &err);
        cx_flow_unref(made);
        return -1;
    }
    cx_flow *before = self->flow;
    self->flow = made;
    cx_flow_unref(before);
    return 0;
}

/* Our format of this name. */
static int parse_format(cx_interface *self, PyObject *name, cx_flow_codec *ret_codec)
{
    if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "json") == 0) {
        cx_flow_codec_init_json(ret_codec, &self->state->codec);
        return 0;
    }
    if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "msgpack") == 0) {
        cx_flow_codec_init(ret_codec, &self->state->codec);
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, "serialization_format is \"msgpack\" or \"json\"");
    return -1;
}

/* `serializer` was assigned: from now on sessions are opened with it. */
static int use_serializer(cx_interface *self, PyObject *serializer)
{
    cx_flow_codec codec;
    if (Py_TYPE(serializer) == self->serializer_class) {
        PyObject *name = PyObject_GetAttr(serializer, self->state->s.format);
        int result = name ? parse_format(self, name, &codec) : -1;
        Py_XDECREF(name);
        if (result < 0) {
            return -1;
        }
    } else if (cx_flow_codec_init_custom(&codec, &self->state->codec, serializer) < 0) {
        return -1;
    }
    return make_flow(self, &codec);
}

/* A method put on the instance counts like one of a subclass. */
static int interface_setattro(PyObject *obj, PyObject *name, PyObject *value)
{
    cx_interface *self = (cx_interface *)obj;
    self->overrides.type_version = 0;
    if (value && self->flow && PyUnicode_Check(name) &&
        PyUnicode_Compare(name, self->state->s.serializer) == 0 &&
        use_serializer(self, value) < 0) {
        return -1;
    }
    return PyObject_GenericSetAttr(obj, name, value);
}

/* The session class is ours or adds nothing to construction: made without calling it. */
static bool plain_class(cx_state *state, PyObject *session_class)
{
    PyTypeObject *type = (PyTypeObject *)session_class;
    return type->tp_init == state->session_type->tp_init &&
           type->tp_new == state->session_type->tp_new;
}

/* Do instances hear of it when Flask sets their `accessed`? Not where the class has an
 * attribute of its own by that name, or sets attributes in its own way. */
static bool hears_of_access(cx_state *state, PyObject *session_class)
{
    PyTypeObject *type = (PyTypeObject *)session_class;
    return type->tp_setattro == state->session_type->tp_setattro &&
           class_attr(type, state->s.accessed) ==
               class_attr(state->session_type, state->s.accessed);
}

static PyObject *interface_configure(cx_interface *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"store",
                            "session_class",
                            "key_prefix",
                            "permanent",
                            "use_signer",
                            "sid_length",
                            "serialization_format",
                            "touch_interval",
                            "conflict",
                            "on_store_error",
                            "strict_types",
                            "timeout",
                            "lazy",
                            "events",
                            "defaults",
                            "serializer_class",
                            "imports_cookies",
                            NULL};
    cx_state *state = cx_state_of_type(Py_TYPE(self));
    PyObject *store, *session_class, *touch_interval = Py_None, *timeout = NULL;
    PyObject *events = Py_None, *defaults = Py_None, *key_prefix = NULL, *format = NULL;
    PyObject *serializer_class = NULL;
    cx_flow_codec codec;
    int permanent = 1, use_signer = 0, strict_types = 0, lazy = 0, imports_cookies = 0;
    Py_ssize_t sid_length = CESSION_SID_BYTES_DEFAULT;
    const char *conflict = "merge", *on_store_error = "raise";
    int64_t touch_interval_ms = -1, timeout_ms = 2000;
    if (!state ||
        !PyArg_ParseTupleAndKeywords(
            args, kwargs, "O!O!|$UppnOOsspOpOOO!p:_configure", names, state->store_type, &store,
            &PyType_Type, &session_class, &key_prefix, &permanent, &use_signer, &sid_length,
            &format, &touch_interval, &conflict, &on_store_error, &strict_types, &timeout, &lazy,
            &events, &defaults, &PyType_Type, &serializer_class, &imports_cookies)) {
        return NULL;
    }
    if (self->store) {
        PyErr_SetString(PyExc_RuntimeError, "this interface is configured already");
        return NULL;
    }
    if (!((cx_store *)store)->store) {
        PyErr_SetString(PyExc_ValueError, "the store is closed");
        return NULL;
    }
    if (!PyType_IsSubtype((PyTypeObject *)session_class, state->session_type)) {
        PyErr_SetString(PyExc_TypeError,
                        "session_class must derive from flask_session.base.ServerSideSession");
        return NULL;
    }
    if ((touch_interval != Py_None &&
         parse_seconds(touch_interval, "touch_interval", &touch_interval_ms) < 0) ||
        (timeout && parse_seconds(timeout, "timeout", &timeout_ms) < 0)) {
        return NULL;
    }
    bool raise_on_conflict = strcmp(conflict, "raise") == 0;
    if ((!raise_on_conflict && strcmp(conflict, "merge") != 0) ||
        (strcmp(on_store_error, "raise") != 0 && strcmp(on_store_error, "empty") != 0 &&
         strcmp(on_store_error, "503") != 0)) {
        PyErr_SetString(PyExc_ValueError,
                        "conflict is \"merge\" or \"raise\", on_store_error \"raise\", \"empty\" "
                        "or \"503\"");
        return NULL;
    }
    if (sid_length < (Py_ssize_t)CESSION_SID_BYTES_MIN ||
        sid_length > (Py_ssize_t)CESSION_SID_BYTES_MAX) {
        PyErr_Format(PyExc_ValueError, "sid_length must be %d to %d bytes",
                     (int)CESSION_SID_BYTES_MIN, (int)CESSION_SID_BYTES_MAX);
        return NULL;
    }
    PyObject *signals = NULL;
    if (events != Py_None) {
        signals = PyObject_GetAttr(events, state->s.signals);
        if (!signals || !PyDict_Check(signals)) {
            Py_XDECREF(signals);
            PyErr_SetString(PyExc_TypeError, "events needs a dict `signals` and a method emit()");
            return NULL;
        }
    }
    if (!self->no_args && !(self->no_args = PyTuple_New(0))) {
        Py_XDECREF(signals);
        return NULL;
    }
    self->state = state;
    self->permanent = permanent;
    self->use_signer = use_signer;
    self->strict_types = strict_types;
    self->imports_cookies = imports_cookies;
    self->lazy = lazy && state->context_var && hears_of_access(state, session_class);
    self->touch_interval_ms = touch_interval_ms;
    self->raise_on_conflict = raise_on_conflict;
    self->sid_length = sid_length;
    self->timeout_ms = timeout_ms;
    self->on_store_error = on_store_error[0];
    self->plain_session_class = plain_class(state, session_class);
    Py_XSETREF(self->signals, signals);
    Py_XSETREF(self->session_class, Py_NewRef(session_class));
    Py_XSETREF(self->events, events == Py_None ? NULL : Py_NewRef(events));
    Py_XSETREF(self->key_prefix, key_prefix ? Py_NewRef(key_prefix) : PyUnicode_New(0, 0));
    Py_XSETREF(self->defaults, defaults == Py_None ? NULL : Py_NewRef(defaults));
    if (self->defaults && !PyDict_Check(self->defaults)) {
        PyErr_SetString(PyExc_TypeError, "defaults must be a dict");
        return NULL;
    }
    self->overrides.type_version = 0;
    if (cx_interface_overrides(self) < 0) {
        return NULL;
    }
    Py_XSETREF(self->serializer_class, (PyTypeObject *)Py_XNewRef(serializer_class));
    if (format) {
        if (parse_format(self, format, &codec) < 0) {
            return NULL;
        }
    } else {
        cx_flow_codec_init(&codec, &state->codec);
    }
    self->store = (cx_store *)Py_NewRef(store);
    if (make_flow(self, &codec) < 0) {
        Py_CLEAR(self->store);
        return NULL;
    }
    Py_RETURN_NONE;
}

static int configured(cx_interface *self)
{
    if (!self->flow) {
        PyErr_SetString(PyExc_RuntimeError, "this session interface is not configured");
        return -1;
    }
    return 0;
}

/* ---- what Flask calls --------------------------------------------------------------------- */

static PyObject *interface_open_session(cx_interface *self, PyObject *const *args, Py_ssize_t nargs,
                                        PyObject *kwnames)
{
    static const char usage[] = "open_session(app, request)";
    if (kwnames || nargs != 2) {
        PyErr_SetString(PyExc_TypeError, usage);
        return NULL;
    }
    return configured(self) < 0 ? NULL : cx_open_session(self, args[0], args[1]);
}

static PyObject *interface_save_session(cx_interface *self, PyObject *const *args, Py_ssize_t nargs,
                                        PyObject *kwnames)
{
    if (kwnames || nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "save_session(app, session, response)");
        return NULL;
    }
    if (configured(self) < 0) {
        return NULL;
    }
    if (!cx_session_check(self->state, args[1])) {
        PyErr_Format(PyExc_TypeError,
                     "save_session needs the session that open_session returned, not %s",
                     Py_TYPE(args[1])->tp_name);
        return NULL;
    }
    if (cx_save_session(self, args[0], (cx_session *)args[1], args[2]) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Flask asks this in every request, after the view and with the raw session. */
static PyObject *interface_is_null_session(PyObject *self, PyObject *session)
{
    cx_state *state = ((cx_interface *)self)->state;
    if (state && cx_session_check(state, session)) {
        Py_RETURN_FALSE;
    }
    state = cx_state_of_type(Py_TYPE(self));
    PyObject *null_class = state ? PyObject_GetAttr(self, state->s.null_session_class) : NULL;
    if (!null_class) {
        return NULL;
    }
    int result = PyObject_IsInstance(session, null_class);
    Py_DECREF(null_class);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

static PyObject *interface_regenerate(cx_interface *self, PyObject *session)
{
    if (configured(self) < 0) {
        return NULL;
    }
    return PyObject_CallMethodNoArgs(session, self->state->s.regenerate);
}

static PyObject *interface_counts(cx_interface *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = PyDict_New();
    cx_state *state = cx_state_of_type(Py_TYPE(self));
    for (size_t i = 0; state && result && i < CX_EV_COUNT; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(self->counts[i]);
        if (!count || PyDict_SetItem(result, state->event_names[i], count) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(count);
    }
    return state ? result : NULL;
}

static PyObject *interface_encode(cx_interface *self, PyObject *session)
{
    cession_buf out;
    PyObject *made = NULL;
    /* A session that is not loaded yet loads when its length is asked for. */
    if (configured(self) < 0 || (PyDict_Check(session) && PyObject_Size(session) < 0)) {
        return NULL;
    }
    cession_buf_init(&out, CESSION_VALUE_MAX);
    cx_flow *flow = cx_flow_ref(self->flow); /* the serializer may be replaced meanwhile */
    if (cx_flow_encode(&flow->codec, session, self->strict_types, &out) == 0) {
        made = PyBytes_FromStringAndSize((const char *)out.data, (Py_ssize_t)out.len);
    }
    cx_flow_unref(flow);
    cession_buf_release(&out);
    return made;
}

static PyObject *interface_decode(cx_interface *self, PyObject *value)
{
    Py_buffer buffer;
    bool canonical;
    if (configured(self) < 0 || PyObject_GetBuffer(value, &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *made = PyDict_New();
    cx_flow *flow = cx_flow_ref(self->flow);
    int result = made
                     ? cx_flow_decode(&flow->codec, cession_span_of(buffer.buf, (size_t)buffer.len),
                                      made, &canonical)
                     : -1;
    cx_flow_unref(flow);
    PyBuffer_Release(&buffer);
    if (result == 0) {
        PyErr_SetString(PyExc_ValueError, "these bytes are no session");
    }
    if (result != 1) {
        Py_CLEAR(made);
    }
    return made;
}

/* For the tests that compare the shortcut with werkzeug over generated headers. */
static PyObject *interface_read_cookie(cx_interface *self, PyObject *args)
{
    PyObject *app, *request, *value = NULL;
    if (!PyArg_ParseTuple(args, "OO:_read_cookie", &app, &request) || configured(self) < 0 ||
        cx_interface_overrides(self) < 0) {
        return NULL;
    }
    PyObject *config = PyObject_GetAttr(app, self->state->s.config);
    int done = config ? cx_fast_cookie(self, config, request, &value) : -1;
    Py_XDECREF(config);
    if (done < 0) {
        return NULL;
    }
    return Py_BuildValue("(NN)", PyBool_FromLong(done), value ? value : Py_NewRef(Py_None));
}

/* ---- life ------------------------------------------------------------------------------------ */

static int interface_traverse(cx_interface *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->store);
    Py_VISIT(self->session_class);
    Py_VISIT(self->events);
    Py_VISIT(self->signals);
    Py_VISIT(self->defaults);
    Py_VISIT(self->serializer_class);
    if (self->flow) { /* held once, by the flow, however many sessions share it */
        Py_VISIT(self->flow->store);
        Py_VISIT(self->flow->codec.dumps);
        Py_VISIT(self->flow->codec.loads);
    }
    Py_VISIT(self->signer_secret);
    Py_VISIT(self->signer_fallbacks);
    for (size_t i = 0; i < CX_COOKIE_KINDS; i++) {
        for (size_t j = 0; j < CX_COOKIE_INPUTS; j++) {
            Py_VISIT(self->cookie_template[i].inputs[j]);
        }
    }
    return 0;
}

static int interface_clear(cx_interface *self)
{
    cx_flow *flow = self->flow;
    self->flow = NULL;
    cx_flow_unref(flow);
    cession_signer_free(self->signer);
    self->signer = NULL;
    Py_CLEAR(self->store);
    Py_CLEAR(self->session_class);
    Py_CLEAR(self->no_args);
    Py_CLEAR(self->events);
    Py_CLEAR(self->signals);
    Py_CLEAR(self->key_prefix);
    Py_CLEAR(self->defaults);
    Py_CLEAR(self->serializer_class);
    Py_CLEAR(self->signer_secret);
    Py_CLEAR(self->signer_fallbacks);
    for (size_t i = 0; i < CX_COOKIE_KINDS; i++) {
        Py_CLEAR(self->cookie_template[i].head);
        Py_CLEAR(self->cookie_template[i].middle);
        Py_CLEAR(self->cookie_template[i].tail);
        for (size_t j = 0; j < CX_COOKIE_INPUTS; j++) {
            Py_CLEAR(self->cookie_template[i].inputs[j]);
        }
    }
    return 0;
}

static void interface_dealloc(cx_interface *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)interface_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

#define FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef interface_methods[] = {
    {"open_session", FASTCALL(interface_open_session), METH_FASTCALL | METH_KEYWORDS,
     "open_session(app, request) -> Session\n\nNo store operation where it is safe to wait for "
     "the first use of the session."},
    {"save_session", FASTCALL(interface_save_session), METH_FASTCALL | METH_KEYWORDS,
     "save_session(app, session, response)\n\nDecide, store, and set or delete the cookie."},
    {"is_null_session", interface_is_null_session, METH_O, "is_null_session(session) -> bool"},
    {"regenerate", (PyCFunction)interface_regenerate, METH_O,
     "regenerate(session)\n\nThe same as session.regenerate()."},
    {"_configure", FASTCALL(interface_configure), METH_VARARGS | METH_KEYWORDS,
     "Called once by the constructor of a concrete interface."},
    {"_read_cookie", (PyCFunction)interface_read_cookie, METH_VARARGS,
     "_read_cookie(app, request) -> (done, value)\n\nThe shortcut for request.cookies alone; done "
     "is "
     "False where it steps aside."},
    {"_encode", (PyCFunction)interface_encode, METH_O,
     "_encode(session) -> bytes\n\nThe stored form, by the serializer."},
    {"_decode", (PyCFunction)interface_decode, METH_O,
     "_decode(value) -> dict\n\nThe content of a stored form; ValueError when it is none."},
    {"_counts", (PyCFunction)interface_counts, METH_NOARGS,
     "_counts() -> dict\n\nEvents since the start of this process."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef interface_members[] = {
    {"_store", T_OBJECT, offsetof(cx_interface, store), READONLY, "the Store, or None"},
    {"key_prefix", T_OBJECT, offsetof(cx_interface, key_prefix), 0,
     "what stands before the sid in the store's keys"},
    {"permanent", T_BOOL, offsetof(cx_interface, permanent), 0,
     "whether new sessions are permanent"},
    {"use_signer", T_BOOL, offsetof(cx_interface, use_signer), 0, "whether cookies are signed"},
    {"sid_length", T_PYSSIZET, offsetof(cx_interface, sid_length), 0,
     "bytes of entropy of a new sid"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot interface_slots[] = {
    {Py_tp_doc, "C base of the session interfaces."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_methods, interface_methods},
    {Py_tp_members, interface_members},
    {Py_tp_traverse, interface_traverse},
    {Py_tp_clear, interface_clear},
    {Py_tp_dealloc, interface_dealloc},
    {Py_tp_setattro, interface_setattro},
    {0, NULL},
};

static PyType_Spec interface_spec = {
    .name = "flask_session._core.Interface",
    .basicsize = sizeof(cx_interface),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = interface_slots,
};

int cx_interface_add(PyObject *module, cx_state *state)
{
    state->interface_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &interface_spec, NULL);
    return state->interface_type ? PyModule_AddType(module, state->interface_type) : -1;
}
