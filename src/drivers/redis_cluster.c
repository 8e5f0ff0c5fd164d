/* Redis Cluster: the slot of a key, and the master that has it.
 *
 * The map is made of what one server says (CLUSTER SLOTS); any that can be reached
 * will do, those of the map first, then those that were configured. It is looked
 * at again when a server of it becomes suspect, when there is no server for a
 * slot, and, at most once a second, after a MOVED; that answer itself corrects the
 * one slot at once. ASK leads one request elsewhere and changes nothing.
 *
 * Only masters are asked: a replica answers MOVED, since no connection of ours
 * says READONLY. A server that was cut off from the others answers CLUSTERDOWN
 * after its node timeout; what it acknowledged until then may be lost with it. */
#include "drivers/redis_map.h"

#include <stddef.h>

#include "base/alloc.h"
#include "base/banned.h"

#define SLOTS 16384u
#define NOBODY UINT16_MAX
#define LOOK_PAUSE_NS INT64_C(1000000000) /* between looks that nobody waits for */

typedef struct cluster {
    ces_redis_nodes base;
    ces_redis_map map;
    const ces_redis_settings *settings;
    /* under the mutex: */
    bool stale;        /* MOVED was answered since the last look */
    int64_t looked_at; /* mono ns */
    uint16_t slots[SLOTS];
} cluster;

static cluster *self_of(ces_redis_nodes *nodes)
{
    return (cluster *)nodes;
}

/* ---- slots -------------------------------------------------------------------------- */

/* CRC-16/XMODEM, half a byte at a time. */
static unsigned crc16(cession_span text)
{
    static const uint16_t table[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5,
                                       0x60c6, 0x70e7, 0x8108, 0x9129, 0xa14a, 0xb16b,
                                       0xc18c, 0xd1ad, 0xe1ce, 0xf1ef};
    unsigned crc = 0;
    for (size_t i = 0; i < text.len; i++) {
        crc = (crc << 4 ^ table[(crc >> 12 ^ text.data[i] >> 4) & 15]) & 0xffff;
        crc = (crc << 4 ^ table[(crc >> 12 ^ text.data[i]) & 15]) & 0xffff;
    }
    return crc;
}

/* Of a key with braces that hold something only that counts. */
unsigned ces_redis_slot(cession_span key)
{
    const uint8_t *open = key.len > 0 ? memchr(key.data, '{', key.len) : NULL;
    if (open != NULL) {
        size_t left = key.len - (size_t)(open + 1 - key.data);
        const uint8_t *close = left > 0 ? memchr(open + 1, '}', left) : NULL;
        if (close != NULL && close > open + 1) {
            key = cession_span_of(open + 1, (size_t)(close - open - 1));
        }
    }
    return crc16(key) % SLOTS;
}

/* ---- the map -------------------------------------------------------------------------- */

/* One entry of CLUSTER SLOTS, first slot, last slot, [host, port, ...] of the master,
 * ..., into a new map. The host is missing where the server does not know what it
 * is called: it is the one that was asked. Its node stays held. */
static int read_range(cluster *self, const ces_redis_reply *range, const char *asked,
                      uint16_t slots[SLOTS], uint16_t *ret_number, cession_error *err)
{
    const ces_redis_reply *master = range->kind == CES_REDIS_ARRAY && range->count >= 3
                                        ? range->items[2]
                                        : NULL;
    if (master == NULL || range->items[0]->kind != CES_REDIS_INTEGER ||
        range->items[1]->kind != CES_REDIS_INTEGER || master->kind != CES_REDIS_ARRAY ||
        master->count < 2 || master->items[1]->kind != CES_REDIS_INTEGER) {
        return cession_fail(err, CESSION_E_IO, "the answer to CLUSTER SLOTS is malformed");
    }
    int64_t from = range->items[0]->integer, to = range->items[1]->integer;
    int64_t port = master->items[1]->integer;
    const ces_redis_reply *host = master->items[0];
    cession_span name = host->kind == CES_REDIS_STRING && host->len > 0
                            ? cession_span_of(host->text, host->len)
                            : cession_span_str(asked);
    if (from < 0 || to < from || to >= (int64_t)SLOTS || port < 1 || port > 65535) {
        return cession_fail(err, CESSION_E_IO, "the answer to CLUSTER SLOTS is malformed");
    }
    ces_redis_node *node = NULL;
    size_t number = 0;
    int rc = ces_redis_map_hold(&self->map, name, (unsigned)port, &node, &number, err);
    for (int64_t slot = from; rc == CESSION_OK && slot <= to; slot++) {
        slots[slot] = (uint16_t)number;
    }
    *ret_number = (uint16_t)number;
    return rc;
}

