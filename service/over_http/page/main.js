// The page: what is drawn or chosen goes to the server, and its answers go to the parts of the page.

import { Bars, NO_ANSWER, NOTHING_DRAWN, showVerdict } from "./answer.js";
import { classify, explain, facts, file as fileAt, Refused } from "./api.js";
import { onThemeChange } from "./colours.js";
import { Comparison } from "./compare.js";
import { byId } from "./dom.js";
import { offerExamples } from "./examples.js";
import { Explanations } from "./explanation.js";
import { onPicture, withinLimit } from "./files.js";
import { Inside } from "./inside.js";
import { latest } from "./latest.js";
import { Pad, pictureOf } from "./pad.js";
import { showSteps } from "./seen.js";
import { offerSnippets } from "./snippets.js";

// While a stroke is drawn it is asked about so often; about its reasons, when the pen rests.
const CLASSIFY_PAUSE_MS = 50;
const EXPLAIN_PAUSE_MS = 250;
const SECTIONS = ["seen-section", "inside-section", "compare-section", "ask-section"];

function start() {
  const bars = new Bars(byId("bars"));
  const explanations = new Explanations();
  const comparison = new Comparison();
  const inside = new Inside(byId("inside"));
  let file = null; // the picture that was chosen, null while one is drawn
  let explanation = null;
  let changes = 0;
  let about = null; // who answers

  const pad = new Pad(byId("pad"), byId("pen"), () => {
    if (pad.strokes.length) choose(null);
    else changed();
  });

  function choose(picture) {
    const image = byId("picture");
    if (file) URL.revokeObjectURL(image.src);
    file = picture;
    image.hidden = !file;
    if (file) image.src = URL.createObjectURL(file);
    changed();
  }

  async function pictureNow() {
    if (file) return file;
    return pad.strokes.length ? pictureOf(pad.strokes) : null;
  }

  /** Do some work that shows what is drawn now; its place on the page is busy until nothing newer is waiting. */
  async function showing(place, work) {
    const present = changes;
    await work(await pictureNow());
    if (present === changes) byId(place).ariaBusy = "false";
  }

  function changed() {
    changes += 1;
    for (const place of ["answer", "seen-section"]) byId(place).ariaBusy = "true";
    byId("invitation").hidden = Boolean(file || pad.strokes.length);
    askForAnswer();
    askForExplanation();
  }

  const askForAnswer = latest(
    () =>
      showing("answer", async (picture) => {
        const prediction = await reporting(picture && classify(picture));
        showVerdict(prediction, picture ? NO_ANSWER : NOTHING_DRAWN);
        bars.show(prediction?.probabilities);
        if (prediction && prediction.model_version !== about?.version) tellFacts();
      }),
    CLASSIFY_PAUSE_MS,
  );

  const askForExplanation = latest(
    () =>
      showing("seen-section", async (picture) => {
        const isOpen = !byId("inside").hidden;
        explanation = await reporting(picture && explained(picture, isOpen));
        for (const section of SECTIONS) byId(section).hidden = !explanation;
        if (explanation) showSteps(explanation);
        if (explanation && isOpen) inside.show(explanation);
        refreshSnippets();
        comparison.show(explanation);
      }),
    EXPLAIN_PAUSE_MS,
    { whenStill: true },
  );

  async function explained(picture, withWeights) {
    const made = explanations.read(await explain(picture, withWeights && explanations.lacksWeights));
    // The model may have changed in between.
    if (withWeights && explanations.lacksWeights) return explanations.read(await explain(picture, true));
    return made;
  }

  /** What comes of a promise; null, with the reason on the page, where the server refuses. */
  async function reporting(promise) {
    try {
      const answer = await promise;
      byId("trouble").textContent = "";
      return answer;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      byId("trouble").textContent = error.message;
      return null;
    }
  }

  function clear() {
    choose(null);
    pad.clear();
  }

  byId("clear").addEventListener("click", clear);
  byId("undo").addEventListener("click", () => (file ? clear() : pad.undo()));
  onPicture(byId("file"), byId("sheet"), async (picture) => {
    pad.clear();
    choose(await withinLimit(picture, about?.max_image_bytes ?? Infinity));
  });
  offerExamples(
    async (address) => {
      const picture = await reporting(fileAt(address));
      if (!picture) return;
      pad.clear();
      choose(picture);
    },
    (strokes) => {
      choose(null);
      pad.play(strokes);
    },
  );
  const refreshSnippets = offerSnippets(pictureNow);

  byId("look").addEventListener("click", () => {
    const opens = byId("inside").hidden;
    byId("inside").hidden = !opens;
    byId("look").setAttribute("aria-expanded", String(opens));
    byId("look").textContent = opens ? "Close" : "Look inside";
    byId("look").classList.toggle("primary", !opens);
    if (opens) askForExplanation();
    else inside.rest();
  });

  let keeps = false;
  byId("keep").addEventListener("click", () => {
    keeps = !keeps && explanation !== null;
    comparison.keep(keeps ? explanation : null);
    bars.showKept(keeps ? explanation.prediction.probabilities : null);
    byId("keep").textContent = keeps ? "Forget the kept drawing" : "Keep this drawing";
  });

  onThemeChange(() => {
    pad.redraw();
    if (explanation) showSteps(explanation);
  });

  /** Tell who answers: at the start, and when another model does. */
  async function tellFacts() {
    const told = await reporting(facts());
    if (!told) return;
    about = told;
    byId("facts").textContent =
      `version ${about.server_version} · model ${about.name}/${about.version} · ${about.providers.join(", ")}`;
    byId("model").textContent =
      `${about.network}; reads ${(100 * about.accuracy).toFixed(2)} % right of the ${about.tested_on}.`;
  }
  tellFacts();
}

start();
