"""Reading and writing YAML values so that DVC, PyYAML and people all understand them in the same way."""

import re
import sys
from decimal import Decimal
from typing import Any

import yaml

FLOAT = "tag:yaml.org,2002:float"
PLAIN = range(-2, 15)  # powers of ten for which numbers are written without an exponent


class _Loader(yaml.SafeLoader):
    """Reads `1e-5` as a number, as DVC and others do; PyYAML follows YAML 1.1, where it is a string."""


class _Dumper(yaml.SafeDumper):
    """Quotes strings that `_Loader` would read as numbers."""

    def represent_number(self, value: float) -> yaml.ScalarNode:
        return self.represent_scalar(FLOAT, _number(value))


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(FLOAT, re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789"))
_Dumper.add_representer(float, _Dumper.represent_number)


def read_yaml(text: str) -> Any:
    """Parse a YAML text.

    Raises:
        yaml.YAMLError: It is not valid YAML.
    """
    return yaml.load(text, Loader=_Loader)


def write_yaml(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=sys.maxsize, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _number(value: float) -> str:
    exact = Decimal(repr(value))
    if exact.adjusted() in PLAIN or not exact:
        return repr(value)
    mantissa, exponent = f"{exact:e}".split("e")
    return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{exponent}"  # YAML 1.1 requires the point
