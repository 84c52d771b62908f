// Where the compiled decoders come from: the page fetches them when a film first needs one, the tests read them from disk.

let load = null;

/** Say how to get a decoder's WebAssembly by its name ("webp", "jpeg-ls", "jpeg-2000"): name -> Promise of bytes. */
export function setWasmSource(source) {
  load = source;
}

/** Return the bytes of a decoder. */
export const wasmBytes = (name) => load(name);

/** Return a decoder, compiled. */
export const wasmOf = async (name) => WebAssembly.compile(await load(name));
