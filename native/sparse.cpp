// Sparse 3D convolution along lists of pairs: forward, input gradient (the same with other weights) and weight gradient.
//
// Design
// - Outputs are cut into tiles of rows and blocks of columns; a tile's sums stay in a core's cache over all offsets. An offset's
//   pairs are multiplied a few rows at a time: sums in registers, weights repacked so that a block's columns are adjacent.
// - The weight gradient of one offset and block gathers a few dozen rows of both operands side by side and multiplies those.
// - Every sum is one thread's and has one order, so results are the same to the last bit for any number of threads.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "large_array.h"
#include "parallel.h"
#include "simd.h"
#include "splatsense.h"

namespace {

constexpr int MAX_VECTORS = LANES == 16 ? 4 : 2;     // of a block of columns
constexpr int ACCUMULATORS = LANES == 16 ? 24 : 12;  // vector registers that hold sums
constexpr int64_t DEPTH = 128;                       // input channels at a time: their weights fit the first-level cache
constexpr int rows_at_once(int vectors) { return std::min(12, ACCUMULATORS / vectors); }

SS_INLINE Floats load_any(const float* p) { return *reinterpret_cast<const FloatsUnaligned*>(p); }
SS_INLINE void store_any(float* p, Floats x) { *reinterpret_cast<FloatsUnaligned*>(p) = x; }

SS_INLINE void prefetch_row(const float* row, int64_t columns) {
  for (int64_t c = 0; c < columns; c += 16) __builtin_prefetch(row + c);
}

// Columns in blocks of at most MAX_VECTORS vectors, of nearly the same size.
struct Blocks {
  explicit Blocks(int64_t columns)
      : columns(columns), vectors((columns + LANES - 1) / LANES), count((vectors + MAX_VECTORS - 1) / MAX_VECTORS) {}
  int64_t first(int64_t block) const { return vectors * block / count; }  // vector
  int size(int64_t block) const { return int(first(block + 1) - first(block)); }
  int64_t columns_of(int64_t block) const { return std::min(columns, first(block + 1) * LANES) - first(block) * LANES; }
  int64_t columns, vectors, count;
};

// Calls body(std::integral_constant<int, V>) for the V that is `vectors`.
template <class Body>
SS_INLINE void with_vectors(int vectors, Body&& body) {
  switch (vectors) {
    case 1: return body(std::integral_constant<int, 1>());
    case 2: return body(std::integral_constant<int, 2>());
    case 3: return body(std::integral_constant<int, std::min(3, MAX_VECTORS)>());
    default: return body(std::integral_constant<int, std::min(4, MAX_VECTORS)>());
  }
}

// `weight` (outer, K, inner) as (K, block, rows, columns of the block), filled up with zeros. Columns are the outer axis, or,
// for the input gradient, the inner one.
void pack_weight(const SsSparseConvolution& in, const Blocks& blocks, int64_t rows, float* packed) {
  const int64_t row_step = in.transposed ? in.offsets * blocks.columns : 1;
  const int64_t column_step = in.transposed ? 1 : in.offsets * rows;
  parallel_for(in.threads, in.offsets, [&](int64_t k) {
    const int64_t source = in.reversed ? in.offsets - 1 - k : k;
    const float* weight = in.weight + source * (in.transposed ? blocks.columns : rows);
    for (int64_t b = 0; b < blocks.count; b++) {
      const int64_t width = blocks.size(b) * LANES, valid = blocks.columns_of(b);
      float* to = packed + (k * blocks.vectors + blocks.first(b)) * LANES * rows;
      const float* from = weight + blocks.first(b) * LANES * column_step;
      if (in.transposed) {
        for (int64_t r = 0; r < rows; r++) {
          std::memcpy(to + r * width, from + r * row_step, valid * sizeof(float));
          std::memset(to + r * width + valid, 0, (width - valid) * sizeof(float));
        }
      } else {
        if (valid < width) std::memset(to, 0, rows * width * sizeof(float));
        for (int64_t c = 0; c < valid; c++) {
          for (int64_t r = 0; r < rows; r++) to[r * width + c] = from[c * column_step + r];
        }
      }
    }
  });
}

// Adds the products of `depth` channels of the pairs' inputs with `weight` (depth, V vectors) to their outputs.
template <int V>
void multiply_pairs(const float* features, int64_t in_stride, const float* weight, int64_t depth, float* out,
                    int64_t out_stride, int64_t valid, const int32_t* inputs, const int32_t* outputs, int64_t count) {
  constexpr int R = rows_at_once(V);
  for (int64_t p = 0; p < count; p += R) {
    const float* rows[R];
    for (int r = 0; r < R; r++) {
      rows[r] = features + inputs[std::min(p + r, count - 1)] * in_stride;
      const float* next = features + inputs[std::min(p + R + r, count - 1)] * in_stride;
      prefetch_row(next, depth);
    }
    Floats sum[R][V]{};
    const float* w = weight;
    for (int64_t c = 0; c < depth; c++, w += V * LANES) {
      Floats column[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) column[v] = load(w + v * LANES);
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) {
        const Floats x = broadcast(rows[r][c]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sum[r][v] += x * column[v];
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
      if (p + r >= count) break;
      float* o = out + outputs[p + r] * out_stride;
      if (valid == V * LANES) {
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) store_any(o + v * LANES, load_any(o + v * LANES) + sum[r][v]);
      } else {
        alignas(64) float row[V * LANES];
        for (int v = 0; v < V; v++) store(row + v * LANES, sum[r][v]);
        for (int64_t c = 0; c < valid; c++) o[c] += row[c];
      }
    }
  }
}

template <int V>
void convolve_tile(const SsSparseConvolution& in, const Blocks& blocks, const float* packed, int64_t tile, int64_t b,
                   float* out) {
  const int64_t tiles = (in.output_count + in.tile - 1) / in.tile;
  const int64_t first = blocks.first(b) * LANES, valid = blocks.columns_of(b);
  const int64_t end = std::min(in.output_count, (tile + 1) * in.tile);
  for (int64_t o = tile * in.tile; o < end; o++) std::memset(out + o * blocks.columns + first, 0, valid * sizeof(float));
  for (int64_t k = 0; k < in.offsets; k++) {
    const int64_t begin = in.bounds[k * tiles + tile], count = in.bounds[k * tiles + tile + 1] - begin;
    if (count == 0) continue;
    const float* weight = packed + (k * blocks.vectors * LANES + first) * in.in_channels;
    for (int64_t c = 0; c < in.in_channels; c += DEPTH) {
      multiply_pairs<V>(in.features + c, in.in_channels, weight + c * V * LANES, std::min(DEPTH, in.in_channels - c),
                        out + first, blocks.columns, valid, in.inputs + begin, in.outputs + begin, count);
    }
  }
}

constexpr int64_t PAIRS = 32, ROWS = 96;  // gathered at a time; of the gradient, a multiple of every rows_at_once
constexpr int64_t TILES = 8;              // whose rows the cache that cores share should hold

SS_INLINE void copy_row(const float* from, int64_t columns, float* to) {
  int64_t c = 0;
  for (; c + LANES <= columns; c += LANES) store(to + c, load_any(from + c));
  for (; c < columns; c++) to[c] = from[c];
}

// Adds what pairs [p, end) contribute to rows [first, first + ROWS) and V vectors of columns of one offset's gradient.
template <int V>
void weight_block(const SsSparseConvolution& in, const float* gradient, const Blocks& blocks, int64_t k, int64_t first,
                  int64_t b, int64_t p, int64_t end, float* out) {
  constexpr int R = rows_at_once(V);
  const int64_t rows = std::min(ROWS, in.out_channels - first), column = blocks.first(b) * LANES, valid = blocks.columns_of(b);
  float* const gradients = out + (first * in.offsets + k) * in.in_channels + column;
  const int64_t row_step = in.offsets * in.in_channels;
  alignas(64) float sums[ROWS][V * LANES]{}, x[PAIRS][V * LANES], g[PAIRS][ROWS];
  if (valid < V * LANES) std::memset(x, 0, sizeof x);
  if (rows < ROWS) std::memset(g, 0, sizeof g);
  for (int64_t r = 0; r < rows; r++) copy_row(gradients + r * row_step, valid, sums[r]);
  for (; p < end; p += PAIRS) {
    const int64_t count = std::min(PAIRS, end - p);
    for (int64_t i = 0; i < count; i++) {
      copy_row(in.features + in.inputs[p + i] * in.in_channels + column, valid, x[i]);
      copy_row(gradient + in.outputs[p + i] * in.out_channels + first, rows, g[i]);
    }
    for (int64_t q = p + PAIRS; q < std::min(end, p + 2 * PAIRS); q++) {
      prefetch_row(in.features + in.inputs[q] * in.in_channels + column, valid);
      prefetch_row(gradient + in.outputs[q] * in.out_channels + first, rows);
    }
    for (int64_t r0 = 0; r0 < rows; r0 += R) {
      Floats sum[R][V];
      for (int r = 0; r < R; r++) {
        for (int v = 0; v < V; v++) sum[r][v] = load(sums[r0 + r] + v * LANES);
      }
      for (int64_t i = 0; i < count; i++) {
        Floats columns[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) columns[v] = load(x[i] + v * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
          const Floats scale = broadcast(g[i][r0 + r]);
#pragma GCC unroll 4
          for (int v = 0; v < V; v++) sum[r][v] += scale * columns[v];
        }
      }
      for (int r = 0; r < R; r++) {
        for (int v = 0; v < V; v++) store(sums[r0 + r] + v * LANES, sum[r][v]);
      }
    }
  }
  for (int64_t r = 0; r < rows; r++) std::memcpy(gradients + r * row_step, sums[r], valid * sizeof(float));
}

}  // namespace

