/* The plain-data pickle reader: what CPython writes is read, all else refused. */
#include "harness.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "base/msgpack.h"
#include "failing_alloc.h"
#include "guard.h"
#include "session/pickle.h"

#include "pickle_vectors.h"

#define VECTORS (sizeof vectors / sizeof vectors[0])

static void test_reads_what_cpython_writes(void)
{
    cession_buf out;
    cession_buf_init(&out, CESSION_VALUE_MAX);
    for (size_t i = 0; i < VECTORS; i++) {
        cession_error err = CESSION_ERROR_INIT;
        int rc = ces_pickle_to_msgpack(vectors[i].pickle, &out, &err);
        CHECK_MSG(rc == CESSION_OK, "%s, vector %zu: %s", vectors[i].name, i, err.text);
        if (rc == CESSION_OK) {
            CHECK_MSG(cession_span_eq(cession_buf_span(&out), vectors[i].msgpack), "%s, vector %zu",
                      vectors[i].name, i);
            CHECK_SPAN(cession_buf_span(&out), vectors[i].msgpack);
            size_t len = 0;
            unsigned flags = CES_MP_NOT_SHORT;
            CHECK_OK(ces_mp_walk(out.data, out.len, &len, &flags));
            CHECK(len == out.len && !(flags & CES_MP_NOT_SHORT));
        }
    }
    cession_buf_release(&out);
}

static void test_codec_reads_pickles(void)
{
    const cession_codec *codec = cession_codec_msgpack();
    cession_buf out;
    cession_buf_init(&out, CESSION_VALUE_MAX);
    cession_view view;
    cession_view_init(&view);
    for (size_t i = 0; i < VECTORS; i++) {
        CHECK_OK(codec->canonical(codec, vectors[i].pickle, &out, NULL));
        CHECK_SPAN(cession_buf_span(&out), vectors[i].msgpack);
        CHECK_STATUS(codec->view(codec, vectors[i].pickle, &view, NULL), CESSION_E_FORMAT);
        CHECK_OK(codec->view(codec, cession_buf_span(&out), &view, NULL));
    }
    cession_view_release(&view);
    cession_buf_release(&out);
}

