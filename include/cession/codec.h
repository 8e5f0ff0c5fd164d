/* The codec seam: how the core looks into a value without knowing its format.
 *
 * The core needs three things of a format: the top-level entries of a map as
 * spans of canonical bytes (for the merge), a way to put entries together
 * again, and the canonical form of a value that another program wrote. The
 * MessagePack codec of the core (cession_codec_msgpack) is the default;
 * ext/ supplies others (tagged JSON, an application's own serializer).
 *
 * Threads: a codec is const and its functions are called by many threads; a
 * codec that needs a lock (the interpreter's) is called only where the caller
 * of the flow holds it, never from inside a store operation.
 */
#ifndef CESSION_CODEC_H
#define CESSION_CODEC_H

#include "cession/buf.h"
#include "cession/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The one reserved top-level key: metadata of the session layer (tombstone, and
 * what later features need). Applications never see it and may not set it. */
#define CESSION_META_KEY "__cession__"
/* The key under which Flask keeps `session.permanent`. A session that holds
 * nothing else counts as empty. */
#define CESSION_PERMANENT_KEY "_permanent"

#define CESSION_ENTRIES_MAX 65536u /* top-level keys of one session */

/* One top-level entry. Both spans are complete encoded items of the format. */
typedef struct cession_entry {
    cession_span key;
    cession_span value;
} cession_entry;

/* A map taken apart; keys are unique, order is the order of the bytes.
 * Entries point into the viewed bytes, or into `storage` where the codec had to
 * make bytes of its own. Start with cession_view_init; reusable. */
typedef struct cession_view {
    cession_entry *entries;
    size_t count;
    size_t cap;
    cession_buf storage;
} cession_view;

CESSION_API void cession_view_init(cession_view *view);
CESSION_API void cession_view_release(cession_view *view);
/* Append an entry; OK, E_NOMEM, E_LIMIT. */
CESSION_API int cession_view_add(cession_view *view, cession_span key,
                                 cession_span value) CESSION_MUST_CHECK;

typedef struct cession_codec cession_codec;
struct cession_codec {
    const char *name;
    /* Validate value completely and take its top level apart. E_FORMAT unless it
     * is a map of this format; bytes of other formats are E_FORMAT too. */
    int (*view)(const cession_codec *self, cession_span value, cession_view *ret_view,
                cession_error *err);
    /* Encode a map of entries that came from view() of the same codec (or are
     * its canonical items); replaces the content of out. */
    int (*compose)(const cession_codec *self, const cession_entry *entries, size_t count,
                   cession_buf *out, cession_error *err);
    /* The canonical form of a stored value of any readable format, metadata
     * included; replaces the content of out. E_FORMAT when it is no session. */
    int (*canonical)(const cession_codec *self, cession_span value, cession_buf *out,
                     cession_error *err);
    /* The encoded items of the reserved keys, constant per codec. */
    cession_span meta_key;      /* CESSION_META_KEY */
    cession_span permanent_key; /* CESSION_PERMANENT_KEY */
    /* A whole value: {CESSION_META_KEY: {"t": true}}, what regenerate leaves. */
    cession_span tombstone;
};

/* MessagePack, the core's own. canonical() accepts any valid MessagePack map:
 * shortest forms; of repeated keys the last one wins; extension payloads are kept
 * as they are. It accepts pickles of plain data, too (docs/format.md). */
CESSION_API const cession_codec *cession_codec_msgpack(void);

#ifdef __cplusplus
}
#endif
#endif
