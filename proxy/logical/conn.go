package logical

import (
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// AckEvery is how many packets one DATA_ACK acknowledges. It is Greenplum's
// number and part of the protocol.
const AckEvery = 10

// Window is the sending side's limit of unacknowledged packets: it stops
// reading its backend at Pause and starts again at Resume.
type Window struct {
	Pause  int
	Resume int
}

// DefaultWindow is Greenplum's.
var DefaultWindow = Window{Pause: 100, Resume: 30}

// Effect is what an event asks the caller to do, in the order of the fields.
type Effect struct {
	// Acks is how many DATA_ACK packets to send to the peer.
	Acks int
	// Grant, if not 0, is what to tell the peer in a DATA_ACK: how many bytes
	// it may have sent since the connection began, or GrantAll. It goes ahead
	// of all data, unless Late says that it has to stay behind this end's BYE.
	Grant uint64
	Late  bool
	// Bye: send BYE to the peer, after all data.
	Bye bool
	// Resume: the backend may be read again.
	Resume bool
	// Shutdown: everything has been delivered; shut down the write side
	// towards the backend.
	Shutdown bool
	// Discard: drop what is kept for the backend and do not deliver more.
	Discard bool
	// Close: close the connection to the backend.
	Close bool
	// Ended: the connection is over; call Table.Remove.
	Ended bool
}

// Conn is one end of one logical connection.
type Conn struct {
	Key icwire.Key
	// Owner is the caller's own, such as the socket. This package does not
	// touch it.
	Owner any

	table *Table
	since time.Time // of the first packet, while early

	backend bool // a backend has said HELLO and has not been closed since
	gone    bool // no backend takes data any more, or has any: discard
	deaf    bool // the backend takes no more data, but may have some: discard
	served  bool // the caller has been told to serve the backend
	older   bool // than the trunk there is
	byeSent bool
	byeGot  bool
	shut    bool // Shutdown has been asked for
	ended   bool

	pending int // bytes arrived and not taken yet

	// By packets, with a Greenplum proxy.
	unacked int // packets sent and not acknowledged
	paused  bool
	units   int // packets that end in pending
	taken   int // packets taken and not acknowledged yet
	counter icwire.PacketCounter

	credit // by bytes, with a Trunkline proxy

	next *Conn // of the same key, waiting for this one to end
}

// Served says whether the connection has its backend and its turn.
func (c *Conn) Served() bool { return c.served }

// Early says whether the connection still waits for its backend's HELLO.
func (c *Conn) Early() bool { return !c.backend && !c.gone && !c.ended }

// Complete says whether all has arrived that will.
func (c *Conn) Complete() bool { return c.byeGot }

// Pending is the number of bytes that have arrived and have not been taken.
func (c *Conn) Pending() int { return c.pending }

// Room is how many bytes the backend may be read for now; 0 while the window is
// full and after BYE.
func (c *Conn) Room() int {
	switch {
	case c.byeSent || c.ended:
		return 0
	case c.table.Credit:
		return c.creditRoom()
	case c.paused:
		return 0
	}
	return (c.table.Window.Pause - c.unacked) * c.table.Payload
}

// Stuck says, by a number that changes whenever it moves, that a Greenplum
// remote end has ended and left the window full: it may never acknowledge.
func (c *Conn) Stuck() (unacked int, stuck bool) {
	return c.unacked, c.byeGot && c.paused && !c.table.Credit
}

// Sent records that n bytes in so many packets have been read from the backend,
// n <= Room. It is false when they must be thrown away, because BYE has gone
// out since or the remote end has no use for them.
func (c *Conn) Sent(n, packets int) bool {
	if c.byeSent || c.ended {
		return false
	}
	if c.table.Credit {
		c.sent += uint64(n)
		c.sends()
		return c.limit != GrantAll
	}
	c.unacked += packets
	if c.unacked >= c.table.Window.Pause {
		c.paused = true
	}
	return true
}

// Ack records a DATA_ACK from the peer; with a Trunkline peer it grants so many
// bytes. One that was sent behind a BYE which has not come, or ahead of one that
// has, is of another connection of the same key.
func (c *Conn) Ack(grant uint64, late bool) Effect {
	if c.table.Credit {
		if late != c.byeGot {
			return Effect{}
		}
		had := c.creditRoom()
		c.limit = max(c.limit, grant)
		return Effect{Resume: had == 0 && c.creditRoom() > 0}
	}
	c.unacked = max(0, c.unacked-AckEvery)
	if c.paused && c.unacked <= c.table.Window.Resume {
		c.paused = false
		return Effect{Resume: true}
	}
	return Effect{}
}

// arrive records n bytes of DATA, in which units packets end, and says whether
// to keep them for the backend. Not kept, they count as taken: so many
// DATA_ACKs are due.
func (c *Conn) arrive(n, units int) (keep bool, acks int) {
	c.got += uint64(n)
	if c.gone || c.deaf {
		return false, c.acks(units)
	}
	c.pending += n
	c.units += units
	return true, 0
}

// took records that the backend has taken n bytes, and with them the last
// byte of units packets.
func (c *Conn) took(n, units int, now time.Time) Effect {
	if c.gone || c.deaf {
		return Effect{}
	}
	c.pending -= n
	c.units -= units
	c.used += uint64(n)
	e := Effect{Acks: c.acks(units)}
	c.grantIn(&e, now)
	c.settle(&e)
	return e
}

// acks returns how many DATA_ACKs are due. After the remote's BYE none is: its
// sender needs no more, and may be gone.
func (c *Conn) acks(units int) int {
	if c.table.Credit {
		return 0
	}
	c.taken += units
	n := c.taken / AckEvery
	c.taken %= AckEvery
	if c.byeGot {
		return 0
	}
	return n
}

// bye records the remote end's BYE.
func (c *Conn) bye() Effect {
	c.byeGot = true
	var e Effect
	c.settle(&e)
	return e
}

// localEOF records that the backend has shut down its write side.
func (c *Conn) localEOF() Effect {
	var e Effect
	if !c.byeSent && !c.ended {
		c.byeSent, e.Bye = true, true
		// Nothing will be read any more, so nobody waits for room.
		c.paused = false
	}
	c.settle(&e)
	return e
}

// localGone records that the backend can neither be read nor written, or must
// not be served any longer. What comes for it is discarded and acknowledged,
// so that the remote end can finish.
func (c *Conn) localGone() Effect {
	var e Effect
	if c.ended {
		return e
	}
	if !c.gone {
		c.gone, e.Discard, e.Close = true, true, c.backend
		c.backend = false
		c.forgo(&e)
	}
	if !c.byeSent {
		c.byeSent, e.Bye = true, true
	}
	e.Resume = true
	c.settle(&e)
	return e
}

// localDeaf records that the backend cannot be written any more. A sender that
// has written all it has closes its socket at once, though the receiver may yet
// tell it to stop: what it has written must be read all the same.
func (c *Conn) localDeaf() Effect {
	var e Effect
	if c.ended || c.gone || c.deaf {
		return e
	}
	c.deaf, e.Discard = true, true
	c.forgo(&e)
	c.settle(&e)
	return e
}

// forgo throws away what is there for the backend. It has to be acknowledged
// too, or a full window would keep the remote proxy from seeing its backend's
// end.
func (c *Conn) forgo(e *Effect) {
	e.Acks = c.acks(c.units)
	c.grantAll(e)
	c.pending, c.units = 0, 0
}

// lost records that the connection to the peer has ended. A connection whose
// remote end had finished delivers what it has; any other ends at once.
func (c *Conn) lost() Effect {
	var e Effect
	if c.ended {
		return e
	}
	e.Resume = true
	if c.byeGot && c.backend && c.served {
		c.byeSent = true // there is nobody to send it to
		c.settle(&e)
		return e
	}
	e.Discard, e.Close, e.Ended = true, c.backend, true
	c.byeSent, c.byeGot, c.gone, c.ended = true, true, true, true
	c.pending, c.units = 0, 0
	c.backend = false
	return e
}

// forget ends a connection whose remote end will not say BYE any more.
func (c *Conn) forget() Effect {
	c.ended = true
	return Effect{Ended: true}
}

// settle adds what follows from the state as it is now.
func (c *Conn) settle(e *Effect) {
	if c.ended || !c.byeGot || (c.pending > 0 && !c.gone) {
		return
	}
	if c.backend && c.served && !c.shut {
		c.shut, e.Shutdown = true, true
	}
	if c.byeSent {
		c.ended, e.Ended = true, true
		e.Close = e.Close || c.backend
		c.backend = false
	}
}

// Finished says whether the backend will not be read any more.
func (c *Conn) Finished() bool { return c.byeSent || c.ended || c.gone }
