package logical

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Between two Trunkline proxies the receiving one grants the sender bytes: a
// DATA_ACK carries how many, counted from the beginning of the connection, it
// may have sent. The window, which is how far the grant is ahead of what the
// backend has taken, begins small and doubles as long as the backend takes it
// within two round trips, so that it comes to fit the link and no more.
//
// A sender need not ask for the first bytes. How many are free is announced
// for the whole trunk, and less of it the less memory is left. The receiver
// never relies on the sender having heard of it: until its first grant it
// supposes MinWindow, which always holds.
//
// A key may come again while grants of the connection before it are under way.
// One sent before the receiver's own BYE overtakes that and finds the connection
// it was meant for; one sent after it stays behind it and is marked, and counts
// for nobody whose remote end has not said BYE.

const (
	// MinWindow is what every connection may have in flight, whatever the
	// budget says: one ic-tcp packet of Greenplum's default size. With less
	// a connection might stop for good.
	MinWindow = 8 << 10
	// InitialWindow is what a new connection may send before the first
	// announcement: more than most results of short queries, and about what
	// the backend's own socket buffer takes.
	InitialWindow = 256 << 10
	// GrowAfter is how much a backend must have taken before its window
	// grows. The kernel takes about 200 kB for a backend that reads nothing:
	// such a one must not get more of the budget than it began with.
	GrowAfter = 512 << 10
	// grantStep is how much must be granted at least to be worth a packet, and
	// a quarter of the window at most before it is told: what is under way is
	// not there to be used, so with half a window a long link runs dry.
	grantStep = 64 << 10
	// GrantAll lets the sender know that all it has is thrown away.
	GrantAll = math.MaxInt64
)

// Budget is the memory all logical connections of a proxy share for what has
// arrived and is not taken. It is kept by granting less: half of it is for what
// connections begin with, a quarter for what their windows have grown by, the
// rest is what buffers waste. Its methods may be called from any goroutine.
type Budget struct {
	total, maxWindow atomic.Int64
	begun, grown     atomic.Int64
}

// NewBudget makes a Budget of total bytes, of which no connection gets more
// than maxWindow.
func NewBudget(total, maxWindow int64) *Budget {
	b := &Budget{}
	b.Resize(total, maxWindow)
	return b
}

// Resize changes the Budget. What has been granted stays granted.
func (b *Budget) Resize(total, maxWindow int64) {
	b.total.Store(total)
	b.maxWindow.Store(max(maxWindow, InitialWindow))
}

// Default sizes of a proxy that is told nothing else.
const (
	DefaultBudget    = 512 << 20
	DefaultMaxWindow = 16 << 20
)

// Granted is how many bytes the windows of all connections are.
func (b *Budget) Granted() int64 { return b.begun.Load() + b.grown.Load() }

// Total is the size of the Budget in bytes.
func (b *Budget) Total() int64 { return b.total.Load() }

// initial is the window a connection begins with now.
func (b *Budget) initial() int64 {
	// Each takes a small part of what is left, so that many can come.
	free := (b.total.Load()/2 - b.begun.Load()) / 512
	if free < 2*MinWindow {
		return MinWindow
	}
	return min(int64(1)<<(bits.Len64(uint64(free))-1), InitialWindow)
}

// grow returns what a window of w bytes becomes that has proved too small.
func (b *Budget) grow(w, base int64) int64 {
	total := b.total.Load()
	room := total/4 - b.grown.Load()
	next := min(2*w, b.maxWindow.Load())
	switch {
	case next-w <= room/4:
	case room < total/32:
		next = min(w, max(base, w/2, MinWindow)) // others need it as well
	default:
		next = w
	}
	if next != w {
		b.grown.Add(next - w)
	}
	return next
}

// credit is the flow control of one connection.
type credit struct {
	// As the sending end.
	sent  uint64 // bytes read from the backend
	limit uint64 // as granted

	// As the receiving end.
	got     uint64 // bytes arrived
	used    uint64 // bytes taken by the backend, or thrown away
	granted uint64 // what the sender may send at least
	told    bool   // there has been a grant
	all     bool   // GrantAll has been told
	window  int64
	base    int64     // the part of window that it began with
	mark    uint64    // used when the window was last looked at
	at      time.Time // when that was
}

// open gives a new connection its first window.
func (t *Table) open(c *Conn) {
	if t.Budget == nil {
		return
	}
	c.base = t.Budget.initial()
	c.window, c.granted = c.base, MinWindow
	t.Budget.begun.Add(c.base)
}

// giveBack returns c's window to the budget.
func (t *Table) giveBack(c *Conn) {
	if t.Budget == nil {
		return
	}
	t.Budget.begun.Add(-c.base)
	t.Budget.grown.Add(c.base - c.window)
	c.base, c.window = 0, 0
}

// Announce says what new connections may send without a grant, if the peer has
// to be told.
func (t *Table) Announce() (window uint64, changed bool) {
	if !t.Credit || t.Budget == nil {
		return 0, false
	}
	now := uint64(t.Budget.initial())
	if now == t.announced {
		return 0, false
	}
	t.announced = now
	return now, true
}

// Reconnected records that there is a new trunk. What has been announced is
// forgotten: the peer begins anew.
func (t *Table) Reconnected() {
	t.announced = InitialWindow
	t.All(func(c *Conn) { c.older = true })
}

// creditRoom is how many bytes may be sent.
func (c *Conn) creditRoom() int {
	limit := max(c.limit, c.table.Free)
	if limit <= c.sent {
		return 0
	}
	return int(min(limit-c.sent, math.MaxInt32))
}

// sends notes that this is the sending end, which needs no window of its own
// beyond the smallest.
func (c *Conn) sends() {
	if c.base > 0 && c.got <= 1 {
		c.table.giveBack(c)
		c.window = MinWindow
		c.table.Budget.grown.Add(MinWindow)
	}
}

// grantAll lets the sender know that what it has is thrown away. One that has
// sent little has no need to know: it has room for more, and is told when that
// comes.
func (c *Conn) grantAll(e *Effect) {
	if !c.table.Credit || c.byeGot || c.all || c.got < MinWindow/2 {
		return
	}
	c.all = true
	e.Grant, e.Late = GrantAll, c.byeSent
}

// grantIn adds a grant to e if one is due.
func (c *Conn) grantIn(e *Effect, now time.Time) {
	if g := c.grant(now); g > 0 {
		e.Grant, e.Late = g, c.byeSent
	}
}

// grant returns what the sender may be told now; 0 when there is no need. A
// backend has to be there: what comes before it must do with the first window.
func (c *Conn) grant(now time.Time) uint64 {
	t := c.table
	if !t.Credit || !c.served || c.gone || c.deaf || c.byeGot || c.ended {
		return 0
	}
	if c.at.IsZero() {
		c.at = now
	}
	if !c.told && c.got < MinWindow/2 {
		return 0 // most results are short and need none
	}
	next := c.used + uint64(c.window)
	if next < c.granted+uint64(min(max(c.window/4, grantStep), c.window/2)) {
		return 0 // too little to tell
	}
	if c.used-c.mark >= uint64(c.window) {
		if c.used >= GrowAfter && now.Sub(c.at) < 2*t.RTT {
			c.window = t.Budget.grow(c.window, c.base)
			next = max(c.used+uint64(c.window), c.granted)
		}
		c.mark, c.at = c.used, now
	}
	c.granted, c.told = next, true
	return next
}
