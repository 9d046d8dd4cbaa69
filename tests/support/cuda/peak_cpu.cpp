#include "peak.cuh"

#include "run_kernel.h"
RUN(peak_products)
RUN(peak_copy)
