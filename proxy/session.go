package proxy

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/iov"
	"github.com/trunkline-db/trunkline/proxy/trunk"
)

// session is a trunk as its peer's handler.
type session struct {
	pr *peer
	t  *trunk.Trunk

	locked  bool
	now     time.Time // of the batch
	touched []*batch  // with what has come for their backends
	spare   []*batch
}

// Packet implements trunk.Handler. The peer's lock is held from the first packet
// of a batch to its end: nothing in between waits.
func (s *session) Packet(h icwire.Header, payload []byte, end bool) error {
	pr := s.pr
	if h.DstDbid != pr.p.dbid || h.SrcDbid != pr.entry.Dbid {
		pr.p.misrouted.Add(1)
		pr.p.log.limited("misrouted", slog.LevelWarn, "dropped a packet that is not between the two instances of its connection",
			"peer", pr.label, "packet", h.String())
		return nil
	}
	if !s.locked {
		pr.mu.Lock()
		s.locked, s.now = true, time.Now()
		pr.table.RTT = max(s.t.RTT(), leastRTT)
	}
	if pr.trunk != s.t {
		return trunk.ErrClosed
	}
	switch {
	case h.Type == icwire.Data:
		lc, keep, units, e := pr.table.Data(h.DstKey(), payload, end, s.now)
		if lc == nil {
			return nil
		}
		c, _ := lc.Owner.(*conn)
		if keep && c == nil {
			c = newConn(pr, lc)
		}
		if keep && len(payload) > 0 {
			s.bring(c, payload, units)
		}
		pr.do(lc, e)
	case h.Type == icwire.Bye && len(payload) == 0:
		if lc, e := pr.table.Bye(h.DstKey(), s.now); lc != nil {
			pr.do(lc, e)
		}
	case h.Type == icwire.DataAck && !pr.table.Credit && len(payload) == 0:
		if lc, e := pr.table.Ack(h.DstKey(), 0, false); lc != nil {
			pr.do(lc, e)
		}
	case h.Type == icwire.DataAck && pr.table.Credit && len(payload) == 8:
		grant := binary.LittleEndian.Uint64(payload)
		if lc, e := pr.table.Ack(h.DstKey(), grant&^lateGrant, grant&lateGrant != 0); lc != nil {
			pr.do(lc, e)
		}
	case h.Type == icwire.Lost && len(payload) == 0 && pr.agreement.Features&trunk.FeatureLost != 0:
		if lc, e := pr.table.Perished(h.DstKey()); lc != nil {
			pr.do(lc, e)
		}
	case h.Type == icwire.Free && pr.table.Credit && len(payload) == 8:
		pr.table.Free = binary.LittleEndian.Uint64(payload)
	default:
		return &icwire.ProtocolError{Reason: fmt.Sprintf("unexpected %v", h)}
	}
	return nil
}

// bring adds a payload to what the batch has brought for c.
func (s *session) bring(c *conn, payload []byte, units int) {
	b := c.batch
	if b == nil {
		if n := len(s.spare); n > 0 {
			b, s.spare = s.spare[n-1], s.spare[:n-1]
		} else {
			b = newBatch()
		}
		b.conn, c.batch = c, b
		s.touched = append(s.touched, b)
	}
	b.vec.Add(payload)
	b.units += units
}

// Batch implements trunk.Handler: what has come is handed to the backends.
func (s *session) Batch() {
	if !s.locked {
		return
	}
	pr := s.pr
	s.locked = false
	for _, b := range s.touched {
		b.conn.batch = nil
	}
	if len(s.touched) == 0 {
		pr.unlock()
		return
	}
	pr.mu.Unlock()
	for _, b := range s.touched {
		b.conn.offer(b)
	}
	pr.mu.Lock()
	defer pr.unlock()
	for _, b := range s.touched {
		lc := b.conn.lc
		switch {
		case b.err != nil:
			pr.do(lc, pr.table.Deaf(lc))
		case b.taken > 0:
			pr.do(lc, pr.table.Taken(lc, b.taken, b.units, s.now))
		default:
			pr.arrived(b.conn, s.now)
		}
		b.reset()
	}
	s.spare, s.touched = append(s.spare, s.touched...), s.touched[:0]
}

// batch is what one read of the trunk has brought for one backend, still in
// the reader's buffer.
type batch struct {
	conn  *conn
	vec   iov.Vec
	units int // packets that end in it

	// What offer has made of it: so many bytes taken, with them units packets.
	taken int
	err   error

	try func(fd uintptr) bool
}

func newBatch() *batch {
	b := &batch{}
	b.try = func(fd uintptr) bool {
		b.err = b.vec.Write(int(fd))
		return true
	}
	return b
}

func (b *batch) reset() {
	b.vec.Reset()
	b.conn, b.units, b.taken, b.err = nil, 0, 0, nil
}

// offer gives the backend what its socket takes at once and keeps a copy of
// the rest.
func (c *conn) offer(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.discarded || c.closed {
		return
	}
	if c.ready && !c.delivering && len(c.inbox) == 0 {
		n := b.vec.Len()
		if err := c.raw.Write(b.try); err != nil {
			b.err = err
		}
		if b.err != nil {
			return
		}
		b.taken = n - b.vec.Len()
		if b.vec.Len() == 0 {
			return
		}
	}
	b.vec.Rest(c.keep)
	c.inbox[len(c.inbox)-1].units += b.units
	b.units = 0
	c.kick()
}
