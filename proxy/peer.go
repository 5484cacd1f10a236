package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/local"
	"github.com/trunkline-db/trunkline/proxy/logical"
	"github.com/trunkline-db/trunkline/proxy/trunk"
	"github.com/trunkline-db/trunkline/topology"
)

// peer is another instance of the address list, or this one itself: the
// logical connections with it, and the trunk that carries them.
type peer struct {
	p     *Proxy
	entry topology.Entry
	role  Role
	label string // for logs and causes: seg1 (dbid 3)

	cancel context.CancelFunc // ends the dialling
	kick   chan struct{}      // somebody waits: dial now

	mu        sync.Mutex
	table     *logical.Table
	trunk     *trunk.Trunk // nil while there is none
	remote    string       // the address it is connected to, if we dialled
	agreement trunk.Agreement
	doubted   *trunk.Trunk          // was silent for too long when last looked at
	waiting   map[*conn]*time.Timer // registered while there is no trunk
	awaited   map[icwire.ID]*conn   // registered with WAIT
	told      []*waits              // to be flushed by unlock
	perished  perished
	removed   bool
	dialling  bool
	doing     string // what dialling waits for
	err       string
	since     time.Time // of the state it is in
	lost      string    // why the last trunk ended, also when there is another
	lostAt    time.Time
}

func (p *Proxy) newPeer(e topology.Entry, role Role) *peer {
	pr := &peer{
		p: p, entry: e, role: role, label: instanceName(e.Content, e.Dbid),
		kick: make(chan struct{}, 1), cancel: func() {},
		table: logical.NewTable(), waiting: map[*conn]*time.Timer{}, awaited: map[icwire.ID]*conn{}, since: time.Now(),
	}
	pr.table.Window, pr.table.Limits, pr.table.Budget = p.cfg.Window, p.cfg.Limits, p.budget
	return pr
}

// unlock gives up pr.mu and sends what has been queued under it.
func (pr *peer) unlock() {
	t := pr.trunk
	told := pr.told
	pr.told = nil
	pr.mu.Unlock()
	for _, w := range told {
		w.flush()
	}
	if t != nil {
		t.Flush()
	}
}

// payload is the longest payload of one DATA packet to the peer.
func (pr *peer) payload(d icwire.Dialect) int {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return pr.longest(d)
}

// longest is payload for those who hold pr.mu.
func (pr *peer) longest(d icwire.Dialect) int {
	if pr.agreement.Trunkline {
		return icwire.MaxPacketLen - d.HeaderLen()
	}
	return pr.p.payload()
}

func instanceName(content int16, dbid uint16) string {
	return fmt.Sprintf("seg%d (dbid %d)", content, dbid)
}

// hurry makes the dialling goroutine try at once.
func (pr *peer) hurry() {
	select {
	case pr.kick <- struct{}{}:
	default:
	}
}

// register gives a backend that has said hello its place. The result says what
// is to become of it: run when it is to be answered and served by the caller at
// once, or why it is refused; neither when it has to wait.
func (pr *peer) register(uc *local.Conn, hello icwire.Header, d icwire.Dialect) (run *conn, refused string) {
	pr.mu.Lock()
	defer pr.unlock()
	if pr.removed {
		return nil, pr.label + " has just been taken out of the address list"
	}
	key, ack := hello.SrcKey(), hello.HelloAck().Append(nil, d)
	if c := pr.adopt(key.ID()); c != nil {
		c.uc, c.raw, c.ack = uc, uc.Raw(), ack
		c.start()
		return c, ""
	}
	lc, e, others, refused := pr.table.Hello(key, time.Now())
	for _, o := range others {
		pr.do(o.Conn, o.Effect)
	}
	if refused != "" {
		return nil, refused
	}
	c, _ := lc.Owner.(*conn)
	if c == nil {
		c = newConn(pr, lc)
	}
	c.uc, c.raw, c.ack = uc, uc.Raw(), ack
	switch {
	case pr.trunk == nil:
		pr.waiting[c] = time.AfterFunc(pr.grace(), func() { pr.tooLate(c) })
		pr.hurry()
	case lc.Served():
		c.stream = pr.trunk.Open(lc.Key.ID())
		c.start()
		run = c
	}
	pr.do(lc, e)
	pr.announce()
	return run, ""
}

