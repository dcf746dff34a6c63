"""Contract tests, fakes and factories: shipped, so that a new implementation can prove itself."""
