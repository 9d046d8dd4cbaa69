"""``musc-edge serve`` says what is wrong before it listens."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from musc_edge.tools.serve.command import name_references
from musc_edge.tools.usage import UsageError
from support.command_line import run_here
from support.references import BUNDLE


def refused(made: Path, *options: object, reference: object = None) -> tuple[int, str]:
    given = ["--reference", reference or made / "ref", "-b", BUNDLE, "--port", "0", *options]
    done = run_here(["musc-edge", "serve", *map(str, given)])
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_references_are_named_by_option_or_folder(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    assert name_references([f"left={tmp_path}", "some/part42"]) == {
        "left": tmp_path,
        "part42": Path("some/part42"),
    }
    with pytest.raises(UsageError, match=r"'a=b' cannot be the name.*NAME="):
        name_references([str(tmp_path / "a=b")])
    with pytest.raises(UsageError, match="two references are called x"):
        name_references(["x=1", "x=2"])
    for name in ("../x", "a/b", "", ".", "-x", "a b", "x" * 65):
        with pytest.raises(UsageError):
            name_references([f"{name}=ref"])


def test_other_machines_need_a_token(made: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        code, said = refused(made, "--host", host)
        assert (code, "--token-file FILE" in said) == (2, True), said


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), (b"", "16 or more"), (b"short\n", "16 or more"), (b"\xff" * 40, "not ASCII"),
     (b"with a blank in it, long enough", "blanks"), (b"x" * 9000, "larger")],
)  # fmt: skip
def test_tokens_that_are_none(made: Path, tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    code, said = refused(made, "--token-file", tmp_path / "token")
    assert (code, says in said) == (2, True), said


def test_options_that_do_not_fit(made: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no certificate")
    for options in (
        ["--tls-cert", "x"],
        ["--tls-key", "x"],
        ["--tls-cert", tmp_path / "x", "--tls-key", tmp_path / "x"],
        ["--token-file", "x", "--no-token"],
        ["--port", "65536"],
        ["--queue", "0"],
        ["--time-out", "nan"],
        ["--max-body", "1"],
    ):
        assert refused(made, *options)[0] == 2, options


def test_references_and_ports_that_cannot_be_used(made: Path, tmp_path: Path) -> None:
    assert refused(made, reference=tmp_path / "nothing")[0] == 4
    assert refused(made, "--reference", f"other={made / 'lot'}")[0] == 4
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = refused(made, "--port", taken.getsockname()[1])
        assert (code, "cannot be listened at: Address already in use" in said) == (2, True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "holiday.txt").touch()
    assert refused(made, "-o", tmp_path / "out")[0] == 7
