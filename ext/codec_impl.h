/* What the codec's own files share; everybody else includes codec.h.
 *
 *   flatten.c      names of places, and other types made into the ones we store
 *   encode_walk.c  Python objects -> any format, careful with user code
 *   encode.c       the MessagePack writer, and a fast walk for plain sessions
 *   json_encode.c  the tagged JSON writer
 *   values.c       dates, integers, Decimal, UUID as numbers, bytes and text
 *   decode.c, json_decode.c   bytes -> Python objects
 *   codec_custom.c an application's own serializer
 */
#ifndef CX_CODEC_IMPL_H
#define CX_CODEC_IMPL_H

#include "attr.h"
#include "codec.h"

#include <datetime.h>
#include <stdint.h>
#include <string.h>

#include "base/msgpack.h"

/* Extension types of docs/format.md. */
enum {
    CX_EXT_TIMESTAMP = -1,
    CX_EXT_TUPLE = 1,
    CX_EXT_SET,
    CX_EXT_FROZENSET,
    CX_EXT_ODICT,
    CX_EXT_BYTEARRAY,
    CX_EXT_COMPLEX,
    CX_EXT_INT,
    CX_EXT_DECIMAL,
    CX_EXT_UUID,
    CX_EXT_MARKUP,
    CX_EXT_DATETIME,
    CX_EXT_DATE,
    CX_EXT_TIME,
    CX_EXT_TIMEDELTA
};

#define CX_META_LEN (sizeof CESSION_META_KEY - 1)

/* ---- kinds ------------------------------------------------------------------ */

/* What we store as it is. Exact types only: a subclass is CX_OTHER. */
typedef enum cx_kind {
    CX_OTHER = 0,
    CX_NONE,
    CX_BOOL,
    CX_INT,
    CX_FLOAT,
    CX_STR,
    CX_BYTES,
    CX_BYTEARRAY,
    CX_COMPLEX,
    CX_MARKUP,
    CX_UUID,
    CX_DECIMAL,
    CX_DATETIME,
    CX_DATE,
    CX_TIME,
    CX_TIMEDELTA,
    CX_LIST, /* from here on containers */
    CX_TUPLE,
    CX_DICT,
    CX_ODICT,
    CX_SET,
    CX_FROZENSET
} cx_kind;

static inline PyDateTime_CAPI *cx_datetime(const cx_codec_state *state)
{
    return (PyDateTime_CAPI *)state->datetime;
}

static inline cx_kind cx_kind_of(const cx_codec_state *state, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyUnicode_Type) {
        return CX_STR;
    }
    if (type == &PyLong_Type) {
        return CX_INT;
    }
    if (type == &PyBool_Type) {
        return CX_BOOL;
    }
    if (obj == Py_None) {
        return CX_NONE;
    }
    if (type == &PyDict_Type) {
        return CX_DICT;
    }
    if (type == &PyList_Type) {
        return CX_LIST;
    }
    if (type == &PyFloat_Type) {
        return CX_FLOAT;
    }
    if (type == &PyTuple_Type) {
        return CX_TUPLE;
    }
    if (type == &PyBytes_Type) {
        return CX_BYTES;
    }
    const PyDateTime_CAPI *dt = cx_datetime(state);
    if (type == dt->DateTimeType) {
        return CX_DATETIME;
    }
    if (type == state->markup_type) {
        return CX_MARKUP;
    }
    if (type == state->decimal_type) {
        return CX_DECIMAL;
    }
    if (type == state->uuid_type) {
        return CX_UUID;
    }
    if (type == dt->DateType) {
        return CX_DATE;
    }
    if (type == dt->TimeType) {
        return CX_TIME;
    }
    if (type == dt->DeltaType) {
        return CX_TIMEDELTA;
    }
    if (type == &PySet_Type) {
        return CX_SET;
    }
    if (type == &PyFrozenSet_Type) {
        return CX_FROZENSET;
    }
    if (type == &PyODict_Type) {
        return CX_ODICT;
    }
    if (type == &PyByteArray_Type) {
        return CX_BYTEARRAY;
    }
    if (type == &PyComplex_Type) {
        return CX_COMPLEX;
    }
    return CX_OTHER;
}

/* ---- places ----------------------------------------------------------------- */

/* A container on the way from the session to where we are, and which of its
 * children comes next. Lives on the C stack; holds no references, so it is only
 * used while the walk owns what it points to. */
typedef struct cx_path {
    const struct cx_path *up; /* NULL: container is the session */
    PyObject *container;      /* as the application has it, before flattening */
    PyObject *key;            /* of a dict, or NULL */
    Py_ssize_t index;         /* of a list or tuple; -1: an item of a set; -2: an Enum's value */
    bool at_key;              /* the key itself, not its value */
} cx_path;

