"""The search page as users see it: with mouse and keyboard, on a phone, in dark mode."""

import io
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from irra.search.engine import SearchEngine
from tests.browser.toy import DRESSES, MARKUP, sentence

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("web"),
]  # one process, so that all start once

CONTRAST = Path(__file__).with_name("contrast.js").read_text()


def search(page: Page, text: str) -> None:
    box = page.get_by_label("Who are you looking for?")
    box.fill(text)
    box.press("Enter")


def first_card(page: Page) -> str:
    return page.locator(".card").first.inner_text().replace("\n", " ")


def shown_people(page: Page, count: int = 4) -> set[str]:
    """Colours of the first people in the grid."""
    names = [page.locator(".card img").nth(i).get_attribute("alt") or "" for i in range(count)]
    return {list(DRESSES)[int(name.removeprefix("Person ").split(",")[0])] for name in names}


def test_a_sentence_and_enter_show_the_person_it_describes(page: Page) -> None:
    page.goto("/")
    search(page, sentence("yellow"))
    expect(page.locator(".card")).to_have_count(24)
    expect(page.get_by_role("status")).to_have_text("Pictures 1 to 24 of 32 for “a person in yellow”")
    assert shown_people(page) == {"yellow"}
    assert page.locator(".card img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 32


def test_an_example_is_searched_by_a_click(page: Page) -> None:
    page.goto("/")
    example = page.locator("#examples a").nth(2)
    text = example.inner_text()
    example.click()
    expect(page.locator(".card")).to_have_count(24)
    expect(page.get_by_label("Who are you looking for?")).to_have_value(text)
    expect(page.locator("#examples")).to_be_hidden()
    expect(page.get_by_role("heading", name="Best matches")).to_be_focused()


def test_back_forward_and_reload_show_what_the_address_says(page: Page) -> None:
    page.goto("/")
    for colour in ("red", "blue"):
        search(page, sentence(colour))
        expect(page).to_have_title(re.compile(colour))
        expect(page.locator("#list")).to_have_attribute("aria-busy", "false")
    page.go_back()
    expect(page.get_by_label("Who are you looking for?")).to_have_value(sentence("red"))
    expect(page.locator("#list")).to_have_attribute("aria-busy", "false")
    assert shown_people(page) == {"red"}
    page.go_forward()
    expect(page.get_by_label("Who are you looking for?")).to_have_value(sentence("blue"))
    page.reload()
    expect(page.locator(".card")).to_have_count(24)
    assert shown_people(page) == {"blue"}
    assert parse_qs(urlsplit(page.url).query) == {"q": [sentence("blue")]}


def test_pages_of_results_are_links(page: Page) -> None:
    page.goto("/?q=a+person")
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".card")).to_have_count(8)
    expect(page.get_by_role("status")).to_have_text("Pictures 25 to 32 of 32 for “a person”")
    expect(page.get_by_role("heading", name="Best matches")).to_be_focused()
    assert first_card(page).startswith("rank 25")
    page.goto(page.url)
    assert first_card(page).startswith("rank 25")
    page.get_by_role("link", name="Previous").click()
    expect(page.locator(".card")).to_have_count(24)
    assert urlsplit(page.url).query == "q=a+person"


def test_a_page_beyond_the_last_leads_back_to_it(page: Page) -> None:
    page.goto("/?q=red&page=99")
    expect(page.get_by_role("status")).to_have_text("There is no page 99; 32 pictures were found")
    expect(page.locator("#pages")).to_have_text("Previous")
    page.get_by_role("link", name="Previous").click()
    expect(page.locator(".card")).to_have_count(8)


def test_details_open_and_close_by_keyboard_and_give_the_focus_back(page: Page) -> None:
    page.goto(f"/?q={sentence('green')}")
    cards = page.locator(".card")
    expect(cards).to_have_count(24)
    while not cards.first.evaluate("card => card === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Result 1")
    expect(dialog.get_by_text("In the picture, the")).to_be_visible()
    assert dialog.locator(".word").all_inner_texts() == sentence("green").split()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(cards.first).to_be_focused()


