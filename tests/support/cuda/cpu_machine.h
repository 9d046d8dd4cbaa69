// The machine behind cuda_driver_cpu.cpp: memory with guards around it, streams of queued work, events, and
// kernels that run on the CPU.
#pragma once
#include <cuda.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "musc_cpu.cpp"

namespace {

struct Event {
  int recorded = 0, happened = 0;
  bool timed;
  std::chrono::steady_clock::time_point when;
};
struct Work {
  std::function<CUresult()> run;  // empty: wait for the event
  std::shared_ptr<Event> event;
  int number;
};
using Queue = std::deque<Work>;
using Block = std::vector<unsigned char>;  // memory with a guard on both sides
struct Kernel {
  const char* name;
  int (*run)(const unsigned*, const unsigned*, unsigned, uint64_t, void**);
  std::vector<size_t> offsets, sizes;
};

constexpr size_t GUARD = 4096;
constexpr unsigned char POISON = 0xFF;  // NaN as a half, float and double

struct Machine {
  std::recursive_mutex mutex;
  int devices = 1, references = 0;
  bool initialised = false;
  size_t memory = 1 << 30, used = 0;
  uint64_t seed = 0, random = 0;
  std::string failing;
  CUresult failure = CUDA_SUCCESS, sticky = CUDA_SUCCESS;
  std::map<size_t, Block> device, host;  // by address
  std::map<CUstream, std::shared_ptr<Queue>> streams;
  std::map<CUevent, std::shared_ptr<Event>> events;
  std::set<CUmodule> modules;
  std::map<CUfunction, unsigned> allowed;  // shared memory of a launch, where it was set
  size_t left = 0;  // behind, when the context was reset
} machine;

thread_local std::vector<CUcontext> current;
const CUcontext PRIMARY = (CUcontext)&machine;

[[noreturn]] void wrong(const std::string& what) {
  fprintf(stderr, "driver on the CPU: %s\n", what.c_str());
  _Exit(97);
}

template <class... Arguments>
Kernel describe(const char* name, void (*)(Arguments...), decltype(Kernel::run) run) {
  Kernel kernel{name, run, {}, {}};
  size_t end = 0;
  auto add = [&](size_t size, size_t alignment) {
    kernel.offsets.push_back((end + alignment - 1) / alignment * alignment);
    kernel.sizes.push_back(size);
    end = kernel.offsets.back() + size;
  };
  (add(sizeof(Arguments), alignof(Arguments)), ...);
  return kernel;
}
#define DESCRIBE(kernel) describe(#kernel, kernel, run_##kernel)
const std::vector<Kernel> kernels = {DESCRIBE(centre_half), DESCRIBE(centre_float), DESCRIBE(pool_half),
                                     DESCRIBE(pool_float),  DESCRIBE(column_mean),  DESCRIBE(gram_min),
                                     DESCRIBE(pool_half_int8), DESCRIBE(pool_float_int8),
                                     DESCRIBE(gram_min_int8), DESCRIBE(interval_mean), DESCRIBE(burn_out_mean),
                                     DESCRIBE(gram_min_near), DESCRIBE(gram_min_int8_near), DESCRIBE(burn_out_mean_near),
                                     DESCRIBE(peak_products), DESCRIBE(peak_copy), DESCRIBE(gather_rows),
                                     DESCRIBE(exclude_patches)};

// ---- memory -----------------------------------------------------------------------------------

bool holds(const std::map<size_t, Block>& blocks, size_t address, size_t size) {
  auto next = blocks.upper_bound(address);
  if (next == blocks.begin()) return false;
  const auto& [start, block] = *std::prev(next);
  return address + size <= start + block.size() - 2 * GUARD;
}

size_t take(std::map<size_t, Block>& blocks, size_t size) {
  Block block(size + 2 * GUARD, POISON);
  const size_t address = (size_t)block.data() + GUARD;  // malloc aligns to 16, as the kernels need
  blocks.emplace(address, std::move(block));
  return address;
}

void give_back(std::map<size_t, Block>& blocks, size_t address) {
  const Block& block = blocks.at(address);
  for (size_t i = 0; i < GUARD; i++)
    if (block[i] != POISON || block[block.size() - 1 - i] != POISON) wrong("something wrote beyond its memory");
  blocks.erase(address);
}

// ---- queued work ------------------------------------------------------------------------------

bool is_ready(const Queue& queue) {
  return !queue.empty() && (queue.front().run || queue.front().event->happened >= queue.front().number);
}

void do_one(Queue& queue) {
  Work work = std::move(queue.front());
  queue.pop_front();
  const CUresult code = work.run ? work.run() : CUDA_SUCCESS;
  if (code == CUDA_SUCCESS) return;
  machine.sticky = code;
  for (auto& [handle, other] : machine.streams) other->clear();
}

template <class Done>
CUresult until(Done done) {
  while (!machine.sticky && !done()) {
    std::vector<Queue*> ready;
    for (auto& [handle, queue] : machine.streams)
      if (is_ready(*queue)) ready.push_back(queue.get());
    if (ready.empty()) wrong("streams wait for each other for ever");
    machine.random = machine.random * 6364136223846793005u + 1442695040888963407u;
    do_one(*ready[(machine.random >> 33) % ready.size()]);
  }
  return machine.sticky;
}

CUresult finish_all() {
  return until([] {
    for (auto& [handle, queue] : machine.streams)
      if (!queue->empty()) return false;
    return true;
  });
}

void reset() {
  machine.left = machine.device.size() + machine.host.size() + machine.streams.size() + machine.events.size() +
                 machine.modules.size();
  machine.device.clear(), machine.host.clear(), machine.streams.clear(), machine.events.clear();
  machine.modules.clear(), machine.used = 0, machine.sticky = CUDA_SUCCESS;
}

CUresult run_kernel(const Kernel& kernel, dim3 grid, dim3 block, unsigned shared, std::string parameters) {
  if (machine.failing == kernel.name) return machine.failing.clear(), machine.failure;
  std::vector<void*> arguments;
  for (size_t i = 0; i < kernel.offsets.size(); i++) {
    arguments.push_back(parameters.data() + kernel.offsets[i]);
    if (kernel.sizes[i] == 8 && !holds(machine.device, *(size_t*)arguments.back(), 1))
      wrong(std::string(kernel.name) + " is given memory that is not allocated");
  }
  const unsigned axes[] = {grid.x, grid.y, grid.z}, threads[] = {block.x, block.y, block.z};
  return kernel.run(axes, threads, shared, machine.seed, arguments.data()) ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
}

// What every call that works in a context begins with.
#define IN_CONTEXT                                                            \
  std::lock_guard lock(machine.mutex);                                        \
  if (!machine.initialised) return CUDA_ERROR_NOT_INITIALIZED;                \
  if (current.empty() || !machine.references) return CUDA_ERROR_INVALID_CONTEXT; \
  if (machine.sticky) return machine.sticky;
#define STREAM_IS_THERE(stream) \
  if (!machine.streams.count(stream)) return CUDA_ERROR_INVALID_HANDLE;
#define EVENT_IS_THERE(event) \
  if (!machine.events.count(event)) return CUDA_ERROR_INVALID_HANDLE;

void queue(CUstream stream, std::function<CUresult()> run) {
  machine.streams[stream]->push_back({std::move(run), nullptr, 0});
}

}  // namespace
