"""The operator's web page: server-rendered, by the same control verbs as the API, with nothing from elsewhere."""
