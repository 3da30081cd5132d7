// x · weightᵀ of 8-bit whole numbers: rows of x are quantised here, rows of the weight were before.
//
// Sums of whole numbers are exact in any order, so a row's result does not depend on the rows beside it.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int OUTPUTS = 4;    // dot products at once: what is read of x is read once for them
constexpr int64_t TILE = 32;  // rows of x beside one another in the fastest memory

// Σ x·w of one row of x and OUTPUTS rows of the weight. Unsigned times signed is what processors have.
inline void dots(const uint8_t *x, const int8_t *w, int64_t width, int32_t *found) {
  const int8_t *w0 = w, *w1 = w + width, *w2 = w + 2 * width, *w3 = w + 3 * width;
  int32_t a = 0, b = 0, c = 0, d = 0;
  for (int64_t i = 0; i < width; ++i) {
    a += int32_t(x[i]) * int32_t(w0[i]);
    b += int32_t(x[i]) * int32_t(w1[i]);
    c += int32_t(x[i]) * int32_t(w2[i]);
    d += int32_t(x[i]) * int32_t(w3[i]);
  }
  found[0] = a, found[1] = b, found[2] = c, found[3] = d;
}

inline int32_t dot(const uint8_t *x, const int8_t *w, int64_t width) {
  int32_t sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += int32_t(x[i]) * int32_t(w[i]);
  return sum;
}

}  // namespace

// x (rows, width) fp32, weight (outputs, width) int8 with a scale and the sum of each of its rows; bias may be null.
extern "C" void int8_linear(const float *x, const int8_t *weight, const float *scales, const int32_t *sums,
                            const float *bias, float *out, int64_t rows, int64_t width, int64_t outputs) {
  std::vector<uint8_t> quantised(rows * width);
  std::vector<float> steps(rows);
  const auto quantise = [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float *from = x + row * width;
      float most = 1e-30f;
      for (int64_t i = 0; i < width; ++i) most = std::max(most, std::fabs(from[i]));
      steps[row] = most / 127.0f;
      const float inverse = 127.0f / most;
      uint8_t *to = quantised.data() + row * width;
      for (int64_t i = 0; i < width; ++i) to[i] = uint8_t(int32_t(std::nearbyintf(from[i] * inverse)) + 128);
    }
  };
  at::parallel_for(0, rows, std::max<int64_t>(1, 32768 / width), quantise);
  const int64_t groups = (outputs + OUTPUTS - 1) / OUTPUTS;
  at::parallel_for(0, groups, std::max<int64_t>(1, 65536 / (OUTPUTS * width)), [&](int64_t begin, int64_t end) {
    for (int64_t first = 0; first < rows; first += TILE)
      for (int64_t group = begin; group < end; ++group)
        for (int64_t row = first; row < std::min(rows, first + TILE); ++row) {
          const uint8_t *from = quantised.data() + row * width;
          const int64_t output = group * OUTPUTS;
          const int count = int(std::min<int64_t>(OUTPUTS, outputs - output));
          int32_t found[OUTPUTS];
          if (count == OUTPUTS)
            dots(from, weight + output * width, width, found);
          else
            for (int i = 0; i < count; ++i) found[i] = dot(from, weight + (output + i) * width, width);
          float *to = out + row * outputs + output;
          for (int i = 0; i < count; ++i) {
            const float value = float(found[i] - 128 * sums[output + i]) * (steps[row] * scales[output + i]);
            to[i] = bias ? value + bias[output + i] : value;
          }
        }
  });
}
