"""The authors' own modules, from a checkout of their code, on the features that a bundle gives."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from musc_edge.runtime.settings import PAPER
from musc_edge.runtime.store.features import HostStore
from musc_edge.runtime.types import Array


@dataclass(frozen=True)
class AuthorsScores:
    """What their code gives for a lot: patch scores (N,P), raw scores (N,) and rescored ones (N,), 0 to 1."""

    patches: Array
    raw: Array
    lot_scores: Array


def authors_scores(checkout: Path, store: HostStore, size: tuple[int, int]) -> AuthorsScores:
    """Score a lot by LNAMD, MSM and RsCIN of the checkout, in float32, as their musc.py calls them."""
    import torch

    modules = {name: _module(checkout, name) for name in ("LNAMD", "MSM", "RsCIN")}
    layers, images, patches, width = store.shape
    # Their LNAMD takes the class token off, so that one is put before the patches.
    tokens = [torch.from_numpy(np.pad(layer, ((0, 0), (1, 0), (0, 0)))) for layer in store.tokens]
    of_degree = []
    with torch.no_grad():
        for degree in PAPER.degrees:
            lnamd = modules["LNAMD"].LNAMD("cpu", width, list(range(layers)), degree)
            features = torch.cat([lnamd._embed([t[i : i + 1] for t in tokens]) for i in range(images)])
            features = features / features.norm(dim=-1, keepdim=True)
            scores = [modules["MSM"].MSM(features[:, :, layer], "cpu") for layer in range(layers)]
            of_degree.append(torch.stack(scores).mean(0))
        maps = torch.stack(of_degree).mean(0)
        side = int(np.sqrt(patches))
        pixels = torch.nn.functional.interpolate(
            maps.view(images, 1, side, side), size=size, mode="bilinear", align_corners=True
        )
    raw = pixels.numpy().reshape(images, -1).max(-1)
    return AuthorsScores(maps.numpy(), raw, modules["RsCIN"].RsCIN(raw, store.cls, list(PAPER.neighbors)))


def _module(checkout: Path, name: str) -> ModuleType:
    path = checkout / "models/modules" / f"_{name}.py"
    spec = importlib.util.spec_from_file_location(f"authors_{name}", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python module: give a checkout of the authors' code.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
