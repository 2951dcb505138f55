// The map: every asset as a point, similar ones close together. Drag to move, wheel or pinch to zoom, click to open.
import { get, thumbnail } from "./api.js";
import { byId, count, dot, el, notice } from "./dom.js";
import { color } from "./theme.js";

const TAG_COLORS = ["#3b7dd8", "#d9822b", "#3a9e6e", "#b8559b", "#8a6fd1", "#c2504f", "#2f9fb0", "#9a8b2f"];
const OTHERS = "#8b94a1";
const PICTURES = 120; // fewest points in sight for which points, not pictures, are drawn
const MARGIN = 56, NARROW = 0.1; // pixels around all points, at most this share of the width or height
const NEAR = 16; // pixels between the pointer and a point that it means

export class MapPage {
  constructor() {
    this.root = byId("page-map");
    this.pictures = new Map();
    document.addEventListener("theme", () => this.draw());
    addEventListener("resize", () => this.resize());
  }

  async open() {
    document.title = "Map · SplatSense";
    this.canvas = el("canvas", {
      tabindex: 0, role: "application",
      "aria-label": "Map of the library. Arrow keys go to the next asset in a direction, plus and minus zoom, Enter opens.",
    });
    this.tip = el("div", { class: "tip", hidden: true });
    this.said = el("p", { class: "hidden", role: "status" });
    this.legend = el("ul", { class: "legend", "aria-label": "Colours of the tags" });
    this.status = el("p", { class: "status", role: "status" }, "Loading the map…");
    this.root.replaceChildren(el("div", { class: "map" }, this.canvas, this.tip), this.legend, this.status, this.said);
    try {
      this.points = await get("map");
    } catch (error) {
      this.root.replaceChildren(notice(error.message, true));
      return;
    }
    this.view = this.whole();
    this.selected = -1;
    this.hidden = new Set();
    this.colorTags();
    const number = this.points.ids.length;
    if (number === 0) {
      this.root.replaceChildren(notice("This library is empty."));
      return;
    }
    this.status.textContent = `${count(number, "asset")} by similarity: the embeddings on their two directions of largest variance.`;
    this.listen();
    this.resize();
  }

  colorTags() {
    const frequency = new Map();
    for (const tag of this.points.tag) frequency.set(tag, (frequency.get(tag) ?? 0) + 1);
    const top = [...frequency].sort((a, b) => b[1] - a[1]).slice(0, TAG_COLORS.length).map(([tag]) => tag);
    this.colors = new Map(top.map((tag, index) => [tag, TAG_COLORS[index]]));
    const entry = (name, swatch, key) => {
      const button = el("button", {
        type: "button", class: "swatch", "aria-pressed": "true",
        onclick: () => {
          const shown = this.hidden.delete(key) || !this.hidden.add(key);
          button.setAttribute("aria-pressed", String(shown));
          this.draw();
        },
      }, dot(swatch), name);
      return el("li", {}, button);
    };
    const entries = top.map((tag) => entry(this.points.labels[tag], this.colors.get(tag), tag));
    if (frequency.size > top.length) entries.push(entry("others", OTHERS, "others"));
    this.legend.replaceChildren(...entries);
  }

  isShown(index) {
    const tag = this.points.tag[index];
    return !this.hidden.has(this.colors.has(tag) ? tag : "others");
  }

  resize() {
    if (!this.canvas?.isConnected || !this.points) return;
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    const ratio = devicePixelRatio;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.size = { width, height, ratio };
    this.draw();
  }

  /** The view that has every point in it: its middle, and half of what it spans. */
  whole() {
    const axis = (values) => {
      let low = Infinity, high = -Infinity;
      for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
      return high > low ? [(low + high) / 2, (high - low) / 2] : [values[0] ?? 0, 1];
    };
    const [[x, spanX], [y, spanY]] = [axis(this.points.x), axis(this.points.y)];
    return { x, y, spanX, spanY, zoom: 1 };
  }

