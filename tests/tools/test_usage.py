"""Mistakes at the command line: two lines that help, and one exit code for one mistake in all commands."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest

from musc_edge.tools import arguments, cli, edge, export
from musc_edge.tools.bench import cli as bench
from support.command_line import Run, run_here
from support.lots import make_bundle, write_png
from support.places import ROOT

PARSERS = {"musc-edge": edge._parser, "musc-export": export._parser, "musc-bench": bench._parser}


def commands_of(tool: str) -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in PARSERS[tool]()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


EDGE = (
    "infer, plan, verdict, report, eval, reference, check, watch, serve, units, inspect, selftest or doctor"
)
COMMANDS = [(tool, name) for tool in PARSERS for name in commands_of(tool)]


def lines(run: Run) -> list[str]:
    """The two lines of a usage error."""
    assert (run.returncode, run.stdout) == (2, "")
    found = run.stderr.splitlines()
    assert len(found) == 2, run.stderr
    assert found[1].startswith(f"usage: {found[0].partition(':')[0]} ")
    assert found[1].endswith(" --help")
    return found


# ---- words -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("musc-edge infr LOT", f"'infr': expected {EDGE}; did you mean infer?"),
        ("musc-edge Doctor", "did you mean doctor?"),
        ("musc-edge zzz", f"there is no command 'zzz': expected {EDGE}"),
        ("musc-export verfy B", "did you mean verify?"),
        ("musc-bench scorrer", "did you mean scorer?"),
        ("musc-edge", "required: COMMAND"),
        ("musc-edge infer", "required: LOT_DIR"),
        ("musc-export onnx", "required: MODEL.onnx, -o/--out"),
        ("musc-edge infer LOT --map-format png", "tiff, png8 or png16; did you mean png8 or png16?"),
        ("musc-edge infer LOT --backend CPU", "did you mean cpu?"),
        ("musc-edge infer LOT --bit-depth 9", "'9': expected auto, 8, 10, 12, 14 or 16"),
        ("musc-export onnx M.onnx --layers 1 -o B --precision f16", "did you mean fp16?"),
        ("musc-edge infer LOT --map-frmat=png8", "no option --map-frmat; did you mean --map-format?"),
        ("musc-edge infer LOT --tint", "there is no option --tint"),
        ("musc-edge --json infer LOT", "--json stands before the command: put options behind its name"),
        ("musc-edge -b BUNDLE infer LOT", "-b stands before the command: put options behind its name"),
        ("musc-edge --bundle=BUNDLE infer LOT", "--bundle stands before the command: put"),
        ("musc-edge infer my lot", "'lot': put a name that has spaces into quotation marks"),
        ("musc-edge infer LOT --memory-budget 2", "2 bytes, too little for anything; did you mean 2G?"),
        ("musc-edge infer LOT --memory-budget 500", "did you mean 500M?"),
        ("musc-edge infer LOT --memory-budget 1", "1 byte, too little for anything; did you mean 1G?"),
        ("musc-edge infer LOT --memory-budget 2X", "'2X': expected an amount of memory such as 500M or 2G"),
        ("musc-edge infer LOT --memory-budget 1.2.3G", "expected an amount of memory"),
        ("musc-edge infer LOT --max-pixels 400", "did you mean 400M?"),
        ("musc-edge plan nowhere", "'nowhere': expected a number of images, or a folder of them"),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_in_two_lines(given: str, says: str) -> None:
    message, _ = lines(run_here(given.split()))
    assert says in message
    assert message.count("did you mean") == says.count("did you mean")


def test_a_folder_in_place_of_a_command_is_a_lot(tmp_path: Path) -> None:
    message, _ = lines(run_here(["musc-edge", str(tmp_path)]))
    assert message.endswith(f"; to score a folder: musc-edge infer {tmp_path}")


def test_the_line_of_usage_has_the_commands() -> None:
    _, usage = lines(run_here(["musc-edge"]))
    names = EDGE.replace(" or ", ", ").replace(", ", ",")
    assert usage == f"usage: musc-edge {{{names}}} [options]; more: musc-edge --help"


@pytest.mark.parametrize("option", ["--version", "--vers", "--help", "-h"])
def test_options_of_the_tool_stand_alone(option: str) -> None:
    run = run_here(["musc-edge", option])
    assert (run.returncode, run.stderr) == (0, "")


def test_the_line_of_usage_has_what_must_be_given() -> None:
    _, usage = lines(run_here(["musc-export", "onnx", "--name"]))
    assert usage == ("usage: musc-export onnx MODEL.onnx -o BUNDLE [options]; more: musc-export onnx --help")


@pytest.mark.parametrize(
    ("text", "amount"),
    [("2G", 2 * 10**9), ("2g", 2 * 10**9), ("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), (".5G", 5 * 10**8),
     ("500MB", 5 * 10**8), ("1e9", 10**9), ("2000000000", 2 * 10**9), ("1T", 10**12)],
)  # fmt: skip
def test_sizes_are_understood_as_people_write_them(text: str, amount: int) -> None:
    assert arguments.memory(text) == amount


# ---- help ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tool", "command"), COMMANDS)
def test_help_lists_the_exit_codes(tool: str, command: str) -> None:
    text = " ".join(commands_of(tool)[command].format_help().split())
    listed = re.findall(r"(?:exit codes: |; )(\d+) ", text[text.index("exit codes: ") :])
    assert {"0", "1", "2", "130"} <= set(listed)
    assert all(f"{code} {cli.EXIT_CODES[int(code)]}" in text for code in listed)


@pytest.mark.parametrize("tool", PARSERS)
def test_help_of_a_tool_lists_all_of_them(tool: str) -> None:
    text = " ".join(PARSERS[tool]().format_help().split())
    assert all(f"{code} {meaning}" in text for code, meaning in cli.EXIT_CODES.items())


def test_readme_promises_the_same_codes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    promised = re.search(r"\*\*Exit codes\*\*: (.*?)\.\n\n", text, re.DOTALL)
    assert promised
    pairs = [part.split(" ", 1) for part in " ".join(promised[1].split()).split(" · ")]
    assert {int(code): meaning for code, meaning in pairs} == cli.EXIT_CODES


# ---- one mistake, one code -------------------------------------------------------------------

NOWHERE = {
    "musc-edge infer": (["nowhere"], 2),
    "musc-edge plan": (["nowhere"], 2),
    "musc-edge verdict": (["nowhere"], 2),
    "musc-edge report": (["nowhere"], 2),
    "musc-edge eval": (["nowhere", "--truth", "nowhere"], 2),
    "musc-bench lot": (["nowhere"], 2),
    "musc-bench compare": (["nowhere", "nowhere"], 2),
    "musc-edge reference": (["nowhere", "-o", "ref"], 2),
    "musc-edge check": (["nowhere.png", "--reference", "nowhere"], 2),
    "musc-edge watch": (["nowhere", "--reference", "ref", "-o", "out"], 2),
    "musc-edge serve": (["--reference", "ref", "-b", "nowhere", "--port", "0"], 4),
    "musc-edge units": (["-o", "nowhere"], 2),
    "musc-edge inspect": (["nowhere"], 4),
    "musc-edge selftest": (["-b", "nowhere"], 4),
    "musc-bench check": (["nowhere.png"], 2),
    "musc-export verify": (["nowhere"], 4),
    "musc-export kernels": (["nowhere"], 4),
    "musc-export engine": (["nowhere"], 4),
    "musc-export keygen": (["-o", "nowhere/key.pem"], 2),
    "musc-export sign": (["bundle", "--key", "nowhere.pem"], 2),
    "musc-export onnx": (["nowhere.onnx", "--layers", "1", "-o", "out"], 4),
    "musc-export dinov2-small": (["--onnx", "nowhere.onnx", "-o", "out"], 4),
    "musc-bench backbone": (["-b", "nowhere"], 4),
}
"""What names something that is not there: 2, but 4 for bundles and source models, as README says."""
OTHERS = {
    *("musc-edge doctor", "musc-bench scorer", "musc-bench peak", "musc-bench startup"),
    *("musc-export clip", "musc-export timm"),
}
"""Commands that name nothing, or import torch before they look: test_export_torch_cli.py."""


def test_every_command_is_tried() -> None:
    assert {*NOWHERE, *OTHERS} == {f"{tool} {name}" for tool, name in COMMANDS}


@pytest.mark.parametrize("command", NOWHERE)
def test_what_is_not_there_has_one_code(command: str, tmp_path: Path) -> None:
    arguments, code = NOWHERE[command]
    run = run_here([*command.split(), *arguments], cwd=tmp_path)
    assert (run.returncode, "nowhere" in run.stderr) == (code, True), run.stderr
    assert len(run.stderr.splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("tool", "command"), COMMANDS)
def test_an_unknown_option_has_one_code(tool: str, command: str) -> None:
    needed = {"clip": ["--model", "M", "-o", "B"], "timm": ["--model", "M", "-o", "B"], "plan": ["20"]}
    given = needed.get(command) or NOWHERE.get(f"{tool} {command}", ([], 0))[0]
    message, _ = lines(run_here([tool, command, *given, "--jsno"]))
    assert message == f"{tool} {command}: there is no option --jsno; did you mean --json?"


@pytest.mark.parametrize("name", ["infer", "plan", "inspect"])
def test_no_default_bundle_is_4_everywhere(name: str, tmp_path: Path) -> None:
    write_png(tmp_path / "lot" / "1.png")
    given = {"infer": ["lot"], "plan": ["20"], "inspect": []}[name]
    env = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path), "MUSC_EDGE_BUNDLE": ""}
    run = run_here(["musc-edge", name, *given], cwd=tmp_path, env=env)
    assert (run.returncode, "musc-export" in run.stderr) == (4, True), run.stderr


# ---- folders where numbers or files were meant -----------------------------------------------


def test_plan_counts_the_images_of_a_folder(tmp_path: Path) -> None:
    for k in range(7):
        write_png(tmp_path / "lot" / f"{k}.png")
    options = ["-b", str(make_bundle(tmp_path / "bundle")), "--devices", "1G", "--json"]
    by_folder = run_here(["musc-edge", "plan", str(tmp_path / "lot"), *options])
    assert by_folder.returncode == 0, by_folder.stderr
    assert json.loads(by_folder.stdout) == json.loads(run_here(["musc-edge", "plan", "7", *options]).stdout)
    (tmp_path / "empty").mkdir()
    empty = run_here(["musc-edge", "plan", str(tmp_path / "empty"), *options])
    assert (empty.returncode, "no image was found" in empty.stderr) == (6, True)


def report(samples: dict[str, list[float]], **changes: Any) -> dict[str, Any]:
    parts = {"case": "startup", "settings": {}, "machine": {}, "versions": {}}
    return {"schema": 1, **parts, "samples": samples, **changes}


def test_compare_finds_the_reports_of_two_folders(tmp_path: Path) -> None:
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        text = json.dumps(report({"import": [seconds] * 9}))
        (tmp_path / name / "report.json").write_text(text, encoding="ascii")
    run = run_here(["musc-bench", "compare", "a", "b", "--json"], cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    (change,) = json.loads(run.stdout)["changes"]
    assert (change["before"], change["after"]) == (1.0, 2.0)
    files = run_here(["musc-bench", "compare", "a/report.json", "b/report.json", "--json"], cwd=tmp_path)
    assert files.stdout == run.stdout


def test_a_folder_without_a_report_is_named_with_the_file(tmp_path: Path) -> None:
    run = run_here(["musc-bench", "compare", str(tmp_path), str(tmp_path)])
    assert run.returncode == 2
    assert f"{tmp_path}/report.json cannot be read: No such file" in run.stderr
