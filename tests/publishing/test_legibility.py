import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from rai_utils.publishing import legibility
from rai_utils.publishing.legibility import HALF_PAGE, check_size, collisions, drawn_texts

mpl.use("Agg")


@pytest.fixture(autouse=True)
def plain_settings():
    with mpl.rc_context():
        mpl.rcdefaults()
        yield
    plt.close("all")


def empty(width=HALF_PAGE, height=2.0):
    """A figure without any text but what a test puts into it."""
    figure, axes = plt.subplots(figsize=(width, height))
    axes.set_axis_off()
    return figure, axes


def shown(figure):
    return {text.get_text() for text in drawn_texts(figure)}


def test_a_figure_wider_than_half_a_page_is_shrunk_and_a_narrower_one_is_not_enlarged():
    for width, factor in ((2 * HALF_PAGE, 0.5), (HALF_PAGE, 1.0), (HALF_PAGE / 2, 1.0)):
        figure, axes = empty(width)
        axes.text(0.5, 0.5, "word", fontsize=5)
        with pytest.raises(ValueError, match=rf"'word' has {5 * factor:.2f} there"):
            check_size(figure)


def test_text_too_small_at_half_a_page_is_named_with_its_size_there():
    figure, axes = empty(6.5)
    axes.text(0.2, 0.2, "large", fontsize=14)
    axes.text(0.5, 0.5, "fine", fontsize=12)
    check_size(figure)
    small = axes.text(0.5, 0.9, "tiny print", fontsize=11.9)
    with pytest.raises(ValueError, match=r"'tiny print' has 5\.95 there: the figure is 6.5 inches"):
        check_size(figure)
    small.set_visible(False)
    check_size(figure)


def test_every_kind_of_text_is_checked():
    for draw in (
        lambda figure, axes: axes.set_title("x", fontsize=5),
        lambda figure, axes: axes.set_xlabel("x", fontsize=5),
        lambda figure, axes: axes.tick_params(labelsize=5),
        lambda figure, axes: axes.tick_params(which="minor", labelsize=5),
        lambda figure, axes: axes.annotate("x", (0.5, 0.5), fontsize=5),
        lambda figure, axes: axes.legend(fontsize=5),
        lambda figure, axes: figure.suptitle("x", fontsize=5),
        lambda figure, axes: figure.text(0.5, 0.5, "x", fontsize=5),
        lambda figure, axes: figure.colorbar(axes.collections[0]).ax.tick_params(labelsize=5),
    ):
        figure, axes = plt.subplots(figsize=(HALF_PAGE, 2.5))
        axes.plot([0.2, 3], [0.2, 3], label="line")
        axes.scatter([0.2, 0.3], [0.2, 0.3], c=[0, 1])
        axes.set_yscale("log")
        axes.set_yticks([0.3], ["0.3"], minor=True)
        check_size(figure)
        draw(figure, axes)
        with pytest.raises(ValueError, match=r"has 5\.00 there"):
            check_size(figure)


def test_what_is_not_seen_does_not_count():
    figure, axes = plt.subplots(figsize=(HALF_PAGE, 2.0))
    axes.set_xticks([0.0, 0.5, 9.0], ["shown", "too", "beyond"])
    axes.set_xlim(0, 1)
    axes.set_yticks([0.5], ["hidden"])
    axes.tick_params(labelleft=False)
    axes.text(0.5, 0.5, "invisible").set_visible(False)
    axes.text(0.5, 0.5, "  ")
    assert shown(figure) == {"shown", "too"}
    axes.set_axis_off()
    assert shown(figure) == set()
    axes.set_axis_on()
    axes.set_visible(False)
    assert shown(figure) == set()


def test_ticks_of_a_logarithmic_and_of_an_inverted_axis_are_seen():
    figure, axes = plt.subplots(figsize=(HALF_PAGE, 2.0))
    axes.set_xscale("log")
    axes.set_xticks([1, 10, 1000, 10_000], ["first", "in", "last", "beyond"])
    axes.set(xlim=(1, 1000), ylim=(1, 0))
    axes.set_yticks([0, 1], ["top", "bottom"])
    assert shown(figure) == {"first", "in", "last", "top", "bottom"}


def test_overlapping_and_cut_off_text_is_found():
    figure, axes = empty()
    axes.text(0.5, 0.5, "under")
    axes.text(0.5, 0.2, "apart")
    assert collisions(figure) == []
    over = axes.text(0.52, 0.52, "over")
    assert collisions(figure) == ["'under' overlaps 'over'"]
    over.remove()
    axes.text(0.95, 0.8, "runs over the edge")
    assert collisions(figure) == ["'runs over the edge' is cut off by the edge of the figure"]


def test_crowded_tick_labels_overlap():
    figure, axes = plt.subplots(figsize=(HALF_PAGE, 2.0), layout="constrained")
    axes.set_yticks([])
    axes.set_xticks([0.5, 0.52], ["a long label", "another one"])
    assert collisions(figure) == ["'a long label' overlaps 'another one'"]
    axes.set_xticks([0.2, 0.8], ["a long label", "another one"])
    assert collisions(figure) == []


def test_a_figure_without_text_is_legible():
    check_size(empty()[0])
    assert legibility.collisions(empty()[0]) == []
