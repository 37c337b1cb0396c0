/* The hidden terms of a stretch of layers of one width, and their gradients, a layer at a time.

   What `_ParallelTerms` in relaxation.py does with torch's operations, over all layers at once for
   each of them, is done here for one layer after the other while it lies in the cache. Products are
   BLAS's. Layers are shared out among the threads in stretches, each with its networks.

   Arrays are row-major, as in `StackedMLP` and `Targets`: z (layers + 1, seeds, examples, width),
   weight (layers, seeds, width, width), bias (layers, seeds, width). Layer l reads z[l] and predicts
   z[l + 1]. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef void Product(const char *, const char *, const int *, const int *, const int *,
                     const float *, const float *, const int *, const float *, const int *,
                     const float *, float *, const int *);

enum { SIGMOID, TANH, RELU };

/* exp, to about two units in the last place, in operations that compilers turn into vectors:
   2^k by the exponent's bits, and a polynomial for the rest, in [-ln 2 / 2, ln 2 / 2]. */
static inline float exponential(float x) {
  x = x > 88.0f ? 88.0f : x;
  x = x < -87.0f ? -87.0f : x;
  float k = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
  union { float number; int32_t bits; } power;
  power.number = k;
  int32_t whole = power.bits - 0x4B400000;
  k -= 12582912.0f;
  float r = x - k * 0.693145752f - k * 1.42860677e-6f;
  float p = 1.38888892e-3f;
  p = p * r + 8.33333377e-3f;
  p = p * r + 4.16666679e-2f;
  p = p * r + 1.66666672e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  power.bits = (whole + 127) << 23;
  return p * power.number;
}

static void activate(int kind, const float *restrict z, float *restrict h, long n) {
  if (kind == SIGMOID)
    for (long i = 0; i < n; i++) h[i] = 1.0f / (1.0f + exponential(-z[i]));
  else if (kind == TANH)
    for (long i = 0; i < n; i++) h[i] = 2.0f / (1.0f + exponential(-2.0f * z[i])) - 1.0f;
  else
    for (long i = 0; i < n; i++) h[i] = z[i] > 0.0f || z[i] != z[i] ? z[i] : 0.0f;
}

/* pulled *= the slope of the activation, of which h is the output */
static void pull_back(int kind, const float *restrict h, float *restrict pulled, long n) {
  if (kind == SIGMOID)
    for (long i = 0; i < n; i++) pulled[i] *= h[i] * (1.0f - h[i]);
  else if (kind == TANH)
    for (long i = 0; i < n; i++) pulled[i] *= 1.0f - h[i] * h[i];
  else
    for (long i = 0; i < n; i++) pulled[i] *= h[i] > 0.0f ? 1.0f : 0.0f;
}

typedef struct {
  Product *multiply;
  int kind, layers, seeds, examples, width;
  float factor;
  const float *z, *weight, *bias;
  float *prediction, *norms, *z_gradient, *weight_gradient, *bias_gradient;
} Work;

/* So many numbers fill whole lines of the cache. */
static long padded(long numbers) { return (numbers + 15) / 16 * 16; }

/* The layers [first, last) of one network. Of the target above the last of them only the residual
   is handed on: its gradient is the next stretch's. */
static void stretch(const Work *w, int seed, int first, int last, float *scratch, float *handed) {
  const int width = w->width, examples = w->examples;
  const long block = (long)examples * width, square = (long)width * width;
  const float one = 1.0f, none = 0.0f;
  const size_t bytes = block * sizeof(float);
  float *h = scratch, *r = scratch + padded(block), *below = scratch + 2 * padded(block);
  for (int layer = first; layer < last; layer++) {
    const long place = (long)layer * w->seeds + seed, above = place + w->seeds;
    const float *weight = w->weight + place * square, *bias = w->bias + place * width;
    activate(w->kind, w->z + place * block, h, block);
    for (int i = 0; i < examples; i++) memcpy(r + (long)i * width, bias, width * sizeof(float));
    w->multiply("T", "N", &width, &examples, &width, &one, weight, &width, h, &width, &one, r,
                &width);
    if (w->prediction) { /* from the same memory as the terms: another may be another rounding */
      memcpy(w->prediction + place * block, r, bytes);
      continue;
    }
    const float *target = w->z + above * block;
    float *sums = w->bias_gradient + place * width, norm = 0.0f;
    memset(sums, 0, width * sizeof(float));
    for (int i = 0; i < examples; i++) {
      float *row = r + (long)i * width;
      const float *aim = target + (long)i * width;
#pragma omp simd reduction(+ : norm)
      for (int j = 0; j < width; j++) {
        row[j] -= aim[j];
        norm += row[j] * row[j];
        sums[j] += row[j];
      }
    }
    for (int j = 0; j < width; j++) sums[j] *= w->factor;
    w->norms[place] = norm / block;
    w->multiply("N", "T", &width, &width, &examples, &w->factor, h, &width, r, &width, &none,
                w->weight_gradient + place * square, &width);
    float *pulled = w->z_gradient + place * block;
    w->multiply("N", "N", &width, &examples, &width, &w->factor, weight, &width, r, &width, &none,
                pulled, &width);
    pull_back(w->kind, h, pulled, block);
    if (layer > first)
      for (long i = 0; i < block; i++) pulled[i] -= w->factor * below[i];
    float *next = below;
    below = r, r = next;
  }
  if (!w->prediction) memcpy(handed, below, bytes);
}

/* Write the predictions of all layers; or, where there is no memory for them, the terms and the
   gradients. Returns 0, or 1 where memory ran out. */
int relaxation(Product *multiply, int kind, int layers, int seeds, int examples, int width,
               float factor, int threads, const float *z, const float *weight, const float *bias,
               float *prediction, float *norms, float *z_gradient, float *weight_gradient,
               float *bias_gradient) {
  const Work work = {multiply, kind, layers, seeds, examples, width, factor, z, weight, bias,
                     prediction, norms, z_gradient, weight_gradient, bias_gradient};
  const long block = (long)examples * width;
  int parts = seeds % threads == 0 ? 1 : threads;
  parts = parts < layers ? parts : layers;
  const int tasks = seeds * parts;
  float *handed = malloc((size_t)tasks * block * sizeof(float));
  int failed = handed == NULL;
#pragma omp parallel num_threads(threads)
  {
    float *scratch = aligned_alloc(64, 3 * padded(block) * sizeof(float));
    if (scratch == NULL) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp barrier
#pragma omp for schedule(dynamic)
    for (int task = 0; task < tasks; task++) {
      const int part = task / seeds, seed = task % seeds;
      const int first = (long)layers * part / parts, last = (long)layers * (part + 1) / parts;
      if (!failed) stretch(&work, seed, first, last, scratch, handed + task * block);
    }
    if (!prediction) {
#pragma omp for
      for (int task = 0; task < tasks; task++) {
        if (failed) continue;
        const int part = task / seeds, seed = task % seeds;
        const long top = (long)layers * (part + 1) / parts * seeds + seed;
        float *gradient = z_gradient + top * block;
        const float *residual = handed + task * block;
        const int is_highest = part == parts - 1;
        for (long i = 0; i < block; i++)
          gradient[i] = (is_highest ? 0.0f : gradient[i]) - factor * residual[i];
      }
    }
    free(scratch);
  }
  free(handed);
  return failed;
}
