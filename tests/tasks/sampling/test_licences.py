"""Licences as SPDX expressions: from texts, tags, manifests and data sets, and what the allow-list makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.sampling.licence_ids import canonical, is_allowed, is_spdx, spdx_list
from tasks.sampling.licence_texts import recognize
from tasks.sampling.licences import Licences

TEXTS = spdx_list().texts
FILLED = (("<year>", "1999-2026"), ("<copyright holders>", "Ann Example, Inc."), ("<owner>", "Ann Example"))
OFFICIAL = """
0BSD AGPL-3.0-only Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSD-4-Clause BSL-1.0 CC-BY-4.0 CC-BY-SA-4.0
CC0-1.0 CDDL-1.0 EPL-1.0 EPL-2.0 EUPL-1.2 GPL-1.0-only GPL-2.0-only GPL-3.0-only ISC LGPL-2.0-only LGPL-2.1-only
LGPL-3.0-only MIT MIT-0 MPL-1.1 MPL-2.0 MS-PL NCSA OFL-1.1 OSL-3.0 PSF-2.0 PostgreSQL Python-2.0 Unlicense WTFPL X11
Zlib
""".split()  # noqa: SIM905 - a list of names is read as one


def text_of(name: str) -> str:
    text = TEXTS[name]
    for placeholder, value in FILLED:
        text = text.replace(placeholder, value)
    return text


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_full_text_is_that_licence_and_no_other(name: str) -> None:
    assert recognize(text_of(name)) == (name,)
    wrapped = "\n".join(f" * {line}" for line in text_of(name).upper().splitlines())
    assert recognize(f"/*\n{wrapped}\n */") == (name,)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("GPL-3.0-only", "GPL-3"),
        ("GPL-2.0-only", "GPL-2"),
        ("LGPL-2.0-only", "LGPL-2"),
        ("LGPL-2.1-only", "LGPL-2.1"),
        ("LGPL-3.0-only", "LGPL-3"),
        ("MPL-2.0", "MPL-2.0"),
        ("Apache-2.0", "Apache-2.0"),
    ],
)
def test_texts_as_distributions_have_them(name: str, file: str) -> None:
    path = Path("/usr/share/common-licenses", file)
    if not path.exists():
        pytest.skip("only Debian and its like have the licences as files")
    assert recognize(path.read_text()) == (name,)


NOTE = """