/* Programs that are not plain data, or not what CPython writes for it. */
static void test_refuses(void)
{
    static const struct {
        const char *what;
        cession_span pickle;
    } rows[] = {
#define ROW(what, literal)                                  \
    {                                                       \
        what,                                               \
        {                                                   \
            (const uint8_t *)(literal), sizeof(literal) - 1 \
        }                                                   \
    }
        ROW("nothing", ""),
        ROW("no stop", "}"),
        ROW("only a stop", "."),
        ROW("something after the stop", "}.."),
        ROW("two values", "}}."),
        ROW("a mark is left", "(}."),
        ROW("a newer protocol", "\x80\x06}."),
        ROW("the protocol twice", "\x80\x04\x80\x04}."),
        ROW("the protocol later", "}\x80\x04."),
        ROW("root list", "]."),
        ROW("root set", "\x80\x04\x8f."),
        ROW("root None", "N."),
        ROW("root ordered dict", "ccollections\nOrderedDict\n)R."),
        ROW("an unknown code", "}\xff."),
        ROW("a frame past the end", "\x80\x04\x95\x05\0\0\0\0\0\0\0}."),
        /* Calls. */
        ROW("os.system", "cos\nsystem\n(Vtrue\ntR."),
        ROW("posix.system in a value", "}Vx\ncposix\nsystem\n(Vtrue\ntRs."),
        ROW("subprocess.Popen", "}Vx\ncsubprocess\nPopen\n(Vtrue\ntRs."),
        ROW("builtins.eval", "}Vx\ncbuiltins\neval\n(V1\ntRs."),
        ROW("builtins.exec", "\x80\x04}\x8c\x01x\x8c\x08"
                             "builtins\x8c\x04"
                             "exec\x93\x8c\x01"
                             "1\x85Rs."),
        ROW("builtins.getattr", "}Vx\ncbuiltins\ngetattr\n(Vx\nVy\ntRs."),
        ROW("builtins.__import__", "}Vx\ncbuiltins\n__import__\n(Vos\ntRs."),
        ROW("operator.attrgetter", "}Vx\ncoperator\nattrgetter\n(Vx\ntRs."),
        ROW("importlib", "}Vx\ncimportlib\nimport_module\n(Vos\ntRs."),
        ROW("codecs.open", "}Vx\ncbuiltins\nopen\n(V/etc/passwd\ntRs."),
        ROW("a dotted name", "\x80\x04}\x8c\x01x\x8c\x02os\x8c\x06system\x93s."),
        ROW("datetime with a dotted name", "\x80\x04}\x8c\x01x\x8c\x08"
                                           "datetime\x8c\x0c"
                                           "datetime.now\x93)Rs."),
        ROW("a known name in another module", "}Vx\ncos\nset\n(]tRs."),
        ROW("a module with a newline's neighbour", "}Vx\ncbuiltins \nset\n(]tRs."),
        ROW("a global as a value", "}Vx\ncbuiltins\nset\ns."),
        ROW("a global as a key", "}cbuiltins\nset\nVx\ns."),
        ROW("an instance", "}Vx\n(iuuid\nUUID\ns."),
        ROW("an object", "}Vx\n(cuuid\nUUID\nos."),
        ROW("a persistent id", "}Vx\nPid\ns."),
        ROW("a binary persistent id", "}Vx\nVid\nQs."),
        ROW("extension registry 1", "}Vx\n\x82\x01s."),
        ROW("extension registry 2", "}Vx\n\x83\x01\x01s."),
        ROW("extension registry 4", "}Vx\n\x84\x01\0\0\0s."),
        ROW("keyword arguments", "\x80\x04}\x8c\x01xcuuid\nUUID\n)}\x92s."),
        ROW("a buffer", "\x80\x05}\x8c\x01x\x97s."),
        ROW("a read-only buffer", "\x80\x05}\x8c\x01x\x97\x98s."),
        ROW("duplication", "}(K\x01"
                           "2u."),
        ROW("pop", "}N0."),
        ROW("pop to mark", "}(N1."),
        ROW("python 2 text", "}S'x'\nNs."),
        ROW("python 2 short text", "}U\x01xNs."),
        ROW("python 2 binary text", "}T\x01\0\0\0xNs."),
        /* State. */
        ROW("state of a dict", "}Vx\n}Vy\nNsbs."),
        ROW("state of the root", "}}b."),
        ROW("a uuid without state", "}Vx\ncuuid\nUUID\n)\x81s."),
        ROW("a uuid with two states", "}Vx\ncuuid\nUUID\n)\x81}Vint\nK\x05sb}Vint\nK\x06sbs."),
        ROW("a uuid with another name", "}Vx\ncuuid\nUUID\n)\x81}Vhex\nK\x05sbs."),
        ROW("a uuid of text", "}Vx\ncuuid\nUUID\n)\x81}Vint\nV5\nsbs."),
        ROW("a negative uuid", "}Vx\ncuuid\nUUID\n)\x81}Vint\nJ\xff\xff\xff\xffsbs."),
        ROW("a uuid of 129 bits",
            "}Vx\ncuuid\nUUID\n)\x81}Vint\nL340282366920938463463374607431768211456L\nsbs."),
        ROW("a uuid with more state", "}Vx\ncuuid\nUUID\n)\x81}(Vint\nK\x05Vbytes\nNubs."),
        ROW("a uuid called", "}Vx\ncuuid\nUUID\n(Vx\ntRs."),
        ROW("a uuid with arguments", "}Vx\ncuuid\nUUID\nK\x01\x85\x81}Vint\nK\x05sbs."),
        ROW("a markup called", "}Vx\ncmarkupsafe\nMarkup\n(Vx\ntRs."),
        ROW("a markup of bytes", "\x80\x03}X\x01\0\0\0xcmarkupsafe\nMarkup\nC\x01x\x85\x81s."),
        ROW("a markup of a list", "}Vx\ncmarkupsafe\nMarkup\n]\x85\x81s."),
        ROW("a new set", "}Vx\ncbuiltins\nset\n)\x81s."),
        ROW("reconstructing a set",
            "}Vx\nccopyreg\n_reconstructor\n(cbuiltins\nset\ncbuiltins\nobject\nNtRs."),
        ROW("reconstructing without base", "}Vx\nccopyreg\n_reconstructor\n(cuuid\nUUID\ntRs."),
        ROW("calling text", "}Vx\nVset\n(]tRs."),
        ROW("arguments are a list", "}Vx\ncbuiltins\nset\n]Rs."),
        ROW("too many arguments", "}Vx\ncbuiltins\nset\n(]]]]tRs."),
        /* Shapes with wrong content. */
        ROW("a set of a tuple", "}Vx\ncbuiltins\nset\n()tRs."),
        ROW("a set of nothing", "}Vx\ncbuiltins\nset\n(tRs."),
        ROW("a set of itself alike", "}Vx\n\x8f(K\x01K\x01\x90s."),
        ROW("a set of lists", "}Vx\n\x8f(]\x90s."),
        ROW("a set of dicts", "}Vx\n\x8f(}\x90s."),
        ROW("a set of sets", "}Vx\n\x8f(\x8f\x90s."),
        ROW("a set of tuples of lists", "}Vx\n\x8f(]\x85\x90s."),
        ROW("a frozenset of lists", "}Vx\n(]\x91s."),
        ROW("a list as key", "}]Ns."),
        ROW("a dict as key", "}}Ns."),
        ROW("a bytearray as key", "}\x96\0\0\0\0\0\0\0\0Ns."),
        ROW("an ordered dict as key", "}ccollections\nOrderedDict\n)RNs."),
        ROW("a key twice", "}(K\x01NK\x01Nu."),
        ROW("a key twice, at once and later", "}K\x01NsK\x01Ns."),
        ROW("an odd number of items", "}(K\x01NK\x02u."),
        ROW("an odd dict", "(K\x01NK\x02"
                           "d."),
        ROW("items without a mark", "}K\x01Nu."),
        ROW("append to a dict", "}K\x01"
                                "a."),
        ROW("append to the mark", "(K\x01"
                                  "a."),
        ROW("append to nothing", "K\x01"
                                 "a."),
        ROW("set in a list", "}Vx\n]K\x01Nss."),
        ROW("add to a list", "}Vx\n](K\x01\x90s."),
        ROW("add to a frozenset", "}Vx\n(\x91(K\x01\x90s."),
        ROW("bytes of text with euro", "}Vx\nc_codecs\nencode\n(V\\u20ac\nVlatin1\ntRs."),
        ROW("bytes of another encoding", "}Vx\nc_codecs\nencode\n(Vx\nVrot13\ntRs."),
        ROW("bytes of bytes", "}Vx\nc_codecs\nencode\n(C\x01xVlatin1\ntRs."),
        ROW("bytes of an int", "}Vx\ncbuiltins\nbytes\n(K\x05tRs."),
        ROW("bytearray of an int", "}Vx\ncbuiltins\nbytearray\n(K\x05tRs."),
        ROW("bytearray of another encoding", "}Vx\ncbuiltins\nbytearray\n(Vx\nVutf-8\ntRs."),
        ROW("month 13", "\x80\x04}K\x01"
                        "cdatetime\ndate\nC\x04\x07\xe8\x0d\x01\x85Rs."),
        ROW("month 0", "\x80\x04}K\x01"
                       "cdatetime\ndate\nC\x04\x07\xe8\0\x01\x85Rs."),
        ROW("day 0", "\x80\x04}K\x01"
                     "cdatetime\ndate\nC\x04\x07\xe8\x01\0\x85Rs."),
        ROW("29 february of a common year", "\x80\x04}K\x01"
                                            "cdatetime\ndate\nC\x04\x07\xe7\x02\x1d\x85Rs."),
        ROW("29 february 1900", "\x80\x04}K\x01"
                                "cdatetime\ndate\nC\x04\x07\x6c\x02\x1d\x85Rs."),
        ROW("year 0", "\x80\x04}K\x01"
                      "cdatetime\ndate\nC\x04\0\0\x01\x01\x85Rs."),
        ROW("year 10000", "\x80\x04}K\x01"
                          "cdatetime\ndate\nC\x04\x27\x10\x01\x01\x85Rs."),
        ROW("a date of 5 bytes", "\x80\x04}K\x01"
                                 "cdatetime\ndate\nC\x05\x07\xe8\x01\x01\0\x85Rs."),
        ROW("a date with a fold", "\x80\x04}K\x01"
                                  "cdatetime\ndate\nC\x04\x07\xe8\x81\x01\x85Rs."),
        ROW("a date of ints", "\x80\x04}K\x01"
                              "cdatetime\ndate\nM\xe8\x07K\x01K\x01\x87Rs."),
        ROW("a date with a zone",
            "\x80\x04}K\x01"
            "cdatetime\ndate\nC\x04\x07\xe8\x01\x01"
            "cdatetime\ntimezone\ncdatetime\ntimedelta\nK\0K\0K\0\x87R\x85R\x86Rs."),
        ROW("hour 24", "\x80\x04}K\x01"
                       "cdatetime\ntime\nC\x06\x18\0\0\0\0\0\x85Rs."),
        ROW("minute 60", "\x80\x04}K\x01"
                         "cdatetime\ntime\nC\x06\0\x3c\0\0\0\0\x85Rs."),
        ROW("second 60", "\x80\x04}K\x01"
                         "cdatetime\ntime\nC\x06\0\0\x3c\0\0\0\x85Rs."),
        ROW("a million microseconds", "\x80\x04}K\x01"
                                      "cdatetime\ntime\nC\x06\0\0\0\x0f\x42\x40\x85Rs."),
        ROW("an empty time", "\x80\x04}K\x01"
                             "cdatetime\ntime\nC\0\x85Rs."),
        ROW("a datetime of text", "\x80\x04}K\x01"
                                  "cdatetime\ndatetime\n\x8c\x0a"
                                  "2024-02-29\x85Rs."),
        ROW("a datetime with text as zone",
            "\x80\x04}K\x01"
            "cdatetime\ndatetime\nC\x0a\x07\xe8\x01\x01\0\0\0\0\0\0\x8c\x03UTC\x86Rs."),
        ROW("a datetime with a delta as zone",
            "\x80\x04}K\x01"
            "cdatetime\ndatetime\nC\x0a\x07\xe8\x01\x01\0\0\0\0\0\0"
            "cdatetime\ntimedelta\nK\0K\0K\0\x87R\x86Rs."),
        ROW("a zone of a day",
            "\x80\x04}K\x01"
            "cdatetime\ntime\nC\x06\0\0\0\0\0\0"
            "cdatetime\ntimezone\ncdatetime\ntimedelta\nK\x01K\0K\0\x87R\x85R\x86Rs."),
        ROW("a zone of minus a day",
            "\x80\x04}K\x01"
            "cdatetime\ntime\nC\x06\0\0\0\0\0\0"
            "cdatetime\ntimezone\ncdatetime\ntimedelta\nJ\xff\xff\xff\xffK\0K\0\x87R\x85R\x86Rs."),
        ROW("a zone alone", "}K\x01"
                            "cdatetime\ntimezone\ncdatetime\ntimedelta\nK\0K\0K\0\x87R\x85Rs."),
        ROW("a zone called with ints", "}K\x01"
                                       "cdatetime\ntimezone\nK\0\x85Rs."),
        ROW("a delta of 86400 seconds", "}K\x01"
                                        "cdatetime\ntimedelta\nK\0J\x80\x51\x01\0K\0\x87Rs."),
        ROW("a delta of negative seconds", "}K\x01"
                                           "cdatetime\ntimedelta\nK\0J\xff\xff\xff\xffK\0\x87Rs."),
        ROW("a delta of a million microseconds",
            "}K\x01"
            "cdatetime\ntimedelta\nK\0K\0J\x40\x42\x0f\0\x87Rs."),
        ROW("a delta of too many days", "}K\x01"
                                        "cdatetime\ntimedelta\nJ\0\xca\x9a\x3bK\0K\0\x87Rs."),
        ROW("a delta of floats", "}K\x01"
                                 "cdatetime\ntimedelta\nG\0\0\0\0\0\0\0\0K\0K\0\x87Rs."),
        ROW("a delta of two", "}K\x01"
                              "cdatetime\ntimedelta\nK\0K\0\x86Rs."),
        ROW("decimal of an int", "}K\x01"
                                 "cdecimal\nDecimal\nK\x05\x85Rs."),
        ROW("decimal of words", "}K\x01"
                                "cdecimal\nDecimal\nVfive\n\x85Rs."),
        ROW("decimal of nothing", "}K\x01"
                                  "cdecimal\nDecimal\nV\n\x85Rs."),
        ROW("decimal of a sign", "}K\x01"
                                 "cdecimal\nDecimal\nV-\n\x85Rs."),
        ROW("decimal with a space", "}K\x01"
                                    "cdecimal\nDecimal\nV1 \n\x85Rs."),
        ROW("decimal with an underscore", "}K\x01"
                                          "cdecimal\nDecimal\nV1_0\n\x85Rs."),
        ROW("decimal with a small e", "}K\x01"
                                      "cdecimal\nDecimal\nV1e+5\n\x85Rs."),
        ROW("decimal without exponent", "}K\x01"
                                        "cdecimal\nDecimal\nV1E+\n\x85Rs."),
        ROW("decimal with a bare point", "}K\x01"
                                         "cdecimal\nDecimal\nV1.\n\x85Rs."),
        ROW("decimal with a huge exponent", "}K\x01"
                                            "cdecimal\nDecimal\nV1E+99999999999999999999\n\x85Rs."),
        ROW("decimal of other digits", "}K\x01"
                                       "cdecimal\nDecimal\nV\\u0661\n\x85Rs."),
        ROW("ordered dict of pairs", "}K\x01"
                                     "ccollections\nOrderedDict\n(]tRs."),
        /* Text. */
        ROW("a surrogate", "}V\\ud800\nNs."),
        ROW("a surrogate in utf-8", "}X\x03\0\0\0\xed\xa0\x80Ns."),
        ROW("broken utf-8", "}X\x01\0\0\0\xffNs."),
        ROW("past unicode", "}V\\U00110000\nNs."),
        ROW("a short escape", "}V\\u12\nNs."),
        ROW("an escape that is none", "}V\\n\nNs."),
        ROW("a backslash at the end", "}V\\\nNs."),
        ROW("not hexadecimal", "}V\\u12g4\nNs."),
        ROW("text without a newline", "}Vx"),
        ROW("text past the end", "}X\xff\xff\xff\xffx."),
        ROW("text far past the end", "}\x8d\xff\xff\xff\xff\xff\xff\xff\xffx."),
        ROW("bytes past the end", "}B\xff\xff\xff\x7fx."),
        ROW("bytes far past the end", "}\x8e\0\0\0\0\0\0\0\x80x."),
        /* Numbers. */
        ROW("an empty int", "}K\x01I\ns."),
        ROW("an int of letters", "}K\x01I1x\ns."),
        ROW("an int with a space", "}K\x01I 1\ns."),
        ROW("a sign alone", "}K\x01I-\ns."),
        ROW("a long without its L", "}K\x01L5\ns."),
        ROW("a long that is an L", "}K\x01LL\ns."),
        ROW("a long past the end", "}K\x01\x8a\xff\x01s."),
        ROW("a long of negative length", "}K\x01\x8b\xff\xff\xff\xffs."),
        ROW("an empty float", "}K\x01"
                              "F\ns."),
        ROW("a float of words", "}K\x01"
                                "Ffive\ns."),
        ROW("a hexadecimal float", "}K\x01"
                                   "F0x1p3\ns."),
        ROW("a float and more", "}K\x01"
                                "F1.5 \ns."),
        ROW("a float with a comma", "}K\x01"
                                    "F1,5\ns."),
        ROW("a float with NUL", "}K\x01"
                                "F1\0\ns."),
        ROW("a short float", "}K\x01G\0\0\0"),
        /* Memo. */
        ROW("get before put", "}K\x01h\0s."),
        ROW("get of another", "}q\0K\x01h\x01s."),
        ROW("get far away", "}q\0K\x01j\xff\xff\xff\xffs."),
        ROW("get of text", "}q\0K\x01gx\ns."),
        ROW("get of nothing", "}q\0K\x01g\ns."),
        ROW("put far away", "}r\xff\xff\xff\xff."),
        ROW("put far away in text", "}p4294967296\n."),
        ROW("put of a negative", "}p-1\n."),
        ROW("put twice", "}q\0K\x01]q\0s."),
        ROW("put of nothing", "q\0}."),
        ROW("put of the mark", "(q\0}."),
        ROW("put of an int", "}K\x01q\0K\x01s."),
        ROW("put of None", "}K\x01Nq\0s."),
        ROW("memoize nothing", "\x80\x04\x94}."),
        /* Recursion. */
        ROW("a dict in itself", "}q\0K\x01h\0s."),
        ROW("a list in itself", "}K\x01]q\0h\0"
                                "as."),
        ROW("a list twice in itself", "}K\x01]q\0(h\0h\0es."),
        ROW("a tuple around its list", "}K\x01]q\0h\0\x85"
                                       "as."),
        ROW("a set in its tuple", "}K\x01\x8fq\0(h\0\x85\x90s."),
#undef ROW
    };
    cession_buf out;
    cession_buf_init(&out, CESSION_VALUE_MAX);
    REQUIRE_OK(cession_buf_set(&out, "untouched", 9));
    guard g = {NULL, 0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cession_span pickle = rows[i].pickle;
        pickle.data = guard_place(&g, pickle.data, pickle.len);
        cession_error err = CESSION_ERROR_INIT;
        int rc = ces_pickle_to_msgpack(pickle, &out, &err);
        CHECK_MSG(rc == CESSION_E_FORMAT, "%s: %s", rows[i].what, cession_status_name(rc));
        CHECK_SPAN(cession_buf_span(&out), SPAN("untouched"));
        CHECK_INT(err.code, CESSION_E_FORMAT);
    }
    guard_release(&g);
    cession_buf_release(&out);
}

