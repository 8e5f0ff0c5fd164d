/* See redis_map.h. */
#include "drivers/redis_map.h"

#include <errno.h>
#include <time.h>

#include "base/alloc.h"
#include "base/banned.h"

#define NS_PER_S INT64_C(1000000000)

/* ---- life ----------------------------------------------------------------------- */

static int init_condition(ces_redis_map *map)
{
    pthread_condattr_t attr;
    int rc = pthread_condattr_init(&attr);
    if (rc == 0) {
        rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        rc = rc == 0 ? pthread_cond_init(&map->changed, &attr) : rc;
        pthread_condattr_destroy(&attr);
    }
    return rc;
}

static void fork_prepare(void *context)
{
    pthread_mutex_lock(&((ces_redis_map *)context)->mutex);
}

static void fork_parent(void *context)
{
    pthread_mutex_unlock(&((ces_redis_map *)context)->mutex);
}

/* Who was looking, and who waited for it, are threads of the parent. */
static void fork_child(void *context)
{
    ces_redis_map *map = context;
    (void)init_condition(map);
    map->looking = false;
    pthread_mutex_unlock(&map->mutex);
}

int ces_redis_map_init(ces_redis_map *map, const ces_redis_settings *settings,
                       ces_redis_dialer *dialer, ces_redis_check *check, cession_error *err)
{
    map->dialer = dialer;
    map->check = check;
    map->max_connections = settings->max_connections;
    if (init_condition(map) != 0) {
        return cession_fail(err, CESSION_E_NOMEM, "no condition could be made");
    }
    if (pthread_mutex_init(&map->mutex, NULL) != 0) {
        pthread_cond_destroy(&map->changed);
        return cession_fail(err, CESSION_E_NOMEM, "no mutex could be made");
    }
    map->hook = (ces_fork_hook){
        .prepare = fork_prepare, .parent = fork_parent, .child = fork_child, .context = map};
    int rc = ces_fork_register(&map->hook, err);
    if (rc != CESSION_OK) {
        pthread_cond_destroy(&map->changed);
        pthread_mutex_destroy(&map->mutex);
    }
    return rc;
}

static void node_free(ces_redis_node *node)
{
    if (node != NULL) {
        ces_pool_free(node->pool);
        ces_free(node);
    }
}

void ces_redis_map_release(ces_redis_map *map)
{
    ces_fork_unregister(&map->hook);
    for (size_t i = 0; i < CES_REDIS_NODES_MAX; i++) {
        node_free(map->nodes[i]);
    }
    pthread_cond_destroy(&map->changed);
    pthread_mutex_destroy(&map->mutex);
}

/* ---- servers ---------------------------------------------------------------------- */

