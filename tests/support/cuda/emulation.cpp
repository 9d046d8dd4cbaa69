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
    if (!fiber->products.empty()) fail("a thread returned while its products are under way");
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

// ---- hopper.cuh ----------------------------------------------------------------------------------

Phase& phase_of(unsigned barrier) {
  const auto found = machine.phases.find(barrier);
  if (found == machine.phases.end()) fail("a barrier is used before it was set up");
  return found->second;
}

void end_phase_if_all_is_there(Phase& phase) {
  if (phase.missing < 0) fail("more threads arrive at a barrier than it expects");
  if (phase.missing == 0 && phase.bytes == 0) phase.number++, phase.missing = phase.arrivals;
}

void phase_init(unsigned barrier, int arrivals) {
  if (barrier % 8 || barrier + 8 > machine.shared_bytes) fail("no place for a barrier");
  machine.phases[barrier] = {arrivals, arrivals, 0, 0};
}

void phase_arrive(unsigned barrier, int bytes) {
  Phase& phase = phase_of(barrier);
  phase.bytes += bytes, phase.missing--;
  end_phase_if_all_is_there(phase);
  if (bytes || machine.early_products) return;
  machine.now->state = State::ASIDE;  // who waits for a stage goes on before the thread that gave it free
  to_main();
}

bool phase_is_over(unsigned barrier, int parity) { return int(phase_of(barrier).number & 1) != parity; }

void phase_wait(unsigned barrier, int parity) {
  Fiber* fiber = machine.now;
  if (phase_is_over(barrier, parity)) return;
  fiber->state = State::AT_PHASE, fiber->phase_barrier = barrier, fiber->phase_parity = parity;
  to_main();
}

void perform(const BlockCopy& copy) {
  memcpy(machine.shared + copy.to, copy.from, copy.bytes);
  Phase& phase = machine.phases.at(copy.barrier);
  phase.bytes -= copy.bytes;
  if (phase.missing == 0 && phase.bytes == 0) phase.number++, phase.missing = phase.arrivals;
}

void copy_block(unsigned to, const void* from, int bytes, unsigned barrier) {
  need_aligned(from);
  if (to % 16 || bytes % 16 || bytes <= 0) fail("a block is no multiple of 16 bytes, or begins at none");
  if (to + bytes > machine.shared_bytes) fail("a block does not fit into shared memory");
  if (phase_of(barrier).bytes < bytes) fail("a barrier does not expect a block that is copied");
  machine.block_copies.push_back({to, from, bytes, barrier});
  if (machine.early_copies) perform(machine.block_copies.back()), machine.block_copies.pop_back();
}

// Element k of a row of groups that begin at ``start``, where 128-byte swizzle puts it.
float element(unsigned start, int row, int k) {
  unsigned address = start + row / 8 * 1024 + row % 8 * 128 + k * 2;
  address ^= (address >> 7 & 7) << 4;
  if (address + 2 > machine.shared_bytes) fail("a product reads beyond shared memory");
  uint16_t bits;
  memcpy(&bits, machine.shared + address, 2);
  return FLOATS[bits];
}

unsigned start_of(uint64_t groups) {
  const unsigned start = (groups & 0x3fff) << 4;
  if (groups >> 62 != 1 || (groups >> 32 & 0x3fff) != 64) fail("groups are not 1024 bytes apart and swizzled");
  if (start & 0x380) fail("groups do not begin at a multiple of 1024 bytes");
  return start;
}

void perform(const Product& product) {
  const Fiber* fiber = machine.now;
  const unsigned a = start_of(product.a), b = start_of(product.b);
  const int row = fiber->warp % 4 * 16 + fiber->lane / 4, t = fiber->lane % 4;
  float A[2][16];
  for (int half = 0; half < 2; half++)
    for (int k = 0; k < 16; k++) A[half][k] = element(a, row + 8 * half, k);
  for (int column = 0; column < product.columns; column++) {
    if (column % 8 / 2 != t) continue;
    float* c = product.c + column / 8 * 4 + column % 2;
    for (int k = 0; k < 16; k++) {
      const float B = element(b, column, k);
      for (int half = 0; half < 2; half++) c[2 * half] += A[half][k] * B;
    }
  }
}

