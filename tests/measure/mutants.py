"""Change the scoring code in one place at a time, and count how many of the changes its tests catch.

    python tests/measure/mutants.py [--count 200] [--seed 0] [--only MODULE] [--number N]

Needs cosmic-ray (``pip install cosmic-ray``), whose operators make the mutants: another operator, comparison
or number, a condition turned, a loop not entered, a decorator gone.  Of all of them ``--count`` are drawn by
``--seed``.  A mutant that differs in annotations alone, which nothing evaluates, or that says what an earlier
one said, is passed over and counted.  Each runs the tests of its module, until one fails, in a process that
imports the mutant in place of the file: no file is changed.  What takes too long, takes too much memory or
kills its process is caught too.  At the end each test that caught one has to pass without.  ``--number``
shows and runs one mutant again.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, for support

import musc_edge
from support.forks import run_forked
from support.mutants import plant_source
from support.places import ROOT

SCORING = Path(musc_edge.__file__).parent / "runtime" / "scoring"
TESTS = {
    "aggregate": ("../test_golden", "test_mutual", "test_nearest"),
    "anomaly_map": ("test_stitch", "../test_golden", "test_raw_scores", "test_against_oracle"),
    "gram_numpy": ("test_gram", "../test_golden", "test_nearest"),
    "image_pairs": ("../test_golden", "test_mutual", "test_gram", "test_nearest"),
    "interval": ("test_presets", "../test_golden", "test_mutual", "test_burn_out", "test_against_oracle"),
    "judges": ("test_judges", "../test_golden", "test_apart", "test_plan"),
    "layer_scores": ("../test_golden", "test_mutual", "test_apart", "test_plan", "../store/test_checkpoint"),
    "mutual": ("test_seconds", "../test_golden", "test_mutual", "test_apart", "test_plan"),
    "rescore": ("test_rescore", "../test_golden", "test_against_oracle"),
}
"""Files of tests/runtime/scoring by the module that they are about, the fastest first."""

FAST = ["-m", "not slow and not long", "-k", "not gpu and not another_core and (not numba or auto or said)"]
RUN = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
SECONDS = 60
"""Limit of a process's work, by the processor's clock, so that a busy machine catches nothing."""
PATIENCE = 1800
"""Seconds after which a process waits for what never comes."""
MEMORY = 16 << 30
"""Bytes of addresses that a process may have."""


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
    known = {""} | {meaning(place.file.read_text(encoding="utf-8")) for place in found}
    drawn: list[Place] = []
    order = random.Random(seed).sample(found, len(found))
    for number, place in enumerate(order):
        if len(drawn) == count:
            return drawn, number - count
        if (says := meaning(place.mutant())) not in known:
            known.add(says)
            drawn.append(place)
    return drawn, len(order) - len(drawn)


def prepare(file: Path, source: str) -> None:
    """Make this process one that imports ``source`` in place of ``file``, and stays within the limits."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    plant_source(file, source)


def pytest_run(*chosen: str, before: Callable[[], None] | None = None) -> tuple[int, str]:
    """Run tests until one fails; return the exit code, and which one it was."""
    command = [sys.executable, "-c", RUN, "-x", "-q", *chosen]
    run = run_forked(command, cwd=ROOT, prepare=before, timeout=PATIENCE)
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", run.stdout, re.MULTILINE)
    if failed is None and run.returncode > 0:
        raise RuntimeError(f"pytest ended with {run.returncode}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return run.returncode, failed[1] if failed else ""


def caught_by(place: Place) -> str:
    """Run the tests of a mutant, and return what caught it; empty if nothing did."""
    files = [str((ROOT / "tests/runtime/scoring" / f"{name}.py").resolve()) for name in TESTS[place.module]]
    try:
        code, failed = pytest_run(*FAST, *files, before=partial(prepare, place.file, place.mutant()))
    except subprocess.TimeoutExpired:
        return "waited for ever"
    return failed or (f"ended by signal {-code}" if code else "")


def require_passing(tests: Iterable[str]) -> None:
    """Raise RuntimeError unless tests, each a file or its ``file::test``, pass where nothing is changed."""
    chosen = sorted(tests)
    code, failed = pytest_run(*chosen) if chosen else (0, "")
    if code:
        raise RuntimeError(f"{failed} fails without a mutant, and has caught nothing.")


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
    chosen = list(enumerate(drawn))[slice(args.number, None if args.number is None else args.number + 1)]
    catchers: set[str] = set()
    survivors = 0
    for number, place in chosen:
        caught = caught_by(place)
        survivors += not caught
        catchers |= {caught} if caught.startswith("tests/") else set()
        print(f"{number} {place.module} {place.operator}: {caught or 'SURVIVED'}")
        if not caught or args.number is not None:
            print(place.difference())
        sys.stdout.flush()
    require_passing(catchers)
    share = 1 - survivors / len(chosen)
    print(json.dumps({"mutants": len(chosen), "survived": survivors, "caught": round(share, 3)}))
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
