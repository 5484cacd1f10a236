package dispatch

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// lockWaits knows which backends of a segment wait for a lock. Many statements may
// want to know at the same time, just when the machine is busy: they share the
// answer, and the connection by which it is asked for.
type lockWaits struct {
	mu   sync.Mutex
	conn *pgconn.PgConn // nil when there is none
	pids map[uint32]bool
	at   time.Time // when it was asked
}

// lockWaitsIdle is how long the connection is kept for the next question.
const lockWaitsIdle = 10 * time.Second

// lockWaits is what is known of a segment.
func (d *Dispatcher) lockWaits(seg Segment) *lockWaits {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.waiting[seg]
	if w == nil {
		w = &lockWaits{}
		d.waiting[seg] = w
	}
	return w
}

// waitsOn says whether a backend of a segment waits for a lock, or did so less
// than Params.LatchShared ago.
func (d *Dispatcher) waitsOn(ctx context.Context, seg Segment, pid uint32) (bool, error) {
	w := d.lockWaits(seg)
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.at) < d.p.LatchShared {
		return w.pids[pid], nil
	}
	if w.conn == nil {
		var err error
		if w.conn, err = d.connectSegment(ctx, seg, "postgres"); err != nil {
			return false, err
		}
	}
	asked := time.Now()
	rows, err := query(ctx, w.conn, "SELECT pid FROM pg_catalog.pg_stat_activity WHERE wait_event_type = 'Lock'")
	if err != nil {
		w.close()
		return false, err
	}
	w.at, w.pids = asked, make(map[uint32]bool, len(rows))
	for _, r := range rows {
		if n, err := strconv.ParseUint(string(r[0]), 10, 32); err == nil {
			w.pids[uint32(n)] = true
		}
	}
	return w.pids[pid], nil
}

// close ends the connection. mu is held.
func (w *lockWaits) close() {
	if w.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.conn.Close(ctx)
		w.conn = nil
	}
}

// closeLockWaits ends the connections that nobody has used for a while.
func (d *Dispatcher) closeLockWaits(unused time.Duration) {
	d.mu.Lock()
	all := make([]*lockWaits, 0, len(d.waiting))
	for _, w := range d.waiting {
		all = append(all, w)
	}
	d.mu.Unlock()
	for _, w := range all {
		w.mu.Lock()
		if time.Since(w.at) >= unused {
			w.close()
		}
		w.mu.Unlock()
	}
}
