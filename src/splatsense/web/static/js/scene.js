// What models see in a scene: likeness to a point, classes and instances, painted onto the Gaussians of the viewer.
import { get, getBytes, post, remove } from "./api.js";
import { dot, el } from "./dom.js";
import { isOver, watch } from "./jobs.js";

const MODES = [
  { name: "colors", label: "Colours" },
  { name: "similarity", label: "Similar to a point", what: "similarity" },
  { name: "classes", label: "Classes", what: "segmentation" },
  { name: "instances", label: "Instances", what: "segmentation" },
];
const SHOWN = 12; // entries of a legend before "all"

export class SceneTools {
  /** @param {HTMLElement} root  where the tools go; @param viewer  a Viewer that has loaded the asset */
  constructor(root, asset, viewer) {
    this.root = root;
    this.asset = asset;
    this.viewer = viewer;
    this.path = `assets/${asset.id}/scene`;
    this.mode = "colors";
    this.gaussian = -1;
    this.buttons = Object.fromEntries(MODES.map(({ name, label, what }) => [name, el("button", {
      type: "button", class: "quiet", "aria-pressed": String(name === "colors"), onclick: () => this.choose(name),
      disabled: what !== undefined, // until it is known whether there is a model
    }, label)]));
    const top = el("button", { type: "button", class: "quiet", "aria-pressed": "false", onclick: () => {
      const isCut = top.getAttribute("aria-pressed") !== "true";
      top.setAttribute("aria-pressed", String(isCut));
      viewer.cut(isCut);
    } }, "Cut the top off");
    this.status = el("p", { class: "muted", role: "status" });
    this.bar = el("progress", { max: 1, hidden: true, "aria-label": "Progress of the computation" });
    this.cancel = el("button", { type: "button", class: "text", hidden: true }, "Cancel");
    this.legend = el("div", { class: "scene-legend" });
    root.replaceChildren(
      el("div", { class: "scene-modes" },
        el("div", { class: "segments", role: "group", "aria-label": "What the colours show" }, Object.values(this.buttons)), top),
      el("div", { class: "row scene-progress" }, this.bar, this.cancel), this.status, this.legend);
    this.onClasses = () => {}; // told what is in the scene as soon as that is known
    viewer.onPick = (gaussian) => this.picked(gaussian).catch((error) => this.failed(error, this.mode));
  }

  /** Ask what can be shown, and say why the rest cannot. */
  async start() {
    try {
      this.about = await get(this.path);
    } catch (error) {
      this.say(error.message, true);
      return;
    }
    if (this.closed) return;
    for (const { name, what } of MODES) if (what) this.buttons[name].disabled = this.about[what].reason !== "";
    const reasons = new Set(["similarity", "segmentation"].map((what) => this.about[what].reason).filter(Boolean));
    const off = [...reasons].join(" ");
    if (off) {
      this.reason = el("p", { class: "muted", id: "scene-off" }, off);
      this.root.append(this.reason);
      for (const button of Object.values(this.buttons)) if (button.disabled) button.setAttribute("aria-describedby", "scene-off");
    }
    const running = ["similarity", "segmentation"].find((what) => this.about[what].job);
    if (this.about.segmentation.ready) get(`${this.path}/legend`).then(({ classes }) => this.onClasses(classes), () => {});
    if (running) this.choose(running === "similarity" ? "similarity" : "classes");
  }

  close() {
    this.closed = true;
    this.stop?.();
  }

  /** Show one of the modes; compute first what it needs. */
  async choose(name) {
    const { what } = MODES.find((mode) => mode.name === name);
    const chosen = this.chosen = Symbol(name);
    this.stop?.();
    this.progress(null);
    this.mode = name;
    for (const [key, button] of Object.entries(this.buttons)) button.setAttribute("aria-pressed", String(key === name));
    this.legend.replaceChildren();
    this.say("");
    this.viewer.mark(-1);
    this.viewer.aim(what !== undefined);
    try {
      if (!what) this.viewer.paint();
      else if (await this.ready(what, chosen)) await this.show(name);
    } catch (error) {
      if (this.chosen === chosen) await this.failed(error, name);
    }
  }

  /** Say what went wrong; what was computed and is gone since is computed again. */
  async failed(error, name) {
    const { what } = MODES.find((mode) => mode.name === name);
    if (error.status === 409 && this.about[what].ready) {
      this.about[what].ready = false;
      await this.choose(name);
    } else this.say(error.message, true);
  }

