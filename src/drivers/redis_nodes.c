/* See redis_nodes.h. */
#include "drivers/redis_nodes.h"

#include "base/alloc.h"
#include "base/banned.h"

/* ---- pools ---------------------------------------------------------------------- */

static int pool_open(void *context, cession_deadline deadline, void **ret_handle,
                     cession_error *err)
{
    ces_redis_target *target = context;
    ces_redis_conn *conn = NULL;
    int rc = ces_redis_connect(target->dialer, &target->place, deadline, &conn, err);
    if (rc == CESSION_OK && target->check != NULL) {
        rc = target->check(conn, deadline, err);
    }
    if (rc == CESSION_OK) {
        *ret_handle = conn;
        return CESSION_OK;
    }
    ces_redis_close(conn);
    if (target->use != NULL && rc != CESSION_E_NOMEM) {
        atomic_store(&target->use->suspect, true);
    }
    return rc;
}

static void pool_close(void *context, void *handle)
{
    (void)context;
    ces_redis_close(handle);
}

static void pool_forget(void *context, void *handle)
{
    (void)context;
    ces_redis_forget(handle);
}

int ces_redis_pool_new(ces_redis_target *target, size_t max, ces_pool **ret_pool,
                       cession_error *err)
{
    ces_pool_config config = {.max = max,
                              .open = pool_open,
                              .close = pool_close,
                              .forget = pool_forget,
                              .context = target};
    return ces_pool_new(&config, ret_pool, err);
}

int ces_redis_lease_take(ces_pool *pool, cession_deadline deadline, ces_redis_lease *ret_lease,
                         cession_error *err)
{
    for (;;) {
        void *handle = NULL;
        int rc = ces_pool_take(pool, deadline, &handle, err);
        if (rc != CESSION_OK) {
            return rc;
        }
        ces_redis_conn *conn = handle;
        bool fresh = ces_redis_first_use(conn);
        if (fresh || ces_redis_alive(conn)) {
            *ret_lease = (ces_redis_lease){.conn = conn, .pool = pool, .fresh = fresh};
            return CESSION_OK;
        }
        ces_pool_give(pool, conn, false);
    }
}

void ces_redis_lease_give(ces_redis_lease *lease)
{
    if (lease->conn != NULL) {
        bool reusable = ces_redis_reusable(lease->conn);
        ces_pool_give(lease->pool, lease->conn, reusable);
        lease->conn = NULL;
        if (lease->use != NULL) {
            if (!reusable) {
                atomic_store(&lease->use->suspect, true);
            }
            atomic_fetch_sub(&lease->use->holds, 1);
        }
    }
}

int ces_redis_question(ces_redis_conn *conn, const cession_span *words, size_t count,
                       cession_deadline deadline, ces_redis_reply **ret_reply, cession_error *err)
{
    ces_redis_reply *reply = NULL;
    int rc = ces_redis_add(conn, words, count, err);
    if (rc == CESSION_OK) {
        rc = ces_redis_send(conn, deadline, err);
    }
    if (rc == CESSION_OK) {
        rc = ces_redis_receive(conn, deadline, &reply, err);
    }
    if (rc == CESSION_OK && reply->kind == CES_REDIS_ERROR) {
        rc = ces_redis_fail(reply, err);
        ces_redis_reply_free(reply);
    } else if (rc == CESSION_OK) {
        *ret_reply = reply;
    }
    return rc;
}

/* ---- one server -------------------------------------------------------------------- */

typedef struct single {
    ces_redis_nodes base;
    ces_redis_target target;
    ces_pool *pool;
} single;

static void single_close(ces_redis_nodes *nodes)
{
    single *self = (single *)nodes;
    ces_pool_free(self->pool);
    ces_free(self);
}

static int single_take(ces_redis_nodes *nodes, cession_span key, cession_deadline deadline,
                       ces_redis_lease *ret_lease, cession_error *err)
{
    (void)key;
    return ces_redis_lease_take(((single *)nodes)->pool, deadline, ret_lease, err);
}

static int single_learn(ces_redis_nodes *nodes, cession_span key, const ces_redis_reply *answer,
                        cession_deadline deadline, ces_redis_lease *lease, cession_error *err)
{
    (void)key;
    if (answer != NULL) {
        return CESSION_NOT_FOUND; /* there is no other place to ask */
    }
    ces_redis_lease_give(lease);
    return ces_redis_lease_take(((single *)nodes)->pool, deadline, lease, err);
}

static int single_nth(ces_redis_nodes *nodes, unsigned n, cession_deadline deadline,
                      ces_redis_lease *ret_lease, cession_error *err)
{
    return n == 0 ? single_take(nodes, cession_span_of(NULL, 0), deadline, ret_lease, err)
                  : CESSION_NOT_FOUND;
}

static const ces_redis_nodes_ops single_ops = {
    .close = single_close, .take = single_take, .learn = single_learn, .nth = single_nth};

int ces_redis_single_new(const ces_redis_settings *settings, ces_redis_dialer *dialer,
                         ces_redis_nodes **ret_nodes, cession_error *err)
{
    single *self = ces_alloc_zero(sizeof *self);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->base.ops = &single_ops;
    self->target = (ces_redis_target){.dialer = dialer, .place = settings->places[0]};
    int rc = ces_redis_pool_new(&self->target, settings->max_connections, &self->pool, err);
    if (rc != CESSION_OK) {
        ces_free(self);
        return rc;
    }
    *ret_nodes = &self->base;
    return CESSION_OK;
}
