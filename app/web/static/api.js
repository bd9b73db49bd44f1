// Requests to the server that this page came from.

/** An error message for the user; `temporary` if the same request may succeed later. */
export class Failure extends Error {
  constructor(message, temporary = false) {
    super(message);
    this.temporary = temporary;
  }
}

/** Returns the JSON of a response; throws Failure with the server's message, or AbortError if `options.signal` aborts. */
export async function request(path, options) {
  const response = await fetch(path, options).catch(unlessAborted(() => {
    throw new Failure("The server does not answer. Is it still running?", true);
  }));
  const body = await response.json().catch(unlessAborted(() => ({})));
  if (response.ok) return body;
  throw new Failure(sentence(body.error ?? `the server answered with status ${response.status}`), response.status >= 500);
}

function unlessAborted(handle) {
  return (error) => {
    if (error.name === "AbortError") throw error;
    return handle();
  };
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
