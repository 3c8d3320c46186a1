import pathlib

from star_keras.models.presets import preset_names, preset_path


def test_every_name_is_a_directory_with_a_preset():
    assert "arithmetic_base" in preset_names()
    for name in preset_names():
        assert (pathlib.Path(preset_path(name)) / "config.json").is_file()


def test_directory_of_the_user_comes_before_a_preset_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert preset_path("arithmetic_base") != "arithmetic_base"
    (tmp_path / "arithmetic_base").mkdir()
    assert preset_path("arithmetic_base") == "arithmetic_base"


def test_other_presets_stay_as_they_are():
    assert preset_path("hf://EleutherAI/gpt-j-6b") == "hf://EleutherAI/gpt-j-6b"
