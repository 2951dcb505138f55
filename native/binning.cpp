// For each tile, the Gaussians that may touch it from front to back: a radix sort by depth, then one counting pass. Threads
// share every step: each takes a run of the input, counts, and after a sum over the runs writes where its counts say, so the
// lists are those of one thread. The sort's first step is into slices of depth, large enough that threads which fill the same
// slice seldom write to the same cache line; each slice is then one thread's to sort.
#include "rasterise.h"

namespace {

constexpr int SLICE_BITS = 6, SLICES = 1 << SLICE_BITS;  // slices of the depths
constexpr int DIGIT_BITS = 9, DIGITS = 1 << DIGIT_BITS;  // of the passes within a slice
constexpr int FEW = 64;                                  // keys for which passes are not worth while
constexpr int LINE = 16;  // 32-bit integers of a cache line

// The Gaussians that are drawn, in the order they were given. Those of part p lie in `keys` from PART * p on.
struct Drawn {
  std::vector<int32_t> begin;  // (parts + 1) how many are drawn before each part
  uint32_t smallest = UINT32_MAX, largest = 0;
  int64_t count() const { return begin.back(); }
};

// A depth as it sorts, above an id. z > 0, so its bits order as z does.
uint64_t key_of(float z, int64_t id) {
  uint32_t bits;
  std::memcpy(&bits, &z, sizeof bits);
  return uint64_t{bits} << 32 | uint64_t(id);
}

Drawn find_drawn(int64_t gaussians, const View& view, uint64_t* keys, int threads) {
  struct alignas(64) Part {
    int32_t count;
    uint32_t smallest, largest;
  };
  std::vector<Part> found(size_t(parts(gaussians)));
  parallel_for(threads, parts(gaussians), [&](int64_t p) {
    Part part{0, UINT32_MAX, 0};
    uint64_t* to = keys + PART * p;
    for (int64_t i = PART * p; i < std::min(gaussians, PART * (p + 1)); i++) {
      if (view.footprints[i].tiles() == 0) continue;
      const uint64_t key = key_of(view.splats[i].z, i);
      part.smallest = std::min(part.smallest, uint32_t(key >> 32));
      part.largest = std::max(part.largest, uint32_t(key >> 32));
      to[part.count++] = key;
    }
    found[size_t(p)] = part;
  });
  Drawn drawn;
  drawn.begin.reserve(found.size() + 1);
  drawn.begin.push_back(0);
  for (const Part& part : found) {
    drawn.begin.push_back(drawn.begin.back() + part.count);
    drawn.smallest = std::min(drawn.smallest, part.smallest), drawn.largest = std::max(drawn.largest, part.largest);
  }
  return drawn;
}

// Sorts a slice by depth, `bits` bits from bit 32 on, and by id; ids ascend among equal depths. `spare` has room for as many.
void sort_slice(uint64_t* keys, uint64_t* spare, int64_t count, int bits) {
  if (count <= FEW) return std::sort(keys, keys + count);
  uint64_t *from = keys, *to = spare;
  for (int shift = 32; shift < 32 + bits; shift += DIGIT_BITS) {
    const auto digit = [=](uint64_t key) { return key >> shift & (DIGITS - 1); };
    int32_t at[DIGITS]{}, sum = 0;
    for (int64_t i = 0; i < count; i++) at[digit(from[i])]++;
    for (int32_t& begin : at) sum += std::exchange(begin, sum);
    for (int64_t i = 0; i < count; i++) to[at[digit(from[i])]++] = from[i];
    std::swap(from, to);
  }
  if (from != keys) std::copy(from, from + count, keys);
}

// Sorts what `find_drawn` found in keys[0] into keys[1].
const uint64_t* sort_drawn(const Drawn& drawn, Buffer<uint64_t>* keys, int threads) {
  const int64_t parts = int64_t(drawn.begin.size()) - 1;
  const uint64_t subtract = uint64_t{drawn.smallest} << 32;
  const auto for_run = [&](int64_t run, auto&& body) {
    for (int64_t p = parts * run / threads; p < parts * (run + 1) / threads; p++) {
      const uint64_t* from = keys[0].get() + PART * p;
      for (int32_t k = 0; k < drawn.begin[size_t(p) + 1] - drawn.begin[size_t(p)]; k++) body(from[k] - subtract);
    }
  };
  int bits = 0;  // of a depth, below those that say its slice
  while (drawn.count() && (drawn.largest - drawn.smallest) >> bits >= SLICES) bits++;
  const auto slice = [=](uint64_t key) { return key >> (32 + bits); };

  std::vector<int32_t> begin(size_t(threads) * SLICES);  // where a run's keys of a slice go
  parallel_for(threads, threads, [&](int64_t run) {
    int32_t counts[SLICES]{};
    for_run(run, [&](uint64_t key) { counts[slice(key)]++; });
    std::copy(counts, counts + SLICES, begin.data() + run * SLICES);
  });
  int32_t sum = 0;
  std::vector<int32_t> slices{0};  // (SLICES + 1) each one's first key
  for (int s = 0; s < SLICES; s++) {
    for (int run = 0; run < threads; run++) sum += std::exchange(begin[size_t(run) * SLICES + size_t(s)], sum);
    slices.push_back(sum);
  }
  parallel_for(threads, threads, [&](int64_t run) {
    int32_t at[SLICES];
    std::copy(begin.data() + run * SLICES, begin.data() + (run + 1) * SLICES, at);
    for_run(run, [&](uint64_t key) { keys[1][at[slice(key)]++] = key; });
  });
  parallel_for(threads, SLICES, [&](int64_t s) {
    const int64_t first = slices[size_t(s)];
    sort_slice(keys[1].get() + first, keys[0].get() + first, slices[size_t(s) + 1] - first, bits);
  });
  return keys[1].get();
}

// Adds one to the count of every tile of the footprints: four changes each, however many tiles they touch, summed at the end.
template <class Footprints>
void count_tiles(const Grid& grid, Footprints&& for_each, int32_t* changes, int32_t* counts) {
  const int stride = grid.tiles_x + 1;
  std::fill(changes, changes + stride * (grid.tiles_y + 1), 0);
  for_each([&](const Footprint& f) {
    changes[f.y0 * stride + f.x0]++;
    changes[f.y0 * stride + f.x1]--;
    changes[f.y1 * stride + f.x0]--;
    changes[f.y1 * stride + f.x1]++;
  });
  for (int y = 0; y < grid.tiles_y; y++) {
    int32_t* row = changes + y * stride;
    int32_t count = 0;
    for (int x = 0; x < grid.tiles_x; x++) {
      if (y > 0) row[x] += row[x - stride];
      *counts++ = count += row[x];
    }
  }
}

// Appends the Gaussian to its tiles' lists, of which `at` is the ends. `at[nowhere]` takes what is not needed, over and over.
SS_INLINE void append_to_tiles(int32_t id, const Footprint& f, int tiles_x, int nowhere, int64_t* at, int32_t* ids) {
  const int width = f.x1 - f.x0, height = f.y1 - f.y0, tile = f.y0 * tiles_x + f.x0;
  const auto append = [&](int to, bool needed) {
    int64_t& end = at[nowhere + ((to - nowhere) & -int(needed))];
    ids[end] = id;
    end += needed;
  };
  if (width <= 2 && height <= 2) {  // as most do; no branch here is hard to predict
    append(tile, true);
    append(tile + 1, width > 1);
    append(tile + tiles_x, height > 1);
    append(tile + tiles_x + 1, (width > 1) & (height > 1));
  } else {
    for (int y = 0; y < height; y++) {
      for (int x = 0; x < width; x++) append(tile + y * tiles_x + x, true);
    }
  }
}

}  // namespace

