/* The careful walk over a session, for any format.
 *
 * Encoding may run the application's code: items() of a subclass, the value of an
 * Enum, a tzinfo, filters of warnings, finalizers. Such code, or another thread that
 * runs meanwhile, may change any container. So the walk first copies the items of a
 * container into an array of its own, with references, in one go that runs no code,
 * and then only looks at that array. */
#include "codec_impl.h"

static int take_room(cx_enc *e, size_t more)
{
    int status = cession_buf_reserve(e->out, more);
    if (status != CESSION_OK) {
        if (status == CESSION_E_NOMEM) {
            PyErr_NoMemory();
        } else {
            PyErr_Format(PyExc_OverflowError, "the session needs more than %zu bytes", e->out->max);
        }
        return -1;
    }
    e->at = e->out->data + e->out->len;
    e->end = e->out->data + e->out->cap;
    return 0;
}

int cx_enc_begin(cx_enc *e, cx_codec_state *state, const cx_writer *writer, bool strict,
                 cession_buf *out)
{
    memset(e, 0, sizeof *e);
    e->state = state;
    e->writer = writer;
    e->strict = strict;
    e->out = out;
    return take_room(e, 1); /* so that there is memory to point to */
}

void cx_enc_end(cx_enc *e, size_t start, bool ok)
{
    e->out->len = ok ? cx_tell(e) : start;
}

int cx_grow(cx_enc *e, size_t more)
{
    e->out->len = cx_tell(e);
    return take_room(e, more);
}

/* ---- copies of items ------------------------------------------------------------ */

/* Items with references: of a dict keys and values in turn. */
typedef struct shot {
    PyObject **items;
    size_t count;  /* items, or pairs */
    size_t filled; /* references held */
    PyObject *few[16];
} shot;

static void shot_release(shot *s)
{
    while (s->filled > 0) {
        Py_DECREF(s->items[--s->filled]);
    }
    if (s->items != s->few) {
        PyMem_Free(s->items);
    }
}

static int shot_init(shot *s, Py_ssize_t count, size_t width)
{
    s->count = (size_t)count;
    s->filled = 0;
    s->items = s->few;
    if (s->count * width > sizeof s->few / sizeof *s->few) {
        s->items = PyMem_New(PyObject *, s->count * width);
        if (!s->items) {
            PyErr_NoMemory();
            return -1;
        }
    }
    return 0;
}

static void shot_add(shot *s, PyObject *item)
{
    s->items[s->filled++] = Py_NewRef(item);
}

static int shot_dict(shot *s, PyObject *dict)
{
    if (shot_init(s, PyDict_GET_SIZE(dict), 2) < 0) {
        return -1;
    }
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    while (s->filled < 2 * s->count && PyDict_Next(dict, &pos, &key, &value)) {
        shot_add(s, key);
        shot_add(s, value);
    }
    s->count = s->filled / 2;
    return 0;
}

/* Pairs out of what items() gave. */
static int shot_pairs(shot *s, PyObject *pairs)
{
    PyObject *list = PySequence_List(pairs);
    if (!list) {
        return -1;
    }
    int result = shot_init(s, PyList_GET_SIZE(list), 2);
    for (size_t i = 0; result == 0 && i < s->count; i++) {
        PyObject *pair = (Py_ssize_t)i < PyList_GET_SIZE(list)
                             ? PySequence_Tuple(PyList_GET_ITEM(list, (Py_ssize_t)i))
                             : PyTuple_New(0);
        if (!pair) {
            result = -1;
        } else if (PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_ValueError, "session: items() must give pairs");
            result = -1;
        } else {
            shot_add(s, PyTuple_GET_ITEM(pair, 0));
            shot_add(s, PyTuple_GET_ITEM(pair, 1));
        }
        Py_XDECREF(pair);
    }
    if (result < 0) {
        shot_release(s);
    }
    Py_DECREF(list);
    return result;
}

static int shot_sequence(shot *s, cx_kind kind, PyObject *seq)
{
    bool list = kind == CX_LIST;
    if (shot_init(s, list ? PyList_GET_SIZE(seq) : PyTuple_GET_SIZE(seq), 1) < 0) {
        return -1;
    }
    for (size_t i = 0; i < s->count; i++) {
        shot_add(s,
                 list ? PyList_GET_ITEM(seq, (Py_ssize_t)i) : PyTuple_GET_ITEM(seq, (Py_ssize_t)i));
    }
    return 0;
}

/* A set's items by way of a private list: listing an exact set runs no code of its
 * items. */
static int shot_set(shot *s, PyObject *set)
{
    PyObject *list = PySequence_List(set);
    if (!list) {
        return -1;
    }
    int result = shot_sequence(s, CX_LIST, list);
    Py_DECREF(list);
    return result;
}

