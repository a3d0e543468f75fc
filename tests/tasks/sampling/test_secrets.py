"""Secrets are replaced before anything is kept: no file, record or log has them."""

from __future__ import annotations

import ast
import logging
import random
import string
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from artifacts.errors import InputError
from artifacts.presentation import to_markdown
from artifacts.redaction import redact
from flows.config import build
from tasks.sampling import STAGE
from tasks.sampling.pool import Pool
from tasks.sampling.secrets import PLACEHOLDER, cleaned
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import PROGRAM, Threads, bytes_of, dropped, everything, write_jsonl

RANDOM = random.Random(0)


def program(name: str) -> str:
    """Python like no other."""
    lines = PROGRAM.format(name).replace("double", f"f{random.Random(name).randbytes(4).hex()}")
    return lines * 8


def made(length: int, characters: str = string.ascii_letters + string.digits) -> str:
    """A secret: none of anybody's."""
    return "a1" + "".join(RANDOM.choices(characters, k=length - 2))


def private_key(line_end: str) -> str:
    lines = [made(64) for _ in range(4)] + [made(12) + "=="]
    return line_end.join([f"-----BEGIN {'RSA'} PRIVATE KEY-----", *lines, f"-----END {'RSA'} PRIVATE KEY-----"])


GITHUB, PASSWORD, KEY, LINED = "ghp_" + made(36), made(10), private_key("\n"), private_key("\\n")
CASES = {
    "GitHub token": (f'TOKEN = "{GITHUB}"', GITHUB),
    "AWS key": (f"key = '{'AKIA' + made(16, string.ascii_uppercase).upper()}'", "AKIA"),
    "private key": (f'KEY = """{KEY}"""', KEY.splitlines()[1]),
    "private key, line ends written": (f'KEY = ("{LINED}\\n" + "x")', KEY.splitlines()[1]),
    "secret by its name": (f'connect(user="me", db_password="{PASSWORD}")', PASSWORD),
    "secret by its name, in a dictionary": (f"{{'api_key': b'{PASSWORD}'}}", PASSWORD),
    "secret by its name, in a comment": (f"x = 1  # password: {PASSWORD}", PASSWORD),
    "password in an address": (f'URL = "postgres://me:{PASSWORD}@db.example.org/x"', PASSWORD),
    "bearer token": (f'headers = {{"X": "Bearer {made(30)}"}}', "Bearer a1"),
}
HARMLESS = [
    "password = getpass.getpass()",
    'schema = {"password": "string", "token": "tokens", "secret": "Your secret"}',
    "connect(password=settings.password_2, key=keys[0])",
    "RC4_KEY = rc4_key_st",
    'if "-----BEGIN PRIVATE KEY-----" in text: pass',
    f'digest = "{made(64, "0123456789abcdef")}"',
    'names = ["api_key", "x509_name1", "secret", "sha256sum"]',
    "git clone https://github.com/me/it.git",
]


@pytest.mark.parametrize("name", CASES)
def test_each_kind_is_replaced_and_code_stays_code(name: str) -> None:
    line, secret = CASES[name]
    text = f"import this\n{program(name)}{line}\nlast = 2\n"
    found = cleaned(text)
    assert found.kinds == (name.partition(",")[0],) and secret not in found.text and PLACEHOLDER in found.text
    assert found.text.startswith(f"import this\n{program(name)}") and found.text.endswith("\nlast = 2\n")
    assert not found.mostly and found.text.count("\n") == text.count("\n")
    if name != "private key, line ends written":
        assert secret in text
    ast.parse(found.text)


@pytest.mark.parametrize("line", HARMLESS)
def test_what_only_speaks_of_secrets_stays(line: str) -> None:
    assert cleaned(line) == (line, (), False)


def test_a_standard_library_stays_as_it_is_but_for_a_few_examples() -> None:
    files = sorted((Path(sysconfig.get_paths()["stdlib"])).glob("*.py"))
    found = [cleaned(path.read_text()) for path in files]
    assert len(files) > 100 and sum(bool(one.kinds) for one in found) <= 2
    for one in found:
        ast.parse(one.text)


