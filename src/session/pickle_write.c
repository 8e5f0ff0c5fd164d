/* The nodes of a pickle as MessagePack in the canonical form of docs/format.md.
 *
 * Nodes may be shared and may contain themselves. Every visit writes at least one
 * byte that stays, so the maximum of the output bounds the work; a cycle runs into
 * the bound of the depth on its first way down. */
#include "session/pickle_impl.h"

#include "base/alloc.h"
#include "base/msgpack.h"
#include "session/keys.h"
#include "base/banned.h"

/* Extension numbers, docs/format.md. */
enum {
    EXT_TIMESTAMP = -1,
    EXT_TUPLE = 1,
    EXT_SET = 2,
    EXT_FROZENSET = 3,
    EXT_ODICT = 4,
    EXT_BYTEARRAY = 5,
    EXT_INT = 7,
    EXT_DECIMAL = 8,
    EXT_UUID = 9,
    EXT_MARKUP = 10,
    EXT_DATETIME = 11,
    EXT_DATE = 12,
    EXT_TIME = 13,
    EXT_TIMEDELTA = 14
};

struct writer {
    const ces_pickle *p;
    cession_buf *out;
    /* Where the items of the open containers start in out, and where the last one
     * ends: the innermost container's are last. */
    uint32_t *starts;
    size_t count, cap;
};

static int write_node(struct writer *w, uint32_t index, unsigned depth, bool hashed);

static int note_start(struct writer *w)
{
    void *starts = w->starts;
    /* Shared nodes are written again and again, so this may be more than the items
     * of the pickle; it is bounded by the output all the same. */
    if (w->count == w->cap) {
        size_t more = w->cap > 0 ? w->cap * 2 : 64;
        starts = ces_resize(starts, more * sizeof *w->starts);
        if (!starts)
            return CESSION_E_NOMEM;
        w->starts = starts;
        w->cap = more;
    }
    w->starts[w->count++] = (uint32_t)w->out->len;
    return CESSION_OK;
}

static cession_span between(const struct writer *w, size_t start, size_t end)
{
    return cession_span_of(w->out->data + w->starts[start],
                           w->starts[end] - (size_t)w->starts[start]);
}

/* Bytewise, a shorter prefix first. */
static int compare_items(cession_span a, cession_span b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int side = memcmp(a.data, b.data, common);
    return side != 0 ? side : (a.len > b.len) - (a.len < b.len);
}

/* The items that start at w->starts[from..from+count) into ascending order; two
 * alike are no set. */
static int sort_items(struct writer *w, size_t from, size_t count)
{
    bool sorted = true;
    for (size_t i = 1; sorted && i < count; i++)
        sorted = compare_items(between(w, from + i - 1, from + i),
                               between(w, from + i, from + i + 1)) < 0;
    if (sorted)
        return CESSION_OK;

    size_t begin = w->starts[from], len = w->starts[from + count] - begin;
    cession_entry *entries = ces_alloc(count * sizeof *entries);
    uint8_t *moved = ces_alloc(len);
    uint32_t *order = NULL;
    int rc = entries && moved ? CESSION_OK : CESSION_E_NOMEM;
    for (size_t i = 0; rc == CESSION_OK && i < count; i++) {
        entries[i].key = between(w, from + i, from + i + 1);
        entries[i].value = cession_span_of(NULL, 0);
    }
    if (rc == CESSION_OK)
        rc = ces_keys_sort(entries, count, compare_items, &order);
    size_t at = 0;
    for (size_t i = 0; rc == CESSION_OK && i < count; i++) {
        cession_span item = entries[order[i]].key;
        if (i > 0 && cession_span_eq(item, entries[order[i - 1]].key))
            rc = CESSION_E_FORMAT;
        memcpy(moved + at, item.data, item.len);
        at += item.len;
    }
    if (rc == CESSION_OK)
        memcpy(w->out->data + begin, moved, len);
    ces_free(order);
    ces_free(moved);
    ces_free(entries);
    return rc;
}

/* Keys and values in turn start at w->starts[from..from+2*pairs). */
static int refuse_repeated_keys(struct writer *w, size_t from, size_t pairs)
{
    if (pairs < 2)
        return CESSION_OK;
    cession_entry *entries = ces_alloc(pairs * sizeof *entries);
    if (!entries)
        return CESSION_E_NOMEM;
    for (size_t i = 0; i < pairs; i++) {
        entries[i].key = between(w, from + 2 * i, from + 2 * i + 1);
        entries[i].value = cession_span_of(NULL, 0);
    }
    size_t unique = 0;
    int rc = ces_keys_unique(entries, pairs, &unique);
    ces_free(entries);
    return rc == CESSION_OK && unique != pairs ? CESSION_E_FORMAT : rc;
}

