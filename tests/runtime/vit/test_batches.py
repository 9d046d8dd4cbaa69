"""Batches are made ahead of the ViT: in order, one at a time, and none is left over when nobody wants it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest

from musc_edge.runtime.errors import DeviceError
from musc_edge.runtime.images.reading import ImageError
from musc_edge.runtime.images.survey import ReadOptions, Survey, survey_lot
from musc_edge.runtime.parallel import has_abandoned, one_ahead
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.timing import StageTimer
from musc_edge.runtime.types import DeviceSlot, FloatArray, LotImage, Slot, Uploaded
from musc_edge.runtime.vit import batches as module
from musc_edge.runtime.vit.batches import batches_ahead
from musc_edge.runtime.vit.extract import extract
from support.lots import MANIFEST, SPEC, write_png

SOON = 30  # seconds, for what takes none
WIDTH = 8


class ViT:
    """A backend whose features are an image's mean; it can wait before a batch, or fail at one."""

    name = version = "fake"
    max_batch: int | None = None
    fills_device = False

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.batches: list[int] = []
        self.uploads: list[int] = []
        self.uploaded = threading.Condition()
        self.order: list[str] = []

    def __enter__(self) -> ViT:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def upload(self, images: FloatArray) -> Uploaded:
        with self.uploaded:
            self.uploads.append(len(images))
            self.uploaded.notify_all()
        return Uploaded(len(images), images.copy())

    def wait_for_uploads(self, count: int) -> bool:
        with self.uploaded:
            return self.uploaded.wait_for(lambda: len(self.uploads) >= count, SOON)

    def extract_into(self, images: FloatArray | Uploaded, slot: Slot | DeviceSlot) -> None:
        assert isinstance(images, Uploaded)
        assert isinstance(slot, Slot)
        if len(self.batches) == self.fails_at:
            raise DeviceError("the ViT failed")
        self.batches.append(len(images))
        means = images.value.mean(axis=(1, 2, 3))
        slot.tokens[:] = means[None, :, None, None]
        slot.cls[:] = means[:, None]


def make_lot(folder: Path, count: int) -> Survey:
    images = [LotImage(f"{k:02}", write_png(folder / f"{k:02}.png", (7, 9), seed=k)) for k in range(count)]
    return survey_lot(images, ReadOptions(), threads=2)


def empty_store(images: int) -> HostStore:
    tokens = np.empty((2, images, MANIFEST.patches, WIDTH), np.float32)
    return HostStore(tokens, np.empty((images, MANIFEST.cls_width), np.float32))


def threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("ahead", "images"))]


# ---- order and content -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "batch", "workers"), [(13, 4, 1), (13, 4, 3), (8, 4, 2), (3, 5, 2), (6, 1, 2)]
)
def test_rows_are_those_of_one_image_after_the_other(
    tmp_path: Path, count: int, batch: int, workers: int
) -> None:
    survey = make_lot(tmp_path, count)
    alone, together = empty_store(count), empty_store(count)
    extract(survey, ViT(), SPEC, alone, batch=1)
    vit = ViT()
    read, failed = extract(survey, vit, SPEC, together, batch, workers)
    assert (read, failed) == (survey.images, ())
    assert together.tokens.tobytes() == alone.tokens.tobytes()
    assert together.cls.tobytes() == alone.cls.tobytes()
    assert vit.batches == vit.uploads == [min(batch, count - k) for k in range(0, count, batch)]


