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
//     missing wait, early ones a slot that is overwritten while it is still read
//   - the warps' order of execution, drawn from the seed
//
// What it finds by itself: lanes that wait in different places, barriers that some never reach, reads of
// what was not written.  Built with -fsanitize=thread it finds races between the threads of a CTA, with
// -fsanitize=address accesses outside of any array.  What it does not know: bank conflicts, alignment
// traps, the rounding of tensor cores, time.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

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

// ---- ThreadSanitizer: fibers are told to it, and only barriers order memory -------------------------

#if defined(__SANITIZE_THREAD__)
extern "C" {
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void* __tsan_get_current_fiber();
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
constexpr unsigned NO_ORDER = 1;  // a switch of fibers is no synchronisation
inline void* make_tsan_fiber() { return __tsan_create_fiber(0); }
inline void end_tsan_fiber(void* fiber) { __tsan_destroy_fiber(fiber); }
inline void* this_tsan_fiber() { return __tsan_get_current_fiber(); }
inline void switch_tsan(void* fiber) { __tsan_switch_to_fiber(fiber, NO_ORDER); }
inline void acquire(void* what) { __tsan_acquire(what); }
inline void release(void* what) { __tsan_release(what); }
struct Unwatched {  // the emulator's own accesses are not the kernel's
  Unwatched() { AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0); }
  ~Unwatched() { AnnotateIgnoreReadsEnd("", 0), AnnotateIgnoreWritesEnd("", 0); }
};
#else
inline void* make_tsan_fiber() { return nullptr; }
inline void end_tsan_fiber(void*) {}
inline void* this_tsan_fiber() { return nullptr; }
inline void switch_tsan(void*) {}
inline void acquire(void*) {}
inline void release(void*) {}
struct Unwatched {
  Unwatched() {}
};
#endif