/* The array or map of a container, its header included. */
static int write_items(struct writer *w, const ces_pickle_node *node, unsigned depth, bool hashed)
{
    bool mapping = node->kind == CES_PK_DICT || node->kind == CES_PK_ODICT;
    bool set = node->kind == CES_PK_SET || node->kind == CES_PK_FROZENSET;
    size_t count = node->as.items.count, from = w->count;
    int rc = mapping ? ces_mp_map(w->out, count / 2) : ces_mp_array(w->out, count);

    uint32_t cell = node->as.items.first;
    for (size_t i = 0; rc == CESSION_OK && i < count; i++) {
        bool item_hashed = hashed || set || (mapping && i % 2 == 0);
        if (mapping || set)
            rc = note_start(w);
        if (rc == CESSION_OK)
            rc = write_node(w, w->p->cells[cell].node, depth + 1, item_hashed);
        cell = w->p->cells[cell].next;
    }
    if (rc == CESSION_OK && (mapping || set)) {
        rc = note_start(w); /* where the last one ends */
        if (rc == CESSION_OK && set)
            rc = sort_items(w, from, count);
        else if (rc == CESSION_OK)
            rc = refuse_repeated_keys(w, from, count / 2);
    }
    w->count = from;
    return rc;
}

/* hashed: inside a key or a set. */
static int write_container(struct writer *w, const ces_pickle_node *node, unsigned depth,
                           bool hashed)
{
    bool hashable = node->kind == CES_PK_TUPLE || node->kind == CES_PK_FROZENSET;
    if (depth >= CES_MP_DEPTH_MAX || (hashed && !hashable))
        return CESSION_E_FORMAT;
    int8_t type = node->kind == CES_PK_TUPLE       ? EXT_TUPLE
                  : node->kind == CES_PK_SET       ? EXT_SET
                  : node->kind == CES_PK_FROZENSET ? EXT_FROZENSET
                  : node->kind == CES_PK_ODICT     ? EXT_ODICT
                                                   : 0;
    if (type == 0)
        return write_items(w, node, depth, hashed);
    size_t mark = 0;
    int rc = ces_mp_ext_begin(w->out, &mark);
    if (rc == CESSION_OK)
        rc = write_items(w, node, depth, hashed);
    return rc == CESSION_OK ? ces_mp_ext_end(w->out, mark, type) : rc;
}

/* ---- times ---------------------------------------------------------------------------- */

static uint8_t *put16(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
    return p + 2;
}

static uint8_t *put32(uint8_t *p, uint32_t value)
{
    return put16(put16(p, value >> 16), value);
}

static uint8_t *put64(uint8_t *p, uint64_t value)
{
    return put32(put32(p, (uint32_t)(value >> 32)), (uint32_t)value);
}

/* Days since 1970-01-01 in the proleptic Gregorian calendar. The year begins in
 * March here, which puts the leap day at its end. */
static int64_t days_since_1970(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era_days = year * 365 + year / 4 - year / 100 + year / 400;
    unsigned day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era_days + day_of_year - 719468;
}

static uint32_t packed_us(const uint8_t *p)
{
    return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
}

/* MessagePack's timestamp, shortest form. */
static int write_timestamp(struct writer *w, int64_t seconds, uint32_t nanoseconds)
{
    uint8_t payload[12], *end;
    if (nanoseconds == 0 && seconds >= 0 && seconds <= UINT32_MAX)
        end = put32(payload, (uint32_t)seconds);
    else if (seconds >= 0 && seconds < (int64_t)1 << 34)
        end = put64(payload, (uint64_t)nanoseconds << 34 | (uint64_t)seconds);
    else
        end = put64(put32(payload, nanoseconds), (uint64_t)seconds);
    return ces_mp_ext(w->out, EXT_TIMESTAMP, payload, (size_t)(end - payload));
}

/* Seconds and microseconds of an offset; a negative one counts up from its floor. */
static uint8_t *put_offset(uint8_t *p, const ces_pickle_node *zone)
{
    int32_t seconds = (int32_t)zone->extra * 86400 + (int32_t)zone->as.delta.seconds;
    return put32(put32(p, (uint32_t)seconds), zone->as.delta.microseconds);
}

