// The next token of each row: what `inference/sampling.py` says, in one pass over a row instead of a dozen, and without
// sorting more of it than is needed.
//
// Shares are in fp64, in which that of the last token of a large vocabulary is not rounded away.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

constexpr int LANES = 8;
constexpr int FLOATS = 2 * LANES;
constexpr int CHUNK = 256;
constexpr double MOST_BELOW = 4096;  // no rank of a token with a weight is as large

typedef double vec __attribute__((vector_size(LANES * sizeof(double)), aligned(8)));
typedef int64_t ivec __attribute__((vector_size(LANES * sizeof(int64_t)), aligned(8)));
typedef float floats __attribute__((vector_size(FLOATS * sizeof(float)), aligned(4)));
typedef int32_t masks __attribute__((vector_size(FLOATS * sizeof(int32_t)), aligned(4)));

// The largest of a row; what is no number is larger than any.
static float largest_of(const float *logits, int64_t vocabulary) {
  floats most = floats{} - INFINITY;
  masks is_none{};
  int64_t i = 0;
  for (; i + FLOATS <= vocabulary; i += FLOATS) {
    const floats x = *reinterpret_cast<const floats *>(logits + i);
    most = x > most ? x : most;
    is_none |= x != x;
  }
  float found = -INFINITY;
  for (int lane = 0; lane < FLOATS; ++lane) found = is_none[lane] ? NAN : std::max(found, most[lane]);
  for (; i < vocabulary; ++i) found = logits[i] > found || std::isnan(logits[i]) ? logits[i] : found;
  return found;
}

// Of x ≤ 0, to the last bit or two: 1 at 0, and 0 from −708 on. Taylor's series of what is left of a power of two.
static vec exponential(vec x) {
  const ivec in_range = x > -708.0;
  x = in_range ? x : vec{} - 708.0;
  const vec n = (x * 1.4426950408889634 + 6755399441055744.0) - 6755399441055744.0;  // the nearest whole number
  const vec r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10;
  vec p = vec{} + 1.0 / 6227020800.0;
  for (const double factorial : {479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0,
                                 2.0, 1.0, 1.0})
    p = p * r + 1.0 / factorial;
  const ivec power = (__builtin_convertvector(n, ivec) + 1023) << 52;
  vec scale;
  std::memcpy(&scale, &power, sizeof scale);
  return in_range ? p * scale : vec{};
}

// One row: how far below the likeliest each token is (≤ 0), its weight relative to it, and what orders tokens.
struct Row {
  std::vector<double> below, weight, rank, kept;
  std::vector<float> sorted;
  std::vector<std::pair<double, int64_t>> ranked;
  int64_t count;  // of tokens; the vectors are longer by a chunk at most, where all weights are 0

  void leave_out(int64_t token) { weight[token] = 0; }

  double total() const {
    vec sum{};
    for (int64_t i = 0; i < int64_t(weight.size()); i += LANES) sum += *reinterpret_cast<const vec *>(&weight[i]);
    double found = 0;
    for (int lane = 0; lane < LANES; ++lane) found += sum[lane];
    return found;
  }

  void read(const float *logits, int64_t vocabulary, double largest, double temperature) {
    count = vocabulary;
    const int64_t padded = (vocabulary + CHUNK - 1) / CHUNK * CHUNK;
    below.assign(padded, -INFINITY);
    weight.resize(padded);
    for (int64_t i = 0; i < vocabulary; ++i) below[i] = (double(logits[i]) - largest) / temperature;
    for (int64_t i = 0; i < padded; i += LANES)
      *reinterpret_cast<vec *>(&weight[i]) = exponential(*reinterpret_cast<const vec *>(&below[i]));
  }

