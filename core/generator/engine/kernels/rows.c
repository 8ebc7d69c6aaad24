/* What is done with a row (one token of one conversation), compiled once for each kind of processor: KIND names it, and
 * a header gives its vectors (`vf` of LANES floats) and its products of small integers (`products`).
 *
 * Every row is computed by itself, in an order that depends only on its position; products of integers are exact. So a
 * row's result has the same bits whatever other rows are in the call, however prompts are cut into chunks and whatever
 * the number of threads. Kinds of processors differ in bits: the order of sums of floats depends on the vector width.
 *
 * Activations are quantized per row just before each product (dynamic); weights were quantized per output channel.
 * Where the processor multiplies unsigned by signed, weights have the zero point 128, and 128 × (sum of the row) is
 * subtracted from the product. Keys and values are quantized per token and head.
 */
#include "kernels.h"

#include <math.h>
#include <string.h>

#if defined(AVX512)
#include "avx512.h"
#elif defined(AVX2)
#include "avx2.h"
#elif defined(NEON)
#include "neon.h"
#else
#include "plain.h"
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)
#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *from)
{
    vf x;
    memcpy(&x, from, sizeof x);
    return x;
}

INLINE void store(float *to, vf x) { memcpy(to, &x, sizeof x); }

INLINE vf all(float x) { return x - (vf){0}; }

/* Rounded to the nearest, for |x| < 2^22: what the addition leaves in the low bits of the mantissa. */
INLINE vi nearest(vf x) { return (vi)(x + 12582912.0f) - 0x4b400000; }

INLINE float sum_of(vf x)
{
    float each[LANES];
    store(each, x);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) each[i] += each[i + half];
    return each[0];
}

INLINE float largest_of(vf x)
{
    float each[LANES];
    store(each, x);
    for (int i = 1; i < LANES; i++) each[0] = each[i] > each[0] ? each[i] : each[0];
    return each[0];
}

/* e^x for x <= 88, relative error below 2e-7: 2^n times a polynomial on [-1/2, 1/2]. */
INLINE vf exp_(vf x)
{
    vf y = max_(x, all(-87.0f)) * 1.44269504088896341f;
    vi n = nearest(y);
    vf f = y - as_float(n);
    vf p = all(1.535336188319500e-4f);
    p = fma_(p, f, all(1.339887440266574e-3f));
    p = fma_(p, f, all(9.618437357674640e-3f));
    p = fma_(p, f, all(5.550332471162809e-2f));
    p = fma_(p, f, all(2.402264791363012e-1f));
    p = fma_(p, f, all(6.931472028550421e-1f));
    p = fma_(p, f, all(1.0f));
    return (vf)((vi)p + (n << 23));
}

INLINE vf silu(vf x) { return x / (1.0f + exp_(min_(-x, all(88.0f)))); }

/* x/2 (1 + erf(x/√2)), Abramowitz and Stegun 7.1.26: error below 1.5e-7 */
INLINE vf gelu(vf x)
{
    vf z = max_(x, -x) * 0.70710678118654752f;
    vf t = 1.0f / fma_(z, all(0.3275911f), all(1.0f));
    vf p = fma_(t, all(1.061405429f), all(-1.453152027f));
    p = fma_(p, t, all(1.421413741f));
    p = fma_(p, t, all(-0.284496736f));
    p = fma_(p, t, all(0.254829592f)) * t;
    vf erf = 1.0f - p * exp_(-z * z);
    vi negative = x < all(0.0f);
    erf = (vf)((vi)erf ^ (negative & (int32_t)0x80000000));
    return 0.5f * x * (1.0f + erf);
}

/* x/2 (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3)  (Hendrycks & Gimpel, arXiv:1606.08415) */
INLINE vf activate(vf x, int64_t activation)
{
    if (activation == RELU) return max_(x, all(0.0f));
    if (activation == GELU) return gelu(x);
    vf inner = fma_(x * x, all(0.044715f), all(1.0f));
    vf u = x * inner * (-2 * 0.7978845608028654f);
    return x / (1.0f + exp_(min_(u, all(88.0f))));
}

