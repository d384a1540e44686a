// Pictures of the page for people: node pictures.cjs ADDRESS FOLDER. Prints their names as JSON.

const { join } = require("node:path");
const { startBrowser, draw } = require("./hand.cjs");

const [, , address, folder] = process.argv;
const DESKTOP = { viewport: { width: 1240, height: 850 }, reducedMotion: "reduce" };
const PHONE = {
  viewport: { width: 390, height: 844 },
  deviceScaleFactor: 1.5,
  isMobile: true,
  hasTouch: true,
  reducedMotion: "reduce",
};
const names = [];

async function open(browser, options, digit) {
  const page = await (await browser.newContext(options)).newPage();
  await page.goto(address);
  await draw(page, digit);
  await page.mouse.move(5, 5);
  return page;
}

async function take(page, name, options = {}) {
  names.push(name);
  await page.screenshot({ path: join(folder, name), animations: "disabled", ...options });
}

async function main() {
  const browser = await startBrowser();
  try {
    const desk = await open(browser, DESKTOP, 3);
    await take(desk, "page.png");
    await desk.click("#look");
    await desk.waitForSelector(".map-layer");
    await desk.mouse.move(5, 5);
    const { x, y, width, height } = await desk.locator("#inside-section").boundingBox();
    const scrolled = await desk.evaluate(() => scrollY);
    await take(desk, "page-inside.png", {
      fullPage: true,
      clip: { x: x - 32, y: y + scrolled - 24, width: width + 64, height: height + 48 },
    });
    await take(await open(browser, { ...DESKTOP, colorScheme: "dark" }, 3), "page-dark.png");
    await take(await open(browser, PHONE, 4), "page-phone.png");
  } finally {
    await browser.close();
  }
  console.log(JSON.stringify(names));
}

main().catch((error) => {
  console.error(error.stack);
  process.exit(1);
});
