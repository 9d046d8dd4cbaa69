"""``musc-edge selftest``: run all steps, print a line for each, and write one file to send."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..._version import __version__
from .. import arguments, cli

MINUTES = 5.0
_AFTER = "PASSED", "FAILED"


def add_parser(commands: Any) -> None:
    """Add the command to a parser's ``commands``."""
    parser = commands.add_parser(
        "selftest", help="check that this machine computes right, and how fast, in one file to send"
    )
    add = parser.add_argument
    cli.add_bundle(parser, "bundle whose ViT is checked (default: as for infer, if there is one)")
    add("-o", "--out", default="selftest.json", metavar="FILE", help="report (default: selftest.json)")
    add("--minutes", type=arguments.positive, default=MINUTES, help="end after so long (default: 5)")
    add("--small", action="store_true", help="small sizes, whose times mean nothing")
    cli.add_common(parser, 4, 7, 8)
    parser.set_defaults(run=_selftest)


def _selftest(args: argparse.Namespace) -> int:
    from ...runtime.errors import OutputError, ParityError
    from .. import doctor

    out = Path(args.out)
    if out.exists() or out.is_symlink():
        raise OutputError(f"{out} exists: give another name with -o, or remove it.")
    end = time.monotonic() + 60 * args.minutes
    bundle = _bundle(args.bundle)
    findings = doctor.examine()
    machine = json.loads(doctor.report_json(findings, doctor.rehearsed()))
    options = {"bundle": bundle, "backends": doctor.backends(findings), "small": args.small}
    report: dict[str, Any] = {
        "musc-edge": __version__,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "small": args.small,
        "machine": machine,
        "steps": {},
    }
    say = cli.say(args)
    for name, result in _results(options, end):
        report["steps"][name] = result
        say(step_text(name, result))
    try:
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}.") from error
    failed = [name for name, result in report["steps"].items() if result["status"] == "failed"]
    cli.show(json.dumps(report, indent=1) if args.json else _verdict(report["steps"], failed, out))
    return ParityError.exit_code if failed else 0


def _bundle(given: str | None) -> str:
    """The bundle's folder; "" if none was given and there is no default."""
    from ...runtime.errors import BundleError
    from ...runtime.vit.bundle import find_bundle, open_bundle

    try:
        root = Path(find_bundle(given)).resolve()
    except BundleError:
        return ""
    return str(open_bundle(root).root)


def _results(options: dict[str, Any], end: float) -> Any:
    """Yield each step's name and result, one after the other."""
    from .steps import STEPS

    with tempfile.TemporaryDirectory(prefix="musc-edge-selftest-") as folder:
        for number, name in enumerate(STEPS):
            start = time.monotonic()
            result = _run(name, options, Path(folder) / f"{number}.json", end - start)
            yield name, result | {"seconds": round(time.monotonic() - start, 2)}


def _run(name: str, options: dict[str, Any], out: Path, seconds: float) -> dict[str, Any]:
    """Run a step in a process of its own, since a library may crash or hang."""
    if seconds <= 0:
        return {"status": "no time", "why": "the time was up (--minutes)"}
    command = [sys.executable, "-m", f"{__package__}.steps", name, json.dumps(options), str(out)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"status": "failed", "why": f"did not end within {seconds:.0f} s"}
    if done.returncode == 0:
        result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return result
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    why = f"killed by signal {-done.returncode}" if done.returncode < 0 else lines[-1]
    return {"status": "failed", "why": why, "output": done.stderr[-4000:]}


def step_text(name: str, result: dict[str, Any]) -> str:
    """Format a step's result as a line."""
    if result["status"] != "ok":
        return f"{result['status']:<9} {name:<22} {result['why']}"
    facts = {key: value for key, value in result["found"].items() if not isinstance(value, dict)}
    texts = [
        f"{key.replace('_', ' ')} {value:.3g}"
        if isinstance(value, float)
        else f"{key.replace('_', ' ')} {value}"
        for key, value in facts.items()
        if value not in ([], "")
    ]
    return f"{'ok':<9} {name:<22} {', '.join(texts)}"


def _verdict(steps: dict[str, Any], failed: Sequence[str], out: Path) -> str:
    passed, absent = (
        sum(result["status"] == status for result in steps.values()) for status in ("ok", "not here")
    )
    said = f"{passed} of {len(steps)} steps passed"
    if absent:
        said += f", {absent} are not for this machine"
    if failed:
        said += f"; failed: {', '.join(failed)}"
    return (
        f"{_AFTER[bool(failed)]}: {said}. What was found is in {out}: it names this machine's hardware and "
        "software, no file of yours but the bundle's folder. Send it to the project to show what works, or "
        "what does not."
    )
