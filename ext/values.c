/* Dates, integers, Decimal and UUID as numbers, bytes and text: what both formats
 * need of them. */
#include "codec_impl.h"

/* ---- the calendar ------------------------------------------------------------ */

/* tz is None or an exact datetime.timezone, so no code of the application runs. */
static int offset_of(cx_codec_state *state, PyObject *tz, cx_moment *moment)
{
    if (tz == Py_None) {
        return 0;
    }
    if (tz == cx_datetime(state)->TimeZone_UTC) {
        moment->has_offset = true;
        return 0;
    }
    PyObject *delta = PyObject_CallMethodOneArg(tz, state->n_utcoffset, Py_None);
    if (!delta) {
        return -1;
    }
    moment->has_offset = true;
    moment->offset_s = (int32_t)(PyDateTime_DELTA_GET_DAYS(delta) * 86400 +
                                 PyDateTime_DELTA_GET_SECONDS(delta));
    moment->offset_us = PyDateTime_DELTA_GET_MICROSECONDS(delta);
    Py_DECREF(delta);
    return 0;
}

int cx_moment_of(cx_codec_state *state, cx_kind kind, PyObject *obj, cx_moment *ret_moment)
{
    cx_moment m = {0};
    if (kind != CX_TIME) {
        m.year = PyDateTime_GET_YEAR(obj);
        m.month = PyDateTime_GET_MONTH(obj);
        m.day = PyDateTime_GET_DAY(obj);
    }
    if (kind == CX_DATETIME) {
        m.hour = PyDateTime_DATE_GET_HOUR(obj);
        m.minute = PyDateTime_DATE_GET_MINUTE(obj);
        m.second = PyDateTime_DATE_GET_SECOND(obj);
        m.microsecond = PyDateTime_DATE_GET_MICROSECOND(obj);
        m.fold = PyDateTime_DATE_GET_FOLD(obj);
        if (offset_of(state, PyDateTime_DATE_GET_TZINFO(obj), &m) < 0) {
            return -1;
        }
    } else if (kind == CX_TIME) {
        m.hour = PyDateTime_TIME_GET_HOUR(obj);
        m.minute = PyDateTime_TIME_GET_MINUTE(obj);
        m.second = PyDateTime_TIME_GET_SECOND(obj);
        m.microsecond = PyDateTime_TIME_GET_MICROSECOND(obj);
        m.fold = PyDateTime_TIME_GET_FOLD(obj);
        if (offset_of(state, PyDateTime_TIME_GET_TZINFO(obj), &m) < 0) {
            return -1;
        }
    }
    *ret_moment = m;
    return 0;
}

