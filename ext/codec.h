/* Python objects <-> the stored formats. All functions need the GIL.
 *
 * DESIGN: docs/format.md lists the extension types. Encoding is deterministic;
 * plain values (None, bool, int of 64 bits, float, str, bytes, list, dict with
 * such keys) give exactly the bytes that msgspec.msgpack gives.
 */
#ifndef CX_CODEC_H
#define CX_CODEC_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include "cession/codec.h"

typedef enum cx_format { CX_MSGPACK, CX_JSON, CX_PICKLE /* only read */ } cx_format;

#define CX_KEY_CACHE 512u    /* decoded keys that are kept, a power of two */
#define CX_KEY_CACHE_LEN 32u /* bytes of the longest one */
#define CX_WARNED_MAX 256    /* types remembered as warned about; then it starts over */

/* What the codec needs of Python, found once; lives in the module state. */
typedef struct cx_codec_state {
    void *datetime; /* PyDateTime_CAPI of the datetime module, which never goes away */
    PyTypeObject *timezone_type, *decimal_type, *uuid_type, *enum_type;
    PyTypeObject *markup_type; /* NULL without markupsafe */
    PyObject *uuid_safe;       /* what UUID(...) keeps in is_safe when it is not told */
    PyObject *n_int, *n_is_safe, *n_utcoffset, *n_value, *n_items, *n_keys, *n_getitem, *n_meta;
    PyObject *n_dataclass, *n_attrs, *n_struct, *n_name;
    PyObject *warned; /* set of types that were flattened with a warning */
    PyObject *own_items, *own_keys, *own_getitem; /* of the session type; NULL: only dict's */
    PyObject *keys[CX_KEY_CACHE]; /* short ASCII str, by hash; entries may be NULL */
} cx_codec_state;

int cx_codec_state_init(cx_codec_state *state); /* 0, or -1 with an exception */
int cx_codec_state_traverse(cx_codec_state *state, visitproc visit, void *arg);
void cx_codec_state_clear(cx_codec_state *state);
/* Make the C session type known: its items, keys and __getitem__ read the dict's
 * own storage, so an instance of a subclass that keeps all three is encoded
 * from there. 0, or -1 with an exception. */
int cx_codec_set_session_type(cx_codec_state *state, PyTypeObject *type);

/* Decode a whole stored value into the given empty dict (dict or subclass; filled
 * through PyDict_SetItem, never through overrides). Reads MessagePack, tagged JSON
 * and plain pickles, whichever it is. The reserved key is left out. Returns
 *   1  decoded; *ret_canonical: certainly what encoding the result as `format` gives
 *      (never true of pickles)
 *   0  these bytes are no session; no exception is set, `into` is empty
 *  -1  exception (MemoryError)                                               */
int cx_decode_format(cx_codec_state *state, cx_format format, cession_span value, PyObject *into,
                     bool *ret_canonical);

/* A cession_codec for the flow whose canonical() goes through Python objects, so
 * that every readable format and every extension comes out canonical. It needs
 * the GIL; `state` must outlive it. */
typedef struct cx_flow_codec {
    cession_codec base;
    cx_codec_state *state;
    cx_format format;        /* of ours; says nothing where dumps is set */
    PyObject *dumps, *loads; /* of a serializer in place of ours, or NULL */
} cx_flow_codec;
void cx_flow_codec_init(cx_flow_codec *codec, cx_codec_state *state);
/* The same for tagged JSON. */
void cx_flow_codec_init_json(cx_flow_codec *codec, cx_codec_state *state);
/* codec_custom.c: the same through the methods dumps and loads, or encode and decode, of
 * the application's object. 0, or -1 with TypeError when it has neither; then there is
 * nothing to release. */
int cx_flow_codec_init_custom(cx_flow_codec *codec, cx_codec_state *state, PyObject *serializer);
void cx_flow_codec_release(cx_flow_codec *codec);

/* Encode and decode as the codec's format says: cx_encode_as, cx_decode_format. What a
 * serializer of the application's raises while encoding is passed on; what its loads does
 * not make a dict of is no session. */
int cx_flow_encode(const cx_flow_codec *codec, PyObject *session, bool strict, cession_buf *out);
int cx_flow_decode(const cx_flow_codec *codec, cession_span value, PyObject *into,
                   bool *ret_canonical);

/* Module-level functions for tests and tools:
 *   encode(mapping, /, *, strict=False) -> bytes
 *   encode_json(mapping, /, *, strict=False) -> bytes
 *   decode(value, /) -> dict          (ValueError when it is no session)
 *   decode_checked(value, format, /) -> (dict, canonical)    format: "msgpack", "json"
 *   canonical(value, format, /) -> bytes               the flow codec's functions;
 *   view(value, format, /) -> list of (key, value)     ValueError on E_FORMAT
 *   compose(entries, format, /) -> bytes
 * The table has a NULL entry at the end. */
extern PyMethodDef cx_codec_methods[];

/* The module hands its codec state to those functions through this. Defined in
 * module.c. */
cx_codec_state *cx_codec_state_of(PyObject *module);

#endif
