from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from musc_edge.runtime.errors import OutputError, ReceiverError
from musc_edge.runtime.line.delivery import Delivery, Tell
from musc_edge.runtime.line.patience import Patience
from musc_edge.runtime.line.receiver import LARGEST, RefusedError, UnreachableError, payload
from musc_edge.runtime.line.result_log import Entry, ResultLog
from support.told import SOON, Told, add, until


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ResultLog]:
    with ResultLog(tmp_path / "out") as log:
        yield log


def deliver(log: ResultLog, told: Told, tell: Tell = "all", patience: Patience = SOON) -> list[str]:
    """Deliver what is in the log; returns the lines that it said."""
    said: list[str] = []
    with Delivery(log, told, tell, 0, patience, said.append) as delivery:
        until(lambda: delivery.status().behind == 0, "all are delivered")
    return said


def test_results_are_told_in_order_and_each_once_over_restarts(log: ResultLog) -> None:
    told = Told()
    deliver(log, told)  # from here on
    events = add(log, count=3)
    assert deliver(log, told) == []
    events += add(log, "not flagged")
    deliver(log, told)
    assert told.events == events
    assert log.delivered("told") == 4


def test_what_was_there_before_the_first_delivery_is_not_told(log: ResultLog) -> None:
    add(log, count=2)
    told = Told()
    delivery = Delivery(log, told, "all", 0, SOON)
    events = add(log)
    with delivery:
        until(lambda: told.events, "it is told")
    assert told.events == events


def test_what_the_first_program_never_delivered_is_told_by_the_next(log: ResultLog) -> None:
    Delivery(log, Told())  # killed before it reached anybody
    events, told = add(log), Told()
    deliver(log, told)
    assert told.events == events


def test_rejected_and_bad_images_are_told_by_default(log: ResultLog) -> None:
    told = Told()
    Delivery(log, told)
    good, rejected, bad = (add(log, verdict) for verdict in ("not flagged", "reject", ""))
    add(log, "not flagged")
    deliver(log, told, "reject")
    assert good
    assert told.events == rejected + bad
    assert log.delivered("told") == 4


def test_the_position_moves_after_the_acknowledgement(log: ResultLog) -> None:
    positions = []
    told = Told(lambda entry: positions.append((entry.id, log.delivered("told"))))
    Delivery(log, told)
    add(log, count=3)
    deliver(log, told)
    assert positions == [(1, 0), (2, 1), (3, 2)]


def test_what_was_not_acknowledged_is_told_again(log: ResultLog) -> None:
    tries = []

    def answer(entry: Entry) -> None:
        tries.append(entry.id)
        if entry.id == 2 and tries.count(2) < 6:
            raise UnreachableError("away")

    told = Told(answer)
    Delivery(log, told)
    events = add(log, count=3)
    said = deliver(log, told)
    assert told.events == events
    assert tries == [1, *[2] * 6, 3]
    assert [line.partition(": ")[2] for line in said] == [
        "away; it will be tried again, and nothing is lost",
        "connected again, 2 behind",
    ]
    assert told.opened == 6


def test_the_status_says_what_is_wrong(log: ResultLog) -> None:
    def answer(entry: Entry) -> None:
        raise UnreachableError("the cable is cut")

    told = Told(answer)
    with Delivery(log, told, "all", 0, SOON, lambda line: None) as delivery:
        until(lambda: delivery.status().connected, "it has opened")
        add(log, count=2)
        until(lambda: told.opened > 2, "it tries again")
        assert str(delivery.status()) == "told: not connected (told), 2 behind: the cable is cut"
        told.answer = lambda entry: None
        until(lambda: delivery.status().behind == 0, "all are delivered")
        assert delivery.status().facts() == {
            "destination": "told",
            "address": "told",
            "connected": True,
            "behind": 0,
            "delivered": 2,
            "skipped": 0,
            "error": "",
        }


def test_a_refused_result_does_not_hold_up_the_rest(log: ResultLog) -> None:
    tries = []

    def answer(entry: Entry) -> None:
        tries.append(entry.id)
        if entry.id == 2:
            raise RefusedError("too ugly")

    told = Told(answer)
    Delivery(log, told)
    events = add(log, count=3)
    said = deliver(log, told)
    assert tries == [1, 2, 2, 2, 3]
    assert told.events == [events[0], events[2]]
    assert f"told (told): result 2 ({events[1]}) was refused 3 times and is left out: too ugly" in said


def test_nothing_is_left_out_in_a_hurry(log: ResultLog) -> None:
    """At the end there is no time for all tries."""

    def answer(entry: Entry) -> None:
        delivery._stop.set()
        raise RefusedError("too ugly")

    delivery = Delivery(log, Told(answer), "all", 0, Patience(first=0.0, tries=1), lambda line: None)
    add(log)
    with delivery:
        delivery._thread.join()
    assert log.delivered("told") == 0


