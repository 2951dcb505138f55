// Points as structure of arrays, for the files that compute exact squared distances.
//
// Squared distances are dx*dx + dy*dy + dz*dz, summed in this order without fused multiply-adds (see CMakeLists.txt), so every
// build and the PyTorch references agree to the last bit; ties go to the lower index. Box distances are summed in the same
// order; rounding is monotone, so they never exceed the distance of a point inside the box and pruning by them stays exact.
#pragma once
#include <cstdint>
#include <limits>
#include <vector>

constexpr int kBlock = 16;

// Points as x, y, z arrays, padded to whole blocks with points at infinity.
struct Cloud {
  std::vector<float> x, y, z;

  explicit Cloud(int64_t n) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (auto* axis : {&x, &y, &z}) axis->assign((n + kBlock - 1) / kBlock * kBlock, infinity);
  }

  void set(int64_t i, const float* point) { x[i] = point[0], y[i] = point[1], z[i] = point[2]; }
};
