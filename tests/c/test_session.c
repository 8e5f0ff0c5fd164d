/* The session floor: ids, signatures, the MessagePack codec. */
#include "harness.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/msgpack.h"
#include "failing_alloc.h"
#include "guard.h"
#include "session/base64url.h"

#define TEST_MAX (8u << 20)

/* ---- ids ------------------------------------------------------------------- */

static void test_base64url(void)
{
    /* RFC 4648, section 10, without the padding; then the two letters that
     * distinguish the URL alphabet. */
    static const struct {
        const char *data, *text;
    } rows[] = {
        {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},          {"foo", "Zm9v"},
        {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}, {"\xfb\xff\xbf", "-_-_"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[16] = "";
        size_t data_len = strlen(rows[i].data);
        size_t len = ces_base64url((const uint8_t *)rows[i].data, data_len, text);
        CHECK_INT(len, strlen(rows[i].text));
        CHECK_INT(CES_BASE64URL_LEN(data_len), len);
        CHECK_SPAN(cession_span_of(text, len), cession_span_str(rows[i].text));
    }
}

static void test_generated_ids(void)
{
    char last[CESSION_SID_MAX + 1] = "";
    for (size_t bytes = CESSION_SID_BYTES_MIN; bytes <= CESSION_SID_BYTES_MAX; bytes++) {
        char sid[CESSION_SID_MAX + 1];
        size_t len = 0;
        memset(sid, '?', sizeof sid);
        REQUIRE_OK(cession_sid_generate(bytes, sid, &len, NULL));
        CHECK_INT(len, CES_BASE64URL_LEN(bytes));
        CHECK_INT(strlen(sid), len);
        CHECK(cession_sid_valid(cession_span_of(sid, len), false));
        CHECK(cession_sid_valid(cession_span_of(sid, len), true));
        CHECK(strcmp(sid, last) != 0);
        memcpy(last, sid, sizeof last);
    }
    CHECK_INT(CES_BASE64URL_LEN(CESSION_SID_BYTES_MAX), CESSION_SID_MAX);

    static const size_t wrong[] = {0, CESSION_SID_BYTES_MIN - 1, CESSION_SID_BYTES_MAX + 1,
                                   SIZE_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char sid[CESSION_SID_MAX + 1] = "untouched";
        size_t len = 4711;
        cession_error err = CESSION_ERROR_INIT;
        CHECK_STATUS(cession_sid_generate(wrong[i], sid, &len, &err), CESSION_E_INVALID);
        CHECK_STR(sid, "untouched");
        CHECK_INT(len, 4711);
        CHECK(strstr(err.text, "16") != NULL && strstr(err.text, "192") != NULL);
    }
}

/* Every letter of the alphabet comes, none much too often: 64,000 letters, 1,000
 * of each expected. */
static void test_generated_ids_use_the_alphabet(void)
{
    unsigned seen[256] = {0};
    for (int i = 0; i < 250; i++) {
        char sid[CESSION_SID_MAX + 1];
        size_t len = 0;
        REQUIRE_OK(cession_sid_generate(CESSION_SID_BYTES_MAX, sid, &len, NULL));
        for (size_t k = 0; k < len; k++)
            seen[(uint8_t)sid[k]]++;
    }
    unsigned kinds = 0, odd = 0;
    for (int c = 0; c < 256; c++) {
        kinds += seen[c] > 0;
        odd += seen[c] > 0 && (seen[c] < 750 || seen[c] > 1250); /* eight deviations */
    }
    CHECK_INT(kinds, 64);
    CHECK_INT(odd, 0);
}

static bool reference_valid(uint8_t c, bool any_printable)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
        c == '_')
        return true;
    return any_printable && c > 0x20 && c < 0x7f && c != '"' && c != ',' && c != ';' && c != '\\';
}

