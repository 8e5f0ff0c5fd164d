#include "guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const uint8_t *guard_place(guard *g, const void *data, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (!g->pages || g->readable < len) {
        guard_release(g);
        g->readable = (len / page + 1) * page;
        g->pages = mmap(NULL, g->readable + page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (g->pages == MAP_FAILED || mprotect(g->pages + g->readable, page, PROT_NONE) != 0) {
            perror("guard page");
            exit(2);
        }
    }
    uint8_t *start = g->pages + g->readable - len;
    if (len > 0)
        memcpy(start, data, len);
    return start;
}

void guard_release(guard *g)
{
    if (g->pages)
        munmap(g->pages, g->readable + (size_t)sysconf(_SC_PAGESIZE));
    g->pages = NULL;
    g->readable = 0;
}

void guard_truncations(const void *data, size_t len,
                       void (*check)(const uint8_t *data, size_t len, size_t full, void *context),
                       void *context)
{
    guard g = {NULL, 0};
    for (size_t n = 0; n <= len; n++)
        check(guard_place(&g, data, n), n, len, context);
    guard_release(&g);
}
