// Numbers as a reader wants them: three digits that count, with a unit.
const GIB = 2 ** 30;

function digits(value, count = 3) {
  if (value === 0) return "0";
  return Math.abs(value) >= 10 ** (count - 0.5) ? value.toFixed(0) : String(Number(value.toPrecision(count)));
}

function seconds(value) {
  for (const [factor, unit] of [[1, "s"], [1e-3, "ms"], [1e-6, "us"]]) {
    if (value >= factor * 0.9995) return `${digits(value / factor)} ${unit}`;
  }
  return value === 0 ? "0 s" : `${digits(value / 1e-9)} ns`;
}

function gibibytes(bytes) {
  return `${(bytes / GIB).toFixed(1)} GiB`;
}

function dollars(value) {
  return `$${value >= 100 ? value.toFixed(0) : value.toFixed(value >= 0.1 ? 2 : 4)}`;
}

// A phase as the command line writes it: mesh or tp, then stages and replicas.
function meshOf(phase) {
  const flat = phase.mesh.endsWith("x1x1") ? `tp${phase.tp}` : phase.mesh;
  return [flat, phase.pp > 1 ? `pp${phase.pp}` : "", phase.dp > 1 ? `dp${phase.dp}` : ""].filter(Boolean).join(" ");
}
