/* The pool of exclusive handles; see pool.h for what it promises.
 *
 * Every handle is in exactly one of two arrays, `idle` (a stack) or `out`, so
 * that a child knows which ones its parent's threads held. Between prepare and
 * parent/child the forking thread holds the mutex: no other thread can take a
 * handle in the moment of the fork. */
#include "store/pool.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "base/alloc.h"
#include "base/os.h"
#include "base/banned.h"

#define HANDLES_MAX 1024u
#define FORK_WAIT_NS (INT64_C(5) * 1000000000)
#define NS_PER_S INT64_C(1000000000)

struct ces_pool {
    ces_pool_config config;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a handle came back, or a fork is over */
    void **idle;
    size_t idle_count;
    void **out;
    size_t out_count;
    size_t opening; /* being opened, counted against max */
    bool forking;   /* prepare waits: nobody takes a handle */
    bool dead;      /* a forked child whose parent had handles out */
    ces_fork_hook hook;
};

static int init_condition(ces_pool *pool)
{
    pthread_condattr_t attr;
    int rc = pthread_condattr_init(&attr);
    if (rc != 0) {
        return rc;
    }
    rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (rc == 0) {
        rc = pthread_cond_init(&pool->changed, &attr);
    }
    pthread_condattr_destroy(&attr);
    return rc;
}

static int init_sync(ces_pool *pool)
{
    int rc = init_condition(pool);
    if (rc != 0) {
        return rc;
    }
    rc = pthread_mutex_init(&pool->mutex, NULL);
    if (rc != 0) {
        pthread_cond_destroy(&pool->changed);
    }
    return rc;
}

/* False when the time is over. The mutex is held. */
static bool wait_until(ces_pool *pool, int64_t mono_ns)
{
    struct timespec until = {.tv_sec = (time_t)(mono_ns / NS_PER_S),
                             .tv_nsec = (long)(mono_ns % NS_PER_S)};
    return pthread_cond_timedwait(&pool->changed, &pool->mutex, &until) != ETIMEDOUT;
}

static void close_idle(ces_pool *pool)
{
    while (pool->idle_count > 0) {
        pool->config.close(pool->config.context, pool->idle[--pool->idle_count]);
    }
}

static void forget(ces_pool *pool, void *handle)
{
    if (pool->config.forget != NULL) {
        pool->config.forget(pool->config.context, handle);
    } else {
        pool->config.close(pool->config.context, handle);
    }
}

static void fork_prepare(void *context)
{
    ces_pool *pool = context;
    pthread_mutex_lock(&pool->mutex);
    if (!pool->config.close_before_fork || pool->dead) {
        return;
    }
    pool->forking = true;
    int64_t until = ces_mono_ns() + FORK_WAIT_NS;
    while (pool->out_count + pool->opening > 0 && wait_until(pool, until)) {
    }
    close_idle(pool);
}

static void fork_parent(void *context)
{
    ces_pool *pool = context;
    pool->forking = false;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->mutex);
}

static void child_takes_stock(ces_pool *pool)
{
    if (pool->config.close_before_fork) {
        pool->dead = pool->dead || pool->out_count + pool->opening > 0;
        return;
    }
    while (pool->idle_count > 0) {
        forget(pool, pool->idle[--pool->idle_count]);
    }
    /* Those in use belong to threads of the parent, which do not exist here;
     * but for one that the forking thread itself holds, which ces_pool_give
     * will find in no array and forget. */
    pool->out_count = 0;
    pool->opening = 0;
}

static void fork_child(void *context)
{
    ces_pool *pool = context;
    /* The waiters that the condition knows of are threads of the parent; it must
     * not be destroyed, which would wait for them. Where making it anew fails
     * the copy serves as it is. */
    (void)init_condition(pool);
    pool->forking = false;
    child_takes_stock(pool);
    pthread_mutex_unlock(&pool->mutex); /* held since prepare, by this thread's original */
}

