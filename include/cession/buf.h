/* Bytes: a borrowed span, and a growing buffer that is born with a maximum.
 *
 * Ownership: a span borrows; whoever hands it out says how long it lives. A
 * cession_buf owns its memory from cession_buf_init to cession_buf_release.
 * Threads: no function here synchronizes; one buffer, one thread at a time.
 */
#ifndef CESSION_BUF_H
#define CESSION_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cession/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cession_span {
    const uint8_t *data; /* may be NULL only when len is 0 */
    size_t len;          /* bytes */
} cession_span;

static inline cession_span cession_span_of(const void *data, size_t len)
{
    cession_span s;
#ifdef __cplusplus
    s.data = static_cast<const uint8_t *>(data);
#else
    s.data = (const uint8_t *)data;
#endif
    s.len = len;
    return s;
}
static inline cession_span cession_span_str(const char *text)
{
    return cession_span_of(text, text ? strlen(text) : 0);
}
static inline bool cession_span_eq(cession_span a, cession_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

typedef struct cession_buf {
    uint8_t *data; /* NULL while empty and never grown */
    size_t len;    /* bytes used */
    size_t cap;    /* bytes allocated */
    size_t max;    /* bytes it may ever hold; appending past it is E_LIMIT */
} cession_buf;

/* Start an empty buffer of at most max bytes; allocates nothing, cannot fail. */
CESSION_API void cession_buf_init(cession_buf *buf, size_t max);
/* Free the memory and leave a valid empty buffer with the same max. NULL is fine. */
CESSION_API void cession_buf_release(cession_buf *buf);
/* len := 0, memory kept. */
CESSION_API void cession_buf_clear(cession_buf *buf);
/* Make room for more bytes past len. OK, E_NOMEM or E_LIMIT; content untouched on failure. */
CESSION_API int cession_buf_reserve(cession_buf *buf, size_t more) CESSION_MUST_CHECK;
CESSION_API int cession_buf_append(cession_buf *buf, const void *data,
                                   size_t len) CESSION_MUST_CHECK;
CESSION_API int cession_buf_byte(cession_buf *buf, uint8_t byte) CESSION_MUST_CHECK;
/* Replace the content by a copy of data (which must not lie inside buf). */
CESSION_API int cession_buf_set(cession_buf *buf, const void *data, size_t len) CESSION_MUST_CHECK;
/* Exchange two buffers, max included; cannot fail. */
CESSION_API void cession_buf_swap(cession_buf *a, cession_buf *b);

static inline cession_span cession_buf_span(const cession_buf *buf)
{
    return cession_span_of(buf->data, buf->len);
}

#ifdef __cplusplus
}
#endif
#endif
