// Runs the kernels' own source on a CPU, thread for thread: no GPU, no CUDA toolkit, g++ alone.
//
// Every CUDA thread is a fiber.  A fiber runs until it meets a barrier or an operation of its whole warp,
// and waits there until the others have come.  What that keeps of the device's behaviour:
//
//   - threadIdx, blockIdx, blockDim, gridDim; CTAs one after the other
//   - __syncthreads among the threads that have not returned; shuffles, load_matrices and multiply_add as
//     real meetings of 32 lanes
//   - shared memory holds NaN until it is written
//   - asynchronous copies, as early (odd seed) or as late (even seed) as they may happen: late ones show a
//     missing wait, early ones a slot that is overwritten while it is still read; and so the products of
//     warpgroups, by the seed's second bit (hopper_cpu.h)
//   - the warps' order of execution, drawn from the seed
//
// What it finds by itself: lanes that wait in different places, barriers that some never reach, reads of
// what was not written, copies that nobody waits for, addresses that are not aligned as an operation needs,
// rows of a matrix in the same banks.
// Built with -fsanitize=thread it finds races between the threads of a launch, with -fsanitize=address
// accesses outside of any array.  What it does not know: the rounding of tensor cores, and time.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <type_traits>
#include <utility>
#include <vector>

#include "fiber_switch.h"
#include "sanitizers.h"