// grace is how long a backend waits for the peer to be connected. The side that
// dials gives up first: it knows the address and what is wrong with it, and its
// backend's error ends the query before the other side's vaguer one.
func (pr *peer) grace() time.Duration {
	g := pr.p.times().Grace
	if pr.role == DialsUs {
		g += g / 4
	}
	return g
}

// tooLate turns a backend away whose peer has not been connected in time.
func (pr *peer) tooLate(c *conn) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	if pr.waiting[c] == nil {
		return
	}
	why := pr.cause()
	pr.abandon(c)
	pr.p.log.limited("backend refused", slog.LevelWarn, "a backend was refused", "connection", c.lc.Key.String(), "reason", why)
	pr.p.refused.Add(1)
}

// abandon turns away a backend that has been waiting for the peer.
func (pr *peer) abandon(c *conn) {
	pr.waiting[c].Stop()
	delete(pr.waiting, c)
	if pr.p.cfg.AckRefused {
		_, _ = c.uc.Write(c.ack)
	}
	pr.perished.add(c.lc.Key)
	pr.do(c.lc, pr.table.Drop(c.lc))
}

// attach makes t the trunk to this peer; an older one is stale and ends with
// its connections. It is false when the peer is no longer wanted.
func (pr *peer) attach(t *trunk.Trunk, a trunk.Agreement, remote string) bool {
	pr.mu.Lock()
	defer pr.unlock()
	if pr.removed {
		return false
	}
	if old := pr.trunk; old != nil {
		pr.lose("replaced by a new connection of the peer")
		old.Close()
	}
	pr.trunk, pr.agreement, pr.remote, pr.err, pr.since = t, a, remote, "", time.Now()
	pr.table.CountInside, pr.table.Credit = !a.Trunkline, a.Trunkline
	pr.table.Payload, pr.table.Free, pr.table.RTT = pr.p.payload(), logical.InitialWindow, 0
	pr.table.Reconnected()
	pr.report()
	pr.announce()
	pr.watch()
	for c, timer := range pr.waiting {
		timer.Stop()
		delete(pr.waiting, c)
		if c.lc.Served() {
			pr.serve(c)
		}
	}
	return true
}

// serve lets a connection that had to wait begin.
func (pr *peer) serve(c *conn) {
	c.stream = pr.trunk.Open(c.lc.Key.ID())
	c.start()
	pr.p.wg.Go(c.run)
}

// detach records that t has ended.
func (pr *peer) detach(t *trunk.Trunk, why string) {
	pr.mu.Lock()
	defer pr.unlock()
	if pr.trunk == t {
		pr.lose(why)
	}
}

// lose ends every logical connection and forgets the trunk.
func (pr *peer) lose(why string) {
	for _, d := range pr.table.Lost() {
		if d.Effect.Discard {
			pr.perished.add(d.Conn.Key)
		}
		pr.do(d.Conn, d.Effect)
	}
	now := time.Now()
	if pr.trunk != nil {
		pr.lost, pr.lostAt = why, now
	}
	pr.trunk, pr.err, pr.since = nil, why, now
}

// remove ends everything there is with the peer.
func (pr *peer) remove() {
	pr.cancel()
	pr.mu.Lock()
	defer pr.unlock()
	pr.removed = true
	for c := range pr.waiting {
		pr.abandon(c)
	}
	t := pr.trunk
	pr.lose("no longer in the address list")
	if t != nil {
		t.Close()
	}
	var rest []*logical.Conn // those that have all they need but time
	pr.table.All(func(lc *logical.Conn) { rest = append(rest, lc) })
	for _, lc := range rest {
		pr.do(lc, pr.table.Gone(lc))
	}
}

// failed records why the peer could not be reached.
func (pr *peer) failed(why string) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	if pr.trunk == nil {
		pr.err = why
	}
}

func (pr *peer) connected() bool {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return pr.trunk != nil
}

