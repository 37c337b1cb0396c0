"""RAI on any ``torch.nn.Module``: targets in place of the outputs of chosen submodules.

``relax`` gives a module trainable targets for all examples at once. ``relax_dataset`` keeps those
of a data set by the number of the example, for mini-batches of a ``DataLoader``. The other way to
use mini-batches, targets that are made afresh, is ``relax`` on each batch.

While a module is relaxed, two hooks watch every module of the process and act on those that were
chosen. Nothing is attached to the module itself, so a copy of it, or a file, is the ordinary one.
"""

from __future__ import annotations

import inspect
import math
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import quote
from weakref import WeakSet, finalize, ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils.data import Dataset, StackDataset

from rai_utils.checks import number, whole_numbers
from rai_utils.relaxation import check_examples, guide, read_labels
from rai_utils.training import check_rprop_rates, update_rule

Selection = type | str | Sequence[type] | Sequence[str] | Callable[[str, nn.Module], bool]
HiddenLoss = Callable[[Tensor, Tensor], Tensor]

# Every module that is relaxed, or a part of one that is.
_relaxed: WeakSet[nn.Module] = WeakSet()


def mean_square(prediction: Tensor, target: Tensor) -> Tensor:
    """Return mean |ẑ − z|² over examples and units, the hidden term of Eq. 4."""
    residual = prediction - target
    if residual.is_complex():
        return torch.view_as_real(residual).square().sum(-1).mean()
    return residual.square().mean()