#define __global__ __attribute__((noinline))
#define __device__
#define __restrict__ __restrict
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct int4 {
  int x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulated {

constexpr int LANES = 32;
constexpr size_t STACK_BYTES = 64 << 10;

enum class State : uint8_t { READY, IN_WARP, AT_BARRIER, AT_PHASE, IN_WARPGROUP, ASIDE, DONE };

struct Copy {
  void* to;
  const void* from;
  int size, group;
};

struct Product {  // of a warpgroup, as far as it is this thread's
  float* c;
  int columns;
  uint64_t a, b;
  int group;
};

struct Phase {  // of a barrier in shared memory
  int arrivals, missing;
  long bytes;
  unsigned number;
};

struct BlockCopy {
  unsigned to;
  const void* from;
  int bytes;
  unsigned barrier;
};

struct Warpgroup {
  int arrived;
  uint64_t meetings;
};

struct Fiber {
  void* stack_pointer;
  char* stack;
  dim3 thread;
  int warp, lane;
  State state;
  uint64_t waits_for;  // the meeting or barrier after the one of this number
  int group;           // of asynchronous copies
  std::deque<Copy> copies;
  int product_group;
  std::deque<Product> products;
  unsigned phase_barrier;
  int phase_parity;
  void* tsan;
};

struct Warp {
  void* arguments[LANES];
  int arrived, kind;
  uint64_t meetings;
};

struct Machine {
  dim3 block, block_size, grid;
  Fiber* now;
  void* main_stack_pointer;
  void* main_tsan;
  std::vector<Fiber> pools[2];  // taken in turn with ThreadSanitizer, so that two CTAs share no thread
  Fiber* fibers;
  std::vector<Warp> warps;
  std::vector<Warpgroup> warpgroups;
  std::map<unsigned, Phase> phases;  // of barriers, by address
  std::deque<BlockCopy> block_copies;
  int alive, at_barrier;
  uint64_t barriers;
  char start, end;  // of a launch, and
  char* barrier;    // of a CTA: their addresses stand for them with ThreadSanitizer
  unsigned char* shared;
  size_t shared_bytes;
  void (*kernel)(void*);
  void* call;
  const char* error;
  uint64_t random;
  bool early_copies, early_products;
};
inline Machine machine;

inline void to_main() {
  switch_tsan(machine.main_tsan);
  emulated_switch(&machine.now->stack_pointer, machine.main_stack_pointer);
}

inline void complain(const char* message) {
  machine.error = message;
  const dim3 block = machine.block, thread = machine.now->thread;
  fprintf(stderr, "emulated kernel: %s (block %u,%u,%u thread %u,%u)\n", message, block.x, block.y, block.z,
          thread.x, thread.y);
}

[[noreturn]] inline void fail(const char* message) {
  complain(message);
  machine.now->state = State::DONE;
  to_main();
  abort();
}

// ---- where threads meet ------------------------------------------------------------------------

// All lanes of a warp come with their arguments; the last one does the work for all.
template <class Work>
void meet(int kind, void* arguments, Work work) {
  Unwatched here;
  Fiber* fiber = machine.now;
  Warp& warp = machine.warps[fiber->warp];
  if (warp.arrived && warp.kind != kind) fail("lanes of a warp wait in different operations");
  warp.kind = kind;
  warp.arguments[fiber->lane] = arguments;
  if (++warp.arrived == LANES) {
    work(warp.arguments);
    warp.arrived = 0, warp.meetings++;
  } else {
    fiber->state = State::IN_WARP, fiber->waits_for = warp.meetings;
    to_main();
  }
}

template <class T>
T shuffle_xor(T value, int mask) {
  struct Lane {
    T value, result;
    int mask;
  } lane{value, value, mask};
  meet(1, &lane, [](void** lanes) {
    for (int i = 0; i < LANES; i++) {
      Lane* mine = (Lane*)lanes[i];
      mine->result = ((Lane*)lanes[i ^ mine->mask])->value;
    }
  });
  return lane.result;
}

template <class T>
T shuffle(T value, int from) {
  struct Lane {
    T value, result;
    int from;
  } lane{value, value, from};
  meet(5, &lane, [](void** lanes) {
    for (int i = 0; i < LANES; i++) {
      Lane* mine = (Lane*)lanes[i];
      mine->result = ((Lane*)lanes[mine->from])->value;
    }
  });
  return lane.result;
}

// ---- device_ops.cuh ----------------------------------------------------------------------------

#if defined(__aarch64__)
using HostHalf = __fp16;  // GCC knows _Float16 there in C++ from 13 on, and a Jetson's is older
#else
using HostHalf = _Float16;
#endif

inline float half_to_float(uint16_t bits) {
  HostHalf half;
  memcpy(&half, &bits, 2);
  return (float)half;
}

inline uint16_t float_to_half(float value) {
  HostHalf half = (HostHalf)value;
  uint16_t bits;
  memcpy(&bits, &half, 2);
  return bits;
}

inline unsigned char* dynamic_shared() { return machine.shared; }

void barrier();
void copy_async(void* to, const void* from, int size);
void copy_commit();
void copy_wait(int newest);
void load_matrices(unsigned (&r)[4], const void* row);
void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
void multiply_add(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]);

// ---- hopper.cuh ----------------------------------------------------------------------------------

void phase_init(unsigned barrier, int arrivals);
void phase_arrive(unsigned barrier, int bytes);
void phase_wait(unsigned barrier, int parity);
void copy_block(unsigned to, const void* from, int bytes, unsigned barrier);
void multiply_groups(float* c, int columns, uint64_t a, uint64_t b);
void products_commit();
void meet();
void products_wait(int newest);
void settle();

// ---- running a grid ------------------------------------------------------------------------------

template <class... Arguments>
struct Call {
  void (*kernel)(Arguments...);
  void** arguments;
  template <size_t... I>
  void make(std::index_sequence<I...>) {
    kernel(*(std::remove_reference_t<Arguments>*)arguments[I]...);
  }
  static void run(void* call) { ((Call*)call)->make(std::index_sequence_for<Arguments...>{}); }
};

// Runs ``kernel(call)`` for each thread of a grid.  0, or 1 after a message to stderr.
int run_grid(void (*kernel)(void*), void* call, const unsigned* grid, const unsigned* block,
             unsigned shared_bytes, uint64_t seed);

// Runs a kernel over a grid; arguments as cuLaunchKernel takes them.
template <class... Arguments>
int launch(void (*kernel)(Arguments...), const unsigned* grid, const unsigned* block, unsigned shared_bytes,
           uint64_t seed, void** arguments) {
  Call<Arguments...> call{kernel, arguments};
  return run_grid(&Call<Arguments...>::run, &call, grid, block, shared_bytes, seed);
}

}  // namespace emulated

// ---- CUDA's own names --------------------------------------------------------------------------

#define threadIdx (emulated::machine.now->thread)
#define blockIdx (emulated::machine.block)
#define gridDim (emulated::machine.grid)

inline void __syncthreads() { emulated::barrier(); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulated::shuffle_xor(value, mask);
}

template <class T>
T __shfl_sync(unsigned, T value, int from) {
  return emulated::shuffle(value, from);
}

inline unsigned atomicMin(unsigned* at, unsigned value) {
  unsigned old = __atomic_load_n(at, __ATOMIC_RELAXED);  // atomics do not race with each other
  while (value < old &&
         !__atomic_compare_exchange_n(at, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, 4);
  return bits;
}

inline float __uint_as_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

inline float __fmul_rn(float a, float b) {
  volatile float product = a * b;  // of its own, as the device's
  return product;
}

inline int __float2int_rn(float value) {  // to nearest, ties to even; what is beyond an int ends at its ends
  if (std::isnan(value)) return 0;
  if (fabsf(value) >= 2147483648.f) return value < 0 ? INT32_MIN : INT32_MAX;
  return (int)nearbyintf(value);
}

using std::max;
using std::min;
