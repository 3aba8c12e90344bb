"""The report in a browser: opened, filtered, a cell clicked. Needs Chromium or Chrome on the machine, else it is skipped."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.tables import read_csv
from zamba_lcli.cli import main
from zamba_lcli.data import DemoClips
from zamba_lcli.evaluation.scores import confusion_matrix
from zamba_lcli.report.page import Report, ReportClip, evenly_spaced_ranks

NAMES = list(DemoClips.class_names)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome: apt-get install chromium")


@pytest.fixture(scope="module")
def reports(fitted, clips, tmp_path_factory):
    """Reports of a test and of a prediction, each with a file that cannot be read."""
    folder = tmp_path_factory.mktemp("reports")
    shutil.copytree(clips, folder / "clips")
    rows = read_csv(clips / "labels.csv")
    for i, row in enumerate(rows):
        row |= {"split": "holdout", "site": f"<b>site</b> {i % 3}"}
    (folder / "clips" / rows[3]["filepath"]).write_bytes(b"no video")
    text = "\n".join([",".join(rows[0])] + [",".join(row.values()) for row in rows])
    (folder / "clips/labels.csv").write_text(text)
    checkpoint = str(fitted / "checkpoints/last.ckpt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        labels = ["--data.labels", "clips/labels.csv", "--data.check_clips=false", "--data.trained_clips=keep"]
        main(
            [
                "test",
                "--config",
                str(fitted / "config.yaml"),
                "--ckpt_path",
                checkpoint,
                *labels,
                "--trainer.logger.version=0",
            ]
        )
        main(["predict", "--ckpt_path", checkpoint, "--data.videos", "clips/labels.csv"])
    return {"test": folder / "runs/tiny/version_0", "predict": folder / "clips/labels_predictions"}


@pytest.fixture
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser):
    """Opens a page and returns it; checks at the end that nothing was wrong with it and that it asked for nothing."""
    wrong, asked, pages = [], [], []

    def open_page(path, **view):
        page = browser.new_page(**view)
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_page
    assert wrong == []
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == len(pages)


def count(page):
    return int(page.inner_text("#count").split()[0])


@needs_browser
def test_the_report_of_a_test(reports, opened):
    page = opened(reports["test"] / "report.html")
    rows = [row for row in read_csv(reports["test"] / "predictions.csv") if row["status"] == "ok"]
    metrics = json.loads((reports["test"] / "metrics.json").read_text())
    assert page.inner_text("h1") == "Test on 15 clips"
    assert f"{metrics['macro_f1']:.3f}" in page.inner_text("#summary")
    assert count(page) == page.locator(".card").count() == 15
    assert page.locator(".film").count() == 15

    # each cell of the confusion matrix opens its clips
    matrix = [[int(row[name]) for name in NAMES] for row in read_csv(reports["test"] / "confusion_matrix.csv")]
    for i, name in enumerate(NAMES):
        for j, top in enumerate(NAMES):
            page.locator("#matrix tbody tr").nth(i).locator("button").nth(j).click()
            expected = {r["filepath"] for r in rows if r["labels"] == name and r["top_class"] == top}
            assert count(page) == matrix[i][j] == len(expected)
            assert {n.split(" (")[0] for n in page.locator(".card .name:last-child").all_inner_texts()} == expected
    page.click("#reset")
    assert count(page) == 15

    # filters
    page.select_option("#site", "<b>site</b> 1")
    assert count(page) == len([row for row in rows if row["site"] == "<b>site</b> 1"])
    page.click("#reset")
    page.select_option("#top", label=NAMES[1])
    assert count(page) == len([row for row in rows if row["top_class"] == NAMES[1]])
    page.click("#reset")
    page.check("#wrong")
    assert count(page) == len([row for row in rows if row["correct"] == "0"])
    page.click("#reset")
    confidences = sorted(max(float(row[name]) for name in NAMES) for row in rows)
    middle = round((confidences[6] + confidences[7]) / 2, 4)
    page.fill("#low", str(middle))
    assert count(page) == len([c for c in confidences if round(c, 4) >= middle])
    page.fill("#text", "nothing has this name")
    assert count(page) == 0
    page.click("#reset")

    # the table of classes sorts
    page.click("#per-class th:nth-child(5) button")
    values = [float(cell or "nan") for cell in page.locator("#per-class tbody td:nth-child(5)").all_inner_texts()]
    assert [v for v in values if v == v] == sorted((v for v in values if v == v), reverse=True)
    page.click("#per-class th:nth-child(1) button")
    assert page.locator("#per-class tbody td:first-child").all_inner_texts() == sorted(NAMES)

    failed = [row for row in read_csv(reports["test"] / "predictions.csv") if row["status"] == "failed"]
    assert failed[0]["filepath"] in page.inner_text("#failed")
    assert failed[0]["error"] in page.inner_text("#failed")
    assert page.locator("#site b").count() == 0  # names are text


@needs_browser
def test_with_the_keyboard_alone(reports, opened):
    page = opened(reports["test"] / "report.html")
    for place in ("#per-class th:nth-child(3) button", "#matrix tbody tr:nth-child(2) button >> nth=1"):
        page.focus(place)
        page.keyboard.press("Enter")
        assert page.evaluate(f"document.activeElement.closest('table').id === '{place[1:].split(' ')[0]}'")
        page.keyboard.press("Tab")  # on to the next one
        assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    assert page.get_attribute("#per-class th:nth-child(3)", "aria-sort") == "descending"
    assert page.locator("#matrix button[aria-pressed=true]").count() == 1
    assert "clips labelled" in page.get_attribute("#matrix tbody button >> nth=0", "aria-label")


@needs_browser
def test_cells_show_the_clips_that_they_count_where_clips_have_several_labels(opened, folder):
    truths = [[0], [0, 1], [1], [0, 1]]
    said = [[0.9, 0.2], [0.8, 0.7], [0.6, 0.4], [0.1, 0.9]]
    clips = [ReportClip(f"{i}.mp4", p, truth, None) for i, (p, truth) in enumerate(zip(said, truths, strict=True))]
    targets = np.array([[i in truth for i in range(2)] for truth in truths])
    matrix = confusion_matrix(targets, np.array(said)).tolist()
    assert matrix == [[1, 0], [1, 0]]
    Report("t", [], ["a", "b"], ["n"], [[3], [3]], clips, 4, confusion=matrix).write(Path("r.html"))
    page = opened(folder / "r.html")
    for i in range(2):
        for j in range(2):
            page.locator("#matrix tbody tr").nth(i).locator("button").nth(j).click()
            assert count(page) == matrix[i][j]
    page.select_option("#truth", label="b")  # a filter, that takes all with the label
    page.select_option("#top", label="any")
    assert count(page) == 3


@needs_browser
def test_the_pictures_move(reports, opened):
    page = opened(reports["test"] / "report.html")
    assert page.evaluate("document.getAnimations().filter(a => a.playState === 'running').length") == 15
    box = page.locator(".film").first
    before = box.screenshot()
    page.wait_for_timeout(1000)
    assert box.screenshot() != before


@needs_browser
@pytest.mark.parametrize("kind", ["test", "predict"])
def test_readable_on_a_phone(reports, opened, kind):
    page = opened(reports[kind] / "report.html", viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert float(page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)")) >= 13


@needs_browser
def test_the_report_of_a_prediction(reports, opened):
    page = opened(reports["predict"] / "report.html")
    rows = read_csv(reports["predict"] / "predictions.csv")
    ok = [row for row in rows if row["status"] == "ok"]
    assert count(page) == len(ok) == 15
    assert not page.locator("#confusion").is_visible()
    assert not page.locator("#wrong-label").is_visible()
    assert page.locator("#per-class tbody td:nth-child(2)").all_inner_texts() == [
        str(sum(row["top_class"] == name for row in ok)) for name in NAMES
    ]
    page.select_option("#top", label=ok[0]["top_class"])
    assert count(page) == sum(row["top_class"] == ok[0]["top_class"] for row in ok)
    assert next(row for row in rows if row["status"] == "failed")["filepath"] in page.inner_text("#failed")


def test_names_cannot_break_out_of_the_data(folder):
    evil = "</script><script>alert(1)</script>.mp4"
    clip = ReportClip(evil, [0.2, 0.8], [], None)
    Report("t", [], ["a", "b"], ["n"], [[1], [2]], [clip], 1, failed=[(evil, evil)]).write(Path("r.html"))
    text = Path("r.html").read_text()
    assert "<script>alert" not in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["clips"][0]["filepath"] == evil


def test_spread_takes_the_ends():
    assert evenly_spaced_ranks([0.1, 0.9, 0.5, 0.7], 2) == [1, 0]
    assert evenly_spaced_ranks([0.1, 0.9], 5) == [1, 0]
    assert evenly_spaced_ranks([], 3) == []
    assert len(set(evenly_spaced_ranks([i / 100 for i in range(100)], 7))) == 7
