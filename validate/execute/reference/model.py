"""The whole model on one device, fed pass by pass."""

from typing import Any

import torch

from ....models.blocks import RECURRENT
from ....models.feed_forward import DenseFfn
from ....models.mixers.attention import AttentionMixer
from ....models.mixers.latent import LatentMixer
from .. import arithmetic as do
from ..executable import source_layer
from ..formats import kept_as
from ..spec import RunSpec
from ..weights import ENDS, NO_BLOCK
from ..weights import Weights as Source
from .attention import attention
from .feed_forward import dense, experts
from .latent import latent
from .reading import Reading, Weights
from .recurrent import recurrent


class Reference:
    """A model with what its layers remember of the tokens so far."""

    def __init__(self, spec: RunSpec, source: Source) -> None:
        self.spec, self.model, plan = spec, spec.model, spec.weight_plan()
        layers = enumerate(self.model.layers)
        self._layers = [{name: source(i, name) for name in plan.tensors[kind]} for i, kind in layers]
        self._ends = {name: source(ENDS, name) for name in plan.tensors[NO_BLOCK]}
        # keys and values in a list, latents by name, and of recurrent mixers all that entered
        self._picks: Weights = {}
        self._memory: list[dict[str, Any]] = [{"kv": []} for _ in self._layers]

    def __call__(self, tokens: torch.Tensor, past: int) -> torch.Tensor:
        """Logits [B, V] of the last of `tokens` [B, L], which follow `past` tokens already seen."""
        model, positions = self.model, torch.arange(past, past + tokens.shape[1])
        x = self._ends["embedding"][tokens]
        if model.n_learned_positions:
            x = x + self._ends["positions"][positions]
        if model.embedding_norm:
            x = self._norm(x, self._ends["embedding norm"])
        for i in range(model.n_layers):
            x = self._block(i, x, positions)
        last = x[:, -1]
        if model.final_norm:
            last = self._norm(last, self._ends["final norm"])
        matrix = self._ends["embedding"].T if model.tied_embeddings else self._ends["unembedding"]
        return last @ matrix + self._ends.get("bias of logits", 0.0)

    def _block(self, i: int, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The residual after one layer."""
        model, w = self.model, self._layers[i]
        block = model.kinds[model.layers[i]]
        spec = self.spec
        at = Reading(
            model=model, block=block, positions=positions, theta=spec.theta, eps=spec.norm_eps,
            kept=kept_as(spec.kv or spec.dtype), n_chips=spec.mesh.tp if spec.routing == "balanced" else None,
        )  # fmt: skip
        n_each = model.norm_scale + model.norm_bias
        norms = iter(w["norms"].view(model.n_norms(block), n_each, model.d_model))
        if model.block == "parallel" and block.mixer is not None and block.ffn is not None:
            entered = self._norm(x, next(norms))
            made = self._mixer(i, at, entered, w) + self._ffn(i, at, entered, w)
            return x + (self._norm(made, next(norms)) if model.post_norms else made)
        for part, run in ((block.mixer, self._mixer), (block.ffn, self._ffn)):
            if part is not None:
                made = run(i, at, self._norm(x, next(norms)), w)
                x = x + (self._norm(made, next(norms)) if model.post_norms else made)
        return x

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        rows = weight.view(self.model.norm_scale + self.model.norm_bias, self.model.d_model)
        return do.norm(self.model, x, do.statistics(self.model, x), rows, self.spec.norm_eps)

    def _mixer(self, i: int, at: Reading, x: torch.Tensor, w: Weights) -> torch.Tensor:
        mixer, memory = at.block.mixer, self._memory[i]
        if isinstance(mixer, AttentionMixer):
            source = source_layer(self.model, i)
            assert source is not None
            return attention(at, mixer, x, w, self._memory[source]["kv"])
        if isinstance(mixer, LatentMixer):
            return latent(at, mixer, x, w, memory, self._picks)
        assert isinstance(mixer, RECURRENT)
        memory["entered"] = at.seen(memory.get("entered"), x)
        return recurrent(at, mixer, memory["entered"], w)[:, -x.shape[1] :]

    def _ffn(self, i: int, at: Reading, x: torch.Tensor, w: Weights) -> torch.Tensor:
        ffn, memory = at.block.ffn, self._memory[i]
        assert ffn is not None
        if not isinstance(ffn, DenseFfn):
            return experts(at, ffn, x, w)
        last, memory["last of ffn"] = memory.get("last of ffn"), x[:, -1]
        return dense(at, ffn, x, last, w)
