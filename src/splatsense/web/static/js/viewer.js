// The live 3D view of one asset: Spark on three.js, drawn only when something moves. Needs WebGL2.
import { SparkRenderer, SplatMesh } from "@sparkjsdev/spark";
import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { color } from "./theme.js";

const FIELD_OF_VIEW = 40;
const DISTANCE = 3.6; // of the camera from an object whose longest half-extent is 1
const ELEVATION = 20, AZIMUTH = 30; // degrees, those of the thumbnails
const TURN = Math.PI / 36; // radians for a key
const LONGEST_SORT = 5_000; // milliseconds

export class Viewer {
  /** @param {HTMLElement} box  what the canvas fills */
  constructor(box) {
    this.box = box;
    this.renderer = new THREE.WebGLRenderer({ antialias: false, powerPreference: "high-performance" });
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.canvas = this.renderer.domElement;
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    box.append(this.canvas);
    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(FIELD_OF_VIEW, 1, 0.01, 100);
    this.spark = new SparkRenderer({ renderer: this.renderer, onDirty: () => this.draw() });
    this.scene.add(this.spark);
    this.controls = new OrbitControls(this.camera, this.canvas);
    this.controls.addEventListener("change", () => this.draw());
    this.controls.minDistance = 0.2;
    this.controls.maxDistance = 40;
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.onTheme = () => this.paint();
    document.addEventListener("theme", this.onTheme);
    this.resized = new ResizeObserver(() => this.resize());
    this.resized.observe(box);
    this.paint();
    this.reset();
  }

  /** Load an SPZ file, centred and with a longest half-extent of 1. */
  async load(url, label) {
    this.canvas.setAttribute("aria-label", `${label}, a 3D view. Arrow keys turn it, plus and minus zoom, 0 resets.`);
    const reply = await fetch(url);
    if (!reply.ok) throw new Error((await reply.json()).error.message);
    const mesh = new SplatMesh({ fileBytes: await reply.arrayBuffer(), fileName: "view.spz" });
    await mesh.initialized;
    if (this.closed) return;
    this.scene.add(mesh);
    this.draw();
  }

  reset() {
    const elevation = THREE.MathUtils.degToRad(ELEVATION), azimuth = THREE.MathUtils.degToRad(AZIMUTH);
    this.camera.position.setFromSphericalCoords(DISTANCE, Math.PI / 2 - elevation, azimuth);
    this.controls.target.set(0, 0, 0);
    this.controls.update();
    this.draw();
  }

  turn(on) {
    this.controls.autoRotate = on;
    this.draw();
  }

  key(event) {
    const around = new THREE.Spherical().setFromVector3(this.camera.position.clone().sub(this.controls.target));
    const actions = {
      ArrowLeft: () => { around.theta -= TURN; }, ArrowRight: () => { around.theta += TURN; },
      ArrowUp: () => { around.phi -= TURN; }, ArrowDown: () => { around.phi += TURN; },
      "+": () => { around.radius /= 1.1; }, "=": () => { around.radius /= 1.1; }, "-": () => { around.radius *= 1.1; },
    };
    if (event.key === "0") { this.reset(); event.preventDefault(); return; }
    if (!(event.key in actions) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    actions[event.key]();
    around.makeSafe();
    this.camera.position.setFromSpherical(around).add(this.controls.target);
    this.controls.update();
    this.draw();
  }

  paint() {
    this.renderer.setClearColor(new THREE.Color(color("stage")), 1);
    this.draw();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (!width || !height) return;
    this.renderer.setSize(width, height);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  /** Draw before the next frame is shown; once, however often it is asked for. */
  draw() {
    if (this.waiting || this.closed) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (this.controls.autoRotate) this.controls.update();
      this.renderer.render(this.scene, this.camera);
      if (this.controls.autoRotate) this.draw();
    });
  }

  /** Leave the page at once, and free the GPU when Spark's sort, which nothing can call off, has ended. */
  async close() {
    this.closed = true;
    cancelAnimationFrame(this.waiting);
    document.removeEventListener("theme", this.onTheme);
    this.resized.disconnect();
    this.controls.dispose();
    this.canvas.remove();
    this.spark.sortDirty = false;
    for (let waited = 0; this.spark.sorting && waited < LONGEST_SORT; waited += 20) await new Promise((go) => setTimeout(go, 20));
    for (const child of [...this.scene.children]) child.dispose?.();
    this.renderer.dispose();
    this.renderer.forceContextLoss();
  }
}
