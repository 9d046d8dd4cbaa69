"""References by residual: an image scores as infer scores it, and what is kept does not grow with the lot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from musc_edge import (
    Checker,
    DeviceError,
    LotError,
    ReadOptions,
    ReferenceFolder,
    ReferenceFolderError,
    ReferenceOptions,
    Resources,
    ScoreSettings,
    make_reference,
    open_reference,
    score_lot,
)
from musc_edge.runtime.reference import manifest as manifest_module
from musc_edge.runtime.vit.hashes import sha256
from support.command_line import run_here
from support.references import BUNDLE, part, write_lot

pytestmark = pytest.mark.slow

BY_RESIDUAL = ScoreSettings((1, 3), by="residual")
ALL = ReferenceOptions(hold_out=0)


@pytest.fixture(scope="module")
def lot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lots") / "lot"
    write_lot(folder, 24)
    return folder


@pytest.fixture(scope="module")
def kept(lot: Path, tmp_path_factory: pytest.TempPathFactory) -> ReferenceFolder:
    return make_reference(lot, BUNDLE, tmp_path_factory.mktemp("refs") / "ref", BY_RESIDUAL, options=ALL)


@pytest.mark.parametrize("reading", [ReadOptions(), ReadOptions(roi=(8, 4, 24, 30))])
def test_images_of_the_lot_score_as_infer_scores_them(
    lot: Path, tmp_path: Path, reading: ReadOptions
) -> None:
    settings = ScoreSettings((1, 3), by="residual", position_median=0.5)
    kept = make_reference(lot, BUNDLE, tmp_path / "ref", settings, options=ALL, reading=reading)
    result = score_lot(lot, BUNDLE, settings, reading=reading)
    with Checker(kept, BUNDLE) as checker:
        for k, image in enumerate(result.images):
            check = checker.check(image.local)
            assert check.map is not None
            np.testing.assert_allclose(check.map, result.maps[k], rtol=0, atol=1e-6)
            assert check.raw_score == pytest.approx(result.raw_scores[k], abs=1e-5)


def test_a_defect_is_rejected_and_has_a_region(lot: Path, tmp_path: Path) -> None:
    write_lot(tmp_path / "good", 20, first=500)
    kept = make_reference(lot, BUNDLE, tmp_path / "ref", "fast", calibrate=tmp_path / "good")
    with Checker(kept, BUNDLE) as checker:
        assert checker.check(part(99, spot=120)).verdict == "reject"
        assert checker.check(part(98)).verdict == "not flagged"
        regions = checker.check(part(99, spot=120)).regions
        assert 16 <= regions[0].x + regions[0].width / 2 <= 30
        assert checker.computed_by[1].startswith("residual, numpy ")
        raw = [checker.check(tmp_path / "good" / name).raw_score for name in kept.manifest.calibration]
    np.testing.assert_allclose(np.sort(raw), kept.calibration, rtol=0, atol=1e-6)


def test_adding_a_lot_gives_what_one_lot_of_both_gives(
    lot: Path, kept: ReferenceFolder, tmp_path: Path
) -> None:
    for folder in ("more", "both"):
        write_lot(tmp_path / folder, 10, first=700)
    write_lot(tmp_path / "both", 24)
    write_lot(tmp_path / "good", 9, first=500)
    good = tmp_path / "good"
    added = make_reference(tmp_path / "more", BUNDLE, tmp_path / "new", base=kept, calibrate=good)
    once = make_reference(tmp_path / "both", BUNDLE, tmp_path / "once", BY_RESIDUAL, calibrate=good)
    assert (added.manifest.by, len(added.manifest.images)) == ("residual", 34)
    np.testing.assert_allclose(added.calibration, once.calibration, rtol=0, atol=1e-6)


def test_what_is_kept_does_not_grow_with_the_lot(kept: ReferenceFolder, lot: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    write_lot(few, 6)
    smaller = make_reference(few, BUNDLE, tmp_path / "ref", BY_RESIDUAL, options=ALL)
    for name in ("layer_0.npy", "counts.npy", "moments.npy"):
        assert (smaller.root / name).stat().st_size == (kept.root / name).stat().st_size
    assert smaller.manifest.bank_bytes == kept.manifest.bank_bytes


def test_earlier_versions_refuse_it_by_its_schema(
    kept: ReferenceFolder, lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_reference(lot, BUNDLE, tmp_path / "plain", "paper", options=ALL)
    assert (plain.manifest.schema_version, kept.manifest.schema_version) == (1, 3)
    monkeypatch.setattr(manifest_module, "SCHEMA_VERSION", 2)
    with pytest.raises(ReferenceFolderError, match=r"has schema version 3; this musc-edge reads 2\. Upgrade"):
        open_reference(kept.root)


@pytest.mark.parametrize(
    "change", [{"by": "chance"}, {"burn_out": True}, {"window": 2}, {"patches": 3}, {"by": "pairs"}]
)
def test_manifests_that_contradict_themselves_are_refused(
    change: dict[str, object], kept: ReferenceFolder, tmp_path: Path
) -> None:
    facts = json.loads((kept.root / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(ReferenceFolderError, match=r"not possible|lists the files"):
        open_reference(tmp_path)


def test_counts_that_cannot_be_are_refused(lot: Path, tmp_path: Path) -> None:
    kept = make_reference(lot, BUNDLE, tmp_path / "ref", BY_RESIDUAL, options=ALL)
    path = kept.root / "counts.npy"
    counts = np.load(path)
    counts[0, 0, 0] = 10**6
    np.save(path, counts)
    facts = json.loads((kept.root / "manifest.json").read_text())
    facts["files"]["counts.npy"] = sha256(path)
    (kept.root / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(ReferenceFolderError, match="counts that cannot be"):
        Checker(kept.root, BUNDLE)


def test_what_has_no_meaning_is_refused(kept: ReferenceFolder, lot: Path, tmp_path: Path) -> None:
    for options in (ReferenceOptions(images=5), ReferenceOptions(patches=0.5)):
        with pytest.raises(LotError, match="images, patches or precision has no meaning by residual"):
            make_reference(lot, BUNDLE, tmp_path / "ref", BY_RESIDUAL, options=options)
    for resources in (Resources(scorer="numpy"), Resources(device_memory=10**9)):
        with pytest.raises(DeviceError, match="has no meaning by residual"):
            Checker(kept, BUNDLE, resources=resources)
    with pytest.raises(LotError, match=r"takes .* memory budget leaves .* by --memory-budget\.$"):
        Checker(kept, BUNDLE, resources=Resources(memory_budget=1_000_000))


def test_from_the_command_line(lot: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "ref")
    made = run_here(["musc-edge", "reference", str(lot), "-b", str(BUNDLE), "-o", out, "--method", "fast"])
    assert made.returncode == 0, made.stderr
    assert "what 17 images have in common; patches are scored by residual" in made.stdout
    assert "compared with each other" not in made.stderr
    assert "interval" not in made.stdout
    check = ["musc-edge", "check", str(lot / "3.png"), "--reference", out, "-b", str(BUNDLE), "--json"]
    done = run_here(check)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"][0]["status"] == "ok"
    assert run_here(["musc-edge", "inspect", out]).stdout == made.stdout
    refused = run_here([*check, "--scorer", "cuda"])
    assert (refused.returncode, "no meaning by residual" in refused.stderr) == (5, True)
