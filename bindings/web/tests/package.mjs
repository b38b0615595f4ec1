// The package in node: golden texts, streams and bad input, with one module and one model a process:
//   node tests/package.mjs PACKAGE simd|scalar TEXTS MODEL EXPECTED EMBEDDER EXPECTED
// Prints a JSON object of what it measured; exits 1 when anything is not as it should be.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { argv } from "node:process";
import { pathToFileURL } from "node:url";

const [, , folder, build, textsFile, modelFile, expectedFile, embedderFile, expectedVectors] = argv;
const { Classifier, Embedder, Stream, hasSimd, load } = await import(pathToFileURL(`${folder}/kinglet.js`));
assert.ok(hasSimd(), "node has simd128");
const loaded = await load({ simd: build === "simd" });
assert.equal(loaded.backend, build === "simd" ? "wasm-simd128" : "scalar");
assert.equal(await load(), loaded, "the first call decides");

const texts = (await readFile(textsFile, "utf8")).split("\n").slice(0, -1);
const model = new Uint8Array(await readFile(modelFile));
const classifier = new Classifier(model);
assert.equal(classifier.modelBytes, model.length);

// Every text at once, and in parts that are cut anywhere, gives the lines of the host.
const all = createHash("sha256");
const lines = texts.map((text) => {
  const scores = classifier.scores(text);
  all.update(new Uint8Array(scores.buffer, scores.byteOffset, scores.byteLength));
  const label = classifier.labels[scores.indexOf(Math.max(...scores))];
  const answer = classifier.classify(text, 3);
  const print = classifier.fingerprint(text);
  assert.equal(answer.fingerprint, print);
  assert.equal(answer.top.length, 3);
  assert.equal(answer.top[0].label, label);
  assert.equal(answer.score, answer.top[0].score);
  assert.ok(answer.top[0].score >= answer.top[1].score && answer.top[1].score >= answer.top[2].score);
  if (classifier.multiLabel) {
    // Those that apply, by class.
    assert.equal(answer.label, answer.labels[0] ?? null);
    return `${classifier.labels.filter((name) => answer.labels.includes(name)).join(",")}\t${print}`;
  }
  assert.equal(answer.label, answer.unsure ? null : label);
  assert.deepEqual(answer.labels, answer.unsure ? [] : [label]);
  assert.ok(!answer.calibrated || answer.set.includes(label));
  return `${label}\t${print}`;
});
lines.push(`all\t${all.digest("hex")}`, "");
assert.equal(lines.join("\n"), await readFile(expectedFile, "utf8"), `${modelFile} gives the expected lines`);

const stream = classifier.stream();
assert.ok(stream instanceof Stream);
for (const text of texts) {
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 7, 64]) {
    for (let at = 0; at < bytes.length; at += size) {
      stream.push(bytes.subarray(at, at + size));
      stream.snapshot();
    }
    const { fingerprint, tokens } = stream.finish(1);
    const once = classifier.classify(text);
    assert.deepEqual([fingerprint, tokens], [once.fingerprint, once.tokens], text);
  }
}
stream.push("something else");
stream.reset();
stream.push(texts[0]);
assert.equal(stream.finish().fingerprint, classifier.fingerprint(texts[0]));

// Memory does not grow with the text, and the answer is that of the text at once.
const whole = texts.join(" ").repeat(50);
const part = new TextEncoder().encode(texts.join(" "));
let before;
for (let i = 0; i < 50; i++) {
  stream.push(part);
  if (i === 10) before = loaded.memoryBytes();
}
const long = stream.finish();
const memory = loaded.memoryBytes();
assert.equal(memory, before, "a stream takes no more memory for a longer text");
stream.free();
assert.throws(() => stream.push("x"), "a stream that was freed cannot be used");

