// The whole C ABI of the native library. Plain pointers and sizes, no torch, no exceptions across the boundary.
// Arrays are dense row-major float32 unless said otherwise; conventions are those of docs/conventions.md.
#pragma once
#include <cstdint>

#define SS_API extern "C" __attribute__((visibility("default")))

#define SS_ABI_VERSION 4

SS_API int ss_abi_version();
// Which build this is, and the best one this CPU can run: 0 baseline, 1 AVX2, 2 AVX-512.
SS_API int ss_build_level();
SS_API int ss_cpu_level();

// ---- mesh.cpp: z-buffer renderer ------------------------------------------------------------------------------------
struct SsMesh {
  const float* vertices;          // (vertex_count, 3)
  const int32_t* faces;           // (face_count, 3)
  const int32_t* face_materials;  // (face_count)
  const int32_t* face_instances;  // (face_count)
  const float* corner_uvs;        // (face_count, 3, 2) or null
  const float* corner_colors;     // (face_count, 3, 3) or null
  const float* material_colors;   // (material_count, 4) RGB and opacity in [0, 1]
  const uint8_t* const* textures; // (material_count) RGBA, first row at v = 1, or null
  const int32_t* texture_sizes;   // (material_count, 2) height and width
  int32_t vertex_count, face_count, material_count;
};

struct SsMeshImages {  // (views, height, width[, channels])
  float* color;        // 3 channels
  float* alpha;
  float* depth;
  float* normal;       // 3 channels
  int32_t* instance_id;
  int32_t* face_id;
};

// Draws `views` pinhole views: world_to_camera (views, 4, 4), K (views, 3, 3), background (3). Returns 0, or 1 when out of memory.
SS_API int ss_render_mesh(const SsMesh* mesh, const float* world_to_camera, const float* K, int32_t views, int32_t width,
                          int32_t height, float near, int32_t supersample, float shading, const float* background,
                          const SsMeshImages* images);

// ---- sampling.cpp, neighbours.cpp: farthest point sampling and nearest neighbours -----------------------------------
// Indices (batch, count) of points (batch, n, 3), from `start` on. Returns 0, or 1 when out of memory.
SS_API int ss_farthest_point_sampling(const float* points, int32_t batch, int32_t n, int32_t count, int32_t start,
                                      int64_t* indices);
// Squared distances and indices (batch, m, k) of the k points (batch, n, 3) nearest to queries (batch, m, 3), nearest first.
// Returns 0, or 1 when out of memory.
SS_API int ss_k_nearest_neighbours(const float* points, const float* queries, int32_t batch, int32_t n, int32_t m, int32_t k,
                                   float* distances, int64_t* indices);

// ---- serial.cpp: serial orders of points, and lists of points sorted along them -------------------------------------
// The permutation (batch, n) that puts points (batch, n, 3) in an order: 0 xyz, 1 z, 2 hilbert, on a grid of 2^bits cells a
// side, bits <= 20. Returns 0, or 1 when out of memory.
SS_API int ss_serial_order(const float* points, int32_t batch, int32_t n, int32_t order, int32_t bits, int64_t* permutation);
// Lists (batch, lists, size) of points, each sorted by the place its points have in the permutation (batch, n).
// Returns 0, or 1 when out of memory.
SS_API int ss_sort_lists(const int64_t* permutation, const int64_t* members, int32_t batch, int32_t n, int32_t lists,
                         int32_t size, int64_t* sorted);

// ---- Rasteriser (rasterise.cpp): what splatsense/render/reference.py defines, forward and backward.
// B objects of N Gaussians and V views together, one after the other, each drawn by its own views; C feature channels,
// images of H x W.
struct SsRasteriseInput {
  int64_t objects, gaussians, views, feature_channels, width, height;  // B N V C W H
  const int64_t *gaussian_begin, *view_begin, *color_begin;            // (B + 1) first Gaussian, view and row of colors
  int64_t gradient_bytes;  // scratch memory of an object's backward pass at a time, unless one row of tiles needs more
  const float *means, *quats, *scales, *opacities;  // (N,3) (N,4) wxyz, (N,3) (N)
  const float *colors, *features;                   // of each object (N,3), or (V,N,3) if they depend on the view; (N,C)
  const float *world_to_camera, *K;                 // (V,4,4) (V,3,3)
  float eps2d, near_plane, far_plane;               // px^2 added to both variances on screen; smallest and largest z drawn
  float radius_clip;                                // not drawn: Gaussians that reach no further, in whole px, along x and y
  int32_t antialiased, median_depth;                // flags
  int32_t threads;                                  // at most this many
  int64_t color_views;                              // set inside, for one object: 1 or its V
};
struct SsRasteriseImages {
  float *color, *features, *depth, *alpha;  // (V,H,W,3) (V,H,W,C) (V,H,W) (V,H,W)
};
struct SsRasteriseGradients {
  float *means, *quats, *scales, *opacities, *colors, *features;  // shapes as in the input; overwritten
  float* world_to_camera;                                         // or null
};
// Both return 0, or 1 when memory ran out. `state` receives what the backward pass needs; null when none will follow.
// Null pointers among `image_gradients` stand for zeros. Same input, same output to the last bit, for any thread count.
SS_API int ss_rasterise_forward(const SsRasteriseInput* input, const SsRasteriseImages* images, void** state);
SS_API int ss_rasterise_backward(const SsRasteriseInput* input, void* state, const SsRasteriseImages* images,
                                 const SsRasteriseImages* image_gradients, const SsRasteriseGradients* gradients);
