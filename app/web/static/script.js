// The page. It always shows what its address says, so that links, reloading, Back and Forward work.

import { addressOf, parametersOf, wanted } from "./address.js";
import { Failure, request } from "./api.js";
import { Details } from "./details.js";
import { byId, count, element, number } from "./dom.js";
import { Filters } from "./filters.js";
import { onPicture, preview } from "./pictures.js";
import { showCaptions, showHits, showNothing, showPlaceholders } from "./results.js";

const PAGE_SIZE = 24;
const PATIENCE = 250; // milliseconds before the page shows that it is waiting
const TITLE = document.title;

const box = byId("query");
const details = new Details();
const filters = new Filters(linkExamples);
const chosen = []; // pictures of this visit; they have no address, so the history refers to them by number
let gallery = null;
let running = new AbortController();

/** Shows what the address and the history say. */
async function show() {
  const search = wanted();
  const picture = chosen[history.state?.picture];
  details.close();
  box.value = search.q;
  document.title = search.q ? `${search.q} – ${TITLE}` : TITLE;
  byId("uploaded").hidden = true;
  showFilters();
  await attempt(async (signal) => {
    gallery ??= await loadGallery(signal);
    byId("examples").hidden = Boolean(search.q || picture);
    if (picture) await searchByPicture(picture, signal);
    else if (search.q) await searchByQuery(search, signal);
    else showNothing();
  });
}

async function searchByQuery(search, signal) {
  const answer = await request(`/api/search?${parametersOf(search)}&top=${PAGE_SIZE}`, { signal });
  if (answer.gallery !== gallery.version) gallery = await loadGallery(signal); // the server has a new index
  showHits(gallery, answer, (index) => details.open(gallery, answer, index));
}

async function searchByPicture(picture, signal) {
  if (!gallery.captions) throw new Failure("This gallery has no captions, so you cannot search with a picture.");
  if (picture.size > gallery.max_upload_bytes)
    throw new Failure(`The picture is larger than ${gallery.max_upload_bytes / 1e6} MB.`);
  const body = new FormData();
  body.append("picture", picture);
  const [answer] = await Promise.all([request("/api/captions", { method: "POST", body, signal }), preview(picture, signal)]);
  showCaptions(gallery, answer);
}

/** Aborts earlier work and runs `work`; shows on the page that it is waiting, and any failure. */
async function attempt(work) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  complain("");
  byId("list").setAttribute("aria-busy", "true");
  const waiting = setTimeout(() => { byId("status").textContent = "Searching…"; showPlaceholders(); }, PATIENCE);
  try {
    await work(signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Failure)) throw error;
    showNothing();
    byId("uploaded").hidden = true;
    byId("examples").hidden = !gallery;
    complain(error.message, error.temporary);
  } finally {
    clearTimeout(waiting);
    if (!signal.aborted) byId("list").setAttribute("aria-busy", "false");
  }
}

function complain(message, canRetry = false) {
  const retry = element("button", { type: "button" }, "Try again");
  retry.addEventListener("click", show);
  byId("problem").replaceChildren(...(message ? [element("p", {}, message), ...(canRetry ? [retry] : [])] : []));
  box.removeAttribute("aria-invalid");
}

/** Loads the description of the gallery, and shows it on the page. */
async function loadGallery(signal) {
  const description = await request("/api/gallery", { signal });
  byId("picture-search").hidden = !description.captions;
  byId("no-captions").hidden = Boolean(description.captions);
  byId("gallery-info").textContent = [count(description.size, "picture"), count(description.captions, "caption"),
    `${description.kind} search`, `model ${description.model.slice(0, 8)}`].join(" · ");
  byId("caveat").hidden = !description.filters;
  const links = description.examples.map((text) => element("a", { "data-local": "" }, text));
  byId("examples").querySelector("ul").replaceChildren(...links.map((link) => element("li", {}, link)));
  filters.offer(description);
  showFilters();
  return description;
}

function showFilters() {
  filters.show(wanted());
  linkExamples();
}

/** Makes the examples search under the condition that is shown. */
function linkExamples() {
  for (const link of byId("examples").querySelectorAll("a"))
    link.href = addressOf({ q: link.textContent, ...filters.condition });
}

/** Goes to another address of this page; the focus moves to the results, unless the user is typing on a keyboard. */
async function go(address, state = null) {
  history.pushState(state, "", address);
  await show();
  if (document.activeElement === box && matchMedia("(pointer: fine)").matches) return;
  if (!byId("problem").hasChildNodes()) toResults(); // after a failure, the focus stays where the user tries again
}

function toResults() {
  const results = byId("results"), title = byId("results-title");
  (title.hidden ? results : title).focus({ preventScroll: true });
  const { top } = results.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) results.scrollIntoView();
}

function choose(picture) {
  if (picture) go("/", { picture: chosen.push(picture) - 1 });
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = box.value.trim();
  const problem = problemOf(query);
  if (!problem) return go(addressOf({ q: query, ...filters.condition }));
  complain(problem);
  box.setAttribute("aria-invalid", "true");
  box.focus();
});

/** Checks a sentence before it becomes an address; returns what is wrong with it, or "". */
function problemOf(query) {
  if (!query) return "Describe somebody first: hair, clothes, shoes, a bag.";
  const [length, limit] = [[...query].length, gallery?.max_query_characters ?? Infinity];
  return length > limit ? `That is too long: ${number(length)} characters; at most ${number(limit)} are allowed.` : "";
}

byId("search").addEventListener("keydown", (event) => {
  if (event.target.tagName !== "TEXTAREA" || event.key !== "Enter") return;
  if (event.shiftKey || event.isComposing) return; // while composing, Enter picks a character
  event.preventDefault();
  byId("search").requestSubmit();
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-local]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});

onPicture(choose);

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // an address with # would add a page to the history
  toResults();
});

addEventListener("popstate", show);
show();
