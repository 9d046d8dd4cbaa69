// What ThreadSanitizer and AddressSanitizer are told of fibers; nothing in a build without them.
//
// To ThreadSanitizer each CUDA thread is a thread of its own, and only barriers order their accesses: those
// of one CTA at __syncthreads, and all with the host before and after a launch.  CTAs of one launch are not
// ordered, though they run one after the other.
#pragma once
#include <cstddef>
#include <cstdlib>

#if defined(__SANITIZE_THREAD__)
extern "C" {
void* __tsan_create_fiber(unsigned);
void* __tsan_get_current_fiber();
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
constexpr bool WATCHES_THREADS = true;
constexpr unsigned NO_ORDER = 1;  // a switch of fibers is no synchronisation
inline void* make_tsan_fiber() { return __tsan_create_fiber(0); }
inline void* this_tsan_fiber() { return __tsan_get_current_fiber(); }
inline void switch_tsan(void* fiber) { __tsan_switch_to_fiber(fiber, NO_ORDER); }
inline void acquire(void* what) { __tsan_acquire(what); }
inline void release(void* what) { __tsan_release(what); }
struct Unwatched {  // the emulator's own accesses are not the kernel's
  Unwatched() { AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0); }
  ~Unwatched() { AnnotateIgnoreReadsEnd("", 0), AnnotateIgnoreWritesEnd("", 0); }
};
#else
constexpr bool WATCHES_THREADS = false;
inline void* make_tsan_fiber() { return nullptr; }
inline void* this_tsan_fiber() { return nullptr; }
inline void switch_tsan(void*) {}
inline void acquire(void*) {}
inline void release(void*) {}
struct Unwatched {
  Unwatched() {}
};
#endif

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __asan_unpoison_memory_region(const volatile void*, size_t);
inline void forget_frames(void* stack, size_t bytes) { __asan_unpoison_memory_region(stack, bytes); }
#else
inline void forget_frames(void*, size_t) {}
#endif
