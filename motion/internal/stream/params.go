package stream

import "time"

const (
	// smallBuffer is what a stream starts with: enough for the few rows of a
	// short query. There can be tens of thousands of streams.
	smallBuffer = 16 << 10
	// largeBuffer is what a busy stream reads and writes at a time. A system
	// call costs a few microseconds whatever the size; beyond 64 kB nothing
	// more is saved. It must hold the longest packet.
	largeBuffer = 64 << 10
	// endRoom is kept free at the end of each buffer for the last packet,
	// which then never has to wait for room.
	endRoom = 16

	// queueDepth is how many blocks a stream is read ahead of the consumer.
	// With the one it fills and the one the consumer holds, a stream takes at
	// most (queueDepth+2) * largeBuffer bytes.
	queueDepth = 2

	// pauseFirst is how often the sender looks whether its producer has
	// paused with rows unsent. A busy producer is looked at less and less
	// often, down to once in pauseLast.
	pauseFirst = time.Millisecond
	pauseLast  = 8 * time.Millisecond
	// pauseUnconnected is the first look of a sender that has no connections
	// yet. Most short queries have ended by then, and need none.
	pauseUnconnected = 2 * time.Millisecond // connectAhead is how many bytes of a stream make a sender connect while it
	// goes on packing: what is longer is not written in one anyway.
	connectAhead = 8 << 10
	// holdLimit is how long a partly filled buffer is held back at most while
	// the producer goes on filling others.
	holdLimit = 16 * time.Millisecond

	// explainLimit bounds the question why a connection was lost.
	explainLimit = time.Second
	// stopLimit bounds the write of the one stop byte.
	stopLimit = time.Second

	// maxTuple is PostgreSQL's own limit of one allocation.
	maxTuple = 1 << 30
	// keepTuple is the largest room for putting a tuple together that is kept
	// for the next one.
	keepTuple = 1 << 20
)
