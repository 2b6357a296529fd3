from patterns.wire.messages import Codec
from patterns.wire.parcel import Parcel


def test_a_parcel_ends_with_the_number_of_its_last_message() -> None:
    parcel = Parcel(41, 10, Codec.RAW, b"12", b"345")
    assert (parcel.last, parcel.size) == (50, 5)
