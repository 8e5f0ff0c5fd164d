/* Moving records from an old store to a fresh one: what a load costs, and every
 * interleaving of a move with whoever else is at work, broken off at every step. */
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "contract.h"
#include "failing_alloc.h"
#include "harness.h"
#include "scratch.h"

#define HOUR INT64_C(3600000)
#define KEY SPAN("key")
#define VALUE SPAN("as it was")
#define NEWER SPAN("changed")
#define TOMBSTONE SPAN("\x81\xab__cession__\x81\xa1t\xc3")

static cession_deadline soon(void)
{
    return cession_deadline_in(20000);
}

static cession_store *make_memory(void)
{
    cession_store *store = NULL;
    CHECK_OK(cession_store_open("memory", NULL, 0, &store, NULL));
    return store;
}

/* ---- a store that several owners share ---------------------------------------- */

typedef struct shared_store {
    cession_store base;
    cession_store *inner;
} shared_store;

static cession_store *inner_of(cession_store *store)
{
    return ((shared_store *)store)->inner;
}

static void shared_close(cession_store *store)
{
    (void)store;
}
static int shared_load(cession_store *store, cession_span key, cession_deadline deadline,
                       cession_stored *ret_stored, cession_error *err)
{
    return cession_store_load(inner_of(store), key, deadline, ret_stored, err);
}
static int shared_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                         cession_deadline deadline, cession_error *err)
{
    return cession_store_create(inner_of(store), key, value, ttl_ms, deadline, err);
}
static int shared_replace(cession_store *store, cession_span key, const cession_expected *expected,
                          cession_span value, int64_t ttl_ms, cession_deadline deadline,
                          cession_stored *ret_current, cession_error *err)
{
    return cession_store_replace(inner_of(store), key, expected, value, ttl_ms, deadline,
                                 ret_current, err);
}
static int shared_touch(cession_store *store, cession_span key, const cession_expected *expected,
                        int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    return cession_store_touch(inner_of(store), key, expected, ttl_ms, deadline, err);
}
static int shared_remove(cession_store *store, cession_span key, cession_deadline deadline,
                         cession_error *err)
{
    return cession_store_remove(inner_of(store), key, deadline, err);
}
static int shared_purge(cession_store *store, size_t limit, cession_deadline deadline,
                        size_t *ret_count, cession_error *err)
{
    return cession_store_purge(inner_of(store), limit, deadline, ret_count, err);
}
static int shared_scan(cession_store *store, cession_buf *cursor, size_t batch,
                       cession_deadline deadline, cession_scan_fn *visit, void *context,
                       cession_error *err)
{
    return cession_store_scan(inner_of(store), cursor, batch, deadline, visit, context, err);
}
static const cession_store_ops shared_ops = {
    .abi = CESSION_STORE_ABI,
    .size = sizeof(cession_store_ops),
    .name = "shared",
    .close = shared_close,
    .load = shared_load,
    .create = shared_create,
    .replace = shared_replace,
    .touch = shared_touch,
    .remove = shared_remove,
    .purge = shared_purge,
    .scan = shared_scan,
};

/* ---- the world ------------------------------------------------------------------ */

typedef struct world world;
typedef void disturbance(world *w);

/* One process: its store, and what happens before and after its operations. */
typedef struct process {
    world *w;
    cession_store *store;
    shared_store fresh, old;
    atomic_uint operations; /* so far, on both stores */
    unsigned disturb_at;    /* before this one somebody else acts */
    disturbance *disturb;
    unsigned dies_at; /* this one and all later ones fail... */
    bool dies_after;  /* ...the first of them once it has been carried out */
} process;

#define NEVER UINT_MAX

struct world {
    cession_store *fresh, *old; /* as they are: a process that knows nothing of moves has `old` */
    process under_test, other, follower, reversed;
    bool disturbed;
    /* What the disturbance was told: */
    int said;
};

static void plan(void *context, const char *operation, cession_fault *ret_fault)
{
    (void)operation;
    process *p = context;
    unsigned at = atomic_fetch_add(&p->operations, 1);
    if (at == p->disturb_at && p->disturb != NULL) {
        p->w->disturbed = true;
        p->disturb(p->w);
    }
    if (p->dies_at == NEVER) {
        return;
    }
    if (at == p->dies_at && p->dies_after) {
        ret_fault->after = CESSION_E_UNAVAILABLE;
    } else if (at >= p->dies_at) {
        ret_fault->before = CESSION_E_UNAVAILABLE;
    }
}

static void process_begin(process *p, world *w, cession_store *fresh, cession_store *old,
                          unsigned without_caps, bool follow)
{
    *p = (process){.w = w, .disturb_at = NEVER, .dies_at = NEVER};
    p->fresh = (shared_store){.base = {.ops = &shared_ops, .caps = fresh->caps & ~without_caps},
                              .inner = fresh};
    p->old = (shared_store){.base = {.ops = &shared_ops, .caps = old->caps & ~without_caps},
                            .inner = old};
    cession_store *one = NULL, *two = NULL;
    REQUIRE_OK(cession_store_fault(&p->fresh.base, plan, p, &one, NULL));
    REQUIRE_OK(cession_store_fault(&p->old.base, plan, p, &two, NULL));
    cession_migrate_config config = {.lifetime_ms = HOUR, .follow = follow};
    REQUIRE_OK(cession_store_migrate(one, two, &config, &p->store, NULL));
}

static void world_begin(world *w)
{
    *w = (world){.fresh = make_memory(), .old = make_memory()};
    process_begin(&w->under_test, w, w->fresh, w->old, 0, false);
    process_begin(&w->other, w, w->fresh, w->old, 0, false);
    process_begin(&w->follower, w, w->fresh, w->old, 0, true);
    process_begin(&w->reversed, w, w->old, w->fresh, 0, false);
}

static void world_end(world *w)
{
    cession_store_close(w->under_test.store);
    cession_store_close(w->other.store);
    cession_store_close(w->follower.store);
    cession_store_close(w->reversed.store);
    cession_store_close(w->fresh);
    cession_store_close(w->old);
}

static void put(cession_store *store, cession_span value)
{
    CHECK_OK(cession_store_create(store, KEY, value, HOUR, 0, NULL));
}

