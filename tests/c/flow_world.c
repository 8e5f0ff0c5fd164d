#include "flow_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/msgpack.h"
#include "harness.h"

/* ---- dict -------------------------------------------------------------------- */

dict dict_of(const char *spec)
{
    dict d = {0};
    while (*spec) {
        if (*spec == ' ') {
            spec++;
            continue;
        }
        char key = *spec++;
        char *end;
        long value = strtol(spec, &end, 10);
        dict_put(&d, key, (int)value);
        spec = end;
    }
    return d;
}

int dict_get(const dict *d, char key)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->at[i].key == key)
            return d->at[i].value;
    }
    return 0;
}

void dict_put(dict *d, char key, int value)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->at[i].key == key) {
            d->at[i].value = value;
            return;
        }
    }
    if (d->count == sizeof d->at / sizeof d->at[0])
        abort();
    d->at[d->count].key = key;
    d->at[d->count].value = value;
    d->count++;
}

void dict_del(dict *d, char key)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->at[i].key == key) {
            memmove(&d->at[i], &d->at[i + 1], (d->count - i - 1) * sizeof d->at[0]);
            d->count--;
            return;
        }
    }
}

bool dict_empty(const dict *d)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->at[i].key != 'P')
            return false;
    }
    return true;
}

bool dict_same(const dict *a, const dict *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        if (dict_get(b, a->at[i].key) != a->at[i].value)
            return false;
    }
    return true;
}

const char *dict_show(const dict *d)
{
    static _Thread_local char text[4][512];
    static _Thread_local unsigned turn;
    char *out = text[turn++ % 4];
    size_t len = 0;
    out[0] = '\0';
    for (int key = 1; key < 127; key++) {
        int value = dict_get(d, (char)key);
        if (value != 0)
            len += (size_t)snprintf(out + len, sizeof text[0] - len, "%s%c%d", len ? " " : "", key,
                                    value);
    }
    return out;
}

int dict_encode(const dict *d, cession_span meta, cession_buf *out)
{
    cession_buf_clear(out);
    int rc = ces_mp_map(out, d->count + (meta.len > 0));
    for (size_t i = 0; i < d->count && rc == CESSION_OK; i++) {
        int value = d->at[i].value;
        if (d->at[i].key == 'P') {
            rc = ces_mp_str(out, CESSION_PERMANENT_KEY, strlen(CESSION_PERMANENT_KEY));
            if (rc == CESSION_OK)
                rc = ces_mp_bool(out, true);
            continue;
        }
        rc = ces_mp_str(out, &d->at[i].key, 1);
        if (rc == CESSION_OK && value >= 100) {
            rc = ces_mp_array(out, 2);
            if (rc == CESSION_OK)
                rc = ces_mp_int(out, value);
            if (rc == CESSION_OK)
                rc = ces_mp_map(out, 1);
            if (rc == CESSION_OK)
                rc = ces_mp_str(out, "n", 1);
        }
        if (rc == CESSION_OK)
            rc = ces_mp_int(out, value);
    }
    if (rc == CESSION_OK && meta.len > 0)
        rc = ces_mp_str(out, CESSION_META_KEY, strlen(CESSION_META_KEY));
    if (rc == CESSION_OK && meta.len > 0)
        rc = cession_buf_append(out, meta.data, meta.len);
    return rc;
}

static int decode_value(const uint8_t **at)
{
    ces_mp_item item;
    ces_mp_next(at, &item);
    if (item.type == CES_MP_ARRAY && item.as.count == 2) {
        ces_mp_next(at, &item);
        ces_mp_skip(at);
    }
    return item.type == CES_MP_UINT ? (int)item.as.u : 0;
}

bool dict_decode(cession_span bytes, dict *ret_dict, bool *ret_meta)
{
    dict d = {0};
    bool meta = false;
    size_t used;
    if (bytes.len == 0 || ces_mp_walk(bytes.data, bytes.len, &used, NULL) != CESSION_OK ||
        used != bytes.len)
        return false;
    const uint8_t *at = bytes.data;
    ces_mp_item item;
    ces_mp_next(&at, &item);
    if (item.type != CES_MP_MAP)
        return false;
    for (size_t i = item.as.count; i > 0; i--) {
        ces_mp_next(&at, &item);
        if (item.type != CES_MP_STR)
            return false;
        if (item.as.bytes.len == 1) {
            char key = (char)item.as.bytes.data[0];
            int value = decode_value(&at);
            if (value == 0)
                return false;
            dict_put(&d, key, value);
        } else if (item.as.bytes.len == strlen(CESSION_PERMANENT_KEY)) {
            ces_mp_skip(&at);
            dict_put(&d, 'P', 1);
        } else {
            ces_mp_skip(&at);
            meta = true;
        }
    }
    *ret_dict = d;
    if (ret_meta)
        *ret_meta = meta;
    return true;
}

