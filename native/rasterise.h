// The rasteriser's data and stages. One view goes through
//   project_view   (projection.cpp)  each Gaussian's ellipse on screen, and the rectangle of tiles it touches
//   bin_view       (binning.cpp)     for each tile, its Gaussians from front to back
//   forward_view   (forward.cpp)     tiles to images
//   median_view    (median.cpp)      tiles to median depth, if asked for
// and back through
//   median_backward (median.cpp)     gradients of median depth to the Gaussians it shows
//   backward_tiles (backward.cpp)    image gradients to gradients of each ellipse in each tile
//   backward_view  (gather.cpp)      their sums over tiles
//   project_backward (projection.cpp)  on to the Gaussians.
// A tile is 4 x 4 blocks of pixels and a block is one SIMD vector, so a tile's shape depends on the build.
#pragma once
#include <algorithm>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "parallel.h"
#include "simd.h"
#include "splatsense.h"

constexpr int BLOCK_WIDTH = LANES >= 8 ? 4 : 2, BLOCK_HEIGHT = LANES / BLOCK_WIDTH;
constexpr int TILE_WIDTH = 4 * BLOCK_WIDTH, TILE_HEIGHT = 4 * BLOCK_HEIGHT;
constexpr int BLOCKS = 16;

constexpr float MIN_ALPHA = 1.0f / 255, MAX_ALPHA = 0.999f;  // a fainter Gaussian is skipped; a stronger one is clamped
constexpr float MIN_TRANSMITTANCE = 1e-4f;                   // a pixel is finished before the Gaussian that would reach this
constexpr float MIN_DEPTH_ALPHA = 1e-3f;                     // depth is 0 where nothing was composited (alpha < MIN_ALPHA)
constexpr float LOG2_MIN_ALPHA = -7.994353436858858f;        // log2(1 / 255)
constexpr float LOG2_E = 1.4426950408889634f;

// An array that only grows, is never initialised, and is aligned for the widest vector.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { ::operator delete(data_, std::align_val_t{64}); }
  void reserve(int64_t count) {
    if (count <= capacity_) return;
    ::operator delete(data_, std::align_val_t{64});
    data_ = nullptr;
    capacity_ = 0;
    data_ = static_cast<T*>(::operator new(sizeof(T) * size_t(count), std::align_val_t{64}));
    capacity_ = count;
  }
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }
  size_t bytes() const { return sizeof(T) * size_t(capacity_); }

 private:
  T* data_ = nullptr;
  int64_t capacity_ = 0;
};

// An ellipse on screen. Its log2 density at offset (dx, dy) from the mean is -(p dx + q dy)^2 - (r dy)^2: a Cholesky
// factor of the inverse covariance, which stays accurate for needles where the usual a dx^2 + 2 b dx dy + c dy^2 cancels.
struct alignas(32) Splat {
  float x, y, p, q, r;
  float log2_opacity;
  float slope;  // along a vertical line at dx the density peaks at dy = slope * dx
  float z;
};

// Tiles [x0, x1) x [y0, y1); empty when the Gaussian is not drawn.
struct Footprint {
  uint16_t x0, y0, x1, y1;
  int tiles() const { return (x1 - x0) * (y1 - y0); }
};

struct Camera {
  float rotation[9], translation[3], fx, fy, cx, cy;
  float min_tan_x, max_tan_x, min_tan_y, max_tan_y;  // the projection is linearised inside 1.3 times the field of view
  Camera(const SsRasteriseInput& in, int64_t view);
};

struct View {
  Buffer<Splat> splats;          // (N), filled where the footprint is not empty
  Buffer<Footprint> footprints;  // (N)
  Buffer<int64_t> tile_begin;    // (tiles + 1) into ids and masks
  Buffer<int64_t> tile_end;      // (tiles) where the forward pass found every pixel finished
  Buffer<int32_t> ids;           // Gaussians of each tile, front to back
  Buffer<uint16_t> masks;        // which of the tile's blocks each of them reaches
  Buffer<int32_t> median_ids;    // (H, W) the Gaussian that median depth shows, or -1
  // scratch of the backward pass
  Buffer<float> median_gradients;  // (N) dL/dz through median depth
  Buffer<float> camera_sums;       // (N / LANES, CAMERA_SUMS) dL/d(world_to_camera) of LANES Gaussians each
  size_t bytes() const;
};

