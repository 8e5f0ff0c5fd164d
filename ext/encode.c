/* Python objects -> canonical MessagePack; and the choice of the walk.
 *
 * Each format has two walks. The fast one takes sessions of plain values: it runs no
 * code but the interpreter's own and allocates nothing that the garbage collector
 * knows, so no finalizer and no other thread gets in, and borrowed references are
 * safe throughout. At anything else, errors included, it gives up, and the careful
 * walk (encode_walk.c) starts over. */
#include "codec_impl.h"

/* ---- the writer ----------------------------------------------------------------- */

static inline uint8_t *store16(uint8_t *p, uint64_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
    return p + 2;
}

static inline uint8_t *store32(uint8_t *p, uint64_t value)
{
    value = __builtin_bswap32((uint32_t)value);
    memcpy(p, &value, 4);
    return p + 4;
}

static inline uint8_t *store64(uint8_t *p, uint64_t value)
{
    value = __builtin_bswap64(value);
    memcpy(p, &value, 8);
    return p + 8;
}

#define HEADER_MAX 9u /* the longest header or number */

static inline int put_uint(cx_enc *e, uint64_t value)
{
    if (cx_need(e, HEADER_MAX) < 0) {
        return -1;
    }
    if (value < 128) {
        *e->at++ = (uint8_t)value;
    } else if (value <= UINT8_MAX) {
        *e->at++ = 0xcc;
        *e->at++ = (uint8_t)value;
    } else if (value <= UINT16_MAX) {
        *e->at++ = 0xcd;
        e->at = store16(e->at, value);
    } else if (value <= UINT32_MAX) {
        *e->at++ = 0xce;
        e->at = store32(e->at, value);
    } else {
        *e->at++ = 0xcf;
        e->at = store64(e->at, value);
    }
    return 0;
}

static int put_negative(cx_enc *e, int64_t value)
{
    uint64_t bits = (uint64_t)value;
    if (cx_need(e, HEADER_MAX) < 0) {
        return -1;
    }
    if (value >= -32) {
        *e->at++ = (uint8_t)bits;
    } else if (value >= INT8_MIN) {
        *e->at++ = 0xd0;
        *e->at++ = (uint8_t)bits;
    } else if (value >= INT16_MIN) {
        *e->at++ = 0xd1;
        e->at = store16(e->at, bits);
    } else if (value >= INT32_MIN) {
        *e->at++ = 0xd2;
        e->at = store32(e->at, bits);
    } else {
        *e->at++ = 0xd3;
        e->at = store64(e->at, bits);
    }
    return 0;
}

static inline int put_double(cx_enc *e, double value)
{
    uint64_t bits;
    if (cx_need(e, HEADER_MAX) < 0) {
        return -1;
    }
    memcpy(&bits, &value, sizeof bits);
    *e->at++ = 0xcb;
    e->at = store64(e->at, bits);
    return 0;
}

static int too_large(void)
{
    PyErr_SetString(PyExc_OverflowError, "a value of the session has more than 2**32 - 1 bytes");
    return -1;
}

/* A header of 16 or 32 bits of length; code32 is code16 + 1. */
static int put_long_header(cx_enc *e, uint8_t code16, size_t len)
{
    if (len > UINT32_MAX) {
        return too_large();
    }
    if (cx_need(e, HEADER_MAX) < 0) {
        return -1;
    }
    if (len <= UINT16_MAX) {
        *e->at++ = code16;
        e->at = store16(e->at, len);
    } else {
        *e->at++ = (uint8_t)(code16 + 1);
        e->at = store32(e->at, len);
    }
    return 0;
}

static inline int put_str(cx_enc *e, const char *utf8, size_t len)
{
    if (cx_need(e, len + HEADER_MAX) < 0) {
        return -1;
    }
    if (len < 32) {
        *e->at++ = (uint8_t)(0xa0 | len);
    } else if (len <= UINT8_MAX) {
        *e->at++ = 0xd9;
        *e->at++ = (uint8_t)len;
    } else if (put_long_header(e, 0xda, len) < 0) {
        return -1;
    }
    return cx_put(e, utf8, len);
}

static int put_bin(cx_enc *e, const char *data, size_t len)
{
    if (len <= UINT8_MAX) {
        uint8_t head[2] = {0xc4, (uint8_t)len};
        return cx_put(e, head, 2) < 0 ? -1 : cx_put(e, data, len);
    }
    return put_long_header(e, 0xc5, len) < 0 ? -1 : cx_put(e, data, len);
}

static inline int put_count(cx_enc *e, uint8_t fix, uint8_t code16, size_t count)
{
    return count < 16 ? cx_put_byte(e, (uint8_t)(fix | count)) : put_long_header(e, code16, count);
}

