/* Included last by every .c file of src/: what libcession must not call.
 * Memory goes through alloc.h, the system through os.h, text through bounded
 * functions. The idea is git's banned.h. */
#ifndef CES_BASE_BANNED_H
#define CES_BASE_BANNED_H

#ifndef CES_BASE_ALLOC_IMPLEMENTATION
#undef malloc
#define malloc(size) ces_banned_use_ces_alloc
#undef calloc
#define calloc(count, size) ces_banned_use_ces_alloc_zero
#undef realloc
#define realloc(ptr, size) ces_banned_use_ces_resize
#undef free
#define free(ptr) ces_banned_use_ces_free
#undef strdup
#define strdup(text) ces_banned_use_ces_strndup
#endif
#undef strcpy
#define strcpy(to, from) ces_banned_strcpy
#undef strcat
#define strcat(to, from) ces_banned_strcat
#undef strncpy
#define strncpy(to, from, len) ces_banned_strncpy
#undef sprintf
#define sprintf(...) ces_banned_use_snprintf
#undef vsprintf
#define vsprintf(...) ces_banned_use_vsnprintf
#undef gmtime
#define gmtime(t) ces_banned_gmtime
#undef localtime
#define localtime(t) ces_banned_localtime
#undef rand
#define rand() ces_banned_use_ces_random
#undef printf
#define printf(...) ces_banned_libraries_do_not_print

#endif
