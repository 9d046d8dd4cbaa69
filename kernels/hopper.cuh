// What only Hopper has (sm_90a): matrices multiplied by a warpgroup of 128 threads straight from shared
// memory (wgmma), copies of whole blocks to shared memory by one thread, and barriers in shared memory on
// which such copies are waited for (mbarriers).  Names as in the PTX manual.
//
// wgmma reads an operand as the blocks in which features lie (blocks.cuh; "128-byte swizzle" in the manual), so
// that a plain copy brings them.  They begin at multiples of 1024 bytes of shared memory.
#pragma once
#include "blocks.cuh"

typedef unsigned long long Groups;  // groups that follow each other in shared memory, in wgmma's own form

DEVICE Groups groups_at(unsigned address) {
  const Groups stride = GROUP_BYTES >> 4, swizzle_128 = 1;
  return ((address & 0x3ffff) >> 4) | 1ull << 16 | stride << 32 | swizzle_128 << 62;
}

DEVICE Groups behind(Groups groups, int bytes) { return groups + (bytes >> 4); }

#if defined(MUSC_CPU)
#define HAS_WARPGROUPS 1
#include "hopper_cpu.h"  // the operations below, emulated
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_WARPGROUPS 1

DEVICE unsigned shared_address(const void* pointer) { return (unsigned)__cvta_generic_to_shared(pointer); }

// ---- barriers ----------------------------------------------------------------------------------
// A barrier is in phase 0 until ``arrivals`` threads have arrived and all bytes that were announced are
// there; then in phase 1, and so on.

DEVICE void barrier_init(unsigned barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes barriers that this thread has set up known to the unit that copies.
DEVICE void barriers_ready() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

DEVICE void barrier_arrive(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and lets the phase wait for ``bytes`` that are to be copied.
DEVICE void barrier_arrive_and_expect(unsigned barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Waits until a phase of ``parity`` (0 or 1) has ended; the phase before the first has parity 1.
DEVICE void barrier_wait(unsigned barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(barrier), "r"(parity) : "memory");
}

// Copies ``bytes`` to shared memory, which ``barrier`` expects; all three are multiples of 16.
DEVICE void copy_block(unsigned to, const void* from, int bytes, unsigned barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               :: "r"(to), "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}

// Lowers a number in memory, and does not wait for what it was.
DEVICE void lower(unsigned* to, unsigned value) {
  asm volatile("red.relaxed.gpu.global.min.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

// ---- registers ---------------------------------------------------------------------------------
// The kernel's launch bounds give every warpgroup the same number; those that need few hand some back.

template <int COUNT>
DEVICE void keep_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT>
DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// Waits for all threads of a consumer's warpgroup, ``number`` 0 to 14.
DEVICE void meet(int number) {
  asm volatile("bar.warp.sync 0xffffffff;\nbar.sync %0, 128;" ::"r"(number + 1) : "memory");
}

// ---- products ----------------------------------------------------------------------------------

// Before the first product: the registers of the sums may be written by the tensor cores from here on.
DEVICE void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

DEVICE void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most NEWEST groups of products are under way.
template <int NEWEST>
DEVICE void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(NEWEST) : "memory");
}

// c += a b for a (64,16), b (16,COLUMNS) and c (64,COLUMNS): a by its rows, b by its columns, as groups.  With
// w the thread's warp within the warpgroup, and g and t as for mma.sync:
//   c[4 j + e]      row 16 w + g, column 8 j + 2 t + e, for e = 0 and 1
//   c[4 j + 2 + e]  row 16 w + g + 8
template <int COLUMNS>
DEVICE void multiply_add(float (&c)[COLUMNS / 2], Groups a, Groups b);

// The registers of c in the text of an instruction, by tens ("%" and their first digits), and as operands.
#define TEN(n) "%" #n "0,%" #n "1,%" #n "2,%" #n "3,%" #n "4,%" #n "5,%" #n "6,%" #n "7,%" #n "8,%" #n "9,"
#define FIRST_60 TEN() TEN(1) TEN(2) TEN(3) TEN(4) TEN(5)
#define C_4(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define C_16(i) C_4(i), C_4(i + 4), C_4(i + 8), C_4(i + 12)
#define C_64 C_16(0), C_16(16), C_16(32), C_16(48)

#define MULTIPLY_ADD(columns, registers, a_register, b_register, ...)                                     \
  template <>                                                                                             \
  DEVICE void multiply_add<columns>(float (&c)[columns / 2], Groups a, Groups b) { \
    asm volatile("{\n"                                                                                    \
                 ".reg .pred add;\n"                                                                      \
                 "setp.eq.b32 add, 0, 0;\n"                                                               \
                 "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32.f16.f16 {" registers "}, "          \
                 a_register ", " b_register ", add, 1, 1, 0, 0;\n"                                        \
                 "}"                                                                                      \
                 : __VA_ARGS__                                                                            \
                 : "l"(a), "l"(b));                                                                       \
  }

MULTIPLY_ADD(128, FIRST_60 "%60,%61,%62,%63", "%64", "%65", C_64)
MULTIPLY_ADD(192, FIRST_60 TEN(6) TEN(7) TEN(8) "%90,%91,%92,%93,%94,%95", "%96", "%97",
             C_64, C_16(64), C_16(80))

// What stands above writes these registers before what stands below: compilers do not know when the tensor
// cores have.
template <int COUNT>
DEVICE void settle(float (&c)[COUNT]) {
  UNROLL
  for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(c[i])::"memory");
}

#endif
