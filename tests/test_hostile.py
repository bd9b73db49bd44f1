"""The command of `make test-hostile`: its options, and its table."""

import pytest

from tests.hostile.__main__ import CAMPAIGNS, parse
from tests.hostile.outcomes import Outcomes, table


def test_without_names_all_campaigns_run() -> None:
    assert parse([]).campaigns == list(CAMPAIGNS)
    assert parse(["kills", "--seed", "1"]).campaigns == ["kills"]


def test_an_unknown_campaign_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["kill"])
    assert "no campaign kill; there are kills" in capsys.readouterr().err


def test_the_table_counts_cases_and_those_that_are_not_clear() -> None:
    outcomes = Outcomes("kills")
    outcomes.add("train", "a", None)
    outcomes.add("train", "b", "other weights")
    rows = [line.split() for line in table([outcomes]).splitlines()]
    assert rows == [["campaign", "kind", "cases", "not", "clear"], ["kills", "train", "2", "1"], ["all", "2", "1"]]
    assert outcomes.problems == ["kills, train, b: other weights"]
