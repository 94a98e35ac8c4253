/* Broken rules, and lists of lines for Python. */
#include "core.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Text {
    char *at;
    size_t length, room;
} Text;
static Text broken, list;
static int count;

static void add(Text *text, const char *words) {
    size_t more = strlen(words);
    if (text->length + more + 2 > text->room) {
        text->room = (text->length + more + 2) * 2;
        text->at = realloc(text->at, text->room);
    }
    memcpy(text->at + text->length, words, more);
    text->length += more;
    text->at[text->length++] = '\n';
    text->at[text->length] = 0;
}

void violation(const char *format, ...) {
    char words[400], whole[480];
    va_list values;
    va_start(values, format);
    vsnprintf(words, sizeof words, format, values);
    va_end(values);
    snprintf(whole, sizeof whole, "%s: %s", current_call(), words);
    if (++count <= 1000) add(&broken, whole);
}

void line(const char *format, ...) {
    char words[400];
    va_list values;
    va_start(values, format);
    vsnprintf(words, sizeof words, format, values);
    va_end(values);
    add(&list, words);
}

static size_t give(const Text *text, char *out, size_t room) {
    size_t size = text->length + 1;
    if (size <= room) memcpy(out, text->at ? text->at : "", size);
    return size;
}

/* Each writes text into `out` if `room` suffices, and returns the bytes it needs. */
EXPORT size_t swgpu_violations(char *out, size_t room, int forget) {
    lock();
    size_t size = give(&broken, out, room);
    if (forget && size <= room) {
        broken.length = 0;
        if (broken.at) broken.at[0] = 0;
        count = 0;
    }
    unlock();
    return size;
}

EXPORT size_t swgpu_list(int which, char *out, size_t room) {
    lock();
    list.length = 0;
    if (list.at) list.at[0] = 0;
    if (which == 0) {
        calls_write();
    } else {
        blocks_write();
        for (Object *object = objects(); object; object = object->next)
            if (object->kind != NODE && !(object->kind == CONTEXT && ((Context *)object)->primary)
                && !(object->context && object->context->error))
                line("%s %p (no. %lu)", kind_name(object->kind), (void *)object, object->serial);
        stacks_write();
    }
    size_t size = give(&list, out, room);
    unlock();
    return size;
}

EXPORT void swgpu_violation(const char *words) {
    lock();
    violation("%s", words);
    unlock();
}
