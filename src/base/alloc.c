#include "base/alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CES_BASE_ALLOC_IMPLEMENTATION
#include "base/banned.h"

static const cession_allocator system_allocator = {
    .alloc = malloc, .resize = realloc, .release = free};

/* Read without synchronization: cession_set_allocator comes before any other
 * call, by contract. */
static cession_allocator current = {.alloc = malloc, .resize = realloc, .release = free};

void cession_set_allocator(const cession_allocator *allocator)
{
    current = allocator ? *allocator : system_allocator;
}

void *ces_alloc(size_t size)
{
    return current.alloc(size);
}

void *ces_alloc_zero(size_t size)
{
    void *ptr = current.alloc(size);
    if (ptr)
        memset(ptr, 0, size);
    return ptr;
}

void *ces_resize(void *ptr, size_t size)
{
    return current.resize(ptr, size);
}

void ces_free(void *ptr)
{
    current.release(ptr);
}

char *ces_strndup(const char *text, size_t len)
{
    if (len == SIZE_MAX)
        return NULL;
    char *copy = current.alloc(len + 1);
    if (!copy)
        return NULL;
    if (len > 0)
        memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

void ces_wipe(void *ptr, size_t len)
{
    if (len > 0)
        explicit_bzero(ptr, len);
}
