"""Looking at a lot before it is scored: one bit depth, notes on its files, and decoding ahead."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from musc_edge.runtime.images import survey
from musc_edge.runtime.images.reading import ImageError, preprocess, read_image
from musc_edge.runtime.images.survey import ReadOptions, decode_ahead, survey_lot
from musc_edge.runtime.types import FloatArray, LotImage
from support.lots import SPEC, write_png

TIMEOUT = 20  # seconds until a test that waits for a thread fails


def decode(
    lot: Sequence[LotImage], threads: int, ahead: int
) -> Generator[tuple[LotImage, FloatArray | ImageError], None, None]:
    return decode_ahead(survey_lot(lot, ReadOptions(), threads=1), SPEC, threads, ahead)


def deep_file(folder: Path, name: str, maximum: int) -> LotImage:
    values = np.linspace(0, maximum, 63).reshape(7, 9).astype(np.uint16)
    assert cv2.imwrite(str(folder / name), values)
    return LotImage(name, folder / name)


# ---- the survey ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maxima", "depth"),
    [
        ((255,), 8),
        ((256,), 10),
        ((1023, 40), 10),
        ((1024,), 12),
        ((900, 4095), 12),
        ((4096,), 14),
        ((20000,), 16),
    ],
)
def test_auto_takes_the_smallest_depth_that_holds_the_lot(
    tmp_path: Path, maxima: tuple[int, ...], depth: int
) -> None:
    lot = [deep_file(tmp_path, f"{k}.png", maximum) for k, maximum in enumerate(maxima)]
    assert survey_lot(lot, ReadOptions(), threads=2).bit_depth == depth


def test_depth_that_is_given_is_taken(tmp_path: Path) -> None:
    lot = [deep_file(tmp_path, "0.png", 4095)]
    assert survey_lot(lot, ReadOptions(bit_depth=14), threads=1).bit_depth == 14


def test_one_scale_for_the_lot_and_never_per_image(tmp_path: Path) -> None:
    lot = [deep_file(tmp_path, "dark.png", 1000), deep_file(tmp_path, "bright.png", 4095)]
    looked = survey_lot(lot, ReadOptions(), threads=1)
    dark, bright = (np.asarray(looked.read(image)) for image in lot)
    assert dark.max() == round(1000 * 255 / 4095)
    assert bright.max() == 255


def test_files_that_cannot_be_scored_are_skipped_with_their_reason(tmp_path: Path) -> None:
    lot = make_lot(tmp_path, 4)
    lot[1].local.write_bytes(b"")
    Image.new("F", (5, 5)).save(tmp_path / "3.tiff")
    lot[3] = LotImage("3.tiff", tmp_path / "3.tiff")
    looked = survey_lot(lot, ReadOptions(max_pixels=70), threads=2)
    assert [image.name for image in looked.images] == ["0.png"]
    assert [(s.name, s.status) for s in looked.skipped] == [
        ("1.png", "unreadable"),
        ("2.png", "too_large"),
        ("3.tiff", "unsupported"),
    ]


def test_notes_on_a_uniform_lot_are_none(tmp_path: Path) -> None:
    lot = [LotImage(f"{k}.png", write_png(tmp_path / f"{k}.png", (8, 9))) for k in range(3)]
    assert survey_lot(lot, ReadOptions(), threads=1).notes() == []


def test_notes_say_depths_pages_sizes_and_aspects(tmp_path: Path) -> None:
    lot = [*make_lot(tmp_path, 2), deep_file(tmp_path, "deep.png", 4095)]
    page = Image.new("L", (30, 10))
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    lot.append(LotImage("pages.tif", tmp_path / "pages.tif"))
    notes = "\n".join(survey_lot(lot, ReadOptions(), threads=1).notes())
    for part in (
        "1 file has several pages",
        "read as 12-bit data",
        "3 files have 8 bits, on another scale than those with more (1)",
        "images have 3 sizes",
        "aspects from 1.29 to 3,",
    ):
        assert part in notes


def test_note_on_files_that_say_what_white_is(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"{k}.pgm").write_bytes(b"P5 2 1 1000\n" + (1000).to_bytes(2, "big") + bytes(2))
    lot = [LotImage(f"{k}.pgm", tmp_path / f"{k}.pgm") for k in range(3)]
    lot.append(deep_file(tmp_path, "deep.png", 4095))
    looked = survey_lot(lot, ReadOptions(), threads=1)
    assert looked.bit_depth == 12
    assert "3 files say which value is white: read on that scale" in looked.notes()
    np.testing.assert_array_equal(np.asarray(looked.read(lot[0]))[0, :, 0], [255, 0])


@pytest.mark.parametrize(("depth", "expected"), [(None, 10), (16, 16)])
def test_depth_of_a_lot_that_says_what_white_is(tmp_path: Path, depth: int | None, expected: int) -> None:
    (tmp_path / "0.pgm").write_bytes(b"P5 2 1 1000\n" + (1000).to_bytes(2, "big") + bytes(2))
    looked = survey_lot([LotImage("0.pgm", tmp_path / "0.pgm")], ReadOptions(bit_depth=depth), threads=1)
    assert looked.bit_depth == expected


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_note_on_mixed_colour_profiles(tmp_path: Path, suffix: str) -> None:
    profiles = [None, *(bytes([k]) * 200 for k in (1, 2, 2))]
    lot = []
    for k, profile in enumerate(profiles):
        Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / f"{k}{suffix}", icc_profile=profile)
        lot.append(LotImage(f"{k}{suffix}", tmp_path / f"{k}{suffix}"))
    (note,) = survey_lot(lot, ReadOptions(), threads=1).notes()
    assert note.startswith(
        "the files have 2 different colour profiles, and 1 file none: profiles are not applied"
    )
    assert survey_lot(lot[2:], ReadOptions(), threads=1).notes() == []


# ---- decoding ahead --------------------------------------------------------------------------


def make_lot(folder: Path, count: int) -> list[LotImage]:
    return [
        LotImage(f"{k}.png", write_png(folder / f"{k}.png", (6 + k % 5, 9), seed=k)) for k in range(count)
    ]


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 4), (4, 3), (3, 100)])
def test_decode_ahead_keeps_the_order(tmp_path: Path, threads: int, ahead: int) -> None:
    lot = make_lot(tmp_path, 15)
    found = list(decode(lot, threads, ahead))
    assert [image for image, _ in found] == lot
    for image, outcome in found:
        assert not isinstance(outcome, ImageError)
        np.testing.assert_array_equal(outcome, preprocess(read_image(image.path), SPEC))


def test_decode_ahead_says_why_images_cannot_be_read(tmp_path: Path) -> None:
    lot = make_lot(tmp_path, 6)
    looked = survey_lot(lot, ReadOptions(), threads=2)
    lot[0].local.write_bytes(b"")
    lot[2].local.unlink()
    stamp = lot[5].local.stat()
    lot[5].local.write_bytes(lot[5].local.read_bytes()[::-1])
    os.utime(lot[5].local, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    outcomes = [outcome for _, outcome in decode_ahead(looked, SPEC, 2, 2)]
    failed = {k: str(outcome) for k, outcome in enumerate(outcomes) if isinstance(outcome, ImageError)}
    assert failed == {
        0: "the file changed while the lot was being read",
        2: "No such file or directory",
        5: "not an image file",
    }


def test_decode_ahead_of_nothing() -> None:
    assert list(decode([], 2, 3)) == []


class Watch:
    """Notes every image whose decoding begins, and then decodes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[str] = []
        self._changed = threading.Condition()
        monkeypatch.setattr(survey, "read_image", self._read)

    def _read(self, path: Path, *options: Any) -> Image.Image:
        with self._changed:
            self.started.append(path.name)
            self._changed.notify_all()
        return read_image(path, *options)

    def wait_for(self, count: int) -> bool:
        """Whether the decoding of ``count`` images has begun within the time limit."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.started) >= count, TIMEOUT)


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 3), (4, 4), (8, 2)])
def test_decode_ahead_runs_ahead_but_never_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, ahead: int
) -> None:
    watch = Watch(monkeypatch)
    taken = 0
    for _ in decode(make_lot(tmp_path, 12), threads, ahead):
        taken += 1
        assert watch.wait_for(min(12, taken + ahead))  # ahead of the consumer, who has not asked for more
        assert len(watch.started) <= taken + ahead
    assert taken == 12
    assert sorted(watch.started) == sorted(f"{k}.png" for k in range(12))


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("images")]


def test_decode_ahead_stops_when_the_consumer_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    cancelled: list[object] = []
    second_runs, all_cancelled = threading.Event(), threading.Event()

    def slow(path: Path, *options: Any) -> Image.Image:
        started.append(path.name)
        if path.name == "1.png":  # the only thread is busy here until the waiting images are cancelled
            second_runs.set()
            all_cancelled.wait(TIMEOUT)
        return read_image(path, *options)

    cancel = Future.cancel

    def note(future: Future[FloatArray | ImageError]) -> bool:
        done = cancel(future)
        if done:
            cancelled.append(future)
        if len(cancelled) == 19:
            all_cancelled.set()
        return done

    monkeypatch.setattr(survey, "read_image", slow)
    monkeypatch.setattr(Future, "cancel", note)
    stream = decode(make_lot(tmp_path, 40), threads=1, ahead=20)
    next(stream)
    assert second_runs.wait(TIMEOUT)
    stream.close()
    assert len(cancelled) == 19
    assert started == ["0.png", "1.png"]
    assert decoding_threads() == []


def test_no_thread_is_left_after_an_error_of_the_consumer(tmp_path: Path) -> None:
    stream = decode(make_lot(tmp_path, 12), 3, 4)

    def consume(outcomes: Iterator[tuple[LotImage, FloatArray | ImageError]]) -> None:
        next(outcomes)
        raise RuntimeError("the ViT failed")

    with pytest.raises(RuntimeError, match="the ViT failed"):
        consume(stream)
    stream.close()
    assert decoding_threads() == []
