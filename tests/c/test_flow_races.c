/* Many requests on one session: threads that write, read, regenerate and log out
 * at once, and random interleavings compared with a model. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "flow_world.h"
#include "harness.h"

#define THREADS 8

static world w;

/* ---- threads ------------------------------------------------------------------- */

typedef struct worker {
    pthread_t thread;
    char key;
    int rounds;
    unsigned lost, merged, wins;
    char sid[CESSION_SID_MAX + 1];
    pthread_barrier_t *barrier;
} worker;

static void run_all(worker *workers, void *(*work)(void *))
{
    unsigned started = 0;
    while (started < THREADS &&
           CHECK_INT(pthread_create(&workers[started].thread, NULL, work, &workers[started]), 0))
        started++;
    for (unsigned i = 0; i < started; i++)
        CHECK_INT(pthread_join(workers[i].thread, NULL), 0);
}

static void *write_own_key(void *context)
{
    worker *me = context;
    for (int round = 1; round <= me->rounds; round++) {
        request r;
        if (!CHECK_OK(request_begin(&r, w.flow, SID_A)))
            break;
        /* What was acknowledged is there, whatever the others did. */
        if (!CHECK_INT(dict_get(&r.now, me->key), round - 1))
            break;
        dict_put(&r.now, me->key, round);
        r.deadline = cession_deadline_in(60000);
        CHECK_OK(request_commit(&r));
        CHECK(!r.out.lost);
        CHECK_INT(r.out.conflicts, 0);
        me->merged += r.out.merged;
        request_end(&r);
    }
    return NULL;
}

static void test_different_keys_lose_nothing(void)
{
    REQUIRE_OK(world_open(&w, NULL));
    world_put(&w, SID_A, "s1");
    worker workers[THREADS] = {0};
    for (int i = 0; i < THREADS; i++) {
        workers[i].key = (char)('a' + i);
        workers[i].rounds = 500;
    }
    run_all(workers, write_own_key);
    CHECK_STR(world_show(&w, SID_A), "a500 b500 c500 d500 e500 f500 g500 h500 s1");
    world_close(&w);
}

/* Everybody works on one object over all rounds; the second save of an object must
 * not undo what was mixed in by the first. */
static void *write_with_one_object(void *context)
{
    worker *me = context;
    request r;
    if (!CHECK_OK(request_begin(&r, w.flow, SID_A)))
        return NULL;
    for (int round = 1; round <= me->rounds; round++) {
        dict_put(&r.now, me->key, round);
        r.deadline = cession_deadline_in(60000);
        CHECK_OK(request_commit(&r));
        CHECK(!r.out.lost);
        CHECK_INT(r.out.conflicts, 0);
    }
    request_end(&r);
    return NULL;
}

static void test_long_lived_objects_lose_nothing(void)
{
    REQUIRE_OK(world_open(&w, NULL));
    world_put(&w, SID_A, "s1");
    worker workers[THREADS] = {0};
    for (int i = 0; i < THREADS; i++) {
        workers[i].key = (char)('a' + i);
        workers[i].rounds = 500;
    }
    run_all(workers, write_with_one_object);
    CHECK_STR(world_show(&w, SID_A), "a500 b500 c500 d500 e500 f500 g500 h500 s1");
    world_close(&w);
}

static void *log_in(void *context)
{
    worker *me = context;
    request r;
    if (!CHECK_OK(request_begin(&r, w.flow, SID_A)))
        return NULL;
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    dict_put(&r.now, 'u', me->key);
    pthread_barrier_wait(me->barrier);
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.cookie, r.out.lost ? CESSION_COOKIE_NONE : CESSION_COOKIE_SET);
    me->lost += r.out.lost;
    if (!r.out.lost) {
        me->wins++;
        snprintf(me->sid, sizeof me->sid, "%s", request_sid(&r));
    }
    request_end(&r);
    return NULL;
}

/* Half of them log in, half write: one login wins, what was committed before it
 * went along, what came after was reported as lost. */
static void *log_in_or_write(void *context)
{
    worker *me = context;
    if (me->key % 2 == 0)
        return log_in(context);
    request r;
    if (!CHECK_OK(request_begin(&r, w.flow, SID_A)))
        return NULL;
    dict_put(&r.now, me->key, 1);
    pthread_barrier_wait(me->barrier);
    CHECK_OK(request_commit(&r));
    me->lost += r.out.lost;
    request_end(&r);
    return NULL;
}

