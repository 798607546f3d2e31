// The figures of a sheet and its chosen plan.

const CONFIG = {
  displaylogo: false, showSendToCloud: false, plotlyServerURL: "", responsive: true,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "x"];
const AXES = {
  latency: ["latency_s", "request latency (s)", 1],
  tpot: ["tpot_s", "time per output token (ms)", 1e3],
  ttft: ["ttft_s", "time to first token (ms)", 1e3],
};
const SMALL = 0.004; // of a pass: steps below are one bar

function look() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  return { ink: colour("--ink"), muted: colour("--muted"), rule: colour("--rule"), paper: colour("--paper"), series: [0, 1, 2, 3, 4, 5, 6].map((i) => colour(`--s${i}`)) };
}

function axis(theme, title, more = {}) {
  return { title: { text: title, standoff: 8 }, gridcolor: theme.rule, linecolor: theme.rule, zerolinecolor: theme.rule, automargin: true, ...more };
}

function layout(theme, x, y, more = {}) {
  return {
    font: { color: theme.ink, size: 12 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 50, r: 20, t: 16, b: 44 }, showlegend: false, hovermode: "closest",
    hoverlabel: { bgcolor: theme.paper, bordercolor: theme.rule, font: { color: theme.ink } }, xaxis: x, yaxis: y, ...more,
  };
}

function draw(id, traces, shape, said) {
  const place = document.getElementById(id);
  place.setAttribute("aria-label", said);
  return Plotly.react(place, traces, shape, CONFIG);
}

// Decades and their halves read better than plotly's own minor ticks on a phone.
const LOG = { type: "log", dtick: "D2", exponentformat: "none" };

function planText(sheet, plan) {
  const p = sheet.prefill[plan.prefill], d = sheet.decode[plan.decode];
  return `${plan.n_chips} chips, TTFT ${seconds(plan.ttft_s)}, TPOT ${seconds(plan.tpot_s)}<br>`
    + `prefill ${p.layout} ${meshOf(p)}, batch ${p.batch}<br>decode ${d.layout} ${meshOf(d)}, batch ${d.batch}`;
}

// The first point names its line and the others their batch, where there is room: labels too near to one that was placed
// before are left to the hover.
function labeller(points) {
  const placed = [];
  const logs = (pick) => points.map((point) => Math.log(pick(point)));
  const span = (values) => Math.max(...values) - Math.min(...values) || 1;
  const width = span(logs((point) => point.x)), height = span(logs((point) => point.y));
  return (point, text, always) => {
    const at = [Math.log(point.x) / width, Math.log(point.y) / height];
    if (!always && placed.some((other) => Math.abs(at[0] - other[0]) < 0.06 && Math.abs(at[1] - other[1]) < 0.04)) return "";
    placed.push(at);
    return text;
  };
}

function frontierFigure(sheet, state, picked, theme) {
  const [name, title, scale] = AXES[state.x];
  const limits = limitsOf(state);
  const points = ofBatch(sheet, state).map((plan) => ({ plan, x: plan[name] * scale, y: costOf(plan, sheet, state), ok: keepsLimits(plan, limits) }));
  const traces = [];
  const broken = points.filter((point) => !point.ok);
  traces.push({
    name: "breaks a limit", mode: "markers", x: broken.map((p) => p.x), y: broken.map((p) => p.y), text: broken.map((p) => planText(sheet, p.plan)),
    marker: { color: theme.muted, symbol: "x-thin-open", size: 6, opacity: 0.6 }, hovertemplate: "%{text}<extra>breaks a limit</extra>",
  });
  const counts = [...new Set(points.map((point) => point.plan.n_chips))].sort((a, b) => a - b);
  const all = page.offer.chips.find((chip) => chip.name === state.chip).counts;
  const label = labeller(points);
  for (const n of counts) {
    const line = frontierOf(points.filter((point) => point.ok && point.plan.n_chips === n));
    if (!line.length) continue;
    const i = all.indexOf(n), dim = state.chips !== "any" && Number(state.chips) !== n;
    const colour = theme.series[i % theme.series.length];
    const labels = line.map((point, j) => {
      const batch = sheet.decode[point.plan.decode].batch;
      return label(point, j ? String(batch) : `<b>${n} chip${n > 1 ? "s" : ""}</b> ${batch}`, j === 0);
    });
    traces.push({
      name: `${n} chips`, mode: "lines+markers+text", x: line.map((p) => p.x), y: line.map((p) => p.y), text: labels, textposition: "top right",
      textfont: { color: colour, size: 10 }, opacity: dim ? 0.35 : 1, cliponaxis: false,
      marker: { color: colour, symbol: SYMBOLS[i % SYMBOLS.length], size: 8 }, line: { color: colour, width: 1.5 },
      customdata: line.map((p) => planText(sheet, p.plan)), hovertemplate: "%{customdata}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
    });
  }
  const best = picked.chosen;
  if (best) {
    traces.push({
      name: "chosen", mode: "markers", x: [best[name] * scale], y: [costOf(best, sheet, state)], text: [planText(sheet, best)],
      marker: { symbol: "star", size: 18, color: theme.series[4], line: { color: theme.ink, width: 1.5 } }, hovertemplate: "%{text}<extra>chosen</extra>",
    });
  }
  const limit = state.x === "tpot" ? limits.tpot_s : state.x === "ttft" ? limits.ttft_s : Infinity;
  const shapes = limit < Infinity ? [{ type: "line", xref: "x", yref: "paper", x0: limit * scale, x1: limit * scale, y0: 0, y1: 1, line: { color: theme.series[1], dash: "dash", width: 1.5 } }] : [];
  const shape = layout(theme, axis(theme, title, LOG), axis(theme, costTitle(state), LOG), { shapes, margin: { l: 56, r: 30, t: 20, b: 44 } });
  return draw("frontier", traces, shape, best ? `Cost against ${title}; chosen: ${digits(best[name] * scale)}, cost ${digits(costOf(best, sheet, state))}` : "No plan is chosen");
}

