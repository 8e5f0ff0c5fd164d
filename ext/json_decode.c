/* Tagged JSON (docs/format.md) -> Python objects. A strict reader (RFC 8259) of one
 * pass: every byte is looked at before it is used, nesting is bounded, text is exact
 * UTF-8. No code of the application runs while decoding. */
#include "codec_impl.h"

/* NULL or false without an exception means: no session. */
typedef struct reader {
    cx_codec_state *state;
    const uint8_t *at, *end;
    cession_buf text; /* a string that had escapes; until the next string */
    bool canonical;
    bool in_key;
} reader;

/* The depth of the last container: its items are scalars. What is one value to the
 * writer counts no level. */
#define NO_CONTAINERS (CES_MP_DEPTH_MAX - 1)

static PyObject *read_value(reader *r, unsigned depth);

static void skip_blanks(reader *r)
{
    while (r->at < r->end &&
           (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r')) {
        r->at++;
        r->canonical = false;
    }
}

/* The next byte that is no blank, 0 at the end. */
static uint8_t peek(reader *r)
{
    skip_blanks(r);
    return r->at < r->end ? *r->at : 0;
}

static bool take(reader *r, uint8_t c)
{
    if (peek(r) != c) {
        return false;
    }
    r->at++;
    return true;
}

static bool take_word(reader *r, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len) != 0) {
        return false;
    }
    r->at += len;
    return true;
}

/* ---- strings --------------------------------------------------------------------------- */

