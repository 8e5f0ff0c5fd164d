/* The merge against its rule. Each byte puts one entry into one of the maps: the
 * upper two bits choose it (3: all), four bits are the key, two bits the value. */
#include "fuzz.h"

#include <string.h>

#include "cession/cession.h"
#include "session/merge.h"

enum { BASE, MINE, THEIRS, MAPS };
#define KEYS 16u

struct maps {
    cession_view views[MAPS];
    int values[MAPS][KEYS]; /* -1: absent */
};

/* Key 0 is the metadata. */
static cession_span key_item(unsigned key)
{
    static const uint8_t items[KEYS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return key == 0 ? cession_codec_msgpack()->meta_key : cession_span_of(&items[key], 1);
}

static cession_span value_item(unsigned value)
{
    static const uint8_t items[4] = {0xc0, 0xc2, 0xc3, 0x2a};
    return cession_span_of(&items[value], 1);
}

static void put(struct maps *maps, size_t map, unsigned key, unsigned value)
{
    if (maps->values[map][key] >= 0)
        return;
    maps->values[map][key] = (int)value;
    MUST(cession_view_add(&maps->views[map], key_item(key), value_item(value)) == CESSION_OK);
}

static void check(const struct maps *maps, const cession_view *merged,
                  const ces_merge_result *result)
{
    unsigned conflicts = 0;
    size_t count = 0;
    bool changed = false;
    for (unsigned key = 0; key < KEYS; key++) {
        int base = maps->values[BASE][key], mine = maps->values[MINE][key];
        int theirs = maps->values[THEIRS][key];
        bool i_did = mine != base && key != 0;
        int expected = i_did ? mine : theirs;
        conflicts += i_did && theirs != base && theirs != mine;
        changed = changed || expected != theirs;
        count += expected >= 0;
        const cession_entry *entry = ces_view_find(merged, key_item(key));
        MUST((entry != NULL) == (expected >= 0));
        MUST(!entry || cession_span_eq(entry->value, value_item((unsigned)expected)));
    }
    MUST(merged->count == count);
    MUST(result->conflicts == conflicts);
    MUST(result->changed == changed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const cession_codec *codec = cession_codec_msgpack();
    struct maps maps;
    memset(maps.values, -1, sizeof maps.values);
    for (size_t map = 0; map < MAPS; map++)
        cession_view_init(&maps.views[map]);
    for (size_t i = 0; i < size; i++) {
        size_t which = data[i] >> 6;
        for (size_t map = 0; map < MAPS; map++) {
            if (which == map || which == MAPS)
                put(&maps, map, data[i] >> 2 & 15, data[i] & 3);
        }
    }

    cession_view merged, again;
    cession_view_init(&merged);
    cession_view_init(&again);
    ces_merge_result result = {0, false};
    MUST(ces_merge(codec, &maps.views[BASE], &maps.views[MINE], &maps.views[THEIRS], &merged,
                   &result) == CESSION_OK);
    check(&maps, &merged, &result);

    cession_buf bytes;
    cession_buf_init(&bytes, CESSION_VALUE_MAX);
    MUST(codec->compose(codec, merged.entries, merged.count, &bytes, NULL) == CESSION_OK);
    MUST(codec->view(codec, cession_buf_span(&bytes), &again, NULL) == CESSION_OK);
    MUST(again.count == merged.count);

    cession_buf_release(&bytes);
    cession_view_release(&again);
    cession_view_release(&merged);
    for (size_t map = 0; map < MAPS; map++)
        cession_view_release(&maps.views[map]);
    return 0;
}
