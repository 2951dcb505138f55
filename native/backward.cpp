// Gradients of each tile. Compositing is replayed front to back: with g the image gradient and c the channels,
//   dL/d(alpha_i) = T_i (g . c_i) - R_i / (1 - alpha_i),   R_i = sum over j > i of weight_j (g . c_j),
// and R starts as (g . image) and loses each Gaussian's share. What a Gaussian gets from a block is then a product of
// small matrices: [pixels of one Gaussian] x [moments and channel gradients of each pixel], done four Gaussians at once.
// The sums of each Gaussian in each tile go to a slot of their own, which gather.cpp adds up.
#include "tile.h"

namespace {

template <int D>
struct Layout {
  static constexpr int ROW = row_floats(D), VECTORS = ROW / LANES;
  static constexpr int BASIS = TileTables::BASIS_VECTORS;  // vectors that hold moments
  static constexpr int CHANNELS = MOMENTS / LANES;         // first vector that holds channels
  static constexpr int TOGETHER = LANES == 16 || VECTORS + BASIS <= 3 ? 4 : 2;  // Gaussians at once, as registers allow
};

template <int D>
struct TileGradient {
  using L = Layout<D>;
  Tile<D> tile;
  Floats transmittance[BLOCKS], remaining[BLOCKS], grad_alpha[BLOCKS];
  Floats grad_channels[BLOCKS][D];                        // lanes are pixels
  alignas(64) float grad_pixels[BLOCKS * LANES][L::ROW];  // one row per pixel: [zeros | channels | zeros]
  alignas(64) float weights[CHUNK + 4][LANES], grad_s[CHUNK + 4][LANES];
  alignas(64) float rows[CHUNK][L::ROW];

  TileGradient(const SsRasteriseInput& in, const ChannelGroup& group, const Grid& grid, const View& view, int64_t v, int t)
      : tile(in, group, grid, view, v, t) {}

  void load_block(int b, int64_t v, const SsRasteriseImages& images, const SsRasteriseImages& gradients);
  int replay_block(int b);
  void sum_block(int b, int count);
  float* slot(int64_t i, const State& state, int first_row) const;
  void prefetch_slots(int64_t begin, int64_t end, const State& state, int first_row) const {
    for (int64_t i = begin; i < end; i++) {
      const float* p = slot(i, state, first_row);
      for (int k = 0; k < L::ROW; k += 16) __builtin_prefetch(p + k, 1);
    }
  }
  void store_rows(int64_t begin, int64_t end, const State& state, int first_row);
};

// The image gradients of a block, and R before the first Gaussian.
template <int D>
void TileGradient<D>::load_block(int b, int64_t v, const SsRasteriseImages& images, const SsRasteriseImages& gradients) {
  const ChannelGroup& group = tile.group;
  const int64_t view = v * tile.in.width * tile.in.height, features = tile.in.feature_channels;
  const int skip = group.first ? COLOR_CHANNELS : 0;
  float(*pixels)[L::ROW] = grad_pixels + b * LANES;
  alignas(64) float composited[LANES][D]{}, planes[4][LANES]{};  // planes: alpha, depth, and their gradients
  tile.for_rows(b, [&](int lane, int64_t pixel, int count) {
    pixel += view;
    if (group.first) {
      copy_short(planes[0] + lane, images.alpha + pixel, count);
      copy_short(planes[1] + lane, images.depth + pixel, count);
      if (gradients.alpha) copy_short(planes[2] + lane, gradients.alpha + pixel, count);
      if (gradients.depth) copy_short(planes[3] + lane, gradients.depth + pixel, count);
    }
    if (group.first && gradients.color) {
      for (int i = 0; i < count; i++) {
        std::memcpy(composited[lane + i], images.color + 3 * (pixel + i), 3 * sizeof(float));
        std::memcpy(pixels[lane + i] + MOMENTS, gradients.color + 3 * (pixel + i), 3 * sizeof(float));
      }
    }
    if (group.features > 0 && gradients.features) {
      for (int i = 0; i < count; i++) {
        const int64_t feature = (pixel + i) * features + group.feature;
        copy_short(composited[lane + i] + skip, images.features + feature, group.features);
        copy_short(pixels[lane + i] + MOMENTS + skip, gradients.features + feature, group.features);
      }
    }
  });
  Floats image[D];
  to_channels<D>(composited[0], D, image);
  to_channels<D>(pixels[0] + MOMENTS, L::ROW, grad_channels[b]);
  Floats total = load(planes[2]) * load(planes[0]);
  for (int k = 0; k < D; k++) total += grad_channels[b][k] * image[k];
  remaining[b] = total;
  grad_alpha[b] = load(planes[2]);
  if (group.first) {
    // depth = sum of weight z / alpha. Its share of R is 0.
    const Floats alpha = load(planes[0]), least = broadcast(MIN_DEPTH_ALPHA);
    const Floats grad_z = keep(at_least(alpha, least), load(planes[3]) / max(alpha, least));
    grad_alpha[b] -= grad_z * load(planes[1]);
    grad_channels[b][3] = grad_z;
    for (int l = 0; l < LANES; l++) pixels[l][MOMENTS + 3] = grad_z[l];
  }
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
    store(grad_s[j], keep(passes, -o.alpha * grad_a));
    store(weights[j], o.weight);
    t = o.transmittance;
    j++;
    if (!any(greater(t, Floats{}))) break;
  }
  transmittance[b] = t;
  remaining[b] = rest;
  return j;
}

