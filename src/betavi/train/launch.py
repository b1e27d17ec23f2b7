"""Start of a training run in several processes, and the end of a run that loses one of them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import (
    _MultiProcessingLauncher,
    _SubprocessScriptLauncher,
)
from scvi.train import SaveCheckpoint
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

import __main__
from betavi.data.split import DataSplitter
from betavi.train.run_guard import NonFiniteLossError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from lightning.pytorch import Trainer

    from betavi.module import MultimodalVAE
    from betavi.train.runner import TrainRunner

GRACE = 30.0
"""Seconds that this process has to notice by itself that another process ended. Not tuned."""

CONNECTION_WORDS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""Parts of messages of PyTorch. Many errors of communication have no type of their own."""

ended_runs: list[BaseException] = []
"""Errors that ended earlier runs of this script, whose processes no longer work together."""


class LostProcessError(RuntimeError):
    """A process of a training run ended before the run."""


class WatchedScripts(_SubprocessScriptLauncher):
    """Lightning's launcher of scripts. If one of them ends, this process ends with a message.

    Lightning's own observer would kill this process without a message.
    """

    procs: list[subprocess.Popen[bytes]]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.children: list[subprocess.Popen[bytes]] = []
        self.is_over = threading.Event()

    def _call_children_scripts(self) -> None:
        super()._call_children_scripts()
        # Lightning's observer watches the processes in this list
        self.children = self.procs
        self.procs = []
        threading.Thread(target=self._watch, daemon=True).start()

    def kill(self, signum: Any) -> None:
        """Send a signal to the other processes."""
        for process in self.children:
            process.send_signal(signum)

    @property
    def exit_codes(self) -> list[int | None]:
        """Exit codes of the processes. None for a process that runs, as this one does."""
        return [None, *(process.poll() for process in self.children)]

    def _watch(self) -> None:
        while not self.is_over.wait(1.0):
            if any(self.exit_codes) and not self.is_over.wait(GRACE):
                print(f"LostProcessError: {_message(self.exit_codes, 0)}", file=sys.stderr)
                self.kill(signal.SIGKILL)
                os._exit(1)


def refuse_early_stopping(options: dict[str, Any]) -> None:
    """Raise a ValueError for early stopping, which scvi-tools would switch off."""
    if options.get("early_stopping"):
        raise ValueError(
            "scvi-tools switches `early_stopping` off in several processes. Set `max_epochs` "
            "instead. Or, pass Lightning's callback: callbacks=[EarlyStopping('elbo_validation')], "
            "with check_val_every_n_epoch=1."
        )


def check(runner: TrainRunner) -> None:
    """Raise an error before training if a run in several processes cannot work."""
    trainer, splitter = runner.trainer, runner.data_splitter
    several = f"{trainer.world_size} processes"
    if not isinstance(trainer.strategy, DDPStrategy):
        raise ValueError(
            f"The strategy {type(trainer.strategy).__name__} cannot train in {several}. Use "
            "strategy='ddp', strategy='ddp_spawn' or devices=1."
        )
    refused = {
        "enable_checkpointing": any(isinstance(c, SaveCheckpoint) for c in trainer.callbacks),
        "overfit_batches": bool(trainer.overfit_batches),
        "on_step": bool(runner.training_plan.on_step),
        "extra_payload_autotune": runner.model.module.options.extra_payload_autotune,
    }
    if words := [word for word, is_given in refused.items() if is_given]:
        raise ValueError(
            f"`{words[0]}` needs a single process, but the run has {several}. Leave "
            f"`{words[0]}` out, or use devices=1."
        )
    if isinstance(splitter, DataSplitter) and 0 < splitter.n_val < trainer.world_size:
        raise ValueError(
            f"{splitter.n_val} validation cell(s) cannot be divided between {several}. Hold out "
            "more cells with `validation_size`, or none with train_size=1.0."
        )
    _check_start(trainer, runner.model)


