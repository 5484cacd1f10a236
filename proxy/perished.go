package proxy

import (
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/proxy/trunk"
)

const (
	// perishedFor is how long a lost connection is remembered. The peer's end of
	// it waits for a trunk no longer than the grace.
	perishedFor = time.Minute
	// mostPerished is how many are remembered.
	mostPerished = 16384
)

// perished are the connections that ended with a trunk, or waited for one in
// vain. A sender closes as soon as it has written all: nobody here can be told
// that it was lost. A receiver that has registered with a peer that had noticed
// the end of the trunk before waits for the next one, and would wait for ever.
type perished struct {
	keys []icwire.Key
	last time.Time
}

func (d *perished) add(key icwire.Key) {
	now := time.Now()
	if now.Sub(d.last) > perishedFor {
		d.keys = nil
	}
	d.last = now
	if len(d.keys) < mostPerished {
		d.keys = append(d.keys, key)
	}
}

// report tells the peer, over a new trunk, what has perished. It is called with
// pr.mu held.
func (pr *peer) report() {
	d := pr.perished
	pr.perished = perished{}
	if pr.agreement.Features&trunk.FeatureLost == 0 || time.Since(d.last) > perishedFor {
		return
	}
	for _, key := range d.keys {
		pr.trunk.Control(key.Header(icwire.Lost, 0, pr.trunk.Dialect()))
	}
}
