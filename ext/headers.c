/* Shortcuts for the headers: what werkzeug's Python would do, in C, where that is
 * certain to be the same to the byte. Each function says 1: done, 0: step aside (the
 * caller takes the Python way), -1: exception. They serve only the exact Request,
 * Response and Headers types and an interface whose get_cookie_... are Flask's own.
 *
 * Why: request.cookies is 8 to 15 us, response.set_cookie 7, the first vary.add 7 of a
 * request that costs 40 without sessions.
 *
 * The rules are werkzeug's: cession_cookie_find, and datastructures/structures.py
 * HeaderSet, as of 3.1; tests compare both ways over generated headers.
 */
#include <time.h>

#include "core.h"
#include "session/cookie.h"

/* ---- Cookie ------------------------------------------------------------------------------- */

int cx_fast_cookie(cx_interface *self, PyObject *config, PyObject *request, PyObject **ret_value)
{
    cx_state *state = self->state;
    if (self->overrides.getters || !state->request_type ||
        (PyObject *)Py_TYPE(request) != state->request_type) {
        return 0;
    }
    PyObject *name = PyObject_GetItem(config, state->s.SESSION_COOKIE_NAME);
    PyObject *wsgi = name ? PyObject_GetAttr(request, state->s.environ) : NULL;
    int result = wsgi ? 0 : -1;
    if (wsgi && PyDict_CheckExact(wsgi) && PyUnicode_CheckExact(name) && PyUnicode_IS_ASCII(name) &&
        PyUnicode_GET_LENGTH(name) > 0) {
        PyObject *header = PyDict_GetItemWithError(wsgi, state->s.HTTP_COOKIE);
        if (!header) {
            result = PyErr_Occurred() ? -1 : 1;
            *ret_value = NULL;
        } else if (PyUnicode_CheckExact(header) && PyUnicode_IS_ASCII(header)) {
            const char *text = PyUnicode_DATA(header);
            size_t len = (size_t)PyUnicode_GET_LENGTH(header);
            const char *wanted = PyUnicode_DATA(name);
            size_t wanted_len = (size_t)PyUnicode_GET_LENGTH(name);
            cession_span value;
            bool plain;
            int found = cession_cookie_find(cession_span_of(text, len),
                                            cession_span_of(wanted, wanted_len), &value, &plain);
            if (plain) {
                *ret_value = found == CESSION_OK
                                 ? PyUnicode_FromStringAndSize((const char *)value.data,
                                                               (Py_ssize_t)value.len)
                                 : NULL;
                result = found == CESSION_OK && !*ret_value ? -1 : 1;
            }
        }
    }
    Py_XDECREF(wsgi);
    Py_XDECREF(name);
    return result;
}

/* ---- the list of headers --------------------------------------------------------------------- */

/* The list inside an exact Headers of an exact Response; NULL without exception: step aside. */
static PyObject *header_list(cx_state *state, PyObject *response)
{
    if (!state->response_type || (PyObject *)Py_TYPE(response) != state->response_type) {
        return NULL;
    }
    PyObject *headers = PyObject_GetAttr(response, state->s.headers);
    PyObject *list = NULL;
    if (headers && (PyObject *)Py_TYPE(headers) == state->headers_type) {
        list = PyObject_GetAttr(headers, state->s._list);
        if (list && !PyList_CheckExact(list)) {
            Py_CLEAR(list);
        }
    }
    Py_XDECREF(headers);
    return list;
}

static bool same_name(PyObject *have, const char *lower, size_t len)
{
    const char *text = PyUnicode_DATA(have);
    for (size_t i = 0; i < len; i++) {
        if ((text[i] | 0x20) != lower[i] && text[i] != lower[i]) {
            return false;
        }
    }
    return true;
}

/* How often the header stands in the list, and the last value (borrowed); -1: something in
 * the list is not a pair of str. lower: the name in lower case, letters and dashes only. */
static int find_header(PyObject *list, const char *lower, PyObject **ret_value)
{
    int count = 0;
    size_t len = strlen(lower);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *pair = PyList_GET_ITEM(list, i);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2 ||
            !PyUnicode_CheckExact(PyTuple_GET_ITEM(pair, 0)) ||
            !PyUnicode_CheckExact(PyTuple_GET_ITEM(pair, 1))) {
            return -1;
        }
        PyObject *name = PyTuple_GET_ITEM(pair, 0);
        if (!PyUnicode_IS_ASCII(name)) {
            return -1;
        }
        if ((size_t)PyUnicode_GET_LENGTH(name) == len && same_name(name, lower, len)) {
            *ret_value = PyTuple_GET_ITEM(pair, 1);
            count++;
        }
    }
    return count;
}

static int append_header(PyObject *list, PyObject *name, PyObject *value)
{
    PyObject *pair = PyTuple_Pack(2, name, value);
    int result = pair ? PyList_Append(list, pair) : -1;
    Py_XDECREF(pair);
    return result < 0 ? -1 : 1;
}

