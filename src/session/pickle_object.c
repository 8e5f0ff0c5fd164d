/* What CPython's picklers write for objects of a few types, recognized by shape.
 * The shapes were taken from CPython's own output for protocols 0 to 5:
 *
 *     set, frozenset         callable([items])                    protocols 0 to 3
 *     bytes                  _codecs.encode(text, 'latin1'), bytes()      0 to 2
 *     bytearray              bytearray(), (bytes), (text, 'latin-1')      0 to 4
 *     datetime, time, date   callable(bytes) or callable(bytes, timezone)
 *     timedelta              callable(days, seconds, microseconds)
 *     timezone               callable(timedelta) or callable(timedelta, name)
 *     Decimal                callable(text)
 *     OrderedDict            callable(), then items are set
 *     UUID                   new object, then its state {'int': ...}
 *     Markup                 new object of (text)
 *
 * where "new object" is copyreg._reconstructor(cls, base, state) in protocols 0 and
 * 1 and NEWOBJ from 2 on. Names of Python 2 stand for those of 3 below protocol 3. */
#include "session/pickle_impl.h"

#include "base/msgpack.h"
#include "base/banned.h"

static const struct {
    const char *module, *name;
    ces_pickle_global id;
} globals[] = {
    {"builtins", "set", CES_PG_SET},
    {"__builtin__", "set", CES_PG_SET},
    {"builtins", "frozenset", CES_PG_FROZENSET},
    {"__builtin__", "frozenset", CES_PG_FROZENSET},
    {"builtins", "bytes", CES_PG_BYTES},
    {"__builtin__", "bytes", CES_PG_BYTES},
    {"builtins", "bytearray", CES_PG_BYTEARRAY},
    {"__builtin__", "bytearray", CES_PG_BYTEARRAY},
    {"__builtin__", "object", CES_PG_OBJECT},
    {"builtins", "object", CES_PG_OBJECT},
    {"__builtin__", "unicode", CES_PG_STR},
    {"builtins", "str", CES_PG_STR},
    {"_codecs", "encode", CES_PG_ENCODE},
    {"copy_reg", "_reconstructor", CES_PG_RECONSTRUCTOR},
    {"copyreg", "_reconstructor", CES_PG_RECONSTRUCTOR},
    {"collections", "OrderedDict", CES_PG_ORDEREDDICT},
    {"datetime", "datetime", CES_PG_DATETIME},
    {"datetime", "date", CES_PG_DATE},
    {"datetime", "time", CES_PG_TIME},
    {"datetime", "timedelta", CES_PG_TIMEDELTA},
    {"datetime", "timezone", CES_PG_TIMEZONE},
    {"decimal", "Decimal", CES_PG_DECIMAL},
    {"uuid", "UUID", CES_PG_UUID},
    {"markupsafe", "Markup", CES_PG_MARKUP},
};

int ces_pickle_find_global(ces_pickle *p, cession_span module, cession_span name,
                           uint32_t *ret_node)
{
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++) {
        if (cession_span_eq(name, cession_span_str(globals[i].name)) &&
            cession_span_eq(module, cession_span_str(globals[i].module))) {
            int rc = ces_pickle_add(p, CES_PK_GLOBAL, ret_node);
            if (rc == CESSION_OK)
                p->nodes[*ret_node].as.u = globals[i].id;
            return rc;
        }
    }
    return CESSION_E_FORMAT;
}

static bool is_global(const ces_pickle *p, uint32_t node, ces_pickle_global id)
{
    return p->nodes[node].kind == CES_PK_GLOBAL && p->nodes[node].as.u == id;
}

static bool is_text(const ces_pickle *p, uint32_t node, const char *text)
{
    return p->nodes[node].kind == CES_PK_STR &&
           cession_span_eq(ces_pickle_bytes(p, &p->nodes[node]), cession_span_str(text));
}

/* Another view of the same bytes. */
static int add_bytes_of(ces_pickle *p, ces_pickle_kind kind, uint32_t source, uint32_t *ret_node)
{
    uint32_t node;
    int rc = ces_pickle_add(p, kind, &node);
    if (rc != CESSION_OK)
        return rc;
    p->nodes[node].in_scratch = p->nodes[source].in_scratch;
    p->nodes[node].as.bytes = p->nodes[source].as.bytes;
    *ret_node = node;
    return CESSION_OK;
}

