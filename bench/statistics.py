"""How often intervals that say 95 % hold the truth, and how often the gate says yes when it should not.

    python -m bench.statistics [--studies 3000] [--out bench/results/statistics.json] [--again kept]
    python -m bench.statistics --show      # the tables of docs/statistics.md, from the results

Studies are made up with a known true difference, and each is judged as an evaluation would be. Repositories differ in
size (log-normal, 1 to 60 items) or not, and items of one repository are alike (`icc`, the intraclass correlation).
Standard errors of the shares: 0.4 points with 3,000 studies at 95 %, 0.3 points at 2.5 %. Rows that the results have
are not simulated again unless `--again` names their table.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from artifacts.intervals import verdict
from tasks.statistics import Difference, contrast, paired, paired_difference
from tasks.statistics.student import student_quantile

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
DRAWS = 2000
FEWER = 4
"""The methods that are only compared get this fraction of the studies."""
FEWEST_DIFFERING = 5
"""Four clusters that differ all agree in one of eight cases without any difference: of no use at 5 %."""


@dataclass(frozen=True)
class Design:
    """What is studied."""

    kind: str
    """`loss`: nats per token, more being better here, cluster effects normal, `heavy` (t with 3 degrees), `skewed`
    (exponential, a few much better), `skewed down` or `log-normal` (σ = 1; a few much worse, both). `outcome`: 0 or 1.
    """
    clusters: int
    sizes: str
    """`one` item per cluster, `equal` (8), `unequal`."""
    effects: str = "normal"
    differing: float = 0.0
    """Outcomes: the share of items on which the models differ."""
    icc: float = 0.3


@dataclass(frozen=True)
class Study:
    base: Floats
    tuned: Floats
    clusters: npt.NDArray[np.int64]
    weights: Floats


def draw(design: Design, effect: float, rng: np.random.Generator) -> Study:
    """One study whose true difference is `effect`."""
    count = design.clusters
    sizes = {
        "one": lambda: np.ones(count, int),
        "equal": lambda: np.full(count, 8),
        "unequal": lambda: np.clip(rng.lognormal(1.5, 1.0, count).astype(int), 1, 60),
    }[design.sizes]()
    clusters = np.repeat(np.arange(count), sizes)
    return (_losses if design.kind == "loss" else _outcomes)(design, clusters, effect, rng)


def _losses(design: Design, clusters: npt.NDArray[np.int64], effect: float, rng: np.random.Generator) -> Study:
    shapes: dict[str, Callable[[int], Floats]] = {
        "normal": lambda n: rng.standard_normal(n),
        "heavy": lambda n: rng.standard_t(3, n) / math.sqrt(3),
        "skewed": lambda n: rng.exponential(size=n) - 1,
        "skewed down": lambda n: 1 - rng.exponential(size=n),
        "log-normal": lambda n: (math.sqrt(math.e) - rng.lognormal(size=n)) / math.sqrt(math.e * (math.e - 1)),
    }
    common = shapes[design.effects](design.clusters)[clusters]
    own = rng.standard_normal(len(clusters))
    change = effect + 0.03 * (math.sqrt(design.icc) * common + math.sqrt(1 - design.icc) * own)
    base = rng.normal(2, 0.4, design.clusters)[clusters] + rng.normal(0, 0.3, len(clusters))
    return Study(base, base + change, clusters, rng.integers(50, 300, len(clusters)).astype(float))


def _outcomes(design: Design, clusters: npt.NDArray[np.int64], effect: float, rng: np.random.Generator) -> Study:
    count, differing = design.clusters, design.differing
    gaining = (1 + effect / differing) / 2
    if design.sizes == "one":
        rates, ups = np.full(count, differing), np.full(count, gaining)
    else:
        room = (1 - design.icc) / design.icc
        rates = rng.beta(differing * room, (1 - differing) * room, count)
        ups = rng.beta(8 * gaining, 8 * (1 - gaining), count) if 0 < gaining < 1 else np.full(count, gaining)
    differs = rng.random(len(clusters)) < rates[clusters]
    up = rng.random(len(clusters)) < ups[clusters]
    passed = rng.random(len(clusters)) < rng.beta(1, 2, count)[clusters]
    base = np.where(differs, ~up, passed).astype(float)
    return Study(base, np.where(differs, 1 - base, base), clusters, np.ones(len(clusters)))


# --- intervals --------------------------------------------------------------------------------------------------


def _halves(sums: Floats, seed: int, draws: int) -> list[Floats]:
    """As `paired._subsets`, eight bits at a time: here drawing them is most of the work."""
    count = sums.shape[1]
    if count <= paired.ALL_SUBSETS_UP_TO:
        return _subsets(sums, seed, draws)
    drawn = np.random.default_rng(seed).integers(0, 256, (draws, -(-count // 8)), dtype=np.uint8)
    chosen = sums @ np.unpackbits(drawn, axis=1, count=count).T.astype(float)
    return [chosen[:, chosen[1] > 0]]


_subsets, paired._subsets = paired._subsets, _halves


def compared(study: Study, seed: int) -> Difference:
    names = study.clusters.astype(str).tolist()
    return paired_difference(
        study.base.tolist(), study.tuned.tolist(), names, weights=study.weights.tolist(), seed=seed, draws=DRAWS
    )


def ours(study: Study, seed: int) -> Interval:
    found = compared(study, seed)
    assert found.low is not None and found.high is not None
    return found.low, found.high


def _sums(study: Study) -> tuple[Floats, Floats]:
    change = (study.tuned - study.base) * study.weights
    return np.bincount(study.clusters, change), np.bincount(study.clusters, study.weights)


def percentile(study: Study, seed: int) -> Interval:
    """The usual cluster bootstrap."""
    change, weight = _sums(study)
    chosen = np.random.default_rng(seed).multinomial(len(weight), np.full(len(weight), 1 / len(weight)), DRAWS)
    low, high = np.quantile(chosen @ change / (chosen @ weight), [0.025, 0.975])
    return float(low), float(high)


def bootstrap_t(study: Study, seed: int) -> Interval:
    """The cluster bootstrap of the studentized difference."""
    change, weight = _sums(study)
    count, middle = len(weight), change.sum() / weight.sum()
    chosen = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), DRAWS)
    total = chosen @ weight
    means = chosen @ change / total
    squares = chosen @ change**2 - 2 * means * (chosen @ (change * weight)) + means**2 * (chosen @ weight**2)
    errors = np.sqrt(np.maximum(squares, 0) * count / (count - 1)) / total
    if not (errors > 0).any():
        return float(middle), float(middle)
    low, high = np.quantile((means - middle)[errors > 0] / errors[errors > 0], [0.025, 0.975])
    error = math.sqrt(count / (count - 1) * float(((change - middle * weight) ** 2).sum())) / weight.sum()
    return float(middle - high * error), float(middle - low * error)


def cluster_t(study: Study, seed: int) -> Interval:
    """Student's t with the jackknife's error over clusters (CR3)."""
    del seed
    change, weight = _sums(study)
    count, middle = len(weight), change.sum() / weight.sum()
    left_out = (change.sum() - change) / (weight.sum() - weight)
    error = math.sqrt((count - 1) / count * float(((left_out - middle) ** 2).sum()))
    room = student_quantile(0.975, count - 1) * error
    return float(middle - room), float(middle + room)


METHODS = {"ours": ours, "percentile": percentile, "bootstrap-t": bootstrap_t, "cluster-t": cluster_t}


# --- what is asked ----------------------------------------------------------------------------------------------


def coverage(design: Design, studies: int) -> dict[str, Any]:
    """The share of intervals that hold zero when there is no difference."""
    row: dict[str, Any] = asdict(design)
    for name, method in METHODS.items():
        rng = np.random.default_rng(1)
        count = studies if name == "ours" else studies // FEWER
        intervals = np.array([method(draw(design, 0.0, rng), seed) for seed in range(count)])
        row[name] = round(float(np.mean((intervals[:, 0] <= 1e-12) & (intervals[:, 1] >= -1e-12))), 4)
        row[f"{name} width"] = round(float(np.median(intervals[:, 1] - intervals[:, 0])), 5)
    return row


def enough(design: Design, studies: int) -> dict[str, Any]:
    """Of studies without a difference those in which `FEWEST_DIFFERING` clusters or more differ in sum, until there are
    `studies` of them: with fewer, the interval always holds zero. Shares of less than a third as many are left out."""
    rng = np.random.default_rng(1)
    held: list[bool] = []
    drawn = 0
    while len(held) < studies and drawn < 20 * studies:
        study = draw(design, 0.0, rng)
        if np.count_nonzero(_sums(study)[0]) >= FEWEST_DIFFERING:
            low, high = ours(study, drawn)
            held.append(low <= 1e-12 and high >= -1e-12)
        drawn += 1
    covered = round(float(np.mean(held)), 4) if 3 * len(held) >= studies else None
    return {**asdict(design), "enough": round(len(held) / drawn, 4), "covered": covered, "studies": len(held)}


def kept(design: Design, margin: float, studies: int) -> dict[str, Any]:
    """How often “kept” (or “learned”) is said when the tuned model is worse by exactly the margin, and when it is
    neither better nor worse."""
    rng = np.random.default_rng(2)
    shares = {}
    for name, effect in (("worse by the margin", -margin), ("no difference", 0.0)):
        found = [compared(draw(design, effect, rng), seed) for seed in range(studies)]
        for bounded in (True, False):
            said = [
                verdict(one.low, one.high, better="higher", margin=margin, bound=one.bound if bounded else None)
                for one in found
            ]
            share = round(sum(one in ("non-inferior", "improved") for one in said) / studies, 4)
            shares[name if bounded else f"{name}, by the interval"] = share
    return {**asdict(design), "margin": margin, **shares, "studies": studies}


def power(design: Design, studies: int) -> dict[str, Any]:
    """How often a difference as large as the minimum detectable effect is shown."""
    rng = np.random.default_rng(3)
    sizes = []
    for seed in range(400):
        sizes.append(compared(draw(design, 0.0, rng), seed).minimum_detectable_effect or 0.0)
    smallest = float(np.mean(sizes))
    shown = [ours(draw(design, smallest, rng), seed)[0] > 0 for seed in range(studies)]
    return {**asdict(design), "smallest": round(smallest, 5), "shown": round(float(np.mean(shown)), 4)}


# --- the difference of two differences


def mover(here: Study, elsewhere: Study, seed: int) -> Interval:
    found = contrast(compared(here, seed), compared(elsewhere, seed + 1))
    assert found.low is not None and found.high is not None
    return found.low, found.high


def together(here: Study, elsewhere: Study, seed: int) -> Interval:
    """The quantiles of the differences of random halves of both samples."""
    rng = np.random.default_rng(seed)
    drawn = [_halves(np.array(_sums(study)), seed + n, DRAWS)[0] for n, study in enumerate((here, elsewhere))]
    ratios = [rng.choice(part[0] / part[1], 2 * DRAWS) for part in drawn]
    low, high = np.quantile(ratios[0] - ratios[1], [0.025, 0.975])
    return float(low), float(high)


def welch(here: Study, elsewhere: Study, seed: int) -> Interval:
    """Welch's t with the jackknife's errors over clusters."""
    del seed
    means, variances, freedoms = [], [], []
    for study in (here, elsewhere):
        change, weight = _sums(study)
        count = len(weight)
        left_out = (change.sum() - change) / (weight.sum() - weight)
        means.append(change.sum() / weight.sum())
        variances.append((count - 1) / count * float(((left_out - means[-1]) ** 2).sum()))
        freedoms.append(count - 1)
    total = sum(variances)
    freedom = total**2 / sum(one**2 / nu for one, nu in zip(variances, freedoms, strict=True))
    room = student_quantile(0.975, max(1, int(freedom))) * math.sqrt(total)
    return float(means[0] - means[1] - room), float(means[0] - means[1] + room)


CONTRASTS = {"ours": mover, "together": together, "welch": welch}


def specific(here: Design, elsewhere: Design, scale: float, studies: int) -> dict[str, Any]:
    """The share of intervals that hold zero when held-out code gained as much as code from elsewhere, and how often the
    gain is called specific then. `scale`: how much changes elsewhere vary, against those here."""
    rng = np.random.default_rng(4)
    found: dict[str, list[Interval]] = {name: [] for name in CONTRASTS}
    for seed in range(studies):
        one, other = draw(here, 0.0, rng), draw(elsewhere, 0.0, rng)
        other = replace(other, tuned=other.base + scale * (other.tuned - other.base))
        for name, method in CONTRASTS.items():
            found[name].append(method(one, other, 2 * seed))
    row: dict[str, Any] = {"here": asdict(here), "elsewhere": asdict(elsewhere), "scale": scale}
    for name, intervals in found.items():
        low, high = np.array(intervals).T
        row[name] = round(float(np.mean((low <= 0) & (high >= 0))), 4)
        row[f"{name} specific"] = round(float(np.mean(low > 0)), 4)
        row[f"{name} width"] = round(float(np.median(high - low)), 5)
    return {**row, "studies": studies}


def coverage_designs() -> Iterator[Design]:
    for effects in ("normal", "heavy", "skewed"):
        for sizes in ("equal", "unequal"):
            for clusters in (8, 12, 20, 40, 100):
                yield Design("loss", clusters, sizes, effects)
    for clusters, differing in ((164, 0.1), (164, 0.3), (378, 0.1), (378, 0.3)):
        yield Design("outcome", clusters, "one", differing=differing, icc=0.0)
    for sizes in ("equal", "unequal"):
        for clusters in (8, 20, 40, 100):
            for differing in (0.05, 0.2):
                yield Design("outcome", clusters, sizes, differing=differing, icc=0.1)


def kept_designs() -> Iterator[tuple[Design, float]]:
    for effects in ("normal", "skewed", "skewed down", "log-normal"):
        for clusters in (8, 20, 40, 100):
            yield Design("loss", clusters, "unequal", effects), 0.02
    for effects in ("skewed down", "log-normal"):
        for clusters in (8, 20, 40, 100):
            yield Design("loss", clusters, "one", effects, icc=1.0), 0.02
    for clusters in (40, 164, 378):
        for differing in (0.05, 0.1, 0.3):  # 0.05: whatever differs is lost
            yield Design("outcome", clusters, "one", differing=differing, icc=0.0), 0.05
    for sizes in ("equal", "unequal"):
        for clusters in (20, 40, 100):
            for differing in (0.05, 0.1, 0.2):
                yield Design("outcome", clusters, sizes, differing=differing, icc=0.1), 0.05
    for clusters in (20, 40, 100):
        for differing in (0.05, 0.1, 0.2):
            yield Design("outcome", clusters, "unequal", differing=differing, icc=0.3), 0.05


def power_designs() -> Iterator[Design]:
    yield Design("loss", 20, "equal")
    yield Design("loss", 40, "unequal")
    yield Design("outcome", 164, "one", differing=0.2, icc=0.0)


def specific_designs() -> Iterator[tuple[Design, Design, float]]:
    for here, elsewhere in ((6, 6), (6, 40), (40, 6), (12, 12), (36, 23), (40, 40)):
        for effects in ("normal", "heavy", "skewed down", "log-normal"):
            yield Design("loss", here, "unequal", effects), Design("loss", elsewhere, "unequal", effects), 1.0
        # the worst for the claim: a few repositories that gained little, which are easily missed, all of them held out
        yield Design("loss", here, "unequal", "log-normal"), Design("loss", elsewhere, "unequal"), 0.5
        yield Design("loss", here, "equal"), Design("loss", elsewhere, "equal"), 1.0


def tables(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| items | clusters | sizes | ours | percentile | bootstrap-t | cluster-t |", "| --- |" + " ---: |" * 6]
    for row in found["coverage"]:
        shares = " | ".join(f"{100 * row[name]:.1f}" for name in METHODS)
        lines.append(f"| {_what(row)} | {row['clusters']} | {row['sizes']} | {shares} |")
    lines += ["", "| items | clusters | sizes | five or more differ | covered then |", "| --- |" + " ---: |" * 4]
    for row in found["enough"]:
        covered = "" if row["covered"] is None else f"{100 * row['covered']:.1f}"
        lines.append(f"| {_what(row)} | {row['clusters']} | {row['sizes']} | {100 * row['enough']:.0f} | {covered} |")
    lines += [
        "",
        "| items | clusters | sizes | alike | margin | worse by the margin | by the interval | no difference |",
    ]
    lines.append("| --- |" + " ---: |" * 7)
    for row in found["kept"]:
        alone = row.get("worse by the margin, by the interval")  # rows of old results lack it
        shares = f"{100 * row['worse by the margin']:.1f} | {'' if alone is None else f'{100 * alone:.1f}'}"
        shares += f" | {100 * row['no difference']:.0f}"
        lines.append(
            f"| {_what(row)} | {row['clusters']} | {row['sizes']} | {row['icc']:g} | {row['margin']} | {shares} |"
        )
    lines += ["", "| losses, effects | repositories | sizes | ours | together | Welch | ours, “specific” |"]
    lines.append("| --- |" + " ---: |" * 6)
    for row in found["specific"]:
        here, elsewhere = row["here"], row["elsewhere"]
        effects = " against ".join(dict.fromkeys(one["effects"] for one in (here, elsewhere)))
        shares = " | ".join(f"{100 * row[name]:.1f}" for name in (*CONTRASTS, "ours specific"))
        lines.append(f"| {effects} | {here['clusters']} and {elsewhere['clusters']} | {here['sizes']} | {shares} |")
    lines += ["", "| items | clusters | sizes | minimum detectable effect | shown |", "| --- |" + " ---: |" * 4]
    for row in found["power"]:
        shown = f"{row['smallest']:.4f} | {100 * row['shown']:.0f}"
        lines.append(f"| {_what(row)} | {row['clusters']} | {row['sizes']} | {shown} |")
    return "\n".join(lines)


def _what(row: dict[str, Any]) -> str:
    if row["kind"] == "loss":
        return f"losses, {row['effects']} effects"
    return f"outcomes, {100 * row['differing']:.0f} % differ"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=Path("bench/results/statistics.json"))
    parser.add_argument("--again", nargs="*", choices=("coverage", "enough", "kept", "specific", "power"), default=())
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    before: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.show:
        print(tables(before))
        return
    studies = options.studies
    wanted: dict[str, list[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]] = {
        "coverage": [(asdict(one), partial(coverage, one, studies)) for one in coverage_designs()],
        "enough": [(asdict(one), partial(enough, one, studies)) for one in coverage_designs() if one.kind == "outcome"],
        "kept": [
            ({**asdict(one), "margin": margin}, partial(kept, one, margin, studies)) for one, margin in kept_designs()
        ],
        "specific": [
            (
                {"here": asdict(here), "elsewhere": asdict(elsewhere), "scale": scale},
                partial(specific, here, elsewhere, scale, studies),
            )
            for here, elsewhere, scale in specific_designs()
        ],
        "power": [(asdict(one), partial(power, one, studies)) for one in power_designs()],
    }
    found: dict[str, Any] = {"studies": before.get("studies", studies), "draws": DRAWS}
    for table, rows in wanted.items():
        known = [] if table in options.again else before.get(table, [])
        found[table] = []
        for design, simulate in rows:
            row = next((one for one in known if design.items() <= one.items()), None) or simulate()
            found[table].append(row)
            print(row, flush=True)
            options.out.write_text(json.dumps({**before, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
