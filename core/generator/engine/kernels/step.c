/* One step of GPT-2 for many conversations in one call: int8 weights, int8 keys and values, AVX-512 VNNI.
 *
 * Every row (one token of one conversation) is computed by itself, in an order that its own position fixes; products
 * of int8 are summed in int32, which is exact. So a row's result has the same bits whoever shares the call, however
 * prompts are cut into pieces and whatever the number of threads.
 *
 * Activations are rounded per row to ±127 just before each product (dynamic), weights were rounded per output channel
 * and are stored around 128, because VNNI multiplies unsigned by signed; 128 × (sum of the row) is taken off again.
 * Keys are rounded per token and head. Their part of c_attn's bias is left out: it adds the same number to every score
 * of a query, which softmax does not see, and without it the keys are smaller, so they round better.
 *
 * Threads live for one call. They take each phase's items from a counter, and go on when all its items are done: a
 * thread that the system does not let run is waited for only if it has begun an item. On a busy machine that is what
 * keeps a step from taking a scheduler's turn at each of its 120 phases.
 */
#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 16, COLUMNS = 64, ROWS = 6, MODULES = 4, SPINS = 4000 };
enum { STORE, ADD, ACTIVATE };
enum { C_ATTN, ATTN_PROJ, C_FC, MLP_PROJ };
enum { GELU_TANH, RELU };

/* weight: (outputs/64, inputs/4, 64, 4) uint8; scale, bias: (outputs,) */
typedef struct { const uint8_t *weight; const float *scale, *bias; int64_t inputs, outputs; } Linear;
typedef struct { Linear linear[MODULES]; const float *norm[2], *shift[2]; } Layer;
typedef struct {
    const Layer *layers;
    Linear head;
    const uint16_t *words; /* (vocabulary, width) float16 */
    const float *places, *last_norm, *last_shift;
    int64_t count, width, heads, head_width, inner, activation;
    double epsilon;
} Model;
typedef struct { const float *down, *up, *bias; int64_t rank; } Delta; /* (rank, inputs), (rank, outputs), (outputs,) */
typedef struct { const Delta *deltas; const float *last; } Lora;       /* (layers, MODULES) */
/* keys: (layers, heads, capacity/16, head_width/4, 16, 4) uint8; values: (layers, heads, capacity, head_width) int8;
 * their scales: (layers, heads, capacity) */
typedef struct { uint8_t *keys; int8_t *values; float *key_scale, *value_scale; int64_t capacity; } Room;
typedef struct { int32_t token, place; const Room *room; const Lora *lora; } Row;

typedef struct {
    const Model *model;
    const Row *rows;
    int64_t row_count;
    const int64_t *wanted; /* rows whose logits are wanted */
    int64_t wanted_count;
    float *logits; /* (wanted, head.outputs) */
    float *scratch;
    int64_t threads, max_rank, context;
} Call;

typedef struct {
    const Call *call;
    float *x, *wide, *mixed, *low, *scale;
    int8_t *whole;
    int32_t *sum;
    atomic_int *taken, *done; /* of each phase */
} Shared;

typedef struct { Shared *shared; float *line, *scores; int phase; } Thread;

static int64_t up16(int64_t n) { return (n + 15) / 16 * 16; }

/* Floats of scratch a call needs; the layout is in `person2_step`. */
int64_t person2_scratch(const Model *m, int64_t rows, int64_t threads, int64_t max_rank, int64_t context)
{
    int64_t wide = m->inner > 3 * m->width ? m->inner : 3 * m->width;
    return rows * (2 * m->width + wide + up16(max_rank) + wide / 4 + 2) + threads * (wide + context + 64)
           + 2 * (m->count * 10 + 8) + 16;
}

static int64_t next(Thread *t) { return atomic_fetch_add(&t->shared->taken[t->phase], 1); }

static void finish(Thread *t) { atomic_fetch_add(&t->shared->done[t->phase], 1); }

/* The end of a phase of so many items. */
static void meet(Thread *t, int64_t items)
{
    for (int spins = 0; atomic_load(&t->shared->done[t->phase]) < items; spins++) {
        if (spins < SPINS) _mm_pause();
        else sched_yield();
    }
    t->phase++;
}

