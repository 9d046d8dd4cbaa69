"""Kept work: an interrupted run goes on, with the same bytes; what is damaged or of other work is redone."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest

from musc_edge.runtime.errors import OutputError
from musc_edge.runtime.images.survey import ReadOptions, Survey, survey_lot
from musc_edge.runtime.scoring.judges import choose
from musc_edge.runtime.scoring.method import Method
from musc_edge.runtime.scoring.mutual import CpuScorer
from musc_edge.runtime.scoring.plan import HostNeeds
from musc_edge.runtime.store import journal, kept_folder
from musc_edge.runtime.store.checkpoint import Checkpoint
from musc_edge.runtime.store.kept_folder import kept_beside, remove_kept
from musc_edge.runtime.types import DeviceSlot, FloatArray, LotImage, Slot, Uploaded
from musc_edge.runtime.vit.extract import allocate, extract
from support.interrupted import StopError
from support.lots import MANIFEST, SPEC, tree, write_png

N, GROUP, BATCH, BLOCK = 40, 8, 8, 16
LAYER = N * GROUP // 2  # pairs
FIRST_CELL = 8  # its report: after six of the batches, what is kept, and what of it is damaged
TOKEN_ROW = 6 * 8 * 4  # bytes of an image's tokens in one layer


class FakeViT:
    """A backend whose features depend on an image's pixels alone; it counts images."""

    name = version = "fake"
    max_batch: int | None = None
    fills_device = False

    def __init__(self) -> None:
        self.images = 0

    def __enter__(self) -> FakeViT:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def upload(self, images: FloatArray) -> FloatArray:
        return images

    def extract_into(self, images: FloatArray | Uploaded, slot: Slot | DeviceSlot) -> None:
        assert isinstance(slot, Slot)
        assert isinstance(images, np.ndarray)
        self.images += len(images)
        for k, image in enumerate(images):
            generator = np.random.default_rng(zlib.crc32(image.tobytes()))
            slot.tokens[:, k] = generator.standard_normal((2, 6, 8))
            slot.cls[k] = generator.standard_normal(5)


