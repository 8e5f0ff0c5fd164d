#include "drivers/filesystem_record.h"

#include "base/banned.h"

#define LAYOUT_VERSION 1u
#define MAGIC_LEN 8u
#define VERSION_AT 8u
#define KEY_LEN_AT 12u
#define VALUE_LEN_AT 16u
#define CHECK_AT 24u

static const uint8_t magic[MAGIC_LEN] = {'C', 'E', 'S', 'S', 'I', 'O', 'N', 0x1a};

static uint32_t get_u32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
           (uint32_t)from[3] << 24;
}

static uint64_t get_u64(const uint8_t *from)
{
    return (uint64_t)get_u32(from) | (uint64_t)get_u32(from + 4) << 32;
}

static void put_u32(uint8_t *to, uint32_t n)
{
    for (int i = 0; i < 4; i++, n >>= 8) {
        to[i] = (uint8_t)n;
    }
}

static void put_u64(uint8_t *to, uint64_t n)
{
    put_u32(to, (uint32_t)n);
    put_u32(to + 4, (uint32_t)(n >> 32));
}

/* ---- XXH64 ------------------------------------------------------------------ */

#define PRIME_1 UINT64_C(0x9e3779b185ebca87)
#define PRIME_2 UINT64_C(0xc2b2ae3d27d4eb4f)
#define PRIME_3 UINT64_C(0x165667b19e3779f9)
#define PRIME_4 UINT64_C(0x85ebca77c2b2ae63)
#define PRIME_5 UINT64_C(0x27d4eb2f165667c5)

static uint64_t rotl(uint64_t x, unsigned by)
{
    return (x << by) | (x >> (64 - by));
}

static uint64_t lane_round(uint64_t lane, uint64_t word)
{
    return rotl(lane + word * PRIME_2, 31) * PRIME_1;
}

static uint64_t merge_lane(uint64_t hash, uint64_t lane)
{
    return (hash ^ lane_round(0, lane)) * PRIME_1 + PRIME_4;
}

uint64_t ces_file_xxh64(cession_span bytes, uint64_t seed)
{
    const uint8_t *at = bytes.data;
    size_t left = bytes.len;
    uint64_t hash;
    if (left >= 32) {
        uint64_t lane[4] = {seed + PRIME_1 + PRIME_2, seed + PRIME_2, seed, seed - PRIME_1};
        for (; left >= 32; at += 32, left -= 32) {
            for (size_t i = 0; i < 4; i++) {
                lane[i] = lane_round(lane[i], get_u64(at + 8 * i));
            }
        }
        hash = rotl(lane[0], 1) + rotl(lane[1], 7) + rotl(lane[2], 12) + rotl(lane[3], 18);
        for (size_t i = 0; i < 4; i++) {
            hash = merge_lane(hash, lane[i]);
        }
    } else {
        hash = seed + PRIME_5;
    }
    hash += bytes.len;
    for (; left >= 8; at += 8, left -= 8) {
        hash = rotl(hash ^ lane_round(0, get_u64(at)), 27) * PRIME_1 + PRIME_4;
    }
    if (left >= 4) {
        hash = rotl(hash ^ get_u32(at) * PRIME_1, 23) * PRIME_2 + PRIME_3;
        at += 4;
        left -= 4;
    }
    for (; left > 0; at++, left--) {
        hash = rotl(hash ^ *at * PRIME_5, 11) * PRIME_1;
    }
    hash = (hash ^ hash >> 33) * PRIME_2;
    hash = (hash ^ hash >> 29) * PRIME_3;
    return hash ^ hash >> 32;
}

/* ---- records ------------------------------------------------------------------ */

static uint64_t check_of(const uint8_t *head, cession_span key, cession_span value)
{
    uint64_t check = ces_file_xxh64(cession_span_of(head, CHECK_AT), 0);
    check = ces_file_xxh64(key, check);
    return ces_file_xxh64(value, check);
}

void ces_file_expiry_write(uint8_t slot[CES_FILE_EXPIRY_LEN], uint64_t check, int64_t expires_at_ms)
{
    put_u64(slot, (uint64_t)expires_at_ms);
    put_u64(slot + 8, ces_file_xxh64(cession_span_of(slot, 8), check));
}

bool ces_file_expiry_read(const uint8_t slot[CES_FILE_EXPIRY_LEN], uint64_t check,
                          int64_t *ret_expires_at_ms)
{
    uint64_t expiry = get_u64(slot);
    if (get_u64(slot + 8) != ces_file_xxh64(cession_span_of(slot, 8), check) ||
        expiry > INT64_MAX) {
        return false;
    }
    *ret_expires_at_ms = (int64_t)expiry;
    return true;
}

void ces_file_head_write(uint8_t head[CES_FILE_HEAD_LEN], cession_span key, cession_span value,
                         int64_t expires_at_ms)
{
    memcpy(head, magic, MAGIC_LEN);
    put_u32(head + VERSION_AT, LAYOUT_VERSION);
    put_u32(head + KEY_LEN_AT, (uint32_t)key.len);
    put_u64(head + VALUE_LEN_AT, value.len);
    uint64_t check = check_of(head, key, value);
    put_u64(head + CHECK_AT, check);
    ces_file_expiry_write(head + CES_FILE_EXPIRY_AT, check, expires_at_ms);
}

int ces_file_head_parse(const uint8_t *data, size_t len, uint64_t file_len, ces_file_head *ret_head)
{
    if (len < CES_FILE_HEAD_LEN || file_len < CES_FILE_HEAD_LEN ||
        memcmp(data, magic, MAGIC_LEN) != 0) {
        return CESSION_E_FORMAT;
    }
    uint32_t version = get_u32(data + VERSION_AT);
    if (version != LAYOUT_VERSION) {
        return version > LAYOUT_VERSION ? CESSION_E_NEWER : CESSION_E_FORMAT;
    }
    ces_file_head head = {
        .key_len = get_u32(data + KEY_LEN_AT),
        .value_len = get_u64(data + VALUE_LEN_AT),
        .check = get_u64(data + CHECK_AT),
    };
    if (head.key_len == 0 || head.key_len > CESSION_KEY_MAX || head.value_len > CESSION_VALUE_MAX ||
        file_len != CES_FILE_HEAD_LEN + head.key_len + head.value_len) {
        return CESSION_E_FORMAT;
    }
    head.expiry_ok = ces_file_expiry_read(data + CES_FILE_EXPIRY_AT, head.check,
                                          &head.expires_at_ms);
    *ret_head = head;
    return CESSION_OK;
}

bool ces_file_body_ok(const uint8_t *data, const ces_file_head *head, cession_span key,
                      cession_span value)
{
    return key.len == head->key_len && value.len == head->value_len &&
           check_of(data, key, value) == head->check;
}