static void embed(const Model *m, const Row *row, float *x)
{
    const uint16_t *word = m->embedding + (int64_t)row->token * m->width;
    for (int64_t i = 0; i < m->width; i += LANES) {
        vf y = load_half(word + i);
        if (m->positions) y += load(m->positions + (int64_t)row->position * m->width + i);
        store(x + i, y);
    }
}

/* x times its inverse root mean square, times the weight. */
INLINE void scale_rms(const float *x, int64_t n, const float *weight, double epsilon, float *out)
{
    vf square = all(0.0f);
    for (int64_t i = 0; i < n; i += LANES) square = fma_(load(x + i), load(x + i), square);
    float inverse = (float)(1.0 / sqrt(sum_of(square) / (double)n + epsilon));
    for (int64_t i = 0; i < n; i += LANES) store(out + i, load(x + i) * inverse * load(weight + i));
}

static void normalise(const Model *m, const float *x, const float *weight, const float *shift, float *out)
{
    int64_t width = m->width;
    if (!shift) {
        scale_rms(x, width, weight, m->epsilon, out);
        return;
    }
    vf sum = all(0.0f), square = all(0.0f);
    for (int64_t i = 0; i < width; i += LANES) sum += load(x + i);
    float mean = sum_of(sum) / (float)width;
    for (int64_t i = 0; i < width; i += LANES) {
        vf d = load(x + i) - mean;
        square = fma_(d, d, square);
    }
    float inverse = (float)(1.0 / sqrt(sum_of(square) / (double)width + m->epsilon));
    for (int64_t i = 0; i < width; i += LANES)
        store(out + i, fma_((load(x + i) - mean) * inverse, load(weight + i), load(shift + i)));
}

static void gate(float *x, int64_t inner)
{
    for (int64_t i = 0; i < inner; i += LANES) store(x + i, silu(load(x + i)) * load(x + inner + i));
}

/* The largest magnitude in x. Magnitudes are compared as integers, where NaN is the largest, so that damaged numbers
 * reach the logits: the scale of a row with a NaN or an infinity is one too. */
INLINE float largest_magnitude(const float *x, int64_t n)
{
    vi largest = {0};
    for (int64_t i = 0; i < n; i += LANES) largest = max_int(largest, (vi)load(x + i) & 0x7fffffff);
    int32_t each[LANES], bits = 0;
    memcpy(each, &largest, sizeof each);
    for (int i = 0; i < LANES; i++) bits = each[i] > bits ? each[i] : bits;
    float most;
    memcpy(&most, &bits, 4);
    return most < 1e-10f ? 1e-10f : most;
}

/* The most levels for which no sum of products with weights of ±127 overflows an int32: |Σ w q| ≤ 127 Σ|q|, and
 * Σ|q| ≤ levels Σ|x| / most + n / 2. A row with outliers has a small Σ|x| beside its largest, so it gets them all. */
INLINE float levels_of(const float *x, int64_t n, float most)
{
    if (LEVELS == 127) return LEVELS;
    vf total = all(0.0f);
    for (int64_t i = 0; i < n; i += LANES) total += max_(load(x + i), -load(x + i));
    float levels = (16900000.0f - (float)n) * most / sum_of(total);
    return levels < LEVELS ? levels : LEVELS;
}

/* x (n) float → q (n) of ±LEVELS at most; returns the scale, and the sum of q. */
INLINE float quantize_row(const float *x, quantized_t *q, int64_t n, int32_t *sum)
{
    float most = largest_magnitude(x, n), levels = levels_of(x, n, most), inverse = levels / most;
    vi total = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        vi v = nearest(load(x + i) * inverse);
        total += v;
        store_quantized(q + i, v);
    }
    int32_t each[LANES];
    memcpy(each, &total, sizeof each);
    *sum = 0;
    for (int i = 0; i < LANES; i++) *sum += each[i];
    return most / levels;
}

/* x (n) float → two rows of int8, `stride` apart: q = 128 × the first + the second, of ±16,256; returns the scale, and
 * the sums of both. For inputs with outliers, where eight bits would leave too few levels for the rest. */
