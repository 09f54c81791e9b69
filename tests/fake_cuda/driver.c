/* A libcuda.so.1 without a GPU behind it, to provoke what is told on machines that we do not have. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static long number(const char *name, long otherwise) {
    const char *value = getenv(name);
    return value ? atol(value) : otherwise;
}

int cuInit(unsigned flags) { (void)flags; return number("FAKE_CUDA_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = number("FAKE_CUDA_VERSION", 13000); return 0; }
int cuDeviceGetCount(int *count) { *count = number("FAKE_CUDA_GPUS", 1); return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int room, int device) { (void)device; strncpy(name, "Fake GPU", room); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)number("FAKE_CUDA_MEMORY", 8L << 30); return 0; }
/* ONNX Runtime's CUDA build links to this one. */
int cuTensorMapEncodeTiled(void) { return 801; }
