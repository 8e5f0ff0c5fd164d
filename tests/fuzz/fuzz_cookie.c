/* A Cookie header, the value in it, and encoded items: all of it comes from outside. */
#include "fuzz.h"

#include <string.h>

#include "cession/cession.h"

static void check_find(cession_span header)
{
    static const char *const names[] = {"session", "s", ""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        cession_span value = {NULL, 0};
        bool plain = false;
        int rc = cession_cookie_find(header, cession_span_str(names[i]), &value, &plain);
        MUST(rc == CESSION_OK || rc == CESSION_NOT_FOUND);
        if (rc != CESSION_OK || value.len == 0)
            continue;
        MUST(value.data >= header.data && value.data + value.len <= header.data + header.len);
        MUST(!plain ||
             (!memchr(value.data, ' ', value.len) && !memchr(value.data, ';', value.len)));
        /* A value that is a session id is found again in what we write with it. */
        cession_cookie_sid in;
        MUST(cession_cookie_read(value, NULL, false, true, &in, NULL) == CESSION_OK);
        MUST(in.refused == (in.sid.len == 0));
        if (!in.refused && names[i][0]) {
            const cession_cookie_attributes attributes = {.name = names[i]};
            cession_span again;
            cession_buf out;
            cession_buf_init(&out, 4096);
            MUST(cession_cookie_write(&attributes, in.sid, -1, &out, NULL) == CESSION_OK);
            MUST(cession_cookie_find(cession_buf_span(&out), cession_span_str(names[i]), &again,
                                     &plain) == CESSION_OK);
            MUST(plain && cession_span_eq(again, in.sid));
            cession_buf_release(&out);
        }
    }
}

/* Read one by one or skipped, the items take the same bytes. */
static void check_items(cession_span bytes)
{
    cession_span rest = bytes, skipped = bytes;
    size_t left = 1;
    int whole = cession_item_skip(&skipped);
    MUST(whole == CESSION_OK || (whole == CESSION_E_FORMAT && skipped.len == bytes.len));
    while (left > 0) {
        cession_item item;
        size_t before = rest.len;
        int rc = cession_item_read(&rest, &item);
        MUST(rc == CESSION_OK || (rc == CESSION_E_FORMAT && rest.len == before));
        MUST((rc == CESSION_OK) == (whole == CESSION_OK));
        if (rc != CESSION_OK)
            return;
        MUST(rest.len < before);
        left--;
        if (item.type == CESSION_ITEM_ARRAY)
            left += item.as.count;
        if (item.type == CESSION_ITEM_MAP)
            left += 2 * item.as.count;
        cession_buf out;
        cession_buf_init(&out, CESSION_VALUE_MAX);
        MUST(cession_item_write(&item, &out) == CESSION_OK);
        cession_buf_release(&out);
    }
    MUST(rest.len == skipped.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Items are walked anew at every step: what is long and nested takes long. */
    check_find(cession_span_of(data, size));
    if (size <= 2048)
        check_items(cession_span_of(data, size));
    return 0;
}