INLINE float quantize_twice(const float *x, quantized_t *q, int64_t stride, int64_t n, int32_t *sum)
{
    float most = largest_magnitude(x, n), inverse = 127 * 128 / most;
    vi total[2] = {{0}, {0}};
    for (int64_t i = 0; i < n; i += LANES) {
        vi v = nearest(load(x + i) * inverse), high = (v + 64) >> 7, low = v - (high << 7);
        total[0] += high, total[1] += low;
        store_quantized(q + i, high);
        store_quantized(q + stride + i, low);
    }
    for (int part = 0; part < 2; part++) {
        int32_t each[LANES];
        memcpy(each, total + part, sizeof each);
        sum[part] = 0;
        for (int i = 0; i < LANES; i++) sum[part] += each[i];
    }
    return most / (127 * 128);
}

/* x (n) float → q (n) of ±127; returns the scale. */
INLINE float quantize_int8(const float *x, int8_t *q, int64_t n)
{
    float most = largest_magnitude(x, n), inverse = 127.0f / most;
    for (int64_t i = 0; i < n; i += LANES) store_int8(q + i, nearest(load(x + i) * inverse));
    return most / 127.0f;
}

/* out[j] = x · y[j] for `count` (a constant of at most 4) rows of y (count, n): x is loaded once for all of them. */
INLINE void dots(const float *x, const float *y, int64_t n, int count, float *out)
{
    vf even[4], odd[4];
    for (int j = 0; j < count; j++) even[j] = odd[j] = all(0.0f);
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vf first = load(x + i), second = load(x + i + LANES);
        for (int j = 0; j < count; j++) {
            even[j] = fma_(first, load(y + j * n + i), even[j]);
            odd[j] = fma_(second, load(y + j * n + i + LANES), odd[j]);
        }
    }
    for (; i < n; i += LANES)
        for (int j = 0; j < count; j++) even[j] = fma_(load(x + i), load(y + j * n + i), even[j]);
    for (int j = 0; j < count; j++) out[j] = sum_of(even[j] + odd[j]);
}

/* Prepare a row for the next product: quantize it, and compute its adapter's low-rank parts. `delta`: the layer's first
 * slot. */
static void prepare(const Prepared *p, int64_t index, const float *x, const Linear *linear, const Delta *delta)
{
    int64_t n = linear->inputs, twice = TWICE && linear->outliers, at = twice ? 2 * index : index;
    quantized_t *quantized = (quantized_t *)p->quantized + at * p->stride;
    p->scale[index] =
        twice ? quantize_twice(x, quantized, p->stride, n, p->sum + at) : quantize_row(x, quantized, n, p->sum + at);
    if (!delta || linear->slot < 0) return;
    for (int64_t part = 0; part < linear->parts; part++) {
        const Delta *one = delta + linear->slot + part;
        float *low = p->low + (index * MAX_PARTS + part) * p->low_stride;
        int64_t j = 0;
        for (; j + 4 <= one->rank; j += 4) dots(x, one->down + j * n, n, 4, low + j);
        for (; j < one->rank; j++) dots(x, one->down + j * n, n, 1, low + j);
    }
}

enum { VECTORS = COLUMNS / LANES };

/* y += low @ up + bias, for one block of columns from `column` of the part on. */
INLINE void add_delta(vf *y, const Delta *delta, const float *low, int64_t column)
{
    const float *up = delta->up + column;
    for (int64_t j = 0; j < delta->rank; j++, up += delta->outputs) {
        vf weight = all(low[j]);
#pragma GCC unroll 8
        for (int c = 0; c < VECTORS; c++) y[c] = fma_(weight, load(up + c * LANES), y[c]);
    }
    if (!delta->bias) return;
#pragma GCC unroll 8
    for (int c = 0; c < VECTORS; c++) y[c] += load(delta->bias + column + c * LANES);
}