static int add_scratch(ces_pickle *p, ces_pickle_kind kind, size_t start, uint32_t *ret_node)
{
    uint32_t node;
    int rc = ces_pickle_add(p, kind, &node);
    if (rc != CESSION_OK)
        return rc;
    p->nodes[node].in_scratch = true;
    p->nodes[node].as.bytes.at = (uint32_t)start;
    p->nodes[node].as.bytes.len = (uint32_t)(p->scratch.len - start);
    *ret_node = node;
    return CESSION_OK;
}

int ces_pickle_integer(ces_pickle *p, bool negative, const uint8_t *magnitude, size_t len,
                       uint32_t *ret_node)
{
    while (len > 0 && *magnitude == 0) {
        magnitude++;
        len--;
    }
    const uint64_t lowest = (uint64_t)1 << 63; /* the magnitude of INT64_MIN */
    uint64_t value = 0;
    for (size_t i = 0; len <= 8 && i < len; i++)
        value = value << 8 | magnitude[i];
    if (len <= 8 && (!negative || value <= lowest)) {
        bool above = !negative && value >= lowest;
        int rc = ces_pickle_add(p, above ? CES_PK_UINT : CES_PK_INT, ret_node);
        if (rc == CESSION_OK)
            p->nodes[*ret_node].as.u = negative ? 0 - value : value; /* two's complement */
        return rc;
    }
    size_t start = p->scratch.len;
    int rc = cession_buf_byte(&p->scratch, negative);
    if (rc == CESSION_OK)
        rc = cession_buf_append(&p->scratch, magnitude, len);
    return rc == CESSION_OK ? add_scratch(p, CES_PK_BIGINT, start, ret_node) : rc;
}

/* ---- set, bytes, bytearray --------------------------------------------------------- */

static int make_set(ces_pickle *p, ces_pickle_kind kind, const uint32_t *args, size_t count,
                    uint32_t *ret_node)
{
    if (count != 1 || p->nodes[args[0]].kind != CES_PK_LIST)
        return CESSION_E_FORMAT;
    uint32_t node;
    int rc = ces_pickle_add(p, kind, &node);
    if (rc != CESSION_OK)
        return rc;
    /* The cells are shared and the count is fixed here: what is appended to the
     * list later is not seen. */
    p->nodes[node].extra = p->nodes[args[0]].extra;
    p->nodes[node].as.items = p->nodes[args[0]].as.items;
    *ret_node = node;
    return CESSION_OK;
}

/* The text's code points, all below 256, as bytes. */
static int encode_latin1(ces_pickle *p, ces_pickle_kind kind, uint32_t source, uint32_t *ret_node)
{
    size_t len = p->nodes[source].as.bytes.len, start = p->scratch.len;
    int rc = ces_pickle_charge(p, len);
    if (rc == CESSION_OK)
        rc = cession_buf_reserve(&p->scratch, len);
    if (rc != CESSION_OK)
        return rc;
    cession_span text = ces_pickle_bytes(p, &p->nodes[source]);
    uint8_t *to = p->scratch.data ? p->scratch.data + start : NULL;
    size_t made = 0;
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = text.data[i];
        if (byte >= 0x80) {
            /* Valid UTF-8, so a continuation follows; c2 and c3 lead the Latin-1
             * letters. */
            if (byte > 0xc3)
                return CESSION_E_FORMAT;
            byte = (uint8_t)((byte & 3) << 6 | (text.data[++i] & 0x3f));
        }
        to[made++] = byte;
    }
    p->scratch.len = start + made;
    return add_scratch(p, kind, start, ret_node);
}

static int make_bytearray(ces_pickle *p, const uint32_t *args, size_t count, uint32_t *ret_node)
{
    if (count == 0)
        return ces_pickle_add(p, CES_PK_BYTEARRAY, ret_node);
    if (count == 1 && p->nodes[args[0]].kind == CES_PK_BYTES)
        return add_bytes_of(p, CES_PK_BYTEARRAY, args[0], ret_node);
    if (count == 2 && p->nodes[args[0]].kind == CES_PK_STR && is_text(p, args[1], "latin-1"))
        return encode_latin1(p, CES_PK_BYTEARRAY, args[0], ret_node);
    return CESSION_E_FORMAT;
}

/* ---- times ------------------------------------------------------------------------- */

#define DAY_SECONDS 86400

static bool int_in(const ces_pickle *p, uint32_t node, int64_t least, int64_t most)
{
    const ces_pickle_node *n = &p->nodes[node];
    return n->kind == CES_PK_INT && n->as.i >= least && n->as.i <= most;
}

