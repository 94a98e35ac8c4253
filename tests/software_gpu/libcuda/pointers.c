/* Questions about addresses: what memory, which device, which context. */
#include "core.h"

static Block *live_at(Address address) {
    Block *block = block_at(address);
    return block && block->state == LIVE ? block : NULL;
}

static bool is_host(const Block *block) {
    return block->kind == PINNED_MEMORY || block->kind == REGISTERED_MEMORY;
}

static Result attribute(void *out, int which, Address address) {
    Block *block = live_at(address);
    if (!block) return INVALID_VALUE;
    switch (which) {
    case 1: *(Context **)out = block->context; return OK;
    case 2: *(unsigned *)out = is_host(block) ? 1 : 2; return OK; /* CU_MEMORYTYPE_HOST, _DEVICE */
    case 3: *(Address *)out = address; return OK;
    case 4:
        if (block->kind == DEVICE_MEMORY) return INVALID_VALUE;
        *(Address *)out = address;
        return OK;
    case 6: *(int *)out = 0; return OK;
    case 7: *(uint64_t *)out = block->serial; return OK;
    case 8: *(int *)out = block->kind == MANAGED_MEMORY; return OK;
    case 9: *(int *)out = 0; return OK;
    case 10: *(int *)out = 0; return OK;
    case 11: *(Address *)out = block->start; return OK;
    case 12: *(size_t *)out = block->size; return OK;
    case 13: *(int *)out = 1; return OK;
    default: return NOT_SUPPORTED;
    }
}

ENTRY(IN_CONTEXT, cuPointerGetAttribute, (void *out, int which, Address address),
      (out, which, address)) {
    return out ? attribute(out, which, address) : INVALID_VALUE;
}
ENTRY(IN_CONTEXT, cuPointerGetAttributes, (unsigned count, int *which, void **out, Address address),
      (count, which, out, address)) {
    if (!count || !which || !out) return INVALID_VALUE;
    for (unsigned i = 0; i < count; i++) { /* what cannot be answered is set to zero */
        if (!out[i]) return INVALID_VALUE;
        bool wide = which[i] == 1 || which[i] == 3 || which[i] == 4 || which[i] == 7
                    || which[i] == 11 || which[i] == 12;
        if (wide) *(uint64_t *)out[i] = 0;
        else *(int *)out[i] = which[i] == 9 ? -2 : 0;
        attribute(out[i], which[i], address);
    }
    return OK;
}
ENTRY(IN_CONTEXT, cuMemGetAddressRange_v2, (Address *start, size_t *size, Address address),
      (start, size, address)) {
    Block *block = live_at(address);
    if (!block) return NOT_FOUND;
    if (start) *start = block->start;
    if (size) *size = block->size;
    return OK;
}
ENTRY(IN_CONTEXT, cuMemHostGetDevicePointer_v2, (Address *out, void *host, unsigned flags),
      (out, host, flags)) {
    Block *block = live_at((Address)host);
    if (!out || flags || !block || !is_host(block)) return INVALID_VALUE;
    *out = (Address)host;
    return OK;
}
ENTRY(IN_CONTEXT, cuMemHostGetFlags, (unsigned *flags, void *host), (flags, host)) {
    Block *block = live_at((Address)host);
    if (!flags || !block || block->kind != PINNED_MEMORY) return INVALID_VALUE;
    *flags = block->flags;
    return OK;
}
