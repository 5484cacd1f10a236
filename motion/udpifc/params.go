package udpifc

import "time"

const (
	// defaultHost keeps an executor that was told nothing on this machine.
	defaultHost = "127.0.0.1"

	// The range of gp_max_packet_size, in bytes, and its default.
	minPacket     = 512
	maxPacket     = 65507
	defaultPacket = 8192

	// defaultSocketKB is what gp_udp_bufsize_k = 0 asks for, leastSocketKB
	// what it must get.
	defaultSocketKB = 2048
	leastSocketKB   = 128
	mostSocketKB    = 32768

	// refusedQuiet is the least time between two calls of Config.Refused.
	refusedQuiet = time.Minute

	// defaultRetryInterval is gp_interconnect_debug_retry_interval unless set.
	defaultRetryInterval = 10

	// maxRemembered bounds the connections, and the motions sent, that an
	// executor remembers after they have ended. They are a few for each slice
	// of a query; only late packets ask for them.
	maxRemembered = 16384
	// maxEarly bounds the bytes of packets kept for motions not received yet.
	// When it is reached the longest kept go: their senders send them again.
	maxEarly = 32 << 20

	// An abort that nobody confirms is repeated, first after abortFirst, then
	// after ever longer pauses, up to abortLast; abortTries in all.
	abortFirst = 20 * time.Millisecond
	abortLast  = time.Second
	abortTries = 10
	// closeLimit is how long Close of the interconnect waits for that.
	closeLimit = 250 * time.Millisecond

	// closeAgain is the pause until Close of a sender looks again whether a
	// receiver that was silent has come back, only not to read.
	closeAgain = time.Second

	// pauseFirst is how often a sender looks whether its producer has paused
	// with rows unsent; while the producer goes on it looks less and less
	// often, down to once in pauseLast.
	pauseFirst = time.Millisecond
	pauseLast  = 8 * time.Millisecond
	// holdLimit is for how long a packet that is not full is held back while
	// the producer fills others.
	holdLimit = 16 * time.Millisecond

	// maxTuple is PostgreSQL's own limit of one allocation.
	maxTuple = 1 << 30
	// keepTuple is the largest room for putting a tuple together that is kept
	// for the next one.
	keepTuple = 1 << 20
)
