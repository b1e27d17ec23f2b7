"""Model cards: the page that a hub shows for a shared model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from betavi.model.io.saved import versions
from betavi.model.setup.messages import name_some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.model.core.latent_model import LatentModel

LOSSES = {"elbo_validation": "held-out", "elbo_train": "training"}
"""Cells by the key of their negative ELBO in the history."""

TEMPLATE = """\
---
license: {license}
library_name: betavi
tags:
{tags}
---

# {name}

{description}

`{name}` is a β-VAE of single-cell data from the Python package betavi, which is built on scvi-tools.

## Use

```python
import betavi

model = betavi.{name}.load("folder", adata)
```

Opening the folder with betavi runs no code of its files. The weights are in `model.safetensors`, and the settings are in
`model.json`. `model.pt` is a copy for scvi-tools' own tools.

## Model

| | |
|---|---|
{model}

## Data

| | |
|---|---|
{data}

## Setup

```json
{setup}
```

## Versions

| package | version |
|---|---|
{versions}
"""


def hub_card(
    model: LatentModel,
    license_info: str = "unknown",
    description: str = "",
    tags: Sequence[str] = (),
) -> str:
    """Return a model card, the page that a hub shows for a shared model.

    scvi-tools' own helper makes cards of its own classes only. Write the card as ``README.md`` into
    the folder of the saved model.

    Parameters
    ----------
    model
        Model to describe.
    license_info
        Licence of the model, as the hub abbreviates it, for example ``"cc-by-4.0"``.
    description
        Text about the data and the purpose of the model, in Markdown.
    tags
        Further tags, for example tissues.

    Returns
    -------
    Text in Markdown, with a header in YAML.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata, batch_key="batch")
    >>> card = betavi.hub_card(betavi.BetaVI(adata), "cc-by-4.0", "Blood cells of two donors.")
    >>> card.splitlines()[1]
    'license: "cc-by-4.0"'
    """
    name, found = type(model).__name__, versions()
    own = ["biology", "genomics", "single-cell", "betavi", f"model_cls_name:{name}"]
    own += [f"scvi_version:{found['scvi-tools']}", f"anndata_version:{found['anndata']}"]
    return TEMPLATE.format(
        # JSON is also YAML, and quotes what YAML would read as something else
        license=json.dumps(license_info),
        tags="\n".join(f"- {json.dumps(tag)}" for tag in (*own, *tags)),
        name=name,
        description=description or "The authors gave no description.",
        model=_rows(_settings(model)),
        data=_rows(_data(model)),
        setup=json.dumps(model.registry_.get("setup_args", {}), indent=2, default=str),
        versions=_rows(found),
    )


def _settings(model: LatentModel) -> dict[str, Any]:
    """Return the arguments of the constructor, and the state of training."""
    parameters = model.init_params_
    given = dict(parameters["non_kwargs"])
    for further in parameters["kwargs"].values():
        given |= further
    state: dict[str, Any] = {"trained": bool(model.is_trained_)}
    for key, cells in LOSSES.items():
        losses = (model.history_ or {}).get(key)
        if losses is not None and len(losses):
            state[f"negative ELBO of {cells} cells, nats per cell"] = f"{losses.iloc[-1, 0]:.1f}"
    return {name: value for name, value in given.items() if value is not None} | state


def _data(model: LatentModel) -> dict[str, Any]:
    """Return the numbers of cells and features, and the batches."""
    features = {
        f"features of {name}": f"{len(model.features(name)):,}: {name_some(model.features(name))}"
        for name in model.modalities
    }
    stats = model.summary_stats
    counted = {"cells": "n_cells", "batches": "n_batch", "labels": "n_labels"}
    numbers = {word: f"{stats[key]:,}" for word, key in counted.items() if key in stats}
    return numbers | features | {"minified": model.minified_data_type is not None}


def _rows(values: dict[str, Any]) -> str:
    """Return the rows of a table in Markdown."""
    cells = {
        name: str(value).replace("|", "\\|").replace("\n", " ") for name, value in values.items()
    }
    return "\n".join(f"| {name} | {value} |" for name, value in cells.items())
