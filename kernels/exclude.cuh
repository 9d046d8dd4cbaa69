// exclude_patches: what keeps patches outside of a region of interest from being anybody's nearest.
//
//   squares[i] = infinite where inside[i] is 0
//
// gram_min adds the squares of both patches to their product: the distance to an excluded patch is infinite.
//
// Shapes
//   squares  (count) float, the rows' squared norms;  inside  (count) bytes
// Geometry
//   grid     (ceil(count / 128)), block 128
#pragma once
#include "device_ops.cuh"

constexpr int EXCLUDE_THREADS = 128;

KERNEL __launch_bounds__(EXCLUDE_THREADS)
exclude_patches(float* __restrict__ squares, const unsigned char* __restrict__ inside, int count) {
  const int i = blockIdx.x * EXCLUDE_THREADS + threadIdx.x;
  if (i < count && !inside[i]) squares[i] = __uint_as_float(INFINITY_BITS);
}