static cession_migrate_counts counts_of(const process *p)
{
    cession_migrate_counts counts = {0};
    CHECK_OK(cession_store_migrate_counts(p->store, &counts, NULL));
    return counts;
}

/* What a load finds: OK when that is the value. */
static int find(cession_store *store, cession_span expected)
{
    cession_stored stored;
    cession_stored_init(&stored);
    int rc = cession_store_load(store, KEY, soon(), &stored, NULL);
    if (rc == CESSION_OK && !cession_span_eq(cession_buf_span(&stored.value), expected)) {
        rc = CESSION_CONFLICT;
    }
    if (rc == CESSION_OK) {
        int64_t left = stored.expires_at_ms - cession_now_ms();
        CHECK_MSG(left > HOUR - 20000 && left <= HOUR, "%lld ms left", (long long)left);
    }
    cession_stored_release(&stored);
    return rc;
}

static int write_over(cession_store *store, cession_span before, cession_span value)
{
    cession_stored current;
    cession_stored_init(&current);
    cession_expected expected = {.value = before};
    int rc = cession_store_replace(store, KEY, &expected, value, HOUR, soon(), &current, NULL);
    cession_stored_release(&current);
    return rc;
}

/* As a request does it: load, change, repeat the change after a conflict. */
static int request(cession_store *store, cession_span value)
{
    cession_stored now;
    cession_stored_init(&now);
    int rc = cession_store_load(store, KEY, soon(), &now, NULL);
    while (rc == CESSION_OK || rc == CESSION_CONFLICT) {
        cession_stored current;
        cession_stored_init(&current);
        cession_expected expected = {
            .value = cession_buf_span(&now.value),
            .version = cession_span_of(now.version, now.version_len),
        };
        rc = cession_store_replace(store, KEY, &expected, value, HOUR, soon(), &current, NULL);
        cession_buf_swap(&now.value, &current.value);
        now.version_len = 0;
        cession_stored_release(&current);
        if (rc == CESSION_OK) {
            break;
        }
    }
    cession_stored_release(&now);
    return rc;
}

/* Is the value in this store, as a record or as a copy under way? */
static bool lies_in(cession_store *store, cession_span value)
{
    cession_stored stored;
    cession_stored_init(&stored);
    int rc = cession_store_load(store, KEY, 0, &stored, NULL);
    bool found = rc == CESSION_OK &&
                 memmem(stored.value.data, stored.value.len, value.data, value.len) != NULL;
    cession_stored_release(&stored);
    return found;
}

/* ---- what it costs ----------------------------------------------------------------- */

