// The way through the network: a ribbon of all layers in the order of the flow, and one of them at a time in full.

import { strongest } from "./arithmetic.js";
import { onThemeChange, paint } from "./colours.js";
import { element } from "./dom.js";
import { MapLayer } from "./map_layers.js";
import { SoftmaxLayer, UnitLayer } from "./unit_layers.js";

const size = (shape) => shape.join("×");

/** What a layer does, in a sentence or two. */
function sentenceOf({ kind, kernel, input, output }) {
  const [inputs] = input.shape;
  const [outputs] = output.shape;
  const products = kernel && kernel[0] * kernel[1] * inputs;
  switch (kind) {
    case "conv":
      return (
        `${outputs} kernels slide over ${inputs === 1 ? "the picture" : `the ${inputs} maps`}. Wherever one stops, ` +
        `the ${products} numbers beneath it are multiplied by its own and added up: a pixel of its map, ` +
        "which is large where the picture looks like the kernel."
      );
    case "relu":
      return "What is negative becomes 0, the rest stays. Without this, many layers could do no more than a single one.";
    case "max_pool":
      return (
        `Of every ${kernel.join("×")} pixels the largest stays: half as many rows and columns, ` +
        "and a digit moved by a pixel looks nearly the same."
      );
    case "flatten":
      return `The ${inputs} maps are laid out as one row of ${outputs} numbers.`;
    case "linear":
      return `${outputs} units. Each multiplies every one of the ${inputs} numbers by a weight of its own and adds them up.`;
    case "softmax":
      return "The ten outputs for the digits become probabilities that sum to 1.";
    default:
      return "";
  }
}

/** The inside view. */
export class Inside {
  constructor(root) {
    this.#tabs = element("div", { class: "ribbon", role: "tablist", "aria-label": "Layers, in the order of the flow" });
    this.#panel = element("div", { class: "layer", role: "tabpanel", id: "layer" });
    this.#tabs.addEventListener("keydown", (event) => this.#key(event));
    root.append(this.#tabs, this.#panel);
    onThemeChange(() => this.#explanation && this.show(this.#explanation));
  }

  #tabs;
  #panel;
  #explanation = null;
  #buttons = [];
  #chosen = 0;
  #view = null; // of the chosen layer
  #viewName = null;

  /** Show an explanation; the layer that is looked at stays the same. */
  show(explanation) {
    this.#explanation = explanation;
    const { layers } = explanation;
    layers.forEach((layer, index) => {
      layer.next = layers[index + 1];
      if (layers[index - 1]?.kind === "flatten") layer.flattened = layers[index - 1].input;
    });
    if (this.#buttons.length !== layers.length) this.#makeTabs(layers);
    layers.forEach((layer, index) => paintSmall(this.#buttons[index].canvas, layer.output));
    this.#open(Math.min(this.#chosen, layers.length - 1));
  }

  /** Stop what moves. */
  rest() {
    this.#view?.rest();
  }

  #makeTabs(layers) {
    this.#buttons = layers.map((layer, index) => {
      const canvas = element("canvas", { "aria-hidden": "true" });
      const button = element(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${layer.name}`,
          "aria-controls": "layer",
          onclick: () => this.#open(index),
        },
        canvas,
        element("span", {}, layer.short),
        element("small", {}, size(layer.output.shape)),
      );
      return { button, canvas };
    });
    this.#tabs.replaceChildren(...this.#buttons.map(({ button }) => button));
  }

  #open(index) {
    const layer = this.#explanation.layers[index];
    this.#chosen = index;
    this.#buttons.forEach(({ button }, each) => {
      button.setAttribute("aria-selected", String(each === index));
      button.tabIndex = each === index ? 0 : -1;
    });
    if (this.#viewName === layer.name) {
      this.#view.update(layer, this.#explanation);
      return;
    }
    this.rest();
    this.#view =
      layer.output.shape.length === 3
        ? new MapLayer(layer)
        : layer.kind === "softmax"
          ? new SoftmaxLayer(layer, this.#explanation)
          : new UnitLayer(layer);
    this.#viewName = layer.name;
    const next =
      layer.next &&
      element(
        "button",
        { type: "button", class: "next", onclick: () => this.#goTo(index + 1) },
        `Next: ${layer.next.title} →`,
      );
    this.#panel.setAttribute("aria-labelledby", `tab-${layer.name}`);
    this.#panel.replaceChildren(
      layer.kind === "softmax"
        ? ""
        : element("p", { class: "key" }, "below 0", element("span", { "aria-hidden": "true" }), "above"),
      element("h3", {}, layer.title, element("small", {}, `${size(layer.input.shape)} → ${size(layer.output.shape)}`)),
      element("p", { class: "layer-words" }, sentenceOf(layer)),
      this.#view.root,
      ...(next ? [next] : []),
    );
  }

  #goTo(index) {
    this.#open(index);
    this.#buttons[index].button.focus({ preventScroll: true });
    this.#buttons[index].button.scrollIntoView({ block: "nearest", inline: "center" });
    this.#tabs.scrollIntoView({ block: "start" });
  }

  #key(event) {
    const last = this.#buttons.length - 1;
    const target = { ArrowRight: this.#chosen + 1, ArrowLeft: this.#chosen - 1, Home: 0, End: last }[event.key];
    if (target === undefined || target < 0 || target > last) return;
    event.preventDefault();
    this.#open(target);
    this.#buttons[target].button.focus();
  }
}

/** An output as a small picture: its strongest map, or its numbers in a block. */
function paintSmall(canvas, output) {
  if (output.shape.length === 3) {
    const [, height, width] = output.shape;
    const map = Math.floor(strongest(output.values, 1)[0] / (height * width));
    paint(canvas, output.map(map), height, width);
    return;
  }
  const count = output.values.length;
  const height = { 1024: 32, 128: 8 }[count] ?? 1;
  paint(canvas, output.values, height, count / height);
}
