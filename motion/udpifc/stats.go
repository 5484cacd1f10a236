package udpifc

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
)

// Stats are counts since an interconnect was made.
type Stats struct {
	// Datagrams and their bytes, headers included, of all kinds.
	Sent, SentBytes         int64
	Received, ReceivedBytes int64
	// Ignored datagrams were none of ours, or damaged.
	Ignored int64
	// Data packets sent for the first time and again.
	Data, Retransmitted int64
	// Queries for a lost ack.
	Queries int64
	// Disorder and Duplicates are reports sent to senders.
	Disorder, Duplicates int64
}

// Since is how much s is more than before.
func (s Stats) Since(before Stats) Stats {
	return Stats{
		Sent: s.Sent - before.Sent, SentBytes: s.SentBytes - before.SentBytes,
		Received: s.Received - before.Received, ReceivedBytes: s.ReceivedBytes - before.ReceivedBytes, Ignored: s.Ignored - before.Ignored,
		Data: s.Data - before.Data, Retransmitted: s.Retransmitted - before.Retransmitted, Queries: s.Queries - before.Queries,
		Disorder: s.Disorder - before.Disorder, Duplicates: s.Duplicates - before.Duplicates,
	}
}

// String is the line that gp_interconnect_log_stats writes.
func (s Stats) String() string {
	return fmt.Sprintf("interconnect statistics: data packets %d, retransmits %d, status queries %d; datagrams sent %d (%d bytes), received %d (%d bytes), ignored %d; disorder %d, duplicates %d",
		s.Data, s.Retransmitted, s.Queries, s.Sent, s.SentBytes, s.Received, s.ReceivedBytes, s.Ignored, s.Disorder, s.Duplicates)
}

type counters struct {
	sent, sentBytes, received, receivedBytes, ignored atomic.Int64
	data, retransmitted, queries                      atomic.Int64
	disorder, duplicates                              atomic.Int64
}

// Stats returns the counts as they are now.
func (ic *Interconnect) Stats() Stats {
	c := &ic.stats
	return Stats{
		Sent: c.sent.Load(), SentBytes: c.sentBytes.Load(),
		Received: c.received.Load(), ReceivedBytes: c.receivedBytes.Load(), Ignored: c.ignored.Load(),
		Data: c.data.Load(), Retransmitted: c.retransmitted.Load(), Queries: c.queries.Load(),
		Disorder: c.disorder.Load(), Duplicates: c.duplicates.Load(),
	}
}

// dropAck and dropData say whether to lose a packet on purpose.
func (ic *Interconnect) dropAck() bool  { return drop(ic.tuning.Load().DropAcks) }
func (ic *Interconnect) dropData() bool { return drop(ic.tuning.Load().DropData) }

func drop(percent int) bool { return percent > 0 && rand.IntN(100) < percent }
