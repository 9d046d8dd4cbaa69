"""What the drift monitor says of a line, and that it says it again after a restart."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge import Checker, ReferenceFolder
from musc_edge.runtime.line import drift
from musc_edge.runtime.line.drift import DriftMonitor, base_of, control_limits
from musc_edge.runtime.line.result_log import ResultLog
from musc_edge.runtime.line.station import Station
from musc_edge.runtime.reference.check_facts import check_facts
from musc_edge.runtime.reference.checker import Check
from musc_edge.tools.drift_options import add_drift, drift_witness
from support.references import BUNDLE, part, write_lot
from support.references import reference as make_lot_reference

RATE = 0.001


def reference(images: int = 60, digest: str = "a" * 64) -> ReferenceFolder:
    """A reference of images with scores about 0.4, brightness about 0.5, sharpness about 0.1."""
    draw = np.random.RandomState(0)
    cls = draw.normal(size=(images, 32))
    cls /= np.linalg.norm(cls, axis=1, keepdims=True)
    looks = draw.normal((0.5, 0.1), (0.02, 0.01), size=(images, 2))
    scores = np.sort(draw.normal(0.4, 0.03, images))
    nothing: Any = None  # the manifest says nothing that drift depends on
    return ReferenceFolder(Path("ref"), nothing, digest, cls.astype(np.float32), looks, scores)


def checks(images: int, seed: int = 1, **added: float) -> list[Check]:
    """Checks of images like the reference's, with some signals higher or lower."""
    draw, found = np.random.RandomState(seed), []
    usual = base_of(reference())
    for k in range(images):
        signals = {name: draw.choice(values) + added.get(name, 0) for name, values in usual.items()}
        found.append(Check(f"{k}.png", "ok", p=0.5, verdict="not flagged", **signals))
    return found


def run(monitor: DriftMonitor, log: ResultLog, images: list[Check]) -> list[dict[str, Any]]:
    """See and record images one after another; returns what was said of each."""
    said = []
    for check in images:
        fact = monitor.see(check, "image", None)
        log.add({**check_facts(check), **fact}, "part42")
        said.append(fact["drift"])
    return said


def test_a_brighter_camera_is_told_with_its_beginning_and_its_end(tmp_path: Path) -> None:
    with ResultLog(tmp_path) as log:
        monitor = DriftMonitor(reference(), RATE, log)
        steady = run(monitor, log, checks(30))
        changed = run(monitor, log, checks(40, 2, brightness=0.1))
        after = run(monitor, log, checks(130, 3))
        time = log.after(30, 1)[0].time
    assert {(fact["state"], fact["since"], *fact["what"]) for fact in steady} == {("steady", None)}
    assert [fact["state"] for fact in changed[30:]] == ["changed"] * 10
    last = changed[-1]
    assert abs(last["since"] - 31) <= 1
    [text] = last["what"]
    when = f"{time[:10]} {time[11:16]} UTC"
    assert text.startswith(f"images became brighter since image {last['since']} ({when}): median of the last")
    assert float(text.split()[-1]) == pytest.approx(0.5, abs=0.01)
    assert float(text.split("last 25 ")[1].split(",")[0]) == pytest.approx(0.6, abs=0.02)
    assert after[-1] == steady[0]


@pytest.mark.parametrize(
    ("signal", "by", "text"),
    [
        ("raw_score", 0.1, "scores rose"),
        ("raw_score", -0.1, "scores fell"),
        ("cls_distance", 0.2, "images became less like"),
        ("cls_distance", -0.2, "images became more like"),
        ("brightness", -0.1, "images became darker"),
        ("sharpness", 0.05, "images became sharper"),
        ("sharpness", -0.05, "images became blurrier"),
    ],
)
def test_each_kind_of_change_has_its_words(tmp_path: Path, signal: str, by: float, text: str) -> None:
    with ResultLog(tmp_path) as log:
        said = run(DriftMonitor(reference(), RATE, log), log, checks(40, 4, **{signal: by}))[-1]
    assert [what.startswith(text) for what in said["what"]] == [True]


def test_single_defects_are_no_drift(tmp_path: Path) -> None:
    images = checks(100)
    images[::5] = checks(20, 5, raw_score=0.5, cls_distance=0.5)
    with ResultLog(tmp_path) as log:
        said = run(DriftMonitor(reference(), RATE, log), log, images)
    assert {fact["state"] for fact in said} == {"steady"}


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    images = [*checks(15), *checks(30, 2, raw_score=0.1), *checks(15, 3)]
    with ResultLog(tmp_path / "once") as log:
        once = run(DriftMonitor(reference(), RATE, log), log, images)
    again = []
    for k in range(0, len(images), 10):
        with ResultLog(tmp_path / "often") as log:
            monitor = DriftMonitor(reference(), RATE, log)
            # Seen, and then killed before it was recorded: it counts once.
            monitor.see(images[k], "image", None)
            again += run(monitor, log, images[k : k + 10])
    assert _without_times(again) == _without_times(once)


