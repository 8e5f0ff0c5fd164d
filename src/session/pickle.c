/* The stack machine of Python's pickles. Source of the format: the comments of
 * Lib/pickletools.py of CPython, PEP 307, PEP 3154 and PEP 574. */
#include "session/pickle.h"

#include <locale.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/msgpack.h"
#include "cession/store.h"
#include "session/pickle_impl.h"
#include "base/banned.h"

#define MARK UINT32_MAX /* on the stack; no node has this index */

enum { NODE_NONE, NODE_FALSE, NODE_TRUE };

/* Only what the picklers of CPython 3 write. The others are codes of Python 2 text
 * (S T U), of recursion (0 1), of duplication (2), of persistent ids (P Q), old
 * instances (i o), the extension registry (0x82 0x83 0x84), keyword arguments
 * (0x92) and out-of-band buffers (0x97 0x98). */
enum {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_FLOAT = 'F',
    OP_INT = 'I',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_LONG = 'L',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_REDUCE = 'R',
    OP_UNICODE = 'V',
    OP_BINUNICODE = 'X',
    OP_APPEND = 'a',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_DICT = 'd',
    OP_EMPTY_DICT = '}',
    OP_APPENDS = 'e',
    OP_GET = 'g',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_LIST = 'l',
    OP_EMPTY_LIST = ']',
    OP_PUT = 'p',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_EMPTY_TUPLE = ')',
    OP_SETITEMS = 'u',
    OP_BINFLOAT = 'G',
    OP_BINBYTES = 'B',
    OP_SHORT_BINBYTES = 'C',
    OP_PROTO = 0x80,
    OP_NEWOBJ = 0x81,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8a,
    OP_LONG4 = 0x8b,
    OP_SHORT_BINUNICODE = 0x8c,
    OP_BINUNICODE8 = 0x8d,
    OP_BINBYTES8 = 0x8e,
    OP_EMPTY_SET = 0x8f,
    OP_ADDITEMS = 0x90,
    OP_FROZENSET = 0x91,
    OP_STACK_GLOBAL = 0x93,
    OP_MEMOIZE = 0x94,
    OP_FRAME = 0x95,
    OP_BYTEARRAY8 = 0x96
};

/* ---- memory ----------------------------------------------------------------- */

int ces_pickle_grow(void **array, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return CESSION_OK;
    /* The first one past the bound, so that the doubling below cannot overflow. */
    if (need > CES_PICKLE_ITEMS_MAX)
        return CESSION_E_FORMAT;
    size_t more = *cap > 0 ? *cap : 64;
    while (more < need)
        more *= 2;
    void *grown = ces_resize(*array, more * size);
    if (!grown)
        return CESSION_E_NOMEM;
    *array = grown;
    *cap = more;
    return CESSION_OK;
}

int ces_pickle_add(ces_pickle *p, ces_pickle_kind kind, uint32_t *ret_node)
{
    void *nodes = p->nodes;
    int rc = ces_pickle_grow(&nodes, &p->node_cap, p->node_count + 1, sizeof *p->nodes);
    p->nodes = nodes;
    if (rc != CESSION_OK)
        return rc;
    memset(&p->nodes[p->node_count], 0, sizeof *p->nodes);
    p->nodes[p->node_count].kind = (uint8_t)kind;
    *ret_node = (uint32_t)p->node_count++;
    return CESSION_OK;
}

cession_span ces_pickle_bytes(const ces_pickle *p, const ces_pickle_node *node)
{
    const uint8_t *start = node->in_scratch ? p->scratch.data : p->in.data;
    if (node->as.bytes.len == 0)
        return cession_span_of(NULL, 0);
    return cession_span_of(start + node->as.bytes.at, node->as.bytes.len);
}

int ces_pickle_charge(ces_pickle *p, size_t len)
{
    if (len > CESSION_VALUE_MAX - p->work)
        return CESSION_E_FORMAT;
    p->work += len;
    return CESSION_OK;
}

static int push(ces_pickle *p, uint32_t node)
{
    void *stack = p->stack;
    int rc = ces_pickle_grow(&stack, &p->stack_cap, p->stack_count + 1, sizeof *p->stack);
    p->stack = stack;
    if (rc == CESSION_OK)
        p->stack[p->stack_count++] = node;
    return rc;
}

