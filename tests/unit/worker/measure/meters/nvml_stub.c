/* A stand-in for libnvidia-ml.so.1 that answers from a script, so that the real binding
 * (nvidia-ml-py) and our sampler run end to end without a card. Struct layouts follow nvml.h; only
 * what the sampler and the device choice call is here. Without STUB_SCRIPT there is no driver.
 *
 * STUB_SCRIPT names a text file of lines, in NVML's order of cards:
 *   v2 no                      this driver does not know version 2 of the memory query
 *   events no                  nor the newer name of the clock reasons
 *   card UUID                  begins a card
 *   frame KEY=VALUE ...        what that card answers; a key that is not named stays as it was
 *     used=BYTES               device memory, without the 100 MiB that the driver keeps for itself
 *     processes=PID:BYTES,...  PID may be "parent" or "self" (of the process that asks);
 *                              BYTES may be "none" (not available); "processes=" is nobody
 *     energy=MILLIJOULES       "none" for a card that has no counter
 *     reasons=MASK             clock event reasons
 *     error=CODE               every call fails with this NVML error; 0 for none
 * Each query of a card's memory goes on to its next frame; the last one holds. Everything else
 * answers from the frame that the last such query had.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CARDS 4
#define FRAMES 512
#define LISTED 8
#define RESERVED (100ull << 20)
#define NONE (~0ull)
enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, NOT_LOADED = 9, NO_FUNCTION = 13 };

typedef unsigned long long u64;
typedef struct { unsigned int version; u64 total, reserved, free, used; } memory_v2;
typedef struct { u64 total, free, used; } memory_v1;
typedef struct { unsigned int pid; u64 used; unsigned int gpu_instance, compute_instance; } process_info;
typedef struct {
    u64 used, energy, reasons;
    int error, listed;
    process_info processes[LISTED];
} frame;
typedef struct { char uuid[96]; frame frames[FRAMES]; int count, at; } card;

static card cards[CARDS];
static int card_count, no_v2, no_events, loaded;

static u64 number(const char *text) { return strcmp(text, "none") ? strtoull(text, NULL, 0) : NONE; }

static void list_processes(frame *f, char *text) {
    char *rest = NULL;
    f->listed = 0;
    for (char *item = strtok_r(text, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        char *bytes = strchr(item, ':');
        *bytes++ = 0;
        process_info *p = &f->processes[f->listed++];
        memset(p, 0, sizeof *p);
        p->used = number(bytes);
        p->pid = !strcmp(item, "self")     ? (unsigned)getpid()
                 : !strcmp(item, "parent") ? (unsigned)getppid()
                                           : (unsigned)strtoul(item, NULL, 10);
    }
}

static void add_frame(card *c, char *rest) {
    frame *f = &c->frames[c->count];
    if (c->count) *f = c->frames[c->count - 1];
    c->count++;
    for (char *key = strtok_r(NULL, " \n", &rest); key; key = strtok_r(NULL, " \n", &rest)) {
        char *value = strchr(key, '=');
        *value++ = 0;
        if (!strcmp(key, "used")) f->used = number(value);
        else if (!strcmp(key, "energy")) f->energy = number(value);
        else if (!strcmp(key, "reasons")) f->reasons = number(value);
        else if (!strcmp(key, "error")) f->error = (int)number(value);
        else if (!strcmp(key, "processes")) list_processes(f, value);
        else abort();
    }
}

static void load(void) {
    const char *name = getenv("STUB_SCRIPT");
    FILE *file = name ? fopen(name, "r") : NULL;
    char line[1024], *rest;
    loaded = 1;
    while (file && fgets(line, sizeof line, file)) {
        char *word = strtok_r(line, " \n", &rest);
        if (!word) continue;
        if (!strcmp(word, "frame")) add_frame(&cards[card_count - 1], rest);
        else if (!strcmp(word, "card")) {
            cards[card_count].at = -1;
            strcpy(cards[card_count++].uuid, strtok_r(NULL, " \n", &rest));
        }
        else if (!strcmp(word, "v2")) no_v2 = 1;
        else if (!strcmp(word, "events")) no_events = 1;
        else abort();
    }
    if (file) fclose(file);
}

static frame *now(card *c) { return &c->frames[c->at < 0 ? 0 : c->at]; }
static frame *next(card *c) {
    if (c->at < c->count - 1) c->at++;
    return now(c);
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    if (!loaded) load();
    return card_count ? SUCCESS : NOT_LOADED;
}
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == NOT_FOUND ? "Not Found" : "stub error"; }
int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    snprintf(version, length, "580.00");
    return SUCCESS;
}
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = (unsigned)card_count; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, card **handle) {
    *handle = &cards[index];
    return SUCCESS;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, card **handle) {
    for (int i = 0; i < card_count; i++)
        if (!strcmp(cards[i].uuid, uuid)) { *handle = &cards[i]; return SUCCESS; }
    return NOT_FOUND;
}
int nvmlDeviceGetUUID(card *c, char *uuid, unsigned int length) {
    snprintf(uuid, length, "%s", c->uuid);
    return SUCCESS;
}
/* Version 1 counts what the driver keeps for itself as used. */
int nvmlDeviceGetMemoryInfo(card *c, memory_v1 *info) {
    frame *f = next(c);
    info->total = 1ull << 34;
    info->used = f->used + RESERVED;
    info->free = info->total - info->used;
    return f->error;
}
int nvmlDeviceGetMemoryInfo_v2(card *c, memory_v2 *info) {
    if (no_v2) return NO_FUNCTION;
    if (info->version != 0x02000028) abort(); /* sizeof(nvmlMemory_v2_t) | 2 << 24 */
    frame *f = next(c);
    info->total = 1ull << 34;
    info->reserved = RESERVED;
    info->used = f->used;
    info->free = info->total - info->used - info->reserved;
    return f->error;
}
/* The size is asked for first, with a count of 0. */
int nvmlDeviceGetComputeRunningProcesses_v3(card *c, unsigned int *count, process_info *infos) {
    frame *f = now(c);
    unsigned int room = *count;
    if (f->error) return f->error;
    *count = (unsigned)f->listed;
    if (room < *count) return INSUFFICIENT_SIZE;
    if (infos) memcpy(infos, f->processes, *count * sizeof *infos);
    return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(card *c, u64 *millijoules) {
    frame *f = now(c);
    *millijoules = f->energy;
    return f->error ? f->error : f->energy == NONE ? NOT_SUPPORTED : SUCCESS;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(card *c, u64 *mask) {
    *mask = now(c)->reasons;
    return now(c)->error;
}
int nvmlDeviceGetCurrentClocksEventReasons(card *c, u64 *mask) {
    return no_events ? NO_FUNCTION : nvmlDeviceGetCurrentClocksThrottleReasons(c, mask);
}
