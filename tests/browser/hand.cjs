// A browser, and a hand that draws.

const { chromium } = require("playwright-core");

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--disable-quic",
  "--no-first-run",
  "--disable-sync",
  "--disable-background-networking",
  "--disable-component-update",
];

// Strokes as a hand makes them, in shares of the sheet.
const STROKES = {
  3: [
    [
      [0.31, 0.27],
      [0.36, 0.21],
      [0.44, 0.17],
      [0.53, 0.17],
      [0.61, 0.21],
      [0.64, 0.28],
      [0.62, 0.36],
      [0.56, 0.42],
      [0.47, 0.46],
      [0.56, 0.47],
      [0.64, 0.52],
      [0.69, 0.6],
      [0.68, 0.7],
      [0.62, 0.78],
      [0.53, 0.83],
      [0.42, 0.83],
      [0.33, 0.79],
      [0.28, 0.73],
    ],
  ],
  4: [
    [
      [0.42, 0.16],
      [0.4, 0.26],
      [0.36, 0.37],
      [0.31, 0.48],
      [0.28, 0.55],
      [0.4, 0.56],
      [0.55, 0.55],
      [0.74, 0.53],
    ],
    [
      [0.62, 0.31],
      [0.62, 0.44],
      [0.61, 0.58],
      [0.6, 0.71],
      [0.59, 0.85],
    ],
  ],
  7: [
    [
      [0.28, 0.22],
      [0.41, 0.21],
      [0.55, 0.2],
      [0.7, 0.19],
      [0.67, 0.31],
      [0.61, 0.45],
      [0.54, 0.6],
      [0.48, 0.73],
      [0.44, 0.84],
    ],
  ],
};

async function startBrowser() {
  return chromium.launch({ executablePath: process.env.BROWSER, args: FLAGS });
}

/** Draw a digit with the mouse, and wait until the answer to it and its explanation are shown. */
async function draw(page, digit) {
  await page.click("#clear");
  const sheet = await page.locator("#pad").boundingBox();
  const place = ([x, y]) => [sheet.x + x * sheet.width, sheet.y + y * sheet.height];
  for (const stroke of STROKES[digit]) {
    await page.mouse.move(...place(stroke[0]));
    await page.mouse.down();
    for (const point of stroke.slice(1)) await page.mouse.move(...place(point));
    await page.mouse.up();
  }
  await answered(page);
}

/** Wait until the answer to what is on the sheet, and its explanation, are shown. */
async function answered(page) {
  await page.waitForSelector("#answer[aria-busy='false']");
  await page.waitForSelector("#seen-section[aria-busy='false']", { state: "attached" });
}

module.exports = { startBrowser, draw, answered };