static void test_valid_ids(void)
{
    guard g = {NULL, 0};
    uint8_t sid[CESSION_SID_MAX + 1];
    memset(sid, 'a', sizeof sid);
    for (size_t len = 0; len <= sizeof sid; len++) {
        cession_span span = cession_span_of(guard_place(&g, sid, len), len);
        CHECK(cession_sid_valid(span, false) == (len >= 16 && len <= 256));
        CHECK(cession_sid_valid(span, true) == (len >= 1 && len <= 256));
    }
    CHECK(!cession_sid_valid(cession_span_of(NULL, 0), false));
    CHECK(!cession_sid_valid(cession_span_of(NULL, 0), true));
    /* Every byte at the first, a middle and the last place. */
    unsigned wrong = 0;
    for (int c = 0; c < 256; c++) {
        for (size_t at = 0; at < 43; at += 21) {
            sid[at] = (uint8_t)c;
            for (int any = 0; any < 2; any++)
                wrong += cession_sid_valid(cession_span_of(sid, 43), any) !=
                         reference_valid((uint8_t)c, any);
            sid[at] = 'a';
        }
    }
    CHECK_INT(wrong, 0);
    guard_release(&g);
}

/* ---- signatures ------------------------------------------------------------ */

/* Made with itsdangerous 2.2.0, for each key and value:
 *     itsdangerous.Signer(key, salt="flask-session", key_derivation="hmac").sign(value) */
#define ROW(literal)                                    \
    {                                                   \
        (const uint8_t *)(literal), sizeof(literal) - 1 \
    }
#define X16 "xxxxxxxxxxxxxxxx"
#define X256 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16
static const struct {
    cession_span key, value, signed_value;
} vectors[] = {
    {ROW("k"), ROW("abc"), ROW("abc.IMkw1s8YyAhNbQxUuwMDTLjZStg")},
    {ROW("secret"), ROW("A2tDZ9pXk0u5yQwE7rT1-_"),
     ROW("A2tDZ9pXk0u5yQwE7rT1-_.zF54nW-bUWX3NGfxS_8qdy4iZdE")},
    {ROW("secret"), ROW("with.dots.inside"), ROW("with.dots.inside.fDkfCM0RO2Mfy0uiQI8gMJ41AMk")},
    {ROW("a longer secret key that does not fit into one SHA-1 block of 64 bytes, whatever it "
         "says"),
     ROW("sssssssssssssssssssssssssssssssssssssssssss"),
     ROW("sssssssssssssssssssssssssssssssssssssssssss.recZWOXTVG6R1H0Tm_zZJeste44")},
    {ROW("\000\377"), ROW("0123456789abcdef"), ROW("0123456789abcdef.9mSFZf6DyU7iUpjZxuy0dDmGKTc")},
    {ROW("schl\303\274ssel"), ROW(X256), ROW(X256 ".aEUxeCJu32Fm576lx6sg3lLgCjY")},
    {ROW("secret"), ROW(""), ROW(".wnqEIb7AlLVbfFw5X1ZYOsiP4hs")},
};
#undef ROW
#define VECTORS (sizeof vectors / sizeof vectors[0])

static void test_signatures_are_those_of_itsdangerous(void)
{
    for (size_t i = 0; i < VECTORS; i++) {
        cession_signer *signer = NULL;
        REQUIRE_OK(cession_signer_new(&vectors[i].key, 1, &signer, NULL));
        cession_buf out;
        cession_buf_init(&out, 1000);
        for (int again = 0; again < 3; again++) {
            cession_buf_clear(&out);
            REQUIRE_OK(cession_signer_sign(signer, vectors[i].value, &out, NULL));
            CHECK_SPAN(cession_buf_span(&out), vectors[i].signed_value);
            cession_span value = {NULL, 0};
            size_t key = 99;
            CHECK_OK(cession_signer_verify(signer, vectors[i].signed_value, &value, &key, NULL));
            CHECK_SPAN(value, vectors[i].value);
            CHECK(value.data == vectors[i].signed_value.data);
            CHECK_INT(key, 0);
        }
        cession_buf_release(&out);
        cession_signer_free(signer);
    }
    cession_signer_free(NULL);
}

