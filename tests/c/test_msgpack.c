/* MessagePack: writer, UTF-8, walker, reader. */
#include "harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/msgpack.h"
#include "failing_alloc.h"
#include "guard.h"

#define TEST_MAX (1u << 20)

/* ---- writer ---------------------------------------------------------------- */

static void test_integers_take_the_shortest_form(void)
{
    static const struct {
        int64_t value;
        cession_span bytes;
    } rows[] = {
#define ROW(value, literal)                                 \
    {                                                       \
        value,                                              \
        {                                                   \
            (const uint8_t *)(literal), sizeof(literal) - 1 \
        }                                                   \
    }
        ROW(0, "\x00"),
        ROW(1, "\x01"),
        ROW(127, "\x7f"),
        ROW(128, "\xcc\x80"),
        ROW(255, "\xcc\xff"),
        ROW(256, "\xcd\x01\x00"),
        ROW(65535, "\xcd\xff\xff"),
        ROW(65536, "\xce\x00\x01\x00\x00"),
        ROW(4294967295, "\xce\xff\xff\xff\xff"),
        ROW(4294967296, "\xcf\x00\x00\x00\x01\x00\x00\x00\x00"),
        ROW(INT64_MAX, "\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"),
        ROW(-1, "\xff"),
        ROW(-32, "\xe0"),
        ROW(-33, "\xd0\xdf"),
        ROW(-128, "\xd0\x80"),
        ROW(-129, "\xd1\xff\x7f"),
        ROW(-32768, "\xd1\x80\x00"),
        ROW(-32769, "\xd2\xff\xff\x7f\xff"),
        ROW(INT32_MIN, "\xd2\x80\x00\x00\x00"),
        ROW((int64_t)INT32_MIN - 1, "\xd3\xff\xff\xff\xff\x7f\xff\xff\xff"),
        ROW(INT64_MIN, "\xd3\x80\x00\x00\x00\x00\x00\x00\x00"),
#undef ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cession_buf buf;
        cession_buf_init(&buf, TEST_MAX);
        REQUIRE_OK(ces_mp_int(&buf, rows[i].value));
        CHECK_SPAN(cession_buf_span(&buf), rows[i].bytes);
        unsigned flags = 99;
        size_t len = 0;
        CHECK_OK(ces_mp_walk(buf.data, buf.len, &len, &flags));
        CHECK_INT(flags, 0);
        CHECK_INT(len, buf.len);
        const uint8_t *at = buf.data;
        ces_mp_item item;
        ces_mp_next(&at, &item);
        CHECK(at == buf.data + buf.len);
        if (rows[i].value < 0)
            CHECK(item.type == CES_MP_INT && item.as.i == rows[i].value);
        else
            CHECK(item.type == CES_MP_UINT && item.as.u == (uint64_t)rows[i].value);
        cession_buf_release(&buf);
    }
}

static void test_scalars(void)
{
    cession_buf buf;
    cession_buf_init(&buf, TEST_MAX);
    REQUIRE_OK(ces_mp_nil(&buf));
    REQUIRE_OK(ces_mp_bool(&buf, true));
    REQUIRE_OK(ces_mp_bool(&buf, false));
    REQUIRE_OK(ces_mp_uint(&buf, UINT64_MAX));
    REQUIRE_OK(ces_mp_double(&buf, 1.5));
    REQUIRE_OK(ces_mp_double(&buf, -0.0));
    CHECK_SPAN(cession_buf_span(&buf), SPAN("\xc0\xc3\xc2\xcf\xff\xff\xff\xff\xff\xff\xff\xff"
                                            "\xcb\x3f\xf8\0\0\0\0\0\0\xcb\x80\0\0\0\0\0\0\0"));
    const uint8_t *at = buf.data;
    ces_mp_item item;
    ces_mp_next(&at, &item);
    CHECK(item.type == CES_MP_NIL);
    ces_mp_next(&at, &item);
    CHECK(item.type == CES_MP_BOOL && item.as.b);
    ces_mp_next(&at, &item);
    CHECK(item.type == CES_MP_BOOL && !item.as.b);
    ces_mp_next(&at, &item);
    CHECK(item.type == CES_MP_UINT && item.as.u == UINT64_MAX);
    ces_mp_next(&at, &item);
    CHECK(item.type == CES_MP_DOUBLE && item.as.d == 1.5);
    ces_mp_next(&at, &item);
    CHECK(item.type == CES_MP_DOUBLE && item.as.d == 0 && signbit(item.as.d));
    CHECK(at == buf.data + buf.len);
    cession_buf_release(&buf);
}

