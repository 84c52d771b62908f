// The page's side of the worker.

/** Raised for what the worker refuses; the message is one line that may be shown. */
export class Refused extends Error {}

export class Engine {
  #worker;
  #waiting = new Map();
  #last = 0;

  constructor() {
    // Started from a blob, a worker inherits the page's Content-Security-Policy; started from a file, it has none.
    const address = new URL("./worker.js", import.meta.url).href;
    const source = URL.createObjectURL(new Blob([`import ${JSON.stringify(address)};`], { type: "text/javascript" }));
    this.#worker = new Worker(source, { type: "module" });
    this.#worker.addEventListener("message", ({ data }) => this.#answer(data));
    this.#worker.addEventListener("error", () => this.#fail("the page's worker stopped; reload the page"));
  }

  /**
   * Fetch and start the network.
   *
   * @param model the content of model.json.
   * @param file {name, size} of the network.
   * @param onProgress called with a share of 0 to 1.
   */
  load(model, file, onProgress) {
    return this.#ask("load", { model, file }, onProgress);
  }

  /** Return what a DICOM header says of the patient; null for any other file. */
  header(bytes, name) {
    return this.#ask("header", { bytes, name });
  }

  /** Read one film; see worker.js. */
  read(bytes, name, patient, maps) {
    return this.#ask("read", { bytes, name, patient, maps });
  }

  #ask(kind, message, onProgress = () => {}) {
    return new Promise((resolve, reject) => {
      const id = ++this.#last;
      this.#waiting.set(id, { resolve, reject, onProgress });
      this.#worker.postMessage({ id, kind, ...message });
    });
  }

  #answer({ id, result, error, progress }) {
    const waiting = this.#waiting.get(id);
    if (progress !== undefined) return void waiting.onProgress(progress);
    this.#waiting.delete(id);
    if (error === undefined) waiting.resolve(result);
    else waiting.reject(new Refused(error));
  }

  #fail(reason) {
    for (const { reject } of this.#waiting.values()) reject(new Refused(reason));
    this.#waiting.clear();
  }
}