/* ---- world -------------------------------------------------------------------- */

static void plan(void *context, const char *operation, cession_fault *ret_fault)
{
    world *w = context;
    unsigned index = atomic_fetch_add(&w->operations, 1);
    if (w->hook)
        w->hook(w, operation, index);
    if (index >= w->fail_from && index - w->fail_from < w->fail_count) {
        ret_fault->before = w->fail_before;
        ret_fault->after = w->fail_after;
    }
}

int world_open(world *w, const cession_flow_config *config)
{
    memset(w, 0, sizeof *w);
    if (config)
        w->config = *config;
    else
        w->config.touch_interval_ms = -1;
    cession_store *fault = NULL;
    int rc = cession_store_open("memory", NULL, 0, &w->memory, NULL);
    if (rc != CESSION_OK)
        return rc;
    rc = cession_store_fault(w->memory, plan, w, &fault, NULL);
    if (rc == CESSION_OK)
        rc = cession_store_trace(fault, &w->store, NULL);
    if (rc != CESSION_OK) {
        cession_store_close(fault ? fault : w->memory);
        w->store = NULL;
        return rc;
    }
    w->config.store = w->store;
    rc = cession_flow_new(&w->config, &w->flow, NULL);
    if (rc == CESSION_OK) {
        cession_flow_config others = w->config;
        others.store = w->memory;
        rc = cession_flow_new(&others, &w->others, NULL);
    }
    if (rc != CESSION_OK)
        world_close(w);
    return rc;
}

void world_close(world *w)
{
    cession_flow_free(w->flow);
    cession_flow_free(w->others);
    cession_store_close(w->store);
    w->flow = w->others = NULL;
    w->store = NULL;
}

cession_store_counts world_counts(const world *w)
{
    cession_store_counts counts = {0};
    CHECK_OK(cession_store_trace_counts(w->store, &counts, NULL));
    return counts;
}

const char *world_ops(const world *w, const cession_store_counts *before)
{
    static char text[256];
    cession_store_counts now = world_counts(w);
    const struct {
        const char *name;
        uint64_t count;
    } ops[] = {
        {"load", now.load - before->load},          {"create", now.create - before->create},
        {"replace", now.replace - before->replace}, {"touch", now.touch - before->touch},
        {"remove", now.remove - before->remove},
    };
    size_t len = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (ops[i].count > 0)
            len += (size_t)snprintf(text + len, sizeof text - len, "%s%s %llu", len ? " " : "",
                                    ops[i].name, (unsigned long long)ops[i].count);
    }
    return text;
}

void world_fail(world *w, unsigned from, unsigned count, int before, int after)
{
    w->fail_from = from;
    w->fail_count = count;
    w->fail_before = before;
    w->fail_after = after;
}

void world_remove(world *w, const char *sid)
{
    CHECK_OK(
        cession_store_remove(w->memory, cession_span_str(sid), cession_deadline_in(1000), NULL));
}

void world_put_raw(world *w, const char *sid, cession_span raw)
{
    world_remove(w, sid);
    CHECK_OK(cession_store_create(w->memory, cession_span_str(sid), raw, LIFETIME,
                                  cession_deadline_in(1000), NULL));
}

void world_put(world *w, const char *sid, const char *spec)
{
    cession_buf buf;
    cession_buf_init(&buf, CESSION_VALUE_MAX);
    dict d = dict_of(spec);
    CHECK_OK(dict_encode(&d, SPAN(""), &buf));
    world_put_raw(w, sid, cession_buf_span(&buf));
    cession_buf_release(&buf);
}

