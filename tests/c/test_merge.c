/* The three-way merge: named cases, and against a model that is written as the
 * rule reads. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/msgpack.h"
#include "failing_alloc.h"
#include "session/keys.h"
#include "session/merge.h"

/* A map in test notation: "a1 b2" is {"a": 1, "b": 2}; letters are keys, digits
 * values, "M" is the metadata key, "P" the permanent key. The spans point into
 * static texts. */
static cession_span encoded_key(char name)
{
    static uint8_t keys[128][2];
    if (name == 'M')
        return cession_codec_msgpack()->meta_key;
    if (name == 'P')
        return cession_codec_msgpack()->permanent_key;
    keys[(unsigned char)name][0] = 0xa1;
    keys[(unsigned char)name][1] = (uint8_t)name;
    return cession_span_of(keys[(unsigned char)name], 2);
}

static cession_span encoded_value(char digit)
{
    static uint8_t values[128];
    values[(unsigned char)digit] = (uint8_t)(digit - '0');
    return cession_span_of(&values[(unsigned char)digit], 1);
}

static void fill(cession_view *view, const char *text)
{
    cession_view_init(view);
    for (; *text; text++) {
        if (*text == ' ')
            continue;
        REQUIRE_OK(cession_view_add(view, encoded_key(text[0]), encoded_value(text[1])));
        text++;
    }
}

static void print_view(const cession_view *view, char *out, size_t size)
{
    const cession_codec *codec = cession_codec_msgpack();
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < view->count; i++) {
        cession_span key = view->entries[i].key;
        char name = cession_span_eq(key, codec->meta_key)        ? 'M'
                    : cession_span_eq(key, codec->permanent_key) ? 'P'
                                                                 : (char)key.data[1];
        len += (size_t)snprintf(out + len, size - len, "%s%c%c", i ? " " : "", name,
                                (char)(view->entries[i].value.data[0] + '0'));
    }
}

