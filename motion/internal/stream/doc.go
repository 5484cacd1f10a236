// Package stream moves tuples over byte streams, one connection for each pair
// of a sender and a receiver: the part that the interconnect types tcp and
// proxy have in common. The types make the connections and hand them over.
//
// The sending side packs tuples into ic-tcp packets, many in one buffer, and
// has a goroutine a connection write them while the producer goes on. A buffer
// goes out when it is half full, when the producer would wait or end, or
// shortly after the producer has paused. The receiving side has a goroutine a
// connection read big blocks of whole packets, at most queueDepth ahead of the
// consumer, who takes tuples out of them where they lie.
//
// How a connection ends:
//
//	sender    EndOfStream chunk
//	receiver  closes as soon as it has read the chunk
//	sender    sees EOF, closes, with a reset where that saves a TIME_WAIT
//
// A late sender (NewLateSender) has no connections until it needs them.
//
// With HandOver the sender closes as soon as it has written the chunk: a round
// trip less, which only somebody who carries the stream to its end can save.
//
// A receiver that has enough sends StopByte and reads on; the sender's side
// answers with EndOfStream by itself, without its producer. Any other end is a
// failure, and one failed connection fails the whole motion in this executor:
// all its connections are closed at once, so that nobody waits for a motion
// that cannot end well.
package stream
