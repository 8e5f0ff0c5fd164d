/* What the codec needs of Python, found once. */
#include "codec_impl.h"

/* The names of the state, and all objects it holds: one list for init, traverse and
 * clear. */
/* clang-format off */
#define CODEC_NAMES(X)                                                                          \
    X(n_int, "int")                                                                             \
    X(n_is_safe, "is_safe") X(n_utcoffset, "utcoffset") X(n_value, "value") X(n_items, "items") \
        X(n_keys, "keys") X(n_getitem, "__getitem__") X(n_name, "name")                         \
            X(n_dataclass, "__dataclass_fields__") X(n_attrs, "__attrs_attrs__")                \
                X(n_struct, "__struct_fields__") X(n_meta, CESSION_META_KEY)
/* clang-format on */
#define CODEC_TYPES(X) X(timezone_type) X(decimal_type) X(uuid_type) X(enum_type) X(markup_type)
#define CODEC_OBJECTS(X) X(uuid_safe) X(warned) X(own_items) X(own_keys) X(own_getitem)

static PyObject *import_attr(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *attr = module ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return attr;
}

static int import_type(const char *module, const char *name, PyTypeObject **ret_type)
{
    PyObject *type = import_attr(module, name);
    if (type && !PyType_Check(type)) {
        PyErr_Format(PyExc_ImportError, "%s.%s is not a type", module, name);
        Py_CLEAR(type);
    }
    *ret_type = (PyTypeObject *)type;
    return type ? 0 : -1;
}

int cx_codec_state_init(cx_codec_state *state)
{
    memset(state, 0, sizeof *state);
    PyDateTime_IMPORT;
    if (!PyDateTimeAPI) {
        return -1;
    }
    state->datetime = PyDateTimeAPI;
    state->timezone_type = (PyTypeObject *)Py_NewRef(
        (PyObject *)Py_TYPE(PyDateTimeAPI->TimeZone_UTC));
#define CODEC_INTERN(field, text)                    \
    state->field = PyUnicode_InternFromString(text); \
    if (!state->field) {                             \
        return -1;                                   \
    }
    CODEC_NAMES(CODEC_INTERN)
#undef CODEC_INTERN
    PyObject *safe = NULL;
    if (import_type("decimal", "Decimal", &state->decimal_type) < 0 ||
        import_type("uuid", "UUID", &state->uuid_type) < 0 ||
        import_type("enum", "Enum", &state->enum_type) < 0 || !(state->warned = PySet_New(NULL)) ||
        !(safe = import_attr("uuid", "SafeUUID"))) {
        return -1;
    }
    state->uuid_safe = PyObject_GetAttrString(safe, "unknown");
    Py_DECREF(safe);
    if (!state->uuid_safe) {
        return -1;
    }
    if (import_type("markupsafe", "Markup", &state->markup_type) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_ImportError)) {
            return -1;
        }
        PyErr_Clear();
    }
    return 0;
}

int cx_codec_state_traverse(cx_codec_state *state, visitproc visit, void *arg)
{
#define CODEC_VISIT(field) Py_VISIT(state->field);
    CODEC_TYPES(CODEC_VISIT)
    CODEC_OBJECTS(CODEC_VISIT)
#undef CODEC_VISIT
    return 0; /* names and keys are str: no cycle goes through them */
}

void cx_codec_state_clear(cx_codec_state *state)
{
#define CODEC_CLEAR(field) Py_CLEAR(state->field);
#define CODEC_CLEAR_NAME(field, text) Py_CLEAR(state->field);
    CODEC_TYPES(CODEC_CLEAR)
    CODEC_OBJECTS(CODEC_CLEAR)
    CODEC_NAMES(CODEC_CLEAR_NAME)
#undef CODEC_CLEAR_NAME
#undef CODEC_CLEAR
    for (size_t i = 0; i < CX_KEY_CACHE; i++) {
        Py_CLEAR(state->keys[i]);
    }
}

int cx_codec_set_session_type(cx_codec_state *state, PyTypeObject *type)
{
    Py_XSETREF(state->own_items, Py_XNewRef(_PyType_Lookup(type, state->n_items)));
    Py_XSETREF(state->own_keys, Py_XNewRef(_PyType_Lookup(type, state->n_keys)));
    Py_XSETREF(state->own_getitem, Py_XNewRef(_PyType_Lookup(type, state->n_getitem)));
    if (!state->own_items || !state->own_keys || !state->own_getitem) {
        PyErr_Format(PyExc_TypeError, "%.100s is no dict", type->tp_name);
        return -1;
    }
    return 0;
}