/* ---- Vary ---------------------------------------------------------------------------------------
 */

int cx_fast_vary(cx_state *state, PyObject *response)
{
    PyObject *value = NULL;
    PyObject *list = header_list(state, response);
    if (!list) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int count = find_header(list, "vary", &value);
    int result = 0;
    if (count == 0) {
        result = append_header(list, state->vary_key, state->cookie_key);
    } else if (count == 1 && PyUnicode_Compare(value, state->cookie_key) == 0) {
        result = 1;
    }
    Py_DECREF(list);
    return result;
}

/* ---- Set-Cookie
 * ---------------------------------------------------------------------------------- */

/* X(field, key): what the attributes of the cookie depend on. */
#define CX_COOKIE_KEYS(X)         \
    X(0, SESSION_COOKIE_NAME)     \
    X(1, SESSION_COOKIE_DOMAIN)   \
    X(2, SESSION_COOKIE_PATH)     \
    X(3, SESSION_COOKIE_SECURE)   \
    X(4, SESSION_COOKIE_HTTPONLY) \
    X(5, SESSION_COOKIE_SAMESITE) X(6, SESSION_COOKIE_PARTITIONED) X(7, APPLICATION_ROOT)

/* Stand-ins in the template; nothing in a cookie's attributes can look like them, since
 * both are in the value's place or in that of Expires. */
static const char value_mark[] = "cession-value-mark";
static const char expires_mark[] = "cession-expires-mark";

static int template_part(PyObject *text, Py_ssize_t from, Py_ssize_t to, PyObject **slot)
{
    PyObject *part = PyUnicode_Substring(text, from, to);
    if (!part) {
        return -1;
    }
    Py_XSETREF(*slot, part);
    return 0;
}

/* The line that werkzeug writes for this kind of cookie, with marks for value and expiry. NULL
 * without exception: it is no plain text. */
static PyObject *marked_line(cx_interface *self, PyObject **now, cx_cookie_kind kind)
{
    cx_state *state = self->state;
    int has_path = PyObject_IsTrue(now[2]);
    int partitioned = cx_has_attr((PyObject *)self, state->s.get_cookie_partitioned);
    if (has_path < 0 || partitioned < 0) {
        return NULL;
    }
    PyObject *path = has_path ? now[2] : now[7];
    PyObject *kwargs = Py_BuildValue("{sOsOsOsOsO}", "domain", now[1], "path", path, "secure",
                                     now[3], "httponly", now[4], "samesite", now[5]);
    PyObject *more = kind == CX_COOKIE_DELETED ? Py_BuildValue("{sisi}", "expires", 0, "max_age", 0)
                     : kind == CX_COOKIE_EXPIRES ? Py_BuildValue("{ss}", "expires", expires_mark)
                                                 : PyDict_New();
    const char *value = kind == CX_COOKIE_DELETED ? "" : value_mark;
    PyObject *args = Py_BuildValue("(Os)", now[0], value);
    PyObject *text = NULL;
    if (kwargs && more && args && PyDict_Update(kwargs, more) == 0 &&
        /* Flask before 3.1 knows no partitioned cookies, and werkzeug may not either */
        (now[6] == Py_None || !partitioned ||
         PyDict_SetItem(kwargs, state->s.partitioned, now[6]) == 0)) {
        text = PyObject_Call(state->dump_cookie, args, kwargs);
    }
    Py_XDECREF(args);
    Py_XDECREF(more);
    Py_XDECREF(kwargs);
    if (text && !(PyUnicode_Check(text) && PyUnicode_IS_ASCII(text))) {
        Py_CLEAR(text);
    }
    return text;
}

/* Let werkzeug write the cookie once, and cut it up. */
static int make_template(cx_interface *self, PyObject **now, cx_cookie_kind kind)
{
    cx_cookie_template *t = &self->cookie_template[kind];
    PyObject *text = marked_line(self, now, kind);
    if (!text) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int result = 0;
    const char *whole = PyUnicode_DATA(text);
    Py_ssize_t len = PyUnicode_GET_LENGTH(text);
    /* Where the value begins and ends, and where the expiry does. */
    Py_ssize_t cut[4] = {len, len, len, len};
    const char *value = kind == CX_COOKIE_DELETED ? NULL : strstr(whole, value_mark);
    const char *expiry = kind == CX_COOKIE_EXPIRES ? strstr(whole, expires_mark) : NULL;
    if (value) {
        cut[0] = value - whole;
        cut[1] = cut[0] + (Py_ssize_t)strlen(value_mark);
    }
    if (expiry) {
        cut[2] = expiry - whole;
        cut[3] = cut[2] + (Py_ssize_t)strlen(expires_mark);
    }
    if ((value || kind == CX_COOKIE_DELETED) && (expiry || kind != CX_COOKIE_EXPIRES) &&
        cut[1] <= cut[2]) {
        result = -1;
        if (template_part(text, 0, cut[0], &t->head) == 0 &&
            template_part(text, cut[1], cut[2], &t->middle) == 0 &&
            template_part(text, cut[3], len, &t->tail) == 0) {
            for (size_t i = 0; i < CX_COOKIE_INPUTS; i++) {
                Py_XSETREF(t->inputs[i], Py_NewRef(now[i]));
            }
            result = 1;
        }
    }
    Py_DECREF(text);
    return result;
}

