"""Whether a tag's newest item is an image of its present `from`: what a program may conclude from what it has seen."""

import pytest
from mirrorstream.imagestream.settled import EARLIER, UNKNOWN, StreamItems, TagItem, follow, settled_under

ONE, TWO = "registry.example.org/app:1", "registry.example.org/app:2"


def item(source: str, generation: int, image: str = "sha256:a", at: int = 1, failed: int = 0) -> TagItem:
    """A tag with `source` at `generation`, whose newest item `image` was imported at generation `at`."""
    return TagItem(source, generation, image, at, failed)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([item(ONE, 1)], ONE, id="imported"),
        pytest.param([item(ONE, 2, failed=2)], ONE, id="first seen after one failure"),
        pytest.param([item(ONE, 3, failed=3)], UNKNOWN, id="first seen after a change or several failures"),
        pytest.param([item(ONE, 2)], UNKNOWN, id="first seen while a change is pending"),
        pytest.param([item(ONE, 1), item(ONE, 2, failed=2), item(ONE, 3, failed=3)], ONE, id="a schedule that fails at each turn"),
        pytest.param([item(ONE, 1), item(TWO, 2)], ONE, id="changed, import pending"),
        pytest.param([item(ONE, 1), item(TWO, 2), item(TWO, 3, failed=3)], ONE, id="changed, import failed"),
        pytest.param([item(ONE, 1), item(TWO, 3, failed=3)], ONE, id="changed and failed between two looks"),
        pytest.param([item(ONE, 1), item(TWO, 2), item(TWO, 3, "sha256:b", 3)], TWO, id="changed and imported"),
        pytest.param([item(ONE, 1), item(TWO, 2), item(TWO, 2, "sha256:a", 2)], TWO, id="the new source has the same image"),
        pytest.param([item(ONE, 1), item(TWO, 2), item(ONE, 3, failed=4)], ONE, id="back to the source of the item"),
        pytest.param([item(ONE, 2, failed=2), item(TWO, 3), item(TWO, 4, failed=4)], ONE, id="changed while the source failed"),
        pytest.param([item(ONE, 3, failed=3), item(TWO, 4)], EARLIER, id="unknown before the change"),
        pytest.param([item(ONE, 3, failed=3), item(TWO, 4), item(ONE, 5)], EARLIER, id="unknown, changed and changed back"),
        pytest.param([item(ONE, 1), item(ONE, 4, "sha256:b", 2, 4)], ONE, id="imported and failed between two looks"),
        pytest.param([item(ONE, 1), item(TWO, 5, "sha256:b", 3, 5)], UNKNOWN, id="imported, changed and failed between two looks"),
    ],
)
def test_an_item_is_settled_under_the_source_it_was_imported_with(steps: list[TagItem], expected: str) -> None:
    """The last step's item, after all steps were seen in their order."""
    found, before = UNKNOWN, None
    for step in steps:
        found, before = settled_under(step, before, found), step
    assert found == expected


def test_a_stream_keeps_what_was_seen_of_each_tag() -> None:
    """Two tags of one stream, of which one changes."""
    first = follow(None, "uid", {"a": item(ONE, 1), "b": item(ONE, 1)})
    assert not first.unsettled
    second = follow(first, "uid", {"a": item(TWO, 3, failed=3), "b": item(ONE, 1)})
    assert list(second.unsettled) == ["a"]
    assert (second.of("a"), second.of("b"), second.of("none")) == (ONE, ONE, None)
    third = follow(second, "uid", {"a": item(ONE, 4, failed=4), "b": item(ONE, 1)})
    assert not third.unsettled


def test_a_stream_made_again_under_the_same_name_is_another_stream() -> None:
    """Nothing is known of its items from before."""
    first = follow(None, "uid", {"a": item(ONE, 1)})
    assert follow(first, "other", {"a": item(TWO, 3, failed=3)}) == StreamItems(
        "other", {"a": item(TWO, 3, failed=3)}, {"a": UNKNOWN}
    )
