/* Events. One refers to its latest record; a wait keeps to the record it found. */
#include "core.h"

#include <stdlib.h>

enum { BLOCKING_SYNC = 1, DISABLE_TIMING = 2 };

ENTRY(IN_CONTEXT, cuEventCreate, (Event **out, unsigned flags), (out, flags)) {
    if (!out || flags > 7 || (flags & 4 && !(flags & DISABLE_TIMING))) return INVALID_VALUE;
    Event *event = object_new(EVENT, current(), sizeof *event);
    if (!event) return OUT_OF_MEMORY;
    event->flags = flags;
    *out = event;
    return OK;
}

static void forget(Event *event) {
    if (event->mark) mark_drop(event->mark);
    event->mark = NULL;
    event->capture = 0;
    free(event->frontier.at);
    event->frontier = (Nodes){ NULL, 0 };
}

ENTRY(IN_CONTEXT, cuEventDestroy_v2, (Event *event), (event)) {
    Result bad = check_handle(event, EVENT, false);
    if (bad) return bad;
    if (event->object.pending)
        violation("event no. %lu is destroyed while its record is pending", event->object.serial);
    forget(event);
    object_end(&event->object, DESTROYED);
    return OK;
}

static Result record(Event *event, Stream *stream, unsigned flags) {
    Result bad = check_handle(event, EVENT, false);
    if (!bad) bad = check_stream(stream);
    if (bad) return bad;
    if (flags > 1) return INVALID_VALUE;
    bool capturing = !default_stream(stream) && stream->capture;
    if (capturing && !flags) return capture_record(stream, event);
    if (capturing) {
        Op op = { .work = RECORD, .engine = NO_ENGINE, .event = event };
        return submit(stream, &op);
    }
    forget(event);
    event->mark = mark_new(stream);
    Op op = { .work = RECORD, .engine = NO_ENGINE, .event = event, .mark = mark_keep(event->mark) };
    return submit(stream, &op);
}

ENTRY(IN_CONTEXT, cuEventRecord, (Event *event, Stream *stream), (event, stream)) {
    return record(event, stream, 0);
}
ENTRY(IN_CONTEXT, cuEventRecordWithFlags, (Event *event, Stream *stream, unsigned flags),
      (event, stream, flags)) {
    return record(event, stream, flags);
}

static Result usable(Event *event) {
    Result bad = check_handle(event, EVENT, false);
    return bad ? bad : event->capture ? CAPTURED_EVENT : OK;
}

ENTRY(UNSAFE_IN_CAPTURE, cuEventSynchronize, (Event *event), (event)) {
    Result bad = usable(event);
    if (bad) return bad;
    Context *context = current();
    if (event->mark) wait_mark(event->mark, !(event->flags & BLOCKING_SYNC));
    return context->error;
}
ENTRY(UNSAFE_IN_CAPTURE, cuEventQuery, (Event *event), (event)) {
    Result bad = usable(event);
    if (bad) return bad;
    if (event->mark && !event->mark->done) run_one(event->mark->stream);
    Result error = current()->error;
    if (error) return error;
    if (event->mark && !event->mark->done) return NOT_READY;
    if (event->mark) order_seen(event->mark);
    return OK;
}

static Result elapsed(float *milliseconds, Event *start, Event *end) {
    Result bad = usable(start);
    if (!bad) bad = usable(end);
    if (bad) return bad;
    if (!milliseconds) return INVALID_VALUE;
    if (!start->mark || !end->mark || (start->flags | end->flags) & DISABLE_TIMING)
        return INVALID_HANDLE;
    if (!start->mark->done || !end->mark->done) return NOT_READY;
    *milliseconds = (float)((double)(end->mark->time - start->mark->time) * 1e-6);
    return OK;
}
ENTRY(IN_CONTEXT, cuEventElapsedTime, (float *milliseconds, Event *start, Event *end),
      (milliseconds, start, end)) {
    return elapsed(milliseconds, start, end);
}
ENTRY(IN_CONTEXT, cuEventElapsedTime_v2, (float *milliseconds, Event *start, Event *end),
      (milliseconds, start, end)) {
    return elapsed(milliseconds, start, end);
}
