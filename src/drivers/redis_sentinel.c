/* A master that Sentinel watches.
 *
 * The sentinels are asked who is the master, and the answer is believed only if
 * the server itself says so (ROLE): a sentinel that was cut off names the old one,
 * and the old one may be a replica by now. Every new connection is asked, so that
 * nothing is read from or written to a replica.
 *
 * A master that was replaced does not know it at once: where it still runs, Sentinel
 * makes it a replica (and so closes its connections) only after some ten seconds,
 * and what it acknowledges until then is lost. So the sentinels are asked again
 * every second, by one request, also while the master answers.
 *
 * While no sentinel names a master that answers, operations fail at once: nothing
 * is kept for later, and nothing waits for the failover. */
#include "drivers/redis_map.h"

#include "base/alloc.h"
#include "base/banned.h"

#define NS_PER_MS INT64_C(1000000)
#define ASK_AGAIN_NS (1000 * NS_PER_MS)
#define ASK_AGAIN_WAIT_NS (100 * NS_PER_MS) /* of a request that could do without */
#define SENTINEL_CONNECTIONS 2u             /* to each */

typedef struct sentinel {
    ces_redis_nodes base;
    ces_redis_map map;
    const ces_redis_settings *settings;
    ces_redis_dialer *dialer; /* how to speak to sentinels */
    ces_redis_target targets[CES_REDIS_PLACES_MAX];
    ces_pool *pools[CES_REDIS_PLACES_MAX];
    /* under the map's mutex: */
    size_t first;           /* the sentinel that answered last */
    ces_redis_node *master; /* NULL: not known yet */
    int64_t asked_at;       /* mono ns */
} sentinel;

static sentinel *self_of(ces_redis_nodes *nodes)
{
    return (sentinel *)nodes;
}

#define TEXT(literal) cession_span_of(literal, sizeof(literal) - 1)

/* Of a new connection: is it the master? */
static int check_role(ces_redis_conn *conn, cession_deadline deadline, cession_error *err)
{
    const cession_span word = TEXT("ROLE");
    ces_redis_reply *reply = NULL;
    int rc = ces_redis_question(conn, &word, 1, deadline, &reply, err);
    if (rc == CESSION_E_PERMISSION) {
        return cession_fail(err, rc,
                            "behind Sentinel the user of a redis store must be allowed to ask "
                            "for the ROLE of a server (+role)");
    }
    if (rc != CESSION_OK) {
        return rc;
    }
    const ces_redis_reply *role = reply->kind == CES_REDIS_ARRAY && reply->count > 0
                                      ? reply->items[0]
                                      : reply;
    if (!cession_span_eq(cession_span_of(role->text, role->len), TEXT("master"))) {
        rc = cession_fail(err, CESSION_E_UNAVAILABLE,
                          "the server that was the Redis master is none any more");
    }
    ces_redis_reply_free(reply);
    return rc;
}

/* A decimal number of a text; 0: it is none. */
static unsigned port_of(const ces_redis_reply *text)
{
    unsigned port = 0;
    for (size_t i = 0; i < text->len; i++) {
        if (text->text[i] < '0' || text->text[i] > '9' || port > 65535) {
            return 0;
        }
        port = port * 10 + (unsigned)(text->text[i] - '0');
    }
    return port;
}

/* What one sentinel says, as a held node. */
static int ask_sentinel(sentinel *self, size_t which, cession_deadline deadline,
                        ces_redis_node **ret_node, cession_error *err)
{
    const cession_span words[] = {TEXT("SENTINEL"), TEXT("GET-MASTER-ADDR-BY-NAME"),
                                  cession_span_str(self->settings->service)};
    ces_redis_reply *reply = NULL;
    ces_redis_lease lease = {NULL};
    size_t number;
    int rc = ces_redis_lease_take(self->pools[which], deadline, &lease, err);
    if (rc == CESSION_OK) {
        rc = ces_redis_question(lease.conn, words, 3, deadline, &reply, err);
        ces_redis_lease_give(&lease);
    }
    if (rc != CESSION_OK) {
        return rc;
    }
    if (reply->kind == CES_REDIS_ARRAY && reply->count == 2 &&
        reply->items[0]->kind == CES_REDIS_STRING && reply->items[1]->kind == CES_REDIS_STRING) {
        rc = ces_redis_map_hold(&self->map,
                                cession_span_of(reply->items[0]->text, reply->items[0]->len),
                                port_of(reply->items[1]), ret_node, &number, err);
    } else {
        rc = cession_fail(err, CESSION_E_UNAVAILABLE,
                          "Redis Sentinel knows no master of this name");
    }
    ces_redis_reply_free(reply);
    return rc;
}

static void settle(sentinel *self, ces_redis_node *master, size_t first)
{
    pthread_mutex_lock(&self->map.mutex);
    if (self->master != NULL) {
        self->master->wanted = false;
    }
    master->wanted = true;
    self->master = master;
    self->first = first;
    self->asked_at = ces_mono_ns();
    pthread_mutex_unlock(&self->map.mutex);
}

