// The server's explanation, made ready to be shown: every layer with its input, output, title and weights.

import { Tensor } from "./api.js";

// The title of a kind of layer, and how it is called where there is little room.
const TITLES = {
  conv: ["Convolution", "Conv"],
  relu: ["ReLU", "ReLU"],
  max_pool: ["Max pooling", "Pool"],
  flatten: ["Flattening", "Flatten"],
  linear: ["Fully connected", "FC"],
  softmax: ["Softmax", "Softmax"],
};

/** Keeps the weights, which come once and are the same until the model changes. */
export class Explanations {
  #weights = new Map();
  #version = null;

  /** Whether the weights have to be asked for. */
  get lacksWeights() {
    return this.#version === null;
  }

  /** Make an explanation of the server's answer; weights are null where none have come yet. */
  read(answer) {
    if (answer.model_version !== this.#version) {
      this.#weights.clear();
      this.#version = null;
    }
    for (const { name, weights, biases } of answer.layers) {
      if (!weights) continue;
      this.#weights.set(name, { weights: Tensor.read(weights), biases: Tensor.read(biases) });
      this.#version = answer.model_version;
    }
    const seen = Float32Array.from(answer.seen.flat(), (value) => Math.fround(value / 255));
    const counts = {};
    let input = new Tensor([1, 28, 28], seen);
    const layers = answer.layers.map((layer) => {
      const output = Tensor.read(layer.output);
      counts[layer.kind] = (counts[layer.kind] ?? 0) + 1;
      const made = {
        name: layer.name,
        kind: layer.kind,
        nth: counts[layer.kind],
        kernel: layer.kernel,
        stride: layer.stride?.[0],
        padding: layer.padding?.[0],
        input,
        output,
        ...(this.#weights.get(layer.name) ?? { weights: null, biases: null }),
      };
      input = output;
      return made;
    });
    for (const layer of layers) {
      const nth = counts[layer.kind] > 1 ? ` ${layer.nth}` : "";
      [layer.title, layer.short] = (TITLES[layer.kind] ?? [layer.name, layer.name]).map((title) => title + nth);
    }
    return {
      seen,
      steps: answer.steps,
      layers,
      logits: answer.logits,
      temperature: answer.temperature,
      prediction: answer.prediction,
      occlusion: { ...answer.occlusion, values: Tensor.read(answer.occlusion.values) },
    };
  }
}
