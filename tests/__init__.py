import pytest

# failed assertions of the contracts show their values, as those of test files do
pytest.register_assert_rewrite("tests.contracts")
