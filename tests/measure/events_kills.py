"""Kill a program that tells of results, and the broker that it tells, and count what arrives.

    python tests/measure/events_kills.py --work DIR [--kills 30] [--waiting 3000]

In each round the program (by SIGKILL), the broker (by SIGKILL) or both end while results are being recorded
and delivered, by MQTT and to a webhook whose server now and then resets the connection after it took a
result; then both start again.  The table says how many of the results in the log were never heard, and how
many more than once.  At last so many results wait for the broker while it is away.

What a broker acknowledged and then lost is the broker's; for mosquitto to keep the subscription over a kill,
and to pass on each message before it acknowledges, the settings below are needed.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from musc_edge.runtime.line.result_log import ResultLog
from support.brokers import Broker, Subscriber
from support.http_receiver import HttpReceiver
from support.told import until

SETTINGS = ("allow_anonymous true", "persistence true", "autosave_interval 0", "max_inflight_messages 0")
PROGRAM = """
import random, sys, time
from pathlib import Path
from musc_edge.runtime.line.delivery import Delivery
from musc_edge.runtime.line.mqtt import MqttReceiver
from musc_edge.runtime.line.patience import Patience
from musc_edge.runtime.line.result_log import ResultLog
from musc_edge.runtime.line.webhook import WebhookReceiver

def record(pause):
    verdict = random.choice(("reject", "not flagged"))
    log.add({"image": "part.png", "status": "ok", "verdict": verdict, "text": "x" * 500})
    time.sleep(pause)

def memory():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line]
    return int(line.split()[1]) / 1000

folder, broker, server, waiting = sys.argv[1:]
soon = Patience(first=0.05, most=0.5, poll=0.02)
with (
    ResultLog(folder) as log,
    Delivery(log, MqttReceiver(broker), "all", 1, soon, lambda line: None) as mqtt,
    Delivery(log, WebhookReceiver(server), "all", 0, soon, lambda line: None) as webhook,
):
    print("open", flush=True)
    while waiting == "for the kill":
        record(random.expovariate(50))
    before = memory()
    for _ in range(int(waiting)):
        record(0)
    print("recorded", flush=True)
    between = memory()
    sys.stdin.readline()
    begun = time.monotonic()
    while mqtt.status().behind or webhook.status().behind:
        time.sleep(0.05)
    print(f"{waiting} results waited and came in {time.monotonic() - begun:.1f} s; the program had "
        f"{before:.1f}, {between:.1f}, {memory():.1f} MB before, with all waiting, and after", flush=True)
"""


def main() -> None:
    """Parse the options, kill and count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--work", type=Path, required=True, help="empty folder for the log and the broker's files"
    )
    parser.add_argument("--kills", type=int, default=30, help="of the program, and as many of the broker")
    parser.add_argument(
        "--waiting", type=int, default=3000, help="results that wait for the broker at the end"
    )
    args = parser.parse_args()
    database = args.work / "broker" / "mosquitto.db"
    resets = [HttpReceiver.RESET if random.random() < 0.02 else 204 for _ in range(10**6)]
    begun = time.monotonic()
    with (
        Broker(args.work / "broker", *SETTINGS, f"persistence_location {database.parent}/") as broker,
        Subscriber(broker.port) as heard,
        HttpReceiver(*resets) as server,
    ):
        broker.send_signal(signal.SIGUSR1)  # write the subscription down
        until(database.is_file, "the broker has written it down")
        command = [sys.executable, "-c", PROGRAM, str(args.work / "out")]
        command += [f"mqtt://127.0.0.1:{broker.port}/line", server.url]
        kill(args.kills, [*command, "for the kill"], broker, heard)
        wait([*command, str(args.waiting)], broker)
        with ResultLog(args.work / "out") as log:
            events = [entry.event for entry in log.after(0, 10**9)]
        until(lambda: heard.states()[-1] == "offline", "the last is heard")
        by_mqtt = [content["event"] for name, content in heard.heard if "/result/" in name]
        by_webhook = server.events()
    seconds = time.monotonic() - begun
    kills = f"{args.kills} kills of the program, {args.kills} of the broker"
    print(f"{kills}, {len(events)} results, {seconds:.0f} s\n")
    print("| | never heard | more than once | most often | in order |\n|---|---|---|---|---|")
    print(row("MQTT", events, by_mqtt), row("webhook", events, by_webhook), sep="\n")


def kill(kills: int, command: Sequence[str], broker: Broker, heard: Subscriber) -> None:
    """Kill the program and the broker so often, in turn and together, at random moments."""
    for number in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout
            assert program.stdout.readline() == "open\n"
            wait_for(heard, random.randrange(1, 40))
            if number % 3 == 0:
                program.kill()
            subscribed = heard.subscribed
            broker.kill()
            if number % 3 == 1:
                time.sleep(random.random())
                program.kill()
            broker.start()
            heard.until(lambda before=subscribed: heard.subscribed > before)  # type: ignore[misc]
            if number % 3 == 2:
                wait_for(heard, random.randrange(1, 40))
                program.kill()


def wait(command: Sequence[str], broker: Broker) -> None:
    """Let results wait for the broker, which is away, and print how they come."""
    broker.kill()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin
        assert program.stdout
        while program.stdout.readline() != "recorded\n":
            pass
        broker.start()
        program.stdin.write("\n")
        program.stdin.close()
        print(program.stdout.read())


def wait_for(heard: Subscriber, more: int) -> None:
    """Wait until so many more results are heard."""
    before = len(heard.results())
    heard.until(lambda: len(heard.results()) >= before + more)


def row(name: str, events: list[str], arrived: list[str]) -> str:
    """A line of the table."""
    counts = Counter(arrived)
    assert set(counts) <= set(events)
    first = list(dict.fromkeys(arrived))
    in_order = first == [event for event in events if event in counts]
    never = sum(event not in counts for event in events)
    twice = sum(count > 1 for count in counts.values())
    return f"| {name} | {never} | {twice} | {max(counts.values())} times | {'yes' if in_order else 'no'} |"


if __name__ == "__main__":
    main()
