// Requests to the server. Errors carry the server's message and the id under which its log knows them.

const SILENT = "The server does not answer. Is `splatsense serve` still running?";

export class ApiError extends Error {
  constructor(message, status, id) {
    super(id && status >= 500 ? `${message} (${id})` : message);
    this.status = status;
  }
}

/** What `read` takes from the reply to a request. */
async function request(path, options, read = json) {
  try {
    const response = await fetch(`/api/${path}`, options);
    if (response.ok) return await read(response);
    const failure = await response.json().catch(() => null);
    throw new ApiError(failure?.error?.message ?? `The server answered ${response.status}.`, response.status, failure?.error?.id);
  } catch (error) {
    if (error instanceof TypeError) throw new ApiError(SILENT, 0);
    throw error;
  }
}

const json = (response) => (response.status === 204 ? null : response.json());

/** Bytes and headers of a reply that is no JSON. */
export const getBytes = (path, signal) => request(path, { signal },
  async (response) => ({ bytes: new Uint8Array(await response.arrayBuffer()), headers: response.headers }));

export const get = (path, signal) => request(path, { signal });

export const post = (path, body, signal) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body ?? {}), signal });

export const remove = (path) => request(path, { method: "DELETE" });

export const sendFile = (method, path, file, signal) =>
  request(path, { method, headers: { "Content-Type": "application/octet-stream" }, body: file, signal });

export const thumbnail = (asset) => `/api/assets/${asset.id}/thumbnail?v=${asset.version}`;