def test_details_step_through_the_results(page: Page) -> None:
    page.goto("/?q=white")
    page.locator(".card").first.click()
    expect(page.get_by_role("button", name="Previous result")).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Next result").click()
    expect(page.get_by_role("dialog", name="Result 3")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect(page.locator(".card").nth(2)).to_be_focused()


def test_the_heat_map_lies_over_the_picture_until_switched_off(page: Page) -> None:
    page.goto("/?q=brown")
    page.locator(".card").first.click()
    expect(page.locator(".words")).to_be_visible()
    heat = page.locator("#heat")
    assert heat.evaluate("c => [c.width, c.height]") == [32, 64]
    assert heat.evaluate("c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v)")
    assert heat.bounding_box() == page.locator("#large").bounding_box()
    page.get_by_label("Heat map").focus()
    page.keyboard.press("Space")
    expect(heat).to_be_hidden()


def picture(engine: SearchEngine, path: str) -> bytes:
    rows = range(engine.gallery.size)
    return next(entry.thumbnail for entry in map(engine.gallery.entry, rows) if entry.path == path)


def test_a_chosen_picture_shows_its_captions_and_they_can_be_searched(page: Page, engine: SearchEngine) -> None:
    page.goto("/?q=red")
    blue = list(DRESSES).index("blue")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a picture").click()
    data = picture(engine, f"{blue}_0.png")
    chooser.value.set_files({"name": "somebody.jpg", "mimeType": "image/jpeg", "buffer": data})
    captions = page.locator(".captions a")
    expect(captions).to_have_count(9)
    expect(captions.first).to_have_text(sentence("blue"))
    expect(page.get_by_role("img", name="Your picture")).to_be_visible()
    captions.first.click()
    expect(page.locator(".card")).to_have_count(24)
    assert shown_people(page) == {"blue"}
    page.go_back()
    expect(captions.first).to_have_text(sentence("blue"))
    page.go_back()
    expect(page.get_by_label("Who are you looking for?")).to_have_value("red")


def test_a_dropped_picture_is_taken_as_a_chosen_one(page: Page) -> None:
    page.goto("/")
    file = io.BytesIO()
    Image.new("RGB", (32, 64), DRESSES["green"]).save(file, "PNG")
    page.wait_for_selector("#examples li")
    page.evaluate(
        """bytes => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
          for (const type of ["dragover", "drop"])
            document.body.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer }));
        }""",
        list(file.getvalue()),
    )
    expect(page.locator(".captions a").first).to_have_text(sentence("green"))


def test_a_file_that_is_no_picture_is_refused_in_words(page: Page) -> None:
    page.goto("/")
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"})
    expect(page.get_by_role("alert")).to_contain_text("This file is not a picture")
    expect(page.locator("#uploaded")).to_be_hidden()


def test_a_gallery_without_captions_says_that_pictures_cannot_be_searched_with(page: Page) -> None:
    def without_captions(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"captions": 0})

    page.route("**/api/gallery", without_captions)
    page.goto("/")
    expect(page.get_by_text("this gallery was made without captions")).to_be_visible()
    expect(page.get_by_role("button", name="Choose a picture")).to_be_hidden()


def test_an_empty_sentence_is_asked_for_again(page: Page) -> None:
    page.goto("/")
    search(page, "   ")
    expect(page.get_by_role("alert")).to_contain_text("Describe somebody first")
    expect(page.get_by_label("Who are you looking for?")).to_be_focused()
    expect(page.locator(".card")).to_have_count(0)


def test_a_sentence_without_end_is_refused_before_it_is_sent(page: Page) -> None:
    page.goto("/")
    page.wait_for_selector("#examples li")
    search(page, "red " * 2500)
    expect(page.get_by_role("alert")).to_contain_text("9,999 characters; at most 2,000 are allowed")
    assert urlsplit(page.url).query == ""


def test_a_sentence_that_is_cut_off_says_what_is_not_read(page: Page) -> None:
    page.goto("/")
    search(page, "red " * 14 + "without a hat")
    expect(page.get_by_role("status")).to_contain_text("not read: “without a hat”")
    page.locator(".card").first.click()
    expect(page.locator(".words")).to_contain_text("(not read: without a hat)")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()  # then the focus is back where it was
    search(page, "red")
    expect(page.get_by_role("status")).to_have_text("Pictures 1 to 24 of 32 for “red”")


