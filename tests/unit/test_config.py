from __future__ import annotations

import os
from pathlib import Path

import pytest

from zbroker.config import ConfigurationError, Options, Origin, byte_count, file_places
from zbroker.config import load as load_settings


def load(*arguments) -> Options:
    return load_settings(*arguments).options


def write(folder: Path, text: str, name: str = "zbroker.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_without_anything_the_defaults_hold():
    assert load({}, {}, []) == Options()
    assert Options().bind == "tcp://127.0.0.1:7700"
    assert Options().data_folder == "./zbroker-data"


def test_flags_over_environment_over_files_over_defaults(tmp_path):
    near = write(tmp_path, 'data = "near"\n')
    far = write(tmp_path, 'data = "far"\nbind = "tcp://127.0.0.1:1"\nmemory_bytes = 5\n', "far.toml")
    environment = {"ZBROKER_BIND": "tcp://127.0.0.1:2", "ZBROKER_URL": "zb://x", "HOME": "/"}
    options = load({"bind": "tcp://127.0.0.1:3", "data": None}, environment, [near, far])
    assert (options.bind, options.data, options.memory_bytes) == ("tcp://127.0.0.1:3", "near", 5)
    assert load({}, environment, [near, far]).bind == "tcp://127.0.0.1:2"


def test_each_setting_knows_where_it_comes_from(tmp_path):
    file = write(tmp_path, 'data = "near"\nlog_level = "debug"\n')
    environment = {"ZBROKER_BIND": "tcp://127.0.0.1:2", "ZBROKER_LOG_LEVEL": "error"}
    origins = load_settings({"insecure": True, "http": None}, environment, [file]).origins
    assert origins["insecure"] == Origin("flag", "--insecure")
    assert origins["bind"] == Origin("environment", "ZBROKER_BIND")
    assert origins["log_level"] == Origin("environment", "ZBROKER_LOG_LEVEL")
    assert origins["data"] == Origin("file", str(file))
    assert origins["http"] == Origin("default")
    assert set(origins) == set(Options.__struct_fields__)


def test_a_setting_that_cannot_hold_is_refused_with_its_origin(tmp_path):
    file = write(tmp_path, 'mdp = "tcp://127.0.0.1:1"')
    with pytest.raises(ConfigurationError, match=r"zbroker\.toml: mdp = "):
        load({}, {}, [file])
    with pytest.raises(ConfigurationError, match=r"^ZBROKER_DATA: data = ''"):
        load({}, {"ZBROKER_DATA": ""}, [])


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"ZBROKER_LOG_FORMAT": "xml"}, "ZBROKER_LOG_FORMAT: 'xml' is none of text, json"),
        ({"ZBROKER_LOG_LEVEL": "5"}, "none of debug, info, warning, error"),
        ({"ZBROKER_DRAIN_S": "5s"}, "'5s' is no whole number"),
        ({"ZBROKER_DATA": "\udcff"}, "cannot be printed"),
        ({"ZBROKER_DATA": "a\x1b[2J"}, "cannot be printed"),
    ],
)
def test_a_bad_value_of_the_environment_is_refused_with_its_name(environment, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        load({}, environment, [])


def test_an_unreadable_file_is_named_with_the_reason(tmp_path):
    (tmp_path / "zbroker.toml").mkdir()
    with pytest.raises(ConfigurationError, match=r"zbroker\.toml is a folder"):
        load({}, {}, [tmp_path / "zbroker.toml"])
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="no TOML"):
        load({}, {}, [tmp_path / "bytes.toml"])
    assert load({}, {}, [tmp_path / "bytes.toml" / "below"]) == Options()  # what cannot be there is not there


def test_what_never_ends_is_no_configuration_file_and_what_is_empty_says_nothing():
    with pytest.raises(ConfigurationError, match="is a device"):
        load({}, {}, [], Path("/dev/zero"))
    assert load({}, {}, [], Path("/dev/null")) == Options()


def test_a_configuration_file_has_64_kib_at_most(tmp_path):
    whole = 'data = "x"\n'
    comment = "#\n" * ((1 << 16) // 2 - len(whole)) + "#" * len(whole)
    assert load({}, {}, [write(tmp_path, whole + comment)]).data == "x"
    with pytest.raises(ConfigurationError, match="more than 65536 bytes"):
        load({}, {}, [write(tmp_path, whole + comment + "#")])


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigurationError, match="fifo is a pipe; write the settings into a regular file"):
        load({}, {}, [], tmp_path / "fifo")


