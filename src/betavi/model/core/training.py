"""Training, with β as an argument, and untrained siblings of a model."""

from __future__ import annotations

import inspect
from copy import copy
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from scvi.model.base import UnsupervisedTrainingMixin
from scvi.train import Trainer as ScviTrainer

from betavi._tables import check_whole, close_matches, lookup
from betavi.likelihoods import LIKELIHOODS
from betavi.train import DEFAULT_SCHEDULE, DEFAULT_WARMUP, SCVI_SCHEDULE, CollapseGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from betavi.data import CellManager
    from betavi.model.core.latent_model import LatentModel
    from betavi.objective import Schedule

    Takers = Sequence[Callable[..., Any]]


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
    plan_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> None:
    """Train the model.

    Parameters
    ----------
    max_epochs
        Number of passes over the training cells. If None, BetaVI takes 30 up to 10,000 cells,
        fewer of more cells, and at least 8; JointVI as many as SCVI.
    *args, **kwargs
        See :meth:`scvi.model.SCVI.train`. Early stopping and checkpoints of a best model wait for
        the warm-up.
    beta_schedule
        ``"constant"``, ``"linear"``, ``"cosine"`` or ``"cyclical"``, a key of
        :data:`betavi.objective.SCHEDULES`, or a function from the share of the planned steps,
        within [0, 1], to the factor of β in force there.
    warmup
        Share of the planned steps until β is in force.
    free_bits
        Nats per cell below which the rate of a latent dimension, averaged over a minibatch, is not
        penalised (Kingma et al., 2016). With a prior whose rate is no sum over dimensions,
        ``n_latent`` times as many nats for all of them.
    target_rate
        Nats per cell at which a controller holds the rate after warm-up, by moving β (after Shao et
        al., 2020). Its state is saved with the model.
    capacity
        Nats per cell. The loss is then distortion + β * abs(rate - C), and the schedule raises
        C from 0 to the capacity (Burgess et al., 2018); β should be large.
    collapse_guard
        Monitor the latent dimensions, and warn once if they collapse; ``"rescue"`` also acts, see
        :class:`betavi.train.CollapseGuard`. Off if False.
    plan_kwargs
        Options of :class:`betavi.train.TrainingPlan`. scvi-tools' ``n_epochs_kl_warmup``,
        ``n_steps_kl_warmup``, ``max_kl_weight`` and ``min_kl_weight`` take the place of
        ``beta_schedule`` and ``warmup``.

    Raises
    ------
    ValueError, TypeError
        If a word is not in its table, a number is out of range, options contradict, or an argument
        is unknown; before anything is trained.

    Notes
    -----
    ``history["beta"]`` holds the β at the last step of each epoch, or the geometric mean of those
    drawn from a range. Every ELBO in the history is at β = 1.

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
    # scvi-tools hands unknown arguments to Lightning's trainer, and to its fit
    trainers = (ScviTrainer, Trainer, Trainer.fit)
    plans = [plan.__init__ for plan in model._training_plan_cls.__mro__]
    of_plan = (*plans, model._module_cls.loss)
    takers = (train, UnsupervisedTrainingMixin.train, *trainers)
    _check_words("train", kwargs, takers, elsewhere={"plan_kwargs": of_plan})
    _check_words("plan_kwargs", plan_kwargs or {}, of_plan)
    # -1 is no end; the plan refuses it where a schedule needs one
    if max_epochs not in (None, -1):
        check_whole("max_epochs", max_epochs)
        # Lightning takes no other kind of whole number
        max_epochs = int(max_epochs)
    named = {
        "beta_schedule": beta_schedule, "warmup": warmup, "free_bits": free_bits,
        "target_rate": target_rate, "capacity": capacity,
    }  # fmt: skip
    if collapse_guard == "rescue":
        _check_rescue(target_rate, capacity, plan_kwargs)
    if model.adata is not None and kwargs.get("datamodule") is None:
        model.adata_manager.check_unchanged()
    callbacks = list(kwargs.pop("callbacks", None) or [])
    if collapse_guard and not any(isinstance(c, CollapseGuard) for c in callbacks):
        callbacks.append(CollapseGuard("warn" if collapse_guard is True else collapse_guard))
    if max_epochs is None and kwargs.get("datamodule") is None:
        max_epochs = model.default_epochs(model.adata.n_obs)
    if model.module is not None:
        # getters leave a module without dropout, as scvi-tools' training does
        model.module.train()
    UnsupervisedTrainingMixin.train(
        model,
        max_epochs,
        *args,
        plan_kwargs=named | dict(plan_kwargs or {}),
        callbacks=callbacks,
        **kwargs,
    )
    if model.module.beta_condition.is_fixed:
        remember_beta(model, model.module.beta_condition.range[0])


def sibling(
    model: LatentModel, *, likelihoods: Mapping[str, str] | None = None, **changes: Any
) -> Any:
    """Return an untrained model of the same object and arguments, with changes.

    Parameters
    ----------
    likelihoods
        Other likelihoods of some modalities, by name, for a model of a MuData. The object and its
        other models keep theirs. For a model of an AnnData pass ``gene_likelihood``.
    **changes
        Arguments of the constructor.

    Returns
    -------
    A new model of the same class.

    Raises
    ------
    TypeError
        If a model of an AnnData is given ``likelihoods``.
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
    # scvi-tools keeps the last setup of an object and of its copies under one name
    known, name = model._setup_adata_manager_store, manager.adata_uuid
    last = known.get(name, manager)
    known[name] = manager if likelihoods is None else _with_likelihoods(model, likelihoods)
    try:
        return type(model)(model.adata, **model._module_kwargs | changes)
    finally:
        known[name] = last


