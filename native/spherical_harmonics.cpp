// Sums of spherical harmonics, colour = sum over k of basis_k sh_k, and their gradients: PyTorch takes most of its time for
// loops over the three channels, and memory for every product.
#include "splatsense.h"

SS_API void ss_sh_sum(const float* basis, const float* sh, int64_t views, int64_t gaussians, int64_t terms, float* colors) {
  for (int64_t v = 0; v < views; v++) {
    for (int64_t i = 0; i < gaussians; i++) {
      const float *b = basis + (v * gaussians + i) * terms, *s = sh + 3 * i * terms;
      float sum[3]{};
      for (int64_t k = 0; k < terms; k++) {
        for (int c = 0; c < 3; c++) sum[c] += b[k] * s[3 * k + c];
      }
      for (int c = 0; c < 3; c++) colors[3 * (v * gaussians + i) + c] = sum[c];
    }
  }
}

SS_API void ss_sh_sum_backward(const float* basis, const float* sh, const float* gradient, int64_t views, int64_t gaussians,
                               int64_t terms, float* basis_gradient, float* sh_gradient) {
  for (int64_t v = 0; v < views; v++) {
    for (int64_t i = 0; i < gaussians; i++) {
      const float *g = gradient + 3 * (v * gaussians + i), *b = basis + (v * gaussians + i) * terms, *s = sh + 3 * i * terms;
      float *to_basis = basis_gradient + (v * gaussians + i) * terms, *to_sh = sh_gradient + 3 * i * terms;
      for (int64_t k = 0; k < terms; k++) {
        to_basis[k] = g[0] * s[3 * k] + g[1] * s[3 * k + 1] + g[2] * s[3 * k + 2];
        for (int c = 0; c < 3; c++) to_sh[3 * k + c] = (v > 0 ? to_sh[3 * k + c] : 0) + b[k] * g[c];
      }
    }
  }
}
