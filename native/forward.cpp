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
    if (!any(open(s.transmittance))) break;
  }
  state = s;
}

template <int D>
void write_block(const Tile<D>& tile, int64_t v, int b, const BlockState<D>& s, const SsRasteriseImages& images) {
  const int64_t view = v * tile.in.width * tile.in.height;
  const ChannelArrays<float> channels(tile.in, tile.group, images.color, images.features);
  alignas(64) float alphas[LANES], depths[LANES];
  const Floats least = broadcast(MIN_DEPTH_ALPHA);
  store(alphas, s.alpha);
  store(depths, keep(at_least(s.alpha, least), s.channels[3] / max(s.alpha, least)));
  tile.for_rows(b, [&](int lane, int64_t pixel, auto count, auto exact) {
    pixel += view;
    if (channels.first) {
      store_quad(images.alpha + pixel, load_quad(alphas + lane, count), count);
      store_quad(images.depth + pixel, load_quad(depths + lane, count), count);
    }
#pragma GCC unroll 9
    for (int k = 0; k < D; k += 4) {
      Quad rows[4];  // of four channels; transposed, of four pixels
      for (int i = 0; i < 4; i++) rows[i] = load_quad(reinterpret_cast<const float*>(s.channels + k + i) + lane, BLOCK_WIDTH);
      transpose4(rows[0], rows[1], rows[2], rows[3]);
      for (int i = 0; i < count; i++) {
        channels.store(pixel + i, k, rows[i], exact);
      }
    }
  });
}

template <int D>
void composite_tile(const SsRasteriseInput& in, int64_t v, const ChannelGroup& group, const Grid& grid, View& view, int t,
                    const SsRasteriseImages& images) {
  Tile<D> tile(in, group, grid, view, v, t);
  alignas(64) BlockState<D> state[BLOCKS];
  unsigned unfinished = 0;  // blocks with a pixel that is not finished
  for (int b = 0; b < BLOCKS; b++) {
    state[b] = BlockState<D>{};
    state[b].transmittance = tile.inside(b);
    unfinished |= unsigned(tile.block_x(b) < tile.width && tile.block_y(b) < tile.height) << b;
  }
  const int64_t end = view.tile_begin[t + 1];
  int64_t begin = view.tile_begin[t];
  while (begin < end && unfinished) {
    const int64_t stop = std::min(begin + CHUNK, end);
    tile.load_chunk(begin, stop, !group.first);
    if (group.first) std::copy(tile.masks, tile.masks + (stop - begin), view.masks.get() + begin);
    for (int b = 0; b < BLOCKS; b++) {
      if (!(unfinished >> b & 1) || tile.count[b] == 0) continue;
      composite_block(tile, b, state[b]);
      if (!any(open(state[b].transmittance))) unfinished &= ~(1u << b);
    }
    begin = stop;
  }
  view.tile_end[t] = begin;
  for (int b = 0; b < BLOCKS; b++) write_block(tile, v, b, state[b], images);
}

}  // namespace

void forward_view(const SsRasteriseInput& in, int64_t v, const ChannelGroup& group, const Grid& grid, View& view,
                  const SsRasteriseImages& images, int threads) {
  with_channels(group.channels(), [&](auto channels) {
    constexpr int D = decltype(channels)::value;
    parallel_for(threads, grid.tiles(), [&](int64_t t) { composite_tile<D>(in, v, group, grid, view, int(t), images); });
  });
}