static void test_signer_with_several_keys(void)
{
    cession_span keys[] = {SPAN("new"), SPAN("secret"), SPAN("older"), SPAN("secret")};
    cession_signer *signer = NULL;
    REQUIRE_OK(cession_signer_new(keys, 4, &signer, NULL));
    cession_span value = {NULL, 0};
    size_t key = 99;
    CHECK_OK(cession_signer_verify(signer, vectors[2].signed_value, &value, &key, NULL));
    CHECK_INT(key, 1); /* the first that fits */
    CHECK_SPAN(value, SPAN("with.dots.inside"));

    value = SPAN("untouched");
    key = 99;
    CHECK_STATUS(cession_signer_verify(signer, vectors[0].signed_value, &value, &key, NULL),
                 CESSION_NOT_FOUND);
    CHECK_SPAN(value, SPAN("untouched"));
    CHECK_INT(key, 99);

    /* keys[0] signs, and appends. */
    cession_buf out;
    cession_buf_init(&out, 1000);
    REQUIRE_OK(cession_buf_append(&out, "a=", 2));
    REQUIRE_OK(cession_signer_sign(signer, SPAN("value"), &out, NULL));
    CHECK_OK(cession_signer_verify(signer, cession_span_of(out.data + 2, out.len - 2), &value, &key,
                                   NULL));
    CHECK_INT(key, 0);
    CHECK_SPAN(value, SPAN("value"));
    cession_buf_release(&out);
    cession_signer_free(signer);
}

/* Every byte of a signed value matters, every truncation fails, and each is
 * placed against the guard page. */
static void test_signer_refuses_any_change(void)
{
    cession_signer *signer = NULL;
    REQUIRE_OK(cession_signer_new(&vectors[1].key, 1, &signer, NULL));
    cession_span good = vectors[1].signed_value, value;
    guard g = {NULL, 0};
    uint8_t bytes[600];
    size_t key;
    unsigned accepted = 0;
    for (size_t at = 0; at < good.len; at++) {
        for (int c = 0; c < 256; c++) {
            memcpy(bytes, good.data, good.len);
            bytes[at] = (uint8_t)c;
            if (c == good.data[at])
                continue;
            cession_span span = cession_span_of(guard_place(&g, bytes, good.len), good.len);
            accepted += cession_signer_verify(signer, span, &value, &key, NULL) == CESSION_OK;
        }
    }
    for (size_t len = 0; len < good.len; len++) {
        cession_span span = cession_span_of(guard_place(&g, good.data, len), len);
        accepted += cession_signer_verify(signer, span, &value, &key, NULL) == CESSION_OK;
    }
    CHECK_INT(accepted, 0);
    CHECK_OK(cession_signer_verify(signer, good, &value, &key, NULL));

    memset(bytes, '.', sizeof bytes);
    for (size_t len = 0; len <= sizeof bytes; len++)
        CHECK_STATUS(cession_signer_verify(signer, cession_span_of(bytes, len), &value, &key, NULL),
                     CESSION_NOT_FOUND);
    CHECK_STATUS(cession_signer_verify(signer, cession_span_of(NULL, 0), &value, &key, NULL),
                 CESSION_NOT_FOUND);
    guard_release(&g);
    cession_signer_free(signer);
}

