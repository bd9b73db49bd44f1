// What is known of a result: its score, its file and its metadata.

import { addressOf } from "./address.js";
import { count, element, score } from "./dom.js";
import { spanOf } from "./moment.js";
import { searchOf } from "./results.js";

/** Pairs of a name and what is known under it, as text or nodes. */
export function factsOf(gallery, answer, hit) {
  const types = new Map((gallery.filters ?? []).map(({ name, type }) => [name, type]));
  return [
    ["Score", score(hit.score)],
    ...(hit.pid === null ? [] : [["Person", String(hit.pid)]]),
    ["File", hit.path],
    ...(hit.span ? [["Seen", `${spanOf(hit.span)}, in ${count(hit.span.pictures, "picture")}`, ...frames(gallery, answer, hit)]] : []),
    ...Object.entries(hit.metadata ?? {}).map(([name, value]) => [name, text(value, types.get(name))]),
  ];
}

function text(value, type) {
  if (value === null) return "–";
  return type === "datetime" ? value.replace("T", " ") : String(value);
}

/** A link to all pictures of the track of a result. */
function frames(gallery, answer, { span, metadata }) {
  if (span.pictures === 1) return [];
  const search = searchOf(answer);
  const track = `track = '${metadata.track.replaceAll("'", "''")}'`;
  const where = search.where ? `(${search.where}) and ${track}` : track;
  const href = addressOf({ ...search, where, everyFrame: true });
  return [" ", element("a", { href, "data-local": "" }, "Show every frame")];
}
