/* The flow when things fail: every store operation of every kind of commit, before
 * and after it took effect, once and for good; and every allocation. Afterwards
 * the invariants hold, and the same commit tried again comes to the same end as
 * if nothing had failed. */
#include <stdio.h>
#include <string.h>

#include "base/msgpack.h"
#include "failing_alloc.h"
#include "flow_world.h"
#include "harness.h"

typedef enum meanwhile { NOTHING = 0, CHANGED, REMOVED, REGENERATED } meanwhile;

typedef struct scenario {
    const char *name;
    const char *stored; /* NULL: new session */
    bool meta;          /* the record carries metadata */
    const char *puts, *deletes;
    bool regenerates, due, diverged;
    meanwhile meanwhile;
    const char *their_puts, *their_deletes;
    const char *after; /* the one live record at the end; "-": none */
    cession_action action;
    bool lost;
} scenario;

static const scenario scenarios[] = {
    {"create", NULL, .puts = "a1", .after = "a1", .action = CESSION_ACT_CREATE},
    {"replace", "a1", .puts = "b2", .after = "a1 b2", .action = CESSION_ACT_REPLACE},
    {"replace with metadata", "a1", .meta = true, .puts = "b2", .after = "a1 b2",
     .action = CESSION_ACT_REPLACE},
    {"merge", "a1", .puts = "b2", .meanwhile = CHANGED, .their_puts = "z9", .after = "a1 b2 z9",
     .action = CESSION_ACT_REPLACE},
    {"merge with metadata", "a1", .meta = true, .puts = "b2", .meanwhile = CHANGED,
     .their_puts = "z9", .after = "a1 b2 z9", .action = CESSION_ACT_REPLACE},
    {"merge after a merge", "a1", .diverged = true, .puts = "b2", .meanwhile = CHANGED,
     .their_puts = "z9", .after = "a1 b2 x5 z9", .action = CESSION_ACT_REPLACE},
    {"same change", "a1", .puts = "b2", .meanwhile = CHANGED, .their_puts = "b2 z9",
     .after = "a1 b2 z9", .action = CESSION_ACT_REPLACE},
    {"touch", "a1", .due = true, .after = "a1", .action = CESSION_ACT_TOUCH},
    {"remove", "a1", .deletes = "a", .after = "-", .action = CESSION_ACT_REMOVE},
    {"remove against a writer", "a1", .deletes = "a", .meanwhile = CHANGED, .their_puts = "z9",
     .after = "-", .action = CESSION_ACT_REMOVE},
    {"merge to nothing", "a1 b2", .deletes = "a", .meanwhile = CHANGED, .their_deletes = "b",
     .after = "-", .action = CESSION_ACT_REMOVE},
    {"gone", "a1", .puts = "b2", .meanwhile = REMOVED, .after = "-", .action = CESSION_ACT_REPLACE,
     .lost = true},
    {"retired", "a1", .puts = "b2", .meanwhile = REGENERATED, .after = "a1",
     .action = CESSION_ACT_REPLACE, .lost = true},
    {"regenerate", "a1", .regenerates = true, .puts = "u7", .after = "a1 u7",
     .action = CESSION_ACT_REGENERATE},
    {"regenerate with metadata", "a1", .meta = true, .regenerates = true, .puts = "u7",
     .after = "a1 u7", .action = CESSION_ACT_REGENERATE},
    {"regenerate against a writer", "a1", .regenerates = true, .puts = "u7", .meanwhile = CHANGED,
     .their_puts = "z9", .after = "a1 u7 z9", .action = CESSION_ACT_REGENERATE},
    {"regenerate after a merge", "a1", .regenerates = true, .diverged = true, .puts = "u7",
     .meanwhile = CHANGED, .their_puts = "z9", .after = "a1 u7 x5 z9",
     .action = CESSION_ACT_REGENERATE},
    {"regenerate, same change", "a1", .regenerates = true, .puts = "u7", .meanwhile = CHANGED,
     .their_puts = "u7", .after = "a1 u7", .action = CESSION_ACT_REGENERATE},
    {"regenerate to nothing", "a1 b2", .regenerates = true, .deletes = "a", .meanwhile = CHANGED,
     .their_deletes = "b", .after = "-", .action = CESSION_ACT_REMOVE},
    {"regenerate and empty", "a1", .regenerates = true, .deletes = "a", .after = "-",
     .action = CESSION_ACT_REMOVE},
    {"regenerate after a logout", "a1", .regenerates = true, .puts = "u7", .meanwhile = REMOVED,
     .after = "-", .action = CESSION_ACT_REGENERATE, .lost = true},
    {"regenerate after another", "a1", .regenerates = true, .puts = "u7", .meanwhile = REGENERATED,
     .after = "a1", .action = CESSION_ACT_REGENERATE, .lost = true},
};
#define SCENARIOS (sizeof scenarios / sizeof scenarios[0])

