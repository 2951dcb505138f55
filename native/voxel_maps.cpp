// Which voxels meet along a kernel (splatsense/sparse/kernel_map.py), from keys whose last 3 n bits interleave those of x, y and z.
//
// Design
// - Voxels are sorted by key, so those of a brick of 4 x 4 x 4 follow one another: a bit mask and a first row say where each is.
// - A brick's 26 neighbours are looked up once in a hash table; then a neighbour of a voxel is a bit test and a population count.
#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <vector>

#include "parallel.h"
#include "splatsense.h"

namespace {

constexpr uint64_t AXIS[3] = {0x4924924924924924, 0x2492492492492492, 0x1249249249249249};  // bits of x, y and z

struct Brick {
  uint64_t code;  // key >> 6
  uint64_t mask;  // bit b: a voxel with b in the last 6 bits of its key
  int32_t first;  // row
};

// Rows of voxels by brick. Codes are hashed with linear probing; an empty slot is -1.
class Bricks {
 public:
  Bricks(const int64_t* keys, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
      const uint64_t code = uint64_t(keys[i]) >> 6;
      if (bricks_.empty() || bricks_.back().code != code) bricks_.push_back({code, 0, int32_t(i)});
      bricks_.back().mask |= uint64_t(1) << (keys[i] & 63);
    }
    while (slots_.size() < 2 * bricks_.size()) slots_.resize(std::max<size_t>(64, 2 * slots_.size()));
    std::fill(slots_.begin(), slots_.end(), -1);
    for (size_t b = 0; b < bricks_.size(); b++) {
      size_t slot = hash(bricks_[b].code);
      while (slots_[slot] >= 0) slot = (slot + 1) & (slots_.size() - 1);
      slots_[slot] = int32_t(b);
    }
  }

  size_t size() const { return bricks_.size(); }
  const Brick& operator[](size_t b) const { return bricks_[b]; }

  // The brick with this code, or one without voxels.
  Brick find(uint64_t code) const {
    for (size_t slot = hash(code); slots_[slot] >= 0; slot = (slot + 1) & (slots_.size() - 1)) {
      if (bricks_[slots_[slot]].code == code) return bricks_[slots_[slot]];
    }
    return {code, 0, 0};
  }

  // Brick b and its neighbours, x slowest.
  std::array<Brick, 27> around(size_t b) const {
    std::array<Brick, 27> result;
    for (int n = 0; n < 27; n++) {
      const int steps[3] = {n / 9 - 1, n / 3 % 3 - 1, n % 3 - 1};
      uint64_t code = 0;
      for (int axis = 0; axis < 3; axis++) code |= stepped(bricks_[b].code, axis, steps[axis]);
      result[n] = n == 13 ? bricks_[b] : find(code);
    }
    return result;
  }

 private:
  size_t hash(uint64_t code) const { return (code * 0x9e3779b97f4a7c15 >> 32) & (slots_.size() - 1); }

  // The bits of one axis, one brick on or back. Keys leave room at both ends, so nothing is carried into the batch.
  static uint64_t stepped(uint64_t code, int axis, int step) {
    const uint64_t mask = AXIS[axis], one = mask & ~(mask - 1);
    if (step > 0) return ((code | ~mask) + one) & mask;
    return step < 0 ? ((code & mask) - one) & mask : code & mask;
  }

  std::vector<Brick> bricks_;
  std::vector<int32_t> slots_;
};

int coordinate(int bits, int axis) { return (bits >> (2 - axis) & 1) | (bits >> (5 - axis) & 1) << 1; }
int interleaved(int x, int y, int z) {
  return (x & 1) << 2 | (y & 1) << 1 | (z & 1) | (x >> 1) << 5 | (y >> 1) << 4 | (z >> 1) << 3;
}

// For each place in a brick and each offset of the kernel: the neighbouring brick and the place in it.
std::vector<std::array<uint8_t, 2>> neighbour_places(int kernel) {
  const int reach = kernel / 2, volume = kernel * kernel * kernel;
  std::vector<std::array<uint8_t, 2>> places(64 * volume);
  for (int bit = 0; bit < 64; bit++) {
    for (int k = 0; k < volume; k++) {
      const int steps[3] = {k / (kernel * kernel) - reach, k / kernel % kernel - reach, k % kernel - reach};
      int brick = 0, at[3];
      for (int axis = 0; axis < 3; axis++) {
        const int c = coordinate(bit, axis) + steps[axis] + 4;
        brick = 3 * brick + c / 4;
        at[axis] = c % 4;
      }
      places[bit * volume + k] = {uint8_t(brick), uint8_t(interleaved(at[0], at[1], at[2]))};
    }
  }
  return places;
}