def test_images_that_cannot_be_read_leave_no_gap_and_no_batch_is_empty(tmp_path: Path) -> None:
    survey = make_lot(tmp_path, 13)
    gone = [1, 4, 5, 6, 7, 12]  # one of the first batch, all of the second, the last one
    for k in gone:
        survey.images[k].local.unlink()
    store, vit = empty_store(13), ViT()
    seen: list[float] = []
    read, failed = extract(
        survey, vit, SPEC, store, 4, 2, progress=lambda stage, done, total, unit: seen.append(done)
    )
    assert [image.name for image in failed] == [f"{k:02}" for k in gone]
    assert {image.status for image in failed} == {"unreadable"}
    assert [image.name for image in read] == [f"{k:02}" for k in range(13) if k not in gone]
    assert vit.batches == [3, 4]
    assert seen == [0, 4, 8, 12, 13]
    expected = empty_store(13)
    rest, _ = extract(survey, ViT(), SPEC, expected, 1)
    assert rest == read
    np.testing.assert_array_equal(store.cls[:7], expected.cls[:7])


def test_the_next_batch_is_made_while_the_vit_runs_and_no_other(tmp_path: Path) -> None:
    survey, vit = make_lot(tmp_path, 20), ViT()
    others: list[int] = []

    def looking(stage: str, done: float, total: float, unit: str) -> None:
        if 0 < done < total:
            batch = int(done) // 4
            assert vit.wait_for_uploads(batch + 1)
            others.append(len(vit.uploads) - batch)

    timer = StageTimer()
    extract(survey, vit, SPEC, empty_store(20), 4, 2, timer, looking)
    assert others == [1] * 4  # there is the next one, and the one after it waits for its turn
    spans = timer.spans()
    assert len(spans["stack"]) == len(spans["extract"]) == len(spans["wait for images"]) == 5
    assert "stack" not in timer.seconds  # it runs beside the stages


def test_a_batch_is_gone_before_the_next_one_is_there(tmp_path: Path) -> None:
    gone: list[bool] = []

    class Waiting(ViT):
        last_is_gone = threading.Event()

        def upload(self, images: FloatArray) -> Uploaded:
            if self.uploads:
                gone.append(self.last_is_gone.wait(SOON))
            uploaded, self.last_is_gone = super().upload(images), threading.Event()
            weakref.finalize(uploaded.value, self.last_is_gone.set)
            return uploaded

    extract(make_lot(tmp_path, 12), Waiting(), SPEC, empty_store(12), 4, 2)
    assert gone == [True, True]


def test_memory_is_used_again_only_where_the_pixels_are_elsewhere(tmp_path: Path) -> None:
    given: list[int] = []

    class Keeping(ViT):
        elsewhere = True

        def upload(self, images: FloatArray) -> Uploaded | FloatArray:  # type: ignore[override]
            given.append(images.ctypes.data)
            kept.append(images)  # so that no other array can get the same memory
            return Uploaded(len(images), images.copy()) if self.elsewhere else images

        def extract_into(self, images: FloatArray | Uploaded, slot: Slot | DeviceSlot) -> None:
            super().extract_into(images if isinstance(images, Uploaded) else Uploaded(4, images), slot)

    kept: list[FloatArray] = []
    expected, found = empty_store(12), empty_store(12)
    survey, vit = make_lot(tmp_path, 12), Keeping()
    extract(survey, vit, SPEC, found, 4, 2)
    assert len(set(given)) == 1
    extract(survey, ViT(), SPEC, expected, 4, 2)
    assert found.tokens.tobytes() == expected.tokens.tobytes()
    given.clear()
    vit.elsewhere = False
    extract(survey, vit, SPEC, found, 4, 2)
    assert len(set(given)) == 3
    assert found.tokens.tobytes() == expected.tokens.tobytes()