static world w;

static void apply(request *r, const char *puts, const char *deletes)
{
    dict d = dict_of(puts ? puts : "");
    for (size_t i = 0; i < d.count; i++)
        dict_put(&r->now, d.at[i].key, d.at[i].value);
    for (; deletes && *deletes; deletes++)
        dict_del(&r->now, *deletes);
}

static bool other(const char *puts, const char *deletes, bool regenerates)
{
    request r;
    bool ok = CHECK_OK(request_begin(&r, w.others, SID_A));
    if (ok) {
        apply(&r, puts, deletes);
        if (regenerates)
            ok &= CHECK_OK(cession_session_regenerate(r.session, NULL));
        ok &= CHECK_OK(request_commit(&r));
    }
    request_end(&r);
    return ok;
}

/* Everything up to the commit under test. */
static bool arrange(const scenario *s, request *r)
{
    if (s->stored) {
        cession_buf raw;
        cession_buf_init(&raw, 1000);
        dict d = dict_of(s->stored);
        bool ok = CHECK_OK(dict_encode(&d, s->meta ? SPAN("\x81\xa1u\x05") : SPAN(""), &raw));
        world_put_raw(&w, SID_A, cession_buf_span(&raw));
        cession_buf_release(&raw);
        if (!ok)
            return false;
    }
    if (!CHECK_OK(request_begin(r, w.flow, s->stored ? SID_A : "")))
        return false;
    if (s->diverged) {
        dict_put(&r->now, 'q', 1);
        if (!other("x5", "", false) || !CHECK_OK(request_commit(r)) || !CHECK(r->out.merged))
            return false;
        dict_del(&r->now, 'q');
    }
    apply(r, s->puts, s->deletes);
    r->modified = !s->due;
    if (s->due)
        r->lifetime_ms = 2 * LIFETIME;
    if (s->regenerates && !CHECK_OK(cession_session_regenerate(r->session, NULL)))
        return false;
    if (s->meanwhile == CHANGED)
        return other(s->their_puts, s->their_deletes, false);
    if (s->meanwhile == REGENERATED)
        return other("", "", true);
    if (s->meanwhile == REMOVED)
        world_remove(&w, SID_A);
    return true;
}

