"""The same picture in every container that can be written here: its colours come out, or the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.image_matrix import groups, outcome


@pytest.mark.parametrize("group", sorted(groups()))
@pytest.mark.slow
def test_every_container_gives_the_picture_or_the_reason(tmp_path: Path, group: str) -> None:
    found = {case.name: outcome(case, tmp_path) for case in groups()[group]}
    wrong = [f"{name}: {each.said}" for name, each in found.items() if not each.right]
    assert not wrong, "\n".join(wrong)


def test_the_matrix_is_large_and_its_cases_have_names_of_their_own() -> None:
    names = [(case.group, case.name) for group in groups().values() for case in group]
    assert len(names) == len(set(names)) > 2000