/* Headers of strings, bytes, arrays, maps and extensions at every boundary. */
static void test_headers_take_the_shortest_form(void)
{
    static uint8_t zeros[65600];
    static const struct {
        size_t len;
        cession_span str, bin, array, map, ext;
    } rows[] = {
#define H(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}
        {0, H("\xa0"), H("\xc4\x00"), H("\x90"), H("\x80"), H("\xc7\x00\x07")},
        {1, H("\xa1"), H("\xc4\x01"), H("\x91"), H("\x81"), H("\xd4\x07")},
        {2, H("\xa2"), H("\xc4\x02"), H("\x92"), H("\x82"), H("\xd5\x07")},
        {3, H("\xa3"), H("\xc4\x03"), H("\x93"), H("\x83"), H("\xc7\x03\x07")},
        {4, H("\xa4"), H("\xc4\x04"), H("\x94"), H("\x84"), H("\xd6\x07")},
        {8, H("\xa8"), H("\xc4\x08"), H("\x98"), H("\x88"), H("\xd7\x07")},
        {15, H("\xaf"), H("\xc4\x0f"), H("\x9f"), H("\x8f"), H("\xc7\x0f\x07")},
        {16, H("\xb0"), H("\xc4\x10"), H("\xdc\x00\x10"), H("\xde\x00\x10"), H("\xd8\x07")},
        {17, H("\xb1"), H("\xc4\x11"), H("\xdc\x00\x11"), H("\xde\x00\x11"), H("\xc7\x11\x07")},
        {31, H("\xbf"), H("\xc4\x1f"), H("\xdc\x00\x1f"), H("\xde\x00\x1f"), H("\xc7\x1f\x07")},
        {32, H("\xd9\x20"), H("\xc4\x20"), H("\xdc\x00\x20"), H("\xde\x00\x20"), H("\xc7\x20\x07")},
        {255, H("\xd9\xff"), H("\xc4\xff"), H("\xdc\x00\xff"), H("\xde\x00\xff"),
         H("\xc7\xff\x07")},
        {256, H("\xda\x01\x00"), H("\xc5\x01\x00"), H("\xdc\x01\x00"), H("\xde\x01\x00"),
         H("\xc8\x01\x00\x07")},
        {65535, H("\xda\xff\xff"), H("\xc5\xff\xff"), H("\xdc\xff\xff"), H("\xde\xff\xff"),
         H("\xc8\xff\xff\x07")},
        {65536, H("\xdb\x00\x01\x00\x00"), H("\xc6\x00\x01\x00\x00"), H("\xdd\x00\x01\x00\x00"),
         H("\xdf\x00\x01\x00\x00"), H("\xc9\x00\x01\x00\x00\x07")},
#undef H
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n = rows[i].len;
        for (int kind = 0; kind < 6; kind++) {
            cession_buf buf;
            cession_buf_init(&buf, TEST_MAX);
            cession_span head = {NULL, 0};
            size_t payload = n, mark = 0;
            ces_mp_type type = CES_MP_NIL;
            switch (kind) {
            case 0:
                REQUIRE_OK(ces_mp_str(&buf, (const char *)zeros, n));
                head = rows[i].str;
                type = CES_MP_STR;
                break;
            case 1:
                REQUIRE_OK(ces_mp_bin(&buf, zeros, n));
                head = rows[i].bin;
                type = CES_MP_BIN;
                break;
            case 2:
                REQUIRE_OK(ces_mp_array(&buf, n));
                REQUIRE_OK(cession_buf_append(&buf, zeros, n));
                head = rows[i].array;
                type = CES_MP_ARRAY;
                break;
            case 3:
                payload = n * 2;
                REQUIRE_OK(ces_mp_map(&buf, n));
                for (int twice = 0; twice < 2; twice++)
                    REQUIRE_OK(cession_buf_append(&buf, zeros, n));
                head = rows[i].map;
                type = CES_MP_MAP;
                break;
            case 4:
                REQUIRE_OK(ces_mp_ext(&buf, 7, zeros, n));
                head = rows[i].ext;
                type = CES_MP_EXT;
                break;
            case 5: /* the same in place */
                REQUIRE_OK(ces_mp_ext_begin(&buf, &mark));
                REQUIRE_OK(cession_buf_append(&buf, zeros, n));
                REQUIRE_OK(ces_mp_ext_end(&buf, mark, 7));
                head = rows[i].ext;
                type = CES_MP_EXT;
                break;
            }
            CHECK_INT(buf.len, head.len + payload);
            CHECK_SPAN(cession_span_of(buf.data, head.len), head);
            size_t len = 0;
            unsigned flags = 99;
            CHECK_OK(ces_mp_walk(buf.data, buf.len, &len, &flags));
            CHECK_INT(len, buf.len);
            CHECK_INT(flags, type == CES_MP_EXT ? CES_MP_HAS_EXT : 0);
            const uint8_t *at = buf.data;
            ces_mp_item item;
            ces_mp_next(&at, &item);
            CHECK(item.type == type);
            if (type == CES_MP_ARRAY || type == CES_MP_MAP) {
                CHECK_INT(item.as.count, n);
                CHECK(at == buf.data + head.len);
            } else {
                CHECK_INT(item.as.bytes.len, n);
                CHECK(item.as.bytes.data == buf.data + head.len);
                CHECK(at == buf.data + buf.len);
            }
            if (type == CES_MP_EXT)
                CHECK_INT(item.ext_type, 7);
            at = buf.data;
            ces_mp_skip(&at);
            CHECK(at == buf.data + buf.len);
            cession_buf_release(&buf);
        }
    }
}

