/* Where in the session something is, and what becomes of types that we do not
 * store: the simpler ones that Flask-Session 0.8 (through msgspec) made of them. */
#include "codec_impl.h"

/* ---- places ------------------------------------------------------------------- */

#define KEY_SHOWN 80    /* characters of a key in a message */
#define PLACES_SHOWN 10 /* steps shown at each end of a long path */

static PyObject *key_text(PyObject *key)
{
    if (PyUnicode_CheckExact(key) && PyUnicode_GET_LENGTH(key) > KEY_SHOWN) {
        PyObject *head = PyUnicode_Substring(key, 0, KEY_SHOWN);
        PyObject *text = head ? PyUnicode_FromFormat("[%R...]", head) : NULL;
        Py_XDECREF(head);
        return text;
    }
    if (PyUnicode_CheckExact(key) || PyLong_CheckExact(key) || PyBool_Check(key) ||
        PyFloat_CheckExact(key) || key == Py_None) {
        PyObject *text = PyUnicode_FromFormat("[%R]", key);
        if (!text && PyErr_ExceptionMatches(PyExc_ValueError)) { /* an int of too many digits */
            PyErr_Clear();
            text = PyUnicode_FromString("[<int>]");
        }
        return text;
    }
    /* repr() of anything else may be long, or the application's code */
    return PyUnicode_FromFormat("[<%.100s>]", Py_TYPE(key)->tp_name);
}

static PyObject *place_text(const cx_path *place)
{
    if (place->key) {
        PyObject *text = key_text(place->key);
        if (text && place->at_key) {
            Py_SETREF(text, PyUnicode_FromFormat(" (the key %U)", text));
        }
        return text;
    }
    if (place->index == -1) {
        return PyUnicode_FromString(" (an item of the set)");
    }
    if (place->index == -2) {
        return PyUnicode_FromString(".value");
    }
    return PyUnicode_FromFormat("[%zd]", place->index);
}

/* "session['a'][0]" */
static PyObject *path_text(const cx_path *path)
{
    size_t depth = 0;
    for (const cx_path *p = path; p; p = p->up) {
        depth++;
    }
    PyObject *text = PyUnicode_FromString("");
    size_t at = depth;
    for (const cx_path *p = path; p && text; p = p->up, at--) {
        PyObject *piece;
        if (at > PLACES_SHOWN && at <= depth - PLACES_SHOWN && depth > 2 * PLACES_SHOWN) {
            if (at != PLACES_SHOWN + 1) {
                continue;
            }
            piece = PyUnicode_FromString("...");
        } else {
            piece = place_text(p);
        }
        if (piece) {
            Py_SETREF(text, PyUnicode_Concat(piece, text));
            Py_DECREF(piece);
        } else {
            Py_CLEAR(text);
        }
    }
    if (text) {
        Py_SETREF(text, PyUnicode_FromFormat("session%U", text));
    }
    return text;
}

int cx_fail_at(PyObject *exc, const cx_path *path, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    PyObject *what = PyUnicode_FromFormatV(format, args);
    va_end(args);
    PyObject *where = what ? path_text(path) : NULL;
    if (where) {
        PyErr_Format(exc, "%U: %U", where, what);
    }
    Py_XDECREF(what);
    Py_XDECREF(where);
    return -1;
}

bool cx_path_holds(const cx_path *path, const PyObject *obj)
{
    for (; path; path = path->up) {
        if (path->container == obj) {
            return true;
        }
    }
    return false;
}

const char *cx_utf8(PyObject *text, const cx_path *path, size_t *ret_len)
{
    if (PyUnicode_IS_COMPACT_ASCII(text)) {
        *ret_len = (size_t)PyUnicode_GET_LENGTH(text);
        return (const char *)PyUnicode_1BYTE_DATA(text);
    }
    Py_ssize_t len;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &len);
    if (utf8) {
        *ret_len = (size_t)len;
    } else if (path && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        PyErr_Clear();
        cx_fail_at(PyExc_ValueError, path, "text with a lone surrogate cannot be stored");
    }
    return utf8;
}

