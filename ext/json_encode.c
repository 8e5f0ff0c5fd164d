/* Python objects -> canonical tagged JSON (docs/format.md). */
#include "codec_impl.h"

/* ---- text ------------------------------------------------------------------------- */

/* What follows the backslash: a letter, 'u', or 0 for what stands for itself. */
static const char escapes[256] = {
    [0x00] = 'u', [0x01] = 'u', [0x02] = 'u', [0x03] = 'u',  [0x04] = 'u', [0x05] = 'u',
    [0x06] = 'u', [0x07] = 'u', ['\b'] = 'b', ['\t'] = 't',  ['\n'] = 'n', [0x0b] = 'u',
    ['\f'] = 'f', ['\r'] = 'r', [0x0e] = 'u', [0x0f] = 'u',  [0x10] = 'u', [0x11] = 'u',
    [0x12] = 'u', [0x13] = 'u', [0x14] = 'u', [0x15] = 'u',  [0x16] = 'u', [0x17] = 'u',
    [0x18] = 'u', [0x19] = 'u', [0x1a] = 'u', [0x1b] = 'u',  [0x1c] = 'u', [0x1d] = 'u',
    [0x1e] = 'u', [0x1f] = 'u', ['"'] = '"',  ['\\'] = '\\',
};

/* The inside of a JSON string. */
static int put_escaped(cx_enc *e, const char *utf8, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    const char *end = utf8 + len, *run = utf8;
    for (const char *at = utf8; at < end; at++) {
        char escape = escapes[(uint8_t)*at];
        if (escape == 0) {
            continue;
        }
        char text[6] = {'\\', escape, '0', '0', hex[(uint8_t)*at >> 4], hex[*at & 15]};
        if (cx_put(e, run, (size_t)(at - run)) < 0 || cx_put(e, text, escape == 'u' ? 6 : 2) < 0) {
            return -1;
        }
        run = at + 1;
    }
    return cx_put(e, run, (size_t)(end - run));
}

static int put_string(cx_enc *e, const char *utf8, size_t len)
{
    return cx_put_byte(e, '"') < 0 || put_escaped(e, utf8, len) < 0 || cx_put_byte(e, '"') < 0 ? -1
                                                                                               : 0;
}

static inline int put_text(cx_enc *e, const char *text)
{
    return cx_put(e, text, strlen(text));
}

/* {"__cession__name": */
static int open_tag(cx_enc *e, const char *name)
{
    return put_text(e, "{\"" CESSION_META_KEY) < 0 || put_text(e, name) < 0 ||
                   put_text(e, "\":") < 0
               ? -1
               : 0;
}

static int put_tagged(cx_enc *e, const char *name, const char *utf8, size_t len)
{
    return open_tag(e, name) < 0 || put_string(e, utf8, len) < 0 || cx_put_byte(e, '}') < 0 ? -1
                                                                                            : 0;
}

/* ---- numbers ------------------------------------------------------------------------ */

int cx_json_float(double value, char text[CX_FLOAT_TEXT], size_t *ret_len)
{
    char *repr = PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (!repr) {
        return -1;
    }
    /* at most 24 characters: sign, 17 digits, point, exponent of 5 */
    char *exponent = strchr(repr, 'e');
    if (!exponent) {
        *ret_len = (size_t)PyOS_snprintf(text, CX_FLOAT_TEXT, "%s", repr);
    } else {
        *exponent++ = 0;
        int power = atoi(exponent);
        if (power == -5) { /* repr goes over to exponents one power earlier */
            const char *sign = *repr == '-' ? "-" : "";
            char *digits = *repr == '-' ? repr + 1 : repr;
            const char *rest = digits[1] == '.' ? digits + 2 : "";
            *ret_len = (size_t)PyOS_snprintf(text, CX_FLOAT_TEXT, "%s0.0000%c%s", sign, *digits,
                                             rest);
        } else {
            *ret_len = (size_t)PyOS_snprintf(text, CX_FLOAT_TEXT, "%se%d", repr, power);
        }
    }
    PyMem_Free(repr);
    return 0;
}

