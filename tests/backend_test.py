import os
import subprocess
import sys


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_backend_is_jax_whatever_keras_json_says(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "tensorflow"}')
    environment = {"KERAS_HOME": str(tmp_path)}
    code = "import star_keras, keras; print(keras.config.backend())"
    result = run_python(code, **environment)
    assert result.stdout.strip() == "jax", result.stderr
    result = run_python(code, KERAS_BACKEND="tensorflow", **environment)
    assert result.stdout.strip() == "jax", result.stderr


def test_keras_imported_with_another_backend_is_a_clear_error():
    result = run_python("import keras, star_keras", KERAS_BACKEND="numpy")
    assert result.returncode != 0
    assert "imported with the backend 'numpy'" in result.stderr
    assert "KERAS_BACKEND=jax" in result.stderr
