"""fewclip_service: an exported classifier over HTTP. No torch here, not even indirectly."""
