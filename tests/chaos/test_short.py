"""The short form of the chaos suite: a little of each kind. `make chaos` is the long one."""

from __future__ import annotations

import random

import pytest

from tests.chaos import kills, results, store_faults, surroundings
from tests.chaos.damage import HARMS, Harm
from tests.chaos.machine import STAGES, Machine

SEED = random.SystemRandom().randrange(10_000)
"""Shown when a test fails, so that it can be set here."""


@pytest.fixture
def chance() -> random.Random:
    return random.Random(SEED)


def test_the_document_tells_what_the_long_form_found() -> None:
    assert results.in_words(results.read(results.RESULTS)) in results.DOCUMENT.read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_again_and_again_a_run_completes_with_the_same_bits(box: Machine, chance: random.Random) -> None:
    struck = 0
    for _ in range(4):  # a run may be done before the moment comes
        struck += kills.chain(box, chance, [kills.flow, kills.training, kills.server])
        if struck >= 2:
            return
    pytest.fail(f"only {struck} kills met their victim; seed {SEED}")


@pytest.mark.parametrize("harm", HARMS)
def test_no_file_of_an_artifact_may_be_damaged(box: Machine, chance: random.Random, harm: Harm) -> None:
    assert store_faults.every_file(box, harm, chance) > 20, SEED


def test_a_damaged_artifact_is_built_again_and_nothing_else(box: Machine, chance: random.Random) -> None:
    store_faults.rebuild(box, "sampling", chance.choice(HARMS), chance)


@pytest.mark.skipif(not surroundings.CAN_MOUNT, reason="mounting a file system takes privileges")
def test_a_full_disk_is_said_and_what_was_finished_is_kept(box: Machine, chance: random.Random) -> None:
    surroundings.disk_full(box, chance.choice(STAGES[-2:]), chance)