/* The topmost value; MARK is none. */
static bool top(const ces_pickle *p, uint32_t *ret_node)
{
    if (p->stack_count == 0 || p->stack[p->stack_count - 1] == MARK)
        return false;
    *ret_node = p->stack[p->stack_count - 1];
    return true;
}

static bool pop(ces_pickle *p, uint32_t *ret_node)
{
    if (!top(p, ret_node))
        return false;
    p->stack_count--;
    return true;
}

/* Everything above the topmost mark; the mark goes, the values stay readable at
 * *ret_values until the next push. */
static bool pop_to_mark(ces_pickle *p, const uint32_t **ret_values, size_t *ret_count)
{
    size_t count = 0;
    while (count < p->stack_count && p->stack[p->stack_count - 1 - count] != MARK)
        count++;
    if (count == p->stack_count)
        return false;
    *ret_values = p->stack + p->stack_count - count;
    *ret_count = count;
    p->stack_count -= count + 1;
    return true;
}

static int append_item(ces_pickle *p, uint32_t container, uint32_t item)
{
    void *cells = p->cells;
    int rc = ces_pickle_grow(&cells, &p->cell_cap, p->cell_count + 1, sizeof *p->cells);
    p->cells = cells;
    if (rc != CESSION_OK)
        return rc;
    uint32_t cell = (uint32_t)p->cell_count++;
    p->cells[cell].node = item;
    p->cells[cell].next = 0;
    ces_pickle_node *node = &p->nodes[container];
    if (node->as.items.count == 0)
        node->as.items.first = cell;
    else
        p->cells[node->extra].next = cell;
    node->extra = cell;
    node->as.items.count++;
    return CESSION_OK;
}

static int append_items(ces_pickle *p, uint32_t container, const uint32_t *items, size_t count)
{
    int rc = CESSION_OK;
    for (size_t i = 0; rc == CESSION_OK && i < count; i++)
        rc = append_item(p, container, items[i]);
    return rc;
}

/* ---- reading arguments -------------------------------------------------------- */

static bool take(ces_pickle *p, size_t len, const uint8_t **ret_data)
{
    if (len > p->in.len - p->at)
        return false;
    *ret_data = p->in.data + p->at;
    p->at += len;
    return true;
}

/* A little-endian number of up to 8 bytes. */
static bool take_number(ces_pickle *p, size_t len, uint64_t *ret_number)
{
    const uint8_t *data;
    if (!take(p, len, &data))
        return false;
    uint64_t number = 0;
    for (size_t i = len; i-- > 0;)
        number = number << 8 | data[i];
    *ret_number = number;
    return true;
}

/* A line, without its newline. */
static bool take_line(ces_pickle *p, cession_span *ret_line)
{
    size_t left = p->in.len - p->at;
    const uint8_t *start = p->in.data + p->at;
    const uint8_t *end = left > 0 ? memchr(start, '\n', left) : NULL;
    if (!end)
        return false;
    *ret_line = cession_span_of(start, (size_t)(end - start));
    p->at += ret_line->len + 1;
    return true;
}

/* ---- numbers ------------------------------------------------------------------- */

static int push_int(ces_pickle *p, int64_t value)
{
    uint32_t node;
    int rc = ces_pickle_add(p, CES_PK_INT, &node);
    if (rc != CESSION_OK)
        return rc;
    p->nodes[node].as.i = value;
    return push(p, node);
}

/* Digits that CPython itself is willing to read; the conversion is quadratic. */
#define DIGITS_MAX 4300u
#define LIMBS_MAX (DIGITS_MAX / 9 + 1)

/* -?[0-9]+, the only form that is written. */
static int push_decimal(ces_pickle *p, cession_span text)
{
    bool negative = text.len > 0 && text.data[0] == '-';
    const uint8_t *digit = text.data + negative;
    size_t digits = text.len - negative;
    if (digits == 0 || digits > DIGITS_MAX)
        return CESSION_E_FORMAT;

    uint32_t limbs[LIMBS_MAX]; /* little-endian; nine digits need less than 32 bits */
    size_t used = 0;
    while (digits > 0) {
        uint32_t chunk = 0, scale = 1;
        for (size_t n = digits % 9 ? digits % 9 : 9; n > 0; n--, digits--, digit++) {
            if (*digit < '0' || *digit > '9')
                return CESSION_E_FORMAT;
            chunk = chunk * 10 + (uint32_t)(*digit - '0');
            scale *= 10;
        }
        uint64_t carry = chunk;
        for (size_t i = 0; i < used; i++) {
            carry += (uint64_t)limbs[i] * scale;
            limbs[i] = (uint32_t)carry;
            carry >>= 32;
        }
        if (carry > 0)
            limbs[used++] = (uint32_t)carry;
    }

    uint8_t magnitude[4 * LIMBS_MAX];
    size_t len = 0;
    for (size_t i = used; i-- > 0;) {
        for (int shift = 24; shift >= 0; shift -= 8)
            magnitude[len++] = (uint8_t)(limbs[i] >> shift);
    }
    uint32_t node;
    int rc = ces_pickle_integer(p, negative, magnitude, len, &node);
    return rc == CESSION_OK ? push(p, node) : rc;
}