static void test_signer_limits(void)
{
    cession_signer *signer = NULL;
    cession_error err = CESSION_ERROR_INIT;
    cession_span keys[65];
    for (size_t i = 0; i < 65; i++)
        keys[i] = SPAN("key");
    CHECK_STATUS(cession_signer_new(keys, 0, &signer, &err), CESSION_E_INVALID);
    CHECK_STATUS(cession_signer_new(keys, 65, &signer, &err), CESSION_E_INVALID);
    keys[1] = SPAN("");
    CHECK_STATUS(cession_signer_new(keys, 2, &signer, &err), CESSION_E_INVALID);
    CHECK(signer == NULL);
    keys[1] = SPAN("key");
    REQUIRE_OK(cession_signer_new(keys, 64, &signer, &err));

    static uint8_t longest[CESSION_SIGNED_MAX];
    memset(longest, 'v', sizeof longest);
    size_t most = CESSION_SIGNED_MAX - 28;
    cession_buf out;
    cession_buf_init(&out, 1000);
    cession_span value;
    size_t key;
    CHECK_STATUS(cession_signer_sign(signer, cession_span_of(longest, most + 1), &out, &err),
                 CESSION_E_LIMIT);
    CHECK_INT(out.len, 0);
    REQUIRE_OK(cession_signer_sign(signer, cession_span_of(longest, most), &out, &err));
    CHECK_INT(out.len, CESSION_SIGNED_MAX);
    CHECK_OK(cession_signer_verify(signer, cession_buf_span(&out), &value, &key, &err));
    CHECK_INT(value.len, most);
    cession_buf_release(&out);

    cession_buf_init(&out, 20);
    CHECK_STATUS(cession_signer_sign(signer, SPAN("v"), &out, &err), CESSION_E_LIMIT);
    CHECK_INT(out.len, 0);
    cession_signer_free(signer);
}

static atomic_uint wrong_in_threads;

static void *signs_and_verifies(void *context)
{
    const cession_signer *signer = context;
    cession_buf out;
    cession_buf_init(&out, 1000);
    for (int i = 0; i < 3000; i++) {
        size_t row = i % 2 ? 1 : 2;
        cession_span value;
        size_t key;
        cession_buf_clear(&out);
        bool right = cession_signer_sign(signer, vectors[row].value, &out, NULL) == CESSION_OK &&
                     cession_span_eq(cession_buf_span(&out), vectors[row].signed_value) &&
                     cession_signer_verify(signer, vectors[row].signed_value, &value, &key, NULL) ==
                         CESSION_OK &&
                     key == 0;
        atomic_fetch_add(&wrong_in_threads, !right);
    }
    cession_buf_release(&out);
    return NULL;
}

