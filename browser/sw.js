// Keeps the page on the device, so that it opens without a network. publish.py writes VERSION and FILES above this line.
// Answers carry the headers that give the page threads, and its Content-Security-Policy also for workers.
const NAME = `cxr-densenet-fpn ${VERSION}`;
const HEADERS = {
  "Content-Security-Policy": POLICY,
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
};

async function fetchChecked(path, digest) {
  for (const cache of ["default", "reload"]) {
    const response = await fetch(path, { cache });
    if (!response.ok) continue;
    const bytes = await response.clone().arrayBuffer();
    const found = [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found === digest) return response;
  }
  throw new Error(`${path}: is not the file that was published`);
}

async function keep() {
  const cache = await caches.open(NAME);
  for (const [path, digest] of Object.entries(FILES)) {
    const address = new URL(path === "index.html" ? "./" : path, self.registration.scope).href;
    await cache.put(address, await fetchChecked(address, digest));
  }
  await self.skipWaiting();
}

async function forgetOthers() {
  for (const name of await caches.keys()) if (name.startsWith("cxr-densenet-fpn ") && name !== NAME) await caches.delete(name);
  await self.clients.claim();
}

async function answer(request) {
  const address = new URL(request.url);
  address.search = "";
  address.pathname = address.pathname.replace(/\/index\.html$/, "/");
  const response = await (await caches.open(NAME)).match(address.href) ?? await fetch(request);
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

self.addEventListener("install", (event) => event.waitUntil(keep()));
self.addEventListener("activate", (event) => event.waitUntil(forgetOthers()));
self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && new URL(event.request.url).origin === self.location.origin) event.respondWith(answer(event.request));
});
