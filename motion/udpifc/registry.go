package udpifc

import (
	"bytes"
	"net/netip"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
)

// The instance field of a header is the command and, in its low byte, which
// use of the motion's key this is. Greenplum counts plans there; here several
// plans of one command may have motions of the same key, one after the other.
const (
	useBits = 8
	useMask = 1<<useBits - 1
)

// use numbers the uses of a key. It wraps around: a key has not more than a
// few uses at any time.
type use uint8

// after says whether u is a later use than v.
func (u use) after(v use) bool { return int8(u-v) > 0 }

// connKey is the key of a connection for one use of the motion.
func connKey(id motion.ID, from, to motion.Peer, u use) icwire.UDPKey {
	return icwire.UDPKey{
		Session: id.Session, Instance: id.Command<<useBits | uint32(u),
		SendSlice: int32(id.SendSlice), RecvSlice: int32(id.RecvSlice),
		SrcContent: int32(from.Content), SrcPid: from.Pid,
		DstContent: int32(to.Content), DstPid: to.Pid,
	}
}

// split takes the use out of a key.
func split(k icwire.UDPKey) (icwire.UDPKey, use) {
	u := use(k.Instance & useMask)
	k.Instance &^= useMask
	return k, u
}

// registry brings packets from senders and receivers together. It needs a
// mutex.
type registry struct {
	open  map[icwire.UDPKey]*inConn
	past  *recent[icwire.UDPKey, past]
	early *recent[icwire.UDPKey, *early]
	bytes int // in early
}

// past is how the last use of a key ended here.
type past struct {
	known  bool // there was one whose sender came
	use    use
	failed bool
	// refuse says that a receiver has ended after it whose sender had not
	// come: the next use is that one.
	refuse bool
}

// early is a use of a key that is not received yet.
type early struct {
	use     use
	packets [][]byte
	bytes   int
	from    netip.AddrPort
	aborted bool
}

func (g *registry) init() {
	g.open = map[icwire.UDPKey]*inConn{}
	g.past = newRecent[icwire.UDPKey, past](maxRemembered)
	g.early = newRecent[icwire.UDPKey, *early](maxRemembered)
}

// expect announces the connections of a receiver. replay is the packets that
// have come already, by connection.
func (g *registry) expect(conns []*inConn) (replay []*early, err error) {
	for _, c := range conns {
		if g.open[c.key] != nil {
			return nil, motion.Errorf("interconnect error: A HTAB entry for motion node %d already exists", c.key.SendSlice)
		}
	}
	replay = make([]*early, len(conns))
	for i, c := range conns {
		if p, ok := g.past.get(c.key); ok && p.refuse {
			p.refuse = false
			g.past.put(c.key, p)
		}
		if e, ok := g.early.get(c.key); ok {
			g.forget(c.key, e)
			c.bound, c.use = true, e.use
			replay[i] = e
		}
		g.open[c.key] = c
	}
	return replay, nil
}

// release ends connections of a receiver.
func (g *registry) release(conns []*inConn, failed bool) {
	for _, c := range conns {
		if g.open[c.key] == c {
			delete(g.open, c.key)
			p, _ := g.past.get(c.key)
			if p.refuse = !c.bound; c.bound {
				p.known, p.use, p.failed = true, c.use, failed && !c.complete.Load()
			}
			g.past.put(c.key, p)
		}
	}
}

func (g *registry) forget(k icwire.UDPKey, e *early) {
	g.bytes -= e.bytes
	g.early.remove(k)
}

// verdict is what to do with a packet from a sender.
type verdict struct {
	conn  *inConn         // deliver it
	lost  *inConn         // this connection's sender has given it up for another use
	reply icwire.UDPFlags // answer with this; 0 for not at all
}

const (
	replyStop  = icwire.UDPStop | icwire.UDPAck | icwire.UDPCapacity
	replyAbort = icwire.UDPNak | icwire.UDPAbort
)

// route takes a packet from a sender. depth is how many packets of a
// connection are kept before it is received.
func (g *registry) route(h *icwire.UDPHeader, body []byte, from netip.AddrPort, depth int) (v verdict) {
	key, u := split(h.UDPKey)
	p, _ := g.past.get(key)
	switch {
	case p.known && !u.after(p.use):
		if u == p.use && p.failed {
			return verdict{reply: replyAbort}
		}
		return verdict{reply: replyStop}
	case p.refuse:
		g.past.put(key, past{known: true, use: u, failed: true})
		return verdict{reply: replyAbort}
	}
	if c := g.open[key]; c != nil {
		if !c.bound {
			c.bound, c.use = true, u
		}
		switch {
		case c.use == u:
			return verdict{conn: c}
		case !u.after(c.use):
			return verdict{reply: replyStop}
		case !c.complete.Load():
			v.lost = c
		}
	}
	if !g.keep(key, u, h, body, from, depth) {
		v.reply = icwire.UDPNak
	}
	return v
}

// keep keeps a packet of a use that is not received yet, if it may.
func (g *registry) keep(key icwire.UDPKey, u use, h *icwire.UDPHeader, body []byte, from netip.AddrPort, depth int) bool {
	e, ok := g.early.get(key)
	if ok && e.use.after(u) {
		return false
	}
	aborted := h.Flags&icwire.UDPAbort != 0
	if depth == 0 && !aborted {
		return false
	}
	if !ok || e.use != u {
		if ok {
			g.forget(key, e)
		}
		e = &early{use: u}
		if len(g.early.entries) >= maxRemembered {
			g.evict()
		}
		g.early.put(key, e)
	}
	e.from = from
	if aborted {
		g.bytes -= e.bytes
		e.aborted, e.packets, e.bytes = true, nil, 0
		return true
	}
	if e.aborted || len(body) == 0 || h.Seq > uint32(depth) {
		return false
	}
	packet := make([]byte, icwire.UDPHeaderLen, icwire.UDPHeaderLen+len(body))
	packet = append(packet, body...)
	h.Put(packet, false)
	for _, have := range e.packets {
		if bytes.Equal(have[:icwire.UDPHeaderLen], packet[:icwire.UDPHeaderLen]) {
			return true
		}
	}
	e.packets = append(e.packets, packet)
	e.bytes += len(packet)
	g.bytes += len(packet)
	for g.bytes > maxEarly {
		g.evict()
	}
	return true
}

// evict forgets the packets that were kept for longest.
func (g *registry) evict() {
	if e, ok := g.early.evict(); ok {
		g.bytes -= e.bytes
	}
}
