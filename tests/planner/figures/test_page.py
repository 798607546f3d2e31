"""Pages load nothing, offer to send nothing, say what made them and are the same bytes each time."""

import json
import re
from pathlib import Path

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.charts.values import BarChart, Chart, Curve, HeatChart, Panel, Scale, Stack
from shardwise.planner.figures import Page, PageTable, draw, page_html, write_charts
from shardwise.planner.figures.look import COLOURS

CHART = Chart(
    name="one",
    title="A <chart> & its title",
    says="what it says",
    panels=(
        Panel(
            title="",
            x=Scale(title="x (s)", log=True),
            y=Scale(title="y (ms)"),
            curves=(
                Curve(name="ours", x=(1.0, 2.0, 4.0), y=(1.0, None, 3.0), low=(0.5, None, 2.0), high=(2.0, None, 4.0)),
                Curve(name="theirs", group="ours", style="published", x=(1.0,), y=(1.5,)),
            ),
        ),
    ),
)
PAGE = Page(
    title="A page </script><script>alert(1)</script>",
    lead=("one line",),
    charts=(CHART,),
    table=PageTable(
        columns={"name": ["a</script>", "b"], "value": [1.5, None]}, says={"value": "a number"}, file_name="t.csv"
    ),
    command="shardwise whatif gpt2 --vary 'batch=1,2'",
    provenance={"shardwise": "1.2.3", "hash of the inputs": "abc"},
    notes=("no queue",),
)


def outside_of_plotly(html: str) -> str:
    """The page without plotly.js, which names addresses of map tiles and schemas and fetches none here."""
    scripts = re.findall(r"<script[^>]*>.*?</script>", html, re.DOTALL)
    return html.replace(max(scripts, key=len), "")


def data_of(html: str) -> dict[str, object]:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    made: dict[str, object] = json.loads(found[1])
    return made


def test_the_page_loads_nothing_and_offers_to_send_nothing() -> None:
    html = page_html(PAGE)
    own = outside_of_plotly(html)
    assert not re.search(r"<script[^>]*\ssrc=", html)
    assert not re.search(r"<(link|img|iframe|object|embed)\b", own)
    assert "http" not in own.replace("http-equiv", "")
    assert data_of(html)["config"] == {
        "displaylogo": False,
        "showSendToCloud": False,
        "plotlyServerURL": "",
        "responsive": True,
    }


def test_the_page_names_the_command_the_version_and_the_hash() -> None:
    own = outside_of_plotly(page_html(PAGE))
    assert "shardwise whatif gpt2 --vary &#x27;batch=1,2&#x27;" in own
    for words in ("1.2.3", "abc", "no queue", "one line", "what it says"):
        assert words in own


def test_nothing_in_names_or_cells_can_end_a_script_or_make_a_tag() -> None:
    html = page_html(PAGE)
    assert "alert(1)" not in re.sub(r"&lt;script&gt;alert\(1\)", "", outside_of_plotly(html))
    assert data_of(html)["table"]["columns"][0] == ["a</script>", "b"]  # type: ignore[index]
    assert "A &lt;chart&gt; &amp; its title" in html


def test_the_table_has_every_cell_and_null_for_none() -> None:
    table = data_of(page_html(PAGE))["table"]
    assert table == {
        "names": ["name", "value"],
        "columns": [["a</script>", "b"], [1.5, None]],
        "says": ["", "a number"],
        "file": "t.csv",
    }


def test_the_same_page_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_charts(PAGE, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_figures_hold_plain_numbers_no_packed_arrays() -> None:
    data = data_of(page_html(PAGE))
    assert "bdata" not in json.dumps(data["figures"])


def test_a_page_that_cannot_be_written_leaves_the_old_one_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    path.write_text("old", "utf-8")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(SpecError, match="disk full"):
        write_charts(PAGE, path)
    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_picture_without_kaleido_is_refused_with_the_way_out(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardwise.planner.figures.page.find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"shardwise\[images\].*as \.html"):
        write_charts(PAGE, tmp_path / f"x{suffix}")


def test_curves_keep_their_points_gaps_intervals_and_colours() -> None:
    band, ours, theirs = draw(CHART).data
    assert (ours.x, ours.y) == ((1.0, 2.0, 4.0), (1.0, None, 3.0))
    assert ours.line.color == theirs.marker.color == band.fillcolor == COLOURS[0]
    assert band.x == (1.0, 4.0, 4.0, 1.0)
    assert band.y == (2.0, 4.0, 2.0, 0.5)
    assert theirs.marker.symbol == "star-open"
    assert theirs.mode == "markers"


def test_axes_carry_their_titles_and_scales() -> None:
    layout = draw(CHART).layout
    assert (layout.xaxis.title.text, layout.yaxis.title.text) == ("x (s)", "y (ms)")
    assert (layout.xaxis.type, layout.yaxis.type) == ("log", None)


def test_points_alone_have_their_interval_as_a_bar() -> None:
    curve = Curve(name="p", style="points", x=(1.0, 2.0), y=(10.0, 20.0), low=(8.0, None), high=(15.0, 26.0))
    panel = Panel(title="", x=Scale(title="x"), y=Scale(title="y"), curves=(curve,))
    (trace,) = draw(Chart(name="c", title="t", says="s", panels=(panel,))).data
    assert trace.error_y.array == (5.0, 6.0)
    assert trace.error_y.arrayminus == (2.0, 0.0)


def test_a_chart_without_panels_is_an_empty_figure() -> None:
    assert draw(Chart(name="c", title="t", says="s", panels=())).data == ()


def test_bars_stack_from_their_bases_and_show_the_limit() -> None:
    chart = BarChart(
        name="b",
        title="t",
        says="s",
        bars=("one", "two"),
        parts=(Stack(name="left", values=(1.0, 2.0)), Stack(name="right", values=(3.0, 4.0))),
        value=Scale(title="GiB"),
        base=(0.0, 1.0),
        limit=(5.0, "limit"),
        labels=("a", "b"),
    )
    figure = draw(chart)
    left, right, words = figure.data
    assert (left.base, right.base) == ((0.0, 1.0), (1.0, 3.0))
    assert right.x == (3.0, 4.0)
    assert (words.x, words.text) == ((4.0, 7.0), (" a", " b"))
    assert [shape.x0 for shape in figure.layout.shapes] == [5.0]


def test_a_map_crosses_out_what_lies_outside() -> None:
    chart = HeatChart(
        name="h",
        title="t",
        says="s",
        x=Scale(title="rate"),
        y=Scale(title="limit"),
        xs=("1", "2"),
        ys=("a", "b"),
        values=((0.5, 1.0), (0.0, 0.2)),
        words=(("w", "x"), ("y", "z")),
        feasible=((True, True), (False, True)),
    )
    cells, crosses = draw(chart).data
    assert [list(row) for row in cells.z] == [[0.5, 1.0], [0.0, 0.2]]
    assert (crosses.x, crosses.y) == (("1",), ("b",))


def test_a_page_without_charts_or_table_is_a_page() -> None:
    bare = Page(title="t", lead=(), charts=(), provenance={})
    assert data_of(page_html(bare)) | {"config": 0, "themes": 0} == {
        "config": 0,
        "themes": 0,
        "figures": {},
        "table": None,
    }
