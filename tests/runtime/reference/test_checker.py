"""A checker: opened once, called often and by many, closed cleanly; bad images are no errors."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_info

from musc_edge import Checker, LotError, ReferenceFolder, ReferenceFolderError, Resources
from musc_edge.runtime.types import Slot
from support.references import BUNDLE, part, reference, write_lot


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> ReferenceFolder:
    root = tmp_path_factory.mktemp("checker")
    write_lot(root / "lot", 40)
    return reference(root / "lot", root / "ref", hold_out=0.5)


@pytest.fixture
def checker(kept: ReferenceFolder) -> Iterator[Checker]:
    with Checker(kept, BUNDLE, alpha=0.05) as opened:
        yield opened


def test_p_and_verdict_are_those_of_the_calibration(checker: Checker, kept: ReferenceFolder) -> None:
    for spot in (0.0, 10.0, 120.0):
        found = checker.check(part(77, spot))
        as_high = int((kept.calibration >= found.raw_score).sum())
        assert found.p == (1 + as_high) / 21
        assert found.verdict == ("reject" if found.p <= 0.05 else "not flagged")
    assert found.verdict == "reject"
    assert found.map is not None
    first = found.regions[0]  # the spot of 6 x 6 pixels at 20, 10 of 40 x 40
    assert 0 <= first.x <= 23 <= first.x + first.width
    assert 0 <= first.y <= 13 <= first.y + first.height
    assert checker.check(part(77)).regions == ()
    assert np.unravel_index(found.map.argmax(), found.map.shape)[0] in range(1, 5)


def test_files_and_pictures_score_alike(checker: Checker, tmp_path: Path) -> None:
    part(77).save(tmp_path / "a.png")
    file, picture = checker.check(tmp_path / "a.png"), checker.check(part(77), "a")
    assert file.name == str(tmp_path / "a.png")
    assert picture.name == "a"
    assert file.raw_score == picture.raw_score
    gray = Image.open(tmp_path / "a.png").convert("L")
    assert checker.check(gray).status == "ok"


def test_bad_images_are_rows_and_not_errors(checker: Checker, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a PNG")
    (tmp_path / "raw.CR2").write_bytes(b"II*\0")
    (tmp_path / "folder.png").mkdir()
    for name, status in (
        ("broken.png", "unreadable"),
        ("raw.CR2", "unsupported"),
        ("nothing.png", "unreadable"),
        ("folder.png", "unreadable"),
    ):
        found = checker.check(tmp_path / name)
        assert (found.status, found.verdict, found.map) == (status, "", None)
        assert math.isnan(found.raw_score)
        assert math.isnan(found.p)
        assert found.error


def test_many_threads_get_what_one_gets(checker: Checker) -> None:
    pictures = [part(seed, spot=3.0 * seed) for seed in range(12)]
    alone = [checker.check(picture).raw_score for picture in pictures]
    with ThreadPoolExecutor(6) as pool:
        assert [check.raw_score for check in pool.map(checker.check, pictures * 3)] == alone * 3


def test_a_closed_checker_says_so_and_leaves_nothing(kept: ReferenceFolder) -> None:
    limits = [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]
    before = threading.active_count()
    checker = Checker(kept, BUNDLE)
    checker.check(part(1))
    checker.close()
    checker.close()
    with pytest.raises(ReferenceFolderError, match="closed"):
        checker.check(part(1))
    assert threading.active_count() == before
    after = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    assert all(after[path] == threads for path, threads in limits)


def test_a_bank_beyond_the_memory_budget_is_refused(kept: ReferenceFolder) -> None:
    with pytest.raises(LotError, match="memory budget"):
        Checker(kept, BUNDLE, resources=Resources(memory_budget=1000))


def test_the_rate_is_checked_before_the_vit_is_loaded(kept: ReferenceFolder) -> None:
    with pytest.raises(LotError, match="between 0 and 1"):
        Checker(kept, BUNDLE, alpha=5)


def test_few_images_cannot_reject(kept: ReferenceFolder) -> None:
    with Checker(kept, BUNDLE, alpha=0.01) as checker:
        assert checker.check(part(5, spot=120)).verdict == "not flagged"
        assert "Calibrate by 99 or more" in checker.calibration.promise()


class OfAGpu:
    """A ViT that is said to be on a GPU, and how many images it took at once."""

    name = "cuda"

    def __init__(self, vit: Any) -> None:
        self._vit, self.batches = vit, list[int]()
        self.free = threading.Event()
        self.began = threading.Event()

    def extract_into(self, pixels: Any, slot: Slot) -> None:
        self.batches.append(len(pixels))
        self.began.set()
        assert self.free.wait(60)
        self._vit.extract_into(pixels, slot)


def test_a_vit_on_a_gpu_takes_the_images_that_wait_together(checker: Checker) -> None:
    pictures = [part(seed, spot=3.0 * seed) for seed in range(8)]
    alone = [checker.check(picture).raw_score for picture in pictures]
    vit = OfAGpu(checker._vit)
    checker._vit, checker.batch = vit, 4  # type: ignore[assignment]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(checker.check, picture) for picture in pictures]
        assert vit.began.wait(60)
        while len(checker._waiting) < 7:
            time.sleep(0.001)
        vit.free.set()
        found = [future.result().raw_score for future in futures]
    assert vit.batches == [1, 4, 3]
    assert found == pytest.approx(alone, abs=1e-5)


def test_what_fails_fails_for_each_that_waits(checker: Checker) -> None:
    vit = OfAGpu(None)
    checker._vit, checker.batch = vit, 4  # type: ignore[assignment]
    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(checker.check, part(seed)) for seed in range(5)]
        assert vit.began.wait(60)
        while len(checker._waiting) < 4:
            time.sleep(0.001)
        vit.free.set()
        errors = [future.exception(60) for future in futures]
    assert all(isinstance(error, AttributeError) for error in errors)


def test_a_checker_that_can_reject_nothing_says_so(kept: ReferenceFolder) -> None:
    with Checker(kept, BUNDLE, alpha=0.01) as idle, Checker(kept, BUNDLE, alpha=0.05) as able:
        assert "no image can be rejected at a false-alarm rate of 1 %" in idle.warnings[0]
        assert not any("no image can be rejected" in text for text in able.warnings)
