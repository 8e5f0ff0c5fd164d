/* The flow on the memory driver: every row of the commit table with the number
 * of store operations, merges, tombstones, regenerate against everything else,
 * faults at every operation, threads, and a random test against a model. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/msgpack.h"
#include "failing_alloc.h"
#include "flow_world.h"
#include "harness.h"

static world w;

static void setup(void)
{
    world_close(&w);
    REQUIRE_OK(world_open(&w, NULL));
}

static void setup_with(cession_flow_config config)
{
    world_close(&w);
    REQUIRE_OK(world_open(&w, &config));
}

/* Another request from beginning to end, beside the one under test. */
static void other_puts(const char *sid, const char *changes)
{
    request r;
    REQUIRE_OK(request_begin(&r, w.others, sid));
    dict d = dict_of(changes);
    for (size_t i = 0; i < d.count; i++)
        dict_put(&r.now, d.at[i].key, d.at[i].value);
    CHECK_OK(request_commit(&r));
    CHECK(!r.out.lost);
    request_end(&r);
}

static void other_deletes(const char *sid, const char *keys)
{
    request r;
    REQUIRE_OK(request_begin(&r, w.others, sid));
    for (; *keys; keys++)
        dict_del(&r.now, *keys);
    CHECK_OK(request_commit(&r));
    CHECK(!r.out.lost);
    request_end(&r);
}

/* Returns the new sid in a static buffer. */
static const char *other_regenerates(const char *sid)
{
    static char fresh[CESSION_SID_MAX + 1];
    request r;
    REQUIRE_OK(request_begin(&r, w.others, sid));
    CHECK_OK(cession_session_regenerate(r.session, &r.err));
    CHECK_OK(request_commit(&r));
    CHECK(!r.out.lost);
    snprintf(fresh, sizeof fresh, "%s", request_sid(&r));
    request_end(&r);
    return fresh;
}

static void put_tombstone(const char *sid)
{
    world_put_raw(&w, sid, cession_codec_msgpack()->tombstone);
}

static void put_with_meta(const char *sid, const char *spec)
{
    cession_buf meta, raw;
    cession_buf_init(&meta, 1000);
    cession_buf_init(&raw, 1000);
    dict d = dict_of(spec);
    CHECK_OK(ces_mp_map(&meta, 1));
    CHECK_OK(ces_mp_str(&meta, "u", 1));
    CHECK_OK(ces_mp_str(&meta, "alice", 5));
    CHECK_OK(dict_encode(&d, cession_buf_span(&meta), &raw));
    world_put_raw(&w, sid, cession_buf_span(&raw));
    cession_buf_release(&meta);
    cession_buf_release(&raw);
}

/* ---- the table ---------------------------------------------------------------- */

/* What a request does between load and commit. */
typedef enum deed { READS, WRITES, DELETES, EMPTIES, CALLS_MODIFIED, CLEARS } deed;
/* What happens to the record meanwhile. */
typedef enum meanwhile { NOTHING, CHANGED_BY_OTHER, REMOVED, TOMBSTONED } meanwhile;

typedef struct table_row {
    const char *name;
    const char *stored; /* NULL: the store does not know the sid; "": tombstone */
    bool no_sid, untouched, due, old_signature, no_refresh, force, never;
    deed change;
    meanwhile meanwhile;
    cession_action action;
    cession_cookie cookie;
    int status;
    bool lost;
    const char *ops;   /* of the commit */
    const char *after; /* what lies under SID_A, NULL: do not look */
} table_row;

static const table_row rows[] = {
    {"untouched", "a1", .untouched = true, .ops = "", .after = "a1"},
    {"untouched, due", "a1 P1", .untouched = true, .due = true, .ops = "", .after = "a1 P1"},
    {"written past the session object", "a1", .untouched = true, .change = WRITES,
     .action = CESSION_ACT_REPLACE, .ops = "replace 1", .after = "a1 b2"},
    {"read", "a1", .ops = "", .after = "a1"},
    {"read, permanent, not due", "a1 P1", .ops = "", .after = "P1 a1"},
    {"read, due", "a1", .due = true, .action = CESSION_ACT_TOUCH, .ops = "touch 1"},
    {"read, due, permanent", "a1 P1", .due = true, .action = CESSION_ACT_TOUCH,
     .cookie = CESSION_COOKIE_SET, .ops = "touch 1", .after = "P1 a1"},
    {"read, due, not to be refreshed", "a1 P1", .due = true, .no_refresh = true, .ops = ""},
    {"read, old signature", "a1", .old_signature = true, .cookie = CESSION_COOKIE_SET, .ops = ""},
    {"touch finds a change", "a1 P1", .due = true, .meanwhile = CHANGED_BY_OTHER,
     .action = CESSION_ACT_TOUCH, .status = CESSION_CHANGED, .ops = "touch 1", .after = "P1 a1 z9"},
    {"touch finds a tombstone", "a1 P1", .due = true, .meanwhile = TOMBSTONED,
     .action = CESSION_ACT_TOUCH, .status = CESSION_CHANGED, .ops = "touch 1",
     .after = "tombstone"},
    {"touch finds nothing", "a1 P1", .due = true, .meanwhile = REMOVED, .action = CESSION_ACT_TOUCH,
     .status = CESSION_GONE, .ops = "touch 1", .after = "-"},
    {"new, written", NULL, .no_sid = true, .change = WRITES, .action = CESSION_ACT_CREATE,
     .cookie = CESSION_COOKIE_SET, .ops = "create 1"},
    {"new, empty", NULL, .no_sid = true, .ops = ""},
    {"new, cleared", NULL, .no_sid = true, .change = CLEARS, .ops = ""},
    {"unknown sid, written", NULL, .change = WRITES, .action = CESSION_ACT_CREATE,
     .cookie = CESSION_COOKIE_SET, .ops = "create 1", .after = "-"},
    {"unknown sid, read", NULL, .ops = "", .after = "-"},
    {"unknown sid, cleared", NULL, .change = CLEARS, .cookie = CESSION_COOKIE_DELETE, .ops = "",
     .after = "-"},
    {"changed", "a1", .change = WRITES, .action = CESSION_ACT_REPLACE, .ops = "replace 1",
     .after = "a1 b2"},
    {"changed, permanent", "a1 P1", .change = WRITES, .action = CESSION_ACT_REPLACE,
     .cookie = CESSION_COOKIE_SET, .ops = "replace 1", .after = "P1 a1 b2"},
    {"changed, old signature", "a1", .change = WRITES, .old_signature = true,
     .action = CESSION_ACT_REPLACE, .cookie = CESSION_COOKIE_SET, .ops = "replace 1"},
    {"key deleted", "a1 x3", .change = DELETES, .action = CESSION_ACT_REPLACE, .ops = "replace 1",
     .after = "x3"},
    {"modified, equal", "a1", .change = CALLS_MODIFIED, .action = CESSION_ACT_TOUCH,
     .ops = "touch 1", .after = "a1"},
    {"modified, equal, permanent", "a1 P1", .change = CALLS_MODIFIED, .action = CESSION_ACT_TOUCH,
     .cookie = CESSION_COOKIE_SET, .ops = "touch 1"},
    {"modified, equal, gone", "a1 P1", .change = CALLS_MODIFIED, .meanwhile = REMOVED,
     .action = CESSION_ACT_TOUCH, .status = CESSION_GONE, .lost = true, .ops = "touch 1",
     .after = "-"},
    {"emptied", "a1", .change = EMPTIES, .action = CESSION_ACT_REMOVE,
     .cookie = CESSION_COOKIE_DELETE, .ops = "remove 1", .after = "-"},
    {"emptied, permanent", "a1 P1", .change = EMPTIES, .action = CESSION_ACT_REMOVE,
     .cookie = CESSION_COOKIE_DELETE, .ops = "remove 1", .after = "-"},
    {"emptied, changed by another", "a1", .change = EMPTIES, .meanwhile = CHANGED_BY_OTHER,
     .action = CESSION_ACT_REMOVE, .cookie = CESSION_COOKIE_DELETE, .ops = "remove 1",
     .after = "-"},
    {"emptied, gone", "a1", .change = EMPTIES, .meanwhile = REMOVED, .action = CESSION_ACT_REMOVE,
     .cookie = CESSION_COOKIE_DELETE, .ops = "remove 1", .after = "-"},
    {"retired, read", "", .ops = "", .after = "tombstone"},
    {"retired, written", "", .change = WRITES, .action = CESSION_ACT_DROP, .lost = true, .ops = "",
     .after = "tombstone"},
    {"retired, cleared", "", .change = CLEARS, .ops = "", .after = "tombstone"},
    {"gone", "a1", .change = WRITES, .meanwhile = REMOVED, .action = CESSION_ACT_REPLACE,
     .status = CESSION_GONE, .lost = true, .ops = "replace 1", .after = "-"},
    {"gone, permanent, old signature", "a1 P1", .change = WRITES, .meanwhile = REMOVED,
     .old_signature = true, .action = CESSION_ACT_REPLACE, .status = CESSION_GONE, .lost = true,
     .ops = "replace 1", .after = "-"},
    {"tombstone instead", "a1 P1", .change = WRITES, .meanwhile = TOMBSTONED,
     .action = CESSION_ACT_REPLACE, .status = CESSION_GONE, .lost = true, .ops = "replace 1",
     .after = "tombstone"},
    {"merged", "a1", .change = WRITES, .meanwhile = CHANGED_BY_OTHER, .action = CESSION_ACT_REPLACE,
     .ops = "replace 2", .after = "a1 b2 z9"},
    {"forced, equal", "a1", .force = true, .action = CESSION_ACT_REPLACE, .ops = "replace 1",
     .after = "a1"},
    {"forced, untouched", "a1", .untouched = true, .force = true, .action = CESSION_ACT_REPLACE,
     .ops = "replace 1", .after = "a1"},
    {"forced, equal, changed by another", "a1", .force = true, .meanwhile = CHANGED_BY_OTHER,
     .action = CESSION_ACT_REPLACE, .ops = "replace 1", .after = "a1 z9"},
    {"forced, equal, gone", "a1", .force = true, .meanwhile = REMOVED,
     .action = CESSION_ACT_REPLACE, .status = CESSION_GONE, .lost = true, .ops = "replace 1",
     .after = "-"},
    {"forced, new, written", NULL, .no_sid = true, .force = true, .change = WRITES,
     .action = CESSION_ACT_CREATE, .cookie = CESSION_COOKIE_SET, .ops = "create 1"},
    {"forced, new, empty", NULL, .no_sid = true, .force = true, .ops = ""},
    {"forced, retired", "", .force = true, .ops = "", .after = "tombstone"},
    {"forced, emptied", "a1", .force = true, .change = EMPTIES, .action = CESSION_ACT_REMOVE,
     .cookie = CESSION_COOKIE_DELETE, .ops = "remove 1", .after = "-"},
    {"never, written", "a1 P1", .never = true, .change = WRITES, .old_signature = true, .ops = "",
     .after = "P1 a1"},
    {"never, new, written", NULL, .never = true, .change = WRITES, .ops = "", .after = "-"},
    {"never, emptied", "a1", .never = true, .change = EMPTIES, .ops = "", .after = "a1"},
};

