// Root mean square of a row, summed in the order in which it lies.
#pragma once

#include <cmath>

#include "vectors.h"

inline float sum(vec x) {
  float s = 0;
  for (int i = 0; i < LANES; ++i) s += x[i];
  return s;
}

// 1 / √(mean of squares + epsilon)
inline float rms_scale(const float *x, int64_t width, float epsilon) {
  const int64_t whole = width / LANES * LANES;
  vec squares{};
  for (int64_t i = 0; i < whole; i += LANES) squares += load(x + i) * load(x + i);
  float total = sum(squares);
  for (int64_t i = whole; i < width; ++i) total += x[i] * x[i];
  return 1.0f / std::sqrt(total / float(width) + epsilon);
}
