"""A whole micro-batch, forward and backward, without autograd: loss, and the adapters' gradients added up.

Takes the modules of a transformers model of the Llama family with a PEFT LoRA adapter and computes what
`model(input_ids, labels).loss.backward()` does, in fixed steps that never wait for the GPU.

Padding stands behind the text and is never looked at by it (attention is causal); its labels leave it out of the loss.
"""

from __future__ import annotations

from typing import Any

import torch

from artifacts.schema import Products
from tasks.backends.fused import ops
from tasks.backends.fused.adapters import Adapters
from tasks.backends.fused.layers import DecoderLayer, Geometry, Kept
from tasks.backends.fused.projection import Int8Projection, Projection, Scratch
from tasks.backends.fused.support import ALIGNED, GROUPS, HEAD_TOKENS, INTO_STREAM, unsupported_config
from tasks.models.residual import is_fp32

Tensor = torch.Tensor


def unsupported(model: Any, length: int | None = None) -> str | None:
    """Why the backend cannot run a model (a transformers model, or PEFT's around one) on texts of so many tokens."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return unsupported_config(base.config.to_dict(), length)


class FusedModel:
    """The model as the engine runs it.

    Args:
        model: PEFT's model, or the transformers model alone (nothing is trained then).
        checkpointed: how many layers, from the first, keep only their input and are computed again going backward.
        resident: how many layers, from the first, give up their quantized weights for 16-bit ones: no time is spent on
            unpacking them. The modules of these layers compute nothing any more.
        length: tokens of the longest sequence.
        products: what the layers' products run on. `int8` is for int8 weights, and wants calibrating (`calibration`).

    Raises:
        ValueError: `unsupported` says why.
    """

    def __init__(
        self, model: Any, *, checkpointed: int = 0, resident: int = 0, length: int = 0, products: Products = "fp16"
    ) -> None:
        reason = unsupported(model, length or None)
        if reason:
            raise ValueError(reason)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.embedding: Tensor = base.model.embed_tokens.weight
        self.final_norm: Tensor = base.model.norm.weight
        self.head: Tensor = base.lm_head.weight
        self.checkpointed = checkpointed
        names = list(getattr(model, "active_adapters", [])) if hasattr(model, "peft_config") else []
        groups = [
            [_module(layer, name) for name in members] for layer in base.model.layers for members in GROUPS.values()
        ]
        adapted = [[one for one in group if hasattr(one, "lora_A") and names] for group in groups]
        self.adapters = Adapters(adapted, names[0] if names else "", ALIGNED, self.embedding)
        self._dropout = model.peft_config[names[0]].lora_dropout if names and model.training else 0.0
        self.geometry = _geometry(base, length)
        self._projection = Int8Projection if products == "int8" else Projection
        self.stream = torch.float32 if is_fp32(base) else self.embedding.dtype
        self.layers = [self._layer(layer, number < resident) for number, layer in enumerate(base.model.layers)]
        projections = [one for layer in self.layers for one in (layer.qkv, layer.o, layer.gate_up, layer.down)]
        like = self.embedding if products == "fp16" else self.embedding.new_empty(0, dtype=torch.int8)
        self._scratch = Scratch(max(one.unpacked for one in projections), like)
        for projection in projections:
            projection.use(self._scratch)
        trained = [any(one.adapted for one in (layer.qkv, layer.o, layer.gate_up, layer.down)) for layer in self.layers]
        self._first_trained = trained.index(True) if any(trained) else len(self.layers)

    def _layer(self, layer: Any, resident: bool) -> DecoderLayer:
        groups = {group: [_module(layer, name) for name in names] for group, names in GROUPS.items()}
        # The projections bring their weights into tensors of their own. What these leave is let go of together: one
        # hole, which the next layer's weights fill. Freed one by one they would leave holes between what stays, which
        # are of no use to a graph: its memory is apart.
        moved = [getattr(module, "base_layer", module).weight.data for modules in groups.values() for module in modules]
        projections = {}
        for group, modules in groups.items():
            bases = [getattr(module, "base_layer", module) for module in modules]
            adapters = [self.adapters.of(module) for module in modules]
            dtype = self.stream if group in INTO_STREAM else self.embedding.dtype
            projections[group] = self._projection(bases, adapters, self.adapters, self._dropout, dtype)
            if resident:
                projections[group].keep(bases)
        del moved
        return DecoderLayer(
            self.geometry, (layer.input_layernorm.weight, layer.post_attention_layernorm.weight), projections
        )

    def embedded(self, ids: Tensor) -> Tensor:
        """The residual stream's beginning, T × H, of token ids (T)."""
        return torch.nn.functional.embedding(ids, self.embedding).to(self.stream)

    def begin(self) -> None:
        """A pass over the layers starts, other than `loss_and_gradients`: all such take their products alike."""
        self._scratch.begin()

    def end(self) -> None:
        """The pass is complete."""
        self._scratch.end()

    def join(self) -> None:
        """Have the current stream wait for everything that a broken step left running beside it."""
        self._scratch.join()

    def loss_and_gradients(
        self, ids: Tensor, labels: Tensor, factor: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        """The summed loss of the positions that count, in nats (fp32); the adapters' gradients are added to theirs.

        Args:
            ids: token ids, sequences × tokens.
            labels: the same, with `ops.IGNORED` where a position has no part in the loss. Position t is predicted
                from those before, as everywhere in transformers.
            factor: what the summed loss is multiplied by before gradients are taken: one fp32 number on the device.
            positions: sequences × tokens; 0 begins a text that sees nothing of what stands before it in its sequence.
                (Rotation needs none of them: what two tokens make of each other depends on their distance alone.)
        """
        shape = (ids.shape[0], ids.shape[1])
        apart = None if positions is None else ops.texts_apart(positions, self.embedding.dtype)
        self.adapters.refresh()
        self._scratch.begin()
        kept: list[Kept | Tensor] = []
        pending, stream = self.embedded(ids.flatten()), None
        for number, layer in enumerate(self.layers):
            made, state = layer.forward(pending, stream, shape, apart=apart)
            kept.append(state if number >= self.checkpointed else state.h)
            pending, stream = made, state.middle
            del state
        # for every position the label of the next one; none for the last of a sequence
        shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=ops.IGNORED).flatten()
        losses, grad = self._head(pending, stream, shifted, factor)
        del pending, stream
        self._backward(grad, kept, shape, apart)
        self._scratch.end()
        self.adapters.add_up()
        return losses.sum()

    def _backward(self, grad: Tensor, kept: list[Kept | Tensor], shape: tuple[int, int], apart: Tensor | None) -> None:
        for number in range(len(self.layers) - 1, self._first_trained - 1, -1):
            layer, state = self.layers[number], kept.pop()
            if isinstance(state, Tensor):
                _, state = layer.forward(state, None, shape, again=True, apart=apart)
            result = layer.backward(grad, state, shape, wants_input=number > self._first_trained)
            if result is None:
                return
            grad = result

    def _head(self, pending: Tensor, stream: Tensor | None, labels: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        """Losses by token, and the gradient of the stream; logits exist for `HEAD_TOKENS` tokens at a time."""
        x, rstd = ops.rms_norm(pending, self.final_norm, self.geometry.eps, stream)
        losses = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
        for start in range(0, x.shape[0], HEAD_TOKENS):
            part = slice(start, start + HEAD_TOKENS)
            logits = x[part] @ self.head.T
            losses[part] = ops.cross_entropy(logits, labels[part], factor)
            torch.mm(logits, self.head, out=x[part])
        grad = torch.empty_like(x)
        nothing = grad.zero_()
        ops.rms_norm_backward(x, pending, self.final_norm, rstd, nothing, grad)
        return losses, grad


def _module(layer: Any, name: str) -> Any:
    for part in name.split("."):
        layer = getattr(layer, part)
    return layer


def _geometry(base: Any, length: int) -> Geometry:
    config = base.config
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    device = base.model.embed_tokens.weight.device
    places = torch.arange(max(length, 1), device=device)[None]
    # transformers' own module: it knows every way of scaling the angles (without hooks, which would round them)
    cosines, sines = base.model.rotary_emb.forward(torch.zeros(1, dtype=torch.float32, device=device), places)
    angles = tuple(one[0, :, : width // 2].float().contiguous() for one in (cosines, sines))
    return Geometry(
        heads=heads,
        kv_heads=config.num_key_value_heads or heads,
        head_width=width,
        mlp=config.intermediate_size,
        eps=config.rms_norm_eps,
        angles=(angles[0], angles[1]),
    )