static bool run_row(const table_row *row)
{
    setup();
    if (row->stored && row->stored[0])
        world_put(&w, SID_A, row->stored);
    else if (row->stored)
        put_tombstone(SID_A);

    request r;
    bool ok = true;
    cession_store_counts start = world_counts(&w);
    REQUIRE_OK(request_begin(&r, w.flow, row->no_sid ? "" : SID_A));
    ok &= CHECK_STR(world_ops(&w, &start), row->no_sid ? "" : "load 1");
    ok &= CHECK(cession_session_is_loaded(r.session));
    ok &= CHECK_INT(cession_session_is_new(r.session), row->stored == NULL);
    ok &= CHECK_INT(cession_session_is_retired(r.session), row->stored && !row->stored[0]);
    ok &= CHECK_INT(cession_session_sid_unknown(r.session), !row->stored && !row->no_sid);
    ok &= CHECK(!cession_session_was_rejected(r.session));
    ok &= CHECK((strcmp(request_sid(&r), SID_A) == 0) == (row->stored != NULL));

    r.accessed = !row->untouched;
    r.old_signature = row->old_signature;
    r.refresh = !row->no_refresh;
    r.force = row->force;
    r.never = row->never;
    if (row->due)
        r.lifetime_ms = 2 * LIFETIME;
    if (row->change == WRITES)
        dict_put(&r.now, 'b', 2);
    else if (row->change == DELETES || row->change == EMPTIES)
        dict_del(&r.now, 'a');
    r.modified = row->change != READS;
    if (row->meanwhile == CHANGED_BY_OTHER)
        other_puts(SID_A, "z9");
    else if (row->meanwhile == REMOVED)
        world_remove(&w, SID_A);
    else if (row->meanwhile == TOMBSTONED)
        put_tombstone(SID_A);

    start = world_counts(&w);
    ok &= CHECK_OK(request_commit(&r));
    ok &= CHECK_STR(world_ops(&w, &start), row->ops);
    ok &= CHECK_INT(r.out.action, row->action);
    ok &= CHECK_INT(r.out.cookie, row->cookie);
    ok &= CHECK_STATUS(r.out.status, row->status);
    ok &= CHECK_INT(r.out.lost, row->lost);
    if (row->after) {
        bool literal = row->after[0] == '-' || row->after[0] == 't';
        dict expected = dict_of(literal ? "" : row->after);
        ok &= CHECK_STR(world_show(&w, SID_A), literal ? row->after : dict_show(&expected));
    }

    /* The same again: nothing is left to do, or to report. */
    start = world_counts(&w);
    r.force = r.old_signature = false;
    if (row->due)
        r.refresh = false;
    ok &= CHECK_OK(request_commit(&r));
    ok &= CHECK(!r.out.lost);
    ok &= CHECK_STR(world_ops(&w, &start), "");
    request_end(&r);
    return ok;
}

static void test_table(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_MSG(run_row(&rows[i]), "row \"%s\"", rows[i].name);
}

/* ---- opening and loading --------------------------------------------------------- */

static void test_lazy_open_does_no_io(void)
{
    setup();
    world_put(&w, SID_A, "a1");
    cession_store_counts start = world_counts(&w);
    cession_session *s;
    REQUIRE_OK(cession_session_open(w.flow, SPAN(SID_A), &s, NULL));
    CHECK(!cession_session_is_loaded(s));
    CHECK_STR(cession_session_sid(s, NULL), SID_A);
    CHECK_INT(cession_session_value(s).len, 0);

    cession_commit in = {.lifetime_ms = LIFETIME};
    cession_outcome out;
    CHECK_OK(cession_session_commit(s, &in, &out, NULL));
    CHECK_INT(out.action, CESSION_ACT_NONE);
    CHECK_INT(out.cookie, CESSION_COOKIE_NONE);
    /* What was never loaded must not be judged. */
    in.accessed = true;
    CHECK_STATUS(cession_session_commit(s, &in, &out, NULL), CESSION_E_STATE);
    CHECK_STATUS(cession_session_regenerate(s, NULL), CESSION_E_STATE);
    CHECK_STATUS(cession_session_reject(s, NULL), CESSION_E_STATE);
    CHECK_STATUS(cession_session_set_base(s, SPAN("\x80"), NULL), CESSION_E_STATE);
    CHECK_STR(world_ops(&w, &start), "");

    REQUIRE_OK(cession_session_load(s, cession_deadline_in(1000), NULL));
    REQUIRE_OK(cession_session_load(s, cession_deadline_in(1000), NULL));
    CHECK_STR(world_ops(&w, &start), "load 1");
    CHECK_SPAN(cession_session_value(s), SPAN("\x81\xa1"
                                              "a\x01"));
    in.lifetime_ms = 0;
    CHECK_STATUS(cession_session_commit(s, &in, &out, NULL), CESSION_E_INVALID);
    cession_session_free(s);
    cession_session_free(NULL);
    cession_flow_free(NULL);
}

static void test_impossible_sids_cost_nothing(void)
{
    const cession_span sids[] = {
        {NULL, 0},
        SPAN("short"),
        SPAN("aaaaaaaaaaaaaaaa\0aaaaaaaaaaaaaaaa"),
        SPAN("aaaaaaaa aaaaaaaaaaaaaaaaaaa"),
        SPAN("../../../../../../etc/passwd"),
    };
    setup();
    cession_store_counts start = world_counts(&w);
    for (size_t i = 0; i < sizeof sids / sizeof sids[0]; i++) {
        cession_session *s;
        REQUIRE_OK(cession_session_open(w.flow, sids[i], &s, NULL));
        CHECK(cession_session_is_loaded(s));
        CHECK(cession_session_is_new(s));
        CHECK(!cession_session_sid_unknown(s));
        CHECK_OK(cession_session_load(s, cession_deadline_in(1000), NULL));
        size_t len;
        cession_session_sid(s, &len);
        CHECK_INT(len, 43);
        cession_session_free(s);
    }
    char lengthy[300];
    memset(lengthy, 'a', sizeof lengthy);
    cession_session *s;
    REQUIRE_OK(cession_session_open(w.flow, cession_span_of(lengthy, 257), &s, NULL));
    CHECK(cession_session_is_new(s));
    cession_session_free(s);
    REQUIRE_OK(cession_session_open(w.flow, cession_span_of(lengthy, 256), &s, NULL));
    CHECK(!cession_session_is_loaded(s));
    CHECK_INT(strlen(cession_session_sid(s, NULL)), 256);
    cession_session_free(s);
    CHECK_STR(world_ops(&w, &start), "");
}

/* Truncated, foreign and empty values are no session: a new one, and the record
 * stays as it is. */
