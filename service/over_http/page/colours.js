// Numbers as colours: paper for 0, one colour above, another below. The colours are those of the style sheet.

const NAMES = { zero: "--zero", positive: "--positive", negative: "--negative" };

/** The three colours of the present theme, as [red, green, blue]. */
export function themeColours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => {
    const hex = style.getPropertyValue(name).trim();
    return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  };
  return Object.fromEntries(Object.entries(NAMES).map(([role, name]) => [role, read(name)]));
}

/** The colour of a value on a scale that ends at `largest`. */
export function colourOf(value, largest, colours) {
  const share = largest ? Math.min(1, Math.abs(value) / largest) : 0;
  const end = value < 0 ? colours.negative : colours.positive;
  // The root shows small values, of which most maps are made.
  const strength = Math.sqrt(share);
  return colours.zero.map((from, channel) => Math.round(from + (end[channel] - from) * strength));
}

/** Black or white, whichever is easier to read on a colour. */
export function inkOn(colour) {
  const [red, green, blue] = colour.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

/** The largest absolute value. */
export const largestOf = (values) => values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);

/** Paint values as a picture, one pixel each; the style sheet enlarges it. */
export function paint(canvas, values, height, width, largest = largestOf(values)) {
  const colours = themeColours();
  const image = new ImageData(width, height);
  values.forEach((value, index) => {
    image.data.set([...colourOf(value, largest, colours), 255], 4 * index);
  });
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Call back when the theme changes. */
export function onThemeChange(callback) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", callback);
}
