"""``musc-bench compare``: changes are found, and two runs of the same code raise no alarm."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musc_edge.runtime.errors import MuscEdgeError
from musc_edge.tools.bench.compare_reports import (
    MIN_EFFECT,
    Change,
    compare,
    compare_text,
    differences,
)
from musc_edge.tools.bench.report import read_report

STAGES = {"decode": 0.8, "extract": 6.0, "score": 2.5, "maps": 0.3, "write": 0.05}


def report(samples: Mapping[str, Sequence[float]], **other: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "case": "lot",
        "settings": {"images": 60, "threads": 2},
        "samples": {name: list(seconds) for name, seconds in samples.items()},
        "machine": {"processor": "a", "cores": 2, "system": "Linux", "python": "3.11.2", "load_1min": 0.3},
        "versions": {"musc-edge": "0.1", "numpy": "2.1"},
        "partial": False,
        **other,
    }


def run(seed: Sequence[int], rounds: int, factor: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Rounds with 5 % noise, 3 % drift of the whole run and, in one run of two, a burst in one round."""
    rng = np.random.default_rng(seed)
    names = [*STAGES, "yardstick"]
    seconds = np.array([*STAGES.values(), 0.015]) * np.exp(0.05 * rng.standard_normal((rounds, len(names))))
    seconds *= np.exp(0.03 * rng.standard_normal())
    if rng.random() < 0.5:
        seconds[rng.integers(rounds)] *= 1.5
    for name, by in (factor or {}).items():
        seconds[:, names.index(name)] *= by
    *stages, yardstick = seconds.T.tolist()
    return report(dict(zip(STAGES, stages, strict=True)), yardstick=yardstick)


def steady(median: float, rounds: int = 10) -> list[float]:
    """Seconds within 1 % of a median, all different."""
    return [median * (0.99 + 0.02 * k / (rounds - 1)) for k in range(rounds)]


def verdicts(changes: list[Change]) -> dict[str, str]:
    return {c.name: c.verdict for c in changes}


# ---- the statistics --------------------------------------------------------------------------


def test_a_stage_slower_by_a_fifth_is_found_through_noise_drift_and_bursts() -> None:
    found, false = 0, 0
    for k in range(20):
        name, rounds = list(STAGES)[k % 5], 20 + k % 5
        changes = verdicts(compare(run([k, 0], rounds), run([k, 1], rounds, {name: 1.2})))
        found += changes.pop(name) == "slower"
        false += not {"slower", "faster"}.isdisjoint(changes.values())
    assert found >= 18
    assert false <= 1


def test_runs_of_the_same_code_raise_no_alarm() -> None:
    alarms = 0
    for k in range(20):
        changes = verdicts(compare(run([k, 2], 8 + k % 5), run([k, 3], 8 + k % 5)))
        alarms += not {"slower", "faster"}.isdisjoint(changes.values())
    assert alarms <= 1


def test_a_change_is_the_same_from_either_side_and_every_time() -> None:
    a, b = run([1, 0], 20), run([1, 1], 20, {"score": 1.5})
    forth, back = compare(a, b), compare(b, a)
    assert forth == compare(a, b)
    assert verdicts(forth)["score"] == "slower"
    assert verdicts(back)["score"] == "faster"
    for one, other in zip(forth, back, strict=True):
        assert one.ratio == pytest.approx(1 / other.ratio)
        assert one.low == pytest.approx(1 / other.high)


def test_medians_ratio_and_interval() -> None:
    samples = {name: steady(seconds) for name, seconds in STAGES.items()}
    (decode, *_, write) = compare(report(samples), report({**samples, "write": steady(0.1)}))
    assert (write.before, write.after) == pytest.approx((0.05, 0.1))
    assert write.ratio == pytest.approx(2)
    assert 1 + MIN_EFFECT < write.low < 2 < write.high
    assert decode == Change("decode", decode.before, decode.before, 1, decode.low, decode.high, "same")
    assert decode.low < 1 < decode.high


def test_the_interval_holds_for_all_names_together() -> None:
    """With more names each must be surer of itself."""
    few = {name: steady(seconds) for name, seconds in STAGES.items()}
    many = few | {f"stage {k}": steady(1) for k in range(20)}
    (narrow, *_), (wide, *_) = compare(report(few), report(few)), compare(report(many), report(many))
    assert wide.low < narrow.low < 1 < narrow.high < wide.high


