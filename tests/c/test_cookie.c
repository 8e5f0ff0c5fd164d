/* The session cookie (found, judged, written) and encoded items. What werkzeug makes
 * of the same headers: tests/python/test_c_library.py. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failing_alloc.h"
#include "guard.h"
#include "session/cookie.h"

#define SID "aaaaaaaaaaaaaaaaaaaaaaaa"

/* ---- Cookie ---------------------------------------------------------------- */

/* "value", "value?" when not plain, "-" and "-?" when there is none. */
static const char *found(guard *g, const char *header)
{
    static char text[256];
    cession_span value = SPAN("untouched");
    bool plain = false;
    size_t len = strlen(header);
    const uint8_t *placed = guard_place(g, header, len);
    int status = cession_cookie_find(cession_span_of(placed, len), SPAN("session"), &value, &plain);
    CHECK(status == CESSION_OK || status == CESSION_NOT_FOUND);
    if (status == CESSION_OK && value.len > 0)
        CHECK(value.data >= placed && value.data + value.len <= placed + len);
    if (status != CESSION_OK)
        CHECK_SPAN(value, SPAN("untouched"));
    snprintf(text, sizeof text, "%.*s%s", status == CESSION_OK ? (int)value.len : 1,
             status == CESSION_OK ? (const char *)value.data : "-", plain ? "" : "?");
    return text;
}

static void test_finds_the_cookie(void)
{
    static const struct {
        const char *header, *expected;
    } rows[] = {
        {"", "-"},
        {"session=a", "a"},
        {"  session = a ", "a"},
        {"\tsession\t=\ta\t;b=c", "a"},
        {"x=1; session=a; y=2", "a"},
        {"session=a; session=b", "a"},
        {"session=; session=b", ""},
        {"session; session=b", ""},
        {"session=a=b", "a=b"},
        {"sessions=a;  asession=b;Session=c", "-"},
        {"; ;;=a;session=a", "a"},
        {"x y=1; session=a", "a"},
        {"session x=1; session=a", "a"},
        {"x=1 2; session=a", "a"},
        {"session=a b; session=c", "c?"},
        {"session=a b", "-?"},
        {"session=\"a\"", "a?"},
        {"session = \"a\" ; x", "a?"},
        {"session=\"a;b\"; x", "a;b?"},
        {"session=\"a\\\"b\"", "a\\\"b?"},
        {"session=\"a", "-?"},
        {"session=\"a\\", "-?"},
        {"session=a\"", "-?"},
        {"session=\"a\"b; session=c", "c?"},
        {"x=\"1; session=a\"; session=b", "b?"},
        {"x=\"1; session=a", "a?"},
        {"x=1\r; session=a", "a?"},
        {"x=\x7f; session=a", "a?"},
    };
    guard g = {NULL, 0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *got = found(&g, rows[i].header);
        CHECK_MSG(strcmp(got, rows[i].expected) == 0, "%s: %s", rows[i].header, got);
    }
    guard_release(&g);

    cession_span value;
    CHECK_STATUS(cession_cookie_find(cession_span_of(NULL, 0), SPAN("session"), &value, NULL),
                 CESSION_NOT_FOUND);
    CHECK_OK(cession_cookie_find(SPAN("session=a"), SPAN("session"), &value, NULL));
    CHECK_SPAN(value, SPAN("a"));
}

static cession_signer *make_signer(const char *first, const char *second)
{
    const cession_span keys[] = {cession_span_str(first), cession_span_str(second)};
    cession_signer *signer = NULL;
    REQUIRE_OK(cession_signer_new(keys, second ? 2 : 1, &signer, NULL));
    return signer;
}

/* "sid", "sid!" with an old signature, "x" refused, "" nothing there. */
static const char *judged(cession_span value, const cession_signer *signer, bool use_signer)
{
    static char text[600];
    cession_cookie_sid in;
    REQUIRE_OK(cession_cookie_read(value, signer, use_signer, false, &in, NULL));
    CHECK(!in.refused || (in.sid.len == 0 && !in.old_signature));
    snprintf(text, sizeof text, "%.*s%s%s", (int)in.sid.len,
             in.sid.len > 0 ? (const char *)in.sid.data : "", in.old_signature ? "!" : "",
             in.refused ? "x" : "");
    return text;
}

