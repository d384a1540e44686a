// Making elements, and writing numbers into them.

/** An element with attributes and children; "on..." attributes are listeners, false and null ones are left out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined)
      made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** The element with an id. */
export const byId = (id) => document.getElementById(id);

/** A number for people: few digits, a real minus sign. */
export function written(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

/** A number for people that carries the exact one for programs. */
export const number = (value, digits = 2, attributes = {}) =>
  element("data", { value: String(value), ...attributes }, written(value, digits));

export const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1)} %`;