static void test_signer_is_shared_by_threads(void)
{
    cession_span keys[] = {SPAN("secret"), SPAN("old")};
    cession_signer *signer = NULL;
    REQUIRE_OK(cession_signer_new(keys, 2, &signer, NULL));
    atomic_store(&wrong_in_threads, 0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        REQUIRE(pthread_create(&threads[i], NULL, signs_and_verifies, signer) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(atomic_load(&wrong_in_threads), 0);
    cession_signer_free(signer);
}

static void test_signer_without_memory(void)
{
    FAILING_ALLOC_LOOP(n)
    {
        cession_signer *signer = NULL;
        cession_buf out;
        cession_buf_init(&out, 1000);
        cession_span key = SPAN("secret");
        int rc = cession_signer_new(&key, 1, &signer, NULL);
        CHECK((rc == CESSION_OK) == (signer != NULL));
        if (rc == CESSION_OK)
            rc = cession_signer_sign(signer, SPAN("value"), &out, NULL);
        CHECK_STATUS(rc, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
        cession_buf_release(&out);
        cession_signer_free(signer);
    }
}

/* ---- the MessagePack codec ------------------------------------------------- */

static int view_of(cession_span value, cession_view *view)
{
    const cession_codec *codec = cession_codec_msgpack();
    return codec->view(codec, value, view, NULL);
}

static int canonical_of(cession_span value, cession_buf *out)
{
    const cession_codec *codec = cession_codec_msgpack();
    return codec->canonical(codec, value, out, NULL);
}

static int compose_of(const cession_view *view, cession_buf *out)
{
    const cession_codec *codec = cession_codec_msgpack();
    return codec->compose(codec, view->entries, view->count, out, NULL);
}

static void test_codec_constants(void)
{
    const cession_codec *codec = cession_codec_msgpack();
    CHECK_STR(codec->name, "msgpack");
    CHECK_SPAN(codec->meta_key, SPAN("\xab__cession__"));
    CHECK_SPAN(codec->permanent_key, SPAN("\xaa_permanent"));
    CHECK_SPAN(codec->tombstone, SPAN("\x81\xab__cession__\x81\xa1t\xc3"));
    cession_view view;
    cession_view_init(&view);
    CHECK_OK(view_of(codec->tombstone, &view));
    CHECK_INT(view.count, 1);
    CHECK_SPAN(view.entries[0].key, codec->meta_key);
    cession_view_release(&view);
    cession_view_release(NULL);
}

static void test_view_takes_apart(void)
{
    /* {"a": 1, 2: [1, {}], [1]: b"x", ext 5: nil} */
    cession_span value = SPAN("\x84\xa1\x61\x01\x02\x92\x01\x80\x91\x01\xc4\x01x\xd4\x05k\xc0");
    cession_view view;
    cession_view_init(&view);
    REQUIRE_OK(view_of(value, &view));
    REQUIRE(view.count == 4);
    CHECK_SPAN(view.entries[0].key, SPAN("\xa1\x61"));
    CHECK_SPAN(view.entries[0].value, SPAN("\x01"));
    CHECK_SPAN(view.entries[1].key, SPAN("\x02"));
    CHECK_SPAN(view.entries[1].value, SPAN("\x92\x01\x80"));
    CHECK_SPAN(view.entries[2].key, SPAN("\x91\x01"));
    CHECK_SPAN(view.entries[2].value, SPAN("\xc4\x01x"));
    CHECK_SPAN(view.entries[3].key, SPAN("\xd4\x05k"));
    CHECK_SPAN(view.entries[3].value, SPAN("\xc0"));
    CHECK(view.entries[0].key.data == value.data + 1); /* borrowed */

    cession_buf out;
    cession_buf_init(&out, TEST_MAX);
    CHECK_OK(compose_of(&view, &out));
    CHECK_SPAN(cession_buf_span(&out), value);

    /* A failure leaves the view as it was. */
    CHECK_STATUS(view_of(SPAN("\x82\xa1\x61\x01\xa1\x61\x02"), &view), CESSION_E_FORMAT);
    CHECK_INT(view.count, 4);
    /* Reusable. */
    CHECK_OK(view_of(SPAN("\x80"), &view));
    CHECK_INT(view.count, 0);
    CHECK_OK(compose_of(&view, &out));
    CHECK_SPAN(cession_buf_span(&out), SPAN("\x80"));
    cession_view_release(&view);
    cession_buf_release(&out);
}

/* Entries are canonical even where the bytes are not. */
static void test_view_shortens(void)
{
    cession_span value = SPAN("\xde\x00\x02\xd9\x01k\xd3\0\0\0\0\0\0\0\x05\xa1m\xca\x3f\xc0\0\0");
    cession_view view;
    cession_view_init(&view);
    REQUIRE_OK(view_of(value, &view));
    REQUIRE(view.count == 2);
    CHECK_SPAN(view.entries[0].key, SPAN("\xa1k"));
    CHECK_SPAN(view.entries[0].value, SPAN("\x05"));
    CHECK_SPAN(view.entries[1].value, SPAN("\xcb\x3f\xf8\0\0\0\0\0\0"));
    /* 1 and 1 in a longer form are the same key. */
    CHECK_STATUS(view_of(SPAN("\x82\x01\xc0\xcc\x01\xc0"), &view), CESSION_E_FORMAT);
    cession_view_release(&view);
}

static void test_codec_refuses(void)
{
    static const cession_span rows[] = {
#define ROW(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}
        ROW(""),
        ROW("\x90"),
        ROW("\xc0"),
        ROW("\xa1x"),
        ROW("{\"a\": 1}"),
        ROW("\x81\xa1x"),
        ROW("\x80\x80"), /* something follows */
        ROW("\x81\xa1\xff\xc0"),
        ROW("\xdf\xff\xff\xff\xff\xc0\xc0"),
        ROW("garbage"),
#undef ROW
    };
    cession_view view;
    cession_view_init(&view);
    cession_buf out;
    cession_buf_init(&out, TEST_MAX);
    REQUIRE_OK(cession_buf_set(&out, "untouched", 9));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_STATUS(view_of(rows[i], &view), CESSION_E_FORMAT);
        CHECK_STATUS(canonical_of(rows[i], &out), CESSION_E_FORMAT);
        CHECK_SPAN(cession_buf_span(&out), SPAN("untouched"));
    }
    cession_view_release(&view);
    cession_buf_release(&out);
}

static void test_canonical(void)
{
    static const struct {
        cession_span value, canonical;
    } rows[] = {
#define ROW(a, b)                               \
    {                                           \
        {(const uint8_t *)(a), sizeof(a) - 1},  \
        {                                       \
            (const uint8_t *)(b), sizeof(b) - 1 \
        }                                       \
    }
        ROW("\x80", "\x80"),
        ROW("\xdf\0\0\0\0", "\x80"),
        ROW("\x81\xa1k\x05", "\x81\xa1k\x05"),
        ROW("\x81\xda\0\1k\xdd\0\0\0\1\xde\0\1\xd9\1x\xd0\x05", "\x81\xa1k\x91\x81\xa1x\x05"),
        ROW("\x81\xa1k\xcf\0\0\0\0\0\0\1\0", "\x81\xa1k\xcd\1\0"),
        ROW("\x81\xa1k\xd3\xff\xff\xff\xff\xff\xff\xff\xff", "\x81\xa1k\xff"),
        ROW("\x81\xa1k\xc6\0\0\0\1z", "\x81\xa1k\xc4\1z"),
        ROW("\x81\xa1k\xc7\x01\x09z", "\x81\xa1k\xd4\x09z"),
        /* What lies in an extension is not looked at. */
        ROW("\x81\xa1k\xc8\x00\x03\x01\x91\xcc\x05", "\x81\xa1k\xc7\x03\x01\x91\xcc\x05"),
        /* Metadata stays. */
        ROW("\x81\xab__cession__\x81\xa1t\xc3", "\x81\xab__cession__\x81\xa1t\xc3"),
        /* Of repeated keys the place of the first and the value of the last. */
        ROW("\x83\xa1k\x01\xa1m\x02\xa1k\x03", "\x82\xa1k\x03\xa1m\x02"),
        ROW("\x82\x01\xa1x\xcc\x01\xa1y", "\x81\x01\xa1y"),
        ROW("\x81\xa1k\xc3", "\x81\xa1k\xc3"),
        ROW("\x83\xa1k\xc2\xa1m\xc0\xa1n\xcb\0\0\0\0\0\0\0\0",
            "\x83\xa1k\xc2\xa1m\xc0\xa1n\xcb\0\0\0\0\0\0\0\0"),
#undef ROW
    };
    cession_buf out;
    cession_buf_init(&out, TEST_MAX);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_OK(canonical_of(rows[i].value, &out));
        CHECK_SPAN(cession_buf_span(&out), rows[i].canonical);
    }
    cession_buf_release(&out);
}

/* A map of count keys "k<number>", the numbers stepping through a permutation;
 * repeat >= 0: the last key repeats that one. */
static void build_large(cession_buf *out, size_t count, long repeat, uint64_t value)
{
    REQUIRE_OK(ces_mp_map(out, count));
    for (size_t i = 0; i < count; i++) {
        size_t number = i * 7919 % count;
        if (repeat >= 0 && i == count - 1)
            number = (size_t)repeat * 7919 % count;
        char key[24];
        int len = snprintf(key, sizeof key, "k%zu", number);
        REQUIRE_OK(ces_mp_str(out, key, (size_t)len));
        REQUIRE_OK(ces_mp_uint(out, value + i));
    }
}

static void test_repeated_keys_at_every_place(void)
{
    static const size_t counts[] = {2, 15, 16, 17, 18, 100};
    cession_view view;
    cession_view_init(&view);
    cession_buf value, out;
    cession_buf_init(&value, TEST_MAX);
    cession_buf_init(&out, TEST_MAX);
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        size_t count = counts[c];
        for (long repeat = -1; repeat < (long)count - 1; repeat++) {
            cession_buf_clear(&value);
            build_large(&value, count, repeat, 0);
            CHECK_STATUS(view_of(cession_buf_span(&value), &view),
                         repeat < 0 ? CESSION_OK : CESSION_E_FORMAT);
            REQUIRE_OK(canonical_of(cession_buf_span(&value), &out));
            REQUIRE_OK(view_of(cession_buf_span(&out), &view));
            CHECK_INT(view.count, repeat < 0 ? count : count - 1);
            if (repeat >= 0) {
                const uint8_t *at = view.entries[repeat].value.data;
                ces_mp_item item;
                ces_mp_next(&at, &item);
                CHECK_INT(item.as.u, count - 1);
            }
        }
    }
    cession_view_release(&view);
    cession_buf_release(&value);
    cession_buf_release(&out);
}

