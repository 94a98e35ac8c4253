/* cuGetProcAddress: from a function's plain name and a CUDA version to the right form of it. */
#include "core.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* Functions whose forms take different parameters: from which version on a name means which. */
static const struct {
    const char *name;
    int version;
    const char *symbol;
} forms[] = {
    { "cuCtxCreate", 12050, "cuCtxCreate_v4" },
    { "cuCtxCreate", 11040, "cuCtxCreate_v3" },
    { "cuCtxCreate", 2000, "cuCtxCreate_v2" },
    { "cuStreamGetCaptureInfo", 12030, "cuStreamGetCaptureInfo_v3" },
    { "cuStreamGetCaptureInfo", 11030, "cuStreamGetCaptureInfo_v2" },
    { "cuStreamGetCaptureInfo", 10010, "cuStreamGetCaptureInfo" },
    { "cuGraphInstantiate", 12000, "cuGraphInstantiateWithFlags" },
    { "cuGraphInstantiate", 10000, "cuGraphInstantiate_v2" },
    { "cuStreamGetCtx", 12050, "cuStreamGetCtx_v2" },
    { "cuStreamGetCtx", 9020, "cuStreamGetCtx" },
    { "cuGetProcAddress", 12000, "cuGetProcAddress_v2" },
    { "cuGetProcAddress", 11030, "cuGetProcAddress" },
};

static void *symbol(const char *name) {
    static void *self;
    Dl_info info;
    if (!self && dladdr((void *)&forms, &info))
        self = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    return self ? dlsym(self, name) : NULL;
}

static void *find(const char *name, int version, bool *too_old) {
    bool known = false;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(forms[i].name, name)) continue;
        known = true;
        if (version >= forms[i].version) return symbol(forms[i].symbol);
    }
    *too_old = known;
    if (known) return NULL;
    char whole[128];
    for (int form = 4; form > 1; form--) {
        snprintf(whole, sizeof whole, "%s_v%d", name, form);
        void *found = symbol(whole);
        if (found) return found;
    }
    return symbol(name);
}

static Result look_up(const char *name, void **out, int version, int *status) {
    if (!name || !out || strncmp(name, "cu", 2)) return INVALID_VALUE;
    bool too_old = version > settings.version;
    *out = too_old ? NULL : find(name, version, &too_old);
    if (status)
        *status = *out ? 0 : too_old ? 2 : 1; /* CU_GET_PROC_ADDRESS_SUCCESS, _SYMBOL_, _VERSION_ */
    return *out ? OK : NOT_FOUND;
}

ENTRY(ANYTIME, cuGetProcAddress, (const char *name, void **out, int version, uint64_t flags),
      (name, out, version, flags)) {
    (void)flags;
    return look_up(name, out, version, NULL);
}
ENTRY(ANYTIME, cuGetProcAddress_v2,
      (const char *name, void **out, int version, uint64_t flags, int *status),
      (name, out, version, flags, status)) {
    (void)flags;
    return look_up(name, out, version, status);
}