static int put_float(cx_enc *e, double value)
{
    char text[CX_FLOAT_TEXT];
    size_t len;
    if (!Py_IS_FINITE(value)) {
        const char *name = value != value ? "nan" : value > 0 ? "inf" : "-inf";
        return put_tagged(e, "float", name, strlen(name));
    }
    return cx_json_float(value, text, &len) < 0 ? -1 : cx_put(e, text, len);
}

static int put_integer(cx_enc *e, long long value)
{
    char text[20], *at = text + sizeof text; /* sign and 19 digits */
    unsigned long long rest = value < 0 ? 0 - (unsigned long long)value : (unsigned long long)value;
    do {
        *--at = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (value < 0) {
        *--at = '-';
    }
    return cx_put(e, at, (size_t)(text + sizeof text - at));
}

static int put_int(cx_enc *e, PyObject *obj)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(obj, &overflow);
    if (overflow == 0) {
        return put_integer(e, value);
    }
    bool plain = cx_int_bits(obj) <= CX_JSON_INT_BITS;
    PyObject *text = PyNumber_ToBase(obj, plain ? 10 : 16);
    size_t len;
    const char *ascii = text ? cx_utf8(text, NULL, &len) : NULL;
    int result = !ascii ? -1 : plain ? cx_put(e, ascii, len) : put_tagged(e, "int", ascii, len);
    Py_XDECREF(text);
    return result;
}

/* ---- other leaves ---------------------------------------------------------------------- */

static int put_base64(cx_enc *e, const char *tag, const char *bytes, size_t len)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (open_tag(e, tag) < 0 || cx_need(e, len / 3 * 4 + 4 + 3) < 0) {
        return -1;
    }
    const uint8_t *p = (const uint8_t *)bytes;
    uint8_t *at = e->at;
    *at++ = '"';
    for (; len >= 3; p += 3, len -= 3) {
        uint32_t group = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        *at++ = (uint8_t)alphabet[group >> 18];
        *at++ = (uint8_t)alphabet[group >> 12 & 63];
        *at++ = (uint8_t)alphabet[group >> 6 & 63];
        *at++ = (uint8_t)alphabet[group & 63];
    }
    if (len > 0) {
        uint32_t group = (uint32_t)p[0] << 16 | (len > 1 ? (uint32_t)p[1] << 8 : 0);
        *at++ = (uint8_t)alphabet[group >> 18];
        *at++ = (uint8_t)alphabet[group >> 12 & 63];
        *at++ = len > 1 ? (uint8_t)alphabet[group >> 6 & 63] : '=';
        *at++ = '=';
    }
    *at++ = '"';
    *at++ = '}';
    e->at = at;
    return 0;
}

static int put_uuid(cx_enc *e, PyObject *obj)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t bytes[16];
    char text[36], *at = text;
    if (cx_uuid_bytes(e->state, obj, bytes) < 0) {
        return -1;
    }
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *at++ = '-';
        }
        *at++ = hex[bytes[i] >> 4];
        *at++ = hex[bytes[i] & 15];
    }
    return put_tagged(e, "uuid", text, sizeof text);
}

static int put_decimal(cx_enc *e, PyObject *obj)
{
    PyObject *text = cx_decimal_text(obj);
    size_t len;
    const char *ascii = text ? cx_utf8(text, NULL, &len) : NULL;
    int result = ascii ? put_tagged(e, "decimal", ascii, len) : -1;
    Py_XDECREF(text);
    return result;
}

static int put_moment(cx_enc *e, cx_kind kind, PyObject *obj)
{
    cx_moment m;
    char text[CX_MOMENT_TEXT];
    if (cx_moment_of(e->state, kind, obj, &m) < 0) {
        return -1;
    }
    size_t len = cx_moment_format(kind, &m, text);
    const char *tag = kind == CX_DATETIME ? "datetime" : kind == CX_DATE ? "date" : "time";
    if (!m.fold) {
        return put_tagged(e, tag, text, len);
    }
    return open_tag(e, tag) < 0 || cx_put_byte(e, '[') < 0 || put_string(e, text, len) < 0
               ? -1
               : put_text(e, ",1]}");
}

