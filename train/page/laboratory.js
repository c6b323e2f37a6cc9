const STEPS = 20, MOST_STEPS = 600;  // between two pictures; until it stops by itself
const examples = JSON.parse(element("examples").textContent);
const address = document.querySelector("script[src]").src.replace(/[^/]*$/, "");
const pause = () => new Promise(done => setTimeout(done));
let python, model = null, running = null;  // the training that goes on, of which there is one
function call(name, ...values) {  // one of the functions of train/page/laboratory.py
  const found = JSON.parse(python[name](...values));
  if (found.error) throw new Error(found.error);
  return found;
}
function explain() {
  if (!model) return;
  const found = call("explain", element("text").value);
  showDecision(found.classes, found.tokens, found.shares, found.bias, 1);
}
function start() {
  model = call("start", element("texts").value);
  asked = null;
  element("curves").replaceChildren();
  element("progress").textContent = `${model.texts} texts to train on, ${model.held_out} held out, ` +
    `${model.words} words, ${model.parameters.toLocaleString("en")} parameters`;
}
async function train() {
  const own = running = {};
  element("train").textContent = "Stop";
  try {
    if (!model) start();
    for (let step = 0; running === own && step < MOST_STEPS; step += STEPS) {
      const found = call("train", STEPS);
      element("curves").innerHTML = found.curves;
      element("progress").textContent = `step ${found.step}: loss ${found.train_loss.toFixed(3)}, ` +
        `right on held-out texts ${(100 * found.val_accuracy).toFixed(1)}%, ` +
        `${found.milliseconds.toFixed(1)} ms a step`;
      explain();
      await pause();
    }
  } catch (error) {
    element("progress").textContent = error.message;
  }
  if (running === own) stop();
}
function stop() {
  running = null;
  element("train").textContent = "Train";
}
function run() {
  const found = call("run", element("source").value);
  element("output").textContent = found.text;
  element("output").className = found.right === null ? "" : found.right ? "right" : "wrong";
}
function choose() {
  element("source").value = examples[element("example").value];
  element("output").textContent = element("output").className = "";
}
async function load() {
  const pyodide = await loadPyodide({indexURL: address});
  await pyodide.loadPackage("numpy");
  const library = Uint8Array.from(atob(element("library").textContent), c => c.charCodeAt(0));
  pyodide.unpackArchive(library, "zip", {extractDir: "/library"});
  pyodide.runPython("import sys; sys.path.insert(0, '/library')");
  python = pyodide.pyimport("train.page.laboratory");
  const numpy = pyodide.runPython("__import__('numpy').__version__");
  element("state").textContent = `minisum is loaded, with Pyodide ${pyodide.version} and NumPy ${numpy}.`;
  for (const name of ["train", "anew", "run"]) element(name).disabled = false;
  if (location.hash == "#train") train();
}
element("example").append(...Object.keys(examples).map(name => make("option", {textContent: name})));
element("example").onchange = choose;
element("train").onclick = () => running ? stop() : train();
element("anew").onclick = () => { model = null; train(); };
element("texts").oninput = () => { stop(); model = null; };
element("text").oninput = explain;
element("run").onclick = run;
choose();
load().catch(error => { element("state").textContent = `Python could not be loaded: ${error.message}`; });