/* `rows` rows, each quantized in `parts` (both constants where it is inlined), of one block of columns. */
INLINE void tile(const Prepared *s, const Product *p, int64_t first, int rows, int parts, int64_t block)
{
    const Linear *l = p->linear;
    int32_t sums[ROWS * COLUMNS] __attribute__((aligned(64)));
    products(l->weight + block * l->inputs * COLUMNS, (const quantized_t *)s->quantized + first * parts * s->stride,
             s->stride, l->inputs, rows * parts, COLUMNS, sums);
    int64_t column = block * COLUMNS, part = 0, begin = 0;
    for (; part + 1 < l->parts && column >= l->ends[part]; part++) begin = l->ends[part];
    for (int r = 0; r < rows; r++) {
        int64_t index = first + r;
        const Row *row = s->call->rows + (p->index ? p->index[index] : index);
        const Delta *delta = 0;
        if (row->lora && l->slot >= 0)
            delta = row->lora->deltas + p->layer * s->call->model->slots + l->slot + part;
        const float *low = s->low + (index * MAX_PARTS + part) * s->low_stride;
        vf scale = all(s->scale[index]);
        const int32_t *own = s->sum + index * parts, *from = sums + r * parts * COLUMNS;
        float *out = p->out + index * l->outputs + column;
        vf y[VECTORS];
#pragma GCC unroll 8
        for (int c = 0; c < VECTORS; c++) {
            vi sum;
            memcpy(&sum, from + c * LANES, sizeof sum);
            y[c] = as_float(sum - ZERO_POINT * own[0]);
            if (parts == 2) {
                memcpy(&sum, from + COLUMNS + c * LANES, sizeof sum);
                y[c] = fma_(y[c], all(128.0f), as_float(sum - ZERO_POINT * own[1]));
            }
            y[c] *= scale;
            y[c] = fma_(y[c], load(l->scale + column + c * LANES), load(l->bias + column + c * LANES));
        }
        if (delta) add_delta(y, delta, low, column - begin);
#pragma GCC unroll 8
        for (int c = 0; c < VECTORS; c++) {
            if (p->mode == ACTIVATE) y[c] = activate(y[c], s->call->model->activation);
            if (p->mode == ADD) y[c] += load(out + c * LANES);
            store(out + c * LANES, y[c]);
        }
    }
}

/* All rows times one block of columns, in groups of nearly equal size: 32 rows by 6 are 6 6 5 5 5 5. */
static void product(const Prepared *s, const Product *p, int64_t rows, int64_t block)
{
    int twice = TWICE && p->linear->outliers;
    int64_t most = twice ? ROWS / 2 : ROWS, groups = (rows + most - 1) / most, first = 0;
    for (int64_t g = 0; g < groups; g++) {
        int count = (int)((rows - first + groups - g - 1) / (groups - g));
        switch (twice ? count + ROWS : count) {
        case 1: tile(s, p, first, 1, 1, block); break;
        case 2: tile(s, p, first, 2, 1, block); break;
        case 3: tile(s, p, first, 3, 1, block); break;
#if WIDE_TILES
        case 4: tile(s, p, first, 4, 1, block); break;
        case 5: tile(s, p, first, 5, 1, block); break;
#endif
        case ROWS: tile(s, p, first, ROWS, 1, block); break;
#if TWICE
        case ROWS + 1: tile(s, p, first, 1, 2, block); break;
        case ROWS + 2: tile(s, p, first, 2, 2, block); break;
#if WIDE_TILES
        case ROWS + 3: tile(s, p, first, 3, 2, block); break;
#endif
#endif
        }
        first += count;
    }
}

/* Turn a head by its position, in place: pairs are `half` apart (arXiv:2104.09864, as in Llama's checkpoints). */
INLINE void rotate(float *x, int64_t half, const float *turn)
{
    int64_t i = 0;
    for (; i + LANES <= half; i += LANES) {
        vf cosine = load(turn + i), sine = load(turn + half + i), a = load(x + i), b = load(x + half + i);
        store(x + i, a * cosine - b * sine);
        store(x + half + i, b * cosine + a * sine);
    }
    for (; i < half; i++) {
        float a = x[i], b = x[half + i];
        x[i] = a * turn[i] - b * turn[half + i];
        x[half + i] = b * turn[i] + a * turn[half + i];
    }
}