class Relaxation:
    """A module whose chosen submodules pass on their targets; made by ``relax``.

    Attributes:
        module: the module, not wrapped, not copied and not changed.
        targets: the trainable targets, of the shapes of the outputs, in the order of the forward
            pass. The key is the submodule's name; ``name:2`` is its second run in one pass, and
            ``name[0]`` the first tensor of several that it returns.
    """

    def __init__(
        self,
        module: nn.Module,
        chosen: dict[nn.Module, str],
        required: Iterable[str],
        hidden_loss: HiddenLoss,
    ) -> None:
        self.module = module
        self.targets: dict[str, nn.Parameter] = {}
        self._required, self._hidden_loss = required, hidden_loss
        self._signature = inspect.signature(module.forward)
        self._inputs: list[Any] = []
        self._keys: list[str] | None = None  # None until the first pass has shown them
        self._unread: set[str] = set()
        self._top: str | None = None  # the target that the module returns
        self._terms: dict[str, Tensor] = {}  # of the last pass that ended
        self._made: dict[str, tuple[Tensor, ...]] = {}  # prediction, what was passed on, term
        self._runs: dict[str, int] = {}
        self._running = self._with_gradients = self._used = False
        own = ref(self)  # a relaxation that is forgotten goes, and its hooks with it

        def before(part: nn.Module, _: Any) -> None:
            if part is module and (this := own()) is not None:
                this._begin()

        def after(part: nn.Module, given: Any, named: Any, output: Any) -> Any:
            name = chosen.get(part)
            if (name is not None or part is module) and (this := own()) is not None:
                return this._after(part, name, given, named, output)
            return None

        handles = (
            torch_modules.register_module_forward_pre_hook(before),
            torch_modules.register_module_forward_hook(after, with_kwargs=True),
        )
        parts = set(module.modules())
        _relaxed.update(parts)
        self._close = finalize(self, _detach, handles, parts)

    def _begin(self) -> None:
        # Code that was compiled while it was relaxed goes on calling this.
        self._running = self.module.training and self._close.alive
        if self._running:
            self._terms, self._made, self._runs = {}, {}, {}
            self._with_gradients, self._used = torch.is_grad_enabled(), False

    def _after(self, part: nn.Module, name: str | None, given: Any, named: Any, output: Any) -> Any:
        # Inside backward() a checkpoint computes its part again.
        if name is not None and (self._running or torch._C._current_graph_task_id() >= 0):
            output = self._relax_output(name, output)
        if part is self.module:
            if self._running:
                self._running = False
                self._end(given, named, output)
            elif part.training and self._close.alive:
                raise ValueError("a relaxed module must not call itself: relax the parts it calls")
        return output

    def _relax_output(self, name: str, output: Any) -> Any:
        if self._with_gradients and not torch.is_grad_enabled():
            raise ValueError(
                f"{name!r} must run with gradients, and runs without (under no_grad, or in a "
                "checkpoint with use_reentrant=True): leave it out of select"
            )
        runs = self._runs.get(name, 0)
        if self._running:
            self._runs[name] = runs = runs + 1
        elif runs > 1:
            raise ValueError(f"a checkpointed submodule must run once in a pass, {name!r} did not")
        label = name if runs == 1 else f"{name}:{runs}"
        if isinstance(output, Tensor):
            return self._pass_on(label, output)
        leaves, structure = tree_flatten(output)
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                leaves[place] = self._pass_on(f"{label}[{place}]" if leaves[1:] else label, leaf)
        return tree_unflatten(leaves, structure)

    def _pass_on(self, key: str, prediction: Tensor) -> Tensor:
        """Note what a prediction owes its target, and return the target."""
        target = self.targets.get(key)
        if target is None:
            numbers = prediction.is_floating_point() or prediction.is_complex()
            if not numbers or key in self._unread:
                return prediction
            if self._keys is not None and key not in self._keys:
                raise ValueError(
                    "every pass must run the submodules that ran when the targets were made, "
                    f"got {key}"
                )
            target = self.targets[key] = nn.Parameter(self._start(key, prediction.detach()))
        if prediction.shape != target.shape:
            raise ValueError(
                f"targets of {key!r} belong to the examples they were made for and have shape "
                f"{tuple(target.shape)}, got an output of shape {tuple(prediction.shape)}"
            )
        term = self._hidden_loss(prediction, target)
        passed_on = target.clone()  # what comes next may work in place
        if self._running:
            self._made[key] = prediction, passed_on, term
        return passed_on

    def _start(self, key: str, prediction: Tensor) -> Tensor:
        return prediction.clone()

    def _end(self, given: Any, named: Any, output: Any) -> None:
        if first := self._keys is None:
            self._learn(output)
        keys, made, self._made = self._keys or [], self._made, {}
        missing = [key for key in keys if key not in made]
        if missing:
            raise ValueError(
                f"every relaxed submodule must run in the forward pass, {missing[0]!r} did not"
            )
        if self._inputs and not first:
            self._check_inputs(self._flat(given, named))
        self._terms = {key: made[key][2] for key in keys}

    def _learn(self, output: Any) -> None:
        """Find in the first pass which targets are read: one that nothing reads is dropped.

        A layer may return more than the module uses (an LSTM its state, attention its weights); a
        target there would only hold the layer where it is.
        """
        returned = _tensors_in(output)
        ends = [*returned, *(prediction for prediction, *_ in self._made.values())]
        ends = [end for end in ends if end.requires_grad]
        read: list[str] = []
        if ends and self.targets:
            pulls = torch.autograd.grad(
                ends,
                list(self.targets.values()),
                [torch.ones_like(end) for end in ends],
                retain_graph=True,
                allow_unused=True,
            )
            read = [key for key, pull in zip(self.targets, pulls, strict=True) if pull is not None]
        must = (
            "must run and return real or complex tensors that the module goes on with, alone or in "
            "tuples, lists or dicts"
        )
        if not read:
            raise ValueError(f"at least one chosen submodule {must}, got none")
        for name in self._required:
            if not any(key == name or key.startswith((f"{name}:", f"{name}[")) for key in read):
                raise ValueError(f"every submodule of select {must}, {name!r} did not")
        for key in read:
            term = self._made[key][2]
            if (shape := getattr(term, "shape", term)) != ():
                raise ValueError(f"hidden_loss must return a tensor without axes, got {shape}")
            if not self.targets[key].isfinite().all():
                self._refuse_infinite(key)
        self._unread = self.targets.keys() - set(read)
        self.targets = {key: self.targets[key] for key in read}
        self._check_targets()
        self._keys = read
        places = {leaf.data_ptr() for leaf in returned}
        tops = [key for key in read if self._made[key][1].data_ptr() in places]
        self._top = tops[-1] if tops else None

    def _check_targets(self) -> None:
        """Refuse targets that nothing can be done with, of which the first pass showed the keys."""

    def _refuse_infinite(self, key: str) -> NoReturn:
        for name, parameter in self.module.named_parameters():
            if not parameter.isfinite().all():
                raise ValueError(f"parameters must be finite, got NaN or infinity in {name!r}")
        for leaf in self._inputs:
            if isinstance(leaf, Tensor) and not leaf.isfinite().all():
                bad = ~leaf.isfinite().reshape(len(leaf), -1).all(1)
                raise ValueError(
                    "examples must be finite, got NaN or infinity in "
                    f"{int(bad.sum())} of {len(leaf)}"
                )
        raise ValueError(f"outputs must be finite, got NaN or infinity from {key!r}")

    def _flat(self, given: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        bound = self._signature.bind(*given, **named)
        bound.apply_defaults()
        return tree_leaves(dict(bound.arguments))

    def _check_inputs(self, leaves: list[Any]) -> None:
        if len(leaves) != len(self._inputs):
            raise ValueError(f"targets were made for {len(self._inputs)} inputs, got {len(leaves)}")
        for own, leaf in zip(self._inputs, leaves, strict=True):
            if isinstance(own, Tensor) and isinstance(leaf, Tensor):
                check_examples(own, leaf)
            elif type(own) is not type(leaf) or not np.array_equal(own, leaf):
                named = f"a {type(own).__name__}, got a {type(leaf).__name__}"
                raise ValueError(f"targets were made for another input, {named}")

    def _make_targets(self, given: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Make the targets in one pass in training mode, which leaves no other trace."""
        leaves = self._flat(given, named)
        first = next((leaf for leaf in leaves if isinstance(leaf, Tensor)), None)
        if first is not None and first.dim() and not len(first):
            raise ValueError(f"there must be at least one example, got shape {tuple(first.shape)}")
        self._inputs = [
            leaf.detach().clone() if isinstance(leaf, Tensor) else copy(leaf) for leaf in leaves
        ]
        with _without_trace(self.module):
            self.module(*given, **named)
        self._terms = {}

    def guide(
        self,
        labels: Tensor,
        seed: int,
        x: Any = None,
        *,
        path: float = 1.0,
        scale: float = 6.0,
        offset: float = 9.0,
        code: float = 5.0,
        output: float = 4.0,
    ) -> None:
        """Start the targets on a way from random features of the example to a code of its label.

        As ``guided_targets``, which has the equations and the sizes: the t-th target is the t-th
        layer, an output of more axes takes its numbers in order, and the features are of the first
        input. The last target is that of the output where the module returns it as it is.

        Args:
            labels: (examples,), whole numbers for classes (0 and 1 where the output has one unit);
                or real ones, of the shape of the output, for a regression.
            seed: of the features and the code.
            x: after ``relax_dataset`` the inputs of all its examples, as ``relax`` takes them, in
                the order of their numbers; ``relax`` has seen its own.
            path, scale, offset, code, output: as in ``guided_targets``.
        """
        x = next(leaf for leaf in self._see(x) if isinstance(leaf, Tensor)).flatten(1)
        x = x if x.is_floating_point() else x.float()
        if len(labels) != len(x):
            raise ValueError(f"labels must be those of {len(x)} examples, got {len(labels)}")
        of, top = read_labels(labels, -1 if self._top is None else self._width(self._top), output)
        hidden = [key for key in self.targets if key != self._top]
        widest = max(map(self._width, hidden), default=0)
        sizes = {"path": path, "scale": scale, "offset": offset, "code": code}
        start = guide(x, of, widest, seed, **sizes)
        for layer, key in enumerate(hidden):
            self._put(key, start(layer, self._width(key)))
        if self._top is not None:
            self._put(self._top, top)

    def _see(self, x: Any) -> list[Any]:
        """Return the inputs of all examples; the keys of their targets are known from here on."""
        if x is not None:
            raise TypeError("x must be left out after relax, which has seen it")
        return self._inputs

    def _axis(self, key: str) -> int:
        return 0

    def _width(self, key: str) -> int:
        return self.targets[key].numel() // self.targets[key].shape[self._axis(key)]

    def _put(self, key: str, rows: Tensor) -> None:
        """Let targets start at ``rows``, (examples, …)."""
        target = self.targets[key]
        if len(target) != len(rows):
            raise ValueError(
                f"targets must have the {len(rows)} examples on their first axis to be guided, "
                f"got shape {tuple(target.shape)} for {key!r}"
            )
        with torch.no_grad():
            target.copy_(rows.view_as(target))

    def hidden_terms(self) -> dict[str, Tensor]:
        """What each submodule owes its target in the last pass in training mode, by its key.

        A ValueError if there was none.
        """
        if not self._terms:
            raise ValueError("hidden_terms needs a forward pass in training mode first, got none")
        return dict(self._terms)

    def hidden_loss(self) -> Tensor:
        """Σ_t mean_{i,j} (ẑ_t − z_t)² of the last pass in training mode, the last sum of Eq. 4.

        A ValueError if there was none, or none since ``backward()`` went through it.
        """
        if self._used:
            raise ValueError(
                "hidden_loss needs a new forward pass in training mode, got none (what was "
                "compiled before it was relaxed runs without: compile it again)"
            )
        loss = torch.stack(list(self.hidden_terms().values())).sum()
        if loss.requires_grad:
            loss.register_hook(lambda _: setattr(self, "_used", True))
        return loss

    def parameters(self) -> Iterator[nn.Parameter]:
        """The targets, without the module's own parameters, for an optimiser."""
        yield from self.targets.values()

    def to(self, *where: Any, **options: Any) -> Relaxation:
        """Move the targets, and the examples that they are held to, as ``nn.Module.to`` does."""
        moved = nn.ParameterList(self.targets.values())
        for place, leaf in enumerate(self._inputs):
            if isinstance(leaf, Tensor):
                moved.register_buffer(f"input{place}", leaf)
        moved.to(*where, **options)
        own = dict(moved.named_buffers())
        self._inputs = [own.get(f"input{i}", leaf) for i, leaf in enumerate(self._inputs)]
        return self

    def state_dict(self) -> dict[str, Any]:
        """The targets by their keys, to be saved beside those of the module and the optimiser."""
        return {key: target.detach() for key, target in self.targets.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take targets that ``state_dict`` gave; a ValueError if they are of other layers."""
        own = {key: tuple(target.shape) for key, target in self.targets.items()}
        given = {key: tuple(value.shape) for key, value in state.items()}
        if own != given:
            raise ValueError(f"targets must be of the keys and shapes {own}, got {given}")
        with torch.no_grad():
            for key, value in state.items():
                self.targets[key].copy_(value)

    def close(self) -> None:
        """End it: the module runs again as it did, with the weights it has now."""
        self._close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a relaxation is not copied or saved itself: save its state_dict()")

    def __enter__(self) -> Relaxation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RelaxedDataset(Relaxation):
    """Targets of a data set's examples, with their optimiser's state; made by ``relax_dataset``.

    Attributes:
        numbered: items (number, item of the data set), for a ``DataLoader``.
        targets: those of the batch that was taken.
        rate: learning rate of the targets; it may be changed between steps.
        updates: how often the targets of each example were updated, (examples,).
    """

    def __init__(
        self,
        module: nn.Module,
        chosen: dict[nn.Module, str],
        required: Iterable[str],
        hidden_loss: HiddenLoss,
        dataset: Dataset[Any],
        options: Mapping[str, Any],
    ) -> None:
        self.numbered = StackDataset(cast(Any, range(len(cast(Any, dataset)))), dataset)
        self.rule, self.rate = update_rule(options["optimizer"]), options["rate"]
        self._guided = False
        self.updates = torch.zeros(len(self.numbered), dtype=torch.int32)
        self._options = options
        self._ids: Tensor | None = None
        self._tables: dict[str, list[Tensor]] = {}  # values and states, (examples, …) each
        super().__init__(module, chosen, required, hidden_loss)

    def take(self, ids: Any) -> None:
        """Say which examples the next passes are for, by their numbers, (batch,), each once."""
        ids = ids.tolist() if isinstance(ids, Tensor) else ids
        ids = whole_numbers(ids, "numbers of examples", most=len(self.numbered) - 1)
        if not ids or len(set(ids)) < len(ids):
            raise ValueError(f"numbers of examples must be one or more, each once, got {ids}")
        self._ids = torch.tensor(ids)
        self.targets, self._terms = {}, {}

    def _axis(self, key: str) -> int:
        axis = self._options["axis"]
        return axis.get(key, 0) if isinstance(axis, Mapping) else axis

    def _start(self, key: str, prediction: Tensor) -> Tensor:
        """Return the targets that are kept; a new example's are what the layer predicts."""
        if self._ids is None:
            raise ValueError("take(ids) must say which examples a pass is for, got none")
        if self._keys is not None:
            self._check_axis(key, prediction)
        if key not in self._tables:
            return prediction.clone()
        table, new = self._tables[key][0], prediction.movedim(self._axis(key), 0)
        rows = table[self._ids].to(new) if self._guided else self._taken(table, new)
        return rows.movedim(0, self._axis(key))

    def _taken(self, table: Tensor, new: Tensor) -> Tensor:
        """Return the rows of the batch, (batch, …), those of new examples from ``new``."""
        kept = table[self._ids].to(new)
        empty = (self.updates[self._ids] == 0).to(new.device)
        if empty.any() and kept.shape == new.shape:
            kept[empty] = new[empty]
        return kept

    def _check_axis(self, key: str, output: Tensor) -> None:
        axis, batch = self._axis(key), len(cast(Tensor, self._ids))
        if output.dim() <= axis or output.shape[axis] != batch:
            raise ValueError(
                f"{key!r} must have the {batch} examples on axis {axis} (see `axis`), "
                f"got an output of shape {tuple(output.shape)}"
            )

    def _check_targets(self) -> None:
        for key, target in self.targets.items():
            self._check_axis(key, target)
        if self._tables and self._tables.keys() != self.targets.keys():
            own, given = ", ".join(self.targets), ", ".join(self._tables)
            raise ValueError(f"targets must be of the keys {own}, got {given}")
        folder, memory = self._options["folder"], self._options["memory"]
        free = memory if folder is None else shutil.disk_usage(folder).free
        if self.bytes > free:
            raise ValueError(
                f"targets of {len(self.numbered)} examples need {self.bytes / 1e9:.3g} GB with "
                f"their optimiser's state, and may take {free / 1e9:.3g} GB: give a larger memory, "
                "a folder with room, dtype=torch.bfloat16, optimizer='sgd', or select less"
            )

    def _see(self, x: Any) -> list[Any]:
        given, named = _arguments(self._signature, x)
        leaves, examples = self._flat(given, named), len(self.numbered)
        shapes = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)]
        if not shapes or shapes[0][:1] != (examples,):
            raise ValueError(f"x must be the inputs of all {examples} examples, got {shapes or x}")

        def first_two(leaf: Any) -> Any:
            every = isinstance(leaf, Tensor) and leaf.shape[:1] == (examples,)
            return leaf[:2] if every else leaf

        self.take(range(min(2, examples)))
        self._make_targets(tree_map(first_two, given), tree_map(first_two, dict(named)))
        self._inputs, self._guided = [], True
        return leaves

    def _put(self, key: str, rows: Tensor) -> None:
        target = self.targets[key].movedim(self._axis(key), 0)
        table = self._tables_like(key, target)[0].copy_(rows.view(-1, *target.shape[1:]))
        target.data.copy_(table[self._ids])

    @property
    def bytes(self) -> int:
        """Bytes of all targets and their optimiser's state; known from the first pass on."""
        total = 0
        for key, target in self.targets.items():
            size = (self._options["dtype"] or target.dtype).itemsize
            total += self._width(key) * (size + len(self.rule.first) * target.dtype.itemsize)
        return total * len(self.numbered)

    def _table(self, key: str, place: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        folder = self._options["folder"]
        if folder is None:
            return torch.zeros(*shape, dtype=dtype)
        file = Path(folder) / f"{quote(key, safe='[]')}.{place}"
        numbers = math.prod(shape)
        return torch.from_file(str(file), shared=True, size=numbers, dtype=dtype).view(*shape)

    def _tables_like(self, key: str, rows: Tensor) -> list[Tensor]:
        """Return the tables of a target, of rows like these; they are made when first asked for."""
        if key not in self._tables:
            kinds = [self._options["dtype"] or rows.dtype, *[rows.dtype for _ in self.rule.first]]
            shape = len(self.numbered), *rows.shape[1:]
            tables = [self._table(key, place, shape, kind) for place, kind in enumerate(kinds)]
            self._tables[key] = tables
        return self._tables[key]

    def step(self) -> None:
        """Move the targets of the batch, and put them back with their optimiser's state.

        It comes after ``backward()``; a ValueError if that did not reach the targets.
        """
        if any(target.grad is None for target in self.targets.values()) or not self.targets:
            raise ValueError("step must follow a pass and backward() of a loss with hidden_loss()")
        self.rate = number(self.rate, "rate", above=0)
        updates = self.updates[self._ids] + 1
        for key, target in self.targets.items():
            axis, gradient = self._axis(key), cast(Tensor, target.grad)
            value = target.data.movedim(axis, 0)  # (batch, …)
            rates = torch.full_like(value, self.rate)
            tables, first = self._tables_like(key, value), self.rule.start(rates)
            state = tuple(self._taken(*pair) for pair in zip(tables[1:], first, strict=True))
            count = updates.view(-1, *[1] * (value.dim() - 1)).to(value)
            self.rule.step(value, gradient.movedim(axis, 0), state, rates, count)
            for table, rows in zip(tables, (value, *state), strict=True):
                table[self._ids] = rows.to(table)
            target.grad = None
        self.updates[self._ids] = updates

    def state_dict(self) -> dict[str, Any]:
        """Targets and optimiser state of all examples, with the number of updates of each."""
        names = {"optimizer": self._options["optimizer"], "rate": self.rate, "guided": self._guided}
        return {**names, "updates": self.updates, "tables": self._tables}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what ``state_dict`` gave; a ValueError if it is of other examples or optimisers."""
        given = len(state["updates"]), state["optimizer"]
        if given != (own := (len(self.updates), self._options["optimizer"])):
            raise ValueError(
                f"targets must be of {own[0]} examples, got {given[0]}, and moved by {own[1]!r}, "
                f"got {given[1]!r}"
            )
        self.rate, self._guided = state["rate"], state["guided"]
        self.updates.copy_(state["updates"])
        self._tables = {
            key: [
                self._table(key, place, table.shape, table.dtype).copy_(table)
                for place, table in enumerate(tables)
            ]
            for key, tables in state["tables"].items()
        }


def relax(
    module: nn.Module,
    x: Any,
    select: Selection = nn.Linear,
    *,
    hidden_loss: HiddenLoss = mean_square,
) -> Relaxation:
    """Relax any module: each chosen submodule passes on a trainable target, not its output.

    In training mode ``module(x)`` then returns what follows from the targets, and
    ``hidden_loss()`` what the submodules owe them; in evaluation mode the module is the ordinary
    one. Minimise output loss + λ · hidden loss over the module's parameters and the targets::

        with relax(module, x) as relaxed:
            optimizer = torch.optim.Rprop([*module.parameters(), *relaxed.parameters()], lr=0.01)
            for _ in range(steps):
                loss = loss_function(module(x), y) + relaxed.hidden_loss()
                optimizer.zero_grad(); loss.backward(); optimizer.step()
        module.eval()

    That loss is not the network's own, which is what ``module.eval()`` computes. Targets start as
    one pass in training mode, so residuals are exactly 0 where the module draws nothing at random;
    or by ``guide``. The making leaves buffers, modes, gradients and random numbers as they were.
    A submodule that runs several times has a target for each run, one that returns several tensors
    a target for each that is read later. *Dropout* draws a mask in each pass as ever; one between a
    target and the layer that reads it makes that layer's residual a random one. *Batch norm* in
    training mode has the statistics of what it reads, that is of the targets below it, and collects
    them for evaluation; submodules in evaluation mode stay in it.

    For *fresh targets* of mini-batches, relax each batch: move ``relaxed.parameters()`` some steps
    with an optimiser of their own, then the module's parameters one step. To keep them, see
    ``relax_dataset``. To go on later, save the ``state_dict()`` of module, relaxation and
    optimiser, and load all three: the next steps are the same to the last bit, if what draws at
    random (dropout, a shuffled ``DataLoader``) has the state of its generator back too.

    Args:
        module: any module; one that is to be compiled is relaxed first, and compiled then.
        x: the training examples: one input; a tuple of the positional inputs; or a mapping of
            keyword inputs, if ``forward`` has their names. Targets belong to these numbers.
        select: submodules by type, by one name or several, or by a predicate of (name, submodule).
            What is named must run; of the others those are relaxed that do.
        hidden_loss: of (prediction, target), one number; by default the mean square.

    Raises:
        TypeError: ``module`` is no module, or ``x`` a data set.
        ValueError: it is relaxed or compiled already, is a part of a relaxed one or has one; no
            submodule is chosen, runs and returns numbers that are used; a name is unknown or does
            not run; there is no example; examples, parameters or outputs are not finite. In later
            passes: other inputs, or another path through the module.
    """
    if isinstance(x, Dataset):
        raise TypeError("x must be examples, got a data set: use relax_dataset")
    relaxation = Relaxation(module, *_select(module, select), hidden_loss)
    try:
        relaxation._make_targets(*_arguments(relaxation._signature, x))
    except BaseException:
        relaxation.close()
        raise
    return relaxation


def relax_dataset(
    module: nn.Module,
    dataset: Dataset[Any],
    select: Selection = nn.Linear,
    *,
    rate: float,
    optimizer: str = "adam",
    hidden_loss: HiddenLoss = mean_square,
    memory: float = 4e9,
    dtype: torch.dtype | None = None,
    folder: str | Path | None = None,
    axis: int | Mapping[str, int] = 0,
) -> RelaxedDataset:
    """Relax a module for mini-batches: targets are kept by the number of the example.

    Each batch takes its targets out of a table and puts them back after a step, with the state
    that the optimiser has for them::

        with relax_dataset(module, dataset, rate=0.03) as relaxed:
            optimizer = torch.optim.Adam(module.parameters(), lr=0.003)
            for ids, (x, y) in DataLoader(relaxed.numbered, batch_size=64, shuffle=True):
                relaxed.take(ids)
                loss = loss_function(module(x), y) + relaxed.hidden_loss()
                optimizer.zero_grad(); loss.backward(); optimizer.step(); relaxed.step()
        module.eval()

    An example's targets start as what the layers predict when it first comes, or all by
    ``relaxed.guide(labels, seed, x)``. Inputs may change from pass to pass (augmentation): the
    number says whose targets they are. All else as in ``relax``.

    Args:
        module, select, hidden_loss: as in ``relax``.
        dataset: a data set with a length; its items are numbered from 0.
        rate: learning rate of the targets.
        optimizer: of the targets, a key of ``training.UPDATE_RULES``.
        memory: most bytes the table may take in memory. What it needs is known after the first
            pass, ``bytes``; where that is more, a ValueError names it before anything is taken.
        dtype: of the targets that are kept, such as ``torch.bfloat16``; None: that of the outputs.
            The optimiser's state is not shortened.
        folder: an existing folder for memory-mapped files, in place of memory.
        axis: which axis of the outputs counts the examples, for all or by the key of the target (0
            where it is not named).
    """
    if not isinstance(dataset, Dataset) or not hasattr(dataset, "__len__"):
        raise TypeError(
            "dataset must be a torch.utils.data.Dataset with a length, "
            f"got {type(dataset).__name__}"
        )
    rate, memory = number(rate, "rate", above=0), number(memory, "memory", least=0)
    if optimizer == "rprop":
        check_rprop_rates([rate])
    if folder is not None and not Path(folder).is_dir():
        raise ValueError(f"folder must be an existing one, got {folder}")
    kept = {"memory": memory, "dtype": dtype, "folder": folder, "axis": axis}
    options = {"optimizer": optimizer, "rate": rate, **kept}
    return RelaxedDataset(module, *_select(module, select), hidden_loss, dataset, options)


def _arguments(signature: inspect.Signature, x: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return the inputs that ``x`` stands for, positional and by keyword."""
    given: tuple[Any, ...] = x if isinstance(x, tuple) else (x,)
    named: Mapping[str, Any] = {}
    if isinstance(x, Mapping) and all(isinstance(key, str) for key in x):
        given, named = (), x
    try:
        signature.bind(*given, **named)
    except TypeError:
        return (x,), {}
    return given, named


def _select(module: nn.Module, select: Selection) -> tuple[dict[nn.Module, str], list[str]]:
    """Return the chosen submodules with their names, and the names that must run."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"relax needs a torch.nn.Module, got {type(module).__name__}")
    parts = {part: name for name, part in module.named_modules()}
    if any(hasattr(part, "_orig_mod") or part._compiled_call_impl for part in parts):
        raise ValueError("a compiled module must be relaxed before it is compiled")
    if not _relaxed.isdisjoint(parts):
        raise ValueError("the module or a part of it is relaxed already: close that one first")
    if isinstance(select, Tensor):
        raise TypeError("several inputs must be one tuple, relax(module, (a, b))")
    choices = [select] if isinstance(select, type | str) else select
    named: list[str] = []
    if callable(choices):
        chosen = {part: name for part, name in parts.items() if choices(name, part)}
    else:
        types = tuple(choice for choice in choices if isinstance(choice, type))
        named = [str(choice) for choice in choices if not isinstance(choice, type)]
        known = dict(module.named_modules(remove_duplicate=False))
        for name in named:
            if name not in known:
                names = ", ".join(filter(None, known))
                raise ValueError(f"submodule names must be among {names}, got {name!r}")
        wanted = {known[name] for name in named}
        chosen = {p: n for p, n in parts.items() if p in wanted or isinstance(p, types)}
        named = [chosen[known[name]] for name in named]
    if not chosen:
        raise ValueError(f"at least one submodule must be chosen, {select!r} chose none")
    return chosen, named


@contextmanager
def _without_trace(module: nn.Module) -> Generator[None]:
    """Run a pass in training mode, with gradients; put modes, buffers, random numbers back."""
    modes = [(part, part.training) for part in module.modules()]
    buffers = [
        (part, name, buffer, buffer.clone())
        for part in module.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    devices = {parameter.device for parameter in module.parameters() if parameter.is_cuda}
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices):
        try:
            if not module.training:
                module.train()
            yield
        finally:
            for part, training in modes:
                part.training = training
            with torch.no_grad():
                for part, name, buffer, value in buffers:
                    part._buffers[name] = buffer
                    if not torch.equal(buffer, value):
                        buffer.copy_(value)


def _tensors_in(output: Any) -> list[Tensor]:
    """Return the tensors of an output, those of an object in it too (a record, a distribution)."""
    leaves = tree_leaves(output)
    objects = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
    leaves += tree_leaves([getattr(leaf, "__dict__", None) for leaf in objects])
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _detach(handles: Iterable[Any], parts: set[nn.Module]) -> None:
    for handle in handles:
        handle.remove()
    _relaxed.difference_update(parts)
