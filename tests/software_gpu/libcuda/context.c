/* Contexts, each thread's stack of them, and the primary context. */
#include "core.h"

#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEPTH = 64 };
typedef struct Stack {
    Context *at[DEPTH];
    int depth;
    long thread;
    struct Stack *next;
} Stack;
static Stack *stacks;
static __thread Stack *mine;
static pthread_key_t key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static Context *primary;

static void thread_ended(void *value) {
    Stack *stack = value;
    lock();
    if (stack->depth)
        violation("thread %ld ended with %d context(s) pushed and not popped", stack->thread,
                  stack->depth);
    for (Stack **link = &stacks; *link; link = &(*link)->next)
        if (*link == stack) {
            *link = stack->next;
            break;
        }
    unlock();
    free(stack);
}

static void make_key(void) { pthread_key_create(&key, thread_ended); }

static Stack *own(void) {
    if (mine) return mine;
    pthread_once(&key_once, make_key);
    mine = calloc(1, sizeof *mine);
    mine->thread = syscall(SYS_gettid);
    mine->next = stacks;
    stacks = mine;
    pthread_setspecific(key, mine);
    return mine;
}

Context *current(void) { return mine && mine->depth ? mine->at[mine->depth - 1] : NULL; }

void stacks_write(void) {
    for (Stack *stack = stacks; stack; stack = stack->next)
        if (stack->depth)
            line("context pushed %d times in thread %ld", stack->depth, stack->thread);
}

/* What a call that needs a context says: 201 without one, 709 if it is gone, or its error. */
Result check_current(void) {
    Context *context = current();
    if (!context) {
        violation("called without a current context");
        return INVALID_CONTEXT;
    }
    if (context->object.state != LIVE || (context->primary && !context->refs)) {
        violation("the current context was destroyed");
        return CONTEXT_DESTROYED;
    }
    return context->error;
}

void context_fail(Context *context, Result error) {
    if (!context->error) context->error = error;
    wake_workers();
}

/* After a lost context nothing of it is left, but the primary one may be used again. */
void contexts_forget_errors(void) {
    for (Object *object = objects(), *next; object; object = next) {
        next = object->next;
        Context *context = (Context *)object;
        if (object->kind != CONTEXT || !context->error) continue;
        objects_leave(context, LOST);
        blocks_leave(context, LOST);
        context->error = OK;
        next = objects();
    }
}

static Result end_context(Context *context, State state) {
    if (!context->error) {
        if (!idle(context)) violation("context destroyed while work on it is pending");
        int left = blocks_live(context);
        for (Object *object = objects(); object; object = object->next)
            left += object->kind != CONTEXT && object->kind != NODE && object->context == context;
        if (left && context->primary)
            violation("primary context released with %d objects and allocations left", left);
    }
    objects_leave(context, state);
    blocks_leave(context, state);
    return OK;
}

static Result push(Context *context) {
    Stack *stack = own();
    if (stack->depth == DEPTH) return OUT_OF_MEMORY;
    stack->at[stack->depth++] = context;
    return OK;
}

static Result check_context(Context *context) {
    if (check_handle(context, CONTEXT, true)) return INVALID_CONTEXT;
    if (context->primary && !context->refs) {
        violation("the primary context is used while nobody retains it");
        return INVALID_CONTEXT;
    }
    return OK;
}

static Result create(Context **out, unsigned flags, int device) {
    if (!out) return INVALID_VALUE;
    if (device) return INVALID_DEVICE;
    Context *context = object_new(CONTEXT, NULL, sizeof *context);
    context->flags = flags;
    context->refs = 1;
    *out = context;
    return push(context);
}

