"""SGD whose update runs inside backward, so gradients need not all exist at once. No schedule.

The arithmetic is that of `torch.optim.SGD(fused=True)`, bit for bit: each parameter is updated as
soon as its gradient is complete, and the gradient is freed before the next one is computed. A
parameter's gradient is complete only once nothing in the graph reads the parameter any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd


class SGDInBackward(torch.optim.SGD):
    """`backward()` is the step, and `step()` does nothing; call `close()` once training is over.

    Args:
        params: groups, as `torch.optim.SGD` takes them.
        momentum, weight_decay: of all groups.
    """

    # Without torch's decorator, which imports the compiler (150 MB, a second and a half) to keep
    # them out of compiled code: nothing here is compiled.
    add_param_group = vars(torch.optim.Optimizer.add_param_group)["__wrapped__"]
    zero_grad = vars(torch.optim.Optimizer.zero_grad)["__wrapped__"]
    state_dict = vars(torch.optim.Optimizer.state_dict)["__wrapped__"]
    load_state_dict = vars(torch.optim.Optimizer.load_state_dict)["__wrapped__"]

    def __init__(
        self, params: Iterable[dict[str, Any]], *, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(params, momentum=momentum, weight_decay=weight_decay)
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._updater(group))
            for group in self.param_groups
            for parameter in group["params"]
        ]

    def _updater(self, group: dict[str, Any]) -> Callable[[Tensor], None]:
        @torch.no_grad()
        def update(parameter: Tensor) -> None:
            assert parameter.grad is not None
            buffers = [self.state[parameter].get("momentum_buffer")]
            sgd(
                [parameter],
                [parameter.grad],
                buffers,
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                maximize=group["maximize"],
                has_sparse_grad=False,
                foreach=False,
                fused=True,  # one pass over parameter, gradient and momentum instead of four
            )
            if group["momentum"]:
                self.state[parameter]["momentum_buffer"] = buffers[0]
            parameter.grad = None

        return update

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Do nothing: backward has updated the parameters."""

    def close(self) -> None:
        """Take the hooks off the parameters, which live on in the trained model."""
        for hook in self._hooks:
            hook.remove()
