// The controls: one labelled field for each key of the state.

const LIMIT_MS = { least: 1, most: 100000, places: 200 };

function element(name, attributes = {}, text = "") {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

function field(label, input) {
  const holder = element("label", { for: input.id }, label);
  return [holder, input];
}

function selectOf(key, options) {
  const made = element("select", { id: key, "data-key": key });
  fillSelect(made, options);
  return made;
}

function fillSelect(select, options) {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
}

function numberOf(key, attributes) {
  return element("input", { type: "number", id: key, "data-key": key, inputmode: "decimal", ...attributes });
}

function tokensField(key, label, values, isOpen) {
  if (!isOpen) return field(label, selectOf(key, values.map((value) => [String(value), value.toLocaleString("en")])));
  const list = element("datalist", { id: `${key}-list` });
  list.append(...values.map((value) => element("option", { value })));
  return [...field(label, numberOf(key, { min: 1, max: 9999999, step: 1, list: `${key}-list`, required: "" })), list];
}

// A limit: a number in ms, and a slider over powers of ten whose far end is no limit.
function limitField(key, label) {
  const slider = element("input", {
    type: "range", id: `${key}-slider`, min: 0, max: LIMIT_MS.places, step: 1, "data-slider": key, "aria-label": `${label}, slider`,
  });
  return [...field(`${label} (ms)`, numberOf(key, { min: 0, step: "any", placeholder: "no limit" })), slider];
}

function sliderPlace(text) {
  if (text === "") return LIMIT_MS.places;
  const share = Math.log(Number(text) / LIMIT_MS.least) / Math.log(LIMIT_MS.most / LIMIT_MS.least);
  return Math.round(Math.min(Math.max(share, 0), 1) * LIMIT_MS.places);
}

function sliderText(place) {
  if (Number(place) >= LIMIT_MS.places) return "";
  return String(Number((LIMIT_MS.least * (LIMIT_MS.most / LIMIT_MS.least) ** (place / LIMIT_MS.places)).toPrecision(3)));
}

function group(legend, ...fields) {
  const made = element("fieldset");
  made.append(element("legend", {}, legend), ...fields.flat());
  return made;
}

const FORMAT_NAMES = { own: "the model's own" };

function buildControls(page) {
  const offer = page.offer;
  const names = (list) => list.map((one) => [one.name, one.name]);
  const formats = (list) => list.map((name) => [name, FORMAT_NAMES[name] || name]);
  document.getElementById("controls").append(
    group("Model and hardware", field("Model", selectOf("model", names(offer.models))), field("Chip", selectOf("chip", names(offer.chips))),
      field("Number of chips", selectOf("chips", []))),
    group("Workload", tokensField("input", "Input tokens", offer.input_tokens, offer.is_open),
      tokensField("output", "Output tokens", offer.output_tokens, offer.is_open), field("Decode batch", selectOf("batch", []))),
    group("Formats", field("Weights", selectOf("weights", formats(offer.weights))), field("KV cache", selectOf("kv", formats(offer.kv_dtypes)))),
    group("Limits", limitField("ttft", "Time to first token"), limitField("tpot", "Time per output token")),
    group("Aim and price", field("Best by", selectOf("by", [["cost", "cost"], ["latency", "latency"], ["throughput", "throughput"]])),
      field("Price of a chip (USD/h)", numberOf("price", { min: 0, step: "any", placeholder: "not known" }))),
  );
}

// Options that depend on others: counts of the chip, batches of the sheet.
function refreshOptions(page, state, sheet) {
  const counts = page.offer.chips.find((chip) => chip.name === state.chip).counts;
  fillSelect(document.getElementById("chips"), [["any", "whatever is best"], ...counts.map((n) => [String(n), String(n)])]);
  if (sheet) {
    const batches = new Set(sheet.decode.map((phase) => phase.batch));
    if (state.batch !== "any") batches.add(Number(state.batch));
    const sorted = [...batches].sort((a, b) => a - b);
    fillSelect(document.getElementById("batch"), [["any", "whatever is best"], ...sorted.map((n) => [String(n), String(n)])]);
  }
}

function showState(state) {
  for (const input of document.querySelectorAll("[data-key]")) {
    if (input.value !== state[input.dataset.key] && input !== document.activeElement) input.value = state[input.dataset.key];
    if (input.tagName === "SELECT") input.value = state[input.dataset.key];
  }
  for (const slider of document.querySelectorAll("[data-slider]")) {
    const text = state[slider.dataset.slider];
    slider.value = sliderPlace(text);
    slider.setAttribute("aria-valuetext", text === "" ? "no limit" : `${text} ms`);
  }
}