/* Shapes that CPython writes but that no vector holds, or other picklers write. */
static void test_accepts(void)
{
    static const struct {
        cession_span pickle, msgpack;
    } rows[] = {
#define ROW(a, b)                               \
    {                                           \
        {(const uint8_t *)(a), sizeof(a) - 1},  \
        {                                       \
            (const uint8_t *)(b), sizeof(b) - 1 \
        }                                       \
    }
        ROW("}.", "\x80"),
        ROW("(d.", "\x80"),
        ROW("}K\x01I00\ns.", "\x81\x01\xc2"),
        ROW("}K\x01I-0\ns.", "\x81\x01\x00"),
        ROW("}K\x01L-0L\ns.", "\x81\x01\x00"),
        ROW("}K\x01\x8a\0s.", "\x81\x01\x00"),
        ROW("}K\x01\x8a\x01\xffs.", "\x81\x01\xff"),
        ROW("}K\x01\x8a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffs.", "\x81\x01\xff"),
        ROW("}K\x01\x8b\x09\0\0\0"
            "\0\0\0\0\0\0\0\x80\0s.",
            "\x81\x01\xcf\x80\0\0\0\0\0\0\0"),
        ROW("}K\x01"
            "Fnan\ns.",
            "\x81\x01\xcb\x7f\xf8\0\0\0\0\0\0"),
        ROW("}K\x01"
            "F-inf\ns.",
            "\x81\x01\xcb\xff\xf0\0\0\0\0\0\0"),
        ROW("}K\x01"
            "F1e+16\ns.",
            "\x81\x01\xcb\x43\x41\xc3\x79\x37\xe0\x80\0"),
        /* An older bytearray. */
        ROW("}K\x01"
            "cbuiltins\nbytearray\n(V\xe9\nVlatin-1\ntRs.",
            "\x81\x01\xd4\x05\xe9"),
        /* The names of 3 in an old protocol. */
        ROW("}K\x01"
            "ccopyreg\n_reconstructor\n(cmarkupsafe\nMarkup\ncbuiltins\nstr\nVx\ntRs.",
            "\x81\x01\xd4\x0ax"),
        /* Sets of equal content come out alike. */
        ROW("}K\x01\x8f(K\x02K\x01\x90s.", "\x81\x01\xc7\x03\x02\x92\x01\x02"),
#undef ROW
    };
    cession_buf out;
    cession_buf_init(&out, CESSION_VALUE_MAX);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int rc = ces_pickle_to_msgpack(rows[i].pickle, &out, NULL);
        CHECK_MSG(rc == CESSION_OK, "row %zu", i);
        CHECK_SPAN(cession_buf_span(&out), rows[i].msgpack);
    }
    cession_buf_release(&out);
}

