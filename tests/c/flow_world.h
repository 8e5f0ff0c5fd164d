/* What the flow's tests share: a small dict standing for the application's
 * session, a store that can be watched, disturbed and broken, and requests.
 *
 * A dict is written "a1 b2 P1": keys of one letter, P for _permanent, numbers as
 * values; from 100 on the value is a nested one. Like an application's dict it
 * keeps its order. */
#ifndef TESTS_FLOW_WORLD_H
#define TESTS_FLOW_WORLD_H

#include <stdatomic.h>

#include "cession/cession.h"

#define LIFETIME INT64_C(3600000)
#define SID_A "aaaaaaaaaaaaaaaaaaaaaa"
#define SID_B "bbbbbbbbbbbbbbbbbbbbbb"

/* ---- the application's dict ------------------------------------------------ */

typedef struct dict {
    size_t count;
    struct {
        char key;
        int value;
    } at[32];
} dict;

dict dict_of(const char *spec);
int dict_get(const dict *d, char key); /* 0: none */
void dict_put(dict *d, char key, int value);
void dict_del(dict *d, char key);
bool dict_empty(const dict *d);               /* nothing but P */
bool dict_same(const dict *a, const dict *b); /* in any order */
/* Sorted, in a static buffer of the calling thread. */
const char *dict_show(const dict *d);
/* Canonical bytes; meta is appended as the value of the metadata key, if any. */
int dict_encode(const dict *d, cession_span meta, cession_buf *out);
/* False: no map, or values that dict_encode does not write. Metadata is skipped;
 * *ret_meta says whether there was some. */
bool dict_decode(cession_span bytes, dict *ret_dict, bool *ret_meta);

/* ---- the world --------------------------------------------------------------- */

/* requests under test -> trace -> fault (hook, errors) -> memory <- the others */
typedef struct world world;
typedef void world_hook(world *w, const char *operation, unsigned index);

struct world {
    cession_store *memory; /* what the others use: not counted, not broken */
    cession_store *store;  /* owns memory */
    cession_flow *flow, *others;
    cession_flow_config config;
    world_hook *hook;               /* called before each operation under test */
    atomic_uint operations;         /* under test so far; also the index of the next one */
    unsigned fail_from, fail_count; /* these operations fail... */
    int fail_before, fail_after;    /* ...with this */
    void *context;
};

int world_open(world *w, const cession_flow_config *config);
void world_close(world *w);
cession_store_counts world_counts(const world *w);
/* Operations since `before`, as "load 1 replace 2"; static buffer. */
const char *world_ops(const world *w, const cession_store_counts *before);
void world_fail(world *w, unsigned from, unsigned count, int before, int after);

/* Put a record there / what is there: "a1 b2", "-" for nothing, "tombstone";
 * with " +meta" at the end when it carries metadata; static buffer. */
void world_put(world *w, const char *sid, const char *spec);
void world_put_raw(world *w, const char *sid, cession_span raw);
void world_remove(world *w, const char *sid);
const char *world_show(world *w, const char *sid);
/* Live records that are no tombstones. */
unsigned world_live(world *w);
/* Is this one of the live records? */
bool world_holds(world *w, const char *spec);

/* ---- a request ----------------------------------------------------------------- */

typedef struct request {
    cession_session *session;
    dict now; /* the application's session */
    bool modified, was_permanent, refresh, accessed, old_signature, force, never;
    int64_t lifetime_ms;
    cession_deadline deadline;
    cession_outcome out;
    cession_error err;
    bool begun; /* open and load went well */
} request;

/* Open, load, decode. The status of the first that failed. */
int request_begin(request *r, cession_flow *flow, const char *sid);
int request_commit(request *r);
void request_end(request *r);
const char *request_sid(const request *r);

#endif
