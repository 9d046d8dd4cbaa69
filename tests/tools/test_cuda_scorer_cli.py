"""``musc-edge --scorer cuda`` on real images with the real ViT: on an emulated GPU, and without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from musc_edge.kernels import driver
from musc_edge.runtime import scorers
from musc_edge.runtime.errors import DeviceError
from musc_edge.tools.demo import read_scores
from musc_edge.tools.edge import main
from support.bad_input import Place
from support.emulated_gpu import EmulatedGpu
from support.fake_libcuda import FakeCuda
from support.fake_onnxruntime import FakeOnnxRuntime, install_onnxruntime

OUTPUTS: dict[str, tuple[str, ...]] = {"resident": (), "copied": ("--resume",)}


@pytest.fixture
def infer(place: Place, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Path, str]]:
    def run(name: str, *options: str) -> tuple[int, Path, str]:
        out = place.root / name
        code = main(["infer", str(place.lot), "-b", str(place.bundle), "-o", str(out), *options])
        printed = capsys.readouterr()
        return code, out, printed.out + printed.err

    return run


@pytest.mark.usefixtures("emulated_gpu")
@pytest.mark.slow
def test_scores_of_the_gpu_are_those_of_the_cpu(infer: Callable[..., tuple[int, Path, str]]) -> None:
    _, by_cpu, _ = infer("cpu", "--scorer", "numpy")
    code, by_gpu, printed = infer("gpu", "--scorer", "cuda", "--device-memory", "100M")
    assert code == 0
    assert "GPU: " in printed
    assert "every pair compared once" in printed
    expected, found = (read_scores(out / "scores.csv", "raw_score") for out in (by_cpu, by_gpu))
    assert found == pytest.approx(expected, abs=1e-4)
    about: dict[str, Any] = json.loads((by_gpu / "lot.json").read_text())
    assert about["scorer"] == "cuda"
    assert about["versions"]["computed_by"][1].startswith("cuda sm_00 ")
    assert about["plan"]["device"]["memory_bytes"] <= 10**8 == about["plan"]["device"]["budget"]


@pytest.mark.usefixtures("emulated_gpu")
@pytest.mark.slow
def test_int8_is_compared_where_it_is_asked_for(infer: Callable[..., tuple[int, Path, str]]) -> None:
    """Its scores are near those of half precision, not the same; lot.json says by which they came about."""
    outs = {}
    for name in ("half", "int8"):
        code, outs[name], printed = infer(name, "--scorer", "cuda", "--precision", name)
        assert code == 0, printed
        assert ("features in int8" in printed) == (name == "int8")
        about = json.loads((outs[name] / "lot.json").read_text())
        assert about["compared_in"] == about["plan"]["device"]["precision"] == name
        assert about["versions"]["computed_by"][1].endswith(" int8") == (name == "int8")
    half, int8 = (read_scores(out / "scores.csv", "raw_score") for out in outs.values())
    assert int8 == pytest.approx(half, abs=3e-3)
    assert int8 != half
    plain = infer("plain", "--scorer", "cuda")[1]
    assert (plain / "scores.csv").read_bytes() == (outs["half"] / "scores.csv").read_bytes()


@pytest.mark.parametrize("scorer", ["auto", "numpy", "numba"])
@pytest.mark.parametrize("precision", ["half", "int8"])
def test_a_precision_is_refused_for_other_scorers(
    infer: Callable[..., tuple[int, Path, str]], scorer: str, precision: str
) -> None:
    code, out, printed = infer("other", "--scorer", scorer, "--precision", precision)
    assert code == 2
    assert f"--precision {precision} is for --scorer cuda" in printed
    assert f"the scorer is {scorer}" in printed
    assert not out.exists()


@pytest.mark.long
@pytest.mark.usefixtures("emulated_gpu")
@pytest.mark.slow
def test_kept_work_of_one_precision_is_not_gone_on_with_in_another(
    infer: Callable[..., tuple[int, Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted run in half precision leaves layers behind; int8 scores them anew."""

    def interrupted(*_: object, **__: object) -> None:
        raise OSError("interrupted before results are written")

    fresh = infer("fresh", "--scorer", "cuda", "--precision", "int8")[1]
    with monkeypatch.context() as patch:
        patch.setattr("musc_edge.tools.infer.write_results", interrupted, raising=False)
        patch.setattr("musc_edge.runtime.results.write.write_results", interrupted)
        code, out, printed = infer("kept", "--scorer", "cuda", "--resume")
    assert code != 0
    assert "is kept in" in printed
    code, out, printed = infer("kept", "--scorer", "cuda", "--precision", "int8", "--resume")
    assert code == 0, printed
    assert (out / "scores.csv").read_bytes() == (fresh / "scores.csv").read_bytes()


