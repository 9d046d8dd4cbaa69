"""``musc-edge doctor``: report what this machine can run, and what to install for the rest.

Every library is imported in a process of its own, so that a crash is a finding and not the end of the
report.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from ..runtime.parallel import cores

_TIMEOUT_S = 60
_NEVER_RUN = "The backends tensorrt and cuda have never run on a GPU so far: trust only 'musc-export verify'."

# The child prints one line: a version and what else is worth knowing.
_VERSION = "import {0}; print({0}.__version__)"
_ONNXRUNTIME = """
import os
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort
ort.set_default_logger_severity(4)
providers = [p.removesuffix("ExecutionProvider") for p in ort.get_available_providers()]
print(ort.__version__, "with", ", ".join(providers))
"""
_PACKAGES = """
from importlib import metadata
names = {str(found.metadata["Name"]).lower().replace("_", "-") for found in metadata.distributions()}
both = sorted(names & {"onnxruntime", "onnxruntime-gpu"})
if not both:
    raise ModuleNotFoundError("none is installed")
if len(both) > 1:
    raise SystemExit("both are installed and overwrite each other")
print(*both)
"""
_RTX = """
try:
    import tensorrt_rtx as trt
except ImportError:
    import tensorrt_rtx_bindings as trt
print(trt.__version__)
"""
_DRIVER = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
count, code = ctypes.c_int(), cuda.cuInit(0)
if code or (code := cuda.cuDeviceGetCount(ctypes.byref(count))):
    raise SystemExit(f"the CUDA driver answers with error {code}")
version, names = ctypes.c_int(), []
cuda.cuDriverGetVersion(ctypes.byref(version))
for i in range(count.value):
    name, device, arch = ctypes.create_string_buffer(100), ctypes.c_int(), (ctypes.c_int * 2)()
    cuda.cuDeviceGet(ctypes.byref(device), i)
    cuda.cuDeviceGetName(name, 100, device)
    for j in range(2):
        cuda.cuDeviceGetAttribute(ctypes.byref(arch, 4 * j), 75 + j, device)  # compute capability
    names.append(f"{name.value.decode()} (sm_{arch[0]}{arch[1]})")
if not names:
    raise SystemExit("the CUDA driver finds no GPU")
print(f"{', '.join(names)}, driver for CUDA {version.value // 1000}.{version.value % 1000 // 10}")
"""
_PYCUDA = """
import pycuda
try:
    import pycuda.driver
except ImportError as error:
    raise SystemExit(f"{pycuda.VERSION_TEXT} is installed and cannot be used: {error}")
print(pycuda.VERSION_TEXT)
"""
_COMPILERS = """
from musc_edge.kernels.compiler import compilers
names = [compiler.name for compiler in compilers()]
if not names:
    raise ModuleNotFoundError("neither NVRTC nor nvcc is here")
print(", ".join(names))
"""
_CACHE = """
from musc_edge.kernels.cubins import cache_folder, cached_cubins
unusable = []
current = [cubins for cubins in cached_cubins(notes=unusable) if cubins.current]
names = [f"{arch} by {entry.compiler}" for each in current for arch, entry in each.cubins.items()]
found = f"{', '.join(names) or 'none yet'} in {cache_folder()}"
if unusable:
    raise SystemExit(f"{found}; {' '.join(unusable)}")
print(found)
"""
_GPU, _ORT, _ONE_ORT = "NVIDIA GPU", "ONNX Runtime", "its packages"


@dataclass(frozen=True)
class Check:
    """A library to probe: the code for the child, what it is for, and how to get it."""

    name: str
    purpose: str
    code: str
    install: str
    required: bool = False


@dataclass(frozen=True)
class Finding:
    """The result of a check; ``status`` is ok, missing, broken or crashed."""

    name: str
    purpose: str
    status: str
    detail: str
    install: str
    required: bool


CHECKS = (
    Check("numpy", "mutual scoring", _VERSION.format("numpy"), "pip install musc-edge", required=True),
    Check(
        "Pillow",
        "reading and resizing images",
        _VERSION.format("PIL"),
        "pip install musc-edge",
        required=True,
    ),
    Check("OpenCV", "heatmaps", _VERSION.format("cv2"), "pip install musc-edge", required=True),
    Check(_ORT, "the ViT on the CPU, or with [gpu] on a GPU", _ONNXRUNTIME, "pip install 'musc-edge[cpu]'"),
    Check(
        _ONE_ORT,
        "one ONNX Runtime",
        _PACKAGES,
        "pip uninstall -y onnxruntime onnxruntime-gpu; pip install 'musc-edge[cpu]', or [gpu]",
    ),
    Check("numba", "faster mutual scoring", _VERSION.format("numba"), "pip install 'musc-edge[cpu,fast]'"),
    Check("onnx", "musc-export onnx", _VERSION.format("onnx"), "pip install 'musc-edge[cpu,onnx]'"),
    Check(_GPU, "any use of a GPU", _DRIVER, "a GPU with its driver"),
    Check(
        "pycuda",
        "comparing images on the GPU, and --backend tensorrt",
        _PYCUDA,
        "pip install 'musc-edge[cuda]', and the driver",
    ),
    Check(
        "TensorRT",
        "--backend tensorrt",
        _VERSION.format("tensorrt"),
        "JetPack on a Jetson, pip install 'musc-edge[tensorrt]' elsewhere",
    ),
    Check("TensorRT-RTX", "--backend tensorrt", _RTX, "pip install 'musc-edge[rtx]' (x86-64)"),
    Check(
        "CUDA compilers",
        "compiling kernels where the bundle has none",
        _COMPILERS,
        "pip install 'musc-edge[kernels]'",
    ),
    Check("kernel cache", "starting without compiling", _CACHE, "remove what is damaged"),
)


