/* One step of a model for many conversations in one call: int8 weights, int8 keys and values.
 *
 * The phases of a step and the threads that share them are here; what is done with a row is in `rows.c`, compiled for
 * each kind of processor, and chosen once, when the model is made (`person2_kernels`).
 *
 * Threads live for one call. They take each phase's items from a counter, and go on when all its items are done, so a
 * thread that is not scheduled is waited for only if it has begun an item. On a busy machine this avoids waiting for
 * the scheduler at each of a step's 120 phases.
 */
#include "kernels.h"

#include <stdatomic.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
typedef HANDLE thread_t;
#define THREAD(name, argument) static DWORD WINAPI name(void *argument)
#define START(id, work, argument) ((*(id) = CreateThread(0, 0, work, argument, 0, 0)) == 0)
#define JOIN(id) (WaitForSingleObject(id, INFINITE), CloseHandle(id))
#define YIELD() SwitchToThread()
#else
#define EXPORT __attribute__((visibility("default")))
#include <pthread.h>
#include <sched.h>
typedef pthread_t thread_t;
#define THREAD(name, argument) static void *name(void *argument)
#define START(id, work, argument) pthread_create(id, 0, work, argument)
#define JOIN(id) pthread_join(id, 0)
#define YIELD() sched_yield()
#endif

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() (void)0
#endif

enum { SPINS = 4000, MAX_THREADS = 64, NEIGHBOURS = 4, ALIGNED = 64 };

typedef struct {
    const Call *call;
    Prepared prepared;
    float *x, *wide, *attended;
    int64_t wide_stride, attended_stride;
    const int32_t *runs; /* where each run of adjacent rows of one conversation begins, and the end of the rows */
    int64_t run_count;
    atomic_int *taken, *done; /* of each phase */
} Shared;

typedef struct { Shared *shared; float *line, *scores; int phase; } Thread;

static int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* The widest row between two products. */
static int64_t widest(const Model *m)
{
    const Linear *l = m->layers[0].linear;
    return larger(larger(l[QKV].outputs, l[UP].outputs), larger(l[ATTENTION_OUT].inputs, m->width));
}

static int64_t phases(const Model *m) { return m->count * 10 + 4; }

static int64_t scores_of(const Call *c) { return NEIGHBOURS * (up(c->context, ALIGNED) + 2 * ALIGNED); }

/* Floats of scratch a call needs; the layout is in `person2_step`. */
EXPORT int64_t person2_scratch(const Call *c)
{
    const Model *m = c->model;
    int64_t wide = up(widest(m), ALIGNED), low = MAX_PARTS * up(c->max_rank, KEYS);
    int64_t row = up(m->width, ALIGNED) + up(m->layers[0].linear[ATTENTION_OUT].inputs, ALIGNED) + wide + low
                  + 2 * wide * m->kernels->quantized_size / 4 + 4;
    return c->row_count * row + c->threads * (wide + scores_of(c)) + 2 * phases(m) + 8 * ALIGNED;
}

static int64_t next(Thread *t) { return atomic_fetch_add(&t->shared->taken[t->phase], 1); }

static void finish(Thread *t) { atomic_fetch_add(&t->shared->done[t->phase], 1); }

/* Wait until all items of a phase are done. */
static void barrier(Thread *t, int64_t items)
{
    for (int spins = 0; atomic_load(&t->shared->done[t->phase]) < items; spins++) {
        if (spins < SPINS) PAUSE();
        else YIELD();
    }
    t->phase++;
}

static const Delta *deltas_of(const Model *m, const Row *row, int64_t layer)
{
    return row->lora ? row->lora->deltas + layer * m->slots : 0;
}

static void multiply(Thread *t, const Product *p, int64_t rows)
{
    const Kernels *k = t->shared->call->model->kernels;
    int64_t blocks = p->linear->outputs / k->columns;
    for (int64_t block; (block = next(t)) < blocks; finish(t)) k->product(&t->shared->prepared, p, rows, block);
    barrier(t, blocks);
}