  // The k likeliest; of those that are equally likely the first ones.
  void keep_likeliest(const float *logits, int64_t k) {
    sorted.assign(logits, logits + count);
    std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<float>());
    const float last = sorted[k - 1];
    int64_t equal = k;
    for (int64_t i = 0; i < count; ++i) equal -= logits[i] > last;
    for (int64_t i = 0; i < count; ++i)
      if (logits[i] < last || (logits[i] == last && equal-- <= 0)) leave_out(i);
  }

  // The fewest tokens, those of the lowest rank first, that together have this much of the probability. Ranks are not
  // negative; those below a bound are looked at, which grows until they hold enough.
  void keep_first(double mass, double bound) {
    const double wanted = mass * total();
    for (double held = 0; held < wanted && bound < MOST_BELOW; bound *= 2) {
      ranked.clear();
      held = 0;
      for (int64_t i = 0; i < count; ++i)
        if (weight[i] > 0 && rank[i] <= bound) ranked.push_back({rank[i], i}), held += weight[i];
    }
    // Halves: the lower one stays as a whole, or what matters is in it. Only the last few are sorted.
    double before = 0;
    auto first = ranked.begin(), end = ranked.end();
    while (end - first > 32) {
      const auto middle = first + (end - first) / 2;
      std::nth_element(first, middle, end);
      double lower = 0;
      for (auto each = first; each < middle; ++each) lower += weight[each->second];
      if (before + lower >= wanted) {
        end = middle;
      } else {
        before += lower;
        first = middle;
      }
    }
    std::sort(first, end);
    while (first < end && (first == ranked.begin() || before < wanted)) before += weight[first++->second];
    kept.assign(weight.size(), 0.0);
    for (auto each = ranked.begin(); each < first; ++each) kept[each->second] = weight[each->second];
    weight.swap(kept);
  }

  void keep_nucleus(double mass) {
    rank.resize(weight.size());
    for (int64_t i = 0; i < count; ++i) rank[i] = -below[i];
    keep_first(mass, 4);
  }

  void keep_typical(double mass) {
    const double sum = total(), log_sum = std::log(sum);
    double entropy = 0;
    for (int64_t i = 0; i < count; ++i)
      if (weight[i] > 0) entropy -= weight[i] / sum * (below[i] - log_sum);
    rank.resize(weight.size());
    for (int64_t i = 0; i < count; ++i) rank[i] = std::abs(log_sum - below[i] - entropy);
    keep_first(mass, 0.5);
  }

  // The token at which the cumulative weight first exceeds this share of all.
  int64_t invert(double uniform) const {
    const int64_t chunks = weight.size() / CHUNK;
    std::vector<double> sums(chunks);
    double sum = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      double here = 0;
      for (int64_t i = chunk * CHUNK; i < (chunk + 1) * CHUNK; ++i) here += weight[i];
      sums[chunk] = sum += here;
    }
    const double target = std::min(uniform * sum, std::nextafter(sum, 0.0));
    const int64_t chunk = std::upper_bound(sums.begin(), sums.end(), target) - sums.begin();
    double cumulative = chunk ? sums[chunk - 1] : 0;
    int64_t token = 0;
    for (int64_t i = chunk * CHUNK; i < (chunk + 1) * CHUNK && cumulative <= target; ++i)
      if (weight[i] > 0) cumulative += weight[i], token = i;
    return token;
  }
};

// Rows of logits, `stride` numbers apart; −1 where none is finite or one is NaN. Temperature 0: the likeliest. top_k 0,
// top_p 1, min_p 0 and typical_p 1 leave out nothing.
extern "C" void choose_tokens(const float *logits, const double *uniforms, int64_t *tokens, int64_t rows,
                             int64_t vocabulary, int64_t stride, double temperature, int64_t top_k, double top_p,
                             double min_p, double typical_p, int threads) {
#pragma omp parallel num_threads(threads) if (rows > 1)
  {
    Row row;
#pragma omp for schedule(static)
    for (int64_t number = 0; number < rows; ++number) {
      const float *from = logits + number * stride;
      const float largest = largest_of(from, vocabulary);
      if (!std::isfinite(largest)) {
        tokens[number] = -1;
        continue;
      }
      if (temperature == 0) {
        tokens[number] = std::find(from, from + vocabulary, largest) - from;
        continue;
      }
      row.read(from, vocabulary, largest, temperature);
      if (top_k > 0 && top_k < vocabulary) row.keep_likeliest(from, top_k);
      if (top_p < 1) row.keep_nucleus(top_p);
      if (min_p > 0)
        for (int64_t i = 0; i < vocabulary; ++i)
          if (row.weight[i] < min_p) row.leave_out(i);  // the likeliest one's weight is 1
      if (typical_p < 1) row.keep_typical(typical_p);
      tokens[number] = row.invert(uniforms[number]);
    }
  }
}
