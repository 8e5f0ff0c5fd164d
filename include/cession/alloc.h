/* The allocator seam: all memory of libcession comes through here.
 *
 * Set the allocator before the first other call and never again while objects
 * live: memory is freed through the allocator of the moment. Not thread-safe.
 */
#ifndef CESSION_ALLOC_H
#define CESSION_ALLOC_H

#include <stddef.h>

#include "cession/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cession_allocator {
    void *(*alloc)(size_t size); /* size > 0; NULL on failure */
    void *(*resize)(void *ptr, size_t size);
    void (*release)(void *ptr); /* ptr may be NULL */
} cession_allocator;

/* NULL restores malloc/realloc/free. */
CESSION_API void cession_set_allocator(const cession_allocator *allocator);

#ifdef __cplusplus
}
#endif
#endif
