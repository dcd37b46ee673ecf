"""Checkpoints of a training: weights, optimizer and epochs so far, written after each epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nextclick.errors import ArtifactError, ConfigError
from nextclick.files import new_file

_OF_STAGE = ("checksums",)
"""What of a training differs from stage to stage: the sessions that it is on."""


class State:
    """All that a training changes: the network's weights, the best ones so far, the optimizer's memory."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.network, self.optimizer = network, optimizer
        self.best: dict[str, Tensor] = {}

    def keep(self) -> None:
        """Remember the present weights as the best ones."""
        self.best = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    def take_kept(self) -> None:
        """Go back to the best weights."""
        self.network.load_state_dict(self.best)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name."""
        found = {f"weights.{name}": tensor for name, tensor in self.network.state_dict().items()}
        found |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for number, memory in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{number}.{name}": tensor for name, tensor in memory.items()}
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``tensors`` returned."""
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.network.load_state_dict(parts["weights"])
        self.best = {name: tensor.to(_device(self.network)) for name, tensor in parts["best"].items()}
        memory: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            number, _, rest = name.partition(".")
            memory.setdefault(int(number), {})[rest] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": memory, "param_groups": groups})


class Checkpoints:
    """One file in a folder, replaced whole after each epoch.

    about: what the training is (settings, data); a checkpoint of another one is refused.
    """

    def __init__(self, file: Path, about: Mapping[str, Any]) -> None:
        self.file = file
        self.about = json.dumps(about, sort_keys=True, default=str)

    def write(self, state: State, history: list[dict[str, Any]]) -> None:
        """Replace the checkpoint. Raises DataError when the disk is full."""
        from safetensors.torch import save_file

        tensors, there = {}, set()
        for name, tensor in state.tensors().items():
            place = tensor.untyped_storage().data_ptr()
            # safetensors takes no two that share memory; copies of all would take as much as training does
            tensors[name] = tensor.clone().contiguous() if place in there else tensor.contiguous()
            there.add(place)
        meta = {"about": self.about, "history": json.dumps(history)}
        with new_file(self.file) as aside:
            save_file(tensors, aside, meta)

    def restore(self, state: State) -> list[dict[str, Any]]:
        """Bring a training to where the checkpoint was written; return its epochs, none without a file.

        Raises ConfigError when it was written by another training and ArtifactError when it is damaged.
        """
        from safetensors import SafetensorError, safe_open

        if not self.file.exists():
            self._refuse_others()
            return []
        try:
            with safe_open(self.file, "pt") as opened:
                meta = opened.metadata()
                if meta["about"] != self.about:
                    raise self._another(self.file)
                state.restore({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
                return json.loads(meta["history"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtifactError(
                f"{self.file}: unreadable checkpoint ({error}); begin anew with --overwrite"
            ) from error

    def _refuse_others(self) -> None:
        """Raise ConfigError where checkpoints of another training lie beside the file, under other names."""
        from safetensors import SafetensorError, safe_open

        own = json.loads(self.about)
        for file in sorted(self.file.parent.glob("*.safetensors")):
            try:
                with safe_open(file, "pt") as opened:
                    about = json.loads(opened.metadata()["about"])
            except (SafetensorError, OSError, KeyError, TypeError, ValueError):
                continue  # damaged, or of no training
            if any(about.get(name) != own.get(name) for name in (*about, *own) if name not in _OF_STAGE):
                raise self._another(file)

    @staticmethod
    def _another(file: Path) -> ConfigError:
        return ConfigError(
            f"{file}: the checkpoint of another training (other settings, data or version); train with what "
            "it was begun with, or begin anew with --overwrite"
        )


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
