/* Which format a value is in; the codecs that the flow merges with; and the
 * module-level functions. */
#include "codec_impl.h"

#include "cession/store.h"
#include "session/pickle.h"

/* ---- reading whatever is there ----------------------------------------------------- */

/* A pickle of plain data, by way of MessagePack. */
static int decode_pickle(cx_codec_state *state, cession_span value, PyObject *into, bool keep_meta,
                         bool *ret_canonical)
{
    cession_buf packed;
    int result = 0;
    cession_buf_init(&packed, CESSION_VALUE_MAX);
    int status = ces_pickle_to_msgpack(value, &packed, NULL);
    if (status == CESSION_OK) {
        result = cx_decode_msgpack(state, cession_buf_span(&packed), into, keep_meta,
                                   ret_canonical);
        *ret_canonical = false;
    } else if (status == CESSION_E_NOMEM) {
        PyErr_NoMemory();
        result = -1;
    }
    cession_buf_release(&packed);
    return result;
}

int cx_decode_any(cx_codec_state *state, cession_span value, PyObject *into, bool keep_meta,
                  cx_format *ret_format, bool *ret_canonical)
{
    int result = cx_decode_msgpack(state, value, into, keep_meta, ret_canonical);
    if (result != 0) {
        *ret_format = CX_MSGPACK;
        return result;
    }
    PyDict_Clear(into);
    result = cx_decode_json(state, value, into, keep_meta, ret_canonical);
    if (result != 0) {
        *ret_format = CX_JSON;
        return result;
    }
    PyDict_Clear(into);
    *ret_format = CX_PICKLE;
    return decode_pickle(state, value, into, keep_meta, ret_canonical);
}

int cx_decode_format(cx_codec_state *state, cx_format format, cession_span value, PyObject *into,
                     bool *ret_canonical)
{
    cx_format found;
    bool canonical;
    int result = cx_decode_any(state, value, into, false, &found, &canonical);
    if (result == 1) {
        *ret_canonical = canonical && found == format;
    } else {
        PyDict_Clear(into);
    }
    return result;
}

/* ---- codecs for the flow ------------------------------------------------------------ */

/* An exception as a status; the flow's caller sees the exception first. */
int cx_codec_failed(cession_error *err)
{
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    return cession_fail(err, CESSION_E_CALLBACK, NULL);
}

/* The canonical bytes of value in this codec's format, metadata included. same_format:
 * bytes of another are E_FORMAT. */
static int make_canonical(const cession_codec *self, cession_span value, bool same_format,
                          cession_buf *out, cession_error *err)
{
    const cx_flow_codec *codec = (const cx_flow_codec *)self;
    cx_format found;
    bool canonical;
    PyObject *dict = PyDict_New();
    int result = dict ? cx_decode_any(codec->state, value, dict, true, &found, &canonical) : -1;
    int status = CESSION_OK;
    if (result == 0 || (result == 1 && same_format && found != codec->format)) {
        status = cession_fail(err, CESSION_E_FORMAT, NULL);
    } else if (result == 1 && canonical && found == codec->format) {
        status = cession_buf_set(out, value.data, value.len);
        if (status != CESSION_OK) {
            cession_fail(err, status, NULL);
        }
    } else if (result == 1) {
        cession_buf_clear(out);
        result = cx_encode_as(codec->state, codec->format, dict, false, true, out);
        if (result < 0 && PyErr_ExceptionMatches(PyExc_OverflowError)) {
            PyErr_Clear();
            result = 0;
            status = cession_fail(err, CESSION_E_LIMIT, NULL);
        } else if (result < 0 && PyErr_ExceptionMatches(PyExc_ValueError)) {
            /* two NaN as keys: readable, but no map of unique keys */
            PyErr_Clear();
            result = 0;
            status = cession_fail(err, CESSION_E_FORMAT, NULL);
        }
    }
    Py_XDECREF(dict);
    return result < 0 ? cx_codec_failed(err) : status;
}

static int flow_canonical(const cession_codec *self, cession_span value, cession_buf *out,
                          cession_error *err)
{
    return make_canonical(self, value, false, out, err);
}