static void test_malformed_records_are_rejected(void)
{
    const cession_span bad[] = {
        SPAN(""),
        SPAN("\x81\xa1"),
        SPAN("\x93\x01\x02\x03"),
        SPAN("\x81\xa1\x61\x01\x00"),
        SPAN("hello"),
        SPAN("__cession__"),
        SPAN("\x82\xab__cession__\x81\xa1t\xc3"),
    };
    for (int validates = 0; validates < 2; validates++) {
        setup_with(
            (cession_flow_config){.touch_interval_ms = -1, .caller_validates = validates != 0});
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            world_put_raw(&w, SID_A, bad[i]);
            request r;
            REQUIRE_OK(request_begin(&r, w.flow, SID_A));
            /* A caller who decodes meets an empty value for an empty record. */
            CHECK(cession_session_is_new(r.session));
            CHECK(cession_session_was_rejected(r.session));
            CHECK(!cession_session_sid_unknown(r.session));
            CHECK(strcmp(request_sid(&r), SID_A) != 0);
            CHECK_INT(cession_session_value(r.session).len, 0);
            CHECK_STATUS(cession_session_reject(r.session, NULL), CESSION_E_STATE);
            dict_put(&r.now, 'b', 2);
            CHECK_OK(request_commit(&r));
            CHECK_INT(r.out.action, CESSION_ACT_CREATE);
            CHECK_STR(world_show(&w, request_sid(&r)), "b2");
            CHECK_STR(world_show(&w, SID_A), "foreign");
            request_end(&r);
        }
    }
}

static void test_a_failed_load_fails_the_session(void)
{
    setup();
    world_put(&w, SID_A, "a1");
    world_fail(&w, 0, 1, CESSION_E_UNAVAILABLE, 0);
    request r;
    CHECK_STATUS(request_begin(&r, w.flow, SID_A), CESSION_E_UNAVAILABLE);
    CHECK_STATUS(cession_session_load(r.session, r.deadline, &r.err), CESSION_E_STATE);
    CHECK(!cession_session_is_loaded(r.session));
    CHECK_INT(cession_session_value(r.session).len, 0);
    CHECK_STATUS(request_commit(&r), CESSION_E_STATE);
    r.accessed = false;
    CHECK_STATUS(request_commit(&r), CESSION_E_STATE);
    CHECK_STATUS(cession_session_regenerate(r.session, NULL), CESSION_E_STATE);
    CHECK_INT(w.operations, 1);
    request_end(&r);

    /* But being asked not to wait is no failure. */
    world_fail(&w, w.operations, 1, CESSION_E_BUSY, 0);
    cession_session *s;
    REQUIRE_OK(cession_session_open(w.flow, SPAN(SID_A), &s, NULL));
    CHECK_STATUS(cession_session_load(s, 0, NULL), CESSION_E_BUSY);
    CHECK_OK(cession_session_load(s, cession_deadline_in(1000), NULL));
    CHECK(cession_session_value(s).len > 0);
    cession_session_free(s);
}

static void test_config_is_checked(void)
{
    cession_flow *flow = NULL;
    cession_error err = CESSION_ERROR_INIT;
    cession_flow_config config = {.store = NULL};
    CHECK_STATUS(cession_flow_new(&config, &flow, &err), CESSION_E_INVALID);
    setup();
    config.store = w.memory;
    config.sid_bytes = 15;
    CHECK_STATUS(cession_flow_new(&config, &flow, &err), CESSION_E_INVALID);
    config.sid_bytes = 193;
    CHECK_STATUS(cession_flow_new(&config, &flow, &err), CESSION_E_INVALID);
    config.sid_bytes = 0;
    config.tombstone_ttl_ms = -1;
    CHECK_STATUS(cession_flow_new(&config, &flow, &err), CESSION_E_INVALID);
    cession_codec odd = *cession_codec_msgpack();
    odd.tombstone = SPAN("\x80");
    config.tombstone_ttl_ms = 0;
    config.codec = &odd;
    CHECK_STATUS(cession_flow_new(&config, &flow, &err), CESSION_E_INVALID);
    CHECK(flow == NULL);
}

/* ---- merges ------------------------------------------------------------------------ */

typedef struct merge_case {
    const char *stored, *mine_puts, *mine_deletes, *their_puts, *their_deletes;
    const char *after;
    unsigned conflicts;
    bool merged;
    const char *ops;
} merge_case;

static const merge_case merges[] = {
    {"a1", "b2", "", "c3", "", "a1 b2 c3", 0, true, "replace 2"},
    {"a1 b2", "", "a", "b5", "", "b5", 0, true, "replace 2"},
    {"a1 b2", "b5", "", "", "a", "b5", 0, true, "replace 2"},
    {"a1 b2 c3", "", "a", "", "b", "c3", 0, true, "replace 2"},
    {"a1", "a2", "", "a3", "", "a2", 1, false, "replace 2"},
    {"a1 b1", "a2 b2", "", "a3 b3", "", "a2 b2", 2, false, "replace 2"},
    {"a1", "a2", "", "a2", "", "a2", 0, false, "replace 1"},
    {"a1", "b2", "", "b3", "", "a1 b2", 1, false, "replace 2"},
    {"a1 b2", "", "a", "a3", "", "b2", 1, false, "replace 2"},
    {"a1 b2", "a3", "", "", "a", "a3 b2", 1, true /* their order */, "replace 2"},
    {"a1 b2", "", "a", "", "a", "b2", 0, false, "replace 1"},
    {"a1", "b2", "", "b2 c3", "", "a1 b2 c3", 0, true, "replace 1"},
    /* nested values go as a whole */
    {"a100 b200", "a101", "", "b201", "", "a101 b201", 0, true, "replace 2"},
    {"a100", "a101", "", "a102", "", "a101", 1, false, "replace 2"},
    /* nothing is left of both */
    {"a1 b2", "", "a", "", "b", "-", 0, true, "replace 1 remove 1"},
    {"P1 a1 b2", "", "a", "", "b", "-", 0, true, "replace 1 remove 1"},
};

static void test_merges(void)
{
    for (size_t i = 0; i < sizeof merges / sizeof merges[0]; i++) {
        const merge_case *m = &merges[i];
        setup();
        world_put(&w, SID_A, m->stored);
        request r;
        REQUIRE_OK(request_begin(&r, w.flow, SID_A));
        dict puts = dict_of(m->mine_puts);
        for (size_t k = 0; k < puts.count; k++)
            dict_put(&r.now, puts.at[k].key, puts.at[k].value);
        for (const char *key = m->mine_deletes; *key; key++)
            dict_del(&r.now, *key);
        if (m->their_puts[0])
            other_puts(SID_A, m->their_puts);
        if (m->their_deletes[0])
            other_deletes(SID_A, m->their_deletes);
        cession_store_counts start = world_counts(&w);
        bool ok = CHECK_OK(request_commit(&r));
        ok &= CHECK_STR(world_show(&w, SID_A), m->after);
        ok &= CHECK_INT(r.out.conflicts, m->conflicts);
        ok &= CHECK_INT(r.out.merged, m->merged);
        ok &= CHECK_INT(r.out.cookie, m->after[0] == '-' ? CESSION_COOKIE_DELETE : 0);
        ok &= CHECK_STR(world_ops(&w, &start), m->ops);
        CHECK_MSG(ok, "case %zu", i);
        request_end(&r);
    }
}

/* The application's copy does not have what a merge mixed in: saving it a second
 * time must not take it away again. */
static void test_second_commit_keeps_what_was_merged(void)
{
    setup();
    world_put(&w, SID_A, "a1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    dict_put(&r.now, 'b', 2);
    other_puts(SID_A, "x7");
    CHECK_OK(request_commit(&r));
    CHECK(r.out.merged);
    CHECK_STR(world_show(&w, SID_A), "a1 b2 x7");

    cession_store_counts start = world_counts(&w);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_ops(&w, &start), "");

    dict_put(&r.now, 'c', 3);
    CHECK_OK(request_commit(&r));
    CHECK(!r.out.merged);
    CHECK_STR(world_ops(&w, &start), "replace 1");
    CHECK_STR(world_show(&w, SID_A), "a1 b2 c3 x7");

    /* and with another change in between */
    dict_del(&r.now, 'a');
    other_puts(SID_A, "y8 b5");
    CHECK_OK(request_commit(&r));
    CHECK(r.out.merged);
    CHECK_INT(r.out.conflicts, 0);
    CHECK_STR(world_show(&w, SID_A), "b5 c3 x7 y8");

    /* my b is 2 still; the other's is 5; I change it: mine, and counted */
    dict_put(&r.now, 'b', 3);
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.conflicts, 1);
    CHECK_STR(world_show(&w, SID_A), "b3 c3 x7 y8");

    /* regenerate takes along what the application does not know of */
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, request_sid(&r)), "b3 c3 x7 y8");
    CHECK_STR(world_show(&w, SID_A), "tombstone");
    request_end(&r);

    /* All that mine has goes; what the other added keeps the session. */
    world_put(&w, SID_A, "a1");
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    dict_put(&r.now, 'b', 2);
    other_puts(SID_A, "x7");
    CHECK_OK(request_commit(&r));
    dict_del(&r.now, 'a');
    other_deletes(SID_A, "x");
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, SID_A), "b2");
    request_end(&r);
}