/* acc += w * v, four products a lane. Written out, because GCC 12 moves the accumulators of the intrinsic's loop to the
 * stack and back (half the speed). */
static inline __attribute__((always_inline)) void multiply_add(__m512i *acc, __m512i w, __m512i v)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*acc) : "v"(w), "v"(v));
}

/* e^x for x <= 88, relative error below 2e-7: 2^n times a polynomial on [-1/2, 1/2]. */
static inline __m512 exp16(__m512 x)
{
    __m512 y = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(1.44269504088896341f));
    __m512 n = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(y, n);
    __m512 p = _mm512_set1_ps(1.535336188319500e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.339887440266574e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.618437357674640e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.550332471162809e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402264791363012e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931472028550421e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* x/2 (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3)  (Hendrycks & Gimpel, arXiv:1606.08415) */
static inline __m512 activate(__m512 x, int64_t activation)
{
    if (activation == RELU) return _mm512_max_ps(x, _mm512_setzero_ps());
    __m512 inner = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f), _mm512_set1_ps(1.0f));
    __m512 u = _mm512_mul_ps(_mm512_mul_ps(x, inner), _mm512_set1_ps(-2 * 0.7978845608028654f));
    __m512 e = exp16(_mm512_min_ps(u, _mm512_set1_ps(88.0f)));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

static void norm(const float *x, float *y, int64_t width, const float *weight, const float *shift, double epsilon)
{
    __m512 sum = _mm512_setzero_ps(), square = _mm512_setzero_ps();
    for (int64_t i = 0; i < width; i += LANES) sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + i));
    __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / (float)width);
    for (int64_t i = 0; i < width; i += LANES) {
        __m512 d = _mm512_sub_ps(_mm512_loadu_ps(x + i), mean);
        square = _mm512_fmadd_ps(d, d, square);
    }
    __m512 inverse = _mm512_set1_ps((float)(1.0 / sqrt(_mm512_reduce_add_ps(square) / (double)width + epsilon)));
    for (int64_t i = 0; i < width; i += LANES) {
        __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), mean), inverse);
        _mm512_storeu_ps(y + i, _mm512_fmadd_ps(d, _mm512_loadu_ps(weight + i), _mm512_loadu_ps(shift + i)));
    }
}

/* x (n) float → q (n) int8; returns the scale, and the sum of q. The scale of a row with a NaN or an infinity is one
 * too, so that damaged numbers are still seen in the logits: magnitudes are compared as integers, which NaN exceeds. */
static float round_off(const float *x, int8_t *q, int64_t n, int32_t *sum)
{
    __m512i largest = _mm512_setzero_si512(), magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int64_t i = 0; i < n; i += LANES)
        largest = _mm512_max_epi32(largest, _mm512_and_epi32(_mm512_loadu_si512(x + i), magnitude));
    int32_t bits = _mm512_reduce_max_epi32(largest);
    float most;
    memcpy(&most, &bits, 4);
    if (most < 1e-10f) most = 1e-10f;
    __m512 inverse = _mm512_set1_ps(127.0f / most);
    __m512i total = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += LANES) {
        __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), inverse));
        total = _mm512_add_epi32(total, v);
        _mm_storeu_si128((__m128i *)(q + i), _mm512_cvtepi32_epi8(v));
    }
    *sum = _mm512_reduce_add_epi32(total);
    return most / 127.0f;
}

static const Delta *delta_of(const Row *row, int64_t layer, int module)
{
    return row->lora ? row->lora->deltas + layer * MODULES + module : 0;
}

/* What a row brings to the next product: rounded, and its adapter's low-rank part. */
static void prepare(Shared *s, int64_t index, const float *x, int64_t n, const Delta *delta)
{
    const Model *m = s->call->model;
    int64_t wide = m->inner > 3 * m->width ? m->inner : 3 * m->width;
    s->scale[index] = round_off(x, s->whole + index * wide, n, s->sum + index);
    if (!delta) return;
    float *low = s->low + index * up16(s->call->max_rank);
    for (int64_t j = 0; j < delta->rank; j++) {
        const float *down = delta->down + j * n;
        __m512 one = _mm512_setzero_ps(), two = _mm512_setzero_ps();
        int64_t i = 0;
        for (; i + 2 * LANES <= n; i += 2 * LANES) {
            one = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(down + i), one);
            two = _mm512_fmadd_ps(_mm512_loadu_ps(x + i + LANES), _mm512_loadu_ps(down + i + LANES), two);
        }
        for (; i < n; i += LANES) one = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(down + i), one);
        low[j] = _mm512_reduce_add_ps(_mm512_add_ps(one, two));
    }
}