static bool leap(int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int days_in(int year, int month)
{
    static const uint8_t days[13] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && leap(year) ? 29 : days[month];
}

bool cx_moment_valid(cx_kind kind, const cx_moment *m)
{
    if (kind != CX_TIME && (m->year < 1 || m->year > 9999 || m->month < 1 || m->month > 12 ||
                            m->day < 1 || m->day > days_in(m->year, m->month))) {
        return false;
    }
    if (kind == CX_DATE) {
        return true;
    }
    if (m->hour < 0 || m->hour > 23 || m->minute < 0 || m->minute > 59 || m->second < 0 ||
        m->second > 59 || m->fold < 0 || m->fold > 1 || m->microsecond < 0 ||
        m->microsecond > 999999) {
        return false;
    }
    /* above -24 h: -86,400 s only with microseconds on top */
    return !m->has_offset ||
           (m->offset_us >= 0 && m->offset_us <= 999999 && m->offset_s >= -86400 &&
            m->offset_s < 86400 && (m->offset_s > -86400 || m->offset_us > 0));
}

PyObject *cx_moment_make(cx_codec_state *state, cx_kind kind, const cx_moment *m)
{
    PyDateTime_CAPI *dt = cx_datetime(state);
    if (kind == CX_DATE) {
        return dt->Date_FromDate(m->year, m->month, m->day, dt->DateType);
    }
    PyObject *tz = Py_NewRef(Py_None);
    if (m->has_offset) {
        Py_DECREF(tz);
        if (m->offset_s == 0 && m->offset_us == 0) {
            tz = Py_NewRef(dt->TimeZone_UTC);
        } else {
            PyObject *delta = dt->Delta_FromDelta(0, m->offset_s, m->offset_us, 1, dt->DeltaType);
            if (!delta) {
                return NULL;
            }
            tz = dt->TimeZone_FromTimeZone(delta, NULL);
            Py_DECREF(delta);
            if (!tz) {
                return NULL;
            }
        }
    }
    PyObject *made = kind == CX_DATETIME
                         ? dt->DateTime_FromDateAndTimeAndFold(m->year, m->month, m->day, m->hour,
                                                               m->minute, m->second, m->microsecond,
                                                               tz, m->fold, dt->DateTimeType)
                         : dt->Time_FromTimeAndFold(m->hour, m->minute, m->second, m->microsecond,
                                                    tz, m->fold, dt->TimeType);
    Py_DECREF(tz);
    return made;
}

/* Days since 1970 in the proleptic Gregorian calendar, counted in eras of 400 years
 * that begin in March, so that the leap day comes last. The method is Howard Hinnant's,
 * https://howardhinnant.github.io/date_algorithms.html */
#define DAYS_PER_ERA 146097
#define DAYS_TO_1970 719468 /* from 0000-03-01 */

int64_t cx_moment_to_unix(const cx_moment *m)
{
    int64_t year = m->month <= 2 ? m->year - 1 : m->year; /* 0 to 9999 */
    int64_t era = year / 400;
    int64_t of_era = year - era * 400;
    int64_t of_year = (153 * (m->month > 2 ? m->month - 3 : m->month + 9) + 2) / 5 + m->day - 1;
    int64_t day = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    return (era * DAYS_PER_ERA + day - DAYS_TO_1970) * 86400 + m->hour * 3600 + m->minute * 60 +
           m->second;
}

bool cx_moment_from_unix(int64_t seconds, cx_moment *ret_moment)
{
    if (seconds < -62135596800 || seconds > 253402300799) { /* years 1 to 9999 */
        return false;
    }
    int64_t days = seconds / 86400;
    int64_t rest = seconds % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    days += DAYS_TO_1970; /* at least 306, so that divisions round down */
    int64_t era = days / DAYS_PER_ERA;
    int64_t of_era = days - era * DAYS_PER_ERA;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * of_year + 2) / 153; /* 0 is March */
    cx_moment m = {0};
    m.day = (int)(of_year - (153 * month + 2) / 5 + 1);
    m.month = (int)(month < 10 ? month + 3 : month - 9);
    m.year = (int)(year + era * 400 + (m.month <= 2));
    m.hour = (int)(rest / 3600);
    m.minute = (int)(rest / 60 % 60);
    m.second = (int)(rest % 60);
    m.has_offset = true;
    *ret_moment = m;
    return true;
}

/* ---- ISO text ------------------------------------------------------------------ */

static char *digits(char *at, int64_t value, int width)
{
    for (int i = width; i-- > 0; value /= 10) {
        at[i] = (char)('0' + value % 10);
    }
    return at + width;
}

static char *clock_text(char *at, int hour, int minute, int second, int microsecond, bool always)
{
    at = digits(at, hour, 2);
    *at++ = ':';
    at = digits(at, minute, 2);
    if (always || second || microsecond) {
        *at++ = ':';
        at = digits(at, second, 2);
    }
    if (microsecond) {
        *at++ = '.';
        at = digits(at, microsecond, 6);
    }
    return at;
}

size_t cx_moment_format(cx_kind kind, const cx_moment *m, char *text)
{
    char *at = text;
    if (kind != CX_TIME) {
        at = digits(at, m->year, 4);
        *at++ = '-';
        at = digits(at, m->month, 2);
        *at++ = '-';
        at = digits(at, m->day, 2);
    }
    if (kind == CX_DATETIME) {
        *at++ = 'T';
    }
    if (kind != CX_DATE) {
        at = clock_text(at, m->hour, m->minute, m->second, m->microsecond, true);
    }
    if (m->has_offset) {
        int64_t total = (int64_t)m->offset_s * 1000000 + m->offset_us;
        *at++ = total < 0 ? '-' : '+';
        total = total < 0 ? -total : total;
        int seconds = (int)(total / 1000000);
        at = clock_text(at, seconds / 3600, seconds / 60 % 60, seconds % 60, (int)(total % 1000000),
                        false);
    }
    return (size_t)(at - text);
}

