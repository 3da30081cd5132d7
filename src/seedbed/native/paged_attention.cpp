// Attention of the tokens of a step over keys and values that lie in blocks of 64 positions.
//
// Every query is computed by itself and in one order: over the blocks of its own sequence, from the first to the one
// that it stands in, with a running maximum and sum (Milakov & Gimelshein 2018, arXiv:1805.02867). So its bits depend on
// no neighbour, and are the same whether it is read as part of a prompt, in any chunk of it, or alone.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "norms.h"

namespace {

constexpr int BLOCK = 64, GROUPS = BLOCK / LANES, LINE = 64;  // of a cache line, bytes
constexpr int MOST_ROWS = 4;  // queries at once: what they read is read once
constexpr int MOST_WIDTH = 128;
constexpr float LOWEST = -1e30f;

template <class Number>
constexpr bool IS_WHOLE = std::is_same_v<Number, int8_t>;

inline float largest(vec x) {
  float m = x[0];
  for (int i = 1; i < LANES; ++i) m = std::max(m, x[i]);
  return m;
}

// Where the heads of new tokens lie: those of a token side by side, and so many numbers to the next token.
struct Heads {
  const float *first;
  int64_t stride;
};

struct Step {
  Heads queries, keys, values;
  const float *query_norm, *key_norm;    // weights of a norm per head, or null
  const float *cosines, *sines;          // of each token's angles (tokens, width), or null: nothing is turned
  float *out;                            // tokens, heads, width
  void *held_keys;                       // blocks, shared heads, 4, width, 16; in fp32, fp16 or whole numbers
  void *held_values;                     // blocks, shared heads, 64, width
  float *scales;                         // blocks, keys and values, shared heads, 64: what a whole number stands for
  const int32_t *tables;                 // sequences, columns: the block of each 64 positions
  const int32_t *sequences, *positions;  // of each token
  const float *slopes;                   // of each head (ALiBi), or null
  int64_t tokens, columns, heads, shared, width;
  int64_t window;           // positions that a query sees, itself among them; 0: all
  int64_t sparse, summary;  // block-sparse: of other blocks of `sparse` the last `summary`; 0: all
  float scale, epsilon;
};

// A head, normed (Henry et al. 2020, arXiv:2010.04245), then turned (Su et al. 2021, arXiv:2104.09864, rotate-half).
void prepare(const Step &s, const float *from, const float *norm, int64_t token, float *to) {
  const int64_t half = s.width / 2;
  float normed[MOST_WIDTH];
  if (norm) {
    const float scale = rms_scale(from, s.width, s.epsilon);
    for (int64_t d = 0; d < s.width; ++d) normed[d] = from[d] * scale * norm[d];
    from = normed;
  }
  if (!s.cosines) {
    std::copy(from, from + s.width, to);
    return;
  }
  const float *cosine = s.cosines + token * s.width, *sine = s.sines + token * s.width;  // the sign is in the sine
  for (int64_t d = 0; d < half; ++d) {
    to[d] = from[d] * cosine[d] + from[d + half] * sine[d];
    to[d + half] = from[d + half] * cosine[d + half] + from[d] * sine[d + half];
  }
}

// Of whole numbers: where the scales of keys begin in a block; those of values lie `shared` · 64 numbers behind.
inline float *scales_of(const Step &s, int64_t block, int64_t head) {
  return s.scales + (block * 2 * s.shared + head) * BLOCK;
}

// Writes a head, a number each `stride`, in steps of its largest / 127; gives that step. Where one is no number, it is
// none.
float round_off(const float *head, int64_t width, int8_t *to, int64_t stride) {
  float most = 1e-30f, doubt = 0;
  for (int64_t d = 0; d < width; ++d) most = std::max(most, std::fabs(head[d])), doubt += head[d] * 0.0f;
  const float factor = 127.0f / most;
  for (int64_t d = 0; d < width; ++d) to[d * stride] = int8_t(std::lrint(head[d] * factor));
  return most / 127.0f + doubt;
}

// Keys and values of a token into the block where they belong; its queries, ready, to `queries` (heads, width).
template <class Number>
void take_in(const Step &s, int64_t token, float *queries) {
  const int64_t block = s.tables[s.sequences[token] * s.columns + s.positions[token] / BLOCK];
  const int64_t slot = s.positions[token] % BLOCK;
  float key[MOST_WIDTH];
  for (int64_t head = 0; head < s.heads; ++head)
    prepare(s, s.queries.first + token * s.queries.stride + head * s.width, s.query_norm, token,
            queries + head * s.width);
  for (int64_t head = 0; head < s.shared; ++head) {
    prepare(s, s.keys.first + token * s.keys.stride + head * s.width, s.key_norm, token, key);
    const float *value = s.values.first + token * s.values.stride + head * s.width;
    const int64_t where = (block * s.shared + head) * s.width * BLOCK;
    Number *keys = static_cast<Number *>(s.held_keys) + where + slot / LANES * LANES * s.width + slot % LANES;
    Number *values = static_cast<Number *>(s.held_values) + where + slot * s.width;
    if constexpr (IS_WHOLE<Number>) {
      float *scale = scales_of(s, block, head) + slot;
      scale[0] = round_off(key, s.width, keys, LANES);
      scale[s.shared * BLOCK] = round_off(value, s.width, values, 1);
    } else {
      for (int64_t d = 0; d < s.width; ++d) stored(key[d], keys[d * LANES]), stored(value[d], values[d]);
    }
  }
}

// What a head has in one block, of which the first positions matter.
template <class Number>
struct Held {
  const Number *keys, *values;
  int until;

