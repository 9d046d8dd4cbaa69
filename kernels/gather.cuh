// gather_rows: the tokens of some patches of each image, side by side, for what needs no others.
//
//   rows[i][k] = tokens[i][places[k]]
//
// Shapes
//   tokens  (images, patches, halves), a token as so many pairs of bytes, whatever its type
//   places  (count) int, each below patches;  rows  (images, count, halves)
// Geometry
//   grid    (count, images), block 128
#pragma once
#include "device_ops.cuh"

constexpr int GATHER_THREADS = 128;

KERNEL __launch_bounds__(GATHER_THREADS)
gather_rows(const half_bits* __restrict__ tokens, const int* __restrict__ places, half_bits* __restrict__ rows,
            int patches, int count, int halves) {
  const size_t image = blockIdx.y;
  const half_bits* from = tokens + (image * patches + places[blockIdx.x]) * halves;
  half_bits* to = rows + (image * count + blockIdx.x) * halves;
  for (int i = threadIdx.x; i < halves; i += GATHER_THREADS) to[i] = from[i];
}