static int push_int_line(ces_pickle *p)
{
    cession_span line;
    if (!take_line(p, &line))
        return CESSION_E_FORMAT;
    if (cession_span_eq(line, cession_span_str("00")))
        return push(p, NODE_FALSE);
    if (cession_span_eq(line, cession_span_str("01")))
        return push(p, NODE_TRUE);
    return push_decimal(p, line);
}

static int push_long_line(ces_pickle *p)
{
    cession_span line;
    if (!take_line(p, &line) || line.len == 0 || line.data[line.len - 1] != 'L')
        return CESSION_E_FORMAT;
    line.len--;
    return push_decimal(p, line);
}

/* len bytes of little-endian two's complement. */
static int push_long(ces_pickle *p, uint64_t len)
{
    const uint8_t *data;
    if (len > SIZE_MAX || !take(p, (size_t)len, &data))
        return CESSION_E_FORMAT;
    bool negative = len > 0 && (data[len - 1] & 0x80);
    if (len <= 8) {
        uint64_t bits = negative ? UINT64_MAX : 0;
        for (size_t i = (size_t)len; i-- > 0;)
            bits = bits << 8 | data[i];
        return push_int(p, (int64_t)bits);
    }
    uint8_t *magnitude = ces_alloc((size_t)len);
    if (!magnitude)
        return CESSION_E_NOMEM;
    unsigned carry = negative;
    for (size_t i = 0; i < len; i++) {
        unsigned byte = negative ? (uint8_t)~data[i] + carry : data[i];
        magnitude[len - 1 - i] = (uint8_t)byte;
        carry = byte >> 8;
    }
    uint32_t node;
    int rc = ces_pickle_integer(p, negative, magnitude, (size_t)len, &node);
    ces_free(magnitude);
    return rc == CESSION_OK ? push(p, node) : rc;
}

static int push_double(ces_pickle *p, double value)
{
    uint32_t node;
    int rc = ces_pickle_add(p, CES_PK_DOUBLE, &node);
    if (rc != CESSION_OK)
        return rc;
    p->nodes[node].as.d = value;
    return push(p, node);
}

static int push_binfloat(ces_pickle *p)
{
    const uint8_t *data;
    if (!take(p, 8, &data))
        return CESSION_E_FORMAT;
    uint64_t bits = 0;
    for (size_t i = 0; i < 8; i++)
        bits = bits << 8 | data[i];
    double value;
    memcpy(&value, &bits, sizeof value);
    return push_double(p, value);
}

static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;

static void make_c_locale(void)
{
    c_locale = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
}

/* Letters that repr(float) uses; what strtod makes of them is checked by its end. */
static bool float_letters(cession_span text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (!memchr("0123456789+-.einfa", text.data[i], 18))
            return false;
    }
    return text.len > 0;
}

/* repr() of a float. The application may have set a locale with another decimal
 * point, hence strtod_l. */
static int push_float_line(ces_pickle *p)
{
    cession_span line;
    char text[64]; /* repr has at most 24 characters */
    if (!take_line(p, &line) || line.len >= sizeof text || !float_letters(line))
        return CESSION_E_FORMAT;
    pthread_once(&c_locale_once, make_c_locale);
    if (c_locale == (locale_t)0)
        return CESSION_E_NOMEM;
    memcpy(text, line.data, line.len);
    text[line.len] = '\0';
    char *end;
    double value = strtod_l(text, &end, c_locale);
    if (end != text + line.len)
        return CESSION_E_FORMAT;
    return push_double(p, value);
}