/* ---- flattening ----------------------------------------------------------------- */

/* Say it once per type. 0, or -1: strict, or the warning was made an error. */
static int note(cx_enc *e, const cx_path *path, PyTypeObject *type, const char *role,
                const char *becomes)
{
    cx_codec_state *state = e->state;
    e->flattened = true;
    if (e->strict) {
        return cx_fail_at(PyExc_TypeError, path,
                          "objects of type %.100s cannot be stored as they are "
                          "(SESSION_STRICT_TYPES): %s would come back",
                          type->tp_name, becomes);
    }
    int known = PySet_Contains(state->warned, (PyObject *)type);
    if (known != 0) {
        return known < 0 ? -1 : 0;
    }
    if (PySet_GET_SIZE(state->warned) >= CX_WARNED_MAX && PySet_Clear(state->warned) < 0) {
        return -1;
    }
    if (PySet_Add(state->warned, (PyObject *)type) < 0) {
        return -1;
    }
    PyObject *where = path_text(path);
    if (!where) {
        return -1;
    }
    int result = PyErr_WarnFormat(PyExc_UserWarning, 1,
                                  "%U: %s of type %.100s is stored as %s and comes back so", where,
                                  role, type->tp_name, becomes);
    Py_DECREF(where);
    return result;
}

/* The items of a tuple subclass's own storage. */
static PyObject *tuple_items(PyObject *tuple, bool as_tuple)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    PyObject *made = as_tuple ? PyTuple_New(count) : PyList_New(count);
    for (Py_ssize_t i = 0; made && i < count; i++) {
        PyObject *item = Py_NewRef(PyTuple_GET_ITEM(tuple, i));
        if (as_tuple) {
            PyTuple_SET_ITEM(made, i, item);
        } else {
            PyList_SET_ITEM(made, i, item);
        }
    }
    return made;
}

/* A dict of a subclass's own storage, whatever it overrides. */
static PyObject *dict_items(PyObject *dict)
{
    PyObject *made = PyDict_New();
    PyObject *pairs = made ? PyObject_CallMethod((PyObject *)&PyDict_Type, "items", "O", dict)
                           : NULL;
    PyObject *list = pairs ? PySequence_List(pairs) : NULL;
    if (!list || PyDict_MergeFromSeq2(made, list, 1) < 0) {
        Py_CLEAR(made);
    }
    Py_XDECREF(list);
    Py_XDECREF(pairs);
    return made;
}

static bool is_unset(PyObject *value)
{
    return strcmp(Py_TYPE(value)->tp_name, "msgspec.UnsetType") == 0;
}

/* made[name] = obj.name unless it is not set. skip_private: as msgspec does for attrs. */
static int add_field(PyObject *made, PyObject *obj, PyObject *name, bool skip_private)
{
    if (!PyUnicode_Check(name)) {
        PyErr_SetString(PyExc_TypeError, "a field's name is not a str");
        return -1;
    }
    if (skip_private && PyUnicode_GET_LENGTH(name) > 0 && PyUnicode_READ_CHAR(name, 0) == '_') {
        return 0;
    }
    PyObject *value;
    int found = cx_get_optional(obj, name, &value);
    if (found < 1) {
        return found;
    }
    int result = is_unset(value) ? 0 : PyDict_SetItem(made, name, value);
    Py_DECREF(value);
    return result;
}

/* The fields that `fields` (a sequence of objects with a name) names. */
static PyObject *fields_dict(cx_enc *e, PyObject *obj, PyObject *fields, bool skip_private)
{
    PyObject *list = PySequence_List(fields);
    PyObject *made = list ? PyDict_New() : NULL;
    for (Py_ssize_t i = 0; made && i < PyList_GET_SIZE(list); i++) {
        PyObject *name = PyObject_GetAttr(PyList_GET_ITEM(list, i), e->state->n_name);
        if (!name || add_field(made, obj, name, skip_private) < 0) {
            Py_CLEAR(made);
        }
        Py_XDECREF(name);
    }
    Py_XDECREF(list);
    return made;
}

