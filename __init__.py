"""Find the defects in a lot of unlabeled product images by mutual scoring (MuSc, ICLR 2024).

``score_lot`` scores a folder of images with a bundle, the ViT that ``musc-export`` made ready for the device;
its ``LotResult`` prints the worst images and saves what ``musc-edge infer`` writes.  ``LotResult.judge``
gives verdicts by a rule: ``Threshold``, ``RejectRate``, ``RejectCount``, ``ThresholdFrom``, ``Auto``.
``make_reference`` keeps an accepted lot, and a ``Checker`` checks single images against it.  A ``Station``
records each check in a ``ResultLog``, of which a ``Delivery`` tells others.
``mutual_scores``, ``upsample`` and ``rescore`` are the steps of the method on plain arrays, for tokens of any
ViT.  Every error that is raised on purpose is a ``MuscEdgeError``.

Letters in shapes: N images, S layers, a grid of Gh x Gw patches and P = Gh * Gw, C token width, D CLS width,
H x W pixels.  Sections of the paper are those of arXiv 2401.16753.

A name is imported when it is first used: ``import musc_edge`` by itself loads neither numpy nor a backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Name -> module that defines it.  Nothing here may import at module level: see the end of the docstring.
_PUBLIC = {
    "score_lot": "runtime.pipeline",
    "list_lot": "runtime.images.listing",
    "open_bundle": "runtime.vit.bundle",
    "LotResult": "runtime.results.lot_result",
    "Threshold": "runtime.verdict.rules",
    "RejectRate": "runtime.verdict.rules",
    "RejectCount": "runtime.verdict.rules",
    "ThresholdFrom": "runtime.verdict.judged_lot",
    "Auto": "runtime.verdict.auto",
    "read_judged_lot": "runtime.results.judged_lot",
    "JudgedLot": "runtime.verdict.judged_lot",
    "Judgement": "runtime.verdict.judge",
    "Limits": "runtime.verdict.limits",
    "make_reference": "runtime.reference.make",
    "open_reference": "runtime.reference.files",
    "ReferenceFolder": "runtime.reference.files",
    "ReferenceOptions": "runtime.reference.make",
    "Checker": "runtime.reference.checker",
    "Check": "runtime.reference.checker",
    "FolderWatch": "runtime.line.folder_watch",
    "WatchOptions": "runtime.line.folder_watch",
    "Station": "runtime.line.station",
    "ResultLog": "runtime.line.result_log",
    "Pictures": "runtime.line.pictures",
    "Delivery": "runtime.line.delivery",
    "DeliveryStatus": "runtime.line.patience",
    "Patience": "runtime.line.patience",
    "MqttReceiver": "runtime.line.mqtt",
    "WebhookReceiver": "runtime.line.webhook",
    "Tls": "runtime.line.tls",
    "ScoreSettings": "runtime.settings",
    "settings_for": "runtime.scoring.presets",
    "Tiles": "runtime.tiling",
    "Resources": "runtime.settings",
    "ReadOptions": "runtime.images.survey",
    "OutputOptions": "runtime.results.image_files",
    "Watch": "runtime.beginning",
    "Bundle": "runtime.types",
    "LotImage": "runtime.types",
    "mutual_scores": "runtime.scoring.mutual",
    "upsample": "runtime.scoring.anomaly_map",
    "rescore": "runtime.scoring.rescore",
    "MuscEdgeError": "runtime.errors",
    "LotError": "runtime.errors",
    "BundleError": "runtime.errors",
    "ReferenceFolderError": "runtime.errors",
    "ReceiverError": "runtime.errors",
    "DeviceError": "runtime.errors",
    "OutputError": "runtime.errors",
    "ParityError": "runtime.errors",
    "__version__": "_version",
}

__all__ = [  # noqa: RUF022 - in the order of the API page
    "score_lot",
    "list_lot",
    "open_bundle",
    "LotResult",
    "Threshold",
    "RejectRate",
    "RejectCount",
    "ThresholdFrom",
    "Auto",
    "read_judged_lot",
    "JudgedLot",
    "Judgement",
    "Limits",
    "make_reference",
    "open_reference",
    "ReferenceFolder",
    "ReferenceOptions",
    "Checker",
    "Check",
    "FolderWatch",
    "WatchOptions",
    "Station",
    "ResultLog",
    "Pictures",
    "Delivery",
    "DeliveryStatus",
    "Patience",
    "MqttReceiver",
    "WebhookReceiver",
    "Tls",
    "ScoreSettings",
    "settings_for",
    "Tiles",
    "Resources",
    "ReadOptions",
    "OutputOptions",
    "Watch",
    "Bundle",
    "LotImage",
    "mutual_scores",
    "upsample",
    "rescore",
    "MuscEdgeError",
    "LotError",
    "BundleError",
    "ReferenceFolderError",
    "ReceiverError",
    "DeviceError",
    "OutputError",
    "ParityError",
    "__version__",
]

if TYPE_CHECKING:
    from ._version import __version__
    from .runtime.beginning import Watch
    from .runtime.errors import (
        BundleError,
        DeviceError,
        LotError,
        MuscEdgeError,
        OutputError,
        ParityError,
        ReceiverError,
        ReferenceFolderError,
    )
    from .runtime.images.listing import list_lot
    from .runtime.images.survey import ReadOptions
    from .runtime.line.delivery import Delivery
    from .runtime.line.folder_watch import FolderWatch, WatchOptions
    from .runtime.line.mqtt import MqttReceiver
    from .runtime.line.patience import DeliveryStatus, Patience
    from .runtime.line.pictures import Pictures
    from .runtime.line.result_log import ResultLog
    from .runtime.line.station import Station
    from .runtime.line.tls import Tls
    from .runtime.line.webhook import WebhookReceiver
    from .runtime.pipeline import score_lot
    from .runtime.reference.checker import Check, Checker
    from .runtime.reference.files import ReferenceFolder, open_reference
    from .runtime.reference.make import ReferenceOptions, make_reference
    from .runtime.results.image_files import OutputOptions
    from .runtime.results.judged_lot import read_judged_lot
    from .runtime.results.lot_result import LotResult
    from .runtime.scoring.anomaly_map import upsample
    from .runtime.scoring.mutual import mutual_scores
    from .runtime.scoring.presets import settings_for
    from .runtime.scoring.rescore import rescore
    from .runtime.settings import Resources, ScoreSettings
    from .runtime.tiling import Tiles
    from .runtime.types import Bundle, LotImage
    from .runtime.verdict.auto import Auto
    from .runtime.verdict.judge import Judgement
    from .runtime.verdict.judged_lot import JudgedLot, ThresholdFrom
    from .runtime.verdict.limits import Limits
    from .runtime.verdict.rules import RejectCount, RejectRate, Threshold
    from .runtime.vit.bundle import open_bundle


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from ._linux import other_system

    if name != "__version__" and other_system():
        raise ImportError(other_system())
    value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value  # from now on it is found without this function
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
