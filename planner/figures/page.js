"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const phone = window.matchMedia("(max-width: 600px)");

  // figures

  function layoutOf(figure, theme) {
    const layout = structuredClone(phone.matches && figure.narrow ? figure.narrow : figure.layout);
    layout.template = data.themes[theme];
    if (phone.matches) {
      layout.margin = Object.assign({}, layout.margin, { l: 48 });
      layout.font = { size: 11 };
    }
    return layout;
  }

  function drawAll(theme) {
    root.dataset.theme = theme;
    for (const [name, figure] of Object.entries(data.figures)) {
      Plotly.react("figure-" + name, figure.data, layoutOf(figure, theme), data.config);
    }
  }

  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  let theme = prefersDark.matches ? "dark" : "light";
  drawAll(theme);
  document.getElementById("theme").addEventListener("click", () => {
    theme = theme === "dark" ? "light" : "dark";
    drawAll(theme);
  });
  phone.addEventListener("change", () => drawAll(theme));
  window.addEventListener("beforeprint", () => drawAll("light"));
  window.addEventListener("afterprint", () => drawAll(theme));

  // the table

  const table = data.table;
  if (!table) return;
  const STEP = 200;
  const head = document.querySelector("#table thead");
  const body = document.querySelector("#table tbody");
  const more = document.getElementById("more");
  const count = document.getElementById("count");
  const n = table.columns.length ? table.columns[0].length : 0;
  const fits = table.columns[table.names.indexOf("fits")];
  const plain = new Intl.NumberFormat("en", { maximumSignificantDigits: 5, useGrouping: false });
  let order = Array.from({ length: n }, (_, i) => i);
  let sorted = { column: -1, rising: true };
  let shown = STEP;
  let wanted = "";

  function text(value) {
    if (value === null) return "";
    if (value === true) return "yes";
    if (value === false) return "no";
    if (typeof value !== "number") return value;
    const size = Math.abs(value);
    return Number.isInteger(value) && size < 1e7 ? String(value) : size >= 1e7 || (size > 0 && size < 1e-3) ? value.toExponential(3) : plain.format(value);
  }

  function compare(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return sorted.rising ? a - b : b - a;
    const by = String(a).localeCompare(String(b), "en", { numeric: true });
    return sorted.rising ? by : -by;
  }

  function matching() {
    if (!wanted) return order;
    return order.filter((i) => table.columns.some((column) => text(column[i]).toLowerCase().includes(wanted)));
  }

  function render() {
    const rows = matching();
    body.replaceChildren(
      ...rows.slice(0, shown).map((i) => {
        const row = document.createElement("tr");
        if (fits && !fits[i]) row.className = "out";
        for (const column of table.columns) {
          const cell = document.createElement("td");
          cell.textContent = text(column[i]);
          if (typeof column[i] === "number") cell.className = "number";
          row.append(cell);
        }
        return row;
      })
    );
    more.hidden = rows.length <= shown;
    count.textContent = Math.min(shown, rows.length) + " of " + rows.length + " rows";
  }

  function sortBy(column) {
    sorted = { column, rising: sorted.column === column ? !sorted.rising : true };
    const values = table.columns[column];
    order.sort((i, j) => compare(values[i], values[j]) || i - j);
    for (const [k, cell] of [...head.querySelectorAll("th")].entries()) {
      cell.setAttribute("aria-sort", k !== column ? "none" : sorted.rising ? "ascending" : "descending");
    }
    render();
  }

  const titles = document.createElement("tr");
  for (const [k, name] of table.names.entries()) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.setAttribute("aria-sort", "none");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.title = table.says[k];
    button.addEventListener("click", () => sortBy(k));
    cell.append(button);
    titles.append(cell);
  }
  head.append(titles);

  document.getElementById("filter").addEventListener("input", (event) => {
    wanted = event.target.value.trim().toLowerCase();
    shown = STEP;
    render();
  });
  more.addEventListener("click", () => {
    shown += 5 * STEP;
    render();
  });

  function csvCell(value) {
    const raw = value === null ? "" : String(value);
    return /[",\n\r]/.test(raw) ? '"' + raw.replaceAll('"', '""') + '"' : raw;
  }

  document.getElementById("download").addEventListener("click", () => {
    const lines = [table.names.map(csvCell).join(",")];
    for (const i of matching()) lines.push(table.columns.map((column) => csvCell(column[i])).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = table.file;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  render();
})();