static PyObject *dataclass_dict(cx_enc *e, PyObject *obj)
{
    PyObject *module = PyImport_ImportModule("dataclasses");
    PyObject *fields = module ? PyObject_CallMethod(module, "fields", "O", obj) : NULL;
    PyObject *made = fields ? fields_dict(e, obj, fields, false) : NULL;
    Py_XDECREF(fields);
    Py_XDECREF(module);
    return made;
}

/* msgspec knows its own options (renamed fields, tags, array_like) best; what we
 * store as it is stays so. */
static PyObject *struct_builtins(cx_enc *e, PyObject *obj)
{
    const PyDateTime_CAPI *dt = cx_datetime(e->state);
    PyObject *module = PyImport_ImportModule("msgspec");
    PyObject *function = module ? PyObject_GetAttrString(module, "to_builtins") : NULL;
    PyObject *args = function ? PyTuple_Pack(1, obj) : NULL;
    PyObject *named = args ? Py_BuildValue("{s(OOOOOOOO)}", "builtin_types", &PyBytes_Type,
                                           &PyByteArray_Type, dt->DateTimeType, dt->DateType,
                                           dt->TimeType, dt->DeltaType, e->state->uuid_type,
                                           e->state->decimal_type)
                           : NULL;
    PyObject *made = named ? PyObject_Call(function, args, named) : NULL;
    Py_XDECREF(named);
    Py_XDECREF(args);
    Py_XDECREF(function);
    Py_XDECREF(module);
    return made;
}

/* A datetime or time with its offset instead of its tzinfo, of the exact type. */
static PyObject *fixed_offset(cx_enc *e, PyObject *obj, cx_kind kind, PyObject *tz)
{
    cx_codec_state *state = e->state;
    PyDateTime_CAPI *dt = cx_datetime(state);
    PyObject *zone = NULL;
    if (tz == Py_None || Py_TYPE(tz) == state->timezone_type) {
        zone = Py_NewRef(tz);
    } else {
        PyObject *delta = PyObject_CallMethodNoArgs(obj, state->n_utcoffset);
        if (!delta) {
            return NULL;
        }
        if (delta == Py_None) {
            zone = Py_NewRef(Py_None);
        } else if (Py_TYPE(delta) == dt->DeltaType) {
            zone = dt->TimeZone_FromTimeZone(delta, NULL);
        } else {
            PyErr_SetString(PyExc_TypeError, "utcoffset() gave no timedelta");
        }
        Py_DECREF(delta);
        if (!zone) {
            return NULL;
        }
    }
    PyObject *made = kind == CX_DATETIME
                         ? dt->DateTime_FromDateAndTimeAndFold(
                               PyDateTime_GET_YEAR(obj), PyDateTime_GET_MONTH(obj),
                               PyDateTime_GET_DAY(obj), PyDateTime_DATE_GET_HOUR(obj),
                               PyDateTime_DATE_GET_MINUTE(obj), PyDateTime_DATE_GET_SECOND(obj),
                               PyDateTime_DATE_GET_MICROSECOND(obj), zone,
                               PyDateTime_DATE_GET_FOLD(obj), dt->DateTimeType)
                         : dt->Time_FromTimeAndFold(PyDateTime_TIME_GET_HOUR(obj),
                                                    PyDateTime_TIME_GET_MINUTE(obj),
                                                    PyDateTime_TIME_GET_SECOND(obj),
                                                    PyDateTime_TIME_GET_MICROSECOND(obj), zone,
                                                    PyDateTime_TIME_GET_FOLD(obj), dt->TimeType);
    Py_DECREF(zone);
    return made;
}

