/* A web program's request, over the memory store: two of them share a session. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failing_alloc.h"

#define SID "aaaaaaaaaaaaaaaaaaaaaaaa"
#define PLAIN                            \
    "\x82\xaa_permanent\xc3\xa4user\xa5" \
    "alice"

typedef struct plan {
    int before; /* what every operation answers; 0: the store's own */
} plan;

static void fail_all(void *context, const char *operation, cession_fault *ret_fault)
{
    (void)operation;
    ret_fault->before = ((plan *)context)->before;
}

/* app -> trace -> fault -> memory */
typedef struct site {
    plan plan;
    cession_store *memory, *store;
    cession_app *app;
} site;

static void open_site(site *s, cession_app_config config)
{
    cession_store *fault;
    *s = (site){{0}, NULL, NULL, NULL};
    REQUIRE_OK(cession_store_open("memory", NULL, 0, &s->memory, NULL));
    REQUIRE_OK(cession_store_fault(s->memory, fail_all, &s->plan, &fault, NULL));
    REQUIRE_OK(cession_store_trace(fault, &s->store, NULL));
    config.store = s->store;
    REQUIRE_OK(cession_app_new(&config, &s->app, NULL));
}

static void close_site(site *s)
{
    cession_app_free(s->app);
    cession_store_close(s->store);
}

static void put(site *s, cession_span value)
{
    CHECK_OK(cession_store_remove(s->memory, SPAN(SID), cession_deadline_in(1000), NULL));
    CHECK_OK(cession_store_create(s->memory, SPAN(SID), value, 3600000, cession_deadline_in(1000),
                                  NULL));
}

/* What the store holds for SID; "-" for nothing. */
static cession_span held(site *s)
{
    static cession_stored stored;
    cession_stored_release(&stored);
    cession_stored_init(&stored);
    int status = cession_store_load(s->memory, SPAN(SID), cession_deadline_in(1000), &stored, NULL);
    return status == CESSION_OK ? cession_buf_span(&stored.value) : SPAN("-");
}

/* "load 1 replace 1" since the last call. */
static const char *operations(site *s)
{
    static cession_store_counts last;
    static char text[128];
    cession_store_counts now;
    REQUIRE_OK(cession_store_trace_counts(s->store, &now, NULL));
    if (now.load < last.load || now.create < last.create || now.replace < last.replace)
        memset(&last, 0, sizeof last);
    snprintf(text, sizeof text, "%d%d%d%d%d", (int)(now.load - last.load),
             (int)(now.create - last.create), (int)(now.replace - last.replace),
             (int)(now.touch - last.touch), (int)(now.remove - last.remove));
    last = now;
    return text;
}

static cession_request *visit(site *s, const char *cookie)
{
    cession_request *r = NULL;
    REQUIRE_OK(cession_request_open(s->app, cession_span_str(cookie), &r, NULL));
    return r;
}

static cession_item item_of(cession_request *r, const char *key)
{
    cession_item item = {.type = CESSION_ITEM_NIL};
    cession_span value;
    int status = cession_request_get(r, key, &value, NULL);
    if (status != CESSION_NOT_FOUND) {
        CHECK_OK(status);
        CHECK_OK(cession_item_read(&value, &item));
        CHECK_INT(value.len, 0);
    }
    return item;
}

static void set_int(cession_request *r, const char *key, int64_t number)
{
    cession_item item = cession_item_int(number);
    CHECK_OK(cession_request_set_item(r, key, &item, NULL));
}

/* The Set-Cookie without its date; "-" for none. */
static const char *cookie_of(const cession_request *r)
{
    static char text[1024];
    cession_buf out;
    cession_buf_init(&out, sizeof text - 1);
    int status = cession_request_cookie(r, &out, NULL);
    if (status == CESSION_OK) {
        char *at = text;
        memcpy(text, out.data, out.len);
        text[out.len] = '\0';
        at = strstr(text, "; Expires=");
        if (at)
            memmove(at + 10, at + 39, strlen(at + 39) + 1);
    } else {
        CHECK_STATUS(status, CESSION_NOT_FOUND);
        strcpy(text, "-");
    }
    cession_buf_release(&out);
    return text;
}

static cession_outcome commit(cession_request *r)
{
    cession_outcome outcome = {0};
    cession_error err = CESSION_ERROR_INIT;
    int status = cession_request_commit(r, &outcome, &err);
    CHECK_MSG(status == CESSION_OK, "%s", err.text);
    return outcome;
}

/* ---- reading --------------------------------------------------------------- */

