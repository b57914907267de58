"""`python -m lab app-screenshot`: the picture of the app in the documentation, taken of the app itself."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hf_maskadapter.cli.errors import EXIT_OK
from hf_maskadapter.cli.options import Command
from hf_maskadapter.data.options import option
from hf_maskadapter.files import write_atomically
from lab.documentation.app_process import running_app
from lab.documentation.browser import Browser, browser

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "app.png"

_DESK, _PHONE = (1280, 1900), (390, 1900)
_SHARE = 0.62  # of the width and height of a screen, so that a page of the documentation stays small


@dataclass(kw_only=True)
class ScreenshotOptions:
    """Where the picture goes."""

    output: Path = option("picture file to write", PICTURE, metavar="FILE")


def run(options: ScreenshotOptions) -> int:
    """Start the app, use it on a desk's screen and on a phone's, and write both pictures side by side."""
    from PIL import Image

    shots = []
    with tempfile.TemporaryDirectory() as folder, running_app(Path(folder)) as app:
        for size, is_phone in ((_DESK, False), (_PHONE, True)):
            with browser(*size, Path(folder), is_phone=is_phone) as page:
                page.driver.get(app.address)
                use(page)
                if is_phone:
                    page.driver.execute_script("document.querySelector('#ma-tabs').scrollIntoView()")
                shots.append(Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB"))
    gap, height = 24, min(shot.height for shot in shots)
    both = Image.new("RGB", (sum(shot.width for shot in shots) + gap, height), "#9ca3af")
    both.paste(shots[0], (0, 0))
    both.paste(shots[1], (shots[0].width + gap, 0))
    small = both.resize((round(both.width * _SHARE), round(both.height * _SHARE)), Image.Resampling.LANCZOS)
    palette = small.quantize(256, Image.Quantize.MAXCOVERAGE)  # which has rare colours, too
    small = small.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    write_atomically(options.output, lambda file: small.save(file, format="PNG", optimize=True))
    print(f"{options.output}: written")
    return EXIT_OK


def use(page: Browser) -> None:
    """Take the first example scene, segment it, and choose a segment."""
    page.click(".ma-scene")
    page.wait(lambda: page.one("#ma-labels textarea").get_attribute("value"))
    page.one("#ma-picture-input img")
    page.click("#ma-segment")
    page.click(".ma-legend button")
    page.one("#ma-explanation img")
    page.driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")


COMMAND = Command(
    name="app-screenshot",
    summary="take the picture of the app in the documentation",
    description="Start the app, use it in headless Chromium on a desk's screen and on a phone's, and write the picture "
    "of both in docs/images. Needs the extra `app`, selenium, chromium and chromedriver.",
    options=ScreenshotOptions,
    run=run,
)
