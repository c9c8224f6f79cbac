// Reading the REST API: a typed error with the server's own sentence, and one retry when only the network failed.

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** GET `path` with `query` (empty values are left out) as JSON. */
export async function read(path, query = {}) {
  const url = new URL(path, location.href);
  for (const [key, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(key, value);
  }
  const answer = await get(url).catch(() => get(url));
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ApiError(body.detail ?? `The server answered ${answer.status}.`, answer.status);
  return body;
}

function get(url) {
  return fetch(url, { headers: { Accept: "application/json" }, credentials: "same-origin" });
}

/** The JSON that the page carries in `<script type="application/json" id=…>`. */
export function carried(id) {
  return JSON.parse(document.getElementById(id).textContent);
}
