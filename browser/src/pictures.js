// Pixels and maps from the worker -> addresses of pictures that the page shows.

// Black through red and yellow to white, as overlay_cxrfpn.py has it.
const GLOW = [[0, 0, 0], [120, 0, 10], [225, 60, 0], [255, 170, 20], [255, 245, 190]];

function colour(level) {
  const place = Math.min(level * (GLOW.length - 1), GLOW.length - 1);
  const [below, above] = [GLOW[Math.floor(place)], GLOW[Math.ceil(place)]];
  return below.map((value, part) => Math.round(value + (above[part] - value) * (place - Math.floor(place))));
}

// A pixel's red, green, blue and opacity, as four bytes of one number.
const pack = (red, green, blue, opacity) => ((opacity << 24) | (blue << 16) | (green << 8) | red) >>> 0;
const GREYS = Uint32Array.from({ length: 256 }, (_, level) => pack(level, level, level, 255));
const COLOURS = Uint32Array.from({ length: 256 }, (_, level) => pack(...colour(level / 255), level));

/** Return a radiograph {pixels, width, height} of 8 bits as a data URL. */
export const filmUrl = (picture) => urlOf(picture, "image/jpeg", GREYS);

/** Return a placed map of 8 bits as a data URL: each level in its colour, as opaque as it is high. */
export const mapUrl = (map) => urlOf(map, "image/png", COLOURS);

function urlOf({ pixels, width, height }, kind, table) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  const whole = new Uint32Array(image.data.buffer);
  for (let index = 0; index < pixels.length; index++) whole[index] = table[pixels[index]];
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas.toDataURL(kind, 0.9);
}

/** Return a worker's reading as the demo's reader draws it. */
export function drawable({ picture, findings, ...reading }, drawn = null) {
  return {
    ...reading, drawn, labelled: null, image: filmUrl(picture), width: picture.width, height: picture.height,
    findings: findings.map((finding) => ({ ...finding, map: finding.map === null ? null : mapUrl(finding.map) })),
  };
}
