/* Saving: encode, let the flow decide and do, tell the response and the listeners. */
#include "core.h"

/* ---- what the commit is told --------------------------------------------------------- */

static int config_flag(cx_state *state, PyObject *app, PyObject *key, bool *ret_flag)
{
    PyObject *config = PyObject_GetAttr(app, state->s.config);
    PyObject *value = config ? PyObject_GetItem(config, key) : NULL;
    Py_XDECREF(config);
    int truth = value ? PyObject_IsTrue(value) : -1;
    Py_XDECREF(value);
    *ret_flag = truth == 1;
    return truth < 0 ? -1 : 0;
}

/* self.method(app, session) as a truth value: 1, 0, -1. */
static int ask(cx_interface *self, PyObject *method, PyObject *app, cx_session *session)
{
    PyObject *answer = PyObject_CallMethodObjArgs((PyObject *)self, method, app,
                                                  (PyObject *)session, NULL);
    int truth = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return truth;
}

/* What others say. The C session is not owned: an override may use the session. */
static int fill_rules(cx_interface *self, PyObject *app, cx_session *session, cession_commit *in)
{
    int64_t lifetime_us;
    if (cx_lifetime_us(self->state, app, &lifetime_us) < 0 ||
        config_flag(self->state, app, self->state->s.SESSION_REFRESH_EACH_REQUEST, &in->refresh) <
            0) {
        return -1;
    }
    in->lifetime_ms = (lifetime_us + 999) / 1000;
    if (self->overrides.should_set_storage && !cx_session_empty(session)) {
        int wanted = ask(self, self->state->s.should_set_storage, app, session);
        if (wanted < 0) {
            return -1;
        }
        in->never_store = wanted == 0;
        in->force_store = wanted == 1;
    }
    return 0;
}

/* What the session holds. The C session is owned from here to the end of the commit: who
 * waits for another thread's commit must not encode before that and write old content
 * over newer. */
static int fill_content(cx_interface *self, cx_session *session, cession_buf *mine,
                        cession_commit *in)
{
    int permanent = cx_session_permanent(session);
    if (permanent < 0) {
        return -1;
    }
    in->empty = cx_session_empty(session);
    if (cx_flow_encode(&session->flow->codec, (PyObject *)session, self->strict_types, mine) < 0) {
        return -1;
    }
    in->mine = cession_buf_span(mine);
    in->accessed = session->accessed;
    in->modified = session->modified;
    in->permanent = permanent == 1;
    in->permanence_changed = in->permanent != session->was_permanent;
    in->old_signature = session->old_signature;
    in->deadline = cession_deadline_in(self->timeout_ms);
    return 0;
}

/* ---- what it answered ------------------------------------------------------------------ */

static int announce(cx_interface *self, PyObject *app, cx_session *session,
                    const cession_outcome *out)
{
    char sid[CESSION_SID_MAX + 1];
    size_t len;
    /* A copy: a receiver may reload the session, which frees this one. */
    const char *current = cession_session_sid(session->core, &len);
    memcpy(sid, current, len + 1);
    bool ok = out->status == CESSION_OK && !out->lost;
    if (out->conflicts) {
        PyObject *info = Py_BuildValue("{sI}", "keys", out->conflicts);
        int result = info ? cx_emit(self, app, CX_EV_conflict, sid, len, info) : -1;
        Py_XDECREF(info);
        if (result < 0) {
            return -1;
        }
    }
    if (out->lost) {
        return cx_emit(self, app, CX_EV_lost, sid, len, Py_None);
    }
    if (!ok) {
        return 0;
    }
    switch (out->action) {
    case CESSION_ACT_TOUCH:
        return cx_emit(self, app, CX_EV_touched, sid, len, Py_None);
    case CESSION_ACT_CREATE:
        return cx_emit(self, app, CX_EV_created, sid, len, Py_None) < 0
                   ? -1
                   : cx_emit(self, app, CX_EV_saved, sid, len, Py_None);
    case CESSION_ACT_REPLACE:
        return cx_emit(self, app, CX_EV_saved, sid, len, Py_None);
    case CESSION_ACT_REGENERATE:
        return cx_emit(self, app, CX_EV_regenerated, sid, len, Py_None);
    case CESSION_ACT_REMOVE:
        return cx_emit(self, app, CX_EV_removed, sid, len, Py_None);
    case CESSION_ACT_NONE:
    case CESSION_ACT_DROP:
        break;
    }
    return 0;
}

