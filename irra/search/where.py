"""Conditions on the metadata of pictures: one SQL expression, for the tables of pyarrow and for LanceDB."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import ROUND_FLOOR, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from irra.utils.errors import UserError

if TYPE_CHECKING:
    from sqlglot import exp

MAX_CHARACTERS = 1_000_000  # a list of 10,000 paths has a third of them
MAX_DEPTH = 15  # of parentheses with `and` and `or` in them; LanceDB reads 40
MAX_COMPARISONS = 1000
SHOWN_CHARACTERS, SHOWN_COLUMNS = 80, 20  # in messages

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NEGATED = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
MIRRORED = {"=": "=", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
GRAMMAR = {"and", "or", "not", "in", "between", "like", "ilike", "is", "null", "true", "false", "cast", "as"}
ALLOWED = (
    "a condition compares columns with values by = != < <= > >=, in, between, like or is null, joined by and, or, not"
)


@dataclass(frozen=True)
class Condition:
    """A condition that was checked against the columns of a gallery.

    Attributes:
        text: As it was given.
        expression: For `pyarrow.Table.filter` and datasets.
        sql: For LanceDB.
    """

    text: str
    expression: pc.Expression
    sql: str


def parse_condition(text: str, columns: pa.Schema) -> Condition:
    """Read a condition such as `camera in (3, 4) and time >= '2026-11-27 18:00'` on these columns.

    As in SQL, a picture without a value satisfies neither a comparison nor its opposite.

    Raises:
        UserError: It is no condition, names a column that there is not, or compares one with a value of another type.
    """
    try:
        part = _Reader(columns).read(_parse(text, columns))
    except _Problem as problem:
        shown = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
        listed = [f"{field.name} ({type_name(field.type)})" for field in columns]
        more = f" and {len(listed) - SHOWN_COLUMNS} more" if len(listed) > SHOWN_COLUMNS else ""
        names = ", ".join(listed[:SHOWN_COLUMNS]) + more
        raise UserError(" ".join(f'the condition "{shown}": {problem}; columns: {names}'.split())) from None
    return Condition(text, part.expression, part.sql)


def one_of(column: pa.Field, values: Sequence[Any]) -> Condition:
    """The condition that a column has one of these values, of which there may be more than a text could hold."""
    part = _among(column, values)
    return Condition(part.sql, part.expression, part.sql)


def type_name(kind: pa.DataType) -> str:
    """The name of a column's type for people, such as `int64`, `text` or `timestamp in Europe/Berlin`."""
    if pa.types.is_timestamp(kind):
        return f"timestamp in {kind.tz}" if kind.tz else "timestamp"
    return NAMES.get(kind, str(kind))


NAMES = {pa.string(): "text", pa.bool_(): "true or false", pa.date32(): "date", pa.time64("us"): "time of day"}


class _Problem(ValueError):
    """What is wrong with a condition."""


@dataclass(frozen=True)
class _Part:
    """A condition or a part of one, in both languages."""

    expression: pc.Expression
    sql: str


@dataclass(frozen=True)
class _Value:
    """A value in a condition; `kind` is null, truth value, number, text, date, timestamp or time."""

    kind: str
    value: bool | Decimal | str | None


def _unknown() -> _Part:
    """What is neither true nor false."""
    return _Part(pc.scalar(pa.scalar(None, pa.bool_())), "cast(null as boolean)")


def _parse(text: str, columns: pa.Schema) -> "exp.Expression":
    from sqlglot import exp
    from sqlglot.dialects import Dialect
    from sqlglot.errors import ParseError, SqlglotError

    if not text.strip():
        raise _Problem(f"it is empty; {ALLOWED}")
    if len(text) > MAX_CHARACTERS:
        raise _Problem(f"it has {len(text):,} characters, more than the {MAX_CHARACTERS:,} allowed")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise _Problem("it has characters that are not text")
    dialect = Dialect.get_or_raise(None)
    try:
        tokens = dialect.tokenize(text)
        _mark_columns(tokens, columns)
        trees = dialect.parser().parse_into(exp.Condition, tokens, text)
    except ParseError as error:
        near = next((f" near {one['highlight']!r}" for one in error.errors if one.get("highlight")), "")
        raise _Problem(f"it cannot be read{near}; {ALLOWED}") from None
    except SqlglotError:
        raise _Problem("it cannot be read: is a quotation mark missing?") from None
    except RecursionError:
        raise _Problem("it is nested too deeply") from None
    match trees:
        case [exp.Expression() as tree]:
            return tree
    raise _Problem(f"it is not one condition; {ALLOWED}")


