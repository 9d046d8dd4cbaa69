// From patch tokens to the rows that gram_min multiplies: centre, pool, normalise, shift, round
// (paper, section 3.2, LNAMD; and the rounding that half precision needs).
//
//   centre_*     x' = (x - mean of the image) * scale     scale a power of two: the largest |x'| is about 1
//   pool_*       s[m]  = sum of x' over the r x r neighborhood of patch m, nothing beyond the grid
//                f[m]  = s[m] / |s[m]| - shift            rounded to half; -shift where |s[m]| = 0
//                q[m]  = |f[m]|^2                         of the rounded row, to agree with the product
//   column_mean  shift = mean of rows
//
// The layer normalisation of the paper comes down to the image's mean, and the mean over the window to a
// sum, since rows are normalised.  The shift, any vector that all rows share, cancels in every distance: it
// is there because the rows of a lot lie close together, and what is left of them without their common part
// keeps two to three more digits in half precision.  With q from the rounded row, equal patches are at
// distance zero.
//
// Shapes
//   tokens    (images, P, C) halves or floats, as the ViT gave them
//   centres   (images) of {mean, what a float leaves of the mean, scale, largest |x - mean|}; one that is not
//             finite tells of tokens that are not, or whose range no float holds
//   shift     (pitch) float;  pitch: C, filled with zeros to a multiple of 64
//   features  in blocks (blocks.cuh);  squares (images, P) float: of the first image that is written
// Geometry
//   centre_*     grid (images), block 1024
//   pool_*       grid (P, images), block 128, shared memory (C + 4) floats: a CTA for each patch
//   column_mean  grid (pitch / 32), block (32, 32)
// Cost
//   centre_*: one read of the tokens.  pool_*: r^2 reads, nearly all from cache, and one write of the
//   features.
#pragma once
#include "blocks.cuh"

constexpr int CENTRE_THREADS = 1024, POOL_THREADS = 128, COLUMNS = 32;

// ---- centre ----------------------------------------------------------------------------------

struct Extent {
  double sum;
  float smallest, largest;
};

DEVICE Extent join(Extent a, Extent b) {
  return {a.sum + b.sum, fminf(a.smallest, b.smallest), fmaxf(a.largest, b.largest)};
}

DEVICE Extent across_warp(Extent e) {
  UNROLL
  for (int bit = 16; bit; bit >>= 1)
    e = join(e, {__shfl_xor_sync(~0u, e.sum, bit), __shfl_xor_sync(~0u, e.smallest, bit),
                 __shfl_xor_sync(~0u, e.largest, bit)});
  return e;
}

template <class Token>
DEVICE void centre(const Token* tokens, float4* centres, int patches, int width) {
  Extent* of_warps = (Extent*)dynamic_shared;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const size_t count = (size_t)patches * width;
  tokens += blockIdx.x * count;
  const float first = to_float(tokens[0]);
  Extent mine = {0, first, first};
  for (size_t i = threadIdx.x; i < count; i += CENTRE_THREADS) {
    const float x = to_float(tokens[i]);
    mine = join(mine, {(double)x, x, x});
  }
  mine = across_warp(mine);
  if (lane == 0) of_warps[warp] = mine;
  __syncthreads();
  if (warp > 0) return;
  mine = across_warp(of_warps[lane]);
  if (lane > 0) return;
  // The mean in two floats: a constant image becomes exactly zero, and a large mean costs no precision.
  const double mean = mine.sum / (double)count;
  const float high = (float)mean, low = (float)(mean - high);
  const float most = fmaxf((float)(mine.largest - mean), (float)(mean - mine.smallest));
  int exponent = (int)((__float_as_uint(most) >> 23) & 255u) - 126;  // most = 0.5..1 * 2^exponent
  exponent = most > 0 ? min(exponent, 126) : 0;
  centres[blockIdx.x] = make_float4(high, low, __uint_as_float((unsigned)(127 - exponent) << 23), most);
}

KERNEL __launch_bounds__(CENTRE_THREADS)
centre_half(const half_bits* __restrict__ tokens, float4* __restrict__ centres, int patches, int width) {
  centre(tokens, centres, patches, width);
}