def examine(checks: tuple[Check, ...] = CHECKS) -> list[Finding]:
    """Probe every library, each in a child process, as many at once as there are cores."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(_probe, checks))


def report_text(findings: list[Finding]) -> str:
    """Format the findings as text for the terminal."""
    lines = [
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"{cores()} cores, {_memory()}",
        "",
    ]
    for f in findings:
        lines.append(f"  {f.status:<8} {f.name:<14} {f.detail}")
        if f.status != "ok":
            lines.append(f"  {'':8} {'':14} for {f.purpose}: {f.install}")
    lines += ["", _verdict(findings)]
    return "\n".join(lines)


def report_json(findings: list[Finding]) -> str:
    """Format the findings as JSON."""
    data = {
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cores": cores(),
        "can_infer": can_infer(findings),
        "backends": backends(findings),
        "findings": [asdict(f) for f in findings],
    }
    return json.dumps(data, indent=2)


def _probe(check: Check) -> Finding:
    try:
        child = subprocess.run(
            [sys.executable, "-c", check.code],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            cwd="/",  # a file of a library's name in the current folder is no library
            check=False,
        )
        status, detail = _judge(child)
    except subprocess.TimeoutExpired:
        status, detail = "crashed", f"did not answer within {_TIMEOUT_S} s"
    return Finding(check.name, check.purpose, status, detail, check.install, check.required)


def _judge(child: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """Tell status and detail from a child's exit code and output."""
    if child.returncode == 0:
        return "ok", child.stdout.strip()
    lines = child.stderr.strip().splitlines()
    last = lines[-1] if lines else f"exit code {child.returncode}"
    # A child that a signal has killed, as a crashing library does, has its number, negated, as exit code.
    if child.returncode < 0:
        return "crashed", f"killed by signal {-child.returncode} on import"
    if last.startswith(("ModuleNotFoundError: ", "OSError: libcuda.so.1: cannot open")):
        return "missing", last.partition(": ")[2]
    return "broken", last


def can_infer(findings: list[Finding]) -> bool:
    """Return whether everything that ``musc-edge infer`` needs works."""
    return not _lacking(findings)


def backends(findings: list[Finding]) -> list[str]:
    """Return the backends whose libraries work here."""
    ok = {f.name: f.detail for f in findings if f.status == "ok"}
    works = {
        "tensorrt": _GPU in ok and "pycuda" in ok and ("TensorRT" in ok or "TensorRT-RTX" in ok),
        "cuda": _GPU in ok and "CUDA" in ok.get(_ORT, "") and _ONE_ORT in ok,
        "cpu": _ORT in ok,
    }
    return [name for name, there in works.items() if there]


def _lacking(findings: list[Finding]) -> list[str]:
    """Return what must work first: required libraries, and one that runs the ViT."""
    lacking = [f.name for f in findings if f.required and f.status != "ok"]
    runtime = [f.name for f in findings if f.name == _ORT and f.status != "ok"]
    return lacking if backends(findings) else lacking + runtime


def _verdict(findings: list[Finding]) -> str:
    lacking = _lacking(findings)
    if lacking:
        return f"This machine cannot run musc-edge infer yet: see {', '.join(lacking)} above."
    lines = [f"This machine can run musc-edge infer. {_gpu_verdict(findings)}"]
    found = backends(findings)
    if found:
        lines.append(f"The ViT runs with --backend {' or '.join(found)}.")
    if set(found) - {"cpu"}:
        lines.append(_NEVER_RUN)
    return "\n".join(lines)


def _gpu_verdict(findings: list[Finding]) -> str:
    by_name = {f.name: f for f in findings}
    gpu, pycuda = by_name.get(_GPU), by_name.get("pycuda")
    if gpu is None or gpu.status != "ok":
        return "It has no NVIDIA GPU that can be used: images are compared on the CPU."
    if pycuda is None or pycuda.status != "ok":
        return "Its GPU is not used without pycuda: images are compared on the CPU."
    return "Images are compared on its GPU."


def _memory() -> str:
    from ..runtime.memory import available_memory

    return f"{available_memory() / 1e9:.1f} GB of memory free"
