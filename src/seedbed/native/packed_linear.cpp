// x · weightᵀ + bias, of a weight in panels of 64 outputs, in fp32 or in 8-bit whole numbers.
//
// A panel holds, for one input after the other, the 64 numbers that multiply it: the processor reads them as they lie.
// Each result is summed in the order of the inputs, by itself (of whole numbers any order is exact), so its bits do not
// depend on the rows beside it, nor on how many threads there are.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vectors.h"

namespace {

constexpr int PANEL = 64, VECS = PANEL / LANES;
constexpr int ROWS = 6;             // at once: 24 sums, 4 numbers of the weight and one of x fit into 32 registers
constexpr int64_t CHUNK = 8 * ROWS;  // rows for which one thread reads a panel

typedef uint8_t quarter __attribute__((vector_size(LANES)));

struct Product {
  const float *bias;  // or null
  float *out;         // rows, outputs
  int64_t rows, width, outputs;
};

void store(const Product &p, int64_t row, int64_t output, const vec *found) {
  float result[PANEL];
  std::memcpy(result, found, sizeof result);
  const int count = int(std::min<int64_t>(PANEL, p.outputs - output));
  float *to = p.out + row * p.outputs + output;
  for (int i = 0; i < count; ++i) to[i] = p.bias ? result[i] + p.bias[output + i] : result[i];
}

struct Floats {
  const float *x, *weight;  // rows, width; panels, width, 64

  template <int COUNT>
  void multiply(const Product &p, int64_t row, int64_t panel) const {
    const float *w = weight + panel * p.width * PANEL, *from = x + row * p.width;
    vec sum[COUNT][VECS] = {};
    for (int64_t d = 0; d < p.width; ++d, w += PANEL)
      for (int v = 0; v < VECS; ++v) {
        const vec column = *reinterpret_cast<const vec *>(w + v * LANES);
        for (int r = 0; r < COUNT; ++r) sum[r][v] += from[r * p.width + d] * column;
      }
    for (int r = 0; r < COUNT; ++r) store(p, row + r, panel * PANEL, sum[r]);
  }
};

// Sixteen sums, each of four products of an unsigned number of x and a signed one of the weight.
inline void add_products(ivec &sum, int32_t four, const int8_t *weight) {
#ifdef __AVX512VNNI__
  sum = (ivec)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(four), _mm512_loadu_si512(weight));
#else
  uint8_t x[4];
  std::memcpy(x, &four, sizeof x);
  for (int lane = 0; lane < LANES; ++lane)
    for (int i = 0; i < 4; ++i) sum[lane] += int32_t(x[i]) * int32_t(weight[4 * lane + i]);
#endif
}

// The nearest whole numbers, plus 128: added to a float of this size, a number loses what is behind its point.
inline ivec nearest(vec x) { return __builtin_convertvector((x + 12582912.0f) - 12582912.0f, ivec) + 128; }

struct Bytes {
  std::vector<uint8_t> x;    // rows, quads · 4: quantised, plus 128
  std::vector<float> steps;  // of each row: what a whole number of x stands for
  const int8_t *weight;      // panels, quads, 64, 4
  const float *scales;       // of each output, in whole panels
  const int32_t *sums;       // of its weights, in whole panels
  int64_t quads;

