"""Layer that peft puts in the place of a linear one."""

import torch


class LoraLinear(torch.nn.Module):
    """Replacement of a linear layer by peft."""

    def __init__(self, layer):
        super().__init__()
        self.base_layer = layer
        self.lora_A = torch.nn.ModuleDict({"default": torch.nn.Linear(layer.in_features, 2, bias=False)})
        self.lora_B = torch.nn.ModuleDict({"default": torch.nn.Linear(2, layer.out_features, bias=False)})

    def forward(self, states):
        return self.base_layer(states) + self.lora_B["default"](self.lora_A["default"](states))
