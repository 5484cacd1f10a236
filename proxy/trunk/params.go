package trunk

import "time"

const (
	// quantum is what a stream may send before the next one has its turn: one
	// full Buffer. Less would cost system calls, more would make the packets
	// of others wait longer.
	quantum = BulkSize

	// maxBatch and maxVectors bound one writev. Beyond a quarter of a megabyte
	// a batch gains nothing and only delays what is queued meanwhile.
	maxBatch   = 256 << 10
	maxVectors = 64

	// readSize is the reader's buffer. The bigger it is the fewer reads a busy
	// trunk needs; much bigger and it no longer stays in the processor's cache
	// until it is written on.
	readSize = 256 << 10

	// notSentLowat is how much unsent data the kernel takes before it calls
	// the socket full. What it has taken can no longer be overtaken, so it is
	// kept to about one batch.
	notSentLowat = maxBatch

	// A stream takes no more when so much of it is queued, or when so much of
	// all is and it has its share: what a slow network does not take has to
	// wait with the backends, not in memory.
	streamQueue = 4 * BulkSize
	trunkQueue  = 16 << 20

	// A peer whose host vanished is noticed by keepalive probes when idle,
	// and by unacknowledged data otherwise.
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 5 * time.Second
	keepAliveCount    = 3
	userTimeout       = 30 * time.Second
)
