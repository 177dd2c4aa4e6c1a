"""Settings come from the environment; what is wrong is named."""

from pathlib import Path

import pytest

from recovery.errors import Invalid
from recovery.settings import Settings


def test_nothing_set_is_embedded() -> None:
    settings = Settings.from_environment({})
    assert settings.is_embedded()
    assert settings.task_queue == "recovery"
    assert settings.state.name == ".state"
    assert settings.catalogs.name == "runbooks"


def test_temporal_variables_name_the_server() -> None:
    settings = Settings.from_environment({"TEMPORAL_ADDRESS": "temporal.example:7233", "TEMPORAL_NAMESPACE": "dr"})
    assert not settings.is_embedded()
    assert settings.connection() == {"target_host": "temporal.example:7233", "namespace": "dr"}


def test_whom_to_tell_is_not_looked_at() -> None:
    assert Settings.from_environment({"RECOVERY_NOTIFY": "/nowhere"}).notify == "/nowhere"
    assert Settings.from_environment({}).notify == ""


def test_address_has_a_default() -> None:
    settings = Settings.from_environment({"TEMPORAL_NAMESPACE": "dr"})
    assert settings.connection()["target_host"] == "localhost:7233"


def test_api_key_is_not_shown() -> None:
    settings = Settings.from_environment({"TEMPORAL_API_KEY": "open-sesame"})
    assert "open-sesame" not in repr(settings)


def test_folder_is_private(tmp_path: Path) -> None:
    settings = Settings.from_environment({"RECOVERY_STATE": str(tmp_path / "a" / "b")})
    assert settings.folder("temporal").stat().st_mode & 0o777 == 0o700
    assert settings.state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECOVERY_STATE", ""),
        ("RECOVERY_STATE", __file__),
        ("RECOVERY_CATALOGS", " "),
        ("RECOVERY_CATALOGS", "/nowhere/at/all"),
        ("RECOVERY_TASK_QUEUE", ""),
        ("RECOVERY_TASK_QUEUE", "recovery "),
        ("RECOVERY_TEMPORAL_PORT", ""),
        ("RECOVERY_TEMPORAL_PORT", "80"),
        ("RECOVERY_TEMPORAL_PORT", "60001"),
        ("RECOVERY_TEMPORAL_PORT", "-7233"),
        ("RECOVERY_TEMPORAL_PORT", "temporal"),
    ],
)
def test_bad_value_is_named(name: str, value: str) -> None:
    with pytest.raises(Invalid, match=f"Invalid: {name}: .*unset it"):
        Settings.from_environment({name: value})


def test_impossible_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings.from_environment({"RECOVERY_STATE": str(tmp_path / "file" / "state")})
    with pytest.raises(Invalid, match="Invalid: RECOVERY_STATE: "):
        settings.folder("temporal")


def test_missing_profile_is_named() -> None:
    settings = Settings.from_environment({"TEMPORAL_PROFILE": "nowhere", "TEMPORAL_CONFIG_FILE": "/no/such.toml"})
    with pytest.raises(Invalid, match="TEMPORAL_PROFILE"):
        settings.connection()
