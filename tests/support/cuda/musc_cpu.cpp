// The kernels as a library for the CPU.
#include "musc.cu"
//
#include "emulation.cpp"
#include "gram_cpu.cpp"
#include "gram_hopper_cpu.cpp"
#include "interval_cpu.cpp"
#include "exclude_cpu.cpp"
#include "gather_cpu.cpp"
#include "near_cpu.cpp"
#include "peak_cpu.cpp"
#include "pool_cpu.cpp"
#include "pool_int8_cpu.cpp"
