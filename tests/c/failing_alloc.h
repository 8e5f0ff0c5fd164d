/* An allocator that fails on demand: run a call again and again, failing its
 * first allocation, its second, ..., until it runs through.
 *
 *     FAILING_ALLOC_LOOP(n) {
 *         cession_buf buf;
 *         cession_buf_init(&buf, 100);
 *         int rc = cession_buf_append(&buf, "x", 1);
 *         CHECK(rc == (failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK));
 *         cession_buf_release(&buf);
 *     }
 *
 * The loop installs the allocator, arms it in each round to fail allocation
 * number n (0, 1, ...), ends after the first round in which nothing failed, and
 * checks after each round that everything allocated in it was freed. `break`
 * inside skips the clean-up: use `continue`. Resizing counts as allocating.
 * Memory of OpenSSL and SQLite does not come through the seam. */
#ifndef TESTS_FAILING_ALLOC_H
#define TESTS_FAILING_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

/* Pass every allocation through the counters; failing starts with _arm. Objects
 * allocated before must not be freed while it is installed. */
void failing_alloc_install(void);
void failing_alloc_uninstall(void);
/* Fail allocation number nth from now on, once; SIZE_MAX: none. */
void failing_alloc_arm(size_t nth);
bool failing_alloc_fired(void);
/* Blocks allocated and not freed since the installation. */
size_t failing_alloc_live(void);

bool failing_alloc_round_begin(size_t nth);
void failing_alloc_round_end(const char *file, int line);

#define FAILING_ALLOC_LOOP(n)                        \
    for (size_t n = 0; failing_alloc_round_begin(n); \
         failing_alloc_round_end(__FILE__, __LINE__), n++)

#endif