KERNEL __launch_bounds__(CENTRE_THREADS)
centre_float(const float* __restrict__ tokens, float4* __restrict__ centres, int patches, int width) {
  centre(tokens, centres, patches, width);
}

// ---- pool ------------------------------------------------------------------------------------

// Sum of a value over the CTA, in a fixed order; ``room`` holds one for each warp.
template <class Number>
DEVICE Number sum_over_cta(Number value, Number* room) {
  UNROLL
  for (int bit = 16; bit; bit >>= 1) value += __shfl_xor_sync(~0u, value, bit);
  __syncthreads();  // an earlier sum has been read by all
  if ((threadIdx.x & 31) == 0) room[threadIdx.x >> 5] = value;
  __syncthreads();
  return room[0] + room[1] + room[2] + room[3];
}

// The sums of a patch's neighborhood, into ``row``, where each thread reads its own alone; their inverse length.
template <class Token>
DEVICE float pool_window(const Token* tokens, float4 centre, float* row, float* room, int height, int across,
                         int width, int reach) {
  const int patch = blockIdx.x;
  const int top = max(patch / across - reach, 0), bottom = min(patch / across + reach, height - 1);
  const int left = max(patch % across - reach, 0), right = min(patch % across + reach, across - 1);
  float length = 0;
  for (int c = threadIdx.x; c < width; c += POOL_THREADS) {
    float sum = 0;
    for (int h = top; h <= bottom; h++)
      for (int w = left; w <= right; w++)
        sum += (to_float(tokens[(size_t)(h * across + w) * width + c]) - centre.x - centre.y) * centre.z;
    row[c] = sum;
    length += sum * sum;
  }
  length = sqrtf(sum_over_cta(length, room));
  return length == 0 ? 0.f : 1.f / length;
}

template <class Token>
DEVICE void pool(const Token* tokens, const float4* centres, const float* shift, half_bits* features,
                 float* squares, int height, int across, int width, int pitch, int reach) {
  float* room = (float*)dynamic_shared;
  float* row = room + POOL_THREADS / 32;
  const int patches = height * across, patch = blockIdx.x, image = blockIdx.y;
  tokens += (size_t)image * patches * width;
  const float inverse = pool_window(tokens, centres[image], row, room, height, across, width, reach);

  float square = 0;
  for (int c = threadIdx.x; c < pitch; c += POOL_THREADS) {
    const half_bits rounded = c < width ? to_half(row[c] * inverse - shift[c]) : (half_bits)0;
    *value_at(features, image, patch, c, patches, pitch) = rounded;
    square += to_float(rounded) * to_float(rounded);
  }
  square = sum_over_cta(square, room);
  if (threadIdx.x == 0) squares[(size_t)image * patches + patch] = square;
}

KERNEL __launch_bounds__(POOL_THREADS)
pool_half(const half_bits* __restrict__ tokens, const float4* __restrict__ centres,
          const float* __restrict__ shift, half_bits* __restrict__ features, float* __restrict__ squares,
          int height, int across, int width, int pitch, int reach) {
  pool(tokens, centres, shift, features, squares, height, across, width, pitch, reach);
}

KERNEL __launch_bounds__(POOL_THREADS)
pool_float(const float* __restrict__ tokens, const float4* __restrict__ centres,
           const float* __restrict__ shift, half_bits* __restrict__ features, float* __restrict__ squares,
           int height, int across, int width, int pitch, int reach) {
  pool(tokens, centres, shift, features, squares, height, across, width, pitch, reach);
}

// ---- shift -----------------------------------------------------------------------------------

KERNEL __launch_bounds__(COLUMNS * 32)
column_mean(const half_bits* __restrict__ features, float* __restrict__ shift, int images, int patches,
            int pitch) {
  float* sums = (float*)dynamic_shared;  // (32 parts of the rows, 32 columns)
  const int column = blockIdx.x * COLUMNS + threadIdx.x, rows = images * patches;
  float sum = 0;
  for (int row = threadIdx.y; row < rows; row += 32)
    sum += to_float(*value_at(features, row / patches, row % patches, column, patches, pitch));
  sums[threadIdx.y * COLUMNS + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0) return;
  sum = 0;
  for (int part = 0; part < 32; part++) sum += sums[part * COLUMNS + threadIdx.x];
  shift[column] = sum / (float)rows;
}
