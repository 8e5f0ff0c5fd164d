/* The bytes of a session file: head, key, value. Pure functions, no I/O.
 *
 * All numbers are little-endian.
 *
 *      0   8  magic "CESSION" 0x1a
 *      8   4  version of the layout, 1
 *     12   4  length of the key
 *     16   8  length of the value
 *     24   8  check: XXH64 chained over bytes 0 to 23, the key and the value
 *     32   8  expiry, Unix milliseconds   } rewritten in place by a touch,
 *     40   8  XXH64 of the expiry         } as one aligned write of 16 bytes
 *     48      key, value, end of the file
 *
 * The check of the expiry is seeded with the check of the record, so an expiry
 * is valid in its own file only, and damage to either makes the file no session.
 * XXH64 finds accidents (a torn or flipped file), not forgers: whoever can write
 * the directory owns the sessions. */
#ifndef CES_DRIVERS_FILESYSTEM_RECORD_H
#define CES_DRIVERS_FILESYSTEM_RECORD_H

#include "cession/store.h"

#define CES_FILE_HEAD_LEN 48u
#define CES_FILE_EXPIRY_AT 32u
#define CES_FILE_EXPIRY_LEN 16u

typedef struct ces_file_head {
    uint32_t key_len;
    uint64_t value_len;
    uint64_t check;
    int64_t expires_at_ms; /* valid when expiry_ok */
    bool expiry_ok;        /* false: damaged, or a touch was under way */
} ces_file_head;

/* Fill the head of a record. */
void ces_file_head_write(uint8_t head[CES_FILE_HEAD_LEN], cession_span key, cession_span value,
                         int64_t expires_at_ms);
/* Read a head that stands at the start of a file of file_len bytes.
 * OK; E_FORMAT: no session file; E_NEWER: the magic with a version above ours. */
int ces_file_head_parse(const uint8_t *data, size_t len, uint64_t file_len,
                        ces_file_head *ret_head);
/* Do key and value belong to this head? data is what ces_file_head_parse read. */
bool ces_file_body_ok(const uint8_t *data, const ces_file_head *head, cession_span key,
                      cession_span value);

void ces_file_expiry_write(uint8_t slot[CES_FILE_EXPIRY_LEN], uint64_t check,
                           int64_t expires_at_ms);
/* False: the check does not fit, *ret_expires_at_ms is untouched. */
bool ces_file_expiry_read(const uint8_t slot[CES_FILE_EXPIRY_LEN], uint64_t check,
                          int64_t *ret_expires_at_ms);

/* XXH64, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md */
uint64_t ces_file_xxh64(cession_span bytes, uint64_t seed);

#endif
