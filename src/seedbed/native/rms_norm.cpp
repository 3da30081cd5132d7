// x / rms(x) · weight, row by row.
#include "norms.h"

extern "C" void rms_norm(const float *x, const float *weight, float *out, int64_t rows, int64_t width, float epsilon,
                        int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * width > 32768)
  for (int64_t row = 0; row < rows; ++row) {
    const float *from = x + row * width;
    float *to = out + row * width;
    const float scale = rms_scale(from, width, epsilon);
    for (int64_t i = 0; i < width; ++i) to[i] = from[i] * scale * weight[i];
  }
}
