"""``musc-edge doctor``: what this machine can run, and what to install for the rest.

Every library is imported in a process of its own, so that one that crashes is a finding and not the
end of the report.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass

from ..runtime.parallel import cores

_TIMEOUT_S = 60

# The child prints one line: a version and what else is worth knowing.
_VERSION = "import {0}; print({0}.__version__)"
_ONNXRUNTIME = """
import onnxruntime as ort
ort.set_default_logger_severity(4)
providers = [p.removesuffix("ExecutionProvider") for p in ort.get_available_providers()]
print(ort.__version__, "with", ", ".join(providers))
"""
_DRIVER = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
count, code = ctypes.c_int(), cuda.cuInit(0)
if code or (code := cuda.cuDeviceGetCount(ctypes.byref(count))):
    raise SystemExit(f"the CUDA driver answers with error {code}")
names = []
for i in range(count.value):
    name, device = ctypes.create_string_buffer(100), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), i)
    cuda.cuDeviceGetName(name, 100, device)
    names.append(name.value.decode())
if not names:
    raise SystemExit("the CUDA driver finds no device")
print(", ".join(names))
"""


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
    """What probing gave: ``status`` is ok, missing, broken or crashed."""

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
    Check("ONNX Runtime", "the ViT on the CPU", _ONNXRUNTIME, "pip install 'musc-edge[cpu]'", required=True),
    Check("numba", "faster mutual scoring", _VERSION.format("numba"), "pip install 'musc-edge[cpu,fast]'"),
    Check("onnx", "musc-export onnx", _VERSION.format("onnx"), "pip install 'musc-edge[cpu,onnx]'"),
    Check("NVIDIA driver", "not used by this version", _DRIVER, "install the GPU's driver"),
)


def examine(checks: tuple[Check, ...] = CHECKS) -> list[Finding]:
    """Probe every library, each in a child process."""
    return [_probe(check) for check in checks]


def report_text(findings: list[Finding]) -> str:
    """For people."""
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
    """For machines."""
    data = {
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cores": cores(),
        "can_infer": can_infer(findings),
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
    """Status and detail from a child's exit code and output."""
    if child.returncode == 0:
        return "ok", child.stdout.strip()
    lines = child.stderr.strip().splitlines()
    last = lines[-1] if lines else f"exit code {child.returncode}"
    if child.returncode < 0:
        return "crashed", f"killed by signal {-child.returncode} on import"
    if last.startswith("ModuleNotFoundError") or "libcuda.so.1: cannot open" in last:
        return "missing", last.partition(": ")[2]
    return "broken", last


def can_infer(findings: list[Finding]) -> bool:
    """Whether everything that ``musc-edge infer`` needs works."""
    return all(f.status == "ok" for f in findings if f.required)


def _verdict(findings: list[Finding]) -> str:
    if can_infer(findings):
        return "This machine can run musc-edge infer on the CPU. A GPU is not used by this version."
    broken = ", ".join(f.name for f in findings if f.required and f.status != "ok")
    return f"This machine cannot run musc-edge infer yet: see {broken} above."


def _memory() -> str:
    from ..runtime.memory import available_memory

    return f"{available_memory() / 1e9:.1f} GB of memory free"