/* The end that the scenario comes to when nothing fails. */
static bool check_end(const scenario *s, const request *r)
{
    bool ok = CHECK_INT(r->out.action, s->action);
    ok &= CHECK_INT(r->out.lost, s->lost);
    bool live = s->after[0] != '-';
    ok &= CHECK_INT(world_live(&w), live);
    if (live)
        ok &= CHECK(world_holds(&w, s->after));
    if (s->regenerates || s->meanwhile == REMOVED || s->meanwhile == REGENERATED) {
        const char *old = world_show(&w, SID_A);
        ok &= CHECK(strcmp(old, "-") == 0 || strcmp(old, "tombstone") == 0);
    }
    if (live && !s->lost) {
        dict expected = dict_of(s->after);
        char text[600];
        snprintf(text, sizeof text, "%s%s", dict_show(&expected), s->meta ? " +meta" : "");
        ok &= CHECK_STR(world_show(&w, request_sid(r)), text);
    }
    cession_cookie cookie = CESSION_COOKIE_NONE;
    if (s->action == CESSION_ACT_CREATE || s->action == CESSION_ACT_REGENERATE)
        cookie = s->lost ? CESSION_COOKIE_NONE : CESSION_COOKIE_SET;
    else if (s->action == CESSION_ACT_REMOVE)
        cookie = CESSION_COOKIE_DELETE;
    ok &= CHECK_INT(r->out.cookie, cookie);
    return ok;
}

static bool begin(const scenario *s, request *r)
{
    world_close(&w);
    return CHECK_OK(world_open(&w, NULL)) && arrange(s, r);
}

static unsigned operations_of(const scenario *s)
{
    request r;
    if (!begin(s, &r))
        return 0;
    unsigned before = w.operations;
    bool ok = CHECK_OK(request_commit(&r));
    unsigned count = w.operations - before;
    ok &= check_end(s, &r);
    request_end(&r);
    CHECK_MSG(ok, "scenario \"%s\"", s->name);
    return count;
}

static void test_without_faults(void)
{
    for (size_t i = 0; i < SCENARIOS; i++)
        CHECK(operations_of(&scenarios[i]) > 0);
}

/* What must hold after an error, before anybody tries again. */
static bool check_after_error(const scenario *s, bool once, bool after)
{
    bool ok = true;
    unsigned live = world_live(&w);
    /* Where the removal itself of a regenerate's new record is what fails, it stays
     * beside the old one until the next try, under a sid that nobody knows. */
    bool stays = s->regenerates && (!once || s->lost || s->action == CESSION_ACT_REMOVE);
    ok &= CHECK(live <= (stays ? 2U : 1U));
    /* Nothing comes back under the old sid. */
    const char *old = world_show(&w, SID_A);
    if (s->meanwhile == REMOVED)
        ok &= CHECK_STR(old, "-");
    if (s->meanwhile == REGENERATED)
        ok &= CHECK_STR(old, "tombstone");
    /* The data are still there, unless the lost answer was that of the removal or
     * of the step that retires the old record. */
    bool gone = s->after[0] == '-' || (after && s->regenerates);
    if (!gone && s->stored)
        ok &= CHECK(live >= 1);
    return ok;
}

/* Operation `at` of the commit fails, `count` in all; then the store is well
 * again, and operation `again_at` of the second try fails, too. */
static void fault_at(const scenario *s, unsigned at, unsigned count, bool after, unsigned again_at,
                     bool again_after)
{
    request r;
    if (!begin(s, &r))
        return;
    world_fail(&w, w.operations + at, count, after ? 0 : CESSION_E_UNAVAILABLE,
               after ? CESSION_E_UNAVAILABLE : 0);
    int status = request_commit(&r);
    bool ok = CHECK(status == CESSION_OK || status == CESSION_E_UNAVAILABLE);
    if (status != CESSION_OK) {
        ok &= check_after_error(s, count == 1, after);
        world_fail(&w, w.operations + again_at, 1, again_after ? 0 : CESSION_E_IO,
                   again_after ? CESSION_E_IO : 0);
        status = request_commit(&r);
        if (status != CESSION_OK) {
            ok &= CHECK_STATUS(status, CESSION_E_IO);
            world_fail(&w, 0, 0, 0, 0);
            status = request_commit(&r);
        }
        ok &= CHECK_OK(status);
    }
    if (r.out.lost && !s->lost) {
        /* Our own tombstone cannot be told from another login's: the visitor is
         * logged out, and both an error and the loss were reported. And a removal
         * after a merge that took effect looks like another's logout. */
        ok &= CHECK((s->regenerates || s->action == CESSION_ACT_REMOVE) && (after || again_after));
        ok &= CHECK_INT(world_live(&w), 0);
        ok &= CHECK_INT(r.out.cookie, CESSION_COOKIE_NONE);
    } else if (s->lost && r.out.lost) {
        ok &= check_end(s, &r);
    } else if (r.out.action == s->action) {
        ok &= check_end(s, &r);
    } else {
        ok &= CHECK(false);
    }
    request_end(&r);
    CHECK_MSG(ok, "scenario \"%s\", fault at %u x %u %s, again at %u %s", s->name, at, count,
              after ? "after" : "before", again_at, again_after ? "after" : "before");
}