  /** Pixels of a step of 1 along each axis. */
  scale() {
    const { width, height } = this.size, { spanX, spanY, zoom } = this.view;
    const half = (side) => Math.max(80, side / 2 - Math.min(MARGIN, NARROW * side));
    return [zoom * half(width) / spanX, zoom * half(height) / spanY];
  }

  /** Where a point is drawn, in CSS pixels. */
  place(index) {
    const [scaleX, scaleY] = this.scale();
    return [
      this.size.width / 2 + (this.points.x[index] - this.view.x) * scaleX,
      this.size.height / 2 - (this.points.y[index] - this.view.y) * scaleY,
    ];
  }

  draw() {
    if (!this.canvas?.isConnected || !this.size || this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.paint();
    });
  }

  paint() {
    const { width, height, ratio } = this.size;
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const inSight = [];
    for (let index = 0; index < this.points.ids.length; index += 1) {
      const [x, y] = this.place(index);
      if (x > -40 && y > -40 && x < width + 40 && y < height + 40 && this.isShown(index)) inSight.push([index, x, y]);
    }
    const side = inSight.length <= PICTURES ? Math.min(72, Math.max(36, Math.sqrt((width * height) / (inSight.length + 1)) * 0.5)) : 0;
    const paper = color("paper");
    for (const [index, x, y] of inSight) if (index !== this.selected) this.paintPoint(pen, index, x, y, side, paper);
    if (this.selected < 0 || !this.isShown(this.selected)) return;
    const [x, y] = this.place(this.selected);
    this.paintPoint(pen, this.selected, x, y, 1.3 * side, paper);
    this.mark(pen, x, y, side);
  }

  paintPoint(pen, index, x, y, side, paper) {
    const tint = this.colors.get(this.points.tag[index]) ?? OTHERS;
    const picture = side ? this.picture(index) : null;
    if (picture?.complete && picture.naturalWidth) {
      pen.save();
      pen.beginPath();
      pen.roundRect(x - side / 2, y - side / 2, side, side, 8);
      pen.clip();
      pen.drawImage(picture, x - side / 2, y - side / 2, side, side);
      pen.globalCompositeOperation = "multiply"; // their white becomes paper, as on cards
      pen.fillStyle = paper;
      pen.fillRect(x - side / 2, y - side / 2, side, side);
      pen.restore();
      pen.strokeStyle = tint;
      pen.lineWidth = 1.5;
      pen.stroke();
      return;
    }
    pen.fillStyle = tint;
    pen.globalAlpha = 0.8;
    pen.beginPath();
    pen.arc(x, y, this.points.ids.length > 3000 ? 2.5 : 4, 0, 2 * Math.PI);
    pen.fill();
    pen.globalAlpha = 1;
  }

  mark(pen, x, y, side) {
    pen.strokeStyle = color("accent");
    pen.lineWidth = 3;
    pen.beginPath();
    if (side) pen.roundRect(x - side * 0.65 - 2, y - side * 0.65 - 2, side * 1.3 + 4, side * 1.3 + 4, 10);
    else pen.arc(x, y, 8, 0, 2 * Math.PI);
    pen.stroke();
  }

  picture(index) {
    const address = this.address(index);
    if (!this.pictures.has(address)) {
      const image = new Image();
      image.addEventListener("load", () => this.draw());
      image.src = address;
      this.pictures.set(address, image);
    }
    return this.pictures.get(address);
  }

  /** Of a point's thumbnail. */
  address(index) {
    return thumbnail({ id: this.points.ids[index], version: this.points.versions[index] });
  }

  listen() {
    const pointers = new Map();
    let moved = 0;
    this.canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, event);
      moved = 0;
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) {
        this.select(this.nearest(event.offsetX, event.offsetY), false);
        return;
      }
      pointers.set(event.pointerId, event);
      moved += Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY);
      if (pointers.size === 1) {
        this.pan(event.clientX - before.clientX, event.clientY - before.clientY);
      } else {
        const other = [...pointers.values()].find((pointer) => pointer.pointerId !== event.pointerId);
        const apart = (pointer) => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY);
        this.zoom(apart(event) / Math.max(1, apart(before)), event.offsetX, event.offsetY);
      }
    });
    const ended = (event) => {
      pointers.delete(event.pointerId);
      if (event.type === "pointerup" && moved < 6) {
        const index = this.nearest(event.offsetX, event.offsetY);
        if (index >= 0) this.go(index);
      }
    };
    this.canvas.addEventListener("pointerup", ended);
    this.canvas.addEventListener("pointercancel", ended);
    this.canvas.addEventListener("pointerleave", () => this.select(-1, false));
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  pan(x, y) {
    const [scaleX, scaleY] = this.scale();
    this.view.x -= x / scaleX;
    this.view.y += y / scaleY;
    this.draw();
  }

  zoom(factor, x = this.size.width / 2, y = this.size.height / 2) {
    const zoom = Math.min(200, Math.max(0.5, this.view.zoom * factor));
    const shift = zoom / this.view.zoom - 1;
    this.view.zoom = zoom;
    this.pan((this.size.width / 2 - x) * shift, (this.size.height / 2 - y) * shift);
  }

  key(event) {
    const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in directions) this.step(...directions[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.4);
    else if (event.key === "-") this.zoom(1 / 1.4);
    else if (event.key === "Enter" && this.selected >= 0) this.go(this.selected);
    else return;
    event.preventDefault();
  }

  /** Select the next point in a direction: near along it, and little to the side. */
  step(right, down) {
    const [fromX, fromY] = this.selected < 0 ? [this.size.width / 2, this.size.height / 2] : this.place(this.selected);
    let best = -1, least = Infinity;
    for (let index = 0; index < this.points.ids.length; index += 1) {
      if (index === this.selected || !this.isShown(index)) continue;
      const [x, y] = this.place(index);
      const along = (x - fromX) * right + (y - fromY) * down, aside = Math.abs((x - fromX) * down) + Math.abs((y - fromY) * right);
      const cost = along + 2 * aside;
      if ((along > 0.5 || this.selected < 0) && cost < least) [best, least] = [index, cost];
    }
    if (best >= 0) this.select(best, true);
  }

  nearest(x, y) {
    let best = -1, least = this.points.ids.length <= PICTURES ? 30 : NEAR;
    for (let index = 0; index < this.points.ids.length; index += 1) {
      if (!this.isShown(index)) continue;
      const [pointX, pointY] = this.place(index);
      const distance = Math.hypot(pointX - x, pointY - y);
      if (distance < least) [best, least] = [index, distance];
    }
    return best;
  }

  select(index, aloud) {
    if (index === this.selected) return;
    this.selected = index;
    this.tip.hidden = index < 0;
    this.canvas.style.cursor = index < 0 ? "grab" : "pointer";
    this.draw();
    if (index < 0) return;
    const tag = this.points.labels[this.points.tag[index]] ?? "";
    if (aloud) this.said.textContent = `${this.points.names[index]}, ${tag}`;
    this.tip.replaceChildren(
      el("img", { src: this.address(index), alt: "", width: 96, height: 96 }),
      el("span", {}, el("strong", {}, this.points.names[index]), el("span", { class: "muted" }, tag)));
    const [x, y] = this.place(index);
    this.tip.style.left = `${Math.max(4, Math.min(this.size.width - 200, x + (this.points.ids.length <= PICTURES ? 52 : 18)))}px`;
    this.tip.style.top = `${Math.max(4, Math.min(this.size.height - 116, y - 50))}px`;
  }

  go(index) {
    location.hash = `#/asset/${this.points.ids[index]}`;
  }
}