static void test_second_commit_after_create_and_remove(void)
{
    setup();
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, ""));
    dict_put(&r.now, 'a', 1);
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.action, CESSION_ACT_CREATE);
    CHECK(!cession_session_is_new(r.session));
    char sid[CESSION_SID_MAX + 1];
    snprintf(sid, sizeof sid, "%s", request_sid(&r));

    other_puts(sid, "x7");
    dict_put(&r.now, 'b', 2);
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.action, CESSION_ACT_REPLACE);
    CHECK_STR(request_sid(&r), sid);
    CHECK_STR(world_show(&w, sid), "a1 b2 x7");

    r.now = dict_of("");
    r.modified = true;
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.cookie, CESSION_COOKIE_DELETE);
    CHECK_INT(world_live(&w), 0);
    CHECK(cession_session_is_new(r.session));
    CHECK_INT(cession_session_value(r.session).len, 0);
    /* a second response of the same request deletes the cookie, too */
    r.modified = true;
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.action, CESSION_ACT_NONE);
    CHECK_INT(r.out.cookie, CESSION_COOKIE_DELETE);

    /* written again: another sid, the old one stays dead */
    dict_put(&r.now, 'c', 3);
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.action, CESSION_ACT_CREATE);
    CHECK_INT(r.out.cookie, CESSION_COOKIE_SET);
    CHECK(strcmp(request_sid(&r), sid) != 0);
    CHECK_STR(world_show(&w, sid), "-");
    CHECK_STR(world_show(&w, request_sid(&r)), "c3");
    request_end(&r);
}

static void test_conflicts_can_be_raised(void)
{
    setup_with((cession_flow_config){.touch_interval_ms = -1, .raise_on_conflict = true});
    world_put(&w, SID_A, "a1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    dict_put(&r.now, 'a', 2);
    other_puts(SID_A, "b5");
    CHECK_OK(request_commit(&r)); /* other keys: no conflict */
    CHECK_STR(world_show(&w, SID_A), "a2 b5");

    dict_put(&r.now, 'a', 3);
    other_puts(SID_A, "a4");
    for (int i = 0; i < 2; i++) {
        CHECK_STATUS(request_commit(&r), CESSION_E_CONFLICT);
        CHECK_STR(world_show(&w, SID_A), "a4 b5");
    }
    /* the same in a regenerate: no second record stays */
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    CHECK_STATUS(request_commit(&r), CESSION_E_CONFLICT);
    CHECK_STR(world_show(&w, SID_A), "a4 b5");
    CHECK_INT(world_live(&w), 1);
    /* giving in helps */
    dict_put(&r.now, 'a', 4);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, request_sid(&r)), "a4 b5");
    CHECK_STR(world_show(&w, SID_A), "tombstone");
    request_end(&r);
}

/* Somebody changes the record before each of our writes. */
static void contrary(world *self, const char *operation, unsigned index)
{
    const unsigned *most = self->context;
    if (strcmp(operation, "replace") == 0 && (!most || index < *most)) {
        char change[16];
        snprintf(change, sizeof change, "z%u", index % 90 + 1);
        other_puts(SID_A, change);
    }
}

static void test_merging_ends_at_the_deadline(void)
{
    setup();
    world_put(&w, SID_A, "a1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    dict_put(&r.now, 'b', 2);
    w.hook = contrary;
    r.deadline = cession_deadline_in(20);
    CHECK_STATUS(request_commit(&r), CESSION_E_TIMEOUT);
    /* must not wait: a bounded number of tries */
    r.deadline = 0;
    unsigned before = w.operations;
    CHECK_STATUS(request_commit(&r), CESSION_E_BUSY);
    CHECK(w.operations - before < 20);
    CHECK(dict_get(&r.now, 'z') == 0);
    /* a regenerate leaves nothing behind in either case */
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    r.deadline = cession_deadline_in(20);
    CHECK_STATUS(request_commit(&r), CESSION_E_TIMEOUT);
    CHECK_INT(world_live(&w), 1);
    r.deadline = 0;
    CHECK_STATUS(request_commit(&r), CESSION_E_BUSY);
    /* peace at last */
    w.hook = NULL;
    r.deadline = cession_deadline_in(10000);
    CHECK_OK(request_commit(&r));
    CHECK_INT(world_live(&w), 1);
    dict d = dict_of("");
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_OK(
        cession_store_load(w.memory, cession_span_str(request_sid(&r)), r.deadline, &stored, NULL));
    CHECK(dict_decode(cession_buf_span(&stored.value), &d, NULL));
    cession_stored_release(&stored);
    CHECK_INT(dict_get(&d, 'b'), 2);
    CHECK(dict_get(&d, 'z') > 0);
    CHECK_STR(world_show(&w, SID_A), "tombstone");
    request_end(&r);
}

static void test_a_few_conflicts_need_no_waiting(void)
{
    setup();
    world_put(&w, SID_A, "a1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    dict_put(&r.now, 'b', 2);
    unsigned most = w.operations + 3;
    w.context = &most;
    w.hook = contrary;
    r.deadline = 0;
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, SID_A), "a1 b2 z4");
    request_end(&r);
}

/* What cannot be read may be a later version's tombstone: not overwritten. */
static void test_unreadable_theirs_count_as_gone(void)
{
    setup();
    for (int regenerates = 0; regenerates < 2; regenerates++) {
        world_put(&w, SID_A, "a1");
        request r;
        REQUIRE_OK(request_begin(&r, w.flow, SID_A));
        dict_put(&r.now, 'b', 2);
        if (regenerates)
            CHECK_OK(cession_session_regenerate(r.session, NULL));
        world_put_raw(&w, SID_A, SPAN("not a session"));
        CHECK_OK(request_commit(&r));
        CHECK(r.out.lost);
        CHECK_STATUS(r.out.status, CESSION_GONE);
        CHECK_INT(r.out.cookie, CESSION_COOKIE_NONE);
        CHECK_STR(world_show(&w, SID_A), "foreign");
        CHECK_INT(world_live(&w), 1);
        request_end(&r);
    }
}

/* ---- a vanished session -------------------------------------------------------------- */

static void test_gone_is_never_created_again(void)
{
    setup();
    world_put(&w, SID_A, "a1 P1");
    request slow;
    REQUIRE_OK(request_begin(&slow, w.flow, SID_A));
    dict_put(&slow.now, 'b', 2);
    /* the visitor logs out meanwhile */
    request logout;
    REQUIRE_OK(request_begin(&logout, w.others, SID_A));
    logout.now = dict_of("P1");
    logout.modified = true;
    CHECK_OK(request_commit(&logout));
    CHECK_INT(logout.out.cookie, CESSION_COOKIE_DELETE);
    request_end(&logout);

    CHECK_OK(request_commit(&slow));
    CHECK(slow.out.lost);
    CHECK_INT(slow.out.cookie, CESSION_COOKIE_NONE);
    CHECK_INT(world_live(&w), 0);
    cession_store_counts start = world_counts(&w);
    for (int i = 0; i < 3; i++) {
        dict_put(&slow.now, 'c', 3 + i);
        slow.old_signature = true;
        if (i == 1)
            CHECK_OK(cession_session_regenerate(slow.session, NULL));
        if (i == 2)
            slow.now = dict_of("");
        slow.force = i == 1;
        slow.modified = true;
        CHECK_OK(request_commit(&slow));
        /* emptying what is gone loses nothing */
        CHECK_INT(slow.out.action, i == 2 ? CESSION_ACT_NONE : CESSION_ACT_DROP);
        CHECK_INT(slow.out.lost, i != 2);
        CHECK_INT(slow.out.cookie, CESSION_COOKIE_NONE);
    }
    /* forcing what was reported lost already is no further loss */
    slow.now = dict_of("c3");
    CHECK_OK(request_commit(&slow));
    CHECK(slow.out.lost);
    slow.force = true;
    CHECK_OK(request_commit(&slow));
    CHECK(!slow.out.lost);
    CHECK_STR(world_ops(&w, &start), "");
    CHECK_INT(world_live(&w), 0);
    request_end(&slow);
}

static void test_a_touch_that_finds_nothing_ends_the_session(void)
{
    setup();
    world_put(&w, SID_A, "a1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    world_remove(&w, SID_A);
    r.lifetime_ms = 2 * LIFETIME;
    CHECK_OK(request_commit(&r));
    CHECK_STATUS(r.out.status, CESSION_GONE);
    CHECK(!r.out.lost);
    /* even when somebody else got the id meanwhile */
    world_put(&w, SID_A, "a1");
    dict_put(&r.now, 'b', 2);
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.action, CESSION_ACT_DROP);
    CHECK(r.out.lost);
    CHECK_STR(world_show(&w, SID_A), "a1");
    request_end(&r);
}

