// From a change of a control to the answer on the page.

const page = JSON.parse(document.getElementById("page").textContent);
const source = page.sheets ? gridSource(page) : liveSource(page);
let state = startState(page);
let shown = null; // the sheet on the page and what was picked of it
let waiting = false; // whether a change came while another was answered
let busy = false;

function trouble(text) {
  const place = document.getElementById("trouble");
  place.hidden = text === "";
  place.textContent = text;
  document.body.dataset.stale = String(text !== "");
}

async function answer() {
  if (busy) { waiting = true; return; }
  busy = true;
  document.body.dataset.state = "busy";
  const begun = performance.now();
  do {
    waiting = false;
    await answerOnce();
  } while (waiting);
  busy = false;
  document.body.dataset.ms = (performance.now() - begun).toFixed(1);
  document.body.dataset.answers = String(Number(document.body.dataset.answers || 0) + 1);
  document.body.dataset.state = "done";
}

async function answerOnce() {
  writeAddress(state);
  refreshOptions(page, state, shown && shown.sheet);
  showState(state);
  let sheet;
  try {
    sheet = await source.sheet(state);
  } catch (error) {
    trouble(error.message);
    return;
  }
  if (waiting) return;
  trouble("");
  const picked = choose(sheet, state);
  shown = { sheet, picked };
  refreshOptions(page, state, sheet);
  showState(state);
  document.getElementById("subject").textContent = `${sheet.model} on ${sheet.chip}, ${state.input} tokens in, ${state.output} out; weights ${sheet.weights}, KV cache ${sheet.kv_dtype}`;
  tellPlan(sheet, state, picked);
  tellTable(sheet, state, picked);
  tellRefused(sheet, page);
  await drawFigures(sheet, state, picked);
}

function change(key, value) {
  if (!allowed(page, key, value, state)) return;
  const next = { ...state, [key]: value };
  if (!["x", "phase", "plan"].includes(key)) next.plan = "1";
  if (key === "chip") {
    next.price = priceOf(page, value);
    if (!allowed(page, "chips", next.chips, next)) next.chips = "any";
  }
  state = next;
  answer();
}

function listen() {
  document.addEventListener("input", (event) => {
    const slider = event.target.dataset.slider;
    if (slider) change(slider, sliderText(event.target.value));
    else if (event.target.dataset.key in NUMBERS) change(event.target.dataset.key, event.target.value);
  });
  document.addEventListener("change", (event) => {
    const key = event.target.dataset.key;
    if (key && !(key in NUMBERS)) change(key, event.target.value);
  });
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  document.querySelector("#plans tbody").addEventListener("click", (event) => {
    if (event.target.dataset.plan) change("plan", event.target.dataset.plan);
  });
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("chosen").focus();
  });
  document.getElementById("copy").addEventListener("click", copyCommand);
  document.getElementById("csv").addEventListener("click", downloadCsv);
  document.getElementById("theme").addEventListener("change", (event) => setTheme(event.target.value));
  window.addEventListener("hashchange", () => { state = readAddress(page, startState(page)); answer(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => printing(true));
  window.addEventListener("afterprint", () => printing(false));
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  redraw();
}

function redraw() {
  if (shown) drawFigures(shown.sheet, state, shown.picked);
}

// Paper is white: figures are drawn in the light colours while a page is printed.
function printing(begins) {
  document.documentElement.dataset.theme = begins ? "light" : document.getElementById("theme").value;
  redraw();
}

async function copyCommand() {
  const text = document.getElementById("command").textContent;
  const button = document.getElementById("copy");
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(document.getElementById("command"));
    button.textContent = "Selected";
  }
}

function downloadCsv() {
  if (!shown) return;
  const link = element("a", { href: URL.createObjectURL(new Blob([csvOf(shown.sheet, state, shown.picked)], { type: "text/csv" })), download: "plans.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
}

buildControls(page);
state = readAddress(page, state);
listen();
answer();