// do carries out an effect. It is called with pr.mu held and waits for nothing,
// so that what is sent keeps the order in which it was decided.
func (pr *peer) do(lc *logical.Conn, e logical.Effect) {
	if e == (logical.Effect{}) {
		return
	}
	if t := pr.trunk; t != nil {
		for range e.Acks {
			t.Control(lc.Key.Header(icwire.DataAck, 0, t.Dialect()))
		}
		if e.Grant > 0 && !e.Late {
			t.Control(lc.Key.Header(icwire.DataAck, 0, t.Dialect()), uint64Bytes(e.Grant)...)
		}
		if e.Bye {
			c, _ := lc.Owner.(*conn)
			var s *trunk.Stream
			if c != nil && c.stream != nil {
				s = c.stream
			} else {
				s = t.Open(lc.Key.ID())
			}
			s.Bye(lc.Key.Header(icwire.Bye, 0, t.Dialect()))
		}
		if e.Grant > 0 && e.Late {
			t.Late(lc.Key.ID(), lc.Key.Header(icwire.DataAck, 0, t.Dialect()), uint64Bytes(e.Grant|lateGrant)...)
		}
	}
	if c, _ := lc.Owner.(*conn); c != nil {
		if e.Resume || e.Ended {
			c.wake()
		}
		if e.Shutdown {
			c.shutdown()
			pr.arrived(c, time.Now()) // an end of the stream without a stream
		}
		if e.Discard {
			c.discard()
		}
		if e.Close {
			c.close()
			if c.waits != nil {
				pr.lostAwaited(c)
			}
		}
	}
	if !e.Ended {
		return
	}
	if next, e := pr.table.Remove(lc); next != nil {
		if c, _ := next.Owner.(*conn); c != nil && pr.trunk != nil {
			pr.serve(c)
		}
		pr.do(next, e)
	}
}

// room is how many bytes may be read from c's backend now; 0 when it has to
// wait to be woken, -1 when none ever will be.
func (pr *peer) room(c *conn) int {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return c.space()
}

func (c *conn) space() int {
	if c.lc.Finished() {
		return -1
	}
	n := c.lc.Room()
	if n > 0 && c.stream.Full(c.wakeUp) {
		return 0
	}
	return n
}

// send sends n bytes that have been read from c's backend, as so many packets,
// and returns the room there is then. With last the backend has no more: the end
// goes along.
func (pr *peer) send(c *conn, b *trunk.Buffer, n, packets int, last bool) int {
	pr.mu.Lock()
	defer pr.unlock()
	if c.lc.Sent(n, packets) {
		c.stream.Send(b)
	} else {
		b.Release()
	}
	if last {
		pr.do(c.lc, pr.table.EOF(c.lc))
	}
	return c.space()
}

func (pr *peer) eof(c *conn) {
	pr.mu.Lock()
	defer pr.unlock()
	pr.do(c.lc, pr.table.EOF(c.lc))
}

func (pr *peer) gone(c *conn) {
	pr.mu.Lock()
	defer pr.unlock()
	pr.do(c.lc, pr.table.Gone(c.lc))
}

func (pr *peer) deaf(c *conn) {
	pr.mu.Lock()
	defer pr.unlock()
	pr.do(c.lc, pr.table.Deaf(c.lc))
}

func (pr *peer) taken(c *conn, n, units int) {
	pr.mu.Lock()
	defer pr.unlock()
	pr.do(c.lc, pr.table.Taken(c.lc, n, units, time.Now()))
}

// stalledTime is for how long a full window may outlast the remote end without
// an acknowledgement before the backend is given up. A remote proxy that does
// not acknowledge what it throws away would otherwise keep it for ever.
const stalledTime = 10 * time.Second

// look gives up what has waited too long.
func (pr *peer) look(now time.Time) {
	pr.mu.Lock()
	defer pr.unlock()
	for _, d := range pr.table.Expire(now) {
		pr.p.log.limited("expired", slog.LevelWarn, "gave up packets whose backend did not come", "connection", d.Conn.Key.String())
		pr.do(d.Conn, d.Effect)
	}
	pr.watch()
	pr.announce()
	var stalled []*conn
	pr.table.All(func(lc *logical.Conn) {
		c, _ := lc.Owner.(*conn)
		unacked, stuck := lc.Stuck()
		switch {
		case c == nil || !stuck:
		case c.stalled.IsZero() || c.stalledAt != unacked:
			c.stalled, c.stalledAt = now, unacked
		case now.Sub(c.stalled) >= stalledTime:
			stalled = append(stalled, c)
		}
	})
	for _, c := range stalled {
		pr.do(c.lc, pr.table.Gone(c.lc))
	}
}
