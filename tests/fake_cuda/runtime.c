/* A libcudart.so.13 without a GPU behind it. ONNX Runtime's real CUDA provider runs on it: it places operators, takes and
 * gives memory, copies, chooses kernels and starts them, and all of that is told to FAKE_CUDA_TRACE, a line each. What it
 * cannot do is compute: kernels do nothing, memory of the GPU is zero until something is copied there.
 *
 *   FAKE_CUDA_MEMORY=BYTES   what each GPU has; more is refused as the real one does
 *   FAKE_CUDA_FAULT=N        the N-th kernel, from 1, breaks the GPU's context: every call fails from then on
 *   FAKE_CUDA_KERNEL_US=N    how long each kernel and matrix product keeps the GPU; its thread waits at the run's end
 *   FAKE_CUDA_TFLOPS=N       how many operations of matrix products the GPU does besides, in 10^12 a second
 *
 * The functions are those that the provider imports. Sizes and offsets are CUDA 13's. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { OK = 0, NO_MEMORY = 2, NO_SYMBOL = 500, ILLEGAL_ADDRESS = 700 };

typedef struct { unsigned x, y, z; } dim3;

enum { DEVICES = 8 };
static __thread int device;

static long number(const char *name, long otherwise) {
    const char *value = getenv(name);
    return value ? atol(value) : otherwise;
}

/* Whole lines: processes append to the same file. */
void fake_cuda_trace(const char *format, ...) {
    static atomic_int state;
    static FILE *file;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (!state) {
        const char *path = getenv("FAKE_CUDA_TRACE");
        file = path ? fopen(path, "a") : NULL;
        if (file) setvbuf(file, NULL, _IOLBF, 0);
        state = 1;
    }
    if (file) {
        va_list values;
        va_start(values, format);
        vfprintf(file, format, values);
        va_end(values);
    }
    pthread_mutex_unlock(&lock);
}

/* The context, once broken, stays broken. */
static atomic_long launched;
static atomic_int broken;
static __thread double owed_us;

void fake_cuda_work(double operations) {
    long fault = number("FAKE_CUDA_FAULT", 0), tflops = number("FAKE_CUDA_TFLOPS", 0);
    if (fault && atomic_fetch_add(&launched, 1) + 1 == fault) broken = 1;
    owed_us += number("FAKE_CUDA_KERNEL_US", 0) + (tflops ? operations / 1e6 / tflops : 0);
}

static int state(void) { return broken ? ILLEGAL_ADDRESS : OK; }

/* A GPU does one thing after the other, whoever asks. */
static int wait_for_all(void) {
    static pthread_mutex_t busy[DEVICES] = { [0 ... DEVICES - 1] = PTHREAD_MUTEX_INITIALIZER };
    long ns = (long)(owed_us * 1e3);
    struct timespec time = { ns / 1000000000, ns % 1000000000 };
    owed_us = 0;
    if (time.tv_sec || time.tv_nsec) {
        pthread_mutex_lock(&busy[device]);
        nanosleep(&time, NULL);
        pthread_mutex_unlock(&busy[device]);
    }
    return state();
}

/* Kernels */

typedef struct Kernel { const void *host; const char *name; struct Kernel *next; } Kernel;
static Kernel *kernels[1 << 16];

static Kernel **bucket(const void *host) { return &kernels[(size_t)host >> 4 & 0xffff]; }

void **__cudaRegisterFatBinary(void *binary) { (void)binary; return malloc(8); }
void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
void __cudaUnregisterFatBinary(void **handle) { (void)handle; }
void __cudaRegisterVar(void) {}
void __cudaRegisterFunction(void **handle, const void *host, char *device, const char *name) {
    (void)handle, (void)device;
    Kernel *kernel = malloc(sizeof *kernel);
    *kernel = (Kernel){ host, name, *bucket(host) };
    *bucket(host) = kernel;
}

static __thread struct { dim3 grid, block; size_t shared; void *stream; } configured;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
    configured.grid = grid, configured.block = block, configured.shared = shared, configured.stream = stream;
    return 0;
}
int __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void **stream) {
    *grid = configured.grid, *block = configured.block, *shared = configured.shared, *stream = configured.stream;
    return OK;
}
int __cudaGetKernel(const void **kernel, const void *host) { *kernel = host; return OK; }
int cudaLibraryLoadData(void **library) { *library = malloc(8); return OK; }
int cudaLibraryGetKernel(void **kernel, void *library, const char *name) { (void)library; *kernel = strdup(name); return OK; }

