#include "session/keys.h"

#include "base/alloc.h"
#include "base/banned.h"

/* Up to here comparing all with all beats building an index. */
#define KEYS_SMALL 16u

/* Any total order will do; lengths first, as most differ there. */
static int compare_keys(cession_span a, cession_span b)
{
    if (a.len != b.len)
        return a.len < b.len ? -1 : 1;
    return a.len > 0 ? memcmp(a.data, b.data, a.len) : 0;
}

/* A bottom-up merge sort of indexes. */
int ces_keys_sort(const cession_entry *entries, size_t count,
                  int (*compare)(cession_span a, cession_span b), uint32_t **ret_order)
{
    uint32_t *order = ces_alloc(2 * count * sizeof *order);
    if (!order)
        return CESSION_E_NOMEM;
    uint32_t *from = order, *to = order + count;
    for (size_t i = 0; i < count; i++)
        from[i] = (uint32_t)i;
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t start = 0; start < count; start += 2 * width) {
            size_t a = start, a_end = start + width < count ? start + width : count;
            size_t b = a_end, b_end = a_end + width < count ? a_end + width : count;
            for (size_t i = start; i < b_end; i++) {
                bool take_a = b == b_end || (a < a_end && compare(entries[from[a]].key,
                                                                  entries[from[b]].key) <= 0);
                to[i] = take_a ? from[a++] : from[b++];
            }
        }
        uint32_t *swapped = from;
        from = to;
        to = swapped;
    }
    if (from != order)
        memcpy(order, from, count * sizeof *order);
    *ret_order = order;
    return CESSION_OK;
}

void ces_keys_init(ces_keys *keys, const cession_view *view)
{
    keys->entries = view->entries;
    keys->count = view->count;
    keys->next = 0;
    keys->order = NULL;
}

void ces_keys_release(ces_keys *keys)
{
    ces_free(keys->order);
    keys->order = NULL;
}

int ces_keys_find(ces_keys *keys, cession_span key, const cession_entry **ret_entry)
{
    if (keys->next < keys->count && cession_span_eq(keys->entries[keys->next].key, key)) {
        *ret_entry = &keys->entries[keys->next++];
        return CESSION_OK;
    }
    if (keys->count <= KEYS_SMALL) {
        for (size_t i = 0; i < keys->count; i++) {
            if (cession_span_eq(keys->entries[i].key, key)) {
                keys->next = i + 1;
                *ret_entry = &keys->entries[i];
                return CESSION_OK;
            }
        }
        *ret_entry = NULL;
        return CESSION_OK;
    }

    if (!keys->order) {
        int rc = ces_keys_sort(keys->entries, keys->count, compare_keys, &keys->order);
        if (rc != CESSION_OK)
            return rc;
    }
    size_t low = 0, high = keys->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const cession_entry *entry = &keys->entries[keys->order[middle]];
        int side = compare_keys(key, entry->key);
        if (side == 0) {
            keys->next = keys->order[middle] + (size_t)1;
            *ret_entry = entry;
            return CESSION_OK;
        }
        if (side < 0)
            high = middle;
        else
            low = middle + 1;
    }
    *ret_entry = NULL;
    return CESSION_OK;
}

/* An encoded key has at least one byte, so an empty span marks a dropped entry. */
static void drop(cession_entry *first, cession_entry *repeated)
{
    first->value = repeated->value;
    repeated->key = cession_span_of(NULL, 0);
}

/* Tells most keys apart without looking at them again. */
static uint64_t fingerprint(cession_span key)
{
    uint64_t tail = 0;
    size_t len = key.len < sizeof tail ? key.len : sizeof tail;
    for (size_t i = 0; i < len; i++)
        tail = tail << 8 | key.data[key.len - len + i];
    return tail ^ (uint64_t)key.len << 32 ^ (uint64_t)key.data[key.len / 2] << 24;
}

int ces_keys_unique(cession_entry *entries, size_t count, size_t *ret_count)
{
    bool dropped = false;
    if (count <= KEYS_SMALL) {
        uint64_t prints[KEYS_SMALL];
        for (size_t i = 0; i < count; i++) {
            prints[i] = fingerprint(entries[i].key);
            for (size_t j = 0; j < i; j++) {
                if (prints[i] == prints[j] && cession_span_eq(entries[i].key, entries[j].key)) {
                    drop(&entries[j], &entries[i]);
                    dropped = true;
                    break;
                }
            }
        }
    } else {
        uint32_t *order;
        int rc = ces_keys_sort(entries, count, compare_keys, &order);
        if (rc != CESSION_OK)
            return rc;
        size_t first = order[0];
        for (size_t i = 1; i < count; i++) {
            if (cession_span_eq(entries[first].key, entries[order[i]].key)) {
                drop(&entries[first], &entries[order[i]]);
                dropped = true;
            } else {
                first = order[i];
            }
        }
        ces_free(order);
    }

    size_t kept = count;
    if (dropped) {
        kept = 0;
        for (size_t i = 0; i < count; i++) {
            if (entries[i].key.len > 0)
                entries[kept++] = entries[i];
        }
    }
    *ret_count = kept;
    return CESSION_OK;
}