  Held(const Step &s, int64_t block, int64_t head, int until) : until(until) {
    const int64_t where = (block * s.shared + head) * s.width * BLOCK;
    keys = static_cast<const Number *>(s.held_keys) + where;
    values = static_cast<const Number *>(s.held_values) + where;
  }

  int groups() const { return (until + LANES - 1) / LANES; }
};

// Asks for memory that will soon be read. It comes while one computes: half the time of attention is waiting.
template <class Number>
inline void fetch(const Number *from, int count) {
  for (int i = 0; i < count; i += LINE / int(sizeof(Number))) __builtin_prefetch(from + i, 0, 2);
}

// Queries with the first COUNT groups of keys of a block, while the next ones are fetched. The count is known when this
// is compiled: sums stay in registers.
template <int WIDTH, int COUNT, int ROWS, class Number>
inline void multiply(const float (&q)[WIDTH][ROWS], const Number *key, vec (&score)[ROWS][GROUPS],
                     const Held<Number> &next) {
  vec sum[ROWS][COUNT] = {};
  const int step = next.groups() * LANES;
  for (int d = 0; d < WIDTH; ++d) {
    fetch(next.keys + d * step, step);
    for (int g = 0; g < COUNT; ++g) {
      const vec k = load(key + (g * WIDTH + d) * LANES);
      for (int r = 0; r < ROWS; ++r) sum[r][g] += q[d][r] * k;
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int g = 0; g < COUNT; ++g) score[r][g] = sum[r][g];
}

// Query heads of one key/value head, of tokens of one sequence: rows first, first + 1, … counted token by token.
template <int WIDTH, class Number, int ROWS>
void attend(const Step &s, const float *queries, int64_t shared_head, int64_t first_row, int count) {
  constexpr int VECS = WIDTH / LANES;
  constexpr bool WHOLE = IS_WHOLE<Number>;
  const int64_t group = s.heads / s.shared;
  alignas(64) float q[WIDTH][ROWS] = {};
  alignas(64) float p[BLOCK][ROWS];
  vec found[ROWS][VECS] = {};
  float most[ROWS], total[ROWS], slope[ROWS];
  int32_t at[ROWS], from[ROWS];
  int64_t place[ROWS];
  int32_t first = INT32_MAX, last = 0;
  for (int r = 0; r < ROWS; ++r) {
    const int64_t row = first_row + std::min(r, count - 1);
    const int64_t token = row / group, head = shared_head * group + row % group;
    place[r] = (token * s.heads + head) * WIDTH;
    at[r] = s.positions[token];
    from[r] = s.window && at[r] >= s.window ? at[r] - int32_t(s.window) + 1 : 0;
    slope[r] = s.slopes ? s.slopes[head] : 0.0f;
    most[r] = LOWEST;
    total[r] = 0;
    for (int d = 0; d < WIDTH; ++d) q[d][r] = queries[place[r] + d] * s.scale;
    first = std::min(first, from[r]);
    last = std::max(last, at[r]);
  }
  const int32_t *table = s.tables + s.sequences[first_row / group] * s.columns;
  ivec lane;
  for (int i = 0; i < LANES; ++i) lane[i] = i;
  // What lies behind the last query was written by nobody, or by a sequence that is gone.
  const auto held = [&](int32_t block, int64_t head) {
    return Held<Number>(s, table[block], head, std::min(BLOCK, last - block * BLOCK + 1));
  };
  const int32_t first_block = first / BLOCK, last_block = last / BLOCK;
  for (int32_t block = first_block; block <= last_block; ++block) {
    const Held<Number> here = held(block, shared_head);
    const Held<Number> next = block < last_block ? held(block + 1, shared_head) : held(first_block, shared_head + 1);
    const float *scale = WHOLE ? scales_of(s, table[block], shared_head) : nullptr;  // of keys, then of values
    vec score[ROWS][GROUPS] = {};
    switch (here.groups()) {
      case 1: multiply<WIDTH, 1, ROWS>(q, here.keys, score, next); break;
      case 2: multiply<WIDTH, 2, ROWS>(q, here.keys, score, next); break;
      case 3: multiply<WIDTH, 3, ROWS>(q, here.keys, score, next); break;
      default: multiply<WIDTH, GROUPS, ROWS>(q, here.keys, score, next);
    }
    for (int r = 0; r < ROWS; ++r) {
      ivec visible[GROUPS];
      vec m = all(most[r]);
      for (int g = 0; g < GROUPS; ++g) {
        const ivec key_at = lane + (block * BLOCK + g * LANES);
        visible[g] = (key_at <= at[r]) & (key_at >= from[r]);
        if (s.sparse) {
          const int32_t size = int32_t(s.sparse);
          visible[g] &= (key_at / size == at[r] / size) | (key_at % size >= size - int32_t(s.summary));
        }
        if (WHOLE) score[r][g] *= load(scale + g * LANES);
        if (s.slopes) score[r][g] -= slope[r] * __builtin_convertvector(at[r] - key_at, vec);
        score[r][g] = visible[g] ? score[r][g] : all(LOWEST);
        m = m < score[r][g] ? score[r][g] : m;
      }
      const float now = largest(m), shrink = exponential(all(most[r] - now))[0];
      vec sums{};
      for (int g = 0; g < GROUPS; ++g) {
        vec e = visible[g] ? exponential(score[r][g] - now) : vec{};
        sums += e;
        if (WHOLE) e *= load(scale + s.shared * BLOCK + g * LANES);
        for (int i = 0; i < LANES; ++i) p[g * LANES + i][r] = e[i];
      }
      most[r] = now;
      total[r] = total[r] * shrink + sum(sums);
      for (int v = 0; v < VECS; ++v) found[r][v] *= shrink;
    }
    const int each = (next.until + here.until - 1) / here.until;  // rows of the next values for one of these
    for (int j = 0; j < here.until; ++j) {
      if (j * each < next.until) fetch(next.values + j * each * WIDTH, each * WIDTH);
      for (int v = 0; v < VECS; ++v) {
        const vec x = load(here.values + j * WIDTH + v * LANES);
        for (int r = 0; r < ROWS; ++r) found[r][v] += p[j][r] * x;
      }
    }
  }
  for (int r = 0; r < count; ++r)
    for (int v = 0; v < VECS; ++v) *reinterpret_cast<vec *>(s.out + place[r] + v * LANES) = found[r][v] / total[r];
}

template <int WIDTH, class Number>
void run(const Step &s, int threads) {
  const int64_t group = s.heads / s.shared;
  struct Piece {
    int64_t row;
    int count;
  };
  std::vector<Piece> pieces;
  for (int64_t token = 0; token < s.tokens;) {
    int64_t end = token;
    while (end < s.tokens && s.sequences[end] == s.sequences[token]) ++end;
    for (int64_t row = token * group; row < end * group; row += MOST_ROWS)
      pieces.push_back({row, int(std::min<int64_t>(MOST_ROWS, end * group - row))});
    token = end;
  }
  const int64_t work = int64_t(pieces.size()) * s.shared;
  std::vector<float> queries(s.tokens * s.heads * WIDTH);
  // Sequences differ in length: a thread takes work when it has done some, all heads of a piece where there are enough.
  const int64_t share = work >= 4 * threads * s.shared ? s.shared : 1;
  std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(int(std::min<int64_t>(work, threads)))
  {
#pragma omp for schedule(static)
    for (int64_t token = 0; token < s.tokens; ++token) take_in<Number>(s, token, queries.data() + token * s.heads * WIDTH);
    // Here all have been taken in.
    for (int64_t start; (start = next.fetch_add(share)) < work;)
      for (int64_t item = start; item < start + share; ++item) {
        const Piece &piece = pieces[item / s.shared];
        const int64_t head = item % s.shared;
        switch (piece.count) {
          case 1: attend<WIDTH, Number, 1>(s, queries.data(), head, piece.row, 1); break;
          case 2: attend<WIDTH, Number, 2>(s, queries.data(), head, piece.row, 2); break;
          default: attend<WIDTH, Number, MOST_ROWS>(s, queries.data(), head, piece.row, piece.count);
        }
      }
  }
}

template <class Number>
void run_width(const Step &s, int threads) {
  switch (s.width) {
    case 16: return run<16, Number>(s, threads);
    case 32: return run<32, Number>(s, threads);
    case 64: return run<64, Number>(s, threads);
    case 96: return run<96, Number>(s, threads);
    default: run<128, Number>(s, threads);
  }
}

}  // namespace

// Takes in the new tokens, whose queries, keys and values are rows of `strides` numbers, then attends. Heads are 16, 32,
// 64, 96 or 128 wide; `bytes` of a number of keys and values say what they are stored in.
extern "C" void paged_attention(const float *queries, const float *keys, const float *values, const int64_t *strides,
                               const float *query_norm, const float *key_norm, float epsilon, const float *cosines,
                               const float *sines, float *out, void *held_keys, void *held_values,
                               float *scales, const int32_t *tables, const int32_t *sequences, const int32_t *positions,
                               const float *slopes, int64_t tokens, int64_t columns, int64_t heads, int64_t shared,
                               int64_t width, int64_t window, int64_t sparse, int64_t summary, int64_t bytes,
                               float scale, int threads) {
  const Step s{{queries, strides[0]}, {keys, strides[1]}, {values, strides[2]}, query_norm, key_norm, cosines,
               sines, out, held_keys, held_values, scales, tables, sequences, positions, slopes, tokens, columns, heads,
               shared, width, window, sparse, summary, scale, epsilon};
  switch (bytes) {
    case 1: return run_width<int8_t>(s, threads);
    case 2: return run_width<half>(s, threads);
    default: run_width<float>(s, threads);
  }
}