@dataclass
class Run:
    """What one run did: its results as bytes, images that the ViT saw, and all reports."""

    results: bytes = b""
    extracted: int = 0
    failed: list[str] = field(default_factory=list)
    reports: list[tuple[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def compared(self) -> list[float]:
        """Reports of finished comparisons."""
        return [done for stage, done in self.reports if stage == "score"]

    def new_comparisons(self) -> float:
        return float(np.maximum(np.diff(self.compared()), 0).sum())


def run(
    survey: Survey,
    folder: Path | None,
    degrees: tuple[int, ...] = (1, 3),
    bundle: str = "one",
    threads: int = 2,
    at_report: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Extract and score the lot of ``survey``, keeping work in ``folder``."""
    seen = Run()
    backend = FakeViT()
    scorer = CpuScorer(Method(MANIFEST.grid, degrees, group_size=GROUP))
    shape = 2, len(survey.images), 6, 8

    def progress(stage: str, done: float, total: float, unit: str) -> None:
        if stage == "describe":
            return
        seen.reports.append((stage, done))
        seen.extracted = backend.images
        at_report(seen)

    kept = Checkpoint(folder, {"bundle": bundle, "images": N}, {"degrees": degrees}) if folder else None
    with closing(kept) if kept else nullcontext():
        plan = scorer.plan(shape, 4, HostNeeds(threads=threads, keep=bool(kept)))
        cls = np.empty((len(survey.images), MANIFEST.cls_width), np.float32)
        store = allocate(shape, MANIFEST.tokens[0].dtype, cls, plan, kept=kept)
        read, failed = extract(survey, backend, SPEC, store, BATCH, threads, progress=progress, kept=kept)
        store = store.first(len(read))
        scores = scorer.score(store, plan, progress, kept)
        seen.results = scores.tobytes() + store.cls.tobytes() + repr(read).encode()
    seen.failed = [skipped.name for skipped in failed]
    seen.notes = kept.notes if kept else []
    return seen


def interrupted(survey: Survey, folder: Path, number: int, threads: int = 2) -> Run:
    """A run that is interrupted at a report, the first being 0."""
    runs: list[Run] = []

    def interrupt(seen: Run) -> None:
        if len(seen.reports) > number:
            runs.append(seen)
            raise StopError

    with pytest.raises(StopError):
        run(survey, folder, threads=threads, at_report=interrupt)
    return runs[0]


def flip(path: Path, at: int) -> None:
    """Flip one bit of the byte at a place."""
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    folder = tmp_path_factory.mktemp("lot")
    images = [LotImage(f"{k}.png", write_png(folder / f"{k}.png", seed=k)) for k in range(N)]
    return survey_lot(images, ReadOptions(), threads=1)


@pytest.fixture(scope="module")
def plain(survey: Survey) -> Run:
    """An undisturbed run that keeps nothing."""
    return run(survey, None)


@pytest.fixture(scope="module")
def finished(survey: Survey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kept work of a run that was interrupted when all was scored."""
    folder = tmp_path_factory.mktemp("finished") / "kept"
    run(survey, folder)
    return folder


@pytest.fixture
def kept(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that may be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "kept"))


@pytest.fixture(scope="module")
def stopped(survey: Survey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kept work of a run that was interrupted after four of six cells of the first layer."""
    folder = tmp_path_factory.mktemp("stopped") / "kept"
    interrupted(survey, folder, number=FIRST_CELL + 3)
    return folder


@pytest.fixture
def halfway(stopped: Path, tmp_path: Path) -> Path:
    """A copy of it that may be damaged."""
    return Path(shutil.copytree(stopped, tmp_path / "halfway"))


# ---- interrupted -----------------------------------------------------------------------------


def test_kept_work_changes_no_byte(survey: Survey, plain: Run, tmp_path: Path) -> None:
    first = run(survey, tmp_path)
    assert first.results == plain.results
    assert first.reports == plain.reports
    assert first.notes == []
    assert plain.compared()[-1] == 2 * LAYER
    assert len(plain.reports) == FIRST_CELL + 6 + 1 + 6
    again = run(survey, tmp_path)
    assert again.results == plain.results
    assert again.extracted == 0
    assert again.compared() == [2 * LAYER]
    assert again.notes == [
        "features of 40 images come from an earlier, interrupted run",
        "320 comparisons of images come from an earlier, interrupted run",
    ]


@pytest.mark.parametrize(
    ("number", "threads"),
    [(0, 1), (1, 3), (4, 1), (5, 3), (6, 3), (8, 1), (11, 3), (13, 1), (14, 3), (17, 1), (20, 3)],
)
def test_nothing_is_done_twice(survey: Survey, plain: Run, tmp_path: Path, number: int, threads: int) -> None:
    first = interrupted(survey, tmp_path, number, threads)
    second = run(survey, tmp_path, threads=threads)
    assert second.results == plain.results
    assert first.extracted + second.extracted == N
    assert second.compared()[0] == (first.compared() or [0])[-1]
    assert second.compared() == sorted(second.compared())
    assert second.compared()[-1] == 2 * LAYER
    assert (f"features of {first.extracted} images come from" in str(second.notes)) == (first.extracted > 0)


def test_interrupted_again_and_again(survey: Survey, plain: Run, tmp_path: Path) -> None:
    extracted = compared = 0.0
    for _ in range(5):  # each run does a batch or a cell or two
        once = interrupted(survey, tmp_path, number=10 if extracted == N else 4)
        extracted += once.extracted
        compared += once.new_comparisons()
    last = run(survey, tmp_path)
    assert last.results == plain.results
    assert extracted + last.extracted == N
    assert compared + last.new_comparisons() == 2 * LAYER


@pytest.mark.long
@pytest.mark.parametrize("commit_s", [0.0, 1e9])
@pytest.mark.parametrize("number", [3, 6, 9, 14, 16])
def test_killed_at_any_moment(
    survey: Survey,
    plain: Run,
    tmp_path: Path,
    number: int,
    commit_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder as a kill leaves it: nobody closes anything."""
    monkeypatch.setattr(journal, "COMMIT_S", commit_s)
    left = tmp_path / "left"

    def copy(seen: Run) -> None:
        if len(seen.reports) == number + 1:
            shutil.copytree(tmp_path / "kept", left)

    whole = run(survey, tmp_path / "kept", at_report=copy)
    second = run(survey, left)
    assert second.results == plain.results
    before = whole.reports[: number + 1]
    committed = commit_s == 0
    if committed or number > 5:  # the batches are committed before the first comparison
        assert second.extracted == N - max(done for stage, done in before if stage == "extract")
    else:
        assert second.extracted == N
    done = max((done for stage, done in before if stage == "score"), default=0)
    assert second.compared()[0] == (done if committed else done // LAYER * LAYER)


# ---- damaged ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 1])
def test_damaged_tokens_are_made_again(survey: Survey, plain: Run, kept: Path, layer: int) -> None:
    flip(kept / "tokens.bin", (layer * N + 20) * TOKEN_ROW + 5)
    second = run(survey, kept)
    assert second.results == plain.results
    assert second.extracted == N - 16
    assert "kept features of images 16 to 24 were damaged: made again from there on" in second.notes
    assert second.compared() == [2 * LAYER]  # the features are as they were, and so are the comparisons


def test_features_that_were_made_again_are_kept(survey: Survey, plain: Run, kept: Path) -> None:
    flip(kept / "tokens.bin", 20 * TOKEN_ROW)
    run(survey, kept)
    third = run(survey, kept)
    assert third.results == plain.results
    assert (third.extracted, third.compared()) == (0, [2 * LAYER])
    assert "damaged" not in str(third.notes)


def test_damaged_cosines_are_compared_again(survey: Survey, plain: Run, halfway: Path) -> None:
    flip(halfway / "cosines.bin", 7)  # of the first place, with its first judge
    lost = len(list(choose(N, GROUP).pairs_of((0, 0), BLOCK)))
    second = run(survey, halfway)
    assert second.results == plain.results
    assert second.extracted == 0
    kept_pairs = second.compared()[0]
    assert 0 < lost < kept_pairs < LAYER
    assert min(second.compared()) == kept_pairs - lost
    assert second.new_comparisons() == 2 * LAYER - kept_pairs + lost
    assert second.compared()[-1] == 2 * LAYER


@pytest.mark.parametrize("name", ["layer_0.npy", "layer_1.npy"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_damaged_scores_are_made_again(survey: Survey, plain: Run, kept: Path, name: str, how: str) -> None:
    path = kept / name
    if how == "flipped":
        flip(path, path.stat().st_size - 9)
    elif how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    second = run(survey, kept)
    assert second.results == plain.results
    assert second.extracted == 0
    # the last layer's cosines are still there; those of the first were written over
    assert second.new_comparisons() == (LAYER if name == "layer_0.npy" else 0)
    assert second.compared()[-1] == 2 * LAYER


@pytest.mark.parametrize("line", [0, 2, 4])
def test_damaged_journal_of_batches(survey: Survey, plain: Run, kept: Path, line: int) -> None:
    lines = (kept / "batches.journal").read_bytes().splitlines(keepends=True)
    assert len(lines) == N // BATCH
    flip(kept / "batches.journal", len(b"".join(lines[:line])) + 30)
    second = run(survey, kept)
    assert second.results == plain.results
    assert second.extracted == N - line * BATCH
    assert second.compared() == [2 * LAYER]


@pytest.mark.parametrize("line", [0, 1, 3])
def test_damaged_journal_of_cells(survey: Survey, plain: Run, halfway: Path, line: int) -> None:
    path = halfway / "cells.journal"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 4  # what they are made of, and cells
    flip(path, len(b"".join(lines[:line])) + 12)
    second = run(survey, halfway)
    assert second.results == plain.results
    assert second.extracted == 0
    assert second.compared()[0] == plain.compared()[line]


@pytest.mark.parametrize(
    "name", ["tokens.bin", "cosines.bin", "batches.journal", "cells.journal", "about.json"]
)
@pytest.mark.parametrize("content", [None, b"{"])
def test_files_that_are_gone_or_cut(
    survey: Survey, plain: Run, halfway: Path, name: str, content: bytes | None
) -> None:
    (halfway / name).unlink()
    if content is not None:
        (halfway / name).write_bytes(content)
    second = run(survey, halfway)
    assert second.results == plain.results
    assert second.extracted == (0 if name in ("cosines.bin", "cells.journal") else N)


# ---- other content, with right checksums -----------------------------------------------------


NO_CELLS: list[object] = [[], 5, {}, [0], [-3, -1], [1, 0], [9, 9]]


def with_checksums(*lines: object) -> bytes:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return b"".join(b"%s %08x\n" % (text, zlib.crc32(text)) for text in texts)


def scores_of(shape: tuple[int, ...], dtype: str = "<f8", data: int = 0) -> bytes:
    """A file of scores whose header claims a shape, with some bytes behind it."""
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).replace("}", ", }")
    return b"\x93NUMPY\x01\0v\0" + header.ljust(117).encode() + b"\n" + bytes(data)


@pytest.mark.parametrize(
    "content",
    [
        scores_of((1 << 47,)),  # a PiB
        scores_of((1, N, 6)),
        scores_of((1,), data=8),  # fits every shape that it is added to
        scores_of((1, N, 6), "<f4", data=4 * N * 6),
        scores_of((1, N, 6), "|O", data=8),
        b"",
    ],
)
def test_scores_that_are_none_are_made_again(survey: Survey, plain: Run, kept: Path, content: bytes) -> None:
    (kept / "layer_0.npy").write_bytes(content)
    lines = (kept / "cells.journal").read_bytes()
    (kept / "cells.journal").write_bytes(lines + with_checksums({"layer": 0, "scores": zlib.crc32(content)}))
    second = run(survey, kept)
    assert second.results == plain.results
    assert second.new_comparisons() == LAYER


@pytest.mark.parametrize(
    "line",
    [
        *({"layer": 0, "cell": cell, "checksum": 0} for cell in NO_CELLS),
        {"layer": 0, "cell": [0, 1]},
        {"layer": 0, "scores": []},
        b'{"layer":0,"cell":' + b"[" * 900 + b"]" * 900 + b"}",
        b"1" * 5000,
    ],
)
def test_cells_that_are_none_are_passed_over(survey: Survey, plain: Run, halfway: Path, line: object) -> None:
    path = halfway / "cells.journal"
    path.write_bytes(path.read_bytes() + with_checksums(line))
    second = run(survey, halfway)
    assert second.results == plain.results
    assert second.compared()[0] == plain.compared()[5]  # what four cells are


@pytest.mark.parametrize(
    "change",
    [
        {"read": ["other.png"] * BATCH},
        {"read": ["0.png"] * BATCH},
        {"read": [f"{k}.png" for k in reversed(range(BATCH))]},
        {"read": [f"{k}.png" for k in range(1, BATCH + 1)]},
        {"read": "12345678"},
        *(
            {"failed": [{"name": name, "status": "unreadable", "reason": ""}]}
            for name in ("other.png", "0.png", f"{BATCH}.png")
        ),
        {"failed": [{"name": 5, "status": "unreadable", "reason": ""}]},
        {"rows": [0.0, 8.0]},
        {"checksum": "0"},
        {"cls": "AAAA"},
    ],
)
def test_batches_that_are_none_are_made_again(
    survey: Survey, plain: Run, kept: Path, change: dict[str, object]
) -> None:
    path = kept / "batches.journal"
    batch = {**json.loads(path.read_bytes().splitlines()[0][:-9]), **change}
    path.write_bytes(with_checksums(batch))
    second = run(survey, kept)
    assert second.results == plain.results
    assert second.extracted == N


# ---- other work ------------------------------------------------------------------------------


def test_other_scoring_settings_keep_the_features(survey: Survey, kept: Path) -> None:
    second = run(survey, kept, degrees=(3,))
    assert second.results == run(survey, None, degrees=(3,)).results
    assert second.extracted == 0
    assert second.compared()[0] == 0
    assert (
        second.notes[0] == "an earlier run used other degrees ([1, 3], now [3]): only its features are used"
    )
    back = run(survey, kept)
    assert back.compared()[0] == 0  # what was dropped is gone


def test_work_of_another_bundle_is_refused_and_stays(survey: Survey, plain: Run, kept: Path) -> None:
    before = tree(kept)
    with pytest.raises(OutputError, match=rf"made with other bundle \(one, now two\)\. .*rm -r {kept}"):
        run(survey, kept, degrees=(3,), bundle="two")
    assert tree(kept) == before
    assert run(survey, kept).results == plain.results


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ({"a": 1, "b": 2}, r"made with other b \(None, now 2\)"),
        ({}, r"made with other a \(1, now None\)"),
        ({"a": [2, (3, None)]}, r"made with other a \(1, now "),
        ({"a": 1.5, "c": 0}, r"made with other a \(1, now 1.5\); c \(None, now 0\)"),
    ],
)
def test_what_is_other_is_said(tmp_path: Path, now: dict[str, Any], says: str) -> None:
    Checkpoint(tmp_path, {"a": 1}, {}).close()
    with pytest.raises(OutputError, match=says):
        Checkpoint(tmp_path, now, {})
    with closing(Checkpoint(tmp_path, {"a": 1}, {})) as checkpoint:
        assert checkpoint.notes == []


def test_files_that_changed_are_named(tmp_path: Path) -> None:
    files = [[f"{k}.png", 5, 6] for k in range(10)]
    Checkpoint(tmp_path, {"images": files}, {}).close()
    changed = [*files[1:7], ["7.png", 5, 7], *files[8:]]
    with pytest.raises(OutputError, match=r"images \(2 came, went or changed: 0\.png, 7\.png\)"):
        Checkpoint(tmp_path, {"images": changed}, {})


def test_a_folder_of_other_files_is_refused_and_stays(tmp_path: Path) -> None:
    for name in ("thesis.txt", ".secret"):
        (tmp_path / name).touch()
        with pytest.raises(OutputError, match=rf"holds {name}, which is not kept work"):
            Checkpoint(tmp_path, {}, {})
        (tmp_path / name).unlink()
    (tmp_path / "layer_1.npy").mkdir()
    with pytest.raises(OutputError, match=r"holds layer_1\.npy"):
        Checkpoint(tmp_path, {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["layer_1.npy"]


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"features": []}', b'{"features": {}}'])
def test_an_about_file_that_is_not_ours(survey: Survey, plain: Run, kept: Path, content: bytes) -> None:
    (kept / "about.json").write_bytes(content)
    second = run(survey, kept)
    assert second.results == plain.results
    assert second.extracted == N
    assert second.notes == ["the description of an earlier run cannot be read: none of its work is used"]


FILES = [
    "about.json",
    "tokens.bin",
    "cosines.bin",
    "batches.journal",
    "cells.journal",
    "layer_0.npy",
    ".musc-edge",
]


@pytest.mark.parametrize("name", [*FILES, f".{'0' * 16}.partial"])
@pytest.mark.parametrize("kind", ["link", "dead link", "hard link", "pipe", "folder"])
def test_what_others_put_among_kept_work_is_not_followed(
    survey: Survey, halfway: Path, tmp_path: Path, name: str, kind: str
) -> None:
    victim = tmp_path / "thesis.txt"
    victim.write_text("years of work", encoding="utf-8")
    path = halfway / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "hard link":
        path.hardlink_to(victim)
    else:
        path.symlink_to(victim if kind == "link" else tmp_path / "new.txt")
    with pytest.raises(OutputError, match=rf"{name}, which is a link or not a file"):
        run(survey, halfway)
    assert victim.read_text(encoding="utf-8") == "years of work"
    assert not (tmp_path / "new.txt").exists()
    assert path.is_symlink() or path.exists()


def test_a_folder_that_is_a_link_is_refused(survey: Survey, halfway: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(halfway)
    before = tree(halfway)
    with pytest.raises(OutputError, match="is a link, and work is kept in folders alone"):
        run(survey, tmp_path / "link")
    assert tree(halfway) == before


def test_a_folder_of_the_same_names_that_is_not_marked_stays(survey: Survey, halfway: Path) -> None:
    (halfway / ".musc-edge").unlink()
    before = tree(halfway)
    with pytest.raises(OutputError, match=rf"holds about\.json, but no \.musc-edge.*rm -r {halfway}"):
        run(survey, halfway)
    assert tree(halfway) == before


@pytest.mark.parametrize("whose", ["", "tokens.bin", "about.json"])
def test_work_of_another_user_is_refused(
    survey: Survey, halfway: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    if os.geteuid():
        monkeypatch.setattr(kept_folder, "user_here", lambda folder: os.geteuid() + 1)
    else:
        os.chown(halfway / whose, 12345, -1)
    with pytest.raises(OutputError, match=r"is of user \d+, and could be anything"):
        run(survey, halfway)


@pytest.mark.parametrize(
    ("journal_name", "entry"),
    [
        ("batches.journal", {"batch": 0}),
        ("batches.journal", {"batch": 0, "rows": "ab", "read": [], "failed": [], "cls": "", "checksum": 0}),
        (
            "batches.journal",
            {"batch": 0, "rows": [0, 10**9], "read": [], "failed": [], "cls": "", "checksum": 0},
        ),
        ("batches.journal", {"batch": 0, "rows": [0, 8], "read": 5, "failed": 7, "cls": 1, "checksum": "x"}),
        ("batches.journal", {"batch": {}, "rows": None}),
        ("batches.journal", [1, 2]),
        ("cells.journal", 5),
    ],
)
def test_a_journal_that_says_what_cannot_be(
    survey: Survey, plain: Run, halfway: Path, journal_name: str, entry: Any
) -> None:
    """With the right checksum: from another version, or made by hand."""
    text = json.dumps(entry).encode()
    (halfway / journal_name).write_bytes(b"%s %08x\n" % (text, zlib.crc32(text)))
    assert run(survey, halfway).results == plain.results


def test_kept_work_is_removed_and_nothing_else(halfway: Path, tmp_path: Path) -> None:
    kept = tmp_path / "root"
    shutil.copytree(halfway, kept / "lot")
    shutil.copytree(halfway, kept / "02_cells")
    shutil.copytree(halfway, kept / "unmarked")
    (kept / "unmarked" / ".musc-edge").unlink()
    shutil.copytree(halfway, tmp_path / "victim")
    (kept / "link").symlink_to(tmp_path / "victim")
    (kept / "02_cells" / "thesis.txt").write_text("years of work", encoding="utf-8")
    (kept / "empty" / "within").mkdir(parents=True)
    before = tree(tmp_path / "victim")
    remove_kept(kept)
    assert sorted(path.name for path in kept.iterdir()) == ["02_cells", "link", "unmarked"]
    assert (kept / "02_cells" / "thesis.txt").is_file()
    assert tree(tmp_path / "victim") == before
    (tmp_path / "other").symlink_to(tmp_path / "victim")
    remove_kept(tmp_path / "other")
    assert tree(tmp_path / "victim") == before


@pytest.mark.parametrize("kind", ["link", "file", "pipe", "of another user"])
def test_what_has_the_name_of_kept_work_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".out.kept"
    assert kept_beside(tmp_path / "out") == path
    if kind == "link":
        path.symlink_to(tmp_path)
    elif kind == "file":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
        assert kept_beside(tmp_path / "out") == path
        monkeypatch.setattr(kept_folder, "user_here", lambda folder: os.geteuid() + 1)
    with pytest.raises(
        OutputError, match=r"\.out\.kept, where work is kept, .* remove it if nobody needs it"
    ):
        kept_beside(tmp_path / "out")


def test_two_runs_on_one_folder(tmp_path: Path) -> None:
    with closing(Checkpoint(tmp_path, {}, {})), pytest.raises(OutputError, match="another run is using"):
        Checkpoint(tmp_path, {}, {})
    Checkpoint(tmp_path, {}, {}).close()


def test_a_batch_of_which_no_image_can_be_read(tmp_path: Path) -> None:
    images = [LotImage(f"{k}.png", write_png(tmp_path / "lot" / f"{k}.png", seed=k)) for k in range(N)]
    survey = survey_lot(images, ReadOptions(), threads=1)
    for image in images[8:16]:
        image.local.unlink()
    expected = run(survey, None)
    assert expected.failed == [image.name for image in images[8:16]]
    interrupted(survey, tmp_path / "kept", number=FIRST_CELL)
    second = run(survey, tmp_path / "kept")
    assert second.results == expected.results
    assert second.failed == expected.failed
    assert second.extracted == 0


# ---- disks -----------------------------------------------------------------------------------


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"work cannot be kept in .*file/kept: Not a directory"):
        Checkpoint(tmp_path / "file" / "kept", {}, {})


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_disk_that_is_full_when_work_is_noted(
    survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill_the_disk(seen: Run) -> None:
        monkeypatch.setattr(os, call, fail)

    with pytest.raises(OutputError, match="No space left on device"):
        run(survey, tmp_path, at_report=fill_the_disk)
