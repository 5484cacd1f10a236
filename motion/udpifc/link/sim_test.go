package link

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sort"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// sim is a motion from one sender to several receivers over a network that
// loses, delays and doubles packets, in time of its own.
type sim struct {
	now    time.Duration
	rng    *rand.Rand
	params Params
	net    network
	s      *Sender
	recv   []*simReceiver
	flying []flight

	// What there is to say about the run.
	sent, again, queries, held, mostHeld int
	mostFlying                           int
	warned                               int
}

type network struct {
	oneWay           time.Duration
	loss, dup, delay float64 // probabilities; delay: of being overtaken
}

type flight struct {
	at     time.Duration
	conn   int
	back   bool
	packet []byte
}

type simReceiver struct {
	r       *Receiver
	pause   time.Duration // before it consumes what it has taken
	busy    time.Duration // until when
	holding bool
	got     []uint32
	stopAt  int // how many packets it wants; 0 is all
	stopped bool
}

func newSim(seed uint64, n int, p Params, net network) *sim {
	m := &sim{rng: rand.New(rand.NewPCG(seed, 1)), params: p.WithDefaults(), net: net}
	m.s = NewSender(0, p, n, m)
	for range n {
		m.recv = append(m.recv, &simReceiver{r: NewReceiver(m.params.QueueDepth)})
	}
	return m
}

func (m *sim) fly(conn int, back bool, packet []byte) {
	copies := 1
	if m.rng.Float64() < m.net.dup {
		copies = 2
	}
	for range copies {
		if m.rng.Float64() < m.net.loss {
			continue
		}
		at := m.now + m.net.oneWay
		if m.rng.Float64() < m.net.delay {
			at += time.Duration(m.rng.Int64N(int64(4*m.net.oneWay) + 1))
		}
		m.flying = append(m.flying, flight{at, conn, back, packet})
	}
	m.mostFlying = max(m.mostFlying, len(m.flying))
}

func (m *sim) Send(conn int, p *Packet) {
	m.sent++
	if p.Tries > 0 {
		m.again++
	}
	h := icwire.UDPHeader{Seq: p.Seq}
	if p.EOS {
		h.Flags = icwire.UDPEOS
	}
	b := append([]byte(nil), p.Buf...)
	h.Put(b, false)
	m.fly(conn, false, b)
}

func (m *sim) Query(conn int, last uint32) {
	m.queries++
	h := icwire.UDPHeader{Seq: last, Flags: icwire.UDPCapacity}
	b := make([]byte, icwire.UDPHeaderLen)
	h.Put(b, false)
	m.fly(conn, false, b)
}

func (m *sim) Release(int, *Packet) {}
func (m *sim) Warn(int, *Packet)    { m.warned++ }

func (m *sim) reply(conn int, r Reply) {
	if r.Flags == 0 {
		return
	}
	h := icwire.UDPHeader{Flags: r.Flags | icwire.UDPToSender, Seq: r.Seq, Extra: r.Extra}
	b := icwire.AppendMissing(make([]byte, icwire.UDPHeaderLen), r.Missing)
	h.Put(b, false)
	m.fly(conn, true, b)
}

// run moves perConn packets to each receiver, the last of which ends the
// stream. It returns why it could not.
func (m *sim) run(perConn int, limit time.Duration) error {
	queued := make([]int, len(m.recv))
	for m.now < limit {
		for c := range m.recv {
			for queued[c] < perConn && !m.s.Ending(c) && m.s.Take(c) {
				queued[c]++
				b := binary.LittleEndian.AppendUint32(make([]byte, icwire.UDPHeaderLen), uint32(queued[c]))
				m.s.Queue(m.now, c, &Packet{Buf: b, EOS: queued[c] == perConn})
			}
		}
		if err := m.invariants(); err != nil {
			return err
		}
		for c, r := range m.recv {
			m.consume(c, r)
		}
		if done, err := m.finished(perConn); done || err != nil {
			return err
		}
		if !m.advance() {
			return fmt.Errorf("at %v nothing is going to happen any more", m.now)
		}
		if t := m.s.Tick(m.now); t != nil {
			return fmt.Errorf("at %v: given up: %+v", m.now, *t)
		}
		m.deliver()
	}
	return fmt.Errorf("not done after %v: sent %d, again %d, queries %d", m.now, m.sent, m.again, m.queries)
}

// advance goes to the next thing that happens.
func (m *sim) advance() bool {
	next := time.Duration(1<<63 - 1)
	for _, f := range m.flying {
		next = min(next, f.at)
	}
	if t, ok := m.s.Next(); ok {
		next = min(next, t)
	}
	for _, r := range m.recv {
		if r.holding {
			next = min(next, r.busy)
		}
		if t, ok := r.r.NextStop(); ok {
			next = min(next, t)
		}
	}
	m.now = max(m.now, next)
	return next < 1<<63-1
}

