// What the server is asked, and its answers; everything goes to the server that the page came from.

/** The server refused, or did not answer; the text is for people. */
export class Refused extends Error {}

/** An array of numbers with its shape. */
export class Tensor {
  constructor(shape, values) {
    this.shape = shape;
    this.values = values;
  }

  /** From the server's {shape, values}, the values being little-endian float32 in base64. */
  static read({ shape, values }) {
    const bytes = Uint8Array.from(atob(values), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const floats = Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
    // One picture is explained at a time; whether its batch of one is told is all the same.
    return new Tensor(shape.length === 4 && shape[0] === 1 ? shape.slice(1) : shape, floats);
  }

  /** The values of one map of several. */
  map(index) {
    const size = this.values.length / this.shape[0];
    return this.values.subarray(index * size, (index + 1) * size);
  }
}

/** The prediction for a picture (Blob). */
export const classify = (picture) => ask("v1/classify", { method: "POST", body: picture });

/** How the prediction for a picture (Blob) came about; weights are large and change with the model only. */
export const explain = (picture, withWeights) =>
  ask(`v1/explain?weights=${withWeights ? "on" : "off"}`, { method: "POST", body: picture });

/** Which model answers, and what the server accepts. */
export const facts = () => ask("page/about.json");

/** A file (Blob) of the page. */
export const file = async (address) => (await respond(address)).blob();

async function ask(address, request) {
  const response = await respond(address, request);
  return response.json().catch(() => {
    throw new Refused("The server's answer cannot be read.");
  });
}

async function respond(address, request) {
  let response;
  try {
    response = await fetch(address, { credentials: "omit", ...request });
  } catch {
    throw new Refused("The server does not answer.");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new Refused(error ?? `The server answers ${response.status} ${response.statusText}.`);
}