static void test_judges_the_value(void)
{
    cession_signer *now = make_signer("new", "old"), *before = make_signer("old", NULL);
    cession_signer *other = make_signer("other", NULL);
    cession_buf good, old, foreign, bad;
    cession_buf *bufs[] = {&good, &old, &foreign, &bad};
    for (size_t i = 0; i < 4; i++)
        cession_buf_init(bufs[i], CESSION_SIGNED_MAX);
    REQUIRE_OK(cession_signer_sign(now, SPAN(SID), &good, NULL));
    REQUIRE_OK(cession_signer_sign(before, SPAN(SID), &old, NULL));
    REQUIRE_OK(cession_signer_sign(other, SPAN(SID), &foreign, NULL));
    REQUIRE_OK(cession_signer_sign(now, SPAN("short"), &bad, NULL));

    CHECK_STR(judged(SPAN(""), NULL, false), "");
    CHECK_STR(judged(SPAN(SID), NULL, false), SID);
    CHECK_STR(judged(SPAN("short"), NULL, false), "x");
    CHECK_STR(judged(cession_buf_span(&good), NULL, false), "x"); /* a dot is in no sid */

    CHECK_STR(judged(SPAN(""), now, true), "");
    CHECK_STR(judged(SPAN(SID), now, true), "x");
    CHECK_STR(judged(cession_buf_span(&good), now, true), SID);
    CHECK_STR(judged(cession_buf_span(&old), now, true), SID "!");
    CHECK_STR(judged(cession_buf_span(&foreign), now, true), "x");
    CHECK_STR(judged(cession_buf_span(&bad), now, true), "x");

    /* signing was switched off */
    CHECK_STR(judged(SPAN(SID), now, false), SID);
    CHECK_STR(judged(cession_buf_span(&good), now, false), SID "!");
    CHECK_STR(judged(cession_buf_span(&foreign), now, false), "x");

    cession_cookie_sid in = {.refused = true};
    cession_error err = CESSION_ERROR_INIT;
    CHECK_STATUS(cession_cookie_read(SPAN(SID), NULL, true, false, &in, &err), CESSION_E_INVALID);
    CHECK(in.refused && strstr(err.text, "key") != NULL);
    CHECK_OK(cession_cookie_read(SPAN("a.b"), NULL, false, true, &in, NULL));
    CHECK_SPAN(in.sid, SPAN("a.b"));

    for (size_t i = 0; i < 4; i++)
        cession_buf_release(bufs[i]);
    cession_signer_free(now);
    cession_signer_free(before);
    cession_signer_free(other);
}

/* ---- Set-Cookie ------------------------------------------------------------- */

static const char *written(cession_cookie_attributes attributes, const char *value, int64_t at)
{
    static char text[8192];
    cession_buf out;
    cession_error err = CESSION_ERROR_INIT;
    cession_buf_init(&out, sizeof text - 1);
    REQUIRE_OK(cession_buf_byte(&out, '|'));
    int status = cession_cookie_write(&attributes, cession_span_str(value), at, &out, &err);
    if (status == CESSION_OK) {
        memcpy(text, out.data + 1, out.len - 1);
        text[out.len - 1] = '\0';
    } else {
        CHECK_STATUS(status, CESSION_E_INVALID);
        CHECK_INT(out.len, 1);
        snprintf(text, sizeof text, "%s", err.text);
    }
    cession_buf_release(&out);
    return text;
}

#define ATTRIBUTES(...) ((cession_cookie_attributes){__VA_ARGS__})
#define ALL                                                                            \
    ATTRIBUTES(.name = "n", .domain = ".example.org:80", .path = "/a b/\xc3\xa9;%41~", \
               .same_site = "lax", .secure = true)