static void check_truncated(const uint8_t *data, size_t len, size_t full, void *context)
{
    cession_buf *out = context;
    CHECK_STATUS(ces_pickle_to_msgpack(cession_span_of(data, len), out, NULL),
                 len == full ? CESSION_OK : CESSION_E_FORMAT);
}

static void test_stays_inside(void)
{
    cession_buf out;
    cession_buf_init(&out, CESSION_VALUE_MAX);
    for (size_t i = 0; i < VECTORS; i++) {
        if (vectors[i].pickle.len < 1500)
            guard_truncations(vectors[i].pickle.data, vectors[i].pickle.len, check_truncated, &out);
    }

    /* Mutations: whatever passes is MessagePack that the walker takes. */
    guard g = {NULL, 0};
    harness_rng rng = {7};
    unsigned wrong = 0, passed = 0;
    static uint8_t bytes[4096];
    for (int round = 0; round < 60000; round++) {
        cession_span from = vectors[harness_below(&rng, VECTORS)].pickle;
        size_t len = from.len;
        if (len > sizeof bytes)
            continue;
        memcpy(bytes, from.data, len);
        for (uint64_t n = harness_below(&rng, 5) + 1; n > 0; n--) {
            size_t at = harness_below(&rng, len), other = harness_below(&rng, len);
            switch (harness_below(&rng, 4)) {
            case 0:
                bytes[at] = (uint8_t)harness_random(&rng);
                break;
            case 1:
                bytes[at] ^= (uint8_t)(1u << harness_below(&rng, 8));
                break;
            case 2: /* a piece moves */
                memmove(bytes + at, bytes + other, len - (at > other ? at : other));
                break;
            default: /* a code of the machine */
                bytes[at] = (uint8_t) "(.FIJKLMNRVXabcd}eghjl]pqrst)uGBC"[harness_below(&rng, 34)];
            }
        }
        cession_span pickle = cession_span_of(guard_place(&g, bytes, len), len);
        int rc = ces_pickle_to_msgpack(pickle, &out, NULL);
        if (rc == CESSION_OK) {
            size_t walked = 0;
            unsigned flags = CES_MP_NOT_SHORT;
            passed++;
            wrong += ces_mp_walk(out.data, out.len, &walked, &flags) != CESSION_OK ||
                     walked != out.len || (flags & CES_MP_NOT_SHORT);
        } else {
            wrong += rc != CESSION_E_FORMAT;
        }
    }
    CHECK_INT(wrong, 0);
    CHECK(passed > 1000);
    guard_release(&g);
    cession_buf_release(&out);
}

