// Exact k nearest neighbours: a k-d tree over structure-of-arrays points; its leaves are scanned 16 points at a time. A small
// cloud is one leaf, which is brute force.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

#include "cloud.h"
#include "splatsense.h"

namespace {

// The k nearest so far, sorted; a key holds the bits of the squared distance (>= 0, so they sort as integers) and the index.
class Nearest {
 public:
  explicit Nearest(int k) : keys_(k), k_(k) {}

  void clear() {
    count_ = 0;
    worst_ = std::numeric_limits<float>::infinity();
  }
  // Nothing farther than this can enter.
  float worst() const { return worst_; }

  void offer(float distance, uint32_t index) {
    uint32_t bits;
    std::memcpy(&bits, &distance, 4);
    const uint64_t key = uint64_t(bits) << 32 | index;
    if (count_ == k_ && key >= keys_[k_ - 1]) return;
    if (count_ < k_) count_++;
    int at = count_ - 1;
    for (; at > 0 && keys_[at - 1] > key; at--) keys_[at] = keys_[at - 1];
    keys_[at] = key;
    if (count_ == k_) {
      bits = uint32_t(keys_[k_ - 1] >> 32);
      std::memcpy(&worst_, &bits, 4);
    }
  }

  void write(float* distances, int64_t* indices) const {
    for (int i = 0; i < k_; i++) {
      const uint32_t bits = uint32_t(keys_[i] >> 32);
      std::memcpy(distances + i, &bits, 4);
      indices[i] = int64_t(keys_[i] & 0xffffffffu);
    }
  }

 private:
  std::vector<uint64_t> keys_;
  int k_, count_ = 0;
  float worst_ = 0;
};

class Tree {
 public:
  Tree(const float* points, int n, int leaf_size) : order_(n), cloud_(0) {
    std::iota(order_.begin(), order_.end(), 0);
    build(points, 0, n, leaf_size);
    cloud_ = Cloud(n);
    for (int i = 0; i < n; i++) cloud_.set(i, points + int64_t(3) * order_[i]);
  }

  void search(const float query[3], Nearest& nearest) const {
    nearest.clear();
    float offset[3] = {0, 0, 0};
    visit(0, 0, int(order_.size()), query, offset, nearest);
  }

 private:
  struct Node {
    int axis = -1;  // -1: leaf
    float split = 0;
    int middle = 0, left = 0, right = 0;
  };

  int build(const float* points, int first, int last, int leaf_size) {
    const int id = int(nodes_.size());
    nodes_.emplace_back();
    if (last - first <= leaf_size) return id;
    float low[3], high[3];
    for (int k = 0; k < 3; k++) low[k] = high[k] = points[int64_t(3) * order_[first] + k];
    for (int i = first; i < last; i++) {
      for (int k = 0; k < 3; k++) {
        const float value = points[int64_t(3) * order_[i] + k];
        low[k] = std::min(low[k], value), high[k] = std::max(high[k], value);
      }
    }
    Node node;
    node.axis = 0;
    for (int k = 1; k < 3; k++) {
      if (high[k] - low[k] > high[node.axis] - low[node.axis]) node.axis = k;
    }
    node.middle = first + ((last - first) / 2 + kBlock - 1) / kBlock * kBlock;  // leaves start at whole blocks
    if (node.middle >= last) return id;
    const int axis = node.axis;
    auto value = [&](int i) { return points[int64_t(3) * i + axis]; };
    std::nth_element(order_.begin() + first, order_.begin() + node.middle, order_.begin() + last,
                     [&](int a, int b) { return value(a) < value(b); });
    node.split = value(order_[node.middle]);
    node.left = build(points, first, node.middle, leaf_size);
    node.right = build(points, node.middle, last, leaf_size);
    nodes_[id] = node;
    return id;
  }

  // `offset` is how far the query lies outside the node's box along each axis.
  void visit(int id, int first, int last, const float query[3], float offset[3], Nearest& nearest) const {
    const Node& node = nodes_[id];
    if (node.axis < 0) return scan(first, last, query, nearest);
    const int axis = node.axis;
    const float away = query[axis] - node.split;
    const bool left_first = away < 0;
    visit(left_first ? node.left : node.right, left_first ? first : node.middle, left_first ? node.middle : last, query,
          offset, nearest);
    const float before = offset[axis];
    offset[axis] = std::max(before, std::abs(away));
    if (offset[0] * offset[0] + offset[1] * offset[1] + offset[2] * offset[2] <= nearest.worst()) {
      visit(left_first ? node.right : node.left, left_first ? node.middle : first, left_first ? last : node.middle, query,
            offset, nearest);
    }
    offset[axis] = before;
  }

  void scan(int first, int last, const float query[3], Nearest& nearest) const {
    const float qx = query[0], qy = query[1], qz = query[2];
    for (int block = first; block < last; block += kBlock) {
      const float *x = cloud_.x.data() + block, *y = cloud_.y.data() + block, *z = cloud_.z.data() + block;
      const float worst = nearest.worst();
      float distance[kBlock];
      int closer = 0;
#pragma omp simd reduction(+ : closer)
      for (int i = 0; i < kBlock; i++) {
        const float dx = x[i] - qx, dy = y[i] - qy, dz = z[i] - qz;
        distance[i] = dx * dx + dy * dy + dz * dz;
        closer += distance[i] <= worst;
      }
      if (!closer) continue;
      const int size = std::min(kBlock, last - block);
      for (int i = 0; i < size; i++) {
        if (distance[i] <= nearest.worst()) nearest.offer(distance[i], order_[block + i]);
      }
    }
  }

  std::vector<Node> nodes_;
  std::vector<int> order_;
  Cloud cloud_;
};

}  // namespace

SS_API int ss_k_nearest_neighbours(const float* points, const float* queries, int32_t batch, int32_t n, int32_t m, int32_t k,
                                   float* distances, int64_t* indices) {
  constexpr int kQueriesPerTask = 64, kLeafSize = 64, kBruteForce = 512;
  const int tasks = (m + kQueriesPerTask - 1) / kQueriesPerTask;
  const bool large = int64_t(batch) * (n + int64_t(m) * k) > 200000;
  int failed = 0;
  try {
    std::vector<std::unique_ptr<Tree>> trees(batch);
#pragma omp parallel for schedule(dynamic, 1) reduction(| : failed) if (large && batch > 1)
    for (int b = 0; b < batch; b++) {
      try {
        trees[b] = std::make_unique<Tree>(points + int64_t(3) * b * n, n, n <= kBruteForce ? n : kLeafSize);
      } catch (const std::bad_alloc&) {
        failed = 1;
      }
    }
    if (failed) return 1;
#pragma omp parallel for schedule(dynamic, 1) reduction(| : failed) if (large)
    for (int64_t task = 0; task < int64_t(batch) * tasks; task++) {
      try {
        const int64_t b = task / tasks, first = task % tasks * kQueriesPerTask;
        Nearest nearest(k);
        for (int64_t q = b * m + first; q < b * m + std::min<int64_t>(m, first + kQueriesPerTask); q++) {
          trees[b]->search(queries + 3 * q, nearest);
          nearest.write(distances + q * k, indices + q * k);
        }
      } catch (const std::bad_alloc&) {
        failed = 1;
      }
    }
  } catch (const std::bad_alloc&) {
    failed = 1;
  }
  return failed;
}
