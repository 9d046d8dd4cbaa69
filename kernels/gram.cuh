// gram_min, gram_min_int8: MSM's inner step (paper, section 3.3, equation 3) for a list of pairs of images.
//
//   distances[to_a][m] = min over n of |f_a[m] - f_b[n]|^2        patches m of image a, n of image b
//   distances[to_b][n] = min over m of the same
//
// with |f_a[m] - f_b[n]|^2 = q_a[m] + q_b[n] - 2 <f_a[m], f_b[n]>.  One Gram block serves both images, and
// it is never written: each 128 x 128 tile of it lives in the registers of one CTA, which takes the
// minima of its rows and columns from there.
//
// In int8 a row is i with a scale s, and the product is s_a[m] s_b[n] <i_a[m], i_b[n]>.  That of integers is
// exact, as is the sum of squares that pool_int8.cuh makes q of; both are scaled by the same operations
// (``scaled``), so that rows which are equal are at distance zero, exactly.  Tensor cores of Ampere and Ada
// multiply integers at twice the rate of halves, and there are half as many bytes to load.
//
// Shapes
//   features   in blocks (blocks.cuh): halves, pool.cuh's, or int8, pool_int8.cuh's
//   squares    (images, P) float, the rows' squared norms;  scales  (images, P) float, with int8 alone
//   pairs      (count) of {a, b, to_a, to_b}; a row of distances that is not wanted is -1
//   distances  (rows, P) bits of float, holding infinity at the start.  Floats that are not negative are
//              ordered as their bits are, and a minimum does not depend on the order in which it is taken:
//              the result is the same, bit for bit, however the work is cut and scheduled.
// Geometry
//   grid       count * tiles * tiles with tiles = ceil(P / 128), block 256 = 8 warps in 2 x 4, each warp
//              64 x 32 of the tile; shared memory STAGES * STAGE_BYTES, reused for the minima of the tile
// Cost
//   2 P^2 pitch FLOP a pair on tensor cores; read from L2, P / 128 times the features of both images.
//
// A tile's depth is walked in steps of ROW_BYTES of each row.  STAGES - 1 steps are on their way from L2 while one is
// multiplied.  Rows are stored with their 16-byte chunks permuted (see ``place_of``), so that neither the
// copies nor load_matrices meet a bank twice.
#pragma once
#include "blocks.cuh"

#if __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000 || __CUDA_ARCH__ == 1030 || __CUDA_ARCH__ == 1100
#define WIDE_STEP 1
#endif
#if defined(WIDE_STEP)
constexpr int ROW_BYTES = 128;  // 96 KB of shared memory, which these GPUs have twice on a multiprocessor
#else
constexpr int ROW_BYTES = 64;
#endif
constexpr int TILE = 128, STAGES = 3, GRAM_THREADS = 256;
constexpr int SIDE_BYTES = TILE * ROW_BYTES, STAGE_BYTES = 2 * SIDE_BYTES;
constexpr int CHUNKS = ROW_BYTES / 16, ROWS_AT_ONCE = GRAM_THREADS / CHUNKS;
constexpr int WARP_ROWS = 64, WARP_COLUMNS = 32;
#if defined(HAS_ASYNC_COPY)
constexpr int GRAM_CTAS = 2;  // on a multiprocessor at once: at most 128 registers a thread
#else
constexpr int GRAM_CTAS = 1;  // Turing has shared memory for one
#endif
constexpr int RASTER = 8;  // rows of tiles that are walked down together

// Where 16-byte chunk ``index`` of a row lies in a tile's side.  Eight rows in a column of a matrix, and
// eight chunks of a row, lie in different banks.
DEVICE int place_of(int row, int index) {
  const int turn = ROW_BYTES == 128 ? row & 7 : (row >> 1) & 3;
  return row * ROW_BYTES + (index ^ turn) * 16;
}

// One step of one side, 128 rows by 256 threads.  In the place of groups behind the image's last that one is
// read.  Whatever is found behind the last patch, its square is infinite (Rows): it is never the nearest.
template <class Value>
DEVICE void load_side(unsigned char* side, const Value* features, int image, int first, int patches, int pitch,
                      int step) {
  constexpr int SIZE = sizeof(Value);
  const int top = threadIdx.x / CHUNKS, index = threadIdx.x % CHUNKS, last = groups_of(patches) - 1;
  const int column = (step * CHUNKS + index) * (CHUNK_BYTES / SIZE);
  const Value* from = value_at(features, image, top % GROUP_ROWS, column, patches, pitch);
  UNROLL
  for (int part = 0; part < TILE / ROWS_AT_ONCE; part++) {
    const int row = top + part * ROWS_AT_ONCE, group = min((first + row) / GROUP_ROWS, last);
    copy_async_16(side + place_of(row, index), from + (size_t)group * (GROUP_BYTES / SIZE));
  }
}

