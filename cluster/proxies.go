package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/trunkline-db/trunkline/proxy"
)

// AwaitProxies waits until every two instances' proxies are connected, not
// longer than limit. A standby has none.
func (c *Cluster) AwaitProxies(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the proxies are not connected after %v", limit))
	defer cancel()
	for _, inst := range c.instances {
		if inst.IsStandby() {
			continue
		}
		for {
			st, err := proxy.ReadStatus(ctx, data(inst).ProxySocket())
			if err == nil && st.Socket != "" && st.Healthy() {
				break
			}
			if !pause(ctx, pollEvery) {
				return fmt.Errorf("%v: %w", inst, context.Cause(ctx))
			}
		}
	}
	return nil
}
