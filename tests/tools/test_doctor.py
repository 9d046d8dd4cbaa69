"""``musc-edge doctor``: every library in a process of its own; a crash is a finding."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from musc_edge.kernels.cubins import find_cubin
from musc_edge.tools.doctor import CHECKS, Check, Finding, backends, can_infer, examine, report_text


def doctor(commands: Path, *options: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    command = [str(commands / "musc-edge"), "doctor", *options]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_healthy_machine(commands: Path) -> None:
    run = doctor(commands, "--json")
    assert run.returncode == 0
    data = json.loads(run.stdout)
    assert data["can_infer"]
    assert {f["status"] for f in data["findings"] if f["required"]} == {"ok"}
    text = doctor(commands).stdout
    assert "can run musc-edge infer" in text
    assert all(check.name in text for check in CHECKS)
    (gpu,) = (f for f in data["findings"] if f["name"] == "NVIDIA GPU")
    assert ("no NVIDIA GPU that can be used" in text) == (gpu["status"] != "ok")


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ("import os; os.abort()", "crashed", "signal 6"),
        ("raise ImportError('libfoo.so.3: cannot open')", "broken", "libfoo.so.3"),
        ("raise ModuleNotFoundError(\"No module named 'onnxruntime'\")", "missing", "No module named"),
    ],
)
def test_bad_library_is_a_finding(commands: Path, tmp_path: Path, body: str, status: str, word: str) -> None:
    (tmp_path / "onnxruntime.py").write_text(body, encoding="ascii")
    run = doctor(commands, "--json", path=tmp_path)
    assert run.returncode == 5
    data = json.loads(run.stdout)
    (found,) = (f for f in data["findings"] if f["name"] == "ONNX Runtime")
    assert found["status"] == status
    assert word in found["detail"]
    assert not data["can_infer"]
    text = report_text([Finding(**given) for given in data["findings"]])
    assert "cannot run musc-edge infer yet: see ONNX Runtime" in text
    assert "pip install 'musc-edge[cpu]'" in text


def test_library_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musc_edge.tools.doctor._TIMEOUT_S", 0.5)
    (finding,) = examine((Check("slow", "nothing", "import time; time.sleep(60)", "wait"),))
    assert finding.status == "crashed"
    assert "0.5 s" in report_text([finding])


# ---- the GPU ---------------------------------------------------------------------------------

_CUDA = """
#include <string.h>
int cuInit(unsigned flags) { return CODE; }
int cuDeviceGetCount(int* count) { *count = COUNT; return 0; }
int cuDriverGetVersion(int* version) { *version = 12060; return 0; }
int cuDeviceGet(int* device, int number) { *device = number; return 0; }
int cuDeviceGetName(char* name, int size, int device) { strncpy(name, "Orin", size); return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
  return 0;
}
"""


def findings_with_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, count: int) -> str:
    """The report on a machine with a driver that answers so."""
    (folder / "cuda.c").write_text(_CUDA, encoding="ascii")
    command = ["g++", "-x", "c", "-shared", "-fPIC", f"-DCODE={code}", f"-DCOUNT={count}", "cuda.c"]
    subprocess.run([*command, "-o", "libcuda.so.1"], cwd=folder, check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    return report_text(examine(tuple(c for c in CHECKS if c.name in ("NVIDIA GPU", "pycuda"))))


@pytest.mark.usefixtures("host_compiler")
def test_gpu_and_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").write_text("VERSION_TEXT = '2026.1'", encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    text = findings_with_driver(tmp_path, monkeypatch, 0, 2)
    assert "ok       NVIDIA GPU     Orin (sm_87), Orin (sm_87), driver for CUDA 12.6\n" in text
    assert "broken   pycuda         2026.1 is installed and cannot be used: No module named" in text
    assert "Its GPU is not used without pycuda: images are compared on the CPU." in text
    (tmp_path / "pycuda" / "driver.py").touch()
    assert "Images are compared on its GPU." in findings_with_driver(tmp_path, monkeypatch, 0, 1)


def test_pycuda_without_a_driver_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is, and pip would not bring it."""
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").write_text("VERSION_TEXT = '2026.1'", encoding="ascii")
    error = "libcuda.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "pycuda" / "driver.py").write_text(f"raise ImportError({error!r})", encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    (found,) = examine(tuple(c for c in CHECKS if c.name == "pycuda"))
    assert (found.status, found.detail) == ("broken", f"2026.1 is installed and cannot be used: {error}")


