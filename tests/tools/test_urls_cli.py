"""``musc-edge`` on lots at URLs: the results of the folder's, and clear words where a URL is not taken."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from musc_edge.runtime.beginning import Watch
from musc_edge.runtime.pipeline import score_lot
from musc_edge.runtime.remote import RemoteFile
from musc_edge.runtime.results.read_results import read_results
from musc_edge.runtime.settings import Resources
from support.bad_input import Place
from support.command_line import Run, run_here
from support.object_store import ObjectStore, object_store

COMMAND = str(Path(sys.executable).parent / "musc-edge")
HERE = Resources(backend="cpu", scorer="numpy")


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as store, store.found():
        yield store


@pytest.fixture
def url(store: ObjectStore, place: Place) -> str:
    """The lot of ``place`` in a bucket."""
    shutil.copytree(place.lot, place.lot / "day 2")
    first = sorted(place.lot.glob("*.png"))[0]
    shutil.copy(first, place.lot / "copy.png")
    (place.lot / "damaged.png").write_bytes(first.read_bytes()[:2000])
    return store.put_folder(place.lot, f"{place.root.name}/lot")


def infer(place: Place, lot: str, *more: str) -> Run:
    given = ["-b", str(place.bundle), "--backend", "cpu", "--scorer", "numpy", *more]
    return run_here([COMMAND, "infer", lot, *given], cwd=place.root)


def files(out: Path) -> dict[str, bytes]:
    """Everything but lot.json, which has times, and the report, which links to files of a folder."""
    found = [path for path in out.rglob("*") if path.is_file() and path.suffix not in (".json", ".html")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("more", [[], pytest.param(["--group-by", "folder"], marks=pytest.mark.long)])
def test_a_lot_at_a_url_has_the_results_of_the_folder(place: Place, url: str, more: list[str]) -> None:
    options = ["--overlays", "--report", *more]
    here, there = infer(place, "lot", "-o", "here", *options), infer(place, url, *options)
    assert (here.returncode, there.returncode) == (3, 3), there.stderr
    assert files(place.root / "lot-musc") == files(place.root / "here")
    about = json.loads((place.root / "lot-musc/lot.json").read_text())
    own = json.loads((place.root / "here/lot.json").read_text())
    assert about["lot"] == url
    for key in ("images", "skipped", "warnings", "notes"):
        assert about[key] == own[key], key
    page = (place.root / "lot-musc/report.html").read_text()
    assert page.count("data:image/") == (place.root / "here/report.html").read_text().count("data:image/") > 8
    assert read_results(place.root / "lot-musc")[0].lot == url
    assert not list(place.root.rglob("musc-*"))


def test_a_lot_at_a_url_is_planned(place: Place, url: str) -> None:
    planned = run_here([COMMAND, "plan", url, "-b", str(place.bundle), "--backend", "cpu"])
    assert planned.returncode == 0, planned.stderr
    assert "plan: 18 images scored by all others" in planned.stdout


def test_objects_that_change_while_the_lot_is_read_are_rows(
    place: Place, url: str, store: ObjectStore
) -> None:
    prefix = url.partition("://")[2].partition("/")[2]
    names = sorted(path.name for path in place.lot.glob("cell*.png"))[:3]

    def change(stage: str, done: float, total: float, unit: str) -> None:
        if (stage, done) == ("survey", total):
            store.put(f"{prefix}/{names[0]}", (place.lot / names[1]).read_bytes())
            store.remove(f"{prefix}/{names[2]}")

    result = score_lot(url, place.bundle, resources=HERE, watch=Watch(progress=change))
    reasons = {skip.name: skip.reason for skip in result.skipped}
    assert reasons[names[0]] == "the file changed while the lot was being read"
    assert reasons[names[2]] == "No such file or directory"
    assert len(result.skipped) == 3
    assert str(result.root) == url
    result.save(place.root / "saved", report=True)
    assert json.loads((place.root / "saved/lot.json").read_text())["lot"] == url


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["reference", "{url}", "-o", "out"], "lot"),
        (["check", "{url}/1.png", "--reference", "r"], "images"),
        (["watch", "{url}", "--reference", "r", "-o", "out"], "folder"),
        (["report", "{url}"], "results"),
        (["verdict", "{url}", "--threshold", "1"], "results"),
        (["infer", "lot", "-o", "{url}"], "out"),
        (["infer", "lot", "-b", "{url}"], "bundle"),
    ],
)
def test_where_a_url_is_not_taken_is_said(place: Place, arguments: list[str], what: str) -> None:
    secret = "s3://key:secret@plant/lot"
    done = run_here([COMMAND, *(text.format(url=secret) for text in arguments)], cwd=place.root)
    assert done.returncode == 2, done.stderr
    assert f"s3://... is a URL, and a path here was expected ({what})" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("command", ["infer", "plan"])
def test_a_password_in_a_url_is_refused(place: Place, command: str) -> None:
    done = run_here([COMMAND, command, "s3://key:secret@plant/lot", "-b", str(place.bundle)])
    assert done.returncode == 2
    assert "holds a password or a signature" in done.stderr
    assert "secret" not in done.stderr


def test_without_the_extra_it_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    done = run_here([COMMAND, "infer", "s3://plant/without", "-b", str(place.bundle)], cwd=place.root)
    assert done.returncode == 5
    assert "pip install 'musc-edge[remote]'" in done.stderr
    assert sorted(path.name for path in place.root.iterdir()) == ["lot"]


def test_a_reference_is_not_made_of_a_url(place: Place, url: str) -> None:
    from musc_edge.runtime.errors import LotError
    from musc_edge.runtime.reference.make import make_reference

    with pytest.raises(LotError, match="a reference is made of a folder on this machine"):
        make_reference(url, place.bundle, place.root / "reference")


@pytest.mark.long
def test_workers_of_a_cluster_fetch_the_files(
    place: Place, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process looks at headers, and reads a few files to tell how long all will take."""
    fetched: list[str] = []
    fetch = RemoteFile.fetch

    def noted(self: RemoteFile) -> tuple[int, tuple[int, int]]:
        fetched.append(self.key)
        return fetch(self)

    monkeypatch.setattr(RemoteFile, "fetch", noted)
    stages: dict[str, int] = {}

    def watch(stage: str, done: float, total: float, unit: str) -> None:
        stages[stage] = len(fetched)

    result = score_lot(
        url, place.bundle, resources=Resources(backend="cpu", scorer="numpy", cluster="auto"),
        watch=Watch(progress=watch),
    )  # fmt: skip
    assert stages["survey"] == 0
    assert stages["extract"] <= 3
    one = score_lot(url, place.bundle, resources=HERE)
    assert result.scores.tobytes() == one.scores.tobytes()
    assert result.skipped == one.skipped
