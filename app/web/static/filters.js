// The filters of a gallery with metadata: choices that write a condition, which can also be written by hand.

import { read, write } from "./condition.js";
import { byId } from "./dom.js";
import { widgetOf } from "./widgets.js";

export class Filters {
  #filters = [];
  #widgets = [];
  #offered = false;

  /** Calls `onChange` whenever `condition` has another value. */
  constructor(onChange) {
    const field = byId("where");
    byId("choices").addEventListener("input", () => { this.#write(); onChange(); });
    field.addEventListener("input", () => { this.#read(); onChange(); });
    byId("every-frame").addEventListener("change", onChange);
    byId("clear").addEventListener("click", () => {
      field.value = "";
      this.#read();
      onChange();
      field.focus();
    });
  }

  /** What is wanted beside the sentence: parts of a search as in address.js. */
  get condition() {
    return this.#offered ? { where: byId("where").value.trim(), everyFrame: byId("every-frame").checked } : {};
  }

  /** Offers what the gallery has; without metadata, nothing. */
  offer({ filters, tracks = false }) {
    this.#offered = Boolean(filters);
    byId("filters").hidden = !filters;
    byId("every-frame-choice").hidden = !tracks;
    const offered = (filters ?? []).map((filter) => ({ filter, widget: widgetOf(filter) })).filter(({ widget }) => widget);
    this.#filters = offered.map(({ filter }) => filter);
    this.#widgets = offered.map(({ widget }) => widget);
    byId("choices").replaceChildren(...this.#widgets.map(({ node }) => node));
  }

  /** Shows a condition; opens if there is one. */
  show({ where, everyFrame }) {
    byId("where").value = where;
    byId("every-frame").checked = everyFrame;
    if (where || everyFrame) byId("filters").open = true;
    this.#read();
  }

  /** Writes the condition that the choices mean. */
  #write() {
    byId("where").value = this.#written();
    byId("by-hand").hidden = true;
  }

  /** Makes the choices say what the condition says; if they cannot, they are reset. */
  #read() {
    const condition = byId("where").value.trim();
    this.#choose(read(this.#filters, condition));
    const same = this.#written() === condition;
    if (!same) this.#choose(this.#filters.map(() => ({})));
    byId("by-hand").hidden = same;
  }

  #choose(choices) {
    this.#widgets.forEach((widget, index) => { widget.choice = choices[index]; });
  }

  #written() {
    return write(this.#filters, this.#widgets.map((widget) => widget.choice));
  }
}
