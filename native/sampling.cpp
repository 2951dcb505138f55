// Farthest point sampling.
//
// Design
// - A small cloud is scanned whole for each pick.
// - A large cloud is cut into blocks along its Z-order curve. A block whose box lies no nearer to the new pick than the block's
//   own farthest point is from all picks cannot change, so late picks look at a few blocks only.
#include <algorithm>
#include <limits>
#include <new>
#include <vector>

#include "cloud.h"
#include "splatsense.h"

namespace {

void farthest_points(const float* points, int n, int count, int start, int64_t* indices) {
  Cloud cloud(n);
  for (int i = 0; i < n; i++) cloud.set(i, points + int64_t(3) * i);
  std::vector<float> distance(n, std::numeric_limits<float>::infinity());
  const float *x = cloud.x.data(), *y = cloud.y.data(), *z = cloud.z.data();
  float* d = distance.data();
  int current = start;
  for (int s = 0;; s++) {
    indices[s] = current;
    if (s + 1 == count) return;
    const float cx = x[current], cy = y[current], cz = z[current];
    float farthest = -1;
#pragma omp simd reduction(max : farthest)
    for (int i = 0; i < n; i++) {
      const float dx = x[i] - cx, dy = y[i] - cy, dz = z[i] - cz;
      const float to_current = dx * dx + dy * dy + dz * dz;
      d[i] = to_current < d[i] ? to_current : d[i];
      farthest = d[i] > farthest ? d[i] : farthest;
    }
    current = 0;
    while (d[current] != farthest) current++;
  }
}

// The same with blocks that are passed over while nothing in them can change.
class BlockSampler {
 public:
  BlockSampler(const float* points, int n) : cloud_(n), count_((n + kSize - 1) / kSize), index_(count_ * kSize) {
    std::vector<int64_t> order(n);
    if (ss_serial_order(points, 1, n, 1, 8, order.data())) throw std::bad_alloc();
    for (auto* axis : {&cloud_.x, &cloud_.y, &cloud_.z}) axis->resize(count_ * kSize, std::numeric_limits<float>::infinity());
    distance_.assign(count_ * kSize, -1);  // padding is never the farthest
    for (int i = 0; i < n; i++) {
      cloud_.set(i, points + 3 * order[i]);
      index_[i] = int32_t(order[i]);
      distance_[i] = std::numeric_limits<float>::infinity();
    }
    for (auto& bounds : low_) bounds.resize(count_);
    for (auto& bounds : high_) bounds.resize(count_);
    for (int block = 0; block < count_; block++) {
      const int first = block * kSize, last = std::min(n, first + kSize);
      const float* axes[3] = {cloud_.x.data(), cloud_.y.data(), cloud_.z.data()};
      for (int k = 0; k < 3; k++) {
        const auto ends = std::minmax_element(axes[k] + first, axes[k] + last);
        low_[k][block] = *ends.first, high_[k][block] = *ends.second;
      }
    }
    farthest_.assign(count_, std::numeric_limits<float>::infinity());
    farthest_index_.resize(count_);
    to_box_.resize(count_);
  }

  // Takes note of a pick and returns the index of the point farthest from all of them.
  int pick(const float pick[3]) {
    const float x = pick[0], y = pick[1], z = pick[2];
    for (int block = 0; block < count_; block++) {
      const float dx = std::max(std::max(low_[0][block] - x, x - high_[0][block]), 0.0f);
      const float dy = std::max(std::max(low_[1][block] - y, y - high_[1][block]), 0.0f);
      const float dz = std::max(std::max(low_[2][block] - z, z - high_[2][block]), 0.0f);
      to_box_[block] = dx * dx + dy * dy + dz * dz;
    }
    float farthest = -1;
    int index = 0;
    for (int block = 0; block < count_; block++) {
      if (to_box_[block] < farthest_[block] || farthest_[block] > kUnset) update(block, x, y, z);
      const float here = farthest_[block];
      if (here > farthest || (here == farthest && farthest_index_[block] < index)) {
        farthest = here, index = farthest_index_[block];
      }
    }
    return index;
  }

 private:
  static constexpr int kSize = 64;
  static constexpr float kUnset = std::numeric_limits<float>::max();

  void update(int block, float px, float py, float pz) {
    const int first = block * kSize;
    const float *x = cloud_.x.data() + first, *y = cloud_.y.data() + first, *z = cloud_.z.data() + first;
    const int32_t* index = index_.data() + first;
    float* d = distance_.data() + first;
    float farthest = -1;
#pragma omp simd reduction(max : farthest)
    for (int i = 0; i < kSize; i++) {
      const float dx = x[i] - px, dy = y[i] - py, dz = z[i] - pz;
      const float to_pick = dx * dx + dy * dy + dz * dz;
      d[i] = to_pick < d[i] ? to_pick : d[i];
      farthest = d[i] > farthest ? d[i] : farthest;
    }
    int32_t lowest = std::numeric_limits<int32_t>::max();
#pragma omp simd reduction(min : lowest)
    for (int i = 0; i < kSize; i++) {
      const int32_t candidate = d[i] == farthest ? index[i] : std::numeric_limits<int32_t>::max();
      lowest = candidate < lowest ? candidate : lowest;
    }
    farthest_[block] = farthest, farthest_index_[block] = lowest;
  }

  Cloud cloud_;
  int count_;
  std::vector<int32_t> index_, farthest_index_;
  std::vector<float> distance_, low_[3], high_[3], farthest_, to_box_;
};

void farthest_points_by_blocks(const float* points, int n, int count, int start, int64_t* indices) {
  BlockSampler sampler(points, n);
  indices[0] = start;
  for (int s = 1; s < count; s++) indices[s] = sampler.pick(points + 3 * indices[s - 1]);
}

}  // namespace

SS_API int ss_farthest_point_sampling(const float* points, int32_t batch, int32_t n, int32_t count, int32_t start,
                                      int64_t* indices) {
  constexpr int kBlocksFrom = 4096;
  int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) reduction(| : failed) if (batch > 1 && int64_t(batch) * n * count > 30000000)
  for (int b = 0; b < batch; b++) {
    try {
      const auto sample = n >= kBlocksFrom && count > 32 ? farthest_points_by_blocks : farthest_points;
      sample(points + int64_t(3) * b * n, n, count, start, indices + int64_t(b) * count);
    } catch (const std::bad_alloc&) {
      failed = 1;
    }
  }
  return failed;
}
