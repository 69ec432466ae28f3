import pytest

from fedtrain.errors import PeerError
from server.operator import check_name


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "x" * 201])
def test_file_name_that_leads_out_of_the_folder_is_refused(name):
    with pytest.raises(PeerError, match="nothing is written"):
        check_name(name)


@pytest.mark.parametrize("name", ["model.safetensors", "sites/a.json", "a..b"])
def test_file_name_within_the_folder_is_kept(name):
    assert str(check_name(name)) == name