/* Normalized, as timedelta keeps them. */
static int make_timedelta(ces_pickle *p, const uint32_t *args, size_t count, uint32_t *ret_node)
{
    if (count != 3 || !int_in(p, args[0], -999999999, 999999999) ||
        !int_in(p, args[1], 0, DAY_SECONDS - 1) || !int_in(p, args[2], 0, 999999))
        return CESSION_E_FORMAT;
    uint32_t node;
    int rc = ces_pickle_add(p, CES_PK_TIMEDELTA, &node);
    if (rc != CESSION_OK)
        return rc;
    p->nodes[node].extra = (uint32_t)(int32_t)p->nodes[args[0]].as.i;
    p->nodes[node].as.delta.seconds = (uint32_t)p->nodes[args[1]].as.i;
    p->nodes[node].as.delta.microseconds = (uint32_t)p->nodes[args[2]].as.i;
    *ret_node = node;
    return CESSION_OK;
}

/* Strictly between minus and plus one day; the name is not kept. */
static int make_timezone(ces_pickle *p, const uint32_t *args, size_t count, uint32_t *ret_node)
{
    if (count < 1 || count > 2 || p->nodes[args[0]].kind != CES_PK_TIMEDELTA ||
        (count == 2 && p->nodes[args[1]].kind != CES_PK_STR))
        return CESSION_E_FORMAT;
    ces_pickle_node delta = p->nodes[args[0]];
    int32_t days = (int32_t)delta.extra;
    bool above_minus_a_day = delta.as.delta.seconds > 0 || delta.as.delta.microseconds > 0;
    if (days < -1 || days > 0 || (days == -1 && !above_minus_a_day))
        return CESSION_E_FORMAT;
    uint32_t node;
    int rc = ces_pickle_add(p, CES_PK_TIMEZONE, &node);
    if (rc != CESSION_OK)
        return rc;
    p->nodes[node].extra = delta.extra;
    p->nodes[node].as = delta.as;
    *ret_node = node;
    return CESSION_OK;
}

static bool date_fits(const uint8_t *d, uint8_t month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    unsigned year = (unsigned)d[0] << 8 | d[1];
    if (year < 1 || year > 9999 || month < 1 || month > 12)
        return false;
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return d[3] >= 1 && d[3] <= days[month - 1] + (month == 2 && leap);
}

static bool time_fits(uint8_t hour, const uint8_t *minutes)
{
    uint32_t us = (uint32_t)minutes[2] << 16 | (uint32_t)minutes[3] << 8 | minutes[4];
    return hour < 24 && minutes[0] < 60 && minutes[1] < 60 && us < 1000000;
}

/* The packed bytes of date, time and datetime: year (2), month, day; hour, minute,
 * second, microseconds (3). The highest bit of a datetime's month and of a time's
 * hour is the fold. */
static int make_time(ces_pickle *p, ces_pickle_kind kind, const uint32_t *args, size_t count,
                     uint32_t *ret_node)
{
    if (count < 1 || p->nodes[args[0]].kind != CES_PK_BYTES)
        return CESSION_E_FORMAT;
    bool has_zone = count == 2 && kind != CES_PK_DATE;
    if (count != 1 && (!has_zone || p->nodes[args[1]].kind != CES_PK_TIMEZONE))
        return CESSION_E_FORMAT;
    cession_span packed = ces_pickle_bytes(p, &p->nodes[args[0]]);
    const uint8_t *d = packed.data;
    bool fits = kind == CES_PK_DATE ? packed.len == 4 && date_fits(d, d[2])
                : kind == CES_PK_TIME
                    ? packed.len == 6 && time_fits(d[0] & 0x7f, d + 1)
                    : packed.len == 10 && date_fits(d, d[2] & 0x7f) && time_fits(d[4], d + 5);
    if (!fits)
        return CESSION_E_FORMAT;
    int rc = add_bytes_of(p, kind, args[0], ret_node);
    if (rc == CESSION_OK && has_zone)
        p->nodes[*ret_node].extra = args[1];
    return rc;
}

/* ---- Decimal, UUID, Markup ---------------------------------------------------------- */

static size_t digits_at(cession_span text, size_t at)
{
    size_t n = at;
    while (n < text.len && text.data[n] >= '0' && text.data[n] <= '9')
        n++;
    return n - at;
}

static bool word_at(cession_span text, size_t at, const char *word)
{
    size_t len = strlen(word);
    return text.len - at >= len && memcmp(text.data + at, word, len) == 0;
}

