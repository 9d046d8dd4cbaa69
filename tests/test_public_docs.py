"""Every public name is documented: parameters and fields by name, shapes of arrays, errors, the paper."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest

import musc_edge

PUBLIC = {name: getattr(musc_edge, name) for name in musc_edge.__all__ if name != "__version__"}
FUNCTIONS: dict[str, Any] = {name: each for name, each in PUBLIC.items() if inspect.isfunction(each)}
FUNCTIONS["LotResult.save"] = musc_edge.LotResult.save
FUNCTIONS["LotResult.judge"] = musc_edge.LotResult.judge
DATA = {name: each for name, each in PUBLIC.items() if dataclasses.is_dataclass(each)}


def entries(documented: Any, section: str) -> list[str]:
    """Names that a section of a numpydoc docstring describes, each on a line with its type."""
    text = inspect.getdoc(documented) or ""
    body = re.search(rf"^{section}\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^(\w+)(?: :|$)", body[1] if body else "", re.MULTILINE)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_has_a_docstring_of_its_own(name: str) -> None:
    assert PUBLIC[name].__doc__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_describe_every_parameter_and_error(name: str) -> None:
    function = FUNCTIONS[name]
    assert entries(function, "Parameters") == [
        p for p in inspect.signature(function).parameters if p != "self"
    ]
    errors = entries(function, "Raises")
    assert errors
    assert all(issubclass(PUBLIC[error], musc_edge.MuscEdgeError) for error in errors)


@pytest.mark.parametrize("name", ["mutual_scores", "upsample", "rescore"])
def test_steps_of_the_method_give_shapes_and_the_papers_section(name: str) -> None:
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    assert "paper, section" in text
    assert text.count("of shape (") >= 2


@pytest.mark.parametrize("name", DATA)
def test_data_describe_every_field(name: str) -> None:
    assert sorted(entries(DATA[name], "Attributes")) == sorted(f.name for f in dataclasses.fields(DATA[name]))
