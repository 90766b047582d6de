/* The linear recurrence and the RG-LRU on a CPU: each number is read once and written once.
 *
 * Layout: the last dimension is contiguous; time steps and rows are strides apart, so tokens stay (B, T, N, C).
 * The loops over the last dimension are plain so that a compiler makes vectors of them; nothing here branches on data
 * inside them. No decay product is ever formed.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

typedef int64_t size;
typedef union { float f; int32_t i; } bits;

#define INLINE static inline __attribute__((always_inline))
#define SIMD _Pragma("omp simd")

/* Do `work` for the caller's `parts` stretches [first, end) of [0, length), side by side, each but the last a multiple
 * of 16 long.
 * The threads are those of the OpenMP runtime that torch has loaded: threads of another pool would wait for its, which
 * go on spinning when a product is done. */
#define SHARE(length, work)                                                                   \
    _Pragma("omp parallel for if (parts > 1) num_threads(parts) schedule(static, 1)")         \
    for (size part = 0; part < parts; part++) {                                               \
        size first = (length) * part / parts / 16 * 16;                                       \
        size end = part + 1 < parts ? (length) * (part + 1) / parts / 16 * 16 : (length);     \
        work;                                                                                 \
    }

/* Ask for huge pages in fresh memory; a wish, so its failure is none. */
void huge_pages(void *data, size bytes) {
#ifdef MADV_HUGEPAGE
    uintptr_t page = 1 << 21, first = ((uintptr_t)data + page - 1) & ~(page - 1), end = ((uintptr_t)data + bytes) & ~(page - 1);
    if (end > first) madvise((void *)first, end - first, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
}

/* exp(x) = p + p * q with p a power of two and q = exp(f) - 1, |f| <= ln(2) / 2; for |x| <= 87. */
INLINE void split_exp(float x, float *p, float *q) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    bits z, power;
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    z.f = x * 1.44269504f + shift;
    float n = z.f - shift;
    float f = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts */
    power.i = (z.i << 23) + 0x3f800000;
    float tail = 1.0f / 5040;
    tail = tail * f + 1.0f / 720;
    tail = tail * f + 1.0f / 120;
    tail = tail * f + 1.0f / 24;
    tail = tail * f + 1.0f / 6;
    tail = tail * f + 0.5f;
    *q = f + f * f * tail;
    *p = power.f;
}

INLINE float sigmoid(float x) {
    float p, q;
    split_exp(-x, &p, &q);
    return 1.0f / (1.0f + (p + p * q));
}

/* a = exp(log_a) and 1 - exp(2 log_a), the latter rounded as by the authors' layer, whose trained weights have seen it:
 * exp() to the nearest float first, which leaves few digits of the difference where a is near 1. */
INLINE void decay(float log_a, float *a, float *square) {
    float p, q;
    split_exp(log_a, &p, &q);
    float minus = p * q + (p - 1.0f); /* exp(log_a) - 1 */
    *a = p + p * q;
    *square = 1.0f - (1.0f + minus * (2.0f + minus));
}

/* ------------------------------------------------------------------------------------------ linear recurrence
 * h_t = a_t * h_{t-1} + x_t over (B, T, F), forwards or (step < 0) backwards in time; every tensor contiguous.
 */
static void scan_part(const float *x, const float *a, const float *h0, float *h, size batch, size time, size features,
                      int reverse, size first, size end) {
    for (size b = 0; b < batch; b++)
        for (size from = first; from < end; from += 1024) {
            size to = from + 1024 < end ? from + 1024 : end;
            const float *before = h0 ? h0 + b * features : 0;
            for (size step = 0; step < time; step++) {
                size at = (b * time + (reverse ? time - 1 - step : step)) * features;
                const float *xt = x + at, *at_ = a + at;
                float *ht = h + at;
                if (before) {
                    SIMD for (size f = from; f < to; f++) ht[f] = at_[f] * before[f] + xt[f];
                } else {
                    memcpy(ht + from, xt + from, (to - from) * sizeof(float));
                }
                before = ht;
            }
        }
}

void scan(const float *x, const float *a, const float *h0, float *h, size batch, size time, size features, int reverse,
          size parts) {
    SHARE(features, scan_part(x, a, h0, h, batch, time, features, reverse, first, end))
}