static inline int put_array(cx_enc *e, size_t count)
{
    return put_count(e, 0x90, 0xdc, count);
}

static inline int put_map(cx_enc *e, size_t count)
{
    return put_count(e, 0x80, 0xde, count);
}

/* The header of an extension into head; its length. */
static size_t ext_header(uint8_t head[6], int type, size_t len)
{
    uint8_t *p = head;
    if (len == 1 || len == 2 || len == 4 || len == 8 || len == 16) {
        *p++ = (uint8_t)(0xd4 + __builtin_ctzll(len));
    } else if (len <= UINT8_MAX) {
        *p++ = 0xc7;
        *p++ = (uint8_t)len;
    } else if (len <= UINT16_MAX) {
        *p++ = 0xc8;
        p = store16(p, len);
    } else {
        *p++ = 0xc9;
        p = store32(p, len);
    }
    *p++ = (uint8_t)type;
    return (size_t)(p - head);
}

static int put_ext(cx_enc *e, int type, const void *data, size_t len)
{
    uint8_t head[6];
    if (len > UINT32_MAX) {
        return too_large();
    }
    return cx_put(e, head, ext_header(head, type, len)) < 0 ? -1 : cx_put(e, data, len);
}

/* An extension whose payload is written in place: most are short, so room for the
 * header of those is left, and the payload moved where that was wrong. */
#define EXT_GUESS 3u

static int ext_open(cx_enc *e, size_t *ret_mark)
{
    *ret_mark = cx_tell(e);
    if (cx_need(e, EXT_GUESS) < 0) {
        return -1;
    }
    memset(e->at, 0, EXT_GUESS);
    e->at += EXT_GUESS;
    return 0;
}

static int ext_close(cx_enc *e, int type, size_t mark)
{
    uint8_t head[6];
    size_t len = cx_tell(e) - mark - EXT_GUESS;
    if (len > UINT32_MAX) {
        return too_large();
    }
    size_t head_len = ext_header(head, type, len);
    if (cx_need(e, sizeof head) < 0) {
        return -1;
    }
    uint8_t *start = e->out->data + mark;
    if (head_len != EXT_GUESS) {
        memmove(start + head_len, start + EXT_GUESS, len);
    }
    memcpy(start, head, head_len);
    e->at = start + head_len + len;
    return 0;
}

/* ---- leaves --------------------------------------------------------------------- */

static int put_int(cx_enc *e, PyObject *obj)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(obj, &overflow);
    if (overflow == 0) {
        return value >= 0 ? put_uint(e, (uint64_t)value) : put_negative(e, value);
    }
    size_t bits = cx_int_bits(obj);
    if (overflow > 0 && bits <= 64) {
        return put_uint(e, PyLong_AsUnsignedLongLong(obj));
    }
    size_t len = bits / 8 + (bits % 8 != 0), mark;
    if (ext_open(e, &mark) < 0 || cx_put_byte(e, overflow < 0) < 0 || cx_need(e, len) < 0 ||
        cx_int_bytes(obj, e->at, len) < 0) {
        return -1;
    }
    e->at += len;
    return ext_close(e, CX_EXT_INT, mark);
}

static uint8_t *store_clock(uint8_t *p, const cx_moment *m)
{
    *p++ = (uint8_t)m->hour;
    *p++ = (uint8_t)m->minute;
    *p++ = (uint8_t)m->second;
    *p++ = (uint8_t)m->fold;
    p = store32(p, (uint64_t)m->microsecond);
    if (m->has_offset) {
        p = store32(p, (uint64_t)m->offset_s);
        p = store32(p, (uint64_t)m->offset_us);
    }
    return p;
}

static int put_timestamp(cx_enc *e, const cx_moment *m)
{
    uint8_t data[12], *p = data;
    int64_t seconds = cx_moment_to_unix(m);
    uint64_t nanoseconds = (uint64_t)m->microsecond * 1000;
    if (seconds < 0 || seconds >> 34 != 0) {
        p = store32(p, nanoseconds);
        p = store64(p, (uint64_t)seconds);
    } else if (nanoseconds == 0 && seconds <= UINT32_MAX) {
        p = store32(p, (uint64_t)seconds);
    } else {
        p = store64(p, nanoseconds << 34 | (uint64_t)seconds);
    }
    return put_ext(e, CX_EXT_TIMESTAMP, data, (size_t)(p - data));
}

