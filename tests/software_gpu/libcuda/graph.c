/* Graphs and executable graphs. A run takes its nodes in any order that their edges allow. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

void nodes_add(Nodes *nodes, Node *node) {
    for (int i = 0; i < nodes->count; i++)
        if (nodes->at[i] == node) return;
    nodes->at = realloc(nodes->at, (size_t)(nodes->count + 1) * sizeof *nodes->at);
    nodes->at[nodes->count++] = node;
}

void nodes_set(Nodes *to, const Nodes *from) {
    to->count = 0;
    for (int i = 0; i < from->count; i++) nodes_add(to, from->at[i]);
}

/* Whether `node` is one of them, or something that one of them depends on. */
bool nodes_reach(const Nodes *from, const Node *node) {
    for (int i = 0; i < from->count; i++)
        if (from->at[i] == node || nodes_reach(&from->at[i]->needs, node)) return true;
    return false;
}

Graph *graph_new(Context *context) { return object_new(GRAPH, context, sizeof(Graph)); }

Node *graph_add(Graph *graph, const Op *op, const Nodes *needs) {
    Node *node = object_new(NODE, graph->object.context, sizeof *node);
    if (!node) return NULL;
    node->op = op_clone(op);
    node->index = graph->nodes.count;
    nodes_set(&node->needs, needs);
    nodes_add(&graph->nodes, node);
    return node;
}

void graph_end(Graph *graph) {
    for (int i = 0; i < graph->nodes.count; i++) {
        Node *node = graph->nodes.at[i];
        op_free(&node->op);
        free(node->needs.at);
        node->needs = (Nodes){ NULL, 0 };
        object_end(&node->object, DESTROYED);
    }
    free(graph->nodes.at);
    graph->nodes = (Nodes){ NULL, 0 };
    object_end(&graph->object, DESTROYED);
}

static bool nodes_clash(Node *one, Node *other) {
    for (int i = 0; i < one->op.ranges; i++)
        for (int k = 0; k < other->op.ranges; k++)
            if (ranges_clash(&op_ranges(&one->op)[i], &op_ranges(&other->op)[k])) return true;
    return false;
}

/* Two branches may not use the same bytes, unless both only read. */
void graph_check(Graph *graph) {
    for (int late = 1; late < graph->nodes.count; late++)
        for (int early = 0; early < late; early++) {
            Node *one = graph->nodes.at[early], *other = graph->nodes.at[late];
            if (nodes_clash(one, other) && !nodes_reach(&other->needs, one))
                violation(
                    "race: nodes %d and %d of the captured graph use the same bytes, in no order",
                    early, late);
        }
}

/* Pins what the nodes use, once for all launches that are pending. */
void exec_pin(Exec *exec, int by) {
    int before = exec->object.pending;
    exec->object.pending += by;
    for (int i = 0; i < exec->nodes.count; i++) {
        if (!before) op_pin(&exec->nodes.at[i]->op);
        else if (!exec->object.pending) op_unpin(&exec->nodes.at[i]->op);
    }
}

static Result instantiate(Exec **out, Graph *graph) {
    if (!out) return INVALID_VALUE;
    Result bad = check_handle(graph, GRAPH, true);
    if (bad) return bad;
    if (capture_owns(graph)) return INVALID_VALUE;
    Exec *exec = object_new(GRAPH_EXEC, current(), sizeof *exec);
    if (!exec) return OUT_OF_MEMORY;
    for (int i = 0; i < graph->nodes.count; i++) {
        const Node *from = graph->nodes.at[i];
        Node *node = calloc(1, sizeof *node);
        node->op = op_clone(&from->op);
        node->index = i;
        for (int k = 0; k < from->needs.count; k++)
            nodes_add(&node->needs, exec->nodes.at[from->needs.at[k]->index]);
        nodes_add(&exec->nodes, node);
    }
    *out = exec;
    return OK;
}

static void run_node(Node *node, Context *context, Result *result) {
    if (*result || context->error) return;
    *result = op_run(&node->op, context);
}

static bool ready_to_run(const Node *node, const bool *done) {
    if (done[node->index]) return false;
    for (int i = 0; i < node->needs.count; i++)
        if (!done[node->needs.at[i]->index]) return false;
    return true;
}

/* Any order that the edges allow: a missing edge shows as wrong bytes. */
static void run_untimed(Exec *exec, Context *context, Result *result) {
    int count = exec->nodes.count;
    bool *done = calloc((size_t)count + 1, sizeof *done);
    Node **ready = calloc((size_t)count + 1, sizeof *ready);
    for (int left = count; left; left--) {
        int choices = 0;
        for (int i = 0; i < count; i++)
            if (ready_to_run(exec->nodes.at[i], done)) ready[choices++] = exec->nodes.at[i];
        Node *node = ready[random_next() % (uint64_t)choices];
        if (settings.mode == LATE && node->op.engine != NO_ENGINE && !context->error) sleep_lag();
        run_node(node, context, result);
        done[node->index] = true;
    }
    free(done);
    free(ready);
}

