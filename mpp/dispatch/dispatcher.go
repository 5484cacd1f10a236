package dispatch

import (
	"log/slog"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
)

// Segment is one primary.
type Segment struct {
	Content int16
	Dbid    uint16
	Dir     datadir.Dir
	// Address is host:port, as error messages show it.
	Address string
}

// Params are the dispatcher's limits. A zero field means its default.
type Params struct {
	// ConnectTimeout bounds the wait for a segment that is restarting or
	// being recovered; 5 s, a little more than a PostgreSQL restart takes.
	ConnectTimeout time.Duration
	// LatchShared is how long a statement may take to open its slices before
	// it is looked whether it waits for a lock, and every how often; 20 ms.
	// If it does it lets go of the latch, since the lock's owner may be about
	// to commit. Opening takes well below 1 ms as a rule.
	LatchShared time.Duration
	// LatchLimit is how long a statement may hold off commits, and a commit
	// statements, at the very most; 5 s.
	LatchLimit time.Duration
	// CommitRetry is how long a decided commit is pressed on a segment that
	// does not answer before it is left to recovery; 10 s.
	CommitRetry time.Duration
	// CancelTimeout is how long a cancelled segment may take to answer before
	// its connection is cut; 10 s.
	CancelTimeout time.Duration
	// DeadlockTimeout is how long a statement runs before it is looked
	// whether it waits in a circle over several segments; 1 s, PostgreSQL's
	// deadlock_timeout.
	DeadlockTimeout time.Duration
	// ReaderLock is how long a reader waits for a lock before the statement is run
	// without readers; 100 ms, well above what most locks are held.
	ReaderLock time.Duration
	// ReaderIdle is how long a reader's connection is kept for the session's next
	// statement; 18 s, Greenplum's default of gp_vmem_idle_resource_timeout.
	ReaderIdle time.Duration
	// IdleLook is how often it is looked whether an executor that has nothing to do in
	// a statement is still there; 1 s, little work and a short wait for who waits in vain.
	IdleLook time.Duration
	// RecoverEvery is the pause between two attempts to resolve what is in
	// doubt; 2 s.
	RecoverEvery time.Duration
}

func (p *Params) setDefaults() {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&p.ConnectTimeout, 5 * time.Second},
		{&p.LatchShared, 20 * time.Millisecond},
		{&p.LatchLimit, 5 * time.Second},
		{&p.CommitRetry, 10 * time.Second},
		{&p.CancelTimeout, 10 * time.Second},
		{&p.DeadlockTimeout, time.Second},
		{&p.ReaderLock, 100 * time.Millisecond},
		{&p.ReaderIdle, 18 * time.Second},
		{&p.IdleLook, time.Second},
		{&p.RecoverEvery, 2 * time.Second},
	} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
}

// Config says what a Dispatcher dispatches to.
type Config struct {
	// Segments lists the primaries; it is called often and may be called
	// concurrently. Its result is not modified.
	Segments func() []Segment
	// Coordinator is the coordinator's data directory: its PostgreSQL knows
	// which distributed transactions have committed.
	Coordinator datadir.Dir
	// Superuser is the database superuser for recovery; "gpadmin" when empty.
	Superuser string
	// Log may be nil.
	Log    *slog.Logger
	Params Params
}

// Dispatcher is what the sessions of a coordinator process share. Its methods
// may be called concurrently.
type Dispatcher struct {
	cfg   Config
	log   *slog.Logger
	p     Params
	latch latch

	mu      sync.Mutex
	live    map[string]bool     // gids whose session is at work on them
	state   map[int16]*segState // by content
	waiting map[Segment]*lockWaits
	blocks  uint64                 // times that block has run
	eras    map[int64]uint64       // of the coordinator's PostgreSQL: first transaction ids
	gangs   map[*Gang]struct{}     // those with connections
	readers map[*member]time.Time  // until when they are kept; zero: they are at work
	rooms   map[Segment]readerRoom // for readers
	kick    chan struct{}          // wakes Recover
}

// New returns a Dispatcher. It connects to nothing yet.
func New(cfg Config) *Dispatcher {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Superuser == "" {
		cfg.Superuser = "gpadmin"
	}
	cfg.Params.setDefaults()
	return &Dispatcher{
		cfg: cfg, log: cfg.Log, p: cfg.Params,
		live: make(map[string]bool), state: make(map[int16]*segState), eras: make(map[int64]uint64), waiting: make(map[Segment]*lockWaits), gangs: make(map[*Gang]struct{}),
		readers: make(map[*member]time.Time), rooms: make(map[Segment]readerRoom), kick: make(chan struct{}, 1),
	}
}