static int launch(const void *host, dim3 grid, dim3 block) {
    const char *name = "?";
    for (Kernel *kernel = *bucket(host); kernel; kernel = kernel->next)
        if (kernel->host == host) name = kernel->name;
    fake_cuda_trace("kernel %s %u,%u,%u %u,%u,%u\n", name, grid.x, grid.y, grid.z, block.x, block.y, block.z);
    fake_cuda_work(0);
    return OK; /* as in truth: what a kernel does wrong is told later */
}
int __cudaLaunchKernel(const void *host, dim3 grid, dim3 block) { return launch(host, grid, block); }
int cudaLaunchKernel(const void *host, dim3 grid, dim3 block) { return launch(host, grid, block); }
int cudaLaunchCooperativeKernel(const void *host, dim3 grid, dim3 block) { return launch(host, grid, block); }
int cudaLaunchKernelExC(const dim3 *config, const void *host) { return launch(host, config[0], config[1]); }
int cudaLaunchHostFunc(void *stream, void (*call)(void *), void *data) { (void)stream; call(data); return state(); }
int cudaFuncGetAttributes(char *to) {
    memset(to, 0, 144);
    *(int *)(to + 24) = 1024, *(int *)(to + 28) = 32, *(int *)(to + 32) = 90, *(int *)(to + 36) = 90;
    return OK;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks) { *blocks = 2; return OK; }

/* GPUs: as an H200 describes itself */

static size_t memory(void) { return (size_t)number("FAKE_CUDA_MEMORY", 8L << 30); }
int cudaGetDevice(int *to) { *to = device; return OK; }
int cudaSetDevice(int to) { device = to; return state(); }
int cudaGetDeviceCount(int *to) { *to = (int)number("FAKE_CUDA_GPUS", 1); return OK; }
int cudaGetDeviceProperties(char *to) {
    static const struct { int at, value; } ints[] = {
        { 304, 65536 }, { 308, 32 }, { 320, 1024 }, { 324, 1024 }, { 328, 1024 }, { 332, 64 }, { 336, 2147483647 },
        { 340, 65535 }, { 344, 65535 }, { 360, 9 }, { 364, 0 }, { 384, 132 }, { 596, 62914560 }, { 604, 2048 },
        { 632, 65536 }, { 668, 1 }, { 688, 32 }, { 720, 1 },
    };
    memset(to, 0, 1008);
    strcpy(to, "Fake GPU");
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) *(int *)(to + ints[i].at) = ints[i].value;
    *(size_t *)(to + 288) = memory(), *(size_t *)(to + 296) = 49152;
    *(size_t *)(to + 624) = 233472, *(size_t *)(to + 672) = 232448;
    return OK;
}
int cudaDeviceGetAttribute(int *to, int attribute) {
    switch (attribute) {
    case 1: *to = 1024; break;
    case 8: *to = 49152; break;
    case 10: *to = 32; break;
    case 16: *to = 132; break;
    case 39: *to = 2048; break;
    case 75: *to = 9; break;
    case 76: *to = 0; break;
    case 97: *to = 232448; break;
    default: *to = 1;
    }
    return OK;
}
int cudaDriverGetVersion(int *to) { *to = 13000; return OK; }
int cudaRuntimeGetVersion(int *to) { *to = 13000; return OK; }
int cudaGetDriverEntryPointByVersion(const char *name, void **to) { (void)name; *to = NULL; return NO_SYMBOL; }

/* Memory */