def _check_start(trainer: Trainer, model: Any) -> None:
    """Raise an error if the other processes cannot be started."""
    launcher: Any = trainer.strategy.launcher
    if is_spawned(trainer):
        try:
            model.__getstate__()
        except TypeError as error:
            raise TypeError(
                "Spawned processes need a copy of the model. Use strategy='ddp', in which each "
                f"process runs the script and reads its own data. {error}"
            ) from None
        return
    if ended_runs:
        raise LostProcessError(
            f"An error ended an earlier run in several processes ({type(ended_runs[0]).__name__}), "
            "and its processes no longer work together. Start the script again."
        )
    has_script = __main__.__spec__ is not None or Path(sys.argv[0]).is_file()
    if not has_script and not launcher.cluster_environment.creates_processes_externally:
        raise ValueError(
            "strategy='ddp' runs the script again in every other process, but this code has no script. "
            "Write the code into a file, and run the file with python."
        )


def is_spawned(trainer: Trainer) -> bool:
    """Return True if all processes of a run are started by this process, which only waits."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def configure(trainer: Trainer, module: MultimodalVAE) -> None:
    """Replace Lightning's launcher of scripts, and let gradients of unused weights be missing."""
    strategy: Any = trainer.strategy
    if type(strategy.launcher) is _SubprocessScriptLauncher:
        old = strategy.launcher
        sizes = old.num_processes, old.num_nodes
        strategy._launcher = WatchedScripts(old.cluster_environment, *sizes)
    if module.latent.is_deterministic:
        # the encoder's variance has no effect
        strategy._ddp_kwargs["find_unused_parameters"] = True


@contextmanager
def explained(trainer: Trainer) -> Iterator[None]:
    """Explain the loss of a process, and let other processes notice an error in this one."""
    launcher: Any = trainer.strategy.launcher
    try:
        yield
    except NonFiniteLossError:
        # all processes raise it in the same step
        raise
    except BaseException as error:
        if isinstance(error, ProcessRaisedException):
            _raise_non_finite(str(error))
        if not is_spawned(trainer):
            ended_runs.append(error)
        if distributed.is_initialized() and distributed.get_backend() == "gloo":
            # closes the connections, for which the other processes wait
            distributed.destroy_process_group()
        if not _is_about_connection(error):
            raise
        codes = _exit_codes(trainer, error)
        raise LostProcessError(_message(codes, trainer.global_rank)) from error
    finally:
        if isinstance(launcher, WatchedScripts):
            launcher.is_over.set()


def _raise_non_finite(text: str) -> None:
    """Raise the error of a spawned process, from its text, if its loss was not finite."""
    name = NonFiniteLossError.__name__
    if name in text:
        cause = text.rsplit(f"{name}: ", 1)[-1].strip()
        raise NonFiniteLossError(cause) from None


def _is_about_connection(error: BaseException) -> bool:
    is_of_torch = isinstance(error, ProcessExitedException | distributed.DistError)
    is_plain = isinstance(error, RuntimeError | ProcessRaisedException)
    return is_of_torch or (is_plain and any(word in str(error) for word in CONNECTION_WORDS))


def _exit_codes(trainer: Trainer, error: BaseException) -> list[int | None]:
    """Return the exit codes of all processes, None for a process whose end is not known."""
    codes: list[int | None] = [None] * trainer.world_size
    if isinstance(error, ProcessExitedException):
        codes[error.error_index] = error.exit_code
    elif isinstance(launcher := trainer.strategy.launcher, WatchedScripts):
        codes[: len(launcher.exit_codes)] = launcher.exit_codes
    return codes


def _message(codes: list[int | None], rank: int) -> str:
    """Return the message about a lost process, for the process ``rank``."""
    others = [number for number in range(len(codes)) if number != rank]
    missing = [number for number, code in enumerate(codes) if code is not None]
    who = f"Process {missing[0]}" if missing else f"Process {others[0]}"
    who = who if missing or len(others) == 1 else f"One of the processes {others}"
    code = codes[missing[0]] if missing else None
    how = f" with exit code {code}" if code else ""
    if code is not None and code < 0:
        how = f", killed by {signal.Signals(-code).name}"
    return (
        f"{who} of {len(codes)} (counted from 0) stopped during training{how}. The run cannot "
        "continue, and the model is not trained. Read the error that the process printed. A "
        "process that was killed probably had too little memory, because each process holds the "
        "data: use fewer `devices`. Then start the script again."
    )