/* Past one JSON item; the text is canonical. */
static const uint8_t *skip_json(const uint8_t *at)
{
    size_t depth = 0;
    do {
        switch (*at) {
        case '"':
            for (at++; *at != '"'; at++) {
                at += *at == '\\';
            }
            at++;
            break;
        case '{':
        case '[':
            depth++;
            at++;
            break;
        case '}':
        case ']':
            depth--;
            at++;
            break;
        case ',':
        case ':':
            at++;
            break;
        default: /* a number, true, false, null */
            while (*at != ',' && *at != '}' && *at != ']') {
                at++;
            }
        }
    } while (depth > 0);
    return at;
}

static int view_canonical(cx_format format, cession_span value, cession_view *view)
{
    const uint8_t *at = value.data, *end = value.data + value.len;
    ces_mp_item top;
    if (format == CX_MSGPACK) {
        ces_mp_next(&at, &top);
    } else {
        at++;
        end--; /* the closing brace */
    }
    while (at < end) {
        const uint8_t *key = at, *key_end, *item;
        if (format == CX_MSGPACK) {
            ces_mp_skip(&at);
            key_end = item = at;
            ces_mp_skip(&at);
        } else {
            key_end = at = skip_json(at);
            item = ++at;
            at = skip_json(at);
        }
        int status = cession_view_add(view, cession_span_of(key, (size_t)(key_end - key)),
                                      cession_span_of(item, (size_t)(at - item)));
        if (status != CESSION_OK) {
            return status;
        }
        if (format == CX_JSON && at < end) {
            at++; /* the comma */
        }
    }
    return CESSION_OK;
}

static int flow_view(const cession_codec *self, cession_span value, cession_view *ret_view,
                     cession_error *err)
{
    const cx_flow_codec *codec = (const cx_flow_codec *)self;
    int status = make_canonical(self, value, true, &ret_view->storage, err);
    if (status != CESSION_OK) {
        return status;
    }
    ret_view->count = 0;
    status = view_canonical(codec->format, cession_buf_span(&ret_view->storage), ret_view);
    return status == CESSION_OK ? status : cession_fail(err, status, NULL);
}

static int flow_compose_json(const cession_codec *self, const cession_entry *entries, size_t count,
                             cession_buf *out, cession_error *err)
{
    (void)self;
    cession_buf_clear(out);
    int status = cession_buf_byte(out, '{');
    for (size_t i = 0; status == CESSION_OK && i < count; i++) {
        if (i > 0) {
            status = cession_buf_byte(out, ',');
        }
        if (status == CESSION_OK) {
            status = cession_buf_append(out, entries[i].key.data, entries[i].key.len);
        }
        if (status == CESSION_OK) {
            status = cession_buf_byte(out, ':');
        }
        if (status == CESSION_OK) {
            status = cession_buf_append(out, entries[i].value.data, entries[i].value.len);
        }
    }
    if (status == CESSION_OK) {
        status = cession_buf_byte(out, '}');
    }
    return status == CESSION_OK ? status : cession_fail(err, status, NULL);
}

void cx_flow_codec_init(cx_flow_codec *codec, cx_codec_state *state)
{
    codec->base = *cession_codec_msgpack(); /* compose and the reserved items */
    codec->base.name = "msgpack";
    codec->base.view = flow_view;
    codec->base.canonical = flow_canonical;
    codec->state = state;
    codec->format = CX_MSGPACK;
    codec->dumps = codec->loads = NULL;
}

void cx_flow_codec_init_json(cx_flow_codec *codec, cx_codec_state *state)
{
    codec->base = (cession_codec){
        .name = "json",
        .view = flow_view,
        .compose = flow_compose_json,
        .canonical = flow_canonical,
        .meta_key = cession_span_str("\"" CESSION_META_KEY "\""),
        .permanent_key = cession_span_str("\"" CESSION_PERMANENT_KEY "\""),
        .tombstone = cession_span_str("{\"" CESSION_META_KEY "\":{\"t\":true}}"),
    };
    codec->state = state;
    codec->format = CX_JSON;
    codec->dumps = codec->loads = NULL;
}

void cx_flow_codec_release(cx_flow_codec *codec)
{
    Py_CLEAR(codec->dumps);
    Py_CLEAR(codec->loads);
}

/* ---- module-level functions ----------------------------------------------------------- */

