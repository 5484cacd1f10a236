package logical

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunkline-db/trunkline/icwire"
)

// world is two proxies' tables with one wire each way, and the backends that
// use one key over and over.
type world struct {
	t     *rapid.T
	sides [2]*side
	unit  int // bytes of a packet
}

type side struct {
	w     *world
	me    int
	table *Table
	key   icwire.Key
	now   time.Time

	wire []packet // towards the other side
	gens []*gen   // every backend that said HELLO, in order
}

type packet struct {
	kind  icwire.Type
	data  byte
	grant uint64
	late  bool
}

// gen is one backend: one generation of the key.
type gen struct {
	conn     *Conn
	sent     []byte // what it wrote
	got      []byte // what it took
	waiting  []byte // kept for it
	eof      bool   // has shut down its write side
	seenEOF  bool
	dead     bool
	deaf     bool // has closed its socket after all it had written
	byes     int
	sawClose bool
}

func (s *side) other() *side { return s.w.sides[1-s.me] }

func (s *side) gen(c *Conn) *gen {
	if c.Owner == nil {
		c.Owner = &gen{conn: c}
	}
	return c.Owner.(*gen)
}

// do carries out an effect: control packets go ahead of data, BYE goes last.
func (s *side) do(c *Conn, e Effect) {
	g := s.gen(c)
	for range e.Acks {
		s.wire = slices.Insert(s.wire, 0, packet{kind: icwire.DataAck})
	}
	if e.Grant > 0 && !e.Late {
		s.wire = slices.Insert(s.wire, 0, packet{kind: icwire.DataAck, grant: e.Grant})
	}
	if e.Bye {
		if g.byes++; g.byes > 1 {
			s.w.t.Fatalf("second BYE")
		}
		s.wire = append(s.wire, packet{kind: icwire.Bye})
	}
	if e.Grant > 0 && e.Late {
		s.wire = append(s.wire, packet{kind: icwire.DataAck, grant: e.Grant, late: true})
	}
	if e.Shutdown {
		if len(g.waiting) > 0 && !g.dead {
			s.w.t.Fatalf("shut down with %d bytes undelivered", len(g.waiting))
		}
		g.seenEOF = true
	}
	if e.Discard {
		g.waiting = nil
	}
	g.sawClose = g.sawClose || e.Close
	if e.Ended {
		if next, e := s.table.Remove(c); next != nil {
			s.do(next, e)
		}
	}
}

func (s *side) hello() {
	c, e, _, refused := s.table.Hello(s.key, s.now)
	if refused != "" {
		return
	}
	s.gens = append(s.gens, s.gen(c))
	s.do(c, e)
}

func (s *side) live() []*gen {
	var l []*gen
	for _, g := range s.gens {
		if !g.dead && !g.conn.ended && g.conn.Served() {
			l = append(l, g)
		}
	}
	return l
}

func (s *side) write(g *gen, n int) {
	n = min(n, g.conn.Room()/s.w.unit)
	if g.eof || n == 0 {
		return
	}
	if !g.conn.Sent(n*s.w.unit, n) {
		// Only who sends to nobody may be told to throw it away.
		if to := s.other().gens[slices.Index(s.gens, g)]; !g.conn.Finished() && !to.dead && !to.deaf {
			s.w.t.Fatalf("what is sent to a living backend is thrown away")
		}
		return
	}
	for range n {
		b := byte(len(g.sent))
		g.sent = append(g.sent, b)
		s.wire = append(s.wire, packet{kind: icwire.Data, data: b})
	}
	if !s.table.Credit && g.conn.unacked > s.table.Window.Pause {
		s.w.t.Fatalf("%d unacknowledged", g.conn.unacked)
	}
}

func (s *side) closeWrite(g *gen) {
	if !g.eof {
		g.eof = true
		s.do(g.conn, s.table.EOF(g.conn))
	}
}

func (s *side) take(g *gen, n int) {
	n = min(n, len(g.waiting))
	if n == 0 {
		return
	}
	g.got = append(g.got, g.waiting[:n]...)
	g.waiting = g.waiting[n:]
	s.do(g.conn, s.table.Taken(g.conn, n*s.w.unit, n, s.now))
}

// receive takes the next packet of the other side's wire.
func (s *side) receive() bool {
	from := s.other()
	if len(from.wire) == 0 {
		return false
	}
	p := from.wire[0]
	from.wire = from.wire[1:]
	switch p.kind {
	case icwire.Data:
		c, keep, _, e := s.table.Data(s.key, bytes.Repeat([]byte{p.data}, s.w.unit), true, s.now)
		if keep {
			g := s.gen(c)
			g.waiting = append(g.waiting, p.data)
			if s.table.Credit && uint64(len(g.waiting)*s.w.unit) > max(s.other().table.Free, uint64(s.table.Budget.maxWindow.Load())) {
				s.w.t.Fatalf("%d packets wait for a backend, window %d", len(g.waiting), c.window)
			}
			// Twice: an acknowledgement of the generation before, whose backend
			// died, may arrive after its end and count for the next.
			if len(g.waiting) > 2*s.table.Window.Pause && !s.table.Credit {
				s.w.t.Fatalf("%d packets wait for a backend", len(g.waiting))
			}
		}
		if c != nil {
			s.do(c, e)
		}
	case icwire.Bye:
		if c, e := s.table.Bye(s.key, s.now); c != nil {
			s.do(c, e)
		}
	case icwire.DataAck:
		if c, e := s.table.Ack(s.key, p.grant, p.late); c != nil {
			s.do(c, e)
		}
	}
	return true
}

