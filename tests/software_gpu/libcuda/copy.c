/* Copies and fills: checked when they are asked for, and once more when they run. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

static Call pageable = { "pageable", 0, 0, 0 };

typedef enum { ANY, HOST, DEVICE } Side;

/* Looks at one end of a copy. Host memory that the driver does not know is pageable. */
static Result end_of_copy(Range *range, Side side, const char *what) {
    Block *block = block_at(range->address);
    if (side != DEVICE && !block && range->address) {
        range->pageable = true;
        return OK;
    }
    Result bad = check_range(range, what);
    if (bad) return bad;
    bool host = block->kind == PINNED_MEMORY || block->kind == REGISTERED_MEMORY;
    if (side == HOST && block->kind == DEVICE_MEMORY) {
        violation("%s %#lx is device memory, where host memory is wanted", what, range->address);
        return INVALID_VALUE;
    }
    if (!host && block->context != current()) {
        violation("%s %#lx is memory of another context", what, range->address);
        return INVALID_VALUE;
    }
    return OK;
}

static bool on_device(const Range *range) {
    Block *block = block_at(range->address);
    return block && (block->kind == DEVICE_MEMORY || block->kind == MANAGED_MEMORY);
}

static Result copy(Address target, Side to, Address source, Side from, size_t size, Stream *stream,
                   bool wait) {
    Op op = { .work = COPY, .ranges = 2 };
    op.own[0] = (Range){ .address = target, .size = size, .write = true };
    op.own[1] = (Range){ .address = source, .size = size };
    if (!size) return OK;
    Result bad = end_of_copy(&op.own[0], to, "target");
    if (!bad) bad = end_of_copy(&op.own[1], from, "source");
    if (bad) return bad;
    bool into = on_device(&op.own[0]), out = on_device(&op.own[1]);
    op.engine = into && out ? COMPUTE : into ? H2D : D2H;
    if (wait) return op_run_now(&op, current());
    if (op.own[0].pageable || op.own[1].pageable) count_call(&pageable);
    bad = check_stream(stream);
    if (bad) return bad;
    bool now_or_captured = default_stream(stream) || stream->capture;
    if (op.own[1].pageable
        && !now_or_captured) { /* the driver has staged it when the call returns */
        op.staged = malloc(size);
        memcpy(op.staged, (void *)source, size);
    }
    bool blocks = op.own[0].pageable && !now_or_captured;
    bad = submit(stream, &op);
    if (!bad && blocks) {
        wait_turn(stream, stream->queued, true);
        bad = current() ? current()->error : OK;
    }
    return bad;
}

static Result set(Address target, unsigned value, unsigned width, size_t count, Stream *stream,
                  bool wait) {
    Op op = { .work = FILL, .engine = COMPUTE, .ranges = 1, .value = value, .width = width };
    if (!count) return OK;
    if (count > SIZE_MAX / width || target % width) return INVALID_VALUE;
    op.own[0] = (Range){ .address = target, .size = count * width, .write = true };
    Result bad = end_of_copy(&op.own[0], DEVICE, "target");
    if (bad) return bad;
    return wait ? op_run_now(&op, current()) : submit(stream, &op);
}

static Result at_once(void) {
    violation("waits, and uses the default stream");
    return OK;
}

ENTRY(UNSAFE_IN_CAPTURE, cuMemcpyHtoD_v2, (Address to, const void *from, size_t n), (to, from, n)) {
    at_once();
    return copy(to, DEVICE, (Address)from, HOST, n, NULL, true);
}
ENTRY(UNSAFE_IN_CAPTURE, cuMemcpyDtoH_v2, (void *to, Address from, size_t n), (to, from, n)) {
    at_once();
    return copy((Address)to, HOST, from, DEVICE, n, NULL, true);
}
ENTRY(UNSAFE_IN_CAPTURE, cuMemcpyDtoD_v2, (Address to, Address from, size_t n), (to, from, n)) {
    at_once();
    return copy(to, DEVICE, from, DEVICE, n, NULL, true);
}
ENTRY(UNSAFE_IN_CAPTURE, cuMemcpy, (Address to, Address from, size_t n), (to, from, n)) {
    at_once();
    return copy(to, ANY, from, ANY, n, NULL, true);
}
ENTRY(IN_CONTEXT, cuMemcpyHtoDAsync_v2, (Address to, const void *from, size_t n, Stream *s),
      (to, from, n, s)) {
    return copy(to, DEVICE, (Address)from, HOST, n, s, false);
}
ENTRY(IN_CONTEXT, cuMemcpyDtoHAsync_v2, (void *to, Address from, size_t n, Stream *s),
      (to, from, n, s)) {
    return copy((Address)to, HOST, from, DEVICE, n, s, false);
}
ENTRY(IN_CONTEXT, cuMemcpyDtoDAsync_v2, (Address to, Address from, size_t n, Stream *s),
      (to, from, n, s)) {
    return copy(to, DEVICE, from, DEVICE, n, s, false);
}
ENTRY(IN_CONTEXT, cuMemcpyAsync, (Address to, Address from, size_t n, Stream *s),
      (to, from, n, s)) {
    return copy(to, ANY, from, ANY, n, s, false);
}
#define FILLS(bits, type) \
    ENTRY(UNSAFE_IN_CAPTURE, cuMemsetD##bits##_v2, (Address to, type value, size_t n), \
          (to, value, n)) { \
        at_once(); \
        return set(to, value, bits / 8, n, NULL, true); \
    } \
    ENTRY(IN_CONTEXT, cuMemsetD##bits##Async, (Address to, type value, size_t n, Stream *s), \
          (to, value, n, s)) { \
        return set(to, value, bits / 8, n, s, false); \
    }
FILLS(8, unsigned char)
FILLS(16, unsigned short)
FILLS(32, unsigned)