/* Which of the types that we store is obj's base? CX_OTHER: none. */
static cx_kind base_kind(const cx_codec_state *state, PyObject *obj)
{
    const PyDateTime_CAPI *dt = cx_datetime(state);
    /* before str: Markup is one; before date: datetime is one */
    const struct {
        PyTypeObject *type;
        cx_kind kind;
    } bases[] = {
        {state->markup_type, CX_MARKUP},   {&PyUnicode_Type, CX_STR},
        {&PyDict_Type, CX_DICT},           {&PyList_Type, CX_LIST},
        {&PyTuple_Type, CX_TUPLE},         {&PySet_Type, CX_SET},
        {&PyFrozenSet_Type, CX_FROZENSET}, {&PyLong_Type, CX_INT},
        {&PyFloat_Type, CX_FLOAT},         {&PyBytes_Type, CX_BYTES},
        {&PyByteArray_Type, CX_BYTEARRAY}, {&PyComplex_Type, CX_COMPLEX},
        {dt->DateTimeType, CX_DATETIME},   {dt->DateType, CX_DATE},
        {dt->TimeType, CX_TIME},           {dt->DeltaType, CX_TIMEDELTA},
        {state->uuid_type, CX_UUID},       {state->decimal_type, CX_DECIMAL},
        {&PyMemoryView_Type, CX_NONE}, /* marks it; nothing derives from None's type */
    };
    for (size_t i = 0; i < sizeof bases / sizeof *bases; i++) {
        if (bases[i].type && PyType_IsSubtype(Py_TYPE(obj), bases[i].type)) {
            return bases[i].kind;
        }
    }
    return CX_OTHER;
}

/* obj without its subclass, out of the base's own storage. */
static PyObject *as_base(cx_enc *e, PyObject *obj, cx_kind kind, bool in_key)
{
    cx_codec_state *state = e->state;
    PyDateTime_CAPI *dt = cx_datetime(state);
    switch (kind) {
    case CX_NONE: /* a memoryview */
        return PyBytes_FromObject(obj);
    case CX_BYTES:
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(obj), PyBytes_GET_SIZE(obj));
    case CX_STR:
        return PyUnicode_FromObject(obj);
    case CX_MARKUP: {
        PyObject *text = PyUnicode_FromObject(obj);
        PyObject *made = text ? cx_markup_make(state, text) : NULL;
        Py_XDECREF(text);
        return made;
    }
    case CX_INT:
        return PyLong_Type.tp_as_number->nb_int(obj);
    case CX_FLOAT:
        return PyFloat_FromDouble(PyFloat_AS_DOUBLE(obj));
    case CX_COMPLEX:
        return PyComplex_FromCComplex(((PyComplexObject *)obj)->cval);
    case CX_BYTEARRAY:
        return PyByteArray_FromStringAndSize(PyByteArray_AS_STRING(obj), PyByteArray_GET_SIZE(obj));
    case CX_LIST:
        return PyList_GetSlice(obj, 0, PyList_GET_SIZE(obj));
    case CX_TUPLE:
        return tuple_items(obj, in_key);
    case CX_DICT:
        return dict_items(obj);
    case CX_SET:
    case CX_FROZENSET: {
        /* set.copy() of the base keeps the subclass; a fresh set does not */
        PyObject *made = PyFrozenSet_New(NULL);
        PyObject *union_ = made ? PyObject_CallMethod(made, "union", "O", obj) : NULL;
        Py_XDECREF(made);
        return union_;
    }
    case CX_DATETIME:
        return fixed_offset(e, obj, kind, PyDateTime_DATE_GET_TZINFO(obj));
    case CX_TIME:
        return fixed_offset(e, obj, kind, PyDateTime_TIME_GET_TZINFO(obj));
    case CX_DATE:
        return dt->Date_FromDate(PyDateTime_GET_YEAR(obj), PyDateTime_GET_MONTH(obj),
                                 PyDateTime_GET_DAY(obj), dt->DateType);
    case CX_TIMEDELTA:
        return dt->Delta_FromDelta(PyDateTime_DELTA_GET_DAYS(obj),
                                   PyDateTime_DELTA_GET_SECONDS(obj),
                                   PyDateTime_DELTA_GET_MICROSECONDS(obj), 0, dt->DeltaType);
    case CX_UUID: {
        uint8_t bytes[16];
        return cx_uuid_bytes(state, obj, bytes) < 0 ? NULL : cx_uuid_make(state, bytes);
    }
    case CX_DECIMAL:
        return PyObject_CallOneArg((PyObject *)state->decimal_type, obj);
    default:
        Py_UNREACHABLE();
    }
}

