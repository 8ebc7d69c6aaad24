/* aarch64 with dot products (Armv8.2): vectors of 4 floats; int8 times int8, four products a lane. With MATMUL (i8mm,
 * Armv8.6) two rows times two columns, eight products a lane; its sums are the same. */
#define TWICE 1
#include <arm_neon.h>

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef int8_t quantized_t;
#ifdef MATMUL
enum { LANES = 4, COLUMNS = 16, ROWS = 4, QUERIES = 4, GROUP = 8, ZERO_POINT = 0, LEVELS = 127 };
#else
enum { LANES = 4, COLUMNS = 16, ROWS = 4, QUERIES = 4, GROUP = 4, ZERO_POINT = 0, LEVELS = 127 };
#endif

static inline vf fma_(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline vf max_(vf a, vf b) { return (vf)vmaxnmq_f32((float32x4_t)a, (float32x4_t)b); }
static inline vf min_(vf a, vf b) { return (vf)vminnmq_f32((float32x4_t)a, (float32x4_t)b); }
static inline vi max_int(vi a, vi b) { return (vi)vmaxq_s32((int32x4_t)a, (int32x4_t)b); }
static inline vf as_float(vi a) { return (vf)vcvtq_f32_s32((int32x4_t)a); }
static inline void store_int8(int8_t *to, vi a)
{
    for (int i = 0; i < LANES; i++) to[i] = (int8_t)a[i];
}
static inline void store_quantized(quantized_t *to, vi a) { store_int8(to, a); }
static inline vf load_int8(const int8_t *from)
{
    int32_t bytes;
    memcpy(&bytes, from, 4);
    int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes)));
    return (vf)vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}
static inline vf load_half(const uint16_t *from) { return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))); }

#ifdef MATMUL
static inline __attribute__((always_inline)) void products(const int8_t *w, const quantized_t *a, int64_t stride,
                                                           int64_t inputs, int rows, int columns, int32_t *sums)
{
    int32x4_t acc[2][8]; /* two rows, two columns each: (row 0: columns 0 1, row 1: columns 0 1) */
    int8x8_t none = vdup_n_s8(0);
#pragma GCC unroll 2
    for (int p = 0; p < 2; p++)
#pragma GCC unroll 8
        for (int c = 0; c < 8; c++) acc[p][c] = vdupq_n_s32(0);
    for (int64_t k = 0; k < inputs; k += 8, w += 128) {
        int8x16_t pair[2];
#pragma GCC unroll 2
        for (int p = 0; 2 * p < rows; p++)
            pair[p] = vcombine_s8(vld1_s8(a + 2 * p * stride + k),
                                  2 * p + 1 < rows ? vld1_s8(a + (2 * p + 1) * stride + k) : none);
#pragma GCC unroll 8
        for (int c = 0; c < 8; c++) {
            int8x16_t part = vld1q_s8(w + c * 16);
#pragma GCC unroll 2
            for (int p = 0; 2 * p < rows; p++) acc[p][c] = vmmlaq_s32(acc[p][c], pair[p], part);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < 8; c++)
            vst1_s32(sums + r * columns + 2 * c, r % 2 ? vget_high_s32(acc[r / 2][c]) : vget_low_s32(acc[r / 2][c]));
}
#else
static inline __attribute__((always_inline)) void products(const int8_t *w, const quantized_t *a, int64_t stride,
                                                           int64_t inputs, int rows, int columns, int32_t *sums)
{
    int32x4_t acc[ROWS][4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) acc[r][c] = vdupq_n_s32(0);
#define QUARTER(g)                                                                                        \
    for (int c = 0; c < 4; c++) {                                                                         \
        int8x16_t part = vld1q_s8(w + ((g) * 4 + c) * 16);                                                \
        for (int r = 0; r < rows; r++) acc[r][c] = vdotq_laneq_s32(acc[r][c], part, row[r], g);           \
    }
    for (int64_t k = 0; k < inputs; k += 16, w += 256) {
        int8x16_t row[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) row[r] = vld1q_s8(a + r * stride + k);
        QUARTER(0)
        QUARTER(1)
        QUARTER(2)
        QUARTER(3)
    }
#undef QUARTER
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) vst1q_s32(sums + r * columns + c * 4, acc[r][c]);
}
#endif
