/** Raised for what cannot be read as a radiograph. The message is one line: the name, what is wrong, what to do. */
export class RadiographError extends Error {}

/** Return a number as Python's format "g" writes it: at most 6 digits. */
export const general = (number) => String(Number(number.toPrecision(6)));

/** Return the whole number nearest to a number, the even one of two: as Python's round and numpy's rint. */
export function roundHalfEven(number) {
  const below = Math.floor(number);
  const rest = number - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}