static PyObject *encode_with(PyObject *module, PyObject *args, PyObject *kwargs, cx_format format)
{
    static char *names[] = {"", "strict", NULL};
    PyObject *session, *made = NULL;
    int strict = 0;
    cession_buf out;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$p", names, &session, &strict)) {
        return NULL;
    }
    /* A session that is not loaded yet loads when its length is asked for. */
    if (PyDict_Check(session) && PyObject_Size(session) < 0) {
        return NULL;
    }
    cession_buf_init(&out, CESSION_VALUE_MAX);
    if (cx_encode_as(cx_codec_state_of(module), format, session, strict != 0, false, &out) == 0) {
        made = PyBytes_FromStringAndSize((const char *)out.data, (Py_ssize_t)out.len);
    }
    cession_buf_release(&out);
    return made;
}

static PyObject *py_encode(PyObject *module, PyObject *args, PyObject *kwargs)
{
    return encode_with(module, args, kwargs, CX_MSGPACK);
}

static PyObject *py_encode_json(PyObject *module, PyObject *args, PyObject *kwargs)
{
    return encode_with(module, args, kwargs, CX_JSON);
}

/* A new dict of the decoded value; NULL with ValueError when it is no session. */
static PyObject *decode_new(PyObject *module, cx_format format, const Py_buffer *value,
                            bool *ret_canonical)
{
    PyObject *dict = PyDict_New();
    if (!dict) {
        return NULL;
    }
    int result = cx_decode_format(cx_codec_state_of(module), format,
                                  cession_span_of(value->buf, (size_t)value->len), dict,
                                  ret_canonical);
    if (result == 1) {
        return dict;
    }
    Py_DECREF(dict);
    if (result == 0) {
        PyErr_SetString(PyExc_ValueError, "these bytes are no session");
    }
    return NULL;
}

static PyObject *py_decode(PyObject *module, PyObject *value)
{
    Py_buffer buffer;
    bool canonical;
    if (PyObject_GetBuffer(value, &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *made = decode_new(module, CX_MSGPACK, &buffer, &canonical);
    PyBuffer_Release(&buffer);
    return made;
}

/* PyArg_Parse's converter of a format's name. */
static int format_of(PyObject *name, void *ret_format)
{
    if (!PyUnicode_Check(name)) {
        PyErr_SetString(PyExc_TypeError, "the format is a str");
        return 0;
    }
    if (PyUnicode_CompareWithASCIIString(name, "msgpack") == 0) {
        *(cx_format *)ret_format = CX_MSGPACK;
        return 1;
    }
    if (PyUnicode_CompareWithASCIIString(name, "json") == 0) {
        *(cx_format *)ret_format = CX_JSON;
        return 1;
    }
    PyErr_SetString(PyExc_ValueError, "the format is 'msgpack' or 'json'");
    return 0;
}

static PyObject *py_decode_checked(PyObject *module, PyObject *args)
{
    Py_buffer buffer;
    cx_format format;
    bool canonical = false;
    if (!PyArg_ParseTuple(args, "y*O&", &buffer, format_of, &format)) {
        return NULL;
    }
    PyObject *dict = decode_new(module, format, &buffer, &canonical);
    PyBuffer_Release(&buffer);
    return dict ? Py_BuildValue("NN", dict, PyBool_FromLong(canonical)) : NULL;
}

static void flow_codec_of(PyObject *module, cx_format format, cx_flow_codec *ret_codec)
{
    if (format == CX_JSON) {
        cx_flow_codec_init_json(ret_codec, cx_codec_state_of(module));
    } else {
        cx_flow_codec_init(ret_codec, cx_codec_state_of(module));
    }
}

static PyObject *raise_status(int status, const cession_error *err)
{
    if (status == CESSION_E_NOMEM) {
        return PyErr_NoMemory();
    }
    if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, err->text);
    }
    return NULL;
}

static PyObject *py_canonical(PyObject *module, PyObject *args)
{
    Py_buffer buffer;
    cx_format format;
    cx_flow_codec codec;
    cession_buf out;
    cession_error err = CESSION_ERROR_INIT;
    if (!PyArg_ParseTuple(args, "y*O&", &buffer, format_of, &format)) {
        return NULL;
    }
    flow_codec_of(module, format, &codec);
    cession_buf_init(&out, CESSION_VALUE_MAX);
    int status = codec.base.canonical(&codec.base, cession_span_of(buffer.buf, (size_t)buffer.len),
                                      &out, &err);
    PyObject *made = status == CESSION_OK
                         ? PyBytes_FromStringAndSize((const char *)out.data, (Py_ssize_t)out.len)
                         : raise_status(status, &err);
    cession_buf_release(&out);
    PyBuffer_Release(&buffer);
    return made;
}

