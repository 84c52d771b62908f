// The inverse DCT of libjpeg, in its whole numbers: at full scale (jidctint.c) and at 1/2, 1/4 and 1/8 (jidctred.c).
// Each pass takes lines of 8 coefficients, 13 bits of constants and, between the passes, 2 bits more precision (1 at 12 bits).

const BITS = 13;

/** Turn a line of 8 into 8; the result has 13 bits too many. */
function line8(line, out) {
  const [a0, a1, a2, a3, a4, a5, a6, a7] = line;
  const even = (a2 + a6) * 4433;
  const [low, high] = [even - a6 * 15137, even + a2 * 6270];
  const [sum, difference] = [(a0 + a4) * 8192, (a0 - a4) * 8192];
  const [e0, e1, e2, e3] = [sum + high, difference + low, difference - low, sum - high];
  const shared = (a7 + a3 + a5 + a1) * 9633;
  const [z1, z2] = [(a7 + a1) * -7373, (a5 + a3) * -20995];
  const [z3, z4] = [(a7 + a3) * -16069 + shared, (a5 + a1) * -3196 + shared];
  const o0 = a7 * 2446 + z1 + z3;
  const o1 = a5 * 16819 + z2 + z4;
  const o2 = a3 * 25172 + z2 + z3;
  const o3 = a1 * 12299 + z1 + z4;
  out[0] = e0 + o3; out[7] = e0 - o3; out[1] = e1 + o2; out[6] = e1 - o2;
  out[2] = e2 + o1; out[5] = e2 - o1; out[3] = e3 + o0; out[4] = e3 - o0;
}

/** Turn a line of 8 into 4; the result has 14 bits too many. */
function line4(line, out) {
  const [a0, a1, a2, a3, , a5, a6, a7] = line;
  const [centre, side] = [a0 * 16384, a2 * 15137 - a6 * 6270];
  const inner = a7 * -1730 + a5 * 11893 - a3 * 17799 + a1 * 8697;
  const outer = a7 * -4176 - a5 * 4926 + a3 * 7373 + a1 * 20995;
  out[0] = centre + side + outer; out[3] = centre + side - outer;
  out[1] = centre - side + inner; out[2] = centre - side - inner;
}

/** Turn a line of 8 into 2; the result has 15 bits too many. */
function line2(line, out) {
  const odd = line[7] * -5906 + line[5] * 6967 - line[3] * 10426 + line[1] * 29692;
  out[0] = line[0] * 32768 + odd;
  out[1] = line[0] * 32768 - odd;
}

const LINES = { 8: [line8, 0], 4: [line4, 1], 2: [line2, 2] };

/**
 * Return a function that turns a block of coefficients into pixels.
 *
 * @param size pixels a side that a block becomes: 8, 4, 2 or 1.
 * @param precision bits of a sample, 8 or 12.
 * @returns {function} (coefficients, start, table, output, place, stride): the 64 coefficients from `start` in natural order,
 *   the table they are multiplied by, and where the first pixel goes.
 */
export function inverseDct(size, precision) {
  const [middle, most] = [1 << (precision - 1), (1 << precision) - 1];
  const clamp = (value) => Math.min(most, Math.max(0, value + middle));
  if (size === 1) {
    return (coefficients, start, table, output, place) => {
      output[place] = clamp((coefficients[start] * table[0] + 4) >> 3);
    };
  }
  const [transform, extra] = LINES[size];
  const between = precision === 8 ? 2 : 1;
  const [first, second] = [BITS + extra - between, BITS + extra + between + 3];
  const line = new Float64Array(8);
  const out = new Float64Array(8);
  const work = new Int32Array(8 * size);  // a column after the other, each of `size`
  return (coefficients, start, table, output, place, stride) => {
    for (let column = 0; column < 8; column++) {
      for (let row = 0; row < 8; row++) line[row] = coefficients[start + row * 8 + column] * table[row * 8 + column];
      transform(line, out);
      for (let row = 0; row < size; row++) work[column * size + row] = (out[row] + (1 << (first - 1))) >> first;
    }
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < 8; column++) line[column] = work[column * size + row];
      transform(line, out);
      for (let column = 0; column < size; column++) {
        output[place + row * stride + column] = clamp((out[column] + (1 << (second - 1))) >> second);
      }
    }
  };
}
