"""What became of every hostile case, and the table of it."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Outcomes:
    """The outcomes of one campaign, such as "kills", by kind of case, such as "kill train"."""

    campaign: str
    clear: Counter[str] = field(default_factory=Counter)
    unclear: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, kind: str, case: str, problem: str | None) -> None:
        """Count a case; `problem` says what was not as promised, None that all was."""
        if problem is None:
            self.clear[kind] += 1
            return
        self.unclear[kind] += 1
        self.problems.append(f"{self.campaign}, {kind}, {case}: {problem}")
        print(self.problems[-1], flush=True)


def table(campaigns: list[Outcomes]) -> str:
    """Lines of campaign, kind, cases and how many of them were not clear."""
    rows = [("campaign", "kind", "cases", "not clear")]
    for outcomes in campaigns:
        for kind in sorted(outcomes.clear | outcomes.unclear):
            bad = outcomes.unclear[kind]
            rows.append((outcomes.campaign, kind, str(outcomes.clear[kind] + bad), str(bad)))
    totals = [sum(sum(counts.values()) for counts in by) for by in _counters(campaigns)]
    rows.append(("all", "", str(sum(totals)), str(totals[1])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _counters(campaigns: list[Outcomes]) -> tuple[list[Counter[str]], list[Counter[str]]]:
    return [outcomes.clear for outcomes in campaigns], [outcomes.unclear for outcomes in campaigns]
