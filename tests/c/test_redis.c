/* The redis driver on a real server: the contract by every way there is to reach
 * one, URLs and options, forks, memory that runs out, servers that go away. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "contract.h"
#include "harness.h"
#include "redis_world.h"

#define HOUR INT64_C(3600000)
#define LATE_MS 5000 /* on a busy machine */

/* ---- the contract ---------------------------------------------------------------- */

static cession_store *make_apart(void *context)
{
    return redis_open_apart(context);
}

static void run_contract(const char *url, unsigned changes)
{
    char copy[1024];
    snprintf(copy, sizeof copy, "%s", url);
    contract_run(&(contract_subject){
        .make = make_apart, .context = copy, .tick_ms = 1, .changes = changes, .late_ms = LATE_MS});
}

static cession_store *make_alone(void *context)
{
    CHECK_STR(redis_ask("FLUSHALL"), "+OK\r\n");
    return redis_open_url(context);
}

static void test_contract(void)
{
    char url[1024];
    snprintf(url, sizeof url, "%s", redis_url("0"));
    contract_run(
        &(contract_subject){.make = make_alone, .context = url, .tick_ms = 1, .late_ms = LATE_MS});
    CHECK_STR(redis_ask("FLUSHALL"), "+OK\r\n");
}

static void test_contract_resp3(void)
{
    run_contract(redis_url("1?protocol=3&client_name=cession"), 50);
}

static void test_contract_unix(void)
{
    run_contract(redis_text("unix://%s?db=2", redis_socket()), 50);
}

static void test_contract_acl(void)
{
    run_contract(redis_text("redis://app:sessions@127.0.0.1:%u", redis_port()), 50);
}

static void test_contract_acl_resp3(void)
{
    run_contract(redis_text("redis+unix://app:sessions@%s?protocol=3", redis_socket()), 20);
}

static void test_contract_few_connections(void)
{
    run_contract(redis_url("?max_connections=2"), 50);
}

static void no_fault(void *context, const char *operation, cession_fault *ret_fault)
{
    (void)context;
    (void)operation;
    (void)ret_fault;
}

static cession_store *make_chain(void *context)
{
    cession_store *store = redis_open_apart(context), *next = NULL;
    CHECK_OK(cession_store_trace(store, &next, NULL));
    store = next;
    CHECK_OK(cession_store_fault(store, no_fault, NULL, &next, NULL));
    return next;
}

static void test_contract_chain(void)
{
    char url[1024];
    snprintf(url, sizeof url, "%s", redis_url(""));
    contract_run(&(contract_subject){
        .make = make_chain, .context = url, .tick_ms = 1, .changes = 20, .late_ms = LATE_MS});
}

/* Servers that whoever runs the tests has started (python -m tests.services run):
 * with TLS, Valkey, behind Sentinel, a Cluster. */
static void test_contract_given(void)
{
    static const char *const names[] = {"REDIS_TLS_URL", "VALKEY_URL", "REDIS_SENTINEL_URL",
                                        "REDIS_CLUSTER_STORE"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *url = getenv(names[i]);
        if (url != NULL) {
            run_contract(url, 20);
        }
    }
}

static const harness_test tests[] = {
    HARNESS_TEST(contract),           HARNESS_TEST(contract_resp3),
    HARNESS_TEST(contract_unix),      HARNESS_TEST(contract_acl),
    HARNESS_TEST(contract_acl_resp3), HARNESS_TEST(contract_few_connections),
    HARNESS_TEST(contract_chain),     HARNESS_TEST(contract_given),
};
HARNESS_MAIN(tests)
