/* AVX-512 with VNNI: vectors of 16 floats; int8 weights with zero point 128 times int8 activations. */
#define WIDE_TILES 1
#define TWICE 1
#include <immintrin.h>

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef int8_t quantized_t;
enum { LANES = 16, COLUMNS = 64, ROWS = 6, QUERIES = 4, GROUP = 4, ZERO_POINT = 128, LEVELS = 127 };

static inline vf fma_(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
static inline vf max_(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vf min_(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
static inline vi max_int(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }
static inline vf as_float(vi a) { return (vf)_mm512_cvtepi32_ps((__m512i)a); }
static inline void store_int8(int8_t *to, vi a) { _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)a)); }
static inline void store_quantized(quantized_t *to, vi a) { store_int8(to, a); }
static inline vf load_int8(const int8_t *from)
{
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
}
static inline vf load_half(const uint16_t *from) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from)); }

/* acc += w * v, four products a lane. Written out, because GCC 12 moves the accumulators of the intrinsic's loop to the
 * stack and back (half the speed). */
static inline __attribute__((always_inline)) void multiply_add(__m512i *acc, __m512i w, __m512i v)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*acc) : "v"(w), "v"(v));
}

static inline __attribute__((always_inline)) __m512i four(const int8_t *from)
{
    int32_t bytes;
    memcpy(&bytes, from, 4);
    return _mm512_set1_epi32(bytes);
}

static inline __attribute__((always_inline)) void products(const int8_t *w, const quantized_t *a, int64_t stride,
                                                           int64_t inputs, int rows, int columns, int32_t *sums)
{
    int vectors = columns / 16;
    __m512i acc[ROWS][4];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) acc[r][c] = _mm512_setzero_si512();
    if (rows * vectors == 1) { /* two sums, to hide the latency of adding */
        for (int64_t k = 0; k < inputs; k += 8, w += 128) {
            multiply_add(&acc[0][0], _mm512_loadu_si512(w), four(a + k));
            multiply_add(&acc[0][1], _mm512_loadu_si512(w + 64), four(a + k + 4));
        }
        acc[0][0] = _mm512_add_epi32(acc[0][0], acc[0][1]);
    } else {
        for (int64_t k = 0; k < inputs; k += 4, w += vectors * 64) {
            __m512i part[4];
#pragma GCC unroll 4
            for (int c = 0; c < vectors; c++) part[c] = _mm512_loadu_si512(w + c * 64);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                __m512i v = four(a + r * stride + k);
#pragma GCC unroll 4
                for (int c = 0; c < vectors; c++) multiply_add(&acc[r][c], part[c], v);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++) _mm512_storeu_si512(sums + r * columns + c * 16, acc[r][c]);
}
