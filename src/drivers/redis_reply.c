/* See redis_reply.h. The protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/ */
#include "drivers/redis_reply.h"

#include <stdint.h>
#include <stdio.h>

#include <hiredis/hiredis.h>

#include "base/alloc.h"
#include "base/banned.h"

/* The number of elements that an array is made for. */
#if HIREDIS_MAJOR >= 1
typedef size_t element_count;
#else
typedef int element_count;
#endif

#define HEADER_MAX 24u /* a type, the digits of an int64, its sign */

typedef enum filter_state {
    AT_TYPE,       /* the first byte of a line */
    IN_HEADER,     /* a line whose meaning is in its digits */
    IN_HEADER_END, /* ... its CR has been seen */
    IN_TEXT,       /* a line of any bytes */
    IN_TEXT_END,   /* ... a CR has been seen */
    IN_PAYLOAD,    /* `left` bytes of a bulk string */
    IN_PAYLOAD_CR,
    IN_PAYLOAD_LF
} filter_state;

struct ces_redis_reader {
    redisReader *hiredis;
    filter_state state;
    char type;
    char header[HEADER_MAX];
    size_t header_len;
    size_t left;  /* bytes of the payload still to come, bytes of the line so far */
    size_t bytes; /* since the last whole reply */
    size_t items;
    bool broken;
    cession_buf passed; /* what the filter lets through of one feed */
};

/* ---- replies: what hiredis calls ------------------------------------------------ */

void ces_redis_reply_free(ces_redis_reply *reply)
{
    if (reply == NULL) {
        return;
    }
    /* As deep as the reader lets replies be nested, which is a few levels. */
    for (size_t i = 0; i < reply->count; i++) {
        ces_redis_reply_free(reply->items[i]);
    }
    ces_free(reply->items);
    ces_free(reply);
}

bool ces_redis_is_error(const ces_redis_reply *reply, const char *word)
{
    size_t len = strlen(word);
    return reply->kind == CES_REDIS_ERROR && reply->len >= len &&
           memcmp(reply->text, word, len) == 0 &&
           (reply->text[len] == ' ' || reply->text[len] == '\0');
}

static void free_object(void *object)
{
    ces_redis_reply_free(object);
}

/* A reply in its place in the array around it; NULL when out of memory. */
static ces_redis_reply *make(const redisReadTask *task, ces_redis_kind kind, size_t len)
{
    ces_redis_reply *reply = ces_alloc_zero(sizeof *reply + len + 1);
    if (reply == NULL) {
        return NULL;
    }
    reply->kind = kind;
    reply->len = len;
    if (task->parent != NULL) {
        ces_redis_reply *parent = task->parent->obj;
        if (parent == NULL || task->idx < 0 || (size_t)task->idx >= parent->count) {
            ces_free(reply);
            return NULL;
        }
        parent->items[task->idx] = reply;
    }
    return reply;
}

static void *create_string(const redisReadTask *task, char *text, size_t len)
{
    ces_redis_kind kind = task->type == REDIS_REPLY_ERROR    ? CES_REDIS_ERROR
                          : task->type == REDIS_REPLY_STATUS ? CES_REDIS_STATUS
                                                             : CES_REDIS_STRING;
    ces_redis_reply *reply = make(task, kind, len);
    if (reply != NULL && len != 0) {
        memcpy(reply->text, text, len);
    }
    return reply;
}

static void *create_array(const redisReadTask *task, element_count elements)
{
    ces_redis_reply **items = NULL;
    if (elements > 0) {
        items = ces_alloc_zero((size_t)elements * sizeof(ces_redis_reply *));
        if (items == NULL) {
            return NULL;
        }
    }
    ces_redis_reply *reply = make(task, CES_REDIS_ARRAY, 0);
    if (reply == NULL) {
        ces_free(items);
        return NULL;
    }
    reply->items = items;
    reply->count = elements > 0 ? (size_t)elements : 0;
    return reply;
}

static void *create_integer(const redisReadTask *task, long long integer)
{
    ces_redis_reply *reply = make(task, CES_REDIS_INTEGER, 0);
    if (reply != NULL) {
        reply->integer = integer;
    }
    return reply;
}

static void *create_nil(const redisReadTask *task)
{
    return make(task, CES_REDIS_NIL, 0);
}

static redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createNil = create_nil,
    .freeObject = free_object,
};

/* ---- the filter ------------------------------------------------------------------ */

static int no_resp(cession_error *err)
{
    return cession_fail(err, CESSION_E_IO,
                        "the server's answer is no RESP: this is no Redis or Valkey server, or "
                        "TLS is on at one end only");
}

static int too_large(cession_error *err)
{
    return cession_fail(err, CESSION_E_LIMIT, "the server's answer is larger than any session");
}

