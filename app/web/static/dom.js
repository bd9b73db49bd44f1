// Create and find elements. Captions, file names and queries are always inserted as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** Creates an element with attributes and children; strings among the children become text. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const number = (value) => value.toLocaleString("en");

/** "1 picture", "2 pictures". */
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

/** Text for screen readers only. */
export const hidden = (text) => element("span", { class: "visually-hidden" }, text);

export const score = (value) => value.toFixed(3);
