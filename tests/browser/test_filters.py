"""Filters, tracks and frames on the search page, as users see them."""

import shutil
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from irra.search.engine import SearchEngine
from tests.browser.sightings import sightings_engine
from tests.browser.test_page import CONTRAST
from tests.browser.toy import MARKUP
from tests.models import small_model

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("web")]

CONDITION = "camera in (3) and select in ('gate ''A''')"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> SearchEngine:
    return sightings_engine(tmp_path_factory.mktemp("sightings") / "engine", small_model(num_classes=None))


def address_of(**search: str) -> str:
    return f"/?{urlencode({'q': 'a person'} | search)}"


def searched(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def group(page: Page, name: str) -> Locator:
    return page.locator("fieldset", has=page.locator("legend", has_text=name))


def status(page: Page) -> Locator:
    return page.locator("#status")


def test_chosen_values_are_the_condition_of_the_results_and_of_the_address(page: Page) -> None:
    page.goto(address_of())
    expect(status(page)).to_have_text("Pictures 1 to 11 of 11 for “a person”, the best of each track")
    expect(page.locator("#filters")).not_to_have_attribute("open", "")
    page.get_by_text("Filters", exact=True).click()
    group(page, "camera").get_by_label("3 8").check()
    group(page, "select").get_by_label("gate 'A'").check()
    field = page.get_by_label("Only pictures where")
    expect(field).to_have_value(CONDITION)
    page.get_by_role("button", name="Apply").click()
    expect(status(page)).to_contain_text(
        f"of 1 for “a person”, the best of each track, among 4 of 32 pictures where {CONDITION}"
    )
    assert searched(page) == {"q": ["a person"], "where": [CONDITION]}
    page.reload()
    expect(page.locator(".card")).to_have_count(1)
    expect(group(page, "select").get_by_label("gate 'A'")).to_be_checked()
    page.get_by_role("link", name="Remove the condition").click()
    expect(page.locator(".card")).to_have_count(11)
    expect(field).to_have_value("")
    assert searched(page) == {"q": ["a person"]}
    page.go_back()
    expect(page.locator(".card")).to_have_count(1)
    expect(field).to_have_value(CONDITION)
    page.go_back()
    expect(page.locator(".card")).to_have_count(11)


@pytest.mark.system
def test_ranges_parts_and_unknown_values_are_written_and_read_again(page: Page) -> None:
    page.goto(address_of())
    page.get_by_text("Filters", exact=True).click()
    group(page, "time").get_by_label("from").fill("2026-11-27T18:00:40")
    group(page, "confidence").get_by_label("from").fill("0.5")
    group(page, "confidence").get_by_label("to").fill("0.6")
    group(page, "track").get_by_label("not known").check()
    group(page, "note").get_by_label("contains").fill("100% 'SURE'")
    group(page, MARKUP).get_by_label("yes").check()
    page.get_by_role("button", name="Apply").click()
    condition = (
        "time >= '2026-11-27 18:00:40' and confidence >= 0.5 and confidence <= 0.6 and track is null "
        f"and \"{MARKUP}\" in ('yes') and note ilike '%100\\% ''SURE''%'"
    )
    expect(status(page)).to_contain_text(
        f"Pictures 1 to 3 of 3 for “a person”, among 3 of 32 pictures where {condition[:100]}"
    )
    assert searched(page)["where"] == [condition]
    page.reload()
    expect(page.locator(".card")).to_have_count(3)
    expect(group(page, "time").get_by_label("from")).to_have_value("2026-11-27T18:00:40")
    expect(group(page, "confidence").get_by_label("to")).to_have_value("0.6")
    expect(group(page, "note").get_by_label("contains")).to_have_value("100% 'SURE'")
    expect(page.locator("#by-hand")).to_be_hidden()
    assert page.locator("b, img[src=x]").count() == 0


def test_a_condition_written_by_hand_counts_until_a_choice_replaces_it(page: Page) -> None:
    page.goto("/")
    page.wait_for_selector("#examples li")
    page.get_by_text("Filters", exact=True).click()
    field = page.get_by_label("Only pictures where")
    group(page, "camera").get_by_label("1 8").check()
    field.fill("camera in (1) and pid is null")
    expect(page.get_by_text("Edited by hand")).to_be_visible()
    expect(group(page, "camera").get_by_label("1 8")).not_to_be_checked()
    page.locator("#examples a").first.click()
    expect(status(page)).to_contain_text("among 8 of 32 pictures where camera in (1) and pid is null")
    field.fill("camra = 3")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("camra")
    expect(field).to_have_value("camra = 3")
    group(page, "camera").get_by_label("1 8").check()
    expect(field).to_have_value("camera in (1)")
    expect(page.get_by_text("Edited by hand")).to_be_hidden()
    page.get_by_role("button", name="Clear").click()
    expect(field).to_have_value("")
    expect(group(page, "camera").get_by_label("1 8")).not_to_be_checked()


def test_a_track_is_one_result_with_its_frame_until_every_frame_is_asked_for(page: Page, engine: SearchEngine) -> None:
    page.goto(address_of(where="camera = 3"))
    cards = page.locator(".card")
    expect(cards).to_have_count(2)
    expect(cards.last).to_contain_text("2026-11-27 18:00:20–18:01:20")
    expect(cards.last).to_contain_text("4 pictures")
    cards.first.click()
    dialog = page.get_by_role("dialog")
    frame = dialog.get_by_alt_text("The frame with a box around the person: cam1/00000")
    assert frame.evaluate("image => image.decode().then(() => image.naturalWidth)") == 256
    expect(dialog.locator("#known")).to_contain_text(MARKUP)
    frames = Path(engine.gallery.entry(0).source)
    shutil.move(frames, frames.with_name("away"))
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("#scene .error")).to_contain_text("cam1/00000")
    shutil.move(frames.with_name("away"), frames)
    dialog.get_by_role("link", name="Show every frame").click()
    expect(cards).to_have_count(4)
    expect(status(page)).to_contain_text("every frame, among 4 of 32 pictures where (camera = 3) and track = 'cam1#")
    page.get_by_label("Show every frame").uncheck()
    page.get_by_role("button", name="Apply").click()
    expect(cards).to_have_count(1)


@pytest.mark.system
def test_on_a_phone_all_of_it_fits_and_stands_out_in_both_colour_schemes(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    search = {"where": f"note != '{'long' * 60}' and \"{MARKUP}\" is not null", "every_frame": "true"}
    page.goto(address_of(**search))
    page.locator(".card").first.click()
    expect(page.locator(".words")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("dialog").evaluate("dialog => dialog.scrollWidth") <= 360
    low = page.evaluate(CONTRAST)
    page.emulate_media(color_scheme="dark")
    assert low + page.evaluate(CONTRAST) == []
    following = page.locator("#pages a").get_attribute("href") or ""
    assert parse_qs(urlsplit(following).query) == {name: [value] for name, value in search.items()} | {
        "q": ["a person"],
        "page": ["2"],
    }
