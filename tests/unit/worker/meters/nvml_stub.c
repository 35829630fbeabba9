/* A stand-in for libnvidia-ml.so.1 that answers from environment variables, so that the real
 * binding (nvidia-ml-py) and our meter run end to end without a card. Struct layouts follow
 * nvml.h; only what the meter and the device choice call is here.
 *
 * STUB_CARDS       number of cards (UUIDs GPU-stub-0, GPU-stub-1, ...)
 * STUB_USED        used bytes of device memory, version 2
 * STUB_PID         PID that the driver lists; STUB_PROCESS its bytes, or "none" for unavailable
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct {
    unsigned int pid;
    unsigned long long used;
    unsigned int gpu_instance, compute_instance;
} process_info;

static int cards[8] = {0, 1, 2, 3, 4, 5, 6, 7};
static unsigned long long number(const char *name) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : 0;
}

int nvmlInitWithFlags(unsigned int flags) { return number("STUB_CARDS") ? 0 : 9; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 6 ? "Not Found" : "Driver Not Loaded"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = number("STUB_CARDS"); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
    *handle = &cards[index];
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    char name[32];
    for (unsigned int i = 0; i < number("STUB_CARDS"); i++) {
        snprintf(name, sizeof name, "GPU-stub-%u", i);
        if (!strcmp(name, uuid)) { *handle = &cards[i]; return 0; }
    }
    return 6;
}
int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-stub-%d", *(int *)handle);
    return 0;
}
int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    snprintf(version, length, "580.00");
    return 0;
}
/* Version 1 counts what the driver keeps for itself as used: here 100 MiB more. */
int nvmlDeviceGetMemoryInfo(void *handle, memory_v1 *info) {
    info->total = 1ull << 34;
    info->used = number("STUB_USED") + (100ull << 20);
    info->free = info->total - info->used;
    return 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2 *info) {
    info->total = 1ull << 34;
    info->reserved = 100ull << 20;
    info->used = number("STUB_USED");
    info->free = info->total - info->used - info->reserved;
    return 0;
}
static int processes(unsigned int *count, process_info *infos) {
    if (*count == 0) { *count = 1; return 7; } /* NVML_ERROR_INSUFFICIENT_SIZE: the size is asked for first */
    const char *bytes = getenv("STUB_PROCESS");
    *count = 1;
    infos[0].pid = (unsigned int)number("STUB_PID");
    infos[0].used = bytes && !strcmp(bytes, "none") ? ~0ull : number("STUB_PROCESS");
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *h, unsigned int *n, process_info *p) { return processes(n, p); }
int nvmlDeviceGetComputeRunningProcesses_v2(void *h, unsigned int *n, process_info *p) { return processes(n, p); }
