/* A scratch directory and child processes, for tests of stores on disk. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A path inside the scratch directory of this process, which is made on first
 * use and removed at exit. Four results live at a time. */
const char *scratch_path(const char *name);

/* End a forked child: _exit, after what it reached is written where coverage is measured. */
_Noreturn void child_end(int status);
/* No file of this child may grow longer, in bytes: until it ends, writing more is EFBIG. */
bool child_limit_files(unsigned long most);
/* Run work in a forked child, which ends with its result as exit status. */
pid_t child_start(int (*work)(void *context), void *context);
/* Wait for it: its exit status, 256 + the signal that killed it. */
int child_wait(pid_t pid);
int child_run(int (*work)(void *context), void *context);

#endif