static void scan_backward_part(const float *grad_h, const float *a, const float *h, const float *h0, float *grad_x,
                               float *grad_a, float *grad_h0, size batch, size time, size features, int reverse,
                               size first, size end) {
    for (size b = 0; b < batch; b++)
        for (size from = first; from < end; from += 1024) {
            size to = from + 1024 < end ? from + 1024 : end;
            float carried[1024];
            memset(carried, 0, sizeof carried);
            for (size step = time - 1; step >= 0; step--) {
                size t = reverse ? time - 1 - step : step;
                size at = (b * time + t) * features;
                const float *before = step ? h + at + (reverse ? features : -features) : h0 ? h0 + b * features : 0;
                const float *gh = grad_h + at, *at_ = a + at;
                float *gx = grad_x + at, *ga = grad_a + at;
                if (before) {
                    SIMD for (size f = from; f < to; f++) {
                        float g = gh[f] + carried[f - from];
                        gx[f] = g;
                        ga[f] = g * before[f];
                        carried[f - from] = g * at_[f];
                    }
                } else {
                    SIMD for (size f = from; f < to; f++) {
                        gx[f] = gh[f] + carried[f - from];
                        ga[f] = 0.0f;
                    }
                }
            }
            if (grad_h0) memcpy(grad_h0 + b * features + from, carried, (to - from) * sizeof(float));
        }
}

/* Gradients of scan(); grad_h0 may be null. */
void scan_backward(const float *grad_h, const float *a, const float *h, const float *h0, float *grad_x, float *grad_a,
                   float *grad_h0, size batch, size time, size features, int reverse, size parts) {
    SHARE(features, scan_backward_part(grad_h, a, h, h0, grad_x, grad_a, grad_h0, batch, time, features, reverse, first,
                                       end))
}

/* --------------------------------------------------------------------------------------------------- RG-LRU
 * A tile is heads x batch x frames x rows x channels of one head; its tokens (batch, frame, row) follow one another.
 * A tensor is a pointer to the tile's first number, the distance of two tokens and that of two heads.
 */
typedef struct {
    size heads, batch, frames, rows, channels; /* of the tile; threads share its channels */
    size fresh;                                /* the first frame drops the past, as mask 1 does */
} Tile;

typedef struct {
    float *data;
    size token, head;
} View;

enum { NORMAL = 0, START = 1, HOLD = 2 };

INLINE int kind(const Tile *tile, const int8_t *mask, size token, size frame) {
    if (mask) return mask[token];
    return tile->fresh && !frame ? START : NORMAL;
}

static void gated_forward_part(const Tile *tile, View x, View input_gate, View decay_gate, const float *log_decay,
                               const float *before, size before_batch, size before_row, const int8_t *mask, View h,
                               size first, size end) {
    for (size head = 0; head < tile->heads; head++)
        for (size b = 0; b < tile->batch; b++)
            for (size t = 0; t < tile->frames; t++)
                for (size n = 0; n < tile->rows; n++) {
                    size token = (b * tile->frames + t) * tile->rows + n, offset = head * tile->channels;
                    const float *xs = x.data + token * x.token + head * x.head;
                    const float *gi = input_gate.data + token * input_gate.token + head * input_gate.head;
                    const float *ga = decay_gate.data + token * decay_gate.token + head * decay_gate.head;
                    const float *c = log_decay + offset;
                    float *hs = h.data + token * h.token + head * h.head;
                    const float *past = t ? hs - tile->rows * h.token
                                          : before ? before + b * before_batch + n * before_row + offset : 0;
                    int what = kind(tile, mask, token, t);
                    if (what == START) {
                        SIMD for (size s = first; s < end; s++) hs[s] = sigmoid(gi[s]) * xs[s];
                    } else if (what == HOLD) {
                        for (size s = first; s < end; s++) hs[s] = past ? past[s] : 0.0f;
                    } else if (past) {
                        SIMD for (size s = first; s < end; s++) {
                            float a, square;
                            decay(sigmoid(ga[s]) * c[s], &a, &square);
                            hs[s] = a * past[s] + sqrtf(square) * sigmoid(gi[s]) * xs[s];
                        }
                    } else {
                        SIMD for (size s = first; s < end; s++) {
                            float a, square;
                            decay(sigmoid(ga[s]) * c[s], &a, &square);
                            hs[s] = sqrtf(square) * sigmoid(gi[s]) * xs[s];
                        }
                    }
                }
}

/* `before` is the state before the tile's first frame, (batch, rows), or null for zero. */
void gated_forward(const Tile *tile, View x, View input_gate, View decay_gate, const float *log_decay,
                   const float *before, size before_batch, size before_row, const int8_t *mask, View h, size parts) {
    SHARE(tile->channels, gated_forward_part(tile, x, input_gate, decay_gate, log_decay, before, before_batch,
                                             before_row, mask, h, first, end))
}

