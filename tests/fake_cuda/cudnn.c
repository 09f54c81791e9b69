/* A libcudnn.so.9 that starts and does nothing: ONNX Runtime wants its handle for operators that do not use it. */
#include <stdlib.h>

size_t cudnnGetVersion(void) { return 91800; }
size_t cudnnGetCudartVersion(void) { return 13000; }
int cudnnCreate(void **to) { *to = malloc(8); return 0; }
int cudnnDestroy(void *handle) { free(handle); return 0; }
int cudnnSetStream(void) { return 0; }
const char *cudnnGetErrorString(int status) { return status ? "failed" : "success"; }
