"""params.yaml as typed, frozen objects, with one module per section.

A section's module is the only place that defines its keys. Each key is one line: type and bounds, default, and comment.
`irra.config.presets` generates params.yaml from them.
"""

from irra.config.evaluate import EvaluateConfig
from irra.config.index import IndexConfig
from irra.config.params import Params, check_image_size, located
from irra.config.prepare import PrepareConfig, SyntheticConfig
from irra.config.reader import change, load_params, load_section, parse_section
from irra.config.registry import RegistryConfig
from irra.config.report import ReportConfig
from irra.config.section import ConfigSection, Count
from irra.config.tokenize import TokenizeConfig
from irra.config.train import LOSSES, TrainConfig

__all__ = [
    "LOSSES",
    "ConfigSection",
    "Count",
    "EvaluateConfig",
    "IndexConfig",
    "Params",
    "PrepareConfig",
    "RegistryConfig",
    "ReportConfig",
    "SyntheticConfig",
    "TokenizeConfig",
    "TrainConfig",
    "change",
    "check_image_size",
    "load_params",
    "load_section",
    "located",
    "parse_section",
]