/* What str(Decimal) gives. */
static bool decimal_text(cession_span text)
{
    size_t at = text.len > 0 && text.data[0] == '-';
    if (at == text.len)
        return false;
    if (word_at(text, at, "Infinity"))
        return at + 8 == text.len;
    size_t nan = word_at(text, at, "NaN") ? 3 : word_at(text, at, "sNaN") ? 4 : 0;
    if (nan > 0)
        return at + nan + digits_at(text, at + nan) == text.len;
    size_t whole = digits_at(text, at);
    at += whole;
    if (whole == 0)
        return false;
    if (at < text.len && text.data[at] == '.') {
        size_t fraction = digits_at(text, at + 1);
        if (fraction == 0)
            return false;
        at += 1 + fraction;
    }
    if (at < text.len && text.data[at] == 'E') {
        at++;
        if (at == text.len || (text.data[at] != '+' && text.data[at] != '-'))
            return false;
        size_t exponent = digits_at(text, at + 1);
        if (exponent == 0 || exponent > 19) /* the bounds of the decimal module fit */
            return false;
        at += 1 + exponent;
    }
    return at == text.len;
}

static int make_decimal(ces_pickle *p, const uint32_t *args, size_t count, uint32_t *ret_node)
{
    if (count != 1 || p->nodes[args[0]].kind != CES_PK_STR)
        return CESSION_E_FORMAT;
    cession_span text = ces_pickle_bytes(p, &p->nodes[args[0]]);
    int rc = ces_pickle_charge(p, text.len);
    if (rc == CESSION_OK && !decimal_text(text))
        rc = CESSION_E_FORMAT;
    return rc == CESSION_OK ? add_bytes_of(p, CES_PK_DECIMAL, args[0], ret_node) : rc;
}

static int make_markup(ces_pickle *p, uint32_t text, uint32_t *ret_node)
{
    if (p->nodes[text].kind != CES_PK_STR)
        return CESSION_E_FORMAT;
    return add_bytes_of(p, CES_PK_MARKUP, text, ret_node);
}

/* 16 bytes, big-endian, of an integer below 2^128. */
static bool uuid_bytes(const ces_pickle *p, uint32_t node, uint8_t ret_bytes[16])
{
    const ces_pickle_node *number = &p->nodes[node];
    memset(ret_bytes, 0, 16);
    if (number->kind == CES_PK_UINT || (number->kind == CES_PK_INT && number->as.i >= 0)) {
        for (size_t i = 0; i < 8; i++)
            ret_bytes[15 - i] = (uint8_t)(number->as.u >> (8 * i));
        return true;
    }
    if (number->kind != CES_PK_BIGINT)
        return false;
    cession_span payload = ces_pickle_bytes(p, number); /* sign, magnitude */
    if (payload.data[0] != 0 || payload.len > 17)
        return false;
    memcpy(ret_bytes + 16 - (payload.len - 1), payload.data + 1, payload.len - 1);
    return true;
}

/* {'int': number}, and 'is_safe' where the system told; equal UUIDs may differ in it. */
static int set_uuid(ces_pickle *p, uint32_t object, uint32_t state)
{
    const ces_pickle_node *dict = &p->nodes[state];
    if (p->nodes[object].as.bytes.len != 0 || dict->kind != CES_PK_DICT ||
        (dict->as.items.count != 2 && dict->as.items.count != 4))
        return CESSION_E_FORMAT;
    uint32_t key = dict->as.items.first, value = p->cells[key].next;
    uint8_t bytes[16];
    if (!is_text(p, p->cells[key].node, "int") || !uuid_bytes(p, p->cells[value].node, bytes))
        return CESSION_E_FORMAT;
    if (dict->as.items.count == 4) {
        key = p->cells[value].next;
        value = p->cells[key].next;
        if (!is_text(p, p->cells[key].node, "is_safe") ||
            p->nodes[p->cells[value].node].kind != CES_PK_INT)
            return CESSION_E_FORMAT;
    }
    size_t start = p->scratch.len;
    int rc = cession_buf_append(&p->scratch, bytes, sizeof bytes);
    if (rc != CESSION_OK)
        return rc;
    p->nodes[object].in_scratch = true;
    p->nodes[object].as.bytes.at = (uint32_t)start;
    p->nodes[object].as.bytes.len = sizeof bytes;
    return CESSION_OK;
}

/* ---- the three codes that make objects ------------------------------------------------ */

