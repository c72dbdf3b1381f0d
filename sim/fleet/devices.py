"""What computes on a vehicle: how fast it trains and what that costs. A file may bring its own."""

from pydantic import Field

from fleetfl.config import Section


class Device(Section):
    """One class of computers."""

    images_per_s: float = Field(gt=0)
    """Whole 64 px images that it trains on in a second, with the shipped ViT."""
    watts: float = Field(gt=0)
    """Drawn in training, above idling."""


# Watts: the middle of the makers' power modes (AGX Orin 15 to 60 W, AGX Xavier 10 to 30 W), about what a
# Raspberry Pi 5 takes under load above its idle 3 W, and what a phone sheds without getting hot.
# Images: ASSUMPTIONS. The shipped ViT takes about 0.9 GFLOP an image to train; one server core makes 132
# images/s of it (README). A Pi 5's four cores are put at a half of that core, the others by their makers'
# float16 peaks against it with a tenth of the peak kept at batches of 32.
DEVICES = {
    "jetson_orin": Device(images_per_s=1200, watts=30),
    "jetson_xavier": Device(images_per_s=500, watts=20),
    "raspberry_pi_5": Device(images_per_s=60, watts=7),
    "phone_soc": Device(images_per_s=200, watts=4),
}