static void test_number_of_keys_is_bounded(void)
{
    cession_view view;
    cession_view_init(&view);
    cession_buf value, out;
    cession_buf_init(&value, TEST_MAX);
    cession_buf_init(&out, TEST_MAX);
    build_large(&value, CESSION_ENTRIES_MAX, -1, 0);
    CHECK_OK(view_of(cession_buf_span(&value), &view));
    CHECK_INT(view.count, CESSION_ENTRIES_MAX);
    CHECK_STATUS(cession_view_add(&view, SPAN("\x01"), SPAN("\x01")), CESSION_E_LIMIT);
    CHECK_OK(compose_of(&view, &out));
    CHECK_SPAN(cession_buf_span(&out), cession_buf_span(&value));

    cession_buf_clear(&value);
    build_large(&value, CESSION_ENTRIES_MAX + 1, -1, 0);
    CHECK_STATUS(view_of(cession_buf_span(&value), &view), CESSION_E_FORMAT);
    CHECK_STATUS(canonical_of(cession_buf_span(&value), &out), CESSION_E_FORMAT);
    const cession_codec *codec = cession_codec_msgpack();
    CHECK_STATUS(codec->compose(codec, view.entries, CESSION_ENTRIES_MAX + 1, &out, NULL),
                 CESSION_E_LIMIT);
    cession_view_release(&view);
    cession_buf_release(&value);

    /* An output without room stays as it is. */
    cession_view_init(&view);
    REQUIRE_OK(cession_view_add(&view, SPAN("\xa1k"), SPAN("\xa3val")));
    cession_buf small;
    cession_buf_init(&small, 6);
    REQUIRE_OK(cession_buf_set(&small, "kept", 4));
    CHECK_STATUS(compose_of(&view, &small), CESSION_E_LIMIT);
    CHECK_SPAN(cession_buf_span(&small), SPAN("kept"));
    CHECK_STATUS(canonical_of(SPAN("\x81\xa1k\xa3val"), &small), CESSION_E_LIMIT);
    CHECK_SPAN(cession_buf_span(&small), SPAN("kept"));
    small.max = 7;
    CHECK_OK(compose_of(&view, &small));
    CHECK_SPAN(cession_buf_span(&small), SPAN("\x81\xa1k\xa3val"));
    cession_buf_release(&small);
    cession_view_release(&view);
    cession_buf_release(&out);
}

