"""What would happen if ``musc-edge infer`` were called now: bundle, ViT and scorer are opened and left again.

``musc-edge doctor`` runs it in a process of its own, since a library may crash.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ..runtime.errors import MuscEdgeError


def rehearse() -> dict[str, Any]:
    """Open what ``infer`` opens without options; the facts as far as it came.

    ``bundle`` is its folder, ``from`` what named it, ``backbone`` its model, ``vit`` and ``scorer`` what
    runs, ``notes`` what was passed over; ``error`` and ``exit_code`` what ``infer`` would end with.
    """
    facts: dict[str, Any] = {}
    try:
        _open_all(facts)
    except MuscEdgeError as error:
        facts |= {"error": str(error), "exit_code": error.exit_code}
    return facts


def _open_all(facts: dict[str, Any]) -> None:
    from ..runtime.run import Run
    from ..runtime.scoring.cautions import bundle_cautions
    from ..runtime.vit.bundle import find_bundle, open_bundle

    root = find_bundle(None)
    source = "$MUSC_EDGE_BUNDLE" if os.environ.get("MUSC_EDGE_BUNDLE") else "your default"
    facts |= {"bundle": str(root), "from": source}
    bundle = open_bundle(root)
    facts |= {"backbone": bundle.manifest.backbone, "warnings": list(bundle_cautions(bundle.manifest))}
    with Run(bundle) as run:
        facts["scorer"] = run.scorer.version
        with run.vit() as vit:
            facts |= {"vit": f"{vit.name} ({vit.version})", "notes": list(run.notes)}


def rehearsal_text(facts: dict[str, Any]) -> list[str]:
    """Format the facts as lines."""
    lines = ["'musc-edge infer LOT_DIR' would now"]
    if "bundle" in facts:
        backbone = f": {facts['backbone']}" if "backbone" in facts else ""
        lines.append(f"  take the bundle {facts['bundle']} ({facts['from']}){backbone}")
    if "scorer" in facts:
        lines.append(f"  compare the images by {facts['scorer']}")
    if "vit" in facts:
        lines.append(f"  run the ViT by {facts['vit']}")
    lines += [f"  note: {text}" for text in facts.get("notes", ())]
    lines += [f"  warning: {text}" for text in facts.get("warnings", ())]
    if "error" in facts:
        lines.append(f"  end with exit code {facts['exit_code']}: {facts['error']}")
    return lines


def main() -> None:
    """Print the facts as JSON."""
    print(json.dumps(rehearse()))
