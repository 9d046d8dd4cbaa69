// interval_mean: the interval average of MSM (paper, equation 5), exact for any number of judges.
//
//   scores[i][m] = mean of the sorted d(i, m; k), k = 0..K-1, from index start to stop
//
// with d the square roots of gram_min's squared distances to the K judges of image i.
//
// burn_out_mean: the same with an interval that may begin later (runtime/scoring/burn_out.py).
//
//   start = the k from first to stop with the largest d_(k+1) - d_k, counted from 1, if that is more than
//           GAP of the median; else 0.  As many are averaged, and later[i][m] says whether start is not 0.
//
// Shapes
//   distances  (images, K, P) bits of float, not negative; for burn_out_mean the K - found largest do not
//              count, and are infinite where an image has fewer judges than others
//   scores     (images, P) float
//   later      (images, P) float, 1 or 0
// Geometry
//   grid       (ceil(P / 128), images), block 128: a thread for each patch, so that the threads of a warp
//              read neighboring patches of the same judge
// Cost
//   12 passes over the distances, mostly from cache (23 where start > 0): 4 bytes, 7 comparisons a value.
//   burn_out_mean: 45 (57 for an even number), and at most 13 more for the gaps.
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

DEVICE double root(unsigned value) { return sqrtf(__uint_as_float(value)); }

// Mean of the roots of the sorted values[k * stride], k < count, from index start to stop.
DEVICE float mean_of_roots(const unsigned* values, int count, size_t stride, int start, int stop) {
  const Rank last = find_rank(values, count, stride, stop - 1);
  const Rank first = start ? find_rank(values, count, stride, start) : Rank{0, 0, 0};
  double sum = 0;
  for (int k = 0; k < count; k++) {
    const unsigned value = values[k * stride];
    if (value < last.value && (!start || value > first.value)) sum += root(value);
  }
  int of_last = stop - last.below, of_first = 0;
  if (start && first.value == last.value) of_last = stop - start;
  else if (start) of_first = first.above - start;
  sum += of_last * root(last.value) + of_first * root(first.value);
  return (float)(sum / (stop - start));
}

// What a thread works on: a patch, its distances and where its results go.
DEVICE int own_patch() { return blockIdx.x * INTERVAL_THREADS + threadIdx.x; }
DEVICE const unsigned* own_values(const unsigned* distances, int judges, int patches, int patch) {
  return distances + (size_t)blockIdx.y * judges * patches + patch;
}
DEVICE size_t own_result(int patch, int patches) { return (size_t)blockIdx.y * patches + patch; }

KERNEL __launch_bounds__(INTERVAL_THREADS)
interval_mean(const unsigned* __restrict__ distances, float* __restrict__ scores, int judges, int patches,
              int start, int stop) {
  const int patch = own_patch();
  if (patch >= patches) return;
  const unsigned* values = own_values(distances, judges, patches, patch);
  scores[own_result(patch, patches)] = mean_of_roots(values, judges, patches, start, stop);
}

constexpr double GAP = 0.1;  // as in runtime/scoring/burn_out.py

// Index of the first value to average: behind the largest gap, of more than ``least``, that has from
// ``first`` to ``stop`` values before it; 0 if there is none.
DEVICE int behind_gap(const unsigned* values, int count, size_t stride, int first, int stop, double least) {
  unsigned from = find_rank(values, count, stride, first - 1).value;
  double largest = least;
  for (int start = 0;;) {
    // No gap of more than ``least`` is among the values that lie up to ``least`` above ``from``: the next
    // one that can be is behind the last of them.  So each pass goes on by more than ``least``, and up to
    // the median there are no more than 1 / GAP of them.
    unsigned last = 0, next = INFINITY_BITS;
    int before = 0;
    for (int k = 0; k < count; k++) {
      const unsigned value = values[k * stride];
      if (root(value) - root(from) <= least) before++, last = value > last ? value : last;
      else if (value < next) next = value;
    }
    if (before > stop || next == INFINITY_BITS) return start;
    const double gap = root(next) - root(last);
    if (gap > largest) largest = gap, start = before;
    from = next;
  }
}

// Index of the first value to average, where ``found`` count and a gap is looked for behind ``first`` to ``last``.
DEVICE int later_start(const unsigned* values, int count, size_t stride, int found, int first, int last) {
  const unsigned lower = find_rank(values, count, stride, (found - 1) / 2).value;
  const unsigned upper = found % 2 ? lower : find_rank(values, count, stride, found / 2).value;
  const double median = (root(lower) + root(upper)) / 2;
  return behind_gap(values, count, stride, first, last, GAP * median);
}

KERNEL __launch_bounds__(INTERVAL_THREADS)
burn_out_mean(const unsigned* __restrict__ distances, float* __restrict__ scores, float* __restrict__ later,
              int judges, int patches, int found, int first, int stop) {
  const int patch = own_patch();
  if (patch >= patches) return;
  const unsigned* values = own_values(distances, judges, patches, patch);
  const int start = later_start(values, judges, patches, found, first, stop);
  const size_t to = own_result(patch, patches);
  scores[to] = mean_of_roots(values, judges, patches, start, start + stop);
  later[to] = start ? 1.f : 0.f;
}
