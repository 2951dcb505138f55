// Front-to-back compositing of each tile, a block of pixels at a time.
#include "tile.h"

namespace {

constexpr int CHECK_EVERY = 8;  // Gaussians between two looks at whether a block is finished

template <int D>
struct BlockState {
  Floats channels[D], alpha, transmittance;
};

template <int D>
SS_INLINE void composite_block(const Tile<D>& tile, int b, BlockState<D>& state) {
  const Floats x = TABLES.x[b], y = TABLES.y[b];
  BlockState<D> s = state;
  for (int j = 0; j < tile.count[b];) {
    for (const int stop = std::min(j + CHECK_EVERY, tile.count[b]); j < stop; j++) {
      const Entry<D>& e = tile.entries[tile.list[b][j]];
      const Blend o = blend(e, x, y, s.transmittance);
#pragma GCC unroll 36
      for (int k = 0; k < D; k++) s.channels[k] += o.weight * e.channels[k];
      s.alpha += o.weight;
      s.transmittance = o.transmittance;
    }
    if (!any(greater(s.transmittance, Floats{}))) break;
  }
  state = s;
}

template <int D>
void write_block(const Tile<D>& tile, int64_t v, const Grid& grid, int b, const BlockState<D>& s, const SsRasteriseImages& images) {
  const ChannelGroup& group = tile.group;
  alignas(64) float pixels[LANES][D];  // channels of each pixel
  for (int k = 0; k < D; k += 4) {
    for (int l = 0; l < LANES; l += 4) {
      Quad rows[4];
      for (int i = 0; i < 4; i++) std::memcpy(&rows[i], reinterpret_cast<const float*>(&s.channels[k + i]) + l, sizeof(Quad));
      transpose4(rows[0], rows[1], rows[2], rows[3]);
      for (int i = 0; i < 4; i++) std::memcpy(&pixels[l + i][k], &rows[i], sizeof(Quad));
    }
  }
  tile.for_pixels(b, [&](int l, int px, int py) {
    const int64_t pixel = (v * grid.height + tile.y + py) * grid.width + tile.x + px;
    const float* p = pixels[l];
    if (group.first) {
      std::memcpy(images.color + 3 * pixel, p, 3 * sizeof(float));
      images.alpha[pixel] = s.alpha[l];
      images.depth[pixel] = s.alpha[l] >= MIN_DEPTH_ALPHA ? p[3] / s.alpha[l] : 0.0f;
      p += COLOR_CHANNELS;
    }
    float* feature = images.features + pixel * tile.in.feature_channels + group.feature;
    for (int k = 0; k < group.features; k++) feature[k] = p[k];
  });
}

template <int D>
void composite_tile(const SsRasteriseInput& in, int64_t v, const ChannelGroup& group, const Grid& grid, View& view, int t,
                    const SsRasteriseImages& images) {
  Tile<D> tile(in, group, grid, view, v, t);
  alignas(64) BlockState<D> state[BLOCKS];
  unsigned open = 0;  // blocks with a pixel that is not finished
  for (int b = 0; b < BLOCKS; b++) {
    state[b] = BlockState<D>{};
    state[b].transmittance = tile.inside(b);
    open |= unsigned(tile.block_x(b) < tile.width && tile.block_y(b) < tile.height) << b;
  }
  const int64_t end = view.tile_begin[t + 1];
  int64_t begin = view.tile_begin[t];
  while (begin < end && open) {
    const int64_t stop = std::min(begin + CHUNK, end);
    tile.load_chunk(begin, stop, !group.first);
    if (group.first) std::copy(tile.masks, tile.masks + (stop - begin), view.masks.get() + begin);
    for (int b = 0; b < BLOCKS; b++) {
      if (!(open >> b & 1) || tile.count[b] == 0) continue;
      composite_block(tile, b, state[b]);
      if (!any(greater(state[b].transmittance, Floats{}))) open &= ~(1u << b);
    }
    begin = stop;
  }
  view.tile_end[t] = begin;
  for (int b = 0; b < BLOCKS; b++) write_block(tile, v, grid, b, state[b], images);
}

}  // namespace

void forward_view(const SsRasteriseInput& in, int64_t v, const ChannelGroup& group, const Grid& grid, View& view,
                  const SsRasteriseImages& images, int threads) {
  with_channels(group.channels(), [&](auto channels) {
    constexpr int D = decltype(channels)::value;
#pragma omp parallel for schedule(dynamic, 2) num_threads(threads) if (threads > 1)
    for (int t = 0; t < grid.tiles(); t++) composite_tile<D>(in, v, group, grid, view, t, images);
  });
}
