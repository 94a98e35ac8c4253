/* Streams' queues: who runs which piece of work when, and waiting for it.
 *
 * late and timed: each stream has a thread that runs its work in order. lazy: the thread that waits
 * runs what it waits for, and no more. Waiting spins a little first: the work may be short.
 */
#include "core.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/prctl.h>

enum { SPINS = 200, PAUSES = 16 }; /* some tens of microseconds */
pthread_cond_t progress = PTHREAD_COND_INITIALIZER;
static int sleepers;      /* threads asleep on `progress` */
static int idle_spinners; /* workers that spin: one at most, for there are few cores */
static Stream *started;
static bool dropping;

/* A moment of waiting. It lets others run: the work may need this very core. */
static void relax(void) {
    for (int i = 0; i < PAUSES; i++) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#else
        __asm__ volatile("" ::: "memory");
#endif
    }
    sched_yield();
}

static void await_progress(void) {
    sleepers++;
    pthread_cond_wait(&progress, &the_lock);
    sleepers--;
}

static void tell_progress(void) {
    if (sleepers) pthread_cond_broadcast(&progress);
}

void wake_workers(void) {
    tell_progress();
    for (Stream *stream = started; stream; stream = stream->next_started)
        if (stream->sleeping) pthread_cond_signal(&stream->wake);
}

void forget_workers(void) { started = NULL; }

static bool dead(const Stream *stream) { return dropping || stream->object.context->error; }

static bool held_up(const Stream *stream) {
    const Op *op = &stream->head->op;
    return op->work == WAIT && !op->mark->done && !dead(stream);
}

static int64_t later(int64_t one, int64_t other) { return one > other ? one : other; }

/* The stream's next piece to be given a time, if it is for that engine, and when it is ready. */
static Item *next_for(const Stream *stream, Engine engine, int64_t *ready) {
    *ready = stream->ready;
    for (Item *item = stream->head; item; item = item->next) {
        *ready = later(*ready, item->queued);
        if (item->planned) {
            *ready = item->slot.end;
        } else if (item->op.work == WAIT) {
            if (!item->op.mark->done) return NULL;
            *ready = later(*ready, item->op.mark->time);
        } else if (item->op.engine != NO_ENGINE || item->op.work == GRAPH_RUN) {
            return item->op.engine == engine ? item : NULL;
        }
    }
    return NULL;
}

/* Engines take what is ready first, whichever thread comes first. */
static void plan_up_to(Item *item) {
    while (!item->planned) {
        Item *first = NULL;
        int64_t ready, earliest = INT64_MAX;
        for (Stream *stream = started; stream; stream = stream->next_started) {
            Item *next = next_for(stream, item->op.engine, &ready);
            if (!next || ready > earliest) continue;
            if (first && ready == earliest && next->queued > first->queued) continue;
            first = next;
            earliest = ready;
        }
        first->slot = plan(&first->op, earliest);
        first->planned = true;
    }
}

static Result run_timed(Stream *stream, Item *item) {
    Op *op = &item->op;
    Context *context = stream->object.context;
    int64_t ready = later(stream->ready, item->queued);
    Result result = OK;
    if (op->work == WAIT) {
        stream->ready = later(ready, op->mark->time);
        return OK;
    }
    if (op->engine == NO_ENGINE && op->work != GRAPH_RUN) {
        stream->ready = ready;
        return op_run(op, context);
    }
    if (op->work == GRAPH_RUN) {
        stream->ready = graph_run(op->exec, context, ready, &result);
        return result;
    }
    plan_up_to(item);
    Slot slot = item->slot;
    sleep_until(op->work == KERNEL ? slot.start : slot.end - moving_ns(op));
    result = op_run(op, context);
    sleep_until(slot.end);
    stream->ready = slot.end;
    return result;
}

static Result run_untimed(Stream *stream, Op *op) {
    if (settings.mode == LATE && op->engine != NO_ENGINE) sleep_lag();
    return dead(stream) ? OK : op_run(op, stream->object.context);
}

/* Runs the first piece of the queue and takes it off. */
static void execute(Stream *stream) {
    Item *item = stream->head;
    Op *op = &item->op;
    stream->running = true;
    Result result = OK;
    bool timed = settings.mode == TIMED;
    if (!dead(stream)) result = timed ? run_timed(stream, item) : run_untimed(stream, op);
    if (result) context_fail(stream->object.context, result);
    op_unpin(op);
    if (op->work == RECORD) { /* also in a broken context: nobody may wait for ever */
        op->mark->time = timed ? stream->ready : now();
        __atomic_store_n(&op->mark->done, true, __ATOMIC_RELEASE);
    }
    Item *next = item->next;
    if (!next) stream->tail = NULL;
    __atomic_store_n(&stream->head, next, __ATOMIC_RELEASE);
    __atomic_store_n(&stream->done, item->turn, __ATOMIC_RELEASE);
    stream->running = false;
    stream->object.pending--;
    op_free(op);
    free(item);
    tell_progress();
    if (stream->sleeping) pthread_cond_signal(&stream->wake);
}

