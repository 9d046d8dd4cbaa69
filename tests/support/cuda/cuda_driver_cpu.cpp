// libcuda.so.1 for a machine without a GPU, so that pycuda itself can be tried there (tests/gpu/pycuda_on_cpu.py).
//
// The calls that PycudaGpu makes through pycuda do here what the driver does, on host memory and with the
// kernels' emulation (cuda_cpu.h): contexts are current in a thread or not, work is queued and done as late
// and in as odd an order as streams and events allow, an error of a kernel comes up in later calls and stays
// until the context is reset, and what is not there, full or freed is answered with the driver's own codes.
// Where a real driver would read or write wherever it was told to, this one complains on stderr and ends the
// process.  All other calls of the driver end the process too: their stubs are generated when it is built.
//
// emulation_* at the end of the file set up the machine and count what was not given back.
#include "cpu_machine.h"

extern "C" {

// ---- devices and contexts -----------------------------------------------------------------------

CUresult cuInit(unsigned) {
  if (!machine.devices) return CUDA_ERROR_NO_DEVICE;
  return machine.initialised = true, CUDA_SUCCESS;
}
CUresult cuDriverGetVersion(int* version) { return *version = CUDA_VERSION, CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int* count) { return *count = machine.devices, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return *device = ordinal, ordinal < machine.devices ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDeviceGetName(char* name, int size, CUdevice) {
  return snprintf(name, size, "kernels on the CPU"), CUDA_SUCCESS;
}
CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice) { return *major = 8, *minor = 6, CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute, CUdevice) { return *value = 0, CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult code, const char** text) {
  static const std::map<CUresult, const char*> texts = {{CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"},
                                                        {CUDA_ERROR_OUT_OF_MEMORY, "out of memory"},
                                                        {CUDA_ERROR_INVALID_CONTEXT, "invalid device context"},
                                                        {CUDA_ERROR_NOT_FOUND, "named symbol not found"},
                                                        {CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"},
                                                        {CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access"}};
  return *text = texts.count(code) ? texts.at(code) : "some error", CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  std::lock_guard lock(machine.mutex);
  return machine.references++, *context = PRIMARY, CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) {  // leaves the context on the thread's stack, as documented
  std::lock_guard lock(machine.mutex);
  if (!machine.references) return CUDA_ERROR_INVALID_CONTEXT;
  if (!--machine.references) reset();
  return CUDA_SUCCESS;
}
CUresult cuCtxPushCurrent(CUcontext context) { return current.push_back(context), CUDA_SUCCESS; }
CUresult cuCtxPopCurrent(CUcontext* context) {
  if (current.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  return *context = current.back(), current.pop_back(), CUDA_SUCCESS;
}
CUresult cuCtxSynchronize() {
  IN_CONTEXT
  return finish_all();
}

// ---- memory -----------------------------------------------------------------------------------

CUresult cuMemGetInfo(size_t* free, size_t* total) {
  IN_CONTEXT
  return *free = machine.memory - machine.used, *total = machine.memory, CUDA_SUCCESS;
}
CUresult cuMemAlloc(CUdeviceptr* address, size_t size) {
  IN_CONTEXT
  if (!size) return CUDA_ERROR_INVALID_VALUE;
  if (machine.used + size > machine.memory) return CUDA_ERROR_OUT_OF_MEMORY;
  return machine.used += size, *address = take(machine.device, size), CUDA_SUCCESS;
}
CUresult cuMemFree(CUdeviceptr address) {  // waits for all work, as the driver does
  IN_CONTEXT
  if (!machine.device.count(address)) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult code = finish_all()) return code;
  machine.used -= machine.device.at(address).size() - 2 * GUARD;
  return give_back(machine.device, address), CUDA_SUCCESS;
}
CUresult cuMemHostAlloc(void** address, size_t size, unsigned) {
  IN_CONTEXT
  if (!size) return CUDA_ERROR_INVALID_VALUE;
  return *address = (void*)take(machine.host, size), CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void* address) {
  IN_CONTEXT
  if (!machine.host.count((size_t)address)) return CUDA_ERROR_INVALID_VALUE;
  return give_back(machine.host, (size_t)address), CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t size, CUstream stream) {
  IN_CONTEXT
  STREAM_IS_THERE(stream)
  Block staged;
  const bool locked = holds(machine.host, (size_t)from, size);
  if (!locked) staged.assign((unsigned char*)from, (unsigned char*)from + size);  // read before the call returns
  queue(stream, [=] {
    if (locked && !holds(machine.host, (size_t)from, size)) wrong("a copy reads page-locked memory that was freed");
    if (!holds(machine.device, to, size)) wrong("a copy writes memory that is not allocated");
    return memcpy((void*)to, locked ? from : staged.data(), size), CUDA_SUCCESS;
  });
  return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t size, CUstream stream) {
  IN_CONTEXT
  STREAM_IS_THERE(stream)
  queue(stream, [=] {
    if (!holds(machine.device, from, size)) wrong("a copy reads memory that is not allocated");
    return memcpy(to, (void*)from, size), CUDA_SUCCESS;
  });
  return CUDA_SUCCESS;
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
  IN_CONTEXT
  STREAM_IS_THERE(stream)
  queue(stream, [=] {
    if (!holds(machine.device, to, 4 * count)) wrong("a fill writes memory that is not allocated");
    return std::fill_n((unsigned*)to, count, value), CUDA_SUCCESS;
  });
  return CUDA_SUCCESS;
}

// ---- streams and events ---------------------------------------------------------------------------

CUresult cuStreamCreate(CUstream* stream, unsigned) {
  IN_CONTEXT
  auto made = std::make_shared<Queue>();
  return *stream = (CUstream)made.get(), machine.streams[*stream] = made, CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream stream) {
  IN_CONTEXT
  STREAM_IS_THERE(stream)
  if (CUresult code = finish_all()) return code;
  return machine.streams.erase(stream), CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream stream) {
  IN_CONTEXT
  STREAM_IS_THERE(stream)
  Queue& queue = *machine.streams[stream];
  return until([&] { return queue.empty(); });
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  IN_CONTEXT
  STREAM_IS_THERE(stream)
  EVENT_IS_THERE(event)
  const auto& known = machine.events[event];
  return machine.streams[stream]->push_back({{}, known, known->recorded}), CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent* event, unsigned flags) {
  IN_CONTEXT
  auto made = std::make_shared<Event>();
  made->timed = !(flags & CU_EVENT_DISABLE_TIMING);
  return *event = (CUevent)made.get(), machine.events[*event] = made, CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent event) {
  IN_CONTEXT
  EVENT_IS_THERE(event)
  return machine.events.erase(event), CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent event, CUstream stream) {
  IN_CONTEXT
  STREAM_IS_THERE(stream)
  EVENT_IS_THERE(event)
  auto known = machine.events[event];
  const int number = ++known->recorded;
  queue(stream, [=] {
    known->when = std::chrono::steady_clock::now();
    return known->happened = number, CUDA_SUCCESS;
  });
  return CUDA_SUCCESS;
}
CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  IN_CONTEXT
  EVENT_IS_THERE(start)
  EVENT_IS_THERE(end)
  const auto &from = machine.events[start];
  const auto& to = machine.events[end];
  if (!from->timed || !to->timed) return CUDA_ERROR_INVALID_HANDLE;
  if (to->happened < to->recorded) return CUDA_ERROR_NOT_READY;
  return *milliseconds = std::chrono::duration<float, std::milli>(to->when - from->when).count(), CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent event) {
  IN_CONTEXT
  EVENT_IS_THERE(event)
  auto known = machine.events[event];
  const int wanted = known->recorded;
  return until([&] { return known->happened >= wanted; });
}

// ---- kernels ------------------------------------------------------------------------------------

CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned, CUjit_option*, void** values) {
  IN_CONTEXT
  values[1] = values[3] = nullptr;  // nothing written to the logs
  if (memcmp(image, "\x7f" "ELF", 4)) return CUDA_ERROR_INVALID_IMAGE;
  return *module = (CUmodule) new char, machine.modules.insert(*module), CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) {
  IN_CONTEXT
  if (!machine.modules.erase(module)) return CUDA_ERROR_INVALID_HANDLE;
  return delete (char*)module, CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  IN_CONTEXT
  if (!machine.modules.count(module)) return CUDA_ERROR_INVALID_HANDLE;
  for (const Kernel& kernel : kernels)
    if (!strcmp(kernel.name, name)) return *function = (CUfunction)&kernel, CUDA_SUCCESS;
  return CUDA_ERROR_NOT_FOUND;
}
CUresult cuFuncSetBlockShape(CUfunction, int, int, int) {
  IN_CONTEXT
  return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  IN_CONTEXT
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_NOT_SUPPORTED;
  if (value > 99 * 1024) return CUDA_ERROR_INVALID_VALUE;  // what compute capability 8.6 has
  return machine.allowed[function] = value, CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned block_x, unsigned block_y,
                        unsigned block_z, unsigned shared, CUstream stream, void** parameters, void** extra) {
  IN_CONTEXT
  STREAM_IS_THERE(stream)
  const Kernel& kernel = *(const Kernel*)function;
  if (parameters || extra[0] != CU_LAUNCH_PARAM_BUFFER_POINTER) wrong("arguments come in another form than pycuda's");
  const std::string packed((char*)extra[1], *(size_t*)extra[3]);
  if (packed.size() != kernel.offsets.back() + kernel.sizes.back()) return CUDA_ERROR_INVALID_VALUE;
  const unsigned allowed = machine.allowed.count(function) ? machine.allowed.at(function) : 48 * 1024;
  if (y > 65535 || z > 65535 || shared > allowed) return CUDA_ERROR_INVALID_VALUE;
  if (block_x * block_y * block_z > 1024) return CUDA_ERROR_INVALID_VALUE;
  const dim3 grid{x, y, z}, block{block_x, block_y, block_z};
  return queue(stream, [=, &kernel] { return run_kernel(kernel, grid, block, shared, packed); }), CUDA_SUCCESS;
}

// ---- for the tests --------------------------------------------------------------------------------

void emulation_set(int devices, size_t memory, uint64_t seed) {
  machine.devices = devices, machine.memory = memory, machine.seed = machine.random = seed;
}
CUresult emulation_hold() {
  CUcontext context;
  return cuInit(0) ? CUDA_ERROR_NO_DEVICE : cuDevicePrimaryCtxRetain(&context, 0);
}
CUresult emulation_let_go() { return cuDevicePrimaryCtxRelease(0); }
void emulation_fail(const char* kernel, int code) { machine.failing = kernel, machine.failure = (CUresult)code; }
void emulation_count(size_t* counts) {
  const size_t found[] = {machine.device.size(), machine.host.size(),     machine.streams.size(),
                          machine.events.size(), machine.modules.size(),  (size_t)machine.references,
                          current.size(),        machine.left};
  std::copy(std::begin(found), std::end(found), counts);
}

}  // extern "C"