/* ---- text and bytes ------------------------------------------------------------- */

static int push_span(ces_pickle *p, ces_pickle_kind kind, uint64_t len)
{
    size_t at = p->at;
    const uint8_t *data;
    if (len > SIZE_MAX || !take(p, (size_t)len, &data))
        return CESSION_E_FORMAT;
    if (kind == CES_PK_STR && !ces_utf8_valid(data, (size_t)len))
        return CESSION_E_FORMAT;
    uint32_t node;
    int rc = ces_pickle_add(p, kind, &node);
    if (rc != CESSION_OK)
        return rc;
    p->nodes[node].as.bytes.at = (uint32_t)at; /* a value is far below 4 GiB */
    p->nodes[node].as.bytes.len = (uint32_t)len;
    return push(p, node);
}

static int push_sized(ces_pickle *p, ces_pickle_kind kind, size_t len_bytes)
{
    uint64_t len;
    if (!take_number(p, len_bytes, &len))
        return CESSION_E_FORMAT;
    return push_span(p, kind, len);
}

static bool take_hex(cession_span text, size_t at, size_t count, uint32_t *ret_value)
{
    if (count > text.len - at)
        return false;
    uint32_t value = 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t c = text.data[at + i];
        unsigned digit = c >= '0' && c <= '9'   ? c - '0' + 0u
                         : c >= 'a' && c <= 'f' ? c - 'a' + 10u
                         : c >= 'A' && c <= 'F' ? c - 'A' + 10u
                                                : 16u;
        if (digit == 16)
            return false;
        value = value << 4 | digit;
    }
    *ret_value = value;
    return true;
}

