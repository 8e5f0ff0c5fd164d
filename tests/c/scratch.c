#include "scratch.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
        _exit(work(context));
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
