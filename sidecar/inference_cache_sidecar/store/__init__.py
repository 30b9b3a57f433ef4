"""Where entries live. `memory` is always there; other stores keep the same promise and pass the same tests."""