def _mark_columns(tokens: Sequence[Any], columns: pa.Schema) -> None:
    """Let columns that are called like a word of SQL, such as `select`, be names without quotation marks."""
    from sqlglot import TokenType

    names = {name.casefold() for name in columns.names} - GRAMMAR
    texts = [token.text.casefold() for token in tokens]
    kinds = [token.token_type for token in tokens]
    for i, token in enumerate(tokens):
        following = kinds[i + 1] if i + 1 < len(tokens) else None
        value = following in (TokenType.STRING, TokenType.L_PAREN) or (i and texts[i - 1] in ("as", "::"))
        if texts[i] in names and kinds[i] not in (TokenType.STRING, TokenType.NUMBER) and not value:
            token.token_type = TokenType.IDENTIFIER


class _Reader:
    """Translates the tree of a condition, whose nodes are all checked; negations are moved to the comparisons."""

    def __init__(self, columns: pa.Schema) -> None:
        self._columns = columns
        self._comparisons = 0

    def read(self, node: "exp.Expression", negated: bool = False, depth: int = 0) -> _Part:
        from sqlglot import exp

        node = _inner(node)
        while type(node) is exp.Not:
            node, negated = _inner(node.this), not negated
        if type(node) in (exp.And, exp.Or):
            if depth == MAX_DEPTH:
                raise _Problem("it is nested too deeply")
            parts = [self.read(part, negated, depth + 1) for part in _chain(node)]
            return _joined(parts, (type(node) is exp.And) != negated)
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise _Problem(f"it has more than {MAX_COMPARISONS} comparisons; give a list: column in (...)")
        return self._comparison(node, negated)

    def _comparison(self, node: "exp.Expression", negated: bool) -> _Part:
        from sqlglot import exp

        symbols: dict[type[exp.Expression], str]
        symbols = {exp.EQ: "=", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="}
        given = {name for name, value in node.args.items() if value}
        symbol = symbols.get(type(node))
        if symbol and given <= {"this", "expression"}:
            left, right = self._operand(node.this), self._operand(node.expression)
            return self._compared(left, NEGATED[symbol] if negated else symbol, right)
        if type(node) is exp.Between and given <= {"this", "low", "high"}:
            operand, low, high = (self._operand(node.args[name]) for name in ("this", "low", "high"))
            parts = [(">=", low), ("<=", high)]
            compared = [self._compared(operand, NEGATED[s] if negated else s, bound) for s, bound in parts]
            return _joined(compared, not negated)
        if type(node) is exp.In and given <= {"this", "expressions"} and node.expressions:
            return self._listed(self._operand(node.this), [self._operand(one) for one in node.expressions], negated)
        if type(node) in (exp.Like, exp.ILike) and given <= {"this", "expression", "negate"}:
            left, pattern = self._operand(node.this), self._operand(node.expression)
            return self._alike(left, pattern, type(node) is exp.ILike, negated != bool(node.args.get("negate")))
        if type(node) is exp.Is and given <= {"this", "expression"} and type(node.expression) is exp.Null:
            return self._missing(self._operand(node.this), negated)
        if type(node) in (exp.Column, exp.Boolean, exp.Null):
            return self._alone(self._operand(node), negated)
        raise _not_allowed(node)

    def _operand(self, node: "exp.Expression") -> "_Value | pa.Field":
        """A column, or a value."""
        from sqlglot import exp

        node, sign = _inner(node), 1
        while type(node) is exp.Neg:
            node, sign = _inner(node.this), -sign
        if type(node) is exp.Literal and not node.is_string:
            return _Value("number", _number(node.this).copy_negate() if sign < 0 else _number(node.this))
        if sign == 1:
            match node:
                case exp.Literal():
                    return _Value("text", node.this)
                case exp.Column(this=exp.Identifier()):
                    return self._column(node)
                case exp.Boolean():
                    return _Value("truth value", bool(node.this))
                case exp.Null():
                    return _Value("null", None)
                case exp.Cast() if type(node) is exp.Cast and {n for n, v in node.args.items() if v} <= {"this", "to"}:
                    kind = CASTS.get(node.to.this.name)
                    if kind and type(node.this) is exp.Literal and node.this.is_string and not node.to.expressions:
                        return _Value(kind, node.this.this)
        raise _not_allowed(node)

    def _column(self, node: "exp.Column") -> pa.Field:
        name = ".".join(part.name for part in node.parts)
        names = self._columns.names
        found = [name] if name in names else [one for one in names if one.casefold() == name.casefold()]
        if len(found) > 1:
            raise _Problem(f"{name} may be {' or '.join(found)}")
        if not found:
            hint = f" (a text has single quotation marks: '{name}')" if node.this.quoted else ""
            raise _Problem(f"there is no column {name}{hint}")
        return self._columns.field(found[0])

    def _compared(self, left: "_Value | pa.Field", symbol: str, right: "_Value | pa.Field") -> _Part:
        if isinstance(left, _Value):
            left, right, symbol = right, left, MIRRORED[symbol]
        if isinstance(left, _Value):
            raise _Problem("it compares a value with a value; name a column")
        ordered = symbol not in ("=", "!=")
        if ordered and pa.types.is_boolean(left.type):
            raise _Problem(f"{left.name} is true or false, of which neither is greater")
        if not isinstance(right, _Value):
            if left.type != right.type:
                names = f"{left.name} ({type_name(left.type)}) and {right.name} ({type_name(right.type)})"
                raise _Problem(f"{names} are of two types")
            return _Part(COMPARISONS[symbol](pc.field(left.name), pc.field(right.name)), _sql(left, symbol, right))
        if right.value is None:
            return _unknown()
        if not pa.types.is_integer(left.type):
            return _against(left, symbol, _converted(left, right))
        whole = _whole(left, symbol, right)
        return _constant(left, whole) if isinstance(whole, bool) else _against(left, *whole)

    def _listed(self, column: "_Value | pa.Field", given: "Sequence[_Value | pa.Field]", negated: bool) -> _Part:
        if isinstance(column, _Value):
            raise _Problem("it looks for a value in a list; name a column")
        values = []
        for one in given:
            if not isinstance(one, _Value):
                raise _Problem(f"{one.name} is a column; a list has values")
            if one.value is None:
                continue
            if pa.types.is_integer(column.type):
                whole = _whole(column, "=", one)
                values += [] if isinstance(whole, bool) else [whole[1]]
            else:
                values.append(_converted(column, one))
        part = _constant(column, negated)
        if values:
            part = _among(column, values, negated)
        nulls = any(isinstance(one, _Value) and one.value is None for one in given)
        return _joined([part, _unknown()], negated) if nulls else part

    def _alike(self, column: "_Value | pa.Field", pattern: "_Value | pa.Field", any_case: bool, negated: bool) -> _Part:
        if isinstance(column, _Value) or not isinstance(pattern, _Value):
            raise _Problem("`like` compares a column with a pattern, such as place like 'north%'")
        if pattern.value is None:
            return _unknown()
        if not _is_text(column.type):
            raise _Problem(f"{column.name} is {_described(column.type)}; `like` is for texts")
        value = str(_converted(column, pattern))
        if (len(value) - len(value.rstrip("\\"))) % 2:
            raise _Problem("the pattern ends in \\, which needs a character to follow")
        expression = pc.match_like(pc.field(column.name), value, ignore_case=any_case)
        word = ("not " if negated else "") + ("ilike" if any_case else "like")
        return _Part(~expression if negated else expression, f"{_quoted(column)} {word} {_literal(value, pa.string())}")

    def _missing(self, column: "_Value | pa.Field", negated: bool) -> _Part:
        if isinstance(column, _Value):
            raise _Problem("`is null` is for columns")
        field = pc.field(column.name)
        expression = field.is_valid() if negated else ~field.is_valid()
        return _Part(expression, f"{_quoted(column)} is {'not ' if negated else ''}null")

    def _alone(self, operand: "_Value | pa.Field", negated: bool) -> _Part:
        """A column or value of type bool as a condition."""
        if isinstance(operand, _Value):
            if operand.value is None:
                return _unknown()
            holds = bool(operand.value) != negated
            return _Part(pc.scalar(holds), str(holds).lower())
        if not pa.types.is_boolean(operand.type):
            raise _Problem(f"{operand.name} is {_described(operand.type)}; compare it with a value")
        field = pc.field(operand.name)
        return _Part(~field if negated else field, f"{_quoted(operand)} = {'false' if negated else 'true'}")


CASTS = {
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
    "TIMESTAMPTZ": "timestamp",
    "TIMESTAMPNTZ": "timestamp",
    "DATETIME": "timestamp",
}


def _not_allowed(node: "exp.Expression") -> _Problem:
    try:
        shown = node.sql()
    except RecursionError:
        return _Problem("it is nested too deeply")
    shown = shown if len(shown) <= SHOWN_CHARACTERS else shown[:SHOWN_CHARACTERS] + "..."
    return _Problem(f"{shown} is not possible; {ALLOWED}")


def _inner(node: Any) -> Any:
    """A node without parentheses around it."""
    from sqlglot import exp

    while type(node) is exp.Paren:
        node = node.this
    return node


def _chain(node: Any) -> "list[exp.Expression]":
    """The parts of a chain of `and`, or of `or`, in their order."""
    kind, parts, todo = type(node), [], [node]
    while todo:
        one = _inner(todo.pop())
        if type(one) is kind:
            todo += [one.expression, one.this]
        else:
            parts.append(one)
    return parts


def _joined(parts: list[_Part], conjunction: bool) -> _Part:
    """All of the parts, or any; the expression is a balanced tree, so that its depth is small."""
    sql = (" and " if conjunction else " or ").join(f"({part.sql})" for part in parts)
    level = [part.expression for part in parts]
    join = operator.and_ if conjunction else operator.or_
    while len(level) > 1:
        last = level[len(level) // 2 * 2 :]
        level = [join(a, b) for a, b in zip(level[::2], level[1::2], strict=False)] + last
    return _Part(level[0], sql)


def _against(column: pa.Field, symbol: str, value: Any) -> _Part:
    """The comparison of a column with a value of its type."""
    expression = COMPARISONS[symbol](pc.field(column.name), pc.scalar(pa.scalar(value, column.type)))
    return _Part(expression, f"{_quoted(column)} {symbol} {_literal(value, column.type)}")


def _among(column: pa.Field, values: Sequence[Any], negated: bool = False) -> _Part:
    """That a column has one of some values, or none of them; unknown where it has no value."""
    field = pc.field(column.name)
    inside = field.isin(pa.array(values, column.type))
    inside = pc.if_else(field.is_valid(), ~inside if negated else inside, _unknown().expression)
    literals = ", ".join(_literal(value, column.type) for value in values)
    return _Part(inside, f"{_quoted(column)} {'not in' if negated else 'in'} ({literals})")


def _constant(column: pa.Field, holds: bool) -> _Part:
    """What holds for each value of a column, or for none, and is unknown where it has none."""
    symbol = "=" if holds else "!="
    return _Part(COMPARISONS[symbol](pc.field(column.name), pc.field(column.name)), _sql(column, symbol, column))


def _whole(column: pa.Field, symbol: str, given: _Value) -> tuple[str, int] | bool:
    """The comparison of whole numbers that equals one with any number; whether it always holds, if there is none."""
    if not isinstance(given.value, Decimal):
        raise _mismatch(column, given)
    signed, bits = pa.types.is_signed_integer(column.type), column.type.bit_width
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if given.value > high:
        return symbol in ("<", "<=", "!=")
    if given.value < low:
        return symbol in (">", ">=", "!=")
    floor = given.value.to_integral_value(ROUND_FLOOR)
    if floor == given.value:
        return symbol, int(floor)
    if symbol in ("=", "!="):
        return symbol == "!="
    return ("<=" if symbol in ("<", "<=") else ">"), int(floor)


def _converted(column: pa.Field, given: _Value) -> Any:
    """A value as Python has it for a column's type, for all types but whole numbers."""
    kind, value = column.type, given.value
    if pa.types.is_floating(kind) and isinstance(value, Decimal):
        number = pa.scalar(float(value), kind).as_py() + 0.0  # -0.0 is 0.0
        if not math.isfinite(number):
            raise _Problem(f"{value:.3g} is too large for {column.name} ({type_name(kind)})")
        return number
    if (_is_text(kind) and given.kind == "text") or (pa.types.is_boolean(kind) and given.kind == "truth value"):
        return value
    if pa.types.is_temporal(kind) and isinstance(value, str):
        return _moment(column, value)
    raise _mismatch(column, given)


def _moment(column: pa.Field, text: str) -> date | datetime | time:
    kind, example = column.type, "2026-11-27 18:00"
    moment: datetime | time
    try:
        if pa.types.is_timestamp(kind):
            moment = datetime.fromisoformat(text)
            if kind.tz and moment.tzinfo is None:
                moment = moment.replace(tzinfo=pa.lib.string_to_tzinfo(kind.tz))
            if kind.tz:
                return moment.astimezone(UTC)
        elif pa.types.is_date(kind):
            example = "2026-11-27"
            return date.fromisoformat(text)
        else:
            example = "18:00"
            moment = time.fromisoformat(text)
    except (ValueError, OverflowError):
        raise _Problem(f"{column.name} is a {type_name(kind)} such as '{example}', which '{text}' is not") from None
    if moment.tzinfo is not None:
        raise _Problem(f"{column.name} is a {type_name(kind)} without a time zone, but '{text}' has one")
    return moment


def _mismatch(column: pa.Field, given: _Value) -> _Problem:
    value = f"{given.value:.10g}" if isinstance(given.value, Decimal) else str(given.value).lower()
    shown = f"'{given.value}'" if isinstance(given.value, str) else value
    return _Problem(f"{column.name} is {_described(column.type)}, but {shown} is a {given.kind}")


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise _Problem(f"{text[:SHOWN_CHARACTERS]} is not a number that can be read") from None


def _described(kind: pa.DataType) -> str:
    name = type_name(kind)
    if pa.types.is_boolean(kind):
        return name
    return f"a number ({name})" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else f"a {name}"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _sql(left: pa.Field, symbol: str, right: pa.Field) -> str:
    return f"{_quoted(left)} {symbol} {_quoted(right)}"


def _quoted(column: pa.Field) -> str:
    return "`" + str(column.name).replace("`", "``") + "`"


def _literal(value: Any, kind: pa.DataType) -> str:
    """A value as LanceDB reads it for a column's type."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return "'" + value.replace("'", "''") + "'"
        case datetime() if kind.tz:
            moment = value.replace(tzinfo=None).isoformat()
            return f"arrow_cast('{moment}Z', 'Timestamp(Microsecond, Some(\"UTC\"))')"
        case datetime():
            return f"timestamp '{value.isoformat(sep=' ')}'"
        case date():
            return f"date '{value.isoformat()}'"
        case time():
            return f"arrow_cast('{value.isoformat()}', 'Time64(Microsecond)')"
        case int() if value == -(2**63):
            return f"arrow_cast('{value}', 'Int64')"  # read as a number, it overflows before its sign is seen
        case _:
            return repr(value)
