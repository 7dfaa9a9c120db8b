import numpy as np

from aggmask.reporting import figures
from aggmask.reporting.summary import summarize


def _lines(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in axes.lines if not line.get_label().startswith("_")}


def test_intervals_are_drawn_where_they_are(summary):
    figure = figures.differences(summary)
    panel = figure.axes[0]
    assert [text.get_text() for text in panel.get_yticklabels()] == ["window=1", "window=9"]
    interval = summary.rows[0].differences["AP"]
    assert _lines(panel)["window=1"].tolist() == [[100 * interval.value, 0]]
    assert [100 * interval.low, 100 * interval.high] in [line.get_xdata().tolist() for line in panel.lines[1:]]


def test_sizes_without_ground_truth_have_no_place(summary):
    known = [name for name in ("APs", "APm", "APl") if not np.isnan(summary.rows[0].numbers[name].mean)]
    assert len(known) < 3
    assert len(figures.differences(summary).axes) == 1 + len(known)
    assert len(figures.sizes(summary).axes[0].get_xticks()) == len(known)


def test_categories_come_best_first(summary):
    panel = figures.categories(summary).axes[0]
    means = {summary.category_names[number]: spread.mean for number, spread in summary.rows[1].categories.items()}
    assert [text.get_text() for text in panel.get_yticklabels()] == sorted(means, key=lambda name: -means[name])


def test_costs_have_a_panel_each(summary):
    labels = [panel.get_xlabel() for panel in figures.costs(summary).axes]
    assert labels[0] == "parameters [M]"
    assert labels[-2:] == ["step [ms]", "memory [MB]"]
    for row in summary.rows:
        row.costs.update(dict.fromkeys(row.costs))
    assert figures.costs(summary) is None


def test_curves_are_means_over_seeds(summary):
    ap, loss = figures.curves(summary).axes
    expected = [[2 * epoch - 1, 100 * 0.1 * epoch / 3] for epoch in (1, 2, 3)]
    np.testing.assert_allclose(_lines(ap)["window=1"], expected)
    np.testing.assert_allclose(_lines(loss)["window=5"], [[s, 3 - 0.3 * s + 0.05] for s in range(6)])
    assert len(ap.lines) == 9  # a mean and two seeds for each variant


def test_runs_of_different_length_share_what_both_have(sweep):
    (sweep / "0" / "metrics.csv").write_text("epoch,step,val/AP\n0,1,0.2\n")
    ap = figures.curves(summarize(sweep, resample_count=1)).axes[0]
    np.testing.assert_allclose(_lines(ap)["window=1"], [[1, 100 * (0.2 + 0.1 / 3) / 2]])


def test_an_epoch_and_a_step_may_have_several_evaluations(sweep):
    for run in "01":
        (sweep / run / "metrics.csv").write_text("epoch,step,val/AP\n0,1,0.2\n0,3,0.3\n0,3,0.4\n")
    ap = figures.curves(summarize(sweep, resample_count=1)).axes[0]
    np.testing.assert_allclose(_lines(ap)["window=1"], [[1, 20], [3, 40]])


def test_one_variant_has_nothing_to_differ_from_and_no_log_no_curve(sweep):
    (sweep / "0" / "metrics.csv").unlink()
    summary = summarize(sweep / "0", resample_count=1)
    assert figures.differences(summary) is None
    assert figures.curves(summary) is None


def test_colors_belong_to_variants(summary):
    for make in (figures.sizes, figures.costs):
        handles = make(summary).axes[0].get_legend_handles_labels()
        colors = {label: handle[0].get_color() for handle, label in zip(*handles, strict=True)}
        assert colors == {"window=1": "#0072B2", "window=5": "black", "window=9": "#D55E00"}


def test_long_names_leave_the_panels_room(summary, recwarn):
    for row in summary.rows:  # with names of 400 characters matplotlib's layout did not come to its end
        row.variant.__dict__["label"] = " ".join([row.variant.label, *["model.aggregation.weights.width=64"] * 12])
    for make in (figures.differences, figures.costs, figures.sizes, figures.categories, figures.curves):
        figure = make(summary)
        figure.draw_without_rendering()
        assert all(panel.get_position().width * figures.WIDTH > 0.8 for panel in figure.axes)
    assert not [str(warning.message) for warning in recwarn if "layout" in str(warning.message)]


def test_labels_are_never_read_as_formulas(summary):
    object.__setattr__(summary.rows[0].variant, "label", "${a} $\\oops$")
    for make in (figures.differences, figures.sizes, figures.curves):
        make(summary).draw_without_rendering()
