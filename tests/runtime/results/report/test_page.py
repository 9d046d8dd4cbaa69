"""The report in a browser: every promise of the page, from disk, without a word on the console."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from musc_edge.runtime.results.rejudge import Request, rejudge
from musc_edge.runtime.results.report.content import colour_maps
from musc_edge.runtime.results.report.html import page as html_page
from musc_edge.runtime.results.report.write import write_report
from musc_edge.runtime.settings import RESIDUAL, ScoreSettings
from musc_edge.runtime.types import SkippedImage
from musc_edge.runtime.verdict.marks import Mark, read_marks
from musc_edge.runtime.verdict.rules import Threshold
from support.browser import opened, until
from support.lots import lot_result
from support.places import DATA

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = (
    "<img src=x onerror=alert(1)>.png",
    "<script>alert(2)<",
    "\"quotes' & amp;.png",
    "שלום.png",
    "检查.png",
    "evil\u202egnp.exe",
    "caf\udce9.png",
    "new\nline.png",
    "long" * 40,
    "#image=%41?x.png",
)
NAMES = (*HOSTILE, "day1/one.png", "day1/deep/two.png", "day2/three.png", "four.png")
SCORES = [round(0.3 + 0.03 * i, 6) for i in range(len(NAMES))]
WORST = NAMES[-1]
SKIPPED = (SkippedImage("broken.png", "unreadable", "no <b>image</b> at all"),)


@pytest.fixture(scope="module")
def lot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results without verdicts of a lot whose names try everything, with its report."""
    folder = tmp_path_factory.mktemp("report")
    result = lot_result(folder / "lot", NAMES, SKIPPED, SCORES, size=(60, 90))
    result.save(folder / "out", report=True)
    return folder / "out"


@pytest.fixture
def judged(lot: Path, tmp_path: Path) -> Path:
    """The same, judged with two limits: three rejects and four to review."""
    shutil.copytree(lot.parent, tmp_path / "all")
    out = tmp_path / "all" / "out"
    rejudge(out, Request(Threshold(0.6, 0.48, "score")))
    return out


@pytest.fixture
def page(browser: Browser, lot: Path) -> Iterator[Page]:
    with opened(browser, lot / "report.html") as page:
        yield page


def names(page: Page) -> list[str]:
    """Full names of the cards in the page, in their order."""
    found: list[str] = page.locator(".card .name").evaluate_all("all => all.map((each) => each.title)")
    return found


def count(page: Page, name: str) -> int:
    """Images with a verdict, as the button beside it says."""
    return int(page.locator(f'.count[data-name="{name}"] .number-of').inner_text())


def json_lot(out: Path) -> Path:
    """The folder of the lot's images, as the results have it."""
    return Path(json.loads((out / "lot.json").read_bytes())["lot"])


def slider(page: Page) -> Any:
    return page.get_by_role("slider", name="Reject from")


# ---- what is shown ---------------------------------------------------------------------------


def test_the_worst_comes_first_and_what_was_not_scored_last(browser: Browser, lot: Path) -> None:
    with opened(browser, lot / "report.html", viewport={"width": 1280, "height": 4000}) as page:
        found = names(page)
        assert found[:3] == ["four.png", "day2/three.png", "day1/deep/two.png"]
        assert found[-1] == "broken.png"
        last = page.locator(".card").last
        assert last.locator(".no-picture").inner_text() == "no <b>image</b> at all"
        assert last.locator(".verdict").inner_text() == "unreadable"
        assert page.locator(".card .score").first.inner_text() == f"{max(SCORES):.3f}"
        assert page.locator(".card").first.get_attribute("data-rank") == "1"
        assert page.locator("#warnings .warnings li").all_inner_texts() == ["be careful"]
        assert page.locator("#warnings details").first.text_content() == (
            "Not scored: 1 file, and whybroken.png: no <b>image</b> at all"
        )
        assert count(page, "unjudged") == len(NAMES)
        assert count(page, "not scored") == 1


def test_names_are_shown_and_never_run(browser: Browser, lot: Path) -> None:
    with opened(browser, lot / "report.html", viewport={"width": 1280, "height": 4000}) as page:
        shown = names(page)
        assert {"<img src=x onerror=alert(1)>.png", "<script>alert(2)<", "שלום.png", "检查.png"} <= set(shown)
        assert {"evil\\u{202e}gnp.exe", "caf\\xe9.png", "new\\u{a}line.png", "\"quotes' & amp;.png"} <= set(
            shown
        )
        assert page.locator("main script, [onerror]").count() == 0
        large = page.evaluate(
            """async () => {
                const names = [];
                for (const card of [...document.querySelectorAll(".card")]) {
                    const changed = new Promise((done) => addEventListener("hashchange", done));
                    location.hash = card.hash;
                    await changed;
                    names.push(document.querySelector("#view-name").textContent);
                }
                return names;
            }"""
        )
        assert large == shown
        page.keyboard.press("Escape")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("#paper tbody tr").count() == len(NAMES) + 1