/* Set exc with "session['a'][0]: " and the formatted text (PyUnicode_FromFormat).
 * Returns -1. */
int cx_fail_at(PyObject *exc, const cx_path *path, const char *format, ...);
/* Does obj occur among the containers of path? Then it contains itself. */
bool cx_path_holds(const cx_path *path, const PyObject *obj);

/* ---- the encoder -------------------------------------------------------------- */

typedef struct cx_enc cx_enc;

/* A format, as the walk needs it. Functions return 0, or -1 with an exception. */
typedef struct cx_writer {
    /* A session of plain values in one go, by borrowed references: see encode.c. 0, or -1
     * "not here", with or without an exception. */
    int (*fast)(cx_enc *e, PyObject *session);
    /* Anything but containers. */
    int (*leaf)(cx_enc *e, cx_kind kind, PyObject *obj, const cx_path *path);
    /* Around the items of a container; top: the session itself. */
    int (*open)(cx_enc *e, cx_kind kind, size_t count, bool top, size_t *ret_mark);
    int (*close)(cx_enc *e, cx_kind kind, bool top, size_t mark);
    /* Around a dict key, which is of a kind that we store. */
    int (*key_open)(cx_enc *e, PyObject *key, bool top, size_t *ret_mark);
    int (*key_close)(cx_enc *e, size_t mark);
    char between;   /* byte between items, 0: none */
    char after_key; /* byte after a key, 0: none */
} cx_writer;

/* Bytes are appended at `at`; out->len is only right between cx_sync and the
 * next append. */
struct cx_enc {
    cx_codec_state *state;
    const cx_writer *writer;
    uint8_t *at, *end;
    cession_buf *out;
    bool strict;
    bool allow_meta; /* the flow's own re-encoding keeps the reserved key */
    bool flattened;  /* something was stored as another type since this was cleared */
};

int cx_enc_begin(cx_enc *e, cx_codec_state *state, const cx_writer *writer, bool strict,
                 cession_buf *out);
/* Give the bytes to out; ok false: none of them. */
void cx_enc_end(cx_enc *e, size_t start, bool ok);
int cx_grow(cx_enc *e, size_t more);
static inline int cx_need(cx_enc *e, size_t more)
{
    return more <= (size_t)(e->end - e->at) ? 0 : cx_grow(e, more);
}
static inline size_t cx_tell(const cx_enc *e)
{
    return (size_t)(e->at - e->out->data);
}
static inline int cx_put_byte(cx_enc *e, uint8_t byte)
{
    if (cx_need(e, 1) < 0) {
        return -1;
    }
    *e->at++ = byte;
    return 0;
}
static inline int cx_put(cx_enc *e, const void *data, size_t len)
{
    if (cx_need(e, len) < 0) {
        return -1;
    }
    memcpy(e->at, data, len);
    e->at += len;
    return 0;
}

/* Encode session by the careful walk. 0, or -1 with an exception. */
int cx_walk_session(cx_enc *e, PyObject *session);
/* Must the session be read through its class's items()? */
bool cx_items_overridden(const cx_codec_state *state, PyObject *session);
/* Append the canonical form of the dict `session` (a dict or subclass; where the
 * class has items, keys or __getitem__ that are neither dict's nor the C session
 * type's, what its items() gives is encoded). strict: flattening is an error
 * (SESSION_STRICT_TYPES); allow_meta: the flow keeps the reserved key. 0, or -1:
 * TypeError and ValueError name the key path and the type, never a value (nesting
 * that is too deep or cyclic and the reserved key CESSION_META_KEY at the top level
 * are ValueErrors); OverflowError when out is too small or there are more than
 * CESSION_ENTRIES_MAX keys; MemoryError; and whatever the application's own code
 * raised. */
int cx_encode_as(cx_codec_state *state, cx_format format, PyObject *session, bool strict,
                 bool allow_meta, cession_buf *out);
extern const cx_writer cx_msgpack_writer, cx_json_writer;
/* The exception that is set as a status of a codec. */
int cx_codec_failed(cession_error *err);

/* The text of a str (or of Markup) in UTF-8, borrowed from it; NULL with ValueError naming
 * path (path NULL: some exception) for a lone surrogate. */
const char *cx_utf8(PyObject *text, const cx_path *path, size_t *ret_len);

/* Make obj, which is CX_OTHER or has a foreign tzinfo, into something simpler (a
 * new reference), which may be CX_OTHER again. in_key: it must be hashable.
 * Warns, or fails when strict. *ret_listed: a set to be written as a sorted list. */