static void test_one_touch_is_enough(void)
{
    setup();
    world_put(&w, SID_A, "a1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    r.lifetime_ms = 2 * LIFETIME;
    cession_store_counts start = world_counts(&w);
    for (int i = 0; i < 3; i++)
        CHECK_OK(request_commit(&r));
    CHECK_STR(world_ops(&w, &start), "touch 1");
    /* a write counts as one */
    dict_put(&r.now, 'b', 2);
    r.lifetime_ms = 4 * LIFETIME;
    for (int i = 0; i < 3; i++)
        CHECK_OK(request_commit(&r));
    CHECK_STR(world_ops(&w, &start), "replace 1 touch 1");
    request_end(&r);
}

/* ---- metadata and tombstones ----------------------------------------------------------- */

static void test_metadata_stays_and_is_not_seen(void)
{
    setup();
    put_with_meta(SID_A, "a1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK_STR(dict_show(&r.now), "a1");
    bool meta = true;
    dict d;
    CHECK(dict_decode(cession_session_value(r.session), &d, &meta));
    CHECK(!meta);

    cession_store_counts start = world_counts(&w);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_ops(&w, &start), "");

    dict_put(&r.now, 'b', 2);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_ops(&w, &start), "replace 1");
    CHECK_STR(world_show(&w, SID_A), "a1 b2 +meta");
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_ops(&w, &start), "replace 1");
    dict_put(&r.now, 'c', 3);
    other_puts(SID_A, "x7");
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, SID_A), "a1 b2 c3 x7 +meta");
    dict_put(&r.now, 'd', 4);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, SID_A), "a1 b2 c3 d4 x7 +meta");
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, request_sid(&r)), "a1 b2 c3 d4 x7 +meta");
    request_end(&r);

    /* metadata that arrived meanwhile is kept, too */
    world_put(&w, SID_A, "a1");
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    put_with_meta(SID_A, "a1");
    dict_put(&r.now, 'b', 2);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, SID_A), "a1 b2 +meta");
    dict_put(&r.now, 'c', 3);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, SID_A), "a1 b2 c3 +meta");
    request_end(&r);

    /* metadata that somebody took away meanwhile does not come back */
    put_with_meta(SID_A, "a1");
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    world_put(&w, SID_A, "a1");
    dict_put(&r.now, 'b', 2);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, SID_A), "a1 b2");
    dict_put(&r.now, 'c', 3);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, SID_A), "a1 b2 c3");
    request_end(&r);

    /* metadata alone is an empty session: the last key's deletion removes it */
    put_with_meta(SID_A, "a1");
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    dict_del(&r.now, 'a');
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, SID_A), "-");
    request_end(&r);
}

static void test_the_reserved_key_is_refused(void)
{
    for (int validates = 0; validates < 2; validates++) {
        setup_with(
            (cession_flow_config){.touch_interval_ms = -1, .caller_validates = validates != 0});
        world_put(&w, SID_A, "a1");
        request r;
        REQUIRE_OK(request_begin(&r, w.flow, SID_A));
        cession_commit in = {.mine = cession_codec_msgpack()->tombstone,
                             .accessed = true,
                             .modified = true,
                             .lifetime_ms = LIFETIME,
                             .deadline = cession_deadline_in(1000)};
        cession_outcome out;
        CHECK_STATUS(cession_session_commit(r.session, &in, &out, &r.err), CESSION_E_INVALID);
        CHECK_STR(world_show(&w, SID_A), "a1");
        request_end(&r);

        REQUIRE_OK(request_begin(&r, w.flow, ""));
        CHECK_STATUS(cession_session_commit(r.session, &in, &out, &r.err), CESSION_E_INVALID);
        CHECK_INT(world_live(&w), 1);
        /* as a value, or deeper down, the name is just a text */
        in.mine = SPAN("\x82\xa1k\xab__cession__\xa1m\x81\xab__cession__\x01");
        CHECK_OK(cession_session_commit(r.session, &in, &out, &r.err));
        char sid[CESSION_SID_MAX + 1];
        snprintf(sid, sizeof sid, "%s", request_sid(&r));
        request_end(&r);
        cession_session *s;
        REQUIRE_OK(cession_session_open(w.flow, cession_span_str(sid), &s, NULL));
        CHECK_OK(cession_session_load(s, in.deadline, NULL));
        CHECK_SPAN(cession_session_value(s), in.mine);
        cession_store_counts start = world_counts(&w);
        in.modified = false;
        CHECK_OK(cession_session_commit(s, &in, &out, NULL));
        CHECK_STR(world_ops(&w, &start), "");
        cession_session_free(s);
    }
    /* bytes that are no map are not stored either, unless the caller vouches */
    setup();
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, ""));
    cession_commit in = {
        .mine = SPAN("junk"), .accessed = true, .modified = true, .lifetime_ms = LIFETIME};
    cession_outcome out;
    CHECK_STATUS(cession_session_commit(r.session, &in, &out, &r.err), CESSION_E_FORMAT);
    CHECK_INT(world_live(&w), 0);
    request_end(&r);
}

/* A later version's tombstone may say more. */
static void test_tombstones_with_more_in_them(void)
{
    const cession_span dead[] = {SPAN("\x81\xab__cession__\x82\xa1r\x07\xa1t\xc3"),
                                 SPAN("\x82\xa1k\x01\xab__cession__\x81\xa1t\xc3"),
                                 SPAN("\xde\x00\x01\xab__cession__\x81\xa1t\xc3")};
    setup();
    for (size_t i = 0; i < sizeof dead / sizeof dead[0]; i++) {
        world_put_raw(&w, SID_A, dead[i]);
        request r;
        REQUIRE_OK(request_begin(&r, w.flow, SID_A));
        CHECK_MSG(cession_session_is_retired(r.session), "case %zu", i);
        CHECK_INT(r.now.count, 0);
        request_end(&r);
        /* and found in a conflict */
        world_put(&w, SID_A, "a1");
        REQUIRE_OK(request_begin(&r, w.flow, SID_A));
        world_put_raw(&w, SID_A, dead[i]);
        dict_put(&r.now, 'b', 2);
        CHECK_OK(request_commit(&r));
        CHECK(r.out.lost);
        request_end(&r);
    }
    world_put_raw(&w, SID_A,
                  SPAN("\x82\xa1"
                       "a\x01\xab__cession__\x81\xa1t\xc2"));
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK(!cession_session_is_retired(r.session));
    CHECK_STR(dict_show(&r.now), "a1");
    request_end(&r);
}

/* ---- foreign forms ------------------------------------------------------------------------ */

/* A codec that also reads its own kind of foreign format, "X" before canonical
 * bytes, and counts what it is asked. */
static unsigned canonical_calls;

static int counted_canonical(const cession_codec *self, cession_span value, cession_buf *out,
                             cession_error *err)
{
    (void)self;
    canonical_calls++;
    if (value.len > 0 && value.data[0] == 'X')
        value = cession_span_of(value.data + 1, value.len - 1);
    return cession_codec_msgpack()->canonical(cession_codec_msgpack(), value, out, err);
}

static void put_foreign(const char *sid, const char *spec)
{
    cession_buf raw;
    cession_buf_init(&raw, 1000);
    dict d = dict_of(spec);
    CHECK_OK(dict_encode(&d, SPAN(""), &raw));
    uint8_t foreign[256] = {'X'};
    REQUIRE(raw.len < sizeof foreign - 1);
    memcpy(foreign + 1, raw.data, raw.len);
    world_put_raw(&w, sid, cession_span_of(foreign, raw.len + 1));
    cession_buf_release(&raw);
}

static int begin_foreign(request *r, const char *sid, const char *expected, bool tell)
{
    memset(r, 0, sizeof *r);
    r->accessed = r->refresh = true;
    r->lifetime_ms = LIFETIME;
    r->deadline = cession_deadline_in(10000);
    int rc = cession_session_open(w.flow, cession_span_str(sid), &r->session, &r->err);
    if (rc == CESSION_OK)
        rc = cession_session_load(r->session, r->deadline, &r->err);
    r->now = dict_of(expected);
    if (rc == CESSION_OK && tell) {
        cession_buf base;
        cession_buf_init(&base, 1000);
        CHECK_OK(dict_encode(&r->now, SPAN(""), &base));
        rc = cession_session_set_base(r->session, cession_buf_span(&base), &r->err);
        cession_buf_release(&base);
    }
    return rc;
}

static void test_a_read_never_rewrites_a_foreign_value(void)
{
    cession_codec codec = *cession_codec_msgpack();
    codec.canonical = counted_canonical;
    for (int mode = 0; mode < 4; mode++) {
        bool tell = mode & 1;
        bool validates = mode & 2;
        setup_with((cession_flow_config){
            .touch_interval_ms = -1, .codec = &codec, .caller_validates = validates});
        put_foreign(SID_A, "a1 b2");
        request r;
        canonical_calls = 0;
        REQUIRE_OK(begin_foreign(&r, SID_A, "a1 b2", tell));
        CHECK(!cession_session_is_new(r.session));
        cession_store_counts start = world_counts(&w);
        CHECK_OK(request_commit(&r));
        CHECK_OK(request_commit(&r));
        CHECK_STR(world_ops(&w, &start), "");
        CHECK_INT(canonical_calls, tell && validates ? 0 : 1);
        CHECK_STR(world_show(&w, SID_A), "foreign");

        /* due: touched, with the very bytes that lie there as the expectation */
        r.lifetime_ms = 2 * LIFETIME;
        CHECK_OK(request_commit(&r));
        CHECK_STATUS(r.out.status, CESSION_OK);
        CHECK_STR(world_ops(&w, &start), "touch 1");
        CHECK_STR(world_show(&w, SID_A), "foreign");

        dict_put(&r.now, 'c', 3);
        CHECK_OK(request_commit(&r));
        CHECK_INT(r.out.conflicts, 0);
        CHECK_STR(world_ops(&w, &start), "replace 1 touch 1");
        CHECK_STR(world_show(&w, SID_A), "a1 b2 c3");
        request_end(&r);

        /* a conflict with a foreign value: only real changes count */
        put_foreign(SID_A, "a1 b2");
        REQUIRE_OK(begin_foreign(&r, SID_A, "a1 b2", tell));
        dict_put(&r.now, 'a', 5);
        put_foreign(SID_A, "a1 b7");
        CHECK_OK(request_commit(&r));
        CHECK_INT(r.out.conflicts, 0);
        CHECK_STR(world_show(&w, SID_A), "a5 b7");
        request_end(&r);

        /* a conflict with nothing to add leaves theirs as it is */
        put_foreign(SID_A, "a1 b2");
        REQUIRE_OK(begin_foreign(&r, SID_A, "a1 b2", tell));
        dict_put(&r.now, 'a', 5);
        put_foreign(SID_A, "a5 b7");
        CHECK_OK(request_commit(&r));
        CHECK_STR(world_show(&w, SID_A), "foreign");
        dict_put(&r.now, 'c', 3);
        CHECK_OK(request_commit(&r));
        CHECK_STR(world_show(&w, SID_A), "a5 b7 c3");
        request_end(&r);

        /* the foreign value goes along in a regenerate */
        put_foreign(SID_A, "a1 b2");
        REQUIRE_OK(begin_foreign(&r, SID_A, "a1 b2", tell));
        CHECK_OK(cession_session_regenerate(r.session, NULL));
        put_foreign(SID_A, "a1 b7");
        CHECK_OK(request_commit(&r));
        cession_stored stored;
        cession_stored_init(&stored);
        CHECK_OK(cession_store_load(w.memory, cession_span_str(request_sid(&r)), r.deadline,
                                    &stored, NULL));
        dict d = dict_of("");
        size_t skip = stored.value.len > 0 && stored.value.data[0] == 'X';
        CHECK(dict_decode(cession_span_of(stored.value.data + skip, stored.value.len - skip), &d,
                          NULL));
        CHECK_STR(dict_show(&d), "a1 b7");
        CHECK_STR(world_show(&w, SID_A), "tombstone");
        cession_stored_release(&stored);
        request_end(&r);
    }
}