static void check_codec_truncated(const uint8_t *data, size_t len, size_t full, void *context)
{
    cession_view *view = context;
    cession_span span = cession_span_of(data, len);
    cession_buf out;
    cession_buf_init(&out, TEST_MAX);
    CHECK_STATUS(view_of(span, view), len == full ? CESSION_OK : CESSION_E_FORMAT);
    CHECK_STATUS(canonical_of(span, &out), len == full ? CESSION_OK : CESSION_E_FORMAT);
    cession_buf_release(&out);
}

static void test_codec_stays_inside(void)
{
    cession_view view;
    cession_view_init(&view);
    cession_buf value;
    cession_buf_init(&value, TEST_MAX);
    REQUIRE_OK(ces_mp_map(&value, 3));
    REQUIRE_OK(cession_buf_append(&value, "\xd9\x01k\xd3\0\0\0\0\0\0\0\x05", 12));
    REQUIRE_OK(ces_mp_str(&value, "nested", 6));
    REQUIRE_OK(cession_buf_append(&value, "\x92\x81\xa1x\xca\x3f\xc0\0\0\xc7\3\5abc", 15));
    REQUIRE_OK(ces_mp_str(&value, "text", 4));
    REQUIRE_OK(ces_mp_str(&value, "\xc3\xa4\xc3\xb6", 4));
    guard_truncations(value.data, value.len, check_codec_truncated, &view);
    cession_view_release(&view);
    cession_buf_release(&value);
}

