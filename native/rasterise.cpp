// The rasteriser's C ABI: batches of objects, channel groups, threads, and reuse of memory between calls.
#include "rasterise.h"

#include <atomic>
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

size_t View::bytes() const {
  return splats.bytes() + footprints.bytes() + tile_begin.bytes() + tile_end.bytes() + ids.bytes() + masks.bytes() +
         median_ids.bytes() + median_gradients.bytes() + camera_sums.bytes();
}

size_t State::bytes() const {
  return keys[0].bytes() + keys[1].bytes() + cursor.bytes() + changes.bytes() + slot_begin.bytes() +
         slots.bytes() + partial.bytes();
}

namespace {

// Memory waiting to be used again: fresh pages cost as much as a small image.
template <class T>
class Pool {
 public:
  std::unique_ptr<T> take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (items_.empty()) return std::make_unique<T>();
    std::unique_ptr<T> item = std::move(items_.back());
    items_.pop_back();
    bytes_ -= item->bytes();
    return item;
  }
  void give(std::unique_ptr<T> item) noexcept try {
    const std::lock_guard<std::mutex> lock(mutex_);
    const size_t bytes = item->bytes();
    if (bytes_ + bytes > LIMIT) return;
    items_.push_back(std::move(item));
    bytes_ += bytes;
  } catch (const std::bad_alloc&) {  // no room in the pool itself: the item is freed
  }

 private:
  static constexpr size_t LIMIT = size_t{512} << 20;
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> items_;
  size_t bytes_ = 0;
};
Pool<View> view_pool;
Pool<State> scratch_pool;

using Views = std::vector<std::unique_ptr<View>>;

void give_back(Views& views) {
  for (auto view = views.rbegin(); view != views.rend(); ++view) view_pool.give(std::move(*view));
  views.clear();
}

// What the forward pass keeps for the backward pass.
struct Kept {
  std::vector<Views> objects;
  explicit Kept(int64_t count) : objects(size_t(count)) {}
  ~Kept() {
    for (Views& views : objects) give_back(views);
  }
};

