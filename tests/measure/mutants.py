"""Change the scoring code in one place at a time, and count how many of the changes its tests catch.

    python tests/measure/mutants.py [--count 200] [--seed 0] [--only MODULE] [--number N]

Needs cosmic-ray (``pip install cosmic-ray``), whose operators make the mutants: another operator, comparison
or number, a condition turned, a loop not entered, a decorator gone.  Of all of them ``--count`` are drawn by
``--seed``.  A mutant that differs in annotations alone, which nothing evaluates, or that says what an earlier
one said, is passed over and counted.  Each runs the tests of its module, until one fails, in a process of
its own; no file is changed (mutant_trials.py).  What takes too long, takes too much memory or kills its
process is caught too.  Each test that caught one has to pass without.  ``--number`` shows and runs one
mutant again.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import unified_diff
from functools import partial
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

import musc_edge
from measure.mutant_trials import PATIENCE, limit, run_trials, skeleton
from support.forks import run_forked
from support.mutants import plant_source
from support.places import ROOT

SCORING = Path(musc_edge.__file__).parent / "runtime" / "scoring"
TESTS = {
    "aggregate": ("../test_golden", "test_mutual", "test_nearest"),
    "anomaly_map": ("test_stitch", "test_raw_scores", "test_pixels", "../test_golden"),
    "gram_numpy": ("test_gram", "../test_golden", "test_nearest"),
    "image_pairs": ("../test_golden", "test_mutual", "test_gram", "test_nearest"),
    "interval": ("test_presets", "../test_golden", "test_mutual", "test_burn_out", "test_against_oracle"),
    "judges": ("test_judges", "../test_golden", "test_apart", "test_plan"),
    "layer_scores": (
        *("../test_golden", "test_mutual", "test_apart", "test_plan"),
        *("test_against_oracle", "../store/test_checkpoint"),
    ),
    "mutual": (
        *("test_seconds", "../test_golden", "test_mutual", "test_apart", "test_plan"),
        "../store/test_checkpoint",
    ),
    "rescore": ("test_rescore", "test_pixels", "../test_golden"),
}
"""Files of tests/runtime/scoring by the module that they are about, the fastest first."""

FAST = [
    "-m",
    "not slow and not long",
    "-k",
    "not gpu and not another_core and not as_planned and (not numba or auto or said)",
]
RUN = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
Numbered = dict[int, "Place"]


@dataclass(frozen=True)
class Place:
    """The ``occurrence`` of an operator of cosmic-ray in a module."""

    module: str
    operator: str
    occurrence: int

    @property
    def file(self) -> Path:
        return SCORING / f"{self.module}.py"

    def mutant(self) -> str:
        """The module's source with the change."""
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        operator = get_operator(self.operator)()
        source: str = mutate_code(self.file.read_text(encoding="utf-8"), operator, self.occurrence)
        return source

    def difference(self) -> str:
        """The changed lines, before and after."""
        before, after = (text.splitlines() for text in (self.file.read_text("utf-8"), self.mutant()))
        changes = list(unified_diff(before, after, lineterm="", n=0))[2:]
        return "\n".join(f"  {line}" for line in changes)


def places(modules: Sequence[str]) -> Iterator[Place]:
    """Every change that cosmic-ray's operators can make in ``modules``."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    operators = {name: get_operator(name) for name in sorted(operator_names())}
    for module in modules:
        nodes = list(ast_nodes(get_ast((SCORING / f"{module}.py").read_text(encoding="utf-8"))))
        for name, operator in operators.items():
            if not operator.arguments():  # those with arguments exchange variables that are named to them
                made = operator()
                count = sum(len(list(made.mutation_positions(node))) for node in nodes)
                yield from (Place(module, name, i) for i in range(count))


class _Evaluated(ast.NodeTransformer):
    """Takes away annotations, which no module of the package evaluates."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def meaning(source: str) -> str:
    """What of ``source`` is evaluated; empty if it is no Python."""
    try:
        return ast.dump(_Evaluated().visit(ast.parse(source)))
    except SyntaxError:
        return ""