static int append_utf8(cession_buf *out, uint32_t point)
{
    uint8_t bytes[4];
    size_t len = 0;
    if (point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        return CESSION_E_FORMAT;
    if (point < 0x80) {
        bytes[len++] = (uint8_t)point;
    } else {
        if (point < 0x800) {
            bytes[len++] = (uint8_t)(0xc0 | point >> 6);
        } else {
            if (point < 0x10000) {
                bytes[len++] = (uint8_t)(0xe0 | point >> 12);
            } else {
                bytes[len++] = (uint8_t)(0xf0 | point >> 18);
                bytes[len++] = (uint8_t)(0x80 | (point >> 12 & 0x3f));
            }
            bytes[len++] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
        }
        bytes[len++] = (uint8_t)(0x80 | (point & 0x3f));
    }
    return cession_buf_append(out, bytes, len);
}

/* Python's raw-unicode-escape: Latin-1 with \uXXXX and \UXXXXXXXX; the pickler
 * writes a backslash itself as \u005c, so there is no other escape. */
static int push_unicode_line(ces_pickle *p)
{
    cession_span line;
    if (!take_line(p, &line))
        return CESSION_E_FORMAT;
    size_t start = p->scratch.len;
    for (size_t i = 0; i < line.len; i++) {
        uint32_t point = line.data[i];
        if (point == '\\') {
            size_t digits = i + 1 >= line.len         ? 0
                            : line.data[i + 1] == 'u' ? 4
                            : line.data[i + 1] == 'U' ? 8
                                                      : 0;
            if (digits == 0 || !take_hex(line, i + 2, digits, &point))
                return CESSION_E_FORMAT;
            i += 1 + digits;
        }
        int rc = append_utf8(&p->scratch, point);
        if (rc != CESSION_OK)
            return rc;
    }
    uint32_t node;
    int rc = ces_pickle_add(p, CES_PK_STR, &node);
    if (rc != CESSION_OK)
        return rc;
    p->nodes[node].in_scratch = true;
    p->nodes[node].as.bytes.at = (uint32_t)start;
    p->nodes[node].as.bytes.len = (uint32_t)(p->scratch.len - start);
    return push(p, node);
}

/* ---- containers ------------------------------------------------------------------ */

static int push_empty(ces_pickle *p, ces_pickle_kind kind)
{
    uint32_t node;
    int rc = ces_pickle_add(p, kind, &node);
    return rc == CESSION_OK ? push(p, node) : rc;
}

static int push_container(ces_pickle *p, ces_pickle_kind kind, const uint32_t *items, size_t count)
{
    uint32_t node;
    int rc = ces_pickle_add(p, kind, &node);
    if (rc == CESSION_OK)
        rc = append_items(p, node, items, count);
    return rc == CESSION_OK ? push(p, node) : rc;
}

static int push_marked(ces_pickle *p, ces_pickle_kind kind)
{
    const uint32_t *items;
    size_t count;
    if (!pop_to_mark(p, &items, &count) || (kind == CES_PK_DICT && count % 2))
        return CESSION_E_FORMAT;
    return push_container(p, kind, items, count);
}

/* TUPLE1, TUPLE2, TUPLE3. */
static int push_small_tuple(ces_pickle *p, size_t count)
{
    uint32_t items[3];
    for (size_t i = count; i-- > 0;) {
        if (!pop(p, &items[i]))
            return CESSION_E_FORMAT;
    }
    return push_container(p, CES_PK_TUPLE, items, count);
}

static bool is_mapping(uint8_t kind)
{
    return kind == CES_PK_DICT || kind == CES_PK_ODICT;
}

/* Add to the container that is on top once the items are gone: all above the mark,
 * or exactly `single` of them when that is not 0. */
static int extend(ces_pickle *p, ces_pickle_kind kind, size_t single)
{
    const uint32_t *items;
    size_t count = single;
    uint32_t container, popped[2];
    if (single > 0) {
        for (size_t i = single; i-- > 0;) {
            if (!pop(p, &popped[i]))
                return CESSION_E_FORMAT;
        }
        items = popped;
    } else if (!pop_to_mark(p, &items, &count)) {
        return CESSION_E_FORMAT;
    }
    if (!top(p, &container))
        return CESSION_E_FORMAT;
    uint8_t found = p->nodes[container].kind;
    if (kind == CES_PK_DICT ? !is_mapping(found) || count % 2 : found != kind)
        return CESSION_E_FORMAT;
    return append_items(p, container, items, count);
}

/* ---- memo ------------------------------------------------------------------------- */

/* The picklers number upwards and never twice, and put only what has an identity
 * worth keeping; a number can be no larger than the codes before it. */
static int memo_put(ces_pickle *p, uint64_t number)
{
    uint32_t node;
    if (!top(p, &node) || node <= NODE_TRUE || number > p->in.len)
        return CESSION_E_FORMAT;
    switch (p->nodes[node].kind) {
    case CES_PK_BOOL:
    case CES_PK_INT:
    case CES_PK_UINT:
    case CES_PK_BIGINT:
    case CES_PK_DOUBLE:
        return CESSION_E_FORMAT;
    default:
        break;
    }
    size_t at = (size_t)number;
    if (at >= p->memo_count) {
        void *memo = p->memo;
        int rc = ces_pickle_grow(&memo, &p->memo_cap, at + 1, sizeof *p->memo);
        p->memo = memo;
        if (rc != CESSION_OK)
            return rc;
        memset(p->memo + p->memo_count, 0, (at + 1 - p->memo_count) * sizeof *p->memo);
        p->memo_count = at + 1;
    }
    if (p->memo[at] != 0)
        return CESSION_E_FORMAT;
    p->memo[at] = node;
    p->memo_next++;
    return CESSION_OK;
}

static int memo_get(ces_pickle *p, uint64_t number)
{
    if (number >= p->memo_count || p->memo[number] == 0)
        return CESSION_E_FORMAT;
    return push(p, p->memo[number]);
}

static int memo_number(ces_pickle *p, size_t len, int (*use)(ces_pickle *, uint64_t))
{
    uint64_t number;
    return take_number(p, len, &number) ? use(p, number) : CESSION_E_FORMAT;
}

static int memo_line(ces_pickle *p, int (*use)(ces_pickle *, uint64_t))
{
    cession_span line;
    if (!take_line(p, &line) || line.len == 0 || line.len > 10)
        return CESSION_E_FORMAT;
    uint64_t number = 0;
    for (size_t i = 0; i < line.len; i++) {
        if (line.data[i] < '0' || line.data[i] > '9')
            return CESSION_E_FORMAT;
        number = number * 10 + (uint64_t)(line.data[i] - '0');
    }
    return use(p, number);
}

/* ---- objects ---------------------------------------------------------------------- */

static int push_global(ces_pickle *p, cession_span module, cession_span name)
{
    uint32_t node;
    int rc = ces_pickle_find_global(p, module, name, &node);
    return rc == CESSION_OK ? push(p, node) : rc;
}

static int push_global_lines(ces_pickle *p)
{
    cession_span module, name;
    if (!take_line(p, &module) || !take_line(p, &name))
        return CESSION_E_FORMAT;
    return push_global(p, module, name);
}

static int push_stack_global(ces_pickle *p)
{
    uint32_t module, name;
    if (!pop(p, &name) || !pop(p, &module) || p->nodes[name].kind != CES_PK_STR ||
        p->nodes[module].kind != CES_PK_STR)
        return CESSION_E_FORMAT;
    return push_global(p, ces_pickle_bytes(p, &p->nodes[module]),
                       ces_pickle_bytes(p, &p->nodes[name]));
}

static int push_made(ces_pickle *p, int (*make)(ces_pickle *, uint32_t, uint32_t, uint32_t *))
{
    uint32_t callable, args, node;
    if (!pop(p, &args) || !pop(p, &callable))
        return CESSION_E_FORMAT;
    int rc = make(p, callable, args, &node);
    return rc == CESSION_OK ? push(p, node) : rc;
}

static int build(ces_pickle *p)
{
    uint32_t object, state;
    if (!pop(p, &state) || !top(p, &object))
        return CESSION_E_FORMAT;
    return ces_pickle_set_state(p, object, state);
}

/* ---- the machine ------------------------------------------------------------------- */

static int step(ces_pickle *p, uint8_t code)
{
    uint64_t number;
    switch (code) {
    case OP_MARK:
        return push(p, MARK);
    case OP_NONE:
        return push(p, NODE_NONE);
    case OP_NEWTRUE:
        return push(p, NODE_TRUE);
    case OP_NEWFALSE:
        return push(p, NODE_FALSE);
    case OP_INT:
        return push_int_line(p);
    case OP_LONG:
        return push_long_line(p);
    case OP_BININT:
        return take_number(p, 4, &number) ? push_int(p, (int32_t)(uint32_t)number)
                                          : CESSION_E_FORMAT;
    case OP_BININT1:
        return take_number(p, 1, &number) ? push_int(p, (int64_t)number) : CESSION_E_FORMAT;
    case OP_BININT2:
        return take_number(p, 2, &number) ? push_int(p, (int64_t)number) : CESSION_E_FORMAT;
    case OP_LONG1:
        return take_number(p, 1, &number) ? push_long(p, number) : CESSION_E_FORMAT;
    case OP_LONG4: /* the length is signed; a negative one is past the end here */
        return take_number(p, 4, &number) ? push_long(p, number) : CESSION_E_FORMAT;
    case OP_FLOAT:
        return push_float_line(p);
    case OP_BINFLOAT:
        return push_binfloat(p);
    case OP_UNICODE:
        return push_unicode_line(p);
    case OP_SHORT_BINUNICODE:
        return push_sized(p, CES_PK_STR, 1);
    case OP_BINUNICODE:
        return push_sized(p, CES_PK_STR, 4);
    case OP_BINUNICODE8:
        return push_sized(p, CES_PK_STR, 8);
    case OP_SHORT_BINBYTES:
        return push_sized(p, CES_PK_BYTES, 1);
    case OP_BINBYTES:
        return push_sized(p, CES_PK_BYTES, 4);
    case OP_BINBYTES8:
        return push_sized(p, CES_PK_BYTES, 8);
    case OP_BYTEARRAY8:
        return push_sized(p, CES_PK_BYTEARRAY, 8);
    case OP_EMPTY_LIST:
        return push_empty(p, CES_PK_LIST);
    case OP_EMPTY_TUPLE:
        return push_empty(p, CES_PK_TUPLE);
    case OP_EMPTY_DICT:
        return push_empty(p, CES_PK_DICT);
    case OP_EMPTY_SET:
        return push_empty(p, CES_PK_SET);
    case OP_LIST:
        return push_marked(p, CES_PK_LIST);
    case OP_TUPLE:
        return push_marked(p, CES_PK_TUPLE);
    case OP_DICT:
        return push_marked(p, CES_PK_DICT);
    case OP_FROZENSET:
        return push_marked(p, CES_PK_FROZENSET);
    case OP_TUPLE1:
        return push_small_tuple(p, 1);
    case OP_TUPLE2:
        return push_small_tuple(p, 2);
    case OP_TUPLE3:
        return push_small_tuple(p, 3);
    case OP_APPEND:
        return extend(p, CES_PK_LIST, 1);
    case OP_APPENDS:
        return extend(p, CES_PK_LIST, 0);
    case OP_SETITEM:
        return extend(p, CES_PK_DICT, 2);
    case OP_SETITEMS:
        return extend(p, CES_PK_DICT, 0);
    case OP_ADDITEMS:
        return extend(p, CES_PK_SET, 0);
    case OP_MEMOIZE:
        return memo_put(p, p->memo_next);
    case OP_PUT:
        return memo_line(p, memo_put);
    case OP_BINPUT:
        return memo_number(p, 1, memo_put);
    case OP_LONG_BINPUT:
        return memo_number(p, 4, memo_put);
    case OP_GET:
        return memo_line(p, memo_get);
    case OP_BINGET:
        return memo_number(p, 1, memo_get);
    case OP_LONG_BINGET:
        return memo_number(p, 4, memo_get);
    case OP_GLOBAL:
        return push_global_lines(p);
    case OP_STACK_GLOBAL:
        return push_stack_global(p);
    case OP_REDUCE:
        return push_made(p, ces_pickle_call);
    case OP_NEWOBJ:
        return push_made(p, ces_pickle_new);
    case OP_BUILD:
        return build(p);
    case OP_FRAME: /* a hint for reading ahead */
        return take_number(p, 8, &number) && number <= p->in.len - p->at ? CESSION_OK
                                                                         : CESSION_E_FORMAT;
    default:
        return CESSION_E_FORMAT;
    }
}

/* Runs to STOP; *ret_root is the one value that is left. */
static int run(ces_pickle *p, uint32_t *ret_root)
{
    static const ces_pickle_kind constants[] = {
        [NODE_NONE] = CES_PK_NONE, [NODE_FALSE] = CES_PK_BOOL, [NODE_TRUE] = CES_PK_BOOL};
    uint32_t node;
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        int rc = ces_pickle_add(p, constants[i], &node);
        if (rc != CESSION_OK)
            return rc;
    }
    p->nodes[NODE_TRUE].as.u = 1;

    if (p->in.len >= 2 && p->in.data[0] == OP_PROTO) {
        if (p->in.data[1] > 5)
            return CESSION_E_FORMAT;
        p->at = 2;
    }
    while (p->at < p->in.len) {
        uint8_t code = p->in.data[p->at++];
        if (code == OP_STOP) {
            bool whole = p->stack_count == 1 && p->at == p->in.len;
            return whole && pop(p, ret_root) ? CESSION_OK : CESSION_E_FORMAT;
        }
        int rc = step(p, code);
        if (rc != CESSION_OK)
            return rc;
    }
    return CESSION_E_FORMAT;
}

