// Requests to the server. Errors carry the server's message and the id under which its log knows them.

const SILENT = "The server does not answer. Is `splatsense serve` still running?";

export class ApiError extends Error {
  constructor(message, status, id) {
    super(id && status >= 500 ? `${message} (${id})` : message);
    this.status = status;
  }
}

async function checked(response) {
  if (response.ok) return response.status === 204 ? null : response.json();
  const failure = await response.json().catch(() => null);
  throw new ApiError(failure?.error?.message ?? `The server answered ${response.status}.`, response.status, failure?.error?.id);
}

async function request(path, options) {
  try {
    return await checked(await fetch(`/api/${path}`, options));
  } catch (error) {
    if (error instanceof TypeError) throw new ApiError(SILENT, 0);
    throw error;
  }
}

/** Bytes and headers of a reply that is no JSON. */
export async function getBytes(path, signal) {
  try {
    const response = await fetch(`/api/${path}`, { signal });
    if (!response.ok) await checked(response);
    return { bytes: new Uint8Array(await response.arrayBuffer()), headers: response.headers };
  } catch (error) {
    if (error instanceof TypeError) throw new ApiError(SILENT, 0);
    throw error;
  }
}

export const get = (path, signal) => request(path, { signal });

export const post = (path, body, signal) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body ?? {}), signal });

export const remove = (path) => request(path, { method: "DELETE" });

export const sendFile = (method, path, file, signal) =>
  request(path, { method, headers: { "Content-Type": "application/octet-stream" }, body: file, signal });

export const thumbnail = (asset) => `/api/assets/${asset.id}/thumbnail?v=${asset.version}`;
