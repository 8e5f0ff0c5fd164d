#include "failing_alloc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "harness.h"

static atomic_size_t live;
static atomic_size_t left; /* allocations until the one that fails; SIZE_MAX: none */
static atomic_bool fired;

static bool must_fail(void)
{
    size_t now = atomic_load(&left);
    if (now == SIZE_MAX)
        return false;
    if (now == 0) {
        atomic_store(&left, SIZE_MAX);
        atomic_store(&fired, true);
        return true;
    }
    atomic_store(&left, now - 1);
    return false;
}

static void *failing_allocate(size_t size)
{
    if (must_fail())
        return NULL;
    void *ptr = malloc(size);
    if (ptr)
        atomic_fetch_add(&live, 1);
    return ptr;
}

static void *failing_resize(void *ptr, size_t size)
{
    if (must_fail())
        return NULL;
    void *moved = realloc(ptr, size);
    if (moved && !ptr)
        atomic_fetch_add(&live, 1);
    return moved;
}

static void failing_release(void *ptr)
{
    if (ptr)
        atomic_fetch_sub(&live, 1);
    free(ptr);
}

static const cession_allocator allocator = {
    .alloc = failing_allocate, .resize = failing_resize, .release = failing_release};

void failing_alloc_install(void)
{
    atomic_store(&live, 0);
    failing_alloc_arm(SIZE_MAX);
    cession_set_allocator(&allocator);
}

void failing_alloc_uninstall(void)
{
    cession_set_allocator(NULL);
}

void failing_alloc_arm(size_t nth)
{
    atomic_store(&fired, false);
    atomic_store(&left, nth);
}

bool failing_alloc_fired(void)
{
    return atomic_load(&fired);
}

size_t failing_alloc_live(void)
{
    return atomic_load(&live);
}

/* Called before each round; the flag still tells about the round before. */
bool failing_alloc_round_begin(size_t nth)
{
    if (nth > 0 && !failing_alloc_fired())
        return false;
    failing_alloc_install();
    failing_alloc_arm(nth);
    return true;
}

void failing_alloc_round_end(const char *file, int line)
{
    harness_check_int((long long)failing_alloc_live(), 0, file, line, "blocks left allocated");
    failing_alloc_uninstall();
}
