"""RMSNorm and SwiGLU: values and gradients of the fused passes, in double precision."""

import torch
import torch.nn.functional as F

from aha.models.layers import RMSNorm, SwiGLU
from aha.models.swiglu import swiglu

torch.set_num_threads(1)


def test_rms_norm_is_the_formula_and_its_gradient() -> None:
    norm = RMSNorm(6, 1e-5).double()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (6,), norm.weight, 1e-5))
    assert torch.autograd.gradcheck(norm, (x,))
    expected = torch.autograd.grad(F.rms_norm(x, (6,), norm.weight, 1e-5).sin().sum(), [x, norm.weight])
    found = torch.autograd.grad(norm(x).sin().sum(), [x, norm.weight])
    torch.testing.assert_close(found, expected)


def test_rms_norm_of_a_slice() -> None:
    norm = RMSNorm(4, 1e-6)
    wide = torch.randn(3, 10)
    torch.testing.assert_close(norm(wide[:, 2:6]), norm(wide[:, 2:6].contiguous()))


def test_swiglu_takes_the_gate_first_and_has_its_gradient() -> None:
    x = torch.randn(4, 10, dtype=torch.float64, requires_grad=True)
    gate, up = x.chunk(2, dim=-1)
    torch.testing.assert_close(swiglu(x), F.silu(gate) * up)
    assert torch.autograd.gradcheck(swiglu, (x,))


def test_feed_forward_is_down_of_swiglu() -> None:
    layer, x = SwiGLU(4, 6), torch.randn(3, 4)
    gate, up = (x @ layer.gate_up_proj.weight.t()).chunk(2, dim=-1)
    torch.testing.assert_close(layer(x), (F.silu(gate) * up) @ layer.down_proj.weight.t())