static void test_every_operation_fails(void)
{
    for (size_t i = 0; i < SCENARIOS; i++) {
        const scenario *s = &scenarios[i];
        unsigned count = operations_of(s);
        for (unsigned at = 0; at < count; at++) {
            for (int mode = 0; mode < 4; mode++) {
                for (unsigned again = 0; again < count + 2; again++) {
                    fault_at(s, at, mode & 1 ? 1 : 1000, mode & 2, again, false);
                    fault_at(s, at, mode & 1 ? 1 : 1000, mode & 2, again, true);
                }
            }
        }
    }
}

/* Asked not to wait, the store is busy at operation `at`: the same commit, tried
 * again with time to wait, comes to the very end it would have come to. */
static void test_busy_commits_are_repeated(void)
{
    for (size_t i = 0; i < SCENARIOS; i++) {
        const scenario *s = &scenarios[i];
        unsigned operations = operations_of(s);
        for (unsigned at = 0; at < operations; at++) {
            for (unsigned count = 1; count <= 1000; count += 999) {
                for (unsigned again = 0; again < operations + 2; again++) {
                    request r;
                    if (!begin(s, &r))
                        return;
                    world_fail(&w, w.operations + at, count, CESSION_E_BUSY, 0);
                    r.deadline = 0;
                    bool ok = CHECK_STATUS(request_commit(&r), CESSION_E_BUSY);
                    world_fail(&w, w.operations + again, 1, CESSION_E_BUSY, 0);
                    int status = request_commit(&r);
                    if (status != CESSION_OK) {
                        ok &= CHECK_STATUS(status, CESSION_E_BUSY);
                        world_fail(&w, 0, 0, 0, 0);
                        r.deadline = cession_deadline_in(10000);
                        ok &= CHECK_OK(request_commit(&r));
                    }
                    ok &= check_end(s, &r);
                    request_end(&r);
                    CHECK_MSG(ok, "scenario \"%s\", busy at %u x %u, again at %u", s->name, at,
                              count, again);
                }
            }
        }
    }
}

/* A create whose answer was lost: the record under that sid is not taken over,
 * not even when another visitor's holds the same bytes. */
static const char *const one_sid[] = {SID_A, SID_B, NULL};
static unsigned next_sid;

static int generate(void *context, char ret_sid[CESSION_SID_MAX + 1], size_t *ret_len,
                    cession_error *err)
{
    (void)context;
    const char *sid = one_sid[next_sid];
    if (!sid)
        return cession_fail(err, CESSION_E_CALLBACK, "no more ids");
    next_sid++;
    *ret_len = strlen(sid);
    memcpy(ret_sid, sid, *ret_len + 1);
    return CESSION_OK;
}

