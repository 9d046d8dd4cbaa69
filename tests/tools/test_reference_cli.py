"""``musc-edge reference``, ``check`` and ``inspect`` from their options to what they print and write."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musc_edge import open_reference
from musc_edge.runtime.reference.files import read_thumbnails
from support.command_line import run_here
from support.references import BUNDLE, part, reference, write_lot


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("line")
    write_lot(folder / "lot", 30)
    reference(folder / "lot", folder / "ref", hold_out=0.7)
    part(99, spot=120).save(folder / "bad.png")
    part(98).save(folder / "good.png")
    return folder


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    done = run_here(["musc-edge", *map(str, arguments)])
    return done.returncode, done.stdout, done.stderr


def test_a_reference_is_made_and_described(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "ref"
    options = ["-b", BUNDLE, "-o", out, "--images", 9, "--patches", 0.25, "--precision", "float16"]
    code, text, _ = run("reference", root / "lot", *options, "--exclude-suspects", "--degrees", "1,3")
    assert code == 0
    assert "9 images, 16 of 64 patches for each layer and degree, float16; 10 more images accepted" in text
    assert "2 images left out of the bank" in text
    assert "by 9 images (images held out); the smallest p is 0.1" in text
    assert run("inspect", out)[:2] == (0, text)
    code, printed, _ = run("inspect", out, "--json")
    about = json.loads(printed)
    assert (code, about["path"], about["degrees"], about["patches"]) == (0, str(out), [1, 3], 16)


def test_that_the_lot_is_compared_with_itself_is_said(root: Path, tmp_path: Path) -> None:
    options = [root / "lot", "-b", BUNDLE, "--hold-out", 0.3, "-o"]
    code, _, errors = run("reference", *options, tmp_path / "ref")
    assert code == 0
    assert re.search(
        r"21 images are compared with each other first, .* takes about [\d.]+ .*s after [\d.]+ .*s for",
        errors,
    )
    code, _, errors = run("reference", *options, tmp_path / "plain", "--position-median", 0)
    assert code == 0
    assert "compared with each other first" not in errors


def test_images_are_checked(root: Path) -> None:
    images = root / "good.png", root / "bad.png"
    code, text, _ = run("check", *images, "--reference", root / "ref", "-b", BUNDLE)
    assert code == 0
    lines = text.splitlines()
    assert lines[0].split() == ["image", "raw", "p", "verdict"]
    assert lines[1].endswith("not flagged")
    assert lines[2].endswith("  0.0455  reject")
    assert "at most 5 % are rejected on average; the smallest p is 0.0455" in text


def test_a_rejected_image_has_regions_and_a_code_of_its_own(root: Path, tmp_path: Path) -> None:
    images = [root / "good.png", root / "bad.png"]
    common = ["--reference", root / "ref", "-b", BUNDLE, "--fail-on", "reject"]
    code, text, _ = run("check", *images, *common, "--json", "-o", tmp_path / "out")
    assert code == 9
    good, bad = json.loads(text)["images"]
    assert good["regions"] == []
    assert bad["regions"][0]["peak"] <= bad["raw_score"] + 1e-6
    rows = (tmp_path / "out/regions.csv").read_text().splitlines()
    assert len(rows) == 1 + len(bad["regions"])
    assert rows[1].startswith(f"{root / 'bad.png'},1,")
    assert run("check", root / "good.png", *common)[0] == 0


def test_json_has_all_of_it(root: Path) -> None:
    code, text, _ = run(
        "check",
        root / "bad.png",
        "--reference",
        root / "ref",
        "-b",
        BUNDLE,
        "--json",
        "--alpha",
        0.01,
    )
    about = json.loads(text)
    assert code == 0
    assert (about["alpha"], about["calibration_images"], about["reject_above"]) == (0.01, 21, None)
    assert "Calibrate by 99 or more" in about["promise"]
    (image,) = about["images"]
    assert (image["status"], image["verdict"], image["p"]) == ("ok", "not flagged", 1 / 22)


def test_maps_and_overlays_are_written(root: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        part(7, spot=50).save(folder / name)
    (folder / "broken.png").write_bytes(b"nothing")
    arguments = ["check", folder, root / "good.png", "--reference", root / "ref", "-b", BUNDLE, "-o", out]
    code, text, _ = run(*arguments, "--json")
    assert code == 3
    assert json.loads(text) == json.loads((out / "checks.json").read_text())
    images = {Path(image["image"]).name: image for image in json.loads(text)["images"]}
    assert images["broken.png"]["status"] == "unreadable"
    assert images["broken.png"]["raw_score"] is images["broken.png"]["p"] is None
    assert np.load(out / images["a.png"]["map"]).shape == (8, 8)
    assert sorted(path.name for path in (out / "overlays").iterdir()) == ["1_a.jpg", "2_b.jpg", "4_good.jpg"]
    with Image.open(out / "overlays/4_good.jpg") as overlay:
        assert overlay.width == 40
    assert (out / "regions.csv").read_text().startswith("image,region,x,y,width,height,area,peak")
    assert run(*arguments)[0] == 7
    assert run(*arguments, "--overwrite")[0] == 3


def test_a_lot_is_added(root: Path, tmp_path: Path) -> None:
    write_lot(tmp_path / "more", 8, first=300)
    code, text, _ = run(
        "reference", root / "ref", "--add", tmp_path / "more", "-o", tmp_path / "new", "-b", BUNDLE
    )
    assert code == 0
    assert "15 images, all patches" in text


def test_another_lot_calibrates(root: Path, tmp_path: Path) -> None:
    write_lot(tmp_path / "good", 7, first=400)
    new, good = tmp_path / "new", tmp_path / "good"
    code, text, _ = run("reference", root / "lot", "-o", new, "-b", BUNDLE, "--calibrate", good)
    assert code == 0
    assert "by 7 images (another lot)" in text


def test_what_a_reference_was_made_of_can_be_looked_at(root: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert run("inspect", root / "ref", "--sheet", sheet)[0] == 0
    manifest = open_reference(root / "ref").manifest
    with Image.open(sheet) as picture, Image.open(root / "lot" / manifest.images[0]) as image:
        found = np.asarray(picture.crop((6, 30, 134, 158)).convert("L"), int)
        expected = np.asarray(image.convert("L").resize((128, 128), Image.Resampling.BICUBIC), int)
    assert abs(found - expected).mean() < 12
    code, _, error = run("inspect", root / "ref", "--sheet", sheet)
    assert (code, "exists" in error) == (7, True)
    code, _, error = run("inspect", BUNDLE, "--sheet", tmp_path / "other.png")
    assert (code, "for references" in error) == (2, True)


def test_a_reference_without_thumbnails_still_grows(root: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(root / "ref", tmp_path / "old"))
    about = json.loads((old / "manifest.json").read_text())
    del about["files"]["thumbnails.npy"]
    (old / "manifest.json").write_text(json.dumps(about))
    (old / "thumbnails.npy").unlink()
    write_lot(tmp_path / "more", 6, first=700)
    code, _, error = run("reference", old, "--add", tmp_path / "more", "-o", tmp_path / "new", "-b", BUNDLE)
    assert code == 0, error
    new = open_reference(tmp_path / "new")
    lit = [bool(picture.any()) for picture in read_thumbnails(new)]
    names = (*new.manifest.images, *new.manifest.others)
    assert [name in about["images"] + about["others"] for name in names] == [not each for each in lit]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["check", "{root}/bad.png", "--reference", "{root}/lot"], 4, "is no reference"),
        (["check", "{root}/nothing.png", "--reference", "{root}/ref"], 2, "there is no file"),
        (["check", "--reference", "{root}/ref"], 2, "IMAGE"),
        (["check", "{root}/bad.png"], 2, "--reference"),
        (["check", "{root}/bad.png", "--reference", "{root}/ref", "--alpha", "5"], 2, "above 0 and below 1"),
        (["reference", "{root}/nowhere"], 2, "does not exist"),
        (["reference", "{root}/lot", "--patches", "2"], 2, "above 0 and below 1"),
        (["reference", "{root}/ref", "--add", "{root}/lot", "--degrees", "1"], 2, "no meaning with --add"),
        (["reference", "{root}/lot", "--hold-out", ".2", "--calibrate", "{root}/lot"], 2, "no meaning"),
        (["reference", "{root}/lot", "--add", "{root}/lot", "-o", "{root}/x"], 4, "is no reference"),
        (["reference", "{root}/lot", "--exclude-suspects", "few"], 2, "or a folder of results"),
        (["reference", "{root}/lot", "--exclude-suspects", "{root}/lot", "-o", "{root}/x"], 6, "no results"),
        (["reference", "{root}/lot", "-o", "{root}/lot"], 7, "the lot itself"),
    ],
)
def test_mistakes_have_their_code_and_say_what_to_do(
    arguments: list[str], code: int, said: str, root: Path
) -> None:
    given = [argument.format(root=root) for argument in arguments]
    found, _, error = run(*given, "-b", BUNDLE)
    assert (found, said in error) == (code, True), error


def test_a_reference_of_another_bundle_is_refused(root: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(root / "ref", tmp_path / "other"))
    about = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**about, "bundle": "0" * 64}))
    code, _, error = run("check", root / "bad.png", "--reference", other, "-b", BUNDLE)
    assert code == 4
    assert "was made with another bundle" in error