#define CX_COOKIE_MAX 4093 /* werkzeug warns above this: its business */

static int current_template(cx_interface *self, PyObject *config, cx_cookie_kind kind)
{
    cx_cookie_template *t = &self->cookie_template[kind];
    PyObject *now[CX_COOKIE_INPUTS];
    PyObject *keys[CX_COOKIE_INPUTS];
    bool same = t->head != NULL;
    int result = 1;
#define CX_KEY(index, name) keys[index] = self->state->s.name;
    CX_COOKIE_KEYS(CX_KEY)
#undef CX_KEY
    for (size_t i = 0; i < CX_COOKIE_INPUTS; i++) {
        now[i] = PyDict_GetItemWithError(config, keys[i]);
        if (!now[i]) {
            if (PyErr_Occurred()) {
                return -1;
            }
            now[i] = Py_None; /* SESSION_COOKIE_PARTITIONED before Flask 3.1 */
        }
        same = same && now[i] == t->inputs[i];
    }
    if (!same) {
        for (size_t i = 0; i < CX_COOKIE_INPUTS; i++) {
            Py_INCREF(now[i]);
        }
        result = make_template(self, now, kind);
        for (size_t i = 0; i < CX_COOKIE_INPUTS; i++) {
            Py_DECREF(now[i]);
        }
    }
    return result;
}

/* text: the value, "" in a cookie that is deleted; date: of date_len bytes, 0 for none. */
static int put_cookie(cx_interface *self, PyObject *config, PyObject *response, cx_cookie_kind kind,
                      PyObject *text, const char *date, size_t date_len)
{
    cx_state *state = self->state;
    PyObject *other = NULL;
    /* A configuration that answers in its own way is asked as Flask's getters ask it. */
    if (self->overrides.getters || !state->dump_cookie || !cx_plain_config(state, config)) {
        return 0;
    }
    PyObject *list = header_list(state, response);
    if (!list) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int result = 0;
    /* Cache-Control and a Vary of the application's own are looked at in Python. */
    if (find_header(list, "cache-control", &other) == 0) {
        result = current_template(self, config, kind);
    }
    if (result == 1) {
        cx_cookie_template *t = &self->cookie_template[kind];
        Py_ssize_t total = PyUnicode_GET_LENGTH(t->head) + PyUnicode_GET_LENGTH(text) +
                           PyUnicode_GET_LENGTH(t->middle) + (Py_ssize_t)date_len +
                           PyUnicode_GET_LENGTH(t->tail);
        PyObject *line = total > CX_COOKIE_MAX ? NULL : PyUnicode_New(total, 127);
        if (line) {
            char *out = PyUnicode_DATA(line);
            PyObject *parts[] = {t->head, text, t->middle};
            for (size_t i = 0; i < 3; i++) {
                size_t len = (size_t)PyUnicode_GET_LENGTH(parts[i]);
                memcpy(out, PyUnicode_DATA(parts[i]), len);
                out += len;
            }
            memcpy(out, date, date_len);
            memcpy(out + date_len, PyUnicode_DATA(t->tail), (size_t)PyUnicode_GET_LENGTH(t->tail));
            result = append_header(list, state->set_cookie_key, line);
            Py_DECREF(line);
        } else {
            result = total > CX_COOKIE_MAX ? 0 : -1;
        }
    }
    Py_DECREF(list);
    return result;
}

int cx_fast_set_cookie(cx_interface *self, PyObject *config, PyObject *response, PyObject *text,
                       int64_t expires_in_us)
{
    char date[CES_HTTP_DATE_LEN + 1] = "";
    if (!PyUnicode_IS_ASCII(text)) {
        return 0;
    }
    if (expires_in_us < 0) {
        return put_cookie(self, config, response, CX_COOKIE_SESSION, text, date, 0);
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t at_us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000 + expires_in_us;
    return !ces_http_date(at_us / 1000000, date)
               ? 0
               : put_cookie(self, config, response, CX_COOKIE_EXPIRES, text, date,
                            CES_HTTP_DATE_LEN);
}

int cx_fast_delete_cookie(cx_interface *self, PyObject *config, PyObject *response)
{
    PyObject *text = PyUnicode_New(0, 127);
    int result = text ? put_cookie(self, config, response, CX_COOKIE_DELETED, text, "", 0) : -1;
    Py_XDECREF(text);
    return result;
}
