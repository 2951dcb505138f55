// Serial orders of point clouds: what splatsense/geometry/serialize.py defines, and index lists sorted along them.
//
// Design
// - Coordinates become grid cells in double precision exactly as in the reference, keys are computed axis by axis over whole
//   arrays so that the compiler can use SIMD, and (key, index) pairs are sorted by a stable radix sort of 8 bits a pass.
// - A list is sorted by the places of its points: as a set of bits where lists are long or clouds small, else by comparisons.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>
#include <vector>

#include "splatsense.h"

namespace {

enum Order { kXyz = 0, kZ = 1, kHilbert = 2 };

struct Cells {
  std::vector<uint32_t> axis[3];
};

void to_cells(const float* points, int n, int bits, Cells& cells) {
  double low[3], side = 0;
  for (int k = 0; k < 3; k++) {
    float least = points[k], most = points[k];
    for (int i = 1; i < n; i++) {
      least = std::min(least, points[int64_t(3) * i + k]), most = std::max(most, points[int64_t(3) * i + k]);
    }
    low[k] = least;
    side = std::max(side, double(most) - double(least));
  }
  if (!(side > 0)) side = 1;
  const double count = double(int64_t(1) << bits);
  const int64_t last = (int64_t(1) << bits) - 1;
  for (int k = 0; k < 3; k++) {
    cells.axis[k].resize(n);
    uint32_t* out = cells.axis[k].data();
    for (int i = 0; i < n; i++) {
      const int64_t cell = int64_t((double(points[int64_t(3) * i + k]) - low[k]) / side * count);
      out[i] = uint32_t(std::min(cell, last));
    }
  }
}

// J. Skilling, "Programming the Hilbert curve", AIP Conference Proceedings 707, 381 (2004): AxestoTranspose.
void hilbert_transpose(int n, int bits, Cells& cells) {
  uint32_t *x = cells.axis[0].data(), *y = cells.axis[1].data(), *z = cells.axis[2].data();
  for (int bit = bits - 1; bit > 0; bit--) {
    const uint32_t below = (uint32_t(1) << bit) - 1;
#pragma omp simd
    for (int i = 0; i < n; i++) {
      uint32_t a = x[i], b = y[i], c = z[i];
      a ^= below & (0u - (a >> bit & 1));  // where the bit is set, invert a; else swap the axis with a, which is a itself
      const uint32_t set_b = 0u - (b >> bit & 1), swap_b = (a ^ b) & below & ~set_b;
      a ^= (below & set_b) | swap_b, b ^= swap_b;
      const uint32_t set_c = 0u - (c >> bit & 1), swap_c = (a ^ c) & below & ~set_c;
      a ^= (below & set_c) | swap_c, c ^= swap_c;
      x[i] = a, y[i] = b, z[i] = c;
    }
  }
#pragma omp simd
  for (int i = 0; i < n; i++) {
    const uint32_t a = x[i], b = y[i] ^ a, c = z[i] ^ b;
    uint32_t flip = 0;
    for (int bit = bits - 1; bit > 0; bit--) flip ^= ((uint32_t(1) << bit) - 1) & (0u - (c >> bit & 1));
    x[i] = a ^ flip, y[i] = b ^ flip, z[i] = c ^ flip;
  }
}

// The lower 21 bits of a number, two zeros between any two of them.
inline uint64_t spread(uint64_t v) {
  v = (v | v << 32) & 0x001f00000000ffffull;
  v = (v | v << 16) & 0x001f0000ff0000ffull;
  v = (v | v << 8) & 0x100f00f00f00f00full;
  v = (v | v << 4) & 0x10c30c30c30c30c3ull;
  return (v | v << 2) & 0x1249249249249249ull;
}

struct Keyed {
  uint64_t key;
  int64_t index;
};

void serial_order(const float* points, int n, int order, int bits, int64_t* permutation) {
  Cells cells;
  to_cells(points, n, bits, cells);
  if (order == kHilbert) hilbert_transpose(n, bits, cells);
  const uint32_t *x = cells.axis[0].data(), *y = cells.axis[1].data(), *z = cells.axis[2].data();
  std::vector<Keyed> from(n), to(n);
  for (int i = 0; i < n; i++) {
    const uint64_t key = order == kXyz ? uint64_t(x[i]) << 2 * bits | uint64_t(y[i]) << bits | z[i]
                                       : spread(x[i]) << 2 | spread(y[i]) << 1 | spread(z[i]);
    from[i] = {key, i};
  }
  for (int shift = 0; shift < 3 * bits; shift += 8) {
    int64_t starts[257] = {};
    for (const Keyed& each : from) starts[(each.key >> shift & 255) + 1]++;
    for (int digit = 0; digit < 256; digit++) starts[digit + 1] += starts[digit];
    for (const Keyed& each : from) to[starts[each.key >> shift & 255]++] = each;
    from.swap(to);
  }
  for (int i = 0; i < n; i++) permutation[i] = from[i].index;
}

// Lists (lists, size), each sorted by the points' places in the permutation.
void sort_lists(const int64_t* permutation, int n, const int64_t* members, int64_t lists, int size, int64_t* sorted) {
  std::vector<uint32_t> place(n), places(size);
  for (int i = 0; i < n; i++) place[permutation[i]] = uint32_t(i);
  const int words = (n + 63) / 64;
  const bool use_bits = words <= 8 * size;
  std::vector<uint64_t> is_member(use_bits ? words : 0);
  for (int64_t list = 0; list < lists; list++, members += size, sorted += size) {
    for (int i = 0; i < size; i++) places[i] = place[members[i]];
    int64_t* out = sorted;
    if (use_bits) {
      for (const uint32_t at : places) is_member[at / 64] |= uint64_t(1) << at % 64;
      for (int word = 0; word < words; word++) {
        for (uint64_t left = is_member[word]; left; left &= left - 1) {
          *out++ = permutation[int64_t(word) * 64 + __builtin_ctzll(left)];
        }
        is_member[word] = 0;
      }
    }
    if (out == sorted + size) continue;
    std::sort(places.begin(), places.end());  // many points, or one that is in the list twice
    for (int i = 0; i < size; i++) sorted[i] = permutation[places[i]];
  }
}

}  // namespace

SS_API int ss_serial_order(const float* points, int32_t batch, int32_t n, int32_t order, int32_t bits, int64_t* permutation) {
  int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) reduction(| : failed) if (batch > 1 && int64_t(batch) * n > 30000)
  for (int b = 0; b < batch; b++) {
    try {
      serial_order(points + int64_t(3) * b * n, n, order, bits, permutation + int64_t(b) * n);
    } catch (const std::bad_alloc&) {
      failed = 1;
    }
  }
  return failed;
}

SS_API int ss_sort_lists(const int64_t* permutation, const int64_t* members, int32_t batch, int32_t n, int32_t lists,
                         int32_t size, int64_t* sorted) {
  int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) reduction(| : failed) if (batch > 1 && int64_t(batch) * lists * size > 30000)
  for (int b = 0; b < batch; b++) {
    try {
      const int64_t first = int64_t(b) * lists * size;
      sort_lists(permutation + int64_t(b) * n, n, members + first, lists, size, sorted + first);
    } catch (const std::bad_alloc&) {
      failed = 1;
    }
  }
  return failed;
}
