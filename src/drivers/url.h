/* What URLs of all stores have in common. */
#ifndef CES_DRIVERS_URL_H
#define CES_DRIVERS_URL_H

#include "cession/store.h"

#define CES_URL_MAX 8192u
#define CES_URL_OPTIONS_MAX 32u

/* The options that a URL stands for, decoded into room: one byte more than the
 * URL has is enough, since every piece loses at least the separator before it,
 * whose place its terminator takes. */
typedef struct ces_url_options {
    cession_option list[CES_URL_OPTIONS_MAX];
    size_t count;
    char *room; /* the part that is free */
} ces_url_options;

/* Percent-decode [text, text + len) and terminate it. */
int ces_url_decode(ces_url_options *options, const char *text, size_t len, const char **ret_text,
                   cession_error *err);
/* One more option; the name is a static string, the value is decoded. */
int ces_url_add(ces_url_options *options, const char *name, const char *text, size_t len,
                cession_error *err);
/* name=value&name=value, up to the end of the text. */
int ces_url_query(ces_url_options *options, const char *query, cession_error *err);

#endif
