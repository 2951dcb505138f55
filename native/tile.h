// What the forward and the backward pass of a tile share. Coordinates are relative to the tile's centre.
#pragma once
#include "rasterise.h"

// Gaussians are taken from a tile's list in chunks, small enough for the nearest caches.
constexpr int CHUNK = 256;

struct TileTables {
  Floats x[BLOCKS], y[BLOCKS];  // pixel centres
  alignas(64) float left[BLOCKS], top[BLOCKS];  // of each block's first pixel centre
  static constexpr int BASIS_VECTORS = (MOMENTS + LANES - 1) / LANES;
  alignas(64) float basis[BLOCKS * LANES][BASIS_VECTORS * LANES];  // 1, x, y, x^2, x y, y^2 of each pixel, then zeros

  TileTables() : basis{} {
    for (int b = 0; b < BLOCKS; b++) {
      left[b] = b % 4 * BLOCK_WIDTH - TILE_WIDTH / 2 + 0.5f;
      top[b] = b / 4 * BLOCK_HEIGHT - TILE_HEIGHT / 2 + 0.5f;
      for (int l = 0; l < LANES; l++) {
        const float px = left[b] + l % BLOCK_WIDTH, py = top[b] + l / BLOCK_WIDTH;
        x[b][l] = px, y[b][l] = py;
        const float values[MOMENTS] = {1, px, py, px * px, px * py, py * py};
        std::copy(values, values + MOMENTS, basis[b * LANES + l]);
      }
    }
  }
};
static const TileTables TABLES;

// A Gaussian as one tile sees it. log2 alpha at (x, y) = log2_opacity - (p x + q y + u)^2 - (r y + v)^2.
template <int D>
struct Entry {
  float u, v, p, q, r, log2_opacity, mean_x, mean_y;
  float channels[D];
};

template <int D>
SS_INLINE Floats log2_alpha(const Entry<D>& e, Floats x, Floats y) {
  const Floats a = e.p * x + (e.q * y + e.u), b = e.r * y + e.v;
  return e.log2_opacity - a * a - b * b;
}

// Which blocks the Gaussian's ellipse of alpha MIN_ALPHA reaches. The smallest s over the rectangle of a block's pixel
// centres lies on its vertical or horizontal line nearest the mean, where the minimum is known and clamped to the rectangle.
template <int D>
SS_INLINE unsigned block_mask(const Entry<D>& e, float slope) {
  const float reach = e.log2_opacity - LOG2_MIN_ALPHA + 0.01f;  // 0.01: more than the rounding errors
  const float slope_x = -e.q / e.p;
  unsigned mask = 0;
  for (int b = 0; b < BLOCKS; b += LANES) {
    const Floats x0 = load(TABLES.left + b) - e.mean_x, x1 = x0 + float(BLOCK_WIDTH - 1);
    const Floats y0 = load(TABLES.top + b) - e.mean_y, y1 = y0 + float(BLOCK_HEIGHT - 1);
    const Floats x = clamp(Floats{}, x0, x1), y = clamp(Floats{}, y0, y1);
    const Floats y_at = clamp(slope * x, y0, y1), x_at = clamp(slope_x * y, x0, x1);
    const Floats a1 = e.p * x + e.q * y_at, b1 = e.r * y_at, a2 = e.p * x_at + e.q * y, b2 = e.r * y;
    mask |= bits(at_least(broadcast(reach), min(a1 * a1 + b1 * b1, a2 * a2 + b2 * b2))) << b;
  }
  return mask;
}

// One tile and, in turn, each chunk of its Gaussians, sorted into a list for each block.
template <int D>
struct Tile {
  const SsRasteriseInput& in;
  const ChannelGroup& group;
  const View& view;
  const float* colors;
  int x, y, width, height;  // first pixel; pixels inside the image
  float center_x, center_y;

  alignas(64) Entry<D> entries[CHUNK];
  alignas(64) int32_t masks[CHUNK];
  int32_t list[BLOCKS][CHUNK + LANES];
  int count[BLOCKS];

  Tile(const SsRasteriseInput& in, const ChannelGroup& group, const Grid& grid, const View& view, int64_t v, int t)
      : in(in), group(group), view(view), colors(in.colors + (in.color_views > 1 ? 3 * in.gaussians * v : 0)),
        x(t % grid.tiles_x * TILE_WIDTH), y(t / grid.tiles_x * TILE_HEIGHT), width(std::min(TILE_WIDTH, grid.width - x)),
        height(std::min(TILE_HEIGHT, grid.height - y)), center_x(x + TILE_WIDTH / 2), center_y(y + TILE_HEIGHT / 2) {}

  static int block_x(int b) { return b % 4 * BLOCK_WIDTH; }
  static int block_y(int b) { return b / 4 * BLOCK_HEIGHT; }
  // Calls `body(first lane, index of the first pixel in a plane, count)` for each of the block's rows inside the image.
  template <class Body>
  void for_rows(int b, Body&& body) const {
    const int count = std::min(BLOCK_WIDTH, width - block_x(b));
    if (count <= 0) return;
    for (int row = 0; row < BLOCK_HEIGHT && block_y(b) + row < height; row++) {
      body(row * BLOCK_WIDTH, (y + block_y(b) + row) * int64_t(in.width) + x + block_x(b), count);
    }
  }
  // 1 inside the image, 0 outside: the transmittance before the first Gaussian.
  Floats inside(int b) const {
    alignas(64) float lanes[LANES]{};
    for_rows(b, [&](int lane, int64_t, int count) { std::fill(lanes + lane, lanes + lane + count, 1.0f); });
    return load(lanes);
  }