// Steps of a phase as bars, small ones together: name, what binds the local part, seconds.
function barsOf(sheet, phase) {
  const pass = phase.step_s;
  const bars = phase.steps.map(([name, compute, memory, comm, fixed]) => ({
    name: sheet.step_names[name] === "pass" ? "host" : sheet.step_names[name], compute: compute >= memory ? compute : 0, memory: compute >= memory ? 0 : memory, comm, fixed,
    total: Math.max(compute, memory) + comm + fixed,
  }));
  const shown = bars.filter((bar) => bar.total >= SMALL * pass);
  const rest = bars.filter((bar) => bar.total < SMALL * pass && bar.total > 0);
  if (rest.length) {
    const sum = (key) => rest.reduce((total, bar) => total + bar[key], 0);
    shown.push({ name: `${rest.length} smaller steps`, compute: sum("compute"), memory: sum("memory"), comm: sum("comm"), fixed: sum("fixed"), total: sum("total") });
  }
  return shown;
}

const PARTS = [["compute", "compute", 0], ["memory", "memory traffic", 2], ["comm", "links", 1], ["fixed", "fixed", 6]];

function waterfallFigure(sheet, state, picked, theme) {
  const shape = layout(theme, axis(theme, "ms since the pass began"), axis(theme, "", { autorange: "reversed", type: "category" }), {
    barmode: "overlay", bargap: 0.25, showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, margin: { l: 50, r: 20, t: 34, b: 44 },
  });
  if (!picked.chosen) return draw("waterfall", [], shape, "No plan is chosen");
  const phase = state.phase === "decode" ? sheet.decode[picked.chosen.decode] : sheet.prefill[picked.chosen.prefill];
  const bars = barsOf(sheet, phase);
  let at = 0;
  const begun = bars.map((bar) => { const start = at; at += bar.total; return start; });
  const traces = PARTS.map(([key, name, colour], i) => ({
    type: "bar", orientation: "h", name, y: bars.map((bar) => bar.name), x: bars.map((bar) => bar[key] * 1e3),
    base: bars.map((bar, j) => 1e3 * (begun[j] + PARTS.slice(0, i).reduce((sum, part) => sum + bar[part[0]], 0))),
    marker: { color: theme.series[colour], pattern: { shape: ["", "/", "x", "."][i], fillmode: "overlay", fgcolor: theme.paper, fgopacity: 0.5, size: 6 } },
    hovertemplate: "%{y}: %{x:.4g} ms<extra>%{fullData.name}</extra>",
  }));
  return draw("waterfall", traces, shape, `One pass of ${state.phase} takes ${seconds(phase.step_s)}, bound by ${phase.bound}`);
}

const MEMORY_PARTS = [["weights_bytes", "weights", 0], ["kv_cache_bytes", "KV cache", 2], ["activations_bytes", "activations", 4], ["gathered_bytes", "gathered weights", 3]];

