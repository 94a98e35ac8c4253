/* One piece of work: what it uses is pinned while it is pending, checked when it runs. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

enum { SMALL = 16384 }; /* copies up to this size are done without letting go of the lock */
static __thread Result kernel_result;

Range *op_ranges(Op *op) { return op->range ? op->range : op->own; }

static void pin(Op *op, int by) {
    Range *range = op_ranges(op);
    for (int i = 0; i < op->ranges; i++)
        if (range[i].block) range[i].block->pending += by;
    if (op->event) op->event->object.pending += by;
    if (op->exec) exec_pin(op->exec, by);
}

void op_pin(Op *op) {
    Range *range = op_ranges(op);
    for (int i = 0; i < op->ranges; i++)
        if (!range[i].pageable) range[i].block = block_at(range[i].address);
    pin(op, 1);
}

void op_unpin(Op *op) {
    pin(op, -1);
    Range *range = op_ranges(op);
    for (int i = 0; i < op->ranges; i++) range[i].block = NULL;
}

Op op_clone(const Op *op) {
    Op copy = *op;
    if (op->range) {
        copy.range = malloc((size_t)op->ranges * sizeof *copy.range);
        memcpy(copy.range, op->range, (size_t)op->ranges * sizeof *copy.range);
    }
    if (op->mark) mark_keep(op->mark);
    return copy;
}

void op_free(Op *op) {
    free(op->range);
    free(op->staged);
    if (op->mark) mark_drop(op->mark);
    op->range = NULL;
    op->staged = NULL;
    op->mark = NULL;
}

Mark *mark_new(Stream *stream) {
    Mark *mark = calloc(1, sizeof *mark);
    *mark = (Mark){ .refs = 1, .stream = stream };
    return mark;
}

Mark *mark_keep(Mark *mark) {
    mark->refs++;
    return mark;
}

void mark_drop(Mark *mark) {
    if (--mark->refs) return;
    free(mark->clock.at);
    free(mark);
}

static void copy(Op *op) {
    Range *range = op_ranges(op);
    void *to = (void *)range[0].address;
    const void *from = op->staged ? op->staged : (const void *)range[1].address;
    size_t size = range[0].size;
    if (size > SMALL) unlock();
    memmove(to, from, size);
    if (size > SMALL) lock();
}

static void fill(Op *op) {
    Range *range = op_ranges(op);
    char *to = (char *)range[0].address;
    for (size_t at = 0; at < range[0].size; at += op->width) memcpy(to + at, &op->value, op->width);
}

static Result call(Op *op, bool host) {
    Result fault = host ? OK : fault_of_kernel();
    if (fault || !op->function) return fault;
    kernel_result = OK;
    unlock();
    in_host_function(host);
    op->function(op->argument);
    in_host_function(false);
    lock();
    return kernel_result;
}

/* A record within a graph: what the event refers to from now on. */
static void record(Op *op) {
    if (op->mark) return;
    if (op->event->mark) mark_drop(op->event->mark);
    op->event->mark = mark_new(NULL);
    op->event->mark->time = now();
    op->event->mark->done = true;
}

static Result check(Op *op) {
    Range *range = op_ranges(op);
    for (int i = 0; i < op->ranges; i++) {
        if (range[i].pageable) continue;
        const char *end = range[i].write ? "its target" : "its source";
        if (check_range(&range[i], end)) return ILLEGAL_ADDRESS;
        if (op->alignment > 1 && range[i].address % op->alignment) {
            violation("%s %#lx is not aligned to %u bytes", end, range[i].address, op->alignment);
            return 716; /* CUDA_ERROR_MISALIGNED_ADDRESS */
        }
    }
    return OK;
}

/* Runs it now. What it returns is an error of the device: sticky for the context. */
Result op_run(Op *op, Context *context) {
    static const char *names[] = { "running a copy",     "running a fill",
                                   "running a kernel",   "running a host function",
                                   "recording an event", "waiting for an event",
                                   "running a graph" };
    if (context->error) return OK; /* nothing runs any more in a broken context */
    const char *before = during(names[op->work]);
    Result result = check(op);
    if (!result) {
        switch (op->work) {
        case COPY: copy(op); break;
        case FILL: fill(op); break;
        case KERNEL: result = call(op, false); break;
        case HOST_CALL:
            if (op->mark) order_seen(op->mark); /* what it tells others is that it was reached */
            result = call(op, true);
            break;
        case RECORD: record(op); break;
        case GRAPH_RUN: graph_run(op->exec, context, 0, &result); break;
        case WAIT: break;
        }
    }
    during(before);
    return result;
}

/* For the default stream and for calls that wait: runs it within the call. */
Result op_run_now(Op *op, Context *context) {
    if (!op->mark) order_work(op, NULL, 0);
    op_pin(op);
    Result result = op_run(op, context);
    if (op->work == RECORD) {
        op->mark->time = now();
        op->mark->done = true;
    }
    op_unpin(op);
    op_free(op);
    if (result) context_fail(context, result);
    return result;
}

/* A kernel calls this to fail. */
EXPORT void swgpu_kernel_failed(int error) { kernel_result = error; }

/* A kernel: `ranges` holds pairs (address, bytes), what is read first. */
static Call launch = { "swgpu_launch", 0, 0, 0 };
EXPORT Result swgpu_launch(Stream *stream, Function function, void *argument,
                           const uint64_t *ranges, int reads, int writes, double seconds,
                           unsigned alignment) {
    Result result = enter(&launch, IN_CONTEXT);
    if (result) return leave(result);
    Op op = { .work = KERNEL,
              .engine = COMPUTE,
              .ranges = reads + writes,
              .function = function,
              .argument = argument,
              .seconds = seconds,
              .alignment = alignment };
    if (op.ranges > 2) op.range = calloc((size_t)op.ranges, sizeof *op.range);
    Range *range = op_ranges(&op);
    for (int i = 0; i < op.ranges; i++)
        range[i] =
            (Range){ .address = ranges[2 * i], .size = ranges[2 * i + 1], .write = i >= reads };
    return leave(submit(stream, &op));
}