static void test_costs(void)
{
    cession_store *fresh = NULL, *old = NULL, *store = NULL;
    CHECK_OK(cession_store_trace(make_memory(), &fresh, NULL));
    CHECK_OK(cession_store_trace(make_memory(), &old, NULL));
    cession_migrate_config config = {.lifetime_ms = HOUR};
    REQUIRE_OK(cession_store_migrate(fresh, old, &config, &store, NULL));
    cession_store_counts now, before;
    put(store, VALUE);

    /* A hit: nothing more than without the decorator. */
    CHECK_OK(cession_store_trace_counts(fresh, &before, NULL));
    CHECK_OK(find(store, VALUE));
    CHECK_OK(request(store, NEWER));
    cession_expected newer = {.value = NEWER};
    CHECK_OK(cession_store_touch(store, KEY, &newer, HOUR, 0, NULL));
    CHECK_OK(cession_store_trace_counts(fresh, &now, NULL));
    CHECK_INT(now.load - before.load, 2);
    CHECK_INT(now.replace - before.replace, 1);
    CHECK_INT(now.touch - before.touch, 1);
    CHECK_INT(now.create + now.remove + now.scan, before.create);
    CHECK_OK(cession_store_trace_counts(old, &now, NULL));
    CHECK_INT(now.load + now.create + now.replace + now.touch + now.remove, 0);

    /* A miss: one read of each. */
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_OK(cession_buf_set(&stored.value, "before", 6));
    CHECK_STATUS(cession_store_load(store, SPAN("unknown"), 0, &stored, NULL), CESSION_NOT_FOUND);
    CHECK_SPAN(cession_buf_span(&stored.value), SPAN("before"));
    cession_stored_release(&stored);
    CHECK_OK(cession_store_trace_counts(old, &now, NULL));
    CHECK_INT(now.load, 1);
    CHECK_INT(now.create + now.replace + now.touch + now.remove, 0);

    /* A move, once. */
    CHECK_OK(cession_store_remove(fresh, KEY, 0, NULL));
    put(old, VALUE);
    CHECK_OK(cession_store_trace_counts(fresh, &before, NULL));
    CHECK_OK(find(store, VALUE));
    CHECK_OK(cession_store_trace_counts(fresh, &now, NULL));
    CHECK_INT(now.load - before.load, 1);
    CHECK_INT(now.create - before.create, 1);
    CHECK_INT(now.replace - before.replace, 1);
    CHECK_OK(cession_store_trace_counts(old, &now, NULL));
    CHECK_INT(now.load, 2);
    CHECK_INT(now.replace, 1);
    CHECK_INT(now.touch, 1);
    CHECK_OK(find(store, VALUE));
    CHECK_OK(cession_store_trace_counts(old, &now, NULL));
    CHECK_INT(now.load, 2);
    CHECK(!lies_in(old, VALUE));

    cession_migrate_counts counts;
    CHECK_OK(cession_store_migrate_counts(store, &counts, NULL));
    CHECK_INT(counts.moved, 1);
    CHECK_INT(counts.missed, 1);
    CHECK_INT(counts.refused + counts.carried, 0);
    CHECK_STATUS(cession_store_migrate_counts(fresh, &counts, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_migrate_counts(NULL, &counts, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_migrate_counts(store, NULL, NULL), CESSION_E_INVALID);
    CHECK(!cession_store_maintenance_due(store));
    cession_store_close(store);
}

static void test_arguments(void)
{
    cession_store *fresh = make_memory(), *old = make_memory(), *store = NULL;
    static const uint8_t key[CESSION_KEY_MAX + 1];
    const cession_migrate_config good = {.lifetime_ms = 1};
    const cession_migrate_config bad[] = {
        {.lifetime_ms = 0},
        {.lifetime_ms = INT64_MAX},
        {.lifetime_ms = 1, .tombstone_ms = -1},
        {.lifetime_ms = 1, .tombstone_ms = INT64_MAX},
        {.lifetime_ms = 1, .only = {NULL, 1}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_STATUS(cession_store_migrate(fresh, old, &bad[i], &store, NULL), CESSION_E_INVALID);
    }
    const cession_migrate_config longest = {.lifetime_ms = 1, .only = {key, sizeof key}};
    CHECK_STATUS(cession_store_migrate(fresh, old, &longest, &store, NULL), CESSION_E_LIMIT);
    CHECK_STATUS(cession_store_migrate(NULL, old, &good, &store, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_migrate(fresh, NULL, &good, &store, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_migrate(fresh, fresh, &good, &store, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_migrate(fresh, old, NULL, &store, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_store_migrate(fresh, old, &good, NULL, NULL), CESSION_E_INVALID);
    CHECK(store == NULL);
    cession_store_close(fresh);
    cession_store_close(old);
}

/* ---- lifetimes ------------------------------------------------------------------------ */

/* The expiry that a driver cannot tell, or that there is none. */
static int64_t told;
static int telling_load(cession_store *store, cession_span key, cession_deadline deadline,
                        cession_stored *ret_stored, cession_error *err)
{
    int rc = cession_store_load(inner_of(store), key, deadline, ret_stored, err);
    ret_stored->expires_at_ms = told;
    return rc;
}

static void test_lifetimes(void)
{
    static const struct {
        int64_t told, least, most; /* told above 0: from now */
    } rows[] = {
        {60000, 59000, 60000},
        {CESSION_EXPIRES_UNKNOWN, HOUR - 1000, HOUR},
        {CESSION_EXPIRES_NEVER, HOUR - 1000, HOUR},
        {INT64_C(200) * 366 * 24 * HOUR, INT64_C(99) * 365 * 24 * HOUR,
         INT64_C(100) * 366 * 24 * HOUR},
    };
    cession_store_ops ops = shared_ops;
    ops.load = telling_load;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cession_store *old = make_memory(), *store = NULL, *fresh = make_memory();
        shared_store telling = {.base = {.ops = &ops, .caps = old->caps}, .inner = old};
        cession_migrate_config config = {.lifetime_ms = HOUR};
        REQUIRE_OK(cession_store_migrate(fresh, &telling.base, &config, &store, NULL));
        put(old, VALUE);
        told = rows[i].told > 0 ? cession_now_ms() + rows[i].told : rows[i].told;
        cession_stored stored;
        cession_stored_init(&stored);
        for (int again = 0; again < 2; again++) { /* what is told, and what is stored */
            CHECK_OK(cession_store_load(store, KEY, soon(), &stored, NULL));
            int64_t left = stored.expires_at_ms - cession_now_ms();
            CHECK_MSG(left >= rows[i].least && left <= rows[i].most, "%zu: %lld", i,
                      (long long)left);
        }
        cession_stored_release(&stored);
        cession_store_close(store);
        cession_store_close(old);
    }
    /* One that is over, though its store still shows it. */
    world w;
    world_begin(&w);
    w.under_test.old.base.ops = &ops;
    told = cession_now_ms() - 1;
    put(w.old, VALUE);
    CHECK_STATUS(find(w.under_test.store, VALUE), CESSION_NOT_FOUND);
    CHECK_INT(counts_of(&w.under_test).missed, 1);
    world_end(&w);
}

/* ---- interleavings ---------------------------------------------------------------------- */

static void other_loads(world *w)
{
    w->said = find(w->other.store, VALUE);
}

static void other_writes(world *w)
{
    w->said = request(w->other.store, NEWER);
}

static void other_removes(world *w)
{
    w->said = cession_store_remove(w->other.store, KEY, soon(), NULL);
}

static void other_retires(world *w)
{
    w->said = request(w->other.store, TOMBSTONE);
}

/* Processes that have the old store only. */
static void plain_writes(world *w)
{
    w->said = write_over(w->old, VALUE, NEWER);
}

static void plain_removes(world *w)
{
    /* It logs out who is logged in, as far as it can see. */
    w->said = lies_in(w->old, VALUE) ? cession_store_remove(w->old, KEY, 0, NULL) : CESSION_GONE;
}

/* Processes that work in the old store and know of the fresh one. */
static void follower_loads(world *w)
{
    w->said = find(w->follower.store, VALUE);
}

static void follower_writes(world *w)
{
    w->said = request(w->follower.store, NEWER);
}

static void follower_removes(world *w)
{
    w->said = cession_store_remove(w->follower.store, KEY, soon(), NULL);
}

static void follower_retires(world *w)
{
    w->said = request(w->follower.store, TOMBSTONE);
}

static const struct {
    const char *name;
    disturbance *act;
    bool removes, writes, retires;
} disturbances[] = {
    {"nobody", NULL, false, false, false},
    {"another load", other_loads, false, false, false},
    {"another write", other_writes, false, true, false},
    {"another logout", other_removes, true, false, false},
    {"another regenerate", other_retires, false, false, true},
    {"a write in the old store", plain_writes, false, true, false},
    {"a logout in the old store", plain_removes, true, false, false},
    {"a follower's load", follower_loads, false, false, false},
    {"a follower's write", follower_writes, false, true, false},
    {"a follower's logout", follower_removes, true, false, false},
    {"a follower's regenerate", follower_retires, false, false, true},
};
enum { DISTURBANCES = sizeof disturbances / sizeof disturbances[0] };

/* What must hold in the end, whoever died where. */
static void check_end(world *w, size_t d, const char *what, unsigned at, unsigned dies)
{
    const bool acted = w->disturbed && w->said == CESSION_OK;
    cession_span value = VALUE;
    int expected = CESSION_OK;
    char place[128];
    snprintf(place, sizeof place, "%s before operation %u, %s %u", disturbances[d].name, at, what,
             dies);
    if (acted && disturbances[d].removes) {
        expected = CESSION_NOT_FOUND;
    } else if (acted && disturbances[d].retires) {
        value = TOMBSTONE;
    } else if (acted && disturbances[d].writes) {
        value = NEWER;
    }
    for (int way = 0; way < 4; way++) { /* there, back, and once more */
        process *p = way % 2 == 0 ? &w->other : &w->reversed;
        if (way == 0) {
            CHECK_MSG(find(w->follower.store, value) == expected, "%s", place);
        }
        int found = find(p->store, value);
        CHECK_MSG(found == expected, "%s: %s", place, cession_status_name(found));
        CHECK_MSG(lies_in(p->fresh.inner, value) == (expected == CESSION_OK), "%s", place);
        CHECK_MSG(!lies_in(p->old.inner, value), "%s", place);
        if (expected != CESSION_OK || !cession_span_eq(value, VALUE)) {
            CHECK_MSG(!lies_in(w->fresh, VALUE) && !lies_in(w->old, VALUE), "%s", place);
        }
    }
}

/* The operations of a move: look, look, create, decide, finish, touch. */
#define MOVE_OPERATIONS 6u

static void interleave(void (*act)(world *w))
{
    for (size_t d = 0; d < DISTURBANCES; d++) {
        for (unsigned at = 0; at <= MOVE_OPERATIONS; at++) {
            for (unsigned dies = 0; dies <= 2 * MOVE_OPERATIONS + 1; dies++) {
                world w;
                world_begin(&w);
                put(w.old, VALUE);
                w.under_test.disturb_at = at;
                w.under_test.disturb = disturbances[d].act;
                w.under_test.dies_at = dies / 2 < MOVE_OPERATIONS ? dies / 2 : NEVER;
                w.under_test.dies_after = dies % 2 == 1;
                act(&w);
                check_end(&w, d, dies % 2 == 1 ? "died after" : "died before", at, dies / 2);
                world_end(&w);
            }
        }
    }
}

static void load_under_test(world *w)
{
    cession_stored stored;
    cession_stored_init(&stored);
    int rc = cession_store_load(w->under_test.store, KEY, soon(), &stored, NULL);
    CHECK(rc == CESSION_OK || rc == CESSION_NOT_FOUND || rc == CESSION_E_UNAVAILABLE);
    if (rc == CESSION_OK) {
        cession_span value = cession_buf_span(&stored.value);
        CHECK(cession_span_eq(value, VALUE) || cession_span_eq(value, NEWER) ||
              cession_span_eq(value, TOMBSTONE));
    } else {
        CHECK_INT(stored.value.len, 0);
    }
    if (w->under_test.dies_at == NEVER) {
        CHECK(rc == CESSION_OK || rc == CESSION_NOT_FOUND);
    }
    cession_stored_release(&stored);
    if (w->disturbed) { /* nobody is kept from his work; but whoever knows only the old store */
        CHECK(w->said == CESSION_OK || w->said == CESSION_CONFLICT || w->said == CESSION_GONE);
        bool plain = w->under_test.disturb == plain_writes ||
                     w->under_test.disturb == plain_removes;
        CHECK(w->said == CESSION_OK || plain);
    }
    uint64_t moved = counts_of(&w->under_test).moved + counts_of(&w->other).moved;
    CHECK_MSG(moved <= 1, "moved %d times", (int)moved);
}

static void test_load_against_everybody(void)
{
    interleave(load_under_test);
}

/* Broken off in one direction, taken up in the other. */
static void test_turned_round_after_a_kill(void)
{
    for (unsigned dies = 0; dies < 2 * MOVE_OPERATIONS; dies++) {
        world w;
        world_begin(&w);
        put(w.old, VALUE);
        w.under_test.dies_at = dies / 2;
        w.under_test.dies_after = dies % 2 == 1;
        load_under_test(&w);
        CHECK_MSG(find(w.reversed.store, VALUE) == CESSION_OK, "died at %u", dies);
        CHECK_OK(request(w.reversed.store, NEWER));
        CHECK_MSG(find(w.other.store, NEWER) == CESSION_OK, "died at %u", dies);
        CHECK_OK(find(w.follower.store, NEWER));
        /* A logout that meets only marks: the record is in the other store. */
        CHECK_OK(cession_store_remove(w.reversed.store, KEY, soon(), NULL));
        CHECK_STATUS(find(w.other.store, NEWER), CESSION_NOT_FOUND);
        CHECK_STATUS(find(w.follower.store, NEWER), CESSION_NOT_FOUND);
        CHECK_STATUS(find(w.reversed.store, NEWER), CESSION_NOT_FOUND);
        CHECK(!lies_in(w.fresh, NEWER) && !lies_in(w.old, NEWER));
        world_end(&w);
    }
}

static void reversed_removes(world *w)
{
    w->said = cession_store_remove(w->reversed.store, KEY, soon(), NULL);
}

static void others_copy_appears(world *w)
{
    cession_stored current;
    cession_stored_init(&current);
    cession_expected v = {.value = VALUE};
    w->said = cession_store_replace(w->old, KEY, &v,
                                    SPAN("\xc1"
                                         "cession-moving\xc1"
                                         "x"),
                                    HOUR, 0, &current, NULL);
    cession_stored_release(&current);
}

/* What another direction at the same time may leave is never served, and never a crash. */
static void test_marks_of_the_other_direction(void)
{
    world w;
    world_begin(&w);
    put(w.old, VALUE);
    w.under_test.disturb_at = 3;
    w.under_test.disturb = reversed_removes;
    CHECK_STATUS(find(w.under_test.store, VALUE), CESSION_NOT_FOUND);
    CHECK_OK(w.said);
    CHECK(!lies_in(w.fresh, VALUE) && !lies_in(w.old, VALUE));
    world_end(&w);

    world_begin(&w);
    put(w.old, VALUE);
    w.under_test.disturb_at = 3;
    w.under_test.disturb = others_copy_appears;
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_STATUS(cession_store_load(w.under_test.store, KEY, 0, &stored, NULL), CESSION_E_BUSY);
    CHECK_OK(w.said);
    CHECK_INT(stored.value.len, 0);
    cession_stored_release(&stored);
    world_end(&w);
}

/* A store in which somebody is always faster. */
static int taken_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                        cession_deadline deadline, cession_error *err)
{
    (void)store, (void)key, (void)value, (void)ttl_ms, (void)deadline, (void)err;
    return CESSION_EXISTS;
}

static void test_never_at_rest(void)
{
    cession_store_ops ops = shared_ops;
    ops.create = taken_create;
    cession_store *memory = make_memory(), *old = make_memory(), *store = NULL;
    shared_store taken = {.base = {.ops = &ops, .caps = memory->caps}, .inner = memory};
    cession_migrate_config config = {.lifetime_ms = HOUR};
    REQUIRE_OK(cession_store_migrate(&taken.base, old, &config, &store, NULL));
    put(old, VALUE);
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_STATUS(cession_store_load(store, KEY, 0, &stored, NULL), CESSION_E_BUSY);
    CHECK_STATUS(cession_store_load(store, KEY, cession_deadline_in(20), &stored, NULL),
                 CESSION_E_TIMEOUT);
    CHECK_STATUS(cession_store_remove(store, KEY, 0, NULL), CESSION_E_BUSY);
    CHECK_INT(stored.value.len, 0);
    cession_stored_release(&stored);
    cession_store_close(store);
    cession_store_close(memory);
}

/* ---- interleavings of lifetimes ------------------------------------------------------------ */

static int telling_replace(cession_store *store, cession_span key, const cession_expected *expected,
                           cession_span value, int64_t ttl_ms, cession_deadline deadline,
                           cession_stored *ret_current, cession_error *err)
{
    int rc = cession_store_replace(inner_of(store), key, expected, value, ttl_ms, deadline,
                                   ret_current, err);
    ret_current->expires_at_ms = told;
    return rc;
}

static void plain_writes_late(world *w)
{
    ces_sleep_ns(40000000);
    plain_writes(w);
}

static int slow_replace(cession_store *store, cession_span key, const cession_expected *expected,
                        cession_span value, int64_t ttl_ms, cession_deadline deadline,
                        cession_stored *ret_current, cession_error *err)
{
    int rc = cession_store_replace(inner_of(store), key, expected, value, ttl_ms, deadline,
                                   ret_current, err);
    ces_sleep_ns(60000000);
    return rc;
}

/* A record that ends while it is on its way. */
static void test_the_end_on_the_way(void)
{
    cession_store_ops ops = shared_ops;
    ops.load = telling_load;
    ops.replace = telling_replace;
    for (unsigned dies = 3; dies < 5; dies++) { /* before it was decided, and after */
        world w;
        world_begin(&w);
        put(w.old, VALUE);
        w.under_test.dies_at = dies;
        CHECK_STATUS(find(w.under_test.store, VALUE), CESSION_E_UNAVAILABLE);
        told = cession_now_ms() - 1;
        w.other.fresh.base.ops = &ops;
        CHECK_STATUS(find(w.other.store, VALUE), CESSION_NOT_FOUND);
        w.reversed.old.base.ops = &ops;
        CHECK_STATUS(find(w.reversed.store, VALUE), dies == 3 ? CESSION_OK : CESSION_NOT_FOUND);
        world_end(&w);
    }
    world late;
    world_begin(&late);
    cession_store_ops slow = shared_ops;
    slow.replace = slow_replace;
    late.under_test.old.base.ops = &slow;
    CHECK_OK(cession_store_create(late.old, KEY, VALUE, 50, 0, NULL));
    CHECK_STATUS(find(late.under_test.store, VALUE), CESSION_NOT_FOUND);
    world_end(&late);
    /* The one that was written in the meantime has ended, too. */
    world w;
    world_begin(&w);
    put(w.old, VALUE);
    w.under_test.old.base.ops = &ops;
    told = cession_now_ms() + 30;
    w.under_test.disturb_at = 3;
    w.under_test.disturb = plain_writes_late;
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_STATUS(cession_store_load(w.under_test.store, KEY, soon(), &stored, NULL),
                 CESSION_NOT_FOUND);
    cession_stored_release(&stored);
    world_end(&w);
}

/* A logout must not be broken off: what it was told is what counts. Until then the record
 * may be there or not. */
static void test_remove_against_everybody(void)
{
    for (size_t d = 0; d < DISTURBANCES; d++) {
        for (unsigned at = 0; at <= 5; at++) {
            for (int moved = 0; moved < 2; moved++) {
                world w;
                world_begin(&w);
                put(w.old, VALUE);
                if (moved) {
                    CHECK_OK(find(w.other.store, VALUE));
                }
                w.under_test.disturb_at = at;
                w.under_test.disturb = disturbances[d].act;
                int rc = cession_store_remove(w.under_test.store, KEY, soon(), NULL);
                CHECK_OK(rc);
                CHECK_STATUS(find(w.other.store, VALUE), CESSION_NOT_FOUND);
                CHECK_STATUS(find(w.follower.store, VALUE), CESSION_NOT_FOUND);
                CHECK_STATUS(find(w.reversed.store, VALUE), CESSION_NOT_FOUND);
                CHECK_STATUS(find(w.other.store, VALUE), CESSION_NOT_FOUND);
                CHECK(!lies_in(w.fresh, VALUE) && !lies_in(w.old, VALUE));
                CHECK(!lies_in(w.fresh, NEWER) && !lies_in(w.old, NEWER));
                world_end(&w);
            }
        }
    }
}

/* The request that loaded before a logout, and everything it may still try. */
static void test_late_writes(void)
{
    world w;
    world_begin(&w);
    put(w.old, VALUE);
    CHECK_OK(find(w.under_test.store, VALUE));
    CHECK_OK(cession_store_remove(w.other.store, KEY, soon(), NULL));
    cession_expected v = {.value = VALUE};
    CHECK_STATUS(write_over(w.under_test.store, VALUE, NEWER), CESSION_GONE);
    CHECK_STATUS(cession_store_touch(w.under_test.store, KEY, &v, HOUR, 0, NULL), CESSION_GONE);
    CHECK_STATUS(find(w.under_test.store, VALUE), CESSION_NOT_FOUND);
    /* And a new record may take the place. */
    put(w.under_test.store, NEWER);
    CHECK_OK(find(w.other.store, NEWER));
    CHECK_STATUS(cession_store_touch(w.under_test.store, KEY, &v, HOUR, 0, NULL), CESSION_CHANGED);
    world_end(&w);
}

/* A site that goes back, and there again. */
static void test_back_and_forth(void)
{
    world w;
    world_begin(&w);
    put(w.old, VALUE);
    for (int i = 0; i < 5; i++) {
        CHECK_OK(find(w.other.store, VALUE));
        CHECK(lies_in(w.fresh, VALUE) && !lies_in(w.old, VALUE));
        CHECK_OK(find(w.reversed.store, VALUE));
        CHECK(lies_in(w.old, VALUE) && !lies_in(w.fresh, VALUE));
    }
    CHECK_INT(counts_of(&w.other).moved, 5);
    CHECK_INT(counts_of(&w.reversed).moved, 5);
    /* A request of the one that meets the record gone to the other. */
    CHECK_OK(find(w.other.store, VALUE));
    CHECK_OK(find(w.reversed.store, VALUE));
    CHECK_STATUS(write_over(w.other.store, SPAN("something else"), NEWER), CESSION_CONFLICT);
    CHECK_OK(write_over(w.other.store, VALUE, NEWER));
    CHECK_OK(find(w.reversed.store, NEWER));
    /* A new one is not made beside it. */
    CHECK_STATUS(cession_store_create(w.other.store, KEY, VALUE, HOUR, 0, NULL), CESSION_EXISTS);
    world_end(&w);
}

/* A removal with a store that fails: the other one is emptied all the same, and the error told. */
static void test_remove_with_a_dead_store(void)
{
    for (unsigned dead = 0; dead < 3; dead++) {
        world w;
        world_begin(&w);
        put(w.old, VALUE);
        CHECK_OK(find(w.other.store, VALUE));
        w.under_test.dies_at = dead;
        cession_error err = CESSION_ERROR_INIT;
        CHECK_STATUS(cession_store_remove(w.under_test.store, KEY, soon(), &err),
                     CESSION_E_UNAVAILABLE);
        CHECK_INT(err.code, CESSION_E_UNAVAILABLE);
        CHECK(strstr(err.text, "key") == NULL);
        world_end(&w);
    }
    /* Only the old one. */
    cession_store *broken = NULL, *store = NULL;
    cession_migrate_config config = {.lifetime_ms = HOUR};
    process p = {.disturb_at = NEVER, .dies_at = 0};
    CHECK_OK(cession_store_fault(make_memory(), plan, &p, &broken, NULL));
    CHECK_OK(cession_store_migrate(make_memory(), broken, &config, &store, NULL));
    put(store, VALUE);
    CHECK_OK(find(store, VALUE)); /* the old one is not asked */
    CHECK_STATUS(cession_store_remove(store, KEY, soon(), NULL), CESSION_E_UNAVAILABLE);
    CHECK_STATUS(find(store, VALUE), CESSION_NOT_FOUND);
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_STATUS(cession_store_load(store, SPAN("unknown"), 0, &stored, NULL),
                 CESSION_E_UNAVAILABLE);
    cession_stored_release(&stored);
    cession_store_close(store);
}

/* What a follower does to records on either side. */
static void test_follower(void)
{
    cession_expected v = {.value = VALUE};
    for (int moved = 0; moved < 2; moved++) {
        world w;
        world_begin(&w);
        cession_store *store = w.follower.store, *there = moved ? w.fresh : w.old;
        cession_stored stored;
        cession_stored_init(&stored);
        put(store, VALUE);
        CHECK(lies_in(w.old, VALUE) && !lies_in(w.fresh, VALUE));
        if (moved) {
            CHECK_OK(find(w.other.store, VALUE));
        }
        unsigned before = w.follower.operations;
        CHECK_OK(find(store, VALUE));
        CHECK_INT(w.follower.operations - before, moved ? 2 : 1);
        CHECK(lies_in(there, VALUE));
        CHECK_OK(cession_store_touch(store, KEY, &v, HOUR, 0, NULL));
        CHECK_STATUS(write_over(store, NEWER, VALUE), CESSION_CONFLICT);
        CHECK_OK(write_over(store, VALUE, NEWER));
        CHECK(lies_in(there, NEWER));
        CHECK_STATUS(cession_store_touch(store, KEY, &v, HOUR, 0, NULL), CESSION_CHANGED);
        CHECK_STATUS(cession_store_create(store, KEY, VALUE, HOUR, 0, NULL), CESSION_EXISTS);
        CHECK_OK(cession_store_remove(store, KEY, 0, NULL));
        CHECK_STATUS(find(store, NEWER), CESSION_NOT_FOUND);
        CHECK_STATUS(write_over(store, NEWER, VALUE), CESSION_GONE);
        CHECK_STATUS(cession_store_touch(store, KEY, &v, HOUR, 0, NULL), CESSION_GONE);
        cession_stored_release(&stored);
        world_end(&w);
    }
    /* A store that fails is told of, whichever it is. */
    for (unsigned dead = 0; dead < 2; dead++) {
        world w;
        world_begin(&w);
        w.follower.dies_at = dead;
        CHECK_STATUS(find(w.follower.store, VALUE), CESSION_E_UNAVAILABLE);
        w.follower.operations = 0;
        CHECK_STATUS(cession_store_touch(w.follower.store, KEY, &v, HOUR, 0, NULL),
                     CESSION_E_UNAVAILABLE);
        w.follower.operations = 0;
        CHECK_STATUS(write_over(w.follower.store, VALUE, NEWER), CESSION_E_UNAVAILABLE);
        world_end(&w);
    }
}

/* ---- records that last when they are removed ------------------------------------------------ */

static void test_only(void)
{
    cession_store *fresh = make_memory(), *old = make_memory(), *store = NULL;
    cession_migrate_config config = {
        .lifetime_ms = HOUR, .tombstone_ms = HOUR, .only = SPAN("in-")};
    REQUIRE_OK(cession_store_migrate(fresh, old, &config, &store, NULL));
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_OK(cession_store_create(old, SPAN("in-1"), VALUE, HOUR, 0, NULL));
    CHECK_OK(cession_store_create(old, SPAN("in-2"), VALUE, HOUR, 0, NULL));
    CHECK_OK(cession_store_create(old, SPAN("out-1"), VALUE, HOUR, 0, NULL));
    CHECK_OK(cession_store_create(old, SPAN("in"), VALUE, HOUR, 0, NULL));
    CHECK_OK(cession_store_load(store, SPAN("in-1"), 0, &stored, NULL));
    CHECK_STATUS(cession_store_load(store, SPAN("out-1"), 0, &stored, NULL), CESSION_NOT_FOUND);
    CHECK_STATUS(cession_store_load(store, SPAN("in"), 0, &stored, NULL), CESSION_NOT_FOUND);
    /* Others are removed without a mark. */
    CHECK_OK(cession_store_create(store, SPAN("out-1"), NEWER, HOUR, 0, NULL));
    cession_expected newer = {.value = NEWER}, v = {.value = VALUE};
    CHECK_OK(cession_store_replace(store, SPAN("out-1"), &newer, VALUE, HOUR, 0, &stored, NULL));
    CHECK_OK(cession_store_remove(store, SPAN("out-1"), 0, NULL));
    CHECK_STATUS(cession_store_load(fresh, SPAN("out-1"), 0, &stored, NULL), CESSION_NOT_FOUND);
    CHECK_OK(cession_store_load(old, SPAN("out-1"), 0, &stored, NULL));
    /* These stay removed, even where the old store brings them again and again. */
    CHECK_OK(cession_store_remove(store, SPAN("in-1"), 0, NULL));
    CHECK_OK(cession_store_create(old, SPAN("in-1"), VALUE, HOUR, 0, NULL));
    CHECK_STATUS(cession_store_load(store, SPAN("in-1"), 0, &stored, NULL), CESSION_NOT_FOUND);
    CHECK_STATUS(cession_store_create(store, SPAN("in-1"), VALUE, HOUR, 0, NULL), CESSION_EXISTS);
    /* As does what was retired: its tombstone gets the time. */
    CHECK_OK(cession_store_load(store, SPAN("in-2"), 0, &stored, NULL));
    CHECK_OK(cession_store_replace(store, SPAN("in-2"), &v, TOMBSTONE, 30000, 0, &stored, NULL));
    CHECK_OK(cession_store_load(fresh, SPAN("in-2"), 0, &stored, NULL));
    CHECK(stored.expires_at_ms - cession_now_ms() > HOUR - 20000);
    cession_stored_release(&stored);
    cession_store_close(store);
}

/* ---- stores that cannot compare and set
 * ---------------------------------------------------------- */

static void test_without_atomic(void)
{
    for (int removed = 0; removed < 3; removed++) {
        world w;
        world_begin(&w);
        process p;
        process_begin(&p, &w, w.fresh, w.old, CESSION_CAP_ATOMIC, false);
        put(w.old, VALUE);
        if (removed == 2) { /* while the move is under way: before its create */
            p.disturb_at = 2;
            p.disturb = other_removes;
        }
        CHECK_STATUS(find(p.store, VALUE), removed == 2 ? CESSION_NOT_FOUND : CESSION_OK);
        CHECK(lies_in(w.fresh, VALUE) == (removed != 2) && !lies_in(w.old, VALUE));
        CHECK_INT(counts_of(&p).moved, removed != 2);
        if (removed == 1) {
            CHECK_OK(cession_store_remove(p.store, KEY, 0, NULL));
            CHECK_STATUS(find(p.store, VALUE), CESSION_NOT_FOUND);
        }
        cession_store_close(p.store);
        world_end(&w);
    }
    /* A read of the old store that took longer than the mark of a removal lasts. */
    cession_store *fresh = make_memory(), *old = make_memory(), *store = NULL;
    shared_store slow = {.base = {.ops = &shared_ops, .caps = 0}, .inner = old};
    cession_migrate_config config = {.lifetime_ms = HOUR, .tombstone_ms = 1};
    CHECK_OK(cession_store_migrate(fresh, &slow.base, &config, &store, NULL));
    put(old, VALUE);
    CHECK_STATUS(find(store, VALUE), CESSION_E_TIMEOUT);
    cession_store_close(store);
    cession_store_close(old);
}

/* ---- many at once -------------------------------------------------------------------------------
 */

enum { MANY = 300, THREADS = 8 };

typedef struct crowd {
    world *w;
    cession_store *stores[2];
    pthread_barrier_t start;
    atomic_uint number, found, lost;
} crowd;

static cession_span name_of(char room[32], unsigned i)
{
    snprintf(room, 32, "record %u", i);
    return cession_span_str(room);
}

static void *load_all(void *context)
{
    crowd *c = context;
    cession_store *store = c->stores[atomic_fetch_add(&c->number, 1) % 2];
    char room[32];
    cession_stored stored;
    cession_stored_init(&stored);
    pthread_barrier_wait(&c->start);
    for (unsigned i = 0; i < MANY; i++) {
        int rc = cession_store_load(store, name_of(room, i), soon(), &stored, NULL);
        if (rc == CESSION_OK &&
            cession_span_eq(cession_buf_span(&stored.value), cession_span_str(room))) {
            atomic_fetch_add(&c->found, 1);
        } else {
            atomic_fetch_add(&c->lost, 1);
        }
    }
    cession_stored_release(&stored);
    return NULL;
}

static void crowd_run(crowd *c, void *(*work)(void *))
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&c->start, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, work, c) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_barrier_destroy(&c->start);
}

/* Each record is moved exactly once, and none is ever missed, by those who follow neither. */
static void test_crowds(void)
{
    for (int follows = 0; follows < 2; follows++) {
        world w;
        world_begin(&w);
        crowd c = {.w = &w,
                   .stores = {w.other.store, follows ? w.follower.store : w.under_test.store}};
        char room[32];
        for (unsigned i = 0; i < MANY; i++) {
            cession_span name = name_of(room, i);
            CHECK_OK(cession_store_create(w.old, name, name, HOUR, 0, NULL));
        }
        crowd_run(&c, load_all);
        CHECK_INT(c.found, MANY * THREADS);
        CHECK_INT(c.lost, 0);
        CHECK_INT(counts_of(&w.other).moved + counts_of(&w.under_test).moved +
                      counts_of(&w.follower).moved,
                  MANY);
        world_end(&w);
    }
}

static void *race_for_each(void *context)
{
    crowd *c = context;
    bool removes = atomic_fetch_add(&c->number, 1) == 0;
    char room[32];
    cession_stored stored;
    cession_stored_init(&stored);
    for (unsigned i = 0; i < MANY; i++) {
        pthread_barrier_wait(&c->start);
        cession_span name = name_of(room, i);
        if (removes) {
            CHECK_OK(cession_store_remove(c->stores[0], name, soon(), NULL));
        } else {
            int rc = cession_store_load(c->stores[1], name, soon(), &stored, NULL);
            CHECK(rc == CESSION_OK || rc == CESSION_NOT_FOUND);
            atomic_fetch_add(rc == CESSION_OK ? &c->found : &c->lost, 1);
        }
        pthread_barrier_wait(&c->start);
        int rc = cession_store_load(c->stores[removes], name, soon(), &stored, NULL);
        CHECK_STATUS(rc, CESSION_NOT_FOUND);
    }
    cession_stored_release(&stored);
    return NULL;
}

/* A logout that races the move stays a logout. */
static void test_logout_races_the_move(void)
{
    world w;
    world_begin(&w);
    crowd c = {.w = &w, .stores = {w.other.store, w.under_test.store}};
    char room[32];
    for (unsigned i = 0; i < MANY; i++) {
        CHECK_OK(cession_store_create(w.old, name_of(room, i), VALUE, HOUR, 0, NULL));
    }
    crowd_run(&c, race_for_each);
    CHECK_INT(c.found + c.lost, MANY * (THREADS - 1));
    world_end(&w);
}

/* ---- memory, the contract
 * ------------------------------------------------------------------------- */

static void test_out_of_memory(void)
{
    FAILING_ALLOC_LOOP(n)
    {
        cession_store *fresh = NULL, *old = NULL, *store = NULL;
        cession_migrate_config config = {.lifetime_ms = HOUR, .only = SPAN("k")};
        int rc = cession_store_open("memory", NULL, 0, &fresh, NULL);
        if (rc == CESSION_OK) {
            rc = cession_store_open("memory", NULL, 0, &old, NULL);
        }
        if (rc == CESSION_OK) {
            rc = cession_store_migrate(fresh, old, &config, &store, NULL);
        }
        if (rc != CESSION_OK) {
            CHECK_STATUS(rc, CESSION_E_NOMEM);
            cession_store_close(fresh);
            cession_store_close(old);
            continue;
        }
        rc = cession_store_create(old, KEY, VALUE, HOUR, 0, NULL);
        if (rc == CESSION_OK) {
            cession_stored stored;
            cession_stored_init(&stored);
            int first = cession_store_load(store, KEY, soon(), &stored, NULL);
            CHECK(first == CESSION_OK || (failing_alloc_fired() && first == CESSION_E_NOMEM));
            /* Whatever failed, the record is there. */
            int again = find(store, VALUE);
            CHECK(again == CESSION_OK || again == CESSION_E_NOMEM);
            CHECK_OK(again == CESSION_OK ? again : find(store, VALUE));
            int second = write_over(store, SPAN("not that"), NEWER);
            CHECK(second == CESSION_CONFLICT || second == CESSION_E_NOMEM);
            int third = write_over(store, VALUE, TOMBSTONE);
            CHECK(third == CESSION_OK || third == CESSION_E_NOMEM);
            cession_expected v = {.value = VALUE};
            int fourth = cession_store_touch(store, KEY, &v, HOUR, 0, NULL);
            CHECK(fourth == CESSION_OK || fourth == CESSION_CHANGED || fourth == CESSION_E_NOMEM);
            int fifth = cession_store_remove(store, KEY, soon(), NULL);
            CHECK(fifth == CESSION_OK || fifth == CESSION_E_NOMEM);
            int sixth = cession_store_create(store, KEY, VALUE, HOUR, 0, NULL);
            CHECK(sixth == CESSION_EXISTS || sixth == CESSION_E_NOMEM);
            cession_stored_release(&stored);
        }
        cession_store_close(store);
    }
}

static cession_store *over(cession_store *fresh, cession_store *old)
{
    cession_store *store = NULL;
    cession_migrate_config config = {.lifetime_ms = HOUR};
    CHECK_OK(cession_store_migrate(fresh, old, &config, &store, NULL));
    return store;
}

static cession_store *make_over_memory(void *context)
{
    (void)context;
    return over(make_memory(), make_memory());
}

static cession_store *make_follower(void *context)
{
    (void)context;
    cession_store *store = NULL;
    cession_migrate_config config = {.lifetime_ms = HOUR, .follow = true};
    CHECK_OK(cession_store_migrate(make_memory(), make_memory(), &config, &store, NULL));
    return store;
}

static void test_contract_follower(void)
{
    contract_run(&(contract_subject){.make = make_follower, .tick_ms = 1});
}

static cession_store *make_over_sqlite(void *context)
{
    (void)context;
    static unsigned number;
    char name[32];
    snprintf(name, sizeof name, "migrate-%u.sqlite3", number++);
    cession_option option = {.name = "path", .value = scratch_path(name)};
    cession_store *store = NULL, *prefixed = NULL;
    CHECK_OK(cession_store_open("sqlite", &option, 1, &store, NULL));
    CHECK_OK(cession_store_prefix(store, SPAN("app:"), &prefixed, NULL));
    return over(prefixed, make_memory());
}

static void test_contract_memory(void)
{
    contract_run(&(contract_subject){.make = make_over_memory, .tick_ms = 1});
}

static void test_contract_sqlite(void)
{
    contract_run(&(contract_subject){.make = make_over_sqlite, .tick_ms = 1, .changes = 20});
}

static const harness_test tests[] = {
    HARNESS_TEST(costs),
    HARNESS_TEST(arguments),
    HARNESS_TEST(lifetimes),
    HARNESS_TEST(load_against_everybody),
    HARNESS_TEST(turned_round_after_a_kill),
    HARNESS_TEST(marks_of_the_other_direction),
    HARNESS_TEST(never_at_rest),
    HARNESS_TEST(the_end_on_the_way),
    HARNESS_TEST(remove_against_everybody),
    HARNESS_TEST(late_writes),
    HARNESS_TEST(back_and_forth),
    HARNESS_TEST(remove_with_a_dead_store),
    HARNESS_TEST(follower),
    HARNESS_TEST(only),
    HARNESS_TEST(without_atomic),
    HARNESS_TEST(crowds),
    HARNESS_TEST(logout_races_the_move),
    HARNESS_TEST(out_of_memory),
    HARNESS_TEST(contract_memory),
    HARNESS_TEST(contract_follower),
    HARNESS_TEST(contract_sqlite),
};
HARNESS_MAIN(tests)
