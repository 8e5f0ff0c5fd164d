#include "base/msgpack.h"

#include "base/banned.h"

/* ---- bytes of the wire: big-endian ----------------------------------------- */

static inline uint16_t load16(const uint8_t *p)
{
    return (uint16_t)((p[0] << 8) | p[1]);
}

static inline uint32_t load32(const uint8_t *p)
{
    return ((uint32_t)p[0] << 24) | ((uint32_t)p[1] << 16) | ((uint32_t)p[2] << 8) | p[3];
}

static inline uint64_t load64(const uint8_t *p)
{
    return ((uint64_t)load32(p) << 32) | load32(p + 4);
}

static inline void store16(uint8_t *p, uint64_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static inline void store32(uint8_t *p, uint64_t value)
{
    store16(p, value >> 16);
    store16(p + 2, value);
}

static inline void store64(uint8_t *p, uint64_t value)
{
    store32(p, value >> 32);
    store32(p + 4, value);
}

/* ---- writer ---------------------------------------------------------------- */

#define HEADER_MAX 9u /* bytes of the longest header or number */

/* Room for more bytes; the test is inline because most calls pass it. */
static inline int room(cession_buf *out, size_t more)
{
    if (more <= out->cap - out->len)
        return CESSION_OK;
    return cession_buf_reserve(out, more);
}

/* A header of at most HEADER_MAX bytes, formed apart: near its maximum a buffer
 * may have room for this one and not for the longest. */
static inline int put(cession_buf *out, const uint8_t *head, size_t head_len)
{
    int rc = room(out, head_len);
    if (rc != CESSION_OK)
        return rc;
    memcpy(out->data + out->len, head, head_len);
    out->len += head_len;
    return CESSION_OK;
}

int ces_mp_nil(cession_buf *out)
{
    uint8_t code = 0xc0;
    return put(out, &code, 1);
}

int ces_mp_bool(cession_buf *out, bool value)
{
    uint8_t code = value ? 0xc3 : 0xc2;
    return put(out, &code, 1);
}

static inline size_t form_uint(uint8_t *p, uint64_t value)
{
    if (value < 0x80) {
        p[0] = (uint8_t)value;
        return 1;
    }
    if (value <= UINT8_MAX) {
        p[0] = 0xcc;
        p[1] = (uint8_t)value;
        return 2;
    }
    if (value <= UINT16_MAX) {
        p[0] = 0xcd;
        store16(p + 1, value);
        return 3;
    }
    if (value <= UINT32_MAX) {
        p[0] = 0xce;
        store32(p + 1, value);
        return 5;
    }
    p[0] = 0xcf;
    store64(p + 1, value);
    return 9;
}

static inline size_t form_negative(uint8_t *p, int64_t value)
{
    uint64_t bits = (uint64_t)value; /* two's complement, as the wire has it */
    if (value >= -32) {
        p[0] = (uint8_t)bits;
        return 1;
    }
    if (value >= INT8_MIN) {
        p[0] = 0xd0;
        p[1] = (uint8_t)bits;
        return 2;
    }
    if (value >= INT16_MIN) {
        p[0] = 0xd1;
        store16(p + 1, bits);
        return 3;
    }
    if (value >= INT32_MIN) {
        p[0] = 0xd2;
        store32(p + 1, bits);
        return 5;
    }
    p[0] = 0xd3;
    store64(p + 1, bits);
    return 9;
}

int ces_mp_uint(cession_buf *out, uint64_t value)
{
    uint8_t head[HEADER_MAX];
    return put(out, head, form_uint(head, value));
}

int ces_mp_int(cession_buf *out, int64_t value)
{
    if (value >= 0)
        return ces_mp_uint(out, (uint64_t)value);
    uint8_t head[HEADER_MAX];
    return put(out, head, form_negative(head, value));
}

int ces_mp_double(cession_buf *out, double value)
{
    uint8_t head[HEADER_MAX];
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    head[0] = 0xcb;
    store64(head + 1, bits);
    return put(out, head, sizeof head);
}

/* The header of a container or a byte string: fix form below fix_limit, then 8
 * (when there is one), 16 and 32 bits of length. */
struct header_forms {
    uint8_t fix, fix_limit; /* fix_limit 0: no fix form */
    uint8_t code8;          /* 0: no such form */
    uint8_t code16, code32;
};

static const struct header_forms str_forms = {0xa0, 32, 0xd9, 0xda, 0xdb};
static const struct header_forms bin_forms = {0, 0, 0xc4, 0xc5, 0xc6};
static const struct header_forms array_forms = {0x90, 16, 0, 0xdc, 0xdd};
static const struct header_forms map_forms = {0x80, 16, 0, 0xde, 0xdf};

static inline size_t form_header(uint8_t *p, const struct header_forms *forms, size_t len)
{
    if (len < forms->fix_limit) {
        p[0] = (uint8_t)(forms->fix | len);
        return 1;
    }
    if (len <= UINT8_MAX && forms->code8) {
        p[0] = forms->code8;
        p[1] = (uint8_t)len;
        return 2;
    }
    if (len <= UINT16_MAX) {
        p[0] = forms->code16;
        store16(p + 1, len);
        return 3;
    }
    p[0] = forms->code32;
    store32(p + 1, len);
    return 5;
}

static inline int write_bytes(cession_buf *out, const struct header_forms *forms, const void *data,
                              size_t len)
{
    if (len > UINT32_MAX)
        return CESSION_E_LIMIT;
    uint8_t head[HEADER_MAX];
    size_t head_len = form_header(head, forms, len);
    int rc = room(out, head_len + len);
    if (rc != CESSION_OK)
        return rc;
    uint8_t *at = out->data + out->len;
    memcpy(at, head, head_len);
    if (len > 0)
        memcpy(at + head_len, data, len);
    out->len += head_len + len;
    return CESSION_OK;
}

int ces_mp_str(cession_buf *out, const char *utf8, size_t len)
{
    return write_bytes(out, &str_forms, utf8, len);
}

int ces_mp_bin(cession_buf *out, const void *data, size_t len)
{
    return write_bytes(out, &bin_forms, data, len);
}

static inline int write_count(cession_buf *out, const struct header_forms *forms, size_t count)
{
    if (count > UINT32_MAX)
        return CESSION_E_LIMIT;
    uint8_t head[HEADER_MAX];
    return put(out, head, form_header(head, forms, count));
}

int ces_mp_array(cession_buf *out, size_t count)
{
    return write_count(out, &array_forms, count);
}

int ces_mp_map(cession_buf *out, size_t count)
{
    return write_count(out, &map_forms, count);
}

static size_t form_ext_header(uint8_t *p, int8_t type, size_t len)
{
    size_t n;
    switch (len) {
    case 1:
    case 2:
    case 4:
    case 8:
    case 16:
        p[0] = (uint8_t)(0xd4 + __builtin_ctzll(len));
        n = 1;
        break;
    default:
        if (len <= UINT8_MAX) {
            p[0] = 0xc7;
            p[1] = (uint8_t)len;
            n = 2;
        } else if (len <= UINT16_MAX) {
            p[0] = 0xc8;
            store16(p + 1, len);
            n = 3;
        } else {
            p[0] = 0xc9;
            store32(p + 1, len);
            n = 5;
        }
    }
    p[n] = (uint8_t)type;
    return n + 1;
}

int ces_mp_ext(cession_buf *out, int8_t type, const void *data, size_t len)
{
    size_t mark;
    int rc = ces_mp_ext_begin(out, &mark);
    if (rc != CESSION_OK)
        return rc;
    if (len > UINT32_MAX)
        return CESSION_E_LIMIT;
    uint8_t head[HEADER_MAX];
    size_t head_len = form_ext_header(head, type, len);
    rc = room(out, head_len + len);
    if (rc != CESSION_OK)
        return rc;
    memcpy(out->data + mark, head, head_len);
    if (len > 0)
        memcpy(out->data + mark + head_len, data, len);
    out->len = mark + head_len + len;
    return CESSION_OK;
}

int ces_mp_ext_begin(cession_buf *out, size_t *ret_mark)
{
    *ret_mark = out->len;
    return CESSION_OK;
}

int ces_mp_ext_end(cession_buf *out, size_t mark, int8_t type)
{
    size_t len = out->len - mark;
    if (len > UINT32_MAX)
        return CESSION_E_LIMIT;
    uint8_t head[HEADER_MAX];
    size_t head_len = form_ext_header(head, type, len);
    int rc = room(out, head_len);
    if (rc != CESSION_OK)
        return rc;
    uint8_t *at = out->data + mark;
    memmove(at + head_len, at, len);
    memcpy(at, head, head_len);
    out->len += head_len;
    return CESSION_OK;
}

/* ---- UTF-8 ----------------------------------------------------------------- */

#define HIGH_BITS 0x8080808080808080u

static inline uint64_t word_at(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* Most text is ASCII: whole words, the last one overlapping. */
static inline bool all_ascii(const uint8_t *p, size_t len)
{
    uint64_t seen = 0;
    if (len >= 8) {
        size_t last = len - 8;
        for (size_t i = 0; i < last; i += 8)
            seen |= word_at(p + i);
        seen |= word_at(p + last);
    } else {
        for (size_t i = 0; i < len; i++)
            seen |= p[i];
    }
    return (seen & HIGH_BITS) == 0;
}

static inline bool continues(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/* The Unicode Standard, table 3-7: well-formed UTF-8 byte sequences. */
static bool utf8_mixed(const uint8_t *p, size_t len)
{
    const uint8_t *end = p + len;
    while (p < end) {
        if (end - p >= 8 && (word_at(p) & HIGH_BITS) == 0) {
            p += 8;
            continue;
        }
        uint8_t lead = *p;
        if (lead < 0x80) {
            p += 1;
        } else if (lead < 0xc2) {
            return false; /* a continuation byte, or an overlong form of ASCII */
        } else if (lead < 0xe0) {
            if (end - p < 2 || !continues(p[1]))
                return false;
            p += 2;
        } else if (lead < 0xf0) {
            if (end - p < 3 || !continues(p[1]) || !continues(p[2]) ||
                (lead == 0xe0 && p[1] < 0xa0) || /* overlong */
                (lead == 0xed && p[1] > 0x9f))   /* surrogates */
                return false;
            p += 3;
        } else if (lead < 0xf5) {
            if (end - p < 4 || !continues(p[1]) || !continues(p[2]) || !continues(p[3]) ||
                (lead == 0xf0 && p[1] < 0x90) || /* overlong */
                (lead == 0xf4 && p[1] > 0x8f))   /* past U+10FFFF */
                return false;
            p += 4;
        } else {
            return false;
        }
    }
    return true;
}

static inline bool utf8_ok(const uint8_t *data, size_t len)
{
    return all_ascii(data, len) || utf8_mixed(data, len);
}

bool ces_utf8_valid(const uint8_t *data, size_t len)
{
    return utf8_ok(data, len);
}

/* ---- walker ---------------------------------------------------------------- */

int ces_mp_walk(const uint8_t *data, size_t len, size_t *ret_len, unsigned *ret_flags)
{
    /* left: items still to come at this level; above: the same of the levels
     * around it. Every item takes at least one byte, so counts that pass the
     * test against the bytes left bound the work by len. */
    size_t above[CES_MP_DEPTH_MAX];
    size_t depth = 0, left = 1;
    const uint8_t *p = data, *end = data + len;
    unsigned flags = 0;

    for (;;) {
        while (left == 0) {
            if (depth == 0) {
                if (ret_len)
                    *ret_len = (size_t)(p - data);
                if (ret_flags)
                    *ret_flags = flags;
                return CESSION_OK;
            }
            left = above[--depth];
        }
        left--;
        if (p == end)
            return CESSION_E_FORMAT;
        size_t have = (size_t)(end - p) - 1;
        uint8_t code = *p++;
        size_t n; /* payload bytes, or items */
        bool not_short = false;

        /* A length of w bytes at p, and the step over it. */
#define NEED(bytes)                  \
    do {                             \
        if (have < (bytes))          \
            return CESSION_E_FORMAT; \
    } while (0)
#define TAKE(bytes) (p += (bytes), have -= (bytes))

        if (code < 0x80 || code >= 0xe0)
            continue; /* fixint */
        if (code >= 0xa0 && code < 0xc0) {
            n = code & 0x1f;
            goto string;
        }
        if (code < 0x90) {
            n = code & 0x0f;
            goto map;
        }
        if (code < 0xa0) {
            n = code & 0x0f;
            goto array;
        }
        switch (code) {
        case 0xc0: /* nil */
        case 0xc2: /* false */
        case 0xc3: /* true */
            continue;
        case 0xc4: /* bin 8 */
            NEED(1);
            n = p[0];
            TAKE(1);
            goto opaque;
        case 0xc5: /* bin 16 */
            NEED(2);
            n = load16(p);
            TAKE(2);
            not_short = n <= UINT8_MAX;
            goto opaque;
        case 0xc6: /* bin 32 */
            NEED(4);
            n = load32(p);
            TAKE(4);
            not_short = n <= UINT16_MAX;
            goto opaque;
        case 0xc7: /* ext 8 */
            NEED(2);
            n = p[0];
            TAKE(2);
            not_short = n == 1 || n == 2 || n == 4 || n == 8 || n == 16;
            goto extension;
        case 0xc8: /* ext 16 */
            NEED(3);
            n = load16(p);
            TAKE(3);
            not_short = n <= UINT8_MAX;
            goto extension;
        case 0xc9: /* ext 32 */
            NEED(5);
            n = load32(p);
            TAKE(5);
            not_short = n <= UINT16_MAX;
            goto extension;
        case 0xca: /* float 32 */
            NEED(4);
            TAKE(4);
            flags |= CES_MP_NOT_SHORT;
            continue;
        case 0xcb: /* float 64 */
            NEED(8);
            TAKE(8);
            continue;
        case 0xcc: /* uint 8 */
            NEED(1);
            not_short = p[0] < 0x80;
            TAKE(1);
            break;
        case 0xcd: /* uint 16 */
            NEED(2);
            not_short = load16(p) <= UINT8_MAX;
            TAKE(2);
            break;
        case 0xce: /* uint 32 */
            NEED(4);
            not_short = load32(p) <= UINT16_MAX;
            TAKE(4);
            break;
        case 0xcf: /* uint 64 */
            NEED(8);
            not_short = load64(p) <= UINT32_MAX;
            TAKE(8);
            break;
        case 0xd0: /* int 8 */
            NEED(1);
            not_short = (int8_t)p[0] >= -32;
            TAKE(1);
            break;
        case 0xd1: /* int 16 */
            NEED(2);
            not_short = (int16_t)load16(p) >= INT8_MIN;
            TAKE(2);
            break;
        case 0xd2: /* int 32 */
            NEED(4);
            not_short = (int32_t)load32(p) >= INT16_MIN;
            TAKE(4);
            break;
        case 0xd3: /* int 64 */
            NEED(8);
            not_short = (int64_t)load64(p) >= INT32_MIN;
            TAKE(8);
            break;
        case 0xd4: /* fixext 1, 2, 4, 8, 16 */
        case 0xd5:
        case 0xd6:
        case 0xd7:
        case 0xd8:
            NEED(1);
            n = (size_t)1 << (code - 0xd4);
            TAKE(1);
            goto extension;
        case 0xd9: /* str 8 */
            NEED(1);
            n = p[0];
            TAKE(1);
            not_short = n < 32;
            goto string;
        case 0xda: /* str 16 */
            NEED(2);
            n = load16(p);
            TAKE(2);
            not_short = n <= UINT8_MAX;
            goto string;
        case 0xdb: /* str 32 */
            NEED(4);
            n = load32(p);
            TAKE(4);
            not_short = n <= UINT16_MAX;
            goto string;
        case 0xdc: /* array 16 */
            NEED(2);
            n = load16(p);
            TAKE(2);
            not_short = n < 16;
            goto array;
        case 0xdd: /* array 32 */
            NEED(4);
            n = load32(p);
            TAKE(4);
            not_short = n <= UINT16_MAX;
            goto array;
        case 0xde: /* map 16 */
            NEED(2);
            n = load16(p);
            TAKE(2);
            not_short = n < 16;
            goto map;
        case 0xdf: /* map 32 */
            NEED(4);
            n = load32(p);
            TAKE(4);
            not_short = n <= UINT16_MAX;
            goto map;
        default: /* 0xc1 is never used */
            return CESSION_E_FORMAT;
        }
        if (not_short)
            flags |= CES_MP_NOT_SHORT;
        continue;

    extension:
        flags |= CES_MP_HAS_EXT;
    opaque:
        NEED(n);
        p += n;
        if (not_short)
            flags |= CES_MP_NOT_SHORT;
        continue;

    string:
        NEED(n);
        if (!utf8_ok(p, n))
            return CESSION_E_FORMAT;
        p += n;
        if (not_short)
            flags |= CES_MP_NOT_SHORT;
        continue;

    map:
        NEED(n);
        n *= 2; /* cannot overflow: n is at most 32 bits and the bytes left */
    array:
        NEED(n);
        if (depth == CES_MP_DEPTH_MAX)
            return CESSION_E_FORMAT;
        if (not_short)
            flags |= CES_MP_NOT_SHORT;
        above[depth++] = left;
        left = n;
#undef NEED
#undef TAKE
    }
}

/* ---- reader ---------------------------------------------------------------- */

static inline void set_bytes(ces_mp_item *item, ces_mp_type type, const uint8_t *data, size_t len)
{
    item->type = type;
    item->as.bytes.data = data;
    item->as.bytes.len = len;
}

static inline void set_count(ces_mp_item *item, ces_mp_type type, size_t count)
{
    item->type = type;
    item->as.count = count;
}

static inline void set_uint(ces_mp_item *item, uint64_t value)
{
    item->type = CES_MP_UINT;
    item->as.u = value;
}

static inline void set_int(ces_mp_item *item, int64_t value)
{
    if (value >= 0) {
        set_uint(item, (uint64_t)value);
        return;
    }
    item->type = CES_MP_INT;
    item->as.i = value;
}

void ces_mp_next(const uint8_t **at, ces_mp_item *ret_item)
{
    const uint8_t *p = *at;
    uint8_t code = *p++;
    size_t n;

    if (code < 0x80) {
        set_uint(ret_item, code);
    } else if (code < 0x90) {
        set_count(ret_item, CES_MP_MAP, code & 0x0f);
    } else if (code < 0xa0) {
        set_count(ret_item, CES_MP_ARRAY, code & 0x0f);
    } else if (code < 0xc0) {
        n = code & 0x1f;
        set_bytes(ret_item, CES_MP_STR, p, n);
        p += n;
    } else if (code >= 0xe0) {
        set_int(ret_item, (int8_t)code);
    } else {
        switch (code) {
        case 0xc2:
        case 0xc3:
            ret_item->type = CES_MP_BOOL;
            ret_item->as.b = code == 0xc3;
            break;
        case 0xc4:
            n = p[0];
            set_bytes(ret_item, CES_MP_BIN, p + 1, n);
            p += 1 + n;
            break;
        case 0xc5:
            n = load16(p);
            set_bytes(ret_item, CES_MP_BIN, p + 2, n);
            p += 2 + n;
            break;
        case 0xc6:
            n = load32(p);
            set_bytes(ret_item, CES_MP_BIN, p + 4, n);
            p += 4 + n;
            break;
        case 0xc7:
            n = p[0];
            ret_item->ext_type = (int8_t)p[1];
            set_bytes(ret_item, CES_MP_EXT, p + 2, n);
            p += 2 + n;
            break;
        case 0xc8:
            n = load16(p);
            ret_item->ext_type = (int8_t)p[2];
            set_bytes(ret_item, CES_MP_EXT, p + 3, n);
            p += 3 + n;
            break;
        case 0xc9:
            n = load32(p);
            ret_item->ext_type = (int8_t)p[4];
            set_bytes(ret_item, CES_MP_EXT, p + 5, n);
            p += 5 + n;
            break;
        case 0xca: {
            uint32_t bits = load32(p);
            float value;
            memcpy(&value, &bits, sizeof value);
            ret_item->type = CES_MP_DOUBLE;
            ret_item->as.d = (double)value;
            p += 4;
            break;
        }
        case 0xcb: {
            uint64_t bits = load64(p);
            ret_item->type = CES_MP_DOUBLE;
            memcpy(&ret_item->as.d, &bits, sizeof bits);
            p += 8;
            break;
        }
        case 0xcc:
            set_uint(ret_item, p[0]);
            p += 1;
            break;
        case 0xcd:
            set_uint(ret_item, load16(p));
            p += 2;
            break;
        case 0xce:
            set_uint(ret_item, load32(p));
            p += 4;
            break;
        case 0xcf:
            set_uint(ret_item, load64(p));
            p += 8;
            break;
        case 0xd0:
            set_int(ret_item, (int8_t)p[0]);
            p += 1;
            break;
        case 0xd1:
            set_int(ret_item, (int16_t)load16(p));
            p += 2;
            break;
        case 0xd2:
            set_int(ret_item, (int32_t)load32(p));
            p += 4;
            break;
        case 0xd3:
            set_int(ret_item, (int64_t)load64(p));
            p += 8;
            break;
        case 0xd4:
        case 0xd5:
        case 0xd6:
        case 0xd7:
        case 0xd8:
            n = (size_t)1 << (code - 0xd4);
            ret_item->ext_type = (int8_t)p[0];
            set_bytes(ret_item, CES_MP_EXT, p + 1, n);
            p += 1 + n;
            break;
        case 0xd9:
            n = p[0];
            set_bytes(ret_item, CES_MP_STR, p + 1, n);
            p += 1 + n;
            break;
        case 0xda:
            n = load16(p);
            set_bytes(ret_item, CES_MP_STR, p + 2, n);
            p += 2 + n;
            break;
        case 0xdb:
            n = load32(p);
            set_bytes(ret_item, CES_MP_STR, p + 4, n);
            p += 4 + n;
            break;
        case 0xdc:
            set_count(ret_item, CES_MP_ARRAY, load16(p));
            p += 2;
            break;
        case 0xdd:
            set_count(ret_item, CES_MP_ARRAY, load32(p));
            p += 4;
            break;
        case 0xde:
            set_count(ret_item, CES_MP_MAP, load16(p));
            p += 2;
            break;
        case 0xdf:
            set_count(ret_item, CES_MP_MAP, load32(p));
            p += 4;
            break;
        default: /* 0xc0; 0xc1 does not pass the walker */
            ret_item->type = CES_MP_NIL;
            break;
        }
    }
    *at = p;
}

/* Bytes behind the code of an item of no variable length; VARIABLE: see the switch. */
#define VARIABLE 0xff
static const uint8_t fixed_lengths[0xe0 - 0xc0] = {
    0, 0, 0,  0,        VARIABLE, VARIABLE, VARIABLE, VARIABLE, VARIABLE, VARIABLE, 4,
    8, 1, 2,  4,        8,        1,        2,        4,        8,        2,        3,
    5, 9, 17, VARIABLE, VARIABLE, VARIABLE, VARIABLE, VARIABLE, VARIABLE, VARIABLE};

void ces_mp_skip(const uint8_t **at)
{
    /* What is left needs no levels here: all items count alike. */
    const uint8_t *p = *at;
    size_t left = 1;
    while (left > 0) {
        uint8_t code = *p++;
        left--;
        if (code < 0x80 || code >= 0xe0)
            continue;
        if (code >= 0xa0 && code < 0xc0) {
            p += code & 0x1f;
        } else if (code < 0x90) {
            left += 2 * (size_t)(code & 0x0f);
        } else if (code < 0xa0) {
            left += code & 0x0f;
        } else if (fixed_lengths[code - 0xc0] != VARIABLE) {
            p += fixed_lengths[code - 0xc0];
        } else {
            switch (code) {
            case 0xc4:
            case 0xd9:
                p += 1 + (size_t)p[0];
                break;
            case 0xc5:
            case 0xda:
                p += 2 + (size_t)load16(p);
                break;
            case 0xc6:
            case 0xdb:
                p += 4 + (size_t)load32(p);
                break;
            case 0xc7:
                p += 2 + (size_t)p[0];
                break;
            case 0xc8:
                p += 3 + (size_t)load16(p);
                break;
            case 0xc9:
                p += 5 + (size_t)load32(p);
                break;
            case 0xdc:
                left += load16(p);
                p += 2;
                break;
            case 0xdd:
                left += load32(p);
                p += 4;
                break;
            case 0xde:
                left += 2 * (size_t)load16(p);
                p += 2;
                break;
            default: /* 0xdf */
                left += 2 * (size_t)load32(p);
                p += 4;
                break;
            }
        }
    }
    *at = p;
}