def test_verdicts_and_what_they_promise(browser: Browser, judged: Path) -> None:
    with opened(browser, judged / "report.html") as page:
        assert [count(page, name) for name in ("reject", "review", "not flagged")] == [4, 4, 6]
        about = json.loads((judged / "lot.json").read_bytes())["verdicts"]
        assert about["promise"] in page.locator("#meaning").inner_text()
        assert page.locator("#limit").input_value() == "0.6000"
        page.locator(".card").first.click()
        until(page, "document.querySelector('#view').open")
        told = page.locator(".view-verdict").inner_text()
        assert "0.090 above the reject limit of 0.600; 0.210 above the review limit of 0.480" in told
        assert "Score (judged)\n0.6900" in page.locator(".side .pairs").inner_text()
        page.keyboard.press("g")
        told = page.locator(".view-verdict").inner_text()
        assert told.startswith("Good (your mark)\nby the limits: Reject, 0.090 above")
        page.keyboard.press("Escape")
        assert (
            "as you marked 1 image. Of the verdicts without your marks:"
            in page.locator("#meaning").inner_text()
        )
    with opened(browser, judged / "report.html", f"#image={NAMES[-4].replace('#', '%23')}") as page:
        assert "exactly at the reject limit of 0.600" in page.locator(".view-verdict").inner_text()


@pytest.mark.long
def test_results_of_the_first_schema_have_a_report(browser: Browser, tmp_path: Path) -> None:
    shutil.copytree(DATA / "schema1" / "results", tmp_path / "old" / "results")
    (target,) = write_report(tmp_path / "old" / "results")
    with opened(browser, target) as page:
        assert page.locator(".card").count() == 8
        assert page.locator(".card .no-picture").first.inner_text() == "no picture"
        page.locator(".card").first.click()
        assert "the lot's folder was not found" in page.locator(".picture .no-picture").inner_text()
        assert page.locator(".picture canvas").count() == 1


