"""``musc-edge doctor``: every library in a process of its own; a crash is a finding."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from musc_edge.export.kernels import add_kernels
from musc_edge.kernels import compiler
from musc_edge.kernels.cubins import find_cubin
from musc_edge.kernels.cuda_source import ARCHES
from musc_edge.runtime.errors import DeviceError
from musc_edge.tools.doctor import (
    CHECKS,
    Check,
    Finding,
    backends,
    can_infer,
    examine,
    rehearsed,
    report_text,
)
from musc_edge.tools.rehearsal import rehearsal_text, rehearse
from support.command_line import run_here
from support.signing import new_pair
from support.sources import quiet

ONNXRUNTIME = ("numpy", "Pillow", "OpenCV", "ONNX Runtime", "its packages")
"""Checks that what is wrong with ONNX Runtime could change the verdict of."""


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let doctor examine these alone: each is a process."""
    checks = tuple(check for check in CHECKS if check.name in names)
    assert len(checks) == len(names)
    monkeypatch.setattr("musc_edge.tools.doctor.examine", partial(examine, checks))


def test_healthy_machine(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [str(commands / "musc-edge"), "doctor"]
    run = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    data = json.loads(run.stdout)
    assert data["can_infer"]
    assert {f["status"] for f in data["findings"] if f["required"]} == {"ok"}
    findings = [Finding(**given) for given in data["findings"]]
    monkeypatch.setattr("musc_edge.tools.doctor.examine", lambda: findings)
    monkeypatch.setattr("musc_edge.tools.doctor.rehearsed", lambda: data["infer"])
    shown = run_here(command)
    assert shown.returncode == 0
    text = shown.stdout
    assert "can run musc-edge infer" in text
    assert all(check.name in text for check in CHECKS)
    assert "'musc-edge infer LOT_DIR' would now\n" in text
    (gpu,) = (f for f in data["findings"] if f["name"] == "NVIDIA GPU")
    assert ("no NVIDIA GPU that can be used" in text) == (gpu["status"] != "ok")


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        pytest.param("import os; os.abort()", "crashed", "signal 6", marks=pytest.mark.long),
        ("raise ImportError('libfoo.so.3: cannot open')", "broken", "libfoo.so.3"),
        ("raise ModuleNotFoundError(\"No module named 'onnxruntime'\")", "missing", "No module named"),
    ],
)
def test_bad_library_is_a_finding(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, status: str, word: str
) -> None:
    (tmp_path / "onnxruntime.py").write_text(body, encoding="ascii")
    only(monkeypatch, *ONNXRUNTIME)
    run = run_here([str(commands / "musc-edge"), "doctor", "--json"], env={"PYTHONPATH": str(tmp_path)})
    assert run.returncode == 5
    data = json.loads(run.stdout)
    (found,) = (f for f in data["findings"] if f["name"] == "ONNX Runtime")
    assert found["status"] == status
    assert word in found["detail"]
    assert not data["can_infer"]
    text = report_text([Finding(**given) for given in data["findings"]], data["infer"])
    assert "cannot run musc-edge infer yet: see ONNX Runtime" in text
    assert "pip install 'musc-edge[cpu]'" in text


def test_library_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musc_edge.tools.doctor._TIMEOUT_S", 0.5)
    (finding,) = examine((Check("slow", "nothing", "import time; time.sleep(60)", "wait"),))
    assert finding.status == "crashed"
    assert "0.5 s" in report_text([finding], {})


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
    return report_text(examine(tuple(c for c in CHECKS if c.name in ("NVIDIA GPU", "pycuda"))), {})


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


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.slow
def test_what_is_good_in_the_cache_is_listed_beside_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_cubin("sm_87").origin == "compiler"
    (good,) = (tmp_path / "musc-edge" / "kernels").iterdir()
    damaged, open_to_all = (shutil.copytree(good, good.with_name(f"{arch}-0")) for arch in ("sm_90", "sm_80"))
    (damaged / "kernels.json").write_text("{", encoding="ascii")
    open_to_all.chmod(0o777)
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
    text = report_text(findings, {})
    assert ("tensorrt has never run on a GPU" in text) == ("tensorrt" in works)
    assert "run on one H100" not in text


def test_onnxruntime_with_cuda_needs_the_driver_and_one_package() -> None:
    runtime = finding("ONNX Runtime", detail="1.31 with TensorRT, CUDA, CPU")
    assert backends([runtime]) == ["cpu"]
    assert backends([runtime, finding("NVIDIA GPU")]) == ["cpu"]
    findings = [runtime, finding("NVIDIA GPU"), finding("its packages")]
    assert backends(findings) == ["cuda", "cpu"]
    text = report_text(findings, {})
    assert "cuda has run on one H100 so far" in text
    assert "tensorrt has never" not in text


def test_both_packages_of_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They overwrite each other's files; which of the two works is chance."""
    info = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    (found,) = examine(tuple(c for c in CHECKS if c.name == "its packages"))
    assert (found.status, "overwrite each other" in found.detail) == ("broken", True)
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found.install


# ---- what infer would do ---------------------------------------------------------------------