SS_API int ss_sparse_convolution(const SsSparseConvolution* input, float* out) {
  const SsSparseConvolution& in = *input;
  const Blocks blocks(in.out_channels);
  const LargeArray<float> packed(in.offsets * in.in_channels * blocks.vectors * LANES);
  if (!packed) return 1;
  pack_weight(in, blocks, in.in_channels, packed.get());
  prefer_huge_pages(out, in.output_count * in.out_channels * sizeof(float));
  const int64_t tiles = (in.output_count + in.tile - 1) / in.tile;
  parallel_for(in.threads, tiles * blocks.count, [&](int64_t item) {
    const int64_t b = item % blocks.count;
    with_vectors(blocks.size(b), [&](auto vectors) {
      convolve_tile<decltype(vectors)::value>(in, blocks, packed.get(), item / blocks.count, b, out);
    });
  });
  return 0;
}

SS_API int ss_sparse_weight_gradient(const SsSparseConvolution* input, const float* gradient, float* out) {
  const SsSparseConvolution& in = *input;
  const Blocks blocks(in.in_channels);
  const int64_t row_blocks = (in.out_channels + ROWS - 1) / ROWS, items = row_blocks * blocks.count;
  const int64_t tiles = (in.output_count + in.tile - 1) / in.tile;
  std::memset(out, 0, in.out_channels * in.offsets * in.in_channels * sizeof(float));
  for (int64_t tile = 0; tile < tiles; tile += TILES) {
    parallel_for(in.threads, in.offsets * items, [&](int64_t item) {
      const int64_t k = item / items, b = item % blocks.count, first = item % items / blocks.count * ROWS;
      const int64_t* bounds = in.bounds + k * tiles;
      const int64_t begin = bounds[tile], end = bounds[std::min(tile + TILES, tiles)];
      if (begin == end) return;
      with_vectors(blocks.size(b), [&](auto vectors) {
        weight_block<decltype(vectors)::value>(in, gradient, blocks, k, first, b, begin, end, out);
      });
    });
  }
  return 0;
}
