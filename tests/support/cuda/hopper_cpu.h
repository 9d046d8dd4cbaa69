// The operations of hopper.cuh on the emulated device.  Addresses in shared memory count from its beginning.
//
//   - a barrier's phases, as a thread sees them: it is told the parity of a phase, not its number, and who waits
//     for one that is further ahead is let through too early, as on the device
//   - copies of blocks, as early (odd seed) or as late as they may happen: when nothing else can
//   - products, when they are asked for (by the seed's second bit), or when they are waited for, which a warpgroup
//     does together
#pragma once
#include "cuda_cpu.h"

inline unsigned shared_address(const void* pointer) {
  return unsigned((const unsigned char*)pointer - emulated::machine.shared);
}
inline void barrier_init(unsigned barrier, int arrivals) { emulated::phase_init(barrier, arrivals); }
inline void barriers_ready() {}
inline void barrier_arrive(unsigned barrier) { emulated::phase_arrive(barrier, 0); }
inline void barrier_arrive_and_expect(unsigned barrier, int bytes) { emulated::phase_arrive(barrier, bytes); }
inline void barrier_wait(unsigned barrier, int parity) { emulated::phase_wait(barrier, parity); }
inline void copy_block(unsigned to, const void* from, int bytes, unsigned barrier) {
  emulated::copy_block(to, from, bytes, barrier);
}
inline void lower(unsigned* to, unsigned value) { atomicMin(to, value); }

template <int COUNT>
void keep_registers() {}
template <int COUNT>
void take_registers() {}

inline void meet(int) { emulated::meet(); }
inline void products_begin() {}
inline void products_commit() { emulated::products_commit(); }
template <int NEWEST>
void products_wait() {
  emulated::products_wait(NEWEST);
}
template <int COLUMNS>
void multiply_add(float (&c)[COLUMNS / 2], Groups a, Groups b) {
  emulated::multiply_groups(c, COLUMNS, a, b);
}
template <int COUNT>
void settle(float (&)[COUNT]) {
  emulated::settle();
}
