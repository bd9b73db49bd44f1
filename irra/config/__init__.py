"""params.yaml as typed, frozen objects: a module for every section, the only place where its keys are written down.

A key is one line there: its type and bounds, its default, and its comment. `irra.config.presets` writes params.yaml
from them.
"""

from irra.config.evaluate import EvaluateConfig
from irra.config.index import IndexConfig
from irra.config.params import Params, check_image_size, check_masking
from irra.config.prepare import PrepareConfig, SyntheticConfig
from irra.config.reader import change, load_params, load_section, parse_section
from irra.config.registry import RegistryConfig
from irra.config.report import ReportConfig
from irra.config.section import ConfigSection, Count, Device, NonNegative, Positive, Precision, Seed, Share, Split
from irra.config.tokenize import TokenizeConfig
from irra.config.train import LOSSES, TrainConfig

__all__ = [
    "LOSSES",
    "ConfigSection",
    "Count",
    "Device",
    "EvaluateConfig",
    "IndexConfig",
    "NonNegative",
    "Params",
    "Positive",
    "Precision",
    "PrepareConfig",
    "RegistryConfig",
    "ReportConfig",
    "Seed",
    "Share",
    "Split",
    "SyntheticConfig",
    "TokenizeConfig",
    "TrainConfig",
    "change",
    "check_image_size",
    "check_masking",
    "load_params",
    "load_section",
    "parse_section",
]