#define ARGS_MAX 3u

/* The items of a tuple of arguments; none of the shapes has more than three. */
static bool get_args(const ces_pickle *p, uint32_t tuple, uint32_t ret_args[ARGS_MAX],
                     size_t *ret_count)
{
    const ces_pickle_node *node = &p->nodes[tuple];
    if (node->kind != CES_PK_TUPLE || node->as.items.count > ARGS_MAX)
        return false;
    uint32_t cell = node->as.items.first;
    for (size_t i = 0; i < node->as.items.count; i++) {
        ret_args[i] = p->cells[cell].node;
        cell = p->cells[cell].next;
    }
    *ret_count = node->as.items.count;
    return true;
}

static int reconstruct(ces_pickle *p, const uint32_t *args, size_t count, uint32_t *ret_node)
{
    if (count != 3)
        return CESSION_E_FORMAT;
    if (is_global(p, args[0], CES_PG_UUID) && is_global(p, args[1], CES_PG_OBJECT) &&
        p->nodes[args[2]].kind == CES_PK_NONE)
        return ces_pickle_add(p, CES_PK_UUID, ret_node);
    if (is_global(p, args[0], CES_PG_MARKUP) && is_global(p, args[1], CES_PG_STR))
        return make_markup(p, args[2], ret_node);
    return CESSION_E_FORMAT;
}

int ces_pickle_call(ces_pickle *p, uint32_t callable, uint32_t args, uint32_t *ret_node)
{
    uint32_t arg[ARGS_MAX];
    size_t count;
    if (p->nodes[callable].kind != CES_PK_GLOBAL || !get_args(p, args, arg, &count))
        return CESSION_E_FORMAT;
    switch ((ces_pickle_global)p->nodes[callable].as.u) {
    case CES_PG_SET:
        return make_set(p, CES_PK_SET, arg, count, ret_node);
    case CES_PG_FROZENSET:
        return make_set(p, CES_PK_FROZENSET, arg, count, ret_node);
    case CES_PG_BYTES:
        return count == 0 ? ces_pickle_add(p, CES_PK_BYTES, ret_node) : CESSION_E_FORMAT;
    case CES_PG_BYTEARRAY:
        return make_bytearray(p, arg, count, ret_node);
    case CES_PG_ENCODE:
        if (count != 2 || p->nodes[arg[0]].kind != CES_PK_STR || !is_text(p, arg[1], "latin1"))
            return CESSION_E_FORMAT;
        return encode_latin1(p, CES_PK_BYTES, arg[0], ret_node);
    case CES_PG_RECONSTRUCTOR:
        return reconstruct(p, arg, count, ret_node);
    case CES_PG_ORDEREDDICT:
        return count == 0 ? ces_pickle_add(p, CES_PK_ODICT, ret_node) : CESSION_E_FORMAT;
    case CES_PG_DATETIME:
        return make_time(p, CES_PK_DATETIME, arg, count, ret_node);
    case CES_PG_DATE:
        return make_time(p, CES_PK_DATE, arg, count, ret_node);
    case CES_PG_TIME:
        return make_time(p, CES_PK_TIME, arg, count, ret_node);
    case CES_PG_TIMEDELTA:
        return make_timedelta(p, arg, count, ret_node);
    case CES_PG_TIMEZONE:
        return make_timezone(p, arg, count, ret_node);
    case CES_PG_DECIMAL:
        return make_decimal(p, arg, count, ret_node);
    case CES_PG_OBJECT:
    case CES_PG_STR:
    case CES_PG_UUID:
    case CES_PG_MARKUP:
        break;
    }
    return CESSION_E_FORMAT;
}

int ces_pickle_new(ces_pickle *p, uint32_t cls, uint32_t args, uint32_t *ret_node)
{
    uint32_t arg[ARGS_MAX];
    size_t count;
    if (!get_args(p, args, arg, &count))
        return CESSION_E_FORMAT;
    if (is_global(p, cls, CES_PG_UUID) && count == 0)
        return ces_pickle_add(p, CES_PK_UUID, ret_node);
    if (is_global(p, cls, CES_PG_MARKUP) && count == 1)
        return make_markup(p, arg[0], ret_node);
    return CESSION_E_FORMAT;
}

int ces_pickle_set_state(ces_pickle *p, uint32_t object, uint32_t state)
{
    if (p->nodes[object].kind != CES_PK_UUID)
        return CESSION_E_FORMAT;
    return set_uuid(p, object, state);
}