/* One word for the cookie out of this commit and those before it in the request. */
static void remember_cookie(cx_session *session, const cession_outcome *out)
{
    if (out->lost || out->status == CESSION_GONE) {
        session->lost = true;
        session->pending_cookie = CESSION_COOKIE_NONE;
    } else if (out->cookie != CESSION_COOKIE_NONE) {
        session->pending_cookie = (uint8_t)out->cookie;
    }
}

/* Take the C session with the content loaded. */
static int own_loaded(cx_session *session)
{
    for (;;) {
        if (cx_session_ensure(session) < 0 || cx_core_enter(session) < 0) {
            return -1;
        }
        if (session->load_state == CX_LOADED) {
            return 0;
        }
        cx_core_leave(session); /* somebody called reload() while we waited */
    }
}

/* Encode and commit. On failure an exception is set and nothing may be sent. */
static int commit(cx_interface *self, PyObject *app, cx_session *session, cession_outcome *out)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_commit in = {0};
    cession_buf mine;
    if (fill_rules(self, app, session, &in) < 0 || own_loaded(session) < 0) {
        return -1;
    }
    cession_buf_init(&mine, CESSION_VALUE_MAX);
    int status = CESSION_OK;
    int filled = fill_content(self, session, &mine, &in);
    if (filled == 0) {
        status = cession_session_commit(session->core, &in, out, &err);
    }
    if (filled == 0 && status == CESSION_OK) {
        Py_CLEAR(session->sid); /* a collision may have given another one */
        if (!in.never_store) {
            Py_CLEAR(session->stored_sid);
        }
        session->was_permanent = in.permanent;
        session->modified = false;
        if (out->cookie == CESSION_COOKIE_SET) {
            session->old_signature = false;
        }
        remember_cookie(session, out);
    }
    cx_core_leave(session);
    cession_buf_release(&mine);
    if (filled < 0) {
        return -1;
    }
    if (status < 0) {
        cx_raise(self->state, status, &err);
        return -1;
    }
    cx_store_maintain_soon(session->flow->store);
    return 0;
}

/* ---- failure ------------------------------------------------------------------------------ */

/* The store failed while saving; the exception is set. What SESSION_ON_STORE_ERROR
 * says: raise it through the application's error handlers into the response, answer
 * 503, or let the write go. */