/* The first sentinel that names a master which is one. */
static int look(void *context, cession_deadline deadline, cession_error *err)
{
    sentinel *self = context;
    const ces_redis_settings *settings = self->settings;
    const ces_redis_node *refused = NULL; /* most name the same one: it is tried once */
    int rc = CESSION_E_UNAVAILABLE;
    pthread_mutex_lock(&self->map.mutex);
    size_t first = self->first;
    pthread_mutex_unlock(&self->map.mutex);
    for (size_t i = 0; i < settings->place_count; i++) {
        size_t at = (first + i) % settings->place_count;
        cession_deadline until = ces_redis_share(deadline, settings->place_count - i);
        ces_redis_node *node = NULL;
        ces_redis_lease lease = {NULL};
        int said = ask_sentinel(self, at, until, &node, err);
        if (said == CESSION_OK && node == refused) {
            ces_redis_node_drop(node);
            continue;
        }
        if (said == CESSION_OK) {
            atomic_store(&node->use.suspect, false);
            said = ces_redis_node_take(node, until, &lease, err);
            refused = node;
        }
        if (said == CESSION_OK) {
            settle(self, node, at);
            ces_redis_lease_give(&lease);
            return CESSION_OK;
        }
        rc = said;
    }
    return rc;
}

static int sentinel_take(ces_redis_nodes *nodes, cession_span key, cession_deadline deadline,
                         ces_redis_lease *ret_lease, cession_error *err)
{
    sentinel *self = self_of(nodes);
    (void)key;
    for (unsigned tries = 0;; tries++) {
        int64_t now = ces_mono_ns();
        pthread_mutex_lock(&self->map.mutex);
        ces_redis_node *node = self->master;
        uint64_t seen = self->map.generation;
        bool usable = node != NULL && (tries > 0 || !ces_redis_node_suspect(node));
        bool due = usable && tries == 0 && now - self->asked_at >= ASK_AGAIN_NS;
        if (usable && !due) {
            ces_redis_node_hold(node);
        }
        if (due) {
            self->asked_at = now; /* nobody else, whatever comes of it */
        }
        pthread_mutex_unlock(&self->map.mutex);
        int rc = CESSION_OK;
        if (due) {
            cession_deadline soon = now + ASK_AGAIN_WAIT_NS;
            rc = ces_redis_map_look(&self->map, seen, look, self, soon < deadline ? soon : deadline,
                                    err);
            if (rc != CESSION_OK) {
                cession_error_clear(err);
            }
            continue;
        }
        if (usable) {
            rc = ces_redis_node_take(node, deadline, ret_lease, err);
            if (rc == CESSION_OK || tries > 0 || !ces_redis_node_suspect(node)) {
                return rc;
            }
        }
        rc = ces_redis_map_look(&self->map, seen, look, self, deadline, err);
        if (rc != CESSION_OK) {
            return rc;
        }
        cession_error_clear(err);
    }
}

static int sentinel_learn(ces_redis_nodes *nodes, cession_span key, const ces_redis_reply *answer,
                          cession_deadline deadline, ces_redis_lease *lease, cession_error *err)
{
    if (answer != NULL && (lease->looked || (!ces_redis_is_error(answer, "READONLY") &&
                                             !ces_redis_is_error(answer, "MASTERDOWN")))) {
        return CESSION_NOT_FOUND;
    }
    atomic_store(&lease->use->suspect, true);
    ces_redis_lease_give(lease);
    int rc = sentinel_take(nodes, key, deadline, lease, err);
    lease->looked = rc == CESSION_OK;
    return rc;
}

static int sentinel_nth(ces_redis_nodes *nodes, unsigned n, cession_deadline deadline,
                        ces_redis_lease *ret_lease, cession_error *err)
{
    return n == 0 ? sentinel_take(nodes, cession_span_of(NULL, 0), deadline, ret_lease, err)
                  : CESSION_NOT_FOUND;
}

static void free_pools(sentinel *self)
{
    for (size_t i = 0; i < self->settings->place_count; i++) {
        ces_pool_free(self->pools[i]);
    }
    ces_redis_dialer_free(self->dialer);
}

static int make_pools(sentinel *self, cession_error *err)
{
    int rc = ces_redis_dialer_new(&self->settings->sentinel_manner, &self->dialer, err);
    for (size_t i = 0; rc == CESSION_OK && i < self->settings->place_count; i++) {
        self->targets[i] = (ces_redis_target){.dialer = self->dialer,
                                              .place = self->settings->places[i]};
        rc = ces_redis_pool_new(&self->targets[i], SENTINEL_CONNECTIONS, &self->pools[i], err);
    }
    return rc;
}

static void sentinel_close(ces_redis_nodes *nodes)
{
    sentinel *self = self_of(nodes);
    ces_redis_map_release(&self->map);
    free_pools(self);
    ces_free(self);
}

static const ces_redis_nodes_ops sentinel_ops = {
    .close = sentinel_close, .take = sentinel_take, .learn = sentinel_learn, .nth = sentinel_nth};

int ces_redis_sentinel_new(const ces_redis_settings *settings, ces_redis_dialer *dialer,
                           ces_redis_nodes **ret_nodes, cession_error *err)
{
    sentinel *self = ces_alloc_zero(sizeof *self);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->base.ops = &sentinel_ops;
    self->settings = settings;
    int rc = make_pools(self, err);
    if (rc == CESSION_OK) {
        rc = ces_redis_map_init(&self->map, settings, dialer, check_role, err);
    }
    if (rc != CESSION_OK) {
        free_pools(self);
        ces_free(self);
        return rc;
    }
    *ret_nodes = &self->base;
    return CESSION_OK;
}