static int put_moment(cx_enc *e, cx_kind kind, PyObject *obj)
{
    cx_moment m;
    uint8_t data[20], *p = data;
    if (cx_moment_of(e->state, kind, obj, &m) < 0) {
        return -1;
    }
    if (kind == CX_TIME) {
        p = store_clock(p, &m);
        return put_ext(e, CX_EXT_TIME, data, (size_t)(p - data));
    }
    if (kind == CX_DATETIME && m.has_offset && m.offset_s == 0 && m.offset_us == 0 && !m.fold) {
        return put_timestamp(e, &m);
    }
    p = store16(p, (uint64_t)m.year);
    *p++ = (uint8_t)m.month;
    *p++ = (uint8_t)m.day;
    if (kind == CX_DATE) {
        return put_ext(e, CX_EXT_DATE, data, (size_t)(p - data));
    }
    p = store_clock(p, &m);
    return put_ext(e, CX_EXT_DATETIME, data, (size_t)(p - data));
}

static int put_timedelta(cx_enc *e, PyObject *obj)
{
    uint8_t data[12];
    store32(data, (uint64_t)PyDateTime_DELTA_GET_DAYS(obj));
    store32(data + 4, (uint64_t)PyDateTime_DELTA_GET_SECONDS(obj));
    store32(data + 8, (uint64_t)PyDateTime_DELTA_GET_MICROSECONDS(obj));
    return put_ext(e, CX_EXT_TIMEDELTA, data, sizeof data);
}

static int put_complex(cx_enc *e, PyObject *obj)
{
    Py_complex value = ((PyComplexObject *)obj)->cval;
    uint64_t bits;
    uint8_t data[16];
    memcpy(&bits, &value.real, sizeof bits);
    store64(data, bits);
    memcpy(&bits, &value.imag, sizeof bits);
    store64(data + 8, bits);
    return put_ext(e, CX_EXT_COMPLEX, data, sizeof data);
}

static int put_decimal(cx_enc *e, PyObject *obj)
{
    PyObject *text = cx_decimal_text(obj);
    if (!text) {
        return -1;
    }
    size_t len;
    const char *ascii = cx_utf8(text, NULL, &len);
    int result = ascii ? put_ext(e, CX_EXT_DECIMAL, ascii, len) : -1;
    Py_DECREF(text);
    return result;
}

