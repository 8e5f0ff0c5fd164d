/* What the tests of the file store share: stores, and the files behind their back. */
#ifndef TESTS_FILES_WORLD_H
#define TESTS_FILES_WORLD_H

#include <sys/types.h>

#include "cession/cession.h"

#define HOUR INT64_C(3600000)

/* A path of this test's own, in memory where possible; lives as long as the process. */
const char *files_dir(const char *name);
/* A new name each time. */
const char *files_fresh(void);
/* From now on files_dir lies in this directory. */
void files_set_base(const char *base);

/* Open a store on dir; further options as "name=value" pairs, NULL ends them. */
cession_store *files_open(const char *dir, const char *option, ...);

/* The file of a key: <dir>/cession/ab/<hash>. 64 such texts live at a time. */
const char *files_path_of(const char *dir, cession_span key);
/* cachelib's file of a key, by MD5 or SHA-256. */
const char *files_legacy_path(const char *dir, const char *digest, cession_span key);
/* printf, of which 64 live at a time. */
const char *files_text(const char *format, ...) CESSION_PRINTF(1, 2);

/* Whole files. read: the length, -1 when it cannot be read; at most max bytes. */
ssize_t files_read(const char *path, void *data, size_t max);
void files_write(const char *path, const void *data, size_t len);
void files_copy(const char *from, const char *to);
void files_copy_all(const char *from, const char *to);
bool files_exists(const char *path);               /* links not followed */
void files_age(const char *path, int64_t seconds); /* its mtime: that long ago */
void files_remove_tree(const char *path);
/* Regular files below path whose name starts with prefix. */
unsigned files_count(const char *path, const char *prefix);
unsigned files_open_fds(void);

/* Operations in short, with 20 s and checks that tell what went wrong. */
int files_create(cession_store *store, const char *key, const char *value);
int files_replace(cession_store *store, const char *key, const char *expected, const char *value);
int files_touch(cession_store *store, const char *key, const char *expected, int64_t ttl_ms);
int files_remove(cession_store *store, const char *key);
/* The value, "-" for NOT_FOUND, "!" and the name of an error; static. */
const char *files_load(cession_store *store, const char *key);
int64_t files_expiry(cession_store *store, const char *key);

#endif