@pytest.mark.usefixtures("emulated_gpu")
@pytest.mark.slow
def test_where_the_features_lie_changes_no_byte(infer: Callable[..., tuple[int, Path, str]]) -> None:
    """On the device from the ViT on; or in a file, from which an interrupted run could go on."""
    resident, copied = (infer(name, "--scorer", "cuda", *more)[1] for name, more in OUTPUTS.items())
    plans = [json.loads((out / "lot.json").read_text())["plan"] for out in (resident, copied)]
    assert [plan["device"]["holds_tokens"] for plan in plans] == [True, False]
    assert [plan["tokens_on_disk"] for plan in plans] == [False, True]
    assert (resident / "scores.csv").read_bytes() == (copied / "scores.csv").read_bytes()


@pytest.mark.usefixtures("emulated_gpu")
@pytest.mark.slow
def test_a_vit_on_the_gpu_writes_its_tokens_where_they_are_compared(
    infer: Callable[..., tuple[int, Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them passes through the host's memory, and no byte of the result changes."""
    by_host = infer("host", "--backend", "cpu", "--scorer", "cuda")[1]
    runtime = FakeOnnxRuntime()
    monkeypatch.setattr(driver, "_load", lambda: FakeCuda("Fake GPU"))
    install_onnxruntime(monkeypatch, runtime)
    code, direct, printed = infer("direct", "--backend", "cuda", "--scorer", "cuda", "--batch", "3")
    assert code == 0, printed
    assert (direct / "scores.csv").read_bytes() == (by_host / "scores.csv").read_bytes()
    bound = [bound for bound in runtime.bound if bound[0] != "cls"]
    warm_ups, batches = bound[:-3], bound[-3:]  # the ViT is also timed before the plan
    assert set(warm_ups) == {("tokens_1", "cpu")}
    assert batches == [("tokens_1", "cuda")] * 3
    assert json.loads((direct / "lot.json").read_text())["backend"] == "cuda"


@pytest.mark.long
@pytest.mark.slow
def test_where_the_kernels_came_from_is_said(
    infer: Callable[..., tuple[int, Path, str]],
    kernel_library: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Compiled in the first run, in the cache for the second; what the device is given is a cubin."""
    given: list[bytes] = []

    class Orin(EmulatedGpu):
        def load(self, cubin: bytes, arch: str) -> None:
            given.append(cubin)

    monkeypatch.setattr(scorers, "PycudaGpu", lambda: Orin(kernel_library, arch="sm_87"))
    monkeypatch.setattr(scorers, "import_driver", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, place in (("first", "compiler"), ("second", "cache")):
        code, out, printed = infer(name, "--scorer", "cuda")
        assert code == 0
        (note,) = (n for n in json.loads((out / "lot.json").read_text())["notes"] if "kernels" in n)
        assert note.startswith("the GPU's kernels are those for sm_87 by NVRTC 12.6")
        assert note.endswith(f", from the {place}.")
        assert note in printed
    assert [cubin[:4] for cubin in given] == [b"\x7fELF"] * 2


@pytest.mark.usefixtures("emulated_gpu")
def test_a_gpu_that_is_too_small_is_said_with_what_it_needs(
    infer: Callable[..., tuple[int, Path, str]],
) -> None:
    code, out, printed = infer("small", "--scorer", "cuda", "--device-memory", "100K")
    assert code == 6
    assert "100 kB of device memory is too little for 8 images" in printed
    assert not out.exists()


def test_auto_says_why_the_gpu_is_not_used(
    infer: Callable[..., tuple[int, Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bundle_root: Path | None, notes: list[str]) -> Any:
        raise DeviceError("the driver is older than the toolkit.")

    monkeypatch.setattr(scorers, "open_gpu", broken)
    monkeypatch.setattr(scorers, "find_spec", lambda name: object())
    code, out, printed = infer("auto")
    assert code == 0
    assert "the GPU does not compare the images: the driver is older than the toolkit." in printed
    assert json.loads((out / "lot.json").read_text())["scorer"] in ("numba", "numpy")


def test_cuda_without_pycuda_is_refused_with_the_cure(infer: Callable[..., tuple[int, Path, str]]) -> None:
    code, out, printed = infer("none", "--scorer", "cuda")
    assert code == 5
    assert "pycuda cannot be used" in printed
    assert "pip install 'musc-edge[cuda]'" in printed or "nvidia-smi" in printed
    assert not out.exists()


def test_plans_for_devices_need_none(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "2000", "-b", str(place.bundle), "--devices", "110M,8G"]
    assert main(command) == 0
    small, large = capsys.readouterr().out.splitlines()
    assert small.startswith("  110 MB: ")
    assert "panels of" in small
    assert large.startswith("  8.0 GB: ")
    assert "every pair compared once" in large
    assert main([*command, "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert plans["8000000000"]["comparisons"] == 1
    assert plans["110000000"]["memory_bytes"] <= 110 * 10**6
    int8 = ["--scorer", "cuda", "--precision", "int8"]
    assert main([*command, "--json", *int8]) == 0
    halved = json.loads(capsys.readouterr().out)["8000000000"]
    assert halved["precision"] == "int8"
    assert halved["feature_bytes"] < plans["8000000000"]["feature_bytes"]
    assert main([*command, *int8[2:]]) == 2
    assert "--precision int8 is for --scorer cuda" in capsys.readouterr().err