def test_a_long_log_is_not_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "KEEP_EVERY", 20)
    images = [*checks(25), *checks(30, 2, raw_score=0.1)]
    with ResultLog(tmp_path / "out") as log:
        run(DriftMonitor(reference(), RATE, log), log, images)
        [kept] = (tmp_path / "out").glob("drift-*.json")
        whole = kept.read_text()
        read = DriftMonitor(reference(), RATE, log)
        assert read._position == 40
        now = read.now()
        for damaged in (
            "",
            "[]",
            whole[:-9],
            whole.replace('"id": 40', '"id": 39'),
            whole.replace("[[", "["),
        ):
            kept.write_text(damaged)
            anew = DriftMonitor(reference(), RATE, log)
            assert anew._position == 0
            assert anew.now() == now
        kept.write_text(whole)
        assert DriftMonitor(reference(), RATE / 2, log)._position == 0
        assert DriftMonitor(reference(digest="b" * 64), RATE, log)._position == 0
    with ResultLog(tmp_path / "other") as log:
        (tmp_path / "other" / kept.name).write_text(whole)
        assert DriftMonitor(reference(), RATE, log)._position == 0


def _without_times(said: list[dict[str, Any]]) -> str:
    text = json.dumps(said)
    for fact in said:
        for what in fact["what"]:
            text = text.replace(what[what.index(" (20") : what.index(" UTC)")], "")
    return text


def test_what_could_not_be_scored_is_left_out(tmp_path: Path) -> None:
    images = [*checks(20), *checks(30, 2, sharpness=0.05)]
    bad = Check("bad.png", "unreadable", error="it is damaged")
    with ResultLog(tmp_path / "good") as log:
        good = run(DriftMonitor(reference(), RATE, log), log, images)
        now = DriftMonitor(reference(), RATE, log).now()
    with ResultLog(tmp_path / "both") as log:
        monitor = DriftMonitor(reference(), RATE, log)
        both = [run(monitor, log, [bad, check]) for check in images]
    assert good[-1] == now
    assert [said[1]["state"] for said in both] == [said["state"] for said in good]
    assert both[-1][1]["what"][0].split(": ")[1] == good[-1]["what"][0].split(": ")[1]
    assert [a["state"] for a, _ in both[1:]] == [b["state"] for _, b in both[:-1]]


def test_each_reference_is_on_its_own_in_one_log(tmp_path: Path) -> None:
    with ResultLog(tmp_path) as log:
        other = DriftMonitor(reference(digest="b" * 64), RATE, log)
        mine = DriftMonitor(reference(), RATE, log)
        run(other, log, checks(40, 2, brightness=0.1))
        log.add(check_facts(checks(1)[0]), "part42")  # recorded without watching for drift
        assert run(mine, log, checks(40))[-1]["state"] == "steady"
        assert other.now()["state"] == "changed"


def test_many_threads_may_use_one_monitor(tmp_path: Path) -> None:
    with ResultLog(tmp_path) as log, ThreadPoolExecutor(8) as pool:
        monitor = DriftMonitor(reference(), RATE, log)
        list(pool.map(lambda check: run(monitor, log, [check]), checks(80, 2, brightness=0.1)))
        assert monitor.now() == DriftMonitor(reference(), RATE, log).now()
        assert monitor.now()["state"] == "changed"


def test_a_reference_of_few_images_is_not_watched(tmp_path: Path) -> None:
    with ResultLog(tmp_path) as log:
        monitor = DriftMonitor(reference(19), RATE, log)
        assert run(monitor, log, checks(2, brightness=9))[-1]["state"] == "learning"
        assert len(monitor.notes) == 4
        assert "raw_score is not watched for drift: the reference has 19 images" in monitor.notes[0]
        assert DriftMonitor(reference(20), RATE, log).notes == ()


def test_a_station_tells_of_darker_pictures(tmp_path: Path) -> None:
    write_lot(tmp_path / "lot", 60)
    made = make_lot_reference(tmp_path / "lot", tmp_path / "ref", hold_out=0.4, images=6)
    with Checker(made, BUNDLE) as checker, ResultLog(tmp_path / "out") as log:
        monitor = DriftMonitor(made, RATE, log)
        assert monitor.notes == ()
        station = Station("part42", checker, log, (monitor,))
        for seed in range(100, 115):
            _, entry = station.check(part(seed))
        assert entry.facts["drift"]["state"] == "steady"
        for seed in range(115, 145):
            station.check(part(seed).point(lambda value: value * 0.9))
        said = log.last(1)[0].facts["drift"]
    assert said["state"] == "changed"
    assert abs(said["since"] - 16) <= 3
    assert any(text.startswith("images became darker since image ") for text in said["what"])


def test_the_limits_of_a_page_hold_nine_in_ten_of_the_reference() -> None:
    limits = control_limits(reference())["brightness"]
    values = reference().looks[:, 0]
    assert ((values < limits.low).sum(), (values > limits.high).sum()) == (3, 3)
    assert limits.centre == pytest.approx(np.median(values))


def test_the_option_turns_it_off(tmp_path: Path) -> None:
    parser = ArgumentParser()
    add_drift(parser)
    with ResultLog(tmp_path) as log:
        assert drift_witness(parser.parse_args(["--drift-rate", "0"]), reference(), log) == ()
        [usual] = drift_witness(parser.parse_args([]), reference(), log)
        [same] = drift_witness(Namespace(drift_rate=1e-4), reference(), log)
    assert usual.charts._limit == same.charts._limit == pytest.approx(80_000)
    for text in ("1", "-0.1", "nan", "often"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--drift-rate", text])