THREAD(work, argument)
{
    Thread *t = argument;
    Shared *s = t->shared;
    const Prepared *prepared = &s->prepared;
    const Call *call = s->call;
    const Model *m = call->model;
    const Kernels *k = m->kernels;
    const Row *rows = call->rows;
    int64_t n = call->row_count, width = m->width, attended = s->attended_stride;
    for (int64_t i; (i = next(t)) < n; finish(t)) k->embed(m, rows + i, s->x + i * width);
    barrier(t, n);
    for (int64_t layer = 0; layer < m->count; layer++) {
        const Layer *l = m->layers + layer;
        const Linear *qkv = &l->linear[QKV], *out = &l->linear[ATTENTION_OUT];
        const Linear *inner = &l->linear[UP], *down = &l->linear[DOWN];
        Product p = {.layer = layer};
        for (int64_t i; (i = next(t)) < n; finish(t)) {
            k->normalise(m, s->x + i * width, l->norm[0], l->shift[0], t->line);
            k->prepare(prepared, i, t->line, qkv, deltas_of(m, rows + i, layer));
        }
        barrier(t, n);
        p.linear = qkv, p.mode = STORE, p.out = s->wide;
        multiply(t, &p, n);
        for (int64_t i; (i = next(t)) < n; finish(t)) k->store_kv(m, rows + i, layer, s->wide + i * qkv->outputs);
        barrier(t, n);
        int64_t items = s->run_count * m->heads;
        for (int64_t i; (i = next(t)) < items; finish(t)) {
            int64_t row = s->runs[i / m->heads], head = i % m->heads, at = head * m->head_width;
            k->attend(m, rows + row, s->runs[i / m->heads + 1] - row, layer, head, s->wide + row * qkv->outputs + at,
                      qkv->outputs, t->scores, s->attended + row * attended + at, attended);
        }
        barrier(t, items);
        for (int64_t i; (i = next(t)) < n; finish(t))
            k->prepare(prepared, i, s->attended + i * attended, out, deltas_of(m, rows + i, layer));
        barrier(t, n);
        p.linear = out, p.mode = ADD, p.out = s->x;
        multiply(t, &p, n);
        for (int64_t i; (i = next(t)) < n; finish(t)) {
            k->normalise(m, s->x + i * width, l->norm[1], l->shift[1], t->line);
            k->prepare(prepared, i, t->line, inner, deltas_of(m, rows + i, layer));
        }
        barrier(t, n);
        int gated = m->activation == SILU_GATED;
        p.linear = inner, p.mode = gated ? STORE : ACTIVATE, p.out = s->wide;
        multiply(t, &p, n);
        for (int64_t i; (i = next(t)) < n; finish(t)) {
            float *x = s->wide + i * inner->outputs;
            if (gated) k->gate(x, m->inner);
            k->prepare(prepared, i, x, down, deltas_of(m, rows + i, layer));
        }
        barrier(t, n);
        p.linear = down, p.mode = ADD, p.out = s->x;
        multiply(t, &p, n);
    }
    for (int64_t i; (i = next(t)) < call->wanted_count; finish(t)) {
        const Row *row = rows + call->wanted[i];
        k->normalise(m, s->x + call->wanted[i] * width, m->last_norm, m->last_shift, t->line);
        if (row->lora && row->lora->last)
            for (int64_t c = 0; c < width; c++) t->line[c] += row->lora->last[c];
        k->prepare(prepared, i, t->line, &m->head, 0);
    }
    barrier(t, call->wanted_count);
    Product head = {.linear = &m->head, .index = call->wanted, .mode = STORE, .out = call->logits};
    multiply(t, &head, call->wanted_count);
    return 0;
}

/* Find runs of at most NEIGHBOURS adjacent rows of one conversation; returns how many. */
static int64_t find_runs(const Call *call, int32_t *runs)
{
    int64_t count = 0;
    for (int64_t i = 0; i < call->row_count; i++) {
        const Row *row = call->rows + i;
        int follows = i && row->cache == row[-1].cache && row->position == row[-1].position + 1;
        if (!follows || i - runs[count - 1] == NEIGHBOURS) runs[count++] = (int32_t)i;
    }
    runs[count] = (int32_t)call->row_count;
    return count;
}

/* Compute a step, with fewer threads where some cannot be started. */
EXPORT void person2_step(const Call *call)
{
    const Model *m = call->model;
    int64_t rows = call->row_count, wide = up(widest(m), ALIGNED);
    int64_t threads = call->threads < MAX_THREADS ? call->threads : MAX_THREADS;
    float *at = (float *)(((uintptr_t)call->scratch + 4 * ALIGNED - 1) / (4 * ALIGNED) * (4 * ALIGNED));
    Shared s = {.call = call, .prepared = {.call = call, .stride = wide, .low_stride = up(call->max_rank, KEYS)}};
    s.attended_stride = up(m->layers[0].linear[ATTENTION_OUT].inputs, ALIGNED);
    s.x = at, at += rows * up(m->width, ALIGNED);
    s.attended = at, at += rows * s.attended_stride;
    /* heads may not fill the last block */
    memset(s.attended, 0, (size_t)(rows * s.attended_stride) * sizeof *s.attended);
    s.wide = at, at += rows * wide;
    s.prepared.low = at, at += rows * MAX_PARTS * s.prepared.low_stride;
    s.prepared.quantized = (char *)at, at += 2 * rows * wide * m->kernels->quantized_size / 4;
    s.prepared.scale = at, at += rows;
    s.prepared.sum = (int32_t *)at, at += 2 * rows;
    int32_t *runs = (int32_t *)at;
    at += rows + 1;
    s.run_count = find_runs(call, runs);
    s.runs = runs;
    s.taken = (atomic_int *)at, at += phases(m);
    s.done = (atomic_int *)at, at += phases(m);
    memset(s.taken, 0, (size_t)phases(m) * 2 * sizeof *s.taken);
    Thread team_of[MAX_THREADS];
    for (int64_t i = 0; i < threads; i++) {
        team_of[i] = (Thread){.shared = &s, .line = at, .scores = at + wide};
        at += wide + scores_of(call);
    }
    thread_t ids[MAX_THREADS];
    int team = 1;
    while (team < threads && !START(&ids[team], work, &team_of[team])) team++;
    work(&team_of[0]);
    for (int i = 1; i < team; i++) JOIN(ids[i]);
}

/* For sampling, row by row: see `top_tokens` in `rows.c`. */
EXPORT void person2_top_tokens(const Kernels *k, const float *logits, int64_t rows, int64_t stride, int64_t vocabulary,
                               const float *inverse, float reach, int64_t room, int32_t *tokens, float *values,
                               int64_t *counts, double *logsumexp)
{
    for (int64_t row = 0; row < rows; row++)
        k->top_tokens(logits + row * stride, vocabulary, inverse[row], reach, room, tokens + row * room,
                      values + row * room, counts + row, logsumexp + row);
}
