// Decides whether a picture looks like a frontal chest radiograph: the statistics of the demo's gate, and its fitted numbers.
import { BOX, resize } from "./resize.js";

const SIDE = 32;
// Where lungs and mediastinum lie in an upright frontal chest: rows, and columns of the thumbnail.
const ROWS = [8, 20];
const [RIGHT, LEFT, MIDDLE] = [[6, 13], [19, 26], [14, 18]];
const BINS = 64;
const MOST_DEVIATIONS = 6;

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const deviation = (values) => {
  const centre = mean(values);
  return Math.sqrt(mean(values.map((value) => (value - centre) ** 2)));
};

function thumbnail(picture, side) {
  return Array.from(resize(picture, side, side, BOX).pixels, (pixel) => pixel / 255);
}

function correlation(first, second) {
  const [one, other] = [mean(first), mean(second)];
  let [product, squares, others] = [0, 0, 0];
  first.forEach((value, index) => {
    product += (value - one) * (second[index] - other);
    squares += (value - one) ** 2;
    others += (second[index] - other) ** 2;
  });
  return product / Math.max(Math.sqrt(squares * others), 1e-6);
}

/** Return the numbers that the gate decides by, in the order of gate.json's "statistics". */
export function statistics(picture, template) {
  const small = thumbnail(picture, SIDE);
  const centre = mean(small);
  const spread = Math.max(deviation(small), 1e-6);
  const level = small.map((value) => (value - centre) / spread);
  const rows = Array.from({ length: SIDE }, (_, row) => level.slice(row * SIDE, (row + 1) * SIDE));
  const region = ([first, last]) => mean(rows.slice(...ROWS).flatMap((row) => row.slice(first, last)));
  const [middle, right, left] = [MIDDLE, RIGHT, LEFT].map(region);
  const { roughness, edges, histogram } = texture(thumbnail(picture, 4 * SIDE), 4 * SIDE);
  const shares = histogram.filter((share) => share > 0);
  return [
    correlation(level, template),
    correlation(level, rows.flatMap((row) => [...row].reverse())),
    2 * middle - right - left,
    middle - Math.max(right, left),
    Math.log(roughness + 1e-4),
    Math.log(edges + 1e-4),
    histogram[0],
    histogram[BINS - 1],
    -shares.reduce((sum, share) => sum + share * Math.log(share), 0),
    mean(histogram.map((share) => (share < 1e-4 ? 1 : 0))),
    deviation(rows.map(mean)),
    mean(rows.slice(20).flat()) - mean(rows.slice(0, 12).flat()),
  ];
}

function texture(fine, side) {
  let [rough, strong] = [0, 0];
  for (let y = 2; y < side - 2; y++) {
    for (let x = 2; x < side - 2; x++) {
      const place = y * side + x;
      rough += Math.abs(fine[place] - (fine[place - side] + fine[place - 1] + fine[place + side] + fine[place + 1]) / 4);
    }
  }
  for (let y = 1; y < side; y++) {
    for (let x = 1; x < side; x++) {
      const place = y * side + x;
      const step = Math.abs(fine[place] - fine[place - 1]) + Math.abs(fine[place] - fine[place - side]);
      strong += step > 0.2 ? 1 : 0;
    }
  }
  const histogram = new Array(BINS).fill(0);
  for (const value of fine) histogram[Math.min(BINS - 1, Math.floor(value * BINS))] += 1 / fine.length;
  return { roughness: rough / (side - 4) ** 2, edges: strong / (side - 1) ** 2, histogram };
}

/** Return whether a picture of 8 bits looks like a frontal chest radiograph, by the content of gate.json. */
export function passes(picture, gate) {
  const away = statistics(picture, gate.template.flat()).map((value, index) => {
    const distance = (value - gate.mean[index]) / gate.scale[index];
    return Math.min(MOST_DEVIATIONS, Math.max(-MOST_DEVIATIONS, distance));
  });
  const deviations = [...away, ...away.map(Math.abs)];
  return deviations.reduce((sum, value, index) => sum + value * gate.weights[index], gate.bias) > 0;
}