typedef struct Block { char *start; size_t bytes; int device; struct Block *next; } Block;
static Block *blocks; /* device -1: the host's, pinned */
static size_t used[DEVICES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int take(void **to, size_t bytes, int on) {
    int result = OK;
    pthread_mutex_lock(&lock);
    if (on >= 0 && used[on] + bytes > memory()) result = NO_MEMORY;
    char *start = result ? NULL : mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!result) {
        Block *block = malloc(sizeof *block);
        *block = (Block){ start, bytes, on, blocks };
        blocks = block;
        if (on >= 0) used[on] += bytes;
        *to = start;
    }
    size_t now = on >= 0 ? used[on] : 0;
    pthread_mutex_unlock(&lock);
    fake_cuda_trace("%s %d %zu used %zu\n", result ? "refuse" : "take", on, bytes, now);
    return result ? result : state();
}
static int give(void *start) {
    pthread_mutex_lock(&lock);
    Block **at = &blocks;
    while (*at && (*at)->start != start) at = &(*at)->next;
    Block *block = *at;
    if (block) {
        *at = block->next;
        if (block->device >= 0) used[block->device] -= block->bytes;
        munmap(start, block->bytes ? block->bytes : 1);
        fake_cuda_trace("give %d %zu used %zu\n", block->device, block->bytes, block->device >= 0 ? used[block->device] : 0);
        free(block);
    }
    pthread_mutex_unlock(&lock);
    return state();
}
int cudaMalloc(void **to, size_t bytes) { return take(to, bytes, device); }
int cudaMallocFromPoolAsync(void **to, size_t bytes) { return take(to, bytes, device); }
int cudaHostAlloc(void **to, size_t bytes) { return take(to, bytes, -1); }
int cudaMallocHost(void **to, size_t bytes) { return take(to, bytes, -1); }
int cudaFree(void *start) { return give(start); }
int cudaFreeAsync(void *start) { return give(start); }
int cudaFreeHost(void *start) { return give(start); }
int cudaMemGetInfo(size_t *left, size_t *all) { *all = memory(); *left = *all - used[device]; return OK; }
int cudaMemPoolCreate(void **to) { *to = malloc(8); return OK; }
int cudaMemPoolGetAttribute(void *pool, int attribute, size_t *to) { (void)pool, (void)attribute; *to = 0; return OK; }
int cudaPointerGetAttributes(char *to, char *of) {
    memset(to, 0, 88);
    pthread_mutex_lock(&lock);
    for (Block *block = blocks; block; block = block->next)
        if (of >= block->start && of < block->start + block->bytes) *(int *)to = block->device < 0 ? 1 : 2;
    pthread_mutex_unlock(&lock);
    *(void **)(to + 8) = *(void **)(to + 16) = of;
    return OK;
}
static int copy(void *to, const void *from, size_t bytes, int kind) {
    static const char *const kinds[] = { "host", "in", "out", "inside", "any" };
    fake_cuda_trace("copy %s %zu\n", kinds[kind], bytes);
    memmove(to, from, bytes);
    return kind == 2 ? wait_for_all() : state();
}
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) { return copy(to, from, bytes, kind); }
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind) { return copy(to, from, bytes, kind); }
int cudaMemcpy2DAsync(char *to, size_t to_pitch, const char *from, size_t from_pitch, size_t width, size_t height) {
    for (size_t row = 0; row < height; row++) memmove(to + row * to_pitch, from + row * from_pitch, width);
    return state();
}
int cudaMemcpyFromSymbol(void *to, const void *symbol, size_t bytes) { (void)symbol; memset(to, 0, bytes); return state(); }
int cudaMemset(void *to, int value, size_t bytes) { memset(to, value, bytes); return state(); }
int cudaMemsetAsync(void *to, int value, size_t bytes) { memset(to, value, bytes); return state(); }

/* Streams, events and captured graphs: one after the other, at once */

int cudaStreamCreate(void **to) { *to = malloc(8); return state(); }
int cudaStreamCreateWithFlags(void **to) { *to = malloc(8); return state(); }
int cudaStreamSynchronize(void) { return wait_for_all(); }
int cudaDeviceSynchronize(void) { return wait_for_all(); }
int cudaEventCreate(void **to) { *to = malloc(8); return state(); }
int cudaEventCreateWithFlags(void **to) { *to = malloc(8); return state(); }
int cudaEventElapsedTime(float *to) { *to = 1; return state(); }
int cudaStreamIsCapturing(void *stream, int *to) { (void)stream; *to = 0; return OK; }
int cudaStreamBeginCapture(void) { return state(); }
int cudaStreamEndCapture(void *stream, void **to) { (void)stream; *to = malloc(8); return state(); }
int cudaGraphInstantiate(void **to) { *to = malloc(8); return state(); }

int cudaGetLastError(void) { return state(); }
int cudaPeekAtLastError(void) { return state(); }
const char *cudaGetErrorName(int error) {
    return error == NO_MEMORY ? "cudaErrorMemoryAllocation" : error == ILLEGAL_ADDRESS ? "cudaErrorIllegalAddress" : "cudaErrorUnknown";
}
const char *cudaGetErrorString(int error) {
    return error == NO_MEMORY ? "out of memory" : error == ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : "unknown error";
}

#define WORKS(name) int name(void) { return state(); }
WORKS(cudaEventDestroy) WORKS(cudaEventRecord) WORKS(cudaEventRecordWithFlags) WORKS(cudaEventSynchronize)
WORKS(cudaStreamDestroy) WORKS(cudaStreamWaitEvent) WORKS(cudaGraphDestroy) WORKS(cudaGraphExecDestroy) WORKS(cudaGraphLaunch)
WORKS(cudaFuncSetAttribute) WORKS(cudaKernelSetAttributeForDevice) WORKS(cudaLibraryUnload) WORKS(cudaMemPoolDestroy)
WORKS(cudaMemPoolSetAttribute) WORKS(cudaMemPoolTrimTo)