static PyObject *py_view(PyObject *module, PyObject *args)
{
    Py_buffer buffer;
    cx_format format;
    cx_flow_codec codec;
    cession_view view;
    cession_error err = CESSION_ERROR_INIT;
    if (!PyArg_ParseTuple(args, "y*O&", &buffer, format_of, &format)) {
        return NULL;
    }
    flow_codec_of(module, format, &codec);
    cession_view_init(&view);
    int status = codec.base.view(&codec.base, cession_span_of(buffer.buf, (size_t)buffer.len),
                                 &view, &err);
    PyObject *made = status == CESSION_OK ? PyList_New(0) : raise_status(status, &err);
    for (size_t i = 0; made && i < view.count; i++) {
        const cession_entry *entry = &view.entries[i];
        PyObject *pair = Py_BuildValue("(y#y#)", entry->key.data, (Py_ssize_t)entry->key.len,
                                       entry->value.data, (Py_ssize_t)entry->value.len);
        if (!pair || PyList_Append(made, pair) < 0) {
            Py_CLEAR(made);
        }
        Py_XDECREF(pair);
    }
    cession_view_release(&view);
    PyBuffer_Release(&buffer);
    return made;
}

static PyObject *py_compose(PyObject *module, PyObject *args)
{
    PyObject *list, *made = NULL;
    cx_format format;
    cx_flow_codec codec;
    cession_view view;
    cession_buf out;
    cession_error err = CESSION_ERROR_INIT;
    int status = CESSION_OK;
    if (!PyArg_ParseTuple(args, "O!O&", &PyList_Type, &list, format_of, &format)) {
        return NULL;
    }
    flow_codec_of(module, format, &codec);
    cession_view_init(&view);
    cession_buf_init(&out, CESSION_VALUE_MAX);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list) && status == CESSION_OK; i++) {
        const char *key, *item;
        Py_ssize_t key_len, item_len;
        PyObject *pair = PyList_GET_ITEM(list, i);
        if (!PyTuple_Check(pair)) {
            PyErr_SetString(PyExc_TypeError, "an entry is a tuple (key, value)");
            goto done;
        }
        if (!PyArg_ParseTuple(pair, "y#y#", &key, &key_len, &item, &item_len)) {
            goto done;
        }
        status = cession_view_add(&view, cession_span_of(key, (size_t)key_len),
                                  cession_span_of(item, (size_t)item_len));
    }
    if (status == CESSION_OK) {
        status = codec.base.compose(&codec.base, view.entries, view.count, &out, &err);
    }
    made = status == CESSION_OK
               ? PyBytes_FromStringAndSize((const char *)out.data, (Py_ssize_t)out.len)
               : raise_status(status, &err);
done:
    cession_buf_release(&out);
    cession_view_release(&view);
    return made;
}

#define WITH_KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

PyMethodDef cx_codec_methods[] = {
    {"encode", WITH_KEYWORDS(py_encode), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("encode($module, mapping, /, *, strict=False)\n--\n\n"
               "The stored form of a session: canonical MessagePack.")},
    {"encode_json", WITH_KEYWORDS(py_encode_json), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("encode_json($module, mapping, /, *, strict=False)\n--\n\n"
               "The stored form of a session with SESSION_SERIALIZATION_FORMAT='json'.")},
    {"decode", py_decode, METH_O,
     PyDoc_STR("decode($module, value, /)\n--\n\n"
               "A stored value of any readable format as a dict; ValueError when it is no "
               "session.")},
    {"decode_checked", py_decode_checked, METH_VARARGS,
     PyDoc_STR("decode_checked($module, value, format, /)\n--\n\n"
               "(dict, is value certainly the canonical form in this format).")},
    {"canonical", py_canonical, METH_VARARGS,
     PyDoc_STR("canonical($module, value, format, /)\n--\n\n"
               "A stored value of any readable format in the canonical form of this one.")},
    {"view", py_view, METH_VARARGS,
     PyDoc_STR("view($module, value, format, /)\n--\n\n"
               "The top-level entries as [(key bytes, value bytes), ...].")},
    {"compose", py_compose, METH_VARARGS,
     PyDoc_STR("compose($module, entries, format, /)\n--\n\n"
               "A stored value out of such entries.")},
    {NULL, NULL, 0, NULL},
};
