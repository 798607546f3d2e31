// The chosen plan in words, and the best plans as a table.

const BOUNDS = { compute: "compute", hbm: "HBM traffic", links: "links", latency: "fixed latency" };
const ORIGINS = [
  ["fitted", "fitted to measurements of this chip"], ["extrapolated", "extrapolated from other shapes, another chip or engine"], ["bound", "at their roofline bound"],
];
const ROWS = 12;

function outputRate(plan, sheet) {
  return (plan.n_chips / plan.chip_s) * sheet.output_tokens;
}

// An end of the interval of one pass: that of the phase, which is so many passes.
function within(phase) {
  const low = phase.step_s * (phase.latency_low_s / phase.latency_s);
  const high = phase.latency_high_s === null ? "?" : seconds(phase.step_s * (phase.latency_high_s / phase.latency_s));
  return `${seconds(low)} to ${high}`;
}

function tellPlan(sheet, state, picked) {
  const plan = picked.chosen;
  document.getElementById("command").textContent = plan ? commandOf(sheet, state, plan) : "";
  document.getElementById("copy").hidden = !plan;
  const list = document.getElementById("figures-of-merit");
  if (!plan) {
    document.getElementById("headline").textContent = picked.why;
    document.getElementById("reason").textContent = "";
    list.replaceChildren();
    return;
  }
  const p = sheet.prefill[plan.prefill], d = sheet.decode[plan.decode];
  const cost = state.price === "" ? `${digits(plan.chip_s)} chip-seconds a request` : `${dollars(costOf(plan, sheet, state))} per million output tokens`;
  const chosen = picked.place === 0 ? "" : `plan ${picked.place + 1}: `;
  document.getElementById("headline").textContent = `${chosen}${plan.n_chips} × ${sheet.chip}, ${cost}`;
  const rows = [
    ["Time to first token", `${seconds(plan.ttft_s)} (${within(p)})`],
    ["Time per output token", `${seconds(plan.tpot_s)} (${within(d)})`],
    ["Request latency", seconds(plan.latency_s)],
    ["Output tokens/s", digits(outputRate(plan, sheet))],
    ["Requests/s", digits(plan.n_chips / plan.chip_s)],
    ["Pool", state.price === "" ? "no price" : `${dollars(plan.n_chips * state.price)} an hour`],
    ["Memory of a chip", `${gibibytes(plan.hbm_bytes_per_chip)} of ${gibibytes(sheet.roofs.limit_bytes)}`],
    ["MFU, prefill and decode", `${p.mfu.toFixed(2)}, ${d.mfu.toFixed(3)}`],
    ["Prefill", `${p.layout}, ${meshOf(p)}, batch ${p.batch}`],
    ["Decode", `${d.layout}, ${meshOf(d)}, batch ${d.batch}`],
  ];
  list.replaceChildren(...rows.map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", {}, name), element("dd", {}, value));
    return pair;
  }));
  const used = new Set([...p.sources, ...d.sources]);
  const origins = ORIGINS.filter(([source]) => used.has(source)).map(([, words]) => words).join(", some ");
  document.getElementById("reason").textContent = `Prefill is bound by ${BOUNDS[p.bound]}, decode by ${BOUNDS[d.bound]}. `
    + `Times of steps: ${used.size > 1 ? "some " : ""}${origins}; in brackets the 90 % interval. No queue is counted: a prompt waits for nothing but its own batch.`;
}

function commandOf(sheet, state, plan) {
  const d = sheet.decode[plan.decode];
  const words = ["shardwise plan", sheet.model, "--on", d.slice.replace(/:1x(\d+)$/, ":$1"), "--input", state.input, "--output", state.output];
  if (state.weights !== "own") words.push("--weights", state.weights);
  if (state.kv !== "own") words.push("--kv-dtype", state.kv);
  if (state.batch !== "any") words.push("--decode-batch", state.batch);
  if (state.ttft !== "") words.push("--ttft", `${state.ttft}ms`);
  if (state.tpot !== "") words.push("--tpot", `${state.tpot}ms`);
  return [...words, "--objective", state.by].join(" ");
}

