"""Small faults planted in the kernels' source, one at a time; test_mutants.py holds that each is caught.

A mutant replaces ``old``, which occurs in its file exactly once, by ``new``, and says which of the nets is to
catch it: the values (and what the emulated GPU itself complains of), ThreadSanitizer where only the order of
threads would show it, or AddressSanitizer where only what lies beyond an array would.
"""

from __future__ import annotations

import warnings
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

VALUES, RACES, BOUNDS = NETS = "values", "races", "bounds"


class Mutant(NamedTuple):
    """A patch of a file in kernels/."""

    file: str
    old: str
    new: str
    net: str = VALUES

    def apply(self, source: str) -> str:
        """The patched ``source``; ValueError unless there is one place for it."""
        if source.count(self.old) != 1:
            raise ValueError(f"{source.count(self.old)} places in {self.file} for {self.old!r}")
        return source.replace(self.old, self.new)

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}: {old} -> {new or '(nothing)'}"


def plant(mutant: Mutant, package: Path) -> None:
    """Let this process import the mutant's file of ``package``, which it has not yet, with the fault."""
    file = package / mutant.file
    plant_source(file, mutant.apply(file.read_text(encoding="utf-8")))


def plant_source(file: Path, source: str) -> None:
    """Let this process import ``source`` in place of a ``file`` that it has not imported yet."""
    code = compile_quietly(source, file)
    import_code = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> Any:
        return code if Path(loader.path) == file else import_code(loader, name)

    SourceFileLoader.get_code = get_code  # type: ignore[assignment,method-assign]


