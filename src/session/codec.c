#include "cession/codec.h"

#include "base/alloc.h"
#include "base/msgpack.h"
#include "cession/store.h"
#include "session/keys.h"
#include "session/pickle.h"
#include "base/banned.h"

#define VIEW_FIRST 16u

/* ---- views ----------------------------------------------------------------- */

void cession_view_init(cession_view *view)
{
    view->entries = NULL;
    view->count = 0;
    view->cap = 0;
    cession_buf_init(&view->storage, CESSION_VALUE_MAX);
}

void cession_view_release(cession_view *view)
{
    if (!view)
        return;
    ces_free(view->entries);
    cession_buf_release(&view->storage);
    cession_view_init(view);
}

static int reserve_entries(cession_view *view, size_t cap)
{
    cession_entry *entries = ces_resize(view->entries, cap * sizeof *entries);
    if (!entries)
        return CESSION_E_NOMEM;
    view->entries = entries;
    view->cap = cap;
    return CESSION_OK;
}

int cession_view_add(cession_view *view, cession_span key, cession_span value)
{
    if (view->count >= CESSION_ENTRIES_MAX)
        return CESSION_E_LIMIT;
    if (view->count == view->cap) {
        int rc = reserve_entries(view, view->cap > 0 ? view->cap * 2 : VIEW_FIRST);
        if (rc != CESSION_OK)
            return rc;
    }
    view->entries[view->count].key = key;
    view->entries[view->count].value = value;
    view->count++;
    return CESSION_OK;
}

/* ---- MessagePack ----------------------------------------------------------- */

static int no_session(cession_error *err)
{
    return cession_fail(err, CESSION_E_FORMAT, "the value is not a MessagePack map");
}

/* The whole of value is one valid map. */
static int check_map(cession_span value, unsigned *ret_flags)
{
    if (value.len == 0)
        return CESSION_E_FORMAT;
    uint8_t code = value.data[0];
    if ((code & 0xf0) != 0x80 && code != 0xde && code != 0xdf)
        return CESSION_E_FORMAT;
    size_t len;
    int rc = ces_mp_walk(value.data, value.len, &len, ret_flags);
    if (rc == CESSION_OK && len != value.len)
        rc = CESSION_E_FORMAT;
    return rc;
}

/* Append a walked item in the writer's form. */
static int append_short(cession_buf *out, const uint8_t *at)
{
    size_t left = 1; /* items, of all levels together */
    while (left > 0) {
        ces_mp_item item;
        int rc = CESSION_E_INTERNAL;
        ces_mp_next(&at, &item);
        left--;
        switch (item.type) {
        case CES_MP_NIL:
            rc = ces_mp_nil(out);
            break;
        case CES_MP_BOOL:
            rc = ces_mp_bool(out, item.as.b);
            break;
        case CES_MP_INT:
            rc = ces_mp_int(out, item.as.i);
            break;
        case CES_MP_UINT:
            rc = ces_mp_uint(out, item.as.u);
            break;
        case CES_MP_DOUBLE:
            rc = ces_mp_double(out, item.as.d);
            break;
        case CES_MP_STR:
            rc = ces_mp_str(out, (const char *)item.as.bytes.data, item.as.bytes.len);
            break;
        case CES_MP_BIN:
            rc = ces_mp_bin(out, item.as.bytes.data, item.as.bytes.len);
            break;
        case CES_MP_EXT:
            rc = ces_mp_ext(out, item.ext_type, item.as.bytes.data, item.as.bytes.len);
            break;
        case CES_MP_ARRAY:
            rc = ces_mp_array(out, item.as.count);
            left += item.as.count;
            break;
        case CES_MP_MAP:
            rc = ces_mp_map(out, item.as.count);
            left += 2 * item.as.count;
            break;
        }
        if (rc != CESSION_OK)
            return rc;
    }
    return CESSION_OK;
}

/* Append the top level of a checked map in the writer's form to an empty view;
 * repeated keys are left in. */
static int take_apart(cession_span map, unsigned flags, cession_view *view)
{
    int rc;
    if (flags & CES_MP_NOT_SHORT) {
        rc = append_short(&view->storage, map.data);
        if (rc != CESSION_OK)
            /* Too large only after widening: still no value that we keep. */
            return rc == CESSION_E_LIMIT ? CESSION_E_FORMAT : rc;
        map = cession_buf_span(&view->storage);
    }
    const uint8_t *at = map.data;
    ces_mp_item item;
    ces_mp_next(&at, &item);
    size_t count = item.as.count;
    if (count > CESSION_ENTRIES_MAX)
        return CESSION_E_FORMAT;
    if (count == 0)
        return CESSION_OK;
    rc = reserve_entries(view, count);
    if (rc != CESSION_OK)
        return rc;
    for (cession_entry *entry = view->entries; view->count < count; entry++, view->count++) {
        const uint8_t *key = at;
        ces_mp_skip(&at);
        const uint8_t *value = at;
        ces_mp_skip(&at);
        entry->key = cession_span_of(key, (size_t)(value - key));
        entry->value = cession_span_of(value, (size_t)(at - value));
    }
    return CESSION_OK;
}