SS_API void ss_rasterise_free(void* state);

// ---- spherical_harmonics.cpp: colours (V,N,3) = sum over K of basis (V,N,K) and sh (N,K,3), and the gradients of both
SS_API void ss_sh_sum(const float* basis, const float* sh, int64_t views, int64_t gaussians, int64_t terms, float* colors);
SS_API void ss_sh_sum_backward(const float* basis, const float* sh, const float* gradient, int64_t views, int64_t gaussians,
                               int64_t terms, float* basis_gradient, float* sh_gradient);

// ---- lzf.cpp: decompression of .pcd files ---------------------------------------------------------------------------
// Returns the bytes written, or -1 - (bytes written before the damage) when the input is damaged or longer than the output.
SS_API int64_t ss_lzf_decompress(const uint8_t* input, int64_t input_size, uint8_t* output, int64_t output_size);

// ---- photometric.cpp: for each view (1 - ssim_weight) l1 + ssim_weight (1 - SSIM) of color + (1 - alpha) background against
// a target of premultiplied RGBA over the same background, and the gradients with respect to color and alpha.
// color (V,H,W,3), alpha (V,H,W), target (V,H,W,4), background (V,3), loss (V). Returns 0, or 1 when out of memory.
SS_API int ss_photometric_loss(const float* color, const float* alpha, const float* target, const float* background,
                               int64_t views, int64_t height, int64_t width, float ssim_weight, int32_t threads, float* loss,
                               float* color_gradient, float* alpha_gradient);

// ---- sparse.cpp: sparse 3D convolution (splatsense/sparse/convolution.py) along lists of pairs, offset after offset -----------
struct SsSparseConvolution {
  const float* features;             // (input_count, in_channels)
  const float* weight;               // (out_channels, offsets, in_channels); transposed: (in_channels, offsets, out_channels)
  const int32_t *inputs, *outputs;   // rows of each pair; outputs ascend within an offset
  const int64_t* bounds;             // (offsets * tiles + 1): where the pairs of each offset and tile of outputs begin
  int64_t in_channels, out_channels, offsets, output_count;
  int64_t tile;                      // outputs of a tile
  int32_t transposed, reversed;      // flags: the weight's axes are exchanged; offset k has the weight of offset K - 1 - k
  int32_t threads;
};
// out (output_count, out_channels). Returns 0, or 1 when out of memory.
SS_API int ss_sparse_convolution(const SsSparseConvolution* input, float* out);
// out (out_channels, offsets, in_channels) from gradient (output_count, out_channels); `weight` and the flags are not used.
SS_API int ss_sparse_weight_gradient(const SsSparseConvolution* input, const float* gradient, float* out);

// ---- voxel_maps.cpp: which voxels meet along a kernel (splatsense/sparse/kernel_map.py); keys ascend and are distinct
// Pairs of a submanifold convolution of odd kernel size <= 7, offset after offset, outputs ascending. Call it with null `inputs` and
// `outputs` for bounds[k * tiles] alone, where offset k's pairs begin (bounds[kernel^3 * tiles]: how many there are), then
// with room for them, for all bounds (kernel^3 * tiles + 1) too. Returns 0, or 1 when out of memory.
SS_API int ss_submanifold_map(const int64_t* keys, int64_t count, int32_t kernel, int64_t tile, int32_t threads,
                              int64_t* bounds, int32_t* inputs, int32_t* outputs);
// Keys of the voxels of twice the size (at most `count`), and the pairs (count) of a convolution of kernel 2 and stride 2, with
// starts (9) of its offsets. Returns how many keys.
SS_API int64_t ss_strided_map(const int64_t* keys, int64_t count, int64_t* parents, int32_t* inputs, int32_t* outputs,
                              int64_t* starts);

// ---- batch_norm.cpp: batch normalisation of rows, then addition and ReLU (splatsense/sparse/normalization.py)
struct SsBatchNorm {
  const float *input, *residual;  // (rows, channels); residual may be null
  const float *weight, *bias;     // (channels)
  float *mean, *variance;         // (channels), biased; given, unless the forward pass is to measure them (training)
  int64_t rows, channels;
  float epsilon;
  int32_t relu, training, threads;
};
struct SsBatchNormGradients {
  float *input, *residual;  // (rows, channels); residual may be null
  float *weight, *bias;     // (channels)
};
// Both return 0, or 1 when out of memory.
SS_API int ss_batch_norm(const SsBatchNorm* input, float* out);
SS_API int ss_batch_norm_backward(const SsBatchNorm* input, const float* output, const float* gradient,
                                  const SsBatchNormGradients* to);