PyObject *cx_flatten(cx_enc *e, PyObject *obj, const cx_path *path, bool in_key, bool *ret_listed);
/* A datetime or time whose tzinfo is neither None nor datetime.timezone. */
static inline bool cx_foreign_tz(const cx_codec_state *state, cx_kind kind, PyObject *obj)
{
    PyObject *tz = kind == CX_DATETIME ? PyDateTime_DATE_GET_TZINFO(obj)
                                       : PyDateTime_TIME_GET_TZINFO(obj);
    return tz != Py_None && Py_TYPE(tz) != state->timezone_type;
}

/* ---- numbers and the calendar --------------------------------------------------- */

typedef struct cx_moment {
    int year, month, day; /* of a datetime and a date */
    int hour, minute, second, fold;
    int32_t microsecond;
    bool has_offset;
    int32_t offset_s;  /* with offset_us: above -24 h, below 24 h */
    int32_t offset_us; /* 0 to 999,999 */
} cx_moment;

/* The fields of an exact datetime, date or time whose tzinfo is not foreign. */
int cx_moment_of(cx_codec_state *state, cx_kind kind, PyObject *obj, cx_moment *ret_moment);
/* Is every field in its range? kind as above. */
bool cx_moment_valid(cx_kind kind, const cx_moment *moment);
/* A valid moment as an object. */
PyObject *cx_moment_make(cx_codec_state *state, cx_kind kind, const cx_moment *moment);
/* Seconds since 1970 of the fields taken as UTC, and back; the latter is false
 * outside the years 1 to 9999. */
int64_t cx_moment_to_unix(const cx_moment *moment);
bool cx_moment_from_unix(int64_t seconds, cx_moment *ret_moment);
/* ISO text as in docs/format.md. format: at most CX_MOMENT_TEXT bytes, not terminated. */
#define CX_MOMENT_TEXT 48u
size_t cx_moment_format(cx_kind kind, const cx_moment *moment, char *text);
bool cx_moment_parse(cx_kind kind, const char *text, size_t len, cx_moment *ret_moment);

static inline bool cx_delta_valid(int64_t days, int64_t seconds, int64_t microseconds)
{
    return days >= -999999999 && days <= 999999999 && seconds >= 0 && seconds < 86400 &&
           microseconds >= 0 && microseconds < 1000000;
}

/* Bits of the magnitude of an exact int; the magnitude as big-endian bytes. */
size_t cx_int_bits(PyObject *obj);
bool cx_int_negative(PyObject *obj);
int cx_int_bytes(PyObject *obj, uint8_t *bytes, size_t len);
PyObject *cx_int_make(const uint8_t *magnitude, size_t len, bool negative);

/* 16 bytes of an exact UUID, and back. */
int cx_uuid_bytes(cx_codec_state *state, PyObject *uuid, uint8_t bytes[16]);
PyObject *cx_uuid_make(cx_codec_state *state, const uint8_t bytes[16]);

/* The ASCII text of an exact Decimal (a new str), independent of the context. */
PyObject *cx_decimal_text(PyObject *decimal);
/* The Decimal whose text this is. NULL without an exception when there is none. */
PyObject *cx_decimal_make(cx_codec_state *state, const char *text, size_t len);
PyObject *cx_markup_make(cx_codec_state *state, PyObject *text);

/* ---- tagged JSON ------------------------------------------------------------- */

/* The text of a finite float, as msgspec writes it; its length. */
#define CX_FLOAT_TEXT 40u
int cx_json_float(double value, char text[CX_FLOAT_TEXT], size_t *ret_len);
#define CX_JSON_INT_BITS 2048u   /* larger integers are hexadecimal text */
#define CX_JSON_NUMBER_MAX 4300u /* characters of a number that are read */

/* ---- decoders --------------------------------------------------------------- */

/* A str out of valid UTF-8; keys go through the cache. */
PyObject *cx_text(const uint8_t *utf8, size_t len);
PyObject *cx_key_text(cx_codec_state *state, const uint8_t *utf8, size_t len);

/* Decode one format into an empty dict. 1, 0 (not this format; no exception) or -1.
 * keep_meta: the reserved key stays in. On 0 and -1 `into` may hold a part. */
int cx_decode_msgpack(cx_codec_state *state, cession_span value, PyObject *into, bool keep_meta,
                      bool *ret_canonical);
int cx_decode_json(cx_codec_state *state, cession_span value, PyObject *into, bool keep_meta,
                   bool *ret_canonical);
/* Any readable format; *ret_format is set where the result is 1. */
int cx_decode_any(cx_codec_state *state, cession_span value, PyObject *into, bool keep_meta,
                  cx_format *ret_format, bool *ret_canonical);

#endif