static int msgpack_view(const cession_codec *self, cession_span value, cession_view *ret_view,
                        cession_error *err)
{
    (void)self;
    cession_view view;
    cession_view_init(&view);
    unsigned flags;
    size_t unique = 0;
    int rc = check_map(value, &flags);
    if (rc == CESSION_OK)
        rc = take_apart(value, flags, &view);
    if (rc == CESSION_OK)
        rc = ces_keys_unique(view.entries, view.count, &unique);
    if (rc == CESSION_OK && unique != view.count)
        rc = CESSION_E_FORMAT;
    if (rc != CESSION_OK) {
        cession_view_release(&view);
        return rc == CESSION_E_FORMAT ? no_session(err) : cession_fail(err, rc, NULL);
    }
    cession_view_release(ret_view);
    *ret_view = view;
    return CESSION_OK;
}

static int msgpack_compose(const cession_codec *self, const cession_entry *entries, size_t count,
                           cession_buf *out, cession_error *err)
{
    (void)self;
    if (count > CESSION_ENTRIES_MAX)
        return cession_fail(err, CESSION_E_LIMIT, "a session has at most %u keys",
                            CESSION_ENTRIES_MAX);
    /* All room first, so that a failure leaves out as it was. The sum cannot
     * overflow: a span is no longer than the memory it lies in. */
    size_t need = count < 16 ? 1 : count <= UINT16_MAX ? 3 : 5; /* the map header */
    for (size_t i = 0; i < count; i++)
        need += entries[i].key.len + entries[i].value.len;
    if (need > out->len) {
        int rc = cession_buf_reserve(out, need - out->len);
        if (rc != CESSION_OK)
            return cession_fail(err, rc, NULL);
    }
    cession_buf_clear(out);
    int rc = ces_mp_map(out, count);
    for (size_t i = 0; rc == CESSION_OK && i < count; i++) {
        rc = cession_buf_append(out, entries[i].key.data, entries[i].key.len);
        if (rc == CESSION_OK)
            rc = cession_buf_append(out, entries[i].value.data, entries[i].value.len);
    }
    return rc == CESSION_OK ? CESSION_OK : cession_fail(err, rc, NULL);
}

/* Repeated keys are no reason to refuse what another program wrote: as in
 * docs/format.md the last one wins. What is no MessagePack map may be a pickle; the
 * two are never both: a pickle's first byte is an item of its own. */
static int msgpack_canonical(const cession_codec *self, cession_span value, cession_buf *out,
                             cession_error *err)
{
    unsigned flags;
    int rc = check_map(value, &flags);
    if (rc != CESSION_OK) {
        rc = ces_pickle_to_msgpack(value, out, err);
        return rc == CESSION_E_FORMAT
                   ? cession_fail(err, rc, "the value is no MessagePack map and no plain pickle")
                   : rc;
    }

    cession_view view;
    cession_view_init(&view);
    size_t unique = 0;
    rc = take_apart(value, flags, &view);
    if (rc == CESSION_OK)
        rc = ces_keys_unique(view.entries, view.count, &unique);
    if (rc != CESSION_OK) {
        rc = rc == CESSION_E_FORMAT ? no_session(err) : cession_fail(err, rc, NULL);
    } else if (unique == view.count) {
        cession_span whole = (flags & CES_MP_NOT_SHORT) ? cession_buf_span(&view.storage) : value;
        rc = cession_buf_set(out, whole.data, whole.len);
        if (rc != CESSION_OK)
            cession_fail(err, rc, NULL);
    } else {
        rc = msgpack_compose(self, view.entries, unique, out, err);
    }
    cession_view_release(&view);
    return rc;
}

/* fixstr of 11 and 10 bytes; {"__cession__": {"t": true}}. */
#define META_ITEM "\xab" CESSION_META_KEY
#define PERMANENT_ITEM "\xaa" CESSION_PERMANENT_KEY
#define TOMBSTONE "\x81" META_ITEM "\x81\xa1t\xc3"
_Static_assert(sizeof CESSION_META_KEY - 1 == 11, "the header of META_ITEM");
_Static_assert(sizeof CESSION_PERMANENT_KEY - 1 == 10, "the header of PERMANENT_ITEM");

static const cession_codec msgpack_codec = {
    .name = "msgpack",
    .view = msgpack_view,
    .compose = msgpack_compose,
    .canonical = msgpack_canonical,
    .meta_key = {(const uint8_t *)META_ITEM, sizeof META_ITEM - 1},
    .permanent_key = {(const uint8_t *)PERMANENT_ITEM, sizeof PERMANENT_ITEM - 1},
    .tombstone = {(const uint8_t *)TOMBSTONE, sizeof TOMBSTONE - 1},
};

const cession_codec *cession_codec_msgpack(void)
{
    return &msgpack_codec;
}