/* MessagePack in longer forms than ours, as other encoders write it. */
static void test_longer_forms_are_foreign(void)
{
    static const cession_span raw = {(const uint8_t *)"\xde\x00\x01\xd9\x01"
                                                      "a\xd1\x00\x01",
                                     9};
    setup();
    world_put_raw(&w, SID_A, raw);
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    dict_put(&r.now, 'a', 1); /* an int 16 of one is one */
    cession_store_counts start = world_counts(&w);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_ops(&w, &start), "");
    CHECK_OK(request_commit(&r));
    dict_put(&r.now, 'b', 2);
    world_put_raw(&w, SID_A,
                  SPAN("\xde\x00\x02\xd9\x01"
                       "a\xd1\x00\x01\xd9\x01z\xd1\x00\x09"));
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.conflicts, 0);
    CHECK_STR(world_show(&w, SID_A), "a1 b2 z9");
    request_end(&r);
}

static void test_an_unchanged_canonical_session_asks_the_codec_nothing(void)
{
    cession_codec codec = *cession_codec_msgpack();
    codec.canonical = counted_canonical;
    setup_with((cession_flow_config){.touch_interval_ms = -1, .codec = &codec});
    world_put(&w, SID_A, "a1 b100");
    canonical_calls = 0;
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK_OK(request_commit(&r));
    CHECK_INT(canonical_calls, 0);
    /* saying that the value is canonical saves the question on a change, too */
    CHECK_OK(cession_session_set_base(r.session, cession_session_value(r.session), NULL));
    dict_put(&r.now, 'c', 3);
    CHECK_OK(request_commit(&r));
    CHECK_INT(canonical_calls, 0);
    CHECK_STR(world_show(&w, SID_A), "a1 b100 c3");
    request_end(&r);
    REQUIRE_OK(request_begin(&r, w.flow, ""));
    CHECK_STATUS(cession_session_set_base(r.session, SPAN("\x80"), NULL), CESSION_E_STATE);
    request_end(&r);
}

/* ---- ids ------------------------------------------------------------------------------------ */

typedef struct generator {
    const char *const *sids; /* the last one again and again */
    unsigned calls, fail_at;
} generator;

static int generate(void *context, char ret_sid[CESSION_SID_MAX + 1], size_t *ret_len,
                    cession_error *err)
{
    generator *g = context;
    if (++g->calls == g->fail_at)
        return cession_fail(err, CESSION_E_CALLBACK, "the generator failed");
    const char *sid = *g->sids;
    if (g->sids[1])
        g->sids++;
    *ret_len = strlen(sid);
    memcpy(ret_sid, sid, *ret_len + 1);
    return CESSION_OK;
}

static void setup_generator(generator *g, bool any_printable)
{
    setup_with((cession_flow_config){.touch_interval_ms = -1,
                                     .generate_sid = generate,
                                     .generate_context = g,
                                     .any_printable_sid = any_printable});
}

static void test_taken_ids_are_never_adopted(void)
{
    static const char *const sids[] = {SID_A, SID_A, SID_B, "cccccccccccccccccccc", NULL};
    generator g = {.sids = sids};
    setup_generator(&g, false);
    world_put(&w, SID_A, "a1");
    put_tombstone(SID_B);
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, ""));
    CHECK_STR(request_sid(&r), SID_A);
    dict_put(&r.now, 'b', 2);
    cession_store_counts start = world_counts(&w);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_ops(&w, &start), "create 4");
    CHECK_STATUS(r.out.status, CESSION_OK);
    CHECK_INT(r.out.cookie, CESSION_COOKIE_SET);
    CHECK_STR(request_sid(&r), "cccccccccccccccccccc");
    CHECK_STR(world_show(&w, SID_A), "a1");
    CHECK_STR(world_show(&w, SID_B), "tombstone");
    CHECK_STR(world_show(&w, request_sid(&r)), "b2");
    request_end(&r);

    /* also when it is the same content, and when a regenerate finds it */
    static const char *const again[] = {SID_A, SID_B, "dddddddddddddddddddd", NULL};
    g.sids = again;
    put_with_meta(SID_B, "b2");
    REQUIRE_OK(request_begin(&r, w.flow, "cccccccccccccccccccc"));
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    CHECK_OK(request_commit(&r));
    CHECK_STR(request_sid(&r), "dddddddddddddddddddd");
    CHECK_STR(world_show(&w, SID_A), "a1");
    CHECK_STR(world_show(&w, SID_B), "b2 +meta");
    CHECK_STR(world_show(&w, "dddddddddddddddddddd"), "b2");
    CHECK_STR(world_show(&w, "cccccccccccccccccccc"), "tombstone");
    request_end(&r);
}

static void test_ids_do_not_run_out_silently(void)
{
    static const char *const sids[] = {SID_A, NULL};
    generator g = {.sids = sids};
    setup_generator(&g, false);
    world_put(&w, SID_A, "a1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, ""));
    dict_put(&r.now, 'b', 2);
    CHECK_STATUS(request_commit(&r), CESSION_E_CALLBACK);
    CHECK(g.calls < 20);
    CHECK_STR(world_show(&w, SID_A), "a1");
    world_remove(&w, SID_A);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, SID_A), "b2");
    /* an id cannot be replaced by itself */
    CHECK_STATUS(cession_session_regenerate(r.session, NULL), CESSION_E_CALLBACK);
    CHECK_STR(request_sid(&r), SID_A);
    dict_put(&r.now, 'c', 3);
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.action, CESSION_ACT_REPLACE);
    CHECK_STR(world_show(&w, SID_A), "b2 c3");
    request_end(&r);
}

static void test_generators_are_not_trusted(void)
{
    static const char *const odd[] = {"short", NULL};
    static const char *const printable[] = {"<short>", "has space", NULL};
    generator g = {.sids = odd};
    setup_generator(&g, false);
    request r;
    CHECK_STATUS(request_begin(&r, w.flow, ""), CESSION_E_CALLBACK);
    CHECK(r.session == NULL);
    g.fail_at = g.calls + 1;
    CHECK_STATUS(request_begin(&r, w.flow, ""), CESSION_E_CALLBACK);
    CHECK_STR(r.err.text, "the generator failed");
    /* the client's sid is unknown, and no other can be had: the load fails */
    g.fail_at = 0;
    CHECK_STATUS(request_begin(&r, w.flow, SID_A), CESSION_E_CALLBACK);
    CHECK_STATUS(request_commit(&r), CESSION_E_STATE);
    request_end(&r);
    world_put(&w, SID_A, "a1");
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK_STATUS(cession_session_reject(r.session, NULL), CESSION_E_CALLBACK);
    CHECK_STATUS(request_commit(&r), CESSION_E_STATE);
    CHECK_STR(world_show(&w, SID_A), "a1");
    request_end(&r);

    g = (generator){.sids = printable};
    setup_generator(&g, true);
    REQUIRE_OK(request_begin(&r, w.flow, ""));
    CHECK_STR(request_sid(&r), "<short>");
    dict_put(&r.now, 'a', 1);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, "<short>"), "a1");
    CHECK_STATUS(cession_session_regenerate(r.session, NULL), CESSION_E_CALLBACK);
    CHECK_STR(request_sid(&r), "<short>");
    request_end(&r);
    REQUIRE_OK(request_begin(&r, w.flow, "<short>"));
    CHECK_STR(dict_show(&r.now), "a1");
    request_end(&r);
}

/* ---- regenerate -------------------------------------------------------------------------------
 */

