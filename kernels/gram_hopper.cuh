// gram_min_*: what gram_min does (gram.cuh), by the tensor cores of Hopper as only sm_90a can use them.
//
//   distances[to_a][m] = min over n of |f_a[m] - f_b[n]|^2        patches m of image a, n of image b
//   distances[to_b][n] = min over m of the same
//
// Shapes as in gram.cuh, features in halves; ``count`` is the number of pairs.
// Geometry
//   grid       any number of CTAs, best as many as there are multiprocessors: each takes every grid-th tile
//   block      384 = 3 warpgroups; shared memory RING * (STAGE_BYTES + 16)
// Cost
//   2 P^2 pitch FLOP a pair on tensor cores; read from L2, ceil(P / ROWS) + ceil(P / COLUMNS) times the
//   features of an image.
//
// The first warpgroup brings the steps of all tiles of its CTA into a ring, one after the other, without a
// pause between tiles; it is one thread that asks for whole blocks.  The other two multiply, each its half of
// the tile's rows, and take the minima from their registers while the ring fills with the next tile.
#pragma once
#include "blocks.cuh"
#include "gram.cuh"
#include "hopper.cuh"

#if defined(HAS_WARPGROUPS)

constexpr int HOPPER_THREADS = 384, CONSUMERS = 2;
constexpr int WGMMA_ROWS = 64, WGMMA_DEPTH_BYTES = 32;
constexpr int STEP_HALVES = STEP_BYTES / 2, GROUP_HALVES = GROUP_BYTES / 2;
constexpr int PRODUCER_REGISTERS = 24, CONSUMER_REGISTERS = 240;  // of 168 that each thread begins with

constexpr int BLOCKS = 2;  // of 64 rows each, that a warpgroup multiplies
constexpr int OWN_ROWS = BLOCKS * WGMMA_ROWS, ROWS = CONSUMERS * OWN_ROWS, RING = 4;

// A tile of ROWS x COLUMNS: a stage of the ring holds a step of its rows and of its columns.
template <int COLUMNS_>
struct Tile {
  static constexpr int COLUMNS = COLUMNS_, ROWS_BYTES = ROWS * STEP_BYTES;
  static constexpr int STAGE_BYTES = ROWS_BYTES + COLUMNS * STEP_BYTES;
};

// Where a ring is: the stage in turn, and the parity of the phase that it is in.
struct Turn {
  int stage = 0, parity = 0;
  DEVICE void next() {
    if (++stage == RING) stage = 0, parity ^= 1;
  }
};

// The ring's stages, and for each a barrier on which consumers wait for its blocks, and one on which the
// producer waits until both consumers are done with them.
template <class T>
struct Ring {
  unsigned start;
  DEVICE unsigned stage(int index) const { return start + index * T::STAGE_BYTES; }
  DEVICE unsigned full(int index) const { return start + RING * T::STAGE_BYTES + index * 16; }
  DEVICE unsigned empty(int index) const { return full(index) + 8; }
};

// A tile: its pair of images, and its first patches in both.
struct Place {
  int4 pair;
  int first_a, first_b;
};

template <class T, class Which>
DEVICE Place tile_at(int number, const int4* pairs, int patches, const Which& which) {
  const int down = (patches + ROWS - 1) / ROWS, across = (patches + T::COLUMNS - 1) / T::COLUMNS;
  const int pair = number / (down * across), within = (number + which.first_tile(pair)) % (down * across);
  return {pairs[pair], within % down * ROWS, within / down * T::COLUMNS};
}

template <class T>
DEVICE int tiles_of(int patches, int count) {
  return (patches + ROWS - 1) / ROWS * ((patches + T::COLUMNS - 1) / T::COLUMNS) * count;
}

// One thread: brings the steps of every tile.  Of a tile that reaches beyond the image only the image's groups
// are brought; what else is in the stage is multiplied too, but its squares are infinite.
template <class T, class Which>
DEVICE void bring_tiles(Ring<T> ring, const half_bits* features, const int4* pairs, int patches, int pitch,
                        int count, const Which& which) {
  const int groups = groups_of(patches);
  Turn turn;
  for (int tile = blockIdx.x; tile < tiles_of<T>(patches, count); tile += gridDim.x) {
    const Place place = tile_at<T>(tile, pairs, patches, which);
    if (!which.meet(place.first_a, ROWS, place.first_b, T::COLUMNS)) continue;
    const half_bits* from_a = value_at(features, place.pair.x, place.first_a, 0, patches, pitch);
    const half_bits* from_b = value_at(features, place.pair.y, place.first_b, 0, patches, pitch);
    const int bytes_a = min(ROWS, groups * GROUP_ROWS - place.first_a) * STEP_BYTES;
    const int bytes_b = min(T::COLUMNS, groups * GROUP_ROWS - place.first_b) * STEP_BYTES;
    NO_UNROLL
    for (int step = 0; step < pitch / STEP_HALVES; step++, turn.next()) {
      barrier_wait(ring.empty(turn.stage), turn.parity ^ 1);
      const unsigned to = ring.stage(turn.stage), full = ring.full(turn.stage);
      barrier_arrive_and_expect(full, bytes_a + bytes_b);
      copy_block(to, from_a, bytes_a, full);
      copy_block(to + T::ROWS_BYTES, from_b, bytes_b, full);
      from_a += groups * GROUP_HALVES, from_b += groups * GROUP_HALVES;  // to the next step
    }
  }
}