typedef struct scan {
    const char *at, *end;
} scan;

static bool take(scan *s, char c)
{
    if (s->at == s->end || *s->at != c) {
        return false;
    }
    s->at++;
    return true;
}

static bool take_digits(scan *s, int width, int *ret_value)
{
    int value = 0;
    if (s->end - s->at < width) {
        return false;
    }
    for (int i = 0; i < width; i++) {
        if (s->at[i] < '0' || s->at[i] > '9') {
            return false;
        }
        value = value * 10 + (s->at[i] - '0');
    }
    s->at += width;
    *ret_value = value;
    return true;
}

static bool take_clock(scan *s, int *hour, int *minute, int *second, int *microsecond, bool always)
{
    *second = *microsecond = 0;
    if (!take_digits(s, 2, hour) || !take(s, ':') || !take_digits(s, 2, minute)) {
        return false;
    }
    if (!take(s, ':')) {
        return !always;
    }
    return take_digits(s, 2, second) && (!take(s, '.') || take_digits(s, 6, microsecond));
}

bool cx_moment_parse(cx_kind kind, const char *text, size_t len, cx_moment *ret_moment)
{
    scan s = {text, text + len};
    cx_moment m = {0};
    if (kind != CX_TIME &&
        (!take_digits(&s, 4, &m.year) || !take(&s, '-') || !take_digits(&s, 2, &m.month) ||
         !take(&s, '-') || !take_digits(&s, 2, &m.day))) {
        return false;
    }
    if (kind == CX_DATETIME && !take(&s, 'T')) {
        return false;
    }
    if (kind != CX_DATE) {
        int microsecond;
        if (!take_clock(&s, &m.hour, &m.minute, &m.second, &microsecond, true)) {
            return false;
        }
        m.microsecond = microsecond;
        if (s.at < s.end) {
            int hour, minute, second;
            bool negative = *s.at == '-';
            if ((!negative && *s.at != '+') || (s.at++, false) ||
                !take_clock(&s, &hour, &minute, &second, &microsecond, false) || minute > 59 ||
                second > 59) {
                return false;
            }
            int64_t total = (int64_t)(hour * 3600 + minute * 60 + second) * 1000000 + microsecond;
            total = negative ? -total : total;
            int64_t low = total % 1000000;
            low = low < 0 ? low + 1000000 : low;
            m.has_offset = true;
            m.offset_us = (int32_t)low;
            m.offset_s = (int32_t)((total - low) / 1000000);
        }
    }
    if (s.at != s.end || !cx_moment_valid(kind, &m)) {
        return false;
    }
    /* one spelling per moment: "-00:00" and ".000000" are not it */
    char again[CX_MOMENT_TEXT];
    if (cx_moment_format(kind, &m, again) != len || memcmp(again, text, len) != 0) {
        return false;
    }
    *ret_moment = m;
    return true;
}

/* ---- integers ----------------------------------------------------------------- */

size_t cx_int_bits(PyObject *obj)
{
    return _PyLong_NumBits(obj);
}

bool cx_int_negative(PyObject *obj)
{
    return _PyLong_Sign(obj) < 0;
}

static int magnitude_bytes(PyObject *obj, uint8_t *bytes, size_t len)
{
#if PY_VERSION_HEX >= 0x030D0000
    Py_ssize_t need = PyLong_AsNativeBytes(obj, bytes, (Py_ssize_t)len,
                                           Py_ASNATIVEBYTES_BIG_ENDIAN |
                                               Py_ASNATIVEBYTES_UNSIGNED_BUFFER);
    return need < 0 ? -1 : 0;
#else
    return _PyLong_AsByteArray((PyLongObject *)obj, bytes, len, 0 /* big-endian */,
                               0 /* unsigned */);
#endif
}

int cx_int_bytes(PyObject *obj, uint8_t *bytes, size_t len)
{
    if (!cx_int_negative(obj)) {
        return magnitude_bytes(obj, bytes, len);
    }
    PyObject *positive = PyNumber_Negative(obj);
    if (!positive) {
        return -1;
    }
    int result = magnitude_bytes(positive, bytes, len);
    Py_DECREF(positive);
    return result;
}

