/* flask_session._core: the module, its state and its exec slot. */
#include "core.h"

#include "base/os.h"
#include "drivers/drivers.h"

static int intern_names(cx_state *state)
{
#define CX_INTERN(name)                                \
    state->s.name = PyUnicode_InternFromString(#name); \
    if (!state->s.name) {                              \
        return -1;                                     \
    }
    CX_NAMES(CX_INTERN)
#undef CX_INTERN
#define CX_EVENT_INTERN(name)                                             \
    state->event_names[CX_EV_##name] = PyUnicode_InternFromString(#name); \
    if (!state->event_names[CX_EV_##name]) {                              \
        return -1;                                                        \
    }
    CX_EVENTS(CX_EVENT_INTERN)
#undef CX_EVENT_INTERN
    state->cookie_key = PyUnicode_InternFromString("Cookie");
    state->vary_key = PyUnicode_InternFromString("Vary");
    state->set_cookie_key = PyUnicode_InternFromString("Set-Cookie");
    return state->cookie_key && state->vary_key && state->set_cookie_key ? 0 : -1;
}

static PyObject *import_attr(const char *module, const char *name)
{
    PyObject *imported = PyImport_ImportModule(module);
    PyObject *attr = imported ? PyObject_GetAttrString(imported, name) : NULL;
    Py_XDECREF(imported);
    return attr;
}

/* The same, NULL without exception when there is no such attribute. */
static int import_optional(const char *module, const char *name, PyObject **slot)
{
    PyObject *imported = PyImport_ImportModule(module);
    int found = imported ? cx_get_optional_string(imported, name, slot) : -1;
    Py_XDECREF(imported);
    return found < 0 ? -1 : 0;
}

static int import_python_parts(cx_state *state)
{
    state->threading = PyImport_ImportModule("threading");
    state->timedelta_type = import_attr("datetime", "timedelta");
    if (!state->threading || !state->timedelta_type) {
        return -1;
    }
    if (!PyObject_TypeCheck(state->timedelta_type, &PyType_Type)) {
        PyErr_SetString(PyExc_TypeError, "datetime.timedelta is no type");
        return -1;
    }
    /* The variable that holds Flask's request context: Flask keeps it under this name
     * up to 3.1. Without it nothing is lazy. */
    if (import_optional("flask.globals", "_cv_request", &state->context_var) < 0 ||
        import_optional("flask.wrappers", "Request", &state->request_type) < 0 ||
        import_optional("flask.wrappers", "Response", &state->response_type) < 0 ||
        import_optional("werkzeug.datastructures", "Headers", &state->headers_type) < 0 ||
        import_optional("werkzeug.http", "dump_cookie", &state->dump_cookie) < 0) {
        return -1;
    }
    PyObject *flask_type;
    if (import_optional("flask", "Flask", &flask_type) < 0) {
        return -1;
    }
    if (flask_type && PyType_Check(flask_type)) {
        state->lifetime_attr = Py_XNewRef(
            _PyType_Lookup((PyTypeObject *)flask_type, state->s.permanent_session_lifetime));
    }
    Py_XDECREF(flask_type);
    if (state->context_var && !PyContextVar_CheckExact(state->context_var)) {
        Py_CLEAR(state->context_var);
    }
    return 0;
}

static int add_constants(PyObject *module)
{
    static const struct {
        const char *name;
        long value;
    } constants[] = {
        {"OK", CESSION_OK},
        {"GONE", CESSION_GONE},
        {"CHANGED", CESSION_CHANGED},
        {"CAP_NATIVE_TTL", CESSION_CAP_NATIVE_TTL},
        {"CAP_GIVES_EXPIRY", CESSION_CAP_GIVES_EXPIRY},
        {"CAP_ATOMIC", CESSION_CAP_ATOMIC},
        {"CAP_LISTABLE", CESSION_CAP_LISTABLE},
        {"CAP_FAST", CESSION_CAP_FAST},
        {"CAP_HASHED_KEYS", CESSION_CAP_HASHED_KEYS},
        {"CAP_MAINTAIN", CESSION_CAP_MAINTAIN},
        {"EXPIRES_NEVER", CESSION_EXPIRES_NEVER},
        {"SID_BYTES_MIN", CESSION_SID_BYTES_MIN},
        {"SID_BYTES_MAX", CESSION_SID_BYTES_MAX},
    };
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0) {
            return -1;
        }
    }
    if (PyModule_AddIntConstant(module, "HAS_REDIS", ces_driver_find("redis") != NULL) < 0) {
        return -1;
    }
    return PyModule_AddStringConstant(module, "VERSION", CESSION_VERSION);
}

static int core_exec(PyObject *module)
{
    cx_state *state = cx_state_of(module);
    cession_error err = CESSION_ERROR_INIT;
    if (intern_names(state) < 0 || cx_errors_add(module, state) < 0) {
        return -1;
    }
    int status = ces_random(state->hash_salt, sizeof state->hash_salt, &err);
    if (status < 0) {
        cx_raise(state, status, &err);
        return -1;
    }
    if (import_python_parts(state) < 0 || cx_codec_state_init(&state->codec) < 0 ||
        cx_store_add(module, state) < 0 || cx_session_add(module, state) < 0 ||
        cx_interface_add(module, state) < 0 || add_constants(module) < 0 ||
        PyModule_AddFunctions(module, cx_codec_methods) < 0 ||
        PyModule_AddFunctions(module, cx_ids_methods) < 0) {
        return -1;
    }
    return 0;
}

/* X(field): every object of the state, once for traverse and clear. */
/* clang-format off */
#define CX_STATE_OBJECTS(X)                                                                       \
    X(session_type) X(interface_type) X(store_type) X(store_error) X(conflict_error)              \
    X(config_error) X(threading) X(context_var) X(timedelta_type) X(lifetime_attr)                \
    X(request_type) X(response_type) X(headers_type) X(dump_cookie) X(cookie_key) X(vary_key)     \
    X(set_cookie_key) X(dict_update) X(dict_pop) X(dict_popitem) X(dict_setdefault)               \
    X(dict_clear) X(dict_keys) X(dict_values) X(dict_items) X(dict_reversed) X(dict_getitem)      \
    X(not_loaded)
/* clang-format on */

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    cx_state *state = cx_state_of(module);
    if (!state) {
        return 0;
    }
#define CX_VISIT(field) Py_VISIT(state->field);
    CX_STATE_OBJECTS(CX_VISIT)
#undef CX_VISIT
    return cx_codec_state_traverse(&state->codec, visit, arg);
}

