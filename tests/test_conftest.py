import socket

import pytest
import torch

import splatsense.spherical_harmonics


def test_the_network_is_out_of_reach():
    with pytest.raises(OSError, match="tried to reach the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_loopback_works():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()


def test_arguments_are_checked_at_run_time():
    with pytest.raises(Exception, match="sh_basis"):
        splatsense.spherical_harmonics.sh_basis("three", torch.eye(3))
