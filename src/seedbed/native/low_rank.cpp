// out += x · downᵀ · upᵀ for the rows that wear an adapter, of several adapters in one call.
//
// Each result is summed in the order of the inputs, then of the ranks, by itself: its bits do not depend on the rows
// beside it, nor on how many threads there are.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "vectors.h"

namespace {

constexpr int PANEL = 64, VECS = PANEL / LANES;
constexpr int ROWS = 6;                   // at once
constexpr int64_t WORTH_THREADS = 65536;  // multiplications: fewer are done before a second thread has begun

// What an adapter adds to outputs first, first + 1, … of a layer.
struct Change {
  int64_t adapter, first, outputs, rank;
  const float *down;  // panels, width, 16 ranks
  const float *up;    // panels, rank, 64 outputs

  int64_t padded() const { return (rank + LANES - 1) / LANES * LANES; }
};

// Rows that one thread computes together.
struct Piece {
  const Change *change;
  const int64_t *rows;
  int count;
};

struct Step {
  const float *x;  // rows, width
  float *out;      // rows, outputs
  int64_t width, outputs;

  template <int COUNT>
  void compute(const Piece &piece) const {
    std::vector<float> held(COUNT * piece.change->padded());  // x · downᵀ
    down<COUNT>(piece, held.data());
    up<COUNT>(piece, held.data());
  }

  template <int COUNT>
  void down(const Piece &piece, float *held) const {
    const Change &change = *piece.change;
    const float *from[COUNT];
    for (int r = 0; r < COUNT; ++r) from[r] = x + piece.rows[r] * width;
    for (int64_t rank = 0; rank < change.rank; rank += LANES) {
      const float *w = change.down + rank * width;
      vec sum[COUNT] = {};
      for (int64_t d = 0; d < width; ++d, w += LANES) {
        const vec column = load(w);
        for (int r = 0; r < COUNT; ++r) sum[r] += from[r][d] * column;
      }
      for (int r = 0; r < COUNT; ++r) store(held + r * change.padded() + rank, sum[r]);
    }
  }

  template <int COUNT>
  void up(const Piece &piece, const float *held) const {
    const Change &change = *piece.change;
    const float *w = change.up;
    for (int64_t output = 0; output < change.outputs; output += PANEL) {
      vec sum[COUNT][VECS] = {};
      for (int64_t k = 0; k < change.rank; ++k, w += PANEL)
        for (int v = 0; v < VECS; ++v) {
          const vec column = load(w + v * LANES);
          for (int r = 0; r < COUNT; ++r) sum[r][v] += held[r * change.padded() + k] * column;
        }
      const int count = int(std::min<int64_t>(PANEL, change.outputs - output));
      for (int r = 0; r < COUNT; ++r) {
        float *to = out + piece.rows[r] * outputs + change.first + output;
        for (int v = 0; v < count / LANES; ++v) store(to + v * LANES, load(to + v * LANES) + sum[r][v]);
        for (int i = count / LANES * LANES; i < count; ++i) to[i] += sum[r][i / LANES][i % LANES];
      }
    }
  }

  void compute(const Piece &piece) const {
    switch (piece.count) {
      case 1: return compute<1>(piece);
      case 2: return compute<2>(piece);
      case 3: return compute<3>(piece);
      case 4: return compute<4>(piece);
      case 5: return compute<5>(piece);
      default: return compute<ROWS>(piece);
    }
  }
};

}  // namespace

// `rows` of adapter a: numbers starts[a] to starts[a + 1]. No two adapters have a row in common.
extern "C" void low_rank(const float *x, float *out, const int64_t *rows, const int64_t *starts, const Change *changes,
                         int64_t count, int64_t width, int64_t outputs, int threads) {
  std::vector<Piece> pieces;
  int64_t work = 0;
  for (const Change *change = changes; change < changes + count; ++change)
    for (int64_t row = starts[change->adapter], end = starts[change->adapter + 1]; row < end; row += ROWS) {
      pieces.push_back({change, rows + row, int(std::min<int64_t>(ROWS, end - row))});
      work += pieces.back().count * change->rank * (width + change->outputs);
    }
  const Step step{x, out, width, outputs};
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (work > WORTH_THREADS)
  for (size_t i = 0; i < pieces.size(); ++i) step.compute(pieces[i]);
}