static void test_writes_the_cookie(void)
{
    CHECK_STR(written(ATTRIBUTES(0), SID, -1), "session=" SID "; HttpOnly; Path=/");
    CHECK_STR(written(ATTRIBUTES(0), SID, 0),
              "session=" SID "; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Path=/");
    CHECK_STR(written(ATTRIBUTES(.script_access = true), SID, 1709210096),
              "session=" SID "; Expires=Thu, 29 Feb 2024 12:34:56 GMT; Path=/");
    CHECK_STR(written(ALL, "v", -1), "n=v; Domain=example.org; Secure; HttpOnly; "
                                     "Path=/a%20b/%C3%A9%3B%41~; SameSite=Lax");
    CHECK_STR(written(ALL, "", 4711),
              "n=; Domain=example.org; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Secure; "
              "HttpOnly; Path=/a%20b/%C3%A9%3B%41~; SameSite=Lax");
    CHECK_STR(written(ATTRIBUTES(.partitioned = true, .same_site = "NONE"), "v", -1),
              "session=v; Secure; HttpOnly; Path=/; SameSite=None; Partitioned");
    CHECK_STR(written(ATTRIBUTES(.domain = "."), "v", -1), "session=v; HttpOnly; Path=/");
}

static void test_refuses_what_no_cookie_can_be(void)
{
    static const struct {
        cession_cookie_attributes attributes;
        const char *value, *says;
        int64_t at;
    } rows[] = {
        {{.name = ""}, "v", "name", -1},
        {{.name = "a b"}, "v", "name", -1},
        {{.name = "a;b"}, "v", "name", -1},
        {{.name = "a\r\nb"}, "v", "name", -1},
        {{.name = "\xc3\xa9"}, "v", "name", -1},
        {{.domain = "a;b"}, "v", "domain", -1},
        {{.domain = "a\nb"}, "v", "domain", -1},
        {{.domain = "\xc3\xa9.example"}, "v", "domain", -1},
        {{.path = "/\xff"}, "v", "path", -1},
        {{.same_site = "never"}, "v", "SameSite", -1},
        {{0}, "a;b", "value", -1},
        {{0}, "a\r\nb", "value", -1},
        {{0}, "a b", "value", -1},
        {{0}, "v", "expiry", INT64_C(253402300800)},
        {{0}, "v", "expiry", INT64_MAX},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *got = written(rows[i].attributes, rows[i].value, rows[i].at);
        CHECK_MSG(strstr(got, rows[i].says) != NULL, "%zu: %s", i, got);
    }
    char many[CESSION_SIGNED_MAX + 2];
    memset(many, 'v', sizeof many - 1);
    many[sizeof many - 1] = '\0';
    CHECK(strstr(written(ATTRIBUTES(0), many, -1), "too long") != NULL);
    char longest[2000];
    memset(longest, '/', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    CHECK(strstr(written(ATTRIBUTES(.path = longest), "v", -1), "path") != NULL);
    CHECK(strstr(written(ATTRIBUTES(.domain = longest), "v", -1), "domain") != NULL);
    CHECK(strstr(written(ATTRIBUTES(.name = longest), "v", -1), "name") != NULL);
}

/* Whatever room there is: all of it or nothing. */
static void test_writes_all_or_nothing(void)
{
    cession_buf whole;
    cession_buf_init(&whole, 4096);
    REQUIRE_OK(cession_cookie_write(&ALL, SPAN(SID), 0, &whole, NULL));
    for (size_t max = 0; max <= whole.len; max++) {
        cession_buf out;
        cession_buf_init(&out, max);
        CHECK_STATUS(cession_cookie_write(&ALL, SPAN(SID), 0, &out, NULL),
                     max < whole.len ? CESSION_E_LIMIT : CESSION_OK);
        CHECK_INT(out.len, max < whole.len ? 0 : whole.len);
        cession_buf_release(&out);
    }
    cession_buf_release(&whole);
}

static void test_dates(void)
{
    char text[CES_HTTP_DATE_LEN + 1];
    REQUIRE(ces_http_date(INT64_C(253402300799), text));
    CHECK_STR(text, "Fri, 31 Dec 9999 23:59:59 GMT");
    REQUIRE(ces_http_date(951782400, text));
    CHECK_STR(text, "Tue, 29 Feb 2000 00:00:00 GMT");
    CHECK(!ces_http_date(INT64_C(253402300800), text));
    CHECK(!ces_http_date(INT64_MAX, text));
    CHECK(!ces_http_date(INT64_MIN, text));
}

/* ---- items ------------------------------------------------------------------ */

static cession_item read_one(cession_span bytes)
{
    cession_item item;
    cession_span rest = bytes;
    REQUIRE_OK(cession_item_read(&rest, &item));
    return item;
}

static void test_reads_items(void)
{
    CHECK_INT(read_one(SPAN("\xc0")).type, CESSION_ITEM_NIL);
    CHECK(read_one(SPAN("\xc3")).as.boolean);
    CHECK(!read_one(SPAN("\xc2")).as.boolean);
    CHECK_INT(read_one(SPAN("\x05")).as.integer, 5);
    CHECK_INT(read_one(SPAN("\xff")).as.integer, -1);
    CHECK_INT(read_one(SPAN("\xcd\x01\x00")).as.integer, 256);
    CHECK_INT(read_one(SPAN("\xd3\x80\0\0\0\0\0\0\0")).as.integer, INT64_MIN);
    CHECK_INT(read_one(SPAN("\xcf\x7f\xff\xff\xff\xff\xff\xff\xff")).as.integer, INT64_MAX);
    cession_item large = read_one(SPAN("\xcf\x80\0\0\0\0\0\0\0"));
    CHECK_INT(large.type, CESSION_ITEM_UINT);
    CHECK(large.as.natural == (uint64_t)INT64_MAX + 1);
    CHECK(read_one(SPAN("\xca\x3f\x80\0\0")).as.number == 1.0);
    CHECK_SPAN(read_one(SPAN("\xa3"
                             "abc"))
                   .as.bytes,
               SPAN("abc"));
    CHECK_INT(read_one(SPAN("\xc4\x01x")).type, CESSION_ITEM_BYTES);
    cession_item ext = read_one(SPAN("\xd4\xff\x09"));
    CHECK_INT(ext.type, CESSION_ITEM_EXT);
    CHECK_INT(ext.extension, -1);
    CHECK_SPAN(ext.as.bytes, SPAN("\x09"));

    /* {"a": [1, {}]} and something behind it */
    cession_span rest = SPAN("\x81\xa1"
                             "a\x92\x01\x80\x07");
    static const struct {
        cession_item_type type;
        size_t left;
    } steps[] = {{CESSION_ITEM_MAP, 6}, {CESSION_ITEM_TEXT, 4}, {CESSION_ITEM_ARRAY, 3},
                 {CESSION_ITEM_INT, 2}, {CESSION_ITEM_MAP, 1},  {CESSION_ITEM_INT, 0}};
    cession_span whole = rest;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        cession_item item;
        REQUIRE_OK(cession_item_read(&rest, &item));
        CHECK_INT(item.type, steps[i].type);
        CHECK_INT(rest.len, steps[i].left);
        CHECK_INT(item.extension, 0);
    }
    REQUIRE_OK(cession_item_skip(&whole));
    CHECK_INT(whole.len, 1);
}

