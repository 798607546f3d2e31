// Where sheets come from: the grid inside the page, or the server that sent it. Both answer `sheet(state)`.

function questionKey(state) {
  return [state.model, state.chip, state.input, state.output, state.weights, state.kv].join("|");
}

// A sheet of the grid: gzip in base64, unpacked when it is first looked at.
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

function gridSource(page) {
  const told = new Map();
  return {
    async sheet(state) {
      const key = questionKey(state);
      const held = page.sheets[key];
      if (!held) throw new Error("The grid of this page has no such combination; change a control.");
      if (held.error) throw new Error(held.error);
      if (!told.has(key)) told.set(key, await unpacked(held.packed));
      return told.get(key);
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
