// What can be tried without drawing: ten digits and a photograph as files, and strokes drawn for this page.

import { byId, element } from "./dom.js";
import { pictureOf } from "./pad.js";

const DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/** Points along an arc: centre, radii, and from where to where in turns, 0 being to the right and 0.25 below. */
function arc(x, y, across, down, from, to) {
  const count = Math.ceil(Math.abs(to - from) * 32);
  return Array.from({ length: count + 1 }, (_, index) => {
    const angle = 2 * Math.PI * (from + ((to - from) * index) / count);
    return [x + across * Math.cos(angle), y + down * Math.sin(angle)];
  });
}

/** Points along straight lines. */
function lines(...corners) {
  return corners.flatMap((corner, index) => {
    const [x, y] = corners[index - 1] ?? corner;
    return Array.from({ length: index ? 10 : 1 }, (_, step) => {
      const share = index ? (step + 1) / 10 : 1;
      return [x + (corner[0] - x) * share, y + (corner[1] - y) * share];
    });
  });
}

const DRAWN = {
  "a 4 or a 9": [
    [
      [0.53, 0.19],
      [0.44, 0.2],
      [0.37, 0.3],
      [0.34, 0.42],
      [0.37, 0.53],
      [0.5, 0.54],
      [0.66, 0.5],
    ],
    lines([0.68, 0.18], [0.67, 0.5], [0.65, 0.86]),
  ],
  "a letter": [lines([0.18, 0.2], [0.34, 0.8], [0.5, 0.3], [0.66, 0.8], [0.82, 0.2])],
  "a face": [
    arc(0.5, 0.5, 0.33, 0.35, 0, 1),
    lines([0.39, 0.38], [0.39, 0.45]),
    lines([0.61, 0.38], [0.61, 0.45]),
    arc(0.5, 0.52, 0.17, 0.15, 0.05, 0.45),
  ],
};

/** Offer the examples: `onFile` gets the address of a picture, `onStrokes` strokes. */
export function offerExamples(onFile, onStrokes) {
  const offerFile = (label, address) =>
    offer(label, element("img", { src: address, alt: "" }), () => onFile(address));
  DIGITS.forEach((name, digit) => offerFile(`A handwritten ${digit}`, `page/examples/${name}.png`));
  offerFile("A 2 on squared paper, half in the shade", "page/photo.jpg");
  for (const [name, strokes] of Object.entries(DRAWN)) {
    const image = element("img", { alt: "" });
    pictureOf(strokes).then((picture) => {
      image.src = URL.createObjectURL(picture);
    });
    offer(name[0].toUpperCase() + name.slice(1), image, () => onStrokes(strokes));
  }
}

function offer(label, image, choose) {
  byId("examples").append(
    element("li", {}, element("button", { type: "button", "aria-label": label, title: label, onclick: choose }, image)),
  );
}