namespace emulated {

constexpr int LANES = 32;
constexpr size_t STACK_BYTES = 128 << 10;

enum class State : uint8_t { READY, IN_WARP, AT_BARRIER, DONE };

struct Copy {
  void* to;
  const void* from;
  int bytes, size, group;
};

struct Fiber {
  void* stack_pointer;
  char* stack;
  dim3 thread;
  int warp, lane;
  State state;
  uint64_t waits_for;  // the meeting or barrier after the one of this number
  int group;           // of asynchronous copies
  std::vector<Copy> copies;
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
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  int alive, at_barrier;
  uint64_t barriers;
  char barrier;  // its address stands for the barrier with ThreadSanitizer
  std::vector<unsigned char> shared;
  void (*kernel)(void*);
  void* call;
  const char* error;
  uint64_t random;
  bool early_copies;
};
inline Machine machine;

// ---- switching between fibers: the registers that a call must keep, and the stack pointer ------------

extern "C" void emulated_switch(void** save_stack_pointer, void* load_stack_pointer);
#if defined(__x86_64__)
asm(R"(.text
.weak emulated_switch
.type emulated_switch,@function
emulated_switch:
 pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
 movq %rsp,(%rdi); movq %rsi,%rsp
 popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; ret
.size emulated_switch,.-emulated_switch
)");
#elif defined(__aarch64__)
asm(R"(.text
.weak emulated_switch
.type emulated_switch,%function
emulated_switch:
 sub sp,sp,#160
 stp x19,x20,[sp,#0]; stp x21,x22,[sp,#16]; stp x23,x24,[sp,#32]; stp x25,x26,[sp,#48]
 stp x27,x28,[sp,#64]; stp x29,x30,[sp,#80]
 stp d8,d9,[sp,#96]; stp d10,d11,[sp,#112]; stp d12,d13,[sp,#128]; stp d14,d15,[sp,#144]
 mov x9,sp; str x9,[x0]; mov sp,x1
 ldp x19,x20,[sp,#0]; ldp x21,x22,[sp,#16]; ldp x23,x24,[sp,#32]; ldp x25,x26,[sp,#48]
 ldp x27,x28,[sp,#64]; ldp x29,x30,[sp,#80]
 ldp d8,d9,[sp,#96]; ldp d10,d11,[sp,#112]; ldp d12,d13,[sp,#128]; ldp d14,d15,[sp,#144]
 add sp,sp,#160; ret
.size emulated_switch,.-emulated_switch
)");
#else
#error "the emulation knows x86-64 and arm64"
#endif

inline void to_main() {
  switch_tsan(machine.main_tsan);
  emulated_switch(&machine.now->stack_pointer, machine.main_stack_pointer);
}

inline void to_fiber(Fiber* fiber) {
  machine.now = fiber;
  switch_tsan(fiber->tsan);
  emulated_switch(&machine.main_stack_pointer, fiber->stack_pointer);
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

inline void open_barrier_if_all_wait() {
  if (machine.alive && machine.at_barrier == machine.alive) machine.at_barrier = 0, machine.barriers++;
}

extern "C" inline void emulated_thread() {
  machine.kernel(machine.call);
  {
    Unwatched here;
    Fiber* fiber = machine.now;
    fiber->state = State::DONE;
    machine.alive--;
    release(&machine.barrier);
    if (machine.warps[fiber->warp].arrived) fail("a lane returned while its warp waits for it");
    open_barrier_if_all_wait();
  }
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

inline void barrier() {
  Unwatched here;
  Fiber* fiber = machine.now;
  release(&machine.barrier);
  if (++machine.at_barrier == machine.alive) {
    open_barrier_if_all_wait();
  } else {
    fiber->state = State::AT_BARRIER, fiber->waits_for = machine.barriers;
    to_main();
  }
  acquire(&machine.barrier);
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

// ---- device_ops.cuh ----------------------------------------------------------------------------

inline float half_to_float(uint16_t bits) {
  _Float16 half;
  memcpy(&half, &bits, 2);
  return (float)half;
}

inline uint16_t float_to_half(float value) {
  _Float16 half = (_Float16)value;
  uint16_t bits;
  memcpy(&bits, &half, 2);
  return bits;
}

inline unsigned char* dynamic_shared() {
  return (unsigned char*)(((uintptr_t)machine.shared.data() + 127) & ~(uintptr_t)127);
}

inline void perform(const Copy& copy) {  // the kernel's own accesses, and watched as such
  unsigned char bytes[16] = {};
  memcpy(bytes, copy.from, copy.bytes);
  memcpy(copy.to, bytes, copy.size);
}

inline void copy_async(void* to, const void* from, int bytes, int size) {
  Copy copy{to, from, bytes, size, machine.now->group};
  if (machine.early_copies) perform(copy);
  else machine.now->copies.push_back(copy);
}

inline void copy_commit() { machine.now->group++; }

inline void copy_wait(int newest) {
  Fiber* fiber = machine.now;
  size_t done = 0;
  while (done < fiber->copies.size() && fiber->copies[done].group < fiber->group - newest)
    perform(fiber->copies[done++]);
  fiber->copies.erase(fiber->copies.begin(), fiber->copies.begin() + done);
}

inline void load_matrices(unsigned (&r)[4], const void* row) {
  struct Lane {
    unsigned row[4], r[4];
  } lane;
  memcpy(lane.row, row, 16);  // by the lane itself, so that its access is watched
  meet(2, &lane, [](void** lanes) {
    for (int l = 0; l < LANES; l++)
      for (int i = 0; i < 4; i++) ((Lane*)lanes[l])->r[i] = ((Lane*)lanes[8 * i + l / 4])->row[l % 4];
  });
  memcpy(r, lane.r, 16);
}

inline void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  struct Lane {
    float* c;
    const unsigned *a, *b;
  } lane{c, a, b};
  meet(3, &lane, [](void** lanes) {
    alignas(64) float A[16][16], B[16][8], C[16][8];
    for (int l = 0; l < LANES; l++) {
      Lane* mine = (Lane*)lanes[l];
      const int g = l / 4, t = l % 4;
      for (int e = 0; e < 2; e++) {
        for (int i = 0; i < 4; i++)
          A[g + 8 * (i % 2)][2 * t + e + 8 * (i / 2)] = half_to_float(uint16_t(mine->a[i] >> (16 * e)));
        for (int i = 0; i < 2; i++)
          B[2 * t + e + 8 * i][g] = half_to_float(uint16_t(mine->b[i] >> (16 * e)));
        for (int i = 0; i < 2; i++) C[g + 8 * i][2 * t + e] = mine->c[2 * i + e];
      }
    }
    for (int i = 0; i < 16; i++)
      for (int k = 0; k < 16; k++)
        for (int j = 0; j < 8; j++) C[i][j] += A[i][k] * B[k][j];
    for (int l = 0; l < LANES; l++)
      for (int e = 0; e < 2; e++)
        for (int i = 0; i < 2; i++) ((Lane*)lanes[l])->c[2 * i + e] = C[l / 4 + 8 * i][2 * (l % 4) + e];
  });
}

// ---- running a grid ------------------------------------------------------------------------------

inline unsigned random_number() {
  machine.random = machine.random * 6364136223846793005ull + 1442695040888963407ull;
  return unsigned(machine.random >> 33);
}

inline void start_fiber(int number) {
  Fiber& fiber = machine.fibers[number];
  const dim3 size = machine.block_size;
  fiber.warp = number / LANES, fiber.lane = number % LANES, fiber.state = State::READY;
  fiber.thread = {number % size.x, number / size.x % size.y, number / (size.x * size.y)};
  fiber.copies.clear(), fiber.group = 0;
  void** top = (void**)(((uintptr_t)fiber.stack + STACK_BYTES) & ~(uintptr_t)63);
#if defined(__x86_64__)
  *--top = nullptr;  // the stack is aligned as after a call
  *--top = (void*)emulated_thread;
  top -= 6;  // the registers that emulated_switch takes back
  memset(top, 0, 6 * sizeof(void*));
#else
  top -= 20;
  memset(top, 0, 20 * sizeof(void*));
  top[11] = (void*)emulated_thread;
#endif
  fiber.stack_pointer = top;
  fiber.tsan = make_tsan_fiber();
}

// Lets the lanes of a warp run as far as they come; whether any of them came further.
inline bool advance(int warp) {
  bool advanced = false;
  for (bool again = true; again && !machine.error;) {
    again = false;
    for (int lane = 0; lane < LANES && !machine.error; lane++) {
      Fiber& fiber = machine.fibers[warp * LANES + lane];
      if (fiber.state == State::IN_WARP && machine.warps[warp].meetings != fiber.waits_for)
        fiber.state = State::READY;
      if (fiber.state == State::AT_BARRIER && machine.barriers != fiber.waits_for) fiber.state = State::READY;
      if (fiber.state == State::READY) to_fiber(&fiber), again = advanced = true;
    }
  }
  return advanced;
}

inline bool run_block(int threads) {
  const int warps = threads / LANES;
  machine.warps.assign(warps, Warp{});
  machine.alive = threads, machine.at_barrier = 0, machine.barriers = 0, machine.error = nullptr;
  std::fill(machine.shared.begin(), machine.shared.end(), 0xff);  // NaN as a float and as two halves
  for (int i = 0; i < threads; i++) start_fiber(i);
  release(&machine.barrier);
  for (int i = 0; i < threads; i++) {
    switch_tsan(machine.fibers[i].tsan);
    acquire(&machine.barrier);
    switch_tsan(machine.main_tsan);
  }
  std::vector<int> order(warps);
  for (int i = 0; i < warps; i++) order[i] = i;
  while (machine.alive && !machine.error) {
    for (int i = warps - 1; machine.random && i > 0; i--)
      std::swap(order[i], order[random_number() % (i + 1)]);
    bool advanced = false;
    for (int warp : order) advanced |= advance(warp);
    if (!advanced && !machine.error) complain("threads wait for others that never come");
  }
  acquire(&machine.barrier);
  for (int i = 0; i < threads; i++) end_tsan_fiber(machine.fibers[i].tsan);
  return !machine.error;
}

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

// Runs a kernel over a grid; arguments as cuLaunchKernel takes them.  0, or 1 after a message to stderr.
template <class... Arguments>
int launch(void (*kernel)(Arguments...), const unsigned* grid, const unsigned* block, unsigned shared_bytes,
           uint64_t seed, void** arguments) {
  Unwatched here;
  Call<Arguments...> call{kernel, arguments};
  machine.kernel = &Call<Arguments...>::run, machine.call = &call;
  machine.random = seed >> 1, machine.early_copies = seed & 1;
  machine.grid = {grid[0], grid[1], grid[2]}, machine.block_size = {block[0], block[1], block[2]};
  machine.shared.resize(shared_bytes + 128);
  machine.main_tsan = this_tsan_fiber();
  const unsigned threads = block[0] * block[1] * block[2];
  if (threads % LANES || threads > 1024) {
    fprintf(stderr, "emulated kernel: a block of %u threads\n", threads);
    return 1;
  }
  while (machine.fibers.size() < threads) {
    machine.fibers.emplace_back();
    machine.fibers.back().stack = (char*)malloc(STACK_BYTES);
  }
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0]; x++) {
        machine.block = {x, y, z};
        if (!run_block(threads)) return 1;
      }
  return 0;
}

}  // namespace emulated

// ---- CUDA's own names --------------------------------------------------------------------------

#define threadIdx (emulated::machine.now->thread)
#define blockIdx (emulated::machine.block)

inline void __syncthreads() { emulated::barrier(); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulated::shuffle_xor(value, mask);
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

using std::max;
using std::min;
