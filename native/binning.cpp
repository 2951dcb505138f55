// For each tile, the Gaussians that may touch it from front to back: one radix sort by depth, then one counting pass.
#include "rasterise.h"

namespace {

constexpr int DIGIT_BITS = 12, DIGITS = 1 << DIGIT_BITS;

// Sorts the first `count` keys and their ids, stably, in as few passes as `largest` needs. Returns which buffer holds the ids.
int radix_sort(State& s, int64_t count, uint32_t largest) {
  int current = 0;
  std::vector<int32_t> begin(DIGITS);
  for (int shift = 0; shift < 32 && largest >> shift; shift += DIGIT_BITS) {
    const uint32_t* keys = s.keys[current].get();
    const int32_t* ids = s.order[current].get();
    uint32_t* sorted_keys = s.keys[1 - current].get();
    int32_t* sorted_ids = s.order[1 - current].get();
    std::fill(begin.begin(), begin.end(), 0);
    for (int64_t i = 0; i < count; i++) begin[keys[i] >> shift & (DIGITS - 1)]++;
    for (int32_t d = 0, sum = 0; d < DIGITS; d++) {
      const int32_t here = begin[d];
      begin[d] = sum;
      sum += here;
    }
    for (int64_t i = 0; i < count; i++) {
      const int32_t to = begin[keys[i] >> shift & (DIGITS - 1)]++;
      sorted_keys[to] = keys[i];
      sorted_ids[to] = ids[i];
    }
    current = 1 - current;
  }
  return current;
}

}  // namespace

void bin_view(int64_t gaussians, const Grid& grid, View& view, State& scratch, int threads) {
  for (int k = 0; k < 2; k++) {
    scratch.keys[k].reserve(gaussians);
    scratch.order[k].reserve(gaussians);
  }
  view.tile_begin.reserve(grid.tiles() + 1);
  view.tile_end.reserve(grid.tiles());
  scratch.cursor.reserve(grid.tiles() + threads);
  int64_t* cursor = scratch.cursor.get();
  // Changes of the count of Gaussians from tile to tile: four for each Gaussian, however many tiles it touches.
  const int stride = grid.tiles_x + 1;
  std::vector<int32_t> changes(size_t(stride) * (grid.tiles_y + 1));

  // z > 0, so its bits order as z does; less the smallest, they are short.
  int64_t drawn = 0;
  uint32_t smallest = UINT32_MAX, largest = 0;
  for (int64_t i = 0; i < gaussians; i++) {
    const Footprint f = view.footprints[i];
    if (f.tiles() == 0) continue;
    uint32_t key;
    std::memcpy(&key, &view.splats[i].z, 4);
    smallest = std::min(smallest, key), largest = std::max(largest, key);
    scratch.keys[0][drawn] = key;
    scratch.order[0][drawn++] = int32_t(i);
    changes[f.y0 * stride + f.x0]++;
    changes[f.y0 * stride + f.x1]--;
    changes[f.y1 * stride + f.x0]--;
    changes[f.y1 * stride + f.x1]++;
  }
  for (int64_t j = 0; j < drawn; j++) scratch.keys[0][j] -= smallest;
  const int32_t* order = scratch.order[drawn ? radix_sort(scratch, drawn, largest - smallest) : 0].get();

  int64_t total = 0;
  for (int y = 0, t = 0; y < grid.tiles_y; y++) {
    int32_t* row = changes.data() + y * stride;
    int32_t count = 0;
    for (int x = 0; x < grid.tiles_x; x++, t++) {
      if (y > 0) row[x] += row[x - stride];
      count += row[x];
      view.tile_begin[t] = cursor[t] = total;
      total += count;
    }
  }
  view.tile_begin[grid.tiles()] = total;
  view.ids.reserve(total + threads);
  view.masks.reserve(total);

  // Each part fills its own rows of tiles.
  parallel_for(threads, threads, [&](int64_t part) {
    const int first = int(grid.tiles_y * part / threads), last = int(grid.tiles_y * (part + 1) / threads);
    const int nowhere = grid.tiles() + int(part);  // takes what is not needed, over and over in one place
    cursor[nowhere] = total + part;
    for (int64_t j = 0; j < drawn; j++) {
      const int32_t id = order[j];
      const Footprint f = view.footprints[id];
      const int width = f.x1 - f.x0, begin = std::max<int>(f.y0, first), height = std::min<int>(f.y1, last) - begin;
      const int tile = begin * grid.tiles_x + f.x0;
      const auto append = [&](int to, bool needed) {
        int64_t& at = cursor[nowhere + ((to - nowhere) & -int(needed))];
        view.ids[at] = id;
        at += needed;
      };
      if (width <= 2 && height <= 2) {  // as most do; no branch here is hard to predict
        if (height <= 0) continue;
        append(tile, true);
        append(tile + 1, width > 1);
        append(tile + grid.tiles_x, height > 1);
        append(tile + grid.tiles_x + 1, (width > 1) & (height > 1));
      } else {
        for (int y = 0; y < height; y++) {
          for (int x = 0; x < width; x++) append(tile + y * grid.tiles_x + x, true);
        }
      }
    }
  });
}