// The products of one step: this warpgroup's rows by all columns of the tile.
template <class T>
DEVICE void multiply_stage(float (&sums)[BLOCKS][T::COLUMNS / 2], unsigned stage, int consumer) {
  const Groups rows = groups_at(stage + consumer * OWN_ROWS * STEP_BYTES);
  const Groups columns = groups_at(stage + T::ROWS_BYTES);
  products_begin();
  UNROLL
  for (int k = 0; k < STEP_BYTES; k += WGMMA_DEPTH_BYTES) {
    UNROLL
    for (int i = 0; i < BLOCKS; i++)
      multiply_add<T::COLUMNS>(sums[i], behind(rows, i * WGMMA_ROWS * STEP_BYTES + k), behind(columns, k));
  }
  products_commit();
}

// The squares that a thread needs of a tile, read before its products.
template <class T>
struct Squares {
  float row[BLOCKS * 2];         // of its rows
  float column[T::COLUMNS / 32];  // of one column in 32, which is not one of its own: see column_of
};

// Of 32 columns, the one whose square a lane holds and whose minimum it puts down.  The lane's own sums are
// those of column_of(n, t) with its own t, for n from 0 to 7.
DEVICE int column_of(int g, int t) { return g / 2 * 8 + t * 2 + g % 2; }

// Each lane gives a value for each n, and receives the smallest that the lanes of its t have for n = g.
DEVICE float smallest_of_eight(float (&value)[8], int lane) {
  UNROLL
  for (int bit = 16, half = 4; half; bit >>= 1, half >>= 1) {
    const bool upper = lane & bit;
    UNROLL
    for (int i = 0; i < half; i++) {
      const float keep = upper ? value[i + half] : value[i], send = upper ? value[i] : value[i + half];
      value[i] = fminf(keep, __shfl_xor_sync(~0u, send, bit));
    }
  }
  return value[0];
}

// A warpgroup's part of a tile: its sums, and where their minima go.
template <class T, class Which>
struct Part {
  Which which;
  Place place;
  int patches, first_row, lane, g, t;  // the thread's first row, and its place in the warp
  float sums[BLOCKS][T::COLUMNS / 2] = {};
  Squares<T> squares;

  DEVICE Part(const Which& which, const Place& place, int patches, int consumer, const float* of_rows)
      : which(which), place(place), patches(patches) {
    lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    first_row = place.first_a + consumer * OWN_ROWS + (threadIdx.x >> 5 & 3) * 16 + g;
    const Rows a = {of_rows + (size_t)place.pair.x * patches, nullptr, 0, patches};
    const Rows b = {of_rows + (size_t)place.pair.y * patches, nullptr, place.first_b, patches};
    UNROLL
    for (int i = 0; i < BLOCKS * 2; i++) squares.row[i] = a.square(row(i));
    UNROLL
    for (int j = 0; j < T::COLUMNS; j += 32) squares.column[j / 32] = b.square(j + column_of(g, t));
  }

  DEVICE int row(int i) const { return first_row + i / 2 * WGMMA_ROWS + i % 2 * 8; }

  // The minima of the rows, and of the columns over these rows, each with its own square behind it.
  DEVICE void put_minima(unsigned* distances) const {
    const float far = __uint_as_float(INFINITY_BITS);
    float row_min[BLOCKS * 2];
    int own[BLOCKS * 2];
    UNROLL
    for (int i = 0; i < BLOCKS * 2; i++) row_min[i] = far, own[i] = which.place(row(i));
    UNROLL
    for (int j = 0; j < T::COLUMNS; j += 32) {
      float column_min[8];
      UNROLL
      for (int n = 0; n < 8; n++) {
        const float square = __shfl_sync(~0u, squares.column[j / 32], n * 4 + t);
        const int other = which.place(place.first_b + j + column_of(n, t));
        UNROLL
        for (int i = 0; i < BLOCKS * 2; i++) {
          const float product = sums[i / 2][(j / 8 + n / 2) * 4 + i % 2 * 2 + n % 2];
          const bool near = which.near(own[i], other);
          row_min[i] = fminf(row_min[i], near ? fmaf(-2.f, product, square) : far);
          const float apart = near ? fmaf(-2.f, product, squares.row[i]) : far;
          column_min[n] = i ? fminf(column_min[n], apart) : apart;
        }
      }
      // Of rows behind the last patch nothing is known: their terms may be no numbers, which a minimum passes
      // over; but here may be no other terms.
      const float smallest = fminf(smallest_of_eight(column_min, lane), far);
      const int column = place.first_b + j + column_of(g, t);
      put(distances, place.pair.w, column, smallest + squares.column[j / 32]);
    }
    UNROLL
    for (int i = 0; i < BLOCKS * 2; i++) {
      const float smallest = smallest_of(row_min[i], 3);
      if (t == 0) put(distances, place.pair.z, row(i), smallest + squares.row[i]);
    }
  }

