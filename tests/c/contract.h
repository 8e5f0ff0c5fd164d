/* The contract suite: what cession/store.h promises, as checks that run on any
 * store. Every driver and every chain of decorators runs all of them. */
#ifndef TESTS_CONTRACT_H
#define TESTS_CONTRACT_H

#include "cession/store.h"

typedef struct contract_subject {
    /* A store without records; each case makes its own and closes it. */
    cession_store *(*make)(void *context);
    void *context;
    int64_t tick_ms;     /* how coarse its expiry is, at least 1 */
    unsigned changes;    /* per thread where threads compete, and how many keys; 0: 200 */
    int64_t deadline_ms; /* for one operation; 0: 20,000 */
    /* The store tells how long a record still lives: the expiry that follows is
     * late by as much as the answer took, at most this. */
    int64_t late_ms;
    bool repeats; /* a scan may give a record twice: Redis, while it resizes its table */
} contract_subject;

void contract_run(const contract_subject *subject);

#endif