// Scratch memory that works on an object's views while it lives.
class Worker {
 public:
  explicit Worker(Views& views) : state_(scratch_pool.take()), views_(views) { state_->views.swap(views_); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() {
    state_->views.swap(views_);
    scratch_pool.give(std::move(state_));
  }
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
  Views& views_;
};

// One object of a batch.
SsRasteriseInput object_input(const SsRasteriseInput& in, int64_t b) {
  SsRasteriseInput o = in;
  const int64_t g = in.gaussian_begin[b], v = in.view_begin[b];
  o.objects = 1, o.gaussians = in.gaussian_begin[b + 1] - g, o.views = in.view_begin[b + 1] - v;
  o.color_views = in.color_begin[b + 1] - in.color_begin[b] == o.gaussians ? 1 : o.views;
  o.means += 3 * g, o.quats += 4 * g, o.scales += 3 * g, o.opacities += g, o.features += in.feature_channels * g;
  o.colors += 3 * in.color_begin[b];
  o.world_to_camera += 16 * v, o.K += 9 * v;
  return o;
}

SsRasteriseImages object_images(const SsRasteriseInput& in, const SsRasteriseImages& images, int64_t b) {
  const int64_t pixel = in.view_begin[b] * in.width * in.height;
  const auto from = [pixel](float* image, int64_t channels) { return image ? image + channels * pixel : nullptr; };
  return {from(images.color, 3), from(images.features, in.feature_channels), from(images.depth, 1), from(images.alpha, 1)};
}

SsRasteriseGradients object_gradients(const SsRasteriseInput& in, const SsRasteriseGradients& out, int64_t b) {
  const int64_t g = in.gaussian_begin[b];
  float* world_to_camera = out.world_to_camera ? out.world_to_camera + 16 * in.view_begin[b] : nullptr;
  return {out.means + 3 * g,     out.quats + 4 * g,
          out.scales + 3 * g,    out.opacities + g,
          out.colors + 3 * in.color_begin[b], out.features + in.feature_channels * g,
          world_to_camera};
}

// A small image takes less time than waking a second thread beside a busy neighbour.
int useful_threads(const SsRasteriseInput& in, int64_t views) {
  constexpr int64_t WORK_PER_THREAD = 4096;
  const int64_t work = in.gaussians + views * in.width * in.height / 4;
  return int(std::max<int64_t>(1, std::min<int64_t>(in.threads, work / WORK_PER_THREAD)));
}

// Calls `body(object, threads)` for every object: one thread each if there are enough of them, otherwise one after the other
// with many threads. Returns 1 if memory ran out.
template <class Body>
int for_objects(const SsRasteriseInput& in, Body&& body) {
  const int threads = useful_threads(in, in.views);
  const bool together = in.objects >= threads;
  std::atomic<int> failed{0};
  parallel_for(together ? threads : 1, in.objects, [&](int64_t b) {
    try {
      body(b, together ? 1 : useful_threads(object_input(in, b), 1));
    } catch (const std::bad_alloc&) {
      failed = 1;
    }
  });
  return failed;
}

void forward_object(const SsRasteriseInput& in, const SsRasteriseImages& images, State& state, bool keep, int threads) {
  const Grid grid(in);
  for (int64_t v = 0; v < in.views; v++) {
    // Without a backward pass to come, one view's memory serves them all.
    if (keep || v == 0) state.views.push_back(view_pool.take());
    View& view = *state.views.back();
    project_view(in, Camera(in, v), grid, view, threads);
    bin_view(in.gaussians, grid, view, state, threads);
    for (int g = 0; g < group_count(in); g++) forward_view(in, v, channel_group(in, g), grid, view, images, threads);
    if (in.median_depth) median_view(in, grid, view, images.depth + v * in.width * in.height, threads);
  }
}

// dL/d(world_to_camera) of one view, in the order of Gaussians.
void sum_camera(const SsRasteriseInput& in, const View& view, float* out) {
  double sums[CAMERA_SUMS]{};
  for (int64_t i = 0; i < (in.gaussians + LANES - 1) / LANES; i++) {
    for (int k = 0; k < CAMERA_SUMS; k++) sums[k] += view.camera_sums[i * CAMERA_SUMS + k];
  }
  for (int row = 0; row < 3; row++) {
    for (int column = 0; column < 3; column++) out[4 * row + column] = float(sums[3 * row + column]);
    out[4 * row + 3] = float(sums[9 + row]);
  }
  std::fill(out + 12, out + 16, 0.0f);
}

void backward_object(const SsRasteriseInput& in, State& state, const SsRasteriseImages& images,
                     SsRasteriseImages image_gradients, const SsRasteriseGradients& out, int threads) {
  const Grid grid(in);
  const float* depth_gradient = image_gradients.depth;
  if (in.median_depth) image_gradients.depth = nullptr;  // which stands for expected depth from here on
  for (int64_t v = 0; v < in.views; v++) {
    View& view = *state.views[size_t(v)];
    if (in.median_depth) {
      median_backward(in, view, depth_gradient ? depth_gradient + v * in.width * in.height : nullptr);
    }
    if (out.world_to_camera) view.camera_sums.reserve((in.gaussians + LANES - 1) / LANES * CAMERA_SUMS);
    backward_view(in, v, grid, state, images, image_gradients, out, threads);
    if (out.world_to_camera) sum_camera(in, view, out.world_to_camera + 16 * v);
  }
}

}  // namespace

SS_API int ss_rasterise_forward(const SsRasteriseInput* input, const SsRasteriseImages* images, void** state_out) try {
  const SsRasteriseInput& in = *input;
  auto kept = std::make_unique<Kept>(in.objects);
  const int failed = for_objects(in, [&](int64_t b, int threads) {
    Views& views = kept->objects[size_t(b)];
    {
      Worker worker(views);
      forward_object(object_input(in, b), object_images(in, *images, b), worker.state(), state_out, threads);
    }
    if (!state_out) give_back(views);
  });
  if (!failed && state_out) *state_out = kept.release();
  return failed;
} catch (const std::bad_alloc&) {
  return 1;
}

SS_API int ss_rasterise_backward(const SsRasteriseInput* input, void* state, const SsRasteriseImages* images,
                                 const SsRasteriseImages* image_gradients, const SsRasteriseGradients* gradients) try {
  const SsRasteriseInput& in = *input;
  Kept& kept = *static_cast<Kept*>(state);
  return for_objects(in, [&](int64_t b, int threads) {
    Worker worker(kept.objects[size_t(b)]);
    backward_object(object_input(in, b), worker.state(), object_images(in, *images, b),
                    object_images(in, *image_gradients, b), object_gradients(in, *gradients, b), threads);
  });
} catch (const std::bad_alloc&) {
  return 1;
}

SS_API void ss_rasterise_free(void* state) { delete static_cast<Kept*>(state); }