  DEVICE void put(unsigned* distances, int to, int patch, float square) const {
    if (to < 0 || patch >= patches) return;
    lower(&distances[(size_t)to * patches + patch], __float_as_uint(fmaxf(square, 0.f)));
  }
};

// A warpgroup: multiplies its half of every tile, and takes the minima.
template <class T, class Which>
DEVICE void consume_tiles(Ring<T> ring, int consumer, const float* squares, const int4* pairs,
                          unsigned* distances, int patches, int steps, int count, const Which& which) {
  const bool first_thread = (threadIdx.x & 127) == 0, first_warp = (threadIdx.x & 127) < 32;
  Turn turn;
  for (int tile = blockIdx.x; tile < tiles_of<T>(patches, count); tile += gridDim.x) {
    const Place place = tile_at<T>(tile, pairs, patches, which);
    if (!which.meet(place.first_a, ROWS, place.first_b, T::COLUMNS)) continue;  // none is brought either
    if (place.first_a + consumer * OWN_ROWS >= patches) {  // no row of the image is in this half
      NO_UNROLL
      for (int step = 0; step < steps; step++, turn.next()) {
        if (!first_warp) continue;
        barrier_wait(ring.full(turn.stage), turn.parity);
        if (first_thread) barrier_arrive(ring.empty(turn.stage));
      }
      // No products keep the warps together here: one that came late would wait for a phase that is over, and
      // take the phase after the next for it, whose parity is the same.
      meet(consumer);
      continue;
    }
    Part<T, Which> part(which, place, patches, consumer, squares);
    int before = 0;
    NO_UNROLL
    for (int step = 0; step < steps; step++, turn.next()) {
      barrier_wait(ring.full(turn.stage), turn.parity);
      multiply_stage<T>(part.sums, ring.stage(turn.stage), consumer);
      if (step > 0) {
        products_wait<1>();  // those of the step before are done: its stage may be filled again
        if (first_thread) barrier_arrive(ring.empty(before));
      }
      before = turn.stage;
    }
    products_wait<0>();
    if (first_thread) barrier_arrive(ring.empty(before));
    UNROLL
    for (int i = 0; i < BLOCKS; i++) settle(part.sums[i]);
    part.put_minima(distances);
  }
}

template <class T, class Which>
DEVICE void gram_min_by(const half_bits* features, const float* squares, const int4* pairs, unsigned* distances,
                        int patches, int pitch, int count, const Which& which) {
  const Ring<T> ring{shared_address(dynamic_shared)};
  // From a shuffle the compiler knows that it is the same for a warp, and computes addresses once for a warp.
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0), steps = pitch / STEP_HALVES;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < RING; stage++) {
      barrier_init(ring.full(stage), 1);
      barrier_init(ring.empty(stage), CONSUMERS);
    }
    barriers_ready();
  }
  __syncthreads();
  if (warpgroup == 0) {
    keep_registers<PRODUCER_REGISTERS>();
    if (threadIdx.x == 0) bring_tiles<T>(ring, features, pairs, patches, pitch, count, which);
  } else {
    take_registers<CONSUMER_REGISTERS>();
    consume_tiles<T>(ring, warpgroup - 1, squares, pairs, distances, patches, steps, count, which);
  }
}

#define GRAM_MIN_HOPPER(name, columns)                                                            \
  KERNEL __launch_bounds__(HOPPER_THREADS, 1)                                                     \
  name(const half_bits* __restrict__ features, const float* __restrict__ squares,                 \
       const int4* __restrict__ pairs, unsigned* __restrict__ distances, int patches, int pitch,  \
       int count) {                                                                               \
    const Anywhere which;                                                                         \
    gram_min_by<Tile<columns>>(features, squares, pairs, distances, patches, pitch, count, which); \
  }

GRAM_MIN_HOPPER(gram_min_128, 128)
GRAM_MIN_HOPPER(gram_min_192, 192)

#endif
