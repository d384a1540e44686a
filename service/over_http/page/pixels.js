// A picture of numbers whose pixels can be pointed at, with mouse, finger or arrow keys.

import { largestOf, paint } from "./colours.js";
import { element } from "./dom.js";

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** Values as an enlarged picture with a frame around some of them. */
export class Pixels {
  /** `onPoint(row, column)` is called for every pixel pointed at; without it the picture is only looked at. */
  constructor(caption, onPoint = null) {
    this.caption = element("figcaption", {}, caption);
    this.#canvas = element("canvas", onPoint ? { tabindex: "0", role: "application" } : { role: "img" });
    this.#frame = element("span", { class: "frame", hidden: true });
    this.#onPoint = onPoint;
    this.root = element(
      "figure",
      { class: "pixels" },
      element("div", { class: "pixels-field" }, this.#canvas, this.#frame),
      this.caption,
    );
    if (!onPoint) return;
    this.root.classList.add("live");
    for (const kind of ["pointermove", "pointerdown"]) {
      this.#canvas.addEventListener(kind, (event) => this.#pointed(event));
    }
    this.#canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  #canvas;
  #frame;
  #onPoint;
  #at = [0, 0];

  /** Show values, (height, width) row by row, on a scale that ends at `largest`. */
  show(label, values, height, width, largest = largestOf(values)) {
    paint(this.#canvas, values, height, width, largest);
    this.#canvas.style.aspectRatio = `${width} / ${height}`;
    this.#canvas.setAttribute("aria-label", this.#onPoint ? `${label}; arrow keys go from pixel to pixel` : label);
  }

  /** Frame some pixels. */
  frame(row, column, height = 1, width = 1) {
    const { style } = this.#frame;
    style.left = `${(100 * column) / this.#canvas.width}%`;
    style.top = `${(100 * row) / this.#canvas.height}%`;
    style.width = `${(100 * width) / this.#canvas.width}%`;
    style.height = `${(100 * height) / this.#canvas.height}%`;
    this.#frame.hidden = false;
    this.#at = [row, column];
  }

  #pointed(event) {
    const box = this.#canvas.getBoundingClientRect();
    this.#point(
      Math.floor(((event.clientY - box.top) / box.height) * this.#canvas.height),
      Math.floor(((event.clientX - box.left) / box.width) * this.#canvas.width),
    );
  }

  #key(event) {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    this.#point(this.#at[0] + step[0], this.#at[1] + step[1]);
  }

  #point(row, column) {
    const within = (value, size) => Math.min(size - 1, Math.max(0, value));
    this.#onPoint(within(row, this.#canvas.height), within(column, this.#canvas.width));
  }
}
