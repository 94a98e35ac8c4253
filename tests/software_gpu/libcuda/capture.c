/* Stream capture: work that becomes nodes of a graph instead of running. */
#include "core.h"

#include <stdlib.h>

enum { GLOBAL, THREAD_LOCAL, RELAXED };
struct Capture {
    uint64_t id;
    Graph *graph;
    Stream *origin;
    int mode;
    pthread_t thread;
    bool invalid;
    Capture *next;
};
static Capture *captures; /* those that go on */
static __thread int thread_mode = GLOBAL;

static Capture *capture_of(uint64_t id) {
    Capture *capture = captures;
    while (capture && capture->id != id) capture = capture->next;
    return capture;
}

bool capture_owns(const Graph *graph) {
    for (Capture *capture = captures; capture; capture = capture->next)
        if (capture->graph == graph) return true;
    return false;
}

/* Takes what `op` owns. */
Result capture_op(Stream *stream, Op *op) {
    if (stream->capture->invalid) {
        op_free(op);
        return CAPTURE_INVALIDATED;
    }
    Range *range = op_ranges(op);
    for (int i = 0; i < op->ranges; i++) {
        Block *block = block_at(range[i].address);
        if (block) range[i].serial = block->serial;
    }
    Node *node = graph_add(stream->capture->graph, op, &stream->frontier);
    op_free(op);
    if (!node) return OUT_OF_MEMORY;
    stream->frontier.count = 0;
    nodes_add(&stream->frontier, node);
    return OK;
}

Result capture_record(Stream *stream, Event *event) {
    if (stream->capture->invalid) return CAPTURE_INVALIDATED;
    if (event->mark) mark_drop(event->mark);
    event->mark = NULL;
    event->capture = stream->capture->id;
    nodes_set(&event->frontier, &stream->frontier);
    return OK;
}

Result capture_wait(Stream *stream, Event *event) {
    Capture *theirs = event->capture ? capture_of(event->capture) : NULL;
    if (event->capture && !theirs) return CAPTURED_EVENT;
    if (!theirs) { /* so this stream captures */
        if (stream->capture->invalid) return CAPTURE_INVALIDATED;
        if (!event->mark) return OK;
        stream->capture->invalid = true;
        return CAPTURE_ISOLATION;
    }
    if (theirs->invalid) return CAPTURE_INVALIDATED;
    if (stream->capture && stream->capture != theirs) {
        stream->capture->invalid = theirs->invalid = true;
        return CAPTURE_MERGE;
    }
    if (!stream->capture) {
        stream->capture = theirs;
        stream->frontier.count = 0;
    }
    for (int i = 0; i < event->frontier.count; i++)
        nodes_add(&stream->frontier, event->frontier.at[i]);
    return OK;
}

/* What a call that would wait for the stream says while it captures. */
Result capture_forbids(Stream *stream) {
    if (!stream->capture) return OK;
    if (stream->capture->invalid) return CAPTURE_INVALIDATED;
    stream->capture->invalid = true;
    return CAPTURE_UNSUPPORTED;
}

/* For calls that may wait for the whole device, such as an allocation. */
Result capture_unsafe(void) {
    if (!captures || thread_mode == RELAXED) return OK;
    for (Capture *capture = captures; capture; capture = capture->next) {
        bool mine = pthread_equal(capture->thread, pthread_self());
        bool forbidden = capture->mode == GLOBAL ? mine || thread_mode == GLOBAL
                                                 : capture->mode == THREAD_LOCAL && mine;
        if (!forbidden) continue;
        capture->invalid = true;
        return CAPTURE_UNSUPPORTED;
    }
    return OK;
}

Result capture_synchronises(Context *context) {
    for (Capture *capture = captures; capture; capture = capture->next) {
        if (capture->origin->object.context != context) continue;
        capture->invalid = true;
        return CAPTURE_UNSUPPORTED;
    }
    return OK;
}

static void end(Capture *capture) {
    for (Object *object = objects(); object; object = object->next) {
        Stream *stream = (Stream *)object;
        if (object->kind != STREAM || stream->capture != capture) continue;
        stream->capture = NULL;
        stream->frontier.count = 0;
    }
    for (Capture **link = &captures; *link; link = &(*link)->next)
        if (*link == capture) {
            *link = capture->next;
            break;
        }
    free(capture);
}

/* The stream goes while it captures. */
void capture_left(Stream *stream) {
    Capture *capture = stream->capture;
    if (!capture) return;
    violation("stream no. %lu is destroyed while it captures", stream->object.serial);
    capture->invalid = true;
    stream->capture = NULL;
    if (capture->origin != stream) return;
    Graph *graph = capture->graph;
    end(capture);
    graph_end(graph);
}

