// Two drawings side by side: one that was kept, and the present one.

import { alikeness } from "./arithmetic.js";
import { inWords } from "./answer.js";
import { largestOf, onThemeChange, paint } from "./colours.js";
import { byId, element, percent } from "./dom.js";

/** What the last layer of weights reads: what the network makes of a picture, in 128 numbers or so. */
const impression = ({ layers }) => layers.findLast(({ kind }) => kind === "linear").input.values;

/** Shows a kept explanation beside the present one. */
export class Comparison {
  constructor() {
    onThemeChange(() => this.show(this.#present));
  }

  #kept = null;
  #present = null;

  /** Keep the present explanation, or forget the one kept. */
  keep(explanation) {
    this.#kept = explanation;
    this.show(this.#present);
  }

  /** Show the present explanation beside the one kept, if there are both. */
  show(present) {
    this.#present = present;
    const box = byId("compare");
    box.hidden = !(this.#kept && present);
    if (box.hidden) return;
    const kept = this.#kept;
    const [one, other] = [impression(kept), impression(present)];
    const largest = Math.max(largestOf(one), largestOf(other));
    box.replaceChildren(
      element("div", { class: "pair" }, card("Kept", kept, one, largest), card("Now", present, other, largest)),
      element("p", { class: "sentence" }, this.#words(kept, present, alikeness(one, other))),
    );
  }

  #words({ prediction: kept, seen: before }, { prediction: now, seen: after }, alike) {
    const [pixels, units] = [alikeness(before, after), alike].map((share) => percent(Math.max(0, share)));
    const answers =
      kept.digit === now.digit ? `Both are read as ${now.digit}` : `Read as ${kept.digit} and as ${now.digit}`;
    return `${answers}. Pixel by pixel the two are ${pixels} alike; to the last layer but one they are ${units} alike.`;
  }
}

function card(title, { prediction, seen }, values, largest) {
  const picture = element("canvas", { role: "img", "aria-label": `${title}: what the network saw` });
  const units = element("canvas", {
    role: "img",
    "aria-label": `${title}: the ${values.length} numbers of the last layer but one`,
    class: "units-picture",
  });
  paint(picture, seen, 28, 28, 1);
  const height = values.length % 8 ? 1 : 8;
  paint(units, values, height, values.length / height, largest);
  return element(
    "figure",
    {},
    element(
      "figcaption",
      {},
      element("strong", {}, title),
      ` ${inWords(prediction).words}, ${percent(prediction.confidence)}`,
    ),
    element("div", { class: "pair-pictures" }, picture, units),
  );
}