// The products of one step: 64 x 32 of the tile for this warp, as 4 x 4 fragments of 16 x 8.  ``from_a`` and
// ``from_b`` are where this lane's rows begin in each side.  The two chunks of 32 bytes more differ from
// the first in bits of their own, and so do their places: no sum but an exclusive or leads there.
template <class Sum>
DEVICE void multiply_step(Sum (&sums)[4][4][4], unsigned char* stage, int from_a, int from_b) {
  UNROLL
  for (int k = 0; k < ROW_BYTES / 32; k++) {
    unsigned a[4][4], b[4][2];
    UNROLL
    for (int i = 0; i < 4; i++) load_matrices(a[i], stage + (from_a ^ k * 32) + i * 16 * ROW_BYTES);
    UNROLL
    for (int j = 0; j < 4; j += 2) {  // 16 columns of the tile at once, each a row in memory
      unsigned both[4];
      load_matrices(both, stage + SIDE_BYTES + (from_b ^ k * 32) + j * 8 * ROW_BYTES);
      b[j][0] = both[0], b[j][1] = both[1], b[j + 1][0] = both[2], b[j + 1][1] = both[3];
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
      UNROLL
      for (int j = 0; j < 4; j++) multiply_add(sums[i][j], a[i], b[j]);
    }
  }
}

DEVICE float smallest_of(float value, int lanes) {  // over lanes that differ in the bits of ``lanes``
  for (int bit = 16; bit; bit >>= 1)
    if (bit & lanes) value = fminf(value, __shfl_xor_sync(~0u, value, bit));
  return value;
}

// What there is of an image's rows besides their features; behind the last patch is nothing.
struct Rows {
  const float *squares, *scales;
  int first, patches;

  DEVICE float square(int row) const {  // infinite where there is none, and so never the nearest
    return first + row < patches ? squares[first + row] : __uint_as_float(INFINITY_BITS);
  }
  DEVICE float scale(int row) const { return first + row < patches ? scales[first + row] : 0.f; }
};

// A square is not negative, whatever rounding has made of it.
DEVICE void put_smaller(unsigned* to, float square) { atomicMin(to, __float_as_uint(fmaxf(square, 0.f))); }

// Which patches are compared: all.  Its twin is Near (near.cuh).
struct Anywhere {
  DEVICE int place(int) const { return 0; }
  DEVICE bool near(int, int) const { return true; }
  DEVICE bool meet(int, int, int, int) const { return true; }
  DEVICE int first_tile(int) const { return 0; }
};

// Minima of the warp's part of the tile, into those of the tile.  What all terms of a minimum share, the
// square of its own row or column, is added behind it.
template <class Sum, class Which>
DEVICE void take_minima(const Sum (&sums)[4][4][4], const Rows& a, const Rows& b, const Which& which, int warp_row,
                        int warp_column, int lane, unsigned* rows, unsigned* columns) {
  const int g = lane >> 2, t = lane & 3;
  float square_a[4][2], scale_a[4][2], row_min[4][2];
  int place_a[4][2];
  UNROLL
  for (int i = 0; i < 4; i++) {
    UNROLL
    for (int half = 0; half < 2; half++) {
      const int row = warp_row + i * 16 + half * 8 + g;
      square_a[i][half] = a.square(row), scale_a[i][half] = a.scale(row);
      place_a[i][half] = which.place(a.first + row);
      row_min[i][half] = __uint_as_float(INFINITY_BITS);
    }
  }
  UNROLL
  for (int j = 0; j < 4; j++) {
    UNROLL
    for (int e = 0; e < 2; e++) {
      const int column = warp_column + j * 8 + 2 * t + e;
      const float square_b = b.square(column), scale_b = b.scale(column);
      const int place_b = which.place(b.first + column);
      float column_min = __uint_as_float(INFINITY_BITS);
      UNROLL
      for (int i = 0; i < 4; i++) {
        UNROLL
        for (int half = 0; half < 2; half++) {
          if (!which.near(place_a[i][half], place_b)) continue;
          const float product = scaled(sums[i][j][half * 2 + e], scale_a[i][half], scale_b);
          row_min[i][half] = fminf(row_min[i][half], square_b - 2.f * product);
          column_min = fminf(column_min, square_a[i][half] - 2.f * product);
        }
      }
      column_min = smallest_of(column_min, 28);
      if (g == 0) put_smaller(&columns[column], column_min + square_b);
    }
  }
  UNROLL
  for (int i = 0; i < 4; i++) {
    UNROLL
    for (int half = 0; half < 2; half++) {
      const float smallest = smallest_of(row_min[i][half], 3);
      if (t == 0) put_smaller(&rows[warp_row + i * 16 + half * 8 + g], smallest + square_a[i][half]);
    }
  }
}