struct SubmanifoldMap {
  SubmanifoldMap(const int64_t* keys, int64_t count, int kernel)
      : bricks(keys, count), places(neighbour_places(kernel)), volume(kernel * kernel * kernel) {}

  // Calls pair(offset, input, output) for the outputs of one brick in their order.
  template <class Pair>
  void visit(size_t b, Pair&& pair) const {
    const std::array<Brick, 27> around = bricks.around(b);
    int32_t output = bricks[b].first;
    for (uint64_t left = bricks[b].mask; left; left &= left - 1, output++) {
      const auto* place = places.data() + __builtin_ctzll(left) * volume;
      for (int k = 0; k < volume; k++) {
        const Brick& brick = around[place[k][0]];
        if (brick.mask >> place[k][1] & 1) {
          const uint64_t before = brick.mask & ((uint64_t(1) << place[k][1]) - 1);
          pair(k, brick.first + __builtin_popcountll(before), output);
        }
      }
    }
  }

  const Bricks bricks;
  const std::vector<std::array<uint8_t, 2>> places;
  const int volume;
};

}  // namespace

SS_API int ss_submanifold_map(const int64_t* keys, int64_t count, int32_t kernel, int64_t tile, int32_t threads,
                              int64_t* bounds, int32_t* inputs, int32_t* outputs) try {
  const SubmanifoldMap map(keys, count, kernel);
  const int64_t tiles = (count + tile - 1) / tile, runs = std::min<int64_t>(4 * threads, map.bricks.size());
  // Each run of bricks has a place of its own in each offset's list; first it counts.
  std::vector<int64_t> places(runs * map.volume);
  const auto bricks_of = [&](int64_t run, auto&& visit) {
    for (size_t b = map.bricks.size() * run / runs; b < map.bricks.size() * (run + 1) / runs; b++) map.visit(b, visit);
  };
  parallel_for(threads, runs, [&](int64_t run) {
    bricks_of(run, [&](int k, int32_t, int32_t) { places[run * map.volume + k]++; });
  });
  int64_t total = 0;
  for (int k = 0; k < map.volume; k++) {
    for (int64_t run = 0; run < runs; run++) {
      const int64_t here = places[run * map.volume + k];
      places[run * map.volume + k] = total;
      total += here;
    }
    bounds[(k + 1) * tiles] = total;
  }
  bounds[0] = 0;
  if (!inputs) return 0;
  parallel_for(threads, runs, [&](int64_t run) {
    int64_t* place = places.data() + run * map.volume;
    bricks_of(run, [&](int k, int32_t input, int32_t output) {
      inputs[place[k]] = input;
      outputs[place[k]++] = output;
    });
  });
  parallel_for(threads, map.volume, [&](int64_t k) {
    int64_t p = bounds[k * tiles];
    for (int64_t t = 1; t < tiles; t++) {
      bounds[k * tiles + t] = p = std::lower_bound(outputs + p, outputs + bounds[(k + 1) * tiles], int32_t(t * tile)) - outputs;
    }
  });
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

SS_API int64_t ss_strided_map(const int64_t* keys, int64_t count, int64_t* parents, int32_t* inputs, int32_t* outputs,
                              int64_t* starts) {
  std::fill(starts, starts + 9, 0);
  for (int64_t i = 0; i < count; i++) starts[(keys[i] & 7) + 1]++;
  for (int k = 0; k < 8; k++) starts[k + 1] += starts[k];
  int64_t next[8], parent = -1;
  std::copy(starts, starts + 8, next);
  for (int64_t i = 0; i < count; i++) {
    if (i == 0 || keys[i] >> 3 != parents[parent]) parents[++parent] = keys[i] >> 3;
    const int64_t p = next[keys[i] & 7]++;
    inputs[p] = int32_t(i);
    outputs[p] = int32_t(parent);
  }
  return parent + 1;
}