/* Each node as soon as its needs are done and its engine is free. Returns when the last ends. */
static int64_t run_timed(Exec *exec, Context *context, int64_t ready, Result *result) {
    int count = exec->nodes.count;
    int64_t *ends = calloc((size_t)count + 1, sizeof *ends), last = ready;
    bool *done = calloc((size_t)count + 1, sizeof *done);
    for (int i = 0; i < count; i++) {
        const Node *node = exec->nodes.at[i];
        int64_t start = ready;
        for (int k = 0; k < node->needs.count; k++) {
            int64_t end = ends[node->needs.at[k]->index];
            if (end > start) start = end;
        }
        ends[i] = plan(&node->op, start).end;
        if (ends[i] > last) last = ends[i];
    }
    for (int left = count; left; left--) {
        Node *next = NULL;
        for (int i = 0; i < count; i++)
            if (ready_to_run(exec->nodes.at[i], done) && (!next || ends[i] < ends[next->index]))
                next = exec->nodes.at[i];
        sleep_until(ends[next->index]);
        run_node(next, context, result);
        done[next->index] = true;
    }
    free(ends);
    free(done);
    return last;
}

int64_t graph_run(Exec *exec, Context *context, int64_t ready, Result *result) {
    if (settings.mode == TIMED) return run_timed(exec, context, ready ? ready : now(), result);
    run_untimed(exec, context, result);
    return ready;
}

ENTRY(IN_CONTEXT, cuGraphCreate, (Graph **out, unsigned flags), (out, flags)) {
    if (!out || flags) return INVALID_VALUE;
    *out = graph_new(current());
    return *out ? OK : OUT_OF_MEMORY;
}
ENTRY(IN_CONTEXT, cuGraphDestroy, (Graph *graph), (graph)) {
    Result bad = check_handle(graph, GRAPH, true);
    if (bad) return bad;
    if (capture_owns(graph)) return INVALID_VALUE;
    graph_end(graph);
    return OK;
}
ENTRY(IN_CONTEXT, cuGraphInstantiate_v2,
      (Exec **out, Graph *graph, Node **node, char *log, size_t room),
      (out, graph, node, log, room)) {
    if (node) *node = NULL;
    if (log && room) *log = 0;
    return instantiate(out, graph);
}
ENTRY(IN_CONTEXT, cuGraphInstantiateWithFlags, (Exec **out, Graph *graph, uint64_t flags),
      (out, graph, flags)) {
    return flags & ~15u ? INVALID_VALUE : instantiate(out, graph);
}
typedef struct Parameters {
    uint64_t flags;
    Stream *upload;
    Node *failed;
    int result;
} Parameters;
ENTRY(IN_CONTEXT, cuGraphInstantiateWithParams, (Exec **out, Graph *graph, Parameters *parameters),
      (out, graph, parameters)) {
    if (!parameters || parameters->flags & ~15u) return INVALID_VALUE;
    Result result = instantiate(out, graph);
    parameters->failed = NULL;
    parameters->result = result ? 1 : 0;
    return result;
}
ENTRY(IN_CONTEXT, cuGraphUpload, (Exec *exec, Stream *stream), (exec, stream)) {
    Result bad = check_handle(exec, GRAPH_EXEC, false);
    return bad ? bad : check_stream(stream);
}
ENTRY(IN_CONTEXT, cuGraphLaunch, (Exec *exec, Stream *stream), (exec, stream)) {
    Result bad = check_handle(exec, GRAPH_EXEC, false);
    if (!bad) bad = check_stream(stream);
    if (bad) return bad;
    Op run = { .work = GRAPH_RUN, .engine = NO_ENGINE, .exec = exec };
    if (default_stream(stream)) return submit(stream, &run);
    if (stream->capture) return NOT_SUPPORTED; /* a graph within a graph */
    if (exec->last && !exec->last->done) {     /* launches of one graph run one after the other */
        Op wait = { .work = WAIT, .engine = NO_ENGINE, .mark = mark_keep(exec->last) };
        submit(stream, &wait);
    }
    if (exec->last) mark_drop(exec->last);
    bad = submit(stream, &run);
    exec->last = mark_new(stream);
    Op end = { .work = RECORD, .engine = NO_ENGINE, .mark = mark_keep(exec->last) };
    return bad ? bad : submit(stream, &end);
}
ENTRY(IN_CONTEXT, cuGraphExecDestroy, (Exec *exec), (exec)) {
    Result bad = check_handle(exec, GRAPH_EXEC, false);
    if (bad) return bad;
    object_end(&exec->object, DESTROYED);
    if (exec->object.pending) { /* its nodes stay: they still run */
        violation("graph exec no. %lu is destroyed while it runs", exec->object.serial);
        return OK;
    }
    for (int i = 0; i < exec->nodes.count; i++) {
        op_free(&exec->nodes.at[i]->op);
        free(exec->nodes.at[i]->needs.at);
        free(exec->nodes.at[i]);
    }
    free(exec->nodes.at);
    exec->nodes = (Nodes){ NULL, 0 };
    if (exec->last) mark_drop(exec->last);
    exec->last = NULL;
    return OK;
}
ENTRY(IN_CONTEXT, cuGraphGetNodes, (Graph *graph, Node **nodes, size_t *count),
      (graph, nodes, count)) {
    Result bad = check_handle(graph, GRAPH, true);
    if (bad) return bad;
    if (!count) return INVALID_VALUE;
    size_t all = (size_t)graph->nodes.count;
    for (size_t i = 0; nodes && i < *count; i++) nodes[i] = i < all ? graph->nodes.at[i] : NULL;
    if (!nodes || *count > all) *count = all;
    return OK;
}
ENTRY(IN_CONTEXT, cuGraphNodeGetType, (Node *node, int *type), (node, type)) {
    static const int types[] = {
        [COPY] = 1, [FILL] = 2, [KERNEL] = 0, [HOST_CALL] = 3, [RECORD] = 7
    };
    Result bad = check_handle(node, NODE, true);
    if (bad) return bad;
    if (!type) return INVALID_VALUE;
    *type = types[node->op.work];
    return OK;
}
