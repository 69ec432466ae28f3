"""The table of audit methods is whole, and every one of them can be loaded."""

from importlib import metadata

import pytest

from fedtrain.audit.methods import METHODS, AuditContext, Method, load_methods, load_when_run
from fedtrain.errors import ConfigError


def test_methods_of_other_packages_are_found_by_their_entry_point():
    found = load_methods()
    assert {"membership", "canary-sites"} <= set(found)
    assert set(METHODS) < set(found)


def test_names_are_those_of_the_methods():
    assert all(name == method.name for name, method in load_methods().items())


def test_function_is_loaded_when_it_runs():
    run = load_when_run("fedtrain.no_such_module:audit")
    with pytest.raises(ModuleNotFoundError):
        run(None)


def test_two_methods_of_one_name_are_refused(monkeypatch):
    class Entry:
        name, value = "other", "other:METHODS"

        def load(self):
            return (Method("inversion", "another", "run", lambda context: []),)

    monkeypatch.setattr(metadata, "entry_points", lambda group: [Entry()])
    with pytest.raises(ConfigError, match="already"):
        load_methods()


def test_context_is_frozen(tmp_path):
    from fedtrain.config import Config

    context = AuditContext(tmp_path, Config(), 0, True, tmp_path)
    with pytest.raises(AttributeError):
        context.seed = 1