static void test_regenerate(void)
{
    setup();
    world_put(&w, SID_A, "a1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    cession_store_counts start = world_counts(&w);
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    CHECK(strcmp(request_sid(&r), SID_A) != 0);
    CHECK_STR(world_ops(&w, &start), "");
    CHECK_STR(world_show(&w, SID_A), "a1");
    /* twice: the first old sid is the one that is retired */
    char first[CESSION_SID_MAX + 1];
    snprintf(first, sizeof first, "%s", request_sid(&r));
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    CHECK(strcmp(request_sid(&r), first) != 0);
    dict_put(&r.now, 'b', 2);
    r.accessed = false; /* asking for it is access enough */
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.action, CESSION_ACT_REGENERATE);
    CHECK_INT(r.out.cookie, CESSION_COOKIE_SET);
    CHECK_STR(world_ops(&w, &start), "create 1 replace 1");
    CHECK_STR(world_show(&w, SID_A), "tombstone");
    CHECK_STR(world_show(&w, first), "-");
    CHECK_STR(world_show(&w, request_sid(&r)), "a1 b2");
    CHECK(!cession_session_is_new(r.session));

    /* afterwards it is a session like any other */
    r.accessed = true;
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_ops(&w, &start), "create 1 replace 1");
    dict_put(&r.now, 'c', 3);
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.action, CESSION_ACT_REPLACE);
    CHECK_STR(world_show(&w, request_sid(&r)), "a1 b2 c3");
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, request_sid(&r)), "a1 b2 c3");
    CHECK_INT(world_live(&w), 1);
    request_end(&r);
}

static void test_regenerate_of_new_and_dead_sessions(void)
{
    setup();
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    char first[CESSION_SID_MAX + 1];
    snprintf(first, sizeof first, "%s", request_sid(&r));
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    CHECK(strcmp(request_sid(&r), first) != 0);
    dict_put(&r.now, 'a', 1);
    cession_store_counts start = world_counts(&w);
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.action, CESSION_ACT_CREATE);
    CHECK_STR(world_ops(&w, &start), "create 1");
    CHECK_STR(world_show(&w, request_sid(&r)), "a1");
    CHECK_INT(world_live(&w), 1);
    world_remove(&w, request_sid(&r));
    request_end(&r);

    put_tombstone(SID_A);
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    CHECK_STR(request_sid(&r), SID_A);
    dict_put(&r.now, 'a', 1);
    CHECK_OK(request_commit(&r));
    CHECK(r.out.lost);
    CHECK_INT(r.out.cookie, CESSION_COOKIE_NONE);
    CHECK_INT(world_live(&w), 0);
    request_end(&r);
}

static void test_regenerate_and_empty(void)
{
    setup();
    world_put(&w, SID_A, "a1 P1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    dict_del(&r.now, 'a');
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.action, CESSION_ACT_REMOVE);
    CHECK_INT(r.out.cookie, CESSION_COOKIE_DELETE);
    CHECK_INT(world_live(&w), 0);
    CHECK_STR(world_show(&w, SID_A), "-");
    CHECK_STR(world_show(&w, request_sid(&r)), "-");
    request_end(&r);

    /* emptied by a merge: both go */
    world_put(&w, SID_A, "a1 b2");
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    dict_del(&r.now, 'a');
    other_deletes(SID_A, "b");
    CHECK_OK(request_commit(&r));
    CHECK_INT(r.out.action, CESSION_ACT_REMOVE);
    CHECK_INT(r.out.cookie, CESSION_COOKIE_DELETE);
    CHECK_STR(world_show(&w, SID_A), "-");
    CHECK_STR(world_show(&w, request_sid(&r)), "-");
    request_end(&r);
}

static void test_regenerate_against_a_writer(void)
{
    setup();
    world_put(&w, SID_A, "a1");
    request login;
    request slow;
    REQUIRE_OK(request_begin(&login, w.flow, SID_A));
    REQUIRE_OK(request_begin(&slow, w.others, SID_A));
    CHECK_OK(cession_session_regenerate(login.session, NULL));
    dict_put(&login.now, 'u', 7);
    other_puts(SID_A, "x5"); /* committed before the login: merged */
    cession_store_counts start = world_counts(&w);
    CHECK_OK(request_commit(&login));
    CHECK(login.out.merged);
    CHECK_STR(world_ops(&w, &start), "create 1 replace 3");
    CHECK_STR(world_show(&w, request_sid(&login)), "a1 u7 x5");
    CHECK_STR(world_show(&w, SID_A), "tombstone");
    /* committed after it: refused */
    dict_put(&slow.now, 'y', 6);
    CHECK_OK(request_commit(&slow));
    CHECK(slow.out.lost);
    CHECK_INT(slow.out.cookie, CESSION_COOKIE_NONE);
    CHECK_STR(world_show(&w, SID_A), "tombstone");
    CHECK_INT(world_live(&w), 1);
    request_end(&slow);
    request_end(&login);
}

static void test_regenerate_against_readers_and_touches(void)
{
    setup();
    world_put(&w, SID_A, "a1 P1");
    request reader;
    request due;
    REQUIRE_OK(request_begin(&reader, w.flow, SID_A));
    REQUIRE_OK(request_begin(&due, w.flow, SID_A));
    const char *fresh = other_regenerates(SID_A);
    CHECK_STR(dict_show(&reader.now), "P1 a1");
    CHECK_OK(request_commit(&reader));
    CHECK_INT(reader.out.cookie, CESSION_COOKIE_NONE);
    due.lifetime_ms = 24 * LIFETIME;
    CHECK_OK(request_commit(&due));
    CHECK_STATUS(due.out.status, CESSION_CHANGED);
    CHECK_INT(due.out.cookie, CESSION_COOKIE_NONE);
    /* the tombstone was not kept alive */
    cession_stored stored;
    cession_stored_init(&stored);
    CHECK_OK(cession_store_load(w.memory, SPAN(SID_A), due.deadline, &stored, NULL));
    CHECK(stored.expires_at_ms < cession_now_ms() + 60000);
    cession_stored_release(&stored);
    CHECK_STR(world_show(&w, fresh), "P1 a1");
    request_end(&reader);
    request_end(&due);
}

/* Two logins at once on one sid: exactly one goes through. */
static void test_two_regenerates_at_once(void)
{
    setup();
    world_put(&w, SID_A, "a1");
    request one;
    request two;
    REQUIRE_OK(request_begin(&one, w.flow, SID_A));
    REQUIRE_OK(request_begin(&two, w.flow, SID_A));
    CHECK_OK(cession_session_regenerate(one.session, NULL));
    CHECK_OK(cession_session_regenerate(two.session, NULL));
    dict_put(&one.now, 'u', 1);
    dict_put(&two.now, 'u', 2);
    CHECK_OK(request_commit(&one));
    CHECK_OK(request_commit(&two));
    CHECK(!one.out.lost);
    CHECK(two.out.lost);
    CHECK_INT(one.out.cookie, CESSION_COOKIE_SET);
    CHECK_INT(two.out.cookie, CESSION_COOKIE_NONE);
    CHECK_STR(world_show(&w, request_sid(&one)), "a1 u1");
    CHECK_STR(world_show(&w, request_sid(&two)), "-");
    CHECK_STR(world_show(&w, SID_A), "tombstone");
    request_end(&one);
    request_end(&two);

    /* and after a logout: nothing comes back */
    world_put(&w, SID_A, "a1");
    REQUIRE_OK(request_begin(&one, w.flow, SID_A));
    CHECK_OK(cession_session_regenerate(one.session, NULL));
    world_remove(&w, SID_A);
    CHECK_OK(request_commit(&one));
    CHECK(one.out.lost);
    CHECK_INT(one.out.cookie, CESSION_COOKIE_NONE);
    CHECK_STR(world_show(&w, request_sid(&one)), "-");
    CHECK_STR(world_show(&w, SID_A), "-");
    request_end(&one);
}

/* The same two, but the second login comes in between the first one's steps. */
static void login_in_between(world *self, const char *operation, unsigned index)
{
    (void)index;
    if (strcmp(operation, "replace") == 0) {
        self->hook = NULL;
        other_regenerates(SID_A);
    }
}

