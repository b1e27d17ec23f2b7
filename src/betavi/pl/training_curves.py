"""Plot of the loss during training, with β."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import MaxNLocator

from betavi.pl import _style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from betavi.pl._style import SavePath

LOSSES = {
    "elbo_train": ("training cells", "-", "k"),
    "elbo_validation": ("held-out cells", "--", "k"),
}
"""Label, line and colour of each curve, by its key in the history."""


@_style.styled
def training_curves(
    history: dict[str, pd.DataFrame],
    ax: Axes | None = None,
    show: bool = False,
    save: SavePath = None,
) -> Axes:
    """Draw the negative ELBO of training and held-out cells, and β.

    The ELBO is at β = 1, whatever β was trained. Held-out cells have a curve if the model was trained
    with ``check_val_every_n_epoch=1``.

    Parameters
    ----------
    history
        ``model.history`` of a trained model.
    ax
        Axes. If None, a new figure is made.
    show
        Show the figure.
    save
        File to save the figure to.

    Returns
    -------
    Axes. β is on a second vertical axis.

    Raises
    ------
    KeyError
        If the history has no loss of training cells.

    Examples
    --------
    >>> import pandas as pd
    >>> import betavi
    >>> history = {name: pd.DataFrame({name: [3.0, 1.0]}) for name in ("elbo_train", "beta")}
    >>> betavi.pl.training_curves(history).get_xlabel()
    'epoch'
    """
    if "elbo_train" not in history:
        raise KeyError("`history` has no 'elbo_train'. Pass model.history of a trained model.")
    left: Axes = _style.axes_or_new(ax, (5, 3.4))
    for name, (label, line, colour) in LOSSES.items():
        if name in history:
            values = history[name].iloc[:, 0].astype(float).dropna()
            marker = "o" if len(values) == 1 else None
            left.plot(values.index + 1, values, line, color=colour, label=label, marker=marker)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel="epoch", ylabel="negative ELBO at β = 1 (nats per cell)")
    left.legend(loc="center right")
    if "beta" in history:
        _style.add_beta(left, history["beta"].iloc[:, 0])
    return _style.finish(left, show, save)
