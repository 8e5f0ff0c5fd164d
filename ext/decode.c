/* Stored bytes -> Python objects.
 *
 * MessagePack is validated first, headers, lengths, UTF-8 and nesting, by the core's
 * walker (ces_mp_walk), then decoded by functions that rely on it. An extension is opaque to
 * that walk, so the payload of a container is walked when it is reached: each byte
 * once. No code of the application runs while decoding. */
#include "codec_impl.h"

/* ---- text ----------------------------------------------------------------------- */

static bool is_ascii(const uint8_t *data, size_t len)
{
    uint64_t high = 0, word;
    while (len >= 8) {
        memcpy(&word, data, 8);
        high |= word;
        data += 8;
        len -= 8;
    }
    word = 0;
    memcpy(&word, data, len);
    return ((high | word) & UINT64_C(0x8080808080808080)) == 0;
}

PyObject *cx_text(const uint8_t *utf8, size_t len)
{
    if (len < 2 || !is_ascii(utf8, len)) { /* the interpreter keeps short ones */
        return PyUnicode_DecodeUTF8((const char *)utf8, (Py_ssize_t)len, NULL);
    }
    PyObject *text = PyUnicode_New((Py_ssize_t)len, 127);
    if (text) {
        memcpy(PyUnicode_1BYTE_DATA(text), utf8, len);
    }
    return text;
}

/* The same few keys come again and again: a table of recent ones, one place for each
 * hash. A kept str also knows its own hash already. FNV-1a spreads well enough; a
 * collision costs a miss. */
PyObject *cx_key_text(cx_codec_state *state, const uint8_t *utf8, size_t len)
{
    if (len < 2 || len > CX_KEY_CACHE_LEN) {
        return cx_text(utf8, len);
    }
    uint32_t hash = UINT32_C(2166136261);
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ utf8[i]) * UINT32_C(16777619);
    }
    PyObject **place = &state->keys[(hash ^ hash >> 16) & (CX_KEY_CACHE - 1)];
    PyObject *kept = *place;
    if (kept && (size_t)PyUnicode_GET_LENGTH(kept) == len &&
        memcmp(PyUnicode_1BYTE_DATA(kept), utf8, len) == 0) {
        return Py_NewRef(kept);
    }
    PyObject *text = cx_text(utf8, len);
    if (text && PyUnicode_IS_COMPACT_ASCII(text)) {
        *place = Py_NewRef(text);
        Py_XDECREF(kept);
    }
    return text;
}

/* ---- MessagePack ----------------------------------------------------------------- */

/* NULL without an exception means: no session. */
typedef struct dec {
    cx_codec_state *state;
    const uint8_t *at;
    bool canonical;
    bool in_key; /* arrays are tuples, as Flask-Session 0.8 wrote them in keys */
} dec;

static inline uint16_t load16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t load32(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, 4);
    return __builtin_bswap32(value);
}

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t value;
    memcpy(&value, p, 8);
    return __builtin_bswap64(value);
}

static PyObject *dec_value(dec *d, unsigned depth);

/* A float, and whether its bits are sure to survive: NaN has many. */
static PyObject *dec_double(dec *d, uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    if (value != value && (d->in_key || (bits << 1) != UINT64_C(0xfff0000000000000))) {
        /* as a key or in a set it is also unequal to itself: two may have the same bytes */
        d->canonical = false;
    }
    return PyFloat_FromDouble(value);
}

static PyObject *dec_list(dec *d, size_t count, unsigned depth)
{
    if (depth >= CES_MP_DEPTH_MAX) {
        return NULL;
    }
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *item = dec_value(d, depth + 1);
        if (!item) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

static PyObject *dec_tuple(dec *d, size_t count, unsigned depth)
{
    if (depth >= CES_MP_DEPTH_MAX) {
        return NULL;
    }
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; tuple && i < count; i++) {
        PyObject *item = dec_value(d, depth + 1);
        if (!item) {
            Py_DECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, item);
    }
    return tuple;
}