static int save_failed(cx_interface *self, PyObject *app, cx_session *session, PyObject *response)
{
    PyObject *type, *value, *traceback;
    session->save_failed = true;
    if (!PyErr_ExceptionMatches(self->state->store_error)) {
        return -1; /* a value that cannot be stored, MemoryError, ...: the caller's to see */
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) {
        PyException_SetTraceback(value, traceback);
    }
    int result = cx_emit(self, app, CX_EV_store_error, NULL, 0, value);
    if (result == 0 && self->on_store_error == 'e' &&
        !PyErr_GivenExceptionMatches(value, self->state->conflict_error)) {
        result = cx_emit(self, app, CX_EV_lost, NULL, 0, Py_None);
    } else if (result == 0) {
        PyObject *answer = PyObject_CallMethodObjArgs((PyObject *)self, self->state->s.store_failed,
                                                      app, value, response, NULL);
        result = answer ? 0 : -1;
        Py_XDECREF(answer);
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return result;
}

/* An explicit save() that the store failed: what the application is told. Flask's own
 * save at the end of the request then leaves the store alone, or an error that nobody
 * caught would come twice; the application itself may ask again. */
static int explicit_failed(cx_interface *self, cx_session *session)
{
    PyObject *type, *value, *traceback;
    if (!PyErr_ExceptionMatches(self->state->store_error)) {
        return -1;
    }
    session->save_failed = true;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) {
        PyException_SetTraceback(value, traceback);
    }
    int result = cx_emit(self, session->app, CX_EV_store_error, NULL, 0, value);
    if (result == 0 && PyErr_GivenExceptionMatches(value, self->state->conflict_error)) {
        PyErr_SetObject(type, value);
        result = -1;
    } else if (result == 0 && self->on_store_error == 'e') {
        result = cx_emit(self, session->app, CX_EV_lost, NULL, 0, Py_None);
    } else if (result == 0) {
        cx_raise_failure(self, value);
        result = -1;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return result;
}

int cx_session_commit_now(cx_session *self)
{
    cession_outcome out;
    if (self->degraded) {
        return 0;
    }
    if (cx_interface_overrides(self->interface) < 0) {
        return -1;
    }
    if (commit(self->interface, self->app, self, &out) < 0) {
        return explicit_failed(self->interface, self);
    }
    self->save_failed = false;
    return announce(self->interface, self->app, self, &out);
}

/* The session read as empty because the store was down: nothing is saved. */
static int drop_degraded(cx_interface *self, PyObject *app, cx_session *session)
{
    if (cx_session_empty(session) && !session->modified) {
        return 0;
    }
    session->save_failed = true; /* one event, also when save is called twice */
    return cx_emit(self, app, CX_EV_lost, NULL, 0, Py_None);
}

/* ---- save ----------------------------------------------------------------------------------- */

static int send_cookie(cx_interface *self, PyObject *app, cx_session *session, PyObject *response,
                       const cession_outcome *out)
{
    cession_cookie cookie = (cession_cookie)session->pending_cookie;
    if (self->overrides.should_set_cookie && cookie != CESSION_COOKIE_DELETE && !session->lost &&
        !cession_session_is_retired(session->core) && out->status == CESSION_OK &&
        !cx_session_empty(session)) {
        int wanted = ask(self, self->state->s.should_set_cookie, app, session);
        if (wanted < 0) {
            return -1;
        }
        cookie = wanted ? CESSION_COOKIE_SET : CESSION_COOKIE_NONE;
    }
    session->pending_cookie = CESSION_COOKIE_NONE;
    if (cookie == CESSION_COOKIE_SET) {
        return cx_response_set_cookie(self, app, session, response);
    }
    if (cookie == CESSION_COOKIE_DELETE) {
        return cx_response_delete_cookie(self, app, response);
    }
    return 0;
}

int cx_save_session(cx_interface *self, PyObject *app, cx_session *session, PyObject *response)
{
    cession_outcome out;
    if (!session->core || session->interface != self) {
        PyErr_SetString(PyExc_TypeError, "save_session needs a session that this interface opened");
        return -1;
    }
    if (session->load_state == CX_UNLOADED) {
        return 0;
    }
    bool failed = session->load_state == CX_FAILED;
    if ((session->accessed || failed) && cx_response_vary(self->state, response) < 0) {
        return -1;
    }
    if (failed || session->save_failed) {
        return 0; /* the error was raised where the session was used or saved */
    }
    if (session->degraded) {
        return drop_degraded(self, app, session);
    }
    if (cx_interface_overrides(self) < 0) {
        return -1;
    }
    bool was_modified = session->modified;
    if (commit(self, app, session, &out) < 0) {
        return save_failed(self, app, session, response);
    }
    /* A receiver that fails ends the request, not the session: the cookie stays due, and
     * Flask saves once more, into the response that tells of the error. */
    if (announce(self, app, session, &out) < 0) {
        return -1;
    }
    if (self->overrides.should_set_cookie) {
        session->modified = was_modified; /* what the override looks at */
    }
    int result = send_cookie(self, app, session, response, &out);
    session->modified = false;
    return result;
}
