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

/* Types of the standard library and of markupsafe, imported once; lives in the
 * module state. */
typedef struct cx_codec_state {
    PyObject *datetime_type, *date_type, *time_type, *timedelta_type, *timezone_type, *utc;
    PyObject *decimal_type, *uuid_type, *markup_type /* NULL without markupsafe */;
    PyObject *ordereddict_type, *enum_type, *dataclass_fields /* "__dataclass_fields__" */;
    PyObject *warned; /* set of types that were flattened with a warning */
    PyObject *spare[16];
} cx_codec_state;

int cx_codec_state_init(cx_codec_state *state);     /* 0, or -1 with an exception */
int cx_codec_state_traverse(cx_codec_state *state, visitproc visit, void *arg);
void cx_codec_state_clear(cx_codec_state *state);

/* Append the canonical MessagePack of the dict `session` (a dict or subclass; an
 * override of items() in a subclass is honoured when it is a subclass of the
 * C session type with its own `items`). strict: flattening is an error
 * (SESSION_STRICT_TYPES). 0, or -1 with TypeError / ValueError / OverflowError /
 * RecursionError that names the key path and the type, never a value. The
 * reserved key CESSION_META_KEY at the top level is a ValueError. */
int cx_encode(cx_codec_state *state, PyObject *session, bool strict, cession_buf *out);

/* Decode a whole stored value into the given empty dict (dict or subclass; filled
 * through PyDict_SetItem, never through overrides). Reads MessagePack, and what
 * further formats are compiled in. Returns
 *   1  decoded; *ret_canonical: certainly what cx_encode of the result gives
 *   0  these bytes are no session; no exception is set, `into` is empty
 *  -1  exception (MemoryError)                                               */
int cx_decode(cx_codec_state *state, cession_span value, PyObject *into, bool *ret_canonical);

/* A cession_codec for the flow whose canonical() goes through Python objects, so
 * that every readable format and every extension comes out canonical. It needs
 * the GIL; `state` must outlive it. */
typedef struct cx_flow_codec {
    cession_codec base;
    cx_codec_state *state;
} cx_flow_codec;
void cx_flow_codec_init(cx_flow_codec *codec, cx_codec_state *state);

/* Module-level functions for tests and tools:
 *   encode(mapping, /, *, strict=False) -> bytes
 *   decode(value, /) -> dict          (ValueError when it is no session)
 * The table has a NULL entry at the end. */
extern PyMethodDef cx_codec_methods[];

/* The module hands its codec state to those functions through this. Defined in
 * module.c. */
cx_codec_state *cx_codec_state_of(PyObject *module);

#endif