def compile_quietly(source: str, file: Path) -> CodeType:
    """Compile ``source`` in place of ``file``; a fault is found by what it does, not by a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        return compile(source, file, "exec")


def _of(file: str, *patches: tuple[str, ...]) -> list[Mutant]:
    return [Mutant(file, *patch) for patch in patches]


POOL = _of(
    "pool.cuh",
    # centre: sum and extent, across a warp and across the CTA
    ("a.sum + b.sum", "b.sum"),
    ("fminf(a.smallest, b.smallest)", "a.smallest"),
    ("fmaxf(a.largest, b.largest)", "a.largest"),
    ("double sum;", "float sum;"),
    ("bit >>= 1)\n    e = join", "bit >>= 2)\n    e = join"),
    ("  tokens += blockIdx.x * count;\n", ""),
    ("to_float(tokens[0])", "0.f"),
    ("i = threadIdx.x; i < count", "i = threadIdx.x; i <= count"),
    ("i += CENTRE_THREADS", "i += 2 * CENTRE_THREADS"),
    ("of_warps[warp] = mine;\n  __syncthreads();", "of_warps[warp] = mine;"),
    ("of_warps[warp] = mine", "of_warps[lane] = mine"),
    ("mine = across_warp(of_warps[lane])", "mine = of_warps[lane]"),
    ("mine.sum / (double)count", "mine.sum / (double)patches"),
    ("low = (float)(mean - high)", "low = 0"),
    ("fmaxf((float)(mine.largest - mean), (float)(mean - mine.smallest))", "(float)(mine.largest - mean)"),
    ("fmaxf((float)(mine.largest - mean), (float)(mean - mine.smallest))", "(float)(mean - mine.smallest)"),
    ("& 255u) - 126", "& 255u) - 125"),
    ("min(exponent, 126)", "exponent"),
    ("<< 23), most)", "<< 23), 0)"),
    ("centres[blockIdx.x]", "centres[0]"),
    ("make_float4(high, low,", "make_float4(low, high,"),
    # pool: the sum over the CTA
    ("bit >>= 1) value +=", "bit >>= 2) value +="),
    ("  __syncthreads();  // an earlier sum has been read by all\n", ""),
    ("room[threadIdx.x >> 5] = value;\n  __syncthreads();", "room[threadIdx.x >> 5] = value;"),
    ("room[2] + room[3]", "room[2]"),
    # pool: the window
    ("row = room + POOL_THREADS / 32", "row = room"),
    ("max(patch / across - reach, 0)", "patch / across - reach"),
    ("max(patch % across - reach, 0)", "patch % across - reach"),
    ("min(patch / across + reach, height - 1)", "patch / across + reach"),
    ("min(patch % across + reach, across - 1)", "patch % across + reach"),
    ("h <= bottom", "h < bottom"),
    ("w <= right", "w < right"),
    ("(h * across + w)", "(h * height + w)"),
    ("centres[image]", "centres[0]"),
    ("  tokens += (size_t)image * patches * width;\n", ""),
    (" - centre.x", ""),
    (" - centre.y", ""),
    (" * centre.z", ""),
    # pool: length, shift, rounding, and the square of what was rounded
    ("length += sum * sum", "length += sum"),
    ("c = threadIdx.x; c < width; c += POOL_THREADS", "c = threadIdx.x; c < width; c += 2 * POOL_THREADS"),
    ("length == 0 ? 0.f : 1.f / length", "1.f / length"),
    ("row[c] * inverse", "row[c]"),
    (" - shift[c]", ""),
    ("c < width ? to_half(row[c] * inverse - shift[c]) : (half_bits)0",
     "to_half(row[c] * inverse - shift[c])"),
    ("c < pitch; c += POOL_THREADS", "c < width; c += POOL_THREADS"),
    ("to_float(rounded) * to_float(rounded)", "c < width ? powf(row[c] * inverse - shift[c], 2) : 0"),
    ("  square = sum_over_cta(square, room);\n", ""),
    ("squares[(size_t)image * patches + patch]", "squares[patch]"),
    ("value_at(features, image, patch, c,", "value_at(features, 0, patch, c,"),
    ("value_at(features, image, patch, c, patches, pitch)",
     "value_at(features, image, patch, c, patches, pitch + 64)"),
    # column_mean
    ("blockIdx.x * COLUMNS + threadIdx.x", "threadIdx.x"),
    ("row += 32", "row += 64"),
    ("row / patches, row % patches", "0, row % patches"),
    ("row / patches, row % patches", "row / patches, row % 8"),
    ("rows = images * patches", "rows = patches"),
    ("sums[threadIdx.y * COLUMNS + threadIdx.x] = sum;\n  __syncthreads();",
     "sums[threadIdx.y * COLUMNS + threadIdx.x] = sum;"),
    ("part < 32", "part < 31"),
    ("sums[part * COLUMNS + threadIdx.x]", "sums[part * COLUMNS]"),
    ("sum / (float)rows", "sum / (float)pitch"),
)  # fmt: skip

GRAM = _of(
    "gram.cuh",
    # one step of a side into shared memory
    ("(index ^ turn)", "index"),
    ("(row >> 1) & 3", "row & 3"),
    ("return row * ROW_BYTES", "return (row & 63) * ROW_BYTES"),
    ("part < TILE / ROWS_AT_ONCE", "part < TILE / ROWS_AT_ONCE - 1"),
    ("part * ROWS_AT_ONCE,", "part * ROWS_AT_ONCE / 2,"),
    ("index = threadIdx.x % CHUNKS", "index = threadIdx.x % CHUNKS / 2"),
    ("(first + row) / GROUP_ROWS", "row / GROUP_ROWS"),
    ("min((first + row) / GROUP_ROWS, last)", "(first + row) / GROUP_ROWS", BOUNDS),
    ("groups_of(patches) - 1", "groups_of(patches)", BOUNDS),
    ("top % GROUP_ROWS", "0"),
    ("(step * CHUNKS + index)", "index"),
    ("* (CHUNK_BYTES / SIZE)", "* (CHUNK_BYTES / 2)"),
    ("(size_t)group * (GROUP_BYTES / SIZE)", "(size_t)group * (GROUP_BYTES / 2)"),
    # the products of a step
    ("k < ROW_BYTES / 32", "k < 1"),
    ("(from_a ^ k * 32)", "from_a"),
    ("(from_a ^ k * 32)", "from_a + k * 32"),
    (" + i * 16 * ROW_BYTES", ""),
    ("place_of(warp_row + (lane & 15)", "place_of((lane & 15)"),
    ("(lane & 15), lane >> 4)", "(lane & 15), 0)"),
    ("(from_b ^ k * 32)", "from_b"),
    ("(from_b ^ k * 32)", "from_b + k * 32"),
    (" + j * 8 * ROW_BYTES", ""),
    ("place_of(warp_column + (lane & 7)", "place_of((lane & 7)"),
    ("((lane >> 4) << 3)", "(lane >> 4)"),
    (", (lane >> 3) & 1)", ", 0)"),
    ("stage + SIDE_BYTES + (from_b", "stage + (from_b"),
    ("b[j][1] = both[1], b[j + 1][0] = both[2]", "b[j][1] = both[2], b[j + 1][0] = both[1]"),
    ("multiply_add(sums[i][j], a[i], b[j])", "multiply_add(sums[i][j], a[i], b[0])"),
    # minima
    ("for (int bit = 16; bit; bit >>= 1)\n    if", "for (int bit = 8; bit; bit >>= 1)\n    if"),
    ("    if (bit & lanes) value", "    value"),
    ("first + row < patches ? squares", "first + row <= patches ? squares", BOUNDS),
    ("squares[first + row] : __uint_as_float(INFINITY_BITS)", "squares[first + row] : 0"),
    ("squares[first + row]", "squares[row]"),
    ("first + row < patches ? scales[first + row] : 0.f", "scales[first + row]", BOUNDS),
    ("scales[first + row]", "scales[row]"),
    ("__float_as_uint(fmaxf(square, 0.f))", "__float_as_uint(square)"),
    ("half * 8 + g;", "g;"),
    ("row = warp_row + i", "row = i"),
    ("= a.square(row)", "= b.square(row)"),
    ("= a.scale(row)", "= b.scale(row)"),
    ("row_min[i][half] = __uint_as_float(INFINITY_BITS)", "row_min[i][half] = -100"),
    ("const int column = warp_column +", "const int column ="),
    ("square_b = b.square(column)", "square_b = a.square(column)"),
    ("scale_b = b.scale(column)", "scale_b = a.scale(column)"),
    ("scale_a[i][half], scale_b);", "scale_a[i][half], 1);"),
    ("scale_a[i][half], scale_b);", "1, scale_b);"),
    ("float column_min = __uint_as_float(INFINITY_BITS)", "float column_min = -100"),
    ("sums[i][j][half * 2 + e]", "sums[i][j][e]"),
    ("square_b - 2.f * product", "square_b - product"),
    ("square_a[i][half] - 2.f * product", "square_a[i][half] - product"),
    ("fminf(row_min[i][half], square_b - 2.f * product)", "square_b - 2.f * product"),
    ("fminf(column_min, square_a[i][half] - 2.f * product)", "square_a[i][half] - 2.f * product"),
    ("smallest_of(column_min, 28)", "smallest_of(column_min, 12)"),
    ("column_min + square_b", "column_min"),
    ("&columns[column]", "&columns[column % 32]"),
    ("smallest_of(row_min[i][half], 3)", "smallest_of(row_min[i][half], 1)"),
    ("&rows[warp_row + i", "&rows[i"),
    ("smallest + square_a[i][half]", "smallest"),
    ("atomicMin(to, __float_as_uint(fmaxf(square, 0.f)))",
     "*to = min(*to, __float_as_uint(fmaxf(square, 0.f)))", RACES),
    # the tile of a CTA
    ("within = number % (RASTER * tiles)", "within = number"),
    ("tiles - band * RASTER < RASTER ? tiles - band * RASTER : RASTER", "RASTER"),
    ("*tile_row = band * RASTER + within", "*tile_row = within"),
    ("*tile_column = within / height", "*tile_column = within / RASTER"),
    ("(warp >> 2) * WARP_ROWS", "(warp & 1) * WARP_ROWS"),
    ("(warp & 3) * WARP_COLUMNS", "(warp >> 1) * WARP_COLUMNS"),
    ("(patches + TILE - 1) / TILE", "patches / TILE + 1"),
    ("pairs[blockIdx.x / (tiles * tiles)]", "pairs[blockIdx.x / tiles]"),
    ("place_tile(blockIdx.x % (tiles * tiles)", "place_tile(blockIdx.x % tiles"),
    ("first_b = tile_column * TILE", "first_b = tile_row * TILE"),
    ("image_b = (size_t)pair.y", "image_b = (size_t)pair.x"),
    # the ring: what is loaded when, and who waits for it
    ("dynamic_shared + (step % STAGES) * STAGE_BYTES;", "dynamic_shared + (step % 2) * STAGE_BYTES;"),
    ("SIDE_BYTES, features, pair.y", "SIDE_BYTES, features, pair.x"),
    ("pair.y, first_b, patches, pitch", "pair.y, first_a, patches, pitch"),
    ("steps = pitch * (int)sizeof", "steps = (pitch - 1) * (int)sizeof"),
    ("step = 0; step < STAGES - 1", "step = 0; step < STAGES - 2"),
    ("    copy_async_commit();  // a group per step", "    // a group per step"),
    ("copy_async_wait<STAGES - 2>()", "copy_async_wait<STAGES - 1>()"),
    ("    copy_async_wait<STAGES - 2>();\n", ""),
    ("    __syncthreads();  // this step is there for all", "    // this step is there for all"),
    ("    copy_async_wait<STAGES - 2>();\n    __syncthreads();",
     "    __syncthreads();\n    copy_async_wait<STAGES - 2>();"),
    ("if (step + STAGES - 1 < steps) load(", "load("),
    ("load(step + STAGES - 1)", "load(step + STAGES - 2)"),
    ("    copy_async_commit();\n    multiply_step", "    multiply_step"),
    ("(step % STAGES) * STAGE_BYTES, from", "(step % 2) * STAGE_BYTES, from"),
    # the epilogue
    ("  __syncthreads();  // nobody reads the last step any more\n", ""),
    ("rows[threadIdx.x] = INFINITY_BITS;", "if (threadIdx.x < TILE) rows[threadIdx.x] = INFINITY_BITS;"),
    ("behind them\n  __syncthreads();", "behind them"),
    ("squares + image_b", "squares + image_a"),
    ("scales + image_b", "scales + image_a"),
    ("scales + image_b, first_b", "scales + image_b, first_a"),
    ("warp_column, lane, rows, columns);\n  __syncthreads();", "warp_column, lane, rows, columns);"),
    ("columns = rows + TILE", "columns = rows"),
    ("(side ? first_b : first_a)", "first_a"),
    ("side ? pair.w : pair.z", "side ? pair.z : pair.w"),
    ("to >= 0 && ", "", BOUNDS),
    ("to >= 0 && patch < patches", "to >= 0", BOUNDS),
    ("(size_t)to * patches", "to * patches"),
    ("atomicMin(&distances[(size_t)to * patches + patch], rows[threadIdx.x])",
     "distances[(size_t)to * patches + patch] = "
     "min(distances[(size_t)to * patches + patch], rows[threadIdx.x])", RACES),
)  # fmt: skip

INTERVAL = _of(
    "interval.cuh",
    # the value of a rank
    ("value = values[k * stride];\n      UNROLL", "value = values[k];\n      UNROLL"),
    ("value < found.value +", "value <= found.value +"),
    ("value < found.value + ((unsigned)digit << shift)", "value < ((unsigned)digit << shift)"),
    ("shift > 3 ? shift - 3 : 0", "shift - 4"),
    ("shift > 3 ? shift - 3 : 0", "shift > 3 ? shift - 4 : 0"),
    ("smaller[digit] <= rank", "smaller[digit] < rank"),
    ("chosen = digit, found.below = smaller[digit]", "chosen = digit"),
    ("smaller[digit] < found.above", "false"),
    ("found.value += (unsigned)chosen << shift", "found.value = (unsigned)chosen << shift"),
    # the mean
    ("stop - 1);", "stop - 2);"),
    ("find_rank(values, count, stride, start)", "find_rank(values, count, stride, start + 1)"),
    ("value = values[k * stride];\n    if", "value = values[k];\n    if"),
    ("value < last.value", "value <= last.value"),
    ("value > first.value", "value >= first.value"),
    ("double sum = 0", "float sum = 0"),
    ("sum += root(value)", "sum += __uint_as_float(value)"),
    ("stop - last.below", "stop"),
    ("first.value == last.value) of_last", "false) of_last"),
    ("of_first = first.above - start", "of_first = first.above"),
    ("of_first * root(first.value)", "0"),
    ("of_last * root(last.value)", "0"),
    ("sum / (stop - start)", "sum / stop"),
    # whose it is
    ("blockIdx.x * INTERVAL_THREADS + threadIdx.x", "threadIdx.x"),
    ("int start, int stop) {\n  const int patch = own_patch();\n  if (patch >= patches) return;\n",
     "int start, int stop) {\n  const int patch = own_patch();\n", BOUNDS),
    ("int first, int stop) {\n  const int patch = own_patch();\n  if (patch >= patches) return;\n",
     "int first, int stop) {\n  const int patch = own_patch();\n", BOUNDS),
    ("(size_t)blockIdx.y * judges * patches", "blockIdx.y * judges * patches"),
    ("(size_t)blockIdx.y * judges * patches", "(size_t)blockIdx.y * patches"),
    ("return (size_t)blockIdx.y * patches + patch", "return patch"),
    # burn-out
    ("GAP = 0.1;", "GAP = 0.11;"),
    ("(found - 1) / 2", "found / 2"),
    ("found % 2 ? lower : find_rank(values, count, stride, found / 2).value", "lower"),
    ("find_rank(values, count, stride, found / 2)", "find_rank(values, count, stride, count / 2)"),
    ("(root(lower) + root(upper)) / 2", "root(lower)"),
    ("first, last, GAP * median)", "first, last, GAP)"),
    ("find_rank(values, count, stride, first - 1)", "find_rank(values, count, stride, first)"),
    ("double largest = least", "double largest = 0"),
    ("value = values[k * stride];\n      if", "value = values[k];\n      if"),
    ("root(value) - root(from) <= least", "value - from <= least"),
    ("last = value > last ? value : last", "last = value"),
    ("before++, last", "last"),
    ("else if (value < next) next = value", "else next = value"),
    ("before > stop", "before >= stop"),
    ("before > stop", "before > stop + 1"),
    ("root(next) - root(last)", "root(next) - root(from)"),
    ("if (gap > largest)", "if (true)"),
    ("largest = gap, start = before", "start = before"),
    ("largest = gap, start = before", "largest = gap, start = before - 1"),
    ("from = next", "from = last"),
    ("start, start + stop)", "start, stop)"),
    ("start, start + stop)", "0, stop)"),
    ("start ? 1.f : 0.f", "start"),
)  # fmt: skip

POOL_INT8 = _of(
    "pool_int8.cuh",
    # over the CTA: the largest value; sums are those of pool.cuh
    ("bit >>= 1) value = fmaxf", "bit >>= 2) value = fmaxf"),
    ("  __syncthreads();  // an earlier sum has been read by all\n", "", RACES),
    ("room[threadIdx.x >> 5] = value;\n  __syncthreads();\n  return fmaxf",
     "room[threadIdx.x >> 5] = value;\n  return fmaxf"),
    ("fmaxf(room[2], room[3])", "room[2]"),
    ("fmaxf(room[0], room[1])", "room[1]"),
    # whose row it is
    ("row = room + POOL_THREADS / 32", "row = room"),
    ("(size_t)image * patches + blockIdx.x", "blockIdx.x"),
    ("  tokens += (size_t)image * patches * width;\n", ""),
    ("centres[image]", "centres[0]"),
    # what is rounded, and how
    ("row[c] * inverse - shift[c]", "row[c] - shift[c]"),
    (" - shift[c]", ""),
    ("fabsf(row[c])", "row[c]"),
    ("fmaxf(largest, fabsf(row[c]))", "fabsf(row[c])"),
    ("c < width; c += POOL_THREADS", "c < width; c += 2 * POOL_THREADS"),
    ("  largest = largest_over_cta(largest, room);\n", ""),
    ("largest > NOTHING ? INT8_STEPS / largest : 0.f", "INT8_STEPS / largest"),
    ("scale = largest / INT8_STEPS", "scale = largest / 128"),
    ("INT8_STEPS = 127", "INT8_STEPS = 128"),
    ("c < width ? __float2int_rn(row[c] * steps) : 0", "__float2int_rn(row[c] * steps)"),
    ("__float2int_rn(row[c] * steps)", "(int)(row[c] * steps)"),
    ("c < pitch; c += POOL_THREADS", "c < width; c += POOL_THREADS"),
    ("square += rounded * rounded", "square += abs(rounded)"),
    ("  square = sum_over_cta(square, (int*)room);\n", ""),
    ("value_at(features, image,", "value_at(features, 0,"),
    ("squares[place]", "squares[blockIdx.x]"),
    ("scaled(square, scale, scale)", "scaled(square, scale, 1)"),
    ("scales[place] = scale", "scales[place] = steps"),
)  # fmt: skip

GRAM_HOPPER = _of(
    "gram_hopper.cuh",
    # the ring
    ("if (++stage == RING) stage = 0, parity ^= 1", "if (++stage == RING) stage = 0"),
    ("start + index * T::STAGE_BYTES", "start + index * T::ROWS_BYTES"),
    ("turn.parity ^ 1)", "turn.parity)"),
    ("      barrier_wait(ring.empty(turn.stage), turn.parity ^ 1);\n", ""),
    ("barrier_init(ring.empty(stage), CONSUMERS)", "barrier_init(ring.empty(stage), 1)"),
    ("      barrier_wait(ring.full(turn.stage), turn.parity);\n      multiply", "      multiply"),
    ("products_wait<1>()", "products_wait<2>()"),
    ("        products_wait<1>();  // those", "        // those"),
    ("if (first_thread) barrier_arrive(ring.empty(before));\n      }", "}"),
    ("ring.empty(before));\n      }", "ring.empty(turn.stage));\n      }"),
    ("      before = turn.stage;\n", ""),
    ("    products_wait<0>();\n", ""),
    # a half without rows
    ("        if (!first_warp) continue;\n", ""),
    ("      meet(consumer);\n", ""),
    ("        if (first_thread) barrier_arrive(ring.empty(turn.stage));\n", ""),
    # which tile
    ("within % down * ROWS", "within / down * ROWS"),
    ("within / down * T::COLUMNS", "within % down * T::COLUMNS"),
    ("which.first_tile(pair)) % (down * across)", "which.first_tile(pair)) % down"),
    ("(patches + T::COLUMNS - 1) / T::COLUMNS;\n", "patches / T::COLUMNS + 1;\n"),
    # what is brought
    ("place.pair.x, place.first_a, 0", "place.pair.x, 0, 0"),
    ("place.pair.y, place.first_b, 0", "place.pair.x, place.first_b, 0"),
    ("bytes_a + bytes_b);", "bytes_a);"),
    ("to + T::ROWS_BYTES, from_b", "to, from_b"),
    ("from_a += groups * GROUP_HALVES", "from_a += GROUP_HALVES"),
    # the products of a step
    ("stage + consumer * OWN_ROWS * STEP_BYTES", "stage"),
    ("i * WGMMA_ROWS * STEP_BYTES + k)", "k)"),
    ("behind(columns, k)", "columns"),
    ("k < STEP_BYTES;", "k < STEP_BYTES - WGMMA_DEPTH_BYTES;"),
    # minima
    ("g / 2 * 8 + t * 2 + g % 2", "g / 2 * 8 + t * 2"),
    ("half = 4; half; bit >>= 1", "half = 4; half > 1; bit >>= 1"),
    ("upper ? value[i + half] : value[i],", "upper ? value[i] : value[i + half],"),
    ("consumer * OWN_ROWS + (threadIdx.x", "(threadIdx.x"),
    ("* 16 + g;", "* 8 + g;"),
    ("nullptr, place.first_b, patches}", "nullptr, 0, patches}"),
    ("i / 2 * WGMMA_ROWS + i % 2 * 8;", "i / 2 * WGMMA_ROWS;"),
    ("n * 4 + t)", "n * 4)"),
    ("i % 2 * 2 + n % 2]", "n % 2]"),
    ("row_min[i] = fminf(row_min[i], near", "row_min[i] = fminf(INFINITY, near"),
    ("i ? fminf(column_min[n], apart) : apart", "apart"),
    ("fmaf(-2.f, product, squares.row[i])", "fmaf(-2.f, product, 0)"),
    ("smallest + squares.column[j / 32]", "smallest"),
    ("smallest + squares.row[i]", "smallest"),
    ("fminf(smallest_of_eight(column_min, lane), far)", "smallest_of_eight(column_min, lane)"),
    ("smallest_of(row_min[i], 3)", "smallest_of(row_min[i], 1)"),
    ("if (to < 0 || patch >= patches) return;", "if (to < 0) return;"),
    ("if (to < 0 || patch >= patches) return;", "if (patch >= patches) return;"),
    ("fmaxf(square, 0.f)", "square"),
)  # fmt: skip

NEAR = _of(
    "near.cuh",
    ("patch / across << 16 |", "0 |"),
    ("| patch % across", "| 0"),
    ("<= 2u * reach", "< 2u * reach"),
    ("(unsigned)(steps + reach)", "(unsigned)(steps + reach + 1)"),
    ("(place >> 16) - (other >> 16)", "(place & 0xffff) - (other & 0xffff)"),
    ("first + count - 1", "first"),
    ("other + others - 1", "other"),
    ("<= reach &&", "< reach &&"),
    ("across <= reach;", "across < reach;"),
    ("squares, pairs, distances, patches, pitch, Near{across, reach});\n}\n\nKERNEL",
     "squares, pairs, distances, patches, pitch, Near{reach, across});\n}\n\nKERNEL"),
    ("squares, scales, pairs, distances, patches, pitch, Near{across, reach}",
     "squares, scales, pairs, distances, patches, pitch, Near{across, reach + 1}"),
    ("pitch, count, Near{across, reach}", "pitch, count, Near{across, reach + 1}"),
    # burn-out among the images that have a neighbor
    ("values[(size_t)k * patches]", "values[k]"),
    ("< FAR_BITS", "<= FAR_BITS"),
    ("(found + 9) / 10", "(judges + 9) / 10"),
    ("last = found - stop < stop ? found - stop : stop", "last = stop"),
    ("patches, found, first", "patches, judges, first"),
    ("start, start + stop)", "0, stop)"),
    ("if (patch >= patches) return;", "", BOUNDS),
)  # fmt: skip

MUTANTS = [*POOL, *GRAM, *INTERVAL, *POOL_INT8, *GRAM_HOPPER, *NEAR]

HOST_MUTANTS = [
    *_of(
        "kernels/launches.py",
        ("(images, 1, 1), (1024", "(1, 1, 1), (1024"),
        ("(patches, images, 1)", "(patches, 1, 1)"),
        ("degree // 2", "degree"),
        ("sizes = *grid,", "sizes = *grid[::-1],"),
        ("pairs.shape[0] * _tiles(patches)", "_tiles(patches)"),
        ("(ceil_div(patches, 128), images, 1)", "(ceil_div(patches, 128), 1, 1)"),
        ('"gram_min_int8", rows', '"gram_min", rows[:2]'),
        ("pool_{_kind(tokens)}_int8", "pool_{_kind(tokens)}"),
        ("numbers = judge_count, patches, start, stop", "numbers = judge_count, patches, 0, stop"),
    ),
    *_of(
        "runtime/gpu/arrays.py",
        ("gpu.wait(self.compute, earlier)", "pass"),
        ("self.gpu.wait(self.compute, self._copied[buffer])", "pass"),
        ("self.gpu.wait(self._copies, self._used[buffer])", "pass"),
        ("self.gpu.record(self._used[buffer], self.compute)", "pass"),
        ("self.gpu.record(self._copied[buffer], self._copies)", "pass"),
        ("self.gpu.fill(rows, farthest, self.compute)", "pass"),
        ("self.gpu.fill(self.shift, 0, self.compute)", "pass"),
        (
            "self.gpu.upload(on_device, pairs, self.compute)",
            "self.gpu.upload(on_device, pairs, self._copies)",
        ),
        ("self.gpu.free(self._allocated.pop())", "self._allocated.pop()"),
    ),
]