  void load_entry(int32_t id, Entry<D>& e, const Splat& s) const {
    e.mean_x = s.x - center_x, e.mean_y = s.y - center_y;
    e.p = s.p, e.q = s.q, e.r = s.r, e.log2_opacity = s.log2_opacity;
    e.u = -(s.p * e.mean_x + s.q * e.mean_y), e.v = -s.r * e.mean_y;
    float* channel = e.channels;
    if (group.first) {
      const float* color = colors + 3 * int64_t(id);
      channel[0] = color[0], channel[1] = color[1], channel[2] = color[2], channel[3] = s.z;
      channel += COLOR_CHANNELS;
    }
    const float* feature = in.features + id * in.feature_channels + group.feature;
    copy_short(channel, feature, group.features);
    for (int k = group.channels(); k < D; k++) e.channels[k] = 0;
  }

  // Loads list entries begin .. end of the view. Masks are computed, or taken from the forward pass.
  void load_chunk(int64_t begin, int64_t end, bool have_masks) {
    constexpr int AHEAD = 8;
    const int n = int(end - begin);
    const int32_t* ids = view.ids.get() + begin;
    for (int i = 0; i < n; i++) {
      if (i + AHEAD < n) {
        __builtin_prefetch(&view.splats[ids[i + AHEAD]]);
        __builtin_prefetch(colors + 3 * int64_t(ids[i + AHEAD]));
        if (D > COLOR_CHANNELS) __builtin_prefetch(in.features + ids[i + AHEAD] * in.feature_channels + group.feature);
      }
      const Splat& s = view.splats[ids[i]];
      load_entry(ids[i], entries[i], s);
      masks[i] = have_masks ? view.masks[begin + i] : block_mask(entries[i], s.slope);
    }
    build_lists(n);
  }

 private:
  void build_lists(int n) {
    std::fill(count, count + BLOCKS, 0);
    Ints index;
    for (int l = 0; l < LANES; l++) index[l] = l;
    for (int i = n; i < (n + LANES - 1) / LANES * LANES; i++) masks[i] = 0;
    for (int i = 0; i < n; i += LANES, index += LANES) {
      const Ints m = *reinterpret_cast<const Ints*>(masks + i);
      for (int b = 0; b < BLOCKS; b++) count[b] += append(list[b] + count[b], index, bit_of_each(m, b));
    }
  }
};

// Channels of each lane to and from lanes of each channel.
template <int D>
SS_INLINE void to_pixels(const Floats* channels, float* pixels, int stride) {
  for (int k = 0; k < D; k += 4) {
    for (int l = 0; l < LANES; l += 4) {
      Quad rows[4];
      for (int i = 0; i < 4; i++) std::memcpy(&rows[i], reinterpret_cast<const float*>(channels + k + i) + l, sizeof(Quad));
      transpose4(rows[0], rows[1], rows[2], rows[3]);
      for (int i = 0; i < 4; i++) std::memcpy(pixels + (l + i) * stride + k, &rows[i], sizeof(Quad));
    }
  }
}
template <int D>
SS_INLINE void to_channels(const float* pixels, int stride, Floats* channels) {
  for (int k = 0; k < D; k += 4) {
    for (int l = 0; l < LANES; l += 4) {
      Quad rows[4];
      for (int i = 0; i < 4; i++) std::memcpy(&rows[i], pixels + (l + i) * stride + k, sizeof(Quad));
      transpose4(rows[0], rows[1], rows[2], rows[3]);
      for (int i = 0; i < 4; i++) std::memcpy(reinterpret_cast<float*>(channels + k + i) + l, &rows[i], sizeof(Quad));
    }
  }
}

// One Gaussian over one block of pixels: weight = alpha T, then T *= 1 - alpha. A pixel whose T would not stay above
// MIN_TRANSMITTANCE is finished: it takes nothing and its T becomes 0.
struct Blend {
  Floats alpha;  // before the clamp to MAX_ALPHA; 0 below MIN_ALPHA
  Floats weight;
  Floats transmittance;  // after
};
template <int D>
SS_INLINE Blend blend(const Entry<D>& e, Floats x, Floats y, Floats transmittance) {
  const Floats log2_a = log2_alpha(e, x, y);
  Blend o;
  o.alpha = keep(at_least(log2_a, broadcast(LOG2_MIN_ALPHA)), exp2(log2_a));
  o.weight = min(o.alpha, broadcast(MAX_ALPHA)) * transmittance;
  const Floats left = transmittance - o.weight;
  const Mask open = greater(left, broadcast(MIN_TRANSMITTANCE));
  o.weight = keep(open, o.weight);
  o.transmittance = keep(open, left);
  return o;
}
