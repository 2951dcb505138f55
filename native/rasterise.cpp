// The rasteriser's C ABI: channel groups, threads, and reuse of memory between calls.
#include "rasterise.h"

#include <mutex>

int group_count(const SsRasteriseInput& in) {
  const int64_t beyond = in.feature_channels - (MAX_CHANNELS - COLOR_CHANNELS);
  return beyond <= 0 ? 1 : int(1 + (beyond + MAX_CHANNELS - 1) / MAX_CHANNELS);
}

ChannelGroup channel_group(const SsRasteriseInput& in, int index) {
  const int64_t first = index == 0 ? 0 : int64_t(MAX_CHANNELS) * index - COLOR_CHANNELS;
  const int64_t room = index == 0 ? MAX_CHANNELS - COLOR_CHANNELS : MAX_CHANNELS;
  return {index == 0, first, int(std::min(room, in.feature_channels - first))};
}

size_t State::bytes() const {
  size_t sum = keys[0].bytes() + keys[1].bytes() + order[0].bytes() + order[1].bytes() + cursor.bytes() + slot_begin.bytes() +
               slots.bytes() + partial.bytes();
  for (const auto& view : views) {
    sum += view->splats.bytes() + view->footprints.bytes() + view->tile_begin.bytes() + view->tile_end.bytes() +
           view->ids.bytes() + view->masks.bytes();
  }
  return sum;
}

namespace {

// States waiting to be used again: fresh pages cost as much as a small image.
constexpr size_t POOL_STATES = 4, POOL_STATE_BYTES = size_t{256} << 20;
std::mutex pool_mutex;
std::vector<std::unique_ptr<State>> pool;

std::unique_ptr<State> take_state() {
  const std::lock_guard<std::mutex> lock(pool_mutex);
  if (pool.empty()) return std::make_unique<State>();
  std::unique_ptr<State> state = std::move(pool.back());
  pool.pop_back();
  return state;
}

void give_back(std::unique_ptr<State> state) {
  if (state->bytes() > POOL_STATE_BYTES) return;
  const std::lock_guard<std::mutex> lock(pool_mutex);
  if (pool.size() < POOL_STATES) pool.push_back(std::move(state));
}

// A small image takes less time than waking a second thread beside a busy neighbour.
int useful_threads(const SsRasteriseInput& in) {
  constexpr int64_t WORK_PER_THREAD = 4096;
  const int64_t work = in.gaussians + in.width * in.height / 4;
  return int(std::max<int64_t>(1, std::min<int64_t>(in.threads, work / WORK_PER_THREAD)));
}

}  // namespace

SS_API int ss_rasterise_forward(const SsRasteriseInput* input, const SsRasteriseImages* images, void** state_out) try {
  const SsRasteriseInput& in = *input;
  const Grid grid(in);
  const int threads = useful_threads(in);
  std::unique_ptr<State> state = take_state();
  for (int64_t v = 0; v < in.views; v++) {
    // Without a backward pass to come, one view's memory serves them all.
    const size_t slot = state_out ? size_t(v) : 0;
    if (state->views.size() <= slot) state->views.push_back(std::make_unique<View>());
    View& view = *state->views[slot];
    project_view(in, Camera(in, v), grid, view, threads);
    bin_view(in.gaussians, grid, view, *state, threads);
    for (int g = 0; g < group_count(in); g++) forward_view(in, v, channel_group(in, g), grid, view, *images, threads);
  }
  if (state_out) {
    *state_out = state.release();
  } else {
    give_back(std::move(state));
  }
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

SS_API int ss_rasterise_backward(const SsRasteriseInput* input, void* state, const SsRasteriseImages* images,
                                 const SsRasteriseImages* image_gradients, const SsRasteriseGradients* gradients) try {
  const Grid grid(*input);
  const int threads = useful_threads(*input);
  for (int64_t v = 0; v < input->views; v++) {
    backward_view(*input, v, grid, *static_cast<State*>(state), *images, *image_gradients, *gradients, threads);
  }
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

SS_API void ss_rasterise_free(void* state) { give_back(std::unique_ptr<State>(static_cast<State*>(state))); }