assert.equal(classifier.fingerprint(whole), long.fingerprint);
// What is wrong is thrown, with the reason.
const damaged = model.slice();
damaged[damaged.length >> 1] ^= 1;
const other = model.slice();
other[0] = 0;
const refused = [
  [damaged, Error, /checksum/i],
  [model.subarray(0, model.length - 1), Error, /bytes/],
  [new Uint8Array(0), Error, /./],
  [other, Error, /./],
  ["model.kinglet", TypeError, /the model must be a Uint8Array or an ArrayBuffer, not string/],
  [undefined, TypeError, /not undefined/],
  [null, TypeError, /not null/],
];
for (const [bytes, kind, reason] of refused) {
  assert.throws(() => new Classifier(bytes), (error) => error instanceof kind && reason.test(error.message), `${reason}`);
}
assert.equal(new Classifier(model.buffer).fingerprint(texts[0]), classifier.fingerprint(texts[0]));
const wrong = (f, kind, reason) => assert.throws(f, (error) => error instanceof kind && reason.test(error.message), `${reason}`);
for (const method of ["classify", "scores", "fingerprint"]) {
  wrong(() => classifier[method](), TypeError, /the text must be a string or a Uint8Array, not undefined/);
  wrong(() => classifier[method](7), TypeError, /not number/);
  wrong(() => classifier[method]({}), TypeError, /not object/);
}
wrong(() => classifier.classify("x", "many"), TypeError, /top must be a number, not string/);
for (const top of [0, -1, 1.5, NaN]) wrong(() => classifier.classify("x", top), RangeError, /whole number above 0/);
wrong(() => classifier.stream().push(null), TypeError, /not null/);
assert.equal(classifier.classify("x", 1e9).top.length, classifier.labels.length);
for (const [text, tokens] of [["", 1], [" \n", 1], ["?!", undefined]]) {
  const answer = classifier.classify(text);
  assert.deepEqual([answer.label, answer.unsure, answer.empty], [null, true, true], `${text}: an empty text has no label`);
  if (tokens) assert.equal(answer.tokens, tokens);
}
assert.equal(classifier.classify("7").empty, false);
{
  const { label, unsure, empty, unknown } = classifier.classify("\u65e5\u672c !");
  assert.deepEqual([label, unsure, empty, unknown], [null, true, false, true], "a text of unknown letters has no label");
  assert.equal(classifier.classify("\u65e5\u672c alarm").unknown, false);
}
assert.equal(classifier.classify("\ud83c").fingerprint, classifier.classify("\ufffd").fingerprint);

// Vectors of a model that embeds: those of the host, of length 1; each kind of model refuses the other's class.
const sentences = new Uint8Array(await readFile(embedderFile));
const embedder = new Embedder(sentences);
const prints = texts.map((text) => {
  const vector = embedder.embed(text);
  assert.ok(vector instanceof Float32Array && vector.length === embedder.dimension);
  assert.ok(Math.abs(Math.hypot(...vector) - 1) < 1e-6, text);
  assert.deepEqual(embedder.embed(new TextEncoder().encode(text)), vector);
  return `vector\t${embedder.fingerprint(text)}`;
});
assert.deepEqual(prints, (await readFile(expectedVectors, "utf8")).split("\n").slice(0, texts.length));
assert.equal(embedder.modelBytes, sentences.length);
assert.equal(embedder.dimension, classifier.labels.length);
assert.equal(embedder.embed("").length, embedder.dimension, "an empty text has a vector");
wrong(() => new Embedder(model), Error, /classifies text into \d+ labels; .*Classifier opens it$/);
wrong(() => new Classifier(sentences), Error, /embeds text into vectors of \d+ values; .*Embedder opens it$/);
wrong(() => new Embedder("model.kinglet"), TypeError, /the model must be a Uint8Array or an ArrayBuffer, not string/);
wrong(() => new Embedder(sentences.subarray(0, 100)), Error, /bytes/);
for (const method of ["embed", "fingerprint"]) wrong(() => embedder[method](7), TypeError, /not number/);
embedder.free();
console.log(JSON.stringify({ backend: loaded.backend, arena: classifier.arenaBytes, memory }));
