// Gradients of each tile. Compositing is replayed front to back: with g the image gradient and c the channels,
//   dL/d(alpha_i) = T_i (g . c_i) - R_i / (1 - alpha_i),   R_i = sum over j > i of weight_j (g . c_j),
// and R starts as (g . image) and loses each Gaussian's share. What a Gaussian gets from a block is then a product of
// small matrices: [pixels of one Gaussian] x [moments and channel gradients of each pixel], done four Gaussians at once.
// The sums of each Gaussian in each tile go to a slot of their own, which gather.cpp adds up.
#include "tile.h"

namespace {

template <int D>
struct Layout {
  static constexpr int ROW = row_floats(D);
  static constexpr int PAIR_VECTORS = (2 * std::max(MOMENTS, std::min(D, PAIRS)) + LANES - 1) / LANES;
  static constexpr int VECTORS = PAIR_VECTORS + (std::max(D - PAIRS, 0) + LANES - 1) / LANES;
  static constexpr int REGISTERS = LANES == 16 ? 16 : 10;  // for sums
  static constexpr int TOGETHER = 8 * VECTORS <= REGISTERS ? 8 : 4 * VECTORS <= REGISTERS ? 4 : 2;  // Gaussians at once
};

template <int D>
struct TileGradient {
  using L = Layout<D>;
  Tile<D> tile;
  Floats transmittance[BLOCKS], remaining[BLOCKS], grad_alpha[BLOCKS];
  Floats grad_channels[BLOCKS][D];                        // lanes are pixels
  alignas(64) float pixels[BLOCKS * LANES][L::ROW];       // one row per pixel, of moments and channels' gradients
  alignas(64) float pairs[CHUNK + 8][2 * LANES];          // dL/ds and weight of each pixel
  alignas(64) float rows[CHUNK][L::ROW];

  TileGradient(const SsRasteriseInput& in, const ChannelGroup& group, const Grid& grid, const View& view, int64_t v, int t)
      : tile(in, group, grid, view, v, t) {}

