#include "redis_world.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "harness.h"
#include "scratch.h"

static pid_t server, owner;
static unsigned port;
static char socket_path[256];

const char *redis_text(const char *fmt, ...)
{
    static char room[8][1024];
    static unsigned turn;
    char *text = room[turn++ % 8];
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(text, sizeof room[0], fmt, args);
    va_end(args);
    CHECK(len >= 0 && (size_t)len < sizeof room[0]);
    return text;
}

static int dial(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

const char *redis_ask(const char *line)
{
    static char answer[65536];
    const char *command = redis_text("%s\r\n", line);
    size_t len = 0;
    int fd = dial();
    if (fd >= 0 && send(fd, command, strlen(command), MSG_NOSIGNAL) >= 0) {
        shutdown(fd, SHUT_WR); /* so that the answer ends */
        ssize_t got;
        while (len < sizeof answer - 1 &&
               (got = recv(fd, answer + len, sizeof answer - 1 - len, 0)) > 0) {
            len += (size_t)got;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    answer[len] = '\0';
    return answer;
}

static unsigned free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        perror("free_port");
        exit(2);
    }
    close(fd);
    return ntohs(address.sin_port);
}

static void spawn(void)
{
    const char *number = redis_text("%u", port);
    pid_t parent = getpid();
    server = fork();
    if (server == 0) {
        /* A server whose test was killed must not stay. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(0);
        }
        execlp("redis-server", "redis-server", "--port", number, "--bind", "127.0.0.1",
               "--unixsocket", socket_path, "--save", "", "--dir", scratch_path("."), "--logfile",
               scratch_path("redis.log"), "--enable-debug-command", "local", "--user", "app", "on",
               ">sessions", "~t*", "-@all", "+@connection", "+get", "+set", "+del", "+pttl",
               "+pexpire", "+eval", "+evalsha", "+scan", "--user", "other", "on", ">sessions",
               "-@all", "+ping", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 500 && strncmp(redis_ask("PING"), "+PONG", 5) != 0; i++) {
        ces_sleep_ns(20 * 1000000);
    }
    if (strncmp(redis_ask("PING"), "+PONG", 5) != 0) {
        fprintf(stderr, "redis-server does not start\n");
        exit(2);
    }
}

static void end(void)
{
    if (owner == getpid() && server > 0) {
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
        server = 0;
    }
}

static void start(void)
{
    if (owner == 0) {
        owner = getpid();
        port = free_port();
        snprintf(socket_path, sizeof socket_path, "%s", scratch_path("redis.sock"));
        atexit(end);
        spawn();
    }
}

void redis_restart(void)
{
    start();
    end();
    spawn();
}

unsigned redis_port(void)
{
    start();
    return port;
}

const char *redis_socket(void)
{
    start();
    return socket_path;
}

const char *redis_url(const char *rest)
{
    return redis_text("redis://127.0.0.1:%u/%s", redis_port(), rest);
}

cession_store *redis_open_url(const char *url)
{
    cession_store *store = NULL;
    cession_error err = CESSION_ERROR_INIT;
    CHECK_MSG(cession_store_open_url(url, &store, &err) == CESSION_OK, "%s", err.text);
    return store;
}

cession_store *redis_open_apart(const char *url)
{
    uint64_t number = 0;
    CHECK_OK(ces_random(&number, sizeof number, NULL));
    const char *prefix = redis_text("t%012llx:", (unsigned long long)(number & 0xffffffffffffu));
    const char *more = redis_text("%s%sscan_prefix=%s", url, strchr(url, '?') != NULL ? "&" : "?",
                                  prefix);
    cession_store *inner = redis_open_url(more), *store = NULL;
    if (inner != NULL &&
        !CHECK_OK(cession_store_prefix(inner, cession_span_str(prefix), &store, NULL))) {
        cession_store_close(inner);
    }
    return store;
}