def _with_likelihoods(model: LatentModel, likelihoods: Mapping[str, str]) -> CellManager:
    """Return a copy of the model's manager that was set up with other likelihoods."""
    arguments = model.registry_["setup_args"]
    if "likelihoods" not in arguments:
        raise TypeError("A model of an AnnData has one likelihood: pass gene_likelihood=.")
    for name in model.named_modalities(list(likelihoods)):
        lookup(LIKELIHOODS, likelihoods[name], f"likelihoods[{name!r}]")
    manager: CellManager = copy(model.adata_manager)
    changed = arguments | {"likelihoods": arguments["likelihoods"] | dict(likelihoods)}
    manager._registry = manager._registry | {"setup_args": changed}
    return manager


def remember_beta(model: LatentModel, beta: float) -> None:
    """Record the β that a rescue returned to, for copies and saved files of this model."""
    if model._module_kwargs["beta"] == beta:
        return
    model._module_kwargs["beta"] = beta
    for arguments in (model.init_params_["non_kwargs"], *model.init_params_["kwargs"].values()):
        if "beta" in arguments:
            arguments["beta"] = beta


def _check_words(
    name: str, words: dict[str, Any], takers: Takers, elsewhere: dict[str, Takers] | None = None
) -> None:
    """Refuse an unknown argument before the data are split, and say where it would be accepted."""
    known = _words_of(takers)
    if not (unknown := [word for word in words if word not in known]):
        return
    word = unknown[0]
    for place, others in (elsewhere or {}).items():
        if word in _words_of(others):
            raise TypeError(
                f"{name} has no argument {word!r}: it goes into {place}={{{word!r}: ...}}."
            )
    raise TypeError(f"{name} has no argument {word!r}. {close_matches(word, sorted(known))}")


def _words_of(takers: Takers) -> set[str]:
    return {name for taker in takers for name in inspect.signature(taker).parameters} - {"self"}


def _check_rescue(
    target_rate: float | None, capacity: float | None, plan_kwargs: dict[str, Any] | None
) -> None:
    """Refuse a rescue, which moves β, together with other control of β."""
    steers = {"target_rate": target_rate, "capacity": capacity}
    words = [word for word, value in steers.items() if value is not None]
    words += [word for word in SCVI_SCHEDULE if word in (plan_kwargs or {})]
    if words:
        raise ValueError(
            f"collapse_guard='rescue' moves β, and so does {words[0]}. Train with "
            "collapse_guard=True, and call rescue() afterwards."
        )
