"""A reference is made: what is kept, held out and left out, and how single images score against it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musc_edge import (
    Checker,
    LotError,
    OutputError,
    ReferenceFolder,
    ReferenceFolderError,
    ReferenceOptions,
    ScoreSettings,
    list_lot,
    make_reference,
    open_reference,
    score_lot,
    upsample,
)
from support.references import BUNDLE, part, reference, write_lot

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lots") / "lot"
    write_lot(folder, 24)
    return folder


@pytest.mark.parametrize("settings", [ScoreSettings(), ScoreSettings((1, 5), (0.1, 0.6))])
def test_an_image_scores_as_in_one_lot_with_all_of_the_reference(
    settings: ScoreSettings, lot: Path, tmp_path: Path
) -> None:
    """All images and patches in float32: raw score and map of infer on reference and image."""
    kept = make_reference(lot, BUNDLE, tmp_path / "ref", settings, options=ReferenceOptions(hold_out=0))
    together = tmp_path / "lot"
    images = write_lot(together, 24)
    part(99, spot=60).save(together / "new.png")
    result = score_lot(together, BUNDLE, settings)
    position = [image.name for image in result.images].index("new.png")
    with Checker(kept, BUNDLE) as checker:
        check = checker.check(together / "new.png")
    assert len(images) == 24
    assert check.raw_score == pytest.approx(result.raw_scores[position], abs=1e-5)
    assert check.map is not None
    np.testing.assert_allclose(check.map, result.maps[position], rtol=0, atol=1e-5)


def names(kept: ReferenceFolder) -> tuple[set[str], set[str], set[str]]:
    m = kept.manifest
    return set(m.images), set(m.others), set(m.calibration)


def test_every_image_is_in_the_bank_or_held_out(lot: Path, tmp_path: Path) -> None:
    bank, others, held = names(reference(lot, tmp_path / "ref", hold_out=0.25))
    assert len(held) == 6
    assert len(bank) == 18
    assert not others
    assert bank | held == {f"{i}.png" for i in range(24)}


def test_the_same_call_gives_the_same_reference(lot: Path, tmp_path: Path) -> None:
    first, second = (reference(lot, tmp_path / name, images=10, patches=0.2) for name in "ab")
    assert first.digest == second.digest


def test_fewer_images_are_a_part_of_those_that_are_accepted(lot: Path, tmp_path: Path) -> None:
    kept = reference(lot, tmp_path / "ref", images=6)
    bank, others, held = names(kept)
    assert (len(bank), len(others), len(held)) == (6, 11, 7)
    assert len(kept.cls) == len(kept.looks) == 17
    assert names(reference(lot, tmp_path / "all"))[2] == held  # the calibration does not depend on the bank


def test_fewer_patches_raise_distances(lot: Path, tmp_path: Path) -> None:
    """The nearest of a few patches cannot be nearer than the nearest of all."""
    maps = []
    for share in (1.0, 0.25, 0.05):
        with Checker(reference(lot, tmp_path / f"{share}", patches=share), BUNDLE) as checker:
            found = checker.check(part(99, spot=60))
            assert found.map is not None
            maps.append(found.map)
    assert (maps[1] >= maps[0] - 1e-6).all()
    assert (maps[2] >= maps[1] - 1e-6).all()
    assert maps[2].mean() > maps[0].mean()


def test_half_precision_halves_the_tokens_and_hardly_changes_scores(lot: Path, tmp_path: Path) -> None:
    scores, sizes = [], []
    for precision in ("float32", "float16"):
        options = ReferenceOptions(precision=precision)
        kept = make_reference(lot, BUNDLE, tmp_path / precision, options=options)
        sizes.append((kept.root / "layer_0.npy").stat().st_size)
        with Checker(kept, BUNDLE) as checker:
            scores.append(checker.check(part(99, spot=60)).raw_score)
    assert sizes[0] - 128 == 2 * (sizes[1] - 128)
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], abs=2e-3)


def test_suspects_do_not_become_normal(tmp_path: Path) -> None:
    lot = tmp_path / "lot"
    write_lot(lot, 24)
    bad = {"x.png", "y.png"}
    for seed, name in enumerate(sorted(bad), 200):
        part(seed, spot=100).save(lot / name)
    bank, _, held = names(reference(lot, tmp_path / "ref", suspects=0.15, hold_out=0.25))
    assert not bank & bad
    assert len(bank) == 20 - 3
    assert len(held) == 6


def test_suspects_by_name_are_left_out_of_the_bank_alone(lot: Path, tmp_path: Path) -> None:
    plain = names(reference(lot, tmp_path / "plain"))
    first, held = min(plain[0]), min(plain[2])
    options = ReferenceOptions(suspects=(first, held))
    bank, _, calibration = names(make_reference(lot, BUNDLE, tmp_path / "ref", options=options))
    assert bank == plain[0] - {first}
    assert calibration == plain[2]


def test_another_lot_calibrates(lot: Path, tmp_path: Path) -> None:
    write_lot(tmp_path / "good", 9, first=500)
    kept = make_reference(lot, BUNDLE, tmp_path / "ref", calibrate=tmp_path / "good")
    bank, _, calibration = names(kept)
    assert len(bank) == 24
    assert calibration == {f"{i}.png" for i in range(500, 509)}
    assert kept.manifest.options["calibrated_by"] == "another lot"
    with Checker(kept, BUNDLE) as checker:
        raw = [checker.check(tmp_path / "good" / name).raw_score for name in sorted(calibration)]
    np.testing.assert_allclose(np.sort(raw), kept.calibration, rtol=0, atol=1e-6)


@pytest.mark.parametrize("patches", [1.0, 0.25])
def test_a_lot_is_added_to_a_reference(patches: float, lot: Path, tmp_path: Path) -> None:
    """The bank is that of both, and what is calibrated against it is new."""
    base = reference(lot, tmp_path / "old", patches=patches, images=12)
    write_lot(tmp_path / "more", 10, first=700)
    new = make_reference(tmp_path / "more", BUNDLE, tmp_path / "new", base=tmp_path / "old")
    bank, others, held = names(new)
    more = {f"{i}.png" for i in range(700, 710)}
    assert bank == {*base.manifest.images, *(more - held)}
    assert others == set(base.manifest.others)
    assert held < more
    assert new.manifest.options["base"] == base.digest
    assert new.manifest.patches == base.manifest.patches
    np.testing.assert_array_equal(new.cls[:12], base.cls[:12])
    with Checker(new, BUNDLE) as checker:
        assert checker.check(part(99, spot=60)).status == "ok"


def test_adding_a_lot_gives_what_one_lot_of_both_gives(lot: Path, tmp_path: Path) -> None:
    write_lot(tmp_path / "good", 9, first=500)
    both = tmp_path / "both"
    write_lot(both, 24)
    write_lot(both, 10, first=700)
    write_lot(tmp_path / "more", 10, first=700)
    good = tmp_path / "good"
    make_reference(lot, BUNDLE, tmp_path / "old", "paper", calibrate=good)
    added = make_reference(tmp_path / "more", BUNDLE, tmp_path / "new", calibrate=good, base=tmp_path / "old")
    at_once = make_reference(both, BUNDLE, tmp_path / "once", "paper", calibrate=good)
    np.testing.assert_allclose(added.calibration, at_once.calibration, rtol=0, atol=1e-6)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    write_lot(tmp_path / "lot", 5)
    with pytest.raises(LotError, match="too few"):
        reference(tmp_path / "lot", tmp_path / "ref", hold_out=0.5)
    assert not (tmp_path / "ref").exists()


def test_a_bank_smaller_than_the_interval_is_refused(lot: Path, tmp_path: Path) -> None:
    with pytest.raises(LotError, match="too few"):
        reference(lot, tmp_path / "ref", images=2)


def test_an_earlier_reference_is_replaced_only_if_asked(lot: Path, tmp_path: Path) -> None:
    reference(lot, tmp_path / "ref")
    with pytest.raises(OutputError, match="exists"):
        reference(lot, tmp_path / "ref")
    make_reference(lot, BUNDLE, tmp_path / "ref", options=ReferenceOptions(images=8), overwrite=True)
    assert len(open_reference(tmp_path / "ref").manifest.images) == 8


def test_unreadable_images_are_noted(tmp_path: Path) -> None:
    write_lot(tmp_path / "lot", 12)
    (tmp_path / "lot" / "broken.png").write_bytes(b"not a PNG")
    kept = reference(tmp_path / "lot", tmp_path / "ref")
    assert kept.manifest.options["skipped"] == ["broken.png"]


@pytest.mark.parametrize(
    "options",
    [
        {"images": 0},
        {"patches": 0},
        {"patches": 1.1},
        {"precision": "int8"},
        {"hold_out": 1},
        {"suspects": -1},
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(LotError, match="expected"):
        ReferenceOptions(**options)  # type: ignore[arg-type]


def test_a_damaged_base_is_refused(lot: Path, tmp_path: Path) -> None:
    base = reference(lot, tmp_path / "old")
    with (base.root / "layer_0.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(ReferenceFolderError, match="changed"):
        make_reference(lot, BUNDLE, tmp_path / "new", base=base)
    assert not (tmp_path / "new").exists()


def test_what_positions_have_in_the_bank_is_kept_and_subtracted(lot: Path, tmp_path: Path) -> None:
    settings = ScoreSettings(position_median=0.5)
    kept = make_reference(lot, BUNDLE, tmp_path / "ref", settings, options=ReferenceOptions(hold_out=0.25))
    bank = score_lot(
        [image for image in list_lot(lot) if image.name in kept.manifest.images], BUNDLE, "paper"
    )
    assert kept.level is not None
    np.testing.assert_allclose(kept.level, 0.5 * np.median(bank.maps, axis=0), atol=1e-5)
    assert kept.manifest.options["position_median"] == 0.5
    with Checker(kept, BUNDLE) as checker:
        checks = [checker.check(lot / name) for name in kept.manifest.calibration]
    raw = []
    for check in checks:
        assert check.map is not None
        raw.append(
            float(upsample((check.map - kept.level)[None], checker.bundle.manifest.preprocess.size).max())
        )
        assert check.raw_score == pytest.approx(raw[-1])
    np.testing.assert_allclose(kept.calibration, sorted(raw), atol=1e-6)
    more = make_reference(lot, BUNDLE, tmp_path / "more", base=kept)
    assert more.level is not None
    np.testing.assert_array_equal(more.level, kept.level)
    assert more.manifest.options["position_median"] == 0.5


def test_of_few_images_nobody_tells_whether_they_are_aligned(lot: Path, tmp_path: Path) -> None:
    settings = ScoreSettings(position_median="auto")
    kept = make_reference(lot, BUNDLE, tmp_path / "ref", settings, options=ReferenceOptions(hold_out=0.25))
    assert kept.level is None
    assert kept.manifest.options["position_median"] == 0.0