const char *world_show(world *w, const char *sid)
{
    static char text[600];
    cession_stored stored;
    cession_stored_init(&stored);
    int rc = cession_store_load(w->memory, cession_span_str(sid), cession_deadline_in(1000),
                                &stored, NULL);
    dict d;
    bool meta;
    if (rc == CESSION_NOT_FOUND) {
        snprintf(text, sizeof text, "-");
    } else if (!CHECK_OK(rc)) {
        snprintf(text, sizeof text, "error");
    } else if (cession_span_eq(cession_buf_span(&stored.value),
                               cession_codec_msgpack()->tombstone)) {
        snprintf(text, sizeof text, "tombstone");
    } else if (dict_decode(cession_buf_span(&stored.value), &d, &meta)) {
        snprintf(text, sizeof text, "%s%s", dict_show(&d), meta ? " +meta" : "");
    } else {
        snprintf(text, sizeof text, "foreign");
    }
    cession_stored_release(&stored);
    return text;
}

typedef struct search {
    unsigned live;
    const dict *wanted;
    bool found;
} search;

static int visit(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    search *s = context;
    (void)key;
    (void)expires_at_ms;
    if (cession_span_eq(value, cession_codec_msgpack()->tombstone))
        return CESSION_OK;
    s->live++;
    dict d;
    if (s->wanted && dict_decode(value, &d, NULL) && dict_same(&d, s->wanted))
        s->found = true;
    return CESSION_OK;
}

static search look(world *w, const dict *wanted)
{
    search s = {.wanted = wanted};
    cession_buf cursor;
    cession_buf_init(&cursor, 4096);
    do {
        if (!CHECK_OK(cession_store_scan(w->memory, &cursor, 100, cession_deadline_in(1000), visit,
                                         &s, NULL)))
            break;
    } while (cursor.len > 0);
    cession_buf_release(&cursor);
    return s;
}

unsigned world_live(world *w)
{
    return look(w, NULL).live;
}

bool world_holds(world *w, const char *spec)
{
    dict d = dict_of(spec);
    return look(w, &d).found;
}

/* ---- request -------------------------------------------------------------------- */

int request_begin(request *r, cession_flow *flow, const char *sid)
{
    memset(r, 0, sizeof *r);
    r->accessed = r->refresh = true;
    r->lifetime_ms = LIFETIME;
    r->deadline = cession_deadline_in(10000);
    int rc = cession_session_open(flow, cession_span_str(sid), &r->session, &r->err);
    if (rc != CESSION_OK)
        return rc;
    rc = cession_session_load(r->session, r->deadline, &r->err);
    if (rc != CESSION_OK)
        return rc;
    cession_span value = cession_session_value(r->session);
    if (value.len > 0 && !dict_decode(value, &r->now, NULL)) {
        rc = cession_session_reject(r->session, &r->err);
        if (rc != CESSION_OK)
            return rc;
    }
    r->was_permanent = dict_get(&r->now, 'P') != 0;
    r->begun = true;
    return CESSION_OK;
}

int request_commit(request *r)
{
    bool permanent = dict_get(&r->now, 'P') != 0;
    cession_buf mine;
    cession_buf_init(&mine, CESSION_VALUE_MAX);
    int rc = dict_encode(&r->now, SPAN(""), &mine);
    if (rc == CESSION_OK) {
        const cession_commit in = {
            .mine = cession_buf_span(&mine),
            .accessed = r->accessed,
            .modified = r->modified,
            .empty = dict_empty(&r->now),
            .permanent = permanent,
            .permanence_changed = permanent != r->was_permanent,
            .old_signature = r->old_signature,
            .refresh = r->refresh,
            .force_store = r->force,
            .never_store = r->never,
            .lifetime_ms = r->lifetime_ms,
            .deadline = r->deadline,
        };
        r->out = (cession_outcome){.status = 1234};
        rc = cession_session_commit(r->session, &in, &r->out, &r->err);
        /* Outputs stay untouched on failure. */
        CHECK(rc <= 0 && (rc == CESSION_OK) == (r->out.status != 1234));
        if (rc == CESSION_OK) {
            r->modified = false;
            r->was_permanent = permanent;
        } else {
            CHECK_INT(r->err.code, rc);
        }
    }
    cession_buf_release(&mine);
    return rc;
}

void request_end(request *r)
{
    cession_session_free(r->session);
    r->session = NULL;
}

const char *request_sid(const request *r)
{
    size_t len;
    const char *sid = cession_session_sid(r->session, &len);
    CHECK_INT(strlen(sid), len);
    return sid;
}
