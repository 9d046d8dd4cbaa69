// Every instruction that plain CUDA C++ has no word for: the device's body, and beside it the CPU's.
//
// Compiled with -DMUSC_CPU by a host compiler, the kernels run thread for thread on the CPU
// (tests/support/cuda/cuda_cpu.h).  Both bodies of an operation have the same layout of values over lanes, so
// what a test finds out about indices, barriers and waits there holds for the device.
//
// No header of CUDA is needed, so NVRTC compiles the kernels without any include path.
#pragma once

#if defined(MUSC_CPU)
#include "cuda_cpu.h"
#define DEVICE inline
#define dynamic_shared (emulated::dynamic_shared())
#define UNROLL
#define NO_UNROLL
#else
#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#if __CUDA_ARCH__ >= 800
#define HAS_ASYNC_COPY 1  // cp.async and the larger mma begin with Ampere; Turing has stand-ins below
#endif
extern __shared__ __align__(1024) unsigned char dynamic_shared[];  // as much as the launch says
#endif
#define KERNEL extern "C" __global__ void

typedef unsigned short half_bits;  // an IEEE half, as bits
typedef signed char int8;

constexpr unsigned INFINITY_BITS = 0x7f800000u;

// ---- halves ----------------------------------------------------------------------------------

DEVICE float to_float(half_bits h) {
#if defined(MUSC_CPU)
  return emulated::half_to_float(h);
#else
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
#endif
}

DEVICE float to_float(float f) { return f; }

DEVICE half_bits to_half(float f) {  // to nearest, ties to even
#if defined(MUSC_CPU)
  return emulated::float_to_half(f);
#else
  half_bits h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
#endif
}

// ---- products of rows ------------------------------------------------------------------------

// ``product`` of two rows of integers times the rows' scales, rounded after each step.  In an expression of the
// caller a compiler would contract it with what follows, here in one way and there in another.
DEVICE float scaled(int product, float scale, float other) {
  return __fmul_rn(__fmul_rn(scale, other), (float)product);
}

DEVICE float scaled(float product, float, float) { return product; }  // rows of halves have no scales

// ---- asynchronous copies to shared memory -----------------------------------------------------
// A copy is in flight until its group has been waited for, and visible to the other threads of the CTA
// after the barrier behind that.  Turing copies at once, which is as early as the others may.

// Copies 16 bytes to shared memory; ``from`` must be readable
// and both 16-byte aligned.
DEVICE void copy_async_16(void* to, const void* from) {
#if defined(MUSC_CPU)
  emulated::copy_async(to, from, 16);
#elif defined(HAS_ASYNC_COPY)
  unsigned address = (unsigned)__cvta_generic_to_shared(to);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
#else
  *(uint4*)to = *(const uint4*)from;
#endif
}

DEVICE void copy_async_commit() {
#if defined(MUSC_CPU)
  emulated::copy_commit();
#elif defined(HAS_ASYNC_COPY)
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most NEWEST of this thread's groups are in flight.
template <int NEWEST>
DEVICE void copy_async_wait() {
#if defined(MUSC_CPU)
  emulated::copy_wait(NEWEST);
#elif defined(HAS_ASYNC_COPY)
  asm volatile("cp.async.wait_group %0;" ::"n"(NEWEST) : "memory");
#endif
}

// ---- tensor cores -----------------------------------------------------------------------------
// Letters as in the PTX manual: g = lane / 4, t = lane % 4; a register holds two halves, or four bytes.

// Loads four 8x8 matrices of halves, a row of 16 bytes from each lane's address: lanes 8i..8i+7 give the
// rows of matrix i, and every lane receives in r[i] the elements (g, 2t) and (g, 2t+1) of matrix i.
DEVICE void load_matrices(unsigned (&r)[4], const void* row) {
#if defined(MUSC_CPU)
  emulated::load_matrices(r, row);
#else
  unsigned address = (unsigned)__cvta_generic_to_shared(row);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
#endif
}

// c += a b for a (16,16), b (16,8), c (16,8), halves in and float sums:
//   a[i]  row g + 8 (i % 2), columns 2t + 8 (i / 2) and the next
//   b[i]  rows 2t + 8 i and the next, column g
//   c[i]  row g + 8 (i / 2), column 2t + i % 2
DEVICE void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(MUSC_CPU)
  emulated::multiply_add(c, a, b);
#elif defined(HAS_ASYNC_COPY)
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else  // Turing: two products over half the depth
  UNROLL
  for (int i = 0; i < 2; i++)
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[2 * i]), "r"(a[2 * i + 1]), "r"(b[i]));
#endif
}

// The same for int8 and int sums, over twice the depth: a (16,32), b (32,8).  Bytes lie over lanes as those of
// halves do, so load_matrices serves both:
//   a[i]  row g + 8 (i % 2), columns 4t + 16 (i / 2) and the next three
//   b[i]  rows 4t + 16 i and the next three, column g
DEVICE void multiply_add(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(MUSC_CPU)
  emulated::multiply_add(c, a, b);
#elif defined(HAS_ASYNC_COPY)
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else  // Turing: products of 8 rows over half the depth
  UNROLL
  for (int i = 0; i < 4; i++)
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
                 : "+r"(c[i % 2 * 2]), "+r"(c[i % 2 * 2 + 1])
                 : "r"(a[i]), "r"(b[i / 2]));
#endif
}
