/* What the parts of the software GPU share: types, the one lock, and what each part offers.
 *
 * All state is guarded by one mutex, held from `enter` to `leave` of every driver call. It is let
 * go while waiting and while a piece of work (a large copy, a kernel, a host function) runs, so a
 * kernel may take other locks, Python's among them. Freeing and destroying never wait for work.
 */
#ifndef CORE_H
#define CORE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int Result;
typedef uint64_t Address;

enum {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    PRIMARY_ACTIVE = 708,
    CONTEXT_DESTROYED = 709,
    ALREADY_REGISTERED = 712,
    NOT_REGISTERED = 713,
    LAUNCH_FAILED = 719,
    NOT_PERMITTED = 800,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_MERGE = 902,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
    UPDATE_FAILURE = 910
};

/* Objects: everything that the driver hands out as a handle. Slots are never unmapped, so any value
 * can be tested for being a handle; a destroyed object's slot is used again only much later. */
typedef enum { NO_KIND, CONTEXT, STREAM, EVENT, GRAPH, GRAPH_EXEC, NODE } Kind;
typedef enum { UNUSED, LIVE, DESTROYED, LOST } State; /* LOST: went with its context or device. */

typedef struct Context Context;
typedef struct Object {
    Kind kind;
    State state;
    uint64_t serial;
    Context *context;
    int pending;                    /* pieces of unfinished work that use it */
    struct Object *next, *previous; /* of those in use */
} Object;

struct Context {
    Object object;
    bool primary;
    int refs;
    unsigned flags;
    Result error;
};

typedef enum { DEVICE_MEMORY, PINNED_MEMORY, REGISTERED_MEMORY, MANAGED_MEMORY } MemoryKind;
typedef struct Range {
    Address address;
    size_t size;
    struct Block *block; /* NULL: not looked up yet, or pageable */
    uint64_t serial;     /* of the block */
    bool write, pageable;
} Range;

typedef struct Stream Stream;
typedef struct Tick {
    Stream *stream;
    uint64_t serial, turn;
} Tick; /* a place in a stream's work */
typedef struct Clock {
    Tick *at;
    int count;
} Clock;
typedef struct Use {
    Range range;
    Tick tick;
} Use;

typedef struct Block {
    Address start;
    size_t size;
    MemoryKind kind;
    State state;
    unsigned flags;
    uint64_t serial;
    Context *context;
    int pending;
    void *base; /* what malloc gave */
    Use *use;   /* by work that the host has not waited for */
    int uses, use_room;
    struct Block *next; /* in quarantine */
} Block;

/* One piece of work: an item of a stream's queue, or a node of a graph. */
typedef enum { COPY, FILL, KERNEL, HOST_CALL, RECORD, WAIT, GRAPH_RUN } Work;
typedef enum { NO_ENGINE = -1, H2D, D2H, COMPUTE, ENGINES } Engine;
typedef struct Event Event;
typedef struct Exec Exec;
typedef void (*Function)(void *);

/* A point in a stream's work. An event refers to its latest one, a wait to the one it found. */
typedef struct Mark {
    int refs;
    bool done;
    int64_t time;
    Stream *stream;
    Clock clock;
} Mark;

typedef struct Op {
    Work work;
    Engine engine;
    int ranges;
    Range *range, own[2]; /* COPY: target, source; FILL: target; KERNEL: reads, then writes */
    unsigned value, width, alignment;
    Function function;
    void *argument, *staged;
    double seconds;
    Mark *mark;
    Event *event;
    Exec *exec;
} Op;

typedef struct Slot {
    int64_t start, end;
} Slot; /* by the time model */
typedef struct Item {
    Op op;
    Stream *stream;
    uint64_t turn;
    int64_t queued;
    Slot slot;
    bool planned;
    struct Item *next;
} Item;

typedef struct Capture Capture;
typedef struct Node Node;
typedef struct Nodes {
    Node **at;
    int count;
} Nodes;
struct Node {
    Object object;
    Op op;
    Nodes needs;
    int index;
};
typedef struct Graph {
    Object object;
    Nodes nodes;
} Graph;
struct Exec {
    Object object;
    Nodes nodes;
    Mark *last;
};

struct Stream {
    Object object;
    unsigned flags;
    int priority;
    Item *head, *tail;
    uint64_t queued, done; /* turns given out, turns finished */
    uint64_t seen;         /* the turn up to which the host has waited */
    uint64_t used;         /* the turn of the latest work that is more than an event */
    Clock known;           /* what comes before its next piece of work */
    bool running, sleeping;
    int64_t ready; /* when its latest work ended, by the time model */
    pthread_cond_t wake;
    Capture *capture;
    Nodes frontier; /* while capturing: what the next node depends on */
    Stream *next_started;
};

struct Event {
    Object object;
    unsigned flags;
    Mark *mark;
    uint64_t capture; /* the capture it was last recorded in */
    Nodes frontier;
};

