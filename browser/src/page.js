// The page: starts its parts, loads the network, and keeps the page for times without a network.
import { Engine } from "./engine.js";
import { startManyImages } from "./many_images.js";
import { startOneImage } from "./one_image.js";
import { startTabs } from "./tabs.js";

const at = (path) => new URL(path, import.meta.url);

const dark = matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark", dark.matches);
dark.addEventListener("change", followScheme);
followScheme();

async function start() {
  const precision = new URLSearchParams(location.search).get("precision");
  const model = await (await fetch(at("./model.json"))).json();
  const engine = new Engine();
  const loading = loadNetwork(engine, model, model.files.find((file) => file.precision === precision) ?? model.files[0]);
  const props = { points: model.points, default_point: model.thresholds.default };
  startTabs({
    model: async () => {  // fetched when it is opened: its pictures would make every visit slower
      document.querySelector("#model div").innerHTML = await (await fetch(at("./figures.html"))).text();
    },
  });
  startOneImage(model, engine, props);
  startManyImages(model, engine, props);
  await loading;
  if ("serviceWorker" in navigator) navigator.serviceWorker.register(at("./sw.js"));
}

/** Load the network under a bar that shows how far it is; films that are chosen meanwhile wait for it. */
async function loadNetwork(engine, model, file) {
  const [status, bar, words] = ["status", "progress", "progress-words"].map((id) => document.getElementById(id));
  try {
    const { threads } = await engine.load(model, file, (share) => {
      bar.value = share;
      words.textContent = `Loading the model: ${Math.round(share * file.size / 1e6)} of ${Math.round(file.size / 1e6)} MB`;
    });
    status.hidden = true;
    document.documentElement.dataset.threads = threads;
    document.documentElement.dataset.ready = "true";
  } catch (error) {
    bar.hidden = true;
    words.textContent = error.message;
    words.setAttribute("role", "alert");
  }
}

start();