static int put_timedelta(cx_enc *e, PyObject *obj)
{
    if (open_tag(e, "timedelta") < 0 || cx_put_byte(e, '[') < 0 ||
        put_integer(e, PyDateTime_DELTA_GET_DAYS(obj)) < 0 || cx_put_byte(e, ',') < 0 ||
        put_integer(e, PyDateTime_DELTA_GET_SECONDS(obj)) < 0 || cx_put_byte(e, ',') < 0 ||
        put_integer(e, PyDateTime_DELTA_GET_MICROSECONDS(obj)) < 0) {
        return -1;
    }
    return put_text(e, "]}");
}

static int put_complex(cx_enc *e, PyObject *obj)
{
    Py_complex value = ((PyComplexObject *)obj)->cval;
    if (open_tag(e, "complex") < 0 || cx_put_byte(e, '[') < 0 || put_float(e, value.real) < 0 ||
        cx_put_byte(e, ',') < 0 || put_float(e, value.imag) < 0) {
        return -1;
    }
    return put_text(e, "]}");
}

static int leaf(cx_enc *e, cx_kind kind, PyObject *obj, const cx_path *path)
{
    size_t len;
    switch (kind) {
    case CX_NONE:
        return put_text(e, "null");
    case CX_BOOL:
        return put_text(e, obj == Py_True ? "true" : "false");
    case CX_INT:
        return put_int(e, obj);
    case CX_FLOAT:
        return put_float(e, PyFloat_AS_DOUBLE(obj));
    case CX_STR:
    case CX_MARKUP: {
        const char *utf8 = cx_utf8(obj, path, &len);
        if (!utf8) {
            return -1;
        }
        return kind == CX_STR ? put_string(e, utf8, len) : put_tagged(e, "markup", utf8, len);
    }
    case CX_BYTES:
        return put_base64(e, "bytes", PyBytes_AS_STRING(obj), (size_t)PyBytes_GET_SIZE(obj));
    case CX_BYTEARRAY:
        return put_base64(e, "bytearray", PyByteArray_AS_STRING(obj),
                          (size_t)PyByteArray_GET_SIZE(obj));
    case CX_COMPLEX:
        return put_complex(e, obj);
    case CX_UUID:
        return put_uuid(e, obj);
    case CX_DECIMAL:
        return put_decimal(e, obj);
    case CX_TIMEDELTA:
        return put_timedelta(e, obj);
    case CX_DATETIME:
    case CX_DATE:
    case CX_TIME:
        return put_moment(e, kind, obj);
    default:
        Py_UNREACHABLE();
    }
}

/* ---- containers and keys ----------------------------------------------------------------- */

static const char *container_tag(cx_kind kind)
{
    switch (kind) {
    case CX_TUPLE:
        return "tuple";
    case CX_SET:
        return "set";
    case CX_FROZENSET:
        return "frozenset";
    case CX_ODICT:
        return "odict";
    default:
        return NULL;
    }
}

static bool is_map(cx_kind kind)
{
    return kind == CX_DICT || kind == CX_ODICT;
}

static int container_open(cx_enc *e, cx_kind kind, size_t count, bool top, size_t *ret_mark)
{
    (void)count, (void)top;
    const char *tag = container_tag(kind);
    *ret_mark = 0;
    return tag && open_tag(e, tag) < 0 ? -1 : cx_put_byte(e, is_map(kind) ? '{' : '[');
}

static int container_close(cx_enc *e, cx_kind kind, bool top, size_t mark)
{
    (void)top, (void)mark;
    if (cx_put_byte(e, is_map(kind) ? '}' : ']') < 0) {
        return -1;
    }
    return container_tag(kind) ? cx_put_byte(e, '}') : 0;
}

#define PLAIN_KEY SIZE_MAX

/* A str is written as it is unless it begins like what belongs to the format; the
 * reserved key itself only gets here where it may be. */