ENTRY(INITIALISED, cuCtxCreate_v2, (Context **out, unsigned flags, int device),
      (out, flags, device)) {
    return create(out, flags, device);
}
ENTRY(INITIALISED, cuCtxCreate_v3, (Context **out, void *p, int n, unsigned flags, int device),
      (out, p, n, flags, device)) {
    return p || n ? NOT_SUPPORTED : create(out, flags, device);
}
ENTRY(INITIALISED, cuCtxCreate_v4, (Context **out, void *p, unsigned flags, int device),
      (out, p, flags, device)) {
    return p ? NOT_SUPPORTED : create(out, flags, device);
}
static Result release(int device) {
    if (device) return INVALID_DEVICE;
    if (!primary || !primary->refs) {
        violation("primary context released more often than retained");
        return INVALID_CONTEXT;
    }
    Result error = primary->error;
    if (--primary->refs) return error;
    end_context(primary, error ? LOST : DESTROYED);
    primary->error = OK; /* the next one to retain it finds a new one */
    return error;
}
static Result destroy(Context *context) {
    if (current() == context) own()->depth--;
    end_context(context, context->error ? LOST : DESTROYED);
    object_end(&context->object, DESTROYED);
    return context->error;
}
ENTRY(STACK_ONLY, cuCtxDestroy_v2, (Context *context), (context)) {
    Result bad = check_context(context);
    return bad ? bad : context->primary ? INVALID_CONTEXT : destroy(context);
}
ENTRY(IN_CONTEXT, cuCtxAttach, (Context **out, unsigned flags), (out, flags)) {
    if (!out || flags) return INVALID_VALUE;
    *out = current();
    (*out)->refs++;
    return OK;
}
/* Takes the context off the stack as well. pycuda calls it for the primary context too. */
ENTRY(STACK_ONLY, cuCtxDetach, (Context *context), (context)) {
    Result bad = check_context(context);
    if (bad) return bad;
    if (context != current()) {
        violation("a context is detached that is not current");
        return INVALID_CONTEXT;
    }
    if (!context->primary) return --context->refs ? OK : destroy(context);
    own()->depth--;
    return release(0);
}
ENTRY(STACK_ONLY, cuCtxPushCurrent_v2, (Context *context), (context)) {
    Result bad = check_context(context);
    return bad ? bad : push(context);
}
ENTRY(STACK_ONLY, cuCtxPopCurrent_v2, (Context **out), (out)) {
    Context *context = current();
    if (!context) {
        violation("popped a context where none is pushed");
        return INVALID_CONTEXT;
    }
    own()->depth--;
    if (out) *out = context;
    return OK;
}
ENTRY(STACK_ONLY, cuCtxGetCurrent, (Context **out), (out)) {
    if (!out) return INVALID_VALUE;
    *out = current();
    return OK;
}
ENTRY(STACK_ONLY, cuCtxSetCurrent, (Context *context), (context)) {
    Result bad = context ? check_context(context) : OK;
    if (bad) return bad;
    Stack *stack = own();
    if (stack->depth) stack->depth--;
    return context ? push(context) : OK;
}
ENTRY(STACK_ONLY, cuCtxGetDevice, (int *device), (device)) {
    if (!current()) return INVALID_CONTEXT;
    if (!device) return INVALID_VALUE;
    *device = 0;
    return OK;
}
ENTRY(IN_CONTEXT, cuCtxSynchronize, (void), ()) {
    Context *context = current();
    Result bad = capture_synchronises(context);
    if (bad) return bad;
    wait_all(context);
    return context->error;
}
ENTRY(IN_CONTEXT, cuCtxGetFlags, (unsigned *flags), (flags)) {
    if (!flags) return INVALID_VALUE;
    *flags = current()->flags;
    return OK;
}
ENTRY(STACK_ONLY, cuCtxGetId, (Context *context, unsigned long long *id), (context, id)) {
    if (!context) context = current();
    if (!id) return INVALID_VALUE;
    Result bad = check_context(context);
    if (!bad) *id = context->object.serial;
    return bad;
}
ENTRY(STACK_ONLY, cuCtxGetApiVersion, (Context *context, unsigned *version), (context, version)) {
    if (context && check_context(context)) return INVALID_CONTEXT;
    if (!version) return INVALID_VALUE;
    *version = 3020;
    return OK;
}
ENTRY(IN_CONTEXT, cuCtxGetStreamPriorityRange, (int *least, int *greatest), (least, greatest)) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return OK;
}
ENTRY(IN_CONTEXT, cuCtxGetLimit, (size_t *value, int limit), (value, limit)) {
    if (!value || limit < 0) return INVALID_VALUE;
    *value = 1024;
    return OK;
}
ENTRY(IN_CONTEXT, cuCtxSetLimit, (int limit, size_t value), (limit, value)) {
    (void)value;
    return limit < 0 ? INVALID_VALUE : OK;
}

ENTRY(INITIALISED, cuDevicePrimaryCtxRetain, (Context **out, int device), (out, device)) {
    if (device) return INVALID_DEVICE;
    if (!out) return INVALID_VALUE;
    if (!primary) {
        primary = object_new(CONTEXT, NULL, sizeof *primary);
        primary->primary = true;
    }
    if (primary->error) return primary->error;
    primary->refs++;
    *out = primary;
    return OK;
}
ENTRY(STACK_ONLY, cuDevicePrimaryCtxRelease, (int device), (device)) { return release(device); }
ENTRY(STACK_ONLY, cuDevicePrimaryCtxRelease_v2, (int device), (device)) { return release(device); }
ENTRY(STACK_ONLY, cuDevicePrimaryCtxReset_v2, (int device), (device)) {
    if (device) return INVALID_DEVICE;
    if (!primary) return OK;
    primary->error = OK;
    return end_context(primary, DESTROYED);
}
ENTRY(INITIALISED, cuDevicePrimaryCtxSetFlags_v2, (int device, unsigned flags), (device, flags)) {
    (void)flags;
    return device ? INVALID_DEVICE : OK;
}
ENTRY(INITIALISED, cuDevicePrimaryCtxGetState, (int device, unsigned *flags, int *active),
      (device, flags, active)) {
    if (device) return INVALID_DEVICE;
    if (!flags || !active) return INVALID_VALUE;
    *flags = 0;
    *active = primary && primary->refs > 0;
    return OK;
}
