import resource

import pytest

from harness.ledger import Ledger


@pytest.fixture(autouse=True, scope="session")
def no_core_files():
    """Workers die of SIGSEGV by the hundred here."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@pytest.fixture
def ledger(tmp_path):
    """Where ledger_worker writes down each run: {"command": ledger.command(programs("ledger_worker"), 0, 1000)}."""
    return Ledger(tmp_path / "ledger")
