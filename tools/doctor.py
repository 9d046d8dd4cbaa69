"""``musc-edge doctor``: report what this machine can run, and what to install for the rest.

Every library is imported in a process of its own, so that a crash is a finding and not the end of the
report.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from .._extras import install
from .._signatures import DEVICE_KEY, REQUIRED, TRUSTED_KEYS
from ..runtime.parallel import cores
from ..runtime.results.fonts import INSTALL
from .rehearsal import rehearsal_text

_TIMEOUT_S = 60
_MET = {
    "tensorrt": "The backend tensorrt has never run on a GPU so far: trust only 'musc-export verify'.",
    "cuda": "The backend cuda has run on one H100 so far: elsewhere trust only 'musc-export verify'.",
}
"""What is known of the backends that use a GPU."""

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
from musc_edge.kernels.compiler import compilers, uncompilable
from musc_edge.kernels.cuda_source import ARCHES
names = [compiler.name for compiler in compilers()]
if not names:
    raise ModuleNotFoundError("neither NVRTC nor nvcc is here")
refused = uncompilable(ARCHES)
if refused:
    raise SystemExit(f"partly: {', '.join(names)}; musc-export kernels would end with: {refused}")
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
_TORCH = """
from importlib import metadata
from musc_edge._extras import NEEDS, missing
lacking = missing({**NEEDS["musc-export clip"], **NEEDS["musc-export timm"]})
if lacking:
    raise ModuleNotFoundError(f"not installed: {', '.join(lacking)}")