def rows() -> list[dict[str, Any]]:
    texts = [program(str(number)) for number in range(20)]
    texts += [f"{program(name)}{line}\n" for name, (line, _) in CASES.items()]
    texts += [f'TOKEN = "{GITHUB}"\n', f"# {PASSWORD}\npassword = '{PASSWORD + made(20)}'\n"]
    return [{"content": text, "repo": f"r{n % 6}", "path": f"p{n}.py"} for n, text in enumerate(texts)]


def source(path: Path) -> dict[str, Any]:
    return {"kind": "table", "paths": [write_jsonl(path, rows())], "columns": {"repo": "repo", "path": "path"}}


SECRETS = [GITHUB, PASSWORD, *KEY.splitlines()[1:-1], *LINED.split("\\n")[1:-1]]


def test_no_file_record_or_log_has_one(tmp_path: Path, sample: Sample, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pools = []

    def looked_into(pool: Pool) -> dict[str, int]:
        pools.append(pool._file.read_bytes())
        return repositories(pool)

    repositories = Pool.repositories
    with patch.object(Pool, "repositories", looked_into):
        result = sample(source=source(tmp_path / "t.jsonl"), secrets="replace", held_out=0.3)
    shown = "\n".join(to_markdown(block) for section in STAGE.show(result) for block in section.blocks)
    texts = [row["content"] for row in everything(result)]
    places = [*texts, shown, result.model_dump_json(), caplog.text, *(pool.decode("latin-1") for pool in pools)]
    assert pools and not [secret for secret in SECRETS for place in places if secret in place]
    assert result.secrets == Counter(name.partition(",")[0] for name in CASES)
    assert "secret by its name | 3" in shown and "private key | 2" in shown
    assert dropped(result, "secrets") == {"a secret and little else": 2} and len(texts) == 20 + len(CASES)


def test_files_with_any_are_dropped_by_kind(tmp_path: Path, sample: Sample) -> None:
    result = sample(source=source(tmp_path / "t.jsonl"), secrets="drop", held_out=0.3)
    assert dropped(result, "secrets")["secret by its name"] == 4 and dropped(result, "secrets")["private key"] == 2
    assert len(everything(result)) == 20 and result.secrets == {}


def test_where_all_is_secrets_the_setting_is_named_and_they_are_not(tmp_path: Path, sample: Sample) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "token.py").write_text(f"{GITHUB}\n")
    with pytest.raises(InputError) as refused:
        sample(source={"kind": "local", "paths": [str(tmp_path / "code")]}, secrets="replace")
    assert "`secrets`" in str(refused.value.remedy) and "a secret and little else 1" in refused.value.problem
    assert GITHUB not in str(refused.value)


def test_kept_they_stay_and_nothing_is_said(tmp_path: Path, sample: Sample) -> None:
    result = sample(source=source(tmp_path / "t.jsonl"), held_out=0.3)
    assert any(GITHUB in row["content"] for row in everything(result)) and result.secrets == {}
    assert "secrets" not in [step.name for step in result.funnel]


def test_same_bytes_from_several_workers(tmp_path: Path, sample: Sample) -> None:
    given = source(tmp_path / "t.jsonl")
    one, several = (sample(mapper, source=given, secrets="replace") for mapper in (Threads(1), Threads(4)))
    assert bytes_of(one) == bytes_of(several) and one.secrets == several.secrets


def test_files_that_differ_in_a_secret_alone_are_one(tmp_path: Path, sample: Sample) -> None:
    texts = [program("same") + f'password = "{made(12)}"\n' for _ in range(5)] + [program(str(n)) for n in range(5)]
    records = [{"content": text, "repo": f"r{n}", "path": f"p{n}.py"} for n, text in enumerate(texts)]
    given = {"kind": "table", "paths": [write_jsonl(tmp_path / "t.jsonl", records)], "columns": {"repo": "repo"}}
    result = sample(source={**given, "language": "Python"}, secrets="replace")
    assert dropped(result, "duplicates") == {"exact duplicate": 4} and result.secrets == {"secret by its name": 1}


def test_the_setting_is_taken_for_no_secret() -> None:
    assert build("demo", ["sampling.secrets=replace"]).sampling.secrets == "replace"


def test_the_setting_is_said_in_clear_and_a_password_that_begins_like_it_is_not() -> None:
    for text in ("sampling.secrets=replace", "{'secrets': 'drop'}", "secrets: keep"):
        assert redact(text) == text
    assert "drop2" not in redact("password=drop2day") and "replaced" not in redact("password='replaced-by-me'")
