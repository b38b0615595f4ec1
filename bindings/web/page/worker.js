// Keeps the page's files for when there is no network: what the server gives is stored, and what it does not give is taken
// from there. Only the page's own files are stored.
const STORE = "kinglet";
const FILES = [
  "./",
  "page.css",
  "page.js",
  "icon.svg",
  "kinglet/kinglet.js",
  "kinglet/glue.js",
  "kinglet/kinglet.wasm",
  "kinglet/kinglet-simd.wasm",
  "models/intents.kinglet",
].map((file) => new URL(file, self.registration.scope).href);

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(STORE).then((store) => store.addAll(FILES)).then(() => self.skipWaiting()));
});
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

async function answer(request, name) {
  const store = await caches.open(STORE);
  try {
    const fresh = await fetch(request);
    if (fresh.ok) await store.put(name, fresh.clone());
    return fresh;
  } catch (error) {
    const stored = await store.match(name);
    if (stored) return stored;
    throw error;
  }
}

self.addEventListener("fetch", (event) => {
  const name = event.request.url.split(/[?#]/)[0];
  if (event.request.method === "GET" && FILES.includes(name)) event.respondWith(answer(event.request, name));
});
