"""A real Chromium, and the accessibility checker axe-core. Where one cannot be had the tests say so and are skipped."""

import os
import shutil
import subprocess
import tarfile

import pytest

AXE = "axe-core@4.11.0"


def _installed():
    """Chromium's path; Debian's package is installed where it is missing and we may."""
    found = shutil.which("chromium")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for step in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", *step], check=False, capture_output=True, timeout=600)
        found = shutil.which("chromium")
    return found


@pytest.fixture(scope="session")
def chromium():
    path = _installed()
    if path is None:
        pytest.skip("THE PAGE IS NOT TESTED IN A BROWSER: chromium is missing and could not be installed (apt-get)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    done = npm and subprocess.run([npm, "pack", AXE], cwd=folder, capture_output=True, text=True, timeout=120)
    if not done or done.returncode:
        said = done.stderr.strip().splitlines()[-1:] if done else "npm is missing"
        pytest.skip(f"THE PAGE IS NOT CHECKED FOR ACCESSIBILITY: {AXE} could not be fetched: {said}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()
