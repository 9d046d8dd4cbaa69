#!/usr/bin/env bash
# Pack a folder of wheels from which musc-edge installs on a device without network and compiler.
#
#   tools/wheelhouse.sh OUT [EXTRAS]        EXTRAS: cpu,fast,cuda if none are named
#
# Run it in a checkout, with network, on a machine that has the device's processor and version of Python
# ($PYTHON chooses one).  For the extra cuda it builds pycuda, which comes as source alone: that takes g++,
# the headers of a CUDA toolkit ($CUDA_HOME, that of nvcc, or /usr/local/cuda), but no GPU and no driver.
set -euo pipefail

fail() { echo "wheelhouse: $*" >&2; exit 1; }

[ $# -ge 1 ] && [ $# -le 2 ] && [ "${1#-}" = "$1" ] || fail "expected OUT [EXTRAS], such as: wheels cpu,fast,cuda"
out=$(realpath -m "$1") extras=${2-cpu,fast,cuda} python=${PYTHON:-python3}
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -f "$top/pyproject.toml" ] || fail "$top is no checkout of musc-edge: there is no pyproject.toml."
[ ! -e "$out" ] || fail "$out exists. Remove it, or name another folder."
"$python" -m pip --version > /dev/null || fail "$python has no pip. Install it, or set PYTHON=..."

work=$(mktemp -d "$out.partial.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/wheels" "$work/build" "$work/link"
pip() { "$python" -m pip --disable-pip-version-check "$@"; }

build_pycuda() {
  local root="" place tree nvcc
  nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
  for place in "${CUDA_HOME:-}" "$(dirname "$(readlink -m "$nvcc")")/.." /usr/local/cuda; do
    if [ -f "$place/include/cuda.h" ]; then root=$(cd "$place" && pwd) && break; fi
  done
  [ -n "$root" ] || fail "found no include/cuda.h: pycuda needs the headers of a CUDA toolkit. Install them and" \
    "set CUDA_HOME to their folder, or leave out the extra cuda."
  command -v g++ > /dev/null || fail "there is no g++, which pycuda needs."
  pip download -q --no-deps --no-binary pycuda -c "$top/constraints.txt" -d "$work/build" pycuda
  tar -xzf "$work"/build/pycuda-*.tar.gz -C "$work/build"
  tree=$(echo "$work"/build/pycuda-*/)
  # The device's driver brings libcuda; to link, an empty library of that name serves as well.  curand is left
  # out, because musc-edge has no use for it and a device might not have it.
  g++ -shared -fPIC -x c++ /dev/null -Wl,-soname,libcuda.so.1 -o "$work/link/libcuda.so"
  cat > "$tree/siteconf.py" << END
CUDA_ROOT = "$root"
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = ["$work/link"]
CXXFLAGS = ["-O1", "-w"]
LDFLAGS = ["-L$work/link", "-Wl,--no-as-needed", "-lcuda"]
END
  pip wheel -q --no-deps -w "$work/wheels" "$tree"
}

case ",$extras," in *,cuda,*) build_pycuda ;; esac
wanted="musc-edge${extras:+[$extras]}"
pip wheel -q -c "$top/constraints.txt" --find-links "$work/wheels" -w "$work/wheels" "$top${extras:+[$extras]}"
pip download -q --no-index --find-links "$work/wheels" -d "$work/proof" "$wanted" # is anything missing?
mv "$work/wheels" "$out"
echo "$out: $(ls "$out" | wc -l) wheels, $(du -sh "$out" | cut -f1). On the device:"
echo "  python3 -m pip install --no-index --find-links $(basename "$out") '$wanted'"
