// Clusters of points: connected components of the graph that joins points of one class at most a radius apart.
//
// Design
// - Points are sorted into cells whose diagonal is shorter than the radius, so a cell is connected in itself and components are
//   found among cells: two cells join as soon as one pair of their points is near enough. How many points a ball holds, which is
//   thousands where an offset network has moved an object to its centre, does not matter.
// - Distances are double, dx*dx + dy*dy + dz*dz without fused multiply-adds, as in the reference.
#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <numeric>
#include <vector>

#include "splatsense.h"

namespace {

constexpr int kBits = 21;  // of a cell's coordinate in its key; x has the highest bits
constexpr int kReach = 2;  // cells along an axis that the radius spans

struct Cell {
  int32_t label;
  uint64_t key;
  int32_t begin, end;  // of its points in the sorted order
  double low[3], high[3];
};

// A forest of cells; a root is its own parent.
class Components {
 public:
  explicit Components(int64_t count) : parent_(count) { std::iota(parent_.begin(), parent_.end(), 0); }
  int32_t find(int32_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  void join(int32_t a, int32_t b) {
    a = find(a), b = find(b);
    if (a != b) parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<int32_t> parent_;
};

class Clusters {
 public:
  Clusters(const float* points, const int32_t* labels, int32_t count, double radius)
      : points_(points), radius2_(radius * radius), order_(count) {
    const double side = radius / std::sqrt(3.0) * 0.9999;
    double low[3] = {points[0], points[1], points[2]};
    for (int64_t i = 0; i < count; i++) {
      for (int k = 0; k < 3; k++) low[k] = std::min(low[k], double(points[3 * i + k]));
    }
    std::vector<uint64_t> keys(count);
    for (int64_t i = 0; i < count; i++) {
      for (int k = 0; k < 3; k++) {
        const double cell = std::floor((points[3 * i + k] - low[k]) / side) + kReach;  // neighbours below are >= 0 too
        fits_ &= cell < (1 << kBits) - kReach;
        keys[i] = keys[i] << kBits | (uint64_t(std::min(cell, double((1 << kBits) - 1))));
      }
    }
    if (!fits_) return;
    std::iota(order_.begin(), order_.end(), 0);
    std::sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) {
      return labels[a] != labels[b] ? labels[a] < labels[b] : keys[a] != keys[b] ? keys[a] < keys[b] : a < b;
    });
    for (int32_t at = 0; at < count; at++) {
      const int32_t i = order_[at];
      if (cells_.empty() || cells_.back().label != labels[i] || cells_.back().key != keys[i]) {
        Cell cell{labels[i], keys[i], at, at, {}, {}};
        for (int k = 0; k < 3; k++) cell.low[k] = cell.high[k] = points[int64_t(3) * i + k];
        cells_.push_back(cell);
      }
      Cell& cell = cells_.back();
      cell.end = at + 1;
      for (int k = 0; k < 3; k++) {
        cell.low[k] = std::min(cell.low[k], double(points[int64_t(3) * i + k]));
        cell.high[k] = std::max(cell.high[k], double(points[int64_t(3) * i + k]));
      }
    }
  }

  bool fits() const { return fits_; }

  // Cluster of each point, numbered in order of their first points; -1 in clusters of fewer than `least` points.
  int32_t number(int32_t least, int32_t* clusters) {
    Components components(cells_.size());
    for (int32_t a = 0; a < int32_t(cells_.size()); a++) join_neighbours(a, components);
    const int32_t count = order_.size();
    std::vector<int32_t> root(count), size(cells_.size()), id(cells_.size(), -1);
    for (int32_t c = 0; c < int32_t(cells_.size()); c++) {
      const int32_t found = components.find(c);
      size[found] += cells_[c].end - cells_[c].begin;
      for (int32_t at = cells_[c].begin; at < cells_[c].end; at++) root[order_[at]] = found;
    }
    int32_t found = 0;
    for (int32_t i = 0; i < count; i++) {
      int32_t& own = id[root[i]];
      if (own < 0 && size[root[i]] >= least) own = found++;
      clusters[i] = own;
    }
    return found;
  }

 private:
  // Cells after `a` in the order of keys, row by row of cells that differ in z alone; each pair is met once.
  void join_neighbours(int32_t a, Components& components) {
    const Cell& cell = cells_[a];
    for (int64_t dx = 0; dx <= kReach; dx++) {
      for (int64_t dy = dx ? -kReach : 0; dy <= kReach; dy++) {
        const int64_t first = dx || dy ? -kReach : 1;
        const uint64_t row = cell.key + (dx << 2 * kBits) + dy * (int64_t(1) << kBits);
        auto b = std::lower_bound(cells_.begin() + a + 1, cells_.end(), row + first, [&](const Cell& other, uint64_t key) {
          return other.label < cell.label || (other.label == cell.label && other.key < key);
        });
        for (; b != cells_.end() && b->label == cell.label && b->key <= row + kReach; ++b) {
          const int32_t other = b - cells_.begin();
          if (components.find(a) != components.find(other) && touch(cell, *b)) components.join(a, other);
        }
      }
    }
  }

  // Whether a point of one cell is at most the radius from a point of the other.
  bool touch(const Cell& a, const Cell& b) const {
    for (int32_t i = a.begin; i < a.end; i++) {
      const float* p = points_ + int64_t(3) * order_[i];
      if (to_box(p, b) > radius2_) continue;
      for (int32_t j = b.begin; j < b.end; j++) {
        const float* q = points_ + int64_t(3) * order_[j];
        const double dx = double(p[0]) - q[0], dy = double(p[1]) - q[1], dz = double(p[2]) - q[2];
        if (dx * dx + dy * dy + dz * dz <= radius2_) return true;
      }
    }
    return false;
  }

  // Never more than the squared distance to a point in the box: rounding is monotone.
  static double to_box(const float* p, const Cell& box) {
    double sum = 0;
    for (int k = 0; k < 3; k++) {
      const double away = std::max({box.low[k] - p[k], double(p[k]) - box.high[k], 0.0});
      sum += away * away;
    }
    return sum;
  }

  const float* points_;
  double radius2_;
  bool fits_ = true;
  std::vector<int32_t> order_;
  std::vector<Cell> cells_;
};

}  // namespace

SS_API int ss_cluster_points(const float* points, const int32_t* labels, int32_t count, double radius, int32_t least,
                             int32_t* clusters, int32_t* found) {
  *found = 0;
  if (count == 0) return 0;
  try {
    Clusters work(points, labels, count, radius);
    if (!work.fits()) return 2;
    *found = work.number(least, clusters);
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}
