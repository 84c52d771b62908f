// How well a picture fits what the network was trained on, as gate_cxrfpn.py computes it; model.json holds the weights.
import { BOX, resize } from "./resize.js";

// As in gate_cxrfpn.py: sides of thumbnails, where lungs and mediastinum lie in the placed one, and the grey levels counted.
const [SIDE, PLACED_SIDE, FINE_SIDE, DENSEST_SIDE] = [16, 32, 128, 512];
const ROWS = [8, 20];
const [RIGHT, LEFT, MIDDLE] = [[6, 13], [19, 26], [14, 18]];
const BINS = 64;
// Single precision, in which Python counts edges and grey levels: in double, some would fall on the other side of a limit.
const { fround } = Math;
const [STRONG_EDGE, BINS_BELOW] = [fround(0.2), fround(63.999)];

const sum = (values) => values.reduce((total, value) => total + value, 0);
const mean = (values) => sum(values) / values.length;
const dot = (first, second) => first.reduce((total, value, index) => total + value * second[index], 0);
const deviation = (values) => {
  const centre = mean(values);
  return Math.sqrt(mean(values.map((value) => (value - centre) ** 2)));
};
const rowsOf = (values, side) => Array.from({ length: side }, (_, row) => values.slice(row * side, (row + 1) * side));
const mirrored = (rows) => rows.map((row) => [...row].reverse());
const turned = (rows) => rows.map((_, row) => rows.map((other) => other[rows.length - 1 - row]));
const unevenness = (rows) => {
  const other = mirrored(rows).flat();
  return rows.flat().map((value, index) => value - other[index]);
};

/**
 * Return how well a picture {pixels, width, height} of 8 bits fits, 0 to 1.
 *
 * @param gate of model.json: the parts of Python's Gate.
 */
export function filmFit(picture, gate) {
  const inputs = layerInputs(features(picture), gate);
  const hidden = gate.hidden_bias.map((bias, unit) => Math.max(0, inputs.reduce((total, value, index) => total + value * gate.hidden[index][unit], bias)));
  const score = dot(hidden, gate.output) + gate.output_bias[0];
  return 1 / (1 + Math.exp(-Math.min(30, Math.max(-30, score))));
}

/** Return {thumbnail, statistics}: the thumbnail in standard units, and the numbers of STATISTICS in gate_cxrfpn.py. */
function features(picture) {
  const fine = Array.from(resize(thinned(picture), FINE_SIDE, FINE_SIDE, BOX).pixels, (pixel) => fround(pixel / 255));
  const placed = shrink(fine, FINE_SIDE, PLACED_SIDE);
  const [centre, spread] = [mean(placed), Math.max(deviation(placed), 1e-6)];
  const level = placed.map((value) => (value - centre) / spread);
  const rows = rowsOf(level, PLACED_SIDE);
  const region = ([first, last]) => mean(rows.slice(...ROWS).flatMap((row) => row.slice(first, last)));
  const [middle, right, left] = [MIDDLE, RIGHT, LEFT].map(region);
  const { roughness, edges } = texture(rowsOf(fine, FINE_SIDE));
  const shares = new Array(BINS).fill(0);
  for (const value of fine) shares[Math.floor(fround(value * BINS_BELOW))] += 1 / fine.length;
  const statistics = [
    dot(level, mirrored(rows).flat()) / level.length,
    2 * middle - right - left,
    middle - Math.max(right, left),
    right - left,
    Math.log(roughness + 1e-4),
    Math.log(edges + 1e-4),
    shares[0],
    shares[BINS - 1],
    -sum(shares.filter((share) => share > 0).map((share) => share * Math.log(share))),
    mean(shares.map((share) => (share < 1e-4 ? 1 : 0))),
    deviation(rows.map(mean)),
    mean(rows.slice(20).flat()) - mean(rows.slice(0, 12).flat()),
  ];
  return { thumbnail: shrink(level, PLACED_SIDE, SIDE), statistics };
}

/** Return a large picture with as many pixels left out between two as Python leaves out. */
function thinned({ pixels, width, height }) {
  const step = Math.max(1, Math.floor(Math.min(width, height) / DENSEST_SIDE));
  if (step === 1) return { pixels, width, height };
  const [across, down] = [width, height].map((length) => Math.ceil(length / step));
  const kept = new Uint8Array(across * down);
  for (let y = 0; y < down; y++) for (let x = 0; x < across; x++) kept[y * across + x] = pixels[y * step * width + x * step];
  return { pixels: kept, width: across, height: down };
}

/** Return [size * size] -> [side * side], each the mean of what it covers. */
function shrink(values, size, side) {
  const scale = size / side;
  const small = new Array(side * side).fill(0);
  values.forEach((value, index) => {
    small[Math.floor(index / size / scale) * side + Math.floor((index % size) / scale)] += value / scale ** 2;
  });
  return small;
}

/** Return how far pixels lie from their neighbours on average, and the share of strong edges. */
function texture(rows) {
  let [rough, strong] = [0, 0];
  for (let y = 1; y < rows.length; y++) {
    for (let x = 1; x < rows.length; x++) {
      const value = rows[y][x];
      const step = fround(Math.abs(fround(value - rows[y][x - 1])) + Math.abs(fround(value - rows[y - 1][x])));
      if (step > STRONG_EDGE) strong++;
      if (y === rows.length - 1 || x === rows.length - 1) continue;
      rough += Math.abs(value - (rows[y - 1][x] + rows[y + 1][x] + rows[y][x - 1] + rows[y][x + 1]) / 4);
    }
  }
  return { roughness: rough / (rows.length - 2) ** 2, edges: strong / (rows.length - 1) ** 2 };
}

function layerInputs({ thumbnail, statistics }, gate) {
  const away = [...thumbnail, ...statistics].map((value, index) => Math.min(4, Math.max(-4, (value - gate.mean[index]) / gate.scale[index])));
  const placed = away.slice(0, thumbnail.length);
  return [
    ...away,
    ...away.slice(thumbnail.length).map(Math.abs),
    ...likenesses(thumbnail, gate.mean.slice(0, thumbnail.length)).map((likeness) => 3 * likeness),
    mean(placed.map(Math.abs)),
    mean(placed.map((value) => value ** 2)),
  ];
}

/** Return a thumbnail's likeness to the mean one in all eight ways of turning and mirroring it, and in what is not symmetric. */
function likenesses(thumbnail, meanThumbnail) {
  const rows = rowsOf(meanThumbnail, SIDE);
  const ways = [rows, mirrored(rows)].flatMap((first) => {
    const quarters = [first];
    while (quarters.length < 4) quarters.push(turned(quarters.at(-1)));
    return quarters;
  });
  const mine = unit(thumbnail);
  const uneven = unit(unevenness(rows));
  return [
    ...ways.map((way) => dot(mine, unit(way.flat()))),
    dot(unit(unevenness(rowsOf(thumbnail, SIDE))), uneven),
    dot(thumbnail, uneven),
  ];
}

/** Return values without their mean, of length 1. */
function unit(values) {
  const centre = mean(values);
  const centred = values.map((value) => value - centre);
  const length = Math.sqrt(dot(centred, centred)) + 1e-6;
  return centred.map((value) => value / length);
}