function memoryFigure(sheet, state, picked, theme) {
  const limit = sheet.roofs.limit_bytes / GIB;
  const shape = layout(theme, axis(theme, "GiB a chip", { range: [0, limit * 1.12] }), axis(theme, "", { autorange: "reversed", type: "category" }), {
    barmode: "stack", bargap: 0.5, showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal" }, margin: { l: 50, r: 20, t: 34, b: 44 },
    shapes: [{ type: "line", x0: limit, x1: limit, yref: "paper", y0: 0, y1: 1, line: { color: theme.series[1], dash: "dash", width: 1.5 } }],
    annotations: [{ x: limit, y: 0, yref: "paper", yanchor: "bottom", xanchor: "right", text: `limit ${limit.toFixed(1)} `, showarrow: false, font: { color: theme.series[1] } }],
  });
  if (!picked.chosen) return draw("memory", [], shape, "No plan is chosen");
  const p = sheet.prefill[picked.chosen.prefill], d = sheet.decode[picked.chosen.decode];
  const busier = p.activations_bytes + p.gathered_bytes >= d.activations_bytes + d.gathered_bytes ? p : d;
  const both = {
    weights_bytes: p.weights_bytes, kv_cache_bytes: Math.max(p.kv_cache_bytes, d.kv_cache_bytes),
    activations_bytes: busier.activations_bytes, gathered_bytes: busier.gathered_bytes,
  };
  const traces = MEMORY_PARTS.map(([key, name, colour]) => ({
    type: "bar", orientation: "h", name, y: ["prefill", "decode", "together"], x: [p, d, both].map((held) => held[key] / GIB),
    marker: { color: theme.series[colour] }, hovertemplate: "%{y}: %{x:.2f} GiB<extra>%{fullData.name}</extra>",
  }));
  return draw("memory", traces, shape, `${gibibytes(picked.chosen.hbm_bytes_per_chip)} of ${limit.toFixed(1)} GiB a chip`);
}

function rooflineFigure(sheet, state, picked, theme) {
  const roofs = sheet.roofs, ridge = roofs.flop_per_s / roofs.hbm_bytes_per_s;
  const traces = [];
  const phases = picked.chosen ? [["prefill", sheet.prefill[picked.chosen.prefill], 0, "circle"], ["decode", sheet.decode[picked.chosen.decode], 1, "diamond"]] : [];
  let least = 0.5, most = 4 * ridge;
  for (const [name, phase, colour, symbol] of phases) {
    const drawn = phase.steps.filter((step) => step[6] > 0);
    for (const step of drawn) { least = Math.min(least, step[5] / 2); most = Math.max(most, step[5] * 2); }
    const share = (step) => (Math.max(step[1], step[2]) + step[3] + step[4]) / phase.step_s;
    traces.push({
      name, mode: "markers+text", x: drawn.map((step) => step[5]), y: drawn.map((step) => step[6] / 1e12),
      text: drawn.map((step) => (share(step) === Math.max(...drawn.map(share)) ? sheet.step_names[step[0]] : "")), textposition: "bottom center", textfont: { size: 10, color: theme.series[colour] },
      customdata: drawn.map((step) => [sheet.step_names[step[0]], share(step)]), marker: { color: theme.series[colour], symbol, size: drawn.map((step) => 7 + 14 * Math.sqrt(share(step))), opacity: 0.85 },
      hovertemplate: "%{customdata[0]}: %{x:.4g} flop/B, %{y:.4g} Tflop/s, %{customdata[1]:.2f} of the pass<extra>%{fullData.name}</extra>",
    });
  }
  traces.push({
    name: "claimed", mode: "lines", x: [least, ridge, most], y: [least * roofs.hbm_bytes_per_s, roofs.flop_per_s, roofs.flop_per_s].map((v) => v / 1e12),
    line: { color: theme.ink, width: 2 }, hoverinfo: "skip",
  });
  const shape = layout(theme, axis(theme, "flop per byte of HBM traffic", { type: "log" }), axis(theme, "Tflop/s of one chip", { type: "log" }), {
    showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, margin: { l: 56, r: 20, t: 34, b: 44 },
    annotations: [{ x: Math.log10(most), y: Math.log10(roofs.flop_per_s / 1e12), xanchor: "right", yanchor: "bottom", showarrow: false, font: { color: theme.muted, size: 11 },
      text: `${sheet.chip}: ${digits(roofs.flop_per_s / 1e12)} Tflop/s ${roofs.matmul_format}, ${digits(roofs.hbm_bytes_per_s / 1e12)} TB/s` }],
  });
  return draw("roofline", traces, shape, "Matmuls and attention against the roofline of the chip");
}

function drawFigures(sheet, state, picked) {
  const theme = look();
  return Promise.all([frontierFigure, waterfallFigure, memoryFigure, rooflineFigure].map((figure) => figure(sheet, state, picked, theme)));
}