// rows += [dL/ds x basis | weight x image gradient], summed over the block's pixels.
template <int D>
void TileGradient<D>::sum_block(int b, int count) {
  constexpr int U = L::TOGETHER;
  int32_t* list = tile.list[b];
  for (int i = count; i % U != 0; i++) {
    list[i] = list[0];
    store(weights[i], Floats{});
    store(grad_s[i], Floats{});
  }
  for (int i = 0; i < count; i += U) {
    Floats moments[U][L::BASIS]{}, channels[U][L::VECTORS]{};
#pragma GCC unroll 4
    for (int p = 0; p < LANES; p++) {
      const float *basis = TABLES.basis[b * LANES + p], *pixel = grad_pixels[b * LANES + p];
#pragma GCC unroll 2
      for (int n = 0; n < L::BASIS; n++) {
#pragma GCC unroll 4
        for (int u = 0; u < U; u++) moments[u][n] += grad_s[i + u][p] * load(basis + n * LANES);
      }
#pragma GCC unroll 12
      for (int n = L::CHANNELS; n < L::VECTORS; n++) {
#pragma GCC unroll 4
        for (int u = 0; u < U; u++) channels[u][n] += weights[i + u][p] * load(pixel + n * LANES);
      }
    }
    for (int u = 0; u < U; u++) {
      float* row = rows[list[i + u]];
      for (int n = 0; n < L::VECTORS; n++) {
        store(row + n * LANES, load(row + n * LANES) + (n < L::BASIS ? moments[u][n] + channels[u][n] : channels[u][n]));
      }
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
    float* row = rows[i - begin];
    const float mx = tile.entries[i - begin].mean_x, my = tile.entries[i - begin].mean_y;
    row[5] += my * (my * row[0] - 2 * row[2]);
    row[4] += mx * my * row[0] - mx * row[2] - my * row[1];
    row[3] += mx * (mx * row[0] - 2 * row[1]);
    row[2] -= my * row[0];
    row[1] -= mx * row[0];
    float* out = slot(i, state, first_row);
    for (int k = 0; k < L::ROW; k += LANES) store(out + k, load(row + k));
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
  std::memset(gradient.grad_pixels, 0, sizeof gradient.grad_pixels);
  for (int b = 0; b < BLOCKS; b++) {
    gradient.transmittance[b] = gradient.tile.inside(b);
    gradient.load_block(b, v, images, gradients);
  }
  while (begin < composited) {
    const int64_t stop = std::min(begin + CHUNK, composited);
    std::memset(gradient.rows, 0, sizeof gradient.rows[0] * size_t(stop - begin));
    gradient.tile.load_chunk(begin, stop, true);
    gradient.prefetch_slots(begin, stop, state, first_row);
    for (int b = 0; b < BLOCKS; b++) {
      if (gradient.tile.count[b] == 0 || !any(greater(gradient.transmittance[b], Floats{}))) continue;
      gradient.sum_block(b, gradient.replay_block(b));
    }
    gradient.store_rows(begin, stop, state, first_row);
    begin = stop;
  }
  for (; begin < end; begin++) std::memset(gradient.slot(begin, state, first_row), 0, sizeof gradient.rows[0]);
}

}  // namespace

void backward_tiles(const SsRasteriseInput& in, int64_t v, const ChannelGroup& group, const Grid& grid, const State& state,
                    const SsRasteriseImages& images, const SsRasteriseImages& gradients, int first_row, int last_row,
                    int threads) {
  with_channels(group.channels(), [&](auto channels) {
    constexpr int D = decltype(channels)::value;
#pragma omp parallel for schedule(dynamic, 2) num_threads(threads) if (threads > 1)
    for (int t = first_row * grid.tiles_x; t < last_row * grid.tiles_x; t++) {
      backward_tile<D>(in, v, group, grid, state, images, gradients, first_row, t);
    }
  });
}
