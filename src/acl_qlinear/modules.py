"""Linear layers as modules."""

import torch
import torch.ao.nn.intrinsic.quantized as nniq
import torch.ao.nn.quantized as nnq
from torch import Tensor

from .ops import prepack


class Linear(torch.nn.Module):
    """A statically quantized linear layer on ACL, with the weight packed once.

    Takes quint8 or qint8 [M, K] and returns the same dtype [M, N]; see `acl_qlinear.linear`.
    """

    _operator = torch.ops.acl_qlinear.linear.default
    _torch_type = nnq.Linear

    def __init__(
        self, weight: Tensor, bias: Tensor | None, output_scale: float, output_zero_point: int
    ) -> None:
        """weight: qint8 [N, K], per tensor; bias: float32 [N] or None; see `prepack`."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = prepack(weight, bias)
        self.scale = float(output_scale)
        self.zero_point = int(output_zero_point)

    @classmethod
    def from_torch(cls, module: nnq.Linear) -> "Linear":
        """The layer that computes what PyTorch's quantized `module` computes.

        Raises TypeError for another kind of module, ValueError for weights that
        `prepack` refuses.
        """
        if type(module) is not cls._torch_type:
            raise TypeError(
                f"module is a {type(module).__module__}.{type(module).__qualname__}, expected "
                f"a {cls._torch_type.__module__}.{cls._torch_type.__qualname__}"
            )
        return cls(module.weight(), module.bias(), module.scale, module.zero_point)

    def forward(self, x: Tensor) -> Tensor:
        """x: [M, K]; returns [M, N]."""
        return self._operator(x, self.packed, self.scale, self.zero_point)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"scale={self.scale}, zero_point={self.zero_point}"
        )


class LinearReLU(Linear):
    """`Linear` with a ReLU in the same pass."""

    _operator = torch.ops.acl_qlinear.linear_relu.default
    _torch_type = nniq.LinearReLU
