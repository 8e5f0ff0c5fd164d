#include "session/merge.h"

#include "session/keys.h"
#include "base/banned.h"

/* Both absent, or both there with equal bytes. */
static bool same(const cession_entry *a, const cession_entry *b)
{
    if (!a || !b)
        return a == b;
    return cession_span_eq(a->value, b->value);
}

struct sides {
    ces_keys base, mine, theirs;
};

/* Every key that they have, in their order. */
static int merge_theirs(const cession_codec *codec, const cession_view *theirs, struct sides *sides,
                        cession_view *out, ces_merge_result *result)
{
    for (size_t i = 0; i < theirs->count; i++) {
        const cession_entry *their = &theirs->entries[i], *base, *mine;
        const cession_entry *winner = their;
        if (!cession_span_eq(their->key, codec->meta_key)) {
            int rc = ces_keys_find(&sides->base, their->key, &base);
            if (rc == CESSION_OK)
                rc = ces_keys_find(&sides->mine, their->key, &mine);
            if (rc != CESSION_OK)
                return rc;
            if (!same(base, mine)) {
                winner = mine; /* NULL: I deleted it */
                if (!same(mine, their)) {
                    result->changed = true;
                    if (!same(base, their))
                        result->conflicts++;
                }
            }
        }
        if (winner) {
            int rc = cession_view_add(out, winner->key, winner->value);
            if (rc != CESSION_OK)
                return rc;
        }
    }
    return CESSION_OK;
}

/* What only I have: added or changed by me, else deleted by them. A key that
 * neither has needs no visit. */
static int merge_mine(const cession_codec *codec, const cession_view *mine, struct sides *sides,
                      cession_view *out, ces_merge_result *result)
{
    sides->base.next = 0;
    for (size_t i = 0; i < mine->count; i++) {
        const cession_entry *my = &mine->entries[i], *base, *their;
        if (cession_span_eq(my->key, codec->meta_key))
            continue;
        int rc = ces_keys_find(&sides->theirs, my->key, &their);
        if (rc == CESSION_OK && !their) {
            rc = ces_keys_find(&sides->base, my->key, &base);
            if (rc == CESSION_OK && !same(base, my)) {
                result->changed = true;
                if (base)
                    result->conflicts++;
                rc = cession_view_add(out, my->key, my->value);
            }
        }
        if (rc != CESSION_OK)
            return rc;
    }
    return CESSION_OK;
}

int ces_merge(const cession_codec *codec, const cession_view *base, const cession_view *mine,
              const cession_view *theirs, cession_view *ret_view, ces_merge_result *ret_result)
{
    ces_merge_result result = {0, false};
    cession_view out;
    cession_view_init(&out);
    struct sides sides;
    ces_keys_init(&sides.base, base);
    ces_keys_init(&sides.mine, mine);
    ces_keys_init(&sides.theirs, theirs);

    int rc = merge_theirs(codec, theirs, &sides, &out, &result);
    if (rc == CESSION_OK)
        rc = merge_mine(codec, mine, &sides, &out, &result);

    ces_keys_release(&sides.base);
    ces_keys_release(&sides.mine);
    ces_keys_release(&sides.theirs);
    if (rc != CESSION_OK) {
        cession_view_release(&out);
        return rc;
    }
    cession_view_release(ret_view);
    *ret_view = out;
    *ret_result = result;
    return CESSION_OK;
}

const cession_entry *ces_view_find(const cession_view *view, cession_span key)
{
    for (size_t i = 0; i < view->count; i++) {
        if (cession_span_eq(view->entries[i].key, key))
            return &view->entries[i];
    }
    return NULL;
}

bool ces_view_empty(const cession_codec *codec, const cession_view *view)
{
    for (size_t i = 0; i < view->count; i++) {
        cession_span key = view->entries[i].key;
        if (!cession_span_eq(key, codec->permanent_key) && !cession_span_eq(key, codec->meta_key))
            return false;
    }
    return true;
}
