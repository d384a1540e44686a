// From the picture to the 28×28 pixels the network saw, and which of them mattered.

import { paint, themeColours } from "./colours.js";
import { byId, element } from "./dom.js";

/** Show the steps of an explanation. */
export function showSteps({ steps, seen, occlusion, prediction }) {
  const pictures = steps.map(({ name, caption, png }) =>
    step(element("img", { src: `data:image/png;base64,${png}`, alt: name }), caption),
  );
  const canvas = element("canvas", {
    role: "img",
    "aria-label": `The pixels that mattered for the ${prediction.digit}`,
  });
  const harm = perPixel(occlusion);
  const most = Math.max(...occlusion.values.values);
  paintOver(canvas, seen, harm, most);
  const fall =
    most < 0.005
      ? `whatever patch is covered, the probability of ${prediction.digit} falls by less than half a point.`
      : `with the most coloured patch covered, the probability of ${prediction.digit} falls by ${(100 * most).toFixed(1)} points.`;
  byId("steps").replaceChildren(...pictures, step(canvas, `Which pixels matter: ${fall}`));
}

const step = (picture, caption) =>
  element("li", {}, element("figure", {}, picture, element("figcaption", {}, caption)));

/** How far the probability falls on average when a pixel is covered. */
function perPixel({ patch, stride, values }) {
  const [rows, columns] = values.shape;
  const sum = new Float32Array(784);
  const count = new Float32Array(784);
  for (let index = 0; index < rows * columns; index += 1) {
    const top = Math.floor(index / columns) * stride;
    const left = (index % columns) * stride;
    for (let row = top; row < Math.min(28, top + patch); row += 1) {
      for (let column = left; column < Math.min(28, left + patch); column += 1) {
        sum[row * 28 + column] += values.values[index];
        count[row * 28 + column] += 1;
      }
    }
  }
  return sum.map((total, index) => (count[index] ? total / count[index] : 0));
}

/** The map over the digit: what matters in colour, the strokes as shade. */
function paintOver(canvas, seen, harm, most) {
  // A fall by less than this is noise, and gets no colour that would make it look like more.
  paint(
    canvas,
    harm.map((fall) => -fall),
    28,
    28,
    Math.max(most, 0.02),
  );
  const stroke = themeColours().positive;
  const pen = canvas.getContext("2d");
  const image = pen.getImageData(0, 0, 28, 28);
  seen.forEach((ink, index) => {
    for (let channel = 0; channel < 3; channel += 1) {
      image.data[4 * index + channel] += (stroke[channel] - image.data[4 * index + channel]) * 0.75 * ink;
    }
  });
  pen.putImageData(image, 0, 0);
}