static void check_cut(const uint8_t *data, size_t len, size_t full, void *context)
{
    (void)context;
    cession_span rest = cession_span_of(data, len);
    cession_item item = {.type = CESSION_ITEM_UINT};
    CHECK_STATUS(cession_item_read(&rest, &item), len == full ? CESSION_OK : CESSION_E_FORMAT);
    CHECK(len == full || (rest.data == data && rest.len == len && item.type == CESSION_ITEM_UINT));
    rest = cession_span_of(data, len);
    CHECK_STATUS(cession_item_skip(&rest), len == full ? CESSION_OK : CESSION_E_FORMAT);
    CHECK_INT(rest.len, len == full ? 0 : len);
}

static void test_refuses_cut_items(void)
{
    static const char map[] = "\x82\xa1"
                              "a\x92\x01\xc4\x01x\xd9\x02"
                              "bc\xd4\x01\xc0";
    guard_truncations(map, sizeof map - 1, check_cut, NULL);
    cession_span rest = SPAN("\xc1");
    cession_item item;
    CHECK_STATUS(cession_item_read(&rest, &item), CESSION_E_FORMAT);
    rest = cession_span_of(NULL, 0);
    CHECK_STATUS(cession_item_read(&rest, &item), CESSION_E_FORMAT);
    CHECK_STATUS(cession_item_skip(&rest), CESSION_E_FORMAT);
}

