// peak_products, peak_copy: what a GPU gives at most, for musc-bench to compare the other kernels with.
//
//   peak_products  every warp multiplies fragments that stay in its registers, ``rounds`` times PEAK_CHAINS
//                  products of 16 x 8 x 16: tensor cores fed by nothing but registers
//   peak_copy      to[i] = from[i]
//
// Shapes
//   sums       (grid * 256) float, what each thread's sums add up to: it must be written to be computed
//   to, from   (count) of 16 bytes
// Geometry
//   block 256; grid any for peak_products, ceil(count / 256) for peak_copy
// Cost
//   peak_products  rounds * PEAK_CHAINS * 4096 FLOP a warp; peak_copy 32 bytes an item
//
// On Hopper and later this is the peak of mma.sync, not of their wgmma and tcgen05; Hopper's gram_min uses wgmma.
#pragma once
#include "device_ops.cuh"

constexpr int PEAK_THREADS = 256;
constexpr int PEAK_CHAINS = 8;  // products that do not wait for each other, to hide the latency of one

KERNEL __launch_bounds__(PEAK_THREADS)
peak_products(float* __restrict__ sums, int rounds, int halves) {
  // ``halves`` is twice the same half, given by the launch, so that no compiler knows the result.
  const unsigned pair = (unsigned)halves;
  const unsigned a[4] = {pair, pair, pair, pair}, b[2] = {pair, pair};
  float c[PEAK_CHAINS][4] = {};
  for (int round = 0; round < rounds; round++) {
    UNROLL
    for (int chain = 0; chain < PEAK_CHAINS; chain++) multiply_add(c[chain], a, b);
  }
  float sum = 0;
  UNROLL
  for (int chain = 0; chain < PEAK_CHAINS; chain++) {
    UNROLL
    for (int i = 0; i < 4; i++) sum += c[chain][i];
  }
  sums[(size_t)blockIdx.x * PEAK_THREADS + threadIdx.x] = sum;
}

KERNEL __launch_bounds__(PEAK_THREADS)
peak_copy(const float4* __restrict__ from, float4* __restrict__ to, int count) {
  const int i = blockIdx.x * PEAK_THREADS + threadIdx.x;
  if (i < count) to[i] = from[i];
}