/* The number in a header: digits, after a minus where that is allowed. */
static bool number_of(const ces_redis_reader *self, int64_t *ret_number)
{
    const char *at = self->header, *end = self->header + self->header_len;
    bool negative = at < end && *at == '-';
    at += negative;
    if (at == end || end - at > 18) { /* 18 digits always fit */
        return false;
    }
    int64_t number = 0;
    for (; at < end; at++) {
        if (*at < '0' || *at > '9') {
            return false;
        }
        number = number * 10 + (*at - '0');
    }
    *ret_number = negative ? -number : number;
    return true;
}

static int pass(ces_redis_reader *self, const void *data, size_t len, cession_error *err)
{
    int rc = cession_buf_append(&self->passed, data, len);
    return rc == CESSION_OK ? rc : cession_fail(err, rc, NULL);
}

static int pass_header(ces_redis_reader *self, char type, int64_t number, cession_error *err)
{
    char line[HEADER_MAX + 8];
    int len = snprintf(line, sizeof line, "%c%lld\r\n", type, (long long)number);
    return pass(self, line, (size_t)len, err);
}

/* A whole header line: what it means decides what comes next. */
static int judge_header(ces_redis_reader *self, cession_error *err)
{
    int64_t number = 0;
    self->state = AT_TYPE;
    switch (self->type) {
    case '_':
        return self->header_len == 0 ? pass(self, "$-1\r\n", 5, err) : no_resp(err);
    case '#':
        if (self->header_len != 1 || (self->header[0] != 't' && self->header[0] != 'f')) {
            return no_resp(err);
        }
        return pass_header(self, ':', self->header[0] == 't', err);
    case ':':
        return number_of(self, &number) ? pass_header(self, ':', number, err) : no_resp(err);
    default:
        break;
    }
    if (!number_of(self, &number) || number < -1) {
        return no_resp(err);
    }
    bool bulk = self->type == '$' || self->type == '=';
    if (number == -1) {
        return self->type == '$' || self->type == '*' ? pass_header(self, self->type, -1, err)
                                                      : no_resp(err);
    }
    if (bulk) {
        if ((uint64_t)number > CES_REDIS_REPLY_MAX) {
            return too_large(err);
        }
        self->left = (size_t)number;
        self->state = number == 0 ? IN_PAYLOAD_CR : IN_PAYLOAD;
        return pass_header(self, '$', number, err);
    }
    if (number > CES_REDIS_ITEMS_MAX) {
        return too_large(err);
    }
    number = self->type == '%' ? 2 * number : number;
    self->items += (size_t)number;
    if (self->items > CES_REDIS_ITEMS_MAX) {
        return too_large(err);
    }
    return pass_header(self, '*', number, err);
}

/* What comes of its own accord (a push, '>') or beside an answer (an attribute,
 * '|') was not asked for, and takes the answers out of step. */
static int judge_type(ces_redis_reader *self, char type, cession_error *err)
{
    static const char headers[] = ":$=*%~#_";
    self->type = type;
    self->header_len = 0;
    self->left = 0;
    if (type != '\0' && strchr(headers, type) != NULL) {
        self->state = IN_HEADER;
        return CESSION_OK;
    }
    if (type == '+' || type == '-' || type == ',' || type == '(') {
        self->state = IN_TEXT;
        return pass(self, type == '-' ? "-" : "+", 1, err);
    }
    return no_resp(err);
}

static int filter_text(ces_redis_reader *self, const char *data, size_t len, size_t *ret_used,
                       cession_error *err)
{
    const char *cr = memchr(data, '\r', len);
    size_t used = cr != NULL ? (size_t)(cr - data) + 1 : len;
    self->left += used;
    if (self->left > CES_REDIS_LINE_MAX) {
        return too_large(err);
    }
    if (cr != NULL) {
        self->state = IN_TEXT_END;
    }
    *ret_used = used;
    return pass(self, data, used, err);
}

