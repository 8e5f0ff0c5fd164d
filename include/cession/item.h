/* Items: the values of a session as C programs read and write them.
 *
 * A session is a MessagePack map; each of its keys and values is one encoded
 * item. cession_item_read takes such bytes apart step by step, cession_item_write
 * puts them together. What Python has and MessagePack has not (tuple, set,
 * datetime, Decimal, ...) are extensions; docs/format.md lists their payloads.
 *
 *     {"user": "alice", "cart": [1, 2]}
 *     value of "cart": ARRAY, count 2; then two more reads: INT 1, INT 2
 *
 * Ownership: the spans of an item lie in the bytes that were read.
 * Threads: everything here is pure.
 */
#ifndef CESSION_ITEM_H
#define CESSION_ITEM_H

#include <stdbool.h>
#include <stdint.h>

#include "cession/buf.h"
#include "cession/error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CESSION_ITEM_DEPTH_MAX 128u /* nesting of arrays and maps, the session itself included */

/* What an item is, and which member of cession_item.as holds it. */
typedef enum cession_item_type {
    CESSION_ITEM_NIL = 0, /* None; no member */
    CESSION_ITEM_BOOL,    /* boolean */
    CESSION_ITEM_INT,     /* integer: whatever fits into 64 bits with a sign */
    CESSION_ITEM_UINT,    /* natural: larger than INT64_MAX */
    CESSION_ITEM_DOUBLE,  /* number */
    CESSION_ITEM_TEXT,    /* bytes: UTF-8, not terminated, may contain NUL */
    CESSION_ITEM_BYTES,   /* bytes */
    CESSION_ITEM_ARRAY,   /* count items follow */
    CESSION_ITEM_MAP,     /* count pairs of items follow: key, value, key, value, ... */
    CESSION_ITEM_EXT      /* bytes: the payload; extension is its number */
} cession_item_type;

typedef struct cession_item {
    cession_item_type type;
    int8_t extension; /* of EXT, else 0 */
    union {
        bool boolean;
        int64_t integer;
        uint64_t natural;
        double number;
        cession_span bytes;
        size_t count;
    } as;
} cession_item;

/* Read the item at the start of *rest and move *rest past it: past the whole of
 * it, or past the header of an array or map, whose items are read next. OK;
 * E_FORMAT: *rest is empty or does not begin with one complete valid item
 * (both outputs stay as they were). */
CESSION_API int cession_item_read(cession_span *rest, cession_item *ret_item) CESSION_MUST_CHECK;

/* Move *rest past one complete item, arrays and maps with all that is in them.
 * OK or E_FORMAT, as cession_item_read. */
CESSION_API int cession_item_skip(cession_span *rest) CESSION_MUST_CHECK;

/* Append an item in the canonical form: shortest header, 64-bit floats. Of an
 * array or map the header only: write its items next. OK, E_NOMEM, E_LIMIT (the
 * buffer's maximum, or more than 2^32 - 1 bytes or items); E_INVALID: a text that
 * is not UTF-8, or no such type. Nothing is appended on failure. */
CESSION_API int cession_item_write(const cession_item *item, cession_buf *out) CESSION_MUST_CHECK;

/* Items to be written. Text and bytes are borrowed. */
static inline cession_item cession_item_text(const char *utf8)
{
    cession_item item;
    item.type = CESSION_ITEM_TEXT;
    item.extension = 0;
    item.as.bytes = cession_span_str(utf8);
    return item;
}
static inline cession_item cession_item_int(int64_t integer)
{
    cession_item item;
    item.type = CESSION_ITEM_INT;
    item.extension = 0;
    item.as.integer = integer;
    return item;
}
static inline cession_item cession_item_bool(bool boolean)
{
    cession_item item;
    item.type = CESSION_ITEM_BOOL;
    item.extension = 0;
    item.as.boolean = boolean;
    return item;
}

#ifdef __cplusplus
}
#endif
#endif
