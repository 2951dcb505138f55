// How far jobs of the server are: one stream of events for all that are watched, since a browser opens six connections at most.

export const isOver = (job) => ["done", "cancelled", "failed"].includes(job.status);

const SILENT = "The server does not answer any more.";
const watched = new Map(); // id of a job -> who wants to know its states
let events = null;

/**
 * Follow a job until it is over.
 * @param {(state: object) => void} changed  called with each state
 * @returns {() => void} ends it before
 */
export function watch(id, changed) {
  watched.set(id, changed);
  listen();
  return () => {
    if (watched.get(id) !== changed) return;
    watched.delete(id);
    listen();
  };
}

function listen() {
  events?.close();
  events = null;
  if (watched.size === 0) return;
  const opened = events = new EventSource(`/api/jobs/events?${new URLSearchParams([...watched.keys()].map((id) => ["id", id]))}`);
  opened.addEventListener("message", (event) => tell(JSON.parse(event.data)));
  opened.addEventListener("error", () => {
    if (opened.readyState !== EventSource.CLOSED) return; // it connects again
    for (const id of [...watched.keys()]) tell({ id, status: "failed", message: SILENT });
  });
}

function tell(state) {
  const changed = watched.get(state.id);
  if (!changed) return;
  if (isOver(state)) {
    watched.delete(state.id);
    if (watched.size === 0) listen();
  }
  changed(state);
}
