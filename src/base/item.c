/* MessagePack for programs that are given no promise about the bytes: every read
 * walks the item first. */
#include "cession/item.h"

#include "base/msgpack.h"

#include "base/banned.h"

_Static_assert(CESSION_ITEM_DEPTH_MAX == CES_MP_DEPTH_MAX, "the walker's limit");

static cession_span tail_of(cession_span whole, const uint8_t *at)
{
    return cession_span_of(at, whole.len - (size_t)(at - whole.data));
}

int cession_item_read(cession_span *rest, cession_item *ret_item)
{
    if (rest->len == 0 || ces_mp_walk(rest->data, rest->len, NULL, NULL) != CESSION_OK)
        return CESSION_E_FORMAT;
    const uint8_t *at = rest->data;
    ces_mp_item found;
    cession_item item = {.type = CESSION_ITEM_NIL};
    ces_mp_next(&at, &found);
    switch (found.type) {
    case CES_MP_NIL:
        break;
    case CES_MP_BOOL:
        item.type = CESSION_ITEM_BOOL;
        item.as.boolean = found.as.b;
        break;
    case CES_MP_INT:
        item.type = CESSION_ITEM_INT;
        item.as.integer = found.as.i;
        break;
    case CES_MP_UINT:
        if (found.as.u <= INT64_MAX) {
            item.type = CESSION_ITEM_INT;
            item.as.integer = (int64_t)found.as.u;
        } else {
            item.type = CESSION_ITEM_UINT;
            item.as.natural = found.as.u;
        }
        break;
    case CES_MP_DOUBLE:
        item.type = CESSION_ITEM_DOUBLE;
        item.as.number = found.as.d;
        break;
    case CES_MP_STR:
    case CES_MP_BIN:
    case CES_MP_EXT:
        item.type = found.type == CES_MP_STR   ? CESSION_ITEM_TEXT
                    : found.type == CES_MP_BIN ? CESSION_ITEM_BYTES
                                               : CESSION_ITEM_EXT;
        item.extension = found.type == CES_MP_EXT ? found.ext_type : 0;
        item.as.bytes = cession_span_of(found.as.bytes.data, found.as.bytes.len);
        break;
    case CES_MP_ARRAY:
    case CES_MP_MAP:
        item.type = found.type == CES_MP_ARRAY ? CESSION_ITEM_ARRAY : CESSION_ITEM_MAP;
        item.as.count = found.as.count;
        break;
    }
    *rest = tail_of(*rest, at);
    *ret_item = item;
    return CESSION_OK;
}

int cession_item_skip(cession_span *rest)
{
    size_t len;
    if (rest->len == 0 || ces_mp_walk(rest->data, rest->len, &len, NULL) != CESSION_OK)
        return CESSION_E_FORMAT;
    *rest = tail_of(*rest, rest->data + len);
    return CESSION_OK;
}

int cession_item_write(const cession_item *item, cession_buf *out)
{
    switch (item->type) {
    case CESSION_ITEM_NIL:
        return ces_mp_nil(out);
    case CESSION_ITEM_BOOL:
        return ces_mp_bool(out, item->as.boolean);
    case CESSION_ITEM_INT:
        return ces_mp_int(out, item->as.integer);
    case CESSION_ITEM_UINT:
        return ces_mp_uint(out, item->as.natural);
    case CESSION_ITEM_DOUBLE:
        return ces_mp_double(out, item->as.number);
    case CESSION_ITEM_TEXT:
        if (!ces_utf8_valid(item->as.bytes.data, item->as.bytes.len))
            return CESSION_E_INVALID;
        return ces_mp_str(out, (const char *)item->as.bytes.data, item->as.bytes.len);
    case CESSION_ITEM_BYTES:
        return ces_mp_bin(out, item->as.bytes.data, item->as.bytes.len);
    case CESSION_ITEM_ARRAY:
        return ces_mp_array(out, item->as.count);
    case CESSION_ITEM_MAP:
        return ces_mp_map(out, item->as.count);
    case CESSION_ITEM_EXT:
        return ces_mp_ext(out, item->extension, item->as.bytes.data, item->as.bytes.len);
    }
    return CESSION_E_INVALID;
}
