/* Memory: the only way the library allocates. See cession/alloc.h for the seam.
 * ces_free accepts NULL. ces_wipe is not optimized away. */
#ifndef CES_BASE_ALLOC_H
#define CES_BASE_ALLOC_H

#include <stddef.h>

#include "cession/alloc.h"

void *ces_alloc(size_t size);             /* size > 0 */
void *ces_alloc_zero(size_t size);        /* zeroed */
void *ces_resize(void *ptr, size_t size); /* like realloc; the old block stays on failure */
void ces_free(void *ptr);
char *ces_strndup(const char *text, size_t len); /* NUL-terminated copy; NULL on failure */
void ces_wipe(void *ptr, size_t len);

#endif
