/* What Sentinel and Cluster share: a table of the servers that were found, with a
 * pool of connections for each, and one look for them at a time.
 *
 * A server stays in the table while the topology leads to it or somebody has a
 * connection of it; others make room when the table is full. So it is bounded,
 * however often servers change their addresses.
 *
 * A server becomes suspect when a connection to it cannot be made or comes back
 * broken (lost, or nothing was heard until the deadline). Whoever wants it next
 * looks first whether it is still the right one.
 *
 * Threads: any. Nothing here is called with the mutex held but what says so. Fork:
 * a look that another thread was at is forgotten in the child.
 */
#ifndef CES_DRIVERS_REDIS_MAP_H
#define CES_DRIVERS_REDIS_MAP_H

#include <pthread.h>

#include "base/os.h"
#include "drivers/redis_nodes.h"

#define CES_REDIS_NODES_MAX 512u
#define CES_REDIS_HOST_MAX 255u

typedef struct ces_redis_node {
    ces_redis_target target;
    ces_redis_use use;
    ces_pool *pool;
    bool wanted; /* the topology leads to it; under the mutex */
    char host[CES_REDIS_HOST_MAX + 1];
} ces_redis_node;

typedef struct ces_redis_map {
    ces_redis_dialer *dialer;
    ces_redis_check *check;
    size_t max_connections; /* to each server */
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a look is over */
    ces_fork_hook hook;
    bool looking;
    uint64_t generation; /* looks that succeeded */
    ces_redis_node *nodes[CES_REDIS_NODES_MAX];
} ces_redis_map;

/* check: asked of every new connection to a server of the table; NULL: nothing. */
int ces_redis_map_init(ces_redis_map *map, const ces_redis_settings *settings,
                       ces_redis_dialer *dialer, ces_redis_check *check, cession_error *err);
void ces_redis_map_release(ces_redis_map *map);

/* The server at this place and its number in the table, which stays while it is
 * wanted or held; held for the caller. */
int ces_redis_map_hold(ces_redis_map *map, cession_span host, unsigned port,
                       ces_redis_node **ret_node, size_t *ret_number, cession_error *err);
/* The mutex is held, the node is in the table. */
void ces_redis_node_hold(ces_redis_node *node);
void ces_redis_node_drop(ces_redis_node *node);
/* A connection to a held node. The hold goes with the lease, or is dropped. */
int ces_redis_node_take(ces_redis_node *node, cession_deadline deadline, ces_redis_lease *ret_lease,
                        cession_error *err);
bool ces_redis_node_suspect(const ces_redis_node *node);

/* Look, unless somebody did since the caller saw `seen` as the generation: then
 * his result serves, and whoever comes while somebody is looking waits for it. */
typedef int ces_redis_look(void *context, cession_deadline deadline, cession_error *err);
int ces_redis_map_look(ces_redis_map *map, uint64_t seen, ces_redis_look *look, void *context,
                       cession_deadline deadline, cession_error *err);

/* One command on a connection of its own to a place that is no server of the table,
 * or is not known to be one. The caller frees the reply, which is no error. */
int ces_redis_ask(ces_redis_dialer *dialer, const ces_redis_place *place, const cession_span *words,
                  size_t count, cession_deadline deadline, ces_redis_reply **ret_reply,
                  cession_error *err);
/* The part of the time left that one of `count` attempts may take. */
cession_deadline ces_redis_share(cession_deadline deadline, size_t count);

#endif