  async show(name) {
    if (name === "similarity") {
      if (this.gaussian >= 0) await this.picked(this.gaussian);
      else {
        this.viewer.paint();
        this.say("Click a point. Or turn the view until the cross in its middle is on it, and press Enter.");
      }
      return;
    }
    const [{ bytes }, legend] = await Promise.all([getBytes(`${this.path}/labels/${name}`), get(`${this.path}/legend`)]);
    this.onClasses(legend.classes);
    if (this.mode !== name || this.closed) return;
    this.viewer.paint(bytes);
    this.list(name === "classes"
      ? legend.classes.map((one) => [one.color, one.name, `${(100 * one.share).toFixed(1)} %`])
      : legend.instances.map((one) => [one.color, one.class, one.score.toFixed(2)]), name);
    this.say("Click a point to learn what it is. Or turn the view until the cross in its middle is on it, and press Enter.");
  }

  /** A Gaussian was chosen in the view. */
  async picked(gaussian) {
    const { mode } = this, { what } = MODES.find(({ name }) => name === mode);
    if (gaussian < 0 || !what || !this.about[what].ready) return;
    const asked = this.asked = Symbol(gaussian);
    const isLate = () => this.closed || this.mode !== mode || this.asked !== asked; // another point or mode was chosen since
    try {
      if (mode === "similarity") {
        const { bytes, headers } = await getBytes(`${this.path}/similarity?gaussian=${gaussian}`);
        if (isLate()) return;
        this.gaussian = gaussian;
        this.viewer.paint(bytes);
        this.legend.replaceChildren(heat(headers.get("X-Darkest")));
        this.say("Yellow is like the marked point, blue is not.");
      } else {
        const found = await get(`${this.path}/label?gaussian=${gaussian}`);
        if (isLate()) return;
        const instance = found.instance === null ? "no instance" : `instance ${found.instance + 1}`;
        this.say(`${found.class}, ${Math.round(100 * found.confidence)} % sure${mode === "instances" ? `, ${instance}` : ""}.`);
      }
      this.viewer.mark(gaussian);
    } catch (error) {
      if (isLate()) return;
      if (error.status === 409) throw error;
      this.say(error.message, true);
    }
  }

  /** Whether what a mode needs is computed and the mode is still wanted; computes it, with progress, unless it is. */
  async ready(what, chosen) {
    if (this.about[what].ready) return true;
    const job = await post(this.path, { what });
    if (this.closed || this.chosen !== chosen) return false; // it is computed all the same
    this.progress(job);
    const state = await new Promise((done) => {
      this.stop = watch(job.id, (now) => { if (isOver(now)) done(now); else this.progress(now); });
    });
    if (this.closed || this.chosen !== chosen) return false;
    this.progress(null);
    this.about[what].ready = state.status === "done";
    if (state.status === "done") return true;
    this.say(state.status === "cancelled" ? "Cancelled." : state.message, state.status === "failed");
    return false;
  }

  progress(job) {
    this.bar.hidden = this.cancel.hidden = job === null;
    if (job === null) return;
    if (job.total) this.bar.value = job.done / job.total;
    else this.bar.removeAttribute("value");
    this.say(job.status === "waiting" ? "Waiting for another scene…" : job.status === "cancelling" ? "Stopping…" : `${job.current || "Starting"}…`);
    this.cancel.disabled = job.status === "cancelling";
    this.cancel.onclick = () => {
      this.cancel.disabled = true;
      remove(`jobs/${job.id}`).catch((error) => this.say(error.message, true));
    };
  }

  list(entries, name) {
    const items = entries.map(([tint, label, value], index) => el("li", { hidden: index >= SHOWN }, dot(tint), label, el("span", { class: "muted" }, value)));
    const list = el("ul", { class: "keys", "aria-label": name }, items);
    const all = entries.length > SHOWN && el("button", { type: "button", class: "text", onclick: () => {
      for (const item of items) item.hidden = false;
      items[SHOWN].tabIndex = -1;
      items[SHOWN].focus(); // the button goes
      all.remove();
    } }, `All ${entries.length}`);
    this.legend.replaceChildren(...[entries.length ? list : el("p", {}, `No ${name} were found.`), all].filter(Boolean));
  }

  say(message, isError = false) {
    if (this.closed || (!isError && this.status.textContent === message)) return; // said once, however often it is reported
    this.status.replaceChildren(isError ? el("span", { class: "error" }, message) : message);
  }
}

const heat = (darkest) => el("div", { class: "heat" },
  el("span", { class: "muted" }, `≤ ${Number(darkest).toFixed(2)}`), el("span", { class: "ramp" }),
  el("span", { class: "muted" }, "1.00"), el("span", { class: "hidden" }, "cosine of the features"));