typedef struct {
    const Linear *linear;
    const int64_t *index; /* which rows, or 0 for all */
    int64_t layer, activation;
    int module; /* -1: no adapter works here */
    int mode;
    float *out;
} Product;

/* `rows` (a constant where it is inlined) rows of one block of 64 columns. */
static inline __attribute__((always_inline)) void tile(const Thread *t, const Product *p, int64_t first, int rows,
                                                       int64_t block)
{
    const Shared *s = t->shared;
    const Model *m = s->call->model;
    const Linear *l = p->linear;
    int64_t wide = m->inner > 3 * m->width ? m->inner : 3 * m->width;
    const uint8_t *w = l->weight + block * l->inputs * COLUMNS;
    const int8_t *a = s->whole + first * wide;
    __m512i acc[ROWS][4];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) acc[r][c] = _mm512_setzero_si512();
    for (int64_t k = 0; k < l->inputs; k += 4, w += 4 * COLUMNS) {
        __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + 64);
        __m512i w2 = _mm512_loadu_si512(w + 128), w3 = _mm512_loadu_si512(w + 192);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, a + r * wide + k, 4);
            __m512i v = _mm512_set1_epi32(four);
            multiply_add(&acc[r][0], w0, v);
            multiply_add(&acc[r][1], w1, v);
            multiply_add(&acc[r][2], w2, v);
            multiply_add(&acc[r][3], w3, v);
        }
    }
    int64_t column = block * COLUMNS;
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        int64_t index = first + r;
        const Row *row = s->call->rows + (p->index ? p->index[index] : index);
        const Delta *delta = p->module >= 0 ? delta_of(row, p->layer, p->module) : 0;
        const float *low = s->low + index * up16(s->call->max_rank);
        __m512 scale = _mm512_set1_ps(s->scale[index]);
        __m512i off = _mm512_set1_epi32(128 * s->sum[index]);
        float *out = p->out + index * l->outputs + column;
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) {
            int64_t at = column + c * LANES;
            __m512 y = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(acc[r][c], off)), scale);
            y = _mm512_fmadd_ps(y, _mm512_loadu_ps(l->scale + at), _mm512_loadu_ps(l->bias + at));
            if (delta) {
                for (int64_t j = 0; j < delta->rank; j++)
                    y = _mm512_fmadd_ps(_mm512_set1_ps(low[j]), _mm512_loadu_ps(delta->up + j * l->outputs + at), y);
                if (delta->bias) y = _mm512_add_ps(y, _mm512_loadu_ps(delta->bias + at));
            }
            if (p->mode == ACTIVATE) y = activate(y, p->activation);
            if (p->mode == ADD) y = _mm512_add_ps(y, _mm512_loadu_ps(out + c * LANES));
            _mm512_storeu_ps(out + c * LANES, y);
        }
    }
}

/* A prepared batch of rows times a weight matrix; threads share the blocks of columns. */
static void multiply(Thread *t, const Product *p, int64_t rows)
{
    int64_t blocks = p->linear->outputs / COLUMNS, groups = (rows + ROWS - 1) / ROWS;
    for (int64_t block; (block = next(t)) < blocks; finish(t)) {
        int64_t first = 0;
        for (int64_t g = 0; g < groups; g++) {
            int count = (int)((rows - first + groups - g - 1) / (groups - g)); /* even groups: 32 is 6 6 5 5 5 5 */
            switch (count) {
            case 1: tile(t, p, first, 1, block); break;
            case 2: tile(t, p, first, 2, block); break;
            case 3: tile(t, p, first, 3, block); break;
            case 4: tile(t, p, first, 4, block); break;
            case 5: tile(t, p, first, 5, block); break;
            default: tile(t, p, first, 6, block); break;
            }
            first += count;
        }
    }
    meet(t, blocks);
}