def test_a_change_below_the_smallest_effect_is_none_however_certain() -> None:
    a, b = moved(1, 1, rounds=100), moved(1.045, 1, rounds=100)
    assert set(verdicts(compare(a, b)).values()) == {"same"}


def test_a_change_that_may_be_a_small_one_is_unsure() -> None:
    changes = compare(moved(1, 1), moved(1.08, 1))
    assert set(verdicts(changes).values()) == {"unsure"}
    assert changes[0].note == "it changed, but by less than 5 % perhaps"
    assert changes[0].low > 1


def test_one_burst_hides_no_change() -> None:
    samples = {name: steady(seconds, 8) for name, seconds in STAGES.items()}
    before = {name: [1.5 * s[0], *s[1:]] for name, s in samples.items()}
    after = report({**samples, "maps": [1.2 * s for s in samples["maps"]]}, yardstick=steady(0.015, 8))
    changes = compare(report(before, yardstick=steady(0.015, 8)), after)
    assert verdicts(changes) == {**dict.fromkeys(STAGES, "same"), "maps": "slower"}


def test_rounds_that_resemble_those_before_them_count_less() -> None:
    """Slow and fast states of the machine, as long as five rounds, or as often one after the other."""
    slow, fast = steady(1.2), steady(1.0)
    states = [*fast[:5], *slow[:5], *fast[5:], *slow[5:]]
    mixed = [value for pair in zip(fast, slow, strict=True) for value in pair]
    assert sorted(states) == sorted(mixed)
    (lasting,), (changing,) = (compare(report({"x": s}), report({"x": s})) for s in (states, mixed))
    assert lasting.high > changing.high


def moved(by: float, machine: float, rounds: int = 10) -> dict[str, Any]:
    """All stages slower by one factor, the machine by another."""
    samples = {name: steady(by * seconds, rounds) for name, seconds in STAGES.items()}
    return report(samples, yardstick=steady(0.015 * machine, rounds))


def test_what_the_machine_did_is_no_change_and_remarked() -> None:
    a, b = moved(1, 1), moved(1.15, 1.15)
    changes, remarks = compare(a, b), differences(a, b)
    assert set(verdicts(changes).values()) == {"same"}
    assert changes[0].ratio == pytest.approx(1)
    (remark,) = remarks
    assert remark.startswith("the machine itself moved: products that never change took +15 %.")


def test_a_change_that_touches_all_names_is_found() -> None:
    a, b = moved(1, 1), moved(1.2, 1.01)
    assert set(verdicts(compare(a, b)).values()) == {"slower"}
    assert differences(a, b) == []


def test_the_more_the_machine_moved_the_less_sure_is_a_change() -> None:
    changes = [compare(moved(1, 1), moved(1.25 * by, by))[0] for by in (1, 1.1, 1.3, 2)]
    assert [c.ratio for c in changes] == pytest.approx([1.25] * 4)
    assert [c.verdict for c in changes] == ["slower", "slower", "slower", "same"]
    widths = [c.high / c.low for c in changes]
    assert widths == sorted(widths)


def test_a_name_that_stood_still_while_the_machine_moved_has_not_changed() -> None:
    b = moved(1.15, 1.15)
    b["samples"]["maps"] = steady(STAGES["maps"])
    changes = compare(moved(1, 1), b)
    assert verdicts(changes) == {**dict.fromkeys(STAGES, "same"), "maps": "unsure"}
    assert changes[3].note == "as measured it moved by +0 %"


def test_a_round_that_was_cut_off_has_no_yardstick_and_does_not_count() -> None:
    a, b = moved(1, 1), moved(1.2, 1)
    whole = compare(a, b)
    b["samples"] = {name: [*seconds, 100.0] for name, seconds in b["samples"].items()}
    for cut, change in zip(compare(a, b), whole, strict=True):
        assert (cut.ratio, cut.low, cut.verdict) == (change.ratio, change.low, "slower")