  void load_block(int b, int64_t v, const SsRasteriseImages& images, const SsRasteriseImages& gradients);
  int replay_block(int b);
  void sum_block(int b, int count);
  float* slot(int64_t i, const State& state, int first_row) const;
  void store_rows(int64_t begin, int64_t end, const State& state, int first_row);
};

// Channels k .. k + 3 of a pixel, to their places in its row.
SS_INLINE void put_channels(float* row, const Quad* moments, int k, Quad channels) {
  if (k >= PAIRS) {
    std::memcpy(row + channel_at(k), &channels, sizeof channels);
    return;
  }
  Quad low, high;
  interleave(moments[k / 4], channels, low, high);
  std::memcpy(row + moment_at(k), &low, sizeof low);
  std::memcpy(row + moment_at(k + 2), &high, sizeof high);
}

// The image gradients of a block, and R before the first Gaussian.
template <int D>
void TileGradient<D>::load_block(int b, int64_t v, const SsRasteriseImages& images, const SsRasteriseImages& gradients) {
  const int64_t view = v * tile.in.width * tile.in.height;
  const ChannelArrays<float> image(tile.in, tile.group, images.color, images.features);
  const ChannelArrays<float> image_grad(tile.in, tile.group, gradients.color, gradients.features);
  const bool first = tile.group.first;
  const auto load_plane = [&](const float* plane) {
    Quad rows[BLOCK_HEIGHT]{};
    if (plane && first) {
      tile.for_rows(b, [&](int lane, int64_t pixel, auto count, auto) {
        rows[lane / BLOCK_WIDTH] = load_quad(plane + view + pixel, count);
      });
    }
    return join_rows(rows);
  };
  const Floats alpha = load_plane(images.alpha), depth = load_plane(images.depth), grad_a = load_plane(gradients.alpha);
  // depth = sum of weight z / alpha. Its share of R is 0.
  const Floats least = broadcast(MIN_DEPTH_ALPHA);
  alignas(64) float grad_z[LANES];
  store(grad_z, keep(at_least(alpha, least), load_plane(gradients.depth) / max(alpha, least)));
  grad_alpha[b] = grad_a - load(grad_z) * depth;

  Quad totals[BLOCK_HEIGHT]{};
  std::memset(grad_channels[b], 0, sizeof grad_channels[b]);
  tile.for_rows(b, [&](int lane, int64_t pixel, auto count, auto exact) {
    Quad shares[4]{};
#pragma GCC unroll 9
    for (int k = 0; k < D; k += 4) {
      Quad grad[4]{};
      for (int i = 0; i < count; i++) {
        grad[i] = image_grad.load(view + pixel + i, k, exact);
        shares[i] += grad[i] * image.load(view + pixel + i, k, exact);
        if (first && k == 0) grad[i] = with_fourth(grad[i], grad_z[lane + i]);
        put_channels(pixels[b * LANES + lane + i], TABLES.moments[b * LANES + lane + i], k, grad[i]);
      }
      if (D < PAIRS) {
        for (int i = 0; i < count; i++) {
          put_channels(pixels[b * LANES + lane + i], TABLES.moments[b * LANES + lane + i], D, Quad{});
        }
      }
      transpose4(grad[0], grad[1], grad[2], grad[3]);
      for (int i = 0; i < 4; i++) store_quad(reinterpret_cast<float*>(grad_channels[b] + k + i) + lane, grad[i], BLOCK_WIDTH);
    }
    transpose4(shares[0], shares[1], shares[2], shares[3]);
    totals[lane / BLOCK_WIDTH] = shares[0] + shares[1] + (shares[2] + shares[3]);
  });
  remaining[b] = join_rows(totals) + grad_a * alpha;
}

// Weights and dL/ds of the chunk's Gaussians in one block. Returns how many were composited before the block finished.
template <int D>
int TileGradient<D>::replay_block(int b) {
  const Floats x = TABLES.x[b], y = TABLES.y[b];
  const Floats* grad = grad_channels[b];
  Floats t = transmittance[b], rest = remaining[b];
  int j = 0;
  while (j < tile.count[b]) {
    const Entry<D>& e = tile.entries[tile.list[b][j]];
    const Blend o = blend(e, x, y, t);
    Floats even = grad_alpha[b], odd{};  // two sums, for two chains of additions
#pragma GCC unroll 18
    for (int k = 0; k < D; k += 2) {
      even += grad[k] * e.channels[k];
      odd += grad[k + 1] * e.channels[k + 1];
    }
    const Floats value = even + odd;
    rest -= o.weight * value;
    const Floats grad_a = t * value - rest / (1.0f - o.alpha);
    // A clamped alpha passes no gradient, and a pixel that took nothing has none.
    const Mask passes = greater(broadcast(MAX_ALPHA), o.alpha) & greater(o.weight, Floats{});
    store_pairs(pairs[j], keep(passes, -o.alpha * grad_a), o.weight);
    t = o.transmittance;
    j++;
    if (!any(open(t))) break;
  }
  transmittance[b] = t;
  remaining[b] = rest;
  return j;
}

// rows += [dL/ds x moments and weight x image gradient, in turns | weight x image gradient], summed over the block's pixels.
template <int D>
void TileGradient<D>::sum_block(int b, int count) {
  constexpr int U = L::TOGETHER;
  int32_t* list = tile.list[b];
  for (int i = count; i % U != 0; i++) {
    list[i] = list[0];
    std::memset(pairs[i], 0, sizeof pairs[i]);
  }
  for (int i = 0; i < count; i += U) {
    Floats sums[U][L::VECTORS]{};
#pragma GCC unroll 4
    for (int p = 0; p < LANES; p++) {
      const float* pixel = pixels[b * LANES + p];
#pragma GCC unroll 8
      for (int u = 0; u < U; u++) {
        const float* pair = pairs[i + u] + pair_at(p);
#pragma GCC unroll 12
        for (int n = 0; n < L::VECTORS; n++) {
          sums[u][n] += (n < L::PAIR_VECTORS ? broadcast_pair(pair) : broadcast(pair[1])) * load(pixel + n * LANES);
        }
      }
    }
    for (int u = 0; u < U; u++) {
      float* row = rows[list[i + u]];
      for (int n = 0; n < L::VECTORS; n++) store(row + n * LANES, load(row + n * LANES) + sums[u][n]);
    }
  }
}

// The slot of the i-th entry of the view's lists, which belongs to this tile.
template <int D>
float* TileGradient<D>::slot(int64_t i, const State& state, int first_row) const {
  const int32_t id = tile.view.ids[i];
  const Footprint f = tile.view.footprints[id];
  const int row = tile.y / TILE_HEIGHT - std::max<int>(f.y0, first_row), column = tile.x / TILE_WIDTH - f.x0;
  return state.slots.get() + (state.slot_begin[id] + row * (f.x1 - f.x0) + column) * L::ROW;
}

// Shifts the moments from the tile's centre to each Gaussian's mean and stores the chunk's rows in their slots.
template <int D>
void TileGradient<D>::store_rows(int64_t begin, int64_t end, const State& state, int first_row) {
  for (int64_t i = begin; i < end; i++) {
    const float* row = rows[i - begin];
    const float mx = tile.entries[i - begin].mean_x, my = tile.entries[i - begin].mean_y;
    const float sum = row[moment_at(0)], x = row[moment_at(1)], y = row[moment_at(2)];
    Quad quads[L::ROW / 4];
    for (int k = 0; k < L::ROW; k += 4) std::memcpy(&quads[k / 4], row + k, sizeof(Quad));
    quads[0] += Quad{0, 0, -mx * sum, 0};
    quads[1] += Quad{-my * sum, 0, mx * (mx * sum - 2 * x), 0};
    quads[2] += Quad{mx * (my * sum - y) - my * x, 0, my * (my * sum - 2 * y), 0};
    float* out = slot(i, state, first_row);
    for (int k = 0; k < L::ROW; k += LANES) stream(out + k, join(quads + k / 4));
  }
}

template <int D>
void backward_tile(const SsRasteriseInput& in, int64_t v, const ChannelGroup& group, const Grid& grid, const State& state,
                   const SsRasteriseImages& images, const SsRasteriseImages& gradients, int first_row, int t) {
  const View& view = *state.views[v];
  const int64_t composited = view.tile_end[t], end = view.tile_begin[t + 1];
  int64_t begin = view.tile_begin[t];
  if (begin == end) return;
  TileGradient<D> gradient(in, group, grid, view, v, t);
  // Of a tile inside the image, `load_block` writes every float of a row of 16.
  if (Layout<D>::ROW > 16 || gradient.tile.width < TILE_WIDTH || gradient.tile.height < TILE_HEIGHT) {
    std::memset(gradient.pixels, 0, sizeof gradient.pixels);
  }
  if (group.features > 0 && !gradients.features) gradient.tile.exact = false;
  gradient.tile.slots = state.slot_begin.get();
  for (int b = 0; b < BLOCKS; b++) {
    gradient.transmittance[b] = gradient.tile.inside(b);
    gradient.load_block(b, v, images, gradients);
  }
  while (begin < composited) {
    const int64_t stop = std::min(begin + CHUNK, composited);
    std::memset(gradient.rows, 0, sizeof gradient.rows[0] * size_t(stop - begin));
    gradient.tile.load_chunk(begin, stop, true);
    for (int b = 0; b < BLOCKS; b++) {
      if (gradient.tile.count[b] == 0 || !any(open(gradient.transmittance[b]))) continue;
      gradient.sum_block(b, gradient.replay_block(b));
    }
    gradient.store_rows(begin, stop, state, first_row);
    begin = stop;
  }
  for (; begin < end; begin++) {
    float* out = gradient.slot(begin, state, first_row);
    for (int k = 0; k < Layout<D>::ROW; k += LANES) stream(out + k, Floats{});
  }
  finish_streams();
}

}  // namespace

void backward_tiles(const SsRasteriseInput& in, int64_t v, const ChannelGroup& group, const Grid& grid, const State& state,
                    const SsRasteriseImages& images, const SsRasteriseImages& gradients, int first_row, int last_row,
                    int threads) {
  with_channels(group.channels(), [&](auto channels) {
    constexpr int D = decltype(channels)::value;
    parallel_for(threads, (last_row - first_row) * grid.tiles_x, [&](int64_t t) {
      backward_tile<D>(in, v, group, grid, state, images, gradients, first_row, first_row * grid.tiles_x + int(t));
    });
  });
}