static void append(cession_buf *buf, const char *data, size_t len)
{
    REQUIRE_OK(cession_buf_append(buf, data, len));
}
#define APPEND(buf, literal) append(buf, literal, sizeof(literal) - 1)

/* 40 lists, each twice in the next: 2^40 when written out. */
static void test_memo_bombs(void)
{
    cession_buf pickle, out;
    cession_buf_init(&pickle, 1u << 20);
    cession_buf_init(&out, CESSION_VALUE_MAX);
    /* A dict takes one value: all levels go into one tuple. */
    APPEND(&pickle, "}K\x01(]q\0");
    for (char level = 1; level < 40; level++) {
        char code[] = {'h', (char)(level - 1), 'h', (char)(level - 1), '\x86', 'q', level};
        append(&pickle, code, sizeof code);
    }
    APPEND(&pickle, "ts.");
    CHECK_STATUS(ces_pickle_to_msgpack(cession_buf_span(&pickle), &out, NULL), CESSION_E_FORMAT);

    /* The same with frozensets, which hold each of the two once. */
    cession_buf_clear(&pickle);
    APPEND(&pickle, "}K\x01((\x91q\0");
    for (char level = 1; level < 40; level++) {
        char code[] = {'(', 'h', (char)(level - 1), 'h', (char)(level - 1), '\x91', 'q', level};
        append(&pickle, code, sizeof code);
    }
    APPEND(&pickle, "ts.");
    CHECK_STATUS(ces_pickle_to_msgpack(cession_buf_span(&pickle), &out, NULL), CESSION_E_FORMAT);

    /* One text of 64 KiB, 1,100 times: more than a value may have. */
    static char text[1u << 16];
    memset(text, '7', sizeof text);
    cession_buf_clear(&pickle);
    APPEND(&pickle, "}K\x01](X\0\0\1\0");
    append(&pickle, text, sizeof text);
    APPEND(&pickle, "q\0");
    for (int i = 0; i < 1100; i++)
        APPEND(&pickle, "h\0");
    APPEND(&pickle, "es.");
    CHECK_STATUS(ces_pickle_to_msgpack(cession_buf_span(&pickle), &out, NULL), CESSION_E_FORMAT);

    /* The same long text is made bytes, or checked, again and again. */
    static const cession_span calls[] = {
        {(const uint8_t *)"c_codecs\nencode\nh\0h\1\x86R", 22},
        {(const uint8_t *)"cdecimal\nDecimal\nh\0\x85R", 21},
    };
    for (size_t c = 0; c < 2; c++) {
        cession_buf_clear(&pickle);
        APPEND(&pickle, "}K\x01](X\0\0\1\0");
        append(&pickle, text, sizeof text);
        APPEND(&pickle, "q\0X\6\0\0\0latin1q\1");
        for (int i = 0; i < 1100; i++)
            append(&pickle, (const char *)calls[c].data, calls[c].len);
        APPEND(&pickle, "es.");
        CHECK_STATUS(ces_pickle_to_msgpack(cession_buf_span(&pickle), &out, NULL),
                     CESSION_E_FORMAT);
    }
    cession_buf_release(&pickle);
    cession_buf_release(&out);
}

