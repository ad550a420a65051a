"""The report in a browser: opened from disk, without a network, by a reader who clicks."""

import os
import shutil
import time

import pytest
from selenium import webdriver as selenium

from ntklens.report.write import write_report
from studies import make_study

pytestmark = pytest.mark.system
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
WAIT = 30.0
LOSS = "ntklens.blocks.find(b => b.section.id === 'figure-trajectories').plots[0].div"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    axes = {"model.width": [16, 32, 64, 128, 256], "model.depth": [1, 2, 3]}
    study = make_study(axes, names=["width × depth"], states={"done": 45, "missing": 2})
    return write_report(study, tmp_path_factory.mktemp("multirun") / "joint" / "report")


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver (Debian: apt install chromium chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars"):
        options.add_argument(argument)
    if os.geteuid() == 0:  # Chromium's sandbox refuses root
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, page, request):
    """A browser of the width that the test asks for, on the page as new; at the end its console must be clean."""
    width, height = getattr(request, "param", (1400, 900))
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chromium.get(page.as_uri())
    scroll_to(chromium, "figure-trajectories")
    yield chromium
    chromium.execute_script("localStorage.clear()")
    assert [entry for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def wait_for(driver, script):
    deadline = time.monotonic() + WAIT
    while not (value := driver.execute_script(f"return {script}")):
        assert time.monotonic() < deadline, f"never came true: {script}"
        time.sleep(0.1)
    return value


def scroll_to(driver, name):
    driver.execute_script(f"document.getElementById('{name}').scrollIntoView({{behavior: 'instant'}})")
    wait_for(driver, f"{LOSS}.data?.length")


def click(driver, selector):
    driver.execute_script(f'document.querySelector("#figure-trajectories {selector}").click()')


def list_traces(driver, role):
    return driver.execute_script(f"return {LOSS}.data.filter(t => t.meta?.role === '{role}').map(t => t.meta.key)")


def test_a_run_is_hidden_and_shown_again(browser):
    assert set(list_traces(browser, "mean")) == {"16", "32", "64", "128", "256"}
    click(browser, "[data-key='64']")
    assert set(list_traces(browser, "mean")) == {"16", "32", "128", "256"}
    assert (
        browser.execute_script("return document.querySelector(\"#figure-trajectories [data-key='64']\").ariaPressed")
        == "false"
    )
    click(browser, "[data-key='64']")
    assert "64" in list_traces(browser, "mean")


def test_means_give_way_to_seeds(browser):
    assert list_traces(browser, "seed") == []
    click(browser, "[data-do='seeds']")
    assert set(list_traces(browser, "seed")) == {"16", "32", "64", "128", "256"}
    assert list_traces(browser, "mean") == []


def test_axes_change_their_scale_and_the_start_of_training_stays_in_sight(browser):
    first = f"{LOSS}.data.find(t => t.meta?.role === 'mean').x[0]"
    assert browser.execute_script(f"return {LOSS}.layout.xaxis.type") == "log"
    assert browser.execute_script(f"return {first}") > 0
    click(browser, "[data-do='xlog']")
    click(browser, "[data-do='ylog']")
    types = browser.execute_script(f"return [{LOSS}.layout.xaxis.type, {LOSS}.layout.yaxis.type, {first}]")
    assert types == ["linear", "linear", 0]


def test_a_mouse_over_a_curve_reads_its_value(browser):
    place = browser.execute_script(f"""
        const plot = {LOSS}, trace = plot.data.find(t => t.meta?.role === 'mean'), box = plot.getBoundingClientRect();
        const layout = plot._fullLayout, k = 12, size = layout._size;
        const x = layout.xaxis.c2p(trace.x[k]), y = layout.yaxis.c2p(trace.y[k]);
        return [box.left + size.l + x, box.top + size.t + y, trace.y[k]];
    """)
    for offset in (-3, 0):  # a move, not a jump
        move = {"type": "mouseMoved", "x": place[0] + offset, "y": place[1]}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", move)
    text = wait_for(browser, f"{LOSS}.querySelector('.hoverlayer')?.textContent")
    assert "epoch" in text
    assert "loss =" in text
    assert float(text.split("loss =")[1].split("±")[0].strip().replace("−", "-")) == pytest.approx(place[2], rel=0.2)


def test_another_group_is_chosen(browser):
    browser.execute_script("""
        const select = document.querySelector('#figure-trajectories select.variant');
        select.value = [...select.options].find(o => o.text.startsWith('along the depth')).value;
        select.dispatchEvent(new Event('change'));
    """)
    wait_for(browser, f"{LOSS}.data?.some(t => t.meta?.key === '3')")
    assert set(list_traces(browser, "mean")) == {"1", "2", "3"}


def test_dark_changes_page_and_plots(browser):
    ask = f"return [getComputedStyle(document.body).backgroundColor, {LOSS}.layout.font.color]"
    light = browser.execute_script(ask)
    browser.execute_script("document.getElementById('theme').click()")
    dark = browser.execute_script(ask)
    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_every_figure_is_drawn(browser):
    browser.execute_script("ntklens.drawAll()")
    wait_for(browser, "ntklens.blocks.every(b => b.plots.every(p => p.div.querySelector('.main-svg')))")
    assert browser.execute_script("return ntklens.blocks.length") >= 7


def test_fits_are_sorted_by_a_click(browser):
    rows = "[...document.querySelector('table.sortable').tBodies[0].rows]"
    columns = f"{rows}.map(r => Number(r.cells[5].dataset.value || NaN))"
    browser.execute_script("document.querySelectorAll('table.sortable th button')[5].click()")
    values = [value for value in browser.execute_script(f"return {columns}") if value is not None]
    assert values == sorted(values)
    assert len(values) > 10


@pytest.mark.parametrize("browser", [(390, 844), (320, 640)], indirect=True)
def test_a_phone_scrolls_down_and_not_sideways(browser):
    browser.execute_script("ntklens.drawAll()")
    wait_for(browser, "ntklens.blocks.every(b => b.plots.every(p => p.div.querySelector('.main-svg')))")
    widths = browser.execute_script(
        "return [document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]"
    )
    assert max(widths[:2]) <= widths[2]