func (m *sim) deliver() {
	var due, later []flight
	for _, f := range m.flying {
		if f.at <= m.now {
			due = append(due, f)
		} else {
			later = append(later, f)
		}
	}
	sort.SliceStable(due, func(i, j int) bool { return due[i].at < due[j].at })
	m.flying = later
	for _, f := range due {
		h, body, err := icwire.DecodeUDP(f.packet)
		if err != nil {
			panic(err)
		}
		if f.back {
			m.s.Arrive(m.now, f.conn, &h, body)
			continue
		}
		reply, _ := m.recv[f.conn].r.Arrive(&h, body, func(b []byte) []byte {
			m.held++
			m.mostHeld = max(m.mostHeld, m.held)
			return b
		})
		m.reply(f.conn, reply)
	}
	for c, r := range m.recv {
		m.reply(c, r.r.Tick(m.now))
	}
}

func (m *sim) consume(c int, r *simReceiver) {
	for {
		if r.holding {
			if m.now < r.busy {
				return
			}
			r.holding = false
			m.held--
			m.reply(c, r.r.Consumed())
		}
		if r.stopAt > 0 && len(r.got) >= r.stopAt && !r.stopped {
			r.stopped = true
			m.reply(c, r.r.Stop(m.now, func([]byte) { m.held-- }))
		}
		b := r.r.Next()
		if b == nil {
			return
		}
		r.got = append(r.got, binary.LittleEndian.Uint32(b))
		r.holding, r.busy = true, m.now+r.pause
	}
}

func (m *sim) finished(perConn int) (bool, error) {
	for c, r := range m.recv {
		for i, v := range r.got {
			if v != uint32(i+1) {
				return false, fmt.Errorf("receiver %d got %v", c, r.got)
			}
		}
		if !m.s.Done(c) || !r.r.Ended() || r.holding {
			return false, nil
		}
		if !r.stopped && len(r.got) != perConn {
			return false, fmt.Errorf("receiver %d got %d of %d packets", c, len(r.got), perConn)
		}
	}
	if m.held != 0 {
		return false, fmt.Errorf("%d packets are held in the end", m.held)
	}
	if _, ok := m.s.Next(); ok {
		return false, fmt.Errorf("a sender that is done still waits for something")
	}
	for c := range m.recv {
		if n := m.s.conns[c].taken; n != 0 {
			return false, fmt.Errorf("%d buffers are still taken", n)
		}
	}
	if m.s.extra != 0 || m.s.shared != 0 || m.s.open != 0 {
		return false, fmt.Errorf("in the end extra %d, shared %d, open %d", m.s.extra, m.s.shared, m.s.open)
	}
	return true, nil
}

// invariants holds the sender's accounts against its queues.
func (m *sim) invariants() error {
	p := m.params
	taken, shared := 0, 0
	for i := range m.s.conns {
		c := &m.s.conns[i]
		live := 0
		for _, p := range c.unacked {
			if !p.settled {
				live++
			}
		}
		if live != c.live {
			return fmt.Errorf("%d packets unacknowledged, counted %d", live, c.live)
		}
		shared += max(live-1, 0)
		taken += c.taken
		if p.Capacity && c.taken > p.SndQueueDepth {
			return fmt.Errorf("connection %d has %d buffers", i, c.taken)
		}
		if !c.stopped && int(c.sent-c.consumed) > p.QueueDepth {
			return fmt.Errorf("connection %d has %d packets beyond what was consumed, the queue has %d places", i, c.sent-c.consumed, p.QueueDepth)
		}
		if !c.started && live > 1 {
			return fmt.Errorf("%d packets before the first ack", live)
		}
		if c.srtt < minRTT || c.srtt > max(maxRTT, p.DefaultRTT) || c.dev < 0 || c.dev > maxRTT {
			return fmt.Errorf("round trip %v, deviation %v", c.srtt, c.dev)
		}
	}
	n := len(m.recv)
	if shared != m.s.shared {
		return fmt.Errorf("%d shared, counted %d", shared, m.s.shared)
	}
	if taken > n*p.SndQueueDepth {
		return fmt.Errorf("%d buffers taken of %d", taken, n*p.SndQueueDepth)
	}
	if w := m.s.cwnd; w < float64(n) || w > float64(n*p.SndQueueDepth) {
		return fmt.Errorf("window of %v packets for %d connections", w, n)
	}
	if most := n * p.QueueDepth; m.mostHeld > most {
		return fmt.Errorf("%d packets held by the receivers, whose queues have %d places", m.mostHeld, most)
	}
	return nil
}
