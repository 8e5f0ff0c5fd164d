/* SQLite's write-ahead log, written with one system call a commit.
 *
 * SQLite writes each page of a commit with two: 24 bytes that describe it, and the page.
 * A login changes three or four pages. The VFS here passes everything on to SQLite's own
 * and only gathers what goes to the log until the commit is complete.
 *
 * It is not SQLite's default and has a name of its own, so connections that others open
 * in this process do not meet it. Whether a file was written with or without it cannot be
 * told from the file.
 */
#ifndef CES_DRIVERS_SQLITE_LOG_H
#define CES_DRIVERS_SQLITE_LOG_H

#include "cession/error.h"

/* *ret_name: the name to open connections by, from now on until as many releases as acquires
 * that were OK; NULL: there is no such thing here, SQLite's default serves. OK, or an error of
 * ces_fork_register. Thread-safe. No connection may be open by that name after the last
 * release. */
int ces_sqlite_log_acquire(const char **ret_name, cession_error *err);
void ces_sqlite_log_release(void);

#endif
