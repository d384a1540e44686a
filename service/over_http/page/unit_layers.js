// A layer whose output is a row of numbers: flattened maps, fully connected units, probabilities.

import { connection, softmax, strongest } from "./arithmetic.js";
import { largestOf } from "./colours.js";
import { element, number, percent, written } from "./dom.js";
import { Pixels } from "./pixels.js";
import { connectionSum, reluSum } from "./sums.js";

const COLUMNS = { 1024: 64, 128: 16 };

/** Numbers of a layer by name: where a flattened one came from, which digit an output is for, or a neuron. */
function namer(layer) {
  if (layer.shape.length === 3) {
    const [, height, width] = layer.shape;
    return (index) => {
      const place = index % (height * width);
      const map = Math.floor(index / (height * width)) + 1;
      return `map ${map}, row ${Math.floor(place / width) + 1}, column ${(place % width) + 1}`;
    };
  }
  if (layer.shape[0] === 11) return (index) => (index === 10 ? "no digit" : `digit ${index}`);
  return (index) => `neuron ${index + 1}`;
}

/** Shows one layer; `update` gives it the numbers of another picture. */
export class UnitLayer {
  constructor(layer) {
    const units = layer.output.values.length;
    this.#columns = COLUMNS[units] ?? units;
    this.#view = new Pixels("", (row, column) => this.#choose(row * this.#columns + column));
    this.#labels = units === 11 ? element("div", { class: "labels", "aria-hidden": "true" }) : null;
    this.#parts = layer.flattened ? new Pixels("Every input times its weight, map by map") : null;
    this.#sentence = element("p", { class: "sentence", "aria-live": "polite" });
    this.#sum = element("div", { class: "sum" });
    this.#labels?.append(
      ...Array.from({ length: 11 }, (_, unit) => element("span", {}, unit === 10 ? "none" : String(unit))),
    );
    this.root = element(
      "div",
      { class: "unit-layer" },
      element("div", { class: units === 128 ? "units" : "units wide" }, this.#view.root, this.#labels),
      this.#parts && element("div", { class: "units" }, this.#parts.root),
      element("div", { class: "lens" }, this.#sentence, this.#sum),
    );
    this.update(layer);
  }

  #layer;
  #unit = null;
  #columns;
  #view;
  #labels;
  #parts;
  #sentence;
  #sum;

  update(layer) {
    this.#layer = layer;
    const { values } = layer.output;
    this.#view.show(
      `The ${values.length} numbers of ${layer.title}`,
      values,
      values.length / this.#columns,
      this.#columns,
    );
    this.#view.caption.textContent = `${values.length.toLocaleString("en")} numbers: point at one`;
    this.#choose(this.#unit ?? strongest(values, 1)[0]);
  }

  rest() {}

  #choose(unit) {
    this.#unit = unit;
    const layer = this.#layer;
    const value = layer.output.values[unit];
    this.#view.frame(Math.floor(unit / this.#columns), unit % this.#columns);
    const name = namer(layer.kind === "flatten" ? layer.input : layer.output)(unit);
    if (layer.kind === "flatten") {
      this.#sentence.textContent = `Number ${unit + 1} is ${name}: ${written(value, 3)}.`;
      return;
    }
    this.#sentence.textContent = `${name[0].toUpperCase()}${name.slice(1)} is ${written(value, 3)}.`;
    if (layer.kind === "relu") this.#sum.replaceChildren(...reluSum(layer.input.values[unit], value));
    if (layer.kind !== "linear" || !layer.weights) return;
    this.#sum.replaceChildren(...connectionSum(layer, unit, namer(layer.flattened ?? layer.input)));
    if (this.#parts) {
      const [maps, height, width] = layer.flattened.shape;
      this.#parts.show(
        `What the ${maps} maps say to ${name}`,
        ...mosaic(connection(layer, unit).products, maps, height, width),
      );
    }
  }
}

/** Maps of the same size side by side in a square: values, height, width. */
function mosaic(values, maps, height, width) {
  const across = Math.ceil(Math.sqrt(maps));
  const wide = across * width;
  const square = new Float32Array(wide * Math.ceil(maps / across) * height);
  values.forEach((value, index) => {
    const map = Math.floor(index / (height * width));
    const place = index % (height * width);
    const row = Math.floor(map / across) * height + Math.floor(place / width);
    square[row * wide + (map % across) * width + (place % width)] = value;
  });
  return [square, square.length / wide, wide, largestOf(values)];
}

/** A power of e for people. */
function power(exponent) {
  const value = Math.exp(exponent);
  return value < 1000 ? value.toPrecision(3) : Math.round(value).toLocaleString("en");
}

/** Shows how logits become probabilities. */
export class SoftmaxLayer {
  constructor(layer, explanation) {
    this.#body = element("tbody");
    this.#score = element("p", { class: "sentence" });
    this.root = element(
      "div",
      { class: "softmax" },
      element(
        "table",
        {},
        element(
          "thead",
          {},
          element(
            "tr",
            {},
            ...["digit", "logit", "÷ temperature", "e to that", "probability"].map((title) =>
              element("th", { scope: "col" }, title),
            ),
          ),
        ),
        this.#body,
      ),
      this.#score,
    );
    this.update(layer, explanation);
  }

  #body;
  #score;

  update(layer, { logits, temperature, prediction }) {
    const digits = logits.slice(0, 10);
    const shares = softmax(digits, temperature);
    this.#body.replaceChildren(
      ...digits.map((logit, digit) =>
        element(
          "tr",
          digit === prediction.digit ? { class: "best" } : {},
          element("th", { scope: "row" }, String(digit)),
          element("td", {}, number(logit)),
          element("td", {}, number(logit / temperature)),
          element("td", {}, power(logit / temperature)),
          element("td", {}, percent(shares[digit])),
        ),
      ),
    );
    this.#score.textContent =
      `Each power is divided by the sum of all ten. The temperature of ${temperature.toFixed(3)} makes the ` +
      "probabilities honest: it was chosen so that answers given with 90 % are right nine times in ten. " +
      `The eleventh output, “no digit”, is ${written(logits[10])}: this looks like a digit by a score of ` +
      `${written(prediction.digit_score)}.`;
  }

  rest() {}
}