void bin_view(int64_t gaussians, const Grid& grid, View& view, State& scratch, int threads) {
  for (Buffer<uint64_t>& keys : scratch.keys) keys.reserve(parts(gaussians) * PART);
  const Drawn drawn = find_drawn(gaussians, view, scratch.keys[0].get(), threads);
  const uint64_t* sorted = sort_drawn(drawn, scratch.keys, threads);

  // Each run of the sorted Gaussians has its place in every tile's list.
  const int runs = threads, tiles = grid.tiles(), stride = tiles + LINE;
  const auto for_run = [&](int64_t run, auto&& body) {
    for (int64_t k = drawn.count() * run / runs; k < drawn.count() * (run + 1) / runs; k++) {
      const int32_t id = int32_t(uint32_t(sorted[k]));
      body(id, view.footprints[id]);
    }
  };
  std::vector<int32_t> counts(size_t(runs) * stride);
  const int64_t changes = int64_t(grid.tiles_x + 1) * (grid.tiles_y + 1) + LINE;
  scratch.changes.reserve(runs * changes);
  parallel_for(threads, runs, [&](int64_t run) {
    const auto footprints = [&](auto&& body) { for_run(run, [&](int32_t, const Footprint& f) { body(f); }); };
    count_tiles(grid, footprints, scratch.changes.get() + run * changes, counts.data() + run * stride);
  });
  view.tile_begin.reserve(tiles + 1);
  view.tile_end.reserve(tiles);
  scratch.cursor.reserve(int64_t(runs) * stride);
  int64_t total = 0;
  for (int t = 0; t < tiles; t++) {
    view.tile_begin[t] = total;
    for (int run = 0; run < runs; run++) {
      scratch.cursor[int64_t(run) * stride + t] = total;
      total += counts[size_t(run) * stride + t];
    }
  }
  view.tile_begin[tiles] = total;
  view.ids.reserve(total + (runs + 1) * LINE);
  view.masks.reserve(total);
  parallel_for(threads, runs, [&](int64_t run) {
    int64_t* at = scratch.cursor.get() + run * stride;
    at[tiles] = total + (run + 1) * LINE;
    for_run(run, [&](int32_t id, const Footprint& f) { append_to_tiles(id, f, grid.tiles_x, tiles, at, view.ids.get()); });
  });
}
