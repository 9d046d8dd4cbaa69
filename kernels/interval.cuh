// interval_mean: the interval average of MSM (paper, equation 5), exact for any number of judges.
//
//   scores[i][m] = mean of the sorted d(i, m; k), k = 0..K-1, from index start to stop
//
// with d the square roots of gram_min's squared distances to the K judges of image i.
//
// Shapes
//   distances  (images, K, P) bits of float, not negative
//   scores     (images, P) float
// Geometry
//   grid       (ceil(P / 128), images), block 128: a thread for each patch, so that the threads of a warp
//              read neighboring patches of the same judge
// Cost
//   12 passes over the distances, mostly from cache (23 where start > 0): 4 bytes, 7 comparisons a value.
//
// Nothing is sorted and nothing kept per value: the value of a rank is found from its bits, three at a
// time, by counting how many values lie below each of the seven borders that are left.  The values between
// the two ranks are added in the judges' order in double precision, and those equal to a rank's value by
// their number: the result is the same bit for bit from run to run.
#pragma once
#include "device_ops.cuh"

constexpr int INTERVAL_THREADS = 128;

struct Rank {
  unsigned value;  // bits of the value at the rank
  int below;       // how many values are smaller
  int above;       // ... and how many are not larger
};

// The value at index ``rank`` of the sorted values[k * stride], k < count.
DEVICE Rank find_rank(const unsigned* values, int count, size_t stride, int rank) {
  Rank found = {0, 0, count};  // its highest bits; those at ``shift`` and below are to be found
  for (int shift = 28;; shift = shift > 3 ? shift - 3 : 0) {  // bits 30..28, 27..25, ..., 3..1 and 0
    int smaller[8] = {};  // values below each border
    for (int k = 0; k < count; k++) {
      const unsigned value = values[k * stride];
      UNROLL
      for (int digit = 1; digit < 8; digit++)
        smaller[digit] += value < found.value + ((unsigned)digit << shift);
    }
    int chosen = 0;
    UNROLL
    for (int digit = 1; digit < 8; digit++) {
      if (smaller[digit] <= rank) chosen = digit, found.below = smaller[digit];
      else if (smaller[digit] < found.above) found.above = smaller[digit];
    }
    found.value += (unsigned)chosen << shift;
    if (shift == 0) return found;
  }
}

KERNEL __launch_bounds__(INTERVAL_THREADS)
interval_mean(const unsigned* __restrict__ distances, float* __restrict__ scores, int judges, int patches,
              int start, int stop) {
  const int patch = blockIdx.x * INTERVAL_THREADS + threadIdx.x;
  if (patch >= patches) return;
  const unsigned* values = distances + (size_t)blockIdx.y * judges * patches + patch;
  const Rank last = find_rank(values, judges, patches, stop - 1);
  const Rank first = start ? find_rank(values, judges, patches, start) : Rank{0, 0, 0};
  double sum = 0;
  for (int k = 0; k < judges; k++) {
    const unsigned value = values[(size_t)k * patches];
    if (value < last.value && (!start || value > first.value)) sum += sqrtf(__uint_as_float(value));
  }
  int of_last = stop - last.below, of_first = 0;
  if (start && first.value == last.value) of_last = stop - start;
  else if (start) of_first = first.above - start;
  sum += (double)of_last * sqrtf(__uint_as_float(last.value)) +
         (double)of_first * sqrtf(__uint_as_float(first.value));
  scores[(size_t)blockIdx.y * patches + patch] = (float)(sum / (stop - start));
}
