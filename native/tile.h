// What the forward and the backward pass of a tile share. Coordinates are relative to the tile's centre.
#pragma once
#include "rasterise.h"

// Gaussians are taken from a tile's list in chunks, small enough for the nearest caches.
constexpr int CHUNK = 256;

struct TileTables {
  Floats x[BLOCKS], y[BLOCKS];  // pixel centres
  alignas(64) float left[BLOCKS], top[BLOCKS];  // of each block's first pixel centre
  Quad moments[BLOCKS * LANES][2];  // 1, x, y, x^2, x y, y^2, 0, 0 of each pixel

  TileTables() {
    for (int b = 0; b < BLOCKS; b++) {
      left[b] = b % 4 * BLOCK_WIDTH - TILE_WIDTH / 2 + 0.5f;
      top[b] = b / 4 * BLOCK_HEIGHT - TILE_HEIGHT / 2 + 0.5f;
      for (int l = 0; l < LANES; l++) {
        const float px = left[b] + l % BLOCK_WIDTH, py = top[b] + l / BLOCK_WIDTH;
        x[b][l] = px, y[b][l] = py;
        moments[b * LANES + l][0] = Quad{1, px, py, px * px};
        moments[b * LANES + l][1] = Quad{px * py, py * py, 0, 0};
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

// Colours and features of Gaussians or of pixels, as the channels of a group. The fourth channel of the first group is
// depth, which lies elsewhere. Null arrays stand for zeros.
template <class Float>
struct ChannelArrays {
  Float *colors, *features;
  int64_t stride;
  int count;
  bool first;

  ChannelArrays(const SsRasteriseInput& in, const ChannelGroup& group, Float* colors, Float* features)
      : colors(colors), features(features ? features + group.feature - (group.first ? COLOR_CHANNELS : 0) : nullptr),
        stride(in.feature_channels), count(features ? group.channels() : 0), first(group.first) {}

  // Channels k .. k + 3; `Exact` when there are so many.
  template <class Exact>
  __attribute__((always_inline)) Quad load(int64_t item, int k, Exact) const {
    if (first && k == 0) return load_quad(colors + 3 * item, colors ? 3 : 0);
    return load_quad(features + item * stride + k, Exact::value ? 4 : count - k);
  }
  template <class Exact>
  __attribute__((always_inline)) void store(int64_t item, int k, Quad values, Exact) const {
    if (first && k == 0) return store_quad(colors + 3 * item, values, 3);
    store_quad(features + item * stride + k, values, Exact::value ? 4 : count - k);
  }
};

// The lanes of a block, from a quad for each of its rows.
SS_INLINE Floats join_rows(const Quad* rows) {
  if (BLOCK_WIDTH == 4) return join(rows);
  const Quad halves[] = {join_halves(rows[0], rows[1])};
  return join(halves);
}

// One tile and, in turn, each chunk of its Gaussians, sorted into a list for each block.
template <int D>
struct Tile {
  const SsRasteriseInput& in;
  const ChannelGroup& group;
  const View& view;
  const ChannelArrays<const float> attributes;
  const int64_t* slots = nullptr;  // of each Gaussian; of the backward pass
  int x, y, width, height;  // first pixel; pixels inside the image
  bool exact;  // the group fills all D channels
  float center_x, center_y;

  alignas(64) Entry<D> entries[CHUNK];
  alignas(64) int32_t masks[CHUNK];
  int32_t list[BLOCKS][CHUNK + LANES];
  int count[BLOCKS];

  Tile(const SsRasteriseInput& in, const ChannelGroup& group, const Grid& grid, const View& view, int64_t v, int t)
      : in(in), group(group), view(view),
        attributes(in, group, in.colors + (in.color_views > 1 ? 3 * in.gaussians * v : 0), in.features),
        x(t % grid.tiles_x * TILE_WIDTH), y(t / grid.tiles_x * TILE_HEIGHT), width(std::min(TILE_WIDTH, grid.width - x)),
        height(std::min(TILE_HEIGHT, grid.height - y)), exact(group.channels() == D), center_x(x + TILE_WIDTH / 2),
        center_y(y + TILE_HEIGHT / 2) {}

  static int block_x(int b) { return b % 4 * BLOCK_WIDTH; }
  static int block_y(int b) { return b / 4 * BLOCK_HEIGHT; }
  // Calls `body(first lane, index of its pixel in a plane, count, exact)` for each of the block's rows inside the image.
  // The last two are compile-time constants where nothing is ragged: a whole block, and as many channels as compiled for.
  template <class Body>
  __attribute__((always_inline)) void for_rows(int b, Body&& body) const {
    const int columns = std::min(BLOCK_WIDTH, width - block_x(b)), rows = std::min(BLOCK_HEIGHT, height - block_y(b));
    const int64_t first = (y + block_y(b)) * in.width + x + block_x(b);
    if (columns == BLOCK_WIDTH && rows == BLOCK_HEIGHT && exact) {
      for (int row = 0; row < BLOCK_HEIGHT; row++) {
        body(row * BLOCK_WIDTH, first + row * in.width, std::integral_constant<int, BLOCK_WIDTH>{}, std::true_type{});
      }
    } else {
      for (int row = 0; row < rows; row++) body(row * BLOCK_WIDTH, first + row * in.width, columns, std::false_type{});
    }
  }
  // 1 inside the image, 0 outside: the transmittance before the first Gaussian.
  Floats inside(int b) const {
    const Mask in_x = greater(broadcast(width - TILE_WIDTH * 0.5f), TABLES.x[b]);
    const Mask in_y = greater(broadcast(height - TILE_HEIGHT * 0.5f), TABLES.y[b]);
    return keep(in_x & in_y, broadcast(1.0f));
  }

  void load_entry(int32_t id, Entry<D>& e, const Splat& s) const {
    e.mean_x = s.x - center_x, e.mean_y = s.y - center_y;
    e.p = s.p, e.q = s.q, e.r = s.r, e.log2_opacity = s.log2_opacity;
    e.u = -(s.p * e.mean_x + s.q * e.mean_y), e.v = -s.r * e.mean_y;
    for (int k = 0; k < D; k += 4) {
      Quad channels = exact ? attributes.load(id, k, std::true_type{}) : attributes.load(id, k, std::false_type{});
      if (k == 0 && attributes.first) channels = with_fourth(channels, s.z);
      std::memcpy(e.channels + k, &channels, sizeof channels);
    }
  }

  // Loads list entries begin .. end of the view. Masks are computed, or taken from the forward pass.
  void load_chunk(int64_t begin, int64_t end, bool have_masks) {
    constexpr int AHEAD = 16;
    const int n = int(end - begin);
    const int32_t* ids = view.ids.get() + begin;
    for (int i = 0; i < n; i++) {
      if (i + AHEAD < n) {
        const int64_t id = ids[i + AHEAD];
        __builtin_prefetch(&view.splats[id]);
        __builtin_prefetch(attributes.colors + 3 * id);
        if (D > COLOR_CHANNELS) __builtin_prefetch(in.features + id * in.feature_channels + group.feature);
        if (slots) {
          __builtin_prefetch(&view.footprints[id]);
          __builtin_prefetch(slots + id);
        }
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

SS_INLINE Mask open(Floats transmittance) { return greater(transmittance, broadcast(MIN_TRANSMITTANCE)); }

// One Gaussian over one block of pixels: weight = alpha T, then T *= 1 - alpha. A pixel whose T does not stay above
// MIN_TRANSMITTANCE takes nothing and is finished: as T never grows, it needs no mark, and Gaussians wait for nothing of
// the one before but its T.
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
  o.transmittance = transmittance - o.weight;
  o.weight = keep(open(o.transmittance), o.weight);
  return o;
}
