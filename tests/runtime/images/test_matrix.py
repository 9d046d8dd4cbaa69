"""The same picture in every container that can be written here: its colours come out, or the reason."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from support.image_matrix import Case, cases, outcome

GROUPS: dict[str, list[Case]] = defaultdict(list)
for each in cases():
    GROUPS[each.group].append(each)


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_every_container_gives_the_picture_or_the_reason(tmp_path: Path, group: str) -> None:
    found = {case.name: outcome(case, tmp_path) for case in GROUPS[group]}
    wrong = [f"{name}: {each.said}" for name, each in found.items() if not each.right]
    assert not wrong, "\n".join(wrong)


def test_the_matrix_is_large_and_its_cases_have_names_of_their_own() -> None:
    names = [(case.group, case.name) for group in GROUPS.values() for case in group]
    assert len(names) == len(set(names)) > 2000
