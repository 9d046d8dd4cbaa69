// The kernels of a window: patches are compared only with those near the same position (runtime/scoring/nearest.py).
//
//   gram_min_near, gram_min_int8_near, gram_min_near_128
//     what gram_min, gram_min_int8 and gram_min_128 do (gram.cuh, gram_hopper.cuh), where of each image only patches count
//     whose rows and columns of the grid, of ``across`` patches a row, differ from the patch's own by at most ``reach``.
//     A tile without such a pair is left out.
//   burn_out_mean_near
//     what burn_out_mean does (interval.cuh), where a patch may have no neighbor in some images: those within its window
//     are excluded there.  Its distance to them is FAR; of each patch those below FAR count, however many they are.
//
// Shapes, geometry and cost as there; distances hold FAR_BITS at the start.  burn_out_mean_near takes a pass more.
#pragma once
#include "gram.cuh"
#include "gram_hopper.cuh"
#include "interval.cuh"

// A patch's ``place`` is its row of the grid, above its column.
struct Near {
  int across, reach;

  DEVICE int place(int patch) const { return patch / across << 16 | patch % across; }
  DEVICE bool within(int steps) const { return (unsigned)(steps + reach) <= 2u * reach; }
  DEVICE bool near(int place, int other) const {
    return within((place >> 16) - (other >> 16)) && within((place & 0xffff) - (other & 0xffff));
  }
  // Of Hopper's tiles each pair begins with another: a CTA, which takes every grid-th tile, would else find the same part
  // of each pair where a pair's tiles divide the grid, and some nothing but tiles that are left out.
  DEVICE int first_tile(int pair) const { return pair; }
  // Whether any of ``count`` patches from ``first`` may be near one of ``others`` from ``other``, by their rows.
  DEVICE bool meet(int first, int count, int other, int others) const {
    return other / across - (first + count - 1) / across <= reach &&
           first / across - (other + others - 1) / across <= reach;
  }
};

KERNEL __launch_bounds__(GRAM_THREADS, GRAM_CTAS)
gram_min_near(const half_bits* __restrict__ features, const float* __restrict__ squares,
              const int4* __restrict__ pairs, unsigned* __restrict__ distances, int patches, int pitch, int across,
              int reach) {
  compare_tiles<float>(features, squares, squares, pairs, distances, patches, pitch, Near{across, reach});
}

KERNEL __launch_bounds__(GRAM_THREADS, GRAM_CTAS)
gram_min_int8_near(const int8* __restrict__ features, const float* __restrict__ squares,
                   const float* __restrict__ scales, const int4* __restrict__ pairs,
                   unsigned* __restrict__ distances, int patches, int pitch, int across, int reach) {
  compare_tiles<int>(features, squares, scales, pairs, distances, patches, pitch, Near{across, reach});
}

#if defined(HAS_WARPGROUPS)
KERNEL __launch_bounds__(HOPPER_THREADS, 1)
gram_min_near_128(const half_bits* __restrict__ features, const float* __restrict__ squares,
                  const int4* __restrict__ pairs, unsigned* __restrict__ distances, int patches, int pitch, int count,
                  int across, int reach) {
  gram_min_by<Tile<128>>(features, squares, pairs, distances, patches, pitch, count, Near{across, reach});
}
#endif

// The square of 2, the largest distance of two unit vectors: that of a patch without a neighbor.
constexpr unsigned FAR_BITS = 0x40800000u;

KERNEL __launch_bounds__(INTERVAL_THREADS)
burn_out_mean_near(const unsigned* __restrict__ distances, float* __restrict__ scores, float* __restrict__ later,
                   int judges, int patches, int stop) {
  const int patch = own_patch();
  if (patch >= patches) return;
  const unsigned* values = own_values(distances, judges, patches, patch);
  int found = 0;
  for (int k = 0; k < judges; k++) found += values[(size_t)k * patches] < FAR_BITS;
  const int first = (found + 9) / 10, last = found - stop < stop ? found - stop : stop;
  const int start = later_start(values, judges, patches, found, first, last);  // 0 if ``last`` is before ``first``
  const size_t to = own_result(patch, patches);
  scores[to] = mean_of_roots(values, judges, patches, start, start + stop);
  later[to] = start ? 1.f : 0.f;
}