int ces_pool_new(const ces_pool_config *config, ces_pool **ret_pool, cession_error *err)
{
    if (config->max == 0 || config->max > HANDLES_MAX) {
        return cession_fail(err, CESSION_E_INVALID, "a pool has 1 to %u handles", HANDLES_MAX);
    }
    ces_pool *pool = ces_alloc_zero(sizeof *pool);
    if (pool == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    pool->config = *config;
    pool->hook = (ces_fork_hook){
        .prepare = fork_prepare, .parent = fork_parent, .child = fork_child, .context = pool};
    pool->idle = ces_alloc(2 * config->max * sizeof *pool->idle);
    if (pool->idle == NULL) {
        ces_free(pool);
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    pool->out = pool->idle + config->max;
    if (init_sync(pool) != 0) {
        ces_free(pool->idle);
        ces_free(pool);
        return cession_fail(err, CESSION_E_NOMEM, "no mutex could be made");
    }
    int rc = ces_fork_register(&pool->hook, err);
    if (rc != CESSION_OK) {
        pthread_cond_destroy(&pool->changed);
        pthread_mutex_destroy(&pool->mutex);
        ces_free(pool->idle);
        ces_free(pool);
        return rc;
    }
    *ret_pool = pool;
    return CESSION_OK;
}

void ces_pool_free(ces_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    ces_fork_unregister(&pool->hook);
    close_idle(pool);
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->mutex);
    ces_free(pool->idle);
    ces_free(pool);
}

int ces_pool_take(ces_pool *pool, cession_deadline deadline, void **ret_handle, cession_error *err)
{
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        if (pool->dead) {
            pthread_mutex_unlock(&pool->mutex);
            return cession_fail(err, CESSION_E_FORK,
                                "the process forked while another thread used the store, "
                                "so this child cannot use it; open the store after the fork");
        }
        if (!pool->forking) {
            if (pool->idle_count > 0) {
                void *handle = pool->idle[--pool->idle_count];
                pool->out[pool->out_count++] = handle;
                pthread_mutex_unlock(&pool->mutex);
                *ret_handle = handle;
                return CESSION_OK;
            }
            if (pool->out_count + pool->opening < pool->config.max) {
                break;
            }
        }
        if (deadline <= 0) {
            pthread_mutex_unlock(&pool->mutex);
            return cession_fail(err, CESSION_E_BUSY, "all handles of the store are in use");
        }
        if (ces_mono_ns() >= deadline) {
            pthread_mutex_unlock(&pool->mutex);
            return cession_fail(err, CESSION_E_TIMEOUT,
                                "all handles of the store stayed in use until the deadline");
        }
        (void)wait_until(pool, deadline);
    }
    pool->opening++;
    pthread_mutex_unlock(&pool->mutex);

    void *handle = NULL;
    int rc = pool->config.open(pool->config.context, deadline, &handle, err);

    pthread_mutex_lock(&pool->mutex);
    pool->opening--;
    if (rc == CESSION_OK) {
        pool->out[pool->out_count++] = handle;
    } else {
        pthread_cond_broadcast(&pool->changed);
    }
    pthread_mutex_unlock(&pool->mutex);
    if (rc == CESSION_OK) {
        *ret_handle = handle;
    }
    return rc;
}

void ces_pool_give(ces_pool *pool, void *handle, bool keep)
{
    pthread_mutex_lock(&pool->mutex);
    size_t at = pool->out_count;
    while (at > 0 && pool->out[at - 1] != handle) {
        at--;
    }
    if (at == 0 || pool->dead) {
        /* Taken before the fork that made this process. What must be closed
         * before a fork must not be closed after it either: SQLite would take
         * the parent's files for its own. */
        bool must_leave = pool->config.close_before_fork;
        pthread_mutex_unlock(&pool->mutex);
        if (!must_leave) {
            forget(pool, handle);
        }
        return;
    }
    if (!keep) {
        /* Still counted as out while it is closed: a fork waits for it. */
        pthread_mutex_unlock(&pool->mutex);
        pool->config.close(pool->config.context, handle);
        pthread_mutex_lock(&pool->mutex);
        at = pool->out_count;
        while (pool->out[at - 1] != handle) {
            at--;
        }
    }
    pool->out[at - 1] = pool->out[--pool->out_count];
    if (keep) {
        pool->idle[pool->idle_count++] = handle;
    }
    /* A taker and a fork that waits may both be there. */
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->mutex);
}
