// Loads Kinglet: the module with vectors where the engine takes it, else the one without.
import init, { Classifier, Embedder, backend, Stream } from "./glue.js";

export { Classifier, Embedder, Stream };

// (module (func (result v128) i32.const 0 i8x16.splat i8x16.popcnt)): only an engine with simd128 finds it valid.
const VECTORS = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

/** Whether this engine has vectors of 128 bits. */
export const hasSimd = () => WebAssembly.validate(VECTORS);

let loading;
let memory;

async function start(simd) {
  const url = new URL(simd ? "./kinglet-simd.wasm" : "./kinglet.wasm", import.meta.url);
  let source;
  if (url.protocol === "file:") {
    // node has no fetch for files.
    const { readFile } = await import("node:fs/promises");
    source = await readFile(url);
  } else {
    source = await fetch(url);
    if (!source.ok) throw new Error(`cannot load ${url}: the server says ${source.status} ${source.statusText}`.trim());
  }
  ({ memory } = await init({ module_or_path: source }));
  return { backend: backend(), memoryBytes: () => memory.buffer.byteLength };
}

/** See kinglet.d.ts. The first call decides which module is loaded. */
export function load({ simd = hasSimd() } = {}) {
  loading ??= start(simd).catch((error) => {
    loading = undefined;
    throw error;
  });
  return loading;
}
