"""Section on the data: sizes, values that are not counts, warnings of the setup, and confounding."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from betavi.data import COUNTS
from betavi.diagnostics.trust import (
    Confounding,
    Finding,
    Values,
    determined_by,
    judge_conditions,
    judge_values,
)
from betavi.diagnostics.trust.conditions import CONFOUNDED
from betavi.model.report.section import Section, SectionRule, Table, counted
from betavi.model.setup.check_counts import check_counts
from betavi.model.setup.check_depth import warn_deep_cells
from betavi.model.setup.check_features import check_batches
from betavi.model.setup.check_images import check_images
from betavi.model.setup.check_obs import warn_repeated_genes
from betavi.model.setup.conditions import check_is_screen

if TYPE_CHECKING:
    from betavi.model.report.results import Results

MOST_GROUPS, CELLS_PER_BATCH = 20, 10
"""Largest number of groups in a column that is compared with the batch, and fewest cells of a batch
on average. Not tuned."""


def make(results: Results) -> Section:
    """Summarise the data, and check them again as the setup does."""
    messages, totals = _checked_again(results)
    values = {name: _values_of(results, name) for name in totals}
    found = confounding_of(results)
    batch = results.setup_args.get("batch_key")
    findings = judge_values(values) + judge_conditions(found, str(batch))
    findings += [Finding("note", "data", message) for message in messages]
    is_stopped = any(finding.level == "stop" for finding in findings)
    tables = [Table("Size of the data", _sizes(results, totals))]
    if found:
        shares = {
            f"obs[{name!r}]": {"explained by the batch": c.share} for name, c in found.items()
        }
        caption = f"Share of the entropy of groups that the batch, obs[{batch!r}], explains"
        tables.append(Table(caption, pd.DataFrame.from_dict(shares, orient="index")))
    n_bad = sum(finding.level != "note" for finding in findings)
    sentence = f"{counted(n_bad, 'fault')} found." if n_bad else "No fault of the setup was found."
    # each finding says more on the first screen
    sentence = " ".join([sentence, *(finding.text for finding in findings)])
    section = Section("faulty" if is_stopped else "in order", sentence, findings, tables)
    lost = [f"obs[{name!r}]" for name, c in found.items() if c.share >= CONFOUNDED]
    if lost:
        groups = f"groups of {', '.join(lost)}"
        removed = "their differences may be partly removed."
        section.remarks["map"] = f"Do not read distances between {groups}: {removed}"
        section.remarks["genes"] = f"Do not compare denoised values between {groups}: {removed}"
    return section


def confounding_of(results: Results) -> dict[str, Confounding]:
    """Return the relation of columns of ``obs`` to the batch, for models with several batches."""
    obs, batch_key = results.model.adata.obs, results.setup_args.get("batch_key")
    n_batches = results.model.summary_stats.n_batch
    if batch_key is None or n_batches < 2:
        return {}
    if results.condition_key is None and "perturbation_key" in results.setup_args:
        # effects have their own test, with the batch in the design
        return {}
    if len(obs) < CELLS_PER_BATCH * n_batches:
        return {}
    batch = obs[batch_key].astype(str)
    named = [results.condition_key] if results.condition_key else _group_columns(obs, batch_key)
    found = {}
    for name in named:
        known = obs[name].notna()
        groups = obs.loc[known, name].astype(str)
        if len(groups.unique()) > 1:
            found[name] = determined_by(batch[known].to_numpy(), groups.to_numpy())
    return found


def _group_columns(obs: pd.DataFrame, batch_key: str) -> list[str]:
    """Return the columns that may be groups of cells, except copies of the batch."""
    batch, names = obs[batch_key].astype(str), []
    for name in obs.columns[~obs.columns.duplicated(keep=False)]:
        column = obs[name]
        is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        if is_number or name == batch_key or str(name).startswith("_scvi"):
            continue
        # a column of one modality is unknown for the cells that lack it
        known = column.notna()
        is_copy = (column[known].astype(str) == batch[known]).all()
        if column.nunique() <= MOST_GROUPS and not is_copy:
            names.append(name)
    return names


def _checked_again(results: Results) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the warnings of the setup, and the totals of cells by modality."""
    model, adata = results.model, results.model.adata
    messages: list[str] = []
    totals: dict[str, np.ndarray] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in model.modalities:
            part, label = _part(results, name)
            if model.image_format(name) is not None:
                key = str(model.adapter.image_key(results.setup_args, name))
                check_images(part, key, label, messages.append)
                continue
            layer = model.adapter.layer(results.setup_args, name)
            totals[name] = check_counts(part, layer, None, messages.append, label, None)
            warn_deep_cells(totals[name], part.obs_names, label)
            warn_repeated_genes(part.var_names)
            if n_empty := int((totals[name] == 0).sum()):
                messages.append(f"{n_empty} cell(s) of {label} have no counts.")
        if "likelihoods" in results.setup_args:
            layers = {name: (results.setup_args["layers"] or {}).get(name) for name in totals}
            check_batches(adata, layers, results.setup_args["batch_key"], keep_absent=True)
        else:
            check_is_screen(adata, results.setup_args)
    messages += [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return messages, totals


def _part(results: Results, name: str) -> tuple[Any, str]:
    """Return the object of a modality, and its name in messages."""
    model = results.model
    return model.adapter.part(model.adata, name), "adata" if name == COUNTS else f"mdata[{name!r}]"


def _values_of(results: Results, name: str) -> Values:
    """Return the share of the values above 0 that are not whole numbers."""
    model, n_values, n_fractions = results.model, 0, 0
    for _, block in model.rows(model.adata, name).blocks():
        values = block.data if sparse.issparse(block) else np.asarray(block).ravel()
        values = values[values != 0]
        n_values += len(values)
        n_fractions += int((values != np.floor(values)).sum())
    likelihood = model.likelihood(name)
    needs = likelihood.is_of_counts and likelihood.of_whole_numbers
    return Values(n_fractions / max(n_values, 1), needs, model.module.likelihood_names[name])


def _sizes(results: Results, totals: dict[str, np.ndarray]) -> pd.DataFrame:
    model = results.model
    rows: dict[str, Any] = {"cells": model.adata.n_obs}
    held_out = getattr(model, "validation_indices", None)
    rows["held-out cells"] = 0 if held_out is None else len(held_out)
    for name in model.modalities:
        of = "" if name == COUNTS else f" of {name}"
        rows[f"features{of}"] = len(model.features(name))
        if of:
            rows[f"cells with {name}"] = int(model.adapter.has(model.adata, name).sum())
        rows[f"likelihood{of}"] = model.module.likelihood_names[name]
        if (image := model.image_format(name)) is not None:
            rows[f"shape of an image{of}"] = ", ".join(map(str, image.shape))
        else:
            rows[f"median total count{of}"] = float(np.median(totals[name]))
    rows["batches"] = model.summary_stats.n_batch
    for argument in ("batch_key", "labels_key", "perturbation_key", "context_key", "dose_key"):
        if results.setup_args.get(argument) is not None:
            rows[argument] = str(results.setup_args[argument])
    for argument in ("categorical_covariate_keys", "continuous_covariate_keys"):
        if results.setup_args.get(argument):
            rows[argument] = ", ".join(results.setup_args[argument])
    return pd.DataFrame({"value": {name: str(value) for name, value in rows.items()}})


RULE = SectionRule(
    heading="Data and setup",
    make=make,
    call="setup_anndata(adata, ...), setup_mudata(mdata, ...)",
    means="The registered values were checked again: they must be raw counts. Columns of obs were "
    "compared with the batch. If a batch has only cells of one group, the model cannot tell the group "
    "from the batch. Entropy is a measure of how mixed the groups are.",
    does_not_mean="Data without faults here can still have doublets, dying cells or wrong labels.",
    tests=("conditions",),
)
