package testkit

// ProxyDelta is added to an instance's port to get its proxy's, as in the
// published walkthrough.
const ProxyDelta = -1000
