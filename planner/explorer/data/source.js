// Where sheets come from: the grid inside the page, or the server that sent it. Both answer `sheet(state)`.

function questionKey(state) {
  return [state.model, state.chip, state.input, state.output, state.weights, state.kv].join("|");
}

function gridSource(page) {
  return {
    async sheet(state) {
      const sheet = page.sheets[questionKey(state)];
      if (!sheet) throw new Error("The grid of this page has no such combination; change a control.");
      if (sheet.error) throw new Error(sheet.error);
      return sheet;
    },
  };
}

function liveSource(page) {
  const told = new Map();
  return {
    async sheet(state) {
      const key = questionKey(state);
      if (told.has(key)) return told.get(key);
      const counts = page.offer.chips.find((chip) => chip.name === state.chip).counts.join(",");
      const query = new URLSearchParams({
        model: state.model, chip: state.chip, counts, input_tokens: state.input, output_tokens: state.output,
        weights: state.weights, kv_dtype: state.kv,
      });
      const response = await fetch(`/api/sheet?${query}`);
      const answer = await response.json();
      if (answer.error) throw new Error(answer.error);
      told.set(key, answer);
      return answer;
    },
  };
}