/* Normalise and rotate a row's queries and keys, and store its keys and values in its cache. */
static void store_kv(const Model *m, const Row *row, int64_t layer, float *qkv)
{
    const Layer *l = m->layers + layer;
    const KVCache *cache = row->cache;
    int64_t d = m->head_width, at = row->position;
    const float *turn = m->rotary ? m->rotary + at * d : 0;
    for (int64_t head = 0; head < m->heads; head++) {
        if (l->query_norm) scale_rms(qkv + head * d, d, l->query_norm, m->epsilon, qkv + head * d);
        if (turn) rotate(qkv + head * d, d / 2, turn);
    }
    for (int64_t head = 0; head < m->kv_heads; head++) {
        int64_t line = (layer * m->kv_heads + head) * cache->capacity, group = GROUP ? GROUP : d;
        float *key = qkv + m->key_at + head * d;
        int8_t rounded[MAX_HEAD_WIDTH];
        if (l->key_norm) scale_rms(key, d, l->key_norm, m->epsilon, key);
        if (turn) rotate(key, d / 2, turn);
        cache->key_scale[line + at] = quantize_int8(key, rounded, d);
        int8_t *block = cache->keys + (line + at / KEYS * KEYS) * d + at % KEYS * group;
        for (int64_t i = 0; i < d; i += group)
            for (int64_t g = 0; g < group; g++) block[i * KEYS + g] = (int8_t)(rounded[i + g] + ZERO_POINT);
        cache->value_scale[line + at] =
            quantize_int8(qkv + m->value_at + head * d, cache->values + (line + at) * d, d);
    }
}

/* out[r] = inverse_sum[r] × Σ over its tokens of weight × value, for `rows` rows that see `seen`, `seen` + 1 … tokens
 * and `vectors` (both constants) vectors of a head. Each row's sum runs through its tokens in order. */
INLINE void mix_values(const float *weights, int64_t stride, const int8_t *values, int64_t d, int64_t seen, int rows,
                       const float *inverse_sum, float *out, int64_t out_stride, int vectors)
{
    vf sum[QUERIES][4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++) sum[r][c] = all(0.0f);
    for (int64_t at = 0; at < seen; at++) {
        vf value[4];
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++) value[c] = load_int8(values + at * d + c * LANES);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            vf weight = all(weights[r * stride + at]);
#pragma GCC unroll 4
            for (int c = 0; c < vectors; c++) sum[r][c] = fma_(weight, value[c], sum[r][c]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        for (int64_t at = seen; at < seen + r; at++) {
            vf weight = all(weights[r * stride + at]);
#pragma GCC unroll 4
            for (int c = 0; c < vectors; c++)
                sum[r][c] = fma_(weight, load_int8(values + at * d + c * LANES), sum[r][c]);
        }
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++) store(out + r * out_stride + c * LANES, sum[r][c] * inverse_sum[r]);
    }
}

/* The weights of `rows` queries over the keys they see, and 1 / their sums. */
INLINE void weigh_keys(const Model *m, const KVCache *cache, int64_t line, int64_t seen, int rows, const float *query,
                       int64_t query_stride, float *scores, int64_t stride, float *inverse_sum)
{
    int64_t d = m->head_width, most = seen + rows - 1;
    quantized_t q[QUERIES * MAX_HEAD_WIDTH];
    vf scale[QUERIES], highest[QUERIES];
    int32_t off[QUERIES];
    for (int r = 0; r < rows; r++) {
        int32_t sum;
        scale[r] = all(quantize_row(query + r * query_stride, q + r * d, d, &sum) / sqrtf((float)d));
        off[r] = ZERO_POINT * sum;
        highest[r] = all(-INFINITY);
    }
    for (int64_t at = 0; at < most; at += KEYS) {
        int32_t sums[QUERIES * KEYS] __attribute__((aligned(64)));
        products(cache->keys + (line + at) * d, q, d, d, rows, KEYS, sums);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < KEYS; c += LANES) {
                vi sum;
                memcpy(&sum, sums + r * KEYS + c, sizeof sum);
                vf y = as_float(sum - off[r]) * scale[r] * load(cache->key_scale + line + at + c);
                float *to = scores + r * stride + at + c;
                store(to, y);
                if (at + c + LANES > seen + r) { /* mask what comes after the row */
                    for (int64_t i = 0; i < LANES; i++)
                        if (at + c + i >= seen + r) to[i] = -INFINITY;
                    y = load(to);
                }
                highest[r] = max_(highest[r], y);
            }
    }
    for (int r = 0; r < rows; r++) {
        vf top = all(largest_of(highest[r])), mass = all(0.0f);
        for (int64_t at = 0; at < seen + r; at += LANES) {
            float *to = scores + r * stride + at;
            vf e = exp_(load(to) - top);
            store(to, e);
            if (at + LANES > seen + r) {
                for (int64_t i = seen + r - at; i < LANES; i++) to[i] = 0;
                e = load(to);
            }
            mass += e;
            store(to, e * load(cache->value_scale + line + at));
        }
        inverse_sum[r] = 1.0f / sum_of(mass);
    }
}

