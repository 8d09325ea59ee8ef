from __future__ import annotations

import subprocess

from imds_proxy.clients.replacement import curl_lines


def test_the_two_lines_are_a_token_and_a_read_with_it() -> None:
    put, get = curl_lines("/latest/meta-data/region-id")
    assert put.startswith("token=$(curl ") and "-X PUT" in put and "/latest/api/token" in put
    assert get.endswith("http://100.100.100.200/latest/meta-data/region-id")
    assert "X-aliyun-ecs-metadata-token: $token" in get


def test_a_hostile_path_stays_one_word_of_a_shell() -> None:
    script = 'curl() { echo "$#" "${@: -1}"; }; token=x; ' + curl_lines("/a';touch /tmp/x;$(id)`id`")[1]
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "4 http://100.100.100.200/a';touch /tmp/x;$(id)`id`\n"
