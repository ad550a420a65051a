"""The tables that other programs read."""

import csv
import math
from dataclasses import replace

import pytest

from ntklens.report.tables import write_claims, write_fits, write_observables
from studies import make_study


def read(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_observables_have_a_row_for_every_run_and_seed_and_empty_fields_for_what_is_missing(tmp_path):
    study = make_study(diverged=[(0, 1)], missing=[(1, 2)])
    write_observables(tmp_path / "observables.csv", study)
    assert len(read(tmp_path / "observables.csv")) == 5 * 3 - 1  # nobody asked for the seed that is not there
    study = replace(study, asked=frozenset({(str(study.data.run.values[1]), 2)}))
    write_observables(tmp_path / "observables.csv", study)
    rows = read(tmp_path / "observables.csv")
    assert len(rows) == 5 * 3
    assert list(rows[0])[:4] == ["run", "seed", "state", "model.width"]
    first = rows[0]
    assert (first["seed"], first["state"], first["model.width"]) == ("0", "done", "16")
    assert float(first["minimum_loss"]) == pytest.approx(float(study.observables.minimum_loss[0, 0]))
    assert rows[1]["state"] == "diverged"
    missing = rows[5]
    assert missing["state"] == "missing"
    assert missing["minimum_loss"] == missing["trace_ratio"] == ""
    assert "nan" not in (tmp_path / "observables.csv").read_text().lower()


def test_fits_have_a_row_for_every_form_and_refused_ones_say_why(tmp_path):
    study = make_study()
    write_fits(tmp_path / "fits.csv", study)
    rows = read(tmp_path / "fits.csv")
    assert list(rows[0])[:8] == ["observable", "axis", "group", "form", "exponent", "low", "high", "n"]
    assert len(rows) == sum(len(law.fits) + len(law.refusals) for law in (*study.laws, *study.layer_laws))
    power = next(r for r in rows if (r["observable"], r["form"]) == ("initial_trace", "power"))
    law = next(law for law in study.laws if law.observable == "initial_trace")
    assert float(power["exponent"]) == law.fits["power"].parameters["exponent"].value
    assert (power["n"], power["seeds"], power["preferred"]) == ("5", "15", "false")
    chosen = [r["form"] for r in rows if r["observable"] == "initial_trace" and r["preferred"] == "true"]
    assert chosen == [law.preferred]
    affine = next(r for r in rows if (r["observable"], r["form"]) == ("initial_trace", "affine"))
    assert affine["exponent"] == ""
    assert float(affine["scale"]) == pytest.approx(2e4 / 60, rel=0.5)
    refused = next(r for r in rows if r["form"] == "crossover")
    assert refused["exponent"] == refused["n"] == refused["aicc"] == ""
    assert refused["note"].startswith("needs 6 points")
    for row in rows:  # of each form that was fitted and is not preferred the reason stands there, and of no other
        assert bool(row["not_preferred"]) == (row["aicc"] != "" and row["preferred"] == "false"), row


def test_joint_laws_have_rows(tmp_path):
    study = make_study({"model.width": [16, 32, 64], "dataset.train_size": [128, 256, 512]})
    write_fits(tmp_path / "fits.csv", study)
    rows = [row for row in read(tmp_path / "fits.csv") if row["axis"] == "model.width × dataset.train_size"]
    assert {row["form"] for row in rows} == {surface.form for surface in study.surfaces} == {"additive", "combined"}
    assert [row["preferred"] for row in rows].count("true") == 1
    for row, surface in zip(rows, study.surfaces, strict=True):
        assert float(row["a"]) == surface.parameters["a"].value


def test_claims_are_written_as_the_contract_says(tmp_path):
    study = make_study()
    write_claims(tmp_path / "claims.csv", study)
    rows = read(tmp_path / "claims.csv")
    assert list(rows[0])[:6] == ["claim", "protocol", "value", "low", "high", "verdict"]
    assert [row["verdict"] for row in rows] == [claim.verdict for claim in study.claims]
    for row, claim in zip(rows, study.claims, strict=True):
        assert (row["value"] == "") == math.isnan(claim.measured.value)
        assert row["value"] == "" or math.isclose(float(row["low"]), claim.measured.low)
