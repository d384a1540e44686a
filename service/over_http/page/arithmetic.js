// The arithmetic of the layers, number by number, in double precision; knows no page.

/** Indices of the largest values of an array, largest first. */
export function strongest(values, count, size = (value) => value) {
  return [...values.keys()].sort((one, other) => size(values[other]) - size(values[one])).slice(0, count);
}

/** The softmax of numbers divided by a temperature. */
export function softmax(logits, temperature) {
  const peak = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp((logit - peak) / temperature));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

/** How much numbers point the same way: 1 alike, 0 unrelated. */
export function alikeness(one, other) {
  const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
  const lengths = Math.sqrt(dot(one, one) * dot(other, other));
  return lengths ? dot(one, other) / lengths : 0;
}

/** The part of the input that a pixel of a layer's output looks at: first row and column, height and width. */
export function windowOf(layer, row, column) {
  const [height, width] = layer.kernel;
  return { row: row * layer.stride - layer.padding, column: column * layer.stride - layer.padding, height, width };
}

/** The values of one map of a tensor within a window; beyond the edge lies 0. */
export function patchOf(tensor, map, { row, column, height, width }) {
  const [, rows, columns] = tensor.shape;
  const values = tensor.map(map);
  return Array.from({ length: height * width }, (_, index) => {
    const down = row + Math.floor(index / width);
    const right = column + (index % width);
    return down < 0 || right < 0 || down >= rows || right >= columns ? 0 : values[down * columns + right];
  });
}

/**
 * How a convolution makes one pixel of one map.
 *
 * Returns for each map of the input the patch, the kernel, their products and
 * the sum of these, and then the bias and the sum of all.
 */
export function convolution(layer, map, row, column) {
  const place = windowOf(layer, row, column);
  const size = place.height * place.width;
  const kernels = layer.weights.map(map);
  const parts = Array.from({ length: layer.input.shape[0] }, (_, source) => {
    const patch = patchOf(layer.input, source, place);
    const kernel = Array.from(kernels.subarray(source * size, (source + 1) * size));
    const products = patch.map((value, index) => value * kernel[index]);
    return { patch, kernel, products, sum: products.reduce((sum, product) => sum + product, 0) };
  });
  const bias = layer.biases.values[map];
  return { parts, bias, sum: parts.reduce((sum, part) => sum + part.sum, bias) };
}

/** How a unit of a fully connected layer is made: every input times its weight, the bias, and the sum of all. */
export function connection(layer, unit) {
  const weights = layer.weights.map(unit);
  const inputs = layer.input.values;
  const products = Array.from(inputs, (value, index) => value * weights[index]);
  const bias = layer.biases.values[unit];
  return { inputs, weights, products, bias, sum: products.reduce((sum, product) => sum + product, bias) };
}