def draw(found: Sequence[Place], count: int, seed: int) -> tuple[list[Place], int]:
    """Draw ``count`` mutants that differ, and tell how many places were passed over for them."""
    known = {""} | {meaning(file.read_text(encoding="utf-8")) for file in {place.file for place in found}}
    drawn: list[Place] = []
    order = random.Random(seed).sample(found, len(found))
    for number, place in enumerate(order):
        if len(drawn) == count:
            return drawn, number - count
        if (says := meaning(place.mutant())) not in known:
            known.add(says)
            drawn.append(place)
    return drawn, len(order) - len(drawn)


def run_module(module: str, drawn: Numbered, work: Path) -> Iterator[tuple[int, str]]:
    """Run the tests of ``module`` for each of its mutants; yield its number with what caught it, if any."""
    files = [str((ROOT / "tests/runtime/scoring" / f"{name}.py").resolve()) for name in TESTS[module]]
    arguments = [*FAST, f"--basetemp={work / module}", *files]
    file = SCORING / f"{module}.py"
    within = skeleton(file.read_text(encoding="utf-8"))
    sources = {number: place.mutant() for number, place in drawn.items()}
    others = {number: source for number, source in sources.items() if skeleton(source) != within}
    yield from _forked(arguments, file, {n: source for n, source in sources.items() if n not in others})
    for number, source in others.items():  # a constant, a decorator: the module has to be imported anew
        yield number, _imported(arguments, file, source)


def _forked(arguments: list[str], file: Path, sources: dict[int, str]) -> Iterator[tuple[int, str]]:
    context = get_context("fork")
    results, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_trials, args=(arguments, file, sources, sender))
    process.start()
    sender.close()
    with suppress(EOFError):
        while True:
            number, caught = results.recv()
            if number >= 0:
                yield number, caught
            elif caught:
                raise RuntimeError(f"{caught} fails without a mutant of {file.name}, and has caught nothing.")
            else:
                return
    raise RuntimeError(f"the tests of {file.name} have not run to their end (above).")


def _imported(arguments: list[str], file: Path, source: str) -> str:
    command = [sys.executable, "-c", RUN, "-x", "-q", *arguments]
    try:
        run = run_forked(command, cwd=ROOT, prepare=partial(prepare, file, source), timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return "waited for ever"
    if run.returncode <= 0:
        return f"ended by {signal.Signals(-run.returncode).name}" if run.returncode else ""
    if failed := re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", run.stdout, re.MULTILINE):
        return failed[1]
    raise RuntimeError(f"pytest ended with {run.returncode}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")


def prepare(file: Path, source: str) -> None:
    """Make this process one that imports ``source`` in place of ``file``, and stays within the limits."""
    limit()
    plant_source(file, source)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TESTS, action="append")
    parser.add_argument("--number", type=int, help="of the one mutant to run, as an earlier run printed it")
    args = parser.parse_args()
    found = list(places(args.only or list(TESTS)))
    drawn, passed_over = draw(found, args.count, args.seed)
    print(f"{len(found):,} places; {len(drawn)} mutants drawn, {passed_over} passed over", flush=True)
    chosen = {n: place for n, place in enumerate(drawn) if args.number in (None, n)}
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutants_") as work:
        for module in TESTS:
            mine = {number: place for number, place in chosen.items() if place.module == module}
            for number, caught in run_module(module, mine, Path(work)) if mine else ():
                survivors += not caught
                print(f"{number} {module} {mine[number].operator}: {caught or 'SURVIVED'}")
                if not caught or args.number is not None:
                    print(mine[number].difference())
                sys.stdout.flush()
    share = 1 - survivors / len(chosen)
    print(json.dumps({"mutants": len(chosen), "survived": survivors, "caught": round(share, 3)}))
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