static int filter_some(ces_redis_reader *self, const char *data, size_t len, size_t *ret_used,
                       cession_error *err)
{
    size_t some;
    *ret_used = 1;
    switch (self->state) {
    case AT_TYPE:
        return judge_type(self, data[0], err);
    case IN_HEADER:
        if (data[0] == '\r') {
            self->state = IN_HEADER_END;
        } else if (self->header_len == HEADER_MAX) {
            return no_resp(err);
        } else {
            self->header[self->header_len++] = data[0];
        }
        return CESSION_OK;
    case IN_HEADER_END:
        return data[0] == '\n' ? judge_header(self, err) : no_resp(err);
    case IN_TEXT:
        return filter_text(self, data, len, ret_used, err);
    case IN_TEXT_END:
        /* RESP has neither CR nor LF inside such a line. */
        self->state = AT_TYPE;
        return data[0] == '\n' ? pass(self, data, 1, err) : no_resp(err);
    case IN_PAYLOAD:
        some = len < self->left ? len : self->left;
        self->left -= some;
        if (self->left == 0) {
            self->state = IN_PAYLOAD_CR;
        }
        *ret_used = some;
        return pass(self, data, some, err);
    case IN_PAYLOAD_CR:
        self->state = IN_PAYLOAD_LF;
        return data[0] == '\r' ? pass(self, data, 1, err) : no_resp(err);
    case IN_PAYLOAD_LF:
        self->state = AT_TYPE;
        return data[0] == '\n' ? pass(self, data, 1, err) : no_resp(err);
    }
    return cession_fail(err, CESSION_E_INTERNAL, NULL);
}

/* ---- the reader ------------------------------------------------------------------- */

int ces_redis_reader_new(ces_redis_reader **ret_reader, cession_error *err)
{
    ces_redis_reader *self = ces_alloc_zero(sizeof *self);
    if (self == NULL) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    self->hiredis = redisReaderCreateWithFunctions(&functions);
    if (self->hiredis == NULL) {
        ces_free(self);
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    cession_buf_init(&self->passed, 2 * CES_REDIS_REPLY_MAX);
    *ret_reader = self;
    return CESSION_OK;
}

void ces_redis_reader_free(ces_redis_reader *self)
{
    if (self == NULL) {
        return;
    }
    redisReaderFree(self->hiredis);
    cession_buf_release(&self->passed);
    ces_free(self);
}

int ces_redis_reader_feed(ces_redis_reader *self, const void *data, size_t len, cession_error *err)
{
    const char *at = data;
    int rc = self->broken ? no_resp(err) : CESSION_OK;
    cession_buf_clear(&self->passed);
    self->bytes += len;
    if (rc == CESSION_OK && self->bytes > CES_REDIS_REPLY_MAX) {
        rc = too_large(err);
    }
    while (rc == CESSION_OK && len > 0) {
        size_t used = 0;
        rc = filter_some(self, at, len, &used, err);
        at += used;
        len -= used;
    }
    if (rc == CESSION_OK && self->passed.len != 0 &&
        redisReaderFeed(self->hiredis, (const char *)self->passed.data, self->passed.len) !=
            REDIS_OK) {
        rc = cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    if (rc != CESSION_OK) {
        self->broken = true;
    }
    return rc;
}

int ces_redis_reader_take(ces_redis_reader *self, ces_redis_reply **ret_reply, cession_error *err)
{
    void *reply = NULL;
    if (self->broken) {
        return no_resp(err);
    }
    if (self->hiredis->pos == self->hiredis->len) {
        *ret_reply = NULL; /* asked now, hiredis would count as being inside a reply */
        return CESSION_OK;
    }
    if (redisReaderGetReply(self->hiredis, &reply) != REDIS_OK) {
        self->broken = true;
        return self->hiredis->err == REDIS_ERR_OOM ? cession_fail(err, CESSION_E_NOMEM, NULL)
                                                   : no_resp(err);
    }
    if (reply != NULL) {
        /* What the filter has read ahead of the next one is not counted for it:
         * no more than one feed. */
        self->bytes = 0;
        self->items = 0;
    }
    *ret_reply = reply;
    return CESSION_OK;
}

bool ces_redis_reader_empty(const ces_redis_reader *self)
{
    return !self->broken && self->state == AT_TYPE && self->hiredis->pos == self->hiredis->len &&
           self->hiredis->ridx == -1;
}

/* ---- commands ----------------------------------------------------------------------- */

int ces_redis_format(cession_buf *out, const cession_span *words, size_t count, cession_error *err)
{
    const char *texts[CES_REDIS_WORDS_MAX];
    size_t lens[CES_REDIS_WORDS_MAX];
    if (count == 0 || count > CES_REDIS_WORDS_MAX) {
        return cession_fail(err, CESSION_E_INTERNAL, NULL);
    }
    for (size_t i = 0; i < count; i++) {
        texts[i] = words[i].len != 0 ? (const char *)words[i].data : "";
        lens[i] = words[i].len;
    }
    char *command = NULL;
    int len = redisFormatCommandArgv(&command, (int)count, texts, lens);
    if (len < 0) {
        return cession_fail(err, CESSION_E_NOMEM, NULL);
    }
    int rc = cession_buf_append(out, command, (size_t)len);
    ces_wipe(command, (size_t)len); /* it may be a password */
    redisFreeCommand(command);
    return rc == CESSION_OK ? rc : cession_fail(err, rc, NULL);
}