static void gated_backward_part(const Tile *tile, View grad_h, View x, View input_gate, View decay_gate,
                                const float *log_decay, View h, const float *before, size before_batch,
                                size before_row, const int8_t *mask, View grad_x, float *carried, double *sums,
                                float floor_, size first, size end) {
    size width = tile->heads * tile->channels;
    for (size head = 0; head < tile->heads; head++) {
        size offset = head * tile->channels;
        float sum_i[end], sum_a[end], sum_c[end], zeros[end];
        memset(sum_i, 0, sizeof sum_i), memset(sum_a, 0, sizeof sum_a);
        memset(sum_c, 0, sizeof sum_c), memset(zeros, 0, sizeof zeros);
        const float *c = log_decay + offset;
        for (size b = 0; b < tile->batch; b++)
            for (size t = tile->frames - 1; t >= 0; t--)
                for (size n = 0; n < tile->rows; n++) {
                    size token = (b * tile->frames + t) * tile->rows + n;
                    const float *xs = x.data + token * x.token + head * x.head;
                    const float *hs = h.data + token * h.token + head * h.head;
                    const float *gh = grad_h.data + token * grad_h.token + head * grad_h.head;
                    float *gi = input_gate.data + token * input_gate.token + head * input_gate.head;
                    float *ga = decay_gate.data + token * decay_gate.token + head * decay_gate.head;
                    float *gx = grad_x.data + token * grad_x.token + head * grad_x.head;
                    float *next = carried + ((head * tile->batch + b) * tile->rows + n) * tile->channels;
                    const float *past = t ? hs - tile->rows * h.token
                                          : before ? before + b * before_batch + n * before_row + offset : zeros;
                    int what = kind(tile, mask, token, t);
                    if (what == HOLD) {
                        for (size s = first; s < end; s++) {
                            next[s] += gh[s];
                            gx[s] = gi[s] = ga[s] = 0.0f;
                        }
                    } else if (what == START) {
                        SIMD for (size s = first; s < end; s++) {
                            float i = sigmoid(gi[s]), direct = (gh[s] + next[s]) * i;
                            float grad_i = direct * xs[s] * (1.0f - i);
                            next[s] = 0.0f;
                            gx[s] = direct;
                            gi[s] = grad_i;
                            ga[s] = 0.0f;
                            sum_i[s] += grad_i;
                        }
                    } else {
                        SIMD for (size s = first; s < end; s++) {
                            float i = sigmoid(gi[s]), r = sigmoid(ga[s]), a, square;
                            decay(r * c[s], &a, &square);
                            float slope = 1.0f / sqrtf(square > floor_ ? square : floor_);
                            float g = gh[s] + next[s];
                            float direct = g * sqrtf(square) * i;
                            float grad_i = direct * xs[s] * (1.0f - i);
                            float back = a * g;
                            float grad_log = back * (past[s] - a * slope * i * xs[s]);
                            float grad_a = grad_log * c[s] * r * (1.0f - r);
                            next[s] = back;
                            gx[s] = direct;
                            gi[s] = grad_i;
                            ga[s] = grad_a;
                            sum_i[s] += grad_i;
                            sum_a[s] += grad_a;
                            sum_c[s] += grad_log * r;
                        }
                    }
                }
        for (size s = first; s < end; s++) {
            sums[offset + s] += sum_i[s];
            sums[width + offset + s] += sum_a[s];
            sums[2 * width + offset + s] += sum_c[s];
        }
    }
}

/* Writes the part of grad_x that does not pass through the gates, turns the gates into their gradients before the
 * sigmoid, adds to sums (input bias, decay bias, log_decay; each heads x channels, double), and replaces carried
 * (heads, batch, rows, channels), the gradient that reaches a state from later frames, by that of the tile's past. */
void gated_backward(const Tile *tile, View grad_h, View x, View input_gate, View decay_gate, const float *log_decay,
                    View h, const float *before, size before_batch, size before_row, const int8_t *mask, View grad_x,
                    float *carried, double *sums, float floor_, size parts) {
    SHARE(tile->channels, gated_backward_part(tile, grad_h, x, input_gate, decay_gate, log_decay, h, before,
                                              before_batch, before_row, mask, grad_x, carried, sums, floor_, first,
                                              end))
}

/* ------------------------------------------------------------------------------------------- causal convolution
 * y_t = bias + sum over d of weight[past - d] * x_{t-d} over contiguous (B, T, N, L); frames before the first are in
 * state (B, past, N, L), or zero where it is null. A tap at distance d counts where d <= reach (B, T, N), if given.
 */
typedef struct {
    size batch, time, rows, width, past;
} Clip;

INLINE const float *tap(const Clip *c, const float *x, const float *state, const int8_t *reach, size b, size t, size n,
                        size d) {
    if (reach && d > reach[(b * c->time + t) * c->rows + n]) return 0;
    if (d <= t) return x + ((b * c->time + t - d) * c->rows + n) * c->width;
    return state ? state + ((b * c->past + c->past + t - d) * c->rows + n) * c->width : 0;
}

INLINE size rows_at_once(const Clip *c) {
    size rows = 16384 / c->width;
    return rows < 1 ? 1 : rows;
}