static void test_bounds(void)
{
    cession_buf pickle, out;
    cession_buf_init(&pickle, 16u << 20);
    cession_buf_init(&out, CESSION_VALUE_MAX);

    /* Nesting: 127 lists in the dict are as deep as it may be. */
    for (int lists = 126; lists <= 129; lists++) {
        cession_buf_clear(&pickle);
        APPEND(&pickle, "}K\x01");
        for (int i = 0; i < lists; i++)
            APPEND(&pickle, "]");
        for (int i = 1; i < lists; i++)
            APPEND(&pickle, "a");
        APPEND(&pickle, "s.");
        CHECK_STATUS(ces_pickle_to_msgpack(cession_buf_span(&pickle), &out, NULL),
                     lists <= 127 ? CESSION_OK : CESSION_E_FORMAT);
    }

    /* Batches of items, as the picklers write them: 1,000 each. */
    cession_buf expected;
    cession_buf_init(&expected, 1u << 20);
    cession_buf_clear(&pickle);
    APPEND(&pickle, "}K\x01]");
    APPEND(&expected, "\x81\x01\xdc\x07\xd1");
    for (int i = 0; i < 2001; i++) {
        if (i % 1000 == 0)
            APPEND(&pickle, "(");
        APPEND(&pickle, "N");
        APPEND(&expected, "\xc0");
        if (i % 1000 == 999 || i == 2000)
            APPEND(&pickle, "e");
    }
    APPEND(&pickle, "s.");
    CHECK_OK(ces_pickle_to_msgpack(cession_buf_span(&pickle), &out, NULL));
    CHECK_SPAN(cession_buf_span(&out), cession_buf_span(&expected));
    cession_buf_release(&expected);

    /* Items. */
    static char nulls[1u << 16];
    memset(nulls, 'N', sizeof nulls);
    for (int full = 0; full < 2; full++) {
        cession_buf_clear(&pickle);
        APPEND(&pickle, "}K\x01](");
        for (int i = 0; i < (full ? 64 : 63); i++)
            append(&pickle, nulls, sizeof nulls);
        APPEND(&pickle, "es.");
        CHECK_STATUS(ces_pickle_to_msgpack(cession_buf_span(&pickle), &out, NULL),
                     full ? CESSION_E_FORMAT : CESSION_OK);
    }

    /* Digits: quadratic to convert, so bounded as CPython bounds them. */
    for (int digits = 4299; digits <= 4301; digits++) {
        cession_buf_clear(&pickle);
        APPEND(&pickle, "}K\x01L");
        for (int i = 0; i < digits; i++)
            APPEND(&pickle, "9");
        APPEND(&pickle, "L\ns.");
        CHECK_STATUS(ces_pickle_to_msgpack(cession_buf_span(&pickle), &out, NULL),
                     digits <= 4300 ? CESSION_OK : CESSION_E_FORMAT);
    }

    /* An output that is too small is not the pickle's fault. */
    cession_buf small;
    cession_buf_init(&small, 3);
    CHECK_STATUS(ces_pickle_to_msgpack(SPAN("}Vkey\nNs."), &small, NULL), CESSION_E_LIMIT);
    CHECK_INT(small.len, 0);
    CHECK_OK(ces_pickle_to_msgpack(SPAN("}Vk\nNs."), &out, NULL));
    CHECK_SPAN(cession_buf_span(&out), SPAN("\x81\xa1k\xc0"));
    cession_buf_release(&small);
    cession_buf_release(&pickle);
    cession_buf_release(&out);
}

