// The emulated device behind cuda_cpu.h: its threads, its operations, and how a grid of them is run.
#include "cuda_cpu.h"

namespace emulated {

// ---- threads -------------------------------------------------------------------------------------

void open_barrier_if_all_wait() {
  if (machine.alive && machine.at_barrier == machine.alive) machine.at_barrier = 0, machine.barriers++;
}

// What ThreadSanitizer knows a barrier by, and not the next one, which some threads reach before others have
// left this one.
char* this_barrier() { return machine.barrier + machine.barriers % 2; }

void emulated_thread() {
  acquire(&machine.start);
  machine.kernel(machine.call);
  {
    Unwatched here;
    Fiber* fiber = machine.now;
    fiber->state = State::DONE;
    machine.alive--;
    release(this_barrier()), release(&machine.end);
    if (machine.warps[fiber->warp].arrived) fail("a lane returned while its warp waits for it");
    if (!fiber->copies.empty()) fail("a thread returned while its copies are in flight");
    open_barrier_if_all_wait();
  }
  to_main();
  abort();
}

void barrier() {
  Unwatched here;
  Fiber* fiber = machine.now;
  char* sync = this_barrier();
  release(sync);
  if (++machine.at_barrier == machine.alive) {
    open_barrier_if_all_wait();
  } else {
    fiber->state = State::AT_BARRIER, fiber->waits_for = machine.barriers;
    to_main();
  }
  acquire(sync);
}

// ---- device_ops.cuh ------------------------------------------------------------------------------

void perform(const Copy& copy) {  // the kernel's own accesses, and watched as such
  unsigned char bytes[16];
  memcpy(bytes, copy.from, copy.size);
  memcpy(copy.to, bytes, copy.size);
}

void need_aligned(const void* address) {
  if ((uintptr_t)address % 16) fail("an address is not a multiple of 16");
}

void copy_async(void* to, const void* from, int size) {
  need_aligned(to), need_aligned(from);
  Copy copy{to, from, size, 0};
  if (machine.early_copies) return perform(copy);
  Unwatched here;
  copy.group = machine.now->group;
  machine.now->copies.push_back(copy);
}

void copy_commit() {
  Unwatched here;
  machine.now->group++;
}

bool next_copy(int newest, Copy* copy) {
  Unwatched here;
  Fiber* fiber = machine.now;
  if (fiber->copies.empty() || fiber->copies.front().group >= fiber->group - newest) return false;
  *copy = fiber->copies.front();
  fiber->copies.pop_front();
  return true;
}

void copy_wait(int newest) {
  for (Copy copy; next_copy(newest, &copy);) perform(copy);
}

void load_matrices(unsigned (&r)[4], const void* row) {
  struct Lane {
    unsigned row[4], r[4], bank;
  } lane;
  need_aligned(row);
  memcpy(lane.row, row, 16);  // by the lane itself, so that its access is watched
  lane.bank = ((unsigned char*)row - machine.shared) / 16 % 8;
  meet(2, &lane, [](void** lanes) {
    for (int i = 0; i < 4; i++) {
      unsigned banks = 0;
      for (int l = 8 * i; l < 8 * i + 8; l++) banks |= 1u << ((Lane*)lanes[l])->bank;
      if (banks != 0xff) fail("rows of a matrix lie in the same banks");
    }
    for (int l = 0; l < LANES; l++)
      for (int i = 0; i < 4; i++) ((Lane*)lanes[l])->r[i] = ((Lane*)lanes[8 * i + l / 4])->row[l % 4];
  });
  memcpy(r, lane.r, 16);
}

// half_to_float by a table: not every CPU knows halves.
const std::vector<float> FLOATS = [] {
  std::vector<float> floats(1 << 16);
  for (unsigned bits = 0; bits < floats.size(); bits++) floats[bits] = half_to_float(uint16_t(bits));
  return floats;
}();

void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
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
          A[g + 8 * (i % 2)][2 * t + e + 8 * (i / 2)] = FLOATS[uint16_t(mine->a[i] >> (16 * e))];
        for (int i = 0; i < 2; i++)
          B[2 * t + e + 8 * i][g] = FLOATS[uint16_t(mine->b[i] >> (16 * e))];
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

void multiply_add(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  struct Lane {
    int* c;
    const unsigned *a, *b;
  } lane{c, a, b};
  meet(4, &lane, [](void** lanes) {
    int A[16][32], B[32][8];
    for (int l = 0; l < LANES; l++) {
      Lane* mine = (Lane*)lanes[l];
      const int g = l / 4, t = l % 4;
      for (int e = 0; e < 4; e++) {
        for (int i = 0; i < 4; i++)
          A[g + 8 * (i % 2)][4 * t + e + 16 * (i / 2)] = int8_t(mine->a[i] >> (8 * e));
        for (int i = 0; i < 2; i++) B[4 * t + e + 16 * i][g] = int8_t(mine->b[i] >> (8 * e));
      }
    }
    int C[16][8] = {};
    for (int i = 0; i < 16; i++)
      for (int k = 0; k < 32; k++)
        for (int j = 0; j < 8; j++) C[i][j] += A[i][k] * B[k][j];
    for (int l = 0; l < LANES; l++)
      for (int e = 0; e < 2; e++)
        for (int i = 0; i < 2; i++) ((Lane*)lanes[l])->c[2 * i + e] += C[l / 4 + 8 * i][2 * (l % 4) + e];
  });
}

// ---- running a grid ------------------------------------------------------------------------------

void to_fiber(Fiber* fiber) {
  machine.now = fiber;
  switch_tsan(fiber->tsan);
  emulated_switch(&machine.main_stack_pointer, fiber->stack_pointer);
}

unsigned random_number() {
  machine.random = machine.random * 6364136223846793005ull + 1442695040888963407ull;
  return unsigned(machine.random >> 33);
}

void start_fiber(int number) {
  Fiber& fiber = machine.fibers[number];
  const dim3 size = machine.block_size;
  fiber.warp = number / LANES, fiber.lane = number % LANES, fiber.state = State::READY;
  fiber.thread = {number % size.x, number / size.x % size.y, number / (size.x * size.y)};
  fiber.copies.clear(), fiber.group = 0;
  forget_frames(fiber.stack, STACK_BYTES);
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
}

// Lets the lanes of a warp run as far as they come; whether any of them came further.
bool advance(int warp) {
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

void open_block(int threads) {
  std::vector<Fiber>& pool = machine.pools[WATCHES_THREADS ? machine.block.x % 2 : 0];
  while (pool.size() < (size_t)threads) {
    pool.emplace_back();
    pool.back().stack = (char*)malloc(STACK_BYTES), pool.back().tsan = make_tsan_fiber();
  }
  machine.fibers = pool.data();
  machine.barrier = (char*)malloc(2);
  if (posix_memalign((void**)&machine.shared, 128, machine.shared_bytes)) abort();
  memset(machine.shared, 0xff, machine.shared_bytes);  // NaN as a float and as two halves
  for (int i = 0; i < threads; i++) start_fiber(i);
}

void close_block() { free(machine.shared), free(machine.barrier); }

bool run_block(int threads) {
  const int warps = threads / LANES;
  machine.warps.assign(warps, Warp{});
  machine.alive = threads, machine.at_barrier = 0, machine.barriers = 0, machine.error = nullptr;
  open_block(threads);
  std::vector<int> order(warps);
  for (int i = 0; i < warps; i++) order[i] = i;
  while (machine.alive && !machine.error) {
    for (int i = warps - 1; machine.random && i > 0; i--)
      std::swap(order[i], order[random_number() % (i + 1)]);
    bool advanced = false;
    for (int warp : order) advanced |= advance(warp);
    if (!advanced && !machine.error) complain("threads wait for others that never come");
  }
  close_block();
  return !machine.error;
}

int run_grid(void (*kernel)(void*), void* call, const unsigned* grid, const unsigned* block,
             unsigned shared_bytes, uint64_t seed) {
  Unwatched here;
  machine.kernel = kernel, machine.call = call;
  machine.random = seed >> 1, machine.early_copies = seed & 1;
  machine.grid = {grid[0], grid[1], grid[2]}, machine.block_size = {block[0], block[1], block[2]};
  machine.shared_bytes = shared_bytes;
  machine.main_tsan = this_tsan_fiber();
  release(&machine.start);
  const unsigned threads = block[0] * block[1] * block[2];
  if (threads % LANES || threads > 1024) {
    fprintf(stderr, "emulated kernel: a block of %u threads\n", threads);
    return 1;
  }
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0]; x++) {
        machine.block = {x, y, z};
        if (!run_block(threads)) return 1;
      }
  acquire(&machine.end);
  return 0;
}

}  // namespace emulated
