"""The page computes maps, colours and regions as the package does: its modules beside their twins."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from musc_edge.runtime.results.heatmap import Scale, overlay
from musc_edge.runtime.results.report.content import colour_maps, encoded
from musc_edge.runtime.results.report.html import SCRIPTS, joined
from musc_edge.runtime.scoring.anomaly_map import upsample
from musc_edge.runtime.verdict.regions import SizedMap, find_regions
from support.browser import opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GRID = np.random.default_rng(3).uniform(0.2, 0.8, (6, 9)).astype(np.float32)
MAP = {"map": encoded(GRID), "rows": 6, "columns": 9}


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty.html").write_text("<!DOCTYPE html><meta charset=utf-8><title>empty</title>")
    return tmp_path / "empty.html"


def run(browser: Browser, page: Path, body: str, given: Any = None) -> Any:
    """What ``body`` returns, a function's, with the modules of the page and its argument ``given``."""
    modules = joined(tuple(name for name in SCRIPTS if name != "main"))
    with opened(browser, page) as opened_page:
        return opened_page.evaluate(f"(given) => {{ {modules}\n{body} }}", given)


def test_maps_are_interpolated_as_for_the_raw_score(browser: Browser, empty: Path) -> None:
    body = """const grid = modules.colour.decodedGrid(given.map, given.rows, given.columns);
        return [...modules.colour.upsampled(grid, 40, 50)];"""
    found = np.array(run(browser, empty, body, MAP)).reshape(40, 50)
    np.testing.assert_allclose(found, upsample(GRID[None], (40, 50))[0], atol=4e-5)


def test_heatmaps_have_the_colours_of_overlays(browser: Browser, empty: Path) -> None:
    body = """const canvas = modules.dom.make("canvas", { width: "50", height: "40" });
        const grid = modules.colour.decodedGrid(given.map, given.rows, given.columns);
        modules.colour.drawMap(canvas, grid, given.scale, modules.colour.decoded(given.colours));
        return [...canvas.getContext("2d").getImageData(0, 0, 50, 40).data];"""
    given = {**MAP, "scale": {"low": 0.3, "high": 0.7}, "colours": colour_maps()["inferno"]}
    drawn = np.array(run(browser, empty, body, given), float).reshape(40, 50, 4)
    gray, weight = 100, drawn[..., 3:] / 255
    unit = Scale(0.3, 0.7).unit(upsample(GRID[None], (40, 50))[0])
    expected = overlay(np.full((40, 50, 3), gray, np.uint8), unit)
    np.testing.assert_allclose(gray * (1 - weight) + drawn[..., :3] * weight, expected, atol=4)


def test_a_map_above_its_level_is_the_difference(browser: Browser, empty: Path) -> None:
    level = (0.5 * GRID.mean(axis=0, keepdims=True) * np.ones_like(GRID)).astype(np.float32)
    body = """const row = { entry: { map: given.map, grid: [given.rows, given.columns] } };
        const lot = { part: { level: { map: given.level, grid: [given.rows, given.columns] } } };
        const found = (lot) => [...modules.colour.upsampled(modules.data.judgedGridOf(row, lot), 40, 50)];
        return [found(lot), found({ part: {} })];"""
    above, plain = run(browser, empty, body, {**MAP, "level": encoded(level, down=True)})
    np.testing.assert_allclose(
        np.array(above).reshape(40, 50), upsample((GRID - level)[None], (40, 50))[0], atol=8e-5
    )
    np.testing.assert_allclose(np.array(plain).reshape(40, 50), upsample(GRID[None], (40, 50))[0], atol=4e-5)


def test_regions_are_those_of_the_results_within_a_point(browser: Browser, empty: Path) -> None:
    body = """const grid = modules.colour.decodedGrid(given.map, given.rows, given.columns);
        return modules.contours.regionsOf(modules.contours.fieldOf(grid), 0.6, 650, 410);"""
    found = run(browser, empty, body, MAP)
    expected = [each for each in find_regions(SizedMap(GRID, (410, 650)), 0.6) if each.area > 100]
    assert len(found) == len(expected)
    for own, other in zip(found, expected, strict=True):
        assert own["peak"] == pytest.approx(other.peak, abs=0.01)
        for name, value in (("peakX", other.peak_x), ("peakY", other.peak_y), ("x", other.x), ("y", other.y)):
            assert abs(own[name] - value) <= 11, name
        assert own["area"] == pytest.approx(other.area, rel=0.25, abs=200)


def test_names_become_bytes_and_addresses(browser: Browser, empty: Path) -> None:
    names = ["caf\udce9 é.png", "a\u202eb\x00", "检/?#%.png", "\U0001f468\u200d\U0001f469"]
    body = """return JSON.parse(given).map((name) => [
        [...modules.text.nameBytes(name)], modules.text.percent(name), modules.text.shownName(name)]);"""
    found = run(browser, empty, body, json.dumps(names))
    assert [bytes(each[0]) for each in found] == [name.encode("utf-8", "surrogateescape") for name in names]
    assert found[0][1] == "caf%E9%20%C3%A9.png"
    assert [each[2] for each in found] == ["caf\\xe9 é.png", "a\\u{202e}b\\u{0}", *names[2:]]


def test_colour_maps_are_those_of_opencv() -> None:
    assert list(colour_maps()) == ["inferno", "cividis", "gray"]
    assert all(len(base64.b64decode(values)) == 768 for values in colour_maps().values())


def test_copies_are_told_group_by_group(browser: Browser, empty: Path) -> None:
    """One page for all, since a page takes longer than what it is asked."""
    cases = {
        (True, True): "They did not judge each other. A copy",
        (False, False): "they judge each other, and hide",
        (True, False): "They did not judge each other, but for those of which it is said",
    }
    given = [
        [{"images": [f"{k}.png", f"{k}b.png"], "apart": each} for k, each in enumerate(apart)]
        for apart in cases
    ]
    body = "return given.map((groups) => modules.facts.copyList(groups).map((each) => each.textContent));"
    for (apart, said), (text, names) in zip(cases.items(), run(browser, empty, body, given), strict=True):
        assert said in text
        assert names.count("(judge each other)") == (len(set(apart)) == 2)