@pytest.mark.parametrize(
    ("by", "verdict"), [(1.0, "same"), (1.1, "unsure"), (1.3, "slower"), (0.7, "faster")]
)
def test_without_a_yardstick_a_name_must_change_by_more_than_runs_drift(by: float, verdict: str) -> None:
    a, b = report({"whole": steady(5)}), report({"whole": steady(5 * by)})
    (change,) = compare(a, b)
    assert change.verdict == verdict
    assert differences(a, b) == []
    b["yardstick"] = [0.015] * 10
    assert compare(a, b) == [change]
    assert differences(a, b) == ["only one of the reports has a yardstick: times are compared as they are"]


@pytest.mark.parametrize(("rounds", "say"), [(1, "1 round is"), (4, "4 rounds are")])
def test_too_few_rounds_are_unsure_and_say_how_many_are_needed(rounds: int, say: str) -> None:
    samples = {f"stage {k}": steady(1)[:rounds] for k in range(3)}
    changes = compare(report(samples), report({**samples, "stage 0": [2 * s for s in samples["stage 0"]]}))
    assert {c.verdict for c in changes} == {"unsure"}
    assert changes[0].note == f"{say} too few: 5 in each report are needed"


def test_stages_of_no_length_are_the_same_and_do_not_count() -> None:
    a = report({"extract": steady(2), "open": steady(5e-3), "close": [0.0] * 10}, yardstick=[0.015] * 10)
    b = report({"extract": steady(3), "open": steady(9e-3), "close": [0.0] * 10}, yardstick=[0.015] * 10)
    changes = compare(a, b)
    assert verdicts(changes) == {"extract": "slower", "open": "same", "close": "same"}
    assert changes[1].note == "below 10 ms"
    assert changes[2].ratio == 1
    for one in (a, b):
        one["samples"] = {"extract": one["samples"]["extract"]}
    assert compare(a, b) == [changes[0]]


def test_short_times_count_where_they_are_no_stages() -> None:
    a, b = (report({"product": steady(by * 2e-3)}, case="peak") for by in (1, 1.5))
    assert verdicts(compare(a, b)) == {"product": "slower"}


def test_rounds_that_are_all_alike_are_compared_too() -> None:
    a = report({name: [seconds] * 10 for name, seconds in STAGES.items()})
    assert {c.verdict for c in compare(a, a)} == {"same"}
    b = report({**a["samples"], "maps": [0.6] * 10})
    assert verdicts(compare(a, b))["maps"] == "slower"


def test_reports_may_have_different_rounds_and_names() -> None:
    a, b = run([5, 0], 8), run([5, 1], 12, {"decode": 1.8})
    a["samples"]["old"] = b["samples"]["new"] = [1.0]
    a["samples"]["cut short"], b["samples"]["cut short"] = [], [1.0]
    changes = compare(a, b)
    assert [c.name for c in changes] == list(STAGES)
    assert changes[0].verdict == "slower"
    remarks = differences(a, b)
    assert "only in the first report: old" in remarks
    assert "only in the second report: new, cut short" in remarks
    assert compare(report({"x": [1.0]}), report({"y": [1.0]})) == []


# ---- remarks and text ------------------------------------------------------------------------


def test_differences_name_what_else_changed() -> None:
    a = run([6, 0], 8)
    assert differences(a, a) == []
    b = {
        **a,
        "settings": {"images": 90, "threads": 2},
        "machine": {**a["machine"], "processor": "b", "cores": 4, "load_1min": 2.0},
        "versions": {"musc-edge": "0.1", "numpy": "2.2", "numba": "0.61"},
        "partial": True,
    }
    assert differences(a, b) == [
        "settings: images was 60, is 90",
        "machine: processor was 'a', is 'b'",
        "machine: cores was 2, is 4",
        "versions: numpy was '2.1', is '2.2'",
        "versions: numba was None, is '0.61'",
        "the second report is partial: its run was cut short",
    ]


@pytest.mark.parametrize("function", [compare, differences])
def test_different_cases_are_refused(function: Any) -> None:
    a = run([7, 0], 8)
    with pytest.raises(MuscEdgeError, match=r"different cases, 'lot' and 'scorer'; expected one case"):
        function(a, {**a, "case": "scorer"})


