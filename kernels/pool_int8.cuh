// From patch tokens to the rows that gram_min_int8 multiplies: pool.cuh's rows, rounded to int8 with a scale for
// each row instead of to half.
//
//   f[m]  as in pool.cuh: pooled, normalised, less the shift
//   s[m]  = max |f[m]| / 127
//   i[m]  = f[m] / s[m]                          rounded to an integer from -127 to 127
//   q[m]  = s[m]^2 * sum of i[m]^2               the square of the rounded row; the sum is exact
//
// Without the shift, which all rows of a lot share, the largest value of a row would be of that common part, and
// what tells rows apart would be left with few of the 255 steps.
//
// Shapes
//   tokens, centres, shift, grid, block and shared memory as for pool_*
//   features  in blocks (blocks.cuh) of int8
//   squares, scales  (images, P) float
// Cost
//   that of pool_*, with half the bytes to write.
#pragma once
#include "device_ops.cuh"
#include "pool.cuh"

constexpr float INT8_STEPS = 127;
constexpr float NOTHING = 1e-30f;  // rows whose values are all smaller are zero: their steps would not be finite

// The largest value over the CTA; ``room`` holds a float for each warp.
DEVICE float largest_over_cta(float value, float* room) {
  UNROLL
  for (int bit = 16; bit; bit >>= 1) value = fmaxf(value, __shfl_xor_sync(~0u, value, bit));
  __syncthreads();  // an earlier sum has been read by all
  if ((threadIdx.x & 31) == 0) room[threadIdx.x >> 5] = value;
  __syncthreads();
  return fmaxf(fmaxf(room[0], room[1]), fmaxf(room[2], room[3]));
}

template <class Token>
DEVICE void pool_int8(const Token* tokens, const float4* centres, const float* shift, int8* features,
                      float* squares, float* scales, int height, int across, int width, int pitch, int reach) {
  float* room = (float*)dynamic_shared;
  float* row = room + POOL_THREADS / 32;
  const int patches = height * across, image = blockIdx.y;
  const size_t place = (size_t)image * patches + blockIdx.x;
  tokens += (size_t)image * patches * width;
  const float inverse = pool_window(tokens, centres[image], row, room, height, across, width, reach);

  float largest = 0;
  for (int c = threadIdx.x; c < width; c += POOL_THREADS) {
    row[c] = row[c] * inverse - shift[c];
    largest = fmaxf(largest, fabsf(row[c]));
  }
  largest = largest_over_cta(largest, room);
  const float steps = largest > NOTHING ? INT8_STEPS / largest : 0.f, scale = largest / INT8_STEPS;

  int square = 0;
  for (int c = threadIdx.x; c < pitch; c += POOL_THREADS) {
    const int rounded = c < width ? __float2int_rn(row[c] * steps) : 0;
    *value_at(features, image, blockIdx.x, c, patches, pitch) = (int8)rounded;
    square += rounded * rounded;
  }
  square = sum_over_cta(square, (int*)room);
  if (threadIdx.x > 0) return;
  squares[place] = scaled(square, scale, scale);
  scales[place] = scale;
}

KERNEL __launch_bounds__(POOL_THREADS)
pool_half_int8(const half_bits* __restrict__ tokens, const float4* __restrict__ centres,
               const float* __restrict__ shift, int8* __restrict__ features, float* __restrict__ squares,
               float* __restrict__ scales, int height, int across, int width, int pitch, int reach) {
  pool_int8(tokens, centres, shift, features, squares, scales, height, across, width, pitch, reach);
}

KERNEL __launch_bounds__(POOL_THREADS)
pool_float_int8(const float* __restrict__ tokens, const float4* __restrict__ centres,
                const float* __restrict__ shift, int8* __restrict__ features, float* __restrict__ squares,
                float* __restrict__ scales, int height, int across, int width, int pitch, int reach) {
  pool_int8(tokens, centres, shift, features, squares, scales, height, across, width, pitch, reach);
}