static void test_costs_nothing_until_it_is_used(void)
{
    site s;
    open_site(&s, (cession_app_config){0});
    put(&s, SPAN(PLAIN));
    operations(&s);
    cession_request *r = visit(&s, "session=" SID);
    CHECK(!cession_request_was_accessed(r));
    CHECK(!cession_request_is_permanent(r));
    CHECK_INT(commit(r).action, CESSION_ACT_NONE);
    CHECK_STR(cookie_of(r), "-");
    CHECK_STR(operations(&s), "00000");
    cession_request_free(r);

    r = visit(&s, "x=1; session=" SID);
    CHECK_SPAN(item_of(r, "user").as.bytes, SPAN("alice"));
    CHECK_INT(item_of(r, "nobody").type, CESSION_ITEM_NIL);
    CHECK(cession_request_was_accessed(r) && cession_request_is_permanent(r));
    CHECK(!cession_request_is_new(r));
    CHECK_STR(operations(&s), "10000");
    cession_request_free(r);
    cession_request_free(NULL);
    close_site(&s);
    cession_app_free(NULL);
}

static void test_lists_entries(void)
{
    site s;
    open_site(&s, (cession_app_config){0});
    /* a pickle of {"user": "al"}, and MessagePack in a longer form */
    static const cession_span values[] = {
        {(const uint8_t *)"\x80\x03}X\x04\0\0\0userX\x02\0\0\0als.", 21},
        {(const uint8_t *)"\xde\0\x01\xd9\x04user\xd9\x02"
                          "al",
         13},
    };
    for (size_t i = 0; i < 2; i++) {
        const cession_entry *entries;
        size_t count = 0;
        put(&s, values[i]);
        cession_request *r = visit(&s, "session=" SID);
        REQUIRE_OK(cession_request_entries(r, &entries, &count, NULL));
        CHECK_INT(count, 1);
        CHECK_SPAN(entries[0].key, SPAN("\xa4user"));
        CHECK_SPAN(entries[0].value, SPAN("\xa2"
                                          "al"));
        CHECK(!cession_request_is_permanent(r));
        /* a read rewrites nothing */
        commit(r);
        CHECK_SPAN(held(&s), values[i]);
        cession_request_free(r);
    }
    close_site(&s);
}

/* What Python finds true. */
static void test_permanence(void)
{
    static const struct {
        const char *item;
        size_t len;
        bool permanent;
    } rows[] = {
        {"\xc0", 1, false},
        {"\xc2", 1, false},
        {"\xc3", 1, true},
        {"\x00", 1, false},
        {"\xff", 1, true},
        {"\xcb\0\0\0\0\0\0\0\0", 9, false},
        {"\xcb\x7f\xf8\0\0\0\0\0\0", 9, true},
        {"\xcb\xbf\xf0\0\0\0\0\0\0", 9, true},
        {"\xa0", 1, false},
        {"\xa1x", 2, true},
        {"\xc4\0", 2, false},
        {"\x90", 1, false},
        {"\x80", 1, false},
        {"\x91\xc0", 2, true},
        {"\xcf\xff\0\0\0\0\0\0\0", 9, true},
        {"\xd4\x01\x90", 3, true},
    };
    site s;
    open_site(&s, (cession_app_config){0});
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char value[64] = "\x81\xaa_permanent";
        memcpy(value + 12, rows[i].item, rows[i].len);
        put(&s, cession_span_of(value, 12 + rows[i].len));
        cession_request *r = visit(&s, "session=" SID);
        REQUIRE_OK(cession_request_load(r, NULL));
        CHECK_MSG(cession_request_is_permanent(r) == rows[i].permanent, "%zu", i);
        cession_request_free(r);
    }
    close_site(&s);
}

static void test_json_is_somebody_elses(void)
{
    site s;
    open_site(&s, (cession_app_config){0});
    static const cession_span values[] = {
        {(const uint8_t *)"{\"user\":\"alice\"}", 16},
        {(const uint8_t *)"{\"__cession__\":{\"t\":true}}", 26},
    };
    for (size_t i = 0; i < 2; i++) {
        cession_error err = CESSION_ERROR_INIT;
        cession_item item = cession_item_int(1);
        put(&s, values[i]);
        cession_request *r = visit(&s, "session=" SID);
        CHECK_STATUS(cession_request_load(r, &err), CESSION_E_UNSUPPORTED);
        CHECK(strstr(err.text, "JSON") != NULL);
        CHECK_STATUS(cession_request_set_item(r, "n", &item, NULL), CESSION_E_STATE);
        CHECK_STATUS(cession_request_commit(r, NULL, NULL), CESSION_E_STATE);
        CHECK_STR(cookie_of(r), "-");
        CHECK_SPAN(held(&s), values[i]);
        cession_request_free(r);
    }
    /* it became JSON while the request was at work */
    put(&s, SPAN(PLAIN));
    cession_request *r = visit(&s, "session=" SID);
    set_int(r, "n", 1);
    put(&s, values[0]);
    CHECK_STATUS(cession_request_commit(r, NULL, NULL), CESSION_E_UNSUPPORTED);
    CHECK_SPAN(held(&s), values[0]);
    cession_request_free(r);
    close_site(&s);
}

