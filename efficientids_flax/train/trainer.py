"""The Trainer: sets up a run, trains, evaluates.

trainer = Trainer(model, optimizer, checkpoint_dir="run")
state = trainer.create_train_state(jax.random.key(0), sample_batch)
state = trainer.train(state, train_batches, eval_batches, num_steps=10_000)
metrics = trainer.evaluate(state, eval_batches)
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optax
from flax import linen as nn
from flax import nnx
from jax.sharding import Mesh

from efficientids_flax.parameters import FROZEN_LM
from efficientids_flax.stored import ItemNames
from efficientids_flax.train.alarm import one_for_all, watch
from efficientids_flax.train.directory import averages
from efficientids_flax.train.evaluating import Evaluating, Evaluators
from efficientids_flax.train.history import Rows, read_history
from efficientids_flax.train.logs import Recorder, Trace, peak_flops
from efficientids_flax.train.loop import (
    Interrupted,
    Preempted,
    Run,
    StopRequest,
    check_steps,
    run_loop,
    stop_request,
    stopped_before,
)
from efficientids_flax.train.options import TrainingOptions, settled
from efficientids_flax.train.preparing import Preparing, on_mesh
from efficientids_flax.train.state import (
    BatchPlacer,
    DataCursor,
    Frozen,
    Monitor,
    Source,
    TrainState,
    default_mesh,
    is_primary,
    loss_facts,
    refuse_others,
    refuse_used,
    resume,
    run_facts,
    save,
    with_optimizer,
)
from efficientids_flax.train.state.shared_batches import any_process
from efficientids_flax.train.step import Evaluator, LossFn, explain, make_objective, told_values

Schedule = Callable[[Any], Any]
# Options whose change alters the steps (SETTINGS) or the evaluations (MEASURED) of a run.
SETTINGS = ("use_mixed_precision", "gradient_accumulation_steps", "on_nonfinite")
MEASURED = ("scoring", "exclude_seen", "num_eval_batches")


class Trainer(Evaluating, Preparing):
    """Trains a Linen module or an `nnx.Module` on dict batches.

    Attributes:
        history: one dict for each step of the last call of `train`, and of earlier runs of the
            directory. Beyond a million steps some are in `history.jsonl` only, see `Rows`.
        last_state: the state that the last call of `train` reached, also if it was stopped.
        mesh: the mesh of the run; None on one device.
        options: the options of the run.
    """

    def __init__(
        self,
        model: nn.Module | nnx.Module,
        optimizer: optax.GradientTransformation,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        *,
        loss_fn: LossFn | None = None,
        mesh: Mesh | None = None,
        frozen_params: Frozen = None,
        learning_rate: Schedule | float | None = None,
        init_args: Sequence[Any] | None = None,
        init_kwargs: Mapping[str, Any] | None = None,
        items: ItemNames | None = None,
        options: TrainingOptions | None = None,
        **given: Any,
    ) -> None:
        """Set up a run; nothing is computed yet.

        Args:
            model: a model of this package, or any Linen module or `nnx.Module` together with
                `loss_fn`. The values of an `nnx.Module` are copied now; it stays unchanged, and
                `module` returns the trained one.
            optimizer: any optax transformation; `create_optimizer` and `paxml_learner` make some.
            checkpoint_dir: directory for checkpoints and logs; None: none are written.
            loss_fn: (params, batch, model_state, rng, apply_fn) -> (loss, metrics, model_state).
                A metric `total_weight` is the weight of the batch, in evaluation and accumulation.
                In an evaluation, calls of `apply_fn` get `training` and `train` False and
                `deterministic` True, and an `nnx.Module` is in its mode `eval()`.
            mesh: from `sharding.make_mesh`; None: all devices, for the rows of the batch.
            frozen_params: patterns, or a predicate of paths; None: those of the optimizer, or the
                language model if the model has `freeze_lm`.
            learning_rate: for the log, by the number of updates; None: the optimizer's.
            init_args, init_kwargs: arguments of `model.init`; None: as the loss calls the model.
            items: names of the items, which exports keep.
            options: see `TrainingOptions`.
            **given: single options, instead of `options`.

        Raises:
            ValueError: unknown or wrong options; a model that needs a `loss_fn`.
            TypeError: `model` is a class, or `optimizer` an `nnx.Optimizer`.
            ImportError: `wandb_project` is given, and Weights & Biases is not installed.
        """
        watch()
        if checkpoint_dir == "":
            raise ValueError("checkpoint_dir: found '', expected a path, or None for no files")
        self.options = settled(options, given, has_directory=checkpoint_dir is not None)
        if isinstance(optimizer, nnx.Optimizer):
            raise TypeError("optimizer: found an nnx.Optimizer; give the optax one that is in it")
        self.mesh = default_mesh() if mesh is None else mesh
        self.history = Rows()
        self.optimizer, self.items = optimizer, items
        self.directory = None if checkpoint_dir is None else Path(checkpoint_dir).absolute()
        make = partial(
            make_objective,
            model,
            loss_fn,
            init_args=init_args,
            init_kwargs=init_kwargs,
            mixed_precision=self.options.use_mixed_precision,
            remat=self.options.use_remat,
        )
        ranks = {"scoring": self.options.scoring, "exclude_seen": self.options.exclude_seen}
        self._objective = make(**ranks)
        self.given_model, self.model = model, self._objective.module
        if frozen_params is None:
            frozen_params = getattr(optimizer, "frozen_params", None)
        if frozen_params is None and getattr(model, "freeze_lm", False):
            frozen_params = (FROZEN_LM,)
        self._frozen = frozen_params
        if learning_rate is None:
            learning_rate = getattr(optimizer, "learning_rate", None)
        self._learning_rate = learning_rate
        # With the caller's loss function, fields of a batch may have another meaning.
        self._reads = self._objective.config if loss_fn is None else None
        self._loss_fn = loss_fn
        self._place = BatchPlacer(self.mesh, self._reads)
        self._evaluators = Evaluators(lambda **how: Evaluator(make(**how), self._place), ranks)
        self._cursor: DataCursor | None = None
        self.last_state: TrainState | None = None

    def train(
        self,
        state: TrainState,
        train_dataset: Source,
        eval_dataset: Any = None,
        num_steps: int = 1000,
    ) -> TrainState:
        """Train until the state has taken `num_steps` steps.

        If the directory has a checkpoint with more steps than `state`, it is restored first, with
        its position in the data. So the same call continues where the last one ended.

        Args:
            state: from `create_train_state`, or from an earlier call. Its trained part is donated,
                and cannot be used afterwards.
            train_dataset: an iterable of dict batches, an iterator, or a function that returns
                one. It is started again when it ends. An iterator is assumed to be at its start,
                unless this trainer has read from it before.
            eval_dataset: an iterable of batches (read from the start each time), or a function that
                returns one. Each row of `ShuffledBatches` is read once.
            num_steps: total number of steps, including those before this call.

        Returns:
            The last state; `best` returns the one that `keep_best` kept. After an early stop, the
            same call takes no further step.

        Raises:
            ValueError: batches unlike the sample; a checkpoint of another model; evaluation data
                that is missing, empty, endless, or can be read only once.
            NonFiniteError: see `TrainingOptions.on_nonfinite`.
            WrongValues: a batch on the devices had ids out of range, or similar.
            ProcessFault: one of several processes could not read a batch; raised in all of them.
            RunMismatch: the checkpoint is of another run, see `TrainingOptions.allow_changes`.
            DirectoryInUse: another run uses the directory.
            UnwrittenCheckpoint: the last checkpoint could not be written.
            Preempted: a `SystemExit` after SIGTERM or a similar signal; everything is saved.
            KeyboardInterrupt: after Ctrl-C; everything is saved too.
        """
        check_steps(num_steps)
        refuse_used(state)
        if self._kept is not None:
            state = self._kept.spared(state)
        with one_for_all(), stop_request() as stop:
            state = self._train(state, train_dataset, eval_dataset, num_steps, stop)
            told = any_process(stop.received)
        if told:  # the signal came while the last checkpoint was written
            raise stop.ending(int(state.step), saved=self.directory is not None)
        return state

    def let_go_of_data(self) -> None:
        """Forget the position in the data, and stop prefetching; a later call starts again."""
        self._cursor = None

    def _train(
        self, state: TrainState, source: Source, evaluated: Any, num_steps: int, stop: StopRequest
    ) -> TrainState:
        options = self.options
        monitor = Monitor.of(options)
        schedule_steps = getattr(self._learning_rate, "total_steps", None)
        facts = run_facts(self.given_model, self.optimizer, self._learning_rate, state, self.items)
        if self._objective.items is not None:
            # 'exact' and 'dense' give the same updates.
            lazy = options.item_updates == "lazy"
            facts["optimizer"]["item_updates"] = "lazy" if lazy else "exact"
        facts["loss"] = loss_facts(self._loss_fn)
        facts["settings"] = {name: getattr(options, name) for name in SETTINGS}
        asked = {"num_steps": num_steps, "evaluates": evaluated is not None}
        with on_mesh(self.mesh):
            refuse_others(facts, options, state, asked)
        evaluation = self._evaluations(state, evaluated, monitor)
        if evaluation is not None:
            how = {name: getattr(options, name) for name in MEASURED}
            averaged = averages(options, self.optimizer)
            facts["evaluation"] = {**how, "averages": averaged, **evaluation.facts()}
        # `one_for_all` is inside: closing checkpoints waits for the other processes, which must
        # hear of an error first.
        with self._checkpoints() as checkpoints, one_for_all(), on_mesh(self.mesh):
            start = resume(
                state, source, checkpoints, monitor, options, facts, num_steps,
                with_optimizer(self.optimizer), self._cursor,
            )  # fmt: skip
            self._tell(start)
            state, cursor = start.state, start.cursor
            first = int(state.step)
            self._describe(facts, goes_on=first > 0)
            if cursor is None:
                self.history = read_history(self.directory) if self.directory else Rows()
                return state
            if self._stopped is not None and self._stopped[0] == first:
                monitor.restore(self._stopped[1])
            if monitor.exhausted:
                self.history = stopped_before(options, self.directory, first, num_steps, monitor)
                self._cursor = cursor
                return state
            peeked = self._peeked(cursor)
            step = self._compiled(state, peeked.batch)
            recorder = Recorder(options, self.directory, first, num_steps, is_primary())
            self.history = recorder.history.rows
            run = Run(
                step=step,
                place=self._place,
                cursor=peeked,
                recorder=recorder,
                options=options,
                monitor=monitor,
                stop=stop,
                explain=lambda state, batch: explain(
                    state, batch, self._objective.loss, self.model.apply
                ),
                look=lambda counts, batch: told_values(self._reads, counts, batch),
                peak=options.peak_flops or peak_flops(),
            )
            if evaluation is not None:
                run.evaluate = lambda state: self._measured(state, evaluation, stop.between)
            if checkpoints is not None:

                def write(state: TrainState, metrics: Any) -> None:
                    checkpoints.hold()
                    gone = recorder.begin_again()
                    if gone or self._longest > self._described:  # a longer batch came
                        self._describe(facts, goes_on=not gone)
                    save(state, cursor, checkpoints, monitor, metrics, facts, schedule_steps)

                run.save = write
                run.check, run.settle = checkpoints.check, checkpoints.wait
            if options.enable_profiling and self.directory is not None:
                place = self.directory / "profile"
                run.trace = Trace(place, first, num_steps, options.profile_steps, recorder.note)
            try:
                state = run_loop(run, state, num_steps)
                self._stopped = (int(state.step), monitor.state()) if monitor.exhausted else None
                return state
            except (Preempted, Interrupted) as end:
                recorder.note(str(end))
                raise
            finally:
                if run.reached is not None:
                    self.last_state, self._cursor = run.reached, cursor
                recorder.close()
                self._plot()