  void quantise(const float *from, int64_t width, int64_t row) {
    const int64_t whole = width / LANES * LANES;
    vec greatest{}, broken{};  // 0, or no number when there is one in the row
    for (int64_t i = 0; i < whole; i += LANES) {
      const vec x = *reinterpret_cast<const vec *>(from + i), size = x < 0.0f ? -x : x;
      greatest = greatest < size ? size : greatest;
      broken += x * 0.0f;
    }
    float most = 1e-30f, doubt = 0;
    for (int lane = 0; lane < LANES; ++lane) most = std::max(most, greatest[lane]), doubt += broken[lane];
    for (int64_t i = whole; i < width; ++i) most = std::max(most, std::fabs(from[i])), doubt += from[i] * 0.0f;
    steps[row] = most / 127.0f + doubt;
    const float inverse = 127.0f / most;
    uint8_t *to = x.data() + row * quads * 4;
    for (int64_t i = 0; i < whole; i += LANES) {
      const auto bytes = __builtin_convertvector(nearest(*reinterpret_cast<const vec *>(from + i) * inverse), quarter);
      std::memcpy(to + i, &bytes, sizeof bytes);
    }
    for (int64_t i = whole; i < width; ++i) to[i] = uint8_t(nearest(vec{} + from[i] * inverse)[0]);
  }

  template <int COUNT>
  void multiply(const Product &p, int64_t row, int64_t panel) const {
    const int8_t *w = weight + panel * quads * PANEL * 4;
    const uint8_t *from = x.data() + row * quads * 4;
    ivec sum[COUNT][VECS] = {};
    for (int64_t quad = 0; quad < quads; ++quad, w += PANEL * 4)
      for (int r = 0; r < COUNT; ++r) {
        int32_t four;
        std::memcpy(&four, from + (r * quads + quad) * 4, sizeof four);
        for (int v = 0; v < VECS; ++v) add_products(sum[r][v], four, w + v * LANES * 4);
      }
    for (int r = 0; r < COUNT; ++r) {
      vec found[VECS];
      for (int v = 0; v < VECS; ++v) {
        const int64_t at = panel * PANEL + v * LANES;
        const ivec whole = sum[r][v] - 128 * *reinterpret_cast<const ivec *>(sums + at);
        found[v] = __builtin_convertvector(whole, vec) * (steps[row + r] * *reinterpret_cast<const vec *>(scales + at));
      }
      store(p, row + r, panel * PANEL, found);
    }
  }
};

template <class Numbers>
void multiply_rows(const Numbers &numbers, const Product &p, int64_t row, int64_t count, int64_t panel) {
  switch (count) {
    case 1: return numbers.template multiply<1>(p, row, panel);
    case 2: return numbers.template multiply<2>(p, row, panel);
    case 3: return numbers.template multiply<3>(p, row, panel);
    case 4: return numbers.template multiply<4>(p, row, panel);
    case 5: return numbers.template multiply<5>(p, row, panel);
    default: return numbers.template multiply<ROWS>(p, row, panel);
  }
}

template <class Numbers>
void multiply_all(const Numbers &numbers, const Product &p, int threads) {
  const int64_t panels = (p.outputs + PANEL - 1) / PANEL, chunks = (p.rows + CHUNK - 1) / CHUNK;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t item = 0; item < panels * chunks; ++item) {
    const int64_t panel = item % panels, first = item / panels * CHUNK, end = std::min(p.rows, first + CHUNK);
    for (int64_t row = first; row < end; row += ROWS)
      multiply_rows(numbers, p, row, std::min<int64_t>(ROWS, end - row), panel);
  }
}

}  // namespace

extern "C" void fp32_linear(const float *x, const float *weight, const float *bias, float *out, int64_t rows,
                           int64_t width, int64_t outputs, int threads) {
  multiply_all(Floats{x, weight}, {bias, out, rows, width, outputs}, threads);
}

// x is fp32 and quantised here, row by row.
extern "C" void int8_linear(const float *x, const int8_t *weight, const float *scales, const int32_t *sums,
                           const float *bias, float *out, int64_t rows, int64_t width, int64_t outputs, int threads) {
  const int64_t quads = (width + 3) / 4;
  Bytes bytes{std::vector<uint8_t>(rows * quads * 4, 128), std::vector<float>(rows), weight, scales, sums, quads};
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * width > 16384)
  for (int64_t row = 0; row < rows; ++row) bytes.quantise(x + row * width, width, row);
  multiply_all(bytes, {bias, out, rows, width, outputs}, threads);
}
