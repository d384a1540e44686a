// The request for the present picture, for a shell and for Python.

import { byId, element } from "./dom.js";

const LINE = 76;

async function base64Of(picture) {
  const bytes = new Uint8Array(await picture.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192)
    text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  return btoa(text).replace(new RegExp(`.{${LINE}}`, "g"), "$&\n");
}

const LANGUAGES = {
  curl: (address, picture) => `base64 -d <<END | curl -s --data-binary @- ${address}\n${picture}\nEND\n`,
  Python: (address, picture) => `import base64
import json
import urllib.request

picture = base64.b64decode("""
${picture}
""")
with urllib.request.urlopen("${address}", picture) as response:
    answer = json.load(response)
print(answer["digit"], answer["confidence"], answer["rejection_reason"] or "trust it")
`,
};

/** Offer the request that classifies the picture which `pictureNow` gives; call what is returned when it is another. */
export function offerSnippets(pictureNow) {
  const told = element("p", { class: "hint", role: "status" });
  const refills = [];
  const blocks = Object.entries(LANGUAGES).map(([language, write]) => {
    const text = element("textarea", {
      readonly: true,
      rows: "9",
      spellcheck: "false",
      "aria-label": `The request in ${language}`,
    });
    const fill = async () => {
      const picture = await pictureNow();
      if (picture) text.value = write(new URL("v1/classify", document.baseURI).href, await base64Of(picture));
    };
    const copy = async () => {
      await fill();
      // The clipboard of browsers is for secure pages and this machine; elsewhere the old way works.
      text.closest("details").open = true;
      text.select();
      if (navigator.clipboard)
        await navigator.clipboard.writeText(text.value).catch(() => document.execCommand("copy"));
      else document.execCommand("copy");
      told.textContent = `The ${language} request is copied.`;
    };
    const details = element("details", { ontoggle: fill }, element("summary", {}, `Show it in ${language}`), text);
    refills.push(() => details.open && fill());
    return element(
      "div",
      {},
      element("button", { type: "button", id: `copy-${language.toLowerCase()}`, onclick: copy }, `Copy as ${language}`),
      details,
    );
  });
  byId("snippets").append(...blocks, told);
  return () => {
    told.textContent = "";
    refills.forEach((refill) => refill());
  };
}