static void test_one_login_wins(void)
{
    for (int round = 0; round < 200; round++) {
        REQUIRE_OK(world_open(&w, NULL));
        world_put(&w, SID_A, "s1");
        pthread_barrier_t barrier;
        REQUIRE(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
        worker workers[THREADS] = {0};
        for (int i = 0; i < THREADS; i++) {
            workers[i].key = (char)('a' + i);
            workers[i].barrier = &barrier;
        }
        run_all(workers, round % 2 == 0 ? log_in : log_in_or_write);
        unsigned wins = 0;
        dict expected = dict_of("s1");
        const char *sid = "";
        for (int i = 0; i < THREADS; i++) {
            wins += workers[i].wins;
            if (workers[i].wins > 0) {
                sid = workers[i].sid;
                dict_put(&expected, 'u', workers[i].key);
            } else if (workers[i].lost == 0) {
                dict_put(&expected, workers[i].key, 1);
            }
        }
        CHECK_INT(wins, 1);
        CHECK_INT(world_live(&w), 1);
        CHECK_STR(world_show(&w, SID_A), "tombstone");
        CHECK_STR(world_show(&w, sid), dict_show(&expected));
        pthread_barrier_destroy(&barrier);
        world_close(&w);
    }
}

static void *log_out_or_write(void *context)
{
    worker *me = context;
    request r;
    if (!CHECK_OK(request_begin(&r, w.flow, SID_A)))
        return NULL;
    if (me->key == 'a')
        r.now = dict_of("");
    else
        dict_put(&r.now, me->key, 1);
    if (me->key % 2 == 0)
        CHECK_OK(cession_session_regenerate(r.session, NULL));
    pthread_barrier_wait(me->barrier);
    CHECK_OK(request_commit(&r));
    if (!r.out.lost)
        snprintf(me->sid, sizeof me->sid, "%s", request_sid(&r));
    request_end(&r);
    return NULL;
}

/* A logout against writers: nothing comes back under the sid that was logged out. */
static void test_logout_is_final(void)
{
    for (int round = 0; round < 200; round++) {
        REQUIRE_OK(world_open(&w, NULL));
        world_put(&w, SID_A, "s1");
        pthread_barrier_t barrier;
        REQUIRE(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
        worker workers[THREADS] = {0};
        for (int i = 0; i < THREADS; i++) {
            workers[i].key = (char)('a' + i);
            /* Even rounds: without any regenerate, so that nothing at all may be left. */
            if (round % 2 == 0)
                workers[i].key = (char)('a' + 2 * i);
            workers[i].barrier = &barrier;
        }
        run_all(workers, log_out_or_write);
        CHECK_STR(world_show(&w, SID_A), "-");
        CHECK(world_live(&w) <= (round % 2 == 0 ? 0U : 1U));
        pthread_barrier_destroy(&barrier);
        world_close(&w);
    }
}

/* ---- a model ---------------------------------------------------------------------- */

#define MODEL_RECORDS 64
#define MODEL_REQUESTS 5

typedef struct model_record {
    char sid[CESSION_SID_MAX + 1];
    bool tombstone;
    dict content;
} model_record;

typedef struct model {
    model_record records[MODEL_RECORDS];
    size_t count;
} model;

/* A request and what the model knows of it. */
typedef struct model_request {
    request r;
    bool open, is_new, retired, lost, regenerates;
    bool committing;
    char sid[CESSION_SID_MAX + 1]; /* of its record */
    dict base;
} model_request;

typedef struct play {
    model m;
    model_request requests[MODEL_REQUESTS];
    harness_rng rng;
    const model_request *committing; /* the others may come in between its steps */
    unsigned depth;
    char trace[8192];
    size_t trace_len;
} play;

/* The same in the same order: what an encoding shows. */
static bool identical(const dict *a, const dict *b)
{
    bool same = a->count == b->count;
    for (size_t i = 0; i < a->count && same; i++)
        same = a->at[i].key == b->at[i].key && a->at[i].value == b->at[i].value;
    return same;
}

static model_record *model_find(model *m, const char *sid)
{
    for (size_t i = 0; i < m->count; i++) {
        if (strcmp(m->records[i].sid, sid) == 0)
            return &m->records[i];
    }
    return NULL;
}

static model_record *model_put(model *m, const char *sid)
{
    model_record *record = model_find(m, sid);
    if (!record) {
        REQUIRE(m->count < MODEL_RECORDS);
        record = &m->records[m->count++];
        memset(record, 0, sizeof *record);
        snprintf(record->sid, sizeof record->sid, "%s", sid);
    }
    return record;
}

static void model_remove(model *m, const char *sid)
{
    model_record *record = model_find(m, sid);
    if (record)
        *record = m->records[--m->count];
}

static void note(play *p, const char *what, const model_request *q)
{
    int added = snprintf(p->trace + p->trace_len, sizeof p->trace - p->trace_len, "%*s%d %s [%s]\n",
                         (int)(2 * p->depth), "", (int)(q - p->requests), what,
                         dict_show(&q->r.now));
    if (added > 0 && p->trace_len + (size_t)added < sizeof p->trace)
        p->trace_len += (size_t)added;
}

/* What a commit must do, said as plainly as can be. */
typedef struct verdict {
    cession_action action;
    bool lost;
    unsigned conflicts;
} verdict;

static void model_merge(const dict *base, const dict *mine, dict *theirs, unsigned *ret_conflicts)
{
    *ret_conflicts = 0;
    for (int k = 1; k < 127; k++) {
        char key = (char)k;
        int b = dict_get(base, key), m = dict_get(mine, key), t = dict_get(theirs, key);
        if (b == m)
            continue;
        *ret_conflicts += t != b && t != m;
        if (m)
            dict_put(theirs, key, m);
        else
            dict_del(theirs, key);
    }
}

static verdict model_commit(model *m, model_request *q, const char *new_sid)
{
    verdict v = {CESSION_ACT_NONE, false, 0};
    const dict *mine = &q->r.now;
    /* Another order is a change, too, of the bytes. */
    bool changed = !identical(&q->base, mine);
    bool empty = dict_empty(mine);

    if (q->retired || q->lost) {
        v.lost = !empty && changed;
        v.action = v.lost ? CESSION_ACT_DROP : CESSION_ACT_NONE;
        if (v.lost)
            q->base = *mine;
        return v;
    }
    if (q->is_new) {
        if (!empty) {
            v.action = CESSION_ACT_CREATE;
            model_put(m, new_sid)->content = *mine;
            snprintf(q->sid, sizeof q->sid, "%s", new_sid);
            q->is_new = false;
            q->base = *mine;
        }
        return v;
    }
    bool removes = empty && (changed || q->regenerates);
    if (!removes && !changed && !q->regenerates)
        return v;
    v.action = q->regenerates ? CESSION_ACT_REGENERATE : CESSION_ACT_REPLACE;
    model_record *record = model_find(m, q->sid);
    dict merged = {0};
    if (!removes) {
        if (!record || record->tombstone) {
            v.lost = q->lost = true;
            q->base = *mine;
            q->regenerates = false;
            return v;
        }
        merged = record->content;
        model_merge(&q->base, mine, &merged, &v.conflicts);
        removes = dict_empty(&merged);
    }
    if (removes) {
        v.action = CESSION_ACT_REMOVE;
        model_remove(m, q->sid);
        q->is_new = true;
        q->regenerates = false;
        q->base = dict_of("");
        return v;
    }
    if (q->regenerates) {
        record->tombstone = true;
        record = model_put(m, new_sid);
        snprintf(q->sid, sizeof q->sid, "%s", new_sid);
        q->regenerates = false;
    }
    record->content = merged;
    q->base = *mine;
    return v;
}

static void compare(play *p)
{
    unsigned live = 0;
    for (size_t i = 0; i < p->m.count; i++) {
        const model_record *record = &p->m.records[i];
        live += !record->tombstone;
        if (!CHECK_STR(world_show(&w, record->sid),
                       record->tombstone ? "tombstone" : dict_show(&record->content)))
            fprintf(stderr, "%s", p->trace);
    }
    CHECK_INT(world_live(&w), live);
}

static void play_commit(play *p, model_request *q, bool others_interfere)
{
    const model_request *outer = p->committing;
    note(p, q->regenerates ? "commits, regenerates" : "commits", q);
    p->committing = others_interfere ? q : NULL;
    p->depth++;
    q->r.deadline = cession_deadline_in(60000);
    q->committing = true;
    bool ok = CHECK_OK(request_commit(&q->r));
    q->committing = false;
    p->depth--;
    p->committing = outer;
    verdict v = model_commit(&p->m, q, request_sid(&q->r));
    ok &= CHECK_INT(q->r.out.action, v.action);
    ok &= CHECK_INT(q->r.out.lost, v.lost);
    ok &= CHECK_INT(q->r.out.conflicts, v.conflicts);
    ok &= CHECK_INT(cession_session_is_new(q->r.session), q->is_new);
    if (!ok) {
        fprintf(stderr, "%s", p->trace);
        harness_leave();
    }
}

static void play_step(play *p, bool nested);

/* Before a step of the commit under way another request may do something. Not
 * before a removal: whether a merge left nothing is decided one step earlier. */
static void interfere(world *self, const char *operation, unsigned index)
{
    play *p = self->context;
    (void)index;
    if (!p->committing || p->depth > 2 ||
        (strcmp(operation, "replace") != 0 && strcmp(operation, "create") != 0))
        return;
    const model_request *outer = p->committing;
    for (uint64_t times = harness_below(&p->rng, 3); times > 0; times--)
        play_step(p, true);
    p->committing = outer;
}

static void play_open(play *p, model_request *q)
{
    model *m = &p->m;
    const char *sid = "";
    if (m->count > 0 && harness_below(&p->rng, 12) > 0)
        sid = m->records[m->count - 1 - harness_below(&p->rng, m->count < 3 ? m->count : 3)].sid;
    *q = (model_request){.open = true};
    snprintf(q->sid, sizeof q->sid, "%s", sid);
    REQUIRE_OK(request_begin(&q->r, w.flow, sid));
    const model_record *record = model_find(m, sid);
    q->is_new = record == NULL;
    q->retired = record && record->tombstone;
    if (record && !record->tombstone)
        q->base = record->content;
    note(p, "opens", q);
    /* The order is the store's. */
    dict expected = q->base;
    q->base = q->r.now;
    if (!CHECK_STR(dict_show(&q->r.now), dict_show(&expected)) ||
        !CHECK_INT(cession_session_is_new(q->r.session), q->is_new) ||
        !CHECK_INT(cession_session_is_retired(q->r.session), q->retired)) {
        fprintf(stderr, "%s", p->trace);
        harness_leave();
    }
}

static void play_step(play *p, bool nested)
{
    model_request *q = &p->requests[harness_below(&p->rng, MODEL_REQUESTS)];
    /* A request is one thread: not while its own commit is under way. */
    if (q->committing)
        return;
    if (!q->open) {
        play_open(p, q);
        return;
    }
    char key = (char)('a' + harness_below(&p->rng, 4));
    switch (harness_below(&p->rng, nested ? 8 : 12)) {
    case 0:
    case 1:
        dict_put(&q->r.now, key, (int)harness_below(&p->rng, 3) + (key == 'd' ? 100 : 1));
        note(p, "puts", q);
        break;
    case 2:
        dict_del(&q->r.now, key);
        note(p, "deletes", q);
        break;
    case 3:
        request_end(&q->r);
        q->open = false;
        break;
    case 4:
        if (q->retired || q->lost)
            break;
        CHECK_OK(cession_session_regenerate(q->r.session, NULL));
        q->regenerates = !q->is_new;
        note(p, "regenerates", q);
        break;
    case 5:
        if (harness_below(&p->rng, 3) == 0) {
            q->r.now = dict_of("");
            note(p, "clears", q);
        }
        break;
    default:
        play_commit(p, q, p->depth < 2);
        break;
    }
}

static void play_one(uint64_t seed, unsigned steps)
{
    static play p;
    memset(&p, 0, sizeof p);
    p.rng.state = seed;
    REQUIRE_OK(world_open(&w, NULL));
    w.context = &p;
    w.hook = interfere;
    world_put(&w, SID_A, "a1 b2");
    model_put(&p.m, SID_A)->content = dict_of("a1 b2");
    for (unsigned i = 0; i < steps && p.m.count < MODEL_RECORDS - 8; i++) {
        play_step(&p, false);
        compare(&p);
    }
    for (int i = 0; i < MODEL_REQUESTS; i++) {
        if (p.requests[i].open)
            request_end(&p.requests[i].r);
    }
    world_close(&w);
}

static void test_random_play_against_a_model(void)
{
    for (uint64_t seed = 1; seed <= 600; seed++)
        play_one(seed, 120);
}

static const harness_test tests[] = {
    HARNESS_TEST(different_keys_lose_nothing),
    HARNESS_TEST(long_lived_objects_lose_nothing),
    HARNESS_TEST(one_login_wins),
    HARNESS_TEST(logout_is_final),
    HARNESS_TEST(random_play_against_a_model),
};
HARNESS_MAIN(tests)