static void check_codec_memory(cession_span value, bool repeated)
{
    FAILING_ALLOC_LOOP(n)
    {
        cession_view view;
        cession_view_init(&view);
        cession_buf out;
        cession_buf_init(&out, TEST_MAX);
        int rc = canonical_of(value, &out);
        if (rc != CESSION_OK)
            CHECK_INT(out.len, 0);
        if (rc == CESSION_OK && !repeated) {
            rc = view_of(value, &view);
            if (rc == CESSION_OK)
                rc = compose_of(&view, &out);
            if (rc == CESSION_OK)
                rc = cession_view_add(&view, SPAN("\x01"), SPAN("\x02"));
        }
        CHECK_STATUS(rc, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
        cession_view_release(&view);
        cession_buf_release(&out);
    }
}

static void test_codec_without_memory(void)
{
    cession_buf value;
    cession_buf_init(&value, TEST_MAX);
    build_large(&value, 100, -1, 0);
    check_codec_memory(cession_buf_span(&value), false);
    cession_buf_clear(&value);
    build_large(&value, 100, 3, 0);
    check_codec_memory(cession_buf_span(&value), true);
    cession_buf_release(&value);
    check_codec_memory(SPAN("\xde\x00\x02\xd9\x01k\xd3\0\0\0\0\0\0\0\x05\xa1m\xca\x3f\xc0\0\0"),
                       false);
}

static const harness_test tests[] = {
    HARNESS_TEST(base64url),
    HARNESS_TEST(generated_ids),
    HARNESS_TEST(generated_ids_use_the_alphabet),
    HARNESS_TEST(valid_ids),
    HARNESS_TEST(signatures_are_those_of_itsdangerous),
    HARNESS_TEST(signer_with_several_keys),
    HARNESS_TEST(signer_refuses_any_change),
    HARNESS_TEST(signer_limits),
    HARNESS_TEST(signer_is_shared_by_threads),
    HARNESS_TEST(signer_without_memory),
    HARNESS_TEST(codec_constants),
    HARNESS_TEST(view_takes_apart),
    HARNESS_TEST(view_shortens),
    HARNESS_TEST(codec_refuses),
    HARNESS_TEST(canonical),
    HARNESS_TEST(repeated_keys_at_every_place),
    HARNESS_TEST(number_of_keys_is_bounded),
    HARNESS_TEST(codec_stays_inside),
    HARNESS_TEST(codec_without_memory),
};
HARNESS_MAIN(tests)
