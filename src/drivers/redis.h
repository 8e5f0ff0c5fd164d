/* What the files of the redis driver's operations share. */
#ifndef CES_DRIVERS_REDIS_H
#define CES_DRIVERS_REDIS_H

#include "drivers/redis_nodes.h"

#define CES_REDIS_COMMANDS_MAX 32u
#define CES_REDIS_COMMAND_WORDS 8u

typedef struct ces_redis_command {
    cession_span words[CES_REDIS_COMMAND_WORDS];
    size_t count;
} ces_redis_command;

typedef struct ces_redis_store {
    cession_store base;
    ces_redis_settings *settings;
    ces_redis_dialer *dialer;
    ces_redis_nodes *nodes;
    char replace_sha[41], touch_sha[41];
} ces_redis_store;

/* Send commands and read as many answers, all of them or none. The connection is
 * of no use after an error. */
int ces_redis_converse(ces_redis_lease *lease, const ces_redis_command *commands, size_t count,
                       cession_deadline deadline, ces_redis_reply **ret_replies,
                       cession_error *err);

/* GET and PTTL of one key as a record. NOT_FOUND; E_... */
int ces_redis_record(const ces_redis_reply *value, const ces_redis_reply *left,
                     cession_stored *ret_stored, cession_error *err);

cession_store_scan_fn ces_redis_scan;

#endif
