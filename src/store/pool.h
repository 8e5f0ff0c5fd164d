/* A pool of exclusive handles (a connection with its prepared statements).
 *
 * Drivers are written as if single threaded: an operation takes a handle, works
 * and gives it back. At most max handles exist; when all are out, a taker waits
 * until the deadline (0: E_BUSY at once). Idle handles are kept, last in first
 * out.
 *
 * Around fork(), with close_before_fork, the pool waits (bounded, 5 s) for
 * handles in use, closes all idle ones and both sides open anew when they next
 * need one; if one was still out, the child's pool answers E_FORK for ever.
 * Without it nobody waits: the parent keeps its handles, the child forgets them.
 *
 * Lock order: the pool's mutex is a leaf; no callback runs under it but close
 * during fork preparation.
 */
#ifndef CES_STORE_POOL_H
#define CES_STORE_POOL_H

#include "cession/store.h"

typedef struct ces_pool ces_pool;
typedef struct ces_pool_config {
    size_t max; /* handles, > 0 */
    /* Make a handle. Any status of an open. */
    int (*open)(void *context, cession_deadline deadline, void **ret_handle, cession_error *err);
    void (*close)(void *context, void *handle);
    /* Network handles must not be closed in the child, only forgotten. NULL: close. */
    void (*forget)(void *context, void *handle);
    bool close_before_fork; /* SQLite: yes. Sockets: no, forgotten in the child instead */
    void *context;
} ces_pool_config;

int ces_pool_new(const ces_pool_config *config, ces_pool **ret_pool, cession_error *err);
void ces_pool_free(ces_pool *pool); /* no handle may be out; NULL is fine */
int ces_pool_take(ces_pool *pool, cession_deadline deadline, void **ret_handle, cession_error *err);
/* keep false: the handle is broken, close it instead. */
void ces_pool_give(ces_pool *pool, void *handle, bool keep);

#endif
