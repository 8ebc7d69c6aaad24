/* A small random model through each kind of kernels of this processor, without Python: what `test_kernels_elsewhere.py`
 * runs on processors that are only emulated. Prints a line a kind: its name, whether rows have the same bits alone and
 * in company, and every logit as bits. Numbers come from a generator of integers alone, so that every processor draws
 * the same.
 *
 *     kernels_check gpt2|llama KIND…
 */
#include "../../../core/generator/engine/kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const Kernels *person2_kernels(const char *name);
int64_t person2_scratch(const Call *call);
void person2_step(const Call *call);

enum { WIDTH = 64, LAYERS = 2, HEADS = 4, HEAD_WIDTH = 16, INNER = 128, WORDS = 128, CONTEXT = 64, RANK = 3, TALKS = 3 };
static const int lengths[TALKS] = {40, 17, 33};
static uint32_t state;

static float draw(float scale) /* in (-scale, scale) */
{
    state = state * 1664525u + 1013904223u;
    return ((float)(state >> 8) / 8388608.0f - 1.0f) * scale;
}

static float *floats(int64_t n, float scale, float middle)
{
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = middle + draw(scale);
    return x;
}

static Linear linear(const Kernels *k, int64_t inputs, int64_t outputs, int64_t slot, int64_t parts)
{
    int8_t *packed = malloc((size_t)(inputs * outputs));
    int64_t group = k->group ? k->group : inputs, columns = k->columns;
    for (int64_t o = 0; o < outputs; o++)
        for (int64_t i = 0; i < inputs; i++) {
            int64_t block = o / columns * columns * inputs + i / group * group * columns;
            packed[block + o % columns * group + i % group] = (int8_t)((int)draw(127.0f) + k->zero_point);
        }
    Linear l = {packed, floats(outputs, 0.0005f, 0.001f), floats(outputs, 0.1f, 0.0f), inputs, outputs, slot, parts, {0}};
    for (int64_t p = 0; p < parts; p++) l.ends[p] = outputs / parts * (p + 1);
    return l;
}

static Model model_of(const Kernels *k, int llama)
{
    Layer *layers = calloc(LAYERS, sizeof *layers);
    int64_t parts = llama ? 3 : 1, kv_heads = HEADS, qkv = 3 * WIDTH, inner = llama ? 2 * INNER : INNER;
    for (int n = 0; n < LAYERS; n++) {
        Layer *l = layers + n;
        l->linear[QKV] = linear(k, WIDTH, qkv, 0, parts);
        l->linear[ATTENTION_OUT] = linear(k, WIDTH, WIDTH, parts, 1);
        l->linear[UP] = linear(k, WIDTH, inner, parts + 1, llama ? 2 : 1);
        l->linear[DOWN] = linear(k, INNER, WIDTH, parts + (llama ? 3 : 2), 1);
        for (int i = 0; i < LINEARS; i++) l->linear[i].outliers = llama;
        for (int i = 0; i < 2; i++) {
            l->norm[i] = floats(WIDTH, 0.2f, 1.0f);
            l->shift[i] = llama ? 0 : floats(WIDTH, 0.2f, 0.0f);
        }
        if (llama) l->query_norm = floats(HEAD_WIDTH, 0.2f, 1.0f), l->key_norm = floats(HEAD_WIDTH, 0.2f, 1.0f);
    }
    uint16_t *embedding = malloc(WORDS * WIDTH * sizeof *embedding);
    for (int i = 0; i < WORDS * WIDTH; i++) { /* halves between 0.25 and 0.5, of both signs */
        uint32_t bits = (uint32_t)(draw(8000000.0f) + 8000000.0f);
        embedding[i] = (uint16_t)(0x3400 | (bits & 0x3ff) | (bits & 0x400 ? 0x8000 : 0));
    }
    float *rotary = malloc(CONTEXT * HEAD_WIDTH * sizeof *rotary);
    for (int at = 0; at < CONTEXT; at++)
        for (int i = 0; i < HEAD_WIDTH / 2; i++) {
            float t = draw(2.0f), below = 1.0f + t * t;
            rotary[at * HEAD_WIDTH + i] = (1.0f - t * t) / below;
            rotary[at * HEAD_WIDTH + HEAD_WIDTH / 2 + i] = 2.0f * t / below;
        }
    return (Model){
        .kernels = k,
        .layers = layers,
        .head = linear(k, WIDTH, WORDS, -1, 1),
        .embedding = embedding,
        .positions = llama ? 0 : floats(CONTEXT * WIDTH, 0.5f, 0.0f),
        .rotary = llama ? rotary : 0,
        .last_norm = floats(WIDTH, 0.2f, 1.0f),
        .last_shift = llama ? 0 : floats(WIDTH, 0.2f, 0.0f),
        .count = LAYERS,
        .width = WIDTH,
        .heads = HEADS,
        .kv_heads = kv_heads,
        .head_width = HEAD_WIDTH,
        .inner = INNER,
        .activation = llama ? SILU_GATED : GELU_TANH,
        .slots = llama ? 7 : 4,
        .key_at = WIDTH,
        .value_at = 2 * WIDTH,
        .epsilon = 1e-5,
    };
}

