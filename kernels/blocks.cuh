// Where features lie: in the order in which the tensor cores read them.
//
// An image's rows are cut into groups of 8, and into steps of 128 bytes.  A group's step is a block: 1024 bytes,
// a row of 128 after the other.  Of the eight 16-byte chunks of row r, chunk c lies in the place c ^ r: so the
// chunks c of eight rows, which are read together, meet every bank of shared memory once, and a block can be
// copied there as it is.
//
//   features   (images, pitch / 64, ceil(P / 8), 8, 64) halves, or (images, pitch / 128, ceil(P / 8), 8, 128)
//              int8; zeros behind the width.  What lies behind the last patch, in its group, is nobody's.
#pragma once
#include "device_ops.cuh"

constexpr int STEP_BYTES = 128, GROUP_ROWS = 8, GROUP_BYTES = GROUP_ROWS * STEP_BYTES, CHUNK_BYTES = 16;

DEVICE int groups_of(int patches) { return (patches + GROUP_ROWS - 1) / GROUP_ROWS; }

// The value in a column of a row of an image, among images of ``patches`` rows, ``pitch`` values each.
template <class Value>
DEVICE Value* value_at(Value* features, int image, int row, int column, int patches, int pitch) {
  constexpr unsigned SIZE = sizeof(Value), STEP_VALUES = STEP_BYTES / SIZE, CHUNK_VALUES = CHUNK_BYTES / SIZE;
  const unsigned r = (unsigned)row % GROUP_ROWS, c = (unsigned)column % STEP_VALUES;
  const size_t step = (size_t)image * (pitch / STEP_VALUES) + (unsigned)column / STEP_VALUES;
  const size_t group = step * groups_of(patches) + (unsigned)row / GROUP_ROWS;
  const unsigned place = c / CHUNK_VALUES ^ r;
  return features + group * (GROUP_BYTES / SIZE) + r * STEP_VALUES + place * CHUNK_VALUES + c % CHUNK_VALUES;
}
