"""Training of a model, and untrained copies with changed arguments."""

from __future__ import annotations

import inspect
from copy import copy
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer
from scvi.data._constants import _SCVI_UUID_KEY
from scvi.model.base import UnsupervisedTrainingMixin
from scvi.train import Trainer as ScviTrainer
from scvi.train import TrainingPlan as ScviPlan

from betavi._tables import check_whole, close_matches, lookup
from betavi.likelihoods import LIKELIHOODS
from betavi.model.core.library_size import start_sizes
from betavi.model.setup.arguments import check_arguments, check_surroundings
from betavi.model.setup.check_images import check_image_likelihood
from betavi.model.setup.selection import split_named
from betavi.train import (
    DEFAULT_SCHEDULE,
    DEFAULT_WARMUP,
    SCVI_SCHEDULE,
    CollapseGuard,
    KeepBest,
    TrainingPlan,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from betavi.data import CellManager
    from betavi.model.core.latent_model import LatentModel
    from betavi.objective import Schedule

    Functions = Sequence[Callable[..., Any]]


def train(
    model: LatentModel,
    max_epochs: int | None = None,
    *args: Any,
    beta_schedule: str | Schedule = DEFAULT_SCHEDULE,
    warmup: float = DEFAULT_WARMUP,
    free_bits: float = 0.0,
    target_rate: float | None = None,
    capacity: float | None = None,
    collapse_guard: bool | str = True,
    keep_best: bool | None = None,
    plan_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> None:
    """Train the model.

    Parameters
    ----------
    max_epochs
        Number of passes over the training cells. With None, BetaVI trains 30 epochs for up to
        10,000 cells, fewer for more cells, and at least 8. JointVI trains 100 epochs for up to 10,000
        cells, fewer for more cells, and at least 8. A model of images trains 100 epochs for up to
        2,000 images, fewer for more images, and at least 8.
    *args, **kwargs
        See :meth:`scvi.model.SCVI.train`. ``batch_size`` is 128 by default, and 32 for images. Early stopping and checkpoints of the best model start
        after the warm-up. With ``devices=2, strategy="ddp"``, two processes train together, and
        ``batch_size`` is the number of cells in each of them.
    beta_schedule
        ``"constant"``, ``"linear"``, ``"cosine"`` or ``"cyclical"``, a key of
        :data:`betavi.objective.SCHEDULES`. Or a function of the share of the planned steps that are
        done, from 0 to 1, that returns the factor of β.
    warmup
        Share of the planned steps in which β rises to its full value.
    free_bits
        Rate (KL divergence from the prior) of a latent dimension below which the rate is not
        penalised, in nats per cell, averaged over a minibatch (Kingma et al., 2016). For a prior
        whose rate is not a sum over dimensions, ``n_latent`` times this number applies to all
        dimensions together.
    target_rate
        Target of the rate, in nats per cell. After the warm-up, a controller changes β until the
        rate reaches this target (after Shao et al., 2020). The controller is saved with the model.
    capacity
        Target of the rate, in nats per cell. With this option, the loss is distortion + β *
        abs(rate - C), and the schedule raises C from 0 to ``capacity`` (Burgess et al., 2018).
        Choose a large β.
    collapse_guard
        Monitor the latent dimensions, and warn once if they collapse. ``"rescue"`` also changes the
        training, see :class:`betavi.train.CollapseGuard`. False switches the guard off.
    keep_best
        Keep the weights of the epoch with the lowest loss on held-out cells, after the warm-up. The
        loss is then computed after each epoch. By default, True for models of images, whose
        networks learn a few hundred images by heart, and False for others. If no epoch of a model of
        images has a lower loss than probabilistic PCA, the model is this PCA.
    plan_kwargs
        Options of :class:`betavi.train.TrainingPlan`. scvi-tools' ``n_epochs_kl_warmup``,
        ``n_steps_kl_warmup``, ``max_kl_weight`` and ``min_kl_weight`` replace ``beta_schedule`` and
        ``warmup``.

    Raises
    ------
    TypeError
        If an argument is unknown. All errors are raised before training starts.
    ValueError
        If a word is unknown, a number is out of range, or two options exclude each other.
    RuntimeError
        If one of several processes stops during training.

    Notes
    -----
    ``history["beta"]`` is β at the last step of each epoch. For a model trained on a range of β,
    ``history["beta"]`` is the geometric mean of the β drawn in the epoch. Every ELBO in the history
    is at β = 1.

    References
    ----------
    Kingma et al. (2016), Improved variational inference with inverse autoregressive flow. Shao
    et al. (2020), ControlVAE. Burgess et al. (2018), Understanding disentangling in β-VAE.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, beta=4.0)
    >>> model.train(max_epochs=4, warmup=0.5, enable_progress_bar=False)
    >>> model.history["beta"]["beta"].tolist()
    [1.0, 3.0, 4.0, 4.0]
    """
    _check_known(model, kwargs, plan_kwargs)
    plan_kwargs = dict(plan_kwargs or {})
    check_surroundings()
    options = {
        "beta_schedule": beta_schedule, "warmup": warmup, "free_bits": free_bits,
        "target_rate": target_rate, "capacity": capacity,
    }  # fmt: skip
    given = options | {"collapse_guard": collapse_guard, "keep_best": keep_best}
    check_arguments(given, inspect.signature(train).parameters)
    max_epochs = _checked_epochs(max_epochs)
    if collapse_guard == "rescue":
        _check_rescue(options, plan_kwargs)
    _check_cells(model, kwargs)
    has_images = _has_images(model)
    if has_images and len(args) <= POSITION_OF_BATCH_SIZE and kwargs.get("datamodule") is None:
        kwargs.setdefault("batch_size", IMAGE_BATCH_SIZE)
    kwargs["callbacks"] = _callbacks(kwargs.get("callbacks"), collapse_guard)
    if has_images if keep_best is None else keep_best:
        kwargs["callbacks"].append(KeepBest())
        kwargs["check_val_every_n_epoch"] = kwargs.get("check_val_every_n_epoch") or 1
    read = model.adata if kwargs.get("datamodule") is None else kwargs["datamodule"]
    if max_epochs is None and hasattr(read, "n_obs"):
        default = image_epochs if has_images else model.default_epochs
        max_epochs = default(read.n_obs)
    if model.module is not None:
        # other methods leave the module in evaluation mode
        model.module.train()
    kwargs["plan_kwargs"] = options | plan_kwargs
    UnsupervisedTrainingMixin.train(model, max_epochs, *args, **kwargs)
    beta, _ = model.module.beta_condition.range
    if model.module.beta_condition.is_fixed and model._module_kwargs["beta"] != beta:
        _store_beta(model, beta)


def _checked_epochs(max_epochs: Any) -> int | None:
    # -1 trains without end; the plan refuses it if a schedule needs an end
    if max_epochs is None or (isinstance(max_epochs, int) and max_epochs == -1):
        return max_epochs
    check_whole("max_epochs", max_epochs)
    # Lightning does not accept NumPy's integers
    return int(max_epochs)


def _check_cells(model: LatentModel, kwargs: dict[str, Any]) -> None:
    """Check the cells to train on, of the model or of a datamodule, and name those held out."""
    manager = getattr(kwargs.get("datamodule"), "adata_manager", None)
    if manager is not None:
        _refuse_options_of_split(kwargs)
        model.check_same_fields(manager)
    if model.adata is None and manager is not None and getattr(model.module, "is_fresh", False):
        start_sizes(model, manager)
    if model.adata is not None and kwargs.get("datamodule") is None:
        model.adata_manager.check_unchanged()
        model.adata_manager.check_covariates()
        kwargs["datasplitter_kwargs"] = _with_positions(model, kwargs.get("datasplitter_kwargs"))


def _has_images(model: LatentModel) -> bool:
    # a model whose data come with a datamodule has no module yet
    names = model.modalities if model.module is not None else []
    return any(model.likelihood(name).of_images for name in names)


def _callbacks(callbacks: Any, collapse_guard: bool | str) -> list[Callback]:
    """Return the callbacks as a list, with the guard against collapse."""
    # Lightning also takes one callback
    callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
    if collapse_guard and not any(isinstance(c, CollapseGuard) for c in callbacks):
        callbacks.append(CollapseGuard("warn" if collapse_guard is True else collapse_guard))
    return callbacks


TRAINING_CELLS, EPOCHS = 300_000, (8, 30)
"""Default length of training: total number of cells in all epochs, fewest and most epochs. Chosen
with ``python -m benchmarks.time_to_quality``, which compares it with SCVI's default."""


def default_epochs(_model: LatentModel, n_cells: int) -> int:
    """Return 30 epochs for up to 10,000 cells, fewer for more cells, and at least 8."""
    return _within(EPOCHS, TRAINING_CELLS // n_cells)


JOINT_CELLS, JOINT_EPOCHS = 1_000_000, (8, 100)
"""As above, for models of several modalities. 100 epochs are those of ``python -m benchmarks.joint``."""


def joint_epochs(_model: LatentModel, n_cells: int) -> int:
    """Return 100 epochs for up to 10,000 cells, fewer for more cells, and at least 8."""
    return _within(JOINT_EPOCHS, JOINT_CELLS // n_cells)


TRAINING_IMAGES, IMAGE_EPOCHS = 200_000, (8, 100)
"""As above, for models of images, whose steps take longer. 5,000 images of 64 by 64 pixels then train
in less than 5 minutes on 2 CPU cores."""


IMAGE_BATCH_SIZE = 32
"""Images in a minibatch by default. A few hundred images otherwise have too few training steps."""

POSITION_OF_BATCH_SIZE = 6
"""Position of ``batch_size`` in :meth:`scvi.model.SCVI.train`, after ``max_epochs``."""


def image_epochs(n_cells: int) -> int:
    """Return 100 epochs for up to 2,000 images, fewer for more images, and at least 8."""
    return _within(IMAGE_EPOCHS, TRAINING_IMAGES // n_cells)


def _within(limits: tuple[int, int], n_epochs: int) -> int:
    fewest, most = limits
    return min(max(n_epochs, fewest), most)


OF_SPLIT = (
    "train_size", "validation_size", "batch_size", "shuffle_set_split", "load_sparse_tensor",
    "datasplitter_kwargs",
)  # fmt: skip
"""Options of the split, which a datamodule has already made."""


def _refuse_options_of_split(kwargs: dict[str, Any]) -> None:
    """Raise a ValueError for an option that a datamodule of ours would ignore."""
    if given := [word for word in OF_SPLIT if kwargs.get(word) is not None]:
        raise ValueError(
            f"`{given[0]}` has no effect with `datamodule`. Pass `train_size`, `validation_size` and "
            "`batch_size` to the datamodule."
        )


def sibling(
    model: LatentModel, *, likelihoods: Mapping[str, str] | None = None, **changes: Any
) -> Any:
    """Return an untrained model of the same class and data, with some arguments changed.

    Parameters
    ----------
    likelihoods
        Only for a model of a MuData: new likelihoods of some modalities, by name of the modality.
        The setup of the data does not change. For a model of an AnnData, pass ``gene_likelihood``.
    **changes
        Arguments of the constructor to change.

    Raises
    ------
    TypeError
        If ``likelihoods`` is passed for a model of an AnnData.
    ValueError
        If a modality or a likelihood is unknown.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=5)
    >>> model.sibling(gene_likelihood="nb").module.gene_likelihood
    'nb'
    """
    manager = model.adata_manager
    # scvi-tools stores the last setup of an object and of its copies under one name
    managers, name = model._setup_adata_manager_store, manager.adata_uuid
    last = managers.get(name, manager)
    # a user may have removed the name
    model.adata.uns[_SCVI_UUID_KEY] = name
    managers[name] = manager if likelihoods is None else _with_likelihoods(model, likelihoods)
    try:
        return type(model)(model.adata, **model._module_kwargs | changes)
    finally:
        managers[name] = last


def _with_positions(model: LatentModel, splitting: dict[str, Any] | None) -> dict[str, Any]:
    """Return the splitter's options, with positions of the cells of ``external_indexing``."""
    splitting = dict(splitting or {})
    if (parts := splitting.get("external_indexing")) is not None:
        splitting["external_indexing"] = split_named(model.adata.obs_names, parts)
    return splitting


def _with_likelihoods(model: LatentModel, likelihoods: Mapping[str, str]) -> CellManager:
    """Return a copy of the model's data manager, with other likelihoods in its setup."""
    arguments = model.registry_["setup_args"]
    if "likelihoods" not in arguments:
        raise TypeError(
            "`likelihoods` is only for a model of a MuData. For a model of an AnnData, pass "
            "gene_likelihood='nb' or another likelihood."
        )
    for name in model.named_modalities(list(likelihoods)):
        if (image := model.image_format(name)) is not None:
            check_image_likelihood(name, likelihoods[name], image)
        else:
            lookup(LIKELIHOODS, likelihoods[name], f"likelihoods[{name!r}]")
    manager: CellManager = copy(model.adata_manager)
    changed = arguments | {"likelihoods": arguments["likelihoods"] | dict(likelihoods)}
    manager._registry = manager._registry | {"setup_args": changed}
    return manager


def _store_beta(model: LatentModel, beta: float) -> None:
    """Store the β after a rescue, so that siblings and saved models have this β."""
    model._module_kwargs["beta"] = beta
    for arguments in (model.init_params_["non_kwargs"], *model.init_params_["kwargs"].values()):
        if "beta" in arguments:
            arguments["beta"] = beta


def _check_known(
    model: LatentModel, kwargs: dict[str, Any], plan_kwargs: dict[str, Any] | None
) -> None:
    """Raise an error for an option that is unknown or of a wrong kind."""
    trained = inspect.signature(UnsupervisedTrainingMixin.train).parameters
    check_arguments({"plan_kwargs": plan_kwargs, **kwargs}, trained)
    options = dict(inspect.signature(ScviPlan.__init__).parameters)
    options |= inspect.signature(TrainingPlan.__init__).parameters
    for word in SCVI_SCHEDULE[:2]:
        # None means no warm-up over epochs or steps, whatever its annotation says
        del options[word]
    check_arguments(plan_kwargs or {}, options)
    # scvi-tools passes unknown arguments on to Lightning's trainer and its fit
    trainers = (train, UnsupervisedTrainingMixin.train, ScviTrainer, Trainer, Trainer.fit)
    plans = [plan.__init__ for plan in model._training_plan_cls.__mro__]
    plan_functions = (*plans, model._module_cls.loss)
    _check_arguments("train", kwargs, trainers, plan_functions)
    _check_arguments("plan_kwargs", plan_kwargs or {}, plan_functions)


def _check_arguments(
    name: str, arguments: dict[str, Any], functions: Functions, plan_functions: Functions = ()
) -> None:
    """Raise a TypeError for an argument that is unknown, or belongs into ``plan_kwargs``."""
    known = _parameters_of(functions)
    if not (unknown := [argument for argument in arguments if argument not in known]):
        return
    word, advice = unknown[0], close_matches(unknown[0], sorted(known))
    if word in _parameters_of(plan_functions):
        advice = f"Pass this argument as plan_kwargs={{{word!r}: ...}}"
    raise TypeError(f"{name} has no argument {word!r}. {advice}")


def _parameters_of(functions: Functions) -> set[str]:
    return {name for each in functions for name in inspect.signature(each).parameters} - {"self"}


def _check_rescue(options: dict[str, Any], plan_kwargs: dict[str, Any]) -> None:
    """Raise a ValueError if another option also changes β during a rescue."""
    words = [word for word in ("target_rate", "capacity") if options[word] is not None]
    words += [word for word in SCVI_SCHEDULE if word in plan_kwargs]
    if words:
        raise ValueError(
            f"collapse_guard='rescue' and {words[0]} cannot be combined, because a rescue controls "
            "β itself. Use collapse_guard=True, and call rescue() after training."
        )