// Columns of the table: title, whether it is text, the value shown, the value in the CSV.
const COLUMNS = [
  ["chips", false, (r) => r.plan.n_chips],
  ["prefill", true, (r) => `${r.p.layout} ${meshOf(r.p)}`],
  ["batch", false, (r) => r.p.batch],
  ["decode", true, (r) => `${r.d.layout} ${meshOf(r.d)}`],
  ["batch", false, (r) => r.d.batch],
  ["TTFT", false, (r) => seconds(r.plan.ttft_s), (r) => r.plan.ttft_s, "ttft_s"],
  ["TPOT", false, (r) => seconds(r.plan.tpot_s), (r) => r.plan.tpot_s, "tpot_s"],
  ["request", false, (r) => seconds(r.plan.latency_s), (r) => r.plan.latency_s, "latency_s"],
  ["tokens/s", false, (r) => digits(outputRate(r.plan, r.sheet)), (r) => outputRate(r.plan, r.sheet), "output_tokens_per_s"],
  ["cost", false, (r) => digits(costOf(r.plan, r.sheet, r.state)), (r) => costOf(r.plan, r.sheet, r.state), "cost"],
  ["memory", false, (r) => gibibytes(r.plan.hbm_bytes_per_chip), (r) => r.plan.hbm_bytes_per_chip, "hbm_bytes_per_chip"],
];

function rowsOf(sheet, state, picked) {
  return picked.ranked.map((plan) => ({ plan, sheet, state, p: sheet.prefill[plan.prefill], d: sheet.decode[plan.decode] }));
}

function tellTable(sheet, state, picked) {
  const head = element("tr");
  head.append(element("th", { scope: "col" }, "plan"));
  for (const [title, text] of COLUMNS) head.append(element("th", { scope: "col", class: text ? "text" : "" }, title === "cost" ? shortCostTitle(state) : title));
  document.querySelector("#plans thead").replaceChildren(head);
  const body = rowsOf(sheet, state, picked).slice(0, ROWS).map((row, i) => {
    const made = element("tr", { "aria-current": String(i === picked.place) });
    const cell = element("td");
    cell.append(element("button", { type: "button", "data-plan": i + 1, "aria-label": `Show plan ${i + 1}` }, String(i + 1)));
    made.append(cell, ...COLUMNS.map(([, text, value]) => element("td", { class: text ? "text" : "" }, String(value(row)))));
    return made;
  });
  document.querySelector("#plans tbody").replaceChildren(...body);
}

function csvOf(sheet, state, picked) {
  const names = ["chips", "prefill", "prefill_batch", "decode", "decode_batch", ...COLUMNS.slice(5).map((column) => column[4])];
  const lines = rowsOf(sheet, state, picked).map((row) => COLUMNS.map((column) => (column[3] || column[2])(row)).join(","));
  return [names.join(","), ...lines].join("\r\n");
}

function tellRefused(sheet, page) {
  const refused = Object.entries(sheet.rejected).sort((a, b) => b[1] - a[1]).map(([reason, n]) => `${n.toLocaleString("en")} ${reason}`);
  document.getElementById("refused").textContent = `${sheet.n_candidates.toLocaleString("en")} pairs of prefill and decode were priced under the ${sheet.engine} profile; `
    + `${sheet.plans.length} of them some limits, batch and number of chips make the best. Refused: ${refused.join("; ") || "none"}.`;
  const offer = page.offer.chips.find((chip) => chip.name === sheet.chip);
  const price = offer.price_source === null ? "" : ` Price that the page opens with: ${dollars(offer.usd_per_h)} an hour, ${offer.price_source}.`;
  document.getElementById("made").textContent = `shardwise ${sheet.version}. ${page.made_by ? `Made by: ${page.made_by}.` : "Answered by this machine."}${price}`;
}
