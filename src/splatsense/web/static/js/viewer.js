// The live 3D view of one asset: Spark on three.js, drawn only when something moves. Needs WebGL2.
// For scenes, its Gaussians can be painted in other colours and chosen: by a click, or with Enter under the cross in the middle.
import { SparkRenderer, SplatMesh } from "@sparkjsdev/spark";
import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { getBytes } from "./api.js";
import { Splats } from "./splats.js";
import { color } from "./theme.js";

const FIELD_OF_VIEW = 40;
const DISTANCE = 3.6; // of the camera from an object whose longest half-extent is 1, until it is known how much fits
const SAMPLE = 20_000, STRAY = 0.001, FILL = 0.88; // centres that are looked at for that, the share outside, the share of the view
const ELEVATION = 20, AZIMUTH = 30; // degrees, those of the thumbnails
const ABOVE = 50; // degrees, to look into a scene over its walls
const TURN = Math.PI / 36; // radians for a key
const LONGEST_SORT = 5_000; // milliseconds
const STILL = 5; // pixels that the pointer of a click may move
const REACH = 3; // pixels beside a Gaussian that still meet it
const MARK = 0.012; // radius of the mark for each unit of distance

export class Viewer {
  /** @param {HTMLElement} box  what the canvas fills; @param {boolean} isScene  seen from further above */
  constructor(box, isScene = false) {
    this.box = box;
    this.elevation = isScene ? ABOVE : ELEVATION;
    this.leaving = new AbortController();
    this.renderer = new THREE.WebGLRenderer({ antialias: false, powerPreference: "high-performance" });
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.canvas = this.renderer.domElement;
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application"); // its keys are for us, not for a screen reader
    this.canvas.setAttribute("aria-roledescription", "3D view");
    this.canvas.addEventListener("webglcontextlost", () => { if (!this.closed) this.onLost?.(); });
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
    this.canvas.addEventListener("pointerdown", (event) => { this.pressed = [event.clientX, event.clientY]; });
    this.canvas.addEventListener("click", (event) => this.click(event));
    this.onTheme = () => this.repaint();
    document.addEventListener("theme", this.onTheme);
    this.resized = new ResizeObserver(() => this.resize());
    this.resized.observe(box);
    this.repaint();
    this.reset();
  }

  /** Load an SPZ file of the API, centred and with a longest half-extent of 1. */
  async load(path, label) {
    this.canvas.setAttribute("aria-label", `${label}. Arrow keys turn it, plus and minus zoom, 0 resets.`);
    const { bytes } = await getBytes(path, this.leaving.signal);
    const mesh = new SplatMesh({ fileBytes: bytes, fileName: "view.spz" });
    await mesh.initialized;
    if (this.closed) {
      mesh.dispose();
      return;
    }
    this.mesh = mesh;
    this.scene.add(mesh);
    this.reset();
  }

  /** Look at all of it from above and from the right of its front. */
  reset() {
    const elevation = THREE.MathUtils.degToRad(this.elevation), azimuth = THREE.MathUtils.degToRad(AZIMUTH);
    const towards = new THREE.Vector3().setFromSphericalCoords(1, Math.PI / 2 - elevation, azimuth);
    const { distance, height } = this.mesh ? this.framing(towards) : { distance: DISTANCE, height: 0 };
    this.controls.target.set(0, height, 0);
    this.camera.position.copy(towards).multiplyScalar(distance).add(this.controls.target);
    this.controls.update();
    this.draw();
  }

