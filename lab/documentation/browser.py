"""A real browser without a window, at the size of a desk's screen or of a phone's, which looks at the app."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SECONDS = 60


class Browser:
    """A page in headless Chromium.

    Args:
        driver: selenium's driver.
        downloads: folder of what is downloaded.
        is_phone: whether it is a phone's, which has no pointer.
    """

    def __init__(self, driver: Any, downloads: Path, is_phone: bool) -> None:
        self.driver, self.downloads, self.is_phone = driver, downloads, is_phone

    def all(self, selector: str) -> list[Any]:
        """The elements that a CSS selector finds."""
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        """The element that a CSS selector finds, as soon as it is shown."""
        return self.wait(lambda: next((found for found in self.all(selector) if found.is_displayed()), None))

    def wait(self, holds: Callable[[], Any], seconds: float = _SECONDS) -> Any:
        """What `holds` returns, as soon as that is something."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, seconds, 0.1, (StaleElementReferenceException,))
        return waiting.until(lambda _: holds())

    def click(self, selector: str) -> None:
        """Click an element, which is scrolled to first."""
        element = self.one(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def text(self, selector: str) -> str:
        """The text of an element."""
        return self.one(selector).text

    def points_at(self, selector: str, share_x: float, share_y: float, *, click: bool = False) -> None:
        """Move the pointer to a place of an element, given as shares of its width and height."""
        from selenium.webdriver import ActionChains

        element = self.one(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        size = element.size
        right, down = round((share_x - 0.5) * size["width"]), round((share_y - 0.5) * size["height"])
        actions = ActionChains(self.driver).move_to_element_with_offset(element, right, down)
        (actions.click() if click else actions).perform()

    def requested(self) -> set[str]:
        """Addresses that the page has asked for since this was last called."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
        return {message["params"]["request"]["url"] for message in asked}

    def complaints(self) -> list[str]:
        """Errors in the browser's console since this was last called."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def overflows(self) -> bool:
        """Whether the page is wider than the screen."""
        return self.driver.execute_script("return document.documentElement.scrollWidth > window.innerWidth")


@contextmanager
def browser(width: int, height: int, downloads: Path, *, is_phone: bool = False) -> Iterator[Browser]:
    """A browser.

    Args:
        width: of its window, in pixels.
        height: of its window, in pixels.
        downloads: folder for what is downloaded.
        is_phone: whether it pretends to be a phone, with a touch screen.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    # Without a sandbox, which Chromium refuses to do without unless it is told to when it runs as root.
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "force-color-profile=srgb"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--window-size={width},{height}")
    if is_phone:
        metrics = {"width": width, "height": height, "pixelRatio": 1, "touch": True}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))  # not one from the net
    try:
        yield Browser(driver, downloads, is_phone)
    finally:
        driver.quit()


__all__ = ["Browser", "browser"]
