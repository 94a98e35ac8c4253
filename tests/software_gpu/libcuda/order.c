/* Which work is ordered before which, and uses of memory that nothing orders: races.
 *
 * Every piece of work has a place (stream, turn). A clock says, per stream, up to which turn all is
 * known to come before. A stream has one (from the events it waited for), a mark has one, and
 * `seen` of a stream is what the host waited for. So a missing wait is found whether or not the
 * work happens to be done: in every mode, and in every run. What one thread of the host waited for
 * counts for all of them, because how they talk to each other cannot be seen here.
 */
#include "core.h"

#include <stdlib.h>

static bool settled(const Tick *tick) {
    return tick->stream->object.serial != tick->serial || tick->turn <= tick->stream->seen;
}

static void clock_raise(Clock *clock, const Tick *tick) {
    int kept = 0;
    bool found = false;
    for (int i = 0; i < clock->count; i++) {
        Tick old = clock->at[i];
        if (old.stream == tick->stream && old.serial == tick->serial) {
            if (tick->turn > old.turn) old.turn = tick->turn;
            found = true;
        }
        if (!settled(&old)) clock->at[kept++] = old;
    }
    clock->count = kept;
    if (found || settled(tick)) return;
    clock->at = realloc(clock->at, (size_t)(kept + 1) * sizeof *clock->at);
    clock->at[clock->count++] = *tick;
}

static void clock_merge(Clock *clock, const Clock *other) {
    for (int i = 0; i < other->count; i++) clock_raise(clock, &other->at[i]);
}

static Tick here(Stream *stream, uint64_t turn) {
    return (Tick){ stream, stream->object.serial, turn };
}

static bool before(const Tick *earlier, const Stream *stream) {
    if (settled(earlier) || earlier->stream == stream) return true;
    for (int i = 0; i < stream->known.count; i++) {
        const Tick *tick = &stream->known.at[i];
        if (tick->stream == earlier->stream && tick->serial == earlier->serial)
            return earlier->turn <= tick->turn;
    }
    return false;
}

/* The mark is at this turn of the stream. */
void order_mark(Mark *mark, Stream *stream, uint64_t turn) {
    Tick tick = here(stream, turn);
    clock_merge(&mark->clock, &stream->known);
    clock_raise(&mark->clock, &tick);
}

void order_wait(Stream *stream, const Mark *mark) { clock_merge(&stream->known, &mark->clock); }

/* The host knows that the mark has been reached. */
void order_seen(const Mark *mark) {
    for (int i = 0; i < mark->clock.count; i++) {
        const Tick *tick = &mark->clock.at[i];
        if (!settled(tick)) tick->stream->seen = tick->turn;
    }
}

/* The host knows that the stream's work is done up to this turn. */
void order_seen_stream(Stream *stream, uint64_t turn) {
    Mark mark = { .refs = 1 };
    order_mark(&mark, stream, turn);
    order_seen(&mark);
    free(mark.clock.at);
}

bool ranges_clash(const Range *one, const Range *other) {
    return (one->write || other->write) && one->address < other->address + other->size
           && other->address < one->address + one->size;
}

static bool covers(const Range *late, const Range *early) {
    return early->address >= late->address
           && early->address + early->size <= late->address + late->size
           && (late->write || !early->write);
}

/* Reports a use that clashes with an earlier one; `stream` NULL: it runs within the call. */
static bool use(const Range *range, Stream *stream, uint64_t turn) {
    Block *block = block_at(range->address);
    if (range->pageable || !block || block->state != LIVE) return false;
    int kept = 0;
    bool clash = false;
    for (int i = 0; i < block->uses; i++) {
        const Use old = block->use[i];
        if (settled(&old.tick)) continue;
        bool ordered = stream && before(&old.tick, stream);
        if (!ordered && ranges_clash(range, &old.range) && !clash) {
            violation("race: %s %zu bytes at %#lx, which stream no. %lu may still %s, for nothing "
                      "waits for it",
                      range->write ? "writes" : "reads", range->size, range->address,
                      old.tick.serial, old.range.write ? "write" : "read");
            clash = true;
        }
        if (!(ordered && covers(range, &old.range))) block->use[kept++] = old;
    }
    block->uses = kept;
    if (!stream) return clash;
    if (kept == block->use_room)
        block->use =
            realloc(block->use, (size_t)(block->use_room = 2 * kept + 4) * sizeof *block->use);
    block->use[block->uses++] = (Use){ *range, here(stream, turn) };
    return clash;
}

/* A piece of work was given this turn; `stream` NULL: it runs within the call. */
void order_work(Op *op, Stream *stream, uint64_t turn) {
    if (op->work == WAIT) order_wait(stream, op->mark);
    if (op->mark && op->work != WAIT) order_mark(op->mark, stream, turn);
    if (stream && op->work != WAIT && op->work != RECORD) stream->used = turn;
    bool clash = false;
    Range *range = op_ranges(op);
    for (int i = 0; i < op->ranges && !clash; i++) clash = use(&range[i], stream, turn);
    for (int n = 0; op->exec && n < op->exec->nodes.count; n++) {
        Op *node = &op->exec->nodes.at[n]->op;
        range = op_ranges(node);
        for (int i = 0; i < node->ranges && !clash; i++) clash = use(&range[i], stream, turn);
    }
}

/* Whether the host has not waited for all the work that used it. */
bool order_in_use(const Block *block) {
    for (int i = 0; i < block->uses; i++)
        if (!settled(&block->use[i].tick)) return true;
    return false;
}