def test_a_receiver_that_hangs_does_not_hold_up_the_end(log: ResultLog) -> None:
    def answer(entry: Entry) -> None:
        told.released.wait()

    told, said = Told(answer), list[str]()
    with Delivery(log, told, "all", 0, Patience(drain=0.01), said.append) as delivery:
        add(log, count=2)
    assert said == ["told (told): 2 results behind; the next start on this log goes on from there"]
    log.close()
    told.released.set()  # now it acknowledges, and nobody is there to note it
    delivery._thread.join()
    assert len(said) == 1
    assert len(told.events) == 1
    with ResultLog(log.folder) as again:
        assert again.delivered("told") == 0


def test_what_is_left_at_the_end_is_delivered(log: ResultLog) -> None:
    told = Told()
    with Delivery(log, told, "all", 0, Patience(poll=60, drain=60)):
        until(lambda: told.opened, "it waits")
        events = add(log, count=3)
    assert told.events == events
    assert [(state["state"], state["behind"]) for state in told.states] == [("offline", 0)]


def test_heartbeats_come_while_there_is_nothing_to_tell(log: ResultLog) -> None:
    told = Told()
    with Delivery(log, told, "reject", 0.001, SOON):
        until(lambda: len(told.states) > 3, "it lives")
    assert {**told.states[1], "time": ""} == {
        "state": "online",
        "time": "",
        "results": 0,
        "behind": 0,
        "skipped": 0,
        "changed": [],
    }


def test_that_a_line_has_changed_is_told_once(log: ResultLog) -> None:
    states = ["learning", "steady", "changed", "changed", "steady", "steady"]
    fails = [UnreachableError("away")]

    def answer(entry: Entry) -> None:
        if fails:
            raise fails.pop()

    told = Told(answer)
    Delivery(log, told)
    events = [add(log, "not flagged", drift={"state": state})[0] for state in states[:4]]
    events += add(log, "not flagged", reference="part43")
    with Delivery(log, told, "reject", 0.001, SOON, lambda line: None) as delivery:
        until(lambda: delivery.status().behind == 0 and told.states, "all are delivered")
        until(lambda: told.states[-1]["changed"] == ["part42"], "it is in the state")
        assert told.events == events[2:3]
        events += [add(log, "not flagged", drift={"state": state})[0] for state in states[4:]]
        until(lambda: delivery.status().behind == 0, "all are delivered")
    assert told.events == [events[2], events[5]]


def test_a_refused_heartbeat_is_said(log: ResultLog) -> None:
    class Deaf(Told):
        def beat(self, state: object) -> None:
            raise RefusedError("no states here")

    said: list[str] = []
    with Delivery(log, Deaf(), "all", 60, SOON, said.append) as delivery:
        until(lambda: said, "it is said")
        add(log)
        until(lambda: delivery.status().behind == 0, "results are told all the same")
    assert said == ["told (told): the heartbeat was refused: no states here"]


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), OutputError("no disk")])
def test_a_fault_of_ours_is_said_and_tried_again(log: ResultLog, error: Exception) -> None:
    faults = [error]

    def answer(entry: Entry) -> None:
        if faults:
            raise faults.pop()

    told = Told(answer)
    Delivery(log, told)
    events = add(log)
    said = deliver(log, told)
    assert told.events == events
    assert str(error) in "\n".join(said)


def test_the_position_is_kept_when_nothing_is_told(log: ResultLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musc_edge.runtime.line.delivery._SELDOM", 4)
    told = Told()
    with Delivery(log, told, "reject", 0, SOON) as delivery:
        add(log, "not flagged", 5)
        until(lambda: delivery.status().behind == 0, "all are looked at")
        assert log.delivered("told") == 4
    assert log.delivered("told") == 5


def test_waits_grow_up_to_a_limit_and_differ() -> None:
    patience = Patience(first=1, most=60, asked=100)
    for failures, longest in ((1, 1), (2, 2), (5, 16), (7, 60), (1000, 60)):
        waits = {patience.after(failures) for _ in range(50)}
        assert longest / 2 <= min(waits) < max(waits) <= longest
    assert patience.after(1, asked=30) == 30
    assert patience.after(1, asked=1e9) == 100


@pytest.mark.parametrize("options", [{"tell": "good"}, {"heartbeat": -1}, {"heartbeat": float("nan")}])
def test_options_are_checked(log: ResultLog, options: dict[str, object]) -> None:
    with pytest.raises(ReceiverError, match="expected 'reject' or 'all'"):
        Delivery(log, Told(), **options)  # type: ignore[arg-type]


def test_large_results_are_cut_to_size(log: ResultLog) -> None:
    regions = [{"x": k, "y": k} for k in range(4000)]
    add(log, regions=regions, warnings=["w" * 200_000], error="e" * 1000)
    (entry,) = log.after(0, 1)
    content = json.loads(payload(entry))
    assert content.pop("left_out") == ["warnings", "regions"]
    assert content == {
        key: value for key, value in entry.content().items() if key not in ("regions", "warnings")
    }
    assert len(payload(entry)) < LARGEST


def test_odd_names_are_ascii(log: ResultLog) -> None:
    entry = log.add({"image": "b\udcff\u00e4.png"})
    assert b'"b\\udcff\\u00e4.png"' in payload(entry)
    assert json.loads(payload(entry)) == entry.content()