static bool read_hex4(reader *r, uint32_t *ret_value)
{
    uint32_t value = 0;
    if (r->end - r->at < 4) {
        return false;
    }
    for (int i = 0; i < 4; i++) {
        uint8_t c = r->at[i];
        if (c >= '0' && c <= '9') {
            value = value << 4 | (uint32_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            value = value << 4 | (uint32_t)(c - 'a' + 10);
        } else if (c >= 'A' && c <= 'F') {
            value = value << 4 | (uint32_t)(c - 'A' + 10);
            r->canonical = false;
        } else {
            return false;
        }
    }
    r->at += 4;
    *ret_value = value;
    return true;
}

static size_t put_utf8(uint32_t c, uint8_t bytes[4])
{
    if (c < 0x80) {
        bytes[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        bytes[0] = (uint8_t)(0xc0 | c >> 6);
        bytes[1] = (uint8_t)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        bytes[0] = (uint8_t)(0xe0 | c >> 12);
        bytes[1] = (uint8_t)(0x80 | (c >> 6 & 63));
        bytes[2] = (uint8_t)(0x80 | (c & 63));
        return 3;
    }
    bytes[0] = (uint8_t)(0xf0 | c >> 18);
    bytes[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    bytes[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    bytes[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

/* After \u: one code point, a surrogate pair taken together. */
static bool read_unicode(reader *r, uint8_t bytes[4], size_t *ret_len)
{
    uint32_t c, low;
    if (!read_hex4(r, &c)) {
        return false;
    }
    if (c >= 0xdc00 && c < 0xe000) {
        return false;
    }
    if (c >= 0xd800 && c < 0xdc00) {
        if (!take_word(r, "\\u") || !read_hex4(r, &low) || low < 0xdc00 || low >= 0xe000) {
            return false;
        }
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    if (c >= 0x20 || c == '\b' || c == '\t' || c == '\n' || c == '\f' || c == '\r') {
        r->canonical = false; /* a shorter way to write it */
    }
    *ret_len = put_utf8(c, bytes);
    return true;
}

static bool read_escape(reader *r)
{
    uint8_t bytes[4];
    size_t len = 1;
    if (r->at == r->end) {
        return false;
    }
    switch (*r->at++) {
    case '"':
        bytes[0] = '"';
        break;
    case '\\':
        bytes[0] = '\\';
        break;
    case '/':
        bytes[0] = '/';
        r->canonical = false;
        break;
    case 'b':
        bytes[0] = '\b';
        break;
    case 't':
        bytes[0] = '\t';
        break;
    case 'n':
        bytes[0] = '\n';
        break;
    case 'f':
        bytes[0] = '\f';
        break;
    case 'r':
        bytes[0] = '\r';
        break;
    case 'u':
        if (!read_unicode(r, bytes, &len)) {
            return false;
        }
        break;
    default:
        return false;
    }
    if (cession_buf_append(&r->text, bytes, len) != CESSION_OK) {
        PyErr_NoMemory();
        return false;
    }
    return true;
}

/* A string's text, in the input or in r->text: valid until the next string. */
static bool read_string(reader *r, cession_span *ret_text)
{
    if (!take(r, '"')) {
        return false;
    }
    const uint8_t *run = r->at;
    bool escaped = false;
    cession_buf_clear(&r->text);
    for (;;) {
        while (r->at < r->end && *r->at != '"' && *r->at != '\\' && *r->at >= 0x20) {
            r->at++;
        }
        if (r->at == r->end || *r->at < 0x20) {
            return false;
        }
        size_t len = (size_t)(r->at - run);
        if (*r->at == '"' && !escaped) {
            *ret_text = cession_span_of(run, len);
            break;
        }
        if (cession_buf_append(&r->text, run, len) != CESSION_OK) {
            PyErr_NoMemory();
            return false;
        }
        if (*r->at == '"') {
            *ret_text = cession_buf_span(&r->text);
            break;
        }
        escaped = true;
        r->at++;
        if (!read_escape(r)) {
            return false;
        }
        run = r->at;
    }
    r->at++;
    return ces_utf8_valid(ret_text->data, ret_text->len);
}

/* ---- numbers --------------------------------------------------------------------------- */

static bool take_digits(reader *r)
{
    const uint8_t *start = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') {
        r->at++;
    }
    return r->at > start;
}

/* Surely what the writer makes of the number, told without making it: at most 15
 * digits, which no two doubles share (DBL_DIG), no exponent, none needed (not below
 * 0.00001), and no zero too many at the end. */
static bool plain_float(const char *text, size_t len)
{
    const char *digits = text + (*text == '-'), *end = text + len;
    const char *point = memchr(digits, '.', (size_t)(end - digits));
    if (!point || end - digits > 16 || memchr(digits, 'e', (size_t)(end - digits)) ||
        memchr(digits, 'E', (size_t)(end - digits))) {
        return false;
    }
    if (end[-1] == '0') {
        return end - point == 2;
    }
    size_t zeros = strspn(point + 1, "0");
    return *digits != '0' || zeros < 5;
}

static PyObject *make_float(reader *r, const char *text, size_t len)
{
    char again[CX_FLOAT_TEXT];
    size_t again_len;
    double value = PyOS_string_to_double(text, NULL, PyExc_OverflowError);
    if (value == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    if (r->canonical && !plain_float(text, len)) {
        if (cx_json_float(value, again, &again_len) < 0) {
            return NULL;
        }
        r->canonical = again_len == len && memcmp(again, text, len) == 0;
    }
    return PyFloat_FromDouble(value);
}

static PyObject *make_int(reader *r, const char *text, size_t len)
{
    if (len <= 18) { /* fits 64 bits whatever the digits */
        bool negative = *text == '-';
        int64_t value = 0;
        for (const char *c = text + negative; *c; c++) {
            value = value * 10 + (*c - '0');
        }
        if (negative && value == 0) {
            r->canonical = false;
        }
        return PyLong_FromLongLong(negative ? -value : value);
    }
    PyObject *made = PyLong_FromString(text, NULL, 10);
    if (made && cx_int_bits(made) > CX_JSON_INT_BITS) {
        r->canonical = false;
    }
    return made;
}

/* Apart from the recursion for the sake of its buffer. */
__attribute__((noinline)) static PyObject *read_number(reader *r)
{
    char text[CX_JSON_NUMBER_MAX + 1];
    const uint8_t *start = r->at;
    bool whole = true;
    if (*r->at == '-') {
        r->at++;
    }
    const uint8_t *first = r->at;
    if (!take_digits(r) || (*first == '0' && r->at - first > 1)) {
        return NULL;
    }
    if (r->at < r->end && *r->at == '.') {
        r->at++;
        whole = false;
        if (!take_digits(r)) {
            return NULL;
        }
    }
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        r->at++;
        whole = false;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-')) {
            r->at++;
        }
        if (!take_digits(r)) {
            return NULL;
        }
    }
    size_t len = (size_t)(r->at - start);
    if (len > CX_JSON_NUMBER_MAX) {
        return NULL;
    }
    memcpy(text, start, len);
    text[len] = 0;
    return whole ? make_int(r, text, len) : make_float(r, text, len);
}

/* ---- containers -------------------------------------------------------------------------- */

/* Items up to the closing bracket into a new list; the opening one is taken. */
static PyObject *read_items(reader *r, unsigned depth)
{
    if (depth >= CES_MP_DEPTH_MAX) {
        return NULL;
    }
    PyObject *list = PyList_New(0);
    if (!list || take(r, ']')) {
        return list;
    }
    for (;;) {
        PyObject *item = read_value(r, depth + 1);
        if (!item || PyList_Append(list, item) < 0) {
            Py_XDECREF(item);
            break;
        }
        Py_DECREF(item);
        if (take(r, ']')) {
            return list;
        }
        if (!take(r, ',')) {
            break;
        }
    }
    Py_DECREF(list);
    return NULL;
}

static PyObject *read_set(reader *r, unsigned depth, bool frozen)
{
    if (depth >= CES_MP_DEPTH_MAX || (r->in_key && !frozen)) {
        return NULL;
    }
    PyObject *set = frozen ? PyFrozenSet_New(NULL) : PySet_New(NULL);
    if (!set || take(r, ']')) {
        return set;
    }
    bool in_key = r->in_key;
    cession_span before = {NULL, 0};
    Py_ssize_t count = 0;
    r->in_key = true;
    for (;;) {
        skip_blanks(r);
        const uint8_t *start = r->at;
        PyObject *item = read_value(r, depth + 1);
        if (!item || PySet_Add(set, item) < 0) {
            Py_XDECREF(item);
            break;
        }
        Py_DECREF(item);
        count++;
        cession_span now = cession_span_of(start, (size_t)(r->at - start));
        if (before.data) {
            int order = memcmp(before.data, now.data, before.len < now.len ? before.len : now.len);
            if (order > 0 || (order == 0 && before.len >= now.len)) {
                r->canonical = false;
            }
        }
        before = now;
        if (take(r, ']')) {
            r->in_key = in_key;
            if (PySet_GET_SIZE(set) != count) {
                r->canonical = false;
            }
            return set;
        }
        if (!take(r, ',')) {
            break;
        }
    }
    r->in_key = in_key;
    Py_DECREF(set);
    return NULL;
}

static bool is_reserved(cession_span text)
{
    return text.len >= CX_META_LEN && memcmp(text.data, CESSION_META_KEY, CX_META_LEN) == 0;
}

/* A key that is written as JSON text within a string. */
static PyObject *read_inner_key(reader *r, cession_span text, unsigned depth)
{
    reader inner = {.state = r->state,
                    .at = text.data,
                    .end = text.data + text.len,
                    .canonical = true,
                    .in_key = true};
    cession_buf_init(&inner.text, text.len);
    PyObject *key = read_value(&inner, depth);
    skip_blanks(&inner);
    if (key && inner.at != inner.end) {
        Py_CLEAR(key);
    }
    if (key && PyUnicode_CheckExact(key) &&
        PyUnicode_Tailmatch(key, r->state->n_meta, 0, PY_SSIZE_T_MAX, -1) != 1) {
        inner.canonical = false; /* needed no such writing */
    }
    if (!inner.canonical) {
        r->canonical = false;
    }
    cession_buf_release(&inner.text);
    return key;
}

static PyObject *make_key(reader *r, cession_span text, unsigned depth, bool top)
{
    if (!is_reserved(text)) {
        return cx_key_text(r->state, text.data, text.len);
    }
    if (text.len == CX_META_LEN) {
        return top ? Py_NewRef(r->state->n_meta) : NULL;
    }
    if (text.data[CX_META_LEN] != ':') {
        return NULL;
    }
    PyObject *key = read_inner_key(
        r, cession_span_of(text.data + CX_META_LEN + 1, text.len - CX_META_LEN - 1), depth);
    if (key && top && PyUnicode_CheckExact(key) &&
        PyUnicode_CompareWithASCIIString(key, CESSION_META_KEY) == 0) {
        Py_CLEAR(key);
    }
    return key;
}

/* The value of key, and both into dict; the key's string is taken. */
static bool read_pair(reader *r, PyObject *dict, cession_span key_text, unsigned depth,
                      bool ordered, bool top, bool keep_meta, bool *ret_kept)
{
    PyObject *key = make_key(r, key_text, depth + 1, top);
    PyObject *value = key && take(r, ':') ? read_value(r, depth + 1) : NULL;
    bool ok = value != NULL;
    *ret_kept = keep_meta || !top || key != r->state->n_meta;
    if (ok && *ret_kept) {
        ok = (ordered ? PyODict_SetItem(dict, key, value) : PyDict_SetItem(dict, key, value)) == 0;
    }
    Py_XDECREF(key);
    Py_XDECREF(value);
    return ok;
}

/* Pairs up to the closing brace; the first key's string is taken already. */
static bool read_pairs(reader *r, PyObject *dict, cession_span key_text, unsigned depth,
                       bool ordered, bool top, bool keep_meta)
{
    Py_ssize_t count = 0;
    for (;;) {
        bool kept;
        if (!read_pair(r, dict, key_text, depth, ordered, top, keep_meta, &kept)) {
            return false;
        }
        count++;
        if (!kept) {
            r->canonical = false;
        }
        if (take(r, '}')) {
            break;
        }
        if (!take(r, ',') || !read_string(r, &key_text)) {
            return false;
        }
    }
    if (PyDict_GET_SIZE(dict) != count) {
        r->canonical = false; /* a key that came twice */
    }
    return true;
}

/* ---- tagged values --------------------------------------------------------------------- */

static PyObject *string_value(reader *r)
{
    cession_span text;
    return read_string(r, &text) ? cx_text(text.data, text.len) : NULL;
}

static int base64_value(uint8_t c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

static PyObject *bytes_value(reader *r, bool mutable)
{
    cession_span text;
    if ((mutable && r->in_key) || !read_string(r, &text) || text.len % 4 != 0) {
        return NULL;
    }
    size_t padding = 0;
    while (padding < 2 && padding < text.len && text.data[text.len - 1 - padding] == '=') {
        padding++;
    }
    size_t len = text.len / 4 * 3 - padding;
    PyObject *made = mutable ? PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)len)
                             : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    if (!made) {
        return NULL;
    }
    uint8_t *to = (uint8_t *)(mutable ? PyByteArray_AS_STRING(made) : PyBytes_AS_STRING(made));
    uint32_t group = 0;
    size_t done = 0;
    for (size_t i = 0; i < text.len - padding; i++) {
        int six = base64_value(text.data[i]);
        if (six < 0) {
            Py_DECREF(made);
            return NULL;
        }
        group = group << 6 | (uint32_t)six;
        if (i % 4 != 0) {
            to[done++] = (uint8_t)(group >> (6 - 2 * (i % 4)));
        }
    }
    /* the bits that the padding cuts off are zero */
    if (padding > 0 && (group & (padding == 1 ? 3u : 15u)) != 0) {
        Py_CLEAR(made);
    }
    return made;
}

static PyObject *float_value(reader *r)
{
    cession_span text;
    if (!read_string(r, &text)) {
        return NULL;
    }
    if (cession_span_eq(text, cession_span_str("nan"))) {
        r->canonical = r->canonical && !r->in_key; /* as a key unequal to itself */
        return PyFloat_FromDouble(Py_NAN);
    }
    if (cession_span_eq(text, cession_span_str("inf"))) {
        return PyFloat_FromDouble(Py_HUGE_VAL);
    }
    if (cession_span_eq(text, cession_span_str("-inf"))) {
        return PyFloat_FromDouble(-Py_HUGE_VAL);
    }
    return NULL;
}

static PyObject *int_value(reader *r)
{
    cession_span text;
    if (!read_string(r, &text)) {
        return NULL;
    }
    const uint8_t *at = text.data, *end = text.data + text.len;
    at += at < end && *at == '-';
    if (end - at < 3 || at[0] != '0' || at[1] != 'x' || at[2] == '0') {
        return NULL;
    }
    for (at += 2; at < end; at++) {
        if (!((*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'f'))) {
            return NULL;
        }
    }
    PyObject *str = cx_text(text.data, text.len);
    PyObject *made = str ? PyLong_FromUnicodeObject(str, 16) : NULL;
    Py_XDECREF(str);
    if (made && cx_int_bits(made) <= CX_JSON_INT_BITS) {
        Py_CLEAR(made);
    }
    return made;
}

static PyObject *decimal_value(reader *r)
{
    cession_span text;
    if (!read_string(r, &text)) {
        return NULL;
    }
    if (r->in_key && text.len > 0 && memchr(text.data, 'N', text.len)) {
        r->canonical = false; /* NaN, as for floats */
    }
    return cx_decimal_make(r->state, (const char *)text.data, text.len);
}

static PyObject *uuid_value(reader *r)
{
    cession_span text;
    uint8_t bytes[16];
    size_t done = 0;
    if (!read_string(r, &text) || text.len != 36) {
        return NULL;
    }
    for (size_t i = 0; i < 36; i++) {
        uint8_t c = text.data[i];
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (c != '-') {
                return NULL;
            }
            continue;
        }
        int four = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (four < 0) {
            return NULL;
        }
        bytes[done / 2] = (uint8_t)(done % 2 ? bytes[done / 2] | four : four << 4);
        done++;
    }
    return cx_uuid_make(r->state, bytes);
}

static PyObject *markup_value(reader *r)
{
    PyObject *text = string_value(r);
    if (!text || !r->state->markup_type) {
        r->canonical = r->canonical && r->state->markup_type;
        return text;
    }
    PyObject *made = cx_markup_make(r->state, text);
    Py_DECREF(text);
    return made;
}

static PyObject *moment_value(reader *r, cx_kind kind)
{
    cession_span text;
    cx_moment m;
    bool fold = kind != CX_DATE && take(r, '[');
    if (!read_string(r, &text) || !cx_moment_parse(kind, (const char *)text.data, text.len, &m)) {
        return NULL;
    }
    if (fold) {
        if (!take(r, ',') || !take(r, '1') || !take(r, ']')) {
            return NULL;
        }
        m.fold = 1;
    }
    return cx_moment_make(r->state, kind, &m);
}

static PyObject *timedelta_value(reader *r)
{
    PyObject *list = take(r, '[') ? read_items(r, NO_CONTAINERS) : NULL;
    PyObject *made = NULL;
    if (list && PyList_GET_SIZE(list) == 3) {
        int64_t numbers[3];
        bool ok = true;
        for (int i = 0; i < 3; i++) {
            PyObject *item = PyList_GET_ITEM(list, i);
            int overflow = 0;
            numbers[i] = PyLong_CheckExact(item) ? PyLong_AsLongLongAndOverflow(item, &overflow)
                                                 : -1;
            ok = ok && PyLong_CheckExact(item) && overflow == 0;
        }
        if (ok && cx_delta_valid(numbers[0], numbers[1], numbers[2])) {
            PyDateTime_CAPI *dt = cx_datetime(r->state);
            made = dt->Delta_FromDelta((int)numbers[0], (int)numbers[1], (int)numbers[2], 0,
                                       dt->DeltaType);
        }
    }
    Py_XDECREF(list);
    return made;
}

static PyObject *complex_value(reader *r)
{
    PyObject *list = take(r, '[') ? read_items(r, NO_CONTAINERS) : NULL;
    PyObject *made = NULL;
    if (list && PyList_GET_SIZE(list) == 2 && PyFloat_CheckExact(PyList_GET_ITEM(list, 0)) &&
        PyFloat_CheckExact(PyList_GET_ITEM(list, 1))) {
        made = PyComplex_FromDoubles(PyFloat_AS_DOUBLE(PyList_GET_ITEM(list, 0)),
                                     PyFloat_AS_DOUBLE(PyList_GET_ITEM(list, 1)));
    }
    Py_XDECREF(list);
    return made;
}

static PyObject *tuple_value(reader *r, unsigned depth)
{
    PyObject *list = take(r, '[') ? read_items(r, depth) : NULL;
    PyObject *made = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return made;
}

static PyObject *read_object(reader *r, unsigned depth, bool ordered);

static PyObject *tagged_value(reader *r, cession_span name, unsigned depth)
{
    static const struct {
        const char *name;
        cx_kind kind;
    } tags[] = {
        {"tuple", CX_TUPLE},         {"set", CX_SET},     {"frozenset", CX_FROZENSET},
        {"odict", CX_ODICT},         {"bytes", CX_BYTES}, {"bytearray", CX_BYTEARRAY},
        {"complex", CX_COMPLEX},     {"float", CX_FLOAT}, {"int", CX_INT},
        {"decimal", CX_DECIMAL},     {"uuid", CX_UUID},   {"markup", CX_MARKUP},
        {"datetime", CX_DATETIME},   {"date", CX_DATE},   {"time", CX_TIME},
        {"timedelta", CX_TIMEDELTA},
    };
    cx_kind kind = CX_OTHER;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        if (cession_span_eq(name, cession_span_str(tags[i].name))) {
            kind = tags[i].kind;
        }
    }
    if (!take(r, ':')) { /* name is not valid after the next string */
        return NULL;
    }
    switch (kind) {
    case CX_TUPLE:
        return tuple_value(r, depth);
    case CX_SET:
    case CX_FROZENSET:
        return take(r, '[') ? read_set(r, depth, kind == CX_FROZENSET) : NULL;
    case CX_ODICT:
        return take(r, '{') ? read_object(r, depth, true) : NULL;
    case CX_BYTES:
    case CX_BYTEARRAY:
        return bytes_value(r, kind == CX_BYTEARRAY);
    case CX_COMPLEX:
        return complex_value(r);
    case CX_FLOAT:
        return float_value(r);
    case CX_INT:
        return int_value(r);
    case CX_DECIMAL:
        return decimal_value(r);
    case CX_UUID:
        return uuid_value(r);
    case CX_MARKUP:
        return markup_value(r);
    case CX_DATETIME:
    case CX_DATE:
    case CX_TIME:
        return moment_value(r, kind);
    case CX_TIMEDELTA:
        return timedelta_value(r);
    default:
        return NULL;
    }
}

/* An object that is not the top level; the opening brace is taken. */
static PyObject *read_object(reader *r, unsigned depth, bool ordered)
{
    cession_span key_text;
    bool empty = take(r, '}');
    if (!empty && !read_string(r, &key_text)) {
        return NULL;
    }
    if (!ordered && !empty && is_reserved(key_text) && key_text.len > CX_META_LEN &&
        key_text.data[CX_META_LEN] != ':') {
        PyObject *value = tagged_value(
            r, cession_span_of(key_text.data + CX_META_LEN, key_text.len - CX_META_LEN), depth);
        if (value && !take(r, '}')) {
            Py_CLEAR(value);
        }
        return value;
    }
    if (depth >= CES_MP_DEPTH_MAX || r->in_key) {
        return NULL;
    }
    PyObject *dict = ordered ? PyODict_New() : PyDict_New();
    if (dict && !empty && !read_pairs(r, dict, key_text, depth, ordered, false, false)) {
        Py_CLEAR(dict);
    }
    return dict;
}

/* ---- any value ------------------------------------------------------------------------- */

static PyObject *read_value(reader *r, unsigned depth)
{
    switch (peek(r)) {
    case '"':
        return string_value(r);
    case '{':
        r->at++;
        return read_object(r, depth, false);
    case '[':
        r->at++;
        return r->in_key ? NULL : read_items(r, depth); /* a tuple would be tagged */
    case 't':
        return take_word(r, "true") ? Py_NewRef(Py_True) : NULL;
    case 'f':
        return take_word(r, "false") ? Py_NewRef(Py_False) : NULL;
    case 'n':
        return take_word(r, "null") ? Py_NewRef(Py_None) : NULL;
    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':
        return read_number(r);
    default:
        return NULL;
    }
}

int cx_decode_json(cx_codec_state *state, cession_span value, PyObject *into, bool keep_meta,
                   bool *ret_canonical)
{
    reader r = {.state = state, .at = value.data, .end = value.data + value.len, .canonical = true};
    cession_span key_text;
    cession_buf_init(&r.text, value.len);
    bool ok = take(&r, '{');
    if (ok && !take(&r, '}')) {
        ok = read_string(&r, &key_text) &&
             read_pairs(&r, into, key_text, 0, false, true, keep_meta);
    }
    if (ok) {
        skip_blanks(&r);
        ok = r.at == r.end;
    }
    cession_buf_release(&r.text);
    if (ok) {
        *ret_canonical = r.canonical;
        return 1;
    }
    if (!PyErr_Occurred()) {
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_MemoryError) || !PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyErr_Clear(); /* an unhashable key, a number out of range */
    return 0;
}
