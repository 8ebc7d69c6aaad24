/* Any processor: plain C, in loops that compilers turn into vectors. Activations have up to 16 bits (see `avx2.h`). */
#define TWICE 0
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef int16_t quantized_t;
enum { LANES = 4, COLUMNS = 16, ROWS = 4, QUERIES = 1, GROUP = 0, ZERO_POINT = 0, LEVELS = 32767 };

static inline vf select_(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
static inline vf fma_(vf a, vf b, vf c) { return a * b + c; }
static inline vf max_(vf a, vf b) { return select_(a > b, a, b); }
static inline vf min_(vf a, vf b) { return select_(a < b, a, b); }
static inline vi max_int(vi a, vi b)
{
    vi mask = a > b;
    return (a & mask) | (b & ~mask);
}
static inline vf as_float(vi a) { return __builtin_convertvector(a, vf); }
static inline void store_int8(int8_t *to, vi a)
{
    for (int i = 0; i < LANES; i++) to[i] = (int8_t)a[i];
}
static inline void store_quantized(quantized_t *to, vi a)
{
    for (int i = 0; i < LANES; i++) to[i] = (int16_t)a[i];
}
static inline vf load_int8(const int8_t *from) { return as_float((vi){from[0], from[1], from[2], from[3]}); }

/* IEEE 754 half precision; tables hold no infinities. */
static inline float half(uint16_t bits)
{
    uint32_t wide = (uint32_t)(bits & 0x7fff) << 13;
    float magnitude;
    memcpy(&magnitude, &wide, 4);
    magnitude *= 5.192296858534828e33f; /* 2^112: the difference of the exponents' biases */
    return bits & 0x8000 ? -magnitude : magnitude;
}
static inline vf load_half(const uint16_t *from) { return (vf){half(from[0]), half(from[1]), half(from[2]), half(from[3])}; }

static inline void products(const int8_t *w, const quantized_t *a, int64_t stride, int64_t inputs, int rows,
                            int columns, int32_t *sums)
{
    for (int c = 0; c < columns; c++, w += inputs)
        for (int r = 0; r < rows; r++) {
            const quantized_t *row = a + r * stride;
            int32_t sum = 0;
            for (int64_t k = 0; k < inputs; k++) sum += (int32_t)w[k] * row[k];
            sums[r * columns + c] = sum;
        }
}
