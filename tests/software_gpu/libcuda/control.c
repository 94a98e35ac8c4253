/* What tests set: mode, time model, memory, identity; and starting anew. */
#include "core.h"

#include <string.h>

EXPORT void swgpu_mode(int mode, double lag_us) {
    lock();
    settings.mode = mode;
    settings.lag_ns = (int64_t)(lag_us * 1e3);
    wake_workers();
    unlock();
}

/* Gigabytes per second (0: at once) and microseconds. */
EXPORT void swgpu_times(double h2d_gbps, double d2h_gbps, double launch_us, double copy_us) {
    lock();
    settings.h2d_bytes_per_ns = h2d_gbps;
    settings.d2h_bytes_per_ns = d2h_gbps;
    settings.launch_ns = launch_us * 1e3;
    settings.copy_ns = copy_us * 1e3;
    unlock();
}

EXPORT void swgpu_memory(uint64_t bytes) {
    lock();
    settings.memory = bytes;
    unlock();
}

EXPORT void swgpu_identity(const char *name, int major, int minor, int integrated, int version) {
    lock();
    strncpy(settings.name, name, sizeof settings.name - 1);
    settings.major = major;
    settings.minor = minor;
    settings.integrated = integrated;
    settings.version = version;
    unlock();
}

EXPORT void swgpu_drop_pending(void) {
    lock();
    drop_pending();
    unlock();
}

EXPORT int swgpu_idle(void) {
    lock();
    int result = idle(NULL);
    unlock();
    return result;
}

EXPORT void swgpu_reset(void) {
    lock();
    drop_pending();
    contexts_forget_errors();
    faults_forget();
    calls_forget();
    timing_forget();
    unlock();
}

/* Everything still alive goes, as if it had never been: after a test that leaked. */
EXPORT void swgpu_abandon(void) {
    lock();
    drop_pending();
    for (Object *object = objects(), *next; object; object = next) {
        next = object->next;
        if (object->kind != CONTEXT) continue;
        objects_leave((Context *)object, LOST);
        blocks_leave((Context *)object, LOST);
        next = object->next;
    }
    unlock();
}
