"""fewclip_app: the page for people who don't write code. It only calls what the SDK offers."""
