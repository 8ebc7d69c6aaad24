/* AVX2, FMA and F16C: vectors of 8 floats. With AVX-VNNI, int8 weights with zero point 128 times int8 activations.
 * Without it, int8 weights widened to 16 bits times activations of 16 bits, because the sum of two int8 products may
 * not fit into the 16 bits of `vpmaddubsw`; the finer rounding is free (`levels_of` in `rows.c` keeps sums in an int32).
 */
#define WIDE_TILES 1
#include <immintrin.h>

typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
#ifdef VNNI
#define TWICE 1
typedef int8_t quantized_t;
enum { LANES = 8, COLUMNS = 16, ROWS = 6, QUERIES = 2, GROUP = 4, ZERO_POINT = 128, LEVELS = 127 };
#else
#define TWICE 0
typedef int16_t quantized_t;
enum { LANES = 8, COLUMNS = 16, ROWS = 6, QUERIES = 2, GROUP = 2, ZERO_POINT = 0, LEVELS = 32767 };
#endif

static inline vf fma_(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
static inline vf max_(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vf min_(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
static inline vi max_int(vi a, vi b) { return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b); }
static inline vf as_float(vi a) { return (vf)_mm256_cvtepi32_ps((__m256i)a); }
static inline __m128i narrow16(vi a)
{
    return _mm_packs_epi32(_mm256_castsi256_si128((__m256i)a), _mm256_extracti128_si256((__m256i)a, 1));
}
static inline void store_int8(int8_t *to, vi a)
{
    __m128i half = narrow16(a);
    _mm_storel_epi64((__m128i *)to, _mm_packs_epi16(half, half));
}
#ifdef VNNI
static inline void store_quantized(quantized_t *to, vi a) { store_int8(to, a); }
#else
static inline void store_quantized(quantized_t *to, vi a) { _mm_storeu_si128((__m128i *)to, narrow16(a)); }
#endif
static inline vf load_int8(const int8_t *from)
{
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)));
}
static inline vf load_half(const uint16_t *from) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)); }

static inline __attribute__((always_inline)) __m256i four(const void *from)
{
    int32_t bytes;
    memcpy(&bytes, from, 4);
    return _mm256_set1_epi32(bytes);
}

#ifdef VNNI
static inline __attribute__((always_inline)) void multiply_add(__m256i *acc, __m256i w, __m256i v)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(*acc) : "x"(w), "x"(v));
}
static inline __m256i widen(const int8_t *from) { return _mm256_loadu_si256((const __m256i *)from); }
enum { HALF = 32 }; /* bytes of weights for eight columns and one group */
#else
static inline __attribute__((always_inline)) void multiply_add(__m256i *acc, __m256i w, __m256i v)
{
    *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(w, v));
}
static inline __m256i widen(const int8_t *from) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from)); }
enum { HALF = 16 };
#endif

static inline __attribute__((always_inline)) void products(const int8_t *w, const quantized_t *a, int64_t stride,
                                                           int64_t inputs, int rows, int columns, int32_t *sums)
{
    __m256i acc[ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    if (rows <= 2) { /* two sums per row and half, to hide the latency of adding */
        for (int64_t k = 0; k < inputs; k += 2 * GROUP, w += 4 * HALF) {
            __m256i w0 = widen(w), w1 = widen(w + HALF), w2 = widen(w + 2 * HALF), w3 = widen(w + 3 * HALF);
#pragma GCC unroll 2
            for (int r = 0; r < rows; r++) {
                __m256i v = four(a + r * stride + k), u = four(a + r * stride + k + GROUP);
                multiply_add(&acc[r][0], w0, v);
                multiply_add(&acc[r][1], w1, v);
                multiply_add(&acc[r + 2][0], w2, u);
                multiply_add(&acc[r + 2][1], w3, u);
            }
        }
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            acc[r][0] = _mm256_add_epi32(acc[r][0], acc[r + 2][0]);
            acc[r][1] = _mm256_add_epi32(acc[r][1], acc[r + 2][1]);
        }
    } else {
        for (int64_t k = 0; k < inputs; k += GROUP, w += 2 * HALF) {
            __m256i w0 = widen(w), w1 = widen(w + HALF);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                __m256i v = four(a + r * stride + k);
                multiply_add(&acc[r][0], w0, v);
                multiply_add(&acc[r][1], w1, v);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        _mm256_storeu_si256((__m256i *)(sums + r * columns), acc[r][0]);
        _mm256_storeu_si256((__m256i *)(sums + r * columns + 8), acc[r][1]);
    }
}