/* Put one row's key and value of every head into its room. */
static void remember(const Model *m, const Row *row, int64_t layer, const float *qkv)
{
    const Room *room = row->room;
    int64_t d = m->head_width, at = row->place;
    int8_t key[d];
    for (int64_t head = 0; head < m->heads; head++) {
        int64_t line = (layer * m->heads + head) * room->capacity;
        int32_t unused;
        room->key_scale[line + at] = round_off(qkv + m->width + head * d, key, d, &unused);
        uint8_t *block = room->keys + (line + at / LANES * LANES) * d + at % LANES * 4;
        for (int64_t i = 0; i < d; i++) block[i / 4 * COLUMNS + i % 4] = (uint8_t)(key[i] + 128);
        int8_t *value = room->values + (line + at) * d;
        room->value_scale[line + at] = round_off(qkv + 2 * m->width + head * d, value, d, &unused);
    }
}

/* out = whole * sum over the tokens of weight * value, for `vectors` (a constant) times 16 numbers of a head. */
static inline __attribute__((always_inline)) void mix(const float *weights, const int8_t *values, int64_t stride,
                                                      int64_t tokens, __m512 whole, float *out, int vectors)
{
    __m512 even[4], odd[4];
#pragma GCC unroll 4
    for (int c = 0; c < vectors; c++) even[c] = odd[c] = _mm512_setzero_ps();
    int64_t at = 0;
#define VALUE(t, c) \
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(values + (t) * stride + (c) * LANES))))
    for (; at + 1 < tokens; at += 2) {
        __m512 w0 = _mm512_set1_ps(weights[at]), w1 = _mm512_set1_ps(weights[at + 1]);
#pragma GCC unroll 4
        for (int c = 0; c < vectors; c++) {
            even[c] = _mm512_fmadd_ps(w0, VALUE(at, c), even[c]);
            odd[c] = _mm512_fmadd_ps(w1, VALUE(at + 1, c), odd[c]);
        }
    }
#pragma GCC unroll 4
    for (int c = 0; c < vectors; c++) {
        if (at < tokens) even[c] = _mm512_fmadd_ps(_mm512_set1_ps(weights[at]), VALUE(at, c), even[c]);
        _mm512_storeu_ps(out + c * LANES, _mm512_mul_ps(_mm512_add_ps(even[c], odd[c]), whole));
    }
#undef VALUE
}

/* One row's attention in one head over everything up to itself. */
static void attend(const Thread *t, const Row *row, int64_t layer, int64_t head, const float *query, float *out)
{
    const Model *m = t->shared->call->model;
    const Room *room = row->room;
    int64_t d = m->head_width, seen = row->place + 1, line = (layer * m->heads + head) * room->capacity;
    const uint8_t *keys = room->keys + line * d;
    const int8_t *values = room->values + line * d;
    float *scores = t->scores;
    int8_t q[d];
    int32_t sum;
    float unit = round_off(query, q, d, &sum) / sqrtf((float)d);
    __m512 scale = _mm512_set1_ps(unit), highest = _mm512_set1_ps(-INFINITY);
    __m512i off = _mm512_set1_epi32(128 * sum);
    for (int64_t at = 0; at < seen; at += LANES) {
        __m512i one = _mm512_setzero_si512(), two = _mm512_setzero_si512();
        const uint8_t *block = keys + at * d;
        for (int64_t i = 0; i < d; i += 8, block += 2 * COLUMNS) {
            int32_t a, b;
            memcpy(&a, q + i, 4);
            memcpy(&b, q + i + 4, 4);
            multiply_add(&one, _mm512_loadu_si512(block), _mm512_set1_epi32(a));
            multiply_add(&two, _mm512_loadu_si512(block + COLUMNS), _mm512_set1_epi32(b));
        }
        __m512 y = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_add_epi32(one, two), off));
        y = _mm512_mul_ps(_mm512_mul_ps(y, scale), _mm512_loadu_ps(room->key_scale + line + at));
        if (at + LANES > seen) /* behind the row there is no past, whatever lies there */
            y = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), (__mmask16)((1u << (seen - at)) - 1), y);
        highest = _mm512_max_ps(highest, y);
        _mm512_storeu_ps(scores + at, y);
    }
    __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(highest)), mass = _mm512_setzero_ps();
    for (int64_t at = 0; at < seen; at += LANES) {
        __mmask16 past = at + LANES > seen ? (__mmask16)((1u << (seen - at)) - 1) : 0xffff;
        __m512 e = _mm512_maskz_mov_ps(past, exp16(_mm512_sub_ps(_mm512_loadu_ps(scores + at), top)));
        mass = _mm512_add_ps(mass, e);
        e = _mm512_maskz_mul_ps(past, e, _mm512_loadu_ps(room->value_scale + line + at));
        _mm512_storeu_ps(scores + at, e);
    }
    __m512 whole = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(mass));
    int64_t i = 0;
    for (; i + COLUMNS <= d; i += COLUMNS) mix(scores, values + i, d, seen, whole, out + i, 4);
    for (; i < d; i += LANES) mix(scores, values + i, d, seen, whole, out + i, 1);
}

