// SiLU and GELU (in its tanh form), plain or multiplied with what they let through. Each number is computed alike
// wherever it stands, which PyTorch's are not at the end of a tensor or of a thread's share of it.
#include <algorithm>

#include "vectors.h"

namespace {

enum Kind { SILU, GELU };

// x · σ(z), with z = x in SiLU; GELU's ½(1 + tanh u) is σ(2u).
template <Kind KIND>
inline vec activated(vec x) {
  const vec z = KIND == SILU ? x : 1.5957691216f * (x + 0.044715f * x * x * x);
  const vec e = exponential(z < 0.0f ? z : -z);
  return x * (z < 0.0f ? e / (1.0f + e) : 1.0f / (1.0f + e));
}

template <Kind KIND>
void activate(const float *x, const float *up, float *out, int64_t rows, int64_t width, int64_t stride, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * width > 16384)
  for (int64_t row = 0; row < rows; ++row) {
    const float *from = x + row * stride, *with = up ? up + row * stride : nullptr;
    float *to = out + row * width;
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) {
      const vec found = activated<KIND>(load(from + i));
      store(to + i, with ? found * load(with + i) : found);
    }
    if (i == width) continue;
    float last[LANES] = {};
    std::copy(from + i, from + width, last);
    const vec found = activated<KIND>(load(last));
    for (int64_t lane = 0; i < width; ++i, ++lane) to[i] = with ? found[lane] * with[i] : found[lane];
  }
}

}  // namespace

// Rows of x, and of `up` where it is not null, begin `stride` numbers apart; those of `out` lie side by side.
extern "C" void silu(const float *x, const float *up, float *out, int64_t rows, int64_t width, int64_t stride,
                    int threads) {
  activate<SILU>(x, up, out, rows, width, stride, threads);
}

extern "C" void gelu(const float *x, const float *up, float *out, int64_t rows, int64_t width, int64_t stride,
                    int threads) {
  activate<GELU>(x, up, out, rows, width, stride, threads);
}