static void test_a_regenerate_between_the_steps_of_another(void)
{
    setup();
    world_put(&w, SID_A, "a1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    w.hook = login_in_between;
    CHECK_OK(request_commit(&r));
    CHECK(r.out.lost);
    CHECK_INT(r.out.cookie, CESSION_COOKIE_NONE);
    CHECK_STR(world_show(&w, request_sid(&r)), "-");
    CHECK_STR(world_show(&w, SID_A), "tombstone");
    CHECK_INT(world_live(&w), 1);
    request_end(&r);
}

/* The new record is nobody else's business. A store that throws it out before the
 * old one is retired makes the regenerate fail, and one that changes it is broken. */
static const request *meddled_with;

static void meddle(world *self, const char *operation, unsigned index)
{
    const unsigned *at = self->context;
    (void)operation;
    if (index == at[0] && at[1] == 0)
        world_remove(self, request_sid(meddled_with));
    else if (index == at[0])
        world_put(self, request_sid(meddled_with), "m9");
}

static void test_the_new_record_of_a_regenerate_is_meddled_with(void)
{
    for (unsigned changed = 0; changed < 2; changed++) {
        setup();
        world_put(&w, SID_A, "a1");
        request r;
        REQUIRE_OK(request_begin(&r, w.flow, SID_A));
        CHECK_OK(cession_session_regenerate(r.session, NULL));
        other_puts(SID_A, "z9");
        unsigned at[] = {w.operations + 2, changed}; /* after create and replace */
        meddled_with = &r;
        w.context = at;
        w.hook = meddle;
        if (changed) {
            CHECK_STATUS(request_commit(&r), CESSION_E_INTERNAL);
        } else {
            CHECK_OK(request_commit(&r));
            CHECK(r.out.lost);
            CHECK_INT(r.out.cookie, CESSION_COOKIE_NONE);
        }
        CHECK_STR(world_show(&w, SID_A), "a1 z9");
        CHECK_INT(world_live(&w), 1);
        request_end(&r);
    }
}

/* A raised conflict is the end for the caller: it must not leave a record behind,
 * not even when removing it would have meant to wait. */
static void test_a_raised_conflict_waits_for_the_clean_up(void)
{
    setup_with((cession_flow_config){.touch_interval_ms = -1, .raise_on_conflict = true});
    world_put(&w, SID_A, "a1");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    dict_put(&r.now, 'a', 2);
    other_puts(SID_A, "a3");
    world_fail(&w, w.operations + 2, 1, CESSION_E_BUSY, 0);
    r.deadline = 0;
    CHECK_STATUS(request_commit(&r), CESSION_E_BUSY);
    CHECK_INT(world_live(&w), 2);
    r.deadline = cession_deadline_in(10000);
    CHECK_STATUS(request_commit(&r), CESSION_E_CONFLICT);
    CHECK_INT(world_live(&w), 1);
    CHECK_STR(world_show(&w, SID_A), "a3");
    request_end(&r);
}

/* A store that answers what the contract does not allow at this place. */
static int odd_answer;

static int odd_load(cession_store *store, cession_span key, cession_deadline deadline,
                    cession_stored *ret_stored, cession_error *err)
{
    (void)store, (void)key, (void)deadline, (void)err;
    if (odd_answer == CESSION_OK)
        return cession_buf_set(&ret_stored->value, "\x81\xa1k\x01", 4);
    return odd_answer;
}

static int odd_create(cession_store *store, cession_span key, cession_span value, int64_t ttl_ms,
                      cession_deadline deadline, cession_error *err)
{
    (void)store, (void)key, (void)value, (void)ttl_ms, (void)deadline, (void)err;
    return CESSION_GONE;
}

static int odd_replace(cession_store *store, cession_span key, const cession_expected *expected,
                       cession_span value, int64_t ttl_ms, cession_deadline deadline,
                       cession_stored *ret_current, cession_error *err)
{
    (void)store, (void)key, (void)expected, (void)value, (void)ttl_ms, (void)deadline;
    (void)ret_current, (void)err;
    return CESSION_EXISTS;
}

static int odd_touch(cession_store *store, cession_span key, const cession_expected *expected,
                     int64_t ttl_ms, cession_deadline deadline, cession_error *err)
{
    (void)store, (void)key, (void)expected, (void)ttl_ms, (void)deadline, (void)err;
    return CESSION_NOT_FOUND;
}

static int odd_remove(cession_store *store, cession_span key, cession_deadline deadline,
                      cession_error *err)
{
    (void)store, (void)key, (void)deadline, (void)err;
    return CESSION_CHANGED;
}

static void test_answers_out_of_place_are_errors(void)
{
    static const cession_store_ops ops = {.abi = CESSION_STORE_ABI,
                                          .size = sizeof ops,
                                          .name = "odd",
                                          .load = odd_load,
                                          .create = odd_create,
                                          .replace = odd_replace,
                                          .touch = odd_touch,
                                          .remove = odd_remove};
    cession_store store = {.ops = &ops};
    const cession_flow_config config = {.store = &store, .touch_interval_ms = -1};
    cession_flow *flow = NULL;
    REQUIRE_OK(cession_flow_new(&config, &flow, NULL));
    request r;
    odd_answer = CESSION_CONFLICT;
    CHECK_STATUS(request_begin(&r, flow, SID_A), CESSION_E_INTERNAL);
    request_end(&r);

    odd_answer = CESSION_OK;
    REQUIRE_OK(request_begin(&r, flow, SID_A));
    CHECK_STR(dict_show(&r.now), "k1");
    r.modified = true;
    CHECK_STATUS(request_commit(&r), CESSION_E_INTERNAL);
    dict_put(&r.now, 'a', 1);
    CHECK_STATUS(request_commit(&r), CESSION_E_INTERNAL);
    r.now = dict_of("");
    CHECK_STATUS(request_commit(&r), CESSION_E_INTERNAL);
    r.now = dict_of("k1");
    CHECK_OK(cession_session_regenerate(r.session, NULL));
    CHECK_STATUS(request_commit(&r), CESSION_E_INTERNAL);
    request_end(&r);
    cession_flow_free(flow);
}

static void test_codecs_that_cannot_look_into_a_tombstone(void)
{
    cession_codec codec = *cession_codec_msgpack();
    codec.tombstone = SPAN("\x81\xab__cession__\xc3");
    setup_with((cession_flow_config){.touch_interval_ms = -1, .codec = &codec});
    world_put_raw(&w, SID_A, codec.tombstone);
    put_with_meta(SID_B, "b2");
    request r;
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK(cession_session_is_retired(r.session));
    request_end(&r);
    REQUIRE_OK(request_begin(&r, w.flow, SID_B));
    CHECK_STR(dict_show(&r.now), "b2");
    request_end(&r);

    /* and metadata that is no map to a codec that could */
    setup();
    world_put_raw(&w, SID_A,
                  SPAN("\x82\xa1"
                       "a\x01\xab__cession__\x05"));
    REQUIRE_OK(request_begin(&r, w.flow, SID_A));
    CHECK_STR(dict_show(&r.now), "a1");
    dict_put(&r.now, 'b', 2);
    CHECK_OK(request_commit(&r));
    CHECK_STR(world_show(&w, SID_A), "a1 b2 +meta");
    request_end(&r);
}

/* The name of the metadata key as a text, in a longer form than ours. */
static void test_the_reserved_name_as_a_value(void)
{
    setup();
    world_put_raw(&w, SID_A,
                  SPAN("\x82\xa1"
                       "a\xd1\x00\x01\xa1v\xd9\x0b__cession__"));
    cession_session *s;
    REQUIRE_OK(cession_session_open(w.flow, SPAN(SID_A), &s, NULL));
    CHECK_OK(cession_session_load(s, cession_deadline_in(1000), NULL));
    CHECK(!cession_session_is_new(s));
    CHECK(!cession_session_is_retired(s));
    cession_commit in = {.mine = SPAN("\x82\xa1"
                                      "a\x01\xa1v\xab__cession__"),
                         .accessed = true,
                         .lifetime_ms = LIFETIME,
                         .deadline = cession_deadline_in(1000)};
    cession_outcome out;
    cession_store_counts start = world_counts(&w);
    CHECK_OK(cession_session_commit(s, &in, &out, NULL));
    CHECK_STR(world_ops(&w, &start), "");
    cession_session_free(s);
}

static const harness_test tests[] = {
    HARNESS_TEST(table),
    HARNESS_TEST(lazy_open_does_no_io),
    HARNESS_TEST(impossible_sids_cost_nothing),
    HARNESS_TEST(malformed_records_are_rejected),
    HARNESS_TEST(a_failed_load_fails_the_session),
    HARNESS_TEST(config_is_checked),
    HARNESS_TEST(merges),
    HARNESS_TEST(second_commit_keeps_what_was_merged),
    HARNESS_TEST(second_commit_after_create_and_remove),
    HARNESS_TEST(conflicts_can_be_raised),
    HARNESS_TEST(merging_ends_at_the_deadline),
    HARNESS_TEST(a_few_conflicts_need_no_waiting),
    HARNESS_TEST(unreadable_theirs_count_as_gone),
    HARNESS_TEST(gone_is_never_created_again),
    HARNESS_TEST(a_touch_that_finds_nothing_ends_the_session),
    HARNESS_TEST(one_touch_is_enough),
    HARNESS_TEST(metadata_stays_and_is_not_seen),
    HARNESS_TEST(the_reserved_key_is_refused),
    HARNESS_TEST(tombstones_with_more_in_them),
    HARNESS_TEST(a_read_never_rewrites_a_foreign_value),
    HARNESS_TEST(longer_forms_are_foreign),
    HARNESS_TEST(an_unchanged_canonical_session_asks_the_codec_nothing),
    HARNESS_TEST(taken_ids_are_never_adopted),
    HARNESS_TEST(ids_do_not_run_out_silently),
    HARNESS_TEST(generators_are_not_trusted),
    HARNESS_TEST(regenerate),
    HARNESS_TEST(regenerate_of_new_and_dead_sessions),
    HARNESS_TEST(regenerate_and_empty),
    HARNESS_TEST(regenerate_against_a_writer),
    HARNESS_TEST(regenerate_against_readers_and_touches),
    HARNESS_TEST(two_regenerates_at_once),
    HARNESS_TEST(a_regenerate_between_the_steps_of_another),
    HARNESS_TEST(the_new_record_of_a_regenerate_is_meddled_with),
    HARNESS_TEST(a_raised_conflict_waits_for_the_clean_up),
    HARNESS_TEST(answers_out_of_place_are_errors),
    HARNESS_TEST(codecs_that_cannot_look_into_a_tombstone),
    HARNESS_TEST(the_reserved_name_as_a_value),
};
HARNESS_MAIN(tests)
