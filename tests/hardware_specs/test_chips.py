"""The catalogue of chips: every file loads, says where its figures come from, and tells no known lie."""

import csv
import dataclasses
from pathlib import Path

import pytest
from shardwise.hardware_specs import chip as chip_module
from shardwise.hardware_specs.catalogue import get_chip, load_chips
from shardwise.hardware_specs.chip import Chip, Switch, Torus, read_chip
from shardwise.hardware_specs.dtypes import DTYPES
from shardwise.hardware_specs.errors import SpecError, UnknownNameError

FOLDER = Path(chip_module.__file__).parent / "data" / "chips"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
T, GIB = 1e12, 2.0**30


def _port(name: str) -> float:
    links = get_chip(name).scale_up
    return links.link_bytes_per_s.value if isinstance(links, Torus) else links.bytes_per_s.value


@pytest.mark.parametrize("name", NAMES)
def test_every_file_loads_under_its_own_name(name: str) -> None:
    chip = read_chip((FOLDER / f"{name}.yaml").read_text("utf-8"), f"{name}.yaml")
    assert chip.name == name
    assert chip == load_chips()[name]


def test_the_catalogue_is_the_folder() -> None:
    assert list(load_chips()) == sorted([*NAMES, "cpu-host"])
    assert len(NAMES) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_every_source_can_be_looked_up_and_names_a_document(name: str) -> None:
    chip = get_chip(name)
    assert chip.sources
    for text in chip.sources.values():
        assert len(text) > 20
        assert "https://" in text or "arXiv" in text or any(c.isdigit() for c in text)


@pytest.mark.parametrize("name", NAMES)
def test_formats_are_those_of_the_catalogue_of_formats(name: str) -> None:
    assert set(get_chip(name).dense_flop_per_s) <= {dtype.compute for dtype in DTYPES.values()}


@pytest.mark.parametrize("name", NAMES)
def test_every_format_has_a_peak_and_fewer_bits_are_no_slower_than_fp32(name: str) -> None:
    chip = get_chip(name)
    for dtype in DTYPES.values():
        assert chip.peak_flop_per_s(dtype) >= chip.peak_flop_per_s(DTYPES["fp32"])


# Whitepapers and datasheets of the makers, dense.
@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        pytest.param("a100-80gb-sxm", "bf16", 312 * T, id="A100 datasheet"),
        pytest.param("a100-40gb-pcie", "int8", 624 * T, id="A100 whitepaper"),
        pytest.param("h100-sxm", "bf16", 989.4 * T, id="H100 whitepaper, table 2"),
        pytest.param("h100-sxm", "fp8", 1978.9 * T, id="H100 whitepaper, table 2"),
        pytest.param("h100-pcie", "bf16", 756.5 * T, id="H100 PCIe datasheet, halved"),
        pytest.param("h20", "bf16", 148 * T, id="H20"),
        pytest.param("b200", "fp4", 9000 * T, id="HGX B200"),
        pytest.param("mi300x", "bf16", 1307.4 * T, id="MI300X data sheet"),
        pytest.param("tpu-v4", "bf16", 275 * T, id="Pope et al., section 4"),
        pytest.param("tpu-v5e", "bf16", 197 * T, id="Cloud TPU v5e"),
        pytest.param("tpu-v7x", "fp8", 4614 * T, id="Cloud TPU7x"),
    ],
)
def test_peaks_are_the_makers_dense_figures(name: str, dtype: str, peak: float) -> None:
    assert get_chip(name).dense_flop_per_s[dtype].value == peak


