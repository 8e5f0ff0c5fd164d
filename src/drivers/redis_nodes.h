/* The servers of one store: which connection serves a key. redis_wire.h says how
 * the pieces fit. */
#ifndef CES_DRIVERS_REDIS_NODES_H
#define CES_DRIVERS_REDIS_NODES_H

#include <stdatomic.h>

#include "drivers/redis_settings.h"
#include "store/pool.h"

typedef struct ces_redis_nodes ces_redis_nodes;

/* Of a server among several (redis_map.h). */
typedef struct ces_redis_use {
    atomic_uint holds;   /* by those who use it now; it stays in the table */
    atomic_bool suspect; /* no connection could be made, or one came back broken */
} ces_redis_use;

/* A connection on loan. */
typedef struct ces_redis_lease {
    ces_redis_conn *conn; /* NULL: none */
    ces_pool *pool;       /* it came out of */
    ces_redis_use *use;   /* of the server, held; NULL: there is only one */
    bool fresh;           /* just made; a loss is no matter of having been idle */
    bool asking;          /* ASKING goes before each command */
    bool looked;          /* the servers were looked for in this request already */
} ces_redis_lease;

typedef struct ces_redis_nodes_ops {
    void (*close)(ces_redis_nodes *nodes);
    int (*take)(ces_redis_nodes *nodes, cession_span key, cession_deadline deadline,
                ces_redis_lease *ret_lease, cession_error *err);
    /* answer: an error that the server gave, all answers of the request read; or
     * NULL, the connection was lost. OK: *lease was given back and is another
     * one now. NOT_FOUND: nothing learned, *lease is as it was, the answer
     * stands. An error: *lease was given back and is empty. */
    int (*learn)(ces_redis_nodes *nodes, cession_span key, const ces_redis_reply *answer,
                 cession_deadline deadline, ces_redis_lease *lease, cession_error *err);
    /* To master number n, in an order that stays while no node comes or goes.
     * NOT_FOUND: there are not so many. */
    int (*nth)(ces_redis_nodes *nodes, unsigned n, cession_deadline deadline,
               ces_redis_lease *ret_lease, cession_error *err);
} ces_redis_nodes_ops;

struct ces_redis_nodes {
    const ces_redis_nodes_ops *ops;
};

/* Sentinel, and Cluster; as above. */
int ces_redis_sentinel_new(const ces_redis_settings *settings, ces_redis_dialer *dialer,
                           ces_redis_nodes **ret_nodes, cession_error *err);
int ces_redis_cluster_new(const ces_redis_settings *settings, ces_redis_dialer *dialer,
                          ces_redis_nodes **ret_nodes, cession_error *err);
/* Which of 16,384 slots of a Cluster a key belongs to. */
unsigned ces_redis_slot(cession_span key);

/* One server. Settings and dialer are borrowed for its life. */
int ces_redis_single_new(const ces_redis_settings *settings, ces_redis_dialer *dialer,
                         ces_redis_nodes **ret_nodes, cession_error *err);

/* ---- a pool of connections to one place, for all topologies -------------------- */

/* Whether a new connection leads to a server that will do. */
typedef int ces_redis_check(ces_redis_conn *conn, cession_deadline deadline, cession_error *err);

typedef struct ces_redis_target {
    ces_redis_dialer *dialer;
    ces_redis_place place;
    ces_redis_check *check; /* NULL: any will */
    ces_redis_use *use;     /* NULL: there is only one */
} ces_redis_target;

/* target is borrowed for the pool's life, and so is what it points to. */
int ces_redis_pool_new(ces_redis_target *target, size_t max, ces_pool **ret_pool,
                       cession_error *err);
/* One that is alive; those that the server gave up meanwhile are closed. */
int ces_redis_lease_take(ces_pool *pool, cession_deadline deadline, ces_redis_lease *ret_lease,
                         cession_error *err);
/* Back into its pool, or closed when it cannot be used again; *lease is empty. */
void ces_redis_lease_give(ces_redis_lease *lease);
/* One command and its answer, which the caller frees; an error that the server
 * answers is one. */
int ces_redis_question(ces_redis_conn *conn, const cession_span *words, size_t count,
                       cession_deadline deadline, ces_redis_reply **ret_reply, cession_error *err);

#endif
