/* What a cookie's value goes through: the signature and the syntax of an id. */
#include "fuzz.h"

#include <string.h>

#include "cession/cession.h"

static cession_signer *make_signer(void)
{
    cession_span keys[] = {cession_span_str("secret"), cession_span_str("older")};
    cession_signer *signer = NULL;
    MUST(cession_signer_new(keys, 2, &signer, NULL) == CESSION_OK);
    return signer;
}

static void check_verify(const cession_signer *signer, cession_span input)
{
    cession_span value = cession_span_of(NULL, 0);
    size_t key = 99;
    int rc = cession_signer_verify(signer, input, &value, &key, NULL);
    MUST(rc == CESSION_OK || rc == CESSION_NOT_FOUND);
    if (rc != CESSION_OK)
        return;
    MUST(key < 2 && value.data == input.data && value.len + 28 == input.len);
    cession_buf out;
    cession_buf_init(&out, CESSION_SIGNED_MAX);
    MUST(cession_signer_sign(signer, value, &out, NULL) == CESSION_OK);
    MUST(cession_span_eq(cession_buf_span(&out), input) == (key == 0));
    cession_buf_release(&out);
}

static void check_round_trip(const cession_signer *signer, cession_span input)
{
    cession_buf out;
    cession_buf_init(&out, 2 * CESSION_SIGNED_MAX);
    int rc = cession_signer_sign(signer, input, &out, NULL);
    MUST(rc == (input.len + 28 <= CESSION_SIGNED_MAX ? CESSION_OK : CESSION_E_LIMIT));
    if (rc == CESSION_OK) {
        cession_span value;
        size_t key = 99;
        MUST(cession_signer_verify(signer, cession_buf_span(&out), &value, &key, NULL) ==
             CESSION_OK);
        MUST(key == 0 && cession_span_eq(value, input));
        out.data[out.len - 1] ^= 1;
        MUST(cession_signer_verify(signer, cession_buf_span(&out), &value, &key, NULL) ==
             CESSION_NOT_FOUND);
    }
    cession_buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static cession_signer *signer;
    if (!signer)
        signer = make_signer();
    cession_span input = cession_span_of(data, size);
    check_verify(signer, input);
    check_round_trip(signer, input);
    bool ours = cession_sid_valid(input, false), printable = cession_sid_valid(input, true);
    MUST(!ours || printable);
    MUST(!printable || (size >= 1 && size <= CESSION_SID_MAX && !memchr(data, 0, size) &&
                        !memchr(data, ';', size) && !memchr(data, '\n', size)));
    return 0;
}
