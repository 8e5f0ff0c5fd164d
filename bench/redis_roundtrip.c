/* What the redis driver adds to the wire: one load, beside a bare send and recv of
 * the same bytes. Started by redis_native.py: PORT KEY ROUNDS. Prints the two
 * medians in nanoseconds, bare and driver. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cession/cession.h"
#include "timing.h"

#define BATCH 200 /* of one kind, then of the other */

static int dial(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        fail("no connection");
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static size_t bare(int fd, const char *request, size_t len, size_t expected)
{
    static char answer[65536];
    size_t got = 0;
    if (send(fd, request, len, MSG_NOSIGNAL) != (ssize_t)len) {
        fail("send");
    }
    do {
        ssize_t some = recv(fd, answer + got, sizeof answer - got, 0);
        if (some <= 0) {
            fail("recv");
        }
        got += (size_t)some;
    } while (got < expected);
    return got;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fail("PORT KEY ROUNDS");
    }
    unsigned port = (unsigned)atoi(argv[1]);
    const char *key = argv[2];
    size_t rounds = (size_t)atoi(argv[3]), count = 0;
    char request[2048], url[64];
    int len = snprintf(request, sizeof request,
                       "*2\r\n$3\r\nGET\r\n$%zu\r\n%s\r\n*2\r\n$4\r\nPTTL\r\n$%zu\r\n%s\r\n",
                       strlen(key), key, strlen(key), key);
    snprintf(url, sizeof url, "redis://127.0.0.1:%u", port);
    long long *times[2] = {malloc(rounds * BATCH * sizeof(long long)),
                           malloc(rounds * BATCH * sizeof(long long))};
    cession_store *store = NULL;
    cession_stored stored;
    cession_stored_init(&stored);
    if (times[0] == NULL || times[1] == NULL ||
        cession_store_open_url(url, &store, NULL) != CESSION_OK) {
        fail("no store");
    }
    int fd = dial(port);
    size_t expected = bare(fd, request, (size_t)len, 1);
    for (size_t round = 0; round <= rounds; round++) {
        for (int kind = 0; kind < 2; kind++) {
            for (int i = 0; i < BATCH; i++) {
                long long begin = now_ns();
                if (kind == 0) {
                    bare(fd, request, (size_t)len, expected);
                } else if (cession_store_load(store, cession_span_str(key),
                                              cession_deadline_in(2000), &stored,
                                              NULL) != CESSION_OK) {
                    fail("load");
                }
                if (round > 0) { /* the first one warms up */
                    times[kind][count + (size_t)i] = now_ns() - begin;
                }
            }
        }
        count += round > 0 ? BATCH : 0;
    }
    printf("%lld %lld\n", median(times[0], count), median(times[1], count));
    cession_stored_release(&stored);
    cession_store_close(store);
    close(fd);
    free(times[0]);
    free(times[1]);
    return 0;
}