def test_a_line_that_the_parser_would_take_seconds_for_is_refused(tmp_path):
    assert load({}, {}, [write(tmp_path, f'data = "{"x" * (4096 - 9)}"')]).data
    with pytest.raises(ConfigurationError, match="line 2 has 50003 bytes, at most 4096"):
        load({}, {}, [write(tmp_path, "drain_s = 1\na" + "." * 50_000 + "=1")])


@pytest.mark.parametrize("text", ["a = " + "[\n" * 20_000])
def test_toml_that_python_cannot_hold_is_refused(tmp_path, text):
    with pytest.raises(ConfigurationError, match="no TOML"):
        load({}, {}, [write(tmp_path, text)])


def test_without_a_home_there_is_no_file_of_the_user():
    assert [str(place) for place in file_places({})] == ["zbroker.toml", "/etc/zbroker/zbroker.toml"]
    assert str(file_places({"XDG_CONFIG_HOME": "/x", "HOME": "/h"})[1]) == "/x/zbroker/zbroker.toml"


def test_a_named_file_is_the_only_one_and_must_exist(tmp_path):
    near, named = write(tmp_path, 'data = "near"'), write(tmp_path, "memory_bytes = 1", "named.toml")
    assert load({}, {}, [near], named).data == Options().data
    with pytest.raises(ConfigurationError, match=r"nothing\.toml does not exist"):
        load({}, {}, [near], tmp_path / "nothing.toml")


def test_an_unknown_key_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(ConfigurationError, match="unknown setting 'bnd'; did you mean 'bind'"):
        load({}, {}, [write(tmp_path, 'bnd = "x"')])
    with pytest.raises(ConfigurationError, match=r"ZBROKER_MEMORY_BYTE: .*did you mean 'memory_bytes'"):
        load({}, {"ZBROKER_MEMORY_BYTE": "1"}, [])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("memory_bytes = 'x'", "memory_bytes"),
        ("insecure = 1", "insecure"),
        ("insecure = 'true'", "insecure: 'true' is a string; write true or false, without quotes"),
        ("drain_s = '5'", "drain_s: '5' is a string; write a whole number, without quotes"),
        ("memory_bytes = '1X'", "memory_bytes: '1X': a number of bytes, such as 1073741824"),
        ("no_data = true", 'no_data: unknown setting .no_data.; write data = "off"'),
        ("data = false", "data: False is not text in quotes"),
        ("memory_bytes = 9223372036854775808", "memory_bytes"),
        ("drain_s = 5.0", "drain_s"),
        ("drain_s = true", "drain_s"),
        ("log_level = 3", "log_level"),
        ("bind = 7700", "bind"),
        ("data = 3", "data"),
        ("bind =", "zbroker.toml"),
    ],
)
def test_a_bad_value_is_refused_with_its_place(tmp_path, text, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        load({}, {}, [write(tmp_path, text)])


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("5", 5), ("512K", 512 << 10), ("3m", 3 << 20), ("1G", 1 << 30), ("8589934591G", (2**33 - 1) << 30)],
)
def test_bytes_may_have_a_suffix_in_the_environment(text, count):
    assert load({}, {"ZBROKER_MEMORY_BYTES": text}, []).memory_bytes == byte_count(text) == count


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5G", "1T", "G", "1 G", "1GB", "\u0661", "9" * 19, "8589934592G", "9" * 9_999]
)
def test_what_is_no_number_of_bytes_is_refused(text):
    with pytest.raises(ConfigurationError, match=r"ZBROKER_MEMORY_BYTES: .*with K, M or G"):
        load({}, {"ZBROKER_MEMORY_BYTES": text}, [])


def test_bytes_may_have_a_suffix_in_a_file_too_and_a_mark_may_stand_before_it(tmp_path):
    assert load({}, {}, [write(tmp_path, "\ufeffmemory_bytes = '2G'")]).memory_bytes == 2 << 30


KUBERNETES = {
    "ZBROKER_PORT": "tcp://10.0.0.1:7700",
    "ZBROKER_SERVICE_HOST": "10.0.0.1",
    "ZBROKER_SERVICE_PORT": "7700",
    "ZBROKER_SERVICE_PORT_NATIVE": "7700",
    "ZBROKER_PORT_7700_TCP_PROTO": "tcp",
    "ZBROKER_NAME": "/web/zbroker",
    "ZBROKER_ENV_LANG": "C",
    "ZBROKER_VERSION": "1",
}


def test_what_a_cluster_sets_beside_a_service_of_this_name_is_ignored():
    settings = load_settings({}, KUBERNETES | {"ZBROKER_DRAIN_S": "7", "ZBROKER_URL": "zb://x"}, [])
    assert settings.options.drain_s == 7
    assert set(settings.ignored) == set(KUBERNETES)


