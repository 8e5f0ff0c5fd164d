/* A serializer that the application put in place of ours: any object with dumps and loads
 * (orjson, json, pickle, ...) or encode and decode.
 *
 * The flow's view of such a value is one entry per key, its bytes being dumps({key: value}):
 * what a serializer writes for one key of many cannot be cut out of the whole. The key's own
 * bytes are MessagePack, and so are the two things that must be recognized whatever the
 * serializer does, the metadata's value and the tombstone. Metadata beyond a tombstone is
 * found in a stored value only where the serializer leaves its key readable in the bytes.
 *
 * Two dumps of equal data should be equal bytes. Where they are not (encryption), every
 * request that uses the session writes it, and of two that do so at once the later one wins
 * with all its keys. */
#include "codec_impl.h"

#include "cession/store.h"

/* ---- the serializer ------------------------------------------------------------------ */

/* Replace the content of out by dumps(dict). 0, or -1 with an exception. */
static int dump(const cx_flow_codec *codec, PyObject *dict, cession_buf *out)
{
    PyObject *made = PyObject_CallOneArg(codec->dumps, dict);
    const char *text = NULL;
    Py_ssize_t len = 0;
    Py_buffer buffer = {0};
    if (!made) {
        return -1;
    }
    if (PyUnicode_Check(made)) {
        text = PyUnicode_AsUTF8AndSize(made, &len);
    } else if (PyObject_GetBuffer(made, &buffer, PyBUF_SIMPLE) == 0) {
        text = buffer.buf;
        len = buffer.len;
    } else {
        PyErr_Format(PyExc_TypeError, "the serializer must give bytes or str, not %.100s",
                     Py_TYPE(made)->tp_name);
    }
    int status = PyErr_Occurred() ? CESSION_E_CALLBACK : cession_buf_set(out, text, (size_t)len);
    if (status == CESSION_E_NOMEM) {
        PyErr_NoMemory();
    } else if (status == CESSION_E_LIMIT) {
        PyErr_Format(PyExc_OverflowError, "session: more than %u bytes", CESSION_VALUE_MAX);
    }
    PyBuffer_Release(&buffer);
    Py_DECREF(made);
    return status == CESSION_OK ? 0 : -1;
}

