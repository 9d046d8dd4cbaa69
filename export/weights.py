"""Load weights of a torch model, from a file that cannot run code or from the Hugging Face hub."""

from __future__ import annotations

import difflib
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..runtime.errors import BundleError

State = dict[str, torch.Tensor]

_CONNECT_SECONDS = 5.0
_WRAPPERS = ("state_dict", "model", "teacher")


def load_weights(path: Path) -> State:
    """Load the tensors of a safetensors file, or of a torch file that holds nothing but tensors.

    Raises
    ------
    BundleError
        If the file cannot be read that way.
    """
    if not path.is_file():
        raise BundleError(f"there is no checkpoint {path}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # either reader raises anything at all on a damaged file
        raise BundleError(
            f"{path} is not a checkpoint that can be read safely ({_brief(error)}). Expected safetensors, or "
            "a torch file of tensors alone. OpenAI's own .pt files are programs (TorchScript): take the same "
            "weights as open_clip_model.safetensors from the hub."
        ) from error
    return _tensors(content, path)


def _tensors(content: Any, path: Path) -> State:
    """Return the tensors by name, without the wrappers of training scripts."""
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    found = content.items() if isinstance(content, dict) else ()
    state = {str(name).removeprefix("module."): value for name, value in found if torch.is_tensor(value)}
    if not state:
        raise BundleError(f"{path} holds no tensors by name: {type(content).__name__}.")
    return state


def assign(module: torch.nn.Module, state: State, what: str) -> None:
    """Load ``state`` into ``module``; BundleError with the first differences if it is of another model."""
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    problems = [f"{name} is missing" for name in expected.keys() - state.keys()]
    problems += [
        f"{name} is {tuple(state[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    problems += [f"{name} is unknown" for name in state.keys() - expected.keys()]
    if problems:
        shapes_first = sorted(problems, key=lambda text: ("expected" not in text, text))
        raise BundleError(
            f"{what} is of another architecture: {len(problems)} of {len(expected)} weights do not fit: "
            f"{'; '.join(shapes_first[:3])}."
        )
    module.load_state_dict(state)


def _brief(error: Exception) -> str:
    """Return the first line of a library's error."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def near(name: str, known: Iterable[str]) -> str:
    """List known names that resemble an unknown one, for a message."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or names[:10]
    return ", ".join(close) if close else "none"


def download(repository: str, names: tuple[str, ...], by_file: str) -> Path:
    """Get one of the files ``names`` of a hub repository, from the user's cache or the network.

    ``by_file`` tells the user how to give the file instead.

    Raises
    ------
    BundleError
        If there is no such file, or, within seconds, if the hub cannot be reached.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(repository, name, local_files_only=True))
        except (OSError, EntryNotFoundError):  # not in the cache
            continue
    url = f"{constants.ENDPOINT}/{repository}/resolve/main/{names[0]}"
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _unreachable(constants.ENDPOINT)
    if reason is None:
        for name in names:
            try:
                return Path(hf_hub_download(repository, name))
            except EntryNotFoundError:
                continue
            except Exception as error:  # the hub's errors, and those of the three libraries below it
                reason = _brief(error)
                break
    raise BundleError(
        f"the weights cannot be downloaded ({reason or 'no such file in ' + repository}). Where there is a "
        f"network, fetch {url} and give it {by_file}."
    )


def _unreachable(endpoint: str) -> str | None:
    """Return the reason why a host does not answer, or None if it does."""
    # Asked before the hub's own client, which would retry for a minute.
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS):
            return None
    except urllib.error.HTTPError:
        return None  # an answer
    except (OSError, ValueError) as error:
        return f"{endpoint} cannot be reached: {getattr(error, 'reason', error)}"
