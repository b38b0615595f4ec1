// The page in headless Chromium, as a person uses it.
//   node tests/page.mjs SITE PLAYWRIGHT CHROMIUM TEXTS MODEL EXPECTED SCREENS
// EXPECTED: the host's lines for TEXTS. Pictures are left in SCREENS. Exits 1 when anything is not as it should be.
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { argv } from "node:process";
import { pathToFileURL } from "node:url";

const [, , site, playwright, browserPath, textsFile, modelFile, expectedFile, screens] = argv;
const { chromium } = await import(pathToFileURL(join(playwright, "index.mjs")));
const texts = (await readFile(textsFile, "utf8")).split("\n").slice(0, -1);
const expected = (await readFile(expectedFile, "utf8")).split("\n").map((line) => line.split("\t"));
await mkdir(screens, { recursive: true });

const TYPES = {
  ".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".wasm": "application/wasm",
};
function serve(port = 0) {
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
    try {
      const body = await readFile(join(site, path.endsWith("/") ? `${path}index.html` : path));
      response.writeHead(200, { "content-type": TYPES[extname(path)] ?? (path.endsWith("/") ? TYPES[".html"] : "application/octet-stream") }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  return new Promise((done) => server.listen(port, "127.0.0.1", () => done(server)));
}

let server = await serve();
const { port } = server.address();
const url = `http://127.0.0.1:${port}/`;
const work = await mkdtemp(join(tmpdir(), "kinglet-page-"));
const browser = await chromium.launch({
  executablePath: browserPath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const patient = 60_000;

/** A page of its own, with its own store; fails the test for any error of its scripts. */
async function open(query = "", { script, options } = {}) {
  const context = await browser.newContext({ viewport: { width: 900, height: 1150 }, locale: "en", ...options });
  context.setDefaultTimeout(patient);
  const page = await context.newPage();
  page.on("pageerror", (error) => assert.fail(`the page threw ${error}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !/404/.test(message.text())) assert.fail(`the page says ${message.text()}`);
  });
  if (script) await page.addInitScript(script);
  await page.goto(url + query);
  return page;
}
const shown = (page, id, text) => page.locator(`#${id}`).filter({ hasText: text }).waitFor();
const textOf = (page, id) => page.locator(`#${id}`).textContent();
const ready = (page, name = "intents.kinglet") => shown(page, "model-name", name);
const ask = (page) => page.getByRole("textbox", { name: "Ask something" });
const picture = (page, name) => page.screenshot({ path: join(screens, `${name}.png`), fullPage: true });

/** Types the golden texts; label and fingerprint must be the host's. */
async function typesGolden(page, count = texts.length) {
  let unsure = 0;
  for (let i = 0; i < count; i++) {
    await ask(page).fill(texts[i]);
    const [label, fingerprint] = expected[i];
    assert.equal(await textOf(page, "fingerprint"), fingerprint, texts[i]);
    assert.equal(await page.locator("#bars li b").first().textContent(), label, texts[i]);
    const isUnsure = await page.locator("#answer").evaluate((box) => box.classList.contains("unsure"));
    assert.equal(await textOf(page, "label"), isUnsure ? "not sure" : label);
    unsure += isUnsure;
  }
  return unsure;
}
const done = (what) => console.log(`page: ${what}`);

try {
  // 1. As it is opened.
  const page = await open();
  await ready(page);
  assert.equal(await textOf(page, "backend"), "wasm-simd128");
  assert.equal(await textOf(page, "model-size"), `${((await readFile(modelFile)).length / 1e6).toFixed(2)} MB`);
  await ask(page).pressSequentially("wake me at seven tomorrow");
  assert.equal(await textOf(page, "label"), "alarm");
  assert.ok(await page.getByRole("button", { name: "Stop" }).isHidden(), "there is nothing to stop");
  await picture(page, "answer");
  const unsure = await typesGolden(page);
  assert.ok(unsure > 0 && unsure < texts.length, `${unsure} texts are unsure`);
  await ask(page).fill("  ");
  assert.ok(await page.locator("#answer").isHidden(), "no answer without a text");
  await page.getByRole("button", { name: "how healthy is pecan pie" }).click();
  assert.equal(await textOf(page, "label"), "nutrition_info");
  done(`typed text has the host's labels and scores, wasm-simd128; ${unsure} of ${texts.length} texts are "not sure"`);

  // 2. Without vectors, by choice and because the engine has none.
  for (const [query, script] of [["?backend=scalar", undefined], ["", "WebAssembly.validate = () => false;"]]) {
    const other = await open(query, { script });
    await ready(other);
    assert.equal(await textOf(other, "backend"), "scalar");
    await typesGolden(other, query ? texts.length : 3);
    await other.context().close();
  }
  done("the same without vectors");

  // 3. No model, a damaged one, something else: the reason is shown, and what there was stays.
  const bad = await open("?model=models/none.kinglet");
  await shown(bad, "problem", "models/none.kinglet (404");
  assert.ok(await ask(bad).isDisabled());
  await picture(bad, "missing-model");
  const bundle = bad.getByLabel("Use another model.kinglet");
  const model = await readFile(modelFile);
  const damaged = Buffer.from(model);
  damaged[damaged.length >> 1] ^= 1;
  await bundle.setInputFiles({ name: "damaged.kinglet", mimeType: "application/octet-stream", buffer: damaged });
  await shown(bad, "problem", /damaged\.kinglet .*checksum/i);
  await bundle.setInputFiles({ name: "mine.kinglet", mimeType: "application/octet-stream", buffer: model });
  await ready(bad, "mine.kinglet");
  assert.ok(await bad.locator("#problem").isHidden());
  await bundle.setInputFiles({ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no model") });
  await shown(bad, "problem", "notes.txt is not a usable model");
  await typesGolden(bad, 3);
  await bad.context().close();
  await writeFile(join(site, "models/damaged.kinglet"), damaged);
  const served = await open("?model=models/damaged.kinglet");
  await shown(served, "problem", /checksum/i);
  assert.ok(await ask(served).isDisabled());
  await served.context().close();
  await rm(join(site, "models/damaged.kinglet"));
  done("a missing and a damaged model are refused with the reason");

  // 4. A long document: the answer of the text at once, a page that answers meanwhile, and memory that does not grow.
  const document = `${texts.join("\n")}\n`.repeat(300);
  const { Classifier, load } = await import(pathToFileURL(join(site, "kinglet/kinglet.js")));
  await load();
  const batch = new Classifier(model).classify(document, 1);
  await writeFile(join(work, "long.txt"), document);
  await writeFile(join(work, "marked.txt"), `\ufeff${texts[0]}`);
  await page.getByLabel("Choose a text file").setInputFiles(join(work, "long.txt"));
  await page.locator("#document-bars li").first().waitFor();
  const memory = await textOf(page, "memory");
  await typesGolden(page, 2);
  assert.equal(await textOf(page, "document-state"), "reading", "texts are answered while the document is read");
  await picture(page, "reading");
  await shown(page, "document-state", "complete");
  assert.match(await textOf(page, "document-facts"), new RegExp(`^${batch.tokens.toLocaleString("en")} tokens in .*, scores ${batch.fingerprint}$`));
  assert.equal(await page.locator("#document-bars li b").first().textContent(), batch.top[0].label);
  assert.equal(await textOf(page, "memory"), memory, "the document's length does not show in the memory");
  await picture(page, "document");
  await page.getByLabel("Choose a text file").setInputFiles(join(work, "marked.txt"));
  await shown(page, "document-facts", `scores ${expected[0][1]}`);
  await page.getByLabel("Choose a text file").setInputFiles(join(work, "long.txt"));
  await page.getByRole("button", { name: "Stop" }).click();
  await shown(page, "document-state", "stopped");
  done(`a document of ${document.length} characters has the answer of the text at once`);

  // 5. Without the server.
  await shown(page, "offline", "ready");
  server.closeAllConnections();
  await new Promise((closed) => server.close(closed));
  server = undefined;
  await page.reload();
  await ready(page);
  await typesGolden(page, 5);
  done("it works without a network");
  await page.context().close();

  // 6. What it looks like elsewhere.
  server = await serve(port);
  for (const [name, options] of [
    ["dark", { colorScheme: "dark" }],
    ["phone", { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2 }],
  ]) {
    const other = await open("", { options });
    await ready(other);
    await shown(other, "offline", "ready");
    await ask(other).fill(name === "dark" ? "who painted the ceiling" : "is it safe to travel to mexico");
    await picture(other, name);
    assert.ok(await other.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name}: nothing is wider than the screen`);
    await other.context().close();
  }
} finally {
  await browser.close();
  server?.close();
  await rm(work, { recursive: true });
}
