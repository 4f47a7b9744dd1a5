"""One person in front of a browser, for the tests of the page. No checks of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.page.page_process import Page

PATIENCE = 120_000.0  # milliseconds; two cores may be shared with other tests


class Visitor:
    """One person in front of a browser of their own."""

    def __init__(self, context: Any, page: Page) -> None:
        from playwright.sync_api import expect

        expect.set_options(timeout=PATIENCE)
        context.set_default_timeout(PATIENCE)
        self.expect = expect
        self.view = context.new_page()
        self.asked: list[str] = []
        self.broken: list[str] = []
        self.view.on("request", lambda request: self.asked.append(request.url))
        self.view.on("pageerror", lambda error: self.broken.append(str(error)))
        self.view.goto(page.url)
        self.cards(2)

    def step(self, name: str) -> None:
        self.view.get_by_role("navigation").get_by_role("link", name=name).click()

    def button(self, name: str) -> Any:
        return self.view.get_by_role("button", name=name, exact=True)

    def part(self, name: str) -> Any:
        return self.view.locator(f"#{name}")

    def cards(self, count: int) -> Any:
        cards = self.view.locator(".fc-card")
        self.expect(cards).to_have_count(count)
        return cards

    def upload(self, where: Any, *files: Path) -> None:
        where.locator("input[type=file]").first.set_input_files([str(file) for file in files])

    def upload_zip(self, file: Path) -> None:
        with self.view.expect_file_chooser() as chooser:
            self.button("Upload a zip").click()
        chooser.value.set_files(str(file))

    def choose(self, *, method: str = "DePT", shots: int = 2, epochs: int = 1) -> None:
        self.step("Train")
        self.view.get_by_role("button", name="Advanced").click()
        self.view.get_by_label(method, exact=True).check()
        fields = {re.compile("number input for Images"): shots, re.compile("Epochs"): epochs}
        for name, number in fields.items():
            field = self.view.get_by_role("spinbutton", name=name)
            self.expect(field).to_be_visible()
            self.view.wait_for_timeout(300)  # nobody types sooner after the fold has opened
            field.fill(str(number))
            field.press("Tab")
            self.expect(field).to_have_value(str(number))

    def adapt(self) -> None:
        self.step("Train")
        self.button("Train").click()

    def told(self, part: str, text: str | re.Pattern[str]) -> None:
        self.expect(self.part(part)).to_contain_text(text)

    def answers(self, count: int) -> list[str]:
        """The bold answer of each classified image."""
        found = self.part("answers").locator(".fc-answer strong")
        self.expect(found).to_have_count(count)
        return list(found.all_inner_texts())


Enter = Callable[..., Visitor]
