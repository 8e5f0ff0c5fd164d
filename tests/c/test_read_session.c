/* examples/c/read_session against a store that the library wrote, as a process of
 * its own. READ_SESSION names the program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define SID "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define DEAD "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static char directory[] = "/tmp/read_session_XXXXXX";
static char url[128];

/* Runs it with this cookie; the exit status. What it printed goes to *ret_text. */
static int run(const char *environment, const char *cookie, char *ret_text, size_t size)
{
    const char *program = getenv("READ_SESSION");
    char command[2048];
    REQUIRE(program != NULL);
    snprintf(
        command, sizeof command,
        "printf '%%s\\n' '%s' | env -u SECRET_KEY -u SESSION_COOKIE SESSION_URL='%s' %s '%s' 2>&1",
        cookie, url, environment, program);
    FILE *pipe = popen(command, "r");
    REQUIRE(pipe != NULL);
    size_t len = fread(ret_text, 1, size - 1, pipe);
    ret_text[len] = '\0';
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void put(cession_store *store, const char *sid, cession_span value)
{
    CHECK_OK(cession_store_create(store, cession_span_str(sid), value, 3600000,
                                  cession_deadline_in(5000), NULL));
}

static void test_prints_the_session(void)
{
    char text[4096];
    cession_error err = CESSION_ERROR_INIT;
    cession_store *store, *prefixed;
    REQUIRE(mkdtemp(directory) != NULL);
    snprintf(url, sizeof url, "sqlite://%s/sessions.sqlite3", directory);
    REQUIRE_OK(cession_store_open_url(url, &store, &err));
    REQUIRE_OK(cession_store_prefix(store, SPAN("session:"), &prefixed, &err));
    put(prefixed, SID,
        SPAN("\x84\xa4user\xa5"
             "alice\xd9\x02"
             "bc\x90\xa3"
             "a\x1b"
             "b\x01\x07\xc0"));
    put(prefixed, DEAD, cession_codec_msgpack()->tombstone);

    CHECK_INT(run("", SID, text, sizeof text), 0);
    CHECK_STR(text, "user = \"alice\"\nbc = []\na\\x1bb = 1\n7 = null\n");
    CHECK_INT(run("SESSION_COOKIE=" SID, "other", text, sizeof text), 0);
    CHECK_INT(run("", "cccccccccccccccccccccccccccccccc", text, sizeof text), 1);
    CHECK_INT(run("", "impossible sid", text, sizeof text), 1);
    CHECK_INT(run("", DEAD, text, sizeof text), 1);
    CHECK_INT(run("SESSION_KEY_PREFIX=other:", SID, text, sizeof text), 1);

    cession_signer *signer;
    const cession_span key = SPAN("secret");
    cession_buf cookie;
    cession_buf_init(&cookie, CESSION_SIGNED_MAX);
    REQUIRE_OK(cession_signer_new(&key, 1, &signer, &err));
    REQUIRE_OK(cession_signer_sign(signer, SPAN(SID), &cookie, &err));
    REQUIRE_OK(cession_buf_byte(&cookie, 0));
    CHECK_INT(
        run("SESSION_USE_SIGNER=1 SECRET_KEY=secret", (const char *)cookie.data, text, sizeof text),
        0);
    CHECK(strstr(text, "user = \"alice\"\n") != NULL);
    CHECK_INT(
        run("SESSION_USE_SIGNER=1 SECRET_KEY=other", (const char *)cookie.data, text, sizeof text),
        1);
    CHECK_INT(run("SESSION_USE_SIGNER=1 SECRET_KEY=secret", SID, text, sizeof text), 1);
    cession_buf_release(&cookie);
    cession_signer_free(signer);

    cession_store_close(prefixed);

    snprintf(url, sizeof url, "nonsense:");
    CHECK_INT(run("", SID, text, sizeof text), 2);
    char command[256];
    snprintf(command, sizeof command, "rm -r '%s'", directory);
    CHECK_INT(system(command), 0);
}

static const harness_test tests[] = {HARNESS_TEST(prints_the_session)};
HARNESS_MAIN(tests)
