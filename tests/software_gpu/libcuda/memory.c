/* Memory: filled with garbage when handed out, poisoned and kept back when freed. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 512, GUARD = 64, POISON = 0xDB, FENCE = 0xFD };
static const size_t WHOLE = 64u << 20,
                    ENDS = 8u << 20; /* of larger blocks only the ends are filled */
static const size_t KEPT_BYTES = 256u << 20;
enum { KEPT = 4096 };

static Block **sorted; /* live and quarantined, by address */
static int blocks, room;
static Block *kept, *kept_last;
static size_t kept_bytes;
static int kept_count;
static size_t used;
static uint64_t seed = 88172645463325252u;

uint64_t random_next(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static int below(Address address) { /* how many blocks start at or before it */
    int low = 0, high = blocks;
    while (low < high) {
        int middle = (low + high) / 2;
        if (sorted[middle]->start <= address) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The block, live or not, that `address` is in; NULL if it is in none. */
Block *block_at(Address address) {
    int place = below(address);
    if (!place) return NULL;
    Block *block = sorted[place - 1];
    return address - block->start < block->size ? block : NULL;
}

static void insert(Block *block) {
    if (blocks == room) sorted = realloc(sorted, (size_t)(room = room * 2 + 64) * sizeof *sorted);
    int place = below(block->start);
    memmove(sorted + place + 1, sorted + place, (size_t)(blocks - place) * sizeof *sorted);
    sorted[place] = block;
    blocks++;
}

static void erase(Block *block) {
    int place = below(block->start) - 1;
    blocks--;
    memmove(sorted + place, sorted + place + 1, (size_t)(blocks - place) * sizeof *sorted);
}

static bool counted(const Block *block) {
    if (block->kind == REGISTERED_MEMORY) return false;
    return block->kind != PINNED_MEMORY || settings.integrated;
}

static void fill(Block *block, bool poison) {
    uint64_t pattern = random_next();
    if (poison) memset(&pattern, POISON, sizeof pattern);
    char *start = (char *)block->start;
    for (size_t at = 0; at < block->size; at += sizeof pattern) {
        if (block->size > WHOLE && at == ENDS) at = (block->size - ENDS) & ~(size_t)7;
        size_t n = block->size - at < sizeof pattern ? block->size - at : sizeof pattern;
        memcpy(start + at, &pattern, n);
    }
}

static Result allocate(Address *out, size_t size, MemoryKind kind, unsigned flags) {
    if (!out || !size) return INVALID_VALUE;
    Block *block = calloc(1, sizeof *block);
    *block =
        (Block){ .size = size, .kind = kind, .state = LIVE, .flags = flags, .context = current() };
    bool counts = counted(block);
    if (counts && (size > settings.memory || used > settings.memory - size)) {
        free(block);
        return OUT_OF_MEMORY;
    }
    size_t whole = (size + GUARD + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    block->base = aligned_alloc(ALIGNMENT, whole);
    if (!block->base) {
        free(block);
        return OUT_OF_MEMORY;
    }
    block->start = (Address)block->base;
    block->serial = next_serial();
    if (counts) used += size;
    fill(block, false);
    memset((char *)block->base + size, FENCE, GUARD);
    insert(block);
    *out = block->start;
    return OK;
}

static void evict(void) {
    while (kept && (kept_count > KEPT || kept_bytes > KEPT_BYTES) && !kept->pending) {
        Block *block = kept;
        kept = block->next;
        if (!kept) kept_last = NULL;
        kept_count--;
        kept_bytes -= block->size;
        erase(block);
        free(block->base);
        free(block->use);
        free(block);
    }
}

static const char *memory_name(const Block *block) {
    static const char *names[] = { "device", "pinned", "registered", "managed" };
    return names[block->kind];
}

static void end_block(Block *block, State state) {
    if (counted(block)) used -= block->size;
    block->state = state;
    if (block->kind == REGISTERED_MEMORY) { /* its bytes belong to the caller */
        erase(block);
        if (block->pending) return;
        free(block->use);
        free(block);
        return;
    }
    for (int i = 0; i < GUARD; i++)
        if (((unsigned char *)block->base)[block->size + (size_t)i] != FENCE) {
            violation("%s memory of %zu bytes was written beyond its end", memory_name(block),
                      block->size);
            break;
        }
    fill(block, true);
    if (kept_last) kept_last->next = block;
    else kept = block;
    kept_last = block;
    kept_count++;
    kept_bytes += block->size;
    evict();
}

static Result release(Address address, bool host) {
    Block *block = block_at(address);
    if (!block || block->start != address || (block->kind == PINNED_MEMORY) != host
        || block->kind == REGISTERED_MEMORY) {
        violation("%#lx is no such memory", address);
        return INVALID_VALUE;
    }
    if (block->state == LOST) return CONTEXT_DESTROYED;
    if (block->state != LIVE) {
        violation("%s memory %#lx is freed twice", memory_name(block), address);
        return INVALID_VALUE;
    }
    if (block->context != current() && !host) {
        violation("device memory is freed in a context that is not its own");
        return INVALID_CONTEXT;
    }
    if (block->pending || order_in_use(block))
        violation("%s memory of %zu bytes is freed while work that uses it is pending",
                  memory_name(block), block->size);
    end_block(block, DESTROYED);
    return OK;
}

void blocks_leave(Context *context, State state) {
    for (int i = blocks - 1; i >= 0; i--) {
        Block *block = i < blocks ? sorted[i] : NULL;
        if (block && block->state == LIVE && block->context == context) end_block(block, state);
    }
}

int blocks_live(Context *context) {
    int count = 0;
    for (int i = 0; i < blocks; i++)
        count += sorted[i]->state == LIVE && sorted[i]->context == context;
    return count;
}

void blocks_write(void) {
    for (int i = 0; i < blocks; i++)
        if (sorted[i]->state == LIVE && !sorted[i]->context->error)
            line("%s memory %zu bytes at %#lx (no. %lu)", memory_name(sorted[i]), sorted[i]->size,
                 sorted[i]->start, sorted[i]->serial);
}

/* OK if the range is inside of one live block that the current context may use. */
Result check_range(const Range *range, const char *what) {
    Block *block = range->block ? range->block : block_at(range->address);
    if (!block) {
        violation("%s %#lx (%zu bytes) is not memory of the GPU", what, range->address,
                  range->size);
        return INVALID_VALUE;
    }
    if (block->state != LIVE) {
        violation("%s %#lx is %s memory that was freed", what, range->address, memory_name(block));
        return INVALID_VALUE;
    }
    if (range->serial && range->serial != block->serial) {
        violation("%s %#lx was freed and allocated anew since the graph was captured", what,
                  range->address);
        return INVALID_VALUE;
    }
    size_t before = range->address - block->start;
    if (before > block->size || range->size > block->size - before) {
        violation("%s of %zu bytes at offset %zu leaves its %s memory of %zu bytes", what,
                  range->size, before, memory_name(block), block->size);
        return INVALID_VALUE;
    }
    return OK;
}

ENTRY(UNSAFE_IN_CAPTURE, cuMemAlloc_v2, (Address *out, size_t size), (out, size)) {
    return allocate(out, size, DEVICE_MEMORY, 0);
}
ENTRY(UNSAFE_IN_CAPTURE, cuMemAllocManaged, (Address *out, size_t size, unsigned flags),
      (out, size, flags)) {
    return flags != 1 && flags != 2 ? INVALID_VALUE : allocate(out, size, MANAGED_MEMORY, flags);
}
ENTRY(UNSAFE_IN_CAPTURE, cuMemHostAlloc, (void **out, size_t size, unsigned flags),
      (out, size, flags)) {
    return flags & ~7u ? INVALID_VALUE : allocate((Address *)out, size, PINNED_MEMORY, flags);
}
ENTRY(UNSAFE_IN_CAPTURE, cuMemAllocHost_v2, (void **out, size_t size), (out, size)) {
    return allocate((Address *)out, size, PINNED_MEMORY, 0);
}
ENTRY(UNSAFE_IN_CAPTURE, cuMemFree_v2, (Address address), (address)) {
    return address ? release(address, false) : OK;
}
ENTRY(UNSAFE_IN_CAPTURE, cuMemFreeHost, (void *address), (address)) {
    return address ? release((Address)address, true) : INVALID_VALUE;
}
ENTRY(IN_CONTEXT, cuMemGetInfo_v2, (size_t *unused, size_t *total), (unused, total)) {
    if (!unused || !total) return INVALID_VALUE;
    *total = settings.memory;
    *unused = settings.memory > used ? settings.memory - used : 0;
    return OK;
}
ENTRY(IN_CONTEXT, cuMemHostRegister_v2, (void *start, size_t size, unsigned flags),
      (start, size, flags)) {
    if (!start || !size || flags & ~15u) return INVALID_VALUE;
    if (block_at((Address)start) || block_at((Address)start + size - 1)) return ALREADY_REGISTERED;
    Block *block = calloc(1, sizeof *block);
    *block = (Block){ .start = (Address)start,
                      .size = size,
                      .kind = REGISTERED_MEMORY,
                      .state = LIVE,
                      .flags = flags,
                      .serial = next_serial(),
                      .context = current() };
    insert(block);
    return OK;
}
ENTRY(IN_CONTEXT, cuMemHostUnregister, (void *start), (start)) {
    Block *block = block_at((Address)start);
    if (!block || block->start != (Address)start || block->kind != REGISTERED_MEMORY)
        return NOT_REGISTERED;
    if (block->pending) violation("host memory is unregistered while work that uses it is pending");
    end_block(block, DESTROYED);
    return OK;
}
