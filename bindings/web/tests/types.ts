// Uses every type of the package as a program would; `tsc --strict` must find nothing, and an error where one is expected.
import { type Answer, Classifier, Embedder, hasSimd, load, type Loaded, type Prediction, type Stream } from "kinglet";

const loaded: Loaded = await load({ simd: hasSimd() });
const backend: string = loaded.backend;
const memory: number = loaded.memoryBytes();
using classifier = new Classifier(new Uint8Array(8));
const other = new Classifier(new ArrayBuffer(8));
const answer: Answer = classifier.classify("text", 3);
const label: string | null = answer.label;
const likeliest: Prediction | undefined = answer.top[0];
const set: string[] | null = other.classify(new Uint8Array(1)).set;
const numbers: number[] = [answer.score, answer.tokens, classifier.modelBytes, classifier.arenaBytes, ...classifier.scores("text")];
const flags: boolean[] = [answer.unsure, answer.empty, answer.unknown, answer.calibrated, classifier.calibrated];
const strings: string[] = [answer.fingerprint, classifier.fingerprint("text"), ...classifier.labels];
const stream: Stream = classifier.stream();
stream.push("part");
stream.push(new Uint8Array(1));
const running: Answer | undefined = stream.snapshot();
const last: Answer = stream.finish(1);
stream.reset();
const tokens: number = stream.tokens;
stream.free();
other.free();
using embedder = new Embedder(new Uint8Array(8));
const vector: Float32Array = embedder.embed("text");
const sizes: number[] = [embedder.dimension, embedder.modelBytes, embedder.arenaBytes, ...embedder.embed(new Uint8Array(1))];
strings.push(embedder.fingerprint("text"));
// @ts-expect-error a model that embeds has no labels
embedder.labels;
// @ts-expect-error a text is no number
classifier.classify(7);
// @ts-expect-error a model is no name of a file
new Classifier("model.kinglet");
// @ts-expect-error there may be no answer yet
running.label;
export { flags, backend, label, last, likeliest, memory, numbers, set, sizes, strings, tokens, vector };