static bool joined(Capture *capture) {
    for (Object *object = objects(); object; object = object->next) {
        Stream *stream = (Stream *)object;
        if (object->kind != STREAM || stream->capture != capture) continue;
        for (int i = 0; i < stream->frontier.count; i++)
            if (!nodes_reach(&capture->origin->frontier, stream->frontier.at[i])) return false;
    }
    return true;
}

ENTRY(IN_CONTEXT, cuStreamBeginCapture_v2, (Stream *stream, int mode), (stream, mode)) {
    if (mode < GLOBAL || mode > RELAXED) return INVALID_VALUE;
    if (default_stream(stream)) return CAPTURE_UNSUPPORTED;
    Result bad = check_stream(stream);
    if (bad) return bad;
    if (stream->capture) return 401; /* CUDA_ERROR_ILLEGAL_STATE */
    Capture *capture = calloc(1, sizeof *capture);
    *capture = (Capture){ .id = next_serial(),
                          .graph = graph_new(current()),
                          .origin = stream,
                          .mode = mode,
                          .thread = pthread_self(),
                          .next = captures };
    captures = capture;
    stream->capture = capture;
    stream->frontier.count = 0;
    return OK;
}

ENTRY(IN_CONTEXT, cuStreamEndCapture, (Stream *stream, Graph **out), (stream, out)) {
    if (!out) return INVALID_VALUE;
    *out = NULL;
    if (default_stream(stream)) return CAPTURE_IMPLICIT;
    Result bad = check_stream(stream);
    if (bad) return bad;
    Capture *capture = stream->capture;
    if (!capture) return 401;
    if (capture->origin != stream) {
        capture->invalid = true;
        return CAPTURE_UNMATCHED;
    }
    if (capture->mode != RELAXED && !pthread_equal(capture->thread, pthread_self()))
        return CAPTURE_WRONG_THREAD;
    bad = capture->invalid ? CAPTURE_INVALIDATED : joined(capture) ? OK : CAPTURE_UNJOINED;
    Graph *graph = capture->graph;
    end(capture);
    if (bad) graph_end(graph);
    else graph_check(*out = graph);
    return bad;
}

static Result look(Stream *stream, int *status, uint64_t *id, Graph **graph, Node ***nodes,
                   size_t *count) {
    if (!status) return INVALID_VALUE;
    Capture *capture = NULL;
    if (!default_stream(stream)) {
        Result bad = check_stream(stream);
        if (bad) return bad;
        capture = stream->capture;
    }
    *status = !capture ? 0 : capture->invalid ? 2 : 1;
    if (!capture) return OK;
    if (id) *id = capture->id;
    if (graph) *graph = capture->graph;
    if (nodes) *nodes = stream->frontier.at;
    if (count) *count = (size_t)stream->frontier.count;
    return OK;
}
ENTRY(IN_CONTEXT, cuStreamIsCapturing, (Stream *stream, int *status), (stream, status)) {
    return look(stream, status, NULL, NULL, NULL, NULL);
}
ENTRY(IN_CONTEXT, cuStreamGetCaptureInfo, (Stream *stream, int *status, uint64_t *id),
      (stream, status, id)) {
    return look(stream, status, id, NULL, NULL, NULL);
}
ENTRY(IN_CONTEXT, cuStreamGetCaptureInfo_v2,
      (Stream *stream, int *status, uint64_t *id, Graph **graph, Node ***nodes, size_t *count),
      (stream, status, id, graph, nodes, count)) {
    return look(stream, status, id, graph, nodes, count);
}
ENTRY(IN_CONTEXT, cuStreamGetCaptureInfo_v3,
      (Stream *stream, int *status, uint64_t *id, Graph **graph, Node ***nodes, void **edges,
       size_t *count),
      (stream, status, id, graph, nodes, edges, count)) {
    static uint64_t plain[1024]; /* an edge's data: none of ours has any */
    size_t found = 0;
    Result result = look(stream, status, id, graph, nodes, &found);
    if (found > sizeof plain / sizeof *plain) return NOT_SUPPORTED;
    if (edges) *edges = plain;
    if (count) *count = found;
    return result;
}
ENTRY(ANYTIME, cuThreadExchangeStreamCaptureMode, (int *mode), (mode)) {
    if (!mode || *mode < GLOBAL || *mode > RELAXED) return INVALID_VALUE;
    int before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return OK;
}
