"""GPT-NeoX with the head and the activation of Pythia, which KerasHub's class lacks."""
