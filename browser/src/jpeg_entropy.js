// The bits of a JPEG's scans: Huffman codes, and the coefficients of sequential and progressive scans (ITU-T T.81).

/** The natural place of each coefficient in the order in which they are coded. */
export const ZIGZAG = [
  0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28, 35, 42, 49, 56,
  57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/** Raised for a stream that is no JPEG's; the message says in a few words what is wrong. */
export class JpegError extends Error {}

/** Return a table of 65536 entries, code length << 8 | symbol, 0 where there is no such code. */
export function huffmanTable(counts, symbols) {
  const table = new Uint16Array(65536);
  let [code, place] = [0, 0];
  for (let length = 1; length <= 16; length++, code *= 2) {
    for (let index = 0; index < counts[length - 1]; index++, code++, place++) {
      if (code >= 1 << length) throw new JpegError("a Huffman table");
      table.fill((length << 8) | symbols[place], code << (16 - length), (code + 1) << (16 - length));
    }
  }
  return table;
}

/** Reads bits of a scan; a marker ends them. */
export class Bits {
  constructor(bytes, place) {
    this.bytes = bytes;
    this.place = place;
    this.restart();
  }

  /** Forget the bits that are left of the byte. */
  restart() {
    this.held = 0;
    this.count = 0;
    this.invented = 0;
  }

  /** Go behind the next restart marker. */
  nextInterval() {
    const isRestart = (place) => this.bytes[place] === 0xff && this.bytes[place + 1] >= 0xd0 && this.bytes[place + 1] <= 0xd7;
    while (this.place + 1 < this.bytes.length && !isRestart(this.place)) this.place++;
    if (this.place + 1 >= this.bytes.length) throw new JpegError("its pixels are cut short");
    this.place += 2;
    this.restart();
  }

  /** Hold at least 16 bits; behind the end of a scan they are zeros, of which no more than a few are ever looked at. */
  fill() {
    while (this.count <= 16) {
      let byte = this.bytes[this.place];
      if (byte === undefined || (byte === 0xff && this.bytes[this.place + 1] !== 0)) {
        byte = 0;
        this.invented += 8;
      } else this.place += byte === 0xff ? 2 : 1;
      this.held = ((this.held << 8) | byte) & 0xffffffff;
      this.count += 8;
    }
  }

  /** Return a number of so many bits, up to 16. */
  take(bits) {
    if (bits === 0) return 0;
    this.fill();
    this.count -= bits;
    if (this.invented > this.count) throw new JpegError("its pixels are cut short");
    return (this.held >>> this.count) & ((1 << bits) - 1);
  }

  /** Return the next symbol of a Huffman table. */
  symbol(table) {
    this.fill();
    const entry = table[(this.held >>> (this.count - 16)) & 0xffff];
    if (entry === 0) throw new JpegError("a code that is in no table");
    this.count -= entry >> 8;
    if (this.invented > this.count) throw new JpegError("its pixels are cut short");
    return entry & 0xff;
  }

  /** Return a signed number of so many bits, as differences and coefficients are written (T.81, F.2.2.1). */
  signed(bits) {
    if (bits === 0) return 0;
    const value = this.take(bits);
    return value < 1 << (bits - 1) ? value - (1 << bits) + 1 : value;
  }
}

/**
 * Return what decodes a block of a scan into its 64 coefficients.
 *
 * @param scan {start, end, high, low}: which coefficients, and which of their bits, a progressive scan brings.
 * @param state {endOfBand}, which progressive scans go on with.
 * @returns {function} (bits, component, coefficients, place): component has `dc` and `ac` tables and its last `dcValue`.
 */
export function blockDecoder(isProgressive, scan, state) {
  if (!isProgressive) return sequential;
  if (scan.start === 0) {
    return scan.high === 0
      ? (bits, component, coefficients, place) => { coefficients[place] = nextDc(bits, component) << scan.low; }
      : (bits, component, coefficients, place) => { if (bits.take(1)) coefficients[place] |= 1 << scan.low; };
  }
  return scan.high === 0 ? firstBand(scan, state) : refinedBand(scan, state);
}

function nextDc(bits, component) {
  const length = bits.symbol(component.dc);
  if (length > 16) throw new JpegError("a coefficient");
  component.dcValue += bits.signed(length);
  return component.dcValue;
}

function sequential(bits, component, coefficients, place) {
  coefficients[place] = nextDc(bits, component);
  for (let index = 1; index < 64; index++) {
    const symbol = bits.symbol(component.ac);
    const [run, length] = [symbol >> 4, symbol & 15];
    if (length === 0) {
      if (run < 15) return;
      index += 15;
      continue;
    }
    index += run;
    if (index > 63) throw new JpegError("a block with too many coefficients");
    coefficients[place + ZIGZAG[index]] = bits.signed(length);
  }
}

function firstBand({ start, end, low }, state) {
  return (bits, component, coefficients, place) => {
    if (state.endOfBand > 0) return void state.endOfBand--;
    for (let index = start; index <= end; index++) {
      const symbol = bits.symbol(component.ac);
      const [run, length] = [symbol >> 4, symbol & 15];
      if (length === 0 && run < 15) {
        state.endOfBand = (1 << run) + bits.take(run) - 1;
        return;
      }
      index += run;
      if (length === 0) continue;
      if (index > end) throw new JpegError("a block with too many coefficients");
      coefficients[place + ZIGZAG[index]] = bits.signed(length) * (1 << low);
    }
  };
}

function refinedBand({ start, end, low }, state) {
  const step = 1 << low;
  const refine = (bits, coefficients, place) => {
    const value = coefficients[place];
    if (bits.take(1) && (Math.abs(value) & step) === 0) coefficients[place] += value > 0 ? step : -step;
  };
  return (bits, component, coefficients, place) => {
    let index = start;
    for (; state.endOfBand === 0 && index <= end; index++) {
      const symbol = bits.symbol(component.ac);
      let run = symbol >> 4;
      let fresh = 0;
      if (symbol & 15) fresh = bits.take(1) ? step : -step;
      else if (run < 15) {
        state.endOfBand = (1 << run) + bits.take(run);
        break;
      }
      for (; index <= end; index++) {
        const where = place + ZIGZAG[index];
        if (coefficients[where] !== 0) refine(bits, coefficients, where);
        else if (run-- === 0) break;
      }
      if (fresh && index <= end) coefficients[place + ZIGZAG[index]] = fresh;
    }
    if (state.endOfBand > 0) {
      for (; index <= end; index++) {
        const where = place + ZIGZAG[index];
        if (coefficients[where] !== 0) refine(bits, coefficients, where);
      }
      state.endOfBand--;
    }
  };
}
