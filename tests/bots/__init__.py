"""Each bot against a server that speaks its platform's protocol on loopback."""
