/* Handles: slots of one reserved piece of address space, so that any value can be tested. */
#include "core.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SLOT = 512, SLOTS = 1 << 20, REST = 1 << 14 };
static char *arena;
static size_t fresh;
static Object *living, *resting, *resting_last; /* resting: destroyed, oldest first */
static size_t rest_count;
static uint64_t serial;

Object *objects(void) { return living; }
uint64_t next_serial(void) { return ++serial; }

const char *kind_name(Kind kind) {
    static const char *names[] = {
        "?", "context", "stream", "event", "graph", "graph exec", "node"
    };
    return names[kind];
}

static Object *slot(void) {
    if (!arena) {
        arena = mmap(NULL, (size_t)SLOT * SLOTS, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (arena == MAP_FAILED) abort();
        fresh = 1;
    }
    if (resting && (rest_count > REST || fresh == SLOTS) && !resting->pending) {
        Object *old = resting;
        resting = old->next;
        if (!resting) resting_last = NULL;
        rest_count--;
        return old;
    }
    return fresh < SLOTS ? (Object *)(arena + SLOT * fresh++) : NULL;
}

void *object_new(Kind kind, Context *context, size_t size) {
    if (size > SLOT) abort();
    Object *object = slot();
    if (!object) return NULL;
    memset(object, 0, SLOT);
    object->kind = kind;
    object->state = LIVE;
    object->serial = next_serial();
    object->context = context;
    object->next = living;
    if (living) living->previous = object;
    living = object;
    return object;
}

void object_end(Object *object, State state) {
    if (object->state != LIVE) return;
    object->state = state;
    if (object->next) object->next->previous = object->previous;
    if (object->previous) object->previous->next = object->next;
    else living = object->next;
    object->next = NULL;
    if (resting_last) resting_last->next = object;
    else resting = object;
    resting_last = object;
    rest_count++;
}

/* OK if `handle` is a live object of that kind, of the current context unless `foreign` will do. */
Result check_handle(const void *handle, Kind kind, bool foreign) {
    uintptr_t offset = (uintptr_t)handle - (uintptr_t)arena;
    const Object *object = handle;
    if (!arena || offset % SLOT || offset < SLOT || offset >= SLOT * fresh
        || object->kind != kind) {
        violation("%p is not a %s", handle, kind_name(kind));
        return INVALID_HANDLE;
    }
    if (object->state == LOST) return CONTEXT_DESTROYED;
    if (object->state != LIVE) {
        violation("%s no. %lu is used after it was destroyed", kind_name(kind), object->serial);
        return INVALID_HANDLE;
    }
    if (!foreign && object->context != current()) {
        violation("%s no. %lu belongs to another context", kind_name(kind), object->serial);
        return INVALID_HANDLE;
    }
    return OK;
}

/* The context's objects end with it. */
void objects_leave(Context *context, State state) {
    for (Object *object = living, *next; object; object = next) {
        next = object->next;
        if (object->context != context || object->kind == CONTEXT) continue;
        if (object->kind == STREAM && ((Stream *)object)->capture) {
            capture_left((Stream *)object); /* which may end its graph's nodes */
            next = living;
            continue;
        }
        object_end(object, state);
        if (object->kind == STREAM) pthread_cond_broadcast(&((Stream *)object)->wake);
    }
}