This package bundles `six`, which is under the Python Software Foundation License, and code under the Apache License,
Version 2.0."""
SEVERAL: dict[str, tuple[dict[str, str], str]] = {
    "a note on bundled code": ({"LICENSE": text_of("MIT") + NOTE}, "MIT"),
    "two in one file": ({"LICENSE": text_of("MIT") + "\n\n" + text_of("Apache-2.0")}, "Apache-2.0 AND MIT"),
    "GPL and its lesser addition": (
        {"COPYING": text_of("GPL-3.0-only"), "COPYING.LESSER": text_of("LGPL-3.0-only")},
        "LGPL-3.0-only",
    ),
    "two files": ({"LICENSE-MIT": text_of("MIT"), "LICENSE-APACHE": text_of("Apache-2.0")}, "Apache-2.0 AND MIT"),
    "a choice": (
        {
            "LICENSE-MIT": text_of("MIT"),
            "LICENSE-APACHE": text_of("Apache-2.0"),
            "LICENSE": "Licensed under either of LICENSE-MIT or LICENSE-APACHE at your option.",
        },
        "Apache-2.0 OR MIT",
    ),
    "a choice in the manifest": (
        {
            "LICENSE-MIT": text_of("MIT"),
            "LICENSE-APACHE": text_of("Apache-2.0"),
            "Cargo.toml": '[package]\nname = "a"\nlicense = "MIT/Apache-2.0"\n',
        },
        "MIT OR Apache-2.0",
    ),
    "or later, by the manifest": (
        {"COPYING": text_of("GPL-3.0-only"), "pyproject.toml": '[project]\nlicense = "GPL-3.0-or-later"\n'},
        "GPL-3.0-or-later",
    ),
    "a manifest that says otherwise": (
        {"LICENSE": text_of("MIT"), "package.json": json.dumps({"license": "ISC"})},
        "ISC AND MIT",
    ),
    "an older manifest": ({"package.json": json.dumps({"licenses": [{"type": "MIT"}, {"type": "ISC"}]})}, "ISC OR MIT"),
    "markdown": ({"LICENCE.md": "# Licence\n\n" + text_of("ISC")}, "ISC"),
    "restructured text": ({"license.rst": text_of("Zlib")}, "Zlib"),
    "its own name": ({"UNLICENSE": text_of("Unlicense")}, "Unlicense"),
    "MIT-LICENSE": ({"MIT-LICENSE.txt": text_of("MIT")}, "MIT"),
    "a tag in place of the text": ({"LICENSE": "SPDX-License-Identifier: MIT OR Apache-2.0\n"}, "MIT OR Apache-2.0"),
    "a notice in place of the text": (
        {"LICENSE": "This Source Code Form is subject to the terms of the Mozilla Public License, v. 2.0."},
        "MPL-2.0",
    ),
    "an exception": (
        {"LICENSE": text_of("Apache-2.0") + "\n---- LLVM Exceptions to the Apache 2.0 License ----\n"},
        "Apache-2.0 WITH LLVM-exception",
    ),
    "a condition that takes rights away": (
        {"LICENSE": "“Commons Clause” License Condition v1.0\n\n" + text_of("Apache-2.0")},
        "Apache-2.0 AND LicenseRef-scancode-commons-clause",
    ),
    "a permission that was narrowed": (
        {"LICENSE": text_of("MIT").replace("free of charge", "free of charge and for non-commercial purposes")},
        "unknown",
    ),
    "REUSE": ({"LICENSES/MIT.txt": text_of("MIT"), "LICENSES/CC0-1.0.txt": "…"}, "CC0-1.0 AND MIT"),
    "REUSE.toml": (
        {"REUSE.toml": 'version = 1\n[[annotations]]\npath = "src/**"\nSPDX-License-Identifier = "EPL-2.0"\n'},
        "EPL-2.0",
    ),
    "own words": ({"LICENSE": "You may look at it on Sundays. " * 80}, "unknown"),
    "a licence and own words": (
        {"LICENSE": text_of("MIT"), "LICENSE.docs": "You may look at it on Sundays. " * 80},
        "MIT AND unknown",
    ),
    "others' licences": ({"LICENSE": text_of("MIT"), "LICENSE-3rdparty.txt": text_of("GPL-3.0-only")}, "MIT"),
    "code about licences": ({"licenses.py": '"""' + text_of("GPL-3.0-only") + '"""'}, "unknown"),
    "nothing": ({}, "unknown"),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_what_a_folder_says(case: str, tmp_path: Path) -> None:
    files, licence = SEVERAL[case]
    for name, text in {**files, "src/deep/a.py": "x = 1\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert Licences().of(tmp_path / "src/deep/a.py", tmp_path) == licence


GNU = "it under the terms of the GNU {}General Public License as published by the Free Software Foundation"


@pytest.mark.parametrize(
    ("notice", "licence"),
    [
        (
            GNU.format("") + "; either version 2 of the License, or (at your option) any later version.",
            "GPL-2.0-or-later",
        ),
        (GNU.format("") + ", version 3.", "GPL-3.0-only"),
        (GNU.format("Lesser ") + "; version 2.1 of the License", "LGPL-2.1-only"),
        (GNU.format("Library ") + "; either version 2 of the License, or any later version", "LGPL-2.0-or-later"),
        ("GNU Affero General Public License version 3.0 or any later version", "AGPL-3.0-or-later"),
        ("GNU General Public License version 1", "GPL-1.0-only"),
        ('Licensed under the Apache License, Version 2.0 (the "License")', "Apache-2.0"),
        ("subject to the terms of the Mozilla Public License, 2.0", "MPL-2.0"),
    ],
)
def test_a_notice_in_the_words_that_a_licence_asks_for(notice: str, licence: str) -> None:
    assert recognize(f"You can redistribute\n{notice}") == (licence,)
    two = f"GNU General Public License version 3\n{notice}"
    assert recognize(two) == tuple(sorted({"GPL-3.0-only", licence}))


def test_a_licence_whose_words_lie_far_apart_is_none() -> None:
    words = text_of("MIT").split()
    quarters = [" ".join(words[start : start + 45]) for start in range(0, len(words), 45)]
    prose = " ".join(f"word{n}" for n in range(300))
    assert recognize(" ".join(quarters)) == ("MIT",)
    assert recognize(f" {prose} ".join(quarters)) == ()


@pytest.mark.parametrize("name", ["MIT", "LicenseRef-Ours", "DocumentRef-theirs:LicenseRef-Ours", "MIT OR ISC"])
def test_names_of_the_list_and_references_are_of_spdx(name: str) -> None:
    assert is_spdx(name) and not is_spdx(f"{name} AND our-own")


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("# SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note\n", "GPL-2.0-only WITH Linux-syscall-note"),
        ("/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */\n", "GPL-2.0-only OR MIT"),
        ("<!-- SPDX-License-Identifier: apache-2.0 -->\n", "Apache-2.0"),
        ("# SPDX-License-Identifier: MIT\r\n# SPDX-License-Identifier: ISC\r\n", "ISC AND MIT"),
        ("# SPDX-License-Identifier: LicenseRef-Ours\n", "LicenseRef-Ours"),
        ('TAG = "SPDX-License-Identifier: " + name\n', "MIT"),
        ("x = 1\n", "MIT"),
    ],
)
def test_a_files_own_tag_goes_before_the_folders_licence(head: str, licence: str, tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text(text_of("MIT"))
    (tmp_path / "a.py").write_text("#!/usr/bin/python\n" + head)
    assert Licences().of(tmp_path / "a.py", tmp_path) == licence


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        ("bsd-2-clause", "BSD-2-Clause"),
        ("gpl-3.0", "GPL-3.0-only"),
        ("GPLv3+", "GPL-3.0-or-later"),
        ("lgpl-2.1", "LGPL-2.1-only"),
        ("cc0-1.0", "CC0-1.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("The MIT License", "MIT"),
        ("mit and isc", "MIT AND ISC"),
        ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
        ("our-own", "our-own"),
        ("see the file LICENSE", "unknown"),
        ("MIT AND", "unknown"),
        ("(" * 400, "unknown"),
        ("MIT " * 10_000, "unknown"),
    ],
)
def test_what_others_call_a_licence(said: str, licence: str) -> None:
    assert canonical(said) == licence


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-2.0-only OR MIT", True),
        ("GPL-2.0-only AND MIT", False),
        ("MIT AND (GPL-2.0-only OR Apache-2.0)", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("LGPL-2.1-only", True),
        ("LGPL-2.1-or-later", True),
        ("LGPL-2.0-or-later", True),
        ("LGPL-2.0-only", False),
        ("LGPL-3.0-only", False),
        ("EPL-2.0", True),
        ("MPL-2.0 AND unknown", False),
        ("unknown", False),
        ("MIT AND LicenseRef-scancode-commons-clause", False),
    ],
)
def test_the_allow_list_judges_expressions(expression: str, allowed: bool) -> None:
    names = frozenset(map(canonical, ("mit", "apache-2.0", "lgpl-2.1", "mpl-2.0", "EPL-1.0+")))
    assert is_allowed(expression, names) is allowed
