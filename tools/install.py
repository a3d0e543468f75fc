"""Install codetune into `.venv`, in the versions and with the hashes of requirements.txt. What it fetches besides has
its hashes in tools/.

Where there is no NVIDIA driver it takes the CPU build of torch: 0.2 GB to download, not 2.5 GB that become 5.7 GB on
disk. Needs nothing but Python. `make demo` and the others call it first.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SUPPORTED = ((3, 11), (3, 14))
"""The first version of Python that will do, and the first that will not."""
GPU_LIBRARIES = re.compile(r"(nvidia-(?!ml-py)|cuda-|triton)")
"""Names of what only the CUDA build of torch needs."""
HARNESS = "lm-eval"
COMPILED = "llama-cpp-python"
"""Comes as sources. It is built with what is installed by then: what pip would fetch for that has no hash."""
CPU_TORCH, UV = ROOT / "tools" / "torch-cpu.txt", ROOT / "tools" / "uv.txt"
CHECKED = ("--require-hashes", "--no-deps", "--requirement")
"""Takes a list that is complete: what is not in it has no hash."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dev", action="store_true", help="also what the tests need")
    parser.add_argument("--lowest", action="store_true", help="as --dev, in the lowest versions that will do")
    parser.add_argument("--into", type=Path, default=ROOT / ".venv", help="the environment (default: .venv)")
    arguments = parser.parse_args()
    if not SUPPORTED[0] <= sys.version_info[:2] < SUPPORTED[1]:
        print("codetune needs Python 3.11 to 3.13; name one: make demo PYTHON=python3.11", file=sys.stderr)
        return 2
    try:
        install(arguments.into, dev=arguments.dev or arguments.lowest, lowest=arguments.lowest)
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        print(f"\ncannot install: {command} ended with status {error.returncode}; the reason is above", file=sys.stderr)
        return 1
    return 0


def install(place: Path, *, dev: bool, lowest: bool = False) -> None:
    python = _environment(place)
    packages = locked(ROOT / ("requirements-dev.txt" if dev else "requirements.txt"))
    if lowest:
        packages = _lowest(python, packages)
    if not _has_driver() and _cpu_torch(python):
        packages = without_gpu(packages, dev=dev)
    _say(f"installing {len(packages)} packages into {place.name}")
    _install(python, [text for name, text in packages.items() if name != COMPILED])
    if COMPILED in packages:
        _say(f"compiling {COMPILED}, which takes some minutes")
        _install(python, [packages[COMPILED]], "--no-build-isolation")
    _pip(python, "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def _install(python: Path, requirements: list[str], *options: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(requirements))
        file.flush()
        _pip(python, *options, *CHECKED, file.name)


def _environment(place: Path) -> Path:
    """The Python of the environment, made if need be."""
    python = place / "bin" / "python"
    if not python.exists():
        _say(f"making {place.name}")
        if find_spec("ensurepip"):
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
        else:  # as in hosted notebooks
            _pip(Path(sys.executable), *CHECKED, str(UV))
            subprocess.run([sys.executable, "-m", "uv", "venv", "--quiet", "--seed", place], check=True)
    return python


def locked(file: Path) -> dict[str, str]:
    """The names of the packages with their requirements. Each goes over several lines, one for each hash, and there may
    be several for one name: for several versions of Python."""
    text = "\n".join(line for line in file.read_text().splitlines() if not line.startswith("#"))
    found: dict[str, list[str]] = {}
    for requirement in re.findall(r"^\S.*(?:\n[ \t]+.*)*", text, re.MULTILINE):
        found.setdefault(_name(requirement), []).append(requirement)
    return {name: "\n".join(requirements) for name, requirements in found.items()}


def _name(requirement: str) -> str:
    return re.split(r"[=<>~! \[]", requirement, maxsplit=1)[0].lower()


def kept_as_locked(project: dict[str, Any], packages: dict[str, str]) -> list[str]:
    """Requirements that `--lowest` takes from the lock all the same: the tests' tools, what builds the project, and
    torch, of whose lowest version most indexes have no CPU build."""
    tools = {_name(requirement) for requirement in project["optional-dependencies"]["dev"]}
    lines = [line for name in {*tools, "editables", "torch"} & packages.keys() for line in packages[name].splitlines()]
    return [line.removesuffix(" \\") for line in lines if line[0] != " "]


def _lowest(python: Path, packages: dict[str, str]) -> dict[str, str]:
    """The packages in the lowest versions that pyproject.toml takes; what those need is as new as can be."""
    import tomllib  # Python 3.11 has it; older ones are told so above

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory() as folder:
        build, kept, found = (Path(folder) / name for name in ("build.in", "kept.txt", "found.txt"))
        build.write_text("hatchling\neditables\n")
        kept.write_text("\n".join(kept_as_locked(project, packages)))
        _pip(python, "--target", str(Path(folder) / "uv"), *CHECKED, str(UV))
        compile_ = [Path(folder) / "uv" / "bin" / "uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct"]
        wanted = ["--extra", "dev", ROOT / "pyproject.toml", build, "--constraint", kept, "--python", python]
        subprocess.run([*compile_, *wanted, "--generate-hashes", "--no-annotate", "--output-file", found], check=True)
        # Of the harness the lock has the package alone, without what it needs.
        return {HARNESS: packages[HARNESS], **locked(found)}


def without_gpu(packages: dict[str, str], *, dev: bool) -> dict[str, str]:
    """What remains to be installed beside the CPU build of torch. The tests run kernels in Triton's interpreter."""
    kept = {"triton"} if dev else set()
    return {
        name: text
        for name, text in packages.items()
        if name in kept or not (name == "torch" or GPU_LIBRARIES.match(name))
    }


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _cpu_torch(python: Path) -> bool:
    """Install the CPU build. False where it cannot be had: the usual build runs without a GPU, too."""
    _say("no NVIDIA driver: installing the CPU build of torch (0.2 GB)")
    pip = (python, "-m", "pip", "install", "--quiet")
    if _try(*pip, *CHECKED, CPU_TORCH):
        return True
    # The usual index has no CPU builds; uv knows the one that does.
    with tempfile.TemporaryDirectory() as folder:
        uv = (Path(folder) / "bin" / "uv", "pip", "install", "--torch-backend", "cpu", "--python", python)
        if _try(*pip, "--target", folder, *CHECKED, UV) and _try(*uv, *CHECKED, CPU_TORCH):
            return True
    _say("the CPU build cannot be reached: taking the CUDA build of torch, a download of 2.5 GB and 5.7 GB on disk")
    return False


def _try(*command: str | Path) -> bool:
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def _pip(python: Path, *arguments: str) -> None:
    # On a terminal pip shows what it is at; elsewhere its two hundred lines help nobody.
    quiet = () if sys.stdout.isatty() else ("--quiet",)
    subprocess.run([python, "-m", "pip", "install", "--disable-pip-version-check", *quiet, *arguments], check=True)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
