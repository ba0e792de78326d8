"""docs/benchmarks.md, from the results that suite.py has measured. Nothing here measures, and no figure is written here
but the floors.

    read_results(folder)  ->  {"resnet50-b1-t1": {"median": 71.2, "peers": [..], "layers": [..], ..}, ..}
    page(results)         ->  Markdown
"""

import json
import os
import platform
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import exp, fsum, log
from pathlib import Path
from statistics import median
from typing import Any

from compiling import BESIDE

Facts = Mapping[str, Any]
Results = Mapping[str, Facts]

ENGINES = ("torch", "onnxruntime", "openvino", "ncnn")
NAMES = {
    "vgg16": "VGG-16", "resnet50": "ResNet-50", "mobilenetv2": "MobileNetV2", "mnist": "MNIST ConvNet",
    "torch": "PyTorch", "onnxruntime": "onnxruntime", "openvino": "OpenVINO", "ncnn": "ncnn",
}  # fmt: skip
FLOORS = {
    "vgg16-b1-t1": 1.65, "vgg16-b1-t2": 1.6, "resnet50-b1-t1": 1.2, "resnet50-b1-t2": 1.1, "mobilenetv2-b1-t1": 1.15,
    "mobilenetv2-b1-t2": 1.05, "mnist-b1-t1": 2.2, "hypercolumns-t1": 3.5, "hypercolumns-t2": 3.0,
}  # fmt: skip
"""How many times our time the best other engine is to take at least."""
ONNXRUNTIME_FLOOR = 2.1
"""The same of onnxruntime, for VGG-16 on one thread."""
BATCH_FLOOR, NARROW_FLOOR, LIGHT_FLOOR, ACCURACY_CEILING, OPERATOR_FLOOR = 1.0, 1.0, 1.3, 5.0, 1 / 1.2
NEAR = 0.8
"""The share of its roofline below which a kernel is listed."""
SMALL = 0.01
"""The share of a light network's time below which kernels are not listed."""
DISTURBED = 0.1
"""Cores that others may take during a measurement before the page says so."""