print(", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "open_clip_torch", "timm")))
"""
_ONNX = """
import onnx
from musc_edge._extras import NEEDS, missing
lacking = missing(NEEDS["musc-export onnx"])
if lacking:
    raise ModuleNotFoundError(f"not installed: {', '.join(lacking)}")
print(onnx.__version__)
"""
_LINE = """
from importlib import metadata
from musc_edge._extras import NEEDS, missing
packages = {**NEEDS["musc-edge watch"], **NEEDS["musc-edge serve"], "paho": "mqtt"}
lacking = missing(packages)
if len(lacking) == len(packages):
    raise ModuleNotFoundError("none of their packages is installed")
if lacking:
    raise SystemExit("partly: not installed: " + ", ".join(f"{name} [{packages[name]}]" for name in lacking))
names = ("inotify_simple", "uvicorn", "starlette", "paho-mqtt")
print(", ".join(f"{name} {metadata.version(name)}" for name in names))
"""
_SIGNATURES = """
import cryptography
from cryptography.hazmat.primitives.asymmetric import ed25519
print("cryptography", cryptography.__version__)
"""
_REQUIRED_KEYS = """
from musc_edge._signatures import demands
from musc_edge._signing_keys import SignatureError
try:
    wanted = demands()
except SignatureError as error:
    raise SystemExit(f"nothing can be opened: {error}")
names = [f"{each.by} requires one of: {', '.join(map(str, each.keys))}" for each in wanted]
print("; ".join(names) or "none")
"""
_FONTS = """
from musc_edge.runtime.results.fonts import SAMPLES, font_with
lacking = [name for name, letters in SAMPLES.items() if font_with(letters) is None]
if len(lacking) == len(SAMPLES):
    raise ModuleNotFoundError("no font but Pillow's own, which has ASCII alone")
if lacking:
    raise SystemExit(f"partly: no letters of {', '.join(lacking)}")
print("letters of", ", ".join(SAMPLES))
"""
_PARTLY = "partly: "
"""What a child that finds a part of what it looks for ends with, and the reason."""
_REHEARSAL = "from musc_edge.tools.rehearsal import main; main()"
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
    """The result of a check; ``status`` is ok, partly, missing, broken or crashed."""

    name: str
    purpose: str
    status: str
    detail: str
    install: str
    required: bool


CHECKS = (
    Check("numpy", "every command", _VERSION.format("numpy"), "pip install musc-edge", required=True),
    Check("Pillow", "every command", _VERSION.format("PIL"), "pip install musc-edge", required=True),
    Check("OpenCV", "every command", _VERSION.format("cv2"), "pip install musc-edge", required=True),
    Check(
        _ORT,
        "the ViT of infer, plan, musc-export and musc-bench on the CPU, or with [gpu] on a GPU",
        _ONNXRUNTIME,
        install("cpu"),
    ),
    Check(
        _ONE_ORT,
        "one ONNX Runtime",
        _PACKAGES,
        f"pip uninstall -y onnxruntime onnxruntime-gpu; {install('cpu')}, or [gpu]",
    ),
    Check("numba", "faster mutual scoring by infer", _VERSION.format("numba"), install("fast")),
    Check("onnx", "musc-export dinov2-small and onnx", _ONNX, install("onnx")),
    Check("torch", "musc-export clip and timm", _TORCH, install("export")),
    Check(
        "line",
        "musc-edge watch, serve, and --mqtt of both",
        _LINE,
        f"{install('watch')}, and [serve] and [mqtt] as well",
    ),
    Check(
        _GPU,
        "infer with --scorer cuda, --backend cuda or tensorrt, and musc-export engine",
        _DRIVER,
        "a GPU with its driver; everything else works without",
    ),
    Check(
        "pycuda", "infer with --scorer cuda or --backend tensorrt", _PYCUDA, f"{install('cuda')}, on a GPU"
    ),
    Check(
        "TensorRT",
        "--backend tensorrt, musc-export engine",
        _VERSION.format("tensorrt"),
        f"JetPack on a Jetson; {install('tensorrt')} elsewhere, or TensorRT-RTX in its place",
    ),
    Check(
        "TensorRT-RTX",
        "the same, in place of TensorRT; one of the two is enough",
        _RTX,
        f"{install('rtx')} (x86-64, not on a Jetson)",
    ),
    Check(
        "CUDA compilers",
        "musc-export kernels, and infer with --scorer cuda where the bundle has no kernels",
        _COMPILERS,
        install("kernels"),
    ),
    Check("kernel cache", "starting --scorer cuda without compiling", _CACHE, "remove what is damaged"),
    Check("signatures", "musc-export sign, and --require-signature", _SIGNATURES, install("sign")),
    Check(
        "required keys",
        "every command that opens a bundle",
        _REQUIRED_KEYS,
        f"mend the key or folder that is named, or whatever names it: ${REQUIRED}, {TRUSTED_KEYS}",
    ),
    Check("fonts", "file names on contact sheets and overlays, else shown as numbers", _FONTS, INSTALL),
)


def examine(checks: tuple[Check, ...] = CHECKS) -> list[Finding]:
    """Probe every library, each in a child process, as many at once as there are cores."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(_probe, checks))


def rehearsed() -> dict[str, Any]:
    """What ``musc-edge infer`` would do now, tried in a child process."""
    finding = _probe(Check("infer", "", _REHEARSAL, ""))
    if finding.status == "ok":
        facts: dict[str, Any] = json.loads(finding.detail)
        return facts
    return {"error": f"{finding.status}: {finding.detail}", "exit_code": 1}


def report_text(findings: list[Finding], rehearsal: dict[str, Any]) -> str:
    """Format the findings, and what ``infer`` would do, as text for the terminal."""
    lines = [
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"{cores()} cores, {_memory()}",
        "",
    ]
    for f in findings:
        lines.append(f"  {f.status:<8} {f.name:<14} {f.detail}")
        if f.status != "ok":
            lines.append(f"  {'':8} {'':14} for {f.purpose}: {f.install}")
    lines += ["", _verdict(findings), "", *rehearsal_text(rehearsal)]
    return "\n".join(lines)


def report_json(findings: list[Finding], rehearsal: dict[str, Any]) -> str:
    """Format the findings, and what ``infer`` would do, as JSON."""
    data = {
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cores": cores(),
        "can_infer": can_infer(findings),
        "backends": backends(findings),
        "infer": rehearsal,
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
            env=_environment(),
            check=False,
        )
        status, detail = _judge(child)
    except subprocess.TimeoutExpired:
        status, detail = "crashed", f"did not answer within {_TIMEOUT_S} s"
    return Finding(check.name, check.purpose, status, detail, check.install, check.required)


def _environment() -> dict[str, str]:
    """The environment for a child, which runs in another folder: with whole paths of bundle and keys."""
    env = dict(os.environ)
    for name in (REQUIRED, DEVICE_KEY, "MUSC_EDGE_BUNDLE"):
        if given := env.get(name):
            paths = given.split(os.pathsep) if name == REQUIRED else [given]
            with suppress(OSError):  # this folder is gone: then nothing is found from it
                env[name] = os.pathsep.join(map(os.path.abspath, filter(None, paths)))
    return env


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
    return ("partly", last.removeprefix(_PARTLY)) if last.startswith(_PARTLY) else ("broken", last)


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
    lines += [_MET[name] for name in found if name in _MET]
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
