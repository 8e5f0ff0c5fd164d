/* A scratch directory and child processes, for tests of stores on disk. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A path inside the scratch directory of this process, which is made on first
 * use and removed at exit. Four results live at a time. */
const char *scratch_path(const char *name);

/* Run work in a forked child, which ends with its result as exit status. */
pid_t child_start(int (*work)(void *context), void *context);
/* Wait for it: its exit status, 256 + the signal that killed it. */
int child_wait(pid_t pid);
int child_run(int (*work)(void *context), void *context);

#endif