/* ---- changing --------------------------------------------------------------- */

static void test_changes_and_commits(void)
{
    site s;
    open_site(&s, (cession_app_config){0});
    put(&s, SPAN(PLAIN));
    operations(&s);
    cession_request *r = visit(&s, "session=" SID);
    set_int(r, "n", 1);
    set_int(r, "n", 2);
    set_int(r, "m", 3);
    CHECK_OK(cession_request_unset(r, "m", NULL));
    CHECK_STATUS(cession_request_unset(r, "m", NULL), CESSION_NOT_FOUND);
    CHECK_INT(item_of(r, "n").as.integer, 2);
    CHECK_STR(operations(&s), "10000");
    CHECK_INT(commit(r).action, CESSION_ACT_REPLACE);
    CHECK_STR(operations(&s), "00100");
    CHECK_SPAN(held(&s), SPAN("\x83\xaa_permanent\xc3\xa4user\xa5"
                              "alice\xa1n\x02"));
    CHECK_STR(cookie_of(r), "session=" SID "; Expires=; HttpOnly; Path=/");

    /* in its place, and a second commit */
    cession_item bob = cession_item_text("bob");
    CHECK_OK(cession_request_set_item(r, "user", &bob, NULL));
    CHECK_INT(commit(r).action, CESSION_ACT_REPLACE);
    CHECK_SPAN(held(&s), SPAN("\x83\xaa_permanent\xc3\xa4user\xa3"
                              "bob\xa1n\x02"));
    CHECK_OK(cession_request_set_permanent(r, false, NULL));
    CHECK(!cession_request_is_permanent(r));
    commit(r);
    CHECK_STR(cookie_of(r), "session=" SID "; HttpOnly; Path=/");
    cession_request_free(r);
    close_site(&s);
}

static void test_merges_with_others(void)
{
    site s;
    open_site(&s, (cession_app_config){0});
    put(&s, SPAN(PLAIN));
    cession_request *a = visit(&s, "session=" SID), *b = visit(&s, "session=" SID);
    set_int(a, "a", 1);
    set_int(b, "b", 2);
    commit(a);
    cession_outcome outcome = commit(b);
    CHECK(outcome.merged && outcome.conflicts == 0);
    CHECK_SPAN(held(&s), SPAN("\x84\xaa_permanent\xc3\xa4user\xa5"
                              "alice\xa1"
                              "a\x01\xa1"
                              "b\x02"));
    cession_request_free(a);
    cession_request_free(b);
    close_site(&s);

    open_site(&s, (cession_app_config){.raise_on_conflict = true});
    put(&s, SPAN(PLAIN));
    a = visit(&s, "session=" SID), b = visit(&s, "session=" SID);
    set_int(a, "a", 1);
    set_int(b, "a", 2);
    commit(a);
    CHECK_STATUS(cession_request_commit(b, NULL, NULL), CESSION_E_CONFLICT);
    cession_request_free(a);
    cession_request_free(b);
    close_site(&s);
}

