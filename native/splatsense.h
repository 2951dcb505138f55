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

// ---- geometry.cpp: farthest point sampling and nearest neighbours ---------------------------------------------------
// Indices (batch, count) of points (batch, n, 3), from `start` on. Returns 0, or 1 when out of memory.
SS_API int ss_farthest_point_sampling(const float* points, int32_t batch, int32_t n, int32_t count, int32_t start,
                                      int64_t* indices);
// Squared distances and indices (batch, m, k) of the k points (batch, n, 3) nearest to queries (batch, m, 3), nearest first.
// Returns 0, or 1 when out of memory.
SS_API int ss_k_nearest_neighbours(const float* points, const float* queries, int32_t batch, int32_t n, int32_t m, int32_t k,
                                   float* distances, int64_t* indices);