static int write_datetime(struct writer *w, const ces_pickle_node *node)
{
    const uint8_t *d = ces_pickle_bytes(w->p, node).data;
    const ces_pickle_node *zone = node->extra ? &w->p->nodes[node->extra] : NULL;
    uint8_t month = d[2] & 0x7f, fold = d[2] >> 7;
    uint32_t year = (uint32_t)d[0] << 8 | d[1], us = packed_us(d + 7);
    if (zone && fold == 0 && zone->extra == 0 && zone->as.delta.seconds == 0 &&
        zone->as.delta.microseconds == 0) {
        int64_t seconds = days_since_1970(year, month, d[3]) * 86400 + d[4] * 3600 + d[5] * 60 +
                          d[6];
        return write_timestamp(w, seconds, us * 1000);
    }
    uint8_t payload[20], *end = put16(payload, year);
    *end++ = month;
    *end++ = d[3];
    *end++ = d[4];
    *end++ = d[5];
    *end++ = d[6];
    *end++ = fold;
    end = put32(end, us);
    if (zone)
        end = put_offset(end, zone);
    return ces_mp_ext(w->out, EXT_DATETIME, payload, (size_t)(end - payload));
}

static int write_time(struct writer *w, const ces_pickle_node *node)
{
    const uint8_t *d = ces_pickle_bytes(w->p, node).data;
    uint8_t payload[16], *end = payload;
    *end++ = d[0] & 0x7f;
    *end++ = d[1];
    *end++ = d[2];
    *end++ = d[0] >> 7;
    end = put32(end, packed_us(d + 3));
    if (node->extra)
        end = put_offset(end, &w->p->nodes[node->extra]);
    return ces_mp_ext(w->out, EXT_TIME, payload, (size_t)(end - payload));
}

static int write_timedelta(struct writer *w, const ces_pickle_node *node)
{
    uint8_t payload[12];
    put32(put32(put32(payload, node->extra), node->as.delta.seconds), node->as.delta.microseconds);
    return ces_mp_ext(w->out, EXT_TIMEDELTA, payload, sizeof payload);
}

/* ---- all of them ------------------------------------------------------------------------ */

static int write_ext(struct writer *w, const ces_pickle_node *node, int8_t type)
{
    cession_span bytes = ces_pickle_bytes(w->p, node);
    return ces_mp_ext(w->out, type, bytes.data, bytes.len);
}

static int write_node(struct writer *w, uint32_t index, unsigned depth, bool hashed)
{
    const ces_pickle_node *node = &w->p->nodes[index];
    cession_span bytes;
    switch ((ces_pickle_kind)node->kind) {
    case CES_PK_NONE:
        return ces_mp_nil(w->out);
    case CES_PK_BOOL:
        return ces_mp_bool(w->out, node->as.u != 0);
    case CES_PK_INT:
        return ces_mp_int(w->out, node->as.i);
    case CES_PK_UINT:
        return ces_mp_uint(w->out, node->as.u);
    case CES_PK_DOUBLE:
        return ces_mp_double(w->out, node->as.d);
    case CES_PK_STR:
        bytes = ces_pickle_bytes(w->p, node);
        return ces_mp_str(w->out, (const char *)bytes.data, bytes.len);
    case CES_PK_BYTES:
        bytes = ces_pickle_bytes(w->p, node);
        return ces_mp_bin(w->out, bytes.data, bytes.len);
    case CES_PK_LIST:
    case CES_PK_TUPLE:
    case CES_PK_SET:
    case CES_PK_FROZENSET:
    case CES_PK_DICT:
    case CES_PK_ODICT:
        return write_container(w, node, depth, hashed);
    case CES_PK_BYTEARRAY:
        return hashed ? CESSION_E_FORMAT : write_ext(w, node, EXT_BYTEARRAY);
    case CES_PK_BIGINT:
        return write_ext(w, node, EXT_INT);
    case CES_PK_MARKUP:
        return write_ext(w, node, EXT_MARKUP);
    case CES_PK_DECIMAL:
        return write_ext(w, node, EXT_DECIMAL);
    case CES_PK_UUID:
        return node->as.bytes.len == 16 ? write_ext(w, node, EXT_UUID) : CESSION_E_FORMAT;
    case CES_PK_DATE:
        return write_ext(w, node, EXT_DATE); /* packed alike */
    case CES_PK_TIME:
        return write_time(w, node);
    case CES_PK_DATETIME:
        return write_datetime(w, node);
    case CES_PK_TIMEDELTA:
        return write_timedelta(w, node);
    case CES_PK_GLOBAL:
    case CES_PK_TIMEZONE: /* the format has none of its own */
        break;
    }
    return CESSION_E_FORMAT;
}

int ces_pickle_write(const ces_pickle *p, uint32_t node, cession_buf *out)
{
    struct writer w = {.p = p, .out = out};
    int rc = write_node(&w, node, 0, false);
    ces_free(w.starts);
    return rc;
}
