package dispatch

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/motion"
)

// GangConfig says whose gang it is.
type GangConfig struct {
	SessionID        int32
	User, Database   string
	InterconnectType string
	// CoordinatorPID is the session's backend in the coordinator's
	// PostgreSQL, so that deadlocks through it are found; 0 when it has none.
	CoordinatorPID uint32
	// Startup holds further startup parameters of the connections. Those that
	// begin with gp_ are the executor's.
	Startup map[string]string
	// Settings returns the parameters to apply to a new connection, as
	// set_config would with is_local false; those that begin with gp_ are
	// parameters of the executor's motions. May be nil.
	Settings func(context.Context) (map[string]string, error)
	// OnNotice gets the segments' notices and the dispatcher's own warnings;
	// nil drops them. It may be called from several goroutines at a time.
	OnNotice func(seg int, n *pgconn.Notice)
}

// Gang is one session's executors on the segments. One goroutine at a time
// may use it, except Cancel and Busy, which may be called from any.
type Gang struct {
	d       *Dispatcher
	cfg     GangConfig
	members []*member
	tx      txn
	busy    atomic.Bool // a Running or CopyIn is unfinished

	tell, forget string // see TellReaders

	mu       sync.Mutex
	ops      map[canceler]struct{} // what Cancel cancels
	running  *op                   // the statement under way
	backends map[*member]uint32    // their pids
}

// canceler is something under way.
type canceler interface{ cancel() }

// member is the gang's executor on one segment, or a reader.
type member struct {
	g       *Gang
	seg     Segment
	reader  int               // 0: the gang's own; isKeeper: a keeper
	told    string            // what a reader has been told; see Gang.TellReaders
	beside  []*member         // the own one's readers, from 1
	keeper  *member           // the own one's, nil: it has had none
	has     map[string]string // parameters of the session that a reader has
	conn    *pgconn.PgConn    // nil: not connected
	pid     uint32            // of the segment's PostgreSQL backend
	peer    motion.Peer
	onError func() // told of an ErrorResponse; see CopyIn
	// onSnapshot is told that a snapshot has been taken; see Gang.ExecTogether.
	onSnapshot func()
	tuned      map[string]string // parameters of motions the executor has

	begun     bool // a transaction block is open there
	wrote     bool
	noPrepare bool
	lost      bool  // the connection went away in the transaction
	why       error // what failed the transaction there, if it has failed
	prepared  bool
}

// NewGang returns a gang without connections; they are made as needed.
func (d *Dispatcher) NewGang(cfg GangConfig) *Gang {
	return &Gang{d: d, cfg: cfg, ops: make(map[canceler]struct{}), backends: make(map[*member]uint32)}
}

// Close drops all connections; open transactions are rolled back. Nothing may
// be running.
func (g *Gang) Close() {
	for _, m := range g.members {
		m.dropAll()
	}
	g.members = nil
	g.tx = txn{}
	g.d.mu.Lock()
	delete(g.d.gangs, g)
	g.d.mu.Unlock()
}

// Busy says whether a Running or a CopyIn is unfinished; no other statement
// can be dispatched until it is.
func (g *Gang) Busy() bool { return g.busy.Load() }

// Cancel cancels whatever the gang is doing. The call that started it returns
// an error with SQLSTATE 57014.
func (g *Gang) Cancel() {
	g.mu.Lock()
	ops := make([]canceler, 0, len(g.ops))
	for o := range g.ops {
		ops = append(ops, o)
	}
	g.mu.Unlock()
	for _, o := range ops {
		o.cancel()
	}
}

// current is the statement under way, nil for none. Any goroutine may call it.
func (g *Gang) current() *op {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running
}

// setBackend notes the member's backend, 0 for none.
func (g *Gang) setBackend(m *member, pid uint32) {
	g.mu.Lock()
	if pid == 0 {
		delete(g.backends, m)
	} else {
		g.backends[m] = pid
	}
	g.mu.Unlock()
	if pid != 0 {
		g.d.mu.Lock()
		g.d.gangs[g] = struct{}{}
		g.d.mu.Unlock()
	}
}