static void embed(const Model *m, const Row *row, float *x)
{
    const uint16_t *word = m->words + (int64_t)row->token * m->width;
    const float *place = m->places + (int64_t)row->place * m->width;
    for (int64_t i = 0; i < m->width; i += LANES)
        _mm512_storeu_ps(x + i, _mm512_add_ps(_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(word + i))),
                                              _mm512_loadu_ps(place + i)));
}

static void *work(void *argument)
{
    Thread *t = argument;
    Shared *s = t->shared;
    const Call *call = s->call;
    const Model *m = call->model;
    const Row *rows = call->rows;
    int64_t n = call->row_count, width = m->width;
    for (int64_t i; (i = next(t)) < n; finish(t)) embed(m, rows + i, s->x + i * width);
    meet(t, n);
    for (int64_t layer = 0; layer < m->count; layer++) {
        const Layer *l = m->layers + layer;
        Product p = {.layer = layer, .activation = m->activation};
        for (int64_t i; (i = next(t)) < n; finish(t)) {
            norm(s->x + i * width, t->line, width, l->norm[0], l->shift[0], m->epsilon);
            prepare(s, i, t->line, width, delta_of(rows + i, layer, C_ATTN));
        }
        meet(t, n);
        p.linear = &l->linear[C_ATTN], p.module = C_ATTN, p.mode = STORE, p.out = s->wide;
        multiply(t, &p, n);
        for (int64_t i; (i = next(t)) < n; finish(t)) remember(m, rows + i, layer, s->wide + i * 3 * width);
        meet(t, n);
        for (int64_t i; (i = next(t)) < n * m->heads; finish(t)) {
            int64_t row = i / m->heads, at = i % m->heads * m->head_width;
            attend(t, rows + row, layer, i % m->heads, s->wide + row * 3 * width + at, s->mixed + row * width + at);
        }
        meet(t, n * m->heads);
        for (int64_t i; (i = next(t)) < n; finish(t))
            prepare(s, i, s->mixed + i * width, width, delta_of(rows + i, layer, ATTN_PROJ));
        meet(t, n);
        p.linear = &l->linear[ATTN_PROJ], p.module = ATTN_PROJ, p.mode = ADD, p.out = s->x;
        multiply(t, &p, n);
        for (int64_t i; (i = next(t)) < n; finish(t)) {
            norm(s->x + i * width, t->line, width, l->norm[1], l->shift[1], m->epsilon);
            prepare(s, i, t->line, width, delta_of(rows + i, layer, C_FC));
        }
        meet(t, n);
        p.linear = &l->linear[C_FC], p.module = C_FC, p.mode = ACTIVATE, p.out = s->wide;
        multiply(t, &p, n);
        for (int64_t i; (i = next(t)) < n; finish(t))
            prepare(s, i, s->wide + i * m->inner, m->inner, delta_of(rows + i, layer, MLP_PROJ));
        meet(t, n);
        p.linear = &l->linear[MLP_PROJ], p.module = MLP_PROJ, p.mode = ADD, p.out = s->x;
        multiply(t, &p, n);
    }
    for (int64_t i; (i = next(t)) < call->wanted_count; finish(t)) {
        const Row *row = rows + call->wanted[i];
        norm(s->x + call->wanted[i] * width, t->line, width, m->last_norm, m->last_shift, m->epsilon);
        if (row->lora && row->lora->last)
            for (int64_t c = 0; c < width; c++) t->line[c] += row->lora->last[c];
        prepare(s, i, t->line, width, 0);
    }
    meet(t, call->wanted_count);
    Product head = {.linear = &m->head, .index = call->wanted, .module = -1, .mode = STORE, .out = call->logits};
    multiply(t, &head, call->wanted_count);
    return 0;
}

