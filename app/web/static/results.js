// The results of a search: a grid of pictures or a list of captions, and the links between pages.

import { byId, count, element, number, score } from "./dom.js";

const PLACEHOLDERS = 12;
const QUOTED = 60; // characters of a query that are repeated above its results

/** The address of a search on this page. */
export const addressOf = (query, page = 1) => "/?" + new URLSearchParams(page > 1 ? { q: query, page } : { q: query });

/** The address of a picture; it changes with the gallery, so the browser may cache it forever. */
export const thumbnail = (gallery, row) => `/api/thumbnails/${row}?v=${gallery.version}`;

/** The text alternative of a picture. */
export const nameOf = (hit) => (hit.pid === null ? hit.path : `Person ${hit.pid}, ${hit.path}`);

export function showHits(gallery, answer, open) {
  const first = (answer.page - 1) * answer.top + 1;
  heading("Best matches", answer.hits.length ? range(gallery, answer, first) : nothingOn(answer));
  if (answer.unread) byId("status").append(`\nThe sentence is longer than the model can read; not read: “${shortened(answer.unread)}”`);
  const cards = answer.hits.map((hit, index) => element("li", {}, card(gallery, hit, () => open(index))));
  byId("list").replaceChildren(element("ol", { class: "grid", start: first }, ...cards));
  showPages(answer);
}

export function showCaptions(gallery, answer) {
  heading("Nearest captions", `${answer.captions.length} of ${count(gallery.captions, "caption")}, nearest first`);
  const items = answer.captions.map((hit) => {
    const link = element("a", { href: addressOf(hit.caption), "data-local": "" }, hit.caption);
    return element("li", {}, link, element("span", { class: "score" }, hidden("score "), score(hit.score)));
  });
  byId("list").replaceChildren(element("ol", { class: "captions" }, ...items));
  byId("pages").hidden = true;
}

export function showNothing() {
  byId("results-title").hidden = true;
  byId("status").textContent = "";
  byId("list").replaceChildren();
  byId("pages").hidden = true;
}

/** Shows grey boxes where pictures will be, unless earlier results are still shown. */
export function showPlaceholders() {
  if (byId("list").hasChildNodes()) return;
  const boxes = Array.from({ length: PLACEHOLDERS }, () => element("li", { class: "placeholder" }));
  byId("list").replaceChildren(element("ol", { class: "grid", "aria-hidden": "true" }, ...boxes));
}

function heading(title, status) {
  byId("results-title").hidden = false;
  byId("results-title").textContent = title;
  byId("status").textContent = status;
}

function range(gallery, { hits, total, query }, first) {
  const all = total < gallery.size ? `the ${number(total)} best of ${number(gallery.size)}` : number(total);
  return `Pictures ${number(first)} to ${number(first + hits.length - 1)} of ${all} for “${shortened(query)}”`;
}

const shortened = (text) => (text.length > QUOTED ? `${text.slice(0, QUOTED).trimEnd()}…` : text);

function nothingOn({ total, page }) {
  return total === 0 ? "The gallery is empty" : `There is no page ${page}; ${count(total, "picture")} were found`;
}

function card(gallery, hit, open) {
  const [height, width] = gallery.image_size;
  const image = element("img", { src: thumbnail(gallery, hit.row), alt: nameOf(hit), width, height, decoding: "async" });
  const caption = element("span", { class: "caption" },
    element("span", { class: "rank" }, hidden("rank "), String(hit.rank)),
    element("span", { class: "score" }, hidden("score "), score(hit.score)));
  const button = element("button", { type: "button", class: "card", "data-row": hit.row }, image, caption);
  button.addEventListener("click", open);
  return button;
}

function showPages({ query, page, top, total }) {
  const last = Math.max(1, Math.ceil(total / top));
  const link = (label, target, rel) =>
    element("a", { href: addressOf(query, target), rel, class: "button", "data-local": "" }, label);
  const current = element("span", { "aria-current": "page" }, `Page ${page} of ${last}`);
  const parts = page > last ? [] : [current];
  if (page > 1) parts.unshift(link("Previous", Math.min(page - 1, last), "prev"));
  if (page < last) parts.push(link("Next", page + 1, "next"));
  byId("pages").replaceChildren(...parts);
  byId("pages").hidden = last === 1 && page === 1;
}

const hidden = (text) => element("span", { class: "visually-hidden" }, text);