/* Written and read again, in the canonical form. */
static void test_writes_items(void)
{
    static const struct {
        cession_item item;
        const char *bytes;
        size_t len;
    } rows[] = {
        {{.type = CESSION_ITEM_NIL}, "\xc0", 1},
        {{.type = CESSION_ITEM_BOOL, .as.boolean = true}, "\xc3", 1},
        {{.type = CESSION_ITEM_INT, .as.integer = 7}, "\x07", 1},
        {{.type = CESSION_ITEM_INT, .as.integer = -129}, "\xd1\xff\x7f", 3},
        {{.type = CESSION_ITEM_UINT, .as.natural = UINT64_MAX},
         "\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
         9},
        {{.type = CESSION_ITEM_DOUBLE, .as.number = 1.0}, "\xcb\x3f\xf0\0\0\0\0\0\0", 9},
        {{.type = CESSION_ITEM_TEXT, .as.bytes = {(const uint8_t *)"\xc3\xa9", 2}},
         "\xa2\xc3\xa9",
         3},
        {{.type = CESSION_ITEM_BYTES, .as.bytes = {(const uint8_t *)"\xff", 1}}, "\xc4\x01\xff", 3},
        {{.type = CESSION_ITEM_ARRAY, .as.count = 2}, "\x92", 1},
        {{.type = CESSION_ITEM_MAP, .as.count = 16}, "\xde\0\x10", 3},
        {{.type = CESSION_ITEM_EXT, .extension = 10, .as.bytes = {(const uint8_t *)"m", 1}},
         "\xd4\x0am",
         3},
    };
    cession_buf out;
    cession_buf_init(&out, 100);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cession_buf_clear(&out);
        REQUIRE_OK(cession_item_write(&rows[i].item, &out));
        CHECK_SPAN(cession_buf_span(&out), cession_span_of(rows[i].bytes, rows[i].len));
        if (rows[i].item.type != CESSION_ITEM_ARRAY && rows[i].item.type != CESSION_ITEM_MAP)
            CHECK_INT(read_one(cession_buf_span(&out)).type, rows[i].item.type);
    }
    cession_buf_clear(&out);
    cession_item text = cession_item_text("ok"), number = cession_item_int(-1);
    cession_item truth = cession_item_bool(true);
    REQUIRE_OK(cession_item_write(&text, &out));
    REQUIRE_OK(cession_item_write(&number, &out));
    REQUIRE_OK(cession_item_write(&truth, &out));
    CHECK_SPAN(cession_buf_span(&out), SPAN("\xa2ok\xff\xc3"));

    cession_item wrong = cession_item_text("\xff");
    CHECK_STATUS(cession_item_write(&wrong, &out), CESSION_E_INVALID);
    wrong.type = (cession_item_type)99;
    CHECK_STATUS(cession_item_write(&wrong, &out), CESSION_E_INVALID);
    CHECK_INT(out.len, 5);
    cession_buf_release(&out);
    cession_buf_init(&out, 2);
    CHECK_STATUS(cession_item_write(&text, &out), CESSION_E_LIMIT);
    CHECK_INT(out.len, 0);
    cession_buf_release(&out);
}

static void test_tells_its_version(void)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", CESSION_VERSION_MAJOR, CESSION_VERSION_MINOR,
             CESSION_VERSION_PATCH);
    CHECK_STR(cession_version(), text);
    CHECK_STR(cession_version(), CESSION_VERSION);
    CHECK_INT(cession_abi(), CESSION_ABI);
}

static const harness_test tests[] = {
    HARNESS_TEST(finds_the_cookie),      HARNESS_TEST(judges_the_value),
    HARNESS_TEST(writes_the_cookie),     HARNESS_TEST(refuses_what_no_cookie_can_be),
    HARNESS_TEST(writes_all_or_nothing), HARNESS_TEST(dates),
    HARNESS_TEST(reads_items),           HARNESS_TEST(refuses_cut_items),
    HARNESS_TEST(writes_items),          HARNESS_TEST(tells_its_version)};
HARNESS_MAIN(tests)
