// The whole C ABI of the native library. Plain pointers and sizes, no torch, no exceptions across the boundary.
// Arrays are dense row-major float32 unless said otherwise; conventions are those of docs/conventions.md.
#pragma once
#include <cstdint>

#define SS_API extern "C" __attribute__((visibility("default")))

#define SS_ABI_VERSION 1

SS_API int ss_abi_version();
// Which build this is, and the best one this CPU can run: 0 baseline, 1 AVX2, 2 AVX-512.
SS_API int ss_build_level();
SS_API int ss_cpu_level();

// ---- Rasteriser (rasterise.cpp): what splatsense/render/reference.py defines, forward and backward.
// N Gaussians, V views, C feature channels, images of H x W.
struct SsRasteriseInput {
  int64_t gaussians, views, feature_channels, width, height;
  int64_t color_views;     // 1: one colour per Gaussian for all views; V: one per view
  int64_t gradient_bytes;  // scratch memory of the backward pass at a time, unless one row of tiles needs more
  const float *means, *quats, *scales, *opacities;  // (N,3) (N,4) wxyz, (N,3) (N)
  const float *colors, *features;                   // (color_views,N,3) (N,C)
  const float *world_to_camera, *K;                 // (V,4,4) (V,3,3)
  float eps2d, near_plane;                          // px^2 added to both variances on screen; smallest z drawn
  int32_t threads;                                  // at most this many
};
struct SsRasteriseImages {
  float *color, *features, *depth, *alpha;  // (V,H,W,3) (V,H,W,C) (V,H,W) (V,H,W)
};
struct SsRasteriseGradients {
  float *means, *quats, *scales, *opacities, *colors, *features;  // shapes as in the input; overwritten
};
// Both return 0, or 1 when memory ran out. `state` receives what the backward pass needs; null when none will follow.
// Null pointers among `image_gradients` stand for zeros. Same input, same output to the last bit, for any thread count.
SS_API int ss_rasterise_forward(const SsRasteriseInput* input, const SsRasteriseImages* images, void** state);
SS_API int ss_rasterise_backward(const SsRasteriseInput* input, void* state, const SsRasteriseImages* images,
                                 const SsRasteriseImages* image_gradients, const SsRasteriseGradients* gradients);
SS_API void ss_rasterise_free(void* state);