static void test_unsure_creates_are_not_adopted(void)
{
    const cession_flow_config config = {.touch_interval_ms = -1, .generate_sid = generate};
    for (int theirs = 0; theirs < 2; theirs++) {
        next_sid = 0;
        world_close(&w);
        REQUIRE_OK(world_open(&w, &config));
        if (theirs)
            world_put(&w, SID_A, "c3");
        request r;
        REQUIRE_OK(request_begin(&r, w.flow, ""));
        dict_put(&r.now, 'a', 1);
        world_fail(&w, w.operations, 1, 0, CESSION_E_TIMEOUT);
        CHECK_STATUS(request_commit(&r), CESSION_E_TIMEOUT);
        /* what a second try wants to write may be something else */
        dict_put(&r.now, 'b', 2);
        CHECK_OK(request_commit(&r));
        CHECK_STR(request_sid(&r), SID_B);
        CHECK_STR(world_show(&w, SID_A), theirs ? "c3" : "tombstone");
        CHECK_STR(world_show(&w, SID_B), "a1 b2");
        request_end(&r);
    }
}

/* A regenerate that failed half way and is asked for once more. */
static void test_regenerate_again_after_a_failure(void)
{
    world_close(&w);
    REQUIRE_OK(world_open(&w, NULL));
    world_put(&w, SID_A, "a1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    world_fail(&w, w.operations + 1, 1000, CESSION_E_UNAVAILABLE, 0);
    CHECK_STATUS(request_commit(&r), CESSION_E_UNAVAILABLE);
    CHECK_INT(world_live(&w), 2);
    world_fail(&w, 0, 0, 0, 0);
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    CHECK_OK(request_commit(&r));
    CHECK_INT(world_live(&w), 1);
    CHECK_STR(world_show(&w, SID_A), "tombstone");
    CHECK_STR(world_show(&w, request_sid(&r)), "a1");
    request_end(&r);

    /* or that is emptied instead */
    world_close(&w);
    REQUIRE_OK(world_open(&w, NULL));
    world_put(&w, SID_A, "a1");
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    world_fail(&w, w.operations + 1, 1000, CESSION_E_UNAVAILABLE, 0);
    CHECK_STATUS(request_commit(&r), CESSION_E_UNAVAILABLE);
    world_fail(&w, 0, 0, 0, 0);
    dict_del(&r.now, 'a');
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.action, CESSION_ACT_REMOVE);
    CHECK_INT(world_live(&w), 0);
    request_end(&r);
}

/* Errors say what failed, and never whose session it was. */
static void test_errors_name_no_session(void)
{
    for (size_t i = 0; i < SCENARIOS; i++) {
        request r;
        REQUIRE(begin(&scenarios[i], &r));
        world_fail(&w, w.operations, 1, CESSION_E_IO, 0);
        CHECK_STATUS(request_commit(&r), CESSION_E_IO);
        CHECK(r.err.text[0] != '\0');
        CHECK(strstr(r.err.text, SID_A) == NULL);
        CHECK(strstr(r.err.text, request_sid(&r)) == NULL);
        request_end(&r);
    }
}

/* ---- memory -------------------------------------------------------------------- */

/* Call between the call under test and the checks: what has not failed yet shall
 * not fail in a check. */
static bool disarm(void)
{
    if (failing_alloc_fired())
        return true;
    failing_alloc_arm(SIZE_MAX);
    return false;
}

static void test_commit_without_memory(void)
{
    for (size_t i = 0; i < SCENARIOS; i++) {
        const scenario *s = &scenarios[i];
        world_close(&w);
        FAILING_ALLOC_LOOP(n)
        {
            request r;
            failing_alloc_arm(SIZE_MAX);
            if (!CHECK_OK(world_open(&w, NULL)))
                return;
            if (arrange(s, &r)) {
                failing_alloc_arm(n);
                int status = request_commit(&r);
                bool fired = disarm();
                bool ok = CHECK(status == CESSION_OK || (fired && status == CESSION_E_NOMEM));
                if (status != CESSION_OK)
                    ok &= CHECK_OK(request_commit(&r));
                ok &= check_end(s, &r);
                CHECK_MSG(ok, "scenario \"%s\", allocation %zu", s->name, n);
            }
            request_end(&r);
            world_close(&w);
        }
    }
}

