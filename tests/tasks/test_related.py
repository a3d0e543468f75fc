"""Which files are related: those that a file imports, then its neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.related import MOST, Repositories, imports


def row(repo: str, path: str, language: str, content: str = "x\n") -> dict[str, Any]:
    return {"repo": repo, "path": path, "language": language, "content": content}


PYTHON = """\
import os
from pkg.sub.b import (f, g)
from . import c
from .d import h  # a comment
import pkg.sub.e as q, json
from ..lib.z import *
"""
FILES = [
    row("py", "src/pkg/__init__.py", "Python"),
    row("py", "src/pkg/a.py", "Python", PYTHON),
    row("py", "src/pkg/c.py", "Python"),
    row("py", "src/pkg/d.py", "Python"),
    row("py", "src/pkg/sub/__init__.py", "Python"),
    row("py", "src/pkg/sub/b.py", "Python"),
    row("py", "src/pkg/sub/e.py", "Python"),
    row("py", "src/lib/z.py", "Python"),
    row("py", "tools/os.py", "Python"),
    row("other", "src/pkg/c.py", "Python"),
    row("ts", "a/x.ts", "TypeScript", "import {q} from './z';\nconst w = require('../b/index');\nimport 'react'\n"),
    row("ts", "a/y.ts", "TypeScript"),
    row("ts", "a/z.ts", "TypeScript"),
    row("ts", "b/index.ts", "TypeScript"),
    row("go", "cmd/main.go", "GO", 'import (\n\t"fmt"\n\tx "github.com/me/proj/pkg/util"\n)\n'),
    row("go", "pkg/util/u.go", "GO"),
    row("c", "src/a.c", "C", '#include "../inc/a.h"\n#include "b.h"\n#include <stdio.h>\n'),
    row("c", "inc/a.h", "C"),
    row("c", "src/b.h", "C"),
    row("java", "src/com/x/A.java", "Java", "import com.x.util.B;\nimport static com.y.C.f;\n"),
    row("java", "src/com/x/util/B.java", "Java"),
    row("java", "src/com/y/C.java", "Java"),
    row("rust", "src/main.rs", "Rust", "mod util;\nuse crate::net::tcp::Conn;\n"),
    row("rust", "src/util/mod.rs", "Rust"),
    row("rust", "src/net/tcp.rs", "Rust"),
    row("ruby", "lib/a.rb", "Ruby", "require_relative 'b/c'\nrequire 'd/e'\nrequire 'json'\n"),
    row("ruby", "lib/b/c.rb", "Ruby"),
    row("ruby", "lib/d/e.rb", "Ruby"),
]
RELATED = {
    "src/pkg/a.py": "src/pkg/sub/b.py src/pkg/c.py src/pkg/d.py src/pkg/sub/e.py src/lib/z.py src/pkg/__init__.py",
    "a/x.ts": "a/z.ts b/index.ts a/y.ts",
    "cmd/main.go": "pkg/util/u.go",
    "src/a.c": "inc/a.h src/b.h",
    "src/com/x/A.java": "src/com/x/util/B.java src/com/y/C.java",
    "src/main.rs": "src/util/mod.rs src/net/tcp.rs",
    "lib/a.rb": "lib/b/c.rb lib/d/e.rb",
}


@pytest.mark.parametrize("path", RELATED)
def test_imports_come_first_and_then_neighbours(path: str, tmp_path: Path) -> None:
    with Repositories(FILES, tmp_path, 100) as repositories:
        asked = next(one for one in FILES if one["path"] == path)
        assert [file.path for file in repositories.related(asked)] == RELATED[path].split()
    assert list(tmp_path.iterdir()) == []


def test_another_repository_and_the_file_itself_are_never_related(tmp_path: Path) -> None:
    with Repositories(FILES, tmp_path, 100) as repositories:
        assert repositories.related(row("other", "src/pkg/c.py", "Python", "from . import c\n")) == []
        assert repositories.related(row("nowhere", "src/pkg/q.py", "Python", "from . import c\n")) == []


def test_there_are_few_and_only_their_beginnings(tmp_path: Path) -> None:
    many = [row("r", f"f/{number:04}.py", "Python", "0123456789") for number in range(1000)]
    with Repositories(many, tmp_path, 4) as repositories:
        found = repositories.related(many[500])
    assert [file.path[2:6] for file in found] == ["0501", "0499", "0502", "0498", "0503", "0497", "0504", "0496"]
    assert len(found) == MOST and {file.text for file in found} == {"0123"}


def test_the_nearest_of_several_with_one_name_is_meant(tmp_path: Path) -> None:
    files = [row("r", f"{top}/pkg/util.py", "Python") for top in ("a", "b", "c")]
    asked = row("r", "b/pkg/deep/x.py", "Python", "from pkg.util import f\n")
    with Repositories(files, tmp_path, 10) as repositories:
        assert [file.path for file in repositories.related(asked)] == ["b/pkg/util.py"]


@pytest.mark.parametrize(
    ("language", "content"),
    [
        ("Python", "from ......... import x\nimport\nfrom import\nimport .\nfrom . import (\n"),
        ("JavaScript", "from '../../../../..'\nrequire('.')\nrequire('')\n"),
        ("C", '#include "../../../x.h"\n#include ""\n#include "/"\n'),
        ("Rust", "use crate;\nuse self::super::x;\n"),
        ("GO", '"/"\n"//"\n'),
        ("Java", "import .;\nimport ....;\n"),
        ("Lua", "require 'x'\n"),
    ],
)
def test_odd_imports_do_no_harm(language: str, content: str, tmp_path: Path) -> None:
    with Repositories(FILES, tmp_path, 10) as repositories:
        repositories.related(row("py", "a/b.x", language, content * 3))
        repositories.related(row("py", "x", language, content))
    assert all(target.parts for choices in imports(language, "a/b.x", content) for target in choices)


def test_many_imports_are_looked_at_in_part() -> None:
    content = "".join(f"import a{number}.b\n" for number in range(500))
    assert len(imports("Python", "x.py", content)) == 64
