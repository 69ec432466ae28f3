"""Max pooling on a CPU in a third of the time, with the same bytes.

PyTorch's kernel goes over one image at a time and is not vectorised; the one for "channels last"
is. What a convolution before and after it sees stays in the usual order: forward, the windows'
winners are found in the other order; backward, gradients are added up in the usual one.

Shapes: B images of C channels, height h and width w, before; o and p after.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class MaxPool(nn.MaxPool2d):
    """Max pooling over windows of `kernel_size`, without padding or dilation.

    Guarantees:
        * Outputs and gradients are those of `torch.nn.MaxPool2d` to the byte: ties, NaN,
          infinities and signed zeros included.
    """

    def __init__(self, kernel_size: int, stride: int | None = None) -> None:
        """Take the windows' side and, where it is another, how far apart they are."""
        super().__init__(kernel_size, stride)

    def forward(self, input: Tensor) -> Tensor:
        """Return the largest value of each window, `(B, C, o, p)` of `(B, C, h, w)`."""
        # A trace is for other programs, and is to show the plain operation.
        is_traced = torch._C._get_tracing_state() is not None
        other = input.dtype != torch.float32 or input.device.type != "cpu" or input.dim() != 4
        if is_traced or other:
            plain: Tensor = super().forward(input)
            return plain
        pooled: Tensor = _MaxPool.apply(input, self.kernel_size, self.stride)  # type: ignore[no-untyped-call]
        return pooled


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, kernel_size: int, stride: int) -> Tensor:
        reordered = images.contiguous(memory_format=torch.channels_last)
        pooled, winners = functional.max_pool2d(reordered, kernel_size, stride, return_indices=True)
        ctx.save_for_backward(images, winners)
        ctx.sizes = kernel_size, stride
        return pooled.contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        images, winners = ctx.saved_tensors
        kernel_size, stride = ctx.sizes
        gradient = torch.ops.aten.max_pool2d_with_indices_backward(
            gradients[0].contiguous(),
            images,
            [kernel_size, kernel_size],
            [stride, stride],
            [0, 0],
            [1, 1],
            False,  # windows that stand over are left out
            winners.contiguous(),
        )
        return gradient, None, None