typedef enum { LAZY, LATE, TIMED } Mode;
typedef struct Settings {
    Mode mode;
    int64_t lag_ns;
    double h2d_bytes_per_ns, d2h_bytes_per_ns, launch_ns, copy_ns;
    uint64_t memory;
    char name[128];
    int major, minor, integrated, version;
} Settings;

extern pthread_mutex_t the_lock;
extern pthread_cond_t progress; /* some work ended, or a mode changed */
extern Settings settings;
extern Result lost; /* the device is gone: what every call says */

/* entry.c: the frame of every driver call */
typedef struct Call {
    const char *name;
    long count;
    int registered;
    struct Call *next;
} Call;
enum { ANYTIME, INITIALISED, IN_CONTEXT, STACK_ONLY, UNSAFE_IN_CAPTURE };
Result enter(Call *call, int needs);
Result leave(Result result);
const char *current_call(void);
const char *during(const char *what);
void in_host_function(bool inside);
void count_call(Call *call);
Result initialise(void);
void calls_forget(void);
void calls_write(void);
#define ENTRY(needs, name, parameters, arguments) \
    static Result name##_body parameters; \
    __attribute__((visibility("default"))) Result name parameters { \
        static Call call = { #name, 0, 0, 0 }; \
        Result result = enter(&call, needs); \
        return leave(result ? result : name##_body arguments); \
    } \
    static Result name##_body parameters
#define EXPORT __attribute__((visibility("default")))

/* faults.c: injected errors */
Result fault_of(const char *call);
Result fault_of_kernel(void);
void faults_forget(void);

/* report.c: broken rules, and text handed to Python */
void violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
void line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* object.c */
void *object_new(Kind kind, Context *context, size_t size);
void object_end(Object *object, State state);
Object *objects(void);
uint64_t next_serial(void);
Result check_handle(const void *handle, Kind kind, bool foreign);
void objects_leave(Context *context, State state);
const char *kind_name(Kind kind);

/* context.c */
Context *current(void);
Result check_current(void);
void context_fail(Context *context, Result error);
void contexts_forget_errors(void);
void stacks_write(void);

/* memory.c */
Block *block_at(Address address);
Block *block_of(Address address, size_t size);
void blocks_leave(Context *context, State state);
void blocks_write(void);
int blocks_live(Context *context);
uint64_t random_next(void);
Result check_range(const Range *range, const char *what);

/* work.c: a piece of work, checked, run and dropped */
void op_pin(Op *op);
void op_unpin(Op *op);
Op op_clone(const Op *op);
void op_free(Op *op);
Result op_run(Op *op, Context *context);
Result op_run_now(Op *op, Context *context);
Range *op_ranges(Op *op);
Mark *mark_new(Stream *stream);
Mark *mark_keep(Mark *mark);
void mark_drop(Mark *mark);

/* order.c */
void order_work(Op *op, Stream *stream, uint64_t turn);
void order_seen(const Mark *mark);
void order_seen_stream(Stream *stream, uint64_t turn);
bool order_in_use(const Block *block);
bool ranges_clash(const Range *one, const Range *other);

/* scheduler.c */
Result submit(Stream *stream, Op *op);
void stream_start(Stream *stream);
void wait_turn(Stream *stream, uint64_t turn, bool spin);
void wait_mark(Mark *mark, bool spin);
void run_one(Stream *stream);
void wait_all(Context *context);
bool idle(Context *context);
void drop_pending(void);
void wake_workers(void);
void forget_workers(void);
bool default_stream(const void *stream);
Result check_stream(Stream *stream);

/* timing.c */
int64_t now(void);
void sleep_until(int64_t when); /* lets go of the lock */
void sleep_lag(void);           /* lets go of the lock */
int64_t moving_ns(const Op *op);
Slot plan(const Op *op, int64_t ready);
void timing_forget(void);

/* capture.c, graph.c */
Result capture_op(Stream *stream, Op *op);
Result capture_record(Stream *stream, Event *event);
Result capture_wait(Stream *stream, Event *event);
Result capture_forbids(Stream *stream);
Result capture_unsafe(void);
Result capture_synchronises(Context *context);
void capture_left(Stream *stream);
void nodes_set(Nodes *to, const Nodes *from);
void nodes_add(Nodes *nodes, Node *node);
bool nodes_reach(const Nodes *from, const Node *node);
Graph *graph_new(Context *context);
Node *graph_add(Graph *graph, const Op *op, const Nodes *needs);
void graph_end(Graph *graph);
void graph_check(Graph *graph);
bool capture_owns(const Graph *graph);
int64_t graph_run(Exec *exec, Context *context, int64_t ready, Result *result);
void exec_pin(Exec *exec, int by);

void lock(void);
void unlock(void);

#endif