@pytest.mark.parametrize(
    ("code", "count", "word"), [(999, 1, "answers with error 999"), (0, 0, "finds no GPU")]
)
@pytest.mark.usefixtures("host_compiler")
def test_a_driver_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, count: int, word: str
) -> None:
    text = findings_with_driver(tmp_path, monkeypatch, code, count)
    assert word in text
    assert "no NVIDIA GPU that can be used: images are compared on the CPU" in text


@pytest.mark.slow
def test_compilers_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    about = tuple(c for c in CHECKS if c.name in ("CUDA compilers", "kernel cache"))
    compilers, kept = examine(about)
    assert (compilers.status, kept.status) == ("ok", "ok")
    assert "NVRTC 12.6" in compilers.detail
    assert kept.detail == f"none yet in {tmp_path}/musc-edge/kernels"
    assert find_cubin("sm_87").origin == "compiler"
    assert examine(about)[1].detail.startswith("sm_87 by NVRTC 12.6")
    (folder,) = (tmp_path / "musc-edge" / "kernels").iterdir()
    (folder / "kernels.json").write_text("{", encoding="ascii")
    (_, damaged) = examine(about)
    assert damaged.status == "broken"
    assert f"rm -r {folder}" in damaged.detail


@pytest.mark.slow
def test_what_is_good_in_the_cache_is_listed_beside_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for arch in ("sm_87", "sm_90", "sm_80"):
        assert find_cubin(arch).origin == "compiler"
    cache = tmp_path / "musc-edge" / "kernels"
    next(cache.glob("sm_90-*/kernels.json")).write_text("{", encoding="ascii")
    next(cache.glob("sm_80-*")).chmod(0o777)
    (found,) = examine(tuple(c for c in CHECKS if c.name == "kernel cache"))
    assert found.status == "broken"
    assert found.detail.startswith("sm_87 by NVRTC 12.6")
    assert "kernels.json is not as it was written" in found.detail
    assert "everybody may write" in found.detail


# ---- backends --------------------------------------------------------------------------------


def finding(name: str, status: str = "ok", detail: str = "1.0", required: bool = False) -> Finding:
    return Finding(name, "", status, detail, "", required)


@pytest.mark.parametrize(
    ("names", "works"),
    [
        ([], []),
        (["ONNX Runtime"], ["cpu"]),
        (["ONNX Runtime", "TensorRT", "pycuda"], ["cpu"]),
        (["NVIDIA GPU", "pycuda", "TensorRT"], ["tensorrt"]),
        (["NVIDIA GPU", "pycuda", "TensorRT-RTX", "ONNX Runtime"], ["tensorrt", "cpu"]),
        (["NVIDIA GPU", "TensorRT", "ONNX Runtime"], ["cpu"]),
    ],
)
def test_backends_that_work(names: list[str], works: list[str]) -> None:
    runtime = [] if "ONNX Runtime" in names else [finding("ONNX Runtime", "missing")]
    findings = [finding("numpy", required=True), *runtime, *map(finding, names)]
    assert backends(findings) == works
    assert can_infer(findings) == bool(works)
    never = "never run on a GPU" in report_text(findings)
    assert never == ("tensorrt" in works)


def test_onnxruntime_with_cuda_needs_the_driver_and_one_package() -> None:
    runtime = finding("ONNX Runtime", detail="1.31 with TensorRT, CUDA, CPU")
    assert backends([runtime]) == ["cpu"]
    assert backends([runtime, finding("NVIDIA GPU")]) == ["cpu"]
    assert backends([runtime, finding("NVIDIA GPU"), finding("its packages")]) == ["cuda", "cpu"]


def test_both_packages_of_onnxruntime(commands: Path, tmp_path: Path) -> None:
    """They overwrite each other's files; which of the two works is chance."""
    info = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
    data = json.loads(doctor(commands, "--json", path=tmp_path).stdout)
    (found,) = (f for f in data["findings"] if f["name"] == "its packages")
    assert (found["status"], "overwrite each other" in found["detail"]) == ("broken", True)
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found["install"]