// The tile of the Gram that CTA ``number`` of a pair has: bands of RASTER rows of tiles, each band walked
// down its columns, so that CTAs which run at the same time share rows and columns in L2.
DEVICE void place_tile(int number, int tiles, int* tile_row, int* tile_column) {
  int band = number / (RASTER * tiles), within = number % (RASTER * tiles);
  int height = tiles - band * RASTER < RASTER ? tiles - band * RASTER : RASTER;
  *tile_row = band * RASTER + within % height;
  *tile_column = within / height;
}

template <class Sum, class Value, class Which>
DEVICE void compare_tiles(const Value* features, const float* squares, const float* scales, const int4* pairs,
                          unsigned* distances, int patches, int pitch, const Which& which) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int warp_row = (warp >> 2) * WARP_ROWS, warp_column = (warp & 3) * WARP_COLUMNS;
  const int tiles = (patches + TILE - 1) / TILE;
  const int4 pair = pairs[blockIdx.x / (tiles * tiles)];
  int tile_row, tile_column;
  place_tile(blockIdx.x % (tiles * tiles), tiles, &tile_row, &tile_column);
  const int first_a = tile_row * TILE, first_b = tile_column * TILE;
  if (!which.meet(first_a, TILE, first_b, TILE)) return;
  const size_t image_a = (size_t)pair.x * patches, image_b = (size_t)pair.y * patches;

  auto load = [&](int step) {
    unsigned char* stage = dynamic_shared + (step % STAGES) * STAGE_BYTES;
    load_side(stage, features, pair.x, first_a, patches, pitch, step);
    load_side(stage + SIDE_BYTES, features, pair.y, first_b, patches, pitch, step);
  };
  const int from_a = place_of(warp_row + (lane & 15), lane >> 4);
  const int from_b = place_of(warp_column + (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
  const int steps = pitch * (int)sizeof(Value) / ROW_BYTES;
  Sum sums[4][4][4] = {};
  UNROLL
  for (int step = 0; step < STAGES - 1; step++) {
    if (step < steps) load(step);
    copy_async_commit();  // a group per step, empty ones too, so that the waits below can count
  }
  for (int step = 0; step < steps; step++) {
    copy_async_wait<STAGES - 2>();
    __syncthreads();  // this step is there for all, and all are done with the one that is overwritten next
    if (step + STAGES - 1 < steps) load(step + STAGES - 1);
    copy_async_commit();
    multiply_step(sums, dynamic_shared + (step % STAGES) * STAGE_BYTES, from_a, from_b);
  }

  unsigned* rows = (unsigned*)dynamic_shared;
  unsigned* columns = rows + TILE;
  __syncthreads();  // nobody reads the last step any more
  rows[threadIdx.x] = INFINITY_BITS;  // 256 threads for the 128 rows and the 128 columns behind them
  __syncthreads();
  const Rows a = {squares + image_a, scales + image_a, first_a, patches};
  const Rows b = {squares + image_b, scales + image_b, first_b, patches};
  take_minima(sums, a, b, which, warp_row, warp_column, lane, rows, columns);
  __syncthreads();
  const int side = threadIdx.x / TILE, of_tile = threadIdx.x % TILE;
  const int patch = (side ? first_b : first_a) + of_tile, to = side ? pair.w : pair.z;
  if (to >= 0 && patch < patches) atomicMin(&distances[(size_t)to * patches + patch], rows[threadIdx.x]);
}

KERNEL __launch_bounds__(GRAM_THREADS, GRAM_CTAS)
gram_min(const half_bits* __restrict__ features, const float* __restrict__ squares,
         const int4* __restrict__ pairs, unsigned* __restrict__ distances, int patches, int pitch) {
  const float* scales = squares;  // there are none, and ``scaled`` does not use them
  compare_tiles<float>(features, squares, scales, pairs, distances, patches, pitch, Anywhere{});
}

KERNEL __launch_bounds__(GRAM_THREADS, GRAM_CTAS)
gram_min_int8(const int8* __restrict__ features, const float* __restrict__ squares,
              const float* __restrict__ scales, const int4* __restrict__ pairs,
              unsigned* __restrict__ distances, int patches, int pitch) {
  compare_tiles<int>(features, squares, scales, pairs, distances, patches, pitch, Anywhere{});
}
