// The results of a search: a grid of pictures or a list of captions, and the links between pages.

import { addressOf } from "./address.js";
import { byId, count, element, hidden, number, score } from "./dom.js";
import { momentOf, spanOf } from "./moment.js";

const PLACEHOLDERS = 12;
const QUOTED = 60; // characters of a query that are repeated above its results
const QUOTED_CONDITION = 160;

/** The address of a picture; it changes with the gallery, so the browser may cache it forever. */
export const thumbnail = (gallery, row) => `/api/thumbnails/${row}?v=${gallery.version}`;

/** The text alternative of a picture. */
export const nameOf = (hit) => (hit.pid === null ? hit.path : `Person ${hit.pid}, ${hit.path}`);

/** What was searched for, as in address.js. */
export const searchOf = ({ query, where, every_frame: everyFrame }) => ({ q: query, where: where ?? "", everyFrame });

export function showHits(gallery, answer, open) {
  const first = (answer.page - 1) * answer.top + 1;
  heading("Best matches", answer.hits.length ? range(gallery, answer, first) : nothingOn(answer));
  if (answer.unread) byId("status").append(`\nThe sentence is longer than the model can read; not read: “${shortened(answer.unread)}”`);
  const cards = answer.hits.map((hit, index) => element("li", {}, card(gallery, hit, () => open(index))));
  byId("list").replaceChildren(element("ol", { class: "grid", start: first }, ...cards));
  showRemoval(answer);
  showPages(answer);
}

export function showCaptions(gallery, answer) {
  heading("Nearest captions", `${answer.captions.length} of ${count(gallery.captions, "caption")}, nearest first`);
  const items = answer.captions.map((hit) => {
    const link = element("a", { href: addressOf({ q: hit.caption }), "data-local": "" }, hit.caption);
    return element("li", {}, link, element("span", { class: "score" }, hidden("score "), score(hit.score)));
  });
  byId("list").replaceChildren(element("ol", { class: "captions" }, ...items));
  byId("removal").hidden = true;
  byId("pages").hidden = true;
}

export function showNothing() {
  byId("results-title").hidden = true;
  byId("status").textContent = "";
  byId("list").replaceChildren();
  byId("removal").hidden = true;
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

function range(gallery, answer, first) {
  const { hits, total, query, found = gallery.size } = answer;
  const all = total < found ? `the ${number(total)} best of ${number(found)}` : number(total);
  return `Pictures ${number(first)} to ${number(first + hits.length - 1)} of ${all} for “${shortened(query)}”`
    + frames(gallery, answer) + among(gallery, answer);
}

const shortened = (text, length = QUOTED) => (text.length > length ? `${text.slice(0, length).trimEnd()}…` : text);

function frames(gallery, { every_frame: everyFrame, found, pictures }) {
  if (!gallery.tracks || (!everyFrame && found === pictures)) return "";
  return everyFrame ? ", every frame" : ", the best of each track";
}

const among = (gallery, { where, pictures }) =>
  (where ? `, among ${number(pictures)} of ${count(gallery.size, "picture")} where ${shortened(where, QUOTED_CONDITION)}` : "");

function nothingOn({ total, page, where }) {
  if (total) return `There is no page ${page}; ${count(total, "picture")} were found`;
  return where ? `There is no picture where ${shortened(where, QUOTED_CONDITION)}` : "The gallery is empty";
}

function showRemoval(answer) {
  byId("removal").hidden = !answer.where;
  const link = element("a", { href: addressOf({ ...searchOf(answer), where: "" }), class: "button", "data-local": "" },
    "Remove the condition");
  byId("removal").replaceChildren(link);
}

function card(gallery, hit, open) {
  const [height, width] = gallery.image_size;
  const image = element("img", { src: thumbnail(gallery, hit.row), alt: nameOf(hit), width, height, decoding: "async" });
  const caption = element("span", { class: "caption" },
    element("span", { class: "rank" }, hidden("rank "), String(hit.rank)),
    element("span", { class: "score" }, hidden("score "), score(hit.score)));
  const button = element("button", { type: "button", class: "card", "data-row": hit.row }, image, caption, ...when(gallery, hit));
  button.addEventListener("click", open);
  return button;
}

function when({ footage, tracks }, { metadata, span }) {
  if (!footage && !tracks) return [];
  const lines = span ? [spanOf(span), count(span.pictures, "picture")] : [momentOf(metadata)];
  return lines.map((line) => element("span", { class: "when" }, line));
}

function showPages(answer) {
  const { page, top, total } = answer;
  const last = Math.max(1, Math.ceil(total / top));
  const link = (label, target, rel) =>
    element("a", { href: addressOf({ ...searchOf(answer), page: target }), rel, class: "button", "data-local": "" }, label);
  const current = element("span", { "aria-current": "page" }, `Page ${page} of ${last}`);
  const parts = page > last ? [] : [current];
  if (page > 1) parts.unshift(link("Previous", Math.min(page - 1, last), "prev"));
  if (page < last) parts.push(link("Next", page + 1, "next"));
  byId("pages").replaceChildren(...parts);
  byId("pages").hidden = last === 1 && page === 1;
}
