"""What a stage shows."""

from __future__ import annotations

from pathlib import Path

from artifacts.presentation import Section
from tasks.running.stage import MOST_SHOWN, Stage
from tests.tasks.running.test_run import Word, write


def test_an_artifact_is_drawn_once(tmp_path: Path) -> None:
    drawn: list[Word] = []

    def sections(word: Word) -> list[Section]:
        drawn.append(word)
        return []

    stage = Stage(name="first", version=1, run=write, produces=Word, sections=sections)
    one, other = (Word(text="a", path=tmp_path / name) for name in ("one", "other"))
    changed = one.model_copy(update={"text": "b"})
    for word in (one, one.model_copy(), other, changed, one):
        stage.show(word)
    assert drawn == [one, other, changed]
    for number in range(MOST_SHOWN):
        stage.show(Word(text=str(number), path=tmp_path))
    stage.show(one)
    assert drawn[-1] == one and len(drawn) == 4 + MOST_SHOWN
