"""A plugin for pytest: the fixture `httpbin` of the tests of requests is the server at HTTPBIN_URL, and no other.

What became of each test is written to RESULTS as a line of JSON.
"""

import json
import os
import types

import pytest
from pytest_httpbin.plugin import httpbin_ca_bundle, httpbin_secure  # noqa: F401

outcomes = {}


@pytest.fixture(scope="session")
def httpbin():
    return types.SimpleNamespace(url=os.environ["HTTPBIN_URL"])


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        outcomes[report.nodeid.split("::", 1)[1]] = report.outcome


def pytest_sessionfinish():
    with open(os.environ["RESULTS"], "w") as file:
        json.dump(outcomes, file)