/* Compute a step, with fewer threads where the system refuses some. */
void person2_step(const Call *call)
{
    const Model *m = call->model;
    int64_t rows = call->row_count, wide = m->inner > 3 * m->width ? m->inner : 3 * m->width;
    int64_t threads = call->threads;
    float *at = call->scratch;
    Shared s = {.call = call};
    s.x = at, at += rows * m->width;
    s.mixed = at, at += rows * m->width;
    s.wide = at, at += rows * wide;
    s.low = at, at += rows * up16(call->max_rank);
    s.whole = (int8_t *)at, at += rows * wide / 4;
    s.scale = at, at += rows;
    s.sum = (int32_t *)at, at += rows;
    Thread team_of[threads];
    for (int64_t i = 0; i < threads; i++) {
        team_of[i] = (Thread){.shared = &s, .line = at, .scores = at + wide};
        at += wide + call->context + 64;
    }
    int64_t phases = m->count * 10 + 8;
    s.taken = (atomic_int *)at;
    s.done = s.taken + phases;
    memset(s.taken, 0, (size_t)phases * 2 * sizeof *s.taken);
    pthread_t ids[threads];
    int team = 1;
    while (team < threads && !pthread_create(&ids[team], 0, work, &team_of[team])) team++;
    work(&team_of[0]);
    for (int i = 1; i < team; i++) pthread_join(ids[i], 0);
}

/* For sampling: of each row of logits times its inverse temperature, log Σ e^y, and the tokens within `reach` of the
 * largest with their y, in the vocabulary's order. `counts` tells how many there are, of which `room` are written. */
void person2_likeliest(const float *logits, int64_t rows, int64_t stride, int64_t vocabulary, const float *inverse,
                       float reach, int64_t room, int32_t *tokens, float *values, int64_t *counts, double *whole)
{
    __m512i steps = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t row = 0; row < rows; row++, logits += stride, tokens += room, values += room) {
        __m512 none = _mm512_set1_ps(-INFINITY), scale = _mm512_set1_ps(inverse[row]), most = none;
        for (int64_t i = 0; i < vocabulary; i += LANES) {
            __mmask16 in = vocabulary - i < LANES ? (__mmask16)((1u << (vocabulary - i)) - 1) : 0xffff;
            most = _mm512_max_ps(most, _mm512_mask_loadu_ps(none, in, logits + i));
        }
        float top = _mm512_reduce_max_ps(most) * inverse[row];
        __m512 high = _mm512_set1_ps(top), low = _mm512_set1_ps(top - reach), sum = _mm512_setzero_ps();
        int64_t count = 0;
        for (int64_t i = 0; i < vocabulary; i += LANES) {
            __mmask16 in = vocabulary - i < LANES ? (__mmask16)((1u << (vocabulary - i)) - 1) : 0xffff;
            __m512 y = _mm512_mul_ps(_mm512_mask_loadu_ps(none, in, logits + i), scale);
            sum = _mm512_add_ps(sum, _mm512_maskz_mov_ps(in, exp16(_mm512_sub_ps(y, high))));
            __mmask16 near = _mm512_mask_cmp_ps_mask(in, y, low, _CMP_GE_OQ);
            if (!near) continue;
            if (count + LANES <= room) {
                __m512i number = _mm512_add_epi32(steps, _mm512_set1_epi32((int32_t)i));
                _mm512_mask_compressstoreu_epi32(tokens + count, near, number);
                _mm512_mask_compressstoreu_ps(values + count, near, y);
            }
            count += _mm_popcnt_u32(near);
        }
        counts[row] = count;
        whole[row] = top + log((double)_mm512_reduce_add_ps(sum));
    }
}
