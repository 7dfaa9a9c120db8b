"""Which networks are taken, and what is said about the others. No hub is contacted here."""

import pytest
import timm

from aggmask.errors import UserError
from aggmask.model.backbone import TimmBackbone


def test_unknown_names_have_suggestions():
    with pytest.raises(UserError, match=r"name=resnet1: timm has no such network; did you mean .*resnet1"):
        TimmBackbone("resnet1", pretrained=False)


def test_networks_without_the_strides_are_refused():
    with pytest.raises(UserError, match=r"name=convmixer_768_32: features at strides \(7, 7, 7, 7\)"):
        TimmBackbone("convmixer_768_32", pretrained=False)
    with pytest.raises(UserError, match=r"name=levit_128: gives no maps at strides"):
        TimmBackbone("levit_128", pretrained=False)


def test_networks_for_pictures_of_one_size_are_refused():
    with pytest.raises(UserError, match=r"name=gmlp_ti16_224: takes no pictures of 64 x 96 pixels"):
        TimmBackbone("gmlp_ti16_224", pretrained=False)


def test_without_a_network_the_message_says_what_to_do(monkeypatch):
    create = timm.create_model

    def offline(*args, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no route to host")
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"could not be downloaded \(OSError\).*model.backbone.weights=FILE"):
        TimmBackbone("resnet18", pretrained=True)
