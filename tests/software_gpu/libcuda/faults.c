/* Injected errors: the n-th call of a function, the n-th kernel, a lost device. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

typedef struct Fault {
    char call[64];
    long nth;
    Result error;
    bool sticky;
    struct Fault *next;
} Fault;
static Fault *faults;
static long kernel_nth;
static Result kernel_error;

/* "cuMemAlloc" also means cuMemAlloc_v2, and "cuGraphInstantiate" its present form. */
static bool same_call(const char *wanted, const char *name) {
    size_t length = strlen(wanted);
    if (strncmp(wanted, name, length)) return false;
    const char *rest = name + length;
    return !*rest || !strcmp(rest, "WithFlags")
           || (rest[0] == '_' && rest[1] == 'v' && rest[2] >= '0' && rest[2] <= '9');
}

Result fault_of(const char *call) {
    for (Fault *fault = faults; fault; fault = fault->next) {
        if (fault->nth <= 0 || !same_call(fault->call, call) || --fault->nth) continue;
        if (fault->sticky && current()) context_fail(current(), fault->error);
        return fault->error;
    }
    return OK;
}

Result fault_of_kernel(void) { return kernel_nth > 0 && !--kernel_nth ? kernel_error : OK; }

void faults_forget(void) {
    while (faults) {
        Fault *next = faults->next;
        free(faults);
        faults = next;
    }
    kernel_nth = 0;
    lost = OK;
}

/* `nth` 0 takes back what was set for that call. */
EXPORT void swgpu_fail(const char *call, long nth, int error, int sticky) {
    lock();
    for (Fault *fault = faults; fault; fault = fault->next)
        if (!nth && !strcmp(fault->call, call)) fault->nth = 0;
    Fault *fault = calloc(1, sizeof *fault);
    strncpy(fault->call, call, sizeof fault->call - 1);
    fault->nth = nth;
    fault->error = error;
    fault->sticky = sticky;
    fault->next = faults;
    faults = fault;
    unlock();
}

EXPORT void swgpu_fail_launch(long nth, int error) {
    lock();
    kernel_nth = nth;
    kernel_error = error;
    unlock();
}

EXPORT void swgpu_lose_device(int error) {
    lock();
    lost = error;
    for (Object *object = objects(); object; object = object->next)
        if (object->kind == CONTEXT) ((Context *)object)->error = error;
    wake_workers();
    unlock();
}
