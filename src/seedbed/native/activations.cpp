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
void activate(const float *x, const float *up, float *out, int64_t count, int threads) {
  const int64_t groups = count / LANES;
#pragma omp parallel for num_threads(threads) schedule(static) if (count > 32768)
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t at = group * LANES;
    const vec found = activated<KIND>(load(x + at));
    store(out + at, up ? found * load(up + at) : found);
  }
  const int64_t done = groups * LANES;
  if (done == count) return;
  float last[LANES] = {};
  std::copy(x + done, x + count, last);
  const vec found = activated<KIND>(load(last));
  for (int64_t i = done; i < count; ++i) out[i] = up ? found[i - done] * up[i] : found[i - done];
}

}  // namespace

// `up` may be null.
extern "C" void silu(const float *x, const float *up, float *out, int64_t count, int threads) {
  activate<SILU>(x, up, out, count, threads);
}

extern "C" void gelu(const float *x, const float *up, float *out, int64_t count, int threads) {
  activate<GELU>(x, up, out, count, threads);
}