static const char *base_name(cx_kind kind, bool in_key)
{
    static const char *const names[] = {
        [CX_NONE] = "bytes",        [CX_INT] = "int",
        [CX_FLOAT] = "float",       [CX_STR] = "str",
        [CX_BYTES] = "bytes",       [CX_BYTEARRAY] = "bytearray",
        [CX_COMPLEX] = "complex",   [CX_MARKUP] = "Markup",
        [CX_UUID] = "UUID",         [CX_DECIMAL] = "Decimal",
        [CX_DATETIME] = "datetime", [CX_DATE] = "date",
        [CX_TIME] = "time",         [CX_TIMEDELTA] = "timedelta",
        [CX_LIST] = "list",         [CX_DICT] = "dict",
        [CX_TUPLE] = "list",        [CX_SET] = "list",
        [CX_FROZENSET] = "list",
    };
    if (in_key && (kind == CX_SET || kind == CX_FROZENSET)) {
        return "frozenset";
    }
    return in_key && kind == CX_TUPLE ? "tuple" : names[kind];
}

PyObject *cx_flatten(cx_enc *e, PyObject *obj, const cx_path *path, bool in_key, bool *ret_listed)
{
    cx_codec_state *state = e->state;
    PyTypeObject *type = Py_TYPE(obj);
    cx_kind kind = cx_kind_of(state, obj);
    if (kind == CX_DATETIME || kind == CX_TIME) { /* only its tzinfo is strange */
        PyObject *tz = kind == CX_DATETIME ? PyDateTime_DATE_GET_TZINFO(obj)
                                           : PyDateTime_TIME_GET_TZINFO(obj);
        if (note(e, path, Py_TYPE(tz), "a tzinfo", "its UTC offset") < 0) {
            return NULL;
        }
        return fixed_offset(e, obj, kind, tz);
    }
    if (PyType_IsSubtype(type, state->enum_type)) {
        if (note(e, path, type, "an enum member", "its value") < 0) {
            return NULL;
        }
        return PyObject_GetAttr(obj, state->n_value);
    }
    kind = base_kind(state, obj);
    if (kind != CX_OTHER) {
        if (note(e, path, type, "a value", base_name(kind, in_key)) < 0) {
            return NULL;
        }
        *ret_listed = !in_key && (kind == CX_SET || kind == CX_FROZENSET);
        return as_base(e, obj, kind, in_key);
    }
    bool is_dataclass = _PyType_Lookup(type, state->n_dataclass) != NULL;
    PyObject *attrs = is_dataclass ? NULL : _PyType_Lookup(type, state->n_attrs);
    bool is_struct = !is_dataclass && !attrs && _PyType_Lookup(type, state->n_struct) != NULL;
    if (is_dataclass || attrs || is_struct) {
        if (note(e, path, type, "an object", is_struct ? "what msgspec makes of it" : "a dict") <
            0) {
            return NULL;
        }
        if (attrs) {
            Py_INCREF(attrs);
            PyObject *made = fields_dict(e, obj, attrs, true);
            Py_DECREF(attrs);
            return made;
        }
        return is_struct ? struct_builtins(e, obj) : dataclass_dict(e, obj);
    }
    cx_fail_at(PyExc_TypeError, path, "objects of type %.100s cannot be stored", type->tp_name);
    return NULL;
}
