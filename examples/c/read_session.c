/* Print the names of the top-level keys of one session, never the values.
 *
 *     read_session STORE-URL SID
 *     read_session sqlite:///srv/app/instance/flask_session.sqlite3 mvwk...
 *
 * The cookie's value may be given as it is: when SECRET_KEY is set in the
 * environment, SID must be signed with it (SESSION_USE_SIGNER). KEY_PREFIX is
 * SESSION_KEY_PREFIX of the application, "session:" unless set. Secrets come
 * through the environment because everybody can read the arguments of a process.
 *
 * Exit status: 0 the session is there, 1 it is not, 2 something went wrong.
 *
 * Build: cc -Iinclude examples/c/read_session.c build/src/libcession.a -lsqlite3 -lcrypto -lpthread
 */
#include <stdio.h>
#include <stdlib.h>

#include "cession/cession.h"

enum { FOUND = 0, NOT_FOUND = 1, FAILED = 2 };

#define TIMEOUT_MS 5000

static int fail(const char *what, const cession_error *err)
{
    fprintf(stderr, "read_session: %s: %s\n", what, err->text);
    return FAILED;
}

/* The text of a key in the canonical form of MessagePack, where a text is a header
 * of one, two, three or five bytes and UTF-8. */
static cession_span key_text(cession_span key)
{
    size_t header = 0;
    if (key.len > 0 && (key.data[0] & 0xe0) == 0xa0)
        header = 1;
    else if (key.len > 0 && key.data[0] >= 0xd9 && key.data[0] <= 0xdb)
        header = 1 + ((size_t)1 << (key.data[0] - 0xd9));
    return header > 0 && header <= key.len ? cession_span_of(key.data + header, key.len - header)
                                           : cession_span_of(NULL, 0);
}

/* Keys may come from visitors: nothing that a terminal would obey. */
static void print_key(cession_span key)
{
    cession_span text = key_text(key);
    if (!text.data) {
        puts("(a key that is no text)");
        return;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < 0x20 || text.data[i] == 0x7f || text.data[i] == '\\')
            printf("\\x%02x", text.data[i]);
        else
            putchar(text.data[i]);
    }
    putchar('\n');
}

static int print_keys(cession_span value)
{
    const cession_codec *codec = cession_codec_msgpack();
    cession_error err = CESSION_ERROR_INIT;
    cession_view view;
    cession_view_init(&view);
    int result = FOUND;
    if (codec->view(codec, value, &view, &err) == CESSION_OK) {
        for (size_t i = 0; i < view.count; i++)
            print_key(view.entries[i].key);
    } else {
        result = fail("reading the value", &err);
    }
    cession_view_release(&view);
    return result;
}

static int read_session(cession_store *store, cession_span sid)
{
    const cession_flow_config config = {.store = store, .touch_interval_ms = -1};
    cession_error err = CESSION_ERROR_INIT;
    cession_flow *flow = NULL;
    cession_session *session = NULL;
    int result = FAILED;

    if (cession_flow_new(&config, &flow, &err) != CESSION_OK ||
        cession_session_open(flow, sid, &session, &err) != CESSION_OK ||
        cession_session_load(session, cession_deadline_in(TIMEOUT_MS), &err) != CESSION_OK) {
        fail("loading the session", &err);
    } else if (cession_session_is_retired(session)) {
        fprintf(stderr, "read_session: this sid was replaced by another one\n");
        result = NOT_FOUND;
    } else if (cession_session_is_new(session)) {
        fprintf(stderr, "read_session: no such session\n");
        result = NOT_FOUND;
    } else {
        result = print_keys(cession_session_value(session));
    }
    /* Without a commit nothing was written. */
    cession_session_free(session);
    cession_flow_free(flow);
    return result;
}

/* What stands before the signature, when there is a key. */
static int unsign(const char *secret, cession_span given, cession_span *ret_sid)
{
    cession_error err = CESSION_ERROR_INIT;
    const cession_span key = cession_span_str(secret);
    cession_signer *signer = NULL;
    size_t index;

    int status = cession_signer_new(&key, 1, &signer, &err);
    if (status == CESSION_OK)
        status = cession_signer_verify(signer, given, ret_sid, &index, &err);
    cession_signer_free(signer);
    if (status == CESSION_NOT_FOUND) {
        fprintf(stderr, "read_session: the signature does not fit the key\n");
        return NOT_FOUND;
    }
    return status == CESSION_OK ? FOUND : fail("checking the signature", &err);
}

int main(int argc, char **argv)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_store *store = NULL, *prefixed = NULL;
    const char *secret = getenv("SECRET_KEY");
    const char *prefix = getenv("KEY_PREFIX");

    if (argc != 3) {
        fprintf(stderr, "usage: [SECRET_KEY=...] [KEY_PREFIX=session:] read_session URL SID\n");
        return FAILED;
    }
    cession_span sid = cession_span_str(argv[2]);
    if (secret) {
        int result = unsign(secret, sid, &sid);
        if (result != FOUND)
            return result;
    }
    if (cession_store_open_url(argv[1], &store, &err) != CESSION_OK)
        return fail("opening the store", &err);
    if (cession_store_prefix(store, cession_span_str(prefix ? prefix : "session:"), &prefixed,
                             &err) != CESSION_OK) {
        cession_store_close(store);
        return fail("opening the store", &err);
    }
    int result = read_session(prefixed, sid);
    cession_store_close(prefixed); /* and the store inside it */
    return result;
}
