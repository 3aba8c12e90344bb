"""Fine-tune, test and run video classifiers on camera-trap clips with the LightningCLI."""
