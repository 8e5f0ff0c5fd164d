/* What a Redis server says, and how a command is written: the only file that
 * knows hiredis, of which it takes the reply reader and the command formatter.
 *
 * In front of the reader stands a filter that checks every length before
 * anything is allocated for it, and turns what RESP3 adds into RESP2, which is
 * all that hiredis before 1.0 can read. What passes it is well formed as far as
 * lines, lengths and digits go; nesting is the reader's business.
 *
 * Threads: one reader, one thread at a time.
 */
#ifndef CES_DRIVERS_REDIS_REPLY_H
#define CES_DRIVERS_REDIS_REPLY_H

#include "cession/buf.h"

/* Of one reply: a value of the largest size and a little around it. */
#define CES_REDIS_REPLY_MAX ((size_t)64 * 1024 * 1024 + 1024 * 1024)
#define CES_REDIS_ITEMS_MAX 65536u /* elements of all arrays of one reply */
#define CES_REDIS_LINE_MAX 65536u  /* bytes of a status or an error */

typedef enum ces_redis_kind {
    CES_REDIS_NIL,
    CES_REDIS_INTEGER,
    CES_REDIS_STRING,
    CES_REDIS_STATUS, /* text, as STRING */
    CES_REDIS_ERROR,  /* text, as STRING */
    CES_REDIS_ARRAY   /* RESP3's maps and sets as well */
} ces_redis_kind;

typedef struct ces_redis_reply ces_redis_reply;
struct ces_redis_reply {
    ces_redis_kind kind;
    int64_t integer;
    size_t count;            /* elements of an array */
    ces_redis_reply **items; /* of an array; none is NULL in a whole reply */
    size_t len;              /* bytes of a text, terminator not counted */
    char text[];
};

void ces_redis_reply_free(ces_redis_reply *reply); /* NULL is fine */

/* Whether the reply is an error that begins with this word. */
bool ces_redis_is_error(const ces_redis_reply *reply, const char *word);

typedef struct ces_redis_reader ces_redis_reader;

int ces_redis_reader_new(ces_redis_reader **ret_reader, cession_error *err);
void ces_redis_reader_free(ces_redis_reader *reader); /* NULL is fine */

/* Bytes from the server. E_IO for what is no RESP, E_LIMIT for what is too
 * large, E_NOMEM; the reader is of no use after an error. */
int ces_redis_reader_feed(ces_redis_reader *reader, const void *data, size_t len,
                          cession_error *err);
/* The next whole reply, which the caller frees; NULL: more bytes are needed. */
int ces_redis_reader_take(ces_redis_reader *reader, ces_redis_reply **ret_reply,
                          cession_error *err);
/* Whether there is nothing left of which no reply was taken. */
bool ces_redis_reader_empty(const ces_redis_reader *reader);

#define CES_REDIS_WORDS_MAX 16u
/* Append one command to out. count: 1 to CES_REDIS_WORDS_MAX. */
int ces_redis_format(cession_buf *out, const cession_span *words, size_t count, cession_error *err);

#endif
