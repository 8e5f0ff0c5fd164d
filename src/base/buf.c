#include "cession/buf.h"

#include "base/alloc.h"
#include "base/banned.h"

/* The first allocation: most session values and all headers fit. */
#define BUF_FIRST 256u

void cession_buf_init(cession_buf *buf, size_t max)
{
    buf->data = NULL;
    buf->len = 0;
    buf->cap = 0;
    buf->max = max;
}

void cession_buf_release(cession_buf *buf)
{
    if (!buf)
        return;
    ces_free(buf->data);
    cession_buf_init(buf, buf->max);
}

void cession_buf_clear(cession_buf *buf)
{
    buf->len = 0;
}

/* Doubling keeps appending linear; need <= max was checked by the caller. */
static int grow(cession_buf *buf, size_t need)
{
    size_t cap = buf->cap > 0 ? buf->cap : BUF_FIRST;
    while (cap < need)
        cap = cap > buf->max / 2 ? buf->max : cap * 2;
    if (cap > buf->max)
        cap = buf->max;
    uint8_t *data = ces_resize(buf->data, cap);
    if (!data)
        return CESSION_E_NOMEM;
    buf->data = data;
    buf->cap = cap;
    return CESSION_OK;
}

int cession_buf_reserve(cession_buf *buf, size_t more)
{
    if (more <= buf->cap - buf->len)
        return CESSION_OK;
    if (more > buf->max - buf->len)
        return CESSION_E_LIMIT;
    return grow(buf, buf->len + more);
}

int cession_buf_append(cession_buf *buf, const void *data, size_t len)
{
    int rc = cession_buf_reserve(buf, len);
    if (rc != CESSION_OK)
        return rc;
    if (len > 0) {
        memcpy(buf->data + buf->len, data, len);
        buf->len += len;
    }
    return CESSION_OK;
}

int cession_buf_byte(cession_buf *buf, uint8_t byte)
{
    int rc = cession_buf_reserve(buf, 1);
    if (rc != CESSION_OK)
        return rc;
    buf->data[buf->len++] = byte;
    return CESSION_OK;
}

int cession_buf_set(cession_buf *buf, const void *data, size_t len)
{
    if (len > buf->max)
        return CESSION_E_LIMIT;
    if (len > buf->cap) {
        int rc = grow(buf, len);
        if (rc != CESSION_OK)
            return rc;
    }
    if (len > 0)
        memcpy(buf->data, data, len);
    buf->len = len;
    return CESSION_OK;
}

void cession_buf_swap(cession_buf *a, cession_buf *b)
{
    cession_buf kept = *a;
    *a = *b;
    *b = kept;
}