static void conv_forward_part(const Clip *c, const float *x, const float *state, const float *weight,
                              const float *bias, const int8_t *reach, float *y, size first, size end) {
    size step = rows_at_once(c);
    for (size b = 0; b < c->batch; b++)
        for (size from = 0; from < c->rows; from += step)
            for (size t = 0; t < c->time; t++)
                for (size n = from; n < c->rows && n < from + step; n++) {
                    size at = ((b * c->time + t) * c->rows + n) * c->width;
                    const float *now = x + at, *w = weight + c->past * c->width;
                    float *out = y + at;
                    SIMD for (size s = first; s < end; s++) out[s] = bias[s] + w[s] * now[s];
                    for (size d = 1; d <= c->past; d++) {
                        const float *earlier = tap(c, x, state, reach, b, t, n, d);
                        if (!earlier) break;
                        const float *v = weight + (c->past - d) * c->width;
                        SIMD for (size s = first; s < end; s++) out[s] += v[s] * earlier[s];
                    }
                }
}

void conv_forward(const Clip *c, const float *x, const float *state, const float *weight, const float *bias,
                  const int8_t *reach, float *y, size parts) {
    SHARE(c->width, conv_forward_part(c, x, state, weight, bias, reach, y, first, end))
}

static void conv_backward_part(const Clip *c, const float *grad_y, const float *x, const float *state,
                               const float *weight, const int8_t *reach, float *grad_x, float *grad_state,
                               double *sums, size first, size end) {
    size step = rows_at_once(c), width = c->width, count = end - first;
    float part[(c->past + 2) * count];
    for (size b = 0; b < c->batch; b++)
        for (size from = 0; from < c->rows; from += step) {
            memset(part, 0, sizeof part);
            for (size t = 0; t < c->time; t++)
                for (size n = from; n < c->rows && n < from + step; n++) {
                    size at = ((b * c->time + t) * c->rows + n) * width;
                    const float *g = grad_y + at + first;
                    float *bias = part + (c->past + 1) * count;
                    SIMD for (size s = 0; s < count; s++) bias[s] += g[s];
                    for (size d = 0; d <= c->past; d++) {
                        const float *source = tap(c, x, state, reach, b, t, n, d);
                        if (!source) break;
                        const float *w = weight + (c->past - d) * width + first;
                        float *sum = part + (c->past - d) * count;
                        source += first;
                        SIMD for (size s = 0; s < count; s++) sum[s] += g[s] * source[s];
                        if (!d) {
                            float *out = grad_x + at + first;
                            SIMD for (size s = 0; s < count; s++) out[s] = w[s] * g[s];
                        } else if (d <= t || grad_state) {
                            float *out = d <= t ? grad_x + at - d * c->rows * width + first
                                                : grad_state + ((b * c->past + c->past + t - d) * c->rows + n) * width + first;
                            SIMD for (size s = 0; s < count; s++) out[s] += w[s] * g[s];
                        }
                    }
                }
            for (size k = 0; k < c->past + 2; k++)
                for (size s = 0; s < count; s++) sums[k * width + first + s] += part[k * count + s];
        }
}

/* grad_state (zero at first, or null) and sums (past + 2, L; double; the last is the bias) are added to. */
void conv_backward(const Clip *c, const float *grad_y, const float *x, const float *state, const float *weight,
                   const int8_t *reach, float *grad_x, float *grad_state, double *sums, size parts) {
    SHARE(c->width, conv_backward_part(c, grad_y, x, state, weight, reach, grad_x, grad_state, sums, first, end))
}

/* ------------------------------------------------------------------------------------------------- output gate
 * gelu(y) * h with the tangent's GELU, which is y * sigmoid(2 * sqrt(2 / pi) * (y + 0.044715 * y^3)).
 */
static void gate_forward_part(const float *y, const float *h, float *out, size first, size end) {
    SIMD for (size s = first; s < end; s++) {
        float v = y[s];
        out[s] = v * sigmoid(1.5957691216f * (v + 0.044715f * v * v * v)) * h[s];
    }
}

void gate_forward(const float *y, const float *h, float *out, size numbers, size parts) {
    SHARE(numbers, gate_forward_part(y, h, out, first, end))
}

static void gate_backward_part(const float *grad, const float *y, const float *h, float *grad_y, float *grad_h,
                               size first, size end) {
    SIMD for (size s = first; s < end; s++) {
        float v = y[s], sure = sigmoid(1.5957691216f * (v + 0.044715f * v * v * v));
        float slope = sure + v * sure * (1.0f - sure) * 1.5957691216f * (1.0f + 0.134145f * v * v);
        grad_y[s] = grad[s] * h[s] * slope;
        grad_h[s] = grad[s] * v * sure;
    }
}

void gate_backward(const float *grad, const float *y, const float *h, float *grad_y, float *grad_h, size numbers,
                   size parts) {
    SHARE(numbers, gate_backward_part(grad, y, h, grad_y, grad_h, first, end))
}
