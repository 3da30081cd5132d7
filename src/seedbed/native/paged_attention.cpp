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
#include <vector>

#include "vectors.h"

namespace {

constexpr int BLOCK = 64, GROUPS = BLOCK / LANES;
constexpr int ROWS = 4;  // queries at once: what they read is read once
constexpr float LOWEST = -1e30f;

inline float largest(vec x) {
  float m = x[0];
  for (int i = 1; i < LANES; ++i) m = std::max(m, x[i]);
  return m;
}

inline float sum(vec x) {
  float s = 0;
  for (int i = 0; i < LANES; ++i) s += x[i];
  return s;
}

struct Step {
  const float *queries;                  // tokens, heads, width
  float *out;                            // the same
  const float *keys;                     // blocks, shared heads, width, 64
  const float *values;                   // blocks, shared heads, 64, width
  const int32_t *tables;                 // sequences, columns: the block of each 64 positions
  const int32_t *sequences, *positions;  // of each token
  const float *slopes;                   // of each head (ALiBi), or null
  int64_t tokens, columns, heads, shared, width;
  int64_t window;           // positions that a query sees, itself among them; 0: all
  int64_t sparse, summary;  // block-sparse: of other blocks of `sparse` the last `summary`; 0: all
  float scale;
};

// Query heads of one key/value head, of tokens of one sequence: rows first, first + 1, … counted token by token.
template <int WIDTH>
void attend(const Step &s, int64_t shared_head, int64_t first_row, int count) {
  constexpr int VECS = WIDTH / LANES;
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
    for (int d = 0; d < WIDTH; ++d) q[d][r] = s.queries[place[r] + d] * s.scale;
    first = std::min(first, from[r]);
    last = std::max(last, at[r]);
  }
  const int32_t *table = s.tables + s.sequences[first_row / group] * s.columns;
  ivec lane;
  for (int i = 0; i < LANES; ++i) lane[i] = i;
  for (int32_t block = first / BLOCK; block <= last / BLOCK; ++block) {
    const int64_t where = (int64_t(table[block]) * s.shared + shared_head) * WIDTH * BLOCK;
    const float *key = s.keys + where, *value = s.values + where;
    vec score[ROWS][GROUPS] = {};
    for (int d = 0; d < WIDTH; ++d)
      for (int g = 0; g < GROUPS; ++g) {
        const vec k = *reinterpret_cast<const vec *>(key + d * BLOCK + g * LANES);
        for (int r = 0; r < ROWS; ++r) score[r][g] += q[d][r] * k;
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
        if (s.slopes) score[r][g] -= slope[r] * __builtin_convertvector(at[r] - key_at, vec);
        score[r][g] = visible[g] ? score[r][g] : all(LOWEST);
        m = m < score[r][g] ? score[r][g] : m;
      }
      const float now = largest(m), shrink = exponential(all(most[r] - now))[0];
      vec sums{};
      for (int g = 0; g < GROUPS; ++g) {
        const vec e = visible[g] ? exponential(score[r][g] - now) : vec{};
        sums += e;
        for (int i = 0; i < LANES; ++i) p[g * LANES + i][r] = e[i];
      }
      most[r] = now;
      total[r] = total[r] * shrink + sum(sums);
      for (int v = 0; v < VECS; ++v) found[r][v] *= shrink;
    }
    // What lies behind the last query was written by nobody, or by a sequence that is gone.
    const int until = std::min(BLOCK, last - block * BLOCK + 1);
    for (int j = 0; j < until; ++j)
      for (int v = 0; v < VECS; ++v) {
        const vec x = *reinterpret_cast<const vec *>(value + j * WIDTH + v * LANES);
        for (int r = 0; r < ROWS; ++r) found[r][v] += p[j][r] * x;
      }
  }
  for (int r = 0; r < count; ++r)
    for (int v = 0; v < VECS; ++v) *reinterpret_cast<vec *>(s.out + place[r] + v * LANES) = found[r][v] / total[r];
}

template <int WIDTH>
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
    for (int64_t row = token * group; row < end * group; row += ROWS)
      pieces.push_back({row, int(std::min<int64_t>(ROWS, end * group - row))});
    token = end;
  }
  const int64_t work = int64_t(pieces.size()) * s.shared;
  std::atomic<int64_t> next{0};  // sequences differ in length: a thread takes a piece when it has done one
#pragma omp parallel num_threads(int(std::min<int64_t>(work, threads)))
  for (int64_t item; (item = next.fetch_add(1)) < work;) {
    const Piece &piece = pieces[item / s.shared];
    attend<WIDTH>(s, item % s.shared, piece.row, piece.count);
  }
}

// Keys and values of new tokens into the blocks where they belong.
void write(const float *keys, const float *values, float *held_keys, float *held_values, const Step &s) {
  for (int64_t token = 0; token < s.tokens; ++token) {
    const int64_t block = s.tables[s.sequences[token] * s.columns + s.positions[token] / BLOCK];
    const int64_t slot = s.positions[token] % BLOCK;
    for (int64_t head = 0; head < s.shared; ++head) {
      const float *key = keys + (token * s.shared + head) * s.width, *value = values + (token * s.shared + head) * s.width;
      const int64_t where = (block * s.shared + head) * s.width * BLOCK;
      for (int64_t d = 0; d < s.width; ++d) held_keys[where + d * BLOCK + slot] = key[d];
      std::memcpy(held_values + where + slot * s.width, value, s.width * sizeof(float));
    }
  }
}

}  // namespace

// Writes the tokens' own keys and values (tokens, shared heads, width), then attends. Heads are 16, 32, 64, 96 or 128
// wide.
extern "C" void paged_attention(const float *queries, const float *new_keys, const float *new_values, float *out,
                               float *keys, float *values, const int32_t *tables, const int32_t *sequences,
                               const int32_t *positions, const float *slopes, int64_t tokens, int64_t columns,
                               int64_t heads, int64_t shared, int64_t width, int64_t window, int64_t sparse,
                               int64_t summary, float scale, int threads) {
  const Step s{queries, out,     keys,  values, tables, sequences, positions, slopes, tokens,
               columns, heads,   shared, width, window, sparse,    summary,   scale};
  write(new_keys, new_values, keys, values, s);
  switch (width) {
    case 16: run<16>(s, threads); break;
    case 32: run<32>(s, threads); break;
    case 64: run<64>(s, threads); break;
    case 96: run<96>(s, threads); break;
    default: run<128>(s, threads);
  }
}
