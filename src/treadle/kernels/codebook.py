"""Rows of a dictionary chosen by logits, with a straight-through gradient.

On a CPU, in float32 and float64, compiled loops run (`codebook_loops`); everywhere else, and in every other dtype, the
torch reference (`codebook_reference`) does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from treadle.errors import UsageError
from treadle.kernels import threads
from treadle.kernels.codebook_reference import chosen_reference

if TYPE_CHECKING:
    import numpy as np

COMPILED_DTYPES = (torch.float32, torch.float64)
SHARE = 1024
"""Rows that are worth handing to another thread."""


def chosen(logits: Tensor, dictionary: Tensor, first_row: tuple[int, ...], sharpness: float = 1.0) -> Tensor:
    """The dictionary's entry that each row of logits chooses.

    Args:
        logits: (rows, entries).
        dictionary: (levels, entries, features), of the dtype and on the device of `logits`.
        first_row: of each level, and at the end the number of rows.
        sharpness: a factor of the logits within the softmax: it changes their gradient, not the choice.

    Returns:
        (rows, features). The gradient to the dictionary is that of the choice, the one to the logits that of the
        softmax-weighted mean of the entries (`codebook_reference`). On a CPU the result and both gradients are bitwise
        equal on any number of threads.

    Raises:
        UsageError: shapes, dtypes or devices that do not fit each other.
    """
    if (
        logits.dim() != 2
        or dictionary.dim() != 3
        or logits.shape[1] != dictionary.shape[1]
        or len(first_row) != len(dictionary) + 1
        or len(logits) != first_row[-1]
    ):
        raise UsageError(
            f"codebook: logits {tuple(logits.shape)}, dictionary {tuple(dictionary.shape)} and first rows {first_row} "
            "do not fit: expected (rows, entries) and (levels, entries, features)"
        )
    if not logits.is_floating_point() or logits.dtype != dictionary.dtype or logits.device != dictionary.device:
        raise UsageError(
            f"codebook: logits are {logits.dtype} on {logits.device}, the dictionary {dictionary.dtype} on "
            f"{dictionary.device}: both must be of the same floating dtype, on the same device"
        )
    if logits.device.type == "cpu" and logits.dtype in COMPILED_DTYPES:
        return _Chosen.apply(logits, dictionary, first_row, sharpness)
    return chosen_reference(logits, dictionary, first_row, sharpness)


class _Chosen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, dictionary: Tensor, first_row: tuple[int, ...], sharpness: float) -> Tensor:
        import numpy as np

        from treadle.kernels import codebook_loops

        logits, dictionary = logits.contiguous(), dictionary.contiguous()
        out = logits.new_empty(len(logits), dictionary.shape[2])
        choices = np.empty(len(logits), np.int32)
        ctx.given = np.array(first_row, np.int64), (0.0,) * dictionary.shape[2]
        ctx.choices, ctx.sharpness = choices, float(sharpness)
        ctx.save_for_backward(logits, dictionary)
        given = _array(logits), _array(dictionary), *ctx.given
        threads.spread(codebook_loops.forward, _parts(logits), *given, choices, _array(out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        from treadle.kernels import codebook_loops

        logits, dictionary = ctx.saved_tensors
        pull = _array(grad.contiguous())
        grad_logits = grad_dictionary = None
        if ctx.needs_input_grad[0]:
            grad_logits = torch.empty_like(logits)
            given = _array(logits), _array(dictionary), *ctx.given, ctx.sharpness, pull
            threads.spread(codebook_loops.logit_gradient, _parts(logits), *given, _array(grad_logits))
        if ctx.needs_input_grad[1]:
            grad_dictionary = torch.zeros_like(dictionary)
            parts, into = threads.parts_for(len(dictionary)), _array(grad_dictionary)
            threads.spread(codebook_loops.dictionary_gradient, parts, ctx.choices, *ctx.given, pull, into)
        return grad_logits, grad_dictionary, None, None


def _parts(logits: Tensor) -> int:
    return threads.parts_for(-(-len(logits) // SHARE))


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().numpy()