# ---- when something goes wrong ---------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 2e15])
@pytest.mark.parametrize("part", ["tokens", "cls"])
def test_numbers_beyond_any_sense_are_named_with_their_images(
    tmp_path: Path, value: float, part: str
) -> None:
    class Broken(ViT):
        def extract_into(self, images: FloatArray | Uploaded, slot: Slot | DeviceSlot) -> None:
            super().extract_into(images, slot)
            array = getattr(slot, part)
            if len(self.batches) == 2:
                array[(1, 2, 5, 3) if part == "tokens" else (2, 3)] = value
            else:
                array[:] = 9e14  # as large as numbers may be

    with pytest.raises(DeviceError, match=r"not finite, or beyond 1e\+15, for 06\. Try a bundle in fp32"):
        extract(make_lot(tmp_path, 20), Broken(), SPEC, empty_store(20), 4, 2)
    assert threads() == []


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_vit_that_fails_ends_the_run_and_all_threads(tmp_path: Path, at: int) -> None:
    vit = ViT(fails_at=at)
    with pytest.raises(DeviceError, match="the ViT failed"):
        extract(make_lot(tmp_path, 20), vit, SPEC, empty_store(20), 4, 2)
    assert len(vit.batches) == at
    assert threads() == []


@pytest.mark.parametrize("at", [0, 2])
def test_an_upload_that_fails_is_raised_where_its_batch_is_wanted(tmp_path: Path, at: int) -> None:
    class Full(ViT):
        def upload(self, images: FloatArray) -> Uploaded:
            if len(self.uploads) == at:
                raise DeviceError("no room on the GPU")
            return super().upload(images)

    vit = Full()
    with pytest.raises(DeviceError, match="no room on the GPU"):
        extract(make_lot(tmp_path, 20), vit, SPEC, empty_store(20), 4, 2)
    assert vit.batches == [4] * at
    assert threads() == []


@pytest.mark.parametrize("done", [0, 4, 16])
def test_an_interrupt_leaves_no_thread(tmp_path: Path, done: int) -> None:
    def interrupt(stage: str, number: float, total: float, unit: str) -> None:
        if number == done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(make_lot(tmp_path, 20), ViT(), SPEC, empty_store(20), 4, 2, progress=interrupt)
    assert threads() == []
    assert not has_abandoned()


def test_images_that_have_not_begun_are_not_decoded_after_a_stop(tmp_path: Path) -> None:
    images = make_lot(tmp_path, 12).images
    pulled: list[str] = []
    waiting, release = threading.Event(), threading.Event()

    def stream() -> Generator[tuple[LotImage, FloatArray | ImageError], None, None]:
        for image in images:
            if image.name == "05":
                waiting.set()
                assert release.wait(SOON)
            pulled.append(image.name)
            yield image, np.zeros((3, 2, 2), np.float32)

    source, vit = stream(), ViT()
    ahead = batches_ahead(source, 4, vit, StageTimer())
    assert len(next(ahead).read) == 4
    assert waiting.wait(SOON)
    threading.Timer(0.1, release.set).start()
    ahead.close()
    assert pulled == ["00", "01", "02", "03", "04", "05"]
    assert list(source) == []  # closed
    assert vit.uploads == [4]  # not the beginning of the next batch
    assert threads() == []


def test_a_decoder_that_is_stuck_is_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    image = make_lot(tmp_path, 1).images[0]
    stuck, release = threading.Event(), threading.Event()

    def stream() -> Generator[tuple[LotImage, FloatArray | ImageError], None, None]:
        yield image, np.zeros((3, 2, 2), np.float32)
        stuck.set()
        assert release.wait(SOON)

    ahead = batches_ahead(stream(), 1, ViT(), StageTimer())
    try:
        next(ahead)
        assert stuck.wait(SOON)
        ahead.close()
        assert has_abandoned()
    finally:
        release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("ahead"):
            thread.join(SOON)
    assert not has_abandoned()


def test_one_ahead_of_nothing_and_of_an_error() -> None:
    def items() -> Generator[int, None, None]:
        yield 1
        raise ValueError("odd")

    stop = threading.Event()
    assert list(one_ahead(iter(()), stop)) == []
    assert stop.is_set()
    with closing(one_ahead(items(), threading.Event())) as found:
        assert next(found) == 1
        with pytest.raises(ValueError, match="odd"):
            next(found)
    assert threads() == []