static int core_clear(PyObject *module)
{
    cx_state *state = cx_state_of(module);
    if (!state) {
        return 0;
    }
#define CX_CLEAR(field) Py_CLEAR(state->field);
    CX_STATE_OBJECTS(CX_CLEAR)
#undef CX_CLEAR
    for (size_t i = 0; i < CX_EV_COUNT; i++) {
        Py_CLEAR(state->event_names[i]);
    }
#define CX_CLEAR_NAME(name) Py_CLEAR(state->s.name);
    CX_NAMES(CX_CLEAR_NAME)
#undef CX_CLEAR_NAME
    cx_codec_state_clear(&state->codec);
    return 0;
}

static void core_free(void *module)
{
    (void)core_clear(module);
}

cx_codec_state *cx_codec_state_of(PyObject *module)
{
    return &cx_state_of(module)->codec;
}

cx_state *cx_state_of_type(PyTypeObject *type)
{
#if PY_VERSION_HEX >= 0x030B0000
    PyObject *module = PyType_GetModuleByDef(type, &cx_module_def);
    return module ? cx_state_of(module) : NULL;
#else
    /* PyType_GetModuleByDef came with 3.11: look through the bases for a type of ours. */
    PyObject *mro = type->tp_mro;
    for (Py_ssize_t i = 0; mro && i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        if (!(base->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
            continue;
        }
        PyObject *module = ((PyHeapTypeObject *)base)->ht_module;
        if (module && PyModule_Check(module) && PyModule_GetDef(module) == &cx_module_def) {
            return cx_state_of(module);
        }
    }
    PyErr_Format(PyExc_TypeError, "%s does not derive from flask_session's types", type->tp_name);
    return NULL;
#endif
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

struct PyModuleDef cx_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "flask_session._core",
    .m_doc = "The session type, the session interface and the stores, in C.",
    .m_size = sizeof(cx_state),
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&cx_module_def);
}