static Lora adapter(const Model *m)
{
    Delta *deltas = calloc((size_t)(LAYERS * m->slots), sizeof *deltas);
    for (int n = 0; n < LAYERS; n++)
        for (int which = 0; which < LINEARS; which++) {
            const Linear *l = &m->layers[n].linear[which];
            for (int64_t p = 0; p < l->parts; p++) {
                int64_t outputs = l->outputs / l->parts;
                deltas[n * m->slots + l->slot + p] = (Delta){floats(RANK * l->inputs, 0.2f, 0.0f),
                                                             floats(RANK * outputs, 0.2f, 0.0f), 0, RANK, outputs};
            }
        }
    return (Lora){deltas, 0};
}

static KVCache cache(void)
{
    int64_t tokens = LAYERS * HEADS * CONTEXT;
    KVCache made = {malloc((size_t)(tokens * HEAD_WIDTH)), malloc((size_t)(tokens * HEAD_WIDTH)), 0, 0, CONTEXT};
    made.key_scale = malloc((size_t)tokens * sizeof(float));
    made.value_scale = malloc((size_t)tokens * sizeof(float));
    return made;
}

static void step(const Model *m, const Row *rows, int64_t count, const int64_t *wanted, int64_t wanted_count,
                 float *logits, int64_t threads)
{
    Call call = {m, rows, count, wanted, wanted_count, logits, 0, threads, RANK, CONTEXT};
    call.scratch = malloc((size_t)person2_scratch(&call) * sizeof(float));
    person2_step(&call);
    free(call.scratch);
}

static Row row_of(int talk, int at, const KVCache *cache, const Lora *lora)
{
    return (Row){(talk * 31 + at * 7) % WORDS, at, cache, talk == 1 ? lora : 0};
}

int main(int count, char **names)
{
    int llama = count > 1 && !strcmp(names[1], "llama");
    for (int n = 2; n < count; n++) {
        const Kernels *k = person2_kernels(names[n]);
        if (!k) continue;
        state = 1;
        Model m = model_of(k, llama);
        Lora lora = adapter(&m);
        float alone[TALKS * WORDS], together[TALKS * WORDS];
        KVCache caches[TALKS];
        Row rows[256];
        for (int t = 0; t < TALKS; t++) {
            KVCache own = cache();
            for (int at = 0; at < lengths[t]; at++) rows[at] = row_of(t, at, &own, &lora);
            int64_t last = lengths[t] - 1;
            step(&m, rows, lengths[t], &last, 1, alone + t * WORDS, 1);
            caches[t] = cache();
        }
        int64_t wanted[TALKS], size = 0; /* in pieces: five tokens of each, then the rest of all, by three threads */
        for (int t = 0; t < TALKS; t++)
            for (int at = 0; at < 5; at++) rows[size++] = row_of(t, at, caches + t, &lora);
        step(&m, rows, size, wanted, 0, together, 3);
        size = 0;
        for (int t = 0; t < TALKS; t++) {
            for (int at = 5; at < lengths[t]; at++) rows[size++] = row_of(t, at, caches + t, &lora);
            wanted[t] = size - 1;
        }
        step(&m, rows, size, wanted, TALKS, together, 3);
        printf("%s %s", k->name, memcmp(alone, together, sizeof alone) ? "differs" : "same");
        for (int i = 0; i < TALKS * WORDS; i++) {
            uint32_t bits;
            memcpy(&bits, together + i, 4);
            printf(" %08x", bits);
        }
        printf("\n");
    }
    return 0;
}