def test_without_a_bundle_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("MUSC_EDGE_BUNDLE", raising=False)
    facts = rehearse()
    assert (facts["exit_code"], set(facts)) == (4, {"error", "exit_code"})
    text = report_text([finding("ONNX Runtime")], facts)
    assert "would now\n  end with exit code 4: no bundle given" in text


@pytest.mark.slow
def test_what_infer_would_take(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSC_EDGE_BUNDLE", str(tiny_bundle))
    facts = rehearsed()
    assert (facts["bundle"], facts["from"]) == (str(tiny_bundle), "$MUSC_EDGE_BUNDLE")
    assert facts["vit"].startswith("cpu (ONNX Runtime ")
    assert facts["scorer"].startswith("numba ")
    assert "error" not in facts
    lines = rehearsal_text(facts)
    assert len(lines) == 4
    assert all(facts[name] in "\n".join(lines) for name in ("bundle", "backbone", "vit", "scorer"))


def test_a_damaged_bundle_is_found_before_it_is_needed(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    monkeypatch.setenv("MUSC_EDGE_BUNDLE", str(damaged))
    (damaged / "model.onnx").write_bytes(b"")
    assert rehearse()["exit_code"] == 4
    assert "was changed since it was written" in rehearsal_text(rehearse())[-1]


def test_a_crash_of_the_rehearsal_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musc_edge.tools.doctor._REHEARSAL", "import os; os.abort()")
    assert "killed by signal 6" in rehearsed()["error"]


# ---- one check for doctor and musc-export ----------------------------------------------------

OLD_COMPILER = """
import musc_edge.kernels.compiler as compiler
class Nvcc:
    name, major, arches = "nvcc 13.9", 13, frozenset({"sm_87", "sm_120"})
compiler.compilers = lambda: iter([Nvcc()])
"""


def test_a_compiler_that_musc_export_refuses_is_not_ok(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (check,) = (c for c in CHECKS if c.name == "CUDA compilers")
    (found,) = examine((dataclasses.replace(check, code=OLD_COMPILER + check.code.partition("\n")[2]),))
    spaces: dict[str, Any] = {}
    with monkeypatch.context() as patched:
        patched.setattr(compiler, "compilers", compiler.compilers)
        exec(OLD_COMPILER, spaces)
        with pytest.raises(DeviceError) as refused:
            add_kernels(str(tiny_bundle), tuple(ARCHES), say=quiet)
    assert found.status == "partly"
    assert found.detail == f"nvcc 13.9; musc-export kernels would end with: {refused.value}"


def test_fonts_that_lack_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    (found,) = examine(tuple(c for c in CHECKS if c.name == "fonts"))
    assert found.status == "missing"
    assert "fonts-noto-core" in found.install


def test_what_a_line_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = (c for c in CHECKS if c.name == "line")
    (found,) = examine((check,))
    assert found.status == "ok"
    assert "paho-mqtt" in found.detail
    without = "import importlib.util as u\n"
    without += "find = u.find_spec\nu.find_spec = lambda name: None if name == 'uvicorn' else find(name)\n"
    (found,) = examine((replace(check, code=without + check.code),))
    assert (found.status, found.detail) == ("partly", "not installed: uvicorn [serve]")
    assert found.install == "pip install 'musc-edge[watch]', and [serve] and [mqtt] as well"


def test_a_required_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with a key is not mended by installing cryptography."""
    pytest.importorskip("cryptography", reason="the extra [sign] is not installed")
    new_pair(tmp_path, "maker")
    monkeypatch.chdir(tmp_path)
    checks = tuple(check for check in CHECKS if check.name in ("signatures", "required keys"))
    for given, status, word in (
        (None, "ok", "none"),
        ("maker.pub.pem", "ok", f"requires one of: {tmp_path}/maker.pub.pem"),
        ("", "broken", "is empty"),
        ("nowhere.pem", "broken", f"{tmp_path}/nowhere.pem cannot be read"),
    ):
        monkeypatch.delenv("MUSC_EDGE_REQUIRE_SIGNATURE", raising=False)
        if given is not None:
            monkeypatch.setenv("MUSC_EDGE_REQUIRE_SIGNATURE", given)
        library, required = examine(checks)
        assert (library.status, required.status) == ("ok", status)
        assert word in required.detail
        assert "$MUSC_EDGE_REQUIRE_SIGNATURE" in required.install
    assert "pip install" not in required.install


def test_relative_paths_hold_in_the_folder_where_doctor_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("MUSC_EDGE_BUNDLE", "MUSC_EDGE_REQUIRE_SIGNATURE", "MUSC_EDGE_DEVICE_KEY")
    for name, value in zip(names, ("a:b", "c:/d", ""), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    code = f"import os; print(*(os.environ[name] for name in {names}), sep=' ')"
    (found,) = examine((Check("paths", "", code, ""),))
    assert found.detail == f"{tmp_path}/a:b {tmp_path}/c:/d"


def test_what_is_not_ok_says_for_which_command() -> None:
    commands = (
        r"every command|infer|plan|musc-export|musc-bench|--backend|--scorer|watch|file names|the same|ONNX"
    )
    assert [c.name for c in CHECKS if not re.search(commands, c.purpose)] == []