int ces_pickle_to_msgpack(cession_span pickle, cession_buf *out, cession_error *err)
{
    if (pickle.len > CESSION_VALUE_MAX)
        return cession_fail(err, CESSION_E_FORMAT, "the pickle is too large");
    ces_pickle p;
    memset(&p, 0, sizeof p);
    p.in = pickle;
    cession_buf_init(&p.scratch, CESSION_VALUE_MAX);
    cession_buf written;
    cession_buf_init(&written, out->max < CESSION_VALUE_MAX ? out->max : CESSION_VALUE_MAX);

    uint32_t root = NODE_NONE;
    int rc = run(&p, &root);
    if (rc == CESSION_E_LIMIT) /* scratch has room for any value that we keep */
        rc = CESSION_E_FORMAT;
    if (rc == CESSION_OK && p.nodes[root].kind != CES_PK_DICT)
        rc = CESSION_E_FORMAT;
    if (rc == CESSION_OK) {
        rc = ces_pickle_write(&p, root, &written);
        if (rc == CESSION_E_LIMIT && written.max == CESSION_VALUE_MAX)
            rc = CESSION_E_FORMAT;
    }
    if (rc == CESSION_OK)
        rc = cession_buf_set(out, written.data, written.len);

    cession_buf_release(&written);
    cession_buf_release(&p.scratch);
    ces_free(p.nodes);
    ces_free(p.cells);
    ces_free(p.stack);
    ces_free(p.memo);
    if (rc == CESSION_E_FORMAT)
        return cession_fail(err, rc, "the value is not a pickle of plain data");
    return rc == CESSION_OK ? CESSION_OK : cession_fail(err, rc, NULL);
}
