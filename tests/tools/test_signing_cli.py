"""Keys, signatures and ``--require-signature`` on the command line: each step, and what a user sees."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from musc_edge import _signatures, _signing_keys
from musc_edge._files import write_whole
from musc_edge.kernels import compiler as compiler_module
from musc_edge.runtime.reference.manifest import FORMAT
from musc_edge.tools import edge, export
from musc_edge.tools.bench import cli as bench
from support.bad_input import Place
from support.command_line import Run, run_here
from support.lots import make_bundle, write_png
from support.places import ROOT
from support.signing import FakeCompiler, flip
from support.watching import make_reference

pytest.importorskip("cryptography", reason="the extra [sign] is not installed")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a bundle and nothing that is required."""
    monkeypatch.setattr(_signatures, "TRUSTED_KEYS", tmp_path / "trusted-keys")
    for name in ("MUSC_EDGE_REQUIRE_SIGNATURE", "MUSC_EDGE_DEVICE_KEY", "MUSC_EDGE_KEY_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    make_bundle(tmp_path / "bundle")
    return tmp_path


def ran(*command: str, code: int = 0, env: Mapping[str, str] | None = None) -> Run:
    run = run_here(command, env=env)
    assert run.returncode == code, run.stdout + run.stderr
    return run


def signed() -> None:
    ran("musc-export", "keygen", "-o", "maker.pem")
    ran("musc-export", "sign", "bundle", "--key", "maker.pem")


# ---- step by step ----------------------------------------------------------------------------


def test_keys_signature_and_check(folder: Path) -> None:
    made = ran("musc-export", "keygen", "-o", "maker.pem").stdout
    assert "public key maker.pub.pem" in made
    told = ran("musc-export", "sign", "bundle", "--key", "maker.pem").stdout
    assert told.startswith("signed bundle/manifest.json\n")
    assert "--require-signature maker.pub.pem" in told
    check = ("musc-edge", "inspect", "bundle", "--require-signature", "maker.pub.pem")
    assert "signed" in ran(*check).stdout
    flip(folder / "bundle/model.onnx")
    assert "model.onnx was changed" in ran(*check, code=4).stderr


def test_json(folder: Path) -> None:
    made = json.loads(ran("musc-export", "keygen", "-o", "maker.pem", "--json").stdout)
    assert {"private": "maker.pem", "public": "maker.pub.pem"}.items() <= made.items()
    told = json.loads(ran("musc-export", "sign", "bundle", "--key", "maker.pem", "--json").stdout)
    assert told == {
        "bundle": "bundle",
        "key": made["key"],
        "signed": ["bundle/manifest.json"],
        "left_out": [],
    }
    facts = json.loads(ran("musc-edge", "inspect", "bundle", "--json").stdout)
    assert facts["signed_by"] == {"manifest.json": [{"key": made["key"], "fits": True}]}


def test_another_key_and_none(folder: Path) -> None:
    signed()
    ran("musc-export", "keygen", "-o", "other.pem")
    inspect = ("musc-edge", "inspect", "bundle")
    message = ran(*inspect, "--require-signature", "other.pub.pem", code=4).stderr
    assert "is signed by" in message
    assert str(folder / "other.pub.pem") in message, "a process that is started elsewhere finds it too"
    both = ("--require-signature", "other.pub.pem", "--require-signature", "maker.pub.pem")
    ran(*inspect, *both)
    (folder / "bundle/manifest.json.sig").unlink()
    assert "is not signed" in ran(*inspect, *both, code=4).stderr
    ran(*inspect)


def test_the_option_is_gone_when_the_command_has_ended(folder: Path) -> None:
    signed()
    for before in (None, "before.pem"):
        with mock.patch.dict(os.environ, {"MUSC_EDGE_REQUIRE_SIGNATURE": before} if before else {}):
            assert edge.main(["inspect", "bundle", "--require-signature", "maker.pub.pem"]) == 0
            assert os.environ.get("MUSC_EDGE_REQUIRE_SIGNATURE") == before
    run = ran("musc-edge", "inspect", "bundle", code=4, env={"MUSC_EDGE_REQUIRE_SIGNATURE": "maker.pem"})
    assert "holds a private key" in run.stderr


def test_a_reference_has_no_signature(folder: Path) -> None:
    signed()
    (folder / "ref").mkdir()
    (folder / "ref/manifest.json").write_text(json.dumps({"format": FORMAT}))
    run = ran("musc-edge", "inspect", "ref", "--require-signature", "maker.pub.pem", code=2)
    assert "nobody signs a reference" in run.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.pem", "does not exist"),
        ("", "'' does not exist"),
        ("maker.pub.pem:other.pub.pem", "has a ':' in it"),
        ("long" * 100, "cannot be read (File name too long)"),
    ],
)
def test_keys_that_are_not_there_are_2(folder: Path, given: str, said: str) -> None:
    signed()
    shutil.copy("maker.pub.pem", "-")
    run = ran("musc-edge", "inspect", "bundle", "--require-signature", given, code=2)
    assert said in run.stderr