PyObject *cx_int_make(const uint8_t *magnitude, size_t len, bool negative)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *made = PyLong_FromUnsignedNativeBytes(magnitude, len, Py_ASNATIVEBYTES_BIG_ENDIAN);
#else
    PyObject *made = _PyLong_FromByteArray(magnitude, len, 0 /* big-endian */, 0 /* unsigned */);
#endif
    if (made && negative) {
        PyObject *negated = PyNumber_Negative(made);
        Py_DECREF(made);
        return negated;
    }
    return made;
}

/* ---- UUID, Decimal, Markup ------------------------------------------------------- */

int cx_uuid_bytes(cx_codec_state *state, PyObject *uuid, uint8_t bytes[16])
{
    PyObject *number = PyObject_GetAttr(uuid, state->n_int);
    if (!number) {
        return -1;
    }
    int result = -1;
    if (!PyLong_CheckExact(number) || cx_int_negative(number) || cx_int_bits(number) > 128) {
        PyErr_SetString(PyExc_ValueError, "a UUID whose int is not a 128-bit number");
    } else {
        result = cx_int_bytes(number, bytes, 16);
    }
    Py_DECREF(number);
    return result;
}

/* What UUID(bytes=...) makes, without running its Python constructor: fast, and no
 * foreign code runs while a session is half decoded. */
PyObject *cx_uuid_make(cx_codec_state *state, const uint8_t bytes[16])
{
    PyObject *number = cx_int_make(bytes, 16, false);
    PyObject *none = PyTuple_New(0);
    PyObject *made = NULL;
    if (number && none) {
        made = PyBaseObject_Type.tp_new(state->uuid_type, none, NULL);
    }
    if (made && (PyObject_GenericSetAttr(made, state->n_int, number) < 0 ||
                 PyObject_GenericSetAttr(made, state->n_is_safe, state->uuid_safe) < 0)) {
        Py_CLEAR(made);
    }
    Py_XDECREF(none);
    Py_XDECREF(number);
    return made;
}

/* str() writes 1e+3 instead of 1E+3 where the context has capitals=0; no other
 * lower-case e is in the text of a Decimal. */
PyObject *cx_decimal_text(PyObject *decimal)
{
    PyObject *text = PyObject_Str(decimal);
    if (!text || !PyUnicode_IS_COMPACT_ASCII(text)) {
        return text;
    }
    Py_ssize_t len = PyUnicode_GET_LENGTH(text);
    const char *from = (const char *)PyUnicode_1BYTE_DATA(text);
    if (!memchr(from, 'e', (size_t)len)) {
        return text;
    }
    PyObject *made = PyUnicode_New(len, 127);
    if (made) {
        char *to = (char *)PyUnicode_1BYTE_DATA(made);
        for (Py_ssize_t i = 0; i < len; i++) {
            to[i] = from[i] == 'e' ? 'E' : from[i];
        }
    }
    Py_DECREF(text);
    return made;
}

PyObject *cx_decimal_make(cx_codec_state *state, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] >= 128) {
            return NULL;
        }
    }
    PyObject *str = PyUnicode_FromStringAndSize(text, (Py_ssize_t)len);
    if (!str) {
        return NULL;
    }
    PyObject *made = PyObject_CallOneArg((PyObject *)state->decimal_type, str);
    PyObject *again = made ? cx_decimal_text(made) : NULL;
    /* also what is out of Decimal's range: NaN where InvalidOperation is not trapped */
    if (again && PyUnicode_Compare(again, str) != 0) {
        Py_CLEAR(made);
    }
    if (!again) {
        Py_CLEAR(made);
        if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_ArithmeticError)) {
            PyErr_Clear();
        }
    }
    Py_DECREF(str);
    Py_XDECREF(again);
    return made;
}

/* str.__new__(Markup, text): Markup's own constructor does nothing more for a str. */
PyObject *cx_markup_make(cx_codec_state *state, PyObject *text)
{
    PyObject *args = PyTuple_Pack(1, text);
    if (!args) {
        return NULL;
    }
    PyObject *made = PyUnicode_Type.tp_new(state->markup_type, args, NULL);
    Py_DECREF(args);
    return made;
}
