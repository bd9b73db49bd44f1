"""Reading and writing YAML values so that DVC, PyYAML and people all understand them in the same way."""

import re
import sys
from decimal import Decimal
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

BOOL, FLOAT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"
TOO_LARGE = 2**64  # no number in a parameter file is as large
MAX_NODES = 10_000  # values and keys of a file; ours have about 150
SHOWN_CHARACTERS = 40
PLAIN = range(-2, 15)  # powers of ten for which numbers are written without an exponent


class _Loader(yaml.SafeLoader):
    """Reads `1e-5` as a number and `on` as a word, as DVC and others do; PyYAML follows YAML 1.1: a string, and true.

    It refuses, as errors of YAML, what PyYAML takes or breaks at: a key that is there twice, aliases that multiply to
    more than MAX_NODES values, and values that are not what they claim to be, such as the date 2001-99-99.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._sizes: dict[int, int] = {}  # the number of nodes in each that is complete, by its id

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        alias, before = self.check_event(yaml.AliasEvent), self._nodes
        node = super().compose_node(parent, index)
        assert node is not None
        if alias and id(node) not in self._sizes:
            raise ComposerError(None, None, "found an alias inside of what it stands for", node.start_mark)
        if isinstance(node, yaml.MappingNode) and not alias:
            _check_keys(node)
        self._nodes += self._sizes[id(node)] if alias else 1
        self._sizes.setdefault(id(node), self._nodes - before)
        if self._nodes > MAX_NODES:
            raise ComposerError(
                None, None, f"found more than {MAX_NODES} values, aliases counted in full", node.start_mark
            )
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError):
            value = TOO_LARGE  # of this or any other kind, it is not usable
        if isinstance(value, int) and abs(value) >= TOO_LARGE:
            kind, text = node.tag.rpartition(":")[2], str(node.value)[:SHOWN_CHARACTERS]
            raise ConstructorError(None, None, f"found {text!r}, which is no usable {kind}", node.start_mark)
        return value


class _Dumper(yaml.SafeDumper):
    """Quotes strings that `_Loader` would read as numbers."""

    def represent_number(self, value: float) -> yaml.ScalarNode:
        return self.represent_scalar(FLOAT, _number(value))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(FLOAT, re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789"))
_Dumper.add_representer(float, _Dumper.represent_number)


def read_yaml(text: str) -> Any:
    """Parse a YAML text.

    Raises:
        yaml.YAMLError: It is not valid YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("brackets or lists are nested too deeply") from None


def write_yaml(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=sys.maxsize, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
        if key.value in seen:
            raise ComposerError(None, None, f"found the key {key.value!r} twice", key.start_mark)
        seen.add(key.value)


def _number(value: float) -> str:
    exact = Decimal(repr(value))
    if exact.adjusted() in PLAIN or not exact:
        return repr(value)
    mantissa, exponent = f"{exact:e}".split("e")
    return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{exponent}"  # YAML 1.1 requires the point
