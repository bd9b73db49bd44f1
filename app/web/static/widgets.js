// What a column offers to choose from. Each widget has a `node`, and a `choice` as in condition.js to get and set.

import { element, hidden, number } from "./dom.js";

const INPUTS = {
  integer: { type: "number", step: "1" },
  number: { type: "number", step: "any" },
  datetime: { type: "datetime-local", step: "1" },
  date: { type: "date" },
  time: { type: "time", step: "1" },
};

/** The widget of a filter of the gallery; null if there is nothing to choose from. */
export function widgetOf(filter) {
  const { values, range, type } = filter;
  if (values) return values.length > 1 ? severalOf(filter) : null;
  if (range) return range[0] === range[1] ? null : between(filter);
  return type === "text" ? containing(filter) : null;
}

function severalOf({ name, values }) {
  const boxes = values.map(() => element("input", { type: "checkbox" }));
  const labels = values.map(({ value, count }, index) => {
    const text = element("span", value ? {} : { class: "quiet" }, value === null ? "not known" : value || "empty");
    return element("label", { class: "value" }, boxes[index],
      element("span", {}, text, " ", element("span", { class: "quiet" }, number(count), hidden(count === 1 ? " picture" : " pictures"))));
  });
  return {
    node: field(name, "", element("div", { class: "values" }, ...labels)),
    get choice() { return { values: values.filter((_, index) => boxes[index].checked).map(({ value }) => value) }; },
    set choice({ values: chosen = [] }) {
      boxes.forEach((box, index) => { box.checked = chosen.includes(values[index].value); });
    },
  };
}

function between({ name, type, range }) {
  const [from, to] = [0, 1].map(() => element("input", INPUTS[type]));
  const label = (text, input) => element("label", {}, element("span", { class: "quiet" }, text), input);
  return {
    node: field(name, range.map(rounded).join(" to "), label("from", from), label("to", to)),
    get choice() { return { from: readable(from.value), to: readable(to.value) }; },
    set choice(choice) { [from.value, to.value] = [writable(choice.from, type), writable(choice.to, type)]; },
  };
}

function containing({ name }) {
  const part = element("input", { type: "text", autocomplete: "off", spellcheck: "false" });
  return {
    node: field(name, "", element("label", {}, element("span", { class: "quiet" }, "contains"), part)),
    get choice() { return { contains: part.value }; },
    set choice({ contains = "" }) { part.value = contains; },
  };
}

function field(name, note, ...inputs) {
  const legend = element("legend", {}, name, ...(note ? [" ", element("span", { class: "quiet" }, note)] : []));
  return element("fieldset", {}, legend, ...inputs);
}

const rounded = (value) => (typeof value === "number" ? number(value) : readable(value));

// SQL writes a space between date and time where browsers want a T.
const readable = (value) => String(value).replace("T", " ");
const writable = (value = "", type) => (type === "datetime" ? value.replace(" ", "T") : value);