INLINE void attend_to(const Model *m, const Row *row, int rows, int64_t layer, int64_t head, const float *query,
                      int64_t query_stride, float *scores, float *out, int64_t out_stride)
{
    const KVCache *cache = row->cache;
    int64_t d = m->head_width, seen = row->position + 1;
    int64_t line = (layer * m->kv_heads + head / (m->heads / m->kv_heads)) * cache->capacity;
    int64_t stride = cache->capacity + KEYS;
    const int8_t *values = cache->values + line * d;
    float inverse_sum[QUERIES];
    weigh_keys(m, cache, line, seen, rows, query, query_stride, scores, stride, inverse_sum);
    int64_t i = 0;
    for (; i + 4 * LANES <= d; i += 4 * LANES)
        mix_values(scores, stride, values + i, d, seen, rows, inverse_sum, out + i, out_stride, 4);
    for (; i < d; i += LANES)
        mix_values(scores, stride, values + i, d, seen, rows, inverse_sum, out + i, out_stride, 1);
}

/* The attention of `count` adjacent rows of one conversation in one head, each over everything up to itself. */
static void attend(const Model *m, const Row *row, int64_t count, int64_t layer, int64_t head, const float *query,
                   int64_t query_stride, float *scores, float *out, int64_t out_stride)
{
    while (count >= QUERIES) {
        attend_to(m, row, QUERIES, layer, head, query, query_stride, scores, out, out_stride);
        row += QUERIES, count -= QUERIES, query += QUERIES * query_stride, out += QUERIES * out_stride;
    }
    for (; count; row++, count--, query += query_stride, out += out_stride)
        attend_to(m, row, 1, layer, head, query, query_stride, scores, out, out_stride);
}

/* Of a row of logits times its inverse temperature: log Σ e^y, and the tokens within `reach` of the largest with their
 * y, in the vocabulary's order. `count` tells how many there are, of which `room` are written. */
static void top_tokens(const float *logits, int64_t vocabulary, float inverse, float reach, int64_t room,
                       int32_t *tokens, float *values, int64_t *count, double *logsumexp)
{
    enum { STEP = 4 * LANES };
    float tail[STEP];
    int64_t behind = vocabulary / STEP * STEP;
    for (int64_t i = 0; i < STEP; i++) tail[i] = behind + i < vocabulary ? logits[behind + i] : -INFINITY;
    vf most = all(-INFINITY);
    for (int64_t i = 0; i <= behind; i += LANES) {
        const float *at = i < behind ? logits + i : tail + (i - behind);
        most = max_(most, load(at));
    }
    for (int64_t i = LANES; i < STEP; i += LANES) most = max_(most, load(tail + i));
    float top = largest_of(most) * inverse, low = top - reach;
    vf sum = all(0.0f);
    *count = 0;
    for (int64_t i = 0; i <= behind; i += STEP) {
        const float *at = i < behind ? logits + i : tail;
        vf highest = all(-INFINITY);
        for (int c = 0; c < STEP; c += LANES) {
            vf y = load(at + c) * inverse;
            sum += exp_(y - top);
            highest = max_(highest, y);
        }
        if (!(largest_of(highest) >= low)) continue;
        for (int c = 0; c < STEP; c++) {
            float y = at[c] * inverse;
            if (!(y >= low) || i + c >= vocabulary) continue;
            if (*count < room) tokens[*count] = (int32_t)(i + c), values[*count] = y;
            ++*count;
        }
    }
    *logsumexp = top + log((double)sum_of(sum));
}

const Kernels JOIN(person2_, KIND) = {
    .name = TEXT(KIND),
    .columns = COLUMNS,
    .group = GROUP,
    .zero_point = ZERO_POINT,
    .quantized_size = sizeof(quantized_t),
    .embed = embed,
    .normalise = normalise,
    .gate = gate,
    .prepare = prepare,
    .product = product,
    .store_kv = store_kv,
    .attend = attend,
    .top_tokens = top_tokens,
};
