/* The head of a session file: any bytes as a file, and a file made of any bytes. */
#include "fuzz.h"

#include <string.h>

#include "drivers/filesystem_record.h"

/* As the store reads a file. */
static bool accept(const uint8_t *data, size_t len, ces_file_head *ret_head)
{
    if (ces_file_head_parse(data, len, len, ret_head) != CESSION_OK) {
        return false;
    }
    MUST(ret_head->key_len >= 1 && ret_head->key_len <= CESSION_KEY_MAX);
    MUST(CES_FILE_HEAD_LEN + ret_head->key_len + ret_head->value_len == len);
    cession_span key = cession_span_of(data + CES_FILE_HEAD_LEN, ret_head->key_len);
    cession_span value = cession_span_of(key.data + key.len, (size_t)ret_head->value_len);
    return ces_file_body_ok(data, ret_head, key, value) && ret_head->expiry_ok;
}

static void check_made(const uint8_t *data, size_t len)
{
    static uint8_t file[CES_FILE_HEAD_LEN + 4096];
    if (len < 12 || len > 4096) {
        return;
    }
    uint64_t bits;
    memcpy(&bits, data, sizeof bits);
    int64_t expires = (int64_t)(bits >> 1);
    data += 8;
    len -= 8;
    size_t most = len < CESSION_KEY_MAX ? len : CESSION_KEY_MAX;
    size_t key_len = 1 + (bits & 0xffff) % most;
    cession_span key = cession_span_of(data, key_len);
    cession_span value = cession_span_of(data + key_len, len - key_len);
    ces_file_head_write(file, key, value, expires);
    memcpy(file + CES_FILE_HEAD_LEN, data, len);
    ces_file_head head;
    MUST(accept(file, CES_FILE_HEAD_LEN + len, &head));
    MUST(head.expires_at_ms == expires && head.key_len == key_len);

    /* One bit of it, or one byte more or less. */
    size_t bit = (bits >> 16) % (8 * (CES_FILE_HEAD_LEN + len));
    file[bit / 8] ^= (uint8_t)(1u << bit % 8);
    MUST(!accept(file, CES_FILE_HEAD_LEN + len, &head));
    file[bit / 8] ^= (uint8_t)(1u << bit % 8);
    MUST(!accept(file, CES_FILE_HEAD_LEN + len - 1, &head));
    MUST(accept(file, CES_FILE_HEAD_LEN + len, &head));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ces_file_head head;
    if (accept(data, size, &head)) {
        /* What is accepted is what would be written. */
        uint8_t again[CES_FILE_HEAD_LEN];
        cession_span key = cession_span_of(data + CES_FILE_HEAD_LEN, head.key_len);
        cession_span value = cession_span_of(key.data + key.len, (size_t)head.value_len);
        ces_file_head_write(again, key, value, head.expires_at_ms);
        MUST(memcmp(again, data, sizeof again) == 0);
    }
    check_made(data, size);
    return 0;
}
