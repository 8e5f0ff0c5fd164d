/* What a Redis server answers: any bytes, in pieces of any size, never a fault,
 * and always the same replies as in one piece. */
#include "fuzz.h"

#include <string.h>

#include "drivers/redis_reply.h"

/* A number that depends on everything in a reply; it is read to its last byte. */
static uint64_t digest(const ces_redis_reply *reply, unsigned depth)
{
    MUST(depth < 16);
    uint64_t sum = (uint64_t)reply->kind + 1;
    sum = sum * 31 + (uint64_t)reply->integer;
    MUST(reply->text[reply->len] == '\0');
    for (size_t i = 0; i < reply->len; i++) {
        sum = sum * 31 + (uint8_t)reply->text[i];
    }
    MUST(reply->count <= CES_REDIS_ITEMS_MAX);
    for (size_t i = 0; i < reply->count; i++) {
        MUST(reply->items[i] != NULL);
        sum = sum * 31 + digest(reply->items[i], depth + 1);
    }
    (void)ces_redis_is_error(reply, "MOVED");
    return sum;
}

typedef struct outcome {
    uint64_t sum;
    unsigned count;
    int status;
    bool empty;
} outcome;

static outcome read_all(const uint8_t *data, size_t size, size_t piece)
{
    outcome result = {0};
    ces_redis_reader *reader = NULL;
    cession_error err = CESSION_ERROR_INIT;
    MUST(ces_redis_reader_new(&reader, NULL) == CESSION_OK);
    MUST(ces_redis_reader_empty(reader));
    for (size_t at = 0; at < size && result.status == CESSION_OK; at += piece) {
        size_t len = size - at < piece ? size - at : piece;
        uint8_t *copy = malloc(len); /* so that a read past its end is seen */
        MUST(copy);
        memcpy(copy, data + at, len);
        result.status = ces_redis_reader_feed(reader, copy, len, &err);
        free(copy);
        ces_redis_reply *reply = NULL;
        while (result.status == CESSION_OK &&
               (result.status = ces_redis_reader_take(reader, &reply, &err)) == CESSION_OK &&
               reply != NULL) {
            result.sum = result.sum * 31 + digest(reply, 0);
            result.count++;
            ces_redis_reply_free(reply);
        }
    }
    if (result.status != CESSION_OK) {
        MUST(err.code == result.status && err.text[0] != '\0');
        MUST(!ces_redis_reader_empty(reader));
        ces_redis_reply *reply = NULL;
        MUST(ces_redis_reader_feed(reader, "+OK\r\n", 5, NULL) != CESSION_OK);
        MUST(ces_redis_reader_take(reader, &reply, NULL) != CESSION_OK && reply == NULL);
    }
    result.empty = ces_redis_reader_empty(reader);
    ces_redis_reader_free(reader);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 100000) {
        return 0;
    }
    size_t piece = 1 + data[0] % 64;
    /* In one piece an error is found before the replies in front of it are taken:
     * what can be compared is an input without one. */
    outcome whole = read_all(data + 1, size - 1, size), parts = read_all(data + 1, size - 1, piece);
    MUST(whole.status == CESSION_OK || parts.status != CESSION_OK);
    if (whole.status == CESSION_OK && parts.status == CESSION_OK) {
        MUST(whole.sum == parts.sum && whole.count == parts.count && whole.empty == parts.empty);
    }
    return 0;
}