func (g *Gang) register(o canceler) {
	g.mu.Lock()
	g.ops[o] = struct{}{}
	if op, ok := o.(*op); ok {
		g.running = op
	}
	g.mu.Unlock()
}

func (g *Gang) unregister(o canceler) {
	g.mu.Lock()
	delete(g.ops, o)
	if op, ok := o.(*op); ok && g.running == op {
		g.running = nil
	}
	g.mu.Unlock()
}

// refresh takes over changes of the list of segments.
func (g *Gang) refresh() {
	segs := g.d.cfg.Segments()
	same := len(segs) == len(g.members)
	for i := 0; same && i < len(segs); i++ {
		same = segs[i] == g.members[i].seg
	}
	if same {
		return
	}
	old := make(map[Segment]*member, len(g.members))
	for _, m := range g.members {
		old[m.seg] = m
	}
	g.members = make([]*member, len(segs))
	for i, s := range segs {
		if m := old[s]; m != nil {
			g.members[i] = m
			delete(old, s)
		} else {
			g.members[i] = &member{g: g, seg: s}
		}
	}
	for _, m := range old {
		m.dropAll()
	}
}

// pick returns the members of the segments with those content ids, nil = all.
func (g *Gang) pick(segs []int) ([]*member, error) {
	if !g.tx.active || len(g.members) == 0 {
		g.refresh()
	}
	if segs == nil {
		if len(g.members) == 0 {
			return nil, newError("XX000", "the cluster has no segments", nil)
		}
		return g.members, nil
	}
	ms := make([]*member, 0, len(segs))
	for _, c := range segs {
		m := g.member(c)
		if m == nil {
			return nil, newError("XX000", fmt.Sprintf("there is no segment with content id %d", c), nil)
		}
		ms = append(ms, m)
	}
	return ms, nil
}

func (g *Gang) member(content int) *member {
	// Contents are 0..N-1 in order, as a rule.
	if content >= 0 && content < len(g.members) && int(g.members[content].seg.Content) == content {
		return g.members[content]
	}
	for _, m := range g.members {
		if int(m.seg.Content) == content {
			return m
		}
	}
	return nil
}

// connecting is a canceler of connection attempts.
type connecting struct{ stop context.CancelFunc }

func (c *connecting) cancel() { c.stop() }

// ready makes sure that all members are connected. Inside a transaction a lost
// member is an error, because its part of the transaction is lost too.
func (g *Gang) ready(ctx context.Context, ms []*member) error {
	var todo []*member
	for _, m := range ms {
		if m.lost {
			e := newError(codeInFailedTx, "current transaction is aborted, commands ignored until end of transaction block", nil)
			e.Detail = fmt.Sprintf("The connection to seg%d %s was lost.", m.seg.Content, m.seg.Address)
			if m.why != nil {
				e.Detail += " " + m.why.Error()
			}
			e.Seg, e.Lost = int(m.seg.Content), true
			return e
		}
		if m.alive() {
			continue
		}
		if m.begun {
			return m.gone()
		}
		m.drop()
		todo = append(todo, m)
	}
	if len(todo) == 0 {
		return nil
	}
	cctx, stop := context.WithCancel(ctx)
	defer stop()
	c := &connecting{stop}
	g.register(c)
	defer g.unregister(c)
	errs := make([]error, len(todo))
	parallel(len(todo), func(i int) {
		if errs[i] = todo[i].connect(cctx, false); errs[i] != nil {
			stop()
		}
	})
	return worst(ctx, errs)
}

// worst returns the first of the most telling errors.
func worst(ctx context.Context, errs []error) error {
	var w error
	for _, err := range errs {
		if err != nil && (w == nil || rank(err) > rank(w)) {
			w = err
		}
	}
	if w != nil && ctx.Err() != nil && rank(w) < 4 {
		return canceled(ctx)
	}
	return w
}

// parallel calls f(0) … f(n-1), the last one in the caller's goroutine.
func parallel(n int, f func(int)) {
	var wg sync.WaitGroup
	for i := range n - 1 {
		wg.Go(func() { f(i) })
	}
	if n > 0 {
		f(n - 1)
	}
	wg.Wait()
}
