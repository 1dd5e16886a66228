"""The docs are what the code says."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from support.homes import home

from ingestion.settings import PREFIX, Settings
from warehouse.dbt import manifest_path

ROOT = Path(__file__).parents[2]


def test_the_data_dictionary_is_as_the_dbt_project_says(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("data_dictionary", ROOT / "docs" / "data_dictionary.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = module.dictionary(json.loads(manifest_path(home(tmp_path)).read_text()))
    assert written == (ROOT / "docs" / "data-dictionary.md").read_text()


def test_the_example_environment_names_every_setting_that_a_user_may_set() -> None:
    named = set(re.findall(r"^#?(KLINEHOUSE_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert named == {f"{PREFIX}{name}".upper() for name in Settings.model_fields} - {"KLINEHOUSE_TARGET"}


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(ROOT) for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert ((ROOT / page).parent / link).exists(), link