static void test_a_new_session(void)
{
    site s;
    open_site(&s, (cession_app_config){.no_refresh = true});
    operations(&s);
    cession_request *r = visit(&s, "");
    CHECK_INT(item_of(r, "user").type, CESSION_ITEM_NIL);
    CHECK(cession_request_is_new(r) && cession_request_is_permanent(r));
    CHECK_INT(commit(r).action, CESSION_ACT_NONE);
    CHECK_STR(cookie_of(r), "-");
    CHECK_STR(operations(&s), "00000");
    set_int(r, "n", 1);
    CHECK_INT(commit(r).action, CESSION_ACT_CREATE);
    CHECK(!cession_request_is_new(r));
    const char *cookie = cookie_of(r);
    CHECK(strncmp(cookie, "session=", 8) == 0);
    CHECK(strstr(cookie, "; Expires=; HttpOnly; Path=/") != NULL);
    CHECK_STR(operations(&s), "01000");

    char header[600];
    snprintf(header, sizeof header, "%.*s", (int)strcspn(cookie, ";"), cookie);
    cession_request *next = visit(&s, header);
    CHECK_INT(item_of(next, "n").as.integer, 1);
    cession_request_free(next);
    cession_request_free(r);
    close_site(&s);

    open_site(&s, (cession_app_config){.not_permanent = true});
    r = visit(&s, "session=tampered with");
    set_int(r, "n", 1);
    CHECK(!cession_request_is_permanent(r));
    commit(r);
    CHECK(strstr(cookie_of(r), "; HttpOnly; Path=/") != NULL);
    CHECK(strstr(cookie_of(r), "Expires") == NULL);
    cession_request_free(r);
    close_site(&s);
}

static void test_logs_out(void)
{
    site s;
    open_site(&s, (cession_app_config){.cookie = {.name = "c", .path = "/p", .same_site = "Lax"}});
    put(&s, SPAN(PLAIN));
    cession_request *late = visit(&s, "c=" SID);
    set_int(late, "n", 1);
    cession_request *r = visit(&s, "c=" SID);
    CHECK_OK(cession_request_clear(r, NULL));
    CHECK(cession_request_is_permanent(r));
    CHECK_INT(item_of(r, "user").type, CESSION_ITEM_NIL);
    CHECK_INT(commit(r).action, CESSION_ACT_REMOVE);
    CHECK_SPAN(held(&s), SPAN("-"));
    CHECK_STR(cookie_of(r), "c=; Expires=; Max-Age=0; HttpOnly; Path=/p; SameSite=Lax");
    cession_request_free(r);

    /* who was still at work brings nothing back, and sets no cookie */
    CHECK(commit(late).lost);
    CHECK_STR(cookie_of(late), "-");
    set_int(late, "n", 2);
    CHECK(commit(late).lost);
    CHECK_SPAN(held(&s), SPAN("-"));
    CHECK_STR(cookie_of(late), "-");
    cession_request_free(late);

    r = visit(&s, "c=" SID);
    CHECK_OK(cession_request_load(r, NULL));
    CHECK(cession_request_is_new(r));
    cession_request_free(r);
    close_site(&s);
}

static void test_regenerates(void)
{
    site s;
    open_site(&s, (cession_app_config){0});
    put(&s, SPAN(PLAIN));
    cession_request *r = visit(&s, "session=" SID);
    CHECK_OK(cession_request_regenerate(r, NULL));
    CHECK_INT(commit(r).action, CESSION_ACT_REGENERATE);
    CHECK_SPAN(held(&s), cession_codec_msgpack()->tombstone);
    const char *cookie = cookie_of(r);
    CHECK(strncmp(cookie, "session=", 8) == 0 && strstr(cookie, SID) == NULL);
    cession_request_free(r);

    r = visit(&s, "session=" SID);
    CHECK_INT(item_of(r, "user").type, CESSION_ITEM_NIL);
    CHECK(cession_request_is_new(r) && !cession_request_is_permanent(r));
    set_int(r, "n", 1);
    CHECK(commit(r).lost);
    CHECK_STR(cookie_of(r), "-");
    cession_request_free(r);
    close_site(&s);
}

static void test_signed_cookies(void)
{
    const cession_span keys[] = {SPAN("new"), SPAN("old")};
    const cession_span old[] = {SPAN("old")};
    cession_signer *signer = NULL;
    cession_buf value;
    char header[600];
    site s;
    REQUIRE_OK(cession_signer_new(old, 1, &signer, NULL));
    cession_buf_init(&value, CESSION_SIGNED_MAX);
    REQUIRE_OK(cession_signer_sign(signer, SPAN(SID), &value, NULL));
    snprintf(header, sizeof header, "session=%.*s", (int)value.len, (char *)value.data);
    cession_signer_free(signer);

    open_site(&s, (cession_app_config){.keys = keys, .key_count = 2, .use_signer = true});
    put(&s, SPAN(PLAIN));
    cession_request *r = visit(&s, "session=" SID);
    CHECK_OK(cession_request_load(r, NULL));
    CHECK(cession_request_is_new(r)); /* not signed */
    cession_request_free(r);

    /* signed with the older key: read, and sent again signed with the newer one */
    r = visit(&s, header);
    CHECK_SPAN(item_of(r, "user").as.bytes, SPAN("alice"));
    commit(r);
    const char *cookie = cookie_of(r);
    CHECK(strncmp(cookie, "session=" SID ".", sizeof "session=" SID) == 0);
    CHECK(strncmp(cookie, header, strlen(header)) != 0);
    CHECK_INT(commit(r).cookie, CESSION_COOKIE_NONE); /* that was said */
    cession_request_free(r);
    REQUIRE_OK(cession_request_open_value(s.app, cession_buf_span(&value), &r, NULL));
    CHECK_SPAN(item_of(r, "user").as.bytes, SPAN("alice"));
    cession_request_free(r);
    cession_buf_release(&value);
    close_site(&s);
}

