/* A Redis server of this test program's own, and stores on it. */
#ifndef TESTS_REDIS_WORLD_H
#define TESTS_REDIS_WORLD_H

#include "cession/store.h"

/* The server is started when it is first asked for, and ends with the program.
 * It has a user `app` with the password `sessions` who may do what sessions need
 * with keys that begin with "t", and user `other` with the same password who may
 * only say PING. */
unsigned redis_port(void);
const char *redis_socket(void);
/* End it at once, and start it again on the same port, empty. */
void redis_restart(void);

/* One command in plain words on a connection of its own; the raw answer, which
 * lives until the next call. */
const char *redis_ask(const char *line);

/* A formatted text; eight results live at a time. */
const char *redis_text(const char *fmt, ...) CESSION_PRINTF(1, 2);

/* "redis://127.0.0.1:PORT/" and what follows. */
const char *redis_url(const char *rest);

/* A store, or NULL and a failed check. */
cession_store *redis_open_url(const char *url);
/* The same on keys that no other store of the tests has. */
cession_store *redis_open_apart(const char *url);

#endif