def read_results(folder: Path) -> dict[str, Facts]:
    """All results, by case."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def page(results: Results, notes: Sequence[Facts] | None = None) -> str:
    """The page, of what there is."""
    good = {name: facts for name, facts in results.items() if "error" not in facts}
    reasons = read_notes() if notes is None else notes
    parts = [
        "# Benchmarks\n\n<!-- Written by `make bench` from measurements; do not edit. -->",
        _about(good),
        _failures(results),
        _networks(good),
        _light(good),
        _batches(good),
        _narrow(good),
        _dynamic(good),
        _operators(good),
        _accuracy(good),
        _compiling(good),
        _rooflines(good, reasons),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def read_notes() -> list[Facts]:
    """benchmarks/roofline_notes.toml."""
    path = Path(__file__).with_name("roofline_notes.toml")
    return list(tomllib.loads(path.read_text()).get("note", []))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns after the first are aligned to the right if their head begins with '>'."""
    marks = ["---:" if head.startswith(">") else "---" for head in heads]
    lines = [[head.removeprefix(">") for head in heads], marks, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def best(facts: Facts) -> Facts | None:
    """The fastest other engine, if any runs the model."""
    return min((peer for peer in facts["peers"] if "error" not in peer), key=lambda peer: peer["median"], default=None)


def met(ratio: float, floor: float) -> str:
    """The floor, and whether it was reached."""
    return f"≥ {floor:g}x, {'met' if ratio >= floor else '**missed**'}"


def _about(results: Results) -> str:
    versions: dict[str, str] = {}
    for facts in results.values():
        for peer in facts.get("peers", ()):
            if "error" not in peer:
                versions[peer["name"]] = peer["version"]
    dates = sorted(facts["date"] for facts in results.values())
    commits = sorted({facts["commit"] for facts in results.values()})
    peaks = [facts["peak"] for facts in results.values() if "peak" in facts]
    machines = sorted({facts["machine"] for facts in results.values()})
    lines = [f"- Machine: {machine}." for machine in machines]
    if peaks:
        fastest, widest = (max(peak[key] for peak in peaks) for key in ("gflops", "gbytes_per_second"))
        lines.append(
            f"- Measured peak of one core: {fastest:.0f} GFLOP/s in multiply-adds of float32, {widest:.1f} GB/s read "
            "from memory. A multiply-add counts as two operations."
        )
    if versions:
        shown = ", ".join(f"{NAMES[key]} {versions[key]}" for key in ENGINES if key in versions)
        lines.append(f"- Beside {shown}.")
    if dates:
        when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        lines.append(f"- Measured {when} UTC, at {'commit' if len(commits) == 1 else 'commits'} {', '.join(commits)}.")
    disturbed = [(name, facts["others"]) for name, facts in sorted(results.items()) if facts["others"] > DISTURBED]
    if disturbed:
        shown = ", ".join(f"{name} ({others:.0%} of a core)" for name, others in disturbed)
        lines.append(f"- **Other programs kept the machine busy** during: {shown}. Their figures are noisy.")
    hurried = [name for name, facts in sorted(results.items()) if facts.get("scale", 1) < 1]
    if hurried:
        lines.append(f"- **Measured in a hurry**, with few rounds: {', '.join(hurried)}.")
    return (
        "\n".join(lines)
        + "\n\nFloat32 throughout, the same inputs for all. Engines run in turn, round after round, each in a "
        "process of its own that is stopped while others run, so that none disturbs another and threads may wait "
        "actively in their own turn; with one thread, all on the same core. PyTorch runs eagerly, in the faster of "
        "planar and channels-last, on the network as pnnx converts it, its normalisations folded; ncnn with Winograd "
        "and packed layouts, nothing below float32. Arrays are bound beforehand where an engine can do so. Every "
        "engine's results are compared with ours before anything is timed. Times are medians of single calls; *x* "
        "says how many times ours an engine takes."
    )


def machine() -> str:
    """The processor of this machine, its caches and memory, and the system."""
    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    caches = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            caches.append(f"L{level} {_size(size)}")
    flags = found.get("flags", "").split()
    widest = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    virtual = "a virtual machine" if "hypervisor" in flags else ""
    family = " ".join(f"{key} {found[key]}" for key in ("cpu family", "model", "stepping") if key in found)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [
        found.get("model name", platform.processor() or platform.machine()), family, widest, f"{os.cpu_count()} cores",
        *caches, f"{memory:.0f} GiB of memory", virtual, f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
    ]  # fmt: skip
    return ", ".join(filter(None, parts))


def _size(text: str) -> str:
    kilobytes = int(text.removesuffix("K"))
    return f"{kilobytes} KiB" if kilobytes < 1024 else f"{kilobytes / 1024:.4g} MiB"


def _failures(results: Results) -> str:
    failed = [f"- `{name}`: {facts['error']}" for name, facts in sorted(results.items()) if "error" in facts]
    return "\n".join(["**Not measured, because it failed:**", "", *failed]) if failed else ""


def _engine_cells(facts: Facts) -> list[str]:
    by_name = {peer["name"]: peer for peer in facts["peers"]}
    found = []
    for name in ENGINES:
        peer = by_name.get(name)
        if peer is None:
            found.append("")
        elif "error" in peer:
            found.append("refused")
        else:
            found.append(f"{peer['median']:.3g} ({peer['ratio']:.2f}x)")
    return found


def _row(label: str, facts: Facts, floor: float | None, threads: bool = True) -> list[str]:
    first = best(facts)
    ratio = first["ratio"] if first else float("nan")
    ours = f"{facts['median']:.3g} ± {facts['spread']:.2g} (min {facts['min']:.3g})"
    shown = f"**{ratio:.2f}x** ({NAMES[first['name']]})" if first else "none runs it"
    cells = [label, *([str(facts["threads"])] if threads else []), ours, *_engine_cells(facts), shown]
    return [*cells, met(ratio, floor) if floor is not None and first else ""]


def _heads(*first: str) -> list[str]:
    return [*first, ">Tilewright ms", *(f">{NAMES[name]}" for name in ENGINES), "best other", "floor"]


def _networks(results: Results) -> str:
    rows = []
    for network in ("vgg16", "resnet50", "mobilenetv2", "mnist"):
        for threads in (1, 2):
            name = f"{network}-b1-t{threads}"
            if name in results:
                rows.append(_row(NAMES[network], results[name], FLOORS.get(name)))
    for threads in (1, 2):
        name = f"hypercolumns-t{threads}"
        if name in results:
            rows.append(_row("hypercolumns, five VGG-16 layers at 224 x 224", results[name], FLOORS[name]))
    if not rows:
        return ""
    more = []
    if "vgg16-b1-t1" in results:
        peers = [peer for peer in results["vgg16-b1-t1"]["peers"] if peer["name"] == "onnxruntime" and "ratio" in peer]
        more += [
            f"VGG-16 on one thread beside onnxruntime alone: {peer['ratio']:.2f}x, "
            f"{met(peer['ratio'], ONNXRUNTIME_FLOOR)}."
            for peer in peers
        ]
    more += [
        f"Hypercolumns of a thousand chosen pixels, {_threads(results[name])}: "
        f"{results[name]['pixels']['median']:.3g} ms."
        for name in ("hypercolumns-t1", "hypercolumns-t2")
        if name in results
    ]
    text = "## Networks, batch 1\n\nMilliseconds a call ± half the distance between the quartiles.\n\n"
    said = "".join(f"\n\n{line}" for line in more) + _refusals(results, "b1")
    return text + table(_heads("", ">threads"), rows) + said


def _threads(facts: Facts) -> str:
    return "one thread" if facts["threads"] == 1 else f"{facts['threads']} threads"


def _refusals(results: Results, part: str, light: bool = False) -> str:
    said = {
        f"- {NAMES.get(facts['model'], facts['model'])}: {_plain(peer['error'])}"
        for name, facts in sorted(results.items())
        if f"-{part}-" in name and name.startswith("light_") == light
        for peer in facts["peers"]
        if "error" in peer
    }
    return "\n\nRefused:\n\n" + "\n".join(sorted(said)) if said else ""


def _plain(message: str) -> str:
    """Without folders of this machine."""
    return re.sub(r"(?:/[\w.-]+)+/", "", " ".join(message.split()))


def _light(results: Results) -> str:
    found = {name: facts for name, facts in results.items() if name.startswith("light_")}
    ratios = [first["ratio"] for facts in found.values() if (first := best(facts))]
    if not ratios:
        return ""
    mean = exp(fsum(map(log, ratios)) / len(ratios))
    rows = [_row(f"`{facts['model']}`", facts, None, threads=False)[:-1] for facts in found.values()]
    return (
        "## The onnx package's networks, batch 1, one thread\n\nWith random weights in place of their constant "
        "ones.\n\n"
        + table(_heads("")[:-1], rows)
        + f"\n\nGeometric mean of the best other engine's: **{mean:.2f}x** over {len(ratios)} networks, "
        + f"{met(mean, LIGHT_FLOOR)}."
        + _refusals(results, "b1", light=True)
    )


def _batches(results: Results) -> str:
    rows = [
        _row(NAMES[network], results[name], BATCH_FLOOR)
        for network in ("vgg16", "resnet50", "mobilenetv2", "mnist")
        for threads in (1, 2)
        if (name := f"{network}-b8-t{threads}") in results
    ]
    if not rows:
        return ""
    text = "## Networks, batch 8\n\nMilliseconds for all eight.\n\n"
    return text + table(_heads("", ">threads"), rows) + _refusals(results, "b8")


def _narrow(results: Results) -> str:
    rows = [
        _row(NAMES[network], results[f"avx2-{network}"], NARROW_FLOOR, threads=False)
        for network in ("vgg16", "resnet50", "mobilenetv2", "mnist")
        if f"avx2-{network}" in results
    ]
    if not rows:
        return ""
    text = (
        "## With AVX2, batch 1, one thread\n\nThe same processor: ours compiled for x86-64-v3, and engines that can be "
        "told to leave AVX-512 alone.\n\n"
    )
    return text + table(_heads(""), rows)


def _dynamic(results: Results) -> str:
    rows = []
    for name, facts in results.items():
        if name.startswith("dynamic-"):
            ours, samples = facts["any"]["median"], facts["samples"]
            shown = [f"{facts[way]['median']:.3g} ({facts[way]['median'] / ours:.2f}x)" for way in ("fixed", "singly")]
            rows.append([NAMES[facts["model"]], str(samples), f"{ours:.3g} ± {facts['any']['spread']:.2g}", *shown])
    heads = ["", ">samples", ">for any number, ms", ">for this number", ">one by one"]
    text = "## One form for any number of samples, one thread\n\nBeside a form compiled for this number.\n\n"
    return text + table(heads, rows) if rows else ""


def _operators(results: Results) -> str:
    if "operators" not in results:
        return ""
    rows = []
    for facts in results["operators"]["operators"]:
        first = best(facts)
        if first:
            rows.append(
                [
                    f"`{facts['model']}`", f"{facts['median']:.3g} ± {facts['spread']:.2g}", f"{first['median']:.3g}",
                    f"{first['ratio']:.2f}x", met(first["ratio"], round(OPERATOR_FLOOR, 2)),
                ]
            )  # fmt: skip
    return "## Single operators: generated loop nests beside onnxruntime, one thread\n\n" + table(
        ["", ">Tilewright ms", ">onnxruntime ms", ">", "floor"], rows
    )


def _accuracy(results: Results) -> str:
    if "accuracy" not in results:
        return ""
    rows = []
    for row in results["accuracy"]["rows"]:
        direct, auto = row["direct"] / row["torch"], row["auto"] / row["torch"]
        whole = row["model"] in NAMES
        rows.append(
            [
                NAMES.get(row["model"], row["model"]), f"{row['torch']:.2e}", f"{row['direct']:.2e} ({direct:.2f}x)",
                f"{row['auto']:.2e} ({auto:.2f}x)",
                f"≤ {ACCURACY_CEILING:g}x, {'met' if auto <= ACCURACY_CEILING else '**missed**'}" if whole else "",
            ]
        )  # fmt: skip
    return (
        "## Accuracy\n\nRoot mean square errors against a run of PyTorch in double precision, as a share of the "
        "exact result's; in brackets as multiples of PyTorch's own. `conv=\"auto\"` may use Winograd. First single "
        "convolutions, channels in and out at height and width, then networks with random weights.\n\n"
        + table(["", ">PyTorch", '>`conv="direct"`', '>`conv="auto"`', "ceiling"], rows)
    )


def _compiling(results: Results) -> str:
    found = [facts for name, facts in results.items() if name.startswith("compile-")]
    if not found:
        return ""
    found.sort(key=lambda facts: -facts["file_bytes"])
    rows, stages = [], []
    for facts in found:
        cold, warm, ort, size = facts["cold"], facts["warm"], facts["onnxruntime"], facts["file_bytes"]
        ratio = ort["ms"] / cold["ms"]
        rows.append(
            [
                NAMES[facts["model"]], f"{size / 1e6:.1f} MB", f"{cold['ms'] / 1e3:.2f} s", f"{warm['ms'] / 1e3:.3f} s",
                f"{ort['ms'] / 1e3:.2f} s", f"{ratio:.2f}x", f"{cold['peak_bytes'] / 2**20:.0f}",
                f"{warm['peak_bytes'] / 2**20:.0f}", f"{ort['peak_bytes'] / 2**20:.0f}",
            ]
        )  # fmt: skip
        serial = {stage: ms for stage, ms in cold["stages"].items() if stage not in BESIDE}
        longest = sorted(serial.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{stage} {ms:.0f}" for stage, ms in longest if ms >= 1)
        beside = ", ".join(f"{stage} {cold['stages'][stage]:.0f}" for stage in BESIDE if stage in cold["stages"])
        rest = cold["staged_ms"] - sum(serial.values())
        stages.append(f"- {NAMES[facts['model']]}: {shown}, all else {rest:.0f}; beside these {beside}.")
    heads = [
        "", ">file", ">cold", ">from the cache", ">onnxruntime", ">onnxruntime / cold", ">peak MiB, cold",
        ">peak MiB, from the cache", ">peak MiB, onnxruntime",
    ]  # fmt: skip
    floors = []
    for facts in found:
        if facts["model"] != "vgg16":
            continue
        cold, warm = facts["cold"], facts["warm"]
        against = "met" if cold["ms"] <= facts["onnxruntime"]["ms"] else "**missed**"
        quick = "met" if warm["compile_ms"] < 100 else "**missed**"
        share = cold["peak_bytes"] / facts["file_bytes"]
        floors.append(
            f"VGG-16: cold no slower than onnxruntime, {against}; `compile()` from the cache in "
            f"{warm['compile_ms']:.0f} ms, below 100 ms {quick}; peak memory while compiling {share:.2f} times the "
            f"file, at most 2 {'met' if share <= 2 else '**missed**'}."
        )
    loading = {way: median(facts[way]["import_ms"] for facts in found) for way in ("cold", "warm", "onnxruntime")}
    return (
        "## From the file to the first result\n\nEach start in a new process, with the file in the page cache; "
        f"importing the engine does not count: it takes Tilewright {loading['warm']:.0f} ms, {loading['cold']:.0f} ms "
        f"with what compiles, and onnxruntime {loading['onnxruntime']:.0f} ms, besides NumPy. Tilewright compiles on "
        "all cores; onnxruntime creates its session with its defaults. Peak memory is the whole process's, pages of "
        "mapped files included.\n\n"
        + table(heads, rows)
        + "".join(f"\n\n{line}" for line in floors)
        + "\n\nWhere a cold start's time goes, in milliseconds by stage, in one more start:\n\n"
        + "\n".join(stages)
    )


def _rooflines(results: Results, notes: Sequence[Facts]) -> str:
    parts = []
    for name, facts in results.items():
        if name.endswith("-b1-t1") and facts.get("layers"):
            parts.append((name.startswith("light_"), _roofline(facts, notes)))
    if not parts:
        return ""
    return (
        "## Kernels below their roofline\n\nOn one thread, batch 1. A kernel's roofline is the least time that the "
        "core's peak or memory bandwidth allow for the operations it carries out (with Winograd, its products only) "
        "and the bytes it reads and writes. The peak is measured right before and after each call of a kernel, by "
        "multiply-adds on registers: others share the core, so that it changes from moment to moment. Listed is what "
        f"stays below {NEAR:.0%} of the roofline, kernels of one template and shape together; data that come from the "
        f"caches can pass 100%. Of the onnx package's networks, only what takes {SMALL:.0%} of the time or more is "
        "listed.\n\n"
        + "\n\n".join(text for _, text in sorted(parts, key=lambda part: part[0]))
    )


def _roofline(facts: Facts, notes: Sequence[Facts]) -> str:
    network, layers = facts["model"], facts["layers"]
    known = [layer for layer in layers if layer["limit"] is not None]
    least = sum(min(layer["limit"], 1) * layer["ms"] for layer in known)
    total = sum(layer["ms"] for layer in layers)
    below = [layer for layer in known if layer["limit"] < NEAR]
    share = sum(layer["ms"] for layer in layers if layer not in below) / total
    groups: dict[tuple[str, str, str], list[Facts]] = {}
    for layer in below:
        shape = "x".join(map(str, layer["shape"])) or "scalar"
        groups.setdefault((layer["template"], shape, reason(network, layer, notes)), []).append(layer)
    rows = []
    for (template, shape, why), group in sorted(groups.items(), key=lambda item: -sum(one["ms"] for one in item[1])):
        ms = sum(layer["ms"] for layer in group)
        if network not in NAMES and ms / total < SMALL:
            continue
        rows.append(
            [
                _layers(group), f"`{template}`", shape, f"{ms:.3f}", f"{ms / total:.1%}",
                _range(group, "gflops", "{:.0f}"), _range(group, "limit", "{:.0%}"), group[0]["bound"], why,
            ]
        )  # fmt: skip
    text = (
        f"### {NAMES.get(network, network)}\n\nAll kernels take {total:.3g} ms; the rooflines of all allow "
        f"{least:.3g} ms ({least / total:.0%}). Kernels at {NEAR:.0%} or more of theirs: {len(layers) - len(below)} "
        f"of {len(layers)}, {share:.0%} of the time. Beside them the core reached "
        f"{_range(layers, 'peak', '{:.0f}')} GFLOP/s."
    )
    heads = ["layer", "template", "result", ">ms", ">share", ">GFLOP/s", ">of roofline", "bound by", "why"]
    return text + ("\n\n" + table(heads, rows) if rows else "")


def reason(network: str, layer: Facts, notes: Sequence[Facts]) -> str:
    """The first note that fits."""
    values = {
        "network": network, "layer": layer["layer"], "template": layer["template"],
        "shape": "x".join(map(str, layer["shape"])) or "scalar",
    }  # fmt: skip
    for note in notes:
        if all(fnmatchcase(value, note.get(key, "*")) for key, value in values.items()):
            return str(note["why"])
    return "not looked into"


def _layers(group: Sequence[Facts]) -> str:
    first = group[0]["layer"] or "-"
    return f"`{first}`" if len(group) == 1 else f"`{first}` and {len(group) - 1} more"


def _range(group: Sequence[Facts], key: str, form: str) -> str:
    values = [layer[key] for layer in group if layer.get(key) is not None]
    if not values:
        return "-"
    show: Callable[[float], str] = form.format
    low, high = show(min(values)), show(max(values))
    return low if low == high else f"{low} to {high}"
