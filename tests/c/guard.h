/* Bytes that end exactly where unreadable memory begins, so that one byte read
 * past the end is a fault, whatever the optimizer makes of it. */
#ifndef TESTS_GUARD_H
#define TESTS_GUARD_H

#include <stddef.h>
#include <stdint.h>

/* A copy of data that ends at the guard page; valid until the next call with
 * this guard. Exits on a failure of mmap. */
typedef struct guard {
    uint8_t *pages; /* NULL: not made yet */
    size_t readable;
} guard;

const uint8_t *guard_place(guard *g, const void *data, size_t len);
void guard_release(guard *g);

/* Calls check with every prefix of data, from 0 to len bytes, each against the
 * guard page. */
void guard_truncations(const void *data, size_t len,
                       void (*check)(const uint8_t *data, size_t len, size_t full, void *context),
                       void *context);

#endif
