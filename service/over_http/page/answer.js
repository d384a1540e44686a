// The verdict in words, and ten bars.

import { byId, element, percent } from "./dom.js";

const article = (digit) => (digit === 8 ? "an 8" : `a ${digit}`);

/** What a prediction means, in a few words and in a sentence. */
export function inWords({ digit, confidence, probabilities, rejection_reason: reason }) {
  const named = article(digit);
  const capital = named[0].toUpperCase() + named.slice(1);
  if (reason === "blank") return { words: "A blank sheet", more: "There is no ink that could be read." };
  if (reason === "not a digit") return { words: "Not a digit", more: `If it had to be one: ${named}.` };
  if (reason === "ambiguous") {
    const [first, second] = [...probabilities.keys()].sort((one, other) => probabilities[other] - probabilities[one]);
    return {
      words: `${article(first)} or ${article(second)}`.replace("a", "A"),
      more: "No digit has half of the probability.",
    };
  }
  const sure = [
    [0.99, "very sure"],
    [0.95, "quite sure"],
    [0.8, "fairly sure"],
    [0, "not very sure"],
  ].find(([least]) => confidence >= least)[1];
  const right = Math.min(99, Math.floor(100 * confidence));
  const share = confidence > 0.995 ? "more than 99" : `about ${right}`;
  return { words: `${capital}, ${sure}`, more: `Of 100 digits it is this sure of, ${share} are read right.` };
}

/** Ten rows of digit, bar and percentage; a second, thinner bar is that of a drawing kept to compare. */
export class Bars {
  constructor(list) {
    this.#rows = Array.from({ length: 10 }, (_, digit) => {
      const bar = element("span", { class: "bar-now" });
      const kept = element("span", { class: "bar-kept", hidden: true });
      const share = element("span", { class: "bar-share" }, "–");
      const row = element(
        "li",
        {},
        element("span", { class: "bar-digit" }, String(digit)),
        element("span", { class: "bar", "aria-hidden": "true" }, bar, kept),
        share,
      );
      list.append(row);
      return { row, bar, kept, share };
    });
  }

  #rows;

  /** Show ten probabilities, or none. */
  show(probabilities) {
    const best = probabilities ? probabilities.indexOf(Math.max(...probabilities)) : -1;
    this.#rows.forEach(({ row, bar, share }, digit) => {
      const value = probabilities?.[digit] ?? 0;
      bar.style.width = `${100 * value}%`;
      share.textContent = probabilities ? percent(value) : "–";
      row.classList.toggle("best", digit === best);
    });
  }

  /** Show the probabilities of a drawing that was kept, or none. */
  showKept(probabilities) {
    this.#rows.forEach(({ kept }, digit) => {
      kept.hidden = !probabilities;
      kept.style.width = `${100 * (probabilities?.[digit] ?? 0)}%`;
    });
    byId("kept-legend").hidden = !probabilities;
  }
}

export const NOTHING_DRAWN = { words: "Nothing drawn yet", more: "The answer follows your pen." };
export const NO_ANSWER = { words: "No answer", more: "Why, is written below the sheet." };

/** Write the verdict on a prediction, or why there is none. */
export function showVerdict(prediction, none) {
  const { words, more } = prediction ? inWords(prediction) : none;
  byId("verdict-digit").textContent = prediction && prediction.rejection_reason !== "blank" ? prediction.digit : "?";
  byId("verdict").textContent = words;
  byId("verdict-more").textContent = more;
  byId("answer").classList.toggle("waiting", !prediction);
  byId("answer").classList.toggle("rejected", Boolean(prediction?.rejected));
}
