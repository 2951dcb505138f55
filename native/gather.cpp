// Each Gaussian adds up its gradients over the tiles it touches, in the order of tiles. Slots of one Gaussian are adjacent.
// No two threads share a sum, so the result does not depend on how many threads there are or on which ran first.
#include "rasterise.h"

namespace {

// One pass: a group of channels over a band of tile rows.
struct Pass {
  ChannelGroup group;
  int first_row, last_row;
  bool first, last;  // of the view's passes
};

std::vector<Pass> plan(const SsRasteriseInput& in, const Grid& grid, const View& view) {
  std::vector<Pass> passes;
  for (int g = 0; g < group_count(in); g++) {
    const ChannelGroup group = channel_group(in, g);
    const int64_t limit = in.gradient_bytes / int64_t(sizeof(float) * group.row_floats());
    for (int row = 0; row < grid.tiles_y;) {
      const int64_t most = view.tile_begin[row * grid.tiles_x] + limit;
      int last = row + 1;
      while (last < grid.tiles_y && view.tile_begin[(last + 1) * grid.tiles_x] <= most) last++;
      passes.push_back({group, row, last, false, false});
      row = last;
    }
  }
  passes.front().first = passes.back().last = true;
  return passes;
}

// Tiles of the footprint inside the band.
int tiles_in_band(const Footprint& f, const Pass& pass) {
  const int rows = std::min<int>(f.y1, pass.last_row) - std::max<int>(f.y0, pass.first_row);
  return rows > 0 ? rows * (f.x1 - f.x0) : 0;
}

SS_INLINE void put(float* values, int count, const float* gradients, bool add) {
  for (int k = 0; k < count; k++) values[k] = add ? values[k] + gradients[k] : gradients[k];
}

// Sums of the LANES Gaussians from `first`, on to the outputs or to `partial` for the next pass.
template <int D>
void gather(const SsRasteriseInput& in, int64_t v, const Camera& camera, const State& state, const Pass& pass,
            const SsRasteriseGradients& out, int64_t first) {
  constexpr int ROW = row_floats(D);
  const bool shared_colors = in.color_views == 1;
  float* colors = out.colors + (shared_colors ? 0 : 3 * in.gaussians * v);
  float rows[LANES][SUMS]{};
  for (int l = 0; l < LANES && first + l < in.gaussians; l++) {
    const int64_t id = first + l;
    Floats sum[ROW / LANES]{};
    const float* slot = state.slots.get() + state.slot_begin[id] * ROW;
    const float* end = state.slots.get() + state.slot_begin[id + 1] * ROW;
    for (; slot < end; slot += ROW) {
#pragma GCC unroll 12
      for (int k = 0; k < ROW / LANES; k++) sum[k] += load(slot + k * LANES);
    }
    alignas(64) float gradients[ROW];
    for (int k = 0; k < ROW / LANES; k++) store(gradients + k * LANES, sum[k]);
    float channels[D];
    for (int k = 0; k < D; k++) channels[k] = gradients[channel_at(k)];
    for (int k = 0; k < MOMENTS; k++) rows[l][k] = gradients[moment_at(k)];
    if (pass.group.first) {
      put(colors + 3 * id, 3, channels, pass.first_row > 0 || (shared_colors && v > 0));
      rows[l][MOMENTS] = channels[3];
    }
    float* features = out.features + id * in.feature_channels + pass.group.feature;
    put(features, pass.group.features, channels + (pass.group.first ? COLOR_CHANNELS : 0), pass.first_row > 0 || v > 0);
    if (!pass.first) put(rows[l], SUMS, state.partial.get() + SUMS * id, true);
    if (!pass.last) put(state.partial.get() + SUMS * id, SUMS, rows[l], false);
  }
  if (pass.last) project_backward(in, camera, *state.views[v], first, rows, v > 0, out);
}

}  // namespace

void backward_view(const SsRasteriseInput& in, int64_t v, const Grid& grid, State& state, const SsRasteriseImages& images,
                   const SsRasteriseImages& image_gradients, const SsRasteriseGradients& out, int threads) {
  const View& view = *state.views[v];
  const Camera camera(in, v);
  const std::vector<Pass> passes = plan(in, grid, view);
  state.slot_begin.reserve(in.gaussians + 1);
  if (passes.size() > 1) state.partial.reserve(SUMS * in.gaussians);
  for (const Pass& pass : passes) {
    int64_t slots = 0;
    for (int64_t i = 0; i < in.gaussians; i++) {
      state.slot_begin[i] = slots;
      slots += tiles_in_band(view.footprints[i], pass);
    }
    state.slot_begin[in.gaussians] = slots;
    state.slots.reserve(slots * pass.group.row_floats());
    backward_tiles(in, v, pass.group, grid, state, images, image_gradients, pass.first_row, pass.last_row, threads);
    with_channels(pass.group.channels(), [&](auto channels) {
      parallel_for(threads, parts(in.gaussians), [&](int64_t part) {
        for_part(in.gaussians, part, [&](int64_t first) {
          gather<decltype(channels)::value>(in, v, camera, state, pass, out, first);
        });
      });
    });
  }
}
