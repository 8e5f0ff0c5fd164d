/* Shared by the three parts of the pickle reader: the machine (pickle.c), the
 * shapes that stand for objects (pickle_object.c), the writer (pickle_write.c).
 *
 * Memory is bounded by the number of items, not by what a pickle claims: nodes,
 * the cells of containers, stack and memo are arrays addressed by 32-bit indexes.
 * Text and bytes stay where they lie in the pickle, or in `scratch` when they had
 * to be made. All functions give OK, E_NOMEM or E_FORMAT. */
#ifndef CES_SESSION_PICKLE_IMPL_H
#define CES_SESSION_PICKLE_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cession/buf.h"

#define CES_PICKLE_ITEMS_MAX (1u << 22)

typedef enum ces_pickle_kind {
    CES_PK_NONE = 0,
    CES_PK_BOOL,      /* as.u */
    CES_PK_INT,       /* as.i */
    CES_PK_UINT,      /* as.u, above INT64_MAX */
    CES_PK_BIGINT,    /* as.bytes: the payload of the extension, sign and magnitude */
    CES_PK_DOUBLE,    /* as.d */
    CES_PK_STR,       /* as.bytes, valid UTF-8; so are the other texts */
    CES_PK_BYTES,     /* as.bytes */
    CES_PK_BYTEARRAY, /* as.bytes */
    CES_PK_LIST,      /* as.items; so are the containers that follow */
    CES_PK_TUPLE,
    CES_PK_SET,
    CES_PK_FROZENSET,
    CES_PK_DICT, /* keys and values in turn */
    CES_PK_ODICT,
    CES_PK_GLOBAL,    /* as.u, a ces_pickle_global */
    CES_PK_MARKUP,    /* as.bytes */
    CES_PK_DECIMAL,   /* as.bytes */
    CES_PK_UUID,      /* as.bytes, 16 of them, or none: made, but not yet set */
    CES_PK_DATE,      /* as.bytes, checked: 4, as datetime pickles them */
    CES_PK_TIME,      /* 6; extra: the time zone's node or 0 */
    CES_PK_DATETIME,  /* 10; extra the same */
    CES_PK_TIMEDELTA, /* as.delta */
    CES_PK_TIMEZONE   /* as.delta, checked to be within a day */
} ces_pickle_kind;

/* Names that a pickle may mention. */
typedef enum ces_pickle_global {
    CES_PG_SET,
    CES_PG_FROZENSET,
    CES_PG_BYTES,
    CES_PG_BYTEARRAY,
    CES_PG_OBJECT,
    CES_PG_STR,
    CES_PG_ENCODE,
    CES_PG_RECONSTRUCTOR,
    CES_PG_ORDEREDDICT,
    CES_PG_DATETIME,
    CES_PG_DATE,
    CES_PG_TIME,
    CES_PG_TIMEDELTA,
    CES_PG_TIMEZONE,
    CES_PG_DECIMAL,
    CES_PG_UUID,
    CES_PG_MARKUP
} ces_pickle_global;

typedef struct ces_pickle_node {
    uint8_t kind;    /* ces_pickle_kind */
    bool in_scratch; /* as.bytes.at counts from the start of scratch, not of the pickle */
    uint32_t extra;  /* containers: the last cell; times: the time zone; deltas: days (int32_t) */
    union {
        int64_t i;
        uint64_t u;
        double d;
        struct {
            uint32_t at, len;
        } bytes;
        struct {
            uint32_t first, count; /* cells; first means nothing while count is 0 */
        } items;
        struct {
            uint32_t seconds, microseconds;
        } delta;
    } as;
} ces_pickle_node;

typedef struct ces_pickle_cell {
    uint32_t node, next;
} ces_pickle_cell;

typedef struct ces_pickle {
    cession_span in;
    size_t at; /* bytes of in that are read */
    cession_buf scratch;
    ces_pickle_node *nodes;
    size_t node_count, node_cap;
    ces_pickle_cell *cells;
    size_t cell_count, cell_cap;
    uint32_t *stack;
    size_t stack_count, stack_cap;
    uint32_t *memo; /* node of each memo number, 0: unset */
    size_t memo_count, memo_cap;
    size_t memo_next; /* the number that MEMOIZE gives */
    size_t work;      /* bytes looked at again through the memo */
} ces_pickle;

/* A node of this kind, all else zero. */
int ces_pickle_add(ces_pickle *p, ces_pickle_kind kind, uint32_t *ret_node);
/* The bytes of a node that has some. Valid until scratch grows. */
cession_span ces_pickle_bytes(const ces_pickle *p, const ces_pickle_node *node);
/* Account for len bytes of repeated work; E_FORMAT when it gets too much. */
int ces_pickle_charge(ces_pickle *p, size_t len);
/* Grow an array of elements of `size` bytes to at least need. */
int ces_pickle_grow(void **array, size_t *cap, size_t need, size_t size);

/* ---- pickle_object.c -------------------------------------------------------- */

/* The global of this name. */
int ces_pickle_find_global(ces_pickle *p, cession_span module, cession_span name,
                           uint32_t *ret_node);
/* callable(*args): REDUCE. */
int ces_pickle_call(ces_pickle *p, uint32_t callable, uint32_t args, uint32_t *ret_node);
/* cls.__new__(cls, *args): NEWOBJ. */
int ces_pickle_new(ces_pickle *p, uint32_t cls, uint32_t args, uint32_t *ret_node);
/* object.__setstate__(state), or what stands for it: BUILD. */
int ces_pickle_set_state(ces_pickle *p, uint32_t object, uint32_t state);
/* An integer of sign and big-endian magnitude, in whichever kind it fits. */
int ces_pickle_integer(ces_pickle *p, bool negative, const uint8_t *magnitude, size_t len,
                       uint32_t *ret_node);

/* ---- pickle_write.c --------------------------------------------------------- */

/* Append the item of a node. */
int ces_pickle_write(const ces_pickle *p, uint32_t node, cession_buf *out);

#endif
