// What is known of a result: its score, its file and its metadata.

import { addressOf } from "./address.js";
import { count, element, score } from "./dom.js";
import { spanOf } from "./moment.js";
import { searchOf } from "./results.js";

const DIGITS = 6; // more would show how the number is stored

/** Facts about a result: pairs of a name and what is under it, as text or nodes. */
export function aboutOf(answer, hit) {
  const { pid, path, span } = hit;
  const facts = [["Score", score(hit.score)], ["File", path]];
  if (pid !== null) facts.splice(1, 0, ["Person", String(pid)]);
  if (span) facts.push(["Seen", `${spanOf(span)}, in ${count(span.pictures, "picture")}`, ...everyFrame(answer, hit)]);
  return facts;
}

/** The metadata of a result, as facts. */
export function knownOf(gallery, { metadata = {} }) {
  const types = new Map(gallery.filters?.map(({ name, type }) => [name, type]));
  return Object.entries(metadata).map(([name, value]) => [name, text(value, types.get(name))]);
}

function text(value, type) {
  if (value === null) return "–";
  if (type === "number") return String(Number(value.toPrecision(DIGITS)));
  return type === "datetime" ? value.replace("T", " ") : String(value);
}

/** A link to all pictures of the track of a result. */
function everyFrame(answer, { span, metadata }) {
  if (span.pictures === 1) return [];
  const search = searchOf(answer);
  const track = `track = '${String(metadata.track).replaceAll("'", "''")}'`;
  const where = search.where ? `(${search.where}) and ${track}` : track;
  const href = addressOf({ ...search, where, everyFrame: true });
  return [" ", element("a", { href, "data-local": "" }, "Show every frame")];
}