// Two ends, one key used again and again, backends that write, read, half
// close and die at any moment: every byte arrives in order and at the
// generation it was sent to, each end says BYE once, the window holds, and
// when all have closed nothing is left.
func TestTwoEnds(t *testing.T)       { rapid.Check(t, func(t *rapid.T) { twoEnds(t, nil) }) }
func TestTwoEndsCredit(t *testing.T) { rapid.Check(t, func(t *rapid.T) { twoEnds(t, credited) }) }

// credited makes s one of two Trunkline proxies, now and then one with hardly
// any memory.
func credited(t *rapid.T, s *side) {
	s.w.unit = 2048
	total := rapid.SampledFrom([]int64{0, 1 << 20, 64 << 20, 1 << 30}).Draw(t, "budget")
	s.table.Credit, s.table.Budget = true, NewBudget(total, 1<<20)
	s.table.RTT = rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second}).Draw(t, "rtt")
	s.table.Free = rapid.SampledFrom([]uint64{MinWindow, InitialWindow}).Draw(t, "free")
}

func twoEnds(t *rapid.T, edit func(*rapid.T, *side)) {
	w := &world{t: t, unit: 1}
	keys := icwire.Key{Command: 3, Local: icwire.End{Dbid: 1, Pid: 10}, Remote: icwire.End{Dbid: 2, Pid: 20}}
	for i := range w.sides {
		w.sides[i] = &side{w: w, me: i, table: NewTable(), key: keys, now: time.Unix(1, 0)}
		keys = keys.Flip()
		w.sides[i].table.Payload = 1
		if edit != nil {
			edit(t, w.sides[i])
		}
	}
	deaths := rapid.Bool().Draw(t, "deaths")
	pick := func(s *side, name string) *gen {
		if l := s.live(); len(l) > 0 {
			return rapid.SampledFrom(l).Draw(t, name)
		}
		return nil
	}
	for range rapid.IntRange(1, 200).Draw(t, "steps") {
		s := w.sides[rapid.IntRange(0, 1).Draw(t, "side")]
		switch rapid.IntRange(0, 12).Draw(t, "op") {
		case 0:
			if len(s.gens) < 6 && len(s.gens) <= len(s.other().gens) {
				s.hello()
			}
		case 1, 2, 3:
			if g := pick(s, "writer"); g != nil {
				s.write(g, rapid.IntRange(1, 120).Draw(t, "packets"))
			}
		case 4, 5:
			if g := pick(s, "taker"); g != nil {
				s.take(g, rapid.IntRange(1, 50).Draw(t, "packets"))
			}
		case 6:
			if g := pick(s, "closer"); g != nil {
				s.closeWrite(g)
			}
		case 7:
			if g := pick(s, "victim"); g != nil && deaths {
				g.dead, g.eof, g.waiting = true, true, nil
				s.do(g.conn, s.table.Gone(g.conn))
			}
		case 8:
			if g := pick(s, "deaf"); g != nil && deaths {
				g.deaf, g.waiting = true, nil
				s.do(g.conn, s.table.Deaf(g.conn))
			}
		default:
			for range rapid.IntRange(1, 60).Draw(t, "deliver") {
				s.receive()
			}
		}
	}
	// Whoever has no partner gets one; then all close and take the rest.
	for len(w.sides[0].gens) != len(w.sides[1].gens) {
		if len(w.sides[0].gens) < len(w.sides[1].gens) {
			w.sides[0].hello()
		} else {
			w.sides[1].hello()
		}
	}
	for range 50 {
		for _, s := range w.sides {
			for s.receive() {
			}
			for _, g := range s.live() {
				s.take(g, len(g.waiting))
				s.closeWrite(g)
			}
		}
	}
	for i, s := range w.sides {
		if n := s.table.Len(); n != 0 || len(s.wire) != 0 {
			t.Fatalf("side %d: %d connections, %d packets left", i, n, len(s.wire))
		}
		if ec, eb := s.table.Early(); ec != 0 || eb != 0 || len(s.table.pairs) != 0 || len(s.table.lingering) != 0 {
			t.Fatalf("side %d: %d early, %d bytes, %d pairs, %d lingering left", i, ec, eb, len(s.table.pairs), len(s.table.lingering))
		}
		if b := s.table.Budget; b != nil && b.Granted() != 0 {
			t.Fatalf("side %d: %d bytes of the budget are gone", i, b.Granted())
		}
		for n, g := range s.gens {
			peer := s.other().gens[n]
			if g.byes != 1 {
				t.Fatalf("side %d generation %d said BYE %d times", i, n, g.byes)
			}
			if !slices.Equal(g.got, peer.sent[:min(len(g.got), len(peer.sent))]) {
				t.Fatalf("side %d generation %d got %v of %v", i, n, g.got, peer.sent)
			}
			if !g.dead && !g.deaf && len(g.got) != len(peer.sent) {
				t.Fatalf("side %d generation %d got %d of %d packets", i, n, len(g.got), len(peer.sent))
			}
			if !g.dead && !g.sawClose {
				t.Fatalf("side %d generation %d was not closed", i, n)
			}
		}
	}
}