/* ---- sorting encoded items -------------------------------------------------------- */

typedef struct piece {
    size_t start, len;
    const uint8_t *base;
} piece;

static int piece_order(const void *a, const void *b)
{
    const piece *x = a, *y = b;
    size_t shorter = x->len < y->len ? x->len : y->len;
    int order = memcmp(x->base + x->start, y->base + y->start, shorter);
    return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

static bool piece_equal(const piece *a, const piece *b)
{
    return piece_order(a, b) == 0;
}

static void sort_pieces(piece *pieces, size_t count, const uint8_t *base)
{
    for (size_t i = 0; i < count; i++) {
        pieces[i].base = base;
    }
    if (count > 1) {
        qsort(pieces, count, sizeof *pieces, piece_order);
    }
}

/* ---- the walk ------------------------------------------------------------------- */

static int walk_value(cx_enc *e, PyObject *obj, const cx_path *path, unsigned depth, bool in_key);

/* The keys that most dicts have: equal bytes only of equal keys. */
static bool plain_key(const cx_codec_state *state, PyObject *key)
{
    switch (cx_kind_of(state, key)) {
    case CX_STR:
    case CX_INT:
    case CX_BOOL:
    case CX_NONE:
    case CX_BYTES:
        return true;
    default:
        return false;
    }
}

static int check_meta(const cx_enc *e, PyObject *key, const cx_path *place)
{
    if (!e->allow_meta && PyUnicode_CheckExact(key) &&
        PyUnicode_CompareWithASCIIString(key, CESSION_META_KEY) == 0) {
        return cx_fail_at(PyExc_ValueError, place->up, "the key '%s' is reserved",
                          CESSION_META_KEY);
    }
    return 0;
}

static int walk_key(cx_enc *e, PyObject *key, cx_path *place, unsigned depth, bool top)
{
    cx_codec_state *state = e->state;
    bool listed = false;
    size_t mark;
    place->at_key = true;
    Py_INCREF(key);
    /* Made simple before the key is opened: a format may write str keys otherwise. */
    for (unsigned level = depth; cx_kind_of(state, key) == CX_OTHER; level++) {
        if (level >= CES_MP_DEPTH_MAX) {
            Py_DECREF(key);
            return cx_fail_at(PyExc_ValueError, place, "nested too deeply");
        }
        PyObject *simple = cx_flatten(e, key, place, true, &listed);
        Py_DECREF(key);
        if (!simple) {
            return -1;
        }
        key = simple;
    }
    int result = top ? check_meta(e, key, place) : 0;
    if (result == 0 &&
        (e->writer->key_open(e, key, top, &mark) < 0 ||
         walk_value(e, key, place, depth, true) < 0 || e->writer->key_close(e, mark) < 0)) {
        result = -1;
    }
    Py_DECREF(key);
    place->at_key = false;
    return result;
}

/* Two keys with the same bytes: different before flattening, one afterwards. */
static int refuse_twins(cx_enc *e, piece *keys, size_t count, const cx_path *path)
{
    sort_pieces(keys, count, e->out->data);
    for (size_t i = 1; i < count; i++) {
        if (piece_equal(&keys[i - 1], &keys[i])) {
            return cx_fail_at(PyExc_ValueError, path, "two keys would be stored alike");
        }
    }
    return 0;
}

static int walk_pairs(cx_enc *e, cx_kind kind, const shot *s, PyObject *container,
                      const cx_path *path, unsigned depth, bool top)
{
    const cx_writer *w = e->writer;
    cx_path place = {.up = path, .container = container};
    piece *keys = NULL;
    size_t mark;
    /* items() may give any pairs, the same key twice included */
    bool check = top && e->flattened;
    for (size_t i = 0; !check && i < s->count; i++) {
        check = !plain_key(e->state, s->items[2 * i]);
    }
    if (check && s->count > 1) {
        keys = PyMem_New(piece, s->count);
        if (!keys) {
            PyErr_NoMemory();
            return -1;
        }
    }
    int result = w->open(e, kind, s->count, top, &mark);
    for (size_t i = 0; result == 0 && i < s->count; i++) {
        if (i > 0 && w->between && cx_put_byte(e, (uint8_t)w->between) < 0) {
            result = -1;
            break;
        }
        size_t start = cx_tell(e);
        place.key = s->items[2 * i];
        result = walk_key(e, place.key, &place, depth, top);
        if (keys) {
            keys[i].start = start;
            keys[i].len = cx_tell(e) - start;
        }
        if (result == 0 && ((w->after_key && cx_put_byte(e, (uint8_t)w->after_key) < 0) ||
                            walk_value(e, s->items[2 * i + 1], &place, depth, false) < 0)) {
            result = -1;
        }
    }
    if (result == 0 && keys) {
        result = refuse_twins(e, keys, s->count, path);
    }
    if (result == 0) {
        result = w->close(e, kind, top, mark);
    }
    PyMem_Free(keys);
    return result;
}

static int walk_items(cx_enc *e, cx_kind kind, const shot *s, PyObject *container,
                      const cx_path *path, unsigned depth, bool in_key)
{
    const cx_writer *w = e->writer;
    cx_path place = {.up = path, .container = container};
    size_t mark;
    int result = w->open(e, kind, s->count, false, &mark);
    for (size_t i = 0; result == 0 && i < s->count; i++) {
        place.index = (Py_ssize_t)i;
        if ((i > 0 && w->between && cx_put_byte(e, (uint8_t)w->between) < 0) ||
            walk_value(e, s->items[i], &place, depth, in_key) < 0) {
            result = -1;
        }
    }
    return result == 0 ? w->close(e, kind, false, mark) : -1;
}

/* Items are encoded where the set begins, then sorted through a copy: their number
 * is only known then, since flattening may make two of them one. */
static int walk_set(cx_enc *e, cx_kind kind, const shot *s, PyObject *container,
                    const cx_path *path, unsigned depth)
{
    const cx_writer *w = e->writer;
    cx_path place = {.up = path, .container = container, .index = -1};
    size_t start = cx_tell(e), count = s->count, mark;
    bool flattened = e->flattened;
    uint8_t *copy = NULL;
    int result = -1;
    piece *pieces = PyMem_New(piece, count > 0 ? count : 1);
    if (!pieces) {
        PyErr_NoMemory();
        return -1;
    }
    e->flattened = false;
    for (size_t i = 0; i < count; i++) {
        pieces[i].start = cx_tell(e) - start;
        if (walk_value(e, s->items[i], &place, depth, kind != CX_LIST) < 0) {
            goto done;
        }
        pieces[i].len = cx_tell(e) - start - pieces[i].start;
    }
    size_t total = cx_tell(e) - start;
    copy = PyMem_Malloc(total > 0 ? total : 1);
    if (!copy) {
        PyErr_NoMemory();
        goto done;
    }
    memcpy(copy, e->out->data + start, total);
    e->at = e->out->data + start;
    sort_pieces(pieces, count, copy);
    if (e->flattened) {
        size_t kept = 0;
        for (size_t i = 0; i < count; i++) {
            if (kept == 0 || !piece_equal(&pieces[kept - 1], &pieces[i])) {
                pieces[kept++] = pieces[i];
            }
        }
        count = kept;
    }
    if (w->open(e, kind, count, false, &mark) < 0) {
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        if ((i > 0 && w->between && cx_put_byte(e, (uint8_t)w->between) < 0) ||
            cx_put(e, copy + pieces[i].start, pieces[i].len) < 0) {
            goto done;
        }
    }
    result = w->close(e, kind, false, mark);
done:
    e->flattened = e->flattened || flattened;
    PyMem_Free(copy);
    PyMem_Free(pieces);
    return result;
}

static int fail_depth(const cx_path *path, PyObject *container)
{
    for (const cx_path *p = path; p; p = p->up) {
        if (cx_path_holds(p->up, p->container)) {
            /* the innermost place that is met a second time; go on to the outermost */
            const cx_path *outer = p;
            for (const cx_path *q = p->up; q; q = q->up) {
                outer = cx_path_holds(q->up, q->container) ? q : outer;
            }
            return cx_fail_at(PyExc_ValueError, outer->up, "%.100s contains itself",
                              Py_TYPE(outer->container)->tp_name);
        }
    }
    return cx_fail_at(PyExc_ValueError, path, "%.100s is nested more than %u deep",
                      Py_TYPE(container)->tp_name, CES_MP_DEPTH_MAX);
}

/* depth: containers around the container `shown`, which obj is or was made from. */
static int walk_container(cx_enc *e, cx_kind kind, PyObject *obj, PyObject *shown,
                          const cx_path *path, unsigned depth, bool in_key, bool listed)
{
    shot s;
    int result;
    if (depth >= CES_MP_DEPTH_MAX) {
        return fail_depth(path, shown);
    }
    if (in_key && kind != CX_TUPLE && kind != CX_FROZENSET) {
        return cx_fail_at(PyExc_TypeError, path,
                          "objects of type %.100s cannot be stored as a key or in a set",
                          Py_TYPE(shown)->tp_name);
    }
    switch (kind) {
    case CX_LIST:
    case CX_TUPLE:
        result = shot_sequence(&s, kind, obj);
        break;
    case CX_SET:
    case CX_FROZENSET:
        result = shot_set(&s, obj);
        break;
    case CX_ODICT: {
        /* PyDict_Next does not know the order of an OrderedDict */
        PyObject *pairs = PyObject_CallMethodNoArgs(obj, e->state->n_items);
        result = pairs ? shot_pairs(&s, pairs) : -1;
        Py_XDECREF(pairs);
        break;
    }
    default:
        result = shot_dict(&s, obj);
    }
    if (result < 0) {
        return -1;
    }
    if (kind == CX_LIST || kind == CX_TUPLE) {
        result = walk_items(e, kind, &s, shown, path, depth + 1, in_key);
    } else if (kind == CX_SET || kind == CX_FROZENSET) {
        result = walk_set(e, listed ? CX_LIST : kind, &s, shown, path, depth + 1);
    } else {
        result = walk_pairs(e, kind, &s, shown, path, depth + 1, false);
    }
    shot_release(&s);
    return result;
}

static int walk_simple(cx_enc *e, PyObject *obj, PyObject *shown, const cx_path *path,
                       unsigned depth, bool in_key, bool listed);

/* obj made simpler, and then that. */
static int walk_other(cx_enc *e, PyObject *obj, PyObject *shown, const cx_path *path,
                      unsigned depth, bool in_key)
{
    bool listed = false;
    if (depth >= CES_MP_DEPTH_MAX) {
        return fail_depth(path, shown);
    }
    PyObject *simple = cx_flatten(e, obj, path, in_key, &listed);
    if (!simple) {
        return -1;
    }
    int result;
    if (PyType_IsSubtype(Py_TYPE(obj), e->state->enum_type)) {
        /* its value is a level of its own: it may be an Enum member again, or hold this one */
        cx_path place = {.up = path, .container = shown, .index = -2};
        result = walk_simple(e, simple, simple, &place, depth + 1, in_key, listed);
    } else {
        result = walk_simple(e, simple, shown, path, depth, in_key, listed);
    }
    Py_DECREF(simple);
    return result;
}

static int walk_simple(cx_enc *e, PyObject *obj, PyObject *shown, const cx_path *path,
                       unsigned depth, bool in_key, bool listed)
{
    cx_kind kind = cx_kind_of(e->state, obj);
    if (kind >= CX_LIST) {
        return walk_container(e, kind, obj, shown, path, depth, in_key, listed);
    }
    if (kind == CX_OTHER ||
        ((kind == CX_DATETIME || kind == CX_TIME) && cx_foreign_tz(e->state, kind, obj))) {
        return walk_other(e, obj, shown, path, depth, in_key);
    }
    if (in_key && kind == CX_BYTEARRAY) {
        return cx_fail_at(PyExc_TypeError, path,
                          "objects of type %.100s cannot be stored as a key or in a set",
                          Py_TYPE(shown)->tp_name);
    }
    return e->writer->leaf(e, kind, obj, path);
}

static int walk_value(cx_enc *e, PyObject *obj, const cx_path *path, unsigned depth, bool in_key)
{
    return walk_simple(e, obj, obj, path, depth, in_key, false);
}

/* ---- the session itself ----------------------------------------------------------- */

static bool same_method(PyTypeObject *type, PyObject *name, PyObject *own)
{
    PyObject *found = _PyType_Lookup(type, name);
    return found == own || found == _PyType_Lookup(&PyDict_Type, name);
}

bool cx_items_overridden(const cx_codec_state *state, PyObject *session)
{
    PyTypeObject *type = Py_TYPE(session);
    return type != &PyDict_Type && !(same_method(type, state->n_items, state->own_items) &&
                                     same_method(type, state->n_keys, state->own_keys) &&
                                     same_method(type, state->n_getitem, state->own_getitem));
}

int cx_walk_session(cx_enc *e, PyObject *session)
{
    shot s;
    int result;
    e->flattened = cx_items_overridden(e->state, session);
    if (e->flattened) {
        PyObject *pairs = PyObject_CallMethodNoArgs(session, e->state->n_items);
        result = pairs ? shot_pairs(&s, pairs) : -1;
        Py_XDECREF(pairs);
    } else {
        result = shot_dict(&s, session);
    }
    if (result < 0) {
        return -1;
    }
    if (s.count > CESSION_ENTRIES_MAX) {
        PyErr_Format(PyExc_OverflowError, "session: more than %u keys", CESSION_ENTRIES_MAX);
        result = -1;
    } else {
        result = walk_pairs(e, CX_DICT, &s, session, NULL, 1, true);
    }
    shot_release(&s);
    return result;
}