static PyObject *dec_key(dec *d, unsigned depth)
{
    uint8_t code = *d->at;
    size_t len, head;
    if (code >= 0xa0 && code < 0xc0) {
        len = code & 0x1f;
        head = 1;
    } else if (code == 0xd9) {
        len = d->at[1];
        head = 2;
    } else {
        bool in_key = d->in_key;
        d->in_key = true;
        PyObject *key = dec_value(d, depth);
        d->in_key = in_key;
        return key;
    }
    const uint8_t *text = d->at + head;
    d->at = text + len;
    return cx_key_text(d->state, text, len);
}

/* Pairs into dict. meta: where the reserved key is left out. 0, or -1. */
static int dec_pairs(dec *d, PyObject *dict, size_t count, unsigned depth, bool ordered, bool meta)
{
    Py_ssize_t left_out = 0;
    for (size_t i = 0; i < count; i++) {
        PyObject *key = dec_key(d, depth + 1);
        PyObject *value = key ? dec_value(d, depth + 1) : NULL;
        int result = -1;
        if (value && meta && PyUnicode_CheckExact(key) &&
            PyUnicode_GET_LENGTH(key) == (Py_ssize_t)CX_META_LEN &&
            PyUnicode_CompareWithASCIIString(key, CESSION_META_KEY) == 0) {
            left_out++;
            result = 0;
        } else if (value) {
            result = ordered ? PyODict_SetItem(dict, key, value)
                             : PyDict_SetItem(dict, key, value); /* unhashable: TypeError */
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
        if (result < 0) {
            return -1;
        }
    }
    if (left_out > 0 || PyDict_GET_SIZE(dict) != (Py_ssize_t)count) {
        d->canonical = false; /* a key that came twice */
    }
    return 0;
}

static PyObject *dec_dict(dec *d, size_t count, unsigned depth, bool ordered)
{
    if (depth >= CES_MP_DEPTH_MAX || d->in_key) {
        return NULL;
    }
    PyObject *dict = ordered ? PyODict_New() : PyDict_New();
    if (dict && dec_pairs(d, dict, count, depth, ordered, false) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

/* ---- extensions ------------------------------------------------------------------- */

/* The header of the one array (or map) that must fill a payload. */
static bool enter_container(dec *d, const uint8_t *data, size_t len, bool map, size_t *ret_count)
{
    size_t used;
    unsigned flags;
    ces_mp_item item;
    const uint8_t *at = data;
    if (ces_mp_walk(data, len, &used, &flags) != CESSION_OK || used != len) {
        return false;
    }
    ces_mp_next(&at, &item);
    if (item.type != (map ? CES_MP_MAP : CES_MP_ARRAY)) {
        return false;
    }
    if (flags & CES_MP_NOT_SHORT) {
        d->canonical = false;
    }
    *ret_count = item.as.count;
    d->at = at;
    return true;
}

static PyObject *dec_set(dec *d, size_t count, unsigned depth, bool frozen)
{
    if (depth >= CES_MP_DEPTH_MAX || (d->in_key && !frozen)) {
        return NULL;
    }
    PyObject *set = frozen ? PyFrozenSet_New(NULL) : PySet_New(NULL);
    const uint8_t *before = NULL;
    size_t before_len = 0;
    bool in_key = d->in_key;
    for (size_t i = 0; set && i < count; i++) {
        const uint8_t *start = d->at;
        bool array = (*start & 0xf0) == 0x90 || *start == 0xdc || *start == 0xdd;
        d->in_key = true;
        /* a plain array is a list, and a list is in no set */
        PyObject *item = array ? NULL : dec_value(d, depth + 1);
        d->in_key = in_key;
        if (!item || PySet_Add(set, item) < 0) {
            Py_XDECREF(item);
            Py_CLEAR(set);
            break;
        }
        Py_DECREF(item);
        size_t len = (size_t)(d->at - start);
        if (before) {
            int order = memcmp(before, start, before_len < len ? before_len : len);
            if (order > 0 || (order == 0 && before_len >= len)) {
                d->canonical = false;
            }
        }
        before = start;
        before_len = len;
    }
    if (set && PySet_GET_SIZE(set) != (Py_ssize_t)count) {
        d->canonical = false;
    }
    return set;
}

static PyObject *dec_container(dec *d, int type, const uint8_t *data, size_t len, unsigned depth)
{
    const uint8_t *after = data + len;
    size_t count;
    PyObject *made;
    if (!enter_container(d, data, len, type == CX_EXT_ODICT, &count)) {
        return NULL;
    }
    switch (type) {
    case CX_EXT_TUPLE:
        made = dec_tuple(d, count, depth);
        break;
    case CX_EXT_ODICT:
        made = dec_dict(d, count, depth, true);
        break;
    default:
        made = dec_set(d, count, depth, type == CX_EXT_FROZENSET);
    }
    d->at = after;
    return made;
}

static PyObject *dec_timestamp(dec *d, const uint8_t *data, size_t len)
{
    uint64_t nanoseconds = 0;
    int64_t seconds;
    cx_moment m;
    if (len == 4) {
        seconds = load32(data);
    } else if (len == 8) {
        uint64_t both = load64(data);
        nanoseconds = both >> 34;
        seconds = (int64_t)(both & ((UINT64_C(1) << 34) - 1));
        if (nanoseconds == 0 && seconds <= UINT32_MAX) {
            d->canonical = false;
        }
    } else if (len == 12) {
        nanoseconds = load32(data);
        seconds = (int64_t)load64(data + 4);
        if (seconds >= 0 && seconds >> 34 == 0) {
            d->canonical = false;
        }
    } else {
        return NULL;
    }
    if (nanoseconds > 999999999) {
        return NULL;
    }
    if (nanoseconds % 1000 != 0) {
        d->canonical = false;
    }
    uint64_t microseconds = (nanoseconds + 500) / 1000;
    if (microseconds == 1000000) {
        microseconds = 0;
        if (seconds == INT64_MAX) {
            return NULL;
        }
        seconds++;
    }
    if (!cx_moment_from_unix(seconds, &m)) {
        return NULL;
    }
    m.microsecond = (int32_t)microseconds;
    return cx_moment_make(d->state, CX_DATETIME, &m);
}

/* hour, minute, second, fold, microsecond and, in 16 bytes, the offset */
static bool load_clock(const uint8_t *data, size_t len, cx_moment *m)
{
    if (len != 8 && len != 16) {
        return false;
    }
    m->hour = data[0];
    m->minute = data[1];
    m->second = data[2];
    m->fold = data[3];
    m->microsecond = (int32_t)load32(data + 4); /* past 2**31: negative, refused */
    if (len == 16) {
        m->has_offset = true;
        m->offset_s = (int32_t)load32(data + 8);
        m->offset_us = (int32_t)load32(data + 12);
    }
    return true;
}

static PyObject *dec_moment(dec *d, int type, const uint8_t *data, size_t len)
{
    cx_moment m = {0};
    cx_kind kind = type == CX_EXT_DATE ? CX_DATE : type == CX_EXT_TIME ? CX_TIME : CX_DATETIME;
    if (kind != CX_TIME) {
        if (len < 4) {
            return NULL;
        }
        m.year = load16(data);
        m.month = data[2];
        m.day = data[3];
        data += 4;
        len -= 4;
    }
    if (kind == CX_DATE ? len != 0 : !load_clock(data, len, &m)) {
        return NULL;
    }
    if (!cx_moment_valid(kind, &m)) {
        return NULL;
    }
    if (kind == CX_DATETIME && m.has_offset && m.offset_s == 0 && m.offset_us == 0 && !m.fold) {
        d->canonical = false; /* a timestamp is */
    }
    return cx_moment_make(d->state, kind, &m);
}

static PyObject *dec_timedelta(dec *d, const uint8_t *data, size_t len)
{
    if (len != 12) {
        return NULL;
    }
    int64_t days = (int32_t)load32(data), seconds = load32(data + 4), us = load32(data + 8);
    if (!cx_delta_valid(days, seconds, us)) {
        return NULL;
    }
    PyDateTime_CAPI *dt = cx_datetime(d->state);
    return dt->Delta_FromDelta((int)days, (int)seconds, (int)us, 0, dt->DeltaType);
}

static PyObject *dec_complex(dec *d, const uint8_t *data, size_t len)
{
    if (len != 16) {
        return NULL;
    }
    PyObject *real = dec_double(d, load64(data));
    PyObject *imag = real ? dec_double(d, load64(data + 8)) : NULL;
    PyObject *made = imag ? PyComplex_FromDoubles(PyFloat_AS_DOUBLE(real), PyFloat_AS_DOUBLE(imag))
                          : NULL;
    Py_XDECREF(real);
    Py_XDECREF(imag);
    return made;
}

/* Only numbers that MessagePack's own integers do not reach. */
static PyObject *dec_int(const uint8_t *data, size_t len)
{
    if (len < 9 || data[0] > 1 || data[1] == 0) {
        return NULL;
    }
    /* 9 magnitude bytes and more are always outside; 8 only below -2**63 */
    if (len == 9 && (data[0] == 0 || load64(data + 1) <= UINT64_C(1) << 63)) {
        return NULL;
    }
    return cx_int_make(data + 1, len - 1, data[0] == 1);
}

static PyObject *dec_decimal(dec *d, const uint8_t *data, size_t len)
{
    PyObject *made = cx_decimal_make(d->state, (const char *)data, len);
    if (made && d->in_key && memchr(data, 'N', len)) {
        d->canonical = false; /* NaN, as for floats */
    }
    return made;
}

static PyObject *dec_markup(dec *d, const uint8_t *data, size_t len)
{
    if (!ces_utf8_valid(data, len)) {
        return NULL;
    }
    PyObject *text = cx_text(data, len);
    if (!text || !d->state->markup_type) {
        d->canonical = d->canonical && d->state->markup_type;
        return text;
    }
    PyObject *made = cx_markup_make(d->state, text);
    Py_DECREF(text);
    return made;
}

static PyObject *dec_ext(dec *d, int type, const uint8_t *data, size_t len, unsigned depth)
{
    d->at = data + len;
    switch (type) {
    case CX_EXT_TIMESTAMP:
        return dec_timestamp(d, data, len);
    case CX_EXT_TUPLE:
    case CX_EXT_SET:
    case CX_EXT_FROZENSET:
    case CX_EXT_ODICT:
        return dec_container(d, type, data, len, depth);
    case CX_EXT_BYTEARRAY:
        return d->in_key ? NULL
                         : PyByteArray_FromStringAndSize((const char *)data, (Py_ssize_t)len);
    case CX_EXT_COMPLEX:
        return dec_complex(d, data, len);
    case CX_EXT_INT:
        return dec_int(data, len);
    case CX_EXT_DECIMAL:
        return dec_decimal(d, data, len);
    case CX_EXT_UUID:
        return len == 16 ? cx_uuid_make(d->state, data) : NULL;
    case CX_EXT_MARKUP:
        return dec_markup(d, data, len);
    case CX_EXT_DATETIME:
    case CX_EXT_DATE:
    case CX_EXT_TIME:
        return dec_moment(d, type, data, len);
    case CX_EXT_TIMEDELTA:
        return dec_timedelta(d, data, len);
    default:
        return NULL;
    }
}

/* ---- any item ---------------------------------------------------------------------- */

static PyObject *dec_str(dec *d, const uint8_t *text, size_t len)
{
    d->at = text + len;
    return cx_text(text, len);
}

static PyObject *dec_bin(dec *d, const uint8_t *data, size_t len)
{
    d->at = data + len;
    return PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len);
}

static PyObject *dec_array(dec *d, size_t count, unsigned depth)
{
    if (d->in_key) {
        d->canonical = false;
        return dec_tuple(d, count, depth);
    }
    return dec_list(d, count, depth);
}

static PyObject *dec_value(dec *d, unsigned depth)
{
    const uint8_t *p = d->at;
    uint8_t code = *p++;
    if (code < 0x80) {
        d->at = p;
        return PyLong_FromLong(code);
    }
    if (code >= 0xe0) {
        d->at = p;
        return PyLong_FromLong((int8_t)code);
    }
    if (code >= 0xa0 && code < 0xc0) {
        return dec_str(d, p, code & 0x1f);
    }
    d->at = p;
    if (code < 0x90) {
        return dec_dict(d, code & 0x0f, depth, false);
    }
    if (code < 0xa0) {
        return dec_array(d, code & 0x0f, depth);
    }
    switch (code) {
    case 0xc0:
        return Py_NewRef(Py_None);
    case 0xc2:
        return Py_NewRef(Py_False);
    case 0xc3:
        return Py_NewRef(Py_True);
    case 0xc4:
        return dec_bin(d, p + 1, p[0]);
    case 0xc5:
        return dec_bin(d, p + 2, load16(p));
    case 0xc6:
        return dec_bin(d, p + 4, load32(p));
    case 0xc7:
        return dec_ext(d, (int8_t)p[1], p + 2, p[0], depth);
    case 0xc8:
        return dec_ext(d, (int8_t)p[2], p + 3, load16(p), depth);
    case 0xc9:
        return dec_ext(d, (int8_t)p[4], p + 5, load32(p), depth);
    case 0xca: {
        uint32_t bits = load32(p);
        float value;
        memcpy(&value, &bits, sizeof value);
        d->at = p + 4;
        d->canonical = false;
        return PyFloat_FromDouble((double)value);
    }
    case 0xcb:
        d->at = p + 8;
        return dec_double(d, load64(p));
    case 0xcc:
        d->at = p + 1;
        return PyLong_FromLong(p[0]);
    case 0xcd:
        d->at = p + 2;
        return PyLong_FromLong(load16(p));
    case 0xce:
        d->at = p + 4;
        return PyLong_FromUnsignedLong(load32(p));
    case 0xcf:
        d->at = p + 8;
        return PyLong_FromUnsignedLongLong(load64(p));
    case 0xd0:
        d->at = p + 1;
        return PyLong_FromLong((int8_t)p[0]);
    case 0xd1:
        d->at = p + 2;
        return PyLong_FromLong((int16_t)load16(p));
    case 0xd2:
        d->at = p + 4;
        return PyLong_FromLong((int32_t)load32(p));
    case 0xd3:
        d->at = p + 8;
        return PyLong_FromLongLong((int64_t)load64(p));
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        return dec_ext(d, (int8_t)p[0], p + 1, (size_t)1 << (code - 0xd4), depth);
    case 0xd9:
        return dec_str(d, p + 1, p[0]);
    case 0xda:
        return dec_str(d, p + 2, load16(p));
    case 0xdb:
        return dec_str(d, p + 4, load32(p));
    case 0xdc:
        d->at = p + 2;
        return dec_array(d, load16(p), depth);
    case 0xdd:
        d->at = p + 4;
        return dec_array(d, load32(p), depth);
    case 0xde:
        d->at = p + 2;
        return dec_dict(d, load16(p), depth, false);
    case 0xdf:
        d->at = p + 4;
        return dec_dict(d, load32(p), depth, false);
    default:
        return NULL;
    }
}

/* ---- whole values -------------------------------------------------------------------- */

int cx_decode_msgpack(cx_codec_state *state, cession_span value, PyObject *into, bool keep_meta,
                      bool *ret_canonical)
{
    size_t used;
    unsigned flags;
    ces_mp_item top;
    if (value.len == 0 ||
        !((value.data[0] & 0xf0) == 0x80 || value.data[0] == 0xde || value.data[0] == 0xdf)) {
        return 0;
    }
    if (ces_mp_walk(value.data, value.len, &used, &flags) != CESSION_OK || used != value.len) {
        return 0;
    }
    dec d = {.state = state, .at = value.data, .canonical = !(flags & CES_MP_NOT_SHORT)};
    ces_mp_next(&d.at, &top);
    if (dec_pairs(&d, into, top.as.count, 0, false, !keep_meta) < 0) {
        if (!PyErr_Occurred()) {
            return 0;
        }
        /* an unhashable key, a number out of range; not what the data did not cause */
        if (PyErr_ExceptionMatches(PyExc_MemoryError) || !PyErr_ExceptionMatches(PyExc_Exception)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    *ret_canonical = d.canonical;
    return 1;
}