@pytest.mark.parametrize(
    ("name", "bytes_per_s"),
    [
        pytest.param("v100-32gb-sxm", 150e9, id="NVLink2"),
        pytest.param("a100-80gb-sxm", 300e9, id="NVLink3"),
        pytest.param("h100-sxm", 450e9, id="NVLink4"),
        pytest.param("h200-sxm", 450e9, id="NVLink4 again"),
        pytest.param("h800", 200e9, id="NVLink4 cut for export"),
        pytest.param("b200", 900e9, id="NVLink5"),
        pytest.param("gb300", 900e9, id="NVLink5 in a rack"),
        pytest.param("h100-nvl", 300e9, id="bridge"),
        pytest.param("l40s", 32e9, id="PCIe gen 4"),
        pytest.param("h100-pcie", 64e9, id="PCIe gen 5"),
        pytest.param("mi300x", 448e9, id="7 Infinity Fabric links"),
        pytest.param("tpu-v4", 45e9, id="one ICI link of v4"),
        pytest.param("tpu-v5e", 45e9, id="one ICI link of v5e"),
        pytest.param("tpu-v5p", 90e9, id="one ICI link of v5p"),
    ],
)
def test_links_are_counted_in_one_direction(name: str, bytes_per_s: float) -> None:
    assert _port(name) == bytes_per_s


@pytest.mark.parametrize(
    ("name", "n_bytes"),
    [
        ("a100-40gb-sxm", 40 * GIB),
        ("a100-80gb-pcie", 80 * GIB),
        ("h100-sxm", 80 * GIB),
        ("h200-sxm", 141 * GIB),
        ("rtx-4090", 24 * GIB),
        ("tpu-v4", 32 * GIB),
        ("tpu-v5e", 16 * GIB),
    ],
)
def test_memory_is_what_the_device_has(name: str, n_bytes: float) -> None:
    assert get_chip(name).hbm_bytes.value == n_bytes


HOPPER = ["h100-sxm", "h100-pcie", "h100-nvl", "h800", "h20", "h200-sxm", "h200-nvl", "gh200-96gb", "gh200-144gb"]


@pytest.mark.parametrize("name", HOPPER)
def test_fp8_is_twice_bf16_on_hopper_so_neither_is_a_sparse_figure(name: str) -> None:
    peaks = get_chip(name).dense_flop_per_s
    # datasheets round to whole Tflop/s
    assert peaks["fp8"].value == pytest.approx(2 * peaks["bf16"].value, rel=1e-3)
    assert peaks["int8"].value == peaks["fp8"].value


@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_peak_is_a_sparse_figure(name: str) -> None:
    peaks = {dtype: figure.value for dtype, figure in get_chip(name).dense_flop_per_s.items()}
    half = peaks.get("bf16", peaks.get("fp16"))
    assert half is not None
    # a dense step down in bits at most doubles the rate; fp4 of Blackwell Ultra triples that of fp8.
    # The RTX 4090 runs int8 at four times bf16, because its bf16 accumulates in fp32.
    limits = {"fp16": 1.0, "bf16": 1.0, "fp8": 2.03, "int8": 4.0 if name == "rtx-4090" else 2.03, "fp4": 6.0}
    for dtype, limit in limits.items():
        assert peaks.get(dtype, 0.0) <= limit * half


@pytest.mark.parametrize("name", NAMES)
def test_rates_stand_in_the_order_memory_then_links_then_network(name: str) -> None:
    chip = get_chip(name)
    assert chip.hbm_bytes_per_s.value > _port(name)
    if chip.scale_out_bytes_per_s is not None:
        assert chip.scale_out_bytes_per_s.value < _port(name)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("tpu")])
def test_small_slices_of_a_torus_fit_it(name: str) -> None:
    torus = get_chip(name).scale_up
    assert isinstance(torus, Torus)
    shapes = [[int(axis) for axis in shape.split("x")] for shape in torus.small_shapes]
    assert all(len(shape) == torus.n_dims for shape in shapes)
    assert all(max(shape) <= torus.max_axis for shape in shapes)
    assert torus.grain % torus.wrap_multiple == 0


@pytest.mark.parametrize(("name", "n_chips"), [("h100-sxm", 8), ("gb200", 72), ("h100-nvl", 2), ("h200-nvl", 4)])
def test_the_domain_of_fast_links_is_the_makers(name: str, n_chips: int) -> None:
    links = get_chip(name).scale_up
    assert isinstance(links, Switch)
    assert links.domain_chips == n_chips


