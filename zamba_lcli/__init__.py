"""Fine-tune, test and run video classifiers on camera-trap clips with the LightningCLI."""

__version__ = "0.1.0"
