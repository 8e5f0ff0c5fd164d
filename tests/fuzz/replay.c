/* Runs a fuzz target without libFuzzer: over every file of the directories given,
 * then over a bounded, always equal set of mutations of these files (of a few
 * built-in bytes where there are none). Each input ends at a page that cannot be
 * read. The last line says how many inputs ran; a failure ends the program. */
#include "fuzz.h"

#include <dirent.h>
#include <string.h>

#include "guard.h"
#include "harness.h"

#define INPUT_MAX 65536u
#define SEEDS_MAX 256u
#define MUTATIONS 30000u

struct seed {
    uint8_t *data;
    size_t len;
};

static struct seed seeds[SEEDS_MAX];
static size_t seed_count;
static guard page;

static void run(const uint8_t *data, size_t len)
{
    LLVMFuzzerTestOneInput(guard_place(&page, data, len), len);
}

static void add_seed(const uint8_t *data, size_t len)
{
    if (seed_count == SEEDS_MAX)
        return;
    uint8_t *copy = malloc(len + 1); /* never of size 0 */
    MUST(copy);
    memcpy(copy, data, len);
    seeds[seed_count++] = (struct seed){copy, len};
}

static void run_file(const char *path)
{
    static uint8_t data[INPUT_MAX];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(2);
    }
    size_t len = fread(data, 1, sizeof data, file);
    fclose(file);
    run(data, len);
    add_seed(data, len);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In the order of their names: the mutations depend on it. */
static void run_directory(const char *path)
{
    char *names[SEEDS_MAX];
    size_t count = 0;
    DIR *directory = opendir(path);
    if (!directory) {
        perror(path);
        exit(2);
    }
    for (struct dirent *entry; count < SEEDS_MAX && (entry = readdir(directory));) {
        if (entry->d_name[0] != '.') {
            size_t size = strlen(path) + strlen(entry->d_name) + 2;
            MUST(names[count] = malloc(size));
            snprintf(names[count++], size, "%s/%s", path, entry->d_name);
        }
    }
    closedir(directory);
    qsort(names, count, sizeof names[0], compare_names);
    for (size_t i = 0; i < count; i++) {
        run_file(names[i]);
        free(names[i]);
    }
}

static size_t mutate(harness_rng *rng, uint8_t *data, size_t len)
{
    for (uint64_t n = 1 + harness_below(rng, 4); n > 0; n--) {
        size_t at = len > 0 ? harness_below(rng, len) : 0;
        const struct seed *other = &seeds[harness_below(rng, seed_count)];
        switch (harness_below(rng, 6)) {
        case 0: /* one bit */
            if (len > 0)
                data[at] ^= (uint8_t)(1u << harness_below(rng, 8));
            break;
        case 1: /* one byte, often a telling one */
            if (len > 0)
                data[at] = harness_below(rng, 2) ? (uint8_t)harness_random(rng)
                                                 : (uint8_t[]){0, 0x7f, 0x80, 0xff}[at % 4];
            break;
        case 2: /* cut */
            len = at;
            break;
        case 3: /* one byte less */
            if (len > 0) {
                memmove(data + at, data + at + 1, len - at - 1);
                len--;
            }
            break;
        case 4: /* one byte more */
            if (len < INPUT_MAX) {
                memmove(data + at + 1, data + at, len - at);
                data[at] = (uint8_t)harness_random(rng);
                len++;
            }
            break;
        default: /* a piece of another seed */
            if (other->len > 0) {
                size_t from = harness_below(rng, other->len);
                size_t count = 1 + harness_below(rng, other->len - from);
                if (count > INPUT_MAX - at)
                    count = INPUT_MAX - at;
                memcpy(data + at, other->data + from, count);
                if (at + count > len)
                    len = at + count;
            }
        }
    }
    return len;
}

int main(int argc, char **argv)
{
    static const uint8_t built_in[] = {0x82, 0xa1, 'k', 0x01, 0x80, '}', 'K', 0x01, '.'};
    static uint8_t data[INPUT_MAX];
    for (int i = 1; i < argc; i++)
        run_directory(argv[i]);
    size_t files = seed_count;
    if (seed_count == 0)
        add_seed(built_in, sizeof built_in);

    harness_rng rng = {1};
    for (unsigned i = 0; i < MUTATIONS; i++) {
        const struct seed *seed = &seeds[harness_below(&rng, seed_count)];
        memcpy(data, seed->data, seed->len);
        run(data, mutate(&rng, data, seed->len));
    }
    run(data, 0);
    for (size_t i = 0; i < seed_count; i++)
        free(seeds[i].data);
    guard_release(&page);
    printf("%zu files and %u mutations ran\n", files, MUTATIONS + 1);
    return 0;
}