/* A decimal comma in the application's locale must not reach the floats; where
 * the machine has no such locale this still checks the point. */
static void test_floats_in_any_locale(void)
{
    static const char *const commas[] = {"de_DE.UTF-8", "de_DE", "fr_FR.UTF-8", "C"};
    for (size_t i = 0; i < 4; i++) {
        if (!setlocale(LC_ALL, commas[i]))
            continue;
        cession_buf out;
        cession_buf_init(&out, 100);
        CHECK_OK(ces_pickle_to_msgpack(SPAN("}K\1F1.5\ns."), &out, NULL));
        CHECK_SPAN(cession_buf_span(&out), SPAN("\x81\x01\xcb\x3f\xf8\0\0\0\0\0\0"));
        CHECK_STATUS(ces_pickle_to_msgpack(SPAN("}K\1F1,5\ns."), &out, NULL), CESSION_E_FORMAT);
        cession_buf_release(&out);
    }
    setlocale(LC_ALL, "C");
}

static void test_without_memory(void)
{
    for (size_t i = 0; i < VECTORS; i++) {
        FAILING_ALLOC_LOOP(n)
        {
            cession_buf out;
            cession_buf_init(&out, CESSION_VALUE_MAX);
            int rc = ces_pickle_to_msgpack(vectors[i].pickle, &out, NULL);
            CHECK_STATUS(rc, failing_alloc_fired() ? CESSION_E_NOMEM : CESSION_OK);
            CHECK(rc == CESSION_OK || out.len == 0);
            cession_buf_release(&out);
        }
    }
}

static const harness_test tests[] = {
    HARNESS_TEST(reads_what_cpython_writes),
    HARNESS_TEST(codec_reads_pickles),
    HARNESS_TEST(refuses),
    HARNESS_TEST(accepts),
    HARNESS_TEST(stays_inside),
    HARNESS_TEST(memo_bombs),
    HARNESS_TEST(bounds),
    HARNESS_TEST(floats_in_any_locale),
    HARNESS_TEST(without_memory),
};
HARNESS_MAIN(tests)
