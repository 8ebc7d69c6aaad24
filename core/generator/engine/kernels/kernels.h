/* Shared by the step (`step.c`) and the kinds of kernels (`rows.c`, compiled once per kind): the model as Python lays
 * it out, one call, and the table of functions of a kind.
 */
#pragma once
#include <stdint.h>

enum { KEYS = 16, MAX_PARTS = 3, MAX_HEAD_WIDTH = 256 };
enum { STORE, ADD, ACTIVATE };             /* what is done with a product's result */
enum { QKV, ATTENTION_OUT, UP, DOWN, LINEARS };
enum { GELU_TANH, RELU, GELU, SILU_GATED }; /* the last one's inputs are gate and up side by side */

/* Weights (outputs/columns, inputs/group, columns, group) int8, as `Kernels` says; scale, bias: (outputs,).
 * Outputs may be several modules side by side, such as q, k and v: `ends` says where each part ends. A part's adapter
 * is in slot `slot` + part; slot -1: no adapter works here. */
typedef struct {
    const int8_t *weight;
    const float *scale, *bias;
    int64_t inputs, outputs, slot, parts, ends[MAX_PARTS], outliers;
} Linear;
typedef struct {
    Linear linear[LINEARS];
    const float *norm[2], *shift[2];    /* (width,); no shift: RMSNorm (arXiv:1910.07467) */
    const float *query_norm, *key_norm; /* (head_width,), or 0 */
} Layer;
typedef struct Kernels Kernels;
typedef struct {
    const Kernels *kernels;
    const Layer *layers;
    Linear head;
    const uint16_t *embedding;  /* (vocabulary, width) float16 */
    const float *positions; /* (context, width), or 0 */
    const float *rotary;    /* (context, 2, head_width / 2): cosines and sines (arXiv:2104.09864), or 0 */
    const float *last_norm, *last_shift;
    int64_t count, width, heads, kv_heads, head_width, inner, activation, slots;
    int64_t key_at, value_at; /* where keys and values begin in the outputs of QKV */
    double epsilon;
} Model;
/* (rank, inputs), (rank, outputs of the part), (outputs of the part,) */
typedef struct { const float *down, *up, *bias; int64_t rank, outputs; } Delta;
typedef struct { const Delta *deltas; const float *last; } Lora; /* (layers, slots) */
/* keys: (layers, kv_heads, capacity/16, head_width/group, 16, group); values: (layers, kv_heads, capacity, head_width)
 * int8; their scales: (layers, kv_heads, capacity) */
typedef struct { int8_t *keys, *values; float *key_scale, *value_scale; int64_t capacity; } KVCache;
typedef struct { int32_t token, position; const KVCache *cache; const Lora *lora; } Row;

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

/* The inputs of the next product, prepared for every row. */
typedef struct {
    const Call *call;
    int64_t stride, low_stride; /* of `quantized` in numbers, of `low` per part */
    char *quantized;            /* (rows, 1 or 2, stride): quantized activations */
    int32_t *sum;               /* (rows, 1 or 2): of each quantized row */
    float *scale, *low;         /* (rows,), (rows, MAX_PARTS, low_stride): adapters' low-rank parts */
} Prepared;

typedef struct {
    const Linear *linear;
    const int64_t *index; /* of rows, or 0 for all */
    int64_t layer;
    int mode;
    float *out; /* (rows, outputs) */
} Product;

struct Kernels {
    const char *name;
    int64_t columns;        /* outputs in a block of packed weights */
    int64_t group;          /* adjacent inputs of one output; 0: all of them */
    int64_t zero_point;     /* added to weights and keys: 128 where the processor multiplies unsigned by signed */
    int64_t quantized_size; /* bytes of a quantized activation */
    void (*embed)(const Model *, const Row *, float *x);
    void (*normalise)(const Model *, const float *x, const float *weight, const float *shift, float *out);
    void (*gate)(float *x, int64_t inner); /* silu(x) times the number `inner` after it, in place */
    void (*prepare)(const Prepared *, int64_t index, const float *x, const Linear *, const Delta *);
    void (*product)(const Prepared *, const Product *, int64_t rows, int64_t block);
    void (*store_kv)(const Model *, const Row *, int64_t layer, float *qkv);
    void (*attend)(const Model *, const Row *, int64_t count, int64_t layer, int64_t head, const float *query,
                   int64_t query_stride, float *scores, float *out, int64_t out_stride);
    void (*top_tokens)(const float *logits, int64_t vocabulary, float inverse, float reach, int64_t room,
                       int32_t *tokens, float *values, int64_t *count, double *logsumexp);
};
