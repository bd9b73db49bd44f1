"""README.md and docs/: links, names and numbers that must stay true. `make docs` checks more when it builds them."""

import re
from pathlib import Path

import pytest

from tests.imports import ROOT

PAGES = sorted(ROOT.glob("docs/**/*.md"))
MAKEFILE = (ROOT / "Makefile").read_text()


def rows(page: Path) -> list[str]:
    """The rows of numbers in a page's tables."""
    return re.findall(r"^\|.+\d.+\|$", page.read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_make_has_the_commands_of_a_page(page: Path) -> None:
    named = set(re.findall(r"(?:^    |`|&& )make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_results_in_the_readme_are_those_of_the_recipes() -> None:
    shown = [row for row in rows(ROOT / "README.md") if "±" in row or "/" in row.split("|")[2]]
    assert len(shown) >= 4
    assert set(shown) <= set(rows(ROOT / "docs" / "recipes.md"))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_recipes_list_every_preset() -> None:
    listed = re.findall(r"^\| `([a-z-]+)`", (ROOT / "docs" / "recipes.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in ROOT.glob("presets/*.yaml"))
