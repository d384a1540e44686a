// A visit to the page: node visit.cjs ADDRESS PICTURE. Prints what was seen as JSON; tests/test_page_browser.py judges it.

const { readFileSync } = require("node:fs");
const { startBrowser, draw, answered } = require("./hand.cjs");

const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [, , address, picture] = process.argv;
const seen = { complaints: [], requests: [], barriers: {} };

/** A page in a window of its own, everything it asks for and complains of noted. */
async function open(browser, options) {
  const context = await browser.newContext({ ...options, permissions: ["clipboard-read", "clipboard-write"] });
  const page = await context.newPage();
  page.setDefaultTimeout(20000);
  page.on("console", (message) => {
    // A picture that is none is refused with 400, and the browser says so.
    const expected = message.text().endsWith("400 (Bad Request)");
    if (["error", "warning"].includes(message.type()) && !expected) seen.complaints.push(message.text());
  });
  page.on("pageerror", (error) => seen.complaints.push(error.stack));
  page.on("request", (request) => seen.requests.push(request.url()));
  await page.goto(address);
  return page;
}

/** What axe-core finds wrong for people who cannot see, or cannot use a mouse. */
async function barriers(page, name) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run());
  seen.barriers[name] = violations.map(({ id, impact, nodes }) => ({
    id,
    impact,
    nodes: nodes.map(({ html }) => html.slice(0, 200)),
  }));
}

const text = (page, selector) => page.locator(selector).innerText();
const values = (page, selector) =>
  page.locator(`${selector} data`).evaluateAll((all) => all.map((each) => Number(each.value)));

/** Open a layer of the inside view, point at a pixel of its large map, and read how the pixel came about. */
async function pointAt(page, layer, row, column, side) {
  await page.click(`#tab-${layer}`);
  const canvas = page.locator(".views figure:last-of-type canvas");
  await canvas.scrollIntoViewIfNeeded();
  const map = await canvas.boundingBox();
  await page.mouse.move(map.x + ((column + 0.5) * map.width) / side, map.y + ((row + 0.5) * map.height) / side);
  return {
    row,
    column,
    sentence: await text(page, ".sentence"),
    map: await page.locator(".maps button[aria-pressed=true]").getAttribute("aria-label"),
    source: await page.locator(".views figcaption").first().innerText(),
    tables: await page
      .locator(".numbers")
      .evaluateAll((tables) =>
        tables.map((table) => [...table.querySelectorAll("data")].map((each) => Number(each.value))),
      ),
    sources: await values(page, ".sources-list"),
    terms: Object.fromEntries(
      await page
        .locator(".term data[class]")
        .evaluateAll((all) => all.map((each) => [each.className, Number(each.value)])),
    ),
  };
}

/** Draw, clear the sheet with the button still down, and move on, which draws no more. */
async function clearWhileDrawing(page) {
  const sheet = await page.locator("#pad").boundingBox();
  const move = (share) => page.mouse.move(sheet.x + share * sheet.width, sheet.y + share * sheet.height);
  await move(0.3);
  await page.mouse.down();
  await move(0.5);
  await page.keyboard.press("Escape");
  await move(0.7);
  await page.mouse.up();
  await answered(page);
  seen.cleared = await text(page, "#verdict");
}

async function drawAndLook(browser) {
  const page = await open(browser, { viewport: { width: 1280, height: 900 } });
  await barriers(page, "empty");
  seen.light = (await page.screenshot()).toString("base64");
  await page.waitForSelector("#facts:not(:empty)");
  seen.about = await text(page, "#facts");
  await clearWhileDrawing(page);
  seen.drawn = {};
  for (const digit of [3, 4, 7]) {
    await draw(page, digit);
    seen.drawn[digit] = {
      verdict: await text(page, "#verdict"),
      shares: await page.locator(".bar-share").allInnerTexts(),
    };
  }
  for (const language of ["curl", "Python"]) {
    await page.click(`#copy-${language.toLowerCase()}`);
    await page.waitForSelector(`text=The ${language} request is copied.`);
    seen[language] = await page.evaluate(() => navigator.clipboard.readText());
  }

  await page.click("#look");
  await page.waitForSelector(".map-layer");
  seen.inside = {
    conv1: await pointAt(page, "conv1", 8, 15, 24),
    relu1: await pointAt(page, "relu1", 8, 15, 24),
    pool1: await pointAt(page, "pool1", 4, 7, 12),
    conv3: await pointAt(page, "conv3", 3, 5, 8),
  };
  await page.locator(".views figure:last-of-type canvas").focus();
  await page.keyboard.press("ArrowRight");
  seen.inside.byKey = await text(page, ".sentence");
  await barriers(page, "maps");
  await page.click("#tab-fc2");
  seen.inside.fc2 = { sentence: await text(page, ".sentence"), value: (await values(page, ".equation")).at(-1) };
  await barriers(page, "units");
  await page.click("#tab-softmax");
  seen.inside.softmax = await page.locator(".softmax tbody tr.best").innerText();

  await page.click("#keep");
  await page.click("#examples button[aria-label='A letter']");
  await page.waitForSelector("#compare figcaption:has-text('Now Not a digit')");
  seen.compared = await text(page, "#compare .sentence");
  return page;
}

async function paste(page) {
  await page.click("#clear");
  await page.waitForSelector("#verdict:text-is('Nothing drawn yet')");
  await page.evaluate(async (data) => {
    const file = new Blob([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], { type: "image/png" });
    await navigator.clipboard.write([new ClipboardItem({ "image/png": file })]);
  }, readFileSync(picture).toString("base64"));
  await page.keyboard.press("Control+V");
  await page.waitForSelector("#verdict:not(:text-is('Nothing drawn yet'))");
  await answered(page);
  seen.pasted = await text(page, "#verdict");
  await page.setInputFiles("#file", { name: "letter.png", mimeType: "image/png", buffer: Buffer.from("no picture") });
  await page.waitForSelector("#verdict:text-is('No answer')");
  seen.refused = await text(page, "#trouble");
}

async function withoutMouse(browser) {
  const page = await open(browser, {
    viewport: { width: 390, height: 844 },
    colorScheme: "dark",
    isMobile: true,
    hasTouch: true,
  });
  await page.focus("#pad");
  for (let step = 0; step < 10; step += 1) await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Space");
  for (let step = 0; step < 15; step += 1) await page.keyboard.press("ArrowDown");
  await answered(page);
  seen.byKeys = await text(page, "#verdict");
  seen.wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  await page.tap("#look");
  await page.waitForSelector(".map-layer");
  seen.wider += await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  await barriers(page, "dark phone");
  seen.dark = (await page.screenshot()).toString("base64");
}

async function main() {
  const browser = await startBrowser();
  try {
    await paste(await drawAndLook(browser));
    await withoutMouse(browser);
  } finally {
    await browser.close();
  }
  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error.stack, JSON.stringify(seen.complaints));
  process.exit(1);
});
