// The Gaussians of a loaded splat: which one a ray meets, in which colours they are shown, and whether the top is cut off.
import { RgbaArray } from "@sparkjsdev/spark";
import * as THREE from "three";

const TOP = 0.7; // share of the height that stays when the top is cut off
const SOLID = 0.3; // opacity of a Gaussian that a ray can meet
const STRAY = 0.002; // share of the Gaussians at both ends that do not count for the height

export class Splats {
  /** @param mesh  a SplatMesh that is initialised */
  constructor(mesh) {
    this.mesh = mesh;
    this.count = mesh.packedSplats.numSplats;
    this.centers = new Float32Array(3 * this.count);
    this.sizes = new Float32Array(this.count);
    this.own = new Uint8Array(4 * this.count); // red, green, blue, opacity
    mesh.packedSplats.forEachSplat((index, center, scales, quaternion, opacity, color) => {
      center.toArray(this.centers, 3 * index);
      this.sizes[index] = Math.max(scales.x, scales.y, scales.z);
      this.own.set([255 * color.r, 255 * color.g, 255 * color.b, 255 * opacity].map(Math.round), 4 * index);
    });
    this.painted = null;
    this.isCut = false;
  }

  /** Show other colours, three bytes for each Gaussian; or, given nothing, their own. */
  paint(colors = null) {
    if (colors && colors.length !== 3 * this.count) throw new Error("the colours are of another splat; load the page again");
    this.painted = colors;
    this.update();
  }

  /** Cut off the top, such as a ceiling, or put it back. */
  cut(isCut) {
    this.isCut = isCut;
    this.update();
  }

  update() {
    if (!this.painted && !this.isCut) {
      this.mesh.splatRgba = null; // with what depends on the direction
    } else {
      const rgba = this.mesh.splatRgba ?? new RgbaArray();
      const values = rgba.ensureCapacity(this.count);
      values.set(this.own);
      for (let index = 0; index < this.count; index += 1) {
        if (this.painted) for (let channel = 0; channel < 3; channel += 1) values[4 * index + channel] = this.painted[3 * index + channel];
        if (this.isHidden(index)) values[4 * index + 3] = 0;
      }
      rgba.count = this.count;
      rgba.needsUpdate = true;
      this.mesh.splatRgba = rgba;
    }
    this.mesh.updateGenerator();
    this.mesh.updateVersion();
  }

  isHidden(index) {
    return this.isCut && this.centers[3 * index + 1] > this.limit;
  }

  /** The height above which the top is cut off. */
  get limit() {
    if (this.height === undefined) {
      const heights = new Float32Array(this.count);
      for (let index = 0; index < this.count; index += 1) heights[index] = this.centers[3 * index + 1];
      heights.sort();
      const stray = Math.floor(STRAY * (this.count - 1));
      const low = heights[stray], high = heights[this.count - 1 - stray];
      this.height = low + TOP * (high - low);
    }
    return this.height;
  }

  /**
   * The number of the Gaussian nearest to a ray, or -1. Of those that the ray passes through, it is the first one on its way.
   * @param {THREE.Ray} ray  in the mesh's own space, its direction of unit length
   * @param {number} tolerance  how far beside it counts as through, for each unit of distance
   */
  pick(ray, tolerance) {
    const { origin, direction } = ray;
    let nearest = -1, beside = Infinity, first = -1, depth = Infinity;
    for (let index = 0; index < this.count; index += 1) {
      if (this.own[4 * index + 3] < 255 * SOLID || this.isHidden(index)) continue;
      const x = this.centers[3 * index] - origin.x, y = this.centers[3 * index + 1] - origin.y, z = this.centers[3 * index + 2] - origin.z;
      const along = x * direction.x + y * direction.y + z * direction.z;
      if (along <= 0) continue;
      const away = Math.sqrt(Math.max(0, x * x + y * y + z * z - along * along));
      if (away < Math.max(this.sizes[index], tolerance * along)) {
        if (along < depth) { first = index; depth = along; }
      } else if (away / along < beside) { nearest = index; beside = away / along; }
    }
    return first >= 0 ? first : nearest;
  }

  center(index) {
    return new THREE.Vector3().fromArray(this.centers, 3 * index);
  }
}
