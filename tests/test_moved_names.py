"""What has another name now is told where it went."""

import importlib

import pytest

import unbraid
from networks import Chain, Residual, lively, mlp, normal

MOVED = [(unbraid.nn, unbraid.nn.init), (unbraid.draw, unbraid.draw.gradients), (unbraid.draw, unbraid.draw.theme)]
PACKAGES = {"unravel": "terms", "lesion": "lesions", "prune": "pruning", "report": "reports"}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_of_a_functions_name_says_its_new_one(name):
    with pytest.raises(ImportError, match=rf"unbraid\.{name} is a function; .* unbraid\.{PACKAGES[name]} now"):
        importlib.import_module(f"unbraid.{name}")
    with pytest.raises(ImportError, match=rf"unbraid\.{PACKAGES[name]} now"):
        exec(f"import unbraid.{name} as P")
    assert callable(getattr(unbraid, name))
    assert getattr(importlib.import_module(f"unbraid.{PACKAGES[name]}"), name) is getattr(unbraid, name)


def test_load_of_a_form_says_its_new_names(tmp_path):
    form = unbraid.trace(lively(Chain(Residual(mlp(3)))), normal(2, 3))
    for call in (unbraid.ResidualForm.load, form.load):
        with pytest.raises(AttributeError, match=r"unbraid\.load\(folder\), and .* form\.with_weights\(folder\)"):
            call(tmp_path, stream=True)


@pytest.mark.parametrize(("face", "part"), MOVED)
def test_what_moved_into_a_part_of_a_face_is_there_under_its_old_name(face, part):
    """Without a warning, which would be an error here; a name that never was there is none now."""
    for name in part.__all__:
        assert getattr(face, name) is getattr(part, name)
        assert name not in face.__all__
    with pytest.raises(AttributeError, match=rf"module '{face.__name__}' has no attribute 'he'"):
        face.he  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'he'"):
        exec(f"from {face.__name__} import he")
