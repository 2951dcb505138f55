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
  scratch.cursor.reserve(grid.tiles());
  int64_t* cursor = scratch.cursor.get();
  std::fill(cursor, cursor + grid.tiles(), 0);

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
    for (int y = f.y0; y < f.y1; y++) {
      for (int x = f.x0; x < f.x1; x++) cursor[y * grid.tiles_x + x]++;
    }
  }
  for (int64_t j = 0; j < drawn; j++) scratch.keys[0][j] -= smallest;
  const int32_t* order = scratch.order[drawn ? radix_sort(scratch, drawn, largest - smallest) : 0].get();

  int64_t total = 0;
  for (int t = 0; t < grid.tiles(); t++) {
    view.tile_begin[t] = total;
    total += cursor[t];
    cursor[t] = view.tile_begin[t];
  }
  view.tile_begin[grid.tiles()] = total;
  view.ids.reserve(total);
  view.masks.reserve(total);

  // Each thread fills its own rows of tiles.
#pragma omp parallel for schedule(static, 1) num_threads(threads) if (threads > 1)
  for (int part = 0; part < threads; part++) {
    const int first = int(int64_t(grid.tiles_y) * part / threads), last = int(int64_t(grid.tiles_y) * (part + 1) / threads);
    for (int64_t j = 0; j < drawn; j++) {
      const Footprint f = view.footprints[order[j]];
      for (int y = std::max<int>(f.y0, first); y < std::min<int>(f.y1, last); y++) {
        for (int x = f.x0; x < f.x1; x++) view.ids[cursor[y * grid.tiles_x + x]++] = order[j];
      }
    }
  }
}
