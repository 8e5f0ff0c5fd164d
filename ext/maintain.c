/* Background maintenance (checkpoints, purge batches) of a store that knows
 * nothing of Python: a short-lived thread that never takes the GIL.
 *
 * It is started after a commit when the store says that work is due, does one
 * round of it and ends; at most one per store. The library itself starts no
 * threads; this is the host's choice. After a fork the child's copy of the flag
 * may say "running" for a thread that the child does not have: the pid tells.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core.h"

#define CX_MAINTAIN_MS 2000 /* one round, ms */

struct cx_maintainer {
    cession_store *store; /* borrowed: the owner waits for the thread before closing it */
    pthread_t thread;
    pid_t pid;           /* of the process that started the thread */
    bool joinable;       /* thread was started and not joined; GIL */
    atomic_bool running; /* cleared by the thread as its last act */
};

static void *run(void *context)
{
    struct cx_maintainer *self = context;
    int status = cession_store_maintain(self->store, cession_deadline_in(CX_MAINTAIN_MS), NULL);
    (void)status; /* not lost: the next request that meets the trouble reports it */
    atomic_store(&self->running, false);
    return NULL;
}

static void join(struct cx_maintainer *self)
{
    if (self->joinable && self->pid == getpid()) {
        pthread_join(self->thread, NULL);
    }
    self->joinable = false;
}

void cx_store_maintain_soon(cx_store *store)
{
    if (!store->in.bare || !cession_store_maintenance_due(store->in.bare)) {
        return;
    }
    struct cx_maintainer *self = store->in.maintainer;
    if (!self) {
        self = PyMem_Calloc(1, sizeof *self);
        if (!self) {
            return; /* the next commit tries again */
        }
        atomic_init(&self->running, false);
        self->store = store->in.bare;
        store->in.maintainer = self;
    }
    if (self->pid == getpid() && atomic_load(&self->running)) {
        return;
    }
    join(self); /* it has ended: at once */
    self->pid = getpid();
    atomic_store(&self->running, true);
    if (pthread_create(&self->thread, NULL, run, self) == 0) {
        self->joinable = true;
    } else {
        atomic_store(&self->running, false);
    }
}

void cx_maintainer_free(struct cx_maintainer *maintainer)
{
    if (maintainer) {
        PyThreadState *thread = PyEval_SaveThread();
        join(maintainer);
        PyEval_RestoreThread(thread);
        PyMem_Free(maintainer);
    }
}
