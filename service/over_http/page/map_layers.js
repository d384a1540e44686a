// A layer whose output is maps: all of them, the chosen one beside what it looks at, and how a pixel came about.

import { convolution, strongest, windowOf } from "./arithmetic.js";
import { largestOf, paint } from "./colours.js";
import { element, written } from "./dom.js";
import { Pixels } from "./pixels.js";
import { convolutionSum, poolingSum, reluSum } from "./sums.js";

const SLIDE_MS = 70;

/** Shows one layer; `update` gives it the numbers of another picture. */
export class MapLayer {
  constructor(layer) {
    const [maps, height, width] = layer.output.shape;
    this.#thumbs = Array.from({ length: maps }, (_, map) => {
      const canvas = element("canvas", { "aria-hidden": "true" });
      const kernel =
        layer.kind === "conv" && layer.input.shape[0] === 1
          ? element("canvas", { class: "kernel", "aria-hidden": "true" })
          : null;
      const button = element(
        "button",
        {
          type: "button",
          class: "map",
          "aria-label": `Map ${map + 1}`,
          onclick: () => this.#choose({ map, source: null }),
        },
        canvas,
        element("span", { class: "name" }, element("small", {}, String(map + 1)), kernel),
      );
      return { button, canvas, kernel };
    });
    this.#before = new Pixels("");
    this.#after = new Pixels("", (row, column) => this.#choose({ row, column }));
    this.#sum = element("div", { class: "sum" });
    this.#sentence = element("p", { class: "sentence", "aria-live": "polite" });
    this.#slide = element("button", { type: "button", onclick: () => this.#toggleSlide() }, "Let it slide");
    this.root = element(
      "div",
      { class: "map-layer" },
      element(
        "div",
        {
          class: `maps ${height < 12 ? "small" : ""}`,
          role: "group",
          "aria-label": `The ${maps} maps of ${height}×${width} pixels`,
        },
        ...this.#thumbs.map(({ button }) => button),
      ),
      element(
        "div",
        { class: "lens" },
        element(
          "div",
          { class: "views" },
          this.#before.root,
          element("span", { class: "arrow", "aria-hidden": "true" }),
          this.#after.root,
        ),
        this.#slide,
        this.#sentence,
        this.#sum,
      ),
    );
    this.update(layer);
  }

  #layer;
  #at = null; // { map, row, column, source }
  #thumbs;
  #before;
  #after;
  #sum;
  #sentence;
  #slide;
  #sliding = null;

  update(layer) {
    this.#layer = layer;
    const [, height, width] = layer.output.shape;
    // One scale for all maps, so that a bright one is a strong one.
    const largest = largestOf(layer.output.values);
    this.#thumbs.forEach(({ canvas, kernel }, map) => {
      paint(canvas, layer.output.map(map), height, width, largest);
      if (kernel && layer.weights) paint(kernel, layer.weights.map(map), ...layer.kernel);
    });
    if (!this.#at) {
      const peak = strongest(layer.output.values, 1)[0];
      const size = height * width;
      this.#at = {
        map: Math.floor(peak / size),
        row: Math.floor((peak % size) / width),
        column: peak % width,
        source: null,
      };
    }
    this.#show();
  }

  /** Stop what moves. */
  rest() {
    clearInterval(this.#sliding);
    this.#sliding = null;
    this.#slide.textContent = "Let it slide";
  }

  #choose(change) {
    Object.assign(this.#at, change);
    this.#show();
  }

  #toggleSlide() {
    if (this.#sliding) {
      this.rest();
      return;
    }
    const [, height, width] = this.#layer.output.shape;
    this.#slide.textContent = "Stop";
    this.#sliding = setInterval(() => {
      const next = (this.#at.row * width + this.#at.column + 1) % (height * width);
      this.#choose({ row: Math.floor(next / width), column: next % width });
    }, SLIDE_MS);
  }

  #show() {
    const layer = this.#layer;
    const at = this.#at;
    const { map, row, column } = at;
    const [, height, width] = layer.output.shape;
    const [inputs, rows, columns] = layer.input.shape;
    const isConvolution = layer.kind === "conv" && layer.weights !== null;
    const source = isConvolution ? (at.source ?? this.#loudest()) : Math.min(map, inputs - 1);
    this.#thumbs.forEach(({ button }, index) => button.setAttribute("aria-pressed", String(index === map)));
    this.#before.caption.textContent =
      inputs === 1 ? "The digit the network saw" : `Map ${source + 1} of ${inputs} that come in`;
    this.#before.show(
      this.#before.caption.textContent,
      layer.input.map(source),
      rows,
      columns,
      largestOf(layer.input.values),
    );
    this.#after.caption.textContent = `Map ${map + 1}: point at a pixel`;
    this.#after.show(
      `Map ${map + 1} of ${layer.title}`,
      layer.output.map(map),
      height,
      width,
      largestOf(layer.output.values),
    );
    this.#after.frame(row, column);
    const place = layer.kernel ? windowOf(layer, row, column) : { row, column, height: 1, width: 1 };
    this.#before.frame(place.row, place.column, place.height, place.width);

    const value = layer.output.map(map)[row * width + column];
    this.#sentence.textContent = `Row ${row + 1}, column ${column + 1} of map ${map + 1} is ${written(value, 3)}.`;
    if (isConvolution) {
      this.#sum.replaceChildren(
        ...convolutionSum(layer, { map, row, column, source }, (chosen) => this.#choose({ source: chosen })),
      );
    } else if (layer.kind === "max_pool") {
      this.#sum.replaceChildren(...poolingSum(layer, at));
    } else if (layer.kind === "relu") {
      this.#sum.replaceChildren(...reluSum(layer.input.map(map)[row * width + column], value));
    }
  }

  /** The map of the input that counts most for the present pixel. */
  #loudest() {
    const { parts } = convolution(this.#layer, this.#at.map, this.#at.row, this.#at.column);
    return strongest(parts, 1, (part) => Math.abs(part.sum))[0];
  }
}