def test_after_a_refused_picture_another_can_be_chosen_at_once(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Choose a picture").focus()
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    expect(page.get_by_role("alert")).to_contain_text("not a picture")
    expect(page.get_by_role("button", name="Choose a picture")).to_be_focused()
    expect(page.locator("#examples")).to_be_visible()


def test_the_server_message_is_shown_for_an_address_that_it_refuses(page: Page) -> None:
    page.goto("/?q=" + "x" * 10_000)
    expect(page.get_by_role("alert")).to_contain_text("more than the 2000 allowed")
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()


def test_a_server_that_does_not_answer_can_be_tried_again(page: Page) -> None:
    page.goto("/")
    page.wait_for_selector("#examples li")
    page.route("**/api/search*", lambda route: route.abort())
    search(page, "red")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    page.unroute("**/api/search*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card")).to_have_count(24)
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_gallery_that_was_exchanged_meanwhile_is_introduced_again(page: Page) -> None:
    def outdated(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"version": "before", "size": 7})

    page.route("**/api/gallery", outdated, times=1)
    page.goto("/")
    expect(page.locator("#gallery-info")).to_contain_text("7 pictures")
    search(page, sentence("yellow"))
    expect(page.locator("#gallery-info")).to_contain_text("32 pictures")
    assert "v=before" not in (page.locator(".card img").first.get_attribute("src") or "")


def test_waiting_is_announced(page: Page) -> None:
    held: list[Route] = []
    page.goto("/")
    page.wait_for_selector("#examples li")
    page.route("**/api/search*", lambda route: held.append(route))
    search(page, "red")
    expect(page.get_by_role("status")).to_have_text("Searching…")
    expect(page.locator("#list")).to_have_attribute("aria-busy", "true")
    expect(page.locator(".placeholder").first).to_be_visible()
    held[0].continue_()
    expect(page.locator("#list")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("status")).to_have_text("Pictures 1 to 24 of 32 for “red”")


def test_markup_in_captions_file_names_and_queries_is_text(page: Page, engine: SearchEngine) -> None:
    page.goto("/")
    search(page, f"red {MARKUP}")
    marked = page.locator(f".card img[alt*='{MARKUP}']")
    expect(marked).to_have_count(1)
    marked.click()
    expect(page.locator("#about-result")).to_contain_text(MARKUP)
    expect(page.locator(".words")).to_contain_text("onerror")
    page.keyboard.press("Escape")
    data = picture(engine, f"{MARKUP}.png")
    page.set_input_files("#file", {"name": f"{MARKUP}.jpg", "mimeType": "image/jpeg", "buffer": data})
    expect(page.locator(".captions")).to_contain_text(MARKUP)
    assert page.locator("b, img[src=x]").count() == 0


def test_a_phone_scrolls_in_one_direction_only(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    for path in ("/", f"/?q={'long' * 100}", f"/?q={MARKUP}"):
        page.goto(path)
        page.wait_for_selector("#examples li, .card", state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator(".card").first.click()
    expect(page.locator(".words")).to_be_visible()
    dialog = page.locator("dialog")
    assert dialog.evaluate("dialog => dialog.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, address: str, scheme: str) -> None:
    with browser.new_context(base_url=address, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto("/")
        page.wait_for_selector("#examples li")
        low = page.evaluate(CONTRAST)
        search(page, "")
        low += page.evaluate(CONTRAST)
        search(page, "a person in pink")
        page.locator(".card").first.click()
        page.wait_for_selector(".words")
        low += page.evaluate(CONTRAST)
    assert low == []


def test_a_screen_reader_finds_landmarks_names_and_counts(page: Page) -> None:
    page.goto("/?q=red")
    expect(page.locator(".card")).to_have_count(24)
    expect(page.get_by_role("search")).to_be_visible()
    expect(page.get_by_role("main")).to_be_visible()
    expect(page.get_by_role("navigation", name="Pages of results")).to_be_visible()
    expect(page.get_by_role("region", name="Best matches").get_by_role("listitem")).to_have_count(24)
    name = re.compile(r"^Person 0, .*\.png rank \d score 0\.\d{3}$")
    expect(page.get_by_role("button", name=name)).to_have_count(4)


def test_the_first_tab_stop_skips_to_the_results(page: Page) -> None:
    page.goto("/?q=red")
    expect(page.locator(".card")).to_have_count(24)
    page.evaluate("document.activeElement.blur()")
    skip = page.get_by_role("link", name="Skip to the results")
    skip.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Best matches")).to_be_focused()
    assert urlsplit(page.url).fragment == ""
