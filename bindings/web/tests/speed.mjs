// How many times as fast the module with vectors is, in node: both in one process, in turns, CPU time.
//   node tests/speed.mjs TARGET TEXTS MODEL       TARGET: where `build` left both modules
// Prints the median of the turns' ratios.
import { readFile } from "node:fs/promises";
import { argv, cpuUsage } from "node:process";
import { pathToFileURL } from "node:url";

const [, , target, textsFile, modelFile] = argv;
const TURNS = 7;
const [model, texts] = [await readFile(modelFile), (await readFile(textsFile, "utf8")).split("\n").slice(0, 24)];
const document = texts.join(" ").repeat(8);
const [scalar, simd] = await Promise.all(
  ["kinglet", "kinglet-simd"].map(async (name) => {
    const glue = await import(pathToFileURL(`${target}/${name}/glue.js`));
    await glue.default({ module_or_path: await readFile(`${target}/${name}/glue_bg.wasm`) });
    return new glue.Classifier(model);
  }),
);
const work = (classifier) => {
  const begin = cpuUsage();
  for (let i = 0; i < 3; i++) {
    for (const text of texts) classifier.scores(text);
    classifier.scores(document);
  }
  return cpuUsage(begin).user;
};
const ratios = [];
for (let turn = 0; turn <= TURNS; turn++) {
  const ratio = work(scalar) / work(simd);
  // In the first turn the engine still compiles.
  if (turn) ratios.push(ratio);
}
console.log(ratios.sort((a, b) => a - b)[TURNS >> 1].toFixed(2));
