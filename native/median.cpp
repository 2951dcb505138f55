// Median depth: at each pixel the z of the Gaussian that brings the transmittance below 1/2, and 0 where none does. A pass
// of its own over the tiles' lists, as few callers want it; its gradient goes to that z alone.
#include "rasterise.h"

namespace {

struct Median {
  Floats z;
  Ints id;  // -1 where there is none
};

// `x` and `y` are pixel centres, T starts as 1 inside the image.
SS_INLINE Median median_block(const View& view, int64_t begin, int64_t end, int block, Floats x, Floats y, Floats transmittance) {
  const Floats half = broadcast(0.5f);
  Floats z{};
  Ints id = Ints{} - 1;
  for (int64_t i = begin; i < end; i++) {
    if (!(view.masks[i] >> block & 1)) continue;
    const Splat& s = view.splats[view.ids[i]];
    const Floats dx = x - s.x, dy = y - s.y, a = s.p * dx + s.q * dy, b = s.r * dy;
    const Floats log2_alpha = s.log2_opacity - a * a - b * b;
    const Floats alpha = min(keep(at_least(log2_alpha, broadcast(LOG2_MIN_ALPHA)), exp2(log2_alpha)), broadcast(MAX_ALPHA));
    const Floats left = transmittance - alpha * transmittance;
    const Mask crossing = at_least(transmittance, half) & greater(half, left);
    z = select(crossing, broadcast(s.z), z);
    id = (Ints)select(crossing, (Floats)(Ints{} + view.ids[i]), (Floats)id);
    transmittance = left;
    if (!any(at_least(transmittance, half))) break;
  }
  return {z, id};
}

void median_tile(const Grid& grid, const View& view, int t, float* depth) {
  const int tile_x = t % grid.tiles_x * TILE_WIDTH, tile_y = t / grid.tiles_x * TILE_HEIGHT;
  for (int block = 0; block < BLOCKS; block++) {
    const int x0 = tile_x + block % 4 * BLOCK_WIDTH, y0 = tile_y + block / 4 * BLOCK_HEIGHT;
    if (x0 >= grid.width || y0 >= grid.height) continue;
    Floats x, y, inside;
    for (int l = 0; l < LANES; l++) {
      const int px = x0 + l % BLOCK_WIDTH, py = y0 + l / BLOCK_WIDTH;
      x[l] = px + 0.5f, y[l] = py + 0.5f, inside[l] = px < grid.width && py < grid.height;
    }
    const Median median = median_block(view, view.tile_begin[t], view.tile_end[t], block, x, y, inside);
    for (int l = 0; l < LANES; l++) {
      if (inside[l] == 0) continue;
      const int64_t pixel = (y0 + l / BLOCK_WIDTH) * int64_t(grid.width) + x0 + l % BLOCK_WIDTH;
      depth[pixel] = median.z[l];
      view.median_ids[pixel] = median.id[l];
    }
  }
}

}  // namespace

void median_view(const SsRasteriseInput& in, const Grid& grid, View& view, float* depth, int threads) {
  view.median_ids.reserve(in.width * in.height);
  parallel_for(threads, grid.tiles(), [&](int64_t t) { median_tile(grid, view, int(t), depth); });
}

void median_backward(const SsRasteriseInput& in, View& view, const float* depth_gradient) {
  view.median_gradients.reserve(in.gaussians);
  std::fill(view.median_gradients.get(), view.median_gradients.get() + in.gaussians, 0.0f);
  if (!depth_gradient) return;
  for (int64_t pixel = 0; pixel < in.width * in.height; pixel++) {
    const int32_t id = view.median_ids[pixel];
    if (id >= 0) view.median_gradients[id] += depth_gradient[pixel];
  }
}