def test_a_working_folder_with_a_colon_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that says whose signature is required has one between keys."""
    signed()
    (folder / "line:3").mkdir()
    shutil.copy("maker.pub.pem", "line:3")
    monkeypatch.chdir("line:3")
    inspect = ("musc-edge", "inspect", "../bundle", "--require-signature")
    assert "line:3/maker.pub.pem', which has a ':' in it" in ran(*inspect, "maker.pub.pem", code=2).stderr
    ran(*inspect, "../maker.pub.pem")


def test_without_cryptography_it_is_5_and_never_a_silent_pass(folder: Path) -> None:
    signed()
    with mock.patch.dict(sys.modules, {"cryptography.hazmat.primitives": None}):
        run = ran("musc-edge", "inspect", "bundle", "--require-signature", "maker.pub.pem", code=5)
        assert "pip install 'musc-edge[sign]'" in run.stderr
        assert "[sign]" in ran("musc-export", "keygen", "-o", "new.pem", code=5).stderr
        assert "[sign]" in ran("musc-export", "sign", "bundle", "--key", "maker.pem", code=5).stderr
        assert "not checked: cryptography" in ran("musc-edge", "inspect", "bundle").stdout


def test_a_device_with_trusted_keys(folder: Path) -> None:
    """It requires a signature of every command, without an option."""
    signed()
    (folder / "trusted-keys").mkdir()
    shutil.copy("maker.pub.pem", "trusted-keys")
    ran("musc-edge", "inspect", "bundle")
    (folder / "bundle/manifest.json.sig").unlink()
    assert "trusted-keys requires a signature" in ran("musc-edge", "inspect", "bundle", code=4).stderr
    ran("musc-export", "sign", "bundle", "--key", "maker.pem")
    ran("musc-edge", "inspect", "bundle")


def test_the_check_by_openssl_that_the_page_shows(folder: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, a package of Debian, is not installed")
    signed()
    shutil.copy("maker.pub.pem", "bundle")
    page = (ROOT / "docs/signing.md").read_text(encoding="utf-8")
    shown = page.split("is checked by openssl 3:\n\n```\n")[1].split("```")[0]
    for code, edit in ((0, None), (1, "manifest.json")):
        if edit:
            flip(folder / "bundle" / edit)
        run = subprocess.run(
            ["bash", "-ec", shown], cwd="bundle", capture_output=True, text=True, check=False
        )
        assert (run.returncode, "Verified Successfully" in run.stdout) == (code, code == 0), run.stderr


def test_what_is_made_in_a_signed_bundle_is_said_not_to_be_signed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler_module, "compilers", lambda: iter([FakeCompiler()]))
    kernels = ("musc-export", "kernels", "bundle", "--arch", "sm_87")
    assert "NOT SIGNED" not in ran(*kernels).stdout
    signed()
    assert "NOT SIGNED, as the bundle is. Sign it too: musc-export sign bundle" in ran(*kernels).stdout
    inspect = ("musc-edge", "inspect", "bundle", "--require-signature", "maker.pub.pem")
    assert "kernels.json is not signed" in ran(*inspect, code=4).stderr
    assert (
        "holds no private key" in ran(*kernels, code=4, env={"MUSC_EDGE_DEVICE_KEY": "maker.pub.pem"}).stderr
    )
    device = {"MUSC_EDGE_DEVICE_KEY": "maker.pem"}
    assert "NOT SIGNED" not in ran(*kernels, env=device).stdout
    assert json.loads(ran(*kernels, "--json", env=device).stdout)["not_signed"] is None
    ran("musc-export", "keygen", "-o", "other.pem")
    required = device | {"MUSC_EDGE_REQUIRE_SIGNATURE": "other.pub.pem"}
    for told in (
        ran(*kernels, env=required).stdout,
        json.loads(ran(*kernels, "--json", env=required).stdout)["not_signed"],
    ):
        assert "NOT SIGNED as is required here: " in told
        assert "alone, and --require-signature" in told
    ran("musc-export", "kernels", "bundle", "--arch", "sm_87", env=device)
    assert "kernels/kernels.json by" in ran(*inspect).stdout


# ---- secrets ---------------------------------------------------------------------------------


def test_a_passphrase_by_the_environment(folder: Path) -> None:
    secret = {"MUSC_EDGE_KEY_PASSPHRASE": "a word for the tests"}
    runs = [ran("musc-export", "keygen", "-o", "maker.pem", env=secret)]
    assert "encrypted" in runs[0].stdout
    runs.append(ran("musc-export", "sign", "bundle", "--key", "maker.pem", env=secret))
    wrong = {"MUSC_EDGE_KEY_PASSPHRASE": "another one"}
    runs.append(ran("musc-export", "sign", "bundle", "--key", "maker.pem", code=4, env=wrong))
    assert "the passphrase is wrong" in runs[-1].stderr
    assert not any("word for" in run.stdout + run.stderr or "another" in run.stderr for run in runs)


def test_without_a_terminal_nobody_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    run = ran("musc-export", "keygen", "-o", "maker.pem", "--passphrase", code=2)
    assert "set $MUSC_EDGE_KEY_PASSPHRASE" in run.stderr
    assert not (folder / "maker.pem").exists()


def test_a_passphrase_that_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[str] = iter(["one", "one", "one", "one", "two", ""])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(getpass, "getpass", lambda text: next(answers))
    ran("musc-export", "keygen", "-o", "maker.pem", "--passphrase")
    ran("musc-export", "sign", "bundle", "--key", "maker.pem")
    for _ in range(2):  # two that differ, and none
        run = ran("musc-export", "keygen", "-o", "other.pem", "--passphrase", code=2)
        assert "passphrase is empty, or was not the same" in run.stderr


def test_a_key_that_others_may_read(folder: Path) -> None:
    signed()
    (folder / "maker.pem").chmod(0o644)
    run = ran("musc-export", "sign", "bundle", "--key", "maker.pem", code=4)
    assert "chmod 600 maker.pem" in run.stderr


def test_a_key_that_is_not_there(folder: Path) -> None:
    run = ran("musc-export", "sign", "bundle", "--key", "maker.pem", code=2)
    assert "musc-export keygen -o maker.pem" in run.stderr
    run = ran("musc-export", "sign", "bundle", "--key", "long" * 100, code=4)
    assert "cannot be read: File name too long" in run.stderr


def test_keys_are_not_replaced_and_not_put_nowhere(folder: Path) -> None:
    ran("musc-export", "keygen", "-o", "maker.pem")
    assert "never replaced" in ran("musc-export", "keygen", "-o", "maker.pem", code=7).stderr
    run = ran("musc-export", "keygen", "-o", f"{'long' * 100}.pem", code=7)
    assert "cannot be written: File name too long" in run.stderr


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    run = ran("musc-export", "keygen", "-o", "maker.pem", code=7)
    assert "maker.pem cannot be written: No space left on device" in run.stderr
    run = ran("musc-export", "keygen", "-o", f"{'long' * 100}/maker.pem", code=2)
    assert "there is no folder" in run.stderr


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Undo that a job in the background ignores SIGINT, and so does what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_what_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    signed()

    def write_then_stop(*args: Any) -> None:
        write_whole(*args)
        signal.raise_signal(number)

    (folder / "bundle/manifest.json.sig").unlink()
    monkeypatch.setattr(_signatures, "write_whole", write_then_stop)
    run = ran("musc-export", "sign", "bundle", "--key", "maker.pem", code=code)
    assert (folder / "bundle/manifest.json.sig").exists()
    assert "nothing was written" not in run.stderr
    assert ("interrupted; signatures that were written stay" in run.stderr) == (code == 130)
    new = _signing_keys._write_new

    def stop_then_write(*args: Any) -> None:
        signal.raise_signal(number)
        new(*args)

    monkeypatch.setattr(_signing_keys, "_write_new", stop_then_write)
    run = ran("musc-export", "keygen", "-o", "other.pem", code=code)
    assert {"other.pem", "other.pub.pem"} <= {path.name for path in folder.iterdir()}
    assert ("interrupted; there are both keys, or none" in run.stderr) == (code == 130)


# ---- every command ---------------------------------------------------------------------------


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command below ``parser``."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def test_every_command_that_opens_a_bundle_has_the_option() -> None:
    signing_itself = {"kernels", "sign"}
    found = {}
    for program, module in (("musc-edge", edge), ("musc-export", export), ("musc-bench", bench)):
        for name, parser in commands(module._parser()).items():
            names = {action.dest for action in parser._actions}
            if "bundle" in names and name not in signing_itself:
                found[f"{program} {name}"] = "require_signature" in names
    assert found == dict.fromkeys(OPENING, True)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reference(tmp_path_factory.mktemp("reference"))


OPENING: dict[str, list[str]] = {
    "musc-edge infer": ["lot", "-o", "out"],
    "musc-edge plan": ["20"],
    "musc-edge reference": ["lot", "-o", "ref"],
    "musc-edge check": ["lot", "--reference", "REF"],
    "musc-edge watch": ["lot", "--reference", "REF", "-o", "log", "--poll", "2"],
    "musc-edge serve": ["--reference", "REF", "--port", "0"],
    "musc-edge inspect": ["bundle"],
    "musc-edge selftest": [],
    "musc-export verify": ["bundle"],
    "musc-export engine": ["bundle"],
    "musc-bench lot": ["--synthetic", "8"],
    "musc-bench backbone": [],
    "musc-bench check": [],
}


@pytest.mark.parametrize("command", OPENING)
def test_an_unsigned_bundle_is_refused_by_every_command(folder: Path, reference: Path, command: str) -> None:
    ran("musc-export", "keygen", "-o", "maker.pem")
    for number in range(6):
        write_png(folder / f"lot/{number}.png", seed=number)
    given = [str(reference) if each == "REF" else each for each in OPENING[command]]
    which = [] if "bundle" in given else ["-b", "bundle"]
    run = ran(*command.split(), *given, *which, "--require-signature", "maker.pub.pem", code=4)
    assert "manifest.json is not signed" in run.stderr
    assert not {"out", "ref", "selftest.json"} & {path.name for path in folder.iterdir()}


def test_only_who_makes_or_signs_a_bundle_opens_it_without_asking() -> None:
    sources = [
        path for part in ("export", "kernels", "runtime", "tools") for path in (ROOT / part).rglob("*.py")
    ]
    found = {
        text: {path.name for path in sources if text in path.read_text()}
        for text in ("open_unsigned", " Bundle(")
    }
    assert found["open_unsigned"] == {"bundle.py", "make.py", "kernels.py", "signing.py"}
    assert found[" Bundle("] == {"bundle.py"}


@pytest.mark.slow
def test_a_lot_is_scored_with_a_signed_bundle_alone(place: Place, folder: Path) -> None:
    shutil.rmtree("bundle")
    shutil.copytree(place.bundle, "bundle")
    signed()
    infer = ("musc-edge", "infer", str(place.lot), "-b", "bundle", "--require-signature", "maker.pub.pem")
    ran(*infer, "-o", "out")
    ran("musc-edge", "infer", str(place.lot), "-b", "bundle", "-o", "plain")
    assert (folder / "out/scores.csv").read_bytes() == (folder / "plain/scores.csv").read_bytes()
    flip(folder / "bundle/manifest.json")
    assert "was changed since it was signed" in ran(*infer, "-o", "none", code=4).stderr
    assert not (folder / "none").exists()
