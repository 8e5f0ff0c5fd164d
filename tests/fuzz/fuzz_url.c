/* The URL of a store, and the cursor of a scan: any bytes, never a fault, always
 * a text that says what is wrong, no I/O (the paths would be littered). */
#include "fuzz.h"

#include <string.h>

#include "cession/store.h"

static void check_url(const uint8_t *data, size_t size)
{
    char *url = malloc(size + 1);
    MUST(url);
    if (size != 0) {
        memcpy(url, data, size);
    }
    url[size] = '\0';
    cession_store *store = NULL;
    cession_error err = CESSION_ERROR_INIT;
    int rc = cession_store_open_url(url, &store, &err);
    free(url); /* nothing of it is kept */
    if (rc == CESSION_OK) {
        MUST(store != NULL);
        cession_store_close(store);
    } else {
        MUST(rc < 0 && store == NULL);
        MUST(err.code == rc && err.text[0] != '\0' && memchr(err.text, '\0', sizeof err.text));
    }
}

static int seen(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    (void)value, (void)expires_at_ms;
    ++*(unsigned *)context;
    MUST(key.len == 1);
    return CESSION_OK;
}

/* From any cursor a scan comes to its end, and sees no record twice. */
static void check_cursor(const uint8_t *data, size_t size)
{
    static cession_store *store;
    if (store == NULL) {
        MUST(cession_store_open("memory", NULL, 0, &store, NULL) == CESSION_OK);
        for (char c = 'a'; c <= 'z'; c++) {
            MUST(cession_store_create(store, cession_span_of(&c, 1), cession_span_of(&c, 1),
                                      3600000, 0, NULL) == CESSION_OK);
        }
    }
    cession_buf cursor;
    cession_buf_init(&cursor, 65536);
    MUST(cession_buf_set(&cursor, data, size) == CESSION_OK);
    unsigned count = 0;
    int rc = cession_store_scan(store, &cursor, 1000, 0, seen, &count, NULL);
    MUST(rc == CESSION_OK || rc == CESSION_E_INVALID);
    MUST(count <= 26);
    MUST(rc != CESSION_OK || cursor.len == 0);
    cession_buf_release(&cursor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_url(data, size);
    if (size <= 65536) {
        check_cursor(data, size);
    }
    return 0;
}
