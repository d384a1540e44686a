// How a number came about, written out: products, sums, maxima.

import { connection, convolution, patchOf, strongest, windowOf } from "./arithmetic.js";
import { colourOf, inkOn, largestOf, paint, themeColours } from "./colours.js";
import { element, number, written } from "./dom.js";

const SPEAKERS = 8; // inputs that are named on either side

/** A small table of numbers on their colours. */
function grid(title, values, width, largest = largestOf(values), marked = -1) {
  const colours = themeColours();
  const cells = values.map((value, index) => {
    const colour = colourOf(value, largest, colours);
    const cell = element("td", index === marked ? { class: "marked" } : {}, number(value));
    cell.style.backgroundColor = `rgb(${colour})`;
    cell.style.color = inkOn(colour);
    return cell;
  });
  const rows = Array.from({ length: values.length / width }, (_, row) =>
    element("tr", {}, ...cells.slice(row * width, (row + 1) * width)),
  );
  return element("table", { class: "numbers" }, element("caption", {}, title), element("tbody", {}, ...rows));
}

const sign = (text) => element("span", { class: "sign", "aria-hidden": "true" }, text);
const term = (name, value, attributes = {}) =>
  element("span", { class: "term" }, number(value, 3, attributes), element("small", {}, name));

function equation(...terms) {
  return element("p", { class: "equation" }, ...terms);
}

function afterRelu(layer, value) {
  return layer.next?.kind === "relu" ? [sign("→"), term("after ReLU", Math.max(0, value), { class: "relu" })] : [];
}

/** A pixel of a convolution: patch times kernel, for the chosen map of the input, and the sum over all of them. */
export function convolutionSum(layer, { map, row, column, source }, onSource) {
  const { parts, bias } = convolution(layer, map, row, column);
  const { patch, kernel, products, sum } = parts[source];
  const [, width] = layer.kernel;
  const value = layer.output.map(map)[row * layer.output.shape[2] + column];
  const many = parts.length > 1;
  const total = parts.reduce((all, part) => all + part.sum, 0);
  return [
    element(
      "div",
      { class: "product" },
      grid(many ? `patch of map ${source + 1}` : "patch", patch, width),
      sign("×"),
      grid(many ? `kernel for map ${source + 1}` : "kernel", kernel, width, largestOf(layer.weights.values) / 2),
      sign("="),
      grid(`${products.length} products`, products, width),
      sign("Σ"),
      term(many ? `from map ${source + 1}` : `sum of ${products.length}`, sum, { class: "part" }),
    ),
    many ? sources(layer, parts, source, map, onSource) : null,
    equation(
      term(many ? `sum over ${parts.length} maps` : "sum of products", total, { class: "total" }),
      sign("+"),
      term("bias", bias, { class: "bias" }),
      sign("="),
      term("this pixel", value, { class: "value" }),
      ...afterRelu(layer, value),
    ),
  ].filter(Boolean);
}

/** What every map of the input adds: its kernel and the sum of its products, to choose from. */
function sources(layer, parts, chosen, map, onSource) {
  const largest = largestOf(parts.map((part) => part.sum));
  const [height, width] = layer.kernel;
  const scale = largestOf(layer.weights.values) / 2;
  const buttons = parts.map((part, index) => {
    const canvas = element("canvas", { "aria-hidden": "true" });
    paint(canvas, part.kernel, height, width, scale);
    const bar = element("span", { class: part.sum < 0 ? "against" : "for", "aria-hidden": "true" });
    bar.style.width = `${largest ? (100 * Math.abs(part.sum)) / largest : 0}%`;
    return element(
      "button",
      {
        type: "button",
        "aria-pressed": String(index === chosen),
        onclick: () => onSource(index),
      },
      canvas,
      element("span", { class: "part-bar" }, bar),
      element("span", { class: "only-read" }, `map ${index + 1}: `),
      number(part.sum),
    );
  });
  return element(
    "div",
    { class: "sources" },
    element(
      "p",
      {},
      `Kernel ${map + 1} has a slice for each of the ${parts.length} maps that come in. Their sums of products:`,
    ),
    element("div", { class: "sources-list" }, ...buttons),
  );
}

/** A pixel of a pooling: the window and its maximum. */
export function poolingSum(layer, { map, row, column }) {
  const place = windowOf(layer, row, column);
  const window = patchOf(layer.input, map, place);
  const value = layer.output.map(map)[row * layer.output.shape[2] + column];
  return [
    element(
      "div",
      { class: "product" },
      grid("window", window, place.width, largestOf(layer.input.values), window.indexOf(Math.max(...window))),
      sign("→"),
      term("largest of them", value, { class: "value" }),
    ),
  ];
}

/** A value of a ReLU. */
export function reluSum(before, after) {
  return [
    equation(sign("max(0,"), term("before", before), sign(")"), sign("="), term("after", after, { class: "value" })),
  ];
}

/** A unit of a fully connected layer: which inputs spoke for it and which against, and the sum of all. */
export function connectionSum(layer, unit, nameOf) {
  const { inputs, weights, products, bias } = connection(layer, unit);
  const largest = largestOf(products);
  const sumOf = (keep) => products.filter(keep).reduce((sum, product) => sum + product, 0);
  const side = (title, kind, order) => {
    const rows = strongest(products, SPEAKERS, order)
      .filter((index) => order(products[index]) > 0)
      .map((index) => {
        const bar = element("span", { class: kind, "aria-hidden": "true" });
        bar.style.width = `${(100 * Math.abs(products[index])) / largest}%`;
        return element(
          "li",
          {},
          element("span", { class: "speaker" }, nameOf(index)),
          element("span", { class: "part-bar" }, bar),
          element(
            "span",
            { class: "speaker-sum" },
            `${written(inputs[index])} × ${written(weights[index])} = `,
            number(products[index]),
          ),
        );
      });
    return element("div", {}, element("h4", {}, title), element("ol", { class: "speakers" }, ...rows));
  };
  return [
    element(
      "div",
      { class: "sides" },
      side("Spoke for it", "for", (product) => product),
      side("Spoke against it", "against", (product) => -product),
    ),
    equation(
      term(
        "all that spoke for",
        sumOf((product) => product > 0),
      ),
      sign("+"),
      term(
        "all against",
        sumOf((product) => product < 0),
      ),
      sign("+"),
      term("bias", bias),
      sign("="),
      term("this unit", layer.output.values[unit], { class: "value" }),
      ...afterRelu(layer, layer.output.values[unit]),
    ),
  ];
}
