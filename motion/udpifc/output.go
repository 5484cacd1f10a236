package udpifc

import (
	"fmt"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

// output is a sender as its link sees it. Its methods are called under the
// sender's mutex.
type output struct{ *sender }

// Send implements link.Output.
func (o output) Send(conn int, p *link.Packet) {
	s := o.sender
	c := &s.conns[conn]
	h := c.hdr
	h.Seq = p.Seq
	if p.EOS {
		h.Flags = icwire.UDPEOS
	}
	h.Put(p.Buf, s.ic.crc())
	ic := s.ic
	if p.Tries == 0 {
		ic.stats.data.Add(1)
	} else {
		ic.stats.retransmitted.Add(1)
		if ic.cfg.Log != nil && p.Tries%s.tuning.RetryInterval == 0 {
			ic.cfg.Log(fmt.Sprintf("packet (seq %d) to %s (pid %d cid %d) sent again for the %dth time, connection %v",
				p.Seq, at(c.peer), c.peer.Pid, c.peer.Content, p.Tries, c.hdr.UDPKey))
		}
	}
	if ic.dropData() {
		return
	}
	if err := ic.send(s.sock, p.Buf, c.to); err != nil && s.broken == nil {
		s.broken = sendError(c.peer, len(p.Buf), err)
	}
}

// Query implements link.Output.
func (o output) Query(conn int, last uint32) {
	c := &o.conns[conn]
	h := c.hdr
	h.Flags, h.Seq = icwire.UDPCapacity, last
	o.ic.stats.queries.Add(1)
	o.ic.say(o.sock, &h, c.to)
}

// Release implements link.Output.
func (o output) Release(_ int, p *link.Packet) { o.recycle(p) }

func (s *sender) recycle(p *link.Packet) {
	if b := p.Buf; cap(b) == s.ic.cfg.MaxPacket {
		b = b[:cap(b)]
		s.ic.bufs.Put(&b)
	}
	p.Buf = nil
}

// Warn implements link.Output.
func (o output) Warn(conn int, p *link.Packet) {
	if o.ic.cfg.Warn != nil {
		o.ic.cfg.Warn(retryWarning(o.conns[conn].peer, p))
	}
}
