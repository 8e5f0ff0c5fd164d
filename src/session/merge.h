/* The three-way merge of top-level keys. Pure: bytes in, entries out. */
#ifndef CES_SESSION_MERGE_H
#define CES_SESSION_MERGE_H

#include <stdbool.h>

#include "cession/codec.h"

typedef struct ces_merge_result {
    unsigned conflicts; /* keys that both changed, to different bytes */
    bool changed;       /* the result differs from theirs */
} ces_merge_result;

/* base: what I loaded, mine: what I have now, theirs: what the store holds now;
 * all three views of one codec. For each top-level key: changed by me (set or
 * deleted against base) -> mine, anything else -> theirs. A key that both
 * changed, to unequal results, is mine and counted. ret_view borrows the bytes
 * of mine and theirs: theirs' order first, then what only I have, in my order.
 * Metadata (codec->meta_key) is always theirs'. O(n log n) or better for large
 * maps. OK, E_NOMEM, E_LIMIT. */
int ces_merge(const cession_codec *codec, const cession_view *base, const cession_view *mine,
              const cession_view *theirs, cession_view *ret_view, ces_merge_result *ret_result);

/* The entry of key, or NULL. Linear. */
const cession_entry *ces_view_find(const cession_view *view, cession_span key);
/* Nothing but CESSION_PERMANENT_KEY and metadata. */
bool ces_view_empty(const cession_codec *codec, const cession_view *view);

#endif
