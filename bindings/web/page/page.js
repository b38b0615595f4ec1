// The page: a model from the server or from the user, answers as one types, documents in slices.
// ?model=URL takes another model, ?backend=scalar the module without vectors.
import { Classifier, hasSimd, load } from "./kinglet/kinglet.js";

const parameters = new URLSearchParams(location.search);
const MODEL = parameters.get("model") ?? "models/intents.kinglet";
/** Bytes of a document that are read and pushed at a time. */
const SLICE = 1 << 14;
/** Milliseconds of work before the page gets a turn. */
const TURN = 12;
const LABELS = 5;

const $ = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString("en");
const bytes = (n) =>
  n < 1e3 ? `${n} bytes` : n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : n < 1e9 ? `${(n / 1e6).toFixed(2)} MB` : `${(n / 1e9).toFixed(2)} GB`;
const milliseconds = (t) => (t < 1 ? `${(t * 1e3).toFixed(0)} µs` : t < 1e4 ? `${t.toFixed(1)} ms` : `${(t / 1e3).toFixed(1)} s`);
/** A probability; what would be rounded to all or nothing is not called so. */
const percent = (p) => (p > 0.9995 ? "> 99.9 %" : p < 0.0005 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);

let loaded;
let classifier;

function problem(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

/** Runs `f`; what it throws is shown. */
async function guarded(what, f) {
  try {
    return await f();
  } catch (error) {
    problem(`${what}: ${error.message ?? error}`);
  }
}

/** Shows an answer in the elements whose names begin with `prefix`. */
function show(answer, box, prefix) {
  box.classList.toggle("unsure", answer.unsure);
  const several = classifier.multiLabel;
  $(`${prefix}label`).textContent = answer.unsure ? "not sure" : several ? answer.labels.join(", ") || "no label" : answer.label;
  const how = answer.calibrated ? "sure" : "by scores that are not calibrated";
  $(`${prefix}sure`).textContent = answer.empty ? "no words" : answer.unknown ? "no known words" : answer.unsure
    ? `perhaps ${answer.top[0].label} (${percent(answer.score)})`
    : several ? ""
    : `${percent(answer.score)} ${how}`;
  const list = $(`${prefix}bars`);
  while (list.children.length < answer.top.length) {
    const row = list.appendChild(document.createElement("li"));
    row.innerHTML = '<span class="name"><span class="fill"></span><b></b></span><span class="score"></span>';
  }
  while (list.children.length > answer.top.length) list.lastChild.remove();
  answer.top.forEach(({ label, score }, i) => {
    const row = list.children[i];
    row.querySelector(".fill").style.width = `${100 * score}%`;
    row.querySelector("b").textContent = label;
    row.querySelector(".score").textContent = percent(score);
  });
  box.hidden = false;
}

function classify() {
  const text = $("text").value;
  if (!classifier || !text.trim()) {
    $("answer").hidden = true;
    return;
  }
  guarded("The text cannot be classified", () => {
    const begin = performance.now();
    const answer = classifier.classify(text, LABELS);
    const time = performance.now() - begin;
    show(answer, $("answer"), "");
    $("set").textContent = answer.set?.length > 1
      ? `${classifier.multiLabel ? "Its labels are" : "The right label is"} likely among ${answer.set.join(", ")}.` : "";
    $("time").textContent = milliseconds(time);
    $("tokens").textContent = `${number(answer.tokens)} tokens`;
    $("fingerprint").textContent = answer.fingerprint;
    $("memory").textContent = bytes(loaded.memoryBytes());
  });
}

/** Takes the bytes of a model; the one before stays if they are none. */
function use(model, name) {
  const next = new Classifier(model);
  abandon?.();
  classifier?.free();
  classifier = next;
  $("model-name").textContent = name;
  $("model-size").textContent = bytes(classifier.modelBytes);
  $("model-labels").textContent = number(classifier.labels.length);
  $("backend").textContent = loaded.backend;
  $("arena").textContent = bytes(classifier.arenaBytes);
  $("memory").textContent = bytes(loaded.memoryBytes());
  for (const control of document.querySelectorAll("textarea, input, button")) control.disabled = false;
  problem("");
  classify();
}

async function download(url) {
  let answer;
  try {
    answer = await fetch(url);
  } catch (error) {
    throw new Error(`${url} cannot be fetched (${error.message})`);
  }
  if (!answer.ok) throw new Error(`the server has no ${url} (${answer.status} ${answer.statusText})`.replace(" )", ")"));
  return answer.arrayBuffer();
}

/** Ends the document that is being read. */
let abandon;

/** Classifies a document slice by slice. */
async function read(file, name) {
  abandon?.();
  let stopped = false;
  abandon = () => (stopped = true);
  const stream = classifier.stream();
  const box = $("document");
  box.hidden = false;
  box.classList.remove("unsure");
  $("document-label").textContent = $("document-sure").textContent = $("document-facts").textContent = "";
  $("document-bars").replaceChildren();
  $("document-name").textContent = `${name}, ${bytes(file.size)}:`;
  $("document-state").textContent = "reading";
  $("stop").hidden = false;
  const begin = performance.now();
  try {
    let turn = begin;
    for (let at = 0; at < file.size && !stopped; at += SLICE) {
      let slice = new Uint8Array(await file.slice(at, at + SLICE).arrayBuffer());
      // The mark of UTF-8 that some programs put before a text is none of it.
      if (at === 0 && slice[0] === 0xef && slice[1] === 0xbb && slice[2] === 0xbf) slice = slice.subarray(3);
      if (stopped) break;
      stream.push(slice);
      if (performance.now() - turn > TURN) {
        $("progress").value = Math.min(1, (at + SLICE) / file.size);
        const running = stream.snapshot(LABELS);
        if (running) show(running, box, "document-");
        $("memory").textContent = bytes(loaded.memoryBytes());
        await new Promise((next) => setTimeout(next));
        turn = performance.now();
      }
    }
    if (stopped) {
      $("document-state").textContent = "stopped";
      return;
    }
    const answer = stream.finish(LABELS);
    const time = performance.now() - begin;
    $("progress").value = 1;
    show(answer, box, "document-");
    $("document-facts").textContent = `${number(answer.tokens)} tokens in ${milliseconds(time)}, scores ${answer.fingerprint}`;
    $("document-state").textContent = "complete";
  } catch (error) {
    $("document-state").textContent = `cannot be read: ${error.message ?? error}`;
  } finally {
    stream.free();
    if (!stopped) $("stop").hidden = true;
    $("memory").textContent = bytes(loaded.memoryBytes());
  }
}

$("text").addEventListener("input", classify);
for (const example of document.querySelectorAll(".examples button")) {
  example.addEventListener("click", () => {
    $("text").value = example.textContent;
    classify();
  });
}
$("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (file) read(file, file.name);
});
$("paste").addEventListener("click", () =>
  guarded("The clipboard cannot be read", async () => read(new Blob([await navigator.clipboard.readText()]), "The clipboard")),
);
$("stop").addEventListener("click", () => {
  abandon?.();
  $("stop").hidden = true;
});
$("bundle").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (file) guarded(`${file.name} is not a usable model`, async () => use(await file.arrayBuffer(), file.name));
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", () => document.body.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (!file) return;
  if (file.name.endsWith(".kinglet")) {
    guarded(`${file.name} is not a usable model`, async () => use(await file.arrayBuffer(), file.name));
  } else if (classifier) {
    read(file, file.name);
  }
});

if ("serviceWorker" in navigator) {
  navigator.serviceWorker.register("worker.js").then(
    () => navigator.serviceWorker.ready.then(() => ($("offline").textContent = "ready")),
    (error) => ($("offline").textContent = `no: ${error.message}`),
  );
}
await guarded("The classifier cannot start", async () => {
  loaded = await load({ simd: parameters.get("backend") !== "scalar" && hasSimd() });
  // The model may be missing; one from the user is as good.
  await guarded("No model is loaded; choose one below. The model of this page cannot be used", async () =>
    use(await download(MODEL), MODEL.split("/").pop()),
  );
  $("bundle").disabled = false;
});
if (!classifier) $("model-name").textContent = "none";
if (loaded) $("backend").textContent = loaded.backend;
