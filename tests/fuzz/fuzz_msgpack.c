/* Walker, reader, and the codec's view and canonical form over any bytes. */
#include "fuzz.h"

#include <string.h>

#include "base/msgpack.h"
#include "cession/cession.h"

/* The reader over walked bytes: every item, and every byte of its payload. */
static void read_all(const uint8_t *at, const uint8_t *end)
{
    volatile uint8_t sum = 0;
    size_t left = 1;
    while (left > 0) {
        ces_mp_item item;
        MUST(at < end);
        ces_mp_next(&at, &item);
        left--;
        if (item.type == CES_MP_ARRAY)
            left += item.as.count;
        if (item.type == CES_MP_MAP)
            left += 2 * item.as.count;
        if (item.type == CES_MP_STR || item.type == CES_MP_BIN || item.type == CES_MP_EXT) {
            for (size_t i = 0; i < item.as.bytes.len; i++)
                sum = (uint8_t)(sum + item.as.bytes.data[i]);
        }
        if (item.type == CES_MP_STR)
            MUST(ces_utf8_valid(item.as.bytes.data, item.as.bytes.len));
    }
    MUST(at == end);
}

static void check_codec(cession_span value, bool is_map, unsigned flags)
{
    const cession_codec *codec = cession_codec_msgpack();
    cession_buf once, twice;
    cession_buf_init(&once, CESSION_VALUE_MAX);
    cession_buf_init(&twice, CESSION_VALUE_MAX);
    cession_view view;
    cession_view_init(&view);

    int viewed = codec->view(codec, value, &view, NULL);
    MUST(viewed == CESSION_OK || viewed == CESSION_E_FORMAT);
    MUST(viewed != CESSION_OK || is_map);
    int rc = codec->canonical(codec, value, &once, NULL);
    MUST(rc == CESSION_OK || (rc == CESSION_E_FORMAT && !is_map));
    if (rc == CESSION_OK) {
        unsigned canonical_flags = CES_MP_NOT_SHORT;
        size_t len = 0;
        MUST(ces_mp_walk(once.data, once.len, &len, &canonical_flags) == CESSION_OK);
        MUST(len == once.len && !(canonical_flags & CES_MP_NOT_SHORT));
        MUST(codec->canonical(codec, cession_buf_span(&once), &twice, NULL) == CESSION_OK);
        MUST(cession_span_eq(cession_buf_span(&once), cession_buf_span(&twice)));
        if (viewed == CESSION_OK) {
            MUST(codec->compose(codec, view.entries, view.count, &twice, NULL) == CESSION_OK);
            MUST(cession_span_eq(cession_buf_span(&once), cession_buf_span(&twice)));
            if (!(flags & CES_MP_NOT_SHORT))
                MUST(cession_span_eq(cession_buf_span(&once), value));
        }
        MUST(codec->view(codec, cession_buf_span(&once), &view, NULL) == CESSION_OK);
    }
    cession_view_release(&view);
    cession_buf_release(&once);
    cession_buf_release(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t len = 0;
    unsigned flags = 0;
    int rc = ces_mp_walk(data, size, &len, &flags);
    MUST(rc == CESSION_OK || rc == CESSION_E_FORMAT);
    bool is_map = false;
    if (rc == CESSION_OK) {
        MUST(len > 0 && len <= size);
        read_all(data, data + len);
        const uint8_t *at = data;
        ces_mp_item item;
        ces_mp_next(&at, &item);
        is_map = item.type == CES_MP_MAP && len == size && item.as.count <= CESSION_ENTRIES_MAX;
        at = data;
        ces_mp_skip(&at);
        MUST(at == data + len);
    }
    check_codec(cession_span_of(data, size), is_map, flags);
    return 0;
}
