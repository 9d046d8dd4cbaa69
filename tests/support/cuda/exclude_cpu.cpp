#include "exclude.cuh"

#include "run_kernel.h"
RUN(exclude_patches)