// One object's views, and the scratch memory of a thread that works on them. Reused from call to call (rasterise.cpp).
struct State {
  std::vector<std::unique_ptr<View>> views;
  // scratch of binning
  Buffer<uint64_t> keys[2];
  Buffer<int64_t> cursor;
  Buffer<int32_t> changes;
  // scratch of the backward pass
  Buffer<int64_t> slot_begin;  // (N + 1)
  Buffer<float> slots;         // one row of gradients for each Gaussian in each tile
  Buffer<float> partial;       // (N, SUMS) of earlier passes
  size_t bytes() const;
};

struct Grid {
  int width, height, tiles_x, tiles_y;
  explicit Grid(const SsRasteriseInput& in)
      : width(int(in.width)), height(int(in.height)), tiles_x((width + TILE_WIDTH - 1) / TILE_WIDTH),
        tiles_y((height + TILE_HEIGHT - 1) / TILE_HEIGHT) {}
  int tiles() const { return tiles_x * tiles_y; }
};

// Rows of gradients. Six moments of dL/ds over the pixels (s is minus the log density; offsets are from the mean),
// [1, dx, dy, dx^2, dx dy, dy^2], alternate with the gradients of the first eight channels; the other channels follow.
// A row is whole cache lines.
constexpr int MOMENTS = 6, PAIRS = 8;
constexpr int moment_at(int moment) { return 2 * moment; }
constexpr int channel_at(int channel) { return channel < PAIRS ? 2 * channel + 1 : channel + PAIRS; }
constexpr int row_floats(int channels) { return (channel_at(channels - 1) + 16) / 16 * 16; }

// Channels are numbered r, g, b, z, feature 0, ... and composited in groups of at most this many.
constexpr int COLOR_CHANNELS = 4, MAX_CHANNELS = 36;
// Calls `body(std::integral_constant<int, D>)` with the smallest compiled channel count D >= channels.
template <class Body>
auto with_channels(int channels, Body&& body) {
  if (channels <= 4) return body(std::integral_constant<int, 4>{});
  if (channels <= 8) return body(std::integral_constant<int, 8>{});
  if (channels <= 12) return body(std::integral_constant<int, 12>{});
  if (channels <= 20) return body(std::integral_constant<int, 20>{});
  if (channels <= 28) return body(std::integral_constant<int, 28>{});
  return body(std::integral_constant<int, MAX_CHANNELS>{});
}
struct ChannelGroup {
  bool first;       // carries colour, depth and alpha, and the features after them
  int64_t feature;  // the first feature of the group
  int features;     // how many
  int channels() const { return features + (first ? COLOR_CHANNELS : 0); }
  int row_floats() const {
    return with_channels(channels(), [](auto count) { return ::row_floats(decltype(count)::value); });
  }
};
int group_count(const SsRasteriseInput& in);
ChannelGroup channel_group(const SsRasteriseInput& in, int index);

// Gaussians are dealt to threads in parts, and worked on LANES at a time from `first` on.
constexpr int64_t PART = 1024;
constexpr int64_t parts(int64_t gaussians) { return (gaussians + PART - 1) / PART; }
template <class Body>
void for_part(int64_t gaussians, int64_t part, Body&& body) {
  for (int64_t first = part * PART; first < std::min(gaussians, (part + 1) * PART); first += LANES) body(first);
}

void project_view(const SsRasteriseInput& in, const Camera& camera, const Grid& grid, View& view, int threads);
void bin_view(int64_t gaussians, const Grid& grid, View& view, State& scratch, int threads);
void forward_view(const SsRasteriseInput& in, int64_t v, const ChannelGroup& group, const Grid& grid, View& view,
                  const SsRasteriseImages& images, int threads);

// Fills the slots of every Gaussian in every tile of rows [first_row, last_row).
void backward_tiles(const SsRasteriseInput& in, int64_t v, const ChannelGroup& group, const Grid& grid, const State& state,
                    const SsRasteriseImages& images, const SsRasteriseImages& gradients, int first_row, int last_row,
                    int threads);
void backward_view(const SsRasteriseInput& in, int64_t v, const Grid& grid, State& state, const SsRasteriseImages& images,
                   const SsRasteriseImages& image_gradients, const SsRasteriseGradients& out, int threads);

void median_view(const SsRasteriseInput& in, const Grid& grid, View& view, float* depth, int threads);
void median_backward(const SsRasteriseInput& in, View& view, const float* depth_gradient);

// Turns rows of [moments, dL/dz] of the LANES Gaussians from `first` into gradients of means, quats, scales and
// opacities, and assigns or adds them; and into the camera's, which go to `view.camera_sums`: rotation, then translation.
constexpr int SUMS = 8, CAMERA_SUMS = 12;
void project_backward(const SsRasteriseInput& in, const Camera& camera, const View& view, int64_t first,
                      const float (*rows)[SUMS], bool add, const SsRasteriseGradients& out);
