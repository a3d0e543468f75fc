"""Every setting that is part of a stage's key does something: else a change of it costs a run and changes nothing.

The settings are those of the configuration's models; each needs a row in the tables beside this file.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.settings import exporting, generation, judging, machine, pipeline, prompts, sampling, tokenization, training
from tests.settings.table import Lab, Row, at, differing, setting, settings, written

TABLE: dict[str, Row] = {
    **machine.ROWS,
    **sampling.ROWS,
    **tokenization.ROWS,
    **training.ROWS,
    **exporting.ROWS,
    **prompts.ROWS,
    **generation.ROWS,
    **judging.ROWS,
    **pipeline.ROWS,
}
SETTINGS = list(settings())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


def test_every_keyed_setting_has_a_row_and_every_row_a_setting() -> None:
    assert {setting(name) for name in TABLE} == set(SETTINGS)


@pytest.mark.parametrize("name", TABLE)
def test_a_setting_does_something(name: str, lab: Lab) -> None:
    row = TABLE[name]
    first, second = configs = row.configs(name, lab)
    keys = [at(config.keyed(), written(name)) for config in configs]
    assert keys[0] != keys[1], "it is no part of the key, or both values are one"
    seen = lab.seen(row.look, first), lab.seen(row.look, second)
    assert seen[0] != seen[1]
    if row.seen is not None:
        assert seen == row.seen
    if row.apart is not None:
        assert differing(*seen) == row.apart
    if row.least:
        assert differing(*seen) >= row.least


# `retention` and `generation.forms` have stages of their own run, or not
ELSEWHERE = ("retention", "generation.forms")


@pytest.mark.parametrize("name", [name for name in TABLE if not name.startswith("model.") and name not in ELSEWHERE])
def test_a_setting_reaches_its_stage(name: str, lab: Lab) -> None:
    stage = name.partition(".")[0]
    told = [pipeline.recorded(lab, config).told[stage] for config in TABLE[name].configs(name, lab)]
    assert told[0] != told[1]


def test_a_form_that_is_shipped_is_measured_and_judged_as_well(lab: Lab) -> None:
    without, with_it = (
        pipeline.recorded(lab, config).told for config in TABLE["generation.forms"].configs("generation.forms", lab)
    )
    assert with_it.keys() - without.keys() == {"shipped-generation", "shipped-evaluation"}
    assert with_it["shipped-generation"] != with_it["generation"] == without["generation"]


LOOKS = {row.look: name for name, row in reversed(TABLE.items())}


@pytest.mark.parametrize("name", LOOKS.values())
def test_what_is_seen_comes_of_the_settings_alone(name: str, lab: Lab) -> None:
    row = TABLE[name]
    config, _ = row.configs(name, lab)
    assert lab.look(row.look, config) == lab.seen(row.look, config)
