/* Values that other programs left as Python pickles, read without Python.
 *
 * A pickle is a program for a stack machine that may name and call anything. This
 * reader builds plain data only: dict, list, tuple, set, frozenset, str, bytes,
 * bytearray, int, float, bool, None, and of datetime (datetime, date, time,
 * timedelta, timezone as an offset), decimal.Decimal, uuid.UUID,
 * collections.OrderedDict and markupsafe.Markup what CPython's own pickler writes
 * for exactly these, protocols 0 to 5. Names are compared with a table and
 * nothing is imported or called: whatever else a pickle asks for, it is refused. */
#ifndef CES_SESSION_PICKLE_H
#define CES_SESSION_PICKLE_H

#include "cession/buf.h"

/* Replace the content of out by the MessagePack (docs/format.md, canonical) of a
 * pickled dict. E_FORMAT: not a pickle, not of plain data, not a dict, deeper than
 * CES_MP_DEPTH_MAX (so also anything that contains itself), larger than
 * CESSION_VALUE_MAX when written out, or of more than four million items. E_NOMEM;
 * E_LIMIT: out is too small. On failure out stays as it was. */
int ces_pickle_to_msgpack(cession_span pickle, cession_buf *out, cession_error *err);

#endif
