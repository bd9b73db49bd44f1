// A dialog that shows one result in detail, and why it was found.

import { request } from "./api.js";
import { byId, element } from "./dom.js";
import { aboutOf, knownOf } from "./facts.js";
import { drawHeat } from "./heat.js";
import { nameOf, thumbnail } from "./results.js";
import { showScene } from "./scene.js";

const CAVEAT = "This is an aid to understanding, not a proof. It shows what this model's score reacts to most, "
  + "which may differ from what a person would look at.";

export class Details {
  #answer;
  #index = 0;
  #gallery;
  #explaining = new AbortController();

  constructor() {
    this.dialog = byId("details");
    byId("previous").addEventListener("click", () => this.#step(-1));
    byId("next").addEventListener("click", () => this.#step(1));
    byId("close").addEventListener("click", () => this.close());
    byId("show-heat").addEventListener("change", (event) => { byId("heat").hidden = !event.target.checked; });
    this.dialog.addEventListener("keydown", (event) => this.#onKey(event));
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.close(); });
    this.dialog.addEventListener("close", () => this.#returnFocus());
  }

  open(gallery, answer, index) {
    [this.#gallery, this.#answer] = [gallery, answer];
    this.dialog.showModal();
    this.#show(index);
    byId("details-title").focus();
  }

  close() {
    this.dialog.close();
  }

  #onKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) this.#step(step);
  }

  #step(step) {
    const index = this.#index + step;
    if (index >= 0 && index < this.#answer.hits.length) this.#show(index);
  }

  #show(index) {
    this.#index = index;
    const hit = this.#answer.hits[index];
    byId("details-title").textContent = `Result ${hit.rank}`;
    // aria-disabled, because a disabled button loses the focus
    byId("previous").setAttribute("aria-disabled", index === 0);
    byId("next").setAttribute("aria-disabled", index === this.#answer.hits.length - 1);
    this.#showPicture(hit);
    list(byId("about-result"), aboutOf(this.#answer, hit));
    list(byId("known"), knownOf(this.#gallery, hit));
    showScene(this.#gallery, hit);
    this.#explain(hit);
  }

  #showPicture(hit) {
    const [height, width] = this.#gallery.image_size;
    const image = byId("large");
    image.src = thumbnail(this.#gallery, hit.row);
    image.alt = nameOf(hit);
    [image.width, image.height] = [width, height];
    const heat = byId("heat");
    heat.getContext("2d").clearRect(0, 0, heat.width, heat.height);
  }

  async #explain(hit) {
    this.#explaining.abort();
    this.#explaining = new AbortController();
    const why = byId("why");
    why.replaceChildren(element("p", { class: "quiet" }, "Finding out why…"));
    try {
      const parameters = new URLSearchParams({ q: this.#answer.query, row: hit.row, v: this.#gallery.version });
      const explanation = await request(`/api/explain?${parameters}`, { signal: this.#explaining.signal });
      const where = drawHeat(byId("heat"), explanation.heat);
      why.replaceChildren(...reasons(explanation, where));
    } catch (error) {
      if (error.name !== "AbortError") why.replaceChildren(element("p", { class: "error" }, error.message));
    }
  }

  #returnFocus() {
    this.#explaining.abort();
    document.querySelector(`[data-row="${this.#answer.hits[this.#index].row}"]`)?.focus();
  }
}

/** Shows facts in a list, which is hidden if there are none. */
function list(node, facts) {
  node.replaceChildren(...facts.flatMap(([name, ...parts]) => [element("dt", {}, name), element("dd", {}, ...parts)]));
  node.hidden = !facts.length;
}

function reasons({ words, unread }, where) {
  const shaded = words.flatMap(({ word, importance }) => {
    const span = element("span", { class: "word" }, word);
    span.style.setProperty("--importance", importance.toFixed(3));
    return [span, " "];
  });
  const legend = element("p", { class: "legend", "aria-hidden": "true" },
    "less ", element("span", { class: "scale" }), " more");
  return [
    element("p", { class: "words" }, ...shaded, ...(unread ? [element("span", { class: "quiet" }, `(not read: ${unread})`)] : [])),
    legend,
    element("p", {}, `${strongest(words)} In the picture, ${where}.`),
    element("p", { class: "quiet" }, CAVEAT),
  ];
}

/** Names up to three of the most important words, if their importance is at least a quarter of the maximum. */
function strongest(words) {
  const ranked = words.filter(({ importance }) => importance >= 0.25).sort((a, b) => b.importance - a.importance);
  const named = ranked.slice(0, 3).map(({ word }) => `“${word}”`).join(", ");
  return named ? `The words that counted most: ${named}.` : "No word stands out.";
}
