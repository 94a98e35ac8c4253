/* The frame of every driver call: counted, faults, initialised, a context, no lost device. */
#include "core.h"

pthread_mutex_t the_lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP;
Result lost;
static bool initialised, forked;
static Call *called;
static __thread const char *call_now = "swgpu";
static __thread bool host_function;

void lock(void) { pthread_mutex_lock(&the_lock); }
void unlock(void) { pthread_mutex_unlock(&the_lock); }
const char *current_call(void) { return call_now; }

Result initialise(void) {
    initialised = !forked;
    return forked ? NOT_INITIALIZED : OK;
}

/* As with the real driver, nothing works in the child of a fork: its threads did not come along. */
static void in_child(void) {
    initialised = false;
    forked = true;
    forget_workers();
    unlock();
}

__attribute__((constructor)) static void loaded(void) { pthread_atfork(lock, unlock, in_child); }

void count_call(Call *call) {
    if (!call->registered) {
        call->registered = 1;
        call->next = called;
        called = call;
    }
    call->count++;
}

/* What the thread does now, for messages. Returns what it did before. */
const char *during(const char *what) {
    const char *before = call_now;
    call_now = what;
    return before;
}

void in_host_function(bool inside) { host_function = inside; }

Result enter(Call *call, int needs) {
    lock();
    call_now = call->name;
    count_call(call);
    if (host_function) {
        violation("called from within a host function");
        return NOT_PERMITTED;
    }
    Result fault = fault_of(call->name);
    if (fault) return fault;
    if (needs == ANYTIME) return OK;
    if (!initialised) return NOT_INITIALIZED;
    if (needs == STACK_ONLY) return OK;
    if (lost) return lost;
    if (needs == INITIALISED) return OK;
    Result bad = check_current();
    if (bad) return bad;
    return needs == UNSAFE_IN_CAPTURE ? capture_unsafe() : OK;
}

Result leave(Result result) {
    unlock();
    return result;
}

void calls_forget(void) {
    for (Call *call = called; call; call = call->next) call->count = 0;
}

void calls_write(void) {
    for (Call *call = called; call; call = call->next)
        if (call->count) line("%s %ld", call->name, call->count);
}