static void test_extensions_are_written_in_place(void)
{
    cession_buf buf;
    cession_buf_init(&buf, TEST_MAX);
    size_t outer, inner;
    REQUIRE_OK(ces_mp_array(&buf, 2));
    REQUIRE_OK(ces_mp_ext_begin(&buf, &outer));
    REQUIRE_OK(ces_mp_array(&buf, 2));
    REQUIRE_OK(ces_mp_ext_begin(&buf, &inner));
    REQUIRE_OK(ces_mp_array(&buf, 0));
    REQUIRE_OK(ces_mp_ext_end(&buf, inner, 2));
    REQUIRE_OK(ces_mp_str(&buf, "tail", 4));
    REQUIRE_OK(ces_mp_ext_end(&buf, outer, -1));
    REQUIRE_OK(ces_mp_int(&buf, 5));
    CHECK_SPAN(cession_buf_span(&buf), SPAN("\x92\xc7\x09\xff\x92\xd4\x02\x90\xa4tail\x05"));
    cession_buf_release(&buf);
}

static void test_writer_without_memory_or_room(void)
{
    FAILING_ALLOC_LOOP(n)
    {
        cession_buf buf;
        cession_buf_init(&buf, TEST_MAX);
        int rc = CESSION_OK;
        size_t mark = 0;
        for (int i = 0; rc == CESSION_OK && i < 400; i++) {
            switch (i % 11) {
            case 0:
                rc = ces_mp_nil(&buf);
                break;
            case 1:
                rc = ces_mp_bool(&buf, true);
                break;
            case 2:
                rc = ces_mp_int(&buf, -70000);
                break;
            case 3:
                rc = ces_mp_uint(&buf, 70000);
                break;
            case 4:
                rc = ces_mp_double(&buf, 0.1);
                break;
            case 5:
                rc = ces_mp_str(&buf, "text", 4);
                break;
            case 6:
                rc = ces_mp_bin(&buf, "bytes", 5);
                break;
            case 7:
                rc = ces_mp_array(&buf, 1000);
                break;
            case 8:
                rc = ces_mp_map(&buf, 100000);
                break;
            case 9:
                rc = ces_mp_ext(&buf, 5, "payload", 7);
                break;
            default:
                rc = ces_mp_ext_begin(&buf, &mark);
                if (rc == CESSION_OK)
                    rc = ces_mp_nil(&buf);
                if (rc == CESSION_OK)
                    rc = ces_mp_ext_end(&buf, mark, 3);
            }
        }
        CHECK_STATUS(rc, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
        cession_buf_release(&buf);
    }

    /* A header that fits exactly is written, one byte less is a limit. */
    for (size_t max = 0; max <= 5; max++) {
        cession_buf buf;
        cession_buf_init(&buf, max);
        CHECK_STATUS(ces_mp_str(&buf, "text", 4), max >= 5 ? CESSION_OK : CESSION_E_LIMIT);
        CHECK_INT(buf.len, max >= 5 ? 5 : 0);
        cession_buf_clear(&buf);
        CHECK_STATUS(ces_mp_int(&buf, -129), max >= 3 ? CESSION_OK : CESSION_E_LIMIT);
        cession_buf_clear(&buf);
        CHECK_STATUS(ces_mp_double(&buf, 1), CESSION_E_LIMIT);
        CHECK_STATUS(ces_mp_map(&buf, 16), max >= 3 ? CESSION_OK : CESSION_E_LIMIT);
        cession_buf_release(&buf);
    }
#if SIZE_MAX > UINT32_MAX
    cession_buf buf;
    cession_buf_init(&buf, SIZE_MAX);
    size_t too_many = (size_t)UINT32_MAX + 1;
    CHECK_STATUS(ces_mp_array(&buf, too_many), CESSION_E_LIMIT);
    CHECK_STATUS(ces_mp_map(&buf, too_many), CESSION_E_LIMIT);
    CHECK_STATUS(ces_mp_str(&buf, "", too_many), CESSION_E_LIMIT);
    CHECK_STATUS(ces_mp_bin(&buf, "", too_many), CESSION_E_LIMIT);
    CHECK_STATUS(ces_mp_ext(&buf, 1, "", too_many), CESSION_E_LIMIT);
    CHECK_INT(buf.len, 0);
    cession_buf_release(&buf);
#endif
}

/* ---- UTF-8 ----------------------------------------------------------------- */

/* Decodes and encodes again: slow, and written from the other direction than
 * the validator. */
static bool utf8_reference(const uint8_t *p, size_t len)
{
    size_t i = 0;
    while (i < len) {
        unsigned extra = p[i] < 0x80 ? 0 : p[i] >> 5 == 6 ? 1 : p[i] >> 4 == 14 ? 2 : 3;
        if (extra == 3 && p[i] >> 3 != 30)
            return false;
        if (len - i <= extra)
            return false;
        uint32_t point = extra == 0 ? p[i] : p[i] & (0x3fu >> extra);
        for (unsigned k = 1; k <= extra; k++) {
            if (p[i + k] >> 6 != 2)
                return false;
            point = point << 6 | (p[i + k] & 0x3f);
        }
        uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (point < least[extra] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
            return false;
        i += extra + 1;
    }
    return true;
}

/* All sequences of up to three bytes, and all four-byte sequences with every
 * lead and a set of telling continuations. */
static void test_utf8_agrees_with_decoding(void)
{
    unsigned wrong = 0;
    uint8_t text[4];
    for (unsigned a = 0; a < 256; a++) {
        text[0] = (uint8_t)a;
        wrong += ces_utf8_valid(text, 1) != utf8_reference(text, 1);
        for (unsigned b = 0; b < 256; b++) {
            text[1] = (uint8_t)b;
            wrong += ces_utf8_valid(text, 2) != utf8_reference(text, 2);
            if (a < 0xc0)
                continue;
            for (unsigned c = 0; c < 256; c++) {
                text[2] = (uint8_t)c;
                wrong += ces_utf8_valid(text, 3) != utf8_reference(text, 3);
                static const uint8_t last[] = {0x00, 0x41, 0x7f, 0x80, 0x8f,
                                               0x90, 0xbf, 0xc0, 0xc2, 0xff};
                if (a < 0xf0)
                    continue;
                for (size_t d = 0; d < sizeof last; d++) {
                    text[3] = last[d];
                    wrong += ces_utf8_valid(text, 4) != utf8_reference(text, 4);
                }
            }
        }
    }
    CHECK_INT(wrong, 0);
    CHECK(ces_utf8_valid(NULL, 0));
}

/* A bad byte is seen at every place of a text of every length, against the
 * guard page: whole words, the overlapping last one, the rest. */
static void test_utf8_sees_every_position(void)
{
    guard g = {NULL, 0};
    uint8_t text[70];
    unsigned wrong = 0;
    for (size_t len = 0; len <= sizeof text; len++) {
        memset(text, 'a', sizeof text);
        wrong += !ces_utf8_valid(guard_place(&g, text, len), len);
        for (size_t at = 0; at < len; at++) {
            text[at] = 0xff;
            wrong += ces_utf8_valid(guard_place(&g, text, len), len);
            text[at] = 0xc3; /* cut short, or a lead without its continuation */
            wrong += ces_utf8_valid(guard_place(&g, text, len), len);
            if (at + 1 < len) {
                text[at + 1] = 0xa4;
                wrong += !ces_utf8_valid(guard_place(&g, text, len), len);
                text[at + 1] = 'a';
            }
            text[at] = 'a';
        }
    }
    CHECK_INT(wrong, 0);
    guard_release(&g);
}

/* ---- walker ---------------------------------------------------------------- */

static int walk_span(cession_span bytes, size_t *ret_len, unsigned *ret_flags)
{
    return ces_mp_walk(bytes.data, bytes.len, ret_len, ret_flags);
}

static void test_longer_forms_are_seen(void)
{
    static const struct {
        cession_span bytes;
        bool not_short;
    } rows[] = {
#define ROW(flag, literal) {{(const uint8_t *)(literal), sizeof(literal) - 1}, flag}
        ROW(true, "\xcc\x7f"),
        ROW(false, "\xcc\x80"),
        ROW(true, "\xcd\x00\xff"),
        ROW(false, "\xcd\x01\x00"),
        ROW(true, "\xce\x00\x00\xff\xff"),
        ROW(false, "\xce\x00\x01\x00\x00"),
        ROW(true, "\xcf\x00\x00\x00\x00\xff\xff\xff\xff"),
        ROW(false, "\xcf\x00\x00\x00\x01\x00\x00\x00\x00"),
        ROW(true, "\xd0\x05"),
        ROW(true, "\xd0\xe0"),
        ROW(false, "\xd0\xdf"),
        ROW(true, "\xd1\x7f\xff"),
        ROW(true, "\xd1\xff\x80"),
        ROW(false, "\xd1\xff\x7f"),
        ROW(true, "\xd2\x7f\xff\xff\xff"),
        ROW(true, "\xd2\xff\xff\x80\x00"),
        ROW(false, "\xd2\xff\xff\x7f\xff"),
        ROW(true, "\xd3\x7f\xff\xff\xff\xff\xff\xff\xff"),
        ROW(true, "\xd3\xff\xff\xff\xff\x80\x00\x00\x00"),
        ROW(false, "\xd3\xff\xff\xff\xff\x7f\xff\xff\xff"),
        ROW(true, "\xca\x3f\xc0\x00\x00"),
        ROW(true, "\xd9\x01x"),
        ROW(true, "\xda\x00\x01x"),
        ROW(true, "\xdb\x00\x00\x00\x01x"),
        ROW(true, "\xc5\x00\x01x"),
        ROW(true, "\xc6\x00\x00\x00\x01x"),
        ROW(true, "\xc7\x01\x05x"),
        ROW(true, "\xc7\x10\x05xxxxxxxxxxxxxxxx"),
        ROW(false, "\xc7\x03\x05xxx"),
        ROW(true, "\xc8\x00\x03\x05xxx"),
        ROW(true, "\xc9\x00\x00\x00\x03\x05xxx"),
        ROW(true, "\xdc\x00\x01\xc0"),
        ROW(true, "\xdd\x00\x00\x00\x01\xc0"),
        ROW(true, "\xde\x00\x01\xc0\xc0"),
        ROW(true, "\xdf\x00\x00\x00\x01\xc0\xc0"),
        ROW(true, "\xdc\x00\x00"),
        ROW(true, "\xde\x00\x00"),
        ROW(true, "\x92\x01\xcc\x01"), /* anywhere inside counts */
#undef ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        unsigned flags = 0;
        size_t len = 0;
        CHECK_OK(walk_span(rows[i].bytes, &len, &flags));
        CHECK_INT(len, rows[i].bytes.len);
        CHECK_MSG(((flags & CES_MP_NOT_SHORT) != 0) == rows[i].not_short, "row %zu", i);
        const uint8_t *at = rows[i].bytes.data;
        ces_mp_skip(&at);
        CHECK_MSG(at == rows[i].bytes.data + len, "row %zu", i);
    }
}

/* The reader gives the same number whatever the form. */
static void test_reader_reads_longer_forms(void)
{
    static const struct {
        cession_span bytes;
        ces_mp_type type;
        int64_t number;
    } rows[] = {
#define ROW(type, number, literal) {{(const uint8_t *)(literal), sizeof(literal) - 1}, type, number}
        ROW(CES_MP_UINT, 5, "\xcc\x05"),
        ROW(CES_MP_UINT, 5, "\xcd\x00\x05"),
        ROW(CES_MP_UINT, 5, "\xce\x00\x00\x00\x05"),
        ROW(CES_MP_UINT, 5, "\xcf\x00\x00\x00\x00\x00\x00\x00\x05"),
        ROW(CES_MP_UINT, 5, "\xd0\x05"),
        ROW(CES_MP_UINT, 5, "\xd1\x00\x05"),
        ROW(CES_MP_UINT, 5, "\xd2\x00\x00\x00\x05"),
        ROW(CES_MP_UINT, 5, "\xd3\x00\x00\x00\x00\x00\x00\x00\x05"),
        ROW(CES_MP_INT, -5, "\xd0\xfb"),
        ROW(CES_MP_INT, -5, "\xd1\xff\xfb"),
        ROW(CES_MP_INT, -5, "\xd2\xff\xff\xff\xfb"),
        ROW(CES_MP_INT, -5, "\xd3\xff\xff\xff\xff\xff\xff\xff\xfb"),
        ROW(CES_MP_STR, 3, "\xd9\x03xyz"),
        ROW(CES_MP_STR, 3, "\xda\x00\x03xyz"),
        ROW(CES_MP_STR, 3, "\xdb\x00\x00\x00\x03xyz"),
        ROW(CES_MP_BIN, 3, "\xc5\x00\x03xyz"),
        ROW(CES_MP_BIN, 3, "\xc6\x00\x00\x00\x03xyz"),
        ROW(CES_MP_EXT, 3, "\xc7\x03\x05xyz"),
        ROW(CES_MP_EXT, 3, "\xc8\x00\x03\x05xyz"),
        ROW(CES_MP_EXT, 3, "\xc9\x00\x00\x00\x03\x05xyz"),
        ROW(CES_MP_ARRAY, 1, "\xdc\x00\x01"),
        ROW(CES_MP_ARRAY, 1, "\xdd\x00\x00\x00\x01"),
        ROW(CES_MP_MAP, 1, "\xde\x00\x01"),
        ROW(CES_MP_MAP, 1, "\xdf\x00\x00\x00\x01"),
#undef ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const uint8_t *at = rows[i].bytes.data;
        ces_mp_item item;
        memset(&item, 0, sizeof item);
        ces_mp_next(&at, &item);
        CHECK_MSG(item.type == rows[i].type, "row %zu", i);
        CHECK_MSG(at == rows[i].bytes.data + rows[i].bytes.len, "row %zu", i);
        switch (item.type) {
        case CES_MP_UINT:
            CHECK_INT(item.as.u, rows[i].number);
            break;
        case CES_MP_INT:
            CHECK_INT(item.as.i, rows[i].number);
            break;
        case CES_MP_ARRAY:
        case CES_MP_MAP:
            CHECK_INT(item.as.count, rows[i].number);
            break;
        default:
            CHECK_SPAN(cession_span_of(item.as.bytes.data, item.as.bytes.len), SPAN("xyz"));
            if (item.type == CES_MP_EXT)
                CHECK_INT(item.ext_type, 5);
        }
    }
    const uint8_t single[] = {0xca, 0x3f, 0xc0, 0, 0};
    const uint8_t *at = single;
    ces_mp_item item;
    ces_mp_next(&at, &item);
    CHECK(item.type == CES_MP_DOUBLE && item.as.d == 1.5 && at == single + 5);
}

/* Every code alone and every code with a body of zeros: skipping goes exactly as
 * far as walking. */
static void test_skip_goes_as_far_as_walk(void)
{
    uint8_t bytes[64] = {0};
    unsigned walked = 0;
    for (int code = 0; code < 256; code++) {
        for (uint8_t fill = 0; fill < 3; fill++) {
            memset(bytes, 0, sizeof bytes);
            bytes[0] = (uint8_t)code;
            for (size_t at = 1; at <= 8 && fill > 0; at = at * 2 + 1)
                bytes[at] = fill; /* lengths of 1 to 8 bytes end here and there */
            size_t len = 0;
            if (ces_mp_walk(bytes, sizeof bytes, &len, NULL) != CESSION_OK)
                continue;
            walked++;
            const uint8_t *at = bytes;
            ces_mp_skip(&at);
            CHECK_MSG(at == bytes + len, "code 0x%02x", (unsigned)code);
        }
    }
    CHECK(walked > 600);
}

static void test_walker_refuses(void)
{
    static const cession_span rows[] = {
#define ROW(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}
        ROW(""),
        ROW("\xc1"),
        ROW("\x91\xc1"),
        ROW("\x91"),
        ROW("\x81\xc0"),
        ROW("\xa2x"),
        ROW("\xa1\xff"),
        ROW("\xd9\x02\xc0\x80"),     /* overlong NUL */
        ROW("\xa3\xed\xa0\x80"),     /* a surrogate */
        ROW("\xdd\xff\xff\xff\xff"), /* counts against the bytes left */
        ROW("\xdf\xff\xff\xff\xff\xc0\xc0"),
        ROW("\xdf\x80\x00\x00\x00\xc0\xc0"),
        ROW("\xdb\xff\xff\xff\xff"),
        ROW("\xc6\xff\xff\xff\xff"),
        ROW("\xc9\xff\xff\xff\xff\x01"),
        ROW("\x82\xc0\xc0\xc0"),
#undef ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t len = 4711;
        unsigned flags = 4711;
        CHECK_STATUS(walk_span(rows[i], &len, &flags), CESSION_E_FORMAT);
        CHECK(len == 4711 && flags == 4711); /* untouched */
    }
    /* What follows an item is not its business. */
    size_t len = 0;
    CHECK_OK(walk_span(SPAN("\xa1x\xc1\xc1"), &len, NULL));
    CHECK_INT(len, 2);
    CHECK_OK(walk_span(SPAN("\x90"), NULL, NULL));
}

static void test_walker_bounds_the_depth(void)
{
    uint8_t deep[4 * CES_MP_DEPTH_MAX];
    static const uint8_t openers[] = {0x91, 0x81};
    for (size_t kind = 0; kind < sizeof openers; kind++) {
        for (size_t levels = CES_MP_DEPTH_MAX - 2; levels <= CES_MP_DEPTH_MAX + 2; levels++) {
            size_t len = 0;
            for (size_t i = 0; i < levels; i++) {
                deep[len++] = openers[kind];
                if (openers[kind] == 0x81)
                    deep[len++] = 0xc0; /* the key; the value nests */
            }
            deep[len++] = 0xc0;
            CHECK_STATUS(ces_mp_walk(deep, len, NULL, NULL),
                         levels <= CES_MP_DEPTH_MAX ? CESSION_OK : CESSION_E_FORMAT);
            deep[len - 1] = 0x90; /* an empty container is a level, too */
            CHECK_STATUS(ces_mp_walk(deep, len, NULL, NULL),
                         levels < CES_MP_DEPTH_MAX ? CESSION_OK : CESSION_E_FORMAT);
        }
    }
    /* Many levels in all, few at once. */
    cession_buf wide;
    cession_buf_init(&wide, TEST_MAX);
    REQUIRE_OK(ces_mp_array(&wide, 1000));
    for (int i = 0; i < 1000; i++)
        REQUIRE_OK(cession_buf_append(&wide, "\x91\x91\x90", 3));
    CHECK_OK(ces_mp_walk(wide.data, wide.len, NULL, NULL));
    cession_buf_release(&wide);
}

/* One item of every kind and form. */
static void build_sample(cession_buf *buf)
{
    static const char mixed[] = "h\xc3\xa4user \xf0\x9f\x8f\xa0 and more than thirty-one";
    REQUIRE_OK(ces_mp_map(buf, 6));
    REQUIRE_OK(ces_mp_str(buf, "name", 4));
    REQUIRE_OK(ces_mp_str(buf, mixed, sizeof mixed - 1));
    REQUIRE_OK(ces_mp_int(buf, -7));
    REQUIRE_OK(ces_mp_array(buf, 3));
    REQUIRE_OK(ces_mp_double(buf, 2.5));
    REQUIRE_OK(ces_mp_bin(buf, "\0\1\2", 3));
    REQUIRE_OK(ces_mp_nil(buf));
    REQUIRE_OK(ces_mp_ext(buf, 1, "\x92\1\2", 3));
    REQUIRE_OK(ces_mp_ext(buf, -1, "12345678", 8));
    REQUIRE_OK(ces_mp_bool(buf, true));
    REQUIRE_OK(ces_mp_uint(buf, UINT64_MAX));
    REQUIRE_OK(cession_buf_append(buf, "\xdc\x00\x01\xd3\0\0\0\0\0\0\0\1", 12));
    REQUIRE_OK(cession_buf_append(buf, "\xca\x3f\xc0\0\0", 5));
    REQUIRE_OK(cession_buf_append(buf, "\xc6\0\0\0\1x", 6));
    REQUIRE_OK(cession_buf_append(buf, "\xdf\0\0\0\1\xdb\0\0\0\1k\xc9\0\0\0\2\5zz", 19));
}

static void check_truncated(const uint8_t *data, size_t len, size_t full, void *context)
{
    (void)context;
    CHECK_STATUS(ces_mp_walk(data, len, NULL, NULL), len == full ? CESSION_OK : CESSION_E_FORMAT);
}

static void test_walker_stays_inside(void)
{
    cession_buf buf;
    cession_buf_init(&buf, TEST_MAX);
    build_sample(&buf);
    guard_truncations(buf.data, buf.len, check_truncated, NULL);

    /* Mutated and random bytes end at the guard page; what passes is skipped and
     * read to exactly the walked length. */
    guard g = {NULL, 0};
    harness_rng rng = {1};
    uint8_t bytes[256];
    unsigned passed = 0, wrong = 0;
    for (int round = 0; round < 60000; round++) {
        size_t len = harness_below(&rng, sizeof bytes);
        if (round % 2) {
            len = buf.len;
            memcpy(bytes, buf.data, len);
            for (uint64_t n = harness_below(&rng, 4) + 1; n > 0; n--)
                bytes[harness_below(&rng, len)] = (uint8_t)harness_random(&rng);
        } else {
            for (size_t i = 0; i < len; i++)
                bytes[i] = (uint8_t)harness_random(&rng);
        }
        const uint8_t *at = guard_place(&g, bytes, len);
        size_t walked = 0;
        if (ces_mp_walk(at, len, &walked, NULL) == CESSION_OK) {
            passed++;
            const uint8_t *end = at;
            ces_mp_skip(&end);
            wrong += (size_t)(end - at) != walked || walked == 0 || walked > len;
        }
    }
    CHECK_INT(wrong, 0);
    CHECK(passed > 1000);
    guard_release(&g);
    cession_buf_release(&buf);
}

static const harness_test tests[] = {
    HARNESS_TEST(integers_take_the_shortest_form),
    HARNESS_TEST(scalars),
    HARNESS_TEST(headers_take_the_shortest_form),
    HARNESS_TEST(extensions_are_written_in_place),
    HARNESS_TEST(writer_without_memory_or_room),
    HARNESS_TEST(utf8_agrees_with_decoding),
    HARNESS_TEST(utf8_sees_every_position),
    HARNESS_TEST(longer_forms_are_seen),
    HARNESS_TEST(reader_reads_longer_forms),
    HARNESS_TEST(skip_goes_as_far_as_walk),
    HARNESS_TEST(walker_refuses),
    HARNESS_TEST(walker_bounds_the_depth),
    HARNESS_TEST(walker_stays_inside),
};
HARNESS_MAIN(tests)