/* ---- refusals ---------------------------------------------------------------- */

static void test_refuses_wrong_values(void)
{
    site s;
    open_site(&s, (cession_app_config){0});
    put(&s, SPAN(PLAIN));
    cession_request *r = visit(&s, "session=" SID);
    static const cession_span wrong[] = {
        {NULL, 0},
        {(const uint8_t *)"\x01\x02", 2},
        {(const uint8_t *)"\x91", 1},
        {(const uint8_t *)"\xa1\xff", 2},
        {(const uint8_t *)"\xc1", 1},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CHECK_STATUS(cession_request_set(r, "k", wrong[i], NULL), CESSION_E_INVALID);
    cession_span one = SPAN("\x01"), found;
    CHECK_STATUS(cession_request_set(r, "\xff", one, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_request_get(r, "\xff", &found, NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_request_unset(r, "\xff", NULL), CESSION_E_INVALID);
    CHECK_STATUS(cession_request_set(r, CESSION_META_KEY, one, NULL), CESSION_E_INVALID);
    cession_item text = cession_item_text("\xff");
    CHECK_STATUS(cession_request_set_item(r, "k", &text, NULL), CESSION_E_INVALID);
    text.type = CESSION_ITEM_ARRAY;
    text.as.count = 1;
    CHECK_STATUS(cession_request_set_item(r, "k", &text, NULL), CESSION_E_INVALID);
    text.as.count = (size_t)UINT32_MAX + 1;
    CHECK_STATUS(cession_request_set_item(r, "k", &text, NULL), CESSION_E_LIMIT);

    /* 127 levels below the session's own are one too many */
    uint8_t deep[CESSION_ITEM_DEPTH_MAX];
    memset(deep, 0x91, sizeof deep);
    deep[sizeof deep - 1] = 0x90;
    CHECK_STATUS(cession_request_set(r, "k", cession_span_of(deep, sizeof deep), NULL),
                 CESSION_E_INVALID);
    CHECK_OK(cession_request_set(r, "k", cession_span_of(deep + 1, sizeof deep - 1), NULL));

    /* kept in the canonical form */
    CHECK_OK(cession_request_set(r, "k", SPAN("\xdc\0\x01\xd9\x01x"), NULL));
    CHECK_OK(cession_request_get(r, "k", &found, NULL));
    CHECK_SPAN(found, SPAN("\x91\xa1x"));
    cession_request_free(r);
    close_site(&s);
}

static void test_refuses_wrong_settings(void)
{
    cession_store *store;
    const cession_span keys[] = {SPAN("")};
    REQUIRE_OK(cession_store_open("memory", NULL, 0, &store, NULL));
    const struct {
        cession_app_config config;
        const char *says;
    } rows[] = {
        {{.store = NULL}, "store"},
        {{.store = store, .use_signer = true}, "key"},
        {{.store = store, .keys = keys, .key_count = 1}, "empty"},
        {{.store = store, .sid_bytes = 1}, "entropy"},
        {{.store = store, .lifetime_ms = -1}, "negative"},
        {{.store = store, .timeout_ms = -1}, "negative"},
        {{.store = store, .touch_ms = -1}, "negative"},
        {{.store = store, .cookie = {.name = "a b"}}, "name"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cession_app *app = NULL;
        cession_error err = CESSION_ERROR_INIT;
        CHECK_STATUS(cession_app_new(&rows[i].config, &app, &err), CESSION_E_INVALID);
        CHECK(app == NULL);
        CHECK_MSG(strstr(err.text, rows[i].says) != NULL, "%zu: %s", i, err.text);
    }
    cession_store_close(store);
}

static void test_the_store_fails(void)
{
    site s;
    cession_span value;
    open_site(&s, (cession_app_config){0});
    put(&s, SPAN(PLAIN));
    s.plan.before = CESSION_E_UNAVAILABLE;
    cession_request *r = visit(&s, "session=" SID);
    CHECK_STATUS(cession_request_get(r, "user", &value, NULL), CESSION_E_UNAVAILABLE);
    s.plan.before = 0;
    /* a failed load is final */
    CHECK_STATUS(cession_request_get(r, "user", &value, NULL), CESSION_E_STATE);
    CHECK_STATUS(cession_request_unset(r, "user", NULL), CESSION_E_STATE);
    CHECK_STATUS(cession_request_clear(r, NULL), CESSION_E_STATE);
    CHECK_STATUS(cession_request_set_permanent(r, true, NULL), CESSION_E_STATE);
    CHECK_STATUS(cession_request_regenerate(r, NULL), CESSION_E_STATE);
    CHECK_STATUS(cession_request_commit(r, NULL, NULL), CESSION_E_STATE);
    CHECK(!cession_request_was_accessed(r));
    cession_request_free(r);

    /* a failed commit may be tried again */
    r = visit(&s, "session=" SID);
    set_int(r, "n", 1);
    s.plan.before = CESSION_E_TIMEOUT;
    CHECK_STATUS(cession_request_commit(r, NULL, NULL), CESSION_E_TIMEOUT);
    CHECK_STR(cookie_of(r), "-");
    s.plan.before = 0;
    CHECK_INT(commit(r).action, CESSION_ACT_REPLACE);
    CHECK_STR(cookie_of(r), "session=" SID "; Expires=; HttpOnly; Path=/");
    cession_request_free(r);
    close_site(&s);
}

/* Any allocation may fail; what was is then as it was. */
static void test_out_of_memory(void)
{
    const cession_span keys[] = {SPAN("key")};
    FAILING_ALLOC_LOOP(n)
    {
        cession_store *store = NULL;
        cession_app *app = NULL;
        cession_request *r = NULL;
        cession_buf out;
        cession_buf_init(&out, 4096);
        int status = cession_store_open("memory", NULL, 0, &store, NULL);
        const cession_app_config config = {
            .store = store,
            .keys = keys,
            .key_count = 1,
            .cookie = {.name = "n", .domain = "d", .path = "/", .same_site = "Lax"}};
        if (status == CESSION_OK)
            status = cession_app_new(&config, &app, NULL);
        if (status == CESSION_OK)
            status = cession_request_open(app, cession_span_of(NULL, 0), &r, NULL);
        if (status == CESSION_OK) {
            cession_item item = cession_item_int(1);
            cession_item text = cession_item_text("text");
            cession_span found;
            status = cession_request_load(r, NULL);
            if (status == CESSION_OK)
                status = cession_request_set_item(r, "a", &item, NULL);
            if (status == CESSION_OK) {
                status = cession_request_set_item(r, "b", &text, NULL);
                const cession_entry *entries;
                size_t count = 0;
                CHECK_OK(cession_request_entries(r, &entries, &count, NULL));
                CHECK_INT(count, status == CESSION_OK ? 3 : 2);
            }
            if (status == CESSION_OK)
                status = cession_request_get(r, "b", &found, NULL);
            if (status == CESSION_OK)
                status = cession_request_unset(r, "b", NULL);
            if (status == CESSION_OK)
                status = cession_request_set_permanent(r, false, NULL);
            if (status == CESSION_OK)
                status = cession_request_commit(r, NULL, NULL);
            if (status == CESSION_OK)
                status = cession_request_cookie(r, &out, NULL);
            if (status == CESSION_OK)
                status = cession_request_clear(r, NULL);
        }
        CHECK_STATUS(status, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
        cession_request_free(r);
        cession_app_free(app);
        cession_store_close(store);
        cession_buf_release(&out);
    }
}

static const harness_test tests[] = {HARNESS_TEST(costs_nothing_until_it_is_used),
                                     HARNESS_TEST(lists_entries),
                                     HARNESS_TEST(permanence),
                                     HARNESS_TEST(json_is_somebody_elses),
                                     HARNESS_TEST(changes_and_commits),
                                     HARNESS_TEST(merges_with_others),
                                     HARNESS_TEST(a_new_session),
                                     HARNESS_TEST(logs_out),
                                     HARNESS_TEST(regenerates),
                                     HARNESS_TEST(signed_cookies),
                                     HARNESS_TEST(refuses_wrong_values),
                                     HARNESS_TEST(refuses_wrong_settings),
                                     HARNESS_TEST(the_store_fails),
                                     HARNESS_TEST(out_of_memory)};
HARNESS_MAIN(tests)