static int node_new(ces_redis_map *map, cession_span host, unsigned port, ces_redis_node **ret_node,
                    cession_error *err)
{
    ces_redis_node *node = ces_alloc_zero(sizeof *node);
    if (node == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    memcpy(node->host, host.data, host.len);
    node->target = (ces_redis_target){.dialer = map->dialer,
                                      .place = {.host = node->host, .port = port},
                                      .check = map->check,
                                      .use = &node->use};
    atomic_init(&node->use.holds, 0);
    atomic_init(&node->use.suspect, false);
    int rc = ces_redis_pool_new(&node->target, map->max_connections, &node->pool, err);
    if (rc != CESSION_OK) {
        ces_free(node);
        return rc;
    }
    *ret_node = node;
    return CESSION_OK;
}

/* Where the place is in the table, else where it may go; NODES_MAX: it is full. */
static size_t find(const ces_redis_map *map, cession_span host, unsigned port, bool *ret_found)
{
    size_t room = CES_REDIS_NODES_MAX, unused = CES_REDIS_NODES_MAX;
    for (size_t i = 0; i < CES_REDIS_NODES_MAX; i++) {
        const ces_redis_node *node = map->nodes[i];
        if (node == NULL) {
            room = room < CES_REDIS_NODES_MAX ? room : i;
        } else if (node->target.place.port == port &&
                   cession_span_eq(cession_span_str(node->host), host)) {
            *ret_found = true;
            return i;
        } else if (!node->wanted && atomic_load(&node->use.holds) == 0) {
            unused = i;
        }
    }
    *ret_found = false;
    return room < CES_REDIS_NODES_MAX ? room : unused;
}

int ces_redis_map_hold(ces_redis_map *map, cession_span host, unsigned port,
                       ces_redis_node **ret_node, size_t *ret_number, cession_error *err)
{
    ces_redis_node *made = NULL, *old = NULL;
    bool found = false;
    if (host.len == 0 || host.len > CES_REDIS_HOST_MAX || port == 0 || port > 65535 ||
        memchr(host.data, '\0', host.len) != NULL) {
        return cession_fail(err, CESSION_E_UNAVAILABLE,
                            "the Redis server named a place that is none");
    }
    pthread_mutex_lock(&map->mutex);
    size_t at = find(map, host, port, &found);
    if (!found) {
        /* A pool is not made under the mutex: it registers for forks, which wait
         * for the mutex. */
        pthread_mutex_unlock(&map->mutex);
        int rc = node_new(map, host, port, &made, err);
        if (rc != CESSION_OK) {
            return rc;
        }
        pthread_mutex_lock(&map->mutex);
        at = find(map, host, port, &found);
    }
    if (at < CES_REDIS_NODES_MAX && !found) {
        old = map->nodes[at];
        map->nodes[at] = made;
        made = NULL;
    }
    if (at < CES_REDIS_NODES_MAX) {
        ces_redis_node_hold(map->nodes[at]);
        *ret_node = map->nodes[at];
        *ret_number = at;
    }
    pthread_mutex_unlock(&map->mutex);
    node_free(made);
    node_free(old);
    return at < CES_REDIS_NODES_MAX
               ? CESSION_OK
               : cession_fail(err, CESSION_E_LIMIT, "more than %u Redis servers are in use",
                              CES_REDIS_NODES_MAX);
}

void ces_redis_node_hold(ces_redis_node *node)
{
    atomic_fetch_add(&node->use.holds, 1);
}

void ces_redis_node_drop(ces_redis_node *node)
{
    atomic_fetch_sub(&node->use.holds, 1);
}

int ces_redis_node_take(ces_redis_node *node, cession_deadline deadline, ces_redis_lease *ret_lease,
                        cession_error *err)
{
    ces_redis_lease lease = {NULL};
    int rc = ces_redis_lease_take(node->pool, deadline, &lease, err);
    if (rc == CESSION_OK) {
        lease.use = &node->use;
        *ret_lease = lease;
    } else {
        ces_redis_node_drop(node);
    }
    return rc;
}

bool ces_redis_node_suspect(const ces_redis_node *node)
{
    return atomic_load(&node->use.suspect);
}

/* ---- looking ------------------------------------------------------------------------ */

/* The mutex is held. False: the time is over. */
static bool wait_changed(ces_redis_map *map, cession_deadline deadline)
{
    struct timespec until = {.tv_sec = (time_t)(deadline / NS_PER_S),
                             .tv_nsec = (long)(deadline % NS_PER_S)};
    return pthread_cond_timedwait(&map->changed, &map->mutex, &until) != ETIMEDOUT;
}

int ces_redis_map_look(ces_redis_map *map, uint64_t seen, ces_redis_look *look, void *context,
                       cession_deadline deadline, cession_error *err)
{
    pthread_mutex_lock(&map->mutex);
    bool in_time = true;
    while (map->looking && map->generation == seen && in_time) {
        in_time = wait_changed(map, deadline);
    }
    bool done = map->generation != seen;
    bool mine = !done && !map->looking;
    map->looking = map->looking || mine;
    pthread_mutex_unlock(&map->mutex);
    if (!mine) {
        return done ? CESSION_OK
                    : cession_fail(err, CESSION_E_TIMEOUT,
                                   "the Redis servers could not be found out in time");
    }
    int rc = look(context, deadline, err);
    pthread_mutex_lock(&map->mutex);
    map->looking = false;
    map->generation += rc == CESSION_OK;
    pthread_cond_broadcast(&map->changed);
    pthread_mutex_unlock(&map->mutex);
    return rc;
}

int ces_redis_ask(ces_redis_dialer *dialer, const ces_redis_place *place, const cession_span *words,
                  size_t count, cession_deadline deadline, ces_redis_reply **ret_reply,
                  cession_error *err)
{
    ces_redis_conn *conn = NULL;
    int rc = ces_redis_connect(dialer, place, deadline, &conn, err);
    if (rc == CESSION_OK) {
        rc = ces_redis_question(conn, words, count, deadline, ret_reply, err);
        ces_redis_close(conn);
    }
    return rc;
}

cession_deadline ces_redis_share(cession_deadline deadline, size_t count)
{
    int64_t now = ces_mono_ns();
    return deadline <= now || count < 2 ? deadline : now + (deadline - now) / (int64_t)count;
}
