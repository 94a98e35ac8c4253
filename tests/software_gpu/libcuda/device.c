/* The driver, its one device, and the names of errors. */
#include "core.h"

#include <stdio.h>
#include <string.h>

Settings settings = { .mode = LATE,
                      .lag_ns = 100000,
                      .memory = 8ull << 30,
                      .name = "Software GPU",
                      .major = 8,
                      .minor = 7,
                      .integrated = 1,
                      .version = 12060 };

static const char *describe(Result code, bool name) {
    switch (code) {
#define RESULT(number, symbol, words) \
    case number: return name ? #symbol : words;
#include "results.h"
#undef RESULT
    default: return NULL;
    }
}

/* As the driver, these two answer without a context, and on a lost device. */
static Result give(Result code, const char **out, bool name) {
    if (!out) return INVALID_VALUE;
    *out = describe(code, name);
    if (*out) return OK;
    *out = "unrecognized error code";
    return INVALID_VALUE;
}
ENTRY(ANYTIME, cuGetErrorName, (Result code, const char **out), (code, out)) {
    return give(code, out, true);
}
ENTRY(ANYTIME, cuGetErrorString, (Result code, const char **out), (code, out)) {
    return give(code, out, false);
}

ENTRY(ANYTIME, cuInit, (unsigned flags), (flags)) {
    if (flags) return INVALID_VALUE;
    return initialise();
}
ENTRY(ANYTIME, cuDriverGetVersion, (int *version), (version)) {
    if (!version) return INVALID_VALUE;
    *version = settings.version;
    return OK;
}
ENTRY(INITIALISED, cuDeviceGetCount, (int *count), (count)) {
    if (!count) return INVALID_VALUE;
    *count = 1;
    return OK;
}
ENTRY(INITIALISED, cuDeviceGet, (int *device, int ordinal), (device, ordinal)) {
    if (!device) return INVALID_VALUE;
    if (ordinal) return INVALID_DEVICE;
    *device = 0;
    return OK;
}
ENTRY(INITIALISED, cuDeviceGetName, (char *out, int room, int device), (out, room, device)) {
    if (device) return INVALID_DEVICE;
    if (!out || room < 1) return INVALID_VALUE;
    snprintf(out, (size_t)room, "%s", settings.name);
    return OK;
}
ENTRY(INITIALISED, cuDeviceComputeCapability, (int *major, int *minor, int device),
      (major, minor, device)) {
    if (device) return INVALID_DEVICE;
    if (!major || !minor) return INVALID_VALUE;
    *major = settings.major;
    *minor = settings.minor;
    return OK;
}
ENTRY(INITIALISED, cuDeviceTotalMem_v2, (size_t *bytes, int device), (bytes, device)) {
    if (device) return INVALID_DEVICE;
    if (!bytes) return INVALID_VALUE;
    *bytes = settings.memory;
    return OK;
}
static Result uuid(char *out, int device) {
    if (device) return INVALID_DEVICE;
    if (!out) return INVALID_VALUE;
    memcpy(out, "software-gpu-000", 16);
    return OK;
}
ENTRY(INITIALISED, cuDeviceGetUuid, (char *out, int device), (out, device)) {
    return uuid(out, device);
}
ENTRY(INITIALISED, cuDeviceGetUuid_v2, (char *out, int device), (out, device)) {
    return uuid(out, device);
}
ENTRY(INITIALISED, cuDeviceGetPCIBusId, (char *out, int room, int device), (out, room, device)) {
    if (device) return INVALID_DEVICE;
    if (!out || room < 13) return INVALID_VALUE;
    snprintf(out, (size_t)room, "0000:00:00.0");
    return OK;
}
ENTRY(INITIALISED, cuDeviceGetByPCIBusId, (int *device, const char *id), (device, id)) {
    if (!device || !id) return INVALID_VALUE;
    *device = 0;
    return strcmp(id, "0000:00:00.0") ? INVALID_DEVICE : OK;
}
ENTRY(INITIALISED, cuDeviceCanAccessPeer, (int *can, int one, int other), (can, one, other)) {
    if (!can) return INVALID_VALUE;
    *can = 0;
    return one || other ? INVALID_DEVICE : OK;
}
ENTRY(INITIALISED, cuDeviceGetAttribute, (int *value, int attribute, int device),
      (value, attribute, device)) {
    if (device) return INVALID_DEVICE;
    if (!value || attribute < 1) return INVALID_VALUE;
    switch (attribute) {
    case 1:
    case 2: *value = 1024; break; /* threads of a block */
    case 10: *value = 32; break;  /* threads of a warp */
    case 13:
    case 36: *value = 1000000; break; /* clock rates in kHz */
    case 16: *value = 8; break;       /* multiprocessors */
    case 18: *value = settings.integrated; break;
    case 40: *value = 2; break; /* copy engines */
    case 15:
    case 19:
    case 31:
    case 41:
    case 78:
    case 83:
    case 115:
        *value = 1;
        break; /* overlap, maps host memory, concurrent kernels, unified addressing,
                              priorities, managed memory, registers host memory */
    case 75: *value = settings.major; break;
    case 76: *value = settings.minor; break;
    default: *value = 0;
    }
    return OK;
}
