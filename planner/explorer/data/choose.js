// Which plan of a sheet is best under the limits: the rules of the planner, over the plans that it found unbeaten.

const AIMS = {
  cost: (plan) => [plan.chip_s, plan.latency_s],
  latency: (plan) => [plan.latency_s, plan.chip_s],
  throughput: (plan) => [plan.chip_s / plan.n_chips, plan.latency_s],
};

function limitsOf(state) {
  return { ttft_s: state.ttft === "" ? Infinity : state.ttft / 1e3, tpot_s: state.tpot === "" ? Infinity : state.tpot / 1e3 };
}

function keepsLimits(plan, limits) {
  return plan.ttft_s <= limits.ttft_s && plan.tpot_s <= limits.tpot_s;
}

function ofBatch(sheet, state) {
  return sheet.plans.filter((plan) => state.batch === "any" || sheet.decode[plan.decode].batch === Number(state.batch));
}

// The plans that may be chosen, best first, and where there is none, why.
function choose(sheet, state) {
  const limits = limitsOf(state);
  const considered = ofBatch(sheet, state).filter((plan) => state.chips === "any" || plan.n_chips === Number(state.chips));
  const aim = AIMS[state.by];
  const ranked = considered
    .filter((plan) => keepsLimits(plan, limits))
    .map((plan) => ({ plan, key: aim(plan) }))
    .sort((a, b) => a.key[0] - b.key[0] || a.key[1] - b.key[1])
    .map((entry) => entry.plan);
  const place = Math.min(Math.max(Number(state.plan) || 1, 1), Math.max(ranked.length, 1)) - 1;
  return { ranked, chosen: ranked[place] || null, place, why: ranked.length ? "" : miss(sheet, state, considered, limits) };
}

function miss(sheet, state, considered, limits) {
  if (!sheet.plans.length) return `No plan is feasible: ${sheet.miss}.`;
  if (!considered.length) {
    const counts = [...new Set(ofBatch(sheet, state).map((plan) => plan.n_chips))].sort((a, b) => a - b);
    const batch = state.batch === "any" ? "" : ` with a decode batch of ${state.batch}`;
    return counts.length
      ? `Nothing fits on ${state.chips} chips${batch}; what does fit takes ${counts.join(", ")} chips.`
      : `Nothing fits${batch}; take a smaller batch, or more chips.`;
  }
  const least = (name) => Math.min(...considered.map((plan) => plan[name]));
  const parts = [];
  if (limits.ttft_s < Infinity) parts.push(`TTFT ${seconds(least("ttft_s"))} (limit ${seconds(limits.ttft_s)})`);
  if (limits.tpot_s < Infinity) parts.push(`TPOT ${seconds(least("tpot_s"))} (limit ${seconds(limits.tpot_s)})`);
  return `No plan keeps the limits: the quickest that fits has ${parts.join(" and ")}, each at its best; relax the limit or take more chips.`;
}

// Cost of a million output tokens where a price is known, else chip-seconds of a thousand.
function costOf(plan, sheet, state) {
  const each = plan.chip_s / sheet.output_tokens;
  return state.price === "" ? each * 1e3 : (each * state.price / 3600) * 1e6;
}

function costTitle(state) {
  return state.price === "" ? "chip-seconds per 1000 output tokens" : "USD per million output tokens";
}

function shortCostTitle(state) {
  return state.price === "" ? "chip-s/ktok" : "USD/Mtok";
}

// Of points {x, y}, those that no other is at least as low as in both, by rising x.
function frontierOf(points) {
  const sorted = [...points].sort((a, b) => a.x - b.x || a.y - b.y);
  const kept = [];
  let lowest = Infinity;
  for (const point of sorted) {
    if (point.y < lowest) kept.push(point);
    lowest = Math.min(lowest, point.y);
  }
  return kept;
}