/* 1: *ret_dict is what loads made of value; 0: it makes no dict of it; -1: exception. */
static int load(const cx_flow_codec *codec, cession_span value, PyObject **ret_dict)
{
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)value.data, (Py_ssize_t)value.len);
    PyObject *made = bytes ? PyObject_CallOneArg(codec->loads, bytes) : NULL;
    Py_XDECREF(bytes);
    if (!made) {
        if (!bytes || PyErr_ExceptionMatches(PyExc_MemoryError) ||
            !PyErr_ExceptionMatches(PyExc_Exception)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    if (!PyDict_Check(made)) {
        Py_DECREF(made);
        return 0;
    }
    *ret_dict = made;
    return 1;
}

/* The same for what lies in a store: also a tombstone. Nothing else of ours is taken; a
 * serializer that authenticates what it reads must not be gone round. */
static int load_stored(const cx_flow_codec *codec, cession_span value, PyObject **ret_dict)
{
    bool canonical;
    if (!cession_span_eq(value, codec->base.tombstone)) {
        return load(codec, value, ret_dict);
    }
    PyObject *dict = PyDict_New();
    int result = dict ? cx_decode_msgpack(codec->state, value, dict, true, &canonical) : -1;
    if (result == 1) {
        *ret_dict = dict;
    } else {
        Py_XDECREF(dict);
    }
    return result;
}

int cx_flow_encode(const cx_flow_codec *codec, PyObject *session, bool strict, cession_buf *out)
{
    if (!codec->dumps) {
        return cx_encode_as(codec->state, codec->format, session, strict, false, out);
    }
    if (!PyDict_Check(session)) {
        PyErr_Format(PyExc_TypeError, "a session is a dict, not %.100s", Py_TYPE(session)->tp_name);
        return -1;
    }
    PyObject *copy;
    if (cx_items_overridden(codec->state, session)) {
        copy = PyDict_New();
        PyObject *items = copy ? PyObject_CallMethodNoArgs(session, codec->state->n_items) : NULL;
        if (!items || PyDict_MergeFromSeq2(copy, items, 1) < 0) {
            Py_CLEAR(copy);
        }
        Py_XDECREF(items);
    } else {
        copy = PyDict_Copy(session);
    }
    int result = copy ? PyDict_Contains(copy, codec->state->n_meta) : -1;
    if (result == 1) {
        result = cx_fail_at(PyExc_ValueError, NULL, "the key '%s' is reserved", CESSION_META_KEY);
    } else if (result == 0) {
        result = dump(codec, copy, out);
    }
    Py_XDECREF(copy);
    return result;
}

int cx_flow_decode(const cx_flow_codec *codec, cession_span value, PyObject *into,
                   bool *ret_canonical)
{
    PyObject *dict;
    if (!codec->dumps) {
        return cx_decode_format(codec->state, codec->format, value, into, ret_canonical);
    }
    int result = load_stored(codec, value, &dict);
    if (result != 1) {
        return result;
    }
    int meta = PyDict_Contains(dict, codec->state->n_meta);
    if (meta < 0 || (meta == 1 && PyDict_DelItem(dict, codec->state->n_meta) < 0) ||
        PyDict_Update(into, dict) < 0) {
        PyDict_Clear(into);
        result = -1;
    } else {
        *ret_canonical = false;
    }
    Py_DECREF(dict);
    return result;
}

/* ---- the flow's three functions ---------------------------------------------------------- */

static int custom_canonical(const cession_codec *self, cession_span value, cession_buf *out,
                            cession_error *err)
{
    const cx_flow_codec *codec = (const cx_flow_codec *)self;
    PyObject *dict;
    int result = load_stored(codec, value, &dict);
    if (result != 1) {
        return result == 0 ? cession_fail(err, CESSION_E_FORMAT, NULL) : cx_codec_failed(err);
    }
    result = dump(codec, dict, out);
    Py_DECREF(dict);
    return result < 0 ? cx_codec_failed(err) : CESSION_OK;
}

static bool is_meta(const cx_flow_codec *codec, PyObject *key, PyObject *item)
{
    return PyUnicode_CheckExact(key) && PyDict_CheckExact(item) &&
           PyUnicode_Compare(key, codec->state->n_meta) == 0;
}

/* The item of a key: canonical MessagePack, so that equal keys are equal bytes. */
static int dump_key(const cx_flow_codec *codec, PyObject *key, cession_buf *out)
{
    PyObject *one = PyDict_New();
    int result = one ? PyDict_SetItem(one, key, Py_None) : -1;
    cession_buf_clear(out);
    if (result == 0) {
        result = cx_encode_as(codec->state, CX_MSGPACK, one, true, true, out);
    }
    if (result == 0) { /* without the header of the map and without nil */
        memmove(out->data, out->data + 1, out->len - 2);
        out->len -= 2;
    }
    Py_XDECREF(one);
    return result;
}

static int dump_item(const cx_flow_codec *codec, PyObject *key, PyObject *item, cession_buf *out)
{
    if (is_meta(codec, key, item)) {
        cession_buf_clear(out);
        return cx_encode_as(codec->state, CX_MSGPACK, item, true, true, out);
    }
    PyObject *one = PyDict_New();
    int result = one ? PyDict_SetItem(one, key, item) : -1;
    if (result == 0) {
        result = dump(codec, one, out);
    }
    Py_XDECREF(one);
    return result;
}

/* Append one entry; its spans get their place when storage no longer grows. */
static int add_entry(const cx_flow_codec *codec, PyObject *key, PyObject *item,
                     cession_buf *scratch, cession_view *view)
{
    size_t len[2];
    for (int i = 0; i < 2; i++) {
        if ((i == 0 ? dump_key(codec, key, scratch) : dump_item(codec, key, item, scratch)) < 0) {
            return CESSION_E_CALLBACK;
        }
        int status = cession_buf_append(&view->storage, scratch->data, scratch->len);
        if (status != CESSION_OK) {
            return status;
        }
        len[i] = scratch->len;
    }
    return cession_view_add(view, cession_span_of(NULL, len[0]), cession_span_of(NULL, len[1]));
}

static int view_dict(const cx_flow_codec *codec, PyObject *dict, cession_view *view,
                     cession_error *err)
{
    Py_ssize_t at = 0;
    PyObject *key, *item;
    cession_buf scratch;
    int status = CESSION_OK;
    cession_buf_init(&scratch, CESSION_VALUE_MAX);
    cession_buf_clear(&view->storage);
    view->count = 0;
    while (status == CESSION_OK && PyDict_Next(dict, &at, &key, &item)) {
        Py_INCREF(key);
        Py_INCREF(item);
        status = add_entry(codec, key, item, &scratch, view);
        Py_DECREF(key);
        Py_DECREF(item);
    }
    const uint8_t *place = view->storage.data;
    for (size_t i = 0; i < view->count; i++) {
        cession_entry *entry = &view->entries[i];
        entry->key.data = place;
        entry->value.data = place + entry->key.len;
        place += entry->key.len + entry->value.len;
    }
    cession_buf_release(&scratch);
    if (status == CESSION_E_CALLBACK) {
        return cx_codec_failed(err);
    }
    return status == CESSION_OK ? status : cession_fail(err, status, NULL);
}

static int custom_view(const cession_codec *self, cession_span value, cession_view *ret_view,
                       cession_error *err)
{
    const cx_flow_codec *codec = (const cx_flow_codec *)self;
    const cession_codec *ours = cession_codec_msgpack();
    PyObject *dict;
    /* The tombstone is no business of the serializer's, nor is the metadata in it. */
    size_t before = 1 + self->meta_key.len;
    if (cession_span_eq(value, self->tombstone) ||
        cession_span_eq(
            value, cession_span_of(self->tombstone.data + before, self->tombstone.len - before))) {
        return ours->view(ours, value, ret_view, err);
    }
    int result = load(codec, value, &dict);
    if (result < 0) {
        return cx_codec_failed(err);
    }
    if (result == 0) { /* other metadata */
        return ours->view(ours, value, ret_view, err);
    }
    int status = view_dict(codec, dict, ret_view, err);
    Py_DECREF(dict);
    return status;
}

/* Put the one entry back into dict. 0, or -1 with an exception. */
static int take_entry(const cx_flow_codec *codec, const cession_entry *entry, PyObject *dict)
{
    PyObject *one = NULL;
    int result;
    if (cession_span_eq(entry->key, codec->base.meta_key)) {
        bool canonical;
        one = PyDict_New();
        result = one ? cx_decode_msgpack(codec->state, entry->value, one, true, &canonical) : -1;
        if (result == 1 && PyDict_SetItem(dict, codec->state->n_meta, one) < 0) {
            result = -1;
        }
    } else {
        result = load(codec, entry->value, &one);
        if (result == 1 && PyDict_Update(dict, one) < 0) {
            result = -1;
        }
    }
    Py_XDECREF(one);
    if (result == 0) {
        PyErr_SetString(PyExc_ValueError, "the serializer cannot read what it wrote");
    }
    return result == 1 ? 0 : -1;
}

static int custom_compose(const cession_codec *self, const cession_entry *entries, size_t count,
                          cession_buf *out, cession_error *err)
{
    const cx_flow_codec *codec = (const cx_flow_codec *)self;
    PyObject *dict = PyDict_New();
    int result = dict ? 0 : -1;
    for (size_t i = 0; result == 0 && i < count; i++) {
        result = take_entry(codec, &entries[i], dict);
    }
    if (result == 0) {
        result = dump(codec, dict, out);
    }
    Py_XDECREF(dict);
    return result < 0 ? cx_codec_failed(err) : CESSION_OK;
}

/* ---- which methods ------------------------------------------------------------------------- */

/* *ret_method: serializer.name if it can be called, else NULL. 0, or -1 with an exception. */
static int find_method(PyObject *serializer, const char *name, PyObject **ret_method)
{
    int found = cx_get_optional_string(serializer, name, ret_method);
    if (found == 1 && !PyCallable_Check(*ret_method)) {
        Py_CLEAR(*ret_method);
    }
    return found < 0 ? -1 : 0;
}

int cx_flow_codec_init_custom(cx_flow_codec *codec, cx_codec_state *state, PyObject *serializer)
{
    static const char *const pairs[][2] = {{"dumps", "loads"}, {"encode", "decode"}};
    for (size_t i = 0; i < 2; i++) {
        PyObject *dumps = NULL, *loads = NULL;
        if (find_method(serializer, pairs[i][0], &dumps) < 0 ||
            find_method(serializer, pairs[i][1], &loads) < 0) {
            Py_XDECREF(dumps);
            return -1;
        }
        if (dumps && loads) {
            codec->base = *cession_codec_msgpack(); /* the reserved items, the tombstone */
            codec->base.name = "custom";
            codec->base.view = custom_view;
            codec->base.compose = custom_compose;
            codec->base.canonical = custom_canonical;
            codec->state = state;
            codec->format = CX_MSGPACK;
            codec->dumps = dumps;
            codec->loads = loads;
            return 0;
        }
        Py_XDECREF(dumps);
        Py_XDECREF(loads);
    }
    PyErr_Format(PyExc_TypeError,
                 "a serializer has the methods dumps and loads, or encode and decode; %.100s has "
                 "neither pair",
                 Py_TYPE(serializer)->tp_name);
    return -1;
}