static int key_open(cx_enc *e, PyObject *key, bool top, size_t *ret_mark)
{
    bool plain = false;
    if (PyUnicode_CheckExact(key)) {
        Py_ssize_t len = PyUnicode_GET_LENGTH(key);
        plain = len < (Py_ssize_t)CX_META_LEN || (top && len == (Py_ssize_t)CX_META_LEN);
        if (!plain) {
            Py_ssize_t prefixed = PyUnicode_Tailmatch(key, e->state->n_meta, 0, len, -1);
            if (prefixed < 0) {
                return -1;
            }
            plain = prefixed == 0;
        }
    }
    *ret_mark = plain ? PLAIN_KEY : cx_tell(e);
    return 0;
}

/* The key's own text becomes the end of a string. */
static int key_close(cx_enc *e, size_t mark)
{
    if (mark == PLAIN_KEY) {
        return 0;
    }
    size_t len = cx_tell(e) - mark;
    char *text = PyMem_Malloc(len > 0 ? len : 1);
    if (!text) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(text, e->out->data + mark, len);
    e->at = e->out->data + mark;
    int result = put_text(e, "\"" CESSION_META_KEY ":") < 0 || put_escaped(e, text, len) < 0
                     ? -1
                     : cx_put_byte(e, '"');
    PyMem_Free(text);
    return result;
}

/* ---- the fast walk: see encode.c ------------------------------------------------- */

static int fast_pairs(cx_enc *e, PyObject *dict, unsigned depth, bool top);

static int fast_items(cx_enc *e, PyObject **items, Py_ssize_t count, unsigned depth);

static int fast_value(cx_enc *e, PyObject *obj, unsigned depth)
{
    cx_kind kind = cx_kind_of(e->state, obj);
    switch (kind) {
    case CX_DICT:
        return fast_pairs(e, obj, depth, false);
    case CX_LIST:
        return fast_items(e, ((PyListObject *)obj)->ob_item, PyList_GET_SIZE(obj), depth);
    case CX_TUPLE:
        return open_tag(e, "tuple") < 0 || fast_items(e, ((PyTupleObject *)obj)->ob_item,
                                                      PyTuple_GET_SIZE(obj), depth) < 0
                   ? -1
                   : cx_put_byte(e, '}');
    case CX_DATETIME:
    case CX_TIME:
        return cx_foreign_tz(e->state, kind, obj) ? -1 : put_moment(e, kind, obj);
    case CX_NONE:
    case CX_BOOL:
    case CX_INT:
    case CX_FLOAT:
    case CX_STR:
    case CX_BYTES:
    case CX_BYTEARRAY:
    case CX_COMPLEX:
    case CX_MARKUP:
    case CX_UUID:
    case CX_DATE:
    case CX_TIMEDELTA:
        return leaf(e, kind, obj, NULL);
    default:
        return -1;
    }
}

static int fast_items(cx_enc *e, PyObject **items, Py_ssize_t count, unsigned depth)
{
    if (depth >= CES_MP_DEPTH_MAX || cx_put_byte(e, '[') < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if ((i > 0 && cx_put_byte(e, ',') < 0) || fast_value(e, items[i], depth + 1) < 0) {
            return -1;
        }
    }
    return cx_put_byte(e, ']');
}

static int fast_pairs(cx_enc *e, PyObject *dict, unsigned depth, bool top)
{
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    if (depth >= CES_MP_DEPTH_MAX || cx_put_byte(e, '{') < 0) {
        return -1;
    }
    for (bool first = true; PyDict_Next(dict, &pos, &key, &value); first = false) {
        size_t mark;
        if (!PyUnicode_CheckExact(key) || key_open(e, key, top, &mark) < 0 || mark != PLAIN_KEY) {
            return -1;
        }
        if ((!first && cx_put_byte(e, ',') < 0) || leaf(e, CX_STR, key, NULL) < 0 ||
            cx_put_byte(e, ':') < 0 || fast_value(e, value, depth + 1) < 0) {
            return -1;
        }
    }
    return cx_put_byte(e, '}');
}

static int fast_session(cx_enc *e, PyObject *session)
{
    return fast_pairs(e, session, 0, true);
}

const cx_writer cx_json_writer = {
    .fast = fast_session,
    .leaf = leaf,
    .open = container_open,
    .close = container_close,
    .key_open = key_open,
    .key_close = key_close,
    .between = ',',
    .after_key = ':',
};