static void test_named_cases(void)
{
    static const struct {
        const char *what, *base, *mine, *theirs, *merged;
        unsigned conflicts;
        bool changed;
    } rows[] = {
        {"nobody changed", "a1 b2", "a1 b2", "a1 b2", "a1 b2", 0, false},
        {"only they changed", "a1 b2", "a1 b2", "a1 b3 c4", "a1 b3 c4", 0, false},
        {"only I changed", "a1 b2", "a1 b3 c4", "a1 b2", "a1 b3 c4", 0, true},
        {"different keys", "a1 b2", "a5 b2", "a1 b6", "a5 b6", 0, true},
        {"both added different keys", "a1", "a1 b2", "a1 c3", "a1 c3 b2", 0, true},
        {"same key, different values", "a1", "a2", "a3", "a2", 1, true},
        {"same key, same value", "a1", "a2", "a2", "a2", 0, false},
        {"both added a key alike", "", "a1", "a1", "a1", 0, false},
        {"both added a key", "", "a1", "a2", "a1", 1, true},
        {"I deleted, they wrote another", "a1 b2", "b2", "a1 b3", "b3", 0, true},
        {"they deleted, I wrote another", "a1 b2", "a1 b3", "b2", "b3", 0, true},
        {"both deleted", "a1 b2", "b2", "b2", "b2", 0, false},
        {"I deleted what they changed", "a1", "", "a2", "", 1, true},
        {"I changed what they deleted", "a1", "a2", "", "a2", 1, true},
        {"they deleted, I did nothing", "a1 b2", "a1 b2", "b2", "b2", 0, false},
        {"I emptied", "a1 b2", "", "a1 b2", "", 0, true},
        {"they emptied", "a1 b2", "a1 b2", "", "", 0, false},
        {"they emptied, I added", "a1", "a1 b2", "", "b2", 0, true},
        {"everything new", "", "a1", "", "a1", 0, true},
        {"nothing at all", "", "", "", "", 0, false},
        {"their order, then mine", "a1 b2 c3", "x1 c3 b2 a1 y2", "c3 a1 b2", "c3 a1 b2 x1 y2", 0,
         true},
        {"my order alone is no change", "a1 b2", "b2 a1", "a1 b2", "a1 b2", 0, false},
        {"deleted and set again to the same", "a1 b2", "b2 a1", "a1 b3", "a1 b3", 0, false},
        {"permanence is a key like others", "P0 a1", "P1 a1", "P0 a2", "P1 a2", 0, true},
        {"metadata is theirs", "M1 a1", "M2 a1", "M3 a1", "M3 a1", 0, false},
        {"metadata is not deleted by me", "M1 a1", "a2", "M1 a1", "M1 a2", 0, true},
        {"metadata is not added by me", "a1", "M1 a1", "a1", "a1", 0, false},
        {"metadata that they dropped stays so", "M1 a1", "M1 a1", "a1", "a1", 0, false},
        {"two conflicts of three", "a1 b1 c1", "a2 b2 c2", "a3 b3 c2", "a2 b2 c2", 2, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cession_view base, mine, theirs, merged;
        fill(&base, rows[i].base);
        fill(&mine, rows[i].mine);
        fill(&theirs, rows[i].theirs);
        cession_view_init(&merged);
        ces_merge_result result = {99, false};
        CHECK_OK(ces_merge(cession_codec_msgpack(), &base, &mine, &theirs, &merged, &result));
        char got[200];
        print_view(&merged, got, sizeof got);
        CHECK_MSG(strcmp(got, rows[i].merged) == 0, "%s: got \"%s\", expected \"%s\"", rows[i].what,
                  got, rows[i].merged);
        CHECK_MSG(result.conflicts == rows[i].conflicts, "%s: %u conflicts", rows[i].what,
                  result.conflicts);
        CHECK_MSG(result.changed == rows[i].changed, "%s", rows[i].what);
        cession_view_release(&base);
        cession_view_release(&mine);
        cession_view_release(&theirs);
        cession_view_release(&merged);
    }
}

/* ---- against a model --------------------------------------------------------- */

/* A map of small numbers to small numbers in a given order. Value 0: absent. */
struct model {
    uint8_t values[64];
    uint8_t order[64]; /* the keys that are there */
    size_t count;
};

static void random_model(harness_rng *rng, struct model *model, const struct model *from,
                         unsigned keys, unsigned change_of_100)
{
    memset(model, 0, sizeof *model);
    for (unsigned k = 0; k < keys; k++) {
        model->values[k] = from ? from->values[k] : (uint8_t)harness_below(rng, 3);
        if (harness_below(rng, 100) < change_of_100)
            model->values[k] = (uint8_t)harness_below(rng, 4);
    }
    /* Mostly the order of from, sometimes shuffled. */
    uint8_t order[64];
    for (unsigned k = 0; k < keys; k++)
        order[k] = (uint8_t)k;
    if (harness_below(rng, 3) == 0) {
        for (unsigned k = keys; k > 1; k--) {
            unsigned other = (unsigned)harness_below(rng, k);
            uint8_t kept = order[k - 1];
            order[k - 1] = order[other];
            order[other] = kept;
        }
    }
    for (unsigned k = 0; k < keys; k++) {
        if (model->values[order[k]])
            model->order[model->count++] = order[k];
    }
}

static void view_of_model(const struct model *model, cession_view *view)
{
    static uint8_t bytes[64][2], values[8];
    cession_view_init(view);
    for (size_t i = 0; i < model->count; i++) {
        uint8_t key = model->order[i];
        uint8_t value = model->values[key];
        values[value] = value;
        bytes[key][0] = 0xcc;
        bytes[key][1] = (uint8_t)(0x80 + key);
        /* Keys of two lengths. */
        cession_span span = key % 3 ? cession_span_of(bytes[key], 2)
                                    : cession_span_of(&bytes[key][1], 1);
        REQUIRE_OK(cession_view_add(view, span, cession_span_of(&values[value], 1)));
    }
}

static size_t model_key(cession_span key)
{
    return (size_t)(key.data[key.len - 1] - 0x80);
}

static void check_against_model(harness_rng *rng, unsigned keys)
{
    struct model base, mine, theirs;
    random_model(rng, &base, NULL, keys, 0);
    random_model(rng, &mine, &base, keys, (unsigned)harness_below(rng, 60));
    random_model(rng, &theirs, &base, keys, (unsigned)harness_below(rng, 60));

    uint8_t expected[64] = {0};
    size_t expected_count = 0;
    unsigned conflicts = 0;
    bool changed = false;
    for (unsigned k = 0; k < keys; k++) {
        bool i_did = mine.values[k] != base.values[k];
        bool they_did = theirs.values[k] != base.values[k];
        expected[k] = i_did ? mine.values[k] : theirs.values[k];
        expected_count += expected[k] != 0;
        conflicts += i_did && they_did && mine.values[k] != theirs.values[k];
        changed = changed || expected[k] != theirs.values[k];
    }

    cession_view b, m, t, merged;
    view_of_model(&base, &b);
    view_of_model(&mine, &m);
    view_of_model(&theirs, &t);
    cession_view_init(&merged);
    ces_merge_result result = {99, false};
    REQUIRE_OK(ces_merge(cession_codec_msgpack(), &b, &m, &t, &merged, &result));
    CHECK_INT(merged.count, expected_count);
    CHECK_INT(result.conflicts, conflicts);
    CHECK_INT(result.changed, changed);
    unsigned wrong = 0;
    /* The order: what they have, as they have it; then the rest, as I have it. */
    size_t at = 0;
    for (size_t i = 0; i < theirs.count; i++) {
        if (expected[theirs.order[i]] && at < merged.count)
            wrong += model_key(merged.entries[at++].key) != theirs.order[i];
    }
    for (size_t i = 0; i < mine.count; i++) {
        if (expected[mine.order[i]] && !theirs.values[mine.order[i]] && at < merged.count)
            wrong += model_key(merged.entries[at++].key) != mine.order[i];
    }
    wrong += at != merged.count;
    for (size_t i = 0; i < merged.count; i++)
        wrong += merged.entries[i].value.data[0] != expected[model_key(merged.entries[i].key)];
    CHECK_INT(wrong, 0);

    cession_view_release(&b);
    cession_view_release(&m);
    cession_view_release(&t);
    cession_view_release(&merged);
}

static void test_agrees_with_the_model(void)
{
    harness_rng rng = {20};
    for (int round = 0; round < 20000; round++)
        check_against_model(&rng, 1 + (unsigned)harness_below(&rng, round % 2 ? 6 : 64));
}

/* ---- size -------------------------------------------------------------------- */

#define MANY 20000u

static uint8_t many_keys[MANY][8];

/* Keys in the order start, start + step, ... modulo MANY; all with one value. */
static void fill_many(cession_view *view, size_t start, size_t step, const uint8_t *value)
{
    cession_view_init(view);
    for (size_t i = 0; i < MANY; i++) {
        size_t k = (start + i * step) % MANY;
        many_keys[k][0] = 0xce;
        many_keys[k][1] = (uint8_t)(k >> 16);
        many_keys[k][2] = (uint8_t)(k >> 8);
        many_keys[k][3] = (uint8_t)k;
        REQUIRE_OK(
            cession_view_add(view, cession_span_of(many_keys[k], 5), cession_span_of(value, 1)));
    }
}

/* Comparing all with all would be 2.4 billion comparisons here, a merge takes
 * some milliseconds; that this ends within the test's time is the assertion,
 * together with the result. */
static void test_many_keys_in_any_order(void)
{
    static const uint8_t one = 1, two = 2;
    cession_view base, mine, theirs, merged;
    fill_many(&base, 0, 1, &one);
    fill_many(&mine, MANY - 1, MANY - 1, &two);
    fill_many(&theirs, 5, 7919, &one);
    cession_view_init(&merged);
    for (int again = 0; again < 20; again++) {
        ces_merge_result result = {99, false};
        REQUIRE_OK(ces_merge(cession_codec_msgpack(), &base, &mine, &theirs, &merged, &result));
        CHECK_INT(merged.count, MANY);
        CHECK(result.changed);
        CHECK_INT(result.conflicts, 0);
        CHECK(merged.entries[0].value.data == &two && merged.entries[MANY - 1].value.data == &two);
        CHECK(merged.entries[1].key.data == mine.entries[MANY - 1 - 7924].key.data);
    }
    cession_view_release(&base);
    cession_view_release(&mine);
    cession_view_release(&theirs);
    cession_view_release(&merged);
}

static void test_merged_size_is_bounded(void)
{
    static uint8_t keys[2][CESSION_ENTRIES_MAX][4];
    static const uint8_t value = 1;
    cession_view base, mine, theirs, merged;
    fill(&base, "");
    cession_view_init(&mine);
    cession_view_init(&theirs);
    for (size_t i = 0; i < CESSION_ENTRIES_MAX; i++) {
        for (size_t side = 0; side < 2; side++) {
            uint8_t *key = keys[side][i];
            key[0] = (uint8_t)side;
            key[1] = (uint8_t)(i >> 8);
            key[2] = (uint8_t)i;
            if (side == 0 || i == 0)
                REQUIRE_OK(cession_view_add(side ? &mine : &theirs, cession_span_of(key, 3),
                                            cession_span_of(&value, 1)));
        }
    }
    fill(&merged, "k1");
    ces_merge_result result = {99, false};
    CHECK_STATUS(ces_merge(cession_codec_msgpack(), &base, &mine, &theirs, &merged, &result),
                 CESSION_E_LIMIT);
    CHECK(merged.count == 1 && result.conflicts == 99); /* untouched */
    cession_view_release(&mine);
    cession_view_release(&theirs);
    cession_view_release(&merged);
}

static void test_without_memory(void)
{
    static uint8_t keys[60][2];
    static const uint8_t value[2] = {1, 2};
    FAILING_ALLOC_LOOP(n)
    {
        cession_view views[3], merged;
        cession_view_init(&merged);
        int rc = CESSION_OK;
        for (size_t v = 0; v < 3; v++) {
            cession_view_init(&views[v]);
            for (size_t i = 0; rc == CESSION_OK && i < 60; i++) {
                size_t k = v == 1 ? 59 - i : i;
                keys[k][0] = 0xcc;
                keys[k][1] = (uint8_t)(0x80 + k);
                rc = cession_view_add(&views[v], cession_span_of(keys[k], 2),
                                      cession_span_of(&value[v == 1], 1));
            }
        }
        ces_merge_result result = {99, false};
        if (rc == CESSION_OK)
            rc = ces_merge(cession_codec_msgpack(), &views[0], &views[1], &views[2], &merged,
                           &result);
        CHECK_STATUS(rc, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
        CHECK(rc == CESSION_OK || (merged.count == 0 && result.conflicts == 99));
        for (size_t v = 0; v < 3; v++)
            cession_view_release(&views[v]);
        cession_view_release(&merged);
    }
}

static void test_find_and_empty(void)
{
    const cession_codec *codec = cession_codec_msgpack();
    cession_view view;
    fill(&view, "a1 b2 M3");
    const cession_entry *entry = ces_view_find(&view, codec->meta_key);
    CHECK(entry == &view.entries[2]);
    CHECK(ces_view_find(&view, encoded_key('b')) == &view.entries[1]);
    CHECK(ces_view_find(&view, encoded_key('z')) == NULL);
    CHECK(!ces_view_empty(codec, &view));
    cession_view_release(&view);

    static const struct {
        const char *text;
        bool empty;
    } rows[] = {{"", true}, {"P1", true}, {"M1", true}, {"P1 M1", true}, {"P1 a0", false}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fill(&view, rows[i].text);
        CHECK_MSG(ces_view_empty(codec, &view) == rows[i].empty, "%s", rows[i].text);
        cession_view_release(&view);
    }
    cession_view_init(&view);
    CHECK(ces_view_find(&view, codec->meta_key) == NULL);
    CHECK(ces_view_empty(codec, &view));
}

static const harness_test tests[] = {
    HARNESS_TEST(named_cases),
    HARNESS_TEST(agrees_with_the_model),
    HARNESS_TEST(many_keys_in_any_order),
    HARNESS_TEST(merged_size_is_bounded),
    HARNESS_TEST(without_memory),
    HARNESS_TEST(find_and_empty),
};
HARNESS_MAIN(tests)
