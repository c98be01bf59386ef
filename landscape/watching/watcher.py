"""Watching a training run from its own loop."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from landscape.errors import NumericalError, UsageError, check_options
from landscape.measures import provenance
from landscape.objective import Objective
from landscape.results import Check, MemorizationSignal, WatchHistory
from landscape.watching.memorization_alarm import MemorizationAlarm, with_layers
from landscape.watching.moment import Moment, Settings, checked, lost, measures_of, units_of
from landscape.watching.optimizer_state import Stepping, read
from landscape.watching.pace import Pace
from landscape.watching.probe import Probe, untouched

Logger = Callable[[int, Mapping[str, float]], None]


_RUNNING = (
    "a bias before a BatchNorm has no gradient in training, so that its preconditioner is eps, but has curvature in eval mode: "
    "preconditioned_lambda_max needs batch_statistics=True"
)


class Watch:
    """Sharpness through a training run, measured from its own loop in three lines.

        watch = ls.Watch(model, loss, probe_batch, every=100, measures=["lambda_max", "trace"], optimizer=optimizer)
        for step in ...:
            ...
            watch(step)
        print(watch.history)

    A check measures the loss of the probe batch at the weights of that step, with the network in eval mode: dropout off,
    BatchNorm with the running statistics of that step, or, with `batch_statistics`, with those of the probe batch. Eigenvalues
    start from the last check's eigenvectors. Training is not changed: a check reads weights and buffers and works on a copy;
    modes, gradients, flags and the random states of Python, NumPy and PyTorch are afterwards what they were, to the bit. What a
    check cannot measure is nan with its reason; a mistake in the arguments raises here, before training.

    Args:
        model: the network that is trained; DataParallel, DistributedDataParallel and torch.compile are unwrapped.
        loss: as for `Objective`: (output, target) -> scalar mean over samples, or a `ModelLoss` of (model, batch).
        probe_batch: the data to measure on, as for `Objective`: (x, y) tensors or arrays, a batch (inputs..., target), a
            dictionary with "labels" whose other keys are arguments of the model, a list of batches, a data set or a loader in
            fixed order. Its samples should have the labels, and the preprocessing, that are trained.
        every: steps between two checks, at least.
        measures: "lambda_max", "preconditioned_lambda_max" (needs `optimizer`), "trace", "layer_traces", "critical_sharpness",
            "gradient_norm", and every name in `ls.MEASURES`.
        optimizer: of torch.optim. From it come the edge of stability, the preconditioner and the direction of critical
            sharpness. One whose edge is not known leaves them out, with a remark.
        budget: largest share of the time that watching may take, e.g. 0.05. With `steps` it holds for the whole run: checks are
            dense at the beginning and thin out. Without, once a run has lasted for twice its start (until the first check is
            done) divided by the budget. Both if steps do not become faster nor checks longer. The first check is made whatever
            it costs; see `landscape.watching.pace`.
        steps: of the whole training, if it is known; for the budget.
        alarm: for label memorization, on the traces of layers, which are then measured too. `memorization` says what it has
            found so far; loggers get its sum as "memorization_sum".
        log: called with (step, {name: value}) after each check: one function or several; see `landscape.watching.loggers`.
        tol: relative residual of eigenvalues, whose own relative error is about its square.
        probes: random vectors for traces; the same at each check.
        seed: of the random vectors.
        batch_statistics: whether BatchNorm normalizes by the probe batch itself. Steps of training do so, and their edge of
            stability is that of this loss: a bias before a BatchNorm has no gradient there, but has curvature in eval mode.
        options: of `Objective`, e.g. dtype="float64", batch_size=128, memory=2**30.

    Raises:
        UsageError: an argument of `Objective`, `every`, `budget` or a measure is wrong.
        NumericalError: the loss at the present weights is not finite, or has no second derivative.

    Cost: a check is a forward pass (none if a measure takes a gradient) and a copy of the model, and 6 to 15 Hessian-vector
        products for an eigenvalue, `probes` products for all traces, and for critical sharpness a gradient and 6 forward
        passes, about 8 at the first check. Steps without a check cost a reading of the clock and a comparison of two numbers.

    Example:
        L = 2 w^2 has curvature 4 all along.
        >>> net = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.25)
        >>> data = (torch.full((1, 1), 2**0.5), torch.zeros(1, 1))
        >>> watch = Watch(net, nn.MSELoss(), data, every=5, optimizer=optimizer)
        >>> for step in range(11):
        ...     _ = watch(step)
        >>> watch.history.steps.tolist(), watch.history.values("lambda_max").round(4).tolist()
        ([0, 5, 10], [4.0, 4.0, 4.0])
        >>> watch.history.edges("lambda_max").tolist()
        [8.0, 8.0, 8.0]
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Any,
        probe_batch: Any,
        *,
        every: int = 100,
        measures: Sequence[str] = ("lambda_max",),
        optimizer: torch.optim.Optimizer | None = None,
        budget: float | None = None,
        steps: int | None = None,
        alarm: MemorizationAlarm | None = None,
        log: Logger | Sequence[Logger] = (),
        tol: float = 3e-3,
        probes: int = 8,
        seed: int = 0,
        batch_statistics: bool = False,
        **options: Any,
    ) -> None:
        check_options(options, Watch, Objective, of="Watch")
        self._pace = Pace(every, budget, steps)
        self._measures = measures_of(with_layers(measures, alarm))
        self._alarm = alarm
        self._loggers = [log] if callable(log) else list(log)
        self._optimizer = optimizer
        self._settings = Settings(tol=tol, probes=probes, seed=seed)
        device = torch.device(options.get("device") or next((p.device for p in model.parameters()), "cpu"))
        self._device = device
        with untouched(device):
            self._probe = Probe(model, loss, probe_batch, batch_statistics=batch_statistics, **options)
        self._memory: dict[str, Any] = {}
        self._checks: list[Check] = []
        self._remarks: list[str] = []
        # A probe with batch statistics has no layer with running ones.
        if "preconditioned_lambda_max" in self._measures and self._probe.base.batchnorms:
            self._remark(_RUNNING)
        self._stepping = self._read()
        self._pace.paid(time.perf_counter() - self._pace.begun)

    def __call__(self, step: int) -> Check | None:
        """Measure if a check is due at this step; returns it, or None.

        Args:
            step: of training, counted through all epochs. A counter that goes back is counted on, with a remark. Call after
                `optimizer.step()` of that step: a call between `backward()` and `step()` measures the weights, and the state of
                the optimizer, of the step before under the number of this one.
        """
        given, step = step, self._pace.counted(step)
        if given != step:
            self._remark("the counter of steps went back: they are counted on from there, through all epochs")
        if not self._pace.due(step):
            return None
        self._wait()
        started = time.perf_counter()
        self._stepping = self._read()
        with untouched(self._device):
            try:
                at = Moment(self._probe.now(), self._stepping, self._settings, self._memory)
            except NumericalError as error:  # the training has diverged
                check = lost(step, self._measures, str(error))
            else:
                check = checked(at, step, self._measures)
        self._wait()
        seconds = time.perf_counter() - started
        check = replace(check, seconds=seconds)
        self._checks.append(check)
        row = check.row()
        if (signal := self.memorization) is not None:
            row["memorization_sum"] = float(signal.sums[-1])
        for log in self._loggers:
            log(step, row)
        self._pace.checked(step, time.perf_counter() - started)
        return check

    @property
    def memorization(self) -> MemorizationSignal | None:
        """What the alarm says after the last check; None without an alarm. Its `sounded` is a step once it has sounded."""
        return None if self._alarm is None else self._alarm(WatchHistory(tuple(self._checks)))

    @property
    def history(self) -> WatchHistory:
        """All checks so far, frozen."""
        why = [e.reason for c in self._checks for e in c.measures.values() if e.reason]
        return WatchHistory(
            tuple(self._checks),
            units=units_of(self._measures),
            optimizer="" if self._stepping is None else self._stepping.words,
            remarks=tuple(dict.fromkeys([*self._remarks, *self._pace.notes(), *why])),
            seconds=self._pace.spent,
            total=self._pace.total,
            budget=self._pace.budget,
            every=self._pace.every,
            memorization=self.memorization,
            provenance=provenance(self._probe.base, self._settings.seed) | {"samples": self._probe.base.samples},
        )

    def _read(self) -> Stepping | None:
        """How the optimizer steps now; a reason why there is no edge is remarked once."""
        if self._optimizer is None:
            if "lambda_max" in self._measures:
                self._remark("no edge for lambda_max: the watch was given no optimizer")
            return None
        try:
            found = read(self._optimizer, self._probe.weights)
        except UsageError as error:
            self._remark(str(error))
            return None
        if "lambda_max" in self._measures and found.no_edge:
            self._remark(f"no edge for lambda_max: {found.no_edge}")
        return found

    def _remark(self, text: str) -> None:
        if text not in self._remarks:
            self._remarks.append(text)

    def _wait(self) -> None:
        """Let the device finish, so that its time is counted where it belongs."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
