/* libcublas.so.13, libcublasLt.so.13 and libcurand.so.10 beside the libcudart.so.13 of this folder: products are told to its trace, and
 * compute nothing. */
#include <stdlib.h>

void fake_cuda_trace(const char *format, ...);
void fake_cuda_work(double operations);

/* m, n and k of a product, and how many of them at once */
static int product(const char *name, int m, int n, int k, int count) {
    fake_cuda_trace("product %s %d,%d,%d %d\n", name, m, n, k, count);
    fake_cuda_work(2.0 * m * n * k * count);
    return 0;
}

#define MAKES(name) int name(void **to) { *to = calloc(1, 512); return 0; }
MAKES(cublasCreate_v2) MAKES(cublasLtCreate) MAKES(cublasLtMatmulDescCreate) MAKES(cublasLtMatmulPreferenceCreate)
MAKES(cublasLtMatrixLayoutCreate) MAKES(cublasLtMatrixTransformDescCreate)

#define WORKS(name) int name(void) { return 0; }
WORKS(cublasDestroy_v2) WORKS(cublasSetStream_v2) WORKS(cublasSetMathMode) WORKS(cublasLtDestroy)
WORKS(cublasLtMatmulAlgoConfigSetAttribute) WORKS(cublasLtMatmulAlgoInit) WORKS(cublasLtMatmulDescDestroy)
WORKS(cublasLtMatmulDescSetAttribute) WORKS(cublasLtMatmulPreferenceDestroy) WORKS(cublasLtMatmulPreferenceSetAttribute)
WORKS(cublasLtMatrixLayoutDestroy) WORKS(cublasLtMatrixLayoutSetAttribute) WORKS(cublasLtMatrixTransform)
WORKS(cublasLtMatrixTransformDescDestroy)
int cublasGetMathMode(void *handle, int *to) { (void)handle; *to = 0; return 0; }
const char *cublasGetStatusName(int status) { return status ? "FAILED" : "SUCCESS"; }
const char *cublasGetStatusString(int status) { return status ? "failed" : "success"; }

/* The handle and two ways to transpose come first, then m, n, k. */
#define PRODUCT(name) \
    int name(void *handle, int ta, int tb, int m, int n, int k) { \
        (void)handle, (void)ta, (void)tb; \
        return product(#name, m, n, k, 1); \
    }
PRODUCT(cublasSgemm_v2) PRODUCT(cublasDgemm_v2) PRODUCT(cublasSgemmBatched) PRODUCT(cublasDgemmBatched)
PRODUCT(cublasGemmBatchedEx) PRODUCT(cublasGemmEx)
int cublasGemmStridedBatchedEx(void *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at,
    int lda, long long sa, const void *b, int bt, int ldb, long long sb, const void *beta, void *c, int ct, int ldc,
    long long sc, int count) {
    (void)handle, (void)ta, (void)tb, (void)alpha, (void)a, (void)at, (void)lda, (void)sa, (void)b, (void)bt, (void)ldb;
    (void)sb, (void)beta, (void)c, (void)ct, (void)ldc, (void)sc;
    return product("cublasGemmStridedBatchedEx", m, n, k, count);
}
int cublasSgemmStridedBatched(void *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int lda,
    long long sa, const void *b, int ldb, long long sb, const void *beta, void *c, int ldc, long long sc, int count) {
    (void)handle, (void)ta, (void)tb, (void)alpha, (void)a, (void)lda, (void)sa, (void)b, (void)ldb;
    (void)sb, (void)beta, (void)c, (void)ldc, (void)sc;
    return product("cublasSgemmStridedBatched", m, n, k, count);
}
#define UNKNOWN(name) int name(void) { return product(#name, 0, 0, 0, 0); }
UNKNOWN(cublasDgemmStridedBatched) UNKNOWN(cublasDgeam) UNKNOWN(cublasSgeam) UNKNOWN(cublasDgetrfBatched)
UNKNOWN(cublasDgetriBatched) UNKNOWN(cublasSgetrfBatched) UNKNOWN(cublasSgetriBatched) UNKNOWN(cublasScopy_v2)
UNKNOWN(cublasSscal_v2) UNKNOWN(cublasLtMatmul)
int cublasLtMatmulAlgoGetHeuristic(void *lt, void *a, void *b, void *c, void *d, void *e, void *f, int most, void *to, int *found) {
    (void)lt, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)most, (void)to;
    *found = 1;
    return 0;
}
