"""The one table of point names."""

import pytest

from protocols.quantities import Quantity, all_quantities, quantity


def test_import_and_export_are_two_quantities_with_their_own_codes() -> None:
    total = quantity("active_import_total")
    assert total == Quantity(
        name="active_import_total",
        label_en="active energy import total",
        label_zh="正向有功总电能",
        unit="kWh",
        obis="1-0:1.8.0",
        kind="register",
        decimals=2,
    )
    assert quantity("active_export_total").obis == "1-0:2.8.0"
    assert quantity("active_import_t1").obis == "1-0:1.8.1"
    assert quantity("active_export_t63").obis == "1-0:2.8.63"


@pytest.mark.parametrize(
    ("point", "kind", "unit"),
    [
        ("reactive_import_total", "register", "kvarh"),
        ("reactive_q1", "register", "kvarh"),
        ("voltage_a", "instantaneous", "V"),
        ("current_n", "instantaneous", "A"),
        ("active_power_total", "instantaneous", "kW"),
        ("power_factor_a", "instantaneous", ""),
        ("frequency", "instantaneous", "Hz"),
        ("demand_import_total", "demand", "kW"),
        ("clock", "state", ""),
        ("active_combined_total", "instantaneous", "kWh"),
    ],
)
def test_every_quantity_has_one_kind_and_one_unit(point: str, kind: str, unit: str) -> None:
    found = quantity(point)
    assert (found.kind, found.unit) == (kind, unit)


def test_names_labels_and_codes_are_unique() -> None:
    everything = all_quantities()
    for attribute in ("name", "label_en", "label_zh"):
        assert len({getattr(one, attribute) for one in everything}) == len(everything)
    codes = [one.obis for one in everything if one.obis is not None]
    assert len(set(codes)) == len(codes)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(KeyError) as caught:
        quantity("active_imprt_total")
    assert str(caught.value).endswith("the nearest is 'active_import_total'")
    with pytest.raises(KeyError) as caught:
        quantity("#")
    assert str(caught.value) == "there is no quantity '#'"
