/* Time: random lag of late work, and the model of the engines of a GPU (timed mode). */
#include "core.h"

#include <time.h>

enum { LATE_WAKING_NS = 50000 }; /* the kernel may wake us up that much late */

static int64_t busy_until[ENGINES]; /* of each engine: they run at once, each in order */

int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void nap(int64_t until) {
    struct timespec time = { until / 1000000000, until % 1000000000 };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL)) {
    }
}

void sleep_until(int64_t when) {
    if (when <= now()) return;
    unlock();
    nap(when - LATE_WAKING_NS);
    while (now() < when) {
    }
    lock();
}

void sleep_lag(void) {
    int64_t lag = settings.lag_ns;
    if (lag <= 0) return;
    int64_t until = now() + lag / 4 + (int64_t)(random_next() % (uint64_t)(lag - lag / 4));
    unlock();
    nap(until);
    lock();
}

/* About what this machine needs to move a copy's bytes: it begins so much before its end. */
int64_t moving_ns(const Op *op) {
    const Range *range = op->range ? op->range : op->own;
    return op->work == COPY ? (int64_t)(range[0].size / 4) : 0;
}

static int64_t cost(const Op *op) {
    const Range *range = op->range ? op->range : op->own;
    double rate = op->engine == H2D   ? settings.h2d_bytes_per_ns
                  : op->engine == D2H ? settings.d2h_bytes_per_ns
                                      : 0;
    switch (op->work) {
    case COPY: return (int64_t)(settings.copy_ns + (rate > 0 ? (double)range[0].size / rate : 0));
    case KERNEL: return (int64_t)(settings.launch_ns + op->seconds * 1e9);
    default: return 0;
    }
}

/* When it runs: as soon as its stream and its engine are free. The engine is then taken. */
Slot plan(const Op *op, int64_t ready) {
    if (op->engine == NO_ENGINE) return (Slot){ ready, ready };
    int64_t *busy = &busy_until[op->engine];
    int64_t start = *busy > ready ? *busy : ready;
    *busy = start + cost(op);
    return (Slot){ start, *busy };
}

void timing_forget(void) {
    for (int i = 0; i < ENGINES; i++) busy_until[i] = 0;
}
