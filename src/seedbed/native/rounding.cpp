// To 8-bit whole numbers and back, for the products of a training step.
//
// Stochastic rounding goes up as often as the number lies near the upper one, so that what is rounded is right on average
// (Gupta et al. 2015, arXiv:1502.02551, §3). The chance is a hash of the place and of the scale: the same numbers are
// rounded alike, whoever rounds them and however often.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

constexpr float LARGEST = 127.0f;

static inline uint32_t mixed(uint32_t x) {  // PCG's output function
  x = x * 747796405u + 2891336453u;
  x = ((x >> 13) ^ x) * 277803737u;
  return x ^ (x >> 16);
}

static inline uint32_t bits(float x) {
  uint32_t found;
  std::memcpy(&found, &x, sizeof found);
  return found;
}

static inline float number(uint32_t x) {
  float found;
  std::memcpy(&found, &x, sizeof found);
  return found;
}

// The bits of a size are in the order of sizes, with infinity and NaN at the end: what is broken stays broken.
static inline uint32_t size_bits(float x) { return bits(x) & 0x7fffffffu; }

static const uint32_t LEAST = bits(1e-30f);

static inline int8_t nearest(float x) { return int8_t(int32_t(x + 12582912.0f - 12582912.0f)); }

static inline int8_t by_chance(float x, uint32_t seed) {
  const float chance = float(mixed(seed) >> 8) * 0x1p-24f;
  const float low = (x - 0.5f) + 12582912.0f - 12582912.0f;  // at most x, or one less when x is whole
  const float up = x - low > chance ? 1.0f : 0.0f;
  return int8_t(int32_t(std::min(low + up, LARGEST)));
}

// Rows of x (rows × width), each by its largest number; `scale` is what a row is to be multiplied with.
extern "C" void round_rows(const float *x, int8_t *to, float *scale, int64_t rows, int64_t width, int64_t stochastic,
                          int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const float *from = x + row * width;
    int8_t *out = to + row * width;
    uint32_t most_bits = LEAST;
    for (int64_t i = 0; i < width; ++i) most_bits = std::max(most_bits, size_bits(from[i]));
    const float most = number(most_bits), factor = LARGEST / most;
    scale[row] = most / LARGEST;
    if (stochastic) {
      const uint32_t seed = most_bits * 2654435761u;
      for (int64_t i = 0; i < width; ++i) out[i] = by_chance(from[i] * factor, seed + uint32_t(i));
    } else {
      for (int64_t i = 0; i < width; ++i) out[i] = nearest(from[i] * factor);
    }
  }
}

// The same by columns, each by its largest number; the numbers stay where they are.
extern "C" void round_columns(const float *x, int8_t *to, float *scale, int64_t rows, int64_t width, int64_t stochastic,
                             int threads) {
  std::vector<uint32_t> most(threads * width, LEAST);
  std::vector<float> factor(width);
  std::vector<uint32_t> seed(width);
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int64_t part = 0; part < threads; ++part) {
      uint32_t *own = &most[part * width];
      for (int64_t row = part * rows / threads; row < (part + 1) * rows / threads; ++row)
        for (int64_t i = 0; i < width; ++i) own[i] = std::max(own[i], size_bits(x[row * width + i]));
    }
#pragma omp single
    for (int64_t i = 0; i < width; ++i) {
      uint32_t most_bits = most[i];
      for (int part = 1; part < threads; ++part) most_bits = std::max(most_bits, most[part * width + i]);
      const float found = number(most_bits);
      scale[i] = found / LARGEST;
      factor[i] = LARGEST / found;
      seed[i] = most_bits * 2654435761u;
    }
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const float *from = x + row * width;
      int8_t *out = to + row * width;
      if (stochastic) {
        for (int64_t i = 0; i < width; ++i) out[i] = by_chance(from[i] * factor[i], seed[i] + uint32_t(row));
      } else {
        for (int64_t i = 0; i < width; ++i) out[i] = nearest(from[i] * factor[i]);
      }
    }
  }
}

// Sums of products (rows × width) in the numbers that they stand for.
extern "C" void scaled(const int32_t *x, const float *row_scale, const float *column_scale, float *to, int64_t rows,
                      int64_t width, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < width; ++i)
      to[row * width + i] = float(x[row * width + i]) * row_scale[row] * column_scale[i];
}