void multiply_groups(float* c, int columns, uint64_t a, uint64_t b) {
  const Product product{c, columns, a, b, machine.now->product_group};
  if (machine.early_products) perform(product);
  else machine.now->products.push_back(product);
}

void products_commit() { machine.now->product_group++; }

// The products of a warpgroup are of all its threads: none is done before all have asked for it.
void products_wait(int newest) {
  Fiber* fiber = machine.now;
  while (!fiber->products.empty() && fiber->products.front().group < fiber->product_group - newest) {
    perform(fiber->products.front());
    fiber->products.pop_front();
  }
  meet();
}

void meet() {
  Fiber* fiber = machine.now;
  Warpgroup& warpgroup = machine.warpgroups[fiber->warp / 4];
  if (++warpgroup.arrived == 4 * LANES) {
    warpgroup.arrived = 0, warpgroup.meetings++;
  } else {
    fiber->state = State::IN_WARPGROUP, fiber->waits_for = warpgroup.meetings;
    to_main();
  }
}

void settle() {
  if (!machine.now->products.empty()) fail("sums are read while products are under way");
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
  fiber.products.clear(), fiber.product_group = 0;
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
  for (int lane = 0; lane < LANES; lane++) {
    State& state = machine.fibers[warp * LANES + lane].state;
    if (state == State::ASIDE) state = State::READY;
  }
  for (bool again = true; again && !machine.error;) {
    again = false;
    for (int lane = 0; lane < LANES && !machine.error; lane++) {
      Fiber& fiber = machine.fibers[warp * LANES + lane];
      if (fiber.state == State::IN_WARP && machine.warps[warp].meetings != fiber.waits_for)
        fiber.state = State::READY;
      if (fiber.state == State::AT_BARRIER && machine.barriers != fiber.waits_for) fiber.state = State::READY;
      if (fiber.state == State::AT_PHASE && phase_is_over(fiber.phase_barrier, fiber.phase_parity))
        fiber.state = State::READY;
      if (fiber.state == State::IN_WARPGROUP && machine.warpgroups[warp / 4].meetings != fiber.waits_for)
        fiber.state = State::READY;
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
  machine.warps.assign(warps, Warp{}), machine.warpgroups.assign(warps / 4 + 1, Warpgroup{});
  machine.phases.clear(), machine.block_copies.clear();
  machine.alive = threads, machine.at_barrier = 0, machine.barriers = 0, machine.error = nullptr;
  open_block(threads);
  std::vector<int> order(warps);
  for (int i = 0; i < warps; i++) order[i] = i;
  int late = -1, rounds = 0;  // a warp that is left behind for some rounds, as long as others have work
  while (machine.alive && !machine.error) {
    if (machine.random && rounds-- == 0) late = random_number() % warps, rounds = random_number() % 64;
    for (int i = warps - 1; machine.random && i > 0; i--)
      std::swap(order[i], order[random_number() % (i + 1)]);
    bool advanced = false;
    for (int warp : order)
      if (warp != late) advanced |= advance(warp);
    if (!advanced && late >= 0) advanced = advance(late);
    if (!advanced && !machine.error && !machine.block_copies.empty()) {
      perform(machine.block_copies.front()), machine.block_copies.pop_front();
      continue;
    }
    if (!advanced && !machine.error) complain("threads wait for others that never come");
  }
  close_block();
  return !machine.error;
}

int run_grid(void (*kernel)(void*), void* call, const unsigned* grid, const unsigned* block,
             unsigned shared_bytes, uint64_t seed) {
  Unwatched here;
  machine.kernel = kernel, machine.call = call;
  machine.random = seed >> 1, machine.early_copies = seed & 1, machine.early_products = seed >> 1 & 1;
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
