/* Sentinel and Cluster without servers of their own: slots, URLs and options, and what
 * scripted servers say that real ones hardly ever do. With real ones:
 * test_redis.c (the contract), tests/python/test_redis_topologies.py. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "drivers/redis_nodes.h"
#include "failing_alloc.h"
#include "harness.h"
#include "scratch.h"

/* ---- slots ------------------------------------------------------------------- */

static void test_slots(void)
{
    /* The first is CRC-16/XMODEM's check value; the others are the specification's
     * rules for braces. */
    CHECK_INT(ces_redis_slot(SPAN("123456789")), 0x31c3 % 16384);
    CHECK_INT(ces_redis_slot(SPAN("foo")), 12182);
    CHECK_INT(ces_redis_slot(SPAN("bar")), 5061);
    CHECK_INT(ces_redis_slot(SPAN("")), 0);
    static const struct {
        const char *key, *same;
    } rows[] = {{"{user1000}.following", "user1000"},
                {"a{user1000}b{other}", "user1000"},
                {"foo{{bar}}zap", "{bar"},
                {"foo{bar}{zap}", "bar"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_INT(ces_redis_slot(cession_span_str(rows[i].key)),
                  ces_redis_slot(cession_span_str(rows[i].same)));
    CHECK(ces_redis_slot(SPAN("foo{}{bar}")) != ces_redis_slot(SPAN("bar")));
    CHECK(ces_redis_slot(SPAN("{bar")) != ces_redis_slot(SPAN("bar")));
    CHECK(ces_redis_slot(SPAN("}{bar")) != ces_redis_slot(SPAN("bar")));
}

/* ---- URLs and options ------------------------------------------------------------ */

static void test_urls(void)
{
    static const char *const good[] = {
        "redis+sentinel://a:1,b/mymaster",
        "redis+sentinel://user:p%40ss@[::1]:26379,b:2/my%2fmaster/3?sentinel_password=x",
        "rediss+sentinel://a/m?sentinel_username=u&sentinel_password=p&ssl_cert_reqs=none",
        "redis+cluster://a",
        "REDIS+CLUSTER://user:pass@a:1,[::2],c:3/?max_connections=2",
        "rediss+cluster://a:1?ssl_check_hostname=false",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        cession_store *store = NULL;
        cession_error err = CESSION_ERROR_INIT;
        int status = cession_store_open_url(good[i], &store, &err);
        CHECK_MSG(status == CESSION_OK, "%s: %s", good[i], err.text);
        cession_store_close(store);
    }
    static const struct {
        const char *url, *says;
    } wrong[] = {
        {"redis+sentinel://a", "redis+sentinel://"},
        {"redis+sentinel://a/", "redis+sentinel://"},
        {"redis+sentinel:///m", "redis+sentinel://"},
        {"redis+sentinel://a:/m", "listed"},
        {"redis+sentinel://a:0/m", "listed"},
        {"redis+sentinel://a:65536/m", "listed"},
        {"redis+sentinel://a,/m", "listed"},
        {"redis+sentinel://,a/m", "listed"},
        {"redis+sentinel://[::1/m", "listed"},
        {"redis+sentinel://[::1]x/m", "listed"},
        {"redis+sentinel://a:-1/m", "listed"},
        {"redis+sentinel://a/m/x", "db"},
        {"redis+sentinel://a/m?sentinel_username=u", "sentinel_password"},
        {"redis+sentinel://a/m?cluster=b", "one server, sentinels or a cluster"},
        {"redis+cluster://a/1", "redis+cluster://"},
        {"redis+cluster://", "redis+cluster://"},
        {"redis+cluster://a?db=1", "database"},
        {"redis+cluster://a?service=m", "sentinels and service"},
        {"redis+cluster://a?sentinel_password=m", "sentinels and service"},
        {"redis://a?cluster=b", "one server, sentinels or a cluster"},
        {"redis+cluster://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,"
         "28,29,30,31,32,33",
         "at most 32"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        cession_store *store = NULL;
        cession_error err = CESSION_ERROR_INIT;
        CHECK(cession_store_open_url(wrong[i].url, &store, &err) < 0);
        CHECK_MSG(strstr(err.text, wrong[i].says) != NULL, "%s: %s", wrong[i].url, err.text);
        CHECK(store == NULL);
    }
}

/* ---- scripted servers -------------------------------------------------------------- */

/* Answers each command with the text of the first row that its words begin with. */
typedef struct row {
    const char *words, *answer;
} row;

#define SERVERS 4
typedef struct server {
    int listener;
    unsigned port;
    row rows[8];
    atomic_uint asked[8]; /* how often each row was used */
    pthread_t thread;
} server;
static server servers[SERVERS];

/* One command as words with blanks between them; false: the connection is over. */
static bool read_command(FILE *in, char *words, size_t size)
{
    char line[256];
    int count = 0;
    words[0] = '\0';
    if (!fgets(line, sizeof line, in) || sscanf(line, "*%d", &count) != 1)
        return false;
    while (count-- > 0) {
        char word[4096];
        unsigned len = 0;
        if (!fgets(line, sizeof line, in) || sscanf(line, "$%u", &len) != 1 ||
            len + 2 > sizeof word || fread(word, 1, len + 2, in) != len + 2)
            return false;
        word[len] = '\0';
        size_t used = strlen(words);
        snprintf(words + used, size - used, "%s%s", used > 0 ? " " : "", word);
    }
    return true;
}

static void serve(server *s, int fd)
{
    char words[8192];
    FILE *in = fdopen(fd, "r");
    while (in && read_command(in, words, sizeof words)) {
        const char *answer = "-ERR nobody wrote that\r\n";
        for (size_t i = 0; i < 8 && s->rows[i].words; i++) {
            if (strncmp(words, s->rows[i].words, strlen(s->rows[i].words)) == 0) {
                answer = s->rows[i].answer;
                atomic_fetch_add(&s->asked[i], 1);
                break;
            }
        }
        if (!*answer || send(fd, answer, strlen(answer), MSG_NOSIGNAL) < 0)
            break;
    }
    if (in)
        fclose(in);
}

static void *serve_one(void *context)
{
    int *pair = context;
    serve(&servers[pair[0]], pair[1]);
    free(pair);
    return NULL;
}

static void *run(void *context)
{
    server *s = context;
    for (;;) {
        int fd = accept(s->listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        int *pair = malloc(2 * sizeof *pair), on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* answers are sent one by one */
        pthread_t thread;
        pair[0] = (int)(s - servers);
        pair[1] = fd;
        if (pthread_create(&thread, NULL, serve_one, pair) == 0)
            pthread_detach(thread);
    }
}

static void listen_all(void)
{
    for (size_t i = 0; i < SERVERS; i++) {
        server *s = &servers[i];
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof address;
        memset(s->rows, 0, sizeof s->rows);
        for (size_t k = 0; k < 8; k++)
            atomic_store(&s->asked[k], 0);
        if (s->port)
            continue;
        s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        REQUIRE(s->listener >= 0 && bind(s->listener, (void *)&address, size) == 0 &&
                listen(s->listener, 64) == 0 &&
                getsockname(s->listener, (void *)&address, &size) == 0);
        s->port = ntohs(address.sin_port);
        REQUIRE(pthread_create(&s->thread, NULL, run, s) == 0);
    }
}

static const char *text(const char *fmt, ...) CESSION_PRINTF(1, 2);
static const char *text(const char *fmt, ...)
{
    static char room[32][512];
    static unsigned turn;
    char *out = room[turn++ % 32];
    va_list args;
    va_start(args, fmt);
    vsnprintf(out, sizeof room[0], fmt, args);
    va_end(args);
    return out;
}

/* Slots `from` to `to` at this host ("" and "-": an empty one, none) and port. */
static const char *range(unsigned from, unsigned to, const char *host, unsigned port)
{
    const char *name = strcmp(host, "-") == 0 ? "$-1\r\n"
                                              : text("$%zu\r\n%s\r\n", strlen(host), host);
    return text("*3\r\n:%u\r\n:%u\r\n*2\r\n%s:%u\r\n", from, to, name, port);
}

static int load(const char *url, const char *key, cession_error *err)
{
    cession_store *store = NULL;
    cession_stored stored;
    cession_stored_init(&stored);
    REQUIRE_OK(cession_store_open_url(url, &store, err));
    int status = cession_store_load(store, cession_span_str(key), cession_deadline_in(3000),
                                    &stored, err);
    cession_stored_release(&stored);
    cession_store_close(store);
    return status;
}

#define FOUND "$1\r\n\x80\r\n"
#define LIVES ":60000\r\n"

static const char *cluster_url(void)
{
    return text("redis+cluster://127.0.0.1:%u", servers[0].port);
}

static void test_cluster_redirections(void)
{
    cession_error err = CESSION_ERROR_INIT;
    listen_all();
    /* The map names 0 for all, without a host; 0 says MOVED to 1; 1 says ASK to 2, which
     * serves who is asking; MOVED without a host means the same host. */
    unsigned slot = ces_redis_slot(SPAN("key"));
    servers[0].rows[0] = (row){"CLUSTER SLOTS",
                               text("*1\r\n%s", range(0, 16383, "", servers[0].port))};
    servers[0].rows[1] = (row){"GET key", text("-MOVED %u :%u\r\n", slot, servers[1].port)};
    servers[0].rows[2] = (row){"PTTL key", text("-MOVED %u :%u\r\n", slot, servers[1].port)};
    servers[1].rows[0] = (row){"GET key", text("-ASK %u 127.0.0.1:%u\r\n", slot, servers[2].port)};
    servers[1].rows[1] = (row){"PTTL key", text("-ASK %u 127.0.0.1:%u\r\n", slot, servers[2].port)};
    servers[2].rows[0] = (row){"ASKING", "+OK\r\n"};
    servers[2].rows[1] = (row){"GET key", FOUND};
    servers[2].rows[2] = (row){"PTTL key", LIVES};
    CHECK_MSG(load(cluster_url(), "key", &err) == CESSION_OK, "%s", err.text);
    CHECK_INT(servers[2].asked[0], 2);
    CHECK_INT(servers[1].asked[0], 1);

    /* Moved between GET and PTTL: all of it again, elsewhere. */
    servers[1].rows[0] = (row){"GET key", FOUND};
    servers[1].rows[1] = (row){"PTTL key",
                               text("-MOVED %u 127.0.0.1:%u\r\n", slot, servers[3].port)};
    servers[3].rows[0] = (row){"GET key", "$-1\r\n"};
    servers[3].rows[1] = (row){"PTTL key", ":-2\r\n"};
    CHECK_STATUS(load(cluster_url(), "key", &err), CESSION_NOT_FOUND);
}

static void test_cluster_endless_and_wrong_redirections(void)
{
    cession_error err = CESSION_ERROR_INIT;
    unsigned slot = ces_redis_slot(SPAN("key"));
    listen_all();
    servers[0].rows[0] = (row){"CLUSTER SLOTS",
                               text("*1\r\n%s", range(0, 16383, "127.0.0.1", servers[0].port))};
    const char *answers[] = {
        text("-MOVED %u 127.0.0.1:%u\r\n", slot, servers[0].port), /* in a circle */
        text("-ASK %u 127.0.0.1:%u\r\n", slot, servers[0].port),
        text("-MOVED %u 127.0.0.1:%u\r\n", slot + 1, servers[0].port), /* another slot */
        text("-MOVED %u 127.0.0.1:99999\r\n", slot),
        text("-MOVED %u 127.0.0.1:\r\n", slot),
        text("-MOVED %u 127.0.0.1\r\n", slot),
        text("-MOVED %u\r\n", slot),
        "-MOVED x 127.0.0.1:1\r\n",
        "-MOVED 99999999999999999999 127.0.0.1:1\r\n",
        "-MOVED\r\n",
        "-CLUSTERDOWN The cluster is down\r\n",
        "-TRYAGAIN\r\n",
        "-READONLY no\r\n",
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        servers[0].rows[1] = (row){"GET key", answers[i]};
        servers[0].rows[2] = (row){"PTTL key", answers[i]};
        servers[0].rows[3] = (row){"ASKING", "+OK\r\n"};
        int status = load(cluster_url(), "key", &err);
        CHECK_MSG(status < 0 && status != CESSION_E_TIMEOUT, "%zu: %d %s", i, status, err.text);
    }
}

static int nobody(void *context, cession_span key, cession_span value, int64_t expires_at_ms)
{
    (void)context, (void)key, (void)value, (void)expires_at_ms;
    return CESSION_E_INTERNAL;
}

static void test_cluster_malformed_maps(void)
{
    cession_error err = CESSION_ERROR_INIT;
    unsigned port;
    listen_all();
    port = servers[0].port;
    servers[0].rows[1] = (row){"GET key", FOUND};
    servers[0].rows[2] = (row){"PTTL key", LIVES};
    const char *maps[] = {
        "*0\r\n",
        "+OK\r\n",
        "$-1\r\n",
        "-ERR This instance has cluster support disabled\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*2\r\n:0\r\n:16383\r\n",
        "*1\r\n*3\r\n:0\r\n:16383\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16383\r\n*1\r\n$9\r\n127.0.0.1\r\n",
        "*1\r\n*3\r\n$1\r\n0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:1\r\n",
        text("*1\r\n%s", range(0, 16384, "127.0.0.1", port)),
        text("*1\r\n%s", range(5, 4, "127.0.0.1", port)),
        text("*1\r\n%s", range(0, 16383, "127.0.0.1", 0)),
        text("*1\r\n%s", range(0, 16383, "127.0.0.1", 65536)),
        /* the slot of "key" is in nobody's hands */
        text("*1\r\n%s", range(0, 1, "127.0.0.1", port)),
    };
    for (size_t i = 0; i < sizeof maps / sizeof maps[0]; i++) {
        servers[0].rows[0] = (row){"CLUSTER SLOTS", maps[i]};
        int status = load(cluster_url(), "key", &err);
        CHECK_MSG(status < 0 && status != CESSION_E_TIMEOUT, "%zu: %d %s", i, status, err.text);
    }
    cession_store *store = NULL;
    cession_buf cursor;
    cession_buf_init(&cursor, 100);
    REQUIRE_OK(cession_store_open_url(cluster_url(), &store, &err));
    servers[0].rows[0] = (row){"CLUSTER SLOTS", "*0\r\n"};
    CHECK_STATUS(
        cession_store_scan(store, &cursor, 10, cession_deadline_in(3000), nobody, NULL, &err),
        CESSION_E_UNAVAILABLE);
    cession_store_close(store);
    /* Overlapping ranges are odd and no reason to fail; nil as a host is the asked one. */
    servers[0].rows[0] = (row){"CLUSTER SLOTS",
                               text("*3\r\n%s%s%s", range(0, 16383, "127.0.0.1", servers[1].port),
                                    range(0, 16383, "-", port), range(0, 0, "127.0.0.1", port))};
    CHECK_OK(load(cluster_url(), "key", &err));
}

/* Servers come and go under ever new names; the table stays bounded and works. */
static void test_cluster_many_places(void)
{
    cession_store *store = NULL;
    cession_error err = CESSION_ERROR_INIT;
    cession_stored stored;
    cession_stored_init(&stored);
    listen_all();
    unsigned slot = ces_redis_slot(SPAN("key"));
    servers[0].rows[0] = (row){"CLUSTER SLOTS",
                               text("*1\r\n%s", range(0, 16383, "127.0.0.1", servers[0].port))};
    servers[1].rows[0] = (row){"GET key", FOUND};
    servers[1].rows[1] = (row){"PTTL key", LIVES};
    servers[1].rows[2] = (row){"ASKING", "+OK\r\n"};
    REQUIRE_OK(cession_store_open_url(cluster_url(), &store, &err));
    for (unsigned i = 0; i < 1100; i++) {
        char answer[64];
        snprintf(answer, sizeof answer, "-ASK %u 127.0.%u.%u:%u\r\n", slot, i / 200, i % 200 + 1,
                 servers[1].port);
        servers[0].rows[1] = (row){"GET key", answer};
        servers[0].rows[2] = (row){"PTTL key", answer};
        /* only 127.0.0.1 answers: the others are refused at once */
        int status = cession_store_load(store, SPAN("key"), cession_deadline_in(3000), &stored,
                                        &err);
        if (i == 0)
            CHECK_OK(status);
        else
            CHECK_MSG(status == CESSION_OK || status == CESSION_E_UNAVAILABLE, "%u: %s", i,
                      err.text);
    }
    cession_stored_release(&stored);
    cession_store_close(store);
}

static const char *sentinel_url(void)
{
    return text("redis+sentinel://127.0.0.1:%u,127.0.0.1:%u/m", servers[0].port, servers[1].port);
}

static const char *place(unsigned port)
{
    const char *digits = text("%u", port);
    return text("*2\r\n$9\r\n127.0.0.1\r\n$%zu\r\n%s\r\n", strlen(digits), digits);
}

#define ASK "SENTINEL GET-MASTER-ADDR-BY-NAME m"
#define MASTER "*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n"
#define REPLICA "*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:1\r\n"

static void test_sentinel_answers(void)
{
    cession_error err = CESSION_ERROR_INIT;
    listen_all();
    servers[3].rows[0] = (row){"ROLE", MASTER};
    servers[3].rows[1] = (row){"GET key", FOUND};
    servers[3].rows[2] = (row){"PTTL key", LIVES};
    servers[2].rows[0] = (row){"ROLE", REPLICA};
    servers[2].rows[1] = (row){"GET key", FOUND};
    servers[2].rows[2] = (row){"PTTL key", LIVES};
    /* Whatever the first one says, the second one knows better. */
    const char *answers[] = {
        "*-1\r\n",
        "$-1\r\n",
        "-IDONTKNOW\r\n",
        "*0\r\n",
        "*1\r\n:1\r\n",
        "+OK\r\n",
        place(servers[2].port),
        place(0),
        place(65536),
        "*2\r\n:1\r\n:2\r\n",
        "*2\r\n$0\r\n\r\n$1\r\n1\r\n",
        "*2\r\n$9\r\n127.0.0.1\r\n$1\r\nx\r\n",
        "",
    };
    servers[1].rows[0] = (row){ASK, place(servers[3].port)};
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        servers[0].rows[0] = (row){ASK, answers[i]};
        CHECK_MSG(load(sentinel_url(), "key", &err) == CESSION_OK, "%zu: %s", i, err.text);
    }
    CHECK_INT(servers[2].asked[1], 0); /* a replica is never read from */

    /* Both name the replica: it is asked once, and refused. */
    unsigned before = servers[2].asked[0];
    servers[0].rows[0] = servers[1].rows[0] = (row){ASK, place(servers[2].port)};
    CHECK_STATUS(load(sentinel_url(), "key", &err), CESSION_E_UNAVAILABLE);
    CHECK(strstr(err.text, "none any more") != NULL);
    CHECK_INT(servers[2].asked[0] - before, 1);

    servers[2].rows[0] = (row){"ROLE", "-NOPERM this user has no permissions\r\n"};
    CHECK_STATUS(load(sentinel_url(), "key", &err), CESSION_E_PERMISSION);
    CHECK(strstr(err.text, "+role") != NULL);
    servers[2].rows[0] = (row){"ROLE", "+OK\r\n"};
    CHECK_STATUS(load(sentinel_url(), "key", &err), CESSION_E_UNAVAILABLE);
    servers[2].rows[0] = (row){"ROLE", "*0\r\n"};
    CHECK_STATUS(load(sentinel_url(), "key", &err), CESSION_E_UNAVAILABLE);
}

/* READONLY in the middle: another look, and the write goes to the new master. */
static void test_sentinel_follows_readonly(void)
{
    cession_store *store = NULL;
    cession_error err = CESSION_ERROR_INIT;
    listen_all();
    servers[0].rows[0] = servers[1].rows[0] = (row){ASK, place(servers[2].port)};
    for (size_t i = 2; i < 4; i++) {
        servers[i].rows[0] = (row){"ROLE", MASTER};
        servers[i].rows[1] = (row){"DEL key", ":1\r\n"};
    }
    REQUIRE_OK(cession_store_open_url(sentinel_url(), &store, &err));
    REQUIRE_OK(cession_store_remove(store, SPAN("key"), cession_deadline_in(3000), &err));
    CHECK_INT(servers[2].asked[1], 1);
    servers[2].rows[1] = (row){"DEL key", "-READONLY You can't write against a replica.\r\n"};
    servers[0].rows[0] = servers[1].rows[0] = (row){ASK, place(servers[3].port)};
    CHECK_OK(cession_store_remove(store, SPAN("key"), cession_deadline_in(3000), &err));
    CHECK_INT(servers[3].asked[1], 1);
    /* Nobody knows another one: the answer stands. */
    servers[3].rows[1] = servers[2].rows[1];
    CHECK_STATUS(cession_store_remove(store, SPAN("key"), cession_deadline_in(3000), &err),
                 CESSION_E_UNAVAILABLE);
    CHECK(strstr(err.text, "READONLY") != NULL);
    cession_store_close(store);
}

/* ---- threads, forks, memory ----------------------------------------------------------- */

static void serve_everybody(void)
{
    listen_all();
    servers[0].rows[0] = (row){"CLUSTER SLOTS",
                               text("*1\r\n%s", range(0, 16383, "127.0.0.1", servers[2].port))};
    servers[0].rows[1] = servers[1].rows[0] = (row){ASK, place(servers[2].port)};
    servers[2].rows[0] = (row){"ROLE", MASTER};
    servers[2].rows[1] = (row){"GET key", FOUND};
    servers[2].rows[2] = (row){"PTTL key", LIVES};
    servers[2].rows[3] = (row){"CLUSTER SLOTS", servers[0].rows[0].answer};
}

static int load_from(cession_store *store)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_stored stored;
    cession_stored_init(&stored);
    int status = cession_store_load(store, SPAN("key"), cession_deadline_in(3000), &stored, &err);
    cession_stored_release(&stored);
    return status;
}

static void *load_many(void *context)
{
    for (int i = 0; i < 20; i++)
        CHECK_OK(load_from(context));
    return NULL;
}

/* Of threads that all need the map one asks for it. */
static void test_threads_look_once(void)
{
    for (int sentinel = 0; sentinel < 2; sentinel++) {
        cession_store *store = NULL;
        pthread_t threads[8];
        serve_everybody();
        REQUIRE_OK(cession_store_open_url(sentinel ? sentinel_url() : cluster_url(), &store, NULL));
        for (size_t i = 0; i < 8; i++)
            REQUIRE(pthread_create(&threads[i], NULL, load_many, store) == 0);
        for (size_t i = 0; i < 8; i++)
            pthread_join(threads[i], NULL);
        CHECK_INT(servers[0].asked[sentinel], 1);
        cession_store_close(store);
    }
}

static void test_forks(void)
{
    for (int sentinel = 0; sentinel < 2; sentinel++) {
        cession_store *store = NULL;
        serve_everybody();
        REQUIRE_OK(cession_store_open_url(sentinel ? sentinel_url() : cluster_url(), &store, NULL));
        CHECK_OK(load_from(store));
        for (int i = 0; i < 3; i++) {
            int status = -1;
            pid_t child = fork();
            if (child == 0)
                child_end(load_from(store) == CESSION_OK ? 0 : 1);
            CHECK_OK(load_from(store)); /* over the very connection that the child had, too */
            REQUIRE(waitpid(child, &status, 0) == child);
            CHECK_INT(status, 0);
        }
        CHECK_OK(load_from(store));
        cession_store_close(store);
    }
}

/* A server that cannot be looked for is as one that cannot be reached. */
static void test_out_of_memory(void)
{
    for (int sentinel = 0; sentinel < 2; sentinel++) {
        char url[128];
        serve_everybody();
        snprintf(url, sizeof url, "%s", sentinel ? sentinel_url() : cluster_url());
        FAILING_ALLOC_LOOP(n)
        {
            cession_store *store = NULL;
            int status = cession_store_open_url(url, &store, NULL);
            if (status == CESSION_OK)
                status = load_from(store);
            CHECK_MSG(status == CESSION_OK || (status == CESSION_E_NOMEM && failing_alloc_fired()),
                      "%zu: %s", n, cession_status_name(status));
            cession_store_close(store);
        }
    }
}

/* Servers that never answer cost the time that there is, and no more. */
static void test_the_deadline_is_kept(void)
{
    cession_error err = CESSION_ERROR_INIT;
    cession_stored stored;
    cession_store *store = NULL;
    cession_stored_init(&stored);
    listen_all();
    /* Nobody accepts: the connection is made and nothing is ever answered. */
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    REQUIRE(fd >= 0 && bind(fd, (void *)&address, size) == 0 && listen(fd, 64) == 0 &&
            getsockname(fd, (void *)&address, &size) == 0);
    unsigned silent = ntohs(address.sin_port);
    servers[0].rows[0] = (row){"CLUSTER SLOTS",
                               text("*1\r\n%s", range(0, 16383, "127.0.0.1", silent))};
    servers[0].rows[1] = (row){ASK, place(silent)};
    const char *urls[] = {
        text("redis+cluster://127.0.0.1:%u", silent),
        text("redis+cluster://127.0.0.1:%u,127.0.0.1:%u", silent, servers[0].port),
        text("redis+sentinel://127.0.0.1:%u/m", silent),
        text("redis+sentinel://127.0.0.1:%u,127.0.0.1:%u/m", silent, servers[0].port)};
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        REQUIRE_OK(cession_store_open_url(urls[i], &store, &err));
        for (int again = 0; again < 2; again++) {
            cession_deadline deadline = cession_deadline_in(200);
            CHECK_STATUS(cession_store_load(store, SPAN("key"), deadline, &stored, &err),
                         CESSION_E_TIMEOUT);
            /* On a busy machine; without a deadline it would be for ever. */
            CHECK(cession_deadline_left_ms(deadline + INT64_C(5000000000)) > 0);
        }
        cession_store_close(store);
    }
    close(fd);
}

/* What is looked at again while all goes well: the sentinels every second, the map a
 * second after a MOVED. That nobody answers then is no matter. */
static void test_looks_again_in_passing(void)
{
    cession_store *cluster = NULL, *sentinel = NULL;
    unsigned slot = ces_redis_slot(SPAN("key"));
    serve_everybody();
    servers[2].rows[4] = (row){"DEL key",
                               text("-MOVED %u 127.0.0.1:%u\r\n", slot, servers[3].port)};
    servers[3].rows[0] = (row){"DEL key", ":1\r\n"};
    servers[3].rows[1] = (row){"GET key", FOUND};
    servers[3].rows[2] = (row){"PTTL key", LIVES};
    REQUIRE_OK(cession_store_open_url(cluster_url(), &cluster, NULL));
    REQUIRE_OK(cession_store_open_url(sentinel_url(), &sentinel, NULL));
    CHECK_OK(load_from(cluster));
    CHECK_OK(load_from(sentinel));
    CHECK_OK(cession_store_remove(cluster, SPAN("key"), cession_deadline_in(3000), NULL));
    CHECK_OK(load_from(cluster));
    CHECK_INT(servers[3].asked[1], 1); /* the slot was corrected at once */
    CHECK_INT(servers[0].asked[0], 1);
    CHECK_INT(servers[2].asked[3], 0);
    unsigned before = servers[0].asked[1];
    ces_sleep_ns(INT64_C(1100000000));
    CHECK_OK(load_from(cluster)); /* asks a server of the map, which says as before */
    CHECK_INT(servers[0].asked[0] + servers[2].asked[3], 2);
    CHECK_INT(servers[3].asked[1], 1);
    CHECK_OK(load_from(sentinel));
    CHECK_OK(load_from(sentinel));
    CHECK_INT(servers[0].asked[1] - before, 1);

    CHECK_OK(cession_store_remove(cluster, SPAN("key"), cession_deadline_in(3000), NULL));
    servers[0].rows[0].answer = servers[2].rows[3].answer = "-ERR no\r\n";
    servers[0].rows[1].answer = servers[1].rows[0].answer = "-ERR no\r\n";
    ces_sleep_ns(INT64_C(1100000000));
    CHECK_OK(load_from(cluster));
    CHECK_OK(load_from(sentinel));
    cession_store_close(cluster);
    cession_store_close(sentinel);
}

static const harness_test tests[] = {
    HARNESS_TEST(slots),
    HARNESS_TEST(urls),
    HARNESS_TEST(cluster_redirections),
    HARNESS_TEST(cluster_endless_and_wrong_redirections),
    HARNESS_TEST(cluster_malformed_maps),
    HARNESS_TEST(cluster_many_places),
    HARNESS_TEST(sentinel_answers),
    HARNESS_TEST(sentinel_follows_readonly),
    HARNESS_TEST(threads_look_once),
    HARNESS_TEST(looks_again_in_passing),
    HARNESS_TEST(forks),
    HARNESS_TEST(out_of_memory),
    HARNESS_TEST(the_deadline_is_kept),
};
HARNESS_MAIN(tests)