/* The mutex is held, and so are the nodes of the new map. */
static void adopt(cluster *self, const uint16_t slots[SLOTS])
{
    memcpy(self->slots, slots, sizeof self->slots);
    for (size_t i = 0; i < CES_REDIS_NODES_MAX; i++) {
        if (self->map.nodes[i] != NULL) {
            self->map.nodes[i]->wanted = false;
        }
    }
    for (size_t i = 0; i < SLOTS; i++) {
        if (slots[i] != NOBODY) {
            self->map.nodes[slots[i]]->wanted = true;
            atomic_store(&self->map.nodes[slots[i]]->use.suspect, false);
        }
    }
    self->stale = false;
    self->looked_at = ces_mono_ns();
}

static int read_map(cluster *self, const ces_redis_reply *reply, const char *asked,
                    cession_error *err)
{
    size_t held = 0; /* ranges whose node is held */
    int rc = CESSION_OK;
    if (reply->kind != CES_REDIS_ARRAY || reply->count == 0 || reply->count > SLOTS) {
        return cession_fail(err, CESSION_E_UNAVAILABLE, "the Redis Cluster serves no slots");
    }
    uint16_t *slots = ces_alloc((SLOTS + reply->count) * sizeof *slots);
    if (slots == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    uint16_t *numbers = slots + SLOTS; /* of the ranges' nodes */
    for (size_t i = 0; i < SLOTS; i++) {
        slots[i] = NOBODY;
    }
    while (rc == CESSION_OK && held < reply->count) {
        rc = read_range(self, reply->items[held], asked, slots, &numbers[held], err);
        held += rc == CESSION_OK;
    }
    pthread_mutex_lock(&self->map.mutex);
    if (rc == CESSION_OK) {
        adopt(self, slots);
    }
    for (size_t i = 0; i < held; i++) {
        ces_redis_node_drop(self->map.nodes[numbers[i]]);
    }
    pthread_mutex_unlock(&self->map.mutex);
    ces_free(slots);
    return rc;
}

static int ask_for_map(cluster *self, const ces_redis_place *place, cession_deadline deadline,
                       cession_error *err)
{
    const cession_span words[] = {cession_span_str("CLUSTER"), cession_span_str("SLOTS")};
    ces_redis_reply *reply = NULL;
    int rc = ces_redis_ask(self->map.dialer, place, words, 2, deadline, &reply, err);
    if (rc == CESSION_OK) {
        rc = read_map(self, reply, place->host, err);
    }
    ces_redis_reply_free(reply);
    return rc;
}

/* Whom to ask: the servers of the map that are not suspect, held; how many. */
static size_t candidates(cluster *self, ces_redis_node **ret_nodes, size_t max)
{
    size_t count = 0, start = (size_t)(ces_chance() % CES_REDIS_NODES_MAX);
    pthread_mutex_lock(&self->map.mutex);
    for (size_t i = 0; i < CES_REDIS_NODES_MAX && count < max; i++) {
        ces_redis_node *node = self->map.nodes[(start + i) % CES_REDIS_NODES_MAX];
        if (node != NULL && node->wanted && !ces_redis_node_suspect(node)) {
            ces_redis_node_hold(node);
            ret_nodes[count++] = node;
        }
    }
    pthread_mutex_unlock(&self->map.mutex);
    return count;
}

#define ASK_MAX 4u /* servers of the map, before those that were configured */

static int look(void *context, cession_deadline deadline, cession_error *err)
{
    cluster *self = context;
    const ces_redis_settings *settings = self->settings;
    ces_redis_node *nodes[ASK_MAX];
    size_t known = candidates(self, nodes, ASK_MAX);
    size_t all = known + settings->place_count;
    int rc = CESSION_E_UNAVAILABLE;
    for (size_t i = 0; i < all && rc != CESSION_OK; i++) {
        const ces_redis_place *place = i < known ? &nodes[i]->target.place
                                                 : &settings->places[i - known];
        rc = ask_for_map(self, place, ces_redis_share(deadline, all - i), err);
    }
    for (size_t i = 0; i < known; i++) {
        ces_redis_node_drop(nodes[i]);
    }
    return rc;
}

/* ---- connections ------------------------------------------------------------------------ */

/* The mutex is held. */
static ces_redis_node *node_of(const cluster *self, unsigned slot)
{
    uint16_t number = self->slots[slot];
    return number != NOBODY ? self->map.nodes[number] : NULL;
}

static int cluster_take(ces_redis_nodes *nodes, cession_span key, cession_deadline deadline,
                        ces_redis_lease *ret_lease, cession_error *err)
{
    cluster *self = self_of(nodes);
    unsigned slot = ces_redis_slot(key);
    bool looked = false;
    for (;;) {
        pthread_mutex_lock(&self->map.mutex);
        ces_redis_node *node = node_of(self, slot);
        uint64_t seen = self->map.generation;
        bool usable = node != NULL && (looked || !ces_redis_node_suspect(node));
        bool due = self->stale && ces_mono_ns() - self->looked_at >= LOOK_PAUSE_NS;
        if (usable) {
            ces_redis_node_hold(node);
        }
        pthread_mutex_unlock(&self->map.mutex);
        if (usable && due && !looked) {
            /* Whatever comes of it, there is a server to ask. */
            looked = true;
            ces_redis_node_drop(node);
            if (ces_redis_map_look(&self->map, seen, look, self, ces_redis_share(deadline, 2),
                                   err) != CESSION_OK) {
                cession_error_clear(err);
            }
            continue;
        }
        int rc = usable ? ces_redis_node_take(node, deadline, ret_lease, err) : CESSION_OK;
        if (usable && (rc == CESSION_OK || looked || !ces_redis_node_suspect(node))) {
            return rc;
        }
        if (looked) {
            return cession_fail(err, CESSION_E_UNAVAILABLE,
                                "no server of the Redis Cluster has the slot of this key");
        }
        looked = true;
        rc = ces_redis_map_look(&self->map, seen, look, self, deadline, err);
        if (rc != CESSION_OK) {
            return rc;
        }
        cession_error_clear(err);
    }
}

/* "MOVED 3999 127.0.0.1:6381", the host may be missing. False: something else. */
static bool read_redirect(const ces_redis_reply *answer, unsigned slot, cession_span *ret_host,
                          unsigned *ret_port)
{
    const char *at = strchr(answer->text, ' ');
    unsigned number = 0, port = 0;
    size_t digits = 0;
    if (at == NULL || strlen(answer->text) != answer->len) {
        return false;
    }
    for (at++; *at >= '0' && *at <= '9' && digits < 5; at++, digits++) {
        number = number * 10 + (unsigned)(*at - '0');
    }
    const char *host = at + 1, *colon = strrchr(answer->text, ':');
    if (digits == 0 || *at != ' ' || number != slot || colon == NULL || colon < host) {
        return false;
    }
    for (at = colon + 1; *at >= '0' && *at <= '9' && port <= 65535; at++) {
        port = port * 10 + (unsigned)(*at - '0');
    }
    *ret_host = cession_span_of(host, (size_t)(colon - host));
    *ret_port = port;
    return *at == '\0' && port > 0 && port <= 65535;
}

/* The node that use is part of. */
static const ces_redis_node *node_of_use(const ces_redis_use *use)
{
    return (const ces_redis_node *)((const char *)use - offsetof(ces_redis_node, use));
}

static int follow(cluster *self, unsigned slot, const ces_redis_reply *answer, bool moved,
                  cession_deadline deadline, ces_redis_lease *lease, cession_error *err)
{
    cession_span host;
    unsigned port;
    ces_redis_node *node = NULL;
    size_t number = 0;
    if (!read_redirect(answer, slot, &host, &port)) {
        return CESSION_NOT_FOUND;
    }
    if (host.len == 0) {
        host = cession_span_str(node_of_use(lease->use)->host);
    }
    int rc = ces_redis_map_hold(&self->map, host, port, &node, &number, err);
    if (rc == CESSION_OK && moved) {
        pthread_mutex_lock(&self->map.mutex);
        self->slots[slot] = (uint16_t)number;
        self->stale = true;
        node->wanted = true;
        pthread_mutex_unlock(&self->map.mutex);
    }
    ces_redis_lease_give(lease);
    if (rc == CESSION_OK) {
        rc = ces_redis_node_take(node, deadline, lease, err);
    }
    if (rc == CESSION_OK) {
        lease->asking = !moved;
    }
    return rc;
}

static int cluster_learn(ces_redis_nodes *nodes, cession_span key, const ces_redis_reply *answer,
                         cession_deadline deadline, ces_redis_lease *lease, cession_error *err)
{
    cluster *self = self_of(nodes);
    bool moved = answer != NULL && ces_redis_is_error(answer, "MOVED");
    if (moved || (answer != NULL && ces_redis_is_error(answer, "ASK"))) {
        return follow(self, ces_redis_slot(key), answer, moved, deadline, lease, err);
    }
    if (answer != NULL && !ces_redis_is_error(answer, "CLUSTERDOWN") &&
        !ces_redis_is_error(answer, "READONLY") && !ces_redis_is_error(answer, "MASTERDOWN")) {
        return CESSION_NOT_FOUND;
    }
    /* Whether somebody else has the slot by now: looked for once, since a cluster
     * that is down is so for everybody. */
    if (answer != NULL && lease->looked) {
        return CESSION_NOT_FOUND;
    }
    atomic_store(&lease->use->suspect, true);
    ces_redis_lease_give(lease);
    int rc = cluster_take(nodes, key, deadline, lease, err);
    lease->looked = rc == CESSION_OK;
    return rc;
}

/* By host and port, so that the order does not depend on when a server was found. */
static int compare_places(const ces_redis_node *a, const ces_redis_node *b)
{
    int order = strcmp(a->host, b->host);
    return order != 0 ? order : (int)a->target.place.port - (int)b->target.place.port;
}

static ces_redis_node *pick(cluster *self, unsigned n)
{
    ces_redis_node *last = NULL;
    for (unsigned i = 0; i <= n; i++) {
        ces_redis_node *next = NULL;
        for (size_t k = 0; k < CES_REDIS_NODES_MAX; k++) {
            ces_redis_node *node = self->map.nodes[k];
            if (node != NULL && node->wanted && (last == NULL || compare_places(node, last) > 0) &&
                (next == NULL || compare_places(node, next) < 0)) {
                next = node;
            }
        }
        if (next == NULL) {
            return NULL;
        }
        last = next;
    }
    return last;
}

static int cluster_nth(ces_redis_nodes *nodes, unsigned n, cession_deadline deadline,
                       ces_redis_lease *ret_lease, cession_error *err)
{
    cluster *self = self_of(nodes);
    pthread_mutex_lock(&self->map.mutex);
    uint64_t seen = self->map.generation;
    ces_redis_node *node = n < CES_REDIS_NODES_MAX ? pick(self, n) : NULL;
    bool usable = seen > 0 && !self->stale && (node == NULL || !ces_redis_node_suspect(node));
    pthread_mutex_unlock(&self->map.mutex);
    int rc = usable ? CESSION_OK : ces_redis_map_look(&self->map, seen, look, self, deadline, err);
    if (rc != CESSION_OK) {
        return rc;
    }
    pthread_mutex_lock(&self->map.mutex);
    node = n < CES_REDIS_NODES_MAX ? pick(self, n) : NULL;
    if (node != NULL) {
        ces_redis_node_hold(node);
    }
    pthread_mutex_unlock(&self->map.mutex);
    return node != NULL ? ces_redis_node_take(node, deadline, ret_lease, err) : CESSION_NOT_FOUND;
}

static void cluster_close(ces_redis_nodes *nodes)
{
    cluster *self = self_of(nodes);
    ces_redis_map_release(&self->map);
    ces_free(self);
}

static const ces_redis_nodes_ops cluster_ops = {
    .close = cluster_close, .take = cluster_take, .learn = cluster_learn, .nth = cluster_nth};

int ces_redis_cluster_new(const ces_redis_settings *settings, ces_redis_dialer *dialer,
                          ces_redis_nodes **ret_nodes, cession_error *err)
{
    cluster *self = ces_alloc_zero(sizeof *self);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->base.ops = &cluster_ops;
    self->settings = settings;
    for (size_t i = 0; i < SLOTS; i++) {
        self->slots[i] = NOBODY;
    }
    int rc = ces_redis_map_init(&self->map, settings, dialer, NULL, err);
    if (rc != CESSION_OK) {
        ces_free(self);
        return rc;
    }
    *ret_nodes = &self->base;
    return CESSION_OK;
}
