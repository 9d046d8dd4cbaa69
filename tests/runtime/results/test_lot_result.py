"""What a user does with the result of ``score_lot``: print it, save it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from musc_edge import LotImage, LotResult, OutputError, open_bundle, score_lot
from musc_edge.runtime.types import SkippedImage
from musc_edge.tools.edge import main
from support.bad_input import Place
from support.lots import lot_result, tree

SKIPPED = [SkippedImage("broken.png", "unreadable", "the file ends early")]
NAMES = [f"{k}.png" for k in range(1, 9)]


@pytest.fixture
def result(tmp_path: Path) -> LotResult:
    return lot_result(tmp_path / "lot", NAMES, SKIPPED, scores=[k / 10 for k in range(8)])


def test_it_prints_as_a_short_table_of_the_worst(result: LotResult) -> None:
    lines = str(result).splitlines()
    assert lines[0] == "8 images scored, 1 skipped; most suspicious:"
    assert [line.split()[1:3] for line in lines[2:7]] == [
        [f"{k}.png", f"{(k - 1) / 10:.4f}"] for k in (8, 7, 6, 5, 4)
    ]
    assert lines[7:] == ["skipped: broken.png (unreadable)", "warning: be careful"]


def test_its_repr_is_one_line(result: LotResult) -> None:
    assert repr(result) == "<LotResult: 8 images, scores 0.0000 to 0.7000, skipped 1, warnings 1>"


def test_names_of_any_bytes_print_on_one_line(tmp_path: Path) -> None:
    result = lot_result(tmp_path / "lot", ["line\nbreak.png", "byte\udcff.png", *NAMES[:3]])
    lines = str(result).splitlines()
    assert len(lines) == 2 + 5 + 1
    str(result).encode("utf-8")


def test_it_knows_the_lots_folder(tmp_path: Path) -> None:
    assert lot_result(tmp_path / "lot", ["a/b/1.png", *NAMES]).root == tmp_path / "lot"


@pytest.mark.slow
def test_images_may_have_names_of_their_own(tmp_path: Path, quick_bundle: Path, place: Place) -> None:
    images = [LotImage(f"camera/{k}/{p.name}", p) for k, p in enumerate(sorted(place.lot.iterdir()))]
    result = score_lot(images, quick_bundle)
    result.save(tmp_path / "out")
    assert json.loads((tmp_path / "out/lot.json").read_text())["images"] == len(images)
    assert (tmp_path / "out/maps/camera/0").is_dir()


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {}),
        (
            ["--maps", "pixel", "--map-format", "png16", "--overlays"],
            {"maps": "pixel", "map_format": "png16", "overlays": True},
        ),
    ],
)
@pytest.mark.slow
def test_saving_writes_what_the_command_line_writes(
    place: Place, flags: list[str], options: dict[str, Any]
) -> None:
    by_command, by_python = place.root / "by_command", place.root / "by_python"
    assert main(["infer", str(place.lot), "-b", str(place.bundle), "-o", str(by_command), *flags]) == 0
    score_lot(place.lot, open_bundle(place.bundle)).save(by_python, **options)
    command, python = tree(by_command), tree(by_python)
    lots = [json.loads(files.pop("lot.json") or b"") for files in (command, python)]
    assert command == python
    for lot in lots:  # what two runs may differ in
        del lot["plan"], lot["timings_s"], lot["time"]
    assert lots[0] == lots[1]


def test_results_are_not_replaced_unasked(result: LotResult, tmp_path: Path) -> None:
    result.save(tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(OutputError, match="Use overwrite=True to replace it, or choose another folder"):
        result.save(tmp_path / "out")
    assert tree(tmp_path / "out") == before
    result.save(str(tmp_path / "out"), overwrite=True, maps="none")
    assert not (tmp_path / "out/maps").exists()


def test_the_lot_is_never_replaced(tmp_path: Path) -> None:
    result = lot_result(tmp_path / "out/maps", NAMES)
    (tmp_path / "out/lot.json").write_text("{}")
    with pytest.raises(OutputError, match="is or holds the lot itself"):
        result.save(tmp_path / "out", overwrite=True)
    assert result.images[0].local.is_file()


@pytest.mark.parametrize("options", [{"maps": "pixels"}, {"map_format": "jpg"}])
def test_an_unknown_kind_of_map_is_named(result: LotResult, tmp_path: Path, options: dict[str, Any]) -> None:
    (value,) = options.values()
    with pytest.raises(OutputError, match=f"'{value}': expected one of"):
        result.save(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