static int leaf(cx_enc *e, cx_kind kind, PyObject *obj, const cx_path *path)
{
    size_t len;
    switch (kind) {
    case CX_NONE:
        return cx_put_byte(e, 0xc0);
    case CX_BOOL:
        return cx_put_byte(e, obj == Py_True ? 0xc3 : 0xc2);
    case CX_INT:
        return put_int(e, obj);
    case CX_FLOAT:
        return put_double(e, PyFloat_AS_DOUBLE(obj));
    case CX_STR:
    case CX_MARKUP: {
        const char *utf8 = cx_utf8(obj, path, &len);
        if (!utf8) {
            return -1;
        }
        return kind == CX_STR ? put_str(e, utf8, len) : put_ext(e, CX_EXT_MARKUP, utf8, len);
    }
    case CX_BYTES:
        return put_bin(e, PyBytes_AS_STRING(obj), (size_t)PyBytes_GET_SIZE(obj));
    case CX_BYTEARRAY:
        return put_ext(e, CX_EXT_BYTEARRAY, PyByteArray_AS_STRING(obj),
                       (size_t)PyByteArray_GET_SIZE(obj));
    case CX_COMPLEX:
        return put_complex(e, obj);
    case CX_UUID: {
        uint8_t bytes[16];
        return cx_uuid_bytes(e->state, obj, bytes) < 0 ? -1 : put_ext(e, CX_EXT_UUID, bytes, 16);
    }
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

/* ---- containers, for the careful walk ----------------------------------------------- */

static int container_ext(cx_kind kind)
{
    switch (kind) {
    case CX_TUPLE:
        return CX_EXT_TUPLE;
    case CX_SET:
        return CX_EXT_SET;
    case CX_FROZENSET:
        return CX_EXT_FROZENSET;
    case CX_ODICT:
        return CX_EXT_ODICT;
    default:
        return 0;
    }
}

static int container_open(cx_enc *e, cx_kind kind, size_t count, bool top, size_t *ret_mark)
{
    (void)top;
    *ret_mark = 0;
    if (container_ext(kind) != 0 && ext_open(e, ret_mark) < 0) {
        return -1;
    }
    return kind == CX_DICT || kind == CX_ODICT ? put_map(e, count) : put_array(e, count);
}

static int container_close(cx_enc *e, cx_kind kind, bool top, size_t mark)
{
    (void)top;
    int type = container_ext(kind);
    return type == 0 ? 0 : ext_close(e, type, mark);
}

static int key_open(cx_enc *e, PyObject *key, bool top, size_t *ret_mark)
{
    (void)e, (void)key, (void)top;
    *ret_mark = 0;
    return 0;
}

static int key_close(cx_enc *e, size_t mark)
{
    (void)e, (void)mark;
    return 0;
}

/* ---- the fast walk: 0, or -1 "not here", with or without an exception ------------------ */

static int fast_pairs(cx_enc *e, PyObject *dict, unsigned depth);

static inline int fast_text(cx_enc *e, PyObject *text)
{
    size_t len;
    const char *utf8 = cx_utf8(text, NULL, &len);
    return utf8 ? put_str(e, utf8, len) : -1;
}

static int fast_value(cx_enc *e, PyObject *obj, unsigned depth)
{
    cx_kind kind = cx_kind_of(e->state, obj);
    switch (kind) {
    case CX_STR:
        return fast_text(e, obj);
    case CX_INT:
        return put_int(e, obj);
    case CX_DICT:
        return fast_pairs(e, obj, depth);
    case CX_LIST: {
        Py_ssize_t count = PyList_GET_SIZE(obj);
        if (depth >= CES_MP_DEPTH_MAX || put_array(e, (size_t)count) < 0) {
            return -1;
        }
        for (Py_ssize_t i = 0; i < count; i++) {
            if (fast_value(e, PyList_GET_ITEM(obj, i), depth + 1) < 0) {
                return -1;
            }
        }
        return 0;
    }
    case CX_TUPLE: {
        Py_ssize_t count = PyTuple_GET_SIZE(obj);
        size_t mark;
        if (depth >= CES_MP_DEPTH_MAX || ext_open(e, &mark) < 0 ||
            put_array(e, (size_t)count) < 0) {
            return -1;
        }
        for (Py_ssize_t i = 0; i < count; i++) {
            if (fast_value(e, PyTuple_GET_ITEM(obj, i), depth + 1) < 0) {
                return -1;
            }
        }
        return ext_close(e, CX_EXT_TUPLE, mark);
    }
    case CX_DATETIME:
    case CX_TIME:
        return cx_foreign_tz(e->state, kind, obj) ? -1 : put_moment(e, kind, obj);
    case CX_NONE:
    case CX_BOOL:
    case CX_FLOAT:
    case CX_BYTES:
    case CX_BYTEARRAY:
    case CX_COMPLEX:
    case CX_MARKUP:
    case CX_UUID:
    case CX_DATE:
    case CX_TIMEDELTA:
        return leaf(e, kind, obj, NULL);
    default: /* Decimal asks for a context, sets must be listed, ... */
        return -1;
    }
}

static int fast_pairs(cx_enc *e, PyObject *dict, unsigned depth)
{
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    if (depth >= CES_MP_DEPTH_MAX || put_map(e, (size_t)PyDict_GET_SIZE(dict)) < 0) {
        return -1;
    }
    while (PyDict_Next(dict, &pos, &key, &value)) {
        switch (cx_kind_of(e->state, key)) {
        case CX_STR:
            if (fast_text(e, key) < 0) {
                return -1;
            }
            break;
        case CX_INT:
        case CX_NONE:
        case CX_BOOL:
        case CX_BYTES:
            if (fast_value(e, key, depth + 1) < 0) {
                return -1;
            }
            break;
        default:
            return -1;
        }
        if (fast_value(e, value, depth + 1) < 0) {
            return -1;
        }
    }
    return 0;
}

static int fast_session(cx_enc *e, PyObject *session)
{
    return fast_pairs(e, session, 0);
}

const cx_writer cx_msgpack_writer = {
    .fast = fast_session,
    .leaf = leaf,
    .open = container_open,
    .close = container_close,
    .key_open = key_open,
    .key_close = key_close,
};

/* ---- either format ---------------------------------------------------------------- */

static bool holds_meta(const cx_codec_state *state, PyObject *session)
{
    int held = PyDict_Contains(session, state->n_meta);
    if (held < 0) {
        PyErr_Clear(); /* a key's own __eq__; the careful walk asks no key */
    }
    return held != 0;
}

int cx_encode_as(cx_codec_state *state, cx_format format, PyObject *session, bool strict,
                 bool allow_meta, cession_buf *out)
{
    cx_enc e;
    size_t start = out->len;
    if (!PyDict_Check(session)) {
        PyErr_Format(PyExc_TypeError, "a session is a dict, not %.100s", Py_TYPE(session)->tp_name);
        return -1;
    }
    const cx_writer *writer = format == CX_JSON ? &cx_json_writer : &cx_msgpack_writer;
    if (cx_enc_begin(&e, state, writer, strict, out) < 0) {
        return -1;
    }
    e.allow_meta = allow_meta;
    if (!cx_items_overridden(state, session) && PyDict_GET_SIZE(session) <= CESSION_ENTRIES_MAX &&
        (allow_meta || !holds_meta(state, session))) {
        if (writer->fast(&e, session) == 0) {
            cx_enc_end(&e, start, true);
            return 0;
        }
        PyErr_Clear();
        e.at = out->data + start;
    }
    int result = cx_walk_session(&e, session);
    cx_enc_end(&e, start, result == 0);
    return result;
}