def test_text_lists_changes_first_and_concludes() -> None:
    changes = [
        Change("decode", 0.8, 0.9, 1.125, 0.99, 1.2, "same"),
        Change("write", 0.05, 0.04, 0.8, 0.75, 0.85, "faster"),
        Change("maps", 0.3, 0.6, 2.0, 0.9, 3.0, "unsure", "too few"),
        Change("extract", 6.0, 9.0, 1.5, 1.4, 1.6, "slower"),
    ]
    lines = compare_text(changes, ["settings: images was 60, is 90"]).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["extract", "write", "maps", "decode"]
    assert lines[1] == "extract     6.000 s     9.000 s     +50 %        +40 % to +60 %  slower"
    assert lines[3].endswith("unsure (too few)")
    assert len({line.index(c) for line, c in zip(lines[1:3], ("slower", "faster"), strict=True)}) == 1
    assert lines[5:] == [
        "note: settings: images was 60, is 90",
        "slower beyond the noise: extract (+50 %); faster beyond the noise: write (-20 %); unsure: maps",
    ]


def test_text_when_there_is_nothing_to_say() -> None:
    same, unsure = (Change("x", 1, 1, 1, 0.9, 1.1, verdict) for verdict in ("same", "unsure"))
    assert compare_text([same], []).splitlines()[-1] == "nothing changed beyond the noise"
    assert compare_text([same, unsure], []).endswith("nothing changed beyond the noise; unsure: x")
    assert compare_text([unsure], []).splitlines()[-1] == "unsure: x"
    assert compare_text([], ["why"]) == "note: why\nnothing to compare: the reports share no name"


# ---- files -----------------------------------------------------------------------------------


def test_a_report_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(run([8, 0], 8)), encoding="utf-8")
    assert read_report(path) == run([8, 0], 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("\xff", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "it names no schema"),
        ('{"case": "lot"}', "it names no schema"),
        ('{"schema": 2}', "has schema 2; this musc-bench reads 1"),
        ('{"schema": 1, "case": 3}', "case is 3, expected a text"),
        (
            '{"schema": 1, "case": "lot", "settings": {}, "samples": []}',
            r"samples is \[\], expected an object",
        ),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(MuscEdgeError, match=message) as caught:
        read_report(path)
    assert str(path) in str(caught.value)
    assert "Make one" in str(caught.value) or "Measure both again" in str(caught.value)


@pytest.mark.parametrize("seconds", ["1.5", "[1, null]", "[-1]", "[NaN]", "[1e999]", "[true]", '["1"]'])
def test_samples_that_are_no_seconds_are_refused(tmp_path: Path, seconds: str) -> None:
    text = json.dumps(report({"extract": []})).replace('"extract": []', f'"extract": {seconds}')
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(MuscEdgeError, match=r"the samples of 'extract' are .* expected a list of seconds"):
        read_report(tmp_path / "a.json")


@pytest.mark.slow
def test_a_report_without_end_is_refused(tmp_path: Path) -> None:
    """Of 100,000 rounds the error of the median would take 1.6 GB."""
    (tmp_path / "a.json").write_text(json.dumps(report({"extract": [1] * 10**5})), encoding="utf-8")
    with pytest.raises(
        MuscEdgeError, match=r"'extract' are .*\.\.\., expected a list of seconds, at most 2000"
    ):
        read_report(tmp_path / "a.json")
    names = {str(k): [1.0] for k in range(3000)}
    (tmp_path / "a.json").write_text(json.dumps(report(names)), encoding="utf-8")
    with pytest.raises(MuscEdgeError, match="samples of 3000 names, expected at most 2000"):
        read_report(tmp_path / "a.json")


@pytest.mark.parametrize("kind", ["pipe", "device", "huge", "nested"])
def test_what_is_no_file_of_a_report_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        path.touch()
        os.truncate(path, 2**40)
    else:
        path.write_text('{"schema": ' + "[" * 500 + "]" * 500 + "}", encoding="ascii")
    with pytest.raises(MuscEdgeError, match=r"a\.json (cannot be read|is not JSON).*Make one"):
        read_report(path)


def test_odd_names_are_shown_on_their_line() -> None:
    odd = {"\ud800 \x1b[2J\n": [1.0] * 8}
    text = compare_text(compare(report(odd), report(odd)), [])
    assert text.encode("utf-8").count(b"\n") == 2
    assert "\x1b" not in text


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MuscEdgeError, match=r"a.json cannot be read: No such file or directory. Make one"):
        read_report(tmp_path / "a.json")
    with pytest.raises(MuscEdgeError, match=r"report.json cannot be read: No such file"):
        read_report(tmp_path)
