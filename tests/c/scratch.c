#include "scratch.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[PATH_MAX / 2];
static pid_t owner;

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void remove_scratch(void)
{
    if (owner == getpid()) {
        nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
}

const char *scratch_path(const char *name)
{
    static char room[4][PATH_MAX];
    static unsigned turn;
    if (owner == 0) {
        const char *base = getenv("TMPDIR");
        snprintf(directory, sizeof directory, "%s/cession-test-XXXXXX",
                 base != NULL && base[0] != '\0' ? base : "/tmp");
        if (mkdtemp(directory) == NULL) {
            perror("mkdtemp");
            exit(2);
        }
        owner = getpid();
        atexit(remove_scratch);
    }
    char *path = room[turn++ % 4];
    snprintf(path, sizeof room[0], "%s/%s", directory, name);
    return path;
}

#ifdef TEST_COVERAGE
void __gcov_dump(void); /* of gcc and clang; otherwise called by exit only */
#endif

void child_end(int status)
{
#ifdef TEST_COVERAGE
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0) { /* half a file would spoil those of all others */
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    __gcov_dump();
#endif
    _exit(status);
}

bool child_limit_files(unsigned long most)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0) {
        return false;
    }
    limit.rlim_cur = most; /* the hard limit stays, so that child_end can lift this one */
    return setrlimit(RLIMIT_FSIZE, &limit) == 0;
}

pid_t child_start(int (*work)(void *context), void *context)
{
    fflush(stdout);
    fflush(stderr);
    pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        exit(2);
    }
    if (pid == 0) {
        child_end(work(context));
    }
    return pid;
}

int child_wait(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            perror("waitpid");
            exit(2);
        }
    }
    return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

int child_run(int (*work)(void *context), void *context)
{
    return child_wait(child_start(work, context));
}
