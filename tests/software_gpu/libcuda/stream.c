/* Streams as the driver's calls see them. */
#include "core.h"

static Result create(Stream **out, unsigned flags, int priority) {
    if (!out || flags > 1) return INVALID_VALUE;
    Stream *stream = object_new(STREAM, current(), sizeof *stream);
    if (!stream) return OUT_OF_MEMORY;
    stream->flags = flags;
    stream->priority = priority > 0 ? 0 : priority < -5 ? -5 : priority;
    stream_start(stream);
    *out = stream;
    return OK;
}

/* The default stream has no handle to look at: what uses it breaks the rules. */
static Result named(Stream *stream) {
    if (!default_stream(stream)) return check_stream(stream);
    violation("uses the default stream");
    return OK;
}

ENTRY(IN_CONTEXT, cuStreamCreate, (Stream **out, unsigned flags), (out, flags)) {
    return create(out, flags, 0);
}
ENTRY(IN_CONTEXT, cuStreamCreateWithPriority, (Stream **out, unsigned flags, int priority),
      (out, flags, priority)) {
    return create(out, flags, priority);
}
ENTRY(IN_CONTEXT, cuStreamDestroy_v2, (Stream *stream), (stream)) {
    if (default_stream(stream)) return INVALID_HANDLE;
    Result bad = check_stream(stream);
    if (bad) return bad;
    if (stream->head || stream->seen < stream->used)
        violation("stream no. %lu is destroyed while work on it is pending", stream->object.serial);
    stream->seen = stream->queued; /* said once is enough */
    capture_left(stream);
    object_end(&stream->object, DESTROYED);
    pthread_cond_signal(&stream->wake);
    return OK;
}
ENTRY(IN_CONTEXT, cuStreamSynchronize, (Stream *stream), (stream)) {
    Result bad = named(stream);
    if (bad) return bad;
    Context *context = current();
    if (default_stream(stream)) {
        wait_all(context);
        return context->error;
    }
    bad = capture_forbids(stream);
    if (bad) return bad;
    wait_turn(stream, stream->queued, true);
    return context->error;
}
ENTRY(IN_CONTEXT, cuStreamQuery, (Stream *stream), (stream)) {
    Result bad = named(stream);
    if (bad) return bad;
    if (default_stream(stream)) return idle(current()) ? OK : NOT_READY;
    bad = capture_forbids(stream);
    if (bad) return bad;
    run_one(stream);
    if (current()->error) return current()->error;
    if (stream->head) return NOT_READY;
    order_seen_stream(stream, stream->queued);
    return OK;
}
ENTRY(IN_CONTEXT, cuStreamWaitEvent, (Stream *stream, Event *event, unsigned flags),
      (stream, event, flags)) {
    Result bad = named(stream);
    if (!bad) bad = check_handle(event, EVENT, true);
    if (bad) return bad;
    if (flags > 1) return INVALID_VALUE;
    if (default_stream(stream)) {
        if (event->mark) wait_mark(event->mark, true);
        return OK;
    }
    if (stream->capture || event->capture) return capture_wait(stream, event);
    if (!event->mark) return OK; /* never recorded: nothing to wait for */
    Op op = { .work = WAIT, .engine = NO_ENGINE, .mark = mark_keep(event->mark) };
    return submit(stream, &op);
}
ENTRY(IN_CONTEXT, cuLaunchHostFunc, (Stream *stream, Function function, void *argument),
      (stream, function, argument)) {
    if (!function) return INVALID_VALUE;
    Op op = { .work = HOST_CALL, .engine = NO_ENGINE, .function = function, .argument = argument };
    if (!default_stream(stream)) op.mark = mark_new(stream);
    return submit(stream, &op);
}
ENTRY(IN_CONTEXT, cuStreamGetFlags, (Stream *stream, unsigned *flags), (stream, flags)) {
    Result bad = named(stream);
    if (bad) return bad;
    if (!flags) return INVALID_VALUE;
    *flags = default_stream(stream) ? 0 : stream->flags;
    return OK;
}
ENTRY(IN_CONTEXT, cuStreamGetPriority, (Stream *stream, int *priority), (stream, priority)) {
    Result bad = named(stream);
    if (bad) return bad;
    if (!priority) return INVALID_VALUE;
    *priority = default_stream(stream) ? 0 : stream->priority;
    return OK;
}
ENTRY(IN_CONTEXT, cuStreamGetId, (Stream *stream, unsigned long long *id), (stream, id)) {
    Result bad = named(stream);
    if (bad) return bad;
    if (!id) return INVALID_VALUE;
    *id = default_stream(stream) ? 0 : stream->object.serial;
    return OK;
}
ENTRY(IN_CONTEXT, cuStreamGetCtx, (Stream *stream, Context **out), (stream, out)) {
    Result bad = default_stream(stream) ? named(stream) : check_handle(stream, STREAM, true);
    if (bad) return bad;
    if (!out) return INVALID_VALUE;
    *out = default_stream(stream) ? current() : stream->object.context;
    return OK;
}