static void rest(Stream *stream) {
    if (settings.mode != LAZY && !idle_spinners) {
        idle_spinners++;
        unlock();
        for (int i = 0; i < SPINS && !__atomic_load_n(&stream->head, __ATOMIC_ACQUIRE); i++)
            relax();
        lock();
        idle_spinners--;
        if (stream->head) return;
    }
    if (!stream->head && stream->object.state != LIVE) return; /* its thread is to end */
    stream->sleeping = true;
    pthread_cond_wait(&stream->wake, &the_lock);
    stream->sleeping = false;
}

static void *work(void *argument) {
    Stream *stream = argument;
    prctl(PR_SET_TIMERSLACK, 1UL);
    lock();
    for (;;) {
        bool mine = stream->head && !stream->running && (settings.mode != LAZY || dropping);
        if (mine && held_up(stream)) await_progress();
        else if (mine) execute(stream);
        else if (!stream->head && stream->object.state != LIVE) break;
        else rest(stream);
    }
    for (Stream **link = &started; *link; link = &(*link)->next_started)
        if (*link == stream) {
            *link = stream->next_started;
            break;
        }
    stream->object.pending--;
    unlock();
    return NULL;
}

void stream_start(Stream *stream) {
    pthread_t thread;
    pthread_cond_init(&stream->wake, NULL);
    stream->next_started = started;
    started = stream;
    stream->object.pending++;
    if (pthread_create(&thread, NULL, work, stream)) abort();
    pthread_detach(thread);
}

bool default_stream(const void *stream) { return (uintptr_t)stream <= 2; }

Result check_stream(Stream *stream) {
    return default_stream(stream) ? OK : check_handle(stream, STREAM, false);
}

/* Hands a piece of work to a stream, or to the graph that it captures. Takes what `op` owns. */
Result submit(Stream *stream, Op *op) {
    if (default_stream(stream)) {
        violation("uses the default stream");
        return op_run_now(op, current());
    }
    Result bad = check_stream(stream);
    if (!bad && stream->capture) return capture_op(stream, op);
    if (bad) {
        op_free(op);
        return bad;
    }
    Item *item = malloc(sizeof *item);
    *item = (Item){ .op = *op, .stream = stream, .turn = ++stream->queued, .queued = now() };
    order_work(&item->op, stream, item->turn);
    op_pin(&item->op);
    stream->object.pending++;
    if (stream->tail) stream->tail->next = item;
    else __atomic_store_n(&stream->head, item, __ATOMIC_RELEASE);
    stream->tail = item;
    if (stream->sleeping && settings.mode != LAZY) pthread_cond_signal(&stream->wake);
    return OK;
}

static bool reached(Stream *stream, uint64_t turn, Mark *mark) {
    return mark ? __atomic_load_n(&mark->done, __ATOMIC_ACQUIRE)
                : __atomic_load_n(&stream->done, __ATOMIC_ACQUIRE) >= turn;
}

/* The stream whose first piece has to run for the first of `stream` to run. */
static Stream *first_needed(Stream *stream) {
    while (!stream->running && held_up(stream)) stream = stream->head->op.mark->stream;
    return stream;
}

static void await(Stream *stream, uint64_t turn, Mark *mark, bool spin) {
    while (!reached(stream, turn, mark)) {
        if (settings.mode == LAZY) {
            Stream *first = first_needed(stream);
            if (first->running) await_progress();
            else execute(first);
            continue;
        }
        if (spin) {
            unlock();
            for (int i = 0; i < SPINS && !reached(stream, turn, mark); i++) relax();
            lock();
            spin = false;
            continue;
        }
        await_progress();
    }
}

void wait_turn(Stream *stream, uint64_t turn, bool spin) {
    await(stream, turn, NULL, spin);
    order_seen_stream(stream, turn);
}

void wait_mark(Mark *mark, bool spin) {
    mark_keep(mark);
    await(mark->stream, 0, mark, spin);
    order_seen(mark);
    mark_drop(mark);
}

/* What a query does in lazy mode. It never waits. */
void run_one(Stream *stream) {
    if (settings.mode != LAZY || !stream->head) return;
    Stream *first = first_needed(stream);
    if (!first->running) execute(first);
}

static Stream *busy(Context *context) {
    for (Stream *stream = started; stream; stream = stream->next_started)
        if (stream->head && (!context || stream->object.context == context)) return stream;
    return NULL;
}

bool idle(Context *context) { return !busy(context); }

void wait_all(Context *context) {
    for (Stream *stream; (stream = busy(context));) wait_turn(stream, stream->queued, true);
    for (Stream *stream = started; stream; stream = stream->next_started)
        if (stream->object.context == context) order_seen_stream(stream, stream->queued);
}

/* What is still pending ends without having run. */
void drop_pending(void) {
    dropping = true;
    wake_workers();
    while (!idle(NULL)) await_progress();
    dropping = false;
}
