// Conditions in SQL that choices write, and from which choices can be read again.
//
// The choice of a column is an object with `values` (texts; null stands for no value), `from`, `to` or `contains`.

const BARE = new Set(["boolean", "integer", "number"]);
const LITERAL = "(?:'(?:[^']|'')*'|[^\\s,()']+)";

/** Writes the condition that holds where all choices do; `choices` are in the order of `filters`. */
export function write(filters, choices) {
  return filters.flatMap((filter, index) => clauses(filter, choices[index])).join(" and ");
}

/** Reads choices from what `write` has written; from another condition, such as would be written otherwise. */
export function read(filters, condition) {
  let rest = condition;
  return filters.map(({ sql }) => {
    for (const [pattern, choice] of forms(sql.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))) {
      const found = new RegExp(`^${pattern}(?: and |$)`).exec(rest);
      if (!found) continue;
      rest = rest.slice(found[0].length);
      return choice(...found.slice(1));
    }
    return {};
  });
}

function clauses({ sql, type }, { values = [], from = "", to = "", contains = "" }) {
  const literal = (text) => (BARE.has(type) ? text : quoted(text));
  const known = values.filter((value) => value !== null).map(literal);
  const either = [];
  if (known.length) either.push(`${sql} in (${known.join(", ")})`);
  if (values.includes(null)) either.push(`${sql} is null`);
  const all = either.length > 1 ? [`(${either.join(" or ")})`] : either;
  if (from) all.push(`${sql} >= ${literal(from)}`);
  if (to) all.push(`${sql} <= ${literal(to)}`);
  if (contains) all.push(`${sql} ilike ${quoted(`%${contains.replace(/[\\%_]/g, "\\$&")}%`)}`);
  return all;
}

/** What `clauses` can write of a column: pairs of a pattern and the choice that its groups mean. */
function forms(name) {
  const among = `${name} in \\((${LITERAL}(?:, ${LITERAL})*)\\)`;
  return [
    [`\\(${among} or ${name} is null\\)`, (list) => ({ values: [...literals(list), null] })],
    [among, (list) => ({ values: literals(list) })],
    [`${name} is null`, () => ({ values: [null] })],
    [`${name} >= (${LITERAL}) and ${name} <= (${LITERAL})`, (from, to) => ({ from: unquoted(from), to: unquoted(to) })],
    [`${name} >= (${LITERAL})`, (from) => ({ from: unquoted(from) })],
    [`${name} <= (${LITERAL})`, (to) => ({ to: unquoted(to) })],
    [`${name} ilike (${LITERAL})`, (pattern) => ({ contains: unquoted(pattern).slice(1, -1).replace(/\\(.)/g, "$1") })],
  ];
}

const literals = (list) => list.match(new RegExp(LITERAL, "g")).map(unquoted);
const quoted = (text) => `'${text.replaceAll("'", "''")}'`;
const unquoted = (literal) => (literal.startsWith("'") ? literal.slice(1, -1).replaceAll("''", "'") : literal);