static void test_opening_without_memory(void)
{
    world_close(&w);
    FAILING_ALLOC_LOOP(n)
    {
        int status = world_open(&w, NULL);
        CHECK_STATUS(status, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
        world_close(&w);
    }
    FAILING_ALLOC_LOOP(n)
    {
        failing_alloc_arm(SIZE_MAX);
        REQUIRE_OK(world_open(&w, NULL));
        failing_alloc_arm(n);
        cession_session *s = NULL;
        int status = cession_session_open(w.flow, SPAN(SID_A), &s, NULL);
        CHECK_STATUS(status, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
        cession_session_free(s);
        world_close(&w);
    }
}

static void test_loading_without_memory(void)
{
    const cession_span raws[] = {
        SPAN(""),
        SPAN("\x81\xa1"
             "a\x01"),
        SPAN("\xde\x00\x01\xa1"
             "a\x01"),
        SPAN("\x82\xa1"
             "a\x01\xab__cession__\x81\xa1u\x05"),
        SPAN("\x82\xa1"
             "a\x01\xab__cession__\x81\xa1t\xc3"),
        SPAN("\x81\xa1k\xab__cession__"),
        SPAN("rubbish"),
    };
    world_close(&w);
    for (size_t i = 0; i < sizeof raws / sizeof raws[0]; i++) {
        FAILING_ALLOC_LOOP(n)
        {
            failing_alloc_arm(SIZE_MAX);
            REQUIRE_OK(world_open(&w, NULL));
            if (raws[i].len > 0)
                world_put_raw(&w, SID_A, raws[i]);
            cession_session *s = NULL;
            REQUIRE_OK(cession_session_open(w.flow, SPAN(SID_A), &s, NULL));
            failing_alloc_arm(n);
            int status = cession_session_load(s, cession_deadline_in(1000), NULL);
            CHECK_STATUS(status, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
            CHECK_INT(cession_session_is_loaded(s), status == CESSION_OK);
            if (status != CESSION_OK)
                CHECK_STATUS(cession_session_load(s, 0, NULL), CESSION_E_STATE);
            disarm();
            cession_session_free(s);
            world_close(&w);
        }
    }
}

static void test_the_rest_without_memory(void)
{
    world_close(&w);
    for (int which = 0; which < 4; which++) {
        FAILING_ALLOC_LOOP(n)
        {
            failing_alloc_arm(SIZE_MAX);
            REQUIRE_OK(world_open(&w, NULL));
            world_put_raw(&w, SID_A,
                          SPAN("\xde\x00\x01\xa1"
                               "a\x01"));
            request r;
            REQUIRE_OK(request_begin(&r, w.flow, SID_A));
            failing_alloc_arm(n);
            int status = CESSION_OK;
            if (which == 0)
                status = cession_session_set_base(r.session,
                                                  SPAN("\x81\xa1"
                                                       "a\x01"),
                                                  NULL);
            else if (which == 1)
                status = cession_session_regenerate(r.session, NULL);
            else if (which == 2)
                status = cession_session_reject(r.session, NULL);
            else
                status = request_commit(&r); /* a read: the canonical form of the base */
            CHECK_STATUS(status, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
            disarm();
            if (which != 2) {
                CHECK_OK(request_commit(&r));
                CHECK_INT(world_live(&w), 1);
            }
            request_end(&r);
            world_close(&w);
        }
    }
}

static const harness_test tests[] = {
    HARNESS_TEST(without_faults),
    HARNESS_TEST(every_operation_fails),
    HARNESS_TEST(busy_commits_are_repeated),
    HARNESS_TEST(unsure_creates_are_not_adopted),
    HARNESS_TEST(regenerate_again_after_a_failure),
    HARNESS_TEST(errors_name_no_session),
    HARNESS_TEST(commit_without_memory),
    HARNESS_TEST(opening_without_memory),
    HARNESS_TEST(loading_without_memory),
    HARNESS_TEST(the_rest_without_memory),
};
HARNESS_MAIN(tests)