  /** From how far away, and looking at which height of its axis, all but strays is seen in the middle of the view. */
  framing(towards) {
    const right = new THREE.Vector3(0, 1, 0).cross(towards).normalize(), up = towards.clone().cross(right);
    const high = FILL * Math.tan(THREE.MathUtils.degToRad(FIELD_OF_VIEW) / 2), wide = high * this.camera.aspect;
    const { packedSplats } = this.mesh, step = Math.ceil(packedSplats.numSplats / SAMPLE), points = [];
    for (let index = 0; index < packedSplats.numSplats; index += step) {
      const { center } = packedSplats.getSplat(index);
      points.push([center.dot(right), center.dot(up), center.dot(towards)]);
    }
    let distance = DISTANCE, height = 0;
    for (let round = 0; round < 4; round += 1) {
      const y = (point) => point[1] - height * up.y, z = (point) => point[2] - height * towards.y;
      const needed = quantile(points.map((point) => z(point) + Math.max(Math.abs(point[0]) / wide, Math.abs(y(point)) / high)), 1 - STRAY);
      distance = THREE.MathUtils.clamp(needed, 2 * this.controls.minDistance, this.controls.maxDistance);
      const slopes = points.map((point) => y(point) / (distance - z(point)));
      height += (quantile(slopes, STRAY) + quantile(slopes, 1 - STRAY)) / 2 * distance / up.y;
    }
    return { distance, height };
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
    if (event.key === "Enter" && this.isAiming) { this.choose(0, 0); event.preventDefault(); return; }
    if (event.key === "0") { this.reset(); event.preventDefault(); return; }
    if (!(event.key in actions) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    actions[event.key]();
    around.makeSafe();
    this.camera.position.setFromSpherical(around).add(this.controls.target);
    this.controls.update();
    this.draw();
  }

  /** The Gaussians, once they are asked for. */
  get splats() {
    this.held ??= new Splats(this.mesh);
    return this.held;
  }

  /** Paint the Gaussians, three bytes for each; given nothing, in their own colours. */
  paint(colors) {
    if (!colors && !this.held) return;
    this.splats.paint(colors);
    this.draw();
  }

  /** Cut off the top of the scene, or put it back. */
  cut(isCut) {
    this.splats.cut(isCut);
    this.draw();
  }

  /** Whether a point can be chosen: the cross in the middle is shown while the view has the focus. */
  aim(isOn) {
    this.isAiming = isOn;
    this.box.classList.toggle("aiming", isOn);
  }

  click({ clientX, clientY }) {
    const [x, y] = this.pressed ?? [clientX, clientY];
    if (!this.isAiming || Math.hypot(clientX - x, clientY - y) > STILL) return;
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    this.choose(2 * (clientX - left) / width - 1, 1 - 2 * (clientY - top) / height);
  }

  /** Tell `onPick` which Gaussian is seen at a place of the view, x and y in [-1, 1]; -1 for none. */
  choose(x, y) {
    if (!this.mesh) return;
    this.camera.updateMatrixWorld(); // it may have moved since the last frame
    const caster = new THREE.Raycaster();
    caster.setFromCamera(new THREE.Vector2(x, y), this.camera);
    this.mesh.updateMatrixWorld();
    const ray = caster.ray.clone().applyMatrix4(this.mesh.matrixWorld.clone().invert());
    ray.direction.normalize();
    const pixel = 2 * Math.tan(THREE.MathUtils.degToRad(FIELD_OF_VIEW) / 2) / this.canvas.clientHeight;
    this.onPick?.(this.splats.pick(ray, REACH * pixel));
  }

  /** Mark a Gaussian, or none. */
  mark(gaussian) {
    this.marker ??= marker();
    if (gaussian < 0) {
      this.scene.remove(this.marker);
    } else {
      this.marker.position.copy(this.mesh.localToWorld(this.splats.center(gaussian)));
      this.scene.add(this.marker);
    }
    this.draw();
  }

  repaint() {
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
      this.marker?.scale.setScalar(MARK * this.camera.position.distanceTo(this.marker.position));
      this.renderer.render(this.scene, this.camera);
      if (this.controls.autoRotate) this.draw();
    });
  }

  /** Leave the page at once, and free the GPU when Spark's sort, which nothing can call off, has ended. */
  async close() {
    this.closed = true;
    this.leaving.abort();
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

/** The value that a share of the values does not exceed. */
const quantile = (values, share) => values.toSorted((a, b) => a - b)[Math.round(share * (values.length - 1))];

/** A ball of radius 1 that is seen through everything, with a rim that stands out from any colour. */
function marker() {
  const ball = (radius, tint, order) => {
    const mesh = new THREE.Mesh(new THREE.SphereGeometry(radius, 24, 16),
      new THREE.MeshBasicMaterial({ color: tint, depthTest: false, depthWrite: false, transparent: true }));
    mesh.renderOrder = order;
    return mesh;
  };
  return new THREE.Group().add(ball(1, 0x000000, 10), ball(0.75, 0xffffff, 11));
}