@pytest.mark.parametrize("name", NAMES)
def test_a_chip_is_found_by_its_name_and_every_alias(name: str) -> None:
    chip = load_chips()[name]
    for text in (chip.name, chip.name.upper(), *chip.aliases, *(f"{alias} (power capped)" for alias in chip.aliases)):
        assert get_chip(text) is chip


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("h100", "h100-sxm"),
        ("a100", "a100-80gb-sxm"),
        ("A100-40GB (Polaris)", "a100-40gb-sxm"),
        ("v5e", "tpu-v5e"),
        ("TPU v7x (Ironwood)", "tpu-v7x"),
        ("GH200-120GB(96GB HBM3)", "gh200-96gb"),
        ("GH200-141GB", "gh200-144gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("[MAXSUN] MS-Intel Arc Pro B60 Dual 48G Turbo", "arc-pro-b60-dual"),
    ],
)
def test_a_chip_is_found_as_people_write_it(text: str, name: str) -> None:
    assert get_chip(text).name == name


# Two kinds of chip in one row, an undecided kind, and architectures without a product name.
NO_SINGLE_CHIP = {
    "AMD Instinct MI300X 192GB HBM3 (x32), AMD Instinct MI325X 256GB HBM3e (x16)",
    "TPU v5e or v6e (same numbers in both READMEs)",
    "SM100 CX7 EP8x2",
    "SM90 (Hopper) CX7 EP8x2",
}


def test_every_chip_named_in_published_results_resolves(shared_dir: Path) -> None:
    named: set[str] = set()
    for path in sorted((shared_dir / "measured").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            named |= {row["hardware"] for row in csv.DictReader(file)}
    unknown = []
    for text in sorted(named):
        try:
            get_chip(text)
        except UnknownNameError:
            unknown.append(text)
    assert set(unknown) <= NO_SINGLE_CHIP


def test_an_unknown_chip_is_refused_with_its_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match=r"no chip 'h100-sxn'; did you mean h100-sxm"):
        get_chip("h100-sxn")


def test_a_chip_like_no_other_is_refused_with_the_whole_list() -> None:
    with pytest.raises(UnknownNameError, match=r"no chip 'zzz'; known: a100-40gb-pcie, .*v100-32gb-sxm"):
        get_chip("zzz")


GOOD = (FOLDER / "h100-sxm.yaml").read_text("utf-8")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("value: 80 GiB", "value: 80", "not", id="a bare number"),
        pytest.param("value: 3.35 TB/s", "value: 3.35 TB", "no quantity in B/s", id="another dimension"),
        pytest.param(
            "value: 80 GiB, source: h100-datasheet", "value: 80 GiB, source: a-blog", "a-blog", id="no source"
        ),
        pytest.param("hbm_bytes:", "hbm_byte:", "hbm_byte", id="a typo in a key"),
        pytest.param("kind: switch", "kind: wormhole", "kind", id="an unknown kind of link"),
        pytest.param("name: h100-sxm", "name: [", "while parsing", id="no YAML at all"),
    ],
)
def test_a_broken_file_is_refused_with_its_name(old: str, new: str, reason: str) -> None:
    assert old in GOOD
    with pytest.raises(SpecError, match=reason) as refusal:
        read_chip(GOOD.replace(old, new, 1), "h100-sxm.yaml")
    assert str(refusal.value).startswith("h100-sxm.yaml: ")


def test_a_format_without_a_unit_of_its_own_runs_at_the_rate_of_bf16() -> None:
    a100 = get_chip("a100")
    assert a100.peak_flop_per_s(DTYPES["fp8"]) == a100.peak_flop_per_s(DTYPES["bf16"]) == 312 * T
    # V100 has neither fp8 nor bf16
    assert get_chip("v100").peak_flop_per_s(DTYPES["bf16"]) == 125 * T


def test_a_chip_without_a_fitting_peak_is_refused() -> None:
    chip = get_chip("h100")
    bare = chip.model_copy(update={"dense_flop_per_s": {"int8": chip.dense_flop_per_s["int8"]}})
    odd = dataclasses.replace(DTYPES["bf16"], name="fp6", compute="fp6")
    with pytest.raises(SpecError, match=r"h100-sxm claims no peak for fp6; it has \['int8'\]"):
        Chip.peak_flop_per_s(bare, odd)
