// Sixteen numbers at once, in the vector extensions of GCC and Clang: they become the registers that there are.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

constexpr int LANES = 16;

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(LANES * sizeof(int32_t)), aligned(4)));

inline vec all(float x) { return x - vec{}; }

inline vec load(const float *from) { return *reinterpret_cast<const vec *>(from); }

// Half precision (IEEE 754 binary16), of which only memory is saved: it is computed with in fp32.
typedef _Float16 half;

constexpr float MOST_HALF = 65504.0f;

inline vec load(const half *from) {
#ifdef __AVX512F__
  return (vec)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)));
#else
  vec found;
  for (int lane = 0; lane < LANES; ++lane) found[lane] = float(from[lane]);
  return found;
#endif
}

// Whole numbers of −127 to 127.
inline vec load(const int8_t *from) {
#ifdef __AVX512F__
  return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from))));
#else
  vec found;
  for (int lane = 0; lane < LANES; ++lane) found[lane] = float(from[lane]);
  return found;
#endif
}

// As it is stored: the nearest number of that precision, the largest one where it is larger.
inline void stored(float x, float &to) { to = x; }

inline void stored(float x, half &to) { to = half(x > MOST_HALF ? MOST_HALF : x < -MOST_HALF ? -MOST_HALF : x); }

inline void store(float *to, vec x) { *reinterpret_cast<vec *>(to) = x; }

// Of x ≤ 0: 1 at 0, and 0 from −87 on (Cephes' expf).
inline vec exponential(vec x) {
  const ivec in_range = x > -87.0f;
  x = in_range ? x : all(-87.0f);
  const vec n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // the nearest whole number
  const vec r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  vec p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
  vec scale;
  std::memcpy(&scale, &power, sizeof scale);
  return in_range ? p * scale : vec{};
}
