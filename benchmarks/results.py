"""Results of benchmarks: rows, which are printed as a table and written as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        what: What was measured.
        value: The number, or a name.
        unit: Of the number.
        asked: What the number should be, such as "< 9".
        details: Further numbers, by names with their units, such as "backward (s)".
    """

    what: str
    value: float | str
    unit: str = ""
    asked: str = ""
    details: Mapping[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """The row as a line of a table, with another for its details."""
        value = f"{number(self.value) if isinstance(self.value, (int, float)) else self.value} {self.unit}"
        line = f"  {self.what:<62} {value:<24} {f'asked {self.asked}' if self.asked else ''}".rstrip()
        details = ", ".join(f"{name} {number(amount)}" for name, amount in self.details.items())
        return f"{line}\n      {details}" if details else line


@dataclass
class Result:
    """The rows of one part, other lines that it printed, and the error that ended it early, if any.

    `load` is the machine's load average in the minute before: processes that wanted to run.
    """

    date: str = ""
    load: float = 0.0
    commit: str = ""
    command: str = ""
    seconds: float = 0.0
    error: str = ""
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, line: str) -> str:
        """Add a line that the part printed, a row as JSON or anything else, and return it for print."""
        try:
            self.rows.append(Row(**json.loads(line)))
        except (ValueError, TypeError):
            self.notes.append(line)
            return f"  {line}"
        return self.rows[-1].line()


def number(value: float) -> str:
    """Three digits, or all those before the point."""
    magnitude = abs(value)
    digits = 0 if magnitude >= 100 else 1 if magnitude >= 10 else 2 if magnitude >= 1 else 3
    return f"{value:.2g}" if 0 < magnitude < 0.001 else f"{value:,.{digits}f}"


def table(results: Mapping[str, Result]) -> str:
    """All parts, one below the other."""
    lines: list[str] = []
    for part, result in results.items():
        lines += [f"{part} ({result.seconds:.0f} s)", *(row.line() for row in result.rows)]
        lines += [f"  {note}" for note in result.notes]
        lines += [f"  error: {result.error}"] if result.error else []
    return "\n".join(lines)


def write(path: Path, machine: str, versions: Mapping[str, str], results: Mapping[str, Result]) -> None:
    """Write results to a JSON file, which keeps those of other parts if they were measured with the same versions."""
    before: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    kept = before["parts"] if before.get("versions") == versions else {}
    parts = kept | {part: asdict(result) for part, result in results.items()}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "versions": versions, "parts": parts}, indent=2) + "\n")
