package logical

import (
	"math"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// Limits bound what a Table keeps.
type Limits struct {
	// EarlyTimeout is how long packets wait for their backend's HELLO. For twice
	// as long it is remembered afterwards that they were given up.
	EarlyTimeout time.Duration
	// EarlyBytes and EarlyConns bound what waits so, over all connections.
	EarlyBytes int
	EarlyConns int
	// Linger is how long a connection without a backend waits for the remote
	// end's BYE: a remote backend that never came says none.
	Linger time.Duration
	// Pending is how many bytes one connection may hold for its backend. A
	// peer that keeps to its window stays far below.
	Pending int
	// Chain is how many connections of one key may wait for the one before
	// them, that one included.
	Chain int
}

// DefaultLimits are those of a proxy that is told nothing else.
var DefaultLimits = Limits{
	EarlyTimeout: 2 * time.Minute,
	EarlyBytes:   64 << 20,
	EarlyConns:   16384,
	Linger:       20 * time.Minute,
	Pending:      4 << 20,
	Chain:        8,
}

// Table is the logical connections of one instance with one peer.
type Table struct {
	Window Window
	Limits Limits
	// Payload is how many bytes one packet to the peer may carry at most.
	Payload int
	// Credit says that the peer is a Trunkline proxy, which is granted bytes.
	// Without it the window is counted in packets, as Greenplum does. It may
	// change only while there is no connection with the peer.
	Credit bool
	// Free is what the peer has announced that every connection may send
	// without a grant, in bytes.
	Free uint64
	// RTT is the measured round trip to the peer.
	RTT time.Duration
	// Budget is what grants are taken from, shared with other Tables.
	Budget *Budget
	// CountInside says that the peer fills its window by ic-tcp packets, as
	// Greenplum's sender does, so that acknowledging counts those inside the
	// payloads. Otherwise a DATA packet is one packet.
	CountInside bool

	slots map[icwire.ID]*Conn // the first of each key's chain
	pairs map[icwire.Pair]*pair
	tombs map[icwire.ID]tomb

	early      map[*Conn]struct{}
	earlyBytes int

	lingering map[*Conn]time.Time // without a backend, since
	announced uint64
}

// pair is what is known of two backends and their slices.
type pair struct {
	command uint32  // the greatest with a backend
	live    int     // connections with a backend
	early   []*Conn // connections without one yet
}

// tomb is what is known of connections that were given up.
type tomb struct {
	at time.Time
	// said: both ends have said BYE, the remote one nothing else. One more is an answer
	// to ours, of a proxy that knew nothing of the connection, and must have none: or
	// two such proxies would go on for ever.
	said bool
}

// NewTable returns an empty Table with the defaults.
func NewTable() *Table {
	return &Table{
		Window: DefaultWindow,
		Limits: DefaultLimits,

		Payload: icwire.DefaultPayload, Free: InitialWindow, announced: InitialWindow,

		slots: map[icwire.ID]*Conn{},
		pairs: map[icwire.Pair]*pair{},
		tombs: map[icwire.ID]tomb{},
		early: map[*Conn]struct{}{},

		lingering: map[*Conn]time.Time{},
	}
}

// Do is an effect on a connection.
type Do struct {
	Conn   *Conn
	Effect Effect
}

// Len is the number of connections, those without a backend included.
func (t *Table) Len() int {
	n := 0
	for _, c := range t.slots {
		for ; c != nil; c = c.next {
			n++
		}
	}
	return n
}

// Backends is the number of backends.
func (t *Table) Backends() int {
	n := 0
	for _, p := range t.pairs {
		n += p.live
	}
	return n
}

// Early is how many connections, with how many bytes, wait for their backend.
func (t *Table) Early() (conns, bytes int) { return len(t.early), t.earlyBytes }

// All calls f for every connection.
func (t *Table) All(f func(*Conn)) {
	for _, c := range t.slots {
		for ; c != nil; c = c.next {
			f(c)
		}
	}
}

// Hello registers the backend that said HELLO with key. When the connection
// is not Served on return, it waits for its predecessor and Remove will return
// it. A nil Conn means the backend must be refused, for the reason given.
// Others are connections that this HELLO made obsolete.
func (t *Table) Hello(key icwire.Key, now time.Time) (c *Conn, e Effect, others []Do, refused string) {
	id := key.ID()
	if _, dead := t.tombs[id]; dead {
		return nil, e, nil, "its packets came long before it and have been given up"
	}
	n := 0
	for c = t.slots[id]; c != nil && !c.Early(); c = c.next {
		n++
	}
	switch {
	case c != nil:
		t.unearly(c)
		c.Key = key // the backend's own contents and session
	case n >= t.Limits.Chain:
		return nil, e, nil, "too many connections of the same key wait for each other"
	default:
		c = t.add(key, now)
	}
	c.backend = true
	p := t.pair(id.Pair)
	p.live++
	if p.live == 1 || id.Command > p.command {
		p.command = id.Command
	}
	// What came for older commands of these two backends has no taker any
	// more: a backend runs one command after the other.
	for _, old := range append([]*Conn(nil), p.early...) {
		if old.Key.Command < id.Command {
			others = append(others, Do{old, t.giveUp(old, now)})
		}
	}
	if t.slots[id] == c {
		c.served = true
		c.settle(&e)
	}
	return c, e, others, ""
}

// Vacant says whether a backend that said HELLO with key would be served at once
// and could send a packet of n bytes.
func (t *Table) Vacant(key icwire.Key, n int) bool {
	room := t.Window.Pause * t.Payload
	if t.Credit {
		room = int(min(t.Free, math.MaxInt32))
	}
	return t.slots[key.ID()] == nil && n <= room
}

// Unclaimed says whether a backend that said HELLO with key would be served at
// once, whatever has come for it.
func (t *Table) Unclaimed(key icwire.Key) bool {
	c := t.slots[key.ID()]
	return c == nil || c.Early()
}

// Data takes a DATA packet for the local end named by key, or a part of one;
// end says that it is the last part. With keep, payload goes to c's backend, or
// waits for it, and counts as so many units when that has taken it; c is nil
// when it is dropped.
func (t *Table) Data(key icwire.Key, payload []byte, end bool, now time.Time) (c *Conn, keep bool, units int, e Effect) {
	c, refused := t.target(key, now)
	if c == nil {
		return nil, false, 0, e
	}
	if refused {
		e = t.Gone(c)
	}
	switch {
	case t.Credit:
	case t.CountInside:
		units = c.counter.Add(payload)
	case end:
		units = 1
	}
	early := c.Early()
	keep, acks := c.arrive(len(payload), units)
	e.Acks += acks
	if !keep {
		c.grantAll(&e)
		return c, false, 0, e
	}
	switch {
	case early:
		if t.earlyBytes += len(payload); t.earlyBytes > t.mostEarly() || c.pending > t.most() {
			return c, false, 0, t.giveUp(c, now)
		}
	case c.pending > t.most():
		return c, false, 0, t.Gone(c)
	}
	c.grantIn(&e, now)
	return c, true, units, e
}

// mostEarly is how many bytes may wait for backends that have not said HELLO.
// Those of a Trunkline peer are within the Budget.
func (t *Table) mostEarly() int {
	if t.Credit && t.Budget != nil {
		return max(t.Limits.EarlyBytes, int(t.Budget.Total()/2))
	}
	return t.Limits.EarlyBytes
}

// most is how many bytes one connection may hold for its backend before its
// peer is one that does not keep to its window.
func (t *Table) most() int {
	if t.Credit && t.Budget != nil {
		return t.Limits.Pending + int(t.Budget.maxWindow.Load())
	}
	return t.Limits.Pending
}

// Bye takes a BYE packet for the local end named by key.
func (t *Table) Bye(key icwire.Key, now time.Time) (*Conn, Effect) {
	if id := key.ID(); t.tombs[id].said && t.unfinished(id) == nil {
		return nil, Effect{}
	}
	c, refused := t.target(key, now)
	if c == nil {
		return nil, Effect{}
	}
	var e Effect
	if refused {
		e = t.Gone(c)
		t.bury(key.ID(), now, true)
	}
	had := c.backend
	last := c.bye()
	e.Shutdown, e.Close, e.Ended = last.Shutdown, last.Close, last.Ended
	return c, t.left(c, had, e)
}

// Perished takes a LOST packet for the local end named by key: what the remote
// end had sent, its end included, may have gone with the trunk before. A backend
// that registered when this proxy had lost that trunk, and the peer had not
// noticed, sees the stream end: it would wait for ever.
func (t *Table) Perished(key icwire.Key) (*Conn, Effect) {
	c := t.slots[key.ID()]
	if c == nil || !c.older || !c.backend || c.byeGot {
		return nil, Effect{}
	}
	had := c.backend
	return c, t.left(c, had, c.bye())
}

// Ack takes a DATA_ACK packet for the local end named by key. One for a
// connection that is not there is nobody's. Of a Trunkline peer it carries a
// grant, and late says that it was sent behind a BYE. It comes after BYE too: a remote
// proxy acknowledges what it throws away.
func (t *Table) Ack(key icwire.Key, grant uint64, late bool) (*Conn, Effect) {
	c := t.slots[key.ID()]
	if c == nil {
		return nil, Effect{}
	}
	return c, c.Ack(grant, late)
}

// EOF records that c's backend has shut down its write side.
func (t *Table) EOF(c *Conn) Effect {
	had := c.backend
	return t.left(c, had, c.localEOF())
}

// Gone records that c's backend is no more; what comes for it is discarded and
// acknowledged, so that the remote end can finish.
func (t *Table) Gone(c *Conn) Effect {
	had := c.backend
	e := t.left(c, had, c.localGone())
	if !c.ended {
		t.lingering[c] = time.Time{}
	}
	return e
}

// Deaf records that c's backend takes no more data. What comes for it is
// discarded and acknowledged; what it has written is still to be read, until its
// end, which EOF and Gone record.
func (t *Table) Deaf(c *Conn) Effect {
	had := c.backend
	return t.left(c, had, c.localDeaf())
}

// Taken records that c's backend has taken n bytes, and with them the last
// byte of units packets.
func (t *Table) Taken(c *Conn, n, units int, now time.Time) Effect {
	had := c.backend
	return t.left(c, had, c.took(n, units, now))
}

// left counts a backend off when an event has taken it from c.
func (t *Table) left(c *Conn, had bool, e Effect) Effect {
	if had && !c.backend {
		t.leave(c)
	}
	return e
}

func (t *Table) leave(c *Conn) {
	id := c.Key.ID()
	if p := t.pairs[id.Pair]; p != nil {
		p.live--
		t.tidy(id.Pair, p)
	}
}

// Remove takes an ended connection out. It returns the successor whose turn
// has come, if one waits with its backend.
func (t *Table) Remove(c *Conn) (next *Conn, e Effect) {
	t.unearly(c)
	id := c.Key.ID()
	if !t.unlink(c) {
		return nil, e
	}
	next = t.slots[id]
	if next == nil || !next.backend {
		return nil, e
	}
	next.served = true
	next.settle(&e)
	return next, e
}

// Expire gives up what has waited too long for its backend, and forgets what
// was given up long ago.
func (t *Table) Expire(now time.Time) []Do {
	var do []Do
	for c := range t.early {
		if now.Sub(c.since) >= t.Limits.EarlyTimeout {
			do = append(do, Do{c, t.giveUp(c, now)})
		}
	}
	for c, at := range t.lingering {
		switch {
		case c.ended:
			delete(t.lingering, c)
		case at.IsZero():
			t.lingering[c] = now
		case now.Sub(at) >= t.Limits.Linger:
			delete(t.lingering, c)
			do = append(do, Do{c, c.forget()})
		}
	}
	for id, d := range t.tombs {
		// The other proxy may take our BYE for the beginning of a connection, and give
		// that up as we have done.
		if now.Sub(d.at) >= 2*t.Limits.EarlyTimeout {
			delete(t.tombs, id)
		}
	}
	return do
}

// Lost records that the connection to the peer has ended. The connections
// whose Effect says Ended are out of the Table already; the others had all
// they need from the peer and go on until their backend has taken it. Those
// whose Effect says Discard as well may have had data under way that the peer
// has not got; see Perished.
func (t *Table) Lost() []Do {
	var do []Do
	t.All(func(c *Conn) {
		t.unearly(c)
		had := c.backend
		do = append(do, Do{c, t.left(c, had, c.lost())})
	})
	for _, d := range do {
		if d.Effect.Ended {
			t.unlink(d.Conn)
		}
	}
	return do
}

// Drop takes a connection out whose peer knows nothing of it, because no
// connection to the peer has been there since its HELLO.
func (t *Table) Drop(c *Conn) Effect {
	t.unearly(c)
	had := c.backend
	e := t.left(c, had, c.lost())
	if t.unlink(c) {
		if next := t.slots[c.Key.ID()]; next != nil {
			next.served = next.backend
		}
	}
	return e
}

// target finds the connection a packet belongs to: the first of the key's
// chain whose remote end has not finished. When there is none it makes one to
// wait for its backend. With refused, no backend can come for the new one.
func (t *Table) target(key icwire.Key, now time.Time) (c *Conn, refused bool) {
	id := key.ID()
	if c = t.unfinished(id); c != nil {
		return c, false
	}
	n := 0
	for c = t.slots[id]; c != nil; c = c.next {
		n++
	}
	if n >= t.Limits.Chain {
		return nil, false
	}
	c = t.add(key, now)
	_, dead := t.tombs[id]
	p := t.pairs[id.Pair]
	old := p != nil && p.live > 0 && id.Command < p.command
	if dead || old || len(t.early) >= t.Limits.EarlyConns {
		t.bury(id, now, false)
		return c, true
	}
	t.early[c] = struct{}{}
	p = t.pair(id.Pair)
	p.early = append(p.early, c)
	return c, false
}

// unfinished is the first connection of a key whose remote end has not said BYE.
func (t *Table) unfinished(id icwire.ID) *Conn {
	c := t.slots[id]
	for c != nil && c.byeGot {
		c = c.next
	}
	return c
}

// add appends a new connection to its key's chain.
func (t *Table) add(key icwire.Key, now time.Time) *Conn {
	c := &Conn{Key: key, table: t, since: now}
	t.open(c)
	id := key.ID()
	last := t.slots[id]
	if last == nil {
		t.slots[id] = c
		return c
	}
	for last.next != nil {
		last = last.next
	}
	last.next = c
	return c
}

// unlink takes c out of its key's chain and says whether it was the first.
func (t *Table) unlink(c *Conn) (first bool) {
	delete(t.lingering, c)
	t.giveBack(c)
	id := c.Key.ID()
	next := c.next
	c.next = nil
	if t.slots[id] == c {
		if next == nil {
			delete(t.slots, id)
		} else {
			t.slots[id] = next
		}
		return true
	}
	for p := t.slots[id]; p != nil; p = p.next {
		if p.next == c {
			p.next = next
			break
		}
	}
	return false
}

// giveUp ends an early connection: the remote end is told BYE and a HELLO that
// comes after all will be refused.
func (t *Table) giveUp(c *Conn, now time.Time) Effect {
	t.unearly(c)
	t.bury(c.Key.ID(), now, c.byeGot && c.got == 0)
	return t.Gone(c)
}

func (t *Table) bury(id icwire.ID, now time.Time, said bool) {
	if len(t.tombs) >= 4*t.Limits.EarlyConns {
		for any := range t.tombs {
			delete(t.tombs, any)
			break
		}
	}
	t.tombs[id] = tomb{now, said}
}

// unearly takes c off the account of early connections, if it is on it.
func (t *Table) unearly(c *Conn) {
	if _, ok := t.early[c]; !ok {
		return
	}
	delete(t.early, c)
	t.earlyBytes -= c.pending
	id := c.Key.ID()
	p := t.pairs[id.Pair]
	for i, e := range p.early {
		if e == c {
			p.early = append(p.early[:i], p.early[i+1:]...)
			break
		}
	}
	t.tidy(id.Pair, p)
}

func (t *Table) pair(k icwire.Pair) *pair {
	p := t.pairs[k]
	if p == nil {
		p = &pair{}
		t.pairs[k] = p
	}
	return p
}

func (t *Table) tidy(k icwire.Pair, p *pair) {
	if p.live == 0 && len(p.early) == 0 {
		delete(t.pairs, k)
	}
}