@pytest.mark.long
def test_groups_have_one_report_with_a_choice(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in (1, 2):
        images = [f"g{number}/{i}.png" for i in range(4 + number)]
        lot_result(tmp_path / "lot", images).save(out / "groups" / f"0{number}_g{number}")
    abouts = {
        f"groups/0{n}_g{n}": json.loads((out / f"groups/0{n}_g{n}/lot.json").read_bytes()) for n in (1, 2)
    }
    (out / "lot.json").write_text(json.dumps({"lot": str(tmp_path / "lot"), "groups": abouts}))
    head = "image,status,raw_score,score,lot_score,map,error,verdict,p\n"
    (out / "scores.csv").write_text(f"{head}g3/one.png,too_few,,,,,1 image is too few,,\n")
    (target,) = write_report(out)
    with opened(browser, target) as page:
        assert page.locator("#group option").all_inner_texts() == ["01_g1", "02_g2"]
        assert page.locator(".card").count() == 6
        page.select_option("#group", label="02_g2")
        assert sorted(names(page)) == [f"g2/{i}.png" for i in range(6)]
    with opened(browser, target, "#image=g2/3.png") as page:
        assert page.locator("#view-name").inner_text() == "g2/3.png"


@pytest.mark.long
def test_many_pictures_lie_in_a_folder(
    browser: Browser, lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musc_edge.runtime.results.report.write.INLINE", 1000)
    target = tmp_path / "a #%.html"
    assert write_report(lot, target) == [target, tmp_path / "a #%-files"]
    with opened(browser, tmp_path / "a%20%23%25.html") as page:
        picture = page.locator(".card img").first
        until(page, "document.querySelector('.card img').naturalWidth > 0")
        assert (picture.get_attribute("src") or "").startswith("a%20%23%25-files/")
    monkeypatch.undo()
    assert write_report(lot, target) == [target]
    assert [path.name for path in tmp_path.iterdir()] == ["a #%.html"]


@pytest.mark.long
def test_a_lot_by_residual_is_not_called_compared(browser: Browser, tmp_path: Path) -> None:
    result = lot_result(tmp_path / "lot", ["a.png", "b.png", "c.png"])
    run = replace(result.run, settings=ScoreSettings(by=RESIDUAL), scorer=RESIDUAL)
    replace(result, run=run).save(tmp_path / "out", report=True)
    with opened(browser, tmp_path / "out/report.html") as page:
        assert (
            "3 images, scored by what lies outside of what they have in common"
            in page.locator("body").inner_text()
        )
        assert page.locator("p", has_text="how far each patch lies outside of it").count() == 1
        assert page.locator("p", has_text="was compared with the others").count() == 0
        assert page.locator("dt", has_text="Judges of each image").count() == 0


# ---- choosing --------------------------------------------------------------------------------


@pytest.mark.long
def test_search_filter_and_order(browser: Browser, judged: Path) -> None:
    with opened(browser, judged / "report.html", viewport={"width": 1280, "height": 4000}) as page:
        page.locator("#search").fill("DAY")
        assert names(page) == ["day2/three.png", "day1/deep/two.png", "day1/one.png"]
        page.locator("#search").fill("")
        page.select_option("#folder", label="day1")
        assert names(page) == ["day1/deep/two.png", "day1/one.png"]
        page.select_option("#folder", label="all folders")
        page.locator('.count[data-name="review"]').click()
        assert len(names(page)) == 4
        page.locator('.count[data-name="not scored"]').click()
        assert names(page)[-1] == "broken.png"
        page.locator('.count[data-name="review"]').click()
        page.locator('.count[data-name="not scored"]').click()
        page.select_option("#sort", "best")
        assert names(page)[0] == HOSTILE[0]
        page.select_option("#sort", "name")
        assert names(page)[0] in (
            "#image=%41?x.png",
            "\"quotes' & amp;.png",
            "<img src=x onerror=alert(1)>.png",
        )
        page.select_option("#sort", "limit")
        assert names(page)[:2] == ["caf\\xe9.png", "day1/one.png"]  # both are at a limit
        page.locator("#search").fill("nothing is called so")
        said = page.locator("#nothing span")
        assert said.inner_text() == "No image of this lot has “nothing is called so” in its name."
        page.locator('.count[data-name="not scored"]').click()
        page.locator("#search").fill("day1/one")
        assert said.inner_text() == "1 image with such a name, hidden by the filters: Not scored."
        page.locator("#show-hidden").click()
        assert names(page) == ["day1/one.png"]
        page.keyboard.press("Escape")
        page.locator("#search").press("Enter")  # the only one that is left
        until(page, "document.querySelector('#view').open")
        assert page.locator("#view-name").inner_text() == "day1/one.png"
        page.keyboard.press("Escape")
        page.locator("#clear").click()
        assert (len(names(page)), page.locator("#search").input_value()) == (len(NAMES) + 1, "")
        assert page.locator("#clear").is_hidden()


@pytest.mark.long
def test_a_limit_is_dragged(browser: Browser, judged: Path) -> None:
    with opened(browser, judged / "report.html") as page:
        box = slider(page).bounding_box()
        track = page.locator(".track").bounding_box()
        assert box
        assert track
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 2, y)
        page.mouse.down()
        page.mouse.move(track["x"] + 1, y, steps=4)
        until(page, "document.querySelector('[data-name=reject] .number-of').textContent === '14'")
        page.mouse.move(track["x"] + track["width"] + 50, y, steps=4)
        until(page, "document.querySelector('[data-name=reject] .number-of').textContent === '0'")
        page.mouse.up()
        assert slider(page).get_attribute("aria-valuetext") == "no limit"
        page.locator("#reset").click()
        until(page, "document.querySelector('[data-name=reject] .number-of').textContent === '4'")
        assert page.locator("#reset").is_hidden()


@pytest.mark.long
def test_limits_push_each_other_go_back_and_outlast_a_reload(
    browser: Browser, judged: Path, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    with opened(browser, judged / "report.html", accept_downloads=True) as page:
        reject, review = page.locator("#limit"), page.locator("#review-limit")
        place = reject.bounding_box()
        typed(page, "#limit", "0.45")
        expect(review).to_have_value("0.4500")
        assert reject.bounding_box() == place  # nothing jumps into the place of the next click
        typed(page, "#limit", "0.55")
        expect(review).to_have_value("0.4800")
        slider(page).focus()
        for key in ("Home", "End", "Escape"):
            page.keyboard.press(key)
        expect(reject).to_have_value("0.5500")
        page.keyboard.press("ArrowLeft")
        expect(reject).to_have_value("0.5490")
        typed(page, "#review-limit", "0.5")
        expect(page.locator(".handle.review")).to_have_attribute("aria-valuenow", "0.500")
        page.reload()
        assert (reject.input_value(), review.input_value()) == ("0.5490", "0.5000")
        assert page.locator("#saving").inner_text() == "Save my limits"
        marks = read_marks(saved(page, "#save-json", tmp_path))
        assert (marks.threshold, marks.review_from) == (0.549, 0.5)
        assert page.locator("#saving").inner_text() == "Saved: my limits"
        assert page.locator("#saved code").inner_text().endswith("-marks.json --threshold-of-marks")
    rejudge(judged, Request(Threshold(0.7)))
    with opened(browser, judged / "report.html") as page:
        assert page.locator("#limit").input_value() == "0.7000"


def typed(page: Page, field: str, value: str) -> None:
    page.locator(field).fill(value)
    page.locator(field).blur()


@pytest.mark.long
def test_a_limit_is_moved_by_touch(browser: Browser, lot: Path) -> None:
    with opened(browser, lot / "report.html", has_touch=True) as page:
        track = page.locator(".track").bounding_box()
        assert track
        page.touchscreen.tap(track["x"] + 2, track["y"] + 30)
        until(page, "document.querySelector('[data-name=reject] .number-of').textContent === '14'")


def test_a_limit_is_moved_by_keys_and_typed(page: Page) -> None:
    slider(page).focus()
    page.keyboard.press("Home")
    until(page, "document.querySelector('[data-name=reject] .number-of').textContent === '14'")
    assert slider(page).get_attribute("aria-valuenow") == slider(page).get_attribute("aria-valuemin")
    for key in ("PageUp", "ArrowRight", "ArrowUp"):
        before = float(slider(page).get_attribute("aria-valuenow"))
        page.keyboard.press(key)
        until(page, f"document.querySelector('.handle.reject').getAttribute('aria-valuenow') > {before}")
    page.locator("#limit").fill("0,65")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('[data-name=reject] .number-of').textContent === '2'")
    assert slider(page).get_attribute("aria-valuetext") == "0.650: 2 of 14 rejected"
    page.locator("#limit").fill("much")
    page.keyboard.press("Enter")
    assert page.locator("#limit").get_attribute("aria-invalid") == "true"
    assert "“much” is no limit: give a distance" in page.locator("#limit-wrong").inner_text()
    assert count(page, "reject") == 2
    page.locator("#limit").fill("1.5")
    page.keyboard.press("Enter")
    assert "the highest score is 0.6900" in page.locator("#limit-wrong").inner_text()
    page.locator("#reset").click()
    assert page.locator("#limit-wrong").is_hidden()


# ---- keys, the large view --------------------------------------------------------------------


@pytest.mark.long
def test_all_of_it_by_keys(page: Page) -> None:
    page.locator("#colours").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "card"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.dataset.rank") == "2"
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#view').open")
    assert page.locator("#view-name").inner_text() == "day2/three.png"
    assert page.url.endswith("#image=day2/three.png")
    page.keyboard.press("ArrowRight")
    assert page.locator("#view-name").inner_text() == "day1/deep/two.png"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#view-name").inner_text() == WORST
    page.keyboard.press("Escape")
    assert page.locator("#view").is_hidden()
    until(page, "document.activeElement.dataset.rank === '1'")
    until(page, "!location.hash")
    page.keyboard.press("End")
    until(page, "document.activeElement.ariaLabel.startsWith('broken.png')")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"


@pytest.mark.long
def test_an_address_leads_to_an_image_and_back(browser: Browser, lot: Path) -> None:
    with opened(browser, lot / "report.html", "#image=caf%E9.png") as page:
        assert page.locator("#view-name").inner_text() == "caf\\xe9.png"
        page.locator("#view").get_by_role("button", name="Close").click()
        until(page, "!location.hash")
        page.locator(".card").first.click()
        until(page, "document.querySelector('#view').open")
        page.go_back()
        until(page, "!document.querySelector('#view').open")


@pytest.mark.long
def test_the_large_view_shows_map_outline_and_regions(browser: Browser, judged: Path) -> None:
    with opened(browser, judged / "report.html", f"#image={WORST}") as page:
        assert page.locator(".picture canvas.heat").count() == 1
        assert page.locator(".picture path.outline").last.get_attribute("d")
        assert page.locator(".regions tbody tr").count() >= 1
        until(page, "document.querySelector('.picture img').src.startsWith('file:')")
        assert page.evaluate("document.querySelector('.picture img').naturalWidth") == 90
        for key, layer in (("h", "heat"), ("o", "outline"), ("r", "regions")):
            page.keyboard.press(key)
            assert page.locator(f".picture.with-{layer}").count() == 0
        page.keyboard.press("+")
        assert "scale(1.5)" in (page.locator(".picture").get_attribute("style") or "")
        page.keyboard.press("0")
        link = page.get_by_role("link", name="Open the original file")
        target = (judged / str(link.get_attribute("href"))).resolve()
        assert target == json_lot(judged) / WORST


@pytest.mark.long
def test_heatmaps_come_with_the_pointer_or_for_all(page: Page) -> None:
    assert page.locator(".card canvas").count() == 0
    page.locator(".card").nth(1).hover()
    until(page, "getComputedStyle(document.querySelector('.card canvas')).opacity === '1'")
    assert page.locator(".card canvas").count() == 1
    page.locator("#heat").click()
    assert page.locator(".card canvas").count() == page.locator(".card").count()
    before = page.evaluate("document.querySelector('.card canvas').toDataURL()")
    page.select_option("#colours", "cividis")
    assert page.evaluate("document.querySelector('.card canvas').toDataURL()") != before


# ---- marks -----------------------------------------------------------------------------------


def saved(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.locator(button).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


@pytest.mark.long
def test_marks_are_kept_saved_and_taken_over(browser: Browser, judged: Path, tmp_path: Path) -> None:
    with opened(browser, judged / "report.html", accept_downloads=True) as page:
        page.locator(".card").first.focus()
        page.keyboard.press("g")
        assert count(page, "reject") == 3
        page.evaluate("location.hash = '#image=caf%E9.png'")
        until(page, "document.querySelector('#view').open")
        page.keyboard.press("b")
        page.locator("#remark").fill('a "scratch", = <b>\nsecond line')
        page.keyboard.press("Escape")
        assert count(page, "reject") == 4
        until(page, "!location.hash")
        page.reload()
        assert count(page, "reject") == 4
        assert page.locator("#saving").inner_text() == "Save 2 marks, 1 remark"
        page.select_option("#marked", "bad")
        assert names(page) == ["caf\\xe9.png"]
        assert page.locator(".card").first.get_attribute("data-note") == "marked bad, remark"
        as_json, as_csv = saved(page, "#save-json", tmp_path), saved(page, "#save-csv", tmp_path)
    expected = {WORST: Mark("good"), "caf\udce9.png": Mark("bad", 'a "scratch", = <b>\nsecond line')}
    marks = read_marks(as_json)
    assert marks.marks == expected
    assert (marks.threshold, marks.review_from, marks.judged_by) == (0.6, 0.48, "score")
    assert read_marks(as_csv).marks == expected
    rejudge(judged, Request(marks=marks))
    with opened(browser, judged / "report.html") as page:  # the marks are part of the results now
        assert count(page, "reject") == 4
        assert page.locator("#saving").inner_text() == "Save 2 marks, 1 remark"


@pytest.mark.long
@pytest.mark.parametrize("how", ["get", "set"])
def test_marks_work_where_nothing_may_be_kept(browser: Browser, lot: Path, how: str) -> None:
    refuse = "throw new DOMException('no', 'SecurityError')"
    before = {
        "get": f"Object.defineProperty(window, 'localStorage', {{ get() {{ {refuse}; }} }})",
        "set": f"Storage.prototype.setItem = () => {{ {refuse}; }}",
    }
    with opened(browser, lot / "report.html", before=before[how]) as page:
        assert page.locator("#not-kept").is_visible()
        page.locator(".card").first.focus()
        page.keyboard.press("b")
        assert page.locator(".card").first.get_attribute("data-mark") == "bad"


# ---- every reader ----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.long
def test_axe_finds_nothing(browser: Browser, judged: Path, scheme: str) -> None:
    from axe_playwright_python.base import AXE_SCRIPT

    with opened(browser, judged / "report.html", color_scheme=scheme, reduced_motion="reduce") as page:
        page.evaluate(AXE_SCRIPT)
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        found = page.evaluate("axe.run()")["violations"]
        page.locator(".card").first.click()
        until(page, "document.querySelector('#view').open")
        found += page.evaluate("axe.run()")["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []


@pytest.mark.long
def test_light_and_dark(browser: Browser, lot: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, lot / "report.html", color_scheme="dark") as page:
        dark = page.evaluate(paper)
        page.locator("#theme").click()
        light = page.evaluate(paper)
        assert (dark, light) == ("rgb(18, 19, 21)", "rgb(246, 246, 244)")


@pytest.mark.long
@pytest.mark.parametrize("width", [360, 768, 3840])
def test_nothing_is_wider_than_the_page(browser: Browser, judged: Path, width: int) -> None:
    with opened(browser, judged / "report.html", viewport={"width": width, "height": 740}) as page:
        wide = "document.documentElement.scrollWidth > innerWidth"
        assert not page.evaluate(wide)
        page.evaluate(f"location.hash = '#image={WORST}'")
        until(page, "document.querySelector('#view').open")
        assert not page.evaluate(wide)
        button = page.locator("#view").get_by_role("button", name="Bad").bounding_box()
        assert button
        assert button["x"] + button["width"] <= width


def test_what_is_printed(browser: Browser, judged: Path) -> None:
    with opened(browser, judged / "report.html") as page:
        page.evaluate("window.print = () => { window.printed = true; }")
        page.locator('.count[data-name="reject"]').click()
        page.locator("#print").click()
        until(page, "window.printed")
        page.emulate_media(media="print")
        assert page.locator("#paper tbody tr").count() == 4
        cells = page.locator("#paper tbody tr").first.inner_text().split("\t")
        assert cells[3:6] == [WORST, "0.690", "Reject"]
        assert "Showing 4 of 15 images: Reject." in page.locator("#paper").inner_text()
        assert page.locator("main").is_hidden()
        assert page.evaluate(
            "[...document.querySelectorAll('#paper img')].every((each) => each.naturalWidth > 0)"
        )


@pytest.mark.long
def test_a_print_of_a_fresh_page_in_the_dark_has_the_flagged_images(browser: Browser, judged: Path) -> None:
    with opened(browser, judged / "report.html", color_scheme="dark") as page:
        page.emulate_media(media="print")
        until(page, "document.querySelectorAll('#paper tbody tr').length === 8")
        text = page.locator("#paper").inner_text()
        assert "Limits: reject from 0.6000, review from 0.4800 (score)." in text
        assert "Warning: be careful" in text
        assert "Showing 8 of 15 images: those that are flagged, marked or have a remark." in text
        assert page.locator("#paper canvas").count() == 8
        ink = "getComputedStyle(document.querySelector('#paper td')).color"
        assert page.evaluate(ink) == "rgb(27, 28, 30)"


# ---- large lots ------------------------------------------------------------------------------


@pytest.mark.long
def test_few_of_many_images_are_in_the_page(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "many.html").write_bytes(b"".join(html_page(*many(2000))))
    with opened(browser, tmp_path / "many.html") as page:
        seen = 0
        for place in (0, 3000, 50_000, 10**7):
            page.evaluate(f"scrollTo(0, {place})")
            page.wait_for_timeout(200)
            seen = max(seen, page.locator("#images *").count())
        until(page, "[...document.querySelectorAll('.card .name')].at(-1).title === 'image1999.png'")
        assert max(seen, page.locator("#images *").count()) <= 200
        assert page.locator(".card").last.get_attribute("aria-label") is not None
        assert page.locator("#images li").last.get_attribute("aria-posinset") == "2000"
        page.locator(".card").last.click()
        until(page, "document.querySelector('#view').open")
        page.locator(".side").get_by_role("link", name="image0000.png").click()  # it is a copy of that
        until(page, "document.querySelector('#view-name').textContent === 'image0000.png'")
        page.keyboard.press("Escape")
        until(page, "!location.hash && !document.querySelector('#view').open")


def many(images: int) -> tuple[dict[str, Any], list[tuple[dict[str, Any], list[dict[str, Any]]]]]:
    """The content of a page without pictures, the worst image first."""
    scores = np.linspace(0.9, 0.3, images)
    entries = [
        {"name": f"image{i:04}.png", "status": "ok", "verdict": "", "error": "", "raw": score, "score": score}
        for i, score in enumerate(scores.tolist())
    ]
    facts = {
        "name": "", "lot": "lot", "found": False, "scale": {"low": 0.3, "high": 0.9},
        "copies": [{"images": ["image0000.png", "image1999.png"]}],
        "warnings": [], "notes": [], "settings": {}, "bundle": {"sha256": "0", "backbone": "a ViT"},
    }  # fmt: skip
    return {"version": "1", "colours": colour_maps()}, [(facts, entries)]
