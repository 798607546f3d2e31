// What the controls say, kept in the address so that a page can be sent, reloaded and gone back to.

// Keys of the address, in its order; each is text.
const KEYS = ["model", "chip", "chips", "input", "output", "weights", "kv", "batch", "ttft", "tpot", "price", "by", "x", "phase", "plan"];
const NUMBERS = { ttft: true, tpot: true, price: true };

function startState(page) {
  const start = page.start;
  const milliseconds = (value) => (value === null ? "" : String(Number((value * 1e3).toPrecision(6))));
  const price = start.usd_per_h === null ? priceOf(page, start.chip) : String(start.usd_per_h);
  return {
    model: start.model, chip: start.chip, chips: start.chips === null ? "any" : String(start.chips),
    input: String(start.input_tokens), output: String(start.output_tokens), weights: start.weights, kv: start.kv_dtype,
    batch: start.batch === null ? "any" : String(start.batch), ttft: milliseconds(start.ttft_s), tpot: milliseconds(start.tpot_s),
    price, by: start.objective, x: "latency", phase: "decode", plan: "1",
  };
}

function priceOf(page, name) {
  const price = page.offer.chips.find((chip) => chip.name === name).usd_per_h;
  return price === null ? "" : String(price);
}

// What a key may be; a value that is not is left as it was.
function allowed(page, key, value, state) {
  const offer = page.offer;
  const named = (list) => list.some((one) => one.name === value);
  const whole = /^[1-9][0-9]{0,7}$/.test(value);
  switch (key) {
    case "model": return named(offer.models);
    case "chip": return named(offer.chips);
    case "chips": return value === "any" || offer.chips.some((chip) => chip.name === state.chip && chip.counts.includes(Number(value)));
    case "input": return whole && (offer.is_open || offer.input_tokens.includes(Number(value)));
    case "output": return whole && (offer.is_open || offer.output_tokens.includes(Number(value)));
    case "weights": return offer.weights.includes(value);
    case "kv": return offer.kv_dtypes.includes(value);
    case "batch": return value === "any" || whole;
    case "by": return value in AIMS;
    case "x": return ["latency", "tpot", "ttft"].includes(value);
    case "phase": return ["decode", "prefill"].includes(value);
    case "plan": return whole;
    default: return NUMBERS[key] === true && (value === "" || (Number.isFinite(Number(value)) && Number(value) > 0));
  }
}

function readAddress(page, state) {
  const read = { ...state };
  const given = new URLSearchParams(location.hash.slice(1));
  for (const key of KEYS) {
    const value = given.get(key);
    if (value === null || !allowed(page, key, value, read)) continue;
    read[key] = value;
    if (key === "chip") read.price = priceOf(page, value);
  }
  return read;
}

function writeAddress(state) {
  const told = new URLSearchParams(KEYS.map((key) => [key, state[key]]));
  history.replaceState(null, "", `#${told}`);
}