def test_a_variable_for_what_only_a_flag_can_say_is_refused_with_what_to_write():
    with pytest.raises(ConfigurationError, match=r'ZBROKER_NO_DATA: .*write data = "off"'):
        load({}, {"ZBROKER_NO_DATA": "1"}, [])


@pytest.mark.parametrize(("text", "value"), [("1", True), ("off", False), ("TRUE", True)])
def test_the_environment_says_yes_and_no_in_words(text, value):
    assert load({}, {"ZBROKER_INSECURE": text}, []).insecure is value


@pytest.mark.parametrize("door", ["mdp", "http"])
def test_doors_that_are_not_built_yet_may_only_be_off(door):
    assert load({door: "off"}, {}, [])
    with pytest.raises(ConfigurationError, match="not built yet"):
        load({door: "tcp://127.0.0.1:0"}, {}, [])


@pytest.mark.parametrize("bind", ["tcp://0.0.0.0:7700", "tcp://*:7700", "tcp://192.168.1.5:7700", "tcp://[::]:7700"])
def test_an_address_others_reach_needs_insecure(bind):
    with pytest.raises(ConfigurationError, match="insecure"):
        load({"bind": bind}, {}, [])
    assert load({"bind": bind, "insecure": True}, {}, []).bind == bind


def test_data_off_means_no_folder():
    assert load({"data": "off"}, {}, []).data_folder is None


def test_files_are_looked_for_here_then_with_the_user_then_for_the_machine():
    places = file_places({"HOME": "/home/u"})
    assert [str(place) for place in places] == [
        "zbroker.toml",
        "/home/u/.config/zbroker/zbroker.toml",
        "/etc/zbroker/zbroker.toml",
    ]


@pytest.mark.parametrize(
    "bind", ["off", "7700", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "zb://localhost", "inproc://a"]
)
def test_a_bind_that_is_no_endpoint_is_refused(bind):
    with pytest.raises(ConfigurationError, match="bind"):
        load({"bind": bind, "insecure": True}, {}, [])


def plain_ports(**settings):
    options = load(settings, {}, [])
    return options.xsub_address, options.xpub_address


def test_plain_ports_are_open_beside_port_7700_and_closed_beside_another():
    both = ("tcp://127.0.0.1:7701", "tcp://127.0.0.1:7702")
    assert plain_ports() == both
    assert plain_ports(bind="tcp://0.0.0.0:7700", insecure=True) == both  # loopback, unless they are configured
    assert plain_ports(bind="tcp://127.0.0.1:0") == (None, None)
    assert plain_ports(bind="tcp://127.0.0.1:17700") == (None, None)
    assert plain_ports(bind="ipc:///tmp/broker") == (None, None)


def test_a_plain_port_that_is_named_is_what_it_says():
    assert plain_ports(bind="tcp://127.0.0.1:0", xsub="tcp://127.0.0.1:0") == ("tcp://127.0.0.1:0", None)
    assert plain_ports(xsub="off", xpub="ipc:///tmp/sub") == (None, "ipc:///tmp/sub")


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("7701", "tcp://host:port or ipc://path or off"),
        ("tcp://127.0.0.1:99999", "99999"),
        ("tcp://0.0.0.0:7701", "insecure"),
    ],
)
@pytest.mark.parametrize("door", ["xsub", "xpub"])
def test_a_plain_port_is_held_to_what_bind_is(door, address, complaint):
    with pytest.raises(ConfigurationError, match=f"{door} = .*{complaint}"):
        load({door: address}, {}, [])


def test_plain_bodies_are_labelled_with_a_codec_that_there_is():
    assert load({}, {"ZBROKER_PLAIN_CODEC": "json"}, []).plain_codec == "json"
    with pytest.raises(ConfigurationError, match="raw, json, msgpack"):
        load({}, {"ZBROKER_PLAIN_CODEC": "yaml"}, [])


def test_duplicate_keys_are_last_or_refused_and_say_who_wants_that():
    assert load({}, {}, []).duplicate_keys == "last"
    settings = load_settings({}, {"ZBROKER_DUPLICATE_KEYS": "refuse"}, [])
    assert (settings.options.duplicate_keys, str(settings.origins["duplicate_keys"])) == (
        "refuse",
        "ZBROKER_DUPLICATE_KEYS",
    )
    with pytest.raises(ConfigurationError, match="'first' is none of last, refuse"):
        load({"duplicate_keys": "first"}, {}, [])
