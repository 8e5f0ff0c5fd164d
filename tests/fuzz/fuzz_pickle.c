/* The pickle reader: whatever it takes comes out as canonical MessagePack. */
#include "fuzz.h"

#include "base/msgpack.h"
#include "cession/cession.h"
#include "session/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cession_buf out, again;
    /* Small, so that a memo bomb costs the fuzzer little. */
    cession_buf_init(&out, 1u << 20);
    cession_buf_init(&again, 1u << 20);
    int rc = ces_pickle_to_msgpack(cession_span_of(data, size), &out, NULL);
    MUST(rc == CESSION_OK || rc == CESSION_E_FORMAT || rc == CESSION_E_LIMIT);
    if (rc == CESSION_OK) {
        unsigned flags = CES_MP_NOT_SHORT;
        size_t len = 0;
        MUST(ces_mp_walk(out.data, out.len, &len, &flags) == CESSION_OK);
        MUST(len == out.len && !(flags & CES_MP_NOT_SHORT));
        const cession_codec *codec = cession_codec_msgpack();
        if (codec->canonical(codec, cession_buf_span(&out), &again, NULL) == CESSION_OK)
            MUST(cession_span_eq(cession_buf_span(&out), cession_buf_span(&again)));
    }
    cession_buf_release(&out);
    cession_buf_release(&again);
    return 0;
}
