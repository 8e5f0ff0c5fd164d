/* MessagePack primitives: writer into a cession_buf, a validating walker, and a
 * reader that assumes walked bytes. Source: the MessagePack specification,
 * https://github.com/msgpack/msgpack/blob/master/spec.md
 *
 * The writer always chooses the shortest form, so equal values give equal
 * bytes; floats are always 64 bits (as msgspec and msgpack-python write them).
 */
#ifndef CES_BASE_MSGPACK_H
#define CES_BASE_MSGPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cession/buf.h"

#define CES_MP_DEPTH_MAX 128u /* nesting of arrays, maps and container extensions */

/* ---- writer: OK, E_NOMEM, E_LIMIT ---------------------------------------- */
int ces_mp_nil(cession_buf *out);
int ces_mp_bool(cession_buf *out, bool value);
int ces_mp_int(cession_buf *out, int64_t value);
int ces_mp_uint(cession_buf *out, uint64_t value);
int ces_mp_double(cession_buf *out, double value);
int ces_mp_str(cession_buf *out, const char *utf8, size_t len);
int ces_mp_bin(cession_buf *out, const void *data, size_t len);
int ces_mp_array(cession_buf *out, size_t count);
int ces_mp_map(cession_buf *out, size_t count);
int ces_mp_ext(cession_buf *out, int8_t type, const void *data, size_t len);
/* Extension whose payload is written in place: begin gives a mark, end patches
 * the shortest header in front of what was appended since (moves bytes). */
int ces_mp_ext_begin(cession_buf *out, size_t *ret_mark);
int ces_mp_ext_end(cession_buf *out, size_t mark, int8_t type);

/* ---- walker --------------------------------------------------------------- */

/* What ces_mp_walk saw. */
enum {
    CES_MP_HAS_EXT = 1u << 0,  /* at least one extension item */
    CES_MP_NOT_SHORT = 1u << 1 /* something not in the writer's form: a longer
                                  header than needed, a 32-bit float, ... */
};
/* Validate one complete item at the start of [data, data+len): headers, lengths,
 * UTF-8 of strings, nesting, map and array counts against the bytes left.
 * Extension payloads are opaque here. OK: *ret_len bytes belong to it,
 * *ret_flags as above (either may be NULL). E_FORMAT otherwise. Never reads
 * outside; bounded stack. */
int ces_mp_walk(const uint8_t *data, size_t len, size_t *ret_len, unsigned *ret_flags);

/* Valid UTF-8 (no surrogates, no overlong forms, at most U+10FFFF). */
bool ces_utf8_valid(const uint8_t *data, size_t len);

/* ---- reader: only over walked bytes --------------------------------------- */
typedef enum ces_mp_type {
    CES_MP_NIL,
    CES_MP_BOOL,
    CES_MP_INT,
    CES_MP_UINT,
    CES_MP_DOUBLE,
    CES_MP_STR,
    CES_MP_BIN,
    CES_MP_ARRAY,
    CES_MP_MAP,
    CES_MP_EXT
} ces_mp_type;
typedef struct ces_mp_item {
    ces_mp_type type;
    union {
        bool b;
        int64_t i;  /* INT: negative values */
        uint64_t u; /* UINT: zero and above */
        double d;   /* float32 widened */
        struct {
            const uint8_t *data;
            size_t len;
        } bytes;      /* STR, BIN, EXT payload */
        size_t count; /* ARRAY items, MAP pairs */
    } as;
    int8_t ext_type;
} ces_mp_item;
/* Read the item at *at and advance: past the whole item for scalars, strings and
 * extensions, past the header for arrays and maps. */
void ces_mp_next(const uint8_t **at, ces_mp_item *ret_item);
/* Skip one complete item. */
void ces_mp_skip(const uint8_t **at);

#endif
