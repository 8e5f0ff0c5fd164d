/* Finding keys among the entries of a view: by position where two views have the
 * same order, by a scan in small ones, by a sorted index in large ones. Sorting
 * and not hashing: no choice of keys by a client makes it slow. */
#ifndef CES_SESSION_KEYS_H
#define CES_SESSION_KEYS_H

#include "cession/codec.h"

typedef struct ces_keys {
    const cession_entry *entries; /* borrowed */
    size_t count;
    size_t next;     /* where the next key is expected */
    uint32_t *order; /* indexes sorted by key; NULL until a large view needs it */
} ces_keys;

void ces_keys_init(ces_keys *keys, const cession_view *view);
void ces_keys_release(ces_keys *keys);
/* *ret_entry is the entry of key, or NULL when there is none. OK or E_NOMEM. */
int ces_keys_find(ces_keys *keys, cession_span key, const cession_entry **ret_entry);

/* Indexes of the entries in ascending order of their keys; stable, no recursion.
 * *ret_order is to be freed. OK or E_NOMEM. count > 0. */
int ces_keys_sort(const cession_entry *entries, size_t count,
                  int (*compare)(cession_span a, cession_span b), uint32_t **ret_order);

/* Drop repeated keys from entries: the first keeps its place and gets the value
 * of the last. *ret_count entries are left. OK or E_NOMEM (nothing changed). No key
 * is empty: an encoded one never is. */
int ces_keys_unique(cession_entry *entries, size_t count, size_t *ret_count);

#endif
