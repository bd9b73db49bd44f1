// What is searched for, as the page's address says it: a sentence, a condition, whether each frame counts, a page.

/** What the address says. */
export function wanted() {
  const parameters = new URLSearchParams(location.search);
  return {
    q: parameters.get("q") ?? "",
    where: parameters.get("where") ?? "",
    everyFrame: parameters.get("every_frame") === "true",
    page: Math.max(1, Number.parseInt(parameters.get("page"), 10) || 1),
  };
}

/** The parameters of a search, for the server as for the address; those that are as usual are left out. */
export function parametersOf({ q, where = "", everyFrame = false, page = 1 }) {
  const parameters = new URLSearchParams({ q });
  if (where) parameters.set("where", where);
  if (everyFrame) parameters.set("every_frame", "true");
  if (page > 1) parameters.set("page", page);
  return parameters;
}

/** The address of a search on this page. */
export const addressOf = (search) => `/?${parametersOf(search)}`;
